//! The lab: an emulated wide-area network of real network namespaces on one Linux host, in which real agents and a
//! real aggregator live through a scenario.
//!
//! Read in this order:
//!
//! - [`net`]: namespaces, tun devices, exact waiting; all unsafe code.
//! - [`host`]: a namespace with a device and addresses.
//! - [`link`]: what a directed link does to packets.
//! - [`router`]: the thread that carries every packet.

pub mod host;
pub mod link;
pub mod net;
pub mod router;
