//! What an agent sees of each other region, and of each target there.

use std::{collections::BTreeMap, time::Duration};

use leeward_common::{
    id::{RegionId, TargetId},
    time::Timestamp,
};

use super::{
    evidence::{Dating, PathEvidence},
    paths::AgentPaths,
};
use crate::{fault::grace, policy::Policy};

/// What an agent sees of something lately.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sight {
    /// Something was answered.
    Seen {
        /// Then, at last.
        until: Timestamp,
        /// When the next report is due from who saw it.
        due: Timestamp,
    },
    /// Nothing was, for long enough.
    Lost {
        /// From then on at least.
        since: Timestamp,
    },
    /// Too few probes to tell.
    Unclear,
}

impl Sight {
    /// Two sights of the same thing: one answer is enough to see it, and it is lost only if both say so.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (
                Self::Seen { until: a, due },
                Self::Seen {
                    until: b,
                    due: other,
                },
            ) => Self::Seen {
                until: a.max(b),
                due: due.max(other),
            },
            (seen @ Self::Seen { .. }, _) | (_, seen @ Self::Seen { .. }) => seen,
            (Self::Lost { since: a }, Self::Lost { since: b }) => Self::Lost { since: a.min(b) },
            _ => Self::Unclear,
        }
    }

    /// Whether it is seen.
    #[must_use]
    pub const fn is_seen(self) -> bool {
        matches!(self, Self::Seen { .. })
    }

    /// Whether it is lost.
    #[must_use]
    pub const fn is_lost(self) -> bool {
        matches!(self, Self::Lost { .. })
    }
}

/// What an agent sees of each other region, and of each target there, as far as its evidence is fresh.
#[derive(Clone, Debug)]
pub(crate) struct Sights {
    /// The agent's region.
    pub(crate) region: RegionId,
    /// At least one.
    pub(crate) regions: BTreeMap<RegionId, Sight>,
    /// In the order of regions, then of targets.
    pub(crate) targets: Vec<((RegionId, TargetId), Sight)>,
}

/// What an agent sees, and how long that holds unless it tells something new.
#[derive(Clone, Debug)]
pub(super) struct Made {
    /// `None` if nothing that it told is fresh.
    pub(super) sights: Option<Sights>,
    /// Until when no evidence that is fresh now becomes stale.
    pub(super) fresh_until: Timestamp,
}

impl Made {
    pub(super) fn new(now: Timestamp, policy: &Policy, paths: &AgentPaths, dating: Dating) -> Self {
        let mut made = Self {
            sights: None,
            fresh_until: Timestamp::from_unix_us(u64::MAX),
        };
        for own in paths.iter() {
            if let Some((sight, until)) = own.evidence.sight_at(now, policy, dating) {
                made.fresh_until = made.fresh_until.min(until);
                made.add(now, policy, &own.target, &own.evidence, sight);
            }
        }
        if let Some(sights) = &mut made.sights {
            sights.sort();
        }
        made
    }

    fn add(
        &mut self,
        now: Timestamp,
        policy: &Policy,
        target: &TargetId,
        path: &PathEvidence,
        sight: Sight,
    ) {
        if let Sight::Seen { due, .. } = sight
            && now < due + grace(policy)
        {
            let silent_until = due + grace(policy) - Duration::from_micros(1);
            self.fresh_until = self.fresh_until.min(silent_until);
        }
        let own = self.sights.get_or_insert_with(|| Sights {
            region: path.from.clone(),
            regions: BTreeMap::new(),
            targets: Vec::new(),
        });
        match own.regions.get_mut(&path.to) {
            Some(region) => *region = region.and(sight),
            None => drop(own.regions.insert(path.to.clone(), sight)),
        }
        own.targets.push(((path.to.clone(), target.clone()), sight));
    }
}

impl Sights {
    /// Each target once: one is probed in several ways.
    fn sort(&mut self) {
        self.targets.sort_by(|(a, _), (b, _)| a.cmp(b));
        self.targets.dedup_by(|(later, sight), (target, own)| {
            let is_same = later == target;
            if is_same {
                *own = own.and(*sight);
            }
            is_same
        });
    }

    /// Since when anything is lost to it; `None` if nothing is.
    pub(crate) fn lost_since(&self) -> Option<Timestamp> {
        let sights = self.regions.values();
        let lost = sights.filter_map(|sight| match sight {
            Sight::Lost { since } => Some(*since),
            _ => None,
        });
        lost.min()
    }
}
