//! What was measured on one path lately, and what follows from it.
//!
//! What follows is carried on from one look to the next: it is made anew only when a window has come or gone, when the
//! agent's windows are dated or counted otherwise, or when the memory's end has passed a window. Carried on or made anew it
//! is the same; a property test compares the two.

use std::{collections::VecDeque, time::Duration};

use leeward_common::{
    histogram::Histogram,
    id::RegionId,
    pile::Pile,
    report::{Class, Report, Silence, Window},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

use super::{
    Sight, Span,
    combine::Measured,
    pool::{Sum, measured},
};
use crate::{input::Reports, policy::Policy, view::Link};

/// The most windows kept of one path: those of half a minute at the shortest length that a policy may ask for.
const MAX_PATH_WINDOWS: usize = 600;

/// When a window arrived, which it is, and up to when it tells.
type Order = (Timestamp, Window, Timestamp);

/// What was measured on one path lately.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct PathEvidence {
    /// Region of the agent.
    pub(super) from: RegionId,
    /// Region of the target.
    pub(super) to: RegionId,
    /// By arrival, then by window.
    windows: VecDeque<WindowEvidence>,
    #[serde(skip)]
    made: Option<Made>,
}

/// What was made of a path's windows, and under which circumstances.
#[derive(Clone, Debug)]
struct Made {
    dating: Dating,
    newest_at: Option<Timestamp>,
    is_lost: bool,
    measured: Option<(Cuts, Measured)>,
}

/// Cuts after which the same windows of a path ended: from the first on, and before the second, if that is given.
#[derive(Clone, Copy, Debug)]
struct Cuts(Timestamp, Option<Timestamp>);

impl Cuts {
    fn contains(self, cut: Timestamp) -> bool {
        self.0 <= cut && self.1.is_none_or(|end| cut < end)
    }
}

/// How an agent's windows are dated, and which of them count.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Dating {
    /// The smallest lag of late, microseconds.
    pub(super) quickest_us: i64,
    /// What was measured then does not count.
    pub(super) faulty: Option<Span>,
    /// Since when the agent hears anything at all; see [`super::hearing`].
    pub(super) hears_from: Timestamp,
    /// When it did not before: what was measured then does not count either.
    pub(super) deaf: Option<Span>,
}

impl Dating {
    fn counts(&self, at: Timestamp) -> bool {
        let spans = [self.faulty, self.deaf];
        !spans.iter().flatten().any(|span| span.contains(at))
    }
}

/// One window of a path, or a part of it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct WindowEvidence {
    pub(super) window: Window,
    /// Up to when it tells, by the agent's clock.
    pub(super) until: Timestamp,
    pub(super) received_at: Timestamp,
    /// Arrival minus `until`, microseconds.
    lag_us: i64,
    pub(super) answered: u64,
    pub(super) late: u64,
    pub(super) overdue: u64,
    pub(super) rejected: u64,
    /// What was unanswered in a row at its end, if the agent says.
    silence: Option<Silence>,
    pub(super) histogram: Histogram,
    pub(super) min_us: u32,
    /// The latest `until` of this and all windows before it, or later than that.
    #[serde(skip)]
    latest: Timestamp,
}

impl PathEvidence {
    /// Of nothing yet.
    pub(super) fn new((from, to): &Link) -> Self {
        Self {
            from: from.clone(),
            to: to.clone(),
            windows: VecDeque::new(),
            made: None,
        }
    }

    /// Whether it is evidence for this link.
    pub(super) fn is_of(&self, (from, to): &Link) -> bool {
        self.from == *from && self.to == *to
    }

    /// After it was read: what is not written is made anew.
    pub(super) fn restore(&mut self) {
        self.note_latest(0);
    }

    /// What follows from it is made anew, for the policy has changed.
    pub(super) fn forget_made(&mut self) {
        self.made = None;
    }

    /// When it was heard of last.
    pub(super) fn heard_at(&self) -> Timestamp {
        let last = self.windows.back();
        last.map_or(Timestamp::EPOCH, |last| last.received_at)
    }

    /// The windows that count.
    pub(super) fn counted(
        &self,
        dating: Dating,
    ) -> impl DoubleEndedIterator<Item = (&WindowEvidence, Timestamp)> {
        let windows = self.windows.iter();
        windows
            .map(move |window| (window, window.measured_at(dating.quickest_us)))
            .filter(move |(_, at)| dating.counts(*at))
    }

    /// Probes lost of those that count, and how many those are.
    pub(super) fn losses(&self, dating: Dating) -> (u64, u64) {
        let counted = self.counted(dating);
        counted.fold((0, 0), |(lost, n), (window, _)| {
            (lost + window.lost(), n + window.probes())
        })
    }

    /// Whether anything was measured in this time.
    pub(super) fn has_any_of(&self, quickest_us: i64, span: Span) -> bool {
        let mut windows = self.windows.iter();
        windows.any(|window| span.contains(window.measured_at(quickest_us)))
    }

    /// Takes in a window; forgets those that arrived longer than `keep` before the last one.
    pub(super) fn insert(&mut self, evidence: WindowEvidence, keep: Duration) {
        self.made = None;
        // Looked for from the end: only what arrived in the same instant can be ordered after it.
        let before = self
            .windows
            .iter()
            .rposition(|other| other.order() <= evidence.order());
        let mut at = before.map_or(0, |before| before + 1);
        // The parts of a window follow each other closely, and on the way here one may overtake another.
        let is_later_part = |other: &WindowEvidence| {
            other.window == evidence.window && other.until > evidence.until
        };
        while at > 0 && is_later_part(&self.windows[at - 1]) {
            at -= 1;
        }
        self.windows.insert(at, evidence);
        self.note_latest(at);
        let newest = self.heard_at();
        while self.windows.len() > MAX_PATH_WINDOWS
            || self
                .windows
                .front()
                .is_some_and(|old| newest.since(old.received_at) > keep)
        {
            self.windows.pop_front();
        }
    }

    /// Notes the latest end of all windows up to each, from this one on.
    fn note_latest(&mut self, from: usize) {
        let before = from
            .checked_sub(1)
            .map(|before| self.windows[before].latest);
        let mut latest = before.unwrap_or(Timestamp::EPOCH);
        for window in self.windows.range_mut(from..) {
            latest = latest.max(window.latest_end());
            window.latest = latest;
        }
    }

    /// What was made of it for this dating, made anew if that is another one.
    fn made(&mut self, policy: &Policy, dating: Dating) -> &mut Made {
        if self.made.as_ref().is_none_or(|made| made.dating != dating) {
            let newest = self.counted(dating).next_back();
            let newest_at = newest.map(|(_, at)| at);
            let is_lost =
                newest_at.is_some_and(|at| self.sight(policy, at, dating.hears_from).is_lost());
            self.made = Some(Made {
                dating,
                newest_at,
                is_lost,
                measured: None,
            });
        }
        self.made.as_mut().expect("it was just made")
    }

    /// When the newest of its windows that count was measured, and whether nothing has been answered lately; `None` if no
    /// window counts.
    pub(super) fn newest(&mut self, policy: &Policy, dating: Dating) -> Option<(Timestamp, bool)> {
        let made = self.made(policy, dating);
        Some((made.newest_at?, made.is_lost))
    }

    /// What its windows come to that ended after `cut`.
    pub(super) fn measured(
        &mut self,
        policy: &Policy,
        dating: Dating,
        cut: Timestamp,
        pile: &mut Pile,
    ) -> Measured {
        let made = self.made(policy, dating);
        let newest_at = made.newest_at.unwrap_or(Timestamp::EPOCH);
        match made.measured {
            Some((cuts, measured)) if cuts.contains(cut) => measured,
            _ => {
                let (oldest_at, own) = self.measure(dating, newest_at, cut, pile);
                self.made(policy, dating).measured = Some((Cuts(cut, oldest_at), own));
                own
            }
        }
    }

    /// What its windows come to that ended after `cut`, and when the oldest of them was measured.
    fn measure(
        &self,
        dating: Dating,
        newest_at: Timestamp,
        cut: Timestamp,
        pile: &mut Pile,
    ) -> (Option<Timestamp>, Measured) {
        let mut sum = Sum::new(newest_at, pile);
        let mut oldest_at: Option<Timestamp> = None;
        for window in self.windows.iter().rev() {
            if window.all_before(dating.quickest_us, cut) {
                break;
            }
            let at = window.measured_at(dating.quickest_us);
            if at > cut && dating.counts(at) {
                oldest_at = Some(oldest_at.map_or(at, |oldest| oldest.min(at)));
                sum.add(window, at);
            }
        }
        (oldest_at, measured(&sum))
    }

    /// What the newest window says. `until` is when that ended.
    fn sight(&self, policy: &Policy, until: Timestamp, hears_from: Timestamp) -> Sight {
        let Some(newest) = self.windows.back() else {
            return Sight::Unclear;
        };
        let is_lost = |Silence { unanswered, lasts }: Silence| {
            unanswered >= policy.evidence.down_probes && lasts >= policy.evidence.down_after
        };
        let silence @ Silence { lasts, .. } = self.silence();
        if is_lost(silence) {
            let heard = until.since(hears_from);
            return match is_lost(within(silence, heard)) {
                true => Sight::Lost {
                    since: until - lasts.min(heard),
                },
                false => Sight::Unclear,
            };
        }
        // A path may be silent because its agent does not send.
        let heard = self
            .windows
            .iter()
            .rev()
            .find(|window| window.answers() > 0);
        let since_heard = |heard: &WindowEvidence| newest.until.since(heard.until).max(lasts);
        match heard.map(since_heard) {
            Some(since) if since <= policy.evidence.memory => Sight::Seen {
                until: until - since,
                due: until + policy.probing.window,
            },
            _ => Sight::Unclear,
        }
    }

    /// What its agent sees of its target at `now`, and until when that is as fresh as it is now (see
    /// [`crate::view::Estimates::staleness`]); `None` if it is stale.
    pub(super) fn sight_at(
        &self,
        now: Timestamp,
        policy: &Policy,
        dating: Dating,
    ) -> Option<(Sight, Timestamp)> {
        let last = self.windows.back()?;
        let until = last.measured_at(dating.quickest_us);
        let fresh_until = until + policy.evidence.stale_after;
        let window = policy.probing.window;
        let windows = now.since(until).as_micros() / window.as_micros().max(1);
        let next =
            until + window.saturating_mul(u32::try_from(windows.max(1) + 1).unwrap_or(u32::MAX));
        let as_fresh_until = fresh_until.min(next - Duration::from_micros(1));
        (now <= fresh_until).then(|| {
            let sight = self.sight(policy, until, dating.hears_from);
            (sight, as_fresh_until)
        })
    }

    /// What is unanswered in a row. Agents that do not say are taken to be silent for whole windows.
    fn silence(&self) -> Silence {
        let mut silence = Silence::default();
        for window in self.windows.iter().rev() {
            let unsaid = Silence {
                unanswered: u32::try_from(window.overdue + window.rejected).unwrap_or(u32::MAX),
                lasts: window.window.length,
            };
            let last = window.silence.unwrap_or(unsaid);
            if window.silence.is_none() && window.answers() > 0 {
                break;
            }
            silence.unanswered = silence.unanswered.saturating_add(last.unanswered);
            silence.lasts = silence.lasts.saturating_add(last.lasts);
            if window.silence.is_some() {
                break;
            }
        }
        silence
    }
}

/// What of a silence lies in its last time.
fn within(silence: Silence, time: Duration) -> Silence {
    if silence.lasts <= time {
        return silence;
    }
    // Probes are evenly spaced.
    let share = time.as_secs_f64() / silence.lasts.as_secs_f64();
    Silence {
        unanswered: (f64::from(silence.unanswered) * share) as u32,
        lasts: time,
    }
}

impl WindowEvidence {
    pub(super) fn new(
        reports: &Reports,
        received_at: Timestamp,
        lag_us: i64,
        report: &Report,
    ) -> Self {
        let counts = &report.counts;
        Self {
            window: reports.window,
            until: reports.until,
            received_at,
            lag_us,
            answered: counts.answered(),
            late: u64::from(counts.of(Class::Late)),
            overdue: u64::from(counts.overdue),
            rejected: u64::from(counts.of(Class::IcmpError)),
            silence: counts.silence,
            histogram: report.rtt.histogram.clone(),
            min_us: report.rtt.min_us,
            latest: Timestamp::EPOCH,
        }
    }

    const fn order(&self) -> Order {
        (self.received_at, self.window, self.until)
    }

    /// Probes whose end is known.
    pub(super) const fn probes(&self) -> u64 {
        self.answered + self.overdue + self.rejected
    }

    /// Probes that were not answered.
    pub(super) const fn lost(&self) -> u64 {
        self.overdue.saturating_sub(self.late) + self.rejected
    }

    /// Probes that were answered at all.
    const fn answers(&self) -> u64 {
        self.answered + self.late
    }

    /// When it ended, by the aggregator's clock.
    fn measured_at(&self, quickest_us: i64) -> Timestamp {
        measured_at(self.received_at, self.lag_us, quickest_us)
    }

    /// Its end by the agent's clock; never, where lags cannot be told any more.
    fn latest_end(&self) -> Timestamp {
        match i64::try_from(self.received_at.as_unix_us()) {
            Ok(_) => self.until,
            Err(_) => Timestamp::from_unix_us(u64::MAX),
        }
    }

    /// Whether this and all windows before it were measured before `cut` or just then: a window was measured at its end by
    /// the agent's clock and the smallest lag of late, or earlier.
    fn all_before(&self, quickest_us: i64, cut: Timestamp) -> bool {
        let latest_us = i128::from(self.latest.as_unix_us()) + i128::from(quickest_us);
        latest_us <= i128::from(cut.as_unix_us())
    }
}

/// When what arrived then with this lag was measured, by the aggregator's clock.
pub(super) fn measured_at(received_at: Timestamp, lag_us: i64, quickest_us: i64) -> Timestamp {
    let waited_us = lag_us.saturating_sub(quickest_us).max(0);
    received_at - Duration::from_micros(waited_us.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use leeward_common::{
        id::AgentId,
        report::{Counts, Rtt},
    };
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// However windows and parts of them arrive, each stands behind all that arrived before it, but a part before later
        /// parts of its window; and the latest end of all up to each is known.
        #[test]
        fn windows_stand_by_arrival_and_parts_by_time(
            arrivals in prop::collection::vec((0u64..3, 0u64..4, 0u64..3), 1..60)
        ) {
            let id = |text| RegionId::parse(text).unwrap();
            let mut path = PathEvidence::new(&(id("a"), id("b")));
            let mut now = Timestamp::from_unix_us(1_000_000_000);
            for (after, window, part) in arrivals {
                now = now + Duration::from_millis(after);
                let window = Window {
                    start: Timestamp::from_unix_us(window * 1_000_000),
                    length: Duration::from_secs(1),
                };
                let reports = Reports {
                    agent: AgentId::parse("a1").unwrap(),
                    region: id("a"),
                    window,
                    until: window.start + Duration::from_millis(part),
                    health: None,
                    table: [].into(),
                    rows: Vec::new(),
                };
                let report = Report { counts: Counts::default(), rtt: Rtt::default() };
                path.insert(WindowEvidence::new(&reports, now, 0, &report), Duration::from_secs(9));
                let mut latest = Timestamp::EPOCH;
                for window in &path.windows {
                    latest = latest.max(window.until);
                    prop_assert!(window.latest >= latest);
                }
                for (one, next) in path.windows.iter().zip(path.windows.iter().skip(1)) {
                    let is_overtaken = one.window == next.window && one.until < next.until;
                    prop_assert!(is_overtaken || one.order() <= next.order() , "{one:?} {next:?}");
                }
            }
        }
    }
}
