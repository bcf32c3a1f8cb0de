//! Whether a run was what its scenario expects.

use std::{collections::BTreeMap, time::Duration};

use leeward_common::id::RegionId;

use super::{Expectation, Expected, expect::state_word};
use crate::{intent::Owner, view::RegionState};

/// What a run is judged by: the same of virtual time and of the lab.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    /// Every decision, in order of time.
    pub moves: Vec<Moved>,
    /// When each region's state became what, in order of time. Before the first it is unknown.
    pub states: BTreeMap<RegionId, Vec<(Duration, RegionState)>>,
}

/// A decision, as far as it is judged.
#[derive(Clone, Debug, PartialEq)]
pub struct Moved {
    /// When.
    pub at: Duration,
    /// Whose selection.
    pub owner: Owner,
    /// The selection from then on.
    pub to: Option<RegionId>,
    /// The code of its reason.
    pub reason: String,
}

/// How an expectation came out.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It held from this time on.
    Met {
        /// When it was so for good.
        at: Duration,
    },
    /// It never held in time.
    Missed {
        /// What was so at the deadline instead.
        instead: String,
    },
    /// It held in time and then no longer.
    Lost {
        /// When it ceased to hold.
        at: Duration,
        /// What was so then.
        to: String,
    },
}

impl Verdict {
    /// Whether it is as expected.
    #[must_use]
    pub const fn is_met(&self) -> bool {
        matches!(self, Self::Met { .. })
    }
}

/// Something that is so from a time on: whether it is as expected, and what it is.
type Stretch = (Duration, bool, String);

/// Judges one expectation by the record of a run.
#[must_use]
pub fn judge(expectation: &Expectation, record: &Record) -> Verdict {
    let stretches: Vec<Stretch> = match &expectation.what {
        Expected::Selected {
            owner,
            region,
            reason,
        } => {
            let nothing = (
                Duration::ZERO,
                region.is_none() && reason.is_none(),
                "none".to_owned(),
            );
            let moves = record.moves.iter().filter(|own| own.owner == *owner);
            let moves = moves.map(|own| {
                let right =
                    own.to == *region && reason.as_ref().is_none_or(|code| *code == own.reason);
                (own.at, right, own.words(reason.is_some()))
            });
            std::iter::once(nothing).chain(moves).collect()
        }
        Expected::State { region, state } => {
            let word = |state| state_word(state).to_owned();
            let unknown = (
                Duration::ZERO,
                *state == RegionState::Unknown,
                word(RegionState::Unknown),
            );
            let known = record.states.get(region).into_iter().flatten();
            let known = known.map(|(at, own)| (*at, own == state, word(*own)));
            std::iter::once(unknown).chain(known).collect()
        }
        Expected::Moves { owner, at_most } => {
            return judge_moves(expectation, owner.as_ref(), *at_most, record);
        }
    };
    judge_stretches(expectation, &stretches)
}

fn judge_moves(
    expectation: &Expectation,
    owner: Option<&Owner>,
    at_most: usize,
    record: &Record,
) -> Verdict {
    let Expectation { since, until, .. } = *expectation;
    let counts = |own: &&Moved| {
        own.at > since && own.at <= until && owner.is_none_or(|owner| *owner == own.owner)
    };
    match record.moves.iter().filter(counts).nth(at_most) {
        None => Verdict::Met { at: since },
        Some(own) => Verdict::Lost {
            at: own.at,
            to: format!("{} to {}", own.owner, own.words(true)),
        },
    }
}

fn judge_stretches(expectation: &Expectation, stretches: &[Stretch]) -> Verdict {
    let Expectation {
        since, by, until, ..
    } = expectation;
    let mut met = None;
    let mut instead = String::new();
    let mut lost = None;
    let ends = stretches.iter().skip(1).map(|(at, ..)| *at);
    for ((begin, right, what), end) in stretches.iter().zip(ends.chain([Duration::MAX])) {
        if begin <= by {
            instead.clone_from(what);
        }
        if *right {
            let from = *begin.max(since);
            let in_time = from <= *by && end > from;
            if met.is_none() && in_time {
                (met, lost) = (Some(from), None);
            }
        } else if met.is_some() && begin <= until {
            // What ended before the deadline may still come back in time.
            lost = Some((*begin, what.clone()));
            if begin <= by {
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

impl Moved {
    fn words(&self, with_reason: bool) -> String {
        let to = self.to.as_ref().map_or("none", RegionId::as_str);
        match with_reason {
            true => format!("{to} [{}]", self.reason),
            false => to.to_owned(),
        }
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

    fn expectation(since: u64, by: u64, until: u64, what: Expected) -> Expectation {
        Expectation {
            since: s(since),
            by: s(by),
            until: s(until),
            what,
        }
    }

    fn selects_a(reason: Option<&str>) -> Expected {
        Expected::Selected {
            owner: Owner::Region(region("p")),
            region: Some(region("a")),
            reason: reason.map(str::to_owned),
        }
    }

    fn record(moves: &[(u64, Option<&str>)]) -> Record {
        let moved = |&(at, to): &(u64, Option<&str>)| Moved {
            at: s(at),
            owner: Owner::Region(region("p")),
            to: to.map(region),
            reason: "better".to_owned(),
        };
        Record {
            moves: moves.iter().map(moved).collect(),
            ..Record::default()
        }
    }

    fn judged(since: u64, by: u64, until: u64, moves: &[(u64, Option<&str>)]) -> Verdict {
        judge(
            &expectation(since, by, until, selects_a(None)),
            &record(moves),
        )
    }

    #[test]
    fn a_selection_that_comes_in_time_and_stays_is_met() {
        let moves = [(1, Some("b")), (7, Some("a"))];
        assert_eq!(judged(5, 8, 20, &moves), Verdict::Met { at: s(7) });
    }

    #[test]
    fn one_that_was_there_all_along_is_met_at_once() {
        assert_eq!(
            judged(5, 8, 20, &[(1, Some("a"))]),
            Verdict::Met { at: s(5) }
        );
    }

    #[test]
    fn one_that_comes_late_is_missed() {
        let missed = |instead: &str| Verdict::Missed {
            instead: instead.to_owned(),
        };
        let moves = [(1, Some("b")), (9, Some("a"))];
        assert_eq!(judged(5, 8, 20, &moves), missed("b"));
        assert_eq!(judged(5, 8, 20, &[]), missed("none"));
    }

    #[test]
    fn one_that_leaves_before_until_is_lost() {
        let moves = [(1, Some("a")), (12, None)];
        let lost = Verdict::Lost {
            at: s(12),
            to: "none".to_owned(),
        };
        assert_eq!(judged(5, 8, 20, &moves), lost);
        assert_eq!(judged(5, 8, 8, &moves), Verdict::Met { at: s(5) });
    }

    #[test]
    fn one_that_wavers_before_the_deadline_may_still_be_met() {
        let moves = [(5, Some("a")), (6, Some("b")), (7, Some("a"))];
        assert_eq!(judged(5, 8, 20, &moves), Verdict::Met { at: s(7) });
    }

    #[test]
    fn one_for_another_reason_is_missed() {
        let record = record(&[(6, Some("a"))]);
        let of = |reason| judge(&expectation(5, 8, 8, selects_a(Some(reason))), &record);
        assert_eq!(of("better"), Verdict::Met { at: s(6) });
        let instead = "a [better]".to_owned();
        assert_eq!(of("down"), Verdict::Missed { instead });
    }

    #[test]
    fn a_move_too_many_is_found() {
        let moves = |at_most| {
            let what = Expected::Moves {
                owner: None,
                at_most,
            };
            let record = record(&[(5, Some("a")), (6, Some("b")), (21, None)]);
            judge(&expectation(5, 20, 20, what), &record)
        };
        let lost = Verdict::Lost {
            at: s(6),
            to: "p to b [better]".to_owned(),
        };
        assert_eq!(moves(0), lost);
        assert_eq!(moves(1), Verdict::Met { at: s(5) });
    }

    #[test]
    fn a_region_is_unknown_before_it_is_heard_of() {
        let judged = |by, state| {
            let what = Expected::State {
                region: region("a"),
                state,
            };
            let states = [(s(3), RegionState::Up), (s(8), RegionState::Down)];
            let record = Record {
                states: BTreeMap::from([(region("a"), states.to_vec())]),
                ..Record::default()
            };
            judge(&expectation(0, by, by, what), &record)
        };
        assert_eq!(judged(1, RegionState::Unknown), Verdict::Met { at: s(0) });
        assert_eq!(judged(4, RegionState::Up), Verdict::Met { at: s(3) });
        assert_eq!(judged(9, RegionState::Down), Verdict::Met { at: s(8) });
        let instead = "up".to_owned();
        assert_eq!(judged(4, RegionState::Down), Verdict::Missed { instead });
    }
}
