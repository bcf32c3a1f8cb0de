//! The spool by itself, with a disk that does as each test says.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{Arc, Mutex},
};

use leeward_common::{
    histogram::Schema,
    id::AgentId,
    report::{
        Class, Counts as ReportCounts, Direction, LocalHealth, OneWay, Report, Rtt, Silence,
        Variation, Window,
    },
    wire::{
        batch::{self, Batch},
        frame::{self, HEADER_BYTES},
    },
};
use proptest::prelude::*;

use super::{
    files::Files,
    log::{Answer, Command, Log, Sync},
    record::{Found, Record},
    *,
};

/// Files in memory that can be full, cut off and broken; they outlive a crash of whoever writes them.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk(pub(super) Arc<Mutex<State>>);

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) files: BTreeMap<String, Vec<u8>>,
    /// Bytes of all files together; `None` for any number.
    pub(super) capacity: Option<usize>,
    pub(super) is_broken: bool,
    /// So many bytes more are written, then the process is dead.
    pub(super) dies_after: Option<usize>,
}

impl State {
    fn used(&self) -> usize {
        self.files.values().map(Vec::len).sum()
    }

    fn alive(&self) -> io::Result<()> {
        match self.is_broken || self.dies_after == Some(0) {
            true => Err(io::Error::other("no disk")),
            false => Ok(()),
        }
    }
}

impl Files for Disk {
    fn list(&mut self) -> io::Result<Vec<(String, u64)>> {
        let state = self.0.lock().unwrap();
        let files = state.files.iter();
        Ok(files
            .map(|(name, bytes)| (name.clone(), bytes.len() as u64))
            .collect())
    }

    fn read(&mut self, name: &str) -> io::Result<Vec<u8>> {
        let state = self.0.lock().unwrap();
        state.alive()?;
        state
            .files
            .get(name)
            .cloned()
            .ok_or(io::ErrorKind::NotFound.into())
    }

    fn read_at(&mut self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let bytes = self.read(name)?;
        let start = bytes.len().min(offset as usize);
        Ok(bytes[start..bytes.len().min(start + length)].to_vec())
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.alive()?;
        let room = state
            .capacity
            .map_or(usize::MAX, |capacity| capacity.saturating_sub(state.used()));
        let taken = bytes
            .len()
            .min(room)
            .min(state.dies_after.unwrap_or(usize::MAX));
        if let Some(left) = &mut state.dies_after {
            *left -= taken;
        }
        state
            .files
            .entry(name.to_owned())
            .or_default()
            .extend(&bytes[..taken]);
        match taken == bytes.len() {
            true => Ok(()),
            false => Err(io::ErrorKind::StorageFull.into()),
        }
    }

    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.alive()?;
        if let Some(bytes) = state.files.get_mut(name) {
            bytes.truncate(length as usize);
        }
        Ok(())
    }

    fn sync(&mut self, _name: &str) -> io::Result<()> {
        self.0.lock().unwrap().alive()
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.alive()?;
        state.files.remove(name);
        Ok(())
    }
}

pub(super) const SECOND: Duration = Duration::from_secs(1);

pub(super) fn limits(aggregators: usize, memory_bytes: usize, disk_bytes: Option<u64>) -> Limits {
    Limits {
        aggregators: (0..aggregators).map(|n| format!("main-{n}:8610")).collect(),
        policy: Policy::All,
        memory_bytes,
        age: Duration::from_secs(86_400),
        disk: disk_bytes.map(|bytes| DiskLimits {
            bytes,
            write_after: 10 * SECOND,
            segment_bytes: 2_000,
        }),
    }
}

/// One life of an agent's spool with its disk.
pub(super) struct Life {
    pub(super) spool: Spool,
    pub(super) log: Log,
    pub(super) now: Duration,
}

impl Life {
    pub(super) fn begin(boot_epoch: u64, disk: &Disk, limits: Limits) -> Self {
        let segment_bytes = limits.disk.map_or(0, |disk| disk.segment_bytes);
        let files = Box::new(disk.clone());
        let (log, old) = Log::open(files, boot_epoch, Sync::EachWrite, segment_bytes).unwrap();
        let mut life = Self {
            spool: Spool::new(boot_epoch, limits, old),
            log,
            now: Duration::ZERO,
        };
        life.settle_disk();
        life
    }

    /// Carries out everything that is to be done on disk.
    pub(super) fn settle_disk(&mut self) -> Vec<Change> {
        /// More than is ever to be done at once.
        const ROUNDS: usize = 500;
        let mut changes = Vec::new();
        for _ in 0..ROUNDS {
            let commands = self.spool.commands(self.now, &mut changes);
            if commands.is_empty() {
                return changes;
            }
            for command in commands {
                let answer = self.log.carry_out(command);
                changes.extend(self.spool.on_answer(self.now, answer));
            }
        }
        panic!("there is always something to be done on disk");
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now += time;
        self.spool.tend(self.now);
        self.settle_disk();
    }

    pub(super) fn table(&self) -> TableOf {
        TableOf {
            number: CURRENT + 1,
            table: Arc::new(Table {
                boot_epoch: self.spool.boot_epoch(),
                number: 1,
                frame: vec![9; 30],
            }),
        }
    }

    /// A window of a second of one path with so many probes.
    pub(super) fn push(&mut self, second: u64, probes: u32) -> Vec<Change> {
        let batch = window(
            self.spool.boot_epoch(),
            self.spool.next_sequence(),
            second,
            probes,
        );
        let span = (batch.window.start, batch.until);
        let frame = frame::frame_batch(&batch::encode(&batch).unwrap());
        let mut changes = self.spool.push(self.now, Some(self.table()), span, frame);
        changes.extend(self.settle_disk());
        changes
    }

    /// The batch at a place, read from disk if it is there only.
    pub(super) fn batch(&mut self, place: u64) -> Option<Batch> {
        self.spool.want([place]);
        self.settle_disk();
        let frame = self.spool.get(place)?.frame()?;
        Some(decode(frame))
    }

    pub(super) fn batches(&mut self) -> Vec<Batch> {
        let places: Vec<u64> = self.spool.missing_at(0).collect();
        places
            .into_iter()
            .filter_map(|place| self.batch(place))
            .collect()
    }
}

pub(super) fn decode(bytes: &[u8]) -> Batch {
    let (header, payload) = bytes.split_first_chunk::<HEADER_BYTES>().unwrap();
    let header = frame::parse_header(header).unwrap();
    batch::decode(frame::parse_batch(&header, payload).unwrap()).unwrap()
}

pub(super) fn window(boot_epoch: u64, sequence: u64, second: u64, probes: u32) -> Batch {
    let start = Timestamp::from_unix_us(1_790_000_000_000_000 + second * 1_000_000);
    let mut rtt = Rtt::empty(Schema::TwoDigits);
    let mut counts = ReportCounts {
        scheduled: probes,
        ..ReportCounts::default()
    };
    for probe in 0..probes {
        counts.end(Class::Replied);
        rtt.record(20_000 + probe * 100 + second as u32);
    }
    Batch {
        agent: AgentId::parse("eu-west-1-a").unwrap(),
        boot_epoch,
        sequence,
        table: 1,
        window: Window {
            start,
            length: SECOND,
        },
        until: start + SECOND,
        health: None,
        schema: Schema::TwoDigits,
        rows: vec![(0, Report { counts, rtt })],
    }
}

fn probes(batches: &[Batch]) -> u64 {
    let rows = batches.iter().flat_map(|batch| &batch.rows);
    rows.map(|(_, report)| u64::from(report.counts.scheduled))
        .sum()
}

/// A message that is no batch and is never looked into.
fn opaque(spool: &mut Spool, bytes: usize) -> Vec<Change> {
    let span = (Timestamp::EPOCH, Timestamp::EPOCH);
    spool.push(Duration::ZERO, None, span, vec![0; bytes])
}

fn gone(changes: &[Change]) -> Vec<u64> {
    let gone = changes.iter().filter_map(|change| match change {
        Change::Gone(place) => Some(place - CURRENT),
        _ => None,
    });
    gone.collect()
}

fn key(sequence: u64) -> Key {
    Key {
        boot_epoch: 7,
        sequence,
    }
}

fn missing(spool: &Spool, aggregator: usize) -> Vec<u64> {
    spool
        .missing_at(aggregator)
        .map(|place| place - CURRENT)
        .collect()
}

fn in_memory(aggregators: usize, memory_bytes: usize, messages: u64) -> Spool {
    let mut spool = Spool::new(7, limits(aggregators, memory_bytes, None), Vec::new());
    for _ in 0..messages {
        assert_eq!(gone(&opaque(&mut spool, 100)), [0; 0]);
    }
    spool
}

#[test]
fn a_message_is_forgotten_when_every_aggregator_has_it() {
    let mut spool = in_memory(2, 1 << 20, 1);
    spool.settle(0, key(0), Settled::Stored);
    spool.settle(0, key(0), Settled::Stored);
    assert_eq!(
        (
            spool.len(),
            missing(&spool, 0).len(),
            missing(&spool, 1).len()
        ),
        (1, 0, 1)
    );
    spool.settle(1, key(0), Settled::Stored);
    assert!(spool.is_empty());
    assert_eq!(spool.held_bytes(), 0);
}

/// What is needed of a segment is moved to free the rest of it, and moved again only once more of it is needed no more.
#[test]
fn on_a_full_disk_nothing_is_moved_to_and_fro() {
    let disk = Disk::default();
    let mut life = Life::begin(7, &disk, limits(1, 1 << 20, Some(12_000)));
    // No two of them lie in one window of ten seconds, so none can be merged.
    let mut window = 0;
    let mut push = |life: &mut Life| {
        life.push(window * 10, 1);
        life.pass(11 * SECOND);
        window += 1;
    };
    let held = || {
        disk.0
            .lock()
            .unwrap()
            .files
            .values()
            .map(Vec::len)
            .sum::<usize>()
    };
    while held() < 9_000 {
        push(&mut life);
    }
    // Of the first segment little is needed.
    for sequence in 1..8 {
        life.spool.settle(0, key(sequence), Settled::Stored);
    }
    for _ in 0..40 {
        push(&mut life);
    }
    assert!(held() <= 12_000, "{} bytes", held());
    assert!(
        life.spool.counts().dropped > 0,
        "without room the oldest goes"
    );
}

#[test]
fn with_another_policy_fewer_are_enough() {
    for (policy, needed) in [(Policy::Any, 1), (Policy::Quorum, 2), (Policy::All, 3)] {
        let limits = Limits {
            policy,
            ..limits(3, 1 << 20, None)
        };
        let mut spool = Spool::new(7, limits, Vec::new());
        opaque(&mut spool, 10);
        for aggregator in 0..needed {
            assert!(!spool.is_empty());
            spool.settle(aggregator, key(0), Settled::Stored);
        }
        assert!(spool.is_empty(), "{policy:?}");
    }
}

#[test]
fn what_is_refused_is_counted_and_not_kept_for_ever() {
    let mut spool = in_memory(1, 1 << 20, 2);
    let settled = spool.settle(0, key(0), Settled::Refused);
    assert_eq!(settled, Some((CURRENT, None, true)));
    assert_eq!((spool.counts().refused, spool.len()), (1, 1));
}

#[test]
fn everything_below_a_sequence_is_forgotten_at_once() {
    let mut spool = in_memory(1, 1 << 20, 5);
    spool.stored_below(0, 7, 3);
    assert_eq!(missing(&spool, 0), [3, 4]);
    spool.stored_below(0, 8, u64::MAX);
    assert_eq!(missing(&spool, 0), [3, 4], "another epoch");
    spool.stored_below(0, 7, u64::MAX);
    assert!(spool.is_empty());
}

#[test]
fn the_oldest_are_given_up_when_there_is_no_room() {
    let mut spool = in_memory(1, 3 * (100 + ENTRY_BYTES), 3);
    assert_eq!(gone(&opaque(&mut spool, 101)), [0, 1]);
    assert_eq!(missing(&spool, 0), [2, 3]);
    assert_eq!(spool.counts().dropped, 2);
}

#[test]
fn a_message_larger_than_the_memory_is_given_up_itself() {
    let mut spool = Spool::new(7, limits(1, 100, None), Vec::new());
    assert_eq!(gone(&opaque(&mut spool, 100)), [0]);
    assert_eq!((spool.held_bytes(), spool.counts().dropped), (0, 1));
}

#[test]
fn acknowledgements_of_what_never_was_are_ignored() {
    let mut spool = in_memory(1, 1 << 20, 1);
    assert_eq!(spool.settle(0, key(99), Settled::Stored), None);
    assert_eq!(spool.len(), 1);
}

#[test]
fn what_is_too_old_is_given_up_by_a_clock_that_nobody_sets() {
    let mut life = Life::begin(7, &Disk::default(), limits(1, 1 << 20, Some(1 << 20)));
    life.push(0, 1);
    life.pass(Duration::from_secs(86_000));
    life.push(1_000_000_000, 1);
    life.pass(Duration::from_secs(401));
    assert_eq!((life.spool.len(), life.spool.counts().dropped), (1, 1));
}

#[test]
fn nothing_is_written_while_all_is_well() {
    let disk = Disk::default();
    let mut life = Life::begin(7, &disk, limits(1, 1 << 20, Some(1 << 20)));
    for second in 0..100 {
        life.push(second, 1);
        life.pass(SECOND);
        life.spool.settle(0, key(second), Settled::Stored);
    }
    assert!(disk.0.lock().unwrap().files.is_empty());
    assert_eq!(life.spool.counts().written, 0);
}

#[test]
fn what_waits_for_long_outlives_the_process_with_its_epoch_and_table() {
    let disk = Disk::default();
    let mut life = Life::begin(7, &disk, limits(2, 1 << 20, Some(1 << 20)));
    for second in 0..30 {
        life.push(second, 2);
        life.pass(SECOND);
    }
    assert_eq!(life.spool.on_disk().0, 21, "ten seconds wait in memory");
    drop(life);
    let mut life = Life::begin(8, &disk, limits(2, 1 << 20, Some(1 << 20)));
    assert_eq!(life.spool.epochs(), [7]);
    assert_eq!(life.spool.counts().recovered, 21);
    let batches = life.batches();
    let sequences: Vec<_> = batches
        .iter()
        .map(|own| (own.boot_epoch, own.sequence))
        .collect();
    assert_eq!(
        sequences,
        (0..21).map(|sequence| (7, sequence)).collect::<Vec<_>>()
    );
    let places: Vec<u64> = life.spool.missing_at(0).collect();
    let table = life.spool.get(places[0]).unwrap().table.clone().unwrap();
    assert_eq!((table.table.boot_epoch, table.table.number), (7, 1));
    assert!(life.spool.refers_to(table.number));
    for aggregator in 0..2 {
        life.spool.stored_below(aggregator, 7, 21);
    }
    life.settle_disk();
    assert!(
        disk.0.lock().unwrap().files.is_empty(),
        "what nobody needs is removed"
    );
    assert_eq!(life.spool.epochs(), [0; 0]);
}

#[test]
fn a_stopping_agent_writes_everything() {
    let disk = Disk::default();
    let mut life = Life::begin(7, &disk, limits(1, 1 << 20, Some(1 << 20)));
    life.push(0, 1);
    assert!(!life.spool.is_flushed());
    life.spool.flush();
    life.settle_disk();
    assert!(life.spool.is_flushed());
    assert_eq!(
        (life.spool.in_memory_only(), life.spool.on_disk().0),
        (0, 1)
    );
}

#[test]
fn full_memory_goes_to_disk_and_comes_back_in_order() {
    let disk = Disk::default();
    let mut life = Life::begin(7, &disk, limits(1, 8_000, Some(1 << 20)));
    for second in 0..25 {
        life.push(second, 3);
    }
    assert!(life.spool.held_bytes() <= 8_000);
    assert_eq!(
        life.spool.counts().dropped + life.spool.counts().coarsened,
        0
    );
    let sequences: Vec<_> = life.batches().iter().map(|own| own.sequence).collect();
    assert_eq!(sequences, (0..25).collect::<Vec<_>>());
}

#[test]
fn without_room_ten_windows_become_one_and_nothing_is_lost_of_them() {
    let mut life = Life::begin(7, &Disk::default(), limits(1, 10_000, None));
    for second in 0..100 {
        life.push(second, 3);
    }
    let counts = life.spool.counts();
    assert_eq!(counts.dropped, 0, "{counts:?}");
    assert!(counts.coarsened > 50, "{counts:?}");
    let batches = life.batches();
    assert_eq!(probes(&batches), 300);
    let lengths: u64 = batches
        .iter()
        .map(|own| own.until.since(own.window.start).as_secs())
        .sum();
    assert_eq!(lengths, 100);
}

#[test]
fn a_full_disk_coarsens_before_it_drops_and_says_so() {
    let disk = Disk::default();
    disk.0.lock().unwrap().capacity = Some(3_000);
    let mut life = Life::begin(7, &disk, limits(1, 20_000, Some(1 << 20)));
    for second in 0..60 {
        life.push(second, 3);
        life.pass(SECOND);
    }
    assert!(life.spool.trouble().unwrap().contains("cannot write to"));
    assert!(life.spool.counts().coarsened > 0 && life.spool.counts().write_errors > 0);
    assert_eq!(life.spool.counts().dropped, 0);
    assert_eq!(probes(&life.batches()), 180);
    disk.0.lock().unwrap().capacity = None;
    life.pass(6 * SECOND);
    life.pass(6 * SECOND);
    assert_eq!(life.spool.trouble(), None);
    for second in 60..4_000 {
        life.push(second, 3);
        disk.0.lock().unwrap().capacity = Some(3_000);
    }
    assert!(life.spool.counts().dropped > 0);
}

#[test]
fn a_disk_at_its_limit_merges_what_is_on_it() {
    let disk = Disk::default();
    let mut life = Life::begin(7, &disk, limits(1, 1 << 20, Some(14_000)));
    for second in 0..200 {
        life.push(second, 3);
        life.pass(SECOND);
        let used = disk.0.lock().unwrap().used();
        assert!(used <= 14_000 + 2_000, "{used}");
    }
    let counts = life.spool.counts();
    assert!(counts.coarsened > 100, "{counts:?}");
    let waiting = probes(&life.batches());
    assert_eq!((waiting, counts.dropped), (600, 0), "{counts:?}");
    drop(life);
    let mut life = Life::begin(8, &disk, limits(1, 1 << 20, Some(14_000)));
    assert!(
        probes(&life.batches()) >= 600 - 60,
        "but for the last seconds it is on disk"
    );
}

/// The process dies after the merged window was written and before what it replaces was removed.
#[test]
fn what_was_merged_is_not_delivered_beside_its_parts() {
    let disk = Disk::default();
    let mut life = Life::begin(7, &disk, limits(1, 1 << 20, Some(10_000)));
    let mut merges = 0;
    for second in 0..200 {
        // So many probes that a sum tells which seconds are in it.
        let mut batch = window(7, life.spool.next_sequence(), second, 1);
        batch.rows[0].1.counts.scheduled = 1 << (second % 10);
        let span = (batch.window.start, batch.until);
        let frame = frame::frame_batch(&batch::encode(&batch).unwrap());
        life.spool.push(life.now, Some(life.table()), span, frame);
        life.now += 11 * SECOND;
        for command in life.spool.commands(life.now, &mut Vec::new()) {
            merges += u32::from(matches!(command, Command::Coarsen(_)));
            let is_removal = matches!(command, Command::Remove(_));
            // Nothing is ever removed: as if it died just then.
            if !is_removal {
                let answer = life.log.carry_out(command);
                life.spool.on_answer(life.now, answer);
            }
        }
    }
    assert!(merges > 0);
    let mut seen = BTreeMap::new();
    let mut life = Life::begin(8, &disk, limits(1, 1 << 20, Some(1 << 20)));
    for batch in life.batches() {
        let scheduled = batch.rows[0].1.counts.scheduled;
        for bit in (0..32).filter(|bit| scheduled >> bit & 1 == 1) {
            let slot = batch.window.start.floor(coarsen::LENGTH);
            *seen.entry((slot, bit)).or_insert(0) += 1;
        }
    }
    assert!(seen.len() > 50);
    assert!(seen.values().all(|&times| times == 1), "{seen:?}");
}

/// Aggregators may have what was merged, and it is damaged now: its parts are not delivered in its place.
#[test]
fn parts_stay_away_when_what_they_were_merged_into_is_damaged() {
    let disk = Disk::default();
    let mut life = Life::begin(7, &disk, limits(1, 1 << 20, Some(10_000)));
    for second in 0..200 {
        life.push(second, 1);
        life.now += 11 * SECOND;
        for command in life.spool.commands(life.now, &mut Vec::new()) {
            if !matches!(command, Command::Remove(_)) {
                let answer = life.log.carry_out(command);
                life.spool.on_answer(life.now, answer);
            }
        }
    }
    let (mut gone, mut replaced) = (BTreeSet::new(), BTreeSet::new());
    for bytes in disk.0.lock().unwrap().files.values_mut() {
        let mut last_bytes = Vec::new();
        record::read_segment(bytes, |found| {
            if let Found::Record {
                offset,
                length,
                record: Record::Message(message),
            } = found
                && !message.replaces.is_empty()
            {
                gone.insert(message.key.sequence);
                replaced.extend(message.replaces.iter().flat_map(|&(first, end)| first..end));
                last_bytes.push(offset + length - 1);
            }
        });
        last_bytes.into_iter().for_each(|at| bytes[at] ^= 1);
    }
    assert!(replaced.len() > 50);
    let mut life = Life::begin(8, &disk, limits(1, 1 << 20, Some(1 << 20)));
    let delivered: BTreeSet<u64> = life.batches().iter().map(|batch| batch.sequence).collect();
    assert!(!delivered.is_empty());
    assert!(delivered.is_disjoint(&replaced) && delivered.is_disjoint(&gone));
    assert_eq!(life.spool.counts().damaged, gone.len() as u64);
}

#[test]
fn what_may_have_been_counted_is_not_merged() {
    let mut life = Life::begin(7, &Disk::default(), limits(1, 10_000, None));
    for second in 0..20 {
        let place = life.spool.next_place();
        life.push(second, 3);
        life.spool.handed(0, place);
    }
    for second in 20..100 {
        life.push(second, 3);
    }
    let batches = life.batches();
    let sent = batches.iter().filter(|own| own.sequence < 20);
    assert!(sent.clone().count() > 0 && sent.clone().all(|own| own.window.length == SECOND));
}

#[test]
fn a_merged_window_is_not_sent_to_those_who_have_its_parts() {
    let disk = Disk::default();
    let mut life = Life::begin(7, &disk, limits(2, 10_000, Some(1 << 20)));
    disk.0.lock().unwrap().is_broken = true;
    for second in 0..60 {
        let sequence = life.spool.next_sequence();
        let place = life.spool.next_place();
        life.push(second, 3);
        life.spool.handed(0, place);
        life.spool.settle(0, key(sequence), Settled::Stored);
    }
    assert!(life.spool.counts().coarsened > 0);
    assert_eq!(missing(&life.spool, 0), [0; 0]);
    disk.0.lock().unwrap().is_broken = false;
    life.now += 20 * SECOND;
    life.spool.flush();
    life.settle_disk();
    drop(life);
    let life = Life::begin(8, &disk, limits(2, 1 << 20, Some(1 << 20)));
    let for_first: Vec<u64> = life.spool.missing_at(0).collect();
    let merged = for_first.iter().filter(|&&place| {
        let message = life.spool.get(place).unwrap();
        message.end.since(message.start) > SECOND
    });
    assert_eq!(merged.count(), 0);
    assert!(life.spool.missing_at(1).count() > 0);
}

#[test]
fn a_damaged_place_is_named_and_the_rest_is_served() {
    let disk = Disk::default();
    let mut life = Life::begin(7, &disk, limits(1, 1 << 20, Some(1 << 20)));
    for second in 0..30 {
        life.push(second, 3);
        life.pass(SECOND);
    }
    let (on_disk, _) = life.spool.on_disk();
    let name = {
        let mut state = disk.0.lock().unwrap();
        let (name, bytes) = state.files.iter_mut().next().unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        name.clone()
    };
    drop(life);
    let mut life = Life::begin(8, &disk, limits(1, 1 << 20, Some(1 << 20)));
    assert_eq!(life.spool.counts().damaged, 1);
    assert_eq!(life.spool.take_troubles()[0].file, name);
    assert_eq!(life.batches().len() as u64, on_disk - 1);
}

#[test]
fn whatever_has_a_frame_passes() {
    let disk = Disk::default();
    let mut life = Life::begin(7, &disk, limits(1, 1 << 20, Some(1 << 20)));
    opaque(&mut life.spool, 50);
    life.spool.flush();
    life.settle_disk();
    drop(life);
    let mut life = Life::begin(8, &disk, limits(1, 1 << 20, Some(1 << 20)));
    let place = life.spool.missing_at(0).next().unwrap();
    life.spool.want([place]);
    life.settle_disk();
    let message = life.spool.get(place).unwrap();
    assert_eq!(message.frame().map(|frame| frame.len()), Some(50));
    assert!(message.table.is_none());
}

#[test]
fn answers_for_what_is_gone_do_no_harm() {
    let mut spool = in_memory(1, 1 << 20, 1);
    let answer = Answer::Read {
        place: 99,
        frame: Ok(Vec::new()),
    };
    assert!(spool.on_answer(Duration::ZERO, answer).is_empty());
}

fn any_report() -> impl Strategy<Value = Report> {
    let rtts = prop::collection::vec(1u32..60_000_000, 0..12);
    let direction =
        (0u32..9, 0u32..9, 0u32..9, 0u32..9_000).prop_map(|(lost, reordered, pairs, max_us)| {
            Direction {
                lost,
                reordered,
                variation: Variation {
                    pairs,
                    sum_us: u64::from(max_us) * u64::from(pairs.div_ceil(2)),
                    max_us: if pairs > 0 { max_us } else { 0 },
                },
            }
        });
    let one_way = prop::option::of((direction.clone(), direction, 0u32..9, 0u32..9));
    (rtts, 0u32..9, 0u32..9, 0u32..9, one_way).prop_map(|(rtts, lost, overdue, open, one_way)| {
        let mut rtt = Rtt::empty(Schema::TwoDigits);
        let mut counts = ReportCounts {
            scheduled: rtts.len() as u32 + lost,
            overdue,
            open,
            ..ReportCounts::default()
        };
        for sample in rtts {
            rtt.record(sample);
            counts.end(Class::Replied);
        }
        (0..lost).for_each(|_| counts.end(Class::Lost));
        let unanswered = overdue;
        counts.silence = Some(Silence {
            unanswered,
            lasts: Duration::from_millis(u64::from(unanswered)),
        });
        counts.one_way = one_way.map(|(forward, backward, lost_unknown, lost_pending)| OneWay {
            forward,
            backward,
            lost_unknown,
            lost_pending,
        });
        Report { counts, rtt }
    })
}

proptest! {
    /// Every message ends as settled, waiting or given up, and the memory account is exact.
    #[test]
    fn every_message_is_accounted_for(
        steps in prop::collection::vec((0usize..600, 0usize..2, 0u64..60), 1..200),
    ) {
        let mut spool = Spool::new(7, limits(2, 4_000, None), Vec::new());
        let mut settled = 0;
        let mut given_up = 0;
        for (size, aggregator, sequence) in steps {
            given_up += gone(&opaque(&mut spool, size)).len() as u64;
            let is_free = spool.settle(aggregator, key(sequence), Settled::Stored).is_some_and(|(_, _, is_free)| is_free);
            settled += u64::from(is_free);
            prop_assert!(spool.held_bytes() <= 4_000);
        }
        prop_assert_eq!(spool.counts().dropped, given_up);
        prop_assert_eq!(spool.next_sequence(), settled + given_up + spool.len() as u64);
        let held: usize = spool.waiting.values().map(Waiting::cost).sum();
        prop_assert_eq!(spool.held_bytes(), held);
    }

    /// What ten windows tell, the one that they become tells: every count, every bucket, every account.
    #[test]
    fn merging_is_exact(reports in prop::collection::vec(prop::collection::btree_map(0u32..4, any_report(), 0..4), 2..10)) {
        let members: Vec<Message> = reports.iter().enumerate().map(|(second, rows)| {
            let mut batch = window(7, second as u64, second as u64, 0);
            batch.rows = rows.clone().into_iter().collect();
            batch.health = Some(LocalHealth { due: 10, not_sent: 1, lateness_mean_us: second as u32, ..LocalHealth::default() });
            Message {
                key: key(second as u64), table: Some(1), start: batch.window.start, end: batch.until,
                exempt: Vec::new(), replaces: Vec::new(), frame: frame::frame_batch(&batch::encode(&batch).unwrap()),
            }
        }).collect();
        let merged = coarsen::merge(99, &members).unwrap();
        prop_assert_eq!(&merged.replaces, &[(0, reports.len() as u64)]);
        let batch = decode(&merged.frame);
        prop_assert_eq!((batch.sequence, batch.window.length), (99, coarsen::LENGTH));
        prop_assert_eq!(batch.health.unwrap().due, 10 * reports.len() as u32);
        for row in 0..4 {
            let told: Vec<&Report> = reports.iter().filter_map(|rows| rows.get(&row)).collect();
            let Some((_, one)) = batch.rows.iter().find(|(own, _)| *own == row) else {
                prop_assert!(told.is_empty());
                continue;
            };
            let sum = |of: &dyn Fn(&Report) -> u64| told.iter().map(|report| of(report)).sum::<u64>();
            prop_assert_eq!(u64::from(one.counts.scheduled), sum(&|own| own.counts.scheduled.into()));
            prop_assert_eq!(u64::from(one.counts.overdue), sum(&|own| own.counts.overdue.into()));
            for class in Class::ALL {
                prop_assert_eq!(u64::from(one.counts.of(class)), sum(&|own| own.counts.of(class).into()));
            }
            prop_assert_eq!(one.rtt.sum_us, sum(&|own| own.rtt.sum_us));
            let mut rtt = Rtt::empty(Schema::TwoDigits);
            told.iter().for_each(|own| rtt.merge(&own.rtt).unwrap());
            prop_assert_eq!(&rtt, &one.rtt);
            let lost = |own: &Report| u64::from(own.counts.one_way.unwrap_or_default().forward.lost);
            prop_assert_eq!(lost(one), sum(&lost));
            let last = reports.last().unwrap().get(&row);
            prop_assert_eq!(one.counts.open, last.map_or(0, |own| own.counts.open));
            if let Some(pending) = told.iter().rev().find_map(|own| own.counts.one_way) {
                prop_assert_eq!(one.counts.one_way.unwrap().lost_pending, pending.lost_pending);
            }
        }
    }
}
