//! How much links carry: three quantities, each for itself, and orders to measure them.

use serde::{Deserialize, Serialize};

use super::Time;
use crate::id::{AgentId, RegionId, TargetId};

/// One quantity of a link, as one agent found it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LinkBandwidth {
    /// Which: `capacity_upper`, the most that the narrowest link of the path carries; `available_est`, what others leave of
    /// it; `goodput_seen`, what really went through in a heavy test.
    pub quantity: BandwidthQuantity,
    /// Who measured.
    pub agent_id: AgentId,
    /// Towards which target.
    pub target_id: TargetId,
    /// The estimate, bits per second of IP packets.
    pub bits_per_second: u64,
    /// The lower end of its interval.
    pub low_bits_per_second: u64,
    /// The upper end.
    pub high_bits_per_second: u64,
    /// How it was found.
    pub method: String,
    /// Trains, or spans of a heavy test, that it rests on.
    pub samples: u32,
    /// What it cost, bytes of IP packets, replies included.
    pub bytes: u64,
    /// When it was measured.
    pub measured_at: Time,
    /// Whether it is to be trusted.
    pub trusted: bool,
    /// Why not; `null` if it is.
    pub doubt: Option<String>,
}

/// Which quantity.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum BandwidthQuantity {
    /// The most that the narrowest link carries.
    CapacityUpper,
    /// What others leave of it.
    AvailableEst,
    /// What really went through.
    GoodputSeen,
    /// One of a newer build.
    #[serde(other)]
    Other,
}

impl BandwidthQuantity {
    /// As it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CapacityUpper => "capacity_upper",
            Self::AvailableEst => "available_est",
            Self::GoodputSeen => "goodput_seen",
            Self::Other => "other",
        }
    }
}

/// What to measure.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewBandwidthOrder {
    /// By a heavy test: 2 seconds and 125 MB at most, if the files of both agents allow it. Else by trains of packets, within
    /// the agent's budget.
    #[serde(default)]
    pub heavy: bool,
}

/// An order to measure, and what came of it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BandwidthOrder {
    /// Its number.
    pub order: u64,
    /// What came of it: `waiting`, `measured` or `declined`.
    pub state: BandwidthOrderState,
    /// Who measures.
    pub agent_id: Option<AgentId>,
    /// The agent's region.
    pub from: Option<RegionId>,
    /// Towards which region.
    pub to: Option<RegionId>,
    /// Why it was declined, or why something is missing; may be empty.
    pub detail: String,
    /// All that it cost, bytes of IP packets, replies included.
    pub bytes: u64,
    /// What was found.
    pub bandwidth: Vec<LinkBandwidth>,
}

/// What came of an order.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum BandwidthOrderState {
    /// Nothing yet: the agent measures, its budget makes it wait, or the order is not known any more.
    Waiting,
    /// It was carried out.
    Measured,
    /// The agent does not do it.
    Declined,
    /// A state of a newer build.
    #[serde(other)]
    Other,
}
