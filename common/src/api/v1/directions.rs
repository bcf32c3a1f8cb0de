//! A link's two directions.

use serde::{Deserialize, Serialize};

/// What STAMP probes tell of a link's two directions in a window. A loss is counted when it becomes known where it was,
/// which is when a later probe is answered: then, not when the probe was sent.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Directions {
    /// On the way from the link's first region to its second.
    pub forward: Direction,
    /// On the way back.
    pub backward: Direction,
    /// Probes lost of which nobody will know where.
    pub lost_unknown: u32,
}

/// One direction of a link in a window.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Direction {
    /// Packets lost.
    pub lost: u32,
    /// Packets that arrived after one that was sent later.
    pub reordered: u32,
    /// Mean absolute difference of the one-way delays of consecutive probes, microseconds; `null` without two in a row.
    pub delay_variation_mean_us: Option<f64>,
    /// The largest, microseconds; `null` without two in a row.
    pub delay_variation_max_us: Option<u32>,
}
