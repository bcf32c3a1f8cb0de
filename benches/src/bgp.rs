//! Routers to measure with: what they write, a peer that speaks it, and recordings of it.

#[path = "../../agent/src/bgp/inference/internet.rs"]
pub mod internet;

pub mod corpus;
pub mod ingest;
pub mod installed;
pub mod live;
pub mod names;
pub mod peers;
pub mod speaker;

// What the made-up Internet is built upon.
use leeward_agent::bgp;
