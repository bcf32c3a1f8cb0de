//! A scenario as written, and its conversion.

use std::{collections::BTreeMap, time::Duration};

use leeward_common::{
    config::{ConfigError, Document, Span, Spanned},
    id::{AgentId, OfferId, OverrideId, RegionId, ServiceId, SourceId},
    ratio::Ratio,
};
use serde::Deserialize;

use super::{Action, Event, Flow, LinkChange, LinkState, Network, Roads, Scenario, SignalAction};
use crate::{
    input::{Metric, Subject},
    policy::{
        FailoverSection, Policy, PolicySection, ProbingSection, RegionSection, Sections,
        SignalSourceSection,
    },
    view::Link,
};

mod expect;
mod intents;
mod routing;

use expect::RawExpect;
use intents::{Named, RawCheck, RawDefined};
use routing::{RawFeed, RawPrefix, RawRouting, Routers};

/// A region may have this many agents: each is a host of the lab.
const MAX_AGENTS: u32 = 16;

/// The longest scenario.
const MAX_DURATION: Duration = Duration::from_secs(366 * 86_400);

/// The steps in which something changes little by little.
const STEP: Duration = Duration::from_millis(500);

/// The longest time over which something may change: so many steps are a file's worth of events.
const MAX_OVER: Duration = Duration::from_secs(3_600);

/// How wrong a clock may be.
const MAX_CLOCK: Duration = Duration::from_secs(366 * 86_400);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawScenario {
    name: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    seed: u64,
    duration: Spanned<Span>,
    #[serde(default)]
    region: Vec<RawRegion>,
    #[serde(default)]
    failover: Vec<FailoverSection>,
    #[serde(default)]
    probing: ProbingSection,
    #[serde(default)]
    policy: PolicySection,
    #[serde(default)]
    signal_source: Vec<SignalSourceSection>,
    #[serde(default)]
    link: Vec<Spanned<RawLink>>,
    #[serde(default)]
    prefix: Vec<RawPrefix>,
    #[serde(default)]
    feed: Vec<RawFeed>,
    #[serde(default)]
    service: Vec<RawDefined>,
    #[serde(default)]
    offer: Vec<RawDefined>,
    #[serde(default, rename = "override")]
    overriding: Vec<RawDefined>,
    #[serde(default)]
    event: Vec<Spanned<RawEvent>>,
    #[serde(default)]
    expect: Vec<Spanned<RawExpect>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRegion {
    id: Spanned<RegionId>,
    latitude: Spanned<f64>,
    longitude: Spanned<f64>,
    capacity: Option<Spanned<f64>>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    risk_groups: Vec<Spanned<String>>,
    agents: Option<Spanned<u32>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLink {
    between: Option<[Spanned<RegionId>; 2]>,
    rtt: Option<Span>,
    from: Option<Spanned<RegionId>>,
    to: Option<Spanned<RegionId>>,
    delay: Option<Span>,
    jitter: Option<Span>,
    loss: Option<Ratio>,
    rate: Option<Rate>,
    reorder: Option<Ratio>,
    duplicate: Option<Ratio>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEvent {
    at: Spanned<Span>,
    #[serde(default)]
    links: Vec<Spanned<String>>,
    set: Option<Spanned<RawChange>>,
    over: Option<Spanned<Span>>,
    #[serde(default)]
    clear: Vec<Spanned<String>>,
    region_down: Option<Spanned<RegionId>>,
    region_up: Option<Spanned<RegionId>>,
    agent_stop: Option<Spanned<AgentId>>,
    agent_start: Option<Spanned<AgentId>>,
    #[serde(default)]
    uplink_down: Vec<Spanned<String>>,
    #[serde(default)]
    uplink_up: Vec<Spanned<String>>,
    clock: Option<Spanned<RawClock>>,
    #[serde(default)]
    aggregator_restart: bool,
    signal: Option<Spanned<RawSignal>>,
    routing: Option<Spanned<RawRouting>>,
    check_fails: Option<Spanned<RawCheck>>,
    check_passes: Option<Spanned<RawCheck>>,
    put_service: Option<RawDefined>,
    remove_service: Option<Spanned<ServiceId>>,
    put_offer: Option<RawDefined>,
    remove_offer: Option<Spanned<OfferId>>,
    put_override: Option<RawDefined>,
    lift_override: Option<Spanned<OverrideId>>,
    say: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawChange {
    delay: Option<Span>,
    jitter: Option<Span>,
    loss: Option<Ratio>,
    rate: Option<Rate>,
    reorder: Option<Ratio>,
    duplicate: Option<Ratio>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSignal {
    source: Spanned<SourceId>,
    region: Option<Spanned<RegionId>>,
    from: Option<Spanned<RegionId>>,
    to: Option<Spanned<RegionId>>,
    service: Option<ServiceId>,
    metric: Metric,
    value: f64,
    ttl: Span,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawClock {
    agent: Spanned<AgentId>,
    ahead: Option<Spanned<Span>>,
    behind: Option<Spanned<Span>>,
}

/// Bits per second with a decimal unit: `"10Mbit"`.
#[derive(Clone, Copy)]
struct Rate(u64);

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_rate(&text).map(Self).ok_or_else(|| {
            let message =
                format!("{text:?} is not a rate; write \"64kbit\", \"10Mbit\" or \"1Gbit\"");
            serde::de::Error::custom(message)
        })
    }
}

fn parse_rate(text: &str) -> Option<u64> {
    let split = text.find(|c: char| !c.is_ascii_digit())?;
    let unit = match &text[split..] {
        "bit" => 1,
        "kbit" => 1_000,
        "Mbit" => 1_000_000,
        "Gbit" => 1_000_000_000,
        _ => return None,
    };
    let rate: u64 = text[..split].parse().ok()?;
    rate.checked_mul(unit).filter(|&rate| rate > 0)
}

/// Reads a scenario.
pub(super) fn read(document: &Document<'_>) -> Result<Scenario, ConfigError> {
    let raw: RawScenario = document.parse()?;
    let duration = raw.duration.get_ref().0;
    if duration.is_zero() || duration > MAX_DURATION {
        let message = "duration must be above zero and at most a year";
        return Err(document.error(raw.duration.span(), message));
    }
    let named = Named::of(&raw);
    let mut agents = BTreeMap::new();
    let mut region = Vec::new();
    for written in raw.region {
        agents.insert(
            written.id.get_ref().clone(),
            agent_count(document, &written)?,
        );
        region.push(written.into_section());
    }
    let sections = Sections {
        region,
        failover: raw.failover,
        probing: raw.probing,
        policy: raw.policy,
        target: Vec::new(),
        signal_source: raw.signal_source,
    };
    let policy = sections.into_policy(document)?;
    let mut scenario = Scenario {
        name: raw.name,
        description: raw.description,
        seed: raw.seed,
        duration,
        policy,
        agents,
        links: BTreeMap::new(),
        feeds: BTreeMap::new(),
        prefixes: BTreeMap::new(),
        events: Vec::new(),
        expectations: Vec::new(),
    };
    let mut reader = Reader {
        document,
        policy: scenario.policy.clone(),
        agents: scenario.agent_ids(),
        duration,
        links: BTreeMap::new(),
        named,
        routers: Routers::default(),
    };
    reader.links(raw.link)?;
    reader.routers = reader.routers(raw.feed, raw.prefix)?;
    (scenario.feeds, scenario.prefixes) = reader.routers.clone();
    scenario.links.clone_from(&reader.links);
    let actions = reader.intents(raw.service, raw.offer, raw.overriding)?;
    let mut events = vec![(quiet(Duration::ZERO, actions), None)];
    for event in raw.event {
        events.push(reader.event(event)?);
    }
    events.retain(|(event, _)| !event.quiet || !event.actions.is_empty());
    events.sort_by_key(|(event, _)| event.at);
    scenario.events = spread(&scenario, events);
    for expect in raw.expect {
        let expectation = reader.expectation(&expect, &scenario.events)?;
        scenario.expectations.push(expectation);
    }
    Ok(scenario)
}

fn quiet(at: Duration, actions: Vec<Action>) -> Event {
    Event {
        at,
        actions,
        say: None,
        quiet: true,
    }
}

/// Something that changes little by little.
struct Ramp {
    roads: Roads,
    change: LinkChange,
    over: Duration,
}

/// The events, with those whose change comes little by little spread over their steps.
fn spread(scenario: &Scenario, events: Vec<(Event, Option<Ramp>)>) -> Vec<Event> {
    let mut network = scenario.network();
    let mut all = Vec::new();
    for (event, ramp) in events {
        event
            .actions
            .iter()
            .for_each(|action| network.apply(scenario, action));
        if let Some(ramp) = ramp {
            all.extend(ramp.steps(scenario, &network, event.at));
            let Ramp { roads, change, .. } = ramp;
            network.apply(scenario, &Action::Set { roads, change });
        }
        all.push(event);
    }
    all.sort_by_key(|event| event.at);
    all
}

impl Ramp {
    fn steps<'a>(
        &'a self,
        scenario: &'a Scenario,
        network: &'a Network,
        at: Duration,
    ) -> impl Iterator<Item = Event> + 'a {
        let steps = self.over.as_micros().div_ceil(STEP.as_micros()).max(1) as u32;
        let agents = scenario.agent_ids();
        (1..=steps).map(move |n| {
            let set = |roads: Roads, state: &LinkState| Action::Set {
                roads,
                change: self.change.part(state, f64::from(n) / f64::from(steps)),
            };
            let links = self.roads.links.iter().map(|link| {
                let roads = Roads {
                    links: vec![link.clone()],
                    flows: Vec::new(),
                };
                set(roads, &network.links[link])
            });
            let flows = self.roads.flows.iter().map(|flow| {
                let roads = Roads {
                    links: Vec::new(),
                    flows: vec![flow.clone()],
                };
                let (from, to) = (&agents[&flow.0], &agents[&flow.1]);
                set(roads, &network.effective_flow(flow, from, to))
            });
            let at = (at + self.over / steps * n).min(scenario.duration);
            quiet(at, links.chain(flows).collect())
        })
    }
}

fn agent_count(document: &Document<'_>, region: &RawRegion) -> Result<u32, ConfigError> {
    let id = &region.id;
    if id.get_ref().as_str().len() > leeward_common::id::MAX_LENGTH - 3 {
        let message =
            "a scenario's region id has at most 60 letters, so that its agents can be numbered";
        return Err(document.error(id.span(), message));
    }
    let Some(agents) = &region.agents else {
        return Ok(1);
    };
    let count = *agents.get_ref();
    if (1..=MAX_AGENTS).contains(&count) {
        return Ok(count);
    }
    let message = format!("agents is {count}; write 1 to {MAX_AGENTS}");
    Err(document.error(agents.span(), message))
}

impl RawRegion {
    fn into_section(self) -> RegionSection {
        RegionSection {
            id: self.id,
            latitude: self.latitude,
            longitude: self.longitude,
            capacity: self.capacity,
            labels: self.labels,
            risk_groups: self.risk_groups,
            // A scenario says so by [[prefix]], which events refer to.
            prefixes: Vec::new(),
            origins: None,
        }
    }
}

impl RawLink {
    fn state(&self, delay: Duration) -> LinkState {
        LinkState {
            delay,
            jitter: self.jitter.map_or(Duration::ZERO, |span| span.0),
            loss: self.loss.unwrap_or_default(),
            rate_bps: self.rate.map(|rate| rate.0),
            reorder: self.reorder.unwrap_or_default(),
            duplicate: self.duplicate.unwrap_or_default(),
        }
    }
}

impl RawChange {
    fn change(&self) -> LinkChange {
        LinkChange {
            delay: self.delay.map(|span| span.0),
            jitter: self.jitter.map(|span| span.0),
            loss: self.loss,
            rate_bps: self.rate.map(|rate| rate.0),
            reorder: self.reorder,
            duplicate: self.duplicate,
        }
    }
}

struct Reader<'a> {
    document: &'a Document<'a>,
    policy: Policy,
    agents: BTreeMap<AgentId, RegionId>,
    duration: Duration,
    links: BTreeMap<Link, LinkState>,
    named: Named,
    routers: Routers,
}

impl Reader<'_> {
    fn links(&mut self, written: Vec<Spanned<RawLink>>) -> Result<(), ConfigError> {
        for link in written {
            let span = link.span();
            let link = link.into_inner();
            for (ends, delay) in self.directions(&link, span.clone())? {
                if ends.0 == ends.1 {
                    let message = "a link joins two different regions";
                    return Err(self.document.error(span, message));
                }
                if self.links.insert(ends.clone(), link.state(delay)).is_some() {
                    let message = format!("link {}->{} is defined twice", ends.0, ends.1);
                    return Err(self.document.error(span, message));
                }
            }
        }
        self.complete()
    }

    fn directions(
        &self,
        link: &RawLink,
        span: std::ops::Range<usize>,
    ) -> Result<Vec<(Link, Duration)>, ConfigError> {
        match (&link.between, &link.rtt, &link.from, &link.to, &link.delay) {
            (Some([a, b]), Some(rtt), None, None, None) => {
                let (a, b) = (self.region(a)?, self.region(b)?);
                let half = rtt.0 / 2;
                Ok(vec![((a.clone(), b.clone()), half), ((b, a), half)])
            }
            (None, None, Some(from), Some(to), Some(delay)) => {
                Ok(vec![((self.region(from)?, self.region(to)?), delay.0)])
            }
            _ => {
                let message =
                    "a link is either between = [a, b] with rtt, or from and to with delay";
                Err(self.document.error(span, message))
            }
        }
    }

    /// Every pair of regions must have its links: a forgotten one would be a world that nobody meant.
    fn complete(&self) -> Result<(), ConfigError> {
        for from in self.policy.regions.keys() {
            for to in self.policy.regions.keys() {
                if from != to && !self.links.contains_key(&(from.clone(), to.clone())) {
                    let message = format!("no [[link]] from {from} to {to}");
                    return Err(self.document.error(0..0, message));
                }
            }
        }
        Ok(())
    }

    /// An event, and what of it comes little by little.
    fn event(&self, written: Spanned<RawEvent>) -> Result<(Event, Option<Ramp>), ConfigError> {
        let span = written.span();
        let mut raw = written.into_inner();
        let mut actions = Vec::new();
        let mut ramp = None;
        match (&raw.set, raw.links.is_empty(), &raw.over) {
            (Some(set), false, None) => actions.push(Action::Set {
                roads: self.roads(&raw.links)?,
                change: set.get_ref().change(),
            }),
            (Some(set), false, Some(over)) => {
                ramp = Some(Ramp {
                    roads: self.roads(&raw.links)?,
                    change: set.get_ref().change(),
                    over: self.span(over, MAX_OVER)?,
                });
            }
            (None, true, None) => {}
            _ => {
                let message =
                    "links and set belong together: links = [\"a->b\"], set = { loss = 0.1 }";
                return Err(self.document.error(span, message));
            }
        }
        if !raw.clear.is_empty() {
            actions.push(Action::Clear {
                roads: self.roads(&raw.clear)?,
            });
        }
        actions.extend(self.faults(&raw)?);
        if let Some(signal) = raw.signal.take() {
            actions.push(Action::Signal(self.signal(signal)?));
        }
        if let Some(routing) = &raw.routing {
            actions.push(self.routing(routing, &self.routers)?);
        }
        actions.extend(self.changes(&mut raw)?);
        if actions.is_empty() && ramp.is_none() && raw.say.is_none() {
            let message =
                "the event does nothing; add set, clear, region_down, agent_stop, signal or say";
            return Err(self.document.error(span, message));
        }
        let slowly = |ramp: &Ramp| {
            let Ramp {
                roads,
                change,
                over,
            } = ramp;
            format!("{} over {over:?} on {roads}", change.words())
        };
        let event = Event {
            at: self.time(&raw.at)?,
            actions,
            say: raw.say.or_else(|| ramp.as_ref().map(slowly)),
            quiet: false,
        };
        Ok((event, ramp))
    }

    /// What befalls regions, agents and the aggregator.
    fn faults(&self, raw: &RawEvent) -> Result<Vec<Action>, ConfigError> {
        let mut actions = Vec::new();
        if let Some(region) = &raw.region_down {
            actions.push(Action::RegionDown(self.region(region)?));
        }
        if let Some(region) = &raw.region_up {
            actions.push(Action::RegionUp(self.region(region)?));
        }
        if let Some(agent) = &raw.agent_stop {
            actions.push(Action::AgentStop(self.agent(agent)?));
        }
        if let Some(agent) = &raw.agent_start {
            actions.push(Action::AgentStart(self.agent(agent)?));
        }
        if !raw.uplink_down.is_empty() {
            actions.push(Action::UplinkDown(self.agents_of(&raw.uplink_down)?));
        }
        if !raw.uplink_up.is_empty() {
            actions.push(Action::UplinkUp(self.agents_of(&raw.uplink_up)?));
        }
        if let Some(clock) = &raw.clock {
            actions.push(self.clock(clock)?);
        }
        if raw.aggregator_restart {
            actions.push(Action::AggregatorRestart);
        }
        Ok(actions)
    }

    fn clock(&self, written: &Spanned<RawClock>) -> Result<Action, ConfigError> {
        let raw = written.get_ref();
        let us = |span: &Spanned<Span>| {
            let span = self.span(span, MAX_CLOCK)?;
            Ok(i64::try_from(span.as_micros()).unwrap_or(i64::MAX))
        };
        let ahead_us = match (&raw.ahead, &raw.behind) {
            (Some(ahead), None) => us(ahead)?,
            (None, Some(behind)) => -us(behind)?,
            _ => {
                let message = "a clock is either ahead or behind: clock = { agent = \"a-1\", ahead = \"1h\" }";
                return Err(self.document.error(written.span(), message));
            }
        };
        Ok(Action::Clock {
            agent: self.agent(&raw.agent)?,
            ahead_us,
        })
    }

    fn signal(&self, written: Spanned<RawSignal>) -> Result<SignalAction, ConfigError> {
        let span = written.span();
        let raw = written.into_inner();
        let subject = match (&raw.region, &raw.from, &raw.to) {
            (Some(region), None, None) => match raw.service.clone() {
                None => Subject::Region(self.region(region)?),
                Some(service) => Subject::Service(service, self.region(region)?),
            },
            (None, Some(from), Some(to)) => Subject::Link(self.region(from)?, self.region(to)?),
            _ => {
                let message = "a signal is about a region, or a link with from and to";
                return Err(self.document.error(span, message));
            }
        };
        if !self
            .policy
            .signal_sources
            .contains_key(raw.source.get_ref())
        {
            let message = format!(
                "signal source {} is not defined; add a [[signal_source]]",
                raw.source.get_ref()
            );
            return Err(self.document.error(raw.source.span(), message));
        }
        Ok(SignalAction {
            source: raw.source.into_inner(),
            subject,
            metric: raw.metric,
            value: raw.value,
            ttl: raw.ttl.0,
        })
    }

    fn time(&self, written: &Spanned<Span>) -> Result<Duration, ConfigError> {
        let time = written.get_ref().0;
        if time <= self.duration {
            return Ok(time);
        }
        let message = format!(
            "{time:?} is after the scenario's end at {:?}",
            self.duration
        );
        Err(self.document.error(written.span(), message))
    }

    fn span(&self, written: &Spanned<Span>, most: Duration) -> Result<Duration, ConfigError> {
        let span = written.get_ref().0;
        if span <= most {
            return Ok(span);
        }
        let message = format!("{span:?} is too long; write at most {most:?}");
        Err(self.document.error(written.span(), message))
    }

    fn region(&self, id: &Spanned<RegionId>) -> Result<RegionId, ConfigError> {
        crate::policy::known_region(self.document, id, self.policy.regions.keys())
    }

    fn agent(&self, id: &Spanned<AgentId>) -> Result<AgentId, ConfigError> {
        if self.agents.contains_key(id.get_ref()) {
            return Ok(id.get_ref().clone());
        }
        let known: Vec<_> = self.agents.keys().map(AgentId::as_str).collect();
        let message = format!(
            "agent {} does not exist; agents are {}",
            id.get_ref(),
            known.join(", ")
        );
        Err(self.document.error(id.span(), message))
    }

    /// The agents that are named, and those of the regions that are.
    fn agents_of(&self, written: &[Spanned<String>]) -> Result<Vec<AgentId>, ConfigError> {
        let mut named = Vec::new();
        for own in written {
            let end = self.end(own.get_ref(), own)?;
            let agents = self.agents.iter();
            let agents = agents.filter(|(agent, region)| end.is(agent, region));
            named.extend(agents.map(|(agent, _)| agent.clone()));
        }
        named.sort_unstable();
        named.dedup();
        Ok(named)
    }

    /// The links that patterns such as `"a->b"`, `"a->*"` or `"*->b"` mean; `"a<->b"` is both ways. With an agent at
    /// an end they mean flows.
    fn roads(&self, patterns: &[Spanned<String>]) -> Result<Roads, ConfigError> {
        let mut roads = Roads::default();
        for pattern in patterns {
            let text = pattern.get_ref();
            let (ends, both_ways) = match text.split_once("<->") {
                Some(ends) => (Some(ends), true),
                None => (text.split_once("->"), false),
            };
            let Some((from, to)) = ends else {
                let message =
                    format!("{text:?} is no link; write \"a->b\", \"a<->b\", \"a->*\" or \"*->b\"");
                return Err(self.document.error(pattern.span(), message));
            };
            let (from, to) = (self.end(from, pattern)?, self.end(to, pattern)?);
            if !matches!(from, End::Agent(_)) && !matches!(to, End::Agent(_)) {
                let means = |(a, b): &&Link| {
                    (from.is_region(a) && to.is_region(b))
                        || (both_ways && from.is_region(b) && to.is_region(a))
                };
                roads.links.extend(self.links.keys().filter(means).cloned());
                continue;
            }
            let means = |a: (&AgentId, &RegionId), b: (&AgentId, &RegionId)| {
                (from.is(a.0, a.1) && to.is(b.0, b.1))
                    || (both_ways && from.is(b.0, b.1) && to.is(a.0, a.1))
            };
            for a in &self.agents {
                let others = self.agents.iter().filter(|b| a.1 != b.1 && means(a, *b));
                let flows = others.map(|b| -> Flow { (a.0.clone(), b.0.clone()) });
                roads.flows.extend(flows);
            }
        }
        roads.links.sort_unstable();
        roads.links.dedup();
        roads.flows.sort_unstable();
        roads.flows.dedup();
        Ok(roads)
    }

    /// A region where there is one of that name, else an agent.
    fn end(&self, text: &str, pattern: &Spanned<String>) -> Result<End, ConfigError> {
        let text = text.trim();
        if text == "*" {
            return Ok(End::Any);
        }
        if let Ok(agent) = AgentId::parse(text)
            && self.agents.contains_key(&agent)
            && !self
                .policy
                .regions
                .keys()
                .any(|region| region.as_str() == text)
        {
            return Ok(End::Agent(agent));
        }
        let id = RegionId::parse(text)
            .map_err(|error| self.document.error(pattern.span(), error.to_string()))?;
        self.region(&Spanned::new(pattern.span(), id))
            .map(End::Region)
    }
}

/// One end of a pattern.
enum End {
    Any,
    Region(RegionId),
    Agent(AgentId),
}

impl End {
    fn is_region(&self, region: &RegionId) -> bool {
        match self {
            Self::Any => true,
            Self::Region(own) => own == region,
            Self::Agent(_) => false,
        }
    }

    fn is(&self, agent: &AgentId, region: &RegionId) -> bool {
        match self {
            Self::Any | Self::Region(_) => self.is_region(region),
            Self::Agent(own) => own == agent,
        }
    }
}
