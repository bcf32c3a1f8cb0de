//! Where recordings lie and how they are read.
//!
//! A folder has this shape; `docs/evaluation.md` names the public sources:
//!
//! ```text
//! latency/atlas/*.csv         epoch;rtt;cp          ms, one sample each 240 s; rtt <= 0 or absurd is a lost probe
//! latency/azure/rtt_ms.csv    Source,<region>,…     ms, a blank is unknown
//! latency/azure/regions.json  name: lat, lon, displayName
//! latency/planetlab/*.tsv     one square matrix each, ms; 0 is the host itself or unknown
//! ```

use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// A folder of recordings.
#[derive(Clone, Debug)]
pub struct Recordings {
    folder: PathBuf,
}

impl Recordings {
    /// Those of this folder, else of `LEEWARD_DATA`, else of the folder that stands beside the project.
    #[must_use]
    pub fn find(folder: Option<PathBuf>) -> Self {
        let folder = folder
            .or_else(|| std::env::var_os("LEEWARD_DATA").map(PathBuf::from))
            .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"));
        Self { folder }
    }

    /// A part, if it is there.
    ///
    /// # Errors
    ///
    /// Says which folder is missing.
    pub fn part(&self, name: &str) -> Result<PathBuf, String> {
        let folder = self.folder.join(name);
        if folder.is_dir() {
            return Ok(folder);
        }
        Err(format!(
            "there is no {}; set LEEWARD_DATA or --data to a folder that has it",
            folder.display()
        ))
    }
}

/// Files of a folder that end so, by name.
///
/// # Errors
///
/// Says what could not be read.
pub fn files(folder: &Path, ending: &str) -> anyhow::Result<Vec<PathBuf>> {
    let entries = folder
        .read_dir()
        .with_context(|| format!("cannot read {}", folder.display()))?;
    let mut files: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|own| own == ending))
        .collect();
    files.sort();
    Ok(files)
}

/// The text of a file.
///
/// # Errors
///
/// Says which file could not be read.
pub fn text(file: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}
