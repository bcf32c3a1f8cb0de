//! Reading a damaged store: everything that can be read, and between what the rest was.
//!
//! RocksDB finds a damaged block when it reads it, and then reads no further. So the next key that can be read is looked for
//! by trying keys beyond, ever further off and then back between. A file whose very index is damaged takes its whole column
//! with it; such a file is named, so that whoever works on a copy can leave it out.

use std::path::Path;

use rocksdb::{ColumnFamily, DB, DBRecoveryMode, Options};

use super::{descriptor, engine};
use crate::store::{StoreError, Visit, key::Column};

/// A stretch of a column that cannot be read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Gap {
    /// The last key before it; `None` if it begins with the column.
    pub after: Option<Vec<u8>>,
    /// The first key behind it; `None` if it ends with the column.
    pub before: Option<Vec<u8>>,
    /// What RocksDB says.
    pub why: String,
    /// The file, as far as it says.
    pub file: Option<String>,
    /// Whether nothing of the column can be read on as long as the file is there.
    pub is_total: bool,
}

/// A store that may be damaged, opened to read what can be read.
#[derive(Debug)]
pub struct Damaged {
    db: DB,
}

/// A file of records.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Table {
    /// Its name in the directory.
    pub name: String,
    /// What column it belongs to.
    pub column: String,
    /// Bytes.
    pub bytes: u64,
    /// Its records.
    pub records: u64,
    /// Its first key
    pub first: Vec<u8>,
    /// and its last.
    pub last: Vec<u8>,
}

impl Damaged {
    /// Opens a directory and changes nothing in it.
    ///
    /// # Errors
    ///
    /// Returns [`StoreError`] when nothing can be read at all.
    pub fn read_only(dir: &Path) -> Result<Self, StoreError> {
        let options = options();
        let columns = columns_of(&options, dir)?;
        let columns = columns.into_iter().map(descriptor);
        let opened = DB::open_cf_descriptors_read_only(&options, dir, columns, false);
        let db = opened.map_err(engine(dir, "open the store"))?;
        Ok(Self { db })
    }

    /// Opens a directory that nobody needs any more: what is in the log is written out.
    ///
    /// # Errors
    ///
    /// Returns [`StoreError`] when nothing can be read at all.
    pub fn scratch(dir: &Path) -> Result<Self, StoreError> {
        let mut options = options();
        options.set_disable_auto_compactions(true);
        let columns = columns_of(&options, dir)?;
        let columns = columns.into_iter().map(|column| {
            let mut own = super::column_options(column);
            own.set_disable_auto_compactions(true);
            rocksdb::ColumnFamilyDescriptor::new(column.name(), own)
        });
        let opened = DB::open_cf_descriptors(&options, dir, columns);
        let db = opened.map_err(engine(dir, "open the store"))?;
        Ok(Self { db })
    }

    /// Makes a directory that nobody needs any more readable again from the files that are there.
    ///
    /// # Errors
    ///
    /// Returns [`StoreError`] when that cannot be done.
    pub fn repair(dir: &Path) -> Result<(), StoreError> {
        DB::repair(&options(), dir).map_err(engine(dir, "repair the store"))
    }

    /// Whether the column is there: after a repair only one that has files of records is.
    #[must_use]
    pub fn has(&self, column: Column) -> bool {
        self.db.cf_handle(column.name()).is_some()
    }

    /// Its files of records.
    ///
    /// # Errors
    ///
    /// Returns [`StoreError`] when they cannot be listed.
    pub fn tables(&self) -> Result<Vec<Table>, StoreError> {
        let files = self.db.live_files();
        let files = files.map_err(engine(self.db.path(), "list the files"))?;
        let table = |file: rocksdb::LiveFile| Table {
            name: file.name.trim_start_matches('/').to_owned(),
            column: file.column_family_name,
            bytes: file.size as u64,
            records: file.num_entries,
            first: file.start_key.unwrap_or_default(),
            last: file.end_key.unwrap_or_default(),
        };
        Ok(files.into_iter().map(table).collect())
    }

    /// Visits every key of a column that can be read, from `from` on; returns between which the others were.
    pub fn scan(&self, column: Column, from: &[u8], visit: Visit<'_>) -> Vec<Gap> {
        let Some(handle) = self.db.cf_handle(column.name()) else {
            return Vec::new();
        };
        let (mut gaps, mut from, mut last) = (Vec::<Gap>::new(), from.to_vec(), None);
        loop {
            let mut keys = self.db.raw_iterator_cf(handle);
            keys.seek(&from);
            let mut is_first = true;
            while let Some((key, value)) = keys.item() {
                if let (true, Some(gap)) = (std::mem::take(&mut is_first), gaps.last_mut()) {
                    gap.before.get_or_insert_with(|| key.to_vec());
                }
                if visit(key, value).is_break() {
                    return gaps;
                }
                last = Some(key.to_vec());
                keys.next();
            }
            let Err(error) = keys.status() else {
                return gaps;
            };
            let why = error.to_string();
            let beyond = self.beyond(handle, last.as_deref().unwrap_or(&from).max(&from));
            gaps.push(Gap {
                after: last.clone(),
                before: None,
                file: file_of(&why),
                why,
                is_total: beyond.is_none(),
            });
            match beyond {
                Some(beyond) => from = beyond,
                None => return gaps,
            }
        }
    }

    /// A key beyond `from` from which on one can read, about the nearest; `None` if there is none.
    fn beyond(&self, handle: &ColumnFamily, from: &[u8]) -> Option<Vec<u8>> {
        let mut keys = self.db.raw_iterator_cf(handle);
        let mut is_readable = |key: &Number| {
            keys.seek(key);
            keys.status().is_ok()
        };
        let from = number(from);
        let mut bad = from;
        let mut good = None;
        for bit in 0..NUMBER_BYTES * 8 {
            let Some(further) = plus(&from, bit) else {
                break;
            };
            if is_readable(&further) {
                good = Some(further);
                break;
            }
            bad = further;
        }
        let mut good = match good {
            Some(good) => good,
            None => Some([0xff; NUMBER_BYTES]).filter(|end| is_readable(end))?,
        };
        loop {
            let middle = middle(&bad, &good);
            if middle == bad || middle == good {
                return Some(good.to_vec());
            }
            match is_readable(&middle) {
                true => good = middle,
                false => bad = middle,
            }
        }
    }
}

/// Without what makes RocksDB refuse a damaged store.
fn options() -> Options {
    let mut options = super::db_options();
    options.create_if_missing(false);
    options.create_missing_column_families(false);
    options.set_paranoid_checks(false);
    options.set_wal_recovery_mode(DBRecoveryMode::SkipAnyCorruptedRecord);
    options
}

/// The columns that are there; `default` is opened with them, and is empty.
fn columns_of(options: &Options, dir: &Path) -> Result<Vec<Column>, StoreError> {
    let there = DB::list_cf(options, dir).map_err(engine(dir, "read the columns"))?;
    let columns = Column::ALL.into_iter();
    let columns = columns.filter(|column| there.iter().any(|name| name == column.name()));
    Ok(columns.collect())
}

/// The file that an error of RocksDB names.
fn file_of(why: &str) -> Option<String> {
    let words = why.split(|c: char| c.is_whitespace() || c == '/' || c == ',');
    let mut files = words.filter(|word| word.ends_with(".sst"));
    files.next_back().map(str::to_owned)
}

/// Keys as numbers, so that there is a middle between two. Longer ones are told apart by their beginnings.
const NUMBER_BYTES: usize = 96;
type Number = [u8; NUMBER_BYTES];

fn number(key: &[u8]) -> Number {
    let mut number = [0; NUMBER_BYTES];
    let length = key.len().min(NUMBER_BYTES);
    number[..length].copy_from_slice(&key[..length]);
    number
}

/// A number and a power of two; `None` beyond the largest.
fn plus(number: &Number, bit: usize) -> Option<Number> {
    let mut sum = *number;
    let mut carry = 1u16 << (bit % 8);
    for byte in sum[..NUMBER_BYTES - bit / 8].iter_mut().rev() {
        carry += u16::from(*byte);
        *byte = carry as u8;
        carry >>= 8;
        if carry == 0 {
            return Some(sum);
        }
    }
    None
}

/// Between two numbers, rounded down.
fn middle(a: &Number, b: &Number) -> Number {
    let (mut sum, mut carry) = ([0; NUMBER_BYTES], 0u16);
    for at in (0..NUMBER_BYTES).rev() {
        carry += u16::from(a[at]) + u16::from(b[at]);
        sum[at] = carry as u8;
        carry >>= 8;
    }
    for byte in &mut sum {
        let odd = *byte & 1;
        *byte = *byte >> 1 | (carry as u8) << 7;
        carry = odd.into();
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_a_middle_and_steps() {
        let (low, high) = (number(&[1]), number(&[4]));
        assert_eq!(middle(&low, &high), number(&[2, 128]));
        assert_eq!(middle(&low, &low), low);
        let mut most = [0xff; NUMBER_BYTES];
        assert_eq!(middle(&most, &most), most);
        assert_eq!(plus(&most, 0), None);
        most[NUMBER_BYTES - 1] = 0;
        assert_eq!(plus(&most, 8), None);
        assert_eq!(
            plus(&number(&[1, 255]), (NUMBER_BYTES - 2) * 8),
            Some(number(&[2, 0]))
        );
    }

    #[test]
    fn the_file_is_the_one_that_an_error_names() {
        let why = "Corruption: block checksum mismatch: stored = 1, computed = 2, type = 4  in /data/000012.sst offset 0 size 91";
        assert_eq!(file_of(why).as_deref(), Some("000012.sst"));
        assert_eq!(file_of("Corruption: truncated"), None);
    }
}
