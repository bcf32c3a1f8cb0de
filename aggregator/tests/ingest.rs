//! Agents against an aggregator in this process, over real QUIC on loopback: what is right reaches the view, what is
//! wrong is refused with a reason, counted, and disturbs nobody else.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::time::Duration;

use leeward_aggregator::{run::Running, shared::State, store::memory::Memory};
use leeward_common::{
    id::{AgentId, RegionId},
    wire::{
        frame, limits,
        v1::{AgentStatus, FromAgent, FromAggregator, MeshApplied, RefuseCode},
    },
};
use quinn::ConnectionError;
use support::{Agent, Authority, Installation, counter, now, path, soon, until};

fn links(running: &Running) -> usize {
    running.shared.view.load().links.len()
}

/// Two agents that probe each other, each with one durable batch.
async fn two_agents(installation: &Installation, running: &Running) -> [Agent; 2] {
    let mut iad = installation.agent(running.agents, "iad", "iad-1", 1).await;
    let mut dub = installation.agent(running.agents, "dub", "dub-1", 1).await;
    iad.announce(1, vec![path("dub-1.v4", "dub")]).await;
    dub.announce(1, vec![path("iad-1.v4", "iad")]).await;
    for agent in [&mut iad, &mut dub] {
        agent.send_batch(&agent.batch(0, 1)).await;
        assert_eq!(agent.durable(1).await, [0]);
    }
    [iad, dub]
}

/// Another agent is served as if nothing had happened.
async fn undisturbed(agent: &mut Agent, sequence: u64) {
    agent.send_batch(&agent.batch(sequence, 1)).await;
    assert_eq!(agent.durable(1).await, [sequence]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_reach_the_view() {
    let installation = Installation::new();
    let running = installation.start().await;
    let [iad, _dub] = two_agents(&installation, &running).await;
    assert_eq!(iad.welcome.as_ref().unwrap().aggregator, "main");
    until("the next evaluation", || links(&running) == 2).await;
    let view = running.shared.view.load_full();
    let link = (
        RegionId::parse("iad").unwrap(),
        RegionId::parse("dub").unwrap(),
    );
    let rtt = view.links[&link].estimates.rtt_p50_us.as_ref().unwrap();
    assert!((79_000.0..82_000.0).contains(&rtt.value), "{rtt:?}");
    assert!(
        view.agents[&AgentId::parse("dub-1").unwrap()]
            .connected_since
            .is_some()
    );
    assert_eq!(running.shared.readiness.state(), State::Ready);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_agent_is_in_the_others_mesh_at_once() {
    let installation = Installation::new();
    let running = installation.start().await;
    let mut iad = installation.agent(running.agents, "iad", "iad-1", 1).await;
    let first = iad.mesh().await;
    assert!(first.targets.is_empty());

    let mut dub = installation.agent(running.agents, "dub", "dub-1", 1).await;
    let mesh = iad.mesh().await;
    assert!(mesh.version > first.version);
    assert_eq!(mesh.targets[0].id.as_str(), "dub-1.v4");
    assert_eq!(mesh.targets[0].port, 8620);
    assert_eq!(dub.mesh().await.targets[0].id.as_str(), "iad-1.v4");

    // An agent that leaves stays in the mesh: just when it is gone, others must keep looking.
    let dub_id = dub.agent.clone();
    drop(dub);
    until("the session ends", || {
        running.shared.roster.load().members[&dub_id]
            .session
            .is_none()
    })
    .await;
    let mut pdx = installation.agent(running.agents, "pdx", "pdx-1", 1).await;
    let ids: Vec<_> = pdx
        .mesh()
        .await
        .targets
        .into_iter()
        .map(|target| target.id.to_string())
        .collect();
    assert_eq!(ids, ["dub-1.v4", "iad-1.v4"]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_roster_tells_how_an_agent_fares() {
    let installation = Installation::new();
    let running = installation.start().await;
    let mut iad = installation.agent(running.agents, "iad", "iad-1", 1).await;
    let version = iad.mesh().await.version;
    iad.say(&FromAgent::MeshApplied(MeshApplied {
        version,
        refused: Vec::new(),
    }))
    .await;
    iad.say(&FromAgent::Status(AgentStatus {
        sent: 17,
        ..AgentStatus::default()
    }))
    .await;
    let agent = iad.agent.clone();
    let member = || running.shared.roster.load().members[&agent].clone();
    until("the status arrives", || {
        member()
            .status
            .as_ref()
            .is_some_and(|(_, status)| status.sent == 17)
    })
    .await;
    assert_eq!(member().mesh_applied.as_ref().unwrap().version, version);
    assert_eq!(member().mesh_version, version);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_sent_twice_counts_once_even_across_a_restart() {
    let installation = Installation::new();
    let running = installation.start().await;
    let [mut iad, _dub] = two_agents(&installation, &running).await;
    let batch = iad.batch(0, 1);
    let version = running.shared.view.load().graph_version;
    iad.send_batch(&batch).await;
    assert_eq!(iad.durable(1).await, [0]);
    assert_eq!(running.shared.view.load().graph_version, version);
    assert_eq!(
        counter(
            &running,
            "leeward_aggregator_batches_total{agent=\"iad-1\",outcome=\"repeated\"}"
        ),
        1
    );
    running.stop().await;

    let running = installation.start().await;
    until("the next evaluation", || links(&running) == 2).await;
    let mut iad = installation.agent(running.agents, "iad", "iad-1", 1).await;
    assert_eq!(iad.welcome.as_ref().unwrap().durable_below, 1);
    let version = running.shared.view.load().graph_version;
    // The table is known from before, too.
    iad.send_batch(&batch).await;
    assert_eq!(iad.durable(1).await, [0]);
    assert_eq!(running.shared.view.load().graph_version, version);
    undisturbed(&mut iad, 1).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_on_the_control_stream_ends_that_session_only() {
    let installation = Installation::new();
    let running = installation.start().await;
    let [_iad, mut dub] = two_agents(&installation, &running).await;

    let mut garbage = installation.agent(running.agents, "pdx", "pdx-1", 1).await;
    garbage.say_bytes(b"GET / HTTP/1.1\r\n\r\n").await;
    let refuse = garbage.refusal().await;
    assert_eq!(refuse.code, RefuseCode::Malformed);
    assert!(
        refuse.reason.contains("not a leeward frame"),
        "{}",
        refuse.reason
    );

    let mut oversized = installation.agent(running.agents, "pdx", "pdx-1", 1).await;
    let mut header = frame::frame_from_agent(&FromAgent::Status(AgentStatus::default()));
    header[4..8].copy_from_slice(&u32::MAX.to_be_bytes());
    oversized.say_bytes(&header).await;
    assert_eq!(oversized.refusal().await.code, RefuseCode::Limit);

    let mut bent = installation.agent(running.agents, "pdx", "pdx-1", 1).await;
    let mut status = frame::frame_from_agent(&FromAgent::Status(AgentStatus::default()));
    *status.last_mut().unwrap() ^= 1;
    bent.say_bytes(&status).await;
    assert!(bent.refusal().await.reason.contains("checksum"));

    let mut second = installation.agent(running.agents, "pdx", "pdx-1", 1).await;
    let hello = second.hello();
    second.say(&FromAgent::Hello(hello)).await;
    assert!(second.refusal().await.reason.contains("second hello"));

    let mut mute = installation
        .agent_before_hello(running.agents, "pdx", "pdx-1", 1)
        .await;
    mute.say(&FromAgent::Status(AgentStatus::default())).await;
    assert!(mute.refusal().await.reason.contains("must be a hello"));

    assert_eq!(
        counter(
            &running,
            "leeward_aggregator_sessions_refused_total{reason=\"malformed\"}"
        ),
        4
    );
    assert_eq!(
        counter(
            &running,
            "leeward_aggregator_sessions_refused_total{reason=\"limit\"}"
        ),
        1
    );
    undisturbed(&mut dub, 1).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_may_speak_for_itself_only() {
    let installation = Installation::new();
    let running = installation.start().await;
    let [_iad, mut dub] = two_agents(&installation, &running).await;

    let mut elsewhere = installation
        .agent_before_hello(running.agents, "pdx", "pdx-1", 1)
        .await;
    elsewhere.region = RegionId::parse("dub").unwrap();
    let hello = elsewhere.hello();
    elsewhere.say(&FromAgent::Hello(hello)).await;
    let refuse = elsewhere.refusal().await;
    assert_eq!(refuse.code, RefuseCode::Identity);
    assert!(
        refuse.reason.contains("agent pdx-1 in region pdx"),
        "{}",
        refuse.reason
    );

    let mut other = installation.agent(running.agents, "pdx", "pdx-1", 1).await;
    other.announce(1, vec![path("dub-1.v4", "dub")]).await;
    let mut batch = other.batch(0, 1);
    batch.agent = AgentId::parse("dub-1").unwrap();
    other.send_batch(&batch).await;
    let refuse = other.refusal().await;
    assert_eq!(refuse.code, RefuseCode::Identity);
    assert!(
        refuse.reason.contains("the batch is one of agent dub-1"),
        "{}",
        refuse.reason
    );

    let nowhere = installation
        .agent_before_hello(running.agents, "syd", "syd-1", 1)
        .await;
    let mut nowhere = nowhere;
    let hello = nowhere.hello();
    nowhere.say(&FromAgent::Hello(hello)).await;
    let refuse = nowhere.refusal().await;
    assert_eq!(refuse.code, RefuseCode::UnknownRegion);
    assert!(
        refuse.reason.contains("add a [[region]]"),
        "{}",
        refuse.reason
    );

    undisturbed(&mut dub, 1).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_a_batch_ends_its_session_only() {
    let installation = Installation::new();
    let running = installation.start().await;
    let [_iad, mut dub] = two_agents(&installation, &running).await;
    let good = |agent: &Agent| {
        frame::frame_batch(&leeward_common::wire::batch::encode(&agent.batch(7, 1)).unwrap())
    };
    let pdx = async || {
        let mut pdx = installation.agent(running.agents, "pdx", "pdx-1", 1).await;
        pdx.announce(1, vec![path("dub-1.v4", "dub")]).await;
        pdx
    };

    let agent = pdx().await;
    let mut bytes = good(&agent);
    bytes[4..8].copy_from_slice(&(64u32 << 20).to_be_bytes());
    agent.send_stream(&bytes).await;
    assert_eq!(agent.refusal().await.code, RefuseCode::Limit);

    let agent = pdx().await;
    let bytes = good(&agent);
    agent.send_stream(&bytes[..bytes.len() - 1]).await;
    assert!(agent.refusal().await.reason.contains("ends after"));

    let agent = pdx().await;
    let mut bytes = good(&agent);
    bytes.push(0);
    agent.send_stream(&bytes).await;
    assert!(
        agent
            .refusal()
            .await
            .reason
            .contains("bytes follow the batch")
    );

    let agent = pdx().await;
    agent.send_stream(&frame::frame_batch(&[0x55; 100])).await;
    assert_eq!(agent.refusal().await.code, RefuseCode::Malformed);

    let agent = pdx().await;
    agent
        .send_stream(&frame::frame_from_agent(&FromAgent::Status(
            AgentStatus::default(),
        )))
        .await;
    assert!(
        agent
            .refusal()
            .await
            .reason
            .contains("does not belong on a batch's stream")
    );

    let agent = pdx().await;
    let mut batch = agent.batch(7, 1);
    batch.table = 9;
    agent.send_batch(&batch).await;
    assert!(
        agent
            .refusal()
            .await
            .reason
            .contains("path table 9, which is not durable")
    );

    let mut agent = pdx().await;
    agent
        .say(&FromAgent::Paths(leeward_common::wire::v1::Paths {
            table: 1,
            boot_epoch: None,
            paths: Vec::new(),
        }))
        .await;
    assert!(
        agent
            .refusal()
            .await
            .reason
            .contains("was announced before with other rows")
    );

    undisturbed(&mut dub, 1).await;
    running.stop().await;
}

/// One batch that can never be read must not keep its agent from delivering the others, connection after connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_whose_rows_are_none_is_settled_as_refused_and_the_session_goes_on() {
    let installation = Installation::new();
    let running = installation.start().await;
    let [mut iad, _dub] = two_agents(&installation, &running).await;
    let mut beyond = iad.batch(1, 1);
    beyond.rows[0].0 = 5;
    let mut torn = leeward_common::wire::batch::encode(&iad.batch(2, 1)).unwrap();
    torn.push(1);
    let sent = [leeward_common::wire::batch::encode(&beyond).unwrap(), torn];
    let reasons = ["row 5 is beyond path table 1", "bits follow the last row"];
    for (sequence, (bytes, reason)) in (1..).zip(sent.iter().zip(reasons)) {
        iad.send_stream(&frame::frame_batch(bytes)).await;
        let settled = loop {
            if let FromAggregator::Durable(settled) = iad.hear().await {
                break settled;
            }
        };
        assert_eq!(
            (settled.sequences, settled.refused),
            (vec![sequence], vec![sequence])
        );
        assert!(settled.reason.contains(reason), "{}", settled.reason);
    }
    undisturbed(&mut iad, 3).await;
    running.stop().await;
}

/// Tables have an end. What goes are old ones and never the one that was just announced; whose table is gone is settled, so that it
/// keeps nobody from delivering the rest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_tables_cost_the_oldest_and_no_session() {
    let installation = Installation::new();
    let running = installation.start().await;
    let [mut iad, _dub] = two_agents(&installation, &running).await;
    let full: Vec<_> = (0..limits::PATHS)
        .map(|at| path(&format!("dub-{at}.v4"), "dub"))
        .collect();
    for table in 3..=18 {
        iad.announce(table, full.clone()).await;
    }
    // That of what waits from long ago.
    iad.announce(2, vec![path("dub-1.v4", "dub")]).await;
    for (sequence, table, refused) in [(1, 2, vec![]), (2, 1, vec![2]), (3, 18, vec![])] {
        let mut batch = iad.batch(sequence, 1);
        batch.table = table;
        iad.send_batch(&batch).await;
        let settled = loop {
            if let FromAggregator::Durable(settled) = iad.hear().await {
                break settled;
            }
        };
        assert_eq!(settled.refused, refused, "{table}: {}", settled.reason);
        assert_eq!(settled.sequences, [sequence]);
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn windows_of_another_time_are_not_counted_and_not_sent_again() {
    let installation = Installation::new();
    let running = installation.start().await;
    let [mut iad, _dub] = two_agents(&installation, &running).await;
    let version = running.shared.view.load().graph_version;
    let day = Duration::from_secs(86_400);
    for (sequence, start) in [
        (1, now() + Duration::from_secs(60)),
        (2, now() - day - Duration::from_secs(60)),
    ] {
        let mut batch = iad.batch(sequence, 1);
        batch.window.start = start.floor(batch.window.length);
        batch.until = batch.window.end();
        iad.send_batch(&batch).await;
        assert_eq!(iad.durable(1).await, [sequence]);
    }
    assert_eq!(running.shared.view.load().graph_version, version);
    assert_eq!(
        counter(
            &running,
            "leeward_aggregator_batches_total{agent=\"iad-1\",outcome=\"refused\"}"
        ),
        2
    );
    undisturbed(&mut iad, 3).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_do_not_get_past_the_handshake() {
    let installation = Installation::new();
    let running = installation.start().await;
    let [_iad, mut dub] = two_agents(&installation, &running).await;
    let uri = "leeward://agent/pdx/pdx-1";

    let stranger = Authority::named("somebody else").agent("pdx", "pdx-1");
    // An authority of the same name does not get further: its key is another.
    let impostor = Authority::new().agent("pdx", "pdx-1");
    let expired = installation.authority.issue_with(uri, |params| {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2020, 2, 1);
    });
    for (certificate, reason) in [
        (Some(stranger), "certificate_authority"),
        (Some(impostor), "certificate"),
        (Some(expired), "certificate_expired"),
        (None, "certificate_missing"),
    ] {
        // With TLS 1.3 a client believes to be connected until the server has seen its certificate.
        if let Ok(connection) = installation.dial(running.agents, certificate).await {
            soon(connection.closed()).await;
        }
        let name = format!("leeward_aggregator_handshakes_refused_total{{reason=\"{reason}\"}}");
        until(&name, || counter(&running, &name) == 1).await;
    }

    let agent = installation.authority.issue(uri);
    let error = installation
        .dial_as(running.agents, Some(agent), b"leeward/2")
        .await
        .unwrap_err();
    assert!(
        matches!(error, ConnectionError::ConnectionClosed(_)),
        "{error}"
    );
    let name = "leeward_aggregator_handshakes_refused_total{reason=\"protocol_version\"}";
    until(name, || counter(&running, name) == 1).await;

    let nobody = installation.authority.issue("https://example.org/");
    let connection = installation
        .dial(running.agents, Some(nobody))
        .await
        .unwrap();
    let ConnectionError::ApplicationClosed(close) = soon(connection.closed()).await else {
        panic!("not refused")
    };
    assert!(
        String::from_utf8_lossy(&close.reason).contains("no URI leeward://agent/"),
        "{close}"
    );

    undisturbed(&mut dub, 1).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_connection_of_the_same_agent_takes_over() {
    let installation = Installation::new();
    let running = installation.start().await;
    let old = installation.agent(running.agents, "iad", "iad-1", 1).await;
    let mut new = installation.agent(running.agents, "iad", "iad-1", 2).await;
    assert_eq!(old.refusal().await.code, RefuseCode::Superseded);
    new.announce(1, vec![path("dub-1.v4", "dub")]).await;
    undisturbed(&mut new, 0).await;
    let view = running.shared.view.load_full();
    let agent = &view.agents[&new.agent];
    assert_eq!(agent.boot_epoch, 2);
    assert!(agent.connected_since.is_some());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_store_fails_agents_keep_their_batches() {
    let installation = Installation::new();
    let store = Memory::default();
    let running = installation.start_with(store.clone()).await;
    let [iad, dub] = two_agents(&installation, &running).await;
    until("the next evaluation", || links(&running) == 2).await;
    store.fail(true);
    iad.send_batch(&iad.batch(1, 1)).await;
    let refuse = iad.refusal().await;
    assert_eq!(refuse.code, RefuseCode::Unavailable);
    assert_eq!(running.shared.readiness.state(), State::StoreFailed);
    assert_eq!(links(&running), 2);
    drop(dub);

    store.fail(false);
    until("the store is revived", || {
        running.shared.readiness.state() == State::Ready
    })
    .await;
    let mut iad = installation.agent(running.agents, "iad", "iad-1", 1).await;
    undisturbed(&mut iad, 1).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_brings_a_new_policy_into_force_and_a_wrong_one_does_not() {
    let installation = Installation::new();
    let running = installation.start().await;
    let mut iad = installation.agent(running.agents, "iad", "iad-1", 1).await;
    assert_eq!(iad.mesh().await.interval_us, 100_000);

    let policy = format!("{}\n[probing]\ninterval = '250ms'", support::POLICY);
    installation.write_config("[::1]:0", "127.0.0.1:0", &policy);
    running
        .try_reload(&installation.config_path())
        .await
        .unwrap();
    assert_eq!(
        running.shared.view.load().policy.probing.interval,
        Duration::from_millis(250)
    );
    assert_eq!(iad.mesh().await.interval_us, 250_000);

    installation.write_config("[::1]:0", "127.0.0.1:0", "[[region]]\nid = 'x'");
    let error = running
        .try_reload(&installation.config_path())
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("aggregator.toml:"), "{error}");
    assert_eq!(running.shared.view.load().policy.regions.len(), 3);
    running.stop().await;

    // The policy that was in force when it stopped is the one that the config must replace.
    installation.write_config("[::1]:0", "127.0.0.1:0", support::POLICY);
    let running = installation.start().await;
    assert_eq!(
        running.shared.view.load().policy.probing.interval,
        Duration::from_millis(100)
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_much_larger_than_what_may_be_in_flight_arrives() {
    let installation = Installation::new();
    let running = installation.start().await;
    let mut iad = installation.agent(running.agents, "iad", "iad-1", 1).await;
    iad.announce(1, vec![path("dub-1.v4", "dub")]).await;
    let batches: Vec<_> = (0..500).map(|sequence| iad.batch(sequence, 1)).collect();
    let sender = async {
        for batch in &batches {
            let frame = frame::frame_batch(&leeward_common::wire::batch::encode(batch).unwrap());
            let mut stream = iad.connection.open_uni().await.unwrap();
            stream.write_all(&frame).await.unwrap();
            stream.finish().unwrap();
        }
    };
    soon(sender).await;
    assert_eq!(iad.durable(500).await, (0..500).collect::<Vec<_>>());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_hears_when_the_aggregator_stops() {
    let installation = Installation::new();
    let running = installation.start().await;
    let iad = installation.agent(running.agents, "iad", "iad-1", 1).await;
    running.stop().await;
    let reason = soon(iad.connection.closed()).await;
    let ConnectionError::ApplicationClosed(close) = reason else {
        panic!("{reason}")
    };
    assert_eq!(&*close.reason, b"the aggregator stops");
}
