//! The flows of a link's paths.

use serde::{Deserialize, Serialize};

use super::Time;
use crate::{
    id::{AgentId, TargetId},
    ratio::Ratio,
    report::ProbeKind,
};

/// What the flows of one path of a link did lately. A path is probed as several flows, which routers that balance over equal
/// ways tell apart. An agent tells of them where they are unlike: some lost probes and others none, or one was slower
/// at its best than another on average.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PathFlows {
    /// Who probes.
    pub agent: AgentId,
    /// Whom.
    pub target: TargetId,
    /// How.
    pub kind: ProbeKind,
    /// When the account begins, by the agent's clock.
    pub from: Time,
    /// When it ends.
    pub until: Time,
    /// Flow by flow.
    pub flows: Vec<Flow>,
}

/// What one flow did.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Flow {
    /// Probes that left and ended.
    pub ended: u32,
    /// Of those, how many were lost.
    pub lost: u32,
    /// Of those, how many were answered late.
    pub late: u32,
    /// Pairs of consecutive probes that were both lost.
    pub lost_pairs: u32,
    /// Lost of those that ended; `null` if none did.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<f64>))]
    pub loss_ratio: Option<Ratio>,
    /// The shortest round-trip time, microseconds; `null` without any.
    pub rtt_min_us: Option<u32>,
    /// The mean round-trip time, microseconds; `null` without any.
    pub rtt_mean_us: Option<u32>,
}
