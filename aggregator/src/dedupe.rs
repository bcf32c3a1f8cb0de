//! Which batches of a boot epoch arrived, so that one sent twice counts once. [pure]
//!
//! Sequences arrive out of order: after an outage an agent sends what is fresh before what waited. So this is a list
//! of runs rather than one number; usually it holds one run, and one more per outage that is still being made up for.
//!
//! ```text
//!   0 ███████████ 57        812 ████████ 900          runs [(0, 57), (812, 900)]; 57..812 is still on its way
//! ```
//!
//! A batch that the agent gave up, or merged into another, leaves a gap for ever. When there are more than [`MAX_RUNS`]
//! runs a gap is closed: what might still come of it is then taken for a repetition, and lost. So it is the lowest or the
//! highest, whichever is farther from what has just arrived. A backlog arrives in one direction, upwards in what a life measures and
//! downwards, stretch by stretch, in what a life before left on disk; so nothing is still to come of the gap behind it.

/// The most runs kept of one boot epoch: 16 kB.
pub const MAX_RUNS: usize = 1_024;

/// Which sequences arrived.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Arrived {
    /// First and one past the last; ascending, neither touching nor overlapping, none empty.
    runs: Vec<(u64, u64)>,
}

impl Arrived {
    /// From stored runs; whatever is out of order or empty is put right.
    #[must_use]
    pub fn from_runs(runs: &[(u64, u64)]) -> Self {
        let mut sorted: Vec<_> = runs
            .iter()
            .copied()
            .filter(|(first, end)| first < end)
            .collect();
        sorted.sort_unstable();
        let mut arrived = Self::default();
        for (first, end) in sorted {
            match arrived.runs.last_mut() {
                Some(last) if first <= last.1 => last.1 = last.1.max(end),
                _ => arrived.runs.push((first, end)),
            }
        }
        arrived
    }

    /// The runs, for storing.
    #[must_use]
    pub fn runs(&self) -> &[(u64, u64)] {
        &self.runs
    }

    /// Whether a sequence arrived.
    #[must_use]
    pub fn contains(&self, sequence: u64) -> bool {
        let after = self.runs.partition_point(|&(first, _)| first <= sequence);
        after > 0 && sequence < self.runs[after - 1].1
    }

    /// Notes that a sequence arrived; `false` if it had already. The very last number counts as arrived from the
    /// start, since nothing could come after it.
    pub fn insert(&mut self, sequence: u64) -> bool {
        let Some(end) = sequence.checked_add(1) else {
            return false;
        };
        if self.contains(sequence) {
            return false;
        }
        let after = self.runs.partition_point(|&(first, _)| first <= sequence);
        let joins_before = after > 0 && self.runs[after - 1].1 == sequence;
        let joins_after = self.runs.get(after).is_some_and(|&(first, _)| first == end);
        match (joins_before, joins_after) {
            (true, true) => {
                self.runs[after - 1].1 = self.runs[after].1;
                self.runs.remove(after);
            }
            (true, false) => self.runs[after - 1].1 = end,
            (false, true) => self.runs[after].0 = sequence,
            (false, false) => self.runs.insert(after, (sequence, end)),
        }
        if self.runs.len() > MAX_RUNS {
            let gap_after = match after < self.runs.len() / 2 {
                true => self.runs.len() - 2,
                false => 0,
            };
            self.runs[gap_after + 1].0 = self.runs[gap_after].0;
            self.runs.remove(gap_after);
        }
        true
    }

    /// Every sequence below this arrived.
    #[must_use]
    pub fn below(&self) -> u64 {
        match self.runs.first() {
            Some(&(0, end)) => end,
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_repetition_is_told_from_a_late_comer() {
        let mut arrived = Arrived::default();
        for sequence in [0, 1, 5, 6] {
            assert!(arrived.insert(sequence));
        }
        assert_eq!(arrived.runs(), [(0, 2), (5, 7)]);
        assert_eq!(arrived.below(), 2);
        assert!(!arrived.insert(1));
        assert!(arrived.insert(3));
        assert!(arrived.insert(4));
        assert!(arrived.insert(2));
        assert_eq!(arrived.runs(), [(0, 7)]);
    }

    #[test]
    fn the_runs_are_bounded_and_the_newest_stay_exact() {
        let mut arrived = Arrived::default();
        for sequence in 0..5_000 {
            assert!(arrived.insert(sequence * 2 + 1));
        }
        assert_eq!(arrived.runs().len(), MAX_RUNS);
        assert!(!arrived.contains(9_998));
        assert!(arrived.contains(9_999));
        assert!(!arrived.insert(1));
    }

    /// Windows that were merged for want of room are numbered with gaps between them, and what a life before left is
    /// delivered from its last segment to its first.
    #[test]
    fn more_gaps_than_are_kept_do_not_swallow_what_is_still_to_come() {
        let (mut upwards, mut downwards) = (Arrived::default(), Arrived::default());
        for stretch in 0..300 {
            for message in 0..20 {
                let sequence = |stretch: u64| (stretch * 20 + message) * 11;
                assert!(upwards.insert(sequence(stretch)));
                // What is measured meanwhile.
                assert!(upwards.insert(1_000_000 + stretch * 20 + message));
                assert!(downwards.insert(sequence(299 - stretch)));
            }
        }
        assert_eq!(upwards.runs().len(), MAX_RUNS);
        assert_eq!(downwards.runs().len(), MAX_RUNS);
    }

    #[test]
    fn it_agrees_with_a_set_and_reads_back() {
        bolero::check!()
            .with_iterations(5_000)
            .with_type::<Vec<u8>>()
            .for_each(|sequences| {
                let (mut arrived, mut set) = (Arrived::default(), BTreeSet::new());
                for &sequence in sequences {
                    assert_eq!(arrived.insert(u64::from(sequence)), set.insert(sequence));
                    assert!(arrived.runs().windows(2).all(|pair| pair[0].1 < pair[1].0));
                }
                assert!((0..=255).all(|s| arrived.contains(u64::from(s)) == set.contains(&s)));
                assert_eq!(Arrived::from_runs(arrived.runs()), arrived);
            });
    }

    #[test]
    fn any_stored_runs_can_be_read() {
        bolero::check!()
            .with_iterations(5_000)
            .with_type::<Vec<(u64, u64)>>()
            .for_each(|runs| {
                let mut arrived = Arrived::from_runs(runs);
                assert!(arrived.runs().windows(2).all(|pair| pair[0].1 < pair[1].0));
                for &(first, _) in runs {
                    arrived.insert(first);
                }
            });
    }
}
