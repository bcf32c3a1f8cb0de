//! IP headers around test packets, built by another implementation.

use std::net::{Ipv4Addr, Ipv6Addr};

use pnet_packet::{
    ip::IpNextHeaderProtocol,
    ipv4::{self, MutableIpv4Packet},
    ipv6::MutableIpv6Packet,
};

/// An IPv4 packet to `to` with `options` words of options.
pub(crate) fn ipv4(protocol: u8, to: Ipv4Addr, options: usize, payload: &[u8]) -> Vec<u8> {
    let header = 20 + 4 * options;
    let mut bytes = vec![0; header + payload.len()];
    let mut packet = MutableIpv4Packet::new(&mut bytes).unwrap();
    packet.set_version(4);
    packet.set_header_length(5 + options as u8);
    packet.set_total_length((header + payload.len()) as u16);
    packet.set_ttl(64);
    packet.set_next_level_protocol(IpNextHeaderProtocol(protocol));
    packet.set_source(Ipv4Addr::new(192, 0, 2, 99));
    packet.set_destination(to);
    let sum = ipv4::checksum(&packet.to_immutable());
    packet.set_checksum(sum);
    bytes[header..].copy_from_slice(payload);
    bytes
}

/// An IPv6 packet to `to`.
pub(crate) fn ipv6(next_header: u8, to: Ipv6Addr, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 40 + payload.len()];
    let mut packet = MutableIpv6Packet::new(&mut bytes).unwrap();
    packet.set_version(6);
    packet.set_payload_length(payload.len() as u16);
    packet.set_next_header(IpNextHeaderProtocol(next_header));
    packet.set_hop_limit(64);
    packet.set_destination(to);
    packet.set_payload(payload);
    bytes
}
