//! The aggregator: it receives what agents measure, remembers it, drives the engine and answers.
//!
//! Read in this order, which is the way of one batch of reports:
//!
//! - [`config`]: one TOML file to valid values.
//! - [`ingest`]: agents connect, prove who they are, and send batches.
//! - [`mesh`]: which agent probes whom.
//! - [`dedupe`]: a batch sent twice counts once.
//! - [`intent`]: what people define, and the terms on which it is changed.
//! - [`definitions`]: the same from files.
//! - [`turn`]: one thread owns the engine: journal, step, store, publish.
//! - [`store`]: the journal and everything else that must survive.
//! - [`rollup`]: exact sums of minutes and hours, from the journal.
//! - [`history`]: what a link did over a span of time.
//! - [`backup`], [`offline`]: copies of the store; looking after a directory that nobody uses.
//! - [`recover`]: back to the same state after a restart.
//! - [`replay`]: the same for any stretch of the past, compared with what was decided then.
//! - [`shadow`]: another policy beside the one in force, which only records what it would do.
//! - [`shared`]: what the HTTP API sees of all this; [`http`] is the API.
//! - [`trace`]: who is asked to trace a route, and when one is ordered without anybody asking.
//! - [`metrics`]: every Prometheus name.
//! - [`run`]: puts the parts together and takes them apart again.

pub mod backup;
pub mod bandwidth;
pub mod config;
pub mod dedupe;
pub mod definitions;
pub mod history;
pub mod http;
pub mod ingest;
pub mod intent;
pub mod mesh;
pub mod metrics;
pub mod offline;
pub mod recover;
pub mod replay;
pub mod rollup;
pub mod run;
pub mod shadow;
pub mod shared;
pub mod store;
pub mod trace;
pub mod turn;

/// The build, for people: shown to agents and written into snapshots.
pub const BUILD: &str = env!("CARGO_PKG_VERSION");
