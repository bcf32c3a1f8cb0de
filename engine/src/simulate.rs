//! A scenario in virtual time: virtual agents probe the scenario's network, their reports go to a real [`Engine`], and
//! what it decides is written down.
//!
//! The engine cannot tell: its inputs are those that real agents would cause. The agents share the schedule, the
//! deadlines and the accounting of real ones, so that an outage is learned of after the same time. What is left out is
//! what a real network adds: the aggregator stands outside all regions, a report takes [`REPORT_DELAY`] to it, and a
//! region that is cut off is cut off from it too. Reports are kept meanwhile and delivered afterwards.

use std::{collections::BTreeMap, fmt, time::Duration};

use leeward_common::{
    id::{AgentId, RegionId, TargetId},
    report::{Path, Window},
    time::Timestamp,
};

use crate::{
    Engine,
    decision::Decision,
    effect::Effect,
    input::{AgentConnected, Input, Reports, Signal},
    scenario::{Action, Expectation, Network, Scenario, SignalAction, Verdict, judge},
    view::RegionState,
};

mod path;

use path::{Timeline, VirtualPath};

/// When every simulation begins: 2026-01-01T00:00:00Z.
pub const START: Timestamp = Timestamp::from_unix_us(1_767_225_600_000_000);

/// From the end of a window until the engine is told of it: closing, sending, storing.
pub const REPORT_DELAY: Duration = Duration::from_millis(25);

/// An agent that is cut off for this long has lost its session.
const SESSION_TIMEOUT: Duration = Duration::from_secs(10);

/// From the end of a cut until the agent has a session again and delivers what it kept.
const RECONNECT: Duration = Duration::from_secs(1);

/// How many windows an agent keeps while it is cut off; the oldest go first.
const KEPT_WINDOWS: usize = 3_600;

/// What happened, and whether it was what the scenario expects.
#[derive(Clone, Debug, PartialEq)]
pub struct Transcript {
    /// The scenario's name.
    pub name: String,
    /// The story, in order.
    pub lines: Vec<Line>,
    /// Every decision.
    pub decisions: Vec<Decision>,
    /// Every expectation and how it came out.
    pub verdicts: Vec<(Expectation, Verdict)>,
}

/// One line of the story.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Line {
    /// When, from the start.
    pub at: Duration,
    /// What kind of thing it is.
    pub kind: LineKind,
    /// The thing, in words.
    pub text: String,
}

/// What a line tells of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LineKind {
    /// Something that the scenario does.
    Event,
    /// A region's state changed.
    Region,
    /// Something was decided.
    Decision,
}

impl LineKind {
    const fn word(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Region => "region",
            Self::Decision => "decision",
        }
    }
}

impl Transcript {
    /// Whether every expectation was met.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.verdicts
            .iter()
            .all(|(_, verdict)| matches!(verdict, Verdict::Met { .. }))
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.at.as_secs_f64();
        write!(f, "{at:9.3} s  {:<8}  {}", self.kind.word(), self.text)
    }
}

impl fmt::Display for Transcript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.name)?;
        for line in &self.lines {
            writeln!(f, "{line}")?;
        }
        for (expectation, verdict) in &self.verdicts {
            writeln!(f, "{}", describe(expectation, verdict))?;
        }
        Ok(())
    }
}

/// An expectation and how it came out, in one line.
#[must_use]
pub fn describe(expectation: &Expectation, verdict: &Verdict) -> String {
    let Expectation {
        since,
        by,
        until,
        primary,
        selected,
    } = expectation;
    let name = |region: &Option<RegionId>| {
        region
            .as_ref()
            .map_or_else(|| "none".to_owned(), ToString::to_string)
    };
    let mut wanted = format!(
        "{primary} fails over to {} by {:.1} s",
        name(selected),
        by.as_secs_f64()
    );
    if until > by {
        wanted = format!("{wanted} until {:.1} s", until.as_secs_f64());
    }
    match verdict {
        Verdict::Met { at } => format!(
            "met     {wanted}: from {:.2} s on, {:.2} s after {:.1} s",
            at.as_secs_f64(),
            at.saturating_sub(*since).as_secs_f64(),
            since.as_secs_f64()
        ),
        Verdict::Missed { instead } => format!("MISSED  {wanted}: {} instead", name(instead)),
        Verdict::Lost { at, to } => {
            format!(
                "LOST    {wanted}: {} from {:.2} s on",
                name(to),
                at.as_secs_f64()
            )
        }
    }
}

/// Runs a scenario from its start to its end. The same scenario gives the same transcript.
#[must_use]
pub fn run(scenario: &Scenario) -> Transcript {
    let mut inputs = Vec::new();
    run_with(scenario, |at, input| inputs.push((at, input.clone())))
}

/// As [`run`], and shows every input that the engine is told, ticks included, with its stamp.
pub fn run_with(scenario: &Scenario, mut watch: impl FnMut(Timestamp, &Input)) -> Transcript {
    let mut world = World::new(scenario);
    let mut story = Story::new(scenario);
    let every = scenario.policy.evaluate_every;
    let end = START + scenario.duration;
    let mut tick = START;
    while tick <= end {
        world.advance(tick);
        while let Some((at, input)) = world.next_input(tick) {
            watch(at, &input);
            story.step(at, &input);
        }
        watch(tick, &Input::Tick);
        story.step(tick, &Input::Tick);
        story.tell_events(tick);
        tick = tick + every;
    }
    story.finish()
}

/// The engine, and what is written down of it.
struct Story<'a> {
    scenario: &'a Scenario,
    engine: Engine,
    lines: Vec<Line>,
    decisions: Vec<Decision>,
    told: usize,
    states: BTreeMap<RegionId, RegionState>,
}

impl<'a> Story<'a> {
    fn new(scenario: &'a Scenario) -> Self {
        let unknown = |region: &RegionId| (region.clone(), RegionState::Unknown);
        Self {
            scenario,
            engine: Engine::new(scenario.policy.clone()),
            lines: Vec::new(),
            decisions: Vec::new(),
            told: 0,
            states: scenario.policy.regions.keys().map(unknown).collect(),
        }
    }

    fn step(&mut self, now: Timestamp, input: &Input) {
        let effects = self.engine.step(now, input);
        self.tell_regions();
        for Effect::Decided(decision) in effects {
            let text = format!("{} [{}]", decision.summary, decision.reason.code());
            self.tell(decision.at, LineKind::Decision, text);
            self.decisions.push(*decision);
        }
    }

    fn tell(&mut self, at: Timestamp, kind: LineKind, text: String) {
        self.lines.push(Line {
            at: at.since(START),
            kind,
            text,
        });
    }

    fn tell_regions(&mut self) {
        let view = self.engine.view();
        for (id, region) in view.regions.iter() {
            let before = self.states.insert(id.clone(), region.state);
            let first = before == Some(RegionState::Unknown) && region.state == RegionState::Up;
            if before == Some(region.state) || (first && self.decisions.is_empty()) {
                continue;
            }
            let state = match region.state {
                RegionState::Up => "up",
                RegionState::Down => "down",
                RegionState::Unknown => "unknown",
            };
            let text = format!("{id} is {state}: {}", region.detail);
            self.tell(region.since, LineKind::Region, text);
        }
    }

    /// Events are told once the evaluation of their own instant is: it could not know of them.
    fn tell_events(&mut self, now: Timestamp) {
        while let Some(event) = self.scenario.events.get(self.told) {
            if START + event.at > now {
                break;
            }
            self.told += 1;
            let text = match &event.say {
                Some(say) => say.clone(),
                None => event
                    .actions
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join("; "),
            };
            self.tell(START + event.at, LineKind::Event, text);
        }
    }

    fn finish(self) -> Transcript {
        let verdicts = self.scenario.expectations.iter().map(|expectation| {
            let mine = self
                .decisions
                .iter()
                .filter(|own| own.primary == expectation.primary);
            let selections: Vec<_> = mine
                .map(|decision| (decision.at.since(START), decision.to.clone()))
                .collect();
            (expectation.clone(), judge(expectation, &selections))
        });
        let mut lines = self.lines.clone();
        lines.sort_by_key(|line| line.at);
        Transcript {
            name: self.scenario.name.clone(),
            verdicts: verdicts.collect(),
            lines,
            decisions: self.decisions,
        }
    }
}

/// The scenario's agents and what they send.
struct World<'a> {
    scenario: &'a Scenario,
    network: Network,
    timeline: Timeline,
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
    /// Since when its region is cut off.
    cut_since: Option<Timestamp>,
    connected: bool,
    paths: Vec<(Path, VirtualPath)>,
    kept: Vec<Reports>,
}

impl<'a> World<'a> {
    fn new(scenario: &'a Scenario) -> Self {
        let ids = scenario.agent_ids();
        let agent = |(id, region): (&AgentId, &RegionId)| {
            let agent = VirtualAgent {
                region: region.clone(),
                boot_epoch: 1,
                running: true,
                cut_since: None,
                connected: true,
                paths: paths(scenario, &ids, id, region),
                kept: Vec::new(),
            };
            (id.clone(), agent)
        };
        let mut world = Self {
            scenario,
            network: scenario.network(),
            timeline: Timeline::new(scenario),
            agents: ids.iter().map(agent).collect(),
            next_event: 0,
            window_end: START + scenario.policy.probing.window,
            inputs: BTreeMap::new(),
            order: 0,
        };
        for id in ids.keys() {
            world.tell_connected(START, id);
        }
        world
    }

    /// Lets everything happen up to `now`, in order.
    fn advance(&mut self, now: Timestamp) {
        loop {
            let event = self.scenario.events.get(self.next_event);
            let event_at = event.map(|event| START + event.at);
            match event_at {
                Some(at) if at <= now && at < self.window_end => {
                    self.next_event += 1;
                    self.happen(at, self.next_event - 1);
                }
                _ if self.window_end <= now => self.close_windows(),
                _ => break,
            }
        }
        self.check_sessions(now);
    }

    fn next_input(&mut self, now: Timestamp) -> Option<(Timestamp, Input)> {
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
        let window = Window {
            start: self.window_end - length,
            length,
        };
        let at = self.window_end;
        self.window_end = at + length;
        let mut arrivals = Vec::new();
        for (id, agent) in &mut self.agents {
            if !agent.running {
                continue;
            }
            let reports = agent.paths.iter_mut().map(|(path, own)| {
                own.advance(&self.timeline, at);
                (path.clone(), own.close())
            });
            let reports = Reports {
                agent: id.clone(),
                region: agent.region.clone(),
                window,
                reports: reports.collect(),
            };
            if agent.cut_since.is_none() && agent.connected {
                arrivals.push(reports);
                continue;
            }
            agent.kept.push(reports);
            if agent.kept.len() > KEPT_WINDOWS {
                agent.kept.remove(0);
            }
        }
        for reports in arrivals {
            self.tell(at + REPORT_DELAY, Input::Reports(reports));
        }
    }

    fn happen(&mut self, at: Timestamp, event: usize) {
        let scenario = self.scenario;
        for action in &scenario.events[event].actions {
            self.network.apply(scenario, action);
            match action {
                Action::RegionDown(_) | Action::RegionUp(_) => self.cut(at),
                Action::AgentStop(id) => self.stop(at, id),
                Action::AgentStart(id) => self.start(at, id),
                Action::Signal(signal) => {
                    self.tell(at, Input::Signal(signal.at(at)));
                }
                Action::Set { .. } | Action::Clear { .. } => {}
            }
        }
    }

    /// Regions were cut off or joined again.
    fn cut(&mut self, at: Timestamp) {
        let mut back = Vec::new();
        for (id, agent) in &mut self.agents {
            let is_cut = self.network.cut.contains(&agent.region);
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
    }
}

/// An agent's paths: every agent of every other region by every kind.
fn paths(
    scenario: &Scenario,
    ids: &BTreeMap<AgentId, RegionId>,
    agent: &AgentId,
    region: &RegionId,
) -> Vec<(Path, VirtualPath)> {
    let probing = &scenario.policy.probing;
    let others = ids.iter().filter(|(_, other)| *other != region);
    let by_kind = |(target, to): (&AgentId, &RegionId)| {
        let target =
            TargetId::parse(target.as_str()).expect("agent and target ids share their repertoire");
        let to = to.clone();
        probing.kinds.iter().map(move |&kind| {
            let path = Path {
                target: target.clone(),
                kind,
                region: Some(to.clone()),
            };
            let seed = format!("{agent}/{}/{kind}", path.target);
            let own = VirtualPath::new(scenario.seed, &seed, region, &to, probing, START);
            (path, own)
        })
    };
    others.flat_map(by_kind).collect()
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
