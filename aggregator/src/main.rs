//! `leeward-aggregator`: receives, stores, decides, answers.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use leeward_aggregator::{config::Config, definitions, offline as store, replay::offline, run};
use leeward_common::time::{Clock as _, SystemClock};

/// Receives what agents measure, remembers it, decides and answers.
#[derive(Parser)]
#[command(
    name = "leeward-aggregator",
    version,
    args_conflicts_with_subcommands = true
)]
struct Args {
    /// The configuration file.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/leeward/aggregator.toml"
    )]
    config: PathBuf,
    /// Check the configuration and the files that it names, and exit.
    #[arg(long)]
    check: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    Replay(offline::Options),
    /// Look after a data directory: verify, stats, compact, restore.
    Store {
        /// What to do.
        #[command(subcommand)]
        command: store::Command,
    },
}

fn main() -> ExitCode {
    let args = Args::parse();
    let done = match args.command {
        Some(Command::Replay(options)) => offline::run(&options),
        Some(Command::Store { command }) => command.run(),
        None => return serve(&args),
    };
    done.map_or_else(failed, |is_well| match is_well {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(3),
    })
}

fn serve(args: &Args) -> ExitCode {
    let loaded = Config::load(&args.config);
    let checked = loaded.and_then(|config| match args.check {
        true => definitions::check(&config, SystemClock.now()).map(|()| config),
        false => Ok(config),
    });
    let config = match checked {
        Ok(config) => config,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    if args.check {
        println!("{}: ok", args.config.display());
        return ExitCode::SUCCESS;
    }
    let ended = run::run(&args.config, config);
    ended.map_or_else(failed, |()| ExitCode::SUCCESS)
}

fn failed(error: impl std::fmt::Display) -> ExitCode {
    eprintln!("leeward-aggregator: {error:#}");
    ExitCode::FAILURE
}
