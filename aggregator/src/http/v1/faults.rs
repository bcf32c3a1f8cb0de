//! What is at fault, and what was not done.

use axum::{
    extract::{Query, State, rejection::QueryRejection},
    http::HeaderMap,
    response::Response,
};
use leeward_common::api::{
    problem::Problem,
    v1::{Faults, Hesitations},
};
use serde::Deserialize;
use utoipa::IntoParams;

use super::Now;
use crate::{
    http::{answer::answer, convert, error::Refused},
    shared::Shared,
};

/// The most that are told at once: all that are remembered.
const MAX_LIMIT: usize = 1_024;

/// What is at fault: an agent, a host, a region or the link between two; since when, who sees it and how sure that is; and
/// whose view does not count.
#[utoipa::path(
    get, path = "/v1/faults", tag = "network",
    responses((status = 200, description = "What is at fault", body = Faults)),
)]
pub(in crate::http) async fn faults(
    State(shared): State<Shared>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let now = Now::of(&shared);
    answer(&headers, &convert::faults(&now.moment()))
}

/// How many.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct Which {
    /// At most so many; 50 if left out, 1024 at most.
    limit: Option<usize>,
}

/// Moves that were not made, newest first: what was waited for, and doubts that were ruled out.
#[utoipa::path(
    get, path = "/v1/hesitations", tag = "decisions", params(Which),
    responses(
        (status = 200, description = "Moves that were not made", body = Hesitations),
        (status = 400, description = "The query cannot be read", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(in crate::http) async fn hesitations(
    State(shared): State<Shared>,
    which: Result<Query<Which>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let Query(which) = which.map_err(|error| super::malformed(&error))?;
    let limit = which.limit.unwrap_or(50).clamp(1, MAX_LIMIT);
    let now = Now::of(&shared);
    answer(&headers, &convert::hesitations(&now.view, limit))
}
