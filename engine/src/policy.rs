//! What the operator wants: regions, who may stand in for whom, and the numbers that a decision uses.
//!
//! The TOML sections `[[region]]`, `[[failover]]`, `[probing]`, `[policy]`, `[[target]]` and `[[signal_source]]` are
//! the same in `aggregator.toml` and in a scenario; [`Sections`] is their raw form and [`Policy`] the valid one.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use leeward_common::{
    config::{ConfigError, Document, Span, Spanned},
    histogram::Schema,
    id::{RegionId, SourceId, TargetId},
    ratio::Ratio,
    report::ProbeKind,
};
use serde::{Deserialize, Serialize};

/// Everything that a decision depends on besides what was measured.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Policy {
    /// The regions.
    pub regions: BTreeMap<RegionId, Region>,
    /// Who may stand in for whom, by primary region. Where the config names none, every other region is a candidate.
    pub failovers: BTreeMap<RegionId, Failover>,
    /// How the mesh is probed.
    pub probing: Probing,
    /// Outside targets, probed by agents of every region or of those named.
    pub targets: Vec<OutsideTarget>,
    /// Who may inject signals, and how far each may pull.
    pub signal_sources: BTreeMap<SourceId, SignalSource>,
    /// Decisions are evaluated at multiples of this since the epoch.
    pub evaluate_every: Duration,
    /// The numbers of the network weight.
    pub weights: Weights,
    /// The numbers that keep a selection from flapping.
    pub steadiness: Steadiness,
}

/// A place that can serve.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Region {
    /// Degrees north, -90..=90.
    pub latitude: f64,
    /// Degrees east, -180..=180.
    pub longitude: f64,
    /// Relative capacity, above 0; 1 is an ordinary region.
    pub capacity: f64,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
}

/// Who may stand in for a primary region.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Failover {
    /// The candidates, none of them the primary.
    pub candidates: Vec<RegionId>,
    /// Multipliers of the baseline weight by candidate, above 0; 1 where absent.
    pub weights: BTreeMap<RegionId, f64>,
}

/// How the mesh is probed.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Probing {
    /// Time between two probes of one path.
    pub interval: Duration,
    /// Length of a window.
    pub window: Duration,
    /// How long a probe may stay unanswered before it is lost.
    pub expiry: Duration,
    /// The probe kinds.
    pub kinds: Vec<ProbeKind>,
    /// The histograms' schema.
    pub schema: Schema,
}

/// An address of nobody's agent that agents probe too.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct OutsideTarget {
    /// Its id.
    pub id: TargetId,
    /// Its address.
    pub address: IpAddr,
    /// How to probe it.
    pub kinds: Vec<ProbeKind>,
    /// Port of TCP SYN probes.
    pub port: u16,
    /// Whose agents probe it; empty for all.
    pub from: Vec<RegionId>,
    /// The region that it stands in, if it is evidence about one.
    pub region: Option<RegionId>,
}

/// Who may inject signals.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct SignalSource {
    /// The most that all signals of this source together may multiply or divide a network weight by, at least 1.
    pub max_factor: f64,
    /// The longest time to live that it may ask for.
    pub max_ttl: Duration,
}
