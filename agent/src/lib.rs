//! Measures the networks around one region and streams what it learned to the aggregators.
//!
//! A probe's way through this crate, in reading order:
//!
//! - [`config`]: `agent.toml`. [`credentials`]: who this agent is, and whom it believes.
//! - [`run`]: an agent's life. [`privilege`]: one privilege, for one moment.
//! - [`mesh`]: whom the aggregators want probed, and [`admission`]: whom this agent is willing to probe.
//! - [`prober`]: the one thread that probes; the next five serve it.
//! - [`schedule`]: which probe leaves next, and when. [`flow`]: as which of its path's flows.
//! - [`probe`]: probes to bytes, bytes to answers.
//! - [`net`]: sockets and kernel time stamps.
//! - [`tracker`]: every probe ends in exactly one class.
//! - [`window`]: what a path did in a window.
//! - [`spool`]: batches that wait until every aggregator has stored them.
//! - [`uplink`]: one connection to each aggregator.
//! - [`reflector`]: the UDP port that answers other agents' STAMP probes.
//! - [`bgp`]: what routers tell about the prefixes that regions are reached by.
//! - [`checks`]: asking services in other regions for an answer, on a thread of its own.
//! - [`errands`]: what may be ordered beside the mesh, and the way to those who find it out.
//! - [`trace`]: routes and the largest packet that comes through, on a thread of its own, when ordered.
//! - [`answer`]: the open port that meets other agents' SYN probes.
//! - [`status`] and [`metrics`]: how the agent fares, for the host it runs on. [`process`]: what it uses.
//! - [`ping`]: a look at one moment, for a person.
//! - [`random`]: jitter and keys.

pub mod admission;
pub mod answer;
pub mod bandwidth;
pub mod bgp;
pub mod checks;
pub mod config;
pub mod credentials;
pub mod errands;
pub mod flow;
mod limiter;
pub mod mesh;
pub mod metrics;
pub mod net;
pub mod ping;
pub mod privilege;
pub mod probe;
pub mod prober;
pub mod process;
pub mod random;
pub mod reflector;
pub mod run;
pub mod schedule;
pub mod spool;
pub mod status;
pub mod trace;
pub mod tracker;
pub mod uplink;
pub mod window;
