//! `leeward-lab`: lives through a scenario with real packets.

use std::process::ExitCode;

use clap::Parser;
use leeward_lab::{
    accuracy,
    args::{Args, Command},
    run::{self, Outcome},
};

fn main() -> ExitCode {
    let outcome = match Args::parse().command {
        Command::Run(options) => run::run(&options),
        Command::Accuracy(options) => accuracy::run(&options),
    };
    match outcome {
        Ok(Outcome::AsExpected) => ExitCode::SUCCESS,
        Ok(Outcome::Otherwise) => ExitCode::from(1),
        Ok(Outcome::Interrupted) => ExitCode::from(130),
        Err(error) => {
            eprintln!("leeward-lab: {error:#}");
            ExitCode::from(1)
        }
    }
}
