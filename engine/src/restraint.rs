//! What restrains a selection that moves often: a memory of the regions that it left, and a budget of moves.
//!
//! Both count moves that were made and never what was measured: who punishes signals punishes the regions that are
//! watched best, which is why route flap damping had to be retuned (RFC 7196). Both are bounded, and neither delays
//! the leaving of a region that cannot serve.

use std::{collections::VecDeque, time::Duration};

use leeward_common::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::policy::Steadiness;

/// What is remembered of a region that was left: a penalty that grows by 1 each time and halves with every
/// `flap_half_life`. Above `flap_limit` the region is not returned to until it has halved twice over from twice the
/// limit at most, which takes two half-lives at most.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(crate) struct Flaps {
    penalty: f64,
    at: Timestamp,
    suppressed_until: Option<Timestamp>,
}

impl Flaps {
    /// Records that the region was left.
    pub(crate) fn on_leave(&mut self, now: Timestamp, steadiness: &Steadiness) {
        let limit = steadiness.flap_limit;
        self.penalty = (self.remaining(now, steadiness) + 1.0).min(2.0 * limit);
        self.at = now;
        if self.penalty > limit {
            let half_lives = (self.penalty / (limit / 2.0)).log2();
            self.suppressed_until = Some(now + steadiness.flap_half_life.mul_f64(half_lives));
        }
    }

    /// Until when the region is not returned to, if it is so at `now`.
    pub(crate) fn suppressed_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.suppressed_until.filter(|&until| now < until)
    }

    /// Whether nothing of it is left to remember.
    pub(crate) fn is_forgotten(&self, now: Timestamp, steadiness: &Steadiness) -> bool {
        self.remaining(now, steadiness) < 0.1
    }

    fn remaining(&self, now: Timestamp, steadiness: &Steadiness) -> f64 {
        let half_life = steadiness.flap_half_life.as_secs_f64().max(1e-3);
        self.penalty * (-now.since(self.at).as_secs_f64() / half_life).exp2()
    }
}

/// When the last moves were, to have no more of them in a span than a limit.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(crate) struct Budget(VecDeque<Timestamp>);

impl Budget {
    /// Records a move; as many are remembered as the limit asks for.
    pub(crate) fn on_move(&mut self, now: Timestamp, limit: u32) {
        self.0.push_back(now);
        while self.0.len() > limit as usize {
            self.0.pop_front();
        }
    }

    /// When the next move is within the limit, if it is not at `now`.
    pub(crate) fn spent_until(
        &self,
        now: Timestamp,
        limit: u32,
        span: Duration,
    ) -> Option<Timestamp> {
        let nth_last = self.0.len().checked_sub(limit as usize)?;
        let until = *self.0.get(nth_last)? + span;
        (now < until).then_some(until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::defaults;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_unix_us(secs * 1_000_000)
    }

    fn steadiness() -> Steadiness {
        Steadiness {
            flap_limit: 2.0,
            flap_half_life: SECOND * 100,
            ..defaults::steadiness()
        }
    }

    #[test]
    fn a_region_left_more_often_than_the_limit_is_not_returned_to_for_a_while() {
        let mut flaps = Flaps::default();
        flaps.on_leave(at(0), &steadiness());
        flaps.on_leave(at(0), &steadiness());
        assert_eq!(flaps.suppressed_until(at(1)), None);
        flaps.on_leave(at(0), &steadiness());
        let until = flaps.suppressed_until(at(1)).unwrap();
        // From 3 to 1.
        assert!((until.since(at(0)).as_secs_f64() - 158.5).abs() < 0.1);
        assert_eq!(flaps.suppressed_until(until), None);
    }

    #[test]
    fn a_budget_is_of_the_last_span_only() {
        let mut budget = Budget::default();
        let spent = |budget: &Budget, secs| budget.spent_until(at(secs), 2, SECOND * 60);
        budget.on_move(at(0), 2);
        assert_eq!(spent(&budget, 1), None);
        budget.on_move(at(10), 2);
        assert_eq!(spent(&budget, 11), Some(at(60)));
        assert_eq!(spent(&budget, 60), None);
    }

    proptest! {
        /// However often a region is left, it is not shunned for longer than two half-lives.
        #[test]
        fn suppression_is_bounded(gaps in prop::collection::vec(0u64..300, 1..40)) {
            let mut flaps = Flaps::default();
            let mut now = 0;
            for gap in gaps {
                now += gap;
                flaps.on_leave(at(now), &steadiness());
                prop_assert_eq!(flaps.suppressed_until(at(now) + SECOND * 201), None);
            }
        }
    }
}
