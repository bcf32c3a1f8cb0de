//! A scenario in virtual time: virtual agents probe the scenario's network, their reports go to a real [`crate::Engine`], and
//! what it decides is written down.
//!
//! The engine cannot tell: its inputs are those that real agents would cause. The agents share the schedule, the
//! deadlines and the accounting of real ones, so that an outage is learned of after the same time. What is left out is
//! what a real network adds: the aggregator stands outside all regions, a report takes [`REPORT_DELAY`] to it, and a
//! region that is cut off is cut off from it too. Reports are kept meanwhile and delivered afterwards.

use std::time::Duration;

use leeward_common::time::Timestamp;

use crate::{input::Input, scenario::Scenario};

mod checks;
pub mod live;
mod path;
mod routers;
mod transcript;
mod world;

pub use transcript::{Line, LineKind, Transcript, describe};

use checks::Asking;
use transcript::Story;
use world::World;

/// When every simulation begins: 2026-01-01T00:00:00Z.
pub const START: Timestamp = Timestamp::from_unix_us(1_767_225_600_000_000);

/// From the end of a window until the engine is told of it: closing, sending, storing.
pub const REPORT_DELAY: Duration = Duration::from_millis(25);

/// Runs a scenario from its start to its end. The same scenario gives the same transcript.
#[must_use]
pub fn run(scenario: &Scenario) -> Transcript {
    run_with(scenario, |_, _| {})
}

/// As [`run`], and shows every input that the engine is told, ticks included, with its stamp.
pub fn run_with(scenario: &Scenario, mut watch: impl FnMut(Timestamp, &Input)) -> Transcript {
    let mut world = World::new(scenario, Asking::default());
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
