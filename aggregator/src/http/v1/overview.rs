//! How it all fares.

use std::future::ready;

use axum::{
    extract::State,
    http::{HeaderMap, Uri},
    response::Response,
};
use leeward_common::api::{problem::Problem, v1::Overview};

use crate::http::{
    App,
    error::Refused,
    places::Client,
    wait::{MaybeWait, Wait},
};

/// The one sentence, and the facts behind it.
///
/// The ETag changes when the sentence, the counts or a selection does and not with every figure.
#[utoipa::path(
    get, path = "/v1/overview", tag = "failover", params(MaybeWait),
    responses(
        (status = 200, description = "How it all fares", body = Overview),
        (status = 304, description = "It is still the one with this ETag"),
        (status = 429, description = "No place left to wait, for this client or for all", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(in crate::http) async fn overview(
    State(app): State<App>,
    client: Client,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let wait = Wait::only(&uri, &headers)?;
    app.answer(&headers, client, wait, |app| {
        let audit = app.shared.view.audit();
        ready(app.page().overview(&app.shared.name, &audit))
    })
    .await
}
