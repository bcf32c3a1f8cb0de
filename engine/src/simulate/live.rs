//! What would happen from here on: the live state goes on in virtual time, in isolation.
//!
//! An engine as it is now is handed over by value. Virtual agents take the place of those that are heard of now, on a
//! network whose links are what the engine's own estimates say: half of the median round trip each way, a share of loss
//! each way that makes the loss of the round trip, and a jitter that makes the spread. Then events change that network, and
//! what the engine decides is written down. Regions and agents that are silent now stay silent,
//! and who asks a service for an answer goes on to hear what it heard last.
//!
//! The virtual world lives at [`START`] as every simulation does; what it tells is moved to the engine's time and given the
//! names of the live agents. A live agent's reports say how late they usually come, by its own clock; so do the virtual
//! ones, or they would seem to be old.

use std::{collections::BTreeMap, ops::ControlFlow, time::Duration};

use leeward_common::{
    id::{AgentId, RegionId},
    ratio::Ratio,
    report::Window,
    time::Timestamp,
};

use super::{Line, LineKind, REPORT_DELAY, START, checks::Asking, world::World};
use crate::{
    Engine,
    decision::Decision,
    effect::Effect,
    input::{Input, Reports, Signal},
    intent::Change,
    scenario::{Event, LinkState, Scenario},
    view::{Estimates, Link, Pair, RegionState, View, Vote},
};

/// How long the names of regions may be, so that virtual agents can be numbered.
pub const MAX_REGION: usize = leeward_common::id::MAX_LENGTH - 3;

/// What to try on the live state.
#[derive(Clone, Debug)]
pub struct WhatIf {
    /// Seed of everything random.
    pub seed: u64,
    /// For how long.
    pub duration: Duration,
    /// What happens to the network and to agents, in order.
    pub events: Vec<Event>,
    /// What people change, in order.
    pub changes: Vec<(Duration, Change)>,
}

/// What would happen.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The story, in order.
    pub lines: Vec<Line>,
    /// Every decision, stamped by the engine's time.
    pub decisions: Vec<Decision>,
    /// What the engine knew before.
    pub before: View,
    /// What it knew at the end.
    pub after: View,
    /// How much of the time was simulated.
    pub simulated: Duration,
}

/// Lets time go on. `ask` is asked at every instant whether to go on, given how much was simulated and how many decisions
/// there are.
#[must_use]
pub fn run(
    engine: Engine,
    what_if: &WhatIf,
    ask: &mut dyn FnMut(Duration, usize) -> ControlFlow<()>,
) -> Outcome {
    let before = engine.view();
    let scenario = scenario(&before, what_if);
    let mut run = Run {
        start: before.now,
        names: names(&before),
        lags: before
            .agents
            .keys()
            .map(|id| (id.clone(), engine.lag_us(id)))
            .collect(),
        engine,
        lines: Vec::new(),
        decisions: Vec::new(),
        states: states(&before),
    };
    let mut world = World::new(&scenario, Asking::live(&before));
    let (mut events, mut changes) = (
        what_if.events.iter().peekable(),
        what_if.changes.iter().peekable(),
    );
    let every = before.policy.evaluate_every;
    let mut simulated = Duration::ZERO;
    while simulated < what_if.duration && ask(simulated, run.decisions.len()).is_continue() {
        simulated = (simulated + every).min(what_if.duration);
        let tick = START + simulated;
        world.advance(tick);
        while let Some((_, change)) = changes.next_if(|(at, _)| *at <= simulated) {
            run.step(simulated, &Input::Change(Box::new(change.clone())));
        }
        while let Some((at, input)) = world.next_input(tick) {
            if let Some(input) = run.moved(input) {
                run.step(at.since(START), &input);
            }
        }
        run.step(simulated, &Input::Tick);
        while let Some(event) = events.next_if(|event| event.at <= simulated) {
            if let Some(text) = event.told() {
                run.tell(event.at, LineKind::Event, text);
            }
        }
    }
    run.lines.sort_by_key(|line| line.at);
    Outcome {
        lines: run.lines,
        decisions: run.decisions,
        before,
        after: run.engine.view(),
        simulated,
    }
}

/// Every directed link between two regions as the estimates say; one that nobody knows lets nothing through.
#[must_use]
pub fn links(view: &View) -> BTreeMap<Link, LinkState> {
    let regions = || view.policy.regions.keys();
    let link = |from: &RegionId, to: &RegionId| {
        let pair = view.pairs.get(&Pair::new(from, to));
        let state = pair.map(|pair| {
            let lost = pair.is_lost(view.now, &view.policy);
            state(&pair.estimates, lost)
        });
        ((from.clone(), to.clone()), state.unwrap_or(NOTHING))
    };
    let from = |from| {
        regions()
            .filter(move |to| *to != from)
            .map(move |to| link(from, to))
    };
    regions().flat_map(from).collect()
}

const NOTHING: LinkState = LinkState {
    delay: Duration::ZERO,
    jitter: Duration::ZERO,
    loss: Ratio::ONE,
    rate_bps: None,
    reorder: Ratio::ZERO,
    duplicate: Ratio::ZERO,
};

/// One direction of a round trip.
fn state(estimates: &Estimates, lost: bool) -> LinkState {
    let Some(rtt) = estimates.rtt_p50_us.filter(|_| !lost) else {
        return NOTHING;
    };
    let us = |us: f64| Duration::from_micros(us.max(0.0) as u64);
    let delay = us(rtt.value / 2.0);
    // The sum of two uniform spreads of `j` either way is 4 j wide.
    let jitter = us(estimates.jitter_us.map_or(0.0, |jitter| jitter.value) / 4.0);
    let lost = estimates
        .loss
        .map_or(0.0, |loss| loss.value.clamp(0.0, 1.0));
    LinkState {
        delay,
        jitter: jitter.min(delay),
        loss: Ratio::new(1.0 - (1.0 - lost).sqrt()).unwrap_or_default(),
        ..LinkState::default()
    }
}

fn scenario(view: &View, what_if: &WhatIf) -> Scenario {
    let mut agents: BTreeMap<RegionId, u32> = view
        .policy
        .regions
        .keys()
        .map(|id| (id.clone(), 0))
        .collect();
    for region in names(view).into_values().map(|(_, region)| region) {
        *agents.entry(region).or_default() += 1;
    }
    Scenario {
        name: "from the live state".to_owned(),
        description: String::new(),
        seed: what_if.seed,
        duration: what_if.duration,
        policy: (*view.policy).clone(),
        agents,
        links: links(view),
        feeds: BTreeMap::new(),
        prefixes: BTreeMap::new(),
        events: what_if.events.clone(),
        expectations: Vec::new(),
    }
}

/// The live agents that are heard of, by the names of the virtual ones that take their place.
fn names(view: &View) -> BTreeMap<AgentId, (AgentId, RegionId)> {
    let mut counts: BTreeMap<&RegionId, u32> = BTreeMap::new();
    let mut names = BTreeMap::new();
    for (id, agent) in view.agents.iter() {
        let known = view.policy.regions.contains_key(&agent.region);
        if agent.vote == Vote::Silent || !known || agent.region.as_str().len() > MAX_REGION {
            continue;
        }
        let count = counts.entry(&agent.region).or_default();
        *count += 1;
        if let Ok(name) = AgentId::parse(&format!("{}-{count}", agent.region)) {
            names.insert(name, (id.clone(), agent.region.clone()));
        }
    }
    names
}

/// The name in a simulation of a live agent; `None` if it is not heard of.
#[must_use]
pub fn virtual_name(view: &View, agent: &AgentId) -> Option<AgentId> {
    let names = names(view).into_iter();
    let mut named = names.filter(|(_, (live, _))| live == agent);
    named.next().map(|(name, _)| name)
}

fn states(view: &View) -> BTreeMap<RegionId, RegionState> {
    let states = view.regions.iter();
    states
        .map(|(id, region)| (id.clone(), region.state))
        .collect()
}

struct Run {
    start: Timestamp,
    engine: Engine,
    names: BTreeMap<AgentId, (AgentId, RegionId)>,
    /// By how much each live agent's reports usually come after their window's end by its own clock.
    lags: BTreeMap<AgentId, i64>,
    lines: Vec<Line>,
    decisions: Vec<Decision>,
    states: BTreeMap<RegionId, RegionState>,
}

impl Run {
    fn step(&mut self, at: Duration, input: &Input) {
        let effects = self.engine.step(self.start + at, input);
        for decision in effects.into_iter().filter_map(Effect::decision) {
            let text = format!("{} [{}]", decision.summary, decision.reason.code());
            self.tell(decision.at.since(self.start), LineKind::Decision, text);
            self.decisions.push(decision);
        }
        if matches!(input, Input::Tick) {
            self.tell_regions();
        }
    }

    fn tell(&mut self, at: Duration, kind: LineKind, text: String) {
        self.lines.push(Line { at, kind, text });
    }

    fn tell_regions(&mut self) {
        let view = self.engine.view();
        for (id, region) in view.regions.iter() {
            let before = self.states.insert(id.clone(), region.state);
            if before != Some(region.state) {
                let state = match region.state {
                    RegionState::Up => "up",
                    RegionState::Down => "down",
                    RegionState::Unknown => "unknown",
                };
                let text = format!("{id} is {state}: {}", region.detail);
                self.tell(region.since.since(self.start), LineKind::Region, text);
            }
        }
    }

    /// What the virtual world tells, in the engine's time and with the live agents' names; `None` if the engine knows it.
    fn moved(&self, input: Input) -> Option<Input> {
        let live = |agent: &AgentId| self.names.get(agent).map(|(id, _)| id.clone());
        Some(match input {
            Input::Reports(reports) => {
                let agent = live(&reports.agent)?;
                let lag_us = self.lags.get(&agent).copied().unwrap_or(0);
                let window = self.window(reports.window, lag_us);
                Input::Reports(Reports {
                    window,
                    until: window.start + reports.until.since(reports.window.start),
                    agent,
                    ..reports
                })
            }
            // At the start everybody has a session already.
            Input::AgentConnected(connected) if connected.boot_epoch <= 1 => return None,
            Input::AgentConnected(mut connected) => {
                connected.agent = live(&connected.agent)?;
                Input::AgentConnected(connected)
            }
            Input::AgentDisconnected { agent } => Input::AgentDisconnected {
                agent: live(&agent)?,
            },
            Input::CheckResults(mut results) => {
                results.agent = live(&results.agent)?;
                Input::CheckResults(results)
            }
            Input::Signal(signal) => Input::Signal(Signal {
                observed_at: self.start + signal.observed_at.since(START),
                expires_at: self.start + signal.expires_at.since(START),
                ..signal
            }),
            input => input,
        })
    }

    /// The window as the live agent's clock would label it, so that its reports come as late as they usually do.
    fn window(&self, window: Window, lag_us: i64) -> Window {
        let arrives = self.start + window.end().since(START) + REPORT_DELAY;
        let end = match u64::try_from(lag_us) {
            Ok(lag_us) => arrives - Duration::from_micros(lag_us),
            Err(_) => arrives + Duration::from_micros(lag_us.unsigned_abs()),
        };
        Window {
            start: end - window.length,
            length: window.length,
        }
    }
}
