//! A stretch of the journal as sums, by minute and path.

use std::{collections::BTreeMap, ops::ControlFlow, rc::Rc, time::Duration};

use leeward_common::{report::Window, time::Timestamp, wire::batch};

use super::{
    growing::Growing,
    sum::Sum,
    tables::{Paths, Tables},
};
use crate::store::{
    Read, StoreError,
    key::{Column, Position, path::Grain},
    record::v1::{At, BatchAt},
};

/// How long after its window a batch that is not late arrives: the agents' clocks may differ a little, and a busy turn or
/// link take some seconds.
pub const LATE: Duration = Duration::from_secs(30);

/// How long before its window a batch arrives, by the agents' clocks.
pub const EARLY: Duration = Duration::from_secs(10);

/// The paths of a table, and the sum of each in one minute.
type Rows = (Paths, Vec<Option<Growing>>);

/// Sums of a stretch of the journal.
#[expect(missing_debug_implementations, reason = "a store has none")]
pub struct Fold<'a> {
    store: &'a dyn Read,
    tables: Tables<'a>,
    /// By minute and table: row by row.
    sums: BTreeMap<(Timestamp, usize), Rows>,
    /// Batches that did not arrive at about their time.
    late: Vec<Late>,
    /// Up to where it reaches.
    to: At,
    /// Rows of all tables in it.
    count: usize,
    /// Bytes of the journal in it.
    bytes: usize,
    reports: u64,
    skipped: u64,
}

/// A batch that did not arrive at about its time.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Late {
    /// Its window's start.
    pub window: Timestamp,
    /// Where it is in the journal.
    pub position: Position,
    /// The agent's region.
    pub region: String,
}

/// How much one fold takes at most.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of the journal.
    pub bytes: usize,
    /// Sums: of a minute and a path.
    pub sums: usize,
}

/// What a fold made.
#[derive(Debug, Default)]
pub struct Folded {
    /// The sums, in the order in which they are written.
    pub sums: BTreeMap<(Grain, Vec<u8>), Sum>,
    /// For the index of late batches.
    pub late: Vec<Late>,
    /// Up to where it reaches.
    pub to: At,
    /// Reports in it.
    pub reports: u64,
    /// Records that cannot be read: malformed, or a batch whose path table is gone.
    pub skipped: u64,
}

impl<'a> Fold<'a> {
    /// Nothing of this journal yet.
    #[must_use]
    pub fn new(store: &'a dyn Read, from: At) -> Self {
        Self {
            store,
            tables: Tables::new(store),
            sums: BTreeMap::new(),
            late: Vec::new(),
            to: from,
            count: 0,
            bytes: 0,
            reports: 0,
            skipped: 0,
        }
    }

    /// Folds what comes next, up to and including `to`, or until a limit is reached.
    ///
    /// # Errors
    ///
    /// Returns [`StoreError`] when the journal cannot be read.
    pub fn journal(&mut self, to: At, limits: Limits) -> Result<(), StoreError> {
        let from = Position::from(self.to);
        self.store
            .scan(Column::Journal, &from.key(), &mut |key, value| {
                let Some(position) = Position::from_key(key) else {
                    self.skipped += 1;
                    return ControlFlow::Continue(());
                };
                let at = At::from(position);
                if at <= self.to {
                    return ControlFlow::Continue(());
                }
                if at > to || self.bytes >= limits.bytes || self.count >= limits.sums {
                    return ControlFlow::Break(());
                }
                self.record(position, value);
                self.to = at;
                ControlFlow::Continue(())
            })
    }

    fn record(&mut self, position: Position, value: &[u8]) {
        self.bytes += value.len();
        let folded = match BatchAt::of(value) {
            Ok(Some(batch)) => self.batch(position, &batch),
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        if folded.is_err() {
            self.skipped += 1;
        }
    }

    fn batch(&mut self, position: Position, record: &BatchAt<'_>) -> Result<(), StoreError> {
        let malformed = |why: String| StoreError::Malformed { what: "batch", why };
        let unread = batch::open(record.bytes).map_err(|error| malformed(error.to_string()))?;
        let head = unread.head();
        let (window, schema) = (head.key.window, head.schema);
        let region = record
            .region()
            .ok_or_else(|| malformed("its region is none".to_owned()))?;
        let paths = self.tables.paths(head, &region)?;
        let minute = window.start.floor(Grain::Minute.length());
        let group = (minute, paths.as_ptr() as usize);
        let (_, sums) = self.sums.entry(group).or_insert_with(|| {
            self.count += paths.len();
            let rows = paths.iter().map(|_| None).collect();
            (Rc::clone(&paths), rows)
        });
        let (mut reports, mut beyond) = (0, false);
        // The journal holds only what was read before it was written, so nothing is wrong with it behind a good head. If
        // it were, the rows up to there would count.
        let read = unread.rows(|row, report| match sums.get_mut(row as usize) {
            Some(sum) => {
                sum.get_or_insert_with(|| Growing::new(schema))
                    .report(report);
                reports += 1;
            }
            None => beyond = true,
        });
        self.reports += reports;
        if is_late(window, position.time) {
            self.late.push(Late {
                window: window.start,
                position,
                region: record.region_text().to_owned(),
            });
        }
        read.map_err(|error| malformed(error.to_string()))?;
        match beyond {
            true => Err(malformed("a row is beyond its path table".to_owned())),
            false => Ok(()),
        }
    }

    /// The sums of minutes, and those of hours from them.
    #[must_use]
    pub fn finish(self) -> Folded {
        let mut sums: BTreeMap<(Grain, Vec<u8>), Sum> = BTreeMap::new();
        for ((minute, _), (paths, rows)) in &self.sums {
            for (path, sum) in paths.iter().zip(rows) {
                let Some(sum) = sum else { continue };
                let sum = sum.sum();
                for grain in Grain::ALL {
                    let key = (grain, grain.key(*minute, path));
                    let into = sums.entry(key);
                    into.or_insert_with(|| Sum::new(sum.rtt.schema)).add(&sum);
                }
            }
        }
        Folded {
            sums,
            late: self.late,
            to: self.to,
            reports: self.reports,
            skipped: self.skipped,
        }
    }
}

/// Whether a batch of this window did not arrive at about its time.
#[must_use]
pub fn is_late(window: Window, arrived: Timestamp) -> bool {
    arrived > window.end() + LATE || arrived < window.start - EARLY
}
