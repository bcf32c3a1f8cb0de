//! One evaluation of the services: who is ready where, who wants to move, and where all who do go together.
//!
//! With many services not all are looked at each time: up to [`BATCH`] are, in turns, so that each has its turn at least
//! every `services / BATCH` evaluations. All are looked at when something happened that concerns all of them: a region
//! is down or back, an observer is at fault, somebody changed something, something expired, or a service has moved.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use leeward_common::{
    id::{RegionId, ServiceId},
    time::Timestamp,
};

use super::Parts;
use crate::{
    clients::Mesh,
    decision::{Decision, Reason, Share},
    gate::RefusalCode,
    intent::Rule,
    overrides,
    placement::{self, Mover, Placed},
    readiness::{self, MAX_CHANGES, ReadinessChange, Standing},
    select::{self, Appraisal, Perspective, Picture, Request},
    selection::Move,
    state::State,
    view::{Notice, NoticeCode},
};

/// How many services are looked at in one evaluation.
const BATCH: usize = 32;

/// A service that should move and has nowhere to go is placed anew after this, or when something concerns all.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The smallest part of a service that is worth a decision of its own.
const WORTH_A_MOVE: f64 = 0.01;

/// A service that wants to move.
struct Wish<'a> {
    request: Request<'a>,
    appraisals: Vec<Appraisal>,
    wanted: Move,
    /// Whether it could also stay as it is.
    voluntary: bool,
}

impl State {
    /// Counts what is offered and taken.
    pub(crate) fn count_capacity(&mut self) {
        let counted = placement::capacity(&self.policy, &self.intents, self.running.iter());
        if counted != *self.capacity {
            self.capacity = Arc::new(counted);
        }
    }

    /// Evaluates the services whose turn it is. Returns how many those were.
    pub(super) fn evaluate_services(
        &mut self,
        at: Timestamp,
        decisions: &mut Vec<Decision>,
    ) -> usize {
        let all = std::mem::take(&mut self.all_due);
        if all {
            self.retry_at.clear();
            self.count_capacity();
        }
        let parts = self.parts(at);
        let services = &parts.intents.services;
        let turns = services.len().div_ceil(BATCH).max(1) as u64;
        let every = u64::try_from(parts.policy.evaluate_every.as_micros()).unwrap_or(u64::MAX);
        let turn = at.as_unix_us() / every.max(1) % turns;
        let mine = |n: u64| all || n % turns == turn;
        let mine = services.iter().zip(0..).filter(|&(_, n)| mine(n));
        let mesh = Mesh::new(&parts.picture());
        let picture = Picture {
            mesh: Some(&mesh),
            ..parts.picture()
        };
        let (mut looked, mut wishes, mut standings) = (0, Vec::new(), Vec::new());
        for ((id, known), _) in mine {
            looked += 1;
            let current = parts.running.get(id).cloned().unwrap_or_default();
            let request = Request::of_service(&parts.policy, id, &known.what).selected(current);
            let (_, appraisals) = select::appraise(&picture, &request);
            let before = parts.readiness.get(id);
            let standing = readiness::standings(at, before.map(|own| &**own), &appraisals);
            if before.is_none_or(|before| **before != standing) {
                standings.push((id, standing));
            }
            if let Some((wanted, voluntary)) =
                self.wish_of_service(&parts, id, &request, &appraisals)
            {
                wishes.push(Wish {
                    request,
                    appraisals,
                    wanted,
                    voluntary,
                });
            }
        }
        self.on_standings(at, standings);
        if !wishes.is_empty() {
            self.place(&parts, wishes, decisions);
        }
        looked
    }

    fn on_standings(
        &mut self,
        at: Timestamp,
        standings: Vec<(&ServiceId, BTreeMap<RegionId, Standing>)>,
    ) {
        if standings.is_empty() {
            return;
        }
        let readiness = Arc::make_mut(&mut self.readiness);
        let changes = Arc::make_mut(&mut self.readiness_changes);
        for (id, standing) in standings {
            let before = readiness.get(id);
            for (region, own) in &standing {
                let before = before.and_then(|before| before.get(region));
                if before.is_some_and(|before| {
                    before.reasons == own.reasons && before.state == own.state
                }) {
                    continue;
                }
                changes.push_back(Arc::new(ReadinessChange {
                    id: self.next_readiness_change,
                    at,
                    service: id.clone(),
                    region: region.clone(),
                    before: before.map(|before| before.state),
                    state: own.state,
                    reasons: own.reasons.clone(),
                }));
                self.next_readiness_change += 1;
                if changes.len() > MAX_CHANGES {
                    changes.pop_front();
                }
            }
            readiness.insert(id.clone(), Arc::new(standing));
        }
    }

    /// What a service wants, and whether it could also stay.
    fn wish_of_service(
        &mut self,
        parts: &Parts,
        id: &ServiceId,
        request: &Request<'_>,
        appraisals: &[Appraisal],
    ) -> Option<(Move, bool)> {
        let wanted = self.wish(parts, request, appraisals);
        if self
            .retry_at
            .get(id)
            .is_some_and(|&until| parts.now < until)
        {
            return None;
        }
        let selected = self
            .selections
            .get(&request.owner)
            .and_then(|own| own.selected());
        let incumbent = selected.and_then(|region| find(appraisals, region));
        if let Some(wanted) = wanted {
            return Some((wanted, incumbent.is_some_and(|own| own.refusal.is_none())));
        }
        let rules = overrides::rules(&parts.intents, &request.owner);
        if rules.holds().is_some() {
            return None;
        }
        let from = selected?.clone();
        if let Some(reason) = lost_share(request, appraisals, &from) {
            let to = Some(from.clone());
            return Some((
                Move {
                    from: Some(from),
                    to,
                    reason,
                },
                false,
            ));
        }
        let service = request.described?;
        let has_room = |own: &Appraisal| {
            let mut lacking = parts
                .capacity
                .lacking(&own.region, id, service, WORTH_A_MOVE);
            own.refusal.is_none() && lacking.next().is_none()
        };
        let could_run = self.unserved.contains_key(id) && appraisals.iter().any(has_room);
        could_run.then(|| {
            let reason = Reason::Recovered;
            (
                Move {
                    to: Some(from.clone()),
                    from: Some(from),
                    reason,
                },
                true,
            )
        })
    }

    /// Places all who want to move. Those who must, and those who stay whole, go together; a divisible service that could
    /// also stay goes alone afterwards, so that nobody counts on room that it may not leave after all.
    fn place(&mut self, parts: &Parts, wishes: Vec<Wish<'_>>, decisions: &mut Vec<Decision>) {
        let mut running = (*self.running).clone();
        let (pinned, free): (Vec<_>, Vec<_>) = wishes
            .into_iter()
            .partition(|wish| is_pin(&wish.wanted.reason));
        for wish in pinned {
            if let Some(region) = wish.wanted.to.clone() {
                let placed = Placed::whole(region);
                self.settle(parts, &wish, placed, &mut running, decisions);
            }
        }
        let alone = |wish: &Wish<'_>| {
            wish.voluntary && wish.request.described.is_some_and(|own| own.divisible)
        };
        let (alone, together): (Vec<_>, Vec<_>) = free.into_iter().partition(alone);
        let movers: Vec<_> = together.iter().filter_map(Wish::mover).collect();
        let mut placed =
            placement::place_together(&parts.policy, &parts.intents, &running, &movers).placed;
        drop(movers);
        for wish in &together {
            if let Some(placed) = wish.request.service().and_then(|id| placed.remove(id)) {
                self.settle(parts, wish, placed, &mut running, decisions);
            }
        }
        for wish in &alone {
            let Some(mover) = wish.mover() else { continue };
            let mut placed =
                placement::place_together(&parts.policy, &parts.intents, &running, &[mover]).placed;
            if let Some(placed) = wish.request.service().and_then(|id| placed.remove(id)) {
                self.settle(parts, wish, placed, &mut running, decisions);
            }
        }
        if running != *self.running {
            self.running = Arc::new(running);
            self.count_capacity();
            self.all_due = true;
        }
    }

    /// Makes a decision of where a service was placed, if that is anywhere else.
    fn settle(
        &mut self,
        parts: &Parts,
        wish: &Wish<'_>,
        placed: Placed,
        running: &mut BTreeMap<ServiceId, Vec<Share>>,
        decisions: &mut Vec<Decision>,
    ) {
        let Some(id) = wish.request.service() else {
            return;
        };
        let missing_before = self.unserved.get(id).map_or(0.0, |own| own.share);
        let gains = missing_before - placed.missing();
        let (from, to) = (&wish.wanted.from, placed.main().cloned());
        let moved = match (&wish.wanted.reason, wish.voluntary) {
            (Reason::Recovered, true) => gains >= WORTH_A_MOVE,
            (_, true) => to != *from && to.is_some(),
            (_, false) => {
                differ(&wish.request.current, &placed.shares) || gains.abs() >= WORTH_A_MOVE
            }
        };
        if !moved {
            self.retry_at.insert(id.clone(), parts.now + RETRY_AFTER);
            self.note_stuck(wish, &placed);
            return;
        }
        let reason = match (&to, &wish.wanted.to) {
            (None, _) => Reason::NoCandidate,
            (Some(_), None) => wish.reason_to_leave(),
            (Some(_), Some(_)) => wish.wanted.reason.clone(),
        };
        let wanted = Move {
            from: from.clone(),
            to,
            reason,
        };
        let evidence = select::ranking(&parts.picture(), Perspective::Clients, &wish.appraisals);
        running.insert(id.clone(), placed.shares.clone());
        match &placed.unserved {
            Some(unserved) => drop(self.unserved.insert(id.clone(), unserved.clone())),
            None => drop(self.unserved.remove(id)),
        }
        decisions.push(self.decide(parts, &wish.request, wanted, evidence, placed));
    }

    fn note_stuck(&mut self, wish: &Wish<'_>, placed: &Placed) {
        if wish.voluntary {
            return;
        }
        let because = wish.incumbent().and_then(|own| own.refusal.as_ref());
        let because = because.map_or("it should move", |refusal| refusal.detail.as_str());
        let unserved = placed.unserved.as_ref().map(|own| own.because.as_str());
        let detail = format!(
            "{because}; {}",
            unserved.unwrap_or("no region that may be selected has room")
        );
        let notices = self.notices.entry(wish.request.owner.clone()).or_default();
        notices.push(Notice {
            code: NoticeCode::Stuck,
            detail,
        });
    }
}

impl<'a> Wish<'a> {
    fn mover(&self) -> Option<Mover<'_>> {
        let towards = self.wanted.to.as_ref().filter(|_| self.voluntary);
        Some(Mover {
            id: self.request.service()?,
            service: self.request.described?,
            appraisals: &self.appraisals,
            current: &self.request.current,
            towards: towards.filter(|_| self.wanted.reason != Reason::Recovered),
        })
    }

    fn incumbent(&self) -> Option<&Appraisal> {
        find(&self.appraisals, self.wanted.from.as_ref()?)
    }

    /// Why its region is left, if it was thought that there is nowhere to go.
    fn reason_to_leave(&self) -> Reason {
        match self.incumbent().and_then(|own| own.refusal.as_ref()) {
            Some(refusal) if refusal.code == RefusalCode::Down => Reason::Down,
            Some(refusal) => Reason::Ineligible {
                because: refusal.detail.clone(),
            },
            None => Reason::Recovered,
        }
    }
}

fn find<'a>(appraisals: &'a [Appraisal], region: &RegionId) -> Option<&'a Appraisal> {
    appraisals.iter().find(|own| own.region == *region)
}

const fn is_pin(reason: &Reason) -> bool {
    matches!(
        reason,
        Reason::Override {
            rule: Rule::Pin { .. },
            ..
        }
    )
}

/// Why a region that has a share beside the main one must be left.
fn lost_share(request: &Request<'_>, appraisals: &[Appraisal], main: &RegionId) -> Option<Reason> {
    use RefusalCode as Code;
    let others = request.current.iter().filter(|own| own.region != *main);
    let mut refusals = others.filter_map(|own| find(appraisals, &own.region)?.refusal.as_ref());
    refusals.find_map(|refusal| match refusal.code {
        Code::Down => Some(Reason::Down),
        Code::Unreachable => Some(Reason::Unreachable),
        Code::Forbidden
        | Code::Drained
        | Code::UnknownRegion
        | Code::LabelMissing
        | Code::LabelForbidden => Some(Reason::Ineligible {
            because: refusal.detail.clone(),
        }),
        _ => None,
    })
}

/// Whether two assignments differ by more than is worth a decision.
fn differ(a: &[Share], b: &[Share]) -> bool {
    let of = |all: &[Share], region: &RegionId| {
        let own = all.iter().find(|own| own.region == *region);
        own.map_or(0.0, |own| own.share)
    };
    let apart = |own: &Share| (of(a, &own.region) - of(b, &own.region)).abs() >= WORTH_A_MOVE;
    a.iter().chain(b).any(apart)
}
