//! One packet out; many packets in, with their time stamps; transmit stamps back from the error queue.
//!
//! The kernel's headers are built anew for every call. That costs a few stores and rules out the classic mistake of
//! reusing them: a receive call *writes* the lengths of the address and of the control data, and with the lengths of
//! the last call in place the next one silently loses its time stamps.

#![allow(unsafe_code)]

use std::{
    io, mem,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    os::fd::RawFd,
    ptr,
};

use super::clock::timespec_ns;

/// Packets taken by one receive call.
pub const BATCH: usize = 32;
/// Bytes kept of a packet. The longest that is understood: an ICMP error over IPv4 with options in both headers,
/// 60 + 8 + 60 + 32; the rest of a longer packet is not needed.
const PACKET_BYTES: usize = 256;
/// Control data of one packet: a time stamp (48 to 64 bytes), an overflow count (24), an extended error (64), the address
/// that it came to (40) and its TTL (24).
const CONTROL_BYTES: usize = 256;

/// Sends one packet to an address; raw sockets want port 0. Over IPv6 the address's flow information goes with it where the
/// socket was told so. `source` pins the source address, of the same family.
///
/// # Errors
///
/// Returns the kernel's refusal.
pub fn send(fd: RawFd, to: SocketAddr, source: Option<IpAddr>, packet: &[u8]) -> io::Result<()> {
    let mut name = Name::new(to);
    let mut part = libc::iovec {
        iov_base: packet.as_ptr().cast_mut().cast(),
        iov_len: packet.len(),
    };
    let mut control = Control([0; CONTROL_BYTES]);
    // SAFETY: all-zero is a valid msghdr: null pointers with zero lengths.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    let (address, length) = name.as_raw();
    (header.msg_name, header.msg_namelen) = (address, length);
    (header.msg_iov, header.msg_iovlen) = (&raw mut part, 1);
    match source {
        Some(IpAddr::V4(source)) => {
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: in_addr(source),
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            control.put(&mut header, (libc::IPPROTO_IP, libc::IP_PKTINFO), info);
        }
        Some(IpAddr::V6(source)) => {
            let info = libc::in6_pktinfo {
                ipi6_addr: in6_addr(source),
                ipi6_ifindex: 0,
            };
            control.put(&mut header, (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO), info);
        }
        None => {}
    }
    // SAFETY: name, part, packet and control outlive the call, and their lengths are theirs. The packet is only read.
    let sent = unsafe { libc::sendmsg(fd, &raw const header, libc::MSG_DONTWAIT) };
    match usize::try_from(sent) {
        Ok(sent) if sent == packet.len() => Ok(()),
        Ok(_) => Err(io::ErrorKind::WriteZero.into()),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

/// A packet that was received.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    /// Its first bytes: from the IP header on IPv4 raw sockets, from the transport header on IPv6 ones.
    pub bytes: &'a [u8],
    /// Who sent it; raw sockets say no port.
    pub from: SocketAddr,
    /// The own address that it came to, where the socket was asked to say so.
    pub to: Option<IpAddr>,
    /// Its TTL or hop limit as it came, where the socket was asked to say so.
    pub ttl: Option<u8>,
    /// When it came off the device, nanoseconds of the wall clock; `None` if the kernel did not say.
    pub stamp_ns: Option<u64>,
    /// When it came over the wire, nanoseconds of the card's own clock; `None` if no card said so.
    pub card_ns: Option<u64>,
}

/// The kernel's word on a packet that we sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Sent {
    /// The how-manieth packet of its socket, from 0, wrapping.
    pub id: u32,
    /// When the driver took it, nanoseconds of the wall clock.
    pub stamp_ns: u64,
}

/// A card's word on a packet that we sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SentByCard {
    /// As in [`Sent`].
    pub id: u32,
    /// When it went over the wire, nanoseconds of the card's own clock.
    pub card_ns: u64,
}

#[derive(Clone, Copy)]
struct Meta {
    length: usize,
    from: Option<SocketAddr>,
    to: Option<IpAddr>,
    ttl: Option<u8>,
    stamp_ns: Option<u64>,
    card_ns: Option<u64>,
    sent_id: Option<u32>,
}

/// Room for one receive call, reused.
pub struct Inbox {
    packets: Box<[[u8; PACKET_BYTES]; BATCH]>,
    controls: Box<[Control; BATCH]>,
    names: Box<[libc::sockaddr_storage; BATCH]>,
    metas: Vec<Meta>,
    overflow: Option<u32>,
}

impl std::fmt::Debug for Inbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbox")
            .field("packets", &self.metas.len())
            .finish_non_exhaustive()
    }
}

impl Default for Inbox {
    fn default() -> Self {
        // SAFETY: sockaddr_storage is plain bytes, for which all-zero is valid.
        let names = Box::new([unsafe { mem::zeroed() }; BATCH]);
        Self {
            packets: Box::new([[0; PACKET_BYTES]; BATCH]),
            controls: Box::new([Control([0; CONTROL_BYTES]); BATCH]),
            names,
            metas: Vec::with_capacity(BATCH),
            overflow: None,
        }
    }
}

/// Which queue of a socket to take from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Queue {
    /// Packets.
    Packets,
    /// Transmit stamps.
    Errors,
}

impl Inbox {
    /// Takes what has arrived, up to `want` packets, without waiting. Returns how many came; fewer than asked for
    /// means that the queue is empty.
    ///
    /// # Errors
    ///
    /// Returns the kernel's refusal; an empty queue is no error.
    pub fn receive(&mut self, fd: RawFd, queue: Queue, want: usize) -> io::Result<usize> {
        self.metas.clear();
        let want = want.clamp(1, BATCH);
        // SAFETY: all-zero is a valid mmsghdr and a valid iovec: null pointers with zero lengths.
        let mut headers: [libc::mmsghdr; BATCH] = unsafe { mem::zeroed() };
        // SAFETY: as above.
        let mut parts: [libc::iovec; BATCH] = unsafe { mem::zeroed() };
        for at in 0..want {
            parts[at] = libc::iovec {
                iov_base: self.packets[at].as_mut_ptr().cast(),
                iov_len: PACKET_BYTES,
            };
            let header = &mut headers[at].msg_hdr;
            header.msg_name = (&raw mut self.names[at]).cast();
            header.msg_namelen = mem::size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header.msg_iov = &raw mut parts[at];
            header.msg_iovlen = 1;
            header.msg_control = self.controls[at].0.as_mut_ptr().cast();
            header.msg_controllen = CONTROL_BYTES as _;
        }
        let flags = match queue {
            Queue::Packets => libc::MSG_DONTWAIT,
            Queue::Errors => libc::MSG_DONTWAIT | libc::MSG_ERRQUEUE,
        };
        // SAFETY: the first `want` headers point at buffers of `self` and at `parts`, each of the stated length and
        // all alive and otherwise untouched until the call returns.
        let count = unsafe {
            libc::recvmmsg(
                fd,
                headers.as_mut_ptr(),
                want as libc::c_uint,
                flags as _,
                ptr::null_mut(),
            )
        };
        let Ok(count) = usize::try_from(count) else {
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(0),
                _ => Err(error),
            };
        };
        for (at, header) in headers.iter().enumerate().take(count.min(want)) {
            let meta = self.read_meta(at, header);
            self.metas.push(meta);
        }
        Ok(self.metas.len())
    }

    /// The packets of the last receive call.
    pub fn packets(&self) -> impl Iterator<Item = Received<'_>> {
        self.metas
            .iter()
            .zip(self.packets.iter())
            .filter_map(|(meta, bytes)| {
                Some(Received {
                    bytes: &bytes[..meta.length],
                    from: meta.from?,
                    to: meta.to,
                    ttl: meta.ttl,
                    stamp_ns: meta.stamp_ns,
                    card_ns: meta.card_ns,
                })
            })
    }

    /// The transmit stamps of the last receive call from the error queue.
    pub fn sent(&self) -> impl Iterator<Item = Sent> {
        self.metas.iter().filter_map(|meta| {
            Some(Sent {
                id: meta.sent_id?,
                stamp_ns: meta.stamp_ns?,
            })
        })
    }

    /// The transmit stamps of cards among them.
    pub fn sent_by_card(&self) -> impl Iterator<Item = SentByCard> {
        self.metas.iter().filter_map(|meta| {
            Some(SentByCard {
                id: meta.sent_id?,
                card_ns: meta.card_ns?,
            })
        })
    }

    /// The last word on how many packets a socket's full queue has cost since it was opened, wrapping; `None` when no
    /// packet since the last call of this said so.
    pub fn overflow(&mut self) -> Option<u32> {
        self.overflow.take()
    }

    fn read_meta(&mut self, at: usize, header: &libc::mmsghdr) -> Meta {
        let mut meta = Meta {
            length: (header.msg_len as usize).min(PACKET_BYTES),
            from: address_of(&self.names[at], header.msg_hdr.msg_namelen),
            to: None,
            ttl: None,
            stamp_ns: None,
            card_ns: None,
            sent_id: None,
        };
        let mut next = first_control(&header.msg_hdr);
        while let Some(control) = next {
            match (control.level, control.kind) {
                (libc::SOL_SOCKET, libc::SCM_TIMESTAMPING) => {
                    (meta.stamp_ns, meta.card_ns) = control
                        .read::<Stamps>()
                        .map_or((None, None), |stamps| stamps.software_and_card());
                }
                (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => {
                    self.overflow = control.read::<u32>().or(self.overflow);
                }
                (libc::SOL_IP, libc::IP_RECVERR) | (libc::SOL_IPV6, libc::IPV6_RECVERR) => {
                    let error = control.read::<libc::sock_extended_err>();
                    let transmit = error.filter(|e| e.ee_origin == libc::SO_EE_ORIGIN_TIMESTAMPING);
                    meta.sent_id = transmit.map(|e| e.ee_data).or(meta.sent_id);
                }
                (libc::SOL_IP, libc::IP_PKTINFO) => {
                    let info = control.read::<libc::in_pktinfo>();
                    meta.to = info.map(|info| IpAddr::V4(ipv4(info.ipi_spec_dst)));
                }
                (libc::SOL_IPV6, libc::IPV6_PKTINFO) => {
                    let info = control.read::<libc::in6_pktinfo>();
                    meta.to = info.map(|info| IpAddr::V6(info.ipi6_addr.s6_addr.into()));
                }
                (libc::SOL_IP, libc::IP_TTL) | (libc::SOL_IPV6, libc::IPV6_HOPLIMIT) => {
                    let ttl = control.read::<u32>();
                    meta.ttl = ttl.and_then(|ttl| u8::try_from(ttl).ok());
                }
                _ => {}
            }
            next = control.next(&header.msg_hdr);
        }
        meta
    }
}

/// A buffer aligned as control headers must be.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL_BYTES]);

impl Control {
    /// Makes `data` the one control message of a header.
    fn put<T: PlainOldData>(
        &mut self,
        header: &mut libc::msghdr,
        (level, kind): (libc::c_int, libc::c_int),
        data: T,
    ) {
        const { assert!(mem::size_of::<T>() + 64 <= CONTROL_BYTES) };
        header.msg_control = self.0.as_mut_ptr().cast();
        // SAFETY: pure arithmetic on a length.
        header.msg_controllen = unsafe { libc::CMSG_SPACE(mem::size_of::<T>() as u32) } as _;
        // SAFETY: the control buffer is aligned (`Control`) and longer than one header with a `T` (asserted above), so
        // the first header lies within it and its data has room for the unaligned write.
        unsafe {
            let first = libc::CMSG_FIRSTHDR(&raw const *header);
            (*first).cmsg_level = level;
            (*first).cmsg_type = kind;
            (*first).cmsg_len = libc::CMSG_LEN(mem::size_of::<T>() as u32) as _;
            ptr::write_unaligned(libc::CMSG_DATA(first).cast(), data);
        }
    }
}

/// One control message within a received header.
#[derive(Clone, Copy)]
struct ControlMessage {
    raw: *const libc::cmsghdr,
    level: libc::c_int,
    kind: libc::c_int,
    length: usize,
}

fn first_control(header: &libc::msghdr) -> Option<ControlMessage> {
    // SAFETY: the header was filled by the kernel: its control pointer and length describe a live, aligned buffer.
    ControlMessage::new(unsafe { libc::CMSG_FIRSTHDR(header) })
}

impl ControlMessage {
    fn new(raw: *const libc::cmsghdr) -> Option<Self> {
        if raw.is_null() {
            return None;
        }
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR return null or a whole header within the control buffer.
        let header = unsafe { &*raw };
        // SAFETY: pure arithmetic on a length.
        let overhead = unsafe { libc::CMSG_LEN(0) } as usize;
        #[allow(
            clippy::unnecessary_cast,
            reason = "some C libraries have a 32-bit length"
        )]
        let length = (header.cmsg_len as usize).saturating_sub(overhead);
        Some(Self {
            raw,
            level: header.cmsg_level,
            kind: header.cmsg_type,
            length,
        })
    }

    fn next(self, header: &libc::msghdr) -> Option<Self> {
        // SAFETY: `raw` is a header within this header's control buffer.
        Self::new(unsafe { libc::CMSG_NXTHDR(header, self.raw) })
    }

    /// The data as a plain C value, if there is enough of it.
    fn read<T: PlainOldData>(self) -> Option<T> {
        if self.length < mem::size_of::<T>() {
            return None;
        }
        // SAFETY: the kernel wrote `length` bytes of data behind the header, at least as many as `T` has, and any bytes
        // are a valid `T`; the read does not ask for alignment.
        Some(unsafe { ptr::read_unaligned(libc::CMSG_DATA(self.raw).cast::<T>()) })
    }
}

/// `struct scm_timestamping`: the kernel's stamp, one that is no longer used, and the card's. Those that there are not are 0.
#[derive(Clone, Copy)]
#[repr(C)]
struct Stamps([libc::timespec; 3]);

impl Stamps {
    fn software_and_card(&self) -> (Option<u64>, Option<u64>) {
        let [software, _, card] = self
            .0
            .map(|time| Some(timespec_ns(&time)).filter(|&ns| ns > 0));
        (software, card)
    }
}

/// Types of which any bytes are a valid value.
trait PlainOldData: Copy {}
impl PlainOldData for Stamps {}
impl PlainOldData for u32 {}
impl PlainOldData for libc::sock_extended_err {}
impl PlainOldData for libc::in_pktinfo {}
impl PlainOldData for libc::in6_pktinfo {}

/// A socket address for the kernel.
enum Name {
    V4(libc::sockaddr_in),
    V6(libc::sockaddr_in6),
}

impl Name {
    fn new(address: SocketAddr) -> Self {
        match address {
            SocketAddr::V4(address) => Self::V4(libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: address.port().to_be(),
                sin_addr: in_addr(*address.ip()),
                sin_zero: [0; 8],
            }),
            SocketAddr::V6(address) => Self::V6(libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: address.port().to_be(),
                sin6_flowinfo: address.flowinfo().to_be(),
                sin6_addr: in6_addr(*address.ip()),
                // The interface of a link-local peer that was received from.
                sin6_scope_id: address.scope_id(),
            }),
        }
    }

    fn as_raw(&mut self) -> (*mut libc::c_void, libc::socklen_t) {
        match self {
            Self::V4(name) => (
                (&raw mut *name).cast(),
                mem::size_of_val(name) as libc::socklen_t,
            ),
            Self::V6(name) => (
                (&raw mut *name).cast(),
                mem::size_of_val(name) as libc::socklen_t,
            ),
        }
    }
}

fn in_addr(address: Ipv4Addr) -> libc::in_addr {
    libc::in_addr {
        s_addr: u32::from_ne_bytes(address.octets()),
    }
}

fn in6_addr(address: Ipv6Addr) -> libc::in6_addr {
    libc::in6_addr {
        s6_addr: address.octets(),
    }
}

pub(super) fn ipv4(address: libc::in_addr) -> Ipv4Addr {
    Ipv4Addr::from(address.s_addr.to_ne_bytes())
}

fn address_of(name: &libc::sockaddr_storage, length: libc::socklen_t) -> Option<SocketAddr> {
    let length = length as usize;
    match libc::c_int::from(name.ss_family) {
        libc::AF_INET if length >= mem::size_of::<libc::sockaddr_in>() => {
            // SAFETY: the kernel says that it wrote a sockaddr_in, which is smaller and no stricter aligned.
            let name = unsafe { &*(&raw const *name).cast::<libc::sockaddr_in>() };
            let port = u16::from_be(name.sin_port);
            Some(SocketAddrV4::new(ipv4(name.sin_addr), port).into())
        }
        libc::AF_INET6 if length >= mem::size_of::<libc::sockaddr_in6>() => {
            // SAFETY: as above, for a sockaddr_in6.
            let name = unsafe { &*(&raw const *name).cast::<libc::sockaddr_in6>() };
            let (address, port) = (name.sin6_addr.s6_addr.into(), u16::from_be(name.sin6_port));
            Some(SocketAddrV6::new(address, port, 0, name.sin6_scope_id).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_message_tells_the_kernels_stamp_from_the_cards() {
        let time = |tv_sec, tv_nsec| libc::timespec { tv_sec, tv_nsec };
        let none = time(0, 0);
        for (times, stamps) in [
            ([time(2, 7), none, none], (Some(2_000_000_007), None)),
            ([none, none, time(1, 9)], (None, Some(1_000_000_009))),
            (
                [time(2, 7), time(5, 5), time(1, 9)],
                (Some(2_000_000_007), Some(1_000_000_009)),
            ),
            ([none; 3], (None, None)),
        ] {
            // SAFETY: all-zero is a valid msghdr and a valid mmsghdr: null pointers with zero lengths.
            let mut header: libc::mmsghdr = unsafe { mem::zeroed() };
            let mut control = Control([0; CONTROL_BYTES]);
            let kind = (libc::SOL_SOCKET, libc::SCM_TIMESTAMPING);
            control.put(&mut header.msg_hdr, kind, Stamps(times));
            let meta = Inbox::default().read_meta(0, &header);
            assert_eq!((meta.stamp_ns, meta.card_ns), stamps);
        }
    }
}
