//! The command line.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Parser, Subcommand};

/// Live through a scenario with real packets, real agents and a real aggregator in network namespaces. Needs root.
#[derive(Debug, Parser)]
#[command(name = "leeward-lab", version, max_term_width = 120)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Play a scenario. Exits with 0 when every expectation was met, with 1 when not.
    Run(RunOptions),
    /// Live in a world and compare what the agents measured with what was seen in the middle of the network, as a table.
    /// Exits with 0 when the accounts agree, with 1 when not.
    Accuracy(AccuracyOptions),
}

/// `leeward-lab accuracy`
#[derive(clap::Args, Debug)]
pub struct AccuracyOptions {
    /// The world: a scenario, of which only regions, links and duration matter.
    #[arg(value_name = "FILE")]
    pub world: PathBuf,
    /// Live in it for so many seconds instead of as long as it says.
    #[arg(long = "for", value_name = "SECONDS", value_parser = seconds)]
    pub lasting: Option<Duration>,
    /// Keep the logs of all processes in this directory instead of losing them at the end.
    #[arg(long, value_name = "DIR")]
    pub keep_logs: Option<PathBuf>,
    /// Where leeward, leeward-agent and leeward-aggregator are; beside leeward-lab if left out.
    #[arg(long, value_name = "DIR")]
    pub bin_dir: Option<PathBuf>,
}

/// `leeward-lab run`
#[derive(clap::Args, Debug)]
pub struct RunOptions {
    /// The scenario.
    #[arg(value_name = "FILE")]
    pub scenario: PathBuf,
    /// Afterwards leave everything running until interrupted, with the API reachable on `--api`.
    #[arg(long)]
    pub stay: bool,
    /// Where the API is reachable from outside the lab; loopback only.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8611", value_parser = loopback)]
    pub api: SocketAddr,
    /// Keep the logs of all processes in this directory instead of losing them at the end.
    #[arg(long, value_name = "DIR")]
    pub keep_logs: Option<PathBuf>,
    /// Where leeward, leeward-agent and leeward-aggregator are; beside leeward-lab if left out.
    #[arg(long, value_name = "DIR")]
    pub bin_dir: Option<PathBuf>,
    /// Write what happened to this file as JSON.
    #[arg(long, value_name = "FILE")]
    pub transcript: Option<PathBuf>,
    /// Take what comes up to so many seconds after its deadline for met, and say that it was late: a whole wide-area
    /// network on one busy host is slower than the real one.
    #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = seconds)]
    pub grace: Duration,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let secs: f64 = text
        .parse()
        .map_err(|_| "write a number of seconds, such as 2.5".to_owned())?;
    Duration::try_from_secs_f64(secs).map_err(|error| error.to_string())
}

fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text
        .parse()
        .map_err(|error| format!("{error}; write 127.0.0.1:PORT"))?;
    if address.ip().is_loopback() {
        return Ok(address);
    }
    Err("the lab's API has no TLS: only a loopback address is allowed".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }

    #[test]
    fn a_grace_is_a_number_of_seconds() {
        assert_eq!(seconds("2.5"), Ok(Duration::from_millis(2500)));
        for wrong in ["", "2s", "-1", "nan"] {
            assert!(seconds(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_api_stays_on_loopback() {
        assert!(loopback("127.0.0.1:0").is_ok() && loopback("[::1]:80").is_ok());
        assert!(
            loopback("0.0.0.0:8611")
                .unwrap_err()
                .contains("only a loopback address")
        );
    }
}
