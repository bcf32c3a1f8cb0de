//! Values that several tests draw: reports as an agent would make them.

#![allow(dead_code, reason = "each test uses a part")]

use std::time::Duration;

use leeward_common::{
    histogram::Schema,
    id::AgentId,
    report::{Class, Direction, LocalHealth, OneWay, Report, Rtt, Silence, Variation, Window},
    time::Timestamp,
    wire::batch::Batch,
};
use proptest::prelude::*;

/// One probe that ended, and its round-trip time if it has one.
pub type End = (Class, u32);

pub fn report(schema: Schema, ends: &[End], scheduled: u32, overdue: u32, open: u32) -> Report {
    let mut report = Report {
        counts: Default::default(),
        rtt: Rtt::empty(schema),
    };
    (
        report.counts.scheduled,
        report.counts.overdue,
        report.counts.open,
    ) = (scheduled, overdue, open);
    for &(class, rtt_us) in ends {
        report.counts.end(class);
        if matches!(
            class,
            Class::Replied | Class::Late | Class::Duplicate | Class::Refused
        ) {
            report.rtt.record(rtt_us);
        }
    }
    report
}

pub fn batch(agent: &str, schema: Schema, rows: Vec<(u32, Report)>) -> Batch {
    let window = Window {
        start: Timestamp::from_unix_us(1_763_000_000_000_000),
        length: Duration::from_secs(1),
    };
    Batch {
        agent: AgentId::parse(agent).expect("a valid id"),
        boot_epoch: 0x0123_4567_89ab_cdef,
        sequence: 17,
        table: 1,
        window,
        until: window.end(),
        health: None,
        schema,
        rows,
    }
}

pub fn any_schema() -> impl Strategy<Value = Schema> {
    prop_oneof![Just(Schema::TwoDigits), Just(Schema::ThreeDigits)]
}

/// Values of every magnitude, the borders among them.
pub fn any_rtt() -> impl Strategy<Value = u32> {
    prop_oneof![
        (0u32..32, any::<u32>()).prop_map(|(shift, value)| value >> shift),
        69_000u32..72_000,
        59_000_000u32..61_000_000,
        Just(0),
        Just(u32::MAX),
    ]
}

pub fn any_report(schema: Schema) -> impl Strategy<Value = Report> {
    let end = (prop::sample::select(Class::ALL.to_vec()), any_rtt());
    let small = prop_oneof![3 => Just(0u32), 2 => 0u32..20, 1 => any::<u32>()];
    (
        prop::collection::vec(end, 0..40),
        small.clone(),
        small.clone(),
        small.clone(),
        prop::option::of((small, any::<u32>())),
        prop::option::weighted(0.3, any_one_way()),
    )
        .prop_map(move |(ends, scheduled, overdue, open, silence, one_way)| {
            let mut report = report(schema, &ends, scheduled, overdue, open);
            report.counts.silence = silence.map(|(unanswered, us)| Silence {
                unanswered,
                lasts: Duration::from_micros(u64::from(us) * u64::from(unanswered.min(1))),
            });
            report.counts.one_way = one_way;
            report
        })
}

fn any_one_way() -> impl Strategy<Value = OneWay> {
    let direction = || {
        (any::<u32>(), 0u32..3, 0u32..50, any::<u32>(), 0.0..=1.0).prop_map(
            |(lost, reordered, pairs, max, between)| {
                let max_us = if pairs == 0 { 0 } else { max };
                let others = u64::from(max_us) * u64::from(pairs.saturating_sub(1));
                let sum_us = u64::from(max_us) + (others as f64 * between) as u64;
                Direction {
                    lost,
                    reordered,
                    variation: Variation {
                        pairs,
                        sum_us,
                        max_us,
                    },
                }
            },
        )
    };
    (direction(), direction(), any::<u32>(), any::<u32>()).prop_map(
        |(forward, backward, lost_unknown, lost_pending)| OneWay {
            forward,
            backward,
            lost_unknown,
            lost_pending,
        },
    )
}

pub fn any_health() -> impl Strategy<Value = LocalHealth> {
    any::<[u32; 7]>().prop_map(|numbers| LocalHealth {
        due: numbers[0],
        not_sent: numbers[1],
        send_errors: numbers[2],
        lateness_mean_us: numbers[3],
        lateness_max_us: numbers[4],
        receive_overflow: numbers[5],
        clock_step_us: numbers[6],
    })
}

pub fn any_batch() -> impl Strategy<Value = Batch> {
    (any_schema(), "[a-z0-9][a-z0-9._-]{0,62}").prop_flat_map(|(schema, agent)| {
        let row = (0u32..4, any_report(schema));
        let key = (
            any::<u64>(),
            any::<u64>(),
            any::<u32>(),
            0u64..1 << 50,
            0usize..4,
            (0u32..=8, prop::option::of(any_health())),
        );
        (Just(agent), key, prop::collection::vec(row, 0..30)).prop_map(move |(agent, key, rows)| {
            let mut next = 0;
            let rows = rows
                .into_iter()
                .map(|(gap, report)| {
                    let row = next + gap;
                    next = row + 1;
                    (row, report)
                })
                .collect();
            let (boot_epoch, sequence, table, start, length, (eighths, health)) = key;
            let length = Duration::from_millis([1, 1_000, 10_000, 60_000][length]);
            let start = Timestamp::from_unix_us(start).floor(length);
            Batch {
                boot_epoch,
                sequence,
                table,
                window: Window { start, length },
                until: start + length * eighths / 8,
                health,
                ..batch(&agent, schema, rows)
            }
        })
    })
}
