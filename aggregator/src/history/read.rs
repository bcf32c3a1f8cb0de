//! The sums of a history's points.
//!
//! Everything is read from one picture of the store. Points of rollups are the sums of their rows and of what the journal
//! holds beyond the mark, row by row, so that nothing counts twice while a step is under way. Points of the journal are
//! the sums of the batches that arrived at about that time, and of those that the index of late ones names.

use std::{collections::BTreeMap, ops::ControlFlow, time::Duration};

use leeward_common::{
    histogram::Schema,
    id::RegionId,
    report::{ProbeKind, Window},
    time::Timestamp,
    wire::batch,
};

use super::plan::{Plan, Source};
use crate::{
    rollup::{
        code,
        fold::{EARLY, LATE, is_late},
        sum::Sum,
        tables::Tables,
    },
    store::{
        self, Read, StoreError,
        key::{
            self, Column, Position,
            path::{Grain, PathKey},
        },
        record::v1::{BatchAt, Mark},
    },
};

/// The longest window.
const LONGEST_WINDOW: Duration = Duration::from_secs(60);

/// What one history visits at most.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Rows of rollups, of this link's paths.
    pub rows: u64,
    /// Records of the journal, whosever they are.
    pub records: u64,
    /// Bytes of batches that are decoded.
    pub bytes: u64,
    /// Filled buckets of all points together.
    pub buckets: u64,
}

/// What takes a second or two at most, and 64 MB.
pub const LIMITS: Limits = Limits {
    rows: 1_000_000,
    records: 2_000_000,
    bytes: 256 << 20,
    buckets: 4_000_000,
};

/// The points that have a report, by their number.
pub type Points = BTreeMap<u64, Sum>;

/// What was read.
#[derive(Debug, Default)]
pub struct Found {
    /// The points.
    pub points: Points,
    /// Records and rows that could not be read.
    pub unreadable: u64,
}

/// Why there is no history.
#[derive(Debug)]
pub enum Failure {
    /// The store cannot be read.
    Store(StoreError),
    /// It would visit too much; what of.
    TooMuch(&'static str),
    /// Nobody waits for it any more.
    GivenUp,
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// A link, by its ends, and by how it is probed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Link {
    /// Whose agents measure.
    pub from: RegionId,
    /// Whom they measure.
    pub to: RegionId,
    /// By which kind of probe; `None` for all together.
    pub kind: Option<ProbeKind>,
}

impl Link {
    /// Whether a path between its ends, of these bytes, is among those that count.
    fn counts(&self, path: &[u8]) -> bool {
        self.kind.is_none() || PathKey::kind(path) == self.kind
    }
}

/// Reads a history. `go_on` is asked now and then.
///
/// # Errors
///
/// Returns [`Failure`] when there is none.
pub fn read(
    store: &dyn Read,
    link: &Link,
    plan: &Plan,
    limits: Limits,
    go_on: &dyn Fn() -> bool,
) -> Result<Found, Failure> {
    let mut result = Ok(Found::default());
    store.at_once(&mut |store| {
        let mut reading = Reading {
            store,
            link,
            plan,
            left: limits,
            go_on,
            tables: Tables::new(store),
            found: Found::default(),
            failure: None,
        };
        let read = reading.all();
        result = match (read, reading.failure) {
            (Err(error), _) => Err(Failure::Store(error)),
            (Ok(()), Some(failure)) => Err(failure),
            (Ok(()), None) => Ok(reading.found),
        };
        Ok(())
    })?;
    result
}

/// Reads a history, or if that would visit too much, another that will do as well.
///
/// # Errors
///
/// Returns [`Failure`] when there is none.
pub fn read_or(
    store: &dyn Read,
    link: &Link,
    (plan, otherwise): (Plan, Option<Plan>),
    limits: Limits,
    go_on: &dyn Fn() -> bool,
) -> Result<(Plan, Found), Failure> {
    let of = |plan: Plan| read(store, link, &plan, limits, go_on).map(|found| (plan, found));
    match (of(plan), otherwise) {
        (Err(Failure::TooMuch(_)), Some(otherwise)) => of(otherwise),
        (read, _) => read,
    }
}

struct Reading<'a> {
    store: &'a dyn Read,
    link: &'a Link,
    plan: &'a Plan,
    left: Limits,
    go_on: &'a dyn Fn() -> bool,
    tables: Tables<'a>,
    found: Found,
    failure: Option<Failure>,
}

/// A stretch of the journal, both ends included.
type Stretch = (Position, Position);

const END: Position = Position {
    time: Timestamp::from_unix_us(u64::MAX),
    counter: u32::MAX,
};

impl Reading<'_> {
    fn all(&mut self) -> Result<(), StoreError> {
        let mark = store::mark(self.store)?.unwrap_or_default();
        match self.plan.source {
            Source::Raw => self.raw(&mark),
            Source::Rollup(grain) => self.rollups(grain, &mark),
        }
    }

    fn rollups(&mut self, grain: Grain, mark: &Mark) -> Result<(), StoreError> {
        let mut span = self.plan.start.floor(grain.span());
        // Looking for rows costs something where there are none, too.
        while span < self.plan.end && self.visit(|left| &mut left.rows, 1, "rows") {
            let link = grain.link_key(span, &self.link.from, &self.link.to);
            let store = self.store;
            store.scan(grain.column(), &link, &mut |key, value| {
                if !key.starts_with(&link) {
                    return ControlFlow::Break(());
                }
                self.row(grain, key, value);
                self.flow()
            })?;
            span = span + grain.span();
        }
        // What is not in every row yet.
        let since = (mark.folded.into(), END);
        self.journal(since, &|_, _| true, &|position, window, path| {
            let start = window.start.floor(grain.length());
            !mark.covers(grain, &grain.key(start, path), position)
        })
    }

    fn row(&mut self, grain: Grain, key: &[u8], value: &[u8]) {
        if !self.visit(|left| &mut left.rows, 1, "rows") {
            return;
        }
        let schema = key.len().checked_sub(2).and_then(|at| key.get(at));
        let schema = schema.and_then(|&number| Schema::from_number(number));
        let (Some(start), Some(schema)) = (grain.start(key), schema) else {
            self.found.unreadable += 1;
            return;
        };
        let Some(point) = self.plan.point(start) else {
            return;
        };
        if !self.link.counts(&key[4..key.len() - 1]) {
            return;
        }
        match code::decode(schema, value) {
            Ok(sum) => self.add(point, |into| into.add(&sum)),
            Err(_) => self.found.unreadable += 1,
        }
    }

    fn raw(&mut self, mark: &Mark) -> Result<(), StoreError> {
        let first = Position::at(self.plan.start - EARLY);
        let last = Position::at(self.plan.end + LONGEST_WINDOW + LATE);
        self.journal((first, last), &|_, _| true, &|_, _, _| true)?;
        let apart = move |position: Position| position < first || position > last;
        let mut late = Vec::new();
        let begin = key::late(self.plan.start, Position::default());
        self.store.scan(Column::Late, &begin, &mut |key, region| {
            let Some((window, position)) = key::from_late(key) else {
                self.found.unreadable += 1;
                return ControlFlow::Continue(());
            };
            if window >= self.plan.end || !self.visit(|left| &mut left.records, 1, "records") {
                return ControlFlow::Break(());
            }
            if region == self.link.from.as_str().as_bytes() && apart(position) {
                late.push(position);
            }
            ControlFlow::Continue(())
        })?;
        for position in late {
            if self.failure.is_some() {
                return Ok(());
            }
            if let Some(value) = self.store.get(Column::Journal, &position.key())? {
                self.record(position, &value, &|_, _| true, &|_, _, _| true);
            }
        }
        // What the index does not name yet.
        let folded = Position::from(mark.folded);
        let is_late = move |position: Position, window: Window| {
            position > folded && apart(position) && is_late(window, position.time)
        };
        for (begin, end) in [(folded, first), (folded.max(last), END)] {
            if begin < end {
                self.journal((begin, end), &is_late, &|_, _, _| true)?;
            }
        }
        Ok(())
    }

    /// Adds what a stretch of the journal says of the link, as far as it is wanted.
    fn journal(
        &mut self,
        (first, last): Stretch,
        is_batch: &dyn Fn(Position, Window) -> bool,
        is_row: &dyn Fn(Position, Window, &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        let store = self.store;
        store.scan(Column::Journal, &first.key(), &mut |key, value| {
            let Some(position) = Position::from_key(key) else {
                self.found.unreadable += 1;
                return ControlFlow::Continue(());
            };
            if position > last || !self.visit(|left| &mut left.records, 1, "records") {
                return ControlFlow::Break(());
            }
            self.record(position, value, is_batch, is_row);
            self.flow()
        })
    }

    fn record(
        &mut self,
        position: Position,
        value: &[u8],
        is_batch: &dyn Fn(Position, Window) -> bool,
        is_row: &dyn Fn(Position, Window, &[u8]) -> bool,
    ) {
        let batch = match BatchAt::of(value) {
            Ok(Some(batch)) if batch.region_text() == self.link.from.as_str() => batch,
            Ok(_) => return,
            Err(_) => {
                self.found.unreadable += 1;
                return;
            }
        };
        match batch::peek(batch.bytes) {
            Ok(key) if self.plan.point(key.window.start).is_none() => return,
            Ok(key) if !is_batch(position, key.window) => return,
            _ => {}
        }
        if !self.visit(|left| &mut left.bytes, batch.bytes.len() as u64, "bytes") {
            return;
        }
        if self.batch(position, &batch, is_row).is_none() {
            self.found.unreadable += 1;
        }
    }

    /// `None` if the batch cannot be read.
    fn batch(
        &mut self,
        position: Position,
        record: &BatchAt<'_>,
        is_row: &dyn Fn(Position, Window, &[u8]) -> bool,
    ) -> Option<()> {
        let unread = batch::open(record.bytes).ok()?;
        let window = unread.head().key.window;
        let paths = self.tables.paths(unread.head(), &self.link.from).ok()?;
        let point = self.plan.point(window.start)?;
        let link = Grain::Hour.link_key(Timestamp::EPOCH, &self.link.from, &self.link.to);
        let mut beyond = false;
        // Most rows are of other links; no report of theirs is made.
        let read = unread.rows(|row, report| {
            let Some(path) = paths.get(row as usize) else {
                beyond = true;
                return;
            };
            let counts = path.starts_with(&link[4..]) && self.link.counts(path);
            if counts && is_row(position, window, path) {
                self.add(point, |into| into.report(report));
            }
        });
        (read.is_ok() && !beyond).then_some(())
    }

    fn add(&mut self, point: u64, add: impl FnOnce(&mut Sum)) {
        let entry = self.found.points.entry(point);
        // What is added to nothing brings its own schema.
        let into = entry.or_insert_with(|| Sum::new(Schema::default()));
        let before = into.rtt.buckets.len();
        add(into);
        let more = into.rtt.buckets.len().saturating_sub(before) as u64;
        self.visit(|left| &mut left.buckets, more, "filled buckets");
    }

    /// Whether so many more may be visited.
    fn visit(
        &mut self,
        of: impl FnOnce(&mut Limits) -> &mut u64,
        count: u64,
        what: &'static str,
    ) -> bool {
        let left = of(&mut self.left);
        match left.checked_sub(count) {
            Some(rest) => {
                *left = rest;
                if rest.is_multiple_of(4_096) && !(self.go_on)() {
                    self.failure.get_or_insert(Failure::GivenUp);
                }
            }
            None => {
                self.failure.get_or_insert(Failure::TooMuch(what));
            }
        }
        self.failure.is_none()
    }

    fn flow(&self) -> ControlFlow<()> {
        match self.failure {
            None => ControlFlow::Continue(()),
            Some(_) => ControlFlow::Break(()),
        }
    }
}

#[cfg(test)]
mod tests;
