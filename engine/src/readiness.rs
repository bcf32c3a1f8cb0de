//! Readiness: whether each service could run in each of its regions today, known before any event.
//!
//! It is what the gates say ([`crate::gate`]), but for those that ask about the event itself: the risk that a candidate
//! shares with a region that is failing, and how often it was moved to lately. So a region that would be refused in a
//! failover is shown as not ready today, with the same words.
//!
//! - **Not ready**: a gate refuses it.
//! - **Unknown**: nothing was measured lately, or nobody carried out a check that is required; or something that nobody
//!   says is needed to tell, such as how far its data lags behind. Not knowing the latter is no reason to stay in a
//!   region that is lost, so it does not refuse.
//! - **Ready**: all that is asked is known and good.
//!
//! Limits have a hysteresis (see the gate of the service levels), so that a measure at its limit does not flap. A
//! standing changes, and the change is remembered, when its state or the codes of its reasons do; not with every digit
//! in their words.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use leeward_common::{
    id::{RegionId, ServiceId},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::{
    gate::{Refusal, RefusalCode},
    select::Appraisal,
};

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
    /// The limits that it breaks.
    pub broken: BTreeSet<Limit>,
}

/// One of a service's limits.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// Of the median round-trip time.
    RttP50,
    /// Of its 99th percentile.
    RttP99,
    /// Of jitter.
    Jitter,
    /// Of loss.
    Loss,
    /// Of bandwidth.
    Bandwidth,
}

impl Limit {
    /// What it limits, for people.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::RttP50 => "median latency",
            Self::RttP99 => "99th percentile of latency",
            Self::Jitter => "jitter",
            Self::Loss => "loss",
            Self::Bandwidth => "bandwidth",
        }
    }
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

/// What a service's candidates amount to.
pub(crate) fn standings(
    now: Timestamp,
    before: Option<&BTreeMap<RegionId, Standing>>,
    appraisals: &[Appraisal],
) -> BTreeMap<RegionId, Standing> {
    let standing = |own: &Appraisal| {
        let before = before.and_then(|before| before.get(&own.region));
        (own.region.clone(), standing(now, before, own))
    };
    appraisals.iter().map(standing).collect()
}

fn standing(now: Timestamp, before: Option<&Standing>, own: &Appraisal) -> Standing {
    let asked = |refusal: &&Refusal| {
        !matches!(
            refusal.code,
            RefusalCode::SharedRisk | RefusalCode::Suppressed
        )
    };
    let refusals = own.refusals().filter(asked);
    let state = match refusals.clone().find(|refusal| !is_unknown(refusal.code)) {
        Some(_) => ReadinessState::NotReady,
        None if refusals.clone().count() + own.doubts.len() > 0 => ReadinessState::Unknown,
        None => ReadinessState::Ready,
    };
    let reasons = refusals.chain(&own.doubts);
    let same = |before: &&Standing| {
        let (old, new) = (before.reasons.iter(), reasons.clone());
        before.state == state && old.map(|own| own.code).eq(new.map(|own| own.code))
    };
    match before.filter(same) {
        Some(before) => Standing {
            broken: own.broken.clone(),
            ..before.clone()
        },
        None => Standing {
            state,
            since: before
                .filter(|own| own.state == state)
                .map_or(now, |own| own.since),
            reasons: reasons.cloned().collect(),
            broken: own.broken.clone(),
        },
    }
}

const fn is_unknown(code: RefusalCode) -> bool {
    matches!(
        code,
        RefusalCode::NoEvidence
            | RefusalCode::Stale
            | RefusalCode::TooFewProbes
            | RefusalCode::Unchecked
    )
}
