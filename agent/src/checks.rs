//! Asking services in other regions for an answer, and saying what came of it.
//!
//! A thread of its own with a runtime of its own: name resolution, TLS and slow servers must never hold up the probe
//! thread, nor the uplink.
//!
//! ```text
//!   uplink ──Plan──▶ schedule ──due──▶ ask (at most `concurrency` at once) ──Done──▶ uplink
//! ```
//!
//! An aggregator says what to ask; the agent decides whether it will. It asks only addresses that its own file allows
//! ([`crate::admission`]), looked at after the name is resolved and connected to as they are, follows no redirects, sends
//! nothing but a plain request, and never asks faster than it is allowed to.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use leeward_common::{
    check::Outcome,
    id::{CheckId, RegionId, ServiceId},
    wire::v1,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tracing::error;

use crate::{admission::Network, config::Checks, random::Random};
use ask::{Answer, Asker};
use schedule::Schedule;

mod ask;
mod schedule;

#[cfg(test)]
mod tests;

/// Results that wait for the uplink, which takes them at once. When it is full nothing is asked meanwhile.
const DONE_MAX: usize = 64;

/// Threads for name resolution. One that hangs keeps its thread until the resolver gives up.
const RESOLVERS: usize = 8;

/// What tells one check from another.
pub type Key = (ServiceId, RegionId, CheckId);

/// The key of a check.
#[must_use]
pub fn key(check: &v1::Check) -> Key {
    (
        check.service.clone(),
        check.region.clone(),
        check.check.clone(),
    )
}

/// What to ask, and whom it is allowed to ask.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// What to ask.
    pub checks: BTreeMap<Key, Arc<v1::Check>>,
    /// The addresses that may be asked.
    pub allowed: Allowed,
}

/// The addresses that may be asked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Allowed {
    /// Networks that hold them.
    pub networks: Vec<Network>,
    /// The key in the configuration that says so.
    pub key: &'static str,
}

impl Default for Allowed {
    fn default() -> Self {
        Self {
            networks: Vec::new(),
            key: "checks.allow",
        }
    }
}

/// What came of asking.
#[derive(Clone, Debug)]
pub struct Done {
    /// What was asked.
    pub check: Arc<v1::Check>,
    /// What came of it.
    pub outcome: Outcome,
    /// The same in words; may be empty.
    pub detail: String,
    /// How long it took.
    pub took: Duration,
    /// When it ended.
    pub at: Instant,
}

/// The way to the thread that asks. It ends when this is dropped.
#[derive(Debug)]
pub struct Checker {
    /// Takes what to ask from now on.
    pub plans: watch::Sender<Plan>,
    /// Gives what came of it.
    pub done: mpsc::Receiver<Done>,
}

impl Checker {
    /// Starts the thread; it has nothing to ask yet.
    ///
    /// # Errors
    ///
    /// Returns what is wrong with the file of authorities, or that no thread can be started.
    pub fn start(config: &Checks) -> anyhow::Result<Self> {
        let asker = Asker::new(config.ca.as_deref())?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(RESOLVERS)
            .build()
            .context("cannot start the runtime of checks")?;
        let (plans, planned) = watch::channel(Plan {
            checks: BTreeMap::new(),
            allowed: config.allowed.clone(),
        });
        let (results, done) = mpsc::channel(DONE_MAX);
        let work = Work {
            asker: Arc::new(asker),
            planned,
            results,
            concurrency: config.concurrency,
            gap: Duration::from_secs(1) / config.max_per_second.max(1),
        };
        std::thread::Builder::new()
            .name("checks".to_owned())
            .spawn(move || {
                runtime.block_on(work.run());
                // A name that is still being resolved holds up nobody.
                runtime.shutdown_background();
            })
            .context("cannot start the thread of checks")?;
        Ok(Self { plans, done })
    }
}

/// Checks a file of authorities.
///
/// # Errors
///
/// Returns what is wrong with it.
pub fn check_authorities(file: &Path) -> anyhow::Result<()> {
    Asker::new(Some(file)).map(drop)
}

/// What the thread does.
struct Work {
    asker: Arc<Asker>,
    planned: watch::Receiver<Plan>,
    results: mpsc::Sender<Done>,
    concurrency: usize,
    /// From one question to the next, whoever is asked.
    gap: Duration,
}

impl Work {
    /// Asks until nobody plans any more.
    async fn run(mut self) {
        let mut schedule = Schedule::new(Random::default());
        let mut asking = JoinSet::new();
        let mut not_before = Instant::now();
        loop {
            let is_free = asking.len() < self.concurrency;
            let next = schedule.next().map(|at| at.max(not_before));
            tokio::select! {
                changed = self.planned.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let plan = self.planned.borrow_and_update();
                    schedule.adopt(Instant::now(), &plan.checks);
                }
                Some(ended) = asking.join_next() => match ended {
                    Ok(done) => {
                        let done: Done = done;
                        if schedule.on_done(done.at, &done.check) && self.results.send(done).await.is_err() {
                            return;
                        }
                    }
                    Err(error) => error!(%error, "a check ended by itself"),
                },
                () = sleep_until(next.unwrap_or(not_before)), if is_free && next.is_some() => {
                    let now = Instant::now();
                    not_before = now + self.gap;
                    if let Some(check) = schedule.take(now) {
                        let allowed = self.planned.borrow().allowed.clone();
                        asking.spawn(ask(self.asker.clone(), allowed, check));
                    }
                }
            }
        }
    }
}

async fn ask(asker: Arc<Asker>, allowed: Allowed, check: Arc<v1::Check>) -> Done {
    let began = Instant::now();
    let Answer { outcome, detail } = asker.ask(&allowed, &check).await;
    let at = Instant::now();
    Done {
        check,
        outcome,
        detail,
        took: at - began,
        at,
    }
}
