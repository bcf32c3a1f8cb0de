//! The immutable picture that readers get. The aggregator publishes one after each turn; parts are shared, so that it
//! costs little.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use leeward_common::{
    id::{AgentId, RegionId, ServiceId},
    report::{OneWay, Window},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::{
    capacity::Capacity,
    checks::Checks,
    decision::{Decision, Share, Unserved},
    fault::Fault,
    found::Found,
    graph::{
        bandwidth::Bandwidths,
        combine::{Levels, Measured, combine},
    },
    intent::{Intents, Owner},
    policy::Policy,
    predict::Predictions,
    readiness::{Readiness, ReadinessChange},
    routing::RoutingEvidence,
    select::{Picture, Ranking, Request},
    signal::ActiveSignal,
    waiting::{Hesitation, Waiting},
};

/// A directed link: from the first region to the second.
pub type Link = (RegionId, RegionId);

/// Two regions whatever the direction, the smaller id first.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Pair(RegionId, RegionId);

impl Pair {
    /// The pair of two regions.
    #[must_use]
    pub fn new(a: &RegionId, b: &RegionId) -> Self {
        let (low, high) = if a <= b { (a, b) } else { (b, a) };
        Self(low.clone(), high.clone())
    }

    /// Both regions.
    #[must_use]
    pub const fn regions(&self) -> (&RegionId, &RegionId) {
        (&self.0, &self.1)
    }
}

/// What the engine knows and has decided, at one point in time.
#[derive(Clone, Debug)]
pub struct View {
    /// When.
    pub now: Timestamp,
    /// Grows with everything that the engine is told, ticks apart.
    pub graph_version: u64,
    /// The policy in force.
    pub policy: Arc<Policy>,
    /// [`Policy::version`] of it.
    pub policy_version: Arc<str>,
    /// Agents that were heard of.
    pub agents: Arc<BTreeMap<AgentId, AgentView>>,
    /// Regions of the policy.
    pub regions: Arc<BTreeMap<RegionId, RegionView>>,
    /// What was measured by agents of the first region about the second.
    pub links: Arc<BTreeMap<Link, Arc<LinkView>>>,
    /// What was measured between two regions, whoever measured; what scores are made from.
    pub pairs: Arc<BTreeMap<Pair, Arc<PairView>>>,
    /// How much links carry, as agents told.
    pub bandwidths: Arc<Bandwidths>,
    /// What is expected of links that nobody measured.
    pub predictions: Arc<Predictions>,
    /// Selections by primary.
    pub selections: Arc<BTreeMap<RegionId, Arc<SelectionView>>>,
    /// Selections by service: where each should run now.
    pub services: Arc<BTreeMap<ServiceId, Arc<SelectionView>>>,
    /// Services, capacity and overrides.
    pub intents: Arc<Intents>,
    /// The last decisions, oldest first; at most [`MAX_DECISIONS`].
    pub decisions: Arc<VecDeque<Arc<Decision>>>,
    /// The number of the last decision, remembered or not; 0 before the first.
    pub last_decision: u64,
    /// The last moves that were not made, oldest first; at most [`MAX_HESITATIONS`].
    pub hesitations: Arc<VecDeque<Arc<Hesitation>>>,
    /// Why nothing moves by itself, while the observers are cut off; `None` while they are not.
    pub fail_static: Option<FailStatic>,
    /// What is at fault now, as far as it can be told.
    pub faults: Arc<Vec<Fault>>,
    /// Signals in force.
    pub signals: Arc<Vec<ActiveSignal>>,
    /// What agents found when they asked services for an answer.
    pub checks: Arc<Checks>,
    /// What agents found out beside their windows.
    pub found: Arc<Found>,
    /// What of that is evidence: what routers tell against regions.
    pub routing: Arc<RoutingEvidence>,
    /// By which shares each service runs where.
    pub running: Arc<BTreeMap<ServiceId, Vec<Share>>>,
    /// What each region offers, and what is taken of it.
    pub capacity: Arc<Capacity>,
    /// Whether each service could run in each of its regions today, by service and region.
    pub readiness: Arc<Readiness>,
    /// The last changes of readiness, oldest first; at most [`crate::readiness::MAX_CHANGES`].
    pub readiness_changes: Arc<VecDeque<Arc<ReadinessChange>>>,
}

/// How many decisions the engine remembers. Older ones are in the store; with 64 regions one weighs some 60 kB.
pub const MAX_DECISIONS: usize = 256;

/// How many moves that were not made are remembered.
pub const MAX_HESITATIONS: usize = 1_024;

/// How many windows of a link are kept for readers: a minute of the default length.
pub const MAX_WINDOWS: usize = 60;

impl View {
    /// What [`crate::select::rank`] needs.
    #[must_use]
    pub fn picture(&self) -> Picture<'_> {
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

    /// The candidates of a primary as configured, ranked now. Made on demand: most views are read for a few primaries
    /// only. A primary that the policy does not know has no candidates.
    #[must_use]
    pub fn ranking(&self, primary: &RegionId) -> Ranking {
        let selected = self
            .selections
            .get(primary)
            .and_then(|own| own.selected.clone());
        let current = selected.into_iter().map(Share::whole).collect();
        let request = Request::of_region(&self.policy, primary).selected(current);
        crate::select::rank(&self.picture(), &request)
    }

    /// The regions where a service may run, ranked now; `None` for a service that nobody has described.
    #[must_use]
    pub fn service_ranking(&self, service: &ServiceId) -> Option<Ranking> {
        let known = self.intents.services.get(service)?;
        let current = self.running.get(service).cloned().unwrap_or_default();
        let request = Request::of_service(&self.policy, service, &known.what).selected(current);
        Some(crate::select::rank(&self.picture(), &request))
    }

    /// What is selected for a region or a service.
    #[must_use]
    pub fn selection(&self, owner: &Owner) -> Option<&Arc<SelectionView>> {
        match owner {
            Owner::Region(region) => self.selections.get(region),
            Owner::Service(service) => self.services.get(service),
        }
    }
}

/// A value with its uncertainty. What is measured more is known better: the bounds come closer as `n` grows.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Estimate {
    /// The best guess, in the unit of the field.
    pub value: f64,
    /// Lower bound at 95 % confidence.
    pub low: f64,
    /// Upper bound at 95 % confidence.
    pub high: f64,
    /// Samples.
    pub n: u64,
}

/// How much is known about something measured.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Knowledge {
    /// Measured lately and often enough.
    Fresh,
    /// Measured, but too seldom to tell.
    Thin,
    /// Measured too long ago.
    Stale,
    /// Never measured.
    Unknown,
}

/// Pooled estimates as of the newest evidence.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Estimates {
    /// Median round-trip time, microseconds; `None` without a reply.
    pub rtt_p50_us: Option<Estimate>,
    /// 99th percentile of the round-trip time, microseconds.
    pub rtt_p99_us: Option<Estimate>,
    /// 99th percentile minus minimum (RFC 5481 PDV), microseconds.
    pub jitter_us: Option<Estimate>,
    /// Share of probes without a reply, with Wilson bounds.
    pub loss: Option<Estimate>,
    /// The same in the newest windows alone.
    pub loss_lately: Option<Estimate>,
    /// Bits per second, where known.
    pub bandwidth_bps: Option<Estimate>,
    /// Probes behind it.
    pub n: u64,
    /// When the newest evidence was measured, by the aggregator's clock.
    pub newest_at: Timestamp,
    /// When each agent with evidence in memory last had some.
    pub agents: BTreeMap<AgentId, Timestamp>,
}

impl Estimates {
    fn measured(&self) -> Measured {
        Measured {
            rtt_p50_us: self.rtt_p50_us,
            rtt_p99_us: self.rtt_p99_us,
            jitter_us: self.jitter_us,
            loss: self.loss,
            loss_lately: self.loss_lately,
            n: self.n,
        }
    }

    /// The loss and that of the newest windows, where these are better beyond doubt: what was wrong has passed.
    #[must_use]
    pub fn subsided(&self) -> Option<(f64, f64)> {
        let (loss, lately) = (self.loss?, self.loss_lately?);
        (lately.high < loss.value).then_some((loss.value, lately.value))
    }

    /// Age of the newest evidence; `None` without any.
    #[must_use]
    pub fn age(&self, now: Timestamp) -> Option<Duration> {
        (self.n > 0).then(|| now.since(self.newest_at))
    }

    /// How much of the time until this evidence is stale has passed without any: 0 up to two windows of age, then more
    /// with every further window, 1 once it is stale. In whole windows, since evidence comes by the window.
    #[must_use]
    pub fn staleness(&self, now: Timestamp, policy: &Policy) -> f64 {
        let window_us = policy.probing.window.as_micros().max(1);
        let missing = (self.age(now).unwrap_or_default().as_micros() / window_us).max(1) - 1;
        let stale = policy.evidence.stale_after.as_micros() as f64 / window_us as f64 - 1.0;
        match missing {
            0 => 0.0,
            _ => (missing as f64 / stale.max(1.0)).min(1.0),
        }
    }

    /// Agents with fresh evidence.
    pub fn fresh_agents(&self, now: Timestamp, policy: &Policy) -> impl Iterator<Item = &AgentId> {
        let stale_after = policy.evidence.stale_after;
        let fresh = move |(_, at): &(&AgentId, &Timestamp)| now.since(**at) <= stale_after;
        self.agents.iter().filter(fresh).map(|(agent, _)| agent)
    }

    /// How many agents have fresh evidence.
    #[must_use]
    pub fn vantage_points(&self, now: Timestamp, policy: &Policy) -> u32 {
        self.fresh_agents(now, policy).count() as u32
    }

    /// How much is known.
    #[must_use]
    pub fn knowledge(&self, now: Timestamp, policy: &Policy) -> Knowledge {
        match self.age(now) {
            None => Knowledge::Unknown,
            Some(age) if age > policy.evidence.stale_after => Knowledge::Stale,
            Some(_) if self.n < u64::from(policy.evidence.min_probes) => Knowledge::Thin,
            Some(_) => Knowledge::Fresh,
        }
    }
}

/// What agents of one region measured about another.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LinkView {
    /// Pooled over the policy's memory.
    pub estimates: Estimates,
    /// The last windows, oldest first, all agents together; at most [`MAX_WINDOWS`].
    pub windows: Vec<WindowView>,
}

/// One window of a link.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WindowView {
    /// The window, by the agents' clocks.
    pub window: Window,
    /// Probes answered, late ones included.
    pub answered: u64,
    /// Probes that became overdue and were not answered later in the window.
    pub unanswered: u64,
    /// Round-trip times; `None` without a reply.
    pub rtt: Option<RttView>,
    /// What is known of each direction; `None` where no path tells. Sums over paths and parts of the window, what was
    /// pending included.
    pub one_way: Option<OneWay>,
}

/// Round-trip times of a window, microseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct RttView {
    pub min_us: u32,
    pub p50_us: u32,
    pub p90_us: u32,
    pub p99_us: u32,
    pub max_us: u32,
}

/// What was measured between two regions, whoever measured.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct PairView {
    /// Pooled over both directions and the policy's memory.
    pub estimates: Estimates,
    /// Agents to whom nothing from the other side is answered lately.
    pub lost_by: BTreeSet<AgentId>,
}

impl PairView {
    /// What several regions know of their links to the same one, as one; `None` without any.
    pub(crate) fn combined(pairs: &[&Arc<Self>]) -> Option<Self> {
        let newest_at = pairs.iter().map(|pair| pair.estimates.newest_at).max()?;
        let measured: Vec<_> = pairs.iter().map(|pair| pair.estimates.measured()).collect();
        let all = combine(&measured, Levels::Own);
        let mut agents = BTreeMap::new();
        for (agent, &at) in pairs.iter().flat_map(|pair| &pair.estimates.agents) {
            let newest = agents.entry(agent.clone()).or_insert(at);
            *newest = at.max(*newest);
        }
        let mut lost_by: BTreeSet<_> = pairs.iter().flat_map(|pair| &pair.lost_by).collect();
        for pair in pairs {
            let seen = |agent: &&AgentId| {
                pair.estimates.agents.contains_key(*agent) && !pair.lost_by.contains(*agent)
            };
            lost_by.retain(|agent| !seen(agent));
        }
        Some(Self {
            estimates: Estimates {
                rtt_p50_us: all.rtt_p50_us,
                rtt_p99_us: all.rtt_p99_us,
                jitter_us: all.jitter_us,
                loss: all.loss,
                loss_lately: all.loss_lately,
                bandwidth_bps: None,
                n: all.n,
                newest_at,
                agents,
            },
            lost_by: lost_by.into_iter().cloned().collect(),
        })
    }

    /// Whether nothing is answered to any agent with fresh evidence.
    #[must_use]
    pub fn is_lost(&self, now: Timestamp, policy: &Policy) -> bool {
        let mut fresh = self.estimates.fresh_agents(now, policy).peekable();
        fresh.peek().is_some() && fresh.all(|agent| self.lost_by.contains(agent))
    }
}

/// A region.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct RegionView {
    /// Whether others reach it.
    pub state: RegionState,
    /// Since when.
    pub since: Timestamp,
    /// The fact behind it, in words.
    pub detail: String,
    /// Its agents that were heard of lately.
    pub fresh_agents: u32,
}

/// Whether a region is reached by others.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RegionState {
    /// Some observer outside it reaches it.
    Up,
    /// A quorum of observers outside it sees total loss.
    Down,
    /// Nobody can tell.
    Unknown,
}

/// An agent.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct AgentView {
    /// Its region.
    pub region: RegionId,
    /// When its session began; `None` while it has none.
    pub connected_since: Option<Timestamp>,
    /// When its last report arrived.
    pub last_report_at: Option<Timestamp>,
    /// Which start of its process.
    pub boot_epoch: u64,
    /// Where it answers.
    pub addresses: Vec<IpAddr>,
    /// Its build, for people.
    pub build: String,
    /// Whether its view counts.
    pub vote: Vote,
}

/// Whether an agent's view counts.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Vote {
    /// It counts.
    Counts,
    /// It was not heard of lately.
    #[default]
    Silent,
    /// It sees everything fail that others see well: the fault is its own.
    AtFault,
    /// It says itself that it cannot be trusted.
    Suspect,
}

/// The observers are cut off: nothing is known, so every selection stays where it is.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct FailStatic {
    /// Since when.
    pub since: Timestamp,
    /// The fact behind it, in words.
    pub detail: String,
}

/// What is selected for a primary or a service.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SelectionView {
    /// The selected region; `None` before the first decision and while no candidate is left.
    pub selected: Option<RegionId>,
    /// Since when; `None` before the first decision.
    pub since: Option<Timestamp>,
    /// The selection before.
    pub previous: Option<RegionId>,
    /// Until when it stays unless it is down; `None` if it is free to move.
    pub held_until: Option<Timestamp>,
    /// The decision that made it so.
    pub decision: Option<u64>,
    /// Why it does not move although something speaks for it; `None` while nothing does.
    pub waiting: Option<Waiting>,
    /// For a service, by which shares it runs where, by region; empty for a primary and while nothing is selected.
    pub assignment: Vec<Share>,
    /// For a service, what of it runs nowhere; `None` if all of it runs.
    pub unserved: Option<Unserved>,
    /// What somebody should know about it now, such as a pin that keeps it in a region that is down.
    pub notices: Vec<Notice>,
}

/// What somebody should know about a selection.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Notice {
    /// A stable word for programs.
    pub code: NoticeCode,
    /// The fact behind it, in words.
    pub detail: String,
}

/// What a notice is about.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NoticeCode {
    /// A pin keeps it in a region that should be left, or names one that the policy does not know.
    PinHurts,
    /// It would move, were nothing frozen.
    FreezeHurts,
    /// Two overrides contradict each other; the detail says which one counts.
    Conflict,
    /// It should leave its region and has nowhere to go.
    Stuck,
}
