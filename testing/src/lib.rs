//! What the tests of several crates share.

use std::{
    fmt::Display,
    io::Write as _,
    net::{Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

/// Where this is set, a test of the lab that cannot run has failed.
const REQUIRED: &str = "LEEWARD_LAB_REQUIRED";

/// Says something that is seen also when the test passes: what `eprintln!` prints, the harness keeps.
pub fn tell(what: impl Display) {
    // Nobody is left to tell of a standard error that is closed.
    let _ = writeln!(std::io::stderr(), "\n{what}");
}

/// Says that a test, or a part of it, does not run here, and why.
pub fn skipped(test: &str, why: &str) {
    tell(format_args!("SKIPPED: {test}: {why}"));
}

/// As [`skipped`], of a test that has to run where `LEEWARD_LAB_REQUIRED` is set.
///
/// # Panics
///
/// Where it is.
pub fn skipped_unless_required(test: &str, why: &str) {
    assert!(
        std::env::var_os(REQUIRED).is_none(),
        "{test} cannot run: {why}"
    );
    skipped(test, why);
}

/// Whether this process is root's.
#[must_use]
pub fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status");
    status.is_ok_and(|status| status.lines().any(|line| line.starts_with("Uid:\t0\t0")))
}

/// A port of loopback that is free for UDP and TCP and stays so until it is bound, also between two lives of what binds it: the
/// system gives none below 32,768 to those who ask for any, and every call returns another.
///
/// # Panics
///
/// When there is none left.
#[must_use]
pub fn free_port() -> u16 {
    const PORTS: std::ops::Range<u32> = 20_000..32_000;
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    // Programs of tests may run beside each other; each begins elsewhere.
    let begin = std::process::id().wrapping_mul(193);
    loop {
        let taken = TAKEN.fetch_add(1, Ordering::Relaxed);
        assert!(taken < PORTS.end - PORTS.start, "no port is free");
        let offset = begin.wrapping_add(taken) % (PORTS.end - PORTS.start);
        let Ok(port) = u16::try_from(PORTS.start + offset) else {
            continue;
        };
        let all = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        if UdpSocket::bind(all).is_ok() && TcpListener::bind(all).is_ok() {
            return port;
        }
    }
}

/// A file system of its own in memory, gone when the test is.
#[derive(Debug)]
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one of this size, as `mount` takes it (`256k`), and makes the directory for it; `None` after saying that the test
    /// does not run without.
    ///
    /// # Errors
    ///
    /// Returns why the directory cannot be made.
    pub fn mount(test: &str, at: &Path, size: &str) -> std::io::Result<Option<Self>> {
        std::fs::create_dir_all(at)?;
        let size = format!("size={size}");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at);
        if mount.output().is_ok_and(|output| output.status.success()) {
            return Ok(Some(Self(at.to_owned())));
        }
        skipped(test, "cannot mount a tmpfs, which needs root");
        Ok(None)
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let mut umount = Command::new("umount");
        let done = umount.arg("--lazy").arg(&self.0).status();
        let is_gone = done.is_ok_and(|status| status.success());
        assert!(
            is_gone || std::thread::panicking(),
            "{} stays mounted",
            self.0.display()
        );
    }
}

/// How exposed a service is by systemd's own measure, and the whole report: 0 is unreachable, 10 is no protection at all. `None`
/// after saying that nothing here can judge it.
///
/// # Panics
///
/// When the judge gives no number.
#[must_use]
pub fn exposure(test: &str, unit: &Path) -> Option<(f32, String)> {
    let mut judge = Command::new("systemd-analyze");
    judge
        .args(["security", "--offline=true", "--no-pager"])
        .arg(unit);
    let Ok(output) = judge.output() else {
        skipped(test, "systemd-analyze is not installed");
        return None;
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut lines = text.lines();
    let Some(verdict) = lines.find(|line| line.contains("Overall exposure level")) else {
        let why = String::from_utf8_lossy(&output.stderr);
        skipped(
            test,
            &format!("systemd-analyze cannot judge service files here: {why}"),
        );
        return None;
    };
    let mut numbers = verdict
        .split_whitespace()
        .filter_map(|word| word.parse().ok());
    let exposure = numbers.next_back();
    assert!(exposure.is_some(), "no number: {verdict}");
    exposure.map(|exposure| (exposure, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The harness keeps what a passing test prints; this runs itself as one and looks at what is left.
    #[test]
    fn what_is_told_is_seen_though_the_test_passes() {
        const INSIDE: &str = "LEEWARD_TESTING_INSIDE";
        if std::env::var_os(INSIDE).is_some() {
            skipped("some_test", "it needs the moon");
            eprintln!("kept by the harness");
            return;
        }
        let myself = std::env::current_exe().expect("a test has a binary");
        let output = Command::new(myself)
            .args([
                "--exact",
                "tests::what_is_told_is_seen_though_the_test_passes",
            ])
            .env(INSIDE, "1")
            .output()
            .expect("a test can run itself");
        let seen = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success());
        assert!(
            seen.contains("SKIPPED: some_test: it needs the moon"),
            "{seen}"
        );
        assert!(!seen.contains("kept by the harness"), "{seen}");
    }
}
