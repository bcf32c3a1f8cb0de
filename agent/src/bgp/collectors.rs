//! The way to RIS Live: one WebSocket connection, made anew for as long as the agent lives.
//!
//! ```text
//!   connect ──▶ ask for the watched prefixes ──▶ messages ──▶ Heard (bounded: while nobody reads, nothing is read here)
//!      ▲                                            │
//!      └── wait, ever longer ◀── closed · silent · too long a message: every feed is lost, no route is
//! ```
//!
//! A feed begins when the connection does, not when it says its first word: a peer whose session lasts has sent its table long ago,
//! so what it says ten seconds after is news ([`super::feed`]). A peer whose session begins anew sends its table anew.

use std::{
    collections::BTreeSet,
    io,
    net::IpAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use anyhow::Context as _;
use futures_util::{SinkExt as _, StreamExt as _};
use leeward_common::time::Timestamp;
use rustls::{RootCertStore, crypto::ring, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout},
};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{self, Message, Utf8Bytes, protocol::WebSocketConfig},
};
use tracing::{info, warn};

use super::{
    live::Shared,
    peer::{Down, Event, Feed},
    ris::{self, Told},
    watch::Wanted,
};
use crate::{
    random,
    uplink::backoff::{Backoff, Cure},
};

/// The most peers of collectors that are followed in the agent's life; all of RIS has some 1,500. What others say is passed over.
pub const FEEDS_MAX: usize = 4_096;

/// The connection must be there by then, with all its handshakes.
const CONNECT_WITHIN: Duration = Duration::from_secs(15);

/// A server that does not take what we send within this time is given up.
const WRITE_WITHIN: Duration = Duration::from_secs(5);

/// Where the server is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Place {
    /// As it was written, `ws://…` or `wss://…`.
    pub url: String,
    /// The host, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Whether the connection is encrypted.
    pub is_secure: bool,
}

impl Place {
    /// What a URL says; `None` if it is none of a WebSocket.
    #[must_use]
    pub fn parse(url: &str) -> Option<Self> {
        let uri: tungstenite::http::Uri = url.parse().ok()?;
        let is_secure = match uri.scheme_str()? {
            "wss" => true,
            "ws" => false,
            _ => return None,
        };
        let authority = uri.authority()?;
        if authority.as_str().contains('@') || authority.host().is_empty() {
            return None;
        }
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']');
        Some(Self {
            url: url.to_owned(),
            host: host.to_owned(),
            port: authority
                .port_u16()
                .unwrap_or(if is_secure { 443 } else { 80 }),
            is_secure,
        })
    }
}

/// Where to ask, and how long a server may be silent.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RisLive {
    /// Where it is.
    pub place: Place,
    /// A connection on which nothing comes for so long is dead. A third of that is how often the server is asked.
    pub silent_for: Duration,
}

/// Encryption with the public authorities.
///
/// # Errors
///
/// Returns that TLS is not possible at all.
pub fn public() -> anyhow::Result<TlsConnector> {
    secured(RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    })
}

fn secured(roots: RootCertStore) -> anyhow::Result<TlsConnector> {
    let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .context("TLS has no usual versions")?
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(tls)))
}

/// Follows the server for ever, or until nobody listens. Another watch-list makes another connection.
pub(super) async fn follow(
    ris: RisLive,
    tls: TlsConnector,
    mut wanted: watch::Receiver<Wanted>,
    shared: Arc<Shared>,
) {
    let mut backoff = Backoff::default();
    let mut known = BTreeSet::new();
    while !shared.heard.is_closed() {
        let began = Instant::now();
        shared.figures.ris_attempts.fetch_add(1, Relaxed);
        let asked = wanted.borrow_and_update().clone();
        let connection = timeout(CONNECT_WITHIN, connect(&ris.place, &tls)).await;
        let why = match connection {
            Ok(Ok((stream, server))) => {
                let mut line = Line {
                    stream,
                    server,
                    began: shared.clock.now(),
                    up: BTreeSet::new(),
                    known: &mut known,
                    shared: &shared,
                };
                shared.figures.ris_connected.store(1, Relaxed);
                let why = tokio::select! {
                    why = line.follow(&asked, ris.silent_for) => why,
                    Ok(()) = wanted.changed() => "other prefixes are watched".to_owned(),
                };
                line.lose().await;
                shared.figures.ris_connected.store(0, Relaxed);
                why
            }
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => "it does not answer".to_owned(),
        };
        warn!(
            url = ris.place.url,
            why, "route collectors (RIS Live) are not heard"
        );
        let random = u64::from_be_bytes(random::bytes());
        let wait = backoff.after(Cure::Time, began.elapsed(), random);
        tokio::select! {
            () = sleep(wait) => {}
            () = shared.heard.closed() => {}
        }
    }
}

/// A stream of bytes, encrypted or not.
trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Bytes for S {}

type Socket = WebSocketStream<Box<dyn Bytes>>;

async fn connect(place: &Place, tls: &TlsConnector) -> anyhow::Result<(Socket, IpAddr)> {
    let stream = TcpStream::connect((place.host.as_str(), place.port)).await?;
    let server = stream.peer_addr()?.ip().to_canonical();
    let stream: Box<dyn Bytes> = match place.is_secure {
        false => Box::new(stream),
        true => {
            let name = ServerName::try_from(place.host.clone())
                .map_err(io::Error::other)
                .context("no certificate can carry this host")?;
            Box::new(tls.connect(name, stream).await?)
        }
    };
    let limits = WebSocketConfig::default()
        .read_buffer_size(64 << 10)
        .max_write_buffer_size(1 << 20)
        .max_message_size(Some(ris::MESSAGE_MAX))
        .max_frame_size(Some(ris::MESSAGE_MAX));
    let (stream, _) = client_async_with_config(place.url.as_str(), stream, Some(limits)).await?;
    Ok((stream, server))
}

/// One connection.
struct Line<'a> {
    stream: Socket,
    server: IpAddr,
    began: Timestamp,
    /// The feeds of this connection whose sessions are up.
    up: BTreeSet<Feed>,
    /// All that were ever heard.
    known: &'a mut BTreeSet<Feed>,
    shared: &'a Shared,
}

impl Line<'_> {
    /// Follows the server until it is lost; why it is.
    async fn follow(&mut self, wanted: &Wanted, silent_for: Duration) -> String {
        for question in ris::questions(wanted) {
            if let Err(why) = self.send(Message::text(question)).await {
                return why;
            }
        }
        info!(server = %self.server, prefixes = wanted.prefixes.len(), addresses = wanted.addresses.len(), "route collectors (RIS Live) are heard");
        let mut ask = interval(silent_for / 3);
        ask.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut dead = Instant::now() + silent_for;
        loop {
            let message = tokio::select! {
                message = self.stream.next() => message,
                _ = ask.tick() => {
                    if let Err(why) = self.send(Message::text(ris::ping())).await {
                        return why;
                    }
                    continue;
                }
                () = sleep_until(dead) => return format!("it was silent for {silent_for:?}"),
            };
            let text = match message {
                Some(Ok(Message::Text(text))) => text,
                // Other frames show that it is there; pings are answered by the library.
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {
                    dead = Instant::now() + silent_for;
                    continue;
                }
                Some(Ok(Message::Binary(_) | Message::Frame(_))) => {
                    self.shared.figures.ris_refused.fetch_add(1, Relaxed);
                    continue;
                }
                Some(Ok(Message::Close(_))) | None => return "it closed the connection".to_owned(),
                Some(Err(error)) => return error.to_string(),
            };
            if let Err(why) = self.hear(&text).await {
                return why;
            }
            dead = Instant::now() + silent_for;
        }
    }

    async fn send(&mut self, message: Message) -> Result<(), String> {
        match timeout(WRITE_WITHIN, self.stream.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("it does not take what is sent".to_owned()),
        }
    }

    async fn hear(&mut self, text: &Utf8Bytes) -> Result<(), String> {
        let figures = &self.shared.figures;
        figures.ris_messages.fetch_add(1, Relaxed);
        let told = match ris::read(self.server, text) {
            Ok(told) => told,
            Err(refused) => {
                figures.ris_refused.fetch_add(1, Relaxed);
                tracing::debug!(%refused, "a message of RIS Live was not understood");
                return Ok(());
            }
        };
        let now = self.shared.clock.now();
        match told {
            Told::Routes(feed, system, update) => {
                if !self.is_room_for(feed) {
                    return Ok(());
                }
                if self.up.insert(feed) {
                    self.tell(self.began, feed, Event::Up { system }).await?;
                }
                self.tell(now, feed, Event::Update(update)).await
            }
            // Of a peer that said nothing about us nothing is remembered.
            Told::Session(feed, event) => match event {
                Event::Up { .. } if self.known.contains(&feed) => {
                    self.up.insert(feed);
                    self.tell(now, feed, event).await
                }
                Event::Down(_) if self.up.contains(&feed) => {
                    // Should that be broken off, it is still to be told.
                    self.tell(now, feed, event).await?;
                    self.up.remove(&feed);
                    Ok(())
                }
                _ => Ok(()),
            },
            Told::Error(why) => {
                warn!(why, "RIS Live does not do what it was asked for");
                Ok(())
            }
            Told::Else => Ok(()),
        }
    }

    fn is_room_for(&mut self, feed: Feed) -> bool {
        let is_room = self.known.len() < FEEDS_MAX || self.known.contains(&feed);
        if is_room {
            self.known.insert(feed);
            let feeds = self.known.len() as u64;
            self.shared.figures.ris_feeds.store(feeds, Relaxed);
        }
        is_room
    }

    async fn tell(&mut self, at: Timestamp, feed: Feed, event: Event) -> Result<(), String> {
        let heard = self.shared.heard.send((at, vec![(feed, event)])).await;
        heard.map_err(|_| "the agent is stopping".to_owned())
    }

    /// The connection is gone: what its feeds said is no longer known.
    async fn lose(&mut self) {
        let up = std::mem::take(&mut self.up).into_iter();
        let lost: Vec<_> = up
            .map(|feed| (feed, Event::Down(Down::SourceLost)))
            .collect();
        if !lost.is_empty() {
            // Whoever owns the observer may be gone; then nobody needs to know.
            _ = self
                .shared
                .heard
                .send((self.shared.clock.now(), lost))
                .await;
        }
    }
}

#[cfg(test)]
#[path = "collectors/tests.rs"]
mod tests;
