//! Version 1 of the API: JSON, `snake_case`, units in names, times in RFC 3339 UTC.
//!
//! A measured value is never a bare number but a [`Measured`]: whoever reads it is handed its bounds, its age and what
//! it is worth along with it. `null` means unknown and is not zero. Ages are as of the answer's `evaluated_at`.
//!
//! Fields are only ever added; readers ignore what they do not know. Requests are the opposite: an unknown field in a
//! request body is an error, because a misspelt one would silently mean something else.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    id::{AgentId, RegionId, ServiceId, SourceId},
    ratio::Ratio,
    time::Timestamp,
};

mod audit;
mod backup;
mod bandwidth;
mod bgp;
mod capacity;
mod check;
mod define;
mod directions;
mod fault;
mod flows;
mod history;
mod known;
mod placement;
mod policy;
mod replay;
mod simulation;
mod trace;
mod watch;

pub use audit::{Audit, AuditEntry};
pub use backup::{Backup, Backups, NewBackup};
pub use bandwidth::{
    BandwidthOrder, BandwidthOrderState, BandwidthQuantity, LinkBandwidth, NewBandwidthOrder,
};
pub use bgp::{BgpEvent, BgpEvents, BgpMoreSpecific, BgpPeer, BgpPeers, BgpPrefix, BgpPrefixes};
pub use capacity::{Account, Capacity};
pub use check::{CheckFinding, CheckSpec, CheckStanding, CheckVantage, MAX_CHECKS};
pub use define::{
    Defined, Failback, Fault, OfferSpec, OverrideRule, OverrideSpec, ReachSpec, Replication,
    ReservationSpec, ServiceLimits, ServiceProfile, ServiceSpec, WeightsSpec, check_why,
};
pub use directions::{Direction, Directions};
pub use fault::{
    AuditHead, FailStatic, FaultKind, FaultPlace, Faults, Hesitation, Hesitations, LocatedFault,
    NotCounted, Waiting,
};
pub use flows::{Flow, PathFlows};
pub use history::{HistoryPoint, HistoryRtt, HistorySource, LinkHistory};
pub use known::{
    Offer, Override, Overrides, Reach, Reaches, RegionReach, Removed, Reservation, Service,
    ServiceLine, Services,
};
pub use placement::{
    Action, Fate, Load, Placement, PlacementQuestion, Price, Readiness, ReadinessChange,
    ReadinessState, ServiceExplanation, ServiceFailover, Share, Standing, Unserved,
};
pub use policy::{
    CurrentPolicy, ParameterDifference, Policies, ShadowPolicy, ShadowSpec, ShadowStanding,
    ShadowState, WrittenPolicy,
};
pub use replay::{
    Divergence, PolicyComparison, PolicyMove, Replay, ReplayBegin, ReplayDifference, ReplayLine,
    ReplayProgress, ReplayRequest, Scoreboard, ScoreboardSide, SelectedFor, ShiftedMove, When,
};

pub use simulation::{
    SimulatedSelection, Simulation, SimulationEvent, SimulationLine, SimulationRequest,
};
pub use trace::{
    NewTrace, OrderState, OrderedTrace, Trace, TraceAnswer, TraceChange, TraceEnd, TraceHop,
    TraceLabel, TraceMtu, TraceOutcome, Traces,
};
pub use watch::{
    Doubt, FailoverState, Failovers, Moved, RefusedCandidate, RegionStatus, Reset, Sentence,
    ServiceState, Snapshot,
};

/// A point in time: RFC 3339 in UTC, to the microsecond.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Time(pub Timestamp);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<Timestamp> for Time {
    fn from(time: Timestamp) -> Self {
        Self(time)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        let time = Timestamp::parse_rfc3339(&text).map_err(|error| {
            serde::de::Error::custom(format!(
                "{error}; write a time like \"2026-11-20T03:12:11Z\""
            ))
        })?;
        Ok(Self(time))
    }
}

#[cfg(feature = "openapi")]
impl utoipa::PartialSchema for Time {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
            .description(Some("RFC 3339 in UTC"))
            .into()
    }
}

#[cfg(feature = "openapi")]
impl utoipa::ToSchema for Time {}

/// How something fares. A closed set; `unknown` is never `ok`.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// As it should be.
    Ok,
    /// Works, worse than it should or less surely known.
    Degraded,
    /// Does not work.
    Bad,
    /// Nobody can tell: never measured, or measured too long ago.
    Unknown,
    /// Not measured yet, expected soon.
    Pending,
    /// Taken out on purpose.
    Maintenance,
}

impl State {
    /// The word in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Bad => "bad",
            Self::Unknown => "unknown",
            Self::Pending => "pending",
            Self::Maintenance => "maintenance",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A measured value with its uncertainty and its age. The field that holds it names the unit.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Measured {
    /// The best guess; `null` if unknown.
    pub value: Option<f64>,
    /// Lower bound at 95 % confidence; `null` if unknown.
    pub low: Option<f64>,
    /// Upper bound at 95 % confidence; `null` if unknown.
    pub high: Option<f64>,
    /// Samples behind it.
    pub n: u64,
    /// Age of the newest sample, milliseconds; `null` without any.
    pub age_ms: Option<u64>,
    /// What it is worth: `ok` fresh, `degraded` too few samples to be sure, `unknown` too old or never measured.
    pub state: State,
}

// ---- failover ----------------------------------------------------------------------------------------------------

/// Which region a primary fails over to, and why.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Failover {
    /// The region that is failed over from.
    pub primary_region: RegionId,
    /// The region to fail over to; `null` if no candidate may be selected or nothing was decided yet.
    pub selected_region: Option<RegionId>,
    /// How the answer fares: `ok`, `degraded` when it rests on old or partial evidence, `bad` when no candidate is
    /// left, `pending` before the first decision.
    pub state: State,
    /// The answer in one sentence.
    pub summary: String,
    /// When the selection was decided; `null` before the first decision.
    pub decided_at: Option<Time>,
    /// The decision that made it; `null` before the first and in a stateless evaluation.
    pub decision_id: Option<u64>,
    /// The selection before this one; `null` if there was none.
    pub previous: Option<Previous>,
    /// Until when the selection stays unless it goes down; `null` if it is free to move.
    pub held_until: Option<Time>,
    /// The best region by what is known now; differs from `selected_region` while a move is waited for or is not worth
    /// it. `null` if none may be selected.
    #[serde(default)]
    pub recommended_region: Option<RegionId>,
    /// What is being done about the difference.
    #[serde(default)]
    pub action: Action,
    /// What a move waits for; `null` if nothing is waited for.
    #[serde(default)]
    pub waiting: Option<Waiting>,
    /// What somebody should know, such as a pin that hurts.
    #[serde(default)]
    pub notices: Vec<Reason>,
    /// Why nothing moves by itself, while the observers are cut off; `null` while they are not.
    #[serde(default)]
    pub fail_static: Option<FailStatic>,
    /// From where the candidates are judged.
    pub perspective: Perspective,
    /// The candidates, best first; those that may not be selected last.
    pub candidates: Vec<Candidate>,
    /// The state of the graph behind it: grows with everything that is learned.
    pub graph_version: u64,
    /// The policy behind it.
    #[serde(default)]
    pub policy_version: String,
    /// When the candidates were ranked; ages count back from here.
    pub evaluated_at: Time,
    /// Whether the whole picture is too old to act on: the answer is the last good one.
    pub stale: bool,
}

/// An answer, and what would change it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Explanation {
    /// The answer.
    #[serde(flatten)]
    pub failover: Failover,
    /// What would change it: the selected region's measures first, then those of the other candidates.
    pub would_change_if: Vec<WouldChange>,
}

/// One measure of one candidate, and where the answer turns on it, all others being what they are.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WouldChange {
    /// The candidate.
    pub region_id: RegionId,
    /// Whether it is the one selected.
    pub selected: bool,
    /// The measure: `latency_p50`, `latency_p99`, `jitter`, `loss` or `bandwidth`.
    pub term: String,
    /// What it is now: microseconds, a ratio, or bits per second.
    pub now: f64,
    /// Where the candidate and its rival score the same; `null` if no value makes them.
    pub even_at: Option<f64>,
    /// Where one leads by the policy's margin, so that the selection moves after the confirm window; `null` if no value
    /// makes it.
    pub moves_at: Option<f64>,
    /// The same in words.
    pub detail: String,
}

/// A selection that is no longer in force.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Previous {
    /// The region.
    pub region_id: RegionId,
    /// Since when it was selected; `null` if that is no longer remembered.
    pub since: Option<Time>,
    /// Until when.
    pub until: Option<Time>,
}

/// From where candidates are judged.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Perspective {
    /// By the links between the primary and each candidate.
    Primary,
    /// The primary is down or silent: by the median link between the other regions and each candidate.
    Survivors,
    /// By the links between a service's clients and each candidate, by their shares.
    Clients,
}

/// One candidate for a failover.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Candidate {
    /// The candidate.
    pub region_id: RegionId,
    /// Its place, from 1; `null` if it may not be selected.
    pub rank: Option<u32>,
    /// Whether it may be selected.
    pub eligible: bool,
    /// Why not; empty if it may.
    pub reasons: Vec<Reason>,
    /// Weight from geography and capacity, above 0; higher is better.
    pub baseline_weight: f64,
    /// Live quality of the link to it, 0 to 1 before signals; higher is better; `null` if unknown.
    pub network_weight: Option<f64>,
    /// Baseline weight times network weight; `null` if unknown.
    pub score: Option<f64>,
    /// Lower bound of the score at 95 % confidence; `null` if unknown. A challenger is compared by this one.
    #[serde(default)]
    pub score_low: Option<f64>,
    /// Upper bound of the score at 95 % confidence; `null` if unknown. The selected region is compared by this one.
    #[serde(default)]
    pub score_high: Option<f64>,
    /// Whether nobody measures the link to it: the round-trip time is what is expected of it, the rest what other regions see.
    #[serde(default)]
    pub predicted: bool,
    /// Score over the best one, 0 to 1; `null` unless eligible.
    pub normalised_score: Option<f64>,
    /// Median round-trip time, microseconds.
    pub latency_p50_us: Measured,
    /// 99th percentile of the round-trip time, microseconds.
    pub latency_p99_us: Measured,
    /// 99th percentile minus minimum of the round-trip time (RFC 5481 PDV), microseconds.
    pub jitter_us: Measured,
    /// Share of probes without a reply, 0 to 1; lower is better.
    pub loss_ratio: Measured,
    /// Bits per second; `null` if unknown.
    pub bandwidth_bps: Option<Measured>,
    /// Age of the newest evidence, milliseconds; `null` without any.
    pub data_age_ms: Option<u64>,
    /// Agents with fresh evidence.
    pub vantage_points: u32,
    /// Whose link to the candidate was judged; `null` if no single region's.
    pub seen_from: Option<RegionId>,
    /// What makes up the score: the logarithms add up to its logarithm.
    pub contributions: Vec<Contribution>,
}

/// A fact with a word for programs.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Reason {
    /// A stable word.
    pub code: String,
    /// The fact behind it.
    pub detail: String,
}

/// One addend of a score's logarithm.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Contribution {
    /// What it stands for: `distance`, `capacity`, `configured`, `latency_p50`, `latency_p99`, `jitter`, `loss`,
    /// `bandwidth`, `staleness`, `routing` or `signal`.
    pub term: String,
    /// The source, where the term is `signal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceId>,
    /// Natural logarithm of the factor; 0 is neutral, lower is worse.
    pub log_value: f64,
    /// Its lower bound at 95 % confidence; `null` if it is known, not measured.
    #[serde(default)]
    pub log_low: Option<f64>,
    /// Its upper bound.
    #[serde(default)]
    pub log_high: Option<f64>,
    /// The fact behind it.
    pub detail: String,
}

/// A failover configuration to be judged now, without being remembered.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct FailoverConfiguration {
    /// The region to fail over from.
    pub primary_region: RegionId,
    /// The candidates, at least one.
    pub potential_failover_regions: Vec<RegionId>,
    /// Multipliers of the baseline weight by candidate, above 0; 1 where absent.
    #[serde(default)]
    pub weights: BTreeMap<RegionId, f64>,
}

// ---- decisions ---------------------------------------------------------------------------------------------------

/// What was decided lately.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Decisions {
    /// Newest first.
    pub decisions: Vec<Decision>,
    /// Pass as `before` to get the next page; `null` at the end of what is remembered.
    pub next_before: Option<u64>,
}

/// One decision.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Decision {
    /// From 1, without gaps.
    pub decision_id: u64,
    /// When it was decided.
    pub decided_at: Time,
    /// Whose failover it is; for a service, its home.
    pub primary_region: RegionId,
    /// The service, if the selection is one's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_id: Option<ServiceId>,
    /// The selection before; `null` if there was none.
    pub from: Option<RegionId>,
    /// The selection from then on; `null` if no candidate was left.
    pub to: Option<RegionId>,
    /// Why.
    pub reason: Reason,
    /// Score of the new selection over score of the old; `null` where the reason is not a better score.
    pub margin: Option<f64>,
    /// The decision in one sentence.
    pub summary: String,
    /// The state of the graph that it was decided upon.
    pub graph_version: u64,
    /// The policy that it was decided by; empty where that was not noted.
    #[serde(default)]
    pub policy_version: String,
    /// From where the candidates were judged.
    pub perspective: Perspective,
    /// What was known: every candidate, best first, with what makes up its score or the reasons against it.
    pub evidence: Vec<Candidate>,
}

// ---- network -----------------------------------------------------------------------------------------------------

/// The network as it is known.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Graph {
    /// Grows with everything that is learned.
    pub graph_version: u64,
    /// The policy in force.
    #[serde(default)]
    pub policy_version: String,
    /// When; ages count back from here.
    pub evaluated_at: Time,
    /// The region whose view the nodes show; `null` if none was asked for and the nodes' measures are all unknown.
    pub from: Option<RegionId>,
    /// The regions.
    pub nodes: Vec<Node>,
    /// The directed links that somebody measured.
    pub edges: Vec<Edge>,
}

/// A region as seen from another.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Node {
    /// The region.
    pub region_id: RegionId,
    /// Whether others reach it: `ok`, `bad` or `unknown`.
    pub state: State,
    /// Median round-trip time, microseconds.
    pub latency_us: Measured,
    /// Share of probes without a reply, 0 to 1; lower is better.
    pub packet_loss: Measured,
    /// Bits per second; `null` if unknown.
    pub bandwidth_bps: Option<Measured>,
    /// Baseline weight times network weight, over the best; 0 to 1, higher is better; `null` if unknown.
    pub weight: Option<f64>,
}

/// A directed link: what agents of one region measured about another.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Edge {
    /// Whose agents measured.
    pub from: RegionId,
    /// About whom.
    pub to: RegionId,
    /// How the link fares: `ok`, `degraded` with loss, `bad` when nothing gets through, `unknown`.
    pub state: State,
    /// Median round-trip time, microseconds.
    pub latency_us: Measured,
    /// 99th percentile of the round-trip time, microseconds.
    pub latency_p99_us: Measured,
    /// 99th percentile minus minimum, microseconds.
    pub jitter_us: Measured,
    /// Share of probes without a reply, 0 to 1; lower is better.
    pub packet_loss: Measured,
    /// Bits per second; `null` if unknown.
    pub bandwidth_bps: Option<Measured>,
    /// Live quality of the link, 0 to 1, before signals; `null` if unknown.
    pub weight: Option<f64>,
    /// Agents with fresh evidence.
    pub vantage_points: u32,
}

/// The best ways between regions, straight or over one relay.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Routes {
    /// Grows with everything that is learned.
    pub graph_version: u64,
    /// The policy in force.
    pub policy_version: String,
    /// When.
    pub evaluated_at: Time,
    /// Whether the picture is too old to act on; every advice is `unknown` then.
    pub stale: bool,
    /// One for each directed pair that was asked for.
    pub routes: Vec<Route>,
}

/// The best ways from one region to another.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Route {
    /// From where.
    pub from: RegionId,
    /// To where.
    pub to: RegionId,
    /// Which way to take.
    pub advice: RouteAdvice,
    /// The same in words, with what is gained.
    pub detail: String,
    /// The link between them; `null` if it was not measured lately or nothing gets through.
    pub direct: Option<RoutePath>,
    /// The best way over one relay, be it better or not; `null` if no relay has a known link to both ends.
    pub relay: Option<RelayPath>,
}

/// Which way to take.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum RouteAdvice {
    /// Straight: no relay wins clearly.
    Direct,
    /// Over the relay: it wins clearly, whatever the bounds.
    Relay,
    /// Over the relay: nothing gets through on the direct link.
    RelayOnly,
    /// Nothing gets through, and no relay is known that would help.
    NoWay,
    /// The direct link was not measured lately.
    Unknown,
}

/// How good a way is. Over a relay times and jitter add up, losses multiply as independent ones, and the bandwidth is
/// the smaller one.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RoutePath {
    /// Median round-trip time, microseconds.
    pub latency_us: f64,
    /// 99th percentile of the round-trip time, microseconds; over a relay an upper bound.
    pub latency_p99_us: f64,
    /// 99th percentile minus minimum, microseconds; over a relay an upper bound.
    pub jitter_us: f64,
    /// Share of probes without a reply, 0 to 1; lower is better.
    pub packet_loss: f64,
    /// Bits per second; `null` if unknown.
    pub bandwidth_bps: Option<f64>,
    /// Network weight, 0 to 1; higher is better.
    pub weight: f64,
}

/// A way over a relay.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RelayPath {
    /// The relay.
    pub region_id: RegionId,
    /// The whole way, what forwarding costs included.
    #[serde(flatten)]
    pub path: RoutePath,
    /// How much shorter its median round-trip time is than the direct link's, microseconds; below 0 where it is
    /// longer, `null` without a direct link.
    pub gain_us: Option<f64>,
    /// How much larger the natural logarithm of its weight is; `null` without a direct link.
    pub gain_log: Option<f64>,
}

/// A directed link and its recent windows.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Link {
    /// The link as it is now.
    #[serde(flatten)]
    pub edge: Edge,
    /// When; ages count back from here.
    pub evaluated_at: Time,
    /// What was measured lately, oldest first, all agents of the region together.
    pub windows: Vec<LinkWindow>,
    /// Signals about this link or about the region at its end.
    pub signals: Vec<Signal>,
    /// Paths of the link whose flows were unlike lately; absent if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flows: Vec<PathFlows>,
    /// How much it carries: three quantities, as each agent of the region found them; absent where nobody measured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bandwidth: Vec<LinkBandwidth>,
}

/// One window of a link.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LinkWindow {
    /// When it begins, by the agents' clocks.
    pub start: Time,
    /// How long it is, milliseconds.
    pub length_ms: u64,
    /// Probes answered, late ones included.
    pub answered: u64,
    /// Probes that were not.
    pub unanswered: u64,
    /// Share of probes without a reply, 0 to 1; `null` without any probe.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<f64>))]
    pub loss_ratio: Option<Ratio>,
    /// Round-trip times; `null` without a reply.
    pub rtt: Option<Quantiles>,
    /// What is known of each direction; absent where no agent of the region probes by STAMP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directions: Option<Directions>,
}

/// Round-trip times of a window, microseconds.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Quantiles {
    /// The smallest.
    pub min_us: u32,
    /// Median.
    pub p50_us: u32,
    /// 90th percentile.
    pub p90_us: u32,
    /// 99th percentile.
    pub p99_us: u32,
    /// The largest.
    pub max_us: u32,
}

/// The regions.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Regions {
    /// In the order of their ids.
    pub regions: Vec<Region>,
}

/// A region: what the operator says of it and how it fares.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Region {
    /// The region.
    pub region_id: RegionId,
    /// Whether others reach it: `ok`, `bad` or `unknown`.
    pub state: State,
    /// The fact behind the state.
    pub detail: String,
    /// Since when it is in that state; `null` before anything was measured.
    pub since: Option<Time>,
    /// Degrees north, -90 to 90.
    pub latitude: f64,
    /// Degrees east, -180 to 180.
    pub longitude: f64,
    /// Relative capacity; 1 is an ordinary region.
    pub capacity: f64,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
    /// Its agents that were heard of lately.
    pub fresh_agents: u32,
    /// Its agents, heard of lately or not.
    pub agents: Vec<AgentId>,
    /// Who may stand in for it, in the order of the configuration.
    pub potential_failover_regions: Vec<RegionId>,
    /// Who would stand in for it now; `null` if nobody was selected.
    pub selected_region: Option<RegionId>,
}

/// The agents.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Agents {
    /// In the order of their ids.
    pub agents: Vec<Agent>,
}

/// An agent.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Agent {
    /// The agent.
    pub agent_id: AgentId,
    /// Its region.
    pub region_id: RegionId,
    /// How it fares: `ok`, `degraded` when its view does not count, `unknown` when it is silent, `pending` before its
    /// first report.
    pub state: State,
    /// The fact behind the state.
    pub detail: String,
    /// When its session began; `null` while it has none.
    pub connected_since: Option<Time>,
    /// What carries its session: `quic`, or `tls` where UDP does not get through; `null` while it has none.
    #[serde(default)]
    pub transport: Option<String>,
    /// When its last report arrived; `null` before the first.
    pub last_report_at: Option<Time>,
    /// How long ago that was, milliseconds.
    pub data_age_ms: Option<u64>,
    /// Where it answers probes.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub addresses: Vec<IpAddr>,
    /// Its build.
    pub build: String,
    /// How it fares by its own account; `null` before it said so.
    pub own_account: Option<AgentAccount>,
    /// Targets that it does not probe, and why.
    pub refused_targets: Vec<RefusedTarget>,
}

/// How an agent fares by its own account. Counters run since its start.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AgentAccount {
    /// When the aggregator heard it.
    pub heard_at: Time,
    /// Probes scheduled.
    pub scheduled: u64,
    /// Probes sent.
    pub sent: u64,
    /// Probes not sent in time or forbidden by the rate cap.
    pub not_sent: u64,
    /// Probes dropped by its host's kernel.
    pub local_drop: u64,
    /// How late probes left, 99th percentile of the last status period, microseconds.
    pub send_lateness_p99_us: u64,
    /// Packets that answered no probe.
    pub strays: u64,
    /// Batches waiting to be acknowledged.
    pub batches_waiting: u64,
    /// Batches given up because there was no room for them, or because they were too old.
    pub batches_dropped: u64,
    /// Batches that aggregators refused for their window: too old, or in the future.
    #[serde(default)]
    pub batches_refused: u64,
    /// Batches that were merged into longer windows because there was no room for them.
    #[serde(default)]
    pub batches_coarsened: u64,
    /// Batches waiting on the agent's disk.
    #[serde(default)]
    pub batches_on_disk: u64,
    /// Places on the agent's disk that could not be read.
    #[serde(default)]
    pub spool_damaged: u64,
    /// What is wrong with the agent's disk; empty if nothing is.
    #[serde(default)]
    pub spool_trouble: String,
    /// Resident memory in bytes.
    pub resident_bytes: u64,
    /// CPU time used, microseconds.
    pub cpu_us: u64,
    /// Where time stamps come from.
    pub stamps: String,
}

/// A target that an agent does not probe, and why.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RefusedTarget {
    /// The target.
    pub target_id: String,
    /// Why.
    pub reason: String,
}

// ---- signals -----------------------------------------------------------------------------------------------------

/// What a signal measures.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// 0 to 1; 1 is neutral, lower is worse.
    Health,
    /// Round-trip time in microseconds; lower is better. Links only.
    LatencyUs,
    /// 0 to 1; lower is better. Links only.
    LossRatio,
    /// Bits per second; higher is better. Links only.
    BandwidthBps,
    /// How far data lags behind its origin, in microseconds; lower is better. Of a region, or of a service in one.
    ReplicationLagUs,
}

impl Metric {
    /// The word in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Health => "health",
            Self::LatencyUs => "latency_us",
            Self::LossRatio => "loss_ratio",
            Self::BandwidthBps => "bandwidth_bps",
            Self::ReplicationLagUs => "replication_lag_us",
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A measurement to inject: about `region`, or about the directed link `from` … `to`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewSignal {
    /// Who says so: a source of the configuration for which the token may speak.
    pub source: SourceId,
    /// The region that it is about. Leave out for a link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<RegionId>,
    /// Where the link begins. Leave out for a region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<RegionId>,
    /// Where the link ends. Leave out for a region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<RegionId>,
    /// The service that it is about, as it is in `region`. Leave out for the region itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceId>,
    /// Which measure.
    pub metric: Metric,
    /// In the metric's unit.
    pub value: f64,
    /// When it was observed; now if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_at: Option<Time>,
    /// For how long it counts from then on, milliseconds.
    pub ttl_ms: u64,
}

/// A signal in force.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Signal {
    /// Who says so.
    pub source: SourceId,
    /// The region that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<RegionId>,
    /// Where the link begins that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<RegionId>,
    /// Where the link ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<RegionId>,
    /// The service that it is about, as it is in `region`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceId>,
    /// Which measure.
    pub metric: Metric,
    /// In the metric's unit.
    pub value: f64,
    /// When it was observed.
    pub observed_at: Time,
    /// Until when it counts; then it is neutral.
    pub expires_at: Time,
}

/// The signals in force.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Signals {
    /// In no particular order.
    pub signals: Vec<Signal>,
}

// ---- overview ----------------------------------------------------------------------------------------------------

/// The one sentence, and the facts behind it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Overview {
    /// What matters most now, in one sentence.
    pub summary: String,
    /// How it all fares: the worst of what the sentence speaks of.
    pub state: State,
    /// Facts, the most important first.
    pub facts: Vec<Fact>,
    /// How many there are of what.
    pub counts: Tally,
    /// One line per primary region.
    pub failovers: Vec<FailoverLine>,
    /// The aggregator that answers.
    pub aggregator: String,
    /// Its build.
    pub build: String,
    /// The state of the graph.
    pub graph_version: u64,
    /// The policy in force.
    #[serde(default)]
    pub policy_version: String,
    /// When; ages count back from here.
    pub evaluated_at: Time,
    /// Age of the newest report, milliseconds; `null` before the first.
    pub data_age_ms: Option<u64>,
    /// Whether the whole picture is too old to act on.
    pub stale: bool,
    /// Why nothing moves by itself, while the observers are cut off; `null` while they are not.
    #[serde(default)]
    pub fail_static: Option<FailStatic>,
    /// Where the audit log ends. No part of the ETag.
    #[serde(default)]
    pub audit: AuditHead,
}

/// One fact.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Fact {
    /// What it answers: `what`, `where`, `why`, `sure`, `done` of the worst finding; `also` is another finding, `last` the
    /// last decision, `trust` whose view counts.
    pub label: String,
    /// The fact.
    pub text: String,
}

/// How many there are of what.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Tally {
    /// Regions of the configuration.
    pub regions: u32,
    /// Those that are down.
    pub regions_down: u32,
    /// Those of which nobody can tell.
    pub regions_unknown: u32,
    /// Agents that were heard of.
    pub agents: u32,
    /// Those whose view counts.
    pub agents_counted: u32,
    /// Directed links that were measured.
    pub links: u32,
    /// Those with loss or without any reply.
    pub links_troubled: u32,
    /// Faults that were found: agents, hosts, regions and links.
    #[serde(default)]
    pub faults: u32,
    /// Signals in force.
    pub signals: u32,
    /// Decisions that are remembered.
    pub decisions: u32,
}

/// A failover on one line.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FailoverLine {
    /// The region that is failed over from.
    pub primary_region: RegionId,
    /// The region to fail over to; `null` if there is none.
    pub selected_region: Option<RegionId>,
    /// How the answer fares.
    pub state: State,
    /// The answer in one sentence.
    pub summary: String,
    /// Since when; `null` before the first decision.
    pub decided_at: Option<Time>,
    /// The runner-up; `null` if there is none.
    pub next_best: Option<RegionId>,
    /// Score of the selected region over that of the best other candidate; below 1 while a better one waits for its
    /// confirmation or for the hold to end; `null` if either is unknown.
    pub margin: Option<f64>,
}

/// `/healthz` and `/readyz`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Health {
    /// A word.
    pub status: String,
    /// A sentence.
    pub detail: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_value_is_null_and_not_zero() {
        let unknown = Measured {
            value: None,
            low: None,
            high: None,
            n: 0,
            age_ms: None,
            state: State::Unknown,
        };
        let json = serde_json::to_string(&unknown).unwrap();
        assert_eq!(
            json,
            r#"{"value":null,"low":null,"high":null,"n":0,"age_ms":null,"state":"unknown"}"#
        );
    }

    #[test]
    fn a_time_is_rfc_3339_in_utc() {
        let time = Time(Timestamp::from_unix_us(1_763_000_000_250_000));
        let json = serde_json::to_string(&time).unwrap();
        assert_eq!(json, "\"2025-11-13T02:13:20.250Z\"");
        assert_eq!(serde_json::from_str::<Time>(&json).unwrap(), time);
        let error = serde_json::from_str::<Time>("\"yesterday\"")
            .unwrap_err()
            .to_string();
        assert!(error.contains("write a time like"), "{error}");
    }

    #[test]
    fn a_misspelt_field_of_a_request_is_an_error() {
        let body = r#"{"primary_region":"iad","potential_failover_regions":["dub"],"weigths":{}}"#;
        let error = serde_json::from_str::<FailoverConfiguration>(body)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("unknown field `weigths`, expected one of"),
            "{error}"
        );
    }

    #[test]
    fn no_request_makes_a_decoder_panic() {
        bolero::check!().for_each(|bytes: &[u8]| {
            let _ = serde_json::from_slice::<FailoverConfiguration>(bytes);
            let _ = serde_json::from_slice::<NewSignal>(bytes);
        });
    }
}
