//! `/v1/failover/…` and `/v1/decisions`.

use leeward_common::api::{
    problem::Code,
    v1::{Decisions, Failover, Perspective, State},
};

use super::*;

const VIRGINIA: &str = "/v1/failover/virginia";

#[tokio::test]
async fn the_whole_answer_is_as_written_down() {
    let answer = Aggregator::at(LOSSY).get(VIRGINIA).await;
    let failover: Failover = answer.json();
    golden(
        "src/http/tests/failover_virginia.json",
        &format!("{}\n", serde_json::to_string_pretty(&failover).unwrap()),
    );
}

#[tokio::test]
async fn every_candidate_is_there_with_its_reasons() {
    let failover: Failover = Aggregator::at(DOWN).get(VIRGINIA).await.json();
    assert_eq!(failover.candidates.len(), 3);
    let oregon = failover.candidates.last().unwrap();
    assert_eq!(
        (oregon.region_id.as_str(), oregon.eligible, oregon.rank),
        ("oregon", false, None)
    );
    assert_eq!(oregon.reasons[0].code, "down");
    let best = &failover.candidates[0];
    assert_eq!((best.rank, best.normalised_score), (Some(1), Some(1.0)));
    assert_eq!(Some(&best.region_id), failover.selected_region.as_ref());
    let sum: f64 = best
        .contributions
        .iter()
        .map(|contribution| contribution.log_value)
        .sum();
    assert!(
        (sum.exp() - best.score.unwrap()).abs() < 1e-9,
        "the contributions add up to the score"
    );
    assert_eq!(failover.previous.unwrap().region_id.as_str(), "oregon");
}

#[tokio::test]
async fn nothing_is_decided_before_anything_was_measured() {
    let failover: Failover = Aggregator::at(EARLY).get(VIRGINIA).await.json();
    assert_eq!(
        (failover.selected_region, failover.state),
        (None, State::Pending)
    );
    let candidate = &failover.candidates[0];
    assert_eq!(
        (
            candidate.latency_p50_us.value,
            candidate.latency_p50_us.state
        ),
        (None, State::Unknown)
    );
    assert_eq!(
        (
            candidate.score,
            candidate.network_weight,
            candidate.data_age_ms
        ),
        (None, None, None)
    );
}

#[tokio::test]
async fn an_unknown_region_is_answered_with_near_names() {
    let aggregator = Aggregator::at(CALM);
    let problem = aggregator.get("/v1/failover/virgina").await.problem(404);
    assert_eq!(
        (problem.code, problem.near),
        (Code::UnknownRegion, vec!["virginia".to_owned()])
    );
    let problem = aggregator.get("/v1/failover/MARS%20one").await.problem(404);
    assert!(problem.near.is_empty());
    assert!(
        problem
            .what_to_do
            .contains("frankfurt, ireland, oregon, virginia"),
        "{}",
        problem.what_to_do
    );
}

#[tokio::test]
async fn the_etag_changes_with_the_answer_and_not_with_every_figure() {
    let aggregator = Aggregator::at(CALM);
    let first = aggregator.get(VIRGINIA).await;
    assert!(first.etag().starts_with("W/\""));
    assert_eq!(
        aggregator
            .get_with_etag(VIRGINIA, &first.etag())
            .await
            .status,
        304
    );
    aggregator.publish(view(CALM + 0.6));
    let later = aggregator.get_with_etag(VIRGINIA, &first.etag()).await;
    assert_eq!((later.status.as_u16(), later.body.len()), (304, 0));
    let unconditional = aggregator.get(VIRGINIA).await;
    assert_ne!(unconditional.body, first.body, "the figures moved on");
    aggregator.publish(view(LOSSY));
    let moved = aggregator.get_with_etag(VIRGINIA, &first.etag()).await;
    assert_eq!(
        moved.json::<Failover>().selected_region.unwrap().as_str(),
        "frankfurt"
    );
    assert_ne!(moved.etag(), first.etag());
}

#[tokio::test]
async fn an_answer_is_written_once_and_its_ages_do_not_stand_still() {
    let aggregator = Aggregator::at(CALM);
    let first = aggregator.get(VIRGINIA).await;
    aggregator.wait(0.05);
    assert_eq!(aggregator.get(VIRGINIA).await.body, first.body);
    aggregator.wait(1.0);
    let (first, later): (Failover, Failover) =
        (first.json(), aggregator.get(VIRGINIA).await.json());
    let age = |failover: &Failover| failover.candidates[0].data_age_ms.unwrap();
    assert_eq!(age(&later), age(&first) + 1_050);
    assert_eq!(first.evaluated_at, later.evaluated_at);
}

#[tokio::test]
async fn a_picture_that_is_too_old_says_so() {
    let aggregator = Aggregator::at(CALM);
    aggregator.wait(6.0);
    let failover: Failover = aggregator.get(VIRGINIA).await.json();
    assert!(failover.stale);
    assert_eq!(
        (failover.state, failover.selected_region.unwrap().as_str()),
        (State::Degraded, "oregon")
    );
    assert_eq!(failover.candidates[0].loss_ratio.state, State::Unknown);
}

#[tokio::test]
async fn a_primary_that_is_down_is_judged_by_the_others() {
    let failover: Failover = Aggregator::at(DOWN).get("/v1/failover/oregon").await.json();
    assert_eq!(failover.perspective, Perspective::Survivors);
    assert_eq!(failover.state, State::Degraded);
    assert!(
        failover.summary.contains("oregon itself is not reached"),
        "{}",
        failover.summary
    );
}

#[tokio::test]
async fn a_configuration_is_judged_without_being_remembered() {
    let aggregator = Aggregator::at(CALM);
    let body =
        r#"{"primary_region":"virginia","potential_failover_regions":["oregon","frankfurt"]}"#;
    let plain: Failover = aggregator.post("/v1/failover/evaluate", body).await.json();
    assert_eq!(plain.selected_region.unwrap().as_str(), "oregon");
    assert_eq!((plain.decision_id, plain.candidates.len()), (None, 2));
    let body = r#"{"primary_region":"virginia","potential_failover_regions":["oregon","frankfurt"],"weights":{"frankfurt":50}}"#;
    let weighted: Failover = aggregator.post("/v1/failover/evaluate", body).await.json();
    assert_eq!(weighted.selected_region.unwrap().as_str(), "frankfurt");
    let configured: Failover = aggregator.get(VIRGINIA).await.json();
    assert_eq!(configured.selected_region.unwrap().as_str(), "oregon");
}

#[tokio::test]
async fn a_configuration_that_makes_no_sense_is_refused_with_what_to_do() {
    let aggregator = Aggregator::at(CALM);
    let cases = [
        (
            r#"{"primary_region":"virginia","potential_failover_regions":[]}"#,
            422,
            "is empty",
        ),
        (
            r#"{"primary_region":"virginia","potential_failover_regions":["oregon","oregon"]}"#,
            422,
            "twice",
        ),
        (
            r#"{"primary_region":"virginia","potential_failover_regions":["virginia"]}"#,
            422,
            "the primary",
        ),
        (
            r#"{"primary_region":"virginia","potential_failover_regions":["oregon"],"weights":{"ireland":2}}"#,
            422,
            "no candidate's",
        ),
        (
            r#"{"primary_region":"virginia","potential_failover_regions":["oregon"],"weights":{"oregon":0}}"#,
            422,
            "weights.oregon is 0",
        ),
        (
            r#"{"primary_region":"virginia","potential_failover_regions":["oregn"]}"#,
            404,
            "there is no region",
        ),
        (
            r#"{"primary_region":"virgina","potential_failover_regions":["oregon"]}"#,
            404,
            "there is no region",
        ),
    ];
    for (body, status, detail) in cases {
        let problem = aggregator
            .post("/v1/failover/evaluate", body)
            .await
            .problem(status);
        assert!(
            problem.detail.contains(detail),
            "{body}: {}",
            problem.detail
        );
    }
}

#[tokio::test]
async fn a_body_that_cannot_be_read_is_refused_with_its_place() {
    let aggregator = Aggregator::at(CALM);
    let path = "/v1/failover/evaluate";
    let body = "{\"primary_region\":\"virginia\",\n \"potential_failover_regions\":[\"oregon\",7]}";
    let problem = aggregator.post(path, body).await.problem(400);
    let at = problem.at.unwrap();
    assert_eq!(
        (at.path.as_str(), at.line),
        ("potential_failover_regions[1]", Some(2))
    );
    for body in [
        "",
        "{",
        "[]",
        "{\"primary_region\":\"virginia\",\"potential_failover_regions\":[],\"x\":1}",
        "{} {}",
    ] {
        assert_eq!(
            aggregator.post(path, body).await.problem(400).code,
            Code::MalformedBody,
            "{body}"
        );
    }
    let large = vec![b' '; super::super::body::MAX_BODY + 1];
    assert_eq!(
        aggregator.post(path, large).await.problem(413).code,
        Code::BodyTooLarge
    );
    let form = post(path, "a=b").with("content-type", "application/x-www-form-urlencoded");
    assert_eq!(
        aggregator.ask(form.body).await.problem(415).code,
        Code::UnsupportedMediaType
    );
}

#[tokio::test]
async fn decisions_come_newest_first_and_in_pages() {
    let aggregator = Aggregator::at(DOWN);
    let all: Decisions = aggregator.get("/v1/decisions").await.json();
    let ids: Vec<u64> = all
        .decisions
        .iter()
        .map(|decision| decision.decision_id)
        .collect();
    assert!(ids.len() >= 5 && ids.is_sorted_by(|a, b| a > b), "{ids:?}");
    assert_eq!(all.next_before, None);
    let mut paged = Vec::new();
    let mut next = String::new();
    loop {
        let page: Decisions = aggregator
            .get(&format!("/v1/decisions?limit=2{next}"))
            .await
            .json();
        paged.extend(page.decisions.iter().map(|decision| decision.decision_id));
        let Some(before) = page.next_before else {
            break;
        };
        next = format!("&before={before}");
    }
    assert_eq!(paged, ids);
}

#[tokio::test]
async fn a_decision_carries_its_reason_and_its_evidence() {
    let aggregator = Aggregator::at(LOSSY);
    let decisions: Decisions = aggregator
        .get("/v1/decisions?primary_region=virginia")
        .await
        .json();
    let newest = &decisions.decisions[0];
    assert!(
        decisions
            .decisions
            .iter()
            .all(|decision| decision.primary_region.as_str() == "virginia")
    );
    assert_eq!(newest.from.as_ref().unwrap().as_str(), "oregon");
    assert_eq!(newest.to.as_ref().unwrap().as_str(), "frankfurt");
    assert_eq!(newest.reason.code, "better");
    assert!(newest.margin.unwrap() > 1.0);
    assert_eq!(newest.evidence.len(), 3);
}

#[tokio::test]
async fn a_query_that_cannot_be_read_is_refused() {
    let aggregator = Aggregator::at(CALM);
    for path in [
        "/v1/decisions?limit=many",
        "/v1/decisions?primery=virginia",
        "/v1/graph?form=virginia",
    ] {
        assert_eq!(
            aggregator.get(path).await.problem(400).code,
            Code::MalformedParameter,
            "{path}"
        );
    }
    assert_eq!(
        aggregator
            .get("/v1/decisions?primary_region=mars")
            .await
            .problem(404)
            .code,
        Code::UnknownRegion
    );
}
