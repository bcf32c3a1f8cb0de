//! Whose fault it is, who may be selected, and what signals do: one fact each, told by reports alone.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod bench;

use std::collections::BTreeMap;

use bench::{Bench, Rule, SECOND, START, WELL, path, region, report};
use leeward_common::{
    id::{AgentId, RegionId, SourceId},
    report::{LocalHealth, Path, Report, Silence, Window},
};
use leeward_engine::{
    decision::Reason,
    input::{Input, Metric, Reports, Subject},
    select::{Candidate, Perspective, Ranking, RefusalCode, Request, Term},
    view::{RegionState, View, Vote},
};

fn candidate(view: &View, primary: &str, id: &str) -> Candidate {
    view.ranking(&region(primary))
        .candidate(&region(id))
        .unwrap()
        .clone()
}

fn refusal(view: &View, primary: &str, id: &str) -> Option<RefusalCode> {
    candidate(view, primary, id)
        .reasons
        .first()
        .map(|refusal| refusal.code)
}

fn state(view: &View, id: &str) -> RegionState {
    view.regions[&region(id)].state
}

fn vote(view: &View, id: &str) -> Option<Vote> {
    view.agents
        .get(&AgentId::parse(id).unwrap())
        .map(|agent| agent.vote)
}

#[test]
fn a_region_that_everybody_loses_is_down() {
    let mut bench = Bench::four();
    bench.run(5, WELL);
    let view = bench.run(1, |from, to| {
        Some(if (from.to_owned() + to).contains('b') {
            (0, 0)
        } else {
            (10, 20_000)
        })
    });
    assert_eq!(state(&view, "b"), RegionState::Down);
    assert_eq!(refusal(&view, "a", "b"), Some(RefusalCode::Down));
    assert_eq!(
        view.regions[&region("b")].detail,
        "6 of 6 observers in 3 regions see total loss"
    );
}

#[test]
fn one_observer_that_still_reaches_it_keeps_a_region_up() {
    let mut bench = Bench::four();
    bench.run(5, WELL);
    let view = bench.run(3, |from, to| {
        let lost = to.starts_with('b') && from != "d2";
        Some(if lost { (0, 0) } else { (10, 20_000) })
    });
    assert_eq!(state(&view, "b"), RegionState::Up);
}

#[test]
fn a_single_region_of_observers_is_no_quorum() {
    let mut bench = Bench::four();
    bench.run(5, WELL);
    let view = bench.run(6, |from, to| {
        let lost = to.starts_with('b');
        from.starts_with('a')
            .then_some(if lost { (0, 0) } else { (10, 20_000) })
    });
    assert_eq!(state(&view, "b"), RegionState::Unknown);
}

#[test]
fn with_only_one_other_region_that_one_is_the_quorum() {
    let mut bench = Bench::new(&["a", "b"], &["a1", "b1"]);
    bench.run(5, WELL);
    let view = bench.run(6, |from, _| (from == "a1").then_some((0, 0)));
    assert_eq!(state(&view, "b"), RegionState::Down);
}

#[test]
fn silence_is_unknown_and_not_down() {
    let mut bench = Bench::four();
    bench.run(5, WELL);
    // Nobody probes b any more, and its agents say nothing.
    let view = bench.run(6, |from, to| {
        (!from.starts_with('b') && !to.starts_with('b')).then_some((10, 20_000))
    });
    assert_eq!(state(&view, "b"), RegionState::Unknown);
    assert_eq!(refusal(&view, "a", "b"), Some(RefusalCode::Stale));
    assert_eq!(vote(&view, "b1"), Some(Vote::Silent));
}

/// Between a and b nobody measures; others answer after 20 ms, and b after 80.
const WITHOUT_AB: Rule = |from, to| {
    let ends = [&from[..1], &to[..1]];
    match (ends.contains(&"a"), ends.contains(&"b")) {
        (true, true) => None,
        (false, true) => Some((10, 80_000)),
        _ => Some((10, 20_000)),
    }
};

#[test]
fn a_link_that_nobody_measures_is_judged_by_what_is_expected_of_it() {
    let mut bench = Bench::four();
    let view = bench.run(30, WITHOUT_AB);
    let expected = candidate(&view, "a", "b");
    assert!(expected.eligible && expected.predicted, "{expected:?}");
    let rtt = expected.rtt_p50_us.unwrap();
    assert!((60_000.0..100_000.0).contains(&rtt.value), "{rtt:?}");
    assert!(rtt.low < rtt.value && rtt.value < rtt.high, "{rtt:?}");
    let mut contributions = expected.contributions.iter();
    let latency = contributions.find(|own| own.term == Term::LatencyP50);
    let words = &latency.unwrap().detail;
    assert!(words.contains("nobody measures"), "{words}");
    let measured = candidate(&view, "a", "c");
    assert!(!measured.predicted && measured.log_low > expected.log_low);
    // Once it is measured, that counts.
    let view = bench.run(2, WELL);
    assert!(!candidate(&view, "a", "b").predicted);
}

#[test]
fn what_others_lose_is_not_expected_to_be_reached() {
    let mut bench = Bench::four();
    bench.run(20, WITHOUT_AB);
    let view = bench.run(3, |from, to| {
        WITHOUT_AB(from, to).map(|own| if to.starts_with('b') { (0, 0) } else { own })
    });
    assert_eq!(refusal(&view, "a", "b"), Some(RefusalCode::Down));
}

#[test]
fn a_policy_may_insist_on_measurements() {
    let mut policy = bench::policy(&["a", "b", "c", "d"]);
    policy.evidence.predict = false;
    let mut bench = Bench::four();
    bench.engine = leeward_engine::Engine::new(policy);
    let view = bench.run(30, WITHOUT_AB);
    assert_eq!(refusal(&view, "a", "b"), Some(RefusalCode::NoEvidence));
}

#[test]
fn an_agent_to_whom_everything_fails_is_itself_at_fault() {
    let mut bench = Bench::four();
    bench.run(5, WELL);
    let view = bench.run(3, |from, to| {
        Some(if from == "a1" || to == "a1" {
            (0, 0)
        } else {
            (10, 20_000)
        })
    });
    assert_eq!(vote(&view, "a1"), Some(Vote::AtFault));
    assert_eq!(vote(&view, "a2"), Some(Vote::Counts));
    assert!(
        view.regions
            .values()
            .all(|region| region.state == RegionState::Up)
    );
    // Neither what it measured nor what others measured of its host counts as loss of a link.
    assert_eq!(candidate(&view, "a", "b").loss.unwrap().value, 0.0);
    assert_eq!(candidate(&view, "b", "a").loss.unwrap().value, 0.0);
}

#[test]
fn what_an_agent_measured_while_it_was_at_fault_does_not_count_once_it_is_well() {
    let mut bench = Bench::new(&["a", "b", "c"], &["a1", "b1", "c1"]);
    let from_a = |answered: u32| {
        move |from: &str, _: &str| Some((if from == "a1" { answered } else { 10 }, 20_000))
    };
    bench.run(5, WELL);
    let view = bench.run(4, from_a(0));
    assert_eq!(vote(&view, "a1"), Some(Vote::AtFault));
    // In the window in which it gets well half is lost.
    bench.run(1, from_a(5));
    for second in 0..12 {
        let view = bench.run(1, WELL);
        assert_eq!(vote(&view, "a1"), Some(Vote::Counts));
        let link = &view.links[&(region("a"), region("b"))].estimates;
        assert_eq!(link.loss.unwrap().value, 0.0, "second {second}");
        // What it sent before it was well becomes overdue up to a second later. From then on it counts again, and what it had
        // measured well before counts too.
        let counts = usize::from(second > 0);
        let fresh = link.fresh_agents(view.now, &view.policy).count();
        assert_eq!(fresh, counts, "second {second}");
    }
}

/// A report of an instant within the window that has just begun.
fn part(bench: &Bench, from: &str, ms: u32, reports: Vec<(Path, Report)>) -> Reports {
    let window = Window {
        start: bench.now(),
        length: SECOND,
    };
    let (table, rows) = Reports::table_of(reports);
    Reports {
        agent: AgentId::parse(from).unwrap(),
        region: region(&from[..1]),
        window,
        until: window.start + SECOND * ms / 1_000,
        health: None,
        table,
        rows,
    }
}

#[test]
fn a_region_is_down_as_soon_as_its_observers_fall_silent_whatever_their_windows() {
    let mut bench = Bench::four();
    bench.run(5, WELL);
    let silent = |unanswered, ms| {
        let mut report = report((0, 0));
        report.counts.overdue = unanswered;
        report.counts.silence = Some(Silence {
            unanswered,
            lasts: SECOND * ms / 1_000,
        });
        report
    };
    let observers: Vec<_> = (bench.hosts.iter().copied())
        .filter(|from| !from.starts_with('b'))
        .collect();
    // Three probes are too few, and then four are enough.
    for (ms, unanswered, state_of_b) in [(520, 3, RegionState::Up), (560, 4, RegionState::Down)] {
        for from in &observers {
            let paths = ["b1", "b2"].map(|to| (path(to), silent(unanswered, ms)));
            let reports = part(&bench, from, ms, paths.into());
            bench.step(reports.until, &Input::Reports(reports));
        }
        bench.step(bench.now() + SECOND * (ms + 50) / 1_000, &Input::Tick);
        assert_eq!(state(&bench.engine.view(), "b"), state_of_b);
    }
}

#[test]
fn an_agent_in_trouble_of_its_own_has_no_vote_until_a_while_after() {
    let mut bench = Bench::four();
    bench.run(5, WELL);
    let mut reports = part(&bench, "a1", 10, Vec::new());
    reports.health = Some(LocalHealth {
        due: 60,
        lateness_mean_us: 250_000,
        ..LocalHealth::default()
    });
    bench.step(reports.until, &Input::Reports(reports));
    let view = bench.run(2, WELL);
    assert_eq!(vote(&view, "a1"), Some(Vote::Suspect));
    assert_eq!(vote(&view, "a2"), Some(Vote::Counts));
    let view = bench.run(5, WELL);
    assert_eq!(vote(&view, "a1"), Some(Vote::Counts));
}

#[test]
fn the_region_is_not_down_on_the_word_of_observers_in_trouble_of_their_own() {
    let mut bench = Bench::four();
    bench.run(5, WELL);
    let lost: Rule = |_, to| {
        Some(match to.starts_with('b') {
            true => (0, 0),
            false => (10, 20_000),
        })
    };
    for second in 0..4 {
        for from in ["a1", "a2", "c1", "c2", "d1", "d2"] {
            let mut reports = part(&bench, from, 10, Vec::new());
            reports.health = Some(LocalHealth {
                due: 60,
                not_sent: 40,
                ..LocalHealth::default()
            });
            bench.step(reports.until, &Input::Reports(reports));
        }
        let view = bench.run(1, lost);
        assert_ne!(state(&view, "b"), RegionState::Down, "second {second}");
    }
}

#[test]
fn observers_that_all_see_nothing_are_cut_off_themselves() {
    let mut bench = Bench::four();
    bench.run(5, WELL);
    let before = bench.decisions.len();
    let view = bench.run(20, |_, _| Some((0, 0)));
    assert!(
        view.regions
            .values()
            .all(|region| region.state == RegionState::Unknown)
    );
    assert_eq!(bench.decisions.len(), before);
}

#[test]
fn observers_that_come_back_one_by_one_move_nothing() {
    let mut bench = Bench::four();
    bench.run(5, WELL);
    let before = bench.decisions.len();
    bench.run(30, |_, _| None);
    bench.run(3, |from, _| from.starts_with('c').then_some((10, 20_000)));
    bench.run(10, WELL);
    assert_eq!(bench.decisions.len(), before);
}

/// All were cut off from each other and from the aggregator. Joined again, those near each other hear each other at once, and those
/// far off only after the window's end.
#[test]
fn who_is_joined_again_does_not_hold_its_own_silence_against_others() {
    let mut bench = Bench::four();
    bench.run(5, WELL);
    let before = bench.decisions.len();
    bench.run(30, |_, _| None);
    let row = |answers, unanswered| {
        let mut report = report((answers, 30_000));
        report.counts.overdue = 10 - answers;
        report.counts.silence = Some(Silence {
            unanswered,
            lasts: SECOND * unanswered / 10,
        });
        report
    };
    let near = ["a", "d"];
    let of = |bench: &Bench, from: &str| {
        let others = bench.hosts.iter().filter(|to| to[..1] != from[..1]);
        let sees = |to: &&&str| match near.contains(&&from[..1]) && near.contains(&&to[..1]) {
            true => (path(to), row(1, 0)),
            false => (path(to), row(0, 310)),
        };
        let rows = others.map(|to| sees(&to)).collect();
        part(bench, from, 1_000, rows)
    };
    for from in bench.hosts.clone() {
        let reports = of(&bench, from);
        bench.step(reports.until, &Input::Reports(reports));
    }
    bench.step(bench.now() + SECOND * 1_050 / 1_000, &Input::Tick);
    let view = bench.engine.view();
    assert_ne!(state(&view, "b"), RegionState::Down);
    assert_eq!(state(&view, "a"), RegionState::Up);
    assert_eq!(bench.decisions.len(), before);
    // What stays silent from then on is down all the same.
    bench.second += 1;
    let view = bench.run(3, |from, to| match from[..1] == *"b" || to[..1] == *"b" {
        true => Some((0, 0)),
        false => Some((10, 20_000)),
    });
    assert_eq!(state(&view, "b"), RegionState::Down);
}

#[test]
fn a_cut_between_primary_and_candidate_is_left_at_once() {
    let mut bench = Bench::four();
    bench.run(5, WELL);
    let view = bench.run(2, |from, to| {
        let ends = [&from[..1], &to[..1]];
        Some(if ends.contains(&"a") && ends.contains(&"b") {
            (0, 0)
        } else {
            (10, 20_000)
        })
    });
    assert_eq!(state(&view, "b"), RegionState::Up);
    assert_eq!(refusal(&view, "a", "b"), Some(RefusalCode::Unreachable));
    let moved = bench
        .decisions
        .iter()
        .find(|own| own.reason == Reason::Unreachable)
        .unwrap();
    assert_eq!(
        (&moved.primary, &moved.from),
        (&region("a"), &Some(region("b")))
    );
}

#[test]
fn a_lost_primary_is_judged_for_by_the_others() {
    let mut bench = Bench::four();
    bench.run(5, WELL);
    let view = bench.run(7, |from, to| {
        if (from.to_owned() + to).contains('a') {
            return (!from.starts_with('a')).then_some((0, 0));
        }
        let far = from.starts_with('d') || to.starts_with('d');
        Some((10, if far { 90_000 } else { 20_000 }))
    });
    assert_eq!(state(&view, "a"), RegionState::Down);
    let ranking = view.ranking(&region("a"));
    assert_eq!(ranking.perspective, Perspective::Survivors);
    assert!(ranking.candidates.iter().all(|own| own.eligible));
    // b is seen from c at 20 ms and from d at 90 ms; of two the farther counts.
    let rtt_p50_us = candidate(&view, "a", "b").rtt_p50_us.unwrap().value;
    assert!((rtt_p50_us / 90_000.0 - 1.0).abs() < 0.02, "{rtt_p50_us}");
    assert!(ranking.candidates.iter().all(|own| own.seen_from.is_none()));
}

#[test]
fn a_dead_host_is_not_a_lossy_link() {
    let mut bench = Bench::four();
    bench.run(5, WELL);
    let view = bench.run(8, |from, to| {
        (from != "b2").then_some(if to == "b2" { (0, 0) } else { (10, 20_000) })
    });
    assert_eq!(state(&view, "b"), RegionState::Up);
    assert_eq!(candidate(&view, "a", "b").loss.unwrap().value, 0.0);
}

#[test]
fn what_was_kept_during_a_silence_is_not_fresh() {
    let mut bench = Bench::new(&["a", "b"], &["a1", "b1"]);
    bench.run(10, WELL);
    let old = START + SECOND * 10;
    bench.second = 40;
    let (table, rows) = Reports::table_of([(path("b1"), report((10, 20_000)))]);
    let reports = Reports {
        agent: AgentId::parse("a1").unwrap(),
        region: region("a"),
        window: Window {
            start: old,
            length: SECOND,
        },
        until: old + SECOND,
        health: None,
        table,
        rows,
    };
    bench.step(bench.now(), &Input::Reports(reports));
    bench.step(bench.now() + SECOND / 10, &Input::Tick);
    assert_eq!(
        refusal(&bench.engine.view(), "a", "b"),
        Some(RefusalCode::Stale)
    );
}

#[test]
fn the_regions_gates_are_named_in_order() {
    let mut bench = Bench::four();
    assert_eq!(
        refusal(&bench.engine.view(), "a", "b"),
        Some(RefusalCode::NoEvidence)
    );
    let view = bench.run(3, WELL);
    let ranking = rank(&view, &["a", "x", "b"], None);
    let codes: Vec<_> = ranking
        .candidates
        .iter()
        .map(|own| own.reasons.first().map(|own| own.code))
        .collect();
    assert_eq!(
        codes,
        [
            None,
            Some(RefusalCode::IsPrimary),
            Some(RefusalCode::UnknownRegion)
        ]
    );
}

#[test]
fn configured_weights_decide_between_equals() {
    let mut bench = Bench::four();
    let view = bench.run(3, WELL);
    let weights = BTreeMap::from([(region("d"), 5.0)]);
    let ranking = rank(&view, &["b", "c", "d"], Some(&weights));
    assert_eq!(ranking.best().unwrap().region, region("d"));
    let plain = rank(&view, &["b", "c", "d"], None);
    assert_eq!(plain.best().unwrap().region, region("b"));
}

/// Ranks for region `a`.
fn rank(view: &View, asked: &[&str], multipliers: Option<&BTreeMap<RegionId, f64>>) -> Ranking {
    let primary = region("a");
    let request = Request {
        candidates: asked.iter().map(|name| region(name)).collect(),
        multipliers,
        ..Request::of_region(&view.policy, &primary)
    };
    leeward_engine::select::rank(&view.picture(), &request)
}

fn network(view: &View) -> f64 {
    candidate(view, "a", "b").network.unwrap()
}

#[test]
fn a_signal_pulls_no_further_than_its_source_may_and_expires() {
    let mut bench = Bench::four();
    let neutral = network(&bench.run(3, WELL));
    bench.signal(
        "weak",
        Subject::Region(region("b")),
        Metric::Health,
        0.01,
        None,
    );
    let view = bench.run(1, WELL);
    assert!((network(&view) * 1.5 / neutral - 1.0).abs() < 1e-9);
    let source = Term::Signal(SourceId::parse("weak").unwrap());
    let own = candidate(&view, "a", "b");
    let pull = own
        .contributions
        .iter()
        .find(|own| own.term == source)
        .unwrap();
    assert_eq!(pull.detail, "health 0.01 (cut to the bound of its source)");
    assert_eq!(network(&bench.run(11, WELL)), neutral);
}

#[test]
fn of_several_signals_about_one_measure_the_gloomiest_counts() {
    let mut bench = Bench::four();
    let link = || Subject::Link(region("a"), region("b"));
    let neutral = network(&bench.run(3, WELL));
    bench.signal("strong", link(), Metric::LossRatio, 0.05, None);
    let one = network(&bench.run(1, WELL));
    assert!(
        (one / neutral - 0.95f64.powi(12)).abs() < 1e-6,
        "{one} {neutral}"
    );
    bench.signal("weak", link(), Metric::LossRatio, 0.001, None);
    assert_eq!(network(&bench.run(1, WELL)), one);
}

#[test]
fn a_repeated_key_an_unknown_source_and_nonsense_change_nothing() {
    let mut bench = Bench::four();
    bench.run(3, WELL);
    let subject = || Subject::Region(region("b"));
    bench.signal("strong", subject(), Metric::Health, 0.9, Some("k"));
    bench.run(1, WELL);
    bench.signal("strong", subject(), Metric::Health, 0.1, Some("k"));
    bench.signal("nobody", subject(), Metric::Health, 0.1, None);
    bench.signal("strong", subject(), Metric::Health, f64::NAN, None);
    bench.signal("strong", subject(), Metric::Health, -1.0, None);
    bench.signal("strong", subject(), Metric::LossRatio, 0.5, None);
    let view = bench.run(1, WELL);
    assert_eq!(view.signals.len(), 1);
    assert_eq!(view.signals[0].value, 0.9);
}

#[test]
fn known_bandwidth_counts_and_unknown_bandwidth_says_so() {
    let mut bench = Bench::four();
    let before = bench.run(3, WELL);
    let neutral = candidate(&before, "a", "b");
    let unknown = neutral
        .contributions
        .iter()
        .find(|own| own.term == Term::Bandwidth)
        .unwrap();
    assert_eq!(
        (unknown.log_value, unknown.detail.as_str()),
        (0.0, "unknown, counted as 100 Mbit/s")
    );
    let link = Subject::Link(region("b"), region("a"));
    bench.signal("strong", link, Metric::BandwidthBps, 1e6, None);
    assert!(network(&bench.run(1, WELL)) < network(&before) / 10.0);
}
