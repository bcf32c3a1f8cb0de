//! News: what changed, told to everybody who stays.
//!
//! ```text
//!   turn ─▶ published view ─▶ herald ─▶ look ─▶ what differs from the look before ─▶ ring of events, written once
//!                                                                                      ├─▶ streams, each with a place in it
//!                                                                                      └─▶ waiters, who ask again
//! ```
//!
//! One task compares pictures, however many clients there are, and none while there are none. An event is written once
//! and its bytes are shared. The ring is every client's queue: a client whose place in it has been overwritten was too
//! slow and is disconnected; it comes again and says where it was.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::body::Bytes;
use leeward_common::time::Timestamp;
use leeward_engine::{intent::Owner, view::View};
use tokio::sync::watch;

mod event;
mod follow;
mod herald;
mod look;

pub(super) use event::{Event, Version};
pub(super) use follow::Joined;
pub(super) use herald::run;
use look::Look;

/// News that the ring holds. A client that is further behind was too slow.
const MAX_NEWS: usize = 1_024;

/// Bytes that the ring holds, whatever their number.
const MAX_BYTES: usize = 8 << 20;

/// What changed lately, and who waits for more.
#[derive(Debug)]
pub(super) struct Feed {
    ring: Mutex<Ring>,
    /// Grows with every look, whether or not anything changed.
    looks: watch::Sender<u64>,
    changes: watch::Sender<Changes>,
}

#[derive(Debug, Default)]
struct Ring {
    /// What is compared with; `None` while nobody stays.
    look: Option<Arc<Look>>,
    news: VecDeque<Arc<News>>,
    bytes: usize,
    /// The number of the next news.
    next: u64,
}

/// How far the news have got.
#[derive(Clone, Copy, Debug, Default)]
struct Changes {
    next: u64,
    closed: bool,
}

/// What one look found.
#[derive(Debug)]
struct News {
    /// The events as one text.
    all: Bytes,
    /// The events one by one: parts of the same text.
    events: Vec<Told>,
}

/// One event, written.
#[derive(Clone, Debug)]
struct Told {
    /// Whose selection it is about.
    owner: Option<Owner>,
    bytes: Bytes,
}

/// What a client gets that falls too far behind.
#[derive(Clone, Copy, Debug)]
struct TooSlow;

impl Default for Feed {
    fn default() -> Self {
        Self {
            ring: Mutex::default(),
            looks: watch::Sender::new(0),
            changes: watch::Sender::new(Changes::default()),
        }
    }
}

impl Feed {
    /// From now on a change is noticed.
    pub(super) fn pulse(&self) -> Pulse {
        Pulse {
            looks: self.looks.subscribe(),
            changes: self.changes.subscribe(),
            settling: 2,
        }
    }

    /// Ends every wait and every stream, now and from now on.
    pub(super) fn close(&self) {
        self.changes.send_modify(|changes| changes.closed = true);
    }

    /// How things stood at the last look, and the place in the ring that goes on from there. `now` is asked only if
    /// nobody looked before.
    fn join(&self, now: impl FnOnce() -> Look) -> (Arc<Look>, u64) {
        let joined = |ring: &Ring| ring.look.clone().map(|look| (look, ring.next));
        if let Some(joined) = joined(&self.ring()) {
            return joined;
        }
        let first = now();
        let mut ring = self.ring();
        let look = Arc::clone(ring.look.get_or_insert_with(|| Arc::new(first)));
        (look, ring.next)
    }

    /// The news from `place` on, which moves on with them.
    fn after(&self, place: &mut u64, into: &mut VecDeque<Arc<News>>) -> Result<(), TooSlow> {
        let ring = self.ring();
        let oldest = ring.next - ring.news.len() as u64;
        let skip = place.checked_sub(oldest).ok_or(TooSlow)?;
        into.extend(ring.news.iter().skip(skip as usize).cloned());
        *place = ring.next;
        Ok(())
    }

    /// What is compared with.
    fn seen(&self) -> Option<Arc<Look>> {
        self.ring().look.clone()
    }

    /// Replaces `before` by `look` and tells what differs. Nothing happens if somebody else replaced it.
    fn tell(&self, before: Option<&Arc<Look>>, look: Arc<Look>, events: &[Event]) {
        let news = (!events.is_empty()).then(|| News::of(look.version(), events));
        let mut ring = self.ring();
        let is_as_before = match (&ring.look, before) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            _ => false,
        };
        if !is_as_before {
            return;
        }
        ring.look = Some(look);
        if let Some(news) = news {
            ring.push(news);
            let next = ring.next;
            drop(ring);
            self.changes.send_modify(|changes| changes.next = next);
        }
        self.looks.send_modify(|looks| *looks += 1);
    }

    /// Forgets what is compared with, as long as nobody stays.
    fn forget_unless(&self, anybody: impl FnOnce() -> bool) {
        let mut ring = self.ring();
        if !anybody() {
            ring.look = None;
            ring.news.clear();
            ring.bytes = 0;
        }
    }

    /// Changes with every look.
    #[cfg(test)]
    pub(super) fn looks(&self) -> watch::Receiver<u64> {
        self.looks.subscribe()
    }

    /// Tells a sentence of so many letters.
    #[cfg(test)]
    pub(super) fn shout(&self, number: u64, letters: usize) {
        let look = self.seen().expect("somebody listens");
        let letter = char::from(b'a' + (number % 26) as u8);
        let sentence = leeward_common::api::v1::Sentence {
            summary: letter.to_string().repeat(letters),
            state: leeward_common::api::v1::State::Ok,
            stale: false,
        };
        self.tell(Some(&look), Arc::clone(&look), &[Event::Overview(sentence)]);
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        // Nothing is left half done behind this lock.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    fn push(&mut self, news: News) {
        self.bytes += news.all.len();
        self.news.push_back(Arc::new(news));
        self.next += 1;
        while self.news.len() > MAX_NEWS || self.bytes > MAX_BYTES {
            let Some(oldest) = self.news.pop_front() else {
                break;
            };
            self.bytes -= oldest.all.len();
        }
    }
}

impl News {
    fn of(version: Version, events: &[Event]) -> Self {
        let mut all = Vec::new();
        let mut ends = Vec::with_capacity(events.len());
        for event in events {
            event.write(version, &mut all);
            ends.push(all.len());
        }
        let all = Bytes::from(all);
        let starts = std::iter::once(0).chain(ends.iter().copied());
        let told = events.iter().zip(starts.zip(&ends));
        let events = told.map(|(event, (start, &end))| Told {
            owner: event.owner(),
            bytes: all.slice(start..end),
        });
        Self {
            events: events.collect(),
            all,
        }
    }
}

/// What a waiter waits for.
#[derive(Debug)]
pub(super) struct Pulse {
    looks: watch::Receiver<u64>,
    changes: watch::Receiver<Changes>,
    /// Looks until the feed compares with what came after this began: the one under way, and the next.
    settling: u8,
}

impl Pulse {
    /// Returns when something may have changed; `None` when the end is near.
    pub(super) async fn beat(&mut self) -> Option<()> {
        if self.changes.borrow().closed {
            return None;
        }
        loop {
            tokio::select! {
                changed = self.changes.changed() => {
                    changed.ok()?;
                    return (!self.changes.borrow_and_update().closed).then_some(());
                }
                looked = self.looks.changed(), if self.settling > 0 => {
                    looked.ok()?;
                    self.settling -= 1;
                    if self.settling == 0 {
                        return Some(());
                    }
                }
            }
        }
    }
}

/// A view and the time at which it is looked at.
#[derive(Clone, Debug)]
pub(super) struct Glance {
    pub(super) view: Arc<View>,
    pub(super) at: Timestamp,
}
