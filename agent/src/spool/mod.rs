//! Messages that wait until enough aggregators have stored them, in memory and on disk.
//!
//! [`Spool`] is the account: what waits, who has it, where it is. It does nothing itself. What is to be done on disk it says
//! as [`Command`]s, which a thread of their own carries out ([`thread`], [`log`]), and hears of as [`Answer`]s; so nobody
//! ever waits for a disk, and tests can play one that is full, broken or cut off.
//!
//! ```text
//!   push ──▶ memory ── waits for long, memory half full, stop ──▶ disk ──▶ (memory again) ──▶ sent ──▶ settled: forgotten
//!               └── no room anywhere: ten seconds become one window ── still none: the oldest goes
//! ```
//!
//! While all is well nothing touches the disk. A message is known by its boot epoch and sequence and is never looked into
//! except to merge windows, so whatever has a frame passes. Each life of the process has a boot epoch of its own; what a
//! life before left on disk is delivered under that life's epoch, so the aggregators know what they have already.
//!
//! Places: the line in which messages are sent. What was left by lives before stands below [`CURRENT`], what this one
//! measures above it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use leeward_common::time::Timestamp;

mod account;
mod coarsen;
pub mod files;
pub mod log;
pub mod policy;
pub mod record;
pub mod thread;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

use account::DiskAccount;
pub use account::DiskLimits;
use log::{Entry, Location, OldSegment};
pub use policy::Policy;
pub use record::Key;
use record::{Message, Table};

/// The most aggregators: one bit each in a message's account.
pub const AGGREGATORS_MAX: usize = 16;

/// Places and path tables of this life of the process are numbered from here; those of lives before stand below.
pub const CURRENT: u64 = 1 << 40;

/// What a waiting message costs beside its bytes: its account, and its shares of tree nodes.
const ENTRY_BYTES: usize = 192;

/// A path table of this process, by the number under which the uplink knows it.
#[derive(Clone, Debug)]
pub struct TableOf {
    /// [`CURRENT`] and above for those of this life.
    pub number: u64,
    /// The table.
    pub table: Arc<Table>,
}

/// What happened to the line.
#[derive(Clone, Debug)]
pub enum Change {
    /// A message has taken this place.
    Added(u64),
    /// The message at this place waits no more.
    Gone(u64),
    /// A path table of a life before is needed again.
    Table(TableOf),
}

/// How an aggregator settled a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Settled {
    /// It has stored it.
    Stored,
    /// It will never store it.
    Refused,
}

/// How much may be kept, for whom.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The aggregators' addresses; at most [`AGGREGATORS_MAX`].
    pub aggregators: Vec<String>,
    /// When a message may be forgotten.
    pub policy: Policy,
    /// Memory.
    pub memory_bytes: usize,
    /// The longest that a message waits.
    pub age: Duration,
    /// The disk, if there is one.
    pub disk: Option<DiskLimits>,
}

/// A message that waits.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// Its name.
    pub key: Key,
    /// The path table that it refers to.
    pub table: Option<TableOf>,
    /// When what it tells of began, by this host's clock,
    start: Timestamp,
    /// and ended.
    end: Timestamp,
    frame: Option<Arc<[u8]>>,
    frame_type: Option<u8>,
    location: Option<Location>,
    /// Since when it waits, by a clock that nobody sets.
    since: Duration,
    /// Aggregators that have settled it.
    settled: u16,
    /// Those among them that have stored it.
    stored: u16,
    /// Aggregators that it was sent to: what they have may be more than what they told.
    handed: u16,
    /// Merging was tried, or would be wrong.
    stays: bool,
    is_being_merged: bool,
}

impl Waiting {
    /// Whether this aggregator needs it no more.
    #[must_use]
    pub const fn is_settled_at(&self, aggregator: usize) -> bool {
        self.settled >> aggregator & 1 == 1
    }

    /// The whole frame as it goes on a stream, if it can be sent now.
    #[must_use]
    pub fn frame(&self) -> Option<&Arc<[u8]>> {
        self.frame.as_ref().filter(|_| !self.is_being_merged)
    }

    fn cost(&self) -> usize {
        ENTRY_BYTES + self.frame.as_ref().map_or(0, |frame| frame.len())
    }
}

/// What is counted.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// Messages given up because there was no room for them, because they were too old, or because they could not be
    /// read from disk any more.
    pub dropped: u64,
    /// Messages that an aggregator refused.
    pub refused: u64,
    /// Messages that were merged into longer ones.
    pub coarsened: u64,
    /// Messages written to disk.
    pub written: u64,
    /// Messages that were found on disk at the start.
    pub recovered: u64,
    /// Places on disk that could not be read.
    pub damaged: u64,
    /// Writes that failed.
    pub write_errors: u64,
}

/// The messages that wait.
#[derive(Debug)]
pub struct Spool {
    boot_epoch: u64,
    limits: Limits,
    held_bytes: usize,
    next_sequence: u64,
    next_place: u64,
    waiting: BTreeMap<u64, Waiting>,
    places: BTreeMap<Key, u64>,
    /// How many waiting messages refer to each path table.
    tables: BTreeMap<u64, usize>,
    /// In memory only, and not being written.
    unwritten: BTreeSet<u64>,
    /// In memory and on disk.
    cached: BTreeSet<u64>,
    /// What aggregators said to have of each boot epoch: everything below.
    below: BTreeMap<(usize, u64), u64>,
    disk: Option<DiskAccount>,
    counts: Counts,
}

impl Spool {
    /// An empty spool; `old` is what lives before left on disk.
    #[must_use]
    pub fn new(boot_epoch: u64, limits: Limits, old: Vec<OldSegment>) -> Self {
        debug_assert!(limits.aggregators.len() <= AGGREGATORS_MAX);
        let disk = limits.disk.map(|disk| DiskAccount::new(disk, old));
        Self {
            boot_epoch,
            limits,
            held_bytes: 0,
            next_sequence: 0,
            next_place: CURRENT,
            waiting: BTreeMap::new(),
            places: BTreeMap::new(),
            tables: BTreeMap::new(),
            unwritten: BTreeSet::new(),
            cached: BTreeSet::new(),
            below: BTreeMap::new(),
            disk,
            counts: Counts::default(),
        }
    }

    /// Which life of the process the sequences count in.
    #[must_use]
    pub const fn boot_epoch(&self) -> u64 {
        self.boot_epoch
    }

    /// The sequence of the message that is pushed next.
    #[must_use]
    pub const fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// The place that the message takes which is pushed next.
    #[must_use]
    pub const fn next_place(&self) -> u64 {
        self.next_place
    }

    /// Adds a message: the first change says where it stands.
    pub fn push(
        &mut self,
        now: Duration,
        table: Option<TableOf>,
        (start, end): (Timestamp, Timestamp),
        frame: Vec<u8>,
    ) -> Vec<Change> {
        let place = self.next_place;
        self.next_place += 1;
        let key = Key {
            boot_epoch: self.boot_epoch,
            sequence: self.next_sequence,
        };
        self.next_sequence += 1;
        self.insert(
            place,
            Waiting {
                key,
                table,
                start,
                end,
                frame_type: coarsen::frame_type(&frame),
                frame: Some(Arc::from(frame)),
                location: None,
                since: now,
                settled: 0,
                stored: 0,
                handed: 0,
                stays: false,
                is_being_merged: false,
            },
        );
        let mut changes = vec![Change::Added(place)];
        self.make_room(now, &mut changes);
        changes
    }

    fn insert(&mut self, place: u64, message: Waiting) {
        self.held_bytes += message.cost();
        if let Some(table) = &message.table {
            *self.tables.entry(table.number).or_default() += 1;
        }
        match (&message.frame, &message.location) {
            (Some(_), None) => drop(self.unwritten.insert(place)),
            (Some(_), Some(_)) => drop(self.cached.insert(place)),
            _ => {}
        }
        if let (Some(location), Some(disk)) = (message.location, &mut self.disk) {
            disk.took(location);
        }
        self.places.insert(message.key, place);
        self.waiting.insert(place, message);
    }

    /// Notes how an aggregator settled a message; with its place comes the end of its window if that is news, and whether
    /// it waits no more. Messages that do not wait are ignored.
    pub fn settle(
        &mut self,
        aggregator: usize,
        key: Key,
        how: Settled,
    ) -> Option<(u64, Option<Timestamp>, bool)> {
        let &place = self.places.get(&key)?;
        let aggregators = self.limits.aggregators.len();
        let message = self.waiting.get_mut(&place)?;
        let is_news = !message.is_settled_at(aggregator);
        message.settled |= 1 << aggregator;
        match how {
            Settled::Stored => message.stored |= 1 << aggregator,
            Settled::Refused => self.counts.refused += u64::from(is_news),
        }
        let news = (is_news && how == Settled::Stored).then_some(message.end);
        let (stored, settled) = (message.stored, message.settled);
        let is_free = self.limits.policy.is_met(stored, settled, aggregators);
        if is_free {
            self.free(place);
        }
        Some((place, news, is_free))
    }

    /// Notes that an aggregator has stored every message of a boot epoch below a sequence; returns those that wait no more.
    pub fn stored_below(&mut self, aggregator: usize, boot_epoch: u64, end: u64) -> Vec<Change> {
        self.below.insert((aggregator, boot_epoch), end);
        let first = Key {
            boot_epoch,
            sequence: 0,
        };
        let end = Key {
            boot_epoch,
            sequence: end,
        };
        let keys: Vec<Key> = self.places.range(first..end).map(|(&key, _)| key).collect();
        let settled = keys
            .into_iter()
            .filter_map(|key| self.settle(aggregator, key, Settled::Stored));
        settled
            .filter(|&(_, _, is_free)| is_free)
            .map(|(place, ..)| Change::Gone(place))
            .collect()
    }

    /// Notes that a message was sent to an aggregator. A copy on disk is enough from then on.
    pub fn handed(&mut self, aggregator: usize, place: u64) {
        if let Some(message) = self.waiting.get_mut(&place) {
            message.handed |= 1 << aggregator;
        }
        if self.cached.contains(&place) {
            self.evict(place);
        }
    }

    fn evict(&mut self, place: u64) {
        self.cached.remove(&place);
        if let Some(message) = self.waiting.get_mut(&place) {
            self.held_bytes -= message.cost();
            message.frame = None;
            self.held_bytes += message.cost();
        }
    }

    fn free(&mut self, place: u64) -> Option<Waiting> {
        let message = self.waiting.remove(&place)?;
        self.held_bytes -= message.cost();
        self.places.remove(&message.key);
        self.unwritten.remove(&place);
        self.cached.remove(&place);
        if let Some(table) = &message.table
            && let Some(count) = self.tables.get_mut(&table.number)
        {
            *count -= 1;
            if *count == 0 {
                self.tables.remove(&table.number);
            }
        }
        if let (Some(location), Some(disk)) = (message.location, &mut self.disk) {
            disk.left(location);
        }
        Some(message)
    }

    fn give_up(&mut self, place: u64, changes: &mut Vec<Change>) {
        if self.free(place).is_some() {
            self.counts.dropped += 1;
            changes.push(Change::Gone(place));
        }
    }

    /// Sees to it that memory suffices: what is on disk need not be in memory, then windows are merged, then the oldest go.
    fn make_room(&mut self, now: Duration, changes: &mut Vec<Change>) {
        while self.held_bytes > self.limits.memory_bytes {
            if let Some(&place) = self.cached.last() {
                self.evict(place);
                continue;
            }
            if self.merge_in_memory(now, changes) {
                continue;
            }
            if !self.give_up_oldest(changes) {
                return;
            }
        }
    }

    /// Merges the oldest messages in memory that can be.
    fn merge_in_memory(&mut self, now: Duration, changes: &mut Vec<Change>) -> bool {
        let mut slot = None;
        let mut places = Vec::new();
        for &place in &self.unwritten {
            let Some(of) = self.mergeable(place) else {
                continue;
            };
            match slot {
                Some(first) if first == of => places.push(place),
                Some(_) if places.len() > 1 => break,
                _ => {
                    slot = Some(of);
                    places = vec![place];
                }
            }
        }
        if places.len() < 2 {
            return false;
        }
        let members: Vec<Message> = places
            .iter()
            .filter_map(|place| self.message(self.waiting.get(place)?))
            .collect();
        let sequence = self.next_sequence;
        let Some(merged) = coarsen::merge(sequence, &members) else {
            // They are not tried again, so this comes to an end.
            for place in &places {
                if let Some(message) = self.waiting.get_mut(place) {
                    message.stays = true;
                }
            }
            return true;
        };
        self.next_sequence += 1;
        self.replace(now, &places, merged, None, changes);
        true
    }

    /// The long window, table and aggregators in common that a message can be merged for; `None` if it cannot be.
    fn mergeable(&self, place: u64) -> Option<(Timestamp, u64, u16)> {
        let message = self.waiting.get(&place)?;
        let is_certain =
            message.handed & !message.settled == 0 && message.settled == message.stored;
        let is_ours = message.key.boot_epoch == self.boot_epoch;
        let may = is_certain && is_ours && !message.stays && !message.is_being_merged;
        let slot = coarsen::slot(message.frame_type, message.start, message.end)?;
        may.then_some((slot, message.table.as_ref()?.number, message.stored))
    }

    /// A message with its frame, if that is in memory.
    fn message(&self, waiting: &Waiting) -> Option<Message> {
        Some(Message {
            frame: waiting.frame.as_ref()?.to_vec(),
            ..self.message_without_frame(waiting)
        })
    }

    fn message_without_frame(&self, waiting: &Waiting) -> Message {
        Message {
            key: waiting.key,
            table: waiting.table.as_ref().map(|of| of.table.number),
            start: waiting.start,
            end: waiting.end,
            // What aggregators have under this very sequence they will know; this is about other ones.
            exempt: Vec::new(),
            replaces: Vec::new(),
            frame: Vec::new(),
        }
    }

    /// Puts what messages were merged into in the place of the first of them.
    fn replace(
        &mut self,
        now: Duration,
        places: &[u64],
        merged: Message,
        location: Option<Location>,
        changes: &mut Vec<Change>,
    ) {
        let mut gone = Vec::with_capacity(places.len());
        for &place in places {
            if let Some(message) = self.free(place) {
                changes.push(Change::Gone(place));
                gone.push(message);
            }
        }
        let (Some(&place), Some(first)) = (places.first(), gone.into_iter().next()) else {
            return;
        };
        self.counts.coarsened += places.len() as u64;
        let message = Waiting {
            key: merged.key,
            start: merged.start,
            end: merged.end,
            frame_type: coarsen::frame_type(&merged.frame),
            frame: location.is_none().then(|| Arc::from(merged.frame)),
            location,
            since: first.since.min(now),
            handed: 0,
            is_being_merged: false,
            ..first
        };
        self.insert(place, message);
        changes.push(Change::Added(place));
    }

    /// Gives up what is oldest and takes memory; `false` if nothing waits. On a full disk a segment goes, which makes room
    /// for what is in memory.
    fn give_up_oldest(&mut self, changes: &mut Vec<Change>) -> bool {
        let full = self.disk.as_mut().filter(|disk| disk.is_full());
        if let Some(segment) = full.and_then(DiskAccount::oldest) {
            self.give_up_segment(segment, changes);
            return true;
        }
        let oldest = self.unwritten.first();
        let oldest = oldest.or_else(|| self.waiting.first_key_value().map(|(place, _)| place));
        let Some(&oldest) = oldest else {
            return false;
        };
        self.give_up(oldest, changes);
        true
    }

    fn give_up_segment(&mut self, segment: log::Serial, changes: &mut Vec<Change>) {
        let lies_there =
            |message: &Waiting| message.location.is_some_and(|at| at.segment == segment);
        let places = self
            .waiting
            .iter()
            .filter(|(_, message)| lies_there(message));
        let places: Vec<u64> = places.map(|(&place, _)| place).collect();
        for place in places {
            self.give_up(place, changes);
        }
        if let Some(disk) = &mut self.disk {
            self.counts.dropped += disk.give_up(segment);
        }
    }

    /// One waiting message.
    #[must_use]
    pub fn get(&self, place: u64) -> Option<&Waiting> {
        self.waiting.get(&place)
    }

    /// Where a message stands.
    #[must_use]
    pub fn place_of(&self, key: Key) -> Option<u64> {
        self.places.get(&key).copied()
    }

    /// Places of messages that an aggregator has not settled, ascending.
    pub fn missing_at(&self, aggregator: usize) -> impl Iterator<Item = u64> {
        let missing = self
            .waiting
            .iter()
            .filter(move |(_, message)| !message.is_settled_at(aggregator));
        missing.map(|(&place, _)| place)
    }

    /// Places of messages without a path table, which are findings, that an aggregator has not settled, ascending.
    pub fn findings_missing_at(&self, aggregator: usize) -> impl Iterator<Item = u64> {
        let is_finding = |place: &u64| {
            let waiting = self.waiting.get(place);
            waiting.is_some_and(|own| own.table.is_none())
        };
        self.missing_at(aggregator).filter(is_finding)
    }

    /// Whether a waiting message refers to this path table.
    #[must_use]
    pub fn refers_to(&self, table: u64) -> bool {
        self.tables.contains_key(&table)
    }

    /// Messages that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Memory held by those that wait.
    #[must_use]
    pub const fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// What is counted.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.counts
    }
}
