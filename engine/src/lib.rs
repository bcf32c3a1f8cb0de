//! Leeward decides here.
//!
//! Deciding is a pure function of what arrived and when: [`Engine::step`]. The same [`input::Input`] values come from
//! live agents, a scenario, a what-if simulation or last night's journal, and the engine cannot tell which.
//!
//! Read in this order:
//!
//! - [`input`], [`effect`]: what goes in, what comes out.
//! - [`policy`]: regions, failover sets and the numbers that a decision uses.
//! - [`intent`]: services, capacity and overrides: what people ask for beside the policy.
//! - [`graph`]: regions and links; which reports are evidence for a link, and how old they are.
//! - [`fault`]: whose fault it is: the observer, a target, or a region.
//! - [`baseline`], [`weight`]: geography and capacity; the live quality of a link.
//! - [`signal`]: measurements that others inject.
//! - [`checks`]: what agents of other regions found when they asked a service for an answer.
//! - [`found`]: what agents found out beside their windows, such as routes; nothing is decided upon it but what
//!   [`routing`] makes of what routers tell: weights within bounds, and a gate.
//! - [`gate`], [`select`]: what a candidate must pass; then its score.
//! - [`capacity`], [`readiness`]: what regions offer and what is taken of it; who could run where today.
//! - [`placement`]: where services go together when regions fail.
//! - [`plan`]: the solver behind it: everything in one go, never beyond a capacity.
//! - [`selection`], [`holddown`]: when a selection changes, and how long it stays. [`waiting`]: why it does not.
//! - [`route`]: the best way between two regions, straight or over a relay.
//! - [`decision`]: what was decided, and every reason.
//! - [`inherit`]: what an engine takes over from the one before it.
//! - [`view`]: the immutable picture that readers get.
//! - [`scenario`], [`simulate`]: a world in a file, run in virtual time.

pub mod baseline;
pub mod capacity;
pub mod checks;
mod clients;
pub mod counterfactual;
pub mod decision;
pub mod effect;
mod evaluate;
pub mod fault;
pub mod found;
pub mod gate;
pub mod graph;
pub mod holddown;
pub mod inherit;
pub mod input;
pub mod intent;
pub mod near;
mod overrides;
mod pairs;
pub mod placement;
pub mod plan;
pub mod policy;
pub mod predict;
pub mod readiness;
mod restraint;
pub mod route;
pub mod routing;
pub mod scenario;
pub mod scoreboard;
pub mod select;
pub mod selection;
pub mod signal;
pub mod simulate;
mod state;
mod summary;
pub mod verdict;
pub mod view;
pub mod waiting;
pub mod weight;

use std::time::Duration;

use leeward_common::time::Timestamp;

pub use state::{STATE_VERSION, State, UnknownVersion};

use crate::{effect::Effect, inherit::Inheritance, input::Input, policy::Policy, view::View};

/// After this long without any input but ticks nothing is evaluated until the next one: nobody is heard of, so
/// nothing can be known, and a replay need not count the hours.
pub const DORMANT_AFTER: Duration = Duration::from_secs(60);

/// The one who decides.
#[derive(Clone, Debug)]
pub struct Engine {
    state: State,
}

impl Engine {
    /// An engine that was told nothing yet.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self {
            state: State::new(policy),
        }
    }

    /// An engine that takes over from one before it, as of `now`, and knows nothing else.
    #[must_use]
    pub fn inheriting(now: Timestamp, policy: Policy, past: Inheritance) -> Self {
        Self {
            state: State::new(policy).inheriting(now, past),
        }
    }

    /// Numbers every decision that is remembered, and those to come, higher by this much: the numbers of before were not
    /// known when they were taken.
    pub fn renumber(&mut self, by: u64) {
        self.state.renumber(by);
    }

    /// Takes in one input at `now` and returns what should be true from now on.
    ///
    /// Evaluates at every multiple of the policy's `evaluate_every` after the last evaluation and up to `now`, each on
    /// what was told before it; then takes in the input. So decisions depend on the inputs and their stamps and not on
    /// when ticks come between. A `now` before the last one counts as the last one; who journals inputs must journal
    /// the `now` that counted, which is [`View::now`] afterwards.
    pub fn step(&mut self, now: Timestamp, input: &Input) -> Vec<Effect> {
        let now = self.state.advance(now);
        let effects = self.state.evaluate_until(now, matches!(input, Input::Tick));
        match input {
            Input::Tick => {}
            Input::AgentConnected(agent) => self.state.on_connected(now, agent),
            Input::AgentDisconnected { agent } => self.state.on_disconnected(now, agent),
            Input::Reports(reports) => self.state.on_reports(now, reports),
            Input::Signal(signal) => self.state.on_signal(now, signal),
            Input::Policy(policy) => self.state.on_policy(now, policy),
            Input::CheckResults(results) => self.state.on_check_results(now, results),
            Input::Findings(findings) => self.state.on_findings(now, findings),
            Input::Change(change) => self.state.on_change(now, change),
        }
        effects
    }

    /// The picture for readers.
    #[must_use]
    pub fn view(&self) -> View {
        self.state.view()
    }

    /// By how much an agent's reports usually come after their window's end by its own clock, microseconds.
    pub(crate) fn lag_us(&self, agent: &leeward_common::id::AgentId) -> i64 {
        self.state.graph.quickest_us(agent)
    }

    /// All that a later [`Engine::from_snapshot`] needs to go on as if nothing had happened.
    #[must_use]
    pub const fn to_snapshot(&self) -> &State {
        &self.state
    }

    /// An engine that goes on where a snapshot was taken.
    ///
    /// # Errors
    ///
    /// Returns [`UnknownVersion`] for a snapshot of another version.
    pub fn from_snapshot(state: State) -> Result<Self, UnknownVersion> {
        Ok(Self {
            state: state.restored()?,
        })
    }
}
