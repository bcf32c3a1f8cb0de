//! What keeps strangers from the TCP connections of routers: the distance of the sender (GTSM, RFC 5082), and signed segments
//! (TCP-MD5, RFC 2385).

use std::{io, net::IpAddr, os::fd::AsFd};

use socket2::{SockRef, Socket};

use super::sockets::{self, OptionValue};

/// The longest key that the kernel takes.
pub const MD5_KEY_MAX: usize = 80;

/// What arrives must have been sent by a neighbour on the link, and so must what leaves.
///
/// # Errors
///
/// Returns the kernel's refusal.
pub fn require_neighbour(socket: &impl AsFd, peer: IpAddr) -> io::Result<()> {
    let socket = SockRef::from(socket);
    let options = match peer {
        IpAddr::V4(_) => [
            (libc::IPPROTO_IP, libc::IP_TTL),
            (libc::IPPROTO_IP, libc::IP_MINTTL),
        ],
        IpAddr::V6(_) => [
            (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS),
            (libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT),
        ],
    };
    let set = |(level, name)| sockets::set_option(&socket, level, name, &255i32);
    options.into_iter().try_for_each(set)
}

/// What leaves was sent by a neighbour on the link. On a socket that listens this holds for its first answer too, which is all that
/// a peer hears who asks for that before it connects. `is_v6` is whether the socket speaks IPv6.
///
/// # Errors
///
/// Returns the kernel's refusal.
pub fn be_neighbour(socket: &impl AsFd, is_v6: bool) -> io::Result<()> {
    let socket = SockRef::from(socket);
    if is_v6 {
        socket.set_unicast_hops_v6(255)?;
    }
    // A socket that speaks IPv6 speaks IPv4 too.
    sockets::set_option(&socket, libc::IPPROTO_IP, libc::IP_TTL, &255i32)
}

/// From now on segments from and to this peer are signed. `is_v6` is whether the socket speaks IPv6.
///
/// # Errors
///
/// Returns that the key is too long, or the kernel's refusal: it may be built without TCP-MD5.
pub fn sign(socket: &Socket, is_v6: bool, peer: IpAddr, key: &[u8]) -> io::Result<()> {
    let mut signature = Md5 {
        address: [0; 128],
        flags: 0,
        prefix: 0,
        length: u16::try_from(key.len()).unwrap_or(u16::MAX),
        interface: 0,
        key: [0; MD5_KEY_MAX],
    };
    let room = signature.key.get_mut(..key.len());
    room.ok_or(io::ErrorKind::InvalidInput)?
        .copy_from_slice(key);
    // A sockaddr_in or sockaddr_in6; a port of 0 is any.
    let (family, at, address): (libc::c_int, usize, Vec<u8>) = match (peer, is_v6) {
        (IpAddr::V4(peer), false) => (libc::AF_INET, 4, peer.octets().to_vec()),
        (IpAddr::V4(peer), true) => (libc::AF_INET6, 8, peer.to_ipv6_mapped().octets().to_vec()),
        (IpAddr::V6(peer), _) => (libc::AF_INET6, 8, peer.octets().to_vec()),
    };
    let family = u16::try_from(family).unwrap_or_default();
    signature.address[..2].copy_from_slice(&family.to_ne_bytes());
    signature.address[at..at + address.len()].copy_from_slice(&address);
    sockets::set_option(socket, libc::IPPROTO_TCP, libc::TCP_MD5SIG, &signature)
}

/// The kernel's `struct tcp_md5sig`.
#[repr(C, align(8))]
struct Md5 {
    address: [u8; 128],
    flags: u8,
    prefix: u8,
    length: u16,
    interface: i32,
    key: [u8; MD5_KEY_MAX],
}

// No padding: 128 + 1 + 1 + 2 + 4 + 80 bytes are a multiple of eight.
impl OptionValue for Md5 {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_structure_has_no_padding() {
        assert_eq!(size_of::<Md5>(), 216);
    }

    #[test]
    fn a_key_that_is_too_long_is_refused() {
        let socket = Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let error = sign(&socket, false, IpAddr::from([10, 0, 0, 1]), &[7; 81]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
