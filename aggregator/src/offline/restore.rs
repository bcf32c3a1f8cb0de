//! A backup becomes a data directory; a damaged one as far as it can be read.

use std::{
    collections::BTreeSet,
    fmt,
    fs::{self, File},
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use super::{
    unreadable::{Scratch, unreadable},
    verify::{list_faults, verify},
};
use crate::store::{
    Store as _, StoreError, Writes,
    key::Column,
    rocks::{
        Rocks,
        damage::{Damaged, Gap},
        log,
    },
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
    let scratch = Scratch::new(PathBuf::from(scratch_name))?;
    let mut restored = Restored {
        data: data.to_owned(),
        records: Vec::new(),
        left_out: Vec::new(),
    };
    let names = files(from)?;
    for name in &names {
        let (file, copy) = (from.join(name), scratch.0.join(name));
        // Files of records are only read, so they need no copy where the file system can share them.
        let is_shared = name.ends_with(".sst") && fs::hard_link(&file, &copy).is_ok();
        if !is_shared {
            fs::copy(&file, &copy).with_context(|| format!("cannot copy {}", file.display()))?;
        }
        if let (true, Some(fault)) = (name.ends_with(".log"), log::fault(&fs::read(&copy)?)) {
            restored.left_out.push(format!(
                "{name}: what was written from byte {} on, as far as it cannot be read: {}",
                fault.offset,
                fault.why.as_str()
            ));
        }
    }
    // RocksDB takes some damage of the list of files for its end. It would miss files that are gone, and delete those that
    // came after.
    let list_faults = list_faults(&scratch.0, &names);
    if !list_faults.is_empty() {
        let faults = list_faults.into_iter();
        let faults = faults.map(|(file, what)| format!("{file}: {what}"));
        restored.left_out.extend(faults);
        Damaged::repair(&scratch.0)?;
    }
    let mut into = Rocks::open(data)?;
    let mut store = open(&scratch.0, &mut restored)?;
    for column in Column::ALL.into_iter().filter(|own| !store.has(*own)) {
        // What describes a column is in the list, and in its files of records.
        restored.left_out.push(format!(
            "{}: it has no file of records, and what the log may have of it cannot be told from other columns",
            column.name()
        ));
    }
    let mut copied = Column::ALL.map(|column| (column.name(), 0));
    let mut todo = Column::ALL.map(Stretch::all).to_vec();
    loop {
        let (mut gaps, mut broken) = (Vec::new(), BTreeSet::new());
        for stretch in &todo {
            let count = &mut copied[stretch.column as usize].1;
            for gap in stretch.copy(&store, &mut into, count)? {
                let column = stretch.column;
                restored
                    .left_out
                    .push(format!("{}: {}", column.name(), gap.why));
                let files = match gap.file {
                    Some(file) => vec![file],
                    None => unreadable(&scratch.0, column, &store.tables()?)?,
                };
                if !files.is_empty() {
                    broken.extend(files);
                    gaps.push(Stretch {
                        column,
                        after: gap.after.max(stretch.after.clone()),
                        before: gap.before.or_else(|| stretch.before.clone()),
                    });
                }
            }
        }
        if broken.is_empty() {
            break;
        }
        // What other files have between is read without those that are damaged there. Each time there are fewer of them.
        drop(store);
        for file in broken {
            fs::remove_file(scratch.0.join(&file))
                .with_context(|| format!("cannot leave out {file}"))?;
        }
        Damaged::repair(&scratch.0)?;
        store = open(&scratch.0, &mut restored)?;
        todo = gaps;
    }
    restored.records = copied.to_vec();
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

/// A part of a column.
#[derive(Clone, Debug)]
struct Stretch {
    column: Column,
    /// The last key before it; `None` if it begins with the column.
    after: Option<Vec<u8>>,
    /// The first key behind it; `None` if it ends with the column.
    before: Option<Vec<u8>>,
}

impl Stretch {
    const fn all(column: Column) -> Self {
        Self {
            column,
            after: None,
            before: None,
        }
    }

    /// Copies what can be read of it; between which keys there was what cannot.
    fn copy(
        &self,
        store: &Damaged,
        into: &mut Rocks,
        copied: &mut u64,
    ) -> Result<Vec<Gap>, StoreError> {
        let begin = self
            .after
            .as_ref()
            .map_or_else(Vec::new, |after| [after, &[0][..]].concat());
        let (mut writes, mut bytes, mut failed) = (Writes::default(), 0, None);
        let gaps = store.scan(self.column, &begin, &mut |key, value| {
            if self
                .before
                .as_ref()
                .is_some_and(|before| key >= &before[..])
            {
                return ControlFlow::Break(());
            }
            writes.copied(self.column, key, value);
            *copied += 1;
            bytes += key.len() + value.len();
            if bytes >= WRITE {
                bytes = 0;
                failed = into.commit(&std::mem::take(&mut writes)).err();
            }
            match failed {
                None => ControlFlow::Continue(()),
                Some(_) => ControlFlow::Break(()),
            }
        });
        match failed {
            Some(error) => Err(error),
            None if writes.is_empty() => Ok(gaps),
            None => into.commit(&writes).map(|()| gaps),
        }
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
