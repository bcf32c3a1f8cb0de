//! Does the emulated network do what it is asked? Two real hosts, real `ping`, a small grid of impairments.
#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::{
    net::UdpSocket,
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use leeward_lab::{
    host::{self, Host},
    link::{Impairment, Link},
    net::enter_on_exec,
    router::{Router, Stats},
};

const MS: Duration = Duration::from_millis(1);

/// Seen once in some ten thousand echoes on a very busy machine: one is never answered though the emulator lost nothing.
const OTHERS_LOSE: u32 = 1;

/// Why this test cannot run here, said aloud; `None` when it can.
fn skipped(test: &str) -> Option<()> {
    let has = |tool: &str| Command::new(tool).arg("-V").output().is_ok();
    let reason = match () {
        () if !leeward_testing::is_root() => "needs root",
        () if !std::path::Path::new("/dev/net/tun").exists() => "needs /dev/net/tun",
        () if !has("ping") => "needs ping (package iputils-ping)",
        () => return None,
    };
    leeward_testing::skipped_unless_required(test, reason);
    Some(())
}

/// By how much two passes through the emulator may be longer than asked, milliseconds: its own lateness, which it knows.
/// On a machine with other work that is much, and no fault of the delays.
fn late_ms(stats: &Stats, quantile: f64) -> f64 {
    2.0 * stats.lateness.value_at_quantile(quantile) as f64 / 1e6
}

/// Two emulators on one machine would measure each other.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What `ping` saw.
#[derive(Debug)]
struct Seen {
    sent: u32,
    answered: u32,
    /// Round-trip times in milliseconds, in order of arrival, with their sequence numbers.
    rtts: Vec<(u32, f64)>,
}

impl Seen {
    fn quantile(&self, q: f64) -> f64 {
        let mut sorted: Vec<f64> = self.rtts.iter().map(|(_, rtt)| *rtt).collect();
        sorted.sort_by(f64::total_cmp);
        sorted[((sorted.len() - 1) as f64 * q).round() as usize]
    }
}

/// Pings from one host to another, through one link there and one back.
fn ping(there: Impairment, back: Impairment, v6: bool, count: u32) -> (Seen, Stats) {
    let (router, a, b) = pair(there, back);
    let mut command = Command::new("ping");
    // On many machines `ping` rounds its interval up to the 4 ms of a kernel tick.
    command.args(["-n", "-i", "0.004", "-W", "1", "-c", &count.to_string()]);
    command.arg(b.addresses[usize::from(v6)].to_string());
    enter_on_exec(&mut command, &a.namespace);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let number = |line: &str, key: &str| -> Option<f64> {
        line.split(key)
            .nth(1)?
            .split_whitespace()
            .next()?
            .parse()
            .ok()
    };
    let rtts: Vec<(u32, f64)> = text
        .lines()
        .filter_map(|line| Some((number(line, "icmp_seq=")? as u32, number(line, "time=")?)))
        .collect();
    (
        Seen {
            sent: count,
            answered: rtts.len() as u32,
            rtts,
        },
        router.stop().unwrap(),
    )
}

/// Two hosts, and the router between them.
fn pair(there: Impairment, back: Impairment) -> (Router, Host, Host) {
    let (a, port_a) = Host::create(&host::addresses(1, 1), 0).unwrap();
    let (b, port_b) = Host::create(&host::addresses(2, 1), 1).unwrap();
    let none = Impairment::default();
    let links = vec![
        vec![Link::new(none, 1), Link::new(there, 2)],
        vec![Link::new(back, 3), Link::new(none, 4)],
    ];
    let router = Router::start(vec![port_a, port_b], links, None).unwrap();
    (router, a, b)
}

fn delayed(delay: Duration) -> Impairment {
    Impairment {
        delay,
        ..Impairment::default()
    }
}

#[test]
fn delays_are_exact_in_both_families() {
    if skipped("delays_are_exact_in_both_families").is_some() {
        return;
    }
    let _alone = alone();
    for (there, back) in [(0, 0), (1, 1), (10, 30), (40, 40), (120, 110)] {
        for v6 in [false, true] {
            let (seen, stats) = ping(delayed(MS * there), delayed(MS * back), v6, 100);
            let asked = f64::from(there + back);
            let (least, median) = (seen.quantile(0.0), seen.quantile(0.5));
            eprintln!(
                "{asked} ms, v6 {v6}: min {least:.3} p50 {median:.3} p99 {:.3}; {}",
                seen.quantile(0.99),
                stats.summary()
            );
            assert_eq!((stats.lost, stats.refused), (0, 0));
            assert!(seen.sent - seen.answered <= OTHERS_LOSE, "{seen:?}");
            assert!(
                least >= asked,
                "{least} ms is less than the {asked} ms asked for"
            );
            // Two kernels, two wake-ups of the router and of `ping` itself.
            let most = asked + 0.6 + late_ms(&stats, 0.9);
            assert!(median <= most, "{median} ms instead of {asked} ms");
        }
    }
}

#[test]
fn loss_is_as_asked_and_only_where_asked() {
    if skipped("loss_is_as_asked_and_only_where_asked").is_some() {
        return;
    }
    let _alone = alone();
    for loss in [0.0, 0.08, 0.5, 1.0] {
        let there = Impairment {
            loss,
            ..delayed(MS)
        };
        let (seen, stats) = ping(there, delayed(MS), false, 500);
        let lost = 1.0 - f64::from(seen.answered) / f64::from(seen.sent);
        eprintln!("loss {loss}: saw {lost:.3}; {}", stats.summary());
        // Four standard deviations of a binomial share.
        let slack = 4.0 * (loss * (1.0 - loss) / f64::from(seen.sent)).sqrt()
            + f64::from(OTHERS_LOSE) / f64::from(seen.sent);
        assert!(
            (lost - loss).abs() <= slack,
            "{lost} instead of {loss} ± {slack}"
        );
        let others = u64::from(seen.sent - seen.answered) - stats.lost;
        assert!(
            others <= u64::from(OTHERS_LOSE),
            "{others} were lost elsewhere"
        );
    }
}

#[test]
fn jitter_spreads_round_trips_and_reordering_swaps_them() {
    if skipped("jitter_spreads_round_trips_and_reordering_swaps_them").is_some() {
        return;
    }
    let _alone = alone();
    let jittered = Impairment {
        jitter: 4 * MS,
        ..delayed(20 * MS)
    };
    let (seen, stats) = ping(jittered, delayed(20 * MS), false, 200);
    let late = late_ms(&stats, 1.0);
    for (quantile, least, most) in [(0.0, 36.0, 37.0), (0.5, 39.0, 41.5), (0.99, 43.0, 45.0)] {
        let rtt = seen.quantile(quantile);
        assert!(
            (least..most + late).contains(&rtt),
            "{rtt} ms at {quantile}, not {least} to {most} and {late} of the emulator's own"
        );
    }
    assert!(
        seen.rtts.is_sorted_by_key(|(sequence, _)| *sequence),
        "jitter alone must not reorder"
    );

    let reordered = Impairment {
        reorder: 0.2,
        reorder_by: 9 * MS,
        ..delayed(20 * MS)
    };
    let (seen, _) = ping(reordered, delayed(20 * MS), false, 200);
    assert!(
        !seen.rtts.is_sorted_by_key(|(sequence, _)| *sequence),
        "nothing was reordered"
    );
    assert!(seen.quantile(0.0) >= 40.0);
}

#[test]
fn a_rate_limits_what_passes() {
    if skipped("a_rate_limits_what_passes").is_some() {
        return;
    }
    let _alone = alone();
    // 50 packets of 1000 bytes at once. Each occupies the link for 8 ms, and the queue before it is 100 ms deep.
    let (router, a, b) = pair(
        Impairment {
            rate_bps: Some(1_000_000),
            ..delayed(MS)
        },
        delayed(MS),
    );
    let to = (b.v4(), 7000);
    let receiver = b.namespace.run(|| UdpSocket::bind(to)).unwrap();
    let sender = a.namespace.run(|| UdpSocket::bind(("0.0.0.0", 0))).unwrap();
    receiver
        .set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let start = Instant::now();
    for _ in 0..50 {
        sender.send_to(&[0; 972], to).unwrap();
    }
    // On a busy machine even this takes a while, in which the queue empties.
    let sending = start.elapsed();
    let mut arrivals = Vec::new();
    while receiver.recv(&mut [0; 1500]).is_ok() {
        arrivals.push(start.elapsed());
    }
    let stats = router.stop().unwrap();
    eprintln!("{arrivals:?}");
    let more = sending.as_millis() as usize / 8;
    assert!(
        (12..=14 + more).contains(&arrivals.len()),
        "{} passed, sent within {sending:?}",
        arrivals.len()
    );
    assert_eq!(stats.lost, 50 - arrivals.len() as u64);
    let last = arrivals.last().unwrap();
    let most = 125 * MS + sending + Duration::from_nanos(stats.lateness.max());
    assert!((85 * MS..most).contains(last), "{last:?}");
}
