//! The audit log.

use serde::{Deserialize, Serialize};

use super::Time;

/// One entry: somebody did something, or was refused it. [`crate::audit`] says how entries are tied to each other.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditEntry {
    /// From 1, without gaps.
    pub sequence: u64,
    /// When, by the aggregator's clock.
    pub at: Time,
    /// Who: a token's name, `file:NAME` for a file of definitions, `configuration` for aggregator.toml, `engine` for a
    /// decision.
    pub who: String,
    /// Why, in their words.
    pub why: String,
    /// What was done: `put`, `remove`, `policy`, `decision`, `expired`, `refused`; `unreadable` if the store's bytes are no entry.
    pub what: String,
    /// To what: its kind and its id.
    pub about: String,
    /// As of which change of what is defined; 0 where it is none.
    pub version: u64,
    /// What it is from then on, as TOML; for a decision its sentence, for a refusal its reason.
    pub detail: String,
    /// The hash of the entry before, as 64 hexadecimal digits.
    pub previous: String,
    /// The hash of this entry, as 64 hexadecimal digits.
    pub hash: String,
}

/// A page of the audit log.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Audit {
    /// The entries, in the order asked for.
    pub entries: Vec<AuditEntry>,
    /// Entries in the whole log.
    pub length: u64,
    /// The hash of the newest entry: keep it elsewhere, and the end of the log cannot be cut off unseen.
    pub head: String,
    /// `after` or `before` of the next page; `null` if this is the last.
    pub next: Option<u64>,
}
