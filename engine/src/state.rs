//! Everything that a decision can depend on: what the engine remembers, and how each input changes it.

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
    sync::Arc,
};

use leeward_common::{
    finding::Finding,
    id::{AgentId, RegionId, ServiceId},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::{
    capacity::Capacity,
    checks::Checks,
    decision::{Decision, Share, Unserved},
    fault::Fault,
    found::Found,
    graph::{Exclusions, Graph},
    inherit::Inheritance,
    input::{AgentConnected, CheckResults, Findings, Reports, Signal},
    intent::{Change, Intents, Owner},
    policy::Policy,
    predict::Predictions,
    readiness::{Readiness, ReadinessChange},
    restraint::Budget,
    routing::RoutingEvidence,
    selection::Selection,
    signal::Signals,
    view::{AgentView, FailStatic, Notice, RegionState, RegionView, View, Vote},
    waiting::Hesitation,
};

/// The version of [`State`] that this build writes and reads.
pub const STATE_VERSION: u32 = 6;

/// A snapshot of another version.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("snapshot has version {found}; this build reads {STATE_VERSION}")]
pub struct UnknownVersion {
    /// Its version.
    pub found: u32,
}

/// What the engine remembers: what a snapshot holds.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct State {
    pub(crate) version: u32,
    pub(crate) now: Timestamp,
    /// When anything but a tick came last.
    pub(crate) last_input_at: Option<Timestamp>,
    pub(crate) evaluated_at: Timestamp,
    pub(crate) graph_version: u64,
    pub(crate) policy: Arc<Policy>,
    /// Made from the policy.
    #[serde(skip)]
    pub(crate) policy_version: Arc<str>,
    pub(crate) graph: Graph,
    pub(crate) agents: BTreeMap<AgentId, Agent>,
    pub(crate) signals: Signals,
    #[serde(default)]
    pub(crate) checks: Arc<Checks>,
    #[serde(default)]
    pub(crate) found: Arc<Found>,
    /// What of it is evidence.
    #[serde(default)]
    pub(crate) routing: Arc<RoutingEvidence>,
    pub(crate) regions: Arc<BTreeMap<RegionId, RegionView>>,
    pub(crate) exclusions: Exclusions,
    pub(crate) predictions: Arc<Predictions>,
    #[serde(with = "crate::pairs")]
    pub(crate) selections: BTreeMap<Owner, Selection>,
    pub(crate) intents: Arc<Intents>,
    pub(crate) decisions: Arc<VecDeque<Arc<Decision>>>,
    pub(crate) next_decision: u64,
    pub(crate) hesitations: Arc<VecDeque<Arc<Hesitation>>>,
    /// When selections moved lately, all together.
    pub(crate) moves: Budget,
    pub(crate) fail_static: Option<FailStatic>,
    pub(crate) faults: Arc<Vec<Fault>>,
    pub(crate) capacity: Arc<Capacity>,
    pub(crate) readiness: Arc<Readiness>,
    pub(crate) readiness_changes: Arc<VecDeque<Arc<ReadinessChange>>>,
    pub(crate) next_readiness_change: u64,
    /// By which shares each service runs where.
    pub(crate) running: Arc<BTreeMap<ServiceId, Vec<Share>>>,
    /// What of a service runs nowhere.
    pub(crate) unserved: BTreeMap<ServiceId, Unserved>,
    /// When a service that found no place is placed anew.
    pub(crate) retry_at: BTreeMap<ServiceId, Timestamp>,
    /// Whether something happened that concerns all services.
    pub(crate) all_due: bool,
    #[serde(with = "crate::pairs")]
    pub(crate) notices: BTreeMap<Owner, Vec<Notice>>,
    /// See [`Quiet`]; not needed to go on, only to go on quickly.
    #[serde(skip)]
    pub(crate) quiet: Quiet,
}

/// Until when an evaluation would find what the last one found, unless an input comes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Quiet {
    /// As of this graph version.
    pub(crate) version: u64,
    /// How many services were looked at since, those counted twice that were looked at twice.
    pub(crate) looked: usize,
    /// Up to then, inclusive; `None` if it may change at any time.
    pub(crate) until: Option<Timestamp>,
}

/// What is remembered of an agent.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Agent {
    region: RegionId,
    connected_at: Option<Timestamp>,
    disconnected_at: Option<Timestamp>,
    last_report_at: Option<Timestamp>,
    boot_epoch: u64,
    addresses: Vec<IpAddr>,
    build: String,
    pub(crate) vote: Vote,
}

impl State {
    pub(crate) fn new(policy: Policy) -> Self {
        let mut state = Self {
            version: STATE_VERSION,
            now: Timestamp::EPOCH,
            last_input_at: None,
            evaluated_at: Timestamp::EPOCH,
            graph_version: 0,
            policy_version: policy.version().into(),
            policy: Arc::new(policy),
            graph: Graph::default(),
            agents: BTreeMap::new(),
            signals: Signals::default(),
            checks: Arc::default(),
            found: Arc::default(),
            routing: Arc::default(),
            regions: Arc::default(),
            exclusions: Exclusions::default(),
            predictions: Arc::default(),
            selections: BTreeMap::new(),
            intents: Arc::default(),
            decisions: Arc::default(),
            next_decision: 1,
            hesitations: Arc::default(),
            moves: Budget::default(),
            fail_static: None,
            faults: Arc::default(),
            capacity: Arc::default(),
            readiness: Arc::default(),
            readiness_changes: Arc::default(),
            next_readiness_change: 1,
            running: Arc::default(),
            unserved: BTreeMap::new(),
            retry_at: BTreeMap::new(),
            all_due: true,
            notices: BTreeMap::new(),
            quiet: Quiet::default(),
        };
        state.know_regions();
        state
    }

    /// The state at `now` of one who takes over from another.
    pub(crate) fn inheriting(mut self, now: Timestamp, past: Inheritance) -> Self {
        self.now = now;
        self.intents = Arc::new(past.intents);
        self.next_decision = past.last_decision + 1;
        let running = Arc::make_mut(&mut self.running);
        for (owner, own) in past.selections {
            self.selections
                .insert(owner.clone(), Selection::inherited(&own));
            if let Owner::Service(id) = owner {
                running.insert(id.clone(), own.assignment);
                self.unserved
                    .extend(own.unserved.map(|unserved| (id, unserved)));
            }
        }
        self.know_regions();
        self
    }

    /// Numbers all decisions higher.
    pub(crate) fn renumber(&mut self, by: u64) {
        self.next_decision += by;
        for decision in Arc::make_mut(&mut self.decisions) {
            Arc::make_mut(decision).id += by;
        }
        for selection in self.selections.values_mut() {
            selection.renumber(by);
        }
    }

    /// Every region of the policy has a state and a selection, and no other has.
    fn know_regions(&mut self) {
        let policy = Arc::clone(&self.policy);
        let intents = Arc::clone(&self.intents);
        let services = &intents.services;
        self.selections.retain(|owner, _| match owner {
            Owner::Region(primary) => policy.regions.contains_key(primary),
            Owner::Service(service) => services.contains_key(service),
        });
        self.notices
            .retain(|owner, _| self.selections.contains_key(owner));
        self.unserved.retain(|id, _| services.contains_key(id));
        self.retry_at.clear();
        self.all_due = true;
        let running = Arc::make_mut(&mut self.running);
        running.retain(|id, _| services.contains_key(id));
        let readiness = Arc::make_mut(&mut self.readiness);
        readiness.retain(|id, _| services.contains_key(id));
        for (id, service) in services {
            running
                .entry(id.clone())
                .or_insert_with(|| vec![Share::whole(service.what.home.clone())]);
            self.selections
                .entry(Owner::Service(id.clone()))
                .or_insert_with(|| Selection::running(self.now, service.what.home.clone()));
        }
        self.count_capacity();
        let regions = Arc::make_mut(&mut self.regions);
        regions.retain(|region, _| policy.regions.contains_key(region));
        for region in policy.regions.keys() {
            self.selections
                .entry(Owner::Region(region.clone()))
                .or_default();
            regions.entry(region.clone()).or_insert_with(|| RegionView {
                state: RegionState::Unknown,
                since: self.now,
                detail: "no observer has fresh evidence".to_owned(),
                fresh_agents: 0,
            });
        }
    }

    /// The state after a snapshot was read: what is made from the rest is made anew.
    pub(crate) fn restored(mut self) -> Result<Self, UnknownVersion> {
        if self.version != STATE_VERSION {
            return Err(UnknownVersion {
                found: self.version,
            });
        }
        self.graph.refresh_all(&self.policy, &self.exclusions);
        self.policy_version = self.policy.version().into();
        Ok(self)
    }

    /// Time never runs backwards.
    pub(crate) fn advance(&mut self, now: Timestamp) -> Timestamp {
        self.now = self.now.max(now);
        self.now
    }

    pub(crate) fn on_connected(&mut self, now: Timestamp, connected: &AgentConnected) {
        self.on_input(now);
        let known = self.agents.get(&connected.agent);
        if known.is_some_and(|known| known.boot_epoch != connected.boot_epoch) {
            let routing = Arc::make_mut(&mut self.routing);
            self.all_due |= routing.forget_agent(now, &connected.agent);
        }
        let agent = self.agent(&connected.agent, &connected.region);
        agent.region = connected.region.clone();
        agent.connected_at = Some(now);
        agent.boot_epoch = connected.boot_epoch;
        agent.addresses.clone_from(&connected.addresses);
        agent.build.clone_from(&connected.build);
    }

    pub(crate) fn on_disconnected(&mut self, now: Timestamp, agent: &AgentId) {
        self.on_input(now);
        if let Some(agent) = self.agents.get_mut(agent) {
            agent.disconnected_at = Some(now);
        }
    }

    pub(crate) fn on_reports(&mut self, now: Timestamp, reports: &Reports) {
        self.on_input(now);
        self.agent(&reports.agent, &reports.region).last_report_at = Some(now);
        self.graph.on_reports(now, &self.policy, reports);
    }

    pub(crate) fn on_signal(&mut self, now: Timestamp, signal: &Signal) {
        self.on_input(now);
        self.signals.on_signal(now, &self.policy, signal);
    }

    pub(crate) fn on_check_results(&mut self, now: Timestamp, results: &CheckResults) {
        self.on_input(now);
        Arc::make_mut(&mut self.checks).on_results(now, &self.intents, results);
    }

    pub(crate) fn on_findings(&mut self, now: Timestamp, findings: &Findings) {
        self.on_input(now);
        Arc::make_mut(&mut self.found).on_findings(now, findings);
        let (agent, region) = (&findings.agent, &findings.region);
        for finding in &findings.findings {
            match finding {
                Finding::Bandwidth(bandwidth) => {
                    self.graph.on_bandwidth(now, agent, region, bandwidth);
                }
                Finding::Routing(told) => {
                    let evidence = Arc::make_mut(&mut self.routing);
                    let rules = &self.policy.routing;
                    self.all_due |= evidence.on_routing(now, rules, agent, region, told);
                }
                _ => {}
            }
        }
    }

    pub(crate) fn on_policy(&mut self, now: Timestamp, policy: &Policy) {
        self.on_input(now);
        self.policy = Arc::new(policy.clone());
        self.policy_version = policy.version().into();
        self.know_regions();
        self.graph.forget_old(now, policy);
        self.graph.refresh_all(policy, &self.exclusions);
    }

    pub(crate) fn on_change(&mut self, now: Timestamp, change: &Change) {
        self.on_input(now);
        Arc::make_mut(&mut self.intents).on_change(now, change);
        self.know_regions();
    }

    fn on_input(&mut self, now: Timestamp) {
        self.last_input_at = Some(now);
        self.graph_version += 1;
    }

    fn agent(&mut self, id: &AgentId, region: &RegionId) -> &mut Agent {
        self.agents.entry(id.clone()).or_insert_with(|| Agent {
            region: region.clone(),
            connected_at: None,
            disconnected_at: None,
            last_report_at: None,
            boot_epoch: 0,
            addresses: Vec::new(),
            build: String::new(),
            vote: Vote::Silent,
        })
    }

    pub(crate) fn view(&self) -> View {
        let agents = self
            .agents
            .iter()
            .map(|(id, agent)| (id.clone(), agent.view()));
        let (mut selections, mut services) = (BTreeMap::new(), BTreeMap::new());
        for (owner, selection) in &self.selections {
            let mut view = selection.view(self.now);
            if let Owner::Service(id) = owner {
                view.assignment = self.running.get(id).cloned().unwrap_or_default();
                view.unserved = self.unserved.get(id).cloned();
            }
            view.notices = self.notices.get(owner).cloned().unwrap_or_default();
            let view = Arc::new(view);
            match owner {
                Owner::Region(primary) => selections.insert(primary.clone(), view),
                Owner::Service(service) => services.insert(service.clone(), view),
            };
        }
        View {
            now: self.now,
            graph_version: self.graph_version,
            policy: Arc::clone(&self.policy),
            policy_version: Arc::clone(&self.policy_version),
            agents: Arc::new(agents.collect()),
            regions: Arc::clone(&self.regions),
            links: Arc::clone(self.graph.links()),
            pairs: Arc::clone(self.graph.pairs()),
            bandwidths: Arc::clone(self.graph.bandwidths()),
            predictions: Arc::clone(&self.predictions),
            selections: Arc::new(selections),
            services: Arc::new(services),
            intents: Arc::clone(&self.intents),
            decisions: Arc::clone(&self.decisions),
            last_decision: self.next_decision - 1,
            hesitations: Arc::clone(&self.hesitations),
            fail_static: self.fail_static.clone(),
            faults: Arc::clone(&self.faults),
            signals: Arc::clone(self.signals.active()),
            checks: Arc::clone(&self.checks),
            found: Arc::clone(&self.found),
            routing: Arc::clone(&self.routing),
            capacity: Arc::clone(&self.capacity),
            readiness: Arc::clone(&self.readiness),
            readiness_changes: Arc::clone(&self.readiness_changes),
            running: Arc::clone(&self.running),
        }
    }
}

impl Agent {
    fn view(&self) -> AgentView {
        // A session that began when another ended has taken it over.
        let connected_since = self
            .connected_at
            .filter(|&connected| self.disconnected_at.is_none_or(|ended| ended <= connected));
        AgentView {
            region: self.region.clone(),
            connected_since,
            last_report_at: self.last_report_at,
            boot_epoch: self.boot_epoch,
            addresses: self.addresses.clone(),
            build: self.build.clone(),
            vote: self.vote,
        }
    }
}
