//! What the operator wants: regions, who may stand in for whom, and the numbers that a decision uses.
//!
//! The TOML sections `[[region]]`, `[[failover]]`, `[probing]`, `[policy]`, `[[target]]` and `[[signal_source]]` are
//! the same in `aggregator.toml` and in a scenario; [`Sections`] is their raw form and [`Policy`] the valid one.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use leeward_common::{
    bgp::Prefix,
    histogram::Schema,
    id::{RegionId, SourceId, TargetId},
    report::ProbeKind,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

mod sections;
mod written;

pub(crate) use sections::known_region;

pub use sections::{
    CapacitySection, DoubtSection, EvidenceSection, FailoverSection, PolicySection, ProbingSection,
    RegionSection, RoutingSection, Sections, SignalSourceSection, SteadinessSection, TargetSection,
    WeightsSection,
};

pub use written::{Difference, SECTIONS, only_sections};

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
    /// What counts as evidence, and for how long.
    pub evidence: Evidence,
    /// When an agent's own trouble takes its vote away.
    pub doubt: Doubt,
    /// The numbers of the baseline weight and of the network weight.
    pub weights: Weights,
    /// The numbers that keep a selection from flapping.
    pub steadiness: Steadiness,
    /// How far regions may be filled.
    #[serde(default)]
    pub capacity: CapacityRules,
    /// How far what routers tell counts.
    #[serde(default)]
    pub routing: RoutingRules,
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
    /// What it shares with others that can fail: a carrier, a cable, a power grid. Regions that name the same group may
    /// fail together.
    #[serde(default)]
    pub risk_groups: BTreeSet<String>,
    /// The prefixes that it is reached by; empty if agents are to learn them from each other's addresses.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub prefixes: BTreeSet<Prefix>,
    /// The systems that may announce these; empty if that is not known.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub origins: BTreeSet<u32>,
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
    /// As how many flows each path is probed, which routers that balance over equal paths tell apart; 1 to 8.
    #[serde(default = "flows")]
    pub flows: u8,
}

const fn flows() -> u8 {
    defaults::FLOWS
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

/// What counts as evidence, and for how long. Ages are by the aggregator's clock.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Evidence {
    /// How far back windows are pooled into one estimate of a link.
    pub memory: Duration,
    /// Evidence older than this is stale: its link is unknown.
    pub stale_after: Duration,
    /// How long nothing at all may be answered before an observer sees a region as lost.
    pub down_after: Duration,
    /// How many probes that must be at least.
    pub down_probes: u32,
    /// Fewer probes than this are no estimate of a link.
    pub min_probes: u32,
    /// Whether a candidate whose link to the primary nobody measures may be selected by what is expected of it
    /// ([`crate::predict`]).
    pub predict: bool,
}

/// What an agent may notice about itself in a window and still have a vote
/// ([`LocalHealth`](leeward_common::report::LocalHealth)).
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Doubt {
    /// The share of due probes, 0..=1, that it did not send in time or that its kernel refused.
    pub unsent: f64,
    /// How late its probes left, on the average.
    pub lateness: Duration,
    /// Packets that its receive queue dropped, as a share of due probes.
    pub overflow: f64,
    /// By how much its clock was set.
    pub clock_step: Duration,
    /// For how long after such a window its vote does not count.
    pub lasts: Duration,
}

/// The numbers of the baseline weight and of the network weight. Every utility is in 0..=1 and falls as its measure
/// gets worse; its exponent says how much it counts, 0 switches it off.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Weights {
    /// Great-circle distance in km at which the proximity of a candidate is worth a half.
    pub distance_scale_km: f64,
    /// Exponent of the proximity.
    pub distance: f64,
    /// Exponent of the capacity.
    pub capacity: f64,
    /// Round-trip time at which the latency utility is a half: `1 / (1 + (rtt / scale)^2)`.
    pub latency_scale: Duration,
    /// Exponent of the utility of the median round-trip time.
    pub latency_p50: f64,
    /// Exponent of the utility of its 99th percentile.
    pub latency_p99: f64,
    /// Jitter at which the jitter utility is a half: `1 / (1 + jitter / scale)`.
    pub jitter_scale: Duration,
    /// Exponent of the jitter utility.
    pub jitter: f64,
    /// Exponent of `1 - loss`.
    pub loss: f64,
    /// Bandwidth in bits per second at which the bandwidth utility is a half: `b / (b + scale)`.
    pub bandwidth_scale_bps: f64,
    /// Exponent of the bandwidth utility, where the bandwidth is known.
    pub bandwidth: f64,
    /// No single term counts for less than this factor, above 0 and below 1.
    pub floor: f64,
}

/// The numbers that keep a selection from flapping.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Steadiness {
    /// How much better a challenger's score must be, as a factor of at least 1: 1.15 is 15 % better.
    pub margin: f64,
    /// For how long it must be.
    pub confirm: Duration,
    /// How many times the doubt about a lead the lead must exceed: 1 asks for 95 % confidence, 0 for none.
    pub caution: f64,
    /// What a move costs: so many seconds of full service.
    pub switching_cost: Duration,
    /// For how long one expects to stay after a move.
    pub dwell: Duration,
    /// Whether a selection goes back by itself to where something bad has driven it from.
    pub failback: Failback,
    /// The time on whose average a region must be better to be gone back to, or to win by only `failback_margin`.
    pub failback_confirm: Duration,
    /// How much better it must be then, as a factor of at least 1.
    pub failback_margin: f64,
    /// How often a region may be left, half forgotten with each `flap_half_life`, and still be gone back to.
    pub flap_limit: f64,
    /// The time in which half of that is forgotten.
    pub flap_half_life: Duration,
    /// How many moves one selection may make in an hour. Leaving a region that cannot serve counts and is not refused.
    pub moves_per_hour: u32,
    /// How many moves all selections together may make in a minute; as above.
    pub storm_moves: u32,
    /// How long a selection may be unknown before another takes its place.
    pub silence: Duration,
    /// The hold after a first move.
    pub hold_first: Duration,
    /// The longest hold: each further move doubles it.
    pub hold_max: Duration,
    /// A selection left alone for this long is treated as one that never moved.
    pub forget_after: Duration,
}

/// Who says when a selection goes back to where something bad has driven it from.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Failback {
    /// It does, by its own, slower rules.
    #[default]
    Automatic,
    /// An operator does.
    Manual,
}

/// How far regions may be filled.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct CapacityRules {
    /// Share of what is offered that is kept free, 0..=0.99.
    pub reserve: f64,
}

impl Default for CapacityRules {
    fn default() -> Self {
        Self {
            reserve: defaults::CAPACITY_RESERVE,
        }
    }
}

/// How far what routers tell counts ([`crate::routing`]).
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct RoutingRules {
    /// For how long after it was told, unless it is told anew.
    pub lasts: Duration,
    /// The most that it may divide a network weight by, at least 1; 1 switches that off.
    pub max_factor: f64,
    /// Whether a region is left, and not gone to, when the prefix that it is reached by is withdrawn and no other route is
    /// shown.
    pub leave: bool,
}

impl Default for RoutingRules {
    fn default() -> Self {
        defaults::routing()
    }
}

/// What holds where the config says nothing.
pub mod defaults {
    use std::time::Duration;

    /// Time between two probes of one path.
    pub const INTERVAL: Duration = Duration::from_millis(100);
    /// Length of a window.
    pub const WINDOW: Duration = Duration::from_secs(1);
    /// Flows of a path.
    pub const FLOWS: u8 = leeward_common::wire::v1::FLOWS;
    /// Relative capacity of a region.
    pub const CAPACITY: f64 = 1.0;
    /// Share of what is offered that is kept free.
    pub const CAPACITY_RESERVE: f64 = 0.1;
    /// Time between two evaluations.
    pub const EVALUATE_EVERY: Duration = Duration::from_millis(50);
    /// The longest time to live of a signal.
    pub const SIGNAL_MAX_TTL: Duration = Duration::from_secs(3600);
    /// The most that one source of signals may pull.
    pub const SIGNAL_MAX_FACTOR: f64 = 4.0;
    /// Windows without which evidence is stale, if [`super::Evidence::stale_after`] is not set.
    pub const STALE_WINDOWS: u32 = 4;

    /// First holds for which a region must be better to be gone back to, if
    /// [`super::Steadiness::failback_confirm`] is not set.
    pub const FAILBACK_HOLDS: u32 = 5;

    /// Defaults of [`super::Evidence`]. The memory holds at least 60 probes of a path, or a minute: with fewer, a single
    /// lost probe would look like a lossy link.
    #[must_use]
    pub fn evidence(interval: Duration, window: Duration) -> super::Evidence {
        let probes = (interval * 60).clamp(Duration::from_secs(6), Duration::from_secs(60));
        super::Evidence {
            memory: probes.max(window),
            stale_after: (window * STALE_WINDOWS)
                .clamp(Duration::from_secs(2), crate::graph::RETENTION),
            down_after: Duration::from_millis(500),
            down_probes: 4,
            min_probes: 5,
            predict: true,
        }
    }

    /// Defaults of [`super::Doubt`]. They are wide: probes that leave late or not at all are never counted as lost, so
    /// doubt is for hosts in real trouble, and one vote less may cost the quorum.
    #[must_use]
    pub const fn doubt() -> super::Doubt {
        super::Doubt {
            unsent: 0.3,
            lateness: Duration::from_millis(100),
            overflow: 0.1,
            clock_step: Duration::from_millis(500),
            lasts: Duration::from_secs(5),
        }
    }

    /// Defaults of [`super::Weights`].
    #[must_use]
    pub fn weights() -> super::Weights {
        super::Weights {
            distance_scale_km: 5_000.0,
            distance: 1.0,
            capacity: 0.5,
            latency_scale: Duration::from_millis(100),
            latency_p50: 0.7,
            latency_p99: 0.3,
            jitter_scale: Duration::from_millis(50),
            jitter: 0.25,
            loss: 12.0,
            bandwidth_scale_bps: 100e6,
            bandwidth: 1.0,
            floor: 1e-6,
        }
    }

    /// Defaults of [`super::RoutingRules`]. It takes two minutes on average until a withdrawal is everywhere; after five
    /// probes have had every chance to show what is true.
    #[must_use]
    pub const fn routing() -> super::RoutingRules {
        super::RoutingRules {
            lasts: Duration::from_secs(300),
            max_factor: 2.0,
            leave: true,
        }
    }

    /// Defaults of [`super::Steadiness`].
    #[must_use]
    pub fn steadiness() -> super::Steadiness {
        super::Steadiness {
            margin: 1.15,
            confirm: Duration::from_secs(1),
            caution: 0.25,
            switching_cost: Duration::from_secs(2),
            dwell: Duration::from_secs(600),
            failback: super::Failback::Automatic,
            failback_confirm: Duration::from_secs(60) * FAILBACK_HOLDS,
            failback_margin: 1.03,
            flap_limit: 3.0,
            flap_half_life: Duration::from_secs(900),
            moves_per_hour: 20,
            storm_moves: 600,
            silence: Duration::from_secs(15),
            hold_first: Duration::from_secs(60),
            hold_max: Duration::from_secs(600),
            forget_after: Duration::from_secs(3600),
        }
    }
}

impl Policy {
    /// What tells this policy from any other: the first 16 hexadecimal digits of the SHA-256 of all its values, written as
    /// TOML. Comments, order and defaults that are spelt out make no other policy.
    #[must_use]
    pub fn version(&self) -> String {
        let text = toml::to_string(self).expect("a policy holds nothing that TOML cannot express");
        let hash = Sha256::digest(text.as_bytes());
        hash[..8].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The candidates that may stand in for a primary: those of the config, else every other region; none for a region
    /// that the policy does not know.
    #[must_use]
    pub fn candidates(&self, primary: &RegionId) -> Vec<RegionId> {
        if !self.regions.contains_key(primary) {
            return Vec::new();
        }
        match self.failovers.get(primary) {
            Some(failover) => failover.candidates.clone(),
            None => self
                .regions
                .keys()
                .filter(|region| *region != primary)
                .cloned()
                .collect(),
        }
    }
}
