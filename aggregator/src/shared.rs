//! What the HTTP API sees of the aggregator: pictures to read, one channel to write to.
//!
//! Nothing here is a lock around domain state. The engine's [`View`] and the [`Roster`] of sessions are immutable and
//! replaced as a whole; whoever reads one keeps a consistent picture for as long as it likes.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
};

use arc_swap::{ArcSwap, Guard};
use leeward_common::{api::v1::AuditHead, time::Clock};
use leeward_engine::view::View;
use tokio::sync::watch;

use crate::{
    backup::Backups,
    config::{Api, Retention, Token},
    ingest::roster::{Roster, RosterHandle},
    metrics::Metrics,
    shadow::Window,
    store::Read,
    turn::TurnHandle,
};

/// Everything that a request handler may use. Cheap to clone.
#[derive(Clone)]
pub struct Shared {
    /// The newest picture of the engine.
    pub view: Arc<Published>,
    /// What was written down, for threads that may block.
    pub store: Arc<dyn Read>,
    /// The agents that registered: their sessions, and how each fares by its own account.
    pub roster: Arc<ArcSwap<Roster>>,
    /// The way to the agents, for orders.
    pub orders: RosterHandle,
    /// The shadow policy, and how it stands.
    pub shadow: Window,
    /// The way to the turn thread, for signals.
    pub turn: TurnHandle,
    /// Every counter, and the text of `/metrics`.
    pub metrics: Arc<Metrics>,
    /// Where to listen, TLS and limits, as of the start.
    pub api: Arc<Api>,
    /// Copies of the store.
    pub backups: Arc<Backups>,
    /// How far back histories reach.
    pub retention: Retention,
    /// Who may do what; replaced as a whole when the config is read again.
    pub tokens: Arc<ArcSwap<Vec<Token>>>,
    /// Whether the aggregator can do its work.
    pub readiness: Arc<Readiness>,
    /// The aggregator's clock.
    pub clock: Arc<dyn Clock>,
    /// The aggregator's name.
    pub name: Arc<str>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// The newest picture of the engine, and a way to wait for the next.
#[derive(Debug)]
pub struct Published {
    view: ArcSwap<View>,
    audit: ArcSwap<AuditHead>,
    /// How many were published. Whoever waits for the next one is woken, and sees the newest only.
    count: watch::Sender<u64>,
}

impl Published {
    /// This picture to begin with.
    #[must_use]
    pub fn new(view: View) -> Self {
        Self {
            view: ArcSwap::from_pointee(view),
            audit: ArcSwap::default(),
            count: watch::Sender::new(0),
        }
    }

    /// The newest picture, for a moment.
    pub fn load(&self) -> Guard<Arc<View>> {
        self.view.load()
    }

    /// The newest picture, for as long as one likes.
    #[must_use]
    pub fn load_full(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// Publishes a picture.
    pub fn store(&self, view: Arc<View>) {
        self.view.store(view);
        self.count.send_modify(|count| *count += 1);
    }

    /// Where the audit log ends.
    #[must_use]
    pub fn audit(&self) -> Arc<AuditHead> {
        self.audit.load_full()
    }

    /// Says where the audit log ends.
    pub fn audited(&self, head: AuditHead) {
        self.audit.store(Arc::new(head));
    }

    /// Changes with every picture that is published from now on.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.count.subscribe()
    }
}

/// Whether the aggregator can do its work; `/readyz`.
#[derive(Debug, Default)]
pub struct Readiness {
    state: AtomicU8,
    /// Whether the store failed in the background.
    background: AtomicBool,
}

/// What keeps the aggregator from its work.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum State {
    /// Reading snapshot and journal.
    Recovering = 0,
    /// All is well.
    Ready = 1,
    /// The store refuses writes: questions are answered from memory, nothing is acknowledged.
    StoreFailed = 2,
    /// On the way out.
    Stopping = 3,
    /// The store failed in the background, to write files out or to compact them.
    Background = 4,
}

impl State {
    /// A sentence for people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Recovering => "recovering from snapshot and journal",
            Self::Ready => "ready",
            Self::StoreFailed => {
                "the store refuses writes; answers come from memory and nothing is acknowledged"
            }
            Self::Stopping => "stopping",
            Self::Background => {
                "the store failed in the background; look at the disk, at the log and at LOG in data_dir"
            }
        }
    }
}

impl Readiness {
    /// The present state.
    #[must_use]
    pub fn state(&self) -> State {
        match self.state.load(Ordering::Acquire) {
            0 => State::Recovering,
            1 if self.has_background_errors() => State::Background,
            1 => State::Ready,
            2 => State::StoreFailed,
            _ => State::Stopping,
        }
    }

    /// Notes how often the store failed in the background since it was opened.
    pub fn background_errors(&self, count: u64) {
        self.background.store(count > 0, Ordering::Release);
    }

    /// Whether the store failed in the background.
    #[must_use]
    pub fn has_background_errors(&self) -> bool {
        self.background.load(Ordering::Acquire)
    }

    /// Moves to another state; nothing leaves [`State::Stopping`].
    pub fn set(&self, state: State) {
        let _ = self
            .state
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |old| {
                (old != State::Stopping as u8).then_some(state as u8)
            });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leaves_stopping() {
        let readiness = Readiness::default();
        assert_eq!(readiness.state(), State::Recovering);
        for state in [State::Ready, State::StoreFailed, State::Stopping] {
            readiness.set(state);
            assert_eq!(readiness.state(), state);
        }
        readiness.set(State::Ready);
        assert_eq!(readiness.state(), State::Stopping);
    }

    #[test]
    fn a_store_that_fails_in_the_background_is_not_ready() {
        let readiness = Readiness::default();
        readiness.set(State::Ready);
        readiness.background_errors(1);
        assert_eq!(readiness.state(), State::Background);
        readiness.set(State::StoreFailed);
        assert_eq!(readiness.state(), State::StoreFailed);
        readiness.set(State::Ready);
        readiness.background_errors(0);
        assert_eq!(readiness.state(), State::Ready);
    }
}
