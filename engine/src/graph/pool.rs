//! Pools the windows of many paths into one estimate with its bounds.

use std::collections::BTreeMap;

use leeward_common::{histogram::Histogram, id::AgentId, time::Timestamp};

use super::Counted;
use crate::view::{Estimate, Estimates};

/// 97.5th percentile of the normal distribution: bounds hold with 95 % confidence.
const Z: f64 = 1.959_963_984_540_054;

/// Sums over windows.
#[derive(Clone, Debug, Default)]
pub(super) struct Pool {
    answered: u64,
    late: u64,
    overdue: u64,
    rejected: u64,
    histogram: Option<Histogram>,
    /// Jitter of each path in microseconds, with its samples.
    jitter: Vec<(f64, u64)>,
    newest_at: Timestamp,
    agents: BTreeMap<AgentId, Timestamp>,
}

impl Pool {
    /// Adds the windows of these paths that ended after `cut`.
    pub(super) fn add(&mut self, paths: &[Counted<'_>], cut: Timestamp) {
        for counted in paths.iter().filter(|path| path.newest_at > cut) {
            self.newest_at = self.newest_at.max(counted.newest_at);
            let newest = self.agents.entry(counted.agent.clone()).or_default();
            *newest = counted.newest_at.max(*newest);
            self.add_path(counted, cut);
        }
    }

    fn add_path(&mut self, counted: &Counted<'_>, cut: Timestamp) {
        let mut own: Option<Histogram> = None;
        let mut min_us = u32::MAX;
        let windows = counted.path.windows.iter();
        for window in windows.filter(|window| window.measured_at(counted.quickest_us) > cut) {
            self.answered += window.answered;
            self.late += window.late;
            self.overdue += window.overdue;
            self.rejected += window.rejected;
            if window.histogram.is_empty() {
                continue;
            }
            min_us = min_us.min(window.min_us);
            match &mut own {
                // A path whose schema has just changed is known by the newer windows.
                Some(own) if own.schema() == window.histogram.schema() => {
                    own.merge(&window.histogram).expect("the schemas are equal");
                }
                _ => own = Some(window.histogram.clone()),
            }
        }
        let Some(own) = own else { return };
        let p99_us = own.quantile(0.99).unwrap_or(min_us);
        self.jitter
            .push((f64::from(p99_us.saturating_sub(min_us)), own.count()));
        self.merge_histogram(&own);
    }

    fn merge_histogram(&mut self, other: &Histogram) {
        match &mut self.histogram {
            None => self.histogram = Some(other.clone()),
            // Paths of different schemas exist for moments after a change of the policy: the finer one stays.
            Some(all) => {
                if all.merge(other).is_err() && other.schema() > all.schema() {
                    *all = other.clone();
                }
            }
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.answered += other.answered;
        self.late += other.late;
        self.overdue += other.overdue;
        self.rejected += other.rejected;
        self.jitter.extend_from_slice(&other.jitter);
        self.newest_at = self.newest_at.max(other.newest_at);
        if let Some(histogram) = &other.histogram {
            self.merge_histogram(histogram);
        }
        for (agent, at) in &other.agents {
            let newest = self.agents.entry(agent.clone()).or_default();
            *newest = (*at).max(*newest);
        }
    }

    fn probes(&self) -> u64 {
        self.answered + self.overdue + self.rejected
    }

    pub(super) fn is_empty(&self) -> bool {
        self.probes() == 0
    }

    pub(super) fn estimates(&self) -> Estimates {
        let unanswered = self.overdue.saturating_sub(self.late) + self.rejected;
        Estimates {
            rtt_p50_us: self.quantile(0.5),
            rtt_p99_us: self.quantile(0.99),
            jitter_us: self.jitter(),
            loss: wilson(unanswered, self.probes()),
            bandwidth_bps: None,
            n: self.probes(),
            newest_at: self.newest_at,
            agents: self.agents.clone(),
        }
    }

    /// A quantile between the order statistics that hold it with 95 % confidence (normal approximation of their
    /// binomial ranks).
    fn quantile(&self, q: f64) -> Option<Estimate> {
        let histogram = self.histogram.as_ref()?;
        let n = histogram.count();
        let spread = Z * (q * (1.0 - q) / n as f64).sqrt();
        let at = |q: f64| histogram.quantile(q).map(f64::from);
        Some(Estimate {
            value: at(q)?,
            low: at(q - spread)?,
            high: at(q + spread)?,
            n,
        })
    }

    /// The paths' jitter, weighted by samples: paths of unlike length must not look like variation.
    fn jitter(&self) -> Option<Estimate> {
        let n: u64 = self.jitter.iter().map(|&(_, n)| n).sum();
        if n == 0 {
            return None;
        }
        let sum: f64 = self
            .jitter
            .iter()
            .map(|&(jitter, n)| jitter * n as f64)
            .sum();
        let all = self.jitter.iter().map(|&(jitter, _)| jitter);
        Some(Estimate {
            value: sum / n as f64,
            low: all.clone().fold(f64::INFINITY, f64::min),
            high: all.fold(0.0, f64::max),
            n,
        })
    }
}

/// A share with its Wilson score bounds.
pub(super) fn wilson(part: u64, whole: u64) -> Option<Estimate> {
    if whole == 0 {
        return None;
    }
    let n = whole as f64;
    let share = part.min(whole) as f64 / n;
    let scale = 1.0 + Z * Z / n;
    let centre = (share + Z * Z / (2.0 * n)) / scale;
    let spread = Z * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt() / scale;
    Some(Estimate {
        value: share,
        low: if part == 0 {
            0.0
        } else {
            (centre - spread).max(0.0)
        },
        high: if part >= whole {
            1.0
        } else {
            (centre + spread).min(1.0)
        },
        n: whole,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_probes_are_no_estimate_and_more_probes_are_a_better_one() {
        assert_eq!(wilson(0, 0), None);
        let (few, many) = (wilson(1, 10).unwrap(), wilson(100, 1_000).unwrap());
        assert_eq!(few.value, many.value);
        assert!(
            few.low < many.low && many.high < few.high,
            "{few:?} {many:?}"
        );
    }

    #[test]
    fn wilson_bounds_agree_with_published_ones() {
        // Newcombe (1998), table I: 81 of 263 and 15 of 148, method 3.
        for (part, whole, low, high) in [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605)] {
            let bounds = wilson(part, whole).unwrap();
            assert!((bounds.low - low).abs() < 5e-5, "{bounds:?}");
            assert!((bounds.high - high).abs() < 5e-5, "{bounds:?}");
        }
    }
}
