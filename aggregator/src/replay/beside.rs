//! Another policy beside the one in force: two engines on the same inputs, and what each was worth.
//!
//! What comes of it depends on the inputs and their stamps alone: the scoreboard is looked at on every full second for as
//! long as inputs come, whenever anybody asks. So a policy that is followed as the inputs come is judged as by a replay of
//! the same stretch.

use leeward_common::time::Timestamp;
use leeward_engine::{
    DORMANT_AFTER, Engine,
    decision::Decision,
    effect::Effect,
    input::Input,
    scoreboard::{SAMPLE_EVERY, Scoreboard},
};

use crate::config::PolicyText;

/// Another policy beside the one in force.
#[derive(Clone, Debug)]
pub struct Beside {
    engine: Engine,
    version: String,
    /// What comes after it is not counted.
    until: Timestamp,
    /// When the last input came that was no tick.
    heard: Timestamp,
    /// The next full second to look at.
    next: Timestamp,
    scoreboard: Scoreboard,
}

/// What was decided.
#[derive(Debug, Default)]
pub struct Taken {
    /// By the policy in force.
    pub current: Vec<Decision>,
    /// By the other.
    pub other: Vec<Decision>,
}

impl Beside {
    /// Comes into force at `now` in a copy of an engine that has come to then. What is after `until` is not counted.
    #[must_use]
    pub fn part(now: Timestamp, current: &Engine, policy: &PolicyText, until: Timestamp) -> Self {
        let mut engine = current.clone();
        engine.step(now, &Input::Policy(Box::new(policy.policy.clone())));
        Self {
            engine,
            version: policy.policy.version(),
            until,
            heard: now,
            next: after(now),
            scoreboard: Scoreboard::default(),
        }
    }

    /// Tells both something. The other policy stays in force whatever comes into force in the one beside it.
    pub fn pass(&mut self, current: &mut Engine, at: Timestamp, input: &Input) -> Taken {
        let mut taken = Taken::default();
        // Without inputs nothing is known after a while, and nothing is evaluated.
        let last = at.min(self.until).min(self.heard + DORMANT_AFTER);
        while self.next <= last {
            let second = self.next;
            self.step(current, second, &Input::Tick, &mut taken);
            let (current, other) = (current.view(), self.engine.view());
            self.scoreboard.look(second, &current, &other);
            self.next = after(second);
        }
        self.step(current, at, input, &mut taken);
        if !matches!(input, Input::Tick) {
            self.heard = at;
            self.next = self.next.max(at.floor(SAMPLE_EVERY));
        }
        taken
    }

    fn step(&mut self, current: &mut Engine, at: Timestamp, input: &Input, taken: &mut Taken) {
        let own = match input {
            Input::Policy(_) => &Input::Tick,
            input => input,
        };
        let (until, board) = (self.until, &mut self.scoreboard);
        let effects = current.step(at, input).into_iter();
        for decision in effects.filter_map(Effect::decision) {
            if decision.at <= until {
                board.current.on_decision(&decision);
            }
            taken.current.push(decision);
        }
        let effects = self.engine.step(at, own).into_iter();
        for decision in effects.filter_map(Effect::decision) {
            if decision.at <= until {
                board.other.on_decision(&decision);
                taken.other.push(decision);
            }
        }
    }

    /// The other policy's version.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Both by the same yard.
    #[must_use]
    pub const fn scoreboard(&self) -> &Scoreboard {
        &self.scoreboard
    }
}

/// The full second after a time.
fn after(time: Timestamp) -> Timestamp {
    time.floor(SAMPLE_EVERY) + SAMPLE_EVERY
}
