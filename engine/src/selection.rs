//! What is selected for one primary or one service, and when that changes.
//!
//! ```text
//!                     settled                          a challenger leads for long enough, and may be moved to
//!   nothing decided ──────────▶ selected ◀──────────┬─ unknown for `silence` while somebody else is known
//!                                 │    ▲            ├─ down or unreachable, at once
//!              down, none is left │    │ one is back└─ no candidate any more, at once
//!                                 ▼    │
//!                               none left
//! ```
//!
//! Scores are natural logarithms here. A challenger *leads* if, beyond doubt, it is better by more than a move costs:
//!
//! ```text
//!   lead - doubt * thin  >  ln(margin) + switching_cost / dwell
//!
//!   lead   score of the challenger minus score of the selected region
//!   doubt  caution * sqrt(below^2 + above^2): how far the challenger's lower and the selected region's upper bound
//!          (95 %, independent) are from their scores
//!   thin   sqrt(memory / period), at most 1: what leads for longer than the memory was measured as often anew
//! ```
//!
//! `switching_cost` is what a move costs in seconds of full service and `dwell` how long one expects to stay, so that
//! their ratio is the share of the service that the move costs, which is a difference of logarithms.
//!
//! There are two ways to win: lead by `margin` in every evaluation of the period `confirm`, or by `failback_margin` on the
//! average of the period `failback_confirm`, which is longer: what lasts may be small, and what is small is often less than
//! the noise of a moment. A region that something bad has driven us from can
//! win by the second way only, or not at all if `failback` is `manual`.
//!
//! Who has won by the first way has not if it was by loss which in the newest windows is less beyond doubt: that trouble
//! has passed, and nobody is saved by a move now.
//!
//! What routers tell against the selected region is no lead by itself: it counts where probes find the challenger better
//! too ([`crate::routing`]).
//!
//! Who has won must still pass the restraints of [`crate::restraint`] and the hold; each that refuses is a
//! [`Waiting`]. None of this applies to leaving a region that cannot serve.

use std::{collections::BTreeMap, time::Duration};

use leeward_common::{id::RegionId, time::Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    decision::Reason,
    gate::RefusalCode,
    holddown::{Holddown, Urgency},
    inherit::Inherited,
    policy::{Failback, Steadiness},
    restraint::{Budget, Flaps},
    select::Appraisal,
    view::{Estimates, SelectionView},
    waiting::{Waiting, WaitingCode},
    weight::percent,
};

const HOUR: Duration = Duration::from_secs(3600);

/// The span of [`Steadiness::storm_moves`].
pub(crate) const STORM_SPAN: Duration = Duration::from_secs(60);

/// The selection of one primary or service.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Selection {
    selected: Option<RegionId>,
    since: Option<Timestamp>,
    previous: Option<RegionId>,
    decision: Option<u64>,
    holddown: Holddown,
    /// Since when a candidate could be selected for the first time.
    choice_since: Option<Timestamp>,
    /// Since when nothing is known about the selected region.
    unknown_since: Option<Timestamp>,
    /// Since when the selected region is not ready or breaks a limit while another could be selected.
    unfit_since: Option<Timestamp>,
    /// Who leads, and since when.
    leads: BTreeMap<RegionId, Lead>,
    /// Regions that were left.
    left: BTreeMap<RegionId, Left>,
    moves: Budget,
    waiting: Option<Waiting>,
    /// When time alone may bring about a change; made by every evaluation.
    #[serde(skip)]
    wake_at: Option<Timestamp>,
}

/// How a challenger leads: since when by the margin, and what is remembered for those who are patient.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
struct Lead {
    clearly: Option<Timestamp>,
    slightly: Option<Patience>,
}

/// The mean of a challenger's lead, while it is above 0 and the challenger not clearly behind.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
struct Patience {
    since: Timestamp,
    /// Over the time since then, at most over the last `failback_confirm` or so.
    mean: f64,
    at: Timestamp,
}

/// What is remembered of a region that was left.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
struct Left {
    /// When something bad last drove us from it.
    driven_at: Option<Timestamp>,
    flaps: Flaps,
}

/// A change that is wanted now.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Move {
    pub(crate) from: Option<RegionId>,
    pub(crate) to: Option<RegionId>,
    pub(crate) reason: Reason,
}

/// What an evaluation goes by beside the candidates.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules<'a> {
    pub(crate) steadiness: &'a Steadiness,
    /// How far back a score looks.
    pub(crate) memory: Duration,
    /// Until when the moves of all selections together are too many.
    pub(crate) storm_until: Option<Timestamp>,
}

/// Where to, and why.
type Wanted = (Option<RegionId>, Reason);

impl Selection {
    /// The selection of a service that runs in `region`, as its owner says.
    pub(crate) fn running(now: Timestamp, region: RegionId) -> Self {
        Self {
            selected: Some(region),
            since: Some(now),
            ..Self::default()
        }
    }

    /// The selection that another engine made.
    pub(crate) fn inherited(past: &Inherited) -> Self {
        Self {
            selected: past.selected.clone(),
            since: Some(past.since),
            previous: past.previous.clone(),
            decision: past.decision,
            ..Self::default()
        }
    }

    /// Numbers its decision higher.
    pub(crate) fn renumber(&mut self, by: u64) {
        self.decision = self.decision.map(|id| id + by);
    }

    /// Looks at the candidates in their order, best first, and says whether to move. The caller then records it with
    /// [`Selection::on_decision`].
    pub(crate) fn evaluate(
        &mut self,
        now: Timestamp,
        rules: &Rules<'_>,
        candidates: &[Appraisal],
    ) -> Option<Move> {
        (self.waiting, self.wake_at) = (None, None);
        let best = candidates.first().filter(|best| best.refusal.is_none());
        let (to, reason) = match self.selected.clone() {
            None => self.choose(now, rules.steadiness, candidates, best?)?,
            Some(selected) => match candidates.iter().find(|own| own.region == selected) {
                Some(incumbent) => self.keep_or_leave(now, rules, incumbent, candidates)?,
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

    /// Nothing is known, since the observers are cut off: nothing moves.
    pub(crate) fn on_cut_off(&mut self, detail: &str) {
        (self.unknown_since, self.unfit_since, self.wake_at) = (None, None, None);
        self.leads.clear();
        self.waiting = self.selected.is_some().then(|| Waiting {
            code: WaitingCode::CutOff,
            to: None,
            detail: detail.to_owned(),
            until: None,
        });
    }

    /// Records that a move was decided.
    pub(crate) fn on_decision(
        &mut self,
        now: Timestamp,
        steadiness: &Steadiness,
        wanted: &Move,
        decision: u64,
    ) {
        let driven = self.is_driving(now, steadiness, wanted);
        if self.since.is_some() {
            self.holddown.on_move(now, steadiness);
            self.moves.on_move(now, steadiness.moves_per_hour);
        }
        if let Some(from) = self.selected.take() {
            let left = self.left.entry(from.clone()).or_default();
            left.flaps.on_leave(now, steadiness);
            left.driven_at = driven.then_some(now).or(left.driven_at);
            self.previous = Some(from);
        }
        if let Some(to) = &wanted.to
            && let Some(left) = self.left.get_mut(to)
        {
            left.driven_at = None;
        }
        let is_driven = |left: &Left| is_driven(left, now, steadiness);
        self.left
            .retain(|_, left| is_driven(left) || !left.flaps.is_forgotten(now, steadiness));
        self.selected.clone_from(&wanted.to);
        self.since = Some(now);
        self.decision = Some(decision);
        (self.unknown_since, self.unfit_since) = (None, None);
        self.leads.clear();
        // Who leads now is to be looked at at once.
        (self.waiting, self.wake_at) = (None, Some(now));
    }

    /// Whether something bad drives us to a move: not people, and not a little that lasted.
    fn is_driving(&self, now: Timestamp, steadiness: &Steadiness, wanted: &Move) -> bool {
        match &wanted.reason {
            Reason::Initial | Reason::Recovered | Reason::Override { .. } => false,
            Reason::Better { .. } | Reason::ReturnedHome { .. } => {
                let lead = wanted.to.as_ref().and_then(|to| self.leads.get(to));
                let clearly = lead.and_then(|lead| lead.clearly);
                let left = wanted.to.as_ref().and_then(|to| self.left.get(to));
                let is_back = left.is_some_and(|left| is_driven(left, now, steadiness));
                !is_back && clearly.is_some_and(|since| since + steadiness.confirm <= now)
            }
            _ => true,
        }
    }

    /// What is waited for.
    pub(crate) const fn waiting(&self) -> Option<&Waiting> {
        self.waiting.as_ref()
    }

    /// What is selected.
    pub(crate) const fn selected(&self) -> Option<&RegionId> {
        self.selected.as_ref()
    }

    /// When time alone may bring about a change, if it may.
    pub(crate) const fn wake_at(&self) -> Option<Timestamp> {
        self.wake_at
    }

    /// The picture for readers.
    pub(crate) fn view(&self, now: Timestamp) -> SelectionView {
        SelectionView {
            selected: self.selected.clone(),
            since: self.since,
            previous: self.previous.clone(),
            held_until: self.holddown.held_until(now),
            decision: self.decision,
            waiting: self.waiting.clone(),
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
    ) -> Option<Wanted> {
        let first = |reason| Some((Some(best.region.clone()), reason));
        if self.since.is_some() {
            return first(Reason::Recovered);
        }
        let settled = *self.choice_since.get_or_insert(now) + steadiness.confirm;
        if now >= settled || candidates.iter().all(|own| !is_unknown(own)) {
            return first(Reason::Initial);
        }
        self.wake_at = Some(settled);
        None
    }

    fn keep_or_leave(
        &mut self,
        now: Timestamp,
        rules: &Rules<'_>,
        incumbent: &Appraisal,
        candidates: &[Appraisal],
    ) -> Option<Wanted> {
        let best = candidates.first().filter(|best| best.refusal.is_none());
        let refusal = incumbent.refusal.as_ref();
        if !refusal.is_some_and(|own| is_unfit(own.code)) || best.is_none() {
            self.unfit_since = None;
        }
        let Some(refusal) = refusal else {
            self.unknown_since = None;
            return self.challenge(now, rules, incumbent, candidates);
        };
        self.leads.clear();
        let because = || Reason::Ineligible {
            because: refusal.detail.clone(),
        };
        match refusal.code {
            RefusalCode::Down => Some(leave(best, Reason::Down)),
            // Without anybody better reachable there is nothing to gain: fail static.
            RefusalCode::Unreachable => Some(leave(Some(best?), Reason::Unreachable)),
            RefusalCode::NoEvidence | RefusalCode::Stale | RefusalCode::TooFewProbes => {
                // While nobody better is known either, it is the observers who are silent: that says nothing of it.
                let Some(best) = best else {
                    self.unknown_since = None;
                    return None;
                };
                let since = *self.unknown_since.get_or_insert(now);
                let silence = Waiting {
                    code: WaitingCode::Silence,
                    to: Some(best.region.clone()),
                    detail: refusal.detail.clone(),
                    until: Some(since + rules.steadiness.silence),
                };
                self.leave_after(now, rules, best, silence, because())
            }
            RefusalCode::UnknownRegion | RefusalCode::IsPrimary => Some(leave(best, because())),
            // Without room elsewhere it stays: who is served badly is served.
            RefusalCode::Forbidden
            | RefusalCode::Drained
            | RefusalCode::LabelMissing
            | RefusalCode::LabelForbidden => Some(leave(Some(best?), because())),
            RefusalCode::CheckFailed
            | RefusalCode::DependencyMissing
            | RefusalCode::BreaksLimits => {
                let best = best?;
                let because = refusal.detail.clone();
                let since = *self.unfit_since.get_or_insert(now);
                let confirming = Waiting {
                    code: WaitingCode::Confirming,
                    to: Some(best.region.clone()),
                    detail: because.clone(),
                    until: Some(since + rules.steadiness.confirm),
                };
                let reason = match refusal.code {
                    RefusalCode::BreaksLimits => Reason::ServiceLevel { because },
                    _ => Reason::NotReady { because },
                };
                self.leave_after(now, rules, best, confirming, reason)
            }
            // Routers raise false alarms: what restrains other moves restrains these.
            RefusalCode::Withdrawn => {
                let at_once = Waiting {
                    code: WaitingCode::Confirming,
                    to: Some(best?.region.clone()),
                    detail: refusal.detail.clone(),
                    until: Some(now),
                };
                let because = refusal.detail.clone();
                self.leave_after(now, rules, best?, at_once, Reason::Withdrawn { because })
            }
            // These are asked of who comes, not of who is there.
            RefusalCode::Unchecked
            | RefusalCode::ReplicaBehind
            | RefusalCode::NoRoom
            | RefusalCode::SharedRisk
            | RefusalCode::Suppressed => None,
        }
    }

    /// The selected region may not stay and `best` may be selected: it is left once the waiting is over, unless something
    /// restrains it.
    fn leave_after(
        &mut self,
        now: Timestamp,
        rules: &Rules<'_>,
        best: &Appraisal,
        waiting: Waiting,
        reason: Reason,
    ) -> Option<Wanted> {
        match later(now, waiting).or_else(|| self.restraint(now, rules, best)) {
            Some(waiting) => {
                self.wait(waiting);
                None
            }
            None => Some(leave(Some(best), reason)),
        }
    }

    /// The selected region may stay; others may be better by enough, for long enough.
    fn challenge(
        &mut self,
        now: Timestamp,
        rules: &Rules<'_>,
        incumbent: &Appraisal,
        candidates: &[Appraisal],
    ) -> Option<Wanted> {
        let own = incumbent.log_score()?;
        let others = candidates
            .iter()
            .filter(|challenger| challenger.region != incumbent.region);
        let mut before = std::mem::take(&mut self.leads);
        let (mut wanted, mut routed_lead) = (None, None);
        for challenger in others.filter(|challenger| challenger.refusal.is_none()) {
            let Some(score) = challenger.log_score() else {
                continue;
            };
            let doubt = doubt(rules.steadiness, challenger, incumbent);
            let (lead, routed) = lead(rules, score - own, incumbent.log_routing(), doubt);
            let was = before.remove(&challenger.region).unwrap_or_default();
            let is = was.go_on(now, rules, lead, doubt);
            if is != Lead::default() {
                self.leads.insert(challenger.region.clone(), is);
            }
            if let Some(routed) = routed.filter(|_| routed_lead.is_none()) {
                routed_lead = Some((challenger.region.clone(), routed));
            }
            if wanted.is_some() || lead <= 0.0 {
                continue;
            }
            match self.verdict(now, rules, incumbent, challenger, is, (lead, doubt)) {
                Ok(()) => wanted = Some((challenger, lead)),
                Err(Some(waiting)) => self.wait(waiting),
                Err(None) => {}
            }
        }
        if let (None, Some((to, lead))) = (&wanted, routed_lead) {
            self.wait(Waiting {
                code: WaitingCode::Routing,
                to: Some(to),
                detail: format!(
                    "{:.2} times the score, but only by what routers tell",
                    lead.exp()
                ),
                until: None,
            });
        }
        let (challenger, lead) = wanted?;
        let margin = lead.exp();
        let reason = match self.previous.as_ref() == Some(&challenger.region) {
            true => Reason::ReturnedHome { margin },
            false => Reason::Better { margin },
        };
        Some((Some(challenger.region.clone()), reason))
    }

    /// Whether a challenger takes the place now; otherwise what is waited for, if it is anything.
    fn verdict(
        &self,
        now: Timestamp,
        rules: &Rules<'_>,
        incumbent: &Appraisal,
        challenger: &Appraisal,
        is: Lead,
        (lead, doubt): (f64, f64),
    ) -> Result<(), Option<Waiting>> {
        let steadiness = rules.steadiness;
        let wait = |code, detail: String, until| {
            Some(Waiting {
                code,
                to: Some(challenger.region.clone()),
                detail,
                until,
            })
        };
        let times = format!("{:.2} times the score", lead.exp());
        let slightly = is.slightly.filter(|own| {
            let thin = thin(rules, steadiness.failback_confirm);
            own.mean - doubt * thin > needed(steadiness, steadiness.failback_margin)
        });
        let left = self.left.get(&challenger.region);
        let driven_from = left.is_some_and(|left| is_driven(left, now, steadiness));
        if driven_from && steadiness.failback == Failback::Manual {
            return Err(match is.clearly.or(slightly.map(|own| own.since)) {
                None => None,
                Some(_) => wait(
                    WaitingCode::FailbackManual,
                    format!("{times}, but it had failed, and going back is an operator's to say"),
                    None,
                ),
            });
        }
        let clearly = is.clearly.map(|since| since + steadiness.confirm);
        let slightly = slightly.map(|own| own.since + steadiness.failback_confirm);
        let driven = clearly.is_some_and(|at| at <= now) && !driven_from;
        let patiently = slightly.is_some_and(|at| at <= now);
        if !driven && !patiently {
            return Err(match (clearly, slightly) {
                (Some(at), _) if !driven_from => {
                    let detail = format!("{times}, but not yet for {:?}", steadiness.confirm);
                    wait(WaitingCode::Confirming, detail, Some(at))
                }
                (_, Some(at)) => {
                    // Whoever has stayed well for long enough is not held to the past.
                    let forgiven = left
                        .and_then(|left| left.driven_at)
                        .map(|driven| driven + steadiness.forget_after)
                        .zip(clearly)
                        .map(|(forgiven, clearly)| forgiven.max(clearly));
                    let at = forgiven.map_or(at, |forgiven| at.min(forgiven));
                    let why = if driven_from {
                        "it had failed and"
                    } else {
                        "it"
                    };
                    let detail = format!(
                        "{times}, but {why} must be better for {:?}",
                        steadiness.failback_confirm
                    );
                    wait(WaitingCode::Patience, detail, Some(at))
                }
                _ if lead > needed(steadiness, steadiness.margin) => {
                    let detail =
                        format!("{times}, but it may as well be {:.2}", (lead - doubt).exp());
                    wait(WaitingCode::Doubt, detail, None)
                }
                _ => None,
            });
        }
        if !patiently
            && let Some((loss, lately)) = incumbent.estimates().and_then(Estimates::subsided)
        {
            let detail = format!(
                "{times} by the loss of {}, which lately was {}",
                percent(loss),
                percent(lately)
            );
            return Err(wait(WaitingCode::Subsiding, detail, None));
        }
        match self.restraint(now, rules, challenger) {
            Some(waiting) => Err(Some(waiting)),
            None => Ok(()),
        }
    }

    /// What keeps a selection from moving to `challenger` for the better.
    fn restraint(
        &self,
        now: Timestamp,
        rules: &Rules<'_>,
        challenger: &Appraisal,
    ) -> Option<Waiting> {
        let steadiness = rules.steadiness;
        let left = self.left.get(&challenger.region);
        let flapping = left.and_then(|left| left.flaps.suppressed_until(now));
        let held = self.holddown.permits(now, Urgency::Degraded).err();
        let budget = (self.moves).spent_until(now, steadiness.moves_per_hour, HOUR);
        let wait = |code, detail: &str, until| {
            Some(Waiting {
                code,
                to: Some(challenger.region.clone()),
                detail: detail.to_owned(),
                until: Some(until),
            })
        };
        if let Some(until) = flapping {
            return wait(WaitingCode::Flapping, "it was left too often lately", until);
        }
        if let Some(held) = held {
            let detail = "the last move was too short a while ago";
            return wait(WaitingCode::Held, detail, held.until);
        }
        if let Some(until) = budget {
            let detail = "this selection has moved too often within an hour";
            return wait(WaitingCode::Budget, detail, until);
        }
        let until = rules.storm_until.filter(|&until| now < until)?;
        let detail = "all selections together have moved too often within a minute";
        wait(WaitingCode::Storm, detail, until)
    }

    /// The first reason to wait is the one that is told; the earliest end of any is when to look again.
    fn wait(&mut self, waiting: Waiting) {
        self.wake_at = match (self.wake_at, waiting.until) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        self.waiting.get_or_insert(waiting);
    }
}

impl Lead {
    /// As of now, with this lead and this doubt about it.
    fn go_on(self, now: Timestamp, rules: &Rules<'_>, lead: f64, doubt: f64) -> Self {
        let steadiness = rules.steadiness;
        let sure = lead - doubt * thin(rules, steadiness.confirm);
        let clearly = sure > needed(steadiness, steadiness.margin);
        let first = Patience {
            since: now,
            mean: lead,
            at: now,
        };
        let patience = match self.slightly {
            Some(was) => was.go_on(now, lead, steadiness.failback_confirm),
            None => first,
        };
        Self {
            clearly: clearly.then(|| self.clearly.unwrap_or(now)),
            // Who falls clearly behind begins anew.
            slightly: (patience.mean > 0.0 && lead > -needed(steadiness, steadiness.margin))
                .then_some(patience),
        }
    }
}

impl Patience {
    fn go_on(self, now: Timestamp, lead: f64, period: Duration) -> Self {
        let span = now.since(self.since).min(period).as_secs_f64();
        let new = now.since(self.at).as_secs_f64();
        let weight = if new < span { new / span } else { 1.0 };
        Self {
            since: self.since,
            mean: self.mean + (lead - self.mean) * weight,
            at: now,
        }
    }
}

/// The lead that counts, and the one that does not because it is only by what routers tell.
///
/// What they tell of the selected region counts if probes find the challenger better too, beyond doubt and by no less than
/// what is enough to win patiently. Else it is left out: routing alone hastens a move, and is no reason for one.
fn lead(rules: &Rules<'_>, lead: f64, log_routing: f64, doubt: f64) -> (f64, Option<f64>) {
    let steadiness = rules.steadiness;
    let thin = thin(rules, steadiness.confirm);
    let by_probes = lead + log_routing;
    if log_routing == 0.0
        || by_probes - doubt * thin > needed(steadiness, steadiness.failback_margin)
    {
        return (lead, None);
    }
    let is_clear = lead - doubt * thin > needed(steadiness, steadiness.margin);
    (by_probes, is_clear.then_some(lead))
}

/// By how much what holds for a period is surer than what holds in an evaluation: it was measured as often anew.
fn thin(rules: &Rules<'_>, period: Duration) -> f64 {
    let looks = period.as_secs_f64() / rules.memory.as_secs_f64().max(1e-3);
    looks.max(1.0).sqrt().recip()
}

/// The lead that a move needs beyond doubt.
fn needed(steadiness: &Steadiness, margin: f64) -> f64 {
    let dwell = steadiness.dwell.as_secs_f64().max(1e-3);
    margin.ln() + steadiness.switching_cost.as_secs_f64() / dwell
}

/// How far the lower bound of the lead is below it.
fn doubt(steadiness: &Steadiness, challenger: &Appraisal, incumbent: &Appraisal) -> f64 {
    let (below, _) = challenger.doubt();
    let (_, above) = incumbent.doubt();
    steadiness.caution * below.hypot(above)
}

fn is_driven(left: &Left, now: Timestamp, steadiness: &Steadiness) -> bool {
    let manual = steadiness.failback == Failback::Manual;
    let recent = |at: Timestamp| now.since(at) < steadiness.forget_after;
    left.driven_at.is_some_and(|at| manual || recent(at))
}

/// The waiting, unless it is over.
fn later(now: Timestamp, waiting: Waiting) -> Option<Waiting> {
    let is_over = waiting.until.is_some_and(|until| until <= now);
    (!is_over).then_some(waiting)
}

fn leave(best: Option<&Appraisal>, reason: Reason) -> Wanted {
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
    own.predicted
        || own.refusal.as_ref().is_some_and(|refusal| {
            matches!(
                refusal.code,
                RefusalCode::NoEvidence
                    | RefusalCode::Stale
                    | RefusalCode::TooFewProbes
                    | RefusalCode::Unchecked
            )
        })
}
