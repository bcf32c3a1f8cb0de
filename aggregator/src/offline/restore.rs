//! A backup becomes a data directory; a damaged one as far as it can be read.

use std::{
    fmt,
    fs::{self, File},
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use super::verify::verify;
use crate::store::{
    Store as _, Writes,
    key::Column,
    rocks::{Rocks, damage::Damaged},
};

/// Bytes of one write while records are copied.
const WRITE: usize = 4 << 20;

/// What was restored.
#[derive(Debug)]
pub struct Restored {
    /// Where to.
    pub data: PathBuf,
    /// Records that are there, by column; empty where files were copied as they are.
    pub records: Vec<(&'static str, u64)>,
    /// Files or stretches that were left out, in words.
    pub left_out: Vec<String>,
}

/// Copies a backup that is not damaged.
///
/// # Errors
///
/// Returns why there is no whole copy.
pub fn restore(from: &Path, data: &Path) -> anyhow::Result<Restored> {
    make_room(from, data)?;
    let verified = verify(from)?;
    anyhow::ensure!(
        verified.findings.is_empty(),
        "{} is damaged:\n{verified}restore --damaged copies what can be read",
        from.display()
    );
    // The file that makes it a store comes last: a copy that breaks off is none.
    let mut names = files(from)?;
    names.sort_by_key(|name| name == "CURRENT");
    for name in &names {
        let copy = data.join(name);
        fs::copy(from.join(name), &copy)
            .with_context(|| format!("cannot write {}", copy.display()))?;
        File::open(&copy)?.sync_all()?;
    }
    File::open(data)?.sync_all()?;
    drop(Rocks::open(data)?);
    Ok(Restored {
        data: data.to_owned(),
        records: Vec::new(),
        left_out: Vec::new(),
    })
}

/// Copies what can be read of a directory, record by record.
///
/// # Errors
///
/// Returns why nothing can be read, or where it cannot be written to.
pub fn salvage(from: &Path, data: &Path) -> anyhow::Result<Restored> {
    make_room(from, data)?;
    let mut scratch_name = data.as_os_str().to_owned();
    scratch_name.push(".scratch");
    let scratch = Scratch(PathBuf::from(scratch_name));
    fs::create_dir(&scratch.0).with_context(|| format!("cannot create {}", scratch.0.display()))?;
    for name in files(from)? {
        let (file, copy) = (from.join(&name), scratch.0.join(&name));
        // Files of records are only read, so they need no copy where the file system can share them.
        let is_shared = name.ends_with(".sst") && fs::hard_link(&file, &copy).is_ok();
        if !is_shared {
            fs::copy(&file, &copy).with_context(|| format!("cannot copy {}", file.display()))?;
        }
    }
    let mut restored = Restored {
        data: data.to_owned(),
        records: Vec::new(),
        left_out: Vec::new(),
    };
    let mut into = Rocks::open(data)?;
    let mut store = open(&scratch.0, &mut restored)?;
    for column in Column::ALL {
        let (mut copied, mut from) = (0, Vec::new());
        loop {
            let gaps = copy(&store, column, &mut from, &mut into, &mut copied)?;
            let mut broken = None;
            for gap in gaps {
                restored
                    .left_out
                    .push(format!("{}: {}", column.name(), gap.why));
                if gap.is_total {
                    broken = gap.file;
                }
            }
            // A file that nothing can be read beside: without it the others can.
            let Some(broken) = broken else { break };
            drop(store);
            fs::remove_file(scratch.0.join(&broken))
                .with_context(|| format!("cannot leave out {broken}"))?;
            Damaged::repair(&scratch.0)?;
            store = open(&scratch.0, &mut restored)?;
        }
        restored.records.push((column.name(), copied));
    }
    Ok(restored)
}

fn open(scratch: &Path, restored: &mut Restored) -> anyhow::Result<Damaged> {
    match Damaged::scratch(scratch) {
        Ok(store) => Ok(store),
        Err(error) => {
            restored
                .left_out
                .push(format!("{:#}", anyhow::Error::from(error)));
            Damaged::repair(scratch)?;
            Ok(Damaged::scratch(scratch)?)
        }
    }
}

/// Copies a column from a key on; what cannot be read is passed over.
fn copy(
    store: &Damaged,
    column: Column,
    from: &mut Vec<u8>,
    into: &mut Rocks,
    copied: &mut u64,
) -> anyhow::Result<Vec<crate::store::rocks::damage::Gap>> {
    let (mut writes, mut bytes, mut failed) = (Writes::default(), 0, None);
    let begin = from.clone();
    let gaps = store.scan(column, &begin, &mut |key, value| {
        writes.copied(column, key, value);
        *copied += 1;
        bytes += key.len() + value.len();
        // The next one is behind this.
        *from = [key, &[0]].concat();
        if bytes >= WRITE {
            bytes = 0;
            if let Err(error) = into.commit(&std::mem::take(&mut writes)) {
                failed = Some(error);
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    });
    if let Some(error) = failed {
        return Err(error.into());
    }
    if !writes.is_empty() {
        into.commit(&writes)?;
    }
    Ok(gaps)
}

/// A directory that is gone afterwards.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The files of a store; nothing that it does without.
fn files(dir: &Path) -> anyhow::Result<Vec<String>> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_needed = !name.starts_with("LOG") && name != "LOCK" && !name.ends_with(".dbtmp");
        if entry.file_type()?.is_file() && is_needed {
            names.push(name);
        }
    }
    anyhow::ensure!(
        names
            .iter()
            .any(|name| name.starts_with("MANIFEST-") || name.ends_with(".sst")),
        "{} is no data directory or backup",
        dir.display()
    );
    Ok(names)
}

/// Nothing is written over.
fn make_room(from: &Path, data: &Path) -> anyhow::Result<()> {
    files(from)?;
    fs::create_dir_all(data).with_context(|| format!("cannot create {}", data.display()))?;
    let mut entries =
        fs::read_dir(data).with_context(|| format!("cannot read {}", data.display()))?;
    anyhow::ensure!(
        entries.next().is_none(),
        "{} is not empty; move it away, or name another directory",
        data.display()
    );
    Ok(())
}

impl fmt::Display for Restored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for left_out in &self.left_out {
            writeln!(f, "left out: {left_out}")?;
        }
        for (column, count) in &self.records {
            writeln!(f, "{column:<14}{count:>12} records")?;
        }
        writeln!(f, "{} is ready for an aggregator", self.data.display())
    }
}
