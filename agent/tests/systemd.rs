//! The service file keeps its promises: its exposure, as systemd judges it, stays low.

use std::path::PathBuf;

/// As `systemd-analyze security` counts: 0 is unreachable, 10 is no protection at all.
const EXPOSURE_MAX: f32 = 2.0;

fn unit() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../systemd/leeward-agent.service")
}

#[test]
fn the_service_is_hardened() {
    let Some((exposure, report)) = leeward_testing::exposure("the_service_is_hardened", &unit())
    else {
        return;
    };
    assert!(exposure <= EXPOSURE_MAX, "{report}");
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
