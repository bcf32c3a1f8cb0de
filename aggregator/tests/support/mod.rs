//! An installation in a temporary directory: an authority, an aggregator in this process, and agents that speak the
//! wire by hand, so that they can also speak it wrongly.

#![allow(dead_code, reason = "each test binary uses its own part of this")]

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path as FilePath, PathBuf},
    sync::Arc,
    time::Duration,
};

use leeward_aggregator::{config::Config, run::Running, store::Store};
use leeward_common::{
    finding::{Finding, trace},
    histogram::Schema,
    id::{AgentId, RegionId, TargetId},
    report::{Class, Counts, Path, ProbeKind, Report, Rtt, Window},
    time::{Clock as _, SystemClock, Timestamp},
    wire::{
        ALPN_V1,
        batch::{self, Batch},
        findings::{self, Findings},
        frame::{self, HEADER_BYTES},
        v1::{self, FromAgent, FromAggregator, Hello, Refuse},
    },
};
use quinn::{
    Connection, ConnectionError, Endpoint, RecvStream, SendStream, crypto::rustls::QuicClientConfig,
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer},
};
use tempfile::TempDir;

pub mod daemon;
pub mod network;
pub mod real_agent;

/// No test waits longer than this for anything.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Fails the test instead of hanging.
pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, what)
        .await
        .expect("it happens before the deadline")
}

/// Waits until a condition holds.
pub async fn until(what: &str, condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(
        tokio::time::timeout(DEADLINE, waiting).await.is_ok(),
        "in vain: {what}"
    );
}

/// A certificate authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
}

/// A certificate with its key.
pub struct Certificate {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
    pem: String,
    key_pem: String,
}

impl Authority {
    pub fn new() -> Self {
        Self::named("leeward test authority")
    }

    pub fn named(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.self_signed(&key).unwrap();
        let (der, pem) = (certificate.der().clone(), certificate.pem());
        Self {
            issuer: Issuer::new(params, key),
            certificate: der,
            pem,
        }
    }

    pub fn issue(&self, uri: &str) -> Certificate {
        self.issue_with(uri, |_| {})
    }

    pub fn issue_with(
        &self,
        uri: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Certificate {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params
            .subject_alt_names
            .push(SanType::URI(uri.try_into().unwrap()));
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Certificate {
            chain: vec![certificate.der().clone()],
            key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        }
    }

    pub fn agent(&self, region: &str, agent: &str) -> Certificate {
        self.issue(&format!("leeward://agent/{region}/{agent}"))
    }
}

pub const POLICY: &str = "
    [[region]]
    id = 'iad'
    latitude = 39.0
    longitude = -77.5
    [[region]]
    id = 'pdx'
    latitude = 45.6
    longitude = -122.7
    [[region]]
    id = 'dub'
    latitude = 53.3
    longitude = -6.3
";

/// An installation: a directory with a config, certificates and data.
pub struct Installation {
    pub authority: Authority,
    pub dir: TempDir,
}

impl Installation {
    pub fn new() -> Self {
        let this = Self {
            authority: Authority::new(),
            dir: tempfile::tempdir().unwrap(),
        };
        let certificate = this.authority.issue("leeward://aggregator/main");
        this.write("ca.pem", &this.authority.pem);
        this.write("aggregator.pem", &certificate.pem);
        this.write("aggregator.key", &certificate.key_pem);
        this.write_config("[::1]:0", "127.0.0.1:0", POLICY);
        this
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.dir.path().join(name), text).unwrap();
    }

    pub fn write_config(&self, listen: &str, api: &str, policy: &str) {
        let data = self.dir.path().join("data");
        self.write(
            "aggregator.toml",
            &format!(
                "listen = '{listen}'\ndata_dir = '{}'\n[credentials]\nca = 'ca.pem'\ncertificate = 'aggregator.pem'\n\
                 key = 'aggregator.key'\n[api]\nlisten = '{api}'\n{policy}",
                data.display()
            ),
        );
    }

    pub fn write_agent(&self, certificate: &Certificate, name: &str) -> (PathBuf, PathBuf) {
        let (pem, key) = (format!("{name}.pem"), format!("{name}.key"));
        self.write(&pem, &certificate.pem);
        self.write(&key, &certificate.key_pem);
        (self.dir.path().join(pem), self.dir.path().join(key))
    }

    pub fn config_path(&self) -> PathBuf {
        self.dir.path().join("aggregator.toml")
    }

    pub fn config(&self) -> Config {
        Config::load(&self.config_path()).unwrap()
    }

    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub async fn start(&self) -> Running {
        Running::start(self.config()).await.unwrap()
    }

    pub async fn start_with(&self, store: impl Store + 'static) -> Running {
        Running::start_with(self.config(), Box::new(store), Arc::new(SystemClock))
            .await
            .unwrap()
    }

    /// Dials as this agent.
    pub async fn dial(
        &self,
        to: SocketAddr,
        certificate: Option<Certificate>,
    ) -> Result<Connection, ConnectionError> {
        self.dial_as(to, certificate, ALPN_V1).await
    }

    pub async fn dial_as(
        &self,
        to: SocketAddr,
        certificate: Option<Certificate>,
        alpn: &[u8],
    ) -> Result<Connection, ConnectionError> {
        let tls = self.client_tls(certificate, alpn);
        let local = if to.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
        let endpoint = Endpoint::client(local.parse().unwrap()).unwrap();
        let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
        soon(endpoint.connect_with(config, to, "localhost").unwrap()).await
    }

    pub fn client_tls(
        &self,
        certificate: Option<Certificate>,
        alpn: &[u8],
    ) -> rustls::ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.certificate.clone()).unwrap();
        let tls = rustls::ClientConfig::builder_with_provider(Arc::new(
            rustls::crypto::ring::default_provider(),
        ))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
        let mut tls = match certificate {
            Some(Certificate { chain, key, .. }) => tls.with_client_auth_cert(chain, key).unwrap(),
            None => tls.with_no_client_auth(),
        };
        tls.alpn_protocols = vec![alpn.to_vec()];
        tls
    }

    /// An agent that has said hello and was welcomed.
    pub async fn agent(&self, to: SocketAddr, region: &str, agent: &str, boot_epoch: u64) -> Agent {
        let mut agent = self.agent_before_hello(to, region, agent, boot_epoch).await;
        let hello = agent.hello();
        agent.say(&FromAgent::Hello(hello)).await;
        match agent.hear().await {
            FromAggregator::Welcome(welcome) => agent.welcome = Some(welcome),
            other => panic!("{other:?}"),
        }
        agent
    }

    pub async fn agent_before_hello(
        &self,
        to: SocketAddr,
        region: &str,
        agent: &str,
        boot_epoch: u64,
    ) -> Agent {
        let connection = self
            .dial(to, Some(self.authority.agent(region, agent)))
            .await
            .unwrap();
        let (send, receive) = soon(connection.open_bi()).await.unwrap();
        Agent {
            connection,
            send,
            receive,
            agent: AgentId::parse(agent).unwrap(),
            region: RegionId::parse(region).unwrap(),
            boot_epoch,
            welcome: None,
        }
    }
}

/// An agent, by hand.
pub struct Agent {
    pub connection: Connection,
    pub send: SendStream,
    pub receive: RecvStream,
    pub agent: AgentId,
    pub region: RegionId,
    pub boot_epoch: u64,
    pub welcome: Option<v1::Welcome>,
}

impl Agent {
    pub fn hello(&self) -> Hello {
        Hello {
            agent: self.agent.clone(),
            region: self.region.clone(),
            boot_epoch: self.boot_epoch,
            addresses: vec![Ipv4Addr::LOCALHOST.into()],
            answer_port: 8620,
            stamp_port: None,
            orders: true,
            build: "test".to_owned(),
            versions: v1::VERSIONS,
            backlog: Vec::new(),
        }
    }

    pub async fn say(&mut self, message: &FromAgent) {
        self.say_bytes(&frame::frame_from_agent(message)).await;
    }

    pub async fn say_bytes(&mut self, bytes: &[u8]) {
        // Whoever was refused already may be cut off here.
        let _ = soon(self.send.write_all(bytes)).await;
    }

    pub async fn hear(&mut self) -> FromAggregator {
        soon(self.try_hear())
            .await
            .expect("the aggregator says something")
    }

    async fn try_hear(&mut self) -> Option<FromAggregator> {
        let mut header = [0; HEADER_BYTES];
        self.receive.read_exact(&mut header).await.ok()?;
        let header = frame::parse_header(&header).unwrap();
        let mut payload = vec![0; header.length];
        self.receive.read_exact(&mut payload).await.ok()?;
        Some(frame::parse_from_aggregator(&header, &payload).unwrap())
    }

    /// What the aggregator refuses with, whatever it says before.
    pub async fn refusal(mut self) -> Refuse {
        loop {
            match soon(self.try_hear()).await {
                Some(FromAggregator::Refuse(refuse)) => return refuse,
                Some(_) => {}
                None => panic!("no refusal, but {:?}", self.connection.close_reason()),
            }
        }
    }

    /// The next mesh.
    pub async fn mesh(&mut self) -> v1::Mesh {
        loop {
            if let FromAggregator::Mesh(mesh) = self.hear().await {
                return mesh;
            }
        }
    }

    /// Announces a table and waits until it is durable.
    pub async fn announce(&mut self, table: u32, paths: Vec<Path>) {
        self.say(&FromAgent::Paths(v1::Paths {
            table,
            boot_epoch: None,
            paths,
        }))
        .await;
        loop {
            match self.hear().await {
                FromAggregator::PathsDurable(durable) => return assert_eq!(durable.table, table),
                FromAggregator::Refuse(refuse) => panic!("{refuse:?}"),
                _ => {}
            }
        }
    }

    /// A batch of one row per path of the table, all alike, for the window that ended last.
    pub fn batch(&self, sequence: u64, rows: u32) -> Batch {
        let second = Duration::from_secs(1);
        let start = now().floor(second) - second;
        Batch {
            agent: self.agent.clone(),
            boot_epoch: self.boot_epoch,
            sequence,
            table: 1,
            window: Window {
                start,
                length: second,
            },
            until: start + second,
            health: None,
            schema: Schema::TwoDigits,
            rows: (0..rows).map(|row| (row, report(80_000))).collect(),
        }
    }

    pub async fn send_batch(&self, batch: &Batch) {
        self.send_stream(&frame::frame_batch(&batch::encode(batch).unwrap()))
            .await;
    }

    /// A message of one finding, a trace that answers this order.
    pub fn finding(&self, sequence: u64, order: u64, hops: &[&str]) -> Findings {
        let mut found = trace::sample(hops);
        found.order = Some(order);
        Findings {
            agent: self.agent.clone(),
            boot_epoch: self.boot_epoch,
            sequence,
            at: now(),
            findings: vec![Finding::Trace(Box::new(found))],
        }
    }

    pub async fn send_findings(&self, found: &Findings) {
        self.send_stream(&findings::frame(found)).await;
    }

    pub async fn send_stream(&self, bytes: &[u8]) {
        assert!(self.try_send_stream(bytes).await, "the connection is there");
    }

    /// Whether the connection was still there.
    pub async fn try_send_stream(&self, bytes: &[u8]) -> bool {
        let Ok(mut stream) = soon(self.connection.open_uni()).await else {
            return false;
        };
        let _ = soon(stream.write_all(bytes)).await;
        let _ = stream.finish();
        true
    }

    /// Waits until so many batches are durable.
    pub async fn durable(&mut self, count: usize) -> Vec<u64> {
        let mut sequences = Vec::new();
        while sequences.len() < count {
            match self.hear().await {
                FromAggregator::Durable(durable) => sequences.extend(durable.sequences),
                FromAggregator::Refuse(refuse) => panic!("{refuse:?}"),
                _ => {}
            }
        }
        sequences.sort_unstable();
        sequences
    }
}

pub fn now() -> Timestamp {
    SystemClock.now()
}

pub fn path(target: &str, region: &str) -> Path {
    Path {
        target: TargetId::parse(target).unwrap(),
        kind: ProbeKind::Icmp,
        region: Some(RegionId::parse(region).unwrap()),
    }
}

pub fn report(rtt_us: u32) -> Report {
    let mut counts = Counts {
        scheduled: 10,
        ..Counts::default()
    };
    let mut rtt = Rtt::empty(Schema::TwoDigits);
    for probe in 0..10 {
        counts.end(Class::Replied);
        rtt.record(rtt_us + probe);
    }
    Report { counts, rtt }
}

/// The value of a counter in the text of `/metrics`; 0 where it is not there yet.
pub fn counter(running: &Running, line_start: &str) -> u64 {
    let text = running.shared.metrics.encode();
    let line = text.lines().find(|line| line.starts_with(line_start));
    line.and_then(|line| line.rsplit(' ').next())
        .map_or(0, |value| value.parse().unwrap())
}

/// Whether a directory holds anything.
pub fn is_empty(dir: &FilePath) -> bool {
    std::fs::read_dir(dir).map_or(true, |mut entries| entries.next().is_none())
}
