//! What routers tell of the prefixes that regions are reached by.

use axum::{
    extract::{Query, State, rejection::QueryRejection},
    http::HeaderMap,
    response::Response,
};
use leeward_common::{
    api::{
        problem::Problem,
        v1::{BgpEvents, BgpPeers, BgpPrefixes, Defined, Reach, ReachSpec, Reaches},
    },
    id::{InvalidId, RegionId},
};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{Now, define::Intended};
use crate::{
    http::{answer::answer, convert, error::Refused},
    intent::Thing,
    shared::Shared,
};

/// The most that are told at once: all that are remembered.
const MAX_LIMIT: usize = 512;

/// Watched prefixes: who sees them, and what happened to them in the last window in which something did.
#[utoipa::path(
    get, path = "/v1/bgp/prefixes", tag = "network",
    responses((status = 200, description = "Watched prefixes", body = BgpPrefixes)),
)]
pub(in crate::http) async fn prefixes(
    State(shared): State<Shared>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    answer(&headers, &convert::bgp_prefixes(&Now::of(&shared).view))
}

/// Feeds of routing: whether they can be believed, and what they said.
#[utoipa::path(
    get, path = "/v1/bgp/peers", tag = "network",
    responses((status = 200, description = "Feeds of routing", body = BgpPeers)),
)]
pub(in crate::http) async fn peers(
    State(shared): State<Shared>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    answer(&headers, &convert::bgp_peers(&Now::of(&shared).view))
}

/// By which prefixes regions are reached, and who said so.
#[utoipa::path(
    get, path = "/v1/bgp/reach", tag = "network",
    responses((status = 200, description = "By which prefixes regions are reached", body = Reaches)),
)]
pub(in crate::http) async fn reaches(
    State(shared): State<Shared>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    answer(&headers, &convert::reaches(&Now::of(&shared).view))
}

impl Intended for RegionId {
    const ROUTE: &'static str = "/v1/bgp/reach/{region_id}";
    const NAME: &'static str = "reach";
    const PARAMETER: &'static str = "region_id";
    const TAG: &'static str = "network";
    type Spec = ReachSpec;
    type Answer = Reach;

    fn parse(id: &str) -> Result<Self, InvalidId> {
        Self::parse(id)
    }

    fn thing(&self) -> Thing {
        Thing::Reach(self.clone())
    }

    fn defined(self, spec: ReachSpec) -> Defined {
        Defined::Reach(self, spec)
    }
}

/// How many.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct Which {
    /// At most so many; 50 if left out, 512 at most.
    limit: Option<usize>,
}

/// What happened to watched prefixes and to feeds, newest first.
#[utoipa::path(
    get, path = "/v1/bgp/events", tag = "network", params(Which),
    responses(
        (status = 200, description = "Routing events", body = BgpEvents),
        (status = 400, description = "The query cannot be read", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(in crate::http) async fn events(
    State(shared): State<Shared>,
    which: Result<Query<Which>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let Query(which) = which.map_err(|error| super::malformed(&error))?;
    let limit = which.limit.unwrap_or(50).clamp(1, MAX_LIMIT);
    answer(
        &headers,
        &convert::bgp_events(&Now::of(&shared).view, limit),
    )
}
