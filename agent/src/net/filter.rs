//! Socket filters (classic BPF): which packets the kernel hands to which socket.
//!
//! A raw socket receives a copy of every packet of its protocol that reaches the host. A filter drops in the kernel
//! what cannot be meant for us, so that a busy host costs the probe thread nothing. Reading past the end of a packet
//! ends a filter with "drop", which is what is wanted for packets too short. Offsets count from the IP header on IPv4
//! raw sockets and from the transport header on IPv6 ones.

use std::ops::RangeInclusive;

use socket2::SockFilter;

use crate::probe::{
    icmp::{v4, v6},
    token::IDENT_FLOW,
};

/// An identifier without the bits that tell the flow.
const OUR_IDENT: u32 = !(IDENT_FLOW as u32) & 0xffff;
/// Accept the whole packet.
const ALL: u32 = 0xffff;

/// Drops everything: what a socket gets before its real filter, see [`super::sockets`].
#[must_use]
pub(super) fn nothing() -> Vec<SockFilter> {
    assemble(&[Op::Return(0)])
}

/// ICMP: echo replies to our identifiers, of which `ident` is the first; errors about our echo requests, our SYNs and our
/// STAMP requests, which leave from `stamp_ports`.
#[must_use]
pub(super) fn icmp_v4(
    ident: u16,
    ports: &RangeInclusive<u16>,
    stamp_ports: &[u16],
) -> Vec<SockFilter> {
    let is = |value: u8, then, otherwise| Op::JumpEqual(u32::from(value), then, otherwise);
    let mut ops = vec![
        Op::IndexHeaderLength(0),
        Op::LoadByteAt(0),
        is(v4::ECHO_REPLY, Goto::Label("echo"), Goto::Next),
        is(v4::UNREACHABLE, Goto::Label("error"), Goto::Next),
        is(v4::TIME_EXCEEDED, Goto::Label("error"), Goto::Next),
        is(
            v4::PARAMETER_PROBLEM,
            Goto::Label("error"),
            Goto::Label("drop"),
        ),
        Op::Label("echo"),
        Op::LoadHalfAt(4),
        Op::And(OUR_IDENT),
        Op::JumpEqual(u32::from(ident), Goto::Label("accept"), Goto::Label("drop")),
        Op::Label("error"),
        // The quoted header's protocol; then the index moves past the quoted header.
        Op::LoadByteAt(8 + 9),
        Op::Store,
        Op::LoadByteAt(8),
        Op::And(0x0f),
        Op::ShiftLeft(2),
        Op::AddIndex,
        Op::IndexFromAccumulator,
        Op::Restore,
        Op::JumpEqual(1, Goto::Label("quoted echo"), Goto::Next),
        Op::JumpEqual(6, Goto::Label("quoted syn"), Goto::Next),
        Op::JumpEqual(17, Goto::Next, Goto::Label("drop")),
        Op::LoadHalfAt(8),
    ];
    ops.extend(one_of(stamp_ports));
    ops.extend([
        Op::Label("quoted echo"),
        Op::LoadHalfAt(8 + 4),
        Op::And(OUR_IDENT),
        Op::JumpEqual(u32::from(ident), Goto::Label("accept"), Goto::Label("drop")),
        Op::Label("quoted syn"),
        Op::LoadHalfAt(8),
        Op::JumpAtLeast(u32::from(*ports.start()), Goto::Next, Goto::Label("drop")),
        Op::JumpAbove(
            u32::from(*ports.end()),
            Goto::Label("drop"),
            Goto::Label("accept"),
        ),
        Op::Label("accept"),
        Op::Return(ALL),
        Op::Label("drop"),
        Op::Return(0),
    ]);
    assemble(&ops)
}

/// ICMPv6: as [`icmp_v4`]. Quoted packets with extension headers are not ours: we send none.
#[must_use]
pub(super) fn icmp_v6(
    ident: u16,
    ports: &RangeInclusive<u16>,
    stamp_ports: &[u16],
) -> Vec<SockFilter> {
    const QUOTED: u32 = 8 + 40;
    let is = |value: u8, then, otherwise| Op::JumpEqual(u32::from(value), then, otherwise);
    let mut ops = vec![
        Op::LoadByte(0),
        is(v6::ECHO_REPLY, Goto::Label("echo"), Goto::Next),
        Op::JumpAtLeast(u32::from(v6::UNREACHABLE), Goto::Next, Goto::Label("drop")),
        Op::JumpAbove(
            u32::from(v6::PARAMETER_PROBLEM),
            Goto::Label("drop"),
            Goto::Label("error"),
        ),
        Op::Label("echo"),
        Op::LoadHalf(4),
        Op::And(OUR_IDENT),
        Op::JumpEqual(u32::from(ident), Goto::Label("accept"), Goto::Label("drop")),
        Op::Label("error"),
        Op::LoadByte(8 + 6),
        Op::JumpEqual(58, Goto::Label("quoted echo"), Goto::Next),
        Op::JumpEqual(6, Goto::Label("quoted syn"), Goto::Next),
        Op::JumpEqual(17, Goto::Next, Goto::Label("drop")),
        Op::LoadHalf(QUOTED),
    ];
    ops.extend(one_of(stamp_ports));
    ops.extend([
        Op::Label("quoted echo"),
        Op::LoadHalf(QUOTED + 4),
        Op::And(OUR_IDENT),
        Op::JumpEqual(u32::from(ident), Goto::Label("accept"), Goto::Label("drop")),
        Op::Label("quoted syn"),
        Op::LoadHalf(QUOTED),
        Op::JumpAtLeast(u32::from(*ports.start()), Goto::Next, Goto::Label("drop")),
        Op::JumpAbove(
            u32::from(*ports.end()),
            Goto::Label("drop"),
            Goto::Label("accept"),
        ),
        Op::Label("accept"),
        Op::Return(ALL),
        Op::Label("drop"),
        Op::Return(0),
    ]);
    assemble(&ops)
}

/// Accepts what was loaded if it is one of these, and drops it otherwise.
fn one_of(values: &[u16]) -> Vec<Op> {
    let is = |&value: &u16| Op::JumpEqual(u32::from(value), Goto::Label("accept"), Goto::Next);
    let mut ops: Vec<Op> = values.iter().map(is).collect();
    ops.push(Op::Jump("drop"));
    ops
}

/// TCP over IPv4: SYN/ACKs and resets to our source ports.
#[must_use]
pub(super) fn tcp_v4(ports: &RangeInclusive<u16>) -> Vec<SockFilter> {
    let mut ops = vec![Op::IndexHeaderLength(0), Op::LoadHalfAt(2)];
    ops.extend(port_and_flags(ports, Op::LoadByteAt(13)));
    assemble(&ops)
}

/// TCP over IPv6: SYN/ACKs and resets to our source ports.
#[must_use]
pub(super) fn tcp_v6(ports: &RangeInclusive<u16>) -> Vec<SockFilter> {
    let mut ops = vec![Op::LoadHalf(2)];
    ops.extend(port_and_flags(ports, Op::LoadByte(13)));
    assemble(&ops)
}

/// UDP over IPv4: what comes to our ports.
#[must_use]
pub(super) fn udp_v4(ports: &[u16]) -> Vec<SockFilter> {
    udp(vec![Op::IndexHeaderLength(0), Op::LoadHalfAt(2)], ports)
}

/// UDP over IPv6: what comes to our ports.
#[must_use]
pub(super) fn udp_v6(ports: &[u16]) -> Vec<SockFilter> {
    udp(vec![Op::LoadHalf(2)], ports)
}

fn udp(mut ops: Vec<Op>, ports: &[u16]) -> Vec<SockFilter> {
    ops.extend(one_of(ports));
    ops.extend([
        Op::Label("accept"),
        Op::Return(ALL),
        Op::Label("drop"),
        Op::Return(0),
    ]);
    assemble(&ops)
}

fn port_and_flags(ports: &RangeInclusive<u16>, load_flags: Op) -> Vec<Op> {
    use crate::probe::tcp_syn::{ACK, RST, SYN};
    vec![
        Op::JumpAtLeast(u32::from(*ports.start()), Goto::Next, Goto::Label("drop")),
        Op::JumpAbove(u32::from(*ports.end()), Goto::Label("drop"), Goto::Next),
        load_flags,
        Op::JumpAnySet(u32::from(RST), Goto::Label("accept"), Goto::Next),
        Op::And(u32::from(SYN | ACK)),
        Op::JumpEqual(
            u32::from(SYN | ACK),
            Goto::Label("accept"),
            Goto::Label("drop"),
        ),
        Op::Label("accept"),
        Op::Return(ALL),
        Op::Label("drop"),
        Op::Return(0),
    ]
}

/// Where a jump goes.
#[derive(Clone, Copy, Debug)]
enum Goto {
    Next,
    Label(&'static str),
}

/// What a filter consists of; `At` means relative to the index register.
#[derive(Clone, Copy, Debug)]
enum Op {
    /// Names the next instruction.
    Label(&'static str),
    /// Index = four times the low half of the byte: an IPv4 header's length.
    IndexHeaderLength(u32),
    LoadByte(u32),
    LoadHalf(u32),
    LoadByteAt(u32),
    LoadHalfAt(u32),
    And(u32),
    ShiftLeft(u32),
    AddIndex,
    IndexFromAccumulator,
    Store,
    Restore,
    Jump(&'static str),
    JumpEqual(u32, Goto, Goto),
    JumpAtLeast(u32, Goto, Goto),
    JumpAbove(u32, Goto, Goto),
    JumpAnySet(u32, Goto, Goto),
    Return(u32),
}

/// Resolves labels to jump distances.
fn assemble(ops: &[Op]) -> Vec<SockFilter> {
    // The encoding of classic BPF: class, size, mode and operation (linux/bpf_common.h).
    const LD: u16 = 0x00;
    const LDX: u16 = 0x01;
    const ST: u16 = 0x02;
    const ALU: u16 = 0x04;
    const JMP: u16 = 0x05;
    const RET: u16 = 0x06;
    const MISC: u16 = 0x07;
    const HALF: u16 = 0x08;
    const BYTE: u16 = 0x10;
    const ABS: u16 = 0x20;
    const IND: u16 = 0x40;
    const MEM: u16 = 0x60;
    const MSH: u16 = 0xa0;
    const ADD: u16 = 0x00;
    const AND: u16 = 0x50;
    const LSH: u16 = 0x60;
    const BY_INDEX: u16 = 0x08;
    const JEQ: u16 = 0x10;
    const JGT: u16 = 0x20;
    const JGE: u16 = 0x30;
    const JSET: u16 = 0x40;

    let mut labels = Vec::new();
    let mut length = 0usize;
    for op in ops {
        match op {
            Op::Label(name) => labels.push((*name, length)),
            _ => length += 1,
        }
    }
    let mut code: Vec<SockFilter> = Vec::with_capacity(length);
    for op in ops {
        let here = code.len();
        let distance = |goto: Goto| match goto {
            Goto::Next => 0,
            Goto::Label(label) => {
                let target = labels
                    .iter()
                    .find(|(name, _)| *name == label)
                    .map(|&(_, at)| at);
                let target =
                    target.expect("every label that is jumped to stands in the same filter");
                u8::try_from(target - here - 1).expect("a filter is shorter than a jump's reach")
            }
        };
        let jump = |op, value, then, otherwise| {
            SockFilter::new(JMP | op, distance(then), distance(otherwise), value)
        };
        let plain = |op, value| SockFilter::new(op, 0, 0, value);
        code.push(match *op {
            Op::Label(_) => continue,
            Op::IndexHeaderLength(at) => plain(LDX | BYTE | MSH, at),
            Op::LoadByte(at) => plain(LD | BYTE | ABS, at),
            Op::LoadHalf(at) => plain(LD | HALF | ABS, at),
            Op::LoadByteAt(at) => plain(LD | BYTE | IND, at),
            Op::LoadHalfAt(at) => plain(LD | HALF | IND, at),
            Op::And(mask) => plain(ALU | AND, mask),
            Op::ShiftLeft(by) => plain(ALU | LSH, by),
            Op::AddIndex => plain(ALU | ADD | BY_INDEX, 0),
            Op::IndexFromAccumulator => plain(MISC, 0),
            Op::Store => plain(ST, 0),
            Op::Restore => plain(LD | MEM, 0),
            Op::Jump(label) => plain(JMP, u32::from(distance(Goto::Label(label)))),
            Op::JumpEqual(value, then, otherwise) => jump(JEQ, value, then, otherwise),
            Op::JumpAtLeast(value, then, otherwise) => jump(JGE, value, then, otherwise),
            Op::JumpAbove(value, then, otherwise) => jump(JGT, value, then, otherwise),
            Op::JumpAnySet(value, then, otherwise) => jump(JSET, value, then, otherwise),
            Op::Return(value) => plain(RET, value),
        });
    }
    code
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use proptest::prelude::*;
    use socket2::SockRef;

    use super::*;
    use crate::probe::{
        icmp::{self, Answer, Echo, Quoted},
        tcp_syn::{self, ACK, RST, SYN, Syn},
        test_packets::{ipv4, ipv6},
        token::TokenKey,
    };
    use std::net::{Ipv4Addr, Ipv6Addr};

    const IDENT: u16 = 0xbee8;
    const SUM: u16 = 0x7654;
    const PORTS: RangeInclusive<u16> = 61_000..=61_007;
    const STAMP_PORTS: [u16; 3] = [50_000, 50_003, 60_000];

    /// Whether the kernel lets a packet through. A datagram socket filters its messages as a raw one its packets.
    fn passes(filter: &[SockFilter], packet: &[u8]) -> bool {
        let (sender, receiver) = UnixDatagram::pair().unwrap();
        SockRef::from(&receiver).attach_filter(filter).unwrap();
        receiver.set_nonblocking(true).unwrap();
        sender.send(packet).unwrap();
        receiver.recv(&mut [0; 512]).is_ok()
    }

    fn echo(ident: u16) -> Echo {
        Echo {
            ident,
            identity: TokenKey::new([1; 16]).identity(1, 2, 3),
        }
    }

    fn syn(source_port: u16) -> [u8; 40] {
        Syn {
            source_port,
            port: 443,
            sequence: 1,
            time: 2,
        }
        .encode_v6()
    }

    fn segment(source_port: u16, flags: u8) -> Vec<u8> {
        let mut bytes = syn(443).to_vec();
        bytes[2..4].copy_from_slice(&source_port.to_be_bytes());
        bytes[13] = flags;
        bytes
    }

    /// Whether the parsers see something that can be ours.
    fn ours(answer: Option<Answer>) -> bool {
        match answer {
            Some(Answer::Reply(echo)) => echo.ident & !IDENT_FLOW == IDENT,
            Some(Answer::Error {
                quoted: Quoted::Echo { ident, .. },
                ..
            }) => ident & !IDENT_FLOW == IDENT,
            Some(Answer::Error {
                quoted: Quoted::Syn { source_port, .. },
                ..
            }) => PORTS.contains(&source_port),
            Some(Answer::Error {
                quoted: Quoted::Stamp { source_port, .. },
                ..
            }) => STAMP_PORTS.contains(&source_port),
            None => false,
        }
    }

    #[test]
    fn nothing_passes_until_the_real_filter_is_attached() {
        assert!(!passes(
            &nothing(),
            &ipv4(1, Ipv4Addr::LOCALHOST, 0, &[0; 40])
        ));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        /// IP options in either header, every type, foreign identifiers, ports and protocols, and packets cut anywhere:
        /// the filter passes all that the parser takes for ours, and nothing that is whole and foreign.
        #[test]
        fn icmp_filters_pass_what_the_parsers_take_for_ours(
            message_type in prop_oneof![0u8..=15, 128u8..=130],
            ident in prop_oneof![IDENT - 1..=IDENT + 8, any::<u16>()],
            port in prop_oneof![60_998u16..61_010, prop::sample::select(&STAMP_PORTS), any::<u16>()],
            quoted_protocol in prop_oneof![Just(1u8), Just(58), Just(6), Just(17), any::<u8>()],
            (outer, inner) in (0usize..=10, 0usize..=10),
            cut in prop_oneof![3 => Just(0usize), 1 => 0usize..120],
        ) {
            let quoted = |request: u8| {
                let ports = matches!(quoted_protocol, 6 | 17);
                let mut bytes = if ports { syn(port).to_vec() } else { echo(ident).encode_v6(SUM).to_vec() };
                if !ports {
                    bytes[0] = request;
                }
                bytes
            };
            let message = |is_reply, quoting: Vec<u8>| {
                let mut bytes = if is_reply { echo(ident).encode_v6(SUM).to_vec() } else { [vec![0; 8], quoting].concat() };
                bytes[0] = message_type;
                bytes
            };
            let packet = message(message_type == 0, ipv4(quoted_protocol, Ipv4Addr::LOCALHOST, inner, &quoted(8)));
            let packet = ipv4(1, Ipv4Addr::LOCALHOST, outer, &packet);
            let packet = &packet[..packet.len().saturating_sub(cut)];
            let expected = ours(icmp::parse_v4(packet).ok());
            let passed = passes(&icmp_v4(IDENT, &PORTS, &STAMP_PORTS), packet);
            prop_assert!(passed || !expected, "v4 dropped");
            prop_assert!(!passed || expected || cut > 0, "v4 passed");

            let packet = message(message_type == 129, ipv6(quoted_protocol, Ipv6Addr::LOCALHOST, &quoted(128)));
            let packet = &packet[..packet.len().saturating_sub(cut)];
            let expected = ours(icmp::parse_v6(packet).ok());
            let passed = passes(&icmp_v6(IDENT, &PORTS, &STAMP_PORTS), packet);
            prop_assert!(passed || !expected, "v6 dropped");
            prop_assert!(!passed || expected || cut > 0, "v6 passed");
        }

        #[test]
        fn tcp_filters_pass_answers_to_our_ports(
            flags: u8,
            port in prop_oneof![60_998u16..61_010, any::<u16>()],
            options in 0usize..=10,
        ) {
            let segment = segment(port, flags);
            let packet = ipv4(6, Ipv4Addr::LOCALHOST, options, &segment);
            let answers = flags & RST != 0 || flags & (SYN | ACK) == SYN | ACK;
            let expected = PORTS.contains(&port) && answers;
            prop_assert_eq!(passes(&tcp_v4(&PORTS), &packet), expected);
            prop_assert_eq!(passes(&tcp_v6(&PORTS), &segment), expected);
            prop_assert!(expected || !PORTS.contains(&port) || tcp_syn::parse_v4(&packet).is_err());
        }
    }
}
