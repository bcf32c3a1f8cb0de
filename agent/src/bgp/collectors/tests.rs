//! A server on loopback that speaks as RIS Live does, and one that does not.

use std::collections::VecDeque;

use leeward_common::{
    bgp::{Change, FeedChange, FeedState, RoutingEvent, What},
    finding::Finding,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    sync::mpsc,
};
use tokio_tungstenite::accept_async;

use super::*;
use crate::{
    bgp::{
        live::{Bound, Figures, start},
        watch::Watched,
    },
    config::Bgp,
};

/// An agent that follows a server on loopback.
struct Rig {
    listener: TcpListener,
    found: mpsc::Receiver<Finding>,
    figures: Arc<Figures>,
    /// Events that were told and not yet looked at.
    waiting: VecDeque<RoutingEvent>,
}

impl Rig {
    async fn new(silent_for: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!(
            "ws://{}/v1/ws/?client=leeward",
            listener.local_addr().unwrap()
        );
        let config = Bgp {
            watch: vec![Watched {
                prefix: "198.51.100.0/24".parse().unwrap(),
                region: "dub".parse().unwrap(),
                origins: [].into(),
            }],
            window: Duration::from_secs(1),
            ris_live: Some(RisLive {
                place: Place::parse(&url).unwrap(),
                silent_for,
            }),
            ..Bgp::default()
        };
        let (out, found) = mpsc::channel(64);
        let figures = start(&config, Bound::bind(&config).unwrap(), out).unwrap();
        Self {
            listener,
            found,
            figures,
            waiting: VecDeque::new(),
        }
    }

    /// The next connection, after its questions.
    async fn asked(&self) -> WebSocketStream<TcpStream> {
        let (stream, _) = self.listener.accept().await.unwrap();
        let mut stream = accept_async(stream).await.unwrap();
        let wanted = Wanted {
            prefixes: vec!["198.51.100.0/24".parse().unwrap()],
            ..Wanted::default()
        };
        for expected in ris::questions(&wanted) {
            assert_eq!(text(&mut stream).await, expected);
        }
        stream
    }

    /// What is told until an event is as wanted, which is the last.
    async fn until(&mut self, wanted: impl Fn(&RoutingEvent) -> bool) -> Vec<RoutingEvent> {
        let mut told = Vec::new();
        let next = async {
            loop {
                while let Some(event) = self.waiting.pop_front() {
                    let is_last = wanted(&event);
                    told.push(event);
                    if is_last {
                        return;
                    }
                }
                let Some(Finding::Routing(routing)) = self.found.recv().await else {
                    panic!("nothing is told any more");
                };
                self.waiting.extend(routing.events);
            }
        };
        let found = timeout(Duration::from_secs(60), next).await;
        assert!(found.is_ok(), "{told:?}");
        told
    }

    async fn until_feed(&mut self, wanted: impl Fn(&FeedChange) -> bool) -> Vec<RoutingEvent> {
        self.until(|event| matches!(&event.what, What::Feed(change) if wanted(change)))
            .await
    }
}

async fn text(stream: &mut WebSocketStream<TcpStream>) -> String {
    let next = timeout(Duration::from_secs(30), stream.next()).await;
    next.unwrap()
        .unwrap()
        .unwrap()
        .into_text()
        .unwrap()
        .to_string()
}

/// A message about a BGP message of a peer of a collector.
fn message(peer: &str, host: &str, update: &str) -> Message {
    let raw = format!("{}{:04X}02{update}", "FF".repeat(16), 19 + update.len() / 2);
    Message::text(format!(
        r#"{{"type":"ris_message","data":{{"timestamp":1.5,"peer":"{peer}","peer_asn":"64501","id":"1","host":"{host}","type":"UPDATE","raw":"{raw}"}}}}"#
    ))
}

/// 198.51.100.0/24 by way of AS64501 from this system below 65536.
fn announcement(system: u16) -> String {
    let attributes = format!("4001010040020A02020000FBF50000{system:04X}400304C0000201");
    format!("0000{:04X}{attributes}18C63364", attributes.len() / 2)
}

/// A message about the session of a peer with its collector.
fn state(state: &str) -> Message {
    Message::text(format!(
        r#"{{"type":"ris_message","data":{{"peer":"192.0.2.1","peer_asn":"64501","host":"rrc21.ripe.net","type":"STATE","state":"{state}"}}}}"#
    ))
}

const WITHDRAWAL: &str = "000418C633640000";

fn is_down(change: &FeedChange) -> bool {
    matches!(change, FeedChange::Down { .. })
}

const LONG: Duration = Duration::from_secs(600);

/// The longest that a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn peers_of_collectors_are_feeds_that_are_believed_when_the_connection_is_old_enough() {
    let mut rig = Rig::new(LONG).await;
    let mut server = rig.asked().await;
    server
        .send(message(
            "192.0.2.1",
            "rrc21.ripe.net",
            &announcement(64_500),
        ))
        .await
        .unwrap();
    let told = rig.until_feed(|change| *change == FeedChange::Up).await;
    let up = told.last().unwrap();
    assert_eq!(up.feed, "192.0.2.1 at rrc21.ripe.net");
    assert_eq!(up.collector.as_deref(), Some("rrc21.ripe.net"));
    rig.until_feed(|change| *change == FeedChange::Loaded).await;
    // Another peer, whose first word comes after the time in which tables are transferred.
    server
        .send(message(
            "192.0.2.2",
            "rrc01.ripe.net",
            &announcement(64_500),
        ))
        .await
        .unwrap();
    server
        .send(message(
            "192.0.2.2",
            "rrc01.ripe.net",
            &announcement(64_666),
        ))
        .await
        .unwrap();
    server
        .send(message("192.0.2.2", "rrc01.ripe.net", WITHDRAWAL))
        .await
        .unwrap();
    let told = rig
        .until(|event| {
            matches!(
                &event.what,
                What::Prefix {
                    change: Change::Withdrawn { .. },
                    ..
                }
            )
        })
        .await;
    let What::Prefix { sight, .. } = &told.last().unwrap().what else {
        panic!("{told:?}");
    };
    assert_eq!(
        (sight.visible, sight.gone),
        (0, 0),
        "no router of ours says anything"
    );
    let outside = sight.outside;
    assert_eq!(
        (outside.visible, outside.gone, outside.collectors),
        (1, 1, 1)
    );
    let changed = |event: &RoutingEvent| {
        matches!(
            &event.what,
            What::Prefix {
                change: Change::OriginChanged {
                    to: Some(64_666),
                    ..
                },
                ..
            }
        )
    };
    assert!(told.iter().any(changed), "{told:?}");
    // A peer's session with its collector ends: that is no withdrawal.
    server.send(state("down")).await.unwrap();
    let told = rig.until_feed(is_down).await;
    assert_eq!(told.last().unwrap().feed, "192.0.2.1 at rrc21.ripe.net");
    server.send(state("connected")).await.unwrap();
    rig.until_feed(|change| *change == FeedChange::Up).await;
    // And so does the connection.
    drop(server);
    for _ in 0..2 {
        let told = rig.until_feed(is_down).await;
        let withdrawn = |event: &RoutingEvent| matches!(event.what, What::Prefix { .. });
        assert!(!told.iter().any(withdrawn), "{told:?}");
    }
    rig.asked().await;
}

#[tokio::test]
async fn the_end_of_a_peers_session_is_not_lost_while_nobody_takes_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    let ris = RisLive {
        place: Place::parse(&url).unwrap(),
        silent_for: LONG,
    };
    let (shared, mut hearing, _again) = Shared::alone();
    let (want, wanted) = watch::channel(Wanted::default());
    tokio::spawn(follow(ris, public().unwrap(), wanted, shared.clone()));
    let (stream, _) = listener.accept().await.unwrap();
    let mut server = accept_async(stream).await.unwrap();
    let said = message("192.0.2.1", "rrc21.ripe.net", &announcement(64_500));
    server.send(said).await.unwrap();
    for _ in ["up", "routes"] {
        timeout(PATIENCE, hearing.recv()).await.unwrap().unwrap();
    }
    // Nobody takes anything when its end is read, and then the connection is given up.
    let filler = (shared.clock.now(), Vec::new());
    shared.heard.send(filler).await.unwrap();
    server.send(state("down")).await.unwrap();
    let is_read = async {
        while shared.figures.ris_messages.load(Relaxed) < 2 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, is_read).await.unwrap();
    want.send_modify(|own| own.addresses = vec!["192.0.2.7/32".parse().unwrap()]);
    // Before there is room again.
    tokio::task::yield_now().await;
    let (_, nothing) = timeout(PATIENCE, hearing.recv()).await.unwrap().unwrap();
    assert!(nothing.is_empty());
    let (_, last) = timeout(PATIENCE, hearing.recv()).await.unwrap().unwrap();
    assert!(matches!(last[..], [(_, Event::Down(_))]), "{last:?}");
}

#[tokio::test]
async fn messages_that_cannot_be_read_cost_themselves_and_those_that_are_too_long_the_connection() {
    let mut rig = Rig::new(LONG).await;
    let mut server = rig.asked().await;
    for odd in [
        "",
        "{",
        "{\"type\":\"ris_message\",\"data\":{}}",
        "\u{1f980}",
    ] {
        server.send(Message::text(odd)).await.unwrap();
    }
    server.send(Message::binary(vec![0xff; 100])).await.unwrap();
    server
        .send(message("192.0.2.1", "rrc21", "00"))
        .await
        .unwrap();
    server
        .send(message("192.0.2.1", "rrc21", &announcement(64_500)))
        .await
        .unwrap();
    rig.until_feed(|change| *change == FeedChange::Up).await;
    assert_eq!(rig.figures.ris_refused.load(Relaxed), 6);
    let long = format!(
        "{{\"type\":\"pong\",\"data\":\"{}\"}}",
        "x".repeat(ris::MESSAGE_MAX)
    );
    // The agent may close before all of it is there.
    _ = server.send(Message::text(long)).await;
    rig.until_feed(is_down).await;
    let mut server = rig.asked().await;
    server
        .send(message("192.0.2.1", "rrc21", &announcement(64_500)))
        .await
        .unwrap();
    rig.until_feed(|change| *change == FeedChange::Up).await;
}

#[tokio::test]
async fn a_server_that_answers_is_not_lost() {
    let rig = Rig::new(Duration::from_secs(9)).await;
    let mut server = rig.asked().await;
    // It is asked, and answers, for longer than it may be silent.
    for _ in 0..5 {
        assert_eq!(text(&mut server).await, ris::ping());
        let pong = r#"{"type":"pong","data":null}"#;
        server.send(Message::text(pong)).await.unwrap();
    }
    assert_eq!(rig.figures.ris_attempts.load(Relaxed), 1);
}

#[tokio::test]
async fn a_server_that_falls_silent_is_lost() {
    let mut rig = Rig::new(Duration::from_secs(5)).await;
    let mut server = rig.asked().await;
    let said = message("192.0.2.1", "rrc21", &announcement(64_500));
    server.send(said).await.unwrap();
    rig.until_feed(|change| *change == FeedChange::Up).await;
    // Now it only reads.
    rig.until_feed(is_down).await;
    rig.asked().await;
}

#[tokio::test]
async fn who_speaks_no_websocket_is_asked_again_later() {
    let rig = Rig::new(LONG).await;
    for answer in ["HTTP/1.1 503 Service Unavailable\r\n\r\n", "\0\0\0\0", ""] {
        let (mut stream, _) = rig.listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 4096]).await.unwrap();
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
    rig.asked().await;
}

#[tokio::test]
async fn an_encrypted_connection_is_made_with_who_is_certified_only() {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certified.cert.der().clone()).unwrap();
    let own = secured(roots).unwrap();
    let key = certified.signing_key.serialize_der();
    let server = rustls::ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key.try_into().unwrap())
        .unwrap();
    let server = tokio_rustls::TlsAcceptor::from(Arc::new(server));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let place = Place::parse(&format!("wss://localhost:{port}/")).unwrap();
    for (tls, is_believed) in [(own, true), (public().unwrap(), false)] {
        let serve = async {
            let (stream, _) = listener.accept().await.unwrap();
            let stream = server.accept(stream).await;
            match stream {
                Ok(stream) => accept_async(stream).await.is_ok(),
                Err(_) => false,
            }
        };
        let (served, connected) = tokio::join!(serve, connect(&place, &tls));
        assert_eq!((served, connected.is_ok()), (is_believed, is_believed));
    }
}

#[test]
fn a_place_is_what_its_url_says() {
    let place = |url: &str| {
        let place = Place::parse(url)?;
        Some((place.host, place.port, place.is_secure))
    };
    for (url, expected) in [
        (
            "wss://ris-live.ripe.net/v1/ws/?client=x",
            Some(("ris-live.ripe.net", 443, true)),
        ),
        ("ws://127.0.0.1:9000/", Some(("127.0.0.1", 9000, false))),
        ("ws://[::1]/", Some(("::1", 80, false))),
        ("https://ris-live.ripe.net/", None),
        ("ris-live.ripe.net", None),
        ("ws://user:secret@host/", None),
        ("wss:///v1", None),
    ] {
        let expected = expected.map(|(host, port, secure)| (host.to_owned(), port, secure));
        assert_eq!(place(url), expected, "{url}");
    }
}

/// Feeds of collectors are told of when something about them changed.
#[tokio::test]
async fn feeds_that_are_as_they_were_are_not_told_again() {
    let mut rig = Rig::new(LONG).await;
    let mut server = rig.asked().await;
    server
        .send(message("192.0.2.1", "rrc21", &announcement(64_500)))
        .await
        .unwrap();
    let mut told: Vec<FeedState> = Vec::new();
    // Ten windows of a second pass until it counts as loaded.
    loop {
        let found = timeout(Duration::from_secs(60), rig.found.recv()).await;
        let Some(Finding::Routing(routing)) = found.unwrap() else {
            panic!("nothing is told any more");
        };
        told.extend(routing.feeds);
        let loaded = What::Feed(FeedChange::Loaded);
        if routing.events.iter().any(|event| event.what == loaded) {
            break;
        }
    }
    assert!((1..=2).contains(&told.len()), "{told:?}");
}
