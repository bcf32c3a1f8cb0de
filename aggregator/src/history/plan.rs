//! Which points a history has, and where they come from.

use std::time::Duration;

use leeward_common::{config::Span, time::Timestamp};

use crate::{config::Retention, store::key::path::Grain};

/// Points of one history at most: a day of seconds, and some more.
pub const MAX_POINTS: u64 = 100_000;

/// Points of a history that says nothing of its step, about as many as a chart has room for.
const GOOD_POINTS: u64 = 360;

/// Steps that people find natural.
const STEPS: [u64; 12] = [
    1, 10, 30, 60, 300, 900, 3_600, 10_800, 21_600, 43_200, 86_400, 604_800,
];

/// The smallest step: windows are not shorter.
const LEAST: Duration = Duration::from_millis(100);

/// The longest.
const MOST: Duration = Duration::from_secs(400 * 86_400);

/// Where points come from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Source {
    /// The journal: windows as they came.
    Raw,
    /// Rollups.
    Rollup(Grain),
}

/// What a history is made of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Plan {
    /// Where the first point begins.
    pub start: Timestamp,
    /// Where the last one ends.
    pub end: Timestamp,
    /// How long a point is.
    pub step: Duration,
    /// Where they come from.
    pub source: Source,
}

/// Why there is no such history, and how to ask for one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Unanswerable {
    /// What is wrong.
    pub why: String,
    /// What to do.
    pub what_to_do: String,
}

impl Plan {
    /// The points from `start` to `end`, both moved outwards to where points begin.
    ///
    /// # Errors
    ///
    /// Returns [`Unanswerable`] when there is no such history, or it would be too long.
    pub fn new(
        now: Timestamp,
        retention: &Retention,
        (start, end): (Timestamp, Timestamp),
        step: Option<Duration>,
    ) -> Result<Self, Unanswerable> {
        if start >= end {
            return Err(Unanswerable::new(
                format!("start is {start} and end is {end}"),
                "let start be before end",
            ));
        }
        let step = match step {
            Some(step) => step,
            None => good_step(now, retention, start, end),
        };
        let whole = step.subsec_nanos().is_multiple_of(1_000_000);
        if !whole || !(LEAST..=MOST).contains(&step) {
            return Err(Unanswerable::new(
                format!("step is {}", Span(step)),
                "use whole milliseconds from 100ms to 400d, like 1s, 1m or 1h",
            ));
        }
        let source = source(step);
        let reach = reach(retention, source);
        if start + reach < now && source != Source::Rollup(Grain::Hour) {
            return Err(Unanswerable::new(
                format!(
                    "points of {} are made from {}, which are kept for {}",
                    Span(step),
                    source.of_what(),
                    Span(reach)
                ),
                match source {
                    Source::Raw => "ask for a step of whole minutes (step=1m), or a later start",
                    Source::Rollup(_) => {
                        "ask for a step of whole hours (step=1h), or a later start"
                    }
                },
            ));
        }
        let plan = Self {
            start: start.floor(step),
            end: ceil(end, step),
            step,
            source,
        };
        if plan.points() > MAX_POINTS {
            return Err(Unanswerable::new(
                format!(
                    "that is {} points, and one answer has at most {MAX_POINTS}",
                    plan.points()
                ),
                "ask for a longer step, or a shorter span from start to end",
            ));
        }
        Ok(plan)
    }

    /// The same span by points of a minute, which take less to read; `None` if these are not from the journal.
    #[must_use]
    pub fn by_minutes(&self) -> Option<Self> {
        let step = Grain::Minute.length();
        (self.source == Source::Raw).then(|| Self {
            start: self.start.floor(step),
            end: ceil(self.end, step),
            step,
            source: Source::Rollup(Grain::Minute),
        })
    }

    /// How many points.
    #[must_use]
    pub fn points(&self) -> u64 {
        let step = self.step.as_micros().max(1);
        u64::try_from(self.end.since(self.start).as_micros() / step).unwrap_or(u64::MAX)
    }

    /// The point that what begins at `at` belongs to; `None` outside.
    #[must_use]
    pub fn point(&self, at: Timestamp) -> Option<u64> {
        if at < self.start || at >= self.end {
            return None;
        }
        let step = self.step.as_micros().max(1);
        u64::try_from(at.since(self.start).as_micros() / step).ok()
    }

    /// When a point begins.
    #[must_use]
    pub fn begin(&self, point: u64) -> Timestamp {
        let step = u64::try_from(self.step.as_micros()).unwrap_or(u64::MAX);
        self.start + Duration::from_micros(step.saturating_mul(point))
    }
}

impl Source {
    /// What points are made from, for people.
    #[must_use]
    pub const fn of_what(self) -> &'static str {
        match self {
            Self::Raw => "the journal's windows",
            Self::Rollup(Grain::Minute) => "sums of minutes",
            Self::Rollup(Grain::Hour) => "sums of hours",
        }
    }
}

impl Unanswerable {
    fn new(why: impl Into<String>, what_to_do: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            what_to_do: what_to_do.into(),
        }
    }
}

/// The coarsest that points of this step can be made from: all of them are exact, and this reads least.
fn source(step: Duration) -> Source {
    let is_whole = |grain: Grain| step.as_micros().is_multiple_of(grain.length().as_micros());
    match Grain::ALL.into_iter().rev().find(|grain| is_whole(*grain)) {
        Some(grain) => Source::Rollup(grain),
        None => Source::Raw,
    }
}

const fn reach(retention: &Retention, source: Source) -> Duration {
    match source {
        Source::Raw => retention.journal,
        Source::Rollup(Grain::Minute) => retention.minutes,
        Source::Rollup(Grain::Hour) => retention.hours,
    }
}

fn good_step(now: Timestamp, retention: &Retention, start: Timestamp, end: Timestamp) -> Duration {
    let steps = STEPS.map(Duration::from_secs).into_iter();
    let mut good = steps.filter(|step| {
        let source = source(*step);
        let is_kept =
            source == Source::Rollup(Grain::Hour) || start + reach(retention, source) >= now;
        is_kept && end.since(start).as_secs() / step.as_secs() <= GOOD_POINTS
    });
    good.next().unwrap_or(Duration::from_secs(604_800))
}

fn ceil(time: Timestamp, step: Duration) -> Timestamp {
    let floor = time.floor(step);
    if floor == time { time } else { floor + step }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp::from_unix_us(1_700_000_000_000_000);

    fn ago(seconds: u64) -> Timestamp {
        NOW - Duration::from_secs(seconds)
    }

    fn plan(seconds: u64, step: Option<u64>) -> Result<Plan, Unanswerable> {
        let step = step.map(Duration::from_secs);
        Plan::new(NOW, &Retention::default(), (ago(seconds), NOW), step)
    }

    #[test]
    fn the_coarsest_source_that_gives_exact_points_is_read() {
        for (step, source) in [
            (1, Source::Raw),
            (90, Source::Raw),
            (60, Source::Rollup(Grain::Minute)),
            (300, Source::Rollup(Grain::Minute)),
            (3_600, Source::Rollup(Grain::Hour)),
            (5_400, Source::Rollup(Grain::Minute)),
            (86_400, Source::Rollup(Grain::Hour)),
        ] {
            assert_eq!(plan(90_000, Some(step)).unwrap().source, source, "{step}");
        }
    }

    #[test]
    fn a_history_without_a_step_has_one_that_is_kept_and_fits_a_chart() {
        for (span, step) in [
            (300, 1),
            (3_600, 10),
            (21_600, 60),
            (86_400, 300),
            (3 * 86_400, 900),
            (40 * 86_400, 10_800),
            (400 * 86_400, 604_800),
        ] {
            assert_eq!(plan(span, None).unwrap().step.as_secs(), step, "{span}");
        }
    }

    #[test]
    fn what_is_no_longer_kept_or_too_much_is_refused_with_what_to_do() {
        for (span, step, why, what_to_do) in [
            (
                3 * 86_400,
                1,
                "the journal's windows, which are kept for 2days",
                "step=1m",
            ),
            (
                31 * 86_400,
                60,
                "sums of minutes, which are kept for 30days",
                "step=1h",
            ),
            (40 * 3_600, 1, "144000 points", "a longer step"),
            (0, 1, "start is", "before end"),
            (60, 0, "step is 0s", "100ms"),
        ] {
            let error = plan(span, Some(step)).unwrap_err();
            assert!(error.why.contains(why), "{error:?}");
            assert!(error.what_to_do.contains(what_to_do), "{error:?}");
        }
    }

    proptest! {
        /// Every moment asked for lies in exactly one point.
        #[test]
        fn points_cover_what_is_asked_for(span in 1u64..200_000, step in 1u64..10_000, at in 0.0f64..1.0) {
            let Ok(plan) = plan(span, Some(step)) else { return Ok(()) };
            let at = ago(span) + Duration::from_secs_f64(at * span as f64);
            let point = plan.point(at).unwrap();
            prop_assert!(point < plan.points());
            prop_assert!(plan.begin(point) <= at && at < plan.begin(point) + plan.step);
            prop_assert_eq!(plan.begin(plan.points()), plan.end);
        }
    }
}
