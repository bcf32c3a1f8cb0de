//! Live feeds: routers that connect with BMP, and peers that connect with BGP.
//!
//! A thread of its own with a runtime of its own: a router that sends its whole table, or a hostile peer that sends whatever
//! it likes, holds up neither the probe thread nor the uplink.
//!
//! ```text
//!   router ──TCP──▶ a task: Frames, Station ──┐ Heard (bounded: who sends faster than is read waits)
//!   peer ───TCP──▶ a task: Session ───────────┴──▶ Observer ──▶ Routing: events at once, windows in time
//! ```
//!
//! Only addresses that the configuration names may connect; everybody else is closed at once. A fault ends its own
//! connection. The clock is this agent's: the wall clock once, at the start, and the monotonic one from there. What is told is
//! dated by the wall clock as it is then, which may have been set since.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::Context as _;
use leeward_common::{
    bgp::{Leaks, Prefix, REPORT_MAX, Routing, Sight, Standing, Validities, What},
    finding::Finding,
    time::{Clock as _, SystemClock, Timestamp},
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until},
};
use tokio_rustls::TlsConnector;
use tracing::{info, warn};

use super::{
    cache, collectors,
    observer::{self, Authorizations, Observer},
    peer::{Event, Feed},
    systems::{self, Questions},
    watch::{Told, Wanted},
};
use crate::{config::Bgp, net::priority};

mod bound;
mod connections;

pub use bound::Bound;

/// What connections heard and the observer did not yet take. Who finds it full waits, and so does whoever sends to it.
const HEARD_MAX: usize = 8;

/// How long routers are kept waiting for a first word of where regions are.
const TOLD_WITHIN: Duration = Duration::from_secs(5);

/// How often tables are asked for once more at most: agents come one by one, and a router that is asked sends everything.
const ASK_EVERY: Duration = Duration::from_secs(60);

/// How often time passes for feeds whose table may count as transferred.
const TICK: Duration = Duration::from_secs(1);

/// What happened, as one connection heard it.
pub(super) type Heard = (Timestamp, Vec<(Feed, Event)>);

/// What live feeds did, for the metrics.
#[derive(Debug, Default)]
pub struct Figures {
    /// Routers that are connected with BMP.
    pub routers: AtomicU64,
    /// Sessions that are established.
    pub sessions: AtomicU64,
    /// Prefixes that are watched.
    pub watched: AtomicU64,
    /// UPDATEs.
    pub updates: AtomicU64,
    /// Messages that were not understood.
    pub refused: AtomicU64,
    /// Connections that were closed since nobody named their address.
    pub strangers: AtomicU64,
    /// Events that were told.
    pub events: AtomicU64,
    /// Connections to RIS Live that are open: one or none.
    pub ris_connected: AtomicU64,
    /// Attempts at connecting to it.
    pub ris_attempts: AtomicU64,
    /// Its messages.
    pub ris_messages: AtomicU64,
    /// Those that were not understood.
    pub ris_refused: AtomicU64,
    /// Peers of route collectors that were heard.
    pub ris_feeds: AtomicU64,
    /// Caches of authorizations that are followed and have sent a whole set: one or none.
    pub roa_caches: AtomicU64,
    /// The authorizations that are known.
    pub roas: AtomicU64,
    /// How often a cache has sent what changed, or that nothing did.
    pub roa_updates: AtomicU64,
    /// Events that were given up, since there were too many at once.
    pub given_up: AtomicU64,
    /// Changes that came too fast to be told when they happened.
    pub events_held: AtomicU64,
    /// Sessions, and UPDATEs, of feeds that were not followed, since there are too many.
    pub feeds_refused: AtomicU64,
    /// Routes that are kept with their paths, and about how many bytes they take.
    pub routes: AtomicU64,
    /// See [`Self::routes`].
    pub route_bytes: AtomicU64,
}

/// Starts the thread. It ends when nobody takes what it hands on.
///
/// # Errors
///
/// Returns that no thread or runtime can be started.
pub fn start(
    config: &Bgp,
    bound: Bound,
    out: mpsc::Sender<Finding>,
) -> anyhow::Result<Arc<Figures>> {
    let (_, questions) = systems::channel();
    let (_, told) = watch::channel(Some(Told::default()));
    start_answering(config, bound, out, questions, told)
}

/// The same; it answers whose addresses are, and watches what aggregators say beside what the configuration does.
///
/// # Errors
///
/// Returns that no thread or runtime can be started.
pub fn start_answering(
    config: &Bgp,
    bound: Bound,
    out: mpsc::Sender<Finding>,
    questions: Questions,
    told: watch::Receiver<Option<Told>>,
) -> anyhow::Result<Arc<Figures>> {
    let figures = Arc::new(Figures::default());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime of BGP")?;
    let (heard, hearing) = mpsc::channel(HEARD_MAX);
    let (known, authorizing) = mpsc::channel(cache::WAITING);
    let clock = Clock::new();
    let (again, asking) = watch::channel(());
    let mut observer = Observer::new(config.watchlist(&Told::default()))
        .with_relations(config.relations.clone())
        .keeping(config.extent);
    if !config.rpki_caches.is_empty() {
        observer.authorize(clock.now(), Authorizations::Unknown);
    }
    let work = Work {
        clock,
        observer,
        questions,
        looked: BTreeMap::new(),
        outside: BTreeMap::new(),
        window: config.window,
        figures: figures.clone(),
        hearing,
        authorizing,
        told,
        again,
        ask_again: None,
        asked_at: None,
        tls: config
            .ris_live
            .as_ref()
            .map(|_| collectors::public())
            .transpose()?,
        out,
    };
    let shared = Arc::new(Shared {
        config: config.clone(),
        clock,
        heard,
        asking,
        figures: figures.clone(),
    });
    std::thread::Builder::new()
        .name("bgp".to_owned())
        .spawn(move || {
            // A burst of a million withdrawals takes a core for half a second.
            if let Err(error) = priority::give_way() {
                warn!(%error, "the thread of BGP competes with the probe thread");
            }
            runtime.block_on(work.run(shared, bound, known));
        })
        .context("cannot start the thread of BGP")?;
    Ok(figures)
}

/// A wall clock that differs by this much from what it should be by now was set, not read a moment later.
const SET: Duration = Duration::from_secs(1);

/// The wall clock as it was at the start, and the monotonic one since: what is measured never runs backwards.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    wall: Timestamp,
    since: Instant,
}

impl Clock {
    fn new() -> Self {
        Self {
            wall: SystemClock.now(),
            since: Instant::now(),
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.wall + self.since.elapsed()
    }

    /// A report by the wall clock as it is now: what is as old as the error of a clock that was wrong at the start would count as
    /// old news for as long as the agent runs.
    fn dated(&self, mut routing: Routing) -> Routing {
        let (own, wall) = (self.now(), SystemClock.now());
        if own.since(wall).max(wall.since(own)) < SET {
            return routing;
        }
        let date = |at: &mut Timestamp| *at = wall + at.since(own) - own.since(*at);
        let date_sight = |sight: &mut Sight| {
            if sight.unsure.feeds > 0 {
                date(&mut sight.unsure.known_at);
            }
        };
        for event in &mut routing.events {
            date(&mut event.at);
            if let What::Prefix { sight, .. } = &mut event.what {
                date_sight(sight);
            }
        }
        for window in &mut routing.windows {
            date(&mut window.start);
            date_sight(&mut window.sight);
        }
        for feed in &mut routing.feeds {
            date(&mut feed.since);
        }
        routing
    }
}

/// What all connections share.
#[derive(Debug)]
pub(super) struct Shared {
    config: Bgp,
    pub(super) clock: Clock,
    pub(super) heard: mpsc::Sender<Heard>,
    /// Changes when whoever can is to send his table once more.
    asking: watch::Receiver<()>,
    pub(super) figures: Arc<Figures>,
}

#[cfg(test)]
impl Shared {
    /// For connections that are tested alone: there is room for one that heard something.
    pub(super) fn alone() -> (Arc<Self>, mpsc::Receiver<Heard>, watch::Sender<()>) {
        let (heard, hearing) = mpsc::channel(1);
        let (again, asking) = watch::channel(());
        let shared = Self {
            config: Bgp::default(),
            clock: Clock::new(),
            heard,
            asking,
            figures: Arc::default(),
        };
        (Arc::new(shared), hearing, again)
    }
}
/// How a prefix is seen: by whom, and what its routes look like and ask for.
type Looks = (Sight, Validities, Leaks, [bool; 2]);

/// What the thread does beside reading: it owns the observer.
struct Work {
    clock: Clock,
    observer: Observer,
    questions: Questions,
    /// How each prefix was seen when it was told last.
    looked: BTreeMap<Prefix, Looks>,
    /// How each feed of a route collector was when it was told last.
    outside: BTreeMap<String, (Standing, u64)>,
    window: Duration,
    figures: Arc<Figures>,
    hearing: mpsc::Receiver<Heard>,
    authorizing: mpsc::Receiver<Authorizations>,
    /// What aggregators say of where regions are.
    told: watch::Receiver<Option<Told>>,
    again: watch::Sender<()>,
    /// When tables are to be sent once more, if they are.
    ask_again: Option<Instant>,
    asked_at: Option<Instant>,
    tls: Option<TlsConnector>,
    out: mpsc::Sender<Finding>,
}

impl Work {
    async fn run(mut self, shared: Arc<Shared>, bound: Bound, known: mpsc::Sender<Authorizations>) {
        let clock = self.clock;
        let caches = shared.config.rpki_caches.clone();
        if !caches.is_empty() {
            tokio::spawn(cache::follow(caches, self.figures.clone(), known));
        }
        // Routers send their tables once: better that it is known by then what to look for.
        let patience = sleep(TOLD_WITHIN);
        tokio::pin!(patience);
        let mut silent = Some(bound);
        let (wanted, wanting) = watch::channel(Wanted::default());
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut start = clock.now();
        loop {
            if silent.is_some() && (self.told.borrow().is_some() || patience.is_elapsed()) {
                self.follow(&shared.config, &wanted);
                self.listen(&shared, silent.take().unwrap_or_default(), &wanting);
            }
            let routing = tokio::select! {
                Some((at, events)) = self.hearing.recv() => {
                    for (feed, event) in &events {
                        self.hear(at, feed, event);
                        // What one read brings about may be more than the observer keeps.
                        if self.observer.waiting() >= REPORT_MAX {
                            let routing = Routing { events: self.observer.take_events(), ..Routing::default() };
                            if self.hand_on(routing).await.is_err() {
                                return;
                            }
                        }
                    }
                    Routing { events: self.observer.take_events(), ..Routing::default() }
                }
                Some(authorizations) = self.authorizing.recv() => {
                    self.observer.authorize(clock.now(), authorizations);
                    Routing { events: self.observer.take_events(), ..Routing::default() }
                }
                Ok(()) = self.told.changed(), if silent.is_none() => {
                    if self.follow(&shared.config, &wanted) {
                        let soonest = self.asked_at.map_or_else(Instant::now, |at| at + ASK_EVERY);
                        self.ask_again = Some(soonest);
                    }
                    continue;
                }
                () = &mut patience, if silent.is_some() => continue,
                () = sleep_until(self.ask_again.unwrap_or_else(Instant::now)), if self.ask_again.is_some() => {
                    info!("more is watched than before, so tables are asked for once more");
                    self.ask_again = None;
                    self.asked_at = Some(Instant::now());
                    self.again.send_replace(());
                    continue;
                }
                asked = self.questions.next() => {
                    asked.answer(&self.observer);
                    continue;
                }
                _ = tick.tick() => {
                    let now = clock.now();
                    let watched = self.observer.watchlist().all().len();
                    self.figures.watched.store(watched as u64, Relaxed);
                    let (routes, bytes) = self.observer.table_size();
                    self.figures.routes.store(routes as u64, Relaxed);
                    self.figures.route_bytes.store(bytes as u64, Relaxed);
                    match now.since(start) >= self.window {
                        true => self.close(now, std::mem::replace(&mut start, now)),
                        false => {
                            self.observer.pass(now);
                            Routing { events: self.observer.take_events(), ..Routing::default() }
                        }
                    }
                }
                () = self.out.closed() => return,
            };
            if self.hand_on(routing).await.is_err() {
                return;
            }
        }
    }

    /// Lets routers, peers and collectors come.
    fn listen(&mut self, shared: &Arc<Shared>, bound: Bound, wanting: &watch::Receiver<Wanted>) {
        if let (Some(ris), Some(tls)) = (shared.config.ris_live.clone(), self.tls.take()) {
            tokio::spawn(collectors::follow(
                ris,
                tls,
                wanting.clone(),
                shared.clone(),
            ));
        }
        if let Err(error) = connections::listen(shared, bound) {
            warn!(%error, "routers and peers are not listened to");
        }
    }

    /// Watches what the configuration and aggregators say now. True if that is more than before.
    fn follow(&mut self, config: &Bgp, wanted: &watch::Sender<Wanted>) -> bool {
        let told = self.told.borrow_and_update().clone();
        let list = config.watchlist(&told.unwrap_or_default());
        let is_more = self.observer.follow(list);
        let watchlist = self.observer.watchlist();
        let watched = watchlist
            .all()
            .iter()
            .map(|own| observer::prefix(&own.prefix));
        let watched: BTreeSet<_> = watched.collect();
        self.looked.retain(|prefix, _| watched.contains(prefix));
        wanted.send_if_modified(|before| {
            let now = watchlist.wanted();
            let is_new = *before != now;
            *before = now;
            is_new
        });
        is_more
    }

    /// In reports of a bounded size. While the uplink does not take them, nothing is heard: who sends waits.
    async fn hand_on(&self, routing: Routing) -> Result<(), mpsc::error::SendError<Finding>> {
        self.figures
            .events
            .fetch_add(routing.events.len() as u64, Relaxed);
        let Routing {
            events,
            windows,
            feeds,
        } = self.clock.dated(routing);
        let (mut events, mut windows, mut feeds) =
            (events.into_iter(), windows.into_iter(), feeds.into_iter());
        loop {
            let report = Routing {
                events: events.by_ref().take(REPORT_MAX).collect(),
                windows: windows.by_ref().take(REPORT_MAX).collect(),
                feeds: feeds.by_ref().take(REPORT_MAX).collect(),
            };
            if report == Routing::default() {
                return Ok(());
            }
            self.out.send(Finding::Routing(Box::new(report))).await?;
        }
    }

    fn hear(&mut self, at: Timestamp, feed: &Feed, event: &Event) {
        if matches!(event, Event::Update(_)) {
            self.figures.updates.fetch_add(1, Relaxed);
        }
        self.observer.on(at, feed, event);
        self.figures
            .given_up
            .store(self.observer.events_given_up, Relaxed);
        self.figures
            .events_held
            .store(self.observer.events_held, Relaxed);
        self.figures
            .feeds_refused
            .store(self.observer.feeds_refused, Relaxed);
    }

    fn close(&mut self, now: Timestamp, start: Timestamp) -> Routing {
        let looked = &mut self.looked;
        let windows = self.observer.close_window_keeping(now, start, |window| {
            let mut sight = window.sight;
            // That it is still so while a table is transferred is no news each time.
            sight.unsure.known_at = Timestamp::EPOCH;
            let asks = [window.blackholed, window.shutting_down];
            let looks = (sight, window.validities, window.leaks, asks);
            let before = looked.insert(window.prefix, looks);
            !window.is_quiet() || before != Some(looks)
        });
        let mut feeds = self.observer.feeds();
        let outside = &mut self.outside;
        // There may be a thousand of them, which say nothing most of the time.
        feeds.retain(|feed| {
            let is_as = (feed.standing, feed.updates);
            feed.collector.is_none() || outside.insert(feed.feed.clone(), is_as) != Some(is_as)
        });
        Routing {
            events: self.observer.take_events(),
            windows,
            feeds,
        }
    }
}

#[cfg(test)]
#[path = "live/tests.rs"]
mod tests;
