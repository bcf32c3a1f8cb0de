//! What was decided, and every reason: a decision is an explanation, not a log line.

use leeward_common::{
    id::{OverrideId, RegionId, ServiceId},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::{
    intent::{Owner, Rule},
    select::Ranking,
};

/// One decision: from `at` on, `primary` fails over to `to`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Decision {
    /// From 1, without gaps.
    pub id: u64,
    /// When: a multiple of the policy's `evaluate_every`.
    pub at: Timestamp,
    /// Whose failover it is; for a service, its home.
    pub primary: RegionId,
    /// The service, if the selection is one's.
    #[serde(default)]
    pub service: Option<ServiceId>,
    /// The selection before; `None` if there was none.
    pub from: Option<RegionId>,
    /// The selection from now on; `None` if no candidate is left.
    pub to: Option<RegionId>,
    /// For a service, by which shares it runs where from now on, by region; `to` has the largest. Empty if nowhere.
    #[serde(default)]
    pub assignment: Vec<Share>,
    /// For a service, what of it runs nowhere from now on; `None` if all of it runs.
    #[serde(default)]
    pub unserved: Option<Unserved>,
    /// Why.
    pub reason: Reason,
    /// What was known: every candidate with its contributions or the reasons against it.
    pub evidence: Ranking,
    /// The state of the graph that it was decided upon.
    pub graph_version: u64,
    /// The policy that it was decided by, [`crate::policy::Policy::version`]; empty in decisions of builds that did not
    /// note it.
    #[serde(default)]
    pub policy_version: String,
    /// The decision in one sentence.
    pub summary: String,
}

impl Decision {
    /// Whose selection it is.
    #[must_use]
    pub fn owner(&self) -> Owner {
        match &self.service {
            Some(service) => Owner::Service(service.clone()),
            None => Owner::Region(self.primary.clone()),
        }
    }
}

/// A region's part of a service.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Share {
    /// The region.
    pub region: RegionId,
    /// Its part, above 0, at most 1.
    pub share: f64,
}

impl Share {
    /// All of it.
    #[must_use]
    pub const fn whole(region: RegionId) -> Self {
        Self { region, share: 1.0 }
    }
}

/// A part of a service that runs nowhere.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Unserved {
    /// Which part, above 0, at most 1.
    pub share: f64,
    /// Why, in words.
    pub because: String,
}

/// Why a selection changed.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum Reason {
    /// The first selection.
    Initial,
    /// The new one is better by this factor of the score, and has been for the confirm window.
    Better {
        /// Score of the new selection over score of the old, above 1.
        margin: f64,
    },
    /// As `Better`, and the new one is where the move before last had been.
    ReturnedHome {
        /// Score of the new selection over score of the old, above 1.
        margin: f64,
    },
    /// The old selection is down.
    Down,
    /// Others reach the old selection, but nothing between it and the primary is answered.
    Unreachable,
    /// The old selection may no longer be selected.
    Ineligible {
        /// Why not, in words.
        because: String,
    },
    /// The old selection is down or may not be selected, and no candidate is left.
    NoCandidate,
    /// There was no candidate, and there is one again; or there was too little room, and there is more.
    Recovered,
    /// An operator overrides the engine.
    Override {
        /// Which override.
        id: OverrideId,
        /// What it says.
        rule: Rule,
        /// Who gave it.
        who: String,
        /// Why, in their words; empty if they said nothing.
        why: String,
        /// Until when it holds.
        until: Timestamp,
    },
    /// The old selection breaks the service's limits, and has for the confirm window; the new one keeps them.
    ServiceLevel {
        /// Which limits, in words.
        because: String,
    },
    /// The old selection is not ready for the service, and has not been for the confirm window; the new one is.
    NotReady {
        /// Why not, in words.
        because: String,
    },
    /// Routers withdrew the prefix that the old selection is reached by, and show no other way.
    Withdrawn {
        /// Which prefix, who withdrew it and when, in words.
        because: String,
    },
}

impl Reason {
    /// A stable word for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Initial => "initial",
            Self::Better { .. } => "better",
            Self::ReturnedHome { .. } => "returned_home",
            Self::Down => "down",
            Self::Unreachable => "unreachable",
            Self::Ineligible { .. } => "ineligible",
            Self::NoCandidate => "no_candidate",
            Self::Recovered => "recovered",
            Self::Override { .. } => "override",
            Self::ServiceLevel { .. } => "service_level",
            Self::NotReady { .. } => "not_ready",
            Self::Withdrawn { .. } => "withdrawn",
        }
    }
}
