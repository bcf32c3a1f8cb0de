//! Policies: the one in force, and the shadow that only records what it would do.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use super::{Scoreboard, Time};

/// A policy, written out.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WrittenPolicy {
    /// A hash of all values: the same for two texts that say the same.
    pub policy_version: String,
    /// The sections of a configuration file that say it, with every default spelt out.
    pub toml: String,
    /// The same by the names of the values, such as `policy.steadiness.margin`; each value as TOML.
    pub parameters: BTreeMap<String, String>,
}

/// The shadow policy as somebody sets it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ShadowSpec {
    /// The policy sections of a configuration file, as TOML.
    pub policy: String,
    /// Why, for the audit log.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// The shadow policy.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ShadowPolicy {
    /// As of which change it is so: send it as `If-Match` and nobody else's change is overwritten.
    pub version: u64,
    /// Who changed it last: a token's name, or `file:NAME`.
    pub who: String,
    /// When.
    pub at: Time,
    /// It, written out.
    pub written: WrittenPolicy,
    /// As it was set.
    pub spec: ShadowSpec,
}

/// The policies.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Policies {
    /// Both in one sentence.
    pub summary: String,
    /// The one in force.
    pub current: CurrentPolicy,
    /// The shadow; `null` if none is set.
    pub shadow: Option<ShadowStanding>,
    /// What the shadow says otherwise, in the order of the names.
    pub differences: Vec<ParameterDifference>,
    /// Both, measured by the same yard over the same time; `null` before there is any.
    pub scoreboard: Option<Scoreboard>,
    /// The time of the picture.
    pub evaluated_at: Time,
}

/// The policy in force.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CurrentPolicy {
    /// A hash of all values.
    pub policy_version: String,
    /// How many regions it has.
    pub regions: u64,
}

/// How the shadow stands.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ShadowStanding {
    /// As of which change it is set.
    pub version: u64,
    /// A hash of all values.
    pub policy_version: String,
    /// Who set it.
    pub who: String,
    /// Why.
    pub why: String,
    /// When.
    pub at: Time,
    /// What it does.
    pub state: ShadowState,
    /// What keeps it from its work; empty if nothing does.
    pub detail: String,
    /// Since when it counts: after a restart that is later than when it was set. `null` while it does not yet.
    pub since: Option<Time>,
    /// How far it has come.
    pub until: Option<Time>,
    /// How often it could not keep up and began again, since it was set or the aggregator was started.
    pub restarts: u64,
}

/// What the shadow does.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ShadowState {
    /// It reads what was before.
    Starting,
    /// It keeps up.
    Following,
    /// It does not keep up, and tries to.
    Behind,
    /// It cannot read the journal, and tries again.
    Failed,
}

impl fmt::Display for ShadowState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Starting => "starting",
            Self::Following => "following",
            Self::Behind => "behind",
            Self::Failed => "failed",
        })
    }
}

/// A value that is not the same in both.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ParameterDifference {
    /// Which, such as `policy.steadiness.margin` or `region.us-east.capacity`.
    pub parameter: String,
    /// In force, as TOML; `null` if there is no such value.
    pub current: Option<String>,
    /// In the shadow.
    pub shadow: Option<String>,
}
