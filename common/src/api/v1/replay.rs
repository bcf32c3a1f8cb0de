//! Replays: the journal through an engine once more, and what came of it.

use std::{fmt, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Time;
use crate::{id::RegionId, time::Timestamp};

/// A point in time as people say it: RFC 3339, `now`, or a span before now such as `-2h` or `-90s`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum When {
    /// That time.
    At(Timestamp),
    /// So long before now.
    Ago(Duration),
}

impl When {
    /// Reads one.
    ///
    /// # Errors
    ///
    /// Returns what to write instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text == "now" {
            return Ok(Self::Ago(Duration::ZERO));
        }
        let read = match text.strip_prefix('-') {
            Some(span) => humantime::parse_duration(span).map(Self::Ago).ok(),
            None => Timestamp::parse_rfc3339(text).map(Self::At).ok(),
        };
        read.ok_or_else(|| {
            format!("{text:?} is no time; write 2026-11-20T03:12:11Z, -2h, -90s or now")
        })
    }

    /// The point in time, if it is now `now`.
    #[must_use]
    pub fn at(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(at) => at,
            Self::Ago(span) => now - span,
        }
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(at) => at.fmt(f),
            Self::Ago(Duration::ZERO) => f.write_str("now"),
            Self::Ago(span) => write!(f, "-{}", humantime::format_duration(*span)),
        }
    }
}

impl Serialize for When {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for When {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// What to replay.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ReplayRequest {
    /// From when on decisions are looked at: RFC 3339, or a span before now such as `-2h`.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub from: When,
    /// Until when; now if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub to: Option<When>,
    /// The policy sections of a configuration file, as TOML: come into force at `from`, in a second engine. Without one only the
    /// policies of then are replayed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
}

/// One line of the answer to a replay.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ReplayLine {
    /// How far it is; about twice a second.
    Progress(ReplayProgress),
    /// The last line: what came of it.
    Answer(Box<Replay>),
    /// The last line instead: it could not be done.
    Failed {
        /// Why not.
        detail: String,
    },
}

/// How far a replay is.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReplayProgress {
    /// The time that it has come to.
    pub at: Time,
    /// Where it ends.
    pub to: Time,
    /// Journal records so far.
    pub records: u64,
}

/// What came of a replay.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Replay {
    /// The answer in one sentence.
    pub summary: String,
    /// From when on decisions were looked at.
    pub from: Time,
    /// Until when.
    pub to: Time,
    /// Where the engine began.
    pub begun: ReplayBegin,
    /// Journal records that it was told.
    pub records: u64,
    /// Journal records that nobody can read any more. Where there are any, nothing can be promised.
    pub skipped: u64,
    /// Decisions stored or replayed in that time.
    pub decisions: u64,
    /// Those of them that are the same byte for byte.
    pub identical: u64,
    /// The first that is not; `null` if there is none.
    pub first_difference: Option<ReplayDifference>,
    /// What another policy would have done; `null` if none was given.
    pub other: Option<PolicyComparison>,
}

/// Where a replay began.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReplayBegin {
    /// When.
    pub at: Time,
    /// Whether the engine's whole state of then was known. If not, it began knowing only the policy and who was connected, and what
    /// it decided before `compared_from` is not compared.
    pub exact: bool,
    /// From when on decisions are compared.
    pub compared_from: Time,
    /// The build that wrote the state down; `null` if there was none.
    pub build: Option<String>,
}

/// The first decision that is not the same.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReplayDifference {
    /// When it was decided.
    pub at: Time,
    /// What differs, in words.
    pub detail: String,
}

/// Two policies on the same inputs.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PolicyComparison {
    /// The other policy.
    pub policy_version: String,
    /// Moves that both made at the same time.
    pub same: u64,
    /// Moves that both made within a minute of each other, but not at the same time.
    pub shifted: Vec<ShiftedMove>,
    /// Moves that only the policy in force made.
    pub only_current: Vec<PolicyMove>,
    /// Moves that only the other policy would have made.
    pub only_other: Vec<PolicyMove>,
    /// Both, measured by the same yard.
    pub scoreboard: Scoreboard,
}

/// A move.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PolicyMove {
    /// When.
    pub at: Time,
    /// Whose failover: a region, or a service.
    pub owner: String,
    /// From where.
    pub from: Option<RegionId>,
    /// To where.
    pub to: Option<RegionId>,
    /// A stable word.
    pub reason: String,
    /// Why, in one sentence.
    pub summary: String,
}

/// A move that both made, one earlier than the other.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ShiftedMove {
    /// The move by the policy in force.
    #[serde(flatten)]
    pub current: PolicyMove,
    /// By how much the other policy made it later, milliseconds; negative if earlier.
    pub other_later_ms: i64,
}

/// Two policies beside each other, measured by the rankings of the policy in force.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Scoreboard {
    /// Since when they are compared; `null` if they are not yet.
    pub since: Option<Time>,
    /// Until when.
    pub until: Time,
    /// Share of the selection time in which both selected the same, 0 to 1; `null` if there is none yet.
    pub agreement: Option<f64>,
    /// Selection time of all owners together that was looked at, milliseconds.
    pub watched_ms: u64,
    /// How much of it both selected the same.
    pub agreed_ms: u64,
    /// How often they began to differ.
    pub differed: u64,
    /// The policy in force.
    pub current: ScoreboardSide,
    /// The other one.
    pub other: ScoreboardSide,
    /// Where they differed, newest first; at most 256.
    pub divergences: Vec<Divergence>,
}

/// How one policy fared.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ScoreboardSide {
    /// Selections that it changed, first ones apart.
    pub moves: u64,
    /// Moves back to where the selection had been less than ten minutes before.
    pub flaps: u64,
    /// Moves that were judged by hindsight: five minutes after, or at the next move.
    pub judged_moves: u64,
    /// Those of them that gained less than 2 % of the best score on the average.
    pub false_moves: u64,
    /// Time in a region of more regret than the other policy's, milliseconds over all selections.
    pub worse_ms: u64,
    /// Time in regions that could not serve, or in none, milliseconds over all selections.
    pub down_ms: u64,
    /// Time in regions with certain loss above 1 %, milliseconds over all selections.
    pub lossy_ms: u64,
    /// Mean share of the best candidate's score that its selections did without, 0 to 1, lower is better; an estimate by the
    /// policy in force; `null` if it was never known.
    pub regret: Option<f64>,
    /// How long each region was selected.
    pub selected: Vec<SelectedFor>,
}

/// How long a region was selected.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SelectedFor {
    /// By whom: a region, or a service.
    pub owner: String,
    /// The region; `null` is none.
    pub region: Option<RegionId>,
    /// For how long, milliseconds.
    pub for_ms: u64,
}

/// A stretch of time in which two policies selected different regions.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Divergence {
    /// Whose selection: a region, or a service.
    pub owner: String,
    /// From when on.
    pub since: Time,
    /// Until when; `null` while it lasts.
    pub until: Option<Time>,
    /// What the policy in force had selected.
    pub current: Option<RegionId>,
    /// Why.
    pub current_why: String,
    /// What the other one had.
    pub other: Option<RegionId>,
    /// Why.
    pub other_why: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_may_be_said_from_now() {
        let now = Timestamp::from_unix_us(10_000_000_000);
        assert_eq!(
            When::parse("-2h").unwrap().at(now),
            now - Duration::from_secs(7_200)
        );
        assert_eq!(When::parse("now").unwrap().at(now), now);
        let at = When::parse("2026-11-20T03:12:11Z").unwrap();
        assert_eq!(When::parse(&at.to_string()).unwrap(), at);
        assert_eq!(
            When::parse(&When::parse("-90s").unwrap().to_string()),
            When::parse("-90s")
        );
        for text in ["", "-", "2h", "yesterday", "-2"] {
            assert!(When::parse(text).is_err(), "{text}");
        }
    }
}
