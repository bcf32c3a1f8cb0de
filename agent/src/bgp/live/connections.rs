//! Connections of routers and peers: who may connect, what is read, and whose end is whose.

use std::{
    collections::BTreeMap,
    io,
    mem::MaybeUninit,
    net::IpAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{mpsc::error::SendError, oneshot, watch},
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};
use tracing::{info, warn};

use super::{
    super::{
        bmp::{Frame, Frames, Station},
        peer::{Event, Feed},
        session::{self, Session},
    },
    Bound, Heard, Shared,
};
use crate::net::guarding;

/// The most bytes that are read at once.
const READ: usize = 64 << 10;

/// A peer that does not take what we send within this time is closed.
const WRITE_WITHIN: Duration = Duration::from_secs(5);

/// The most routers that are connected at once.
const ROUTERS_MAX: usize = 64;

/// Listens where sockets are bound.
pub(super) fn listen(shared: &Arc<Shared>, bound: Bound) -> io::Result<()> {
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
    // What was read and not yet handed on stays when the reading is broken off: the station will not tell of it again.
    let mut unsent = Vec::new();
    let why = tokio::select! {
        why = follow_router(stream, &mut station, &mut unsent, shared) => why,
        _ = replaced => "the router connected anew".to_owned(),
        // BMP has no other word for it.
        Ok(()) = asking.changed() => "it is to send its tables once more".to_owned(),
    };
    warn!(router = %from, name = station.name.as_deref(), why, "a router's BMP stream has ended");
    unsent.extend(station.lose());
    // Whoever owns the observer may be gone; then nobody needs to know.
    _ = shared.heard.send((shared.clock.now(), unsent)).await;
    shared.figures.routers.fetch_sub(1, Relaxed);
}

/// Reads a router's stream until it ends; why it did.
async fn follow_router(
    mut stream: TcpStream,
    station: &mut Station,
    unsent: &mut Vec<(Feed, Event)>,
    shared: &Shared,
) -> String {
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
        loop {
            match frames.pop() {
                Ok(None) => break,
                Ok(Some(Frame::Message(message))) => match station.read(&message) {
                    Ok(told) => unsent.extend(told.events),
                    Err(refused) => {
                        shared.figures.refused.fetch_add(1, Relaxed);
                        tracing::debug!(%refused, "a message of a router was not understood");
                    }
                },
                Ok(Some(Frame::TooLong(_))) => _ = shared.figures.refused.fetch_add(1, Relaxed),
                Err(lost) => return lost.to_string(),
            }
        }
        if !unsent.is_empty() {
            let Ok(room) = shared.heard.reserve().await else {
                return "the agent is stopping".to_owned();
            };
            room.send((at, std::mem::take(unsent)));
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
        let mut sent = write(&mut stream, &step.send).await;
        if !events.is_empty() {
            let heard = (shared.clock.now(), events);
            let taken = hand_on(heard, &mut stream, &mut session, &mut sent, shared).await;
            if taken.is_err() {
                return "the agent is stopping".to_owned();
            }
        }
        if let Some(why) = close {
            return why;
        }
        step = match sent {
            Ok(()) => next(&mut stream, &mut session, &mut asking, &mut buffer).await,
            Err(why) => session.lose(Instant::now(), why),
        };
    }
}

/// Writes; why it failed.
async fn write(stream: &mut TcpStream, bytes: &[u8]) -> Result<(), String> {
    if bytes.is_empty() {
        return Ok(());
    }
    match timeout(WRITE_WITHIN, stream.write_all(bytes)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the peer does not take what is sent".to_owned()),
    }
}

/// Hands on what was heard. Until somebody takes it nothing is read, but the peer hears that we are there.
async fn hand_on(
    heard: Heard,
    stream: &mut TcpStream,
    session: &mut Session,
    sent: &mut Result<(), String>,
    shared: &Shared,
) -> Result<(), SendError<()>> {
    loop {
        tokio::select! {
            room = shared.heard.reserve() => {
                room?.send(heard);
                return Ok(());
            }
            () = until(session.keepalive_deadline()), if sent.is_ok() => {
                let step = session.remind(Instant::now());
                *sent = write(stream, &step.send).await;
            }
        }
    }
}

/// Waits for a moment that may never come.
async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// What happens next: a deadline, a wish to hear everything once more, bytes, or the end of the connection. A peer is silent
/// only if nothing of it waits to be read: it may be us who did not read.
async fn next(
    stream: &mut TcpStream,
    session: &mut Session,
    asking: &mut watch::Receiver<()>,
    buffer: &mut [u8],
) -> session::Step {
    let (hold, keepalive) = (session.hold_deadline(), session.keepalive_deadline());
    let is_silent = |stream: &TcpStream| {
        let mut byte = [MaybeUninit::uninit()];
        SockRef::from(stream).peek(&mut byte).is_err()
    };
    let read = tokio::select! {
        biased;
        () = until(keepalive) => return session.remind(Instant::now()),
        Ok(()) = asking.changed() => return session.ask_again(),
        read = stream.read(buffer) => read,
        () = until(hold) => match is_silent(stream) {
            true => return session.expire(Instant::now()),
            false => stream.read(buffer).await,
        },
    };
    match read {
        Ok(0) => session.lose(Instant::now(), "the peer closed the connection".to_owned()),
        Ok(read) => session.receive(Instant::now(), &buffer[..read]),
        Err(error) => session.lose(Instant::now(), error.to_string()),
    }
}

#[cfg(test)]
#[path = "connections/tests.rs"]
mod tests;
