//! What others ship, as small policies on the same trace.
//!
//! - [`Smoothed`]: the highest weight of what was measured, raw or smoothed, with or without margin and hold; from one
//!   vantage point or from the trimmed mean of all.
//! - [`Threshold`]: so many failed checks in a row are down and so many good ones are up again; the highest preferred
//!   region that is up serves. Route 53 and gdnsd are of this kind.
//! - [`Cusum`]: leaves on a sudden change of loss or round-trip time, returns after a while.

use super::{
    policy::Policy,
    world::{REGIONS, Second, VANTAGES, Window, weight},
};

/// The best of them by false moves at these delays.
pub const BEST: &str = "EWMA 0.1 + 15 % + 60 s, 5 vantages";

/// All peers, in the order of their table.
#[must_use]
pub fn all() -> Vec<Box<dyn Policy>> {
    let smoothed = |name, alpha| Smoothed {
        alpha,
        ..Smoothed::new(name)
    };
    vec![
        Box::new(Smoothed::new("raw argmax, 1 s")),
        Box::new(Smoothed {
            every_s: 30,
            ..Smoothed::new("raw argmax, 30 s")
        }),
        Box::new(smoothed("EWMA 0.1", 0.1)),
        Box::new(smoothed("EWMA 0.02", 0.02)),
        Box::new(Smoothed {
            margin: 1.1,
            ..smoothed("EWMA 0.1 + 10 %", 0.1)
        }),
        Box::new(Smoothed {
            margin: 1.15,
            hold_s: 60,
            ..smoothed("EWMA 0.1 + 15 % + 60 s hold", 0.1)
        }),
        Box::new(Threshold::new("3 x 10 s in a row (Route 53 fast)", 3, 3)),
        Box::new(Threshold::new("10 x 10 s down, 20 x up (gdnsd)", 10, 20)),
        Box::new(Cusum::new("CUSUM, 1 vantage, 15 %, 300 s", Sight::First)),
        Box::new(Smoothed {
            margin: 1.15,
            hold_s: 60,
            sight: Sight::Trimmed,
            outage_ends_hold: true,
            ..smoothed(BEST, 0.1)
        }),
        Box::new(Cusum::new("CUSUM, 5 vantages, 15 %, 300 s", Sight::Trimmed)),
    ]
}

/// Who looks.
#[derive(Clone, Copy, Debug)]
enum Sight {
    /// The first vantage point alone.
    First,
    /// All: the mean without the highest and the lowest.
    Trimmed,
}

/// Loss and round-trip time (milliseconds, if anything was answered) of a region in a second.
#[derive(Clone, Copy, Debug)]
struct Look {
    loss: f64,
    rtt_ms: Option<f64>,
}

impl Sight {
    fn look(self, second: &Second, region: usize) -> Look {
        match self {
            Self::First => {
                let window = &second.seen[0][region];
                Look {
                    loss: window.loss(),
                    rtt_ms: window.rtt_ms(),
                }
            }
            Self::Trimmed => {
                let windows: [&Window; VANTAGES] =
                    std::array::from_fn(|vantage| &second.seen[vantage][region]);
                Look {
                    loss: trimmed(windows.iter().map(|window| window.loss())).unwrap_or(1.0),
                    rtt_ms: trimmed(windows.iter().filter_map(|window| window.rtt_ms())),
                }
            }
        }
    }
}

/// The mean without the highest and the lowest, where there are three or more.
fn trimmed(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0);
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    for value in values {
        sum += value;
        count += 1;
        low = low.min(value);
        high = high.max(value);
    }
    match count {
        0 => None,
        1 | 2 => Some(sum / f64::from(count)),
        _ => Some((sum - low - high) / f64::from(count - 2)),
    }
}

/// The region of the highest weight; on a tie the selected one.
fn best(weights: &[f64; REGIONS], selected: usize) -> usize {
    let higher = |best, region| {
        if weights[region] > weights[best] {
            region
        } else {
            best
        }
    };
    (0..REGIONS).fold(selected, higher)
}

/// Exponentially weighted loss and round-trip time of every region.
#[derive(Clone, Debug)]
struct Levels {
    alpha: f64,
    loss: [f64; REGIONS],
    rtt_ms: [Option<f64>; REGIONS],
}

impl Levels {
    fn new(alpha: f64) -> Self {
        Self {
            alpha,
            loss: [0.0; REGIONS],
            rtt_ms: [None; REGIONS],
        }
    }

    fn on_look(&mut self, region: usize, look: Look) {
        self.loss[region] += self.alpha * (look.loss - self.loss[region]);
        let Some(rtt_ms) = look.rtt_ms else { return };
        let level = self.rtt_ms[region].get_or_insert(rtt_ms);
        *level += self.alpha * (rtt_ms - *level);
    }

    fn weights(&self) -> [f64; REGIONS] {
        std::array::from_fn(|region| {
            self.rtt_ms[region].map_or(0.0, |rtt_ms| weight(region, rtt_ms, self.loss[region]))
        })
    }
}

/// The highest weight wins, perhaps smoothed and damped.
#[derive(Clone, Debug)]
pub struct Smoothed {
    name: &'static str,
    /// Weight of the newest second; 1 is raw.
    alpha: f64,
    /// Looks and decides once in so many seconds.
    every_s: u64,
    /// How much better a challenger must be.
    margin: f64,
    /// How long a selection stays.
    hold_s: u64,
    sight: Sight,
    /// Losing half or more of a second's probes ends the hold.
    outage_ends_hold: bool,
    levels: Option<Levels>,
    held_until: u64,
}

impl Smoothed {
    const fn new(name: &'static str) -> Self {
        Self {
            name,
            alpha: 1.0,
            every_s: 1,
            margin: 1.0,
            hold_s: 0,
            sight: Sight::First,
            outage_ends_hold: false,
            levels: None,
            held_until: 0,
        }
    }
}

impl Policy for Smoothed {
    fn name(&self) -> &str {
        self.name
    }

    fn choose(&mut self, second: &Second, selected: usize) -> usize {
        if second.number % self.every_s != self.every_s - 1 {
            return selected;
        }
        let levels = self.levels.get_or_insert_with(|| Levels::new(self.alpha));
        let mut outage = false;
        for region in 0..REGIONS {
            let look = self.sight.look(second, region);
            outage |= region == selected && look.loss >= 0.5;
            levels.on_look(region, look);
        }
        if second.number < self.held_until && !(outage && self.outage_ends_hold) {
            return selected;
        }
        let weights = levels.weights();
        let challenger = best(&weights, selected);
        if challenger == selected || weights[challenger] <= weights[selected] * self.margin {
            return selected;
        }
        self.held_until = second.number + self.hold_s;
        challenger
    }
}

/// Seconds between two health checks.
const CHECK_EVERY_S: u64 = 10;

/// Counts checks in a row. A check retries as a TCP connect does: it fails if half of a second's probes are lost.
#[derive(Clone, Debug)]
pub struct Threshold {
    name: &'static str,
    down_after: u32,
    up_after: u32,
    checks: [Checks; REGIONS],
}

#[derive(Clone, Copy, Debug, Default)]
struct Checks {
    is_down: bool,
    /// Checks in a row that contradict `is_down`.
    against: u32,
}

impl Threshold {
    fn new(name: &'static str, down_after: u32, up_after: u32) -> Self {
        Self {
            name,
            down_after,
            up_after,
            checks: [Checks::default(); REGIONS],
        }
    }
}

impl Checks {
    fn on_check(&mut self, failed: bool, down_after: u32, up_after: u32) {
        self.against = if failed == self.is_down {
            0
        } else {
            self.against + 1
        };
        let needed = if self.is_down { up_after } else { down_after };
        if self.against >= needed {
            (self.is_down, self.against) = (!self.is_down, 0);
        }
    }
}

impl Policy for Threshold {
    fn name(&self) -> &str {
        self.name
    }

    fn choose(&mut self, second: &Second, selected: usize) -> usize {
        if second.number % CHECK_EVERY_S != CHECK_EVERY_S - 1 {
            return selected;
        }
        for (region, checks) in self.checks.iter_mut().enumerate() {
            let failed = Sight::First.look(second, region).loss >= 0.5;
            checks.on_check(failed, self.down_after, self.up_after);
        }
        // If all are down, all are answered.
        let preferred = self.checks.iter().position(|checks| !checks.is_down);
        preferred.unwrap_or(selected)
    }
}

/// Leaves on a cumulated excess of loss or round-trip time.
#[derive(Clone, Debug)]
pub struct Cusum {
    name: &'static str,
    sight: Sight,
    levels: Levels,
    /// Slow means of the round-trip time: what is usual.
    usual: Levels,
    loss: [f64; REGIONS],
    rtt: [f64; REGIONS],
    moved_at: u64,
}

/// Loss a second that is not counted.
const LOSS_SLACK: f64 = 0.015;
/// The most that one second's loss counts, lest one bad second be an alarm by itself.
const LOSS_CAP: f64 = 0.35;
/// Cumulated loss that is an alarm.
const LOSS_ALARM: f64 = 0.3;
/// Excess over the usual round-trip time, as a share of it, that is not counted.
const RTT_SLACK: f64 = 0.25;
const RTT_CAP: f64 = 1.0;
const RTT_ALARM: f64 = 3.0;
/// How long it stays before it considers a better region.
const FAILBACK_S: u64 = 300;
const CUSUM_MARGIN: f64 = 1.15;

impl Cusum {
    fn new(name: &'static str, sight: Sight) -> Self {
        Self {
            name,
            sight,
            levels: Levels::new(0.1),
            usual: Levels::new(0.001),
            loss: [0.0; REGIONS],
            rtt: [0.0; REGIONS],
            moved_at: 0,
        }
    }

    fn is_alarmed(&self, region: usize) -> bool {
        self.loss[region] >= LOSS_ALARM || self.rtt[region] >= RTT_ALARM
    }

    fn on_look(&mut self, region: usize, look: Look) {
        let more = (look.loss - LOSS_SLACK).min(LOSS_CAP);
        self.loss[region] = (self.loss[region] + more).clamp(0.0, 2.0 * LOSS_ALARM);
        if let (Some(rtt_ms), Some(usual_ms)) = (look.rtt_ms, self.usual.rtt_ms[region]) {
            let more = (rtt_ms / usual_ms - 1.0 - RTT_SLACK).min(RTT_CAP);
            self.rtt[region] = (self.rtt[region] + more).clamp(0.0, 2.0 * RTT_ALARM);
        }
        self.levels.on_look(region, look);
        self.usual.on_look(region, look);
    }
}

impl Policy for Cusum {
    fn name(&self) -> &str {
        self.name
    }

    fn choose(&mut self, second: &Second, selected: usize) -> usize {
        for region in 0..REGIONS {
            self.on_look(region, self.sight.look(second, region));
        }
        let mut weights = self.levels.weights();
        let alarmed: [bool; REGIONS] = std::array::from_fn(|region| self.is_alarmed(region));
        for (weight, _) in weights
            .iter_mut()
            .zip(alarmed)
            .filter(|(_, alarmed)| *alarmed)
        {
            *weight = 0.0;
        }
        let challenger = best(&weights, selected);
        let settled = second.number - self.moved_at >= FAILBACK_S;
        let better = weights[challenger] > weights[selected] * CUSUM_MARGIN;
        if challenger == selected || !(alarmed[selected] || settled && better) {
            return selected;
        }
        self.moved_at = second.number;
        challenger
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trimmed_mean_forgets_one_liar_on_either_side() {
        let mean = |values: &[f64]| trimmed(values.iter().copied());
        assert_eq!(mean(&[0.0, 0.0, 1.0, 0.0, 0.0]), Some(0.0));
        assert_eq!(mean(&[1.0, 2.0, 3.0, 4.0, 100.0]), Some(3.0));
        assert_eq!(mean(&[1.0, 3.0]), Some(2.0));
        assert_eq!(mean(&[]), None);
    }

    #[test]
    fn checks_count_in_a_row() {
        let mut checks = Checks::default();
        let mut check = |failed| {
            checks.on_check(failed, 3, 2);
            checks.is_down
        };
        let states = [
            true, true, false, true, true, true, false, true, false, false,
        ]
        .map(&mut check);
        assert_eq!(
            states,
            [
                false, false, false, false, false, true, true, true, true, false
            ]
        );
    }
}
