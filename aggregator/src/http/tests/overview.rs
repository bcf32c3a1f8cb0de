//! `/v1/overview`: the sentence.

use leeward_common::api::v1::{Overview, State};

use super::*;

async fn overview(view: View) -> Overview {
    Aggregator::showing(view).get("/v1/overview").await.json()
}

#[tokio::test]
async fn a_calm_night_is_quiet() {
    let overview = overview(view(CALM)).await;
    assert_eq!(overview.state, State::Ok);
    assert_eq!(
        overview.summary,
        "All 4 regions are reached and no link is in trouble."
    );
    assert_eq!(
        (
            overview.counts.agents,
            overview.counts.agents_counted,
            overview.counts.links_troubled
        ),
        (4, 4, 0)
    );
    assert_eq!(overview.failovers.len(), 4);
    assert!(
        overview
            .failovers
            .iter()
            .all(|line| line.margin.unwrap() > 0.0)
    );
}

#[tokio::test]
async fn a_lossy_link_is_named_with_its_loss_and_what_moved() {
    let overview = overview(view(LOSSY)).await;
    assert_eq!(overview.state, State::Degraded);
    assert!(
        overview
            .summary
            .contains(" % is lost between oregon and virginia"),
        "{}",
        overview.summary
    );
    assert!(
        overview
            .summary
            .contains("irginia now fails over to frankfurt"),
        "{}",
        overview.summary
    );
    let labels: Vec<&str> = overview
        .facts
        .iter()
        .map(|fact| fact.label.as_str())
        .collect();
    assert_eq!(
        labels,
        ["what", "where", "why", "sure", "done", "last", "trust"]
    );
}

#[tokio::test]
async fn a_region_that_is_down_comes_first() {
    let overview = overview(view(DOWN)).await;
    assert_eq!(overview.state, State::Bad);
    assert!(
        overview.summary.starts_with("Oregon is down."),
        "{}",
        overview.summary
    );
    assert_eq!(overview.counts.regions_down, 1);
}

#[tokio::test]
async fn before_the_first_report_nothing_is_known() {
    let overview = overview(view(EARLY)).await;
    assert_eq!(overview.state, State::Pending);
    assert_eq!(
        overview.summary,
        "No agent has reported yet, so nothing is known."
    );
    assert_eq!(overview.data_age_ms, None);
}

#[tokio::test]
async fn an_old_picture_is_not_shown_as_if_it_were_live() {
    let aggregator = Aggregator::at(CALM);
    aggregator.wait(69.0);
    let overview: Overview = aggregator.get("/v1/overview").await.json();
    assert!(overview.stale);
    assert_eq!(overview.state, State::Unknown);
    assert!(
        overview.summary.starts_with("This picture is 69 s old"),
        "{}",
        overview.summary
    );
}
