//! What is selected for one primary, and when that changes.
//!
//! ```text
//!                     settled                          beaten by the margin for `confirm`, not held
//!   nothing decided ──────────▶ selected ◀──────────┬─ unknown for `silence`, not held
//!                                 │    ▲            ├─ down or unreachable, at once
//!              down, none is left │    │ one is back└─ no candidate any more, at once
//!                                 ▼    │
//!                               none left
//! ```

use leeward_common::{id::RegionId, time::Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    decision::Reason,
    holddown::{Holddown, Urgency},
    policy::Steadiness,
    select::{Appraisal, RefusalCode},
    view::SelectionView,
};

/// The selection of one primary.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Selection {
    selected: Option<RegionId>,
    since: Option<Timestamp>,
    previous: Option<RegionId>,
    decision: Option<u64>,
    holddown: Holddown,
    /// Since when a candidate could be selected for the first time.
    choice_since: Option<Timestamp>,
    /// Since when the selected region is beaten by the margin.
    beaten_since: Option<Timestamp>,
    /// Since when nothing is known about the selected region.
    unknown_since: Option<Timestamp>,
    /// Since when the selected region is not ready or breaks a limit while another could be selected.
    #[serde(default)]
    unfit_since: Option<Timestamp>,
}

/// A change that is wanted now.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Move {
    pub(crate) from: Option<RegionId>,
    pub(crate) to: Option<RegionId>,
    pub(crate) reason: Reason,
}

impl Selection {
    /// The selection of a service that runs in `region`, as its owner says.
    pub(crate) fn running(now: Timestamp, region: RegionId) -> Self {
        Self {
            selected: Some(region),
            since: Some(now),
            ..Self::default()
        }
    }

    /// Looks at the candidates in their order, best first, and says whether to move. The caller then records it with
    /// [`Selection::on_decision`].
    pub(crate) fn evaluate(
        &mut self,
        now: Timestamp,
        steadiness: &Steadiness,
        candidates: &[Appraisal],
    ) -> Option<Move> {
        let best = candidates.first().filter(|best| best.refusal.is_none());
        let (to, reason) = match self.selected.clone() {
            None => self.choose(now, steadiness, candidates, best?)?,
            Some(selected) => match candidates.iter().find(|own| own.region == selected) {
                Some(incumbent) => self.keep_or_leave(now, steadiness, incumbent, best)?,
                None => leave(
                    best,
                    Reason::Ineligible {
                        because: "it is no candidate any more".to_owned(),
                    },
                ),
            },
        };
        Some(Move {
            from: self.selected.clone(),
            to,
            reason,
        })
    }

    /// Records that a move was decided.
    pub(crate) fn on_decision(
        &mut self,
        now: Timestamp,
        steadiness: &Steadiness,
        to: Option<RegionId>,
        decision: u64,
    ) {
        if self.since.is_some() {
            self.holddown.on_move(now, steadiness);
        }
        if self.selected.is_some() {
            self.previous.clone_from(&self.selected);
        }
        self.selected = to;
        self.since = Some(now);
        self.decision = Some(decision);
        (self.beaten_since, self.unknown_since, self.unfit_since) = (None, None, None);
    }

    /// Whether time alone may bring about a move: something is waited for.
    pub(crate) const fn is_restless(&self) -> bool {
        let choosing = self.since.is_none() && self.choice_since.is_some();
        choosing
            || self.beaten_since.is_some()
            || self.unknown_since.is_some()
            || self.unfit_since.is_some()
    }

    /// What is selected.
    pub(crate) const fn selected(&self) -> Option<&RegionId> {
        self.selected.as_ref()
    }

    /// The picture for readers.
    pub(crate) fn view(&self, now: Timestamp) -> SelectionView {
        SelectionView {
            selected: self.selected.clone(),
            since: self.since,
            previous: self.previous.clone(),
            held_until: self.holddown.held_until(now),
            decision: self.decision,
            ..SelectionView::default()
        }
    }

    /// Nothing is selected: the first choice waits until every candidate is known or the confirm window has passed,
    /// so that it does not fall on whoever was measured first.
    fn choose(
        &mut self,
        now: Timestamp,
        steadiness: &Steadiness,
        candidates: &[Appraisal],
        best: &Appraisal,
    ) -> Option<(Option<RegionId>, Reason)> {
        if self.since.is_some() {
            return Some((Some(best.region.clone()), Reason::Recovered));
        }
        let since = *self.choice_since.get_or_insert(now);
        let settled = candidates.iter().all(|own| !is_unknown(own));
        (settled || now.since(since) >= steadiness.confirm)
            .then(|| (Some(best.region.clone()), Reason::Initial))
    }

    fn keep_or_leave(
        &mut self,
        now: Timestamp,
        steadiness: &Steadiness,
        incumbent: &Appraisal,
        best: Option<&Appraisal>,
    ) -> Option<(Option<RegionId>, Reason)> {
        let unfit = incumbent
            .refusal
            .as_ref()
            .is_some_and(|own| is_unfit(own.code));
        if !unfit || best.is_none() {
            self.unfit_since = None;
        }
        let Some(refusal) = &incumbent.refusal else {
            self.unknown_since = None;
            return self.challenge(now, steadiness, incumbent, best?);
        };
        self.beaten_since = None;
        let because = || Reason::Ineligible {
            because: refusal.detail.clone(),
        };
        match refusal.code {
            RefusalCode::Down => Some(leave(best, Reason::Down)),
            // Without anybody better reachable there is nothing to gain: fail static.
            RefusalCode::Unreachable => Some(leave(Some(best?), Reason::Unreachable)),
            RefusalCode::UnknownRegion | RefusalCode::IsPrimary => Some(leave(best, because())),
            RefusalCode::NoEvidence | RefusalCode::Stale | RefusalCode::TooFewProbes => {
                // While nobody better is known either, it is the observers who are silent: that says nothing of it.
                let Some(best) = best else {
                    self.unknown_since = None;
                    return None;
                };
                let since = *self.unknown_since.get_or_insert(now);
                let waited = now.since(since) >= steadiness.silence;
                (waited && self.may_move(now)).then_some(leave(Some(best), because()))
            }
            // Without room elsewhere it stays: who is served badly is served.
            RefusalCode::Forbidden
            | RefusalCode::Drained
            | RefusalCode::LabelMissing
            | RefusalCode::LabelForbidden => Some(leave(Some(best?), because())),
            RefusalCode::CheckFailed | RefusalCode::DependencyMissing => {
                let because = refusal.detail.clone();
                self.give_up(now, steadiness, best?, Reason::NotReady { because })
            }
            RefusalCode::BreaksLimits => {
                let because = refusal.detail.clone();
                self.give_up(now, steadiness, best?, Reason::ServiceLevel { because })
            }
            // These are asked of who comes, not of who is there.
            RefusalCode::ReplicaBehind
            | RefusalCode::NoRoom
            | RefusalCode::SharedRisk
            | RefusalCode::Suppressed => None,
        }
    }

    /// The selected region may not stay and another may be selected: it is left once that has been so for the confirm
    /// window.
    fn give_up(
        &mut self,
        now: Timestamp,
        steadiness: &Steadiness,
        best: &Appraisal,
        reason: Reason,
    ) -> Option<(Option<RegionId>, Reason)> {
        let since = *self.unfit_since.get_or_insert(now);
        let waited = now.since(since) >= steadiness.confirm;
        (waited && self.may_move(now)).then(|| leave(Some(best), reason))
    }

    /// The selected region may stay; another may be better by enough, for long enough.
    fn challenge(
        &mut self,
        now: Timestamp,
        steadiness: &Steadiness,
        incumbent: &Appraisal,
        best: &Appraisal,
    ) -> Option<(Option<RegionId>, Reason)> {
        let lead = best.log_score()? - incumbent.log_score()?;
        if best.region == incumbent.region || lead <= steadiness.margin.ln() {
            self.beaten_since = None;
            return None;
        }
        let since = *self.beaten_since.get_or_insert(now);
        if now.since(since) < steadiness.confirm || !self.may_move(now) {
            return None;
        }
        let margin = lead.exp();
        let reason = match self.previous.as_ref() == Some(&best.region) {
            true => Reason::ReturnedHome { margin },
            false => Reason::Better { margin },
        };
        Some((Some(best.region.clone()), reason))
    }

    fn may_move(&self, now: Timestamp) -> bool {
        self.holddown.permits(now, Urgency::Degraded).is_ok()
    }
}

fn leave(best: Option<&Appraisal>, reason: Reason) -> (Option<RegionId>, Reason) {
    match best {
        Some(best) => (Some(best.region.clone()), reason),
        None => (None, Reason::NoCandidate),
    }
}

const fn is_unfit(code: RefusalCode) -> bool {
    matches!(
        code,
        RefusalCode::CheckFailed | RefusalCode::DependencyMissing | RefusalCode::BreaksLimits
    )
}

fn is_unknown(own: &Appraisal) -> bool {
    own.refusal.as_ref().is_some_and(|refusal| {
        matches!(
            refusal.code,
            RefusalCode::NoEvidence | RefusalCode::Stale | RefusalCode::TooFewProbes
        )
    })
}
