//! Networks that harm: UDP that loses, repeats and disorders, and UDP that is blocked. Loopback only.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use leeward_common::wire::{ALPN_V1, batch, frame, v1};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinHandle,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::Transport;
use crate::uplink::fake::{Authority, FakeAggregator, Rig, mesh, server_tls, soon, target, until};

/// Carries datagrams between an agent and an aggregator, and does to them what bad networks do, by a fixed pattern.
fn spawn_bad_network(front: UdpSocket, aggregator: SocketAddr) -> JoinHandle<()> {
    tokio::spawn(async move {
        let front = Arc::new(front);
        let mut backs: BTreeMap<SocketAddr, Arc<UdpSocket>> = BTreeMap::new();
        let mut bytes = vec![0; 65_536];
        let mut number = 0_u64;
        let mut held: Option<(Vec<u8>, SocketAddr)> = None;
        loop {
            let (length, from) = front.recv_from(&mut bytes).await.unwrap();
            let back = match backs.get(&from) {
                Some(back) => Arc::clone(back),
                None => {
                    let back = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap());
                    tokio::spawn(answer(Arc::clone(&back), Arc::clone(&front), from));
                    backs.insert(from, Arc::clone(&back));
                    back
                }
            };
            number += 1;
            match number % 10 {
                // Lost.
                3 => {}
                // Repeated.
                5 => {
                    let _ = back.send_to(&bytes[..length], aggregator).await;
                    let _ = back.send_to(&bytes[..length], aggregator).await;
                }
                // Overtaken by the next one.
                7 => held = Some((bytes[..length].to_vec(), from)),
                _ => {
                    let _ = back.send_to(&bytes[..length], aggregator).await;
                    if let Some((late, of)) = held.take() {
                        let _ = backs[&of].send_to(&late, aggregator).await;
                    }
                }
            }
        }
    })
}

async fn answer(back: Arc<UdpSocket>, front: Arc<UdpSocket>, to: SocketAddr) {
    let mut bytes = vec![0; 65_536];
    let mut number = 0_u64;
    while let Ok((length, _)) = back.recv_from(&mut bytes).await {
        number += 1;
        if number % 11 != 4 {
            let _ = front.send_to(&bytes[..length], to).await;
        }
        if number % 13 == 6 {
            let _ = front.send_to(&bytes[..length], to).await;
        }
    }
}

#[tokio::test]
async fn everything_arrives_once_over_a_network_that_loses_repeats_and_disorders() {
    const WINDOWS: u64 = 40;
    let authority = Authority::new();
    let at = FakeAggregator::new(&authority);
    let front = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = front.local_addr().unwrap();
    let network = spawn_bad_network(front, at.address);
    let mut rig = Rig::new(&authority, &[address]);
    let mut peer = at.welcome(0).await;
    peer.set_up().await;
    let plan = rig.plan().await;
    for _ in 0..WINDOWS {
        rig.close_window(plan.version).await;
    }
    let mut arrived = BTreeSet::new();
    for _ in 0..WINDOWS {
        let sequence = peer.batch().await.sequence;
        assert!(arrived.insert(sequence), "{sequence} came twice");
        peer.durable(&[sequence]).await;
    }
    assert_eq!(arrived, (0..WINDOWS).collect());
    until("an empty spool", || rig.figures.waiting() == 0).await;
    network.abort();
}

/// The TLS connection of an agent.
struct TlsPeer(TlsStream<TcpStream>);

impl TlsPeer {
    async fn accept(listener: &TcpListener, authority: &Authority) -> (Self, v1::Hello) {
        let tls = server_tls(&authority.certificate, &authority.aggregator(), ALPN_V1);
        let (stream, _) = soon("a connection over TCP", listener.accept())
            .await
            .unwrap();
        let stream = TlsAcceptor::from(Arc::new(tls))
            .accept(stream)
            .await
            .unwrap();
        let mut peer = Self(stream);
        let v1::FromAgent::Hello(hello) = peer.control().await else {
            panic!("no hello")
        };
        (peer, hello)
    }

    async fn frame(&mut self) -> (frame::Header, Vec<u8>) {
        soon("a frame", async {
            let mut header = [0; frame::HEADER_BYTES];
            self.0.read_exact(&mut header).await.unwrap();
            let header = frame::parse_header(&header).unwrap();
            let mut payload = vec![0; header.length];
            self.0.read_exact(&mut payload).await.unwrap();
            (header, payload)
        })
        .await
    }

    /// The next control message that is no status.
    async fn control(&mut self) -> v1::FromAgent {
        loop {
            let (header, payload) = self.frame().await;
            let message = frame::parse_from_agent(&header, &payload).unwrap();
            if !matches!(message, v1::FromAgent::Status(_)) {
                return message;
            }
        }
    }

    async fn batch(&mut self) -> u64 {
        loop {
            let (header, payload) = self.frame().await;
            if header.message_type == frame::number::BATCH {
                let bytes = frame::parse_batch(&header, &payload).unwrap();
                return batch::decode(bytes).unwrap().sequence;
            }
        }
    }

    async fn say(&mut self, message: &v1::FromAggregator) {
        let bytes = frame::frame_from_aggregator(message);
        self.0.write_all(&bytes).await.unwrap();
        self.0.flush().await.unwrap();
    }
}

#[tokio::test]
async fn where_udp_is_blocked_tls_carries_the_session_until_quic_gets_through() {
    let authority = Authority::new();
    // Takes every datagram and answers none.
    let blocked = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = blocked.local_addr().unwrap();
    let listener = TcpListener::bind(address).await.unwrap();
    let mut rig = Rig::new(&authority, &[address]);
    let (mut peer, hello) = TlsPeer::accept(&listener, &authority).await;
    let welcome = v1::Welcome {
        aggregator: "main".to_owned(),
        durable_below: 0,
        findings: true,
        version: v1::VERSIONS[1],
        backlog: Vec::new(),
        credit: Some(3),
    };
    peer.say(&v1::FromAggregator::Welcome(welcome)).await;
    let wanted = mesh(1, vec![target("t1", "10.0.0.1")]);
    peer.say(&v1::FromAggregator::Mesh(wanted)).await;
    let table = loop {
        if let v1::FromAgent::Paths(paths) = peer.control().await {
            break paths.table;
        }
    };
    let durable = v1::PathsDurable {
        table,
        boot_epoch: None,
    };
    peer.say(&v1::FromAggregator::PathsDurable(durable)).await;
    let plan = rig.plan().await;
    for sequence in 0..5 {
        rig.close_window(plan.version).await;
        assert_eq!(peer.batch().await, sequence);
        let durable = v1::Durable {
            sequences: vec![sequence],
            ..v1::Durable::default()
        };
        peer.say(&v1::FromAggregator::Durable(durable)).await;
    }
    until("an empty spool", || rig.figures.waiting() == 0).await;
    assert_eq!(
        rig.figures.aggregators[0].figures.transport(),
        Transport::Tls
    );

    drop(blocked);
    let at = FakeAggregator::bound(
        &authority.certificate,
        &authority.aggregator(),
        ALPN_V1,
        address,
    );
    let (mut peer, again) = at.accept().await;
    assert_eq!(again.boot_epoch, hello.boot_epoch);
    peer.welcomed(5, true).await;
    let figures = rig.figures.clone();
    until("QUIC", || {
        figures.aggregators[0].figures.transport() == Transport::Quic
    })
    .await;
    let again = peer.paths().await.table;
    assert_eq!(again, table);
    peer.table_durable(table).await;
    rig.close_window(plan.version).await;
    assert_eq!(peer.batch().await.sequence, 5);
}
