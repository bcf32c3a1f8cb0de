//! The uplink against an aggregator on loopback that does what each test says.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use leeward_common::wire::{ALPN_V1, frame, limits, v1};
use rcgen::ExtendedKeyUsagePurpose;
use tokio::sync::{mpsc, watch};

use super::{
    failure::Failure,
    fake::{
        AGENT, Authority, BOOT_EPOCH, FakeAggregator, Files, REGION, Rig, Validity, agent,
        aggregator, config, mesh, region, soon, target, until, window,
    },
    session::{Identity, Session},
    *,
};

#[tokio::test]
async fn a_mesh_becomes_a_plan_and_windows_become_durable_batches() {
    let authority = Authority::new();
    let at = FakeAggregator::new(&authority);
    let mut rig = Rig::new(&authority, &[at.address]);

    let (mut peer, hello) = at.accept().await;
    assert_eq!(
        (hello.agent.as_str(), hello.region.as_str()),
        (AGENT, REGION)
    );
    assert_eq!((hello.boot_epoch, hello.answer_port), (BOOT_EPOCH, 8_620));
    assert_eq!(
        hello.addresses,
        ["127.0.0.1".parse::<std::net::IpAddr>().unwrap()],
        "discovered"
    );
    let welcome = v1::Welcome {
        aggregator: "main".to_owned(),
        durable_below: 0,
        findings: true,
        version: 1,
        backlog: Vec::new(),
        credit: None,
    };
    peer.say(&v1::FromAggregator::Welcome(welcome)).await;

    let wanted = mesh(
        5,
        vec![
            target("ours", "10.0.0.1"),
            target("a-strangers", "192.0.2.1"),
        ],
    );
    peer.say(&v1::FromAggregator::Mesh(wanted)).await;
    let paths = peer.paths().await;
    assert_eq!(
        paths
            .paths
            .iter()
            .map(|path| path.target.as_str())
            .collect::<Vec<_>>(),
        ["ours"]
    );
    let applied = peer.mesh_applied().await;
    assert_eq!((applied.version, applied.refused.len()), (5, 1));
    assert_eq!(applied.refused[0].target.as_str(), "a-strangers");
    assert_eq!(
        applied.refused[0].reason,
        "192.0.2.1 is outside this agent's allowed_networks"
    );

    let plan = rig.plan().await;
    assert_eq!(
        (plan.interval, plan.paths.len()),
        (Duration::from_millis(100), 1)
    );
    let closed = rig.close_window(plan.version).await;
    peer.table_durable(paths.table).await;
    let batch = peer.batch().await;
    assert_eq!(
        (&batch.agent, batch.boot_epoch, batch.sequence, batch.table),
        (&agent(), BOOT_EPOCH, 0, paths.table)
    );
    assert_eq!((batch.window, batch.rows), (closed.window, closed.rows));
    assert_eq!(rig.figures.waiting(), 1);
    peer.durable(&[0]).await;
    until("an empty spool", || rig.figures.waiting() == 0).await;
    assert_eq!(rig.figures.targets_refused(), 1);
}

#[tokio::test]
async fn the_aggregator_hears_how_the_agent_fares() {
    let authority = Authority::new();
    let at = FakeAggregator::new(&authority);
    let _rig = Rig::new(&authority, &[at.address]);
    let mut peer = at.welcome(0).await;
    let message = soon("a status", peer.message()).await;
    let v1::FromAgent::Status(status) = message else {
        panic!("not a status: {message:?}")
    };
    assert_eq!(status.scheduled, 4_711);
    assert!(status.resident_bytes > 0);
}

#[tokio::test]
async fn a_new_connection_begins_with_exactly_what_is_not_durable() {
    let authority = Authority::new();
    let at = FakeAggregator::new(&authority);
    let mut rig = Rig::new(&authority, &[at.address]);
    let mut peer = at.welcome(0).await;
    let table = peer.set_up().await;
    let plan = rig.plan().await;
    for sequence in 0..4 {
        rig.close_window(plan.version).await;
        assert_eq!(peer.batch().await.sequence, sequence);
    }
    peer.durable(&[1, 3]).await;
    until("two batches to be freed", || rig.figures.waiting() == 2).await;
    peer.close();

    let (mut peer, hello) = at.accept().await;
    assert_eq!(hello.boot_epoch, BOOT_EPOCH);
    rig.close_window(plan.version).await;
    let welcome = v1::Welcome {
        aggregator: "main".to_owned(),
        durable_below: 1,
        findings: true,
        version: 1,
        backlog: Vec::new(),
        credit: None,
    };
    peer.say(&v1::FromAggregator::Welcome(welcome)).await;
    let paths = peer.paths().await;
    assert_eq!(paths.table, table, "the same table keeps its number");
    peer.table_durable(table).await;
    rig.close_window(plan.version).await;
    let mut sequences = BTreeSet::new();
    for _ in 0..3 {
        let sequence = peer.batch().await.sequence;
        assert!(sequences.insert(sequence), "{sequence} came twice");
    }
    assert_eq!(
        sequences,
        BTreeSet::from([2, 4, 5]),
        "0 was durable already, 1 and 3 were acknowledged"
    );
    peer.durable(&[2, 4, 5]).await;
    until("an empty spool", || rig.figures.waiting() == 0).await;
    assert!(rig.plans.try_recv().is_err(), "the plan did not change");
}

#[tokio::test]
async fn the_oldest_batches_are_given_up_when_the_memory_is_full() {
    let authority = Authority::new();
    let at = FakeAggregator::new(&authority);
    let mut rig = Rig::with(&authority, &[at.address], 1_000);
    // No two of them lie in one window of ten seconds, so none can be merged.
    rig.apart = 10;
    let mut peer = at.welcome(0).await;
    peer.set_up().await;
    let plan = rig.plan().await;
    rig.close_window(plan.version).await;
    assert_eq!(peer.batch().await.sequence, 0);
    peer.close();
    let (mut peer, _) = at.accept().await;
    for _ in 0..20 {
        rig.close_window(plan.version).await;
    }
    assert!(rig.figures.waiting_bytes() <= 1_000);
    let kept = rig.figures.waiting();
    assert!((1..20).contains(&kept), "{kept}");
    assert_eq!(rig.figures.dropped(), 21 - kept);
    let welcome = v1::Welcome {
        aggregator: "main".to_owned(),
        durable_below: 0,
        findings: true,
        version: 1,
        backlog: Vec::new(),
        credit: None,
    };
    peer.say(&v1::FromAggregator::Welcome(welcome)).await;
    let table = peer.paths().await.table;
    peer.table_durable(table).await;
    let mut sequences = Vec::new();
    for _ in 0..kept {
        sequences.push(peer.batch().await.sequence);
    }
    sequences.sort_unstable();
    assert_eq!(sequences, (21 - kept..21).collect::<Vec<_>>());
}

#[tokio::test]
async fn where_regions_are_is_handed_on_with_each_mesh() {
    let authority = Authority::new();
    let at = FakeAggregator::new(&authority);
    let mut rig = Rig::new(&authority, &[at.address]);
    let mut peer = at.welcome(0).await;
    assert_eq!(
        *rig.told.borrow(),
        None,
        "nobody knows before the first mesh"
    );
    let watch = v1::Watch {
        region: "dub".parse().unwrap(),
        prefixes: vec!["198.51.100.0/24".parse().unwrap()],
        origins: Vec::new(),
    };
    let mesh = v1::Mesh {
        watch: vec![watch],
        ..mesh(1, vec![target("a", "10.0.0.1")])
    };
    peer.say(&v1::FromAggregator::Mesh(mesh)).await;
    soon("what was told", rig.told.changed()).await.unwrap();
    let told = rig.told.borrow().clone().unwrap();
    assert_eq!(told.watch[0].prefix.to_string(), "198.51.100.0/24");
}

#[tokio::test]
async fn every_aggregator_gets_everything_and_none_waits_for_another() {
    let authority = Authority::new();
    let (one, two) = (
        FakeAggregator::new(&authority),
        FakeAggregator::new(&authority),
    );
    let mut rig = Rig::new(&authority, &[one.address, two.address]);
    let mut first = one.welcome(0).await;
    first.set_up().await;
    let plan = rig.plan().await;
    rig.close_window(plan.version).await;
    assert_eq!(first.batch().await.sequence, 0);
    first.durable(&[0]).await;

    let mut second = two.welcome(0).await;
    let table = second.paths().await.table;
    second.table_durable(table).await;
    assert_eq!(second.batch().await.sequence, 0);
    assert_eq!(rig.figures.waiting(), 1);
    second.durable(&[0]).await;
    until("an empty spool", || rig.figures.waiting() == 0).await;
}

#[tokio::test]
async fn meshes_of_two_aggregators_are_joined() {
    let authority = Authority::new();
    let (one, two) = (
        FakeAggregator::new(&authority),
        FakeAggregator::new(&authority),
    );
    let mut rig = Rig::new(&authority, &[one.address, two.address]);
    let mut second = two.welcome(0).await;
    second
        .say(&v1::FromAggregator::Mesh(mesh(
            1,
            vec![target("a", "10.0.0.2"), target("b", "10.0.0.3")],
        )))
        .await;
    assert_eq!(rig.plan().await.paths.len(), 2);
    let mut first = one.welcome(0).await;
    first
        .say(&v1::FromAggregator::Mesh(mesh(
            1,
            vec![target("a", "10.0.0.1")],
        )))
        .await;
    let plan = rig.plan().await;
    let addresses: Vec<_> = plan
        .paths
        .iter()
        .map(|path| path.address.to_string())
        .collect();
    assert_eq!(addresses, ["10.0.0.1", "10.0.0.3"]);
}

#[tokio::test]
async fn other_networks_are_taken_over_while_running() {
    let authority = Authority::new();
    let at = FakeAggregator::new(&authority);
    let mut rig = Rig::new(&authority, &[at.address]);
    let mut peer = at.welcome(0).await;
    peer.set_up().await;
    assert_eq!(rig.plan().await.paths.len(), 1);
    let nothing = Admission {
        allowed: Vec::new(),
        max_probes_per_second: 1_000,
    };
    rig.admit(nothing).await;
    assert_eq!(rig.plan().await.paths.len(), 0);
    assert_eq!(peer.paths().await.paths.len(), 0);
    assert_eq!(peer.mesh_applied().await.refused.len(), 1);
}

#[tokio::test]
async fn a_window_of_a_plan_that_was_replaced_many_times_is_sent() {
    let authority = Authority::new();
    let at = FakeAggregator::new(&authority);
    let mut rig = Rig::new(&authority, &[at.address]);
    let mut peer = at.welcome(0).await;
    let table = peer.set_up().await;
    let plan = rig.plan().await;
    for round in 0..10 {
        let allowed = if round % 2 == 0 {
            Vec::new()
        } else {
            vec!["10.0.0.0/8".parse().unwrap()]
        };
        rig.admit(Admission {
            allowed,
            max_probes_per_second: 1_000,
        })
        .await;
        rig.plan().await;
    }
    rig.close_window(plan.version).await;
    let batch = peer.batch().await;
    assert_eq!((batch.sequence, batch.table), (0, table));
    assert_eq!(rig.figures.windows_unsent(), 0);
}

#[tokio::test]
async fn many_meshes_in_a_row_are_few_plans() {
    let authority = Authority::new();
    let at = FakeAggregator::new(&authority);
    let mut rig = Rig::new(&authority, &[at.address]);
    let mut peer = at.welcome(0).await;
    for version in 1..=50 {
        let targets = (0..version)
            .map(|n| target(&format!("t{n}"), "10.0.0.1"))
            .collect();
        peer.say(&v1::FromAggregator::Mesh(mesh(version, targets)))
            .await;
    }
    let mut plans = 0;
    let mut paths = 0;
    while paths < 50 {
        paths = rig.plan().await.paths.len();
        plans += 1;
    }
    assert!(plans <= 10, "{plans} plans");
}

#[tokio::test]
async fn a_window_too_large_for_one_batch_is_sent_as_several() {
    let authority = Authority::new();
    let at = FakeAggregator::new(&authority);
    let mut rig = Rig::with(&authority, &[at.address], 64 << 20);
    let mut peer = at.welcome(0).await;
    peer.set_up().await;
    let plan = rig.plan().await;
    let rows = limits::PATHS as u32;
    let mut huge = window(0, plan.version, rows);
    for (row, report) in &mut huge.rows {
        // Many samples all over the range: far more than a path has in a second, and nothing that compresses.
        for n in 0..150 {
            report
                .rtt
                .record((*row * 150 + n).wrapping_mul(2_654_435_761) % 60_000_000);
            report.counts.scheduled += 1;
            report.counts.end(Class::Replied);
        }
    }
    rig.windows
        .as_ref()
        .unwrap()
        .send(huge.clone())
        .await
        .unwrap();
    let mut received = Vec::new();
    while received.len() < rows as usize {
        received.extend(peer.batch().await.rows);
    }
    assert!(rig.figures.batches() > 1);
    received.sort_by_key(|&(row, _)| row);
    assert!(received == huge.rows);
    assert_eq!(rig.figures.windows_unsent(), 0);
}

#[tokio::test]
async fn a_stopping_agent_sends_what_is_left_and_says_goodbye() {
    let authority = Authority::new();
    let at = FakeAggregator::new(&authority);
    let mut rig = Rig::new(&authority, &[at.address]);
    let mut peer = at.welcome(0).await;
    peer.set_up().await;
    let plan = rig.plan().await;
    rig.windows
        .as_ref()
        .unwrap()
        .send(window(0, plan.version, 1))
        .await
        .unwrap();
    rig.windows = None;
    assert_eq!(peer.batch().await.sequence, 0);
    assert!(
        !rig.running.is_finished(),
        "it waits for the acknowledgement"
    );
    peer.durable(&[0]).await;
    assert_eq!(peer.closed().await, (0, "the agent stops".to_owned()));
    soon("the end of the uplink", rig.running).await.unwrap();
}

#[tokio::test]
async fn a_stopping_agent_does_not_wait_for_ever() {
    let authority = Authority::new();
    let at = FakeAggregator::new(&authority);
    let unreachable: SocketAddr = "127.0.0.1:9".parse().unwrap();
    let mut rig = Rig::new(&authority, &[at.address, unreachable]);
    let mut peer = at.welcome(0).await;
    peer.set_up().await;
    let plan = rig.plan().await;
    rig.close_window(plan.version).await;
    rig.windows = None;
    let began = std::time::Instant::now();
    soon("the end of the uplink", rig.running).await.unwrap();
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn new_credentials_make_a_new_connection() {
    let authority = Authority::new();
    let at = FakeAggregator::new(&authority);
    let rig = Rig::new(&authority, &[at.address]);
    let peer = at.welcome(0).await;
    let files = Files::new(&authority.certificate, &authority.agent());
    rig.credentials
        .send_replace(Arc::new(files.load().unwrap()));
    assert_eq!(
        peer.closed().await,
        (1, "new credentials are in force".to_owned())
    );
    at.welcome(0).await;
}

/// What the agent makes of bytes that no honest aggregator sends, and what it tells the aggregator.
async fn told_about(spoil: impl AsyncFnOnce(&mut fake::Peer), cause: &str) -> String {
    let authority = Authority::new();
    let at = FakeAggregator::new(&authority);
    let mut rig = Rig::new(&authority, &[at.address]);
    let mut peer = at.welcome(0).await;
    peer.set_up().await;
    rig.plan().await;
    spoil(&mut peer).await;
    let (code, reason) = peer.closed().await;
    assert_eq!(code, 1);
    until("the failure to be counted", || rig.failures(cause) == 1).await;
    assert!(!rig.running.is_finished());
    assert!(rig.plans.try_recv().is_err(), "probing goes on as it was");
    reason
}

#[tokio::test]
async fn garbage_ends_the_connection_with_a_reason() {
    let reason = told_about(
        async |peer| peer.say_bytes(b"GET / HTTP/1.1\r\n\r\n").await,
        "protocol",
    )
    .await;
    assert!(
        reason.contains("not a leeward frame: it begins with 0x47"),
        "{reason}"
    );
}

#[tokio::test]
async fn an_oversized_frame_ends_the_connection_before_room_is_made() {
    let mut header = frame::frame_from_aggregator(&v1::FromAggregator::Mesh(mesh(1, Vec::new())));
    header.truncate(frame::HEADER_BYTES);
    header[4..8].copy_from_slice(&u32::MAX.to_be_bytes());
    let reason = told_about(async |peer| peer.say_bytes(&header).await, "protocol").await;
    assert!(
        reason.contains("mesh of 4294967295 exceeds the limit"),
        "{reason}"
    );
}

#[tokio::test]
async fn a_damaged_frame_ends_the_connection() {
    let mut frame = frame::frame_from_aggregator(&v1::FromAggregator::Mesh(mesh(1, Vec::new())));
    let last = frame.len() - 1;
    frame[last] ^= 1;
    let reason = told_about(async |peer| peer.say_bytes(&frame).await, "protocol").await;
    assert!(reason.contains("checksum"), "{reason}");
}

#[tokio::test]
async fn messages_where_none_belong_end_the_connection() {
    let welcome = v1::FromAggregator::Welcome(v1::Welcome {
        aggregator: "main".to_owned(),
        durable_below: 0,
        findings: true,
        version: 1,
        backlog: Vec::new(),
        credit: None,
    });
    let reason = told_about(async |peer| peer.say(&welcome).await, "protocol").await;
    assert_eq!(reason, "the aggregator sent a welcome where none belongs");
    let status = frame::frame_from_agent(&v1::FromAgent::Status(v1::AgentStatus::default()));
    let reason = told_about(async |peer| peer.say_bytes(&status).await, "protocol").await;
    assert!(
        reason.contains("message type 4 is not known here"),
        "{reason}"
    );
}

#[tokio::test]
async fn a_mesh_that_makes_no_sense_ends_the_connection() {
    let mut odd = mesh(7, vec![target("t2", "10.0.0.2")]);
    odd.window_us = 0;
    let reason = told_about(
        async |peer| peer.say(&v1::FromAggregator::Mesh(odd)).await,
        "protocol",
    )
    .await;
    assert!(reason.contains("mesh 7: window_us is 0"), "{reason}");
}

#[tokio::test]
async fn a_refusal_is_counted_and_probing_goes_on() {
    let refuse = v1::Refuse {
        code: v1::RefuseCode::UnknownRegion,
        reason: "eu-west-1 is not configured".to_owned(),
    };
    told_about(
        async |peer| peer.say(&v1::FromAggregator::Refuse(refuse)).await,
        "refused",
    )
    .await;
}

#[tokio::test]
async fn acknowledgements_of_what_was_never_sent_do_no_harm() {
    let authority = Authority::new();
    let at = FakeAggregator::new(&authority);
    let mut rig = Rig::new(&authority, &[at.address]);
    let mut peer = at.welcome(u64::MAX).await;
    peer.set_up().await;
    let plan = rig.plan().await;
    peer.durable(&[5, u64::MAX]).await;
    peer.table_durable(77).await;
    rig.close_window(plan.version).await;
    assert_eq!(peer.batch().await.sequence, 0);
    assert_eq!(rig.figures.waiting(), 1);
}

/// Why one attempt at a connection fails.
async fn failure(files: &Files, server: FakeAggregator, name: Option<&str>) -> Failure {
    let config = config(&files.paths, &[server.address], 1 << 20);
    let mut aggregator = aggregator(&server.address);
    aggregator.name = name.map(str::to_owned);
    let (_credentials, believed) = watch::channel(Arc::new(files.load().unwrap()));
    let (_stop, stopping) = watch::channel(false);
    let (events, _ignored) = mpsc::channel(16);
    let mut session = Session {
        index: 0,
        aggregator,
        identity: Arc::new(Identity {
            agent: agent(),
            region: region(),
            boot_epoch: BOOT_EPOCH,
            addresses: Vec::new(),
            answer_port: 8_620,
            stamp_port: 862,
        }),
        backlog: watch::channel(Vec::new()).1,
        uplink: config.uplink,
        credentials: believed,
        stopping,
        events,
        figures: Arc::default(),
    };
    let serving = server.spawn_accepting();
    let failure = soon("a failure", session.once_for_test())
        .await
        .unwrap_err();
    serving.abort();
    failure
}

#[tokio::test]
async fn an_aggregator_of_another_authority_is_refused() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let files = Files::new(&ours.certificate, &ours.agent());
    let server = FakeAggregator::with(&ours.certificate, &theirs.aggregator(), ALPN_V1);
    let failure = failure(&files, server, None).await;
    let text = failure.to_string();
    assert!(
        text.contains("the aggregator's certificate is not from the authority in [credentials] ca"),
        "{text}"
    );
    assert_eq!(
        (failure.cause(), failure.cure()),
        ("handshake", backoff::Cure::Person)
    );
}

#[tokio::test]
async fn an_aggregator_whose_certificate_expired_is_refused() {
    let authority = Authority::new();
    let files = Files::new(&authority.certificate, &authority.agent());
    let leaf = authority.issue(
        Some("leeward://aggregator/main"),
        ExtendedKeyUsagePurpose::ServerAuth,
        Validity::Past,
    );
    let server = FakeAggregator::with(&authority.certificate, &leaf, ALPN_V1);
    let text = failure(&files, server, None).await.to_string();
    assert!(
        text.contains("the aggregator's certificate is out of date, or this host's clock is wrong"),
        "{text}"
    );
}

#[tokio::test]
async fn only_an_aggregator_may_pose_as_one() {
    let authority = Authority::new();
    let files = Files::new(&authority.certificate, &authority.agent());
    let agent_uri = format!("leeward://agent/{REGION}/{AGENT}");
    for (uri, name, found) in [
        (
            Some(agent_uri.as_str()),
            None,
            "the certificate is for leeward://agent/eu-west-1/eu-west-1-a",
        ),
        (None, None, "the certificate is for nobody"),
        (
            Some("leeward://aggregator/spare"),
            Some("main"),
            "the certificate is for leeward://aggregator/spare",
        ),
    ] {
        let leaf = authority.issue(uri, ExtendedKeyUsagePurpose::ServerAuth, Validity::Now);
        let server = FakeAggregator::with(&authority.certificate, &leaf, ALPN_V1);
        let text = failure(&files, server, name).await.to_string();
        assert!(
            text.contains("is not for the [[aggregator]] that was dialled"),
            "{text}"
        );
        assert!(text.contains(found), "{text}");
    }
}

#[tokio::test]
async fn an_aggregator_that_does_not_trust_us_says_so() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let files = Files::new(&ours.certificate, &ours.agent());
    let server = FakeAggregator::with(&theirs.certificate, &ours.aggregator(), ALPN_V1);
    let failure = failure(&files, server, None).await;
    let text = failure.to_string();
    assert!(
        text.contains("the aggregator does not trust this agent's certificate"),
        "{text}"
    );
    assert_eq!(
        (failure.cause(), failure.cure()),
        ("handshake", backoff::Cure::Person)
    );
}

#[tokio::test]
async fn an_aggregator_of_another_major_version_is_refused() {
    let authority = Authority::new();
    let files = Files::new(&authority.certificate, &authority.agent());
    let server = FakeAggregator::with(
        &authority.certificate,
        &authority.aggregator(),
        b"leeward/2",
    );
    let text = failure(&files, server, None).await.to_string();
    assert!(
        text.contains("the aggregator does not speak leeward/1"),
        "{text}"
    );
}
