//! Backups: copies of the whole store as it is at one moment, made while everything goes on.
//!
//! A backup is a directory under `backups` in the data directory, named by its time. Files that never change are shared with
//! the store, so it takes a moment and at first hardly any room; it is worth something once it is copied to another machine.
//! It is an ordinary data directory: `leeward-aggregator store restore` makes one of it, `store verify` looks at it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use leeward_common::time::Timestamp;
use tokio::sync::Semaphore;

use crate::store::{Aside, StoreError};

/// The directory in the data directory.
pub const DIRECTORY: &str = "backups";

/// Where backups are made.
pub struct Backups {
    dir: PathBuf,
    aside: Arc<dyn Aside>,
    /// Held by whoever makes one: one at a time.
    pub(crate) place: Arc<Semaphore>,
}

/// A backup.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Backup {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// When it was made.
    pub made_at: Timestamp,
    /// Of all its files, whoever shares them.
    pub bytes: u64,
}

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The directory cannot be read or written.
    #[error("cannot {doing} {path}: {source}", path = .path.display())]
    Directory {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The store cannot be copied.
    #[error("{0}: {cause}", cause = cause(.0))]
    Store(#[from] StoreError),
}

fn cause(error: &StoreError) -> String {
    let source = std::error::Error::source(error);
    source.map_or_else(String::new, ToString::to_string)
}

impl Backups {
    /// Of the store in this directory.
    #[must_use]
    pub fn new(data_dir: &Path, aside: Arc<dyn Aside>) -> Self {
        Self {
            dir: data_dir.join(DIRECTORY),
            aside,
            place: Arc::new(Semaphore::new(1)),
        }
    }

    /// Makes one, then removes the oldest beyond `keep`.
    ///
    /// # Errors
    ///
    /// Returns [`BackupError`] when there is no whole one, or an older one cannot be removed.
    pub fn make(&self, now: Timestamp, keep: usize) -> Result<Backup, BackupError> {
        fs::create_dir_all(&self.dir).map_err(self.failed("create", &self.dir))?;
        let path = self.dir.join(name(now));
        self.aside.copy_to(&path)?;
        let made = self.look(&path)?;
        let mut all = self.list()?;
        all.retain(|backup| backup.name != made.name);
        let extra = (all.len() + 1).saturating_sub(keep.max(1));
        for old in all.iter().take(extra) {
            fs::remove_dir_all(&old.path).map_err(self.failed("remove", &old.path))?;
        }
        Ok(made)
    }

    /// Those that are there, oldest first.
    ///
    /// # Errors
    ///
    /// Returns [`BackupError`] when the directory cannot be read.
    pub fn list(&self) -> Result<Vec<Backup>, BackupError> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(self.failed("read", &self.dir)(error)),
        };
        let mut backups = Vec::new();
        for entry in entries {
            let entry = entry.map_err(self.failed("read", &self.dir))?;
            // One that is being made has another name.
            if time_of(&entry.file_name().to_string_lossy()).is_some() {
                backups.push(self.look(&entry.path())?);
            }
        }
        backups.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(backups)
    }

    fn look(&self, path: &Path) -> Result<Backup, BackupError> {
        let failed = self.failed("read", path);
        let sizes = fs::read_dir(path).and_then(|entries| {
            entries
                .map(|entry| Ok(entry?.metadata()?.len()))
                .sum::<io::Result<u64>>()
        });
        let name = path.file_name().unwrap_or_default();
        let name = name.to_string_lossy().into_owned();
        Ok(Backup {
            made_at: time_of(&name).unwrap_or_default(),
            name,
            path: path.to_owned(),
            bytes: sizes.map_err(failed)?,
        })
    }

    fn failed(
        &self,
        doing: &'static str,
        path: &Path,
    ) -> impl Fn(io::Error) -> BackupError + use<> {
        let path = path.to_owned();
        move |source| BackupError::Directory {
            doing,
            path: path.clone(),
            source,
        }
    }
}

impl std::fmt::Debug for Backups {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backups")
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

/// `20261121T031211.000Z`: sorts by time, and is a file name everywhere.
fn name(now: Timestamp) -> String {
    let now = Timestamp::from_unix_us(now.as_unix_us() / 1_000 * 1_000);
    now.to_string().replace(['-', ':'], "")
}

fn time_of(name: &str) -> Option<Timestamp> {
    let (date, time) = name.split_at_checked(8)?;
    let (hour, rest) = time.split_at_checked(3)?;
    let (minute, second) = rest.split_at_checked(2)?;
    let (year, rest) = date.split_at_checked(4)?;
    let (month, day) = rest.split_at_checked(2)?;
    let parsed = format!("{year}-{month}-{day}{hour}:{minute}:{second}");
    let time = Timestamp::parse_rfc3339(&parsed).ok()?;
    (self::name(time) == name).then_some(time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Store as _, rocks::Rocks};

    #[test]
    fn a_name_says_when() {
        let now = Timestamp::parse_rfc3339("2026-11-21T03:12:11.5Z").unwrap();
        assert_eq!(name(now), "20261121T031211.500Z");
        assert_eq!(time_of(&name(now)), Some(now));
        for other in [
            "",
            "backup",
            "20261121T031211",
            "20261121T031211.500Z.tmp",
            "äöü",
        ] {
            assert_eq!(time_of(other), None, "{other}");
        }
    }

    #[test]
    fn the_newest_are_kept_and_strange_names_left_alone() {
        let data = tempfile::tempdir().unwrap();
        let store = Rocks::open(data.path()).unwrap();
        let backups = Backups::new(data.path(), store.aside());
        assert!(backups.list().unwrap().is_empty());
        fs::create_dir_all(data.path().join("backups/by-hand")).unwrap();
        let at = |second: u64| Timestamp::from_unix_us(1_700_000_000_000_000 + second * 1_000_000);
        for second in 0..4 {
            let made = backups.make(at(second), 2).unwrap();
            assert_eq!(made.made_at, at(second));
            assert!(made.bytes > 0 && made.path.join("CURRENT").exists());
        }
        let left: Vec<_> = backups
            .list()
            .unwrap()
            .iter()
            .map(|one| one.made_at)
            .collect();
        assert_eq!(left, [at(2), at(3)]);
        assert!(data.path().join("backups/by-hand").exists());
        let again = backups.make(at(3), 2).unwrap_err().to_string();
        assert!(again.contains("cannot copy the store"), "{again}");
        drop((store, backups));
        // What is beside the store's files does not keep it from being opened.
        Rocks::open(data.path()).unwrap();
    }
}
