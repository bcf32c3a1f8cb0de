//! Other people's probers at the same work: CPU time of an answered echo request, microseconds.

use std::{
    io::Write as _,
    net::{IpAddr, SocketAddr, TcpListener},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use surge_ping::{Client, PingIdentifier, PingSequence};
use tempfile::TempDir;

use super::address;
use crate::{http, process};

/// The source of [`bare`].
const BARE: &str = include_str!("bare.c");

/// fping, `hertz` times a second for `seconds`. Its start costs it a few milliseconds.
///
/// # Errors
///
/// Returns why it cannot be run, or was not answered.
pub fn fping(targets: u32, hertz: u32, seconds: u32) -> anyhow::Result<f64> {
    let period_ms = 1_000 / hertz;
    let before = process::children_cpu()?;
    let output = Command::new("fping")
        .args(["-q", "-B1", "-r0", "-t1000", "-c"])
        .arg((hertz * seconds).to_string())
        .args(["-p", &period_ms.to_string(), "-i"])
        .arg((f64::from(period_ms) / f64::from(targets)).to_string())
        .args((0..targets).map(|at| address(at).to_string()))
        .output()
        .context("fping cannot be run; it is in Debian's package fping")?;
    let spent = process::children_cpu()? - before;
    // "127.0.0.1 : xmt/rcv/%loss = 20/20/0%, …", on stderr.
    let summary = String::from_utf8_lossy(&output.stderr);
    let received = |line: &str| -> Option<u64> {
        let counts = line.split_once("%loss = ")?.1;
        counts.split('/').nth(1)?.parse().ok()
    };
    let answered: u64 = summary.lines().filter_map(received).sum();
    if answered == 0 {
        bail!(
            "fping was not answered: {}",
            summary.lines().next().unwrap_or_default()
        );
    }
    Ok(micros_each(spent, answered))
}

/// surge-ping, one task for each target, on a runtime of one thread.
///
/// # Errors
///
/// Returns why it cannot be run, or was not answered.
pub fn surge_ping(targets: u32, hertz: u32, seconds: u32) -> anyhow::Result<f64> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let before = process::cpu(std::process::id())?;
    let answered = runtime.block_on(async {
        let client = Client::new(&surge_ping::Config::default())?;
        let mut tasks = tokio::task::JoinSet::new();
        for at in 0..targets {
            let client = client.clone();
            tasks.spawn(async move {
                let identifier = PingIdentifier(at as u16);
                let mut pinger = client.pinger(IpAddr::V4(address(at)), identifier).await;
                let mut turn = tokio::time::interval(Duration::from_secs(1) / hertz);
                let mut answered = 0_u64;
                for sequence in 0..(hertz * seconds) as u16 {
                    turn.tick().await;
                    let reply = pinger.ping(PingSequence(sequence), &[0; 24]).await;
                    answered += u64::from(reply.is_ok());
                }
                answered
            });
        }
        let answered: u64 = tasks.join_all().await.into_iter().sum();
        anyhow::Ok(answered)
    })?;
    let spent = process::cpu(std::process::id())? - before;
    ensure!(answered > 0, "surge-ping was not answered");
    Ok(micros_each(spent, answered))
}

/// Prometheus' blackbox exporter, asked for one ICMP probe after the other over one connection, as Prometheus does;
/// asking is not counted.
///
/// # Errors
///
/// Returns why it cannot be run, or its probes failed.
pub fn blackbox(probes: u32) -> anyhow::Result<f64> {
    let directory = TempDir::with_prefix("leeward-bench-")?;
    let config = directory.path().join("blackbox.yml");
    let modules = "modules:\n  icmp:\n    prober: icmp\n    timeout: 1s\n    icmp:\n      preferred_ip_protocol: ip4\n";
    std::fs::write(&config, modules)?;
    let free = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let exporter = Command::new("prometheus-blackbox-exporter")
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--web.listen-address={free}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("it cannot be run; it is in Debian's package prometheus-blackbox-exporter")?;
    let exporter = Running(exporter);
    let mut client = connect(free)?;
    let mut ask = |at: u32| -> anyhow::Result<()> {
        let target = address(at % 100);
        let answer = client.bytes(&format!("/probe?module=icmp&target={target}"))?;
        ensure!(
            String::from_utf8_lossy(&answer).contains("\nprobe_success 1"),
            "a probe of {target} failed"
        );
        Ok(())
    };
    (0..20).try_for_each(&mut ask)?;
    let before = process::cpu(exporter.0.id())?;
    (0..probes).try_for_each(&mut ask)?;
    let spent = process::cpu(exporter.0.id())? - before;
    Ok(micros_each(spent, probes.into()))
}

fn connect(address: SocketAddr) -> anyhow::Result<http::Client> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match http::Client::connect(address) {
            Ok(client) => return Ok(client),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// A process that ends with this value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the least that a probe can be takes.
#[derive(Clone, Copy, Debug)]
pub struct Bare {
    /// CPU time of a probe, microseconds.
    pub us_per_probe: f64,
    /// How late the kernel woke the program, 99th percentile, microseconds.
    pub late_p99_us: f64,
}

/// The limit: a program in C that sends, receives and takes stamps one at a time, and does nothing with them; one probe
/// each `every`, or as fast as it can.
///
/// # Errors
///
/// Returns why it cannot be compiled or run.
pub fn bare(probes: u32, every: Duration) -> anyhow::Result<Bare> {
    let directory = TempDir::with_prefix("leeward-bench-")?;
    let program = directory.path().join("bare");
    let mut compiler = Command::new("cc")
        .args(["-O2", "-x", "c", "-", "-o"])
        .arg(&program)
        .stdin(Stdio::piped())
        .spawn()
        .context("there is no C compiler; it is in Debian's package build-essential")?;
    if let Some(mut stdin) = compiler.stdin.take() {
        stdin.write_all(BARE.as_bytes())?;
    }
    ensure!(compiler.wait()?.success(), "the C compiler refused it");
    let output = Command::new(&program)
        .args([probes.to_string(), every.as_micros().to_string()])
        .output()?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let printed = String::from_utf8_lossy(&output.stdout);
    let (us_per_probe, late_p99_us) = printed.trim().split_once(' ').context("it said nothing")?;
    Ok(Bare {
        us_per_probe: us_per_probe.parse()?,
        late_p99_us: late_p99_us.parse()?,
    })
}

fn micros_each(spent: Duration, answered: u64) -> f64 {
    spent.as_secs_f64() * 1e6 / answered as f64
}
