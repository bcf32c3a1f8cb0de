//! The store of a real aggregator: a full disk, a backup that becomes another aggregator, and what the tools say of it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use leeward_common::{
    api::v1::{Audit, Backup, Backups, LinkHistory},
    wire::{batch, frame},
};
use leeward_testing::SmallDisk;
use serde::de::DeserializeOwned;
use support::{
    Installation,
    daemon::{Aggregator, REGIONS, TOKEN},
    now, path,
};

fn installation() -> Installation {
    let installation = Installation::new();
    installation.write_config("[::1]:0", "127.0.0.1:0", &format!("{TOKEN}{REGIONS}"));
    installation
}

fn json<T: DeserializeOwned>(aggregator: &Aggregator, path: &str) -> T {
    let (status, body) = aggregator.ask("GET", path, "");
    assert_eq!(status, 200, "{path}: {body}");
    // A streamed body comes in chunks, each on a line of its own behind its length.
    let text = match body.starts_with(['{', '[']) {
        true => body,
        false => body.split("\r\n").skip(1).step_by(2).collect(),
    };
    serde_json::from_str(&text).unwrap()
}

fn tool(args: &[&str], data: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_leeward-aggregator"));
    command.arg("store").args(args).arg("--data").arg(data);
    command.output().unwrap()
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// What an aggregator answers about its past.
#[derive(Debug, PartialEq)]
struct Answers {
    history: LinkHistory,
    audit: Audit,
    service: String,
}

impl Answers {
    fn of(aggregator: &Aggregator, start: &str, end: &str) -> Self {
        let path = format!("/v1/links/iad/dub/history?start={start}&end={end}&step=1s&buckets=9");
        let mut history: LinkHistory = json(aggregator, &path);
        history.evaluated_at = history.end;
        let mut audit: Audit = json(aggregator, "/v1/audit?after=0");
        // What came after the backup is not in it.
        let last = audit
            .entries
            .iter()
            .position(|entry| entry.what == "backup");
        audit
            .entries
            .truncate(last.map_or(usize::MAX, |last| last + 1));
        (audit.length, audit.head, audit.next) = (0, String::new(), None);
        let (status, service) = aggregator.ask("GET", "/v1/services/checkout", "");
        assert_eq!(status, 200);
        Self {
            history,
            audit,
            service,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_becomes_an_aggregator_that_gives_the_same_answers() {
    let first = installation();
    let aggregator = Aggregator::start(&first, None);
    let mut agent = first.agent(aggregator.agents, "iad", "iad-1", 1).await;
    agent.announce(1, vec![path("dub-1.v4", "dub")]).await;
    let start = now();
    for sequence in 0..20 {
        agent.send_batch(&agent.batch(sequence, 1)).await;
    }
    agent.durable(20).await;
    let service = r#"{"home":"iad","candidates":["dub"],"why":"for the backup"}"#;
    assert_eq!(
        aggregator.ask("PUT", "/v1/services/checkout", service).0,
        201
    );

    let (status, body) = aggregator.ask("POST", "/v1/backups", r#"{"why":"a test","keep":2}"#);
    assert_eq!(status, 201, "{body}");
    let backup: Backup = serde_json::from_str(&body).unwrap();
    let (start, end) = (
        start - Duration::from_secs(60),
        now() + Duration::from_secs(60),
    );
    let (start, end) = (start.to_string(), end.to_string());
    let before = Answers::of(&aggregator, &start, &end);
    assert_eq!(
        before
            .history
            .points
            .iter()
            .map(|point| point.reports)
            .sum::<u64>(),
        20
    );
    assert_eq!(before.audit.entries.last().unwrap().why, "a test");
    let listed: Backups = json(&aggregator, "/v1/backups");
    assert_eq!(listed.backups, std::slice::from_ref(&backup));
    // What comes after it is not in it.
    agent.send_batch(&agent.batch(20, 1)).await;
    agent.durable(1).await;
    let (status, body) = aggregator.ask("POST", "/v1/backups", r#"{"keep":0}"#);
    assert_eq!(status, 422, "{body}");
    drop(aggregator);

    let backup = PathBuf::from(backup.path);
    let verified = tool(&["verify"], &backup);
    assert!(verified.status.success(), "{}", text(&verified));
    let second = installation();
    let from = backup.to_str().unwrap();
    let restored = tool(&["restore", "--from", from], &second.data());
    assert!(restored.status.success(), "{}", text(&restored));
    let again = tool(&["restore", "--from", from], &second.data());
    assert!(text(&again).contains("is not empty"), "{}", text(&again));

    let aggregator = Aggregator::start(&second, None);
    assert_eq!(Answers::of(&aggregator, &start, &end), before);
    let stats = tool(&["stats"], &second.data());
    assert!(text(&stats).contains("journal"), "{}", text(&stats));
    let in_use = tool(&["compact"], &second.data());
    assert!(
        !in_use.status.success() && text(&in_use).contains("cannot open"),
        "{}",
        text(&in_use)
    );
    aggregator.terminate();
    let compacted = tool(&["compact"], &second.data());
    assert!(compacted.status.success(), "{}", text(&compacted));

    // A byte of a file of records is another one.
    let entries = std::fs::read_dir(second.data()).unwrap();
    let mut files = entries.map(|entry| entry.unwrap().path());
    let file = files
        .find(|path| path.extension().is_some_and(|end| end == "sst"))
        .unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[20] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let damaged = tool(&["verify"], &second.data());
    let name = file.file_name().unwrap().to_str().unwrap();
    assert_eq!(damaged.status.code(), Some(3), "{}", text(&damaged));
    assert!(text(&damaged).contains(name), "{}", text(&damaged));
    let third = second.dir.path().join("third");
    let data = second.data();
    let saved = tool(
        &["restore", "--damaged", "--from", data.to_str().unwrap()],
        &third,
    );
    assert!(
        saved.status.success() && text(&saved).contains("left out"),
        "{}",
        text(&saved)
    );
    assert!(tool(&["verify"], &third).status.success());
}

/// A file system of its own, gone when the test is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_full_disk_questions_are_answered_and_nothing_is_acknowledged_until_there_is_room() {
    let installation = installation();
    // Smaller than what the store would reserve for its log.
    let name =
        "on_a_full_disk_questions_are_answered_and_nothing_is_acknowledged_until_there_is_room";
    let Some(disk) = SmallDisk::mount(name, &installation.data(), "32m").unwrap() else {
        return;
    };
    let aggregator = Aggregator::start(&installation, None);
    let mut agent = installation
        .agent(aggregator.agents, "iad", "iad-1", 1)
        .await;
    agent.announce(1, vec![path("dub-1.v4", "dub")]).await;
    agent.send_batch(&agent.batch(0, 1)).await;
    agent.durable(1).await;
    let ready = || aggregator.ask("GET", "/readyz", "");
    support::until("it is ready", || ready().0 == 200).await;

    let filler = disk.path().join("filler");
    assert!(
        std::fs::write(&filler, vec![0; 32 << 20]).is_err(),
        "it takes all there is"
    );
    let mut sent = 1;
    // Whether the turn or the rollups come upon the full disk first, the turn does in the end.
    let refuses = || ready().1.contains("refuses writes");
    while !refuses() {
        assert!(sent < 2_000, "the disk is full");
        let frame = frame::frame_batch(&batch::encode(&agent.batch(sent, 1)).unwrap());
        // It ends with the first batch that is not stored.
        if !agent.try_send_stream(&frame).await {
            break;
        }
        sent += 1;
    }
    support::until("it refuses writes", refuses).await;
    let (status, body) = aggregator.ask("GET", "/v1/links/iad/dub", "");
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("\"vantage_points\":1"), "{body}");
    let (status, body) = aggregator.ask("PUT", "/v1/services/checkout", r#"{"home":"iad"}"#);
    assert_eq!(status, 503, "{body}");

    std::fs::remove_file(&filler).unwrap();
    support::until("it is ready again", || ready().0 == 200).await;
    // The agent has kept what was not acknowledged, and sends all of it again.
    drop(agent);
    let mut agent = installation
        .agent(aggregator.agents, "iad", "iad-1", 1)
        .await;
    let durable_below = agent.welcome.as_ref().unwrap().durable_below;
    assert!(durable_below < sent, "some of it was refused");
    for sequence in durable_below..sent {
        agent.send_batch(&agent.batch(sequence, 1)).await;
    }
    let left = (sent - durable_below) as usize;
    assert_eq!(agent.durable(left).await.len(), left);
    let history: LinkHistory = json(&aggregator, "/v1/links/iad/dub/history?start=-10m&step=1m");
    let reports: u64 = history.points.iter().map(|point| point.reports).sum();
    assert_eq!(reports, sent, "each counts once");
    aggregator.terminate();
    let verified = tool(&["verify"], &installation.data());
    assert!(verified.status.success(), "{}", text(&verified));
}
