//! A sparse histogram of round-trip times on the bucket boundaries of HdrHistogram.
//!
//! A window of ten samples fills a handful of buckets, so a dense histogram (20 to 139 kB) would be nearly all
//! zeros. This one keeps only the filled buckets, sorted by index, and merges with another of its schema exactly:
//! adding counts bucket by bucket loses nothing, in any order and grouping. Schemas are fixed and named by a number,
//! so no header travels with a histogram and no decoder can be made to allocate by a hostile range.

use serde::{Deserialize, Serialize};

/// Bucket boundaries, by number. All hold 1 µs to 60 s; larger values count as 60 s.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
#[repr(u8)]
pub enum Schema {
    /// Two significant digits: a bucket is at most 1/128 of its value wide (0.8 %).
    #[default]
    TwoDigits = 1,
    /// Three significant digits: at most 1/1024 (0.1 %).
    ThreeDigits = 2,
}

/// The largest value that is told apart, in microseconds.
pub const MAX_US: u32 = 60_000_000;

impl Schema {
    /// The schema of a number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::TwoDigits),
            2 => Some(Self::ThreeDigits),
            _ => None,
        }
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// log2 of half the sub-buckets.
    const fn half_magnitude(self) -> u32 {
        match self {
            Self::TwoDigits => 7,
            Self::ThreeDigits => 10,
        }
    }

    /// How many buckets the schema has.
    #[must_use]
    pub const fn slots(self) -> u16 {
        self.slot(MAX_US) + 1
    }

    /// The bucket of a value in microseconds.
    #[must_use]
    pub const fn slot(self, value_us: u32) -> u16 {
        let value = if value_us > MAX_US { MAX_US } else { value_us };
        let half = self.half_magnitude();
        let mask = (2u32 << half) - 1;
        let bucket = (32 - (value | mask).leading_zeros()) - (half + 1);
        let sub = value >> bucket;
        (((bucket + 1) << half) + sub - (1 << half)) as u16
    }

    /// The smallest value of a bucket, in microseconds.
    #[must_use]
    pub const fn lowest(self, slot: u16) -> u32 {
        let half = self.half_magnitude();
        let (block, within) = ((slot as u32) >> half, (slot as u32) & ((1 << half) - 1));
        if block == 0 {
            within
        } else {
            (within + (1 << half)) << (block - 1)
        }
    }

    /// The largest value of a bucket, in microseconds.
    #[must_use]
    pub const fn highest(self, slot: u16) -> u32 {
        self.lowest(slot) + ((1 << self.width_bits(slot)) - 1)
    }

    /// The middle of a bucket, in microseconds, rounded down.
    #[must_use]
    pub const fn middle(self, slot: u16) -> u32 {
        self.lowest(slot) + ((1 << self.width_bits(slot)) - 1) / 2
    }

    /// log2 of how many values a bucket holds.
    #[must_use]
    pub const fn width_bits(self, slot: u16) -> u32 {
        ((slot as u32) >> self.half_magnitude()).saturating_sub(1)
    }
}

/// Two histograms of different schemas cannot be merged exactly.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("cannot merge histograms of schemas {into:?} and {from:?}")]
pub struct SchemaMismatch {
    /// The schema merged into.
    pub into: Schema,
    /// The other one.
    pub from: Schema,
}

/// A sparse histogram; see the module's documentation.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "Raw")]
pub struct Histogram {
    schema: Schema,
    /// Filled buckets: slot and count, sorted by slot; no count is 0.
    buckets: Vec<(u16, u32)>,
}

impl Histogram {
    /// An empty histogram.
    #[must_use]
    pub const fn new(schema: Schema) -> Self {
        Self {
            schema,
            buckets: Vec::new(),
        }
    }

    /// A histogram of filled buckets that the caller has checked: in ascending order, within the schema, none empty.
    pub(crate) fn from_checked(schema: Schema, buckets: Vec<(u16, u32)>) -> Self {
        debug_assert!(are_valid(schema, &buckets));
        Self { schema, buckets }
    }

    /// Its schema.
    #[must_use]
    pub const fn schema(&self) -> Schema {
        self.schema
    }

    /// Filled buckets in ascending order: slot and count.
    #[must_use]
    pub fn buckets(&self) -> &[(u16, u32)] {
        &self.buckets
    }

    /// Whether it holds no sample.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// Number of samples.
    #[inline]
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|&(_, n)| u64::from(n)).sum()
    }

    /// Forgets the samples and keeps the memory.
    pub fn clear(&mut self) {
        self.buckets.clear();
    }

    /// Forgets the samples, keeps the memory, and takes another schema.
    pub(crate) fn restart(&mut self, schema: Schema) {
        self.buckets.clear();
        self.schema = schema;
    }

    /// Other samples in the same memory: buckets that the caller has checked, as [`Self::from_checked`] takes them. After an
    /// error it is empty.
    #[inline]
    pub(crate) fn refill<T, E>(
        &mut self,
        fill: impl FnOnce(&mut Vec<(u16, u32)>) -> Result<T, E>,
    ) -> Result<T, E> {
        self.buckets.clear();
        let filled = fill(&mut self.buckets);
        if filled.is_err() {
            self.buckets.clear();
        }
        debug_assert!(are_valid(self.schema, &self.buckets));
        filled
    }

    /// Adds one sample, in microseconds.
    pub fn record(&mut self, value_us: u32) {
        self.add(self.schema.slot(value_us), 1);
    }

    /// Adds `count` samples to a bucket; a slot outside the schema counts as its last.
    pub fn add(&mut self, slot: u16, count: u32) {
        if count == 0 {
            return;
        }
        let slot = slot.min(self.schema.slots() - 1);
        match self.buckets.binary_search_by_key(&slot, |&(slot, _)| slot) {
            Ok(at) => self.buckets[at].1 = self.buckets[at].1.saturating_add(count),
            Err(at) => self.buckets.insert(at, (slot, count)),
        }
    }

    /// Adds all samples of another histogram.
    ///
    /// # Errors
    ///
    /// Returns [`SchemaMismatch`] and changes nothing when the schemas differ.
    pub fn merge(&mut self, other: &Self) -> Result<(), SchemaMismatch> {
        if self.schema != other.schema {
            return Err(SchemaMismatch {
                into: self.schema,
                from: other.schema,
            });
        }
        let missing = self.add_to_filled(&other.buckets);
        if missing > 0 {
            let ours = self.buckets.len();
            self.buckets.resize(ours + missing, (0, 0));
            insert_missing(&mut self.buckets, ours, &other.buckets);
        }
        Ok(())
    }

    /// Adds to those buckets that are filled here already, and returns how many of `others` are not.
    fn add_to_filled(&mut self, others: &[(u16, u32)]) -> usize {
        let mut ours = &mut self.buckets[..];
        let mut missing = 0;
        for &(slot, count) in others {
            let at = position(ours, slot);
            ours = &mut ours[at..];
            match ours.first_mut() {
                Some((own_slot, own_count)) if *own_slot == slot => {
                    *own_count = own_count.saturating_add(count);
                }
                _ => missing += 1,
            }
        }
        missing
    }

    /// The value below or at which the share `q` (0..=1) of the samples lies, in microseconds: the middle of the
    /// bucket that holds the sample of rank `ceil(q * n)`, at least the first. `None` while empty.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<u32> {
        self.quantiles([q]).map(|[only]| only)
    }

    /// [`Self::quantile`] of each of these shares, in one go.
    #[must_use]
    pub fn quantiles<const N: usize>(&self, shares: [f64; N]) -> Option<[u32; N]> {
        quantiles(
            self.schema,
            self.count(),
            self.buckets.iter().copied(),
            shares,
        )
    }
}

/// The quantiles of `count` samples in these buckets, of which some may be empty.
pub(crate) fn quantiles<const N: usize>(
    schema: Schema,
    count: u64,
    buckets: impl Iterator<Item = (u16, u32)>,
    shares: [f64; N],
) -> Option<[u32; N]> {
    if count == 0 {
        return None;
    }
    let rank = |q: f64| ((q.clamp(0.0, 1.0) * count as f64).ceil() as u64).clamp(1, count);
    let mut ranks = [(0, 0); N];
    for (at, (own, q)) in ranks.iter_mut().zip(shares).enumerate() {
        *own = (rank(q), at);
    }
    ranks.sort_unstable();
    let (mut found, mut seen, mut next) = ([0; N], 0, 0);
    for (slot, n) in buckets {
        seen += u64::from(n);
        while let Some(&(_, at)) = ranks.get(next).filter(|(rank, _)| *rank <= seen) {
            found[at] = schema.middle(slot);
            next += 1;
        }
        if next == N {
            break;
        }
    }
    Some(found)
}

/// The index of the first bucket whose slot is not below `slot`.
fn position(buckets: &[(u16, u32)], slot: u16) -> usize {
    let Some(&(first, _)) = buckets.first() else {
        return 0;
    };
    // Slots ascend, so the one looked for is at most this far on: exactly there when no bucket between is empty,
    // which is usual about the middle of a distribution.
    let farthest = usize::from(slot.saturating_sub(first));
    match buckets.get(farthest) {
        Some(&(there, _)) if there == slot => farthest,
        _ => {
            buckets[..farthest.min(buckets.len())].partition_point(|&(own_slot, _)| own_slot < slot)
        }
    }
}

/// Inserts those of `others` that the first `ours` of `buckets` lack; `buckets` is just long enough for the result.
/// Written from the back, so that no bucket is overwritten before it has moved.
fn insert_missing(buckets: &mut [(u16, u32)], mut ours: usize, others: &[(u16, u32)]) {
    let mut end = buckets.len();
    for &(slot, count) in others.iter().rev() {
        while ours > 0 && buckets[ours - 1].0 > slot {
            (ours, end) = (ours - 1, end - 1);
            buckets[end] = buckets[ours];
        }
        if ours == 0 || buckets[ours - 1].0 < slot {
            end -= 1;
            buckets[end] = (slot, count);
        }
    }
}

/// Whether buckets are in ascending order, within the schema, and none is empty.
fn are_valid(schema: Schema, buckets: &[(u16, u32)]) -> bool {
    buckets.is_sorted_by(|a, b| a.0 < b.0)
        && buckets.iter().all(|&(_, count)| count > 0)
        && buckets
            .last()
            .is_none_or(|&(slot, _)| slot < schema.slots())
}

/// A histogram as it is read, not yet known to be one.
#[derive(Deserialize)]
#[serde(rename = "Histogram")]
struct Raw {
    schema: Schema,
    buckets: Vec<(u16, u32)>,
}

impl TryFrom<Raw> for Histogram {
    type Error = &'static str;

    fn try_from(raw: Raw) -> Result<Self, Self::Error> {
        if !are_valid(raw.schema, &raw.buckets) {
            return Err(
                "a histogram's buckets are in ascending order, within its schema, and none is empty",
            );
        }
        Ok(Self::from_checked(raw.schema, raw.buckets))
    }
}
