//! Reading rows, one after the other into the same report, so that nothing is allocated for each of them.
//!
//! Most columns of a quiet network are constant. What they say is put into the report once, before the first row, and
//! only those that vary are looked at again.

use std::time::Duration;

use super::{
    COLUMNS, COUNT_BITS, COUNT_ESCAPE, Name, Why,
    check::{check_extremes, check_one_way},
    columns_of, malformed, samples,
};
use crate::{
    bits::BitReader,
    histogram::Schema,
    report::{Counts, OneWay, Report, Rtt, Silence},
    varint::unzigzag,
    wire::{WireError, column::Column, limits},
};

const ENDS: Why = "a column ends before the rows do, or holds a number out of range";
const BITS_END: Why = "the bits end before the rows do";

/// The columns from [`Name::Scheduled`] to [`Name::Open`]: one number of every row each.
const NUMBERS: usize = Name::Open as usize - Name::Scheduled as usize + 1;

/// Reads `rows` rows into `report`, and shows each of them. Those before one that is none have been shown when that is found.
///
/// # Errors
///
/// Returns what is wrong with the columns or bits.
pub(in crate::wire) fn visit<'a>(
    (format, schema, rows): (u8, Schema, usize),
    mut columns: &'a [u8],
    bits: &'a [u8],
    report: &mut Report,
    mut show: impl FnMut(u32, &Report),
) -> Result<(), WireError> {
    let mut reader = Reader::new(format, schema, &mut columns, bits)
        .ok_or_else(|| malformed("a column is cut short"))?;
    if !columns.is_empty() {
        return Err(malformed("bytes follow the last column"));
    }
    report.counts = reader.constants();
    report.rtt.histogram.restart(schema);
    for _ in 0..rows {
        let row = reader.row()?;
        reader
            .report(report)
            .map_err(|why| malformed(format!("row {row}: {why}")))?;
        show(row, report);
    }
    reader.finish()
}

struct Reader<'a> {
    schema: Schema,
    columns: [Column<'a>; COLUMNS],
    bits: BitReader<'a>,
    /// Those of the [`NUMBERS`] that are not the same in every row.
    varied: [u8; NUMBERS],
    varied_count: usize,
    next_row: u32,
    slot: u16,
    buckets: usize,
}

impl<'a> Reader<'a> {
    fn new(format: u8, schema: Schema, bytes: &mut &'a [u8], bits: &'a [u8]) -> Option<Self> {
        let mut columns = std::array::from_fn(|_| Column::Constant(0));
        for column in &mut columns[..columns_of(format)] {
            *column = Column::split_off(bytes)?;
        }
        Some(Self {
            schema,
            columns,
            bits: BitReader::new(bits),
            varied: [0; NUMBERS],
            varied_count: 0,
            next_row: 0,
            slot: 0,
            buckets: 0,
        })
    }

    /// What all rows have in common; from now on only the rest of the numbers is read.
    fn constants(&mut self) -> Counts {
        let mut counts = Counts::default();
        self.varied_count = 0;
        for at in 0..NUMBERS {
            match self.columns[Name::Scheduled as usize + at].constant_u32() {
                Some(value) => *number(&mut counts, at) = value,
                None => {
                    self.varied[self.varied_count] = at as u8;
                    self.varied_count += 1;
                }
            }
        }
        counts
    }

    #[inline]
    fn row(&mut self) -> Result<u32, WireError> {
        let row = self
            .u32(Name::RowGap)
            .ok()
            .and_then(|gap| gap.checked_add(self.next_row))
            .filter(|&row| (row as usize) < limits::PATHS);
        let Some(row) = row else {
            return Err(malformed(format!(
                "the row after {} is out of range",
                self.next_row
            )));
        };
        self.next_row = row + 1;
        Ok(row)
    }

    #[inline]
    fn report(&mut self, report: &mut Report) -> Result<(), Why> {
        self.counts(&mut report.counts)?;
        match samples(&report.counts) {
            0 => {
                report.rtt.histogram.clear();
                (report.rtt.min_us, report.rtt.max_us, report.rtt.sum_us) = (0, 0, 0);
                Ok(())
            }
            samples => self.rtt(samples, &mut report.rtt),
        }
    }

    #[inline]
    fn counts(&mut self, counts: &mut Counts) -> Result<(), Why> {
        for &at in &self.varied[..self.varied_count] {
            let column = &mut self.columns[Name::Scheduled as usize + usize::from(at)];
            *number(counts, at.into()) = column.take_u32().ok_or(ENDS)?;
        }
        counts.silence = self.silence()?;
        counts.one_way = match self.columns[Name::OneWay as usize].take().ok_or(ENDS)? {
            0 => None,
            told => Some(self.one_way(told - 1)?),
        };
        if counts.one_way.is_some() {
            check_one_way(counts)?;
        }
        Ok(())
    }

    fn one_way(&mut self, pending: u64) -> Result<OneWay, Why> {
        let mut one_way = OneWay {
            lost_unknown: self.u32(Name::LostUnknown)?,
            lost_pending: u32::try_from(pending).map_err(|_| ENDS)?,
            ..OneWay::default()
        };
        let directions = [&mut one_way.forward, &mut one_way.backward];
        for (way, direction) in directions.into_iter().enumerate() {
            let mut take = |name: Name| self.columns[name as usize + way].take().ok_or(ENDS);
            let narrow = |number: u64| u32::try_from(number).map_err(|_| ENDS);
            direction.lost = narrow(take(Name::Lost)?)?;
            direction.reordered = narrow(take(Name::Reordered)?)?;
            direction.variation.pairs = narrow(take(Name::Pairs)?)?;
            if direction.variation.pairs > 0 {
                direction.variation.sum_us = take(Name::VariationSum)?;
                direction.variation.max_us = narrow(take(Name::VariationMax)?)?;
            }
        }
        Ok(one_way)
    }

    #[inline]
    fn silence(&mut self) -> Result<Option<Silence>, Why> {
        let told = self.columns[Name::Silence as usize].take().ok_or(ENDS)?;
        let Some(unanswered) = told.checked_sub(1) else {
            return Ok(None);
        };
        let unanswered = u32::try_from(unanswered).map_err(|_| ENDS)?;
        let lasts_us = match unanswered {
            0 => 0,
            _ => self.columns[Name::SilenceLasts as usize]
                .take()
                .ok_or(ENDS)?,
        };
        let lasts = Duration::from_micros(lasts_us);
        Ok(Some(Silence { unanswered, lasts }))
    }

    #[inline]
    fn rtt(&mut self, samples: u64, rtt: &mut Rtt) -> Result<(), Why> {
        let ((first, last), expected) = rtt
            .histogram
            .refill(|buckets| self.buckets(samples, buckets))?;
        rtt.min_us = self.place(first)?;
        rtt.max_us = match samples {
            1 => rtt.min_us,
            _ => self.place(last)?,
        };
        rtt.sum_us = match samples {
            1 => rtt.min_us.into(),
            2 => u64::from(rtt.min_us) + u64::from(rtt.max_us),
            _ => {
                let middle = |slot| i64::from(self.schema.middle(slot));
                let ends = i64::from(rtt.min_us) + i64::from(rtt.max_us);
                self.sum(first, expected - middle(first) - middle(last) + ends)?
            }
        };
        check_extremes(rtt, samples)
    }

    /// The filled buckets of a row: the first and the last, and what all samples come to if each lay in the middle of its
    /// bucket. At most 2^34 samples (four classes of 32 bits) of 60 s: below 2^60.
    #[inline]
    fn buckets(
        &mut self,
        samples: u64,
        buckets: &mut Vec<(u16, u32)>,
    ) -> Result<((u16, u16), i64), Why> {
        const RANGE: Why = "a bucket's count is out of range";
        let schema = self.schema;
        let slots = u64::from(schema.slots());
        let last = self.u32(Name::Buckets)?;
        if u64::from(last) >= samples || u64::from(last) >= slots {
            return Err("it has more buckets than samples, or than its schema has");
        }
        self.buckets += last as usize + 1;
        if self.buckets > limits::BATCH_BUCKETS {
            return Err("the batch has too many buckets");
        }
        let step = unzigzag(self.columns[Name::FirstSlot as usize].take().ok_or(ENDS)?);
        let slot = i64::from(self.slot)
            .checked_add(step)
            .and_then(|slot| u16::try_from(slot).ok());
        self.slot = slot
            .filter(|&slot| slot < schema.slots())
            .ok_or("a bucket is outside the schema")?;

        buckets.reserve(last as usize + 1);
        let (mut slot, mut left, mut all) = (u64::from(self.slot), samples, 0);
        // Taken out of the reader, it stays in registers.
        let mut body = self.columns[Name::Body as usize].clone();
        for _ in 0..last {
            let told = body.take().ok_or(ENDS)?;
            let mut count = 1 + (told & COUNT_ESCAPE);
            if count > COUNT_ESCAPE {
                count += u64::from(self.u32(Name::BodyCount)?);
            }
            left = left
                .checked_sub(count)
                .ok_or("its buckets hold more than its samples")?;
            buckets.push((slot as u16, u32::try_from(count).map_err(|_| RANGE)?));
            all += count as i64 * i64::from(schema.middle(slot as u16));
            slot += 1 + (told >> COUNT_BITS);
            if slot >= slots {
                return Err("a bucket is outside the schema");
            }
        }
        self.columns[Name::Body as usize] = body;
        if left == 0 {
            return Err("its last bucket is empty");
        }
        let last = slot as u16;
        buckets.push((last, u32::try_from(left).map_err(|_| RANGE)?));
        all += left as i64 * i64::from(schema.middle(last));
        Ok(((self.slot, last), all))
    }

    /// A value within a bucket.
    #[inline]
    fn place(&mut self, slot: u16) -> Result<u32, Why> {
        let place = self
            .bits
            .take(self.schema.width_bits(slot))
            .ok_or(BITS_END)?;
        Ok(self.schema.lowest(slot) + place)
    }

    #[inline]
    fn sum(&mut self, first: u16, expected: i64) -> Result<u64, Why> {
        let width = self.schema.width_bits(first);
        let steps = unzigzag(self.columns[Name::SumSteps as usize].take().ok_or(ENDS)?);
        let low = self.bits.take(width).ok_or(BITS_END)?;
        let sum = steps
            .checked_mul(1 << width)
            .and_then(|off| off.checked_add(i64::from(low)))
            .and_then(|off| off.checked_add(expected));
        sum.and_then(|sum| u64::try_from(sum).ok())
            .ok_or("its sum is out of range")
    }

    #[inline]
    fn u32(&mut self, name: Name) -> Result<u32, Why> {
        self.columns[name as usize].take_u32().ok_or(ENDS)
    }

    fn finish(&self) -> Result<(), WireError> {
        if !self.columns.iter().all(Column::is_finished) {
            return Err(malformed("a column goes on after the last row"));
        }
        if !self.bits.is_finished() {
            return Err(malformed("bits follow the last row"));
        }
        Ok(())
    }
}

/// One of the [`NUMBERS`], in the order of their columns.
#[inline]
fn number(counts: &mut Counts, at: usize) -> &mut u32 {
    match at {
        0 => &mut counts.scheduled,
        1..=8 => &mut counts.classes[at - 1],
        9 => &mut counts.overdue,
        _ => &mut counts.open,
    }
}
