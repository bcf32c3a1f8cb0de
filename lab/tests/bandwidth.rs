//! Do agents find out how much an emulated link carries? Real packets, by the agent's own code, over a small grid.
//!
//! The emulator is a thread that shares two cores with all the others here. How late it was stands beside each line: no
//! estimate can be better than the link that is measured.
#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::{
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use leeward_agent::{
    bandwidth::{
        exchange::Exchange,
        survey::{BYTES_MAX, Outcome, Survey},
    },
    prober::Family,
    reflector::{Reflector, ReflectorConfig, ReflectorSockets},
};
use leeward_common::finding::bandwidth::Quantity;
use leeward_lab::{
    host::{self, Host},
    link::{Impairment, Link},
    router::{Router, Stats},
};

const PORT: u16 = 862;
/// The figure: how far off an estimate that is trusted may be.
const FIGURE: f64 = 0.15;
/// What a pair may cost on average.
const PAIR_BPS: f64 = 32_000.0;

/// Why this test cannot run here, said aloud; `None` when it can.
fn skipped(test: &str) -> Option<()> {
    let reason = match () {
        () if !leeward_testing::is_root() => "needs root",
        () if !std::path::Path::new("/dev/net/tun").exists() => "needs /dev/net/tun",
        () => return None,
    };
    leeward_testing::skipped_unless_required(test, reason);
    Some(())
}

/// Two places, and a link of this rate from the first to the second; in the first one a second host for what others send.
struct World {
    router: Router,
    near: Host,
    other: Host,
    far: Host,
    _reflector: Reflector,
}

impl World {
    fn new(rate_bps: u64, heavy: bool) -> Self {
        let (near, near_port) = Host::create(&host::addresses(1, 1), 0).unwrap();
        let (other, other_port) = Host::create(&host::addresses(1, 2), 0).unwrap();
        let (far, far_port) = Host::create(&host::addresses(2, 1), 1).unwrap();
        let away = Impairment {
            delay: Duration::from_millis(5),
            ..Impairment::default()
        };
        let there = Impairment {
            rate_bps: Some(rate_bps),
            ..away
        };
        let links = vec![
            vec![Link::new(away, 1), Link::new(there, 2)],
            vec![Link::new(away, 3), Link::new(away, 4)],
        ];
        let router = Router::start(vec![near_port, other_port, far_port], links, None).unwrap();
        let sockets = far.namespace.run(|| ReflectorSockets::bind(PORT)).unwrap();
        let config = ReflectorConfig {
            key: None,
            reflect_for: vec!["10.0.0.0/8".parse().unwrap()],
            max_per_second: 10_000,
            heavy,
        };
        Self {
            router,
            near,
            other,
            far,
            _reflector: Reflector::start(sockets, config).unwrap(),
        }
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::new(self.far.v4(), PORT)
    }

    fn exchange(&self) -> Exchange {
        let open = || Exchange::open(Family::V4, None);
        self.near.namespace.run(open).unwrap()
    }
}

/// What others send: packets of 1400 bytes, evenly as far as a sleeping thread can.
struct Others {
    stopping: Arc<AtomicBool>,
    bytes: Arc<AtomicU64>,
    thread: Option<thread::JoinHandle<()>>,
    _sink: UdpSocket,
    since: Instant,
}

impl Others {
    fn start(world: &World, bps: f64) -> Self {
        let to = SocketAddr::new(world.far.v4(), 9_000);
        let sink = world.far.namespace.run(|| UdpSocket::bind(to)).unwrap();
        let from = || UdpSocket::bind(("0.0.0.0", 0));
        let socket = world.other.namespace.run(from).unwrap();
        let stopping = Arc::new(AtomicBool::new(false));
        let bytes = Arc::new(AtomicU64::new(0));
        let (stop, count) = (stopping.clone(), bytes.clone());
        let thread = thread::spawn(move || {
            let start = Instant::now();
            while bps > 0.0 && !stop.load(Relaxed) {
                let due = start.elapsed().as_secs_f64() * bps / 8.0;
                while (count.load(Relaxed) as f64) < due {
                    let _ = socket.send_to(&[0; 1_372], to);
                    count.fetch_add(1_400, Relaxed);
                }
                thread::sleep(Duration::from_micros(150));
            }
        });
        Self {
            stopping,
            bytes,
            thread: Some(thread),
            _sink: sink,
            since: Instant::now(),
        }
    }

    /// Bits per second that were sent.
    fn stop(mut self) -> f64 {
        self.stopping.store(true, Relaxed);
        self.thread.take().unwrap().join().unwrap();
        self.bytes.load(Relaxed) as f64 * 8.0 / self.since.elapsed().as_secs_f64()
    }
}

/// One estimate, and what it cost.
fn survey(world: &World) -> (Outcome, u64) {
    let mut exchange = world.exchange();
    let to = world.address();
    let mut survey = Survey::new(exchange.reply_bytes(to));
    let mut draw = 0.5_f64;
    while let Some(train) = survey.next() {
        let read = exchange.pass(to, &train);
        survey.on_train(&train, read);
        draw = (draw * 7.13 + 0.37).fract();
        thread::sleep(survey.rest(&train, draw));
    }
    assert_eq!(exchange.strays(), 0);
    (survey.conclude(), survey.spent())
}

fn told(quantity: Option<&Quantity>, truth: f64) -> (String, Option<f64>) {
    let Some(own) = quantity else {
        return ("-".to_owned(), None);
    };
    let error = own.bps as f64 / truth - 1.0;
    let mbit = |bps: u64| bps as f64 / 1e6;
    let doubt = own.doubt.as_deref().unwrap_or("trusted");
    let text = format!(
        "{:.1} ({:.1} to {:.1}) {:+.1} % {doubt}",
        mbit(own.bps),
        mbit(own.low_bps),
        mbit(own.high_bps),
        error * 100.0
    );
    (text, own.doubt.is_none().then_some(error.abs()))
}

fn late(stats: &Stats) -> f64 {
    stats.lateness.value_at_quantile(0.99) as f64 / 1_000.0
}

#[test]
fn what_a_link_carries_and_what_is_free_of_it_is_found_out_within_the_budget() {
    if skipped("what_a_link_carries_and_what_is_free_of_it_is_found_out_within_the_budget")
        .is_some()
    {
        return;
    }
    println!(
        "| Mbit/s | others | capacity_upper, Mbit/s | available_est, Mbit/s | kB | every | took | emulator late p99 |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    let (mut trusted, mut wrong) = (0, Vec::new());
    for mbit in [5u64, 20, 100, 400] {
        for busy in [0.0, 0.5] {
            let bps = mbit * 1_000_000;
            let world = World::new(bps, false);
            let others = Others::start(&world, busy * bps as f64);
            thread::sleep(Duration::from_millis(300));
            let began = Instant::now();
            let (outcome, bytes) = survey(&world);
            let took = began.elapsed();
            let sent = others.stop();
            let free = bps as f64 - sent;
            let (capacity, capacity_error) = told(outcome.capacity_upper.as_ref(), bps as f64);
            let (available, available_error) = told(outcome.available_est.as_ref(), free);
            let stats = world.router.stop().unwrap();
            println!(
                "| {mbit} | {:.1} | {capacity} | {available} | {} | {:.0} s | {:.1} s | {:.0} us |",
                sent / 1e6,
                bytes / 1_000,
                bytes as f64 * 8.0 / PAIR_BPS,
                took.as_secs_f64(),
                late(&stats),
            );
            if !outcome.note.is_empty() {
                println!("  {}", outcome.note);
            }
            assert!(bytes <= BYTES_MAX);
            for error in [capacity_error, available_error].into_iter().flatten() {
                trusted += 1;
                if error > FIGURE {
                    wrong.push((mbit, busy, error));
                }
            }
        }
    }
    println!("{trusted} of 16 trusted; beyond the figure: {wrong:?}");
    assert!(wrong.is_empty(), "{wrong:?}");
    assert!(trusted >= 8, "{trusted} of 16");
}

#[test]
fn a_heavy_test_sees_what_goes_through_and_only_who_takes_it_is_loaded() {
    if skipped("a_heavy_test_sees_what_goes_through_and_only_who_takes_it_is_loaded").is_some() {
        return;
    }
    let world = World::new(50_000_000, true);
    let began = Instant::now();
    let (load, bytes) = world.exchange().load(world.address(), 200_000_000);
    let took = began.elapsed();
    let goodput = load.unwrap().goodput(bytes).unwrap();
    println!(
        "50 Mbit/s: {goodput:?} for {} kB in {took:?}; {}",
        bytes / 1_000,
        world.router.stop().unwrap().summary()
    );
    assert!(
        (goodput.bps as f64 / 50e6 - 1.0).abs() <= FIGURE,
        "{goodput:?}"
    );
    assert!(took < Duration::from_secs(5) && bytes < 50_000_000);

    let world = World::new(50_000_000, false);
    let (load, bytes) = world.exchange().load(world.address(), 200_000_000);
    assert!(load.is_none());
    assert!(bytes < 5_000, "{bytes}");
}
