//! Hold-down: how long a selection stays where the last decision put it.
//!
//! Moving disrupts. Moving back a minute later disrupts again and repairs nothing. So after each move the selection is
//! held for a period, and the period doubles with every further move until the selection has been left alone for
//! [`Steadiness::forget_after`].
//!
//! One thing overrides a hold: the selected region cannot serve at all.
//!
//! ```text
//!            moved              moved again
//!   Free ───────────▶ Held(t) ─────────────▶ Held(2t) … up to `hold_max`
//!    ▲                   │
//!    └───────────────────┘ quiet for `forget_after`
//! ```

use std::time::Duration;

use leeward_common::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::policy::Steadiness;

/// Why a move is wanted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Urgency {
    /// The selected region still serves, only worse than another would.
    Degraded,
    /// The selected region cannot serve.
    Down,
}

/// A move that was refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Held {
    /// When the hold ends.
    pub until: Timestamp,
}

/// The hold-down of one selection.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Holddown {
    last: Option<Move>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
struct Move {
    at: Timestamp,
    hold: Duration,
}

impl Holddown {
    /// Records that the selection moved at `now`.
    pub fn on_move(&mut self, now: Timestamp, steadiness: &Steadiness) {
        let recent = self
            .last
            .filter(|last| now.since(last.at) < steadiness.forget_after);
        let hold = match recent {
            Some(last) => last.hold.saturating_mul(2).max(steadiness.hold_first),
            None => steadiness.hold_first,
        };
        self.last = Some(Move {
            at: now,
            hold: hold.min(steadiness.hold_max),
        });
    }

    /// Whether the selection may move at `now`.
    ///
    /// # Errors
    ///
    /// Returns [`Held`] while the hold lasts and the selected region can still serve.
    pub fn permits(&self, now: Timestamp, urgency: Urgency) -> Result<(), Held> {
        match self.held_until(now) {
            Some(until) if urgency == Urgency::Degraded => Err(Held { until }),
            _ => Ok(()),
        }
    }

    /// When the hold ends; `None` if none is on at `now`.
    #[must_use]
    pub fn held_until(&self, now: Timestamp) -> Option<Timestamp> {
        let last = self.last?;
        let until = last.at + last.hold;
        (now < until).then_some(until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::defaults;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn steadiness() -> Steadiness {
        Steadiness {
            hold_first: SECOND * 60,
            hold_max: SECOND * 600,
            forget_after: SECOND * 3600,
            ..defaults::steadiness()
        }
    }

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_unix_us(secs * 1_000_000)
    }

    fn moved(times: &[u64]) -> Holddown {
        let mut holddown = Holddown::default();
        times
            .iter()
            .for_each(|&secs| holddown.on_move(at(secs), &steadiness()));
        holddown
    }

    #[test]
    fn a_selection_that_never_moved_may_move() {
        assert_eq!(moved(&[]).permits(at(0), Urgency::Degraded), Ok(()));
    }

    #[test]
    fn a_moved_selection_is_held_until_the_hold_ends() {
        let holddown = moved(&[0]);
        assert_eq!(
            holddown.permits(at(59), Urgency::Degraded),
            Err(Held { until: at(60) })
        );
        assert_eq!(holddown.permits(at(60), Urgency::Degraded), Ok(()));
    }

    #[test]
    fn a_region_that_is_down_overrides_the_hold() {
        assert_eq!(moved(&[0]).permits(at(1), Urgency::Down), Ok(()));
    }

    #[test]
    fn each_further_move_doubles_the_hold() {
        let holddown = moved(&[0, 100]);
        assert_eq!(
            holddown.permits(at(219), Urgency::Degraded),
            Err(Held { until: at(220) })
        );
    }

    #[test]
    fn a_quiet_selection_is_forgiven() {
        let holddown = moved(&[0, 100, 100 + 3600]);
        assert_eq!(holddown.permits(at(3700 + 60), Urgency::Degraded), Ok(()));
    }

    proptest! {
        /// However often a selection moves, no hold is longer than `hold_max`.
        #[test]
        fn no_hold_exceeds_its_maximum(gaps in prop::collection::vec(0u64..5_000, 1..50)) {
            let mut holddown = Holddown::default();
            let mut now = 0;
            for gap in gaps {
                now += gap;
                holddown.on_move(at(now), &steadiness());
                prop_assert!(holddown.held_until(at(now) + SECOND * 600).is_none());
            }
        }
    }
}
