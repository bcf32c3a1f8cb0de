//! `/v1/faults`, `/v1/hesitations`, and what answers say of what is waited for.

use leeward_common::api::v1::{
    Action, Failover, FaultKind, FaultPlace, Faults, Hesitations, Overview,
};

use super::*;

#[tokio::test]
async fn a_calm_night_has_no_faults() {
    let faults: Faults = Aggregator::at(CALM).get("/v1/faults").await.json();
    assert_eq!(faults.faults, []);
    assert_eq!(faults.not_counted, []);
    assert_eq!((faults.agents_counted, faults.fail_static), (4, None));
}

#[tokio::test]
async fn a_lossy_link_and_a_region_that_is_down_are_told_with_who_sees_them() {
    let faults: Faults = Aggregator::at(LOSSY).get("/v1/faults").await.json();
    let [link] = &faults.faults[..] else {
        panic!("{faults:?}");
    };
    assert_eq!((link.place, link.kind), (FaultPlace::Link, FaultKind::Grey));
    assert_eq!(link.region_id.as_str(), "oregon");
    assert_eq!(link.to_region_id.as_ref().unwrap().as_str(), "virginia");
    assert!(link.loss_ratio > 0.01 && link.seen_by > 0, "{link:?}");

    let aggregator = Aggregator::at(DOWN);
    let faults: Faults = aggregator.get("/v1/faults").await.json();
    let down = &faults.faults[0];
    assert_eq!(
        (down.place, down.kind),
        (FaultPlace::Region, FaultKind::Total)
    );
    assert_eq!(down.region_id.as_str(), "oregon");
    assert_eq!((down.seen_by, down.observers), (3, 3));
    assert_eq!(faults.not_counted[0].agent_id.as_str(), "oregon-1");
    // One sentence, wherever it is asked for.
    let overview: Overview = aggregator.get("/v1/overview").await.json();
    assert_eq!(overview.summary, faults.summary);
    assert_eq!(overview.counts.faults as usize, faults.faults.len());
}

#[tokio::test]
async fn what_was_waited_for_is_listed_and_an_answer_has_its_bounds() {
    let aggregator = Aggregator::at(LOSSY);
    let told: Hesitations = aggregator.get("/v1/hesitations?limit=1000").await.json();
    let of_virginia = told.hesitations.iter().find(|own| {
        own.primary_region
            .as_ref()
            .is_some_and(|region| region.as_str() == "virginia")
    });
    let waiting = &of_virginia.expect("it was waited for").waiting;
    assert!(waiting.detail.starts_with("virginia stays with "));
    let times: Vec<_> = told.hesitations.iter().map(|own| own.at).collect();
    assert!(times.is_sorted_by(|a, b| a >= b));

    let answer: Failover = aggregator.get("/v1/failover/virginia").await.json();
    let best = &answer.candidates[0];
    let (low, high) = (best.score_low.unwrap(), best.score_high.unwrap());
    assert!(low <= best.score.unwrap() && best.score.unwrap() <= high);
    assert!(low < high, "what is measured is not exact");
    assert_eq!(answer.recommended_region.as_ref(), Some(&best.region_id));
    let expected = match &answer.waiting {
        None => vec![Action::None],
        Some(_) => vec![Action::None, Action::Hold, Action::Switch],
    };
    assert!(expected.contains(&answer.action), "{answer:?}");
    assert_eq!(aggregator.get("/v1/hesitations?limit=x").await.status, 400);
}

#[tokio::test]
async fn while_the_observers_are_cut_off_every_answer_says_so() {
    let mut view = view(CALM);
    let detail = "every observer sees every region as lost".to_owned();
    view.fail_static = Some(leeward_engine::view::FailStatic {
        since: view.now,
        detail: detail.clone(),
    });
    let aggregator = Aggregator::showing(view);
    let answer: Failover = aggregator.get("/v1/failover/virginia").await.json();
    assert_eq!(answer.action, Action::FailStatic);
    assert_eq!(answer.fail_static.unwrap().detail, detail);
    let overview: Overview = aggregator.get("/v1/overview").await.json();
    assert!(overview.summary.contains(&detail), "{}", overview.summary);
    assert_eq!(overview.fail_static.unwrap().detail, detail);
}
