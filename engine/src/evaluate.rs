//! One evaluation: whose fault, how good each candidate, whether to move.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use leeward_common::{
    id::{RegionId, ServiceId},
    time::Timestamp,
};

use crate::{
    DORMANT_AFTER,
    capacity::Capacity,
    checks::Checks,
    decision::{Decision, Share},
    effect::Effect,
    fault::{self, Judgement},
    intent::{Intents, Owner},
    overrides,
    placement::Placed,
    policy::Policy,
    predict::Predictions,
    readiness::Readiness,
    routing::RoutingEvidence,
    select::{self, Appraisal, Picture, Ranking, Request},
    selection::{Move, Rules, STORM_SPAN, Selection},
    signal::ActiveSignal,
    state::{Quiet, State},
    summary::summarise,
    view::{FailStatic, MAX_DECISIONS, MAX_HESITATIONS, Pair, PairView, RegionView, Vote},
    waiting::{Hesitation, Waiting},
};

mod services;

/// How often evidence that nobody adds to any more is swept out.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

impl State {
    /// Evaluates at every instant after the last evaluation and up to `now`. Instants are multiples of the policy's
    /// `evaluate_every`; once nothing but ticks has come for [`DORMANT_AFTER`], the only one is the last before the
    /// next input.
    pub(crate) fn evaluate_until(&mut self, now: Timestamp, only_tick: bool) -> Vec<Effect> {
        let mut effects = Vec::new();
        let every = self.policy.evaluate_every;
        let Some(last_input_at) = self.last_input_at else {
            self.evaluated_at = now.floor(every);
            return effects;
        };
        let awake_until = last_input_at + DORMANT_AFTER;
        let mut at = self.evaluated_at.floor(every) + every;
        // The last clause ends the count at the end of all time, where adding adds nothing.
        while at <= now && at <= awake_until && at > self.evaluated_at {
            self.evaluate(at, &mut effects);
            at = at + every;
        }
        let last = now.floor(every);
        if !only_tick && last > self.evaluated_at {
            self.evaluate(last, &mut effects);
        }
        effects
    }

    fn evaluate(&mut self, at: Timestamp, effects: &mut Vec<Effect>) {
        let sweep = at.floor(SWEEP_EVERY) != self.evaluated_at.floor(SWEEP_EVERY);
        self.evaluated_at = at;
        if !sweep && self.is_quiet(at) {
            return;
        }
        let policy = Arc::clone(&self.policy);
        self.signals.expire(at);
        if sweep {
            self.graph.forget_old(at, &policy);
        }
        let fresh_until = self.judge_faults(at);
        if sweep {
            let predictions = Predictions::new(at, &policy, self.graph.pairs());
            self.predictions = Arc::new(predictions);
        }
        if self.intents.next_expiry().is_some_and(|until| until <= at) {
            let ended = Arc::make_mut(&mut self.intents).expire(at).into_iter();
            effects.extend(ended.map(|ended| Effect::Expired {
                at,
                ended: Box::new(ended),
            }));
            self.all_due = true;
        }
        if self.checks.next_expiry().is_some_and(|until| until <= at) {
            let intents = Arc::clone(&self.intents);
            self.all_due |= Arc::make_mut(&mut self.checks).forget(at, &intents);
        }
        let rules = &policy.routing;
        if self
            .routing
            .next_expiry(rules)
            .is_some_and(|until| until <= at)
        {
            self.all_due |= Arc::make_mut(&mut self.routing).expire(at, rules);
        }
        let mut decisions = Vec::new();
        self.evaluate_regions(at, &mut decisions);
        let looked = self.evaluate_services(at, &mut decisions);
        let decided = decisions.into_iter();
        effects.extend(decided.map(|decision| Effect::Decided(Box::new(decision))));
        self.quiet = self.next_quiet(fresh_until, looked);
    }

    /// Whether nothing can have changed since the last evaluation.
    fn is_quiet(&self, at: Timestamp) -> bool {
        self.quiet.version == self.graph_version
            && self.quiet.until.is_some_and(|until| at <= until)
    }

    fn next_quiet(&self, fresh_until: Timestamp, looked: usize) -> Quiet {
        let looked = match self.quiet.version == self.graph_version {
            true => self.quiet.looked + looked,
            false => looked,
        };
        let restless = self.all_due || looked < self.intents.services.len();
        let expiries = [
            self.signals.next_expiry(),
            self.intents.next_expiry(),
            self.checks.next_expiry(),
            self.routing.next_expiry(&self.policy.routing),
        ];
        let retries = self.retry_at.values().copied();
        let wakes = self.selections.values().filter_map(Selection::wake_at);
        let expiry = expiries
            .into_iter()
            .flatten()
            .chain(retries)
            .chain(wakes)
            .min();
        let expiry = expiry.map(|at| at - Duration::from_micros(1));
        Quiet {
            version: self.graph_version,
            looked,
            until: (!restless).then(|| expiry.map_or(fresh_until, |at| at.min(fresh_until))),
        }
    }

    /// Returns until when no evidence that is fresh now becomes stale.
    fn judge_faults(&mut self, at: Timestamp) -> Timestamp {
        let doubting = self.graph.self_suspecting(at, &self.policy);
        let policy = Arc::clone(&self.policy);
        let long = policy.doubt.lasts + policy.probing.window;
        let (suspects, ends): (BTreeMap<_, _>, Vec<_>) = doubting
            .map(|(agent, until)| {
                let since = until - long;
                ((agent.clone(), since), until - Duration::from_micros(1))
            })
            .unzip();
        let judgement = fault::judge(at, &policy, &mut self.graph, &suspects);
        for (agent, since) in &judgement.wrong_since {
            self.graph.on_fault(at, &policy, agent, *since);
        }
        // What shows that an agent is well again was measured while it was not, in part.
        let before = self.exclusions.agents.iter();
        for agent in before.filter(|own| !judgement.wrong_since.contains_key(*own)) {
            self.graph.on_fault(at, &policy, agent, at);
        }
        if judgement.exclusions == self.exclusions {
            self.graph.refresh(&self.policy, &self.exclusions);
        } else {
            self.exclusions = judgement.exclusions.clone();
            self.all_due = true;
            self.graph.refresh_all(&self.policy, &self.exclusions);
        }
        let faults = fault::localise(at, &self.policy, &self.graph, &judgement, &self.faults);
        if faults != *self.faults {
            self.faults = Arc::new(faults);
        }
        let Judgement {
            regions,
            votes,
            cut_off,
            fresh_until,
            ..
        } = judgement;
        let before = self.fail_static.take();
        self.fail_static = cut_off.map(|detail| FailStatic {
            since: before.map_or(at, |before| before.since),
            detail,
        });
        let mut fresh_agents: BTreeMap<&RegionId, u32> = BTreeMap::new();
        for (region, _) in votes.values() {
            *fresh_agents.entry(region).or_default() += 1;
        }
        let view = |(id, (state, detail)): (RegionId, _)| {
            let before = self.regions.get(&id).filter(|before| before.state == state);
            let view = RegionView {
                state,
                since: before.map_or(at, |before| before.since),
                detail,
                fresh_agents: fresh_agents.get(&id).copied().unwrap_or(0),
            };
            (id, view)
        };
        let regions: BTreeMap<_, _> = regions.into_iter().map(view).collect();
        let states = |all: &BTreeMap<RegionId, RegionView>| -> Vec<_> {
            all.values().map(|region| region.state).collect()
        };
        self.all_due |= states(&regions) != states(&self.regions);
        if regions != *self.regions {
            self.regions = Arc::new(regions);
        }
        let mute = votes
            .iter()
            .filter(|(_, (_, vote))| matches!(vote, Vote::AtFault | Vote::Suspect));
        let mute: BTreeSet<_> = mute.map(|(agent, _)| agent.clone()).collect();
        if mute != *self.checks.mute() {
            self.all_due |= Arc::make_mut(&mut self.checks).set_mute(mute);
        }
        for (id, agent) in &mut self.agents {
            agent.vote = votes.get(id).map_or(Vote::Silent, |&(_, vote)| vote);
        }
        ends.into_iter().fold(fresh_until, Timestamp::min)
    }

    fn evaluate_regions(&mut self, at: Timestamp, decisions: &mut Vec<Decision>) {
        let parts = self.parts(at);
        for primary in parts.policy.regions.keys() {
            let owner = Owner::Region(primary.clone());
            let selected = self.selections.get(&owner).and_then(Selection::selected);
            let current = selected.cloned().into_iter().map(Share::whole).collect();
            let request = Request::of_region(&parts.policy, primary).selected(current);
            let (perspective, appraisals) = select::appraise(&parts.picture(), &request);
            if let Some(wanted) = self.wish(&parts, &request, &appraisals) {
                let evidence = select::ranking(&parts.picture(), perspective, &appraisals);
                let placed = Placed::default();
                decisions.push(self.decide(&parts, &request, wanted, evidence, placed));
            }
        }
    }

    /// What a selection wants, if nobody overrides it.
    fn wish(
        &mut self,
        parts: &Parts,
        request: &Request<'_>,
        appraisals: &[Appraisal],
    ) -> Option<Move> {
        let policy = &parts.policy;
        let selection = self.selections.entry(request.owner.clone()).or_default();
        let selected = selection.selected().cloned();
        let before = selection.waiting().cloned();
        let wanted = match &self.fail_static {
            Some(cut_off) => {
                selection.on_cut_off(&cut_off.detail);
                None
            }
            None => {
                let storm = policy.steadiness.storm_moves;
                let rules = Rules {
                    steadiness: &policy.steadiness,
                    memory: policy.evidence.memory,
                    storm_until: self.moves.spent_until(parts.now, storm, STORM_SPAN),
                };
                selection.evaluate(parts.now, &rules, appraisals)
            }
        };
        if wanted.is_none()
            && let Some(hesitation) = hesitation(parts.now, &request.owner, selection, before)
        {
            let hesitations = Arc::make_mut(&mut self.hesitations);
            hesitations.push_back(Arc::new(hesitation));
            if hesitations.len() > MAX_HESITATIONS {
                hesitations.pop_front();
            }
        }
        let rules = overrides::rules(&parts.intents, &request.owner);
        let (wanted, notices) = overrides::apply(
            &rules,
            policy,
            &request.owner,
            selected.as_ref(),
            appraisals,
            wanted,
        );
        match notices.is_empty() {
            true => drop(self.notices.remove(&request.owner)),
            false => drop(self.notices.insert(request.owner.clone(), notices)),
        }
        wanted
    }

    /// Makes a decision of a move, and remembers it.
    fn decide(
        &mut self,
        parts: &Parts,
        request: &Request<'_>,
        wanted: Move,
        evidence: Ranking,
        placed: Placed,
    ) -> Decision {
        let mut summary = summarise(request, &wanted, &evidence);
        let shares = placed.words();
        if !shares.is_empty() {
            summary = format!("{summary} ({shares})");
        }
        let id = self.next_decision;
        self.next_decision += 1;
        if wanted.from != wanted.to {
            let steadiness = &parts.policy.steadiness;
            let selection = self.selections.entry(request.owner.clone()).or_default();
            selection.on_decision(parts.now, steadiness, &wanted, id);
            if wanted.from.is_some() {
                self.moves.on_move(parts.now, steadiness.storm_moves);
            }
        }
        let Move { from, to, reason } = wanted;
        let decision = Decision {
            id,
            at: parts.now,
            primary: request.primary.clone(),
            service: request.service().cloned(),
            from,
            to,
            assignment: placed.shares,
            unserved: placed.unserved,
            reason,
            evidence,
            graph_version: self.graph_version,
            policy_version: self.policy_version.to_string(),
            summary,
        };
        let decisions = Arc::make_mut(&mut self.decisions);
        decisions.push_back(Arc::new(decision.clone()));
        if decisions.len() > MAX_DECISIONS {
            decisions.pop_front();
        }
        decision
    }

    /// What an evaluation is made from, as of now.
    fn parts(&self, now: Timestamp) -> Parts {
        Parts {
            now,
            policy: Arc::clone(&self.policy),
            regions: Arc::clone(&self.regions),
            pairs: Arc::clone(self.graph.pairs()),
            predictions: Arc::clone(&self.predictions),
            signals: Arc::clone(self.signals.active()),
            checks: Arc::clone(&self.checks),
            routing: Arc::clone(&self.routing),
            intents: Arc::clone(&self.intents),
            capacity: Arc::clone(&self.capacity),
            readiness: Arc::clone(&self.readiness),
            running: Arc::clone(&self.running),
        }
    }
}

/// What an evaluation is made from: shared, so that the selections can change beside it.
struct Parts {
    now: Timestamp,
    policy: Arc<Policy>,
    regions: Arc<BTreeMap<RegionId, RegionView>>,
    pairs: Arc<BTreeMap<Pair, Arc<PairView>>>,
    predictions: Arc<Predictions>,
    signals: Arc<Vec<ActiveSignal>>,
    checks: Arc<Checks>,
    routing: Arc<RoutingEvidence>,
    intents: Arc<Intents>,
    capacity: Arc<Capacity>,
    readiness: Arc<Readiness>,
    running: Arc<BTreeMap<ServiceId, Vec<Share>>>,
}

impl Parts {
    fn picture(&self) -> Picture<'_> {
        Picture {
            now: self.now,
            policy: &self.policy,
            regions: &self.regions,
            pairs: &self.pairs,
            predictions: &self.predictions,
            signals: &self.signals,
            checks: &self.checks,
            routing: &self.routing,
            intents: &self.intents,
            capacity: &self.capacity,
            readiness: &self.readiness,
            running: &self.running,
            mesh: None,
        }
    }
}

/// What is waited for from now on, or no longer, if that has changed.
fn hesitation(
    at: Timestamp,
    owner: &Owner,
    selection: &Selection,
    before: Option<Waiting>,
) -> Option<Hesitation> {
    let now = selection.waiting();
    let kind = |own: &Waiting| (own.code, own.to.clone());
    if before.as_ref().map(kind) == now.map(kind) {
        return None;
    }
    Some(Hesitation {
        at,
        owner: owner.clone(),
        selected: selection.selected().cloned(),
        ruled_out: now.is_none(),
        waiting: now.cloned().or(before)?,
    })
}
