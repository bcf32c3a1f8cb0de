//! Rollups of random windows are those of all that the journal holds, whatever is late and wherever it is interrupted.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    io::{BufRead as _, BufReader},
    ops::ControlFlow,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use leeward_common::{
    id::{AgentId, RegionId, TargetId},
    report::{Path, ProbeKind, Report, Window},
    wire::batch::{self, Batch},
};
use proptest::prelude::*;

use super::*;
use crate::{
    rollup::{
        fold::is_late,
        sum::tests::{any_report, report},
    },
    store::{
        Health, Store as _,
        key::{Epoch, from_late, path::PathKey},
        memory::Memory,
        record::v1,
        rocks::Rocks,
    },
};

const SCHEMA: Schema = Schema::TwoDigits;
const BASE_US: u64 = 1_700_000_000_000_000;

/// What the journal is told of.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) agent: usize,
    /// Seconds after the base that the window begins,
    pub(crate) window: u64,
    /// and that it arrives after its end.
    pub(crate) after: u64,
    pub(crate) reports: Vec<Report>,
}

fn agent(number: usize) -> Epoch {
    Epoch {
        agent: AgentId::parse(&format!("agent-{number}")).unwrap(),
        boot: 7,
    }
}

type Regions = [&'static str; 2];

fn region(regions: Regions, number: usize) -> RegionId {
    RegionId::parse(regions[number % 2]).unwrap()
}

/// Two paths to the other region and one to nowhere in particular.
fn paths(regions: Regions, number: usize) -> Vec<Path> {
    let path = |target: &str, kind, region| Path {
        target: TargetId::parse(target).unwrap(),
        kind,
        region,
    };
    let other = Some(region(regions, number + 1));
    vec![
        path("a.v4", ProbeKind::Icmp, other.clone()),
        path("a.v4", ProbeKind::Stamp, other),
        path("outside", ProbeKind::Icmp, None),
    ]
}

pub(crate) fn seconds(seconds: u64) -> Timestamp {
    Timestamp::from_unix_us(BASE_US + seconds * 1_000_000)
}

/// A journal in memory: one agent in each of two regions.
pub(crate) struct Journal {
    pub(crate) store: Memory,
    base: Timestamp,
    regions: Regions,
    end: Option<Position>,
    /// What all rows should be, if everything were folded.
    pub(crate) rows: BTreeMap<(Grain, Vec<u8>), Sum>,
    late: BTreeSet<(Timestamp, Position)>,
    sequence: u64,
}

impl Journal {
    pub(crate) fn new() -> Self {
        Self::of(seconds(0), ["iad", "dub"])
    }

    pub(crate) fn of(base: Timestamp, regions: Regions) -> Self {
        let mut store = Memory::default();
        let mut writes = Writes::default();
        for number in 0..2 {
            writes.table(&agent(number), 1, &paths(regions, number));
        }
        store.commit(&writes).unwrap();
        Self {
            store,
            base,
            regions,
            end: None,
            rows: BTreeMap::new(),
            late: BTreeSet::new(),
            sequence: 0,
        }
    }

    pub(crate) fn append(&mut self, told: &Told) {
        let window = Window {
            start: self.base + Duration::from_secs(told.window),
            length: Duration::from_secs(1),
        };
        let rows = told.reports.iter().cloned();
        let batch = Batch {
            agent: agent(told.agent).agent,
            boot_epoch: 7,
            sequence: self.sequence,
            table: 1,
            window,
            until: window.end(),
            health: None,
            schema: SCHEMA,
            rows: (0..).zip(rows).collect(),
        };
        self.sequence += 1;
        let now = window.end() + Duration::from_secs(told.after);
        let position = self.end.map_or(Position::at(now), |end| end.next(now));
        self.end = Some(position);
        let mut writes = Writes::default();
        writes.journal(
            position,
            &v1::Record::Batch(v1::Batch {
                region: region(self.regions, told.agent),
                bytes: batch::encode(&batch).unwrap(),
            }),
        );
        self.store.commit(&writes).unwrap();
        if is_late(window, position.time) {
            self.late.insert((window.start, position));
        }
        for (path, report) in paths(self.regions, told.agent).iter().zip(&told.reports) {
            let path = PathKey {
                from: region(self.regions, told.agent),
                to: path.region.clone(),
                agent: agent(told.agent).agent,
                target: path.target.clone(),
                kind: path.kind,
                schema: SCHEMA,
            };
            for grain in Grain::ALL {
                let key = (grain, grain.key(window.start, &path.bytes()));
                let row = self.rows.entry(key).or_insert_with(|| Sum::new(SCHEMA));
                row.report(report);
            }
        }
    }

    fn stored(&self) -> BTreeMap<(Grain, Vec<u8>), Sum> {
        let mut rows = BTreeMap::new();
        for grain in Grain::ALL {
            let read = &mut |key: &[u8], value: &[u8]| {
                let (_, path) = grain.parse(key).unwrap();
                let sum = code::decode(path.schema, value).unwrap();
                rows.insert((grain, key.to_vec()), sum);
                ControlFlow::Continue(())
            };
            self.store.scan(grain.column(), &[], read).unwrap();
        }
        rows
    }

    fn stored_late(&self) -> BTreeSet<(Timestamp, Position)> {
        let mut late = BTreeSet::new();
        let read = &mut |key: &[u8], region: &[u8]| {
            assert!(matches!(region, b"iad" | b"dub"));
            late.insert(from_late(key).unwrap());
            ControlFlow::Continue(())
        };
        self.store.scan(Column::Late, &[], read).unwrap();
        late
    }

    fn step(&self, aside: &dyn Aside, limits: Limits, rows: usize) -> Result<Done, StoreError> {
        let until = seconds(1 << 20);
        step(&self.store, aside, until, (limits, rows), &mut || true)
    }
}

pub(crate) fn any_told() -> impl Strategy<Value = Told> {
    // Most arrive at once; some after minutes or hours.
    let after = prop_oneof![4 => 0u64..3, 1 => 0u64..9_000];
    let reports = prop::collection::vec(any_report(SCHEMA), 1..=3);
    (0usize..2, 0u64..9_000, after, reports).prop_map(|(agent, window, after, reports)| Told {
        agent,
        window,
        after,
        reports,
    })
}

/// Lets some writes through; then the process dies, before the write or after it.
struct Dying {
    store: Memory,
    left: AtomicUsize,
    after: bool,
}

impl Aside for Dying {
    fn write(&self, writes: &Writes) -> Result<(), StoreError> {
        let left = self.left.load(Ordering::SeqCst);
        if left == 0 {
            if self.after {
                self.store.write(writes)?;
            }
            return Err(StoreError::Told);
        }
        self.left.store(left - 1, Ordering::SeqCst);
        self.store.write(writes)
    }

    fn health(&self) -> Result<Health, StoreError> {
        self.store.health()
    }

    fn copy_to(&self, dir: &std::path::Path) -> Result<(), StoreError> {
        self.store.copy_to(dir)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    /// The journal grows, steps are taken, and each may die at any of its writes.
    #[test]
    fn rows_are_the_sums_of_all_that_the_journal_holds_whatever_dies_between(
        life in prop::collection::vec(
            (prop::collection::vec(any_told(), 0..12), 0usize..8, any::<bool>(), 1usize..9), 1..12,
        ),
        sums in prop_oneof![Just(1usize), Just(20), Just(1 << 16)],
    ) {
        let mut journal = Journal::new();
        let limits = Limits { bytes: 64 << 20, sums };
        for (told, left, after, rows) in &life {
            told.iter().for_each(|told| journal.append(told));
            let left = AtomicUsize::new(*left);
            let dying = Dying { store: journal.store.clone(), left, after: *after };
            let _ = journal.step(&dying, limits, *rows);
        }
        let mut steps = 0;
        while journal.step(&journal.store, limits, 3).unwrap().more {
            steps += 1;
            prop_assert!(steps < 10_000);
        }
        prop_assert_eq!(journal.stored(), journal.rows.clone());
        prop_assert_eq!(journal.stored_late(), journal.late.clone());
        let again = journal.step(&journal.store, limits, 3).unwrap();
        prop_assert_eq!((again.rows, again.reports, again.more), (0, 0, false));
    }
}

fn told(window: u64, after: u64) -> Told {
    Told {
        agent: 0,
        window,
        after,
        reports: vec![report(SCHEMA, &[70_000], 0, None)],
    }
}

#[test]
fn a_late_report_opens_its_rollups_again() {
    let mut journal = Journal::new();
    journal.append(&told(0, 0));
    journal.step(&journal.store, LIMITS, ROWS).unwrap();
    journal.append(&told(7_200, 0));
    journal.append(&told(0, 7_300));
    let done = journal.step(&journal.store, LIMITS, ROWS).unwrap();
    assert_eq!((done.reports, done.rows), (2, 4));
    let stored = journal.stored();
    assert_eq!(stored, journal.rows);
    assert!(stored.values().any(|sum| sum.reports == 2));
    assert_eq!(journal.stored_late().len(), 1);
}

#[test]
fn what_cannot_be_read_is_counted_and_the_rest_is_summed_up() {
    let mut journal = Journal::new();
    journal.append(&told(0, 0));
    let key = Position::at(seconds(2)).key();
    journal
        .store
        .put(Column::Journal, &key, b"\x81\xa5batch\xc1");
    let (grain, row) = journal.rows.keys().next().unwrap().clone();
    journal.store.put(grain.column(), &row, &[9]);
    let done = journal.step(&journal.store, LIMITS, ROWS).unwrap();
    assert_eq!((done.reports, done.unreadable), (1, 2));
    assert_eq!(journal.stored(), journal.rows);
}

#[test]
fn it_ends_between_two_writes_when_told_to_and_goes_on_later() {
    let mut journal = Journal::new();
    (0..600)
        .step_by(60)
        .for_each(|window| journal.append(&told(window, 0)));
    let left = Cell::new(3);
    let go_on = &mut || {
        left.set(left.get() - 1);
        left.get() > 0
    };
    let until = seconds(10_000);
    let done = step(&journal.store, &journal.store, until, (LIMITS, 2), go_on).unwrap();
    assert_eq!((done.rows, done.more), (4, true));
    assert_eq!(done.folded, At::default());
    while journal.step(&journal.store, LIMITS, 2).unwrap().more {}
    assert_eq!(journal.stored(), journal.rows);
}

/// Where the process that is to be killed finds its store.
const KILLED: &str = "LEEWARD_TEST_KILLED_FOLD";

/// Folds in small steps and small writes until it is killed, and says so step by step.
fn fold_until_killed(dir: &std::path::Path) {
    let store = Rocks::open(dir).unwrap();
    let limits = Limits {
        bytes: 64 << 20,
        sums: 10,
    };
    while step(
        &store,
        &*store.aside(),
        seconds(1 << 20),
        (limits, 2),
        &mut || true,
    )
    .unwrap()
    .more
    {
        println!("step");
    }
    println!("done");
}

/// A process that folds a store on disk is killed -9 at one moment or another, again and again.
#[test]
fn rows_are_exact_however_often_the_process_is_killed() {
    if let Some(dir) = std::env::var_os(KILLED) {
        return fold_until_killed(dir.as_ref());
    }
    let dir = tempfile::tempdir().unwrap();
    let mut journal = Journal::new();
    for window in 0..300 {
        journal.append(&Told {
            agent: window as usize % 2,
            reports: vec![report(SCHEMA, &[70_000, 80_000 + window as u32], 1, Some(5)); 3],
            ..told(window * 37 % 9_000, window % 3 * 50)
        });
    }
    let mut writes = Writes::default();
    for column in Column::ALL {
        let copy = &mut |key: &[u8], value: &[u8]| {
            writes.copied(column, key, value);
            ControlFlow::Continue(())
        };
        journal.store.scan(column, &[], copy).unwrap();
    }
    Rocks::open(dir.path()).unwrap().commit(&writes).unwrap();
    let (mut kills, mut steps) = (0, 1);
    loop {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "rollup::step::tests::rows_are_exact_however_often_the_process_is_killed",
            ])
            .args(["--nocapture", "--test-threads=1"])
            .env(KILLED, dir.path())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut lines = lines.map_while(Result::ok);
        // Later and later, so that each one gets further than the one before.
        let told = lines
            .by_ref()
            .filter(|line| line.ends_with("step") || line.ends_with("done"));
        let last = told.take(steps).last();
        let is_done = last.is_none_or(|line| line.ends_with("done"));
        child.kill().unwrap();
        child.wait().unwrap();
        if is_done {
            break;
        }
        (kills, steps) = (kills + 1, steps + 2);
    }
    assert!(kills >= 4, "{kills} kills");
    let store = Rocks::open(dir.path()).unwrap();
    let done = step(
        &store,
        &*store.aside(),
        seconds(1 << 20),
        (LIMITS, ROWS),
        &mut || true,
    )
    .unwrap();
    assert!(!done.more);
    let mut rows = BTreeMap::new();
    for grain in Grain::ALL {
        let read = &mut |key: &[u8], value: &[u8]| {
            rows.insert((grain, key.to_vec()), code::decode(SCHEMA, value).unwrap());
            ControlFlow::Continue(())
        };
        store.scan(grain.column(), &[], read).unwrap();
    }
    assert_eq!(rows, journal.rows);
}
