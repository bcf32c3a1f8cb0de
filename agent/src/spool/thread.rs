//! The thread that does what the spool wants done on disk, so that nobody else ever waits for a disk.

use std::{
    io,
    path::Path,
    sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    thread::JoinHandle,
};

use tokio::sync::mpsc;

use super::{
    files::Directory,
    log::{Answer, Command, Log, OldSegment, Sync},
};

/// Commands that wait for the thread. The spool has fewer under way at once, apart from removals, which wait for the next
/// time when this is full.
const COMMANDS_MAX: usize = 256;

/// Answers that wait for the uplink; the thread waits while it is full.
const ANSWERS_MAX: usize = 64;

/// The spool's disk.
#[derive(Debug)]
pub struct Disk {
    commands: SyncSender<Command>,
    answers: mpsc::Receiver<Answer>,
    /// What did not fit.
    waiting: std::collections::VecDeque<Command>,
    _thread: JoinHandle<()>,
}

impl Disk {
    /// Opens the directory and starts the thread; with it comes what lives before have left.
    ///
    /// # Errors
    ///
    /// Returns why the directory cannot be used.
    pub fn start(
        directory: &Path,
        boot_epoch: u64,
        sync: Sync,
        segment_bytes: u64,
    ) -> io::Result<(Self, Vec<OldSegment>)> {
        let files = Box::new(Directory::open(directory)?);
        let (log, old) = Log::open(files, boot_epoch, sync, segment_bytes)?;
        let (commands, commanded) = sync_channel(COMMANDS_MAX);
        let (answer, answers) = mpsc::channel(ANSWERS_MAX);
        let thread = std::thread::Builder::new()
            .name("spool".to_owned())
            .spawn(move || carry_out(log, &commanded, &answer))?;
        let disk = Self {
            commands,
            answers,
            waiting: std::collections::VecDeque::new(),
            _thread: thread,
        };
        Ok((disk, old))
    }

    /// Hands commands over, in their order.
    pub fn command(&mut self, commands: impl IntoIterator<Item = Command>) {
        self.waiting.extend(commands);
        while let Some(command) = self.waiting.pop_front() {
            match self.commands.try_send(command) {
                Ok(()) => {}
                Err(TrySendError::Full(command)) => {
                    self.waiting.push_front(command);
                    return;
                }
                // The thread ends only with this.
                Err(TrySendError::Disconnected(_)) => return,
            }
        }
    }

    /// The next answer. Can be given up and asked for again without losing one.
    pub async fn answer(&mut self) -> Answer {
        match self.answers.recv().await {
            Some(answer) => answer,
            None => std::future::pending().await,
        }
    }
}

/// Ends when nobody commands any more.
fn carry_out(mut log: Log, commands: &Receiver<Command>, answers: &mpsc::Sender<Answer>) {
    while let Ok(command) = commands.recv() {
        if answers.blocking_send(log.carry_out(command)).is_err() {
            return;
        }
    }
}
