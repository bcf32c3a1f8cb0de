//! A batch: the reports of one agent for one window, in columns.
//!
//! ```text
//!  prelude, big-endian, never compressed: who, which, when; enough to refuse or to recognise a batch
//!    format u8 = 2 or 3 │ packing u8 │ schema u8 │ n u8 │ agent, n bytes │ boot epoch u64 │ sequence u64 │ table u32
//!    window start, µs u64 │ window length, µs u32 │ end of this part of it, µs after its start, u32 │ health u8 = 0 or 1
//!    if health = 1, u32 each: due │ not sent │ send errors │ lateness, µs: mean │ largest │ overflow │ clock step, µs
//!    rows u32 │ length of columns u32 │ packed length of columns u32
//!
//!  columns, packed: 0 as they are, 1 one zstd frame; each as `column` describes
//!    per row           row less the row expected next (the one before + 1; first 0) │ scheduled
//!                      replied │ late │ duplicate │ lost │ refused │ ICMP error │ not sent │ local drop
//!                      overdue │ open
//!    per row with n > 0 samples, n = replied + late + duplicate + refused
//!                      filled buckets - 1 │ zigzag(first slot - first slot of the row before that has one; first 0)
//!    per filled bucket but the last of its row
//!                      (empty buckets up to the next filled one) << 2 | min(count - 1, 3)
//!    per count > 3 of those
//!                      count - 4
//!    per row with n > 2
//!                      zigzag(d >> w), d = sum - expected sum, w = log2 of the first bucket's width
//!    per row           0, or unanswered in a row + 1
//!    per row with some unanswered in a row
//!                      how long, µs
//!    format 3
//!    per row           0, or lost probes of pending direction + 1 where directions are told apart
//!    per row where they are
//!                      lost in unknown direction
//!                      lost forward │ lost backward │ reordered forward │ reordered backward
//!                      pairs forward │ pairs backward
//!                      with pairs > 0: variation, µs: sum forward │ sum backward │ largest forward │ largest backward
//!
//!  bits, to the end, each number least significant bit first; the last byte is filled up with zeros
//!    per row with n > 0, at once: min - lowest of the first bucket, at that bucket's width
//!                        n > 1: max - lowest of the last bucket, at that bucket's width
//!                        n > 2: the lowest w bits of d
//!
//!  expected sum = min + max + the sum over all samples but the smallest and the largest of their buckets' middles
//! ```
//!
//! Compression is worth its time on columns, which repeat themselves, and not on the bits, which are noise. Times are
//! microseconds. A writer packs when that is shorter, so that equal batches have equal bytes.
//!
//! Format 2 ends before the last group. A writer takes it when no row tells directions apart, which none does unless an
//! aggregator asked for such probes: so nobody gets what he does not know.
//!
//! Format 1, which is read and no longer written, has neither part nor health in its prelude, and none of the last two
//! columns: its batches tell of whole windows.

use std::{cell::RefCell, time::Duration};

use zstd::bulk::Decompressor;

use crate::{
    histogram::Schema,
    id::AgentId,
    report::{LocalHealth, Report, Window},
    time::Timestamp,
    wire::{WireError, limits, rows},
};

/// The format number of this layout.
pub const FORMAT: u8 = 3;

/// The oldest format that is read.
pub const OLDEST_FORMAT: u8 = 1;

/// Level 3 saves 1 % and takes twice the time.
const ZSTD_LEVEL: i32 = 1;

/// log2 of [`limits::BATCH_INFLATED_BYTES`]: no frame within the limit needs a larger window.
const ZSTD_WINDOW_LOG: u32 = limits::BATCH_INFLATED_BYTES.ilog2();

const PLAIN: u8 = 0;
const ZSTD: u8 = 1;

/// The reports of one agent for one window.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Batch {
    /// Who measured.
    pub agent: AgentId,
    /// Which start of the agent's process.
    pub boot_epoch: u64,
    /// From 0 in each boot epoch, without gaps.
    pub sequence: u64,
    /// The path table that the rows refer to.
    pub table: u32,
    /// The window, common to all rows. It is aligned to UTC, and its length divides a minute.
    pub window: Window,
    /// Up to when the rows tell: the window's end, or an instant within it, after which another part follows.
    pub until: Timestamp,
    /// What the agent noticed about itself; only with the last part of a window.
    pub health: Option<LocalHealth>,
    /// The histograms' schema, common to all rows.
    pub schema: Schema,
    /// Rows in ascending order, each at most once. A path without a row was not probed in this window.
    pub rows: Vec<(u32, Report)>,
}

/// What identifies a batch and says when it was measured.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BatchKey {
    /// Who measured.
    pub agent: AgentId,
    /// Which start of the agent's process.
    pub boot_epoch: u64,
    /// From 0 in each boot epoch, without gaps.
    pub sequence: u64,
    /// The path table that the rows refer to.
    pub table: u32,
    /// The window, common to all rows.
    pub window: Window,
    /// Up to when the rows tell.
    pub until: Timestamp,
}

/// Encodes a batch.
///
/// # Errors
///
/// Returns [`WireError`] when the batch exceeds a limit, is out of order, mixes schemas, or holds a report that
/// contradicts itself.
pub fn encode(batch: &Batch) -> Result<Vec<u8>, WireError> {
    let Batch {
        agent,
        boot_epoch,
        sequence,
        table,
        window,
        until,
        health,
        schema,
        rows,
    } = batch;
    check_rows(rows.len())?;
    let window_length_us = check_window(*window)?;
    let part_us = check_part(*window, *until)?;
    let format = rows::format_of(rows);
    let rows::Encoded { columns, bits } = rows::encode(format, *schema, rows)?;
    check_columns(columns.len())?;
    let (packing, packed) = pack(&columns)?;

    let mut bytes = Vec::with_capacity(128 + packed.len() + bits.len());
    bytes.extend([format, packing, schema.number(), agent.as_str().len() as u8]);
    bytes.extend(agent.as_str().as_bytes());
    bytes.extend(boot_epoch.to_be_bytes());
    bytes.extend(sequence.to_be_bytes());
    bytes.extend(table.to_be_bytes());
    bytes.extend(window.start.as_unix_us().to_be_bytes());
    bytes.extend(window_length_us.to_be_bytes());
    bytes.extend(part_us.to_be_bytes());
    bytes.push(u8::from(health.is_some()));
    for number in health.iter().flat_map(health_numbers) {
        bytes.extend(number.to_be_bytes());
    }
    for length in [rows.len(), columns.len(), packed.len()] {
        // All three are within limits far below 2^32.
        bytes.extend((length as u32).to_be_bytes());
    }
    bytes.extend(&packed);
    bytes.extend(&bits);
    match bytes.len() {
        have if have > limits::BATCH_BYTES => Err(WireError::TooLarge {
            what: "batch",
            have,
            limit: limits::BATCH_BYTES,
        }),
        _ => Ok(bytes),
    }
}

/// Reads what identifies a batch, without inflating its columns. The rest of the batch may still be malformed.
///
/// # Errors
///
/// Returns what is wrong with the prelude.
pub fn peek(bytes: &[u8]) -> Result<BatchKey, WireError> {
    open(bytes).map(|unread| unread.head.key)
}

/// Decodes a batch; sizes are checked before anything is allocated.
///
/// # Errors
///
/// Returns what is wrong with the bytes.
pub fn decode(bytes: &[u8]) -> Result<Batch, WireError> {
    let unread = open(bytes)?;
    // At most `limits::PATHS`.
    let mut rows = Vec::with_capacity(unread.head().rows);
    let Head {
        key,
        health,
        schema,
        ..
    } = unread.rows(|row, report| rows.push((row, report.clone())))?;
    Ok(Batch {
        agent: key.agent,
        boot_epoch: key.boot_epoch,
        sequence: key.sequence,
        table: key.table,
        window: key.window,
        until: key.until,
        health,
        schema,
        rows,
    })
}

/// Begins to read a batch: its head is looked at, its rows are not yet.
///
/// # Errors
///
/// Returns what is wrong with the head.
pub fn open(bytes: &[u8]) -> Result<Unread<'_>, WireError> {
    Unread::parse(bytes)
}

/// What a batch tells beside its rows.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Head {
    /// What identifies it and says when it was measured.
    pub key: BatchKey,
    /// What the agent noticed about itself.
    pub health: Option<LocalHealth>,
    /// The histograms' schema.
    pub schema: Schema,
    /// How many rows it has.
    pub rows: usize,
}

impl Unread<'_> {
    /// What stands before the rows.
    #[must_use]
    pub const fn head(&self) -> &Head {
        &self.head
    }

    /// Reads the rows one by one, in ascending order, and allocates nothing for them. A batch may turn out not to be one
    /// after some of its rows were shown.
    ///
    /// # Errors
    ///
    /// Returns what is wrong with the bytes, as [`decode`] does.
    pub fn rows(self, show: impl FnMut(u32, &Report)) -> Result<Head, WireError> {
        // Taken out meanwhile, so that who is shown a row may read another batch.
        let mut reader = READER.take();
        let Reader { inflater, report } = &mut reader;
        let columns = match self.packing {
            PLAIN => self.packed,
            _ => inflater.inflate(self.packed, self.inflated)?,
        };
        let rows = (self.format, self.head.schema, self.head.rows);
        rows::visit(rows, columns, self.bits, report, show)?;
        inflater.shrink();
        READER.set(reader);
        Ok(self.head)
    }
}

thread_local! {
    /// Made once for each thread that reads batches, and once more after one that is none: making an inflater takes longer
    /// than reading a small batch.
    static READER: RefCell<Reader> = RefCell::default();
}

/// What is used again for each batch.
#[derive(Default)]
struct Reader {
    inflater: Inflater,
    report: Report,
}

/// Inflates columns.
#[derive(Default)]
struct Inflater {
    zstd: Option<Decompressor<'static>>,
    columns: Vec<u8>,
}

impl Inflater {
    /// More than the columns of most batches; what a larger one needs is given back.
    const KEEP_BYTES: usize = 256 << 10;

    /// Inflates columns into exactly the announced length, which is within its limit.
    fn inflate(&mut self, packed: &[u8], length: usize) -> Result<&[u8], WireError> {
        let cannot =
            |error: std::io::Error| malformed(format!("its columns cannot be inflated: {error}"));
        match zstd::zstd_safe::find_frame_compressed_size(packed) {
            Ok(frame) if frame == packed.len() => {}
            _ => return Err(malformed("its columns are not one zstd frame")),
        }
        let Self { zstd, columns } = self;
        let zstd = match zstd {
            Some(zstd) => zstd,
            None => {
                let mut new = Decompressor::new().map_err(cannot)?;
                new.window_log_max(ZSTD_WINDOW_LOG).map_err(cannot)?;
                zstd.insert(new)
            }
        };
        // It inflates into what has room already and no further: a frame that holds more is refused.
        columns.clear();
        columns.reserve_exact(length);
        columns.resize(length, 0);
        let written = zstd
            .decompress_to_buffer(packed, &mut columns[..])
            .map_err(cannot)?;
        if written != length {
            return Err(malformed(
                "its columns inflate to another length than announced",
            ));
        }
        Ok(columns)
    }

    fn shrink(&mut self) {
        if self.columns.capacity() > Self::KEEP_BYTES {
            self.columns = Vec::new();
        }
    }
}

/// A batch whose rows are not read yet, its sizes within their limits.
#[derive(Debug)]
pub struct Unread<'a> {
    format: u8,
    head: Head,
    packing: u8,
    inflated: usize,
    packed: &'a [u8],
    bits: &'a [u8],
}

impl<'a> Unread<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, WireError> {
        if bytes.len() > limits::BATCH_BYTES {
            return Err(WireError::TooLarge {
                what: "batch",
                have: bytes.len(),
                limit: limits::BATCH_BYTES,
            });
        }
        let mut fields = Fields {
            bytes,
            length: bytes.len(),
        };
        let [format] = fields.take()?;
        if !(OLDEST_FORMAT..=FORMAT).contains(&format) {
            return Err(malformed(format!(
                "its format is {format}, this build reads {OLDEST_FORMAT} to {FORMAT}"
            )));
        }
        let [packing, schema, agent_length] = fields.take()?;
        if packing > ZSTD {
            return Err(malformed(format!(
                "its packing is {packing}, this build reads {PLAIN} and {ZSTD}"
            )));
        }
        let schema = Schema::from_number(schema)
            .ok_or_else(|| malformed(format!("histogram schema {schema} is not known")))?;
        let agent = std::str::from_utf8(fields.slice(agent_length.into())?)
            .map_err(|_| malformed("its agent is not text"))?;
        let agent = AgentId::parse(agent).map_err(|error| malformed(error.to_string()))?;
        let (boot_epoch, sequence, table) = (fields.u64()?, fields.u64()?, fields.u32()?);
        let window = Window {
            start: Timestamp::from_unix_us(fields.u64()?),
            length: Duration::from_micros(fields.u32()?.into()),
        };
        check_window(window)?;
        let (until, health) = match format {
            1 => (window.end(), None),
            _ => (fields.part_of(window)?, fields.health()?),
        };
        let (rows, inflated) = (fields.u32()? as usize, fields.u32()? as usize);
        check_rows(rows)?;
        check_columns(inflated)?;
        let packed_length = fields.u32()? as usize;
        if packing == PLAIN && packed_length != inflated {
            return Err(malformed("its columns are not packed and of two lengths"));
        }
        let packed = fields.slice(packed_length)?;
        let key = BatchKey {
            agent,
            boot_epoch,
            sequence,
            table,
            window,
            until,
        };
        let head = Head {
            key,
            health,
            schema,
            rows,
        };
        Ok(Self {
            format,
            head,
            packing,
            inflated,
            packed,
            bits: fields.bytes,
        })
    }
}

/// Takes fields off the front.
struct Fields<'a> {
    bytes: &'a [u8],
    /// Of the whole batch, for errors.
    length: usize,
}

impl<'a> Fields<'a> {
    fn slice(&mut self, length: usize) -> Result<&'a [u8], WireError> {
        let taken = self.length - self.bytes.len();
        let (slice, rest) = self
            .bytes
            .split_at_checked(length)
            .ok_or(WireError::Truncated {
                what: "batch",
                have: self.length,
                need: taken + length,
            })?;
        self.bytes = rest;
        Ok(slice)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let mut array = [0; N];
        array.copy_from_slice(self.slice(N)?);
        Ok(array)
    }

    fn part_of(&mut self, window: Window) -> Result<Timestamp, WireError> {
        let until = window.start + Duration::from_micros(self.u32()?.into());
        check_part(window, until).map(|_| until)
    }

    fn health(&mut self) -> Result<Option<LocalHealth>, WireError> {
        match self.take()? {
            [0] => Ok(None),
            [1] => Ok(Some(LocalHealth {
                due: self.u32()?,
                not_sent: self.u32()?,
                send_errors: self.u32()?,
                lateness_mean_us: self.u32()?,
                lateness_max_us: self.u32()?,
                receive_overflow: self.u32()?,
                clock_step_us: self.u32()?,
            })),
            [other] => Err(malformed(format!(
                "its mark of local health is {other}; 0 and 1 are known"
            ))),
        }
    }

    fn u32(&mut self) -> Result<u32, WireError> {
        self.take().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, WireError> {
        self.take().map(u64::from_be_bytes)
    }
}

fn check_rows(have: usize) -> Result<(), WireError> {
    match have {
        0..=limits::PATHS => Ok(()),
        _ => Err(WireError::TooLarge {
            what: "number of rows",
            have,
            limit: limits::PATHS,
        }),
    }
}

fn check_columns(have: usize) -> Result<(), WireError> {
    match have {
        0..=limits::BATCH_INFLATED_BYTES => Ok(()),
        _ => Err(WireError::TooLarge {
            what: "columns of a batch",
            have,
            limit: limits::BATCH_INFLATED_BYTES,
        }),
    }
}

/// Returns the window's length in microseconds.
fn check_window(window: Window) -> Result<u32, WireError> {
    const MINUTE_US: u32 = 60_000_000;
    let us = u32::try_from(window.length.as_micros()).unwrap_or(u32::MAX);
    let whole = window.length.subsec_nanos().is_multiple_of(1_000);
    if us == 0 || !whole || !MINUTE_US.is_multiple_of(us) {
        return Err(malformed(format!(
            "its window of {us} µs does not divide a minute"
        )));
    }
    if !window.start.as_unix_us().is_multiple_of(us.into()) {
        return Err(malformed(
            "its window does not begin at a multiple of its length",
        ));
    }
    Ok(us)
}

/// Returns the end of a window's part, microseconds after the window's start.
fn check_part(window: Window, until: Timestamp) -> Result<u32, WireError> {
    if until < window.start || until > window.end() {
        return Err(malformed("its part of the window does not end within it"));
    }
    // A window is at most a minute long.
    Ok(until.since(window.start).as_micros() as u32)
}

fn health_numbers(health: &LocalHealth) -> [u32; 7] {
    let LocalHealth {
        due,
        not_sent,
        send_errors,
        lateness_mean_us,
        lateness_max_us,
        receive_overflow,
        clock_step_us,
    } = *health;
    [
        due,
        not_sent,
        send_errors,
        lateness_mean_us,
        lateness_max_us,
        receive_overflow,
        clock_step_us,
    ]
}

/// The shorter of the columns themselves and their compressed form.
fn pack(columns: &[u8]) -> Result<(u8, Vec<u8>), WireError> {
    let packed = zstd::bulk::compress(columns, ZSTD_LEVEL)
        .map_err(|error| malformed(format!("its columns cannot be compressed: {error}")))?;
    if packed.len() < columns.len() {
        return Ok((ZSTD, packed));
    }
    Ok((PLAIN, columns.to_vec()))
}

fn malformed(why: impl Into<String>) -> WireError {
    WireError::Malformed {
        what: "batch",
        why: why.into(),
    }
}
