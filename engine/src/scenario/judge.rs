//! Whether the selections of a run were what its scenario expects.

use std::time::Duration;

use leeward_common::id::RegionId;

use super::Expectation;

/// How an expectation came out.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It held from this time on.
    Met {
        /// When the selection was right for good.
        at: Duration,
    },
    /// It never held in time.
    Missed {
        /// What was selected at the deadline instead.
        instead: Option<RegionId>,
    },
    /// It held in time and then no longer.
    Lost {
        /// When it ceased to hold.
        at: Duration,
        /// What was selected then.
        to: Option<RegionId>,
    },
}

/// Judges one expectation by the selections of its primary: when each began, in order of time. Before the first,
/// nothing is selected.
#[must_use]
pub fn judge(expectation: &Expectation, selections: &[(Duration, Option<RegionId>)]) -> Verdict {
    let Expectation {
        since,
        by,
        until,
        selected,
        ..
    } = expectation;
    let mut met = None;
    let mut instead = None;
    let mut lost = None;
    let begins = std::iter::once((Duration::ZERO, None)).chain(selections.iter().cloned());
    let ends = selections.iter().map(|(at, _)| *at).chain([Duration::MAX]);
    for ((begin, region), end) in begins.zip(ends) {
        if begin <= *by {
            instead.clone_from(&region);
        }
        if region == *selected {
            let from = begin.max(*since);
            let in_time = from <= *by && end > from;
            if met.is_none() && in_time {
                (met, lost) = (Some(from), None);
            }
        } else if met.is_some() && begin <= *until {
            // A selection that ended before the deadline may still come back in time.
            lost = Some((begin, region));
            if begin <= *by {
                (met, lost) = (None, None);
            }
        }
    }
    match (met, lost) {
        (None, _) => Verdict::Missed { instead },
        (Some(_), Some((at, to))) => Verdict::Lost { at, to },
        (Some(at), None) => Verdict::Met { at },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(id: &str) -> RegionId {
        RegionId::parse(id).unwrap()
    }

    fn s(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn expectation(since: u64, by: u64, until: u64) -> Expectation {
        Expectation {
            since: s(since),
            by: s(by),
            until: s(until),
            primary: region("p"),
            selected: Some(region("a")),
        }
    }

    #[test]
    fn a_selection_that_comes_in_time_and_stays_is_met() {
        let moves = [(s(1), Some(region("b"))), (s(7), Some(region("a")))];
        assert_eq!(
            judge(&expectation(5, 8, 20), &moves),
            Verdict::Met { at: s(7) }
        );
    }

    #[test]
    fn one_that_was_there_all_along_is_met_at_once() {
        let moves = [(s(1), Some(region("a")))];
        assert_eq!(
            judge(&expectation(5, 8, 20), &moves),
            Verdict::Met { at: s(5) }
        );
    }

    #[test]
    fn one_that_comes_late_is_missed() {
        let moves = [(s(1), Some(region("b"))), (s(9), Some(region("a")))];
        let instead = Some(region("b"));
        assert_eq!(
            judge(&expectation(5, 8, 20), &moves),
            Verdict::Missed { instead }
        );
        assert_eq!(
            judge(&expectation(5, 8, 20), &[]),
            Verdict::Missed { instead: None }
        );
    }

    #[test]
    fn one_that_leaves_before_until_is_lost() {
        let moves = [(s(1), Some(region("a"))), (s(12), None)];
        assert_eq!(
            judge(&expectation(5, 8, 20), &moves),
            Verdict::Lost {
                at: s(12),
                to: None
            }
        );
        assert_eq!(
            judge(&expectation(5, 8, 8), &moves),
            Verdict::Met { at: s(5) }
        );
    }

    #[test]
    fn one_that_wavers_before_the_deadline_may_still_be_met() {
        let moves = [
            (s(5), Some(region("a"))),
            (s(6), Some(region("b"))),
            (s(7), Some(region("a"))),
        ];
        assert_eq!(
            judge(&expectation(5, 8, 20), &moves),
            Verdict::Met { at: s(7) }
        );
    }
}
