//! `leeward`: parse, run, turn the result into an exit code.

use std::process::ExitCode;

use clap::Parser;
use leeward_cli::{args::Cli, exit::Exit, output::explain};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to stdout; a reader that left is no failure.
            let _ = error.print();
            return if error.use_stderr() {
                Exit::Usage
            } else {
                Exit::Done
            }
            .into();
        }
    };
    match leeward_cli::run(&cli) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            explain(&cli.global, &failure);
            failure.exit.into()
        }
    }
}
