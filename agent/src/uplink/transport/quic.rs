//! QUIC: a bidirectional stream for control, a unidirectional one for each message.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use leeward_common::wire::limits;
use quinn::{Connection, Endpoint, SendStream, VarInt};
use tokio::{sync::mpsc, task::JoinSet, time::timeout};

use super::{HANDSHAKE_TIMEOUT, Incoming, Shared};
use crate::{
    config::{Aggregator, Uplink},
    credentials::Credentials,
    uplink::{
        delivery::Urgency,
        failure::Failure,
        figures::AggregatorFigures,
        session::{Command, unspecified},
    },
};

/// How long a closed connection may take to tell the other side.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(250);

/// Codes of a connection that we close.
mod close {
    use quinn::VarInt;

    /// All is said.
    pub(super) const DONE: VarInt = VarInt::from_u32(0);
    /// The aggregator did what it should not.
    pub(super) const FAILED: VarInt = VarInt::from_u32(1);
}

/// A connection, and the socket that it has for itself.
#[derive(Debug)]
pub(in crate::uplink) struct QuicLine {
    endpoint: Endpoint,
    pub(super) connection: Connection,
}

/// What goes out.
pub(in crate::uplink) struct Outgoing {
    connection: Connection,
    control: SendStream,
}

pub(super) async fn dial(
    credentials: &Credentials,
    aggregator: &Aggregator,
    uplink: &Uplink,
    address: SocketAddr,
) -> Result<QuicLine, Failure> {
    let config = client_config(credentials, aggregator, uplink);
    let endpoint = Endpoint::client(unspecified(address))
        .map_err(|source| Failure::Socket { address, source })?;
    let connecting = endpoint
        .connect_with(config, address, &aggregator.host)
        .map_err(|source| Failure::Dial { address, source })?;
    match timeout(HANDSHAKE_TIMEOUT, connecting).await {
        Ok(Ok(connection)) => Ok(QuicLine {
            endpoint,
            connection,
        }),
        Ok(Err(quinn::ConnectionError::TimedOut)) | Err(_) => Err(Failure::NoAnswer {
            address,
            over: "UDP",
        }),
        Ok(Err(source)) => Err(Failure::Handshake { address, source }),
    }
}

fn client_config(
    credentials: &Credentials,
    aggregator: &Aggregator,
    uplink: &Uplink,
) -> quinn::ClientConfig {
    let tls = credentials.client_config(aggregator.name.as_deref());
    let tls = quinn::crypto::rustls::QuicClientConfig::try_from(tls)
        .expect("TLS 1.3 brings the initial cipher suite");
    let mut config = quinn::ClientConfig::new(Arc::new(tls));
    config.transport_config(Arc::new(transport_config(uplink)));
    config
}

fn transport_config(uplink: &Uplink) -> quinn::TransportConfig {
    let mut transport = quinn::TransportConfig::default();
    let idle = VarInt::try_from(uplink.idle_timeout.as_millis()).unwrap_or(VarInt::MAX);
    transport
        .keep_alive_interval(Some(uplink.keep_alive))
        .max_idle_timeout(Some(idle.into()))
        // The first packet of a handshake is repeated after three times this. A repetition too many costs 1.2 kB.
        .initial_rtt(Duration::from_millis(100))
        // The aggregator opens no streams and sends no datagrams.
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        // What comes is control messages, read as they arrive.
        .stream_receive_window(VarInt::from_u32(256 << 10))
        .receive_window(VarInt::from_u32(512 << 10))
        .send_window(4 * limits::BATCH_BYTES as u64);
    transport
}

impl QuicLine {
    pub(super) async fn open(&self) -> Result<(Outgoing, Incoming), Failure> {
        let (control, receive) = self.connection.open_bi().await.map_err(Failure::Lost)?;
        let connection = self.connection.clone();
        let outgoing = Outgoing {
            connection,
            control,
        };
        Ok((outgoing, Box::new(receive)))
    }

    pub(super) async fn close(self, failure: Option<&Failure>) {
        match failure {
            None => self.connection.close(close::DONE, b"the agent stops"),
            Some(failure) => {
                let reason = failure.close_reason();
                self.connection.close(close::FAILED, reason.as_bytes());
            }
        }
        // A connection that is closed without a wait never says so.
        let _ = timeout(CLOSE_TIMEOUT, self.endpoint.wait_idle()).await;
    }
}

impl Outgoing {
    pub(super) async fn control(&mut self, frame: &[u8]) -> Result<(), Failure> {
        let written = self.control.write_all(frame).await;
        written.map_err(|error| match error {
            quinn::WriteError::ConnectionLost(error) => Failure::Lost(error),
            _ => Failure::ControlEnded,
        })
    }

    /// Sends what is commanded. `Ok` when the commands end.
    pub(super) async fn carry_out(
        mut self,
        mut queue: mpsc::Receiver<Command>,
        figures: &AggregatorFigures,
    ) -> Result<(), Failure> {
        let mut sending = JoinSet::new();
        loop {
            tokio::select! {
                command = queue.recv() => match command {
                    None => break,
                    Some(Command::Control(frame)) => self.control(&frame).await?,
                    Some(Command::Batch { frame, urgency }) => {
                        figures.on_batch_sent(frame.len());
                        sending.spawn(send(self.connection.clone(), frame, urgency));
                    }
                },
                Some(sent) = sending.join_next() => sent.unwrap_or(Ok(()))?,
            }
        }
        Ok(())
    }
}

/// Sends one message on a stream of its own. That it arrived is known only by its acknowledgement.
async fn send(connection: Connection, frame: Shared, urgency: Urgency) -> Result<(), Failure> {
    let mut stream = connection.open_uni().await.map_err(Failure::Lost)?;
    let _ = stream.set_priority(urgency.priority());
    match stream.write_all(&frame).await {
        Ok(()) => {
            let _ = stream.finish();
            Ok(())
        }
        Err(quinn::WriteError::Stopped(code)) => Err(Failure::BatchStopped(code.into_inner())),
        Err(quinn::WriteError::ConnectionLost(error)) => Err(Failure::Lost(error)),
        Err(_) => Err(Failure::ControlEnded),
    }
}
