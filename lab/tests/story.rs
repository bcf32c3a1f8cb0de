//! Whole runs: real packets, real agents, a real aggregator. The same file must give the same selections in the lab
//! and in virtual time, survive a killed aggregator, and leave nothing behind when the lab itself is killed.
#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use leeward_engine::{scenario::Scenario, simulate};

const LAB: &str = env!("CARGO_BIN_EXE_leeward-lab");

fn scenario_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios").join(name)
}

/// Whether the lab can run here. Says aloud why not; where `LEEWARD_LAB_REQUIRED` is set that is a failure.
fn can_run(test: &str) -> bool {
    let root = fs::read_to_string("/proc/self/status")
        .is_ok_and(|status| status.lines().any(|line| line.starts_with("Uid:\t0\t0")));
    let beside = Path::new(LAB).parent().unwrap();
    let missing = ["leeward", "leeward-agent", "leeward-aggregator"]
        .into_iter()
        .find(|name| !beside.join(name).is_file());
    let reason = match missing {
        _ if !root => "needs root".to_owned(),
        _ if !Path::new("/dev/net/tun").exists() => "needs /dev/net/tun".to_owned(),
        Some(name) => format!("needs {name}; build it with cargo build --bins"),
        None => return true,
    };
    assert!(std::env::var_os("LEEWARD_LAB_REQUIRED").is_none(), "{test} cannot run: {reason}");
    eprintln!("SKIPPED: {test}: {reason}");
    false
}

/// Two labs on one machine would disturb each other's times.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs the lab to its end and returns whether it exited with 0, what it printed, and its transcript.
fn lab(file: &Path, more: &[&str]) -> (bool, String, serde_json::Value) {
    let transcript = tempfile::NamedTempFile::new().unwrap();
    let output = Command::new(LAB)
        .args(["run".as_ref(), file.as_os_str(), "--transcript".as_ref(), transcript.path().as_os_str()])
        .args(more)
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    eprintln!("{printed}");
    let json = fs::read(transcript.path()).unwrap();
    (output.status.success(), printed, serde_json::from_slice(&json).unwrap_or_default())
}

/// The selections of each primary, in order.
type Selections = BTreeMap<String, Vec<Option<String>>>;

fn selections_of_lab(transcript: &serde_json::Value) -> Selections {
    let mut selections = Selections::new();
    for decision in transcript["decisions"].as_array().unwrap() {
        let to = decision["to"].as_str().map(str::to_owned);
        let primary = decision["primary"].as_str().unwrap().to_owned();
        selections.entry(primary).or_default().push(to);
    }
    selections
}
