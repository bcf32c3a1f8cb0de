//! Why a selection does not move although somebody else looks better: a state while it lasts, and an event when it
//! begins and when it ends without a move. What was refused is as much of a decision as what was done.

use leeward_common::{id::RegionId, time::Timestamp};
use serde::{Deserialize, Serialize};

use crate::{intent::Owner, verdict::words::time_of_day};

/// What a selection waits for.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Waiting {
    /// A stable word for programs.
    pub code: WaitingCode,
    /// The region that would be selected; `None` where nobody in particular would.
    pub to: Option<RegionId>,
    /// Why not now, in words.
    pub detail: String,
    /// When it ends if nothing else changes; `None` if time alone does not end it.
    pub until: Option<Timestamp>,
}

impl Waiting {
    /// What is waited for, as a clause: `virginia stays with oregon until 03:12:40 UTC although ireland looks better: …`.
    #[must_use]
    pub fn words(&self, owner: &Owner, selected: Option<&RegionId>) -> String {
        let here = selected.map_or("nothing", RegionId::as_str);
        let there = self.to.as_ref().map_or("another", RegionId::as_str);
        let stays = match owner {
            Owner::Region(region) => format!("{region} stays with {here}"),
            Owner::Service(service) => format!("{service} stays in {here}"),
        };
        let until = self.until.map(time_of_day);
        let until = until.map_or_else(String::new, |until| format!(" until {until}"));
        let why = &self.detail;
        match self.code {
            WaitingCode::CutOff => format!("{stays} while {why}"),
            WaitingCode::Silence => {
                format!("{stays}{until} and then goes to {there}, unless {here} is heard of: {why}")
            }
            WaitingCode::Doubt
            | WaitingCode::Routing
            | WaitingCode::Subsiding
            | WaitingCode::FailbackManual => {
                format!("{stays} although {there} has {why}")
            }
            WaitingCode::Confirming => {
                format!("{stays}{until} and then goes to {there}, unless that changes: {why}")
            }
            WaitingCode::Patience => format!("{stays}{until} at least although {there} has {why}"),
            WaitingCode::Flapping
            | WaitingCode::Held
            | WaitingCode::Budget
            | WaitingCode::Storm => {
                format!("{stays}{until} although {there} looks better: {why}")
            }
        }
    }
}

/// What is waited for, in the order in which a challenger meets them.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitingCode {
    /// The observers are cut off: nothing is known, so nothing moves.
    CutOff,
    /// The selected region has not been heard of, but not for long enough.
    Silence,
    /// A challenger leads, but by less than the doubt about both.
    Doubt,
    /// A challenger leads only by what routers tell of the selected region, and that alone is no reason to leave.
    Routing,
    /// A challenger leads by loss that the selected region had, and has no more.
    Subsiding,
    /// A challenger leads beyond doubt, but not for long enough.
    Confirming,
    /// A challenger leads by little, or something bad has driven us from it: it must lead for longer.
    Patience,
    /// Something bad has driven us from the challenger, and going back is an operator's to say.
    FailbackManual,
    /// The challenger was left too often lately.
    Flapping,
    /// The last move was too short a while ago.
    Held,
    /// This selection has moved too often in an hour.
    Budget,
    /// All selections together have moved too often in a minute.
    Storm,
}

impl WaitingCode {
    /// The word for programs.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::CutOff => "cut_off",
            Self::Silence => "silence",
            Self::Doubt => "doubt",
            Self::Routing => "routing",
            Self::Subsiding => "subsiding",
            Self::Confirming => "confirming",
            Self::Patience => "patience",
            Self::FailbackManual => "failback_manual",
            Self::Flapping => "flapping",
            Self::Held => "held",
            Self::Budget => "budget",
            Self::Storm => "storm",
        }
    }
}

/// A move that was not made: an event like a decision.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Hesitation {
    /// When: a multiple of the policy's `evaluate_every`.
    pub at: Timestamp,
    /// Whose selection it is.
    pub owner: Owner,
    /// What is selected meanwhile.
    pub selected: Option<RegionId>,
    /// What is waited for, or was.
    pub waiting: Waiting,
    /// Whether this is the end of it: what spoke for the move is gone, and none was made.
    pub ruled_out: bool,
}
