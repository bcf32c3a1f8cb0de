//! Backups of an aggregator's store.

use serde::{Deserialize, Serialize};

use super::Time;

/// The backups that are there.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Backups {
    /// Oldest first.
    pub backups: Vec<Backup>,
}

/// A copy of an aggregator's whole store at one moment.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Backup {
    /// Its name.
    pub name: String,
    /// The directory, on the aggregator's host.
    pub path: String,
    /// When it was made.
    pub made_at: Time,
    /// Of all its files; those that the store still has too take no room of their own.
    pub bytes: u64,
}

/// A backup to be made.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewBackup {
    /// Why, for the audit log.
    #[serde(default)]
    pub why: String,
    /// How many are kept, this one among them; the oldest beyond are removed. 7 if left out, 100 at most.
    #[serde(default = "seven")]
    pub keep: u32,
}

const fn seven() -> u32 {
    7
}
