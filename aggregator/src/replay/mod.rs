//! The journal through an engine once more: what was decided then is decided again, or the difference is told.
//!
//! ```text
//!   snapshot ── records ──▶ from ──────────── records ────────────▶ to
//!      engine of then         │ decisions compared, byte for byte
//!                             └ another policy: a second engine goes on from here
//! ```
//!
//! The beginning is the newest snapshot that knows nothing of what was after `from`: one is kept with each anchor, which
//! is each hour and at each start, so a replay of any stretch of the journal is exact and takes an hour more at most. Where
//! no such snapshot can be read (it is of another build) the engine begins at an anchor, knowing only the policy and who
//! was connected; then what it decides while it warms up is not compared.
//!
//! Nothing here touches the turn thread: the store is read beside it, and decisions are compared only up to a moment that
//! the turn has put behind it.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
    time::{Duration, Instant},
};

use leeward_common::time::Timestamp;
use leeward_engine::{
    Engine, decision::Decision, effect::Effect, graph, input::Input, scoreboard::Scoreboard,
};
use sha2::{Digest, Sha256};

use crate::{
    config::PolicyText,
    recover::{Reading, Told, past},
    store::{
        Read, StoreError,
        key::{Column, Position},
        record::v1,
    },
    turn::decision_position,
};

mod beside;
mod difference;
mod moves;
pub mod offline;

pub use beside::{Beside, Taken};
pub use difference::words;
pub use moves::{Moves, Shifted};

/// How often it is told how far a replay is.
const TELL_EVERY: Duration = Duration::from_millis(500);

/// How far before its time an anchor is looked for: one is written each hour.
const ANCHOR_WITHIN: Duration = Duration::from_secs(2 * 3600);

/// What to replay.
#[derive(Clone, Debug)]
pub struct Question {
    /// From when on decisions are compared.
    pub from: Timestamp,
    /// Until when; not after what the turn has put behind it ([`settled`]).
    pub to: Timestamp,
    /// A policy for a second engine, from `from` on.
    pub other: Option<PolicyText>,
}

/// How far a replay is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// The time that it has come to.
    pub at: Timestamp,
    /// Journal records so far.
    pub records: u64,
}

/// What came of a replay.
#[derive(Debug)]
pub struct Answer {
    /// Where the engine began.
    pub begun: Timestamp,
    /// The build that wrote the engine down that it began with; `None` if it began at an anchor.
    pub build: Option<String>,
    /// From when on decisions were compared.
    pub compared_from: Timestamp,
    /// Journal records that the engine was told.
    pub records: u64,
    /// Journal records that could not be read.
    pub skipped: u64,
    /// Decisions stored or replayed in that time.
    pub decisions: u64,
    /// Those that are the same byte for byte.
    pub identical: u64,
    /// When the first was decided that is not, and what differs.
    pub first_difference: Option<(Timestamp, String)>,
    /// What the other policy did.
    pub other: Option<Comparison>,
}

/// Two policies on the same inputs.
#[derive(Debug)]
pub struct Comparison {
    /// The other policy's version.
    pub version: String,
    /// Moves of both.
    pub moves: Moves,
    /// Both by the same yard.
    pub scoreboard: Scoreboard,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The store cannot be read.
    #[error("the journal cannot be read")]
    Store(#[from] StoreError),
    /// The journal does not reach back so far.
    #[error("the journal does not reach back to {from}; it begins at {begins}")]
    TooOld {
        /// What was asked for.
        from: Timestamp,
        /// Where it begins.
        begins: Timestamp,
    },
    /// The journal is empty.
    #[error("the journal is empty")]
    Empty,
    /// Whoever asked left, or the process ends.
    #[error("the replay was given up")]
    GivenUp,
}

/// Until when everything is decided and stored, given the time of the newest view: an evaluation that is still to come may
/// be of an instant that is less than one step before it.
#[must_use]
pub fn settled(view: &leeward_engine::view::View) -> Timestamp {
    view.now - view.policy.evaluate_every
}

/// Replays. `tell` hears now and then how far it is, and may give it up.
///
/// # Errors
///
/// Returns [`ReplayError`] when there is nothing to replay, or it was given up.
pub fn replay(
    store: &dyn Read,
    question: &Question,
    tell: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Answer, ReplayError> {
    let mut run = Run::begin(store, question)?;
    run.stored = stored(store, run.compared_from, question.to)?;
    run.run(store, tell)?;
    run.answer(store)
}

/// The engine as it was at `at`, and its policy: what was told until then and nothing of what came later.
///
/// # Errors
///
/// Returns [`ReplayError`] when the journal does not reach back so far.
pub fn engine_at(store: &dyn Read, at: Timestamp) -> Result<Engine, ReplayError> {
    let question = Question {
        from: at,
        to: at,
        other: None,
    };
    let mut run = Run::begin(store, &question)?;
    run.run(store, &mut |_| ControlFlow::Continue(()))?;
    Ok(run.engine)
}

/// Where decisions are stored in a stretch of time, and the hash of each.
fn stored(
    store: &dyn Read,
    from: Timestamp,
    to: Timestamp,
) -> Result<BTreeMap<Position, [u8; 32]>, StoreError> {
    let mut stored = BTreeMap::new();
    store.scan(
        Column::Decisions,
        &Position::at(from).key(),
        &mut |key, value| match Position::from_key(key) {
            Some(position) if position.time <= to => {
                stored.insert(position, Sha256::digest(value).into());
                ControlFlow::Continue(())
            }
            _ => ControlFlow::Break(()),
        },
    )?;
    Ok(stored)
}

struct Run<'a> {
    question: &'a Question,
    engine: Engine,
    begun: Position,
    build: Option<String>,
    compared_from: Timestamp,
    other: Option<Beside>,
    /// What the other policy decided.
    other_moves: Vec<Decision>,
    /// Where decisions are stored that were not taken again yet, and the hash of each.
    stored: BTreeMap<Position, [u8; 32]>,
    identical: u64,
    /// Decisions that were not stored, or not like this.
    differing: BTreeSet<Position>,
    /// The first of them.
    first: Option<(Position, v1::Decided)>,
    moves: Vec<Decision>,
    records: u64,
    skipped: u64,
}

impl<'a> Run<'a> {
    fn begin(store: &dyn Read, question: &'a Question) -> Result<Self, ReplayError> {
        let run = |engine, begun, build, compared_from| Self {
            question,
            engine,
            begun,
            build,
            compared_from,
            other: None,
            other_moves: Vec::new(),
            stored: BTreeMap::new(),
            identical: 0,
            differing: BTreeSet::new(),
            first: None,
            moves: Vec::new(),
            records: 0,
            skipped: 0,
        };
        if let Some(past) = past(store, Some(question.from))? {
            let (engine, begun, build) = (past.engine, past.at, past.build);
            return Ok(run(engine, begun, Some(build), question.from));
        }
        let (begun, engine) = anchor(store, question.from)?;
        let policy = &engine.view().policy;
        let warm = begun.time + graph::RETENTION + policy.steadiness.hold_max;
        Ok(run(engine, begun, None, question.from.max(warm)))
    }

    fn run(
        &mut self,
        store: &dyn Read,
        tell: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<(), ReplayError> {
        let mut reading = Reading::new(store);
        let mut told_at = Instant::now();
        let (mut ended, mut given_up) = (false, false);
        let begun = self.begun;
        store.scan(Column::Journal, &begun.key(), &mut |key, value| {
            let Some(position) = Position::from_key(key).filter(|position| *position > begun)
            else {
                return ControlFlow::Continue(());
            };
            if position.time > self.question.to {
                // What came next says which was the last instant to be evaluated before it.
                if let Ok(told) = reading.told(value) {
                    ended = true;
                    self.end_before(position.time, told);
                    return ControlFlow::Break(());
                }
            }
            match reading.told(value) {
                Ok(told) => self.apply(position.time, told),
                Err(_) => self.skipped += 1,
            }
            self.records += 1;
            if told_at.elapsed() >= TELL_EVERY {
                told_at = Instant::now();
                let progress = Progress {
                    at: position.time,
                    records: self.records,
                };
                given_up = tell(progress).is_break();
            }
            match given_up {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        })?;
        if given_up {
            return Err(ReplayError::GivenUp);
        }
        if !ended {
            self.pass(self.question.to, &Input::Tick);
        }
        Ok(())
    }

    /// Evaluates up to the input that came first after the end; what it does itself is no longer of interest, so the
    /// engine takes it in only where that is needed to know when it was evaluated.
    fn end_before(&mut self, at: Timestamp, told: Told) {
        let to = self.question.to;
        if self.question.from == to {
            // Only the engine of then is wanted.
            self.pass(to, &Input::Tick);
            return;
        }
        match told {
            Told::Anchor(_) => self.pass(to, &Input::Tick),
            told => self.apply(at, told),
        }
    }

    fn apply(&mut self, at: Timestamp, told: Told) {
        match told {
            // It repeats what is known.
            Told::Anchor(_) => {}
            Told::Policy(policy) => self.pass(at, &Input::Policy(Box::new(policy.policy))),
            Told::Input(input) => self.pass(at, &input),
        }
    }

    fn pass(&mut self, at: Timestamp, input: &Input) {
        if at >= self.question.from {
            self.part();
        }
        let Some(other) = &mut self.other else {
            let effects = self.engine.step(at, input);
            let decided = effects.into_iter().filter_map(Effect::decision);
            return self.note(decided.collect());
        };
        let taken = other.pass(&mut self.engine, at, input);
        let moves = taken.other.into_iter().map(without_evidence);
        self.other_moves.extend(moves);
        self.note(taken.current);
    }

    /// The other policy comes into force in an engine of its own.
    fn part(&mut self) {
        let Question { from, to, .. } = *self.question;
        let Some(policy) = self
            .question
            .other
            .as_ref()
            .filter(|_| self.other.is_none())
        else {
            return;
        };
        let effects = self.engine.step(from, &Input::Tick);
        let decided = effects.into_iter().filter_map(Effect::decision);
        self.note(decided.collect());
        self.other = Some(Beside::part(from, &self.engine, policy, to));
    }

    fn note(&mut self, decisions: Vec<Decision>) {
        for decision in decisions {
            if decision.at > self.question.to {
                continue;
            }
            if decision.at >= self.compared_from {
                self.compare(&decision);
            }
            if self.other.is_some() {
                self.moves.push(without_evidence(decision));
            }
        }
    }

    fn compare(&mut self, decision: &Decision) {
        let decided = v1::Decided::from(decision);
        let position = decision_position(&decided);
        let hash: [u8; 32] = Sha256::digest(v1::encode(&decided)).into();
        if self.stored.get(&position) == Some(&hash) {
            self.stored.remove(&position);
            self.identical += 1;
            return;
        }
        self.differing.insert(position);
        if self
            .first
            .as_ref()
            .is_none_or(|(first, _)| position < *first)
        {
            self.first = Some((position, decided));
        }
    }

    fn answer(self, store: &dyn Read) -> Result<Answer, ReplayError> {
        let differing: BTreeSet<Position> =
            self.stored.keys().chain(&self.differing).copied().collect();
        let first_difference = match differing.first() {
            None => None,
            Some(position) => {
                let stored = decision(store, *position)?;
                let replayed = self.first.filter(|(first, _)| first == position);
                let replayed = replayed.map(|(_, decided)| decided);
                Some((position.time, words(stored.as_ref(), replayed.as_ref())))
            }
        };
        Ok(Answer {
            begun: self.begun.time,
            build: self.build,
            compared_from: self.compared_from,
            records: self.records,
            skipped: self.skipped,
            decisions: self.identical + differing.len() as u64,
            identical: self.identical,
            first_difference,
            other: self.other.map(|other| Comparison {
                version: other.version().to_owned(),
                moves: Moves::compare(&self.moves, &self.other_moves),
                scoreboard: other.scoreboard().clone(),
            }),
        })
    }
}

/// Evidence is large and there may be many moves.
fn without_evidence(mut decision: Decision) -> Decision {
    decision.evidence.candidates = Vec::new();
    decision
}

/// The newest anchor not after `from`, and an engine that knows what it says.
fn anchor(store: &dyn Read, from: Timestamp) -> Result<(Position, Engine), ReplayError> {
    let mut reading = Reading::new(store);
    let mut found = None;
    let begin = Position::at(from - ANCHOR_WITHIN).key();
    store.scan(Column::Journal, &begin, &mut |key, value| {
        let Some(position) = Position::from_key(key).filter(|position| position.time <= from)
        else {
            return ControlFlow::Break(());
        };
        if is_anchor(value)
            && let Ok(Told::Anchor(anchor)) = reading.told(value)
        {
            found = Some((position, anchor.engine(position.time)));
        }
        ControlFlow::Continue(())
    })?;
    if let Some(found) = found {
        return Ok(found);
    }
    let mut begins = None;
    store.scan(Column::Journal, &[], &mut |key, _| {
        begins = Position::from_key(key).map(|position| position.time);
        ControlFlow::Break(())
    })?;
    match begins {
        Some(begins) => Err(ReplayError::TooOld { from, begins }),
        None => Err(ReplayError::Empty),
    }
}

/// Whether a record is an anchor, by its first bytes: batches are many and long.
fn is_anchor(value: &[u8]) -> bool {
    value.starts_with(b"\x81\xa6anchor")
}

/// The decision stored at a position.
fn decision(store: &dyn Read, position: Position) -> Result<Option<v1::Decided>, StoreError> {
    let mut found = Ok(None);
    store.scan(Column::Decisions, &position.key(), &mut |key, value| {
        if key == position.key() {
            found = v1::decode("decision", value).map(Some);
        }
        ControlFlow::Break(())
    })?;
    found
}
