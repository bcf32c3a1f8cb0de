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
//! connection. The clock is this agent's: the wall clock once, at the start, and the monotonic one from there.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::Context as _;
use leeward_common::{
    bgp::{Leaks, Prefix, REPORT_MAX, Routing, Sight, Standing, Validities},
    finding::Finding,
    time::{Clock as _, SystemClock, Timestamp},
};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout},
};
use tokio_rustls::TlsConnector;
use tracing::{info, warn};

use super::{
    bmp::{Frame, Frames, Station},
    cache, collectors,
    observer::{self, Authorizations, Observer},
    peer::{Event, Feed},
    session::{self, Session},
    systems::{self, Questions},
    watch::{Told, Wanted},
};
use crate::{
    config::{Bgp, BgpPeer},
    net::{guarding, priority},
};

/// What connections heard and the observer did not yet take. Who finds it full waits, and so does whoever sends to it.
const HEARD_MAX: usize = 8;

/// The most bytes that are read at once.
const READ: usize = 64 << 10;

/// A peer that does not take what we send within this time is closed.
const WRITE_WITHIN: Duration = Duration::from_secs(5);

/// The most routers that are connected at once.
const ROUTERS_MAX: usize = 64;

/// How long routers are kept waiting for a first word of where regions are.
const TOLD_WITHIN: Duration = Duration::from_secs(5);

/// How often tables are asked for once more at most: agents come one by one, and a router that is asked sends everything.
const ASK_EVERY: Duration = Duration::from_secs(60);

/// How often time passes for feeds whose table may count as transferred.
const TICK: Duration = Duration::from_secs(1);

/// The first bytes that the kernel keeps for connections that wait to be accepted.
const BACKLOG: i32 = 64;

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
    /// Routes that are kept with their paths, and about how many bytes they take.
    pub routes: AtomicU64,
    /// See [`Self::routes`].
    pub route_bytes: AtomicU64,
}

/// Sockets that are bound while the process may still bind low ports.
#[derive(Debug, Default)]
pub struct Bound {
    bmp: Option<std::net::TcpListener>,
    bgp: Option<std::net::TcpListener>,
}

impl Bound {
    /// Binds what the configuration names.
    ///
    /// # Errors
    ///
    /// Returns which address cannot be bound, or which key cannot be read or used.
    pub fn bind(config: &Bgp) -> anyhow::Result<Self> {
        let bind = |address: Option<SocketAddr>, key: &str| -> anyhow::Result<Option<Socket>> {
            let Some(address) = address else {
                return Ok(None);
            };
            let socket = bind(address);
            socket
                .map(Some)
                .with_context(|| format!("cannot listen on {address} (bgp.{key})"))
        };
        let bmp = bind(config.bmp_listen, "bmp_listen")?;
        let bgp = bind(config.listen, "listen")?;
        if let (Some(socket), Some(address)) = (&bgp, config.listen) {
            for peer in &config.peers {
                guard(socket, address, peer)?;
            }
        }
        let listen = |socket: Socket| -> anyhow::Result<std::net::TcpListener> {
            socket.listen(BACKLOG)?;
            Ok(socket.into())
        };
        Ok(Self {
            bmp: bmp.map(listen).transpose()?,
            bgp: bgp.map(listen).transpose()?,
        })
    }
}

fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn guard(socket: &Socket, address: SocketAddr, peer: &BgpPeer) -> anyhow::Result<()> {
    let Some(file) = &peer.signature_key else {
        return Ok(());
    };
    let key = read_key(file)?;
    guarding::sign(socket, address.is_ipv6(), peer.session.address, &key).with_context(|| {
        format!(
            "segments of {} cannot be signed (TCP-MD5); does this kernel have it?",
            peer.session.address
        )
    })
}

/// A key is the file's first line.
fn read_key(file: &Path) -> anyhow::Result<Vec<u8>> {
    let named = || format!("{}: the key of a BGP peer (signature_key)", file.display());
    let text = std::fs::read_to_string(file).with_context(named)?;
    let key = text.lines().next().unwrap_or_default().as_bytes().to_vec();
    match (1..=guarding::MD5_KEY_MAX).contains(&key.len()) {
        true => Ok(key),
        false => Err(anyhow::anyhow!(
            "its first line must have 1 to {} bytes",
            guarding::MD5_KEY_MAX
        ))
        .with_context(named),
    }
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

/// What the thread does beside reading: it owns the observer.
struct Work {
    observer: Observer,
    questions: Questions,
    /// How each prefix was seen when it was told last.
    looked: BTreeMap<Prefix, (Sight, Validities, Leaks)>,
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
        let clock = shared.clock;
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
        if let Err(error) = listen(shared, bound) {
            warn!(%error, "routers and peers are not listened to");
        }
    }

    /// Watches what the configuration and aggregators say now. True if that is more than before.
    fn follow(&mut self, config: &Bgp, wanted: &watch::Sender<Wanted>) -> bool {
        let told = self.told.borrow_and_update();
        let list = match told.as_ref() {
            Some(told) => config.watchlist(told),
            None => config.watchlist(&Told::default()),
        };
        drop(told);
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
        } = routing;
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
    }

    fn close(&mut self, now: Timestamp, start: Timestamp) -> Routing {
        let looked = &mut self.looked;
        let windows = self.observer.close_window_keeping(now, start, |window| {
            let looks = (window.sight, window.validities, window.leaks);
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

fn listen(shared: &Arc<Shared>, bound: Bound) -> io::Result<()> {
    if let Some(listener) = bound.bmp {
        tokio::spawn(accept_routers(
            TcpListener::from_std(listener)?,
            shared.clone(),
        ));
    }
    if let Some(listener) = bound.bgp {
        tokio::spawn(accept_peers(
            TcpListener::from_std(listener)?,
            shared.clone(),
        ));
    }
    Ok(())
}

/// The next connection. One that failed before it was accepted is none.
async fn accept(listener: &TcpListener) -> (TcpStream, IpAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, from)) => return (stream, from.ip().to_canonical()),
            // Out of file descriptors, most likely: long enough not to spin.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// Accepts routers, for ever. Of two connections of one router the newer stays: a router that starts anew does not say
/// goodbye, and its feeds are lost before the new ones begin.
async fn accept_routers(listener: TcpListener, shared: Arc<Shared>) {
    let mut running: BTreeMap<IpAddr, (oneshot::Sender<()>, JoinHandle<()>)> = BTreeMap::new();
    loop {
        let (stream, from) = accept(&listener).await;
        running.retain(|_, (_, task)| !task.is_finished());
        let mut named = shared.config.bmp_routers.iter();
        let is_named = named.any(|network| network.contains(from));
        let before = running.remove(&from).map(|(_, task)| task);
        if !is_named || running.len() >= ROUTERS_MAX {
            shared.figures.strangers.fetch_add(1, Relaxed);
            continue;
        }
        let (replace, replaced) = oneshot::channel();
        let shared = shared.clone();
        let task = tokio::spawn(async move {
            if let Some(before) = before {
                _ = before.await;
            }
            hear_router(stream, from, replaced, &shared).await;
        });
        running.insert(from, (replace, task));
    }
}

/// Follows a router until its stream ends or another one replaces it.
async fn hear_router(
    stream: TcpStream,
    from: IpAddr,
    replaced: oneshot::Receiver<()>,
    shared: &Shared,
) {
    info!(router = %from, "a router has connected with BMP");
    shared.figures.routers.fetch_add(1, Relaxed);
    let mut station = Station::new(from);
    let mut asking = shared.asking.clone();
    asking.mark_unchanged();
    let why = tokio::select! {
        why = follow_router(stream, &mut station, shared) => why,
        _ = replaced => "the router connected anew".to_owned(),
        // BMP has no other word for it.
        Ok(()) = asking.changed() => "it is to send its tables once more".to_owned(),
    };
    warn!(router = %from, name = station.name.as_deref(), why, "a router's BMP stream has ended");
    // Whoever owns the observer may be gone; then nobody needs to know.
    _ = shared
        .heard
        .send((shared.clock.now(), station.lose()))
        .await;
    shared.figures.routers.fetch_sub(1, Relaxed);
}

/// Reads a router's stream until it ends; why it did.
async fn follow_router(mut stream: TcpStream, station: &mut Station, shared: &Shared) -> String {
    keep_alive(&stream);
    let mut frames = Frames::default();
    let mut buffer = vec![0; READ];
    loop {
        let read = match stream.read(&mut buffer).await {
            Ok(0) => return "the router closed it".to_owned(),
            Ok(read) => read,
            Err(error) => return error.to_string(),
        };
        let at = shared.clock.now();
        frames.push(&buffer[..read]);
        let mut events = Vec::new();
        loop {
            match frames.pop() {
                Ok(None) => break,
                Ok(Some(Frame::Message(message))) => match station.read(&message) {
                    Ok(told) => events.extend(told.events),
                    Err(refused) => {
                        shared.figures.refused.fetch_add(1, Relaxed);
                        tracing::debug!(%refused, "a message of a router was not understood");
                    }
                },
                Ok(Some(Frame::TooLong(_))) => _ = shared.figures.refused.fetch_add(1, Relaxed),
                Err(lost) => return lost.to_string(),
            }
        }
        if !events.is_empty() && shared.heard.send((at, events)).await.is_err() {
            return "the agent is stopping".to_owned();
        }
    }
}

/// BMP has no word to say that one is still there.
fn keep_alive(stream: &TcpStream) {
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(10))
        .with_interval(Duration::from_secs(3))
        .with_retries(3);
    if let Err(error) = SockRef::from(stream).set_tcp_keepalive(&keepalive) {
        warn!(%error, "a router that is gone may not be noticed");
    }
}

/// Accepts peers, for ever. Of two connections of one peer the first stays while it lives.
async fn accept_peers(listener: TcpListener, shared: Arc<Shared>) {
    let mut running: BTreeMap<IpAddr, JoinHandle<()>> = BTreeMap::new();
    loop {
        let (stream, from) = accept(&listener).await;
        let peer = shared
            .config
            .peers
            .iter()
            .find(|peer| peer.session.address == from);
        let is_taken = running.get(&from).is_some_and(|task| !task.is_finished());
        let Some(peer) = peer.filter(|_| !is_taken) else {
            shared.figures.strangers.fetch_add(1, Relaxed);
            continue;
        };
        let (peer, shared) = (peer.clone(), shared.clone());
        let task = tokio::spawn(async move {
            if peer.gtsm
                && let Err(error) = guarding::require_neighbour(&stream, from)
            {
                warn!(peer = %from, %error, "the peer cannot be held to its link, so it is not heard");
                return;
            }
            let why = follow_peer(stream, &peer.session, &shared).await;
            warn!(peer = %from, why, "a BGP session has ended");
        });
        running.insert(from, task);
    }
}

/// Leads a session until it ends; why it did.
async fn follow_peer(mut stream: TcpStream, peer: &session::Peer, shared: &Shared) -> String {
    let feed = Feed::session(peer.address);
    let (mut session, mut step) = Session::accept(Instant::now(), peer);
    let mut buffer = vec![0; READ];
    let mut was_established = false;
    let mut asking = shared.asking.clone();
    asking.mark_unchanged();
    loop {
        if session.is_established() != was_established {
            was_established = !was_established;
            match was_established {
                true => {
                    info!(peer = %peer.address, system = peer.system, "a BGP session is established");
                    shared.figures.sessions.fetch_add(1, Relaxed);
                }
                false => _ = shared.figures.sessions.fetch_sub(1, Relaxed),
            }
        }
        let close = step.close.take();
        let events = std::mem::take(&mut step.events);
        let events: Vec<_> = events.into_iter().map(|event| (feed, event)).collect();
        if !events.is_empty()
            && shared
                .heard
                .send((shared.clock.now(), events))
                .await
                .is_err()
        {
            return "the agent is stopping".to_owned();
        }
        let sent = match step.send.is_empty() {
            true => Ok(Ok(())),
            false => timeout(WRITE_WITHIN, stream.write_all(&step.send)).await,
        };
        if let Some(why) = close {
            return why;
        }
        step = match sent {
            Ok(Ok(())) => next(&mut stream, &mut session, &mut asking, &mut buffer).await,
            Ok(Err(error)) => session.lose(Instant::now(), error.to_string()),
            Err(_) => session.lose(
                Instant::now(),
                "the peer does not take what is sent".to_owned(),
            ),
        };
    }
}

/// What happens next: bytes, a deadline, a wish to hear everything once more, or the end of the connection.
async fn next(
    stream: &mut TcpStream,
    session: &mut Session,
    asking: &mut watch::Receiver<()>,
    buffer: &mut [u8],
) -> session::Step {
    let deadline = session.deadline();
    tokio::select! {
        Ok(()) = asking.changed() => session.ask_again(),
        read = stream.read(buffer) => match read {
            Ok(0) => session.lose(Instant::now(), "the peer closed the connection".to_owned()),
            Ok(read) => session.receive(Instant::now(), &buffer[..read]),
            Err(error) => session.lose(Instant::now(), error.to_string()),
        },
        () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => session.pass(Instant::now()),
    }
}

#[cfg(test)]
#[path = "live/tests.rs"]
mod tests;
