//! An agent's life: check, open sockets, give up privileges, probe, send, stop.
//!
//! The order matters. Credentials are read and raw sockets are opened first, while the process may; then every
//! capability is dropped, before the first byte from the network is parsed. The probe thread starts next, and last
//! the one-threaded runtime that does everything that may wait.
//!
//! Three signals: SIGTERM and SIGINT stop, SIGHUP reads the configuration and the credentials again.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::{Context as _, bail};
use leeward_common::{
    finding::Finding,
    id::{AgentId, RegionId},
    time::{Clock as _, SystemClock, Timestamp},
};
use sd_notify::NotifyState;
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval},
};
use tracing::{error, info, warn};

use crate::{
    answer,
    bandwidth::surveyor::Surveyor,
    bgp::{live, systems},
    checks::{self, Checker},
    config::{Config, Spool, Stamp},
    credentials::Credentials,
    errands::{self, Errands},
    metrics, privilege,
    probe::stamp::Key,
    prober::{ClosedWindow, Family, Modes, Prober, ProberConfig, ProberHandle},
    process::Usage,
    random,
    reflector::{Reflector, ReflectorConfig, ReflectorSockets},
    spool::{log::OldSegment, thread::Disk},
    status::{self, Health, Pages},
    trace::Tracer,
    uplink::{
        Order, Setup, Uplink, WINDOWS_MAX,
        figures::{AggregatorFiguresOf, UplinkFigures},
        transport::Transport,
    },
};

/// How long a stopping agent tries to send what is left.
const FLUSH: Duration = Duration::from_secs(1);

/// How often the probe thread is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The probe thread shows progress every second. Without any for this long it hangs, and the watchdog is not fed.
const STALLED_AFTER: Duration = Duration::from_secs(5);

/// From here on an expiring certificate is a warning.
const EXPIRES_SOON: Duration = Duration::from_secs(7 * 24 * 3_600);

/// Loads the configuration's credentials, looks at the authorities of checks, and warns when they expire soon.
///
/// # Errors
///
/// Returns what is wrong with them and what to do.
pub fn load_credentials(config: &Config) -> anyhow::Result<Credentials> {
    let now = SystemClock.now();
    let credentials = Credentials::load(now, &config.credentials, &config.region, &config.agent)?;
    if let Some(authorities) = &config.checks.ca {
        checks::check_authorities(authorities)?;
    }
    let left = credentials.expires_at().since(now);
    if left < EXPIRES_SOON {
        warn!(expires_at = %credentials.expires_at(), hours_left = left.as_secs() / 3_600, "the certificate expires soon");
    }
    Ok(credentials)
}

/// Runs an agent until it is told to stop. Must be called before any thread is started.
///
/// # Errors
///
/// Returns why it could not start, or what ended it.
pub fn run(file: &Path, config: Config, credentials: Credentials) -> anyhow::Result<()> {
    let stamp_key = load_stamp_key(&config)?;
    let prober_config = ProberConfig {
        stamp_key: stamp_key.clone(),
        max_probes_per_second: config.admission.max_probes_per_second,
        syn_source_ports: config.syn_source_ports.clone(),
        ..ProberConfig::new(random::bytes(), u64::from_be_bytes(random::bytes()))
    };
    let reflecting = bind_reflector(&config.stamp);
    let routers = privilege::bind(|| live::Bound::bind(&config.bgp))?;
    let mut sockets = privilege::open_sockets(&prober_config)?;
    for missing in sockets.missing() {
        warn!(%missing, "some probes are not possible");
    }
    info!(modes = %Modes::of(&sockets), cards = ?sockets.cards(), "sockets open");
    if !sockets.is_privileged(Family::V4) {
        warn!(
            "without CAP_NET_RAW nobody tells of ICMP errors, and SYN probes have no flows; systemd grants it by AmbientCapabilities=CAP_NET_RAW"
        );
    }
    let answers = answer::listen(config.answer_port).with_context(|| {
        format!(
            "cannot listen on TCP port {} for SYN probes; is it in use? (answer_port)",
            config.answer_port
        )
    })?;
    let (out, windows) = mpsc::channel(WINDOWS_MAX);
    let tracer = Tracer::new(sockets.take_tracing(), &prober_config);
    let prober = Prober::start(sockets, prober_config, out)?;
    let reflector = reflecting.map(|sockets| {
        Reflector::start(
            sockets,
            ReflectorConfig {
                key: stamp_key.clone(),
                reflect_for: config.stamp.reflect_for.clone(),
                max_per_second: config.stamp.max_reflections_per_second,
                heavy: config.bandwidth.heavy,
            },
        )
    });
    let reflector = reflector
        .transpose()
        .context("cannot start the reflector's thread")?
        .map(Arc::new);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // Only name resolution blocks, once per connection attempt.
        .max_blocking_threads(2)
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(serve(
        file.to_owned(),
        config,
        credentials,
        Measuring {
            prober,
            reflector,
            stamp_key,
            windows,
            tracer,
        },
        Listening { answers, routers },
    ))
}

/// What measures, and what comes of it.
struct Measuring {
    prober: ProberHandle,
    reflector: Option<Arc<Reflector>>,
    stamp_key: Option<Key>,
    windows: mpsc::Receiver<ClosedWindow>,
    tracer: Tracer,
}

/// Sockets for TCP connections.
struct Listening {
    answers: std::net::TcpListener,
    routers: live::Bound,
}

/// Reads the key of authenticated STAMP, if there is to be one.
///
/// # Errors
///
/// Returns which file is not what it should be.
pub fn load_stamp_key(config: &Config) -> anyhow::Result<Option<Key>> {
    let Some(file) = &config.stamp.mesh_key else {
        return Ok(None);
    };
    let named = || format!("{}: the mesh's key (stamp.mesh_key)", file.display());
    let text = std::fs::read_to_string(file).with_context(named)?;
    Key::parse(&text).map(Some).with_context(named)
}

/// An agent that cannot measure bandwidth still probes.
fn start_surveyor(
    config: &Config,
    key: Option<Key>,
    found: mpsc::Sender<Finding>,
) -> Option<Arc<Surveyor>> {
    match Surveyor::start(config.bandwidth, key, found) {
        Ok(surveyor) => Some(Arc::new(surveyor)),
        Err(error) => {
            warn!(%error, "bandwidth is not measured: its sockets cannot be opened");
            None
        }
    }
}

/// An agent without a reflector still probes; others are told, and do not probe it by STAMP.
fn bind_reflector(config: &Stamp) -> Option<ReflectorSockets> {
    if !config.reflect {
        return None;
    }
    match privilege::bind(|| ReflectorSockets::bind(config.port)) {
        Ok(sockets) => Some(sockets),
        Err(error) => {
            warn!(
                %error,
                port = config.port,
                "STAMP requests are not answered: the UDP port cannot be bound; free it, grant CAP_NET_BIND_SERVICE, or choose \
                 another (stamp.port)"
            );
            None
        }
    }
}

async fn serve(
    file: PathBuf,
    config: Config,
    credentials: Credentials,
    measuring: Measuring,
    listening: Listening,
) -> anyhow::Result<()> {
    let Measuring {
        prober,
        reflector,
        stamp_key,
        windows,
        tracer,
    } = measuring;
    // Whoever reads in the log that it started may signal at once.
    let signals = Signals::listen()?;
    let status_listener = bind_status(config.status_listen).await?;
    let (credentials, believed) = watch::channel(Arc::new(credentials));
    let prober = Arc::new(prober);
    let checker = Checker::start(&config.checks)?;
    let (finder, found) = mpsc::channel(errands::FOUND_MAX);
    let surveyor = start_surveyor(&config, stamp_key, finder.clone());
    let (traces, ordered) = mpsc::channel(errands::TRACES_MAX);
    let (systems, asked) = systems::channel();
    let (told, hearing) = watch::channel(None);
    tracer
        .naming(systems)
        .start(ordered, finder.clone())
        .context("cannot start the thread that traces")?;
    let routing = match config.bgp.is_enabled() {
        true => Some(live::start_answering(
            &config.bgp,
            listening.routers,
            finder,
            asked,
            hearing,
        )?),
        false => None,
    };
    let errands = Errands {
        traces: Some(traces),
        surveyor: surveyor.clone(),
        found,
        told,
    };
    let boot_epoch = u64::from_be_bytes(random::bytes());
    let disk = open_spool(&config.spool, boot_epoch);
    let uplink = Uplink::start(Setup {
        config: config.clone(),
        boot_epoch,
        disk,
        credentials: believed.clone(),
        prober: Arc::downgrade(&prober),
        reflector: reflector.clone(),
        checker,
        errands,
    });
    let vitals = Arc::new(Vitals {
        agent: config.agent.clone(),
        region: config.region.clone(),
        prober: Arc::downgrade(&prober),
        uplink: uplink.figures(),
        reflector,
        surveyor,
        routing,
        answers: Arc::default(),
        credentials: believed,
        progressing: AtomicBool::new(true),
    });
    let (orders, ordered) = mpsc::channel(1);
    tokio::spawn(answer::serve(
        TcpListener::from_std(listening.answers)?,
        vitals.answers.clone(),
    ));
    tokio::spawn(status::serve(status_listener, vitals.clone()));
    let uplink = tokio::spawn(uplink.run(windows, ordered, FLUSH));
    info!(region = %config.region, agent = %config.agent, status = %config.status_listen, "started");
    let mut life = Life {
        file,
        config,
        credentials,
        orders,
        vitals,
        uplink,
    };
    let ended = life.live(&prober, signals).await;
    info!("stopping");
    notify(&[NotifyState::Stopping]);
    life.stop(prober).await;
    ended
}

/// An agent without a disk for its spool still measures and sends.
fn open_spool(config: &Spool, boot_epoch: u64) -> Option<(Disk, Vec<OldSegment>)> {
    let directory = config.directory.as_deref()?;
    match Disk::start(
        directory,
        boot_epoch,
        config.sync,
        config.limits.segment_bytes,
    ) {
        Ok((disk, old)) => {
            let bytes: u64 = old.iter().map(|segment| segment.bytes).sum();
            info!(directory = %directory.display(), segments = old.len(), bytes, "spool opened");
            Some((disk, old))
        }
        Err(error) => {
            warn!(
                %error,
                directory = %directory.display(),
                "batches wait in memory only: the spool's directory cannot be used; make it writable for the agent, or choose \
                 another (spool.directory)"
            );
            None
        }
    }
}

async fn bind_status(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let bound = TcpListener::bind(address).await;
    bound.with_context(|| {
        format!("cannot serve /metrics on {address}; is it in use? (status_listen)")
    })
}

/// systemd may be absent, and then nobody needs to be told.
fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        warn!(%error, "the service manager was not told");
    }
}

/// The signals that the agent answers to.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?,
            hangup: signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?,
        })
    }
}

/// A running agent.
struct Life {
    file: PathBuf,
    config: Config,
    credentials: watch::Sender<Arc<Credentials>>,
    orders: mpsc::Sender<Order>,
    vitals: Arc<Vitals>,
    uplink: JoinHandle<()>,
}

impl Life {
    /// Until a signal, or until something ends that must not.
    async fn live(&mut self, prober: &ProberHandle, mut signals: Signals) -> anyhow::Result<()> {
        let mut look = interval(
            LOOK_EVERY.min(sd_notify::watchdog_enabled().map_or(LOOK_EVERY, |period| period / 2)),
        );
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut progress = Progress::new(prober);
        notify(&[NotifyState::Ready]);
        loop {
            tokio::select! {
                () = told(&mut signals.terminate) => return Ok(()),
                () = told(&mut signals.interrupt) => return Ok(()),
                () = told(&mut signals.hangup) => self.reload().await,
                _ = look.tick() => self.look_after(prober, &mut progress)?,
                ended = &mut self.uplink => bail!("the uplink ended by itself: {ended:?}"),
            }
        }
    }

    fn look_after(&self, prober: &ProberHandle, progress: &mut Progress) -> anyhow::Result<()> {
        if !prober.is_running() {
            bail!("the probe thread ended by itself");
        }
        let progressing = progress.is_made(prober);
        if self.vitals.progressing.swap(progressing, Relaxed) != progressing {
            match progressing {
                true => info!("the probe thread makes progress again"),
                false => {
                    error!(for_at_least = ?STALLED_AFTER, "the probe thread makes no progress");
                }
            }
        }
        if progressing {
            notify(&[NotifyState::Watchdog]);
        }
        Ok(())
    }

    /// Takes over what may change while running: the allowed networks and the credentials.
    async fn reload(&mut self) {
        match Config::load(&self.file) {
            Ok(config) => self.take_over(config).await,
            Err(error) => {
                error!(%error, "the configuration was not reloaded; the old one stays in force");
            }
        }
    }

    async fn take_over(&mut self, new: Config) {
        let mut expected = self.config.clone();
        expected
            .admission
            .allowed
            .clone_from(&new.admission.allowed);
        expected.credentials.clone_from(&new.credentials);
        expected.checks.allowed.clone_from(&new.checks.allowed);
        if expected != new {
            warn!(
                "only allowed_networks, checks.allow and credentials are taken over while running; restart for the rest"
            );
        }
        match load_credentials(&expected) {
            Ok(credentials) => self.use_credentials(credentials),
            Err(error) => {
                error!(
                    error = format!("{error:#}"),
                    "the credentials were not reloaded; the old ones stay in force"
                );
                expected.credentials.clone_from(&self.config.credentials);
            }
        }
        let _ = self
            .orders
            .send(Order::Admit(
                expected.admission.clone(),
                expected.checks.allowed.clone(),
            ))
            .await;
        self.config = expected;
        info!("reloaded");
    }

    fn use_credentials(&self, new: Credentials) {
        self.credentials.send_if_modified(|present| {
            let differ = !present.is_same(&new);
            if differ {
                *present = Arc::new(new);
            }
            differ
        });
    }

    /// Stops probing first, so that the last windows are among what is flushed.
    async fn stop(self, prober: Arc<ProberHandle>) {
        match Arc::into_inner(prober) {
            Some(prober) => _ = prober.stop(),
            None => error!("the prober is still in use"),
        }
        if !self.uplink.is_finished() {
            let _ = self.uplink.await;
        }
    }
}

/// Waits for a signal; for ever if the runtime gives none.
async fn told(signal: &mut Signal) {
    if signal.recv().await.is_none() {
        std::future::pending::<()>().await;
    }
}

/// Whether the probe thread's account grows.
struct Progress {
    snapshots: u64,
    at: Instant,
}

impl Progress {
    fn new(prober: &ProberHandle) -> Self {
        Self {
            snapshots: prober.counters().snapshots,
            at: Instant::now(),
        }
    }

    fn is_made(&mut self, prober: &ProberHandle) -> bool {
        let snapshots = prober.counters().snapshots;
        if snapshots != self.snapshots {
            *self = Self {
                snapshots,
                at: Instant::now(),
            };
        }
        self.at.elapsed() < STALLED_AFTER
    }
}

/// What the status pages show.
struct Vitals {
    agent: AgentId,
    region: RegionId,
    prober: Weak<ProberHandle>,
    uplink: Arc<UplinkFigures>,
    reflector: Option<Arc<Reflector>>,
    surveyor: Option<Arc<Surveyor>>,
    routing: Option<Arc<live::Figures>>,
    answers: Arc<AtomicU64>,
    credentials: watch::Receiver<Arc<Credentials>>,
    progressing: AtomicBool,
}

impl Vitals {
    fn certificate_expires_at(&self) -> Timestamp {
        self.credentials.borrow().expires_at()
    }
}

impl Vitals {
    /// How the spool fares, in words.
    fn spools(&self) -> String {
        let spool = &self.uplink.spool;
        let (counts, (on_disk, bytes)) = (spool.counts(), spool.on_disk());
        let disk = match spool.is_failing() {
            true => "the disk takes nothing",
            false => "in order",
        };
        format!(
            "{disk}, {on_disk} on disk ({bytes} bytes), {} dropped, {} merged, {} refused, {} places damaged",
            counts.dropped, counts.coarsened, counts.refused, counts.damaged
        )
    }

    /// What the reflector does, in words.
    fn reflects(&self) -> String {
        let Some(reflector) = &self.reflector else {
            return "none".to_owned();
        };
        let counters = reflector.counters();
        format!(
            "UDP port {}, {} sessions, {} replies",
            reflector.port(),
            counters.sessions,
            counters.reflected
        )
    }
}

impl Pages for Vitals {
    fn metrics(&self) -> String {
        metrics::render(&metrics::Snapshot {
            agent: &self.agent,
            region: &self.region,
            prober: self
                .prober
                .upgrade()
                .map(|prober| prober.counters())
                .unwrap_or_default(),
            modes: self
                .prober
                .upgrade()
                .map(|prober| prober.modes())
                .unwrap_or_default(),
            uplink: &self.uplink,
            usage: Usage::read(),
            answers: self.answers.load(Relaxed),
            reflector: self
                .reflector
                .as_ref()
                .map(|reflector| reflector.counters()),
            surveys: self
                .surveyor
                .as_ref()
                .map(|surveyor| surveyor.counters())
                .unwrap_or_default(),
            bandwidths: self
                .surveyor
                .as_ref()
                .map(|surveyor| surveyor.newest())
                .unwrap_or_default(),
            routing: self.routing.as_deref(),
            certificate_expires_at: self.certificate_expires_at(),
        })
    }

    fn flows(&self) -> String {
        match self.uplink.flows() {
            Some(table) => table.text(),
            None => "no span has ended yet, or paths have one flow\n".to_owned(),
        }
    }

    /// Being cut off from the aggregators is not ill health: probing goes on and a restart would only lose the spool.
    fn health(&self) -> Health {
        let healthy = self.progressing.load(Relaxed);
        let aggregators = &self.uplink.aggregators;
        let connected = aggregators.iter().filter(|of| of.figures.is_connected());
        let over_tls = |of: &&AggregatorFiguresOf| of.figures.transport() == Transport::Tls;
        let (connected, over_tls) = (
            connected.clone().count(),
            connected.filter(over_tls).count(),
        );
        let text = format!(
            "{}\nprobe thread: {}\nprobes: {}\npaths: {}\naggregators connected: {connected} of {}, {over_tls} of these by TLS over TCP\nbatches waiting: {}\nspool: {}\nSTAMP reflector: {}\ncertificate expires: {}\n",
            if healthy { "ok" } else { "not ok" },
            if healthy {
                "running"
            } else {
                "makes no progress"
            },
            self.prober
                .upgrade()
                .map(|prober| prober.modes())
                .unwrap_or_default(),
            self.uplink.paths(),
            aggregators.len(),
            self.uplink.waiting(),
            self.spools(),
            self.reflects(),
            self.certificate_expires_at(),
        );
        Health { healthy, text }
    }
}
