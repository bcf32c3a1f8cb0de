//! The best ways between regions.

use axum::{
    extract::{Query, State, rejection::QueryRejection},
    http::HeaderMap,
    response::Response,
};
use leeward_common::api::{problem::Problem, v1::Routes};
use serde::Deserialize;
use utoipa::IntoParams;

use super::Now;
use crate::{
    http::{answer::answer, convert, error::Refused, names},
    shared::Shared,
};

/// Between whom.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct Ends {
    /// Only from this region.
    from: Option<String>,
    /// Only to this region.
    to: Option<String>,
}

/// The best ways between regions, straight or over one relay.
#[utoipa::path(
    get, path = "/v1/graph/routes", tag = "network", params(Ends),
    responses(
        (status = 200, description = "The ways between all regions, or those asked for", body = Routes),
        (status = 404, description = "No such region; lists near names", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(in crate::http) async fn routes(
    State(shared): State<Shared>,
    ends: Result<Query<Ends>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let Query(ends) = ends.map_err(|error| super::malformed(&error))?;
    let now = Now::of(&shared);
    let known = |name: &Option<String>| match name {
        Some(name) => names::region(&now.view.policy, name).map(Some),
        None => Ok(None),
    };
    let (from, to) = (known(&ends.from)?, known(&ends.to)?);
    answer(&headers, &convert::routes(&now.moment(), from, to))
}
