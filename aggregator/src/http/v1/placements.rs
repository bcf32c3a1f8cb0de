//! Where everything would go if regions failed: asked before the event.

use axum::{extract::State, http::HeaderMap, response::Response};
use leeward_common::api::{
    problem::{Code, Problem},
    v1::{Placement, PlacementQuestion},
};

use super::Now;
use crate::{
    http::{answer::answer, body::Json, convert, error::Refused, names},
    shared::Shared,
};

/// Places every service that runs in one of these regions, all together, as if the regions failed now. A question: it
/// changes nothing and needs no token.
#[utoipa::path(
    post, path = "/v1/placements", tag = "services",
    request_body = PlacementQuestion,
    responses(
        (status = 200, description = "The answer", body = Placement),
        (status = 400, description = "The body cannot be read; says where", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such region; lists near names", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "No region is named", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(in crate::http) async fn placements(
    State(shared): State<Shared>,
    headers: HeaderMap,
    Json(question): Json<PlacementQuestion>,
) -> Result<Response, Refused> {
    let now = Now::of(&shared);
    if question.failed.is_empty() {
        return Err(Refused::new(
            Code::InvalidRequest,
            "failed is empty",
            "name the regions that fail",
        ));
    }
    for region in &question.failed {
        names::region(&now.view.policy, region.as_str())?;
    }
    answer(
        &headers,
        &convert::placement(&now.moment(), &question.failed),
    )
}
