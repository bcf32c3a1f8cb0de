//! What each flow of a path did, over half a minute: enough to see one bad way among several. Pure.
//!
//! An account of 24 bytes for each flow, beside the path's report, which stays one. It counts what the network did, of probes
//! that left: what this host failed to do belongs to no flow.

use std::time::Duration;

use leeward_common::{report::Class, time::Timestamp};

use crate::flow::Turn;

/// How long accounts gather: at ten probes per second 75 of each of four flows.
pub const SPAN: Duration = Duration::from_secs(30);

/// What one flow did.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct FlowAccount {
    /// Probes that left and ended in this span: answered in time or late, by an error, or lost.
    pub ended: u16,
    /// Of those, how many were lost.
    pub lost: u16,
    /// Of those, how many were answered late.
    pub late: u16,
    /// How many have a round-trip time.
    pub timed: u16,
    /// Pairs of consecutive probes that were both lost. Of the losses beyond two for each such pair the other probe was not
    /// lost; the two counts tell how long losses last.
    pub lost_pairs: u16,
    /// The lowest bits of the number of the last lost one.
    last_lost: u16,
    /// The shortest round-trip time, microseconds; 0 while none is timed.
    pub rtt_min_us: u32,
    /// Sum of the round-trip times, microseconds.
    pub rtt_sum_us: u64,
}

impl FlowAccount {
    /// The mean round-trip time, microseconds; `None` while none is timed.
    #[must_use]
    pub fn rtt_mean_us(&self) -> Option<u64> {
        self.rtt_sum_us.checked_div(u64::from(self.timed))
    }

    fn end(&mut self, nth: u32, class: Class) {
        match class {
            Class::NotSent | Class::LocalDrop => return,
            Class::Lost => {
                let number = nth as u16;
                self.lost_pairs += u16::from(self.lost > 0 && self.last_lost == number ^ 1);
                self.last_lost = number;
                self.lost = self.lost.saturating_add(1);
            }
            Class::Late => self.late = self.late.saturating_add(1),
            Class::Replied | Class::Duplicate | Class::Refused | Class::IcmpError => {}
        }
        self.ended = self.ended.saturating_add(1);
    }

    fn time(&mut self, rtt_us: u32) {
        self.rtt_min_us = match self.timed {
            0 => rtt_us,
            _ => self.rtt_min_us.min(rtt_us),
        };
        self.timed = self.timed.saturating_add(1);
        self.rtt_sum_us = self.rtt_sum_us.saturating_add(rtt_us.into());
    }
}

/// Whether the flows of a path are unlike, as a fact: some lost probes and others none, or what was quickest on one took longer
/// than the others' average.
#[must_use]
pub fn differ(flows: &[FlowAccount]) -> bool {
    let ended = || flows.iter().filter(|flow| flow.ended > 0);
    let some_lost = ended().any(|flow| flow.lost > 0) && ended().any(|flow| flow.lost == 0);
    let timed = || flows.iter().filter(|flow| flow.timed > 0);
    let quickest = timed().map(|flow| u64::from(flow.rtt_min_us)).max();
    let means = timed().filter_map(FlowAccount::rtt_mean_us).min();
    some_lost
        || quickest
            .zip(means)
            .is_some_and(|(quickest, mean)| quickest > mean)
}

/// What the flows of all paths of a plan did in a span.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FlowSpan {
    /// When it begins.
    pub from: Timestamp,
    /// When it ends.
    pub until: Timestamp,
    flows: usize,
    accounts: Vec<FlowAccount>,
}

impl FlowSpan {
    /// The flows of each path, in the order of the plan. A path may have fewer than the plan says: the rest are empty.
    pub fn rows(&self) -> impl Iterator<Item = &[FlowAccount]> {
        self.accounts.chunks(self.flows)
    }

    /// The flows of a path.
    #[must_use]
    pub fn row(&self, row: u32) -> Option<&[FlowAccount]> {
        self.rows().nth(row as usize)
    }
}

/// The accounts being written.
#[derive(Clone, Debug)]
pub(super) struct FlowTally {
    from: Timestamp,
    flows: usize,
    /// Flow by flow of path after path; none where there is one flow, which would tell what the report tells.
    accounts: Vec<FlowAccount>,
}

impl FlowTally {
    pub(super) fn new(from: Timestamp, flows: u8, paths: usize) -> Self {
        let flows = usize::from(flows);
        let accounts = if flows > 1 { flows * paths } else { 0 };
        Self {
            from,
            flows,
            accounts: vec![FlowAccount::default(); accounts],
        }
    }

    pub(super) fn ended(&mut self, row: u32, turn: Turn, class: Class, rtt_us: Option<u32>) {
        let at = row as usize * self.flows + usize::from(turn.flow);
        if let Some(account) = self.accounts.get_mut(at) {
            account.end(turn.nth, class);
            if let Some(rtt_us) = rtt_us {
                account.time(rtt_us);
            }
        }
    }

    /// The accounts, if they are due at the end of a window: at the multiples of [`SPAN`], and when a span has become longer,
    /// as windows may be and clocks step.
    pub(super) fn take(&mut self, end: Timestamp) -> Option<FlowSpan> {
        let is_due = end.floor(SPAN) == end || end < self.from || end.since(self.from) >= SPAN;
        if self.accounts.is_empty() || !is_due {
            return None;
        }
        let empty = vec![FlowAccount::default(); self.accounts.len()];
        Some(FlowSpan {
            from: std::mem::replace(&mut self.from, end),
            until: end,
            flows: self.flows,
            accounts: std::mem::replace(&mut self.accounts, empty),
        })
    }
}

/// The accounts of so many flows of paths that lost so many of a thousand probes, for tests.
#[cfg(test)]
pub(crate) fn sample(flows: usize, lost: impl IntoIterator<Item = u16>) -> FlowSpan {
    let account = |lost| FlowAccount {
        ended: 1_000,
        lost,
        timed: 1,
        rtt_min_us: 500,
        rtt_sum_us: 500,
        ..FlowAccount::default()
    };
    FlowSpan {
        from: Timestamp::EPOCH,
        until: Timestamp::EPOCH + SPAN,
        flows,
        accounts: lost.into_iter().map(account).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> Timestamp {
        Timestamp::from_unix_us(second * 1_000_000)
    }

    fn turn(flow: u8, nth: u32) -> Turn {
        Turn { flow, nth }
    }

    #[test]
    fn an_account_is_small() {
        assert_eq!(size_of::<FlowAccount>(), 24);
    }

    #[test]
    fn each_flow_has_its_own_account() {
        let mut tally = FlowTally::new(at(0), 2, 2);
        tally.ended(1, turn(0, 0), Class::Replied, Some(700));
        tally.ended(1, turn(0, 1), Class::Late, Some(900));
        tally.ended(1, turn(1, 0), Class::Lost, None);
        tally.ended(1, turn(1, 1), Class::LocalDrop, None);
        assert_eq!(tally.take(at(29)), None);
        let span = tally.take(at(30)).unwrap();
        assert_eq!((span.from, span.until), (at(0), at(30)));
        assert_eq!(span.row(0).unwrap(), [FlowAccount::default(); 2]);
        let [first, second] = *span.row(1).unwrap() else {
            panic!()
        };
        assert_eq!((first.ended, first.late, first.lost), (2, 1, 0));
        assert_eq!((first.rtt_min_us, first.rtt_mean_us()), (700, Some(800)));
        assert_eq!(
            (second.ended, second.lost, second.rtt_mean_us()),
            (1, 1, None)
        );
        let next = tally.take(at(60)).unwrap();
        assert_eq!(
            (next.from, next.row(1)),
            (at(30), Some([FlowAccount::default(); 2].as_slice()))
        );
    }

    #[test]
    fn pairs_that_were_lost_together_are_counted_once() {
        let mut account = FlowAccount::default();
        // Three pairs: both lost, told in either order, and one.
        for nth in [4, 5, 9, 8, 12, 15] {
            account.end(nth, Class::Lost);
        }
        assert_eq!((account.lost, account.lost_pairs), (6, 2));
    }

    #[test]
    fn flows_differ_when_only_some_lose_or_one_is_slower_at_its_best_than_another_on_average() {
        let flow = |lost, rtts: &[u32]| {
            let mut account = FlowAccount::default();
            (0..lost).for_each(|nth| account.end(2 * nth, Class::Lost));
            for &rtt_us in rtts {
                account.end(0, Class::Replied);
                account.time(rtt_us);
            }
            account
        };
        assert!(differ(&[flow(3, &[10]), flow(0, &[10])]));
        assert!(!differ(&[flow(3, &[10]), flow(1, &[10])]));
        assert!(!differ(&[flow(0, &[10, 20]), flow(0, &[14, 30])]));
        assert!(differ(&[flow(0, &[10, 20]), flow(0, &[16, 30])]));
        // A flow that had no probe has no part in it.
        assert!(!differ(&[flow(3, &[10]), FlowAccount::default()]));
    }

    #[test]
    fn a_clock_that_was_set_back_ends_the_span() {
        let mut tally = FlowTally::new(at(1_000), 2, 1);
        assert!(tally.take(at(17)).is_some());
        assert!(tally.take(at(18)).is_none());
    }
}
