//! The real binaries, running on the lab's hosts.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};

use crate::{
    host::Host,
    net::{die_with_parent, enter_on_exec, terminate},
};

/// How long a process may take to end when asked to.
const PATIENCE: Duration = Duration::from_secs(5);

/// Lines of a log that are shown when its process ended unexpectedly.
const LOG_TAIL: usize = 12;

/// A running binary. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    /// What it is called in the story.
    pub name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a binary on a host; what it prints is appended to `NAME.log` in `logs`.
    ///
    /// Call it only from a thread that lives as long as the run: the kernel kills the child when that thread ends.
    ///
    /// # Errors
    ///
    /// Returns why it could not be started.
    pub fn start(
        name: &str,
        command: &mut Command,
        host: &Host,
        logs: &Path,
    ) -> anyhow::Result<Self> {
        let log = logs.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log);
        let file = file.with_context(|| format!("cannot write {}", log.display()))?;
        command
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        // An interrupt at the terminal is for the lab, which then ends the others in order.
        std::os::unix::process::CommandExt::process_group(command, 0);
        enter_on_exec(command, &host.namespace);
        die_with_parent(command);
        let child = command.spawn();
        let child = child.with_context(|| format!("cannot start {:?}", command.get_program()))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log,
        })
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Fails if it has ended by itself, with the end of its log.
    ///
    /// # Errors
    ///
    /// Returns how it ended.
    pub fn check(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!(
                "{} ended by itself: {status}\n{}",
                self.name,
                self.log_tail()
            );
        }
        Ok(())
    }

    /// The end of its log, indented.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let tail = &lines[lines.len().saturating_sub(LOG_TAIL)..];
        tail.iter().map(|line| format!("    {line}\n")).collect()
    }

    /// Asks it to end (SIGTERM), without waiting.
    ///
    /// # Errors
    ///
    /// Returns the kernel's refusal.
    pub fn ask_to_end(&mut self) -> anyhow::Result<()> {
        // The id of one that was waited for may be another's by now.
        if self.child.try_wait()?.is_none() {
            terminate(&self.child)?;
        }
        Ok(())
    }

    /// Asks it to end and waits; kills it when it takes too long.
    ///
    /// # Errors
    ///
    /// Returns the kernel's refusal.
    pub fn stop(mut self) -> anyhow::Result<ExitStatus> {
        self.ask_to_end()?;
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(5));
        }
        self.child.kill()?;
        Ok(self.child.wait()?)
    }

    /// Ends it at once, with SIGKILL.
    ///
    /// # Errors
    ///
    /// Returns the kernel's refusal.
    pub fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
