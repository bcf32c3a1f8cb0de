//! The probe thread: one loop that sends what is due, reads what came, closes windows, and sleeps.
//!
//! Sending comes first and reading is bounded per turn, so a flood of packets cannot delay a probe. Round-trip times
//! are the kernel's stamps, so reading late costs no accuracy; while probes are due in quick succession the thread
//! sleeps from one to the next and reads in between, which spares a wake-up per answer.

use std::{
    net::{IpAddr, Ipv4Addr},
    os::fd::AsRawFd,
    sync::{Arc, mpsc as std_mpsc},
};

use leeward_common::{report::ProbeKind, time::Timestamp};
use tokio::sync::mpsc;

use super::{
    ClosedWindow, Family, Mode, Plan, ProberConfig, Sockets,
    checkup::Checkup,
    handle::{Command, Shared},
    wire::{Clock, Wire},
};
use crate::{
    limiter::Limiter,
    net::{
        clock::{Now, monotonic_ns},
        sockets, wake,
    },
    probe::token::TokenKey,
    schedule::{Due, Schedule},
    tracker::Tracker,
    window::Begin,
};

/// Probes sent in one turn before the sockets are read: bounds how long answers wait in the kernel.
const SEND_BURST: usize = 64;
/// Packets read from one socket in one turn: bounds how long a flood delays the next send, to about 0.2 ms.
const RECEIVE_BUDGET: usize = 128;
/// Packets read from one socket before a window closes, so that what has come counts in it.
const CLOSING_BUDGET: usize = 4_096;
/// A sleep shorter than this is for the clock alone and not for packets: they carry their time with them.
const DOZE_NS: u64 = 4_000_000;
/// A probe leaves up to this much before its time if the thread is awake then: a wake-up costs more than a probe, and the
/// schedule is jittered by far more. Never more than a twentieth of the interval.
const EARLY_NS: u64 = 100_000;
/// No sleep is shorter, so that a dense schedule is sent in small groups.
const SHORTEST_SLEEP_NS: u64 = 150_000;
/// Without anything to do the thread still looks up this often.
const LONGEST_SLEEP_NS: u64 = 1_000_000_000;
/// Every socket is read this often even while the thread only dozes.
const READ_ALL_NS: u64 = 10_000_000;
/// How old published counters may be.
const PUBLISH_NS: u64 = 100_000_000;
/// Behind by more than this the schedule is skipped instead of caught up.
const STALL_NS: u64 = 5_000_000_000;
/// A step of the wall clock beyond this begins a new window.
const REALIGN_NS: u64 = 1_000_000;
/// From one look for paths that fell silent to the next: those that fall silent together share a report.
const LOOK_NS: u64 = 5_000_000;
/// How long a source address is believed; routes change.
const SOURCE_LIFETIME_NS: u64 = 30_000_000_000;

/// What the thread owns.
#[derive(Debug)]
pub(super) struct ProbeThread {
    config: ProberConfig,
    shared: Arc<Shared>,
    commands: std_mpsc::Receiver<Command>,
    out: mpsc::Sender<ClosedWindow>,
    wire: Wire,
    clock: Clock,
    limiter: Limiter,
    tracker: Tracker,
    running: Option<Running>,
    /// Waits for the present window to end.
    next_plan: Option<Plan>,
    checkup: Checkup,
    published_ns: u64,
    read_all_ns: u64,
    looked_ns: u64,
    /// How much later than asked for this host wakes the thread, smoothed, at most [`EARLY_NS`]; asked for so much earlier.
    oversleep_ns: u64,
    /// How long it takes to send what is due at once, smoothed: most of it leaves before its time, so that where more is due
    /// than usual the rest is not too late.
    burst_ns: u64,
}

/// A plan being carried out.
#[derive(Debug)]
struct Running {
    plan: Plan,
    schedule: Schedule,
    /// How much before its time a probe may leave.
    early_ns: u64,
    /// By row: the source address of SYNs over IPv4, and when it was found.
    sources: Vec<(Ipv4Addr, u64)>,
}

/// Whether the thread goes on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Turn {
    Again,
    Stop,
}

impl ProbeThread {
    pub(super) fn new(
        sockets: Sockets,
        config: ProberConfig,
        shared: Arc<Shared>,
        commands: std_mpsc::Receiver<Command>,
        out: mpsc::Sender<ClosedWindow>,
    ) -> Self {
        let key = TokenKey::new(config.secret);
        let clock = Clock::new();
        // Where the kernel connects, each probe has a port of its own: there are no flows to tell apart.
        let connects = [Family::V4, Family::V6]
            .iter()
            .any(|&family| sockets.mode(ProbeKind::TcpSyn, family) == Some(Mode::Connect));
        let ports = if connects {
            1
        } else {
            config.syn_source_ports.len() as u16
        };
        Self {
            wire: Wire::new(sockets, key, config.stamp_key.clone()),
            limiter: Limiter::new(config.max_probes_per_second),
            tracker: Tracker::new(
                key,
                *config.syn_source_ports.start(),
                ports,
                timestamp(clock.last()),
            ),
            config,
            shared,
            commands,
            out,
            clock,
            running: None,
            next_plan: None,
            checkup: Checkup::default(),
            published_ns: 0,
            read_all_ns: 0,
            looked_ns: 0,
            oversleep_ns: 0,
            burst_ns: 0,
        }
    }

    pub(super) fn run(&mut self) {
        wake::sharpen_timers();
        let mut ready = 0;
        while self.obey() == Turn::Again {
            self.clock.read();
            self.mind_the_clock();
            self.mind_a_stall();
            self.send_and_close();
            let asked = ready | self.unasked();
            let more = self
                .wire
                .receive(asked, RECEIVE_BUDGET, &mut self.clock, &mut self.tracker);
            self.report_early();
            self.publish(PUBLISH_NS);
            ready = if more == 0 { self.sleep() } else { more };
        }
        self.publish(0);
    }

    fn obey(&mut self) -> Turn {
        loop {
            match self.commands.try_recv() {
                Ok(Command::Plan(plan)) if self.running.is_none() => {
                    let now = self.clock.read();
                    self.carry_out(plan, timestamp(now), now.mono_ns);
                }
                Ok(Command::Plan(plan)) => self.next_plan = Some(plan),
                Ok(Command::Stop) | Err(std_mpsc::TryRecvError::Disconnected) => return Turn::Stop,
                Err(std_mpsc::TryRecvError::Empty) => return Turn::Again,
            }
        }
    }

    /// Takes up a plan at a boundary between windows.
    fn carry_out(&mut self, plan: Plan, now: Timestamp, now_ns: u64) {
        let old = self
            .running
            .as_ref()
            .map_or(&[][..], |running| &running.plan.paths);
        self.tracker.replan(now, old, &plan);
        let schedule = Schedule::new(now_ns, self.config.seed, plan.interval, &plan.paths);
        let sources = vec![(Ipv4Addr::UNSPECIFIED, 0); plan.paths.len()];
        let early_ns = (plan.interval.as_nanos() as u64 / 20).min(EARLY_NS);
        self.running = Some(Running {
            plan,
            schedule,
            early_ns,
            sources,
        });
    }

    /// After a step of the wall clock the present window ends and the one that it now is begins.
    fn mind_the_clock(&mut self) {
        let step_ns = self.clock.take_step();
        self.tracker.counters_mut().clock_steps = self.clock.steps();
        self.checkup.clock_step(step_ns);
        if step_ns.unsigned_abs() >= REALIGN_NS && self.running.is_some() {
            let now = self.clock.last();
            self.close_window(now.mono_ns, Begin::At(timestamp(now)));
        }
    }

    /// After a long pause what was missed is counted as not sent, in the window that was interrupted.
    fn mind_a_stall(&mut self) {
        let now = self.clock.last();
        if now.mono_ns.saturating_sub(self.window_end_ns()) < STALL_NS {
            return;
        }
        let Some(running) = &mut self.running else {
            return;
        };
        self.wire
            .receive(u64::MAX, CLOSING_BUDGET, &mut self.clock, &mut self.tracker);
        let tracker = &mut self.tracker;
        running.schedule.skip_past(now.mono_ns, |row, count| {
            if count > 0 {
                tracker.not_sent(row, count);
            }
        });
        tracker.counters_mut().stalls += 1;
        self.close_window(now.mono_ns, Begin::At(timestamp(now)));
    }

    /// Works through what has come due, in order of time.
    fn send_and_close(&mut self) {
        let begun_ns = self.clock.last().mono_ns;
        for sent in 0..SEND_BURST {
            let now = self.clock.read();
            let end_ns = self.window_end_ns();
            let Some(running) = &mut self.running else {
                return;
            };
            let due_ns = running.schedule.next_ns().unwrap_or(u64::MAX);
            if end_ns <= now.mono_ns && end_ns <= due_ns {
                self.wire
                    .receive(u64::MAX, CLOSING_BUDGET, &mut self.clock, &mut self.tracker);
                self.close_window(end_ns, Begin::Following);
                continue;
            }
            let Some(due) = running
                .schedule
                .pop((now.mono_ns + running.early_ns).min(end_ns))
            else {
                if sent > 0 {
                    let took_ns = now.mono_ns.saturating_sub(begun_ns).min(2 * EARLY_NS);
                    self.burst_ns = (self.burst_ns * 7 + took_ns) / 8;
                }
                return;
            };
            self.send(due, now);
        }
    }

    fn send(&mut self, due: Due, now: Now) {
        let Some(running) = &mut self.running else {
            return;
        };
        let in_time = running.schedule.in_time(due, now.mono_ns);
        if !in_time || !self.wire.has(self.tracker.kind_of(due.row)) {
            return self.tracker.not_sent(due.row, 1);
        }
        if !self.limiter.take(now.mono_ns) {
            self.tracker.counters_mut().rate_capped += 1;
            return self.tracker.not_sent(due.row, 1);
        }
        let leaving = self.tracker.depart(due.row, self.clock.departure());
        let source = &mut running.sources[due.row as usize];
        let sent = match (leaving.kind, leaving.address, self.config.bind_v4) {
            (ProbeKind::TcpSyn, IpAddr::V4(_), Some(bound)) => Ok(bound),
            (ProbeKind::TcpSyn, IpAddr::V4(to), None) => find_source(source, to, now.mono_ns),
            _ => Ok(Ipv4Addr::UNSPECIFIED),
        }
        .and_then(|source| {
            self.wire
                .send(&leaving, source, now.mono_ns, &mut self.tracker)
        });
        match sent {
            Ok(()) => {
                let (counters, late_us) = (
                    self.tracker.counters_mut(),
                    now.mono_ns.abs_diff(due.at_ns) / 1_000,
                );
                counters.sent += 1;
                counters.lateness.record(late_us);
                self.checkup.sent(late_us);
            }
            Err(error) => {
                tracing::trace!(%error, address = %leaving.address, "the kernel refused a probe");
                source.1 = 0;
                self.checkup.send_error();
                self.tracker
                    .refused_locally(due.row, leaving.identity.sequence);
            }
        }
    }

    fn close_window(&mut self, end_ns: u64, next: Begin) {
        let Some(running) = &self.running else { return };
        let plan_version = running.plan.version;
        let (window, rows) = self.tracker.close(end_ns);
        let flows = self.tracker.take_flows();
        let health = self.checkup.take(self.tracker.counters());
        self.hand_over(ClosedWindow {
            plan_version,
            window,
            until: window.end(),
            health: Some(health),
            flows,
            rows,
        });
        match (self.next_plan.take(), next) {
            (Some(plan), Begin::Following) => self.carry_out(plan, window.end(), end_ns),
            (Some(plan), Begin::At(now)) => self.carry_out(plan, now, end_ns),
            (None, next) => self.tracker.begin(next),
        }
    }

    /// Reports paths that fell silent, without waiting for the window's end. Not while windows queue: then nothing
    /// leaves earlier for it.
    fn report_early(&mut self) {
        let now = self.clock.last();
        if now.mono_ns < self.look_at_ns() {
            return;
        }
        self.looked_ns = now.mono_ns;
        let Some(running) = &self.running else { return };
        if self.out.capacity() * 2 < self.out.max_capacity() {
            return;
        }
        let plan_version = running.plan.version;
        // What has come by now is no silence.
        self.wire
            .receive(u64::MAX, CLOSING_BUDGET, &mut self.clock, &mut self.tracker);
        let (window, rows) = (self.tracker.window(), self.tracker.look(now.mono_ns));
        self.hand_over(ClosedWindow {
            plan_version,
            window,
            until: timestamp(now).clamp(window.start, window.end()),
            health: None,
            flows: None,
            rows,
        });
    }

    fn hand_over(&mut self, closed: ClosedWindow) {
        if !closed.rows.is_empty() && self.out.try_send(closed).is_err() {
            self.tracker.counters_mut().windows_dropped += 1;
        }
    }

    /// When to look for paths that fell silent, nanoseconds of the monotonic clock.
    fn look_at_ns(&self) -> u64 {
        self.tracker.next_look_ns().max(self.looked_ns + LOOK_NS)
    }

    /// When the present window ends, nanoseconds of the monotonic clock; never, without a plan.
    fn window_end_ns(&self) -> u64 {
        if self.running.is_none() {
            return u64::MAX;
        }
        let end_ns = self
            .tracker
            .window()
            .end()
            .as_unix_us()
            .saturating_mul(1_000);
        u64::try_from(i128::from(end_ns) - i128::from(self.clock.last().offset_ns())).unwrap_or(0)
    }

    /// Sockets to read without having been told that there is something.
    fn unasked(&mut self) -> u64 {
        let now_ns = self.clock.last().mono_ns;
        if now_ns.saturating_sub(self.read_all_ns) < READ_ALL_NS {
            return self.wire.lively(now_ns);
        }
        self.read_all_ns = now_ns;
        u64::MAX
    }

    fn publish(&mut self, every_ns: u64) {
        let now_ns = self.clock.last().mono_ns;
        if now_ns.saturating_sub(self.published_ns) < every_ns {
            return;
        }
        // A reader holds the lock only while it copies; should it do so now, the next turn publishes.
        if let Ok(mut published) = self.shared.counters.try_lock() {
            let snapshots = published.snapshots + 1;
            *published = *self.tracker.counters();
            published.snapshots = snapshots;
            self.published_ns = now_ns;
        }
    }

    /// Sleeps until there is something to do; returns which sockets have something.
    fn sleep(&mut self) -> u64 {
        let now_ns = self.clock.last().mono_ns;
        let due_ns = self
            .running
            .as_ref()
            .and_then(|running| running.schedule.next_ns())
            .unwrap_or(u64::MAX);
        let next_ns = due_ns
            .min(self.window_end_ns())
            .min(self.look_at_ns())
            .min(now_ns + LONGEST_SLEEP_NS);
        if next_ns <= now_ns {
            return 0;
        }
        if next_ns - now_ns < DOZE_NS {
            let may_ns = self.running.as_ref().map_or(0, |running| running.early_ns);
            let ahead_ns = (self.burst_ns * 3 / 4).min(may_ns / 10 * 9);
            let early_ns = self.oversleep_ns + ahead_ns;
            let until_ns = next_ns.max(now_ns + SHORTEST_SLEEP_NS) - early_ns;
            wake::sleep_until(until_ns);
            let over_ns = monotonic_ns().saturating_sub(until_ns).min(EARLY_NS);
            self.oversleep_ns = (self.oversleep_ns * 15 + over_ns) / 16;
            return 0;
        }
        let mut watched = [self.shared.waker.as_raw_fd(); wake::MAX_WATCHED];
        let mut count = 1;
        for (place, fd) in watched[1..].iter_mut().zip(self.wire.descriptors()) {
            *place = fd;
            count += 1;
        }
        let ready = wake::wait(&watched[..count], next_ns);
        if ready & 1 != 0 {
            self.shared.waker.clear();
        }
        ready >> 1
    }
}

/// The source address towards a target, looked up again when the last answer is old.
fn find_source(
    known: &mut (Ipv4Addr, u64),
    to: Ipv4Addr,
    now_ns: u64,
) -> std::io::Result<Ipv4Addr> {
    let (_, found_ns) = *known;
    if found_ns == 0 || now_ns.saturating_sub(found_ns) > SOURCE_LIFETIME_NS {
        *known = (sockets::source_towards(to)?, now_ns);
    }
    Ok(known.0)
}

fn timestamp(now: Now) -> Timestamp {
    Timestamp::from_unix_us(now.wall_ns / 1_000)
}
