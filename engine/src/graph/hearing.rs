//! Since when an agent hears anything at all.
//!
//! An agent that was cut off, by its uplink or with everybody else, hears the nearest targets first when it is joined again.
//! For a moment the others look as if they alone had been silent all the time; but while nothing at all was heard, nothing can
//! be said of any one of them. So silence counts from when the agent hears again, and what it lost until then does not count.
//!
//! Who probes one other region only cannot tell the two apart; there everything counts.

use std::time::Duration;

use leeward_common::{
    deadline,
    report::{Class, Report},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

use super::{RETENTION, Span};
use crate::{input::Reports, policy::Policy, view::Link};

/// A time of which nothing was told for so long is not the present one.
const OF_LATE: Duration = Duration::from_secs(30);

/// More times are not remembered of one agent.
const MAX_TIMES: usize = 64;

/// When an agent heard anything, by its own clock, in whatever order its reports came.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct Hearing {
    /// In order; between two of them it heard nothing for long.
    times: Vec<Time>,
    /// When something came last.
    told_at: Timestamp,
}

/// A time in which an agent was never without an answer for long.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
struct Time {
    first: First,
    last: Timestamp,
    /// By our clock.
    told_at: Timestamp,
}

/// The first window of such a time: from when on, when something was answered in it at last, and its end.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
struct First {
    start: Timestamp,
    heard: Timestamp,
    until: Timestamp,
}

impl Hearing {
    /// Takes in what an agent heard on paths that are evidence for these links.
    pub(super) fn on_reports<'a>(
        &mut self,
        now: Timestamp,
        policy: &Policy,
        reports: &Reports,
        mut links: impl Iterator<Item = &'a Link>,
    ) {
        let until = reports.until;
        self.told_at = now;
        let heard = reports.rows.iter().filter_map(|(_, report)| {
            let silence = report.counts.silence.unwrap_or_default();
            is_answered(report).then(|| until - silence.lasts)
        });
        let (Some(heard), Some(link)) = (heard.max(), links.next()) else {
            return;
        };
        if links.all(|other| other == link) {
            return;
        }
        let start = reports.window.start;
        let heard = heard.max(start);
        self.hear(
            Time {
                first: First {
                    start,
                    heard,
                    until,
                },
                last: heard,
                told_at: now,
            },
            deaf_after(policy),
        );
    }

    fn hear(&mut self, mut time: Time, apart: Duration) {
        let is_apart = |own: &Time| {
            time.first.start.since(own.last) > apart || own.first.start.since(time.last) > apart
        };
        let (before, rest): (Vec<Time>, Vec<Time>) =
            self.times.iter().partition(|own| is_apart(own));
        for own in rest {
            time.first = time.first.min(own.first);
            time.last = time.last.max(own.last);
            time.told_at = time.told_at.max(own.told_at);
        }
        self.times = before;
        let at = self.times.partition_point(|own| own.first < time.first);
        self.times.insert(at, time);
        if self.times.len() > MAX_TIMES {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let ages = self.times.iter().enumerate();
        if let Some((at, _)) = ages.min_by_key(|(_, own)| own.told_at) {
            self.times.remove(at);
        }
    }

    /// Forgets times of which nothing was heard for long.
    pub(super) fn forget_old(&mut self, now: Timestamp) {
        self.times.retain(|own| now.since(own.told_at) <= RETENTION);
    }

    /// Since when the agent hears, and which windows do not count as they ended while it did not hear. Two such times with no more
    /// than the memory between them are one.
    pub(super) fn now(&self, policy: &Policy) -> (Timestamp, Option<Span>) {
        // What a wrong clock dated into the future is over once the clock is set.
        let is_of_late = |own: &Time| self.told_at.since(own.told_at) <= OF_LATE;
        let Some(at) = self.times.iter().rposition(is_of_late) else {
            return (Timestamp::EPOCH, None);
        };
        let (time, before) = (&self.times[at], &self.times[..at]);
        let mut deaf: Option<Span> = None;
        let mut next = time;
        for own in before.iter().rev() {
            let is_one = next.last.since(next.first.start) <= policy.evidence.memory;
            match &mut deaf {
                Some(span) if is_one => span.since = own.last,
                Some(_) => break,
                None => {
                    deaf = Some(Span {
                        since: own.last,
                        // What was sent before it heard again becomes overdue only later.
                        until: time.first.until + deadline::INITIAL.min(policy.probing.expiry),
                    });
                }
            }
            next = own;
        }
        (time.first.heard, deaf)
    }
}

fn is_answered(report: &Report) -> bool {
    report.counts.answered() > 0 || report.counts.of(Class::Late) > 0
}

/// So long a single path may be silent before it counts as lost; less a window, as what was heard in part of one is heard in all
/// of it, but not less than half.
fn deaf_after(policy: &Policy) -> Duration {
    let evidence = &policy.evidence;
    let lost_after = evidence
        .down_after
        .max(policy.probing.interval * evidence.down_probes);
    lost_after
        .saturating_sub(policy.probing.window)
        .max(lost_after / 2)
}

#[cfg(test)]
mod tests {
    use leeward_common::{
        id::{AgentId, RegionId},
        report::{Counts, Rtt, Silence, Window},
    };

    use super::*;
    use crate::simulate::START;

    fn policy() -> Policy {
        let text = include_str!("../../../scenarios/observers-cut-off.toml");
        let scenario = crate::scenario::Scenario::parse("observers-cut-off.toml", text);
        scenario.expect("a scenario").policy
    }

    /// What a window of 500 ms from then on says: for each path how many answers, and how long it is silent at the end.
    fn reports(ms: u64, paths: &[(u32, u64)]) -> Reports {
        let length = Duration::from_millis(500);
        let start = START + Duration::from_millis(ms);
        let row = |&(answers, lasts): &(u32, u64)| {
            let mut counts = Counts::default();
            (0..answers).for_each(|_| counts.end(Class::Replied));
            counts.silence = Some(Silence {
                unanswered: u32::from(lasts > 0),
                lasts: Duration::from_millis(lasts),
            });
            let rtt = Rtt::default();
            Report { counts, rtt }
        };
        Reports {
            agent: AgentId::parse("a1").expect("an id"),
            region: RegionId::parse("a").expect("an id"),
            window: Window { start, length },
            until: start + length,
            health: None,
            table: [].into(),
            rows: (0..).zip(paths.iter().map(row)).collect(),
        }
    }

    /// Since when it hears, and when it did not before, in milliseconds.
    fn after(to: [&str; 2], windows: &[(u64, &[(u32, u64)])]) -> (u128, Option<(u128, u128)>) {
        after_times(to, Duration::ZERO, windows)
    }

    /// The same of windows that come so long one after the other.
    fn after_times(
        to: [&str; 2],
        apart: Duration,
        windows: &[(u64, &[(u32, u64)])],
    ) -> (u128, Option<(u128, u128)>) {
        let id = |id| RegionId::parse(id).expect("an id");
        let links = to.map(|to| (id("a"), id(to)));
        let mut hearing = Hearing::default();
        for (at, (ms, paths)) in (0..).zip(windows) {
            let (now, reports) = (START + apart * at, reports(*ms, paths));
            hearing.on_reports(now, &policy(), &reports, links.iter());
        }
        let ms = |at: Timestamp| at.since(START).as_millis();
        let (from, deaf) = hearing.now(&policy());
        (ms(from), deaf.map(|span| (ms(span.since), ms(span.until))))
    }

    const WELL: &[(u32, u64)] = &[(5, 0), (5, 0)];
    const DEAF: &[(u32, u64)] = &[(0, 500), (0, 510)];
    const BACK: &[(u32, u64)] = &[(0, 1_000), (1, 20)];
    const BOTH: [&str; 2] = ["b", "c"];

    #[test]
    fn one_silent_path_changes_nothing() {
        let one_silent = [
            (0, WELL),
            (500, &[(0, 500), (5, 0)][..]),
            (1_000, &[(0, 999), (4, 90)]),
        ];
        assert_eq!(after(BOTH, &one_silent), (500, None));
    }

    #[test]
    fn who_heard_nothing_hears_from_its_first_answer_on() {
        let (begun, middle, end) = ((0, WELL), (500, DEAF), (1_000, BACK));
        let back = (1_480, Some((500, 2_500)));
        assert_eq!(after(BOTH, &[begun, middle, end]), back);
        // Nor does it matter whether the windows between have come, or come later.
        assert_eq!(after(BOTH, &[begun, end]), back);
        assert_eq!(after(BOTH, &[end, middle, begun]), back);
        assert_eq!(after(BOTH, &[begun, end, (1_500, WELL)]), back);
        // What it heard after all, and told later, is heard.
        assert_eq!(after(BOTH, &[begun, end, (500, WELL)]), (500, None));
    }

    #[test]
    fn two_such_times_with_little_between_are_one() {
        let told = [(0, WELL), (1_500, WELL), (3_000, WELL)];
        assert_eq!(after(BOTH, &told), (3_500, Some((500, 4_500))));
        let told = [(0, WELL), (60_000, WELL)];
        assert_eq!(after(BOTH, &told), (60_500, Some((500, 61_500))));
    }

    #[test]
    fn who_probes_one_region_tells_of_that_one() {
        let told = [(0, WELL), (30_000, WELL)];
        assert_eq!(after(["b", "b"], &told), (0, None));
    }

    #[test]
    fn a_clock_that_jumps_to_and_fro_makes_nobody_deaf_for_long() {
        let told = [(0, WELL), (3_600_000, WELL), (1_500, WELL), (2_000, WELL)];
        let apart = Duration::from_secs(20);
        assert_eq!(after_times(BOTH, apart, &told).0, 2_000);
        let many: Vec<_> = (0..1_000).map(|at| (at * 60_000, WELL)).collect();
        assert_eq!(after(BOTH, &many).0, 999 * 60_000 + 500);
    }
}
