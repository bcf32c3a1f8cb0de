//! A history is the sum of what was told, from whatever source and however far the rollups are.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering},
};

use proptest::prelude::*;

use super::*;
use crate::{
    config::Retention,
    rollup::step::{
        self,
        tests::{Journal, Told, any_told, seconds},
    },
    store::{Aside, Health, Store as _, Writes, memory::Memory},
};

const WIDE: step::Limits = step::Limits {
    bytes: usize::MAX,
    sums: 40,
};

fn link() -> Link {
    Link {
        from: RegionId::parse("iad").unwrap(),
        to: RegionId::parse("dub").unwrap(),
        kind: None,
    }
}

/// The journal covers this many seconds.
const SECONDS: u64 = 9_000;

fn plan(from: u64, to: u64, step: u64) -> Plan {
    let now = seconds(2 * SECONDS);
    let span = (seconds(from), seconds(to));
    Plan::new(
        now,
        &Retention::default(),
        span,
        Some(Duration::from_secs(step)),
    )
    .unwrap()
}

/// The points as they should be: agent 0 is in iad, and its first two paths lead to dub.
fn expected(told: &[Told], plan: &Plan) -> Points {
    let mut points: Points = BTreeMap::new();
    for one in told.iter().filter(|one| one.agent == 0) {
        let Some(point) = plan.point(seconds(one.window)) else {
            continue;
        };
        for report in one.reports.iter().take(2) {
            let into = points.entry(point);
            into.or_insert_with(|| Sum::new(Schema::default()))
                .report(report);
        }
    }
    points
}

/// Takes so many writes.
struct Some_(Memory, AtomicUsize);

impl Aside for Some_ {
    fn write(&self, writes: &Writes) -> Result<(), StoreError> {
        match self
            .1
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                left.checked_sub(1)
            }) {
            Ok(_) => self.0.write(writes),
            Err(_) => Err(StoreError::Told),
        }
    }

    fn health(&self) -> Result<Health, StoreError> {
        self.0.health()
    }

    fn copy_to(&self, dir: &std::path::Path) -> Result<(), StoreError> {
        self.0.copy_to(dir)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    /// At every step, from the journal, minutes or hours, also while a step of the rollups is half written.
    #[test]
    fn points_are_the_sums_of_all_reports(
        told in prop::collection::vec(any_told(), 0..40),
        folded in 0usize..40,
        writes in 0usize..20,
        step in prop::sample::select(vec![7u64, 60, 300, 3_600]),
        (from, span) in (0u64..SECONDS, 60u64..SECONDS),
    ) {
        let mut journal = Journal::new();
        let folded = folded.min(told.len());
        told[..folded].iter().for_each(|told| journal.append(told));
        let aside = Some_(journal.store.clone(), AtomicUsize::new(writes));
        let until = seconds(1 << 20);
        while step::step(&journal.store, &aside, until, (WIDE, 3), &mut || true).is_ok_and(|done| done.more) {}
        told[folded..].iter().for_each(|told| journal.append(told));
        let plan = plan(from, from + span, step);
        let found = read(&journal.store, &link(), &plan, LIMITS, &|| true).unwrap();
        prop_assert_eq!(found.unreadable, 0);
        prop_assert_eq!(found.points, expected(&told, &plan));
    }
}

#[test]
fn too_much_is_refused_by_what_there_is_too_much_of() {
    let mut journal = Journal::new();
    let report = crate::rollup::sum::tests::report(Schema::TwoDigits, &[70_000, 80_000], 0, None);
    for window in 0..10 {
        journal.append(&Told {
            agent: 0,
            window,
            after: 0,
            reports: vec![report.clone()],
        });
    }
    let plan = plan(0, 60, 1);
    let read = |store: &dyn Read, limits| match read(store, &link(), &plan, limits, &|| true) {
        Err(Failure::TooMuch(what)) => what,
        other => panic!("{other:?}"),
    };
    for (limits, what) in [
        (
            Limits {
                records: 5,
                ..LIMITS
            },
            "records",
        ),
        (
            Limits {
                bytes: 100,
                ..LIMITS
            },
            "bytes",
        ),
        (
            Limits {
                buckets: 5,
                ..LIMITS
            },
            "filled buckets",
        ),
    ] {
        assert_eq!(read(&journal.store, limits), what);
    }
    // Rows are looked for in every hour of these ages.
    let ages = Plan {
        start: Timestamp::EPOCH,
        end: Timestamp::EPOCH + Duration::from_secs(8_000 * 365 * 86_400),
        step: Duration::from_secs(400 * 86_400),
        source: Source::Rollup(Grain::Hour),
    };
    let few = Limits {
        rows: 1_000,
        ..LIMITS
    };
    let found = super::read(&journal.store, &link(), &ages, few, &|| true);
    assert!(matches!(found, Err(Failure::TooMuch("rows"))), "{found:?}");
    // Where minutes will do, there are minutes.
    let aside = Some_(journal.store.clone(), AtomicUsize::new(usize::MAX));
    let until = seconds(1 << 20);
    step::step(&journal.store, &aside, until, (WIDE, 3), &mut || true).unwrap();
    let few = Limits {
        records: 5,
        ..LIMITS
    };
    let minutes = plan.by_minutes().unwrap();
    let (read, found) = read_or(&journal.store, &link(), (plan, Some(minutes)), few, &|| {
        true
    })
    .unwrap();
    assert_eq!((read, found.points.len()), (minutes, 1));
    let found = read_or(&journal.store, &link(), (plan, None), few, &|| true);
    assert!(
        matches!(found, Err(Failure::TooMuch("records"))),
        "{found:?}"
    );
    let given_up = super::read(
        &journal.store,
        &link(),
        &plan,
        Limits {
            records: 4_097,
            ..LIMITS
        },
        &|| false,
    );
    assert!(matches!(given_up, Err(Failure::GivenUp)), "{given_up:?}");
}

#[test]
fn what_cannot_be_read_is_counted_and_the_rest_is_answered() {
    let mut journal = Journal::new();
    let report = crate::rollup::sum::tests::report(Schema::TwoDigits, &[70_000], 0, None);
    let told = Told {
        agent: 0,
        window: 5,
        after: 0,
        reports: vec![report],
    };
    journal.append(&told);
    let key = Position::at(seconds(9)).key();
    journal
        .store
        .put(Column::Journal, &key, b"\x81\xa5batch\xc1");
    let plan = plan(0, 60, 1);
    let found = read(&*journal.store.reader(), &link(), &plan, LIMITS, &|| true).unwrap();
    assert_eq!(found.unreadable, 1);
    assert_eq!(found.points, expected(&[told], &plan));
}
