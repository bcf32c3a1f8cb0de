//! `/v1/replays`, `/v1/simulations` and the explanation: what may be asked, and by whom.

use leeward_common::api::v1::{Explanation, ReplayLine};

use super::*;

async fn ask(aggregator: &Aggregator, path: &str, body: &str) -> Answer {
    let request = post(path, body.to_owned()).with("authorization", "Bearer viewer");
    aggregator.ask(request.body).await
}

#[tokio::test]
async fn questions_about_the_past_and_the_future_need_a_token() {
    let aggregator = Aggregator::at(CALM);
    for path in ["/v1/replays", "/v1/simulations"] {
        assert_eq!(aggregator.post(path, "{}").await.status, 401);
    }
}

#[tokio::test]
async fn a_replay_of_nothing_says_so_in_its_last_line() {
    let aggregator = Aggregator::at(CALM);
    let answer = ask(&aggregator, "/v1/replays", r#"{"from":"-5s"}"#).await;
    assert_eq!(answer.headers[header::CONTENT_TYPE], "application/x-ndjson");
    let text = answer.text();
    let last = text.lines().last().unwrap();
    let line: ReplayLine = serde_json::from_str(last).unwrap();
    assert!(
        matches!(&line, ReplayLine::Failed { detail } if detail == "the journal is empty"),
        "{line:?}"
    );
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_with_what_to_do() {
    let aggregator = Aggregator::at(CALM);
    for (path, body, status) in [
        ("/v1/replays", r#"{"from":"yesterday"}"#, 400),
        ("/v1/replays", r#"{"from":"now"}"#, 422),
        (
            "/v1/replays",
            r#"{"from":"-5s","policy":"[policy]\nevaluate = 1"}"#,
            422,
        ),
        ("/v1/simulations", r#"{"duration_ms":0}"#, 422),
        ("/v1/simulations", r#"{"duration_ms":99999999}"#, 422),
        ("/v1/simulations", r#"{"duration_ms":1000}"#, 503),
    ] {
        ask(&aggregator, path, body).await.problem(status);
    }
}

#[tokio::test]
async fn an_explanation_is_the_answer_and_what_would_change_it() {
    let aggregator = Aggregator::at(CALM);
    let path = "/v1/failover/virginia/explanation";
    let explanation: Explanation = aggregator.get(path).await.json();
    assert_eq!(explanation.failover.primary_region.as_str(), "virginia");
    assert_eq!(explanation.failover.policy_version.len(), 16);
    let changes = &explanation.would_change_if;
    assert!(changes.iter().any(|change| change.selected));
    assert!(changes.iter().all(|change| !change.detail.is_empty()));
    aggregator
        .get("/v1/failover/virgina/explanation")
        .await
        .problem(404);
}
