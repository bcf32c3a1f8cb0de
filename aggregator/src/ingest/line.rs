//! What carries an agent's frames: QUIC, or TLS over TCP where UDP is blocked. Sessions do not know which.
//!
//! Over QUIC the control stream and each message have a stream of their own. Over TLS all frames follow each other on the one
//! stream that there is, and their types tell which is which: so a message comes as a whole, and its frame is read as if it
//! came on a stream.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use leeward_common::wire::frame::{self, HEADER_BYTES, number};
use quinn::{Connection, SendStream, VarInt};
use rustls::pki_types::CertificateDer;
use tokio::{
    io::{
        AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf, copy,
        duplex, sink,
    },
    net::TcpStream,
    sync::{Mutex, mpsc, watch},
    time::timeout,
};
use tokio_rustls::server::TlsStream;

/// What carries a session, for people and programs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Transport {
    /// QUIC, over UDP.
    Quic,
    /// TLS over TCP.
    Tls,
}

impl Transport {
    /// One word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Tls => "tls",
        }
    }
}

/// Bytes that come in.
pub(super) type Incoming = Box<dyn AsyncRead + Send + Unpin>;

/// Control messages that were read off TLS and not yet by the session.
const CONTROL_BYTES: usize = 64 << 10;

/// Messages that were read off TLS and not yet by the session: beyond that TCP slows the agent down. With the one that is
/// being read these are two of the largest, as much as QUIC may have under way.
const MESSAGES: usize = 1;

/// A TLS connection on which nothing comes for this long is dead. An agent tells how it fares every few seconds.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long what still comes is taken from a connection that has ended, and thrown away. Closed with bytes unread, TCP
/// resets the connection, and the refusal would be lost with it (RFC 1122 section 4.2.2.13).
const LINGER: Duration = Duration::from_secs(1);

/// A connection of an agent. Cheap to clone.
#[derive(Clone)]
pub(super) enum Line {
    Quic(Connection),
    Tls(Arc<TlsLine>),
}

/// A TLS connection: a task takes what comes apart.
pub(super) struct TlsLine {
    remote: SocketAddr,
    certificates: Vec<CertificateDer<'static>>,
    control: Mutex<Option<(WriteHalf<TlsStream<TcpStream>>, DuplexStream)>>,
    messages: Mutex<mpsc::Receiver<Vec<u8>>>,
    closed: watch::Receiver<bool>,
    /// The session is done with it: true, or gone.
    done: watch::Sender<bool>,
}

/// The control stream's outgoing side.
pub(super) enum Outgoing {
    Quic(SendStream),
    Tls(WriteHalf<TlsStream<TcpStream>>),
}

impl Outgoing {
    pub(super) async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Quic(stream) => Ok(stream.write_all(bytes).await?),
            Self::Tls(stream) => {
                stream.write_all(bytes).await?;
                stream.flush().await
            }
        }
    }

    /// Says that nothing follows, and waits until the agent has everything.
    pub(super) async fn conclude(&mut self) {
        match self {
            Self::Quic(stream) => {
                let _ = stream.finish();
                let _ = stream.stopped().await;
            }
            Self::Tls(stream) => {
                let _ = stream.shutdown().await;
            }
        }
    }
}

impl Line {
    /// A line over an accepted TLS connection, which ends when `stop` says so.
    pub(super) fn tls(
        stream: TlsStream<TcpStream>,
        remote: SocketAddr,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let certificates = stream.get_ref().1.peer_certificates();
        let certificates = certificates
            .unwrap_or_default()
            .iter()
            .map(|certificate| certificate.clone().into_owned())
            .collect();
        let (read, write) = tokio::io::split(stream);
        let (ours, theirs) = duplex(CONTROL_BYTES);
        let (message, messages) = mpsc::channel(MESSAGES);
        let (ended, closed) = watch::channel(false);
        let (done, is_done) = watch::channel(false);
        tokio::spawn(async move {
            let (mut read, mut stop, mut is_done) = (read, stop, is_done);
            tokio::select! {
                () = take_apart(&mut read, ours, message) => {}
                _ = stop.wait_for(|&stop| stop) => {}
                _ = is_done.wait_for(|&done| done) => {}
            }
            ended.send_replace(true);
            let _ = timeout(LINGER, copy(&mut read, &mut sink())).await;
        });
        Self::Tls(Arc::new(TlsLine {
            remote,
            certificates,
            control: Mutex::new(Some((write, theirs))),
            messages: Mutex::new(messages),
            closed,
            done,
        }))
    }

    pub(super) const fn transport(&self) -> Transport {
        match self {
            Self::Quic(_) => Transport::Quic,
            Self::Tls(_) => Transport::Tls,
        }
    }

    pub(super) fn remote_address(&self) -> SocketAddr {
        match self {
            Self::Quic(connection) => connection.remote_address(),
            Self::Tls(line) => line.remote,
        }
    }

    /// The certificate that the agent showed.
    pub(super) fn certificate(&self) -> Option<CertificateDer<'static>> {
        match self {
            Self::Quic(connection) => {
                let peer = connection.peer_identity()?;
                let chain = peer.downcast::<Vec<CertificateDer<'static>>>().ok()?;
                chain.first().cloned()
            }
            Self::Tls(line) => line.certificates.first().cloned(),
        }
    }

    /// The control stream, which the agent opens first and once.
    pub(super) async fn accept_control(&self) -> Option<(Outgoing, Incoming)> {
        match self {
            Self::Quic(connection) => {
                let (send, receive) = connection.accept_bi().await.ok()?;
                Some((Outgoing::Quic(send), Box::new(receive)))
            }
            Self::Tls(line) => {
                let (send, receive) = line.control.lock().await.take()?;
                Some((Outgoing::Tls(send), Box::new(receive)))
            }
        }
    }

    /// The next message beside the control stream; `None` when the connection is gone.
    pub(super) async fn accept_message(&self) -> Option<Incoming> {
        match self {
            Self::Quic(connection) => Some(Box::new(connection.accept_uni().await.ok()?)),
            Self::Tls(line) => {
                let bytes = line.messages.lock().await.recv().await?;
                Some(Box::new(io::Cursor::new(bytes)))
            }
        }
    }

    /// Until the connection is gone.
    pub(super) async fn closed(&self) {
        match self {
            Self::Quic(connection) => drop(connection.closed().await),
            Self::Tls(line) => {
                // An error says that the task which reads is gone, which is the same.
                let _ = line.closed.clone().wait_for(|&closed| closed).await;
            }
        }
    }

    /// Why the connection is gone, for the log.
    pub(super) fn close_reason(&self) -> Option<String> {
        match self {
            Self::Quic(connection) => connection.close_reason().map(|reason| reason.to_string()),
            Self::Tls(line) => line
                .closed
                .borrow()
                .then(|| "the TLS connection ended".to_owned()),
        }
    }

    /// Ends it. The reason reaches the agent over QUIC; over TLS the refusal on the control stream has said it.
    pub(super) fn close(&self, code: VarInt, reason: &[u8]) {
        match self {
            Self::Quic(connection) => connection.close(code, reason),
            Self::Tls(line) => drop(line.done.send_replace(true)),
        }
    }
}

/// Reads frames until the connection ends or something comes that is none: whoever reads the control stream then finds it.
async fn take_apart(
    read: &mut ReadHalf<TlsStream<TcpStream>>,
    mut control: DuplexStream,
    messages: mpsc::Sender<Vec<u8>>,
) {
    loop {
        let mut bytes = vec![0; HEADER_BYTES];
        match timeout(IDLE_TIMEOUT, read.read_exact(&mut bytes)).await {
            Ok(Ok(_)) => {}
            _ => return,
        }
        let header = bytes.first_chunk().map(frame::parse_header);
        let Some(Ok(header)) = header else {
            let _ = control.write_all(&bytes).await;
            // The session refuses it and ends the line.
            return std::future::pending().await;
        };
        bytes.resize(HEADER_BYTES + header.length, 0);
        match timeout(IDLE_TIMEOUT, read.read_exact(&mut bytes[HEADER_BYTES..])).await {
            Ok(Ok(_)) => {}
            _ => return,
        }
        let is_control = header.message_type < number::BATCH;
        let passed = match is_control {
            true => control.write_all(&bytes).await.is_ok(),
            false => messages.send(bytes).await.is_ok(),
        };
        if !passed {
            return;
        }
    }
}
