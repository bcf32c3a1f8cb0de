//! Readiness: whether each service could run in each of its regions today, known before any event.

use std::{collections::BTreeMap, sync::Arc};

use leeward_common::{
    id::{RegionId, ServiceId},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::gate::Refusal;

/// How many changes of readiness are remembered.
pub const MAX_CHANGES: usize = 2_048;

/// By service and region.
pub type Readiness = BTreeMap<ServiceId, Arc<BTreeMap<RegionId, Standing>>>;

/// Whether a service could run in a region today.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Standing {
    /// Whether it could.
    pub state: ReadinessState,
    /// Since when.
    pub since: Timestamp,
    /// Why not, or what is not known; in the order of the gates. Their words are of the moment when a reason was added
    /// or went away; [`crate::view::View::service_ranking`] has those of now.
    pub reasons: Vec<Refusal>,
}

/// Whether a service could run in a region today.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadinessState {
    /// It could.
    Ready,
    /// Too little is known to tell.
    Unknown,
    /// It could not.
    NotReady,
}

/// A change of readiness.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ReadinessChange {
    /// From 1, without gaps.
    pub id: u64,
    /// When.
    pub at: Timestamp,
    /// Of which service.
    pub service: ServiceId,
    /// In which region.
    pub region: RegionId,
    /// What it was before; `None` if it was not looked at before.
    pub before: Option<ReadinessState>,
    /// What it is from then on.
    pub state: ReadinessState,
    /// Why not, or what is not known.
    pub reasons: Vec<Refusal>,
}
