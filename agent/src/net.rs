//! Sockets and kernel time stamps: the only unsafe code of the agent.
//!
//! - [`sockets`]: the prober's sockets, their options and filters, opened while the process holds the privilege.
//! - [`connecting`]: TCP probes of a process without it.
//! - [`guarding`]: what keeps strangers from the TCP connections of routers.
//! - [`message`]: one packet out; many packets in, with their time stamps; transmit stamps back from the error queue.
//! - [`reflecting`]: the UDP sockets of the STAMP reflector.
//! - [`tracing`]: the sockets of traces.
//! - [`clock`]: monotonic and wall clock read side by side, so that a step of the wall clock is noticed.
//! - [`card`]: which network cards stamp packets themselves.
//! - [`wake`]: sleeping until a packet, a moment or a call from another thread.

pub mod card;
pub mod clock;
pub mod connecting;
pub mod filter;
pub mod guarding;
pub mod message;
pub mod priority;
pub mod reflecting;
pub mod sockets;
pub mod tracing;
pub mod wake;
