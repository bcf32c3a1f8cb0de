//! An agent comes in: handshake, hello, batches.

pub mod identity;
pub mod roster;
