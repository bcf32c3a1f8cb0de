//! Gates, then score.
//!
//! The gates, in order; a candidate that fails one is not eligible and says why:
//!
//! 1. [`RefusalCode::UnknownRegion`]: the policy has no such region.
//! 2. [`RefusalCode::IsPrimary`]: a region does not stand in for itself.
//! 3. [`RefusalCode::Down`]: a quorum of observers sees it as lost.
//! 4. [`RefusalCode::NoEvidence`]: nothing was measured yet.
//! 5. [`RefusalCode::Stale`]: what was measured is too old.
//! 6. [`RefusalCode::TooFewProbes`]: what was measured is too little.
//! 7. [`RefusalCode::Unreachable`]: others reach it, but nothing between it and the primary is answered.
//!
//! The score of those that pass is baseline weight times network weight; the highest wins.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use leeward_common::{id::RegionId, time::Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    policy::Policy,
    signal::ActiveSignal,
    view::{Estimate, Pair, PairView, RegionView},
};

/// What a ranking is made from: the parts of an engine's state or of a [`crate::view::View`].
#[derive(Clone, Copy, Debug)]
pub struct Picture<'a> {
    /// When.
    pub now: Timestamp,
    /// The policy in force.
    pub policy: &'a Policy,
    /// Regions of the policy and whether they are up.
    pub regions: &'a BTreeMap<RegionId, RegionView>,
    /// What is known between two regions.
    pub pairs: &'a BTreeMap<Pair, Arc<PairView>>,
    /// What others said.
    pub signals: &'a [ActiveSignal],
}

/// Candidates, best first; those not eligible last, in the order of their ids.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Ranking {
    /// The candidates.
    pub candidates: Vec<Candidate>,
    /// From where they are judged.
    pub perspective: Perspective,
}

/// From where candidates are judged.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Perspective {
    /// By the links between the primary and each candidate.
    #[default]
    Primary,
    /// The primary is down or silent: by the median link between the other regions and each candidate.
    Survivors,
}

/// One candidate of a ranking.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Candidate {
    /// The candidate.
    pub region: RegionId,
    /// Whether it may be selected.
    pub eligible: bool,
    /// Why not; empty if it may.
    pub reasons: Vec<Refusal>,
    /// Weight from geography and capacity, above 0; higher is better.
    pub baseline: f64,
    /// Live quality of the link, 0..=1 before signals; higher is better; `None` if unknown.
    pub network: Option<f64>,
    /// Baseline times network; `None` if unknown.
    pub score: Option<f64>,
    /// Score over the best eligible score, 0..=1, for display; `None` unless eligible.
    pub normalised: Option<f64>,
    /// What makes up the score: the logarithms add up to its logarithm.
    pub contributions: Vec<Contribution>,
    /// Median round-trip time, microseconds.
    pub rtt_p50_us: Option<Estimate>,
    /// 99th percentile of the round-trip time, microseconds.
    pub rtt_p99_us: Option<Estimate>,
    /// 99th percentile minus minimum, microseconds.
    pub jitter_us: Option<Estimate>,
    /// Share of unanswered probes.
    pub loss: Option<Estimate>,
    /// Bits per second, where known.
    pub bandwidth_bps: Option<Estimate>,
    /// Agents with fresh evidence about the link.
    pub vantage_points: u32,
    /// Age of the newest evidence; `None` without any.
    pub data_age: Option<Duration>,
    /// Whose link to the candidate was judged; the primary unless [`Perspective::Survivors`].
    pub seen_from: Option<RegionId>,
}

/// One addend of a score's logarithm.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Contribution {
    /// What it stands for.
    pub term: Term,
    /// Natural logarithm of the factor; 0 is neutral, lower is worse.
    pub log_value: f64,
    /// The fact behind it, in words.
    pub detail: String,
}

/// What a contribution stands for.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Term {
    /// Baseline: great-circle distance from the primary.
    Distance,
    /// Baseline: capacity.
    Capacity,
    /// Baseline: the multiplier of the failover configuration.
    Configured,
    /// Network: median round-trip time.
    LatencyP50,
    /// Network: 99th percentile of the round-trip time.
    LatencyP99,
    /// Network: jitter.
    Jitter,
    /// Network: loss.
    Loss,
    /// Network: bandwidth.
    Bandwidth,
    /// Network: all signals of one source.
    Signal(leeward_common::id::SourceId),
}

/// Why a candidate may not be selected.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Refusal {
    /// A stable word for programs.
    pub code: RefusalCode,
    /// The fact behind it, in words.
    pub detail: String,
}

/// The gates; see the module's documentation for their order.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalCode {
    /// The policy has no such region.
    UnknownRegion,
    /// It is the primary itself.
    IsPrimary,
    /// A quorum of observers sees it as lost.
    Down,
    /// Nothing was measured yet.
    NoEvidence,
    /// What was measured is too old.
    Stale,
    /// What was measured is too little.
    TooFewProbes,
    /// Others reach it, but nothing between it and the primary is answered.
    Unreachable,
}

impl Ranking {
    /// The best eligible candidate.
    #[must_use]
    pub fn best(&self) -> Option<&Candidate> {
        self.candidates.first().filter(|best| best.eligible)
    }

    /// One candidate.
    #[must_use]
    pub fn candidate(&self, region: &RegionId) -> Option<&Candidate> {
        self.candidates
            .iter()
            .find(|candidate| candidate.region == *region)
    }
}

/// Ranks candidates for a primary. `weights` are multipliers of the baseline weight, 1 where absent.
#[must_use]
pub fn rank(
    _picture: &Picture<'_>,
    _primary: &RegionId,
    _candidates: &[RegionId],
    _weights: &BTreeMap<RegionId, f64>,
) -> Ranking {
    Ranking::default()
}
