//! An agent comes in: handshake, identity, and a session of its own.
//!
//! TLS has checked the chain, the dates and the protocol version before anything here is asked. Whatever an agent does
//! wrong ends its own session with a reason that it is told, is counted, and disturbs nobody else.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use leeward_common::time::Clock;
use quinn::{Connection, ConnectionError, Endpoint, Incoming, TransportErrorCode};
use rustls::pki_types::CertificateDer;
use tokio::{task::JoinSet, time::timeout};
use tracing::{debug, info};

use crate::{
    metrics::{Metrics, Reason},
    shared::Published,
    turn::TurnHandle,
};

mod control;
mod conversation;
mod credit;
pub mod endpoint;
mod findings;
mod frames;
pub mod identity;
mod refusal;
pub mod roster;
mod session;

use identity::{Identity, NoIdentity};
use refusal::Refusal;
use roster::RosterHandle;

/// Connections at once, those in the handshake included: ten thousand agents and their successors. At 64 kB each this
/// is 1 GB; beyond it newcomers are refused and come back later.
const CONNECTIONS: usize = 16_384;

/// Handshakes at once beyond which a newcomer must first prove that its address is not made up.
const UNPROVEN_HANDSHAKES: usize = 1_024;

/// A handshake that takes longer is given up: three retransmissions of a lost packet.
const HANDSHAKE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// What every session uses.
#[derive(Clone)]
pub struct Ingest {
    /// The way to the turn thread.
    pub turn: TurnHandle,
    /// The way to the roster.
    pub roster: RosterHandle,
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
}

impl Ingest {
    /// Accepts agents until the endpoint is closed; owns their sessions, and returns when the last has ended.
    pub async fn serve(self, endpoint: Endpoint) {
        let mut sessions = JoinSet::new();
        loop {
            tokio::select! {
                incoming = endpoint.accept() => match incoming {
                    Some(incoming) => self.admit(&endpoint, incoming, &mut sessions),
                    None => break,
                },
                Some(_) = sessions.join_next() => {}
            }
        }
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
                this.session(connection).await;
            }
        });
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

    async fn session(&self, connection: Connection) {
        let id = self.sessions.fetch_add(1, Ordering::Relaxed) + 1;
        match identity(&connection) {
            Ok(identity) => {
                session::Session::new(self.clone(), connection, identity, id)
                    .run()
                    .await;
            }
            Err(error) => {
                let refusal = Refusal::identity(error.to_string());
                info!(remote = %connection.remote_address(), reason = refusal.reason, "session refused");
                self.count_refusal(&refusal);
                connection.close(refusal.close_code(), refusal.reason.as_bytes());
            }
        }
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

fn identity(connection: &Connection) -> Result<Identity, NoIdentity> {
    let peer = connection.peer_identity().ok_or(NoIdentity::Certificate)?;
    let chain = peer
        .downcast::<Vec<CertificateDer<'static>>>()
        .map_err(|_| NoIdentity::Certificate)?;
    Identity::of(chain.first().ok_or(NoIdentity::Certificate)?)
}

/// One word for what went wrong in a handshake. TLS says it by alert numbers (RFC 8446 section 6).
fn handshake_reason(error: &ConnectionError) -> &'static str {
    let code = match error {
        ConnectionError::TransportError(error) => error.code,
        ConnectionError::ConnectionClosed(close) => close.error_code,
        ConnectionError::TimedOut => return "timeout",
        _ => return "other",
    };
    let alert = |number| TransportErrorCode::crypto(number);
    match code {
        code if code == alert(120) => "protocol_version",
        code if code == alert(45) => "certificate_expired",
        code if code == alert(48) => "certificate_authority",
        code if code == alert(116) => "certificate_missing",
        code if (42..=46)
            .chain([49, 51])
            .any(|number| code == alert(number)) =>
        {
            "certificate"
        }
        _ => "other",
    }
}
