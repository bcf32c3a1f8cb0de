//! Questions to a server: what people and programs get, and which exit code goes with it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::{io::Write, sync::Mutex};

use common::{Canned, Server, closed, command, leeward, ok, problem, silent};
use leeward_common::{
    api::{
        problem::{Code, Problem},
        v1::{
            Agents, AuditHead, Decisions, Explanation, Failover, FailoverLine, FaultKind,
            FaultPlace, Faults, Hesitation, Hesitations, LocatedFault, NotCounted, Overview,
            RelayPath, Route, RouteAdvice, RoutePath, Routes, Signal, Signals, State, Tally, Time,
            Waiting,
        },
    },
    id::{RegionId, SourceId},
    time::Timestamp,
};

/// An answer of the aggregator, as its own tests write it down.
const FAILOVER: &str = include_str!("../../aggregator/src/http/tests/failover_virginia.json");

fn failover() -> Failover {
    serde_json::from_str(FAILOVER).unwrap()
}

/// The same with nothing that would change it.
fn explained(failover: &Failover) -> Explanation {
    Explanation {
        failover: failover.clone(),
        would_change_if: Vec::new(),
    }
}

fn region(id: &str) -> RegionId {
    RegionId::parse(id).unwrap()
}

fn time() -> Time {
    Time(Timestamp::parse_rfc3339("2026-11-20T03:12:11Z").unwrap())
}

fn overview(state: State) -> Overview {
    let line = |primary: &str, selected: Option<&str>, state| FailoverLine {
        primary_region: region(primary),
        selected_region: selected.map(region),
        state,
        summary: format!("about {primary}"),
        decided_at: Some(time()),
        next_best: Some(region("ireland")),
        margin: Some(1.5),
    };
    Overview {
        summary: "Oregon is down.".to_owned(),
        state,
        facts: Vec::new(),
        counts: Tally {
            regions: 2,
            agents: 3,
            agents_counted: 2,
            ..Tally::default()
        },
        failovers: vec![
            line("virginia", Some("oregon"), State::Ok),
            line("oregon", None, state),
        ],
        aggregator: "main".to_owned(),
        build: "0.1.0".to_owned(),
        graph_version: 7,
        policy_version: "0123456789abcdef".to_owned(),
        evaluated_at: time(),
        data_age_ms: Some(800),
        stale: false,
        fail_static: None,
        audit: AuditHead {
            sequence: 41,
            hash: "9f3a".repeat(16),
        },
    }
}

#[test]
fn status_is_the_sentence_its_facts_and_what_to_ask_next() {
    let server = Server::new(vec![ok("/v1/overview", &overview(State::Bad))]);
    let said = server.leeward(&["status"]).expect(0);
    assert!(
        said.out
            .starts_with("✕ Oregon is down.      03:12:11 UTC, data 0.8 s old\n"),
        "{}",
        said.out
    );
    assert!(
        said.out.contains("3 agents    2 counted   1 not counted"),
        "{}",
        said.out
    );
    assert!(
        said.out.contains("next: leeward failover explain oregon"),
        "{}",
        said.out
    );
    assert!(
        said.out.contains("audit       entry 41, 9f3a9f3a"),
        "{}",
        said.out
    );
    assert_eq!(said.err, "");
}

#[test]
fn faults_say_where_since_when_who_sees_them_and_whose_view_does_not_count() {
    let fault = LocatedFault {
        place: FaultPlace::Link,
        kind: FaultKind::Grey,
        region_id: region("oregon"),
        to_region_id: Some(region("virginia")),
        agent_id: None,
        target_id: None,
        loss_ratio: 0.083,
        since: time(),
        seen_by: 4,
        observers: 4,
        detail: "8.3 % is lost between oregon and virginia".to_owned(),
    };
    let faults = Faults {
        summary: "8.3 % is lost between oregon and virginia.".to_owned(),
        state: State::Degraded,
        faults: vec![fault],
        not_counted: vec![NotCounted {
            agent_id: leeward_common::id::AgentId::parse("dub-1").unwrap(),
            region_id: region("ireland"),
            code: "suspect".to_owned(),
            detail: "by its own account it could not probe as it should".to_owned(),
            since: Some(time()),
        }],
        agents_counted: 7,
        fail_static: None,
        graph_version: 7,
        evaluated_at: time(),
        stale: false,
    };
    let server = Server::new(vec![ok("/v1/faults", &faults)]);
    let said = server.leeward(&["faults"]).expect(0);
    for words in [
        "▲ 8.3 % is lost between oregon and virginia.",
        "counted      7 of 8 agents",
        "dub-1 in ireland: by its own account it could not probe as it should, since 03:12:11 UTC",
        "oregon - virginia",
        "4 of 4",
    ] {
        assert!(said.out.contains(words), "{words}\n{}", said.out);
    }
    server.leeward(&["faults", "--check"]).expect(3);
}

#[test]
fn what_was_not_done_is_listed_like_what_was() {
    let hesitation = Hesitation {
        at: time(),
        primary_region: Some(region("virginia")),
        service_id: None,
        selected_region: Some(region("oregon")),
        waiting: Waiting {
            code: "held".to_owned(),
            region_id: Some(region("ireland")),
            until: Some(time()),
            detail: "virginia stays with oregon".to_owned(),
        },
        ruled_out: false,
        summary: "virginia stays with oregon".to_owned(),
    };
    let told = Hesitations {
        hesitations: vec![hesitation],
    };
    let server = Server::new(vec![ok("/v1/hesitations?limit=20", &told)]);
    let said = server.leeward(&["failover", "hesitations"]).expect(0);
    assert!(said.out.contains("held"), "{}", said.out);
    assert!(
        said.out.contains("virginia stays with oregon"),
        "{}",
        said.out
    );
}

#[test]
fn bad_news_are_an_exit_code_only_when_asked_for() {
    let bad = Server::new(vec![ok("/v1/overview", &overview(State::Bad))]);
    bad.leeward(&["status"]).expect(0);
    bad.leeward(&["status", "--check"]).expect(3);
    bad.leeward(&["failover", "rank", "--check"]).expect(3);
    let good = Server::new(vec![ok("/v1/overview", &overview(State::Ok))]);
    good.leeward(&["status", "--check"]).expect(0);
    let stale = Overview {
        stale: true,
        ..overview(State::Ok)
    };
    Server::new(vec![ok("/v1/overview", &stale)])
        .leeward(&["status", "--check"])
        .expect(3);
}

#[test]
fn an_answer_of_the_real_aggregator_is_read_and_ranked() {
    let server = Server::new(vec![
        ok("/v1/failover/virginia", &failover()),
        ok("/v1/failover/virginia/explanation", &explained(&failover())),
    ]);
    let said = server.leeward(&["failover", "rank", "virginia"]).expect(0);
    let failover = failover();
    assert!(said.out.starts_with(&failover.summary), "{}", said.out);
    for candidate in &failover.candidates {
        assert!(
            said.out.contains(candidate.region_id.as_str()),
            "{}",
            said.out
        );
    }
    let explained = server
        .leeward(&["failover", "explain", "virginia"])
        .expect(0);
    for word in [
        "distance",
        "latency p50",
        "loss",
        "= score",
        "held",
        "decided",
        "before",
    ] {
        assert!(explained.out.contains(word), "{word}\n{}", explained.out);
    }
}

#[test]
fn every_form_is_for_somebody() {
    let failover = failover();
    let server = Server::new(vec![
        ok("/v1/failover/virginia", &failover),
        ok("/v1/failover/virginia/explanation", &explained(&failover)),
    ]);
    let ask = |form: &str| {
        server
            .leeward(&["failover", "rank", "virginia", "-o", form])
            .expect(0)
    };
    assert_eq!(
        serde_json::from_value::<Failover>(ask("json").json()).unwrap(),
        failover
    );
    let lines = ask("jsonl").out;
    assert_eq!(lines.lines().count(), failover.candidates.len());
    assert!(
        lines
            .lines()
            .all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok())
    );
    let csv = ask("csv").out;
    assert!(
        csv.starts_with("rank,region,score,norm,baseline,network,"),
        "{csv}"
    );
    assert_eq!(csv.lines().count(), failover.candidates.len() + 1);
    let names = ask("name").out;
    let regions: Vec<&str> = failover
        .candidates
        .iter()
        .map(|one| one.region_id.as_str())
        .collect();
    assert_eq!(names.lines().collect::<Vec<_>>(), regions);
    assert!(ask("wide").out.contains("BANDWIDTH"));
    let said = server
        .leeward(&["failover", "explain", "virginia", "-o", "csv"])
        .expect(2);
    assert!(said.err.contains("use -o table or -o json"), "{}", said.err);
}

#[test]
fn not_enough_known_has_its_own_exit_code() {
    let pending = Failover {
        selected_region: None,
        state: State::Pending,
        candidates: Vec::new(),
        ..failover()
    };
    let server = Server::new(vec![
        ok("/v1/failover/virginia", &pending),
        ok("/v1/failover/virginia/explanation", &explained(&pending)),
    ]);
    server.leeward(&["failover", "rank", "virginia"]).expect(7);
    server
        .leeward(&["failover", "explain", "virginia"])
        .expect(7);
}

#[test]
fn a_problem_is_said_with_what_to_do_and_its_exit_code() {
    let mut unknown = Problem::new(
        Code::UnknownRegion,
        "there is no region \"virgina\"",
        "use one of the near names",
    );
    unknown.near = vec!["virginia".to_owned()];
    let server = Server::new(vec![
        problem("/v1/failover/virgina", &unknown),
        problem(
            "/v1/overview",
            &Problem::new(Code::Unavailable, "not now", "later"),
        ),
        problem(
            "/v1/agents",
            &Problem::new(Code::Internal, "a defect", "report it"),
        ),
    ]);
    let said = server.leeward(&["failover", "rank", "virgina"]).expect(5);
    assert_eq!(said.out, "");
    assert!(
        said.err
            .starts_with("error: there is no region \"virgina\"\n"),
        "{}",
        said.err
    );
    assert!(
        said.err.contains("do     did you mean virginia?"),
        "{}",
        said.err
    );
    server.leeward(&["status"]).expect(7);
    server.leeward(&["agent", "ls"]).expect(1);
}

#[test]
fn a_server_that_cannot_be_reached_says_where_it_was_looked_for() {
    let address = closed();
    let said = leeward(&["status", "--server", &format!("http://{address}")]).expect(1);
    assert!(
        said.err
            .contains(&format!("cannot reach the aggregator at http://{address}")),
        "{}",
        said.err
    );
    assert!(said.err.contains("LEEWARD_SERVER"), "{}", said.err);
    leeward(&["status", "--server", "agg:8611"]).expect(2);
}

#[test]
fn a_server_that_says_nothing_is_not_waited_for() {
    let said = leeward(&[
        "status",
        "--server",
        &format!("http://{}", silent()),
        "--timeout",
        "200ms",
    ])
    .expect(8);
    assert!(
        said.err.contains("did not answer within 200ms"),
        "{}",
        said.err
    );
}

#[test]
fn something_else_than_an_aggregator_is_told() {
    let odd = Canned {
        path: "/v1/overview",
        status: 200,
        media_type: "text/html",
        body: "<html>".to_owned(),
    };
    let said = Server::new(vec![odd]).leeward(&["status"]).expect(1);
    assert!(
        said.err.contains("is this an aggregator's API"),
        "{}",
        said.err
    );
}

#[test]
fn an_empty_list_is_no_failure_and_says_what_would_fill_it() {
    let server = Server::new(vec![
        ok("/v1/agents", &Agents { agents: Vec::new() }),
        ok(
            "/v1/decisions?limit=5&primary_region=virginia",
            &Decisions {
                decisions: Vec::new(),
                next_before: None,
            },
        ),
    ]);
    let said = server.leeward(&["agent", "ls"]).expect(0);
    assert!(
        said.err.contains("no agent has registered yet"),
        "{}",
        said.err
    );
    server.leeward(&["agent", "ls", "--check"]).expect(3);
    let said = server
        .leeward(&["failover", "history", "virginia", "-n", "5"])
        .expect(0);
    assert!(said.err.contains("nothing was decided yet"), "{}", said.err);
}

const PUSH: [&str; 12] = [
    "signal", "push", "--source", "netops", "--region", "oregon", "--metric", "health", "--value",
    "0.5", "--ttl", "1m",
];

fn accepted() -> Signal {
    Signal {
        source: SourceId::parse("netops").unwrap(),
        region: Some(region("oregon")),
        from: None,
        to: None,
        service: None,
        metric: leeward_common::api::v1::Metric::Health,
        value: 0.5,
        observed_at: time(),
        expires_at: time(),
    }
}

#[test]
fn a_signal_is_sent_with_its_token_and_key() {
    let server = Server::new(vec![Canned {
        status: 201,
        ..ok("/v1/signals", &accepted())
    }]);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "secret-token").unwrap();
    let path = file.path().to_str().unwrap();
    let mut args = PUSH.to_vec();
    args.extend(["--token-file", path, "--idempotency-key", "k-1"]);
    let said = server.leeward(&args).expect(0);
    assert_eq!(
        said.out,
        "netops says health of oregon is 0.5 until 03:12:11 UTC\n"
    );
    let request = server.last_request().to_ascii_lowercase();
    assert!(
        request.contains("authorization: bearer secret-token\r\n"),
        "{request}"
    );
    assert!(request.contains("idempotency-key: k-1\r\n"), "{request}");
    assert!(
        request.ends_with(
            r#"{"source":"netops","region":"oregon","metric":"health","value":0.5,"ttl_ms":60000}"#
        ),
        "{request}"
    );
}

#[test]
fn a_token_never_shows_in_what_is_said() {
    let refused = Problem::new(Code::Forbidden, "not allowed", "use another token");
    let server = Server::new(vec![problem("/v1/signals", &refused)]);
    let output = command()
        .args(PUSH)
        .env("LEEWARD_SERVER", server.url())
        .env("LEEWARD_TOKEN", "secret-token")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(4));
    let all = [output.stdout, output.stderr].concat();
    assert!(!String::from_utf8_lossy(&all).contains("secret-token"));
    assert!(server.last_request().contains("Bearer secret-token"));
}

#[test]
fn a_dry_run_sends_nothing() {
    let server = Server::new(Vec::new());
    let mut args = PUSH.to_vec();
    args.push("--dry-run");
    let said = server.leeward(&args).expect(0);
    assert!(said.err.contains("nothing was sent"));
    assert_eq!(said.json()["ttl_ms"], 60_000);
    assert!(server.requests.lock().unwrap().is_empty());
}

#[test]
fn a_signal_is_about_one_region_or_one_link() {
    let base = [
        "signal", "push", "--source", "netops", "--metric", "health", "--value", "0.5", "--ttl",
        "1m",
    ];
    for more in [
        &[][..],
        &["--from", "a"],
        &["--region", "a", "--from", "b", "--to", "c"],
    ] {
        leeward(&[&base[..], more].concat()).expect(2);
    }
}

#[test]
fn a_stateless_question_is_sent_as_asked() {
    let server = Server::new(vec![ok("/v1/failover/evaluate", &failover())]);
    server
        .leeward(&[
            "failover",
            "rank",
            "virginia",
            "--candidates",
            "oregon,ireland",
            "--weight",
            "oregon=2",
        ])
        .expect(0);
    let request = server.last_request();
    assert!(
        request.contains(
            r#""potential_failover_regions":["oregon","ireland"],"weights":{"oregon":2.0}"#
        ),
        "{request}"
    );
    leeward(&["failover", "rank", "virginia", "--weight", "oregon=2"]).expect(2);
}

#[test]
fn colour_is_only_for_those_who_want_it() {
    let server = Server::new(vec![ok("/v1/overview", &overview(State::Bad))]);
    assert!(
        !server.leeward(&["status"]).out.contains('\x1b'),
        "a pipe gets no colour"
    );
    assert!(
        server
            .leeward(&["status", "--color", "always"])
            .out
            .contains("\x1b[1;31m")
    );
    let ascii = server.leeward(&["status", "--ascii"]).expect(0);
    assert!(ascii.out.is_ascii(), "{}", ascii.out);
    let ascii = leeward(&["help", "exit-codes", "--ascii"]).expect(0);
    assert!(ascii.out.is_ascii(), "{}", ascii.out);
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    for args in [
        &["help", "failover", "rank"][..],
        &["--help"],
        &["completions", "bash"],
    ] {
        let output = command()
            .args(args)
            .stdout(writer.try_clone().unwrap())
            .output()
            .unwrap();
        assert_eq!(
            String::from_utf8_lossy(&output.stderr),
            "",
            "nobody needs to be told"
        );
        assert_eq!(output.status.code(), Some(0));
    }
}

#[test]
fn signals_are_listed() {
    let server = Server::new(vec![ok(
        "/v1/signals",
        &Signals {
            signals: vec![accepted()],
        },
    )]);
    let said = server.leeward(&["signal", "ls", "-o", "csv"]).expect(0);
    assert_eq!(
        said.out,
        "source,about,metric,value,observed,until\nnetops,oregon,health,0.5,2026-11-20 03:12:11,2026-11-20 03:12:11\n"
    );
}

/// An API with a certificate of our own authority: `leeward pki` makes it, `--ca` trusts it, nothing else does.
#[test]
fn a_certificate_of_our_own_authority_is_trusted_with_ca_and_not_without() {
    use std::sync::Arc;

    let directory = tempfile::tempdir().unwrap();
    let pki = directory.path().join("pki");
    let dir = pki.to_str().unwrap();
    leeward(&["pki", "init", dir]).expect(0);
    leeward(&[
        "pki",
        "issue",
        "aggregator",
        "--name",
        "main",
        "--host",
        "localhost",
        "--dir",
        dir,
    ])
    .expect(0);
    let config = common_tls::server(
        &pki.join("aggregator-main.pem"),
        &pki.join("aggregator-main.key"),
    );
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let session = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let answers = [ok("/v1/overview", &overview(State::Ok))];
            common::serve(
                rustls::StreamOwned::new(session, stream),
                &answers,
                &Mutex::new(Vec::new()),
            );
        }
    });
    let server = format!("https://localhost:{port}");
    let ca = pki.join("ca.pem");
    leeward(&["status", "--server", &server, "--ca", ca.to_str().unwrap()]).expect(0);
    let said = leeward(&["status", "--server", &server]).expect(1);
    assert!(
        said.err.contains("--ca FILE trusts its certificate"),
        "{}",
        said.err
    );
}

mod common_tls {
    use std::{path::Path, sync::Arc};

    use rustls::{
        ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    };

    pub(super) fn server(certificate: &Path, key: &Path) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let chain = CertificateDer::pem_file_iter(certificate)
            .unwrap()
            .map(Result::unwrap)
            .collect();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, PrivateKeyDer::from_pem_file(key).unwrap())
            .unwrap();
        Arc::new(config)
    }
}

fn route(from: &str, to: &str, advice: RouteAdvice, gain_us: f64) -> Route {
    let path = |latency_us: f64| RoutePath {
        latency_us,
        latency_p99_us: latency_us,
        jitter_us: 0.0,
        packet_loss: 0.0,
        bandwidth_bps: None,
        weight: 0.5,
    };
    Route {
        from: region(from),
        to: region(to),
        advice,
        detail: format!("about {to}"),
        direct: Some(path(100_000.0)),
        relay: Some(RelayPath {
            region_id: region("ireland"),
            path: path(100_000.0 - gain_us),
            gain_us: Some(gain_us),
            gain_log: Some(gain_us / 1e5),
        }),
    }
}

#[test]
fn routes_show_where_a_relay_is_better() {
    let routes = Routes {
        graph_version: 7,
        policy_version: "0123456789abcdef".to_owned(),
        evaluated_at: time(),
        stale: false,
        routes: vec![
            route("virginia", "oregon", RouteAdvice::Direct, -12_000.0),
            route("virginia", "tokyo", RouteAdvice::Relay, 25_000.0),
        ],
    };
    let server = Server::new(vec![
        ok("/v1/graph/routes", &routes),
        ok("/v1/graph/routes?from=virginia", &routes),
        ok("/v1/graph/routes?from=virginia&to=oregon", &routes),
    ]);
    let said = server.leeward(&["graph", "routes"]).expect(0);
    assert!(said.out.contains("tokyo"), "{}", said.out);
    assert!(!said.out.contains("oregon"), "{}", said.out);
    assert!(
        said.out.contains("1 pair best left straight"),
        "{}",
        said.out
    );
    let said = server.leeward(&["graph", "routes", "virginia"]).expect(0);
    assert!(said.out.contains("oregon"), "{}", said.out);
    server
        .leeward(&["graph", "routes", "virginia", "oregon", "--check"])
        .expect(3);
}
