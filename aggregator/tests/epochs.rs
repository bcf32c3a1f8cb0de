//! Version 2 of the control messages against a running aggregator: versions, windows that are refused, earlier boot epochs.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::time::Duration;

use leeward_common::wire::v1::{self, FromAgent, FromAggregator, RefuseCode};
use support::{Installation, counter, path, until};

#[tokio::test]
async fn an_agent_of_no_common_version_is_refused_readably() {
    let installation = Installation::new();
    let running = installation.start().await;
    let mut agent = installation
        .agent_before_hello(running.agents, "iad", "iad-1", 1)
        .await;
    let hello = v1::Hello {
        versions: [7, 9],
        ..agent.hello()
    };
    agent.say(&FromAgent::Hello(hello)).await;
    let refuse = agent.refusal().await;
    assert_eq!(refuse.code, RefuseCode::Version);
    assert!(
        refuse.reason.contains("versions 7 to 9") && refuse.reason.contains("1 to 2"),
        "{}",
        refuse.reason
    );
    running.stop().await;
}

#[tokio::test]
async fn a_window_that_cannot_count_is_settled_as_refused() {
    let installation = Installation::new();
    let running = installation.start().await;
    let mut agent = installation.agent(running.agents, "iad", "iad-1", 1).await;
    agent.announce(1, vec![path("dub-1.v4", "dub")]).await;
    let day = Duration::from_secs(25 * 3_600);
    for (sequence, forward) in [(0, false), (1, true)] {
        let mut batch = agent.batch(sequence, 1);
        let start = batch.window.start;
        batch.window.start = if forward { start + day } else { start - day };
        batch.until = batch.window.end();
        agent.send_batch(&batch).await;
        let settled = loop {
            if let FromAggregator::Durable(settled) = agent.hear().await {
                break settled;
            }
        };
        assert_eq!(
            (&settled.sequences, &settled.refused),
            (&vec![sequence], &vec![sequence])
        );
        assert!(!settled.reason.is_empty());
    }
    running.stop().await;
}

#[tokio::test]
async fn what_a_life_before_left_counts_once_under_its_own_epoch() {
    let installation = Installation::new();
    let running = installation.start().await;
    let mut first = installation.agent(running.agents, "iad", "iad-1", 1).await;
    first.announce(1, vec![path("dub-1.v4", "dub")]).await;
    first.send_batch(&first.batch(0, 1)).await;
    assert_eq!(first.durable(1).await, [0]);
    let left: Vec<_> = (0..3).map(|sequence| first.batch(sequence, 1)).collect();
    drop(first);

    let mut second = installation
        .agent_before_hello(running.agents, "iad", "iad-1", 2)
        .await;
    let hello = v1::Hello {
        backlog: vec![1],
        ..second.hello()
    };
    second.say(&FromAgent::Hello(hello)).await;
    let FromAggregator::Welcome(welcome) = second.hear().await else {
        panic!("no welcome")
    };
    let known = v1::KnownEpoch {
        boot_epoch: 1,
        durable_below: 1,
    };
    assert_eq!(welcome.backlog, [known]);
    second
        .say(&FromAgent::Paths(v1::Paths {
            table: 1,
            boot_epoch: Some(1),
            paths: vec![path("dub-1.v4", "dub")],
        }))
        .await;
    loop {
        if let FromAggregator::PathsDurable(durable) = second.hear().await {
            assert_eq!((durable.table, durable.boot_epoch), (1, Some(1)));
            break;
        }
    }
    for batch in &left {
        second.send_batch(batch).await;
    }
    let mut settled = Vec::new();
    while settled.len() < 3 {
        if let FromAggregator::Durable(durable) = second.hear().await {
            assert_eq!(durable.boot_epoch, Some(1));
            settled.extend(durable.sequences);
        }
    }
    until("three batches", || {
        counter(
            &running,
            "leeward_aggregator_batches_total{agent=\"iad-1\",outcome=\"repeated\"}",
        ) == 1
    })
    .await;
    // Of an epoch that the hello did not name nothing is taken.
    let mut stranger = second.batch(0, 1);
    stranger.boot_epoch = 99;
    second.send_batch(&stranger).await;
    assert_eq!(second.refusal().await.code, RefuseCode::Malformed);
    running.stop().await;
}
