//! The verdict of every scenario, whenever it changes: the sentences that people are paged with, under version control.
//!
//! `LEEWARD_UPDATE_TRANSCRIPTS=1 cargo test -p leeward-engine --test verdicts` writes them anew.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{fmt::Write, fs, path::PathBuf, time::Duration};

use leeward_engine::{Engine, input::Input, scenario::Scenario, simulate, verdict::verdict};

fn folder(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Figures and the worst of several links change with every window: it is another sentence when the rest is.
fn gist(sentence: &str) -> String {
    let gist = sentence.split(" worst ").next().unwrap_or_default();
    let gist = gist.split(": ").next().unwrap_or_default();
    gist.chars().filter(|c| !c.is_ascii_digit()).collect()
}

/// The loss as estimated is for other tests to judge.
fn without_shares(sentence: &str) -> String {
    let mut words: Vec<&str> = sentence.split(' ').collect();
    for at in 1..words.len() {
        if words[at].starts_with('%') && words[at - 1].parse::<f64>().is_ok() {
            words[at - 1] = "N";
        }
    }
    words.join(" ")
}

fn story(scenario: &Scenario) -> String {
    let mut engine = Engine::new(scenario.policy.clone());
    let (mut told, mut last) = (String::new(), String::new());
    let mut next = simulate::START;
    simulate::run_with(scenario, |at, input| {
        engine.step(at, input);
        if matches!(input, Input::Tick) && at >= next {
            next = at + Duration::from_millis(500);
            let verdict = verdict(&engine.view(), at);
            let severity = format!("{:?}", verdict.severity).to_lowercase();
            let gist = format!("{severity} {}", gist(&verdict.sentence));
            if gist != last {
                last = gist;
                let seconds = at.since(simulate::START).as_secs_f64();
                let sentence = without_shares(&verdict.sentence);
                let _ = writeln!(told, "{seconds:9.3} s  {severity:<8}  {sentence}");
            }
        }
    });
    told
}

#[test]
fn every_scenario_has_its_sentences() {
    let mut names: Vec<PathBuf> = fs::read_dir(folder("../scenarios"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "toml")
        })
        .collect();
    names.sort();
    let mut all = String::new();
    for path in names {
        let text = fs::read_to_string(&path).unwrap();
        let scenario = Scenario::parse(&path.to_string_lossy(), &text).unwrap();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let _ = writeln!(all, "{name}\n{}", story(&scenario));
    }
    let golden = folder("tests/verdicts.txt");
    if std::env::var_os("LEEWARD_UPDATE_TRANSCRIPTS").is_some() {
        fs::write(&golden, &all).unwrap();
    }
    let known = fs::read_to_string(&golden).unwrap_or_default();
    assert!(known == all, "--- now\n{all}\n--- as committed\n{known}");
}
