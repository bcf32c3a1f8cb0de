//! What `GET /v1/watch` tells: server-sent events, each with a name and one of these as its data.
//!
//! | event      | data              | told when                                                                    |
//! |------------|-------------------|------------------------------------------------------------------------------|
//! | `reset`    | [`Reset`]         | what came after the client's last event cannot be told; a snapshot follows    |
//! | `snapshot` | [`Snapshot`]      | once, before the first change: how things stand                               |
//! | `decision` | [`Moved`]         | a selection moved                                                             |
//! | `failover` | [`FailoverState`] | the answer about a primary changed: moved, held, a candidate refused or back  |
//! | `service`  | [`ServiceState`]  | where a service should run changed, or a hold of it                          |
//! | `region`   | [`RegionStatus`]  | a region went down, came back, or nobody can tell any more                    |
//! | `doubt`    | [`Doubt`]         | an agent's view stopped counting because the fault is its own, or counts again |
//! | `hesitation` | [`Hesitation`]   | a move is waited for, or is not made after all: what was refused beside what was done |
//! | `overview` | [`Sentence`]      | the sentence changed in more than its figures                                 |
//!
//! Decisions are a log: after a reconnect those that were missed are told, oldest first. The others are states: after
//! a reconnect the snapshot tells how they stand now. The `id` of every event names the newest decision, so that it
//! means the same after a restart of the aggregator.

use serde::{Deserialize, Serialize};

use super::{FailoverLine, Reason, State, Time};
use crate::id::{AgentId, RegionId, ServiceId};

/// How things stand.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Snapshot {
    /// What matters most; `null` for those who watch one primary or service.
    pub overview: Option<Sentence>,
    /// The answer about each primary.
    pub failovers: Vec<FailoverState>,
    /// Where each service should run.
    #[serde(default)]
    pub services: Vec<ServiceState>,
    /// The regions; empty for those who watch one primary or service.
    pub regions: Vec<RegionStatus>,
    /// The agents whose view does not count because the fault is their own; empty for those who watch one primary or service.
    pub doubts: Vec<Doubt>,
}

/// A selection moved. `GET /v1/decisions/{decision_id}` has the evidence.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Moved {
    /// The decision, from 1 without gaps.
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
    /// The decision in one sentence.
    pub summary: String,
}

/// The answer about a primary, without the figures of its candidates.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FailoverState {
    /// The answer on one line.
    #[serde(flatten)]
    pub line: FailoverLine,
    /// The decision that made it; `null` before the first.
    pub decision_id: Option<u64>,
    /// Until when the selection stays unless it goes down; `null` if it is free to move.
    pub held_until: Option<Time>,
    /// The candidates that may not be selected.
    pub refused: Vec<RefusedCandidate>,
    /// Whether the whole picture is too old to act on.
    pub stale: bool,
}

/// Where a service should run.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ServiceState {
    /// The service.
    pub service_id: ServiceId,
    /// Where it should run; `null` if no region may be selected or nothing was decided yet.
    pub selected_region: Option<RegionId>,
    /// When that was decided; `null` before the first decision.
    pub decided_at: Option<Time>,
    /// The decision that made it so; `null` before the first.
    pub decision_id: Option<u64>,
    /// Until when it stays unless the region goes down; `null` if it is free to move.
    pub held_until: Option<Time>,
}

/// A candidate that may not be selected.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RefusedCandidate {
    /// The candidate.
    pub region_id: RegionId,
    /// Why not.
    pub reasons: Vec<Reason>,
}

/// Whether a region is reached by others.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RegionStatus {
    /// The region.
    pub region_id: RegionId,
    /// `ok`, `bad` or `unknown`.
    pub state: State,
    /// The fact behind the state.
    pub detail: String,
    /// Since when; `null` before anything was measured.
    pub since: Option<Time>,
}

/// An agent whose view does not count, or counts again.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Doubt {
    /// The agent.
    pub agent_id: AgentId,
    /// Its region.
    pub region_id: RegionId,
    /// Whether it is doubted.
    pub doubted: bool,
    /// Why, or why it was: `at_fault`, everything fails to it that others see well; `suspect`, it says itself that it
    /// could not probe as it should.
    #[serde(default)]
    pub code: String,
}

/// What matters most, in one sentence.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Sentence {
    /// The sentence of `GET /v1/overview`.
    pub summary: String,
    /// How it all fares.
    pub state: State,
    /// Whether the whole picture is too old to act on.
    pub stale: bool,
}

/// What came after the client's last event cannot be told; the snapshot that follows is complete.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Reset {
    /// `unknown_event`: this aggregator does not know the event (any more); `too_far`: more decisions were missed than
    /// are told again.
    pub reason: Reason,
}

/// The answers about all primaries, on one line each.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Failovers {
    /// In the order of the primaries' ids.
    pub failovers: Vec<FailoverState>,
    /// The state of the graph behind it: grows with everything that is learned.
    pub graph_version: u64,
    /// When the candidates were ranked.
    pub evaluated_at: Time,
    /// Whether the whole picture is too old to act on: the answers are the last good ones.
    pub stale: bool,
}
