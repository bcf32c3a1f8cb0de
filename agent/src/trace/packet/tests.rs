//! The probes of a trace against routers that quote them, rightly and wrongly.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::net::Ipv6Addr;

use proptest::prelude::*;

use super::*;
use crate::probe::test_packets::{ipv4, ipv6};

const TARGET_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const TARGET_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9);
const ROUTER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

fn flow(kind: ProbeKind, is_v6: bool) -> Flow {
    let (from, to): (IpAddr, IpAddr) = match is_v6 {
        false => (Ipv4Addr::new(192, 0, 2, 1).into(), TARGET_V4.into()),
        true => (Ipv6Addr::LOCALHOST.into(), TARGET_V6.into()),
    };
    Flow {
        kind,
        from,
        to,
        source_port: 61_000,
        port: 862,
        key: TokenKey::new([7; 16]),
        stamp_key: None,
        nonce: 0x0123_4567_89ab_cdef,
    }
}

fn all() -> impl Iterator<Item = Flow> {
    let kinds = ProbeKind::ALL.into_iter();
    kinds.flat_map(|kind| [flow(kind, false), flow(kind, true)])
}

const fn protocol(flow: &Flow) -> u8 {
    match (flow.kind, flow.to.is_ipv6()) {
        (ProbeKind::Icmp, false) => 1,
        (ProbeKind::Icmp, true) => 58,
        (ProbeKind::TcpSyn, _) => 6,
        (ProbeKind::Stamp, _) => 17,
    }
}

/// An error of a router about a probe, of which it quotes so many bytes behind the IP header.
fn error(flow: &Flow, (message_type, code): (u8, u8), rest: [u8; 4], probe: &[u8]) -> Vec<u8> {
    let mut message = vec![message_type, code, 0, 0];
    message.extend(rest);
    match flow.to {
        IpAddr::V4(to) => {
            message.extend(ipv4(protocol(flow), to, 0, probe));
            ipv4(1, Ipv4Addr::LOCALHOST, 0, &message)
        }
        IpAddr::V6(to) => {
            message.extend(ipv6(protocol(flow), to, probe));
            message
        }
    }
}

fn exceeded(flow: &Flow, probe: &[u8]) -> Result<Heard, Stray> {
    let message_type = if flow.to.is_ipv6() { 3 } else { 11 };
    flow.on_icmp(ROUTER, &error(flow, (message_type, 0), [0; 4], probe))
}

#[test]
fn an_echo_request_has_these_bytes() {
    let golden = flow(ProbeKind::Icmp, false).probe(3, 0);
    let key = TokenKey::new([7; 16]);
    assert_eq!(golden.len(), 34);
    assert_eq!(golden[..2], [8, 0]);
    assert_eq!(golden[2..4], key.echo_checksum(0).to_be_bytes());
    assert_eq!(golden[4..6], key.ident_of(0).to_be_bytes());
    assert_eq!(golden[6..16], [0, 3, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 3]);
    assert_eq!(golden[16..24], 0x0123_4567_89ab_cdef_u64.to_be_bytes());
    let token = key.token(SLOT, 3, 0x0123_4567_89ab_cdef);
    assert_eq!(golden[24..32], token.to_be_bytes());
    assert_eq!(checksum(&[&golden]), 0, "a sound checksum");
}

/// What routers hash of a probe of the trace is what they hash of the prober's own first flow.
#[test]
fn a_trace_is_of_the_flow_that_is_measured() {
    let flow = flow(ProbeKind::Icmp, false);
    let own = icmp::Echo {
        ident: flow.key.ident_of(0),
        identity: flow.key.identity(3, 4, 5),
    };
    let (own, traced) = (own.encode_v4(flow.key.echo_checksum(0)), flow.probe(7, 0));
    assert_eq!(own[..6], traced[..6]);
    assert_eq!(own.len(), traced.len());
}

#[test]
fn a_router_that_quotes_the_probe_is_heard_whatever_the_kind_and_family() {
    for flow in all() {
        let probe = flow.probe(7, 0);
        let heard = exceeded(&flow, &probe).unwrap();
        assert_eq!(
            (heard.number, heard.what),
            (7, What::Says(Says::TimeExceeded)),
            "{flow:?}"
        );
    }
}

#[test]
fn eight_quoted_bytes_are_enough_where_they_say_which_probe_it_was() {
    for flow in all() {
        let told = exceeded(&flow, &flow.probe(7, 0)[..8]).map(|heard| heard.number);
        let expected = match (flow.kind, flow.to.is_ipv6()) {
            (ProbeKind::TcpSyn, _) | (ProbeKind::Icmp, false) => Ok(7),
            _ => Err(Stray::Truncated),
        };
        assert_eq!(told, expected, "{flow:?}");
        assert_eq!(
            exceeded(&flow, &flow.probe(7, 0)[..7]),
            Err(Stray::Truncated)
        );
    }
}

#[test]
fn a_wrong_token_is_no_answer() {
    for flow in all() {
        // What another process, or an earlier trace, would have sent.
        for other in [
            Flow {
                nonce: 1,
                ..flow.clone()
            },
            Flow {
                key: TokenKey::new([8; 16]),
                ..flow.clone()
            },
        ] {
            let told = exceeded(&flow, &other.probe(7, 0));
            assert!(told.is_err(), "{other:?}");
        }
    }
    let flow = flow(ProbeKind::Icmp, false);
    let mut probe = flow.probe(7, 0);
    probe[31] ^= 1;
    assert_eq!(exceeded(&flow, &probe), Err(Stray::Forged));
}

#[test]
fn what_is_about_another_flow_is_foreign() {
    for flow in all() {
        let other_port = Flow {
            port: 863,
            ..flow.clone()
        };
        let told = exceeded(&flow, &other_port.probe(7, 0));
        match flow.kind {
            ProbeKind::Icmp => assert!(told.is_ok()),
            _ => assert_eq!(told, Err(Stray::Foreign)),
        }
    }
    // The prober's own probes of the same path.
    let flow = flow(ProbeKind::Icmp, false);
    let own = icmp::Echo {
        ident: flow.key.ident_of(0),
        identity: flow.key.identity(3, 4, 5),
    };
    let own = own.encode_v4(flow.key.echo_checksum(0));
    assert_eq!(exceeded(&flow, &own), Err(Stray::Foreign));
}

#[test]
fn errors_say_what_they_say() {
    let v4 = flow(ProbeKind::TcpSyn, false);
    let v6 = flow(ProbeKind::TcpSyn, true);
    let said = |flow: &Flow, from: IpAddr, kind, rest| {
        let bytes = error(flow, kind, rest, &flow.probe(1, 0));
        flow.on_icmp(from, &bytes).unwrap().what
    };
    let cases = [
        ((3, 0), Says::NetUnreachable),
        ((3, 1), Says::HostUnreachable),
        ((3, 2), Says::OtherUnreachable),
        ((3, 3), Says::Prohibited),
        ((3, 13), Says::Prohibited),
        ((11, 0), Says::TimeExceeded),
        ((11, 1), Says::OtherUnreachable),
    ];
    for (kind, expected) in cases {
        assert_eq!(
            said(&v4, ROUTER, kind, [0; 4]),
            What::Says(expected),
            "{kind:?}"
        );
    }
    assert_eq!(
        said(&v4, v4.to, (3, 3), [0; 4]),
        What::Says(Says::PortUnreachable)
    );
    assert_eq!(
        said(&v4, ROUTER, (3, 4), [0, 0, 5, 120]),
        What::TooBig(1_400)
    );
    let cases = [
        ((1, 0), Says::NetUnreachable),
        ((1, 1), Says::Prohibited),
        ((1, 3), Says::HostUnreachable),
        ((3, 0), Says::TimeExceeded),
    ];
    for (kind, expected) in cases {
        assert_eq!(
            said(&v6, ROUTER, kind, [0; 4]),
            What::Says(expected),
            "{kind:?}"
        );
    }
    assert_eq!(
        said(&v6, v6.to, (1, 4), [0; 4]),
        What::Says(Says::PortUnreachable)
    );
    assert_eq!(
        said(&v6, ROUTER, (2, 0), [0, 0, 5, 120]),
        What::TooBig(1_400)
    );
}

#[test]
fn the_target_is_reached_by_its_own_answer_only() {
    let flow = flow(ProbeKind::Icmp, false);
    let mut reply = flow.probe(9, 1_000);
    assert_eq!(reply.len(), 1_000);
    reply[0] = 0;
    let packet = ipv4(1, Ipv4Addr::LOCALHOST, 0, &reply);
    assert_eq!(flow.on_icmp(flow.to, &packet), Ok(reached(9)));
    assert_eq!(flow.on_icmp(ROUTER, &packet), Err(Stray::Foreign));
    // A request that somebody else sends us is no reply.
    let request = ipv4(1, Ipv4Addr::LOCALHOST, 0, &flow.probe(9, 0));
    assert!(flow.on_icmp(flow.to, &request).is_err());
}

#[test]
fn a_syn_ack_and_a_stamp_reply_are_reached() {
    let flow_tcp = flow(ProbeKind::TcpSyn, true);
    let mut segment = vec![0; 20];
    segment[0..2].copy_from_slice(&862u16.to_be_bytes());
    segment[2..4].copy_from_slice(&61_000u16.to_be_bytes());
    segment[8..12].copy_from_slice(&flow_tcp.sequence(5).wrapping_add(1).to_be_bytes());
    (segment[12], segment[13]) = (5 << 4, 0x12);
    assert_eq!(flow_tcp.on_tcp(flow_tcp.to, &segment), Ok(reached(5)));
    segment[11] ^= 1;
    assert_eq!(flow_tcp.on_tcp(flow_tcp.to, &segment), Err(Stray::Forged));

    let flow = flow(ProbeKind::Stamp, true);
    let request = flow.probe(5, 0);
    let decoded = Request::decode(&request[8..], None).unwrap();
    let reply = Reply {
        sequence: 0,
        time: decoded.time,
        received: decoded.time,
        error: decoded.error,
        request: decoded,
        ttl: 60,
    };
    let mut datagram = Vec::new();
    datagram.extend(862u16.to_be_bytes());
    datagram.extend(61_000u16.to_be_bytes());
    datagram.extend([0; 4]);
    datagram.extend_from_slice(&reply.encode(None, &request[8..]));
    assert_eq!(flow.on_udp(flow.to, &datagram), Ok(reached(5)));
    assert_eq!(flow.on_udp(ROUTER, &datagram), Err(Stray::Foreign));
}

/// A time exceeded of RFC 4950: 128 quoted bytes, then an extension with two labels.
fn labelled(flow: &Flow, length_is_given: bool) -> Vec<u8> {
    let mut extension = vec![0x20, 0, 0, 0, 0, 12, 1, 1];
    extension.extend((0x12345u32 << 12 | 5 << 9 | 63).to_be_bytes());
    extension.extend((16u32 << 12 | 1 << 8 | 1).to_be_bytes());
    let sum = checksum(&[&extension]);
    extension[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut rest = [0; 4];
    if length_is_given {
        match flow.to.is_ipv6() {
            true => rest[0] = 16,
            false => rest[1] = 32,
        }
    }
    let mut probe = flow.probe(7, 0);
    probe.resize(if flow.to.is_ipv6() { 88 } else { 108 }, 0);
    probe.extend(extension);
    let message_type = if flow.to.is_ipv6() { 3 } else { 11 };
    error(flow, (message_type, 0), rest, &probe)
}

#[test]
fn label_stacks_are_read_with_and_without_a_length() {
    let expected = [
        Label {
            label: 0x12345,
            class: 5,
            ttl: 63,
        },
        Label {
            label: 16,
            class: 0,
            ttl: 1,
        },
    ];
    for flow in [flow(ProbeKind::Icmp, false), flow(ProbeKind::Icmp, true)] {
        for length_is_given in [true, false] {
            let bytes = labelled(&flow, length_is_given);
            assert_eq!(flow.on_icmp(ROUTER, &bytes).unwrap().labels, expected);
            // One that is not whole is not believed, and the hop counts all the same.
            let cut = &bytes[..bytes.len() - 4];
            assert!(flow.on_icmp(ROUTER, cut).unwrap().labels.is_empty());
        }
    }
}

#[test]
fn any_bytes_are_an_answer_or_a_stray() {
    let flows: Vec<Flow> = all().collect();
    let seeds: Vec<Vec<u8>> = flows.iter().map(|flow| labelled(flow, true)).collect();
    bolero::check!()
        .with_iterations(20_000)
        .with_type()
        .for_each(|(which, edits, bytes): &(u8, Vec<(u8, u8)>, Vec<u8>)| {
            let at = usize::from(*which) % flows.len();
            let flow = &flows[at];
            let mut seed = seeds[at].clone();
            for (place, byte) in edits {
                let place = usize::from(*place) % seed.len();
                seed[place] = *byte;
            }
            for bytes in [&seed, bytes] {
                let heard = [
                    flow.on_icmp(flow.to, bytes),
                    flow.on_tcp(flow.to, bytes),
                    flow.on_udp(flow.to, bytes),
                ];
                for heard in heard.into_iter().flatten() {
                    assert!(heard.labels.len() <= LABELS);
                }
            }
        });
}

proptest! {
    /// Routers that look at checksum, identifier or ports see one flow, whatever the number; and each number is told from
    /// every other.
    #[test]
    fn all_probes_are_one_flow(a in any::<u16>(), b in any::<u16>(), secret in any::<[u8; 16]>(), nonce in any::<u64>(), padding in 0usize..2_000) {
        for own in all() {
            let own = Flow { key: TokenKey::new(secret), nonce, ..own };
            let (first, second) = (own.probe(a, padding), own.probe(b, padding));
            prop_assert_eq!(first.len(), second.len());
            match own.kind {
                ProbeKind::Icmp => {
                    prop_assert_eq!(&first[..6], &second[..6]);
                    // Over IPv6 the kernel sums up the rest.
                    prop_assert_eq!(checksum(&[&first]), checksum(&[&second]));
                }
                ProbeKind::TcpSyn | ProbeKind::Stamp => prop_assert_eq!(&first[..4], &second[..4]),
            }
            let heard = exceeded(&own, &first[..first.len().min(64)]);
            prop_assert_eq!(heard.map(|heard| heard.number), Ok(a));
        }
    }
}
