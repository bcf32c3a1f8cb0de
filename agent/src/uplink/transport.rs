//! What carries frames to an aggregator: QUIC, or TLS over TCP where UDP is blocked. A session does not know which.
//!
//! Over QUIC the control stream and each message have a stream of their own, and quinn sees to it that what is fresh goes
//! first. Over TLS all frames follow each other, so what waits is ordered here before each one.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use leeward_common::wire::frame;
use tokio::{io::AsyncReadExt as _, sync::mpsc};

use super::{failure::Failure, figures::AggregatorFigures, session::Command};
use crate::{
    config::{self, Aggregator},
    credentials::Credentials,
};

mod choice;
mod quic;
mod tls;

#[cfg(test)]
mod tests;

pub(super) use choice::Choice;

/// What carries a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Transport {
    /// QUIC, over UDP.
    Quic,
    /// TLS over TCP.
    Tls,
}

impl Transport {
    /// Every transport, in the order of preference.
    pub const ALL: [Self; 2] = [Self::Quic, Self::Tls];

    /// One word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Tls => "tls",
        }
    }
}

/// How long a handshake may take: three retransmissions of a lost first packet.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection whose handshake is done.
#[derive(Debug)]
pub(super) enum Line {
    Quic(quic::QuicLine),
    Tls(Box<tls::TlsLine>),
}

/// What comes on the control stream.
pub(super) type Incoming = Box<dyn tokio::io::AsyncRead + Send + Unpin>;

/// What goes out.
pub(super) enum Outgoing {
    Quic(quic::Outgoing),
    Tls(tls::Outgoing),
}

impl Line {
    /// Dials one address.
    pub(super) async fn dial(
        transport: Transport,
        credentials: &Credentials,
        aggregator: &Aggregator,
        uplink: &config::Uplink,
        address: SocketAddr,
    ) -> Result<Self, Failure> {
        match transport {
            Transport::Quic => {
                let line = quic::dial(credentials, aggregator, uplink, address).await?;
                Ok(Self::Quic(line))
            }
            Transport::Tls => {
                let line = tls::dial(credentials, aggregator, uplink, address).await?;
                Ok(Self::Tls(Box::new(line)))
            }
        }
    }

    pub(super) const fn transport(&self) -> Transport {
        match self {
            Self::Quic(_) => Transport::Quic,
            Self::Tls(_) => Transport::Tls,
        }
    }

    pub(super) fn remote_address(&self) -> SocketAddr {
        match self {
            Self::Quic(line) => line.connection.remote_address(),
            Self::Tls(line) => line.remote,
        }
    }

    /// Opens the control stream, once.
    pub(super) async fn open(&mut self) -> Result<(Outgoing, Incoming), Failure> {
        match self {
            Self::Quic(line) => {
                let (outgoing, incoming) = line.open().await?;
                Ok((Outgoing::Quic(outgoing), incoming))
            }
            Self::Tls(line) => {
                let (outgoing, incoming) = line.open()?;
                Ok((Outgoing::Tls(outgoing), incoming))
            }
        }
    }

    /// The time for one round trip, if the transport knows.
    pub(super) fn rtt(&self) -> Option<Duration> {
        match self {
            Self::Quic(line) => Some(line.connection.rtt()),
            Self::Tls(_) => None,
        }
    }

    /// Until the connection is gone, and why. Over TLS reading and writing say so.
    pub(super) async fn closed(&self) -> Failure {
        match self {
            Self::Quic(line) => Failure::Lost(line.connection.closed().await),
            Self::Tls(_) => std::future::pending().await,
        }
    }

    /// Why the connection is gone, if it is and the transport knows more than that.
    pub(super) fn close_reason(&self) -> Option<Failure> {
        match self {
            Self::Quic(line) => line.connection.close_reason().map(Failure::Lost),
            Self::Tls(_) => None,
        }
    }

    /// Ends it, and tells the aggregator where there is a way to.
    pub(super) async fn close(self, failure: Option<&Failure>) {
        if let Self::Quic(line) = self {
            line.close(failure).await;
        }
    }
}

impl Outgoing {
    /// Sends a frame on the control stream.
    pub(super) async fn control(&mut self, frame: &[u8]) -> Result<(), Failure> {
        match self {
            Self::Quic(outgoing) => outgoing.control(frame).await,
            Self::Tls(outgoing) => outgoing.write(frame).await,
        }
    }

    /// Sends what is commanded. `Ok` when the commands end.
    pub(super) async fn carry_out(
        self,
        queue: mpsc::Receiver<Command>,
        figures: &AggregatorFigures,
    ) -> Result<(), Failure> {
        match self {
            Self::Quic(outgoing) => outgoing.carry_out(queue, figures).await,
            Self::Tls(outgoing) => outgoing.carry_out(queue, figures).await,
        }
    }
}

/// Reads one frame; its size is checked before room is made for it.
pub(super) async fn read_frame(
    incoming: &mut Incoming,
) -> Result<(frame::Header, Vec<u8>), Failure> {
    let mut header = [0; frame::HEADER_BYTES];
    incoming.read_exact(&mut header).await.map_err(ended)?;
    let header = frame::parse_header(&header)?;
    let mut payload = vec![0; header.length];
    incoming.read_exact(&mut payload).await.map_err(ended)?;
    Ok((header, payload))
}

/// Of QUIC the connection itself knows better why nothing can be read; of TCP only this error tells.
fn ended(error: io::Error) -> Failure {
    let is_of_quic = matches!(error.get_ref(), Some(inner) if inner.is::<quinn::ReadError>());
    match error.kind() {
        _ if is_of_quic => Failure::ControlEnded,
        io::ErrorKind::UnexpectedEof => Failure::ControlEnded,
        _ => Failure::TlsLost(error),
    }
}

/// A frame that is shared with the spool.
type Shared = Arc<[u8]>;
