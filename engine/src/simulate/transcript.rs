//! What happened in a run, as people read it, and whether it was what the scenario expects.

use std::{fmt, time::Duration};

use leeward_common::time::Timestamp;

use super::START;
use crate::{
    Engine,
    decision::Decision,
    effect::Effect,
    input::Input,
    scenario::{
        Action, Expectation, Expected, Moved, Record, Scenario, Verdict, judge, state_word,
    },
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
        self.verdicts.iter().all(|(_, verdict)| verdict.is_met())
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
    let secs = |at: Duration| at.as_secs_f64();
    match verdict {
        Verdict::Met { .. } if matches!(expectation.what, Expected::Moves { .. }) => {
            format!("met     {expectation}")
        }
        Verdict::Met { at } => {
            let since = expectation.since;
            let after = at.saturating_sub(since);
            format!(
                "met     {expectation}: from {:.2} s on, {:.2} s after {:.1} s",
                secs(*at),
                secs(after),
                secs(since)
            )
        }
        Verdict::Missed { instead } => format!("MISSED  {expectation}: {instead} instead"),
        Verdict::Lost { at, to } => {
            format!("LOST    {expectation}: {to} from {:.2} s on", secs(*at))
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
    record: Record,
}

impl<'a> Story<'a> {
    pub(super) fn new(scenario: &'a Scenario) -> Self {
        Self {
            scenario,
            engine: Engine::new(scenario.policy.clone()),
            lines: Vec::new(),
            decisions: Vec::new(),
            told: 0,
            record: Record::default(),
        }
    }

    pub(super) fn step(&mut self, now: Timestamp, input: &Input) {
        let effects = self.engine.step(now, input);
        self.tell_regions();
        for decision in effects.into_iter().filter_map(Effect::decision) {
            let text = format!("{} [{}]", decision.summary, decision.reason.code());
            self.tell(decision.at, LineKind::Decision, text);
            self.record.moves.push(Moved {
                at: decision.at.since(START),
                owner: decision.owner(),
                to: decision.to.clone(),
                reason: decision.reason.code().to_owned(),
            });
            self.decisions.push(decision);
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
            let states = self.record.states.entry(id.clone()).or_default();
            let before = states.last().map_or(RegionState::Unknown, |own| own.1);
            if before == region.state {
                continue;
            }
            states.push((region.since.since(START), region.state));
            if self.decisions.is_empty() && region.state == RegionState::Up {
                continue;
            }
            let text = format!("{id} is {}: {}", state_word(region.state), region.detail);
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
            if event.actions.contains(&Action::AggregatorRestart) {
                self.restart();
            }
            if let Some(text) = event.told() {
                self.tell(START + event.at, LineKind::Event, text);
            }
        }
    }

    /// The engine's state goes to a snapshot, and another engine goes on from there.
    fn restart(&mut self) {
        let state = self.engine.to_snapshot().clone();
        self.engine = Engine::from_snapshot(state).expect("a snapshot of this very version");
    }

    pub(super) fn finish(self) -> Transcript {
        let expectations = self.scenario.expectations.iter();
        let verdicts = expectations.map(|own| (own.clone(), judge(own, &self.record)));
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
