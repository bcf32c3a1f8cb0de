//! What a path did in a span of time, summed up: counts, the distribution of its round-trip times, and what is known of
//! each direction.
//!
//! Adding reports loses nothing, in any order and grouping, so the sum of an hour is that of its minutes, late ones
//! included. What a report says of an instant (what is open, silent or pending as its window ends) has no sum and is
//! left to the journal.

use leeward_common::{
    histogram::Schema,
    report::{Class, Report, Rtt},
    tally::Tally,
};

/// The sum of reports.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Sum {
    /// Reports in it: one for each window, or part of one, of each path.
    pub reports: u64,
    /// Probes whose scheduled time lies in it.
    pub scheduled: u64,
    /// Probes that ended in it, by class, in the order of [`Class::ALL`].
    pub classes: [u64; 8],
    /// Probes whose deadline passed unanswered.
    pub overdue: u64,
    /// Round-trip times of the probes that ended as replied, late, duplicate or refused.
    pub rtt: Distribution,
    /// What is known of each direction; `None` where no report tells.
    pub one_way: Option<OneWay>,
}

/// Round-trip times.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Distribution {
    /// The boundaries of the buckets.
    pub schema: Schema,
    /// Filled buckets: slot and count, sorted by slot; no count is 0.
    pub buckets: Vec<(u16, u64)>,
    /// The exact smallest, microseconds; 0 while there is none.
    pub min_us: u32,
    /// The exact largest, microseconds; 0 while there is none.
    pub max_us: u32,
    /// The exact sum, microseconds.
    pub sum_us: u64,
}

/// Both directions of a path.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct OneWay {
    /// From the agent to the target.
    pub forward: Direction,
    /// From the target to the agent.
    pub backward: Direction,
    /// Lost probes of which nobody will know where they were lost.
    pub lost_unknown: u64,
}

/// One direction.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Direction {
    /// Probes that were lost in this direction.
    pub lost: u64,
    /// Packets that arrived after one that was sent later.
    pub reordered: u64,
    /// Pairs of consecutive probes that were both answered.
    pub pairs: u64,
    /// Sum of the absolute differences of their delays, microseconds.
    pub variation_sum_us: u64,
    /// The largest of these, microseconds; 0 without pairs.
    pub variation_max_us: u32,
}

impl Sum {
    /// Of nothing yet.
    #[must_use]
    pub const fn new(schema: Schema) -> Self {
        Self {
            reports: 0,
            scheduled: 0,
            classes: [0; 8],
            overdue: 0,
            rtt: Distribution::new(schema),
            one_way: None,
        }
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.reports == 0
    }

    /// Adds a report.
    pub fn report(&mut self, report: &Report) {
        let counts = &report.counts;
        self.reports += 1;
        self.scheduled += u64::from(counts.scheduled);
        for (sum, count) in self.classes.iter_mut().zip(counts.classes) {
            *sum += u64::from(count);
        }
        self.overdue += u64::from(counts.overdue);
        self.rtt.record(&report.rtt);
        if let Some(told) = &counts.one_way {
            self.one_way.get_or_insert_default().add(&told.into());
        }
    }

    /// Adds another sum. Where the schemas differ the coarser is that of the result.
    pub fn add(&mut self, other: &Self) {
        self.reports = self.reports.saturating_add(other.reports);
        self.scheduled = self.scheduled.saturating_add(other.scheduled);
        for (sum, count) in self.classes.iter_mut().zip(other.classes) {
            *sum = sum.saturating_add(count);
        }
        self.overdue = self.overdue.saturating_add(other.overdue);
        self.rtt.add(&other.rtt);
        if let Some(told) = &other.one_way {
            self.one_way.get_or_insert_default().add(told);
        }
    }

    /// Probes of this class.
    #[must_use]
    pub const fn of(&self, class: Class) -> u64 {
        self.classes[class as usize]
    }

    /// Probes that were answered, late ones included.
    #[must_use]
    pub fn answered(&self) -> u64 {
        [
            Class::Replied,
            Class::Late,
            Class::Duplicate,
            Class::Refused,
        ]
        .iter()
        .fold(0, |sum: u64, &class| sum.saturating_add(self.of(class)))
    }

    /// Probes that became overdue and were not answered later, or were answered by an error.
    #[must_use]
    pub const fn unanswered(&self) -> u64 {
        let overdue = self.overdue.saturating_sub(self.of(Class::Late));
        overdue.saturating_add(self.of(Class::IcmpError))
    }
}

impl From<&Tally> for Distribution {
    fn from(tally: &Tally) -> Self {
        Self {
            schema: tally.schema(),
            buckets: tally.buckets(),
            min_us: tally.min_us(),
            max_us: tally.max_us(),
            sum_us: tally.sum_us(),
        }
    }
}

impl Distribution {
    /// Of nothing yet.
    #[must_use]
    pub const fn new(schema: Schema) -> Self {
        Self {
            schema,
            buckets: Vec::new(),
            min_us: 0,
            max_us: 0,
            sum_us: 0,
        }
    }

    /// Number of samples.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets
            .iter()
            .fold(0, |sum: u64, &(_, count)| sum.saturating_add(count))
    }

    /// The exact mean, microseconds; `None` without samples.
    #[must_use]
    pub fn mean_us(&self) -> Option<f64> {
        let count = self.count();
        (count > 0).then(|| self.sum_us as f64 / count as f64)
    }

    /// The value below or at which the share `q` (0..=1) of the samples lies, microseconds, as
    /// [`leeward_common::histogram::Histogram::quantile`] has it; where that is the smallest or the largest, exactly. `None`
    /// without samples.
    #[must_use]
    pub fn quantile_us(&self, q: f64) -> Option<u32> {
        let count = self.count();
        let rank = ((q.clamp(0.0, 1.0) * count as f64).ceil() as u64).clamp(1, count.max(1));
        let mut seen: u64 = 0;
        let (slot, _) = self.buckets.iter().find(|&&(_, n)| {
            seen = seen.saturating_add(n);
            seen >= rank
        })?;
        match rank {
            1 => Some(self.min_us),
            rank if rank == count => Some(self.max_us),
            _ => Some(self.schema.middle(*slot).max(self.min_us).min(self.max_us)),
        }
    }

    fn record(&mut self, rtt: &Rtt) {
        if rtt.histogram.is_empty() {
            return;
        }
        let (schema, first) = (rtt.histogram.schema(), self.buckets.is_empty());
        let slot = self.common_slots(schema);
        for &(own, count) in rtt.histogram.buckets() {
            self.fill(slot(own), count.into());
        }
        self.extend(first, (rtt.min_us, rtt.max_us, rtt.sum_us));
    }

    fn add(&mut self, other: &Self) {
        if other.buckets.is_empty() {
            return;
        }
        let first = self.buckets.is_empty();
        let slot = self.common_slots(other.schema);
        for &(own, count) in &other.buckets {
            self.fill(slot(own), count);
        }
        self.extend(first, (other.min_us, other.max_us, other.sum_us));
    }

    /// Takes the coarser of two schemas for its own; how slots of the other one are told in it. A bucket of the finer
    /// schema lies within one of the coarser, so no sample is moved over a boundary.
    fn common_slots(&mut self, other: Schema) -> impl Fn(u16) -> u16 + use<> {
        if self.buckets.is_empty() {
            self.schema = other;
        }
        let into = self.schema.min(other);
        let told = move |from: Schema, slot| match from == into {
            true => slot,
            false => into.slot(from.lowest(slot)),
        };
        if self.schema != into {
            let finer = std::mem::take(&mut self.buckets);
            let from = std::mem::replace(&mut self.schema, into);
            for (slot, count) in finer {
                self.fill(told(from, slot), count);
            }
        }
        move |slot| told(other, slot)
    }

    fn fill(&mut self, slot: u16, count: u64) {
        match self.buckets.binary_search_by_key(&slot, |&(slot, _)| slot) {
            Ok(at) => self.buckets[at].1 = self.buckets[at].1.saturating_add(count),
            Err(at) => self.buckets.insert(at, (slot, count)),
        }
    }

    fn extend(&mut self, first: bool, (min_us, max_us, sum_us): (u32, u32, u64)) {
        self.min_us = if first {
            min_us
        } else {
            self.min_us.min(min_us)
        };
        self.max_us = self.max_us.max(max_us);
        self.sum_us = self.sum_us.saturating_add(sum_us);
    }
}

impl OneWay {
    /// Adds what another report or sum tells.
    pub(super) fn add(&mut self, other: &Self) {
        self.forward.add(&other.forward);
        self.backward.add(&other.backward);
        self.lost_unknown = self.lost_unknown.saturating_add(other.lost_unknown);
    }
}

impl From<&leeward_common::report::OneWay> for OneWay {
    fn from(told: &leeward_common::report::OneWay) -> Self {
        Self {
            forward: (&told.forward).into(),
            backward: (&told.backward).into(),
            lost_unknown: told.lost_unknown.into(),
        }
    }
}

impl Direction {
    fn add(&mut self, other: &Self) {
        self.lost = self.lost.saturating_add(other.lost);
        self.reordered = self.reordered.saturating_add(other.reordered);
        self.pairs = self.pairs.saturating_add(other.pairs);
        self.variation_sum_us = self.variation_sum_us.saturating_add(other.variation_sum_us);
        self.variation_max_us = self.variation_max_us.max(other.variation_max_us);
    }
}

impl From<&leeward_common::report::Direction> for Direction {
    fn from(told: &leeward_common::report::Direction) -> Self {
        Self {
            lost: told.lost.into(),
            reordered: told.reordered.into(),
            pairs: told.variation.pairs.into(),
            variation_sum_us: told.variation.sum_us,
            variation_max_us: told.variation.max_us,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use leeward_common::{
        histogram::Histogram,
        report::{self, Counts, Variation},
    };
    use proptest::prelude::*;

    /// A report as agents make them: its counts and its histogram agree.
    pub(crate) fn report(schema: Schema, rtts: &[u32], lost: u32, told: Option<u32>) -> Report {
        let mut report = Report {
            counts: Counts::default(),
            rtt: Rtt::empty(schema),
        };
        for (at, &rtt_us) in rtts.iter().enumerate() {
            report.rtt.record(rtt_us);
            let class = [
                Class::Replied,
                Class::Late,
                Class::Duplicate,
                Class::Refused,
            ];
            report.counts.end(class[at % 7 % 4]);
        }
        report.counts.scheduled = rtts.len() as u32 + lost / 2;
        report.counts.overdue = lost;
        for _ in 0..lost {
            report.counts.end(Class::Lost);
        }
        report.counts.one_way = told.map(|us| report::OneWay {
            forward: report::Direction {
                lost,
                reordered: 1,
                variation: Variation {
                    pairs: 2,
                    sum_us: u64::from(us) * 2,
                    max_us: us,
                },
            },
            lost_unknown: 3,
            ..report::OneWay::default()
        });
        report
    }

    pub(crate) fn any_report(schema: Schema) -> impl Strategy<Value = Report> {
        let rtt = prop_oneof![50_000u32..60_000, 0u32..300, 0u32..70_000_000];
        let told = prop::option::of(0u32..1_000_000);
        (prop::collection::vec(rtt, 0..20), 0u32..4, told)
            .prop_map(move |(rtts, lost, told)| report(schema, &rtts, lost, told))
    }

    pub(crate) fn sum_of(schema: Schema, reports: &[Report]) -> Sum {
        let mut sum = Sum::new(schema);
        reports.iter().for_each(|report| sum.report(report));
        sum
    }

    #[test]
    fn the_finer_schema_is_told_in_the_coarser_without_moving_a_sample_over_a_boundary() {
        let (coarse, fine) = (Schema::TwoDigits, Schema::ThreeDigits);
        for slot in 0..fine.slots() {
            let into = coarse.slot(fine.lowest(slot));
            assert_eq!(
                into,
                coarse.slot(fine.highest(slot).min(60_000_000)),
                "{slot}"
            );
        }
        let rtts = [10, 4_097, 4_098, 70_001, 59_999_999];
        let mut both = sum_of(fine, &[report(fine, &rtts, 0, None)]);
        both.add(&sum_of(coarse, &[report(coarse, &rtts, 0, None)]));
        let twice = [
            report(coarse, &rtts, 0, None),
            report(coarse, &rtts, 0, None),
        ];
        assert_eq!(both, sum_of(coarse, &twice));
        let mut other = sum_of(coarse, &twice[..1]);
        other.add(&sum_of(fine, &[report(fine, &rtts, 0, None)]));
        assert_eq!(both, other);
    }

    proptest! {
        /// Any grouping and order gives the same sum, bucket by bucket.
        #[test]
        fn sums_of_groups_are_the_sum_of_all(
            reports in prop::collection::vec(any_report(Schema::TwoDigits), 0..40),
            cut in 0usize..40,
        ) {
            let cut = cut.min(reports.len());
            let (one, other) = reports.split_at(cut);
            let mut grouped = sum_of(Schema::TwoDigits, other);
            grouped.add(&sum_of(Schema::TwoDigits, one));
            prop_assert_eq!(grouped, sum_of(Schema::TwoDigits, &reports));
        }

        /// Quantiles of a sum are those of all samples, as far as the schema tells values apart.
        #[test]
        fn quantiles_are_those_of_all_samples(
            windows in prop::collection::vec(prop::collection::vec(1u32..60_000_000, 0..20), 1..20),
            q in 0.0f64..=1.0,
        ) {
            for schema in [Schema::TwoDigits, Schema::ThreeDigits] {
                let mut sum = Sum::new(schema);
                let (mut all, mut histogram) = (Vec::new(), Histogram::new(schema));
                for window in &windows {
                    sum.report(&report(schema, window, 0, None));
                    all.extend(window);
                    window.iter().for_each(|&us| histogram.record(us));
                }
                all.sort_unstable();
                let rank = ((q * all.len() as f64).ceil() as usize).max(1);
                let Some(exact) = all.get(rank - 1) else {
                    prop_assert_eq!(sum.rtt.quantile_us(q), None);
                    continue;
                };
                let told = sum.rtt.quantile_us(q).unwrap();
                prop_assert_eq!(schema.slot(told), schema.slot(*exact));
                let precision = if schema == Schema::TwoDigits { 128.0 } else { 1024.0 };
                let error = f64::from(told.abs_diff(*exact));
                prop_assert!(error <= (f64::from(*exact) / precision).max(1.0), "{told} {exact}");
                let middle = histogram.quantile(q).unwrap();
                let expected = match rank {
                    1 => all[0],
                    rank if rank == all.len() => all[rank - 1],
                    _ => middle.max(all[0]).min(all[all.len() - 1]),
                };
                prop_assert_eq!(told, expected);
                prop_assert_eq!(sum.rtt.min_us, all[0]);
                prop_assert_eq!(sum.rtt.max_us, all[all.len() - 1]);
                let exact_sum: u64 = all.iter().map(|&us| u64::from(us)).sum();
                prop_assert_eq!(sum.rtt.sum_us, exact_sum);
            }
        }
    }
}
