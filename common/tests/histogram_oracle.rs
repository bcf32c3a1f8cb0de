//! The histogram against HdrHistogram, whose bucket boundaries it shares, and merging against recording.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use hdrhistogram::Histogram as Hdr;
use leeward_common::histogram::{Histogram, MAX_US, Schema};
use proptest::prelude::*;
use support::{any_rtt, any_schema};

fn oracle(schema: Schema) -> Hdr<u64> {
    let digits = match schema {
        Schema::TwoDigits => 2,
        Schema::ThreeDigits => 3,
    };
    Hdr::new_with_bounds(1, MAX_US.into(), digits).unwrap()
}

fn recorded(schema: Schema, values: &[u32]) -> Histogram {
    let mut histogram = Histogram::new(schema);
    values.iter().for_each(|&value| histogram.record(value));
    histogram
}

/// Why a dense one is not kept for each path.
#[test]
fn a_dense_histogram_of_three_digits_takes_68_kib() {
    let dense: Hdr<u32> = Hdr::new_with_bounds(1, MAX_US.into(), 3).unwrap();
    assert_eq!(
        (dense.distinct_values(), dense.distinct_values() * 4),
        (17_408, 68 << 10)
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn buckets_are_those_of_hdr(schema in any_schema(), value in any_rtt()) {
        let (oracle, value) = (oracle(schema), value.min(MAX_US));
        let slot = schema.slot(value);
        prop_assert_eq!(u64::from(schema.lowest(slot)), oracle.lowest_equivalent(value.into()));
        prop_assert_eq!(u64::from(schema.highest(slot)), oracle.highest_equivalent(value.into()));
        prop_assert!((schema.lowest(slot)..=schema.highest(slot)).contains(&schema.middle(slot)));
        prop_assert!(slot < schema.slots());
    }

    #[test]
    fn quantiles_lie_in_the_bucket_that_hdr_names(
        schema in any_schema(),
        values in prop::collection::vec(any_rtt(), 1..200),
        q in prop_oneof![0.0..=1.0, Just(0.0), Just(0.5), Just(0.99), Just(1.0)],
    ) {
        let mut oracle = oracle(schema);
        for &value in &values {
            oracle.record(value.min(MAX_US).into()).unwrap();
        }
        let ours = recorded(schema, &values).quantile(q).unwrap();
        let theirs = oracle.value_at_quantile(q);
        prop_assert_eq!(oracle.lowest_equivalent(ours.into()), oracle.lowest_equivalent(theirs));
    }

    #[test]
    fn merging_is_recording_everything(
        schema in any_schema(),
        parts in prop::collection::vec(prop::collection::vec(any_rtt(), 0..60), 0..5),
    ) {
        let mut merged = Histogram::new(schema);
        for part in &parts {
            merged.merge(&recorded(schema, part)).unwrap();
        }
        prop_assert_eq!(merged, recorded(schema, &parts.concat()));
    }

    #[test]
    fn merging_knows_no_order_and_no_grouping(
        schema in any_schema(),
        parts in prop::array::uniform3(prop::collection::vec(any_rtt(), 0..60)),
    ) {
        let [a, b, c] = parts.map(|part| recorded(schema, &part));
        let merge = |a: &Histogram, b: &Histogram| {
            let mut merged = a.clone();
            merged.merge(b).unwrap();
            merged
        };
        prop_assert_eq!(merge(&a, &b), merge(&b, &a));
        prop_assert_eq!(merge(&merge(&a, &b), &c), merge(&a, &merge(&b, &c)));
    }

    #[test]
    fn a_histogram_is_read_as_it_was_written(schema in any_schema(), values in prop::collection::vec(any_rtt(), 0..60)) {
        let histogram = recorded(schema, &values);
        let json = serde_json::to_string(&histogram).unwrap();
        prop_assert_eq!(serde_json::from_str::<Histogram>(&json).unwrap(), histogram.clone());
        let bytes = rmp_serde::to_vec_named(&histogram).unwrap();
        prop_assert_eq!(rmp_serde::from_slice::<Histogram>(&bytes).unwrap(), histogram);
    }
}

#[test]
fn every_bucket_borders_on_the_next() {
    for schema in [Schema::TwoDigits, Schema::ThreeDigits] {
        for slot in 0..schema.slots() - 1 {
            assert_eq!(schema.highest(slot) + 1, schema.lowest(slot + 1));
            assert_eq!(schema.slot(schema.lowest(slot)), slot);
            assert_eq!(schema.slot(schema.highest(slot)), slot);
        }
        assert_eq!(schema.slot(u32::MAX), schema.slots() - 1);
    }
}

#[test]
fn a_full_count_stays_full() {
    let mut histogram = Histogram::new(Schema::TwoDigits);
    histogram.add(7, u32::MAX);
    let other = histogram.clone();
    histogram.merge(&other).unwrap();
    assert_eq!(histogram.buckets(), [(7, u32::MAX)]);
}

#[test]
fn different_schemas_do_not_merge() {
    let mut histogram = recorded(Schema::TwoDigits, &[1, 2]);
    let before = histogram.clone();
    assert!(
        histogram
            .merge(&recorded(Schema::ThreeDigits, &[3]))
            .is_err()
    );
    assert_eq!(histogram, before);
}

#[test]
fn what_is_no_histogram_is_not_read_as_one() {
    for buckets in [
        "[[1,0]]",
        "[[2,1],[1,1]]",
        "[[1,1],[1,1]]",
        "[[65535,1]]",
        "[[2500,1],[3000,1]]",
    ] {
        let json = format!("{{\"schema\":\"TwoDigits\",\"buckets\":{buckets}}}");
        assert!(serde_json::from_str::<Histogram>(&json).is_err(), "{json}");
    }
}
