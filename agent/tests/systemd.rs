//! The service file keeps its promises: its exposure, as systemd judges it, stays low.

use std::{path::PathBuf, process::Command};

/// As `systemd-analyze security` counts: 0 is unreachable, 10 is no protection at all.
const EXPOSURE_MAX: f32 = 2.0;

fn unit() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../systemd/leeward-agent.service")
}

#[test]
fn the_service_is_hardened() {
    let analyzed = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--no-pager"])
        .arg(unit())
        .output();
    let Ok(output) = analyzed else {
        eprintln!("SKIPPED: the_service_is_hardened: systemd-analyze is not installed");
        return;
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let verdict = text
        .lines()
        .find(|line| line.contains("Overall exposure level"));
    let Some(verdict) = verdict else {
        let why = String::from_utf8_lossy(&output.stderr);
        eprintln!(
            "SKIPPED: the_service_is_hardened: systemd-analyze cannot judge service files here: {why}"
        );
        return;
    };
    let exposure: f32 = verdict
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .next_back()
        .expect("a number");
    assert!(exposure <= EXPOSURE_MAX, "{verdict}\n{text}");
}

/// What the sample configuration calls its credentials is what the service hands over.
#[test]
fn the_service_hands_over_the_credentials_of_the_sample() {
    let unit = std::fs::read_to_string(unit()).expect("the service file is there");
    let sample = include_str!("../agent.sample.toml");
    for key in ["ca", "certificate", "key"] {
        let line = sample
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{key} = ")))
            .expect("a key of the sample");
        let name = line.trim_matches('"');
        assert!(unit.contains(&format!("LoadCredential={name}:")), "{name}");
    }
}
