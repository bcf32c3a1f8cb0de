//! `leeward audit …`: who did what and why, and whether anybody tampered with the answer.
//!
//! The log is checked here and not by the aggregator: who wrote it should not be the one to say that it is whole.

use std::{fs::File, io::BufRead, io::BufReader, path::Path};

use anyhow::Context;
use leeward_common::{
    api::v1::{Audit, AuditEntry},
    audit::{Hash, Verifier, hex, parse_hex},
};
use serde::Serialize;

use crate::{
    args::{AuditCommand, Cli},
    client::Client,
    exit::{Exit, Failure},
    output::Output,
    table::{Align, Table},
    words,
};

/// What a check found.
#[derive(Debug, Serialize)]
struct Verdict {
    /// Whether nothing is wrong.
    whole: bool,
    /// Entries that were looked at.
    entries: u64,
    /// The hash of the last.
    head: String,
    /// Everything that is wrong.
    broken: Vec<String>,
}

/// Runs `leeward audit …`.
///
/// # Errors
///
/// Returns why the log cannot be read.
pub fn run(cli: &Cli, out: &Output, command: Option<&AuditCommand>) -> Result<Exit, Failure> {
    match command {
        None => list(cli, out, 20),
        Some(AuditCommand::Ls { limit }) => list(cli, out, *limit),
        Some(AuditCommand::Export) => {
            let client = Client::new(&cli.global)?;
            let mut write = |entry: &AuditEntry| {
                let line = serde_json::to_string(entry).map_err(anyhow::Error::from)?;
                out.line(&line)
            };
            each(&client, &mut write)?;
            Ok(Exit::Done)
        }
        Some(AuditCommand::Verify { file, head }) => verify(cli, out, file.as_deref(), *head),
    }
}

fn list(cli: &Cli, out: &Output, limit: u32) -> Result<Exit, Failure> {
    let audit: Audit = Client::new(&cli.global)?.ask(&format!("/v1/audit?limit={limit}"))?;
    let mut table = Table::new()
        .right("entry")
        .left("at")
        .left("who")
        .left("what")
        .left("about")
        .wide("version", Align::Right)
        .left("why");
    for entry in &audit.entries {
        let why = match entry.why.is_empty() {
            true => entry.detail.lines().next().unwrap_or_default(),
            false => &entry.why,
        };
        table.row(vec![
            entry.sequence.to_string().into(),
            words::date_time(entry.at).into(),
            entry.who.as_str().into(),
            entry.what.as_str().into(),
            entry.about.as_str().into(),
            entry.version.to_string().into(),
            why.into(),
        ]);
    }
    out.list(&audit, &audit.entries, "", &table)?;
    out.talk(&format!("{} entries, head {}", audit.length, audit.head));
    Ok(Exit::Done)
}

fn verify(
    cli: &Cli,
    out: &Output,
    file: Option<&Path>,
    pinned: Option<Hash>,
) -> Result<Exit, Failure> {
    let mut verifier = Verifier::default();
    let head = match file {
        Some(file) => {
            read(file, &mut verifier)?;
            pinned
        }
        None => {
            let client = Client::new(&cli.global)?;
            let mut take = |entry: &AuditEntry| {
                verifier.take(entry);
                Ok(())
            };
            let told = each(&client, &mut take)?;
            pinned.or_else(|| parse_hex(&told))
        }
    };
    let (entries, last) = verifier.head();
    let broken: Vec<String> = verifier
        .finish(head)
        .iter()
        .map(ToString::to_string)
        .collect();
    let verdict = Verdict {
        whole: broken.is_empty(),
        entries,
        head: hex(&last),
        broken,
    };
    out.one(&verdict, |_| {
        if verdict.whole {
            return format!(
                "{entries} entries, all as they were written; head {}\n",
                verdict.head
            );
        }
        verdict
            .broken
            .iter()
            .map(|line| format!("{line}\n"))
            .collect()
    })?;
    Ok(if verdict.whole {
        Exit::Done
    } else {
        Exit::BadNews
    })
}

/// Every entry, oldest first; returns the head that the aggregator tells with the last page.
fn each(
    client: &Client,
    take: &mut dyn FnMut(&AuditEntry) -> Result<(), Failure>,
) -> Result<String, Failure> {
    let mut after = 0;
    loop {
        let page: Audit = client.ask(&format!("/v1/audit?after={after}&limit=1000"))?;
        page.entries.iter().try_for_each(&mut *take)?;
        match page.next {
            // A log in disorder does not lead in circles.
            Some(next) if next > after => after = next,
            _ => return Ok(page.head),
        }
    }
}

fn read(file: &Path, verifier: &mut Verifier) -> Result<(), Failure> {
    let name = file.display();
    let opened = File::open(file).with_context(|| format!("cannot read {name}"))?;
    for (line, number) in BufReader::new(opened).lines().zip(1_u64..) {
        let line = line.with_context(|| format!("cannot read {name}"))?;
        if line.trim().is_empty() {
            continue;
        }
        let entry = serde_json::from_str(&line).map_err(|error| {
            Failure::new(
                Exit::BadNews,
                format!("{name}:{number}: no entry of an audit log: {error}"),
            )
            .step("leeward audit export writes such a file")
        })?;
        verifier.take(&entry);
    }
    Ok(())
}
