//! Puts the parts together, and takes them apart again in the opposite order.
//!
//! ```text
//!   start   store ─▶ recover ─▶ turn thread ─▶ roster ─▶ HTTP ─▶ QUIC ─▶ ready
//!   stop    not ready ─▶ QUIC closed, sessions end ─▶ last turn, snapshot ─▶ HTTP ends
//! ```

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use leeward_common::time::{Clock, SystemClock};
use quinn::{Endpoint, VarInt};
use sd_notify::NotifyState;
use tokio::{
    net::TcpListener,
    runtime::{Handle, Runtime},
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task,
};
use tracing::{error, info, warn};
use tracing_subscriber::EnvFilter;

use crate::{
    backup::Backups,
    config::Config,
    definitions::{Definitions, Disputed},
    http,
    ingest::{
        Ingest, endpoint,
        limits::Gate,
        roster::{self, Change, Keeper, RosterHandle},
    },
    metrics::Metrics,
    recover::recover,
    rollup,
    shadow::{self, ShadowFile},
    shared::{Published, Readiness, Shared, State},
    store::{Store, rocks::Rocks},
    trace,
    turn::{Outlets, Turn, TurnHandle},
};

/// How long sessions may take to end once they are told to.
const SESSIONS_TIMEOUT: Duration = Duration::from_secs(3);

/// How long HTTP requests may take to end once the listener is closed.
const HTTP_TIMEOUT: Duration = Duration::from_secs(3);

/// The code that connections are closed with when the process stops: that of a refusal as unavailable.
const STOPPING: VarInt = VarInt::from_u32(6);

/// Runs the aggregator until it is told to stop by SIGTERM or SIGINT.
///
/// # Errors
///
/// Returns what kept it from starting, or what ended it.
pub fn run(path: &Path, config: Config) -> anyhow::Result<()> {
    init_log();
    let runtime = Runtime::new().context("cannot start the runtime")?;
    let ended = runtime.block_on(async {
        // Whoever reads in the log that it listens may signal at once.
        let mut signals = Signals::listen()?;
        let mut running = tokio::select! {
            started = Running::start(config) => started?,
            () = signals.stop() => {
                info!("told to stop before it had started");
                return Ok(());
            }
        };
        notify(&[NotifyState::Ready]);
        running.attend(&mut signals, path).await?;
        running.stop().await;
        Ok(())
    });
    // The store may still be being read; a start that was given up waits for none of it.
    runtime.shutdown_background();
    ended
}

/// The signals that the aggregator answers to.
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

    /// Until the process is told to stop.
    async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => (),
            _ = self.interrupt.recv() => (),
        }
    }
}

/// A running aggregator.
#[derive(Debug)]
pub struct Running {
    /// What the HTTP API sees.
    pub shared: Shared,
    /// Where agents connect.
    pub agents: SocketAddr,
    /// Where the HTTP API listens.
    pub api: SocketAddr,
    endpoint: Endpoint,
    gate: Gate,
    tls: Arc<ArcSwap<rustls::ServerConfig>>,
    roster: RosterHandle,
    ingest: task::JoinHandle<()>,
    http: task::JoinHandle<()>,
    turn: JoinHandle<()>,
    shadow: JoinHandle<()>,
    rollup: JoinHandle<()>,
    end_rollup: watch::Sender<bool>,
    following: task::JoinHandle<()>,
    tracing: task::JoinHandle<()>,
    progress: Arc<AtomicU64>,
    stopping: watch::Sender<bool>,
}

impl Running {
    /// Starts with the store in the configured directory.
    ///
    /// # Errors
    ///
    /// Returns what kept it from starting.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        let dir = config.data_dir.clone();
        let store = task::spawn_blocking(move || Rocks::open(&dir)).await?;
        Self::start_with(config, Box::new(store?), Arc::new(SystemClock)).await
    }

    /// Starts with any store and clock.
    ///
    /// # Errors
    ///
    /// Returns what kept it from starting.
    pub async fn start_with(
        config: Config,
        store: Box<dyn Store>,
        clock: Arc<dyn Clock>,
    ) -> anyhow::Result<Self> {
        let metrics = Arc::new(Metrics::default());
        let readiness = Arc::new(Readiness::default());
        let progress = Arc::new(AtomicU64::new(0));
        let listener = TcpListener::bind(config.api.listen)
            .await
            .with_context(|| format!("cannot listen on {} for the HTTP API", config.api.listen))?;

        let (reader, aside) = (store.reader(), store.aside());
        let configured = config.policy.clone();
        let (store, recovered) = task::spawn_blocking(move || {
            let recovered = recover(&*store, &configured);
            (store, recovered)
        })
        .await?;
        let recovered = recovered.context("cannot recover from the store")?;
        metrics.store.replayed.inc_by(recovered.replayed);
        metrics.store.skipped.inc_by(recovered.skipped);
        let has_new_policy = recovered.policy != config.policy;
        let (keeper, roster, members) = Keeper::new(
            recovered.registrations.clone(),
            Arc::new(config.policy.policy.clone()),
            recovered.engine.view().intents,
            Arc::clone(&clock),
        );

        let view = Arc::new(Published::new(recovered.engine.view()));
        let (turn_handle, arrivals) = TurnHandle::channel();
        let outlets = Outlets {
            view: Arc::clone(&view),
            readiness: Arc::clone(&readiness),
            metrics: Arc::clone(&metrics),
            progress: Arc::clone(&progress),
        };
        let turn = Turn::new(
            store,
            recovered,
            Arc::clone(&clock),
            config.retention,
            outlets,
        );
        let runtime = Handle::current();
        let shadow = shadow::Thread {
            store: Arc::clone(&reader),
            view: Arc::clone(&view),
            readiness: Arc::clone(&readiness),
            metrics: Arc::clone(&metrics),
        };
        let (shadow, shadow_thread) = shadow
            .start(runtime.clone(), turn.shadow())
            .context("cannot start the shadow's thread")?;
        let (end_rollup, ends) = watch::channel(false);
        let rollup = rollup::thread::Thread {
            reader: Arc::clone(&reader),
            aside: Arc::clone(&aside),
            view: Arc::clone(&view),
            readiness: Arc::clone(&readiness),
            metrics: Arc::clone(&metrics),
            dir: config.data_dir.clone(),
        };
        let rollup = rollup
            .start(runtime.clone(), ends)
            .context("cannot start the rollups' thread")?;
        let turn = std::thread::Builder::new()
            .name("turn".to_owned())
            .spawn(move || turn.run(&runtime, arrivals))
            .context("cannot start the turn thread")?;
        task::spawn(keeper.run());
        let following = task::spawn(roster::follow(Arc::clone(&view), roster.clone()));
        if has_new_policy {
            turn_handle
                .policy(config.policy.clone())
                .await
                .context("cannot bring the policy into force")?;
        }

        let name: Arc<str> = config.name.as_str().into();
        let shared = Shared {
            view: Arc::clone(&view),
            store: reader,
            roster: members,
            orders: roster.clone(),
            shadow,
            turn: turn_handle.clone(),
            metrics: Arc::clone(&metrics),
            tokens: Arc::new(ArcSwap::from_pointee(config.api.tokens.clone())),
            api: Arc::new(config.api.clone()),
            retention: config.retention,
            backups: Arc::new(Backups::new(&config.data_dir, Arc::clone(&aside))),
            readiness,
            clock: Arc::clone(&clock),
            name: Arc::clone(&name),
        };
        if let Some(folder) = &config.definitions_dir {
            let read = read_definitions(folder.clone(), &shared, &config).await?;
            define(&shared, &read).await?;
        }
        set_shadow(&shared, config.shadow.as_ref()).await?;
        let tracing = task::spawn(trace::follow(shared.clone()));
        let (stopping, mut stop) = watch::channel(false);
        let api = listener
            .local_addr()
            .context("cannot read the address of the HTTP API")?;
        let http = task::spawn(http::serve(shared.clone(), listener, async move {
            // An error says that whoever could stop it is gone.
            let _ = stop.wait_for(|&stop| stop).await;
        }));

        let endpoint = endpoint::open(config.listen, Arc::clone(&config.tls), &metrics)
            .with_context(|| format!("cannot listen on {} (UDP) for agents", config.listen))?;
        let agents = endpoint
            .local_addr()
            .context("cannot read the address for agents")?;
        let listener = listen_tcp(&config, agents).await?;
        let tls = Arc::new(ArcSwap::new(Arc::clone(&config.tls)));
        let gate = Gate::new(config.limits.clone());
        let ingest = Ingest {
            gate: gate.clone(),
            tls: Arc::clone(&tls),
            turn: turn_handle,
            roster: roster.clone(),
            store: Arc::clone(&shared.store),
            view,
            metrics,
            clock,
            name,
            sessions: Arc::default(),
            handshakes: Arc::default(),
        };
        let ingest = task::spawn(ingest.serve(endpoint.clone(), listener));
        info!(%agents, %api, name = %shared.name, "listening");
        Ok(Self {
            shared,
            agents,
            api,
            endpoint,
            gate,
            tls,
            roster,
            ingest,
            http,
            turn,
            shadow: shadow_thread,
            rollup,
            end_rollup,
            following,
            tracing,
            progress,
            stopping,
        })
    }

    /// Answers to signals and to the watchdog until the process is told to stop.
    async fn attend(&mut self, signals: &mut Signals, path: &Path) -> anyhow::Result<()> {
        let mut watchdog = Watchdog::new(&self.progress);
        loop {
            tokio::select! {
                _ = signals.terminate.recv() => return Ok(()),
                _ = signals.interrupt.recv() => return Ok(()),
                _ = signals.hangup.recv() => self.reload(path).await,
                () = watchdog.wait() => watchdog.report(),
                ended = &mut self.http => {
                    ended.context("the HTTP API failed")?;
                    anyhow::bail!("the HTTP API ended");
                }
            }
            if self.turn.is_finished() {
                anyhow::bail!("the turn thread ended; see the log above");
            }
        }
    }

    /// Reads the config again: policy, tokens and definitions come into force, and the certificate serves new
    /// connections. What else changed needs a restart.
    async fn reload(&self, path: &Path) {
        notify(&[NotifyState::Reloading]);
        let result = self.try_reload(path).await;
        self.shared
            .metrics
            .config_reload_ok
            .set(i64::from(result.is_ok()));
        match result {
            Ok(()) => info!("the config is reloaded"),
            Err(error) => error!(
                error = format!("{error:#}"),
                "the config is not reloaded; the old one stays in force"
            ),
        }
        notify(&[NotifyState::Ready]);
    }

    /// See [`Self::reload`].
    ///
    /// # Errors
    ///
    /// Returns what is wrong with the file, or why the policy could not come into force.
    pub async fn try_reload(&self, path: &Path) -> anyhow::Result<()> {
        let owned = path.to_owned();
        let config = task::spawn_blocking(move || Config::load(&owned)).await??;
        // Everything is read and checked before anything is changed.
        let definitions = match &config.definitions_dir {
            Some(folder) => read_definitions(folder.clone(), &self.shared, &config).await?,
            None => Definitions::default(),
        };
        let policy = Arc::new(config.policy.policy.clone());
        self.shared
            .turn
            .policy(config.policy)
            .await
            .context("cannot bring the policy into force")?;
        define(&self.shared, &definitions).await?;
        set_shadow(&self.shared, config.shadow.as_ref()).await?;
        self.shared.tokens.store(Arc::new(config.api.tokens));
        self.roster.send(Change::Policy(policy)).await;
        self.gate.set(config.limits);
        self.tls.store(Arc::clone(&config.tls));
        self.endpoint
            .set_server_config(Some(endpoint::server_config(config.tls)));
        Ok(())
    }

    /// Stops in order.
    pub async fn stop(self) {
        info!("stopping");
        notify(&[NotifyState::Stopping]);
        self.shared.readiness.set(State::Stopping);
        self.endpoint.close(STOPPING, b"the aggregator stops");
        if tokio::time::timeout(SESSIONS_TIMEOUT, self.ingest)
            .await
            .is_err()
        {
            warn!("some sessions did not end in time");
        }
        self.endpoint.wait_idle().await;
        self.following.abort();
        self.tracing.abort();
        self.shared.turn.stop().await;
        self.end_rollup.send_replace(true);
        for thread in [self.turn, self.shadow, self.rollup] {
            let name = thread.thread().name().unwrap_or_default().to_owned();
            let joined = task::spawn_blocking(move || thread.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                error!(thread = name, "a thread panicked");
            }
        }
        self.stopping.send_replace(true);
        if tokio::time::timeout(HTTP_TIMEOUT, self.http).await.is_err() {
            warn!("some HTTP requests did not end in time");
        }
        info!("stopped");
    }
}

/// The listener for agents that UDP does not carry. With the port that the system chose for UDP: the same one.
async fn listen_tcp(config: &Config, agents: SocketAddr) -> anyhow::Result<Option<TcpListener>> {
    let Some(mut address) = config.listen_tcp else {
        return Ok(None);
    };
    if address.port() == 0 {
        address.set_port(agents.port());
    }
    let bound = TcpListener::bind(address).await;
    let listener = bound.with_context(|| {
        format!(
            "cannot listen on {address} (TCP) for agents; choose another, or \"off\" (listen_tcp)"
        )
    })?;
    Ok(Some(listener))
}

/// Reads the files of definitions and checks them against the config that they came with.
async fn read_definitions(
    folder: PathBuf,
    shared: &Shared,
    config: &Config,
) -> anyhow::Result<Definitions> {
    let read = task::spawn_blocking(move || Definitions::load(&folder)).await??;
    let (now, view) = (shared.clock.now(), shared.view.load_full());
    let (policy, longest) = (&config.policy.policy, config.api.max_override);
    read.check(now, policy, &view.intents, longest)?;
    Ok(read)
}

/// Makes things as the files say.
async fn define(shared: &Shared, definitions: &Definitions) -> anyhow::Result<()> {
    let (now, view) = (shared.clock.now(), shared.view.load_full());
    let plan = definitions.plan(now, &view.intents);
    for Disputed { thing, file, who } in &plan.disputed {
        warn!(%thing, file, who, "a definition was changed through the API and is left alone; make the file say the same, or remove it through the API");
    }
    shared
        .metrics
        .definitions_disputed
        .set(plan.disputed.len() as i64);
    let count = plan.changes.len();
    for asked in plan.changes {
        let thing = asked.what.thing();
        let outcome = shared.turn.change(asked).await;
        if outcome
            .context("cannot bring the definitions into force")?
            .is_err()
        {
            warn!(%thing, "a definition was changed at this very moment and is left alone; reload again");
        }
    }
    if count > 0 {
        info!(changes = count, "definitions are as the files say");
    }
    Ok(())
}

/// Sets the shadow policy that the configuration names.
async fn set_shadow(shared: &Shared, file: Option<&ShadowFile>) -> anyhow::Result<()> {
    let setting = shared.shadow.setting.borrow().clone();
    let asked = match ShadowFile::plan(file, &setting) {
        Ok(None) => return Ok(()),
        Ok(Some(asked)) => asked,
        Err(who) => {
            warn!(
                who,
                "the shadow policy was set through the API and is left alone; make its file say the same, or remove it through the API"
            );
            return Ok(());
        }
    };
    let outcome = shared.turn.shadow(asked).await;
    if outcome.context("cannot set the shadow policy")?.is_err() {
        warn!("the shadow policy was changed at this very moment and is left alone; reload again");
    }
    Ok(())
}

/// Tells systemd that all is well, as long as the turn thread makes progress.
struct Watchdog {
    /// Half of what systemd allows; `None` if it does not ask.
    every: Option<Duration>,
    next: tokio::time::Instant,
    progress: Arc<AtomicU64>,
    seen: u64,
    stuck_since: Option<Instant>,
}

impl Watchdog {
    fn new(progress: &Arc<AtomicU64>) -> Self {
        let every = sd_notify::watchdog_enabled().map(|allowed| allowed / 2);
        Self {
            every,
            next: tokio::time::Instant::now(),
            progress: Arc::clone(progress),
            seen: 0,
            stuck_since: None,
        }
    }

    async fn wait(&mut self) {
        match self.every {
            Some(every) => {
                tokio::time::sleep_until(self.next).await;
                self.next += every;
            }
            None => std::future::pending().await,
        }
    }

    fn report(&mut self) {
        let progress = self.progress.load(Ordering::Acquire);
        if progress != self.seen {
            (self.seen, self.stuck_since) = (progress, None);
            notify(&[NotifyState::Watchdog]);
            return;
        }
        let since = *self.stuck_since.get_or_insert_with(Instant::now);
        error!(
            stuck_seconds = since.elapsed().as_secs(),
            "the turn thread makes no progress"
        );
    }
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        warn!(%error, "cannot notify systemd");
    }
}

fn init_log() {
    let filter = EnvFilter::try_from_env("LEEWARD_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // journald stamps lines itself. A second call in one process keeps the first.
    let _ = match std::env::var_os("JOURNAL_STREAM") {
        Some(_) => builder.without_time().with_ansi(false).try_init(),
        None => builder
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .try_init(),
    };
}
