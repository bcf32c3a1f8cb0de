//! What happened in a run, as people read it, and whether it was what the scenario expects.

use std::{collections::BTreeMap, fmt, time::Duration};

use leeward_common::{id::RegionId, time::Timestamp};

use super::START;
use crate::{
    Engine,
    decision::Decision,
    effect::Effect,
    input::Input,
    scenario::{Expectation, Scenario, Verdict, judge},
    view::RegionState,
};

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

/// The engine, and what is written down of it.
pub(super) struct Story<'a> {
    scenario: &'a Scenario,
    engine: Engine,
    lines: Vec<Line>,
    decisions: Vec<Decision>,
    told: usize,
    states: BTreeMap<RegionId, RegionState>,
}

impl<'a> Story<'a> {
    pub(super) fn new(scenario: &'a Scenario) -> Self {
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

    pub(super) fn step(&mut self, now: Timestamp, input: &Input) {
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
    pub(super) fn tell_events(&mut self, now: Timestamp) {
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

    pub(super) fn finish(self) -> Transcript {
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
