//! How late an agent's reports come, whatever its clock says.
//!
//! The lag of a report is its arrival, by the aggregator's clock, minus the end of its window, by the agent's: the
//! clocks' difference plus the way here plus the time it was kept. The first is steady and the second short, so what
//! exceeds the smallest lag of late is the time it was kept. "Of late" is counted in time during which the agent was
//! heard, or a long silence would make its first report afterwards look fresh; and it ends, or a clock that was set
//! back would make its agent look late for ever.

use std::{collections::VecDeque, time::Duration};

use leeward_common::time::Timestamp;
use serde::{Deserialize, Serialize};

/// For how long of being heard a lag is remembered.
const MEMORY: Duration = Duration::from_secs(30);

/// The most that one silence counts as being heard.
const MAX_GAP: Duration = Duration::from_secs(2);

/// The most lags remembered: those of half a minute at the shortest window. They ascend, so there are few.
const MAX_LAGS: usize = 600;

/// The arrivals of one agent's reports.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Arrivals {
    last_at: Timestamp,
    heard: Duration,
    /// Lags that may yet become the smallest: ascending in both.
    lags: VecDeque<(Duration, i64)>,
}

impl Arrivals {
    /// Records the arrival of a window that ended at `end` by the agent's clock; returns its lag in microseconds.
    pub fn on_window(&mut self, now: Timestamp, end: Timestamp) -> i64 {
        if !self.lags.is_empty() {
            self.heard += now.since(self.last_at).min(MAX_GAP);
        }
        self.last_at = now;
        let lag_us = signed(now).saturating_sub(signed(end));
        while self.lags.back().is_some_and(|&(_, lag)| lag >= lag_us) {
            self.lags.pop_back();
        }
        // Of those that arrive in one instant the smallest is enough, in whatever order they are told.
        if self.lags.back().is_none_or(|&(at, _)| at < self.heard) {
            self.lags.push_back((self.heard, lag_us));
        }
        while self.lags.len() > MAX_LAGS
            || self
                .lags
                .front()
                .is_some_and(|&(at, _)| self.heard.saturating_sub(at) > MEMORY)
        {
            self.lags.pop_front();
        }
        lag_us
    }

    /// The smallest lag of late, microseconds; may be negative.
    #[must_use]
    pub fn quickest_us(&self) -> i64 {
        self.lags.front().map_or(0, |&(_, lag)| lag)
    }
}

fn signed(time: Timestamp) -> i64 {
    i64::try_from(time.as_unix_us()).unwrap_or(i64::MAX)
}

/// When something was by our clock that was `at` by an agent's, whose reports come `quickest_us` after their window's end at
/// the least.
pub(super) fn by_our_clock(at: Timestamp, quickest_us: i64) -> Timestamp {
    let us = i128::from(at.as_unix_us()) + i128::from(quickest_us);
    let us = u64::try_from(us.max(0)).unwrap_or(u64::MAX);
    Timestamp::from_unix_us(us)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_unix_us(secs * 1_000_000)
    }

    #[test]
    fn what_was_kept_during_a_silence_is_late_by_as_much() {
        let mut arrivals = Arrivals::default();
        for second in 100..110 {
            arrivals.on_window(at(second), at(second));
        }
        for second in 110..170 {
            arrivals.on_window(at(200), at(second));
        }
        assert_eq!(arrivals.quickest_us(), 0);
        assert_eq!(arrivals.on_window(at(200), at(199)), 1_000_000);
    }

    #[test]
    fn a_clock_that_is_hours_off_does_not_matter() {
        let mut arrivals = Arrivals::default();
        let lag = arrivals.on_window(at(10), at(7_210));
        assert_eq!(lag, arrivals.quickest_us());
    }

    #[test]
    fn a_clock_that_was_set_back_is_believed_after_a_while() {
        let mut arrivals = Arrivals::default();
        for second in 100..200 {
            arrivals.on_window(at(second), at(second));
        }
        for second in 200..240 {
            arrivals.on_window(at(second), at(second - 10));
        }
        assert_eq!(arrivals.quickest_us(), 10_000_000);
    }
}
