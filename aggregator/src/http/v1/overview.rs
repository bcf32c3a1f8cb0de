//! How it all fares.

use axum::{extract::State, http::HeaderMap, response::Response};
use leeward_common::api::v1::Overview;

use super::Now;
use crate::{
    http::{answer::answer, convert, error::Refused},
    shared::Shared,
};

/// The one sentence, and the facts behind it.
#[utoipa::path(get, path = "/v1/overview", tag = "failover", responses((status = 200, description = "How it all fares", body = Overview)))]
pub(in crate::http) async fn overview(
    State(shared): State<Shared>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    answer(
        &headers,
        &convert::overview(&Now::of(&shared).moment(), &shared.name),
    )
}
