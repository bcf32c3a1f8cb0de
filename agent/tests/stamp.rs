//! STAMP over loopback: the prober against the reflector, straight and over relays that lose and reorder packets of one
//! direction; the reflector against what comes from elsewhere.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod relay;
mod rig;

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use leeward_agent::{
    probe::stamp::{ErrorEstimate, Format, Key, OPEN_BYTES, Reply, Request, Stamp},
    prober::counters::StampSource,
    reflector::{Reflector, ReflectorConfig, ReflectorCounters, ReflectorSockets, Refused},
};
use leeward_common::report::{Class, ProbeKind};
use relay::{Relay, Trouble};
use rig::{PATIENCE, Rig, config, path, plan, sockets};

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const KEY: &str = "000102030405060708090a0b0c0d0e0f";

fn reflector(key: Option<Key>, peers: &[&str]) -> Reflector {
    let config = ReflectorConfig {
        key,
        reflect_for: Vec::new(),
        max_per_second: 10_000,
        heavy: false,
    };
    let reflector = Reflector::start(ReflectorSockets::bind(0).unwrap(), config).unwrap();
    reflector.set_peers(peers.iter().map(|peer| peer.parse().unwrap()).collect());
    reflector
}

fn refused(counters: &ReflectorCounters, why: Refused) -> u64 {
    counters.refused[why as usize]
}

/// The prober and the reflector in either mode, over both families: every probe answered and none lost, in either
/// direction; both stamps the kernel's; the variation of each direction measured.
#[test]
fn the_reflector_answers_the_prober_in_both_modes_and_families() {
    for (seed, key) in [(300, None), (301, Some(Key::parse(KEY).unwrap()))] {
        let mut config = config(seed, 61_240..=61_241);
        config.stamp_key.clone_from(&key);
        let Some(sockets) = sockets("stamp", &config) else {
            return;
        };
        let reflector = reflector(key, &["127.0.0.1", "::1"]);
        let paths = vec![
            path(ProbeKind::Stamp, "127.0.0.1", reflector.port()),
            path(ProbeKind::Stamp, "::1", reflector.port()),
            path(ProbeKind::Stamp, "127.0.0.1", closed_port()),
        ];
        let mut rig = Rig::start(sockets, config, plan(1, paths));
        rig.until("30 answers each", |sums| {
            let enough = |row, class| {
                sums.get(&(1, row))
                    .is_some_and(|sum: &rig::Sums| sum.of(class) >= 30)
            };
            enough(0, Class::Replied) && enough(1, Class::Replied) && enough(2, Class::IcmpError)
        });
        let (sums, counters) = rig.stop();
        for row in [0, 1] {
            let sum = &sums[&(1, row)];
            assert_eq!(
                sum.of(Class::Replied) + sum.of(Class::NotSent),
                sum.counts.ended() as u32,
                "{sum:?}"
            );
            let one_way = sum.counts.one_way.unwrap();
            for direction in [one_way.forward, one_way.backward] {
                assert_eq!((direction.lost, direction.reordered), (0, 0), "{one_way:?}");
                assert!(direction.variation.pairs > 0, "{one_way:?}");
                assert!(direction.variation.max_us < 1_000_000, "{one_way:?}");
            }
            assert_eq!(one_way.lost_unknown + one_way.lost_pending, 0);
        }
        assert_eq!(
            counters.stamps[StampSource::KernelBoth as usize],
            counters.of(Class::Replied),
            "{counters:#?}"
        );
        // A reflector foresees when its reply leaves, and may be wrong by more than nothing takes on loopback.
        let few = counters.of(Class::Replied) / 20;
        assert!(counters.reflections_disbelieved <= few, "{counters:#?}");
        assert_eq!(counters.strays_total(), 0, "{counters:#?}");
        let reflected = reflector.counters();
        assert!(reflected.reflected >= counters.of(Class::Replied));
        assert_eq!(reflected.refused.iter().sum::<u64>(), 0, "{reflected:?}");
        assert_eq!(reflected.sessions, 2);
    }
}

/// A grid of losses, direction by direction: what is reported is what the relay did, to the packet.
#[test]
fn losses_and_reordering_are_told_by_direction_to_the_packet() {
    let config = config(310, 61_242..=61_243);
    let Some(sockets) = sockets("stamp directions", &config) else {
        return;
    };
    let reflector = reflector(None, &["127.0.0.1"]);
    let lossy = |forward, backward| Trouble {
        loss_percent: [forward, backward],
        ..Trouble::default()
    };
    let swaps = |forward, backward| Trouble {
        swap: [forward, backward],
        ..Trouble::default()
    };
    let relays = [
        lossy(0, 0),
        lossy(20, 0),
        lossy(0, 20),
        lossy(10, 30),
        lossy(100, 0),
        lossy(0, 100),
        swaps(true, false),
        swaps(false, true),
    ]
    .map(|trouble| Relay::start(trouble, reflector.port()));
    let paths = relays
        .iter()
        .map(|relay| path(ProbeKind::Stamp, "127.0.0.1", relay.port()))
        .collect();
    let mut plan = plan(1, paths);
    // Nothing is late but what was held back, however busy this host.
    plan.expiry = Duration::from_secs(2);
    let mut rig = Rig::start(sockets, config, plan);
    rig.until("all troubles are over and told", |sums| {
        relays.iter().zip(0u32..).all(|(relay, row)| {
            let Some(sum) = sums.get(&(1, row)) else {
                return false;
            };
            let lost = u64::from(sum.of(Class::Lost));
            let pending = sum.counts.one_way.unwrap_or_default().lost_pending;
            relay.is_calm() && lost >= relay.dropped().iter().sum() && pending == 0
        })
    });
    let (sums, counters) = rig.stop();
    for (relay, row) in relays.iter().zip(0u32..) {
        let sum = &sums[&(1, row)];
        let one_way = sum.counts.one_way.unwrap();
        let told = [one_way.forward, one_way.backward];
        let what = format!("path {row}: {one_way:?} {sum:?} {counters:#?}");
        assert_eq!(told.map(|of| u64::from(of.lost)), relay.dropped(), "{what}");
        assert_eq!(
            told.map(|of| u64::from(of.reordered)),
            relay.swapped(),
            "{what}"
        );
        assert_eq!(one_way.lost_unknown, 0, "{what}");
    }
}

/// A port that nobody listens on.
fn closed_port() -> u16 {
    let socket = UdpSocket::bind((LOCALHOST, 0)).unwrap();
    socket.local_addr().unwrap().port()
}

/// A sender of its own.
struct Sender {
    socket: UdpSocket,
    to: SocketAddr,
}

impl Sender {
    fn new(from: &str, reflector: &Reflector) -> Self {
        let from: IpAddr = from.parse().unwrap();
        let socket = UdpSocket::bind((from, 0)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let to = SocketAddr::new(LOCALHOST, reflector.port());
        Self { socket, to }
    }

    fn send(&self, bytes: &[u8]) {
        self.socket.send_to(bytes, self.to).unwrap();
    }

    fn receive(&self) -> Vec<u8> {
        let mut bytes = [0; 2_048];
        let (length, from) = self.socket.recv_from(&mut bytes).unwrap();
        assert_eq!(from, self.to, "a reply comes from where the request went");
        bytes[..length].to_vec()
    }

    fn is_answered(&self, key: Option<&Key>, request: &Request) -> Reply {
        self.send(&request.encode(key));
        Reply::decode(&self.receive(), key).unwrap()
    }
}

fn request(sequence: u32, ssid: u16) -> Request {
    Request {
        sequence,
        time: Stamp(0x0123_4567_89ab_cdef),
        error: ErrorEstimate::unknown(Format::Ptp),
        ssid,
    }
}

/// Waits until the reflector has counted so.
fn until(reflector: &Reflector, done: impl Fn(&ReflectorCounters) -> bool) -> ReflectorCounters {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let counters = reflector.counters();
        if done(&counters) {
            return counters;
        }
        assert!(Instant::now() < deadline, "{counters:?}");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

#[test]
fn a_reply_counts_and_brings_back_what_was_asked() {
    let reflector = reflector(None, &["127.0.0.1"]);
    let sender = Sender::new("127.0.0.1", &reflector);
    for count in 0..3 {
        // The request's own numbers have gaps; the reflector's have none.
        let asked = request(count * 7, 9);
        let reply = sender.is_answered(None, &asked);
        assert_eq!((reply.sequence, reply.request), (count, asked));
        assert_eq!(reply.ttl, 64);
        assert!(reply.dwell_ns().is_some_and(|ns| ns < 10_000_000_000));
        // In the format in which it was asked.
        assert_eq!(reply.error.format(), Format::Ptp);
    }
    let other = sender.is_answered(None, &request(5, 10));
    assert_eq!(other.sequence, 0, "another session");
    let mut longer = request(1, 9).encode(None).to_vec();
    longer.extend([0, 3, 0, 4, 1, 2, 3, 4]);
    sender.send(&longer);
    let reply = sender.receive();
    assert_eq!(reply.len(), longer.len());
    assert_eq!(reply[OPEN_BYTES..], [0x80, 3, 0, 4, 1, 2, 3, 4]);
}

#[test]
fn only_whole_requests_of_peers_are_answered() {
    let reflector = reflector(None, &["127.0.0.1"]);
    let sender = Sender::new("127.0.0.1", &reflector);
    let stranger = Sender::new("127.0.0.2", &reflector);
    let good = request(0, 1);
    stranger.send(&good.encode(None));
    sender.send(&good.encode(None)[..OPEN_BYTES - 1]);
    sender.send(&[7; 1_500]);
    sender.send(&[]);
    // A reply is not answered, or two reflectors would go on for ever.
    let reply = sender.is_answered(None, &good).encode(None, &[]);
    sender.send(&reply);
    let counters = until(&reflector, |counters| {
        counters.refused.iter().sum::<u64>() >= 5
    });
    assert_eq!(refused(&counters, Refused::Stranger), 1);
    assert_eq!(
        refused(&counters, Refused::Malformed) + refused(&counters, Refused::Reply),
        4
    );
    assert_eq!(counters.reflected, 1);
    // Who becomes a peer is answered.
    let both: BTreeSet<IpAddr> = ["127.0.0.1", "127.0.0.2"]
        .iter()
        .map(|peer| peer.parse().unwrap())
        .collect();
    reflector.set_peers(both);
    assert_eq!(stranger.is_answered(None, &good).sequence, 0);
    assert_eq!(sender.is_answered(None, &good).sequence, 1);
}

#[test]
fn with_a_key_only_what_is_proven_is_answered() {
    let key = Key::parse(KEY).unwrap();
    let other = Key::parse("ffffffffffffffffffffffffffffffff").unwrap();
    let reflector = reflector(Some(key.clone()), &["127.0.0.1"]);
    let sender = Sender::new("127.0.0.1", &reflector);
    sender.send(&request(0, 1).encode(None));
    sender.send(&request(0, 1).encode(Some(&other)));
    assert_eq!(sender.is_answered(Some(&key), &request(0, 1)).sequence, 0);
    let counters = reflector.counters();
    assert_eq!(refused(&counters, Refused::Malformed), 1);
    assert_eq!(refused(&counters, Refused::Unproven), 1);
}

#[test]
fn a_flood_is_answered_only_up_to_the_limit() {
    let config = ReflectorConfig {
        key: None,
        reflect_for: vec!["127.0.0.0/8".parse().unwrap()],
        max_per_second: 100,
        heavy: false,
    };
    let reflector = Reflector::start(ReflectorSockets::bind(0).unwrap(), config).unwrap();
    let sender = Sender::new("127.0.0.1", &reflector);
    let started = Instant::now();
    for sequence in 0..2_000 {
        sender.send(&request(sequence, 1).encode(None));
    }
    let counters = until(&reflector, |counters| {
        counters.reflected + refused(counters, Refused::RateLimited) >= 2_000
    });
    let allowed = (started.elapsed().as_secs_f64() + 0.25) * 100.0 + 1.0;
    assert!((counters.reflected as f64) <= allowed, "{counters:?}");
    assert!(counters.reflected >= 10, "{counters:?}");
}
