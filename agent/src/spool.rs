//! Batches that wait until every aggregator has stored them; findings wait among them.
//!
//! The spool numbers batches, remembers which aggregator has stored which, frees a batch when all have it, and gives
//! up the oldest when its memory is full. Today it lives in memory and dies with the process: sequences begin anew with
//! the boot epoch, so nothing is counted twice. Whoever adds a disk keeps this interface and makes the boot epoch
//! outlive the process.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use leeward_common::time::Timestamp;

/// The most aggregators: one bit each in a batch's account.
pub const AGGREGATORS_MAX: usize = 16;

/// The table of what refers to none: findings. Tables count from 1.
pub const NO_TABLE: u32 = 0;

/// What a waiting batch costs beside its bytes: two allocations and its share of a tree node.
const ENTRY_BYTES: usize = 128;

/// When a batch may be forgotten.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum FreeWhen {
    /// Every aggregator has stored it.
    #[default]
    DurableEverywhere,
}

impl FreeWhen {
    const fn met(self, stored: u16, aggregators: usize) -> bool {
        match self {
            Self::DurableEverywhere => stored.count_ones() as usize >= aggregators,
        }
    }
}

/// A batch that waits.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// The path table that its rows refer to.
    pub table: u32,
    /// The whole frame as it goes on a stream.
    pub frame: Arc<[u8]>,
    /// When the window ended that it tells of, by this host's clock.
    pub window_end: Timestamp,
    stored: u16,
}

impl Waiting {
    /// Whether this aggregator has it.
    #[must_use]
    pub const fn is_durable_at(&self, aggregator: usize) -> bool {
        self.stored >> aggregator & 1 == 1
    }

    fn cost(&self) -> usize {
        self.frame.len() + ENTRY_BYTES
    }
}

/// The batches that wait.
#[derive(Debug)]
pub struct Spool {
    boot_epoch: u64,
    free_when: FreeWhen,
    aggregators: usize,
    limit_bytes: usize,
    held_bytes: usize,
    next_sequence: u64,
    waiting: BTreeMap<u64, Waiting>,
    /// How many waiting batches refer to each path table.
    tables: BTreeMap<u32, usize>,
    dropped: u64,
}

impl Spool {
    /// An empty spool for a number of aggregators, at most [`AGGREGATORS_MAX`].
    #[must_use]
    pub fn new(boot_epoch: u64, aggregators: usize, limit_bytes: usize) -> Self {
        debug_assert!(aggregators <= AGGREGATORS_MAX);
        Self {
            boot_epoch,
            free_when: FreeWhen::default(),
            aggregators,
            limit_bytes,
            held_bytes: 0,
            next_sequence: 0,
            waiting: BTreeMap::new(),
            tables: BTreeMap::new(),
            dropped: 0,
        }
    }

    /// Which life of the spool the sequences count in.
    #[must_use]
    pub const fn boot_epoch(&self) -> u64 {
        self.boot_epoch
    }

    /// The sequence of the batch that is pushed next.
    #[must_use]
    pub const fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// Adds a batch and returns the sequences of those given up for it, oldest first.
    pub fn push(&mut self, table: u32, window_end: Timestamp, frame: Vec<u8>) -> VecDeque<u64> {
        let batch = Waiting {
            table,
            frame: Arc::from(frame),
            window_end,
            stored: 0,
        };
        self.held_bytes += batch.cost();
        *self.tables.entry(table).or_default() += 1;
        self.waiting.insert(self.next_sequence, batch);
        self.next_sequence += 1;
        let mut given_up = VecDeque::new();
        while self.held_bytes > self.limit_bytes
            && let Some((&sequence, _)) = self.waiting.first_key_value()
        {
            self.free(sequence);
            self.dropped += 1;
            given_up.push_back(sequence);
        }
        given_up
    }

    /// Notes that an aggregator has stored a batch, and returns the end of its window if that is news. Sequences that
    /// do not wait are ignored.
    pub fn durable(&mut self, aggregator: usize, sequence: u64) -> Option<Timestamp> {
        let batch = self.waiting.get_mut(&sequence)?;
        let news = (!batch.is_durable_at(aggregator)).then_some(batch.window_end);
        batch.stored |= 1 << aggregator;
        if self.free_when.met(batch.stored, self.aggregators) {
            self.free(sequence);
        }
        news
    }

    fn free(&mut self, sequence: u64) {
        let Some(batch) = self.waiting.remove(&sequence) else {
            return;
        };
        self.held_bytes -= batch.cost();
        if let Some(count) = self.tables.get_mut(&batch.table) {
            *count -= 1;
            if *count == 0 {
                self.tables.remove(&batch.table);
            }
        }
    }

    /// Notes that an aggregator has stored every batch below a sequence.
    pub fn durable_below(&mut self, aggregator: usize, end: u64) {
        let below: Vec<u64> = self
            .waiting
            .range(..end)
            .map(|(&sequence, _)| sequence)
            .collect();
        for sequence in below {
            self.durable(aggregator, sequence);
        }
    }

    /// Sequences of findings that an aggregator has not stored, ascending.
    pub fn findings_missing_at(&self, aggregator: usize) -> impl Iterator<Item = u64> {
        let is_finding = |sequence: &u64| {
            let waiting = self.waiting.get(sequence);
            waiting.is_some_and(|own| own.table == NO_TABLE)
        };
        self.missing_at(aggregator).filter(is_finding)
    }

    /// One waiting batch.
    #[must_use]
    pub fn get(&self, sequence: u64) -> Option<&Waiting> {
        self.waiting.get(&sequence)
    }

    /// Sequences that an aggregator has not stored, ascending.
    pub fn missing_at(&self, aggregator: usize) -> impl Iterator<Item = u64> {
        let missing = self
            .waiting
            .iter()
            .filter(move |(_, batch)| !batch.is_durable_at(aggregator));
        missing.map(|(&sequence, _)| sequence)
    }

    /// Whether a waiting batch refers to this path table.
    #[must_use]
    pub fn refers_to(&self, table: u32) -> bool {
        self.tables.contains_key(&table)
    }

    /// Batches that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Memory held by those that wait.
    #[must_use]
    pub const fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Batches given up because the memory was full, since the start.
    #[must_use]
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn spool(aggregators: usize, batches: u64) -> Spool {
        let mut spool = Spool::new(7, aggregators, 1 << 20);
        for _ in 0..batches {
            assert!(spool.push(1, Timestamp::EPOCH, vec![0; 100]).is_empty());
        }
        spool
    }

    #[test]
    fn a_batch_is_freed_when_every_aggregator_has_it() {
        let mut spool = spool(2, 1);
        spool.durable(0, 0);
        spool.durable(0, 0);
        assert_eq!(
            (
                spool.len(),
                spool.missing_at(0).count(),
                spool.missing_at(1).count()
            ),
            (1, 0, 1)
        );
        spool.durable(1, 0);
        assert!(spool.is_empty());
        assert_eq!(spool.held_bytes(), 0);
    }

    #[test]
    fn everything_below_a_sequence_is_freed_at_once() {
        let mut spool = spool(1, 5);
        spool.durable_below(0, 3);
        assert_eq!(spool.missing_at(0).collect::<Vec<_>>(), [3, 4]);
        spool.durable_below(0, u64::MAX);
        assert!(spool.is_empty());
    }

    #[test]
    fn the_oldest_are_given_up_when_the_memory_is_full() {
        let mut spool = Spool::new(7, 1, 3 * (100 + ENTRY_BYTES));
        for _ in 0..3 {
            assert!(spool.push(1, Timestamp::EPOCH, vec![0; 100]).is_empty());
        }
        assert_eq!(spool.push(1, Timestamp::EPOCH, vec![0; 101]), [0, 1]);
        assert_eq!(spool.missing_at(0).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(spool.dropped(), 2);
    }

    #[test]
    fn a_batch_larger_than_the_memory_is_given_up_itself() {
        let mut spool = Spool::new(7, 1, 100);
        assert_eq!(spool.push(1, Timestamp::EPOCH, vec![0; 100]), [0]);
        assert_eq!((spool.held_bytes(), spool.dropped()), (0, 1));
    }

    #[test]
    fn acknowledgements_of_what_never_was_are_ignored() {
        let mut spool = spool(1, 1);
        spool.durable(0, 99);
        assert_eq!(spool.len(), 1);
    }

    proptest! {
        /// Every batch ends as stored, waiting or given up, and the memory account is exact.
        #[test]
        fn every_batch_is_accounted_for(
            steps in prop::collection::vec((0usize..600, 0usize..2, 0u64..60), 1..200),
        ) {
            let mut spool = Spool::new(7, 2, 4_000);
            let mut stored = std::collections::BTreeSet::new();
            let mut given_up = 0;
            for (size, aggregator, sequence) in steps {
                given_up += spool.push(1, Timestamp::EPOCH, vec![0; size]).len() as u64;
                let before = spool.len();
                spool.durable(aggregator, sequence);
                if spool.len() < before {
                    stored.insert(sequence);
                }
                prop_assert!(spool.held_bytes() <= 4_000);
            }
            prop_assert_eq!(spool.dropped(), given_up);
            prop_assert_eq!(spool.next_sequence(), stored.len() as u64 + given_up + spool.len() as u64);
            let held: usize = spool.waiting.values().map(Waiting::cost).sum();
            prop_assert_eq!(spool.held_bytes(), held);
            prop_assert_eq!(spool.refers_to(1), !spool.is_empty());
        }
    }
}
