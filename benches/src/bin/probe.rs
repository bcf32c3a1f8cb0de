//! What a probe costs and how true its RTT is, on loopback, beside fping probing the same targets as often.
//!
//! Loopback has no network to wait for, so that all there is to measure is the probing itself. Both programs pay for
//! the kernel's echo reply as well, which answers within the call that sends.

use std::{
    collections::BTreeMap,
    io::Read as _,
    net::{IpAddr, Ipv4Addr},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use leeward_agent::prober::{
    ClosedWindow, Plan, PlannedPath, Prober, ProberConfig, ProberHandle, Sockets,
};
use leeward_benches::{
    figure::{Figures, Target},
    measure::{median, quantile},
    process,
};
use leeward_common::{
    histogram::Schema,
    id::TargetId,
    report::{Class, Path, ProbeKind},
};
use tokio::sync::mpsc;

/// Probes of each target per second: the default of a mesh.
const HERTZ: u32 = 10;
const INTERVAL: Duration = Duration::from_millis(1_000 / HERTZ as u64);

/// How long a round of each program lasts, and how many rounds there are. They take turns.
const SECONDS: u32 = 4;
const ROUNDS: usize = 3;

fn main() -> anyhow::Result<()> {
    let mut figures = Figures::new("probe");
    if let Err(error) = Sockets::open(&config()) {
        let why = format!("{error}; run as root");
        figures.skip("CPU per ICMP probe", "us", &why);
        figures.print();
        return Ok(());
    }
    for (targets, target) in [(100, None), (1_000, Some(Target::AtMost(12.0)))] {
        cost(&mut figures, targets, target)?;
    }
    truth(&mut figures)?;
    figures.print();
    Ok(())
}

fn config() -> ProberConfig {
    ProberConfig {
        max_probes_per_second: 100_000,
        ..ProberConfig::new([7; 16], 1)
    }
}

/// CPU time per probe, from its place in the schedule to its place in a histogram.
fn cost(figures: &mut Figures, targets: u32, target: Option<Target>) -> anyhow::Result<()> {
    let (mut ours, mut theirs, mut lateness) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let round = probe(targets)?;
        ours.push(round.us_per_probe);
        lateness.push(round.late_p99_us);
        match fping(targets) {
            Ok(us_per_probe) => theirs.push(us_per_probe),
            Err(error) => eprintln!("SKIPPED: probe: fping beside us: {error:#}"),
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
    let name = format!("lateness of a probe, p99, {targets} targets");
    figures.push(figures.figure(name, median(lateness).context("no rounds")?, "us"));
    Ok(())
}

struct Round {
    us_per_probe: f64,
    late_p99_us: f64,
}

fn probe(targets: u32) -> anyhow::Result<Round> {
    let (prober, mut windows) = start()?;
    prober.set_plan(plan(targets, INTERVAL, Duration::from_secs(1)))?;
    // The first window is short and warms up; the account begins with the second.
    windows.blocking_recv().context("the prober stopped")?;
    let (began, lateness) = (
        process::cpu(std::process::id())?,
        prober.counters().lateness,
    );
    let mut replied = 0u64;
    for _ in 0..SECONDS {
        let window = windows.blocking_recv().context("the prober stopped")?;
        replied += window
            .rows
            .iter()
            .map(|(_, report)| u64::from(report.counts.of(Class::Replied)))
            .sum::<u64>();
    }
    let spent = process::cpu(std::process::id())? - began;
    let scheduled = u64::from(targets * HERTZ * SECONDS);
    ensure!(
        replied * 100 >= scheduled * 95,
        "only {replied} of about {scheduled} probes were answered"
    );
    let late_p99_us = prober.counters().lateness.since(&lateness).quantile(0.99) as f64;
    prober.stop();
    Ok(Round {
        us_per_probe: spent.as_secs_f64() * 1e6 / replied as f64,
        late_p99_us,
    })
}

fn start() -> anyhow::Result<(ProberHandle, mpsc::Receiver<ClosedWindow>)> {
    // More windows than a bench leaves waiting.
    let (out, windows) = mpsc::channel(64);
    Ok((
        Prober::start(Sockets::open(&config())?, config(), out)?,
        windows,
    ))
}

fn plan(targets: u32, interval: Duration, window: Duration) -> Plan {
    let path = |at: u32| PlannedPath {
        path: Path {
            target: TargetId::parse(&format!("t{at}")).expect("a valid id"),
            kind: ProbeKind::Icmp,
            region: None,
        },
        address: address(at).into(),
        port: 0,
    };
    Plan {
        version: 1,
        interval,
        window,
        expiry: Duration::from_secs(1),
        schema: Schema::TwoDigits,
        silence: None,
        paths: (0..targets).map(path).collect(),
    }
}

/// The whole of 127.0.0.0/8 answers.
fn address(at: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(127, 1, 0, 1).to_bits() + at)
}

/// CPU time per probe of fping, with a warm-up of nothing: its start costs it a few milliseconds of seconds.
fn fping(targets: u32) -> anyhow::Result<f64> {
    let rounds = HERTZ * SECONDS;
    let spacing_ms = f64::from(1_000 / HERTZ) / f64::from(targets);
    let before = process::children_cpu()?;
    let output = Command::new("fping")
        .args(["-q", "-B1", "-r0", "-t1000"])
        .args([
            "-c",
            &rounds.to_string(),
            "-p",
            &(1_000 / HERTZ).to_string(),
            "-i",
            &spacing_ms.to_string(),
        ])
        .args((0..targets).map(|at| address(at).to_string()))
        .output()
        .context("fping cannot be run; it is in Debian's package fping")?;
    let spent = process::children_cpu()? - before;
    // "127.0.0.1 : xmt/rcv/%loss = 20/20/0%, …", on stderr.
    let summary = String::from_utf8_lossy(&output.stderr);
    let answered: u64 = summary
        .lines()
        .filter_map(|line| {
            line.split_once("%loss = ")?
                .1
                .split('/')
                .nth(1)?
                .parse::<u64>()
                .ok()
        })
        .sum();
    if answered == 0 {
        bail!(
            "fping was not answered: {}",
            summary.lines().next().unwrap_or_default()
        );
    }
    Ok(spent.as_secs_f64() * 1e6 / answered as f64)
}

/// How far reported RTTs are from what a capture of the same packets shows.
///
/// Each window holds at most one probe of a path, so that its minimum is that probe's RTT. Both sides list the RTTs of
/// a path in the order of its probes.
fn truth(figures: &mut Figures) -> anyhow::Result<()> {
    const TARGETS: u32 = 50;
    const WINDOWS: usize = 80;
    let name = "RTT reported - RTT captured, p99";
    let capture = match Capture::start() {
        Ok(capture) => capture,
        Err(error) => {
            figures.skip(name, "us", &format!("{error:#}"));
            return Ok(());
        }
    };
    let (prober, mut windows) = start()?;
    prober.set_plan(plan(
        TARGETS,
        Duration::from_millis(100),
        Duration::from_millis(100),
    ))?;
    let mut reported: BTreeMap<Ipv4Addr, Vec<f64>> = BTreeMap::new();
    for _ in 0..WINDOWS {
        let window = windows.blocking_recv().context("the prober stopped")?;
        for (row, report) in window.rows {
            // Jitter can put two probes into a window: the smaller and the larger are both exact, in unknown order.
            let rtts = reported.entry(address(row)).or_default();
            match report.rtt.histogram.count() {
                0 => {}
                1 => rtts.push(f64::from(report.rtt.min_us)),
                more => rtts.extend(std::iter::repeat_n(f64::NAN, more as usize)),
            }
        }
    }
    prober.stop();
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
    figures.push(figures.figure(name, p99, "us").target(Target::AtMost(2.0)));
    Ok(())
}

/// tcpdump writing echo requests and replies of loopback into a pipe.
struct Capture {
    tcpdump: std::process::Child,
    reader: std::thread::JoinHandle<std::io::Result<Vec<u8>>>,
}

impl Capture {
    fn start() -> anyhow::Result<Self> {
        let mut tcpdump = Command::new("tcpdump")
            .args([
                "-i",
                "lo",
                "-U",
                "--immediate-mode",
                "-w",
                "-",
                "--time-stamp-precision=nano",
                "-s",
                "64",
                "-B",
                "16384",
            ])
            .arg("icmp and net 127.1.0.0/16")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("tcpdump cannot be run; it is in Debian's package tcpdump")?;
        let mut pipe = tcpdump.stdout.take().context("tcpdump has no output")?;
        // The header of the file comes once the capture runs.
        let mut bytes = vec![0; 24];
        pipe.read_exact(&mut bytes)
            .context("tcpdump ended at once; run as root")?;
        let reader = std::thread::spawn(move || pipe.read_to_end(&mut bytes).map(|_| bytes));
        Ok(Self { tcpdump, reader })
    }

    /// RTTs by address, in the order of the requests.
    fn finish(mut self) -> anyhow::Result<BTreeMap<Ipv4Addr, Vec<f64>>> {
        Command::new("kill")
            .args(["-INT", &self.tcpdump.id().to_string()])
            .status()
            .context("run kill")?;
        self.tcpdump.wait()?;
        let bytes = self
            .reader
            .join()
            .map_err(|_| anyhow::anyhow!("the reader of tcpdump panicked"))??;
        round_trips(&bytes)
    }
}

/// Reads a pcap file of nanosecond stamps in this machine's byte order.
fn round_trips(bytes: &[u8]) -> anyhow::Result<BTreeMap<Ipv4Addr, Vec<f64>>> {
    let word =
        |bytes: &[u8], at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    ensure!(
        word(bytes, 0) == Some(0xa1b2_3c4d),
        "tcpdump wrote no nanosecond pcap file"
    );
    let mut requests: BTreeMap<(IpAddr, [u8; 12]), (usize, f64)> = BTreeMap::new();
    let mut round_trips: BTreeMap<Ipv4Addr, Vec<f64>> = BTreeMap::new();
    let mut rest = &bytes[24..];
    while let (Some(seconds), Some(nanoseconds), Some(length)) =
        (word(rest, 0), word(rest, 4), word(rest, 8))
    {
        let Some(packet) = rest.get(16..16 + length as usize) else {
            break;
        };
        rest = &rest[16 + length as usize..];
        let at_us = f64::from(seconds % 10_000) * 1e6 + f64::from(nanoseconds) / 1e3;
        // Ethernet (14 bytes), IPv4 without options (20), ICMP: type, code, checksum, identifier, sequence, our token.
        let Some(icmp) = packet.get(34..34 + 16) else {
            continue;
        };
        let address = |at: usize| {
            Ipv4Addr::from(<[u8; 4]>::try_from(&packet[at..at + 4]).expect("four bytes"))
        };
        let identity: [u8; 12] = icmp[4..16].try_into().expect("twelve bytes");
        match icmp[0] {
            8 => {
                let rtts = round_trips.entry(address(30)).or_default();
                requests.insert((address(30).into(), identity), (rtts.len(), at_us));
                rtts.push(f64::NAN);
            }
            0 => {
                let request = requests.remove(&(address(26).into(), identity));
                if let (Some((at, sent_us)), Some(rtts)) =
                    (request, round_trips.get_mut(&address(26)))
                {
                    rtts[at] = at_us - sent_us;
                }
            }
            _ => {}
        }
    }
    Ok(round_trips)
}
