//! What a link did, and copies of the store: what people and programs get.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::{Server, leeward, ok};
use leeward_common::{
    api::v1::{Backup, Backups, HistoryPoint, HistoryRtt, HistorySource, LinkHistory, Time},
    id::RegionId,
    ratio::Ratio,
    time::Timestamp,
};

fn at(text: &str) -> Time {
    Time(Timestamp::parse_rfc3339(text).unwrap())
}

fn point(start: &str, unanswered: u64, p50_us: u32) -> HistoryPoint {
    HistoryPoint {
        start: at(start),
        reports: 60,
        scheduled: 600,
        answered: 600 - unanswered,
        late: 0,
        unanswered,
        loss_ratio: Ratio::of(unanswered, 600),
        rtt: Some(HistoryRtt {
            min_us: 60_000,
            mean_us: 71_000.5,
            max_us: 99_000,
            quantiles_us: vec![p50_us, 80_000, 90_000],
        }),
        counts: None,
        directions: None,
    }
}

fn history(points: Vec<HistoryPoint>) -> LinkHistory {
    LinkHistory {
        from: RegionId::parse("virginia").unwrap(),
        to: RegionId::parse("oregon").unwrap(),
        kind: None,
        start: at("2026-11-20T03:00:00Z"),
        end: at("2026-11-20T03:04:00Z"),
        step_ms: 60_000,
        source: HistorySource::Minute,
        evaluated_at: at("2026-11-20T03:03:11Z"),
        quantiles: vec![0.5, 0.9, 0.99],
        edges_us: None,
        unreadable: 0,
        points,
    }
}

#[test]
fn a_history_is_a_line_of_bars_and_a_table() {
    let path = "/v1/links/virginia/oregon/history?start=-4m&end=now&step=1m";
    let told = history(vec![
        point("2026-11-20T03:00:00Z", 0, 70_000),
        point("2026-11-20T03:02:00Z", 6, 78_000),
    ]);
    let server = Server::new(vec![ok(path, &told)]);
    let args = [
        "link",
        "virginia",
        "oregon",
        "--history",
        "4m",
        "--step",
        "1m",
    ];
    let said = server.leeward(&args).expect(0);
    let expected = "\
virginia -> oregon, 2026-11-20 03:00:00 to 2026-11-20 03:04:00 UTC, 60 s a point, from sums of minutes
p50  ▁ █
loss ▁ █
START                ANSWERED  UNANSWERED   LOSS      MIN     MEAN      P50      P90      P99      MAX
2026-11-20 03:00:00       600           0    0 %  60.0 ms  71.0 ms  70.0 ms  80.0 ms  90.0 ms  99.0 ms
2026-11-20 03:02:00       594           6  1.0 %  60.0 ms  71.0 ms  78.0 ms  80.0 ms  90.0 ms  99.0 ms
";
    let out: Vec<&str> = said.out.lines().map(str::trim_end).collect();
    assert_eq!(out, expected.lines().collect::<Vec<_>>());
    server
        .leeward(&[&args[..], &["--check"]].concat())
        .expect(3);
    let json = server
        .leeward(&[&args[..], &["-o", "json"]].concat())
        .expect(0)
        .json();
    assert_eq!(json["points"][1]["unanswered"], 6);
}

#[test]
fn a_link_that_nobody_measured_is_not_enough_known() {
    let path = "/v1/links/virginia/oregon/history?start=-6h&end=now&step=15m";
    let server = Server::new(vec![ok(path, &history(Vec::new()))]);
    let said = server
        .leeward(&["link", "virginia", "oregon", "--history", "6h"])
        .expect(7);
    assert!(
        said.out.contains("nobody reported about this link"),
        "{}",
        said.out
    );
    leeward(&["link", "virginia", "oregon", "--step", "1m"]).expect(2);
}

#[test]
fn a_backup_says_where_it_is_and_what_to_do_with_it() {
    let made = Backup {
        name: "20261120T031211.000Z".to_owned(),
        path: "/data/backups/20261120T031211.000Z".to_owned(),
        made_at: at("2026-11-20T03:12:11Z"),
        bytes: 12_345_678,
    };
    let server = Server::new(vec![ok("/v1/backups", &made)]);
    let said = server.leeward(&["backup", "--why", "upgrade"]).expect(0);
    assert!(
        said.out
            .starts_with("made /data/backups/20261120T031211.000Z (12.3 MB)"),
        "{}",
        said.out
    );
    let request = server.last_request();
    assert!(
        request.contains(r#"{"why":"upgrade","keep":7}"#),
        "{request}"
    );
    leeward(&["backup", "--dry-run"]).expect(0);
    let listed = Backups {
        backups: vec![made],
    };
    let server = Server::new(vec![ok("/v1/backups", &listed)]);
    let said = server.leeward(&["backup", "ls"]).expect(0);
    assert!(said.out.contains("2026-11-20 03:12:11"), "{}", said.out);
}
