//! The prober with real packets on the loopback device.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod rig;

use std::net::TcpListener;

use leeward_agent::prober::counters::{StampSource, Stray};
use leeward_common::report::{Class, ProbeKind};
use rig::{Rig, config, path, plan, sockets};

#[test]
fn echo_requests_to_loopback_are_answered_and_stamped_by_the_kernel_twice() {
    let config = config(1, 61_100..=61_103);
    let Some(sockets) = sockets("loopback echo", &config) else {
        return;
    };
    let paths = vec![
        path(ProbeKind::Icmp, "127.0.0.1", 0),
        path(ProbeKind::Icmp, "::1", 0),
    ];
    let mut rig = Rig::start(sockets, config, plan(7, paths));
    rig.until("50 replies each", |sums| {
        (0..2).all(|row| {
            sums.get(&(7, row))
                .is_some_and(|sum| sum.of(Class::Replied) >= 50)
        })
    });
    let (sums, counters) = rig.stop();
    for sum in sums.values() {
        assert_eq!(
            sum.counts.ended(),
            u64::from(sum.of(Class::Replied) + sum.of(Class::NotSent)),
            "{sum:?}"
        );
        assert!(
            sum.rtt_min_us > 0 && sum.rtt_sum_us / sum.rtts < 5_000,
            "{sum:?}"
        );
    }
    let stamped = counters.stamps[StampSource::KernelBoth as usize];
    assert_eq!(stamped, counters.of(Class::Replied), "{counters:#?}");
    assert_eq!(
        (
            counters.tx_stamps_unfit,
            counters.strays_total(),
            counters.receive_errors
        ),
        (0, 0, 0)
    );
}

#[test]
fn a_syn_is_replied_to_by_a_listener_and_refused_by_a_closed_port() {
    let config = config(2, 61_104..=61_107);
    let Some(sockets) = sockets("loopback SYN", &config) else {
        return;
    };
    let open_v4 = TcpListener::bind("127.0.0.1:0").unwrap();
    let open_v6 = TcpListener::bind("[::1]:0").unwrap();
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
    let paths = vec![
        path(ProbeKind::TcpSyn, "127.0.0.1", port(&open_v4)),
        path(ProbeKind::TcpSyn, "127.0.0.1", closed),
        path(ProbeKind::TcpSyn, "::1", port(&open_v6)),
        path(ProbeKind::TcpSyn, "::1", closed),
    ];
    let classes = [
        Class::Replied,
        Class::Refused,
        Class::Replied,
        Class::Refused,
    ];
    let mut rig = Rig::start(sockets, config, plan(1, paths));
    rig.until("20 answers each", |sums| {
        (0u32..)
            .zip(classes)
            .all(|(row, class)| sums.get(&(1, row)).is_some_and(|sum| sum.of(class) >= 20))
    });
    let (sums, counters) = rig.stop();
    for (row, class) in (0u32..).zip(classes) {
        let sum = &sums[&(1, row)];
        assert_eq!(
            sum.counts.ended(),
            u64::from(sum.of(class) + sum.of(Class::NotSent)),
            "{class:?} {sum:?}"
        );
    }
    assert_eq!(counters.strays_of(Stray::WrongToken), 0, "{counters:#?}");
}
