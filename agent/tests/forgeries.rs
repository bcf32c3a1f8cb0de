//! Forgeries of every kind, many for each true answer, in a namespace of its own: none is a sample, each is counted by its kind,
//! and not one true sample is lost to them. Counted, not timed.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod namespaces;
mod rig;

use std::{
    io::Read as _,
    net::{Ipv4Addr, SocketAddr},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use leeward_agent::{
    probe::{
        icmp::{ECHO_BYTES, v4},
        tcp_syn::{ACK, RST, SYN},
    },
    prober::counters::Stray,
};
use leeward_common::report::{Class, ProbeKind};
use namespaces::inside;
use rig::{Rig, config, path, plan, sockets};
use socket2::{Domain, Protocol, Socket, Type};

const US: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const THEM: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const OTHERS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 3);
/// Forgeries of each kind for each answer.
const EACH: usize = 25;
/// By which the forger knows its own.
const TTL: u8 = 33;

/// A whole IPv4 packet to us; the kernel fills in checksum and identification.
fn packet(from: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x45, 0, 0, 0, 0, 0, 0, 0, TTL, protocol, 0, 0];
    bytes.extend(from.octets());
    bytes.extend(US.octets());
    bytes.extend(payload);
    bytes
}

/// What the forger makes of a true echo reply, from its ICMP header on.
fn of_reply(reply: &[u8]) -> Vec<Vec<u8>> {
    let changed = |at: usize| {
        let mut forged = reply.to_vec();
        forged[at] ^= 1;
        forged
    };
    let quoting = |quoted: &[u8]| {
        let mut error = vec![v4::UNREACHABLE, 1, 0, 0, 0, 0, 0, 0];
        // The request, from us to them, as a router would quote it.
        error.extend([0x45, 0, 0, 0, 0, 0, 0, 0, 60, 1, 0, 0]);
        error.extend(US.octets());
        error.extend(THEM.octets());
        error.extend(quoted);
        error
    };
    let mut request = changed(24);
    request[0] = v4::ECHO_REQUEST;
    vec![
        packet(THEM, 1, reply),
        packet(OTHERS, 1, reply),
        packet(THEM, 1, &changed(24)),
        packet(THEM, 1, &reply[..reply.len() - 1]),
        packet(THEM, 1, &reply[..12]),
        packet(OTHERS, 1, &quoting(&request)),
        packet(OTHERS, 1, &quoting(&request[..8])),
    ]
}

/// Resets, and answers, to a SYN, that acknowledge what was never sent, or come from elsewhere.
fn of_syn(port: u16, number: u32) -> Vec<Vec<u8>> {
    let segment = |flags: u8| {
        let mut bytes = [0; 20];
        bytes[..2].copy_from_slice(&9u16.to_be_bytes());
        bytes[2..4].copy_from_slice(&port.to_be_bytes());
        bytes[8..12].copy_from_slice(&number.to_be_bytes());
        (bytes[12], bytes[13]) = (5 << 4, flags);
        bytes
    };
    vec![
        packet(THEM, 6, &segment(RST | ACK)),
        packet(THEM, 6, &segment(SYN | ACK)),
        packet(OTHERS, 6, &segment(RST | ACK)),
        packet(THEM, 6, &segment(RST)),
    ]
}

/// Answers every true echo reply with forgeries until it is told to stop.
fn forge(ports: std::ops::RangeInclusive<u16>, done: &AtomicBool) {
    let ears = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).unwrap();
    ears.set_read_timeout(Some(Duration::from_millis(20)))
        .unwrap();
    let mouth = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255))).unwrap();
    let to = SocketAddr::from((US, 0)).into();
    let mut number = 0u32;
    let mut heard = [0; 128];
    while !done.load(Ordering::Relaxed) {
        let Ok(length) = (&ears).read(&mut heard) else {
            continue;
        };
        let bytes = &heard[..length];
        let is_true =
            bytes[8] != TTL && bytes.len() == 20 + ECHO_BYTES && bytes[20] == v4::ECHO_REPLY;
        if !is_true {
            continue;
        }
        for port in ports.clone() {
            number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let forgeries = [of_reply(&bytes[20..]), of_syn(port, number)].concat();
            for forged in forgeries.iter().cycle().take(EACH * forgeries.len()) {
                // A full buffer only makes the flood smaller.
                let _ = mouth.send_to(forged, &to);
            }
        }
    }
}

#[test]
fn no_forgery_is_a_sample_and_none_costs_one() {
    const TEST: &str = "no_forgery_is_a_sample_and_none_costs_one";
    if !inside(TEST) {
        return;
    }
    let ports = 61_288..=61_289;
    let config = config(90, ports.clone());
    let Some(sockets) = sockets(TEST, &config) else {
        return;
    };
    let paths = vec![
        path(ProbeKind::Icmp, "10.77.0.2", 0),
        path(ProbeKind::TcpSyn, "10.77.0.2", 9),
    ];
    let mut plan = plan(1, paths);
    plan.flows = 2;
    let mut rig = Rig::start(sockets, config, plan);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| forge(ports, &done));
        rig.until("100 answers each under the flood", |sums| {
            let answered = |row, class: &[Class]| {
                sums.get(&(1, row))
                    .is_some_and(|sum| class.iter().map(|&class| sum.of(class)).sum::<u32>() >= 100)
            };
            answered(0, &[Class::Replied, Class::Duplicate]) && answered(1, &[Class::Refused])
        });
        done.store(true, Ordering::Relaxed);
    });
    let (sums, counters) = rig.stop();
    let clean = |row: u32, classes: &[Class]| {
        let sum = &sums[&(1, row)];
        let answered: u32 = classes.iter().map(|&class| sum.of(class)).sum();
        assert_eq!(
            answered + sum.of(Class::NotSent),
            sum.counts.ended() as u32,
            "{sum:?}"
        );
        assert_eq!(
            u64::from(answered),
            sum.rtts,
            "one sample for each answered probe"
        );
    };
    // A true answer that is sent once more is what a network that duplicates does, and is told as that.
    clean(0, &[Class::Replied, Class::Duplicate]);
    clean(1, &[Class::Refused]);
    let kinds = [
        Stray::Truncated,
        Stray::Foreign,
        Stray::WrongAddress,
        Stray::WrongToken,
        Stray::Repeated,
        Stray::ErrorUnattributed,
    ];
    for kind in kinds {
        assert!(counters.strays_of(kind) >= 100, "{kind:?}: {counters:#?}");
    }
    assert_eq!(counters.receive_overflow, 0, "{counters:#?}");
}
