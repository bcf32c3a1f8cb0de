//! What agents found out about the bandwidth of links, and what it does to weights.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod bench;

use std::time::Duration;

use bench::{Bench, SECOND, START, WELL, region};
use leeward_common::{
    finding::{Bandwidth, Finding, bandwidth::Quantity},
    id::{AgentId, TargetId},
};
use leeward_engine::{
    Engine,
    graph::bandwidth::NEUTRAL_AFTER,
    input::{Findings, Input},
    select::{Contribution, Term},
    view::View,
};

fn quantity(bps: u64, doubt: Option<&str>) -> Quantity {
    Quantity {
        method: "trains".to_owned(),
        bps,
        low_bps: bps / 10 * 9,
        high_bps: bps / 10 * 11,
        samples: 9,
        bytes: 100,
        doubt: doubt.map(str::to_owned),
    }
}

/// An agent of `from` tells what is free towards `to`.
fn tell(bench: &mut Bench, from: &str, to: &str, free_bps: u64, doubt: Option<&str>) {
    let at = bench.now() + SECOND / 2;
    let findings = Findings {
        agent: AgentId::parse(&format!("{from}1")).unwrap(),
        region: region(from),
        findings: vec![Finding::Bandwidth(Box::new(Bandwidth {
            target: TargetId::parse(&format!("{to}1")).unwrap(),
            region: Some(region(to)),
            at,
            order: Some(free_bps),
            heavy: false,
            capacity_upper: Some(quantity(1_000_000_000, None)),
            available_est: Some(quantity(free_bps, doubt)),
            goodput_seen: None,
            bytes: 200,
            took_us: 1,
            note: String::new(),
        }))],
    };
    bench.step(at, &Input::Findings(findings));
}

fn bandwidth(view: &View, to: &str) -> Contribution {
    let ranking = view.ranking(&region("a"));
    let contributions = &ranking.candidate(&region(to)).unwrap().contributions;
    let mut own = contributions
        .iter()
        .filter(|own| own.term == Term::Bandwidth);
    own.next().unwrap().clone()
}

#[test]
fn what_is_free_for_sure_counts_and_says_so() {
    let mut bench = Bench::four();
    bench.run(3, WELL);
    tell(&mut bench, "a", "b", 20_000_000, None);
    let view = bench.run(1, WELL);
    let told = bandwidth(&view, "b");
    assert_eq!(told.detail, "18.0 Mbit/s free at least");
    assert!(told.log_value < -1.0, "{}", told.log_value);
    assert_eq!(bandwidth(&view, "c").log_value, 0.0);
    let link = (region("a"), region("b"));
    assert_eq!(view.bandwidths.of_link(&link).count(), 1);
    assert!(view.bandwidths.answer(20_000_000).is_some());
}

#[test]
fn what_is_doubted_is_told_and_does_not_count() {
    let mut bench = Bench::four();
    bench.run(3, WELL);
    tell(&mut bench, "a", "b", 1_000_000, Some("its trains differ"));
    let view = bench.run(1, WELL);
    assert_eq!(bandwidth(&view, "b").log_value, 0.0);
    let link = (region("a"), region("b"));
    assert_eq!(view.bandwidths.of_link(&link).count(), 1);
}

#[test]
fn an_old_estimate_counts_as_unknown() {
    let mut bench = Bench::four();
    bench.run(3, WELL);
    tell(&mut bench, "a", "b", 1_000_000, None);
    let young = bandwidth(&bench.run(1, WELL), "b").log_value;
    bench.second += u32::try_from(NEUTRAL_AFTER.as_secs() / 2).unwrap();
    let older = bandwidth(&bench.run(3, WELL), "b").log_value;
    bench.second += u32::try_from(NEUTRAL_AFTER.as_secs() / 2).unwrap();
    let oldest = bandwidth(&bench.run(3, WELL), "b").log_value;
    assert!(young < older && older < oldest, "{young} {older} {oldest}");
    assert_eq!(oldest, 0.0);
}

#[test]
fn a_snapshot_keeps_what_was_told_and_counts_it_alike() {
    let mut bench = Bench::four();
    bench.run(3, WELL);
    tell(&mut bench, "a", "b", 20_000_000, None);
    let restored = Engine::from_snapshot(bench.engine.to_snapshot().clone()).unwrap();
    let mut other = Bench::four();
    (other.engine, other.second) = (restored, bench.second);
    let (one, two) = (bench.run(2, WELL), other.run(2, WELL));
    assert_eq!(
        bandwidth(&one, "b").log_value,
        bandwidth(&two, "b").log_value
    );
    assert!(bandwidth(&two, "b").log_value < 0.0);
}

#[test]
fn an_agent_whose_clock_is_behind_is_believed_all_the_same() {
    let mut bench = Bench::four();
    bench.run(3, WELL);
    tell(&mut bench, "a", "b", 20_000_000, None);
    let told = bench.run(1, WELL);
    let own = told.bandwidths.answer(20_000_000).unwrap();
    assert!(own.at >= START + Duration::from_secs(2));
}
