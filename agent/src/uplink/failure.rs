//! Why a connection to an aggregator was not made or did not last, and what cures it.
//!
//! TLS reports through QUIC as bare alert numbers. People who run agents need to hear which certificate is meant and
//! what to do, so the usual ones are spelled out here for both directions: what we refused and what refused us.

use std::{io, net::SocketAddr};

use leeward_common::wire::{WireError, v1};
use quinn::{ConnectError, ConnectionError};
use rustls::AlertDescription;

use super::backoff::Cure;
use crate::mesh::InvalidMesh;

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The name has no address.
    #[error("the name has no address that could be found")]
    Resolve(#[source] io::Error),
    /// The host has no socket to dial from.
    #[error("cannot open a UDP socket towards {address}")]
    Socket {
        /// Dialled.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// Dialling makes no sense.
    #[error("cannot dial {address}")]
    Dial {
        /// Dialled.
        address: SocketAddr,
        /// Why not.
        source: ConnectError,
    },
    /// The handshake did not come to an end.
    #[error("no answer from {address} over {over}")]
    NoAnswer {
        /// Dialled.
        address: SocketAddr,
        /// UDP or TCP.
        over: &'static str,
    },
    /// There is no connection over TCP to begin a handshake on.
    #[error("cannot connect to {address} over TCP")]
    Connect {
        /// Dialled.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The handshake over TCP failed.
    #[error("the handshake with {address} over TCP failed: {}", explain_tls(.source))]
    TlsHandshake {
        /// Dialled.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The connection over TCP ended.
    #[error("the connection over TCP was lost: {}", explain_tls(.0))]
    TlsLost(io::Error),
    /// The handshake failed.
    #[error("the handshake with {address} failed: {}", explain(.source))]
    Handshake {
        /// Dialled.
        address: SocketAddr,
        /// Why.
        source: ConnectionError,
    },
    /// The hello was not answered.
    #[error("the aggregator did not answer the hello")]
    NoWelcome,
    /// The connection ended.
    #[error("the connection was lost: {}", explain(.0))]
    Lost(ConnectionError),
    /// The control stream ended and the connection did not.
    #[error("the aggregator ended the control stream")]
    ControlEnded,
    /// A batch's stream was stopped.
    #[error("the aggregator stopped the stream of a batch (code {0})")]
    BatchStopped(u64),
    /// Bytes that are no message.
    #[error("the aggregator sent what is no message: {0}")]
    Wire(#[from] WireError),
    /// A message at the wrong time.
    #[error("the aggregator sent a {0} where none belongs")]
    Unexpected(&'static str),
    /// A version of the control messages that was not offered.
    #[error("the aggregator speaks version {0} of the control messages, this agent {first} to {last}; bring both sides to builds that fit", first = v1::VERSIONS[0], last = v1::VERSIONS[1])]
    Version(u16),
    /// A mesh that makes no sense.
    #[error("the aggregator sent a mesh that makes no sense: {0}")]
    Mesh(#[from] InvalidMesh),
    /// The aggregator refuses this agent. Its words are quoted: they come from the network.
    #[error("refused by the aggregator ({:?}): {:?}", .0.code, .0.reason)]
    Refused(v1::Refuse),
    /// The aggregator does not read or does not acknowledge.
    #[error("the aggregator takes nothing any more")]
    Stuck,
    /// The credentials were replaced: the connection is made anew with the new ones.
    #[error("new credentials are in force")]
    NewCredentials,
}

impl Failure {
    /// Every [`Self::cause`], for metrics.
    pub const CAUSES: [&'static str; 5] =
        ["unreachable", "handshake", "lost", "protocol", "refused"];

    /// One of a few words, for metrics.
    #[must_use]
    pub fn cause(&self) -> &'static str {
        match self {
            Self::Resolve(_)
            | Self::Socket { .. }
            | Self::Dial { .. }
            | Self::Connect { .. }
            | Self::NoAnswer { .. } => "unreachable",
            Self::Handshake { .. } | Self::TlsHandshake { .. } => "handshake",
            Self::Lost(error) if tls_alert(error).is_some() => "handshake",
            Self::TlsLost(error) if alert_over_tcp(error).is_some() => "handshake",
            Self::Lost(_)
            | Self::TlsLost(_)
            | Self::ControlEnded
            | Self::Stuck
            | Self::NewCredentials => "lost",
            Self::NoWelcome
            | Self::BatchStopped(_)
            | Self::Wire(_)
            | Self::Unexpected(_)
            | Self::Version(_)
            | Self::Mesh(_) => "protocol",
            Self::Refused(_) => "refused",
        }
    }

    /// Before a welcome: whether anybody answered at all; `None` if nothing was sent that could have been answered. No answer
    /// means that nobody is there, or that the network lets nothing through.
    #[must_use]
    pub const fn answered(&self) -> Option<bool> {
        match self {
            Self::Resolve(_) | Self::Socket { .. } | Self::Dial { .. } | Self::NewCredentials => {
                None
            }
            Self::NoAnswer { .. }
            | Self::Connect { .. }
            | Self::NoWelcome
            | Self::Lost(ConnectionError::TimedOut) => Some(false),
            _ => Some(true),
        }
    }

    /// What may cure it.
    #[must_use]
    pub fn cure(&self) -> Cure {
        use v1::RefuseCode::{
            Denied, Identity, Limit, Malformed, Other, Superseded, Unavailable, UnknownRegion,
            Version,
        };
        match self {
            Self::Refused(refuse) => match refuse.code {
                Unavailable | Other => Cure::Time,
                // Superseded: two agents under one name would throw each other out without end.
                Identity | UnknownRegion | Malformed | Limit | Superseded | Version | Denied => {
                    Cure::Person
                }
            },
            Self::Wire(_) | Self::Unexpected(_) | Self::Version(_) | Self::Mesh(_) => Cure::Person,
            Self::Handshake { source, .. } | Self::Lost(source) if tls_alert(source).is_some() => {
                Cure::Person
            }
            Self::TlsHandshake { source, .. } | Self::TlsLost(source)
                if alert_over_tcp(source).is_some() =>
            {
                Cure::Person
            }
            _ => Cure::Time,
        }
    }

    /// What the aggregator is told when we end the connection over this.
    #[must_use]
    pub fn close_reason(&self) -> String {
        match self {
            Self::Wire(_)
            | Self::Unexpected(_)
            | Self::Version(_)
            | Self::Mesh(_)
            | Self::Stuck
            | Self::NewCredentials => self.to_string(),
            _ => String::new(),
        }
    }
}

/// Which side refused the other's certificate or protocol.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Side {
    We,
    They,
}

/// The TLS alert that ended a connection (RFC 9001 section 4.8: crypto errors are 0x100 plus the alert's number).
fn tls_alert(error: &ConnectionError) -> Option<(Side, u8)> {
    let (side, code) = match error {
        ConnectionError::TransportError(error) => (Side::We, error.code),
        ConnectionError::ConnectionClosed(close) => (Side::They, close.error_code),
        _ => return None,
    };
    let alert = u64::from(code).checked_sub(0x100)?;
    Some((side, u8::try_from(alert).ok()?))
}

/// The alert by which TLS over TCP failed.
fn alert_over_tcp(error: &io::Error) -> Option<(Side, u8)> {
    match error.get_ref()?.downcast_ref()? {
        rustls::Error::AlertReceived(alert) => Some((Side::They, u8::from(*alert))),
        rustls::Error::InvalidCertificate(why) => {
            Some((Side::We, AlertDescription::from(why.clone()).into()))
        }
        rustls::Error::NoApplicationProtocol => {
            Some((Side::We, AlertDescription::NoApplicationProtocol.into()))
        }
        _ => None,
    }
}

/// What a person should know about an error of a connection over TCP.
fn explain_tls(error: &io::Error) -> String {
    match alert_over_tcp(error) {
        Some((side, alert)) => format!("{} ({error})", remedy(side, alert)),
        None => error.to_string(),
    }
}

/// What a person should know about an error of the connection.
fn explain(error: &ConnectionError) -> String {
    match error {
        ConnectionError::TimedOut => "nothing was heard for the whole idle timeout".to_owned(),
        ConnectionError::Reset => {
            "the aggregator does not know the connection; it has restarted".to_owned()
        }
        ConnectionError::ApplicationClosed(close) if close.reason.is_empty() => {
            "closed by the aggregator without a reason".to_owned()
        }
        ConnectionError::ApplicationClosed(close) => {
            format!(
                "closed by the aggregator: {:?}",
                String::from_utf8_lossy(&close.reason)
            )
        }
        error => match tls_alert(error) {
            Some((side, alert)) => format!("{} ({})", remedy(side, alert), quoted(error)),
            None => quoted(error),
        },
    }
}

/// The error's own words. Those of the other side are quoted: they come from the network.
fn quoted(error: &ConnectionError) -> String {
    match error {
        ConnectionError::TransportError(error) => match error.reason.is_empty() {
            true => error.to_string(),
            false => error.reason.clone(),
        },
        ConnectionError::ConnectionClosed(close) => {
            format!(
                "{}, {:?}",
                close.error_code,
                String::from_utf8_lossy(&close.reason)
            )
        }
        error => error.to_string(),
    }
}

/// Alerts of RFC 8446 section 6.2 and RFC 7301 section 3.2.
fn remedy(side: Side, alert: u8) -> &'static str {
    match (side, alert) {
        (_, 120) => "the aggregator does not speak leeward/1; bring both sides to builds that fit",
        // 51, a bad signature, is what an authority looks like that was made anew under the old name.
        (Side::We, 48 | 51) => {
            "the aggregator's certificate is not from the authority in [credentials] ca"
        }
        (Side::We, 45) => {
            "the aggregator's certificate is out of date, or this host's clock is wrong"
        }
        (Side::We, 42 | 46) => {
            "the aggregator's certificate is not for the [[aggregator]] that was dialled; compare address and name with it"
        }
        (Side::They, 48 | 51) => {
            "the aggregator does not trust this agent's certificate; both must come from one authority"
        }
        (Side::They, 45) => {
            "the aggregator holds this agent's certificate for out of date; compare the clocks"
        }
        (Side::They, 42 | 46 | 116) => "the aggregator refuses this agent's certificate",
        _ => "TLS failed",
    }
}
