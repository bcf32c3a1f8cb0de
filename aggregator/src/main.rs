//! `leeward-aggregator`: receives, stores, decides, answers.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use leeward_aggregator::{config::Config, definitions, run};
use leeward_common::time::{Clock as _, SystemClock};

/// Receives what agents measure, remembers it, decides and answers.
#[derive(Parser)]
#[command(name = "leeward-aggregator", version)]
struct Args {
    /// The configuration file.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/leeward/aggregator.toml"
    )]
    config: PathBuf,
    /// Check the configuration, the certificates and the definitions that it names, and exit.
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let config = match Config::load(&args.config) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    if args.check {
        if let Err(error) = definitions::check(&config, SystemClock.now()) {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
        println!("{}: ok", args.config.display());
        return ExitCode::SUCCESS;
    }
    match run::run(&args.config, config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("leeward-aggregator: {error:#}");
            ExitCode::FAILURE
        }
    }
}
