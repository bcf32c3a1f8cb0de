//! RFC 2439's figure of merit: what a route that flaps accumulates, and what decays while it is quiet.
//!
//! Routers use it to suppress routes. Here it is a measure and suppresses nothing, kept with two half-lives side by side.

use std::time::Duration;

use leeward_common::time::Timestamp;

/// Added by a withdrawal (RFC 2439, section 4.2; the values that routers use by default).
pub const WITHDRAWAL: f64 = 1_000.0;

/// Added by an announcement that changes the path.
pub const CHANGE: f64 = 500.0;

/// The ceiling: with a reuse threshold of 750 and four half-lives at most until reuse, 750 * 2^4 (section 4.2).
pub const CEILING: f64 = 12_000.0;

/// The half-life that shows what happens now.
pub const FAST: Duration = Duration::from_secs(30);

/// The half-life that routers use by default, which shows what happened of late.
pub const SLOW: Duration = Duration::from_secs(15 * 60);

/// A figure of merit; lower is better, 0 is a route that did not change of late.
#[derive(Clone, Copy, Debug, Default)]
pub struct Penalty {
    value: f64,
    at: Timestamp,
}

impl Penalty {
    /// Its value, decayed until now. What is less than one is nothing.
    #[must_use]
    pub fn value(&self, now: Timestamp, half_life: Duration) -> f64 {
        let halvings = now.since(self.at).as_secs_f64() / half_life.as_secs_f64();
        let value = self.value * (-halvings).exp2();
        if value < 1.0 { 0.0 } else { value }
    }

    /// Adds to it.
    pub fn add(&mut self, now: Timestamp, half_life: Duration, what: f64) {
        self.value = (self.value(now, half_life) + what).min(CEILING);
        self.at = now.max(self.at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_unix_us(secs * 1_000_000)
    }

    #[test]
    fn a_penalty_halves_in_its_half_life() {
        let mut penalty = Penalty::default();
        penalty.add(at(0), SLOW, WITHDRAWAL);
        penalty.add(at(0), SLOW, CHANGE);
        assert_eq!(penalty.value(at(0), SLOW), 1_500.0);
        assert_eq!(penalty.value(at(900), SLOW), 750.0);
        assert_eq!(penalty.value(at(100_000), SLOW), 0.0);
    }

    proptest! {
        /// No penalty is negative or beyond its ceiling, whatever happens and when.
        #[test]
        fn a_penalty_stays_within_its_bounds(steps in prop::collection::vec((0u64..2_000, prop::bool::ANY), 0..200)) {
            let (mut penalty, mut now) = (Penalty::default(), 0);
            for (gap, withdrawn) in steps {
                now += gap;
                penalty.add(at(now), FAST, if withdrawn { WITHDRAWAL } else { CHANGE });
                prop_assert!((0.0..=CEILING).contains(&penalty.value(at(now), FAST)));
            }
        }
    }
}
