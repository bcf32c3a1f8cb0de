//! Connections over loopback: who may, who is closed, and whose end is whose.

use leeward_common::{
    bgp::{Change, FeedChange, FeedState, RoutingEvent, Unsure},
    id::RegionId,
};

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr},
};

use socket2::{Domain, SockRef, Socket, Type};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::*;
use crate::{
    bgp::{session, watch::Watched},
    config::BgpPeer,
    net::guarding,
};

/// A message of BMP of a neighbour at 10.9.9.9 that announces 198.51.100.0/24.
fn announcement() -> Vec<u8> {
    let update = [
        0, 0, 0, 20, 0x40, 1, 1, 0, 0x40, 2, 6, 2, 1, 0, 0, 0xfb, 0xf5, 0x40, 3, 4, 192, 0, 2, 1,
        24, 198, 51, 100,
    ];
    let mut body = vec![0; 22];
    body.extend([
        10, 9, 9, 9, 0, 0, 0xfb, 0xf5, 10, 9, 9, 9, 0, 0, 0, 0, 0, 0, 0, 0,
    ]);
    body.extend([0xff; 16]);
    body.extend([0, 47, 2]);
    body.extend(update);
    let mut message = vec![3];
    message.extend(u32::try_from(6 + body.len()).unwrap().to_be_bytes());
    message.push(0);
    message.extend(body);
    message
}

struct Rig {
    address: SocketAddr,
    told: watch::Sender<Option<Told>>,
    found: mpsc::Receiver<Finding>,
    figures: Arc<Figures>,
}

impl Rig {
    /// Listens to routers of this network.
    fn new(routers: &str) -> Self {
        let config = Bgp {
            bmp_listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
            bmp_routers: vec![routers.parse().unwrap()],
            ..Bgp::default()
        };
        let bound = Bound::bind(&config).unwrap();
        let address = bound.bmp.as_ref().unwrap().local_addr().unwrap();
        let (out, found) = mpsc::channel(16);
        let (_, questions) = systems::channel();
        let (told, telling) = watch::channel(Some(Told::default()));
        let figures = start_answering(&config, bound, out, questions, telling).unwrap();
        Self {
            address,
            told,
            found,
            figures,
        }
    }

    /// An aggregator says by which prefix a region is reached.
    fn tell(&self, prefix: &str) {
        let watched = Watched::new(
            prefix.parse().unwrap(),
            "dub".parse().unwrap(),
            BTreeSet::new(),
        );
        self.told.send_replace(Some(Told {
            watch: vec![watched],
            ..Told::default()
        }));
    }

    /// The next event of a feed.
    async fn event(&mut self) -> FeedChange {
        let next = async {
            loop {
                if let Some(Finding::Routing(routing)) = self.found.recv().await
                    && let Some(event) = routing.events.into_iter().next()
                    && let What::Feed(change) = event.what
                {
                    return change;
                }
            }
        };
        timeout(Duration::from_secs(30), next).await.unwrap()
    }
}

/// Whether the other side closes.
async fn is_closed(stream: &mut TcpStream) -> bool {
    let read = timeout(Duration::from_secs(30), stream.read(&mut [0; 64])).await;
    matches!(read.unwrap(), Ok(0) | Err(_))
}

#[tokio::test]
async fn a_router_that_connects_anew_replaces_itself() {
    let mut rig = Rig::new("127.0.0.0/8");
    let mut first = TcpStream::connect(rig.address).await.unwrap();
    first.write_all(&announcement()).await.unwrap();
    assert_eq!(rig.event().await, FeedChange::Up);
    let mut second = TcpStream::connect(rig.address).await.unwrap();
    assert!(matches!(rig.event().await, FeedChange::Down { .. }));
    assert!(is_closed(&mut first).await);
    second.write_all(&announcement()).await.unwrap();
    assert_eq!(rig.event().await, FeedChange::Up);
}

#[tokio::test]
async fn a_router_that_sends_anything_else_ends_its_own_stream() {
    let mut rig = Rig::new("127.0.0.0/8");
    let mut hostile = TcpStream::connect(rig.address).await.unwrap();
    hostile.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert!(is_closed(&mut hostile).await);
    let mut good = TcpStream::connect(rig.address).await.unwrap();
    good.write_all(&announcement()).await.unwrap();
    assert_eq!(rig.event().await, FeedChange::Up);
}

#[tokio::test]
async fn who_is_not_named_is_closed_at_once() {
    let rig = Rig::new("192.0.2.0/24");
    let mut stranger = TcpStream::connect(rig.address).await.unwrap();
    assert!(is_closed(&mut stranger).await);
    assert_eq!(rig.figures.strangers.load(Relaxed), 1);
}

/// BMP has no word for "once more" but the end of the connection; who asks too often asks for the same.
#[tokio::test]
async fn a_router_sends_everything_once_more_when_more_is_watched() {
    let mut rig = Rig::new("127.0.0.0/8");
    let mut first = TcpStream::connect(rig.address).await.unwrap();
    first.write_all(&announcement()).await.unwrap();
    assert_eq!(rig.event().await, FeedChange::Up);
    rig.tell("198.51.100.0/24");
    assert!(is_closed(&mut first).await);
    assert!(matches!(rig.event().await, FeedChange::Down { .. }));
    let mut second = TcpStream::connect(rig.address).await.unwrap();
    second.write_all(&announcement()).await.unwrap();
    assert_eq!(rig.event().await, FeedChange::Up);
    // Nothing that was not watched before, so nobody is asked: the stream is still heard.
    rig.told.send_replace(Some(Told::default()));
    second.write_all(b"no BMP at all").await.unwrap();
    assert!(
        matches!(rig.event().await, FeedChange::Down { why, .. } if !why.contains("once more"))
    );
}

/// Nobody says where regions are: routers are heard all the same, a little later.
#[tokio::test]
async fn routers_are_heard_although_no_aggregator_is_there() {
    let config = Bgp {
        bmp_listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
        bmp_routers: vec!["127.0.0.0/8".parse().unwrap()],
        ..Bgp::default()
    };
    let bound = Bound::bind(&config).unwrap();
    let address = bound.bmp.as_ref().unwrap().local_addr().unwrap();
    let (out, mut found) = mpsc::channel(16);
    let (_, questions) = systems::channel();
    let (_told, telling) = watch::channel(None);
    let _figures = start_answering(&config, bound, out, questions, telling).unwrap();
    let mut router = TcpStream::connect(address).await.unwrap();
    router.write_all(&announcement()).await.unwrap();
    let first = timeout(Duration::from_secs(30), found.recv())
        .await
        .unwrap();
    assert!(matches!(first, Some(Finding::Routing(_))), "{first:?}");
}

const LONG: Duration = Duration::from_secs(30);

/// An agent that hears a peer on the link only; where it listens, and what it hands on.
fn guarded(listen: &str, peer: IpAddr) -> (SocketAddr, mpsc::Receiver<Finding>) {
    let config = Bgp {
        listen: Some(listen.parse().unwrap()),
        peers: vec![BgpPeer {
            session: session::Peer {
                address: peer,
                system: 64_501,
                own_system: 64_500,
                router_id: [10, 0, 0, 1].into(),
                hold_time: Duration::from_secs(90),
            },
            gtsm: true,
            signature_key: None,
        }],
        ..Bgp::default()
    };
    let bound = Bound::bind(&config).unwrap();
    let port = bound.bgp.as_ref().unwrap().local_addr().unwrap().port();
    let (out, found) = mpsc::channel(16);
    start(&config, bound, out).unwrap();
    (SocketAddr::new(peer, port), found)
}

fn client(to: SocketAddr) -> Socket {
    let client = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
    client.set_read_timeout(Some(LONG)).unwrap();
    client
}

/// The kind of the next message.
fn kind(client: &mut Socket) -> u8 {
    let mut header = [0; 19];
    client.read_exact(&mut header).unwrap();
    let length = usize::from(u16::from_be_bytes([header[16], header[17]]));
    client.read_exact(&mut vec![0; length - 19]).unwrap();
    header[18]
}

/// As FRR does with `ttl-security`: it looks at the answer to its first segment already.
#[test]
fn a_peer_that_hears_only_neighbours_from_the_first_segment_on_is_heard() {
    for (listen, peer) in [
        ("127.0.0.1:0", "127.0.0.1"),
        ("[::]:0", "127.0.0.1"),
        ("[::]:0", "::1"),
    ] {
        let peer = peer.parse().unwrap();
        let (address, _found) = guarded(listen, peer);
        let mut client = client(address);
        guarding::require_neighbour(&client, peer).unwrap();
        let connected = client.connect_timeout(&address.into(), LONG);
        assert!(connected.is_ok(), "{peer} at {listen}: {connected:?}");
        assert_eq!(kind(&mut client), 1, "our OPEN");
    }
}

/// How many segments the kernel dropped since they came from too far away.
fn dropped() -> u64 {
    let text = std::fs::read_to_string("/proc/net/netstat").unwrap();
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let mut both = names.split(' ').zip(values.split(' '));
    let value = both.find(|(name, _)| *name == "TCPMinTTLDrop");
    value.unwrap().1.parse().unwrap()
}

#[test]
fn what_comes_from_farther_than_the_link_is_not_heard() {
    let peer = IpAddr::from([127, 0, 0, 1]);
    let (address, _found) = guarded("127.0.0.1:0", peer);
    let mut client = client(address);
    client.set_ttl_v4(64).unwrap();
    client.connect(&address.into()).unwrap();
    assert_eq!(kind(&mut client), 1, "our OPEN");
    let before = dropped();
    client.write_all(&[0; 19]).unwrap();
    client.set_nonblocking(true).unwrap();
    while dropped() == before {
        let answer = client.read(&mut [0; 64]);
        assert!(answer.is_err_and(|error| error.kind() == ErrorKind::WouldBlock));
        std::thread::yield_now();
    }
    // The same from the link is heard, and is nonsense.
    SockRef::from(&client).set_ttl_v4(255).unwrap();
    client.set_nonblocking(false).unwrap();
    assert_eq!(kind(&mut client), 3, "a NOTIFICATION");
}

/// A report of what happened when the agent's clock showed this.
fn report(at: Timestamp) -> Routing {
    let source = [10, 0, 0, 1].into();
    let known_at = at - Duration::from_secs(20);
    let sight = Sight {
        unsure: Unsure { feeds: 1, known_at },
        ..Sight::default()
    };
    let (path, malformed) = (String::new(), false);
    let what = What::Prefix {
        prefix: "198.51.100.0/24".parse().unwrap(),
        region: RegionId::parse("dub").unwrap(),
        change: Change::Withdrawn { path, malformed },
        sight,
        learned: false,
    };
    let event = RoutingEvent {
        at,
        feed: "one".to_owned(),
        source,
        collector: None,
        what,
    };
    let feed = FeedState {
        feed: "one".to_owned(),
        source,
        collector: None,
        system: 64_501,
        standing: Standing::Believed,
        since: at - Duration::from_secs(3_000),
        updates: 1,
        announced: 1,
        withdrawn: 1,
        fabricated: 0,
    };
    Routing {
        events: vec![event],
        feeds: vec![feed],
        ..Routing::default()
    }
}

/// The clock is ten minutes wrong when the agent starts, and is set right before it tells anything.
#[test]
fn what_is_told_is_dated_by_the_wall_clock_of_that_time() {
    const WRONG: Duration = Duration::from_secs(600);
    let clock = Clock::new();
    let right = clock.now();
    assert_eq!(clock.dated(report(right)), report(right));
    for wall in [clock.wall - WRONG, clock.wall + WRONG] {
        let clock = Clock { wall, ..clock };
        let at = clock.now();
        let told = clock.dated(report(at));
        let dated = told.events[0].at;
        let is_right = |at: Timestamp| dated.since(at).max(at.since(dated)) < WRONG / 2;
        assert!(is_right(right) && !is_right(at), "{at} became {dated}");
        // All by the same.
        assert_eq!(told, report(dated));
    }
}
