//! Exit codes, the same for every command, and the failures that carry them.

use std::{fmt, process::ExitCode};

/// What the exit code says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// It failed.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The question was answered, and the news is bad. Only with `--check`, and from `simulate`, `config check` and
    /// `audit verify`.
    BadNews = 3,
    /// Not authorised.
    NotAuthorised = 4,
    /// Not found.
    NotFound = 5,
    /// A precondition does not hold (any more).
    Precondition = 6,
    /// Not enough is known to answer.
    NotEnoughKnown = 7,
    /// Timed out.
    TimedOut = 8,
}

/// `leeward help exit-codes`.
pub const HELP: &str = "\
Exit codes of leeward

  0  done
  1  failed: the aggregator cannot be reached, a file cannot be written, …
  2  usage: the command line is wrong
  3  bad news: the question was answered and the answer is bad
       with --check: something is degraded, down, unknown or too old
       simulate: an expectation of the scenario was not met
       replay: a decision is not the one that was stored
       config check: the file is not valid
       audit verify: something was changed, removed or reordered
  4  not authorised: no token, an unknown one, or one that may not do this
  5  not found: no such region, agent, source, file, …
  6  a precondition does not hold: the file to be written exists already, or what
       was to be changed was changed meanwhile
  7  not enough is known to answer
  8  timed out waiting for the aggregator
130  interrupted
";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// What failed, and what to do about it.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What failed, with its causes.
    pub error: anyhow::Error,
    /// What to do, one step per line.
    pub steps: Vec<String>,
    /// Whether the reader of stdout went away, which nobody needs to be told.
    pub silent: bool,
}

impl Failure {
    /// A failure of this kind.
    pub fn new(exit: Exit, error: impl fmt::Display) -> Self {
        Self {
            exit,
            error: anyhow::anyhow!("{error}"),
            steps: Vec::new(),
            silent: false,
        }
    }

    /// Adds a step that the reader can take.
    #[must_use]
    pub fn step(mut self, step: impl Into<String>) -> Self {
        self.steps.push(step.into());
        self
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        let silent = error
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe);
        let exit = if silent { Exit::Done } else { Exit::Failed };
        Self {
            exit,
            error,
            steps: Vec::new(),
            silent,
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        anyhow::Error::from(error).into()
    }
}
