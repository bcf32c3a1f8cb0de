//! Every scenario runs in virtual time, meets its expectations, and tells the story that is under version control.
//!
//! `LEEWARD_UPDATE_TRANSCRIPTS=1 cargo test -p leeward-engine --test scenarios` writes the stories anew.

use std::{fs, path::PathBuf};

use leeward_engine::{scenario::Scenario, simulate};

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
        let scenario = Scenario::parse(&path.to_string_lossy(), &text)
            .unwrap_or_else(|error| panic!("{error}"));
        all.push((name, scenario));
    }
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

#[test]
fn every_scenario_ends_as_expected_and_tells_its_story() {
    let scenarios = scenarios();
    assert!(!scenarios.is_empty());
    let mut wrong = Vec::new();
    for (name, scenario) in scenarios {
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
