//! Checks in virtual time: who asks what when, and what comes of it.
//!
//! Every agent asks at its own moment within the interval, and hears after the round trips of a real question: one for
//! a connection, one more for TLS, one for a page. What it cannot reach it hears nothing from until the deadline.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use leeward_common::{
    api::v1::CheckSpec,
    check::{Outcome, Scheme},
    id::{AgentId, CheckId, RegionId, ServiceId},
    ratio::Ratio,
    time::Timestamp,
};

use super::path::fnv1a;
use crate::{
    input::CheckResult,
    intent::{Amendment, Change, Service},
    scenario::{CheckAction, Network},
    view::View,
};

/// A check of a service in a region.
type Spot = (ServiceId, RegionId, CheckId);

/// What is asked, and what is heard.
#[derive(Debug, Default)]
pub(super) struct Asking {
    services: BTreeMap<ServiceId, Arc<Service>>,
    /// What each region that asks hears while nothing happens; `None` if everybody hears that all is well.
    usual: Option<BTreeMap<(Spot, RegionId), Outcome>>,
    /// What is otherwise, and for whom; for everybody if that is empty.
    failing: BTreeMap<Spot, (Vec<RegionId>, Outcome)>,
    due: BTreeSet<(Timestamp, AgentId, Spot)>,
}

impl Asking {
    /// As it is in the live state: who was heard goes on to hear the same, and who was silent stays silent.
    pub(super) fn live(view: &View) -> Self {
        let known = view.intents.services.iter();
        let services: BTreeMap<_, _> = known
            .map(|(id, known)| (id.clone(), Arc::clone(&known.what)))
            .collect();
        let mut usual = BTreeMap::new();
        for (id, service) in &services {
            for region in service.regions(&view.policy) {
                for found in view.checks.findings(view.now, id, service, &region) {
                    let spot = (id.clone(), region.clone(), found.check.clone());
                    for own in &found.vantages {
                        usual.insert((spot.clone(), own.region.clone()), own.outcome);
                    }
                }
            }
        }
        Self {
            services,
            usual: Some(usual),
            ..Self::default()
        }
    }

    /// Somebody changes a service.
    pub(super) fn on_change(&mut self, change: &Change) {
        match &change.what {
            Amendment::PutService(id, service) => {
                self.services
                    .insert(id.clone(), Arc::new((**service).clone()));
            }
            Amendment::RemoveService(id) => drop(self.services.remove(id)),
            _ => {}
        }
    }

    /// A check begins to fail, or passes again.
    pub(super) fn on_action(&mut self, action: &CheckAction) {
        let Some(service) = self.services.get(&action.service) else {
            return;
        };
        let mine = |own: &&CheckId| action.check.as_ref().is_none_or(|check| check == *own);
        for check in service.checks.keys().filter(mine) {
            let spot = (action.service.clone(), action.region.clone(), check.clone());
            match action.outcome {
                Some(outcome) => {
                    drop(self.failing.insert(spot, (action.from.clone(), outcome)));
                }
                None => drop(self.failing.remove(&spot)),
            }
        }
    }

    /// Who asks from now on: everybody who must, and goes on at the moments that were theirs.
    pub(super) fn plan(
        &mut self,
        now: Timestamp,
        seed: u64,
        agents: impl Iterator<Item = (AgentId, RegionId)>,
    ) {
        let before: BTreeMap<_, _> = std::mem::take(&mut self.due)
            .into_iter()
            .map(|(at, agent, spot)| ((agent, spot), at))
            .collect();
        for (agent, observer) in agents {
            for (id, service) in &self.services {
                for (check, spec) in &service.checks {
                    let asked = spec.at.keys().filter(|at| spec.is_asked(&observer, at));
                    for region in asked {
                        let spot = (id.clone(), region.clone(), check.clone());
                        let at = before.get(&(agent.clone(), spot.clone())).copied();
                        let at = at.unwrap_or_else(|| now + phase(seed, &agent, &spot, spec));
                        self.due.insert((at, agent.clone(), spot));
                    }
                }
            }
        }
    }

    /// When somebody asks next.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.due.first().map(|(at, ..)| *at)
    }

    /// Lets the next one ask. Returns who, and what it hears after how long; `None` if it hears nothing that counts.
    pub(super) fn ask(
        &mut self,
        network: &Network,
        agents: &BTreeMap<AgentId, RegionId>,
    ) -> Option<(AgentId, Duration, CheckResult)> {
        let (at, agent, spot) = self.due.pop_first()?;
        let (id, region, check) = &spot;
        let spec = self.services.get(id)?.checks.get(check)?.clone();
        let next = (at + spec.interval.0, agent.clone(), spot.clone());
        self.due.insert(next);
        let observer = agents.get(&agent)?;
        let usual = match &self.usual {
            Some(usual) => *usual.get(&(spot.clone(), observer.clone()))?,
            None => Outcome::Ok,
        };
        let here =
            |(from, _): &&(Vec<RegionId>, Outcome)| from.is_empty() || from.contains(observer);
        let failing = self.failing.get(&spot).filter(here).map(|own| own.1);
        let (outcome, took) = match travel(network, &spec, observer, region) {
            Some(took) => (failing.unwrap_or(usual), took),
            None => (Outcome::Timeout, spec.timeout.0),
        };
        let took = match outcome {
            Outcome::Timeout => spec.timeout.0,
            _ => took,
        };
        let result = CheckResult {
            service: id.clone(),
            check: check.clone(),
            region: region.clone(),
            question: spec.question(region)?,
            outcome,
            latency_us: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            age: Duration::ZERO,
            detail: String::new(),
        };
        Some((agent, took, result))
    }
}

/// How long a question and its answer take; `None` if they do not get through in time.
fn travel(
    network: &Network,
    spec: &CheckSpec,
    observer: &RegionId,
    region: &RegionId,
) -> Option<Duration> {
    let there = network.effective(observer, region);
    let back = network.effective(region, observer);
    if there.loss == Ratio::ONE || back.loss == Ratio::ONE {
        return None;
    }
    let trips = match spec.at.get(region)?.scheme() {
        Scheme::Tcp => 1,
        Scheme::Http => 2,
        Scheme::Https => 3,
    };
    let took = (there.delay + back.delay) * trips;
    (took < spec.timeout.0).then_some(took)
}

/// The moment of an agent within the interval.
fn phase(seed: u64, agent: &AgentId, (id, region, check): &Spot, spec: &CheckSpec) -> Duration {
    let hash =
        fnv1a(&format!("{agent}/{id}/{region}/{check}")) ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let us = u64::try_from(spec.interval.0.as_micros()).unwrap_or(u64::MAX);
    Duration::from_micros((hash >> 11) % us.max(1))
}
