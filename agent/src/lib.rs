//! Measures the networks around one region and streams what it learned to the aggregators.
//!
//! A probe's way through this crate, in reading order:
//!
//! - [`config`]: `agent.toml`.
//! - [`mesh`]: whom the aggregators want probed, and whom this agent is willing to probe.
//! - [`prober`]: the one thread that probes; everything below serves it.
//! - [`schedule`]: which probe leaves next, and when.
//! - [`probe`]: probes to bytes, bytes to answers.
//! - [`net`]: sockets and kernel time stamps.
//! - [`tracker`]: every probe ends in exactly one class.
//! - [`window`]: what a path did in a window.

pub mod admission;
pub mod config;
pub mod credentials;
pub mod mesh;
pub mod net;
pub mod privilege;
pub mod probe;
pub mod prober;
pub mod schedule;
pub mod process;
pub mod random;
pub mod spool;
pub mod tracker;
pub mod uplink;
pub mod window;
