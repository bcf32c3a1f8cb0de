//! All contestants on one trace.

use super::{
    clairvoyant::Clairvoyant,
    judge::{Judge, Score},
    policy::Policy,
    world::{DAY, JITTER, Variant, World},
};

/// What came of a trace.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Contestants in the order of their table, with their figures.
    pub scores: Vec<(String, Score)>,
    /// Flips a day of one who knows the whole trace.
    pub necessary_per_day: f64,
}

/// Lets the contestants judge the same trace.
#[must_use]
pub fn run(
    seed: u64,
    days: u64,
    variant: Variant,
    mut contestants: Vec<Box<dyn Policy>>,
) -> Outcome {
    let mut world = World::new(seed, variant, JITTER);
    let mut judges = vec![Judge::default(); contestants.len()];
    let mut clairvoyant = Clairvoyant::default();
    for number in 0..days * DAY {
        let second = world.second(number);
        clairvoyant.on_second(second);
        for (contestant, judge) in contestants.iter_mut().zip(&mut judges) {
            let next = contestant.choose(second, judge.selected());
            judge.on_second(second, next);
        }
    }
    let names = contestants
        .iter()
        .map(|contestant| contestant.name().to_owned());
    Outcome {
        scores: names.zip(judges.iter().map(Judge::score)).collect(),
        necessary_per_day: clairvoyant.flips_per_day(),
    }
}
