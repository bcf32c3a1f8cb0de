//! Flows over a network that balances over two equal ways, of which one loses everything: it shows as bad flows, whole, and
//! not as half the loss of every flow.
//!
//! ```text
//!   namespace a ══ two veth pairs ══ namespace b
//!   10.78.8.8, fd78:8::8             10.78.9.9, fd78:9::9       a balances what leaves for b's over both pairs;
//!                                                                on the second it has b's hardware address wrong
//! ```

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod namespaces;
mod rig;

use leeward_agent::reflector::{Reflector, ReflectorConfig, ReflectorSockets};
use leeward_agent::window::flows::{FlowAccount, FlowSpan};
use leeward_common::report::ProbeKind;
use namespaces::{inside_of, ip};
use rig::{Rig, config, path, plan, sockets};

const FLOWS: u8 = 8;

/// A second pair, and a way over both to what is behind.
fn balance(a: &str, b: &str) {
    let steps = [
        format!("-n {a} link add va2 type veth peer name vb2 netns {b}"),
        format!("-n {a} addr add 10.78.2.1/24 dev va2"),
        format!("-n {a} addr add fd78:2::1/64 dev va2 nodad"),
        format!("-n {a} link set va2 up"),
        format!("-n {b} addr add 10.78.2.2/24 dev vb2"),
        format!("-n {b} addr add fd78:2::2/64 dev vb2 nodad"),
        format!("-n {b} link set vb2 up"),
        format!("-n {a} addr add 10.78.8.8/32 dev lo"),
        format!("-n {a} addr add fd78:8::8/128 dev lo nodad"),
        format!("-n {b} addr add 10.78.9.9/32 dev lo"),
        format!("-n {b} addr add fd78:9::9/128 dev lo nodad"),
        format!("-n {b} route add 10.78.8.8/32 via 10.77.0.1"),
        format!("-n {b} route add fd78:8::8/128 via fd77::1"),
        format!("-n {a} neigh replace 10.78.2.2 lladdr 02:00:00:00:00:99 dev va2"),
        format!("-n {a} neigh replace fd78:2::2 lladdr 02:00:00:00:00:99 dev va2"),
        // By ports over IPv4; over IPv6 the flow label is hashed anyway.
        format!("netns exec {a} sysctl -qw net.ipv4.fib_multipath_hash_policy=1"),
        format!(
            "-n {a} route add 10.78.9.9/32 src 10.78.8.8 nexthop via 10.77.0.2 nexthop via 10.78.2.2"
        ),
        format!(
            "-n {a} route add fd78:9::9/128 src fd78:8::8 nexthop via fd77::2 nexthop via fd78:2::2"
        ),
    ];
    for step in &steps {
        assert!(ip(step), "ip {step}");
    }
}

fn whole(flows: &[FlowAccount]) -> (usize, usize) {
    let lost = flows.iter().filter(|flow| flow.lost == flow.ended).count();
    (lost, flows.iter().filter(|flow| flow.lost == 0).count())
}

#[test]
fn a_bad_way_among_equal_ones_is_a_bad_flow_and_not_average_loss() {
    const TEST: &str = "a_bad_way_among_equal_ones_is_a_bad_flow_and_not_average_loss";
    // The reflector has to stand in the other namespace: this program, once more.
    let reflector = std::env::var_os("LEEWARD_TEST_REFLECTOR").is_some();
    if reflector {
        return reflect();
    }
    let mut other = None;
    let prepare = |a: &str, b: &str| {
        balance(a, b);
        let mut command = std::process::Command::new("ip");
        command
            .args(["netns", "exec", b])
            .arg(std::env::current_exe().unwrap());
        command.args(["--exact", TEST, "--nocapture"]);
        command
            .env("LEEWARD_TEST_REFLECTOR", "1")
            .stdin(std::process::Stdio::piped());
        other = Some(command.spawn().unwrap());
    };
    if !inside_of(TEST, prepare, &[]) {
        // Closing its input ends it.
        if let Some(mut other) = other {
            drop(other.stdin.take());
            other.wait().unwrap();
        }
        return;
    }
    let config = config(70, 61_260..=61_267);
    let Some(sockets) = sockets("flows", &config) else {
        return;
    };
    let paths = vec![
        path(ProbeKind::Stamp, "10.78.9.9", 8_620),
        path(ProbeKind::Stamp, "fd78:9::9", 8_620),
        path(ProbeKind::Icmp, "fd78:9::9", 0),
        path(ProbeKind::TcpSyn, "fd78:9::9", 9),
        path(ProbeKind::Icmp, "10.77.0.2", 0),
    ];
    let mut plan = plan(1, paths);
    plan.flows = FLOWS;
    let mut rig = Rig::start(sockets, config, plan);
    // The first span may be short, and of the second nothing is lost before its probes expire.
    let full = |span: &FlowSpan| {
        span.rows()
            .all(|flows| flows.iter().all(|flow| flow.ended >= 20))
    };
    while !rig.spans.iter().any(full) {
        let windows = rig.sums.get(&(1, 4)).map_or(0, |sum| sum.windows);
        rig.until("the next windows", |sums| {
            sums.get(&(1, 4))
                .is_some_and(|sum| sum.windows >= windows + 50)
        });
    }
    let span = rig.spans.iter().find(|span| full(span)).unwrap();
    let rows: Vec<_> = span.rows().map(whole).collect();
    for (row, &(bad, good)) in rows.iter().enumerate() {
        assert_eq!(
            bad + good,
            usize::from(FLOWS),
            "a flow lost a part: row {row} of {span:#?}"
        );
    }
    assert_eq!(rows[4], (0, 8), "the way that is not balanced is good");
    // Which flow goes which way is the kernel's secret. That all of one path go one way is rare, of all paths unheard of.
    assert!(
        rows[..4].iter().any(|&(bad, good)| bad > 0 && good > 0),
        "{rows:?}"
    );
    rig.stop();
}

/// Answers until nobody holds its input open.
fn reflect() {
    let config = ReflectorConfig {
        key: None,
        reflect_for: vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()],
        max_per_second: 10_000,
        heavy: false,
    };
    let reflector = Reflector::start(ReflectorSockets::bind(8_620).unwrap(), config).unwrap();
    let mut line = String::new();
    let _ = std::io::stdin().read_line(&mut line);
    drop(reflector);
}
