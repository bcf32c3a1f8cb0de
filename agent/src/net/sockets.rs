//! The prober's sockets: raw ones while the process holds CAP_NET_RAW, without it what the kernel lets anybody have.
//!
//! ```text
//!              with CAP_NET_RAW      without
//!  STAMP       UDP                   UDP                     one socket for each flow: the port is what differs
//!  ICMP        raw                   ping socket             if net.ipv4.ping_group_range allows; one for each flow
//!  TCP SYN     raw                   connect ([`Connector`])   each probe is a connection, and a flow of its own
//! ```
//!
//! A raw socket receives from the moment it exists. So each gets a filter that drops everything first, is drained of
//! what had slipped in before, and only then gets its real filter ([`super::filter`]). What is lost without the privilege:
//! nobody tells of ICMP errors, so what they are about ends as lost.

#![allow(unsafe_code)]

use std::{
    io, mem,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::{AsRawFd, RawFd},
};

use leeward_common::report::ProbeKind;
use socket2::{Domain, Protocol, Socket, Type};

use super::{card, connecting::Connector, filter, tracing::TraceSockets};
use crate::{
    flow,
    probe::icmp::{v4, v6},
    probe::token::TokenKey,
    prober::{Family, ProberConfig},
};

/// Room for answers while the probe thread does not run, and for transmit stamps, which are charged to it too: about
/// 5,000 small packets. The kernel grants less where `net.core.rmem_max` says so.
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;

/// How probes of a kind leave.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mode {
    /// By a raw socket.
    Raw,
    /// By ping sockets, which need no privilege but a group that the kernel allows.
    Ping,
    /// By `connect`, which needs nothing: the kernel's own round-trip time of the handshake.
    Connect,
    /// By UDP sockets.
    Udp,
}

impl Mode {
    /// The name used in messages and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Ping => "ping",
            Self::Connect => "connect",
            Self::Udp => "udp",
        }
    }
}

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
#[error("cannot open any probe socket: {}", list(.0))]
pub struct OpenError(Vec<Missing>);

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
    /// How.
    pub mode: Mode,
    /// Whether the kernel takes a flow label with each packet.
    pub takes_labels: bool,
    /// Whether stamps of cards are asked for beside the kernel's.
    pub by_card: bool,
    /// The receive buffer that the kernel granted, bytes.
    pub receive_buffer_bytes: usize,
}

impl AsRawFd for Channel {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// The sockets of a prober.
#[derive(Debug, Default)]
pub struct Sockets {
    channels: Vec<Channel>,
    cards: Vec<String>,
    connectors: Vec<Connector>,
    missing: Vec<Missing>,
    tracing: TraceSockets,
}

impl Sockets {
    /// Opens what there is for each kind and family: the best that the process may. Some may be missing, for example where
    /// there is no IPv6.
    ///
    /// # Errors
    ///
    /// Returns why, when not one could be opened.
    pub fn open(config: &ProberConfig) -> Result<Self, OpenError> {
        let mut sockets = Self::default();
        for kind in [ProbeKind::Stamp, ProbeKind::Icmp, ProbeKind::TcpSyn] {
            for family in [Family::V4, Family::V6] {
                if let Err(error) = sockets.open_best(kind, family, config) {
                    sockets.missing.push(Missing {
                        kind,
                        family,
                        reason: error.to_string(),
                    });
                }
            }
        }
        if sockets.channels.is_empty() && sockets.connectors.is_empty() {
            return Err(OpenError(sockets.missing));
        }
        sockets.ask_cards();
        let stamp_ports = [Family::V4, Family::V6].map(|family| sockets.stamp_ports(family));
        sockets.tracing = TraceSockets::open(config, stamp_ports);
        Ok(sockets)
    }

    /// Asks for the stamps of cards, where this host has such that give them.
    fn ask_cards(&mut self) {
        self.cards = card::stamping();
        if self.cards.is_empty() {
            return;
        }
        for channel in &mut self.channels {
            let asked = enable_stamps(channel.socket.as_raw_fd(), By::KernelAndCard);
            channel.by_card = asked.is_ok();
        }
    }

    /// The network cards whose own stamps are used, by name.
    #[must_use]
    pub fn cards(&self) -> &[String] {
        &self.cards
    }

    /// The best mode that the kernel allows.
    fn open_best(
        &mut self,
        kind: ProbeKind,
        family: Family,
        config: &ProberConfig,
    ) -> io::Result<()> {
        if kind == ProbeKind::Stamp {
            return self.open_each_flow(|| Channel::open_plain(kind, family, config));
        }
        // From which ports STAMP probes leave: ICMP errors quote them.
        let stamp_ports = self.stamp_ports(family);
        let denied = match Channel::open_raw(kind, family, config, &stamp_ports) {
            Ok(channel) => {
                self.channels.push(channel);
                return Ok(());
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => error,
            Err(error) => return Err(error),
        };
        let instead = match kind {
            ProbeKind::TcpSyn => Connector::open(family, bound_to(family, config))
                .map(|connector| self.connectors.push(connector)),
            _ => self.open_each_flow(|| Channel::open_plain(kind, family, config)),
        };
        instead.map_err(|error| {
            let other = match kind {
                ProbeKind::TcpSyn => "connections cannot be watched",
                _ => "net.ipv4.ping_group_range may not include this process's group",
            };
            let text = format!("raw sockets need CAP_NET_RAW ({denied}), and {other} ({error})");
            io::Error::new(error.kind(), text)
        })
    }

    /// All or none.
    fn open_each_flow(&mut self, open: impl Fn() -> io::Result<Channel>) -> io::Result<()> {
        let opened: io::Result<Vec<Channel>> = (0..flow::MAX).map(|_| open()).collect();
        self.channels.extend(opened?);
        Ok(())
    }

    fn stamp_ports(&self, family: Family) -> Vec<u16> {
        let leaving =
            |channel: &&Channel| (channel.kind, channel.family) == (ProbeKind::Stamp, family);
        let channels = self.channels.iter().filter(leaving);
        channels.map(Channel::port).collect()
    }

    /// The open ones. Where a kind has one for each flow they stand in the order of the flows.
    #[must_use]
    pub fn channels(&self) -> &[Channel] {
        &self.channels
    }

    /// The open ones, for use, and what connects.
    pub(crate) fn into_parts(self) -> (Vec<Channel>, Vec<Connector>) {
        (self.channels, self.connectors)
    }

    /// Those of traces; none are left behind.
    pub fn take_tracing(&mut self) -> TraceSockets {
        std::mem::take(&mut self.tracing)
    }

    /// Those that could not be opened, and why.
    #[must_use]
    pub fn missing(&self) -> &[Missing] {
        &self.missing
    }

    /// How such probes leave; `None` if they cannot.
    #[must_use]
    pub fn mode(&self, kind: ProbeKind, family: Family) -> Option<Mode> {
        let by_socket = self
            .channels
            .iter()
            .find(|channel| channel.kind == kind && channel.family == family);
        let connects = || {
            kind == ProbeKind::TcpSyn && self.connectors.iter().any(|own| own.family() == family)
        };
        by_socket
            .map(|channel| channel.mode)
            .or_else(|| connects().then_some(Mode::Connect))
    }

    /// Whether every kind over this family has the mode that the privilege gives.
    #[must_use]
    pub fn is_privileged(&self, family: Family) -> bool {
        [ProbeKind::Icmp, ProbeKind::TcpSyn]
            .iter()
            .all(|&kind| self.mode(kind, family) == Some(Mode::Raw))
    }
}

fn bound_to(family: Family, config: &ProberConfig) -> Option<IpAddr> {
    match family {
        Family::V4 => config.bind_v4.map(IpAddr::V4),
        Family::V6 => config.bind_v6.map(IpAddr::V6),
    }
}

impl Channel {
    /// A UDP socket for STAMP, or a ping socket for ICMP: nothing comes to them but what is meant for them.
    fn open_plain(kind: ProbeKind, family: Family, config: &ProberConfig) -> io::Result<Self> {
        let (protocol, mode) = match (kind, family) {
            (ProbeKind::Icmp, Family::V4) => (Protocol::ICMPV4, Mode::Ping),
            (ProbeKind::Icmp, Family::V6) => (Protocol::ICMPV6, Mode::Ping),
            _ => (Protocol::UDP, Mode::Udp),
        };
        let socket = Socket::new(domain(family), Type::DGRAM, Some(protocol))?;
        socket.set_nonblocking(true)?;
        let receive_buffer_bytes = prepare(&socket)?;
        let address = bound_to(family, config).unwrap_or_else(|| any(family));
        // The kernel chooses a port, or an identifier, that nobody else has.
        socket.bind(&SocketAddr::new(address, 0).into())?;
        Ok(Self {
            takes_labels: takes_labels(&socket, family),
            socket,
            kind,
            family,
            mode,
            by_card: false,
            receive_buffer_bytes,
        })
    }

    /// `stamp_ports` are where STAMP probes of this family leave from; ICMP errors about them are let through.
    fn open_raw(
        kind: ProbeKind,
        family: Family,
        config: &ProberConfig,
        stamp_ports: &[u16],
    ) -> io::Result<Self> {
        let socket = closed_raw(kind, family)?;
        if let Some(address) = bound_to(family, config) {
            socket.bind(&SocketAddr::new(address, 0).into())?;
        }
        let receive_buffer_bytes = prepare(&socket)?;
        let ident = TokenKey::new(config.secret).ident();
        let ports = &config.syn_source_ports;
        let filter = match (kind, family) {
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
                filter::icmp_v4(ident, ports, stamp_ports)
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
                filter::icmp_v6(ident, ports, stamp_ports)
            }
            (_, Family::V4) => filter::tcp_v4(ports),
            (_, Family::V6) => {
                // The kernel knows the source address and fills in the checksum, 16 bytes into the header.
                set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_CHECKSUM, &16i32)?;
                filter::tcp_v6(ports)
            }
        };
        drain(&socket)?;
        socket.attach_filter(&filter)?;
        Ok(Self {
            takes_labels: takes_labels(&socket, family),
            socket,
            kind,
            family,
            mode: Mode::Raw,
            by_card: false,
            receive_buffer_bytes,
        })
    }

    /// The port that it is bound to, of ping sockets the identifier; 0 for raw ones.
    #[must_use]
    pub fn port(&self) -> u16 {
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
        let by = if self.by_card {
            By::KernelAndCard
        } else {
            By::Kernel
        };
        restart(&self.socket, by)
    }
}

/// Asks that the flow label of each packet be that of its address. A kernel that refuses chooses labels itself.
pub(super) fn takes_labels(socket: &Socket, family: Family) -> bool {
    const IPV6_FLOWINFO_SEND: libc::c_int = 33;
    family == Family::V6
        && set_option(socket, libc::IPPROTO_IPV6, IPV6_FLOWINFO_SEND, &1i32).is_ok()
}

pub(super) fn restart_stamps(socket: &Socket) -> io::Result<()> {
    restart(socket, By::Kernel)
}

fn restart(socket: &Socket, by: By) -> io::Result<()> {
    set_option(socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPING, &0u32)?;
    enable_stamps(socket.as_raw_fd(), by)
}

/// A raw socket for packets of a kind that nothing passes into yet.
pub(super) fn closed_raw(kind: ProbeKind, family: Family) -> io::Result<Socket> {
    let protocol = match (kind, family) {
        (ProbeKind::Icmp, Family::V4) => Protocol::ICMPV4,
        (ProbeKind::Icmp, Family::V6) => Protocol::ICMPV6,
        (ProbeKind::TcpSyn, _) => Protocol::TCP,
        (ProbeKind::Stamp, _) => Protocol::UDP,
    };
    let socket = Socket::new(domain(family), Type::RAW, Some(protocol))?;
    socket.attach_filter(&filter::nothing())?;
    socket.set_nonblocking(true)?;
    Ok(socket)
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
    enable_stamps(socket.as_raw_fd(), By::Kernel)?;
    Ok(receive_buffer_bytes)
}

/// `linux/icmp.h`, `linux/icmpv6.h`; both filters name what is *blocked*.
const ICMP_FILTER: libc::c_int = 1;
const ICMP6_FILTER: libc::c_int = 1;

/// Who stamps packets.
#[derive(Clone, Copy)]
enum By {
    Kernel,
    /// Of a packet that leaves each sends a message of its own.
    KernelAndCard,
}

/// Stamps in both directions, counted per socket, without a copy of the packet.
fn enable_stamps(fd: RawFd, by: By) -> io::Result<()> {
    let card = match by {
        By::Kernel => 0,
        By::KernelAndCard => {
            libc::SOF_TIMESTAMPING_RX_HARDWARE
                | libc::SOF_TIMESTAMPING_TX_HARDWARE
                | libc::SOF_TIMESTAMPING_RAW_HARDWARE
                | libc::SOF_TIMESTAMPING_OPT_TX_SWHW
        }
    };
    let flags: u32 = card
        | libc::SOF_TIMESTAMPING_RX_SOFTWARE
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

pub(super) fn drain(socket: &Socket) -> io::Result<()> {
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
