//! What the engine wants to be true. An effect states an outcome, so applying it twice is harmless.

use crate::decision::Decision;

/// One wanted outcome.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// This selection is in force, and here is why. Synced to disk before anyone acts on it.
    Decided(Box<Decision>),
}
