//! Policies as people and programs meet them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::collections::BTreeMap;

use common::{Server, ok, problem};
use leeward_common::{
    api::{
        problem::{Code, Problem},
        v1::{
            CurrentPolicy, Divergence, ParameterDifference, Policies, Removed, Scoreboard,
            ScoreboardSide, ShadowPolicy, ShadowSpec, ShadowStanding, ShadowState, Time,
            WrittenPolicy,
        },
    },
    id::RegionId,
    time::Timestamp,
};

fn time() -> Time {
    Time(Timestamp::parse_rfc3339("2026-11-20T03:12:11Z").unwrap())
}

fn side(moves: u64) -> ScoreboardSide {
    ScoreboardSide {
        moves,
        flaps: 1,
        judged_moves: 4,
        false_moves: 3,
        worse_ms: 90_000,
        down_ms: 0,
        lossy_ms: 0,
        regret: Some(0.01),
        selected: Vec::new(),
    }
}

fn policies(state: ShadowState) -> Policies {
    Policies {
        summary: "since then the shadow policy would have agreed".to_owned(),
        current: CurrentPolicy {
            policy_version: "aaaa".to_owned(),
            regions: 3,
        },
        shadow: Some(ShadowStanding {
            version: 7,
            policy_version: "bbbb".to_owned(),
            who: "mara".to_owned(),
            why: "less moves?".to_owned(),
            at: time(),
            state,
            detail: String::new(),
            since: Some(time()),
            until: Some(time()),
            restarts: 0,
        }),
        differences: vec![ParameterDifference {
            parameter: "policy.steadiness.margin".to_owned(),
            current: Some("1.15".to_owned()),
            shadow: Some("1.3".to_owned()),
        }],
        scoreboard: Some(Scoreboard {
            since: Some(time()),
            until: time(),
            agreement: Some(0.99),
            watched_ms: 100,
            agreed_ms: 99,
            differed: 1,
            current: side(9),
            other: side(5),
            divergences: vec![Divergence {
                owner: "virginia".to_owned(),
                since: time(),
                until: None,
                current: Some(RegionId::parse("oregon").unwrap()),
                current_why: "it was better".to_owned(),
                other: None,
                other_why: "nothing is left".to_owned(),
            }],
        }),
        evaluated_at: time(),
    }
}

fn written() -> WrittenPolicy {
    WrittenPolicy {
        policy_version: "bbbb".to_owned(),
        toml: "[policy]\nevaluate_every = \"50ms\"\n".to_owned(),
        parameters: BTreeMap::new(),
    }
}

fn shadow() -> ShadowPolicy {
    ShadowPolicy {
        version: 7,
        who: "mara".to_owned(),
        at: time(),
        written: written(),
        spec: ShadowSpec {
            policy: "[policy]".to_owned(),
            why: String::new(),
        },
    }
}

#[test]
fn the_policies_are_shown_with_where_they_differ() {
    let server = Server::new(vec![ok("/v1/policies", &policies(ShadowState::Following))]);
    for args in [&["policy"][..], &["policy", "show", "--check"]] {
        let said = server.leeward(args).expect(0);
        for part in [
            "since then",
            "bbbb, by mara (change 7)",
            "following, counts since",
            "1.15",
            "1.3",
        ] {
            assert!(said.out.contains(part), "{part}: {}", said.out);
        }
    }
    let json = server.leeward(&["policy", "-o", "json"]).expect(0).json();
    assert_eq!(json["shadow"]["state"], "following");
    let server = Server::new(vec![ok("/v1/policies", &policies(ShadowState::Behind))]);
    server.leeward(&["policy", "--check"]).expect(3);
}

#[test]
fn one_policy_is_shown_whole() {
    let server = Server::new(vec![
        ok("/v1/policies/current", &written()),
        ok("/v1/policies/shadow", &shadow()),
    ]);
    let said = server.leeward(&["policy", "show", "current"]).expect(0);
    assert_eq!(said.out, written().toml);
    let said = server.leeward(&["policy", "show", "shadow"]).expect(0);
    assert!(
        said.out.starts_with("# version 7 by mara at 2026-11-20"),
        "{}",
        said.out
    );
}

#[test]
fn the_scoreboard_says_what_both_were_worth_and_where_they_differed() {
    let server = Server::new(vec![ok("/v1/policies", &policies(ShadowState::Following))]);
    let said = server.leeward(&["policy", "scoreboard"]).expect(0);
    for part in [
        "99",
        "moves",
        "3/4",
        "virginia",
        "oregon",
        "none",
        "nothing is left",
    ] {
        assert!(said.out.contains(part), "{part}: {}", said.out);
    }
    let csv = server
        .leeward(&["policy", "scoreboard", "-o", "csv"])
        .expect(0);
    assert_eq!(csv.out.lines().count(), 2);
    let none = Policies {
        shadow: None,
        scoreboard: None,
        ..policies(ShadowState::Following)
    };
    let server = Server::new(vec![ok("/v1/policies", &none)]);
    server.leeward(&["policy", "scoreboard"]).expect(5);
}

#[test]
fn a_shadow_is_set_from_a_whole_file_and_cleared() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("aggregator.toml");
    let text = "definitions_dir = '/x'\n[credentials]\nca = 'ca'\n[shadow]\npolicy = 'x'\n[policy]\nevaluate_every = '1s'";
    std::fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    let server = Server::new(vec![ok("/v1/policies/shadow", &shadow())]);
    let args = ["policy", "shadow", "set", file, "--why", "less moves?"];
    let tried = server
        .leeward(&[&args[..], &["--dry-run", "-o", "json"]].concat())
        .expect(0);
    assert_eq!(
        tried.json()["policy"],
        "[policy]\nevaluate_every = \"1s\"\n"
    );
    assert_eq!(server.last_request(), "");
    let set = server
        .leeward(&[&args[..], &["--if-version", "6"]].concat())
        .expect(0);
    assert!(
        set.out.contains("policy bbbb is the shadow (change 7)"),
        "{}",
        set.out
    );
    let request = server.last_request().to_ascii_lowercase();
    assert!(request.starts_with("put /v1/policies/shadow"), "{request}");
    assert!(request.contains("if-match: \"6\""), "{request}");

    let removed = Removed {
        version: 8,
        file: Some("shadow.toml".to_owned()),
    };
    let server = Server::new(vec![ok("/v1/policies/shadow?why=seen", &removed)]);
    let said = server
        .leeward(&["policy", "shadow", "clear", "--why", "seen"])
        .expect(0);
    assert!(
        said.out.contains("the shadow policy is removed (change 8)"),
        "{}",
        said.out
    );
    assert!(
        said.err.contains("shadow.toml still defines it"),
        "{}",
        said.err
    );
    let gone = Problem::new(Code::UnknownPolicy, "no shadow policy is set", "set one");
    let server = Server::new(vec![problem("/v1/policies/shadow", &gone)]);
    server.leeward(&["policy", "shadow", "clear"]).expect(5);
    server
        .leeward(&["policy", "shadow", "set", "/nowhere.toml"])
        .expect(1);
}
