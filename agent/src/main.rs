//! `leeward-agent`: measures in one region.

use std::{io::IsTerminal as _, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use leeward_agent::{bgp::replay, config::Config, ping, run};
use tracing_subscriber::EnvFilter;

/// Measures the networks around one region and streams what it learned to the aggregators.
#[derive(Debug, Parser)]
#[command(
    version,
    args_conflicts_with_subcommands = true,
    after_help = "Signals: SIGTERM stops, SIGHUP reads allowed_networks and credentials again.\nLogs go to standard error; LEEWARD_LOG=debug shows more."
)]
struct Arguments {
    /// The configuration file.
    #[arg(long, value_name = "FILE", default_value = "/etc/leeward/agent.toml")]
    config: PathBuf,
    /// Check the configuration and the credentials, and exit: 0 if they are good, 2 if not.
    #[arg(long)]
    check: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Ping hosts a few times and say how long answers took; 1 if one of them never answered.
    ///
    /// A look at one moment, for a person: with this process's own times, which are some tens of microseconds off, and what
    /// this host failed to do counted as lost. To measure, run the agent: its prober has the kernel's time stamps, tells late
    /// from lost and flow from flow, and knows what it failed to send. Needs no configuration; pings only the hosts named here.
    Ping(ping::Arguments),
    /// Routing, as routers tell of it.
    #[command(subcommand)]
    Bgp(Bgp),
}

#[derive(Debug, Subcommand)]
enum Bgp {
    /// Reads recordings (packet captures and MRT files) as if they were live, and prints what was understood, what was
    /// refused and why, and what happened to watched prefixes; 2 if a file cannot be read.
    Replay(replay::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match &arguments.command {
        Some(Command::Ping(arguments)) => return report(ping::run(arguments), 2),
        Some(Command::Bgp(Bgp::Replay(arguments))) => return report(replay::run(arguments), 2),
        None => {}
    }
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
    match checked {
        Err(error) => report(Err(error), 2),
        Ok(_) if arguments.check => {
            println!("{}: ok", arguments.config.display());
            ExitCode::SUCCESS
        }
        Ok((config, credentials)) => {
            let ended = run::run(&arguments.config, config, credentials);
            report(ended.map(|()| true), 1)
        }
    }
}

/// 0 if all is well, 1 if not, `code` after an error.
fn report(ended: anyhow::Result<bool>, code: u8) -> ExitCode {
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(code)
        }
    }
}
