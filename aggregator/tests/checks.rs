//! Checks over the real wire: who is asked to ask, what becomes of the answers, and that a restart forgets none.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use leeward_aggregator::{
    intent::{Asked, Condition, What},
    run::Running,
};
use leeward_common::{
    api::v1::{CheckFinding, Readiness, ReadinessState},
    check::Outcome,
    config::Document,
    definitions,
    id::{RegionId, ServiceId},
    wire::v1::{Check, CheckResult, CheckResults, FromAgent, Mesh},
};
use leeward_engine::{checks::Finding, gate::RefusalCode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use support::{Agent, Installation, counter, until};

const SHOP: &str = "
    [[service]]
    id = 'shop'
    home = 'iad'
    [service.checks.api]
    at = { dub = 'https://shop.example/healthz', iad = 'tcp://192.0.2.1:80' }
    body = 'welcome'
";

async fn define(running: &Running) {
    let document = Document {
        file: "shop.toml",
        text: SHOP,
    };
    let entry = definitions::parse(&document).unwrap().swap_remove(0);
    let asked = Asked {
        who: "mara".to_owned(),
        why: String::new(),
        what: What::Put(entry.defined),
        condition: Condition::Any,
    };
    running.shared.turn.change(asked).await.unwrap().unwrap();
}

async fn mesh_with_checks(agent: &mut Agent) -> Mesh {
    loop {
        let mesh = agent.mesh().await;
        if !mesh.checks.is_empty() {
            return mesh;
        }
    }
}

fn answer(check: &Check, outcome: Outcome, detail: &str) -> FromAgent {
    FromAgent::CheckResults(CheckResults {
        results: vec![CheckResult {
            service: check.service.clone(),
            check: check.check.clone(),
            region: check.region.clone(),
            question: check.question,
            outcome,
            latency_us: 12_000,
            age_us: 1_000,
            detail: detail.to_owned(),
        }],
    })
}

/// What the API says of the shop.
async fn readiness(running: &Running) -> Readiness {
    let mut stream = TcpStream::connect(running.api).await.unwrap();
    let request = "GET /v1/readiness?service=shop HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap()
}

/// What is found in Dublin, in words.
fn found(running: &Running) -> Option<(Finding, String)> {
    let view = running.shared.view.load_full();
    let (id, region) = (
        ServiceId::parse("shop").unwrap(),
        RegionId::parse("dub").unwrap(),
    );
    let service = &view.intents.services.get(&id)?.what;
    let found = view
        .checks
        .findings(view.now, &id, service, &region)
        .next()?;
    Some((found.finding, found.words()))
}

fn is_refused(running: &Running, code: RefusalCode) -> bool {
    let view = running.shared.view.load_full();
    let standing = view.readiness.get("shop").and_then(|own| own.get("dub"));
    standing.is_some_and(|own| own.reasons.iter().any(|own| own.code == code))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_agent_of_another_region_finds_is_judged_and_survives_a_restart() {
    let installation = Installation::new();
    let running = installation.start().await;
    let mut iad = installation.agent(running.agents, "iad", "iad-1", 1).await;
    let mut dub = installation.agent(running.agents, "dub", "dub-1", 1).await;
    define(&running).await;
    let (asked, other) = (
        mesh_with_checks(&mut iad).await,
        mesh_with_checks(&mut dub).await,
    );
    let [check] = &asked.checks[..] else {
        panic!("{:?}", asked.checks);
    };
    assert_eq!(
        (check.region.as_str(), &*check.url, check.body.as_deref()),
        ("dub", "https://shop.example/healthz", Some("welcome"))
    );
    assert_eq!(other.checks[0].region.as_str(), "iad");
    until("silence is noticed", || {
        is_refused(&running, RefusalCode::Unchecked)
    })
    .await;

    iad.say(&answer(check, Outcome::Status, "status\n503"))
        .await;
    until("the failure is known", || {
        is_refused(&running, RefusalCode::CheckFailed)
    })
    .await;
    let expected = "check api fails from 1 of 1 regions: iad (status 503)".to_owned();
    assert_eq!(found(&running), Some((Finding::Fails, expected.clone())));
    let readiness = readiness(&running).await;
    let of = |at: &str| {
        readiness
            .standings
            .iter()
            .find(|own| own.region_id.as_str() == at)
    };
    let there = of("dub").unwrap();
    assert_eq!(there.readiness, ReadinessState::NotReady);
    assert!(there.reasons.iter().any(|own| own.code == "check_failed"));
    let own = &there.checks[0];
    assert_eq!(
        (own.check_id.as_str(), own.finding),
        ("api", CheckFinding::Fails)
    );
    let vantage = &own.vantage_points[0];
    assert_eq!(
        (
            vantage.agent_id.as_str(),
            vantage.outcome,
            &*vantage.detail,
            vantage.latency_us
        ),
        ("iad-1", Outcome::Status, "status 503", 12_000)
    );
    assert!(
        of("pdx").unwrap().checks.is_empty(),
        "nobody is asked about it"
    );
    // Whoever answers a question about its own region, or another question, has no say.
    dub.say(&answer(check, Outcome::Ok, "")).await;
    let other_question = Check {
        question: check.question ^ 1,
        ..check.clone()
    };
    iad.say(&answer(&other_question, Outcome::Ok, "")).await;
    until("both arrived", || {
        counter(
            &running,
            "leeward_aggregator_check_results_total{agent=\"iad-1\",outcome=\"ok\"}",
        ) == 1
            && counter(
                &running,
                "leeward_aggregator_check_results_total{agent=\"dub-1\",outcome=\"ok\"}",
            ) == 1
    })
    .await;
    running.stop().await;

    let running = installation.start().await;
    assert_eq!(found(&running), Some((Finding::Fails, expected)));
    let mut iad = installation.agent(running.agents, "iad", "iad-1", 2).await;
    let asked = mesh_with_checks(&mut iad).await;
    iad.say(&answer(&asked.checks[0], Outcome::Ok, "")).await;
    until("it passes again", || {
        found(&running).is_some_and(|own| own.0 == Finding::Passes)
    })
    .await;
    running.stop().await;
}
