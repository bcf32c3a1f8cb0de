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
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, timeout},
};
use tracing::{debug, info, warn};

use super::{
    backoff::Backoff,
    delivery::{UNDER_WAY_MAX, Urgency},
    failure::Failure,
    figures::AggregatorFigures,
    transport::{self, Choice, Incoming, Line, Outgoing, Transport},
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

/// From the hello to the welcome. The aggregator looks up one watermark for it.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(5);

/// The first attempt to come back to QUIC; those that follow wait twice as long, up to what is configured. An agent that
/// turned to TLS only because its aggregator was away for a while is back soon.
const RETRY_QUIC_FIRST: Duration = Duration::from_secs(10);

/// Addresses tried per attempt; a name with more is somebody's mistake.
const ADDRESSES_TRIED: usize = 8;

/// An unchanged failure is a warning again after this long; in between it is for debugging.
const REMIND_AFTER: Duration = Duration::from_secs(60);

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

pub(super) const fn unspecified(remote: SocketAddr) -> SocketAddr {
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
        let mut choice = Choice::new(self.uplink.carry);
        let mut better = None;
        while !*self.stopping.borrow() {
            let began = Instant::now();
            let failure = match self.once(&mut journal, &mut choice, better.take()).await {
                Ok(None) => return,
                Ok(Some(line)) => {
                    better = Some(line);
                    continue;
                }
                Err(failure) => failure,
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

    /// One connection, from dialling to its end. `Ok` when the agent stops, or with a better connection that is to be used.
    async fn once(
        &mut self,
        journal: &mut FailureJournal,
        choice: &mut Choice,
        dialled: Option<Line>,
    ) -> Result<Option<Line>, Failure> {
        let mut stopping = self.stopping.clone();
        self.credentials.mark_unchanged();
        let mut line = match dialled {
            Some(line) => line,
            None => {
                let transport = choice.next();
                let dialled = tokio::select! {
                    dialled = self.dial(transport) => dialled,
                    _ = stopping.wait_for(|&stopping| stopping) => return Ok(None),
                };
                dialled.inspect_err(|failure| choice.on_failed(transport, failure.answered()))?
            }
        };
        let connections = self.figures.connections();
        let began = Instant::now();
        let ended = self.talk(&mut line, choice, journal).await;
        let ended = match (ended, line.close_reason()) {
            // What a read or a write ran into is the end of the connection: tell of that.
            (Err(Failure::ControlEnded), Some(failure)) => Err(failure),
            (ended, _) => ended,
        };
        let answered = ended
            .as_ref()
            .map_or_else(Failure::answered, |_| Some(true));
        match (self.figures.connections() == connections, &ended) {
            (true, Err(_)) => choice.on_failed(line.transport(), answered),
            (true, Ok(_)) => {}
            (false, _) => {
                choice.on_ended(line.transport(), began.elapsed(), answered == Some(false));
            }
        }
        line.close(ended.as_ref().err()).await;
        ended
    }

    #[cfg(test)]
    pub(super) async fn once_for_test(&mut self) -> Result<(), Failure> {
        let mut choice = Choice::new(self.uplink.carry);
        self.once(&mut FailureJournal::default(), &mut choice, None)
            .await
            .map(drop)
    }

    async fn dial(&self, transport: Transport) -> Result<Line, Failure> {
        let Aggregator { host, port, .. } = &self.aggregator;
        let credentials = self.credentials.borrow().clone();
        let found = tokio::net::lookup_host((host.as_str(), *port)).await;
        let addresses: Vec<_> = found
            .map_err(Failure::Resolve)?
            .take(ADDRESSES_TRIED)
            .collect();
        let none = || std::io::Error::new(std::io::ErrorKind::NotFound, "it has none");
        let mut failure = Failure::Resolve(none());
        for address in addresses {
            let dialled = Line::dial(
                transport,
                &credentials,
                &self.aggregator,
                &self.uplink,
                address,
            );
            match dialled.await {
                Ok(line) => return Ok(line),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// A connection by QUIC, as soon as there can be one; never, where nobody looks for it.
    async fn better(&self, is_wanted: bool) -> Line {
        if !is_wanted {
            return std::future::pending().await;
        }
        let mut random = Random::default();
        let mut wait = RETRY_QUIC_FIRST;
        loop {
            // Agents that an aggregator's restart brought here together do not go back as one herd.
            let half = wait.min(self.uplink.retry_quic) / 2;
            sleep(half + half.mul_f64(random.draw() as f64 / u64::MAX as f64)).await;
            wait = wait.saturating_mul(2).min(self.uplink.retry_quic);
            if let Ok(line) = self.dial(Transport::Quic).await {
                info!(aggregator = %self.aggregator, "QUIC gets through again; changing over");
                return line;
            }
        }
    }

    /// Everything after the handshake. `Ok` as of [`Self::once`].
    async fn talk(
        &mut self,
        line: &mut Line,
        choice: &mut Choice,
        journal: &mut FailureJournal,
    ) -> Result<Option<Line>, Failure> {
        let (mut send, mut receive) = line.open().await?;
        let backlog = self.backlog.borrow().clone();
        let hello = self.identity.hello(line.remote_address(), &backlog);
        let hello = v1::FromAgent::Hello(hello);
        send.control(&frame::frame_from_agent(&hello)).await?;
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
            address = %line.remote_address(),
            transport = line.transport().as_str(),
            name = ?welcome.aggregator,
            durable_below = welcome.durable_below,
            "connected"
        );
        journal.clear();
        choice.on_welcomed(line.transport());
        self.figures.on_connected(line.transport());
        let (commands, queue) = mpsc::channel(COMMANDS_MAX);
        self.tell(Event::Connected { commands, welcome }).await;
        let is_wanted = choice.prefers_another(line.transport());
        let ended = self.converse(line, (send, receive), queue, is_wanted).await;
        self.figures.on_disconnected();
        self.tell(Event::Disconnected).await;
        ended
    }

    async fn converse(
        &mut self,
        line: &Line,
        (send, receive): (Outgoing, Incoming),
        queue: mpsc::Receiver<Command>,
        is_better_wanted: bool,
    ) -> Result<Option<Line>, Failure> {
        let mut credentials = self.credentials.clone();
        let reading = self.read(line, receive);
        let writing = send.carry_out(queue, &self.figures);
        tokio::select! {
            // A refusal that came before the end of the connection says more than the end.
            biased;
            ended = reading => ended.map(|()| None),
            ended = writing => match (ended, *self.stopping.borrow()) {
                (Ok(()), true) => Ok(None),
                (Ok(()), false) => Err(Failure::Stuck),
                (Err(failure), _) => Err(failure),
            },
            failure = line.closed() => Err(failure),
            Ok(()) = credentials.changed() => Err(Failure::NewCredentials),
            better = self.better(is_better_wanted) => Ok(Some(better)),
        }
    }

    /// Reads the control stream until it ends, which it never does well.
    async fn read(&self, line: &Line, mut receive: Incoming) -> Result<(), Failure> {
        loop {
            let event = match read_message(&mut receive).await? {
                v1::FromAggregator::Mesh(mesh) => {
                    mesh::check(&mesh)?;
                    Event::Mesh(mesh)
                }
                v1::FromAggregator::PathsDurable(durable) => Event::TableDurable(durable),
                v1::FromAggregator::Durable(durable) => {
                    self.figures.on_durable(durable.sequences.len(), line.rtt());
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

/// Reads one message.
async fn read_message(incoming: &mut Incoming) -> Result<v1::FromAggregator, Failure> {
    let (header, payload) = transport::read_frame(incoming).await?;
    Ok(frame::parse_from_aggregator(&header, &payload)?)
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
