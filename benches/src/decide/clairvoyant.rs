//! Which flips are necessary: those of one who knows the whole trace and pays for every flip.
//!
//! Of all sequences of selections, the one of the highest true weight less [`COST_S`] seconds of full service for each
//! flip; found by dynamic programming, one pass, a value and a count for each region.

use super::world::{DAY, REGIONS, Second};

/// What a flip costs: seconds of the best region's service.
pub const COST_S: f64 = 10.0;

/// Finds the sequence.
#[derive(Clone, Debug, Default)]
pub struct Clairvoyant {
    seconds: u64,
    best: [(f64, u32); REGIONS],
    begun: bool,
}

impl Clairvoyant {
    /// Takes in a second.
    pub fn on_second(&mut self, second: &Second) {
        let weights: [f64; REGIONS] =
            std::array::from_fn(|region| second.truth[region].weight(region));
        let most = weights.iter().copied().fold(1e-9, f64::max);
        let lead = self.lead();
        for (best, weight) in self.best.iter_mut().zip(weights) {
            // Where one begins is free.
            if self.begun && lead.0 - COST_S > best.0 {
                *best = (lead.0 - COST_S, lead.1 + 1);
            }
            best.0 += weight / most;
        }
        self.begun = true;
        self.seconds += 1;
    }

    fn lead(&self) -> (f64, u32) {
        let better = |a: (f64, u32), b: (f64, u32)| if b.0 > a.0 { b } else { a };
        self.best.iter().copied().fold(self.best[0], better)
    }

    /// Flips of the best sequence.
    #[must_use]
    pub fn flips_per_day(&self) -> f64 {
        f64::from(self.lead().1) / (self.seconds as f64 / DAY as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::world::{Truth, Window};

    fn flips(outage_s: u64) -> u32 {
        let mut clairvoyant = Clairvoyant::default();
        for number in 0..10_000 {
            let mut truth: [Truth; REGIONS] = std::array::from_fn(|_| Truth {
                rtt_ms: 20.0,
                ..Truth::default()
            });
            if (5_000..5_000 + outage_s).contains(&number) {
                truth[0].loss = 1.0;
            }
            clairvoyant.on_second(&Second {
                number,
                truth,
                seen: [[Window::default(); REGIONS]; 5],
                heard: [true; 5],
            });
        }
        clairvoyant.lead().1
    }

    #[test]
    fn an_outage_is_worth_leaving_and_returning_if_it_is_long_enough() {
        assert_eq!(flips(15), 0);
        assert_eq!(flips(60), 2);
    }
}
