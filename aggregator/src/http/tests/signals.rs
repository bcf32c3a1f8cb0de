//! `/v1/signals`: who may say what.

use leeward_common::api::{
    problem::Code,
    v1::{Signal, Signals},
};
use leeward_engine::input::{Metric, Subject};

use super::*;
use crate::turn::TurnError;

const PATH: &str = "/v1/signals";
const HEALTH: &str =
    r#"{"source":"netops","region":"oregon","metric":"health","value":0.5,"ttl_ms":60000}"#;

fn signal(token: &str, body: &str) -> Request<Body> {
    post(PATH, body.to_owned())
        .with("authorization", &format!("Bearer {token}"))
        .body
}

#[tokio::test]
async fn a_write_needs_a_token_that_somebody_knows() {
    let aggregator = Aggregator::at(CALM);
    let answer = aggregator.post(PATH, HEALTH).await;
    assert_eq!(answer.problem(401).code, Code::Unauthenticated);
    assert!(
        answer.headers[header::WWW_AUTHENTICATE]
            .to_str()
            .unwrap()
            .starts_with("Bearer")
    );
    assert_eq!(
        aggregator
            .ask(signal("guess", HEALTH))
            .await
            .problem(401)
            .code,
        Code::Unauthenticated
    );
    let hash: String = Sha256::digest(b"operator")
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(
        aggregator
            .ask(signal(&hash, HEALTH))
            .await
            .problem(401)
            .code,
        Code::Unauthenticated
    );
}

#[tokio::test]
async fn a_token_is_asked_for_before_the_body_is_read() {
    let answer = Aggregator::at(CALM).post(PATH, "nonsense").await;
    assert_eq!(answer.problem(401).code, Code::Unauthenticated);
}

#[tokio::test]
async fn a_token_may_do_only_what_its_role_and_its_sources_allow() {
    let aggregator = Aggregator::at(CALM);
    let problem = aggregator.ask(signal("viewer", HEALTH)).await.problem(403);
    assert_eq!(problem.code, Code::Forbidden);
    assert!(
        problem.what_to_do.contains("injector"),
        "{}",
        problem.what_to_do
    );
    let weather = HEALTH.replace("netops", "weather");
    assert_eq!(
        aggregator
            .ask(signal("injector", &weather))
            .await
            .problem(403)
            .code,
        Code::Forbidden
    );
}

#[tokio::test]
async fn a_signal_is_in_force_when_it_is_answered() {
    let mut aggregator = Aggregator::at(CALM);
    let body = r#"{"source":"weather","from":"virginia","to":"oregon","metric":"loss_ratio","value":0.2,
        "observed_at":"2026-01-01T00:00:08Z","ttl_ms":60000}"#;
    let request = post(PATH, body)
        .with("authorization", "Bearer operator")
        .with("idempotency-key", "k-1")
        .body;
    let turn = async {
        let Some(Arrival::Signal { signal, done }) = aggregator.arrivals.recv().await else {
            panic!("no signal")
        };
        assert_eq!(signal.source.as_str(), "weather");
        assert!(
            matches!(&signal.subject, Subject::Link(a, b) if a.as_str() == "virginia" && b.as_str() == "oregon")
        );
        assert_eq!((signal.metric, signal.value), (Metric::LossRatio, 0.2));
        assert_eq!((signal.observed_at, signal.expires_at), (at(8.0), at(68.0)));
        assert_eq!(signal.idempotency_key.as_deref(), Some("k-1"));
        done.send(Ok(())).unwrap();
    };
    let (response, ()) = tokio::join!(aggregator.router.clone().oneshot(request), turn);
    let response = response.unwrap();
    assert_eq!(response.status(), 201);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let signal: Signal = serde_json::from_slice(&body).unwrap();
    assert_eq!((signal.expires_at.0, signal.region), (at(68.0), None));
}

#[tokio::test]
async fn a_signal_that_cannot_be_stored_is_refused_for_now() {
    let mut aggregator = Aggregator::at(CALM);
    let turn = async {
        let Some(Arrival::Signal { done, .. }) = aggregator.arrivals.recv().await else {
            panic!("no signal")
        };
        done.send(Err(TurnError::StoreFailed)).unwrap();
    };
    let (response, ()) = tokio::join!(
        aggregator
            .router
            .clone()
            .oneshot(signal("operator", HEALTH)),
        turn
    );
    let response = response.unwrap();
    assert_eq!(response.status(), 503);
    assert!(response.headers().contains_key(header::RETRY_AFTER));
}

#[tokio::test]
async fn a_signal_that_makes_no_sense_never_reaches_the_engine() {
    let mut aggregator = Aggregator::at(CALM);
    let cases = [
        (
            r#"{"source":"netops","region":"oregn","metric":"health","value":0.5,"ttl_ms":1000}"#,
            404,
            "there is no region",
        ),
        (
            r#"{"source":"netop","region":"oregon","metric":"health","value":0.5,"ttl_ms":1000}"#,
            404,
            "there is no signal source",
        ),
        (
            r#"{"source":"netops","metric":"health","value":0.5,"ttl_ms":1000}"#,
            422,
            "one region or one link",
        ),
        (
            r#"{"source":"netops","region":"oregon","to":"virginia","metric":"health","value":0.5,"ttl_ms":1000}"#,
            422,
            "one region or one link",
        ),
        (
            r#"{"source":"netops","from":"oregon","to":"oregon","metric":"health","value":0.5,"ttl_ms":1000}"#,
            422,
            "both oregon",
        ),
        (
            r#"{"source":"netops","region":"oregon","metric":"health","value":1.5,"ttl_ms":1000}"#,
            422,
            "value is 1.5",
        ),
        (
            r#"{"source":"netops","region":"oregon","metric":"loss_ratio","value":0.5,"ttl_ms":1000}"#,
            422,
            "a measure of links",
        ),
        (
            r#"{"source":"netops","region":"oregon","metric":"health","value":0.5,"ttl_ms":0}"#,
            422,
            "ttl_ms is 0",
        ),
        (
            r#"{"source":"netops","region":"oregon","metric":"health","value":0.5,"ttl_ms":3600001}"#,
            422,
            "ttl_ms is 3600001",
        ),
        (
            r#"{"source":"netops","region":"oregon","metric":"health","value":0.5,"ttl_ms":1000,"observed_at":"2026-01-01T00:00:01Z"}"#,
            422,
            "expired already",
        ),
        (
            r#"{"source":"netops","region":"oregon","metric":"health","value":0.5,"ttl_ms":1000,"observed_at":"2026-01-01T01:00:00Z"}"#,
            422,
            "in the future",
        ),
        (
            r#"{"source":"netops","region":"oregon","metric":"mood","value":0.5,"ttl_ms":1000}"#,
            400,
            "metric: unknown variant `mood`",
        ),
        (
            r#"{"source":"netops","region":"oregon","metric":"health","value":0.5,"ttl":"1m"}"#,
            400,
            "unknown field `ttl`",
        ),
    ];
    for (body, status, detail) in cases {
        let problem = aggregator
            .ask(signal("operator", body))
            .await
            .problem(status);
        assert!(
            problem.detail.contains(detail),
            "{body}: {}",
            problem.detail
        );
    }
    let long = post(PATH, HEALTH)
        .with("authorization", "Bearer operator")
        .with("idempotency-key", &"k".repeat(129));
    assert_eq!(
        aggregator.ask(long.body).await.problem(400).code,
        Code::MalformedParameter
    );
    assert!(aggregator.arrivals.try_recv().is_err());
}

#[tokio::test]
async fn signals_in_force_are_listed() {
    let world = format!(
        "{WORLD}\n[[event]]\nat = \"30s\"\nsignal = {{ source = \"netops\", region = \"ireland\", metric = \"health\", value = 0.5, ttl = \"10s\" }}\n"
    );
    let signals: Signals = Aggregator::showing(Story::of(&world).view(31.0))
        .get(PATH)
        .await
        .json();
    assert_eq!(signals.signals.len(), 1);
    assert_eq!(
        signals.signals[0].region.as_ref().unwrap().as_str(),
        "ireland"
    );
    assert_eq!(signals.signals[0].value, 0.5);
}
