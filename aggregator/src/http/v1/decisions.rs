//! What was decided.

use axum::{
    extract::{Query, State, rejection::QueryRejection},
    http::HeaderMap,
    response::Response,
};
use leeward_common::api::{problem::Problem, v1::Decisions};
use serde::Deserialize;
use utoipa::IntoParams;

use super::Now;
use crate::{
    http::{answer::answer, convert, error::Refused, names},
    shared::Shared,
};

/// Decisions on one page at most: with their evidence one weighs some kB.
const MAX_LIMIT: u32 = 200;

/// Which decisions.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct Which {
    /// Only this region's.
    primary_region: Option<String>,
    /// Only those with a smaller id: `next_before` of the page before.
    before: Option<u64>,
    /// At most so many; 50 if left out, 200 at most.
    limit: Option<u32>,
}

/// What was decided lately, newest first: why, when, from, to and with which evidence.
#[utoipa::path(
    get, path = "/v1/decisions", tag = "failover", params(Which),
    responses(
        (status = 200, description = "The decisions", body = Decisions),
        (status = 404, description = "No such region; lists near names", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(in crate::http) async fn decisions(
    State(shared): State<Shared>,
    which: Result<Query<Which>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let Query(which) = which.map_err(|error| super::malformed(&error))?;
    let now = Now::of(&shared);
    let primary = match &which.primary_region {
        Some(name) => Some(names::region(&now.view.policy, name)?),
        None => None,
    };
    let limit = which.limit.unwrap_or(50).min(MAX_LIMIT) as usize;
    let page = convert::Page {
        primary,
        before: which.before,
        limit,
    };
    answer(&headers, &convert::decisions(&now.moment(), page))
}
