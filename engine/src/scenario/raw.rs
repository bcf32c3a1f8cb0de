//! A scenario as written, and its conversion.

use std::{collections::BTreeMap, time::Duration};

use leeward_common::{
    config::{ConfigError, Document, Span, Spanned},
    id::{AgentId, RegionId, SourceId},
    ratio::Ratio,
};
use serde::Deserialize;

use super::{Action, Event, Expectation, LinkChange, LinkState, Scenario, SignalAction, agent_id};
use crate::{
    input::{Metric, Subject},
    policy::{
        FailoverSection, Policy, PolicySection, ProbingSection, RegionSection, Sections,
        SignalSourceSection,
    },
    view::Link,
};

/// A region may have this many agents: each is a host of the lab.
const MAX_AGENTS: u32 = 16;

/// The longest scenario.
const MAX_DURATION: Duration = Duration::from_secs(366 * 86_400);

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
    event: Vec<Spanned<RawEvent>>,
    #[serde(default)]
    expect: Vec<RawExpect>,
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
    #[serde(default)]
    clear: Vec<Spanned<String>>,
    region_down: Option<Spanned<RegionId>>,
    region_up: Option<Spanned<RegionId>>,
    agent_stop: Option<Spanned<AgentId>>,
    agent_start: Option<Spanned<AgentId>>,
    signal: Option<Spanned<RawSignal>>,
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
    metric: Metric,
    value: f64,
    ttl: Span,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawExpect {
    primary: Spanned<RegionId>,
    selected: Spanned<RegionId>,
    by: Spanned<Span>,
    since: Option<Spanned<Span>>,
    until: Option<Spanned<Span>>,
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
    let mut reader = Reader {
        document,
        policy,
        agents,
        duration,
        links: BTreeMap::new(),
    };
    reader.links(raw.link)?;
    let mut events = Vec::new();
    for event in raw.event {
        events.push(reader.event(event)?);
    }
    events.sort_by_key(|event| event.at);
    let mut expectations = Vec::new();
    for expect in raw.expect {
        expectations.push(reader.expectation(&expect, &events)?);
    }
    Ok(Scenario {
        name: raw.name,
        description: raw.description,
        seed: raw.seed,
        duration,
        policy: reader.policy,
        agents: reader.agents,
        links: reader.links,
        events,
        expectations,
    })
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
    agents: BTreeMap<RegionId, u32>,
    duration: Duration,
    links: BTreeMap<Link, LinkState>,
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

    fn event(&self, written: Spanned<RawEvent>) -> Result<Event, ConfigError> {
        let span = written.span();
        let raw = written.into_inner();
        let mut actions = Vec::new();
        match (&raw.set, raw.links.is_empty()) {
            (Some(set), false) => actions.push(Action::Set {
                links: self.patterns(&raw.links)?,
                change: set.get_ref().change(),
            }),
            (None, true) => {}
            _ => {
                let message =
                    "links and set belong together: links = [\"a->b\"], set = { loss = 0.1 }";
                return Err(self.document.error(span, message));
            }
        }
        if !raw.clear.is_empty() {
            actions.push(Action::Clear {
                links: self.patterns(&raw.clear)?,
            });
        }
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
        if let Some(signal) = raw.signal {
            actions.push(Action::Signal(self.signal(signal)?));
        }
        if actions.is_empty() && raw.say.is_none() {
            let message =
                "the event does nothing; add set, clear, region_down, agent_stop, signal or say";
            return Err(self.document.error(span, message));
        }
        Ok(Event {
            at: self.time(&raw.at)?,
            actions,
            say: raw.say,
        })
    }

    fn signal(&self, written: Spanned<RawSignal>) -> Result<SignalAction, ConfigError> {
        let span = written.span();
        let raw = written.into_inner();
        let subject = match (&raw.region, &raw.from, &raw.to) {
            (Some(region), None, None) => Subject::Region(self.region(region)?),
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

    fn expectation(&self, raw: &RawExpect, events: &[Event]) -> Result<Expectation, ConfigError> {
        let by = self.time(&raw.by)?;
        let last_event = events
            .iter()
            .rev()
            .map(|event| event.at)
            .find(|&at| at < by);
        let since = match &raw.since {
            Some(since) => self.time(since)?,
            None => last_event.unwrap_or(Duration::ZERO),
        };
        let until = raw
            .until
            .as_ref()
            .map_or(Ok(by), |until| self.time(until))?;
        if since > by || until < by {
            let message = "since, by and until must follow each other";
            return Err(self.document.error(raw.by.span(), message));
        }
        let selected = match raw.selected.get_ref().as_str() {
            "none" => None,
            _ => Some(self.region(&raw.selected)?),
        };
        Ok(Expectation {
            since,
            by,
            until,
            primary: self.region(&raw.primary)?,
            selected,
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

    fn region(&self, id: &Spanned<RegionId>) -> Result<RegionId, ConfigError> {
        crate::policy::known_region(self.document, id, self.policy.regions.keys())
    }

    fn agent(&self, id: &Spanned<AgentId>) -> Result<AgentId, ConfigError> {
        let names: Vec<_> = self
            .agents
            .iter()
            .flat_map(|(region, &count)| (1..=count).map(|n| agent_id(region, n)))
            .collect();
        if names.contains(id.get_ref()) {
            return Ok(id.get_ref().clone());
        }
        let known: Vec<_> = names.iter().map(AgentId::as_str).collect();
        let message = format!(
            "agent {} does not exist; agents are {}",
            id.get_ref(),
            known.join(", ")
        );
        Err(self.document.error(id.span(), message))
    }

    /// The links that patterns such as `"a->b"`, `"a->*"` or `"*->b"` mean; `"a<->b"` is both ways.
    fn patterns(&self, patterns: &[Spanned<String>]) -> Result<Vec<Link>, ConfigError> {
        let mut links = Vec::new();
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
            let means = |(a, b): &&Link| {
                let is =
                    |end: &Option<RegionId>, region| end.as_ref().is_none_or(|end| end == region);
                (is(&from, a) && is(&to, b)) || (both_ways && is(&from, b) && is(&to, a))
            };
            links.extend(self.links.keys().filter(means).cloned());
        }
        links.sort_unstable();
        links.dedup();
        Ok(links)
    }

    fn end(&self, text: &str, pattern: &Spanned<String>) -> Result<Option<RegionId>, ConfigError> {
        let text = text.trim();
        if text == "*" {
            return Ok(None);
        }
        let id = RegionId::parse(text)
            .map_err(|error| self.document.error(pattern.span(), error.to_string()))?;
        self.region(&Spanned::new(pattern.span(), id)).map(Some)
    }
}
