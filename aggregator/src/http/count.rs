//! Counts every answer and how long it took.

use std::{collections::BTreeSet, sync::LazyLock, time::Instant};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderValue, header},
    middleware::Next,
    response::Response,
};

use super::{App, OPENAPI, wait::Waited};
use crate::metrics;

/// Every route, as a label: those of the document, and the document's own. Labels come from here and never from a request.
static ROUTES: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
    let documented = super::routes().into_openapi().paths.paths.into_keys();
    documented.chain([OPENAPI.to_owned()]).collect()
});

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
    let known = matched.and_then(|matched| ROUTES.get(matched));
    known.map_or("none", String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_a_route_and_nothing_else_is_one() {
        for path in ["/v1/services/{service_id}", OPENAPI] {
            assert_eq!(route(Some(path)), path);
        }
        for path in [None, Some("/v1/services/checkout"), Some("")] {
            assert_eq!(route(path), "none");
        }
    }
}
