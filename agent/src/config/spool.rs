//! `[spool]`: batches that wait on disk.

use std::{path::PathBuf, time::Duration};

use leeward_common::config::{ConfigError, Document, Span, Spanned};
use serde::Deserialize;

use crate::spool::{DiskLimits, Policy, log::Sync};

/// Batches that wait on disk.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Spool {
    /// Where; `None` to let them wait in memory only.
    pub directory: Option<PathBuf>,
    /// How much, and when.
    pub limits: DiskLimits,
    /// The longest that a batch waits.
    pub max_age: Duration,
    /// When what was written is made to outlive a power failure.
    pub sync: Sync,
}

mod defaults {
    use std::time::Duration;

    /// A day of 200 paths at one window per second.
    pub(super) const MAX_MIB: u32 = 256;
    /// Aggregators refuse what is older.
    pub(super) const MAX_AGE: Duration = Duration::from_secs(24 * 3_600);
    /// Longer than the restart of an aggregator takes.
    pub(super) const WRITE_AFTER: Duration = Duration::from_secs(10);
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSpool {
    directory: Option<PathBuf>,
    max_mib: Option<Spanned<u32>>,
    max_age: Option<Spanned<Span>>,
    write_after: Option<Spanned<Span>>,
    sync: Option<Spanned<String>>,
}

impl RawSpool {
    pub(super) fn valid(&self, document: &Document<'_>) -> Result<Spool, ConfigError> {
        let max_mib = match &self.max_mib {
            None => defaults::MAX_MIB,
            Some(mib) if (16..=1_048_576).contains(mib.get_ref()) => *mib.get_ref(),
            Some(mib) => {
                let message = format!("spool.max_mib is {}; use 16 to 1048576", mib.get_ref());
                return Err(document.error(mib.span(), message));
            }
        };
        let minute = Duration::from_secs(60);
        let max_age = span(
            document,
            "max_age",
            self.max_age.as_ref(),
            defaults::MAX_AGE,
            minute..=minute * 60 * 24,
        )?;
        let tenth = Duration::from_millis(100);
        let write_after = span(
            document,
            "write_after",
            self.write_after.as_ref(),
            defaults::WRITE_AFTER,
            tenth..=minute * 10,
        )?;
        let sync = match self
            .sync
            .as_ref()
            .map(|sync| (sync, sync.get_ref().as_str()))
        {
            None | Some((_, "each_write")) => Sync::EachWrite,
            Some((_, "each_segment")) => Sync::EachSegment,
            Some((_, "never")) => Sync::Never,
            Some((sync, other)) => {
                let message = format!(
                    "spool.sync is {other:?}; use \"each_write\", \"each_segment\" or \"never\""
                );
                return Err(document.error(sync.span(), message));
            }
        };
        Ok(Spool {
            directory: self.directory.clone().or_else(state_directory),
            limits: DiskLimits::new(u64::from(max_mib) << 20, write_after),
            max_age,
            sync,
        })
    }
}

fn span(
    document: &Document<'_>,
    key: &str,
    given: Option<&Spanned<Span>>,
    default: Duration,
    allowed: std::ops::RangeInclusive<Duration>,
) -> Result<Duration, ConfigError> {
    match given {
        None => Ok(default),
        Some(span) if allowed.contains(&span.get_ref().0) => Ok(span.get_ref().0),
        Some(span) => {
            let (first, last) = allowed.into_inner();
            let message = format!(
                "spool.{key} is {:?}; use {first:?} to {last:?}",
                span.get_ref().0
            );
            Err(document.error(span.span(), message))
        }
    }
}

/// How many aggregators must have a batch before it is forgotten.
pub(super) fn policy(
    document: &Document<'_>,
    given: Option<&Spanned<String>>,
) -> Result<Policy, ConfigError> {
    match given.map(|given| (given, given.get_ref().as_str())) {
        None | Some((_, "all")) => Ok(Policy::All),
        Some((_, "quorum")) => Ok(Policy::Quorum),
        Some((_, "any")) => Ok(Policy::Any),
        Some((given, other)) => {
            let message =
                format!("uplink.forget_when is {other:?}; use \"any\", \"quorum\" or \"all\"");
            Err(document.error(given.span(), message))
        }
    }
}

/// The directory of systemd's `StateDirectory=`; of several the first.
fn state_directory() -> Option<PathBuf> {
    let given = std::env::var_os("STATE_DIRECTORY")?.into_string().ok()?;
    let first = given.split(':').next().filter(|first| !first.is_empty())?;
    Some(PathBuf::from(first).join("spool"))
}
