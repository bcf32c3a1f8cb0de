//! The judge of decisions: made-up months with a known truth, recorded networks, and peers beside us on both.
//!
//! Read in this order:
//!
//! - [`world`]: the noisy trace, second by second: what is true and what each vantage point sees. [`noise`] feeds it.
//! - [`policy`]: what every contestant is: seconds in, a region out. [`peers`] are those that others ship.
//! - [`ours`]: the engine as a contestant; [`observer`] turns what was seen into an agent's reports,
//!   [`setup`] words into the engine's policy.
//! - [`judge`]: flips, false moves, delays, regret; [`clairvoyant`] says which flips nobody could have avoided.
//! - [`trace`]: all contestants on one trace.
//! - [`recorded`]: where recordings lie; [`atlas`], [`azure`] and [`planetlab`] judge on them.
//!
//! Everything is seeded: the same arguments print the same figures.

pub mod atlas;
pub mod azure;
pub mod clairvoyant;
pub mod judge;
pub mod noise;
pub mod observer;
pub mod ours;
pub mod peers;
pub mod planetlab;
pub mod policy;
pub mod recorded;
pub mod setup;
pub mod trace;
pub mod world;
