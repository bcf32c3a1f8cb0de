//! Requests that load a path: as long as a path carries, with replies that are as short as replies can be.
//!
//! Behind the base packet stands a TLV of RFC 8972's form with a type of its range for private use, then padding
//! (RFC 8972 section 4.1) to the wanted length:
//!
//! ```text
//!  base packet   0     1      2       4        6      7    8       9      10
//!  ──────────────┬─────┬──────┬───────┬────────┬──────┬────┬───────┬──────┬────────┬──────────┐
//!   44 or 112    │ 0   │ 252  │ 4     │ "LW"   │ mode │ 0  │ 0     │ 1    │ length │ zeroes … │
//!  ──────────────┴─────┴──────┴───────┴────────┴──────┴────┴───────┴──────┴────────┴──────────┘
//! ```
//!
//! The reply is the base packet alone: a reply shorter than its request is of no use to those who look for amplifiers,
//! and does not load the way back. Reflectors that do not know the mode find such requests too long and do not answer.
//! The mode is not covered by the HMAC of the base packet. Whoever changes it on the way can only take replies away.

use super::{Key, Layout, Packet, take};

/// The type of the TLV: RFC 8972 section 5.1 leaves 252 to 254 to private use.
const TYPE: u8 = 252;
const PADDING: u8 = 1;
const MARK: [u8; 2] = *b"LW";
/// Of this TLV, and of the header of the padding behind it.
const BYTES: usize = 12;

/// What such a request asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Load {
    /// A packet of a train: a short reply.
    Train,
    /// A packet of a heavy test: a short reply, from who takes heavy tests.
    Heavy,
    /// The same without a reply: it is counted only, and a later reply tells the count.
    Counted,
}

impl Load {
    const ALL: [Self; 3] = [Self::Train, Self::Heavy, Self::Counted];

    const fn mode(self) -> u8 {
        match self {
            Self::Train => 1,
            Self::Heavy => 2,
            Self::Counted => 3,
        }
    }

    /// What a request asks for; `None` if it is an ordinary one.
    #[must_use]
    pub fn of(request: &[u8], key: Option<&Key>) -> Option<Self> {
        let at = Layout::of(key).bytes;
        let [_, kind, 0, 4, first, second, mode, _] = take::<8>(request, at).ok()? else {
            return None;
        };
        let known = Self::ALL.into_iter().find(|own| own.mode() == mode);
        known.filter(|_| kind == TYPE && [first, second] == MARK)
    }

    /// Writes a request of this kind over the start of `buffer`, whose rest stays as it is. The length of the buffer is that
    /// of the packet; one that is too short is left alone.
    pub fn write(self, request: &Packet, buffer: &mut [u8]) {
        let padding = buffer.len().saturating_sub(request.len() + BYTES);
        let Some(room) = buffer.get_mut(..request.len() + BYTES) else {
            return;
        };
        let (base, tlv) = room.split_at_mut(request.len());
        base.copy_from_slice(request);
        let [high, low] = (padding as u16).to_be_bytes();
        let [mark, mark_2] = MARK;
        tlv.copy_from_slice(&[
            0,
            TYPE,
            0,
            4,
            mark,
            mark_2,
            self.mode(),
            0,
            0,
            PADDING,
            high,
            low,
        ]);
    }

    /// The shortest packet that holds such a request.
    #[must_use]
    pub const fn bytes_min(key: Option<&Key>) -> usize {
        Layout::of(key).bytes + BYTES
    }

    /// The length of the reply.
    #[must_use]
    pub const fn reply_bytes(key: Option<&Key>) -> usize {
        Layout::of(key).bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::stamp::{ErrorEstimate, OPEN_BYTES, Request, Stamp};

    const REQUEST: Request = Request {
        sequence: 7,
        time: Stamp(0x1112_1314_1516_1718),
        error: ErrorEstimate(0x8a2b),
        ssid: 0xabcd,
    };

    #[test]
    fn a_load_request_has_these_bytes() {
        let mut buffer = [0; 64];
        Load::Heavy.write(&REQUEST.encode(None), &mut buffer);
        assert_eq!(&buffer[..OPEN_BYTES], &*REQUEST.encode(None));
        assert_eq!(
            buffer[OPEN_BYTES..],
            [
                0, 252, 0, 4, b'L', b'W', 2, 0, 0, 1, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0
            ]
        );
        assert_eq!(Request::decode(&buffer, None), Ok(REQUEST));
    }

    #[test]
    fn what_is_written_is_read_and_nothing_else_is_a_load() {
        let key = Key::parse("000102030405060708090a0b0c0d0e0f").unwrap();
        for key in [None, Some(&key)] {
            let request = REQUEST.encode(key);
            for load in Load::ALL {
                let mut buffer = vec![0; 1_372];
                load.write(&request, &mut buffer);
                assert_eq!(Load::of(&buffer, key), Some(load));
                for cut in 0..Load::bytes_min(key) - 4 {
                    assert_eq!(Load::of(&buffer[..cut], key), None);
                }
                for at in [1, 2, 3, 4, 5, 6] {
                    let mut spoiled = buffer.clone();
                    spoiled[request.len() + at] ^= 0x40;
                    assert_eq!(Load::of(&spoiled, key), None);
                }
            }
            assert_eq!(Load::of(&request, key), None);
            let mut short = vec![9; Load::bytes_min(key) - 1];
            Load::Train.write(&request, &mut short);
            assert!(short.iter().all(|byte| *byte == 9));
        }
    }

    #[test]
    fn no_bytes_make_reading_a_load_fail() {
        let key = Key::parse("000102030405060708090a0b0c0d0e0f").unwrap();
        bolero::check!().for_each(|bytes: &[u8]| {
            for key in [None, Some(&key)] {
                if Load::of(bytes, key).is_some() {
                    assert!(bytes.len() >= Load::bytes_min(key) - 4);
                }
            }
        });
    }
}
