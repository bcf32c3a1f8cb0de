//! The agent's side of the wire: meshes come in and become plans, windows go out as batches.
//!
//! One task owns everything that decides ([`Uplink`]): the spool, the joined mesh, and per aggregator what it is sent
//! next. One task per aggregator owns its connection ([`session`]). They talk by bounded queues: events come up from
//! the sessions, commands go down to each connection.
//!
//! ```text
//!   prober ──ClosedWindow──▶ Uplink ──Command──▶ session ══QUIC══▶ aggregator
//!      ▲                     │ spool                │
//!      └──────── Plan ───────┘ mesh ◀─────Event─────┘
//! ```
//!
//! A batch leaves at once when its window closes. It stays in the spool until enough aggregators have said that it is
//! durable there; a new connection begins with what the aggregator does not have.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, Weak, atomic::Ordering::Relaxed},
    time::Duration,
};

use leeward_common::{
    id::TargetId,
    report::{Class, ProbeKind},
    wire::{batch::Batch, frame, v1},
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, sleep_until, timeout_at},
};
use tracing::{error, info, warn};

use crate::{
    admission::Admission,
    bandwidth::surveyor,
    checks::{self, Allowed, Checker, Done},
    config::Config,
    credentials::Credentials,
    errands::Errands,
    limiter::Limiter,
    mesh::{Admitted, Union},
    prober::{
        ClosedWindow, Counters, Modes, Plan, PlanError, PlannedPath, ProberHandle,
        counters::StampSource,
    },
    process::Usage,
    reflector::Reflector,
    spool::{self, CURRENT, Spool, TableOf, log::OldSegment, thread::Disk},
};
use connection::{Connection, Live, QueueFull, Table};
use figures::{AggregatorFigures, AggregatorFiguresOf, UplinkFigures};
use flows::FlowTable;
use results::Results;
use session::{Event, Identity, Session};

pub mod backoff;
mod connection;
pub mod delivery;
pub mod failure;
pub mod figures;
pub mod flows;
mod line;
mod orders;
mod results;
pub mod session;
pub mod transport;

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;

/// Closed windows that wait for the uplink. It encodes one in well under a millisecond; a second of the shortest
/// windows is room enough, and when it is full the prober drops the window and counts it.
pub const WINDOWS_MAX: usize = 16;

/// Events that wait for the uplink. When it is full the sessions stop reading and QUIC slows the aggregators down.
const EVENTS_MAX: usize = 64;

/// How often the spool is looked after: what has waited for long is written to disk.
const TEND_EVERY: Duration = Duration::from_millis(250);

/// How long a stopping agent waits for its disk to take what was not delivered.
const WRITE_WITHIN: Duration = Duration::from_secs(3);

/// How often the aggregators hear how the agent fares.
const STATUS_EVERY: Duration = Duration::from_secs(5);

/// From one change of the plan to the next, unless the operator asks for it. When many agents appear at once, meshes
/// follow each other faster than windows close, and each would be a path table.
const MESHES_EVERY: Duration = Duration::from_secs(1);

/// What the uplink asks of the prober. A trait because tests have no raw sockets.
pub trait Probing: Send + 'static {
    /// Replaces the plan.
    ///
    /// # Errors
    ///
    /// Returns what cannot be carried out; the plan before stays.
    fn set_plan(&self, plan: Plan) -> Result<(), PlanError>;

    /// Whether there is a socket for such probes.
    fn supports(&self, kind: ProbeKind, address: &IpAddr) -> bool;

    /// Counts since the start.
    fn counters(&self) -> Counters;

    /// How probes leave.
    fn modes(&self) -> Modes {
        Modes::default()
    }
}

/// The uplink must not keep the prober alive: it ends when the prober has stopped.
impl Probing for Weak<ProberHandle> {
    fn set_plan(&self, plan: Plan) -> Result<(), PlanError> {
        self.upgrade().ok_or(PlanError::Stopped)?.set_plan(plan)
    }

    fn supports(&self, kind: ProbeKind, address: &IpAddr) -> bool {
        self.upgrade()
            .is_some_and(|prober| prober.supports(kind, address))
    }

    fn counters(&self) -> Counters {
        self.upgrade()
            .map(|prober| prober.counters())
            .unwrap_or_default()
    }

    fn modes(&self) -> Modes {
        self.upgrade()
            .map(|prober| prober.modes())
            .unwrap_or_default()
    }
}

/// What can change while the uplink runs.
#[derive(Debug)]
pub enum Order {
    /// Other networks or another rate, and other addresses that may be asked.
    Admit(Admission, Allowed),
}

/// What the uplink is made of.
#[derive(Debug)]
pub struct Setup<P> {
    /// The configuration.
    pub config: Config,
    /// Which start of the process.
    pub boot_epoch: u64,
    /// The newest credentials.
    pub credentials: watch::Receiver<Arc<Credentials>>,
    /// The prober.
    pub prober: P,
    /// The reflector, if there is one: it is told who its peers are.
    pub reflector: Option<Arc<Reflector>>,
    /// The thread that asks services.
    pub checker: Checker,
    /// Those that find out what is ordered.
    pub errands: Errands,
    /// The spool's disk and what lives before left on it; `None` to spool in memory only.
    pub disk: Option<(Disk, Vec<OldSegment>)>,
}

/// Owns what waits to be sent and decides what is sent next. Ends when the prober's windows end.
#[derive(Debug)]
pub struct Uplink<P> {
    prober: P,
    reflector: Option<Arc<Reflector>>,
    admission: Admission,
    union: Union,
    admitted: Option<Admitted>,
    /// Aggregators whose newest mesh is not applied yet.
    unapplied: BTreeSet<usize>,
    applied_at: Option<Instant>,
    /// By number: that of a plan of this life is [`CURRENT`] and the version of the plan.
    tables: BTreeMap<u64, Table>,
    next_table: u32,
    /// The newest plan that a window has closed under. Windows of older ones do not come any more.
    seen_plan: u32,
    identity: Arc<Identity>,
    /// Earlier boot epochs of which something waits, for the next hello.
    backlog: watch::Sender<Vec<u64>>,
    spool: Spool,
    disk: Option<Disk>,
    /// What the disk failed with when it was last told of.
    trouble: Option<String>,
    began: Instant,
    results: Results,
    errands: Errands,
    /// How many orders are answered.
    orders: Limiter,
    aggregators: Vec<Connection>,
    events: mpsc::Receiver<(usize, Event)>,
    sessions: JoinSet<()>,
    stopping: watch::Sender<bool>,
    counters_before: Counters,
    figures: Arc<UplinkFigures>,
}

impl<P: Probing> Uplink<P> {
    /// Starts a session for each aggregator.
    #[must_use]
    pub fn start(setup: Setup<P>) -> Self {
        let Setup {
            config,
            boot_epoch,
            credentials,
            prober,
            reflector,
            checker,
            errands,
            disk,
        } = setup;
        let identity = Arc::new(Identity {
            agent: config.agent,
            region: config.region,
            boot_epoch,
            addresses: config.addresses,
            answer_port: config.answer_port,
            stamp_port: reflector.as_ref().map_or(0, |reflector| reflector.port()),
        });
        let (to_us, events) = mpsc::channel(EVENTS_MAX);
        let (stopping, stop) = watch::channel(false);
        let (disk, old) = disk.unzip();
        let limits = spool::Limits {
            aggregators: config.aggregators.iter().map(ToString::to_string).collect(),
            policy: config.uplink.forget_when,
            memory_bytes: config.uplink.waiting_bytes,
            age: config.spool.max_age,
            disk: disk.as_ref().map(|_| config.spool.limits),
        };
        let spool = Spool::new(boot_epoch, limits, old.unwrap_or_default());
        let (backlog, epochs) = watch::channel(spool.epochs());
        let mut sessions = JoinSet::new();
        let mut figures = UplinkFigures::default();
        for (index, aggregator) in config.aggregators.iter().enumerate() {
            let of_this = Arc::new(AggregatorFigures::default());
            let session = Session {
                index,
                aggregator: aggregator.clone(),
                identity: identity.clone(),
                backlog: epochs.clone(),
                uplink: config.uplink,
                credentials: credentials.clone(),
                stopping: stop.clone(),
                events: to_us.clone(),
                figures: of_this.clone(),
            };
            sessions.spawn(session.run());
            figures.aggregators.push(AggregatorFiguresOf {
                aggregator: aggregator.to_string(),
                figures: of_this,
            });
        }
        Self {
            counters_before: prober.counters(),
            prober,
            reflector,
            admission: config.admission,
            union: Union::default(),
            admitted: None,
            unapplied: BTreeSet::new(),
            applied_at: None,
            tables: BTreeMap::new(),
            next_table: 1,
            seen_plan: 0,
            identity,
            backlog,
            spool,
            disk,
            trouble: None,
            began: Instant::now(),
            results: Results::new(checker, config.checks.allowed),
            errands,
            orders: Limiter::new(orders::ORDERS_PER_SECOND),
            aggregators: config
                .aggregators
                .into_iter()
                .map(|name| Connection { name, live: None })
                .collect(),
            events,
            sessions,
            stopping,
            figures: Arc::new(figures),
        }
    }

    /// What is counted.
    #[must_use]
    pub fn figures(&self) -> Arc<UplinkFigures> {
        self.figures.clone()
    }

    /// Works until the windows end, then sends what can be sent within `flush` and ends the connections.
    pub async fn run(
        mut self,
        mut windows: mpsc::Receiver<ClosedWindow>,
        mut orders: mpsc::Receiver<Order>,
        flush: Duration,
    ) {
        let mut status = tokio::time::interval(STATUS_EVERY);
        status.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut tend = tokio::time::interval(TEND_EVERY);
        tend.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let (meshes_due, unapplied) = (self.meshes_due(), !self.unapplied.is_empty());
            let results_due = self.results.send_at();
            tokio::select! {
                // Fresh windows before everything else: the graph waits for them.
                biased;
                window = windows.recv() => match window {
                    Some(window) => self.on_window(window),
                    None => break,
                },
                Some((index, event)) = self.events.recv() => self.on_event(index, event),
                Some(Order::Admit(admission, allowed)) = orders.recv() => self.on_admission(admission, allowed),
                _ = status.tick() => self.on_tick(),
                answer = line::answer(&mut self.disk) => self.on_disk(answer),
                _ = tend.tick() => self.tend(),
                () = sleep_until(meshes_due), if unapplied => self.apply_meshes(),
                done = self.results.next() => self.on_checked(done),
                Some(finding) = self.errands.found.recv() => self.on_finding(finding),
                () = sleep_until(results_due.unwrap_or(meshes_due)), if results_due.is_some() => self.send_results(),
            }
        }
        self.finish(Instant::now() + flush).await;
    }

    /// Sends the rest until the deadline, then lets the sessions say goodbye.
    async fn finish(mut self, deadline: Instant) {
        let all_sent = |this: &Self| {
            this.aggregators
                .iter()
                .filter_map(|aggregator| aggregator.live.as_ref())
                .all(|live| live.delivery.is_done())
        };
        while !all_sent(&self) {
            match timeout_at(deadline, self.events.recv()).await {
                Ok(Some((index, event))) => self.on_event(index, event),
                _ => break,
            }
        }
        self.write_rest().await;
        self.stopping.send_replace(true);
        for aggregator in &mut self.aggregators {
            aggregator.live = None;
        }
        // The sessions' last events have no reader any more, and need none.
        self.events.close();
        let goodbye = async { while self.sessions.join_next().await.is_some() {} };
        let deadline = deadline.max(Instant::now()) + Duration::from_millis(500);
        let _ = timeout_at(deadline, goodbye).await;
    }

    fn on_window(&mut self, closed: ClosedWindow) {
        let ClosedWindow {
            plan_version,
            window,
            until,
            health,
            flows,
            rows,
        } = closed;
        let seen = u32::try_from(plan_version).unwrap_or(u32::MAX);
        self.seen_plan = self.seen_plan.max(seen.min(self.next_table - 1));
        if rows.is_empty() {
            return;
        }
        let table = self.tables.get(&(CURRENT + u64::from(seen)));
        let flows = table
            .zip(flows)
            .map(|(table, span)| FlowTable::new(Arc::clone(&table.paths), span));
        let Some((of, schema)) = table.and_then(|table| Some((table.of.clone(), table.schema?)))
        else {
            self.figures.windows_unsent.fetch_add(1, Relaxed);
            error!(plan_version, "a window of a plan that is long gone");
            return;
        };
        let batch = Batch {
            agent: self.identity.agent.clone(),
            boot_epoch: self.identity.boot_epoch,
            sequence: 0,
            table: of.table.number,
            window,
            until,
            health,
            schema,
            rows,
        };
        self.push(&of, batch);
        if let Some(flows) = flows {
            self.on_flows(flows);
        }
        self.publish();
    }

    fn on_event(&mut self, index: usize, event: Event) {
        match event {
            Event::Connected { commands, welcome } => self.on_connected(index, commands, &welcome),
            Event::Order(order) => self.on_order(&order),
            Event::Disconnected => self.aggregators[index].live = None,
            Event::Mesh(mesh) => self.on_mesh(index, mesh),
            Event::TableDurable(durable) => self.on_table_durable(index, durable),
            Event::Durable(durable) => self.on_durable(index, durable),
        }
        self.forget_tables();
        self.publish();
    }

    fn on_mesh(&mut self, index: usize, mesh: v1::Mesh) {
        if let Err(error) = self.union.accept(index, mesh) {
            // The session has checked it already.
            error!(%error, "a mesh was not accepted");
            return;
        }
        self.unapplied.insert(index);
        if self.meshes_due() <= Instant::now() {
            self.apply_meshes();
        }
    }

    fn on_checked(&mut self, done: Done) {
        self.figures.on_checked(done.outcome);
        self.results.on_done(done);
    }

    fn send_results(&mut self) {
        let unsent = self.results.take_unsent();
        for index in 0..self.aggregators.len() {
            self.tell_results(index, Some(&unsent));
        }
    }

    /// Tells an aggregator what came of the checks that it asked for.
    fn tell_results(&mut self, index: usize, of: Option<&BTreeSet<checks::Key>>) {
        let mesh = self.union.mesh_of(index);
        if let Some(message) = mesh.and_then(|mesh| self.results.message(mesh, of)) {
            self.with_live(index, |live| live.control(message));
        }
    }

    fn on_admission(&mut self, admission: Admission, allowed: Allowed) {
        self.admission = admission;
        self.results.allow(allowed);
        self.unapplied.extend(0..self.aggregators.len());
        self.apply_meshes();
    }

    /// When meshes may be applied again.
    fn meshes_due(&self) -> Instant {
        self.applied_at
            .map_or_else(Instant::now, |at| at + MESHES_EVERY)
    }

    /// Turns the joined meshes into a plan if they ask for anything new, and answers those that are new.
    fn apply_meshes(&mut self) {
        self.applied_at = Some(Instant::now());
        let told = self.union.told();
        self.errands.told.send_if_modified(|own| {
            let is_new = *own != told;
            *own = told;
            is_new
        });
        let supports = |kind, address: &IpAddr| self.prober.supports(kind, address);
        let Some(admitted) = self.union.admit(&self.admission, supports) else {
            return;
        };
        if let Some(reflector) = &self.reflector {
            reflector.set_peers(self.union.addresses());
        }
        let before = self.admitted.as_ref();
        log_refusals(before.map(|before| &before.refused), &admitted.refused);
        let changed = before.is_none_or(|before| {
            (before.rhythm, &before.paths) != (admitted.rhythm, &admitted.paths)
        });
        if changed {
            self.set_plan(&admitted);
        }
        let checks = self.results.plan(&self.union, self.aggregators.len());
        self.figures.checks.store(checks as u64, Relaxed);
        let refused = admitted.refused.len() as u64;
        self.figures.targets_refused.store(refused, Relaxed);
        for index in std::mem::take(&mut self.unapplied) {
            let Some(mesh) = self.union.mesh_of(index) else {
                continue;
            };
            let answer = v1::FromAgent::MeshApplied(admitted.answer_to(mesh));
            let answer = frame::frame_from_agent(&answer);
            self.with_live(index, |live| live.control(answer));
            self.tell_results(index, None);
        }
        self.admitted = Some(admitted);
    }

    fn set_plan(&mut self, admitted: &Admitted) {
        let number = self.next_table;
        let rhythm = admitted.rhythm;
        let plan = rhythm.plan(u64::from(number), admitted.paths.clone());
        if let Err(error) = self.prober.set_plan(plan) {
            error!(%error, "the plan cannot be carried out; the one before stays");
            return;
        }
        self.next_table += 1;
        if let Some(surveyor) = &self.errands.surveyor {
            surveyor.set_links(surveyor::links(&admitted.paths));
        }
        info!(plan = number, paths = admitted.paths.len(), interval = ?rhythm.interval, window = ?rhythm.window, "plan set");
        let paths = admitted
            .paths
            .iter()
            .map(|PlannedPath { path, .. }| path.clone())
            .collect();
        let message = v1::FromAgent::Paths(v1::Paths {
            table: number,
            boot_epoch: None,
            paths,
        });
        let of = TableOf {
            number: CURRENT + u64::from(number),
            table: Arc::new(spool::record::Table {
                boot_epoch: self.identity.boot_epoch,
                number,
                frame: frame::frame_from_agent(&message),
            }),
        };
        let table = Table {
            schema: Some(rhythm.schema),
            paths: admitted.paths.clone().into(),
            of,
        };
        self.figures
            .paths
            .store(admitted.paths.len() as u64, Relaxed);
        self.tables.insert(table.of.number, table);
        for index in 0..self.aggregators.len() {
            self.with_live(index, |_| Ok(()));
        }
    }

    fn forget_tables(&mut self) {
        let seen = CURRENT + u64::from(self.seen_plan);
        let Self {
            aggregators,
            tables,
            spool,
            ..
        } = self;
        let before = tables.len();
        tables.retain(|&number, _| number >= seen || spool.refers_to(number));
        if tables.len() == before {
            return;
        }
        for live in aggregators
            .iter_mut()
            .filter_map(|aggregator| aggregator.live.as_mut())
        {
            live.delivery
                .retain_tables(|number| tables.contains_key(&number));
        }
    }

    fn on_tick(&mut self) {
        let status = self.status();
        let status = frame::frame_from_agent(&v1::FromAgent::Status(status));
        for index in 0..self.aggregators.len() {
            let stuck = self.aggregators[index]
                .live
                .as_ref()
                .is_some_and(Live::is_stuck);
            match stuck {
                true => self.give_up(index),
                false => self.with_live(index, |live| live.control(status.clone())),
            }
        }
        self.publish();
    }

    fn status(&mut self) -> v1::AgentStatus {
        let counters = self.prober.counters();
        let lateness = counters.lateness.since(&self.counters_before.lateness);
        self.counters_before = counters;
        let usage = Usage::read();
        let counts = self.spool.counts();
        v1::AgentStatus {
            scheduled: counters.scheduled,
            sent: counters.sent,
            not_sent: counters.of(Class::NotSent),
            local_drop: counters.of(Class::LocalDrop),
            send_lateness_p99_us: lateness.quantile(0.99),
            strays: counters.strays_total(),
            batches_waiting: self.spool.len() as u64,
            batches_dropped: counts.dropped,
            batches_refused: counts.refused,
            batches_coarsened: counts.coarsened,
            batches_on_disk: self.spool.on_disk().0,
            spool_damaged: counts.damaged,
            spool_trouble: self.spool.trouble().unwrap_or_default().to_owned(),
            resident_bytes: usage.resident_bytes,
            cpu_us: u64::try_from(usage.cpu.as_micros()).unwrap_or(u64::MAX),
            stamps: format!("{}{}", stamps(&counters), self.prober.modes()),
        }
    }

    fn publish(&self) {
        self.figures.waiting.store(self.spool.len() as u64, Relaxed);
        self.figures
            .waiting_bytes
            .store(self.spool.held_bytes() as u64, Relaxed);
        self.figures.spool.publish(&self.spool);
    }

    /// Does something with the connection of an aggregator if it lives and sends what may then be sent. Gives it up
    /// when its queue is full.
    fn with_live(&mut self, index: usize, act: impl FnOnce(&mut Live) -> Result<(), QueueFull>) {
        let Some(live) = &mut self.aggregators[index].live else {
            return;
        };
        if act(live)
            .and_then(|()| live.pump(index, &self.tables, &mut self.spool))
            .is_err()
        {
            self.give_up(index);
        }
    }

    /// Ends a connection that takes nothing any more; its session makes a new one.
    fn give_up(&mut self, index: usize) {
        let aggregator = &mut self.aggregators[index];
        warn!(aggregator = %aggregator.name, "the aggregator takes nothing any more; the connection is made anew");
        aggregator.live = None;
    }
}

/// Refusals are told when they are new.
fn log_refusals(before: Option<&BTreeMap<TargetId, String>>, now: &BTreeMap<TargetId, String>) {
    for (target, reason) in now {
        if before.and_then(|before| before.get(target)) != Some(reason) {
            warn!(%target, reason, "target refused");
        }
    }
}

/// Where most of the time stamps came from, to be followed by how probes leave.
fn stamps(counters: &Counters) -> String {
    let most = StampSource::ALL
        .iter()
        .zip(counters.stamps)
        .max_by_key(|&(_, count)| count);
    match most {
        Some((source, count)) if count > 0 => format!("{}; ", source.as_str()),
        _ => String::new(),
    }
}
