//! Checks: who must see one fail before a region counts as failing it, and what silence means.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod bench;

use std::{collections::BTreeMap, time::Duration};

use bench::{Bench, SECOND, WELL, region, service};
use leeward_common::{
    api::v1::CheckSpec,
    check::{CheckUrl, Outcome},
    id::{AgentId, CheckId, RegionId, ServiceId},
};
use leeward_engine::{
    checks::Finding,
    decision::Reason,
    input::{CheckResult, CheckResults, Input},
    intent::{Amendment, Change, Service},
    readiness::ReadinessState,
    select::{Refusal, RefusalCode},
};
use proptest::prelude::*;

const OBSERVERS: [&str; 5] = ["c", "d", "e", "f", "g"];

fn shop() -> ServiceId {
    ServiceId::parse("shop").unwrap()
}

fn api() -> CheckId {
    CheckId::parse("api").unwrap()
}

fn spec(regions: &[&str]) -> CheckSpec {
    let url = |own: &str| CheckUrl::parse(&format!("https://{own}.example/")).unwrap();
    CheckSpec::of(regions.iter().map(|own| (region(own), url(own))).collect())
}

fn checked(home: &str, check: CheckSpec) -> Service {
    Service {
        checks: BTreeMap::from([(api(), check)]),
        ..service(home)
    }
}

fn put(bench: &mut Bench, what: Service) {
    let change = Change {
        who: "ops".to_owned(),
        why: String::new(),
        what: Amendment::PutService(shop(), Box::new(what)),
    };
    bench.step(bench.now(), &Input::Change(Box::new(change)));
}

fn result(check: &CheckSpec, about: &str, outcome: Outcome) -> CheckResult {
    CheckResult {
        service: shop(),
        check: api(),
        region: region(about),
        question: check.question(&region(about)).unwrap(),
        outcome,
        latency_us: 1_000,
        age: Duration::ZERO,
        detail: String::new(),
    }
}

fn told(agent: &str, results: Vec<CheckResult>) -> Input {
    Input::CheckResults(CheckResults {
        agent: AgentId::parse(agent).unwrap(),
        region: region(&agent[..1]),
        results,
    })
}

fn say(bench: &mut Bench, check: &CheckSpec, agent: &str, about: &str, outcome: Outcome) {
    let input = told(agent, vec![result(check, about, outcome)]);
    bench.step(bench.now(), &input);
}

/// Every agent says the same of every region that is checked.
fn say_all(bench: &mut Bench, check: &CheckSpec, outcome: impl Fn(&str, &str) -> Option<Outcome>) {
    let regions: Vec<RegionId> = check.at.keys().cloned().collect();
    for agent in bench.hosts.clone() {
        for about in &regions {
            if about.as_str() != &agent[..1]
                && let Some(outcome) = outcome(agent, about.as_str())
            {
                say(bench, check, agent, about.as_str(), outcome);
            }
        }
    }
}

fn standing(bench: &Bench, at: &str) -> (ReadinessState, Vec<Refusal>) {
    let view = bench.engine.view();
    let own = &view.readiness[&shop()][&region(at)];
    (own.state, own.reasons.clone())
}

fn runs_in(bench: &Bench) -> Option<RegionId> {
    bench.engine.view().services[&shop()].selected.clone()
}

#[test]
fn a_region_where_most_see_the_check_fail_is_refused_and_the_reason_names_who_saw_what() {
    let mut bench = Bench::four();
    let check = spec(&["a", "b"]);
    put(&mut bench, checked("b", check.clone()));
    bench.run(5, WELL);
    say_all(&mut bench, &check, |agent, about| {
        Some(match (about, &agent[..1]) {
            ("a", "c" | "d") => Outcome::Status,
            _ => Outcome::Ok,
        })
    });
    bench.run(1, WELL);
    let (state, reasons) = standing(&bench, "a");
    assert_eq!(state, ReadinessState::NotReady);
    assert_eq!(reasons[0].code, RefusalCode::CheckFailed);
    assert_eq!(
        reasons[0].detail,
        "check api fails from 2 of 3 regions: c (status), d (status); it passes from b"
    );
    assert_eq!(standing(&bench, "b").0, ReadinessState::Ready);
    assert_eq!(
        standing(&bench, "c").0,
        ReadinessState::Ready,
        "nobody is asked about c"
    );
}

#[test]
fn a_service_leaves_a_region_where_it_does_not_answer_and_says_why() {
    let mut bench = Bench::four();
    let check = spec(&["a", "b", "c", "d"]);
    put(&mut bench, checked("b", check.clone()));
    for second in 0..20 {
        say_all(&mut bench, &check, |_, about| {
            Some(match about == "b" && second >= 5 {
                true => Outcome::Refused,
                false => Outcome::Ok,
            })
        });
        bench.run(1, WELL);
    }
    let moved = bench.decisions.iter().find(|own| own.service.is_some());
    let moved = moved.unwrap();
    assert_ne!(runs_in(&bench), Some(region("b")));
    let Reason::NotReady { because } = &moved.reason else {
        panic!("{:?}", moved.reason);
    };
    assert!(
        because.starts_with("check api fails from 3 of 3 regions"),
        "{because}"
    );
}

#[test]
fn silence_is_unknown_and_keeps_a_service_from_coming_but_does_not_drive_it_away() {
    let mut bench = Bench::four();
    let check = spec(&["a", "b", "c", "d"]);
    put(&mut bench, checked("b", check.clone()));
    bench.run(40, WELL);
    for at in ["a", "b", "c", "d"] {
        let (state, reasons) = standing(&bench, at);
        assert_eq!(state, ReadinessState::Unknown, "{at}");
        assert_eq!(reasons[0].code, RefusalCode::Unchecked);
        assert_eq!(
            reasons[0].detail,
            "check api: nobody has said anything lately"
        );
    }
    assert_eq!(runs_in(&bench), Some(region("b")));
    // Once only c is known to answer, the service goes there and nowhere else.
    say_all(&mut bench, &check, |_, about| {
        (about == "c").then_some(Outcome::Ok)
    });
    bench.run(5, |from, to| {
        (!from.starts_with('b')).then_some((if to.starts_with('b') { 0 } else { 10 }, 20_000))
    });
    assert_eq!(runs_in(&bench), Some(region("c")));
}

#[test]
fn a_check_that_is_not_required_only_shows_that_nobody_asked() {
    let mut bench = Bench::four();
    let check = CheckSpec {
        required: false,
        ..spec(&["a", "b", "c", "d"])
    };
    put(&mut bench, checked("b", check));
    bench.run(5, WELL);
    assert_eq!(standing(&bench, "a").0, ReadinessState::Unknown);
    bench.run(5, |from, to| {
        (!from.starts_with('b')).then_some((if to.starts_with('b') { 0 } else { 10 }, 20_000))
    });
    assert_ne!(runs_in(&bench), Some(region("b")));
}

#[test]
fn a_result_ages_out_after_three_intervals_although_nothing_else_happens() {
    let mut bench = Bench::four();
    let check = spec(&["a"]);
    put(&mut bench, checked("b", check.clone()));
    bench.run(1, WELL);
    say(&mut bench, &check, "c1", "a", Outcome::Ok);
    bench.run(31, WELL);
    assert_eq!(standing(&bench, "a").0, ReadinessState::Ready);
    bench.run(2, WELL);
    assert_eq!(standing(&bench, "a").0, ReadinessState::Unknown);
    let view = bench.engine.view();
    let changes: Vec<_> = view
        .readiness_changes
        .iter()
        .filter(|own| own.region == region("a"))
        .collect();
    assert_eq!(changes.last().unwrap().before, Some(ReadinessState::Ready));
}

#[test]
fn what_was_found_long_ago_counts_from_when_it_was_found() {
    let mut bench = Bench::four();
    let check = spec(&["a"]);
    put(&mut bench, checked("b", check.clone()));
    bench.run(1, WELL);
    let old = |seconds| CheckResult {
        age: SECOND * seconds,
        ..result(&check, "a", Outcome::Ok)
    };
    bench.step(bench.now(), &told("c1", vec![old(40)]));
    bench.run(1, WELL);
    assert_eq!(standing(&bench, "a").0, ReadinessState::Unknown);
    bench.step(bench.now(), &told("c1", vec![old(30)]));
    bench.run(1, WELL);
    assert_eq!(standing(&bench, "a").0, ReadinessState::Ready);
    bench.run(2, WELL);
    assert_eq!(standing(&bench, "a").0, ReadinessState::Unknown);
}

#[test]
fn an_answer_to_another_question_does_not_count() {
    let mut bench = Bench::four();
    let before = spec(&["a"]);
    put(&mut bench, checked("b", before.clone()));
    bench.run(1, WELL);
    say(&mut bench, &before, "c1", "a", Outcome::Ok);
    let after = CheckSpec {
        body: Some("well".to_owned()),
        ..before.clone()
    };
    put(&mut bench, checked("b", after.clone()));
    say(&mut bench, &before, "d1", "a", Outcome::Ok);
    bench.run(1, WELL);
    assert_eq!(standing(&bench, "a").0, ReadinessState::Unknown);
    say(&mut bench, &after, "d1", "a", Outcome::Ok);
    bench.run(1, WELL);
    assert_eq!(standing(&bench, "a").0, ReadinessState::Ready);
}

#[test]
fn who_was_not_asked_has_no_say() {
    let mut bench = Bench::four();
    let check = CheckSpec {
        from: vec![region("c")],
        ..spec(&["a"])
    };
    put(&mut bench, checked("b", check.clone()));
    bench.run(1, WELL);
    for agent in ["a1", "d1"] {
        say(&mut bench, &check, agent, "a", Outcome::Ok);
    }
    bench.run(1, WELL);
    assert_eq!(standing(&bench, "a").0, ReadinessState::Unknown);
    say(&mut bench, &check, "c1", "a", Outcome::Ok);
    bench.run(1, WELL);
    assert_eq!(standing(&bench, "a").0, ReadinessState::Ready);
}

#[test]
fn agents_that_may_not_ask_say_nothing_and_are_named() {
    let mut bench = Bench::four();
    let check = spec(&["a"]);
    put(&mut bench, checked("b", check.clone()));
    bench.run(1, WELL);
    let barred = CheckResult {
        detail: "10.0.0.1 is outside checks.allow".to_owned(),
        ..result(&check, "a", Outcome::NotAllowed)
    };
    bench.step(bench.now(), &told("c1", vec![barred]));
    bench.run(1, WELL);
    assert_eq!(standing(&bench, "a").0, ReadinessState::Unknown);
    let ranking = bench.engine.view().service_ranking(&shop()).unwrap();
    assert_eq!(
        ranking.candidate(&region("a")).unwrap().reasons[0].detail,
        "check api: nobody may ask: c (10.0.0.1 is outside checks.allow)"
    );
}

/// The agents of c see everything fail that others see well: the fault is theirs, and so is what they say of checks.
#[test]
fn an_observer_at_fault_loses_its_say() {
    let mut bench = Bench::new(&["a", "b", "c", "d"], &["a1", "b1", "c1", "d1"]);
    let check = CheckSpec {
        from: vec![region("c"), region("d")],
        ..spec(&["a"])
    };
    put(&mut bench, checked("b", check.clone()));
    bench.run(3, WELL);
    say(&mut bench, &check, "c1", "a", Outcome::Timeout);
    bench.run(1, WELL);
    assert_eq!(standing(&bench, "a").0, ReadinessState::NotReady);
    bench.run(8, |from, _| {
        Some((if from == "c1" { 0 } else { 10 }, 20_000))
    });
    say(&mut bench, &check, "c1", "a", Outcome::Timeout);
    bench.run(1, |from, _| {
        Some((if from == "c1" { 0 } else { 10 }, 20_000))
    });
    assert_eq!(standing(&bench, "a").0, ReadinessState::Unknown);
    say(&mut bench, &check, "d1", "a", Outcome::Ok);
    bench.run(1, |from, _| {
        Some((if from == "c1" { 0 } else { 10 }, 20_000))
    });
    assert_eq!(standing(&bench, "a").0, ReadinessState::Ready);
}

/// What the agents of each region of [`OBSERVERS`] say, if anything.
type Said = Vec<Vec<Option<Outcome>>>;

fn said() -> impl Strategy<Value = Said> {
    let outcome = prop_oneof![
        3 => Just(Some(Outcome::Ok)),
        3 => Just(Some(Outcome::Timeout)),
        1 => Just(Some(Outcome::NotAllowed)),
        1 => Just(None),
    ];
    prop::collection::vec(prop::collection::vec(outcome, 1..=3), OBSERVERS.len())
}

fn inputs(check: &CheckSpec, said: &Said) -> Vec<Input> {
    let mut inputs = Vec::new();
    for (own, agents) in OBSERVERS.iter().zip(said) {
        for (n, outcome) in agents.iter().enumerate() {
            if let Some(outcome) = outcome {
                inputs.push(told(
                    &format!("{own}{n}"),
                    vec![result(check, "a", *outcome)],
                ));
            }
        }
    }
    inputs
}

fn finding(inputs: &[Input]) -> (Finding, bool) {
    let regions: Vec<&str> = ["a", "b"].into_iter().chain(OBSERVERS).collect();
    let mut bench = Bench::new(&regions, &["a1", "b1"]);
    let check = spec(&["a"]);
    let what = checked("b", check);
    put(&mut bench, what.clone());
    bench.run(2, WELL);
    for input in inputs {
        bench.step(bench.now(), input);
    }
    bench.run(1, WELL);
    let view = bench.engine.view();
    let about = region("a");
    let found = view
        .checks
        .findings(view.now, &shop(), &what, &about)
        .next()
        .unwrap();
    let refused = standing(&bench, "a")
        .1
        .iter()
        .any(|own| own.code == RefusalCode::CheckFailed);
    (found.finding, refused)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A check fails if and only if more regions see it fail than pass, where a region sees it pass if one of its agents
    /// does; the order in which they say so changes nothing.
    #[test]
    fn the_majority_of_the_regions_that_say_something_decides(said in said(), turn in 0_usize..15) {
        let check = spec(&["a"]);
        let passes = said.iter().filter(|own| own.contains(&Some(Outcome::Ok))).count();
        let fails = said.iter().filter(|own| own.contains(&Some(Outcome::Timeout)) && !own.contains(&Some(Outcome::Ok))).count();
        let expected = match (passes, fails) {
            (0, 0) => Finding::Silent,
            (passes, fails) if fails > passes => Finding::Fails,
            (passes, fails) if fails == passes => Finding::Divided,
            _ => Finding::Passes,
        };
        let mut inputs = inputs(&check, &said);
        let found = finding(&inputs);
        prop_assert_eq!(found.0, expected);
        prop_assert_eq!(found.1, matches!(expected, Finding::Fails | Finding::Divided));
        let turn = turn.min(inputs.len());
        inputs.rotate_left(turn);
        prop_assert_eq!(finding(&inputs), found);
    }

    /// One more region that sees a check pass never makes it fail, and one that sees it fail never makes it pass.
    #[test]
    fn one_more_voice_never_turns_the_verdict_against_itself(said in said(), at in 0..OBSERVERS.len()) {
        let check = spec(&["a"]);
        let rank = |finding| match finding {
            Finding::Fails => 0,
            Finding::Divided => 1,
            Finding::Silent => 2,
            Finding::Passes => 3,
        };
        let mut better = said;
        better[at] = vec![None];
        let without = finding(&inputs(&check, &better)).0;
        better[at] = vec![Some(Outcome::Ok)];
        let with = finding(&inputs(&check, &better)).0;
        prop_assert!(rank(with) >= rank(without) || without == Finding::Silent);
        better[at] = vec![Some(Outcome::Refused)];
        let with = finding(&inputs(&check, &better)).0;
        prop_assert!(rank(with) <= rank(without));
    }
}
