//! `/v1/policies`: what is in force, and a shadow that is set, replaced, followed and removed.

use leeward_common::api::{
    problem::Code,
    v1::{Policies, Removed, ShadowPolicy, ShadowState, WrittenPolicy},
};

use super::{defined::Living, *};
use crate::{config, shadow};

const SHADOW: &str = "/v1/policies/shadow";

/// The policy in force, written out, with something else in it.
async fn other(living: &Living, margin: &str) -> String {
    let current: WrittenPolicy = living.get("/v1/policies/current").await;
    assert!(current.toml.contains("margin = 1.15"), "{}", current.toml);
    current
        .toml
        .replace("margin = 1.15", &format!("margin = {margin}"))
}

fn body(policy: &str) -> String {
    serde_json::json!({"policy": policy, "why": "less moves?"}).to_string()
}

/// Waits until the shadow's thread follows the setting of this version.
async fn followed(living: &Living, version: u64) -> shadow::Standing {
    let mut standing = living.aggregator.shared.shadow.standing.clone();
    let follows = |own: &Arc<shadow::Standing>| {
        own.version == version && own.state == shadow::State::Following
    };
    let own = timeout(DEADLINE, standing.wait_for(follows)).await;
    own.expect("it follows soon").unwrap().as_ref().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shadow_is_set_followed_replaced_and_removed() {
    let living = Living::start();
    let none: Policies = living.get("/v1/policies").await;
    assert_eq!((none.shadow, none.scoreboard), (None, None));
    assert_eq!(none.summary, "no shadow policy is set");
    let gone = living.aggregator.get(SHADOW).await.problem(404);
    assert_eq!(gone.code, Code::UnknownPolicy);

    let policy = other(&living, "1.3").await;
    let answer = living.put(SHADOW, &body(&policy)).await;
    assert_eq!(
        (answer.status.as_u16(), answer.etag().as_str()),
        (201, "\"1\"")
    );
    let put: ShadowPolicy = answer.json();
    assert_eq!((put.version, put.who.as_str()), (1, "operator"));
    assert_eq!(put.spec.why, "less moves?");
    assert_eq!(living.get::<ShadowPolicy>(SHADOW).await, put);
    let standing = followed(&living, 1).await;
    assert!(standing.since.is_some() && standing.restarts == 0);
    let policies: Policies = living.get("/v1/policies").await;
    let shadow = policies.shadow.unwrap();
    assert_eq!(shadow.state, ShadowState::Following);
    assert_eq!(shadow.policy_version, put.written.policy_version);
    assert_ne!(shadow.policy_version, policies.current.policy_version);
    assert_eq!(policies.differences.len(), 1, "{:?}", policies.differences);
    let difference = &policies.differences[0];
    assert_eq!(difference.parameter, "policy.steadiness.margin");
    assert_eq!(
        (difference.current.as_deref(), difference.shadow.as_deref()),
        (Some("1.15"), Some("1.3"))
    );

    let policy = other(&living, "1.4").await;
    let stale = [("if-match", "\"9\"")];
    let conflict = living.send("PUT", SHADOW, &body(&policy), &stale).await;
    assert!(conflict.problem(412).detail.contains("by change 1"));
    let replaced = living
        .send("PUT", SHADOW, &body(&policy), &[("if-match", "\"1\"")])
        .await;
    assert_eq!(
        (replaced.status.as_u16(), replaced.etag().as_str()),
        (200, "\"2\"")
    );
    followed(&living, 2).await;
    let policies: Policies = living.get("/v1/policies").await;
    assert_eq!(policies.shadow.unwrap().version, 2);
    assert_eq!(policies.differences[0].shadow.as_deref(), Some("1.4"));

    let removed = living
        .send(
            "DELETE",
            &format!("{SHADOW}?why=seen"),
            "",
            &[("if-match", "\"2\"")],
        )
        .await;
    let expected = Removed {
        version: 3,
        file: None,
    };
    assert_eq!(removed.json::<Removed>(), expected);
    assert_eq!(living.send("DELETE", SHADOW, "", &[]).await.status, 404);
    let none: Policies = living.get("/v1/policies").await;
    assert_eq!((none.shadow, none.scoreboard), (None, None));
    let policy = other(&living, "1.5").await;
    assert_eq!(living.put(SHADOW, &body(&policy)).await.status, 201);
    followed(&living, 4).await;
    let window = living.aggregator.shared.shadow.clone();
    living.stop().await;
    let (_, standing) = window.look();
    assert_eq!(
        standing.state,
        shadow::State::Failed,
        "its thread has ended"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shadow_that_makes_no_sense_is_refused_with_the_place_and_what_to_do() {
    let living = Living::start();
    let elsewhere = "[[region]]\nid = 'mars'\nlatitude = 0\nlongitude = 0";
    for (policy, status, detail) in [
        (
            "[policy]\nevaluate = 1",
            422,
            "policy:2:1: unknown field `evaluate`",
        ),
        (
            "[policy.steadiness]\nmargin = 0.5",
            422,
            "policy:2:10: 0.5 is out of range; write 1 to 1000",
        ),
        (
            "[api]\nlisten = '0.0.0.0:1'",
            422,
            "policy:1:2: unknown field `api`",
        ),
        ("region", 422, "policy:1:"),
        ("", 422, "the policy has no region"),
        (elsewhere, 422, "none of the regions in force, only mars"),
    ] {
        let problem = living.put(SHADOW, &body(policy)).await.problem(status);
        assert!(
            problem.detail.contains(detail),
            "{policy}: {}",
            problem.detail
        );
        assert!(!problem.what_to_do.is_empty());
    }
    living.put(SHADOW, r#"{"toml":""}"#).await.problem(400);
    let long = serde_json::json!({"policy": "", "why": "x".repeat(10_000)}).to_string();
    let problem = living.put(SHADOW, &long).await.problem(422);
    assert_eq!(problem.at.unwrap().path, "why");
    for (token, status) in [("viewer", 403), ("injector", 403), ("nobody", 401)] {
        let headers = [("authorization", &*format!("Bearer {token}"))];
        for method in ["PUT", "DELETE"] {
            let answer = living
                .send(method, SHADOW, &body(elsewhere), &headers)
                .await;
            answer.problem(status);
        }
    }
    let none: Policies = living.get("/v1/policies").await;
    assert_eq!(none.shadow, None);
    living.stop().await;
}

#[tokio::test]
async fn a_policy_written_out_is_the_same_policy() {
    let aggregator = Aggregator::at(CALM);
    let written: WrittenPolicy = aggregator.get("/v1/policies/current").await.json();
    let read = config::tests::policy(&written.toml);
    assert_eq!(read, *aggregator.shared.view.load().policy);
    assert_eq!(read.version(), written.policy_version);
}
