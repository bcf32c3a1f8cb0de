//! The binary as an operator meets it: `--check`, readiness and watchdog, a graceful end, and the end that is not.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
    os::unix::net::UnixDatagram,
    process::{Command, Output},
    time::Duration,
};

use leeward_aggregator::{
    replay::{Question, replay},
    store::{
        self, Read as _, journal_end,
        key::{Column, Position},
        record::v1,
        rocks::Rocks,
    },
};
use leeward_common::wire::{batch, frame, v1::FromAggregator};
use support::{
    Agent, DEADLINE, Installation,
    daemon::{Aggregator, REGIONS, TOKEN, command},
    path,
};

fn check(installation: &Installation) -> Output {
    command(installation).arg("--check").output().unwrap()
}

#[test]
fn check_accepts_what_a_start_would_and_starts_nothing() {
    let installation = Installation::new();
    let output = check(&installation);
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).ends_with("aggregator.toml: ok\n"));
    assert!(support::is_empty(&installation.data()));
}

#[test]
fn check_names_the_place_of_a_fault_on_one_line() {
    let installation = Installation::new();
    installation.write_config(
        "[::1]:0",
        "127.0.0.1:0",
        "[[region]]\nid = 'Iad'\nlatitude = 1\nlongitude = 1",
    );
    let output = check(&installation);
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        error.contains("aggregator.toml:10:6: \"Iad\" is not a region id"),
        "{error}"
    );
    assert_eq!(error.lines().count(), 1, "{error}");
}

#[test]
fn systemd_hears_of_readiness_of_progress_and_of_the_end() {
    let installation = Installation::new();
    let path = installation.dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let hear = || {
        let mut message = [0; 256];
        let length = socket.recv(&mut message).unwrap();
        String::from_utf8_lossy(&message[..length])
            .trim()
            .to_owned()
    };
    let aggregator = Aggregator::start(&installation, Some(&path));
    assert_eq!(hear(), "READY=1");
    assert_eq!(hear(), "WATCHDOG=1");
    assert_eq!(hear(), "WATCHDOG=1");
    aggregator.terminate();
    let last = std::iter::from_fn(|| Some(hear())).find(|message| message != "WATCHDOG=1");
    assert_eq!(last.as_deref(), Some("STOPPING=1"));
}

#[test]
fn a_second_process_on_the_same_data_is_refused() {
    let installation = Installation::new();
    let _first = Aggregator::start(&installation, None);
    let output = command(&installation).output().unwrap();
    assert!(!output.status.success());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("cannot open the store in"), "{error}");
}

/// What one life of the aggregator acknowledged, until it is killed some time after the first acknowledgement.
async fn live(
    installation: &Installation,
    life: u64,
    unacknowledged: &mut BTreeSet<u64>,
    next: &mut u64,
) -> Vec<u64> {
    let mut aggregator = Aggregator::start(installation, None);
    let mut agent = installation
        .agent(aggregator.agents, "iad", "iad-1", 1)
        .await;
    agent.announce(1, vec![path("dub-1.v4", "dub")]).await;
    for &sequence in unacknowledged.iter() {
        agent.send_batch(&agent.batch(sequence, 1)).await;
    }
    let kill_after = Duration::from_millis(life * 37 % 150);
    let (mut durable, mut killed, mut ear) = (Vec::new(), None, Ear::default());
    loop {
        if killed.is_none() {
            unacknowledged.insert(*next);
            agent.send_batch(&agent.batch(*next, 1)).await;
            *next += 1;
        }
        let deadline =
            killed.unwrap_or_else(|| tokio::time::Instant::now() + Duration::from_millis(5));
        match tokio::time::timeout_at(deadline, ear.hear(&mut agent)).await {
            Ok(Some(sequences)) => durable.extend(sequences),
            Ok(None) => break,
            Err(_) if killed.is_some() => break,
            Err(_) => {}
        }
        if killed.is_none() && !durable.is_empty() {
            tokio::time::sleep(kill_after).await;
            aggregator.child.kill().unwrap();
            // What is under way may still arrive; the connection itself would take long to notice.
            killed = Some(tokio::time::Instant::now() + Duration::from_millis(100));
        }
    }
    durable
}

/// What was read of the control stream and not yet understood, so that nothing is lost when a read is given up.
#[derive(Default)]
struct Ear(Vec<u8>);

impl Ear {
    /// Acknowledged sequences; nothing for another message; `None` when the connection is gone.
    async fn hear(&mut self, agent: &mut Agent) -> Option<Vec<u64>> {
        loop {
            if let Some(message) = self.take() {
                return match message {
                    FromAggregator::Durable(durable) => Some(durable.sequences),
                    _ => Some(Vec::new()),
                };
            }
            let chunk = agent.receive.read_chunk(1 << 16, true).await.ok()??;
            self.0.extend_from_slice(&chunk.bytes);
        }
    }

    fn take(&mut self) -> Option<FromAggregator> {
        let header = frame::parse_header(self.0.first_chunk()?).unwrap();
        let end = frame::HEADER_BYTES + header.length;
        let message =
            frame::parse_from_aggregator(&header, self.0.get(frame::HEADER_BYTES..end)?).unwrap();
        self.0.drain(..end);
        Some(message)
    }
}

/// Kill it where it hurts: what was acknowledged is in the journal once, and nothing is in it twice. It goes on for
/// LEEWARD_CRASH_SECONDS, 60 if that is not set, and for some lives at least.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_or_counted_twice_over_kills() {
    const LIVES: u64 = 8;
    let installation = Installation::new();
    let (mut acknowledged, mut unacknowledged, mut next) = (BTreeSet::new(), BTreeSet::new(), 0);
    let seconds = std::env::var("LEEWARD_CRASH_SECONDS");
    let seconds = seconds.ok().and_then(|given| given.parse().ok());
    let enough = Duration::from_secs(seconds.unwrap_or(60));
    let (began, mut life) = (std::time::Instant::now(), 0);
    while life < LIVES || began.elapsed() < enough {
        for sequence in live(&installation, life, &mut unacknowledged, &mut next).await {
            unacknowledged.remove(&sequence);
            acknowledged.insert(sequence);
        }
        life += 1;
    }
    assert!(acknowledged.len() as u64 >= LIVES, "{acknowledged:?}");
    leeward_testing::tell(format_args!(
        "{life} aggregators killed, {} batches acknowledged, {} sent and not",
        acknowledged.len(),
        unacknowledged.len()
    ));

    // Decisions that a kill kept from being stored are stored by the next life.
    Aggregator::start(&installation, None).terminate();
    let mut journal = BTreeMap::new();
    let store = Rocks::open(&installation.data()).unwrap();
    store
        .scan(Column::Journal, &[], &mut |_, value| {
            if let v1::Record::Batch(record) = rmp_serde::from_slice(value).unwrap() {
                *journal
                    .entry(batch::peek(&record.bytes).unwrap().sequence)
                    .or_insert(0) += 1;
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    assert!(journal.values().all(|&times| times == 1), "{journal:?}");
    let lost: Vec<_> = acknowledged
        .iter()
        .filter(|sequence| !journal.contains_key(sequence))
        .collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");

    let mut begin = None;
    let first = &mut |key: &[u8], _: &[u8]| {
        begin = Position::from_key(key);
        ControlFlow::Break(())
    };
    store.scan(Column::Journal, &[], first).unwrap();
    let question = Question {
        from: begin.unwrap().time,
        to: journal_end(&store).unwrap().unwrap().time,
        other: None,
    };
    let answer = replay(&store, &question, &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(answer.first_difference, None);
    assert_eq!((answer.identical, answer.skipped), (answer.decisions, 0));
    assert!(answer.records >= journal.len() as u64 && answer.build.is_some());
}

/// A replay of a directory by the binary, as `leeward-aggregator replay`.
fn offline(installation: &Installation, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_leeward-aggregator"));
    command.arg("replay").arg("--data").arg(installation.data());
    command.args(args).output().unwrap()
}

/// The shadow that was set through the API is there after kill -9, and the one of a file is left alone beside it; what the
/// journal holds is decided again by the binary alone, beside the aggregator and without it.
#[tokio::test]
async fn a_shadow_survives_a_kill_and_the_journal_is_replayed_offline() {
    let installation = Installation::new();
    let file = installation.dir.path().join("shadow.toml");
    std::fs::write(&file, REGIONS).unwrap();
    let shadow = format!("[shadow]\npolicy = '{}'\n", file.display());
    let config = |shadow: &str| {
        let policy = format!("{TOKEN}{shadow}{REGIONS}");
        installation.write_config("[::1]:0", "127.0.0.1:0", &policy);
    };
    config(&shadow);
    assert!(check(&installation).status.success());
    let mut aggregator = Aggregator::start(&installation, None);
    let (_, body) = aggregator.ask("GET", "/v1/policies", "");
    assert!(body.contains("\"who\":\"file:shadow.toml\""), "{body}");
    let policy = format!("{REGIONS}[policy.steadiness]\nmargin = 1.5\n");
    let spec = serde_json::json!({ "policy": policy }).to_string();
    let (status, body) = aggregator.ask("PUT", "/v1/policies/shadow", &spec);
    assert!(
        status == 200 && body.contains("\"version\":2,"),
        "{status} {body}"
    );
    aggregator.child.kill().unwrap();
    aggregator.child.wait().unwrap();

    let aggregator = Aggregator::start(&installation, None);
    let policies = || aggregator.ask("GET", "/v1/policies", "").1;
    assert!(policies().contains("\"version\":2,"), "{}", policies());
    assert!(policies().contains("\"who\":\"mara\""), "{}", policies());
    support::until("it follows", || {
        policies().contains("\"state\":\"following\"")
    })
    .await;
    let margin = r#""parameter":"policy.steadiness.margin","current":"1.15","shadow":"1.5""#;
    assert!(policies().contains(margin), "{}", policies());
    assert_eq!(aggregator.ask("DELETE", "/v1/policies/shadow", "").0, 200);
    // A change that the journal holds, two seconds of the journal later than its beginning.
    let put = |id: &str| {
        let path = format!("/v1/services/{id}");
        assert!(aggregator.ask("PUT", &path, r#"{"home":"iad"}"#).0 < 300);
    };
    put("first");
    let ends = || offline(&installation, &["--from", "-1500ms", "--json"]);
    support::until("the journal is long enough", || {
        put("checkout");
        ends().status.success()
    })
    .await;
    let answer: serde_json::Value = serde_json::from_slice(&ends().stdout).unwrap();
    assert_eq!(answer["first_difference"], serde_json::Value::Null);
    aggregator.terminate();

    let other = file.display().to_string();
    let output = offline(&installation, &["--from", "-1500ms", "--policy", &other]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success() && text.contains("in force"),
        "{text}"
    );
    let bad = installation.dir.path().join("bad.toml");
    std::fs::write(&bad, "[policy]\nmargin = 1").unwrap();
    let bad = bad.display().to_string();
    let output = offline(&installation, &["--from", "-2s", "--policy", &bad]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        error.contains("bad.toml:2:1: unknown field `margin`"),
        "{error}"
    );
    assert_eq!(output.status.code(), Some(1));
}

/// A put that was answered is there after kill -9, once, with its version and its entry in the audit log.
#[test]
fn what_was_defined_is_there_after_a_kill_exactly_once_with_its_version() {
    let installation = Installation::new();
    installation.write_config("[::1]:0", "127.0.0.1:0", &format!("{TOKEN}{REGIONS}"));
    let mut last = 0;
    for life in 1..=5_u64 {
        let mut aggregator = Aggregator::start(&installation, None);
        if life > 1 {
            let (status, body) = aggregator.ask("GET", "/v1/services/checkout", "");
            assert_eq!(status, 200, "{body}");
            assert!(body.contains(&format!("\"version\":{last},")), "{body}");
        }
        for put in 1..=life {
            let (status, body) =
                aggregator.ask("PUT", "/v1/services/checkout", r#"{"home":"iad"}"#);
            assert!(status < 300, "{status} {body}");
            last += 1;
            assert!(
                body.contains(&format!("\"version\":{last},")),
                "{put} {body}"
            );
        }
        aggregator.child.kill().unwrap();
        aggregator.child.wait().unwrap();
    }
    let store = Rocks::open(&installation.data()).unwrap();
    let mut changes = 0;
    store
        .scan(Column::Journal, &[], &mut |_, value| {
            let record = rmp_serde::from_slice(value).unwrap();
            changes += u64::from(matches!(record, v1::Record::Change(_)));
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(changes, last);
    let log = store::audit_entries(&store, 0, usize::MAX).unwrap();
    let versions: Vec<u64> = log
        .iter()
        .filter(|entry| entry.what == "put")
        .map(|entry| entry.version)
        .collect();
    assert_eq!(versions, (1..=last).collect::<Vec<_>>());
    let mut verifier = leeward_common::audit::Verifier::default();
    log.iter().for_each(|entry| verifier.take(entry));
    assert_eq!(verifier.finish(None), []);
}

#[tokio::test]
async fn files_of_definitions_and_tokens_are_read_again_on_sighup_and_a_broken_one_changes_nothing()
{
    let installation = Installation::new();
    let folder = installation.dir.path().join("definitions");
    std::fs::create_dir(&folder).unwrap();
    let definitions = |text: &str| std::fs::write(folder.join("a.toml"), text).unwrap();
    let config = |token: &str| {
        installation.write_config("[::1]:0", "127.0.0.1:0", &format!("{token}{REGIONS}"));
        let path = installation.config_path();
        let text = std::fs::read_to_string(&path).unwrap();
        let line = format!("definitions_dir = '{}'\n", folder.display());
        std::fs::write(path, line + &text).unwrap();
    };
    config("");
    definitions("[[service]]\nid = 'checkout'\nhome = 'iad'\n");
    let output = check(&installation);
    assert!(output.status.success(), "{output:?}");
    let aggregator = Aggregator::start(&installation, None);
    let home = || aggregator.ask("GET", "/v1/services/checkout", "").1;
    assert!(home().contains("\"home\":\"iad\""), "{}", home());
    assert!(home().contains("\"who\":\"file:a.toml\""), "{}", home());
    assert_eq!(aggregator.ask("DELETE", "/v1/services/checkout", "").0, 401);

    // A broken file: nothing of it comes into force, nor does the token.
    definitions("[[service]]\nid = 'checkout'\nhome = 'dub'\n[[service]]\nid = 'x'\n");
    config(TOKEN);
    let output = check(&installation);
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        error.contains("a.toml:4:1: missing field `home`"),
        "{error}"
    );
    aggregator.hang_up();
    let failed = || {
        aggregator
            .ask("GET", "/metrics", "")
            .1
            .contains("config_reload_ok 0")
    };
    support::until("the reload fails", failed).await;
    assert!(home().contains("\"home\":\"iad\""), "{}", home());

    definitions("[[service]]\nid = 'checkout'\nhome = 'dub'\n");
    aggregator.hang_up();
    support::until("the file is in force", || {
        home().contains("\"home\":\"dub\"")
    })
    .await;
    support::until("the token is known", || {
        aggregator
            .ask("PUT", "/v1/services/checkout", r#"{"home":"iad"}"#)
            .0
            == 200
    })
    .await;

    // What the API changed is left alone.
    aggregator.hang_up();
    let disputed = || {
        aggregator
            .ask("GET", "/metrics", "")
            .1
            .contains("definitions_disputed 1")
    };
    support::until("the conflict is told", disputed).await;
    assert!(home().contains("\"home\":\"iad\""), "{}", home());
    aggregator.terminate();
}
