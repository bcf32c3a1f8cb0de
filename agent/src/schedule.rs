//! The schedule: which probe leaves next, and when. Pure.
//!
//! The `n`-th probe of a path is due at `phase + n × interval + jitter(n)`, whatever became of the earlier ones: a
//! schedule that waits for replies measures least while the network is worst. Phase and jitter come from a seed and the
//! path's key, so the same plan gives the same schedule, paths do not march in step, and a path that is in the old
//! plan and the new keeps its times. Jitter is uniform over ±10 % of the interval, so that what repeats at the
//! interval's own pace is not always hit or always missed.
//!
//! Times are multiples of a millisecond, or of a hundredth of a shorter interval than 100 ms. Waking up costs more than
//! sending, so probes of many paths share a wake-up, and each is still sent at its time.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    hash::{Hash, Hasher},
    time::Duration,
};

use siphasher::sip::SipHasher13;

/// A probe's time may lie this far past before the probe is given up: half an interval, at most a second.
const GIVE_UP_AFTER_NS: u64 = 1_000_000_000;

/// Times are multiples of this, or of a hundredth of a short interval.
const TICK_NS: u64 = 1_000_000;

/// A probe whose time has come.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Due {
    /// When, nanoseconds of the monotonic clock.
    pub at_ns: u64,
    /// Which path: its index in the plan.
    pub row: u32,
}

/// The schedule of a plan.
#[derive(Clone, Debug)]
pub struct Schedule {
    interval_ns: u64,
    lines: Vec<Line>,
    next: BinaryHeap<Reverse<Due>>,
}

/// One path's timetable.
#[derive(Clone, Copy, Debug)]
struct Line {
    key: u64,
    /// The next probe's number.
    n: u64,
}

impl Schedule {
    /// The timetable from `now_ns` on: nothing is due at or before it. `paths` are hashed into keys with the seed.
    pub fn new<K: Hash>(
        now_ns: u64,
        seed: u64,
        interval: Duration,
        paths: impl IntoIterator<Item = K>,
    ) -> Self {
        let interval_ns = u64::try_from(interval.as_nanos())
            .unwrap_or(u64::MAX)
            .max(10);
        let lines = paths
            .into_iter()
            .map(|path| Line {
                key: key(seed, &path),
                n: 0,
            })
            .collect();
        let mut schedule = Self {
            interval_ns,
            lines,
            next: BinaryHeap::new(),
        };
        schedule.skip_past(now_ns, |_, _| {});
        schedule
    }

    /// When the next probe is due, nanoseconds of the monotonic clock; `None` without paths.
    #[must_use]
    pub fn next_ns(&self) -> Option<u64> {
        self.next.peek().map(|Reverse(due)| due.at_ns)
    }

    /// Takes the next probe that is due at or before `now_ns`; in order of time.
    pub fn pop(&mut self, now_ns: u64) -> Option<Due> {
        let mut first = self.next.peek_mut()?;
        let due = first.0;
        if due.at_ns > now_ns {
            return None;
        }
        let line = &mut self.lines[due.row as usize];
        line.n += 1;
        // Changed in place: the heap sinks it to where it belongs, and nothing is allocated.
        first.0.at_ns = due_ns(self.interval_ns, *line);
        Some(due)
    }

    /// Whether a probe due then may still leave now. If not, it counts as not sent: a late probe measures another
    /// moment than the one that was asked for.
    #[must_use]
    pub fn in_time(&self, due: Due, now_ns: u64) -> bool {
        now_ns.saturating_sub(due.at_ns) <= (self.interval_ns / 2).min(GIVE_UP_AFTER_NS)
    }

    /// Gives up all probes due at or before `now_ns` at once; tells how many of which path.
    pub fn skip_past(&mut self, now_ns: u64, mut skipped: impl FnMut(u32, u64)) {
        let mut next = Vec::with_capacity(self.lines.len());
        for (row, line) in (0u32..).zip(&mut self.lines) {
            let before = line.n;
            // Phase and jitter add up to less than 1.2 intervals, so all before these are due; then a few steps at most.
            line.n = line.n.max((now_ns / self.interval_ns).saturating_sub(2));
            while due_ns(self.interval_ns, *line) <= now_ns {
                line.n += 1;
            }
            skipped(row, line.n - before);
            next.push(Reverse(Due {
                at_ns: due_ns(self.interval_ns, *line),
                row,
            }));
        }
        self.next = BinaryHeap::from(next);
    }
}

/// The time of a line's next probe. The jitter of a tenth either way keeps a line's times in order.
fn due_ns(interval_ns: u64, line: Line) -> u64 {
    let tenth = interval_ns / 10;
    let phase = tenth + scale(mix(line.key), interval_ns);
    let jitter = scale(mix(line.key ^ mix(line.n + 1)), 2 * tenth + 1);
    let due_ns = (phase + line.n * interval_ns + jitter) - tenth;
    due_ns - due_ns % (interval_ns / 100).clamp(1, TICK_NS)
}

fn key<K: Hash>(seed: u64, path: &K) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(seed, 0);
    path.hash(&mut hasher);
    hasher.finish()
}

/// Maps a uniform 64-bit number to `0..below`.
fn scale(uniform: u64, below: u64) -> u64 {
    ((u128::from(uniform) * u128::from(below)) >> 64) as u64
}

/// The finaliser of SplitMix64: a bijection that spreads every bit over all.
pub(crate) fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn times(schedule: &mut Schedule, until_ns: u64) -> Vec<Due> {
        std::iter::from_fn(|| schedule.pop(until_ns)).collect()
    }

    #[test]
    fn a_path_is_due_once_per_interval_within_a_tenth() {
        let mut schedule = Schedule::new(0, 1, Duration::from_secs(1), ["a"]);
        let due = times(&mut schedule, 1_000 * SECOND);
        assert!((998..=1_000).contains(&due.len()), "{}", due.len());
        // However many intervals pass, no probe strays from its own: the schedule does not drift.
        let first_ns = due[0].at_ns;
        for (n, due) in (0..).zip(&due) {
            let off_ns = due.at_ns.abs_diff(first_ns + n * SECOND);
            assert!(off_ns <= SECOND / 5, "probe {n} is {off_ns} ns off");
        }
    }

    #[test]
    fn equal_seeds_give_equal_schedules_and_others_do_not() {
        let of = |seed| {
            times(
                &mut Schedule::new(0, seed, Duration::from_secs(1), 0..10),
                100 * SECOND,
            )
        };
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }

    #[test]
    fn paths_do_not_march_in_step() {
        let mut schedule = Schedule::new(0, 1, Duration::from_secs(1), 0..1_000);
        let due = times(&mut schedule, 10 * SECOND);
        let in_step = due
            .windows(2)
            .filter(|two| two[1].at_ns - two[0].at_ns > SECOND / 50)
            .count();
        assert_eq!(in_step, 0, "a gap of 20 ms among 1,000 paths at 1 Hz");
    }

    #[test]
    fn a_new_plan_keeps_the_times_of_a_path_that_stays() {
        let mut old = Schedule::new(0, 1, Duration::from_secs(1), ["a", "b"]);
        times(&mut old, 50 * SECOND);
        let mut new = Schedule::new(50 * SECOND, 1, Duration::from_secs(1), ["c", "b"]);
        let at = |due: Vec<Due>| {
            due.iter()
                .filter(|due| due.row == 1)
                .map(|due| due.at_ns)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            at(times(&mut old, 60 * SECOND)),
            at(times(&mut new, 60 * SECOND))
        );
    }

    #[test]
    fn a_probe_is_in_time_for_half_an_interval() {
        let schedule = Schedule::new(0, 1, Duration::from_millis(100), ["a"]);
        let due = Due {
            at_ns: SECOND,
            row: 0,
        };
        assert!(schedule.in_time(due, SECOND));
        assert!(schedule.in_time(due, SECOND + 50_000_000));
        assert!(!schedule.in_time(due, SECOND + 50_000_001));
    }

    proptest! {
        /// Taking probes one by one and skipping them in bulk meet the same timetable, in order of time.
        #[test]
        fn skipping_counts_exactly_what_popping_takes(
            seed: u64,
            start in 0u64..100_000 * SECOND,
            interval_ms in 1u64..5_000,
            paths in 1usize..20,
            spans in 0u64..200,
        ) {
            let interval = Duration::from_millis(interval_ms);
            let end = start + spans * interval_ms * 500_000;
            let fresh = Schedule::new(start, seed, interval, 0..paths);
            let (mut popped, mut skipped) = (fresh.clone(), fresh);
            let due = times(&mut popped, end);
            prop_assert!(due.is_sorted_by_key(|due| due.at_ns));
            prop_assert!(due.iter().all(|due| start < due.at_ns && due.at_ns <= end));
            let mut counts = vec![0; paths];
            skipped.skip_past(end, |row, count| counts[row as usize] = count);
            for (row, &count) in (0u32..).zip(&counts) {
                let taken = due.iter().filter(|due| due.row == row).count() as u64;
                prop_assert_eq!(taken, count);
            }
            let later = end + 3 * interval_ms * 1_000_000;
            prop_assert_eq!(times(&mut popped, later), times(&mut skipped, later));
        }
    }
}
