//! The sockets at work: probes become packets, packets become what the tracker understands.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6},
    os::fd::{AsRawFd, RawFd},
};

use leeward_common::report::ProbeKind;

use super::{Family, Sockets, counters::Stray};
use crate::{
    net::{
        clock::{Now, StepWatch},
        connecting::{Attempt, Connector, Outcome},
        message::{self, Inbox, Queue},
        sockets::{Channel, Mode},
    },
    probe::{
        NotAnAnswer,
        icmp::{self, Echo},
        stamp::{ErrorEstimate, Format, Key, Refusal, Reply, Request, Stamp},
        tcp_syn::{self, Reset, Syn},
        token::TokenKey,
    },
    tracker::{Arrival, Connected, Departure, Leaving, Tracker, directions},
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

/// What the how-manieth packet of a socket was.
#[derive(Clone, Copy, Debug)]
struct Awaited {
    id: u32,
    /// Whether the kernel's stamp has come; that of a card comes beside it.
    told: bool,
    /// Slot and sequence of the probe; `None` of a packet that is none, whose stamp nobody wants.
    probe: Option<(u32, u32)>,
}

/// A socket and the transmit stamps that it owes us.
#[derive(Debug)]
struct Port {
    channel: Channel,
    /// Which flow leaves by it, where each has a socket of its own; else 0.
    flow: u8,
    /// The identifier that the kernel puts into echo requests, of ping sockets.
    ident: Option<u16>,
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
    connectors: Vec<Connector>,
    /// By kind and family: the ports, one for all flows or one for each.
    index: [[Vec<u8>; 2]; ProbeKind::ALL.len()],
    key: TokenKey,
    /// Of authenticated STAMP.
    stamp_key: Option<Key>,
    inbox: Inbox,
    stamps: Inbox,
}

impl Wire {
    pub(super) fn new(sockets: Sockets, key: TokenKey, stamp_key: Option<Key>) -> Self {
        let mut index: [[Vec<u8>; 2]; ProbeKind::ALL.len()] = Default::default();
        let (channels, connectors) = sockets.into_parts();
        let mut ports = Vec::with_capacity(channels.len());
        for (at, channel) in (0u8..).zip(channels) {
            let alike = &mut index[channel.kind as usize][channel.family as usize];
            ports.push(Port::new(channel, alike.len() as u8));
            alike.push(at);
        }
        Self {
            ports,
            connectors,
            index,
            key,
            stamp_key,
            inbox: Inbox::default(),
            stamps: Inbox::default(),
        }
    }

    pub(super) fn has(&self, (kind, family): (ProbeKind, Family)) -> bool {
        !self.index[kind as usize][family as usize].is_empty()
            || kind == ProbeKind::TcpSyn && self.connectors.iter().any(|own| own.family() == family)
    }

    /// Descriptors to watch, in the order of the bits that [`Self::receive`] takes.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        let ports = self.ports.iter().map(|port| port.channel.as_raw_fd());
        ports.chain(self.connectors.iter().map(AsRawFd::as_raw_fd))
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
        let alike = &self.index[leaving.kind as usize][family as usize];
        let Some(&at) = alike.get(usize::from(leaving.flow)).or(alike.first()) else {
            return self.connect(leaving, family, now_ns);
        };
        let port = &mut self.ports[usize::from(at)];
        let Leaving { identity, flow, .. } = *leaving;
        let echo = Echo {
            ident: port.ident.unwrap_or_else(|| self.key.ident_of(flow)),
            identity,
        };
        let syn = Syn {
            source_port: leaving.source_port,
            port: leaving.port,
            sequence: identity.syn_sequence(),
            time: (now_ns / 1_000_000) as u32,
        };
        let checksum = self.key.echo_checksum(flow);
        let label = self.key.flow_label(flow);
        if let Some(sequence) = leaving.reset {
            let reset = Reset {
                source_port: syn.source_port,
                port: syn.port,
                sequence,
            };
            let sent = match leaving.address {
                IpAddr::V4(to) => {
                    let packet = reset.encode_v4(source, to);
                    port.send(leaving, label, Some(source.into()), &packet)
                }
                IpAddr::V6(_) => port.send(leaving, label, None, &reset.encode_v6()),
            };
            port.count(&sent, None, now_ns, &mut self.stamps, tracker);
        }
        let sent = match (leaving.kind, leaving.address) {
            (ProbeKind::Icmp, IpAddr::V4(_)) => {
                port.send(leaving, label, None, &echo.encode_v4(checksum))
            }
            (ProbeKind::Icmp, IpAddr::V6(_)) => {
                port.send(leaving, label, None, &echo.encode_v6(checksum))
            }
            (ProbeKind::TcpSyn, IpAddr::V4(to)) => port.send(
                leaving,
                label,
                Some(source.into()),
                &syn.encode_v4(source, to),
            ),
            (ProbeKind::TcpSyn, IpAddr::V6(_)) => port.send(leaving, label, None, &syn.encode_v6()),
            (ProbeKind::Stamp, _) => {
                let request = Request {
                    sequence: directions::request_number(leaving.nth),
                    time: Stamp::of(Format::Ntp, identity.sent_ns),
                    // No reflector of ours asks how well this clock is kept: delays are compared, not believed.
                    error: ErrorEstimate::unknown(Format::Ntp),
                    ssid: self.key.ssid(identity.slot),
                };
                port.send(
                    leaving,
                    label,
                    None,
                    &request.encode(self.stamp_key.as_ref()),
                )
            }
        };
        let probe = Some((identity.slot, identity.sequence));
        port.count(&sent, probe, now_ns, &mut self.stamps, tracker);
        sent
    }

    /// Receives from the sockets whose bit is set in `ready`, at most `budget` packets from each. Returns the bits of
    /// those that may have more.
    pub(super) fn receive(
        &mut self,
        ready: u64,
        budget: usize,
        clock: &mut Clock,
        tracker: &mut Tracker,
    ) -> u64 {
        let mut more = 0;
        let mut hands = Hands {
            inbox: &mut self.inbox,
            stamps: &mut self.stamps,
            stamp_key: self.stamp_key.as_ref(),
            key: self.key,
        };
        for (bit, port) in self.ports.iter_mut().enumerate() {
            if ready & 1 << bit != 0 {
                let left = port.receive(budget, &mut hands, clock, tracker);
                more |= u64::from(left == Left::Maybe) << bit;
            }
        }
        for (bit, connector) in (self.ports.len()..).zip(&mut self.connectors) {
            if ready & 1 << bit != 0 {
                let now = clock.read();
                let left = connector.finish(now.mono_ns, budget, |attempt, outcome| {
                    connected(attempt, outcome, clock, tracker);
                });
                more |= u64::from(left) << bit;
            }
        }
        more
    }

    /// Sends a SYN by asking the kernel for a connection.
    fn connect(&mut self, leaving: &Leaving, family: Family, now_ns: u64) -> io::Result<()> {
        let connector = self
            .connectors
            .iter_mut()
            .find(|own| own.family() == family);
        let attempt = Attempt {
            slot: leaving.identity.slot,
            sequence: leaving.identity.sequence,
            mono_ns: now_ns,
        };
        connector
            .ok_or(io::ErrorKind::Unsupported)?
            .start(SocketAddr::new(leaving.address, leaving.port), attempt)
    }

    /// Bits of the sockets that owe transmit stamps or carry probes of late: those worth asking without being told.
    pub(super) fn lively(&self, now_ns: u64) -> u64 {
        let lately = |port: &Port| now_ns.saturating_sub(port.last_sent_ns) < STAMP_PATIENCE_NS;
        self.ports
            .iter()
            .map(lately)
            .chain(self.connectors.iter().map(Connector::is_busy))
            .zip(0..)
            .fold(0, |bits, (lively, at)| bits | u64::from(lively) << at)
    }
}

/// A connection ended. The kernel's round-trip time knows nothing of the wall clock, so a step spoils none.
fn connected(attempt: Attempt, outcome: Outcome, clock: &Clock, tracker: &mut Tracker) {
    let answered = match outcome {
        Outcome::Made { rtt_ns } => Connected::Made { rtt_ns },
        Outcome::Refused => Connected::Refused,
        Outcome::Unreachable => Connected::Unreachable,
    };
    let now = clock.last();
    tracker.on_connected((attempt.slot, attempt.sequence), answered, now.mono_ns);
}

/// What all sockets are read with.
struct Hands<'a> {
    inbox: &'a mut Inbox,
    stamps: &'a mut Inbox,
    stamp_key: Option<&'a Key>,
    key: TokenKey,
}

impl Port {
    fn new(channel: Channel, flow: u8) -> Self {
        Self {
            flow,
            ident: (channel.mode == Mode::Ping).then(|| channel.port()),
            channel,
            sent: 0,
            awaited: Vec::new(),
            owed: 0,
            last_sent_ns: 0,
            overflow: 0,
        }
    }

    /// Sends a packet; over IPv6 with the flow's label, unless the kernel minds.
    fn send(
        &mut self,
        leaving: &Leaving,
        label: u32,
        source: Option<IpAddr>,
        packet: &[u8],
    ) -> io::Result<()> {
        let number = match self.channel.mode {
            Mode::Udp => leaving.port,
            _ => 0,
        };
        let fd = self.channel.as_raw_fd();
        if let (true, IpAddr::V6(to)) = (self.channel.takes_labels, leaving.address) {
            let labelled = SocketAddrV6::new(to, number, label, 0);
            match message::send(fd, labelled.into(), source, packet) {
                // Somebody on this host reserves labels for himself.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    self.channel.takes_labels = false;
                }
                other => return other,
            }
        }
        message::send(fd, SocketAddr::new(leaving.address, number), source, packet)
    }

    /// Keeps count of packets as the kernel does.
    fn count(
        &mut self,
        sent: &io::Result<()>,
        probe: Option<(u32, u32)>,
        now_ns: u64,
        stamps: &mut Inbox,
        tracker: &mut Tracker,
    ) {
        match sent {
            Ok(()) => self.await_stamp(probe, now_ns),
            // Without a route the packet did not get as far as being counted.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable
                ) => {}
            Err(_) => self.restart_stamps(stamps, tracker),
        }
    }

    fn await_stamp(&mut self, probe: Option<(u32, u32)>, now_ns: u64) {
        if self.awaited.is_empty() {
            self.awaited = vec![None; STAMPS_AWAITED];
        }
        let id = self.sent;
        self.awaited[id as usize % STAMPS_AWAITED] = Some(Awaited {
            id,
            told: false,
            probe,
        });
        self.sent = id.wrapping_add(1);
        self.owed = self
            .owed
            .saturating_add(1 + u32::from(self.channel.by_card));
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
            key,
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
                    card_ns: packet.card_ns,
                    clock_era: clock.departure().clock_era,
                };
                let from = packet.from.ip();
                let icmp = |parsed: Result<icmp::Answer, NotAnAnswer>, tracker: &mut Tracker| {
                    let answer =
                        parsed.map(|answer| as_sent(answer, self.ident, key.ident_of(self.flow)));
                    answer.map(|answer| tracker.on_icmp(from, &answer, arrival))
                };
                let parsed = match (kind, family) {
                    (ProbeKind::Icmp, Family::V4) if self.ident.is_some() => {
                        icmp(icmp::parse_ping_v4(packet.bytes), tracker)
                    }
                    (ProbeKind::Icmp, Family::V4) => icmp(icmp::parse_v4(packet.bytes), tracker),
                    (ProbeKind::Icmp, Family::V6) => icmp(icmp::parse_v6(packet.bytes), tracker),
                    (ProbeKind::TcpSyn, Family::V4) => tcp_syn::parse_v4(packet.bytes)
                        .map(|answer| tracker.on_tcp(from, &answer, arrival)),
                    (ProbeKind::TcpSyn, Family::V6) => tcp_syn::parse_v6(packet.bytes)
                        .map(|answer| tracker.on_tcp(from, &answer, arrival)),
                    (ProbeKind::Stamp, _) => match Reply::decode(packet.bytes, *stamp_key) {
                        Ok(reply) => {
                            tracker.on_stamp(self.flow, packet.from, &reply, arrival);
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
                let awaited = awaited(&mut self.awaited, sent.id);
                let awaited = awaited.filter(|awaited| !awaited.told);
                let awaited = awaited.map(|awaited| {
                    awaited.told = true;
                    *awaited
                });
                let fits = awaited.is_some_and(|awaited| {
                    awaited.probe.is_none_or(|(slot, sequence)| {
                        tracker.stamp(slot, sequence, sent.stamp_ns).is_ok()
                    })
                });
                if !fits {
                    tracker.counters_mut().tx_stamps_unfit += 1;
                    all = Fit::No;
                }
            }
            for sent in stamps.sent_by_card() {
                let awaited = awaited(&mut self.awaited, sent.id);
                if let Some((slot, sequence)) = awaited.and_then(|awaited| awaited.probe) {
                    tracker.stamp_by_card(slot, sequence, sent.card_ns);
                }
            }
            if count < want {
                break;
            }
        }
        all
    }
}

/// What the how-manieth packet of a socket was, if that is still known.
fn awaited(all: &mut [Option<Awaited>], id: u32) -> Option<&mut Awaited> {
    all.get_mut(id as usize % STAMPS_AWAITED)?
        .as_mut()
        .filter(|awaited| awaited.id == id)
}

/// A reply with the identifier that it would have if the kernel had not put in its own, which it has checked.
fn as_sent(answer: icmp::Answer, kernels: Option<u16>, ours: u16) -> icmp::Answer {
    match answer {
        icmp::Answer::Reply(echo) if kernels == Some(echo.ident) => icmp::Answer::Reply(Echo {
            ident: ours,
            ..echo
        }),
        other => other,
    }
}
