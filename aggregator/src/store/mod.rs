//! What survives a restart: the journal, what was decided, and what dedupe needs.
//!
//! [`Store`] is a small ordered map with columns; it blocks, because the turn thread calls it and nobody else writes.
//! Whoever wants to look something up gets a [`Read`] of it, for a thread that may block.
//! What is in it stands in [`key`] (keys) and [`record`] (values); the typed reading and writing around the trait is
//! here. One [`Writes`] is one atomic, synced write: the batches of a turn and the watermarks that say they arrived
//! are on disk together or not at all.

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    path::{self, PathBuf},
    sync::Arc,
};

use leeward_common::{api::v1::AuditEntry, id::AgentId, report::Path, time::Timestamp};

pub mod decisions;
pub mod files;
pub mod key;
pub mod memory;
pub mod record;
pub mod rocks;

use key::{Column, Epoch, Position, path::Grain};
use record::v1;

use crate::rollup::{code, sum::Sum};

/// What `meta` holds under `format`.
pub const FORMAT: &str = "leeward-aggregator 1";

/// The key of the format version.
const FORMAT_KEY: &[u8] = b"format";

/// The key of the shadow policy.
const SHADOW_KEY: &[u8] = b"shadow";

/// The key of how far the rollups are.
const MARK_KEY: &[u8] = b"rollup";

/// How the keys of checksums begin; a file's name follows.
pub(crate) const CHECKSUM_PREFIX: &[u8] = b"checksum/";

/// Why the store did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The engine underneath failed: disk full, corruption, permissions.
    #[error("cannot {doing} in {dir}", dir = .dir.display())]
    Engine {
        /// What was tried.
        doing: &'static str,
        /// Where.
        dir: PathBuf,
        /// Why it failed.
        source: rocksdb::Error,
    },
    /// The directory cannot be used.
    #[error("cannot create {dir}", dir = .dir.display())]
    Directory {
        /// Which.
        dir: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The directory was written by something else.
    #[error(
        "{dir} holds {found}; this build reads \"{FORMAT}\": use the build that wrote it, or another data_dir",
        dir = .dir.display()
    )]
    Format {
        /// Which.
        dir: PathBuf,
        /// What it says.
        found: String,
    },
    /// A value is not what its column holds.
    #[error("malformed {what} in the store: {why}")]
    Malformed {
        /// What it should be.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
    /// It failed before and was not revived yet.
    #[error("the store failed a moment ago and is tried again soon")]
    Failed,
    /// Only for tests: the memory store was told to fail.
    #[error("the store was told to fail")]
    Told,
}

/// What a scan calls for each key and value.
pub type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>;

/// A key and its value.
pub type Entry = (Vec<u8>, Vec<u8>);

/// An ordered map with columns, for reading from any thread that may block.
pub trait Read: Send + Sync {
    /// Visits the keys of a column in order, beginning with the first that is not before `from`.
    ///
    /// # Errors
    ///
    /// Returns [`StoreError`] when the column cannot be read on.
    fn scan(&self, column: Column, from: &[u8], visit: Visit<'_>) -> Result<(), StoreError>;

    /// Visits the keys of a column backwards, beginning with the last that is before `until`.
    ///
    /// # Errors
    ///
    /// Returns [`StoreError`] when the column cannot be read on.
    fn scan_back(&self, column: Column, until: &[u8], visit: Visit<'_>) -> Result<(), StoreError>;

    /// The last key of a column and its value.
    ///
    /// # Errors
    ///
    /// Returns [`StoreError`] when it cannot be read.
    fn last(&self, column: Column) -> Result<Option<Entry>, StoreError>;

    /// The value of a key.
    ///
    /// # Errors
    ///
    /// Returns [`StoreError`] when it cannot be read.
    fn get(&self, column: Column, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Reads several things as they are at one moment, whatever is written meanwhile.
    ///
    /// # Errors
    ///
    /// Returns what `read` does, or [`StoreError`] when there is nothing to read.
    fn at_once(&self, read: AtOnce<'_>) -> Result<(), StoreError>;
}

/// What reads several things of one moment.
pub type AtOnce<'a> = &'a mut dyn FnMut(&dyn Read) -> Result<(), StoreError>;

/// The same store for what is done beside the turn, by threads that may block: the turn never waits for it.
pub trait Aside: Send + Sync {
    /// Writes everything, atomically, in one order with all other writes, and without waiting for the disk: a crash of the
    /// machine may take the last of these writes back, whole, but none that a synced write follows.
    ///
    /// # Errors
    ///
    /// Returns [`StoreError`] when it is not written.
    fn write(&self, writes: &Writes) -> Result<(), StoreError>;

    /// How the engine underneath fares.
    ///
    /// # Errors
    ///
    /// Returns [`StoreError`] when it cannot be asked.
    fn health(&self) -> Result<Health, StoreError>;

    /// Makes a copy of everything as it is now in a directory that does not exist yet. Files that never change are shared
    /// where the file system can.
    ///
    /// # Errors
    ///
    /// Returns [`StoreError`] when there is no whole copy.
    fn copy_to(&self, dir: &path::Path) -> Result<(), StoreError>;
}

/// How the engine underneath a store fares.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Health {
    /// Work in the background that failed since the store was opened: a flush or a compaction.
    pub background_errors: u64,
    /// Whether it takes no writes until background work has caught up.
    pub is_stalled: bool,
    /// What each column takes.
    pub columns: Vec<(Column, Size)>,
    /// The files that never change: their names in the store's directory.
    pub files: Vec<String>,
}

/// What a column takes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Size {
    /// In files.
    pub file_bytes: u64,
    /// In memory, to be written out.
    pub memory_bytes: u64,
    /// Keys, roughly.
    pub keys: u64,
}

/// An ordered map with columns and one writer.
pub trait Store: Read {
    /// The same store, for others to read.
    fn reader(&self) -> Arc<dyn Read>;

    /// The same store, for what is done beside the turn.
    fn aside(&self) -> Arc<dyn Aside>;

    /// Writes everything, atomically; returns when it is on disk.
    ///
    /// # Errors
    ///
    /// Returns [`StoreError`] when nothing of it can be relied upon.
    fn commit(&mut self, writes: &Writes) -> Result<(), StoreError>;

    /// Makes the store usable again after a write failed.
    ///
    /// # Errors
    ///
    /// Returns [`StoreError`] when it is not usable yet.
    fn revive(&mut self) -> Result<(), StoreError>;

    /// Drops the keys of a column before `until`, cheaply and some time soon.
    ///
    /// # Errors
    ///
    /// Returns [`StoreError`] when it cannot be done.
    fn drop_before(&mut self, column: Column, until: &[u8]) -> Result<(), StoreError>;
}

/// One atomic write.
#[derive(Clone, Debug, Default)]
pub struct Writes {
    /// Puts in order; a later one of the same key wins.
    puts: Vec<(Column, Vec<u8>, Vec<u8>)>,
    /// Deletions, after the puts.
    deletes: Vec<(Column, Vec<u8>)>,
}

impl Writes {
    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.puts.is_empty() && self.deletes.is_empty()
    }

    /// Puts a record as it is.
    pub(crate) fn copied(&mut self, column: Column, key: &[u8], value: &[u8]) {
        self.puts.push((column, key.to_vec(), value.to_vec()));
    }

    /// Appends to the journal.
    pub fn journal(&mut self, position: Position, record: &v1::Record) {
        self.puts
            .push((Column::Journal, position.key().to_vec(), v1::encode(record)));
    }

    /// Notes a decision.
    pub fn decided(&mut self, position: Position, decided: &v1::Decided) {
        self.puts.push((
            Column::Decisions,
            position.key().to_vec(),
            v1::encode(decided),
        ));
    }

    /// Keeps a snapshot.
    pub fn snapshot(&mut self, position: Position, snapshot: &v1::Snapshot) {
        self.puts.push((
            Column::Snapshots,
            position.key().to_vec(),
            v1::encode(snapshot),
        ));
    }

    /// Forgets a snapshot.
    pub fn forget_snapshot(&mut self, position: Position) {
        self.deletes
            .push((Column::Snapshots, position.key().to_vec()));
    }

    /// Keeps a path table.
    pub fn table(&mut self, epoch: &Epoch, table: u32, paths: &[Path]) {
        self.puts.push((
            Column::Tables,
            epoch.table_key(table),
            v1::encode(&v1::Table::from(paths)),
        ));
    }

    /// Keeps a watermark.
    pub fn watermark(&mut self, epoch: &Epoch, watermark: &v1::Watermark) {
        self.puts
            .push((Column::Watermarks, epoch.key(), v1::encode(watermark)));
    }

    /// Keeps a registration.
    pub fn registration(&mut self, registration: &v1::Registration) {
        let key = registration.agent.as_str().as_bytes().to_vec();
        self.puts
            .push((Column::Registrations, key, v1::encode(registration)));
    }

    /// Forgets a registration.
    pub fn forget_registration(&mut self, agent: &AgentId) {
        self.deletes
            .push((Column::Registrations, agent.as_str().as_bytes().to_vec()));
    }

    /// Forgets a boot epoch with its tables.
    pub fn forget_epoch<'a>(&mut self, epoch: &Epoch, tables: impl Iterator<Item = &'a u32>) {
        self.deletes.push((Column::Watermarks, epoch.key()));
        self.forget_tables(epoch, tables);
    }

    /// Forgets some tables of a boot epoch.
    pub fn forget_tables<'a>(&mut self, epoch: &Epoch, tables: impl Iterator<Item = &'a u32>) {
        self.deletes
            .extend(tables.map(|&table| (Column::Tables, epoch.table_key(table))));
    }

    /// Appends to the audit log.
    pub fn audited(&mut self, sequence: u64, audited: &v1::Audited) {
        let key = sequence.to_be_bytes().to_vec();
        self.puts.push((Column::Audit, key, v1::encode(audited)));
    }

    /// Keeps the shadow policy, or that there is none any more.
    pub fn shadow(&mut self, shadow: &v1::Shadow) {
        self.meta(SHADOW_KEY, &v1::encode(shadow));
    }

    /// Keeps a rollup.
    pub fn rollup(&mut self, grain: Grain, key: Vec<u8>, sum: &Sum) {
        self.puts.push((grain.column(), key, code::encode(sum)));
    }

    /// Notes a batch of the journal that did not arrive at about the time that it tells of.
    pub fn late(&mut self, window: Timestamp, position: Position, region: &str) {
        let key = key::late(window, position).to_vec();
        self.puts.push((Column::Late, key, region.into()));
    }

    /// Keeps how far the rollups are.
    pub fn mark(&mut self, mark: &v1::Mark) {
        self.meta(MARK_KEY, &v1::encode(mark));
    }

    /// Keeps the checksum of a file that never changes.
    pub fn checksum(&mut self, file: &str, checksum: v1::Checksum) {
        self.meta(&checksum_key(file), &v1::encode(&checksum));
    }

    /// Forgets the checksum of a file that is gone.
    pub fn forget_checksum(&mut self, file: &str) {
        self.deletes.push((Column::Meta, checksum_key(file)));
    }

    /// Writes something that nobody reads, to learn whether anything can be written.
    pub fn probe(&mut self, now: Timestamp) {
        self.meta(b"probe", &now.as_unix_us().to_be_bytes());
    }

    fn meta(&mut self, key: &[u8], value: &[u8]) {
        self.puts.push((Column::Meta, key.to_vec(), value.to_vec()));
    }
}

/// Everything in a column that is small enough for memory.
///
/// # Errors
///
/// Returns [`StoreError`] when the column cannot be read or a value is not what it should be.
pub fn read_all<K, V: serde::de::DeserializeOwned>(
    store: &dyn Read,
    column: Column,
    what: &'static str,
    parse_key: impl Fn(&[u8]) -> Option<K>,
) -> Result<Vec<(K, V)>, StoreError> {
    let mut read = Ok(Vec::new());
    store.scan(column, &[], &mut |key, value| {
        let entry = parse_key(key)
            .ok_or_else(|| StoreError::Malformed {
                what,
                why: format!("key {key:02x?}"),
            })
            .and_then(|key| Ok((key, v1::decode(what, value)?)));
        match (&mut read, entry) {
            (Ok(entries), Ok(entry)) => entries.push(entry),
            (_, Err(error)) => read = Err(error),
            (Err(_), Ok(_)) => {}
        }
        if read.is_ok() {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    })?;
    read
}

/// Reads the audit log from `after` on, at most `limit` entries. An entry whose bytes are none is there as `unreadable`, so
/// that the rest can be read and verified.
///
/// # Errors
///
/// Returns [`StoreError`] when the column cannot be read.
pub fn audit_entries(
    store: &dyn Read,
    after: u64,
    limit: usize,
) -> Result<Vec<AuditEntry>, StoreError> {
    let mut entries = Vec::new();
    let from = after.saturating_add(1).to_be_bytes();
    store.scan(Column::Audit, &from, &mut |key, value| {
        if entries.len() < limit {
            entries.push(v1::Audited::entry(key, value));
        }
        if entries.len() < limit {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    })?;
    Ok(entries)
}

/// As [`audit_entries`], backwards from the last before `before`.
///
/// # Errors
///
/// Returns [`StoreError`] when the column cannot be read.
pub fn audit_entries_back(
    store: &dyn Read,
    before: u64,
    limit: usize,
) -> Result<Vec<AuditEntry>, StoreError> {
    let mut entries = Vec::new();
    store.scan_back(Column::Audit, &before.to_be_bytes(), &mut |key, value| {
        entries.push(v1::Audited::entry(key, value));
        if entries.len() < limit {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    })?;
    Ok(entries)
}

/// The newest entry of the audit log.
///
/// # Errors
///
/// Returns [`StoreError`] when it cannot be read.
pub fn audit_end(store: &dyn Read) -> Result<Option<AuditEntry>, StoreError> {
    let last = store.last(Column::Audit)?;
    Ok(last.map(|(key, value)| v1::Audited::entry(&key, &value)))
}

/// The shadow policy as it was set last; `None` if none ever was.
///
/// # Errors
///
/// Returns [`StoreError`] when it cannot be read.
pub fn shadow(store: &dyn Read) -> Result<Option<v1::Shadow>, StoreError> {
    let value = store.get(Column::Meta, SHADOW_KEY)?;
    let read = |value: Vec<u8>| v1::decode("shadow policy", &value);
    value.map(read).transpose()
}

/// How far the rollups are; `None` if none were ever made.
///
/// # Errors
///
/// Returns [`StoreError`] when it cannot be read.
pub fn mark(store: &dyn Read) -> Result<Option<v1::Mark>, StoreError> {
    let value = store.get(Column::Meta, MARK_KEY)?;
    value.map(|value| v1::decode("mark", &value)).transpose()
}

/// The files whose checksums are known.
///
/// # Errors
///
/// Returns [`StoreError`] when they cannot be read.
pub fn checksums(store: &dyn Read) -> Result<BTreeMap<String, v1::Checksum>, StoreError> {
    let mut known = BTreeMap::new();
    store.scan(Column::Meta, CHECKSUM_PREFIX, &mut |key, value| {
        let Some(file) = key.strip_prefix(CHECKSUM_PREFIX) else {
            return ControlFlow::Break(());
        };
        if let Ok(checksum) = v1::decode("checksum", value) {
            known.insert(String::from_utf8_lossy(file).into_owned(), checksum);
        }
        ControlFlow::Continue(())
    })?;
    Ok(known)
}

fn checksum_key(file: &str) -> Vec<u8> {
    [CHECKSUM_PREFIX, file.as_bytes()].concat()
}

/// Where the journal ends.
///
/// # Errors
///
/// Returns [`StoreError`] when it cannot be read.
pub fn journal_end(store: &dyn Read) -> Result<Option<Position>, StoreError> {
    Ok(store
        .last(Column::Journal)?
        .and_then(|(key, _)| Position::from_key(&key)))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{memory::Memory, rocks::Rocks, *};

    pub(crate) fn position(us: u64) -> Position {
        Position::at(Timestamp::from_unix_us(us))
    }

    pub(crate) fn decided(id: u64) -> v1::Decided {
        v1::Decided {
            id,
            at_us: 5,
            primary: leeward_common::id::RegionId::parse("iad").unwrap(),
            service: None,
            from: None,
            to: None,
            reason: "initial".to_owned(),
            summary: String::new(),
            explanation: Vec::new(),
        }
    }

    fn keys(store: &dyn Store, from: u64) -> Vec<u64> {
        let mut keys = Vec::new();
        store
            .scan(Column::Decisions, &position(from).key(), &mut |key, _| {
                keys.push(Position::from_key(key).unwrap().time.as_unix_us());
                ControlFlow::Continue(())
            })
            .unwrap();
        keys
    }

    fn keys_back(store: &dyn Store, until: u64) -> Vec<u64> {
        let mut keys = Vec::new();
        let until = position(until).key();
        store
            .scan_back(Column::Decisions, &until, &mut |key, _| {
                keys.push(Position::from_key(key).unwrap().time.as_unix_us());
                ControlFlow::Continue(())
            })
            .unwrap();
        keys
    }

    /// What every store must do.
    fn conforms(store: &mut dyn Store) {
        assert_eq!(store.last(Column::Decisions).unwrap(), None);
        let mut writes = Writes::default();
        for us in [300, 100, 200, 70_000] {
            writes.decided(position(us), &decided(us));
        }
        store.commit(&writes).unwrap();
        assert_eq!(keys(store, 0), [100, 200, 300, 70_000]);
        assert_eq!(keys(store, 200), [200, 300, 70_000]);
        assert_eq!(keys_back(store, 301), [300, 200, 100]);
        assert_eq!(keys_back(store, 300), [200, 100]);
        assert_eq!(keys_back(store, u64::MAX), [70_000, 300, 200, 100]);
        assert!(keys_back(store, 0).is_empty());
        let reader = store.reader();
        let last = move || reader.last(Column::Decisions).unwrap().unwrap().0;
        assert_eq!(
            std::thread::spawn(last).join().unwrap(),
            position(70_000).key()
        );
        assert_eq!(
            store.last(Column::Decisions).unwrap().unwrap().0,
            position(70_000).key()
        );
        assert_eq!(store.last(Column::Journal).unwrap(), None);
        let found = store.get(Column::Decisions, &position(200).key()).unwrap();
        assert_eq!(found, Some(v1::encode(&decided(200))));
        assert_eq!(store.get(Column::Decisions, b"none").unwrap(), None);
        sees_one_moment(store);

        store
            .drop_before(Column::Decisions, &position(300).key())
            .unwrap();
        assert_eq!(keys(store, 0), [300, 70_000]);

        let agent = AgentId::parse("a").unwrap();
        let epoch = Epoch {
            agent: agent.clone(),
            boot: 1,
        };
        let mut writes = Writes::default();
        writes.table(&epoch, 1, &[]);
        writes.watermark(
            &epoch,
            &v1::Watermark {
                runs: vec![(0, 1)],
                seen_us: 1,
            },
        );
        store.commit(&writes).unwrap();
        let tables =
            read_all::<_, v1::Table>(store, Column::Tables, "table", Epoch::from_table_key);
        assert_eq!(tables.unwrap().len(), 1);
        let mut writes = Writes::default();
        writes.forget_epoch(&epoch, [1].iter());
        store.commit(&writes).unwrap();
        assert!(store.last(Column::Tables).unwrap().is_none());
        assert!(store.last(Column::Watermarks).unwrap().is_none());
    }

    /// What is written aside is there for all, but not for whoever reads things of one moment.
    fn sees_one_moment(store: &dyn Store) {
        let (aside, reader) = (store.aside(), store.reader());
        let mut before = None;
        let seen = &mut |picture: &dyn Read| {
            for now in [1, 2] {
                let mut writes = Writes::default();
                writes.probe(Timestamp::from_unix_us(now));
                aside.write(&writes)?;
                let probe = picture.get(Column::Meta, b"probe")?;
                assert_eq!(*before.get_or_insert_with(|| probe.clone()), probe);
                picture.scan(Column::Meta, b"probe", &mut |_, value| {
                    assert_eq!(Some(value), probe.as_deref());
                    ControlFlow::Break(())
                })?;
            }
            Ok(())
        };
        reader.at_once(seen).unwrap();
        let probe = reader.get(Column::Meta, b"probe").unwrap();
        assert_eq!(probe, Some(2u64.to_be_bytes().to_vec()));
    }

    #[test]
    fn the_memory_store_conforms() {
        conforms(&mut Memory::default());
    }

    #[test]
    fn the_rocks_store_conforms() {
        let dir = tempfile::tempdir().unwrap();
        conforms(&mut Rocks::open(dir.path()).unwrap());
    }

    #[test]
    fn a_malformed_value_is_named() {
        let mut store = Memory::default();
        let mut writes = Writes::default();
        writes.puts.push((
            Column::Watermarks,
            b"a\0\0\0\0\0\0\0\0\x01".to_vec(),
            vec![0xc1],
        ));
        store.commit(&writes).unwrap();
        let read =
            read_all::<_, v1::Watermark>(&store, Column::Watermarks, "watermark", Epoch::from_key);
        let error = read.unwrap_err().to_string();
        assert!(
            error.starts_with("malformed watermark in the store"),
            "{error}"
        );
    }
}
