//! Counts every answer and how long it took.

use std::time::Instant;

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderValue, header},
    middleware::Next,
    response::Response,
};

use super::{App, wait::Waited};
use crate::metrics;

/// Every route, as a label. Labels come from here and never from a request.
const ROUTES: &[&str] = &[
    "/v1/failover",
    "/v1/failover/{primary_region}",
    "/v1/failover/evaluate",
    "/v1/failover/{primary_region}/explanation",
    "/v1/overview",
    "/v1/graph",
    "/v1/graph/routes",
    "/v1/links/{from}/{to}",
    "/v1/regions",
    "/v1/regions/{region}",
    "/v1/agents",
    "/v1/agents/{agent}",
    "/v1/decisions",
    "/v1/decisions/{decision}",
    "/v1/watch",
    "/v1/replays",
    "/v1/simulations",
    "/v1/signals",
    "/v1/services",
    "/v1/services/{service_id}",
    "/v1/services/{service_id}/failover",
    "/v1/capacity",
    "/v1/capacity/offers/{offer_id}",
    "/v1/capacity/reservations/{reservation_id}",
    "/v1/overrides",
    "/v1/overrides/{override_id}",
    "/v1/placements",
    "/v1/readiness",
    "/v1/audit",
    "/healthz",
    "/readyz",
    "/metrics",
    "/openapi.json",
];

/// Counts one answer.
pub(super) async fn count(State(app): State<App>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let route = route(
        request
            .extensions()
            .get::<MatchedPath>()
            .map(MatchedPath::as_str),
    );
    let mut response = next.run(request).await;
    let labels = metrics::Request {
        route,
        status: response.status().as_u16(),
    };
    app.shared
        .metrics
        .http_requests
        .get_or_create(&labels)
        .inc();
    if response.extensions().get::<Waited>().is_none() {
        app.shared
            .metrics
            .http_request_seconds
            .observe(began.elapsed().as_secs_f64());
    }
    response.headers_mut().insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}

fn route(matched: Option<&str>) -> &'static str {
    let matched = matched.unwrap_or_default();
    ROUTES
        .iter()
        .find(|route| **route == matched)
        .copied()
        .unwrap_or("none")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_has_its_label() {
        for path in super::super::routes().get_openapi().paths.paths.keys() {
            assert_eq!(route(Some(path)), path);
        }
    }
}
