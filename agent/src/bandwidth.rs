//! How much a link carries: three quantities, never one.
//!
//! - `capacity_upper`: the IP-layer link capacity of the narrowest link (RFC 5136 section 2.3.3), by packet trains.
//! - `available_est`: what of it others leave free (RFC 5136 section 2.3.5), by paced trains, with an interval.
//! - `goodput_seen`: what really went through, by a short heavy test, on order only.
//!
//! Each says how it was found, what it cost, and whether it is to be trusted.

//!
//! ```text
//!   order, or the oldest ──▶ budget ──▶ survey: the next train ──▶ exchange: packets out, replies in ──▶ train: a span
//!                                         ▲                                                              │
//!                                         └──────────────────────────────────────────────────────────────┘
//! ```
//!
//! - [`budget`]: what it may cost. [pure]
//! - [`survey`], [`train`]: what to send next, and what its passage tells. [pure]
//! - [`heavy`]: as much as goes through, on order. [pure]
//! - [`exchange`]: packets out, replies in. [`surveyor`]: the thread.

pub mod budget;
pub mod exchange;
pub mod heavy;
mod stats;
pub mod survey;
pub mod surveyor;
pub mod train;
