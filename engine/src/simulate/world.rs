//! The scenario's agents: what they measure, and when the engine is told of it.

use std::{collections::BTreeMap, time::Duration};

use leeward_common::{
    bgp::Routing,
    finding::Finding,
    id::{AgentId, RegionId, TargetId},
    report::{LocalHealth, Path, Window},
    time::Timestamp,
};

use super::{
    REPORT_DELAY, START,
    checks::Asking,
    path::{Timeline, VirtualPath},
    routers::Routers,
};
use crate::{
    input::{AgentConnected, CheckResults, Findings, Input, Reports, Signal},
    scenario::{Action, Network, Scenario, SignalAction},
};

/// An agent that is cut off for this long has lost its session.
const SESSION_TIMEOUT: Duration = Duration::from_secs(10);

/// From the end of a cut until the agent has a session again and delivers what it kept.
const RECONNECT: Duration = Duration::from_secs(1);

/// How many windows an agent keeps while it is cut off; the oldest go first.
const KEPT_WINDOWS: usize = 3_600;

/// The scenario's agents and what they send.
pub(super) struct World<'a> {
    scenario: &'a Scenario,
    network: Network,
    timeline: Timeline,
    asking: Asking,
    routers: Routers,
    /// The agents, each with its region.
    ids: BTreeMap<AgentId, RegionId>,
    agents: BTreeMap<AgentId, VirtualAgent>,
    next_event: usize,
    window_end: Timestamp,
    /// What the engine will be told, in order of time and then of having come about.
    inputs: BTreeMap<(Timestamp, u64), Input>,
    order: u64,
}

struct VirtualAgent {
    region: RegionId,
    boot_epoch: u64,
    running: bool,
    /// Since when it does not reach the aggregator.
    cut_since: Option<Timestamp>,
    /// How far its clock is ahead, microseconds.
    ahead_us: i64,
    /// By how much it was set in this window.
    clock_step_us: u64,
    connected: bool,
    paths: Vec<(Path, VirtualPath)>,
    kept: Vec<Reports>,
}

impl<'a> World<'a> {
    pub(super) fn new(scenario: &'a Scenario, asking: Asking) -> Self {
        let ids = scenario.agent_ids();
        let timeline = Timeline::new(scenario);
        let agent = |(id, region): (&AgentId, &RegionId)| {
            let agent = VirtualAgent {
                region: region.clone(),
                boot_epoch: 1,
                running: true,
                cut_since: None,
                ahead_us: 0,
                clock_step_us: 0,
                connected: true,
                paths: paths(scenario, &timeline, &ids, id, region),
                kept: Vec::new(),
            };
            (id.clone(), agent)
        };
        let mut world = Self {
            scenario,
            network: scenario.network(),
            agents: ids.iter().map(agent).collect(),
            timeline,
            asking,
            routers: Routers::new(scenario),
            next_event: 0,
            window_end: START + scenario.policy.probing.window,
            inputs: BTreeMap::new(),
            order: 0,
            ids,
        };
        for id in world.ids.clone().keys() {
            world.tell_connected(START, id);
        }
        world.plan_checks(START);
        for (agent, routing) in world.routers.first() {
            world.tell_routing(START, &agent, routing);
        }
        world
    }

    /// Lets everything happen up to `now`, in order.
    pub(super) fn advance(&mut self, now: Timestamp) {
        loop {
            let event = self.scenario.events.get(self.next_event);
            let event_at = event.map(|event| START + event.at);
            let first = event_at.map_or(self.window_end, |at| at.min(self.window_end));
            match event_at {
                _ if self.asking.next().is_some_and(|at| at <= now && at < first) => self.ask(),
                Some(at) if at <= now && at < self.window_end => {
                    self.next_event += 1;
                    self.happen(at, self.next_event - 1);
                }
                _ if self.window_end <= now => self.close_windows(),
                _ => break,
            }
        }
        self.report_early(now);
        self.check_sessions(now);
    }

    pub(super) fn next_input(&mut self, now: Timestamp) -> Option<(Timestamp, Input)> {
        let first = self.inputs.first_entry()?;
        if first.key().0 > now {
            return None;
        }
        let ((at, _), input) = first.remove_entry();
        Some((at, input))
    }

    fn tell(&mut self, at: Timestamp, input: Input) {
        self.inputs.insert((at, self.order), input);
        self.order += 1;
    }

    fn tell_connected(&mut self, at: Timestamp, id: &AgentId) {
        let Some(agent) = self.agents.get_mut(id) else {
            return;
        };
        agent.connected = true;
        let connected = AgentConnected {
            agent: id.clone(),
            region: agent.region.clone(),
            boot_epoch: agent.boot_epoch,
            addresses: Vec::new(),
            build: "virtual".to_owned(),
        };
        self.tell(at, Input::AgentConnected(connected));
    }

    fn close_windows(&mut self) {
        let length = self.scenario.policy.probing.window;
        let start = self.window_end - length;
        let at = self.window_end;
        self.window_end = at + length;
        let mut arrivals = Vec::new();
        for (id, agent) in &mut self.agents {
            if !agent.running {
                continue;
            }
            let reports = agent.paths.iter_mut().map(|(path, own)| {
                own.advance(&self.timeline, at);
                (path.clone(), own.close(at))
            });
            let (table, rows) = Reports::table_of(reports);
            let reports = Reports {
                agent: id.clone(),
                region: agent.region.clone(),
                window: Window {
                    start: by_clock(start, agent.ahead_us),
                    length,
                },
                until: by_clock(at, agent.ahead_us),
                health: Some(LocalHealth {
                    clock_step_us: u32::try_from(std::mem::take(&mut agent.clock_step_us))
                        .unwrap_or(u32::MAX),
                    ..LocalHealth::default()
                }),
                table,
                rows,
            };
            arrivals.extend(agent.report(reports));
        }
        for reports in arrivals {
            self.tell(at + REPORT_DELAY, Input::Reports(reports));
        }
    }

    /// Tells of paths that fell silent, without waiting for the window's end.
    fn report_early(&mut self, now: Timestamp) {
        let length = self.scenario.policy.probing.window;
        let mut arrivals = Vec::new();
        for (id, agent) in &mut self.agents {
            if !agent.running {
                continue;
            }
            let mut news = Vec::new();
            for (path, own) in &mut agent.paths {
                own.advance(&self.timeline, now);
                news.extend(own.close_early(now).map(|report| (path.clone(), report)));
            }
            if news.is_empty() {
                continue;
            }
            let (table, rows) = Reports::table_of(news);
            let reports = Reports {
                agent: id.clone(),
                region: agent.region.clone(),
                window: Window {
                    start: by_clock(self.window_end - length, agent.ahead_us),
                    length,
                },
                until: by_clock(now, agent.ahead_us),
                health: None,
                table,
                rows,
            };
            arrivals.extend(agent.report(reports));
        }
        for reports in arrivals {
            self.tell(now + REPORT_DELAY, Input::Reports(reports));
        }
    }

    fn happen(&mut self, at: Timestamp, event: usize) {
        let scenario = self.scenario;
        for action in &scenario.events[event].actions {
            self.network.apply(scenario, action);
            match action {
                Action::RegionDown(_)
                | Action::RegionUp(_)
                | Action::UplinkDown(_)
                | Action::UplinkUp(_) => self.cut(at),
                Action::AgentStop(id) => self.stop(at, id),
                Action::AgentStart(id) => self.start(at, id),
                Action::Signal(signal) => {
                    self.tell(at, Input::Signal(signal.at(at)));
                }
                Action::Clock { agent, ahead_us } => {
                    if let Some(agent) = self.agents.get_mut(agent) {
                        agent.clock_step_us += ahead_us.abs_diff(agent.ahead_us);
                        agent.ahead_us = *ahead_us;
                    }
                }
                Action::Routing(routing) => {
                    for (agent, told) in self.routers.happen(at, routing) {
                        self.tell_routing(at, &agent, told);
                    }
                }
                Action::Check(check) => self.asking.on_action(check),
                Action::Intent(intent) => {
                    let change = intent.change(START);
                    self.asking.on_change(&change);
                    self.plan_checks(at);
                    self.tell(at, Input::Change(Box::new(change)));
                }
                // The story does it: the world goes on as if nothing had happened.
                Action::AggregatorRestart => {}
                Action::Set { .. } | Action::Clear { .. } => {}
            }
        }
    }

    /// What an agent hears of routers is told at once; one that does not reach the aggregator tells nothing.
    fn tell_routing(&mut self, at: Timestamp, id: &AgentId, routing: Routing) {
        let Some(agent) = self.agents.get(id).filter(|agent| agent.is_heard()) else {
            return;
        };
        let findings = Findings {
            agent: id.clone(),
            region: agent.region.clone(),
            findings: vec![Finding::Routing(Box::new(routing))],
        };
        self.tell(at + REPORT_DELAY, Input::Findings(findings));
    }

    fn plan_checks(&mut self, now: Timestamp) {
        let agents = self.ids.iter();
        let agents = agents.map(|(agent, region)| (agent.clone(), region.clone()));
        self.asking.plan(now, self.scenario.seed, agents);
    }

    /// Lets the agent ask whose turn it is. One that does not run asks nothing; one that does not reach the aggregator
    /// asks in vain, since only the newest result counts and the next one follows soon.
    fn ask(&mut self) {
        let Some(at) = self.asking.next() else {
            return;
        };
        let Some((id, took, result)) = self.asking.ask(&self.network, &self.ids) else {
            return;
        };
        let Some(agent) = self.agents.get(&id).filter(|agent| agent.is_heard()) else {
            return;
        };
        let results = CheckResults {
            agent: id,
            region: agent.region.clone(),
            results: vec![result],
        };
        self.tell(at + took + REPORT_DELAY, Input::CheckResults(results));
    }

    /// Regions or uplinks were cut off or joined again.
    fn cut(&mut self, at: Timestamp) {
        let mut back = Vec::new();
        for (id, agent) in &mut self.agents {
            let is_cut = !self.network.has_uplink(id, &agent.region);
            match agent.cut_since {
                None if is_cut => agent.cut_since = Some(at),
                Some(_) if !is_cut => {
                    agent.cut_since = None;
                    back.push(id.clone());
                }
                _ => {}
            }
        }
        for id in back {
            self.deliver_kept(at + RECONNECT, &id);
        }
    }

    fn deliver_kept(&mut self, at: Timestamp, id: &AgentId) {
        let Some(agent) = self.agents.get_mut(id) else {
            return;
        };
        if !agent.running {
            return;
        }
        let kept = std::mem::take(&mut agent.kept);
        if !agent.connected {
            self.tell_connected(at, id);
        }
        for reports in kept {
            self.tell(at + REPORT_DELAY, Input::Reports(reports));
        }
    }

    /// Ends the sessions of agents that were cut off for too long.
    fn check_sessions(&mut self, now: Timestamp) {
        let mut ended = Vec::new();
        for (id, agent) in &mut self.agents {
            let Some(since) = agent.cut_since else {
                continue;
            };
            if agent.connected && now.since(since) >= SESSION_TIMEOUT {
                agent.connected = false;
                ended.push((since + SESSION_TIMEOUT, id.clone()));
            }
        }
        for (at, agent) in ended {
            self.tell(at, Input::AgentDisconnected { agent });
        }
    }

    fn stop(&mut self, at: Timestamp, id: &AgentId) {
        let Some(agent) = self.agents.get_mut(id).filter(|agent| agent.running) else {
            return;
        };
        agent.running = false;
        agent.kept.clear();
        if std::mem::take(&mut agent.connected) {
            self.tell(at, Input::AgentDisconnected { agent: id.clone() });
        }
    }

    fn start(&mut self, at: Timestamp, id: &AgentId) {
        let Some(agent) = self.agents.get_mut(id).filter(|agent| !agent.running) else {
            return;
        };
        agent.running = true;
        agent.boot_epoch += 1;
        for (_, path) in &mut agent.paths {
            path.restart(at);
        }
        if agent.cut_since.is_none() {
            self.tell_connected(at, id);
        }
        if self.scenario.feeds.values().any(|feed| feed.agent == *id) {
            let routing = self.routers.restart(at, id);
            self.tell_routing(at, id, routing);
        }
    }
}

impl VirtualAgent {
    /// Whether it runs and reaches the aggregator.
    const fn is_heard(&self) -> bool {
        self.running && self.connected && self.cut_since.is_none()
    }

    /// Gives reports out, or keeps them while there is nobody to give them to.
    fn report(&mut self, reports: Reports) -> Option<Reports> {
        if self.cut_since.is_none() && self.connected {
            return Some(reports);
        }
        self.kept.push(reports);
        if self.kept.len() > KEPT_WINDOWS {
            self.kept.remove(0);
        }
        None
    }
}

/// An agent's paths: every agent of every other region by every kind.
fn paths(
    scenario: &Scenario,
    timeline: &Timeline,
    ids: &BTreeMap<AgentId, RegionId>,
    agent: &AgentId,
    region: &RegionId,
) -> Vec<(Path, VirtualPath)> {
    let policy = &scenario.policy;
    let others = ids.iter().filter(|(_, other)| *other != region);
    let by_kind = |(target, to): (&AgentId, &RegionId)| {
        let there = (agent.clone(), target.clone());
        let back = (target.clone(), agent.clone());
        let roads = [
            timeline.road(&there, &(region.clone(), to.clone())),
            timeline.road(&back, &(to.clone(), region.clone())),
        ];
        let target =
            TargetId::parse(target.as_str()).expect("agent and target ids share their repertoire");
        let to = to.clone();
        policy.probing.kinds.iter().map(move |&kind| {
            let path = Path {
                target: target.clone(),
                kind,
                region: Some(to.clone()),
            };
            let seed = format!("{agent}/{}/{kind}", path.target);
            let own = VirtualPath::new(scenario.seed, &seed, roads, policy, START);
            (path, own)
        })
    };
    others.flat_map(by_kind).collect()
}

/// What a clock shows that is so far ahead.
fn by_clock(at: Timestamp, ahead_us: i64) -> Timestamp {
    Timestamp::from_unix_us(at.as_unix_us().saturating_add_signed(ahead_us))
}

impl SignalAction {
    /// The signal as injected at a time.
    #[must_use]
    pub fn at(&self, at: Timestamp) -> Signal {
        Signal {
            source: self.source.clone(),
            subject: self.subject.clone(),
            metric: self.metric,
            value: self.value,
            observed_at: at,
            expires_at: at + self.ttl,
            idempotency_key: None,
        }
    }
}
