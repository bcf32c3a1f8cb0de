//! The scorer: what a contestant's selections were worth.
//!
//! A *flip* is a change of the selection. It is *false* if nothing real is wrong with the region left and the region
//! entered is truly worth less than 2 % more. A *delay* is counted from the first second of an event on the selected
//! region to the flip away from it; a selection that never leaves is charged the whole event. *Regret* is the share of
//! the oracle's weight that was missed, where the oracle holds the truly best region in every second.

use super::world::{DAY, Kind, REGIONS, Second};
use crate::measure::quantile;

/// A flip for less true gain than this is false, unless something real was wrong.
const WORTHWHILE: f64 = 1.02;

/// What became of a selection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It is as it was.
    Stayed,
    /// It moved, for a reason or for gain.
    Moved,
    /// It moved for neither.
    MovedFalsely,
}

/// Judges one contestant.
#[derive(Clone, Debug, Default)]
pub struct Judge {
    selected: usize,
    seconds: u64,
    flips: u32,
    false_moves: u32,
    running: [Option<(u32, u64)>; 3],
    started: [Option<u32>; 3],
    delays_s: [Vec<f64>; 3],
    held: f64,
    best: f64,
}

impl Judge {
    /// The region selected in the second to come.
    #[must_use]
    pub const fn selected(&self) -> usize {
        self.selected
    }

    /// Takes in a second, and what the contestant selects after it; says what became of the selection.
    pub fn on_second(&mut self, second: &Second, next: usize) -> Verdict {
        let weights: [f64; REGIONS] =
            std::array::from_fn(|region| second.truth[region].weight(region));
        self.seconds += 1;
        self.held += weights[self.selected];
        self.best += weights.iter().copied().fold(0.0, f64::max);
        self.on_events(second, next);
        if next == self.selected {
            return Verdict::Stayed;
        }
        self.flips += 1;
        let gain = weights[next] / weights[self.selected].max(1e-9);
        let is_false = !second.truth[self.selected].is_troubled() && gain < WORTHWHILE;
        self.false_moves += u32::from(is_false);
        self.selected = next;
        self.running = [None; 3];
        // What already goes on in the region entered was chosen with open eyes: only what begins there is timed.
        self.started = second.truth[next].events;
        if is_false {
            Verdict::MovedFalsely
        } else {
            Verdict::Moved
        }
    }

    fn on_events(&mut self, second: &Second, next: usize) {
        for kind in Kind::ALL.map(|kind| kind as usize) {
            let event = second.truth[self.selected].events[kind];
            if let Some((number, since)) = self.running[kind]
                && event != Some(number)
            {
                self.delays_s[kind].push((second.number - since) as f64);
                self.running[kind] = None;
            }
            if event.is_some() && event != self.started[kind] {
                self.running[kind] = event.map(|number| (number, second.number));
            }
            self.started[kind] = event.or(self.started[kind]);
            if next != self.selected
                && let Some((_, since)) = self.running[kind]
            {
                self.delays_s[kind].push((second.number - since + 1) as f64);
            }
        }
    }

    /// The figures so far.
    #[must_use]
    pub fn score(&self) -> Score {
        let days = self.seconds as f64 / DAY as f64;
        let delays = |kind: Kind| {
            let mut delays_s = self.delays_s[kind as usize].clone();
            Delays {
                events: delays_s.len(),
                p50_s: quantile(&mut delays_s, 0.5),
                p99_s: quantile(&mut delays_s, 0.99),
            }
        };
        Score {
            flips_per_day: f64::from(self.flips) / days,
            false_per_day: f64::from(self.false_moves) / days,
            hard: delays(Kind::Hard),
            grey: delays(Kind::Grey),
            shift: delays(Kind::Shift),
            regret: 1.0 - self.held / self.best,
        }
    }
}

/// Delays from an event on the selected region to the flip away from it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Delays {
    /// How many.
    pub events: usize,
    /// The median, seconds; `None` without events.
    pub p50_s: Option<f64>,
    /// The 99th percentile, seconds.
    pub p99_s: Option<f64>,
}

/// The figures of one contestant. All are better lower.
#[derive(Clone, Debug, PartialEq)]
pub struct Score {
    /// Changes of the selection.
    pub flips_per_day: f64,
    /// Those that nothing real asked for.
    pub false_per_day: f64,
    /// Hard outages.
    pub hard: Delays,
    /// Grey loss.
    pub grey: Delays,
    /// Path shifts.
    pub shift: Delays,
    /// Share of the oracle's weight that was missed, 0..=1.
    pub regret: f64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::world::{Truth, Window};

    fn second(number: u64, change: impl Fn(&mut [Truth; REGIONS])) -> Second {
        let mut truth = std::array::from_fn(|_| Truth {
            rtt_ms: 20.0,
            ..Truth::default()
        });
        change(&mut truth);
        Second {
            number,
            truth,
            seen: [[Window::default(); REGIONS]; 5],
            heard: [true; 5],
        }
    }

    fn outage(number: u64) -> Second {
        second(number, |truth| {
            truth[0].loss = 1.0;
            truth[0].events[Kind::Hard as usize] = Some(1);
        })
    }

    #[test]
    fn a_flip_after_the_first_lossy_second_took_one_second() {
        let mut judge = Judge::default();
        judge.on_second(&second(0, |_| ()), 0);
        judge.on_second(&outage(1), 1);
        let score = judge.score();
        assert_eq!(score.hard.p50_s, Some(1.0));
        assert_eq!(judge.false_moves, 0);
    }

    #[test]
    fn whoever_stays_is_charged_the_whole_event() {
        let mut judge = Judge::default();
        (0..10).for_each(|number| {
            judge.on_second(&outage(number), 0);
        });
        judge.on_second(&second(10, |_| ()), 0);
        assert_eq!(judge.score().hard.p50_s, Some(10.0));
        assert_eq!(judge.score().hard.events, 1);
    }

    #[test]
    fn leaving_a_sound_region_for_nothing_is_false() {
        let mut judge = Judge::default();
        let verdict = judge.on_second(&second(0, |_| ()), 1);
        assert_eq!(verdict, Verdict::MovedFalsely);
        assert_eq!((judge.flips, judge.false_moves), (1, 1));
        // Going home is worth 5 %.
        judge.on_second(&second(1, |_| ()), 0);
        assert_eq!((judge.flips, judge.false_moves), (2, 1));
    }

    #[test]
    fn an_event_that_was_there_on_arrival_is_not_timed() {
        let mut judge = Judge::default();
        judge.on_second(&outage(0), 1);
        judge.on_second(&outage(1), 0);
        (2..9).for_each(|number| {
            judge.on_second(&outage(number), 0);
        });
        judge.on_second(&second(9, |_| ()), 0);
        assert_eq!(judge.score().hard.events, 1);
    }

    #[test]
    fn regret_is_what_the_oracle_had_more() {
        let mut judge = Judge::default();
        judge.on_second(&second(0, |_| ()), 1);
        judge.on_second(&second(1, |_| ()), 1);
        let regret = judge.score().regret;
        assert!((regret - 0.025).abs() < 1e-9, "{regret}");
    }
}
