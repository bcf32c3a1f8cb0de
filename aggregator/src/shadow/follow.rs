//! The journal as it grows, through two engines: what the shadow's thread does, without the thread.

use std::{
    ops::ControlFlow,
    sync::Arc,
    time::{Duration, Instant},
};

use leeward_common::time::Timestamp;
use leeward_engine::{Engine, input::Input, scoreboard::Scoreboard};

use crate::{
    config::PolicyText,
    recover::{Reading, Told, past},
    replay::Beside,
    store::{
        Read, StoreError,
        key::{Column, Position},
    },
};

/// Follows the journal.
#[expect(missing_debug_implementations, reason = "a store has none")]
pub struct Follower<'a> {
    store: &'a dyn Read,
    reading: Reading<'a>,
    policy: Arc<PolicyText>,
    current: Engine,
    /// Where the shadow policy comes into force.
    from: Timestamp,
    beside: Option<Beside>,
    /// The last record that was read.
    at: Position,
    skipped: u64,
}

/// What one round came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Round {
    /// Everything that the journal holds was read.
    Done,
    /// There is more.
    More,
}

impl<'a> Follower<'a> {
    /// Begins with the engine as it was at `from`, or at the first moment after it that is known exactly.
    ///
    /// # Errors
    ///
    /// Returns [`StoreError`] when the store cannot be read; `None` if no engine is written down yet.
    pub fn begin(
        store: &'a dyn Read,
        policy: Arc<PolicyText>,
        from: Timestamp,
    ) -> Result<Option<Self>, StoreError> {
        let past = match past(store, Some(from))? {
            Some(past) => Some(past),
            None => past(store, None)?,
        };
        Ok(past.map(|past| Self {
            store,
            reading: Reading::new(store),
            policy,
            from: from.max(past.at.time),
            current: past.engine,
            beside: None,
            at: past.at,
            skipped: 0,
        }))
    }

    /// Reads on, for `slice` at most, then lets time pass up to `now`: a moment up to which everything is in the journal.
    /// `None` if there is no such moment.
    ///
    /// # Errors
    ///
    /// Returns [`StoreError`] when the journal cannot be read; what was read by then counts, and the next round goes on.
    pub fn round(&mut self, now: Option<Timestamp>, slice: Duration) -> Result<Round, StoreError> {
        let (began, begun) = (Instant::now(), self.at);
        let mut round = Round::Done;
        self.store
            .scan(Column::Journal, &begun.key(), &mut |key, value| {
                let position = Position::from_key(key).filter(|position| *position > begun);
                let Some(position) = position else {
                    return ControlFlow::Continue(());
                };
                if began.elapsed() >= slice {
                    round = Round::More;
                    return ControlFlow::Break(());
                }
                self.record(position, value);
                ControlFlow::Continue(())
            })?;
        if let Some(now) = now.filter(|now| *now > self.now() && round == Round::Done) {
            self.pass(now, &Input::Tick);
        }
        Ok(round)
    }

    fn record(&mut self, position: Position, value: &[u8]) {
        self.at = position;
        match self.reading.told(value) {
            // It repeats what is known; and path tables of before are seldom needed again.
            Ok(Told::Anchor(_)) => self.reading = Reading::new(self.store),
            Ok(Told::Policy(policy)) => {
                self.pass(position.time, &Input::Policy(Box::new(policy.policy)));
            }
            Ok(Told::Input(input)) => self.pass(position.time, &input),
            Err(_) => self.skipped += 1,
        }
    }

    fn pass(&mut self, at: Timestamp, input: &Input) {
        if at < self.from {
            self.current.step(at, input);
            return;
        }
        let beside = self.beside.get_or_insert_with(|| {
            self.current.step(self.from, &Input::Tick);
            Beside::part(
                self.from,
                &self.current,
                &self.policy,
                Timestamp::from_unix_us(u64::MAX),
            )
        });
        beside.pass(&mut self.current, at, input);
    }

    /// How far it has come.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.current.view().now
    }

    /// Since when it counts.
    #[must_use]
    pub const fn since(&self) -> Timestamp {
        self.from
    }

    /// Records that could not be read.
    #[must_use]
    pub const fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Both policies by the same yard.
    #[must_use]
    pub fn scoreboard(&self) -> Scoreboard {
        let beside = self.beside.as_ref();
        beside.map_or_else(Scoreboard::default, |own| own.scoreboard().clone())
    }
}
