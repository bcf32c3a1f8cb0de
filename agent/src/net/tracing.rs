//! The sockets of traces: beside those of the prober, so that a trace neither waits for it nor holds it up.
//!
//! They carry the prober's own flows (its ICMP identifier, its source ports), each packet with a time to live of its own
//! and none that may be fragmented.

#![allow(unsafe_code)]

use std::{
    ffi::CStr,
    io, mem,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket},
    os::fd::{AsRawFd, RawFd},
    ptr,
};

use leeward_common::report::ProbeKind;
use socket2::Socket;

use super::{
    filter,
    message::{self, ipv4},
    sockets::{any, closed_raw, drain, prepare, restart_stamps, set_option, takes_labels},
};
use crate::prober::{Family, ProberConfig};

/// One raw socket of traces.
#[derive(Debug)]
pub struct TraceSocket {
    socket: Socket,
    /// What is sent and received through it: echo and ICMP errors, TCP, or UDP.
    pub kind: ProbeKind,
    /// Its family.
    pub family: Family,
    /// Whether the kernel takes a flow label with each packet.
    takes_labels: bool,
}

/// The raw sockets of traces, those that could be opened.
#[derive(Debug, Default)]
pub struct TraceSockets {
    sockets: Vec<TraceSocket>,
    /// From which ports STAMP probes leave, by family: that of the first flow first.
    stamp_ports: [Vec<u16>; 2],
}

impl AsRawFd for TraceSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl TraceSockets {
    /// Opens what can be opened, while the process may.
    #[must_use]
    pub(super) fn open(config: &ProberConfig, stamp_ports: [Vec<u16>; 2]) -> Self {
        let mut sockets = Vec::new();
        for kind in ProbeKind::ALL {
            for family in [Family::V4, Family::V6] {
                let opened = TraceSocket::open(kind, family, config, &stamp_ports[family as usize]);
                sockets.extend(opened.ok());
            }
        }
        let opened = Self {
            sockets,
            stamp_ports,
        };
        opened.rest();
        opened
    }

    /// Lets nothing in until the next trace: what comes for the prober would be copied to them all the time.
    pub fn rest(&self) {
        self.sockets.iter().for_each(|own| {
            // An own address that nobody writes to; a host without it only works more.
            let nowhere: IpAddr = match own.family {
                Family::V4 => Ipv4Addr::LOCALHOST.into(),
                Family::V6 => Ipv6Addr::LOCALHOST.into(),
            };
            let _ = own.socket.bind(&SocketAddr::new(nowhere, 0).into());
        });
    }

    /// Lets in what comes to this own address.
    pub fn attend(&self, own: IpAddr) {
        let fits = |socket: &&TraceSocket| socket.family == Family::of(&own);
        self.sockets.iter().filter(fits).for_each(|socket| {
            // Where it fails nothing is heard, which the trace shows.
            let _ = socket.socket.bind(&SocketAddr::new(own, 0).into());
        });
    }

    /// The socket of a kind and a family.
    #[must_use]
    pub fn get(&self, kind: ProbeKind, family: Family) -> Option<&TraceSocket> {
        let fits = |own: &&TraceSocket| (own.kind, own.family) == (kind, family);
        self.sockets.iter().find(fits)
    }

    /// From which port STAMP probes of the first flow leave.
    #[must_use]
    pub fn stamp_port(&self, family: Family) -> Option<u16> {
        self.stamp_ports[family as usize].first().copied()
    }

    /// Whether such probes can be traced: errors about them come to the ICMP socket.
    #[must_use]
    pub fn has(&self, kind: ProbeKind, family: Family) -> bool {
        let has = |kind| self.get(kind, family).is_some();
        let has_port = kind != ProbeKind::Stamp || self.stamp_port(family).is_some();
        has(kind) && has(ProbeKind::Icmp) && has_port
    }
}

impl TraceSocket {
    fn open(
        kind: ProbeKind,
        family: Family,
        config: &ProberConfig,
        stamp_ports: &[u16],
    ) -> io::Result<Self> {
        let socket = closed_raw(kind, family)?;
        prepare(&socket)?;
        never_fragment(&socket, family)?;
        let checksum_at = match kind {
            ProbeKind::TcpSyn => Some(16i32),
            ProbeKind::Stamp => Some(6),
            ProbeKind::Icmp => None,
        };
        if let (Family::V6, Some(at)) = (family, checksum_at) {
            // The kernel knows the source address and fills in the checksum.
            set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_CHECKSUM, &at)?;
        }
        drain(&socket)?;
        let ident = crate::probe::token::TokenKey::new(config.secret).ident();
        let ports = &config.syn_source_ports;
        socket.attach_filter(&match (kind, family) {
            (ProbeKind::Icmp, Family::V4) => filter::icmp_v4(ident, ports, stamp_ports),
            (ProbeKind::Icmp, Family::V6) => filter::icmp_v6(ident, ports, stamp_ports),
            (ProbeKind::TcpSyn, Family::V4) => filter::tcp_v4(ports),
            (ProbeKind::TcpSyn, Family::V6) => filter::tcp_v6(ports),
            (ProbeKind::Stamp, Family::V4) => filter::udp_v4(stamp_ports),
            (ProbeKind::Stamp, Family::V6) => filter::udp_v6(stamp_ports),
        })?;
        Ok(Self {
            takes_labels: takes_labels(&socket, family),
            socket,
            kind,
            family,
        })
    }

    /// Sends one packet, from its transport header on, with this many routers to go; over IPv6 with this flow label.
    ///
    /// # Errors
    ///
    /// Returns the kernel's refusal; one that is too long for the interface is refused, never fragmented.
    pub fn send(
        &self,
        to: IpAddr,
        source: Option<IpAddr>,
        (ttl, label): (u8, u32),
        packet: &[u8],
    ) -> io::Result<()> {
        match self.family {
            Family::V4 => self.socket.set_ttl_v4(ttl.into())?,
            Family::V6 => self.socket.set_unicast_hops_v6(ttl.into())?,
        }
        if let (true, IpAddr::V6(to)) = (self.takes_labels, to) {
            let labelled = SocketAddrV6::new(to, 0, label, 0);
            match message::send(self.as_raw_fd(), labelled.into(), source, packet) {
                // Somebody on this host reserves labels for himself: then the kernel chooses one.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {}
                other => return other,
            }
        }
        message::send(self.as_raw_fd(), SocketAddr::new(to, 0), source, packet)
    }

    /// Makes the kernel count transmit stamps from 0 again, after a send that failed.
    ///
    /// # Errors
    ///
    /// Returns the kernel's refusal.
    pub fn restart_stamps(&self) -> io::Result<()> {
        restart_stamps(&self.socket)
    }
}

/// Don't fragment, and don't look at what the kernel remembers of the path: that is what is to be found out.
fn never_fragment(socket: &Socket, family: Family) -> io::Result<()> {
    match family {
        Family::V4 => {
            let probe = libc::IP_PMTUDISC_PROBE;
            set_option(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, &probe)
        }
        Family::V6 => {
            let probe = libc::IPV6_PMTUDISC_PROBE;
            set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, &probe)?;
            set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG, &1i32)
        }
    }
}

/// The address from which the kernel would talk to this one. Nothing is sent.
///
/// # Errors
///
/// Returns the kernel's refusal: there is no route.
pub fn source_towards(to: IpAddr) -> io::Result<IpAddr> {
    let family = Family::of(&to);
    let socket = UdpSocket::bind((any(family), 0))?;
    // Any port will do; 9 is the discard service's.
    socket.connect((to, 9))?;
    Ok(socket.local_addr()?.ip())
}

/// The largest packet that the interface of an own address lets out, bytes.
///
/// # Errors
///
/// Returns the kernel's refusal, or that no interface has the address.
pub fn interface_mtu(own: IpAddr) -> io::Result<u16> {
    let mut list: *mut libc::ifaddrs = ptr::null_mut();
    // SAFETY: `list` is a live pointer that the call fills.
    if unsafe { libc::getifaddrs(&raw mut list) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut next = list;
    let mut found = Err(io::ErrorKind::AddrNotAvailable.into());
    while !next.is_null() {
        // SAFETY: an entry of the list, which lives until it is freed below.
        let entry = unsafe { &*next };
        if address_of(entry) == Some(own) {
            // SAFETY: every entry has a name that ends with a zero.
            found = mtu_of(unsafe { CStr::from_ptr(entry.ifa_name) });
            break;
        }
        next = entry.ifa_next;
    }
    // SAFETY: the list that the call above made; nothing refers to it any more.
    unsafe { libc::freeifaddrs(list) };
    found
}

fn address_of(entry: &libc::ifaddrs) -> Option<IpAddr> {
    if entry.ifa_addr.is_null() {
        return None;
    }
    // SAFETY: a socket address that is not null begins with its family.
    match libc::c_int::from(unsafe { (*entry.ifa_addr).sa_family }) {
        libc::AF_INET => {
            // SAFETY: of this family it is a sockaddr_in; the read asks for no alignment.
            let name: libc::sockaddr_in = unsafe { ptr::read_unaligned(entry.ifa_addr.cast()) };
            Some(ipv4(name.sin_addr).into())
        }
        libc::AF_INET6 => {
            // SAFETY: of this family it is a sockaddr_in6; the read asks for no alignment.
            let name: libc::sockaddr_in6 = unsafe { ptr::read_unaligned(entry.ifa_addr.cast()) };
            Some(IpAddr::V6(name.sin6_addr.s6_addr.into()))
        }
        _ => None,
    }
}

fn mtu_of(interface: &CStr) -> io::Result<u16> {
    // SAFETY: all-zero is a valid ifreq: an empty name and a union of plain values.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    // The last byte stays zero.
    let room = request.ifr_name.len() - 1;
    for (place, &byte) in request.ifr_name[..room]
        .iter_mut()
        .zip(interface.to_bytes())
    {
        *place = byte.cast_signed() as libc::c_char;
    }
    let socket = UdpSocket::bind((any(Family::V4), 0))?;
    // SAFETY: the request outlives the call, which reads its name and writes its union.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFMTU as _, &raw mut request) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call filled this member of the union.
    let mtu = unsafe { request.ifr_ifru.ifru_mtu };
    Ok(u16::try_from(mtu).unwrap_or(u16::MAX))
}
