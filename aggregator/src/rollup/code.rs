//! A sum as bytes: the value of a row in columns `minutes` and `hours`. Frozen by its format number.
//!
//! ```text
//!  format u8 = 2
//!  numbers, each as `varint` writes it
//!    reports │ which of what follows is there: bits 0 to 7 classes, 8 overdue, 9 directions
//!    each class and overdue that is there │ zigzag(scheduled - the sum of the classes)
//!  directions
//!    lost in unknown direction │ forward, backward: lost │ reordered │ pairs │ with pairs > 0: variation sum, largest
//!  with n > 0 samples, n = replied + late + duplicate + refused
//!    first slot │ minimum - lowest of the first bucket
//!    n > 1: maximum - lowest of the last bucket
//!    n > 2: zigzag(sum - the sum if every sample but the extremes lay in the middle of its bucket)
//!    the counts of the buckets to the end, see `counts`
//! ```
//!
//! The schema stands in the key. What follows from the rest is left out: how many buckets there are, the maximum of one
//! sample, the sum of two. Equal sums have equal bytes and the other way round.
//!
//! Format 1, which is read and no longer written, has the directions last, and with n > 0
//!
//! ```text
//!    filled buckets - 1 │ first slot
//!    each bucket but the last: (count - 1) << 1 | (1 if empty buckets follow), and if so how many - 1
//!    minimum, maximum and sum as above
//! ```

use leeward_common::{
    histogram::{MAX_US, Schema},
    report::Class,
    varint::{push_varint, take_varint, unzigzag, zigzag},
};

use super::{
    counts,
    sum::{Direction, Distribution, OneWay, Sum},
};
use crate::store::StoreError;

const FORMAT: u8 = 2;
/// Written by earlier builds.
const FORMAT_1: u8 = 1;
const OVERDUE: u64 = 1 << 8;
const ONE_WAY: u64 = 1 << 9;
const KNOWN: u64 = (1 << 10) - 1;

/// The bytes of a sum.
#[must_use]
pub fn encode(sum: &Sum) -> Vec<u8> {
    let Sum {
        reports,
        scheduled,
        classes,
        overdue,
        rtt,
        one_way,
    } = sum;
    let mut out = Vec::with_capacity(32 + 2 * rtt.buckets.len());
    out.push(FORMAT);
    push_varint(&mut out, *reports);
    let mut present = 0;
    for (bit, count) in classes.iter().enumerate() {
        present |= u64::from(*count > 0) << bit;
    }
    if *overdue > 0 {
        present |= OVERDUE;
    }
    if one_way.is_some() {
        present |= ONE_WAY;
    }
    push_varint(&mut out, present);
    let counts = classes.iter().chain([overdue]);
    counts
        .filter(|&&count| count > 0)
        .for_each(|&count| push_varint(&mut out, count));
    push_varint(
        &mut out,
        zigzag(scheduled.wrapping_sub(ended(classes)) as i64),
    );
    if let Some(told) = one_way {
        push_varint(&mut out, told.lost_unknown);
        encode_direction(&mut out, &told.forward);
        encode_direction(&mut out, &told.backward);
    }
    encode_rtt(&mut out, rtt);
    out
}

fn encode_rtt(out: &mut Vec<u8>, rtt: &Distribution) {
    let (Some((first, _)), Some((last, _))) = (rtt.buckets.first(), rtt.buckets.last()) else {
        return;
    };
    push_varint(out, (*first).into());
    let n = rtt.count();
    push_varint(out, (rtt.min_us - rtt.schema.lowest(*first)).into());
    if n > 1 {
        push_varint(out, (rtt.max_us - rtt.schema.lowest(*last)).into());
    }
    if n > 2 {
        push_varint(
            out,
            zigzag(rtt.sum_us.wrapping_sub(expected_us(rtt)) as i64),
        );
    }
    out.extend(counts::write(&rtt.buckets));
}

fn encode_direction(out: &mut Vec<u8>, direction: &Direction) {
    let Direction {
        lost,
        reordered,
        pairs,
        variation_sum_us,
        variation_max_us,
    } = *direction;
    for number in [lost, reordered, pairs] {
        push_varint(out, number);
    }
    if pairs > 0 {
        push_varint(out, variation_sum_us);
        push_varint(out, variation_max_us.into());
    }
}

/// Reads a sum whose histogram is of this schema.
///
/// # Errors
///
/// Returns [`StoreError::Malformed`] when the bytes are none.
pub fn decode(schema: Schema, bytes: &[u8]) -> Result<Sum, StoreError> {
    let malformed = |why: &str| StoreError::Malformed {
        what: "rollup",
        why: why.to_owned(),
    };
    match bytes.split_first() {
        Some((&format @ (FORMAT | FORMAT_1), rest)) => {
            Reader(rest).sum(format, schema).ok_or_else(|| {
                malformed("its numbers contradict each other, or there are too few or too many")
            })
        }
        Some((other, _)) => Err(malformed(&format!(
            "format {other}; this build reads {FORMAT_1} to {FORMAT}"
        ))),
        None => Err(malformed("it has no bytes")),
    }
}

struct Reader<'a>(&'a [u8]);

/// `None` wherever the bytes are none.
impl Reader<'_> {
    fn sum(mut self, format: u8, schema: Schema) -> Option<Sum> {
        let reports = self.number()?;
        let present = self.number().filter(|present| present & !KNOWN == 0)?;
        let mut classes = [0; 8];
        for (bit, class) in classes.iter_mut().enumerate() {
            *class = self.present(present >> bit & 1 > 0)?;
        }
        let overdue = self.present(present & OVERDUE > 0)?;
        let ended = classes
            .iter()
            .try_fold(0, |sum: u64, &count| sum.checked_add(count))?;
        let scheduled = ended.wrapping_add(unzigzag(self.number()?) as u64);
        let n = Some(samples(&classes)).filter(|&n| n <= counts::MOST)?;
        let (rtt, one_way) = match format {
            FORMAT => {
                let one_way = self.one_way(present)?;
                (self.rtt(schema, n)?, one_way)
            }
            _ => (self.rtt_1(schema, n)?, self.one_way(present)?),
        };
        let sum = Sum {
            reports: (reports > 0).then_some(reports)?,
            scheduled,
            classes,
            overdue,
            rtt,
            one_way,
        };
        self.0.is_empty().then_some(sum)
    }

    fn one_way(&mut self, present: u64) -> Option<Option<OneWay>> {
        if present & ONE_WAY == 0 {
            return Some(None);
        }
        Some(Some(OneWay {
            lost_unknown: self.number()?,
            forward: self.direction()?,
            backward: self.direction()?,
        }))
    }

    fn rtt(&mut self, schema: Schema, n: u64) -> Option<Distribution> {
        if n == 0 {
            return Some(Distribution::new(schema));
        }
        let first = in_schema(schema, self.number()?)?;
        let ends = self.ends(n)?;
        let buckets = counts::read(schema, first, n, std::mem::take(&mut self.0))?;
        ends.of(schema, buckets, n)
    }

    fn rtt_1(&mut self, schema: Schema, n: u64) -> Option<Distribution> {
        if n == 0 {
            return Some(Distribution::new(schema));
        }
        let buckets = self.buckets_1(schema, n)?;
        self.ends(n)?.of(schema, buckets, n)
    }

    fn buckets_1(&mut self, schema: Schema, n: u64) -> Option<Vec<(u16, u64)>> {
        let others = self.number()?;
        // Checked before anything is allocated.
        if others >= n || others >= schema.slots().into() {
            return None;
        }
        let (mut slot, mut left) = (self.number()?, n);
        let mut buckets = Vec::with_capacity(others as usize + 1);
        for _ in 0..others {
            let told = self.number()?;
            let count = (told >> 1) + 1;
            left = left.checked_sub(count)?;
            buckets.push((in_schema(schema, slot)?, count));
            let gap = match told & 1 {
                0 => 0,
                _ => self.number()?.checked_add(1)?,
            };
            slot = slot.checked_add(1)?.checked_add(gap)?;
        }
        buckets.push((in_schema(schema, slot)?, (left > 0).then_some(left)?));
        Some(buckets)
    }

    /// What is told of n > 0 samples beside their buckets.
    fn ends(&mut self, n: u64) -> Option<Ends> {
        Some(Ends {
            min: self.number()?,
            max: if n > 1 { self.number()? } else { 0 },
            sum: if n > 2 { self.number()? } else { 0 },
        })
    }

    fn direction(&mut self) -> Option<Direction> {
        let mut direction = Direction {
            lost: self.number()?,
            reordered: self.number()?,
            pairs: self.number()?,
            ..Direction::default()
        };
        if direction.pairs > 0 {
            direction.variation_sum_us = self.number()?;
            direction.variation_max_us = u32::try_from(self.number()?).ok()?;
        }
        Some(direction)
    }

    /// A number that is not written where it is 0.
    fn present(&mut self, is_there: bool) -> Option<u64> {
        match is_there {
            true => self.number().filter(|&number| number > 0),
            false => Some(0),
        }
    }

    fn number(&mut self) -> Option<u64> {
        take_varint(&mut self.0)
    }
}

/// The extremes and the sum as they are written.
struct Ends {
    min: u64,
    max: u64,
    sum: u64,
}

impl Ends {
    /// `None` if there are no such samples in these buckets.
    fn of(self, schema: Schema, buckets: Vec<(u16, u64)>, n: u64) -> Option<Distribution> {
        let (first, last) = (buckets.first()?.0, buckets.last()?.0);
        let mut rtt = Distribution::new(schema);
        rtt.buckets = buckets;
        rtt.min_us = within(schema, first, self.min)?;
        rtt.max_us = match n {
            1 => rtt.min_us,
            _ => within(schema, last, self.max)?,
        };
        rtt.sum_us = match n {
            1 => rtt.min_us.into(),
            2 => u64::from(rtt.min_us) + u64::from(rtt.max_us),
            _ => expected_us(&rtt).wrapping_add(unzigzag(self.sum) as u64),
        };
        let (min, max) = (u128::from(rtt.min_us), u128::from(rtt.max_us));
        let others = u128::from(n - 1);
        let possible = min * others + max..=min + max * others;
        (min <= max && possible.contains(&rtt.sum_us.into())).then_some(rtt)
    }
}

/// A value within a bucket.
fn within(schema: Schema, slot: u16, place: u64) -> Option<u32> {
    let value = u64::from(schema.lowest(slot)).checked_add(place)?;
    let value = u32::try_from(value).ok()?;
    (value <= schema.highest(slot).min(MAX_US)).then_some(value)
}

fn in_schema(schema: Schema, slot: u64) -> Option<u16> {
    let slot = u16::try_from(slot).ok()?;
    (slot < schema.slots()).then_some(slot)
}

fn ended(classes: &[u64; 8]) -> u64 {
    classes
        .iter()
        .fold(0, |sum: u64, &count| sum.wrapping_add(count))
}

fn samples(classes: &[u64; 8]) -> u64 {
    [
        Class::Replied,
        Class::Late,
        Class::Duplicate,
        Class::Refused,
    ]
    .iter()
    .map(|&class| classes[class as usize])
    .sum()
}

/// The sum if every sample but the extremes lay in the middle of its bucket, modulo 2^64.
fn expected_us(rtt: &Distribution) -> u64 {
    let middle = |slot: u16| u64::from(rtt.schema.middle(slot));
    let all = rtt.buckets.iter().fold(0, |sum: u64, &(slot, count)| {
        sum.wrapping_add(count.wrapping_mul(middle(slot)))
    });
    let ends = [rtt.buckets.first(), rtt.buckets.last()];
    let ends = ends
        .iter()
        .flatten()
        .fold(0, |sum, (slot, _)| sum + middle(*slot));
    all.wrapping_sub(ends)
        .wrapping_add(rtt.min_us.into())
        .wrapping_add(rtt.max_us.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollup::sum::tests::{any_report, report, sum_of};
    use proptest::prelude::*;

    fn samples() -> [Sum; 2] {
        let schema = Schema::TwoDigits;
        [
            report(schema, &[70_000, 70_001, 71_500, 250], 1, None),
            report(schema, &[], 2, Some(300)),
        ]
        .map(|report| sum_of(schema, &[report]))
    }

    /// What is on disk today must be readable for ever: these bytes never change.
    #[test]
    fn golden_bytes() {
        let bytes: [&[u8]; 2] = [
            &[
                2, 1, 0x9f, 2, 1, 1, 1, 1, 1, 1, 1, 0xfa, 1, 0, 0xcc, 2, 0xc6, 3, 0xf4, 0xbf, 6,
                0x2a, 0,
            ],
            &[
                2, 1, 0x88, 6, 2, 2, 1, 3, 2, 1, 2, 0xd8, 4, 0xac, 2, 0, 0, 0,
            ],
        ];
        for (sum, bytes) in samples().iter().zip(bytes) {
            assert_eq!(encode(sum), bytes);
            assert_eq!(decode(sum.rtt.schema, bytes).unwrap(), *sum);
        }
        let error = decode(Schema::TwoDigits, &[3]).unwrap_err().to_string();
        assert_eq!(
            error,
            "malformed rollup in the store: format 3; this build reads 1 to 2"
        );
    }

    /// What earlier builds wrote.
    const FORMAT_1_BYTES: [&[u8]; 2] = [
        &[
            1, 1, 0x9f, 2, 1, 1, 1, 1, 1, 1, 1, 2, 0xfa, 1, 1, 0x8c, 8, 3, 1, 0, 0xcc, 2, 0xc6, 3,
        ],
        &[
            1, 1, 0x88, 6, 2, 2, 1, 3, 2, 1, 2, 0xd8, 4, 0xac, 2, 0, 0, 0,
        ],
    ];

    #[test]
    fn golden_bytes_of_format_1_are_read() {
        for (sum, bytes) in samples().iter().zip(FORMAT_1_BYTES) {
            assert_eq!(decode(sum.rtt.schema, bytes).unwrap(), *sum);
        }
    }

    #[test]
    fn any_bytes_are_a_rollup_or_an_error_and_a_rollup_has_one_form() {
        let schema = Schema::TwoDigits;
        let lossy = report(schema, &[70_000, 80_000, 3], 2, Some(9));
        let seeds = [
            encode(&sum_of(schema, &[lossy])),
            FORMAT_1_BYTES[0].to_vec(),
        ];
        bolero::check!()
            .with_iterations(20_000)
            .with_type()
            .for_each(|(at, bytes): &(u8, Vec<u8>)| {
                let mut all = vec![bytes.clone()];
                for seed in &seeds {
                    let mut changed = seed.clone();
                    let start = usize::from(*at) % seed.len();
                    for (place, byte) in changed[start..].iter_mut().zip(bytes) {
                        *place = *byte;
                    }
                    all.push(changed);
                }
                for bytes in all {
                    for schema in [Schema::TwoDigits, Schema::ThreeDigits] {
                        let Ok(sum) = decode(schema, &bytes) else {
                            continue;
                        };
                        let written = encode(&sum);
                        assert_eq!(decode(schema, &written).unwrap(), sum);
                        assert!(written == bytes || bytes[0] == FORMAT_1);
                    }
                }
            });
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            schema in prop_oneof![Just(Schema::TwoDigits), Just(Schema::ThreeDigits)],
            two in prop::collection::vec(any_report(Schema::TwoDigits), 1..40),
            three in prop::collection::vec(any_report(Schema::ThreeDigits), 1..40),
        ) {
            let reports = if schema == Schema::TwoDigits { two } else { three };
            let sum = sum_of(schema, &reports);
            // An empty distribution has the schema that it is asked for.
            prop_assert_eq!(decode(schema, &encode(&sum)).unwrap(), sum);
        }
    }
}
