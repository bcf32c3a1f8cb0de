//! The STAMP reflector (RFC 8762 section 4.3) that answers other agents' requests.
//!
//! It is *stateful*: it numbers the requests of each session, so that the sender can tell a lost request from a lost
//! reply. Both of its times are in the reply, so that the sender can leave out what happened in between: the first is
//! the kernel's stamp of the request; the second is read just before the reply is handed over, plus the least time that it
//! lately took the kernel to hand packets on, which transmit stamps tell.
//!
//! It answers only peers: the addresses that the mesh names, and the networks that this host's operator adds. A reply
//! is exactly as long as its request, so that nobody gains by sending requests in another's name; how many
//! are answered, of one peer and of all, is limited; and what looks like a reply is never answered, so that two reflectors
//! cannot be made to talk to each other for ever.
//!
//! Requests that load a path ([`Load`]) get replies that are shorter than they are, out of an allowance of their own; those of
//! heavy tests only where the operator takes such tests ([`heavy`]).
//!
//! One thread of its own owns the sockets and the sessions ([`sessions`]). It ends when the handle is dropped.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd as _, RawFd},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::JoinHandle,
};

use crate::{
    admission::Network,
    net::{
        clock::{self, Now, StepWatch},
        message::{self, Inbox, Queue, Received},
        reflecting::ReflectingSocket,
        wake::{self, Waker},
    },
    probe::stamp::{
        self, ErrorEstimate, Key, Load, PACKET_BYTES_MAX, Refusal, Reply, Request, Stamp,
    },
    prober::Family,
};
use heavy::Gate;
use sessions::Sessions;

pub use sessions::Refused;

pub mod heavy;
mod sessions;

/// Packets read from one socket before the other is looked at.
const BUDGET: usize = 256;
/// Without anything to do the thread still looks up this often.
const LONGEST_SLEEP_NS: u64 = 1_000_000_000;
/// Transmit stamps awaited per socket; later ones are not used.
const STAMPS_AWAITED: usize = 64;
/// A reply that left later than this after it was handed over waited in a queue: that says nothing of the next one.
const LAG_MAX_NS: u64 = 200_000;
/// The share of the way up that one slower reply makes: what was the least long ago counts less and less.
const LAG_GROWTH: u64 = 64;
/// How long what the clock says of itself is believed.
const ESTIMATE_LIFETIME_NS: u64 = 16_000_000_000;

/// How a reflector is set up.
#[derive(Clone, Debug)]
pub struct ReflectorConfig {
    /// Key of the mesh: with it only authenticated requests are answered, without it only unauthenticated ones.
    pub key: Option<Key>,
    /// Who is answered beside the peers that the mesh names.
    pub reflect_for: Vec<Network>,
    /// The most replies per second.
    pub max_per_second: u32,
    /// Whether heavy tests of peers are taken.
    pub heavy: bool,
}

/// Bound sockets; at least one.
#[derive(Debug)]
pub struct ReflectorSockets {
    sockets: Vec<ReflectingSocket>,
    port: u16,
}

impl ReflectorSockets {
    /// Binds the port over both families, or over the one that there is.
    ///
    /// # Errors
    ///
    /// Returns the kernel's refusal: the port is in use, or is below 1024 and needs CAP_NET_BIND_SERVICE.
    pub fn bind(port: u16) -> io::Result<Self> {
        let v4 = ReflectingSocket::bind(Family::V4, port);
        let port = match &v4 {
            Ok(socket) => socket.port()?,
            Err(_) => port,
        };
        match (v4, ReflectingSocket::bind(Family::V6, port)) {
            (Ok(v4), v6) => Ok(Self {
                sockets: [v4].into_iter().chain(v6).collect(),
                port,
            }),
            (Err(_), Ok(v6)) => Ok(Self {
                port: v6.port()?,
                sockets: vec![v6],
            }),
            (Err(error), Err(_)) => Err(error),
        }
    }

    /// The port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }
}

/// What a reflector did since its start.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ReflectorCounters {
    /// Requests answered.
    pub reflected: u64,
    /// Requests not answered, in the order of [`Refused::ALL`].
    pub refused: [u64; Refused::ALL.len()],
    /// Sessions remembered at present.
    pub sessions: u64,
}

#[derive(Debug, Default)]
struct Figures {
    reflected: AtomicU64,
    refused: [AtomicU64; Refused::ALL.len()],
    sessions: AtomicU64,
}

#[derive(Debug)]
struct Shared {
    figures: Figures,
    stopping: AtomicBool,
    waker: Waker,
    /// Grows whenever the peers change.
    peers_version: AtomicU64,
    peers: Mutex<Arc<BTreeSet<IpAddr>>>,
}

/// A running reflector. Dropping it stops the thread.
#[derive(Debug)]
pub struct Reflector {
    shared: Arc<Shared>,
    port: u16,
    thread: Option<JoinHandle<()>>,
}

impl Reflector {
    /// Starts the thread. It knows no peers yet.
    ///
    /// # Errors
    ///
    /// Returns the kernel's refusal of a thread or of what wakes it.
    pub fn start(sockets: ReflectorSockets, config: ReflectorConfig) -> io::Result<Self> {
        let port = sockets.port;
        let shared = Arc::new(Shared {
            figures: Figures::default(),
            stopping: AtomicBool::new(false),
            waker: Waker::new()?,
            peers_version: AtomicU64::new(0),
            peers: Mutex::default(),
        });
        let mut thread = ReflectorThread::new(sockets, config, Arc::clone(&shared));
        let thread = std::thread::Builder::new()
            .name("reflect".to_owned())
            .spawn(move || thread.run())?;
        Ok(Self {
            shared,
            port,
            thread: Some(thread),
        })
    }

    /// The port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Replaces the addresses that are answered.
    pub fn set_peers(&self, peers: BTreeSet<IpAddr>) {
        let mut known = self
            .shared
            .peers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if **known != peers {
            *known = Arc::new(peers);
            self.shared.peers_version.fetch_add(1, Relaxed);
            self.shared.waker.wake();
        }
    }

    /// Counts so far.
    #[must_use]
    pub fn counters(&self) -> ReflectorCounters {
        let figures = &self.shared.figures;
        ReflectorCounters {
            reflected: figures.reflected.load(Relaxed),
            refused: std::array::from_fn(|at| figures.refused[at].load(Relaxed)),
            sessions: figures.sessions.load(Relaxed),
        }
    }
}

impl Drop for Reflector {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Relaxed);
        self.shared.waker.wake();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the reflector's thread panicked");
        }
    }
}

/// A socket, and how long the kernel takes to hand on what it is given.
#[derive(Debug)]
struct Port {
    socket: ReflectingSocket,
    /// Replies since the kernel began to count, and when each of the last ones was handed over.
    sent: u32,
    handed_ns: [u64; STAMPS_AWAITED],
    /// From handing over to leaving: about the least of late. A reply that took longer says that it left earlier than it
    /// did, and the sender counts the rest as the network's; one that left before the time it says would be disbelieved.
    lag_ns: u64,
}

impl Port {
    fn handed_over(&mut self, at_ns: u64) {
        self.handed_ns[self.sent as usize % STAMPS_AWAITED] = at_ns;
        self.sent = self.sent.wrapping_add(1);
    }

    fn learn(&mut self, sent: message::Sent) {
        let back = self.sent.wrapping_sub(sent.id).wrapping_sub(1);
        if back as usize >= STAMPS_AWAITED {
            return;
        }
        let handed_ns = self.handed_ns[sent.id as usize % STAMPS_AWAITED];
        if let Some(lag_ns) = sent.stamp_ns.checked_sub(handed_ns)
            && lag_ns <= LAG_MAX_NS
        {
            let grown_ns = self.lag_ns + (self.lag_ns.abs_diff(lag_ns) / LAG_GROWTH).max(1);
            self.lag_ns = lag_ns.min(grown_ns);
        }
    }

    /// After a failed send kernels differ in whether it was counted: both sides begin again. Should the kernel refuse,
    /// stamps lie outside what is believed, and nothing is learned from them.
    fn restart_stamps(&mut self) {
        if self.socket.restart_stamps().is_ok() {
            self.sent = 0;
            self.handed_ns = [0; STAMPS_AWAITED];
        }
    }
}

/// What the thread owns.
#[derive(Debug)]
struct ReflectorThread {
    ports: Vec<Port>,
    own_port: u16,
    config: ReflectorConfig,
    shared: Arc<Shared>,
    peers: Arc<BTreeSet<IpAddr>>,
    peers_version: u64,
    sessions: Sessions,
    heavy: Gate,
    watch: StepWatch,
    estimate: (Option<u64>, u64),
}

/// The moment of a batch.
#[derive(Clone, Copy, Debug)]
struct Moment {
    now: Now,
    /// The wall clock was set since the packets may have come: their stamps are of another clock than the present one.
    stepped: bool,
    /// How well the clock follows UTC, nanoseconds.
    error_ns: Option<u64>,
}

impl ReflectorThread {
    fn new(sockets: ReflectorSockets, config: ReflectorConfig, shared: Arc<Shared>) -> Self {
        let port = |socket| Port {
            socket,
            sent: 0,
            handed_ns: [0; STAMPS_AWAITED],
            lag_ns: 0,
        };
        Self {
            ports: sockets.sockets.into_iter().map(port).collect(),
            own_port: sockets.port,
            sessions: Sessions::new(config.max_per_second),
            heavy: Gate::new(config.heavy),
            config,
            shared,
            peers: Arc::default(),
            peers_version: 0,
            watch: StepWatch::new(Now::read()),
            estimate: (None, 0),
        }
    }

    fn run(&mut self) {
        let (mut inbox, mut stamps) = (Inbox::default(), Inbox::default());
        let mut ready = 0;
        while !self.shared.stopping.load(Relaxed) {
            self.learn_peers();
            let mut more = 0;
            for at in 0..self.ports.len() {
                if ready & 1 << at != 0 {
                    let busy = self.attend(at, &mut inbox, &mut stamps);
                    more |= u32::from(busy) << at;
                }
            }
            self.shared
                .figures
                .sessions
                .store(self.sessions.len() as u64, Relaxed);
            ready = if more == 0 { self.sleep() } else { more };
        }
    }

    fn sleep(&self) -> u32 {
        let mut watched = [self.shared.waker.as_raw_fd(); 3];
        let descriptors = self.ports.iter().map(|port| port.socket.as_raw_fd());
        let count = 1 + watched[1..]
            .iter_mut()
            .zip(descriptors)
            .map(|(place, fd): (&mut RawFd, RawFd)| *place = fd)
            .count();
        let ready = wake::wait(&watched[..count], clock::monotonic_ns() + LONGEST_SLEEP_NS);
        if ready & 1 != 0 {
            self.shared.waker.clear();
        }
        (ready >> 1) as u32
    }

    fn learn_peers(&mut self) {
        let version = self.shared.peers_version.load(Relaxed);
        if version != self.peers_version {
            let peers = self.shared.peers.lock();
            self.peers = Arc::clone(&peers.unwrap_or_else(PoisonError::into_inner));
            self.peers_version = version;
        }
    }

    /// Answers what has come to a socket; tells whether there may be more.
    fn attend(&mut self, at: usize, inbox: &mut Inbox, stamps: &mut Inbox) -> bool {
        let fd = self.ports[at].socket.as_raw_fd();
        let mut taken = 0;
        while taken < BUDGET {
            // A socket that fails does so again: the next look is after a sleep.
            let Ok(count) = inbox.receive(fd, Queue::Packets, message::BATCH) else {
                return false;
            };
            let moment = self.moment();
            for packet in inbox.packets() {
                match self.reflect(at, &packet, moment) {
                    Ok(()) => _ = self.shared.figures.reflected.fetch_add(1, Relaxed),
                    Err(refused) => {
                        self.shared.figures.refused[refused as usize].fetch_add(1, Relaxed);
                    }
                }
            }
            while let Ok(1..) = stamps.receive(fd, Queue::Errors, message::BATCH) {
                stamps.sent().for_each(|sent| self.ports[at].learn(sent));
            }
            taken += count;
            if count < message::BATCH {
                return false;
            }
        }
        true
    }

    fn moment(&mut self) -> Moment {
        let now = Now::read();
        let (error_ns, asked_ns) = self.estimate;
        let error_ns = if now.mono_ns.saturating_sub(asked_ns) < ESTIMATE_LIFETIME_NS {
            error_ns
        } else {
            let error_ns = clock::error_ns();
            self.estimate = (error_ns, now.mono_ns);
            error_ns
        };
        Moment {
            now,
            stepped: self.watch.step(now).is_some(),
            error_ns,
        }
    }

    fn reflect(&mut self, at: usize, packet: &Received<'_>, moment: Moment) -> Result<(), Refused> {
        let from = SocketAddr::new(packet.from.ip().to_canonical(), packet.from.port());
        if !self.is_peer(from.ip()) {
            return Err(Refused::Stranger);
        }
        if from.port() == self.own_port || from.port() == stamp::PORT || from.port() == 0 {
            return Err(Refused::Reply);
        }
        let key = self.config.key.as_ref();
        let request = Request::decode(packet.bytes, key).map_err(|refusal| match refusal {
            Refusal::Truncated => Refused::Malformed,
            Refusal::Unproven => Refused::Unproven,
            Refusal::Reply => Refused::Reply,
        })?;
        let load = Load::of(packet.bytes, key);
        if load.is_none() && packet.bytes.len() >= PACKET_BYTES_MAX {
            // More may have come than was kept of it.
            return Err(Refused::Malformed);
        }
        let allowance = self.heavy.allowance(moment.now.mono_ns, from, load)?;
        let number = self
            .sessions
            .count(moment.now.mono_ns, from, request.ssid, allowance)?;
        if load == Some(Load::Counted) {
            return Ok(());
        }
        let port = &mut self.ports[at];
        let format = request.error.format();
        let handed_ns = clock::wall_ns();
        let leaves_ns = handed_ns + port.lag_ns;
        let received_ns = match packet.stamp_ns {
            Some(stamp_ns) if !moment.stepped => stamp_ns,
            _ => moment.now.wall_ns,
        };
        let reply = Reply {
            sequence: number,
            time: Stamp::of(format, leaves_ns),
            received: Stamp::of(format, received_ns),
            error: match moment.error_ns {
                Some(error_ns) => ErrorEstimate::within(format, error_ns),
                None => ErrorEstimate::unknown(format),
            },
            request,
            ttl: packet.ttl.unwrap_or(u8::MAX),
        };
        let reply = match load {
            None => reply.encode(key, packet.bytes),
            Some(_) => reply.encode(key, &[]),
        };
        let fd = port.socket.as_raw_fd();
        match message::send(fd, packet.from, packet.to, &reply) {
            Ok(()) => {
                port.handed_over(handed_ns);
                Ok(())
            }
            Err(error) => {
                tracing::trace!(%error, address = %from, "the kernel refused a reply");
                port.restart_stamps();
                Err(Refused::NotSent)
            }
        }
    }

    fn is_peer(&self, address: IpAddr) -> bool {
        let within = |network: &Network| network.contains(address);
        self.peers.contains(&address) || self.config.reflect_for.iter().any(within)
    }
}
