//! What the tests of the uplink talk to: a certificate authority, an aggregator that does what it is told, and a prober
//! that only remembers its plans. Loopback only.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use leeward_common::{
    finding::Finding,
    id::{AgentId, RegionId, TargetId},
    report::{Counts, ProbeKind, Report, Rtt, Window},
    time::{Clock as _, SystemClock, Timestamp},
    wire::{
        ALPN_V1,
        batch::{self, Batch},
        findings::{self, Findings},
        frame, v1,
    },
};
use quinn::{Connection, Endpoint, RecvStream, SendStream, VarInt};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
    string::Ia5String,
};
use rustls::{
    RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::timeout,
};

use super::{Order, Probing, Setup, Uplink, WINDOWS_MAX, figures::UplinkFigures};
use crate::{
    admission::Admission,
    bgp::watch::Told,
    checks::{Allowed, Checker},
    config::{self, Config, CredentialPaths},
    credentials::Credentials,
    errands::{self, Errands, TraceErrand},
    prober::{ClosedWindow, Counters, Plan, PlanError},
    spool::{DiskLimits, Policy, log::Sync},
};

/// Longer than anything here takes on a busy machine; a test that waits for it has failed.
const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) const AGENT: &str = "eu-west-1-a";
pub(crate) const REGION: &str = "eu-west-1";

/// Fails the test when something takes too long.
pub(crate) async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    let done = timeout(DEADLINE, work).await;
    done.unwrap_or_else(|_| panic!("{what}: nothing for {DEADLINE:?}"))
}

/// Waits for a condition that other tasks bring about.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    soon(what, async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// When a certificate is valid, relative to now.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Validity {
    Now,
    Past,
    Future,
}

/// A certificate and its key.
#[derive(Clone, Debug)]
pub(crate) struct Leaf {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// A certificate authority.
pub(crate) struct Authority {
    pub(crate) certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap().pem();
        Self {
            certificate,
            issuer: Issuer::new(params, key),
        }
    }

    pub(crate) fn issue(
        &self,
        uri: Option<&str>,
        usage: ExtendedKeyUsagePurpose,
        validity: Validity,
    ) -> Leaf {
        let key = KeyPair::generate().unwrap();
        let mut params =
            CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
        params
            .subject_alt_names
            .extend(uri.map(|uri| SanType::URI(Ia5String::try_from(uri).unwrap())));
        params.extended_key_usages = vec![usage];
        (params.not_before, params.not_after) = match validity {
            Validity::Now => (
                rcgen::date_time_ymd(2020, 1, 1),
                rcgen::date_time_ymd(2200, 1, 1),
            ),
            Validity::Past => (
                rcgen::date_time_ymd(2020, 1, 1),
                rcgen::date_time_ymd(2020, 1, 2),
            ),
            Validity::Future => (
                rcgen::date_time_ymd(2199, 1, 1),
                rcgen::date_time_ymd(2200, 1, 1),
            ),
        };
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Leaf {
            certificate,
            key: key.serialize_pem(),
        }
    }

    pub(crate) fn agent(&self) -> Leaf {
        let uri = format!("leeward://agent/{REGION}/{AGENT}");
        self.issue(
            Some(&uri),
            ExtendedKeyUsagePurpose::ClientAuth,
            Validity::Now,
        )
    }

    pub(crate) fn aggregator(&self) -> Leaf {
        self.issue(
            Some("leeward://aggregator/main"),
            ExtendedKeyUsagePurpose::ServerAuth,
            Validity::Now,
        )
    }
}

/// Credential files in a directory of their own.
pub(crate) struct Files {
    pub(crate) paths: CredentialPaths,
    _directory: tempfile::TempDir,
}

impl Files {
    pub(crate) fn new(ca: &str, leaf: &Leaf) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| -> PathBuf {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let paths = CredentialPaths {
            ca: write("ca.pem", ca),
            certificate: write("agent.pem", &leaf.certificate),
            key: write("agent.key", &leaf.key),
        };
        Self {
            paths,
            _directory: directory,
        }
    }

    pub(crate) fn load(&self) -> Result<Credentials, crate::credentials::CredentialError> {
        Credentials::load(SystemClock.now(), &self.paths, &region(), &agent())
    }
}

pub(crate) fn agent() -> AgentId {
    AgentId::parse(AGENT).unwrap()
}

pub(crate) fn region() -> RegionId {
    RegionId::parse(REGION).unwrap()
}

/// TLS of an aggregator.
pub(crate) fn server_tls(client_ca: &str, leaf: &Leaf, alpn: &[u8]) -> rustls::ServerConfig {
    let provider = Arc::new(ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(client_ca.as_bytes()).unwrap())
        .unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .unwrap();
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(leaf.certificate.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).unwrap(),
        )
        .unwrap();
    tls.alpn_protocols = vec![alpn.to_vec()];
    tls
}

/// An aggregator that does what the test says.
pub(crate) struct FakeAggregator {
    endpoint: Endpoint,
    pub(crate) address: SocketAddr,
}

impl FakeAggregator {
    /// Trusts and is trusted by one authority.
    pub(crate) fn new(authority: &Authority) -> Self {
        Self::with(&authority.certificate, &authority.aggregator(), ALPN_V1)
    }

    pub(crate) fn with(client_ca: &str, leaf: &Leaf, alpn: &[u8]) -> Self {
        let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self::bound(client_ca, leaf, alpn, anywhere)
    }

    pub(crate) fn bound(client_ca: &str, leaf: &Leaf, alpn: &[u8], address: SocketAddr) -> Self {
        let tls = server_tls(client_ca, leaf, alpn);
        let tls = quinn::crypto::rustls::QuicServerConfig::try_from(tls).unwrap();
        let config = quinn::ServerConfig::with_crypto(Arc::new(tls));
        let endpoint = Endpoint::server(config, address).unwrap();
        let address = endpoint.local_addr().unwrap();
        Self { endpoint, address }
    }

    /// The next connection whose handshake succeeds, and its hello.
    pub(crate) async fn accept(&self) -> (Peer, v1::Hello) {
        soon("a connection", async {
            loop {
                let incoming = self.endpoint.accept().await.unwrap();
                let Ok(connection) = incoming.await else {
                    continue;
                };
                let Ok((send, receive)) = connection.accept_bi().await else {
                    continue;
                };
                let mut peer = Peer {
                    connection,
                    send,
                    receive,
                };
                let v1::FromAgent::Hello(hello) = peer.message().await else {
                    panic!("no hello")
                };
                return (peer, hello);
            }
        })
        .await
    }

    /// Accepts and welcomes.
    pub(crate) async fn welcome(&self, durable_below: u64) -> Peer {
        let (mut peer, _) = self.accept().await;
        peer.welcomed(durable_below, true).await;
        peer
    }

    /// Refuses handshakes for the rest of the test, as they come.
    pub(crate) fn spawn_accepting(self) -> JoinHandle<()> {
        tokio::spawn(async move {
            while let Some(incoming) = self.endpoint.accept().await {
                if let Ok(connection) = incoming.await {
                    connection.closed().await;
                }
            }
        })
    }
}

/// One connection of an agent.
pub(crate) struct Peer {
    pub(crate) connection: Connection,
    send: SendStream,
    receive: RecvStream,
}

impl Peer {
    /// The next control message. Status messages come at any time; they are of no interest unless asked for.
    pub(crate) async fn next(&mut self) -> v1::FromAgent {
        soon("a control message", async {
            loop {
                match self.message().await {
                    v1::FromAgent::Status(_) => {}
                    message => return message,
                }
            }
        })
        .await
    }

    pub(crate) async fn message(&mut self) -> v1::FromAgent {
        let mut header = [0; frame::HEADER_BYTES];
        self.receive.read_exact(&mut header).await.unwrap();
        let header = frame::parse_header(&header).unwrap();
        let mut payload = vec![0; header.length];
        self.receive.read_exact(&mut payload).await.unwrap();
        frame::parse_from_agent(&header, &payload).unwrap()
    }

    pub(crate) async fn welcomed(&mut self, durable_below: u64, findings: bool) {
        let welcome = v1::Welcome {
            aggregator: "main".to_owned(),
            durable_below,
            findings,
            version: v1::VERSIONS[1],
            backlog: Vec::new(),
            credit: None,
        };
        self.say(&v1::FromAggregator::Welcome(welcome)).await;
    }

    pub(crate) async fn paths(&mut self) -> v1::Paths {
        match self.next().await {
            v1::FromAgent::Paths(paths) => paths,
            other => panic!("not a path table: {other:?}"),
        }
    }

    pub(crate) async fn mesh_applied(&mut self) -> v1::MeshApplied {
        match self.next().await {
            v1::FromAgent::MeshApplied(applied) => applied,
            other => panic!("not an answer to a mesh: {other:?}"),
        }
    }

    pub(crate) async fn say(&mut self, message: &v1::FromAggregator) {
        self.say_bytes(&frame::frame_from_aggregator(message)).await;
    }

    pub(crate) async fn say_bytes(&mut self, bytes: &[u8]) {
        soon("room to write", self.send.write_all(bytes))
            .await
            .unwrap();
    }

    pub(crate) async fn table_durable(&mut self, table: u32) {
        self.say(&v1::FromAggregator::PathsDurable(v1::PathsDurable {
            table,
            boot_epoch: None,
        }))
        .await;
    }

    pub(crate) async fn durable(&mut self, sequences: &[u64]) {
        self.say(&v1::FromAggregator::Durable(v1::Durable {
            sequences: sequences.to_vec(),
            ..v1::Durable::default()
        }))
        .await;
    }

    pub(crate) async fn batch(&self) -> Batch {
        let (header, payload) = self.stream().await;
        batch::decode(frame::parse_batch(&header, &payload).unwrap()).unwrap()
    }

    pub(crate) async fn findings(&self) -> Findings {
        let (header, payload) = self.stream().await;
        findings::parse(&header, &payload).unwrap()
    }

    /// The next frame on a stream of its own.
    pub(crate) async fn stream(&self) -> (frame::Header, Vec<u8>) {
        soon("a batch", async {
            let mut stream = self.connection.accept_uni().await.unwrap();
            let bytes = stream.read_to_end(2 << 20).await.unwrap();
            let (header, payload) = bytes.split_at(frame::HEADER_BYTES);
            let header = frame::parse_header(header.try_into().unwrap()).unwrap();
            (header, payload.to_vec())
        })
        .await
    }

    /// Takes the mesh of one target to where batches can flow, and returns its table's number.
    pub(crate) async fn set_up(&mut self) -> u32 {
        self.say(&v1::FromAggregator::Mesh(mesh(
            1,
            vec![target("t1", "10.0.0.1")],
        )))
        .await;
        let table = match self.next().await {
            v1::FromAgent::Paths(paths) => {
                self.mesh_applied().await;
                paths.table
            }
            v1::FromAgent::MeshApplied(_) => self.paths().await.table,
            other => panic!("unexpected {other:?}"),
        };
        self.table_durable(table).await;
        table
    }

    pub(crate) fn close(&self) {
        self.connection.close(VarInt::from_u32(0), b"");
    }

    /// Waits for the agent to close the connection; code and reason.
    pub(crate) async fn closed(&self) -> (u64, String) {
        match soon("the end of the connection", self.connection.closed()).await {
            quinn::ConnectionError::ApplicationClosed(close) => (
                close.error_code.into_inner(),
                String::from_utf8_lossy(&close.reason).into_owned(),
            ),
            other => panic!("not closed by the agent: {other}"),
        }
    }
}

pub(crate) fn target(id: &str, address: &str) -> v1::Target {
    v1::Target {
        id: TargetId::parse(id).unwrap(),
        region: None,
        address: address.parse().unwrap(),
        kinds: vec![ProbeKind::Icmp],
        port: 0,
        stamp_port: 0,
    }
}

pub(crate) fn mesh(version: u64, targets: Vec<v1::Target>) -> v1::Mesh {
    v1::Mesh {
        version,
        interval_us: 100_000,
        window_us: 1_000_000,
        expiry_us: 3_000_000,
        schema: 1,
        silence_probes: 0,
        silence_us: 0,
        flows: v1::FLOWS,
        targets,
        checks: Vec::new(),
        watch: Vec::new(),
    }
}

/// A prober that remembers its plans.
#[derive(Clone, Debug)]
pub(crate) struct FakeProber {
    plans: mpsc::UnboundedSender<Plan>,
}

impl Probing for FakeProber {
    fn set_plan(&self, plan: Plan) -> Result<(), PlanError> {
        plan.check()?;
        self.plans.send(plan).map_err(|_| PlanError::Stopped)
    }

    fn supports(&self, _kind: ProbeKind, _address: &IpAddr) -> bool {
        true
    }

    fn counters(&self) -> Counters {
        Counters {
            scheduled: 4_711,
            ..Counters::default()
        }
    }
}

/// An uplink with its prober's end of the queues.
pub(crate) struct Rig {
    pub(crate) plans: mpsc::UnboundedReceiver<Plan>,
    pub(crate) windows: Option<mpsc::Sender<ClosedWindow>>,
    pub(crate) orders: mpsc::Sender<Order>,
    pub(crate) credentials: watch::Sender<Arc<Credentials>>,
    pub(crate) figures: Arc<UplinkFigures>,
    pub(crate) running: JoinHandle<()>,
    pub(crate) errands: mpsc::Receiver<TraceErrand>,
    pub(crate) found: mpsc::Sender<Finding>,
    pub(crate) told: watch::Receiver<Option<Told>>,
    closed: u64,
    /// Seconds from one window to the next.
    pub(crate) apart: u64,
    _files: Files,
}

pub(crate) const BOOT_EPOCH: u64 = 99;

impl Rig {
    /// An agent of this authority that reports to these aggregators.
    pub(crate) fn new(authority: &Authority, aggregators: &[SocketAddr]) -> Self {
        Self::with(authority, aggregators, 1 << 20)
    }

    pub(crate) fn with(
        authority: &Authority,
        aggregators: &[SocketAddr],
        waiting_bytes: usize,
    ) -> Self {
        let files = Files::new(&authority.certificate, &authority.agent());
        let (credentials, believed) = watch::channel(Arc::new(files.load().unwrap()));
        let (plan, plans) = mpsc::unbounded_channel();
        let config = config(&files.paths, aggregators, waiting_bytes);
        let (traces, errands) = mpsc::channel(errands::TRACES_MAX);
        let (found, findings) = mpsc::channel(errands::FOUND_MAX);
        let (told, hearing) = watch::channel(None);
        let uplink = Uplink::start(Setup {
            reflector: None,
            checker: Checker::start(&config.checks).unwrap(),
            errands: Errands {
                traces: Some(traces),
                surveyor: None,
                found: findings,
                told,
            },
            config,
            disk: None,
            boot_epoch: BOOT_EPOCH,
            credentials: believed,
            prober: FakeProber { plans: plan },
        });
        let (windows, closed) = mpsc::channel(WINDOWS_MAX);
        let (orders, ordered) = mpsc::channel(1);
        let figures = uplink.figures();
        let running = tokio::spawn(uplink.run(closed, ordered, Duration::from_secs(1)));
        Self {
            plans,
            windows: Some(windows),
            orders,
            credentials,
            figures,
            running,
            errands,
            found,
            told: hearing,
            closed: 0,
            apart: 1,
            _files: files,
        }
    }

    pub(crate) async fn admit(&self, admission: Admission) {
        let order = Order::Admit(admission, Allowed::default());
        self.orders.send(order).await.unwrap();
    }

    pub(crate) async fn plan(&mut self) -> Plan {
        soon("a plan", self.plans.recv()).await.unwrap()
    }

    /// Closes a window of one row and waits until it is in the spool. Each is a second later than the one before.
    pub(crate) async fn close_window(&mut self, plan_version: u64) -> ClosedWindow {
        let window = window(self.closed * self.apart, plan_version, 1);
        self.closed += 1;
        self.windows
            .as_ref()
            .unwrap()
            .send(window.clone())
            .await
            .unwrap();
        let figures = self.figures.clone();
        let closed = self.closed;
        until("the window in the spool", || figures.batches() >= closed).await;
        window
    }

    /// How often connections failed for this cause.
    pub(crate) fn failures(&self, cause: &str) -> u64 {
        let at = super::failure::Failure::CAUSES
            .iter()
            .position(|&known| known == cause)
            .unwrap();
        self.figures
            .aggregators
            .iter()
            .map(|of| of.figures.failures()[at])
            .sum()
    }
}

pub(crate) fn config(
    credentials: &CredentialPaths,
    aggregators: &[SocketAddr],
    waiting_bytes: usize,
) -> Config {
    Config {
        region: region(),
        agent: agent(),
        admission: Admission {
            allowed: vec!["10.0.0.0/8".parse().unwrap()],
            max_probes_per_second: 1_000,
        },
        addresses: Vec::new(),
        answer_port: 8_620,
        syn_source_ports: 61_000..=61_007,
        status_listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        credentials: credentials.clone(),
        aggregators: aggregators.iter().map(aggregator).collect(),
        uplink: config::Uplink {
            keep_alive: Duration::from_secs(2),
            idle_timeout: Duration::from_secs(10),
            waiting_bytes,
            forget_when: Policy::All,
            carry: config::Carry::Auto,
            retry_quic: Duration::from_secs(1),
        },
        spool: config::Spool {
            directory: None,
            limits: DiskLimits::new(16 << 20, Duration::from_secs(10)),
            max_age: Duration::from_secs(86_400),
            sync: Sync::EachWrite,
        },
        stamp: config::Stamp {
            reflect: false,
            port: 862,
            reflect_for: Vec::new(),
            max_reflections_per_second: 1_000,
            mesh_key: None,
        },
        bgp: config::Bgp::default(),
        checks: config::Checks {
            allowed: Allowed {
                networks: vec!["127.0.0.0/8".parse().unwrap()],
                key: "checks.allow",
            },
            ca: None,
            concurrency: 4,
            max_per_second: 50,
        },
        bandwidth: crate::bandwidth::surveyor::Limits::default(),
    }
}

pub(crate) fn aggregator(address: &SocketAddr) -> config::Aggregator {
    config::Aggregator {
        host: address.ip().to_string(),
        port: address.port(),
        name: Some("main".to_owned()),
    }
}

pub(crate) fn window(number: u64, plan_version: u64, rows: u32) -> ClosedWindow {
    let second = Duration::from_secs(1);
    let start = Timestamp::from_unix_us(1_790_000_000_000_000 + number * 1_000_000);
    let row = |row: u32| {
        let mut rtt = Rtt::empty(leeward_common::histogram::Schema::TwoDigits);
        rtt.record(20_000 + row + number as u32);
        let mut counts = Counts {
            scheduled: 1,
            ..Counts::default()
        };
        counts.end(leeward_common::report::Class::Replied);
        (row, Report { counts, rtt })
    };
    let window = Window {
        start,
        length: second,
    };
    ClosedWindow {
        plan_version,
        window,
        until: window.end(),
        health: None,
        flows: None,
        rows: (0..rows).map(row).collect(),
    }
}

/// A path that exists in no installation.
pub(crate) fn nowhere() -> &'static Path {
    Path::new("/nonexistent/leeward.pem")
}
