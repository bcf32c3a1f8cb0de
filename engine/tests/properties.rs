//! What always holds, whatever the engine is told.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{collections::BTreeMap, time::Duration};

use leeward_common::{
    histogram::Schema,
    id::{AgentId, RegionId, SourceId, TargetId},
    report::{Class, Counts, Path, ProbeKind, Report, Rtt, Window},
    time::Timestamp,
};
use leeward_engine::{
    Engine,
    decision::{Decision, Reason},
    effect::Effect,
    input::{AgentConnected, Input, Metric, Reports, Signal, Subject},
    policy::{OutsideTarget, Policy, Probing, Region, SignalSource, Steadiness, defaults},
};
use proptest::prelude::*;

const REGIONS: [&str; 4] = ["a", "b", "c", "d"];
const START_US: u64 = 1_767_225_600_000_000;
const SECOND: Duration = Duration::from_secs(1);

fn region(n: usize) -> RegionId {
    RegionId::parse(REGIONS[n]).unwrap()
}

fn policy() -> Policy {
    let place = |(n, id): (usize, &&str)| {
        let region = Region {
            latitude: 10.0 * n as f64,
            longitude: 15.0 * n as f64,
            capacity: 1.0 + n as f64 / 10.0,
            labels: BTreeMap::new(),
            risk_groups: Default::default(),
            prefixes: Default::default(),
            origins: Default::default(),
        };
        (RegionId::parse(id).unwrap(), region)
    };
    let source = SignalSource {
        max_factor: 3.0,
        max_ttl: SECOND * 30,
    };
    Policy {
        regions: REGIONS.iter().enumerate().map(place).collect(),
        failovers: BTreeMap::new(),
        probing: Probing {
            interval: Duration::from_millis(100),
            window: SECOND,
            expiry: SECOND * 3,
            kinds: vec![ProbeKind::Icmp],
            schema: Schema::TwoDigits,
            flows: 4,
        },
        targets: Vec::<OutsideTarget>::new(),
        signal_sources: BTreeMap::from([(SourceId::parse("s").unwrap(), source)]),
        evaluate_every: Duration::from_millis(50),
        evidence: defaults::evidence(Duration::from_millis(100), SECOND),
        weights: defaults::weights(),
        doubt: defaults::doubt(),
        steadiness: Steadiness {
            confirm: SECOND,
            hold_first: SECOND * 5,
            hold_max: SECOND * 20,
            silence: SECOND * 5,
            ..defaults::steadiness()
        },
        capacity: Default::default(),
        routing: Default::default(),
    }
}

/// A policy under which evidence and holds outlast the time after which an engine without inputs rests.
fn slow_policy() -> Policy {
    let mut policy = policy();
    policy.evidence.stale_after = SECOND * 110;
    policy.steadiness.hold_first = SECOND * 75;
    policy.steadiness.hold_max = SECOND * 75;
    policy
}

/// What a window of a path was like.
#[derive(Clone, Copy, Debug)]
struct Weather {
    rtt_us: u32,
    spread_us: u32,
    answered: u32,
    unanswered: u32,
}

/// Nothing is answered.
const NOTHING: Weather = Weather {
    rtt_us: 1,
    spread_us: 0,
    answered: 0,
    unanswered: 10,
};

const REPORT_DELAY: Duration = Duration::from_millis(25);

fn weather() -> impl Strategy<Value = Weather> {
    let unanswered = prop_oneof![4 => Just(0u32), 2 => 0u32..10, 1 => Just(10u32)];
    (1_000u32..200_000, 0u32..20_000, unanswered).prop_map(|(rtt_us, spread_us, unanswered)| {
        Weather {
            rtt_us,
            spread_us,
            answered: 10 - unanswered,
            unanswered,
        }
    })
}

fn report(weather: Weather) -> Report {
    let mut counts = Counts {
        scheduled: 10,
        overdue: weather.unanswered,
        ..Counts::default()
    };
    let mut rtt = Rtt::empty(Schema::TwoDigits);
    for n in 0..weather.answered {
        counts.end(Class::Replied);
        rtt.record(weather.rtt_us + weather.spread_us * n / 10);
    }
    Report { counts, rtt }
}

fn reports(from: usize, start: Timestamp, weathers: &[Weather; 4]) -> Input {
    let path = |to: usize| Path {
        target: TargetId::parse(&format!("{}-1", REGIONS[to])).unwrap(),
        kind: ProbeKind::Icmp,
        region: Some(region(to)),
    };
    // Now and then a path is not probed.
    let second = start.as_unix_us() / 1_000_000;
    let skipped = |to: usize| (second + to as u64 * 3 + from as u64).is_multiple_of(11);
    let others = (0..REGIONS.len()).filter(|&to| to != from && !skipped(to));
    let (table, rows) = Reports::table_of(others.map(|to| (path(to), report(weathers[to]))));
    Input::Reports(Reports {
        agent: AgentId::parse(&format!("{}-1", REGIONS[from])).unwrap(),
        region: region(from),
        window: Window {
            start,
            length: SECOND,
        },
        until: start + SECOND,
        health: None,
        table,
        rows,
    })
}

/// Some seconds of reports, with silences, late deliveries and signals: inputs in order of their stamps, several of one
/// stamp.
fn history() -> impl Strategy<Value = Vec<(Timestamp, Input)>> {
    let weathers = || [weather(), weather(), weather(), weather()];
    // A region's weather lasts for a while, or nothing would ever be confirmed.
    let moods = prop::array::uniform4(0u32..10);
    // Whose own host fails, and how long nobody is heard of afterwards.
    let at_fault = prop_oneof![3 => Just(None), 1 => (0..REGIONS.len()).prop_map(Some)];
    let gap = prop_oneof![8 => Just(0u64), 1 => 0u64..200];
    let spell = (weathers(), 1usize..8, moods, at_fault, gap);
    let signals = (0usize..4, 0.0f64..1.0, 0u64..20, 0u64..40);
    let spells = prop::collection::vec(spell, 1..8);
    (spells, prop::collection::vec(signals, 0..4), 0u64..3).prop_map(|(spells, signals, skew)| {
        let mut inputs = Vec::new();
        for n in 0..REGIONS.len() {
            inputs.push((Timestamp::from_unix_us(START_US), connected(n)));
        }
        let mut second = 0;
        for (weathers, length, mood, at_fault, gap) in spells {
            for _ in 0..length {
                let start = Timestamp::from_unix_us(START_US + second * 1_000_000);
                for (from, &mood) in mood.iter().enumerate() {
                    let delay = match mood {
                        0 => continue,
                        1 => SECOND * 4 + REPORT_DELAY,
                        _ => REPORT_DELAY,
                    };
                    let skewed = start + SECOND * (skew as u32) * (from as u32);
                    let weathers = if at_fault == Some(from) {
                        [NOTHING; 4]
                    } else {
                        weathers
                    };
                    inputs.push((start + SECOND + delay, reports(from, skewed, &weathers)));
                }
                second += 1;
            }
            second += gap;
        }
        for (n, health, at, ttl) in signals {
            let at = Timestamp::from_unix_us(START_US + at * 1_000_000) + REPORT_DELAY;
            inputs.push((at, signal(n, health, at, ttl)));
        }
        inputs.sort_by_key(|&(at, _)| at);
        inputs
    })
}

fn connected(n: usize) -> Input {
    Input::AgentConnected(AgentConnected {
        agent: AgentId::parse(&format!("{}-1", REGIONS[n])).unwrap(),
        region: region(n),
        boot_epoch: 1,
        addresses: Vec::new(),
        build: String::new(),
    })
}

fn signal(n: usize, health: f64, at: Timestamp, ttl: u64) -> Input {
    Input::Signal(Signal {
        source: SourceId::parse("s").unwrap(),
        subject: Subject::Region(region(n)),
        metric: Metric::Health,
        value: health,
        observed_at: at,
        expires_at: at + SECOND * (ttl as u32),
        idempotency_key: None,
    })
}

fn decisions(engine: &mut Engine, inputs: &[(Timestamp, Input)]) -> Vec<Decision> {
    let effects = inputs
        .iter()
        .flat_map(|(at, input)| engine.step(*at, input));
    effects.filter_map(Effect::decision).collect()
}

fn run(inputs: &[(Timestamp, Input)]) -> Vec<Decision> {
    decisions(&mut Engine::new(policy()), inputs)
}

/// The inputs, and ticks to see the last of them take effect.
fn with_tail(mut inputs: Vec<(Timestamp, Input)>) -> Vec<(Timestamp, Input)> {
    let last = inputs.last().map_or(Timestamp::EPOCH, |&(at, _)| at);
    inputs.extend((1..=40).map(|n| (last + SECOND * n / 2, Input::Tick)));
    inputs
}

fn state(engine: &Engine) -> Vec<u8> {
    rmp_serde::to_vec_named(engine.to_snapshot()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    /// An engine that is put away and restored before every input knows no shortcut, and decides the same.
    #[test]
    fn shortcuts_change_nothing(history in history(), slow in any::<bool>()) {
        let policy = if slow { slow_policy() } else { policy() };
        let mut quick = Engine::new(policy.clone());
        let mut plain = Engine::new(policy);
        for input in with_tail(history) {
            plain = Engine::from_snapshot(rmp_serde::from_slice(&state(&plain)).unwrap()).unwrap();
            let input = std::slice::from_ref(&input);
            prop_assert_eq!(decisions(&mut quick, input), decisions(&mut plain, input));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    /// Who replays a journal has no ticks in it.
    #[test]
    fn ticks_decide_nothing(
        history in history(), ticks in prop::collection::vec(0u64..300_000, 0..200), slow in any::<bool>()
    ) {
        let mut ticked = history.clone();
        let tick = |ms| (Timestamp::from_unix_us(START_US + ms * 1_000), Input::Tick);
        ticked.extend(ticks.into_iter().map(tick));
        ticked.sort_by_key(|&(at, _)| at);
        // What the last inputs led to shows when the next one comes.
        let last = ticked.last().map_or(Timestamp::EPOCH, |&(at, _)| at);
        let end = (last + SECOND * 100, connected(0));
        let policy = if slow { slow_policy() } else { policy() };
        let run = |mut inputs: Vec<_>| {
            inputs.push(end.clone());
            decisions(&mut Engine::new(policy.clone()), &inputs)
        };
        prop_assert_eq!(run(ticked), run(history));
    }

    /// A snapshot in the middle, through its serialised form, changes nothing after it.
    #[test]
    fn a_snapshot_and_the_rest_are_the_whole(history in history(), cut in 0.0f64..1.0) {
        let inputs = with_tail(history);
        let (before, after) = inputs.split_at((cut * inputs.len() as f64) as usize);
        let mut whole = Engine::new(policy());
        decisions(&mut whole, before);
        let mut restored = Engine::from_snapshot(rmp_serde::from_slice(&state(&whole)).unwrap()).unwrap();
        prop_assert_eq!(decisions(&mut whole, after), decisions(&mut restored, after));
        prop_assert_eq!(state(&whole), state(&restored));
    }

    /// What arrives in one instant has no order.
    #[test]
    fn the_order_within_an_instant_does_not_matter(
        (history, shuffled) in history().prop_flat_map(|history| {
            let keys = prop::collection::vec(any::<u32>(), history.len());
            (Just(history), keys).prop_map(|(history, keys)| {
                let mut keyed: Vec<_> = history.iter().cloned().zip(keys).collect();
                keyed.sort_by_key(|&((at, _), key)| (at, key));
                (history, keyed.into_iter().map(|(input, _)| input).collect::<Vec<_>>())
            })
        })
    ) {
        let (mut a, mut b) = (Engine::new(policy()), Engine::new(policy()));
        let (history, shuffled) = (with_tail(history), with_tail(shuffled));
        prop_assert_eq!(decisions(&mut a, &history), decisions(&mut b, &shuffled));
        prop_assert_eq!(state(&a), state(&b));
    }

    /// While a hold is on, only a region that cannot serve is left.
    #[test]
    fn nothing_moves_for_the_better_inside_a_hold(history in history()) {
        let hold = policy().steadiness.hold_first;
        let mut moved: BTreeMap<RegionId, Timestamp> = BTreeMap::new();
        for decision in run(&with_tail(history)) {
            let chosen = matches!(
                decision.reason,
                Reason::Better { .. } | Reason::ReturnedHome { .. } | Reason::Ineligible { .. }
            );
            if let Some(&last) = moved.get(&decision.primary) {
                prop_assert!(!chosen || decision.at.since(last) >= hold, "{:#?}", decision.summary);
            }
            if decision.reason != Reason::Initial {
                moved.insert(decision.primary, decision.at);
            }
        }
    }

    /// A score is explained to the last digit. What must leave goes to the best that may be selected; what goes for
    /// the better goes to one that may, and that is better than what it leaves.
    #[test]
    fn contributions_add_up_to_the_score(history in history()) {
        for decision in run(&with_tail(history)) {
            let best = decision.evidence.best().map(|best| best.region.clone());
            match decision.reason {
                Reason::Better { margin } | Reason::ReturnedHome { margin } => {
                    let to = decision.to.as_ref().and_then(|to| decision.evidence.candidate(to));
                    prop_assert!(to.is_some_and(|to| to.eligible) && margin > 1.0);
                }
                _ => prop_assert!(decision.to.is_none() || decision.to == best),
            }
            for candidate in &decision.evidence.candidates {
                let Some(score) = candidate.score else { continue };
                prop_assert_eq!(candidate.log_score().unwrap().exp(), score);
                let product = candidate.baseline * candidate.network.unwrap();
                prop_assert!((product / score - 1.0).abs() < 1e-9, "{} {}", product, score);
            }
            let normalised = |share: &f64| (0.0..=1.0).contains(share);
            let shares = decision.evidence.candidates.iter().filter_map(|own| own.normalised);
            prop_assert!(shares.clone().all(|share| normalised(&share)));
            prop_assert!(decision.to.is_none() || shares.into_iter().next() == Some(1.0));
        }
    }

    /// More loss never raises a network weight, nor does more latency.
    #[test]
    fn worse_links_never_weigh_more(
        weather in weather(), lost in 0u32..50, slower_us in 0u32..500_000
    ) {
        let network = |weather: Weather| {
            let mut engine = Engine::new(policy());
            let start = Timestamp::from_unix_us(START_US);
            engine.step(start + SECOND, &reports(0, start, &[weather; 4]));
            engine.step(start + SECOND * 2, &Input::Tick);
            let ranking = engine.view().ranking(&region(0));
            ranking.candidate(&region(1)).and_then(|own| own.network)
        };
        let before = network(weather);
        let lossier = network(Weather { unanswered: weather.unanswered + lost, ..weather });
        prop_assert!(lossier.is_none() || lossier <= before, "{:?} {:?}", lossier, before);
        // A shift by more than a bucket's width: within one, the width of the buckets shows in the jitter.
        let shifted = weather.rtt_us + weather.rtt_us / 32 + slower_us;
        let slower = network(Weather { rtt_us: shifted, ..weather });
        prop_assert!(slower.is_none() || slower <= before, "{:?} {:?}", slower, before);
    }

    /// Whatever is told, the engine answers.
    #[test]
    fn nothing_makes_the_engine_fail(
        inputs in prop::collection::vec((any::<u64>(), any::<u64>(), any::<u64>(), 0usize..4, any::<[u32; 11]>()), 1..40)
    ) {
        let mut engine = Engine::new(policy());
        for (at, start, length, from, numbers) in inputs {
            let mut wild = reports(from, Timestamp::from_unix_us(start), &[Weather {
                rtt_us: numbers[0] / 2, spread_us: 0, answered: 1, unanswered: 0,
            }; 4]);
            if let Input::Reports(wild) = &mut wild {
                wild.window.length = Duration::from_micros(length);
                for (_, report) in &mut wild.rows {
                    report.counts.classes.copy_from_slice(&numbers[..8]);
                    report.counts.overdue = numbers[8];
                    report.counts.open = numbers[9];
                    report.rtt.min_us = numbers[10];
                }
            }
            engine.step(Timestamp::from_unix_us(at), &wild);
            engine.step(Timestamp::from_unix_us(at), &signal(from, f64::from(numbers[0]), Timestamp::EPOCH, length));
            prop_assert_eq!(engine.view().ranking(&region(from)).candidates.len(), 3);
        }
    }
}

#[test]
fn hours_of_silence_are_not_counted_out() {
    let mut engine = Engine::new(policy());
    engine.step(Timestamp::from_unix_us(START_US), &connected(0));
    let year = SECOND * 86_400 * 365;
    engine.step(Timestamp::from_unix_us(START_US) + year, &connected(0));
    engine.step(Timestamp::from_unix_us(u64::MAX), &connected(0));
    engine.step(Timestamp::from_unix_us(u64::MAX), &Input::Tick);
    assert_eq!(engine.view().now, Timestamp::from_unix_us(u64::MAX));
}

#[test]
fn time_never_runs_backwards() {
    let mut engine = Engine::new(policy());
    engine.step(Timestamp::from_unix_us(START_US), &connected(0));
    engine.step(Timestamp::from_unix_us(START_US - 5_000_000), &connected(1));
    assert_eq!(engine.view().now, Timestamp::from_unix_us(START_US));
}

#[test]
fn a_snapshot_of_another_version_is_refused() {
    let mut snapshot = serde_json::to_value(Engine::new(policy()).to_snapshot()).unwrap();
    snapshot["version"] = 99.into();
    let error = Engine::from_snapshot(serde_json::from_value(snapshot).unwrap()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "snapshot has version 99; this build reads 6"
    );
}
