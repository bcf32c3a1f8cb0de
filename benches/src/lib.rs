//! What the benchmarks share: how a figure is reported, how it is measured, and numbers to measure with.
//!
//! Each benchmark is a binary of `src/bin`, run by `scripts/bench NAME`. It measures Leeward and, in the same run, a
//! peer doing the same work, so that a slow or busy machine shows in both. Figures are medians of several rounds.
//! Nothing here fails because a machine is slow: a figure that misses its target says so in its row.

pub mod bgp;
pub mod decide;
pub mod figure;
pub mod http;
pub mod installation;
pub mod load;
pub mod measure;
pub mod plan;
pub mod probe;
pub mod process;
pub mod remote_write;
pub mod samples;
