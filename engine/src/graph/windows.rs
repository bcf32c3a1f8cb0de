//! The last windows of a link, for readers: what all agents of one region measured of another, side by side.

use std::collections::VecDeque;

use leeward_common::{
    histogram::Histogram,
    pile::Pile,
    report::{Class, OneWay, Report, Window},
};
use serde::{Deserialize, Serialize};

use crate::view::{MAX_WINDOWS, RttView, WindowView};

/// From so many reports on they are added up before they are added.
const PILE_FROM: usize = 4;

/// The last windows of a link, oldest first.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(transparent)]
pub(super) struct LinkWindows(VecDeque<LinkWindow>);

/// All agents' evidence of one window of a link.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct LinkWindow {
    window: Window,
    answered: u64,
    unanswered: u64,
    histogram: Histogram,
    min_us: u32,
    max_us: u32,
    /// Of paths that tell directions apart.
    #[serde(default)]
    one_way: Option<OneWay>,
    /// The half, nine tenths and 99 hundredths of the times, while nothing is added; `None` before that is known.
    #[serde(skip)]
    quantiles: Option<Option<[u32; 3]>>,
}

impl LinkWindows {
    /// Adds reports of one window.
    pub(super) fn add(&mut self, window: Window, reports: &[(u32, Report)], pile: &mut Pile) {
        let Some((_, first)) = reports.first() else {
            return;
        };
        let Self(windows) = self;
        let mut at = windows.len();
        if windows.back().is_some_and(|last| last.window >= window) {
            at = windows.partition_point(|other| other.window < window);
        }
        if windows.get(at).is_none_or(|other| other.window != window) {
            let empty = Histogram::new(first.rtt.histogram.schema());
            windows.insert(at, LinkWindow::new(window, empty));
        }
        let own = &mut windows[at];
        match reports.len() {
            0..PILE_FROM => reports.iter().for_each(|(_, report)| own.add(report)),
            _ => own.add_all(reports, pile),
        }
        if windows.len() > MAX_WINDOWS {
            windows.pop_front();
        }
    }

    /// What readers see of them.
    pub(super) fn view(&mut self) -> Vec<WindowView> {
        self.0.iter_mut().map(LinkWindow::view).collect()
    }
}

impl LinkWindow {
    const fn new(window: Window, histogram: Histogram) -> Self {
        Self {
            window,
            answered: 0,
            unanswered: 0,
            histogram,
            min_us: u32::MAX,
            max_us: 0,
            one_way: None,
            quantiles: None,
        }
    }

    fn add(&mut self, report: &Report) {
        self.count(report);
        let rtt = &report.rtt;
        // Windows of another schema, after a change of the policy, count without their times.
        if !rtt.histogram.is_empty() && self.histogram.merge(&rtt.histogram).is_ok() {
            self.min_us = self.min_us.min(rtt.min_us);
            self.max_us = self.max_us.max(rtt.max_us);
        }
    }

    /// As [`Self::add`] of one after the other.
    fn add_all(&mut self, reports: &[(u32, Report)], pile: &mut Pile) {
        pile.restart(self.histogram.schema());
        for (_, report) in reports {
            self.count(report);
            let rtt = &report.rtt;
            if !rtt.histogram.is_empty() && pile.add(&rtt.histogram).is_ok() {
                self.min_us = self.min_us.min(rtt.min_us);
                self.max_us = self.max_us.max(rtt.max_us);
            }
        }
        let all = pile.histogram();
        self.histogram
            .merge(&all)
            .expect("the pile has the schema of the window");
    }

    fn count(&mut self, report: &Report) {
        let counts = &report.counts;
        let late = u64::from(counts.of(Class::Late));
        let rejected = u64::from(counts.of(Class::IcmpError));
        self.quantiles = None;
        self.answered += counts.answered() + late;
        self.unanswered += u64::from(counts.overdue).saturating_sub(late) + rejected;
        if let Some(one_way) = &counts.one_way {
            self.one_way.get_or_insert_default().add(one_way);
        }
    }

    fn view(&mut self) -> WindowView {
        let histogram = &self.histogram;
        let quantiles = self
            .quantiles
            .get_or_insert_with(|| histogram.quantiles([0.5, 0.9, 0.99]));
        // Not `clamp`: an agent's smallest may exceed its largest, and that must not end us.
        let within = |middle: u32| middle.max(self.min_us).min(self.max_us);
        let rtt = quantiles.map(|quantiles| {
            let [p50_us, p90_us, p99_us] = quantiles.map(within);
            RttView {
                min_us: self.min_us,
                p50_us,
                p90_us,
                p99_us,
                max_us: self.max_us,
            }
        });
        WindowView {
            window: self.window,
            answered: self.answered,
            unanswered: self.unanswered,
            rtt,
            one_way: self.one_way,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use leeward_common::{
        histogram::Schema,
        report::{Counts, Direction, Rtt},
        time::Timestamp,
    };
    use proptest::prelude::*;

    use super::*;

    const WINDOW: Window = Window {
        start: Timestamp::EPOCH,
        length: Duration::from_secs(1),
    };

    #[test]
    fn the_directions_of_a_window_are_those_of_all_its_paths_that_tell() {
        let telling = |forward, backward| {
            let direction = |lost| Direction {
                lost,
                ..Direction::default()
            };
            Some(OneWay {
                forward: direction(forward),
                backward: direction(backward),
                lost_unknown: 1,
                lost_pending: 0,
            })
        };
        let mut of_link = LinkWindow::new(WINDOW, Histogram::new(Schema::TwoDigits));
        let mut add = |one_way| {
            let report = Report {
                counts: Counts {
                    one_way,
                    ..Counts::default()
                },
                rtt: Rtt::empty(Schema::TwoDigits),
            };
            of_link.add(&report);
            of_link.view().one_way
        };
        assert_eq!(add(None), None);
        assert_eq!(add(telling(2, 0)), telling(2, 0));
        let sum = OneWay {
            lost_unknown: 2,
            ..telling(3, 4).unwrap()
        };
        assert_eq!(add(telling(1, 4)), Some(sum));
        assert_eq!(add(None), Some(sum));
    }

    proptest! {
        /// Many reports added at once are the same reports one by one, those of another schema among them.
        #[test]
        fn reports_at_once_are_reports_one_by_one(
            told in prop::collection::vec((any::<bool>(), prop::collection::vec(1u32..300_000, 0..12), 0u32..5), 1..20),
        ) {
            let report = |(fine, times, overdue): &(bool, Vec<u32>, u32)| {
                let mut counts = Counts { overdue: *overdue, ..Counts::default() };
                let mut rtt = Rtt::empty(if *fine { Schema::ThreeDigits } else { Schema::TwoDigits });
                for &us in times {
                    counts.end(Class::Replied);
                    rtt.record(us);
                }
                (0, Report { counts, rtt })
            };
            let reports: Vec<_> = told.iter().map(report).collect();
            let mut pile = Pile::default();
            let (mut at_once, mut one_by_one) = (LinkWindows::default(), LinkWindows::default());
            at_once.add(WINDOW, &reports, &mut pile);
            for one in reports.chunks(1) {
                one_by_one.add(WINDOW, one, &mut pile);
                one_by_one.view();
            }
            prop_assert_eq!(at_once.view(), one_by_one.view());
        }
    }
}
