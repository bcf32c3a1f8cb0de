//! The moves of two policies on the same inputs, side by side.

use std::time::Duration;

use leeward_engine::decision::Decision;

/// Two moves of one owner to the same region this close to each other are the same move.
const SAME_WITHIN: Duration = Duration::from_secs(60);

/// How many moves of a kind are told of.
const MAX_MOVES: usize = 1_000;

/// The moves of two policies.
#[derive(Debug, Default)]
pub struct Moves {
    /// Made by both at the same time.
    pub same: u64,
    /// Made by both, but not at the same time.
    pub shifted: Vec<Shifted>,
    /// Made by the policy in force only.
    pub only_current: Vec<Decision>,
    /// Made by the other only.
    pub only_other: Vec<Decision>,
}

/// A move that both made, one earlier than the other.
#[derive(Debug)]
pub struct Shifted {
    /// By the policy in force.
    pub current: Decision,
    /// By the other.
    pub other: Decision,
}

impl Moves {
    /// Each move of the one finds the nearest of the other that it can be.
    #[must_use]
    pub fn compare(current: &[Decision], other: &[Decision]) -> Self {
        let mut left: Vec<&Decision> = other.iter().collect();
        let mut moves = Self::default();
        let apart = |a: &Decision, b: &Decision| a.at.since(b.at).max(b.at.since(a.at));
        for own in current {
            let is_it = |theirs: &&Decision| {
                theirs.owner() == own.owner()
                    && theirs.to == own.to
                    && apart(own, theirs) <= SAME_WITHIN
            };
            let nearest = left.iter().enumerate().filter(|(_, theirs)| is_it(theirs));
            let nearest = nearest.min_by_key(|(_, theirs)| apart(own, theirs));
            let found = nearest.map(|(place, _)| place);
            match found.map(|place| left.remove(place)) {
                None => moves.only_current.push(own.clone()),
                Some(theirs) if theirs.at == own.at => moves.same += 1,
                Some(theirs) => moves.shifted.push(Shifted {
                    current: own.clone(),
                    other: theirs.clone(),
                }),
            }
        }
        moves.only_other = left.into_iter().cloned().collect();
        moves.shifted.truncate(MAX_MOVES);
        moves.only_current.truncate(MAX_MOVES);
        moves.only_other.truncate(MAX_MOVES);
        moves
    }
}
