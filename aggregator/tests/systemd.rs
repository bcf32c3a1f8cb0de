//! The service file keeps its promises: its exposure, as systemd judges it, stays low, and it hands over what the
//! sample configuration asks for.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::path::PathBuf;

/// As `systemd-analyze security` counts: 0 is unreachable, 10 is no protection at all.
const EXPOSURE_MAX: f32 = 2.0;

fn unit() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../systemd/leeward-aggregator.service")
}

#[test]
fn the_service_is_hardened() {
    let Some((exposure, report)) = leeward_testing::exposure("the_service_is_hardened", &unit())
    else {
        return;
    };
    assert!(exposure <= EXPOSURE_MAX, "{report}");
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
