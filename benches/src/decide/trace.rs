//! All contestants on one trace.

use std::fmt::Write as _;

use super::{
    clairvoyant::Clairvoyant,
    judge::{Judge, Score, Verdict},
    policy::Policy,
    world::{DAY, JITTER, Variant, World},
};

/// What came of a trace.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Contestants in the order of their table, with their figures.
    pub scores: Vec<(String, Score)>,
    /// False moves of contestants that say why: the second and their words.
    pub false_moves: Vec<(u64, String)>,
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
    let mut false_moves = Vec::new();
    let mut clairvoyant = Clairvoyant::default();
    for number in 0..days * DAY {
        let second = world.second(number);
        clairvoyant.on_second(second);
        for (contestant, judge) in contestants.iter_mut().zip(&mut judges) {
            let next = contestant.choose(second, judge.selected());
            let verdict = judge.on_second(second, next);
            if verdict == Verdict::MovedFalsely
                && let Some(why) = contestant.why()
            {
                false_moves.push((number, why.to_owned()));
            }
        }
    }
    let names = contestants
        .iter()
        .map(|contestant| contestant.name().to_owned());
    Outcome {
        scores: names.zip(judges.iter().map(Judge::score)).collect(),
        false_moves,
        necessary_per_day: clairvoyant.flips_per_day(),
    }
}

impl Outcome {
    /// The contestants' figures for people; percent, and seconds of delay as p50/p99.
    #[must_use]
    pub fn table(&self, title: &str) -> String {
        let mut table = format!(
            "{title}: {:.2} flips a day are necessary\n",
            self.necessary_per_day
        );
        let columns = [
            "flips/day",
            "false/day",
            "hard, s",
            "8 % loss, s",
            "+60 ms, s",
            "regret, %",
        ];
        let _ = write!(table, "  {:<36}", "");
        for column in columns {
            let _ = write!(table, " {column:>12}");
        }
        for (name, score) in &self.scores {
            let delays = [score.hard, score.grey, score.shift].map(|delays| {
                let whole =
                    |delay: Option<f64>| delay.map_or("-".to_owned(), |s| format!("{s:.0}"));
                format!("{}/{}", whole(delays.p50_s), whole(delays.p99_s))
            });
            let _ = write!(
                table,
                "\n  {name:<36} {:>12.2} {:>12.3} {:>12} {:>12} {:>12} {:>12.3}",
                score.flips_per_day,
                score.false_per_day,
                delays[0],
                delays[1],
                delays[2],
                score.regret * 100.0
            );
        }
        table.push('\n');
        table
    }
}
