//! ICMP echo (RFC 792, RFC 4443): requests out; replies, and errors with what they quote, back.
//!
//! ```text
//!  0     1     2           4           6           8         12         16             24          32        34
//!  ┌─────┬─────┬───────────┬───────────┬───────────┬─────────┬──────────┬──────────────┬────────────┬─────────┐
//!  │type │code │ checksum  │ ident     │ sequence  │ slot    │ sequence │ sent_ns      │ token      │ balance │  big-endian
//!  └─────┴─────┴───────────┴───────────┴───────────┴─────────┴──────────┴──────────────┴────────────┴─────────┘
//! ```
//!
//! Routers that balance over equal paths hash the first words of ICMP as they hash ports. So the identifier and the checksum
//! of a flow are constant: the last field balances what varies from probe to probe (as Paris traceroute does; Augustin et
//! al., IMC 2006). Over IPv6 the kernel adds the addresses to the checksum, which are constant too.
//!
//! The header's sequence is a part of the token. An error must quote the first eight bytes of what it is about
//! and usually quotes more; where it quotes the whole probe the token decides, else, over IPv4, identifier, sequence
//! and checksum, none of which can be guessed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{NotAnAnswer, behind_ipv4, checksum, stamp, take, take_u16, take_u32, token::Identity};

/// Length of a probe from the ICMP header on.
pub const ECHO_BYTES: usize = BALANCE_AT + 2;
const BALANCE_AT: usize = 8 + IDENTITY_BYTES;
const IDENTITY_BYTES: usize = 24;

/// Protocol numbers of the IP headers.
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

/// Message types of ICMP for IPv4.
pub mod v4 {
    /// Echo reply.
    pub const ECHO_REPLY: u8 = 0;
    /// Destination unreachable.
    pub const UNREACHABLE: u8 = 3;
    /// Echo request.
    pub const ECHO_REQUEST: u8 = 8;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 11;
    /// Parameter problem.
    pub const PARAMETER_PROBLEM: u8 = 12;
}

/// Message types of ICMPv6.
pub mod v6 {
    /// Destination unreachable.
    pub const UNREACHABLE: u8 = 1;
    /// Packet too big.
    pub const TOO_BIG: u8 = 2;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 3;
    /// Parameter problem.
    pub const PARAMETER_PROBLEM: u8 = 4;
    /// Echo request.
    pub const ECHO_REQUEST: u8 = 128;
    /// Echo reply.
    pub const ECHO_REPLY: u8 = 129;
}

/// An echo request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Echo {
    /// The flow's identifier.
    pub ident: u16,
    /// Which probe.
    pub identity: Identity,
}

/// What an ICMP message tells a prober.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Answer {
    /// An echo reply.
    Reply(Echo),
    /// An error about a packet.
    Error {
        /// Its type.
        message_type: u8,
        /// Its code.
        code: u8,
        /// The packet that it is about.
        quoted: Quoted,
    },
}

/// A packet of ours as an ICMP error quotes it. That an error quotes something proves nothing yet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Quoted {
    /// An echo request.
    Echo {
        /// Where it was sent.
        to: IpAddr,
        /// Its identifier.
        ident: u16,
        /// Its header's sequence.
        sequence: u16,
        /// Its checksum; computed by the kernel over IPv6.
        checksum: u16,
        /// Its payload, when quoted.
        identity: Option<Identity>,
    },
    /// A SYN.
    Syn {
        /// Where it was sent.
        to: IpAddr,
        /// From which port.
        source_port: u16,
        /// To which port.
        port: u16,
        /// Its sequence number.
        sequence: u32,
    },
    /// A STAMP request.
    Stamp {
        /// Where it was sent.
        to: IpAddr,
        /// From which port.
        source_port: u16,
        /// To which port.
        port: u16,
        /// How it began, when that much is quoted.
        start: Option<[u8; stamp::QUOTED_BYTES]>,
    },
}

impl Echo {
    /// The request over IPv4, which bears this checksum; neither 0 nor 0xffff can be borne.
    #[must_use]
    pub fn encode_v4(&self, checksum: u16) -> [u8; ECHO_BYTES] {
        let mut bytes = self.encode(v4::ECHO_REQUEST, checksum);
        bytes[2..4].copy_from_slice(&checksum.to_be_bytes());
        bytes
    }

    /// The request over IPv6, its checksum left to the kernel (RFC 3542 section 3.1): it differs from this one only by what
    /// the addresses add.
    #[must_use]
    pub fn encode_v6(&self, checksum: u16) -> [u8; ECHO_BYTES] {
        self.encode(v6::ECHO_REQUEST, checksum)
    }

    /// With a checksum of zero, and balanced for this one.
    fn encode(&self, message_type: u8, sum: u16) -> [u8; ECHO_BYTES] {
        let mut bytes = [0; ECHO_BYTES];
        bytes[0] = message_type;
        bytes[4..6].copy_from_slice(&self.ident.to_be_bytes());
        bytes[6..8].copy_from_slice(&self.identity.echo_sequence().to_be_bytes());
        bytes[8..12].copy_from_slice(&self.identity.slot.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.identity.sequence.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.identity.sent_ns.to_be_bytes());
        bytes[24..32].copy_from_slice(&self.identity.token.to_be_bytes());
        let balance = checksum(&[&sum.to_be_bytes(), &bytes]);
        bytes[BALANCE_AT..].copy_from_slice(&balance.to_be_bytes());
        bytes
    }

    /// A reply from its ICMP header on; it must be as long as the request was.
    fn parse(bytes: &[u8]) -> Result<Self, NotAnAnswer> {
        let identity = parse_identity(bytes)?;
        let _balance: [u8; 2] = take(bytes, BALANCE_AT)?;
        if bytes.len() != ECHO_BYTES
            || bytes[1] != 0
            || take_u16(bytes, 6)? != identity.echo_sequence()
        {
            return Err(NotAnAnswer::Foreign);
        }
        Ok(Self {
            ident: take_u16(bytes, 4)?,
            identity,
        })
    }
}

fn parse_identity(bytes: &[u8]) -> Result<Identity, NotAnAnswer> {
    Ok(Identity {
        slot: take_u32(bytes, 8)?,
        sequence: take_u32(bytes, 12)?,
        sent_ns: take(bytes, 16).map(u64::from_be_bytes)?,
        token: take(bytes, 24).map(u64::from_be_bytes)?,
    })
}

/// Parses what an IPv4 ping socket received, from the ICMP header on. The kernel puts its own identifier into requests and lets
/// only their replies in.
///
/// # Errors
///
/// Returns why it is no answer.
pub fn parse_ping_v4(message: &[u8]) -> Result<Answer, NotAnAnswer> {
    let [message_type] = take(message, 0)?;
    match message_type {
        v4::ECHO_REPLY => Echo::parse(message).map(Answer::Reply),
        _ => Err(NotAnAnswer::Foreign),
    }
}

/// Parses what an IPv4 raw socket received, from the IP header on.
///
/// # Errors
///
/// Returns why it is no answer.
pub fn parse_v4(bytes: &[u8]) -> Result<Answer, NotAnAnswer> {
    let (protocol, message) = behind_ipv4(bytes)?;
    if protocol != 1 {
        return Err(NotAnAnswer::Foreign);
    }
    let [message_type, code] = take(message, 0)?;
    match message_type {
        v4::ECHO_REPLY => Echo::parse(message).map(Answer::Reply),
        v4::UNREACHABLE | v4::TIME_EXCEEDED | v4::PARAMETER_PROBLEM => {
            let packet = message.get(8..).ok_or(NotAnAnswer::Truncated)?;
            let (protocol, quoted) = behind_ipv4(packet)?;
            let to = IpAddr::V4(Ipv4Addr::from(take::<4>(packet, 16)?));
            let quoted = parse_quoted(to, quoted, protocol, (ICMP, v4::ECHO_REQUEST))?;
            Ok(Answer::Error {
                message_type,
                code,
                quoted,
            })
        }
        _ => Err(NotAnAnswer::Foreign),
    }
}

/// Parses what an ICMPv6 raw socket received, from the ICMPv6 header on.
///
/// # Errors
///
/// Returns why it is no answer.
pub fn parse_v6(message: &[u8]) -> Result<Answer, NotAnAnswer> {
    let [message_type, code] = take(message, 0)?;
    match message_type {
        v6::ECHO_REPLY => Echo::parse(message).map(Answer::Reply),
        v6::UNREACHABLE | v6::TOO_BIG | v6::TIME_EXCEEDED | v6::PARAMETER_PROBLEM => {
            let packet = message.get(8..).ok_or(NotAnAnswer::Truncated)?;
            let [first] = take(packet, 0)?;
            if first >> 4 != 6 {
                return Err(NotAnAnswer::Foreign);
            }
            let [next_header] = take(packet, 6)?;
            let to = IpAddr::V6(Ipv6Addr::from(take::<16>(packet, 24)?));
            let quoted = packet.get(40..).ok_or(NotAnAnswer::Truncated)?;
            let quoted = parse_quoted(to, quoted, next_header, (ICMPV6, v6::ECHO_REQUEST))?;
            Ok(Answer::Error {
                message_type,
                code,
                quoted,
            })
        }
        _ => Err(NotAnAnswer::Foreign),
    }
}

/// What an error quotes, from its transport header on. At least eight bytes must be there; the identity of an echo
/// request is taken only if all of it is.
fn parse_quoted(
    to: IpAddr,
    bytes: &[u8],
    protocol: u8,
    (icmp, echo_request): (u8, u8),
) -> Result<Quoted, NotAnAnswer> {
    let header: [u8; 8] = take(bytes, 0)?;
    if protocol == TCP {
        return Ok(Quoted::Syn {
            to,
            source_port: take_u16(&header, 0)?,
            port: take_u16(&header, 2)?,
            sequence: take_u32(&header, 4)?,
        });
    }
    if protocol == UDP {
        return Ok(Quoted::Stamp {
            to,
            source_port: take_u16(&header, 0)?,
            port: take_u16(&header, 2)?,
            start: take(bytes, header.len()).ok(),
        });
    }
    if protocol != icmp || header[0] != echo_request || header[1] != 0 {
        return Err(NotAnAnswer::Foreign);
    }
    Ok(Quoted::Echo {
        to,
        ident: take_u16(&header, 4)?,
        sequence: take_u16(&header, 6)?,
        checksum: take_u16(&header, 2)?,
        identity: parse_identity(bytes).ok(),
    })
}

#[cfg(test)]
mod tests {
    use pnet_packet::{
        Packet,
        icmp::{
            self, IcmpPacket, IcmpTypes, echo_reply::MutableEchoReplyPacket,
            echo_request::EchoRequestPacket,
        },
        icmpv6::{self, Icmpv6Packet, MutableIcmpv6Packet},
        udp::{self, MutableUdpPacket},
    };
    use proptest::prelude::*;

    use super::*;
    use crate::probe::test_packets::{ipv4, ipv6};

    const ECHO: Echo = Echo {
        ident: 0xabcd,
        identity: Identity {
            slot: 0x0102_0304,
            sequence: 0x0506_0708,
            sent_ns: 0x1112_1314_1516_1718,
            token: 0x2122_2324_2526_2728,
        },
    };
    /// What requests of a flow bear.
    const SUM: u16 = 0x7654;
    const GOLDEN_V4: [u8; ECHO_BYTES] = [
        8, 0, 0x76, 0x54, 0xab, 0xcd, 0x21, 0x22, 1, 2, 3, 4, 5, 6, 7, 8, 0x11, 0x12, 0x13, 0x14,
        0x15, 0x16, 0x17, 0x18, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0x28, 0xc3, 0xbe,
    ];

    fn echo() -> impl Strategy<Value = Echo> {
        (
            any::<u16>(),
            any::<u32>(),
            any::<u32>(),
            any::<u64>(),
            any::<u64>(),
        )
            .prop_map(|(ident, slot, sequence, sent_ns, token)| Echo {
                ident,
                identity: Identity {
                    slot,
                    sequence,
                    sent_ns,
                    token,
                },
            })
    }

    /// The reply of a host to a request over IPv4, from the IP header on.
    fn reply_v4(request: &[u8; ECHO_BYTES], options: usize) -> Vec<u8> {
        let mut message = request.to_vec();
        message[0] = v4::ECHO_REPLY;
        ipv4(1, Ipv4Addr::LOCALHOST, options, &message)
    }

    fn error_v4(message_type: u8, to: Ipv4Addr, options: usize, quoted: &[u8]) -> Vec<u8> {
        let mut message = vec![message_type, 1, 0, 0, 0, 0, 0, 0];
        message.extend(ipv4(1, to, options, quoted));
        ipv4(1, Ipv4Addr::LOCALHOST, 0, &message)
    }

    #[test]
    fn a_request_has_these_bytes() {
        assert_eq!(ECHO.encode_v4(SUM), GOLDEN_V4);
        let mut golden = GOLDEN_V4;
        golden[..4].copy_from_slice(&[128, 0, 0, 0]);
        // Its type is 120 more.
        golden[32..].copy_from_slice(&[0x4b, 0xbe]);
        assert_eq!(ECHO.encode_v6(SUM), golden);
    }

    #[test]
    fn a_request_is_what_another_parser_reads() {
        let bytes = ECHO.encode_v4(SUM);
        let theirs = EchoRequestPacket::new(&bytes).unwrap();
        assert_eq!(
            (theirs.get_identifier(), theirs.get_sequence_number()),
            (0xabcd, 0x2122)
        );
        assert_eq!(
            theirs.get_checksum(),
            icmp::checksum(&icmp::IcmpPacket::new(&bytes).unwrap())
        );
        assert_eq!(theirs.payload(), &bytes[8..]);
        let mut bytes = ECHO.encode_v6(SUM);
        let theirs = MutableIcmpv6Packet::new(&mut bytes).unwrap();
        assert_eq!(theirs.get_icmpv6_type(), icmpv6::Icmpv6Types::EchoRequest);
    }

    #[test]
    fn a_reply_that_was_cut_or_padded_is_none() {
        let whole = reply_v4(&ECHO.encode_v4(SUM), 0);
        for length in 0..whole.len() {
            assert_eq!(
                parse_v4(&whole[..length]),
                Err(NotAnAnswer::Truncated),
                "{length}"
            );
        }
        let mut padded = whole.clone();
        padded.push(0);
        assert_eq!(parse_v4(&padded), Err(NotAnAnswer::Foreign));
        assert_eq!(parse_v4(&whole), Ok(Answer::Reply(ECHO)));
    }

    #[test]
    fn an_error_that_quotes_eight_bytes_still_names_the_probe() {
        let to = Ipv4Addr::new(192, 0, 2, 7);
        let error = error_v4(v4::TIME_EXCEEDED, to, 0, &ECHO.encode_v4(SUM)[..8]);
        let Ok(Answer::Error {
            message_type: 11,
            code: 1,
            quoted: Quoted::Echo {
                checksum, identity, ..
            },
        }) = parse_v4(&error)
        else {
            panic!("{:?}", parse_v4(&error))
        };
        assert_eq!((checksum, identity), (SUM, None));
        let short = error_v4(v4::TIME_EXCEEDED, to, 0, &ECHO.encode_v4(SUM)[..7]);
        assert_eq!(parse_v4(&short), Err(NotAnAnswer::Truncated));
    }

    #[test]
    fn an_error_quotes_a_stamp_request_as_far_as_it_goes() {
        let to = Ipv4Addr::new(192, 0, 2, 7);
        let mut datagram = vec![0xc3, 0x50, 0x03, 0x5e, 0, 52, 0, 0];
        datagram.extend(0..44);
        let quoted = |length: usize| {
            let mut message = vec![v4::UNREACHABLE, 3, 0, 0, 0, 0, 0, 0];
            message.extend(ipv4(17, to, 0, &datagram[..length]));
            match parse_v4(&ipv4(1, Ipv4Addr::LOCALHOST, 0, &message)) {
                Ok(Answer::Error { quoted, .. }) => quoted,
                other => panic!("{other:?}"),
            }
        };
        let expected = |start| Quoted::Stamp {
            to: to.into(),
            source_port: 50_000,
            port: 862,
            start,
        };
        assert_eq!(quoted(8 + 27), expected(None));
        let start = std::array::from_fn(|at| at as u8);
        assert_eq!(quoted(8 + 28), expected(Some(start)));
    }

    #[test]
    fn requests_and_quoted_replies_are_foreign() {
        let request = ipv4(1, Ipv4Addr::LOCALHOST, 0, &ECHO.encode_v4(SUM));
        assert_eq!(parse_v4(&request), Err(NotAnAnswer::Foreign));
        let mut reply = ECHO.encode_v4(SUM);
        reply[0] = v4::ECHO_REPLY;
        let error = error_v4(v4::UNREACHABLE, Ipv4Addr::LOCALHOST, 0, &reply);
        assert_eq!(parse_v4(&error), Err(NotAnAnswer::Foreign));
        assert_eq!(parse_v6(&ECHO.encode_v6(SUM)), Err(NotAnAnswer::Foreign));
    }

    proptest! {
        /// Identifier, sequence, payload, and a checksum that is right and the flow's own, whatever the probe.
        #[test]
        fn another_implementation_reads_every_request(echo in echo(), sum in 1u16..=0xfffe) {
            let bytes = echo.encode_v4(sum);
            let theirs = EchoRequestPacket::new(&bytes).unwrap();
            prop_assert_eq!(theirs.get_icmp_type(), IcmpTypes::EchoRequest);
            prop_assert_eq!((theirs.get_identifier(), theirs.get_sequence_number()), (echo.ident, echo.identity.echo_sequence()));
            prop_assert_eq!(theirs.get_checksum(), sum);
            prop_assert_eq!(icmp::checksum(&IcmpPacket::new(&bytes).unwrap()), sum);
            prop_assert_eq!(theirs.payload(), &bytes[8..]);
        }

        /// What the kernel will fill in over IPv6 depends on flow and addresses alone.
        #[test]
        fn another_implementation_finds_one_checksum_for_all_requests_of_a_flow(
            (one, other) in (echo(), echo()), sum in 1u16..=0xfffe, from: [u8; 16], to: [u8; 16],
        ) {
            let theirs = |echo: Echo| {
                let bytes = Echo { ident: one.ident, ..echo }.encode_v6(sum);
                icmpv6::checksum(&Icmpv6Packet::new(&bytes).unwrap(), &from.into(), &to.into())
            };
            prop_assert_eq!(theirs(one), theirs(other));
        }

        /// A reply that another implementation builds from a request's payload.
        #[test]
        fn the_reply_of_another_implementation_is_read(echo in echo(), options in 0usize..=10) {
            let request = echo.encode_v4(SUM);
            let mut bytes = [0; ECHO_BYTES];
            let mut theirs = MutableEchoReplyPacket::new(&mut bytes).unwrap();
            theirs.set_icmp_type(IcmpTypes::EchoReply);
            theirs.set_identifier(echo.ident);
            theirs.set_sequence_number(echo.identity.echo_sequence());
            theirs.set_payload(&request[8..]);
            let sum = icmp::checksum(&IcmpPacket::new(theirs.packet()).unwrap());
            theirs.set_checksum(sum);
            prop_assert_eq!(parse_ping_v4(&bytes), Ok(Answer::Reply(echo)));
            let packet = ipv4(1, Ipv4Addr::LOCALHOST, options, &bytes);
            prop_assert_eq!(parse_v4(&packet), Ok(Answer::Reply(echo)));
        }

        /// A STAMP request as another implementation puts it into a datagram, quoted in an error.
        #[test]
        fn a_quoted_datagram_of_another_implementation_is_read(
            sequence: u32, time: u64, ssid: u16, from: u16, port: u16, to: [u8; 4], options in 0usize..=10,
        ) {
            let request = stamp::Request {
                sequence,
                time: stamp::Stamp(time),
                error: stamp::ErrorEstimate::unknown(stamp::Format::Ntp),
                ssid,
            };
            let payload = request.encode(None);
            let mut datagram = vec![0; 8 + payload.len()];
            let mut theirs = MutableUdpPacket::new(&mut datagram).unwrap();
            theirs.set_source(from);
            theirs.set_destination(port);
            theirs.set_length((8 + payload.len()) as u16);
            theirs.set_payload(&payload);
            let sum = udp::ipv4_checksum(&theirs.to_immutable(), &Ipv4Addr::LOCALHOST, &to.into());
            theirs.set_checksum(sum);
            let mut message = vec![v4::UNREACHABLE, 3, 0, 0, 0, 0, 0, 0];
            message.extend(ipv4(17, to.into(), options, &datagram));
            let Ok(Answer::Error { quoted: Quoted::Stamp { to: at, source_port, port: number, start: Some(start) }, .. }) =
                parse_v4(&ipv4(1, Ipv4Addr::LOCALHOST, 0, &message))
            else {
                return Err(TestCaseError::fail("no quoted datagram"));
            };
            prop_assert_eq!((at, source_port, number), (IpAddr::from(to), from, port));
            prop_assert!(stamp::Request::quoted(&start).iter().flatten().any(|quoted| *quoted == request));
        }

        #[test]
        fn every_reply_is_read_back(echo in echo(), options in 0usize..=10) {
            prop_assert_eq!(parse_v4(&reply_v4(&echo.encode_v4(SUM), options)), Ok(Answer::Reply(echo)));
            let mut reply = echo.encode_v6(SUM);
            reply[0] = v6::ECHO_REPLY;
            prop_assert_eq!(parse_v6(&reply), Ok(Answer::Reply(echo)));
        }

        #[test]
        fn every_quoted_request_is_read_back(echo in echo(), to: [u8; 4], to6: [u8; 16], options in 0usize..=10) {
            let sequence = echo.identity.echo_sequence();
            let expected = |to: IpAddr, checksum| Quoted::Echo {
                to, ident: echo.ident, sequence, checksum, identity: Some(echo.identity),
            };
            let error = error_v4(v4::UNREACHABLE, to.into(), options, &echo.encode_v4(SUM));
            let quoted = expected(IpAddr::from(to), SUM);
            prop_assert_eq!(parse_v4(&error), Ok(Answer::Error { message_type: 3, code: 1, quoted }));
            let mut error = vec![v6::UNREACHABLE, 3, 0, 0, 0, 0, 0, 0];
            error.extend(ipv6(58, to6.into(), &echo.encode_v6(SUM)));
            let quoted = expected(IpAddr::from(to6), 0);
            prop_assert_eq!(parse_v6(&error), Ok(Answer::Error { message_type: 1, code: 3, quoted }));
        }
    }

    #[test]
    fn no_bytes_make_the_parsers_panic() {
        bolero::check!()
            .with_iterations(200_000)
            .for_each(|bytes: &[u8]| {
                let _ = parse_v4(bytes);
                let _ = parse_v6(bytes);
                // Behind a plausible header random bytes get further.
                let _ = parse_v4(&error_v4(v4::UNREACHABLE, Ipv4Addr::LOCALHOST, 0, bytes));
                let _ = parse_v4(&ipv4(1, Ipv4Addr::LOCALHOST, 0, bytes));
            });
    }
}
