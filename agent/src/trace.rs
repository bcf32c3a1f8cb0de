//! Traces routes, and finds the largest packet that comes through, when it is asked to.
//!
//! One thread carries out one errand after the other; it has sockets of its own, so the probe thread never waits for it,
//! and a budget: [`TRACES_PER_MINUTE`], at most fifty packets a second. What is traced is what is measured: the probes are
//! of the first flow of the path's own ([`packet`]). What comes next and what answers add up to is decided by [`course`] and
//! [`mtu`], which know neither sockets nor clocks.
//!
//! ```text
//!   errands ──▶ Tracer ──▶ course, mtu ──▶ packet ──▶ net/tracing ══▶ routers, target
//!   uplink ◀── Finding ◀──┴───────────────┴────────────┘
//! ```

use std::{
    collections::VecDeque,
    io,
    net::IpAddr,
    os::fd::AsRawFd,
    thread::{self, JoinHandle},
    time::Duration,
};

use leeward_common::{
    finding::{
        Declined, Finding, Trace,
        trace::{End, PathMtu, Strays},
    },
    report::ProbeKind,
    time::{Clock as _, SystemClock},
};
use tokio::sync::mpsc;
use tracing::{debug, info};

use crate::{
    bgp::systems::Systems,
    errands::TraceErrand,
    net::{
        clock::monotonic_ns,
        message::{BATCH, Inbox, Queue},
        tracing::{TraceSocket, TraceSockets, interface_mtu, source_towards},
        wake,
    },
    probe::{stamp::Key, token::TokenKey},
    prober::{Family, PlannedPath, ProberConfig},
    random,
};

pub mod course;
pub mod mtu;
pub mod packet;

use course::{Course, Told};
use packet::{Flow, Heard, Stray, What};

/// Traces that are begun within a minute. Each costs a router three packets.
pub const TRACES_PER_MINUTE: usize = 6;

/// The time to live of what is to come to the target.
const FAR: u8 = 64;

/// Receive calls between two looks at what is due: a flood delays a trace, and never the prober.
const CALLS_MAX: usize = 8;

/// Probes of the search for the largest packet are numbered from here; those of the route come before.
const FIRST_OF_MTU: u16 = 1_000;

/// Traces.
#[derive(Debug)]
pub struct Tracer {
    sockets: TraceSockets,
    key: TokenKey,
    stamp_key: Option<Key>,
    source_port: u16,
    bind: [Option<IpAddr>; 2],
    /// When the last traces began, nanoseconds of the monotonic clock.
    begun: VecDeque<u64>,
    inbox: Inbox,
    stamps: Inbox,
    /// Who knows whose an address is.
    systems: Option<Systems>,
}

impl Tracer {
    /// One with these sockets, and the prober's secret and ports.
    #[must_use]
    pub fn new(sockets: TraceSockets, config: &ProberConfig) -> Self {
        Self {
            sockets,
            key: TokenKey::new(config.secret),
            stamp_key: config.stamp_key.clone(),
            source_port: *config.syn_source_ports.start(),
            bind: [
                config.bind_v4.map(Into::into),
                config.bind_v6.map(Into::into),
            ],
            begun: VecDeque::new(),
            inbox: Inbox::default(),
            stamps: Inbox::default(),
            systems: None,
        }
    }

    /// The same, and hops get the systems that they belong to, where routers tell.
    #[must_use]
    pub fn naming(self, systems: Systems) -> Self {
        Self {
            systems: Some(systems),
            ..self
        }
    }

    /// Carries out errands on a thread of its own until nobody can send any more.
    ///
    /// # Errors
    ///
    /// Returns the system's refusal to start a thread.
    pub fn start(
        mut self,
        mut errands: mpsc::Receiver<TraceErrand>,
        found: mpsc::Sender<Finding>,
    ) -> io::Result<JoinHandle<()>> {
        let work = move || {
            while let Some(errand) = errands.blocking_recv() {
                if found.blocking_send(self.carry_out(&errand)).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().name("trace".to_owned()).spawn(work)
    }

    /// Carries out one errand, if the budget allows it.
    pub fn carry_out(&mut self, errand: &TraceErrand) -> Finding {
        match self.take_budget(monotonic_ns()) {
            Err(reason) => Finding::Declined(Declined {
                order: errand.order,
                reason,
            }),
            Ok(()) => self.trace(errand),
        }
    }

    fn take_budget(&mut self, now: u64) -> Result<(), String> {
        const MINUTE_NS: u64 = 60_000_000_000;
        self.begun.retain(|begun| begun + MINUTE_NS > now);
        match self.begun.front() {
            Some(first) if self.begun.len() >= TRACES_PER_MINUTE => {
                let wait = Duration::from_nanos(first + MINUTE_NS - now).as_secs() + 1;
                Err(format!(
                    "this agent traces {TRACES_PER_MINUTE} routes a minute; try again in {wait} s"
                ))
            }
            _ => {
                self.begun.push_back(now);
                Ok(())
            }
        }
    }

    fn trace(&mut self, errand: &TraceErrand) -> Finding {
        let PlannedPath { path, address, .. } = &errand.path;
        let (family, order) = (Family::of(address), errand.order);
        if !self.sockets.has(path.kind, family) {
            let reason = format!("no {} probes over {}", path.kind, family.as_str());
            return Finding::Declined(Declined { order, reason });
        }
        let (began, at) = (SystemClock.now(), monotonic_ns());
        let mut trace = Trace {
            order: Some(order),
            target: path.target.clone(),
            region: path.region.clone(),
            kind: path.kind,
            address: *address,
            began,
            took_us: 0,
            hops: Vec::new(),
            end: End::Silent,
            mtu: None,
            strays: Strays::default(),
        };
        if let Err(error) = self.run(errand, &mut trace) {
            debug!(target = %path.target, %error, "a trace could not be sent");
            trace.end = End::NotSent(error.to_string());
        }
        self.sockets.rest();
        trace.took_us = (monotonic_ns() - at) / 1_000;
        if let Some(systems) = &self.systems {
            name(&mut trace, systems);
        }
        info!(target = %path.target, kind = %path.kind, hops = trace.hops.len(), end = ?trace.end, "traced");
        Finding::Trace(Box::new(trace))
    }

    fn run(&mut self, errand: &TraceErrand, trace: &mut Trace) -> io::Result<()> {
        let to = errand.path.address;
        let family = Family::of(&to);
        let source = match self.bind[family as usize] {
            Some(address) => address,
            None => source_towards(to)?,
        };
        let flow = Flow {
            kind: errand.path.path.kind,
            from: source,
            to,
            source_port: match errand.path.path.kind {
                ProbeKind::Stamp => self.sockets.stamp_port(family).unwrap_or(0),
                ProbeKind::Icmp | ProbeKind::TcpSyn => self.source_port,
            },
            port: errand.path.port,
            key: self.key,
            stamp_key: self.stamp_key.clone(),
            nonce: u64::from_be_bytes(random::bytes()),
        };
        self.sockets.attend(source);
        let mut line = Line::new(self, &flow)?;
        let course = line.route()?;
        (trace.hops, trace.end) = course.finish();
        trace.strays = line.strays;
        if errand.mtu {
            let by_echo = flow.by_echo();
            let mut line = Line::new(self, &by_echo)?;
            let local = interface_mtu(source)?;
            trace.mtu = line.largest(local, course.rtt_ns().unwrap_or(0));
            add(&mut trace.strays, line.strays);
        }
        Ok(())
    }
}

/// Whose the addresses of its hops are.
fn name(trace: &mut Trace, systems: &Systems) {
    let answers = trace.hops.iter().flat_map(|hop| &hop.answers);
    let addresses = answers.map(|answer| answer.from).collect();
    let systems = systems.of(addresses);
    let answers = trace.hops.iter_mut().flat_map(|hop| &mut hop.answers);
    for (answer, system) in answers.zip(systems) {
        answer.asn = system;
    }
}

fn add(sum: &mut Strays, more: Strays) {
    sum.truncated = sum.truncated.saturating_add(more.truncated);
    sum.foreign = sum.foreign.saturating_add(more.foreign);
    sum.forged = sum.forged.saturating_add(more.forged);
}

/// A probe that left.
#[derive(Clone, Copy, Debug)]
struct Left {
    number: u16,
    at_ns: u64,
    /// When the driver took it, nanoseconds of the wall clock.
    stamp_ns: Option<u64>,
}

/// One flow on its sockets.
struct Line<'a> {
    flow: &'a Flow,
    sender: &'a TraceSocket,
    /// The sender's, and where errors about it come to.
    receivers: Vec<&'a TraceSocket>,
    inbox: &'a mut Inbox,
    stamps: &'a mut Inbox,
    /// In the order of sending, which is that of the kernel's count.
    left: Vec<Left>,
    strays: Strays,
}

/// What came of one look at the sockets.
type News = (Heard, IpAddr, u32);

impl<'a> Line<'a> {
    fn new(tracer: &'a mut Tracer, flow: &'a Flow) -> io::Result<Self> {
        let Tracer {
            sockets,
            inbox,
            stamps,
            ..
        } = tracer;
        let (kind, family) = (flow.kind, flow.family());
        let none = || io::Error::from(io::ErrorKind::Unsupported);
        let sender = sockets.get(kind, family).ok_or_else(none)?;
        let errors = sockets.get(ProbeKind::Icmp, family).ok_or_else(none)?;
        let mut receivers = vec![sender];
        if kind != ProbeKind::Icmp {
            receivers.push(errors);
        }
        let mut line = Self {
            flow,
            sender,
            receivers,
            inbox,
            stamps,
            left: Vec::new(),
            strays: Strays::default(),
        };
        // What waits is about something else; so are stamps of before.
        line.read(&mut Vec::new());
        line.strays = Strays::default();
        sender.restart_stamps()?;
        Ok(line)
    }

    fn route(&mut self) -> io::Result<Course> {
        let bytes = self.flow.probe_bytes();
        let mut course = Course::default();
        loop {
            let now = monotonic_ns();
            match course.step(now) {
                course::Step::Done => return Ok(course),
                course::Step::Wait(until) => self.wait(until),
                course::Step::Send { at, ttl } => self.send(at, ttl, bytes)?,
            }
            for (heard, from, rtt_us) in self.news() {
                let What::Says(says) = heard.what else {
                    continue;
                };
                let told = Told {
                    from,
                    says,
                    rtt_us,
                    labels: heard.labels,
                };
                if !course.on_answer(heard.number, told) {
                    self.strays.forged = self.strays.forged.saturating_add(1);
                }
            }
        }
    }

    fn largest(&mut self, local: u16, rtt_ns: u64) -> Option<PathMtu> {
        let header = if self.flow.to.is_ipv6() { 40 } else { 20 };
        let mut search = mtu::Search::new(self.flow.to.is_ipv6(), local, rtt_ns);
        loop {
            let now = monotonic_ns();
            match search.step(now) {
                mtu::Step::Done => return search.finish(),
                mtu::Step::Wait(until) => self.wait(until),
                mtu::Step::Send { at, bytes } => {
                    let sent = self.send(FIRST_OF_MTU + at, FAR, usize::from(bytes) - header);
                    if sent.is_err() {
                        search.on_not_sent(now, at);
                    }
                }
            }
            for (heard, from, _) in self.news() {
                let now = monotonic_ns();
                let at = heard.number.wrapping_sub(FIRST_OF_MTU);
                let known = match heard.what {
                    What::Says(leeward_common::finding::trace::Says::Reached) => {
                        search.on_reply(now, at)
                    }
                    What::TooBig(fits) => search.on_too_big(now, at, fits, from),
                    // What does not come to the target goes unanswered.
                    What::Says(_) => true,
                };
                if !known {
                    self.strays.forged = self.strays.forged.saturating_add(1);
                }
            }
        }
    }

    fn send(&mut self, number: u16, ttl: u8, bytes: usize) -> io::Result<()> {
        let packet = self.flow.probe(number, bytes);
        let source = self.flow.source_v4().map(IpAddr::V4);
        let route = (ttl, self.flow.label());
        let at_ns = monotonic_ns();
        if let Err(error) = self.sender.send(self.flow.to, source, route, &packet) {
            // Kernels differ in whether it was counted: those that left so far keep their stamps, the count begins anew.
            self.collect_stamps();
            self.left.clear();
            self.sender.restart_stamps()?;
            return Err(error);
        }
        self.left.push(Left {
            number,
            at_ns,
            stamp_ns: None,
        });
        Ok(())
    }

    fn wait(&self, until: u64) {
        let watched: Vec<_> = self.receivers.iter().map(|own| own.as_raw_fd()).collect();
        wake::wait(&watched, until);
    }

    /// Answers that came, who sent them, and after how many microseconds.
    fn news(&mut self) -> Vec<News> {
        let mut news = Vec::new();
        self.read(&mut news);
        news
    }

    fn read(&mut self, news: &mut Vec<News>) {
        for at in 0..self.receivers.len() {
            let receiver = self.receivers[at];
            for _ in 0..CALLS_MAX {
                let received = self
                    .inbox
                    .receive(receiver.as_raw_fd(), Queue::Packets, BATCH);
                let count = received.unwrap_or(0);
                let now = monotonic_ns();
                self.collect_stamps();
                for packet in self.inbox.packets() {
                    let from = packet.from.ip();
                    let heard = match receiver.kind {
                        ProbeKind::Icmp => self.flow.on_icmp(from, packet.bytes),
                        ProbeKind::TcpSyn => self.flow.on_tcp(from, packet.bytes),
                        ProbeKind::Stamp => self.flow.on_udp(from, packet.bytes),
                    };
                    let left =
                        |heard: &Heard| self.left.iter().find(|own| own.number == heard.number);
                    match heard {
                        Ok(heard) => match left(&heard) {
                            Some(left) => {
                                let rtt_us = rtt_us(left, now, packet.stamp_ns);
                                news.push((heard, from, rtt_us));
                            }
                            None => self.strays.forged = self.strays.forged.saturating_add(1),
                        },
                        Err(stray) => {
                            let strays = &mut self.strays;
                            let count = match stray {
                                Stray::Truncated => &mut strays.truncated,
                                Stray::Foreign => &mut strays.foreign,
                                Stray::Forged => &mut strays.forged,
                            };
                            *count = count.saturating_add(1);
                        }
                    }
                }
                if count < BATCH {
                    break;
                }
            }
        }
    }

    /// Transmit stamps, by the kernel's count of what was sent.
    fn collect_stamps(&mut self) {
        for _ in 0..CALLS_MAX {
            let received = self
                .stamps
                .receive(self.sender.as_raw_fd(), Queue::Errors, BATCH);
            for sent in self.stamps.sent() {
                if let Some(left) = self.left.get_mut(sent.id as usize) {
                    left.stamp_ns = Some(sent.stamp_ns);
                }
            }
            if received.unwrap_or(0) < BATCH {
                return;
            }
        }
    }
}

/// By the kernel's stamps where both are there and fit what this thread saw, which is later: a wall clock that was set in
/// between does not.
fn rtt_us(left: &Left, now: u64, received_ns: Option<u64>) -> u32 {
    let seen_ns = now.saturating_sub(left.at_ns);
    let kernel = received_ns.zip(left.stamp_ns);
    let kernel = kernel.and_then(|(received, sent)| received.checked_sub(sent));
    let ns = kernel.filter(|&ns| ns <= seen_ns).unwrap_or(seen_ns);
    u32::try_from(ns / 1_000).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_times_are_the_kernels_unless_the_clock_was_set() {
        let left = Left {
            number: 0,
            at_ns: 1_000_000,
            stamp_ns: Some(50_000_000),
        };
        assert_eq!(rtt_us(&left, 9_000_000, Some(57_000_000)), 7_000);
        assert_eq!(rtt_us(&left, 9_000_000, Some(49_000_000)), 8_000);
        assert_eq!(rtt_us(&left, 9_000_000, Some(99_000_000)), 8_000);
        assert_eq!(rtt_us(&left, 9_000_000, None), 8_000);
    }

    #[test]
    fn hops_get_the_systems_that_routers_tell_and_none_where_they_tell_nothing() {
        use crate::bgp::{
            observer::Observer,
            peer::{Event, Feed, end_of_table},
            systems::channel,
            tables::Extent,
            update::{AsPath, Attributes, Family, Nlri, Update},
            watch::Watchlist,
        };
        let mut observer = Observer::new(Watchlist::default()).keeping(Extent {
            is_full: true,
            ..Extent::default()
        });
        let feed = Feed::session([10, 0, 0, 1].into());
        let at = |secs: u64| leeward_common::time::Timestamp::from_unix_us(secs * 1_000_000);
        observer.on(at(0), &feed, &Event::Up { system: 64_501 });
        let announced = Event::Update(Update {
            announced: vec![Nlri {
                prefix: "10.7.0.0/16".parse().unwrap(),
                path_id: 0,
            }],
            attributes: std::sync::Arc::new(Attributes {
                path: AsPath::sequence(&[64_501, 64_507]),
                ..Attributes::default()
            }),
            ..Update::default()
        });
        observer.on(at(1), &feed, &announced);
        observer.on(at(2), &feed, &end_of_table(Family::V4));
        let named = |trace: &Trace| -> Vec<_> {
            let answers = trace.hops.iter().flat_map(|hop| &hop.answers);
            answers.map(|answer| answer.asn).collect()
        };
        let hops = ["10.0.0.1", "", "10.7.1.1"];
        let mut trace = leeward_common::finding::trace::sample(&hops);
        // A feed that loads its table is not believed yet.
        for (is_believed, expected) in [(false, [None, None]), (true, [None, Some(64_507)])] {
            if is_believed {
                observer.pass(at(13));
                observer.pass(at(24));
            }
            let (systems, mut questions) = channel();
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let runtime = tokio::runtime::Builder::new_current_thread().build();
                    let question = runtime.unwrap().block_on(questions.next());
                    question.answer(&observer);
                });
                name(&mut trace, &systems);
            });
            assert_eq!(named(&trace), expected);
        }
        // Nobody answers.
        let (systems, questions) = channel();
        drop(questions);
        name(&mut trace, &systems);
        assert_eq!(named(&trace), [None, None]);
    }

    #[test]
    fn the_budget_is_so_many_a_minute() {
        let config = ProberConfig::new([7; 16], 1);
        let mut tracer = Tracer::new(TraceSockets::default(), &config);
        for at in 0..TRACES_PER_MINUTE as u64 {
            assert_eq!(tracer.take_budget(at), Ok(()));
        }
        let reason = tracer.take_budget(10_000_000_000).unwrap_err();
        assert!(reason.ends_with("try again in 51 s"), "{reason}");
        assert_eq!(tracer.take_budget(60_000_000_000), Ok(()));
        assert!(tracer.take_budget(60_000_000_000).is_err());
    }
}
