//! One aggregator: dialling, the handshake, the control stream, and again from the start when it ends.
//!
//! A session knows the wire and nothing of what is worth sending: frames come in as [`Command`]s, and what the
//! aggregator says goes out as [`Event`]s. Each connection has a command queue of its own, so that nothing meant for
//! one connection is ever sent on the next.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use leeward_common::{
    id::{AgentId, RegionId},
    wire::{frame, limits, v1},
};
use quinn::{Connection, Endpoint, RecvStream, SendStream, VarInt};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tracing::{debug, info, warn};

use super::{
    backoff::Backoff,
    delivery::{UNDER_WAY_MAX, Urgency},
    failure::Failure,
    figures::AggregatorFigures,
};
use crate::{
    config::{Aggregator, Uplink},
    credentials::Credentials,
    mesh,
    random::Random,
};

/// Commands that wait for the connection: all batches that may be under way, and as many control messages. Batches are
/// never more than that; when control messages fill it, the aggregator does not read and the connection is given up.
pub const COMMANDS_MAX: usize = 2 * UNDER_WAY_MAX;

/// From dialling one address to the end of the handshake: three retransmissions of a lost first packet.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// From the hello to the welcome. The aggregator looks up one watermark for it.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(5);

/// Addresses tried per attempt; a name with more is somebody's mistake.
const ADDRESSES_TRIED: usize = 8;

/// An unchanged failure is a warning again after this long; in between it is for debugging.
const REMIND_AFTER: Duration = Duration::from_secs(60);

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

/// Who connects.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The agent.
    pub agent: AgentId,
    /// Its region.
    pub region: RegionId,
    /// Which start of its process.
    pub boot_epoch: u64,
    /// Where it answers; empty for the address from which it talks to the aggregator.
    pub addresses: Vec<IpAddr>,
    /// TCP port on which it answers SYN probes.
    pub answer_port: u16,
    /// UDP port of its STAMP reflector; 0 if it has none.
    pub stamp_port: u16,
}

impl Identity {
    fn hello(&self, remote: SocketAddr, backlog: &[u64]) -> v1::Hello {
        let discovered = || source_towards(remote).into_iter().collect();
        let addresses = if self.addresses.is_empty() {
            discovered()
        } else {
            self.addresses.clone()
        };
        v1::Hello {
            agent: self.agent.clone(),
            region: self.region.clone(),
            boot_epoch: self.boot_epoch,
            addresses,
            answer_port: self.answer_port,
            stamp_port: Some(self.stamp_port),
            orders: true,
            build: env!("CARGO_PKG_VERSION").to_owned(),
            versions: v1::VERSIONS,
            backlog: backlog.iter().take(limits::EPOCHS).copied().collect(),
        }
    }
}

/// The address from which the kernel would talk to this one. Sends nothing.
fn source_towards(remote: SocketAddr) -> Option<IpAddr> {
    let socket = UdpSocket::bind(unspecified(remote)).ok()?;
    socket.connect(remote).ok()?;
    let ip = socket.local_addr().ok()?.ip().to_canonical();
    (!ip.is_unspecified()).then_some(ip)
}

const fn unspecified(remote: SocketAddr) -> SocketAddr {
    match remote {
        SocketAddr::V4(_) => SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
        SocketAddr::V6(_) => SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0),
    }
}

/// What the connection is told to send.
#[derive(Debug)]
pub enum Command {
    /// A frame on the control stream.
    Control(Vec<u8>),
    /// A frame on a stream of its own.
    Batch {
        /// The frame.
        frame: Arc<[u8]>,
        /// Before or after others.
        urgency: Urgency,
    },
}

/// What happened on the connection.
#[derive(Debug)]
pub enum Event {
    /// The hello was accepted.
    Connected {
        /// Takes commands until the connection ends. Dropping it ends the connection.
        commands: mpsc::Sender<Command>,
        /// What the aggregator has, and what it takes.
        welcome: v1::Welcome,
    },
    /// A mesh, already checked for sense.
    Mesh(v1::Mesh),
    /// A path table is durable.
    TableDurable(v1::PathsDurable),
    /// Batches are settled.
    Durable(v1::Durable),
    /// Something to find out.
    Order(v1::Order),
    /// The connection has ended.
    Disconnected,
}

/// One aggregator.
#[derive(Debug)]
pub struct Session {
    /// Its place in the configuration.
    pub index: usize,
    /// Where it is and who it must be.
    pub aggregator: Aggregator,
    /// Who we are.
    pub identity: Arc<Identity>,
    /// Earlier boot epochs of which something waits.
    pub backlog: watch::Receiver<Vec<u64>>,
    /// How the connection behaves.
    pub uplink: Uplink,
    /// The newest credentials; a change makes the connection anew.
    pub credentials: watch::Receiver<Arc<Credentials>>,
    /// True when the agent stops.
    pub stopping: watch::Receiver<bool>,
    /// Where events go, with the aggregator's place.
    pub events: mpsc::Sender<(usize, Event)>,
    /// What is counted.
    pub figures: Arc<AggregatorFigures>,
}

impl Session {
    /// Keeps a connection to the aggregator until the agent stops.
    pub async fn run(mut self) {
        let mut backoff = Backoff::default();
        let mut random = Random::default();
        let mut journal = FailureJournal::default();
        while !*self.stopping.borrow() {
            let began = Instant::now();
            let Err(failure) = self.once(&mut journal).await else {
                return;
            };
            self.figures.on_failure(&failure);
            let wait = backoff.after(failure.cure(), began.elapsed(), random.draw());
            journal.record(&self.aggregator, &failure, wait);
            tokio::select! {
                () = sleep(wait) => {}
                Ok(()) = self.credentials.changed() => backoff = Backoff::default(),
                _ = self.stopping.wait_for(|&stopping| stopping) => return,
            }
        }
    }

    /// One connection, from dialling to its end. `Ok` when the agent stops.
    async fn once(&mut self, journal: &mut FailureJournal) -> Result<(), Failure> {
        let mut stopping = self.stopping.clone();
        let (endpoint, connection) = tokio::select! {
            dialled = self.dial() => dialled?,
            _ = stopping.wait_for(|&stopping| stopping) => return Ok(()),
        };
        let ended = self.talk(&connection, journal).await;
        let ended = match (ended, connection.close_reason()) {
            // What a read or a write ran into is the end of the connection: tell of that.
            (Err(Failure::ControlEnded), Some(error)) => Err(Failure::Lost(error)),
            (ended, _) => ended,
        };
        match &ended {
            Ok(()) => connection.close(close::DONE, b"the agent stops"),
            Err(failure) => connection.close(close::FAILED, failure.close_reason().as_bytes()),
        }
        // A connection that is closed without a wait never says so.
        let _ = timeout(CLOSE_TIMEOUT, endpoint.wait_idle()).await;
        ended
    }

    #[cfg(test)]
    pub(super) async fn once_for_test(&mut self) -> Result<(), Failure> {
        self.once(&mut FailureJournal::default()).await
    }

    async fn dial(&mut self) -> Result<(Endpoint, Connection), Failure> {
        let Aggregator { host, port, .. } = &self.aggregator;
        let credentials = self.credentials.borrow_and_update().clone();
        let config = client_config(&credentials, &self.aggregator, &self.uplink);
        let found = tokio::net::lookup_host((host.as_str(), *port)).await;
        let addresses: Vec<_> = found
            .map_err(Failure::Resolve)?
            .take(ADDRESSES_TRIED)
            .collect();
        let none = || std::io::Error::new(std::io::ErrorKind::NotFound, "it has none");
        let mut failure = Failure::Resolve(none());
        for address in addresses {
            match dial_one(&config, address, host).await {
                Ok(dialled) => return Ok(dialled),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// Everything after the handshake. `Ok` when the agent stops.
    async fn talk(
        &mut self,
        connection: &Connection,
        journal: &mut FailureJournal,
    ) -> Result<(), Failure> {
        let (mut send, mut receive) = connection.open_bi().await.map_err(Failure::Lost)?;
        let backlog = self.backlog.borrow().clone();
        let hello = self.identity.hello(connection.remote_address(), &backlog);
        let hello = v1::FromAgent::Hello(hello);
        write_control(&mut send, &frame::frame_from_agent(&hello)).await?;
        let welcome = match timeout(WELCOME_TIMEOUT, read_message(&mut receive)).await {
            Err(_) => return Err(Failure::NoWelcome),
            Ok(message) => match message? {
                v1::FromAggregator::Welcome(welcome) => welcome,
                other => return Err(unexpected(other)),
            },
        };
        let [oldest, newest] = v1::VERSIONS;
        if !(oldest..=newest).contains(&welcome.version) {
            return Err(Failure::Version(welcome.version));
        }
        info!(
            aggregator = %self.aggregator,
            address = %connection.remote_address(),
            name = ?welcome.aggregator,
            durable_below = welcome.durable_below,
            "connected"
        );
        journal.clear();
        self.figures.on_connected();
        let (commands, queue) = mpsc::channel(COMMANDS_MAX);
        self.tell(Event::Connected { commands, welcome }).await;
        let ended = self.converse(connection, send, receive, queue).await;
        self.figures.on_disconnected();
        self.tell(Event::Disconnected).await;
        ended
    }

    async fn converse(
        &mut self,
        connection: &Connection,
        send: SendStream,
        receive: RecvStream,
        queue: mpsc::Receiver<Command>,
    ) -> Result<(), Failure> {
        let mut credentials = self.credentials.clone();
        let reading = self.read(connection, receive);
        let writing = write(connection, send, queue, &self.figures);
        tokio::select! {
            // A refusal that came before the end of the connection says more than the end.
            biased;
            ended = reading => ended,
            ended = writing => match (ended, *self.stopping.borrow()) {
                (Ok(()), true) => Ok(()),
                (Ok(()), false) => Err(Failure::Stuck),
                (Err(failure), _) => Err(failure),
            },
            error = connection.closed() => Err(Failure::Lost(error)),
            Ok(()) = credentials.changed() => Err(Failure::NewCredentials),
        }
    }

    /// Reads the control stream until it ends, which it never does well.
    async fn read(&self, connection: &Connection, mut receive: RecvStream) -> Result<(), Failure> {
        loop {
            let event = match read_message(&mut receive).await? {
                v1::FromAggregator::Mesh(mesh) => {
                    mesh::check(&mesh)?;
                    Event::Mesh(mesh)
                }
                v1::FromAggregator::PathsDurable(durable) => Event::TableDurable(durable),
                v1::FromAggregator::Durable(durable) => {
                    self.figures
                        .on_durable(durable.sequences.len(), connection.rtt());
                    Event::Durable(durable)
                }
                v1::FromAggregator::Order(order) => Event::Order(order),
                other => return Err(unexpected(other)),
            };
            self.tell(event).await;
        }
    }

    async fn tell(&self, event: Event) {
        // The receiver ends only with the whole uplink, and with it this task.
        let _ = self.events.send((self.index, event)).await;
    }
}

fn unexpected(message: v1::FromAggregator) -> Failure {
    Failure::Unexpected(match message {
        v1::FromAggregator::Refuse(refuse) => return Failure::Refused(refuse),
        v1::FromAggregator::Welcome(_) => "welcome",
        v1::FromAggregator::Mesh(_) => "mesh",
        v1::FromAggregator::PathsDurable(_) => "path table acknowledgement",
        v1::FromAggregator::Durable(_) => "batch acknowledgement",
        v1::FromAggregator::Order(_) => "order",
    })
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

async fn dial_one(
    config: &quinn::ClientConfig,
    address: SocketAddr,
    host: &str,
) -> Result<(Endpoint, Connection), Failure> {
    let endpoint = Endpoint::client(unspecified(address))
        .map_err(|source| Failure::Socket { address, source })?;
    let connecting = endpoint
        .connect_with(config.clone(), address, host)
        .map_err(|source| Failure::Dial { address, source })?;
    match timeout(HANDSHAKE_TIMEOUT, connecting).await {
        Ok(Ok(connection)) => Ok((endpoint, connection)),
        Ok(Err(quinn::ConnectionError::TimedOut)) | Err(_) => Err(Failure::NoAnswer { address }),
        Ok(Err(source)) => Err(Failure::Handshake { address, source }),
    }
}

/// Reads one message; its size is checked before room is made for it.
async fn read_message(receive: &mut RecvStream) -> Result<v1::FromAggregator, Failure> {
    let mut header = [0; frame::HEADER_BYTES];
    receive
        .read_exact(&mut header)
        .await
        .map_err(read_failure)?;
    let header = frame::parse_header(&header)?;
    let mut payload = vec![0; header.length];
    receive
        .read_exact(&mut payload)
        .await
        .map_err(read_failure)?;
    Ok(frame::parse_from_aggregator(&header, &payload)?)
}

fn read_failure(error: quinn::ReadExactError) -> Failure {
    match error {
        quinn::ReadExactError::ReadError(quinn::ReadError::ConnectionLost(error)) => {
            Failure::Lost(error)
        }
        _ => Failure::ControlEnded,
    }
}

async fn write_control(send: &mut SendStream, frame: &[u8]) -> Result<(), Failure> {
    send.write_all(frame).await.map_err(|error| match error {
        quinn::WriteError::ConnectionLost(error) => Failure::Lost(error),
        _ => Failure::ControlEnded,
    })
}

/// Sends what is commanded. `Ok` when the commands end.
async fn write(
    connection: &Connection,
    mut control: SendStream,
    mut queue: mpsc::Receiver<Command>,
    figures: &AggregatorFigures,
) -> Result<(), Failure> {
    let mut sending = JoinSet::new();
    loop {
        tokio::select! {
            command = queue.recv() => match command {
                None => break,
                Some(Command::Control(frame)) => write_control(&mut control, &frame).await?,
                Some(Command::Batch { frame, urgency }) => {
                    figures.on_batch_sent(frame.len());
                    sending.spawn(send_batch(connection.clone(), frame, urgency));
                }
            },
            Some(sent) = sending.join_next() => sent.unwrap_or(Ok(()))?,
        }
    }
    Ok(())
}

/// Sends one batch on a stream of its own. That it arrived is known only by its acknowledgement.
async fn send_batch(
    connection: Connection,
    frame: Arc<[u8]>,
    urgency: Urgency,
) -> Result<(), Failure> {
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

/// Tells of a failure when it is new, and of an old one now and then.
#[derive(Debug, Default)]
struct FailureJournal {
    last: Option<(String, Instant)>,
}

impl FailureJournal {
    fn record(&mut self, aggregator: &Aggregator, failure: &Failure, retry_in: Duration) {
        if matches!(failure, Failure::NewCredentials) {
            info!(%aggregator, "connecting anew with new credentials");
            return;
        }
        let text = failure.to_string();
        let told = |(last, at): &(String, Instant)| *last == text && at.elapsed() < REMIND_AFTER;
        let source = std::error::Error::source(failure).map(ToString::to_string);
        let (error, cause, source) = (&text, failure.cause(), source.unwrap_or_default());
        if self.last.as_ref().is_some_and(told) {
            debug!(%aggregator, %error, %source, cause, ?retry_in, "no connection");
            return;
        }
        warn!(%aggregator, %error, %source, cause, ?retry_in, "no connection");
        self.last = Some((text, Instant::now()));
    }

    fn clear(&mut self) {
        self.last = None;
    }
}
