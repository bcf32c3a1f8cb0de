//! Two policies beside each other: what each selected, for how long, and what that cost by the graph's own estimates.
//!
//! Both are measured by the same yard: the rankings of the engine that is in force. *Regret* is the share of the best
//! candidate's score that a selection does without: 0 for the best, 1 for one that cannot serve or none at all. It is an
//! estimate by the numbers that the policy in force believes in; what the users felt nobody measured.
//!
//! The board is looked at about once a second ([`SAMPLE_EVERY`]): what is selected then counts for the time since it was
//! looked at before. Moves are counted one by one.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use leeward_common::{id::RegionId, time::Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    decision::Decision,
    intent::Owner,
    select::{Candidate, Ranking},
    view::View,
};

/// How often selections are compared.
pub const SAMPLE_EVERY: Duration = Duration::from_secs(1);

/// A selection is lossy when this much loss is certain: the lower bound of its loss is above it.
pub const LOSSY: f64 = 0.01;

/// How many divergences are remembered, the newest.
const MAX_DIVERGENCES: usize = 256;

/// More than this between two looks was not watched: it counts for nothing.
const MAX_GAP: Duration = Duration::from_secs(60);

/// Two policies beside each other.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Scoreboard {
    /// Since when; `None` before the first look.
    pub since: Option<Timestamp>,
    /// Until when.
    pub until: Timestamp,
    /// Selection time of all owners together that was looked at.
    pub watched: Duration,
    /// How much of it both selected the same.
    pub agreed: Duration,
    /// The policy in force.
    pub current: Side,
    /// The other one.
    pub other: Side,
    /// Where they differed, oldest first.
    pub divergences: VecDeque<Divergence>,
}

/// How one policy fared.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Side {
    /// Selections that it changed, first ones apart.
    pub moves: u64,
    /// Selection time in regions that could not serve, or in none.
    pub down: Duration,
    /// Selection time in regions with certain loss.
    pub lossy: Duration,
    /// Selection time of which the regret is known.
    pub judged: Duration,
    /// Regret times seconds; see [`Side::regret`].
    pub regret_seconds: f64,
    /// How long each was selected, by owner; `None` is nowhere.
    #[serde(with = "crate::pairs")]
    pub selected: BTreeMap<(Owner, Option<RegionId>), Duration>,
}

/// A stretch of time in which the two selected different regions.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Divergence {
    /// Whose selection.
    pub owner: Owner,
    /// From when on.
    pub since: Timestamp,
    /// Until when; `None` while it lasts.
    pub until: Option<Timestamp>,
    /// What the policy in force had selected, and why.
    pub current: (Option<RegionId>, String),
    /// What the other one had.
    pub other: (Option<RegionId>, String),
}

impl Side {
    /// The mean share of the best candidate's score that the selections did without; `None` if it was never known.
    #[must_use]
    pub fn regret(&self) -> Option<f64> {
        let judged = self.judged.as_secs_f64();
        (judged > 0.0).then(|| self.regret_seconds / judged)
    }

    /// Counts what was decided.
    pub fn on_decision(&mut self, decision: &Decision) {
        self.moves += u64::from(decision.from.is_some());
    }

    fn pass(
        &mut self,
        span: Duration,
        owner: &Owner,
        selected: Option<&RegionId>,
        ranking: &Ranking,
    ) {
        *self
            .selected
            .entry((owner.clone(), selected.cloned()))
            .or_default() += span;
        let Some(best) = ranking.best().and_then(Candidate::log_score) else {
            return;
        };
        let candidate = selected.and_then(|selected| ranking.candidate(selected));
        self.judged += span;
        let Some(candidate) = candidate.filter(|candidate| candidate.eligible) else {
            self.down += span;
            self.regret_seconds += span.as_secs_f64();
            return;
        };
        let lossy = |candidate: &Candidate| candidate.loss.is_some_and(|loss| loss.low > LOSSY);
        if lossy(candidate) {
            self.lossy += span;
        }
        let own = candidate.log_score().unwrap_or(best);
        self.regret_seconds += span.as_secs_f64() * (1.0 - (own - best).min(0.0).exp());
    }
}

impl Scoreboard {
    /// Whether it is time to look again.
    #[must_use]
    pub fn is_due(&self, now: Timestamp) -> bool {
        self.since.is_none() || now.since(self.until) >= SAMPLE_EVERY
    }

    /// How much of the time both selected the same, 0..=1; `None` before the first look.
    #[must_use]
    pub fn agreement(&self) -> Option<f64> {
        let watched = self.watched.as_secs_f64();
        (watched > 0.0).then(|| self.agreed.as_secs_f64() / watched)
    }

    /// Looks at both: what each has selected counts for the time since the last look.
    pub fn look(&mut self, now: Timestamp, current: &View, other: &View) {
        let span = self.since.map_or(Duration::ZERO, |_| now.since(self.until));
        let span = if span > MAX_GAP { Duration::ZERO } else { span };
        self.since.get_or_insert(now);
        self.until = now;
        for primary in current.policy.regions.keys() {
            let owner = Owner::Region(primary.clone());
            let own = current.selections.get(primary);
            let theirs = other.selections.get(primary);
            let (Some(own), Some(theirs)) = (own, theirs) else {
                continue;
            };
            if own.since.is_none() || theirs.since.is_none() {
                continue;
            }
            let ranking = current.ranking(primary);
            let selected = (own.selected.as_ref(), theirs.selected.as_ref());
            self.compare(span, &owner, selected, &ranking, (current, other));
        }
        for (service, own) in current.services.iter() {
            let owner = Owner::Service(service.clone());
            let (Some(theirs), Some(ranking)) = (
                other.services.get(service),
                current.service_ranking(service),
            ) else {
                continue;
            };
            let selected = (own.selected.as_ref(), theirs.selected.as_ref());
            self.compare(span, &owner, selected, &ranking, (current, other));
        }
    }

    fn compare(
        &mut self,
        span: Duration,
        owner: &Owner,
        selected: (Option<&RegionId>, Option<&RegionId>),
        ranking: &Ranking,
        views: (&View, &View),
    ) {
        self.watched += span;
        self.current.pass(span, owner, selected.0, ranking);
        self.other.pass(span, owner, selected.1, ranking);
        let now = self.until;
        let open = self
            .divergences
            .iter_mut()
            .rev()
            .find(|own| own.owner == *owner && own.until.is_none());
        let selections = |open: &Divergence| {
            open.current.0.as_ref() == selected.0 && open.other.0.as_ref() == selected.1
        };
        if let Some(open) = open {
            if selections(open) {
                return;
            }
            open.until = Some(now);
        }
        if selected.0 == selected.1 {
            self.agreed += span;
            return;
        }
        self.divergences.push_back(Divergence {
            owner: owner.clone(),
            since: now,
            until: None,
            current: (selected.0.cloned(), why(views.0, owner)),
            other: (selected.1.cloned(), why(views.1, owner)),
        });
        if self.divergences.len() > MAX_DIVERGENCES {
            self.divergences.pop_front();
        }
    }
}

/// The owner's last decision in one sentence.
fn why(view: &View, owner: &Owner) -> String {
    let last = view.decisions.iter().rev();
    let mut last = last.filter(|decision| decision.owner() == *owner);
    last.next()
        .map_or_else(String::new, |decision| decision.summary.clone())
}
