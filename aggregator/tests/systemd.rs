//! The service file keeps its promises: its exposure, as systemd judges it, stays low, and it hands over what the
//! sample configuration asks for.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::{path::PathBuf, process::Command};

/// As `systemd-analyze security` counts: 0 is unreachable, 10 is no protection at all.
const EXPOSURE_MAX: f32 = 2.0;

fn unit() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../systemd/leeward-aggregator.service")
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
    let Some(verdict) = text
        .lines()
        .find(|line| line.contains("Overall exposure level"))
    else {
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
        .unwrap();
    assert!(exposure <= EXPOSURE_MAX, "{verdict}\n{text}");
}

#[test]
fn the_service_has_no_capability_and_hands_over_the_credentials_of_the_sample() {
    let unit = std::fs::read_to_string(unit()).unwrap();
    assert!(
        unit.contains("\nAmbientCapabilities=\n") && unit.contains("\nCapabilityBoundingSet=\n")
    );
    let sample = include_str!("../aggregator.sample.toml");
    for key in ["ca", "certificate", "key"] {
        let line = sample
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{key} = ")))
            .unwrap();
        let name = line.trim_matches('"');
        assert!(unit.contains(&format!("LoadCredential={name}:")), "{name}");
    }
}
