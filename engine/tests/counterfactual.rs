//! What would change the answer is told by value: at that value the order turns, and not before.

#![expect(clippy::unwrap_used, reason = "tests")]

mod bench;

use std::sync::Arc;

use bench::{Bench, region};
use leeward_common::id::RegionId;
use leeward_engine::{
    counterfactual::counterfactuals,
    intent::Owner,
    select::Term,
    view::{Estimates, Pair, View},
};

/// Unlike links, so that no two candidates are alike: `b` loses some, `c` is far, `d` is farther and jitters.
fn unlike(from: &str, to: &str) -> Option<(u32, u32)> {
    let mut ends = [&from[..1], &to[..1]];
    ends.sort_unstable();
    Some(match ends {
        ["a", "b"] => (10, 20_000),
        ["a", "c"] => (10, 45_000),
        ["a", "d"] => (10, 60_000),
        _ => (10, 80_000),
    })
}

fn with(view: &View, candidate: &RegionId, term: &Term, value: f64) -> View {
    let pair = Pair::new(&region("a"), candidate);
    let mut changed = view.clone();
    let own = Arc::make_mut(Arc::make_mut(&mut changed.pairs).get_mut(&pair).unwrap());
    let Estimates {
        rtt_p50_us,
        rtt_p99_us,
        jitter_us,
        loss,
        ..
    } = &mut own.estimates;
    let measure = match term {
        Term::LatencyP50 => rtt_p50_us,
        Term::LatencyP99 => rtt_p99_us,
        Term::Jitter => jitter_us,
        Term::Loss => loss,
        term => panic!("{term:?} is not measured here"),
    };
    measure.as_mut().unwrap().value = value;
    changed
}

fn first(view: &View, candidate: &RegionId, rival: &RegionId) -> bool {
    let ranking = view.ranking(&region("a"));
    let log = |region| ranking.candidate(region).unwrap().log_score().unwrap();
    log(candidate) > log(rival)
}

#[test]
fn at_the_value_that_is_told_the_order_turns_and_not_before() {
    let mut bench = Bench::four();
    let view = bench.run(10, unlike);
    let owner = Owner::Region(region("a"));
    let selected = view.selections[&region("a")].selected.clone().unwrap();
    let all = counterfactuals(&view, &owner);
    assert_eq!(all.iter().filter(|own| own.selected).count(), 1);
    let runner_up = view.ranking(&region("a")).candidates[1].region.clone();
    let mut turned = 0;
    for own in &all {
        let rival = if own.selected { &runner_up } else { &selected };
        for flip in &own.flips {
            let Some(even) = flip.even else { continue };
            // A millionth beyond it, and a millionth short of it, seen from where the measure is now.
            let beyond = even + (even - flip.now) * 1e-6;
            let short = even - (even - flip.now) * 1e-6;
            let is_first = |value: f64| {
                first(
                    &with(&view, &own.region, &flip.term, value),
                    &own.region,
                    rival,
                )
            };
            assert_eq!(is_first(short), own.selected, "{own:?} {flip:?}");
            assert_eq!(is_first(beyond.max(0.0)), !own.selected, "{own:?} {flip:?}");
            turned += 1;
        }
    }
    assert!(turned >= 4, "{all:?}");
}

#[test]
fn the_margin_lies_beyond_the_order() {
    let mut bench = Bench::four();
    let view = bench.run(10, unlike);
    for own in counterfactuals(&view, &Owner::Region(region("a"))) {
        for flip in own.flips {
            if let (Some(even), Some(moves)) = (flip.even, flip.moves) {
                let (even, moves) = ((even - flip.now).abs(), (moves - flip.now).abs());
                assert!(moves >= even, "{even} {moves}");
            }
        }
    }
}

#[test]
fn what_no_value_can_change_is_left_out() {
    let mut bench = Bench::four();
    let view = bench.run(10, |from, to| {
        let far = from.starts_with('d') || to.starts_with('d');
        Some((10, if far { 900_000 } else { 10_000 }))
    });
    let all = counterfactuals(&view, &Owner::Region(region("a")));
    let far = all.iter().find(|own| own.region == region("d")).unwrap();
    let loss = far.flips.iter().find(|flip| flip.term == Term::Loss);
    assert_eq!(loss, None, "it loses nothing and cannot lose less");
    assert!(counterfactuals(&view, &Owner::Region(region("z"))).is_empty());
    assert!(counterfactuals(&Bench::four().engine.view(), &Owner::Region(region("a"))).is_empty());
}
