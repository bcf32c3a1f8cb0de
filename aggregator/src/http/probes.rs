//! The aggregator itself: alive, ready, its metrics, its document.

use axum::{
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use leeward_common::api::v1::Health;

use super::{App, answer::answer, error::Refused};
use crate::shared;

/// Whether the process answers at all.
#[utoipa::path(get, path = "/healthz", tag = "service", responses((status = 200, description = "It does", body = Health)))]
pub(super) async fn healthz() -> Response {
    const ALIVE: &str = r#"{"status":"ok","detail":"the aggregator answers"}"#;
    const JSON: HeaderValue = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, JSON)], ALIVE).into_response()
}

/// Whether the aggregator can do its work.
#[utoipa::path(
    get, path = "/readyz", tag = "service",
    responses(
        (status = 200, description = "It can", body = Health),
        (status = 503, description = "It cannot, and why", body = Health),
    ),
)]
pub(super) async fn readyz(
    State(app): State<App>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let state = app.shared.readiness.state();
    let ready = state == shared::State::Ready;
    let status = if ready { "ready" } else { "not_ready" };
    let mut response = answer(
        &headers,
        &Health {
            status: status.to_owned(),
            detail: state.as_str().to_owned(),
        },
    )?;
    if !ready {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    Ok(response)
}

/// Prometheus metrics in the OpenMetrics format.
#[utoipa::path(get, path = "/metrics", tag = "service", responses((status = 200, description = "OpenMetrics text", body = String, content_type = "application/openmetrics-text")))]
pub(super) async fn metrics(State(app): State<App>) -> Response {
    const OPEN_METRICS: HeaderValue =
        HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    (
        [(header::CONTENT_TYPE, OPEN_METRICS)],
        app.shared.metrics.encode(),
    )
        .into_response()
}

/// This document; not part of itself.
pub(super) async fn openapi(State(app): State<App>) -> Response {
    let json = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, json)], app.openapi.clone()).into_response()
}
