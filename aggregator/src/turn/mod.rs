//! One turn: take what arrived, journal it, step the engine, store what it decided, publish, answer.
//!
//! One thread owns the engine and everything that must agree with it: the journal's end, the watermarks, who has a
//! session. The order within a turn is the promise of the whole pipeline:
//!
//! ```text
//!   wait ─▶ journal: one synced write ─▶ step ─▶ decisions: synced ─▶ publish ─▶ answer
//!             │ fails                                                            durable: forget it
//!             └──────────────▶ step nothing but time, publish, answer            not stored: keep it
//! ```
//!
//! So what is acknowledged is durable, what is in a picture is in the journal, and a crash between any two arrows
//! loses nothing: unanswered batches come again and the watermarks tell which of them were counted.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use leeward_common::{
    id::AgentId,
    time::{Clock, Timestamp},
};
use leeward_engine::{
    Engine,
    effect::Effect,
    input::{AgentConnected, Input},
    intent::{Ended, Intents},
};
use tokio::{
    runtime::Handle,
    sync::{mpsc, watch},
};
use tracing::info;

use crate::{
    config::{PolicyText, Retention},
    dedupe::Arrived,
    intent::{Asked, Conflict},
    mesh::Registration,
    metrics::Metrics,
    recover::Recovered,
    shadow::Setting,
    shared::{Published, Readiness, State},
    store::{
        self, Store, Writes,
        key::{Epoch, Position},
        record::v1,
    },
};

mod answer;
mod arrival;
mod audit;
mod clock;
mod revive;
mod shadow;
mod upkeep;

pub use arrival::{
    ARRIVALS, Arrival, Connected, Disconnected, Done, KnownEpochs, NewBatch, NewFindings, NewPaths,
    Noted, Outcome, Refusal, Settle, Settled, TurnError, TurnHandle,
};
pub use clock::TurnClock;

use answer::Answer;
pub(crate) use audit::EXPIRED;

use audit::Chain;

#[cfg(test)]
mod tests;

/// The most that one turn takes: what is left waits a few milliseconds for the next sync.
const TURN_ARRIVALS: usize = 1_024;

/// How long after a restart an agent may take to come back before it counts as disconnected.
const RECONNECT_GRACE: Duration = Duration::from_secs(10);

/// How often it is tried to revive a store that failed.
const REVIVE_EVERY: Duration = Duration::from_secs(1);

/// The number of a session of the process before: any real one takes over.
const SESSION_BEFORE_RESTART: u64 = 0;

/// Where a turn's results go.
#[derive(Clone, Debug)]
pub struct Outlets {
    /// The picture for readers.
    pub view: Arc<Published>,
    /// Whether the store takes writes.
    pub readiness: Arc<Readiness>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Completed turns, for the watchdog.
    pub progress: Arc<AtomicU64>,
}

/// The owner of the engine.
pub struct Turn {
    store: Box<dyn Store>,
    engine: Engine,
    clock: TurnClock,
    outlets: Outlets,
    policy: PolicyText,
    /// Where the journal ends; `None` while it is empty.
    end: Option<Position>,
    epochs: BTreeMap<Epoch, Seen>,
    /// Agents that the engine takes for connected.
    sessions: BTreeMap<AgentId, Session>,
    retention: Retention,
    anchored: Option<Timestamp>,
    snapshot: SnapshotState,
    started: Timestamp,
    /// What the store would not take and nobody will send again.
    owed: Vec<Disconnected>,
    /// Decisions that the store would not take.
    undurable: Vec<v1::Decided>,
    /// What came to its end and is not in the audit log yet.
    ended: Vec<Expired>,
    /// When it was last tried to revive the store, if it failed.
    failed: Option<Timestamp>,
    /// Where the audit log ends.
    audit: Chain,
    /// Refusals that were noted lately, and when.
    refusals: BTreeMap<Refusal, Timestamp>,
    /// The shadow policy, for its thread. The engine is never told.
    shadow: watch::Sender<Arc<Setting>>,
}

/// Which batches of a boot epoch arrived, and when the last one did.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Seen {
    /// The sequences.
    pub arrived: Arrived,
    /// By the turn's clock.
    pub at: Timestamp,
}

#[derive(Clone, Debug)]
struct Session {
    id: u64,
    registration: Registration,
}

#[derive(Debug, Default)]
struct SnapshotState {
    at: Timestamp,
    position: Option<Position>,
    /// The newest that is not kept with an anchor: the next one takes its place.
    passing: Option<Position>,
}

/// What one turn writes before anything comes into force.
#[derive(Debug, Default)]
struct Staged {
    writes: Writes,
    /// By index of the arrival: whether it is new and steps the engine, and when.
    fresh: Vec<(bool, Timestamp)>,
    /// The stamp of what comes next.
    now: Timestamp,
    epochs: BTreeMap<Epoch, Seen>,
    /// Sessions that begin (with their number) or end in this turn.
    sessions: BTreeMap<AgentId, Option<u64>>,
    end: Option<Position>,
    /// What is defined once this is in force; `None` while that is what the engine knows.
    intents: Option<Intents>,
    /// What became of each change, in their order.
    changes: VecDeque<Result<u64, Conflict>>,
    refusals: BTreeSet<Refusal>,
    /// The shadow policy from then on, if it is changed.
    shadow: Option<Arc<Setting>>,
    audit: Chain,
    /// The anchor that this turn begins with.
    anchor: Option<Position>,
}

impl Turn {
    /// A turn that goes on where the store ends. `configured` comes into force with the first turn if it differs from
    /// the policy that the journal ends with.
    #[must_use]
    pub fn new(
        store: Box<dyn Store>,
        recovered: Recovered,
        wall: Arc<dyn Clock>,
        retention: Retention,
        outlets: Outlets,
    ) -> Self {
        let Recovered {
            engine,
            policy,
            end,
            epochs,
            registrations,
            undurable,
            ended,
            snapshot,
            ..
        } = recovered;
        let floor = end
            .map_or(Timestamp::EPOCH, |end| end.time)
            .max(engine.view().now);
        let mut clock = TurnClock::new(wall, floor);
        let started = clock.now();
        let view = engine.view();
        let shadow = watch::Sender::new(Arc::new(Setting::of(&*store)));
        let audit = Chain::of(&*store);
        audit.tell(&outlets);
        let connected = |agent: &AgentId| {
            view.agents
                .get(agent)
                .is_some_and(|agent| agent.connected_since.is_some())
        };
        let sessions = registrations
            .into_iter()
            .filter(|(registration, _)| connected(&registration.agent))
            .map(|(registration, _)| {
                (
                    registration.agent.clone(),
                    Session {
                        id: SESSION_BEFORE_RESTART,
                        registration,
                    },
                )
            })
            .collect();
        Self {
            store,
            engine,
            clock,
            outlets,
            policy,
            end,
            epochs,
            sessions,
            retention,
            anchored: None,
            snapshot: SnapshotState {
                at: started,
                position: snapshot,
                passing: None,
            },
            started,
            owed: Vec::new(),
            undurable,
            ended,
            failed: None,
            audit,
            refusals: BTreeMap::new(),
            shadow,
        }
    }

    /// Takes turns until it is told to stop or every handle is dropped, then writes a last snapshot. Blocks its thread.
    pub fn run(mut self, runtime: &Handle, mut arrivals: mpsc::Receiver<Arrival>) {
        let mut taken = Vec::new();
        // An empty first turn: the view is complete before anybody connects.
        self.turn(Vec::new());
        while let Some(count) = self.wait(runtime, &mut arrivals, &mut taken) {
            self.outlets.metrics.turn.arrivals_out.inc_by(count as u64);
            let is_last = taken.iter().any(|arrival| matches!(arrival, Arrival::Stop));
            self.turn(std::mem::take(&mut taken));
            if is_last {
                break;
            }
        }
        self.write_snapshot();
        info!("the turn thread ends");
    }

    /// Waits for arrivals, but not beyond the next evaluation; `None` when nobody can send any more.
    fn wait(
        &mut self,
        runtime: &Handle,
        arrivals: &mut mpsc::Receiver<Arrival>,
        taken: &mut Vec<Arrival>,
    ) -> Option<usize> {
        let every = self.policy.policy.evaluate_every;
        let now = self.clock.now();
        let until = (now.floor(every) + every).since(now);
        let received = runtime.block_on(async {
            tokio::time::timeout(until, arrivals.recv_many(taken, TURN_ARRIVALS)).await
        });
        match received {
            Err(_) => Some(0),
            Ok(0) => None,
            Ok(count) => Some(count),
        }
    }

    /// One turn, from what arrived to the answers.
    fn turn(&mut self, mut arrivals: Vec<Arrival>) {
        let (began, now) = (Instant::now(), self.clock.now());
        arrival::put_in_order(&mut arrivals);
        arrivals.extend(self.owed.drain(..).map(Arrival::Disconnected));
        arrivals.extend(self.overdue_reconnects(now));
        let journaled = self
            .revive_store(now)
            .and_then(|()| self.journal(now, &arrivals));
        match journaled {
            Ok(staged) => self.settle(arrivals, staged),
            Err(error) => self.refuse(now, arrivals, &error),
        }
        self.outlets
            .metrics
            .turn
            .seconds
            .observe(began.elapsed().as_secs_f64());
        self.outlets.progress.fetch_add(1, Ordering::Release);
    }

    /// Journals what is new in one synced write. Changes nothing else.
    fn journal(
        &mut self,
        now: Timestamp,
        arrivals: &[Arrival],
    ) -> Result<Staged, store::StoreError> {
        let anchor = self.anchor_is_due(now).then(|| self.anchor(now));
        let mut staged = Staged {
            end: self.end,
            now,
            audit: self.audit.clone(),
            ..Staged::default()
        };
        if let Some(anchor) = anchor {
            staged.journal(&v1::Record::Anchor(anchor));
            staged.anchor = staged.end;
            if let Some(position) = staged.anchor {
                self.keep_snapshot(position, &mut staged.writes);
            }
            self.sweep(now, &mut staged.writes);
        }
        for arrival in arrivals {
            let fresh = self.stage(arrival, &mut staged);
            staged.fresh.push((fresh, staged.now));
        }
        for (epoch, seen) in &staged.epochs {
            staged.writes.watermark(epoch, &watermark(seen));
        }
        self.commit(&staged.writes)?;
        if let Some(position) = staged.anchor {
            self.on_anchored(now, position);
        }
        Ok(staged)
    }

    /// Notes one arrival for the journal; whether it is new.
    fn stage(&self, arrival: &Arrival, staged: &mut Staged) -> bool {
        match arrival {
            Arrival::Connected(Connected {
                session,
                registration,
                ..
            }) => {
                if self
                    .session(&registration.agent, staged)
                    .is_some_and(|known| known > *session)
                {
                    return false;
                }
                staged
                    .sessions
                    .insert(registration.agent.clone(), Some(*session));
                let record = v1::Registration::from(registration);
                let seen_us = staged.now.as_unix_us();
                staged.writes.registration(&v1::Registration {
                    seen_us,
                    ..record.clone()
                });
                staged.journal(&v1::Record::Connected(record));
                true
            }
            Arrival::Disconnected(Disconnected { session, agent }) => {
                if self.session(agent, staged) != Some(*session) {
                    return false;
                }
                staged.sessions.insert(agent.clone(), None);
                // A session may begin and end within one turn; its end comes after its beginning all the same.
                staged.now = staged.now + Duration::from_micros(1);
                if let Some(known) = self.sessions.get(agent) {
                    let record = v1::Registration::from(&known.registration);
                    staged.writes.registration(&v1::Registration {
                        seen_us: staged.now.as_unix_us(),
                        ..record
                    });
                }
                staged.journal(&v1::Record::Disconnected(v1::Disconnected {
                    agent: agent.clone(),
                }));
                true
            }
            Arrival::Paths(NewPaths {
                epoch,
                table,
                paths,
                forget,
                ..
            }) => {
                // So that it goes with its epoch, though no batch should ever come.
                self.seen(epoch, staged).at = staged.now;
                staged.writes.table(epoch, *table, paths);
                staged.writes.forget_tables(epoch, forget.iter());
                true
            }
            Arrival::Batch(batch) => {
                if !self.is_first(&batch.epoch, batch.sequence, staged) {
                    return false;
                }
                let record = v1::Batch {
                    region: batch.region.clone(),
                    bytes: batch.bytes.clone(),
                };
                staged.journal(&v1::Record::Batch(record));
                true
            }
            Arrival::Findings(found) => {
                if !self.is_first(&found.epoch, found.sequence, staged) {
                    return false;
                }
                let record = v1::Batch {
                    region: found.findings.region.clone(),
                    bytes: found.bytes.clone(),
                };
                staged.journal(&v1::Record::Findings(record));
                true
            }
            Arrival::CheckResults(results) => {
                staged.journal(&v1::Record::CheckResults(results.into()));
                true
            }
            Arrival::Signal { signal, .. } => {
                staged.journal(&v1::Record::Signal(signal.into()));
                true
            }
            Arrival::Policy { policy, .. } => {
                staged.journal(&v1::Record::Policy(v1::Policy {
                    toml: policy.toml.clone(),
                }));
                if policy.toml != self.policy.toml {
                    staged.audit_policy(policy);
                }
                true
            }
            Arrival::Change { asked, .. } => self.stage_change(asked, staged),
            Arrival::Shadow { asked, .. } => self.stage_shadow(asked, staged),
            Arrival::Noted { noted, .. } => {
                staged.audit_noted(noted);
                true
            }
            Arrival::Refused(refusal) => {
                let is_new = self.is_new_refusal(refusal, staged.now)
                    && staged.refusals.insert(refusal.clone());
                if is_new {
                    staged.audit_refusal(refusal);
                }
                is_new
            }
            Arrival::Stop => false,
        }
    }

    /// Notes that a sequence of an epoch arrived; `false` if it had already.
    fn is_first(&self, epoch: &Epoch, sequence: u64, staged: &mut Staged) -> bool {
        let now = staged.now;
        let seen = self.seen(epoch, staged);
        let is_first = seen.arrived.insert(sequence);
        if is_first {
            seen.at = now;
        }
        is_first
    }

    /// What is known of an epoch once this turn is done.
    fn seen<'a>(&self, epoch: &Epoch, staged: &'a mut Staged) -> &'a mut Seen {
        let known = || self.epochs.get(epoch).cloned().unwrap_or_default();
        staged.epochs.entry(epoch.clone()).or_insert_with(known)
    }

    /// Notes a change for the journal and the audit log, if its condition holds of what is staged so far.
    fn stage_change(&self, asked: &Asked, staged: &mut Staged) -> bool {
        let intents = staged
            .intents
            .get_or_insert_with(|| Intents::clone(&self.engine.view().intents));
        let current = asked.what.thing().version(intents);
        if let Err(conflict) = asked.condition.check(current) {
            staged.changes.push_back(Err(conflict));
            return false;
        }
        intents.on_change(staged.now, &asked.change());
        let version = intents.version;
        staged.changes.push_back(Ok(version));
        staged.journal(&v1::Record::Change(asked.into()));
        staged.audit_change(asked, version);
        true
    }

    /// The number of an agent's session, as of what is staged so far.
    fn session(&self, agent: &AgentId, staged: &Staged) -> Option<u64> {
        match staged.sessions.get(agent) {
            Some(session) => *session,
            None => self.sessions.get(agent).map(|session| session.id),
        }
    }

    /// Everything is durable: it comes into force, then everybody is answered.
    fn settle(&mut self, arrivals: Vec<Arrival>, staged: Staged) {
        let now = staged.now;
        self.clock.raise(now);
        self.end = staged.end;
        self.epochs.extend(staged.epochs);
        self.audit = staged.audit;
        self.audit.tell(&self.outlets);
        if let Some(shadow) = staged.shadow {
            self.shadow.send_replace(shadow);
        }
        let mut changes = staged.changes;
        let mut effects = Vec::new();
        let mut answers = Vec::with_capacity(arrivals.len());
        for (arrival, (fresh, stamp)) in arrivals.into_iter().zip(staged.fresh) {
            let (input, answer) = self.apply(arrival, fresh, stamp, &mut changes);
            if let Some(input) = input {
                effects.extend(self.engine.step(stamp, &input));
            }
            answers.push(answer);
        }
        effects.extend(self.engine.step(now, &Input::Tick));
        let was_written = !staged.writes.is_empty();
        self.store_decisions(now, effects);
        self.publish();
        if was_written && self.undurable.is_empty() {
            self.outlets.readiness.set(State::Ready);
        }
        for answer in answers {
            answer.give(&self.outlets.metrics, now);
        }
        self.snapshot_if_due(now);
    }

    /// What an arrival tells the engine, and how it is answered.
    fn apply(
        &mut self,
        arrival: Arrival,
        fresh: bool,
        now: Timestamp,
        changes: &mut VecDeque<Result<u64, Conflict>>,
    ) -> (Option<Input>, Answer) {
        match arrival {
            Arrival::Connected(Connected {
                session,
                registration,
                backlog,
                known,
            }) => {
                let epochs = std::iter::once(registration.boot_epoch).chain(backlog);
                let answer = Answer::Known(known, self.known(&registration.agent, epochs));
                if !fresh {
                    return (None, answer);
                }
                let input = connected_input(&registration);
                self.sessions.insert(
                    registration.agent.clone(),
                    Session {
                        id: session,
                        registration,
                    },
                );
                (Some(input), answer)
            }
            Arrival::Disconnected(Disconnected { agent, .. }) if fresh => {
                self.sessions.remove(&agent);
                (Some(Input::AgentDisconnected { agent }), Answer::None)
            }
            Arrival::Disconnected(_) | Arrival::Stop => (None, Answer::None),
            Arrival::Paths(paths) => (None, Answer::Done(paths.done, Ok(()))),
            Arrival::Batch(batch) => {
                let NewBatch {
                    sequence,
                    reports,
                    received,
                    settle,
                    ..
                } = *batch;
                let outcome = durable(fresh);
                let window_end = reports.window.end();
                (
                    fresh.then_some(Input::Reports(reports)),
                    Answer::Batch {
                        settle,
                        sequence,
                        outcome,
                        received,
                        window_end,
                    },
                )
            }
            Arrival::Findings(found) => {
                let NewFindings {
                    sequence,
                    findings,
                    settle,
                    ..
                } = *found;
                let outcome = durable(fresh);
                (
                    fresh.then_some(Input::Findings(findings)),
                    Answer::Findings {
                        settle,
                        sequence,
                        outcome,
                    },
                )
            }
            Arrival::CheckResults(results) => (Some(Input::CheckResults(results)), Answer::None),
            Arrival::Signal { signal, done } => {
                (Some(Input::Signal(signal)), Answer::Done(done, Ok(())))
            }
            Arrival::Change { asked, done } => {
                let outcome = changes
                    .pop_front()
                    .expect("every change that arrived was staged");
                if let Ok(version) = outcome {
                    info!(who = asked.who, about = %asked.what.thing(), version, "changed");
                }
                let input = fresh.then(|| Input::Change(Box::new(asked.change())));
                (input, Answer::Changed(done, outcome))
            }
            Arrival::Shadow { asked, done } => {
                let outcome = changes
                    .pop_front()
                    .expect("every change that arrived was staged");
                if let Ok(version) = outcome {
                    info!(who = asked.who, version, "the shadow policy is changed");
                }
                (None, Answer::Changed(done, outcome))
            }
            Arrival::Noted { done, .. } => (None, Answer::Done(done, Ok(()))),
            Arrival::Refused(refusal) => {
                if fresh {
                    self.refusals.insert(refusal, now);
                }
                (None, Answer::None)
            }
            Arrival::Policy { policy, done } => {
                self.policy = *policy;
                info!(
                    regions = self.policy.policy.regions.len(),
                    "a new policy is in force"
                );
                (
                    Some(Input::Policy(Box::new(self.policy.policy.clone()))),
                    Answer::Done(done, Ok(())),
                )
            }
        }
    }

    /// The store would not take it: only time goes on.
    fn refuse(&mut self, now: Timestamp, arrivals: Vec<Arrival>, error: &store::StoreError) {
        self.store_failed(now, error);
        let effects = self.engine.step(now, &Input::Tick);
        self.owe(effects);
        self.publish();
        for arrival in arrivals {
            match arrival {
                Arrival::Connected(connected) => {
                    drop(connected.known.send(Err(TurnError::StoreFailed)));
                }
                // Overdue reconnects are found again in every turn.
                Arrival::Disconnected(disconnected) => {
                    if disconnected.session != SESSION_BEFORE_RESTART {
                        self.owed.push(disconnected);
                    }
                }
                Arrival::Paths(NewPaths { done, .. })
                | Arrival::Signal { done, .. }
                | Arrival::Noted { done, .. }
                | Arrival::Policy { done, .. } => drop(done.send(Err(TurnError::StoreFailed))),
                Arrival::Change { done, .. } | Arrival::Shadow { done, .. } => {
                    let _ = done.send(Err(TurnError::StoreFailed));
                }
                Arrival::Batch(batch) => batch.settle.with(batch.sequence, Outcome::NotStored),
                Arrival::Findings(found) => found.settle.with(found.sequence, Outcome::NotStored),
                Arrival::CheckResults(_) | Arrival::Refused(_) | Arrival::Stop => {}
            }
        }
    }

    fn owe(&mut self, effects: Vec<Effect>) {
        self.undurable.extend(decided(&effects));
        self.ended.extend(expired(effects));
    }

    /// Decisions are on disk before anybody acts on them. Those that the store refuses are tried again next turn.
    fn store_decisions(&mut self, now: Timestamp, effects: Vec<Effect>) {
        self.owe(effects);
        if self.undurable.is_empty() && self.ended.is_empty() {
            return;
        }
        let (mut writes, mut audit) = (Writes::default(), self.audit.clone());
        for expired in &self.ended {
            audit.expired(expired, &mut writes);
        }
        for decided in &self.undurable {
            writes.decided(decision_position(decided), decided);
            audit.decision(decided, &mut writes);
        }
        if let Err(error) = self.commit(&writes) {
            self.store_failed(now, &error);
            return;
        }
        self.audit = audit;
        self.audit.tell(&self.outlets);
        self.ended.clear();
        for v1::Decided {
            id,
            primary,
            from,
            to,
            reason,
            summary,
            ..
        } in self.undurable.drain(..)
        {
            self.outlets.metrics.decision(&reason);
            let (from, to) = (name_or_none(from.as_ref()), name_or_none(to.as_ref()));
            info!(decision = id, %primary, from, to, reason, summary, "decided");
        }
    }

    fn publish(&self) {
        self.outlets.view.store(Arc::new(self.engine.view()));
    }

    /// What is durable of an agent's epochs.
    fn known(&self, agent: &AgentId, epochs: impl Iterator<Item = u64>) -> KnownEpochs {
        let below = |boot| {
            let epoch = Epoch {
                agent: agent.clone(),
                boot,
            };
            let seen = self.epochs.get(&epoch);
            (boot, seen.map_or(0, |seen| seen.arrived.below()))
        };
        epochs.map(below).collect()
    }

    /// After the grace of a restart, sessions of the process before have ended.
    fn overdue_reconnects(&self, now: Timestamp) -> Vec<Arrival> {
        if now.since(self.started) < RECONNECT_GRACE {
            return Vec::new();
        }
        let gone = self
            .sessions
            .iter()
            .filter(|(_, session)| session.id == SESSION_BEFORE_RESTART);
        gone.map(|(agent, session)| {
            Arrival::Disconnected(Disconnected {
                session: session.id,
                agent: agent.clone(),
            })
        })
        .collect()
    }

    fn commit(&mut self, writes: &Writes) -> Result<(), store::StoreError> {
        if writes.is_empty() {
            return Ok(());
        }
        let began = Instant::now();
        self.store.commit(writes)?;
        self.outlets
            .metrics
            .store
            .commit_seconds
            .observe(began.elapsed().as_secs_f64());
        Ok(())
    }
}

impl std::fmt::Debug for Turn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Turn")
            .field("end", &self.end)
            .field("sessions", &self.sessions.len())
            .finish_non_exhaustive()
    }
}

impl Staged {
    fn journal(&mut self, record: &v1::Record) {
        let position = self
            .end
            .map_or(Position::at(self.now), |end| end.next(self.now));
        self.writes.journal(position, record);
        self.end = Some(position);
        self.now = position.time;
    }
}

/// How the engine is told of a session.
pub(crate) fn connected_input(registration: &Registration) -> Input {
    let Registration {
        agent,
        region,
        boot_epoch,
        addresses,
        answer_port: _,
        stamp_port: _,
        build,
    } = registration.clone();
    Input::AgentConnected(AgentConnected {
        agent,
        region,
        boot_epoch,
        addresses,
        build,
    })
}

/// The decisions among effects, as they are stored.
pub(crate) fn decided(effects: &[Effect]) -> impl Iterator<Item = v1::Decided> {
    effects.iter().filter_map(|effect| match effect {
        Effect::Decided(decision) => Some(v1::Decided::from(&**decision)),
        Effect::Expired { .. } => None,
    })
}

/// What had an end and came to it, and when that was noticed.
#[derive(Clone, Debug, PartialEq)]
pub struct Expired {
    /// When.
    pub at: Timestamp,
    /// What.
    pub ended: Ended,
}

/// What came to its end, among effects.
pub(crate) fn expired(effects: Vec<Effect>) -> impl Iterator<Item = Expired> {
    effects.into_iter().filter_map(|effect| match effect {
        Effect::Decided(_) => None,
        Effect::Expired { at, ended } => Some(Expired { at, ended: *ended }),
    })
}

/// Where a decision is stored: taking it again in a replay writes the same key.
pub(crate) fn decision_position(decided: &v1::Decided) -> Position {
    // Decisions are numbered from 1 without gaps; four thousand million of them do not happen at one instant.
    Position {
        time: Timestamp::from_unix_us(decided.at_us),
        counter: decided.id as u32,
    }
}

const fn durable(fresh: bool) -> Outcome {
    match fresh {
        true => Outcome::Durable,
        false => Outcome::Repeated,
    }
}

fn watermark(seen: &Seen) -> v1::Watermark {
    v1::Watermark {
        runs: seen.arrived.runs().to_vec(),
        seen_us: seen.at.as_unix_us(),
    }
}

fn name_or_none(region: Option<&leeward_common::id::RegionId>) -> &str {
    region.map_or("none", leeward_common::id::RegionId::as_str)
}
