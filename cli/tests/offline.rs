//! Commands that need no server.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use common::{Said, leeward};

const SCENARIO: &str = r#"
name = "two regions"
seed = 3
duration = "8s"

[[region]]
id = "iad"
latitude = 38.9
longitude = -77.4

[[region]]
id = "dub"
latitude = 53.3
longitude = -6.3

[[link]]
between = ["iad", "dub"]
rtt = "70ms"

[[expect]]
primary = "iad"
selected = "SELECTED"
by = "5s"
"#;

fn scenario(selected: &str) -> tempfile::NamedTempFile {
    let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    fs::write(file.path(), SCENARIO.replace("SELECTED", selected)).unwrap();
    file
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_scenario_is_told_as_a_story_and_its_expectations_are_the_exit_code() {
    let good = scenario("dub");
    let said = leeward(&["simulate", text(good.path())]).expect(0);
    assert!(said.out.starts_with("two regions\n"), "{}", said.out);
    assert!(said.out.contains("iad fails over to dub"), "{}", said.out);
    assert!(said.out.contains("met     "), "{}", said.out);
    let bad = scenario("none");
    let said = leeward(&["simulate", text(bad.path())]).expect(3);
    assert!(said.out.contains("MISSED"), "{}", said.out);
    assert!(
        said.err.contains("1 of 1 expectation not met"),
        "{}",
        said.err
    );
}

#[test]
fn the_same_seed_tells_the_same_story() {
    let file = scenario("dub");
    let run = |seed: &str| {
        leeward(&["simulate", text(file.path()), "--seed", seed, "-o", "json"])
            .expect(0)
            .out
    };
    assert_eq!(run("5"), run("5"));
    let json: serde_json::Value = serde_json::from_str(&run("5")).unwrap();
    assert_eq!(json["passed"], true);
    assert_eq!(json["expectations"][0]["verdict"], "met");
    assert_eq!(json["decisions"][0]["reason"], "initial");
}

#[test]
fn a_scenario_with_a_fault_is_refused_with_its_place() {
    let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    fs::write(
        file.path(),
        SCENARIO.replace("SELECTED", "dub").replace("70ms", "70"),
    )
    .unwrap();
    let said = leeward(&["simulate", text(file.path())]).expect(1);
    assert!(said.err.contains(".toml:18:"), "{}", said.err);
    leeward(&["simulate", "/nowhere.toml"]).expect(5);
}

#[test]
fn a_file_is_checked_and_its_fault_named() {
    let (good, bad) = (scenario("dub"), scenario("mars"));
    let said = leeward(&["config", "check", text(good.path())]).expect(0);
    assert!(said.out.contains("scenario  yes"), "{}", said.out);
    let said = leeward(&[
        "config",
        "check",
        text(good.path()),
        text(bad.path()),
        "-o",
        "json",
    ])
    .expect(3);
    assert_eq!(
        (
            said.json()[0]["valid"].as_bool(),
            said.json()[1]["valid"].as_bool()
        ),
        (Some(true), Some(false))
    );
    assert!(
        said.json()[1]["detail"].as_str().unwrap().contains("mars"),
        "{}",
        said.out
    );
    let odd = tempfile::NamedTempFile::new().unwrap();
    fs::write(odd.path(), "colour = 3\n").unwrap();
    leeward(&["config", "check", text(odd.path())]).expect(2);
    leeward(&["config", "check", "/nowhere.toml"]).expect(5);
}

/// The binary alone in a directory, so that no daemon of a build stands beside it.
fn alone(directory: &Path, args: &[&str]) -> Said {
    let binary = directory.join("leeward");
    if !binary.exists() {
        fs::copy(env!("CARGO_BIN_EXE_leeward"), &binary).unwrap();
    }
    Command::new(binary)
        .args(args)
        .env_clear()
        .output()
        .unwrap()
        .into()
}

#[test]
fn a_daemons_file_is_checked_by_the_daemon() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("agent.toml");
    fs::write(&file, "region = \"iad\"\nagent = \"iad-1\"\n").unwrap();
    let said = alone(directory.path(), &["config", "check", text(&file)]).expect(5);
    assert!(said.err.contains("leeward-agent --config"), "{}", said.err);
    let daemon = directory.path().join("leeward-agent");
    for (script, code, word) in [
        ("#!/bin/sh\n[ \"$1 $3\" = '--config --check' ]\n", 0, "yes"),
        (
            "#!/bin/sh\necho 'error: agent.toml:1:1: no' >&2\nexit 1\n",
            3,
            "agent.toml:1:1: no",
        ),
    ] {
        fs::write(&daemon, script).unwrap();
        fs::set_permissions(&daemon, fs::Permissions::from_mode(0o755)).unwrap();
        let said = alone(directory.path(), &["config", "check", text(&file)]).expect(code);
        assert!(said.out.contains(word), "{}", said.out);
    }
}

#[test]
fn a_token_comes_with_its_hash_and_is_never_the_same() {
    let new = || leeward(&["token", "new", "-o", "json"]).expect(0).json();
    let (first, second) = (new(), new());
    assert_ne!(first["token"], second["token"]);
    let token = first["token"].as_str().unwrap();
    let hash = <sha2::Sha256 as sha2::Digest>::digest(token.as_bytes());
    let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(first["sha256"], hash);
    assert!(token.len() >= 64);
}

#[test]
fn help_is_there_for_every_command_and_topic() {
    for topic in [
        &["status"][..],
        &["failover", "rank"],
        &["pki", "issue", "agent"],
        &["exit-codes"],
        &["environment"],
        &[],
    ] {
        let said = leeward(&[&["help"], topic].concat()).expect(0);
        assert!(said.out.len() > 100, "{topic:?}");
    }
    leeward(&["help", "nonsense"]).expect(2);
    assert!(leeward(&["--help"]).expect(0).out.contains("Examples:"));
    leeward(&["--version"]).expect(0);
    leeward(&["nonsense"]).expect(2);
    leeward(&[]).expect(2);
}

#[test]
fn the_help_on_exit_codes_names_them_all() {
    let said = leeward(&["help", "exit-codes"]).expect(0);
    for code in 0..=8 {
        assert!(
            said.out.contains(&format!("\n  {code}  ")),
            "{code}\n{}",
            said.out
        );
    }
}

#[test]
fn completions_and_manual_pages_are_written() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            leeward(&["completions", shell])
                .expect(0)
                .out
                .contains("failover")
        );
    }
    assert!(leeward(&["man"]).expect(0).out.contains(".TH leeward 1"));
    let directory = tempfile::tempdir().unwrap();
    leeward(&["man", "--directory", text(directory.path())]).expect(0);
    assert!(directory.path().join("leeward-failover-rank.1").exists());
}
