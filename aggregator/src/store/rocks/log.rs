//! RocksDB's logs, frame by frame [pure]: the write-ahead log (`NNNNNN.log`) and the manifest (`MANIFEST-NNNNNN`) have one
//! format (RocksDB wiki, "Write Ahead Log File Format"). It is read here too, because RocksDB takes some damage for the torn
//! end of a write that a crash cut off, and says nothing.
//!
//! ```text
//!  blocks of 32 KiB, each of frames; what is left of a block and too short for a frame is zeros
//!    crc u32 │ length u16 │ type u8 │ for types that a reused file has: log number u32 │ length bytes
//!  little-endian; crc = masked CRC-32C over everything from the type on
//! ```

const BLOCK: usize = 32 << 10;
const HEADER: usize = 7;
const REUSED_HEADER: usize = 11;

/// A place in a log that is damaged, or where it breaks off.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fault {
    /// Where its frame begins.
    pub offset: usize,
    /// What is wrong.
    pub why: Why,
}

/// What is wrong with a frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Why {
    /// It is not what was written.
    Checksum,
    /// It goes beyond its block, which none does.
    Length,
    /// Nothing is written like this.
    Kind,
    /// The file ends within it: a write that a crash cut off, or damage.
    Cut,
}

impl Why {
    /// For people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Checksum => "its checksum does not match",
            Self::Length => "its length is impossible",
            Self::Kind => "its type is unknown",
            Self::Cut => {
                "the file ends within it: a write that a crash cut off and nobody was told of, or damage"
            }
        }
    }
}

/// The first fault of a log, after which nothing can be relied upon.
#[must_use]
pub fn fault(bytes: &[u8]) -> Option<Fault> {
    let blocks = bytes.chunks(BLOCK).enumerate();
    let mut faults = blocks.filter_map(|(number, block)| {
        let is_last = (number + 1) * BLOCK >= bytes.len();
        block_fault(block, is_last).map(|(at, why)| Fault {
            offset: number * BLOCK + at,
            why,
        })
    });
    faults.next()
}

fn block_fault(block: &[u8], is_last: bool) -> Option<(usize, Why)> {
    let mut at = 0;
    while let Some(header) = block.get(at..at + HEADER) {
        let length = usize::from(u16::from_le_bytes([header[4], header[5]]));
        let kind = header[6];
        // What was reserved for the log and never written.
        if kind == 0 && length == 0 && block[at..].iter().all(|&byte| byte == 0) {
            return None;
        }
        let Some(head) = header_bytes(kind) else {
            return Some((at, Why::Kind));
        };
        let Some(frame) = block.get(at..at + head + length) else {
            let why = match is_last && at + head + length <= BLOCK {
                true => Why::Cut,
                false => Why::Length,
            };
            return Some((at, why));
        };
        let told = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
        if masked(crc32c::crc32c(&frame[6..])) != told {
            return Some((at, Why::Checksum));
        }
        at += head + length;
    }
    let rest = &block[at..];
    match rest.iter().all(|&byte| byte == 0) {
        true => None,
        false if is_last && block.len() < BLOCK => Some((at, Why::Cut)),
        false => Some((at, Why::Kind)),
    }
}

/// Full, first, middle and last; the same in a reused file; how what follows is compressed; sizes of timestamps; the log before.
const fn header_bytes(kind: u8) -> Option<usize> {
    match kind {
        1..=4 | 9 | 10 | 130 => Some(HEADER),
        5..=8 | 11 | 131 => Some(REUSED_HEADER),
        _ => None,
    }
}

const fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; 4];
        frame.extend((payload.len() as u16).to_le_bytes());
        frame.push(kind);
        frame.extend_from_slice(payload);
        let crc = masked(crc32c::crc32c(&frame[6..]));
        frame[..4].copy_from_slice(&crc.to_le_bytes());
        frame
    }

    /// What is written in several frames over two blocks.
    fn log() -> Vec<u8> {
        let mut log = frame(1, b"one");
        let rest = BLOCK - log.len() - HEADER;
        log.extend(frame(2, &vec![7; rest]));
        log.extend(frame(4, b"the end"));
        log.extend(frame(1, b"two"));
        log
    }

    #[test]
    fn a_log_as_it_was_written_has_no_fault() {
        assert_eq!(fault(&log()), None);
        assert_eq!(fault(&[]), None);
        let mut reserved = log();
        reserved.extend([0; 4_096]);
        assert_eq!(fault(&reserved), None);
    }

    #[test]
    fn whichever_bit_is_another_the_log_has_a_fault() {
        let log = log();
        let places = (0..40).chain(BLOCK - 20..log.len());
        for at in places {
            for bit in 0..8 {
                let mut changed = log.clone();
                changed[at] ^= 1 << bit;
                assert!(fault(&changed).is_some(), "byte {at} bit {bit}");
            }
        }
    }

    #[test]
    fn a_log_that_breaks_off_says_where() {
        let log = log();
        let last = log.len() - 10;
        for length in last + 1..log.len() {
            let fault = fault(&log[..length]).unwrap();
            assert_eq!((fault.offset, fault.why), (last, Why::Cut), "{length}");
        }
        assert_eq!(fault(&log[..last]), None);
    }

    #[test]
    fn any_bytes_are_a_log_or_have_a_fault() {
        bolero::check!()
            .with_iterations(20_000)
            .for_each(|bytes: &[u8]| {
                let _ = fault(bytes);
            });
    }
}
