//! Measurements that others inject: bounded by source, expiring to neutral, never counted twice.

use leeward_common::{id::SourceId, time::Timestamp};
use serde::{Deserialize, Serialize};

use crate::input::{Metric, Subject};

/// A signal in force.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ActiveSignal {
    /// Who says so.
    pub source: SourceId,
    /// About what.
    pub subject: Subject,
    /// Which measure.
    pub metric: Metric,
    /// In the metric's unit.
    pub value: f64,
    /// When it was observed.
    pub observed_at: Timestamp,
    /// Until when it counts.
    pub expires_at: Timestamp,
}
