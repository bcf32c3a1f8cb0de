//! Is every record of a data directory what was written?
//!
//! Logs are read frame by frame; files that never change are compared with the checksums that the aggregator noted; every
//! record is read, which checks its block's checksum, and decoded. Whatever is wrong is named with the file and with what it
//! affects, and the rest is read.

use std::{fmt, fs, ops::ControlFlow, path::Path};

use anyhow::Context as _;
use leeward_common::wire::batch;
use serde::Serialize;

use super::{describe, unreadable::unreadable};
use crate::{
    rollup::code,
    store::{
        FORMAT, StoreError,
        files::checksum,
        key::{Column, Epoch, Position, from_late, path::Grain},
        record::v1,
        rocks::{
            damage::{Damaged, Gap, Table},
            log,
        },
    },
};

/// Malformed records that are named one by one; more are counted.
const NAMED: usize = 100;

/// What was found.
#[derive(Debug, Default, Serialize)]
pub struct Verified {
    /// What is wrong; none if all is well.
    pub findings: Vec<Finding>,
    /// Records that can be read, by column.
    pub readable: Vec<(&'static str, u64)>,
    /// Files whose checksum is the one that was noted.
    pub files_checked: u64,
    /// Files of which none was noted: they are younger than a minute or two. Their records are checked all the same.
    pub files_unknown: u64,
}

/// One thing that is wrong.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Finding {
    /// The file, if it is known.
    pub file: Option<String>,
    /// What is wrong.
    pub what: String,
    /// What is affected by it.
    pub affects: String,
}

/// Verifies a directory; changes nothing in it.
///
/// # Errors
///
/// Returns why nothing can be said of it: it is no data directory, or cannot be read.
pub fn verify(dir: &Path) -> anyhow::Result<Verified> {
    let mut verified = Verified::default();
    verified.logs(dir)?;
    let store = match Damaged::read_only(dir) {
        Ok(store) => store,
        Err(error) => {
            let what = format!("{:#}", anyhow::Error::from(error));
            anyhow::ensure!(
                dir.join("CURRENT").exists(),
                "{} is no data directory: {what}",
                dir.display()
            );
            verified.find(None, what, "everything: restore a backup");
            return Ok(verified);
        }
    };
    let tables = store.tables()?;
    verified.tables(dir, &store, &tables);
    for column in Column::ALL {
        verified.column(dir, &store, column, &tables);
    }
    Ok(verified)
}

impl Verified {
    fn find(&mut self, file: Option<&str>, what: impl Into<String>, affects: impl Into<String>) {
        self.findings.push(Finding {
            file: file.map(str::to_owned),
            what: what.into(),
            affects: affects.into(),
        });
    }

    /// The write-ahead log, and the list of files.
    fn logs(&mut self, dir: &Path) -> anyhow::Result<()> {
        let entries =
            fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
        let mut names: Vec<String> = entries
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<std::io::Result<_>>()?;
        names.sort();
        for (file, what) in list_faults(dir, &names) {
            let affects = "the list of files: everything; restore a backup, or what can be read with restore --damaged";
            self.find(Some(&file), what, affects);
        }
        for name in names.iter().filter(|name| name.ends_with(".log")) {
            if let Some(what) = log_fault(&dir.join(name)) {
                let affects = "what was written last, from that place on; nothing that is in files of records";
                self.find(Some(name), what, affects);
            }
        }
        Ok(())
    }

    /// Files that never change, against what was noted of them.
    fn tables(&mut self, dir: &Path, store: &Damaged, tables: &[Table]) {
        let noted = noted(store);
        for table in tables {
            let found = checksum(&dir.join(&table.name));
            let known = noted.iter().find(|(name, _)| *name == table.name);
            match (found, known) {
                (Err(error), _) => {
                    self.find(
                        Some(&table.name),
                        format!("cannot be read: {error}"),
                        range(table),
                    );
                }
                (Ok(found), Some((_, noted))) if found != *noted => {
                    let what = format!(
                        "its checksum is {:08x} of {} bytes, and {:08x} of {} bytes was noted when it was written",
                        found.crc32c, found.bytes, noted.crc32c, noted.bytes
                    );
                    let affects = format!(
                        "records of {}, as far as they are named here; else none, but it must be replaced",
                        range(table)
                    );
                    self.find(Some(&table.name), what, affects);
                }
                (Ok(_), Some(_)) => self.files_checked += 1,
                (Ok(_), None) => self.files_unknown += 1,
            }
        }
    }

    fn column(&mut self, dir: &Path, store: &Damaged, column: Column, tables: &[Table]) {
        let (mut readable, mut malformed) = (0, 0);
        let gaps = store.scan(column, &[], &mut |key, value| {
            match check(column, key, value) {
                Ok(()) => readable += 1,
                Err(error) => {
                    malformed += 1;
                    if malformed <= NAMED {
                        let affects = format!("{} {}", column.name(), describe(column, key));
                        self.find(None, error.to_string(), affects);
                    }
                }
            }
            ControlFlow::Continue(())
        });
        if malformed > NAMED {
            let more = malformed - NAMED;
            self.find(
                None,
                format!("{more} more records are malformed"),
                column.name(),
            );
        }
        for gap in gaps {
            for gap in named(dir, column, gap, tables) {
                let affects = between(column, &gap, tables);
                self.find(gap.file.as_deref(), gap.why, affects);
            }
        }
        self.readable.push((column.name(), readable));
    }
}

/// What is wrong with the list of files that make up a store, and with the file that says which list that is; each with its
/// name.
pub(super) fn list_faults(dir: &Path, names: &[String]) -> Vec<(String, String)> {
    let current = current(dir, names).map(|what| ("CURRENT".to_owned(), what));
    let lists = names.iter().filter(|name| name.starts_with("MANIFEST-"));
    let faults = lists.filter_map(|name| Some((name.clone(), log_fault(&dir.join(name))?)));
    current.into_iter().chain(faults).collect()
}

fn log_fault(file: &Path) -> Option<String> {
    match fs::read(file) {
        Ok(bytes) => log::fault(&bytes)
            .map(|fault| format!("at byte {}: {}", fault.offset, fault.why.as_str())),
        Err(error) => Some(format!("cannot be read: {error}")),
    }
}

/// What is wrong with the file that names the list of files; nothing is said of a directory without one.
fn current(dir: &Path, names: &[String]) -> Option<String> {
    if !names.iter().any(|name| name == "CURRENT") {
        return None;
    }
    let text = match fs::read(dir.join("CURRENT")) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => return Some(format!("cannot be read: {error}")),
    };
    let named = text.strip_suffix('\n').unwrap_or_default();
    let is_there = named.starts_with("MANIFEST-") && names.iter().any(|name| name == named);
    (!is_there).then(|| format!("it names {text:?}, which is no list of files here"))
}

/// The checksums that were noted.
fn noted(store: &Damaged) -> Vec<(String, v1::Checksum)> {
    let mut noted = Vec::new();
    store.scan(
        Column::Meta,
        crate::store::CHECKSUM_PREFIX,
        &mut |key, value| {
            let Some(name) = key.strip_prefix(crate::store::CHECKSUM_PREFIX) else {
                return ControlFlow::Break(());
            };
            if let Ok(checksum) = v1::decode("checksum", value) {
                noted.push((String::from_utf8_lossy(name).into_owned(), checksum));
            }
            ControlFlow::Continue(())
        },
    );
    noted
}

/// A gap with its file; once for each, where several are to blame.
fn named(dir: &Path, column: Column, gap: Gap, tables: &[Table]) -> Vec<Gap> {
    if gap.file.is_some() {
        return vec![gap];
    }
    match unreadable(dir, column, tables) {
        Ok(files) if !files.is_empty() => {
            let of = |file| Gap {
                file: Some(file),
                ..gap.clone()
            };
            files.into_iter().map(of).collect()
        }
        Ok(_) => vec![gap],
        Err(error) => vec![Gap {
            why: format!("{}; its file cannot be found: {error:#}", gap.why),
            ..gap
        }],
    }
}

fn range(table: &Table) -> String {
    let column = Column::ALL
        .into_iter()
        .find(|column| column.name() == table.column);
    match column {
        Some(column) => format!(
            "{} from {} to {} ({} records)",
            column.name(),
            describe(column, &table.first),
            describe(column, &table.last),
            table.records
        ),
        None => table.column.clone(),
    }
}

fn between(column: Column, gap: &Gap, tables: &[Table]) -> String {
    let end = |key: &Option<Vec<u8>>, none: &str| match key {
        Some(key) => describe(column, key),
        None => none.to_owned(),
    };
    let after = end(&gap.after, "its beginning");
    if gap.is_total {
        let file = tables
            .iter()
            .find(|table| Some(&table.name) == gap.file.as_ref());
        let file = file.map_or_else(String::new, |table| {
            format!("; the file has {}", range(table))
        });
        return format!(
            "{} from {after} on cannot be read while the file is there{file}; restore --damaged saves the others",
            column.name()
        );
    }
    let before = end(&gap.before, "its end");
    format!("{} between {after} and {before}", column.name())
}

/// Whether a record is what its column holds.
fn check(column: Column, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
    let malformed = |what: &'static str| StoreError::Malformed {
        what,
        why: "no such key".to_owned(),
    };
    let known = |is_key: bool| is_key.then_some(()).ok_or_else(|| malformed("key"));
    match column {
        Column::Meta if key == b"format" && value != FORMAT.as_bytes() => Err(malformed("format")),
        Column::Meta => Ok(()),
        Column::Journal => {
            known(Position::from_key(key).is_some())?;
            if let Some(found) = v1::BatchAt::of(value)? {
                let decoded = batch::decode(found.bytes);
                decoded.map_err(|error| StoreError::Malformed {
                    what: "batch",
                    why: error.to_string(),
                })?;
            }
            v1::decode::<v1::Record>("journal", value).map(drop)
        }
        Column::Decisions => {
            known(Position::from_key(key).is_some())?;
            v1::decode::<v1::Decided>("decision", value).map(drop)
        }
        Column::Snapshots => {
            known(Position::from_key(key).is_some())?;
            v1::decode::<v1::Snapshot>("snapshot", value).map(drop)
        }
        Column::Tables => {
            known(Epoch::from_table_key(key).is_some())?;
            v1::decode::<v1::Table>("table", value).map(drop)
        }
        Column::Watermarks => {
            known(Epoch::from_key(key).is_some())?;
            v1::decode::<v1::Watermark>("watermark", value).map(drop)
        }
        Column::Registrations => v1::decode::<v1::Registration>("registration", value).map(drop),
        Column::Audit => {
            known(key.len() == 8)?;
            v1::decode::<v1::Audited>("audit entry", value).map(drop)
        }
        Column::Minutes => rollup(Grain::Minute, key, value),
        Column::Hours => rollup(Grain::Hour, key, value),
        Column::Late => known(from_late(key).is_some()),
    }
}

fn rollup(grain: Grain, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
    let (_, path) = grain.parse(key).ok_or_else(|| StoreError::Malformed {
        what: "key",
        why: "no such key".to_owned(),
    })?;
    code::decode(path.schema, value).map(drop)
}

impl fmt::Display for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            let file = finding.file.as_deref().unwrap_or("record");
            writeln!(f, "{file}: {}", finding.what)?;
            writeln!(f, "  affects {}", finding.affects)?;
        }
        for (column, count) in &self.readable {
            writeln!(f, "{column:<14}{count:>12} records can be read")?;
        }
        writeln!(
            f,
            "{} files are as they were written, {} are too young for a noted checksum",
            self.files_checked, self.files_unknown
        )?;
        match self.findings.len() {
            0 => writeln!(f, "all is well"),
            1 => writeln!(f, "1 thing is wrong"),
            count => writeln!(f, "{count} things are wrong"),
        }
    }
}
