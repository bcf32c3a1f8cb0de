//! Pools the windows of a path, and the paths of a pair of regions, into one estimate with its bounds.

use std::collections::BTreeMap;

use leeward_common::{histogram::Histogram, id::AgentId, time::Timestamp};

use super::{
    Counted,
    combine::{Levels, Measured, Z, combine, wilson},
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
    /// Adds the windows of these paths that ended after `cut`.
    pub(super) fn add(&mut self, paths: &[Counted<'_>], cut: Timestamp) {
        for counted in paths.iter().filter(|path| path.newest_at > cut) {
            self.newest_at = self.newest_at.max(counted.newest_at);
            match self.agents.get_mut(counted.agent) {
                Some(newest) => *newest = counted.newest_at.max(*newest),
                None => drop(self.agents.insert(counted.agent.clone(), counted.newest_at)),
            }
            self.paths.push(measured(counted, cut));
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.paths.extend_from_slice(&other.paths);
        self.newest_at = self.newest_at.max(other.newest_at);
        for (agent, at) in &other.agents {
            let newest = self.agents.entry(agent.clone()).or_default();
            *newest = (*at).max(*newest);
        }
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

/// One path's windows that ended after `cut`.
fn measured(counted: &Counted<'_>, cut: Timestamp) -> Measured {
    let (mut answered, mut late, mut overdue, mut rejected) = (0, 0, 0, 0);
    let mut lately = (0, 0);
    let mut all: Option<Histogram> = None;
    let mut min_us = u32::MAX;
    for (window, _) in counted.windows().filter(|(_, at)| *at > cut) {
        answered += window.answered;
        late += window.late;
        overdue += window.overdue;
        rejected += window.rejected;
        let measured_at = window.measured_at(counted.quickest_us);
        if measured_at + window.window.length * LATELY_WINDOWS > counted.newest_at {
            let lost = window.overdue.saturating_sub(window.late) + window.rejected;
            lately = (lately.0 + lost, lately.1 + window.probes());
        }
        if window.histogram.is_empty() {
            continue;
        }
        min_us = min_us.min(window.min_us);
        match &mut all {
            // A path whose schema has just changed is known by the newer windows.
            Some(all) if all.schema() == window.histogram.schema() => {
                all.merge(&window.histogram).expect("the schemas are equal");
            }
            _ => all = Some(window.histogram.clone()),
        }
    }
    let n = answered + overdue + rejected;
    let unanswered = overdue.saturating_sub(late) + rejected;
    let rtt = |q| quantile(all.as_ref()?, q);
    let rtt_p99_us = rtt(0.99);
    let over_min = |us: f64| (us - f64::from(min_us)).max(0.0);
    Measured {
        rtt_p50_us: rtt(0.5),
        rtt_p99_us,
        jitter_us: rtt_p99_us.map(|p99| Estimate {
            value: over_min(p99.value),
            low: over_min(p99.low),
            high: over_min(p99.high),
            n: p99.n,
        }),
        loss: wilson(unanswered as f64, n as f64),
        loss_lately: wilson(lately.0 as f64, lately.1 as f64),
        n,
    }
}

/// A quantile between the order statistics that hold it with 95 % confidence (normal approximation of their binomial
/// ranks).
fn quantile(histogram: &Histogram, q: f64) -> Option<Estimate> {
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
