//! `[checks]`: what this agent may ask of services in other regions, and how fast.

use std::path::{Path, PathBuf};

use leeward_common::config::{ConfigError, Document, Spanned};
use serde::Deserialize;

use crate::{admission::Network, checks::Allowed};

/// What this agent may ask of services, and how fast.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Checks {
    /// The addresses that may be asked.
    pub allowed: Allowed,
    /// A file of authorities that are believed beside the public ones.
    pub ca: Option<PathBuf>,
    /// The most questions at once.
    pub concurrency: usize,
    /// The most questions per second.
    pub max_per_second: u32,
}

mod defaults {
    pub(super) const CONCURRENCY: u32 = 32;
    pub(super) const MAX_PER_SECOND: u32 = 50;
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawChecks {
    allow: Option<Vec<Spanned<String>>>,
    ca: Option<PathBuf>,
    concurrency: Option<Spanned<u32>>,
    max_per_second: Option<Spanned<u32>>,
}

impl RawChecks {
    /// `probed` are the networks that may be probed; they may be asked too where nothing else is said.
    pub(super) fn valid(
        &self,
        document: &Document<'_>,
        probed: &[Network],
        directory: &Path,
    ) -> Result<Checks, ConfigError> {
        let allowed = match &self.allow {
            None => Allowed {
                networks: probed.to_vec(),
                key: "allowed_networks",
            },
            Some(allow) => Allowed {
                networks: super::networks(document, allow)?,
                key: "checks.allow",
            },
        };
        let number = |written: &Option<Spanned<u32>>, key: &str, default, most| match written {
            None => Ok(default),
            Some(own) if (1..=most).contains(own.get_ref()) => Ok(*own.get_ref()),
            Some(own) => {
                let message = format!("checks.{key} is {}; use 1 to {most}", own.get_ref());
                Err(document.error(own.span(), message))
            }
        };
        let concurrency = number(&self.concurrency, "concurrency", defaults::CONCURRENCY, 256)?;
        Ok(Checks {
            allowed,
            ca: self.ca.as_ref().map(|file| directory.join(file)),
            concurrency: concurrency as usize,
            max_per_second: number(
                &self.max_per_second,
                "max_per_second",
                defaults::MAX_PER_SECOND,
                1_000,
            )?,
        })
    }
}
