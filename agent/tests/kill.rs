//! A real agent that is killed again and again, and an aggregator that goes away, forgets to acknowledge and comes back: what
//! was on disk at a kill arrives, and nothing is counted twice. The same where the disk is full. Loopback only.
//!
//! It goes on for LEEWARD_CRASH_SECONDS, 60 if that is not set.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use leeward_agent::spool::record::{self, Found, Key, Record};
use leeward_common::{
    id::TargetId,
    report::ProbeKind,
    time::Timestamp,
    wire::{
        ALPN_V1, batch,
        frame::{self, HEADER_BYTES},
        v1,
    },
};
use leeward_testing::{SmallDisk, free_port};
use quinn::{Connection, Endpoint, RecvStream};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

const DEADLINE: Duration = Duration::from_secs(60);

/// As the mesh says; two probes are due in each.
const WINDOW: Duration = Duration::from_millis(100);

/// A directory with what one agent needs, and the certificate of its aggregator.
struct Installation {
    directory: tempfile::TempDir,
    status_port: u16,
    ca: String,
    aggregator: (String, String),
}

impl Installation {
    fn new(aggregator: SocketAddr) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        let issue = |uri: &str, usage| {
            let key = KeyPair::generate().unwrap();
            let mut leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
            leaf.subject_alt_names
                .push(SanType::URI(uri.try_into().unwrap()));
            leaf.extended_key_usages = vec![usage];
            let certificate = leaf.signed_by(&key, &issuer).unwrap().pem();
            (certificate, key.serialize_pem())
        };
        let agent = issue(
            "leeward://agent/eu/eu-a",
            ExtendedKeyUsagePurpose::ClientAuth,
        );
        let own = issue(
            "leeward://aggregator/main",
            ExtendedKeyUsagePurpose::ServerAuth,
        );
        let installation = Self {
            directory,
            status_port: free_port(),
            ca,
            aggregator: own,
        };
        let config = format!(
            "region = 'eu'\nagent = 'eu-a'\nallowed_networks = ['127.0.0.0/8']\nanswer_port = {}\nstatus_listen = '127.0.0.1:{}'\n\
             [credentials]\nca = 'ca.pem'\ncertificate = 'agent.pem'\nkey = 'agent.key'\n\
             [[aggregator]]\naddress = '{aggregator}'\n\
             [uplink]\nkeep_alive = '300ms'\nidle_timeout = '1s'\n\
             [stamp]\nreflect = false\n\
             [spool]\ndirectory = '{}'\nwrite_after = '100ms'\n",
            free_port(),
            installation.status_port,
            installation.spool().display(),
        );
        installation.write("ca.pem", &installation.ca);
        installation.write("agent.pem", &agent.0);
        installation.write("agent.key", &agent.1);
        installation.write("agent.toml", &config);
        installation
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.directory.path().join(name), text).unwrap();
    }

    fn spool(&self) -> PathBuf {
        self.directory.path().join("spool")
    }

    fn start(&self) -> Agent {
        let mut command = Command::new(env!("CARGO_BIN_EXE_leeward-agent"));
        command
            .arg("--config")
            .arg(self.directory.path().join("agent.toml"))
            .env_remove("CREDENTIALS_DIRECTORY")
            .env_remove("STATE_DIRECTORY")
            .env_remove("NOTIFY_SOCKET")
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Agent(command.spawn().unwrap())
    }

    /// A figure of the agent's own.
    fn figure(&self, name: &str) -> Option<u64> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.status_port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        write!(
            stream,
            "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        )
        .ok()?;
        let mut page = String::new();
        stream.read_to_string(&mut page).ok()?;
        let line = page
            .lines()
            .find(|line| line.starts_with(&format!("leeward_agent_{name} ")))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    /// Everything whole that is in the spool on disk.
    fn on_disk(&self) -> BTreeSet<Key> {
        let mut keys = BTreeSet::new();
        for entry in std::fs::read_dir(self.spool()).into_iter().flatten() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap_or_default();
            record::read_segment(&bytes, |found| {
                if let Found::Record {
                    record: Record::Message(message),
                    ..
                } = found
                {
                    keys.insert(message.key);
                }
            });
        }
        keys
    }
}

/// A process that is killed when the test is done with it.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the aggregator has stored, whatever became of its process.
#[derive(Default)]
struct Stored {
    arrived: BTreeSet<Key>,
    repeated: u64,
    /// How often each part of a window was counted.
    counted: BTreeMap<(u64, Timestamp, Timestamp), u32>,
    tables: BTreeSet<(u64, u32)>,
    /// How many probes all windows tell of.
    scheduled: u64,
    /// Whether what arrives is acknowledged.
    acknowledges: bool,
}

impl Stored {
    fn take(&mut self, bytes: &[u8]) -> Key {
        let (header, payload) = bytes.split_first_chunk::<HEADER_BYTES>().unwrap();
        let header = frame::parse_header(header).unwrap();
        let batch = batch::decode(frame::parse_batch(&header, payload).unwrap()).unwrap();
        let key = Key {
            boot_epoch: batch.boot_epoch,
            sequence: batch.sequence,
        };
        assert!(
            self.tables.contains(&(batch.boot_epoch, batch.table)),
            "a batch before its table"
        );
        if self.arrived.insert(key) {
            let scheduled = batch.rows.iter().map(|(_, report)| report.counts.scheduled);
            self.scheduled += u64::from(scheduled.sum::<u32>());
            let part = (batch.boot_epoch, batch.window.start, batch.until);
            *self.counted.entry(part).or_default() += 1;
        } else {
            self.repeated += 1;
        }
        key
    }

    fn below(&self, boot_epoch: u64) -> u64 {
        let mut next = 0;
        while self.arrived.contains(&Key {
            boot_epoch,
            sequence: next,
        }) {
            next += 1;
        }
        next
    }
}

async fn endpoint(installation: &Installation, address: SocketAddr) -> Endpoint {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    let ca = CertificateDer::from_pem_slice(installation.ca.as_bytes()).unwrap();
    roots.add(ca).unwrap();
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
        Arc::new(roots),
        provider.clone(),
    )
    .build()
    .unwrap();
    let (certificate, key) = &installation.aggregator;
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
        )
        .unwrap();
    tls.alpn_protocols = vec![ALPN_V1.to_vec()];
    let tls = quinn::crypto::rustls::QuicServerConfig::try_from(tls).unwrap();
    let config = quinn::ServerConfig::with_crypto(Arc::new(tls));
    let deadline = Instant::now() + DEADLINE;
    loop {
        match Endpoint::server(config.clone(), address) {
            Ok(endpoint) => return endpoint,
            // The last connections of the one before still have the socket.
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn message(receive: &mut RecvStream) -> Option<v1::FromAgent> {
    let mut header = [0; HEADER_BYTES];
    receive.read_exact(&mut header).await.ok()?;
    let header = frame::parse_header(&header).unwrap();
    let mut payload = vec![0; header.length];
    receive.read_exact(&mut payload).await.ok()?;
    Some(frame::parse_from_agent(&header, &payload).unwrap())
}

/// One connection of the agent, until it is gone.
async fn attend(connection: Connection, stored: Arc<Mutex<Stored>>) -> Option<()> {
    let (mut send, mut receive) = connection.accept_bi().await.ok()?;
    let Some(v1::FromAgent::Hello(hello)) = message(&mut receive).await else {
        return None;
    };
    let own = hello.boot_epoch;
    let welcome = {
        let stored = stored.lock().unwrap();
        v1::Welcome {
            aggregator: "main".to_owned(),
            durable_below: stored.below(own),
            findings: true,
            version: 2,
            backlog: hello
                .backlog
                .iter()
                .map(|&boot_epoch| v1::KnownEpoch {
                    boot_epoch,
                    durable_below: stored.below(boot_epoch),
                })
                .collect(),
            credit: Some(20),
        }
    };
    let mesh = v1::Mesh {
        version: 1,
        interval_us: 50_000,
        window_us: 100_000,
        expiry_us: 1_000_000,
        schema: 1,
        silence_probes: 0,
        silence_us: 0,
        flows: 1,
        targets: vec![v1::Target {
            id: TargetId::parse("t1").unwrap(),
            region: None,
            address: Ipv4Addr::LOCALHOST.into(),
            kinds: vec![ProbeKind::Icmp],
            port: 0,
            stamp_port: 0,
        }],
        checks: Vec::new(),
        watch: Vec::new(),
    };
    for said in [
        v1::FromAggregator::Welcome(welcome),
        v1::FromAggregator::Mesh(mesh),
    ] {
        send.write_all(&frame::frame_from_aggregator(&said))
            .await
            .ok()?;
    }
    loop {
        let said = tokio::select! {
            heard = message(&mut receive) => match heard? {
                v1::FromAgent::Paths(paths) => {
                    let of = paths.boot_epoch.unwrap_or(own);
                    stored.lock().unwrap().tables.insert((of, paths.table));
                    v1::FromAggregator::PathsDurable(v1::PathsDurable {
                        table: paths.table,
                        boot_epoch: paths.boot_epoch,
                    })
                }
                _ => continue,
            },
            stream = connection.accept_uni() => {
                let bytes = stream.ok()?.read_to_end(2 << 20).await.ok()?;
                let (key, acknowledges) = {
                    let mut stored = stored.lock().unwrap();
                    (stored.take(&bytes), stored.acknowledges)
                };
                if !acknowledges {
                    continue;
                }
                v1::FromAggregator::Durable(v1::Durable {
                    sequences: vec![key.sequence],
                    boot_epoch: (key.boot_epoch != own).then_some(key.boot_epoch),
                    ..v1::Durable::default()
                })
            }
        };
        send.write_all(&frame::frame_from_aggregator(&said))
            .await
            .ok()?;
    }
}

/// An aggregator that can be reached.
struct Serving {
    endpoint: Endpoint,
    accepting: tokio::task::JoinHandle<()>,
}

impl Serving {
    async fn start(
        installation: &Installation,
        address: SocketAddr,
        stored: &Arc<Mutex<Stored>>,
    ) -> Self {
        let endpoint = endpoint(installation, address).await;
        let accepting = {
            let (endpoint, stored) = (endpoint.clone(), stored.clone());
            tokio::spawn(async move {
                while let Some(incoming) = endpoint.accept().await {
                    if let Ok(connection) = incoming.await {
                        tokio::spawn(attend(connection, stored.clone()));
                    }
                }
            })
        };
        Self {
            endpoint,
            accepting,
        }
    }

    async fn stop(self) {
        self.endpoint.close(0u32.into(), b"");
        self.accepting.abort();
        self.endpoint.wait_idle().await;
    }
}

/// A small generator, so that a run can be told from the next and needs no dependency.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

#[tokio::test]
async fn what_was_on_disk_at_a_kill_arrives_and_nothing_counts_twice() {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let installation = Installation::new(address);
    let stored = Arc::new(Mutex::new(Stored::default()));
    let seconds = std::env::var("LEEWARD_CRASH_SECONDS");
    let seconds = seconds
        .ok()
        .and_then(|given| given.parse().ok())
        .unwrap_or(60);
    let began = Instant::now();
    let mut dice = Dice(u64::from(std::process::id()) | 1 << 40);
    let (mut agents_killed, mut aggregators_gone) = (0, 0);
    let mut owed: BTreeSet<Key> = BTreeSet::new();
    let mut agent = installation.start();
    let mut serving: Option<Serving> = None;
    while began.elapsed() < Duration::from_secs(seconds) {
        match &serving {
            None => {
                let acknowledges = dice.below(3) > 0;
                stored.lock().unwrap().acknowledges = acknowledges;
                serving = Some(Serving::start(&installation, address, &stored).await);
            }
            Some(_) if dice.below(3) > 0 => {
                if let Some(serving) = serving.take() {
                    serving.stop().await;
                    aggregators_gone += 1;
                }
            }
            Some(_) => {}
        }
        // Not for synchronisation: at a moment that nobody chose.
        tokio::time::sleep(Duration::from_millis(100 + dice.below(1_500))).await;
        if dice.below(2) == 0 {
            agent.0.kill().unwrap();
            let ended = agent.0.wait().unwrap();
            assert_eq!(ended.code(), None, "it had ended by itself: {ended}");
            owed.extend(installation.on_disk());
            agents_killed += 1;
            agent = installation.start();
        }
    }
    // At last all is well, and everything is delivered.
    if let Some(serving) = serving.take() {
        serving.stop().await;
    }
    stored.lock().unwrap().acknowledges = true;
    let last = Serving::start(&installation, address, &stored).await;
    let deadline = Instant::now() + DEADLINE;
    loop {
        let missing = {
            let stored = stored.lock().unwrap();
            owed.difference(&stored.arrived).count()
        };
        let waiting = installation.figure("spool_batches");
        if missing == 0 && waiting == Some(0) {
            break;
        }
        assert!(
            Instant::now() < deadline,
            "{missing} of {} messages that were on disk at a kill have not arrived; on disk: {waiting:?}",
            owed.len()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    last.stop().await;
    let dropped = installation.figure("batches_dropped_total");
    let stored = stored.lock().unwrap();
    let twice: Vec<_> = stored
        .counted
        .iter()
        .filter(|&(_, &times)| times > 1)
        .collect();
    assert!(twice.is_empty(), "counted twice: {twice:?}");
    assert_eq!(dropped, Some(0));
    assert!(agents_killed > 0 && !owed.is_empty());
    leeward_testing::tell(format_args!(
        "{agents_killed} agents killed, {aggregators_gone} times no aggregator, {} messages on disk at a kill, {} arrived, {} of them again",
        owed.len(),
        stored.arrived.len(),
        stored.repeated
    ));
}

/// While the aggregator is away the disk fills up, and later has room again: probing goes on, what does not fit waits in
/// memory, and everything arrives once.
#[tokio::test]
async fn a_full_disk_costs_neither_probes_nor_windows() {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let installation = Installation::new(address);
    let name = "a_full_disk_costs_neither_probes_nor_windows";
    let Some(disk) = SmallDisk::mount(name, &installation.spool(), "256k").unwrap() else {
        return;
    };
    let stored = Arc::new(Mutex::new(Stored::default()));
    stored.lock().unwrap().acknowledges = true;
    let serving = Serving::start(&installation, address, &stored).await;
    let mut agent = installation.start();
    let figure = |name: &str| installation.figure(name).unwrap_or(0);
    let until = async |what: &str, condition: &dyn Fn() -> bool| {
        let deadline = Instant::now() + DEADLINE;
        while !condition() {
            assert!(Instant::now() < deadline, "in vain: {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    // The mesh is known, and is obeyed without an aggregator.
    let deadline = Instant::now() + DEADLINE;
    while stored.lock().unwrap().arrived.len() < 5 {
        let ended = agent.0.try_wait().unwrap();
        assert!(ended.is_none(), "it ended by itself: {ended:?}");
        assert!(Instant::now() < deadline, "no window arrived");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    serving.stop().await;
    until("windows on disk", &|| figure("spool_batches") > 3).await;
    let filler = disk.path().join("filler");
    assert!(
        std::fs::write(&filler, vec![0; 1 << 20]).is_err(),
        "it takes all there is"
    );
    until("writes that fail", &|| figure("spool_failing") == 1).await;
    let (closed, sent) = (figure("windows_closed_total"), figure("probes_sent_total"));
    until("windows beside a full disk", &|| {
        figure("windows_closed_total") > closed + 50
    })
    .await;
    assert!(figure("probes_sent_total") > sent + 50);
    let errors = figure("spool_write_errors_total");
    std::fs::remove_file(&filler).unwrap();
    until("writes again", &|| figure("spool_failing") == 0).await;
    let last = Serving::start(&installation, address, &stored).await;
    until("an empty spool", &|| {
        [figure("batches_waiting"), figure("spool_batches")] == [0, 0]
    })
    .await;
    let coarsened = figure("batches_coarsened_total");
    // Sixteen windows of a tenth of a second wait for the uplink; on a busy machine it may have got no time for longer than that.
    let unsent = 2 * figure("windows_dropped_total");
    assert_eq!(figure("batches_dropped_total"), 0);
    // It sends what is left before it ends.
    let asked = Command::new("kill").arg(agent.0.id().to_string()).status();
    assert!(asked.unwrap().success() && agent.0.wait().unwrap().success());
    last.stop().await;
    // Each probe that came due between the first window and the last is told of once, by its own window or by a longer one.
    let stored = stored.lock().unwrap();
    assert!(stored.counted.values().all(|&times| times == 1));
    let starts = stored.counted.keys().map(|&(_, start, _)| start);
    // A longer window begins where its ten seconds do, before anything was measured perhaps.
    let short = stored
        .counted
        .keys()
        .filter(|(_, start, until)| until.since(*start) <= WINDOW);
    let first = short.clone().map(|&(_, start, _)| start).min().unwrap();
    let last = short.map(|&(.., until)| until).max().unwrap();
    let due = 2 * last.since(first).as_millis() as u64 / WINDOW.as_millis() as u64;
    assert!(
        (due.saturating_sub(4 + unsent)..=due).contains(&stored.scheduled),
        "{} probes are told of, {due} came due",
        stored.scheduled
    );
    assert!(errors > 0);
    leeward_testing::tell(format_args!(
        "{} windows and longer ones out of {coarsened} arrived, 0 given up; {errors} writes failed",
        starts.count()
    ));
}
