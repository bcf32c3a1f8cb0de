//! `leeward`: ask the aggregator, run scenarios offline, set up an installation.
//!
//! Data goes to stdout and everything else to stderr; the exit code is an answer too ([`exit`]).
//!
//! Read in this order:
//!
//! - [`args`]: the commands and their options.
//! - [`exit`]: what the exit codes mean, and what a failure looks like.
//! - [`client`]: questions to the aggregator; [`events`]: its stream of changes.
//! - [`output`], [`table`], [`words`]: answers for people and for programs.
//! - [`status`], [`graph`], [`link`], [`bandwidth`], [`region`], [`agent`], [`failover`], [`signal`]: one command group each.
//! - [`status`], [`graph`], [`link`], [`region`], [`agent`], [`failover`], [`signal`]: one command group each.
//! - [`trace`]: the route of a link, hop by hop.
//! - [`service`], [`capacity`], [`override_`]: what people define.
//! - [`placement`], [`readiness`]: what would go where, and whether it could.
//! - [`policy`]: the policy in force, and one that only records what it would do.
//! - [`audit`]: who did what and why; [`backup`]: copies of the store.
//! - [`status`], [`watch`], [`graph`], [`link`], [`region`], [`agent`], [`failover`], [`signal`]: one command group each.
//! - [`simulate`]: a scenario in virtual time, without any server.
//! - [`replay`]: the journal once more.
//! - [`simulate`], [`live`]: a scenario in virtual time, without any server or on its live state.
//! - [`config`], [`pki`], [`token`], [`shell`]: setting things up.

pub mod agent;
pub mod args;
pub mod audit;
pub mod backup;
pub mod bandwidth;
mod bgp;
pub mod capacity;
pub mod client;
pub mod config;
pub mod events;
pub mod exit;
mod explain;
pub mod failover;
mod faults;
pub mod graph;
pub mod history;
pub mod link;
pub mod live;
pub mod output;
pub mod override_;
pub mod pki;
pub mod placement;
pub mod policy;
pub mod readiness;
pub mod region;
pub mod replay;
pub mod route;
pub mod service;
pub mod shell;
pub mod signal;
pub mod simulate;
pub mod status;
pub mod table;
pub mod token;
pub mod trace;
pub mod watch;
pub mod words;

use args::{Cli, Command};
use exit::{Exit, Failure};

/// Runs one command.
///
/// # Errors
///
/// Returns what failed, what to do about it, and the exit code that says so.
pub fn run(cli: &Cli) -> Result<Exit, Failure> {
    let out = output::Output::new(&cli.global);
    match &cli.command {
        Command::Status => status::run(cli, &out),
        Command::Graph { command } => graph::run(cli, &out, command),
        Command::Link {
            from,
            to,
            history: Some(span),
            step,
            until,
        } => history::run(cli, &out, (from, to), (*span, *step, *until)),
        Command::Link { from, to, .. } => link::run(cli, &out, from, to),
        Command::Backup(options) => backup::run(cli, &out, options),
        Command::Trace(options) => trace::run(cli, &out, options),
        Command::Bandwidth(options) => bandwidth::run(cli, &out, options),
        Command::Region { command } => region::run(cli, &out, command),
        Command::Agent { command } => agent::run(cli, &out, command),
        Command::Watch(options) => watch::run(cli, &out, options),
        Command::Explain { decision } => explain::run(cli, &out, *decision),
        Command::Faults => faults::run(cli, &out),
        Command::Bgp { command } => bgp::run(cli, &out, command),
        Command::Failover { command } => failover::run(cli, &out, command),
        Command::Service { command } => service::run(cli, &out, command),
        Command::Capacity { command } => capacity::run(cli, &out, command.as_ref()),
        Command::Drain { .. }
        | Command::Pin { .. }
        | Command::Forbid { .. }
        | Command::Freeze { .. } => override_::give(cli, &out),
        Command::Override { command } => override_::run(cli, &out, command.as_ref()),
        Command::Placement { failed } => placement::run(cli, &out, failed),
        Command::Readiness {
            service,
            region,
            history,
            checks,
        } => {
            let part = match (*checks, *history) {
                (true, _) => readiness::Part::Checks,
                (false, Some(most)) => readiness::Part::History(most),
                (false, None) => readiness::Part::Standings,
            };
            readiness::run(cli, &out, service.as_ref(), region.as_ref(), part)
        }
        Command::Audit { command } => audit::run(cli, &out, command.as_ref()),
        Command::Signal { command } => signal::run(cli, &out, command),
        Command::Policy { command } => policy::run(cli, &out, command.as_ref()),
        Command::Replay(options) => replay::run(cli, &out, options),
        Command::Simulate(options) => simulate::run(cli, &out, options),
        Command::Config { command } => config::run(&out, command),
        Command::Pki { command } => pki::run(&out, command),
        Command::Token { command } => token::run(&out, command),
        Command::Completions { shell } => shell::completions(&out, *shell),
        Command::Man { directory } => shell::man(&out, directory.as_deref()),
        Command::Help { topic } => shell::help(&out, topic),
    }
}
