//! One client that follows the stream.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use axum::body::Bytes;
use leeward_engine::intent::Owner;
use tokio::{
    sync::watch,
    time::{Instant, Interval, MissedTickBehavior, interval_at},
};

use super::{Changes, Event, Glance, News, TooSlow, Version, look::Look};
use crate::http::{App, places::Place};

/// How often a silent stream says that it lives. Who hears nothing for twice as long has lost it.
pub(in crate::http) const HEARTBEAT: Duration = Duration::from_secs(5);

/// A comment: clients ignore it (HTML Living Standard, section 9.2.6).
const ALIVE: &[u8] = b":\n\n";

/// What a client begins with: a browser that loses the stream comes again after this, plus what it adds itself.
const RETRY: &[u8] = b"retry: 1000\n\n";

/// One client that follows the stream. Ends when the client is too slow or goes away, and when the server ends.
pub(in crate::http) struct Following {
    app: App,
    /// Only what is about this selection.
    owner: Option<Owner>,
    /// What is to be sent before anything from the ring.
    ready: VecDeque<Bytes>,
    news: VecDeque<Arc<News>>,
    /// The place in the ring.
    place: u64,
    changes: watch::Receiver<Changes>,
    heartbeat: Interval,
    /// Free again when the client goes away.
    _held: Place,
}

/// A place in the ring, and how things stood there.
pub(in crate::http) struct Joined {
    look: Arc<Look>,
    place: u64,
    changes: watch::Receiver<Changes>,
}

impl App {
    /// Joins the stream: whatever changes from here on is in the ring.
    pub(in crate::http) fn join(&self) -> Joined {
        let changes = self.feed.changes.subscribe();
        let (look, place) = self
            .feed
            .join(|| Look::at(self.glance(), &self.shared.name));
        Joined {
            look,
            place,
            changes,
        }
    }
}

impl Joined {
    /// The newest decision of the snapshot.
    pub(in crate::http) fn version(&self) -> Version {
        self.look.version()
    }

    /// What was seen at the last look.
    pub(in crate::http) fn glance(&self) -> &Glance {
        self.look.glance()
    }

    /// Follows from here: first `missed`, oldest first, then how things stand, then what changes.
    pub(in crate::http) fn follow(
        self,
        app: App,
        held: Place,
        owner: Option<Owner>,
        missed: &[Event],
    ) -> Following {
        let mut ready = VecDeque::from([Bytes::from_static(RETRY)]);
        for event in missed {
            let mut bytes = Vec::new();
            event.write(self.version(), &mut bytes);
            ready.push_back(bytes.into());
        }
        ready.push_back(self.look.snapshot(owner.as_ref()));
        let mut heartbeat = interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Following {
            app,
            owner,
            ready,
            news: VecDeque::new(),
            place: self.place,
            changes: self.changes,
            heartbeat,
            _held: held,
        }
    }
}

impl Following {
    /// The next bytes to send; `None` at the end.
    pub(in crate::http) async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                return Some(bytes);
            }
            if let Some(news) = self.news.pop_front() {
                self.take(&news);
                continue;
            }
            if self.changes.borrow_and_update().closed {
                return None;
            }
            if let Err(TooSlow) = self.app.feed.after(&mut self.place, &mut self.news) {
                self.app.shared.metrics.http.slow_clients.inc();
                return None;
            }
            if self.news.is_empty() {
                tokio::select! {
                    changed = self.changes.changed() => changed.ok()?,
                    _ = self.heartbeat.tick() => return Some(Bytes::from_static(ALIVE)),
                }
            }
        }
    }

    fn take(&mut self, news: &News) {
        if self.owner.is_none() {
            self.ready.push_back(news.all.clone());
            return;
        }
        let wanted = news.events.iter().filter(|told| told.owner == self.owner);
        self.ready.extend(wanted.map(|told| told.bytes.clone()));
    }
}
