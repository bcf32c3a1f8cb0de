//! A flood of forged replies costs no true sample.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod rig;

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use leeward_agent::{
    probe::{
        icmp::{Echo, v4},
        token::{Identity, TokenKey},
    },
    prober::counters::Stray,
};
use leeward_common::report::{Class, ProbeKind};
use rig::{Rig, config, path, plan, sockets};
use socket2::{Domain, Protocol, Socket, Type};

/// Forged packets per burst and between bursts: about 50,000 per second.
const BURST: u32 = 50;
const PAUSE: Duration = Duration::from_millis(1);

#[test]
fn a_flood_of_forged_replies_costs_no_true_sample() {
    let config = config(20, 61_300..=61_303);
    let Some(sockets) = sockets("flood", &config) else {
        return;
    };
    let ident = TokenKey::new(config.secret).ident();
    let paths = (1..=20)
        .map(|host| path(ProbeKind::Icmp, &format!("127.0.77.{host}"), 0))
        .collect();
    let mut rig = Rig::start(sockets, config, plan(1, paths));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // The forger knows everything but the secret, even the identifier that the kernel filters by.
        scope.spawn(|| forge(ident, &done));
        rig.until("2,000 replies under the flood", |sums| {
            sums.values().map(|sum| sum.of(Class::Replied)).sum::<u32>() >= 2_000
        });
        done.store(true, Ordering::Relaxed);
    });
    let (_, counters) = rig.stop();
    assert!(
        counters.strays_of(Stray::WrongToken) > 5_000,
        "{counters:#?}"
    );
    let harmed = [
        Class::Lost,
        Class::Late,
        Class::IcmpError,
        Class::Duplicate,
        Class::Refused,
    ];
    assert_eq!(
        harmed.map(|class| counters.of(class)),
        [0; 5],
        "{counters:#?}"
    );
    assert_eq!(
        counters.stamps.iter().sum::<u64>(),
        counters.of(Class::Replied)
    );
}

fn forge(ident: u16, done: &AtomicBool) {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).unwrap();
    let to: SocketAddr = "127.0.77.1:0".parse().unwrap();
    let started = Instant::now();
    let mut sequence = 0;
    while !done.load(Ordering::Relaxed) && started.elapsed() < rig::PATIENCE {
        for _ in 0..BURST {
            let identity = Identity {
                slot: sequence % 20,
                sequence,
                sent_ns: 1,
                token: u64::from(sequence),
            };
            let mut bytes = Echo { ident, identity }.encode_v4(0x7654);
            // A reply's type is a request's less eight, and its checksum more by as much.
            bytes[0] = v4::ECHO_REPLY;
            let sum = u16::from_be_bytes([bytes[2], bytes[3]]);
            let (sum, carried) = sum.overflowing_add(u16::from(v4::ECHO_REQUEST) << 8);
            bytes[2..4].copy_from_slice(&(sum + u16::from(carried)).to_be_bytes());
            // A full buffer only makes the flood smaller.
            let _ = socket.send_to(&bytes, &to.into());
            sequence += 1;
        }
        std::thread::park_timeout(PAUSE);
    }
}
