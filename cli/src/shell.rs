//! Completions, manual pages and help topics.

use std::{fs, path::Path};

use anyhow::Context;
use clap::CommandFactory;

use crate::{
    args::Cli,
    exit::{self, Exit, Failure},
    output::Output,
};

/// `leeward help environment`.
const ENVIRONMENT: &str = "\
Environment of leeward

  LEEWARD_SERVER      the aggregator's API; --server
  LEEWARD_TOKEN       bearer token for commands that change something
  LEEWARD_TOKEN_FILE  file that holds it; --token-file
  LEEWARD_CA          certificate authority of the API's certificate; --ca
  NO_COLOR            any value: no colour
";

/// Writes completions for a shell.
///
/// # Errors
///
/// Returns the failure to write.
pub fn completions(out: &Output, shell: clap_complete::Shell) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "leeward", &mut script);
    out.text(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}

/// Writes the manual page to stdout, or one page per command to a directory.
///
/// # Errors
///
/// Returns the failure to write.
pub fn man(out: &Output, directory: Option<&Path>) -> Result<Exit, Failure> {
    let Some(directory) = directory else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Cli::command()).render(&mut page)?;
        out.text(&String::from_utf8_lossy(&page))?;
        return Ok(Exit::Done);
    };
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    clap_mangen::generate_to(Cli::command(), directory)
        .with_context(|| format!("cannot write to {}", directory.display()))?;
    Ok(Exit::Done)
}

/// Writes help on a command or a topic.
///
/// # Errors
///
/// Returns that there is no such topic.
pub fn help(out: &Output, topic: &[String]) -> Result<Exit, Failure> {
    let words: Vec<&str> = topic.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["exit-codes"] => out.text(exit::HELP)?,
        ["environment"] => out.text(ENVIRONMENT)?,
        words => {
            let mut command = Cli::command();
            command.build();
            for word in words {
                let found = command.find_subcommand(word).cloned();
                command = found.ok_or_else(|| {
                    Failure::new(Exit::Usage, format!("there is no help on {:?}", topic.join(" ")))
                        .step("leeward help     lists the commands; the topics are exit-codes and environment")
                })?;
            }
            out.text(&command.render_long_help().to_string())?;
        }
    }
    Ok(Exit::Done)
}
