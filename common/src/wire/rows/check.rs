//! What must hold of a report: nothing that contradicts itself is written or read.

use std::time::Duration;

use super::{Why, samples};
use crate::{
    histogram::{MAX_US, Schema},
    report::{Counts, Report, Rtt, Silence, Variation},
};

/// What must hold of a report so that it can be written.
pub(super) fn check(schema: Schema, report: &Report) -> Result<(), Why> {
    let Report { counts, rtt } = report;
    check_silence(counts)?;
    check_one_way(counts)?;
    if rtt.histogram.schema() != schema {
        return Err("its histogram is of another schema than the batch");
    }
    let samples = samples(counts);
    if rtt.histogram.count() != samples {
        return Err(
            "its histogram holds another number of samples than replied + late + duplicate + refused",
        );
    }
    let ([(first, _), ..], [.., (last, _)]) = (rtt.histogram.buckets(), rtt.histogram.buckets())
    else {
        return if (rtt.min_us, rtt.max_us, rtt.sum_us) == (0, 0, 0) {
            Ok(())
        } else {
            Err("it has a minimum, maximum or sum but no samples")
        };
    };
    if schema.slot(rtt.min_us) != *first || schema.slot(rtt.max_us) != *last {
        return Err("its minimum is not in its first bucket or its maximum not in its last");
    }
    check_extremes(rtt, samples)
}

fn check_silence(counts: &Counts) -> Result<(), Why> {
    let Silence { unanswered, lasts } = counts.silence.unwrap_or_default();
    let whole =
        lasts.subsec_nanos().is_multiple_of(1_000) && u64::try_from(lasts.as_micros()).is_ok();
    match unanswered {
        _ if !whole => Err("its silence is not a number of microseconds"),
        0 if lasts != Duration::ZERO => Err("its silence lasts and nothing is unanswered"),
        _ => Ok(()),
    }
}

pub(super) fn check_one_way(counts: &Counts) -> Result<(), Why> {
    let one_way = counts.one_way.unwrap_or_default();
    let possible = |Variation {
                        pairs,
                        sum_us,
                        max_us,
                    }| {
        let max = u64::from(max_us);
        (max..=max * u64::from(pairs)).contains(&sum_us)
    };
    if !possible(one_way.forward.variation) || !possible(one_way.backward.variation) {
        return Err(
            "a delay variation's sum does not lie between what its pairs and maximum allow",
        );
    }
    Ok(())
}

pub(super) fn check_extremes(rtt: &Rtt, samples: u64) -> Result<(), Why> {
    let (min, max) = (u64::from(rtt.min_us), u64::from(rtt.max_us));
    if min > max || rtt.max_us > MAX_US {
        return Err("its minimum exceeds its maximum, or its maximum what can be told apart");
    }
    let others = samples - 1;
    if !(min * others + max..=min + max * others).contains(&rtt.sum_us) {
        return Err("its sum does not lie between what its minimum and maximum allow");
    }
    if samples == 1 && min != max {
        return Err("its single sample is two");
    }
    Ok(())
}
