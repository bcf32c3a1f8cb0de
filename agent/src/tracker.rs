//! The tracker: every probe ends in exactly one class, and the classes add up to what was scheduled. Pure.
//!
//! Each path has a ring of places for the probes that it can have under way, laid out when the plan is taken. An
//! answer names its place (row and sequence), so finding its probe costs one index and no memory is allocated per
//! probe. Errors and TCP answers name no place; they are found by the address that was probed.
//!
//! ```text
//!            depart              answer in time                 expiry passed
//!   Empty ──────────▶ Open ─────────────────────▶ Answered ─────────────────────▶ Empty
//!                      │ deadline passed              │ answered again, same window: Replied becomes Duplicate
//!                      ▼                              ▼
//!                   Overdue ── answer ──▶ Answered (as Late)
//!                      └────── expiry ──▶ Lost
//! ```
//!
//! Deadline and expiry need no timers: they are looked at when a window closes, and an answer carries its own time.
//! An answer that the kernel stamped in time counts as in time, however late this process came to read it.
//!
//! Between windows the tracker looks only at paths that may just have fallen silent ([`Tracker::look`]), at instants that
//! departures tell it ([`Tracker::next_look_ns`]): an outage is news, and its report does not wait for the window's end.
//!
//! What is not the network's fault is never its loss: a probe ends as [`Class::LocalDrop`] when the kernel refused it,
//! when it went unanswered while a receive queue overflowed, when its answer came but the wall clock had stepped
//! under it, or when a new plan left no room for it.

mod answered;
pub(crate) mod directions;
mod matching;
mod place;

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use leeward_common::{
    deadline::Deadline,
    report::{Class, ProbeKind, Report, Window},
    silence::{Listener, Rule},
    time::Timestamp,
};

use crate::{
    flow::{Rotation, Turn},
    probe::{
        icmp::{self, Echo, Quoted},
        stamp, tcp_syn,
        token::{Identity, TokenKey},
    },
    prober::{Counters, Family, Plan, PlannedPath, counters::Stray},
    window::{
        Begin, Standing, Tally,
        flows::{FlowAccount, FlowSpan},
    },
};
use answered::Answered;
use directions::{Directions, Told, Unheard};
use place::{Eras, NO_STAMP, Probe, State};

pub use place::{Arrival, Departure};

/// How far apart a SYN/ACK and its retransmission are at least, nanoseconds: Linux begins with a second.
const RETRANSMISSION_NS: u64 = 900_000_000;

const NO_ROW: u32 = u32::MAX;

type OverflowedNs = [[Option<u64>; 2]; ProbeKind::ALL.len()];

/// One path.
#[derive(Clone, Debug)]
struct Line {
    /// What its probes call it: unlike its row it stays when the plan changes, for answers still under way.
    slot: u32,
    address: IpAddr,
    port: u16,
    kind: ProbeKind,
    /// The next probe's sequence.
    sequence: u32,
    /// Probes due or sent that have not ended.
    open: u32,
    deadline: Deadline,
    listener: Listener,
    rotation: Rotation,
    /// Of paths with a reflector, one for each flow: to the reflector they are sessions of their own. Boxed twice, as most
    /// paths have none.
    directions: Option<Box<Box<[Directions]>>>,
}

/// What leaves, and whereto.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Leaving {
    /// The probe.
    pub identity: Identity,
    /// How.
    pub kind: ProbeKind,
    /// The target's address.
    pub address: IpAddr,
    /// The target's port; unused by ICMP.
    pub port: u16,
    /// Our port; unused by ICMP, and by STAMP, whose sockets have theirs.
    pub source_port: u16,
    /// Which of the path's flows, from 0.
    pub flow: u8,
    /// The how-manieth probe of the flow.
    pub nth: u32,
    /// Of a SYN: the sequence number of the reset that ends what the last SYN by the same port may have left half open.
    pub reset: Option<u32>,
}

/// What came of a connection that the kernel was asked for in place of a SYN.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Connected {
    /// It was made; how long the handshake took by the kernel's account, nanoseconds.
    Made {
        /// From the SYN to its answer.
        rtt_ns: u64,
    },
    /// The port is closed.
    Refused,
    /// An ICMP error.
    Unreachable,
}

/// The probes of a plan.
#[derive(Debug)]
pub struct Tracker {
    key: TokenKey,
    first_port: u16,
    ports: u16,
    /// Flows of a path, as the plan has them.
    flows: u8,
    expiry_ns: u64,
    depth: u32,
    lines: Vec<Line>,
    /// `depth` places for each line.
    probes: Vec<Probe>,
    eras: Eras,
    /// When a card stamped each of them as it left, nanoseconds of the card's clock, or 0; empty until a card does.
    by_card: Vec<u64>,
    /// Slot to row; [`NO_ROW`] where a slot is free.
    rows: Vec<u32>,
    /// Rows by kind, address and port.
    by_address: Vec<u32>,
    /// Per kind and family: when a receive queue was last found to have overflowed, monotonic nanoseconds.
    overflowed_ns: OverflowedNs,
    silence: Option<Rule>,
    next_look_ns: u64,
    tally: Tally,
    counters: Counters,
}

impl Tracker {
    /// Tracks nothing yet. Source ports of SYN probes are `first_port` and the `ports - 1` that follow.
    #[must_use]
    pub fn new(key: TokenKey, first_port: u16, ports: u16, now: Timestamp) -> Self {
        Self {
            key,
            first_port,
            ports: ports.max(1),
            flows: 1,
            expiry_ns: 0,
            depth: 1,
            lines: Vec::new(),
            probes: Vec::new(),
            eras: Eras::default(),
            by_card: Vec::new(),
            rows: Vec::new(),
            by_address: Vec::new(),
            overflowed_ns: Default::default(),
            silence: None,
            next_look_ns: u64::MAX,
            tally: Tally::new(
                now,
                Duration::from_secs(1),
                leeward_common::histogram::Schema::default(),
                0,
                1,
            ),
            counters: Counters::default(),
        }
    }

    /// Takes a new plan; `old` are the paths of the one before. To be called between windows: it begins one. Paths in
    /// both keep their probes, sequence and deadline.
    pub fn replan(&mut self, now: Timestamp, old: &[PlannedPath], plan: &Plan) {
        self.tally.replan(now, plan);
        self.expiry_ns = u64::try_from(plan.expiry.as_nanos()).unwrap_or(u64::MAX);
        self.silence = plan.silence;
        self.next_look_ns = 0;
        let depth =
            u32::try_from(plan.depth()).expect("a plan that was checked has a bounded depth");
        // With another number of flows every number of a probe means another one: then all paths begin anew.
        let old = if self.flows == plan.flows { old } else { &[] };
        self.flows = plan.flows;
        let kept = continued(old, &plan.paths);

        let mut free = vec![true; self.rows.len()];
        for &from in kept.iter().flatten() {
            free[self.lines[from].slot as usize] = false;
        }
        let mut slots = (0u32..).filter(|&slot| free.get(slot as usize).copied().unwrap_or(true));
        let mut lines: Vec<Line> = Vec::with_capacity(plan.paths.len());
        for (path, from) in plan.paths.iter().zip(&kept) {
            lines.push(match from {
                Some(from) => self.lines[*from].resized(depth),
                None => {
                    let slot = slots.next().expect("there is always a further slot");
                    let rotation = self.key.rotation(slot, self.flows_of(path.path.kind));
                    Line::new(slot, path, depth, rotation)
                }
            });
        }
        let open = |lines: &[Line]| lines.iter().map(|line| u64::from(line.open)).sum::<u64>();
        self.counters.abandoned += open(&self.lines) - open(&lines);

        let mut probes = vec![Probe::default(); lines.len() * depth as usize];
        for (row, from) in (0u32..).zip(&kept) {
            let Some(from) = from else { continue };
            // Oldest first, so that where a smaller ring has no room for all, the newest stay.
            let mut ring =
                self.probes[from * self.depth as usize..][..self.depth as usize].to_vec();
            ring.retain(|probe| probe.state != State::Empty);
            ring.sort_unstable_by_key(|probe| self.eras.mono_ns(probe));
            for probe in ring {
                let place = &mut probes[place(depth, row, probe.sequence)];
                if place.is_under_way() {
                    end(
                        &mut self.counters,
                        &mut self.tally,
                        &mut lines[row as usize],
                        (row, place.sequence),
                        Class::LocalDrop,
                    );
                }
                *place = probe;
            }
        }

        self.rows = vec![
            NO_ROW;
            lines
                .iter()
                .map(|line| line.slot as usize + 1)
                .max()
                .unwrap_or(0)
        ];
        for (row, line) in (0u32..).zip(&lines) {
            self.rows[line.slot as usize] = row;
        }
        self.by_address = (0u32..).zip(&lines).map(|(row, _)| row).collect();
        self.by_address
            .sort_by_key(|&row| lines[row as usize].found_by());
        (self.depth, self.lines, self.probes) = (depth, lines, probes);
        // For probes under way the kernel's stamps will do.
        self.by_card = Vec::new();
    }

    /// Counts so far.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Counts so far, for what only the caller sees.
    pub const fn counters_mut(&mut self) -> &mut Counters {
        &mut self.counters
    }

    /// The window in progress.
    #[must_use]
    pub const fn window(&self) -> Window {
        self.tally.window()
    }

    /// Memory kept for a path, bytes, without what its histogram holds.
    #[must_use]
    pub fn bytes_of(&self, row: u32) -> usize {
        let line = &self.lines[row as usize];
        let rows = 2 * size_of::<u32>();
        let flows = if self.flows > 1 {
            usize::from(self.flows) * size_of::<FlowAccount>()
        } else {
            0
        };
        let directions: usize = line.directions().iter().map(Directions::bytes).sum();
        size_of::<Line>()
            + rows
            + size_of::<Report>()
            + self.depth as usize * size_of::<Probe>()
            + flows
            + directions
    }

    /// SYNs have no more flows than source ports.
    fn flows_of(&self, kind: ProbeKind) -> u8 {
        match kind {
            ProbeKind::TcpSyn => self.flows.min(u8::try_from(self.ports).unwrap_or(u8::MAX)),
            ProbeKind::Icmp | ProbeKind::Stamp => self.flows,
        }
    }

    /// The kind and family of a path.
    #[must_use]
    pub fn kind_of(&self, row: u32) -> (ProbeKind, Family) {
        let line = &self.lines[row as usize];
        (line.kind, Family::of(&line.address))
    }

    /// A probe became due and is not sent: too late, or over the rate cap.
    pub fn not_sent(&mut self, row: u32, count: u64) {
        let row_count = u32::try_from(count).unwrap_or(u32::MAX);
        self.tally.scheduled(row, row_count);
        self.tally.ended_many(row, Class::NotSent, row_count);
        self.counters.scheduled += count;
        self.counters.classes[Class::NotSent as usize] += count;
    }

    /// A probe became due and leaves now.
    pub fn depart(&mut self, row: u32, now: Departure) -> Leaving {
        let line = &mut self.lines[row as usize];
        let sequence = line.sequence;
        line.sequence = sequence.wrapping_add(1);
        if sequence == 0 {
            line.listener = Listener::new(now.mono_ns / 1_000);
        }
        let place = place(self.depth, row, sequence);
        self.eras.note(now);
        let probe = &mut self.probes[place];
        if let Some(card_ns) = self.by_card.get_mut(place) {
            *card_ns = 0;
        }
        if probe.is_under_way() {
            // The ring is deep enough for every probe within the expiry. What is displaced before is our own doing.
            let left_ns = self.eras.mono_ns(probe);
            let class = if now.mono_ns.saturating_sub(left_ns) >= self.expiry_ns {
                unanswered(&self.overflowed_ns, line, left_ns)
            } else {
                Class::LocalDrop
            };
            let displaced = (row, probe.sequence);
            end(&mut self.counters, &mut self.tally, line, displaced, class);
        }
        if let Some((directions, nth)) = line.session(sequence) {
            directions.depart(nth);
        }
        let deadline = line.deadline.after(Duration::from_nanos(self.expiry_ns));
        *probe = Probe {
            wall_ns: now.wall_ns,
            sequence,
            stamp_after_ns: NO_STAMP,
            deadline_us: u32::try_from(deadline.as_micros()).unwrap_or(u32::MAX),
            window: 0,
            clock_era: now.clock_era,
            state: State::Open,
        };
        line.open += 1;
        if let Some(rule) = self.silence
            && let Some(from_us) = line.listener.silent_from_us(rule, line.open)
        {
            let overdue_ns = now.mono_ns.saturating_add(deadline.as_nanos() as u64);
            let look_ns = from_us.saturating_mul(1_000).max(overdue_ns);
            self.next_look_ns = self.next_look_ns.min(look_ns);
        }
        self.tally.scheduled(row, 1);
        self.counters.scheduled += 1;
        let Turn { flow, nth } = line.rotation.turn(sequence);
        Leaving {
            identity: self.key.identity(line.slot, sequence, now.wall_ns),
            kind: line.kind,
            address: line.address,
            port: line.port,
            source_port: self.first_port + u16::from(flow),
            flow,
            nth,
            reset: self.half_open(row, sequence, flow),
        }
    }

    /// What ends the connection that the last SYN by the same port began, unless it was refused. Whether it was answered
    /// does not matter: this host's own reset may be lost as any packet.
    fn half_open(&self, row: u32, sequence: u32, flow: u8) -> Option<u32> {
        let line = &self.lines[row as usize];
        if line.kind != ProbeKind::TcpSyn {
            return None;
        }
        let mut before = (1..self.depth).map_while(|back| sequence.checked_sub(back));
        let last = before.find(|&earlier| line.rotation.turn(earlier).flow == flow)?;
        let probe = &self.probes[place(self.depth, row, last)];
        let identity = self.key.identity(line.slot, last, probe.wall_ns);
        let was_sent = probe.sequence == last && probe.wall_ns > 0 && probe.state != State::Done;
        was_sent.then(|| identity.syn_sequence().wrapping_add(1))
    }

    /// The kernel refused a probe that was to leave.
    pub fn refused_locally(&mut self, row: u32, sequence: u32) {
        let Some(probe) = self
            .probe_mut(row, sequence)
            .filter(|probe| probe.is_under_way())
        else {
            return;
        };
        probe.state = State::Empty;
        let line = &mut self.lines[row as usize];
        if let Some((directions, nth)) = line.session(sequence) {
            directions.ended(nth, Unheard::NotSent, self.tally.one_way(row));
        }
        end(
            &mut self.counters,
            &mut self.tally,
            line,
            (row, sequence),
            Class::LocalDrop,
        );
    }

    /// The kernel says when a probe left.
    ///
    /// # Errors
    ///
    /// Returns [`UnfitStamp`] when it cannot be that probe's.
    pub fn stamp(&mut self, slot: u32, sequence: u32, stamp_ns: u64) -> Result<(), UnfitStamp> {
        let row = self.row_of(slot).ok_or(UnfitStamp)?;
        let probe = self.probe_mut(row, sequence).ok_or(UnfitStamp)?;
        // A stamp before the send belongs to another probe.
        let after = stamp_ns.checked_sub(probe.wall_ns).ok_or(UnfitStamp)?;
        probe.stamp_after_ns = u32::try_from(after).map_err(|_| UnfitStamp)?;
        Ok(())
    }

    /// A card says when a probe left, by its own clock. What is not under way it does not change.
    pub fn stamp_by_card(&mut self, slot: u32, sequence: u32, card_ns: u64) {
        let Some(row) = self.row_of(slot) else { return };
        if self.probe(row, sequence).is_some() {
            self.by_card.resize(self.probes.len(), 0);
            self.by_card[place(self.depth, row, sequence)] = card_ns;
        }
    }

    /// An ICMP message came.
    pub fn on_icmp(&mut self, from: IpAddr, answer: &icmp::Answer, arrival: Arrival) {
        match answer {
            icmp::Answer::Reply(echo) => self.on_echo(from, echo, arrival),
            icmp::Answer::Error { quoted, .. } => self.on_error(quoted, arrival),
        }
    }

    /// An echo reply came.
    pub fn on_echo(&mut self, from: IpAddr, echo: &Echo, arrival: Arrival) {
        if let Err(stray) = self.match_echo(from, echo, arrival) {
            self.stray(stray);
        }
    }

    /// An answer to a SYN came.
    pub fn on_tcp(&mut self, from: IpAddr, answer: &tcp_syn::Answer, arrival: Arrival) {
        if let Err(stray) = self.match_tcp(from, answer, arrival) {
            self.stray(stray);
        }
    }

    /// A STAMP reply came to the socket of a flow.
    pub fn on_stamp(&mut self, flow: u8, from: SocketAddr, reply: &stamp::Reply, arrival: Arrival) {
        if let Err(stray) = self.match_stamp(flow, from, reply, arrival) {
            self.stray(stray);
        }
    }

    /// A connection ended that the kernel was asked for as a probe, named by slot and sequence.
    pub fn on_connected(
        &mut self,
        (slot, sequence): (u32, u32),
        connected: Connected,
        now_ns: u64,
    ) {
        let row = self.row_of(slot);
        let probe = row.and_then(|row| Some((row, *self.probe(row, sequence)?)));
        let Some((row, probe)) = probe else {
            return self.stray(Stray::UnknownProbe);
        };
        let (answered, rtt_ns) = match connected {
            Connected::Made { rtt_ns } => (Answered::Reply, Some(rtt_ns)),
            Connected::Refused => (Answered::Reset, None),
            Connected::Unreachable => (Answered::Error, None),
        };
        if rtt_ns.is_some() {
            // Both ends of the time are the kernel's, so it is as if the probe had left when it was asked for.
            let _ = self.stamp(slot, sequence, probe.wall_ns);
        }
        let arrival = Arrival {
            mono_ns: now_ns,
            stamp_ns: rtt_ns.map(|rtt_ns| probe.wall_ns.saturating_add(rtt_ns)),
            card_ns: None,
            clock_era: probe.clock_era,
        };
        if let Err(stray) = self.answered(row, sequence, answered, arrival) {
            self.stray(stray);
        }
    }

    /// An ICMP error came that quotes a packet like ours.
    pub fn on_error(&mut self, quoted: &Quoted, arrival: Arrival) {
        if let Err(stray) = self.match_error(quoted, arrival) {
            self.stray(stray);
        }
    }

    /// A packet came that answers nothing.
    pub fn stray(&mut self, kind: Stray) {
        self.counters.strays[kind as usize] += 1;
    }

    /// A receive queue was found to have dropped packets.
    pub fn overflowed(&mut self, kind: ProbeKind, family: Family, now_ns: u64, count: u64) {
        self.counters.receive_overflow += count;
        self.overflowed_ns[kind as usize][family as usize] = Some(now_ns);
    }

    /// Closes the window at `end_ns` of the monotonic clock: looks for passed deadlines and expiries and returns the
    /// rows. The next window is begun by [`Self::begin`] or [`Self::replan`].
    pub fn close(&mut self, end_ns: u64) -> (Window, Vec<(u32, Report)>) {
        for row in 0..self.lines.len() as u32 {
            if self.lines[row as usize].open > 0 {
                self.mind_deadlines(row, end_ns);
            }
        }
        self.counters.windows += 1;
        let (lines, end_us) = (&mut self.lines, end_ns / 1_000);
        let closed = self.tally.close(|row| lines[row as usize].standing(end_us));
        if let Some(rule) = self.silence {
            for &(row, _) in &closed.1 {
                lines[row as usize].listener.on_report(end_us, rule);
            }
        }
        closed
    }

    /// When [`Self::look`] may find something, nanoseconds of the monotonic clock; never, [`u64::MAX`].
    #[must_use]
    pub const fn next_look_ns(&self) -> u64 {
        self.next_look_ns
    }

    /// Takes the rows of paths that have fallen silent, as far as that was not reported yet: a part of the window in
    /// progress.
    pub fn look(&mut self, now_ns: u64) -> Vec<(u32, Report)> {
        self.next_look_ns = u64::MAX;
        let (mut rows, now_us) = (Vec::new(), now_ns / 1_000);
        let Some(rule) = self.silence else {
            return rows;
        };
        for row in 0..self.lines.len() as u32 {
            let line = &self.lines[row as usize];
            let Some(from_us) = line.listener.silent_from_us(rule, line.open) else {
                continue;
            };
            let from_ns = from_us.saturating_mul(1_000);
            let next_ns = match from_ns > now_ns {
                true => from_ns,
                false => self.mind_deadlines(row, now_ns),
            };
            self.next_look_ns = self.next_look_ns.min(next_ns);
            let line = &mut self.lines[row as usize];
            if !line.listener.is_news(now_us, rule) {
                continue;
            }
            // Where it may not be early, the window's end tells it.
            let early = line.listener.may_be_early(now_us);
            line.listener.on_report(now_us, rule);
            if early {
                rows.push((row, self.tally.take(row, line.standing(now_us))));
                self.settle_replied(row);
            }
        }
        rows
    }

    /// Looks for passed deadlines and expiries of one path; returns when the next deadline passes.
    fn mind_deadlines(&mut self, row: u32, now_ns: u64) -> u64 {
        let (line, depth) = (&mut self.lines[row as usize], self.depth as usize);
        let mut next_ns = u64::MAX;
        // In the order in which they left, so that the losses of a flow are told in their order.
        let ring = &mut self.probes[row as usize * depth..][..depth];
        let (newest, oldest) = ring.split_at_mut(line.sequence as usize % depth);
        for probe in oldest.iter_mut().chain(newest) {
            let left_ns = self.eras.mono_ns(probe);
            let age_ns = now_ns.saturating_sub(left_ns);
            let deadline_ns = u64::from(probe.deadline_us) * 1_000;
            if probe.state == State::Open && age_ns < deadline_ns {
                next_ns = next_ns.min(left_ns + deadline_ns);
            } else if probe.state == State::Open {
                probe.state = State::Overdue;
                self.tally.overdue(row);
                line.listener.on_unanswered();
            }
            if probe.state == State::Overdue && age_ns >= self.expiry_ns {
                probe.state = State::Empty;
                let class = unanswered(&self.overflowed_ns, line, left_ns);
                let ended = (row, probe.sequence);
                end(&mut self.counters, &mut self.tally, line, ended, class);
            }
        }
        next_ns
    }

    /// The replies that a row has counted are in a report that has left: a repeat changes none of them any more.
    fn settle_replied(&mut self, row: u32) {
        let depth = self.depth as usize;
        for probe in &mut self.probes[row as usize * depth..][..depth] {
            if probe.state == State::Replied {
                probe.state = State::Done;
            }
        }
    }

    /// What each flow has done since this was last due, if it is due as the window ends.
    pub fn take_flows(&mut self) -> Option<FlowSpan> {
        self.tally.take_flows()
    }

    /// Begins the next window.
    pub fn begin(&mut self, start: Begin) {
        self.tally.begin(start);
    }

    /// A probe was truly answered.
    fn answered(
        &mut self,
        row: u32,
        sequence: u32,
        answered: Answered,
        arrival: Arrival,
    ) -> Result<(), Stray> {
        let number = self.tally.number();
        let place = place(self.depth, row, sequence);
        let (probe, line) = (&mut self.probes[place], &mut self.lines[row as usize]);
        let left_ns = self.eras.mono_ns(probe);
        let age_ns = arrival.mono_ns.saturating_sub(left_ns);
        match probe.state {
            State::Empty => return Err(Stray::Expired),
            State::Done => return Err(Stray::Repeated),
            State::Replied => {
                if let (Some((directions, nth)), Answered::Reflected(reflected)) =
                    (line.session(sequence), answered)
                {
                    directions.heard_again(nth, reflected.number);
                }
                let retransmitted = line.kind == ProbeKind::TcpSyn && age_ns >= RETRANSMISSION_NS;
                let countable = answered.is_reply() && age_ns <= self.expiry_ns && !retransmitted;
                if !countable || probe.window != number {
                    return Err(Stray::Repeated);
                }
                probe.state = State::Done;
                self.tally.answered_again(row);
                self.counters.classes[Class::Replied as usize] -= 1;
                self.counters.classes[Class::Duplicate as usize] += 1;
                return Ok(());
            }
            State::Open | State::Overdue => {}
        }
        if answered == Answered::Error {
            if probe.state == State::Open {
                line.listener.on_unanswered();
            }
            probe.state = State::Done;
            end(
                &mut self.counters,
                &mut self.tally,
                line,
                (row, sequence),
                Class::IcmpError,
            );
            return Ok(());
        }
        let by_card = self.by_card.get(place).copied().filter(|&ns| ns > 0);
        let measured = probe.rtt(arrival, left_ns, by_card);
        let (rtt_ns, told) = match answered {
            Answered::Reflected(reflected) => reflected.told(probe, arrival, measured),
            _ => (measured.map(|(rtt_ns, _)| rtt_ns), None),
        };
        if rtt_ns.is_some_and(|rtt_ns| rtt_ns > self.expiry_ns) {
            // The next close, or the place's next probe, ends it.
            return Err(Stray::Expired);
        }
        let untimed = |told: Told| told.delays.is_none() && arrival.stamp_ns.is_some();
        if rtt_ns.is_some() && told.is_some_and(untimed) {
            self.counters.reflections_disbelieved += 1;
        }
        if let (Some((directions, nth)), Some(told)) = (line.session(sequence), told) {
            directions.heard(nth, told, self.tally.one_way(row));
        }
        let (Some(rtt_ns), Some((_, source))) = (rtt_ns, measured) else {
            probe.state = State::Done;
            line.listener.on_answer(arrival.mono_ns / 1_000);
            self.counters.clock_discards += 1;
            end(
                &mut self.counters,
                &mut self.tally,
                line,
                (row, sequence),
                Class::LocalDrop,
            );
            return Ok(());
        };
        let rtt_us = u32::try_from((rtt_ns + 500) / 1_000).unwrap_or(u32::MAX);
        line.deadline.on_rtt(rtt_us.max(1));
        line.listener.on_answer((left_ns + rtt_ns) / 1_000);
        let late = rtt_ns > u64::from(probe.deadline_us) * 1_000;
        if late && probe.state == State::Open {
            self.tally.overdue(row);
        }
        let class = match (late, answered) {
            (true, _) => Class::Late,
            (false, Answered::Reset) => Class::Refused,
            (false, _) => Class::Replied,
        };
        probe.state = if class == Class::Replied {
            State::Replied
        } else {
            State::Done
        };
        probe.window = number;
        line.open -= 1;
        self.tally
            .ended_with_rtt(row, line.rotation.turn(sequence), class, rtt_us);
        self.counters.classes[class as usize] += 1;
        self.counters.stamps[source as usize] += 1;
        Ok(())
    }

    fn row_of(&self, slot: u32) -> Option<u32> {
        self.rows
            .get(slot as usize)
            .copied()
            .filter(|&row| row != NO_ROW)
    }

    fn ring(&self, row: u32) -> &[Probe] {
        &self.probes[row as usize * self.depth as usize..][..self.depth as usize]
    }

    fn probe(&self, row: u32, sequence: u32) -> Option<&Probe> {
        let probe = self.probes.get(place(self.depth, row, sequence))?;
        (probe.sequence == sequence && probe.wall_ns != 0).then_some(probe)
    }

    fn probe_mut(&mut self, row: u32, sequence: u32) -> Option<&mut Probe> {
        self.probe(row, sequence)?;
        self.probes.get_mut(place(self.depth, row, sequence))
    }
}

/// A transmit stamp that belongs to no probe under way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct UnfitStamp;

impl Line {
    fn new(slot: u32, path: &PlannedPath, depth: u32, rotation: Rotation) -> Self {
        let sessions = match path.path.kind {
            ProbeKind::Stamp => rotation.flows(),
            ProbeKind::Icmp | ProbeKind::TcpSyn => 0,
        };
        let directions = || Directions::new(rotation.depth(depth));
        Self {
            slot,
            address: path.address,
            port: path.port,
            kind: path.path.kind,
            sequence: 0,
            open: 0,
            deadline: Deadline::default(),
            listener: Listener::default(),
            rotation,
            directions: (sessions > 0)
                .then(|| Box::new((0..sessions).map(|_| directions()).collect())),
        }
    }

    fn resized(&self, depth: u32) -> Self {
        let depth = self.rotation.depth(depth);
        let resize = |own: &Directions| own.resized(depth);
        let directions = self.directions.as_ref();
        let directions = directions.map(|all| Box::new(all.iter().map(resize).collect()));
        Self {
            directions,
            ..self.clone()
        }
    }

    fn directions(&self) -> &[Directions] {
        self.directions.as_ref().map_or(&[], |all| all)
    }

    /// What is known of the directions of a probe's flow, and the probe's number within it; of paths with a reflector.
    fn session(&mut self, sequence: u32) -> Option<(&mut Directions, u32)> {
        let directions = self.directions.as_mut()?;
        let Turn { flow, nth } = self.rotation.turn(sequence);
        directions
            .get_mut(usize::from(flow))
            .map(|directions| (directions, nth))
    }

    fn standing(&self, now_us: u64) -> Standing {
        let pending = || self.directions().iter().map(Directions::pending).sum();
        Standing {
            open: self.open,
            silence: self.listener.silence(now_us),
            lost_pending: self.directions.is_some().then(pending),
        }
    }

    fn found_by(&self) -> (ProbeKind, IpAddr, u16) {
        let port = if self.kind == ProbeKind::TcpSyn {
            self.port
        } else {
            0
        };
        (self.kind, self.address, port)
    }
}

/// For each new path, where it stood among the old ones. A path that a plan names twice is continued once.
fn continued(old: &[PlannedPath], new: &[PlannedPath]) -> Vec<Option<usize>> {
    let mut before: Vec<(&PlannedPath, usize)> = old.iter().zip(0..).collect();
    before.sort_unstable();
    let mut taken = vec![false; old.len()];
    let mut find = |path: &PlannedPath| {
        let at = before
            .binary_search_by(|(other, _)| (*other).cmp(path))
            .ok()?;
        let from = before[at].1;
        (!std::mem::replace(&mut taken[from], true)).then_some(from)
    };
    new.iter().map(&mut find).collect()
}

fn place(depth: u32, row: u32, sequence: u32) -> usize {
    row as usize * depth as usize + (sequence % depth) as usize
}

/// Ends a probe that has no round-trip time.
fn end(
    counters: &mut Counters,
    tally: &mut Tally,
    line: &mut Line,
    (row, sequence): (u32, u32),
    class: Class,
) {
    line.open -= 1;
    if let Some((directions, nth)) = line.session(sequence) {
        let unheard = match class {
            Class::Lost => Unheard::Lost,
            _ => Unheard::Unclear,
        };
        directions.ended(nth, unheard, tally.one_way(row));
    }
    tally.ended(row, line.rotation.turn(sequence), class);
    counters.classes[class as usize] += 1;
}

/// The class of a probe that left then and was not answered before its expiry: lost, unless this host may have dropped the answer.
fn unanswered(overflowed_ns: &OverflowedNs, line: &Line, left_ns: u64) -> Class {
    let overflowed = overflowed_ns[line.kind as usize][Family::of(&line.address) as usize];
    if overflowed.is_some_and(|at| at >= left_ns) {
        Class::LocalDrop
    } else {
        Class::Lost
    }
}

#[cfg(test)]
mod tests;
