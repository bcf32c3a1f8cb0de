//! Others that read recordings: CPU time of all of one.

use std::{
    fs,
    io::Write as _,
    net::{Ipv4Addr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};

use crate::process;

/// `bgpdump`, a line for each prefix, which nobody reads.
///
/// # Errors
///
/// Returns why it cannot be run.
pub fn bgpdump(recording: &Path) -> anyhow::Result<Duration> {
    let before = process::children_cpu()?;
    let status = Command::new("bgpdump")
        .args(["-m", "-q"])
        .arg(recording)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .context("bgpdump cannot be run; it is in Debian's package bgpdump")?;
    ensure!(status.success(), "bgpdump fails: {status}");
    Ok(process::children_cpu()? - before)
}

/// GoBGP, into whose table `gobgp mrt inject` puts a dumped one: the daemon's time, and the client's.
///
/// # Errors
///
/// Returns why it cannot be run.
pub fn gobgp(dump: &Path) -> anyhow::Result<Duration> {
    let mut config = tempfile::Builder::new().suffix(".toml").tempfile()?;
    config.write_all(b"[global.config]\nas = 64500\nrouter-id = \"192.0.2.9\"\nport = -1\n")?;
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port();
    let daemon = Command::new("gobgpd")
        .arg("-f")
        .arg(config.path())
        .arg(format!("--api-hosts=127.0.0.1:{port}"))
        .arg("--pprof-disable")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("gobgpd cannot be run; it is in Debian's package gobgpd")?;
    let daemon = Daemon(daemon);
    let gobgp = |arguments: &[&str]| {
        let mut command = Command::new("gobgp");
        command.args(["-p", &port.to_string()]).args(arguments);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        command.output().context("gobgp cannot be run")
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    while !gobgp(&["global"])?.status.success() {
        ensure!(Instant::now() < deadline, "gobgpd does not answer");
        thread::sleep(Duration::from_millis(50));
    }
    let id = daemon.0.id();
    let before = (process::children_cpu()?, process::cpu(id)?);
    let name = dump.display().to_string();
    let output = gobgp(&["mrt", "inject", "global", &name])?;
    if !output.status.success() {
        bail!(
            "gobgp mrt inject: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let client = process::children_cpu()? - before.0;
    // What it took in it may still work on.
    let mut last = process::cpu(id)?;
    loop {
        thread::sleep(Duration::from_millis(300));
        let now = process::cpu(id)?;
        if now - last < Duration::from_millis(10) {
            return Ok(now - before.1 + client);
        }
        last = now;
    }
}

struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

/// The recordings of a folder: files of MRT that others may read too.
///
/// # Errors
///
/// Returns that the folder cannot be read.
pub fn recordings(folder: &Path) -> anyhow::Result<Vec<std::path::PathBuf>> {
    let mut all = Vec::new();
    let entries = fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            all.extend(recordings(&path)?);
        } else if fs::metadata(&path)?.len() > 0 {
            all.push(path);
        }
    }
    all.sort();
    Ok(all)
}
