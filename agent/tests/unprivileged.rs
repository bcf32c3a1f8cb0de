//! A process that may not have raw sockets probes by what it may have. The privilege is really gone: the test runs itself again
//! in a namespace under another user, without capabilities and without a way to get any.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod namespaces;
mod rig;

use std::{
    net::{Ipv4Addr, TcpListener},
    process::Command,
};

use leeward_agent::prober::{Family, Missing, Mode, Modes, Sockets, counters::StampSource};
use leeward_common::report::{Class, ProbeKind};
use namespaces::{inside_of, ip};
use rig::{Rig, Sums, config, path, plan};

/// Gives up everything on the way to the test.
const SETPRIV: [&str; 9] = [
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    "--bounding-set=-all",
    "--inh-caps=-all",
    "--ambient-caps=-all",
    "--no-new-privs",
    "--",
];

/// Runs the test again without privileges; true in that run.
fn without_privilege(test: &str, groups: &str) -> bool {
    if Command::new("setpriv").arg("--version").output().is_err() {
        leeward_testing::skipped(test, "setpriv is not installed");
        return false;
    }
    // Another user cannot look into root's directories, where the program may stand.
    let open = tempfile::tempdir().unwrap();
    std::fs::set_permissions(
        open.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let copy = open.path().join("test");
    std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    let command = [&SETPRIV[..], &["env", "-C", "/", copy.to_str().unwrap()]].concat();
    let prepare = |a: &str, _: &str| {
        let setting = format!("netns exec {a} sysctl -qw net.ipv4.ping_group_range={groups}");
        assert!(ip(&setting), "{setting}");
    };
    inside_of(test, prepare, &command)
}

fn enough(sums: &std::collections::BTreeMap<(u64, u32), Sums>, row: u32, class: Class) -> bool {
    sums.get(&(1, row)).is_some_and(|sum| sum.of(class) >= 30)
}

#[test]
fn ping_sockets_and_connections_take_the_place_of_raw_sockets() {
    const TEST: &str = "ping_sockets_and_connections_take_the_place_of_raw_sockets";
    if !without_privilege(TEST, "65534\t65534") {
        return;
    }
    assert!(
        caps::read(None, caps::CapSet::Permitted)
            .unwrap()
            .is_empty()
    );
    let config = config(71, 61_268..=61_271);
    let sockets = Sockets::open(&config).unwrap();
    assert_eq!(sockets.missing(), []);
    assert!(!sockets.is_privileged(Family::V4));
    assert_eq!(
        Modes::of(&sockets).to_string(),
        "icmp ping, tcp_syn connect, stamp udp"
    );
    let open = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = open.local_addr().unwrap().port();
    std::thread::spawn(move || while open.accept().is_ok() {});
    let paths = vec![
        path(ProbeKind::Icmp, "10.77.0.2", 0),
        path(ProbeKind::Icmp, "fd77::2", 0),
        path(ProbeKind::TcpSyn, "10.77.0.2", 9),
        path(ProbeKind::TcpSyn, "fd77::2", 9),
        path(ProbeKind::TcpSyn, "127.0.0.1", port),
        path(ProbeKind::TcpSyn, "10.77.1.1", 9),
    ];
    let classes = [
        Class::Replied,
        Class::Replied,
        Class::Refused,
        Class::Refused,
        Class::Replied,
        Class::Lost,
    ];
    let mut plan = plan(1, paths);
    plan.flows = 4;
    let mut rig = Rig::start(sockets, config, plan);
    rig.until("30 of each", |sums| {
        (0..)
            .zip(classes)
            .all(|(row, class)| enough(sums, row, class))
    });
    let (sums, counters) = rig.stop();
    for (row, class) in (0..).zip(classes) {
        let sum = &sums[&(1, row)];
        let clean = sum.of(class) + sum.of(Class::NotSent);
        assert_eq!(clean, sum.counts.ended() as u32, "{class:?} {sum:?}");
    }
    // The kernel's stamps, but of what was refused.
    let refused = counters.of(Class::Refused);
    assert_eq!(
        counters.stamps[StampSource::User as usize],
        refused,
        "{counters:#?}"
    );
    let kernels = counters.stamps[StampSource::KernelBoth as usize];
    assert_eq!(kernels, counters.of(Class::Replied), "{counters:#?}");
    assert_eq!(
        (counters.strays_total(), counters.tx_stamps_unfit),
        (0, 0),
        "{counters:#?}"
    );
}

#[test]
fn what_is_not_allowed_is_missing_and_the_rest_goes_on() {
    const TEST: &str = "what_is_not_allowed_is_missing_and_the_rest_goes_on";
    if !without_privilege(TEST, "1\t0") {
        return;
    }
    let config = config(72, 61_272..=61_275);
    let sockets = Sockets::open(&config).unwrap();
    assert_eq!(
        Modes::of(&sockets).to_string(),
        "icmp none, tcp_syn connect, stamp udp"
    );
    let [
        Missing {
            kind: ProbeKind::Icmp,
            reason,
            ..
        },
        _,
    ] = sockets.missing()
    else {
        panic!("{:?}", sockets.missing())
    };
    assert!(
        reason.contains("CAP_NET_RAW") && reason.contains("ping_group_range"),
        "{reason}"
    );
    assert_eq!(
        sockets.mode(ProbeKind::TcpSyn, Family::V6),
        Some(Mode::Connect)
    );
    let mut rig = Rig::start(
        sockets,
        config,
        plan(1, vec![path(ProbeKind::TcpSyn, "fd77::2", 9)]),
    );
    rig.until("30 answers", |sums| enough(sums, 0, Class::Refused));
    rig.stop();
}
