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

#[test]
fn a_new_plan_continues_the_account_of_a_path_that_stays() {
    let config = config(3, 61_108..=61_111);
    let Some(sockets) = sockets("new plan", &config) else {
        return;
    };
    let stays = path(ProbeKind::Icmp, "127.0.0.1", 0);
    let goes = path(ProbeKind::Icmp, "127.0.0.2", 0);
    let comes = path(ProbeKind::TcpSyn, "127.0.0.3", 1);
    let mut rig = Rig::start(sockets, config, plan(1, vec![goes, stays.clone()]));
    rig.until("replies to the first plan", |sums| {
        sums.get(&(1, 1))
            .is_some_and(|sum| sum.of(Class::Replied) >= 10)
    });
    rig.handle.set_plan(plan(2, vec![stays, comes])).unwrap();
    rig.until("answers to the second plan", |sums| {
        let enough = |row, class| {
            sums.get(&(2, row))
                .is_some_and(|sum: &rig::Sums| sum.of(class) >= 10)
        };
        enough(0, Class::Replied) && enough(1, Class::Refused)
    });
    let (sums, counters) = rig.stop();
    let total = |class| {
        sums.values()
            .map(|sum| u64::from(sum.of(class)))
            .sum::<u64>()
    };
    let open: u64 = [(2, 0), (2, 1)]
        .iter()
        .map(|key| u64::from(sums[key].counts.open))
        .sum();
    let scheduled: u64 = sums
        .values()
        .map(|sum| u64::from(sum.counts.scheduled))
        .sum();
    let ended: u64 = Class::ALL.iter().map(|&class| total(class)).sum();
    assert_eq!(scheduled, ended + open + counters.abandoned, "{sums:#?}");
    assert_eq!(
        (total(Class::Lost), total(Class::Late)),
        (0, 0),
        "{sums:#?}"
    );
}

#[test]
fn a_plan_that_cannot_be_carried_out_is_refused() {
    let config = config(4, 61_112..=61_115);
    let Some(sockets) = sockets("bad plan", &config) else {
        return;
    };
    let mut rig = Rig::start(
        sockets,
        config,
        plan(1, vec![path(ProbeKind::Icmp, "127.0.0.1", 0)]),
    );
    let bad = leeward_agent::prober::Plan {
        window: std::time::Duration::from_millis(700),
        ..plan(2, Vec::new())
    };
    assert_eq!(
        rig.handle.set_plan(bad).unwrap_err().to_string(),
        "window is 700ms; it must divide a minute"
    );
    rig.until("replies", |sums| {
        sums.get(&(1, 0))
            .is_some_and(|sum| sum.of(Class::Replied) >= 5)
    });
}

#[test]
fn the_rate_cap_holds_whatever_the_plan_asks_for() {
    let mut config = config(5, 61_116..=61_119);
    config.max_probes_per_second = 50;
    let Some(sockets) = sockets("rate cap", &config) else {
        return;
    };
    let paths = (1..=20)
        .map(|host| path(ProbeKind::Icmp, &format!("127.0.78.{host}"), 0))
        .collect();
    let started = std::time::Instant::now();
    let mut rig = Rig::start(sockets, config, plan(1, paths));
    rig.until("refusals", |sums| {
        sums.values().map(|sum| sum.of(Class::NotSent)).sum::<u32>() >= 500
    });
    let (_, counters) = rig.stop();
    let allowed = (started.elapsed().as_secs_f64() + 0.25) * 50.0 + 1.0;
    assert!(
        counters.sent as f64 <= allowed,
        "{} of {allowed}",
        counters.sent
    );
    assert!(
        counters.sent > 0 && counters.rate_capped > 0,
        "{counters:#?}"
    );
}
