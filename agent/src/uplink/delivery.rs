//! What one aggregator is sent next: the state of one connection, without the connection.
//!
//! Fresh windows are what decisions wait for, so a batch that closed during the connection goes before the backlog of
//! an outage, the newest first; the backlog follows in the order in which it was measured. Within one connection
//! nothing is sent twice: streams are reliable, and whatever was not acknowledged when the connection ended is sent
//! again on the next one.

use std::collections::BTreeSet;

use leeward_common::wire::v1;

use crate::spool::Spool;

/// Backlog batches that may be under way at once. Enough to fill a path of 100 ms with batches of 20 kB at 25 Mbit/s,
/// and few enough that a fresh batch never waits for a stream.
pub const BACKLOG_UNDER_WAY_MAX: usize = 16;

/// Batches of any kind that may be under way at once. The rest wait in the spool.
pub const UNDER_WAY_MAX: usize = 28;

/// Places that are looked at for one that may be sent. What is on disk is asked for in the same order.
const LOOK_AT: usize = 64;

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
    /// Places from here on were taken during the connection.
    fresh_from: u64,
    /// Boot epochs before the present one that the aggregator takes messages of.
    epochs: BTreeSet<u64>,
    /// How many messages the aggregator lets be under way.
    credit: usize,
    unsent: BTreeSet<u64>,
    under_way: BTreeSet<u64>,
    tables_sent: BTreeSet<u64>,
    tables_durable: BTreeSet<u64>,
}

impl Delivery {
    /// A connection that has just begun: everything that the aggregator has not settled is still to be sent.
    #[must_use]
    pub fn new(aggregator: usize, spool: &Spool, welcome: &v1::Welcome) -> Self {
        let known = welcome.backlog.iter().map(|known| known.boot_epoch);
        let mut delivery = Self {
            fresh_from: spool.next_place(),
            epochs: known.collect(),
            credit: UNDER_WAY_MAX,
            unsent: BTreeSet::new(),
            under_way: BTreeSet::new(),
            tables_sent: BTreeSet::new(),
            tables_durable: BTreeSet::new(),
        };
        delivery.on_credit(welcome.credit);
        for place in spool.missing_at(aggregator) {
            delivery.on_added(spool, place);
        }
        delivery
    }

    /// Whether messages of this boot epoch may be sent on the connection.
    #[must_use]
    pub fn takes(&self, spool: &Spool, boot_epoch: u64) -> bool {
        boot_epoch == spool.boot_epoch() || self.epochs.contains(&boot_epoch)
    }

    /// The aggregator says how much may be under way, or does not say. At least one message always may: its
    /// acknowledgement brings the next word.
    pub fn on_credit(&mut self, credit: Option<u32>) {
        if let Some(credit) = credit {
            self.credit = usize::try_from(credit)
                .unwrap_or(UNDER_WAY_MAX)
                .clamp(1, UNDER_WAY_MAX);
        }
    }

    /// How many messages the aggregator lets be under way.
    #[must_use]
    pub const fn credit(&self) -> usize {
        self.credit
    }

    /// A message has taken this place during the connection.
    pub fn on_added(&mut self, spool: &Spool, place: u64) {
        let epoch = spool.get(place).map(|message| message.key.boot_epoch);
        if epoch.is_some_and(|epoch| self.takes(spool, epoch)) {
            self.unsent.insert(place);
        }
    }

    /// The message at this place waits no more. One that is under way stays so: it may arrive yet.
    pub fn on_gone(&mut self, place: u64) {
        self.unsent.remove(&place);
    }

    /// The aggregator has settled a message.
    pub fn on_settled(&mut self, place: u64) {
        self.under_way.remove(&place);
        self.unsent.remove(&place);
    }

    /// The places that are sent next, as far as they can be foretold: their frames should be in memory.
    pub fn next_places(&self) -> impl Iterator<Item = u64> {
        let fresh = self.unsent.range(self.fresh_from..).rev();
        let backlog = self.unsent.range(..self.fresh_from);
        let next = fresh
            .take(BACKLOG_UNDER_WAY_MAX)
            .chain(backlog.take(BACKLOG_UNDER_WAY_MAX));
        next.copied()
    }

    /// The aggregator has stored a path table. Answers to tables that were never sent are ignored.
    pub fn on_table_durable(&mut self, table: u64) {
        if self.tables_sent.contains(&table) {
            self.tables_durable.insert(table);
        }
    }

    /// The path table to send now, out of all that are known, ascending; it counts as sent from now on. The newest
    /// goes first, because fresh windows refer to it.
    pub fn begin_table(&mut self, known: impl DoubleEndedIterator<Item = u64>) -> Option<u64> {
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
    pub fn retain_tables(&mut self, keep: impl Fn(u64) -> bool) {
        self.tables_sent.retain(|&table| keep(table));
        self.tables_durable.retain(|&table| keep(table));
    }

    /// The batch to send now, if any; it counts as under way from now on.
    pub fn begin_next(&mut self, spool: &Spool) -> Option<(u64, Urgency)> {
        if self.under_way.len() >= self.credit {
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
        let place = fresh
            .take(LOOK_AT)
            .copied()
            .find(|&place| self.may_be_sent(spool, place))?;
        Some((place, Urgency::Fresh))
    }

    fn next_backlog(&self, spool: &Spool) -> Option<(u64, Urgency)> {
        // However little credit there is, a fresh message need not wait for one of the backlog, but for the very last place.
        let most = (self.credit * 3 / 4).clamp(1, BACKLOG_UNDER_WAY_MAX);
        if self.under_way.range(..self.fresh_from).count() >= most {
            return None;
        }
        let &place = self.unsent.range(..self.fresh_from).next()?;
        self.may_be_sent(spool, place)
            .then_some((place, Urgency::Backlog))
    }

    /// Rows mean nothing before their table is stored, and what is on disk must be read first.
    fn may_be_sent(&self, spool: &Spool, place: u64) -> bool {
        spool.get(place).is_some_and(|message| {
            let table = message.table.as_ref().map(|of| of.number);
            let is_known = table.is_none_or(|table| self.tables_durable.contains(&table));
            is_known && message.frame().is_some()
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;
    use crate::spool::{CURRENT, Change, Key, Limits, Policy, Settled, TableOf, record};
    use leeward_common::time::Timestamp;
    use proptest::prelude::*;

    /// A spool in memory for so many aggregators.
    fn spool(aggregators: usize) -> Spool {
        let limits = Limits {
            aggregators: (0..aggregators).map(|n| n.to_string()).collect(),
            policy: Policy::All,
            memory_bytes: 1 << 20,
            age: Duration::from_secs(60),
            disk: None,
        };
        Spool::new(1, limits, Vec::new())
    }

    fn welcome() -> v1::Welcome {
        v1::Welcome {
            aggregator: "main".to_owned(),
            durable_below: 0,
            findings: true,
            version: 2,
            backlog: Vec::new(),
            credit: None,
        }
    }

    fn new(aggregator: usize, spool: &Spool) -> Delivery {
        Delivery::new(aggregator, spool, &welcome())
    }

    /// Table 0 is none: findings.
    fn fill(spool: &mut Spool, table: u64) -> Vec<Change> {
        let of = (table != 0).then(|| TableOf {
            number: table,
            table: Arc::new(record::Table {
                boot_epoch: 1,
                number: 1,
                frame: Vec::new(),
            }),
        });
        let span = (Timestamp::EPOCH, Timestamp::EPOCH);
        spool.push(Duration::ZERO, of, span, vec![0; 10])
    }

    fn push(spool: &mut Spool, delivery: &mut Delivery, table: u64) {
        for change in fill(spool, table) {
            match change {
                Change::Added(place) => delivery.on_added(spool, place),
                Change::Gone(place) => delivery.on_gone(place),
                Change::Table(_) => {}
            }
        }
    }

    fn stored(spool: &mut Spool, aggregator: usize, sequence: u64) {
        let key = Key {
            boot_epoch: 1,
            sequence,
        };
        spool.settle(aggregator, key, Settled::Stored);
    }

    /// What is sent next, by its sequence.
    fn next(delivery: &mut Delivery, spool: &Spool) -> Option<(u64, Urgency)> {
        let (place, urgency) = delivery.begin_next(spool)?;
        Some((place - CURRENT, urgency))
    }

    fn backlog(batches: u64) -> (Spool, Delivery) {
        let mut spool = spool(1);
        for _ in 0..batches {
            fill(&mut spool, 1);
        }
        let mut delivery = new(0, &spool);
        assert_eq!(delivery.begin_table([1].into_iter()), Some(1));
        delivery.on_table_durable(1);
        (spool, delivery)
    }

    #[test]
    fn nothing_is_sent_before_its_table_is_durable() {
        let mut spool = spool(1);
        let mut delivery = new(0, &spool);
        push(&mut spool, &mut delivery, 1);
        assert_eq!(next(&mut delivery, &spool), None);
        delivery.on_table_durable(1);
        assert_eq!(
            next(&mut delivery, &spool),
            None,
            "an answer to a table that was never sent"
        );
        assert_eq!(delivery.begin_table([1].into_iter()), Some(1));
        assert_eq!(delivery.begin_table([1].into_iter()), None);
        assert_eq!(next(&mut delivery, &spool), None, "sent is not durable");
        delivery.on_table_durable(1);
        assert_eq!(next(&mut delivery, &spool), Some((0, Urgency::Fresh)));
        assert_eq!(next(&mut delivery, &spool), None);
    }

    #[test]
    fn the_newest_table_goes_first_and_not_all_at_once() {
        let spool = spool(1);
        let mut delivery = new(0, &spool);
        let sent: Vec<_> = std::iter::from_fn(|| delivery.begin_table(1..=20)).collect();
        assert_eq!(sent, [20, 1, 2, 3, 4, 5, 6, 7]);
        delivery.on_table_durable(20);
        assert_eq!(delivery.begin_table(1..=21), Some(21));
        assert_eq!(delivery.begin_table(1..=21), None);
    }

    #[test]
    fn fresh_windows_overtake_the_backlog() {
        let (mut spool, mut delivery) = backlog(3);
        assert_eq!(next(&mut delivery, &spool), Some((0, Urgency::Backlog)));
        push(&mut spool, &mut delivery, 1);
        push(&mut spool, &mut delivery, 1);
        let order: Vec<_> = std::iter::from_fn(|| next(&mut delivery, &spool))
            .map(|(sequence, _)| sequence)
            .collect();
        assert_eq!(order, [4, 3, 1, 2]);
    }

    #[test]
    fn a_finding_needs_no_table_and_takes_its_turn() {
        let mut spool = spool(1);
        fill(&mut spool, 0);
        let mut delivery = new(0, &spool);
        push(&mut spool, &mut delivery, 1);
        push(&mut spool, &mut delivery, 0);
        assert_eq!(next(&mut delivery, &spool), Some((2, Urgency::Fresh)));
        assert_eq!(next(&mut delivery, &spool), Some((0, Urgency::Backlog)));
        assert_eq!(next(&mut delivery, &spool), None);
        assert_eq!(
            spool
                .findings_missing_at(0)
                .map(|place| place - CURRENT)
                .collect::<Vec<_>>(),
            [0, 2]
        );
    }

    #[test]
    fn a_fresh_window_of_a_new_table_does_not_hold_up_those_of_the_old_one() {
        let (mut spool, mut delivery) = backlog(0);
        push(&mut spool, &mut delivery, 1);
        push(&mut spool, &mut delivery, 2);
        assert_eq!(next(&mut delivery, &spool), Some((0, Urgency::Fresh)));
        assert_eq!(next(&mut delivery, &spool), None);
    }

    #[test]
    fn a_connection_begins_with_what_its_own_aggregator_does_not_have() {
        let mut spool = spool(2);
        for _ in 0..3 {
            fill(&mut spool, 1);
        }
        stored(&mut spool, 0, 1);
        stored(&mut spool, 1, 0);
        for (aggregator, missing) in [(0, [0, 2]), (1, [1, 2])] {
            let mut delivery = new(aggregator, &spool);
            assert_eq!(delivery.begin_table([1].into_iter()), Some(1));
            delivery.on_table_durable(1);
            let sent = std::iter::from_fn(|| next(&mut delivery, &spool));
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
            std::iter::from_fn(|| next(&mut delivery, &spool)).count(),
            BACKLOG_UNDER_WAY_MAX
        );
        push(&mut spool, &mut delivery, 1);
        assert_eq!(next(&mut delivery, &spool), Some((100, Urgency::Fresh)));
        delivery.on_settled(CURRENT);
        assert_eq!(next(&mut delivery, &spool), Some((16, Urgency::Backlog)));
    }

    #[test]
    fn what_was_given_up_is_not_sent() {
        let (spool, mut delivery) = backlog(2);
        delivery.on_gone(CURRENT);
        assert_eq!(next(&mut delivery, &spool), Some((1, Urgency::Backlog)));
        assert!(!delivery.is_done());
        delivery.on_settled(CURRENT + 1);
        assert!(delivery.is_done());
    }

    #[test]
    fn no_more_is_under_way_than_the_aggregator_gives_credit_for() {
        let (mut spool, mut delivery) = backlog(20);
        delivery.on_credit(Some(8));
        assert_eq!(
            std::iter::from_fn(|| next(&mut delivery, &spool)).count(),
            6
        );
        for sequence in 20..23 {
            push(&mut spool, &mut delivery, 1);
            let fresh = (sequence < 22).then_some((sequence, Urgency::Fresh));
            assert_eq!(next(&mut delivery, &spool), fresh, "two places are left");
        }
        delivery.on_credit(Some(0));
        assert_eq!(delivery.credit(), 1, "or nobody would ever hear of more");
        for sequence in (0..6).chain(20..22) {
            delivery.on_settled(CURRENT + sequence);
        }
        assert_eq!(
            std::iter::from_fn(|| next(&mut delivery, &spool)).count(),
            1
        );
        delivery.on_credit(Some(u32::MAX));
        assert_eq!(delivery.credit(), UNDER_WAY_MAX);
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
                    0 => push(&mut spool, &mut delivery, sent.len() as u64 % 2),
                    1 => sent.extend(next(&mut delivery, &spool).map(|(sequence, _)| sequence)),
                    _ => if let Some(&sequence) = sent.last() {
                        stored(&mut spool, 0, sequence);
                        delivery.on_settled(CURRENT + sequence);
                    },
                }
                prop_assert!(delivery.under_way() <= UNDER_WAY_MAX);
            }
            for sequence in sent.clone() {
                delivery.on_settled(CURRENT + sequence);
            }
            while let Some((sequence, _)) = next(&mut delivery, &spool) {
                sent.push(sequence);
                delivery.on_settled(CURRENT + sequence);
            }
            sent.sort_unstable();
            prop_assert_eq!(sent, (0..spool.next_sequence()).collect::<Vec<_>>());
            prop_assert!(delivery.is_done());
        }
    }
}
