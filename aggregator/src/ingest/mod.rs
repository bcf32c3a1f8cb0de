//! An agent comes in: handshake, hello, batches.

pub mod roster;
