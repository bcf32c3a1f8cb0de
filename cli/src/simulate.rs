//! `leeward simulate`: a scenario in virtual time, without any server.

use crate::{
    args::{Cli, SimulateOptions},
    exit::{Exit, Failure},
    output::Output,
};

/// Runs `leeward simulate`.
///
/// # Errors
///
/// Returns why the scenario cannot run.
pub fn run(_cli: &Cli, _out: &Output, _options: &SimulateOptions) -> Result<Exit, Failure> {
    Err(Failure::new(Exit::Failed, "the simulation is not built in yet"))
}
