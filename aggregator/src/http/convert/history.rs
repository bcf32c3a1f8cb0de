//! What a link did over a span of time.

use leeward_common::{
    api::v1::{Direction, Directions, HistoryPoint, HistoryRtt, HistorySource, LinkHistory},
    histogram::Schema,
    ratio::Ratio,
    report::Class,
    time::Timestamp,
};

use crate::{
    history::{
        plan::{Plan, Source},
        read::{Link, Points},
    },
    rollup::sum::{self, Distribution, Sum},
    store::key::path::Grain,
};

/// A history without its points.
#[must_use]
pub fn history(now: Timestamp, link: &Link, plan: &Plan, quantiles: &[f64]) -> LinkHistory {
    LinkHistory {
        from: link.from.clone(),
        to: link.to.clone(),
        kind: link.kind,
        start: plan.start.into(),
        end: plan.end.into(),
        step_ms: super::milliseconds(plan.step),
        source: match plan.source {
            Source::Raw => HistorySource::Raw,
            Source::Rollup(Grain::Minute) => HistorySource::Minute,
            Source::Rollup(Grain::Hour) => HistorySource::Hour,
        },
        evaluated_at: now.into(),
        quantiles: quantiles.to_vec(),
        edges_us: None,
        unreadable: 0,
        points: Vec::new(),
    }
}

/// One point.
#[must_use]
pub fn history_point(
    start: Timestamp,
    sum: &Sum,
    quantiles: &[f64],
    edges_us: Option<&[u32]>,
) -> HistoryPoint {
    let (answered, unanswered) = (sum.answered(), sum.unanswered());
    HistoryPoint {
        start: start.into(),
        reports: sum.reports,
        scheduled: sum.scheduled,
        answered,
        late: sum.of(Class::Late),
        unanswered,
        loss_ratio: Ratio::of(unanswered, answered.saturating_add(unanswered)),
        rtt: sum.rtt.mean_us().map(|mean_us| HistoryRtt {
            min_us: sum.rtt.min_us,
            // Finer than a nanosecond is nothing that anybody measured.
            mean_us: (mean_us * 1_000.0).round() / 1_000.0,
            max_us: sum.rtt.max_us,
            quantiles_us: quantiles
                .iter()
                .filter_map(|q| sum.rtt.quantile_us(*q))
                .collect(),
        }),
        counts: edges_us.map(|edges| counts(&sum.rtt, edges)),
        directions: sum.one_way.as_ref().map(directions),
    }
}

/// The rows of a heat map of at most `rows`, about equally high on a scale of ratios. They begin and end where buckets do, so
/// every sample is in its row. None without samples.
#[must_use]
pub fn edges(points: &Points, rows: u16) -> Vec<u32> {
    let all = || points.values().filter(|sum| !sum.rtt.buckets.is_empty());
    // Boundaries of the coarser schema are those of the finer one too.
    let Some(schema) = all().map(|sum| sum.rtt.schema).min() else {
        return Vec::new();
    };
    let slots = |sum: &Sum| {
        let ends = [sum.rtt.buckets.first(), sum.rtt.buckets.last()];
        ends.map(|end| end.map_or(0, |&(slot, _)| schema.slot(sum.rtt.schema.lowest(slot))))
    };
    let first = all().map(|sum| slots(sum)[0]).min().unwrap_or(0);
    let last = all().map(|sum| slots(sum)[1]).max().unwrap_or(0);
    let height = (last - first + 1).div_ceil(rows.max(1));
    let begins = (first..=last).step_by(height.into());
    let mut edges: Vec<u32> = begins.map(|slot| schema.lowest(slot)).collect();
    edges.push(end(schema, last, height, first));
    edges
}

/// Where the last row ends: as high as the others, but within the schema.
fn end(schema: Schema, last: u16, height: u16, first: u16) -> u32 {
    let rows = (last - first) / height + 1;
    let past = first.saturating_add(rows.saturating_mul(height));
    match past < schema.slots() {
        true => schema.lowest(past),
        false => schema.highest(schema.slots() - 1) + 1,
    }
}

fn counts(rtt: &Distribution, edges: &[u32]) -> Vec<u64> {
    let mut counts = vec![0u64; edges.len().saturating_sub(1)];
    for &(slot, count) in &rtt.buckets {
        let lowest = rtt.schema.lowest(slot);
        let row = edges.partition_point(|&edge| edge <= lowest);
        if let Some(cell) = row.checked_sub(1).and_then(|row| counts.get_mut(row)) {
            *cell = cell.saturating_add(count);
        }
    }
    counts
}

fn directions(one_way: &sum::OneWay) -> Directions {
    let narrow = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
    let direction = |of: &sum::Direction| Direction {
        lost: narrow(of.lost),
        reordered: narrow(of.reordered),
        delay_variation_mean_us: (of.pairs > 0)
            .then(|| of.variation_sum_us as f64 / of.pairs as f64),
        delay_variation_max_us: (of.pairs > 0).then_some(of.variation_max_us),
    };
    Directions {
        forward: direction(&one_way.forward),
        backward: direction(&one_way.backward),
        lost_unknown: narrow(one_way.lost_unknown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollup::sum::tests::{any_report, sum_of};
    use proptest::prelude::*;

    proptest! {
        /// Every reply is in one row of the heat map, whatever the schemas.
        #[test]
        fn every_sample_is_in_its_row(
            two in prop::collection::vec(any_report(Schema::TwoDigits), 1..5),
            three in prop::collection::vec(any_report(Schema::ThreeDigits), 1..5),
            rows in 1u16..200,
        ) {
            let points: Points = [
                (0, sum_of(Schema::TwoDigits, &two)),
                (1, sum_of(Schema::ThreeDigits, &three)),
            ].into();
            let edges = edges(&points, rows);
            prop_assert!(edges.is_sorted_by(|a, b| a < b));
            prop_assert!(edges.len() <= usize::from(rows) + 1);
            for sum in points.values() {
                let counts: u64 = counts(&sum.rtt, &edges).iter().sum();
                prop_assert_eq!(counts, sum.rtt.count());
                if sum.rtt.count() > 0 {
                    prop_assert!(edges[0] <= sum.rtt.min_us && sum.rtt.max_us < edges[edges.len() - 1]);
                }
            }
        }
    }
}
