//! The prober with real packets between network namespaces: what a network does to probes, without a network.
//!
//! Each test makes two namespaces of its own joined by a veth pair, and runs itself again inside the first.
//!
//! ```text
//!   namespace a: 10.77.0.1, fd77::1 ── veth ── namespace b: 10.77.0.2, fd77::2
//!                                               answers; blackholes 10.77.1.0/24, fd77:1::/64;
//!                                               calls 10.77.2.0/24, fd77:2::/64 unreachable
//! ```

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod rig;

use std::{
    io::ErrorKind,
    net::TcpStream,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use leeward_agent::prober::counters::StampSource;
use leeward_common::report::{Class, ProbeKind};
use rig::{Rig, config, path, plan, sockets};

/// Tells the run inside from the one outside.
const INSIDE: &str = "LEEWARD_TEST_INSIDE_NAMESPACE";

/// Two namespaces that vanish with this.
struct Namespaces {
    a: String,
    b: String,
}

impl Namespaces {
    fn new(test: &str) -> Option<Self> {
        let name = |side| format!("lw-{}-{test}-{side}", std::process::id());
        let made = Self {
            a: name("a"),
            b: name("b"),
        };
        let (a, b) = (&made.a, &made.b);
        if !ip(&format!("netns add {a}")) || !ip(&format!("netns add {b}")) {
            return None;
        }
        let steps = [
            format!("-n {a} link add va type veth peer name vb netns {b}"),
            format!("-n {a} addr add 10.77.0.1/24 dev va"),
            format!("-n {a} addr add fd77::1/64 dev va nodad"),
            format!("-n {a} link set va up"),
            format!("-n {a} link set lo up"),
            format!("-n {b} addr add 10.77.0.2/24 dev vb"),
            format!("-n {b} addr add fd77::2/64 dev vb nodad"),
            format!("-n {b} link set vb up"),
            format!("-n {b} link set lo up"),
            format!("-n {a} route add 10.77.1.0/24 via 10.77.0.2"),
            format!("-n {a} route add 10.77.2.0/24 via 10.77.0.2"),
            format!("-n {a} route add fd77:1::/64 via fd77::2"),
            format!("-n {a} route add fd77:2::/64 via fd77::2"),
            format!("-n {b} route add blackhole 10.77.1.0/24"),
            format!("-n {b} route add unreachable 10.77.2.0/24"),
            format!("-n {b} route add blackhole fd77:1::/64"),
            format!("-n {b} route add unreachable fd77:2::/64"),
        ];
        for step in &steps {
            assert!(ip(step), "ip {step}");
        }
        let settings = "net.ipv4.ip_forward=1 net.ipv4.icmp_ratelimit=0 net.ipv6.conf.all.forwarding=1 net.ipv6.icmp.ratelimit=0 net.ipv4.icmp_msgs_per_sec=100000 net.ipv4.icmp_msgs_burst=100000";
        for setting in settings.split(' ') {
            // Kernels differ in which of the limits exist per namespace; a limit that stays only slows the test.
            ip(&format!("netns exec {b} sysctl -qw {setting}"));
        }
        made.wait_for_link();
        Some(made)
    }

    /// A fresh link takes a moment to carry packets: waits until the other end refuses a connection.
    fn wait_for_link(&self) {
        let exe = std::env::current_exe().unwrap();
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.a])
            .arg(exe)
            .args(["--exact", "the_link_is_up"])
            .env(INSIDE, "1");
        let status = command.stdout(Stdio::null()).status().unwrap();
        assert!(
            status.success(),
            "the link between the namespaces does not come up"
        );
    }
}

/// Run inside by [`Namespaces::wait_for_link`].
#[test]
fn the_link_is_up() {
    if std::env::var_os(INSIDE).is_none() {
        return;
    }
    let deadline = Instant::now() + rig::PATIENCE;
    for address in ["10.77.0.2:9", "[fd77::2]:9"] {
        let address = address.parse().unwrap();
        loop {
            match TcpStream::connect_timeout(&address, Duration::from_secs(1)) {
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => break,
                other => assert!(Instant::now() < deadline, "{address}: {other:?}"),
            }
        }
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        ip(&format!("netns del {}", self.a));
        ip(&format!("netns del {}", self.b));
    }
}

fn ip(arguments: &str) -> bool {
    Command::new("ip")
        .args(arguments.split(' '))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Runs the test of this name again inside a fresh namespace; true in the run inside.
fn inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let short: String = test.split('_').map(|word| &word[..1]).collect();
    let Some(namespaces) = Namespaces::new(&short) else {
        eprintln!("SKIPPED: {test}: needs root and `ip netns`");
        return false;
    };
    let status = Command::new("ip")
        .args(["netns", "exec", &namespaces.a])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .stdin(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success(), "{test} failed inside its namespace");
    false
}

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
