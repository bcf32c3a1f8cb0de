//! One evaluation: whose fault, how good each candidate, whether to move.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use leeward_common::{id::RegionId, time::Timestamp};

use crate::{
    DORMANT_AFTER,
    decision::Decision,
    effect::Effect,
    fault::{self, Judgement},
    select::{self, Picture, Request},
    selection::{Move, Selection},
    state::{Quiet, State},
    summary::summarise,
    view::{MAX_DECISIONS, RegionView, Vote},
};

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
        if self.intents.next_expiry().is_some_and(|until| until <= at) {
            Arc::make_mut(&mut self.intents).expire(at);
        }
        let intents = Arc::clone(&self.intents);
        let regions = policy.regions.keys();
        let regions = regions.map(|primary| Request::of_region(&policy, primary));
        let services = intents.services.iter();
        let services = services.map(|(id, known)| Request::of_service(&policy, id, &known.what));
        for request in regions.chain(services) {
            if let Some(decision) = self.evaluate_owner(at, &request) {
                effects.push(Effect::Decided(Box::new(decision)));
            }
        }
        self.quiet = self.next_quiet(fresh_until);
    }

    /// Whether nothing can have changed since the last evaluation.
    fn is_quiet(&self, at: Timestamp) -> bool {
        self.quiet.version == self.graph_version
            && self.quiet.until.is_some_and(|until| at <= until)
    }

    fn next_quiet(&self, fresh_until: Timestamp) -> Quiet {
        let restless = self.selections.values().any(Selection::is_restless);
        let expiries = [self.signals.next_expiry(), self.intents.next_expiry()];
        let expiry = expiries.into_iter().flatten().min();
        let expiry = expiry.map(|at| at - Duration::from_micros(1));
        Quiet {
            version: self.graph_version,
            until: (!restless).then(|| expiry.map_or(fresh_until, |at| at.min(fresh_until))),
        }
    }

    /// Returns until when no evidence that is fresh now becomes stale.
    fn judge_faults(&mut self, at: Timestamp) -> Timestamp {
        let Judgement {
            regions,
            votes,
            exclusions,
            fresh_until,
        } = fault::judge(at, &self.policy, &self.graph);
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
        if regions != *self.regions {
            self.regions = Arc::new(regions);
        }
        for (id, agent) in &mut self.agents {
            agent.vote = votes.get(id).map_or(Vote::Silent, |&(_, vote)| vote);
        }
        if exclusions == self.exclusions {
            self.graph.refresh(&self.policy, &self.exclusions);
        } else {
            self.exclusions = exclusions;
            self.graph.refresh_all(&self.policy, &self.exclusions);
        }
        fresh_until
    }

    fn evaluate_owner(&mut self, at: Timestamp, request: &Request<'_>) -> Option<Decision> {
        let policy = Arc::clone(&self.policy);
        let picture = Picture {
            now: at,
            policy: &policy,
            regions: &self.regions,
            pairs: self.graph.pairs(),
            signals: self.signals.active(),
        };
        let (_, appraisals) = select::appraise(&picture, request);
        let selection = self.selections.entry(request.owner.clone()).or_default();
        let wanted = selection.evaluate(at, &policy.steadiness, &appraisals)?;
        let evidence = select::rank(&picture, request);
        let summary = summarise(request, &wanted, &evidence);
        let Move { from, to, reason } = wanted;
        let id = self.next_decision;
        self.next_decision += 1;
        selection.on_decision(at, &policy.steadiness, to.clone(), id);
        let decision = Decision {
            id,
            at,
            primary: request.primary.clone(),
            service: request.service().cloned(),
            from,
            to,
            assignment: Vec::new(),
            unserved: None,
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
        Some(decision)
    }
}
