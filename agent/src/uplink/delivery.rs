//! What one aggregator is sent next: the state of one connection, without the connection.
//!
//! Fresh windows are what decisions wait for, so a batch that closed during the connection goes before the backlog of
//! an outage, the newest first; the backlog follows in the order in which it was measured. Within one connection
//! nothing is sent twice: streams are reliable, and whatever was not acknowledged when the connection ended is sent
//! again on the next one.

use std::collections::BTreeSet;

use crate::spool::{NO_TABLE, Spool};

/// Backlog batches that may be under way at once. Enough to fill a path of 100 ms with batches of 20 kB at 25 Mbit/s,
/// and few enough that a fresh batch never waits for a stream.
pub const BACKLOG_UNDER_WAY_MAX: usize = 16;

/// Batches of any kind that may be under way at once. The rest wait in the spool.
pub const UNDER_WAY_MAX: usize = 28;

/// Path tables that may be under way at once. There is one unless the mesh changed while there was no connection.
pub const TABLES_UNDER_WAY_MAX: usize = 8;

/// Which of two streams goes first when both have bytes to send.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Urgency {
    /// From before the connection.
    Backlog,
    /// Closed during the connection.
    Fresh,
}

impl Urgency {
    /// Priority of its stream.
    #[must_use]
    pub const fn priority(self) -> i32 {
        match self {
            Self::Backlog => 0,
            Self::Fresh => 10,
        }
    }
}

/// The state of one connection.
#[derive(Debug)]
pub struct Delivery {
    /// Sequences from here on closed during the connection.
    fresh_from: u64,
    unsent: BTreeSet<u64>,
    under_way: BTreeSet<u64>,
    tables_sent: BTreeSet<u32>,
    tables_durable: BTreeSet<u32>,
}

impl Delivery {
    /// A connection that has just begun: everything that the aggregator has not stored is still to be sent.
    #[must_use]
    pub fn new(aggregator: usize, spool: &Spool) -> Self {
        Self {
            fresh_from: spool.next_sequence(),
            unsent: spool.missing_at(aggregator).collect(),
            under_way: BTreeSet::new(),
            tables_sent: BTreeSet::new(),
            tables_durable: BTreeSet::new(),
        }
    }

    /// A window has closed during the connection.
    pub fn on_push(&mut self, sequence: u64) {
        self.unsent.insert(sequence);
    }

    /// The spool has given up a batch. One that is under way stays so: it may arrive yet.
    pub fn on_given_up(&mut self, sequence: u64) {
        self.unsent.remove(&sequence);
    }

    /// The aggregator has stored a batch.
    pub fn on_durable(&mut self, sequence: u64) {
        self.under_way.remove(&sequence);
        self.unsent.remove(&sequence);
    }

    /// The aggregator has stored a path table. Answers to tables that were never sent are ignored.
    pub fn on_table_durable(&mut self, table: u32) {
        if self.tables_sent.contains(&table) {
            self.tables_durable.insert(table);
        }
    }

    /// The path table to send now, out of all that are known, ascending; it counts as sent from now on. The newest
    /// goes first, because fresh windows refer to it.
    pub fn begin_table(&mut self, known: impl DoubleEndedIterator<Item = u32>) -> Option<u32> {
        if self.tables_sent.len() >= self.tables_durable.len() + TABLES_UNDER_WAY_MAX {
            return None;
        }
        let mut known = known;
        let newest = known
            .next_back()
            .filter(|table| !self.tables_sent.contains(table));
        let table = newest.or_else(|| known.find(|table| !self.tables_sent.contains(table)))?;
        self.tables_sent.insert(table);
        Some(table)
    }

    /// Forgets tables that nothing refers to any more.
    pub fn retain_tables(&mut self, keep: impl Fn(u32) -> bool) {
        self.tables_sent.retain(|&table| keep(table));
        self.tables_durable.retain(|&table| keep(table));
    }

    /// The batch to send now, if any; it counts as under way from now on.
    pub fn begin_next(&mut self, spool: &Spool) -> Option<(u64, Urgency)> {
        if self.under_way.len() >= UNDER_WAY_MAX {
            return None;
        }
        let next = self
            .next_fresh(spool)
            .or_else(|| self.next_backlog(spool))?;
        self.unsent.remove(&next.0);
        self.under_way.insert(next.0);
        Some(next)
    }

    /// Whether anything is sent and not acknowledged, or waits to be sent.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.under_way.is_empty() && self.unsent.is_empty()
    }

    /// Batches sent and not yet acknowledged.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.under_way.len()
    }

    fn next_fresh(&self, spool: &Spool) -> Option<(u64, Urgency)> {
        let fresh = self.unsent.range(self.fresh_from..).rev();
        let sequence = fresh
            .copied()
            .find(|&sequence| self.may_be_sent(spool, sequence))?;
        Some((sequence, Urgency::Fresh))
    }

    fn next_backlog(&self, spool: &Spool) -> Option<(u64, Urgency)> {
        if self.under_way.range(..self.fresh_from).count() >= BACKLOG_UNDER_WAY_MAX {
            return None;
        }
        let &sequence = self.unsent.range(..self.fresh_from).next()?;
        self.may_be_sent(spool, sequence)
            .then_some((sequence, Urgency::Backlog))
    }

    /// Rows mean nothing before their table is stored. Findings have neither.
    fn may_be_sent(&self, spool: &Spool, sequence: u64) -> bool {
        spool
            .get(sequence)
            .is_some_and(|own| own.table == NO_TABLE || self.tables_durable.contains(&own.table))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use leeward_common::time::Timestamp;
    use proptest::prelude::*;

    fn push(spool: &mut Spool, delivery: &mut Delivery, table: u32) {
        delivery.on_push(spool.next_sequence());
        for given_up in spool.push(table, Timestamp::EPOCH, vec![0; 10]) {
            delivery.on_given_up(given_up);
        }
    }

    fn backlog(batches: u64) -> (Spool, Delivery) {
        let mut spool = Spool::new(1, 1, 1 << 20);
        for _ in 0..batches {
            spool.push(1, Timestamp::EPOCH, vec![0; 10]);
        }
        let mut delivery = Delivery::new(0, &spool);
        assert_eq!(delivery.begin_table([1].into_iter()), Some(1));
        delivery.on_table_durable(1);
        (spool, delivery)
    }

    #[test]
    fn nothing_is_sent_before_its_table_is_durable() {
        let mut spool = Spool::new(1, 1, 1 << 20);
        let mut delivery = Delivery::new(0, &spool);
        push(&mut spool, &mut delivery, 1);
        assert_eq!(delivery.begin_next(&spool), None);
        delivery.on_table_durable(1);
        assert_eq!(
            delivery.begin_next(&spool),
            None,
            "an answer to a table that was never sent"
        );
        assert_eq!(delivery.begin_table([1].into_iter()), Some(1));
        assert_eq!(delivery.begin_table([1].into_iter()), None);
        assert_eq!(delivery.begin_next(&spool), None, "sent is not durable");
        delivery.on_table_durable(1);
        assert_eq!(delivery.begin_next(&spool), Some((0, Urgency::Fresh)));
        assert_eq!(delivery.begin_next(&spool), None);
    }

    #[test]
    fn the_newest_table_goes_first_and_not_all_at_once() {
        let spool = Spool::new(1, 1, 1 << 20);
        let mut delivery = Delivery::new(0, &spool);
        let sent: Vec<_> = std::iter::from_fn(|| delivery.begin_table(1..=20)).collect();
        assert_eq!(sent, [20, 1, 2, 3, 4, 5, 6, 7]);
        delivery.on_table_durable(20);
        assert_eq!(delivery.begin_table(1..=21), Some(21));
        assert_eq!(delivery.begin_table(1..=21), None);
    }

    #[test]
    fn fresh_windows_overtake_the_backlog() {
        let (mut spool, mut delivery) = backlog(3);
        assert_eq!(delivery.begin_next(&spool), Some((0, Urgency::Backlog)));
        push(&mut spool, &mut delivery, 1);
        push(&mut spool, &mut delivery, 1);
        let order: Vec<_> = std::iter::from_fn(|| delivery.begin_next(&spool))
            .map(|(sequence, _)| sequence)
            .collect();
        assert_eq!(order, [4, 3, 1, 2]);
    }

    #[test]
    fn a_finding_needs_no_table_and_takes_its_turn() {
        let mut spool = Spool::new(1, 1, 1 << 20);
        spool.push(NO_TABLE, Timestamp::EPOCH, vec![0; 10]);
        let mut delivery = Delivery::new(0, &spool);
        push(&mut spool, &mut delivery, 1);
        push(&mut spool, &mut delivery, NO_TABLE);
        assert_eq!(delivery.begin_next(&spool), Some((2, Urgency::Fresh)));
        assert_eq!(delivery.begin_next(&spool), Some((0, Urgency::Backlog)));
        assert_eq!(delivery.begin_next(&spool), None);
        assert_eq!(spool.findings_missing_at(0).collect::<Vec<_>>(), [0, 2]);
    }

    #[test]
    fn a_fresh_window_of_a_new_table_does_not_hold_up_those_of_the_old_one() {
        let (mut spool, mut delivery) = backlog(0);
        push(&mut spool, &mut delivery, 1);
        push(&mut spool, &mut delivery, 2);
        assert_eq!(delivery.begin_next(&spool), Some((0, Urgency::Fresh)));
        assert_eq!(delivery.begin_next(&spool), None);
    }

    #[test]
    fn a_connection_begins_with_what_its_own_aggregator_does_not_have() {
        let mut spool = Spool::new(1, 2, 1 << 20);
        for _ in 0..3 {
            spool.push(1, Timestamp::EPOCH, vec![0; 10]);
        }
        spool.durable(0, 1);
        spool.durable(1, 0);
        for (aggregator, missing) in [(0, [0, 2]), (1, [1, 2])] {
            let mut delivery = Delivery::new(aggregator, &spool);
            assert_eq!(delivery.begin_table([1].into_iter()), Some(1));
            delivery.on_table_durable(1);
            let sent = std::iter::from_fn(|| delivery.begin_next(&spool));
            assert_eq!(
                sent.map(|(sequence, _)| sequence).collect::<Vec<_>>(),
                missing
            );
        }
    }

    #[test]
    fn the_backlog_leaves_room_for_fresh_windows() {
        let (mut spool, mut delivery) = backlog(100);
        assert_eq!(
            std::iter::from_fn(|| delivery.begin_next(&spool)).count(),
            BACKLOG_UNDER_WAY_MAX
        );
        push(&mut spool, &mut delivery, 1);
        assert_eq!(delivery.begin_next(&spool), Some((100, Urgency::Fresh)));
        delivery.on_durable(0);
        assert_eq!(delivery.begin_next(&spool), Some((16, Urgency::Backlog)));
    }

    #[test]
    fn what_was_given_up_is_not_sent() {
        let (spool, mut delivery) = backlog(2);
        delivery.on_given_up(0);
        assert_eq!(delivery.begin_next(&spool), Some((1, Urgency::Backlog)));
        assert!(!delivery.is_done());
        delivery.on_durable(1);
        assert!(delivery.is_done());
    }

    proptest! {
        /// Nothing is sent twice on one connection, and with every batch acknowledged everything is sent.
        #[test]
        fn everything_is_sent_exactly_once(
            before in 0u64..80,
            steps in prop::collection::vec(0u8..3, 0..200),
        ) {
            let (mut spool, mut delivery) = backlog(before);
            let mut sent = Vec::new();
            for step in steps {
                match step {
                    // Findings wait among the batches.
                    0 => push(&mut spool, &mut delivery, sent.len() as u32 % 2),
                    1 => sent.extend(delivery.begin_next(&spool).map(|(sequence, _)| sequence)),
                    _ => if let Some(&sequence) = sent.last() {
                        spool.durable(0, sequence);
                        delivery.on_durable(sequence);
                    },
                }
                prop_assert!(delivery.under_way() <= UNDER_WAY_MAX);
            }
            for sequence in sent.clone() {
                delivery.on_durable(sequence);
            }
            while let Some((sequence, _)) = delivery.begin_next(&spool) {
                sent.push(sequence);
                delivery.on_durable(sequence);
            }
            sent.sort_unstable();
            prop_assert_eq!(sent, (0..spool.next_sequence()).collect::<Vec<_>>());
            prop_assert!(delivery.is_done());
        }
    }
}
