//! The aggregator itself: routes, health, metrics, the OpenAPI document.

use leeward_common::api::{problem::Code, v1::Health};

use super::*;

#[tokio::test]
async fn the_openapi_document_in_docs_is_the_one_that_is_served() {
    let served = Aggregator::at(EARLY).get("/openapi.json").await.text();
    assert_eq!(served, super::super::openapi());
    golden("../docs/openapi.json", &served);
}

#[test]
fn every_write_needs_a_token_and_every_error_is_a_problem() {
    let document: serde_json::Value = serde_json::from_str(&super::super::openapi()).unwrap();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let is_write = method != "get"
                && !["/v1/failover/evaluate", "/v1/placements"].contains(&path.as_str());
            assert_eq!(
                operation.get("security").is_some(),
                is_write,
                "{method} {path}"
            );
            for (status, response) in operation["responses"].as_object().unwrap() {
                let is_problem = response["content"]
                    .get("application/problem+json")
                    .is_some();
                assert_eq!(
                    is_problem,
                    status.starts_with(['4', '5']) && path != "/readyz",
                    "{method} {path} {status}"
                );
            }
        }
    }
}

#[tokio::test]
async fn what_is_not_there_and_what_is_not_taken_are_problems() {
    let aggregator = Aggregator::at(EARLY);
    assert_eq!(
        aggregator.get("/v2/overview").await.problem(404).code,
        Code::NoSuchRoute
    );
    assert_eq!(
        aggregator.post("/v1/regions", "{}").await.problem(405).code,
        Code::MethodNotAllowed
    );
}

#[tokio::test]
async fn readiness_says_what_keeps_the_aggregator_from_its_work() {
    let aggregator = Aggregator::at(EARLY);
    assert_eq!(
        aggregator.get("/readyz").await.json::<Health>().status,
        "ready"
    );
    aggregator.shared.readiness.set(State::StoreFailed);
    let answer = aggregator.get("/readyz").await;
    assert_eq!(answer.status, 503);
    assert!(
        answer.text().contains("the store refuses writes"),
        "{}",
        answer.text()
    );
    assert_eq!(
        aggregator.get("/healthz").await.json::<Health>().status,
        "ok"
    );
}

#[tokio::test]
async fn answers_are_counted_by_route_and_never_by_path() {
    let aggregator = Aggregator::at(CALM);
    aggregator.get("/v1/failover/virginia").await;
    aggregator.get("/v1/failover/mars").await;
    aggregator.get("/somewhere/else").await;
    let answer = aggregator.get("/metrics").await;
    assert!(
        answer.headers[header::CONTENT_TYPE]
            .to_str()
            .unwrap()
            .starts_with("application/openmetrics-text")
    );
    let text = answer.text();
    for line in [
        r#"leeward_aggregator_http_requests_total{route="/v1/failover/{primary_region}",status="200"} 1"#,
        r#"leeward_aggregator_http_requests_total{route="/v1/failover/{primary_region}",status="404"} 1"#,
        r#"leeward_aggregator_http_requests_total{route="none",status="404"} 1"#,
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert!(!text.contains("mars") && !text.contains("somewhere"));
}
