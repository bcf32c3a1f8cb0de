//! `/v1/traces`.

use leeward_common::api::{
    problem::Code,
    v1::{OrderState, TraceOutcome, Traces},
};

use super::*;

#[tokio::test]
async fn routes_that_were_traced_are_listed_and_what_is_not_known_is_open() {
    let aggregator = Aggregator::at(CALM);
    let traces: Traces = aggregator
        .get("/v1/traces?from=virginia&to=ireland")
        .await
        .json();
    assert!(traces.traces.is_empty());
    let outcome: TraceOutcome = aggregator.get("/v1/traces/17?wait=1ms").await.json();
    assert_eq!((outcome.order, outcome.state), (17, OrderState::Open));
    assert!(outcome.trace.is_none());
    for (path, status, code) in [
        ("/v1/traces?from=virgina", 404, Code::UnknownRegion),
        ("/v1/traces?limit=0", 400, Code::MalformedParameter),
        ("/v1/traces?limit=513", 400, Code::MalformedParameter),
        ("/v1/traces/seventeen", 400, Code::MalformedParameter),
    ] {
        assert_eq!(
            aggregator.get(path).await.problem(status).code,
            code,
            "{path}"
        );
    }
}

#[tokio::test]
async fn an_order_needs_an_operator_and_a_path() {
    let aggregator = Aggregator::at(CALM);
    let body = r#"{"from":"virginia","to":"ireland"}"#;
    let refused = async |token: &str, body: &'static str, status| {
        let order = post("/v1/traces", body);
        let order = order.with("authorization", &format!("Bearer {token}"));
        aggregator.ask(order.body).await.problem(status)
    };
    assert_eq!(
        refused("guess", body, 401).await.code,
        Code::Unauthenticated
    );
    assert_eq!(refused("injector", body, 403).await.code, Code::Forbidden);
    // No agent is registered here.
    let problem = refused("operator", body, 422).await;
    assert_eq!(problem.detail, "no agent of virginia probes ireland");
    let same = r#"{"from":"virginia","to":"virginia"}"#;
    assert_eq!(
        refused("operator", same, 422).await.code,
        Code::InvalidRequest
    );
    let nobody = r#"{"from":"virginia","to":"ireland","agent":"nobody"}"#;
    assert_eq!(
        refused("operator", nobody, 404).await.code,
        Code::UnknownAgent
    );
    let misspelt = r#"{"from":"virginia","to":"ireland","mtuu":true}"#;
    assert_eq!(
        refused("operator", misspelt, 400).await.code,
        Code::MalformedBody
    );
}
