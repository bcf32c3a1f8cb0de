//! Findings and orders over real QUIC on loopback: a finding reaches the view once, whatever is repeated, however often
//! the agent connects anew and across a restart; what is wrong ends its own session only.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use leeward_aggregator::{
    http::convert::{Moment, trace_outcome, traces},
    ingest::roster::NotOrdered,
    run::Running,
    trace::{self, NoTrace, Wanted},
};
use leeward_common::{
    api::v1::OrderState,
    bgp::{FeedState, Routing, Standing},
    finding::{Declined, Finding},
    id::{AgentId, RegionId, TargetId},
    report::ProbeKind,
    time::Timestamp,
    wire::{
        findings,
        v1::{FromAgent, FromAggregator, Order, RefuseCode, TraceOrder},
    },
};
use leeward_engine::found::Answered;
use support::{Agent, Installation, counter, path, until};

const HOPS: [&str; 2] = ["10.0.0.1", "192.0.2.9"];

/// The orders that traces of the view answer, in the order in which they arrived.
fn traced(running: &Running) -> Vec<u64> {
    let found = running.shared.view.load().found.clone();
    let orders = found.traces.iter().map(|own| own.trace.order.unwrap());
    orders.collect()
}

fn sorted(mut orders: Vec<u64>) -> Vec<u64> {
    orders.sort_unstable();
    orders
}

async fn iad(installation: &Installation, running: &Running) -> Agent {
    installation.agent(running.agents, "iad", "iad-1", 1).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_finding_is_neither_lost_nor_counted_twice() {
    let installation = Installation::new();
    let mut running = installation.start().await;
    let mut agent = iad(&installation, &running).await;
    assert!(agent.welcome.as_ref().unwrap().findings);
    agent.announce(1, vec![path("dub-1.v4", "dub")]).await;
    // Each round sends some of eight sequences, even ones findings and odd ones batches, some again and out of order;
    // then the agent connects anew, and once the aggregator starts anew.
    let rounds: [&[u64]; 5] = [
        &[0, 2, 0],
        &[3, 1, 2],
        &[6, 7, 6, 0],
        &[4, 4, 3],
        &[5, 7, 2],
    ];
    for (round, sequences) in rounds.into_iter().enumerate() {
        for &sequence in sequences {
            match sequence % 2 {
                0 => {
                    let found = agent.finding(sequence, sequence, &HOPS);
                    agent.send_findings(&found).await;
                }
                _ => agent.send_batch(&agent.batch(sequence, 1)).await,
            }
        }
        agent.durable(sequences.len()).await;
        if round == 2 {
            running.stop().await;
            running = installation.start().await;
            assert_eq!(sorted(traced(&running)), [0, 2, 6]);
        }
        agent = iad(&installation, &running).await;
    }
    assert_eq!(agent.welcome.as_ref().unwrap().durable_below, 8);
    assert_eq!(sorted(traced(&running)), [0, 2, 4, 6]);
    // Of this process, repetitions among them.
    assert_eq!(counter(&running, "leeward_aggregator_findings_total"), 3);
    let found = running.shared.view.load().found.clone();
    let Some(Answered::Traced(own)) = found.answer(4) else {
        panic!("order 4 is not answered")
    };
    assert_eq!((own.agent.as_str(), own.region.as_str()), ("iad-1", "iad"));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_findings_ends_their_session_only() {
    let installation = Installation::new();
    let running = installation.start().await;
    let mut undisturbed = iad(&installation, &running).await;
    let pdx = async || installation.agent(running.agents, "pdx", "pdx-1", 1).await;

    let agent = pdx().await;
    let mut found = agent.finding(0, 1, &HOPS);
    found.agent = AgentId::parse("iad-1").unwrap();
    agent.send_findings(&found).await;
    let refuse = agent.refusal().await;
    assert_eq!(refuse.code, RefuseCode::Identity);
    assert!(
        refuse.reason.contains("the finding is one of agent iad-1"),
        "{}",
        refuse.reason
    );

    let agent = pdx().await;
    let mut found = agent.finding(0, 1, &HOPS);
    found.boot_epoch = 2;
    agent.send_findings(&found).await;
    assert!(agent.refusal().await.reason.contains("boot epoch 1"));

    let agent = pdx().await;
    let mut found = agent.finding(0, 1, &HOPS);
    found.findings = vec![Finding::Unknown; 17];
    agent.send_findings(&found).await;
    assert_eq!(agent.refusal().await.code, RefuseCode::Limit);

    let agent = pdx().await;
    let mut bytes = findings::frame(&agent.finding(0, 1, &HOPS));
    *bytes.last_mut().unwrap() ^= 1;
    agent.send_stream(&bytes).await;
    assert!(agent.refusal().await.reason.contains("checksum"));

    assert!(traced(&running).is_empty());
    let found = undisturbed.finding(0, 1, &HOPS);
    undisturbed.send_findings(&found).await;
    assert_eq!(undisturbed.durable(1).await, [0]);
    assert_eq!(traced(&running), [1]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_goes_to_an_agent_that_takes_orders_and_to_no_other() {
    let installation = Installation::new();
    let running = installation.start().await;
    let mut agent = iad(&installation, &running).await;
    let order = Order {
        order: 3,
        trace: Some(TraceOrder {
            target: TargetId::parse("dub-1.v4").unwrap(),
            kind: ProbeKind::Icmp,
            mtu: false,
        }),
        bandwidth: None,
    };
    let roster = running.shared.orders.clone();
    let send = async |to: &str| {
        roster
            .order(AgentId::parse(to).unwrap(), order.clone())
            .await
    };
    assert_eq!(send("iad-1").await, Ok(()));
    loop {
        match agent.hear().await {
            FromAggregator::Order(heard) => break assert_eq!(heard, order),
            FromAggregator::Mesh(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(send("nobody").await, Err(NotOrdered::Unknown));

    let mut older = installation
        .agent_before_hello(running.agents, "pdx", "pdx-1", 1)
        .await;
    let mut hello = older.hello();
    hello.orders = false;
    older.say(&FromAgent::Hello(hello)).await;
    older.hear().await;
    assert_eq!(send("pdx-1").await, Err(NotOrdered::TakesNone));

    drop(agent);
    let id = AgentId::parse("iad-1").unwrap();
    until("the session ends", || {
        running.shared.roster.load().members[&id].session.is_none()
    })
    .await;
    assert_eq!(send("iad-1").await, Err(NotOrdered::Away));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_ordered_is_traced_and_told_with_what_changed() {
    let installation = Installation::new();
    let running = installation.start().await;
    let _dub = installation.agent(running.agents, "dub", "dub-1", 1).await;
    let mut agent = iad(&installation, &running).await;
    while agent.mesh().await.targets.is_empty() {}
    let region = |id| RegionId::parse(id).unwrap();
    let wanted = Wanted {
        from: region("iad"),
        to: region("dub"),
        kind: None,
        agent: None,
        mtu: true,
    };
    let shared = &running.shared;
    let nowhere = Wanted {
        to: region("pdx"),
        ..wanted.clone()
    };
    let none = trace::order(shared, &nowhere).await;
    assert!(matches!(none, Err(NoTrace::NoPath { .. })), "{none:?}");

    let outcome = |order| {
        let view = shared.view.load_full();
        trace_outcome(&Moment::new(&view, view.now), order)
    };
    let routes: [&[&str]; 2] = [&HOPS, &["10.0.7.1", "192.0.2.9"]];
    let mut orders = Vec::new();
    for (sequence, hops) in (0..).zip(routes) {
        let sent = trace::order(shared, &wanted).await.unwrap();
        assert_eq!(
            (sent.agent.as_str(), sent.target.as_str()),
            ("iad-1", "dub-1.v4")
        );
        assert_eq!(outcome(sent.order).state, OrderState::Open);
        let heard = loop {
            if let FromAggregator::Order(order) = agent.hear().await {
                break order;
            }
        };
        assert_eq!(heard.order, sent.order);
        assert!(heard.trace.unwrap().mtu);
        agent
            .send_findings(&agent.finding(sequence, sent.order, hops))
            .await;
        agent.durable(1).await;
        orders.push(sent.order);
    }
    assert!(orders[0] < orders[1]);
    assert_eq!(outcome(orders[0]).trace.unwrap().changes, None);
    let told = outcome(orders[1]);
    assert_eq!(told.state, OrderState::Done);
    let trace = told.trace.unwrap();
    assert_eq!((trace.from, trace.to), (region("iad"), Some(region("dub"))));
    let changes = trace.changes.unwrap();
    assert_eq!((changes.len(), changes[0].hop), (1, 1));
    assert_eq!(trace.hops[0].rtt_median_us, Some(300));

    let mut declined = agent.finding(2, 0, &HOPS);
    declined.findings = vec![Finding::Declined(Declined {
        order: 99,
        reason: "six a\nminute".to_owned(),
    })];
    agent.send_findings(&declined).await;
    agent.durable(1).await;
    let told = outcome(99);
    assert_eq!(
        (told.state, told.reason.as_deref()),
        (OrderState::Declined, Some("six a minute"))
    );

    let view = shared.view.load_full();
    let moment = Moment::new(&view, view.now);
    let newest = |from, limit| traces(&moment, from, None, limit).traces;
    assert_eq!(newest(None, 9).len(), 2);
    assert_eq!(newest(None, 1)[0].order, Some(orders[1]));
    assert!(newest(Some(&region("dub")), 9).is_empty());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_routers_told_is_known_after_a_restart() {
    let installation = Installation::new();
    let running = installation.start().await;
    let mut agent = iad(&installation, &running).await;
    let feed = FeedState {
        feed: "10.0.0.1 session".to_owned(),
        source: [10, 0, 0, 1].into(),
        system: 64_501,
        standing: Standing::Believed,
        since: Timestamp::from_unix_us(3),
        updates: 4,
        announced: 5,
        withdrawn: 6,
        fabricated: 7,
        collector: None,
    };
    let routing = Routing {
        feeds: vec![feed.clone()],
        ..Routing::default()
    };
    let mut found = agent.finding(0, 1, &HOPS);
    found.findings = vec![Finding::Routing(Box::new(routing))];
    agent.send_findings(&found).await;
    agent.durable(1).await;
    running.stop().await;
    let running = installation.start().await;
    let known = running.shared.view.load().found.routing.clone();
    let told: Vec<_> = known.feeds.values().flat_map(|of| of.values()).collect();
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].agent.as_str(), &told[0].what), ("iad-1", &feed));
}
