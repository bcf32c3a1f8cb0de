//! `leeward config check`: is a file valid, and if not, where and what to do.
//!
//! A scenario and a file of definitions are read here; whether the regions of a definition exist, its aggregator knows. `agent.toml` and `aggregator.toml` are checked by the daemons themselves
//! (`leeward-agent --config FILE --check`): only the program that will run with a file can say that it will, and this
//! one stays free of what the daemons need. They are looked for beside this program and in PATH.

use std::{
    env, fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    process,
};

use leeward_common::{config::Document, definitions};
use leeward_engine::scenario::Scenario;
use serde::Serialize;

use crate::{
    args::{ConfigCommand, ConfigKind},
    exit::{Exit, Failure},
    output::{Output, Tone},
    table::{Cell, Table},
};

/// What is to be said about one file.
#[derive(Clone, Debug, Serialize)]
struct Checked {
    file: String,
    kind: &'static str,
    valid: bool,
    /// Where and what to do; empty for a valid file.
    detail: String,
}

/// Runs `leeward config …`.
///
/// # Errors
///
/// Returns why a file could not be checked at all.
pub fn run(out: &Output, command: &ConfigCommand) -> Result<Exit, Failure> {
    let ConfigCommand::Check { files, kind } = command;
    let mut checked = Vec::with_capacity(files.len());
    for file in files {
        checked.push(check(file, *kind)?);
    }
    let mut table = Table::new()
        .left("file")
        .left("kind")
        .left("valid")
        .left("detail");
    for one in &checked {
        let valid = if one.valid {
            Cell::from("yes")
        } else {
            Cell::new(Tone::Bad, "no")
        };
        table.row(vec![
            one.file.as_str().into(),
            one.kind.into(),
            valid,
            one.detail.as_str().into(),
        ]);
    }
    out.list(&checked, &checked, "", &table)?;
    Ok(if checked.iter().all(|one| one.valid) {
        Exit::Done
    } else {
        Exit::BadNews
    })
}

fn check(file: &Path, kind: Option<ConfigKind>) -> Result<Checked, Failure> {
    let text = fs::read_to_string(file).map_err(|error| {
        let exit = if error.kind() == ErrorKind::NotFound {
            Exit::NotFound
        } else {
            Exit::Failed
        };
        Failure::new(exit, format!("cannot read {}: {error}", file.display()))
    })?;
    let kind = match kind.or_else(|| recognise(&text)) {
        Some(kind) => kind,
        None => {
            return Err(Failure::new(
                Exit::Usage,
                format!("cannot tell what {} is", file.display()),
            )
            .step("--kind agent, aggregator, scenario or definitions says it"));
        }
    };
    let name = file.display().to_string();
    let (word, outcome) = match kind {
        ConfigKind::Scenario => (
            "scenario",
            Scenario::parse(&name, &text)
                .map(|_| ())
                .map_err(|error| error.to_string()),
        ),
        ConfigKind::Definitions => {
            let document = Document {
                file: &name,
                text: &text,
            };
            let outcome = definitions::parse(&document).map(|_| ());
            ("definitions", outcome.map_err(|error| error.to_string()))
        }
        ConfigKind::Agent => ("agent", daemon("leeward-agent", file)?),
        ConfigKind::Aggregator => ("aggregator", daemon("leeward-aggregator", file)?),
    };
    Ok(Checked {
        file: name,
        kind: word,
        valid: outcome.is_ok(),
        detail: outcome.err().unwrap_or_default(),
    })
}

/// Tells the kind by the keys that only one of them has. A file with a syntax error is told by its lines.
fn recognise(text: &str) -> Option<ConfigKind> {
    let keys: Vec<String> = match text.parse::<toml::Table>() {
        Ok(table) => table.keys().cloned().collect(),
        Err(_) => text.lines().filter_map(key).map(str::to_owned).collect(),
    };
    let has = |names: &[&str]| keys.iter().any(|key| names.contains(&key.as_str()));
    if has(&["service", "offer", "reservation", "override", "reach"])
        && !has(&["region", "event", "duration"])
    {
        return Some(ConfigKind::Definitions);
    }
    if has(&[
        "agent",
        "aggregator",
        "allowed_networks",
        "max_probes_per_second",
        "uplink",
    ]) {
        return Some(ConfigKind::Agent);
    }
    if has(&[
        "api",
        "credentials",
        "data_dir",
        "listen",
        "journal_retention",
        "minute_retention",
        "hour_retention",
    ]) {
        return Some(ConfigKind::Aggregator);
    }
    has(&["link", "event", "expect", "duration", "seed"]).then_some(ConfigKind::Scenario)
}

/// The top-level key or section of one line.
fn key(line: &str) -> Option<&str> {
    let line = line.trim();
    let word = line.trim_start_matches('[');
    let end = word.find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-')?;
    (end > 0 && !line.starts_with('#')).then(|| &word[..end])
}

/// Asks the daemon itself.
fn daemon(name: &str, file: &Path) -> Result<Result<(), String>, Failure> {
    let Some(program) = find(name) else {
        return Err(Failure::new(
            Exit::NotFound,
            format!("{name} checks such a file, and it is neither beside this program nor in PATH"),
        )
        .step(format!(
            "run this where {name} is installed, or: {name} --config {} --check",
            file.display()
        )));
    };
    let output = process::Command::new(&program)
        .arg("--config")
        .arg(file)
        .arg("--check")
        .stdin(process::Stdio::null())
        .output()
        .map_err(|error| {
            Failure::new(
                Exit::Failed,
                format!("cannot run {}: {error}", program.display()),
            )
        })?;
    if output.status.success() {
        return Ok(Ok(()));
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim().trim_start_matches("error: ");
    Ok(Err(if said.is_empty() {
        format!("{name} says {}", output.status)
    } else {
        said.to_owned()
    }))
}

fn find(name: &str) -> Option<PathBuf> {
    let beside = env::current_exe()
        .ok()
        .and_then(|program| Some(program.parent()?.join(name)));
    let path = env::var_os("PATH").unwrap_or_default();
    let in_path = env::split_paths(&path).map(|directory| directory.join(name));
    beside
        .into_iter()
        .chain(in_path)
        .find(|program| program.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_told_by_its_keys() {
        assert_eq!(
            recognise("region = \"iad\"\nagent = \"a\"\n"),
            Some(ConfigKind::Agent)
        );
        assert_eq!(
            recognise("[api]\nlisten = \"127.0.0.1:1\"\n[[region]]\nid = \"a\"\n"),
            Some(ConfigKind::Aggregator)
        );
        assert_eq!(
            recognise("duration = \"40s\"\n[[region]]\nid = \"a\"\n"),
            Some(ConfigKind::Scenario)
        );
        assert_eq!(
            recognise("[[service]]\nid = \"a\"\n"),
            Some(ConfigKind::Definitions)
        );
        assert_eq!(recognise("colour = 3\n"), None);
    }

    #[test]
    fn a_file_with_a_syntax_error_is_told_too() {
        assert_eq!(
            recognise("# agent\n[api]\nlisten = \n"),
            Some(ConfigKind::Aggregator)
        );
    }
}
