//! The agent's side of the wire.

pub mod backoff;
pub mod delivery;
