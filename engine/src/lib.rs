//! Leeward decides here.
//!
//! Deciding is a pure function of what arrived and when: [`Engine::step`]. The same [`input::Input`] values come from
//! live agents, a scenario, a what-if simulation or last night's journal, and the engine cannot tell which.
//!
//! Read in this order:
//!
//! - [`input`], [`effect`]: what goes in, what comes out.
//! - [`policy`]: regions, failover sets and the numbers that a decision uses.
//! - [`graph`]: regions and links; which reports are evidence for a link, and how old they are.
//! - [`fault`]: whose fault it is: the observer, a link, or a region.
//! - [`baseline`], [`weight`]: geography and capacity; the live quality of a link.
//! - [`signal`]: measurements that others inject.
//! - [`select`]: gates, then score.
//! - [`holddown`]: how long a selection stays.
//! - [`decision`]: what was decided, and every reason.
//! - [`view`]: the immutable picture that readers get.
//! - [`scenario`], [`simulate`]: a world in a file, run in virtual time.

pub mod decision;
pub mod effect;
pub mod graph;
pub mod input;
pub mod near;
pub mod policy;
pub mod scenario;
pub mod select;
pub mod signal;
pub mod view;

use std::sync::Arc;

use leeward_common::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{effect::Effect, input::Input, policy::Policy, view::View};

/// The one who decides.
#[derive(Clone, Debug)]
pub struct Engine {
    state: State,
}

/// Everything that a decision can depend on: what a snapshot holds.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct State {
    version: u32,
    now: Timestamp,
    graph_version: u64,
    policy: Arc<Policy>,
}

/// The version of [`State`] that this build writes and reads.
pub const STATE_VERSION: u32 = 1;

/// A snapshot of another version.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("snapshot has version {found}; this build reads {STATE_VERSION}")]
pub struct UnknownVersion {
    /// Its version.
    pub found: u32,
}

impl Engine {
    /// An engine that was told nothing yet.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self {
            state: State {
                version: STATE_VERSION,
                now: Timestamp::EPOCH,
                graph_version: 0,
                policy: Arc::new(policy),
            },
        }
    }

    /// Takes in one input at `now` and returns what should be true from now on.
    ///
    /// Evaluates at every multiple of the policy's `evaluate_every` after the last evaluation and up to `now`, each on
    /// what was told before it; then takes in the input. A `now` before the last one counts as the last one.
    pub fn step(&mut self, now: Timestamp, _input: &Input) -> Vec<Effect> {
        self.state.now = self.state.now.max(now);
        Vec::new()
    }

    /// The picture for readers.
    #[must_use]
    pub fn view(&self) -> View {
        View {
            now: self.state.now,
            graph_version: self.state.graph_version,
            policy: Arc::clone(&self.state.policy),
            agents: Arc::default(),
            regions: Arc::default(),
            links: Arc::default(),
            pairs: Arc::default(),
            selections: Arc::default(),
            decisions: Arc::default(),
            signals: Arc::default(),
        }
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
        if state.version != STATE_VERSION {
            return Err(UnknownVersion {
                found: state.version,
            });
        }
        Ok(Self { state })
    }
}
