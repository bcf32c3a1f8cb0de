//! Traces with real packets over a chain of namespaces, beside Debian's `traceroute`.
//!
//! ```text
//!   a ─────────────── r1 ─────────────── r2 ─────────────── b
//!     10.78.1.1   .2      10.78.2.1  .2      10.78.3.1  .2        and fd78:1::/64, fd78:2::/64, fd78:3::/64 alike
//! ```
//!
//! Each test makes a chain of its own and runs itself again inside the first namespace.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod namespaces;
mod rig;

use std::{
    io::{BufRead as _, BufReader, Read as _},
    net::{IpAddr, TcpStream},
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use leeward_agent::{
    errands::TraceErrand,
    prober::ProberConfig,
    reflector::{Reflector, ReflectorConfig, ReflectorSockets},
    trace::Tracer,
};
use leeward_common::{
    finding::{
        Finding, Trace,
        trace::{End, Says},
    },
    report::ProbeKind,
};
use leeward_testing::skipped;
use namespaces::{ip, is_inside, run_inside, test_inside};
use rig::{Rig, config, path, plan, sockets};

const TARGETS: [&str; 2] = ["10.78.3.2", "fd78:3::2"];
const ROUTERS: [[&str; 2]; 2] = [["10.78.1.2", "10.78.2.2"], ["fd78:1::2", "fd78:2::2"]];

/// Where the reflector of [`the_target_answers`] listens.
const STAMP_PORT: u16 = 8_862;

/// Four namespaces in a row that vanish with this.
struct Chain {
    names: [String; 4],
    /// Where the test's other half runs, and what it says.
    target: Option<(Child, BufReader<ChildStdout>)>,
}

impl Chain {
    fn new(test: &str) -> Option<Self> {
        let short: String = test.split('_').map(|word| &word[..1]).collect();
        let name = |place| format!("lw-{}-{short}-{place}", std::process::id());
        let mut made = Self {
            names: ["a", "r1", "r2", "b"].map(name),
            target: None,
        };
        if !made
            .names
            .iter()
            .all(|name| ip(&format!("netns add {name}")))
        {
            return None;
        }
        for link in 1..=3 {
            let (left, right) = (&made.names[link - 1], &made.names[link]);
            let steps = [
                format!("-n {left} link add e{link} type veth peer name w{link} netns {right}"),
                format!("-n {left} addr add 10.78.{link}.1/24 dev e{link}"),
                format!("-n {left} addr add fd78:{link}::1/64 dev e{link} nodad"),
                format!("-n {right} addr add 10.78.{link}.2/24 dev w{link}"),
                format!("-n {right} addr add fd78:{link}::2/64 dev w{link} nodad"),
                format!("-n {left} link set e{link} up"),
                format!("-n {right} link set w{link} up"),
            ];
            steps.iter().for_each(|step| assert!(ip(step), "ip {step}"));
        }
        let [a, r1, r2, b] = &made.names;
        for name in &made.names {
            assert!(ip(&format!("-n {name} link set lo up")));
            let settings = "net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0 net.ipv4.icmp_msgs_per_sec=100000 net.ipv4.icmp_msgs_burst=100000";
            for setting in settings.split(' ') {
                // Kernels differ in which of the limits exist per namespace; a limit that stays only slows the test.
                ip(&format!("netns exec {name} sysctl -qw {setting}"));
            }
        }
        for step in [
            format!("-n {a} route add default via 10.78.1.2"),
            format!("-n {a} -6 route add default via fd78:1::2"),
            format!("-n {r1} route add 10.78.3.0/24 via 10.78.2.2"),
            format!("-n {r1} -6 route add fd78:3::/64 via fd78:2::2"),
            format!("-n {r2} route add 10.78.1.0/24 via 10.78.2.1"),
            format!("-n {r2} -6 route add fd78:1::/64 via fd78:2::1"),
            format!("-n {b} route add default via 10.78.3.1"),
            format!("-n {b} -6 route add default via fd78:3::1"),
        ] {
            assert!(ip(&step), "ip {step}");
        }
        let mut target = test_inside(b, "the_target_answers");
        let mut child = target
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut told = BufReader::new(child.stdout.take().unwrap());
        let mut lines = told.by_ref().lines().map_while(Result::ok);
        let is_ready = lines.any(|line| line.contains("ready"));
        assert!(is_ready, "the target does not start");
        made.target = Some((child, told));
        run_inside(a, "the_chain_is_up");
        Some(made)
    }

    /// Drops at a router of the chain what this rule of nftables says; `false` without nft.
    fn drop_at(&self, router: usize, rule: &str) -> bool {
        let name = &self.names[router];
        let commands = format!(
            "add table inet lw; add chain inet lw out {{ type filter hook output priority 0; }}; add rule inet lw out {rule} drop"
        );
        let mut command = Command::new("ip");
        let status = command
            .args(["netns", "exec", name, "nft", &commands])
            .status();
        status.is_ok_and(|status| status.success())
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        if let Some((mut child, mut told)) = self.target.take() {
            // It ends when nobody holds its input any more.
            drop(child.stdin.take());
            let _ = told.read_to_end(&mut Vec::new());
            let _ = child.wait();
        }
        for name in &self.names {
            ip(&format!("netns del {name}"));
        }
    }
}

/// Run inside the last namespace by [`Chain::new`]: a reflector, until its input ends.
#[test]
fn the_target_answers() {
    if !is_inside() {
        return;
    }
    let config = ReflectorConfig {
        key: None,
        reflect_for: vec![
            "10.78.0.0/16".parse().unwrap(),
            "fd78::/16".parse().unwrap(),
        ],
        max_per_second: 10_000,
        heavy: false,
    };
    let reflector = Reflector::start(ReflectorSockets::bind(STAMP_PORT).unwrap(), config).unwrap();
    println!("ready on {}", reflector.port());
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

/// Run inside the first namespace by [`Chain::new`]: fresh links take a moment to carry packets.
#[test]
fn the_chain_is_up() {
    if !is_inside() {
        return;
    }
    let deadline = Instant::now() + rig::PATIENCE;
    for address in TARGETS {
        let address = std::net::SocketAddr::new(address.parse().unwrap(), 9);
        while !matches!(
            TcpStream::connect_timeout(&address, Duration::from_secs(1)),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused
        ) {
            assert!(Instant::now() < deadline, "{address} does not answer");
        }
    }
}

/// Makes a chain, prepares it, and runs the test of this name again inside; true in the run inside.
fn inside(test: &str, prepare: impl FnOnce(&Chain) -> bool) -> bool {
    if is_inside() {
        return true;
    }
    let Some(chain) = Chain::new(test) else {
        skipped(test, "needs root and `ip netns`");
        return false;
    };
    if !prepare(&chain) {
        skipped(test, "needs `nft`");
        return false;
    }
    run_inside(&chain.names[0], test);
    false
}

fn tracer(config: &ProberConfig) -> Option<Tracer> {
    let mut sockets = sockets("trace", config)?;
    Some(Tracer::new(sockets.take_tracing(), config))
}

fn errand(kind: ProbeKind, target: &str, mtu: bool) -> TraceErrand {
    let port = match kind {
        ProbeKind::Icmp => 0,
        ProbeKind::TcpSyn => 9,
        ProbeKind::Stamp => STAMP_PORT,
    };
    TraceErrand {
        order: 1,
        path: path(kind, target, port),
        mtu,
    }
}

fn traced(tracer: &mut Tracer, kind: ProbeKind, target: &str, mtu: bool) -> Trace {
    match tracer.carry_out(&errand(kind, target, mtu)) {
        Finding::Trace(trace) => *trace,
        other => panic!("no trace: {other:?}"),
    }
}

fn addresses(trace: &Trace) -> Vec<Option<IpAddr>> {
    let first = |hop: &leeward_common::finding::trace::Hop| hop.answers.first().map(|own| own.from);
    trace.hops.iter().map(first).collect()
}

fn expected(family: usize) -> Vec<Option<IpAddr>> {
    let [first, second] = ROUTERS[family];
    let all = [first, second, TARGETS[family]];
    all.iter()
        .map(|address| Some(address.parse().unwrap()))
        .collect()
}

/// What Debian's traceroute finds; `None` where it is not installed.
fn debian(kind: ProbeKind, target: &str) -> Option<Vec<Option<IpAddr>>> {
    // The reflector answers requests only, and traceroute's packets are none: beside it nobody listens.
    let port = (STAMP_PORT + 1).to_string();
    let how: &[&str] = match kind {
        ProbeKind::Icmp => &["-I"],
        ProbeKind::TcpSyn => &["-T", "-p", "9"],
        ProbeKind::Stamp => &["-U", "-p", &port],
    };
    let mut command = Command::new("traceroute");
    command
        .args(["-n", "-q", "1", "-w", "2"])
        .args(how)
        .arg(target);
    let output = command.output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let hop = |line: &str| {
        line.split_whitespace()
            .nth(1)
            .and_then(|word| word.parse().ok())
    };
    Some(text.lines().skip(1).map(hop).collect())
}

#[test]
fn every_kind_of_probe_finds_the_hops_that_traceroute_finds() {
    if !inside(
        "every_kind_of_probe_finds_the_hops_that_traceroute_finds",
        |_| true,
    ) {
        return;
    }
    let config = config(400, 61_300..=61_303);
    let Some(mut tracer) = tracer(&config) else {
        return;
    };
    for (family, target) in TARGETS.into_iter().enumerate() {
        for kind in ProbeKind::ALL {
            let trace = traced(&mut tracer, kind, target, false);
            assert_eq!(trace.end, End::Reached, "{trace:#?}");
            assert_eq!(addresses(&trace), expected(family), "{trace:#?}");
            for hop in &trace.hops {
                assert_eq!((hop.sent, hop.lost()), (3, 0), "{kind} {trace:#?}");
                // Namespaces of one host: by the kernel's stamps less than a busy machine's scheduling takes.
                assert!(hop.rtts_us()[0] < 5_000, "{kind} {trace:#?}");
            }
            assert_eq!(trace.hops[2].answers[0].says, Says::Reached, "{kind}");
            assert_eq!(
                (trace.strays.forged, trace.strays.truncated),
                (0, 0),
                "{kind}"
            );
            match debian(kind, target) {
                Some(theirs) => assert_eq!(addresses(&trace), theirs, "{kind} to {target}"),
                None => skipped(
                    &format!("{kind} to {target} beside traceroute"),
                    "it is not installed",
                ),
            }
        }
    }
    // Six a minute.
    let declined = tracer.carry_out(&errand(ProbeKind::Icmp, TARGETS[0], false));
    assert!(matches!(declined, Finding::Declined(_)), "{declined:?}");
}

#[test]
fn a_router_that_says_nothing_is_shown_as_one_and_a_closed_port_as_the_end() {
    let silent = |chain: &Chain| {
        chain.drop_at(1, "icmp type time-exceeded") && chain.drop_at(1, "icmpv6 type time-exceeded")
    };
    if !inside(
        "a_router_that_says_nothing_is_shown_as_one_and_a_closed_port_as_the_end",
        silent,
    ) {
        return;
    }
    let config = config(401, 61_304..=61_307);
    let Some(mut tracer) = tracer(&config) else {
        return;
    };
    for (family, target) in TARGETS.into_iter().enumerate() {
        let trace = traced(&mut tracer, ProbeKind::Icmp, target, false);
        let mut hops = expected(family);
        hops[0] = None;
        assert_eq!(addresses(&trace), hops, "{trace:#?}");
        assert_eq!((trace.hops[0].sent, trace.hops[0].lost()), (3, 3));
        assert_eq!(trace.end, End::Reached);

        let mut closed = errand(ProbeKind::Stamp, target, false);
        closed.path.port = STAMP_PORT + 1;
        let Finding::Trace(trace) = tracer.carry_out(&closed) else {
            panic!("no trace")
        };
        assert_eq!(trace.end, End::Reached);
        assert_eq!(
            trace.hops[2].answers[0].says,
            Says::PortUnreachable,
            "{trace:#?}"
        );
    }
    // Nobody knows the way: the router says so, or this host.
    let trace = traced(&mut tracer, ProbeKind::Icmp, "10.78.9.9", false);
    assert_eq!(trace.end, End::Unreachable, "{trace:#?}");
    let last = &trace.hops.last().unwrap().answers[0];
    assert_eq!(last.says, Says::NetUnreachable, "{trace:#?}");
}

fn narrow(chain: &Chain) -> bool {
    ip(&format!("-n {} link set e2 mtu 1400", chain.names[1]))
        && ip(&format!("-n {} link set w2 mtu 1400", chain.names[2]))
}

#[test]
fn the_largest_packet_is_found_where_routers_say_what_fits() {
    if !inside(
        "the_largest_packet_is_found_where_routers_say_what_fits",
        narrow,
    ) {
        return;
    }
    let config = config(402, 61_308..=61_311);
    let Some(mut tracer) = tracer(&config) else {
        return;
    };
    for (family, target) in TARGETS.into_iter().enumerate() {
        // Twice: what the kernel has learnt of the path must not stand in for it.
        for _ in 0..2 {
            let trace = traced(&mut tracer, ProbeKind::TcpSyn, target, true);
            let mtu = trace.mtu.unwrap();
            assert_eq!((mtu.bytes, mtu.local), (1_400, 1_500), "{trace:#?}");
            let hint = mtu.hinted.unwrap();
            assert_eq!((hint.bytes, Some(hint.from)), (1_400, expected(family)[0]));
            assert!(!mtu.black_hole && mtu.probes <= 8, "{mtu:?}");
        }
    }
}

#[test]
fn a_black_hole_for_large_packets_is_found_and_measured() {
    let silent = |chain: &Chain| {
        narrow(chain)
            && chain.drop_at(1, "icmp type destination-unreachable")
            && chain.drop_at(1, "icmpv6 type packet-too-big")
    };
    if !inside(
        "a_black_hole_for_large_packets_is_found_and_measured",
        silent,
    ) {
        return;
    }
    let config = config(403, 61_312..=61_315);
    let Some(mut tracer) = tracer(&config) else {
        return;
    };
    for target in TARGETS {
        let trace = traced(&mut tracer, ProbeKind::Icmp, target, true);
        let mtu = trace.mtu.unwrap();
        assert_eq!((mtu.bytes, mtu.local), (1_400, 1_500), "{trace:#?}");
        assert!(mtu.black_hole && mtu.hinted.is_none(), "{mtu:?}");
    }
}

#[test]
fn a_trace_takes_nothing_from_the_probes_of_the_same_path() {
    if !inside(
        "a_trace_takes_nothing_from_the_probes_of_the_same_path",
        |_| true,
    ) {
        return;
    }
    let config = config(404, 61_316..=61_319);
    let Some(mut sockets) = sockets("trace beside probes", &config) else {
        return;
    };
    let mut tracer = Tracer::new(sockets.take_tracing(), &config);
    let paths: Vec<_> = ProbeKind::ALL
        .into_iter()
        .map(|kind| errand(kind, TARGETS[0], false).path)
        .collect();
    let mut rig = Rig::start(sockets, config, plan(1, paths));
    rig.until("answers", |sums| sums.len() == 3);
    for kind in ProbeKind::ALL {
        let trace = traced(&mut tracer, kind, TARGETS[0], kind == ProbeKind::Icmp);
        assert_eq!(addresses(&trace), expected(0), "{kind} {trace:#?}");
        assert_eq!(
            trace.mtu.map(|mtu| mtu.bytes),
            (kind == ProbeKind::Icmp).then_some(1_500)
        );
    }
    let (sums, counters) = rig.stop();
    let lost: u32 = sums
        .values()
        .map(|sum| sum.of(leeward_common::report::Class::Lost))
        .sum();
    let errors: u32 = sums
        .values()
        .map(|sum| sum.of(leeward_common::report::Class::IcmpError))
        .sum();
    assert_eq!((lost, errors), (0, 0), "{counters:#?}");
}
