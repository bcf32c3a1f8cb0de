//! The prober with real packets between network namespaces: what a network does to probes, without a network.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod namespaces;
mod rig;

use std::time::Duration;

use leeward_agent::prober::counters::StampSource;
use leeward_common::report::{Class, ProbeKind};
use namespaces::inside;
use rig::{Rig, config, path, plan, sockets};

#[test]
fn a_neighbour_answers_every_kind_of_probe_over_both_families() {
    if !inside("a_neighbour_answers_every_kind_of_probe_over_both_families") {
        return;
    }
    let config = config(10, 61_200..=61_203);
    let Some(sockets) = sockets("neighbour", &config) else {
        return;
    };
    let paths = vec![
        path(ProbeKind::Icmp, "10.77.0.2", 0),
        path(ProbeKind::Icmp, "fd77::2", 0),
        path(ProbeKind::TcpSyn, "10.77.0.2", 9),
        path(ProbeKind::TcpSyn, "fd77::2", 9),
    ];
    let classes = [
        Class::Replied,
        Class::Replied,
        Class::Refused,
        Class::Refused,
    ];
    let mut rig = Rig::start(sockets, config, plan(1, paths));
    rig.until("30 answers each", |sums| {
        (0u32..)
            .zip(classes)
            .all(|(row, class)| sums.get(&(1, row)).is_some_and(|sum| sum.of(class) >= 30))
    });
    let (sums, counters) = rig.stop();
    for (row, class) in (0u32..).zip(classes) {
        let sum = &sums[&(1, row)];
        assert_eq!(
            sum.of(class) + sum.of(Class::NotSent),
            sum.counts.ended() as u32,
            "{class:?} {sum:?}"
        );
    }
    let answered = counters.of(Class::Replied) + counters.of(Class::Refused);
    assert_eq!(
        counters.stamps[StampSource::KernelBoth as usize],
        answered,
        "{counters:#?}"
    );
    assert_eq!(counters.tx_stamps_unfit, 0);
}

#[test]
fn a_silent_target_is_overdue_before_it_is_lost() {
    if !inside("a_silent_target_is_overdue_before_it_is_lost") {
        return;
    }
    let config = config(11, 61_204..=61_207);
    let Some(sockets) = sockets("silence", &config) else {
        return;
    };
    let paths = vec![
        path(ProbeKind::Icmp, "10.77.1.1", 0),
        path(ProbeKind::Icmp, "fd77:1::1", 0),
        path(ProbeKind::TcpSyn, "10.77.1.1", 9),
        path(ProbeKind::TcpSyn, "fd77:1::1", 9),
    ];
    let mut plan = plan(1, paths);
    // Longer than the deadline that holds until a first reply.
    plan.expiry = Duration::from_millis(1_500);
    let mut rig = Rig::start(sockets, config, plan);
    rig.until("overdue probes on each path", |sums| {
        (0..4).all(|row| {
            sums.get(&(1, row))
                .is_some_and(|sum| sum.counts.overdue >= 5)
        })
    });
    for sum in rig.sums.values() {
        assert_eq!(sum.of(Class::Lost), 0, "{sum:?}");
    }
    rig.until("lost probes on each path", |sums| {
        (0..4).all(|row| {
            sums.get(&(1, row))
                .is_some_and(|sum| sum.of(Class::Lost) >= 20)
        })
    });
    let (sums, _) = rig.stop();
    for sum in sums.values() {
        assert_eq!(
            sum.of(Class::Lost) + sum.of(Class::NotSent),
            sum.counts.ended() as u32,
            "{sum:?}"
        );
    }
}

#[test]
fn an_icmp_error_is_told_from_loss() {
    if !inside("an_icmp_error_is_told_from_loss") {
        return;
    }
    let config = config(12, 61_208..=61_211);
    let Some(sockets) = sockets("unreachable", &config) else {
        return;
    };
    let paths = vec![
        path(ProbeKind::Icmp, "10.77.2.1", 0),
        path(ProbeKind::Icmp, "fd77:2::1", 0),
        path(ProbeKind::TcpSyn, "10.77.2.1", 9),
        path(ProbeKind::TcpSyn, "fd77:2::1", 9),
    ];
    let mut plan = plan(1, paths);
    plan.interval = Duration::from_millis(50);
    let mut rig = Rig::start(sockets, config, plan);
    // Linux answers a source's first five packets over an unreachable IPv4 route, then one per second.
    rig.until("errors on each path", |sums| {
        (0..4).all(|row| {
            sums.get(&(1, row))
                .is_some_and(|sum| sum.of(Class::IcmpError) >= 2)
        })
    });
    let (_, counters) = rig.stop();
    assert_eq!(counters.strays_total(), 0, "{counters:#?}");
}

#[test]
fn what_this_host_cannot_send_is_no_loss() {
    if !inside("what_this_host_cannot_send_is_no_loss") {
        return;
    }
    let config = config(13, 61_212..=61_215);
    let Some(sockets) = sockets("no route", &config) else {
        return;
    };
    // There is no default route here.
    let paths = vec![
        path(ProbeKind::Icmp, "192.0.2.1", 0),
        path(ProbeKind::TcpSyn, "192.0.2.1", 9),
    ];
    let mut paths = paths;
    paths.push(path(ProbeKind::Icmp, "10.77.0.2", 0));
    let mut rig = Rig::start(sockets, config, plan(1, paths));
    rig.until("refusals and replies", |sums| {
        let enough = |row, class| {
            sums.get(&(1, row))
                .is_some_and(|sum: &rig::Sums| sum.of(class) >= 20)
        };
        enough(0, Class::LocalDrop) && enough(1, Class::LocalDrop) && enough(2, Class::Replied)
    });
    let (sums, counters) = rig.stop();
    assert_eq!(
        sums[&(1, 0)].of(Class::Lost) + sums[&(1, 1)].of(Class::Lost),
        0
    );
    // A refused send must not shift which stamp belongs to which probe.
    assert_eq!(
        counters.stamps[StampSource::KernelBoth as usize],
        counters.of(Class::Replied),
        "{counters:#?}"
    );
}
