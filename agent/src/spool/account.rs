//! The disk's side of the account: what is on it, what is under way to it, and what is wrong with it. [pure]

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use super::{
    CURRENT, Change, Entry, Spool, TableOf, Waiting,
    log::{Command, Failed, Group, Location, OldSegment, SEGMENT_BYTES, Serial, Trouble},
    record::Message,
};
use std::sync::Arc;

mod answers;

/// Messages in one write, and their bytes: what a slow disk takes in a second or two.
const WRITE_MESSAGES: usize = 64;
const WRITE_BYTES: usize = 1 << 20;

/// Messages read ahead for the connections.
const READS_MAX: usize = 32;

/// Attempts to read a message that the disk does not give, [`RETRY_AFTER`] apart.
const READ_ATTEMPTS: u32 = 3;

/// Messages merged on disk at once.
const MERGE_MESSAGES: usize = 256;

/// From a failed write to the next attempt.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// How much disk may be used, and when.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DiskLimits {
    /// Bytes of all segments together.
    pub bytes: u64,
    /// A message that has waited for this long is written.
    pub write_after: Duration,
    /// See [`SEGMENT_BYTES`]; smaller in tests.
    pub segment_bytes: u64,
}

impl DiskLimits {
    /// This many bytes, written after this time.
    #[must_use]
    pub const fn new(bytes: u64, write_after: Duration) -> Self {
        Self {
            bytes,
            write_after,
            segment_bytes: SEGMENT_BYTES,
        }
    }
}

/// A segment.
#[derive(Debug, Default)]
struct Segment {
    boot_epoch: u64,
    bytes: u64,
    /// Messages in it that wait, and the bytes of their records.
    live: usize,
    live_bytes: u64,
    /// The bytes of all records of messages that were ever in it.
    taken_bytes: u64,
    /// Whether something in it could not be moved elsewhere.
    stays: bool,
    /// Older segments with messages that were merged into some of this one. It must not go before them: a life that found
    /// the parts alone would deliver them again.
    waits_for: BTreeSet<Serial>,
    /// Whether it may wait for segments that were not read yet.
    replaces: bool,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct DiskAccount {
    limits: DiskLimits,
    segments: BTreeMap<Serial, Segment>,
    /// Of lives before and not read yet, ascending. The newest is read first, because it may say that messages in older
    /// ones were merged.
    unread: VecDeque<OldSegment>,
    is_recovering: bool,
    /// Unread segments that are given up: their messages are counted and nothing more.
    doomed: BTreeSet<Serial>,
    /// Of recovered messages: where the next one stands, from [`CURRENT`] downwards.
    next_recovered: u64,
    recovered_tables: BTreeMap<(u64, u32), TableOf>,
    /// Recovered messages whose path table was not found yet.
    orphans: Vec<(Message, Location)>,
    /// What recovered messages replaced: boot epoch, first sequence and one past the last, and where it says so.
    replaced: Vec<(u64, u64, u64, Serial)>,
    is_writing: bool,
    is_merging: bool,
    reading: BTreeSet<u64>,
    wanted: BTreeSet<u64>,
    /// How often the disk has not given what it was asked for.
    read_failures: BTreeMap<u64, u32>,
    removing: BTreeSet<Serial>,
    /// What the last write failed with, and when the next is tried.
    trouble: Option<(Failed, Duration)>,
    troubles: VecDeque<Trouble>,
    is_flushing: bool,
    is_synced: bool,
}

impl DiskAccount {
    pub(super) fn new(limits: DiskLimits, old: Vec<OldSegment>) -> Self {
        Self {
            limits,
            segments: BTreeMap::new(),
            unread: old.into(),
            is_recovering: false,
            doomed: BTreeSet::new(),
            next_recovered: CURRENT,
            recovered_tables: BTreeMap::new(),
            orphans: Vec::new(),
            replaced: Vec::new(),
            is_writing: false,
            is_merging: false,
            reading: BTreeSet::new(),
            wanted: BTreeSet::new(),
            read_failures: BTreeMap::new(),
            removing: BTreeSet::new(),
            trouble: None,
            troubles: VecDeque::new(),
            is_flushing: false,
            is_synced: false,
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.trouble
            .as_ref()
            .is_some_and(|(failed, _)| failed.is_full)
    }

    /// Bytes of all segments.
    fn bytes(&self) -> u64 {
        let unread: u64 = self.unread.iter().map(|segment| segment.bytes).sum();
        let known: u64 = self.segments.values().map(|segment| segment.bytes).sum();
        unread + known
    }

    /// A message lies in this place now.
    pub(super) fn took(&mut self, location: Location) {
        let segment = self.segments.entry(location.segment).or_default();
        segment.live += 1;
        segment.live_bytes += u64::from(location.length);
        segment.taken_bytes += u64::from(location.length);
        segment.reach(location);
    }

    /// The message in this place is needed no more.
    pub(super) fn left(&mut self, location: Location) {
        if let Some(segment) = self.segments.get_mut(&location.segment) {
            segment.live = segment.live.saturating_sub(1);
            segment.live_bytes = segment.live_bytes.saturating_sub(location.length.into());
        }
    }

    /// The oldest segment of this life of whose messages more than half is not needed, or that holds up one that nobody needs; the
    /// newest is being written to. What was moved is not moved again before something of it is needed no more: tables and
    /// headers alone are no reason, or it would go to and fro for ever.
    fn sparse(&self, boot_epoch: u64) -> Option<Serial> {
        let (&newest, _) = self.segments.last_key_value()?;
        let holds_up = |serial: Serial| {
            let mut others = self.segments.values();
            others.any(|own| own.live == 0 && own.waits_for.contains(&serial))
        };
        let mut sparse = self.segments.iter().filter(|&(&serial, segment)| {
            let is_ours = serial != newest && segment.boot_epoch == boot_epoch && !segment.stays;
            let is_sparse = segment.live_bytes * 2 < segment.taken_bytes;
            is_ours && segment.live > 0 && (is_sparse || holds_up(serial))
        });
        sparse.next().map(|(&serial, _)| serial)
    }

    /// The segment that is given up next. Those that nobody needs are removed anyway.
    pub(super) fn oldest(&mut self) -> Option<Serial> {
        let unread = self.unread.iter().map(|segment| segment.serial);
        let live = self.segments.iter().filter(|(_, segment)| segment.live > 0);
        unread
            .chain(live.map(|(&serial, _)| serial))
            .filter(|serial| !self.doomed.contains(serial))
            .min()
    }

    /// Gives up what is in a segment beside the messages that wait; how many that are.
    pub(super) fn give_up(&mut self, segment: Serial) -> u64 {
        if self.unread.iter().any(|unread| unread.serial == segment) {
            self.doomed.insert(segment);
            return 0;
        }
        let before = self.orphans.len();
        self.orphans.retain(|(_, at)| at.segment != segment);
        if let Some(segment) = self.segments.get_mut(&segment) {
            segment.live = 0;
            segment.live_bytes = 0;
        }
        // What is tried next has room.
        if let Some((_, retry_at)) = &mut self.trouble {
            *retry_at = Duration::ZERO;
        }
        (before - self.orphans.len()) as u64
    }

    fn fails(&mut self, now: Duration, failed: Failed) {
        self.trouble = Some((failed, now + RETRY_AFTER));
    }

    fn may_try(&self, now: Duration) -> bool {
        let retry_at = self.trouble.as_ref().map_or(Duration::ZERO, |&(_, at)| at);
        now >= retry_at
    }

    fn may_write(&self, now: Duration) -> bool {
        !self.is_writing && !self.is_merging && self.may_try(now)
    }
}

impl Segment {
    fn reach(&mut self, location: Location) {
        let end = u64::from(location.offset) + u64::from(location.length);
        self.bytes = self.bytes.max(end);
    }
}

impl Spool {
    /// Does what time brings: gives up what is too old, and while the disk is full merges what can be.
    pub fn tend(&mut self, now: Duration) -> Vec<Change> {
        let mut changes = Vec::new();
        for from in [0, CURRENT] {
            while let Some((&place, message)) = self.waiting.range(from..).next()
                && now.saturating_sub(message.since) > self.limits.age
            {
                self.give_up(place, &mut changes);
            }
        }
        if self.disk.as_ref().is_some_and(DiskAccount::is_full) {
            self.merge_in_memory(now, &mut changes);
        }
        changes
    }

    /// Asks for the frames of messages that are to be sent next, if they are on disk.
    pub fn want(&mut self, places: impl IntoIterator<Item = u64>) {
        let Some(disk) = &mut self.disk else {
            return;
        };
        for place in places {
            let message = self.waiting.get(&place);
            let is_away = message.is_some_and(|message| {
                message.frame.is_none() && message.location.is_some() && !message.is_being_merged
            });
            if is_away && disk.wanted.len() < READS_MAX && !disk.reading.contains(&place) {
                disk.wanted.insert(place);
            }
        }
    }

    /// Everything is written from now on, as soon as possible: the agent stops.
    pub fn flush(&mut self) {
        if let Some(disk) = &mut self.disk {
            disk.is_flushing = true;
            disk.is_synced = false;
        }
    }

    /// Whether there is nothing left to be written, or nothing can be.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        self.disk.as_ref().is_none_or(|disk| {
            let is_done = self.unwritten.is_empty() && !disk.is_writing && disk.is_synced;
            is_done || (disk.trouble.is_some() && !disk.is_writing)
        })
    }

    /// Messages that only memory holds.
    #[must_use]
    pub fn in_memory_only(&self) -> usize {
        self.waiting
            .values()
            .filter(|own| own.location.is_none())
            .count()
    }

    /// Messages on disk, as far as they were read, and bytes of all segments.
    #[must_use]
    pub fn on_disk(&self) -> (u64, u64) {
        self.disk.as_ref().map_or((0, 0), |disk| {
            let messages: usize = disk.segments.values().map(|segment| segment.live).sum();
            (messages as u64, disk.bytes())
        })
    }

    /// What the disk fails with, as long as it does.
    #[must_use]
    pub fn trouble(&self) -> Option<&str> {
        let (failed, _) = self.disk.as_ref()?.trouble.as_ref()?;
        Some(&failed.why)
    }

    /// Places on disk that could not be read, since this was asked last.
    pub fn take_troubles(&mut self) -> Vec<Trouble> {
        let disk = self.disk.as_mut();
        disk.map(|disk| disk.troubles.drain(..).collect())
            .unwrap_or_default()
    }

    /// Boot epochs before this one of which messages wait, oldest first.
    #[must_use]
    pub fn epochs(&self) -> Vec<u64> {
        let Some(disk) = &self.disk else {
            return Vec::new();
        };
        let unread = disk.unread.iter().map(|own| (own.serial, own.boot_epoch));
        let live = disk.segments.iter().filter(|(_, own)| own.live > 0);
        let mut all: Vec<_> = unread
            .chain(live.map(|(&serial, own)| (serial, own.boot_epoch)))
            .collect();
        all.sort_unstable();
        let mut epochs = Vec::new();
        for (_, boot_epoch) in all {
            if boot_epoch != self.boot_epoch && !epochs.contains(&boot_epoch) {
                epochs.push(boot_epoch);
            }
        }
        epochs
    }

    /// What is to be done on disk now, in this order. What is under way at once is bounded: one write, one merge, one
    /// recovery, [`READS_MAX`] reads, and a removal for each segment.
    pub fn commands(&mut self, now: Duration, changes: &mut Vec<Change>) -> Vec<Command> {
        let mut commands = Vec::new();
        // A disk that is full can be read and makes room; one that fails is left alone for a while.
        let disk = self.disk.as_ref();
        if disk.is_some_and(|disk| disk.is_full() || disk.may_try(now)) {
            self.command_recovery(&mut commands);
            self.command_reads(&mut commands);
            self.command_removals(&mut commands);
        }
        self.command_writes(now, changes, &mut commands);
        commands
    }

    fn command_recovery(&mut self, commands: &mut Vec<Command>) {
        let is_roomy = self.held_bytes < self.limits.memory_bytes / 2;
        let Some(disk) = &mut self.disk else {
            return;
        };
        if disk.is_recovering {
            return;
        }
        // What is given up costs no memory.
        let doomed = disk
            .unread
            .front()
            .filter(|own| disk.doomed.contains(&own.serial));
        let next = doomed.or_else(|| disk.unread.back().filter(|_| is_roomy));
        if let Some(&OldSegment { serial, .. }) = next {
            disk.is_recovering = true;
            commands.push(Command::Recover(serial));
        }
    }

    fn command_reads(&mut self, commands: &mut Vec<Command>) {
        let Some(disk) = &mut self.disk else {
            return;
        };
        while disk.reading.len() < READS_MAX
            && let Some(place) = disk.wanted.pop_first()
        {
            if let Some(message) = self.waiting.get(&place)
                && let Some(location) = message.location
            {
                disk.reading.insert(place);
                commands.push(Command::Read {
                    place,
                    key: message.key,
                    location,
                });
            }
        }
    }

    /// A segment that nothing is being written to and nobody needs goes.
    fn command_removals(&mut self, commands: &mut Vec<Command>) {
        let Some(disk) = &mut self.disk else {
            return;
        };
        if disk.is_writing || disk.is_merging {
            return;
        }
        let DiskAccount {
            segments,
            unread,
            removing,
            orphans,
            ..
        } = disk;
        for (&serial, segment) in segments.iter() {
            let is_needed = segment.live > 0
                || (segment.replaces && !unread.is_empty())
                || segment
                    .waits_for
                    .iter()
                    .any(|older| segments.contains_key(older))
                || orphans.iter().any(|(_, at)| at.segment == serial);
            if !is_needed && removing.insert(serial) {
                commands.push(Command::Remove(serial));
            }
        }
    }

    fn command_writes(
        &mut self,
        now: Duration,
        changes: &mut Vec<Change>,
        commands: &mut Vec<Command>,
    ) {
        let is_half_full = self.held_bytes > self.limits.memory_bytes / 2;
        let Some(disk) = &mut self.disk else {
            return;
        };
        if !disk.may_write(now) {
            return;
        }
        let all = disk.is_flushing || is_half_full;
        let write_after = disk.limits.write_after;
        let is_due = |message: &Waiting| all || now.saturating_sub(message.since) >= write_after;
        let mut bytes = 0;
        let due: Vec<u64> = self
            .unwritten
            .iter()
            // They are in the order in which they came, so the first that is not due ends the search.
            .take_while(|place| self.waiting.get(place).is_some_and(is_due))
            .take(WRITE_MESSAGES)
            .take_while(|place| {
                bytes += self.waiting[place].cost();
                bytes <= WRITE_BYTES || bytes == self.waiting[place].cost()
            })
            .copied()
            .collect();
        if due.is_empty() {
            if disk.is_flushing && self.unwritten.is_empty() && !disk.is_synced {
                disk.is_writing = true;
                commands.push(Command::Sync);
            }
            return;
        }
        // A segment may become longer than it should by one write, and what is merged is written before room is made.
        let room = disk.limits.bytes.saturating_sub(disk.limits.segment_bytes);
        let is_over = disk.bytes() + bytes as u64 > room;
        if is_over && self.relieve_disk(changes, commands) {
            return;
        }
        if let Some(disk) = &mut self.disk {
            disk.is_writing = true;
        }
        let entries = due.into_iter().filter_map(|place| self.begin_write(place));
        let entries: Vec<Entry> = entries.collect();
        commands.push(Command::Append(entries));
    }

    fn begin_write(&mut self, place: u64) -> Option<Entry> {
        self.unwritten.remove(&place);
        let waiting = self.waiting.get(&place)?;
        // Those who have all of it under sequences that it replaced; under its own it was sent to nobody or they know it.
        let exempt = waiting.stored & !waiting.handed;
        Some(Entry {
            place,
            message: Message {
                exempt: self.names(exempt),
                ..self.message_without_frame(waiting)
            },
            frame: waiting.frame.clone()?,
            table: waiting.table.as_ref().map(|of| Arc::clone(&of.table)),
        })
    }

    fn names(&self, mask: u16) -> Vec<String> {
        let has = |index: &usize| mask >> index & 1 == 1;
        let names = self.limits.aggregators.iter().enumerate();
        names
            .filter(|(index, _)| has(index))
            .map(|(_, name)| name.clone())
            .collect()
    }

    /// The disk holds as much as it may: merges what is on it, or gives up the oldest segment. `false` if nothing is on it.
    fn relieve_disk(&mut self, changes: &mut Vec<Change>, commands: &mut Vec<Command>) -> bool {
        let groups = self.groups_on_disk();
        if !groups.is_empty() {
            if let Some(disk) = &mut self.disk {
                disk.is_merging = true;
            }
            commands.push(Command::Coarsen(groups));
            return true;
        }
        let sparse = self
            .disk
            .as_ref()
            .and_then(|disk| disk.sparse(self.boot_epoch));
        if let Some(segment) = sparse {
            let groups = self.moved_out_of(segment);
            if let Some(disk) = &mut self.disk {
                disk.is_merging = true;
            }
            commands.push(Command::Coarsen(groups));
            return true;
        }
        let Some(segment) = self.disk.as_mut().and_then(DiskAccount::oldest) else {
            return false;
        };
        self.give_up_segment(segment, changes);
        self.command_removals(commands);
        self.command_recovery(commands);
        true
    }

    /// What is needed of a segment, to be written anew elsewhere.
    fn moved_out_of(&mut self, segment: Serial) -> Vec<Group> {
        let mut groups = Vec::new();
        for (&place, message) in &mut self.waiting {
            let Some(location) = message.location.filter(|at| at.segment == segment) else {
                continue;
            };
            message.is_being_merged = true;
            groups.push(Group {
                members: vec![(place, message.key, location)],
                sequence: message.key.sequence,
                exempt: Vec::new(),
                table: message.table.as_ref().map(|of| Arc::clone(&of.table)),
            });
        }
        groups
    }

    /// The oldest messages on disk that can be merged, by what they become.
    fn groups_on_disk(&mut self) -> Vec<Group> {
        let mut found: BTreeMap<(leeward_common::time::Timestamp, u64, u16), Vec<u64>> =
            BTreeMap::new();
        let mut count = 0;
        for (&place, message) in self.waiting.range(CURRENT..) {
            if message.location.is_none() {
                continue;
            }
            if let Some(of) = self.mergeable(place) {
                found.entry(of).or_default().push(place);
                count += 1;
            }
            if count >= MERGE_MESSAGES {
                break;
            }
        }
        let mut groups = Vec::new();
        for ((_, _, stored), places) in found {
            if places.len() < 2 {
                continue;
            }
            let mut members = Vec::with_capacity(places.len());
            let mut table = None;
            for place in places {
                let Some(message) = self.waiting.get_mut(&place) else {
                    continue;
                };
                let Some(location) = message.location else {
                    continue;
                };
                message.is_being_merged = true;
                table = message.table.as_ref().map(|of| Arc::clone(&of.table));
                members.push((place, message.key, location));
            }
            groups.push(Group {
                members,
                sequence: self.next_sequence,
                exempt: self.names(stored),
                table,
            });
            self.next_sequence += 1;
        }
        groups
    }
}
