//! Rollups: what each path did in each minute and each hour, exactly, beside the journal and from it alone.
//!
//! ```text
//!  journal ──fold──▶ sums by minute and path ──step──▶ rows of minutes and hours, and the mark: how far
//! ```
//!
//! - [`sum`]: reports added up, and [`growing`]: the same while they come [pure]; [`code`]: a sum as bytes, [`counts`]: its
//!   histogram [pure].
//! - [`fold`]: a stretch of the journal as sums; [`tables`]: which paths its rows are.
//! - [`step`]: sums into rows, in bounded writes. Each write holds the mark, so that after a crash between any two of them
//!   the same stretch is folded once more and only what is missing is added.
//! - [`thread`]: a thread that takes a step each minute. It only reads the journal, and the turn never waits for it.
//!
//! A row is the sum of what the journal held of its span up to the mark, in any order of arrival: late reports are added
//! to rows that stand already. Who reads adds what the journal holds since ([`crate::history`]).

pub mod code;
mod counts;
pub mod fold;
pub mod growing;
pub mod step;
pub mod sum;
pub mod tables;
pub mod thread;
