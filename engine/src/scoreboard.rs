//! Two policies beside each other: what each selected, for how long, and what that cost by the graph's own estimates.
//!
//! Both are measured by the same yard: the rankings of the engine that is in force. *Regret* is the share of the best
//! candidate's score that a selection does without: 0 for the best, 1 for one that cannot serve or none at all. It is an
//! estimate by the numbers that the policy in force believes in; what the users felt nobody measured.
//!
//! The board is looked at once a second ([`SAMPLE_EVERY`]): what is selected then counts for the time since it was
//! looked at before. Moves are counted one by one, and each is judged by hindsight: for [`HINDSIGHT`] after it, or until
//! the next move, the region left is watched beside the one entered. A move that gained less than [`WORTHWHILE`] was
//! *false*. One back to where the selection was less than [`FLAP_WITHIN`] before is a *flap*.

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

/// For how long after a move the region left is watched.
pub const HINDSIGHT: Duration = Duration::from_secs(300);

/// A move for less mean gain than this share of the best score was false.
pub const WORTHWHILE: f64 = 0.02;

/// A selection that comes back to a region within this time of leaving it flaps.
pub const FLAP_WITHIN: Duration = Duration::from_secs(600);

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
    /// How often they began to differ.
    pub differed: u64,
    /// Where they differed, oldest first: the newest of them.
    pub divergences: VecDeque<Divergence>,
}

/// How one policy fared.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Side {
    /// Selections that it changed, first ones apart.
    pub moves: u64,
    /// Moves back to where the selection had been shortly before.
    pub flaps: u64,
    /// Moves that were judged by hindsight.
    pub judged_moves: u64,
    /// Those of them that gained nothing worth a move.
    pub false_moves: u64,
    /// Selection time in regions that could not serve, or in none.
    pub down: Duration,
    /// Selection time in regions with certain loss.
    pub lossy: Duration,
    /// Selection time of which the regret is known.
    pub judged: Duration,
    /// Selection time in a region of more regret than the other policy's.
    pub worse: Duration,
    /// Regret times seconds; see [`Side::regret`].
    pub regret_seconds: f64,
    /// How long each was selected, by owner; `None` is nowhere.
    #[serde(with = "crate::pairs")]
    pub selected: BTreeMap<(Owner, Option<RegionId>), Duration>,
    /// The last move of each owner.
    #[serde(with = "crate::pairs")]
    last: BTreeMap<Owner, Trial>,
}

/// A move, and what became of it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
struct Trial {
    at: Timestamp,
    left: Option<RegionId>,
    entered: Option<RegionId>,
    /// For how long both were watched since.
    watched: Duration,
    /// By how much less the regret was for the move, times seconds.
    gain_seconds: f64,
    /// Whether the verdict is out.
    judged: bool,
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
        if decision.from.is_none() {
            return;
        }
        self.moves += 1;
        let owner = decision.owner();
        if let Some(mut last) = self.last.remove(&owner) {
            let is_back = decision.to.is_some() && last.left == decision.to;
            self.flaps += u64::from(is_back && decision.at.since(last.at) < FLAP_WITHIN);
            self.judge(&mut last);
        }
        let trial = Trial {
            at: decision.at,
            left: decision.from.clone(),
            entered: decision.to.clone(),
            watched: Duration::ZERO,
            gain_seconds: 0.0,
            judged: false,
        };
        self.last.insert(owner, trial);
    }

    /// The verdict about a move; one that was never watched gets none.
    fn judge(&mut self, trial: &mut Trial) {
        if trial.judged || trial.watched.is_zero() {
            return;
        }
        trial.judged = true;
        self.judged_moves += 1;
        let gain = trial.gain_seconds / trial.watched.as_secs_f64();
        self.false_moves += u64::from(gain < WORTHWHILE);
    }

    /// Watches the last move for a while.
    fn watch(&mut self, now: Timestamp, span: Duration, owner: &Owner, ranking: &Ranking) {
        let Some(mut trial) = self.last.remove(owner) else {
            return;
        };
        // What was selected when the board was looked at before is not this move's doing.
        let span = span.min(now.since(trial.at));
        if !trial.judged
            && let Some(left) = regret(ranking, trial.left.as_ref())
            && let Some(entered) = regret(ranking, trial.entered.as_ref())
        {
            trial.watched += span;
            trial.gain_seconds += span.as_secs_f64() * (left - entered);
        }
        if now.since(trial.at) >= HINDSIGHT {
            self.judge(&mut trial);
        }
        self.last.insert(owner.clone(), trial);
    }

    /// Counts a span of time; what the selection did without, if that is known.
    fn pass(
        &mut self,
        span: Duration,
        owner: &Owner,
        selected: Option<&RegionId>,
        ranking: &Ranking,
    ) -> Option<f64> {
        *self
            .selected
            .entry((owner.clone(), selected.cloned()))
            .or_default() += span;
        let regret = regret(ranking, selected)?;
        self.judged += span;
        self.regret_seconds += span.as_secs_f64() * regret;
        match serving(ranking, selected) {
            None => self.down += span,
            Some(candidate) if candidate.loss.is_some_and(|loss| loss.low > LOSSY) => {
                self.lossy += span;
            }
            Some(_) => {}
        }
        Some(regret)
    }
}

/// The candidate that is selected, if it can serve.
fn serving<'a>(ranking: &'a Ranking, selected: Option<&RegionId>) -> Option<&'a Candidate> {
    let candidate = selected.and_then(|selected| ranking.candidate(selected));
    candidate.filter(|candidate| candidate.eligible)
}

/// The share of the best candidate's score that a selection does without, 0..=1; `None` if there is no best one.
fn regret(ranking: &Ranking, selected: Option<&RegionId>) -> Option<f64> {
    let best = ranking.best().and_then(Candidate::log_score)?;
    let own = serving(ranking, selected).map(|own| own.log_score().unwrap_or(best));
    Some(own.map_or(1.0, |own| 1.0 - (own - best).min(0.0).exp()))
}

impl Scoreboard {
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
        let now = self.until;
        self.watched += span;
        self.current.watch(now, span, owner, ranking);
        self.other.watch(now, span, owner, ranking);
        let current = self.current.pass(span, owner, selected.0, ranking);
        let other = self.other.pass(span, owner, selected.1, ranking);
        if let (Some(current), Some(other)) = (current, other) {
            if current > other {
                self.current.worse += span;
            }
            if other > current {
                self.other.worse += span;
            }
        }
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
        self.differed += 1;
        self.divergences.push_back(Divergence {
            owner: owner.clone(),
            since: now,
            until: None,
            current: (selected.0.cloned(), why(views.0, owner)),
            other: (selected.1.cloned(), why(views.1, owner)),
        });
        if self.divergences.len() > MAX_DIVERGENCES {
            // One that lasts is news for longer than one that is over.
            let over = self.divergences.iter().position(|own| own.until.is_some());
            self.divergences.remove(over.unwrap_or(0));
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
