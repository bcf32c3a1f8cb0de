//! A load generator: many agents that probe nobody and send what they are told to, over QUIC, as real ones do.
//!
//! They have certificates of the installation's own authority, say hello, announce a table and send batches on
//! streams of their own; what they wait for is what a real agent waits for, the word that a batch is durable.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::Path as FilePath,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use leeward_common::{
    histogram::Schema,
    id::{AgentId, RegionId, TargetId},
    report::{Path, ProbeKind},
    time::Timestamp,
    wire::{
        ALPN_V1, batch,
        frame::{self, HEADER_BYTES, frame_batch},
        v1::{self, FromAgent, FromAggregator, Hello},
    },
};
use quinn::{
    ClientConfig, Connection, Endpoint, EndpointConfig, RecvStream, SendStream, TokioRuntime,
    crypto::rustls::QuicClientConfig,
};
use rcgen::{CertificateParams, Issuer, KeyPair, SanType};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::samples::{self, Shape};

/// The authority of an installation, which makes agents.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

/// Who an agent is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its name.
    pub agent: AgentId,
    /// Its region.
    pub region: RegionId,
    client: ClientConfig,
}

/// A connection that has been welcomed.
#[derive(Debug)]
pub struct Session {
    /// The connection.
    pub connection: Connection,
    /// Whose it is.
    pub agent: AgentId,
    /// Which start of the agent.
    pub boot_epoch: u64,
    send: SendStream,
    receive: RecvStream,
}

impl Authority {
    /// Reads the authority that `leeward pki init` made in a directory.
    ///
    /// # Errors
    ///
    /// Returns which file is not what it should be.
    pub fn read(pki: &FilePath) -> anyhow::Result<Self> {
        let read = |name: &str| {
            let path = pki.join(name);
            fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
        };
        let (certificate, key) = (read("ca.pem")?, read("ca.key")?);
        let key = KeyPair::from_pem(&key).context("the authority's key")?;
        Ok(Self {
            issuer: Issuer::from_ca_cert_pem(&certificate, key)?,
            certificate: CertificateDer::from_pem_slice(certificate.as_bytes())
                .context("the authority's certificate")?,
        })
    }

    /// A new agent.
    ///
    /// # Errors
    ///
    /// Returns why its certificate cannot be made.
    pub fn agent(&self, region: &str, agent: &str) -> anyhow::Result<Identity> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        let uri = format!("leeward://agent/{region}/{agent}");
        params.subject_alt_names.push(SanType::URI(uri.try_into()?));
        let certificate = params.signed_by(&key, &self.issuer)?;
        let private = PrivateKeyDer::try_from(key.serialize_der())
            .map_err(|why| anyhow::anyhow!("a key that is none: {why}"))?;
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![certificate.der().clone()], private)?;
        tls.alpn_protocols = vec![ALPN_V1.to_vec()];
        Ok(Identity {
            agent: AgentId::parse(agent)?,
            region: RegionId::parse(region)?,
            client: ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?)),
        })
    }
}

/// A socket for many agents. Each of them has one of its own where it runs; so this one takes as much as all of them
/// together are sent at once, as far as `net.core.rmem_max` lets it.
///
/// # Errors
///
/// Returns the error of the system.
pub fn endpoint() -> anyhow::Result<Endpoint> {
    const BUFFER_BYTES: usize = 4 << 20;
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.set_recv_buffer_size(BUFFER_BYTES)?;
    socket.set_send_buffer_size(BUFFER_BYTES)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    let (config, runtime) = (EndpointConfig::default(), Arc::new(TokioRuntime));
    Ok(Endpoint::new(config, None, socket.into(), runtime)?)
}

/// Paths of an agent, to targets of its own in these regions.
///
/// # Errors
///
/// Returns which name is no id.
pub fn paths(agent: &str, regions: &[&str], count: u32) -> anyhow::Result<Vec<Path>> {
    let path = |at: u32| {
        let region = regions[at as usize % regions.len()];
        Ok(Path {
            target: TargetId::parse(&format!("{agent}-{at}"))?,
            kind: ProbeKind::Icmp,
            region: Some(RegionId::parse(region)?),
        })
    };
    (0..count).map(path).collect()
}

/// The batches of an agent, framed, a second each, of which the last ended at `end`. They are of boot epoch 1.
///
/// # Errors
///
/// Returns why a batch cannot be written.
pub fn frames(
    agent: &AgentId,
    first: u64,
    count: u32,
    paths: u32,
    end: Timestamp,
) -> anyhow::Result<Vec<Vec<u8>>> {
    const SECOND: Duration = Duration::from_secs(1);
    let shape = Shape {
        paths,
        probes: 10,
        base_us: (1_000.0, 250_000.0),
        sigma: 0.01,
        loss: 0.001,
    };
    // A few different ones, again and again: making them is not what is measured.
    let kinds: Vec<_> = (0..16.min(count))
        .map(|seed| samples::batch(Schema::TwoDigits, &samples::windows(seed.into(), shape)))
        .collect();
    let end = end.floor(SECOND);
    let frame = |at: u32| {
        let mut batch = kinds[at as usize % kinds.len()].clone();
        batch.agent = agent.clone();
        batch.boot_epoch = 1;
        batch.sequence = first + u64::from(at);
        batch.window.start = end - SECOND * (count - at);
        batch.until = batch.window.end();
        Ok(frame_batch(&batch::encode(&batch)?))
    };
    (0..count).map(frame).collect()
}

impl Session {
    /// Connects, says hello, and waits for the welcome.
    ///
    /// # Errors
    ///
    /// Returns why the agent is not welcome.
    pub async fn open(
        endpoint: &Endpoint,
        to: SocketAddr,
        identity: &Identity,
        boot_epoch: u64,
    ) -> anyhow::Result<Self> {
        let connecting = endpoint.connect_with(identity.client.clone(), to, "127.0.0.1")?;
        let connection = connecting.await?;
        let (send, receive) = connection.open_bi().await?;
        let mut session = Self {
            connection,
            agent: identity.agent.clone(),
            boot_epoch,
            send,
            receive,
        };
        let hello = Hello {
            agent: identity.agent.clone(),
            region: identity.region.clone(),
            boot_epoch,
            // Nobody probes it, so that the mesh stays small.
            addresses: Vec::new(),
            answer_port: 8620,
            stamp_port: None,
            orders: false,
            build: "load generator".to_owned(),
            versions: v1::VERSIONS,
            backlog: Vec::new(),
        };
        session.say(&FromAgent::Hello(hello)).await?;
        match session.hear().await? {
            FromAggregator::Welcome(_) => Ok(session),
            other => bail!("a hello is answered with {other:?}"),
        }
    }

    /// Announces table 1 and waits until it is durable.
    ///
    /// # Errors
    ///
    /// Returns why it is not.
    pub async fn announce(&mut self, paths: Vec<Path>) -> anyhow::Result<()> {
        let table = v1::Paths {
            table: 1,
            boot_epoch: None,
            paths,
        };
        self.say(&FromAgent::Paths(table)).await?;
        while !matches!(self.hear().await?, FromAggregator::PathsDurable(_)) {}
        Ok(())
    }

    /// Sends framed batches, each on a stream of its own, `under_way` at most at a time, and waits until all are
    /// durable.
    ///
    /// # Errors
    ///
    /// Returns why they are not.
    pub async fn deliver(&mut self, frames: &[Vec<u8>], under_way: usize) -> anyhow::Result<()> {
        let (mut sent, mut durable) = (0, 0);
        while durable < frames.len() {
            while sent < frames.len() && sent - durable < under_way {
                let mut stream = self.connection.open_uni().await?;
                stream.write_all(&frames[sent]).await?;
                stream.finish()?;
                sent += 1;
            }
            if let FromAggregator::Durable(acknowledged) = self.hear().await? {
                durable += acknowledged.sequences.len();
            }
        }
        ensure!(durable == frames.len(), "more was acknowledged than sent");
        Ok(())
    }

    async fn say(&mut self, message: &FromAgent) -> anyhow::Result<()> {
        let bytes = frame::frame_from_agent(message);
        Ok(self.send.write_all(&bytes).await?)
    }

    async fn hear(&mut self) -> anyhow::Result<FromAggregator> {
        let mut header = [0; HEADER_BYTES];
        self.receive.read_exact(&mut header).await?;
        let header = frame::parse_header(&header)?;
        let mut payload = vec![0; header.length];
        self.receive.read_exact(&mut payload).await?;
        match frame::parse_from_aggregator(&header, &payload)? {
            FromAggregator::Refuse(refusal) => bail!("refused: {}", refusal.reason),
            heard => Ok(heard),
        }
    }
}
