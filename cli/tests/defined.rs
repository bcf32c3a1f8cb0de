//! Services, capacity, overrides, placements, readiness and the audit log, as people and programs meet them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::{Server, leeward, ok, problem};
use leeward_common::{
    api::{
        problem::{Code, Problem},
        v1::{
            Account, Audit, AuditEntry, Capacity, CheckFinding, CheckStanding, CheckVantage, Fate,
            Load, Override, OverrideRule, OverrideSpec, Overrides, Placement, Price, Reach,
            ReachSpec, Reaches, Readiness, ReadinessState, Reason, RegionReach, Removed, Share,
            Standing, Time, Unserved,
        },
    },
    audit,
    check::{CheckUrl, Outcome},
    id::{AgentId, CheckId, OverrideId, RegionId, ResourceId, ServiceId},
    time::Timestamp,
};
use serde_json::json;

fn region(id: &str) -> RegionId {
    RegionId::parse(id).unwrap()
}

fn time() -> Time {
    Time(Timestamp::parse_rfc3339("2026-11-20T03:12:11Z").unwrap())
}

fn drained() -> Override {
    Override {
        override_id: OverrideId::parse("o-1").unwrap(),
        version: 7,
        who: "mara".to_owned(),
        at: time(),
        spec: OverrideSpec {
            rule: OverrideRule::Drain,
            region: Some(region("oregon")),
            service: None,
            primary_region: None,
            suspect: false,
            until: time(),
            why: "new switches".to_owned(),
        },
        summary: "oregon is drained until then, says mara: new switches".to_owned(),
    }
}

#[test]
fn by_which_prefixes_a_region_is_reached_is_set_and_shown() {
    let reach = Reach {
        region_id: region("oregon"),
        version: 3,
        who: "mara".to_owned(),
        at: time(),
        spec: ReachSpec {
            prefixes: vec!["198.51.100.0/24".parse().unwrap()],
            origins: vec![64_500],
            why: String::new(),
        },
    };
    let reaches = Reaches {
        regions: vec![
            RegionReach {
                region_id: region("ireland"),
                prefixes: Vec::new(),
                origins: Vec::new(),
                who: None,
            },
            RegionReach {
                region_id: region("oregon"),
                prefixes: reach.spec.prefixes.clone(),
                origins: vec![64_500],
                who: Some("mara".to_owned()),
            },
        ],
        version: 3,
    };
    let server = Server::new(vec![
        ok("/v1/bgp/reach/oregon", &reach),
        ok("/v1/bgp/reach", &reaches),
    ]);
    let set = ["bgp", "reach", "set", "oregon", "--prefix"];
    let wrong = server
        .leeward(&[&set[..], &["198.51.100.1/24"]].concat())
        .expect(2);
    assert!(wrong.err.contains("is not a prefix"), "{}", wrong.err);
    let done = server
        .leeward(&[&set[..], &["198.51.100.0/24", "--origin", "64500"]].concat())
        .expect(0);
    assert!(done.out.contains("oregon"), "{}", done.out);
    assert!(
        server
            .last_request()
            .contains(r#""prefixes":["198.51.100.0/24"],"origins":[64500]"#)
    );
    let shown = server.leeward(&["bgp", "reach"]).expect(0);
    assert!(
        shown.out.contains("learned from agents' addresses"),
        "{}",
        shown.out
    );
    assert!(shown.out.contains("AS64500"), "{}", shown.out);
}

#[test]
fn a_drain_needs_a_reason_and_an_end_and_can_be_tried_without_doing_it() {
    let server = Server::new(vec![ok("/v1/overrides", &drained())]);
    server
        .leeward(&["drain", "oregon", "--for", "2h"])
        .expect(2);
    server.leeward(&["drain", "oregon", "--why", "x"]).expect(2);
    let blank = server
        .leeward(&["drain", "oregon", "--why", " ", "--for", "2h"])
        .expect(2);
    assert!(blank.err.contains("why is empty"), "{}", blank.err);
    let tried = server
        .leeward(&[
            "drain",
            "oregon",
            "--why",
            "x",
            "--for",
            "2h",
            "--dry-run",
            "-o",
            "json",
        ])
        .expect(0);
    assert_eq!(tried.json()["rule"], "drain");
    assert_eq!(server.last_request(), "");
    let done = server
        .leeward(&["drain", "oregon", "--why", "new switches", "--for", "2h"])
        .expect(0);
    assert!(
        done.out.contains("leeward override lift o-1"),
        "{}",
        done.out
    );
    let request = server.last_request();
    assert!(request.starts_with("POST /v1/overrides"), "{request}");
    assert!(
        request.to_ascii_lowercase().contains("idempotency-key: "),
        "{request}"
    );
}

#[test]
fn a_pin_needs_to_know_whose_selection_it_is() {
    leeward(&["pin", "oregon", "--why", "x", "--for", "1h"]).expect(2);
    leeward(&[
        "pin",
        "oregon",
        "--service",
        "a",
        "--primary",
        "b",
        "--why",
        "x",
        "--for",
        "1h",
    ])
    .expect(2);
}

#[test]
fn overrides_are_listed_and_lifted_with_a_reason() {
    let list = Overrides {
        overrides: vec![drained()],
        version: 7,
    };
    let removed = Removed {
        version: 8,
        file: Some("works.toml".to_owned()),
    };
    let server = Server::new(vec![
        ok("/v1/overrides", &list),
        ok("/v1/overrides/o-1?why=it%20is%20done", &removed),
    ]);
    let said = server.leeward(&["override"]).expect(0);
    assert!(
        said.out.contains("o-1  drain  oregon  everybody"),
        "{}",
        said.out
    );
    let said = server
        .leeward(&[
            "override",
            "lift",
            "o-1",
            "--why",
            "it is done",
            "--if-version",
            "7",
        ])
        .expect(0);
    assert!(
        said.err.contains("works.toml still defines it"),
        "{}",
        said.err
    );
    let request = server.last_request();
    assert!(
        request.to_ascii_lowercase().contains("if-match: \"7\""),
        "{request}"
    );
}

#[test]
fn what_was_changed_meanwhile_is_a_precondition() {
    let conflict = Problem::new(
        Code::PreconditionFailed,
        "changed meanwhile",
        "read it again",
    );
    let server = Server::new(vec![problem("/v1/overrides/o-1", &conflict)]);
    server
        .leeward(&["override", "lift", "o-1", "--if-version", "3"])
        .expect(6);
}

#[test]
fn a_file_of_services_is_put_and_a_fault_in_it_is_named_without_asking_anybody() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("services.toml");
    let name = path.to_str().unwrap().to_owned();
    let answer = json!({"service_id": "checkout", "version": 3, "who": "mara", "at": "2026-11-20T03:12:11Z",
        "spec": {"home": "virginia", "limits": {"latency_p99": "120ms"}}});
    let server = Server::new(vec![ok("/v1/services/checkout", &answer)]);
    std::fs::write(
        &path,
        "[[service]]\nid = \"checkout\"\nhome = \"virginia\"\nlimits = { loss_ratio = 8 }\n",
    )
    .unwrap();
    let said = server.leeward(&["service", "put", &name]).expect(2);
    assert!(
        said.err
            .contains("services.toml:4:25: service checkout: limits.loss_ratio is 8"),
        "{}",
        said.err
    );
    leeward(&["config", "check", &name]).expect(3);
    std::fs::write(
        &path,
        "[[service]]\nid = \"checkout\"\nhome = \"virginia\"\n",
    )
    .unwrap();
    leeward(&["config", "check", &name]).expect(0);
    server
        .leeward(&["service", "put", &name, "--dry-run"])
        .expect(0);
    assert_eq!(server.last_request(), "");
    let said = server
        .leeward(&["service", "put", &name, "--if-version", "2"])
        .expect(0);
    assert!(
        said.out.contains("checkout        3  virginia"),
        "{}",
        said.out
    );
    assert!(
        server
            .last_request()
            .starts_with("PUT /v1/services/checkout")
    );
    // What is shown can be put again.
    let shown = server.leeward(&["service", "show", "checkout"]).expect(0);
    std::fs::write(&path, &shown.out).unwrap();
    leeward(&["config", "check", &name]).expect(0);
    server
        .leeward(&[
            "service",
            "put",
            folder.path().join("none").to_str().unwrap(),
        ])
        .expect(5);
}

#[test]
fn capacity_that_is_overtaken_is_bad_news() {
    let account = |free: f64| Account {
        region_id: region("oregon"),
        resource_id: ResourceId::parse("vcpu").unwrap(),
        offered: Some(100.0),
        kept: 10.0,
        reserved: 0.0,
        used: 90.0 - free,
        free: Some(free),
    };
    let capacity = |free| Capacity {
        accounts: vec![account(free)],
        offers: Vec::new(),
        reservations: Vec::new(),
        version: 1,
        evaluated_at: time(),
    };
    let good = Server::new(vec![ok("/v1/capacity", &capacity(12.5))]);
    let said = good.leeward(&["capacity", "--check"]).expect(0);
    assert!(said.out.contains("12.5"), "{}", said.out);
    Server::new(vec![ok("/v1/capacity", &capacity(-1.0))])
        .leeward(&["capacity", "ls", "--check"])
        .expect(3);
    good.leeward(&[
        "capacity", "reserve", "r", "--region", "oregon", "--amount", "vcpu=1",
    ])
    .expect(2);
    good.leeward(&[
        "capacity", "offer", "o", "--region", "oregon", "--amount", "vcpu",
    ])
    .expect(2);
}

#[test]
fn a_placement_shows_what_would_not_run_and_what_room_is_worth() {
    let share = |region_id: &str, share| Share {
        region_id: region(region_id),
        share,
    };
    let placement = Placement {
        failed: [region("virginia")].into(),
        summary: "without virginia, 1 service would move".to_owned(),
        services: vec![Fate {
            service_id: ServiceId::parse("checkout").unwrap(),
            priority: 1,
            before: vec![share("virginia", 1.0)],
            after: vec![share("oregon", 0.5), share("ireland", 0.25)],
            unserved: Some(Unserved {
                share: 0.25,
                because: "no room".to_owned(),
            }),
        }],
        loads: vec![Load {
            region_id: region("oregon"),
            resource_id: ResourceId::parse("vcpu").unwrap(),
            offered: Some(100.0),
            usable: Some(90.0),
            before: 0.0,
            after: 90.0,
            price: Some(Price {
                priority: Some(1),
                serves: 0.01,
                saves: 0.0,
            }),
        }],
        graph_version: 1,
        policy_version: "p".to_owned(),
        evaluated_at: time(),
    };
    let server = Server::new(vec![ok("/v1/placements", &placement)]);
    let said = server
        .leeward(&["placement", "--failed", "virginia"])
        .expect(0);
    for words in [
        "without virginia",
        "oregon 50 %, ireland 25 %",
        "25 %  no room",
        "serve 0.01 more of priority 1",
    ] {
        assert!(said.out.contains(words), "{words}\n{}", said.out);
    }
    server
        .leeward(&["placement", "--failed", "virginia", "--check"])
        .expect(3);
    leeward(&["placement"]).expect(2);
}

#[test]
fn a_region_that_is_not_ready_says_why() {
    let readiness = Readiness {
        standings: vec![Standing {
            service_id: ServiceId::parse("ledger").unwrap(),
            region_id: region("oregon"),
            readiness: ReadinessState::NotReady,
            since: time(),
            reasons: vec![Reason {
                code: "replica_behind".to_owned(),
                detail: "the data lags 41 s behind".to_owned(),
            }],
            checks: vec![CheckStanding {
                check_id: CheckId::parse("api").unwrap(),
                url: CheckUrl::parse("https://ledger.example/healthz").unwrap(),
                finding: CheckFinding::Fails,
                vantage_points: vec![CheckVantage {
                    region_id: region("virginia"),
                    agent_id: AgentId::parse("virginia-1").unwrap(),
                    outcome: Outcome::Status,
                    detail: "status 503".to_owned(),
                    latency_us: 12_300,
                    age_ms: 4_000,
                    counts: true,
                }],
            }],
        }],
        history: Vec::new(),
        evaluated_at: time(),
    };
    let server = Server::new(vec![ok(
        "/v1/readiness?history=0&service=ledger",
        &readiness,
    )]);
    let said = server.leeward(&["readiness", "ledger"]).expect(0);
    assert!(
        said.out.contains("the data lags 41 s behind"),
        "{}",
        said.out
    );
    server
        .leeward(&["readiness", "ledger", "--check"])
        .expect(3);
    let said = server.leeward(&["readiness", "ledger", "--checks", "-o", "wide"]);
    let said = said.expect(0);
    for words in [
        "api",
        "fails",
        "virginia-1 status 503",
        "https://ledger.example/healthz",
    ] {
        assert!(said.out.contains(words), "{words}\n{}", said.out);
    }
    server
        .leeward(&["readiness", "ledger", "--checks", "--check"])
        .expect(3);
    leeward(&["readiness", "--checks", "--history"]).expect(2);
}

fn log(length: u64) -> Vec<AuditEntry> {
    let mut previous = audit::START;
    let entry = |sequence| {
        let mut entry = AuditEntry {
            sequence,
            at: time(),
            who: "mara".to_owned(),
            why: "new switches".to_owned(),
            what: "put".to_owned(),
            about: "override works".to_owned(),
            version: sequence,
            detail: String::new(),
            previous: audit::hex(&previous),
            hash: String::new(),
        };
        previous = audit::hash(&previous, &entry);
        entry.hash = audit::hex(&previous);
        entry
    };
    (1..=length).map(entry).collect()
}

#[test]
fn a_log_that_was_tampered_with_is_bad_news_and_says_where() {
    let page = |entries: &[AuditEntry], whole: &[AuditEntry], next| Audit {
        entries: entries.to_vec(),
        length: whole.len() as u64,
        head: whole.last().unwrap().hash.clone(),
        next,
    };
    let whole = log(4);
    let pages = |log: &[AuditEntry]| {
        Server::new(vec![
            ok(
                "/v1/audit?after=0&limit=1000",
                &page(&log[..2], &whole, Some(2)),
            ),
            ok(
                "/v1/audit?after=2&limit=1000",
                &page(&log[2..], &whole, None),
            ),
            ok("/v1/audit?limit=20", &page(log, &whole, None)),
        ])
    };
    let server = pages(&whole);
    let said = server.leeward(&["audit", "verify"]).expect(0);
    assert!(
        said.out.starts_with("4 entries, all as they were written"),
        "{}",
        said.out
    );
    let listed = server.leeward(&["audit"]).expect(0);
    assert!(listed.err.contains(&whole[3].hash), "{}", listed.err);
    let mut forged = whole.clone();
    forged[2].who = "eve".to_owned();
    let said = pages(&forged).leeward(&["audit", "verify"]).expect(3);
    assert!(said.out.contains("entry 3 was changed"), "{}", said.out);

    // An export says the same, and a head that was noted elsewhere pins its end.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let name = path.to_str().unwrap();
    let export = server.leeward(&["audit", "export"]).expect(0).out;
    assert_eq!(export.lines().count(), 4);
    std::fs::write(&path, &export).unwrap();
    leeward(&["audit", "verify", "--file", name, "--head", &whole[3].hash]).expect(0);
    let cut: Vec<&str> = export.lines().take(3).collect();
    std::fs::write(&path, cut.join("\n")).unwrap();
    leeward(&["audit", "verify", "--file", name]).expect(0);
    let said = leeward(&["audit", "verify", "--file", name, "--head", &whole[3].hash]).expect(3);
    assert!(
        said.out.contains("its end was replaced or cut off"),
        "{}",
        said.out
    );
}
