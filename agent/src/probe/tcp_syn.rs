//! TCP SYN probes: one SYN out; a SYN/ACK, or a reset, back.
//!
//! The SYN looks as Linux would send it: some firewalls drop a SYN without options. Its sequence number is half of the
//! probe's token, and the answer proves itself by acknowledging it. Nobody here listens for the answer, so the kernel
//! resets what the peer would open: the peer keeps no half-open connection.

use std::net::Ipv4Addr;

use super::{NotAnAnswer, behind_ipv4, checksum, take, take_u16, take_u32};

/// TCP flag.
pub const SYN: u8 = 0x02;
/// TCP flag.
pub const RST: u8 = 0x04;
/// TCP flag.
pub const ACK: u8 = 0x10;

/// Length of a probe from the TCP header on: header and 20 bytes of options.
pub const SYN_BYTES: usize = 40;

/// Over IPv4: the usual Ethernet MTU less two headers of 20 bytes. Over IPv6 the IP header is 40 bytes.
const MSS_V4: u16 = 1460;
const MSS_V6: u16 = 1440;
/// What Linux announces first.
const WINDOW: u16 = 64_240;
const WINDOW_SCALE: u8 = 7;

/// A SYN.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Syn {
    /// Our port.
    pub source_port: u16,
    /// The target's port.
    pub port: u16,
    /// The sequence number.
    pub sequence: u32,
    /// Value of the time stamp option.
    pub time: u32,
}

impl Syn {
    /// The SYN over IPv4.
    #[must_use]
    pub fn encode_v4(&self, from: Ipv4Addr, to: Ipv4Addr) -> [u8; SYN_BYTES] {
        let mut bytes = self.encode(MSS_V4);
        let tail = [0, 6, 0, SYN_BYTES as u8];
        let sum = checksum(&[&from.octets(), &to.octets(), &tail, &bytes]);
        bytes[16..18].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    /// The SYN over IPv6, its checksum left to the kernel (RFC 3542 section 3.1).
    #[must_use]
    pub fn encode_v6(&self) -> [u8; SYN_BYTES] {
        self.encode(MSS_V6)
    }

    fn encode(&self, mss: u16) -> [u8; SYN_BYTES] {
        let mut bytes = [0; SYN_BYTES];
        bytes[0..2].copy_from_slice(&self.source_port.to_be_bytes());
        bytes[2..4].copy_from_slice(&self.port.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.sequence.to_be_bytes());
        bytes[12] = ((SYN_BYTES / 4) as u8) << 4;
        bytes[13] = SYN;
        bytes[14..16].copy_from_slice(&WINDOW.to_be_bytes());
        // Options in Linux's order: MSS, SACK permitted, time stamps, one byte of padding, window scale.
        bytes[20..22].copy_from_slice(&[2, 4]);
        bytes[22..24].copy_from_slice(&mss.to_be_bytes());
        bytes[24..26].copy_from_slice(&[4, 2]);
        bytes[26..28].copy_from_slice(&[8, 10]);
        bytes[28..32].copy_from_slice(&self.time.to_be_bytes());
        bytes[36..40].copy_from_slice(&[1, 3, 3, WINDOW_SCALE]);
        bytes
    }
}

/// What answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// The port is open.
    SynAck,
    /// The port is closed, the host is alive.
    Reset,
}

/// A SYN/ACK or a reset.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Answer {
    /// Which of them.
    pub kind: Kind,
    /// The target's port.
    pub port: u16,
    /// Our port.
    pub source_port: u16,
    /// What is acknowledged: the SYN's sequence number plus one.
    pub acknowledged: u32,
}

/// Parses what an IPv4 raw socket received, from the IP header on.
///
/// # Errors
///
/// Returns why it is no answer.
pub fn parse_v4(bytes: &[u8]) -> Result<Answer, NotAnAnswer> {
    match behind_ipv4(bytes)? {
        (6, segment) => parse_segment(segment),
        _ => Err(NotAnAnswer::Foreign),
    }
}

/// Parses what an IPv6 raw socket received, from the TCP header on.
///
/// # Errors
///
/// Returns why it is no answer.
pub fn parse_v6(segment: &[u8]) -> Result<Answer, NotAnAnswer> {
    parse_segment(segment)
}

fn parse_segment(segment: &[u8]) -> Result<Answer, NotAnAnswer> {
    let header: [u8; 20] = take(segment, 0)?;
    let flags = header[13];
    let kind = match flags & (SYN | RST | ACK) {
        both if both == SYN | ACK => Kind::SynAck,
        both if both == RST | ACK => Kind::Reset,
        // A reset that acknowledges nothing answers no SYN (RFC 9293 section 3.5.2).
        _ => return Err(NotAnAnswer::Foreign),
    };
    Ok(Answer {
        kind,
        port: take_u16(&header, 0)?,
        source_port: take_u16(&header, 2)?,
        acknowledged: take_u32(&header, 8)?,
    })
}
