//! The rollups' thread: a step each minute, then a look at how the store fares. It ends when the process does.

use std::{path::PathBuf, sync::Arc, thread::JoinHandle, time::Duration};

use leeward_common::time::Timestamp;
use tokio::{runtime::Handle, sync::watch, time::timeout};
use tracing::{error, warn};

use super::step::{LIMITS, ROWS, step};
use crate::{
    metrics::Metrics,
    shared::{Published, Readiness},
    store::{Aside, Health, Read, StoreError, files, key::path::Grain},
};

/// How long after the end of a minute it is folded: most of its reports are there, and a row is written once.
const SETTLE: Duration = Duration::from_secs(3);

/// How often it looks whether a minute is over.
const EVERY: Duration = Duration::from_millis(500);

/// How long it waits before it tries again what failed.
const RETRY: Duration = Duration::from_secs(2);

/// What the thread needs.
#[expect(missing_debug_implementations, reason = "a store has none")]
pub struct Thread {
    /// What it reads.
    pub reader: Arc<dyn Read>,
    /// Where it writes.
    pub aside: Arc<dyn Aside>,
    /// What time it is in the journal.
    pub view: Arc<Published>,
    /// Where it says that the store is in trouble.
    pub readiness: Arc<Readiness>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Where the store's files are.
    pub dir: PathBuf,
}

impl Thread {
    /// Starts the thread. It ends when `stop` is true, or its sender is gone.
    ///
    /// # Errors
    ///
    /// Returns why the system gives no thread.
    pub fn start(
        self,
        runtime: Handle,
        stop: watch::Receiver<bool>,
    ) -> std::io::Result<JoinHandle<()>> {
        let work = move || self.run(&runtime, stop);
        let thread = std::thread::Builder::new().name("rollup".to_owned());
        thread.spawn(work)
    }

    fn run(self, runtime: &Handle, mut stop: watch::Receiver<bool>) {
        let mut next = Timestamp::EPOCH;
        let mut rest = Duration::ZERO;
        loop {
            let ended = runtime
                .block_on(async { timeout(rest, stop.wait_for(|stop| *stop)).await.is_ok() });
            if ended {
                return;
            }
            rest = EVERY;
            let now = self.view.load().now;
            let until = (now - SETTLE).floor(Grain::Minute.length()) + SETTLE;
            if until < next || until > now {
                continue;
            }
            let began = std::time::Instant::now();
            match self.step(until, &stop) {
                // As long as it worked it rests, since others need the disk and the processor.
                Ok(true) => rest = began.elapsed(),
                Ok(false) => {
                    next = until + Grain::Minute.length();
                    if let Err(error) = self.look() {
                        self.failed("cannot look after the store", &error);
                    }
                }
                Err(error) => {
                    self.failed("the rollups stand still", &error);
                    rest = RETRY;
                }
            }
        }
    }

    fn failed(&self, what: &str, error: &StoreError) {
        self.metrics.rollup.failures.inc();
        warn!(error = error as &dyn std::error::Error, "{what}");
        // A write that failed says so at once; what failed in the background may not.
        if let Ok(health) = self.aside.health() {
            self.tell(&health);
        }
    }

    /// One step; whether there is more to do.
    fn step(&self, until: Timestamp, stop: &watch::Receiver<bool>) -> Result<bool, StoreError> {
        let go_on = &mut || !*stop.borrow();
        let done = step(&*self.reader, &*self.aside, until, (LIMITS, ROWS), go_on)?;
        let rollup = &self.metrics.rollup;
        rollup.reports.inc_by(done.reports);
        rollup.rows.inc_by(done.rows);
        rollup.unreadable.inc_by(done.unreadable);
        if done.folded.us > 0 {
            let behind = until.since(Timestamp::from_unix_us(done.folded.us));
            let behind = if done.more { behind } else { Duration::ZERO };
            rollup.behind_seconds.set(behind.as_secs_f64());
        }
        Ok(done.more)
    }

    /// How the store fares, and the checksums of its files.
    fn look(&self) -> Result<(), StoreError> {
        let health = files::note(&*self.reader, &*self.aside, &self.dir)?;
        self.tell(&health);
        Ok(())
    }

    fn tell(&self, health: &Health) {
        if health.background_errors > 0 && !self.readiness.has_background_errors() {
            error!(
                errors = health.background_errors,
                "the store failed in the background; look at the disk and at LOG in data_dir"
            );
        }
        self.readiness.background_errors(health.background_errors);
        self.metrics.store_health(health);
    }
}
