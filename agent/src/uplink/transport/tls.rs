//! TLS over TCP: all frames one after the other; the aggregator tells by their types what belongs where.

use std::{collections::VecDeque, io, net::SocketAddr, sync::Arc};

use leeward_common::wire::ALPN_V1;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncWriteExt as _, WriteHalf},
    net::TcpStream,
    sync::mpsc,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{HANDSHAKE_TIMEOUT, Incoming, Shared};
use crate::{
    config::{Aggregator, Uplink},
    credentials::Credentials,
    uplink::{delivery::Urgency, failure::Failure, figures::AggregatorFigures, session::Command},
};

/// What the kernel may hold that is not on its way yet: with more, what is fresh would stand behind it.
const UNSENT_BYTES: u32 = 32 << 10;

/// A connection.
pub(in crate::uplink) struct TlsLine {
    pub(super) remote: SocketAddr,
    stream: Option<TlsStream<TcpStream>>,
}

impl std::fmt::Debug for TlsLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsLine")
            .field("remote", &self.remote)
            .finish_non_exhaustive()
    }
}

/// What goes out.
pub(in crate::uplink) struct Outgoing {
    stream: WriteHalf<TlsStream<TcpStream>>,
}

pub(super) async fn dial(
    credentials: &Credentials,
    aggregator: &Aggregator,
    uplink: &Uplink,
    address: SocketAddr,
) -> Result<TlsLine, Failure> {
    let handshake = |source| Failure::TlsHandshake { address, source };
    let dialled = async {
        let stream = TcpStream::connect(address).await;
        let stream = stream.map_err(|source| Failure::Connect { address, source })?;
        // What an option would have made better is no reason to do without the connection.
        let _ = prepare(&stream, uplink);
        let config = credentials.client_config(aggregator.name.as_deref());
        let name = ServerName::try_from(aggregator.host.clone());
        let name = name.map_err(|error| handshake(io::Error::other(error)))?;
        let connector = TlsConnector::from(Arc::new(config));
        let stream = connector.connect(name, stream).await.map_err(handshake)?;
        match stream.get_ref().1.alpn_protocol() {
            Some(ALPN_V1) => Ok(stream),
            _ => Err(handshake(io::Error::other(
                rustls::Error::NoApplicationProtocol,
            ))),
        }
    };
    match timeout(HANDSHAKE_TIMEOUT, dialled).await {
        Ok(stream) => Ok(TlsLine {
            remote: address,
            stream: Some(stream?),
        }),
        Err(_) => Err(Failure::NoAnswer {
            address,
            over: "TCP",
        }),
    }
}

/// Makes TCP notice a dead connection as soon as QUIC would, and hold little back.
fn prepare(stream: &TcpStream, uplink: &Uplink) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let keep_alive = TcpKeepalive::new()
        .with_time(uplink.keep_alive.max(std::time::Duration::from_secs(1)))
        .with_interval(uplink.keep_alive.max(std::time::Duration::from_secs(1)));
    socket.set_tcp_keepalive(&keep_alive)?;
    socket.set_tcp_user_timeout(Some(uplink.idle_timeout))?;
    socket.set_tcp_notsent_lowat(UNSENT_BYTES)
}

impl TlsLine {
    pub(super) fn open(&mut self) -> Result<(Outgoing, Incoming), Failure> {
        let stream = self.stream.take().ok_or(Failure::ControlEnded)?;
        let (read, stream) = tokio::io::split(stream);
        Ok((Outgoing { stream }, Box::new(read)))
    }
}

/// What waits to be written.
#[derive(Default)]
struct Waiting {
    control: VecDeque<Vec<u8>>,
    fresh: Vec<Shared>,
    backlog: VecDeque<Shared>,
}

impl Waiting {
    fn add(&mut self, command: Command) {
        match command {
            Command::Control(frame) => self.control.push_back(frame),
            Command::Batch {
                frame,
                urgency: Urgency::Fresh,
            } => self.fresh.push(frame),
            Command::Batch {
                frame,
                urgency: Urgency::Backlog,
            } => self.backlog.push_back(frame),
        }
    }

    fn is_empty(&self) -> bool {
        self.control.is_empty() && self.fresh.is_empty() && self.backlog.is_empty()
    }
}

impl Outgoing {
    pub(super) async fn write(&mut self, frame: &[u8]) -> Result<(), Failure> {
        let written = async {
            self.stream.write_all(frame).await?;
            self.stream.flush().await
        };
        written.await.map_err(Failure::TlsLost)
    }

    /// Sends what is commanded: control first, then the newest of what is fresh, then what waited longest. `Ok` when the
    /// commands end.
    pub(super) async fn carry_out(
        mut self,
        mut queue: mpsc::Receiver<Command>,
        figures: &AggregatorFigures,
    ) -> Result<(), Failure> {
        let mut waiting = Waiting::default();
        loop {
            if waiting.is_empty() {
                match queue.recv().await {
                    Some(command) => waiting.add(command),
                    None => break,
                }
            }
            while let Ok(command) = queue.try_recv() {
                waiting.add(command);
            }
            if let Some(frame) = waiting.control.pop_front() {
                self.write(&frame).await?;
                continue;
            }
            let next = waiting.fresh.pop();
            if let Some(frame) = next.or_else(|| waiting.backlog.pop_front()) {
                figures.on_batch_sent(frame.len());
                self.write(&frame).await?;
            }
        }
        let _ = self.stream.shutdown().await;
        Ok(())
    }
}
