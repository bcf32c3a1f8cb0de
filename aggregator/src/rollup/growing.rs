//! The sum of one path's reports while they come one after the other: as [`Sum`], and made to be added to quickly.

use leeward_common::{histogram::Schema, report::Report, tally::Tally};

use super::sum::{OneWay, Sum};

/// See the module's documentation.
#[derive(Debug)]
pub struct Growing {
    reports: u64,
    scheduled: u64,
    classes: [u64; 8],
    overdue: u64,
    rtt: Tally,
    /// What is added to seldom: directions, and reports of another schema.
    rest: Option<Box<Sum>>,
}

impl Growing {
    /// Of nothing yet; most reports are of this schema.
    #[must_use]
    pub const fn new(schema: Schema) -> Self {
        Self {
            reports: 0,
            scheduled: 0,
            classes: [0; 8],
            overdue: 0,
            rtt: Tally::new(schema),
            rest: None,
        }
    }

    /// Adds a report.
    pub fn report(&mut self, report: &Report) {
        if self.rtt.add(&report.rtt).is_err() {
            self.rest().report(report);
            return;
        }
        let counts = &report.counts;
        self.reports += 1;
        self.scheduled += u64::from(counts.scheduled);
        for (sum, count) in self.classes.iter_mut().zip(counts.classes) {
            *sum += u64::from(count);
        }
        self.overdue += u64::from(counts.overdue);
        if let Some(told) = &counts.one_way {
            let own = self.rest().one_way.get_or_insert_default();
            own.add(&OneWay::from(told));
        }
    }

    fn rest(&mut self) -> &mut Sum {
        let schema = self.rtt.schema();
        self.rest.get_or_insert_with(|| Box::new(Sum::new(schema)))
    }

    /// What it has come to.
    #[must_use]
    pub fn sum(&self) -> Sum {
        let mut sum = Sum {
            reports: self.reports,
            scheduled: self.scheduled,
            classes: self.classes,
            overdue: self.overdue,
            rtt: (&self.rtt).into(),
            one_way: None,
        };
        if let Some(rest) = &self.rest {
            sum.add(rest);
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollup::sum::tests::{any_report, sum_of};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_comes_to_the_same_as_a_sum(
            reports in prop::collection::vec(any_report(Schema::TwoDigits), 0..80),
            finer in prop::collection::vec(any_report(Schema::ThreeDigits), 0..3),
        ) {
            let reports = [reports, finer].concat();
            let mut growing = Growing::new(Schema::TwoDigits);
            reports.iter().for_each(|report| growing.report(report));
            prop_assert_eq!(growing.sum(), sum_of(Schema::TwoDigits, &reports));
        }
    }
}
