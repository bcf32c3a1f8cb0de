//! The store in RocksDB; the only place that knows of it.

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
};

use arc_swap::ArcSwapOption;
use rocksdb::{
    BlockBasedOptions, BottommostLevelCompaction, ColumnFamily, ColumnFamilyDescriptor,
    CompactOptions, DB, DBCompressionType, DBRecoveryMode, Direction, IteratorMode, LogLevel,
    Options, ReadOptions, Snapshot, WriteBatch, WriteOptions, checkpoint::Checkpoint, properties,
};

use super::{
    Aside, AtOnce, Entry, FORMAT, FORMAT_KEY, Health, Read, Size, Store, StoreError, Visit, Writes,
    key::Column,
};

pub mod damage;
pub mod log;

/// How often a reader tries to open a store that another process writes.
const OPENINGS: u32 = 8;

/// Memory before a column is written out as a file: the journal in big steps, so that few files cover an hour.
const JOURNAL_BUFFER_BYTES: usize = 16 << 20;
/// The same for rollups: each path has two a minute, and those of an hour are written over every minute.
const ROLLUP_BUFFER_BYTES: usize = 8 << 20;
/// The same for the small columns.
const BUFFER_BYTES: usize = 2 << 20;
/// What is compressed at once in a column of rollups: neighbours are alike.
const ROLLUP_BLOCK_BYTES: usize = 16 << 10;
/// The write-ahead log before the oldest column is written out, whether or not its buffer is full.
const WAL_BYTES: u64 = 128 << 20;

/// A directory opened by RocksDB. Only one process at a time can.
#[derive(Debug)]
pub struct Rocks {
    opened: Arc<Opened>,
    /// The database before, until the last who reads it has let go of it.
    before: Weak<DB>,
}

/// A directory that is only read: what is in it, and how it fares.
pub type Look = (Arc<dyn Read>, Arc<dyn Aside>);

/// What the writer and its readers share.
#[derive(Debug)]
struct Opened {
    /// `None` while it is to be opened again. Who reads for long looks now and then whether it is: a directory can only
    /// be opened again once everybody has let go of it, and the turn thread does not wait for readers.
    db: ArcSwapOption<DB>,
    dir: PathBuf,
}

impl Opened {
    fn db(&self) -> Result<Arc<DB>, StoreError> {
        self.db.load_full().ok_or(StoreError::Failed)
    }
}

impl Rocks {
    /// Opens a directory, creating it if it is missing.
    ///
    /// # Errors
    ///
    /// Returns [`StoreError`] when it cannot be opened, is in use, or holds another format.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        std::fs::create_dir_all(dir).map_err(|source| StoreError::Directory {
            dir: dir.to_owned(),
            source,
        })?;
        let is_new = !dir.join("CURRENT").exists();
        if !is_new {
            check_columns(dir)?;
        }
        let mut store = Self {
            opened: Arc::new(Opened {
                db: ArcSwapOption::from_pointee(open_db(dir)?),
                dir: dir.to_owned(),
            }),
            before: Weak::new(),
        };
        store.check_format(is_new)?;
        Ok(store)
    }

    /// Opens a directory to read it as it is now, whoever writes it. Nothing in it is changed.
    ///
    /// # Errors
    ///
    /// Returns [`StoreError`] when it cannot be opened, or holds another format.
    pub fn read_only(dir: &Path) -> Result<Arc<dyn Read>, StoreError> {
        Ok(Self::look(dir)?.0)
    }

    /// As [`Self::read_only`], and how it fares.
    ///
    /// # Errors
    ///
    /// As [`Self::read_only`].
    pub fn look(dir: &Path) -> Result<Look, StoreError> {
        check_columns(dir)?;
        let mut options = db_options();
        options.create_if_missing(false);
        options.create_missing_column_families(false);
        let open = || {
            // One that was last written by an earlier build lacks what has come since.
            let there = DB::list_cf(&options, dir).map_err(engine(dir, "read the columns"))?;
            let columns = Column::ALL.into_iter();
            let columns = columns.filter(|column| there.iter().any(|name| name == column.name()));
            DB::open_cf_descriptors_read_only(&options, dir, columns.map(descriptor), false)
                .map_err(engine(dir, "open the store"))
        };
        let mut opened = open();
        // Whoever writes it may remove files while they are being opened.
        for _ in 1..OPENINGS {
            let gone = opened
                .as_ref()
                .is_err_and(|error| format!("{error:?}").contains("No such file"));
            if !gone {
                break;
            }
            opened = open();
        }
        let db = opened?;
        let value = db.get_cf(column(&db, Column::Meta), FORMAT_KEY);
        let value = value.map_err(engine(dir, "read the format version"))?;
        if value.as_deref() != Some(FORMAT.as_bytes()) {
            let value = value.unwrap_or_default();
            return Err(StoreError::Format {
                dir: dir.to_owned(),
                found: format!("{:?}", String::from_utf8_lossy(&value)),
            });
        }
        let opened = Arc::new(Opened {
            db: ArcSwapOption::from_pointee(db),
            dir: dir.to_owned(),
        });
        Ok((Arc::<Opened>::clone(&opened), opened))
    }

    /// Merges the files of each column, and drops what was deleted. Blocks for as long as it takes.
    ///
    /// # Errors
    ///
    /// Returns [`StoreError`] when the result cannot be written.
    pub fn compact(&self) -> Result<(), StoreError> {
        let db = self.opened.db()?;
        for name in Column::ALL {
            let handle = column(&db, name);
            db.flush_cf(handle)
                .map_err(engine(&self.opened.dir, "write out the log"))?;
            let mut options = CompactOptions::default();
            options.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
            db.compact_range_cf_opt(handle, None::<&[u8]>, None::<&[u8]>, &options);
        }
        // A compaction that fails says so nowhere else.
        let health = self.opened.health()?;
        match health.background_errors {
            0 => Ok(()),
            _ => Err(StoreError::Failed),
        }
    }

    fn check_format(&mut self, is_new: bool) -> Result<(), StoreError> {
        let value = {
            let db = self.opened.db()?;
            db.get_cf(column(&db, Column::Meta), FORMAT_KEY)
        };
        match value.map_err(engine(&self.opened.dir, "read the format version"))? {
            Some(value) if value == FORMAT.as_bytes() => Ok(()),
            Some(value) => Err(self.format(format!("{:?}", String::from_utf8_lossy(&value)))),
            None if is_new || self.is_empty()? => {
                let mut writes = Writes::default();
                writes.meta(FORMAT_KEY, FORMAT.as_bytes());
                self.commit(&writes)
            }
            None => Err(self.format("data without a format version".to_owned())),
        }
    }

    /// A crash between the creation of a directory and its first write leaves one without a version and without data.
    fn is_empty(&self) -> Result<bool, StoreError> {
        for column in Column::ALL {
            if self.last(column)?.is_some() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn format(&self, found: String) -> StoreError {
        StoreError::Format {
            dir: self.opened.dir.clone(),
            found,
        }
    }
}

fn column(db: &DB, column: Column) -> &ColumnFamily {
    db.cf_handle(column.name())
        .expect("every column was opened")
}

fn open_db(dir: &Path) -> Result<DB, StoreError> {
    DB::open_cf_descriptors(&db_options(), dir, columns()).map_err(engine(dir, "open the store"))
}

fn columns() -> [ColumnFamilyDescriptor; Column::ALL.len()] {
    Column::ALL.map(descriptor)
}

fn descriptor(column: Column) -> ColumnFamilyDescriptor {
    ColumnFamilyDescriptor::new(column.name(), column_options(column))
}

/// Refuses a RocksDB of somebody else's, or of a later format, before anything in it is touched.
fn check_columns(dir: &Path) -> Result<(), StoreError> {
    let names = DB::list_cf(&Options::default(), dir).map_err(engine(dir, "read the columns"))?;
    let known =
        |name: &String| name == "default" || Column::ALL.iter().any(|column| column.name() == name);
    match names.iter().find(|name| !known(name)) {
        None => Ok(()),
        Some(name) => Err(StoreError::Format {
            dir: dir.to_owned(),
            found: format!("a column {name:?}"),
        }),
    }
}

fn engine<'a>(
    dir: &'a Path,
    doing: &'static str,
) -> impl FnOnce(rocksdb::Error) -> StoreError + 'a {
    move |source| StoreError::Engine {
        doing,
        dir: dir.to_owned(),
        source,
    }
}

fn db_options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    // A torn tail of the log was never acknowledged; anything else that is wrong with it is refused.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_max_total_wal_size(WAL_BYTES);
    options.set_max_background_jobs(2);
    options.set_max_open_files(256);
    options.set_keep_log_file_num(4);
    options.set_log_level(LogLevel::Warn);
    options
}

fn column_options(column: Column) -> Options {
    let mut options = Options::default();
    let (buffer, compression) = match column {
        // Batches in the journal are compressed already.
        Column::Journal => (JOURNAL_BUFFER_BYTES, DBCompressionType::None),
        Column::Minutes | Column::Hours => (ROLLUP_BUFFER_BYTES, DBCompressionType::Lz4),
        _ => (BUFFER_BYTES, DBCompressionType::Lz4),
    };
    options.set_write_buffer_size(buffer);
    options.set_compression_type(compression);
    if matches!(column, Column::Minutes | Column::Hours) {
        // Where rollups stay for months they are packed as small as can be.
        options.set_bottommost_compression_type(DBCompressionType::Zstd);
        let mut blocks = BlockBasedOptions::default();
        blocks.set_block_size(ROLLUP_BLOCK_BYTES);
        options.set_block_based_table_factory(&blocks);
    }
    options
}

impl Read for Opened {
    fn scan(&self, name: Column, from: &[u8], visit: Visit<'_>) -> Result<(), StoreError> {
        self.picture(&mut |picture| picture.scan(name, from, visit))
    }

    fn scan_back(&self, name: Column, until: &[u8], visit: Visit<'_>) -> Result<(), StoreError> {
        self.picture(&mut |picture| picture.scan_back(name, until, visit))
    }

    fn last(&self, name: Column) -> Result<Option<Entry>, StoreError> {
        let mut last = None;
        self.picture(&mut |picture| {
            last = picture.last(name)?;
            Ok(())
        })?;
        Ok(last)
    }

    fn get(&self, name: Column, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let db = self.db()?;
        let Some(handle) = db.cf_handle(name.name()) else {
            return Ok(None);
        };
        db.get_cf(handle, key).map_err(engine(&self.dir, "read"))
    }

    fn at_once(&self, read: AtOnce<'_>) -> Result<(), StoreError> {
        let db = self.db()?;
        let picture = Picture {
            db: &db,
            opened: self,
            snapshot: Some(db.snapshot()),
        };
        read(&picture)
    }
}

impl Opened {
    /// The store as it is; each reading sees what was written before it.
    fn picture(&self, read: AtOnce<'_>) -> Result<(), StoreError> {
        let db = self.db()?;
        read(&Picture {
            db: &db,
            opened: self,
            snapshot: None,
        })
    }
}

/// A database while it is read; with a snapshot, as it was when that was taken.
struct Picture<'a> {
    db: &'a DB,
    opened: &'a Opened,
    snapshot: Option<Snapshot<'a>>,
}

impl Picture<'_> {
    fn options(&self) -> ReadOptions {
        let mut options = ReadOptions::default();
        if let Some(snapshot) = &self.snapshot {
            options.set_snapshot(snapshot);
        }
        options
    }

    fn iterate(
        &self,
        name: Column,
        mode: IteratorMode<'_>,
        visit: Visit<'_>,
    ) -> Result<(), StoreError> {
        let Some(handle) = self.db.cf_handle(name.name()) else {
            return Ok(());
        };
        for entry in self.db.iterator_cf_opt(handle, self.options(), mode) {
            if self.opened.db.load().is_none() {
                return Err(StoreError::Failed);
            }
            let (key, value) = entry.map_err(engine(&self.opened.dir, "read"))?;
            if let ControlFlow::Break(()) = visit(&key, &value) {
                break;
            }
        }
        Ok(())
    }
}

impl Read for Picture<'_> {
    fn scan(&self, name: Column, from: &[u8], visit: Visit<'_>) -> Result<(), StoreError> {
        self.iterate(name, IteratorMode::From(from, Direction::Forward), visit)
    }

    fn scan_back(&self, name: Column, until: &[u8], visit: Visit<'_>) -> Result<(), StoreError> {
        let mode = IteratorMode::From(until, Direction::Reverse);
        self.iterate(name, mode, &mut |key, value| match key == until {
            true => ControlFlow::Continue(()),
            false => visit(key, value),
        })
    }

    fn last(&self, name: Column) -> Result<Option<Entry>, StoreError> {
        let mut last = None;
        self.iterate(name, IteratorMode::End, &mut |key, value| {
            last = Some((key.to_vec(), value.to_vec()));
            ControlFlow::Break(())
        })?;
        Ok(last)
    }

    fn get(&self, name: Column, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(handle) = self.db.cf_handle(name.name()) else {
            return Ok(None);
        };
        let value = self.db.get_cf_opt(handle, key, &self.options());
        value.map_err(engine(&self.opened.dir, "read"))
    }

    fn at_once(&self, read: AtOnce<'_>) -> Result<(), StoreError> {
        match self.snapshot {
            Some(_) => read(self),
            None => self.opened.at_once(read),
        }
    }
}

impl Aside for Opened {
    fn write(&self, writes: &Writes) -> Result<(), StoreError> {
        self.put(writes, &WriteOptions::default())
    }

    fn health(&self) -> Result<Health, StoreError> {
        let db = self.db()?;
        let number = |handle: &ColumnFamily, name| {
            let value = db.property_int_value_cf(handle, name);
            value.map(Option::unwrap_or_default)
        };
        let asked = engine(&self.dir, "ask the engine how it fares");
        let ask = || {
            let meta = column(&db, Column::Meta);
            let there = Column::ALL.into_iter();
            let there = there.filter_map(|name| Some((name, db.cf_handle(name.name())?)));
            let size = |(name, handle): (Column, &ColumnFamily)| {
                let size = Size {
                    file_bytes: number(handle, properties::TOTAL_SST_FILES_SIZE)?,
                    memory_bytes: number(handle, properties::CUR_SIZE_ALL_MEM_TABLES)?,
                    keys: number(handle, properties::ESTIMATE_NUM_KEYS)?,
                };
                Ok((name, size))
            };
            let file = |file: rocksdb::LiveFile| file.name.trim_start_matches('/').to_owned();
            Ok(Health {
                background_errors: number(meta, properties::BACKGROUND_ERRORS)?,
                is_stalled: number(meta, properties::IS_WRITE_STOPPED)? > 0,
                columns: there.map(size).collect::<Result<_, _>>()?,
                files: db.live_files()?.into_iter().map(file).collect(),
            })
        };
        ask().map_err(asked)
    }

    fn copy_to(&self, dir: &Path) -> Result<(), StoreError> {
        let db = self.db()?;
        let copied = Checkpoint::new(&db).and_then(|checkpoint| checkpoint.create_checkpoint(dir));
        copied.map_err(engine(dir, "copy the store"))
    }
}

impl Opened {
    fn put(&self, writes: &Writes, options: &WriteOptions) -> Result<(), StoreError> {
        let db = self.db()?;
        let mut batch = WriteBatch::default();
        for (name, key, value) in &writes.puts {
            batch.put_cf(column(&db, *name), key, value);
        }
        for (name, key) in &writes.deletes {
            batch.delete_cf(column(&db, *name), key);
        }
        db.write_opt(batch, options)
            .map_err(engine(&self.dir, "write"))
    }
}

impl Read for Rocks {
    fn scan(&self, name: Column, from: &[u8], visit: Visit<'_>) -> Result<(), StoreError> {
        self.opened.scan(name, from, visit)
    }

    fn scan_back(&self, name: Column, until: &[u8], visit: Visit<'_>) -> Result<(), StoreError> {
        self.opened.scan_back(name, until, visit)
    }

    fn last(&self, name: Column) -> Result<Option<Entry>, StoreError> {
        self.opened.last(name)
    }

    fn get(&self, name: Column, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.opened.get(name, key)
    }

    fn at_once(&self, read: AtOnce<'_>) -> Result<(), StoreError> {
        self.opened.at_once(read)
    }
}

impl Store for Rocks {
    fn reader(&self) -> Arc<dyn Read> {
        Arc::<Opened>::clone(&self.opened)
    }

    fn aside(&self) -> Arc<dyn Aside> {
        Arc::<Opened>::clone(&self.opened)
    }

    fn commit(&mut self, writes: &Writes) -> Result<(), StoreError> {
        let mut options = WriteOptions::default();
        options.set_sync(true);
        self.opened.put(writes, &options)
    }

    /// A database whose log could not be written stays failed until it is opened again.
    fn revive(&mut self) -> Result<(), StoreError> {
        if let Some(db) = self.opened.db.swap(None) {
            self.before = Arc::downgrade(&db);
        }
        if self.before.strong_count() > 0 {
            return Err(StoreError::Failed);
        }
        let db = open_db(&self.opened.dir)?;
        self.opened.db.store(Some(Arc::new(db)));
        Ok(())
    }

    fn drop_before(&mut self, name: Column, until: &[u8]) -> Result<(), StoreError> {
        let (db, doing) = (self.opened.db()?, "drop old data");
        let handle = column(&db, name);
        db.delete_file_in_range_cf(handle, &[][..], until)
            .map_err(engine(&self.opened.dir, doing))?;
        db.delete_range_cf(handle, &[][..], until)
            .map_err(engine(&self.opened.dir, doing))
    }
}

#[cfg(test)]
mod tests;
