//! A sum as bytes: the value of a row in columns `minutes` and `hours`. Frozen by its format number.
//!
//! ```text
//!  format u8 = 1
//!  numbers, each as `varint` writes it
//!    reports │ which of what follows is there: bits 0 to 7 classes, 8 overdue, 9 directions
//!    each class and overdue that is there │ zigzag(scheduled - the sum of the classes)
//!  with n > 0 samples, n = replied + late + duplicate + refused
//!    filled buckets - 1 │ first slot
//!    each bucket but the last: (count - 1) << 1 | (1 if empty buckets follow), and if so how many - 1
//!    minimum - lowest of the first bucket
//!    n > 1: maximum - lowest of the last bucket
//!    n > 2: zigzag(sum - the sum if every sample but the extremes lay in the middle of its bucket)
//!  directions
//!    lost in unknown direction │ forward, backward: lost │ reordered │ pairs │ with pairs > 0: variation sum, largest
//! ```
//!
//! The schema stands in the key. What follows from the rest is left out: the last bucket's count, the maximum of one
//! sample, the sum of two. Equal sums have equal bytes and the other way round.

use leeward_common::{
    histogram::{MAX_US, Schema},
    report::Class,
    varint::{push_varint, take_varint, unzigzag, zigzag},
};

use super::sum::{Direction, Distribution, OneWay, Sum};
use crate::store::StoreError;

const FORMAT: u8 = 1;
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
    encode_rtt(&mut out, rtt);
    if let Some(told) = one_way {
        push_varint(&mut out, told.lost_unknown);
        encode_direction(&mut out, &told.forward);
        encode_direction(&mut out, &told.backward);
    }
    out
}

fn encode_rtt(out: &mut Vec<u8>, rtt: &Distribution) {
    let (Some((first, _)), Some((last, _))) = (rtt.buckets.first(), rtt.buckets.last()) else {
        return;
    };
    push_varint(out, rtt.buckets.len() as u64 - 1);
    push_varint(out, (*first).into());
    for pair in rtt.buckets.windows(2) {
        let gap = u64::from(pair[1].0 - pair[0].0 - 1);
        push_varint(out, (pair[0].1 - 1) << 1 | u64::from(gap > 0));
        if gap > 0 {
            push_varint(out, gap - 1);
        }
    }
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
        Some((&FORMAT, rest)) => Reader(rest).sum(schema).ok_or_else(|| {
            malformed("its numbers contradict each other, or there are too few or too many")
        }),
        Some((other, _)) => Err(malformed(&format!(
            "format {other}; this build reads {FORMAT}"
        ))),
        None => Err(malformed("it has no bytes")),
    }
}

struct Reader<'a>(&'a [u8]);

/// `None` wherever the bytes are none.
impl Reader<'_> {
    fn sum(mut self, schema: Schema) -> Option<Sum> {
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
        let sum = Sum {
            reports: (reports > 0).then_some(reports)?,
            scheduled,
            classes,
            overdue,
            rtt: self.rtt(schema, samples(&classes))?,
            one_way: match present & ONE_WAY > 0 {
                true => Some(OneWay {
                    lost_unknown: self.number()?,
                    forward: self.direction()?,
                    backward: self.direction()?,
                }),
                false => None,
            },
        };
        self.0.is_empty().then_some(sum)
    }

    fn rtt(&mut self, schema: Schema, n: u64) -> Option<Distribution> {
        let mut rtt = Distribution::new(schema);
        if n == 0 {
            return Some(rtt);
        }
        rtt.buckets = self.buckets(schema, n)?;
        let (first, last) = (rtt.buckets.first()?.0, rtt.buckets.last()?.0);
        rtt.min_us = self.place(schema, first)?;
        rtt.max_us = match n {
            1 => rtt.min_us,
            _ => self.place(schema, last)?,
        };
        rtt.sum_us = match n {
            1 => rtt.min_us.into(),
            2 => u64::from(rtt.min_us) + u64::from(rtt.max_us),
            _ => expected_us(&rtt).wrapping_add(unzigzag(self.number()?) as u64),
        };
        let (min, max) = (u128::from(rtt.min_us), u128::from(rtt.max_us));
        let others = u128::from(n - 1);
        let possible = min * others + max..=min + max * others;
        (min <= max && possible.contains(&rtt.sum_us.into())).then_some(rtt)
    }

    fn buckets(&mut self, schema: Schema, n: u64) -> Option<Vec<(u16, u64)>> {
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

    /// A value within a bucket.
    fn place(&mut self, schema: Schema, slot: u16) -> Option<u32> {
        let value = u64::from(schema.lowest(slot)).checked_add(self.number()?)?;
        let value = u32::try_from(value).ok()?;
        (value <= schema.highest(slot).min(MAX_US)).then_some(value)
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

    /// What is on disk today must be readable for ever: these bytes never change.
    #[test]
    fn golden_bytes() {
        let schema = Schema::TwoDigits;
        let one = sum_of(
            schema,
            &[report(schema, &[70_000, 70_001, 71_500, 250], 1, None)],
        );
        let bytes = [
            1, 1, 0x9f, 2, 1, 1, 1, 1, 1, 1, 1, 2, 0xfa, 1, 1, 0x8c, 8, 3, 1, 0, 0xcc, 2, 0xc6, 3,
        ];
        assert_eq!(encode(&one), bytes);
        assert_eq!(decode(schema, &bytes).unwrap(), one);

        let told = sum_of(schema, &[report(schema, &[], 2, Some(300))]);
        let bytes = [
            1, 1, 0x88, 6, 2, 2, 1, 3, 2, 1, 2, 0xd8, 4, 0xac, 2, 0, 0, 0,
        ];
        assert_eq!(encode(&told), bytes);
        assert_eq!(decode(schema, &bytes).unwrap(), told);

        let error = decode(schema, &[2]).unwrap_err().to_string();
        assert_eq!(
            error,
            "malformed rollup in the store: format 2; this build reads 1"
        );
    }

    #[test]
    fn any_bytes_are_a_rollup_or_an_error_and_a_rollup_has_one_form() {
        let schema = Schema::TwoDigits;
        let seed = encode(&sum_of(
            schema,
            &[report(schema, &[70_000, 80_000, 3], 2, Some(9))],
        ));
        bolero::check!()
            .with_iterations(20_000)
            .with_type()
            .for_each(|(at, bytes): &(u8, Vec<u8>)| {
                let mut changed = seed.clone();
                let start = usize::from(*at) % seed.len();
                for (place, byte) in changed[start..].iter_mut().zip(bytes) {
                    *place = *byte;
                }
                for bytes in [&changed, bytes] {
                    for schema in [Schema::TwoDigits, Schema::ThreeDigits] {
                        if let Ok(sum) = decode(schema, bytes) {
                            assert_eq!(encode(&sum), *bytes);
                        }
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
