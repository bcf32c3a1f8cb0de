//! Probing measured: rounds of our prober, of others, and of the least that the kernel lets a probe cost.
//!
//! All of it on loopback, which has no network to wait for: what there is to measure is the probing itself. Everybody
//! pays for the kernel's echo reply as well, which answers within the call that sends.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::{Context as _, ensure};
use leeward_agent::prober::{
    ClosedWindow, Plan, PlannedPath, Prober, ProberConfig, ProberHandle, Sockets,
};
use leeward_common::{
    histogram::Schema,
    id::TargetId,
    report::{Class, Path, ProbeKind},
};
use tokio::sync::mpsc;

use crate::process;

pub mod capture;
pub mod peers;

/// Windows of a round, of a second each.
const WINDOW: Duration = Duration::from_secs(1);

/// What our prober did in a round.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    /// Probes that were answered.
    pub answered: u64,
    /// Probes that were not, though nothing on loopback loses them.
    pub lost: u64,
    /// Probes that this process did not send in time.
    pub not_sent: u64,
    /// CPU time of the whole process.
    pub cpu: Duration,
    /// How long the round was.
    pub lasted: Duration,
    /// How far from their times probes left, 99th percentile, microseconds.
    pub late_p99_us: f64,
}

impl Round {
    /// CPU time of an answered probe, microseconds.
    #[must_use]
    pub fn us_per_probe(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.answered as f64
    }
}

/// How the prober is set up.
#[must_use]
pub fn config() -> ProberConfig {
    ProberConfig {
        max_probes_per_second: 1_000_000,
        ..ProberConfig::new([7; 16], 1)
    }
}

/// Starts our prober.
///
/// # Errors
///
/// Returns why it cannot run: most likely for want of privilege.
pub fn start() -> anyhow::Result<(ProberHandle, mpsc::Receiver<ClosedWindow>)> {
    // More windows than a bench leaves waiting.
    let (out, windows) = mpsc::channel(64);
    let prober = Prober::start(Sockets::open(&config())?, config(), out)?;
    Ok((prober, windows))
}

/// Probes `targets` addresses of loopback by ICMP, and accounts for `seconds` of it.
///
/// # Errors
///
/// Returns why it could not, among them that fewer than 95 % were answered.
pub fn round(targets: u32, interval: Duration, seconds: u32) -> anyhow::Result<Round> {
    let (prober, mut windows) = start()?;
    prober.set_plan(plan(targets, interval, WINDOW))?;
    // The first window is short and warms up; the account begins with the second.
    windows.blocking_recv().context("the prober stopped")?;
    let before = (
        process::cpu(std::process::id())?,
        prober.counters().lateness,
    );
    let (mut answered, mut lost, mut not_sent) = (0, 0, 0);
    for _ in 0..seconds {
        let window = windows.blocking_recv().context("the prober stopped")?;
        for (_, report) in &window.rows {
            answered += report.counts.answered() + u64::from(report.counts.of(Class::Late));
            lost += u64::from(report.counts.of(Class::Lost));
            not_sent += u64::from(report.counts.of(Class::NotSent));
        }
    }
    let cpu = process::cpu(std::process::id())? - before.0;
    let late_p99_us = prober.counters().lateness.since(&before.1).quantile(0.99) as f64;
    prober.stop();
    let round = Round {
        answered,
        lost,
        not_sent,
        cpu,
        lasted: WINDOW * seconds,
        late_p99_us,
    };
    ensure!(
        answered * 100 >= (answered + lost + not_sent) * 95,
        "too few probes were answered: {round:?}"
    );
    Ok(round)
}

/// A plan that probes the first `targets` addresses.
#[must_use]
pub fn plan(targets: u32, interval: Duration, window: Duration) -> Plan {
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
        flows: 4,
        paths: (0..targets).map(path).collect(),
    }
}

/// The whole of 127.0.0.0/8 answers.
#[must_use]
pub fn address(at: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(127, 1, 0, 1).to_bits() + at)
}
