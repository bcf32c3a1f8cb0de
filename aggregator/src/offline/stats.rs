//! What takes how much in a data directory, and from when until when it reaches.

use std::{fmt, ops::ControlFlow, path::Path};

use serde::Serialize;

use super::describe;
use crate::store::{self, Read, StoreError, key::Column, key::Position, rocks::Rocks};

/// What takes how much.
#[derive(Debug, Serialize)]
pub struct Stats {
    /// Column by column.
    pub columns: Vec<ColumnStats>,
    /// Up to where the rollups have what the journal holds; `None` if there are none.
    pub rolled_up_to: Option<String>,
}

/// What a column takes.
#[derive(Debug, Serialize)]
pub struct ColumnStats {
    /// Its name.
    pub column: &'static str,
    /// Records, roughly.
    pub records: u64,
    /// In files.
    pub file_bytes: u64,
    /// In the log, not in files yet.
    pub log_bytes: u64,
    /// The first key
    pub first: Option<String>,
    /// and the last.
    pub last: Option<String>,
}

/// Looks at a directory; changes nothing in it.
///
/// # Errors
///
/// Returns [`StoreError`] when it cannot be read.
pub fn stats(dir: &Path) -> Result<Stats, StoreError> {
    let (reader, aside) = Rocks::look(dir)?;
    let mut columns = Vec::new();
    for (column, size) in aside.health()?.columns {
        let last = reader.last(column)?.map(|(key, _)| key);
        columns.push(ColumnStats {
            column: column.name(),
            records: size.keys,
            file_bytes: size.file_bytes,
            log_bytes: if size.keys > 0 { size.memory_bytes } else { 0 },
            first: first(&*reader, column)?.map(|key| describe(column, &key)),
            last: last.map(|key| describe(column, &key)),
        });
    }
    let mark = store::mark(&*reader)?;
    Ok(Stats {
        columns,
        rolled_up_to: mark.map(|mark| Position::from(mark.folded).time.to_string()),
    })
}

fn first(store: &dyn Read, column: Column) -> Result<Option<Vec<u8>>, StoreError> {
    let mut first = None;
    store.scan(column, &[], &mut |key, _| {
        first = Some(key.to_vec());
        ControlFlow::Break(())
    })?;
    Ok(first)
}

impl Stats {
    /// All files together.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.columns.iter().map(|column| column.file_bytes).sum()
    }
}

/// Bytes, for people.
pub(crate) fn bytes(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} B"),
        10_000..10_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        10_000_000..10_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<14}{:>12}{:>12}{:>12}  from, to",
            "column", "records", "in files", "a record"
        )?;
        for column in &self.columns {
            let each = column.file_bytes as f64 / column.records.max(1) as f64;
            let each = match column.file_bytes {
                0 => "-".to_owned(),
                _ => format!("{each:.1} B"),
            };
            let end = |end: &Option<String>| end.clone().unwrap_or_default();
            let line = format!(
                "{:<14}{:>12}{:>12}{each:>12}  {}, {}",
                column.column,
                column.records,
                bytes(column.file_bytes),
                end(&column.first),
                end(&column.last),
            );
            writeln!(f, "{}", line.trim_end_matches([' ', ',']))?;
        }
        match &self.rolled_up_to {
            Some(to) => writeln!(f, "rolled up to {to}"),
            None => writeln!(f, "nothing is rolled up"),
        }
    }
}
