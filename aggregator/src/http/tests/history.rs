//! `/v1/links/{from}/{to}/history`: which points, from what, and what is refused.

use leeward_common::{
    api::v1::{HistorySource, LinkHistory},
    histogram::Schema,
    report::ProbeKind,
};

use super::*;
use crate::rollup::{
    step::tests::{Journal, Told},
    sum::tests::report,
};

/// Virginia reports about Oregon for two minutes, and has just lost a packet.
fn measured() -> (Aggregator, Timestamp) {
    let view = view(CALM);
    let base = (view.now - Duration::from_secs(130)).floor(Duration::from_secs(60));
    let mut journal = Journal::of(base, ["virginia", "oregon"]);
    for window in 0..120 {
        let lost = u32::from(window == 119);
        journal.append(&Told {
            agent: 0,
            window,
            after: 0,
            reports: vec![report(
                Schema::TwoDigits,
                &[70_000, 71_000, 90_000],
                lost,
                Some(200),
            )],
        });
    }
    (Aggregator::over(view, &journal.store), base)
}

async fn ask(aggregator: &Aggregator, query: &str) -> Answer {
    let path = format!("/v1/links/virginia/oregon/history{query}");
    aggregator.get(&path).await
}

#[tokio::test]
async fn points_of_minutes_have_exact_figures_and_say_what_they_are_made_from() {
    let (aggregator, base) = measured();
    let query = "?start=-10m&step=1m&quantiles=0.5,1";
    let answer = ask(&aggregator, query).await;
    assert_eq!(answer.headers[header::CACHE_CONTROL], "no-store");
    let history: LinkHistory = answer.json();
    assert_eq!(history.source, HistorySource::Minute);
    assert_eq!((history.step_ms, history.unreadable), (60_000, 0));
    assert_eq!(history.quantiles, [0.5, 1.0]);
    assert_eq!(history.points.len(), 2);
    let last = &history.points[1];
    assert_eq!(last.start.0, base + Duration::from_secs(60));
    assert_eq!((last.reports, last.answered, last.unanswered), (60, 180, 0));
    let rtt = last.rtt.as_ref().unwrap();
    assert_eq!(
        (rtt.min_us, rtt.max_us, rtt.mean_us),
        (70_000, 90_000, 77_000.0)
    );
    assert_eq!(rtt.quantiles_us.len(), 2);
    assert_eq!(rtt.quantiles_us[1], 90_000);
    assert_eq!(last.directions.unwrap().forward.lost, 1);
    assert!(last.counts.is_none() && history.edges_us.is_none());
}

#[tokio::test]
async fn a_heat_map_has_every_reply_in_one_row() {
    let (aggregator, _) = measured();
    let history: LinkHistory = ask(&aggregator, "?step=30s&buckets=20").await.json();
    assert_eq!(history.source, HistorySource::Raw);
    let edges = history.edges_us.unwrap();
    assert!(edges.len() <= 21 && edges[0] <= 70_000 && edges[edges.len() - 1] > 90_000);
    for point in &history.points {
        let counts = point.counts.as_ref().unwrap();
        assert_eq!(counts.len(), edges.len() - 1);
        assert_eq!(counts.iter().sum::<u64>(), 90);
    }
}

#[tokio::test]
async fn the_same_as_lines_for_a_spreadsheet() {
    let (aggregator, base) = measured();
    let query = "?start=-10m&step=1m&quantiles=0.5,0.999&buckets=1";
    let answer = ask(&aggregator, &format!("{query}&format=csv")).await;
    assert_eq!(
        answer.headers[header::CONTENT_TYPE],
        "text/csv; charset=utf-8"
    );
    let text = answer.text();
    let mut lines = text.lines();
    let names = lines.next().unwrap();
    let fixed = "start,reports,scheduled,answered,late,unanswered,loss_ratio,min_us,mean_us,max_us,p50_us,p99.9_us,from_";
    assert!(names.starts_with(fixed), "{names}");
    let first = lines.next().unwrap();
    assert!(
        first.starts_with(&format!("{base},60,180,180,60,0,0,70000,77000,90000,")),
        "{first}"
    );
    assert_eq!(
        (first.split(',').count(), lines.count()),
        (names.split(',').count(), 1)
    );
    let request = Request::get(format!("/v1/links/virginia/oregon/history{query}"));
    let request = request
        .header(header::ACCEPT, "text/csv")
        .body(Body::empty());
    assert_eq!(aggregator.ask(request.unwrap()).await.text(), text);
}

#[tokio::test]
async fn a_link_that_nobody_measured_has_no_points() {
    let (aggregator, _) = measured();
    let answer = aggregator
        .get("/v1/links/oregon/ireland/history?buckets=5")
        .await;
    let history: LinkHistory = answer.json();
    assert!(history.points.is_empty());
    assert_eq!(history.edges_us, Some(Vec::new()));
}

#[tokio::test]
async fn what_is_too_much_or_makes_no_sense_is_refused_with_what_to_do() {
    let (aggregator, _) = measured();
    for (query, status, says) in [
        ("?start=-40h&step=1s", 422, "144000 points"),
        ("?start=-3d&step=1s", 422, "kept for 2days"),
        ("?start=-40d&step=1m", 422, "kept for 30days"),
        ("?start=now", 422, "end is"),
        ("?step=1us", 422, "step is"),
        ("?start=-20h&step=1s&buckets=100", 422, "cells"),
        ("?buckets=0", 400, "buckets"),
        ("?quantiles=0.5,2", 400, "quantiles"),
        (
            "?quantiles=0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0",
            400,
            "more than 20",
        ),
        ("?start=yesterday", 400, "is no time"),
        ("?steps=1m", 400, "unknown field"),
    ] {
        let problem = ask(&aggregator, query).await.problem(status);
        assert!(problem.detail.contains(says), "{query}: {}", problem.detail);
    }
    aggregator
        .get("/v1/links/virginia/virginia/history")
        .await
        .problem(422);
    let problem = aggregator
        .get("/v1/links/virginia/oregn/history")
        .await
        .problem(404);
    assert_eq!(problem.near, ["oregon"]);
}

#[tokio::test]
async fn the_kinds_of_probes_make_up_the_whole() {
    let (aggregator, _) = measured();
    let answered =
        |history: LinkHistory| -> u64 { history.points.iter().map(|point| point.answered).sum() };
    for step in ["30s", "1m"] {
        let all = answered(
            ask(&aggregator, &format!("?start=-10m&step={step}"))
                .await
                .json(),
        );
        let mut by_kind = 0;
        for kind in ["icmp", "tcp_syn", "stamp"] {
            let query = format!("?start=-10m&step={step}&kind={kind}");
            let history: LinkHistory = ask(&aggregator, &query).await.json();
            assert_eq!(history.kind.map(ProbeKind::as_str), Some(kind));
            by_kind += answered(history);
        }
        assert_eq!((all, by_kind), (360, 360), "{step}");
    }
    let odd = ask(&aggregator, "?kind=udp").await;
    assert_eq!(odd.status, StatusCode::BAD_REQUEST);
}
