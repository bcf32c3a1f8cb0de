//! What routers tell, and what selections make of it.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use leeward_common::{
    bgp::{Change, Outside, Routing, RoutingEvent, Sight, Unsure, What},
    finding::Finding,
};
use leeward_engine::{
    decision::Reason,
    input::{Findings, Input},
    select::{RefusalCode, Term},
    view::View,
    waiting::WaitingCode,
};

mod bench;

use bench::{Bench, SECOND, WELL, region};

/// An agent tells that a feed withdrew the prefix by which a region is reached.
fn withdraw(bench: &mut Bench, agent: &str, feed: u8, reached: &str, visible: u32) {
    let at = bench.now() + SECOND * 6 / 10;
    let event = RoutingEvent {
        at,
        feed: format!("{agent} {feed}"),
        source: [10, 0, 0, feed].into(),
        what: What::Prefix {
            prefix: format!("198.51.{}.0/24", reached.as_bytes()[0])
                .parse()
                .unwrap(),
            region: region(reached),
            change: Change::Withdrawn {
                path: "64501 64500".to_owned(),
                malformed: false,
            },
            sight: Sight {
                visible,
                gone: 1,
                gone_sources: 1,
                stuck: 0,
                unsure: Unsure::default(),
                outside: Outside::default(),
            },
            learned: false,
        },
        collector: None,
    };
    let routing = Routing {
        events: vec![event],
        ..Routing::default()
    };
    let findings = Findings {
        agent: agent.parse().unwrap(),
        region: region(&agent[..1]),
        findings: vec![Finding::Routing(Box::new(routing))],
    };
    bench.step(at, &Input::Findings(findings));
    bench.step(at + SECOND / 10, &Input::Tick);
}

/// A mesh that is well and settled: `a` fails over to `b`, its nearest.
fn settled() -> Bench {
    let mut bench = Bench::four();
    bench.run(12, WELL);
    assert_eq!(selected(&bench.engine.view(), "a"), Some("b".to_owned()));
    bench
}

fn selected(view: &View, primary: &str) -> Option<String> {
    let selected = view.selections[&region(primary)].selected.as_ref();
    selected.map(ToString::to_string)
}

#[test]
fn a_withdrawal_over_the_link_without_another_route_moves_at_once_and_says_why() {
    let mut bench = settled();
    let before = bench.decisions.len();
    withdraw(&mut bench, "a1", 1, "b", 0);
    let [moved] = &bench.decisions[before..] else {
        panic!("{} decisions", bench.decisions.len() - before);
    };
    assert_eq!(moved.to, Some(region("c")));
    let Reason::Withdrawn { because } = &moved.reason else {
        panic!("{:?}", moved.reason);
    };
    for part in [
        "198.51.98.0/24",
        "10.0.0.1",
        "64501 64500",
        "a1",
        "00:00:12 UTC",
    ] {
        assert!(because.contains(part), "{because}");
    }
    let refused = moved.evidence.candidate(&region("b")).unwrap();
    assert_eq!(refused.reasons[0].code, RefusalCode::Withdrawn);
    assert!(
        moved.summary.contains("routers show no way to b"),
        "{}",
        moved.summary
    );
}

#[test]
fn a_withdrawal_with_another_route_lowers_the_weight_and_moves_nothing() {
    let mut bench = settled();
    let mut policy = bench::policy(&["a", "b", "c", "d"]);
    policy.routing.max_factor = 4.0;
    bench.step(bench.now(), &Input::Policy(Box::new(policy)));
    let before = bench.decisions.len();
    let well = bench.engine.view().ranking(&region("a"));
    withdraw(&mut bench, "a1", 1, "b", 1);
    let view = bench.run(20, WELL);
    assert_eq!(bench.decisions.len(), before);
    let (well, now) = (
        well.candidate(&region("b")).unwrap().network,
        view.ranking(&region("a")),
    );
    let now = now.candidate(&region("b")).unwrap();
    assert!(now.eligible);
    let factor = now.network.unwrap() / well.unwrap();
    assert!((factor - 0.5).abs() < 0.01, "{factor}");
    assert!(
        now.contributions
            .iter()
            .any(|own| own.term == Term::Routing)
    );
    let waiting = view.selections[&region("a")].waiting.as_ref().unwrap();
    assert_eq!(waiting.code, WaitingCode::Routing, "{waiting:?}");
}

#[test]
fn two_feeds_elsewhere_agree_and_one_alone_does_not() {
    let mut bench = settled();
    let before = bench.decisions.len();
    withdraw(&mut bench, "c1", 1, "b", 0);
    bench.run(5, WELL);
    assert_eq!(
        bench.decisions[before..]
            .iter()
            .filter(|own| own.primary == region("a"))
            .count(),
        0
    );
    withdraw(&mut bench, "d1", 2, "b", 0);
    assert_eq!(selected(&bench.engine.view(), "a"), Some("c".to_owned()));
}

#[test]
fn a_region_whose_every_way_out_is_withdrawn_keeps_its_selection() {
    let mut bench = settled();
    let before = bench.decisions.len();
    for reached in ["d", "c", "b"] {
        withdraw(&mut bench, "a1", 1, reached, 0);
    }
    let view = bench.run(20, WELL);
    let of_a = bench.decisions[before..]
        .iter()
        .filter(|own| own.primary == region("a"));
    assert_eq!(of_a.count(), 0);
    assert_eq!(selected(&view, "a"), Some("b".to_owned()));
}

#[test]
fn evidence_that_is_not_renewed_ends_and_the_region_may_be_selected_again() {
    let mut bench = settled();
    withdraw(&mut bench, "a1", 1, "b", 0);
    let eligible = |view: &View| {
        view.ranking(&region("a"))
            .candidate(&region("b"))
            .unwrap()
            .eligible
    };
    assert!(!eligible(&bench.engine.view()));
    let view = bench.run(299, WELL);
    assert!(!eligible(&view));
    assert!(eligible(&bench.run(2, WELL)));
}

#[test]
fn who_may_not_leave_for_it_stays_and_sees_a_lower_weight() {
    let mut bench = Bench::four();
    let mut policy = bench::policy(&["a", "b", "c", "d"]);
    policy.routing.leave = false;
    bench.step(bench.now(), &Input::Policy(Box::new(policy)));
    bench.run(12, WELL);
    let before = bench.decisions.len();
    withdraw(&mut bench, "a1", 1, "b", 0);
    bench.run(20, WELL);
    assert_eq!(bench.decisions.len(), before);
}
