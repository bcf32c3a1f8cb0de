//! `leeward backup`: a copy of the aggregator's store.

use leeward_common::api::v1::{Backup, Backups, NewBackup};

use crate::{
    args::{BackupCommand, BackupOptions, Cli},
    client::Client,
    exit::{Exit, Failure},
    output::Output,
    table::Table,
    words,
};

/// Runs `leeward backup …`.
///
/// # Errors
///
/// Returns why it is not done.
pub fn run(cli: &Cli, out: &Output, options: &BackupOptions) -> Result<Exit, Failure> {
    let client = Client::new(&cli.global)?;
    if matches!(options.command, Some(BackupCommand::Ls)) {
        let found: Backups = client.ask("/v1/backups")?;
        out.list(&found, &found.backups, "", &table(&found.backups))?;
        return Ok(Exit::Done);
    }
    let new = NewBackup {
        why: options.why.clone(),
        keep: options.keep,
    };
    if options.dry_run {
        out.one(&new, |_| {
            format!("would make a backup and keep the newest {}\n", new.keep)
        })?;
        return Ok(Exit::Done);
    }
    let made: Backup = client.send("/v1/backups", &new, None)?;
    out.one(&made, |_| {
        format!(
            "made {} ({})\ncopy it to another machine: it shares files with the store. There:\n  leeward-aggregator store restore --from {} --data DIR\n",
            made.path,
            size(made.bytes),
            made.name
        )
    })?;
    Ok(Exit::Done)
}

fn table(backups: &[Backup]) -> Table {
    let mut table = Table::new()
        .left("name")
        .left("made")
        .right("size")
        .left("path");
    for backup in backups {
        table.row(vec![
            backup.name.clone().into(),
            words::date_time(backup.made_at).into(),
            size(backup.bytes).into(),
            backup.path.clone().into(),
        ]);
    }
    table
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}
