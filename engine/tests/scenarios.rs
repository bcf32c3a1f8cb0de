//! Every scenario runs in virtual time, meets its expectations, and tells the story that is under version control.
//!
//! `LEEWARD_UPDATE_TRANSCRIPTS=1 cargo test -p leeward-engine --test scenarios` writes the stories anew.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{fs, path::PathBuf, time::Duration};

use leeward_common::id::RegionId;
use leeward_engine::{intent::Owner, scenario::Scenario, simulate};

fn folder(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn scenarios() -> Vec<(String, Scenario)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder("../scenarios")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).unwrap();
        let scenario = Scenario::parse(&path.to_string_lossy(), &text);
        all.push((name, scenario.unwrap_or_else(|error| panic!("{error}"))));
    }
    all.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(!all.is_empty());
    all
}

#[test]
fn every_scenario_ends_as_expected_and_tells_its_story() {
    let mut wrong = Vec::new();
    for (name, scenario) in scenarios() {
        let transcript = simulate::run(&scenario);
        let story = transcript.to_string();
        let path = folder("tests/transcripts").join(format!("{name}.txt"));
        if std::env::var_os("LEEWARD_UPDATE_TRANSCRIPTS").is_some() {
            fs::write(&path, &story).unwrap();
        }
        let known = fs::read_to_string(&path).unwrap_or_default();
        if !transcript.passed() || known != story {
            wrong.push(format!(
                "--- {name}: now\n{story}--- {name}: as committed\n{known}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The lab plays the same files with real noise: what is expected must not hang on one seed.
#[test]
fn every_scenario_ends_as_expected_whatever_its_seed() {
    let seeds = std::env::var("LEEWARD_SEEDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(8);
    let mut wrong = Vec::new();
    for (name, mut scenario) in scenarios() {
        for seed in 1_000..1_000 + seeds {
            scenario.seed = seed;
            let transcript = simulate::run(&scenario);
            if !transcript.passed() {
                wrong.push(format!("--- {name} with seed {seed}\n{transcript}"));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} runs: {}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// In the lab and in the world windows end whenever they end, and those who are joined again hear the near ones first.
#[test]
fn observers_that_come_back_at_any_moment_move_nothing() {
    let text = fs::read_to_string(folder("../scenarios/observers-cut-off.toml")).unwrap();
    for cut_ms in [1_500, 4_000, 30_000] {
        for offset_ms in (0..500).step_by(20) {
            let back = format!("at = \"{}ms\"", 15_000 + cut_ms + offset_ms);
            let text = text.replace("at = \"45s\"", &back);
            let scenario = Scenario::parse("observers-cut-off.toml", &text).unwrap();
            let transcript = simulate::run(&scenario);
            assert!(transcript.passed(), "{back}: {transcript}");
        }
    }
}

/// What it lost while it was cut off, and which of the others it hears first, is no reason for a region to choose anew.
#[test]
fn a_region_that_comes_back_at_any_moment_keeps_its_own_selection() {
    let text = fs::read_to_string(folder("../scenarios/region-outage.toml")).unwrap();
    let oregon = RegionId::parse("oregon").unwrap();
    let mut moved = Vec::new();
    for cut_ms in [1_500, 4_000, 9_000] {
        for offset_ms in (0..500).step_by(20) {
            let back = 10_000 + cut_ms + offset_ms;
            let text = text.replace("duration = \"24s\"", "duration = \"35s\"");
            let text = format!("{text}\n[[event]]\nat = \"{back}ms\"\nregion_up = \"oregon\"\n");
            let scenario = Scenario::parse("region-outage.toml", &text).unwrap();
            let transcript = simulate::run(&scenario);
            let decisions = transcript.decisions.iter().filter(|own| {
                own.at > simulate::START + Duration::from_secs(10)
                    && own.owner() == Owner::Region(oregon.clone())
            });
            moved.extend(decisions.map(|own| format!("{back} ms: {}: {}", own.at, own.summary)));
        }
    }
    assert!(moved.is_empty(), "{}", moved.join("\n"));
}
