//! TCP SYN probes: one SYN out; a SYN/ACK, or a reset, back.
//!
//! The SYN looks as Linux would send it: some firewalls drop a SYN without options. Its sequence number is half of the
//! probe's token, and the answer proves itself by acknowledging it. Nobody here listens for the answer, so the kernel
//! resets what the peer would open; and before a port is used again, so do we ([`Reset`]): the peer keeps no half-open
//! connection.

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

/// A reset that ends what an earlier SYN may have left half open.
///
/// A target that has answered a SYN drops others from the same port until it is told that nothing comes of the first
/// (RFC 9293 section 3.10.7.4: in SYN-RECEIVED a segment outside the window is not accepted). This host's kernel tells it, once
/// it has the answer; but it has none while the answer is under way or when it was lost, and what it tells may be lost too. So
/// every SYN is preceded by a reset for the one before: else losses would beget losses, and no port could be used
/// twice within a round trip.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Reset {
    /// Our port.
    pub source_port: u16,
    /// The target's port.
    pub port: u16,
    /// The sequence number: that of the earlier SYN plus one, all that a target accepts (RFC 5961 section 3.2).
    pub sequence: u32,
}

/// Length of a reset, from the TCP header on.
pub const RESET_BYTES: usize = 20;

impl Reset {
    /// The reset over IPv4.
    #[must_use]
    pub fn encode_v4(&self, from: Ipv4Addr, to: Ipv4Addr) -> [u8; RESET_BYTES] {
        let mut bytes = self.encode_v6();
        let tail = [0, 6, 0, RESET_BYTES as u8];
        let sum = checksum(&[&from.octets(), &to.octets(), &tail, &bytes]);
        bytes[16..18].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    /// The reset over IPv6, its checksum left to the kernel (RFC 3542 section 3.1).
    #[must_use]
    pub fn encode_v6(&self) -> [u8; RESET_BYTES] {
        let mut bytes = [0; RESET_BYTES];
        bytes[0..2].copy_from_slice(&self.source_port.to_be_bytes());
        bytes[2..4].copy_from_slice(&self.port.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.sequence.to_be_bytes());
        bytes[12] = ((RESET_BYTES / 4) as u8) << 4;
        bytes[13] = RST;
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

#[cfg(test)]
mod tests {
    use pnet_packet::tcp::{self, MutableTcpPacket, TcpOptionNumbers, TcpPacket};
    use proptest::prelude::*;

    use super::*;
    use crate::probe::test_packets::ipv4;

    const SYN_PROBE: Syn = Syn {
        source_port: 61_000,
        port: 443,
        sequence: 0x0102_0304,
        time: 0x0506_0708,
    };
    const FROM: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const TO: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
    const GOLDEN: [u8; SYN_BYTES] = [
        0xee, 0x48, 1, 0xbb, 1, 2, 3, 4, 0, 0, 0, 0, 0xa0, 2, 0xfa, 0xf0, 0, 0, 0, 0, 2, 4, 5,
        0xb4, 4, 2, 8, 10, 5, 6, 7, 8, 0, 0, 0, 0, 1, 3, 3, 7,
    ];

    /// What a host answers, from the TCP header on.
    fn segment(flags: u8, acknowledged: u32) -> Vec<u8> {
        let mut bytes = vec![0; 20];
        bytes[0..2].copy_from_slice(&443u16.to_be_bytes());
        bytes[2..4].copy_from_slice(&61_000u16.to_be_bytes());
        bytes[8..12].copy_from_slice(&acknowledged.to_be_bytes());
        bytes[12] = 5 << 4;
        bytes[13] = flags;
        bytes
    }

    #[test]
    fn a_reset_has_these_bytes() {
        let reset = Reset {
            source_port: 61_000,
            port: 443,
            sequence: 0x0102_0305,
        };
        let golden = [
            0xee, 0x48, 1, 0xbb, 1, 2, 3, 5, 0, 0, 0, 0, 0x50, 4, 0, 0, 0, 0, 0, 0,
        ];
        assert_eq!(reset.encode_v6(), golden);
        let bytes = reset.encode_v4(FROM, TO);
        let theirs = TcpPacket::new(&bytes).unwrap();
        let sum = tcp::ipv4_checksum(&theirs, &FROM, &TO);
        assert_eq!((theirs.get_checksum(), sum == 0), (sum, false));
        assert_eq!(theirs.get_flags(), tcp::TcpFlags::RST);
    }

    #[test]
    fn a_syn_has_these_bytes() {
        let bytes = SYN_PROBE.encode_v4(FROM, TO);
        assert_eq!(bytes[..16], GOLDEN[..16]);
        assert_eq!(bytes[18..], GOLDEN[18..]);
        assert_eq!(bytes[16..18], [0x60, 0xc0], "checksum");
        let mut golden = GOLDEN;
        golden[22..24].copy_from_slice(&[5, 0xa0]);
        assert_eq!(
            SYN_PROBE.encode_v6(),
            golden,
            "smaller segments over IPv6, checksum left to the kernel"
        );
    }

    #[test]
    fn a_syn_is_what_another_parser_reads() {
        let bytes = SYN_PROBE.encode_v4(FROM, TO);
        let theirs = TcpPacket::new(&bytes).unwrap();
        assert_eq!(
            theirs.get_checksum(),
            tcp::ipv4_checksum(&theirs, &FROM, &TO)
        );
        assert_eq!(
            (
                theirs.get_flags(),
                theirs.get_data_offset(),
                theirs.get_window()
            ),
            (SYN, 10, WINDOW)
        );
        let options: Vec<_> = theirs
            .get_options_iter()
            .map(|option| option.get_number())
            .collect();
        use TcpOptionNumbers::{MSS, NOP, SACK_PERMITTED, TIMESTAMPS, WSCALE};
        assert_eq!(options, [MSS, SACK_PERMITTED, TIMESTAMPS, NOP, WSCALE]);
    }

    #[test]
    fn only_a_syn_ack_or_an_acknowledging_reset_answers() {
        let kind = |flags| parse_v6(&segment(flags, 7)).map(|answer| answer.kind);
        assert_eq!(kind(SYN | ACK), Ok(Kind::SynAck));
        assert_eq!(kind(SYN | ACK | 0x40), Ok(Kind::SynAck), "with ECN");
        assert_eq!(kind(RST | ACK), Ok(Kind::Reset));
        for flags in [0, SYN, RST, ACK, SYN | RST, SYN | RST | ACK, 0x01 | ACK] {
            assert_eq!(kind(flags), Err(NotAnAnswer::Foreign), "{flags:#x}");
        }
    }

    #[test]
    fn an_answer_that_was_cut_is_none() {
        let whole = ipv4(6, FROM, 0, &segment(SYN | ACK, 7));
        for length in 0..whole.len() {
            assert_eq!(
                parse_v4(&whole[..length]),
                Err(NotAnAnswer::Truncated),
                "{length}"
            );
        }
        assert!(parse_v4(&whole).is_ok());
        assert_eq!(
            parse_v4(&ipv4(17, FROM, 0, &segment(SYN | ACK, 7))),
            Err(NotAnAnswer::Foreign)
        );
    }

    proptest! {
        #[test]
        fn every_answer_is_read_back(acknowledged: u32, reset: bool, options in 0usize..=10) {
            let (flags, kind) = if reset { (RST | ACK, Kind::Reset) } else { (SYN | ACK, Kind::SynAck) };
            let expected = Answer { kind, port: 443, source_port: 61_000, acknowledged };
            prop_assert_eq!(parse_v4(&ipv4(6, FROM, options, &segment(flags, acknowledged))), Ok(expected));
        }

        /// Every field, as another implementation reads it; over IPv6 with the checksum that the kernel will fill in.
        #[test]
        fn another_implementation_reads_every_syn(
            source_port: u16, port: u16, sequence: u32, time: u32, from: [u8; 16], to: [u8; 16],
        ) {
            let mut bytes = Syn { source_port, port, sequence, time }.encode_v6();
            let sum = tcp::ipv6_checksum(&TcpPacket::new(&bytes).unwrap(), &from.into(), &to.into());
            bytes[16..18].copy_from_slice(&sum.to_be_bytes());
            let theirs = TcpPacket::new(&bytes).unwrap();
            prop_assert_eq!(theirs.get_checksum(), tcp::ipv6_checksum(&theirs, &from.into(), &to.into()));
            prop_assert_eq!((theirs.get_source(), theirs.get_destination()), (source_port, port));
            prop_assert_eq!((theirs.get_sequence(), theirs.get_acknowledgement()), (sequence, 0));
            prop_assert_eq!((theirs.get_flags(), theirs.get_urgent_ptr()), (SYN, 0));
            prop_assert_eq!(theirs.get_options_iter().count(), 5);
        }

        /// An answer that another implementation builds.
        #[test]
        fn the_answer_of_another_implementation_is_read(port: u16, source_port: u16, acknowledged: u32, reset: bool) {
            let mut bytes = [0; 20];
            let mut theirs = MutableTcpPacket::new(&mut bytes).unwrap();
            theirs.set_source(port);
            theirs.set_destination(source_port);
            theirs.set_acknowledgement(acknowledged);
            theirs.set_data_offset(5);
            theirs.set_flags(ACK | if reset { RST } else { SYN });
            let sum = tcp::ipv4_checksum(&theirs.to_immutable(), &TO, &FROM);
            theirs.set_checksum(sum);
            let kind = if reset { Kind::Reset } else { Kind::SynAck };
            prop_assert_eq!(parse_v6(&bytes), Ok(Answer { kind, port, source_port, acknowledged }));
        }

        #[test]
        fn every_checksum_is_what_another_implementation_computes(
            source_port: u16, port: u16, sequence: u32, time: u32, from: [u8; 4], to: [u8; 4],
        ) {
            let (from, to) = (from.into(), to.into());
            let bytes = Syn { source_port, port, sequence, time }.encode_v4(from, to);
            let theirs = TcpPacket::new(&bytes).unwrap();
            prop_assert_eq!(theirs.get_checksum(), tcp::ipv4_checksum(&theirs, &from, &to));
        }
    }

    #[test]
    fn no_bytes_make_the_parsers_panic() {
        bolero::check!()
            .with_iterations(200_000)
            .for_each(|bytes: &[u8]| {
                let _ = parse_v4(bytes);
                let _ = parse_v6(bytes);
                let _ = parse_v4(&ipv4(6, FROM, 0, bytes));
            });
    }
}
