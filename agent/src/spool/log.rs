//! Segments on disk: what the spool commands is carried out here, one command after the other.
//!
//! A segment is only ever appended to, holds the path tables that its messages refer to, and is removed as a whole once
//! nothing in it is needed any more. There is no list of what is needed: after a restart everything that is found is
//! delivered again, and the aggregators know what they have.

use std::{collections::BTreeSet, io, sync::Arc};

use super::{
    coarsen,
    files::Files,
    record::{self, Damage, Found, Key, Message, Record, Replaced, Table},
};

/// A segment that has grown to this is not appended to any more.
pub const SEGMENT_BYTES: u64 = 4 << 20;

/// The number of a segment; later ones are higher.
pub type Serial = u32;

/// When what was written is made to outlive a power failure. A killed process loses nothing of it in any case.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Sync {
    /// After each write.
    #[default]
    EachWrite,
    /// When a segment is full, and when the agent stops.
    EachSegment,
    /// Whenever the system does so.
    Never,
}

/// Where a message stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Location {
    /// In which segment.
    pub segment: Serial,
    /// Where in it.
    pub offset: u32,
    /// How long its record is, and what follows that belongs to it.
    pub length: u32,
}

/// What the spool wants done.
#[derive(Clone, Debug)]
pub enum Command {
    /// Read a segment of a life before.
    Recover(Serial),
    /// Write messages.
    Append(Vec<Entry>),
    /// Read a message.
    Read {
        /// Its place in the line.
        place: u64,
        /// Its name.
        key: Key,
        /// Where it stands.
        location: Location,
    },
    /// Merge messages into longer windows.
    Coarsen(Vec<Group>),
    /// Remove a segment.
    Remove(Serial),
    /// Make everything outlive a power failure.
    Sync,
}

/// A message to be written.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its place in the line.
    pub place: u64,
    /// The message; its frame is empty, and stands beside it.
    pub message: Message,
    /// The frame.
    pub frame: Arc<[u8]>,
    /// The path table that it refers to.
    pub table: Option<Arc<Table>>,
}

/// Messages to be merged, or one that is to be moved.
#[derive(Clone, Debug)]
pub struct Group {
    /// Their places in the line, and where they stand.
    pub members: Vec<(u64, Key, Location)>,
    /// The sequence of what they become.
    pub sequence: u64,
    /// Aggregators that have all of them.
    pub exempt: Vec<String>,
    /// The path table that they refer to.
    pub table: Option<Arc<Table>>,
}

/// What came of a command.
#[derive(Debug)]
pub enum Answer {
    /// A segment was read.
    Recovered {
        /// Which.
        segment: Serial,
        /// Path tables in it.
        tables: Vec<Table>,
        /// Messages in it, without their frames.
        messages: Vec<(Message, Location)>,
        /// What messages replace that are in it, or were.
        replaced: Vec<Replaced>,
        /// What could not be read.
        damages: Vec<Trouble>,
        /// Why nothing could be read.
        failed: Option<Failed>,
    },
    /// Messages were written.
    Appended {
        /// Those that were, and where.
        written: Vec<(u64, Location)>,
        /// Why the others were not.
        failed: Option<Failed>,
    },
    /// A message was read.
    Read {
        /// Its place in the line.
        place: u64,
        /// Its frame.
        frame: Result<Vec<u8>, Trouble>,
    },
    /// Messages were merged, or were left as they are.
    Coarsened {
        /// Group by group; `None` of one that is left as it is.
        groups: Vec<(Group, Option<(Message, Location)>)>,
        /// Why not more was done.
        failed: Option<Failed>,
    },
    /// A segment was removed, or could not be.
    Removed(Serial, Option<Failed>),
    /// Everything is as safe as it was asked to be.
    Synced,
}

/// The disk refuses.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Failed {
    /// Whether it is full.
    pub is_full: bool,
    /// Whether what was begun to be written could not be taken back: it may be on disk after all.
    pub left_behind: bool,
    /// What was tried on what, and the system's words.
    pub why: String,
}

/// A place on disk that cannot be read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Trouble {
    /// The file.
    pub file: String,
    /// Where in it.
    pub offset: usize,
    /// What is wrong there.
    pub what: String,
    /// Whether the bytes are wrong; otherwise the disk did not give them, and may yet.
    pub is_lasting: bool,
}

/// The segments.
pub struct Log {
    files: Box<dyn Files>,
    boot_epoch: u64,
    sync: Sync,
    segment_bytes: u64,
    /// Segments that are there, and the boot epoch in their names.
    known: Vec<(Serial, u64)>,
    next: Serial,
    active: Option<Active>,
}

/// The segment that is appended to.
#[derive(Debug)]
struct Active {
    serial: Serial,
    length: u64,
    tables: BTreeSet<(u64, u32)>,
}

/// A segment of a life before.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct OldSegment {
    /// Its number.
    pub serial: Serial,
    /// The boot epoch of its messages.
    pub boot_epoch: u64,
    /// Its length.
    pub bytes: u64,
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log")
            .field("known", &self.known)
            .field("active", &self.active)
            .finish_non_exhaustive()
    }
}

impl Log {
    /// Looks at what is there; nothing is read yet. Files that are not named as segments are left alone.
    ///
    /// # Errors
    ///
    /// Returns the error of the system.
    pub fn open(
        mut files: Box<dyn Files>,
        boot_epoch: u64,
        sync: Sync,
        segment_bytes: u64,
    ) -> io::Result<(Self, Vec<OldSegment>)> {
        let mut old: Vec<_> = files
            .list()?
            .into_iter()
            .filter_map(|(name, bytes)| {
                let (serial, boot_epoch) = parse_name(&name)?;
                Some(OldSegment {
                    serial,
                    boot_epoch,
                    bytes,
                })
            })
            .collect();
        old.sort_unstable_by_key(|segment| segment.serial);
        let next = old.last().map_or(0, |segment| segment.serial) + 1;
        let log = Self {
            files,
            boot_epoch,
            sync,
            segment_bytes,
            known: old.iter().map(|own| (own.serial, own.boot_epoch)).collect(),
            next,
            active: None,
        };
        Ok((log, old))
    }

    /// Does as commanded.
    pub fn carry_out(&mut self, command: Command) -> Answer {
        match command {
            Command::Recover(segment) => self.recover(segment),
            Command::Append(entries) => self.append(&entries),
            Command::Read {
                place,
                key,
                location,
            } => Answer::Read {
                place,
                frame: self.read(key, location).map(|message| message.frame),
            },
            Command::Coarsen(groups) => self.coarsen(groups),
            Command::Remove(segment) => self.remove(segment),
            Command::Sync => {
                if self.sync != Sync::Never
                    && let Some(active) = &self.active
                {
                    let name = self.name(active.serial);
                    // What was written stays readable; there is nobody left who could do better.
                    let _ = self.files.sync(&name);
                }
                Answer::Synced
            }
        }
    }

    fn name(&self, serial: Serial) -> String {
        let epoch = self.known.iter().find(|(known, _)| *known == serial);
        segment_name(serial, epoch.map_or(self.boot_epoch, |&(_, epoch)| epoch))
    }

    fn recover(&mut self, segment: Serial) -> Answer {
        let file = self.name(segment);
        let (mut tables, mut messages) = (Vec::new(), Vec::new());
        let (mut replaced, mut damages) = (Vec::new(), Vec::new());
        let mut refused = None;
        match self.files.read(&file) {
            Err(error) => refused = Some(failed("read", &file, &error)),
            Ok(bytes) => record::read_segment(&bytes, |found| match found {
                Found::Record {
                    record: Record::Table(table),
                    ..
                } => tables.push(table),
                Found::Record {
                    offset,
                    length,
                    record: Record::Message(message),
                } => {
                    replaced.extend(replaced_by(&message));
                    let message = Message {
                        frame: Vec::new(),
                        ..message
                    };
                    messages.push((message, location(segment, offset as u64, length)));
                }
                Found::Record {
                    record: Record::Replaced(again),
                    ..
                } => {
                    if replaced.last() != Some(&again) {
                        replaced.push(again);
                    }
                }
                Found::Damage(Damage { offset, what }) => damages.push(Trouble {
                    file: file.clone(),
                    offset,
                    what: what.to_owned(),
                    is_lasting: true,
                }),
            }),
        }
        Answer::Recovered {
            segment,
            tables,
            messages,
            replaced,
            damages,
            failed: refused,
        }
    }

    fn append(&mut self, entries: &[Entry]) -> Answer {
        let mut written = Vec::with_capacity(entries.len());
        let mut left = entries;
        while !left.is_empty() {
            match self.append_some(left) {
                Ok(some) => {
                    left = &left[some.len()..];
                    written.extend(some);
                }
                Err(failed) => {
                    return Answer::Appended {
                        written,
                        failed: Some(failed),
                    };
                }
            }
        }
        Answer::Appended {
            written,
            failed: None,
        }
    }

    /// Appends at least one entry, and as many as fit into the segment.
    fn append_some(&mut self, entries: &[Entry]) -> Result<Vec<(u64, Location)>, Failed> {
        self.open_segment()?;
        let Some(active) = &self.active else {
            return Ok(Vec::new());
        };
        let (serial, before) = (active.serial, active.length);
        let mut tables = active.tables.clone();
        let mut bytes = Vec::new();
        let mut written = Vec::new();
        for entry in entries {
            let length = before + bytes.len() as u64;
            if length >= self.segment_bytes && !written.is_empty() {
                break;
            }
            if let Some(table) = &entry.table
                && tables.insert((table.boot_epoch, table.number))
            {
                bytes.extend(table_twice(table));
            }
            let at = before + bytes.len() as u64;
            let message = Message {
                frame: entry.frame.to_vec(),
                ..entry.message.clone()
            };
            let record = message_as_records(&message);
            bytes.extend(&record);
            written.push((entry.place, location(serial, at, record.len())));
        }
        self.write(&bytes, self.sync == Sync::EachWrite)?;
        if let Some(active) = &mut self.active {
            active.tables = tables;
        }
        Ok(written)
    }

    /// Appends to the open segment, or leaves it as it was.
    fn write(&mut self, bytes: &[u8], sync: bool) -> Result<(), Failed> {
        let Some(active) = &mut self.active else {
            return Ok(());
        };
        let (serial, before) = (active.serial, active.length);
        let name = segment_name(serial, self.boot_epoch);
        let appended = self.files.append(&name, bytes);
        let appended = appended.and_then(|()| match sync {
            true => self.files.sync(&name),
            false => Ok(()),
        });
        match appended {
            Ok(()) => {
                active.length += bytes.len() as u64;
                Ok(())
            }
            Err(error) => {
                // Where not even that is possible the segment ends here, with a torn tail.
                let is_whole = self.files.truncate(&name, before).is_ok();
                if !is_whole {
                    self.active = None;
                }
                Err(Failed {
                    left_behind: !is_whole,
                    ..failed("write to", &name, &error)
                })
            }
        }
    }

    /// Sees to it that there is a segment with room.
    fn open_segment(&mut self) -> Result<(), Failed> {
        if let Some(active) = &self.active {
            if active.length < self.segment_bytes {
                return Ok(());
            }
            if self.sync == Sync::EachSegment {
                let name = segment_name(active.serial, self.boot_epoch);
                let synced = self.files.sync(&name);
                synced.map_err(|error| failed("sync", &name, &error))?;
            }
        }
        let serial = self.next;
        let name = segment_name(serial, self.boot_epoch);
        let begun = self.files.append(&name, &record::segment_header());
        self.next += 1;
        if let Err(error) = begun {
            // A half-written header would be a damage to tell of.
            let _ = self.files.remove(&name);
            return Err(failed("write to", &name, &error));
        }
        self.known.push((serial, self.boot_epoch));
        self.active = Some(Active {
            serial,
            length: record::SEGMENT_HEADER_BYTES as u64,
            tables: BTreeSet::new(),
        });
        Ok(())
    }

    fn read(&mut self, key: Key, location: Location) -> Result<Message, Trouble> {
        let file = self.name(location.segment);
        let offset = location.offset as usize;
        let read = self
            .files
            .read_at(&file, offset as u64, location.length as usize);
        let trouble = |what: String| Trouble {
            file: file.clone(),
            offset,
            what,
            is_lasting: true,
        };
        let bytes = read.map_err(|error| Trouble {
            is_lasting: false,
            ..trouble(error.to_string())
        })?;
        match record::read_record(&bytes) {
            Ok((Record::Message(message), _)) if message.key == key => Ok(message),
            Ok(_) => Err(trouble("another record stands there".to_owned())),
            Err(unread) => Err(trouble(unread.what.to_owned())),
        }
    }

    /// Writes what groups become; it is safe before anybody is told, because what it replaces is removed then.
    fn coarsen(&mut self, groups: Vec<Group>) -> Answer {
        let mut done = Vec::with_capacity(groups.len());
        let mut failed = None;
        for group in groups {
            let outcome = match failed {
                None => self.coarsen_one(&group),
                Some(_) => Ok(None),
            };
            let merged = outcome.unwrap_or_else(|refused| {
                failed = Some(refused);
                None
            });
            done.push((group, merged));
        }
        Answer::Coarsened {
            groups: done,
            failed,
        }
    }

    fn coarsen_one(&mut self, group: &Group) -> Result<Option<(Message, Location)>, Failed> {
        let mut members = Vec::with_capacity(group.members.len());
        for &(_, key, location) in &group.members {
            match self.read(key, location) {
                Ok(message) => members.push(message),
                // Told when it is its turn to be sent.
                Err(_) => return Ok(None),
            }
        }
        let merged = match <[Message; 1]>::try_from(members) {
            // It moves to where there is more that is needed.
            Ok([alone]) => alone,
            Err(members) => match coarsen::merge(group.sequence, &members) {
                Some(merged) => Message {
                    exempt: group.exempt.clone(),
                    ..merged
                },
                None => return Ok(None),
            },
        };
        self.open_segment()?;
        let Some(active) = &self.active else {
            return Ok(None);
        };
        let (serial, before) = (active.serial, active.length);
        let mut bytes = Vec::new();
        let of = group
            .table
            .as_ref()
            .map(|table| (table.boot_epoch, table.number));
        if let (Some(table), Some(of)) = (&group.table, of)
            && !active.tables.contains(&of)
        {
            bytes.extend(table_twice(table));
        }
        let at = before + bytes.len() as u64;
        let record = message_as_records(&merged);
        bytes.extend(&record);
        self.write(&bytes, self.sync != Sync::Never)?;
        if let Some(active) = &mut self.active {
            active.tables.extend(of);
        }
        Ok(Some((merged, location(serial, at, record.len()))))
    }

    fn remove(&mut self, segment: Serial) -> Answer {
        let name = self.name(segment);
        if self
            .active
            .as_ref()
            .is_some_and(|active| active.serial == segment)
        {
            self.active = None;
        }
        match self.files.remove(&name) {
            Ok(()) => {
                self.known.retain(|&(known, _)| known != segment);
                Answer::Removed(segment, None)
            }
            Err(error) => Answer::Removed(segment, Some(failed("remove", &name, &error))),
        }
    }
}

/// A path table stands twice in each segment: without it no message in the segment means anything.
fn table_twice(table: &Table) -> Vec<u8> {
    record::encode_table(table).repeat(2)
}

/// A message, and after it once more what it replaces.
fn message_as_records(message: &Message) -> Vec<u8> {
    let mut bytes = record::encode_message(message);
    if let Some(replaced) = replaced_by(message) {
        bytes.extend(record::encode_replaced(&replaced));
    }
    bytes
}

fn replaced_by(message: &Message) -> Option<Replaced> {
    (!message.replaces.is_empty()).then(|| Replaced {
        boot_epoch: message.key.boot_epoch,
        sequences: message.replaces.clone(),
    })
}

fn location(segment: Serial, offset: u64, length: usize) -> Location {
    // A segment ends soon after `SEGMENT_BYTES`, and a record is at most `PAYLOAD_BYTES_MAX` and its header long.
    Location {
        segment,
        offset: u32::try_from(offset).unwrap_or(u32::MAX),
        length: u32::try_from(length).unwrap_or(u32::MAX),
    }
}

fn failed(what: &str, name: &str, error: &io::Error) -> Failed {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    Failed {
        is_full: matches!(error.kind(), StorageFull | QuotaExceeded),
        left_behind: false,
        why: format!("cannot {what} {name}: {error}"),
    }
}

fn segment_name(serial: Serial, boot_epoch: u64) -> String {
    format!("{serial:08x}-{boot_epoch:016x}.spool")
}

fn parse_name(name: &str) -> Option<(Serial, u64)> {
    let (serial, boot_epoch) = name.strip_suffix(".spool")?.split_once('-')?;
    if (serial.len(), boot_epoch.len()) != (8, 16) {
        return None;
    }
    let serial = Serial::from_str_radix(serial, 16).ok()?;
    (serial < Serial::MAX / 2).then_some(())?;
    Some((serial, u64::from_str_radix(boot_epoch, 16).ok()?))
}
