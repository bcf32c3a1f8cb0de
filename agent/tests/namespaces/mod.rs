//! Two network namespaces joined by a veth pair; a test runs itself again inside the first.
//!
//! ```text
//!   namespace a: 10.77.0.1, fd77::1 ── veth ── namespace b: 10.77.0.2, fd77::2
//!                                               answers; blackholes 10.77.1.0/24, fd77:1::/64;
//!                                               calls 10.77.2.0/24, fd77:2::/64 unreachable
//! ```

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::{
    io::ErrorKind,
    net::TcpStream,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use super::rig;

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
        run_inside(&self.a, "namespaces::the_link_is_up");
    }
}

/// Run inside by [`Namespaces::wait_for_link`].
#[test]
fn the_link_is_up() {
    if !is_inside() {
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

/// Runs `ip`, quietly; whether it succeeded.
pub fn ip(arguments: &str) -> bool {
    Command::new("ip")
        .args(arguments.split(' '))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Whether this is the run inside.
pub fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// A test of this program, to be run inside a namespace.
pub fn test_inside(namespace: &str, test: &str) -> Command {
    let mut command = Command::new("ip");
    command
        .args(["netns", "exec", namespace])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1");
    command
}

/// Runs a test of this program inside a namespace; it must succeed.
pub fn run_inside(namespace: &str, test: &str) {
    let mut command = test_inside(namespace, test);
    let status = command.stdin(Stdio::null()).status().unwrap();
    assert!(status.success(), "{test} failed inside its namespace");
}

/// Runs the test of this name again inside a fresh namespace; true in the run inside.
pub fn inside(test: &str) -> bool {
    inside_of(test, |_, _| {}, &[])
}

/// The same, after something was done with both namespaces, by their names, and by another command than this program, which
/// leads to it.
pub fn inside_of(test: &str, prepare: impl FnOnce(&str, &str), command: &[&str]) -> bool {
    if is_inside() {
        return true;
    }
    let short: String = test.split('_').map(|word| &word[..1]).collect();
    let Some(namespaces) = Namespaces::new(&short) else {
        leeward_testing::skipped(test, "needs root and `ip netns`");
        return false;
    };
    prepare(&namespaces.a, &namespaces.b);
    let status = Command::new("ip")
        .args(["netns", "exec", &namespaces.a])
        .args(match command {
            [] => vec![std::env::current_exe().unwrap().into_os_string()],
            words => words.iter().map(Into::into).collect(),
        })
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .stdin(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success(), "{test} failed inside its namespace");
    false
}
