//! The sockets at work: probes become packets, packets become what the tracker understands.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::fd::{AsRawFd, RawFd},
};

use leeward_common::report::ProbeKind;

use super::{Family, Sockets, counters::Stray};
use crate::{
    net::{
        clock::{Now, StepWatch},
        message::{self, Inbox, Queue},
        sockets::Channel,
    },
    probe::{
        NotAnAnswer,
        icmp::{self, Echo},
        stamp::{ErrorEstimate, Format, Key, Refusal, Reply, Request, Stamp},
        tcp_syn::{self, Syn},
        token::TokenKey,
    },
    tracker::{Arrival, Departure, Leaving, Tracker, directions},
};

/// Transmit stamps awaited per socket. They come within microseconds of the send unless a queueing discipline holds the
/// packet; one that comes after this many further sends is not used.
const STAMPS_AWAITED: usize = 4_096;
/// Packets asked for at least; a busy socket is then asked for full batches.
const FIRST_BATCH: usize = 4;
/// A stamp that has not come after this long will not: the device gives none.
const STAMP_PATIENCE_NS: u64 = 1_000_000_000;

/// The clocks, and how often the wall clock has been seen to step.
#[derive(Debug)]
pub(super) struct Clock {
    watch: StepWatch,
    last: Now,
    era: u8,
    steps: u64,
    /// Of steps since last asked, the sum, nanoseconds.
    stepped_ns: i64,
}

impl Clock {
    pub(super) fn new() -> Self {
        let last = Now::read();
        Self {
            watch: StepWatch::new(last),
            last,
            era: 0,
            steps: 0,
            stepped_ns: 0,
        }
    }

    /// Reads the clocks.
    pub(super) fn read(&mut self) -> Now {
        self.last = Now::read();
        if let Some(step_ns) = self.watch.step(self.last) {
            self.era = self.era.wrapping_add(1);
            self.steps += 1;
            self.stepped_ns = self.stepped_ns.saturating_add(step_ns);
        }
        self.last
    }

    /// The last reading.
    pub(super) const fn last(&self) -> Now {
        self.last
    }

    /// Steps seen so far.
    pub(super) const fn steps(&self) -> u64 {
        self.steps
    }

    /// By how much the wall clock has stepped since this was last asked, nanoseconds.
    pub(super) fn take_step(&mut self) -> i64 {
        std::mem::take(&mut self.stepped_ns)
    }

    pub(super) const fn departure(&self) -> Departure {
        Departure {
            mono_ns: self.last.mono_ns,
            wall_ns: self.last.wall_ns,
            clock_era: self.era,
        }
    }
}

/// Which probe the how-manieth packet of a socket was.
#[derive(Clone, Copy, Debug)]
struct Awaited {
    id: u32,
    slot: u32,
    sequence: u32,
}

/// A socket and the transmit stamps that it owes us.
#[derive(Debug)]
struct Port {
    channel: Channel,
    /// Packets sent since the kernel began to count.
    sent: u32,
    awaited: Vec<Option<Awaited>>,
    owed: u32,
    last_sent_ns: u64,
    /// Packets that the kernel has dropped so far, wrapping.
    overflow: u32,
}

/// Whether transmit stamps were those of probes under way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fit {
    Yes,
    No,
}

/// What a socket still holds after it was read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Left {
    Nothing,
    Maybe,
}

/// The open sockets.
#[derive(Debug)]
pub(super) struct Wire {
    ports: Vec<Port>,
    index: [[Option<u8>; 2]; ProbeKind::ALL.len()],
    ident: u16,
    key: TokenKey,
    /// Of authenticated STAMP.
    stamp_key: Option<Key>,
    inbox: Inbox,
    stamps: Inbox,
}

impl Wire {
    pub(super) fn new(sockets: Sockets, key: TokenKey, stamp_key: Option<Key>) -> Self {
        let mut index = [[None; 2]; ProbeKind::ALL.len()];
        let ports: Vec<Port> = sockets.into_channels().into_iter().map(Port::new).collect();
        for (at, port) in (0u8..).zip(&ports) {
            index[port.channel.kind as usize][port.channel.family as usize] = Some(at);
        }
        Self {
            ports,
            index,
            ident: key.ident(),
            key,
            stamp_key,
            inbox: Inbox::default(),
            stamps: Inbox::default(),
        }
    }

    pub(super) fn has(&self, (kind, family): (ProbeKind, Family)) -> bool {
        self.index[kind as usize][family as usize].is_some()
    }

    /// Descriptors to watch, in the order of the bits that [`Self::receive`] takes.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        self.ports.iter().map(|port| port.channel.as_raw_fd())
    }

    /// Sends a probe. `source` is the source address of SYNs over IPv4.
    pub(super) fn send(
        &mut self,
        leaving: &Leaving,
        source: Ipv4Addr,
        now_ns: u64,
        tracker: &mut Tracker,
    ) -> io::Result<()> {
        let family = Family::of(&leaving.address);
        let at =
            self.index[leaving.kind as usize][family as usize].ok_or(io::ErrorKind::Unsupported)?;
        let port = &mut self.ports[usize::from(at)];
        let fd = port.channel.as_raw_fd();
        let echo = Echo {
            ident: self.ident,
            identity: leaving.identity,
        };
        let syn = Syn {
            source_port: leaving.source_port,
            port: leaving.port,
            sequence: leaving.identity.syn_sequence(),
            time: (now_ns / 1_000_000) as u32,
        };
        let raw = SocketAddr::new(leaving.address, 0);
        let sent = match (leaving.kind, leaving.address) {
            (ProbeKind::Icmp, IpAddr::V4(_)) => message::send(fd, raw, None, &echo.encode_v4()),
            (ProbeKind::Icmp, IpAddr::V6(_)) => message::send(fd, raw, None, &echo.encode_v6()),
            (ProbeKind::TcpSyn, IpAddr::V4(to)) => {
                message::send(fd, raw, Some(source.into()), &syn.encode_v4(source, to))
            }
            (ProbeKind::TcpSyn, IpAddr::V6(_)) => message::send(fd, raw, None, &syn.encode_v6()),
            (ProbeKind::Stamp, to) => {
                let request = Request {
                    sequence: directions::request_number(leaving.identity.sequence),
                    time: Stamp::of(Format::Ntp, leaving.identity.sent_ns),
                    // No reflector of ours asks how well this clock is kept: delays are compared, not believed.
                    error: ErrorEstimate::unknown(Format::Ntp),
                    ssid: self.key.ssid(leaving.identity.slot),
                };
                let packet = request.encode(self.stamp_key.as_ref());
                message::send(fd, SocketAddr::new(to, leaving.port), None, &packet)
            }
        };
        match &sent {
            Ok(()) => port.await_stamp(leaving, now_ns),
            // Without a route the packet did not get as far as being counted.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable
                ) => {}
            Err(_) => port.restart_stamps(&mut self.stamps, tracker),
        }
        sent
    }

    /// Receives from the sockets whose bit is set in `ready`, at most `budget` packets from each. Returns the bits of
    /// those that may have more.
    pub(super) fn receive(
        &mut self,
        ready: u32,
        budget: usize,
        clock: &mut Clock,
        tracker: &mut Tracker,
    ) -> u32 {
        let mut more = 0;
        let mut hands = Hands {
            inbox: &mut self.inbox,
            stamps: &mut self.stamps,
            stamp_key: self.stamp_key.as_ref(),
        };
        for (bit, port) in self.ports.iter_mut().enumerate() {
            if ready & 1 << bit != 0 {
                let left = port.receive(budget, &mut hands, clock, tracker);
                more |= u32::from(left == Left::Maybe) << bit;
            }
        }
        more
    }

    /// Bits of the sockets that owe transmit stamps or carry probes of late: those worth asking without being told.
    pub(super) fn lively(&self, now_ns: u64) -> u32 {
        let lively = |port: &Port| now_ns.saturating_sub(port.last_sent_ns) < STAMP_PATIENCE_NS;
        self.ports
            .iter()
            .enumerate()
            .filter(|(_, port)| lively(port))
            .fold(0, |bits, (at, _)| bits | 1 << at)
    }
}

/// What all sockets are read with.
struct Hands<'a> {
    inbox: &'a mut Inbox,
    stamps: &'a mut Inbox,
    stamp_key: Option<&'a Key>,
}

impl Port {
    fn new(channel: Channel) -> Self {
        Self {
            channel,
            sent: 0,
            awaited: vec![None; STAMPS_AWAITED],
            owed: 0,
            last_sent_ns: 0,
            overflow: 0,
        }
    }

    fn await_stamp(&mut self, leaving: &Leaving, now_ns: u64) {
        let id = self.sent;
        self.awaited[id as usize % STAMPS_AWAITED] = Some(Awaited {
            id,
            slot: leaving.identity.slot,
            sequence: leaving.identity.sequence,
        });
        self.sent = id.wrapping_add(1);
        self.owed = self.owed.saturating_add(1);
        self.last_sent_ns = now_ns;
    }

    /// After a failed send kernels differ in whether it was counted: takes the stamps that are there, then both sides
    /// begin again. Should the kernel refuse, stamps will not fit, are counted as such, and departures are taken from
    /// user space.
    fn restart_stamps(&mut self, stamps: &mut Inbox, tracker: &mut Tracker) {
        self.take_stamps(stamps, u32::MAX, tracker);
        if self.channel.restart_stamps().is_ok() {
            self.sent = 0;
        }
        self.awaited.fill(None);
        self.owed = 0;
    }

    fn receive(
        &mut self,
        budget: usize,
        hands: &mut Hands<'_>,
        clock: &mut Clock,
        tracker: &mut Tracker,
    ) -> Left {
        let Hands {
            inbox,
            stamps,
            stamp_key,
        } = hands;
        let (kind, family) = (self.channel.kind, self.channel.family);
        // About as many answers as stamps are to be expected.
        let (mut taken, mut want) = (
            0,
            (self.owed as usize + 1).clamp(FIRST_BATCH, message::BATCH),
        );
        loop {
            let Ok(count) = inbox.receive(self.channel.as_raw_fd(), Queue::Packets, want) else {
                tracker.counters_mut().receive_errors += 1;
                return Left::Nothing;
            };
            let now = clock.read();
            // A reply's transmit stamp was queued before the reply, so after this none is missing.
            self.collect_stamps(stamps, now, tracker);
            if let Some(total) = inbox.overflow() {
                let more = total.wrapping_sub(std::mem::replace(&mut self.overflow, total));
                if more > 0 {
                    tracker.overflowed(kind, family, now.mono_ns, u64::from(more));
                }
            }
            for packet in inbox.packets() {
                let arrival = Arrival {
                    mono_ns: now.mono_ns,
                    stamp_ns: packet.stamp_ns,
                    clock_era: clock.departure().clock_era,
                };
                let from = packet.from.ip();
                let parsed = match (kind, family) {
                    (ProbeKind::Icmp, Family::V4) => icmp::parse_v4(packet.bytes)
                        .map(|answer| tracker.on_icmp(from, &answer, arrival)),
                    (ProbeKind::Icmp, Family::V6) => icmp::parse_v6(packet.bytes)
                        .map(|answer| tracker.on_icmp(from, &answer, arrival)),
                    (ProbeKind::TcpSyn, Family::V4) => tcp_syn::parse_v4(packet.bytes)
                        .map(|answer| tracker.on_tcp(from, &answer, arrival)),
                    (ProbeKind::TcpSyn, Family::V6) => tcp_syn::parse_v6(packet.bytes)
                        .map(|answer| tracker.on_tcp(from, &answer, arrival)),
                    (ProbeKind::Stamp, _) => match Reply::decode(packet.bytes, *stamp_key) {
                        Ok(reply) => {
                            tracker.on_stamp(packet.from, &reply, arrival);
                            Ok(())
                        }
                        Err(Refusal::Unproven) => {
                            tracker.stray(Stray::WrongToken);
                            Ok(())
                        }
                        Err(Refusal::Truncated | Refusal::Reply) => Err(NotAnAnswer::Truncated),
                    },
                };
                match parsed {
                    Ok(()) => {}
                    Err(NotAnAnswer::Truncated) => tracker.stray(Stray::Truncated),
                    Err(NotAnAnswer::Foreign) => tracker.stray(Stray::Foreign),
                }
            }
            taken += count;
            if count < want {
                return Left::Nothing;
            }
            if taken >= budget {
                return Left::Maybe;
            }
            want = message::BATCH.min(budget - taken);
        }
    }

    fn collect_stamps(&mut self, stamps: &mut Inbox, now: Now, tracker: &mut Tracker) {
        if self.owed == 0 {
            return;
        }
        if self.take_stamps(stamps, self.owed, tracker) == Fit::No {
            self.restart_stamps(stamps, tracker);
        }
        if now.mono_ns.saturating_sub(self.last_sent_ns) > STAMP_PATIENCE_NS {
            self.owed = 0;
        }
    }

    /// Takes up to `most` stamps and tells whether all were stamps of probes under way.
    fn take_stamps(&mut self, stamps: &mut Inbox, most: u32, tracker: &mut Tracker) -> Fit {
        let (mut left, mut all) = (most, Fit::Yes);
        while left > 0 {
            let want = message::BATCH.min(left as usize);
            let Ok(count) = stamps.receive(self.channel.as_raw_fd(), Queue::Errors, want) else {
                tracker.counters_mut().receive_errors += 1;
                break;
            };
            left -= count as u32;
            self.owed -= (count as u32).min(self.owed);
            for sent in stamps.sent() {
                let awaited = self.awaited[sent.id as usize % STAMPS_AWAITED]
                    .take_if(|awaited| awaited.id == sent.id);
                let fits = awaited
                    .is_some_and(|a| tracker.stamp(a.slot, a.sequence, sent.stamp_ns).is_ok());
                if !fits {
                    tracker.counters_mut().tx_stamps_unfit += 1;
                    all = Fit::No;
                }
            }
            if count < want {
                break;
            }
        }
        all
    }
}
