//! Other people's programs see what we see: nmap and hping3 our answer port and closed ports, ping the same round trips; and a
//! peer that repeats its answers, because nobody refused them, is counted once. Each in a namespace of its own.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod namespaces;
mod rig;

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use leeward_agent::{answer, prober::counters::Stray};
use leeward_common::report::{Class, ProbeKind};
use leeward_testing::skipped;
use namespaces::{inside, inside_of, ip};
use rig::{Rig, config, path, plan, sockets};

/// What a program printed, all of it; `None` after saying loudly that it is not installed.
fn told(test: &str, program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output();
    let Ok(output) = output else {
        skipped(
            test,
            &format!("{program} is not installed; scripts/setup installs it"),
        );
        return None;
    };
    let text = [output.stdout, output.stderr].concat();
    Some(String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn nmap_and_hping3_see_our_answer_port_open() {
    const TEST: &str = "nmap_and_hping3_see_our_answer_port_open";
    if !inside(TEST) {
        return;
    }
    let listener = answer::listen(8_620).unwrap();
    let answered = Arc::default();
    let count = Arc::clone(&answered);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            answer::serve(listener, count).await;
        });
    });
    let scan = ["-n", "-Pn", "--reason", "-p", "8620,8621", "10.77.0.1"];
    for way in ["-sS", "-sT"] {
        if let Some(text) = told(TEST, "nmap", &[&[way], &scan[..]].concat()) {
            let says = |port: &str, word: &str| {
                text.lines()
                    .any(|line| line.starts_with(port) && line.contains(word))
            };
            assert!(says("8620/tcp", "open"), "{way}: {text}");
            assert!(says("8621/tcp", "closed"), "{way}: {text}");
        }
    }
    let syns = [
        "-I",
        "lo",
        "-S",
        "-n",
        "-p",
        "8620",
        "-c",
        "5",
        "-i",
        "u20000",
        "10.77.0.1",
    ];
    if let Some(text) = told(TEST, "hping3", &syns) {
        assert_eq!(text.matches("flags=SA").count(), 5, "{text}");
        assert!(
            text.contains("5 packets received, 0% packet loss"),
            "{text}"
        );
    }
}

#[test]
fn a_host_whose_port_is_closed_is_alive_to_nmap_and_to_us() {
    const TEST: &str = "a_host_whose_port_is_closed_is_alive_to_nmap_and_to_us";
    if !inside(TEST) {
        return;
    }
    let scan = ["-sS", "-n", "-Pn", "--reason", "-p", "9", "10.77.0.2"];
    if let Some(text) = told(TEST, "nmap", &scan) {
        assert!(
            text.contains("9/tcp closed") && text.contains("reset"),
            "{text}"
        );
    }
    let config = config(80, 61_276..=61_279);
    let Some(sockets) = sockets(TEST, &config) else {
        return;
    };
    let mut rig = Rig::start(
        sockets,
        config,
        plan(1, vec![path(ProbeKind::TcpSyn, "10.77.0.2", 9)]),
    );
    rig.until("20 resets", |sums| {
        sums.get(&(1, 0))
            .is_some_and(|sum| sum.of(Class::Refused) >= 20)
    });
    let (sums, _) = rig.stop();
    assert_eq!(
        sums[&(1, 0)].of(Class::Lost) + sums[&(1, 0)].of(Class::Replied),
        0
    );
}

#[test]
fn ping_beside_us_loses_nothing_either_and_is_no_faster_than_the_kernel() {
    const TEST: &str = "ping_beside_us_loses_nothing_either_and_is_no_faster_than_the_kernel";
    if !inside(TEST) {
        return;
    }
    let config = config(81, 61_280..=61_283);
    let Some(sockets) = sockets(TEST, &config) else {
        return;
    };
    let paths = vec![
        path(ProbeKind::Icmp, "10.77.0.2", 0),
        path(ProbeKind::Icmp, "fd77::2", 0),
    ];
    let mut rig = Rig::start(sockets, config, plan(1, paths));
    let pinged = ["10.77.0.2", "fd77::2"]
        .map(|host| told(TEST, "ping", &["-n", "-q", "-c", "30", "-i", "0.02", host]));
    rig.until("30 replies", |sums| {
        (0..2).all(|row| {
            sums.get(&(1, row))
                .is_some_and(|sum| sum.of(Class::Replied) >= 30)
        })
    });
    let (sums, counters) = rig.stop();
    for (row, text) in (0..).zip(pinged) {
        let sum = &sums[&(1, row)];
        assert_eq!(sum.of(Class::Lost), 0, "{sum:?}");
        let Some(text) = text else { continue };
        assert!(text.contains("30 received, 0% packet loss"), "{text}");
        // rtt min/avg/max/mdev = 0.033/0.045/…
        let numbers = text.rsplit_once(" = ").unwrap().1;
        let average_ms: f64 = numbers.split('/').nth(1).unwrap().parse().unwrap();
        assert!(
            f64::from(sum.rtt_min_us) <= average_ms * 1e3,
            "{sum:?} {text}"
        );
    }
    // What ping was answered is not ours, and nobody asked us to look at it.
    assert_eq!(counters.strays_total(), 0, "{counters:#?}");
}

/// Nobody resets what the peer opens: it repeats its SYN/ACK after one second and after three.
#[test]
fn an_answer_that_the_peer_repeats_counts_once() {
    const TEST: &str = "an_answer_that_the_peer_repeats_counts_once";
    if Command::new("nft").arg("--version").output().is_err() {
        skipped(TEST, "nft is not installed; scripts/setup installs it");
        return;
    }
    let quiet = |a: &str, _: &str| {
        for rule in [
            "add table inet quiet",
            "add chain inet quiet out { type filter hook output priority 0 ; }",
            "add rule inet quiet out tcp dport 8620 tcp flags rst drop",
        ] {
            assert!(ip(&format!("netns exec {a} nft {rule}")), "nft {rule}");
        }
    };
    if !inside_of(TEST, quiet, &[]) {
        return;
    }
    let _open = TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8_620))).unwrap();
    let config = config(82, 61_284..=61_284);
    let Some(sockets) = sockets(TEST, &config) else {
        return;
    };
    let mut plan = plan(1, vec![path(ProbeKind::TcpSyn, "10.77.0.1", 8_620)]);
    (plan.interval, plan.expiry) = (Duration::from_secs(6), Duration::from_secs(5));
    let mut rig = Rig::start(sockets, config, plan);
    rig.until("the answer", |sums| {
        sums.get(&(1, 0))
            .is_some_and(|sum| sum.of(Class::Replied) >= 1)
    });
    let deadline = Instant::now() + rig::PATIENCE;
    while rig.handle.counters().strays_of(Stray::Repeated) < 2 {
        assert!(Instant::now() < deadline, "{:#?}", rig.handle.counters());
        std::thread::park_timeout(Duration::from_millis(10));
    }
    let (_, counters) = rig.stop();
    assert_eq!(
        (counters.of(Class::Replied), counters.of(Class::Duplicate)),
        (1, 0),
        "{counters:#?}"
    );
}
