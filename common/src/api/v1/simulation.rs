//! Simulations: what would happen from here on.

use serde::{Deserialize, Serialize};

use super::{PolicyMove, State, Time, When};
use crate::id::{AgentId, RegionId};

/// What to try on the live state, in isolation.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SimulationRequest {
    /// The state of when; now if left out. RFC 3339, or a span before now such as `-2h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub at: Option<When>,
    /// For how long, milliseconds of virtual time; at most half an hour.
    pub duration_ms: u64,
    /// Seed of everything random.
    #[serde(default)]
    pub seed: u64,
    /// What happens. Without any the answer says what would happen by itself.
    #[serde(default)]
    pub events: Vec<SimulationEvent>,
}

/// Something that happens.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SimulationEvent {
    /// When, milliseconds from the start.
    #[serde(default)]
    pub at_ms: u64,
    /// No packet enters or leaves this region any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region_down: Option<RegionId>,
    /// Packets pass again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region_up: Option<RegionId>,
    /// This agent's process ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_stop: Option<AgentId>,
    /// An operator drains this region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<RegionId>,
    /// The links that `loss_ratio`, `delay_ms` and `added_delay_ms` are about: `a->b`, `a<->b`, `a->*` or `*->b`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<String>,
    /// Share of packets lost on them, each way that is named, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_ratio: Option<f64>,
    /// Their one-way delay, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<f64>,
    /// By how much their one-way delay grows, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub added_delay_ms: Option<f64>,
    /// They are as at the start again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub clear: bool,
    /// What to tell people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub say: Option<String>,
}

/// What would happen.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Simulation {
    /// The answer in one sentence.
    pub summary: String,
    /// The state that it went on from.
    pub from: Time,
    /// How much was simulated, milliseconds of virtual time.
    pub simulated_ms: u64,
    /// Whether that is all that was asked for; if not, it would have taken too long.
    pub complete: bool,
    /// What the overview would say at the end.
    pub verdict: String,
    /// How it would all fare at the end.
    pub state: State,
    /// The story, in order.
    pub lines: Vec<SimulationLine>,
    /// What would be decided, when and why.
    pub moves: Vec<PolicyMove>,
    /// Every selection before and at the end.
    pub selections: Vec<SimulatedSelection>,
}

/// One line of the story.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SimulationLine {
    /// When, milliseconds from the start.
    pub at_ms: u64,
    /// `event`, `region` or `decision`.
    pub kind: String,
    /// The thing, in words.
    pub text: String,
}

/// A selection before and at the end.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SimulatedSelection {
    /// Whose: a region, or a service.
    pub owner: String,
    /// What was selected before.
    pub before: Option<RegionId>,
    /// What would be at the end.
    pub after: Option<RegionId>,
}
