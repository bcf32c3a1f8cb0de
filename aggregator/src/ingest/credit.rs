//! How much an agent may have under way, by how much waits for the turn thread. [pure]
//!
//! Without it a burst is slowed down only by reading less, which an agent notices late and cannot tell from a bad network.
//! With it every acknowledgement says how many batches may follow. It is never less than one: the acknowledgement of that
//! one brings the next word.

use crate::turn::TurnHandle;

/// Batches that an agent may have under way while nothing waits; more than it has streams for.
const MOST: u32 = 64;

/// Up to this fullness of the turn's channel nobody is slowed down.
const UNTROUBLED: f64 = 0.25;

/// The credit of each agent now.
pub(super) fn of(turn: &TurnHandle) -> u32 {
    at(turn.fullness())
}

/// Falls from [`MOST`] to one as the channel fills up.
fn at(fullness: f64) -> u32 {
    let left = ((1.0 - fullness) / (1.0 - UNTROUBLED)).clamp(0.0, 1.0);
    ((f64::from(MOST) * left * left) as u32).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credit_falls_as_the_channel_fills_and_never_to_nothing() {
        assert_eq!([0.0, 0.25, 0.5, 0.9, 1.0].map(at), [64, 64, 28, 1, 1]);
    }
}
