//! `leeward-aggregator store …`: looking after a data directory that no aggregator is using.
//!
//! - [`verify`]: is every record what was written, and if not which are damaged. Changes nothing.
//! - [`stats`]: what takes how much, and from when until when it reaches. Changes nothing.
//! - [`restore`]: a backup becomes a data directory; a damaged one as far as it can be read.

use std::path::PathBuf;

use clap::Subcommand;

use crate::store::{
    key::{Column, Position, from_late, path::Grain},
    rocks::Rocks,
};

pub mod restore;
pub mod stats;
mod unreadable;
pub mod verify;

/// What to do with a data directory.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Read every record and every checksum: what is damaged is named, with what it affects. Exit code 3 if anything is.
    Verify {
        /// The data directory, or a backup; no aggregator may be using it.
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// Write the answer as JSON.
        #[arg(long)]
        json: bool,
    },
    /// What takes how much, and from when until when it reaches.
    Stats {
        /// The data directory, or a backup; an aggregator may be using it.
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// Write the answer as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Merge the files of each column, and give the room of what was deleted back to the disk.
    Compact {
        /// The data directory; no aggregator may be using it.
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
    },
    /// Make a data directory from a backup, or from a damaged data directory.
    Restore {
        /// The backup, as `leeward backup` names it.
        #[arg(long, value_name = "DIR")]
        from: PathBuf,
        /// The data directory to be; it must be empty, or not be there yet.
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// Copy what can be read, record by record, and leave out what is damaged.
        #[arg(long)]
        damaged: bool,
    },
}

impl Command {
    /// Does it, and writes the answer to stdout. Whether all is well.
    ///
    /// # Errors
    ///
    /// Returns why it is not done.
    pub fn run(&self) -> anyhow::Result<bool> {
        match self {
            Self::Verify { data, json } => {
                let verified = verify::verify(data)?;
                match json {
                    true => println!("{}", serde_json::to_string_pretty(&verified)?),
                    false => print!("{verified}"),
                }
                Ok(verified.findings.is_empty())
            }
            Self::Stats { data, json } => {
                let stats = stats::stats(data)?;
                match json {
                    true => println!("{}", serde_json::to_string_pretty(&stats)?),
                    false => print!("{stats}"),
                }
                Ok(true)
            }
            Self::Compact { data } => {
                let before = stats::stats(data)?.bytes();
                Rocks::open(data)?.compact()?;
                let after = stats::stats(data)?.bytes();
                println!(
                    "{} before, {} now",
                    stats::bytes(before),
                    stats::bytes(after)
                );
                Ok(true)
            }
            Self::Restore {
                from,
                data,
                damaged,
            } => {
                let restored = match damaged {
                    true => restore::salvage(from, data)?,
                    false => restore::restore(from, data)?,
                };
                print!("{restored}");
                Ok(true)
            }
        }
    }
}

/// A key, for people.
pub(crate) fn describe(column: Column, key: &[u8]) -> String {
    let told = match column {
        Column::Journal | Column::Decisions | Column::Snapshots => {
            Position::from_key(key).map(|at| format!("{} #{}", at.time, at.counter))
        }
        Column::Minutes => rollup(Grain::Minute, key),
        Column::Hours => rollup(Grain::Hour, key),
        Column::Late => {
            from_late(key).map(|(window, at)| format!("window {window} at {}", at.time))
        }
        Column::Audit => key
            .try_into()
            .ok()
            .map(|sequence| format!("entry {}", u64::from_be_bytes(sequence))),
        Column::Meta | Column::Tables | Column::Watermarks | Column::Registrations => None,
    };
    told.unwrap_or_else(|| format!("{:?}", key.escape_ascii().to_string()))
}

fn rollup(grain: Grain, key: &[u8]) -> Option<String> {
    let (start, path) = grain.parse(key)?;
    let to = path
        .to
        .map_or_else(|| "outside".to_owned(), |to| to.to_string());
    Some(format!(
        "{start} {} -> {to}, {} to {} by {}",
        path.from, path.agent, path.target, path.kind
    ))
}

#[cfg(test)]
mod tests;
