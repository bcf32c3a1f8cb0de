//! Regions and links.

use axum::{
    extract::{Path, Query, State, rejection::QueryRejection},
    http::HeaderMap,
    response::Response,
};
use leeward_common::{
    api::{
        problem::{Code, Problem},
        v1::{Graph, Link, Region, Regions},
    },
    id::RegionId,
};
use leeward_engine::policy::Policy;
use serde::Deserialize;
use utoipa::IntoParams;

use super::Now;
use crate::{
    http::{App, answer::answer, convert, error::Refused, names},
    shared::Shared,
};

/// From where.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct Seen {
    /// The region whose view the nodes show; without it their measures are unknown.
    from: Option<String>,
}

/// The regions as seen from one, and every directed link.
#[utoipa::path(
    get, path = "/v1/graph", tag = "network", params(Seen),
    responses(
        (status = 200, description = "The network", body = Graph),
        (status = 404, description = "No such region; lists near names", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(in crate::http) async fn graph(
    State(app): State<App>,
    seen: Result<Query<Seen>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let Query(seen) = seen.map_err(|error| super::malformed(&error))?;
    Ok(app.page().graph(seen.from.as_deref())?.response(&headers))
}

/// One directed link with its recent windows.
#[utoipa::path(
    get, path = "/v1/links/{from}/{to}", tag = "network",
    params(
        ("from" = String, Path, description = "Whose agents measure"),
        ("to" = String, Path, description = "Whom they measure"),
    ),
    responses(
        (status = 200, description = "The link; unknown and without windows if nobody measured it", body = Link),
        (status = 404, description = "No such region; lists near names", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Both ends are the same region", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(in crate::http) async fn link(
    State(shared): State<Shared>,
    Path((from, to)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let now = Now::of(&shared);
    let (from, to) = ends(&now.view.policy, &from, &to)?;
    answer(&headers, &convert::link(&now.moment(), &from, &to))
}

/// The ends of a link.
pub(super) fn ends(policy: &Policy, from: &str, to: &str) -> Result<(RegionId, RegionId), Refused> {
    let from = names::region(policy, from)?;
    let to = names::region(policy, to)?;
    if from == to {
        let detail = format!("a link has two ends, and both are {from}");
        return Err(Refused::new(
            Code::InvalidRequest,
            detail,
            "name two regions",
        ));
    }
    Ok((from.clone(), to.clone()))
}

/// Every region.
#[utoipa::path(get, path = "/v1/regions", tag = "network", responses((status = 200, description = "The regions", body = Regions)))]
pub(in crate::http) async fn regions(
    State(shared): State<Shared>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    answer(&headers, &convert::regions(&Now::of(&shared).moment()))
}

/// One region.
#[utoipa::path(
    get, path = "/v1/regions/{region}", tag = "network",
    params(("region" = String, Path, description = "Which")),
    responses(
        (status = 200, description = "The region", body = Region),
        (status = 404, description = "No such region; lists near names", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(in crate::http) async fn region(
    State(shared): State<Shared>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let now = Now::of(&shared);
    let id = names::region(&now.view.policy, &name)?;
    answer(&headers, &convert::region(&now.moment(), id))
}
