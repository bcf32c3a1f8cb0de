//! What a probe costs, how true its RTT is, and how exact what is merged stays; beside other probers, and beside the
//! least that the kernel lets a probe cost. Peers and rounds take turns in one run.
//!
//! `--probes N` sends so many for the count of false losses (default 200,000).

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    path::PathBuf,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, ensure};
use clap::Parser;
use leeward_agent::prober::Sockets;
use leeward_benches::{
    figure::{Figures, Target},
    measure::{median, quantile},
    probe::{self, Round, capture::Capture, peers},
    process,
    samples::Random,
};
use leeward_common::histogram::{Histogram, Schema};

/// Probes of each target per second: the default of a mesh.
const HERTZ: u32 = 10;

/// How long a round of each program lasts, and how many rounds there are. They take turns.
const SECONDS: u32 = 4;
const ROUNDS: usize = 3;

/// surge-ping and the blackbox exporter cost much more, so fewer targets and probes tell as much.
const SURGE_TARGETS: u32 = 100;
const BLACKBOX_PROBES: u32 = 1_000;
const BARE_PROBES: u32 = 300_000;

#[derive(Parser)]
struct Options {
    /// How many probes to send for the count of false losses.
    #[arg(long, default_value_t = 200_000)]
    probes: u64,
    /// One JSON object per line instead of a table.
    #[arg(long)]
    json: bool,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let mut figures = Figures::new("probe");
    if let Err(error) = Sockets::open(&probe::config()) {
        let why = format!("{error}; run as root");
        figures.skip("CPU per ICMP probe", "us", &why);
        figures.print();
        return Ok(());
    }
    // First, while nothing else has taken memory.
    many_targets(&mut figures)?;
    for (targets, target) in [(100, None), (1_000, Some(Target::AtMost(10.0)))] {
        cost(&mut figures, targets, target)?;
    }
    beside_others(&mut figures);
    rate(&mut figures, options.probes)?;
    truth(&mut figures, false)?;
    truth(&mut figures, true)?;
    merging(&mut figures);
    binary(&mut figures)?;
    figures.print();
    Ok(())
}

fn hertz(hertz: u32) -> Duration {
    Duration::from_secs(1) / hertz
}

/// 10,000 targets once a second: share of a core and memory, of the prober alone.
fn many_targets(figures: &mut Figures) -> anyhow::Result<()> {
    const TARGETS: u32 = 10_000;
    let own = std::process::id();
    let before = process::resident(own)?;
    let round = probe::round(TARGETS, hertz(1), 10)?;
    let after = process::resident(own)?;
    let share = round.cpu.as_secs_f64() / round.lasted.as_secs_f64() * 100.0;
    let name = format!("CPU, {TARGETS} targets at 1 Hz");
    let mut figure = figures.figure(name, share, "% of a core");
    if let Ok(bare) = peers::bare(TARGETS * 10, hertz(TARGETS)) {
        let share = bare.us_per_probe * f64::from(TARGETS) / 1e6 * 100.0;
        figure = figure.beside("one at a time from C", share);
    }
    figures.push(figure.target(Target::AtMost(10.0)));
    let name = format!("resident memory, {TARGETS} targets at 1 Hz, prober alone");
    let figure = figures.figure(name, after as f64 / f64::from(1 << 20), "MiB");
    figures.push(figure.target(Target::AtMost(16.0)));
    let each = after.saturating_sub(before) as f64 / f64::from(TARGETS);
    let name = "memory per target, of all that the prober took";
    let figure = figures.figure(name, each, "B");
    figures.push(figure.target(Target::AtMost(512.0)));
    Ok(())
}

/// CPU time per probe, from its place in the schedule to its place in a histogram.
fn cost(figures: &mut Figures, targets: u32, target: Option<Target>) -> anyhow::Result<()> {
    let (mut ours, mut theirs, mut lateness) = (Vec::new(), Vec::new(), Vec::new());
    let mut least = Vec::new();
    for _ in 0..ROUNDS {
        let round = probe::round(targets, hertz(HERTZ), SECONDS)?;
        ours.push(round.us_per_probe());
        lateness.push(round.late_p99_us);
        match peers::fping(targets, HERTZ, SECONDS) {
            Ok(us_per_probe) => theirs.push(us_per_probe),
            Err(error) => eprintln!("SKIPPED: probe: fping beside us: {error:#}"),
        }
        let probes = targets * HERTZ;
        match peers::bare(probes * SECONDS, hertz(probes)) {
            Ok(bare) => least.push(bare),
            Err(error) => eprintln!("SKIPPED: probe: C beside us: {error:#}"),
        }
    }
    let name = format!("CPU per ICMP probe, {targets} targets at {HERTZ} Hz");
    let mut figure = figures.figure(name, median(ours).context("no rounds")?, "us");
    if let Some(theirs) = median(theirs) {
        figure = figure.beside("fping", theirs);
    }
    figures.push(match target {
        Some(target) => figure.target(target),
        None => figure,
    });
    let name = format!("send-time error, p99, {targets} targets at {HERTZ} Hz");
    let mut figure = figures.figure(name, median(lateness).context("no rounds")?, "us");
    if let Some(late_us) = median(least.iter().map(|own| own.late_p99_us).collect()) {
        figure = figure.beside("sleeping from C", late_us);
    }
    figures.push(figure.target(Target::AtMost(100.0)));
    if let Some(us) = median(least.iter().map(|own| own.us_per_probe).collect()) {
        let name = format!("CPU of as many probes one at a time from C, {targets} targets");
        figures.push(figures.figure(name, us, "us"));
    }
    Ok(())
}

/// Those that cost so much more, or do so much less, that they need not take turns with us.
fn beside_others(figures: &mut Figures) {
    let others: [(&str, anyhow::Result<f64>); 3] = [
        (
            "surge-ping, 100 targets at 10 Hz",
            peers::surge_ping(SURGE_TARGETS, HERTZ, SECONDS),
        ),
        ("blackbox exporter", peers::blackbox(BLACKBOX_PROBES)),
        (
            "the kernel alone, from C",
            peers::bare(BARE_PROBES, Duration::ZERO).map(|bare| bare.us_per_probe),
        ),
    ];
    for (name, figure) in others {
        let name = format!("CPU per ICMP probe of others: {name}");
        match figure {
            Ok(us) => figures.push(figures.figure(name, us, "us")),
            Err(error) => figures.skip(name, "us", &format!("{error:#}")),
        }
    }
}

/// As many round trips as a core has time for, and whether any is lost that nobody lost.
fn rate(figures: &mut Figures, probes: u64) -> anyhow::Result<()> {
    let per_core = |round: &Round| round.answered as f64 / round.cpu.as_secs_f64();
    let fast: Vec<Round> = (0..ROUNDS)
        .map(|_| probe::round(1_000, hertz(50), SECONDS))
        .collect::<anyhow::Result<_>>()?;
    let ours = median(fast.iter().map(per_core).collect()).context("no rounds")?;
    let mut figure = figures.figure("RTTs per second of CPU, at 50,000 a second", ours, "1/s");
    if let Ok(bare) = peers::bare(BARE_PROBES, Duration::ZERO) {
        figure = figure.beside("the kernel alone, from C", 1e6 / bare.us_per_probe);
    }
    figures.push(figure.target(Target::AtLeast(100_000.0)));
    let seconds = u32::try_from(probes.div_ceil(20_000)).context("too many probes")?;
    let round = probe::round(1_000, hertz(20), seconds)?;
    let name = format!("false losses in {} probes", round.answered + round.lost);
    let figure = figures.figure(name, round.lost as f64, "probes");
    figures.push(figure.target(Target::AtMost(0.0)));
    let figure = figures.figure("of these not sent in time", round.not_sent as f64, "probes");
    figures.push(figure);
    Ok(())
}

/// How far reported RTTs are from what a capture of the same packets shows, on an idle or a busy machine.
///
/// Each window holds at most one probe of a path, so that its minimum is that probe's RTT. Both sides list the RTTs of
/// a path in the order of its probes.
fn truth(figures: &mut Figures, busy: bool) -> anyhow::Result<()> {
    const TARGETS: u32 = 50;
    const WINDOWS: usize = 80;
    let (state, limit) = match busy {
        false => ("idle", 1.0),
        true => ("every core busy", 2.0),
    };
    let name = format!("RTT reported - RTT captured, p99, {state}");
    let capture = match Capture::start() {
        Ok(capture) => capture,
        Err(error) => {
            figures.skip(name, "us", &format!("{error:#}"));
            return Ok(());
        }
    };
    let load = busy.then(Load::start);
    let (prober, mut windows) = probe::start()?;
    let window = Duration::from_millis(100);
    prober.set_plan(probe::plan(TARGETS, window, window))?;
    let mut reported: BTreeMap<Ipv4Addr, Vec<f64>> = BTreeMap::new();
    for _ in 0..WINDOWS {
        let window = windows.blocking_recv().context("the prober stopped")?;
        for (row, report) in window.rows {
            // Jitter can put two probes into a window: the smaller and the larger are both exact, in unknown order.
            let rtts = reported.entry(probe::address(row)).or_default();
            match report.rtt.histogram.count() {
                0 => {}
                1 => rtts.push(f64::from(report.rtt.min_us)),
                more => rtts.extend(std::iter::repeat_n(f64::NAN, more as usize)),
            }
        }
    }
    prober.stop();
    drop(load);
    let captured = capture.finish()?;
    let mut errors = Vec::new();
    for (address, rtts) in &reported {
        let seen = captured.get(address).map_or(&[][..], Vec::as_slice);
        ensure!(
            seen.len() >= rtts.len(),
            "the capture missed packets: {} of {}",
            seen.len(),
            rtts.len()
        );
        errors.extend(
            rtts.iter()
                .zip(seen)
                .map(|(ours, theirs)| (ours - theirs).abs())
                .filter(|error| !error.is_nan()),
        );
    }
    ensure!(errors.len() > 100, "only {} RTTs to compare", errors.len());
    let p99 = quantile(&mut errors, 0.99).context("no RTTs")?;
    let figure = figures.figure(name, p99, "us");
    figures.push(figure.target(Target::AtMost(limit)));
    Ok(())
}

/// One thread for each core that does nothing but keep it busy, until dropped.
struct Load(Arc<AtomicBool>);

impl Load {
    fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        Self(stop)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Percentiles of an hour, merged from its windows, against those of all samples.
fn merging(figures: &mut Figures) {
    for (schema, limit) in [(Schema::ThreeDigits, 0.1), (Schema::TwoDigits, 1.0)] {
        let mut random = Random::new(5);
        let (mut merged, mut all) = (Histogram::new(schema), Vec::new());
        for _ in 0..3_600 {
            let mut window = Histogram::new(schema);
            for _ in 0..10 {
                let rtt_us = (80_000.0 * (0.2 * random.normal()).exp()) as u32;
                window.record(rtt_us);
                all.push(f64::from(rtt_us));
            }
            merged.merge(&window).expect("one schema");
        }
        let worst = [0.01, 0.5, 0.9, 0.99, 0.999]
            .into_iter()
            .filter_map(|q| {
                let exact = quantile(&mut all, q)?;
                Some((f64::from(merged.quantile(q)?) / exact - 1.0).abs() * 100.0)
            })
            .fold(0.0, f64::max);
        let name = format!("error of a percentile of an hour, merged, {schema:?}");
        let figure = figures.figure(name, worst, "%");
        figures.push(figure.target(Target::AtMost(limit)));
    }
}

/// The agent's binary without symbols.
fn binary(figures: &mut Figures) -> anyhow::Result<()> {
    let name = "agent binary, stripped";
    let agent: PathBuf = std::env::current_exe()?.with_file_name("leeward-agent");
    let copy = tempfile::NamedTempFile::new()?;
    let stripped = Command::new("strip")
        .arg("-o")
        .arg(copy.path())
        .arg(&agent)
        .status();
    if !stripped.is_ok_and(|status| status.success()) {
        figures.skip(name, "MiB", &format!("cannot strip {}", agent.display()));
        return Ok(());
    }
    let bytes = copy.path().metadata()?.len();
    let figure = figures.figure(name, bytes as f64 / f64::from(1 << 20), "MiB");
    figures.push(figure.target(Target::AtMost(8.0)));
    Ok(())
}
