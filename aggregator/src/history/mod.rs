//! What a link did over a span of time: points of any step, each the exact sum of what the store holds of it.
//!
//! - [`plan`]: which points, from the journal or from rollups of minutes or hours [pure].
//! - [`read`]: the sums, from one picture of the store: rows, and what the journal holds that is not in them yet.
//!
//! Every question has a bound: on its points before it is begun, on what it visits while it is worked on.

pub mod plan;
pub mod read;
