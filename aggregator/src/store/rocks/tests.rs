//! RocksDB as this store uses it: formats, full disks, whoever else has the directory.

use leeward_testing::SmallDisk;
use rocksdb::statistics::Ticker;

use super::*;
use crate::store::{
    key::Position,
    record::v1,
    tests::{decided, position},
};

#[test]
fn what_was_committed_is_there_after_opening_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut writes = Writes::default();
    writes.decided(position(7), &decided(1));
    Rocks::open(dir.path()).unwrap().commit(&writes).unwrap();
    let store = Rocks::open(dir.path()).unwrap();
    let (key, value) = store.last(Column::Decisions).unwrap().unwrap();
    assert_eq!(Position::from_key(&key), Some(position(7)));
    assert_eq!(v1::decode::<v1::Decided>("decision", &value).unwrap().id, 1);
}

/// A kill leaves what the system was handed, a power failure only what was synced.
#[test]
fn what_is_committed_is_synced() {
    let dir = tempfile::tempdir().unwrap();
    drop(Rocks::open(dir.path()).unwrap());
    let mut options = db_options();
    options.enable_statistics();
    let db = DB::open_cf_descriptors(&options, dir.path(), columns()).unwrap();
    let mut store = Rocks {
        opened: Arc::new(Opened {
            db: ArcSwapOption::from_pointee(db),
            dir: dir.path().to_owned(),
        }),
        before: Weak::new(),
    };
    for id in 1..4 {
        let before = options.get_ticker_count(Ticker::WalFileSynced);
        let mut writes = Writes::default();
        writes.decided(position(id), &decided(id));
        store.commit(&writes).unwrap();
        assert_eq!(options.get_ticker_count(Ticker::WalFileSynced), before + 1);
    }
}

#[test]
fn a_store_is_opened_again_once_its_readers_have_let_go_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Rocks::open(dir.path()).unwrap();
    let mut writes = Writes::default();
    writes.decided(position(1), &decided(1));
    writes.decided(position(2), &decided(2));
    store.commit(&writes).unwrap();
    let reader = store.reader();
    let mut seen = 0;
    let ended = reader.scan(Column::Decisions, &[], &mut |_, _| {
        seen += 1;
        assert!(store.revive().is_err(), "it is being read");
        ControlFlow::Continue(())
    });
    assert!(matches!(ended, Err(StoreError::Failed)));
    assert_eq!(seen, 1);
    store.revive().unwrap();
    assert!(reader.last(Column::Decisions).unwrap().is_some());
}

fn listed(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let read = |entry: std::fs::DirEntry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        (name, std::fs::read(entry.path()).unwrap())
    };
    let mut entries: Vec<_> = entries.map(read).collect();
    entries.sort();
    entries
}

#[test]
fn a_directory_that_is_only_read_is_not_changed_by_a_byte_whoever_writes_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut writes = Writes::default();
    writes.decided(position(7), &decided(1));
    let mut store = Rocks::open(dir.path()).unwrap();
    store.commit(&writes).unwrap();
    let before = listed(dir.path());
    let reader = Rocks::read_only(dir.path()).unwrap();
    assert!(reader.last(Column::Decisions).unwrap().is_some());
    drop(reader);
    assert!(listed(dir.path()) == before, "beside a writer");
    drop(store);
    let before = listed(dir.path());
    drop(Rocks::read_only(dir.path()).unwrap());
    assert!(listed(dir.path()) == before, "alone");
    let nowhere = dir.path().join("nowhere");
    assert!(Rocks::read_only(&nowhere).is_err() && !nowhere.exists());
}

#[test]
fn another_format_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let mut writes = Writes::default();
    writes.meta(FORMAT_KEY, b"leeward-aggregator 2");
    Rocks::open(dir.path()).unwrap().commit(&writes).unwrap();
    let error = Rocks::open(dir.path()).unwrap_err().to_string();
    let expected = "holds \"leeward-aggregator 2\"; this build reads";
    assert!(error.contains(expected), "{error}");
    let error = Rocks::read_only(dir.path()).err().unwrap().to_string();
    assert!(error.contains(expected), "{error}");
}

#[test]
fn somebody_elses_database_is_refused_untouched() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    drop(DB::open_cf(&options, dir.path(), ["windows"]).unwrap());
    let error = Rocks::open(dir.path()).unwrap_err().to_string();
    assert!(error.contains("a column \"windows\""), "{error}");
    assert_eq!(
        DB::list_cf(&Options::default(), dir.path()).unwrap().len(),
        2
    );
}

#[test]
fn a_full_disk_refuses_writes_and_takes_them_again_when_there_is_room() {
    let name = "a_full_disk_refuses_writes_and_takes_them_again_when_there_is_room";
    let dir = tempfile::tempdir().unwrap();
    let Some(small) = SmallDisk::mount(name, &dir.path().join("small"), "96m").unwrap() else {
        return;
    };
    let mut store = Rocks::open(&small.path().join("data")).unwrap();
    let large = |id: u64| {
        let mut writes = Writes::default();
        let explanation = vec![id as u8; 1 << 20];
        writes.decided(
            position(id),
            &v1::Decided {
                explanation,
                ..decided(id)
            },
        );
        writes
    };
    store.commit(&large(1)).unwrap();
    let filler = small.path().join("filler");
    // It takes all that the store has not reserved for its log.
    assert!(std::fs::write(&filler, vec![0; 96 << 20]).is_err());
    let refused = (2..300)
        .find(|&id| store.commit(&large(id)).is_err())
        .expect("the disk is full");
    assert!(store.commit(&large(refused)).is_err());
    assert!(
        store.last(Column::Decisions).unwrap().is_some(),
        "what is there can be read"
    );

    std::fs::remove_file(&filler).unwrap();
    store.revive().unwrap();
    store.commit(&large(refused)).unwrap();
    drop(store);
    let store = Rocks::open(&small.path().join("data")).unwrap();
    let (key, _) = store.last(Column::Decisions).unwrap().unwrap();
    assert_eq!(Position::from_key(&key), Some(position(refused)));
}

#[test]
fn a_directory_in_use_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _held = Rocks::open(dir.path()).unwrap();
    let error = Rocks::open(dir.path()).unwrap_err();
    assert!(
        matches!(
            error,
            StoreError::Engine {
                doing: "open the store",
                ..
            }
        ),
        "{error}"
    );
}
