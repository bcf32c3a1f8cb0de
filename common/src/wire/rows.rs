//! The rows of a batch, as columns and bits. The layout is drawn in [`super::batch`].
//!
//! Everything that follows from the rest is left out: the last bucket's count (the classes say how many samples there
//! are), the maximum of a single sample, the sum of two. The minimum lies in the first filled bucket and the maximum
//! in the last, so only their places within these are written.

mod check;
mod read;

use crate::{
    bits::BitWriter,
    histogram::Schema,
    report::{Class, Counts, OneWay, Report, Rtt, Silence, Variation},
    varint::zigzag,
    wire::{WireError, column::ColumnWriter, limits},
};

use check::check;
pub(super) use read::visit;

/// Why a row is none; where it is is added by who knows.
type Why = &'static str;

/// The columns, in wire order.
#[derive(Clone, Copy)]
enum Name {
    RowGap,
    Scheduled,
    /// The first of eight, in the order of [`Class::ALL`].
    Classes,
    Overdue = Name::Classes as isize + 8,
    Open,
    Buckets,
    FirstSlot,
    Body,
    BodyCount,
    SumSteps,
    Silence,
    SilenceLasts,
    OneWay,
    LostUnknown,
    /// The first of two, forward and backward; so are those that follow.
    Lost,
    Reordered = Name::Lost as isize + 2,
    Pairs = Name::Reordered as isize + 2,
    VariationSum = Name::Pairs as isize + 2,
    VariationMax = Name::VariationSum as isize + 2,
}

const COLUMNS: usize = Name::VariationMax as usize + 2;

/// Format 1 ends with this column.
const COLUMNS_OF_FORMAT_1: usize = Name::SumSteps as usize + 1;

/// Format 2 ends with this column.
const COLUMNS_OF_FORMAT_2: usize = Name::SilenceLasts as usize + 1;

const fn columns_of(format: u8) -> usize {
    match format {
        1 => COLUMNS_OF_FORMAT_1,
        2 => COLUMNS_OF_FORMAT_2,
        _ => COLUMNS,
    }
}

/// In [`Name::Body`], the part that holds a count less one; as large as this, the rest is in [`Name::BodyCount`].
const COUNT_BITS: u32 = 2;
const COUNT_ESCAPE: u64 = (1 << COUNT_BITS) - 1;

/// The classes whose probes have a round-trip time.
const WITH_RTT: [Class; 4] = [
    Class::Replied,
    Class::Late,
    Class::Duplicate,
    Class::Refused,
];

fn samples(counts: &Counts) -> u64 {
    WITH_RTT
        .iter()
        .map(|&class| u64::from(counts.of(class)))
        .sum()
}

/// The oldest format that these rows can be written in.
pub(super) fn format_of(rows: &[(u32, Report)]) -> u8 {
    let told = rows
        .iter()
        .any(|(_, report)| report.counts.one_way.is_some());
    if told { 3 } else { 2 }
}

/// Rows as columns and as bits.
#[derive(Debug)]
pub(super) struct Encoded {
    pub(super) columns: Vec<u8>,
    pub(super) bits: Vec<u8>,
}

/// Writes rows.
///
/// # Errors
///
/// Returns which row is not what a report can be, or out of order.
pub(super) fn encode(
    format: u8,
    schema: Schema,
    rows: &[(u32, Report)],
) -> Result<Encoded, WireError> {
    let mut writer = Writer::new(schema);
    for (row, report) in rows {
        writer.push(*row, report)?;
    }
    Ok(writer.finish(columns_of(format)))
}

struct Writer {
    schema: Schema,
    columns: [ColumnWriter; COLUMNS],
    bits: BitWriter,
    next_row: u32,
    slot: u16,
    buckets: usize,
}

impl Writer {
    fn new(schema: Schema) -> Self {
        Self {
            schema,
            columns: std::array::from_fn(|_| ColumnWriter::default()),
            bits: BitWriter::default(),
            next_row: 0,
            slot: 0,
            buckets: 0,
        }
    }

    fn push(&mut self, row: u32, report: &Report) -> Result<(), WireError> {
        check(self.schema, report).map_err(|why| malformed(format!("row {row}: {why}")))?;
        let gap = row
            .checked_sub(self.next_row)
            .filter(|_| (row as usize) < limits::PATHS);
        let gap = gap.ok_or_else(|| malformed(format!("row {row} is out of order or range")))?;
        self.next_row = row + 1;
        self.column(Name::RowGap, gap.into());
        self.counts(&report.counts);
        if !report.rtt.histogram.is_empty() {
            self.rtt(&report.rtt)?;
        }
        Ok(())
    }

    fn counts(&mut self, counts: &Counts) {
        self.column(Name::Scheduled, counts.scheduled.into());
        for (column, &count) in self.columns[Name::Classes as usize..]
            .iter_mut()
            .zip(&counts.classes)
        {
            column.push(count.into());
        }
        self.column(Name::Overdue, counts.overdue.into());
        self.column(Name::Open, counts.open.into());
        self.silence(counts.silence);
        self.one_way(counts.one_way);
    }

    fn silence(&mut self, silence: Option<Silence>) {
        let Some(Silence { unanswered, lasts }) = silence else {
            return self.column(Name::Silence, 0);
        };
        self.column(Name::Silence, u64::from(unanswered) + 1);
        if unanswered > 0 {
            self.column(Name::SilenceLasts, lasts.as_micros() as u64);
        }
    }

    fn one_way(&mut self, one_way: Option<OneWay>) {
        let Some(OneWay {
            forward,
            backward,
            lost_unknown,
            lost_pending,
        }) = one_way
        else {
            return self.column(Name::OneWay, 0);
        };
        self.column(Name::OneWay, u64::from(lost_pending) + 1);
        self.column(Name::LostUnknown, lost_unknown.into());
        for (way, direction) in [forward, backward].iter().enumerate() {
            let Variation {
                pairs,
                sum_us,
                max_us,
            } = direction.variation;
            let mut push = |name: Name, value| self.columns[name as usize + way].push(value);
            push(Name::Lost, direction.lost.into());
            push(Name::Reordered, direction.reordered.into());
            push(Name::Pairs, pairs.into());
            if pairs > 0 {
                push(Name::VariationSum, sum_us);
                push(Name::VariationMax, max_us.into());
            }
        }
    }

    fn rtt(&mut self, rtt: &Rtt) -> Result<(), WireError> {
        let buckets = rtt.histogram.buckets();
        self.buckets += buckets.len();
        if self.buckets > limits::BATCH_BUCKETS {
            return Err(too_many_buckets(self.buckets));
        }
        self.column(Name::Buckets, buckets.len() as u64 - 1);
        let first = buckets[0].0;
        self.column(
            Name::FirstSlot,
            zigzag(i64::from(first) - i64::from(self.slot)),
        );
        self.slot = first;
        for pair in buckets.windows(2) {
            let (extra, gap) = (
                u64::from(pair[0].1 - 1),
                u64::from(pair[1].0 - pair[0].0 - 1),
            );
            self.column(Name::Body, gap << COUNT_BITS | extra.min(COUNT_ESCAPE));
            if extra >= COUNT_ESCAPE {
                self.column(Name::BodyCount, extra - COUNT_ESCAPE);
            }
        }
        self.places(rtt);
        Ok(())
    }

    /// Minimum, maximum and sum, as far as they do not follow from the buckets.
    fn places(&mut self, rtt: &Rtt) {
        let buckets = rtt.histogram.buckets();
        let (first, last) = (buckets[0].0, buckets[buckets.len() - 1].0);
        let samples = rtt.histogram.count();
        let width = self.schema.width_bits(first);
        self.bits.put(rtt.min_us - self.schema.lowest(first), width);
        if samples > 1 {
            self.bits.put(
                rtt.max_us - self.schema.lowest(last),
                self.schema.width_bits(last),
            );
        }
        if samples > 2 {
            let off =
                rtt.sum_us as i64 - expected_sum(self.schema, buckets, rtt.min_us, rtt.max_us);
            self.bits.put((off & ((1 << width) - 1)) as u32, width);
            self.column(Name::SumSteps, zigzag(off >> width));
        }
    }

    fn column(&mut self, name: Name, value: u64) {
        self.columns[name as usize].push(value);
    }

    fn finish(self, columns_written: usize) -> Encoded {
        let mut columns = Vec::new();
        self.columns[..columns_written]
            .iter()
            .for_each(|column| column.finish(&mut columns));
        Encoded {
            columns,
            bits: self.bits.finish(),
        }
    }
}

/// The sum if every sample but the smallest and the largest lay in the middle of its bucket. At most 2^34 samples
/// (four classes of 32 bits) of 60 s: below 2^60.
fn expected_sum(schema: Schema, buckets: &[(u16, u32)], min_us: u32, max_us: u32) -> i64 {
    let middle = |slot| i64::from(schema.middle(slot));
    let all: i64 = buckets
        .iter()
        .map(|&(slot, count)| i64::from(count) * middle(slot))
        .sum();
    let (first, last) = (buckets[0].0, buckets[buckets.len() - 1].0);
    all - middle(first) - middle(last) + i64::from(min_us) + i64::from(max_us)
}

fn too_many_buckets(have: usize) -> WireError {
    WireError::TooLarge {
        what: "number of buckets in a batch",
        have,
        limit: limits::BATCH_BUCKETS,
    }
}

fn malformed(why: impl Into<String>) -> WireError {
    WireError::Malformed {
        what: "batch",
        why: why.into(),
    }
}
