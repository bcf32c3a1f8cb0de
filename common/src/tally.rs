//! Many windows of round-trip times added up: exact, and quick to add to.
//!
//! Most samples of a path lie close together, so the buckets about them are kept side by side, empty ones too, and adding
//! to one is an addition. What lies far off, such as the one answer that took a second, is in a sorted list. So a
//! minute of a path takes a few hundred bytes and no search, whatever its distribution.
//!
//! ```text
//!   far (17, 1)           near ·▁▃▇█▇▅▃▁▁·           far (1290, 1) (1297, 2)
//! ```

use crate::{
    histogram::{Schema, SchemaMismatch},
    report::Rtt,
};

/// The most buckets side by side: four octaves of two digits, half of one of three.
const NEAR_MAX: usize = 512;

/// Room beside the buckets that are filled, so that it grows seldom.
const SLACK: u16 = 8;

/// So many buckets far off before it is looked whether another place would leave fewer there.
const FAR_MIN: usize = 32;

/// See the module's documentation.
#[derive(Clone, Debug)]
pub struct Tally {
    schema: Schema,
    /// The slot of the first near bucket.
    first: u16,
    near: Vec<u32>,
    /// Other buckets, and what did not fit into a near one; sorted by slot.
    far: Vec<(u16, u64)>,
    /// It is looked for another place once there are so many far buckets.
    patience: usize,
    min_us: u32,
    max_us: u32,
    sum_us: u64,
}

impl Tally {
    /// Of nothing yet.
    #[must_use]
    pub const fn new(schema: Schema) -> Self {
        Self {
            schema,
            first: 0,
            near: Vec::new(),
            far: Vec::new(),
            patience: FAR_MIN,
            min_us: u32::MAX,
            max_us: 0,
            sum_us: 0,
        }
    }

    /// The boundaries of the buckets.
    #[must_use]
    pub const fn schema(&self) -> Schema {
        self.schema
    }

    /// Whether there is no sample in it.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.near.is_empty()
    }

    /// The exact smallest, microseconds; 0 while there is none.
    #[must_use]
    pub const fn min_us(&self) -> u32 {
        if self.is_empty() { 0 } else { self.min_us }
    }

    /// The exact largest, microseconds; 0 while there is none.
    #[must_use]
    pub const fn max_us(&self) -> u32 {
        self.max_us
    }

    /// The exact sum, microseconds.
    #[must_use]
    pub const fn sum_us(&self) -> u64 {
        self.sum_us
    }

    /// Adds the samples of a window.
    ///
    /// # Errors
    ///
    /// Returns [`SchemaMismatch`] and changes nothing when the schemas differ.
    #[inline]
    pub fn add(&mut self, rtt: &Rtt) -> Result<(), SchemaMismatch> {
        if rtt.histogram.schema() != self.schema {
            return Err(SchemaMismatch {
                into: self.schema,
                from: rtt.histogram.schema(),
            });
        }
        if rtt.histogram.is_empty() {
            return Ok(());
        }
        for &(slot, count) in rtt.histogram.buckets() {
            let at = usize::from(slot.wrapping_sub(self.first));
            let sum = self.near.get(at).and_then(|own| own.checked_add(count));
            match sum {
                Some(sum) => self.near[at] = sum,
                None => self.add_far(slot, count),
            }
        }
        self.min_us = self.min_us.min(rtt.min_us);
        self.max_us = self.max_us.max(rtt.max_us);
        self.sum_us = self.sum_us.saturating_add(rtt.sum_us);
        Ok(())
    }

    /// Adds to a bucket that is not near, or is full.
    #[cold]
    fn add_far(&mut self, slot: u16, count: u32) {
        if self.reach(slot) {
            let at = usize::from(slot - self.first);
            if let Some(sum) = self.near[at].checked_add(count) {
                self.near[at] = sum;
                return;
            }
        }
        match self.far.binary_search_by_key(&slot, |&(slot, _)| slot) {
            Ok(at) => self.far[at].1 = self.far[at].1.saturating_add(count.into()),
            Err(at) => self.far.insert(at, (slot, count.into())),
        }
        if self.far.len() >= self.patience {
            self.settle();
        }
    }

    /// Grows to where this bucket is; whether that is near enough.
    fn reach(&mut self, slot: u16) -> bool {
        let (first, end) = match self.near.len() {
            0 => (slot, slot),
            length => (self.first, self.first + length as u16),
        };
        if (first..end).contains(&slot) {
            return true;
        }
        let (first, end) = match slot < first {
            true => (slot.saturating_sub(SLACK), end.max(slot + 1)),
            false => (first, (slot + SLACK).min(self.schema.slots())),
        };
        if usize::from(end - first) > NEAR_MAX {
            return false;
        }
        let mut near = vec![0; usize::from(end - first)];
        let at = usize::from(self.first.saturating_sub(first));
        near[at..at + self.near.len()].copy_from_slice(&self.near);
        (self.first, self.near) = (first, near);
        true
    }

    /// Moves to where the most filled buckets are near.
    fn settle(&mut self) {
        let all = self.buckets();
        let span = |from: usize, to: usize| usize::from(all[to].0 - all[from].0);
        let (mut from, mut best) = (0, 0..0);
        for to in 0..all.len() {
            while span(from, to) >= NEAR_MAX {
                from += 1;
            }
            if to + 1 - from > best.len() {
                best = from..to + 1;
            }
        }
        self.near = vec![0; span(best.start, best.end - 1) + 1];
        self.first = all[best.start].0;
        self.far.clear();
        for (at, &(slot, count)) in all.iter().enumerate() {
            match u32::try_from(count) {
                Ok(count) if best.contains(&at) => {
                    self.near[usize::from(slot - self.first)] = count;
                }
                _ => self.far.push((slot, count)),
            }
        }
        self.patience = FAR_MIN.max(2 * self.far.len());
    }

    /// Filled buckets in ascending order: slot and count.
    #[must_use]
    pub fn buckets(&self) -> Vec<(u16, u64)> {
        let near = (self.first..).zip(&self.near);
        let near = near.filter(|&(_, &count)| count > 0);
        let mut all: Vec<(u16, u64)> = near.map(|(slot, &count)| (slot, count.into())).collect();
        if self.far.is_empty() {
            return all;
        }
        all.extend(&self.far);
        all.sort_unstable_by_key(|&(slot, _)| slot);
        all.dedup_by(|later, earlier| {
            let is_same = later.0 == earlier.0;
            if is_same {
                earlier.1 = earlier.1.saturating_add(later.1);
            }
            is_same
        });
        all
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::histogram::Histogram;
    use proptest::prelude::*;

    fn window(schema: Schema, samples: &[u32]) -> Rtt {
        let mut rtt = Rtt::empty(schema);
        samples.iter().for_each(|&us| rtt.record(us));
        rtt
    }

    /// Close together, anywhere, or all over.
    fn samples() -> impl Strategy<Value = Vec<u32>> {
        let sample = prop_oneof![
            6 => 60_000u32..90_000,
            2 => 100u32..400,
            1 => 0u32..70_000_000,
        ];
        prop::collection::vec(sample, 0..40)
    }

    proptest! {
        #[test]
        fn it_holds_what_a_map_of_counts_holds(
            windows in prop::collection::vec(samples(), 0..60),
            fine in any::<bool>(),
        ) {
            let schema = if fine { Schema::ThreeDigits } else { Schema::TwoDigits };
            let (mut tally, mut all) = (Tally::new(schema), Rtt::empty(schema));
            let mut counts: BTreeMap<u16, u64> = BTreeMap::new();
            for window in windows.iter().map(|own| self::window(schema, own)) {
                tally.add(&window).unwrap();
                all.merge(&window).unwrap();
                for &(slot, count) in window.histogram.buckets() {
                    *counts.entry(slot).or_default() += u64::from(count);
                }
                prop_assert!(tally.near.len() <= NEAR_MAX);
            }
            prop_assert_eq!(tally.buckets(), counts.into_iter().collect::<Vec<_>>());
            prop_assert_eq!(
                (tally.min_us(), tally.max_us(), tally.sum_us()),
                (all.min_us, all.max_us, all.sum_us)
            );
            prop_assert_eq!(tally.is_empty(), all.histogram.is_empty());
        }
    }

    #[test]
    fn counts_beyond_32_bits_stay_exact() {
        let mut tally = Tally::new(Schema::TwoDigits);
        let mut full = Rtt::empty(Schema::TwoDigits);
        full.histogram.add(Schema::TwoDigits.slot(70_000), u32::MAX);
        for _ in 0..5 {
            tally.add(&full).unwrap();
        }
        let all = 5 * u64::from(u32::MAX);
        assert_eq!(tally.buckets(), [(Schema::TwoDigits.slot(70_000), all)]);
    }

    #[test]
    fn after_an_outlier_the_bulk_is_near_all_the_same() {
        let schema = Schema::ThreeDigits;
        let mut tally = Tally::new(schema);
        tally.add(&window(schema, &[3_000_000])).unwrap();
        for step in 0..200 {
            let own: Vec<u32> = (0..10)
                .map(|at| 20_000 + 10 * (step * 7 + at * 31) % 800)
                .collect();
            tally.add(&window(schema, &own)).unwrap();
        }
        assert_eq!(tally.far, [(schema.slot(3_000_000), 1)]);
    }

    #[test]
    fn another_schema_is_refused_and_changes_nothing() {
        let mut tally = Tally::new(Schema::TwoDigits);
        assert!(tally.add(&window(Schema::ThreeDigits, &[1])).is_err());
        assert!(tally.is_empty() && Histogram::default().is_empty());
    }
}
