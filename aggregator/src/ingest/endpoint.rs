//! The UDP socket and the QUIC settings: limits that hold before anything of an agent is understood.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use quinn::{
    AsyncTimer, AsyncUdpSocket, ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig,
    IdleTimeout, ServerConfig, TokioRuntime, TransportConfig, VarInt,
    crypto::rustls::QuicServerConfig,
};
use rustls::crypto::{SecureRandom, ring};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
};
use tracing::warn;

use crate::metrics::Metrics;

/// What is asked of the kernel for each direction. All connections share one socket: with the kernel's default of
/// 208 kB a reconnect storm loses most first packets and waits a second for each retransmission.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;

/// Batches of one agent that may be under way at once, one stream each.
const BATCH_STREAMS: u32 = 32;

/// What one connection may have sent and we not yet read: two of the largest batches.
const CONNECTION_WINDOW_BYTES: u32 = 2 << 20;

/// What one stream may have sent and we not yet read. At this window a path of 100 ms carries 20 Mbit/s per stream.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;

/// Handshakes waiting to be accepted, and the memory for their first packets.
const INCOMING: usize = 2_048;
const INCOMING_BYTES: u64 = 16 << 20;

/// A silent connection is dead after this. Agents may ask for less.
const IDLE_TIMEOUT_MS: u32 = 30_000;

/// A packet at least this often, below the usual 30 s of a NAT's memory.
const KEEP_ALIVE: Duration = Duration::from_secs(8);

/// Opens the socket and serves QUIC on it.
///
/// # Errors
///
/// Returns the error of the system, with what was tried.
pub fn open(
    listen: SocketAddr,
    tls: Arc<rustls::ServerConfig>,
    metrics: &Metrics,
) -> io::Result<Endpoint> {
    let socket = socket(listen)?;
    let granted = socket.recv_buffer_size()?;
    metrics.ingest.receive_buffer_bytes.set(granted as i64);
    if granted < SOCKET_BUFFER_BYTES {
        warn!(
            granted_bytes = granted,
            wanted_bytes = SOCKET_BUFFER_BYTES,
            "the kernel grants a small socket buffer; reconnect storms will be slow: \
             sysctl net.core.rmem_max=4194304 net.core.wmem_max=4194304"
        );
    }
    let mut config = EndpointConfig::default();
    config.cid_generator(|| Box::new(RandomIds(ring::default_provider().secure_random)));
    let runtime = Arc::new(Apart::start()?);
    Endpoint::new(config, Some(server_config(tls)), socket.into(), runtime)
}

/// Reads the socket on a thread of its own, and does everything else where it is called. quinn reads for 50 µs at a time and then
/// lets others go first; in a reconnect storm these are a thousand handshakes, and what arrives meanwhile is lost.
#[derive(Debug)]
struct Apart {
    socket: Handle,
    /// Whether the reader of the socket runs: it is the first that is spawned.
    reads: AtomicBool,
    /// Ends the thread when the endpoint and its connections are gone.
    _ends: oneshot::Sender<()>,
}

impl Apart {
    fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_io().build()?;
        let socket = runtime.handle().clone();
        let (ends, end) = oneshot::channel();
        std::thread::Builder::new()
            .name("quic".to_owned())
            .spawn(move || drop(runtime.block_on(end)))?;
        Ok(Self {
            socket,
            reads: AtomicBool::new(false),
            _ends: ends,
        })
    }
}

impl quinn::Runtime for Apart {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        TokioRuntime.new_timer(at)
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        match self.reads.swap(true, Ordering::Relaxed) {
            false => drop(self.socket.spawn(future)),
            true => TokioRuntime.spawn(future),
        }
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let _entered = self.socket.enter();
        TokioRuntime.wrap_udp_socket(socket)
    }
}

/// Connection ids that are nothing but random. Those that quinn makes by itself have three random bytes, and the rest follows
/// from them. With 2,000 agents some 16,000 of 17 million are taken, and the one under which a newcomer proves its address is
/// not compared with those: about one newcomer of a thousand would get an id of another connection, and not be heard.
struct RandomIds(&'static dyn SecureRandom);

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; 8];
        self.0
            .fill(&mut id)
            .expect("a system that makes keys has random bytes");
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        8
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// The settings for a certificate; also for one that replaces another while connections stay.
#[must_use]
pub fn server_config(tls: Arc<rustls::ServerConfig>) -> ServerConfig {
    let tls = QuicServerConfig::try_from(tls).expect("TLS 1.3 brings the initial cipher suite");
    let mut config = ServerConfig::with_crypto(Arc::new(tls));
    config
        .transport_config(Arc::new(transport_config()))
        .max_incoming(INCOMING)
        .incoming_buffer_size_total(INCOMING_BYTES);
    config
}

fn transport_config() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(BATCH_STREAMS))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_TIMEOUT_MS))))
        .keep_alive_interval(Some(KEEP_ALIVE));
    transport
}

fn socket(listen: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(listen),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    if listen.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
    socket.set_send_buffer_size(SOCKET_BUFFER_BYTES)?;
    socket.bind(&listen.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Of ids with three random bytes some 180 would be twice among so many.
    #[test]
    fn connection_ids_do_not_repeat() {
        let mut ids = RandomIds(ring::default_provider().secure_random);
        let all: BTreeSet<_> = (0..80_000).map(|_| ids.generate_cid().to_vec()).collect();
        assert_eq!(all.len(), 80_000);
        assert!(all.iter().all(|id| id.len() == ids.cid_len()));
    }
}
