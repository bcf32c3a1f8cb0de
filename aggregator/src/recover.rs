//! Back to the same state after a restart: the newest snapshot, then the journal since.
//!
//! The journal is the truth and the snapshot a cache. One that this build cannot read is passed over, and the replay
//! begins with an older one or at the oldest anchor, which says what held before it. Replay is the engine's ordinary step with the
//! `now` of then, so it ends where the process before ended. Decisions already stored stay as they are; those that a
//! crash kept from being stored are handed to the turn for storing.

use std::{collections::BTreeMap, ops::ControlFlow, sync::Arc, time::Duration};

use leeward_common::{
    config::Document,
    report::Path,
    time::Timestamp,
    wire::{self, batch},
};
use leeward_engine::{
    Engine,
    inherit::Inheritance,
    input::{Findings, Input, Reports},
};
use tracing::{info, warn};

use crate::{
    config::PolicyText,
    dedupe::Arrived,
    mesh::Registration,
    store::{
        self, Read, StoreError, decisions,
        key::{Column, Epoch, Position},
        record::v1,
    },
    turn::{EXPIRED, Expired, Seen, connected_input, decided, decision_position, expired},
};

/// Where the process before ended.
#[derive(Debug)]
pub struct Recovered {
    /// The engine.
    pub engine: Engine,
    /// The policy that it has.
    pub policy: PolicyText,
    /// Where the journal ends; `None` if it is empty.
    pub end: Option<Position>,
    /// Which batches arrived.
    pub epochs: BTreeMap<Epoch, Seen>,
    /// Every registered agent, and when it was last seen.
    pub registrations: Vec<(Registration, Timestamp)>,
    /// Decisions that were not stored any more.
    pub undurable: Vec<v1::Decided>,
    /// What had come to its end and was not noted any more.
    pub ended: Vec<Expired>,
    /// Where the snapshot was taken that this began with.
    pub snapshot: Option<Position>,
    /// Journal records replayed.
    pub replayed: u64,
    /// Journal records that could not be replayed: malformed, or a batch whose path table is gone.
    pub skipped: u64,
}

/// Recovers; an empty store gives an engine with the configured policy.
///
/// # Errors
///
/// Returns [`StoreError`] when the store cannot be read.
pub fn recover(store: &dyn Read, configured: &PolicyText) -> Result<Recovered, StoreError> {
    let end = store::journal_end(store)?;
    let last_decision = store
        .last(Column::Decisions)?
        .and_then(|(key, _)| Position::from_key(&key));
    let mut replay = Replay::begin(store, configured)?;
    let from = replay
        .snapshot
        .map_or_else(Vec::new, |position| position.key().to_vec());
    store.scan(Column::Journal, &from, &mut |key, value| {
        replay.record(key, value);
        ControlFlow::Continue(())
    })?;
    let Replay {
        mut engine,
        policy,
        snapshot,
        taken,
        ended,
        replayed,
        skipped,
        ..
    } = replay;
    let is_new = |own: &v1::Decided| Some(decision_position(own)) > last_decision;
    let mut undurable: Vec<_> = taken.into_iter().filter(is_new).collect();
    // With a snapshot the same decisions are taken again. An engine that began at an anchor may have taken others, or have
    // counted otherwise: what it decides from now on comes after all that is stored.
    let counted = engine.view().last_decision - undurable.len() as u64;
    let behind = match snapshot {
        Some(_) => 0,
        None => decisions::greatest(store)?.saturating_sub(counted),
    };
    engine.renumber(behind);
    for decided in &mut undurable {
        decided.renumber(behind);
    }
    info!(
        replayed,
        skipped,
        from_snapshot = snapshot.is_some(),
        "recovered"
    );
    Ok(Recovered {
        engine,
        policy,
        end,
        epochs: epochs(store)?,
        registrations: registrations(store)?,
        undurable,
        ended: not_noted(store, ended)?,
        snapshot,
        replayed,
        skipped,
    })
}

/// Of what came to its end in a replay, what the audit log does not have: of one instant it has all or nothing.
fn not_noted(store: &dyn Read, mut ended: Vec<Expired>) -> Result<Vec<Expired>, StoreError> {
    let Some(first) = ended.first().map(|expired| expired.at) else {
        return Ok(ended);
    };
    let mut noted = None;
    store.scan_back(Column::Audit, &[0xff; 9], &mut |key, value| {
        let entry = v1::Audited::entry(key, value);
        if entry.what == EXPIRED {
            noted = Some(entry.at.0);
        }
        match noted.is_some() || entry.at.0 < first {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    })?;
    ended.retain(|expired| Some(expired.at) > noted);
    Ok(ended)
}

struct Replay<'a> {
    engine: Engine,
    policy: PolicyText,
    snapshot: Option<Position>,
    /// Whether anything was known before the first record.
    anchored: bool,
    reading: Reading<'a>,
    taken: Vec<v1::Decided>,
    ended: Vec<Expired>,
    replayed: u64,
    skipped: u64,
}

impl<'a> Replay<'a> {
    fn begin(store: &'a dyn Read, configured: &PolicyText) -> Result<Self, StoreError> {
        let past = past(store, None)?;
        let snapshot = past.as_ref().map(|past| past.at);
        let (engine, policy) = match past {
            Some(past) => (past.engine, past.policy),
            None => (Engine::new(configured.policy.clone()), configured.clone()),
        };
        Ok(Self {
            engine,
            policy,
            anchored: snapshot.is_some(),
            snapshot,
            reading: Reading::new(store),
            taken: Vec::new(),
            ended: Vec::new(),
            replayed: 0,
            skipped: 0,
        })
    }

    fn record(&mut self, key: &[u8], value: &[u8]) {
        let Some(position) = Position::from_key(key) else {
            self.skip(&StoreError::Malformed {
                what: "journal key",
                why: format!("{key:02x?}"),
            });
            return;
        };
        if self.snapshot.is_some_and(|snapshot| position <= snapshot) {
            return;
        }
        match self.reading.told(value) {
            Ok(told) => {
                self.apply(position, told);
                self.replayed += 1;
            }
            Err(error) => self.skip(&error),
        }
    }

    fn skip(&mut self, error: &StoreError) {
        self.skipped += 1;
        if self.skipped <= 10 {
            warn!(
                error = error as &dyn std::error::Error,
                "a journal record cannot be replayed"
            );
        }
    }

    fn apply(&mut self, position: Position, told: Told) {
        let now = position.time;
        match told {
            // The first anchor of a replay without a snapshot says what held before; any other repeats what is known.
            Told::Anchor(_) if self.anchored => {}
            Told::Anchor(anchor) => {
                self.anchored = true;
                self.engine = anchor.engine(now);
                self.policy = anchor.policy;
            }
            Told::Policy(policy) => {
                self.step(now, &Input::Policy(Box::new(policy.policy.clone())));
                self.policy = *policy;
            }
            Told::Input(input) => self.step(now, &input),
        }
    }

    fn step(&mut self, now: Timestamp, input: &Input) {
        let effects = self.engine.step(now, input);
        self.taken.extend(decided(&effects));
        self.ended.extend(expired(effects));
    }
}

/// An engine as it was.
#[derive(Debug)]
pub struct Past {
    /// It holds everything up to and including the record here.
    pub at: Position,
    /// The engine.
    pub engine: Engine,
    /// Its policy.
    pub policy: PolicyText,
    /// The build that wrote it down.
    pub build: String,
}

/// The newest snapshot that this build can read; one that knows nothing of what was after `until`, if that is given.
///
/// # Errors
///
/// Returns [`StoreError`] when the store cannot be read.
pub fn past(store: &dyn Read, until: Option<Timestamp>) -> Result<Option<Past>, StoreError> {
    /// Behind every key.
    const END: [u8; 13] = [0xff; 13];
    let before = until.map(|until| Position::at(until + Duration::from_micros(1)).key());
    let before = before.as_ref().map_or(&END[..], |key| &key[..]);
    let mut found = None;
    store.scan_back(Column::Snapshots, before, &mut |key, value| {
        match read_snapshot(key, value) {
            Ok(past) if until.is_some_and(|until| past.engine.view().now > until) => {
                ControlFlow::Continue(())
            }
            Ok(past) => {
                found = Some(past);
                ControlFlow::Break(())
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                warn!(error, "a snapshot cannot be used; an older one or the whole journal is, which takes longer");
                ControlFlow::Continue(())
            }
        }
    })?;
    Ok(found)
}

/// What a journal record says.
#[derive(Debug)]
pub enum Told {
    /// Something that the engine was told.
    Input(Input),
    /// A policy came into force.
    Policy(Box<PolicyText>),
    /// What held at this point.
    Anchor(Box<Anchored>),
}

/// What held at an anchor.
#[derive(Debug)]
pub struct Anchored {
    /// The policy in force.
    pub policy: PolicyText,
    /// The agents with a session.
    pub connected: Vec<Registration>,
    /// Services, capacity and overrides, and what was selected.
    pub past: Inheritance,
}

impl Anchored {
    /// An engine that knows this and nothing else: it measures anew, and goes on from what was selected.
    #[must_use]
    pub fn engine(&self, now: Timestamp) -> Engine {
        let (policy, past) = (self.policy.policy.clone(), self.past.clone());
        let mut engine = Engine::inheriting(now, policy, past);
        for registration in &self.connected {
            engine.step(now, &connected_input(registration));
        }
        engine
    }
}

/// Journal records as the engine was told them.
#[expect(missing_debug_implementations, reason = "a store has none")]
pub struct Reading<'a> {
    store: &'a dyn Read,
    tables: BTreeMap<(Epoch, u32), Option<Arc<[Path]>>>,
}

impl<'a> Reading<'a> {
    /// Of the journal in this store.
    #[must_use]
    pub fn new(store: &'a dyn Read) -> Self {
        Self {
            store,
            tables: BTreeMap::new(),
        }
    }

    /// What a record says.
    ///
    /// # Errors
    ///
    /// Returns [`StoreError`] when it is malformed, or is a batch whose path table is gone.
    pub fn told(&mut self, value: &[u8]) -> Result<Told, StoreError> {
        let input = match v1::decode(Column::Journal.name(), value)? {
            v1::Record::Anchor(anchor) => {
                let past = anchor.inheritance();
                let registrations = anchor.connected.into_iter();
                return Ok(Told::Anchor(Box::new(Anchored {
                    policy: parse_policy(&anchor.policy)?,
                    connected: registrations.map(Into::into).collect(),
                    past,
                })));
            }
            v1::Record::Policy(policy) => {
                return Ok(Told::Policy(Box::new(parse_policy(&policy)?)));
            }
            v1::Record::Batch(batch) => Input::Reports(self.reports(batch)?),
            v1::Record::Connected(registration) => connected_input(&registration.into()),
            v1::Record::Disconnected(v1::Disconnected { agent }) => {
                Input::AgentDisconnected { agent }
            }
            v1::Record::Signal(signal) => Input::Signal(signal.into()),
            v1::Record::CheckResults(checked) => Input::CheckResults(checked.into()),
            v1::Record::Findings(record) => Input::Findings(findings(record)?),
            v1::Record::Change(changed) => Input::Change(Box::new(changed.into())),
        };
        Ok(Told::Input(input))
    }

    fn reports(&mut self, record: v1::Batch) -> Result<Reports, StoreError> {
        let malformed = |why: String| StoreError::Malformed { what: "batch", why };
        let unread = batch::open(&record.bytes).map_err(|error| malformed(error.to_string()))?;
        let batch = &unread.head().key;
        let epoch = Epoch {
            agent: batch.agent.clone(),
            boot: batch.boot_epoch,
        };
        let (key, number) = ((epoch, batch.table), batch.table);
        let table = match self.tables.get(&key) {
            Some(table) => table.clone(),
            None => {
                let table = table(self.store, &key.0, number)?;
                self.tables.insert(key, table.clone());
                table
            }
        };
        let table = table.ok_or_else(|| malformed(format!("its path table {number} is gone")))?;
        resolve(unread, record.region, &table).map_err(|error| malformed(error.to_string()))
    }
}

fn findings(record: v1::Batch) -> Result<Findings, StoreError> {
    let found = wire::findings::decode(&record.bytes).map_err(|error| StoreError::Malformed {
        what: "findings",
        why: error.to_string(),
    })?;
    Ok(Findings {
        agent: found.agent,
        region: record.region,
        findings: found.findings,
    })
}

/// Why a batch cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Unresolved {
    /// Its bytes are none.
    #[error(transparent)]
    Wire(#[from] wire::WireError),
    /// A row beyond its table.
    #[error("row {row} is beyond path table {table}, which has {rows}")]
    NoSuchRow {
        /// The row.
        row: u32,
        /// The table.
        table: u32,
        /// Its number of rows.
        rows: usize,
    },
}

/// A batch as the engine reads it.
///
/// # Errors
///
/// Returns [`Unresolved`] when its rows are none, or refer to what its table does not have.
pub fn resolve(
    unread: batch::Unread<'_>,
    region: leeward_common::id::RegionId,
    table: &Arc<[Path]>,
) -> Result<Reports, Unresolved> {
    let mut beyond = None;
    let mut rows = Vec::with_capacity(unread.head().rows);
    let batch::Head { key, health, .. } = unread.rows(|row, report| {
        if row as usize >= table.len() {
            beyond = Some(row);
        }
        rows.push((row, report.clone()));
    })?;
    if let Some(row) = beyond {
        return Err(Unresolved::NoSuchRow {
            row,
            table: key.table,
            rows: table.len(),
        });
    }
    Ok(Reports {
        agent: key.agent,
        region,
        window: key.window,
        until: key.until,
        health,
        table: Arc::clone(table),
        rows,
    })
}

fn read_snapshot(key: &[u8], value: &[u8]) -> Result<Past, StoreError> {
    let malformed = |why: String| StoreError::Malformed {
        what: "snapshot",
        why,
    };
    let at = Position::from_key(key).ok_or_else(|| malformed(format!("key {key:02x?}")))?;
    let snapshot: v1::Snapshot = v1::decode("snapshot", value)?;
    let state = v1::decode("engine state", &snapshot.state).map_err(|error| {
        malformed(format!(
            "{error}; it was written by build {}",
            snapshot.build
        ))
    })?;
    let engine = Engine::from_snapshot(state).map_err(|error| malformed(error.to_string()))?;
    Ok(Past {
        at,
        engine,
        policy: parse_policy(&snapshot.policy)?,
        build: snapshot.build,
    })
}

/// A policy of the journal.
///
/// # Errors
///
/// Returns [`StoreError::Malformed`] when this build cannot read it.
pub(crate) fn parse_policy(record: &v1::Policy) -> Result<PolicyText, StoreError> {
    let document = Document {
        file: "journal",
        text: &record.toml,
    };
    PolicyText::parse(&document).map_err(|error| StoreError::Malformed {
        what: "policy",
        why: error.to_string(),
    })
}

/// The numbers of an epoch's path tables.
///
/// # Errors
///
/// Returns [`StoreError`] when they cannot be read.
pub fn tables(store: &dyn Read, epoch: &Epoch) -> Result<Vec<u32>, StoreError> {
    let mut tables = Vec::new();
    store.scan(Column::Tables, &epoch.key(), &mut |key, _| {
        match Epoch::from_table_key(key) {
            Some((found, number)) if found == *epoch => tables.push(number),
            _ => return ControlFlow::Break(()),
        }
        ControlFlow::Continue(())
    })?;
    Ok(tables)
}

/// A path table of an epoch; `None` if it is gone.
///
/// # Errors
///
/// Returns [`StoreError`] when it cannot be read.
pub(crate) fn table(
    store: &dyn Read,
    epoch: &Epoch,
    number: u32,
) -> Result<Option<Arc<[Path]>>, StoreError> {
    let wanted = epoch.table_key(number);
    let mut found = Ok(None);
    store.scan(Column::Tables, &wanted, &mut |key, value| {
        if key == wanted {
            found =
                v1::decode::<v1::Table>("table", value).map(|table| Some(Vec::from(table).into()));
        }
        ControlFlow::Break(())
    })?;
    found
}

/// Every registered agent, and when it was last known to be connected.
///
/// # Errors
///
/// Returns [`StoreError`] when they cannot be read.
pub fn registrations(store: &dyn Read) -> Result<Vec<(Registration, Timestamp)>, StoreError> {
    let read = store::read_all(store, Column::Registrations, "registration", |_| Some(()))?;
    let convert = |((), record): ((), v1::Registration)| {
        let seen = Timestamp::from_unix_us(record.seen_us);
        (record.into(), seen)
    };
    Ok(read.into_iter().map(convert).collect())
}

fn epochs(store: &dyn Read) -> Result<BTreeMap<Epoch, Seen>, StoreError> {
    let read = store::read_all(store, Column::Watermarks, "watermark", Epoch::from_key)?;
    let convert = |(epoch, record): (Epoch, v1::Watermark)| {
        let at = Timestamp::from_unix_us(record.seen_us);
        (
            epoch,
            Seen {
                arrived: Arrived::from_runs(&record.runs),
                at,
            },
        )
    };
    Ok(read.into_iter().map(convert).collect())
}
