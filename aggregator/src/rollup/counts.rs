//! How many samples each bucket of a sum has, as bits. Frozen by the format of [`super::code`].
//!
//! Neighbours have like counts, and a count differs from what its neighbours let one expect by about its square root (it is
//! Poisson's). So each is told by its difference from their mean, in a Rice code (Rice 1979, JPL 79-22) whose parameter follows
//! the root of what is expected and, as in JPEG-LS (ITU-T T.87), what the differences before were. Where round trips
//! spread by a fifth, an hour's counts come within a sixth of their entropy.
//!
//! ```text
//!  from the first bucket on, until there are as many samples as are told
//!    expected = (the count before + the one before that + 1) / 2, where an empty bucket and what is not there count as 0
//!    the count, as its difference from that; after empty buckets both are less by 1, as the count is not 0
//!    a count of 0: how many empty buckets there are together, Elias gamma
//!  a difference, folded: 0, -1, 1, -2, 2 … become 0, 1, 2, 3, 4 …, beyond twice what is expected the count itself
//!    root = isqrt(16 (expected + 1)) │ k = the binary logarithm of ratio · root / 64, rounded down, at most 32
//!    folded >> k as ones and a zero │ the lowest k bits; 24 ones: folded, Elias gamma
//!    ratio += (min(64 folded / root, 2^20) - ratio) >> 2, never less than 1; at first 32
//!  Elias gamma: of a number with w bits w - 1 ones and a zero │ the lowest w - 1 bits
//! ```

use leeward_common::{
    bits::{BitReader, BitWriter},
    histogram::Schema,
};

/// More samples than this are none: a probe a microsecond for longer than there have been people.
pub(super) const MOST: u64 = 1 << 62;

/// As many ones say that another code follows.
const ESCAPE: u32 = 24;

/// What is expected of the next bucket.
struct Model {
    /// The counts of the two buckets before.
    before: [u64; 2],
    /// Whether the next bucket is known not to be empty.
    is_filled: bool,
    /// How large differences are: folded ones, in 64ths of four roots.
    ratio: i64,
}

/// How the difference from what is expected is written.
struct Code {
    expected: u64,
    root: u64,
    k: u32,
}

impl Model {
    const fn new() -> Self {
        Self {
            before: [0; 2],
            is_filled: true,
            ratio: 32,
        }
    }

    /// What is known of the next count, from 0 or 1 on.
    fn code(&self) -> Code {
        let expected = (self.before[0] + self.before[1]).div_ceil(2);
        let expected = expected.saturating_sub(self.least());
        let root = (16 * (expected.min(1 << 58) + 1)).isqrt();
        let k = (self.ratio.unsigned_abs() * root / 64).checked_ilog2();
        Code {
            expected,
            root,
            k: k.unwrap_or(0).min(32),
        }
    }

    /// The least that the next count can be.
    const fn least(&self) -> u64 {
        self.is_filled as u64
    }

    /// A count was told by this difference.
    fn learn(&mut self, code: &Code, folded: u64, count: u64) {
        let found = (64 * folded.min(1 << 40) / code.root).min(1 << 20) as i64;
        self.ratio = (self.ratio + ((found - self.ratio) >> 2)).max(1);
        self.is_filled = count == 0;
        self.before = match count {
            0 => [0; 2],
            _ => [count, self.before[0]],
        };
    }
}

impl Code {
    const fn fold(&self, count: u64) -> u64 {
        if count > 2 * self.expected {
            count
        } else if count >= self.expected {
            2 * (count - self.expected)
        } else {
            2 * (self.expected - count) - 1
        }
    }

    const fn unfold(&self, folded: u64) -> u64 {
        if folded > 2 * self.expected {
            folded
        } else if folded.is_multiple_of(2) {
            self.expected + folded / 2
        } else {
            self.expected - folded / 2 - 1
        }
    }
}

/// Writes the counts of filled buckets, which are sorted by slot.
pub(super) fn write(buckets: &[(u16, u64)]) -> Vec<u8> {
    let (mut bits, mut model) = (BitWriter::default(), Model::new());
    let mut next = buckets.first().map_or(0, |own| own.0);
    for &(slot, count) in buckets {
        if slot > next {
            write_count(&mut bits, &mut model, 0);
            write_gamma(&mut bits, (slot - next).into());
        }
        write_count(&mut bits, &mut model, count);
        next = slot + 1;
    }
    bits.finish()
}

fn write_count(bits: &mut BitWriter, model: &mut Model, count: u64) {
    let code = model.code();
    let folded = code.fold(count - model.least());
    match u32::try_from(folded >> code.k) {
        Ok(ones) if ones < ESCAPE => {
            bits.put_ones(ones, ESCAPE);
            write_low(bits, folded, code.k);
        }
        _ => {
            bits.put_ones(ESCAPE, ESCAPE);
            write_gamma(bits, folded);
        }
    }
    model.learn(&code, folded, count);
}

/// A number of at least 1.
fn write_gamma(bits: &mut BitWriter, number: u64) {
    let width = number.ilog2();
    for _ in 0..width {
        bits.put(1, 1);
    }
    bits.put(0, 1);
    write_low(bits, number, width);
}

fn write_low(bits: &mut BitWriter, number: u64, width: u32) {
    let low = number & ((1 << width) - 1);
    bits.put(low as u32, width.min(32));
    bits.put((low >> 32) as u32, width.saturating_sub(32));
}

/// Reads the counts of buckets from this slot on that have so many samples together; `None` if the bytes are none.
pub(super) fn read(
    schema: Schema,
    first: u16,
    samples: u64,
    bytes: &[u8],
) -> Option<Vec<(u16, u64)>> {
    let (mut bits, mut model) = (BitReader::new(bytes), Model::new());
    let (mut slot, mut left) = (u64::from(first), samples);
    let mut buckets = Vec::new();
    while left > 0 {
        // No more than the schema has, whatever is told.
        if slot >= schema.slots().into() {
            return None;
        }
        match read_count(&mut bits, &mut model)? {
            0 => slot = slot.checked_add(read_gamma(&mut bits)?)?,
            count => {
                left = left.checked_sub(count)?;
                buckets.push((slot as u16, count));
                slot += 1;
            }
        }
    }
    bits.is_finished().then_some(buckets)
}

fn read_count(bits: &mut BitReader<'_>, model: &mut Model) -> Option<u64> {
    let code = model.code();
    let folded = match bits.take_ones(ESCAPE)? {
        ESCAPE => {
            let folded = read_gamma(bits)?;
            // There is a shorter way to say less.
            (folded >> code.k >= ESCAPE.into()).then_some(folded)?
        }
        ones => u64::from(ones) << code.k | read_low(bits, code.k)?,
    };
    let count = code.unfold(folded).checked_add(model.least())?;
    if count > MOST {
        return None;
    }
    model.learn(&code, folded, count);
    Some(count)
}

fn read_gamma(bits: &mut BitReader<'_>) -> Option<u64> {
    let mut width = 0;
    while bits.take(1)? == 1 {
        width += 1;
    }
    match width {
        0..64 => Some(1 << width | read_low(bits, width)?),
        _ => None,
    }
}

fn read_low(bits: &mut BitReader<'_>, width: u32) -> Option<u64> {
    let low = u64::from(bits.take(width.min(32))?);
    let high = u64::from(bits.take(width.saturating_sub(32))?);
    Some(high << 32 | low)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SCHEMA: Schema = Schema::TwoDigits;

    fn read_again(buckets: &[(u16, u64)]) {
        let samples = buckets.iter().map(|own| own.1).sum();
        let first = buckets.first().map_or(0, |own| own.0);
        let bytes = write(buckets);
        let read = read(SCHEMA, first, samples, &bytes);
        assert_eq!(read.as_deref(), Some(buckets), "{bytes:?}");
    }

    #[test]
    fn the_largest_and_the_loneliest_counts_are_read_again() {
        let last = SCHEMA.slots() - 1;
        read_again(&[]);
        read_again(&[(0, 1)]);
        read_again(&[(last, MOST)]);
        read_again(&[(0, 1), (last, MOST - 1)]);
        read_again(&[(0, MOST - 1), (1, 1)]);
        read_again(&[(0, MOST / 2), (1, MOST / 2)]);
    }

    #[test]
    fn more_than_there_can_be_is_refused() {
        assert_eq!(read(SCHEMA, 0, MOST + 1, &write(&[(0, MOST + 1)])), None);
        let last = SCHEMA.slots() - 1;
        assert_eq!(read(SCHEMA, last, 2, &write(&[(0, 1), (1, 1)])), None);
        assert_eq!(read(SCHEMA, 0, 2, &write(&[(0, 3)])), None);
        assert_eq!(read(SCHEMA, 0, 1, &[]), None);
    }

    /// A bell of 200 buckets, as wide round-trip times make it: less than half a byte each.
    #[test]
    fn like_neighbours_take_few_bits() {
        let counts = (0..200i32).map(|at| {
            let bell = 100.0 * (-f64::from(at - 100).powi(2) / 5_000.0).exp();
            (at as u16, bell as u64 + 1 + u64::from(at % 7 == 0))
        });
        let buckets: Vec<_> = counts.collect();
        read_again(&buckets);
        let bits = 8.0 * write(&buckets).len() as f64 / buckets.len() as f64;
        assert!(bits < 4.0, "{bits}");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            steps in prop::collection::vec((prop_oneof![8 => Just(0u16), 2 => 1u16..30], 0u32..50, any::<u32>()), 0..60),
        ) {
            let mut next = 0;
            let buckets: Vec<_> = steps.into_iter().map(|(gap, width, noise)| {
                let slot = next + gap;
                next = slot + 1;
                (slot, (u64::from(noise) << 18 >> width).max(1))
            }).collect();
            read_again(&buckets);
        }
    }
}
