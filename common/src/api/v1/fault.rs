//! What is at fault, whose view does not count, and what is waited for: what the engine knows beside its answers.

use serde::{Deserialize, Serialize};

use super::{State, Time};
use crate::id::{AgentId, RegionId, ServiceId, TargetId};

/// Everything at fault now, as far as it can be told.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Faults {
    /// The sentence of `GET /v1/overview`.
    pub summary: String,
    /// How it all fares.
    pub state: State,
    /// What is lost altogether first, then what loses some, each in the order of places.
    pub faults: Vec<LocatedFault>,
    /// Agents whose view does not count, in the order of their ids.
    pub not_counted: Vec<NotCounted>,
    /// Agents whose view counts.
    pub agents_counted: u32,
    /// Why nothing moves by itself, while the observers are cut off; `null` while they are not.
    pub fail_static: Option<FailStatic>,
    /// The state of the graph behind it.
    pub graph_version: u64,
    /// When.
    pub evaluated_at: Time,
    /// Whether the whole picture is too old to act on.
    pub stale: bool,
}

/// Something at fault.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LocatedFault {
    /// What is at fault.
    pub place: FaultPlace,
    /// `total` if everything is lost, `grey` if some is.
    pub kind: FaultKind,
    /// The region; of a link, the one with the smaller id.
    pub region_id: RegionId,
    /// The region at the other end of a link. A lost round trip does not say which way it was lost, so a link's fault has
    /// no direction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_region_id: Option<RegionId>,
    /// The agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<AgentId>,
    /// The host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_id: Option<TargetId>,
    /// Share of what is lost, 0 to 1.
    pub loss_ratio: f64,
    /// Since when it is known.
    pub since: Time,
    /// Of `observers`, how many see it: agents for what is lost altogether, links for a region that loses some, agents of
    /// the region for an agent.
    pub seen_by: u32,
    /// How many look.
    pub observers: u32,
    /// The same in words.
    pub detail: String,
}

/// What can be at fault.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum FaultPlace {
    /// An agent or its host: what it sees is its own trouble.
    Agent,
    /// A host in a region that is otherwise reached.
    Target,
    /// A region.
    Region,
    /// Between two regions that are well themselves.
    Link,
}

impl FaultPlace {
    /// The word in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Target => "target",
            Self::Region => "region",
            Self::Link => "link",
        }
    }
}

/// How bad a fault is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// Everything is lost.
    Total,
    /// Some is lost.
    Grey,
}

/// An agent whose view does not count.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NotCounted {
    /// The agent.
    pub agent_id: AgentId,
    /// Its region.
    pub region_id: RegionId,
    /// `silent`: it was not heard of lately; `at_fault`: everything fails to it that others see well; `suspect`: it says
    /// itself that it could not probe as it should.
    pub code: String,
    /// The fact behind it.
    pub detail: String,
    /// Since when, if that is known.
    pub since: Option<Time>,
}

/// Nothing is known, so nothing moves.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FailStatic {
    /// Since when.
    pub since: Time,
    /// The fact behind it.
    pub detail: String,
}

/// What a selection waits for.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Waiting {
    /// A stable word: `cut_off`, `silence`, `doubt`, `confirming`, `patience`, `failback_manual`, `flapping`, `held`,
    /// `budget` or `storm`.
    pub code: String,
    /// The region that would be selected; `null` where none in particular would.
    pub region_id: Option<RegionId>,
    /// When it ends if nothing else changes; `null` if time alone does not end it.
    pub until: Option<Time>,
    /// The same in words.
    pub detail: String,
}

/// Moves that were not made.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Hesitations {
    /// Newest first; the last thousand or so are remembered.
    pub hesitations: Vec<Hesitation>,
}

/// A move that was not made: an event like a decision.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Hesitation {
    /// When.
    pub at: Time,
    /// Whose selection it is, if it is a primary's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary_region: Option<RegionId>,
    /// Whose selection it is, if it is a service's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_id: Option<ServiceId>,
    /// What is selected meanwhile.
    pub selected_region: Option<RegionId>,
    /// What is waited for, or was.
    pub waiting: Waiting,
    /// Whether this is the end of it: what spoke for the move is gone, and none was made.
    pub ruled_out: bool,
    /// The same in one sentence.
    pub summary: String,
}

/// Where the audit log ends: kept elsewhere, it shows whether its end was cut off.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditHead {
    /// The sequence of its newest entry; 0 while there is none.
    pub sequence: u64,
    /// The hash of that, 64 hexadecimal digits; zeros while there is none.
    pub hash: String,
}
