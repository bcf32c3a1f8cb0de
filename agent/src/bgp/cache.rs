//! The way to who knows the authorizations: a cache that is asked by the RPKI-to-Router protocol (RFC 8210).
//!
//! ```text
//!   cache ──TCP──▶ Guarded ──▶ rpki::rtr::Client ──▶ Change ── End of Data ──▶ Roas ──▶ observer
//!     connection lost · nothing new until the data expire · a set that cannot be ──▶ nothing is known
//! ```
//!
//! The protocol is the `rpki` crate's. Of several caches the first that answers is used for as long as it does; when it is lost,
//! the search begins with the first again. A set counts when it is whole, and no longer than the connection or than the cache
//! says that it lasts: what is not known makes no route invalid. A cache is believed in what it says, but not in lengths: a
//! message that is longer than any can be, or a set that is larger, ends the connection.

use std::{
    io,
    ops::RangeInclusive,
    pin::Pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll},
    time::Duration,
};

use rpki::rtr::{
    Action as Does, Client, Payload, Timing,
    client::{PayloadError, PayloadTarget, PayloadUpdate},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, BufReader, ReadBuf},
    net::TcpStream,
    sync::mpsc,
    task::spawn_blocking,
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};
use tracing::{info, warn};

use super::{
    live::Figures,
    observer::Authorizations,
    rpki::{Action, Change, Roas},
};
use crate::{
    random,
    uplink::backoff::{Backoff, Cure},
};

/// The most caches that can be named.
pub const CACHES_MAX: usize = 8;

/// A cache that does not take a connection by then is not there.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// How long a cache is waited for and believed.
#[derive(Clone, Debug)]
struct Patience {
    /// It must have sent what it was asked for by then.
    send: Duration,
    /// The shortest and the longest that data may last, whatever it says.
    expire: RangeInclusive<Duration>,
}

/// Data last as RFC 8210, section 6 says.
const PATIENCE: Patience = Patience {
    send: Duration::from_secs(5 * 60),
    expire: Duration::from_secs(600)..=Duration::from_secs(172_800),
};

/// That of RFC 8210; the next one tells of paths too, which nobody here wants to know.
const VERSION: u8 = 1;

/// It is not asked more often, whatever it says.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// The longest that a cache may want not to be asked.
const REFRESH_MAX: u32 = 86_400;

/// The longest message of the protocol that makes sense: an authorization of paths that names sixteen thousand systems.
const MESSAGE_MAX: u32 = 64 << 10;

/// Sets that wait to be taken. Who makes them waits too.
pub const WAITING: usize = 1;

/// Follows the caches for ever, or until nobody wants to know.
pub async fn follow(
    caches: Vec<String>,
    figures: Arc<Figures>,
    told: mpsc::Sender<Authorizations>,
) {
    follow_patiently(caches, figures, told, PATIENCE).await;
}

async fn follow_patiently(
    caches: Vec<String>,
    figures: Arc<Figures>,
    told: mpsc::Sender<Authorizations>,
    patience: Patience,
) {
    let mut backoff = Backoff::default();
    loop {
        let began = Instant::now();
        for cache in &caches {
            let mut knew = false;
            let why = tokio::select! {
                why = hear(cache, &figures, &told, &patience, &mut knew) => why,
                () = told.closed() => return,
            };
            warn!(
                cache,
                why, "authorizations of routes (RPKI) are not known from this cache"
            );
            if knew {
                figures.roa_caches.store(0, Relaxed);
                figures.roas.store(0, Relaxed);
                if told.send(Authorizations::Unknown).await.is_err() {
                    return;
                }
                // Of several the first is preferred.
                break;
            }
        }
        let wait = backoff.after(
            Cure::Time,
            began.elapsed(),
            u64::from_be_bytes(random::bytes()),
        );
        tokio::select! {
            () = sleep(wait) => {}
            () = told.closed() => return,
        }
    }
}

/// Follows one cache until it is lost; why it is. `knew` is set once a whole set was told.
async fn hear(
    cache: &str,
    figures: &Figures,
    told: &mpsc::Sender<Authorizations>,
    patience: &Patience,
    knew: &mut bool,
) -> String {
    let stream = match timeout(CONNECT_WITHIN, TcpStream::connect(cache)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return error.to_string(),
        Err(_) => return "it does not answer".to_owned(),
    };
    let stream = Guarded::new(BufReader::new(stream));
    let mut client = Client::with_initial_version(VERSION, stream, Target::default(), None);
    let mut roas = Arc::new(Roas::default());
    let mut deadline = Instant::now() + patience.send;
    let mut expires = None;
    loop {
        let asked = Instant::now();
        let step = async { timeout_at(deadline, client.step()).await };
        let step = tokio::select! {
            step = step => step,
            () = sleep_until(expires.unwrap_or(deadline)), if expires.is_some() => {
                return "its data are too old and it sends none".to_owned();
            }
        };
        match step {
            Ok(Ok(())) => {}
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return "it closed the connection".to_owned();
            }
            // What it sent cannot be, which it was told.
            Ok(Err(error)) => {
                return match error.to_string().is_empty() {
                    true => "it sent what cannot be".to_owned(),
                    false => error.to_string(),
                };
            }
            Err(_) => return "it does not send what it was asked for".to_owned(),
        }
        let Some((change, timing)) = client.target_mut().taken.take() else {
            return "it sent nothing".to_owned();
        };
        let is_news = change.resets || !change.is_empty();
        if is_news {
            let before = match change.resets {
                true => Arc::default(),
                false => roas.clone(),
            };
            // A full set is sorted for a tenth of a second, in which routers must be heard.
            roas = match spawn_blocking(move || change.what.apply(&before)).await {
                Ok(Ok(roas)) => Arc::new(roas),
                Ok(Err(too_many)) => return too_many.to_string(),
                Err(error) => return error.to_string(),
            };
        }
        if !*knew {
            info!(
                cache,
                payloads = roas.len(),
                "authorizations of routes (RPKI) are known"
            );
        }
        *knew = true;
        figures.roa_caches.store(1, Relaxed);
        figures.roas.store(roas.len() as u64, Relaxed);
        figures.roa_updates.fetch_add(1, Relaxed);
        if is_news
            && told
                .send(Authorizations::Known(roas.clone()))
                .await
                .is_err()
        {
            return "the agent is stopping".to_owned();
        }
        let now = Instant::now();
        let lasts = Duration::from_secs(timing.expire.into());
        expires = Some(now + lasts.clamp(*patience.expire.start(), *patience.expire.end()));
        let refresh = Duration::from_secs(timing.refresh.min(REFRESH_MAX).into());
        deadline = now + refresh + patience.send;
        sleep_until(asked + ASK_EVERY).await;
    }
}

/// Where the client puts what it reads.
#[derive(Debug, Default)]
struct Target {
    taken: Option<(Update, Timing)>,
}

/// What is read until the End of Data.
#[derive(Debug, Default)]
struct Update {
    resets: bool,
    count: usize,
    what: Change,
}

impl Update {
    const fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl PayloadTarget for Target {
    type Update = Update;

    fn start(&mut self, reset: bool) -> Update {
        Update {
            resets: reset,
            ..Update::default()
        }
    }

    fn apply(&mut self, update: Update, timing: Timing) -> Result<(), PayloadError> {
        self.taken = Some((update, timing));
        Ok(())
    }
}

impl PayloadUpdate for Update {
    fn push_update(&mut self, action: Does, payload: Payload) -> Result<(), PayloadError> {
        // Keys of routers and authorizations of paths are not asked for and say nothing about origins.
        let Payload::Origin(origin) = payload else {
            return Ok(());
        };
        let prefix = origin.prefix.prefix();
        let Ok(net) = ipnet::IpNet::new(prefix.addr(), prefix.len()) else {
            return Err(PayloadError::Corrupt);
        };
        let action = match action {
            Does::Announce => Action::Announce,
            Does::Withdraw => Action::Withdraw,
        };
        self.count += 1;
        let length_max = origin.prefix.resolved_max_len();
        self.what
            .push(action, &net, length_max, origin.asn.into_u32())
            .map_err(|_| PayloadError::Internal)
    }
}

/// A stream of messages whose lengths are looked at before anybody believes them.
#[derive(Debug)]
struct Guarded<S> {
    stream: S,
    header: [u8; 8],
    /// How many bytes of the header are there.
    has: usize,
    /// How many bytes of the message are to come.
    left: u32,
}

impl<S> Guarded<S> {
    const fn new(stream: S) -> Self {
        Self {
            stream,
            header: [0; 8],
            has: 0,
            left: 0,
        }
    }

    /// Follows the messages through these bytes.
    fn look(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while let Some((first, rest)) = bytes.split_first() {
            if self.left > 0 {
                let passed = bytes.len().min(self.left as usize);
                self.left -= passed as u32;
                bytes = &bytes[passed..];
                continue;
            }
            self.header[self.has] = *first;
            self.has += 1;
            bytes = rest;
            if self.has == self.header.len() {
                let [.., a, b, c, d] = self.header;
                let length = u32::from_be_bytes([a, b, c, d]);
                if !(8..=MESSAGE_MAX).contains(&length) {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        format!(
                            "it sent a message of {length} bytes; 8 to {MESSAGE_MAX} are possible"
                        ),
                    ));
                }
                (self.left, self.has) = (length - 8, 0);
            }
        }
        Ok(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if let Poll::Ready(Ok(())) = read {
            self.look(&buffer.filled()[before..])?;
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
#[path = "cache/tests.rs"]
mod tests;
