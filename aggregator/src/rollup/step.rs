//! One step of the rollups: a stretch of the journal into rows, in bounded writes.

use leeward_common::{histogram::Schema, time::Timestamp};

pub use super::fold::Limits;

use super::{
    code,
    fold::{Fold, Folded},
    sum::Sum,
};
use crate::store::{
    self, Aside, Read, StoreError, Writes,
    key::{Column, Position, path::Grain},
    record::v1::{At, Mark, UnderWay},
};

/// One step takes no more: a minute of 65,536 paths, or 64 MB that waited.
pub const LIMITS: Limits = Limits {
    bytes: 64 << 20,
    sums: 1 << 16,
};

/// Rows of one write, which takes some milliseconds: a synced write of the turn may have to wait for as long.
pub const ROWS: usize = 1_024;

/// What a step did.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Done {
    /// Up to where the rollups are.
    pub folded: At,
    /// Reports added.
    pub reports: u64,
    /// Rows written.
    pub rows: u64,
    /// Records of the journal, or rows, that cannot be read.
    pub unreadable: u64,
    /// Whether there is more to do.
    pub more: bool,
}

/// Adds what the journal holds up to `until` to the rollups, or as much of it as the limits allow. `go_on` is asked before
/// each write.
///
/// # Errors
///
/// Returns [`StoreError`] when the store cannot be read or written; the next step goes on from the last write.
pub fn step(
    reader: &dyn Read,
    aside: &dyn Aside,
    until: Timestamp,
    (limits, rows): (Limits, usize),
    go_on: &mut dyn FnMut() -> bool,
) -> Result<Done, StoreError> {
    let mark = store::mark(reader)?.unwrap_or_default();
    // What is under way must be folded as far as it was: no limit cuts it short.
    let (to, limits) = match &mark.under_way {
        Some(under_way) => (
            under_way.to,
            Limits {
                bytes: usize::MAX,
                sums: usize::MAX,
            },
        ),
        None => (At::from(Position::at(until)), limits),
    };
    let mut fold = Fold::new(reader, mark.folded);
    fold.journal(to, limits)?;
    let folded = fold.finish();
    let mut done = Done {
        folded: mark.folded,
        reports: folded.reports,
        unreadable: folded.skipped,
        more: folded.to > mark.folded && (mark.under_way.is_some() || folded.to < to),
        ..Done::default()
    };
    if folded.to == mark.folded {
        return Ok(done);
    }
    Writing {
        reader,
        aside,
        mark,
        folded,
        rows,
    }
    .write(&mut done, go_on)?;
    Ok(done)
}

struct Writing<'a> {
    reader: &'a dyn Read,
    aside: &'a dyn Aside,
    mark: Mark,
    folded: Folded,
    rows: usize,
}

impl Writing<'_> {
    fn write(self, done: &mut Done, go_on: &mut dyn FnMut() -> bool) -> Result<(), StoreError> {
        let (mark, to) = (self.mark, self.folded.to);
        // Every position of this stretch is covered alike.
        let is_left = |(grain, key): &(Grain, Vec<u8>)| !mark.covers(*grain, key, to.into());
        let left = self.folded.sums.into_iter().filter(|(key, _)| is_left(key));
        let mut left = left.peekable();
        loop {
            if !go_on() {
                done.more = true;
                return Ok(());
            }
            let mut writes = Writes::default();
            let mut last = None;
            for ((grain, key), sum) in left.by_ref().take(self.rows) {
                let row = row(self.reader, grain, &key, sum, done)?;
                writes.rollup(grain, key.clone(), &row);
                last = Some((grain, key));
                done.rows += 1;
            }
            let under_way = match (left.peek(), last) {
                (Some(_), Some((grain, key))) => Some(UnderWay {
                    to,
                    grain: grain.number(),
                    key,
                }),
                _ => None,
            };
            let is_last = under_way.is_none();
            if is_last {
                for late in &self.folded.late {
                    writes.late(late.window, late.position, &late.region);
                }
                done.folded = to;
            }
            writes.mark(&Mark {
                folded: if is_last { to } else { mark.folded },
                under_way,
            });
            self.aside.write(&writes)?;
            if is_last {
                return Ok(());
            }
        }
    }
}

/// A row with what is added to it. One that cannot be read is counted, and begins anew: what is added is not lost too.
fn row(
    reader: &dyn Read,
    grain: Grain,
    key: &[u8],
    added: Sum,
    done: &mut Done,
) -> Result<Sum, StoreError> {
    let before = match reader.get(grain.column(), key) {
        Ok(Some(bytes)) => code::decode(schema(key), &bytes),
        Ok(None) => return Ok(added),
        Err(error @ StoreError::Failed) => return Err(error),
        Err(error) => Err(error),
    };
    match before {
        Ok(mut sum) => {
            sum.add(&added);
            Ok(sum)
        }
        Err(error) => {
            tracing::warn!(
                column = Column::name(grain.column()),
                error = &error as &dyn std::error::Error,
                "a rollup cannot be read and begins anew"
            );
            done.unreadable += 1;
            Ok(added)
        }
    }
}

/// The schema that a row's key names; it stands before the last byte.
fn schema(key: &[u8]) -> Schema {
    let number = key.len().checked_sub(2).and_then(|at| key.get(at));
    number
        .and_then(|&number| Schema::from_number(number))
        .unwrap_or_default()
}

#[cfg(test)]
pub(crate) mod tests;
