//! `[stamp]`: the reflector, and how STAMP packets are authenticated.

use std::path::{Path, PathBuf};

use leeward_common::config::{ConfigError, Document, Spanned};
use serde::Deserialize;

use crate::{admission::Network, probe::stamp};

/// The most replies per second unless configured otherwise: a mesh of a hundred agents at ten probes per second each way,
/// and room.
const MAX_REFLECTIONS_PER_SECOND: u32 = 10_000;

/// The reflector, and how STAMP packets are authenticated.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Stamp {
    /// Whether this agent reflects.
    pub reflect: bool,
    /// The UDP port on which it does.
    pub port: u16,
    /// Whom it answers beside the agents of the mesh.
    pub reflect_for: Vec<Network>,
    /// The most replies per second.
    pub max_reflections_per_second: u32,
    /// The file of the mesh's key; without one packets are not authenticated.
    pub mesh_key: Option<PathBuf>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawStamp {
    reflect: Option<bool>,
    port: Option<Spanned<u16>>,
    #[serde(default)]
    reflect_for: Vec<Spanned<String>>,
    max_reflections_per_second: Option<Spanned<u32>>,
    mesh_key: Option<PathBuf>,
}

impl RawStamp {
    pub(super) fn valid(
        &self,
        document: &Document<'_>,
        credentials_directory: &Path,
    ) -> Result<Stamp, ConfigError> {
        let parse = |network: &Spanned<String>| {
            let parsed = network.get_ref().parse::<Network>();
            parsed.map_err(|error| document.error(network.span(), error.to_string()))
        };
        let max_reflections_per_second = match &self.max_reflections_per_second {
            None => MAX_REFLECTIONS_PER_SECOND,
            Some(rate) if (1..=1_000_000).contains(rate.get_ref()) => *rate.get_ref(),
            Some(rate) => {
                let message = format!(
                    "stamp.max_reflections_per_second is {}; use 1 to 1000000, or reflect = false",
                    rate.get_ref()
                );
                return Err(document.error(rate.span(), message));
            }
        };
        Ok(Stamp {
            reflect: self.reflect.unwrap_or(true),
            port: super::port(document, self.port.as_ref(), "stamp.port", stamp::PORT)?,
            reflect_for: self
                .reflect_for
                .iter()
                .map(parse)
                .collect::<Result<_, _>>()?,
            max_reflections_per_second,
            mesh_key: self
                .mesh_key
                .as_ref()
                .map(|file| credentials_directory.join(file)),
        })
    }
}
