//! Raw sockets, their options and filters, opened while the process holds CAP_NET_RAW.
//!
//! A raw socket receives from the moment it exists. So each gets a filter that drops everything first, is drained of
//! what had slipped in before, and only then gets its real filter ([`super::filter`]).
//!
//! Modes for processes without the privilege (ping sockets, `connect`) will be further ways to fill a [`Channel`].

#![allow(unsafe_code)]

use std::{
    io, mem,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::{AsRawFd, RawFd},
};

use leeward_common::report::ProbeKind;
use socket2::{Domain, Protocol, Socket, Type};

use super::filter;
use crate::{
    probe::icmp::{v4, v6},
    probe::token::TokenKey,
    prober::{Family, ProberConfig},
};

/// Room for answers while the probe thread does not run, and for transmit stamps, which are charged to it too: about
/// 5,000 small packets. The kernel grants less where `net.core.rmem_max` says so.
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;

/// A socket that could not be opened, and why.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Missing {
    /// For which probes.
    pub kind: ProbeKind,
    /// Of which family.
    pub family: Family,
    /// What the kernel refused.
    pub reason: String,
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "no {} probes over {}: {}",
            self.kind,
            self.family.as_str(),
            self.reason
        )
    }
}

/// Not one socket could be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The process lacks the privilege.
    #[error(
        "cannot open raw sockets without CAP_NET_RAW; run as a systemd service with AmbientCapabilities=CAP_NET_RAW, as root, or after `setcap cap_net_raw+p` on the binary"
    )]
    NotPermitted,
    /// Something else, for each kind and family.
    #[error("cannot open any probe socket: {}", list(.0))]
    Nothing(Vec<Missing>),
}

fn list(missing: &[Missing]) -> String {
    missing
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

/// One open socket.
#[derive(Debug)]
pub struct Channel {
    socket: Socket,
    /// What is probed through it.
    pub kind: ProbeKind,
    /// Of which family it is.
    pub family: Family,
    /// The receive buffer that the kernel granted, bytes.
    pub receive_buffer_bytes: usize,
}

impl AsRawFd for Channel {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// The sockets of a prober.
#[derive(Debug)]
pub struct Sockets {
    channels: Vec<Channel>,
    missing: Vec<Missing>,
}

impl Sockets {
    /// Opens a raw socket for each kind and family. Some may be missing, for example where there is no IPv6.
    ///
    /// # Errors
    ///
    /// Returns why, when not one could be opened.
    pub fn open(config: &ProberConfig) -> Result<Self, OpenError> {
        let (mut channels, mut missing) = (Vec::new(), Vec::new());
        let mut not_permitted = 0;
        // From which port STAMP probes leave, by family: ICMP errors quote it.
        let mut stamp_ports = [0; 2];
        for kind in [ProbeKind::Stamp, ProbeKind::Icmp, ProbeKind::TcpSyn] {
            for family in [Family::V4, Family::V6] {
                let stamp_port = stamp_ports[family as usize];
                match Channel::open(kind, family, config, stamp_port) {
                    Ok(channel) => {
                        if kind == ProbeKind::Stamp {
                            stamp_ports[family as usize] = channel.port();
                        }
                        channels.push(channel);
                    }
                    Err(error) => {
                        not_permitted +=
                            usize::from(error.kind() == io::ErrorKind::PermissionDenied);
                        missing.push(Missing {
                            kind,
                            family,
                            reason: error.to_string(),
                        });
                    }
                }
            }
        }
        let raw = |channel: &Channel| channel.kind != ProbeKind::Stamp;
        if !channels.iter().any(raw) && not_permitted == missing.len() {
            return Err(OpenError::NotPermitted);
        }
        if channels.is_empty() {
            return Err(OpenError::Nothing(missing));
        }
        Ok(Self { channels, missing })
    }

    /// The open ones.
    #[must_use]
    pub fn channels(&self) -> &[Channel] {
        &self.channels
    }

    /// The open ones, for use.
    pub(crate) fn into_channels(self) -> Vec<Channel> {
        self.channels
    }

    /// Those that could not be opened, and why.
    #[must_use]
    pub fn missing(&self) -> &[Missing] {
        &self.missing
    }

    /// Whether there is a socket for such probes.
    #[must_use]
    pub fn has(&self, kind: ProbeKind, family: Family) -> bool {
        self.channels
            .iter()
            .any(|channel| channel.kind == kind && channel.family == family)
    }
}

impl Channel {
    /// `stamp_port` is where STAMP probes of this family leave from; ICMP errors about them are let through.
    fn open(
        kind: ProbeKind,
        family: Family,
        config: &ProberConfig,
        stamp_port: u16,
    ) -> io::Result<Self> {
        let (socket_type, protocol) = match (kind, family) {
            (ProbeKind::Icmp, Family::V4) => (Type::RAW, Protocol::ICMPV4),
            (ProbeKind::Icmp, Family::V6) => (Type::RAW, Protocol::ICMPV6),
            (ProbeKind::TcpSyn, _) => (Type::RAW, Protocol::TCP),
            (ProbeKind::Stamp, _) => (Type::DGRAM, Protocol::UDP),
        };
        let socket = Socket::new(domain(family), socket_type, Some(protocol))?;
        socket.attach_filter(&filter::nothing())?;
        socket.set_nonblocking(true)?;
        let bind = match family {
            Family::V4 => config.bind_v4.map(IpAddr::V4),
            Family::V6 => config.bind_v6.map(IpAddr::V6),
        };
        match (bind, kind) {
            (Some(address), _) => socket.bind(&SocketAddr::new(address, 0).into())?,
            // The kernel chooses a port that nobody else has.
            (None, ProbeKind::Stamp) => socket.bind(&SocketAddr::new(any(family), 0).into())?,
            (None, ProbeKind::Icmp | ProbeKind::TcpSyn) => {}
        }
        let receive_buffer_bytes = prepare(&socket)?;
        let ident = TokenKey::new(config.secret).ident();
        let ports = &config.syn_source_ports;
        match (kind, family) {
            (ProbeKind::Icmp, Family::V4) => {
                let passed = [
                    v4::ECHO_REPLY,
                    v4::UNREACHABLE,
                    v4::TIME_EXCEEDED,
                    v4::PARAMETER_PROBLEM,
                ];
                let blocked = passed
                    .iter()
                    .fold(u32::MAX, |mask, &number| mask & !(1u32 << number));
                set_option(&socket, libc::SOL_RAW, ICMP_FILTER, &blocked)?;
                drain(&socket)?;
                socket.attach_filter(&filter::icmp_v4(ident, ports, stamp_port))?;
            }
            (ProbeKind::Icmp, Family::V6) => {
                let mut blocked = [u32::MAX; 8];
                let passed = [
                    v6::UNREACHABLE,
                    v6::TOO_BIG,
                    v6::TIME_EXCEEDED,
                    v6::PARAMETER_PROBLEM,
                    v6::ECHO_REPLY,
                ];
                for number in passed {
                    blocked[usize::from(number >> 5)] &= !(1 << (number & 31));
                }
                set_option(&socket, libc::IPPROTO_ICMPV6, ICMP6_FILTER, &blocked)?;
                drain(&socket)?;
                socket.attach_filter(&filter::icmp_v6(ident, ports, stamp_port))?;
            }
            (ProbeKind::TcpSyn, Family::V4) => {
                drain(&socket)?;
                socket.attach_filter(&filter::tcp_v4(ports))?;
            }
            (ProbeKind::TcpSyn, Family::V6) => {
                // The kernel knows the source address and fills in the checksum, 16 bytes into the header.
                set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_CHECKSUM, &16i32)?;
                drain(&socket)?;
                socket.attach_filter(&filter::tcp_v6(ports))?;
            }
            // Nothing but what is addressed to its port comes to a UDP socket.
            (ProbeKind::Stamp, _) => {
                drain(&socket)?;
                socket.detach_filter()?;
            }
        }
        Ok(Self {
            socket,
            kind,
            family,
            receive_buffer_bytes,
        })
    }

    /// The port that it is bound to; 0 for raw ones.
    fn port(&self) -> u16 {
        let address = self.socket.local_addr().ok();
        let address = address.and_then(|address| address.as_socket());
        address.map_or(0, |address| address.port())
    }

    /// Makes the kernel count transmit stamps from 0 again: after a send that failed, kernels differ in whether it
    /// was counted.
    ///
    /// # Errors
    ///
    /// Returns the kernel's refusal.
    pub fn restart_stamps(&self) -> io::Result<()> {
        restart_stamps(&self.socket)
    }
}

pub(super) fn restart_stamps(socket: &Socket) -> io::Result<()> {
    set_option(socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPING, &0u32)?;
    enable_stamps(socket.as_raw_fd())
}

pub(super) const fn domain(family: Family) -> Domain {
    match family {
        Family::V4 => Domain::IPV4,
        Family::V6 => Domain::IPV6,
    }
}

/// Every address of a family.
pub(super) const fn any(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

/// Room for what comes, a count of what there was no room for, and time stamps in both directions. Returns the receive
/// buffer that the kernel granted, bytes.
pub(super) fn prepare(socket: &Socket) -> io::Result<usize> {
    let receive_buffer_bytes = grow_receive_buffer(socket)?;
    set_option(socket, libc::SOL_SOCKET, libc::SO_RXQ_OVFL, &1i32)?;
    enable_stamps(socket.as_raw_fd())?;
    Ok(receive_buffer_bytes)
}

/// `linux/icmp.h`, `linux/icmpv6.h`; both filters name what is *blocked*.
const ICMP_FILTER: libc::c_int = 1;
const ICMP6_FILTER: libc::c_int = 1;

/// Software stamps in both directions, counted per socket, without a copy of the packet.
fn enable_stamps(fd: RawFd) -> io::Result<()> {
    let flags: u32 = libc::SOF_TIMESTAMPING_RX_SOFTWARE
        | libc::SOF_TIMESTAMPING_TX_SOFTWARE
        | libc::SOF_TIMESTAMPING_SOFTWARE
        | libc::SOF_TIMESTAMPING_OPT_ID
        | libc::SOF_TIMESTAMPING_OPT_TSONLY;
    set_option_fd(fd, libc::SOL_SOCKET, libc::SO_TIMESTAMPING, &flags)
}

/// Asks beyond the system's limit first (needs CAP_NET_ADMIN), then within it; returns what was granted.
fn grow_receive_buffer(socket: &Socket) -> io::Result<usize> {
    let wanted = RECEIVE_BUFFER_BYTES as libc::c_int;
    if set_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &wanted).is_err() {
        socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
    }
    socket.recv_buffer_size()
}

fn drain(socket: &Socket) -> io::Result<()> {
    let mut byte = [mem::MaybeUninit::uninit(); 1];
    loop {
        match socket.recv(&mut byte) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

pub(super) fn set_option<T: OptionValue>(
    socket: &Socket,
    level: libc::c_int,
    name: libc::c_int,
    value: &T,
) -> io::Result<()> {
    set_option_fd(socket.as_raw_fd(), level, name, value)
}

fn set_option_fd<T: OptionValue>(
    fd: RawFd,
    level: libc::c_int,
    name: libc::c_int,
    value: &T,
) -> io::Result<()> {
    let length = mem::size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` is a live value without padding (`OptionValue`) of the stated length, which the kernel only reads.
    let result = unsafe { libc::setsockopt(fd, level, name, (&raw const *value).cast(), length) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Types without padding that socket options take.
pub(super) trait OptionValue {}
impl OptionValue for i32 {}
impl OptionValue for u32 {}
impl OptionValue for [u32; 8] {}

/// The source address that the kernel would choose for packets to `to`; SYN probes need it for their checksum on
/// IPv4. Nothing is sent.
///
/// # Errors
///
/// Returns the kernel's refusal: there is no route.
pub fn source_towards(to: Ipv4Addr) -> io::Result<Ipv4Addr> {
    // A fresh socket each time: one that was connected before keeps its source address.
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    // Any port will do; 9 is the discard service's.
    socket.connect((to, 9))?;
    match socket.local_addr()? {
        SocketAddr::V4(address) => Ok(*address.ip()),
        SocketAddr::V6(_) => Err(io::ErrorKind::InvalidData.into()),
    }
}
