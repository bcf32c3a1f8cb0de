//! Windows: what became of the probes, path by path, until the window closes. Pure.
//!
//! A window is aligned to UTC and counts what was *learned* within it, whenever the probes were sent; so it is complete
//! the moment it ends, and nobody waits for timeouts. See [`leeward_common::report`]. A path's part of it may be taken
//! earlier; what is counted afterwards is the rest. Beside it stands an account of each flow, over a longer span ([`flows`]).

pub mod flows;

use std::time::Duration;

use leeward_common::{
    histogram::Schema,
    report::{Class, Counts, OneWay, Report, Rtt, Silence, Window},
    time::Timestamp,
};

use crate::{flow::Turn, prober::Plan};
use flows::{FlowSpan, FlowTally};

/// The window in progress.
#[derive(Clone, Debug)]
pub struct Tally {
    window: Window,
    number: u16,
    rows: Vec<Report>,
    flows: FlowTally,
}

impl Tally {
    /// Begins the window that `now` lies in.
    #[must_use]
    pub fn new(now: Timestamp, length: Duration, schema: Schema, paths: usize, flows: u8) -> Self {
        let window = Window {
            start: now.floor(length),
            length,
        };
        Self {
            window,
            number: 0,
            rows: vec![empty(schema); paths],
            flows: FlowTally::new(now, flows, paths),
        }
    }

    /// Begins to count for another plan, in place of [`Self::begin`].
    pub fn replan(&mut self, now: Timestamp, plan: &Plan) {
        let number = self.number.wrapping_add(1);
        *self = Self {
            number,
            ..Self::new(now, plan.window, plan.schema, plan.paths.len(), plan.flows)
        };
    }

    /// The window in progress.
    #[must_use]
    pub const fn window(&self) -> Window {
        self.window
    }

    /// Tells this window from others near it; wraps.
    #[must_use]
    pub const fn number(&self) -> u16 {
        self.number
    }

    /// `count` probes of a path became due.
    pub fn scheduled(&mut self, row: u32, count: u32) {
        let counts = self.counts(row);
        counts.scheduled = counts.scheduled.saturating_add(count);
    }

    /// A probe ended.
    pub fn ended(&mut self, row: u32, turn: Turn, class: Class) {
        self.counts(row).end(class);
        self.flows.ended(row, turn, class, None);
    }

    /// Many probes ended alike.
    pub fn ended_many(&mut self, row: u32, class: Class, count: u32) {
        let total = &mut self.counts(row).classes[class as usize];
        *total = total.saturating_add(count);
    }

    /// A probe ended with a round-trip time in microseconds.
    pub fn ended_with_rtt(&mut self, row: u32, turn: Turn, class: Class, rtt_us: u32) {
        self.flows.ended(row, turn, class, Some(rtt_us));
        let report = &mut self.rows[row as usize];
        report.counts.end(class);
        report.rtt.record(rtt_us);
    }

    /// A probe that ended as replied *in this window* was answered again.
    pub fn answered_again(&mut self, row: u32) {
        let counts = self.counts(row);
        let replied = &mut counts.classes[Class::Replied as usize];
        debug_assert!(
            *replied > 0,
            "only what this window counted as replied is answered again"
        );
        *replied = replied.saturating_sub(1);
        counts.end(Class::Duplicate);
    }

    /// A probe's deadline passed without an answer.
    pub fn overdue(&mut self, row: u32) {
        let counts = self.counts(row);
        counts.overdue = counts.overdue.saturating_add(1);
    }

    /// What is told of a path's directions.
    pub fn one_way(&mut self, row: u32) -> &mut OneWay {
        self.counts(row).one_way.get_or_insert_default()
    }

    /// Closes the window: the rows of all paths that had a probe scheduled, ended, overdue or open, ascending. `standing`
    /// tells how each path stands.
    pub fn close(&mut self, standing: impl Fn(u32) -> Standing) -> (Window, Vec<(u32, Report)>) {
        let mut rows = Vec::with_capacity(self.rows.len());
        for row in 0..self.rows.len() as u32 {
            let standing = standing(row);
            let counts = self.counts(row);
            counts.open = standing.open;
            if *counts != Counts::default() {
                rows.push((row, self.take(row, standing)));
            }
        }
        (self.window, rows)
    }

    /// What each flow has done, if that is due as the window ends. To be called before the next one begins.
    pub fn take_flows(&mut self) -> Option<FlowSpan> {
        self.flows.take(self.window.end())
    }

    /// Takes what a path has counted in this window so far.
    pub fn take(&mut self, row: u32, standing: Standing) -> Report {
        let report = &mut self.rows[row as usize];
        report.counts.open = standing.open;
        report.counts.silence = Some(standing.silence);
        if let Some(lost_pending) = standing.lost_pending {
            report.counts.one_way.get_or_insert_default().lost_pending = lost_pending;
        }
        let taken = report.clone();
        clear(report);
        taken
    }

    /// Begins the next window: the one that follows or, after a step of the clock, the one that `now` lies in.
    pub fn begin(&mut self, start: Begin) {
        self.window.start = match start {
            Begin::Following => self.window.end(),
            Begin::At(now) => now.floor(self.window.length),
        };
        self.number = self.number.wrapping_add(1);
    }

    fn counts(&mut self, row: u32) -> &mut Counts {
        &mut self.rows[row as usize].counts
    }
}

/// How a path stands when its counts are taken.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Standing {
    /// How many of its probes have not ended.
    pub open: u32,
    /// What is unanswered in a row.
    pub silence: Silence,
    /// Lost probes of which a later reply may tell where; `None` of paths without a reflector.
    pub lost_pending: Option<u32>,
}

/// Where the next window begins.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Begin {
    /// Where the last one ended.
    Following,
    /// At the window's boundary at or before this time.
    At(Timestamp),
}

fn empty(schema: Schema) -> Report {
    Report {
        counts: Counts::default(),
        rtt: Rtt::empty(schema),
    }
}

/// Empties a row and keeps its histogram's memory.
fn clear(report: &mut Report) {
    let Report {
        counts,
        rtt:
            Rtt {
                histogram,
                min_us,
                max_us,
                sum_us,
            },
    } = report;
    *counts = Counts::default();
    histogram.clear();
    (*min_us, *max_us, *sum_us) = (0, 0, 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const FIRST: Turn = Turn { flow: 0, nth: 0 };

    fn tally() -> Tally {
        Tally::new(
            Timestamp::from_unix_us(5_250_000),
            SECOND,
            Schema::TwoDigits,
            3,
            1,
        )
    }

    /// One probe of this row is open.
    fn open_in(row: u32) -> impl Fn(u32) -> Standing {
        move |other| Standing {
            open: u32::from(other == row),
            ..Standing::default()
        }
    }

    #[test]
    fn a_part_that_was_taken_is_not_counted_again() {
        let mut tally = tally();
        tally.scheduled(0, 3);
        tally.ended_with_rtt(0, FIRST, Class::Replied, 800);
        let part = tally.take(0, open_in(0)(0));
        tally.ended(0, FIRST, Class::Lost);
        let (_, rows) = tally.close(open_in(0));
        let rest = &rows[0].1;
        assert_eq!((part.counts.scheduled, part.counts.ended()), (3, 1));
        assert_eq!((rest.counts.scheduled, rest.counts.ended()), (0, 1));
        assert!(rest.rtt.histogram.is_empty());
    }

    #[test]
    fn windows_are_aligned_and_follow_each_other() {
        let mut tally = tally();
        assert_eq!(
            tally.window(),
            Window {
                start: Timestamp::from_unix_us(5_000_000),
                length: SECOND
            }
        );
        tally.begin(Begin::Following);
        assert_eq!(tally.window().start, Timestamp::from_unix_us(6_000_000));
        tally.begin(Begin::At(Timestamp::from_unix_us(99_999_999)));
        assert_eq!(tally.window().start, Timestamp::from_unix_us(99_000_000));
    }

    #[test]
    fn a_row_says_what_was_learned_and_the_next_window_begins_empty() {
        let mut tally = tally();
        tally.scheduled(1, 2);
        tally.ended_with_rtt(1, FIRST, Class::Replied, 800);
        let (_, rows) = tally.close(open_in(1));
        let [(1, report)] = rows.as_slice() else {
            panic!("{rows:?}")
        };
        assert_eq!(
            (
                report.counts.scheduled,
                report.counts.of(Class::Replied),
                report.counts.open
            ),
            (2, 1, 1)
        );
        assert_eq!(
            (report.rtt.min_us, report.rtt.max_us, report.rtt.sum_us),
            (800, 800, 800)
        );
        tally.begin(Begin::Following);
        assert_eq!(tally.close(open_in(9)).1, []);
    }

    #[test]
    fn a_path_with_nothing_but_an_open_probe_has_a_row() {
        let (_, rows) = tally().close(open_in(2));
        assert_eq!(rows.iter().map(|&(row, _)| row).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn a_duplicate_takes_the_place_of_its_reply() {
        let mut tally = tally();
        tally.ended_with_rtt(0, FIRST, Class::Replied, 10);
        tally.answered_again(0);
        let (_, rows) = tally.close(open_in(9));
        assert_eq!(
            (
                rows[0].1.counts.of(Class::Replied),
                rows[0].1.counts.of(Class::Duplicate)
            ),
            (0, 1)
        );
        assert_eq!(rows[0].1.rtt.histogram.count(), 1);
    }
}
