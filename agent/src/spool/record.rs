//! What stands in a segment of the spool: records that check themselves. [pure]
//!
//! ```text
//!  segment   "LWSPOOL\0" │ version u32 = 1 │ CRC-32C u32 of the 12 bytes before │ records, to the end     big-endian
//!  record    "LWSR" │ type u8 │ 0, 0, 0 │ length u32 │ CRC-32C u32 of the payload │ CRC-32C u32 of the 16 bytes before │ payload
//!
//!  type 1, a path table    boot epoch u64 │ number u32 │ its frame, as it goes on the control stream
//!  type 2, a message       boot epoch u64 │ sequence u64 │ table u32, 0 if it needs none │ window's start, end, µs u64 each
//!                          n u8 │ n times: length u8, address of an aggregator that must not get it
//!                          n u32 │ n times: first u64, end u64: sequences that it replaces
//!                          its frame, as it goes on a stream of its own
//!  type 3, what the message before it replaces        boot epoch u64 │ n u32 │ n times: first u64, end u64
//! ```
//!
//! What a message replaces is said twice: if the message is damaged after it was sent, what it replaces must still not be
//! sent beside it. The second time comes after it, because a message that was never written replaces nothing.
//!
//! Header and payload have a checksum each, so that a damaged payload costs one record, and a damaged header costs what
//! lies up to the next whole one. A record that reaches beyond the end of its file was being written when the power
//! failed or the process was killed.

use leeward_common::time::Timestamp;

/// Length of a segment's own header.
pub const SEGMENT_HEADER_BYTES: usize = 16;

/// Length of a record's header.
pub const RECORD_HEADER_BYTES: usize = 20;

/// The version that is written, and the only one that is read.
const VERSION: u32 = 1;

/// The longest payload: the largest frame, and what stands before it. Nothing longer is read or written.
pub const PAYLOAD_BYTES_MAX: usize = 5 << 20;

const SEGMENT_MAGIC: [u8; 8] = *b"LWSPOOL\0";
const RECORD_MAGIC: [u8; 4] = *b"LWSR";
const TABLE: u8 = 1;
const MESSAGE: u8 = 2;
const REPLACED: u8 = 3;

/// Names a message.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Key {
    /// In which start of the agent's process it was measured.
    pub boot_epoch: u64,
    /// Its number within that.
    pub sequence: u64,
}

/// A path table.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Table {
    /// In which start of the agent's process it was in force.
    pub boot_epoch: u64,
    /// Its number within that, from 1.
    pub number: u32,
    /// The message that tells of it.
    pub frame: Vec<u8>,
}

/// A message, in whatever encoding.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Message {
    /// Its name.
    pub key: Key,
    /// The number of the path table that it refers to.
    pub table: Option<u32>,
    /// When what it tells of began,
    pub start: Timestamp,
    /// and ended, by this host's clock.
    pub end: Timestamp,
    /// Aggregators, by address, that have all that is in it under other sequences.
    pub exempt: Vec<String>,
    /// Sequences of the same boot epoch that it stands for, first and one past the last each.
    pub replaces: Vec<(u64, u64)>,
    /// The message itself.
    pub frame: Vec<u8>,
}

/// Messages that another one stands for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Replaced {
    /// In which start of the agent's process all of them were measured.
    pub boot_epoch: u64,
    /// Their sequences, first and one past the last each.
    pub sequences: Vec<(u64, u64)>,
}

/// A record.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Record {
    /// A path table.
    Table(Table),
    /// A message.
    Message(Message),
    /// What the message before it replaces.
    Replaced(Replaced),
}

/// What a reader comes upon.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Found {
    /// A whole record.
    Record {
        /// Where it begins in the segment.
        offset: usize,
        /// How long it is, header included.
        length: usize,
        /// The record.
        record: Record,
    },
    /// Bytes that are none.
    Damage(Damage),
}

/// Bytes that are no record.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Damage {
    /// Where they begin in the segment.
    pub offset: usize,
    /// What is wrong with them.
    pub what: &'static str,
}

/// What a segment begins with.
#[must_use]
pub fn segment_header() -> [u8; SEGMENT_HEADER_BYTES] {
    let mut header = [0; SEGMENT_HEADER_BYTES];
    header[..8].copy_from_slice(&SEGMENT_MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_be_bytes());
    let checksum = crc32c::crc32c(&header[..12]);
    header[12..].copy_from_slice(&checksum.to_be_bytes());
    header
}

/// A path table as a record.
#[must_use]
pub fn encode_table(table: &Table) -> Vec<u8> {
    let mut payload = Vec::with_capacity(12 + table.frame.len());
    payload.extend(table.boot_epoch.to_be_bytes());
    payload.extend(table.number.to_be_bytes());
    payload.extend(&table.frame);
    record(TABLE, &payload)
}

/// A message as a record.
#[must_use]
pub fn encode_message(message: &Message) -> Vec<u8> {
    let Message {
        key,
        table,
        start,
        end,
        exempt,
        replaces,
        frame,
    } = message;
    let mut payload = Vec::with_capacity(64 + frame.len());
    payload.extend(key.boot_epoch.to_be_bytes());
    payload.extend(key.sequence.to_be_bytes());
    payload.extend(table.unwrap_or(0).to_be_bytes());
    payload.extend(start.as_unix_us().to_be_bytes());
    payload.extend(end.as_unix_us().to_be_bytes());
    // At most sixteen aggregators, whose host names have at most 253 bytes.
    payload.push(exempt.len() as u8);
    for address in exempt {
        payload.push(address.len() as u8);
        payload.extend(address.as_bytes());
    }
    put_sequences(&mut payload, replaces);
    payload.extend(frame);
    record(MESSAGE, &payload)
}

/// What a message replaces as a record.
#[must_use]
pub fn encode_replaced(replaced: &Replaced) -> Vec<u8> {
    let mut payload = replaced.boot_epoch.to_be_bytes().to_vec();
    put_sequences(&mut payload, &replaced.sequences);
    record(REPLACED, &payload)
}

fn put_sequences(payload: &mut Vec<u8>, sequences: &[(u64, u64)]) {
    payload.extend((sequences.len() as u32).to_be_bytes());
    for (first, end) in sequences {
        payload.extend(first.to_be_bytes());
        payload.extend(end.to_be_bytes());
    }
}

fn record(kind: u8, payload: &[u8]) -> Vec<u8> {
    debug_assert!(payload.len() <= PAYLOAD_BYTES_MAX);
    let mut bytes = Vec::with_capacity(RECORD_HEADER_BYTES + payload.len());
    bytes.extend(RECORD_MAGIC);
    bytes.extend([kind, 0, 0, 0]);
    bytes.extend((payload.len() as u32).to_be_bytes());
    bytes.extend(crc32c::crc32c(payload).to_be_bytes());
    bytes.extend(crc32c::crc32c(&bytes).to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// Reads a segment from its beginning to its end, whatever is in it.
pub fn read_segment(bytes: &[u8], mut found: impl FnMut(Found)) {
    let damage = |offset, what| Found::Damage(Damage { offset, what });
    if bytes.first_chunk() != Some(&segment_header()) {
        found(damage(0, "no header of a segment that this build reads"));
    }
    let mut at = SEGMENT_HEADER_BYTES;
    while at < bytes.len() {
        match read_record(&bytes[at..]) {
            Ok((record, length)) => {
                found(Found::Record {
                    offset: at,
                    length,
                    record,
                });
                at += length;
            }
            Err(unread) => {
                found(damage(at, unread.what));
                let next = || (at + 1..bytes.len()).find(|&next| header(&bytes[next..]).is_ok());
                match unread.length.or_else(|| next().map(|next| next - at)) {
                    Some(length) => at += length,
                    None => return,
                }
            }
        }
    }
}

/// Why there is no record here, and how long what stands here is, if that is known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Unread {
    /// Why.
    pub what: &'static str,
    length: Option<usize>,
}

/// Reads the record that begins here; with it comes its length.
///
/// # Errors
///
/// Returns what is wrong with it.
pub fn read_record(bytes: &[u8]) -> Result<(Record, usize), Unread> {
    let unread = |what, length| Unread { what, length };
    let (kind, payload_bytes, checksum) = header(bytes).map_err(|what| unread(what, None))?;
    let length = RECORD_HEADER_BYTES + payload_bytes;
    let Some(payload) = bytes.get(RECORD_HEADER_BYTES..length) else {
        return Err(unread("the file ends within a record", Some(bytes.len())));
    };
    if crc32c::crc32c(payload) != checksum {
        return Err(unread("the record's checksum does not match", Some(length)));
    }
    let record = match kind {
        TABLE => table(payload),
        MESSAGE => message(payload),
        REPLACED => replaced(payload),
        _ => None,
    };
    match record {
        Some(record) => Ok((record, length)),
        None => Err(unread("a record of no known form", Some(length))),
    }
}

/// Type, length and checksum of a payload.
fn header(bytes: &[u8]) -> Result<(u8, usize, u32), &'static str> {
    let Some(header) = bytes.first_chunk::<RECORD_HEADER_BYTES>() else {
        return Err("the file ends within a record's header");
    };
    let number = |at: usize| {
        let bytes = [header[at], header[at + 1], header[at + 2], header[at + 3]];
        u32::from_be_bytes(bytes)
    };
    if header[..4] != RECORD_MAGIC {
        return Err("no record begins here");
    }
    if crc32c::crc32c(&header[..16]) != number(16) {
        return Err("the checksum of a record's header does not match");
    }
    let length = number(8) as usize;
    if length > PAYLOAD_BYTES_MAX {
        return Err("a record longer than any may be");
    }
    Ok((header[4], length, number(12)))
}

fn table(payload: &[u8]) -> Option<Record> {
    let mut rest = Rest(payload);
    Some(Record::Table(Table {
        boot_epoch: rest.u64()?,
        number: rest.u32()?,
        frame: rest.0.to_vec(),
    }))
}

fn message(payload: &[u8]) -> Option<Record> {
    let mut rest = Rest(payload);
    let key = Key {
        boot_epoch: rest.u64()?,
        sequence: rest.u64()?,
    };
    let table = rest.u32()?;
    let start = Timestamp::from_unix_us(rest.u64()?);
    let end = Timestamp::from_unix_us(rest.u64()?);
    let mut exempt = Vec::new();
    for _ in 0..rest.take(1)?[0] {
        let length = rest.take(1)?[0];
        let address = rest.take(length.into())?;
        exempt.push(String::from_utf8(address.to_vec()).ok()?);
    }
    let replaces = rest.sequences()?;
    Some(Record::Message(Message {
        key,
        table: (table != 0).then_some(table),
        start,
        end,
        exempt,
        replaces,
        frame: rest.0.to_vec(),
    }))
}

fn replaced(payload: &[u8]) -> Option<Record> {
    let mut rest = Rest(payload);
    let boot_epoch = rest.u64()?;
    let sequences = rest.sequences()?;
    rest.0.is_empty().then_some(Record::Replaced(Replaced {
        boot_epoch,
        sequences,
    }))
}

/// What is left of a payload.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_be_bytes(self.take(8)?.try_into().ok()?))
    }

    fn sequences(&mut self) -> Option<Vec<(u64, u64)>> {
        let mut sequences = Vec::new();
        for _ in 0..self.u32()? {
            sequences.push((self.u64()?, self.u64()?));
        }
        Some(sequences)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn some(sequence: u64) -> Message {
        Message {
            key: Key {
                boot_epoch: 7,
                sequence,
            },
            table: Some(3),
            start: Timestamp::from_unix_us(1_000_000),
            end: Timestamp::from_unix_us(2_000_000),
            exempt: vec!["main:8610".to_owned()],
            replaces: vec![(1, 4)],
            frame: vec![0xab; 40 + sequence as usize],
        }
    }

    fn segment(messages: u64) -> (Vec<u8>, Vec<(usize, Record)>) {
        let mut bytes = segment_header().to_vec();
        let mut records = Vec::new();
        let table = Table {
            boot_epoch: 7,
            number: 3,
            frame: vec![1, 2, 3],
        };
        records.push((bytes.len(), Record::Table(table.clone())));
        bytes.extend(encode_table(&table));
        for sequence in 0..messages {
            records.push((bytes.len(), Record::Message(some(sequence))));
            bytes.extend(encode_message(&some(sequence)));
            records.push((bytes.len(), Record::Replaced(those(sequence))));
            bytes.extend(encode_replaced(&those(sequence)));
        }
        (bytes, records)
    }

    fn those(sequence: u64) -> Replaced {
        Replaced {
            boot_epoch: 7,
            sequences: vec![(1, 4), (sequence + 6, sequence + 9)],
        }
    }

    fn length(record: &Record) -> usize {
        match record {
            Record::Table(table) => encode_table(table).len(),
            Record::Message(message) => encode_message(message).len(),
            Record::Replaced(replaced) => encode_replaced(replaced).len(),
        }
    }

    fn read(bytes: &[u8]) -> (Vec<(usize, Record)>, Vec<Damage>) {
        let (mut records, mut damages) = (Vec::new(), Vec::new());
        read_segment(bytes, |found| match found {
            Found::Record { offset, record, .. } => records.push((offset, record)),
            Found::Damage(damage) => damages.push(damage),
        });
        (records, damages)
    }

    #[test]
    fn what_is_written_is_read() {
        let (bytes, records) = segment(5);
        assert_eq!(read(&bytes), (records, Vec::new()));
    }

    /// Frozen: a spool of an older build is read by a newer one.
    #[test]
    fn golden_bytes() {
        let hex = |bytes: &[u8]| -> String { bytes.iter().map(|b| format!("{b:02x}")).collect() };
        assert_eq!(hex(&segment_header()), "4c5753504f4f4c000000000129d974c6");
        let message = Message {
            frame: vec![0x4c],
            ..some(9)
        };
        assert_eq!(
            hex(&encode_message(&message)),
            "4c57535202000000000000443be1e6c70afdda89000000000000000700000000000000090000000300000000000f424000000000001e848001096d61696e3a3836313000000001000000000000000100000000000000044c"
        );
        assert_eq!(
            hex(&encode_replaced(&those(1))),
            "4c575352030000000000002cd372f8bc38d16de3000000000000000700000002000000000000000100000000000000040000000000000007000000000000000a"
        );
    }

    proptest! {
        /// Whatever byte is bent, the damage is named by its place and every other record is read.
        #[test]
        fn any_bent_byte_is_found_and_the_rest_is_served(at in 0usize..10_000, flip in 1u8..=255, messages in 1u64..8) {
            let (mut bytes, records) = segment(messages);
            let at = at % bytes.len();
            bytes[at] ^= flip;
            let (read, damages) = read(&bytes);
            prop_assert_eq!(damages.len(), 1);
            let hit = records.iter().rposition(|&(offset, _)| offset <= at);
            match hit {
                None => {
                    prop_assert_eq!(damages[0].offset, 0);
                    prop_assert_eq!(read, records);
                }
                Some(hit) => {
                    prop_assert_eq!(damages[0].offset, records[hit].0);
                    let mut rest = records;
                    rest.remove(hit);
                    prop_assert_eq!(read, rest);
                }
            }
        }

        /// A file that ends early is served up to there.
        #[test]
        fn a_torn_tail_is_found(at in 0usize..10_000, messages in 1u64..8) {
            let (bytes, records) = segment(messages);
            let at = SEGMENT_HEADER_BYTES + at % (bytes.len() - SEGMENT_HEADER_BYTES);
            let (read, damages) = read(&bytes[..at]);
            let whole: Vec<_> = records.into_iter().filter(|(offset, record)| {
                offset + length(record) <= at
            }).collect();
            let end = whole.last().map_or(SEGMENT_HEADER_BYTES, |(offset, record)| offset + length(record));
            prop_assert_eq!(damages.len(), usize::from(end != at));
            prop_assert!(damages.iter().all(|damage| damage.offset == end));
            prop_assert_eq!(read, whole);
        }
    }

    #[test]
    fn any_bytes_can_be_read() {
        bolero::check!()
            .with_iterations(5_000)
            .with_type::<Vec<u8>>()
            .for_each(|bytes| {
                let _ = read(bytes);
                let mut after = segment_header().to_vec();
                after.extend(bytes);
                let _ = read(&after);
            });
    }
}
