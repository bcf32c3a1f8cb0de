//! What a link did over a span of time.

use serde::{Deserialize, Serialize};

use super::{Directions, Time};
use crate::{id::RegionId, ratio::Ratio, report::ProbeKind};

/// What a directed link did over a span of time, point by point. Every figure is exact: sums, extremes, and quantiles of all
/// samples as far as the histograms' buckets tell them apart (0.8 %, or 0.1 % where three digits are measured).
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LinkHistory {
    /// Whose agents measure.
    pub from: RegionId,
    /// Whom they measure.
    pub to: RegionId,
    /// The kind of probe that it is limited to; absent where all count together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<ProbeKind>,
    /// Where the first point begins: the start that was asked for, or before it.
    pub start: Time,
    /// Where the last point ends.
    pub end: Time,
    /// How long a point is, milliseconds.
    pub step_ms: u64,
    /// What the points are made from.
    pub source: HistorySource,
    /// When it was asked.
    pub evaluated_at: Time,
    /// The shares whose quantiles each point has, 0 to 1.
    pub quantiles: Vec<f64>,
    /// The rows of the heat map, if one was asked for: where each begins and, last, where the last one ends, microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edges_us: Option<Vec<u32>>,
    /// Stored records that belong to it and cannot be read; 0 unless the store is damaged.
    pub unreadable: u64,
    /// The points, oldest first. One of which nobody reported is left out.
    pub points: Vec<HistoryPoint>,
}

/// What the points of a history are made from.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum HistorySource {
    /// Windows, as the journal has them.
    Raw,
    /// Sums of minutes.
    Minute,
    /// Sums of hours.
    Hour,
}

impl HistorySource {
    /// The word in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Minute => "minute",
            Self::Hour => "hour",
        }
    }
}

/// One point of a history: all agents of the region, all paths to the other one.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HistoryPoint {
    /// When it begins, by the agents' clocks.
    pub start: Time,
    /// Reports in it: one for each window, or part of one, of each path.
    pub reports: u64,
    /// Probes that were due in it.
    pub scheduled: u64,
    /// Probes answered, late ones included.
    pub answered: u64,
    /// Of these, late ones.
    pub late: u64,
    /// Probes that were not.
    pub unanswered: u64,
    /// Share of probes without a reply, 0 to 1; `null` without any probe.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<f64>))]
    pub loss_ratio: Option<Ratio>,
    /// Round-trip times; `null` without a reply.
    pub rtt: Option<HistoryRtt>,
    /// The heat map's column, if one was asked for: replies in each row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<Vec<u64>>,
    /// What is known of each direction; absent where no agent of the region probed by STAMP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directions: Option<Directions>,
}

/// Round-trip times of a point, microseconds.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HistoryRtt {
    /// The smallest.
    pub min_us: u32,
    /// The mean.
    pub mean_us: f64,
    /// The largest.
    pub max_us: u32,
    /// In the order of `quantiles`.
    pub quantiles_us: Vec<u32>,
}
