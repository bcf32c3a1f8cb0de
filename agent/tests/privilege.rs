//! Giving up the privilege, in a process of its own with a single thread: capabilities belong to threads.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use leeward_agent::{
    privilege,
    prober::{Family, Mode, Plan, PlannedPath, Prober, ProberConfig},
};
use leeward_common::{
    histogram::Schema,
    id::TargetId,
    report::{Class, Path, ProbeKind},
};
use std::time::{Duration, Instant};

fn main() {
    let config = ProberConfig {
        syn_source_ports: 61_400..=61_403,
        ..ProberConfig::new([1; 16], 1)
    };
    let sockets = privilege::open_sockets(&config).unwrap();
    if !sockets.is_privileged(Family::V4) {
        leeward_testing::skipped("privilege", "needs CAP_NET_RAW; run the tests as root");
        return;
    }
    // The kernel gives no raw socket any more.
    let again = privilege::open_sockets(&config).unwrap();
    for kind in [ProbeKind::Icmp, ProbeKind::TcpSyn] {
        assert_ne!(again.mode(kind, Family::V4), Some(Mode::Raw), "{kind}");
    }
    drop(again);
    let all = [
        caps::CapSet::Effective,
        caps::CapSet::Permitted,
        caps::CapSet::Inheritable,
        caps::CapSet::Ambient,
    ];
    for set in all {
        assert!(caps::read(None, set).unwrap().is_empty(), "{set:?}");
    }
    probes_still_leave(sockets, config);
    println!("privilege: ok");
}

/// The sockets outlive the privilege, SYNs with a pinned source address included.
fn probes_still_leave(sockets: leeward_agent::prober::Sockets, config: ProberConfig) {
    let path = |kind, target: &str| PlannedPath {
        path: Path {
            target: TargetId::parse(target).unwrap(),
            kind,
            region: None,
        },
        address: "127.0.0.1".parse().unwrap(),
        port: 1,
    };
    let (out, _windows) = tokio::sync::mpsc::channel(16);
    let handle = Prober::start(sockets, config, out).unwrap();
    let plan = Plan {
        version: 1,
        interval: Duration::from_millis(20),
        window: Duration::from_secs(1),
        expiry: Duration::from_secs(1),
        schema: Schema::TwoDigits,
        silence: None,
        flows: 4,
        paths: vec![path(ProbeKind::Icmp, "a"), path(ProbeKind::TcpSyn, "b")],
    };
    handle.set_plan(plan).unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let counters = handle.counters();
        if counters.of(Class::Replied) >= 5 && counters.of(Class::Refused) >= 5 {
            return;
        }
        assert!(Instant::now() < deadline, "{counters:#?}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}
