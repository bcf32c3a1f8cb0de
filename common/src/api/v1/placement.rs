//! Where services run, would run, and could run.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{
    Candidate, CheckStanding, FailStatic, Perspective, Previous, Reason, State, Time, Waiting,
    WouldChange,
};
use crate::id::{OverrideId, RegionId, ResourceId, ServiceId};

/// Where a service should run, and why.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ServiceFailover {
    /// The service.
    pub service_id: ServiceId,
    /// Where it belongs.
    pub home: RegionId,
    /// Where it should run by what was decided; with shares, the region with the largest. `null` if it has nowhere to run.
    pub selected_region: Option<RegionId>,
    /// The best region by what is known now; differs from `selected_region` while a move is being confirmed, is held or
    /// is not worth it. `null` if none may be selected.
    pub recommended_region: Option<RegionId>,
    /// What is being done about the difference.
    pub action: Action,
    /// How the answer fares: `ok`, `degraded` when it rests on old or partial evidence or something hurts, `bad` when it
    /// runs nowhere or not wholly, `pending` before anything is known.
    pub state: State,
    /// The answer in one sentence.
    pub summary: String,
    /// What a move waits for; `null` if nothing is waited for.
    pub waiting: Option<Waiting>,
    /// Why nothing moves by itself, while the observers are cut off; `null` while they are not.
    #[serde(default)]
    pub fail_static: Option<FailStatic>,
    /// When the selection was made; for one that was never moved, when it was first heard of.
    pub decided_at: Option<Time>,
    /// The decision that made it; `null` if there was none yet.
    pub decision_id: Option<u64>,
    /// The selection before this one; `null` if there was none.
    pub previous: Option<Previous>,
    /// Until when it stays unless it must leave; `null` if it is free to move.
    pub held_until: Option<Time>,
    /// By which shares it runs where.
    pub assignment: Vec<Share>,
    /// What of it runs nowhere; `null` if all of it runs.
    pub unserved: Option<Unserved>,
    /// Where all of it would go if `selected_region` failed now, all affected services placed together.
    pub standby: Vec<Share>,
    /// What of it would then run nowhere; `null` if all of it would run.
    pub standby_unserved: Option<Unserved>,
    /// What somebody should know, such as a pin that hurts.
    pub notices: Vec<Reason>,
    /// Overrides in force that concern it.
    pub overrides: Vec<OverrideId>,
    /// From where the candidates are judged.
    pub perspective: Perspective,
    /// Where it may run, best first; what may not be selected last.
    pub candidates: Vec<Candidate>,
    /// Age of the newest evidence about `selected_region`, milliseconds; `null` without any.
    pub data_age_ms: Option<u64>,
    /// Agents with fresh evidence about `selected_region`.
    pub vantage_points: u32,
    /// As of which change the service is so.
    pub service_version: u64,
    /// The state of the graph behind it.
    pub graph_version: u64,
    /// The policy behind it.
    pub policy_version: String,
    /// When the candidates were ranked; ages count back from here.
    pub evaluated_at: Time,
    /// Whether the whole picture is too old to act on: the answer is the last good one.
    pub stale: bool,
}

/// An answer about a service, and what would change it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ServiceExplanation {
    /// The answer.
    #[serde(flatten)]
    pub failover: ServiceFailover,
    /// What would change it: the selected region's measures first, then those of the other candidates.
    pub would_change_if: Vec<WouldChange>,
}

/// What is being done about a better region.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Nothing: it is where it is best, or another is not better by enough, beyond doubt.
    #[default]
    None,
    /// It is about to move, once the other has been better, or its own region silent, for long enough.
    Switch,
    /// It would move, and something holds it: it moved lately or too often, or going back is an operator's to say.
    Hold,
    /// It stays by an override, whatever is better.
    Frozen,
    /// It stays since the observers are cut off: nothing is known.
    FailStatic,
}

impl Action {
    /// The word in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Switch => "switch",
            Self::Hold => "hold",
            Self::Frozen => "frozen",
            Self::FailStatic => "fail_static",
        }
    }
}

/// A region's part of a service.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Share {
    /// The region.
    pub region_id: RegionId,
    /// Its part, above 0, at most 1.
    pub share: f64,
}

/// A part of a service that runs nowhere.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Unserved {
    /// Which part, above 0, at most 1.
    pub share: f64,
    /// Why.
    pub because: String,
}

/// Asks where everything would go if these regions failed.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct PlacementQuestion {
    /// The regions that fail.
    pub failed: BTreeSet<RegionId>,
}

/// Where everything would go if some regions failed now.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Placement {
    /// The regions that fail.
    pub failed: BTreeSet<RegionId>,
    /// The answer in one sentence.
    pub summary: String,
    /// The services that run in one of them, the most important first.
    pub services: Vec<Fate>,
    /// What that does to the regions that are left.
    pub loads: Vec<Load>,
    /// The state of the graph behind it.
    pub graph_version: u64,
    /// The policy behind it.
    pub policy_version: String,
    /// As of when.
    pub evaluated_at: Time,
}

/// Where a service would go.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Fate {
    /// The service.
    pub service_id: ServiceId,
    /// 0 is the most important.
    pub priority: u8,
    /// Where it runs now.
    pub before: Vec<Share>,
    /// Where it would run.
    pub after: Vec<Share>,
    /// What of it would run nowhere; `null` if all of it would run.
    pub unserved: Option<Unserved>,
}

/// One resource of a region before and after, in the resource's own unit.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Load {
    /// The region.
    pub region_id: RegionId,
    /// The resource.
    pub resource_id: ResourceId,
    /// All that is offered; `null` if nobody offers anything of the region.
    pub offered: Option<f64>,
    /// What may be used at most: what is offered, less what is kept free and reserved for others.
    pub usable: Option<f64>,
    /// What is used now.
    pub before: f64,
    /// What would be used.
    pub after: f64,
    /// What one more unit would be worth; `null` where some is left.
    pub price: Option<Price>,
}

/// What one more unit of a resource would be worth.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Price {
    /// The most important priority of which more would be served; `null` if everything is served.
    pub priority: Option<u8>,
    /// How many services of that priority one more unit would serve.
    pub serves: f64,
    /// By how much the sum of the services' scores, in natural logarithms, would be better.
    pub saves: f64,
}

/// Whether each service could run in each of its regions today.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Readiness {
    /// Service by service, region by region.
    pub standings: Vec<Standing>,
    /// What changed lately, newest first.
    pub history: Vec<ReadinessChange>,
    /// As of when.
    pub evaluated_at: Time,
}

/// Whether a service could run in a region today.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Standing {
    /// The service.
    pub service_id: ServiceId,
    /// The region.
    pub region_id: RegionId,
    /// Whether it could.
    pub readiness: ReadinessState,
    /// Since when.
    pub since: Time,
    /// Why not, or what is not known.
    pub reasons: Vec<Reason>,
    /// What agents of other regions find there; absent without checks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<CheckStanding>,
}

/// A change of readiness.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReadinessChange {
    /// From 1, without gaps.
    pub change_id: u64,
    /// When.
    pub at: Time,
    /// The service.
    pub service_id: ServiceId,
    /// The region.
    pub region_id: RegionId,
    /// What it was before; `null` if it was not looked at before.
    pub before: Option<ReadinessState>,
    /// What it is from then on.
    pub readiness: ReadinessState,
    /// Why not, or what is not known.
    pub reasons: Vec<Reason>,
}

/// Whether a service could run in a region.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ReadinessState {
    /// It could.
    Ready,
    /// It could not.
    NotReady,
    /// Too little is known to tell.
    Unknown,
}

impl ReadinessState {
    /// The word in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::NotReady => "not_ready",
            Self::Unknown => "unknown",
        }
    }
}
