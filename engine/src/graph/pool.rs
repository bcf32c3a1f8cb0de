//! Pools the windows of a path, and the paths of a pair of regions, into one estimate with its bounds.

use std::collections::BTreeMap;

use leeward_common::{id::AgentId, pile::Pile, time::Timestamp};

use super::{
    combine::{Levels, Measured, Z, combine, wilson},
    evidence::WindowEvidence,
};
use crate::view::{Estimate, Estimates};

/// How many windows of a path are its newest.
const LATELY_WINDOWS: u32 = 2;

/// What each path measured.
#[derive(Clone, Debug, Default)]
pub(super) struct Pool {
    paths: Vec<Measured>,
    newest_at: Timestamp,
    agents: BTreeMap<AgentId, Timestamp>,
}

impl Pool {
    /// Adds what a path measured.
    pub(super) fn add(&mut self, measured: Measured) {
        self.paths.push(measured);
    }

    /// Notes that an agent is among those who measured, and when it did last.
    pub(super) fn note(&mut self, agent: &AgentId, newest_at: Timestamp) {
        self.newest_at = self.newest_at.max(newest_at);
        match self.agents.get_mut(agent) {
            Some(newest) => *newest = newest_at.max(*newest),
            None => drop(self.agents.insert(agent.clone(), newest_at)),
        }
    }

    /// What both directions measured.
    pub(super) fn of_both([there, back]: &[Self; 2]) -> Self {
        let mut both = there.clone();
        both.paths.extend_from_slice(&back.paths);
        for (agent, at) in &back.agents {
            both.note(agent, *at);
        }
        both
    }

    pub(super) const fn has_paths(&self) -> bool {
        !self.paths.is_empty()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.paths.iter().all(|path| path.n == 0)
    }

    pub(super) fn estimates(&self) -> Estimates {
        let all = combine(&self.paths, Levels::Same);
        Estimates {
            rtt_p50_us: all.rtt_p50_us,
            rtt_p99_us: all.rtt_p99_us,
            jitter_us: all.jitter_us,
            loss: all.loss,
            loss_lately: all.loss_lately,
            bandwidth_bps: None,
            n: all.n,
            newest_at: self.newest_at,
            agents: self.agents.clone(),
        }
    }
}

/// Windows of a path added up, from the newest one backwards.
pub(super) struct Sum<'a> {
    /// When the newest of all was measured.
    newest_at: Timestamp,
    answered: u64,
    late: u64,
    overdue: u64,
    rejected: u64,
    /// In the newest windows: probes lost, and all.
    lately: (u64, u64),
    rtt: &'a mut Pile,
    /// Whether a window of another schema has come.
    is_full: bool,
    min_us: u32,
}

impl<'a> Sum<'a> {
    /// Of nothing yet; what is on the pile is cleared away.
    pub(super) fn new(newest_at: Timestamp, rtt: &'a mut Pile) -> Self {
        rtt.restart(rtt.schema());
        Self {
            newest_at,
            answered: 0,
            late: 0,
            overdue: 0,
            rejected: 0,
            lately: (0, 0),
            rtt,
            is_full: false,
            min_us: u32::MAX,
        }
    }

    /// Adds a window, older than those before.
    pub(super) fn add(&mut self, window: &WindowEvidence, measured_at: Timestamp) {
        self.answered += window.answered;
        self.late += window.late;
        self.overdue += window.overdue;
        self.rejected += window.rejected;
        if measured_at + window.window.length * LATELY_WINDOWS > self.newest_at {
            let (lost, all) = self.lately;
            self.lately = (lost + window.lost(), all + window.probes());
        }
        if window.histogram.is_empty() {
            return;
        }
        self.min_us = self.min_us.min(window.min_us);
        if self.is_full {
            return;
        }
        if self.rtt.is_empty() {
            self.rtt.restart(window.histogram.schema());
        }
        // A path whose schema has just changed is known by the newer windows.
        self.is_full = self.rtt.add(&window.histogram).is_err();
    }
}

/// What the windows of a path come to.
pub(super) fn measured(sum: &Sum<'_>) -> Measured {
    let n = sum.answered + sum.overdue + sum.rejected;
    let unanswered = sum.overdue.saturating_sub(sum.late) + sum.rejected;
    let [rtt_p50_us, rtt_p99_us] = quantiles(sum.rtt, [0.5, 0.99]);
    let over_min = |us: f64| (us - f64::from(sum.min_us)).max(0.0);
    Measured {
        rtt_p50_us,
        rtt_p99_us,
        jitter_us: rtt_p99_us.map(|p99| Estimate {
            value: over_min(p99.value),
            low: over_min(p99.low),
            high: over_min(p99.high),
            n: p99.n,
        }),
        loss: wilson(unanswered as f64, n as f64),
        loss_lately: wilson(sum.lately.0 as f64, sum.lately.1 as f64),
        n,
    }
}

/// Quantiles, each between the order statistics that hold it with 95 % confidence (normal approximation of their binomial
/// ranks).
fn quantiles(rtt: &Pile, [p50, p99]: [f64; 2]) -> [Option<Estimate>; 2] {
    let n = rtt.count();
    let spread = |q: f64| Z * (q * (1.0 - q) / n as f64).sqrt();
    let shares = [
        [p50, p50 - spread(p50), p50 + spread(p50)],
        [p99, p99 - spread(p99), p99 + spread(p99)],
    ];
    let [[a, b, c], [d, e, f]] = shares;
    let Some([a, b, c, d, e, f]) = rtt.quantiles([a, b, c, d, e, f]) else {
        return [None; 2];
    };
    [[a, b, c], [d, e, f]].map(|own| {
        let [value, low, high] = own.map(f64::from);
        Some(Estimate {
            value,
            low,
            high,
            n,
        })
    })
}
