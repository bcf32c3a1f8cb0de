//! Which file is it that RocksDB cannot even begin to read?
//!
//! When what describes a file of records is damaged, such as its properties or its index, nothing of its column can be read,
//! and the error does not say which file it is. So each file of the column is looked at alone, as a copy.

use std::{
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use anyhow::Context as _;

use crate::store::{
    key::Column,
    rocks::damage::{Damaged, Table},
};

/// A directory that is gone afterwards.
pub(super) struct Scratch(pub(super) PathBuf);

impl Scratch {
    /// Makes it; it must not be there yet.
    pub(super) fn new(path: PathBuf) -> anyhow::Result<Self> {
        fs::create_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The files of a column that cannot be read by themselves.
///
/// # Errors
///
/// Returns why that cannot be found out.
pub(super) fn unreadable(
    dir: &Path,
    column: Column,
    tables: &[Table],
) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    for table in tables.iter().filter(|own| own.column == column.name()) {
        if is_unreadable(&dir.join(&table.name), column)? {
            found.push(table.name.clone());
        }
    }
    Ok(found)
}

fn is_unreadable(file: &Path, column: Column) -> anyhow::Result<bool> {
    let name = file.file_name().context("a file has a name")?;
    /// No two of one process, whatever they are called.
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let (process, next) = (std::process::id(), NEXT.fetch_add(1, Relaxed));
    let scratch = format!("leeward-{process}-{next}");
    let scratch = Scratch::new(std::env::temp_dir().join(scratch))?;
    let copy = scratch.0.join(name);
    fs::copy(file, &copy).with_context(|| format!("cannot copy {}", file.display()))?;
    // Repairing makes a store of the files that it can list, and puts the others aside. A file whose column it cannot tell goes
    // to another.
    Damaged::repair(&scratch.0)?;
    let alone = Damaged::read_only(&scratch.0)?;
    let mut tables = alone.tables()?.into_iter();
    let is_there = tables.any(|table| table.column == column.name());
    let all = &mut |_: &[u8], _: &[u8]| ControlFlow::Continue(());
    Ok(!is_there || !alone.scan(column, &[], all).is_empty())
}
