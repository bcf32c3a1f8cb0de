//! Histograms on a pile: many of one schema added up bucket by bucket, read off, and cleared for the next ones.
//!
//! Every bucket has its place, empty ones too, so that adding is an addition and no search. That takes 10 kB with two
//! digits and 68 kB with three: one pile is used for many sums, one after the other. What a sum costs follows how far apart
//! its samples lie, not how many buckets there are.

use crate::histogram::{Histogram, Schema, SchemaMismatch, quantiles};

/// See the module's documentation.
#[derive(Clone, Debug, Default)]
pub struct Pile {
    schema: Schema,
    /// By slot. Outside of `first..end` all are 0.
    counts: Vec<u32>,
    first: usize,
    end: usize,
    count: u64,
}

impl Pile {
    /// Forgets the samples and takes another schema, or the same.
    pub fn restart(&mut self, schema: Schema) {
        self.counts[self.first..self.end].fill(0);
        (self.first, self.end, self.count) = (0, 0, 0);
        self.schema = schema;
        let slots = usize::from(schema.slots());
        if self.counts.len() < slots {
            self.counts.resize(slots, 0);
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
        self.first == self.end
    }

    /// Number of samples.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Adds all samples of a histogram.
    ///
    /// # Errors
    ///
    /// Returns [`SchemaMismatch`] and changes nothing when the schemas differ.
    #[inline]
    pub fn add(&mut self, other: &Histogram) -> Result<(), SchemaMismatch> {
        if other.schema() != self.schema {
            return Err(SchemaMismatch {
                into: self.schema,
                from: other.schema(),
            });
        }
        let ([(first, _), ..], Some((last, _))) = (other.buckets(), other.buckets().last()) else {
            return Ok(());
        };
        if self.counts.is_empty() {
            self.restart(self.schema);
        }
        let (first, end) = (usize::from(*first), usize::from(*last) + 1);
        (self.first, self.end) = match self.is_empty() {
            true => (first, end),
            false => (self.first.min(first), self.end.max(end)),
        };
        for &(slot, count) in other.buckets() {
            let own = &mut self.counts[usize::from(slot)];
            let sum = own.saturating_add(count);
            self.count += u64::from(sum - *own);
            *own = sum;
        }
        Ok(())
    }

    /// What [`Histogram::quantile`] would say for each of these shares; `None` while empty.
    #[must_use]
    pub fn quantiles<const N: usize>(&self, shares: [f64; N]) -> Option<[u32; N]> {
        let buckets = self.counts[self.first..self.end].iter();
        let slots = self.first as u16..;
        quantiles(self.schema, self.count, slots.zip(buckets.copied()), shares)
    }

    /// All of it as a histogram.
    #[must_use]
    pub fn histogram(&self) -> Histogram {
        let counts = self.counts[self.first..self.end].iter();
        let filled = (self.first as u16..).zip(counts.copied());
        let filled = filled.filter(|&(_, count)| count > 0);
        Histogram::from_checked(self.schema, filled.collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn histogram(schema: Schema, buckets: &[(u16, u32)]) -> Histogram {
        let mut own = Histogram::new(schema);
        for &(slot, count) in buckets {
            own.add(slot, count);
        }
        own
    }

    proptest! {
        /// Sums, quantiles and saturation are those of a histogram that was merged, and nothing of one sum is left in the
        /// next.
        #[test]
        fn a_pile_is_what_merging_makes(
            sums in prop::collection::vec((
                any::<bool>(),
                prop::collection::vec(prop::collection::vec((0u16..20_000, prop_oneof![1u32..9, Just(u32::MAX)]), 0..12), 0..8),
            ), 1..5),
            shares in any::<[f64; 6]>(),
            share in 0.0..=1.0f64,
        ) {
            let mut pile = Pile::default();
            for (fine, windows) in sums {
                let schema = if fine { Schema::ThreeDigits } else { Schema::TwoDigits };
                let mut merged = Histogram::new(schema);
                pile.restart(schema);
                for window in &windows {
                    let window = histogram(schema, window);
                    pile.add(&window).unwrap();
                    merged.merge(&window).unwrap();
                }
                prop_assert_eq!(pile.count(), merged.count());
                prop_assert_eq!(pile.is_empty(), merged.is_empty());
                let shares = [shares[0], share, 1.0, shares[1], 0.5, 0.99];
                let each = shares.map(|share| merged.quantile(share));
                prop_assert_eq!(pile.quantiles(shares).map_or([None; 6], |all| all.map(Some)), each);
                prop_assert_eq!(merged.quantiles(shares), pile.quantiles(shares));
                prop_assert_eq!(pile.histogram(), merged);
            }
        }
    }

    #[test]
    fn another_schema_is_refused_and_changes_nothing() {
        let mut pile = Pile::default();
        assert!(
            pile.add(&histogram(Schema::ThreeDigits, &[(1, 1)]))
                .is_err()
        );
        assert!(pile.is_empty());
        assert_eq!(pile.quantiles([0.5]), None);
    }
}
