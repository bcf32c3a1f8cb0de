//! Measures the networks around one region and streams what it learned to the aggregators.
//!
//! A probe's way through this crate, in reading order:
//!
//! - [`config`]: `agent.toml`.
//! - [`mesh`]: whom the aggregators want probed, and whom this agent is willing to probe.

pub mod config;
pub mod credentials;
pub mod mesh;
pub mod spool;
pub mod uplink;
