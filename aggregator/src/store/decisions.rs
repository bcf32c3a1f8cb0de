//! Decisions in the store, by their numbers.
//!
//! They are keyed by time with the number behind it, and both only grow. So a number is found by halving the time
//! between the first and the last decision: some 45 look-ups in a year of decisions, and no index to keep true.

use std::ops::ControlFlow;

use leeward_common::time::Timestamp;

use super::{Read, StoreError, key::Column, key::Position, record::v1};

/// Records that one reading visits at most, whatever it looks for.
pub const MAX_VISITED: usize = 4_096;

/// Bytes that one reading visits at most: with 64 regions a decision weighs some 60 kB.
const MAX_BYTES: usize = 32 << 20;

/// What a reading found.
#[derive(Debug, Default)]
pub struct Found {
    /// In the order asked for.
    pub decisions: Vec<v1::Decided>,
    /// Where it stopped, if there may be more: the number of the last decision that was looked at.
    pub stopped_at: Option<u64>,
}

/// The number of the last decision; 0 if there is none.
///
/// # Errors
///
/// Returns [`StoreError`] when the store cannot be read.
pub fn greatest(store: &dyn Read) -> Result<u64, StoreError> {
    let last = store.last(Column::Decisions)?;
    let id = |(key, value): (Vec<u8>, Vec<u8>)| match v1::decode::<v1::Decided>("decision", &value)
    {
        Ok(decided) => decided.id,
        // The key has its low half, which is all of it for four thousand million decisions.
        Err(_) => Position::from_key(&key).map_or(0, |at| at.counter.into()),
    };
    Ok(last.map_or(0, id))
}

/// The decision of this number.
///
/// # Errors
///
/// Returns [`StoreError`] when the store cannot be read.
pub fn find(store: &dyn Read, id: u64) -> Result<Option<v1::Decided>, StoreError> {
    let mut found = None;
    if let Some(position) = at_or_after(store, id)? {
        visit(store, position, |record| {
            found = Some(record).filter(|record| record.id == id);
            ControlFlow::Break(())
        })?;
    }
    Ok(found)
}

/// The decision at this position.
///
/// # Errors
///
/// Returns [`StoreError`] when the store cannot be read.
pub fn is_at(store: &dyn Read, position: Position) -> Result<bool, StoreError> {
    Ok(first_from(store, position)? == Some(position))
}

/// Those with a smaller number than `before`, newest first; at most `limit` of those that `wanted` picks.
///
/// # Errors
///
/// Returns [`StoreError`] when the store cannot be read.
pub fn before(
    store: &dyn Read,
    before: u64,
    limit: usize,
    wanted: impl Fn(&v1::Decided) -> bool,
) -> Result<Found, StoreError> {
    // Beyond the newest everything is before it.
    let until = at_or_after(store, before)?.map_or([0xff; 12], Position::key);
    let mut reading = Reading::new(limit);
    reading.last = before;
    store.scan_back(Column::Decisions, &until, &mut |_, value| {
        reading.visit(value, &wanted)
    })?;
    reading.result
}

/// Those after a position, oldest first; at most `limit`.
///
/// # Errors
///
/// Returns [`StoreError`] when the store cannot be read.
pub fn after(store: &dyn Read, position: Position, limit: usize) -> Result<Found, StoreError> {
    let from = position.next(position.time).key();
    let mut reading = Reading::new(limit);
    store.scan(Column::Decisions, &from, &mut |_, value| {
        reading.visit(value, &|_| true)
    })?;
    reading.result
}

struct Reading {
    limit: usize,
    visited: usize,
    bytes: usize,
    last: u64,
    result: Result<Found, StoreError>,
}

impl Reading {
    fn new(limit: usize) -> Self {
        Self {
            limit,
            visited: 0,
            bytes: 0,
            last: 0,
            result: Ok(Found::default()),
        }
    }

    fn visit(&mut self, value: &[u8], wanted: &impl Fn(&v1::Decided) -> bool) -> ControlFlow<()> {
        let Ok(found) = &mut self.result else {
            return ControlFlow::Break(());
        };
        let is_full = found.decisions.len() >= self.limit;
        if is_full || self.visited >= MAX_VISITED || self.bytes >= MAX_BYTES {
            found.stopped_at = Some(self.last);
            return ControlFlow::Break(());
        }
        self.visited += 1;
        self.bytes += value.len();
        match v1::decode::<v1::Decided>("decision", value) {
            Ok(record) => {
                self.last = record.id;
                if wanted(&record) {
                    found.decisions.push(record);
                }
                ControlFlow::Continue(())
            }
            Err(error) => {
                self.result = Err(error);
                ControlFlow::Break(())
            }
        }
    }
}

/// Where the first decision is whose number is not below `id`; `None` if all are below it.
fn at_or_after(store: &dyn Read, id: u64) -> Result<Option<Position>, StoreError> {
    let number = |position: Position| u64::from(position.counter);
    let last = store.last(Column::Decisions)?;
    let Some(last) = last.and_then(|(key, _)| Position::from_key(&key)) else {
        return Ok(None);
    };
    if number(last) < id {
        return Ok(None);
    }
    // At `high` and later everything has a number of at least `id`; the first at `low` or later has a smaller one.
    let (mut low, mut high) = (0, last.time.as_unix_us().saturating_add(1));
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        match first_from(store, Position::at(Timestamp::from_unix_us(middle)))? {
            Some(first) if number(first) < id => low = first.time.as_unix_us().max(middle),
            Some(_) | None => high = middle,
        }
    }
    // Several may be of the same time.
    let counter = u32::try_from(id).unwrap_or(u32::MAX);
    let time = Timestamp::from_unix_us(low);
    first_from(store, Position { time, counter })
}

fn first_from(store: &dyn Read, from: Position) -> Result<Option<Position>, StoreError> {
    let mut first = None;
    store.scan(Column::Decisions, &from.key(), &mut |key, _| {
        first = Position::from_key(key);
        ControlFlow::Break(())
    })?;
    Ok(first)
}

fn visit(
    store: &dyn Read,
    from: Position,
    mut each: impl FnMut(v1::Decided) -> ControlFlow<()>,
) -> Result<(), StoreError> {
    let mut read = Ok(());
    store.scan(
        Column::Decisions,
        &from.key(),
        &mut |_, value| match v1::decode("decision", value) {
            Ok(record) => each(record),
            Err(error) => {
                read = Err(error);
                ControlFlow::Break(())
            }
        },
    )?;
    read
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::{Store as _, Writes, memory::Memory, tests::decided};

    /// A store with these decisions: number and time in microseconds.
    fn store(decisions: &[(u64, u64)]) -> Memory {
        let mut store = Memory::default();
        let mut writes = Writes::default();
        for &(id, us) in decisions {
            let position = Position {
                time: Timestamp::from_unix_us(us),
                counter: id as u32,
            };
            let primary = if id % 3 == 0 { "pdx" } else { "iad" };
            writes.decided(
                position,
                &v1::Decided {
                    at_us: us,
                    primary: leeward_common::id::RegionId::parse(primary).unwrap(),
                    ..decided(id)
                },
            );
        }
        store.commit(&writes).unwrap();
        store
    }

    fn ids(found: &Found) -> Vec<u64> {
        found.decisions.iter().map(|decision| decision.id).collect()
    }

    #[test]
    fn a_page_says_where_it_stopped_and_the_next_one_goes_on_there() {
        let store = store(&[(1, 10), (2, 10), (3, 10), (4, 20), (5, 500)]);
        let first = before(&store, u64::MAX, 2, |_| true).unwrap();
        assert_eq!((ids(&first), first.stopped_at), (vec![5, 4], Some(4)));
        let rest = before(&store, 4, 9, |_| true).unwrap();
        assert_eq!((ids(&rest), rest.stopped_at), (vec![3, 2, 1], None));
        let of_one = before(&store, u64::MAX, 9, |one| one.primary.as_str() == "pdx").unwrap();
        assert_eq!(ids(&of_one), [3]);
    }

    #[test]
    fn what_came_after_an_event_is_told_oldest_first() {
        let store = store(&[(1, 10), (2, 10), (3, 10), (4, 20)]);
        let at = |us, counter| Position {
            time: Timestamp::from_unix_us(us),
            counter,
        };
        let found = after(&store, at(10, 2), 9).unwrap();
        assert_eq!((ids(&found), found.stopped_at), (vec![3, 4], None));
        let found = after(&store, at(10, 2), 1).unwrap();
        assert_eq!((ids(&found), found.stopped_at), (vec![3], Some(3)));
        assert!(is_at(&store, at(10, 2)).unwrap());
        assert!(!is_at(&store, at(11, 2)).unwrap());
    }

    #[test]
    fn a_reading_ends_even_if_nothing_is_wanted() {
        let many: Vec<(u64, u64)> = (1..=5_000).map(|id| (id, id)).collect();
        let found = before(&store(&many), u64::MAX, 9, |_| false).unwrap();
        assert_eq!(found.stopped_at, Some(5_001 - MAX_VISITED as u64));
    }

    proptest! {
        #[test]
        fn every_number_is_found_and_no_other(
            steps in proptest::collection::vec((1_u64..3, 0_u64..1 << 40), 0..60),
            asked in 0_u64..130,
        ) {
            let mut decisions = Vec::new();
            let (mut id, mut us) = (0, 0);
            for (by, later) in steps {
                (id, us) = (id + by, us + if later % 3 == 0 { 0 } else { later });
                decisions.push((id, us));
            }
            let store = store(&decisions);
            let expected = decisions.iter().find(|(id, _)| *id == asked);
            prop_assert_eq!(find(&store, asked).unwrap().map(|one| (one.id, one.at_us)), expected.copied());
            let smaller: Vec<u64> =
                decisions.iter().rev().map(|(id, _)| *id).filter(|id| *id < asked).collect();
            prop_assert_eq!(ids(&before(&store, asked, 100, |_| true).unwrap()), smaller);
        }
    }
}
