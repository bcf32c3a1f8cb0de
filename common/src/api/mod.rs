//! The JSON of the HTTP API, shared by the aggregator that serves it and the command line that reads it.
//!
//! - [`v1`]: the answers and questions of version 1.
//! - [`problem`]: what an error looks like, and every code that it can carry.

pub mod problem;
pub mod v1;
