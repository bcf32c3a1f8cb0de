//! What a scenario expects of a run.

use std::time::Duration;

use leeward_common::id::RegionId;

use crate::{intent::Owner, view::RegionState};

/// What is expected, and when.
#[derive(Clone, Debug, PartialEq)]
pub struct Expectation {
    /// From when on it counts.
    pub since: Duration,
    /// By when it must hold.
    pub by: Duration,
    /// Until when it must then stay so; `by` itself if not given.
    pub until: Duration,
    /// What must hold.
    pub what: Expected,
}

/// What is expected.
#[derive(Clone, Debug, PartialEq)]
pub enum Expected {
    /// From some time in `since..=by` on and then until `until` this is selected.
    Selected {
        /// Whose selection.
        owner: Owner,
        /// The selection; `None` is written `"none"`.
        region: Option<RegionId>,
        /// The code of the reason of the decision that brought it there; any if `None`.
        reason: Option<String>,
    },
    /// From `since` to `until` there are at most so many decisions.
    Moves {
        /// Whose; everybody's together if `None`.
        owner: Option<Owner>,
        /// The most that there may be.
        at_most: usize,
    },
    /// From some time in `since..=by` on and then until `until` a region is in this state.
    State {
        /// The region.
        region: RegionId,
        /// Its state.
        state: RegionState,
    },
}

impl std::fmt::Display for Expectation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let secs = |span: Duration| span.as_secs_f64();
        match &self.what {
            Expected::Selected {
                owner,
                region,
                reason,
            } => {
                let region = region.as_ref().map_or("none", RegionId::as_str);
                write!(f, "{} {region}", verb(owner))?;
                if let Some(reason) = reason {
                    write!(f, " [{reason}]")?;
                }
            }
            Expected::Moves { owner, at_most } => {
                match owner {
                    Some(owner) => write!(f, "{owner}")?,
                    None => write!(f, "everybody")?,
                }
                match at_most {
                    0 => write!(f, " stays")?,
                    1 => write!(f, " moves at most once")?,
                    _ => write!(f, " moves at most {at_most} times")?,
                }
                let (since, until) = (secs(self.since), secs(self.until));
                return write!(f, " from {since:.1} s until {until:.1} s");
            }
            Expected::State { region, state } => write!(f, "{region} is {}", state_word(*state))?,
        }
        write!(f, " by {:.1} s", secs(self.by))?;
        if self.until > self.by {
            write!(f, " until {:.1} s", secs(self.until))?;
        }
        Ok(())
    }
}

fn verb(owner: &Owner) -> String {
    match owner {
        Owner::Region(primary) => format!("{primary} fails over to"),
        Owner::Service(service) => format!("{service} runs in"),
    }
}

/// A region's state in a word.
pub(crate) const fn state_word(state: RegionState) -> &'static str {
    match state {
        RegionState::Up => "up",
        RegionState::Down => "down",
        RegionState::Unknown => "unknown",
    }
}
