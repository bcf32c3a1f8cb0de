//! `leeward-agent`: measures in one region.

use std::{io::IsTerminal as _, path::PathBuf, process::ExitCode};

use clap::Parser;
use leeward_agent::{config::Config, run};
use tracing_subscriber::EnvFilter;

/// Measures the networks around one region and streams what it learned to the aggregators.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Signals: SIGTERM stops, SIGHUP reads allowed_networks and credentials again.\nLogs go to standard error; LEEWARD_LOG=debug shows more."
)]
struct Arguments {
    /// The configuration file.
    #[arg(long, value_name = "FILE", default_value = "/etc/leeward/agent.toml")]
    config: PathBuf,
    /// Check the configuration and the credentials, and exit: 0 if they are good, 2 if not.
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_env("LEEWARD_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .init();
    let checked = Config::load(&arguments.config)
        .map_err(anyhow::Error::from)
        .and_then(|config| {
            let credentials = run::load_credentials(&config)?;
            run::load_stamp_key(&config)?;
            Ok((config, credentials))
        });
    let (ended, code) = match checked {
        Err(error) => (Err(error), 2),
        Ok(_) if arguments.check => {
            println!("{}: ok", arguments.config.display());
            (Ok(()), 0)
        }
        Ok((config, credentials)) => (run::run(&arguments.config, config, credentials), 1),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(code)
        }
    }
}
