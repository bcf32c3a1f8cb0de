//! What the engine wants to be true. An effect states an outcome, so applying it twice is harmless.

use leeward_common::time::Timestamp;

use crate::{decision::Decision, intent::Ended};

/// One wanted outcome.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// This selection is in force, and here is why. Synced to disk before anyone acts on it.
    Decided(Box<Decision>),
    /// Something that people had asked for until a time has come to its end.
    Expired {
        /// When that was noticed: a multiple of the policy's `evaluate_every`, or the first input after a long silence.
        at: Timestamp,
        /// What, and who had asked for it.
        ended: Box<Ended>,
    },
}

impl Effect {
    /// The decision, if it is one.
    #[must_use]
    pub fn decision(self) -> Option<Decision> {
        match self {
            Self::Decided(decision) => Some(*decision),
            Self::Expired { .. } => None,
        }
    }
}
