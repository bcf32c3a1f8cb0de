//! What people ask for beside the policy: what comes of it, when it ends, and what an engine takes over of it.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod bench;

use bench::{Bench, SECOND, START, WELL, policy, region, service};
use leeward_common::id::{OverrideId, ServiceId};
use leeward_engine::{
    Engine,
    effect::Effect,
    inherit::Inheritance,
    input::{Input, Metric, Subject},
    intent::{Amendment, Change, Override, Owner, Rule, Term},
    select::RefusalCode,
};

fn change(what: Amendment) -> Input {
    Input::Change(Box::new(Change {
        who: "ops".to_owned(),
        why: "works".to_owned(),
        what,
    }))
}

fn shop() -> ServiceId {
    ServiceId::parse("shop").unwrap()
}

fn works() -> OverrideId {
    OverrideId::parse("works").unwrap()
}

fn pin(owner: Owner, to: &str) -> Input {
    let rule = Rule::Pin {
        owner,
        region: region(to),
    };
    let until = START + SECOND * 30;
    change(Amendment::PutOverride(works(), Override { rule, until }))
}

#[test]
fn a_pin_before_anything_is_measured_is_told_as_a_pin() {
    let mut bench = Bench::four();
    bench.step(START, &pin(Owner::Region(region("a")), "c"));
    bench.step(START + SECOND, &Input::Tick);
    let summary = &bench.decisions[0].summary;
    assert_eq!(summary, "a fails over to c: a is pinned to c");
}

#[test]
fn the_end_of_an_override_is_an_effect() {
    let mut engine = Engine::new(policy(&["a", "b", "c"]));
    engine.step(START, &pin(Owner::Region(region("a")), "c"));
    let mut effects = Vec::new();
    for second in 1..=40 {
        effects.extend(engine.step(START + SECOND * second, &Input::Tick));
    }
    let ended: Vec<_> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Expired { at, ended } => Some((*at, ended)),
            Effect::Decided(_) => None,
        })
        .collect();
    let [(at, ended)] = ended[..] else {
        panic!("{ended:?}");
    };
    assert_eq!((at, ended.until), (START + SECOND * 30, at));
    assert_eq!(ended.term, Term::Override(works()));
    assert_eq!((&*ended.who, ended.version), ("ops", 1));
}

#[test]
fn who_takes_over_leaves_everything_where_it_is() {
    let mut bench = Bench::four();
    let put = Amendment::PutService(shop(), Box::new(service("b")));
    bench.step(START, &change(put));
    bench.step(START, &pin(Owner::Service(shop()), "d"));
    bench.run(10, WELL);
    let past = Inheritance::of(&bench.engine.view());
    let moved = &past.selections[&Owner::Service(shop())];
    assert_eq!(moved.selected, Some(region("d")));
    let mut other = Bench::four();
    let regions = policy(&["a", "b", "c", "d"]);
    other.engine = Engine::inheriting(bench.now(), regions, past.clone());
    other.second = bench.second;
    assert_eq!(Inheritance::of(&other.engine.view()), past);
    let view = other.run(10, WELL);
    assert_eq!(other.decisions, []);
    assert_eq!(view.services[&shop()].assignment[0].region, region("d"));
    assert_eq!(view.last_decision, past.last_decision);
}

#[test]
fn a_bandwidth_that_a_signal_tells_is_held_against_the_limit() {
    let mut bench = Bench::four();
    let mut what = service("b");
    what.limits.bandwidth_bps = Some(100e6);
    what.clients.insert(region("a"), 1.0);
    bench.step(
        START,
        &change(Amendment::PutService(shop(), Box::new(what))),
    );
    bench.run(5, WELL);
    let reasons = |bench: &Bench, id: &str| {
        let view = bench.engine.view();
        let ranking = view.service_ranking(&shop()).unwrap();
        let reasons = ranking.candidate(&region(id)).unwrap().reasons.clone();
        reasons
            .iter()
            .map(|own| (own.code, own.detail.clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(reasons(&bench, "c"), []);
    let link = |from, to| Subject::Link(region(from), region(to));
    // Neither the highest that is told nor another link's.
    bench.signal("weak", link("c", "a"), Metric::BandwidthBps, 50e6, None);
    bench.signal("strong", link("a", "c"), Metric::BandwidthBps, 1e9, None);
    bench.signal("strong", link("b", "d"), Metric::BandwidthBps, 1e6, None);
    bench.run(1, WELL);
    let broken = "bandwidth 50.0 Mbit/s (limit 100.0 Mbit/s)".to_owned();
    assert_eq!(reasons(&bench, "c"), [(RefusalCode::BreaksLimits, broken)]);
    assert_eq!(reasons(&bench, "d"), []);
    // A signal expires to neutral, and so does the limit that it broke.
    bench.run(12, WELL);
    assert_eq!(reasons(&bench, "c"), []);
}
