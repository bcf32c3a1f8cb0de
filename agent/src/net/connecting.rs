//! TCP probes without a privilege: `connect`, and the kernel's own round-trip time of the handshake (`TCP_INFO`).
//!
//! Each attempt is a socket and, because the kernel keeps a port that has an attempt under way, a source port of its own: there
//! are no flows to tell apart. An attempt is given up just before the kernel would send its SYN again, so that each probe is one
//! packet, and an answer is an answer to it. What is refused was answered too; the kernel tells no time of that, so it is
//! this process's own.

#![allow(unsafe_code)]

use std::{
    collections::VecDeque,
    io, mem,
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    time::Duration,
};

use socket2::{Protocol, Socket, Type};

use super::sockets::domain;
use crate::prober::Family;

/// Connections under way at once; each is a file descriptor, of which a process has 1,024 unless told otherwise. What is
/// asked for beyond is refused.
const ATTEMPTS_MAX: usize = 512;
/// Linux sends a SYN again after a second.
const PATIENCE_NS: u64 = 950_000_000;
/// Answers taken by one call.
const BATCH: usize = 32;

/// Which probe a connection is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Attempt {
    /// The path's slot.
    pub slot: u32,
    /// Its probe.
    pub sequence: u32,
    /// When it began, nanoseconds of the monotonic clock.
    pub mono_ns: u64,
}

/// What came of a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// It was made, and the handshake took so long by the kernel's account, nanoseconds.
    Made {
        /// From the SYN to its answer.
        rtt_ns: u64,
    },
    /// The host is alive, the port is closed.
    Refused,
    /// A router or the host answered with an ICMP error.
    Unreachable,
}

/// Connections of a family.
#[derive(Debug)]
pub struct Connector {
    family: Family,
    bind: Option<IpAddr>,
    epoll: OwnedFd,
    /// By number; the first is number `first`.
    attempts: VecDeque<Option<(Socket, Attempt)>>,
    first: u64,
}

impl AsRawFd for Connector {
    fn as_raw_fd(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }
}

impl Connector {
    /// What connects over a family, from an address or from any.
    ///
    /// # Errors
    ///
    /// Returns the kernel's refusal: it has no such family, or no descriptors left.
    pub fn open(family: Family, bind: Option<IpAddr>) -> io::Result<Self> {
        // Whether there is such a family at all, and the address.
        let connector = |epoll| Self {
            family,
            bind,
            epoll,
            attempts: VecDeque::new(),
            first: 0,
        };
        // SAFETY: epoll_create1 takes no pointers.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just gave us this descriptor and nobody else owns it.
        let connector = connector(unsafe { OwnedFd::from_raw_fd(fd) });
        connector.socket()?;
        Ok(connector)
    }

    /// Of which family it is.
    #[must_use]
    pub const fn family(&self) -> Family {
        self.family
    }

    /// Whether connections are under way.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        !self.attempts.is_empty()
    }

    /// Begins a connection.
    ///
    /// # Errors
    ///
    /// Returns the kernel's refusal, or that too many are under way.
    pub fn start(&mut self, to: SocketAddr, attempt: Attempt) -> io::Result<()> {
        self.give_up(attempt.mono_ns);
        if self.attempts.len() >= ATTEMPTS_MAX {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        let socket = self.socket()?;
        match socket.connect(&to.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            Err(error) => return Err(error),
        }
        let number = self.first + self.attempts.len() as u64;
        let mut event = libc::epoll_event {
            events: (libc::EPOLLOUT | libc::EPOLLERR | libc::EPOLLHUP) as u32,
            u64: number,
        };
        // SAFETY: both descriptors are open and the event outlives the call.
        let added = unsafe {
            libc::epoll_ctl(
                self.epoll.as_raw_fd(),
                libc::EPOLL_CTL_ADD,
                socket.as_raw_fd(),
                &raw mut event,
            )
        };
        if added < 0 {
            return Err(io::Error::last_os_error());
        }
        self.attempts.push_back(Some((socket, attempt)));
        Ok(())
    }

    /// Takes what has come of connections, at most so many, without waiting; whether there may be more.
    pub fn finish(
        &mut self,
        now_ns: u64,
        most: usize,
        mut on: impl FnMut(Attempt, Outcome),
    ) -> bool {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; BATCH];
        let mut left = most;
        let mut more = true;
        while more && left > 0 {
            let want = left.min(BATCH);
            // SAFETY: the kernel writes at most `want` events, for which there is room.
            let count = unsafe {
                libc::epoll_wait(
                    self.epoll.as_raw_fd(),
                    events.as_mut_ptr(),
                    want as libc::c_int,
                    0,
                )
            };
            let count = usize::try_from(count).unwrap_or(0);
            for event in &events[..count.min(BATCH)] {
                let at = event.u64.checked_sub(self.first);
                let place = at.and_then(|at| self.attempts.get_mut(usize::try_from(at).ok()?));
                if let Some((socket, attempt)) = place.and_then(Option::take)
                    && let Some(outcome) = outcome(&socket)
                {
                    on(attempt, outcome);
                }
            }
            left -= count.min(left);
            more = count == want;
        }
        self.give_up(now_ns);
        more
    }

    /// Ends what was not answered in time, and forgets what has ended.
    fn give_up(&mut self, now_ns: u64) {
        let is_over = |place: &Option<(Socket, Attempt)>| {
            place
                .as_ref()
                .is_none_or(|(_, attempt)| now_ns.saturating_sub(attempt.mono_ns) >= PATIENCE_NS)
        };
        while self.attempts.front().is_some_and(is_over) {
            self.attempts.pop_front();
            self.first += 1;
        }
    }

    /// A socket that tells its peer at once when it is closed.
    fn socket(&self) -> io::Result<Socket> {
        let socket = Socket::new(domain(self.family), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_linger(Some(Duration::ZERO))?;
        if let Some(address) = self.bind {
            socket.bind(&SocketAddr::new(address, 0).into())?;
        }
        Ok(socket)
    }
}

fn outcome(socket: &Socket) -> Option<Outcome> {
    match socket.take_error() {
        Ok(None) => handshake_ns(socket).map(|rtt_ns| Outcome::Made { rtt_ns }),
        Ok(Some(error)) | Err(error) => match error.raw_os_error() {
            Some(libc::ECONNREFUSED | libc::ECONNRESET) => Some(Outcome::Refused),
            Some(libc::EHOSTUNREACH | libc::ENETUNREACH | libc::EACCES | libc::EPROTO) => {
                Some(Outcome::Unreachable)
            }
            _ => None,
        },
    }
}

/// How long the handshake took, unless its SYN had to be sent again: then nobody knows to which one the answer belongs.
fn handshake_ns(socket: &Socket) -> Option<u64> {
    // SAFETY: tcp_info consists of integers, for which all-zero is valid.
    let mut info: libc::tcp_info = unsafe { mem::zeroed() };
    let mut length = mem::size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes of integers into `info`, and how many into `length`; both are alive.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    let is_first = result == 0 && info.tcpi_total_retrans == 0 && info.tcpi_rtt > 0;
    is_first.then(|| u64::from(info.tcpi_rtt) * 1_000)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;
    use crate::net::{clock::monotonic_ns, wake};

    fn attempt(sequence: u32) -> Attempt {
        Attempt {
            slot: 1,
            sequence,
            mono_ns: monotonic_ns(),
        }
    }

    fn outcomes(connector: &mut Connector, want: usize) -> Vec<(Attempt, Outcome)> {
        let (mut seen, deadline) = (Vec::new(), monotonic_ns() + 30_000_000_000);
        while seen.len() < want && monotonic_ns() < deadline {
            wake::wait(&[connector.as_raw_fd()], deadline);
            connector.finish(monotonic_ns(), 64, |attempt, outcome| {
                seen.push((attempt, outcome));
            });
        }
        seen
    }

    #[test]
    fn an_open_port_tells_a_time_and_a_closed_one_refuses() {
        let open = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let closed_at = closed.local_addr().unwrap();
        drop(closed);
        let mut connector = Connector::open(Family::V4, None).unwrap();
        let (first, second) = (attempt(1), attempt(2));
        connector.start(open.local_addr().unwrap(), first).unwrap();
        connector.start(closed_at, second).unwrap();
        let mut seen = outcomes(&mut connector, 2);
        seen.sort_by_key(|(attempt, _)| attempt.sequence);
        assert!(
            matches!(seen[0], (own, Outcome::Made { rtt_ns: 1.. }) if own == first),
            "{seen:?}"
        );
        assert_eq!(seen[1], (second, Outcome::Refused));
        assert!(!connector.is_busy());
    }

    #[test]
    fn attempts_are_bounded_and_given_up_before_the_kernel_sends_again() {
        let mut connector = Connector::open(Family::V4, None).unwrap();
        // Accepts nothing and has no room: after a few its kernel drops SYNs.
        let full = Socket::new(domain(Family::V4), Type::STREAM, None).unwrap();
        full.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())
            .unwrap();
        full.listen(1).unwrap();
        let to = full.local_addr().unwrap().as_socket().unwrap();
        let began = attempt(0);
        let started = (0..ATTEMPTS_MAX + 5)
            .take_while(|_| connector.start(to, began).is_ok())
            .count();
        assert!(started <= ATTEMPTS_MAX, "{started}");
        connector.finish(began.mono_ns + PATIENCE_NS, usize::MAX, |_, _| {});
        assert!(!connector.is_busy());
        connector
            .start(
                to,
                Attempt {
                    mono_ns: began.mono_ns + PATIENCE_NS,
                    ..began
                },
            )
            .unwrap();
    }
}
