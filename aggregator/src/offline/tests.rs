//! Whatever byte of a store is another one, it is found, named, and the rest can be read.

use std::{
    collections::BTreeMap,
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use leeward_common::histogram::Schema;
use tempfile::TempDir;

use super::*;
use crate::{
    rollup::{
        step::{
            self,
            tests::{Journal, Told, seconds},
        },
        sum::tests::report,
    },
    store::{
        Read, Store as _, Writes, files,
        rocks::damage::Damaged,
        tests::{decided, position},
    },
};

type Records = BTreeMap<(Column, Vec<u8>), Vec<u8>>;

fn records(store: &dyn Read) -> Records {
    let mut records = Records::new();
    for column in Column::ALL {
        let read = &mut |key: &[u8], value: &[u8]| {
            records.insert((column, key.to_vec()), value.to_vec());
            ControlFlow::Continue(())
        };
        store.scan(column, &[], read).unwrap();
    }
    records
}

/// A journal with its rollups, some hundred records.
fn told(windows: std::ops::Range<u64>, journal: &mut Journal) -> Records {
    let before = records(&journal.store);
    for window in windows {
        journal.append(&Told {
            agent: (window % 2) as usize,
            window: window * 20,
            after: 0,
            reports: vec![
                report(
                    Schema::TwoDigits,
                    &[70_000, 71_000 + window as u32],
                    0,
                    None
                );
                3
            ],
        });
    }
    let limits = (step::LIMITS, step::ROWS);
    step::step(
        &journal.store,
        &journal.store,
        seconds(1 << 20),
        limits,
        &mut || true,
    )
    .unwrap();
    let mut writes = Writes::default();
    writes.decided(position(before.len() as u64), &decided(1));
    journal.store.commit(&writes).unwrap();
    let mut new = records(&journal.store);
    new.retain(|key, value| before.get(key) != Some(value));
    new
}

fn write(store: &mut Rocks, records: &Records) {
    let mut writes = Writes::default();
    for ((column, key), value) in records {
        writes.copied(*column, key, value);
    }
    store.commit(&writes).unwrap();
}

/// A store whose older records are in files, and whose newer ones are in the log.
struct Sample {
    dir: TempDir,
    /// Everything.
    all: Records,
    /// What is in the log alone: the newer ones, and the checksums of the files.
    logged: Records,
}

impl Sample {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::new();
        let mut store = Rocks::open(dir.path()).unwrap();
        write(&mut store, &told(0..300, &mut journal));
        store.compact().unwrap();
        files::note(&store, &*store.aside(), dir.path()).unwrap();
        let mut logged = told(300..360, &mut journal);
        write(&mut store, &logged);
        let mut checksums = records(&store);
        checksums
            .retain(|(column, key), _| *column == Column::Meta && key.starts_with(b"checksum/"));
        assert!(checksums.len() > 3);
        logged.append(&mut checksums);
        Self {
            all: records(&store),
            logged,
            dir,
        }
    }

    /// The same, and the checksums are in a file themselves: as after a restart. That file is the only one of which none is
    /// noted.
    fn restarted() -> Self {
        let sample = Self::new();
        // What is in the log is written out when a store is opened.
        let reopened = || Rocks::open(sample.dir.path()).unwrap();
        let store = reopened();
        files::note(&store, &*store.aside(), sample.dir.path()).unwrap();
        drop(store);
        let store = reopened();
        let (all, logged) = (records(&store), Records::new());
        drop(store);
        Self {
            all,
            logged,
            ..sample
        }
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.dir.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }

    fn files(&self) -> Vec<String> {
        let mut names = self.names();
        names.retain(|name| name.ends_with(".sst") || name.ends_with(".log"));
        names.retain(|name| fs::metadata(self.dir.path().join(name)).unwrap().len() > 0);
        names
    }

    /// A copy with one byte changed.
    fn damaged(&self, file: &str, at: usize) -> TempDir {
        let copy = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(self.dir.path()).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
        let path = copy.path().join(file);
        let mut bytes = fs::read(&path).unwrap();
        bytes[at] ^= 0x41;
        fs::write(path, bytes).unwrap();
        copy
    }

    /// What an undamaged store has and this one may lack, if a byte of this file is another.
    fn at_stake(&self, file: &str) -> Records {
        if file.ends_with(".log") {
            return self.logged.clone();
        }
        let tables = Damaged::read_only(self.dir.path())
            .unwrap()
            .tables()
            .unwrap();
        let table = tables.iter().find(|table| table.name == file).unwrap();
        let is_in = |(column, key): &(Column, Vec<u8>)| {
            column.name() == table.column && (&table.first..=&table.last).contains(&key)
        };
        let mut at_stake = self.all.clone();
        at_stake.retain(|key, _| is_in(key));
        at_stake
    }
}

fn salvaged(from: &Path) -> (Records, restore::Restored) {
    let data = tempfile::tempdir().unwrap();
    let into = data.path().join("data");
    let restored = restore::salvage(from, &into).unwrap();
    assert_eq!(
        fs::read_dir(data.path()).unwrap().count(),
        1,
        "nothing is left beside it"
    );
    (records(&Rocks::open(&into).unwrap()), restored)
}

#[test]
fn a_sound_store_is_found_sound_and_not_changed_by_a_byte() {
    let sample = Sample::new();
    let listed = || {
        let mut files: Vec<(PathBuf, Vec<u8>)> = Vec::new();
        for entry in fs::read_dir(sample.dir.path()).unwrap() {
            let path = entry.unwrap().path();
            files.push((path.clone(), fs::read(path).unwrap()));
        }
        files.sort();
        files
    };
    let before = listed();
    let verified = verify::verify(sample.dir.path()).unwrap();
    assert_eq!(verified.findings, []);
    assert!(verified.files_checked > 3, "{verified}");
    let readable: u64 = verified.readable.iter().map(|(_, count)| count).sum();
    assert_eq!(readable, sample.all.len() as u64);
    assert!(listed() == before);
    let text = verified.to_string();
    assert!(text.ends_with("all is well\n"), "{text}");
}

#[test]
fn whatever_byte_is_another_it_is_found_and_its_file_named() {
    let sample = Sample::new();
    let files = sample.files();
    assert!(files.len() > 5, "{files:?}");
    let mut flipped = 0;
    for file in &files {
        let length = fs::metadata(sample.dir.path().join(file)).unwrap().len() as usize;
        let places = (0..10).map(|part| length * part / 10);
        for at in places.chain([1, length / 3 + 1, length - 60, length - 20, length - 1]) {
            let copy = sample.damaged(file, at.min(length - 1));
            let verified = verify::verify(copy.path()).unwrap();
            let named = verified.findings.iter();
            let named = named
                .filter(|finding| finding.file.as_ref() == Some(file))
                .count();
            assert!(named > 0, "byte {at} of {file}: {verified}");
            assert!(
                verified
                    .findings
                    .iter()
                    .all(|finding| !finding.affects.is_empty())
            );
            flipped += 1;
        }
    }
    assert!(flipped > 60);
    for file in ["CURRENT", "MANIFEST"] {
        let mut names = sample.names().into_iter();
        let name = names.find(|name| name.starts_with(file)).unwrap();
        let verified = verify::verify(sample.damaged(&name, 5).path()).unwrap();
        assert!(!verified.findings.is_empty(), "{name}");
    }
}

/// What is there of a store with this byte changed, and what that must be.
fn check_damaged(sample: &Sample, file: &str, at: usize) {
    let copy = sample.damaged(file, at);
    let verified = verify::verify(copy.path()).unwrap();
    let is_named = verified
        .findings
        .iter()
        .any(|finding| finding.file.as_deref() == Some(file));
    assert!(is_named, "byte {at} of {file}: {verified}");
    let (saved, restored) = salvaged(copy.path());
    let at_stake = match file.ends_with(".sst") || file.ends_with(".log") {
        true => sample.at_stake(file),
        false => Records::new(),
    };
    for (key, value) in &sample.all {
        let (column, bytes) = key;
        assert!(
            saved.get(key) == Some(value) || at_stake.contains_key(key),
            "byte {at} of {file}: {} {} is gone: {restored}",
            column.name(),
            describe(*column, bytes)
        );
    }
}

/// Any byte of any file that a store is read from, wherever the checksums are: it is found, its file is named, and the rest
/// can be read.
#[test]
fn any_byte_of_any_file_is_found_and_named_and_the_rest_is_saved() {
    let samples = [Sample::new(), Sample::restarted()];
    let files = samples.each_ref().map(|sample| {
        let mut files = sample.files();
        let lists = sample.names().into_iter();
        files.extend(lists.filter(|name| name == "CURRENT" || name.starts_with("MANIFEST-")));
        files
    });
    bolero::check!()
        .with_iterations(120)
        .with_type::<(bool, u16, u32)>()
        .for_each(|&(is_restarted, file, at)| {
            let sample = &samples[usize::from(is_restarted)];
            let files = &files[usize::from(is_restarted)];
            let file = &files[usize::from(file) % files.len()];
            let length = fs::metadata(sample.dir.path().join(file)).unwrap().len();
            check_damaged(sample, file, (u64::from(at) % length) as usize);
        });
}

/// RocksDB takes a wrong length in the list of files for the end of a list that a crash cut off.
#[test]
fn a_list_of_files_that_seems_to_end_early_costs_nothing() {
    let sample = Sample::new();
    let names = sample.names();
    let list = names.iter().find(|name| name.starts_with("MANIFEST-"));
    let list = list.unwrap();
    let bytes = fs::read(sample.dir.path().join(list)).unwrap();
    let (mut at, mut lengths) = (0, Vec::new());
    while let Some(header) = bytes.get(at..at + 7) {
        lengths.push(at + 5);
        at += 7 + usize::from(u16::from_le_bytes([header[4], header[5]]));
    }
    assert!(lengths.len() > 12, "{lengths:?}");
    for at in lengths.into_iter().rev().take(12) {
        check_damaged(&sample, list, at);
    }
}

/// Wherever the properties and the index of the file are that holds the checksums themselves.
#[test]
fn the_file_that_holds_the_checksums_is_named_too() {
    let sample = Sample::restarted();
    let tables = Damaged::read_only(sample.dir.path())
        .unwrap()
        .tables()
        .unwrap();
    let metas = tables
        .iter()
        .filter(|table| table.column == Column::Meta.name());
    let mut looked = 0;
    for table in metas {
        let length = fs::metadata(sample.dir.path().join(&table.name))
            .unwrap()
            .len() as usize;
        for at in (0..length).step_by(length / 24) {
            check_damaged(&sample, &table.name, at);
            looked += 1;
        }
    }
    assert!(looked > 24, "{tables:?}");
}

#[test]
fn the_rest_of_a_damaged_store_is_saved() {
    let sample = Sample::new();
    for file in sample.files() {
        let length = fs::metadata(sample.dir.path().join(&file)).unwrap().len() as usize;
        let at_stake = sample.at_stake(&file);
        for at in [3, length / 2, length - 30] {
            let copy = sample.damaged(&file, at);
            let (saved, restored) = salvaged(copy.path());
            for (key, value) in &sample.all {
                // An older version of what is lost may come to light.
                let is_there = saved.get(key) == Some(value);
                let (column, bytes) = key;
                assert!(
                    is_there || at_stake.contains_key(key),
                    "byte {at} of {file}: {} {} is gone: {restored}",
                    column.name(),
                    describe(*column, bytes)
                );
            }
        }
        if at_stake
            .keys()
            .any(|(column, _)| *column == Column::Journal)
            && file.ends_with(".sst")
        {
            // A damaged block takes nothing with it but itself.
            let (saved, restored) = salvaged(sample.damaged(&file, 100).path());
            let lost = at_stake
                .keys()
                .filter(|key| !saved.contains_key(*key))
                .count();
            assert!(
                lost > 0 && lost < at_stake.len() / 2,
                "{lost} of {}: {restored}",
                at_stake.len()
            );
        }
    }
}

#[test]
fn a_backup_is_restored_only_whole_and_over_nothing() {
    let sample = Sample::new();
    let data = tempfile::tempdir().unwrap();
    let into = data.path().join("data");
    restore::restore(sample.dir.path(), &into).unwrap();
    assert_eq!(records(&Rocks::open(&into).unwrap()), sample.all);
    let error = restore::restore(sample.dir.path(), &into)
        .unwrap_err()
        .to_string();
    assert!(error.contains("is not empty"), "{error}");
    let error = restore::restore(data.path(), &data.path().join("other")).unwrap_err();
    assert!(
        error.to_string().contains("is no data directory"),
        "{error}"
    );
    let file = sample.files().remove(0);
    let copy = sample.damaged(&file, 10);
    let error = restore::restore(copy.path(), &data.path().join("third")).unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("is damaged") && error.contains(&file) && error.contains("--damaged"),
        "{error}"
    );
}

#[test]
fn stats_say_what_takes_how_much_and_until_when_it_reaches() {
    let sample = Sample::new();
    let stats = stats::stats(sample.dir.path()).unwrap();
    let journal = &stats.columns[1];
    assert_eq!(journal.column, "journal");
    assert!(
        journal.records >= 300 && journal.file_bytes > 10_000,
        "{stats}"
    );
    assert!(
        journal
            .first
            .as_ref()
            .unwrap()
            .starts_with("2023-11-14T22:13:21"),
        "{stats}"
    );
    assert!(stats.rolled_up_to.is_some() && stats.bytes() > 0);
    assert!(stats.to_string().contains("minutes"), "{stats}");
}
