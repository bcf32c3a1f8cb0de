//! What an agent and the aggregator tell each other once the hello is done.
//!
//! Three loops share one connection and the first that ends, ends the session:
//!
//! ```text
//!   control in     path tables ─▶ turn;  status, applied mesh ─▶ roster
//!   batches in     one task per stream: header, room, payload, checks ─▶ turn; findings come in the same way
//!   control out    ◀─ durable batches and tables, a new mesh, an order, a refusal
//! ```
//!
//! What a session may have in flight is bounded by [`IN_FLIGHT_BYTES`] and [`DECODED_BYTES`]; beyond that, and while the turn's
//! channel is full, it stops reading and QUIC's flow control reaches the agent.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use leeward_common::{
    id::AgentId,
    report::Path,
    time::Timestamp,
    wire::{
        batch,
        frame::{self, Header},
        v1::{self, FromAgent, FromAggregator, RefuseCode},
    },
};
use leeward_engine::input::{CheckResult, CheckResults, Reports};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::{self, JoinSet},
    time::timeout,
};
use tracing::{debug, error, warn};

use super::{
    Ingest,
    control::{ControlOut, Ending, STREAM_TIMEOUT},
    credit,
    frames::{self, NoFrame},
    identity::Identity,
    limits::{self, Pace},
    line::{Incoming, Line},
    refusal::Refusal,
    roster::{Change, Seat},
    tables::{Found, Tables},
};
use crate::{
    metrics,
    recover::{self, resolve},
    store::key::Epoch,
    turn::{Arrival, NewBatch, NewPaths, Outcome, Settle, Settled, TurnError},
};

/// Bytes of batches that one agent may have received and not yet acknowledged: what it sends in minutes.
const IN_FLIGHT_BYTES: usize = 4 << 20;

/// The least that a batch counts for, so that no more than 64 are in flight.
const IN_FLIGHT_LEAST_BYTES: usize = 64 << 10;

/// Batches in flight at most; places in the channel of their answers.
const IN_FLIGHT_BATCHES: usize = IN_FLIGHT_BYTES / IN_FLIGHT_LEAST_BYTES;

/// What these bytes may become in memory: batches of one agent that are read and not taken by the turn yet.
const DECODED_BYTES: usize = 32 << 20;

/// Path tables that wait to be acknowledged; more than an agent has under way. The reader waits while it is full.
const TABLE_ANSWERS: usize = 16;

/// How old and how far in the future a window may be, and a finding.
const WINDOW_PAST: Duration = Duration::from_secs(24 * 3600);
const WINDOW_FUTURE: Duration = Duration::from_secs(5);

/// What the tasks of a session share.
pub(super) struct Conversation {
    pub(super) ingest: Ingest,
    connection: Line,
    pub(super) identity: Identity,
    epoch: Epoch,
    version: u16,
    tables: Mutex<Tables>,
    in_flight: Arc<Semaphore>,
    decoded: Arc<Semaphore>,
    /// One batch after the other becomes what is counted only then.
    decoding: tokio::sync::Mutex<()>,
    pace: Pace,
    pub(super) settled: mpsc::Sender<Settled>,
}

/// What a conversation begins with.
pub(super) struct Parts<'a> {
    pub(super) ingest: &'a Ingest,
    pub(super) connection: &'a Line,
    pub(super) identity: &'a Identity,
    pub(super) epoch: Epoch,
    /// The version of the control messages that both sides speak.
    pub(super) version: u16,
    /// Which boot epochs batches may be of.
    pub(super) tables: Tables,
    /// How fast the agent may send.
    pub(super) pace: Pace,
}

impl Conversation {
    /// Converses until one side ends it.
    pub(super) async fn run(
        parts: Parts<'_>,
        control: &mut ControlOut,
        seat: Seat,
        receive: Incoming,
    ) -> Ending {
        let Parts {
            ingest,
            connection,
            identity,
            epoch,
            version,
            tables,
            pace,
        } = parts;
        let (settled, answers) = mpsc::channel(IN_FLIGHT_BATCHES);
        let (durable_tables, table_answers) = mpsc::channel(TABLE_ANSWERS);
        let this = Arc::new(Self {
            ingest: ingest.clone(),
            connection: connection.clone(),
            identity: identity.clone(),
            epoch,
            version,
            tables: Mutex::new(tables),
            in_flight: Arc::new(Semaphore::new(IN_FLIGHT_BYTES)),
            decoded: Arc::new(Semaphore::new(DECODED_BYTES)),
            decoding: tokio::sync::Mutex::new(()),
            pace,
            settled,
        });
        tokio::select! {
            // What we refuse says more than the end of a connection that follows from it.
            biased;
            ending = this.read_control(receive, durable_tables) => ending,
            ending = Arc::clone(&this).read_batches() => ending,
            ending = this.write_control(control, seat, answers, table_answers) => ending,
            () = limits::denied(ingest.gate.limits(), &identity.agent) => denied(&identity.agent).into(),
            () = connection.closed() => Ending::Gone,
        }
    }

    async fn read_control(
        &self,
        mut receive: Incoming,
        durable: mpsc::Sender<v1::PathsDurable>,
    ) -> Ending {
        loop {
            self.pace.ready().await;
            match self.read_one_control(&mut receive, &durable).await {
                Ok(bytes) => self.count(1 + limits::further_messages(bytes, 0)),
                Err(ending) => return ending,
            }
        }
    }

    /// Counts what came, and whether the agent has to wait for it.
    fn count(&self, messages: u32) {
        let now = tokio::time::Instant::now();
        self.pace.take(now, messages);
        if !self.pace.wait(now).is_zero() {
            let held_back = &self.ingest.metrics.ingest.held_back;
            held_back.get_or_create(&self.label()).inc();
        }
    }

    /// How many bytes it had.
    async fn read_one_control(
        &self,
        receive: &mut Incoming,
        durable: &mpsc::Sender<v1::PathsDurable>,
    ) -> Result<usize, Ending> {
        let header = frames::header(receive).await?;
        let payload = frames::payload(receive, &header).await?;
        let agent = self.identity.agent.clone();
        match frame::parse_from_agent(&header, &payload).map_err(Refusal::from)? {
            FromAgent::Hello(_) => {
                return Err(Refusal::malformed("a second hello on one connection").into());
            }
            FromAgent::Paths(paths) => {
                let answer = v1::PathsDurable {
                    table: paths.table,
                    boot_epoch: paths.boot_epoch,
                };
                self.announce(paths).await?;
                // The writer ends only with the session.
                let _ = durable.send(answer).await;
            }
            FromAgent::MeshApplied(applied) => {
                for refused in applied.refused.iter().take(3) {
                    warn!(%agent, target = %refused.target, reason = refused.reason, "the agent refuses a target");
                }
                self.ingest
                    .roster
                    .send(Change::MeshApplied { agent, applied })
                    .await;
            }
            FromAgent::CheckResults(results) => {
                let results = self.check_results(results);
                self.ingest.metrics.checks(&results);
                self.ingest.metrics.turn.arrivals_in.inc();
                let arrival = Arrival::CheckResults(results);
                self.ingest
                    .turn
                    .send(arrival)
                    .await
                    .map_err(Ending::from_turn)?;
            }
            FromAgent::Status(status) => {
                self.ingest
                    .roster
                    .send(Change::Status { agent, status })
                    .await;
            }
        }
        Ok(payload.len())
    }

    /// Results as the engine reads them, of the agent and region that the certificate names.
    fn check_results(&self, message: v1::CheckResults) -> CheckResults {
        let result = |own: v1::CheckResult| CheckResult {
            service: own.service,
            check: own.check,
            region: own.region,
            question: own.question,
            outcome: own.outcome,
            latency_us: own.latency_us,
            age: Duration::from_micros(own.age_us),
            detail: own.detail.replace(char::is_control, " "),
        };
        CheckResults {
            agent: self.identity.agent.clone(),
            region: self.identity.region.clone(),
            results: message.results.into_iter().map(result).collect(),
        }
    }

    /// Makes a path table durable, and known to the batches that refer to it.
    async fn announce(&self, announced: v1::Paths) -> Result<(), Ending> {
        let v1::Paths {
            table,
            boot_epoch,
            paths,
        } = announced;
        let epoch = self.epoch_of(boot_epoch.unwrap_or(self.epoch.boot))?;
        let paths: Arc<[Path]> = paths.into();
        let name = (epoch.boot, table);
        match self.table(&epoch, table).await? {
            Some(known) if known == paths => {
                self.tables().announced(name, &paths, &[]);
                return Ok(());
            }
            Some(_) => {
                let reason = format!(
                    "path table {table} was announced before with other rows; use a new number"
                );
                return Err(Refusal::malformed(reason).into());
            }
            None => {}
        }
        let forget = self.tables().in_the_way(name, paths.len());
        let gone = forget.clone();
        let rows = Arc::clone(&paths);
        self.ingest.metrics.turn.arrivals_in.inc();
        self.ingest
            .turn
            .ask(|done| {
                Arrival::Paths(NewPaths {
                    epoch,
                    table,
                    paths,
                    forget,
                    done,
                })
            })
            .await
            .map_err(Ending::from_turn)?;
        self.tables().announced(name, &rows, &gone);
        self.ingest
            .metrics
            .ingest
            .tables
            .get_or_create(&self.label())
            .inc();
        Ok(())
    }

    /// What is durable of this number; `None` if that is nothing any more or yet.
    async fn table(&self, epoch: &Epoch, number: u32) -> Result<Option<Arc<[Path]>>, Ending> {
        let name = (epoch.boot, number);
        // The lock is not held while the store is read.
        let found = self.tables().find(name);
        match found {
            Found::Rows(rows) => return Ok(Some(rows)),
            Found::Forgotten => return Ok(None),
            Found::Elsewhere => {}
        }
        let (store, epoch) = (Arc::clone(&self.ingest.store), epoch.clone());
        let read = task::spawn_blocking(move || recover::table(&*store, &epoch, number)).await;
        let read = read.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        let read = read.map_err(|error| {
            error!(agent = %self.identity.agent, error = &error as &dyn std::error::Error, "cannot read a path table");
            Ending::from_turn(TurnError::StoreFailed)
        })?;
        if let Some(rows) = &read {
            self.tables().hold(name, rows);
        }
        Ok(read)
    }

    /// Whoever panicked with the lock held ended the session.
    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read_batches(self: Arc<Self>) -> Ending {
        let mut streams = JoinSet::new();
        loop {
            let next = async {
                self.pace.ready().await;
                self.connection.accept_message().await
            };
            tokio::select! {
                accepted = next => match accepted {
                    Some(stream) => {
                        self.count(1);
                        streams.spawn(Arc::clone(&self).read_batch(stream));
                    }
                    None => return Ending::Gone,
                },
                Some(read) = streams.join_next() => match read {
                    Ok(Ok((bytes, decoded))) => self.count(limits::further_messages(bytes, decoded)),
                    Ok(Err(ending)) => return ending,
                    Err(error) => std::panic::resume_unwind(error.into_panic()),
                },
            }
        }
    }

    /// How many bytes it had, and how many it became.
    async fn read_batch(self: Arc<Self>, mut stream: Incoming) -> Result<(usize, usize), Ending> {
        match self.read_batch_bytes(&mut stream).await {
            Ok((header, bytes, permit)) => {
                let length = bytes.len();
                let decoded = match header.message_type {
                    frame::number::FINDINGS => {
                        self.take_findings(&header, bytes, permit).await?;
                        0
                    }
                    _ => self.take_batch(&header, bytes, permit).await?,
                };
                Ok((length, decoded))
            }
            // The agent thought better of it and reset the stream, or the connection is gone.
            Err(NoFrame::Ended) => Ok((0, 0)),
            Err(NoFrame::Refused(refusal)) => Err(refusal.into()),
        }
    }

    async fn read_batch_bytes(
        &self,
        stream: &mut Incoming,
    ) -> Result<(Header, Vec<u8>, OwnedSemaphorePermit), NoFrame> {
        let header = in_time(frames::header(stream)).await?;
        if !matches!(
            header.message_type,
            frame::number::BATCH | frame::number::FINDINGS
        ) {
            let reason = format!(
                "message type {} does not belong on a batch's stream",
                header.message_type
            );
            return Err(Refusal::malformed(reason).into());
        }
        let cost = header.length.max(IN_FLIGHT_LEAST_BYTES) as u32;
        let permit = Arc::clone(&self.in_flight).acquire_many_owned(cost).await;
        let permit = permit.expect("nobody closes this semaphore");
        // Waiting for us is not the agent's time.
        let bytes = in_time(async {
            let bytes = frames::payload(stream, &header).await?;
            frames::end(stream).await?;
            Ok(bytes)
        });
        Ok((header, bytes.await?, permit))
    }

    /// Checks a batch and hands it to the turn; how many bytes it became.
    async fn take_batch(
        &self,
        header: &Header,
        bytes: Vec<u8>,
        permit: OwnedSemaphorePermit,
    ) -> Result<usize, Ending> {
        let received = Instant::now();
        frame::parse_batch(header, &bytes).map_err(Refusal::from)?;
        let unread = batch::open(&bytes).map_err(Refusal::from)?;
        let key = unread.head().key.clone();
        let epoch = self.check_owner("batch", &key.agent, key.boot_epoch)?;
        let settle = Settle {
            session: self.settled.clone(),
            boot_epoch: epoch.boot,
            permit,
        };
        // What can never count is settled: sent again it would be no better, and hold up what comes after it.
        let refuse = |settle: Settle, reason: String| {
            warn!(agent = %key.agent, sequence = key.sequence, reason, "batch refused");
            settle.with(key.sequence, Outcome::Refused(reason));
            Ok(bytes.len())
        };
        if let Err(reason) =
            self.check_time("its window begins", key.window.start, key.window.end())
        {
            return refuse(settle, reason);
        }
        let Some(table) = self.table(&epoch, key.table).await? else {
            if self.tables().find((epoch.boot, key.table)) == Found::Forgotten {
                let reason = format!("path table {} made room for newer ones", key.table);
                return refuse(settle, reason);
            }
            let reason = format!(
                "batch {} refers to path table {}, which is not durable",
                key.sequence, key.table
            );
            return Err(Refusal::malformed(reason).into());
        };
        let region = self.identity.region.clone();
        let decoding = self.decoding.lock().await;
        let reports = match resolve(unread, region.clone(), &table) {
            Ok(reports) => reports,
            Err(error) => return refuse(settle, error.to_string()),
        };
        let decoded = decoded_bytes(&reports);
        let room = decoded.min(DECODED_BYTES) as u32;
        let room = Arc::clone(&self.decoded).acquire_many_owned(room).await;
        let room = Some(room.expect("nobody closes this semaphore"));
        drop(decoding);
        let label = self.label();
        self.ingest
            .metrics
            .ingest
            .batch_bytes
            .get_or_create(&label)
            .inc_by(bytes.len() as u64);
        self.ingest
            .metrics
            .ingest
            .windows
            .get_or_create(&label)
            .inc_by(reports.rows.len() as u64);
        self.ingest.metrics.turn.arrivals_in.inc();
        let sequence = key.sequence;
        let batch = NewBatch {
            epoch,
            sequence,
            region,
            bytes,
            reports,
            received,
            room,
            settle,
        };
        let arrival = Arrival::Batch(Box::new(batch));
        let sent = self.ingest.turn.send(arrival).await;
        sent.map(|()| decoded).map_err(Ending::from_turn)
    }

    /// An agent may report for itself only, and for those starts of its process that its hello names.
    pub(super) fn check_owner(
        &self,
        what: &str,
        whose: &AgentId,
        boot_epoch: u64,
    ) -> Result<Epoch, Refusal> {
        let Epoch { agent, .. } = &self.epoch;
        if whose != agent {
            let reason = format!(
                "the certificate is that of agent {agent}, the {what} is one of agent {whose}"
            );
            return Err(Refusal::identity(reason));
        }
        self.epoch_of(boot_epoch)
    }

    fn epoch_of(&self, boot: u64) -> Result<Epoch, Refusal> {
        let Epoch { agent, boot: own } = &self.epoch;
        if boot != *own && !self.tables().has_epoch(boot) {
            let reason =
                format!("the hello says boot epoch {own}, and nothing of {boot} that comes now");
            return Err(Refusal::malformed(reason));
        }
        Ok(Epoch {
            agent: agent.clone(),
            boot,
        })
    }

    /// Whether what an agent dates from `start` to `end` may count.
    pub(super) fn check_time(
        &self,
        what: &str,
        start: Timestamp,
        end: Timestamp,
    ) -> Result<(), String> {
        let now = self.ingest.clock.now();
        if end > now + WINDOW_FUTURE {
            return Err(format!(
                "{what} at {start}, which is in the future; set the agent's clock"
            ));
        }
        if start < now - WINDOW_PAST {
            return Err(format!("{what} at {start}, which is more than a day ago"));
        }
        Ok(())
    }

    async fn write_control(
        &self,
        control: &mut ControlOut,
        mut seat: Seat,
        mut answers: mpsc::Receiver<Settled>,
        mut tables: mpsc::Receiver<v1::PathsDurable>,
    ) -> Ending {
        // The mesh that is known already counts as a change.
        seat.mesh.mark_changed();
        loop {
            let written = tokio::select! {
                _ = &mut seat.superseded => {
                    let reason = "a newer connection of this agent took over";
                    return Refusal::new(RefuseCode::Superseded, reason).into();
                }
                Some(first) = answers.recv() => self.acknowledge(control, first, &mut answers).await,
                Some(table) = tables.recv() => control.write(&FromAggregator::PathsDurable(table)).await,
                Some(order) = seat.orders.recv() => control.write(&FromAggregator::Order(order)).await,
                Ok(()) = seat.mesh.changed() => {
                    let mesh = seat.mesh.borrow_and_update().clone();
                    match mesh {
                        Some(mesh) => {
                            debug!(agent = %self.identity.agent, version = mesh.version, "mesh sent");
                            self.ingest.metrics.ingest.meshes.inc();
                            control.write(&FromAggregator::Mesh(v1::Mesh::clone(&mesh))).await
                        }
                        None => Ok(()),
                    }
                }
            };
            if let Err(ending) = written {
                return ending;
            }
        }
    }

    /// Acknowledges everything that is settled by now in one message.
    async fn acknowledge(
        &self,
        control: &mut ControlOut,
        first: Settled,
        answers: &mut mpsc::Receiver<Settled>,
    ) -> Result<(), Ending> {
        let mut settled = vec![first];
        while let Ok(next) = answers.try_recv() {
            settled.push(next);
        }
        let mut answers: BTreeMap<u64, v1::Durable> = BTreeMap::new();
        let mut not_stored = false;
        for Settled {
            boot_epoch,
            sequence,
            outcome,
            permit: _,
        } in settled
        {
            self.ingest
                .metrics
                .batch(&self.identity.agent, outcome_word(&outcome));
            let answer = answers.entry(boot_epoch).or_default();
            match outcome {
                Outcome::Durable | Outcome::Repeated => answer.sequences.push(sequence),
                Outcome::Refused(reason) => {
                    // An agent of version 1 passes over the second list, and forgets them by the first.
                    answer.sequences.push(sequence);
                    answer.refused.push(sequence);
                    answer.reason = reason;
                }
                Outcome::NotStored => not_stored = true,
            }
        }
        for (boot_epoch, mut answer) in answers {
            if answer.sequences.is_empty() {
                continue;
            }
            answer.boot_epoch = (boot_epoch != self.epoch.boot).then_some(boot_epoch);
            if self.version >= v1::VERSION_BACKLOG {
                answer.credit = Some(credit::of(&self.ingest.turn));
            }
            control.write(&FromAggregator::Durable(answer)).await?;
        }
        if not_stored {
            return Err(Ending::from_turn(TurnError::StoreFailed));
        }
        Ok(())
    }

    fn label(&self) -> metrics::Agent {
        metrics::Agent {
            agent: self.identity.agent.to_string(),
        }
    }
}

/// What an agent sends, unless it takes too long.
async fn in_time<T>(reading: impl Future<Output = Result<T, NoFrame>>) -> Result<T, NoFrame> {
    timeout(STREAM_TIMEOUT, reading).await.unwrap_or_else(|_| {
        let reason = format!(
            "a batch did not arrive within {} s",
            STREAM_TIMEOUT.as_secs()
        );
        Err(Refusal::new(RefuseCode::Limit, reason).into())
    })
}

/// What reports take in memory.
fn decoded_bytes(reports: &Reports) -> usize {
    let buckets = reports.rows.iter();
    let buckets = buckets.map(|(_, report)| size_of_val(report.rtt.histogram.buckets()));
    size_of_val(reports.rows.as_slice()) + buckets.sum::<usize>()
}

/// What an agent on the deny-list is told.
pub(super) fn denied(agent: &AgentId) -> Refusal {
    let reason = format!("agent {agent} is on this aggregator's deny-list (limits.denied)");
    Refusal::new(RefuseCode::Denied, reason)
}

const fn outcome_word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Durable => "durable",
        Outcome::Repeated => "repeated",
        Outcome::Refused(_) => "refused",
        Outcome::NotStored => "not_stored",
    }
}
