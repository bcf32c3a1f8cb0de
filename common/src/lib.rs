//! The shared words of Leeward: what the agent says, the aggregator stores and the engine decides upon.
//!
//! Read in this order:
//!
//! - [`id`]: one newtype per noun, parsed once.
//! - [`time`] and [`ratio`]: the units.
//! - [`histogram`]: a sparse, exactly mergeable histogram of round-trip times.
//! - [`report`]: what one path did in one window; [`tally`]: many of them added up; [`pile`]: the same for a moment.
//! - [`bgp`]: what routing did to a watched prefix.
//! - [`deadline`]: when a missing reply becomes overdue.
//! - [`check`]: what agents of other regions ask of a service, and what came of it.
//! - [`finding`]: what an agent found out beside its windows, such as a route.
//! - [`silence`]: how long nothing was answered, and when that is news.
//! - [`wire`]: how an agent and an aggregator talk.
//! - [`api`]: the JSON that the aggregator serves.
//! - [`config`]: TOML to values, with errors that name file, line and column.
//! - [`definitions`]: files of services, capacity and overrides.
//! - [`varint`]: numbers of varying length, on the wire and on disk; [`bits`]: numbers of any width.
//! - [`audit`]: how the entries of the audit log are tied to each other.
//!
//! Nothing in this crate does I/O; the one clock is [`time::SystemClock`], used at the rim.

pub mod api;
pub mod audit;
pub mod bgp;
pub mod bits;
pub mod check;
pub mod config;
pub mod deadline;
pub mod definitions;
pub mod finding;
pub mod histogram;
pub mod id;
pub mod pile;
pub mod ratio;
pub mod report;
pub mod silence;
pub mod tally;
pub mod time;
pub mod varint;
pub mod wire;
