//! The spool against a model: whatever is pushed, sent, acknowledged, written, torn, filled up and killed, in whatever
//! order, aggregators that know what they have never count a window twice, and no window is lost that nobody had to give up.

use std::collections::{BTreeMap, BTreeSet};

use leeward_common::time::Timestamp;
use proptest::prelude::*;

use super::{
    tests::{Disk, Life, SECOND, decode, limits, window},
    *,
};
use leeward_common::wire::{batch, frame};

/// What an aggregator remembers.
#[derive(Default)]
struct Aggregator {
    arrived: BTreeSet<Key>,
    /// How often each second was counted.
    counted: BTreeMap<Timestamp, u32>,
}

impl Aggregator {
    fn take(&mut self, frame: &[u8]) -> Key {
        let batch = decode(frame);
        let key = Key {
            boot_epoch: batch.boot_epoch,
            sequence: batch.sequence,
        };
        if self.arrived.insert(key) {
            // Each second was measured with as many probes as say which it is, so a window tells what is in it.
            let mut at = batch.window.start;
            let mut probes = batch.rows[0].1.counts.scheduled;
            while probes > 0 {
                let bit = probes.trailing_zeros();
                probes &= probes - 1;
                at = batch.window.start.floor(10 * SECOND) + SECOND * bit;
                *self.counted.entry(at).or_default() += 1;
            }
            let _ = at;
        }
        key
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// A window closes.
    Push,
    /// So many seconds go by.
    Pass(u8),
    /// The wall clock is set, forward or back.
    SetClock(i16),
    /// An aggregator gets the message that has waited longest or shortest; whether it says so in time.
    Send {
        to: usize,
        newest: bool,
        acknowledge: bool,
    },
    /// The disk gets full, or has room again.
    Capacity(Option<u16>),
    /// The disk fails, or works again.
    Break(bool),
    /// Commands are given and not carried out: they are lost with the next kill.
    Stall,
    /// The process is killed, in the middle of a write of so many bytes, and starts again.
    Kill(u16),
    /// The process stops in order and starts again.
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => Just(Step::Push),
        4 => (1u8..30).prop_map(Step::Pass),
        1 => (-3_000i16..3_000).prop_map(Step::SetClock),
        8 => (0usize..2, any::<bool>(), prop::bool::weighted(0.8)).prop_map(|(to, newest, acknowledge)| Step::Send { to, newest, acknowledge }),
        1 => prop::option::of(500u16..9_000).prop_map(Step::Capacity),
        1 => any::<bool>().prop_map(Step::Break),
        1 => Just(Step::Stall),
        1 => (0u16..2_000).prop_map(Step::Kill),
        1 => Just(Step::Restart),
    ]
}

struct World {
    disk: Disk,
    life: Life,
    stalled: bool,
    boot_epoch: u64,
    memory: usize,
    second: u64,
    skew: i64,
    aggregators: [Aggregator; 2],
    /// Seconds measured, and in which life.
    measured: BTreeMap<Timestamp, u64>,
    /// Seconds that were only in the memory of a process that was killed.
    killed: BTreeSet<Timestamp>,
    dropped: u64,
}

impl World {
    fn new(memory: usize) -> Self {
        let disk = Disk::default();
        Self {
            life: Life::begin(1, &disk, limits(2, memory, Some(12_000))),
            disk,
            stalled: false,
            boot_epoch: 1,
            memory,
            second: 0,
            skew: 1_000_000,
            aggregators: Default::default(),
            measured: BTreeMap::new(),
            killed: BTreeSet::new(),
            dropped: 0,
        }
    }

    fn settle(&mut self) {
        if !self.stalled {
            self.life.settle_disk();
        }
    }

    fn push(&mut self) {
        // No second is measured twice: a clock that goes back finds another ten of them.
        let mut second = (self.second as i64 + self.skew * 10) as u64;
        let at = |second: u64| window(1, 0, second, 1).window.start;
        while self.measured.contains_key(&at(second)) {
            second += 3_600;
        }
        self.second += 1;
        let within = at(second).since(at(second).floor(10 * SECOND)).as_secs() as u32;
        let spool = &mut self.life.spool;
        let mut batch = window(self.boot_epoch, spool.next_sequence(), second, 1);
        batch.rows[0].1.counts.scheduled = 1 << within;
        self.measured.insert(batch.window.start, self.boot_epoch);
        let span = (batch.window.start, batch.until);
        let frame = frame::frame_batch(&batch::encode(&batch).unwrap());
        let table = self.life.table();
        self.life
            .spool
            .push(self.life.now, Some(table), span, frame);
        self.settle();
    }

    fn send(&mut self, to: usize, newest: bool, acknowledge: bool) {
        let places: Vec<u64> = self.life.spool.missing_at(to).collect();
        let place = if newest {
            places.last()
        } else {
            places.first()
        };
        let Some(&place) = place else { return };
        self.life.spool.want([place]);
        self.settle();
        let Some(frame) = self.life.spool.get(place).and_then(Waiting::frame).cloned() else {
            return;
        };
        self.life.spool.handed(to, place);
        let key = self.aggregators[to].take(&frame);
        if acknowledge {
            self.life.spool.settle(to, key, Settled::Stored);
            self.settle();
        }
    }

    fn die(&mut self) {
        // What was in memory only may be gone; what may have been written is there.
        for message in self.life.spool.waiting.values() {
            if message.location.is_none() {
                let mut at = message.start;
                while at < message.end {
                    self.killed.insert(at);
                    at = at + SECOND;
                }
            }
        }
        self.dropped += self.life.spool.counts().dropped;
        self.boot_epoch += 1;
        self.stalled = false;
        let mut state = self.disk.0.lock().unwrap();
        (state.dies_after, state.is_broken, state.capacity) = (None, false, None);
        drop(state);
        self.life = Life::begin(
            self.boot_epoch,
            &self.disk,
            limits(2, self.memory, Some(12_000)),
        );
    }

    fn kill(&mut self, within: u16) {
        self.disk.0.lock().unwrap().dies_after = Some(within.into());
        self.life.now += 11 * SECOND;
        self.life.spool.tend(self.life.now);
        for command in self.life.spool.commands(self.life.now, &mut Vec::new()) {
            // Nobody hears of what comes of it.
            self.life.log.carry_out(command);
        }
        self.die();
    }

    fn restart(&mut self) {
        self.stalled = false;
        self.life.spool.flush();
        self.life.now += 6 * SECOND;
        self.life.settle_disk();
        self.die();
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Push => self.push(),
            Step::Pass(seconds) => {
                self.life.now += SECOND * u32::from(seconds);
                self.life.spool.tend(self.life.now);
                self.settle();
            }
            Step::SetClock(by) => self.skew = (self.skew + i64::from(by)).max(1),
            Step::Send {
                to,
                newest,
                acknowledge,
            } => self.send(to, newest, acknowledge),
            Step::Capacity(bytes) => {
                self.disk.0.lock().unwrap().capacity = bytes.map(usize::from);
            }
            Step::Break(is_broken) => self.disk.0.lock().unwrap().is_broken = is_broken,
            Step::Stall => self.stalled = true,
            Step::Kill(within) => self.kill(within),
            Step::Restart => self.restart(),
        }
    }

    /// Everything that waits is delivered to everybody.
    fn drain(&mut self) {
        self.stalled = false;
        let mut state = self.disk.0.lock().unwrap();
        (state.dies_after, state.is_broken, state.capacity) = (None, false, None);
        drop(state);
        self.life.now += 6 * SECOND;
        for _ in 0..3_000 {
            self.life.settle_disk();
            let left = (0..2)
                .map(|to| self.life.spool.missing_at(to).count())
                .sum::<usize>();
            if left == 0 {
                break;
            }
            for to in 0..2 {
                self.send(to, false, true);
            }
        }
        self.life.settle_disk();
        assert!(self.life.spool.is_empty());
        // What could not be removed at its time is removed by the next life.
        self.die();
        let files = self.disk.0.lock().unwrap().files.len();
        assert_eq!(files, 0, "what is delivered is removed");
    }

    fn check(&self, bent: bool) {
        let counts = self.life.spool.counts();
        let lost_for_good = self.dropped + counts.dropped;
        for aggregator in &self.aggregators {
            let twice: Vec<_> = aggregator
                .counted
                .iter()
                .filter(|&(_, &times)| times > 1)
                .collect();
            assert!(twice.is_empty(), "counted twice: {twice:?}");
            let strange = aggregator
                .counted
                .keys()
                .filter(|at| !self.measured.contains_key(at));
            assert_eq!(strange.count(), 0);
            let is_missing =
                |at: &&Timestamp| !aggregator.counted.contains_key(at) && !self.killed.contains(at);
            let missing = self.measured.keys().filter(is_missing).count() as u64;
            // A message that was dropped may have told of ten seconds.
            assert!(
                missing <= lost_for_good * 10 + if bent { 10 } else { 0 },
                "{missing} missing, {lost_for_good} dropped"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_counted_twice_and_nothing_is_lost_that_was_not_given_up(
        memory in 2_000usize..60_000,
        steps in prop::collection::vec(step(), 1..250),
    ) {
        let mut world = World::new(memory);
        for step in &steps {
            world.step(step);
            prop_assert!(world.life.spool.held_bytes() <= world.memory + 32 * 400);
        }
        world.drain();
        world.check(false);
    }

    /// As above, and at the end one byte anywhere on disk is bent: it costs at most one message.
    #[test]
    fn a_bent_byte_costs_one_message(
        steps in prop::collection::vec(step(), 30..150),
        (file, at, flip) in (0usize..100, 0usize..100_000, 1u8..=255),
    ) {
        let mut world = World::new(60_000);
        for step in &steps {
            world.step(step);
        }
        world.restart();
        let before = world.life.spool.counts().damaged;
        let bent = {
            let mut state = world.disk.0.lock().unwrap();
            let files = state.files.len();
            match state.files.values_mut().nth(file % files.max(1)) {
                Some(bytes) if !bytes.is_empty() => {
                    let at = at % bytes.len();
                    bytes[at] ^= flip;
                    true
                }
                _ => false,
            }
        };
        world.die();
        if bent {
            prop_assert!(world.life.spool.counts().damaged > before || world.life.spool.counts().damaged > 0);
            prop_assert!(!world.life.spool.take_troubles().is_empty());
        }
        world.drain();
        world.check(true);
    }
}
