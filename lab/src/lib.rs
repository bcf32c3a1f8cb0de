//! The lab: an emulated wide-area network of real network namespaces on one Linux host, in which real agents and a
//! real aggregator live through a scenario.
//!
//! Read in this order:
//!
//! - [`net`]: namespaces, tun devices, exact waiting; all unsafe code.
//! - [`host`]: a namespace with a device and addresses.
//! - [`link`]: what a directed link does to packets.
//! - [`router`]: the thread that carries every packet.
//! - [`world`]: from a scenario to places, hosts and links.
//! - [`install`], [`process`]: certificates and configuration for the real binaries, and running them.
//! - [`speaker`]: the routers that agents hear.
//! - [`api`]: asking the aggregator, as a client would.
//! - [`story`]: telling and judging what happens.
//! - `lab`: everything of one run, made, watched and ended; [`run`]: one run from start to end.
//! - [`witness`], [`accuracy`]: what was seen of probes in the middle, and the agents' own account beside it.

pub mod accuracy;
pub mod api;
pub mod args;
pub mod host;
pub mod install;
mod lab;
pub mod link;
pub mod net;
pub mod process;
pub mod router;
pub mod run;
pub mod speaker;
pub mod story;
pub mod witness;
pub mod world;
