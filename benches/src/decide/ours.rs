//! Leeward on the noisy trace: the engine that ships, fed with reports and read by its effects.
//!
//! The trace asks where a service should be that is used from everywhere, so it is told to the engine as the failover
//! of a region `home` that is silent itself: nothing is measured from or to it, and the candidates are judged by what
//! the five observing regions see, one agent in each. Baseline weights and utilities are those of the trace's truth, so
//! that the engine and the oracle want the same; when to move is the engine's own.
//!
//! A second's reports arrive at its end and are evaluated there: a delay of one second is the least there is, for the
//! peers as for us.

use std::time::Duration;

use leeward_common::{id::RegionId, time::Timestamp};
use leeward_engine::{Engine, effect::Effect, input::Input};

use super::{
    observer::Observer,
    policy::Policy,
    setup::{Place, Setup, region},
    world::{BASELINE, PROBES, REGIONS, Second, VANTAGES},
};

/// The numbers that make the engine's score the trace's weight. What is not named here is as shipped.
pub const SCORE: &str = "
[policy]
evaluate_every = \"1s\"

[policy.weights]
distance = 0.0
capacity = 0.0
latency_scale = \"60ms\"
latency_p50 = 1.0
latency_p99 = 0.0
jitter = 0.0
loss = 8.0
bandwidth = 0.0
";

const SECOND: Duration = Duration::from_secs(1);

/// The first second of a trace, for the engine: a Thursday in 2027.
const EPOCH: Timestamp = Timestamp::from_unix_us(1_800_000_000_000_000);

/// The engine as a contestant.
#[derive(Debug)]
pub struct Ours {
    name: String,
    engine: Engine,
    observers: Vec<Observer>,
    why: Option<String>,
}

impl Ours {
    /// The engine under the `[policy]` sections of this text.
    ///
    /// # Errors
    ///
    /// Says what is wrong with the text.
    pub fn new(name: &str, policy: &str) -> anyhow::Result<Self> {
        let observers: Vec<_> = (0..VANTAGES)
            .map(|vantage| {
                let name = format!("v{vantage}");
                Observer::new(&name, &region(&name), &candidates(), SECOND)
            })
            .collect();
        let mut engine = Engine::new(setup(policy).read()?);
        for observer in &observers {
            engine.step(EPOCH, &observer.connected());
        }
        Ok(Self {
            name: name.to_owned(),
            engine,
            observers,
            why: None,
        })
    }
}

impl Policy for Ours {
    fn name(&self) -> &str {
        &self.name
    }

    fn choose(&mut self, second: &Second, selected: usize) -> usize {
        let start = EPOCH + SECOND * second.number as u32;
        let end = start + SECOND;
        let heard = self.observers.iter_mut().zip(second.heard);
        for (vantage, (observer, _)) in heard.enumerate().filter(|(_, (_, heard))| *heard) {
            let windows = second.seen[vantage].iter();
            let input = observer.report(
                start,
                windows.map(|window| (PROBES as u32, window.rtt_us())),
            );
            // A hair before the end, so that the evaluation at the end knows of it.
            self.engine.step(end - Duration::from_micros(1), &input);
        }
        let effects = self.engine.step(end, &Input::Tick);
        let mut next = selected;
        for decision in effects.into_iter().filter_map(Effect::decision) {
            if decision.primary.as_str() != HOME {
                continue;
            }
            // With nobody left to select, whoever served goes on trying.
            next = decision.to.as_ref().and_then(index).unwrap_or(next);
            self.why = Some(decision.summary);
        }
        next
    }

    fn why(&self) -> Option<&str> {
        self.why.as_deref()
    }
}

const HOME: &str = "home";

fn candidates() -> Vec<RegionId> {
    (0..REGIONS)
        .map(|index| region(&format!("r{index}")))
        .collect()
}

fn index(region: &RegionId) -> Option<usize> {
    region.as_str().strip_prefix('r')?.parse().ok()
}

fn setup(policy: &str) -> Setup<'_> {
    let observers = (0..VANTAGES).map(|vantage| format!("v{vantage}"));
    let candidates = || (0..REGIONS).map(|index| format!("r{index}"));
    Setup {
        policy,
        regions: observers
            .chain(candidates())
            .chain([HOME.to_owned()])
            .map(|name| Place::nowhere(&name))
            .collect(),
        primary: HOME,
        candidates: candidates().zip(BASELINE).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::{
        judge::Judge,
        world::{JITTER, Variant, World, weight},
    };

    #[test]
    fn the_engines_score_is_the_traces_weight() {
        let mut world = World::new(1, Variant::Independent, JITTER);
        let mut ours = Ours::new("ours", SCORE).unwrap();
        let mut judge = Judge::default();
        for number in 0..30 {
            let second = world.second(number);
            let next = ours.choose(second, judge.selected());
            judge.on_second(second, next);
        }
        let view = ours.engine.view();
        let ranking = view.ranking(&region(HOME));
        assert_eq!(ranking.candidates.len(), REGIONS);
        for candidate in &ranking.candidates {
            let index = index(&candidate.region).unwrap();
            let rtt_ms = candidate.rtt_p50_us.unwrap().value / 1_000.0;
            let expected = weight(index, rtt_ms, candidate.loss.unwrap().value);
            let score = candidate.score.unwrap();
            assert!((score - expected).abs() < 1e-9, "{score} {expected}");
        }
    }
}
