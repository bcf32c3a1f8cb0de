//! How much a link carries, as an agent found out: three quantities, each for itself.

use serde::{Deserialize, Serialize};

use crate::{
    id::{RegionId, TargetId},
    time::Timestamp,
    wire::{WireError, at_most, limits},
};

/// What was found out about the way from an agent to a target. What was not measured is missing.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Bandwidth {
    /// The target.
    pub target: TargetId,
    /// Where it stands; `None` for an outside target.
    #[serde(default)]
    pub region: Option<RegionId>,
    /// When it was measured, by the agent's clock.
    pub at: Timestamp,
    /// The order that asked for it; `None` when the agent did it by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<u64>,
    /// Whether it was a heavy test, that only goodput comes of; else it was trains.
    #[serde(default, skip_serializing_if = "is_false")]
    pub heavy: bool,
    /// The IP-layer capacity of the narrowest link (RFC 5136 section 2.3.3): the path carries no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity_upper: Option<Quantity>,
    /// What others leave of it (RFC 5136 section 2.3.5).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available_est: Option<Quantity>,
    /// What really went through (RFC 9097).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub goodput_seen: Option<Quantity>,
    /// All that it cost, bytes of IP packets, replies included.
    pub bytes: u64,
    /// How long it took, microseconds.
    pub took_us: u64,
    /// Why something is missing, for people; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// One of the quantities: bits per second of IP packets, headers of IP included.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Quantity {
    /// How it was found, for people.
    pub method: String,
    /// The estimate.
    pub bps: u64,
    /// The lower end of its interval.
    pub low_bps: u64,
    /// The upper end.
    pub high_bps: u64,
    /// Trains, or spans of a heavy test, that it rests on.
    pub samples: u32,
    /// What they cost, bytes of IP packets, replies included.
    pub bytes: u64,
    /// Why it is not to be trusted; `None` if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doubt: Option<String>,
}

impl Bandwidth {
    /// Its quantities, each with its name.
    pub fn quantities(&self) -> impl Iterator<Item = (Name, &Quantity)> {
        [
            (Name::CapacityUpper, &self.capacity_upper),
            (Name::AvailableEst, &self.available_est),
            (Name::GoodputSeen, &self.goodput_seen),
        ]
        .into_iter()
        .filter_map(|(name, quantity)| Some((name, quantity.as_ref()?)))
    }

    pub(super) fn check(&self) -> Result<(), WireError> {
        at_most("note", self.note.len(), limits::TEXT_BYTES)?;
        self.quantities().try_for_each(|(_, own)| {
            let doubt = own.doubt.as_deref().unwrap_or_default();
            at_most("method", own.method.len(), limits::REASON_BYTES)?;
            at_most("doubt", doubt.len(), limits::TEXT_BYTES)
        })
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_false(flag: &bool) -> bool {
    !*flag
}

/// Which quantity.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Name {
    /// [`Bandwidth::capacity_upper`].
    CapacityUpper,
    /// [`Bandwidth::available_est`].
    AvailableEst,
    /// [`Bandwidth::goodput_seen`].
    GoodputSeen,
}

impl Name {
    /// As it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CapacityUpper => "capacity_upper",
            Self::AvailableEst => "available_est",
            Self::GoodputSeen => "goodput_seen",
        }
    }
}
