//! Who is let in, how often and by what way: TLS over TCP, the deny-list, connections and the rate of one agent.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use leeward_common::{
    id::AgentId,
    wire::{
        batch,
        frame::{self, HEADER_BYTES},
        v1::{self, FromAgent, FromAggregator, RefuseCode},
    },
};
use rustls::pki_types::ServerName;
use support::{Installation, counter, now, path, soon};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// An agent over TLS, by hand.
struct Tls(TlsStream<TcpStream>);

impl Tls {
    async fn dial(installation: &Installation, to: std::net::SocketAddr) -> Self {
        let certificate = installation.authority.agent("iad", "iad-1");
        let tls = installation.client_tls(Some(certificate), leeward_common::wire::ALPN_V1);
        let to = std::net::SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, to.port()));
        let stream = soon(TcpStream::connect(to)).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(Arc::new(tls));
        Self(soon(connector.connect(name, stream)).await.unwrap())
    }

    async fn say(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
        self.0.flush().await.unwrap();
    }

    async fn hear(&mut self) -> Option<FromAggregator> {
        hear(&mut self.0).await
    }
}

async fn hear(stream: &mut (impl AsyncRead + Unpin)) -> Option<FromAggregator> {
    soon(async {
        let mut header = [0; HEADER_BYTES];
        stream.read_exact(&mut header).await.ok()?;
        let header = frame::parse_header(&header).unwrap();
        let mut payload = vec![0; header.length];
        stream.read_exact(&mut payload).await.ok()?;
        Some(frame::parse_from_aggregator(&header, &payload).unwrap())
    })
    .await
}

#[tokio::test]
async fn the_same_session_over_tls_where_udp_is_blocked() {
    let installation = Installation::new();
    let running = installation.start().await;
    // What it sends is made by an agent that never connects that way.
    let by_hand = installation
        .agent_before_hello(running.agents, "iad", "iad-1", 7)
        .await;
    let mut tls = Tls::dial(&installation, running.agents).await;
    tls.say(&frame::frame_from_agent(&FromAgent::Hello(by_hand.hello())))
        .await;
    let Some(FromAggregator::Welcome(welcome)) = tls.hear().await else {
        panic!("no welcome")
    };
    assert_eq!((welcome.version, welcome.durable_below), (2, 0));
    let table = FromAgent::Paths(v1::Paths {
        table: 1,
        boot_epoch: None,
        paths: vec![path("dub-1.v4", "dub")],
    });
    tls.say(&frame::frame_from_agent(&table)).await;
    while !matches!(tls.hear().await, Some(FromAggregator::PathsDurable(_))) {}
    for sequence in 0..20 {
        let bytes = batch::encode(&by_hand.batch(sequence, 1)).unwrap();
        tls.say(&frame::frame_batch(&bytes)).await;
    }
    let mut durable = 0;
    while durable < 20 {
        if let Some(FromAggregator::Durable(settled)) = tls.hear().await {
            durable += settled.sequences.len();
            assert!(settled.credit.is_some());
        }
    }
    let agent = AgentId::parse("iad-1").unwrap();
    let roster = running.shared.roster.load();
    let session = roster.members[&agent].session.unwrap();
    assert_eq!(session.transport.as_str(), "tls");
    tls.say(b"GET / HTTP/1.1\r\n\r\n").await;
    let refusal = loop {
        match tls.hear().await {
            Some(FromAggregator::Refuse(refuse)) => break refuse,
            Some(_) => {}
            None => panic!("no refusal"),
        }
    };
    assert_eq!(refusal.code, RefuseCode::Malformed);
    running.stop().await;
}

#[tokio::test]
async fn a_denied_agent_is_cut_off_and_not_let_in_again() {
    let installation = Installation::new();
    let running = installation.start().await;
    let agent = installation.agent(running.agents, "iad", "iad-1", 1).await;
    let other = installation.agent(running.agents, "dub", "dub-1", 1).await;
    let denied = format!("[limits]\ndenied = ['iad-1']\n{}", support::POLICY);
    installation.write_config("[::1]:0", "127.0.0.1:0", &denied);
    running
        .try_reload(&installation.config_path())
        .await
        .unwrap();
    let refuse = agent.refusal().await;
    assert_eq!(refuse.code, RefuseCode::Denied);
    assert!(refuse.reason.contains("deny-list"), "{}", refuse.reason);
    let mut again = installation
        .agent_before_hello(running.agents, "iad", "iad-1", 2)
        .await;
    let hello = FromAgent::Hello(again.hello());
    again.say(&hello).await;
    assert_eq!(again.refusal().await.code, RefuseCode::Denied);
    assert!(other.connection.close_reason().is_none());
    installation.write_config("[::1]:0", "127.0.0.1:0", support::POLICY);
    running
        .try_reload(&installation.config_path())
        .await
        .unwrap();
    installation.agent(running.agents, "iad", "iad-1", 3).await;
    running.stop().await;
}

#[tokio::test]
async fn an_agent_has_few_connections_at_once() {
    let installation = Installation::new();
    let running = installation.start().await;
    let mut connections = Vec::new();
    for _ in 0..4 {
        connections.push(
            installation
                .agent_before_hello(running.agents, "iad", "iad-1", 1)
                .await,
        );
    }
    // The handshake is done before anybody counts.
    let certificate = installation.authority.agent("iad", "iad-1");
    let fifth = installation
        .dial(running.agents, Some(certificate))
        .await
        .unwrap();
    let quinn::ConnectionError::ApplicationClosed(close) = soon(fifth.closed()).await else {
        panic!("not closed by the aggregator")
    };
    assert!(String::from_utf8_lossy(&close.reason).contains("has 4 connections already"));
    // Over TLS, where no code comes with the close, a frame says it.
    let mut sixth = Tls::dial(&installation, running.agents).await;
    let Some(FromAggregator::Refuse(refuse)) = sixth.hear().await else {
        panic!("no refusal")
    };
    assert_eq!(refuse.code, RefuseCode::Limit);
    assert!(
        refuse.reason.contains("has 4 connections already"),
        "{}",
        refuse.reason
    );
    connections
        .pop()
        .unwrap()
        .connection
        .close(0u32.into(), b"");
    // The place is free as soon as the aggregator has heard of it.
    loop {
        let mut next = Tls::dial(&installation, running.agents).await;
        let hello = FromAgent::Hello(connections[0].hello());
        next.say(&frame::frame_from_agent(&hello)).await;
        match next.hear().await {
            Some(FromAggregator::Welcome(_)) => break,
            other => drop(other),
        }
    }
    running.stop().await;
}

#[tokio::test]
async fn who_writes_as_another_agent_over_tls_hears_why_it_is_cut_off_while_it_still_sends() {
    let installation = Installation::new();
    let running = installation.start().await;
    let other = installation.agent(running.agents, "dub", "dub-1", 1).await;
    let by_hand = installation
        .agent_before_hello(running.agents, "iad", "iad-1", 7)
        .await;
    let mut tls = Tls::dial(&installation, running.agents).await;
    tls.say(&frame::frame_from_agent(&FromAgent::Hello(by_hand.hello())))
        .await;
    // Much more than the aggregator reads before it has seen enough.
    let forged = frame::frame_batch(&batch::encode(&other.batch(0, 1)).unwrap());
    let (mut reading, mut writing) = tokio::io::split(tls.0);
    let flood = tokio::spawn(async move {
        for _ in 0..5_000 {
            if writing.write_all(&forged).await.is_err() {
                break;
            }
        }
        writing
    });
    let refusal = loop {
        match hear(&mut reading).await {
            Some(FromAggregator::Refuse(refuse)) => break refuse,
            Some(_) => {}
            None => panic!("no refusal"),
        }
    };
    assert_eq!(refusal.code, RefuseCode::Identity);
    assert!(
        refusal.reason.contains("one of agent dub-1"),
        "{}",
        refusal.reason
    );
    drop(soon(flood).await.unwrap());
    assert!(other.connection.close_reason().is_none());
    running.stop().await;
}

#[tokio::test]
async fn an_agent_that_sends_too_fast_is_read_more_slowly_and_loses_nothing() {
    let installation = Installation::new();
    let limits = format!("[limits]\nmax_messages_per_second = 5\n{}", support::POLICY);
    installation.write_config("[::1]:0", "127.0.0.1:0", &limits);
    let running = installation.start().await;
    let mut agent = installation.agent(running.agents, "iad", "iad-1", 1).await;
    agent.announce(1, vec![path("dub-1.v4", "dub")]).await;
    let began = Instant::now();
    for sequence in 0..20 {
        agent.send_batch(&agent.batch(sequence, 1)).await;
    }
    let mut durable = agent.durable(20).await;
    durable.sort_unstable();
    assert_eq!(durable, (0..20).collect::<Vec<_>>());
    // Ten at once, the others five in a second.
    assert!(began.elapsed() >= Duration::from_millis(1_800));
    let held_back = "leeward_aggregator_messages_held_back_total{agent=\"iad-1\"}";
    assert!(counter(&running, held_back) > 0);
    running.stop().await;
}

#[tokio::test]
async fn a_finding_of_another_time_is_settled_as_refused() {
    let installation = Installation::new();
    let running = installation.start().await;
    let mut agent = installation.agent(running.agents, "iad", "iad-1", 1).await;
    let day = Duration::from_secs(25 * 3_600);
    for (sequence, at) in [(0, now() - day), (1, now() + day)] {
        let mut found = agent.finding(sequence, 1, &["192.0.2.1"]);
        found.at = at;
        agent.send_findings(&found).await;
        let settled = loop {
            if let FromAggregator::Durable(settled) = agent.hear().await {
                break settled;
            }
        };
        assert_eq!(settled.refused, [sequence]);
        assert!(
            settled.reason.contains("it was found"),
            "{}",
            settled.reason
        );
    }
    running.stop().await;
}
