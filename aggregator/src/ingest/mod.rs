//! An agent comes in: handshake, identity, and a session of its own.
//!
//! TLS has checked the chain, the dates and the protocol version before anything here is asked. Whatever an agent does
//! wrong ends its own session with a reason that it is told, is counted, and disturbs nobody else.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use leeward_common::{
    time::Clock,
    wire::{ALPN_V1, v1::RefuseCode},
};
use quinn::{Connection, ConnectionError, Endpoint, Incoming, TransportErrorCode};
use rustls::AlertDescription;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tracing::{debug, info};

use crate::{
    metrics::{Metrics, Reason},
    shared::Published,
    store::Read,
    turn::TurnHandle,
};

mod control;
mod conversation;
mod credit;
pub mod endpoint;
mod findings;
mod frames;
pub mod identity;
pub mod limits;
pub mod line;
mod refusal;
pub mod roster;
mod session;
mod tables;

use arc_swap::ArcSwap;
use control::ControlOut;
use identity::{Identity, NoIdentity};
use limits::Gate;
use line::Line;
use refusal::Refusal;
use roster::RosterHandle;

/// Connections at once, those in the handshake included: ten thousand agents and their successors. At 64 kB each this
/// is 1 GB; beyond it newcomers are refused and come back later.
const CONNECTIONS: usize = 16_384;

/// Handshakes at once beyond which a newcomer must first prove that its address is not made up.
const UNPROVEN_HANDSHAKES: usize = 1_024;

/// A handshake that takes longer is given up: three retransmissions of a lost packet.
const HANDSHAKE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// From a connection over TCP that could not be accepted to the next attempt.
const ACCEPT_AGAIN_AFTER: std::time::Duration = std::time::Duration::from_millis(100);

/// What every session uses.
#[derive(Clone)]
pub struct Ingest {
    /// The way to the turn thread.
    pub turn: TurnHandle,
    /// The way to the roster.
    pub roster: RosterHandle,
    /// Path tables are read from it again.
    pub store: Arc<dyn Read>,
    /// The newest picture: it holds the policy with the known regions.
    pub view: Arc<Published>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// The wall clock, which bounds the windows of batches.
    pub clock: Arc<dyn Clock>,
    /// The aggregator's name.
    pub name: Arc<str>,
    /// Numbers sessions from 1.
    pub sessions: Arc<AtomicU64>,
    /// Connections in the handshake.
    pub handshakes: Arc<AtomicU64>,
    /// Who is let in, and how often.
    pub gate: Gate,
    /// TLS for connections over TCP: the newest certificate.
    pub tls: Arc<ArcSwap<rustls::ServerConfig>>,
}

impl Ingest {
    /// Accepts agents until the endpoint is closed; owns their sessions, and returns when the last has ended.
    pub async fn serve(self, endpoint: Endpoint, listener: Option<TcpListener>) {
        let mut sessions = JoinSet::new();
        let (stop, stopping) = watch::channel(false);
        loop {
            tokio::select! {
                incoming = endpoint.accept() => match incoming {
                    Some(incoming) => self.admit(&endpoint, incoming, &mut sessions),
                    None => break,
                },
                stream = accept_tcp(listener.as_ref()) => {
                    self.admit_tcp(&endpoint, stream, &mut sessions, &stopping);
                }
                Some(_) = sessions.join_next() => {}
            }
        }
        stop.send_replace(true);
        while sessions.join_next().await.is_some() {}
    }

    fn admit(&self, endpoint: &Endpoint, incoming: Incoming, sessions: &mut JoinSet<()>) {
        if endpoint.open_connections() >= CONNECTIONS {
            self.count_handshake("too_many_connections");
            incoming.refuse();
            return;
        }
        let unproven = self.handshakes.load(Ordering::Relaxed) as usize >= UNPROVEN_HANDSHAKES;
        if unproven && incoming.may_retry() {
            // It may retry, so this cannot fail; the newcomer comes back with its address proven.
            let _ = incoming.retry();
            return;
        }
        let this = self.clone();
        this.handshakes.fetch_add(1, Ordering::Relaxed);
        sessions.spawn(async move {
            let connection = this.handshake(incoming).await;
            this.handshakes.fetch_sub(1, Ordering::Relaxed);
            if let Some(connection) = connection {
                this.session(Line::Quic(connection)).await;
            }
        });
    }

    fn admit_tcp(
        &self,
        endpoint: &Endpoint,
        (stream, remote): (TcpStream, SocketAddr),
        sessions: &mut JoinSet<()>,
        stopping: &watch::Receiver<bool>,
    ) {
        // Sessions hold both kinds, and those in the handshake.
        if sessions.len().max(endpoint.open_connections()) >= CONNECTIONS {
            self.count_handshake("too_many_connections");
            return;
        }
        let (this, stopping) = (self.clone(), stopping.clone());
        sessions.spawn(async move {
            if let Some(stream) = this.handshake_tls(stream, remote).await {
                this.session(Line::tls(stream, remote, stopping)).await;
            }
        });
    }

    async fn handshake_tls(
        &self,
        stream: TcpStream,
        remote: SocketAddr,
    ) -> Option<TlsStream<TcpStream>> {
        let _ = stream.set_nodelay(true);
        let accepted = async {
            let stream = TlsAcceptor::from(self.tls.load_full())
                .accept(stream)
                .await?;
            // QUIC insists on a protocol (RFC 9001 section 8.1); TLS by itself takes a peer that names none.
            match stream.get_ref().1.alpn_protocol() {
                Some(ALPN_V1) => Ok(stream),
                _ => Err(io::Error::other(rustls::Error::NoApplicationProtocol)),
            }
        };
        let error = match timeout(HANDSHAKE_TIMEOUT, accepted).await {
            Ok(Ok(stream)) => return Some(stream),
            Ok(Err(error)) => error,
            Err(_) => {
                debug!(%remote, "handshake timed out");
                self.count_handshake("timeout");
                return None;
            }
        };
        let reason = tls_alert(&error).map_or("other", alert_word);
        info!(%remote, reason, error = &error as &dyn std::error::Error, "handshake refused");
        self.count_handshake(reason);
        None
    }

    async fn handshake(&self, incoming: Incoming) -> Option<Connection> {
        let remote = incoming.remote_address();
        // A first packet that TLS refuses at once, such as one with another protocol version, ends in the accept.
        let connected = async { incoming.accept()?.await };
        match timeout(HANDSHAKE_TIMEOUT, connected).await {
            Ok(Ok(connection)) => Some(connection),
            Ok(Err(error)) => {
                let reason = handshake_reason(&error);
                info!(%remote, reason, error = &error as &dyn std::error::Error, "handshake refused");
                self.count_handshake(reason);
                None
            }
            Err(_) => {
                debug!(%remote, "handshake timed out");
                self.count_handshake("timeout");
                None
            }
        }
    }

    async fn session(&self, connection: Line) {
        let id = self.sessions.fetch_add(1, Ordering::Relaxed) + 1;
        match identity(&connection) {
            Ok(identity) => {
                let Some(place) = self.gate.admit(&identity.agent) else {
                    let reason = format!(
                        "agent {} has {} connections already; wait until they end",
                        identity.agent,
                        limits::CONNECTIONS_OF_AGENT
                    );
                    let refusal = Refusal::new(RefuseCode::Limit, reason);
                    return self.turn_away(connection, &refusal).await;
                };
                session::Session::new(self.clone(), connection, identity, id, place.pace())
                    .run()
                    .await;
            }
            Err(error) => {
                let refusal = Refusal::identity(error.to_string());
                self.turn_away(connection, &refusal).await;
            }
        }
    }

    /// Refuses a connection before anything of it was read.
    async fn turn_away(&self, connection: Line, refusal: &Refusal) {
        info!(remote = %connection.remote_address(), reason = refusal.reason, "session refused");
        self.count_refusal(refusal);
        // Over QUIC the reason comes with the close; over TLS only a frame can say it.
        if let Line::Tls(_) = connection
            && let Some((send, _)) = connection.accept_control().await
        {
            ControlOut::new(send).refuse(refusal).await;
        }
        connection.close(refusal.close_code(), refusal.reason.as_bytes());
    }

    fn count_handshake(&self, reason: &'static str) {
        self.metrics
            .ingest
            .handshakes_refused
            .get_or_create(&Reason { reason })
            .inc();
    }

    fn count_refusal(&self, refusal: &Refusal) {
        self.metrics
            .ingest
            .sessions_refused
            .get_or_create(&Reason {
                reason: refusal.word(),
            })
            .inc();
    }
}

impl std::fmt::Debug for Ingest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ingest")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

fn identity(connection: &Line) -> Result<Identity, NoIdentity> {
    let certificate = connection.certificate().ok_or(NoIdentity::Certificate)?;
    Identity::of(&certificate)
}

/// The next connection over TCP; never, where nobody listens.
async fn accept_tcp(listener: Option<&TcpListener>) -> (TcpStream, SocketAddr) {
    let Some(listener) = listener else {
        return std::future::pending().await;
    };
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            // Out of descriptors, or the peer is gone again: others may still come.
            Err(error) => {
                debug!(%error, "a connection over TCP was not accepted");
                tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
            }
        }
    }
}

/// One word for what went wrong in a handshake. TLS says it by alert numbers (RFC 8446 section 6).
fn handshake_reason(error: &ConnectionError) -> &'static str {
    let code = match error {
        ConnectionError::TransportError(error) => error.code,
        ConnectionError::ConnectionClosed(close) => close.error_code,
        ConnectionError::TimedOut => return "timeout",
        _ => return "other",
    };
    let alert = (0..=u8::MAX).find(|&number| code == TransportErrorCode::crypto(number));
    alert.map_or("other", alert_word)
}

/// The alert by which TLS over TCP failed, theirs or ours.
fn tls_alert(error: &io::Error) -> Option<u8> {
    let alert = match error.get_ref()?.downcast_ref()? {
        rustls::Error::AlertReceived(alert) => *alert,
        rustls::Error::InvalidCertificate(why) => AlertDescription::from(why.clone()),
        rustls::Error::NoCertificatesPresented => AlertDescription::CertificateRequired,
        rustls::Error::NoApplicationProtocol => AlertDescription::NoApplicationProtocol,
        _ => return None,
    };
    Some(u8::from(alert))
}

const fn alert_word(alert: u8) -> &'static str {
    match alert {
        120 => "protocol_version",
        45 => "certificate_expired",
        48 => "certificate_authority",
        116 => "certificate_missing",
        42..=46 | 49 | 51 => "certificate",
        _ => "other",
    }
}
