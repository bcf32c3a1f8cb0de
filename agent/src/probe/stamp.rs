//! STAMP (RFC 8762) with the session id of RFC 8972: a request out, a reply of equal length back.
//!
//! ```text
//!  request, unauthenticated                    reply, unauthenticated
//!  0    4        12   14   16             44   0    4     12  14  16      24  28   36  38  40 41   44
//!  ┌────┬────────┬────┬────┬──────────────┐    ┌────┬─────┬───┬───┬───────┬───┬────┬───┬───┬──┬────┐
//!  │seq │ time   │ ee │ssid│ 0            │    │seq │time │ee │ssi│recv'd │seq│time│ee │ 0 │tl│ 0  │
//!  └────┴────────┴────┴────┴──────────────┘    └────┴─────┴───┴───┴───────┴───┴────┴───┴───┴──┴────┘
//!                                                reflector's own              the request's own
//!  authenticated: 112 bytes; the fields in the same order, each at the start of its block of 16 bytes, a block of HMAC last
//! ```
//!
//! The two lengths are equal, so a reflector never sends more than it got: it is of no use to those who look for
//! amplifiers. The reply carries the reflector's own sequence number, which counts what reached it, and both of its
//! times: so the sender can tell a request that was lost from a reply that was, and leave out the time that
//! the reflector took.
//!
//! What follows the base packet (RFC 8972's TLVs) is sent back marked as not understood, so that lengths stay equal
//! whatever a sender adds.

use super::{NotAnAnswer, take, take_u16, take_u32};

pub mod key;
pub mod load;
pub mod time;

pub use key::Key;
pub use load::Load;
pub use time::{ErrorEstimate, Format, Stamp};

/// The port of reflectors (RFC 8762 section 4.1).
pub const PORT: u16 = 862;
/// Length of both packets without authentication.
pub const OPEN_BYTES: usize = 44;
/// Length of both packets with it.
pub const SEALED_BYTES: usize = 112;
/// Of a quoted request as many bytes as are needed to know it by, in either mode.
pub const QUOTED_BYTES: usize = 28;
/// The longest request that is answered, TLVs included.
pub const PACKET_BYTES_MAX: usize = 256;
/// Where the HMAC of an authenticated packet is; it covers what stands before.
const HMAC_AT: usize = SEALED_BYTES - key::TAG_BYTES;

/// Why bytes are no packet of a mode.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// Shorter than any packet of this mode.
    Truncated,
    /// The HMAC is not that of the key.
    Unproven,
    /// A reply that somebody sent to a reflector: two of them would answer each other for ever.
    Reply,
}

impl From<NotAnAnswer> for Refusal {
    fn from(_: NotAnAnswer) -> Self {
        Self::Truncated
    }
}

/// Where the fields are.
#[derive(Clone, Copy, Debug)]
struct Layout {
    bytes: usize,
    time: usize,
    error: usize,
    ssid: usize,
    received: usize,
    sender_sequence: usize,
    sender_time: usize,
    sender_error: usize,
    sender_ttl: usize,
}

const OPEN: Layout = Layout {
    bytes: OPEN_BYTES,
    time: 4,
    error: 12,
    ssid: 14,
    received: 16,
    sender_sequence: 24,
    sender_time: 28,
    sender_error: 36,
    sender_ttl: 40,
};

const SEALED: Layout = Layout {
    bytes: SEALED_BYTES,
    time: 16,
    error: 24,
    ssid: 26,
    received: 32,
    sender_sequence: 48,
    sender_time: 64,
    sender_error: 72,
    sender_ttl: 80,
};

impl Layout {
    const fn of(key: Option<&Key>) -> &'static Self {
        match key {
            None => &OPEN,
            Some(_) => &SEALED,
        }
    }
}

/// A packet, written.
#[derive(Clone, Copy, Debug)]
pub struct Packet {
    bytes: [u8; PACKET_BYTES_MAX],
    length: usize,
}

impl std::ops::Deref for Packet {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Packet {
    fn new(layout: &Layout) -> Self {
        Self {
            bytes: [0; PACKET_BYTES_MAX],
            length: layout.bytes,
        }
    }

    fn put(&mut self, at: usize, field: &[u8]) {
        self.bytes[at..at + field.len()].copy_from_slice(field);
    }

    fn seal(mut self, key: Option<&Key>) -> Self {
        if let Some(key) = key {
            let tag = key.tag(&self.bytes[..HMAC_AT]);
            self.put(HMAC_AT, &tag);
        }
        self
    }
}

/// Checks length and HMAC.
fn open(bytes: &[u8], key: Option<&Key>) -> Result<&'static Layout, Refusal> {
    let layout = Layout::of(key);
    if bytes.len() < layout.bytes {
        return Err(Refusal::Truncated);
    }
    match key {
        Some(key) if !key.proves(&bytes[..HMAC_AT], &bytes[HMAC_AT..SEALED_BYTES]) => {
            Err(Refusal::Unproven)
        }
        _ => Ok(layout),
    }
}

/// What a sender sends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Request {
    /// The how-manieth of its session, from 0, wrapping.
    pub sequence: u32,
    /// When it left, by the sender's clock.
    pub time: Stamp,
    /// How wrong that may be, and how it is written.
    pub error: ErrorEstimate,
    /// The sender's name for the session; with address and port it tells one session from another. 0 from senders
    /// that name none.
    pub ssid: u16,
}

impl Request {
    /// The packet: authenticated with a key, else unauthenticated.
    #[must_use]
    pub fn encode(&self, key: Option<&Key>) -> Packet {
        let layout = Layout::of(key);
        let mut packet = Packet::new(layout);
        packet.put(0, &self.sequence.to_be_bytes());
        packet.put(layout.time, &self.time.0.to_be_bytes());
        packet.put(layout.error, &self.error.0.to_be_bytes());
        packet.put(layout.ssid, &self.ssid.to_be_bytes());
        packet.seal(key)
    }

    /// Reads what came to a reflector. Must-be-zero fields are ignored, as they must be, but for one case: a
    /// reply of a reflector is refused.
    ///
    /// # Errors
    ///
    /// Returns why it is no request.
    pub fn decode(bytes: &[u8], key: Option<&Key>) -> Result<Self, Refusal> {
        let layout = open(bytes, key)?;
        let has = |at: usize| take::<8>(bytes, at).is_ok_and(|field| field != [0; 8]);
        if has(layout.received) && has(layout.sender_time) {
            return Err(Refusal::Reply);
        }
        Ok(Self::read(bytes, layout)?)
    }

    /// The request that an ICMP error quotes, if it was unauthenticated, and if it was authenticated. That it is quoted
    /// proves nothing.
    #[must_use]
    pub fn quoted(start: &[u8; QUOTED_BYTES]) -> [Option<Self>; 2] {
        [&OPEN, &SEALED].map(|layout| Self::read(start, layout).ok())
    }

    fn read(bytes: &[u8], layout: &Layout) -> Result<Self, NotAnAnswer> {
        Ok(Self {
            sequence: take_u32(bytes, 0)?,
            time: Stamp(take(bytes, layout.time).map(u64::from_be_bytes)?),
            error: ErrorEstimate(take_u16(bytes, layout.error)?),
            ssid: take_u16(bytes, layout.ssid)?,
        })
    }
}

/// What a reflector sends back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Reply {
    /// Of a stateful reflector: the how-manieth request of the session that reached it, from 0, wrapping. A stateless one
    /// repeats the request's.
    pub sequence: u32,
    /// When it left, by the reflector's clock.
    pub time: Stamp,
    /// When the request came, by the same clock and in the same format.
    pub received: Stamp,
    /// How wrong these may be, and how they are written.
    pub error: ErrorEstimate,
    /// What is answered.
    pub request: Request,
    /// TTL or hop limit with which the request came; 255 when it is not known.
    pub ttl: u8,
}

impl Reply {
    /// The packet, as long as the request was: what `request` has beyond its base packet is sent back marked as not
    /// understood (RFC 8972 section 4).
    #[must_use]
    pub fn encode(&self, key: Option<&Key>, request: &[u8]) -> Packet {
        let layout = Layout::of(key);
        let mut packet = Packet::new(layout);
        packet.put(0, &self.sequence.to_be_bytes());
        packet.put(layout.time, &self.time.0.to_be_bytes());
        packet.put(layout.error, &self.error.0.to_be_bytes());
        packet.put(layout.ssid, &self.request.ssid.to_be_bytes());
        packet.put(layout.received, &self.received.0.to_be_bytes());
        packet.put(layout.sender_sequence, &self.request.sequence.to_be_bytes());
        packet.put(layout.sender_time, &self.request.time.0.to_be_bytes());
        packet.put(layout.sender_error, &self.request.error.0.to_be_bytes());
        packet.put(layout.sender_ttl, &[self.ttl]);
        if let Some(rest) = request.get(layout.bytes..) {
            let rest = &rest[..rest.len().min(PACKET_BYTES_MAX - layout.bytes)];
            packet.put(layout.bytes, rest);
            packet.length += rest.len();
            mark_unrecognized(&mut packet.bytes[layout.bytes..packet.length]);
        }
        packet.seal(key)
    }

    /// Reads what came to a sender.
    ///
    /// # Errors
    ///
    /// Returns why it is no reply.
    pub fn decode(bytes: &[u8], key: Option<&Key>) -> Result<Self, Refusal> {
        let layout = open(bytes, key)?;
        let stamp = |at| take(bytes, at).map(|field| Stamp(u64::from_be_bytes(field)));
        let [ttl] = take(bytes, layout.sender_ttl)?;
        Ok(Self {
            sequence: take_u32(bytes, 0)?,
            time: stamp(layout.time)?,
            received: stamp(layout.received)?,
            error: ErrorEstimate(take_u16(bytes, layout.error)?),
            request: Request {
                sequence: take_u32(bytes, layout.sender_sequence)?,
                time: stamp(layout.sender_time)?,
                error: ErrorEstimate(take_u16(bytes, layout.sender_error)?),
                ssid: take_u16(bytes, layout.ssid)?,
            },
            ttl,
        })
    }

    /// How long the reflector took, nanoseconds; `None` when its times make no sense.
    #[must_use]
    pub fn dwell_ns(&self) -> Option<u64> {
        let format = self.error.format();
        self.time
            .unix_ns(format)?
            .checked_sub(self.received.unix_ns(format)?)
    }
}

/// Sets the U flag of each TLV, and the M flag of one that is longer than what is left (RFC 8972 section 4).
fn mark_unrecognized(mut tlvs: &mut [u8]) {
    const UNRECOGNIZED: u8 = 0x80;
    const MALFORMED: u8 = 0x40;
    while let Some((header, rest)) = tlvs.split_first_chunk_mut::<4>() {
        let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
        header[0] |= UNRECOGNIZED;
        let Some((_, next)) = rest.split_at_mut_checked(length) else {
            header[0] |= MALFORMED;
            return;
        };
        tlvs = next;
    }
}

#[cfg(test)]
mod tests;
