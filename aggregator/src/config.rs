//! `aggregator.toml`.

use std::{net::SocketAddr, sync::Arc};

use leeward_common::id::SourceId;

/// The HTTP API.
#[derive(Clone, Debug)]
pub struct Api {
    /// Where it listens.
    pub listen: SocketAddr,
    /// TLS with the configured certificate; always present when `listen` is not loopback.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Who may do what.
    pub tokens: Vec<Token>,
}

/// One bearer token.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Token {
    /// Its holder, for logs and for the audit.
    pub name: String,
    /// SHA-256 of the token's text.
    pub sha256: [u8; 32],
    /// What its holder may do.
    pub role: Role,
    /// The signal sources that its holder may speak for; empty for all.
    pub sources: Vec<SourceId>,
}

/// What the holder of a token may do; each role may also do what the ones before it may.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Read.
    Viewer,
    /// Inject signals.
    Injector,
    /// Change anything.
    Operator,
}
