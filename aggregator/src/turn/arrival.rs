//! What waits for the turn thread, and the way to it.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use leeward_common::{
    id::{AgentId, RegionId},
    report::Path,
};
use leeward_engine::input::{CheckResults, Findings, Reports, Signal};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use crate::{
    config::PolicyText,
    intent::{Asked, Conflict},
    mesh::Registration,
    shadow::AskedShadow,
    store::key::Epoch,
};

/// What waits for the turn thread. A batch is about 10 kB, so a full channel holds 40 MB; sessions then stop reading
/// and QUIC flow control makes the agents keep their batches. Most of a storm fits, so that it costs one turn.
pub const ARRIVALS: usize = 4_096;

/// One thing for the turn thread.
#[derive(Debug)]
pub enum Arrival {
    /// An agent's session begins.
    Connected(Connected),
    /// An agent's session ended.
    Disconnected(Disconnected),
    /// An agent announces a path table.
    Paths(NewPaths),
    /// An agent's reports of one window.
    Batch(Box<NewBatch>),
    /// What an agent found out beside its windows.
    Findings(Box<NewFindings>),
    /// What came of an agent's checks. Nobody waits for it: an agent asks and tells again.
    CheckResults(CheckResults),
    /// A signal from the API.
    Signal {
        /// The signal, already checked against its source's bounds.
        signal: Signal,
        /// Told when it is durable and in force.
        done: Done,
    },
    /// A new policy.
    Policy {
        /// The policy.
        policy: Box<PolicyText>,
        /// Told when it is durable and in force.
        done: Done,
    },
    /// Somebody defines or removes something.
    Change {
        /// What is asked for.
        asked: Box<Asked>,
        /// Told when it is durable and in force, or that its condition does not hold.
        done: oneshot::Sender<Result<Result<u64, Conflict>, TurnError>>,
    },
    /// Somebody sets the shadow policy, or removes it.
    Shadow {
        /// What is asked for.
        asked: Box<AskedShadow>,
        /// As of a change.
        done: oneshot::Sender<Result<Result<u64, Conflict>, TurnError>>,
    },
    /// Somebody does something that changes nothing here and belongs in the audit log.
    Noted {
        /// What.
        noted: Noted,
        /// Told when it is in the log.
        done: Done,
    },
    /// Somebody who is known was refused something.
    Refused(Refusal),
    /// The process ends: this turn is the last.
    Stop,
}

/// What somebody does: for the audit log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Noted {
    /// Who.
    pub who: String,
    /// Why.
    pub why: String,
    /// What: one word.
    pub what: &'static str,
    /// To what.
    pub about: String,
    /// How.
    pub detail: String,
}

/// Somebody who is known was refused something: for the audit log.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Refusal {
    /// Who: a token's name.
    pub who: String,
    /// What they asked for: a method and a route's pattern, one of a closed set.
    pub about: String,
    /// Why it was refused.
    pub why: String,
}

/// Told whether something is durable and in force.
pub type Done = oneshot::Sender<Result<(), TurnError>>;

/// An agent's session begins.
#[derive(Debug)]
pub struct Connected {
    /// The session's number; a higher one of the same agent takes over.
    pub session: u64,
    /// What the agent registered.
    pub registration: Registration,
    /// Earlier boot epochs of which it still has batches.
    pub backlog: Vec<u64>,
    /// Told what is already known of its boot epochs.
    pub known: oneshot::Sender<Result<KnownEpochs, TurnError>>,
}

/// Of an agent's boot epochs, the present one among them, below which sequence everything is durable.
pub type KnownEpochs = BTreeMap<u64, u64>;

/// An agent's session ended.
#[derive(Clone, Debug)]
pub struct Disconnected {
    /// The session's number.
    pub session: u64,
    /// The agent.
    pub agent: AgentId,
}

/// An agent announces a path table.
#[derive(Debug)]
pub struct NewPaths {
    /// Whose.
    pub epoch: Epoch,
    /// The table's number.
    pub table: u32,
    /// Its rows.
    pub paths: Arc<[Path]>,
    /// Tables that make room for it.
    pub forget: Vec<u32>,
    /// Told when it is durable.
    pub done: Done,
}

/// An agent's reports of one window.
#[derive(Debug)]
pub struct NewBatch {
    /// Whose.
    pub epoch: Epoch,
    /// Its sequence within the epoch.
    pub sequence: u64,
    /// The agent's region, from its certificate.
    pub region: RegionId,
    /// The batch, as it came.
    pub bytes: Vec<u8>,
    /// The same, as the engine reads it.
    pub reports: Reports,
    /// When it was received.
    pub received: Instant,
    /// Its share of what its agent may have in memory.
    pub room: Option<OwnedSemaphorePermit>,
    /// Who wants to know what became of it.
    pub settle: Settle,
}

/// What an agent found out beside its windows.
#[derive(Debug)]
pub struct NewFindings {
    /// Whose.
    pub epoch: Epoch,
    /// Its sequence within the epoch: that of the batches.
    pub sequence: u64,
    /// The message, as it came.
    pub bytes: Vec<u8>,
    /// The same, as the engine reads it.
    pub findings: Findings,
    /// Who wants to know what became of it.
    pub settle: Settle,
}

/// Who wants to know what became of a batch, or of findings.
#[derive(Debug)]
pub struct Settle {
    /// The session. As many places as there can be permits, so it is never full.
    pub session: mpsc::Sender<Settled>,
    /// The batch's boot epoch.
    pub boot_epoch: u64,
    /// The batch's share of what its session may have in flight; free again when the session has read the answer.
    pub permit: OwnedSemaphorePermit,
}

/// What became of a batch.
#[derive(Debug)]
pub struct Settled {
    /// Its boot epoch.
    pub boot_epoch: u64,
    /// Its sequence.
    pub sequence: u64,
    /// What became of it.
    pub outcome: Outcome,
    /// Held until this is read.
    pub permit: OwnedSemaphorePermit,
}

/// What became of a batch.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// It is durable and counted.
    Durable,
    /// It had been durable before and is not counted again.
    Repeated,
    /// It can never count, and the agent may forget it; why. Decided by the session, not by the turn.
    Refused(String),
    /// It could not be stored.
    NotStored,
}

impl Settle {
    /// Tells the session. If that is gone, nobody needs to know.
    pub fn with(self, sequence: u64, outcome: Outcome) {
        let _ = self.session.try_send(Settled {
            boot_epoch: self.boot_epoch,
            sequence,
            outcome,
            permit: self.permit,
        });
    }
}

/// Why something did not come into force.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TurnError {
    /// The store refused it.
    #[error("the store refuses writes, so nothing new can come into force; try again later")]
    StoreFailed,
    /// The aggregator is on its way out.
    #[error("the aggregator is stopping; try again later")]
    Stopping,
}

/// The way to the turn thread. Cheap to clone.
#[derive(Clone, Debug)]
pub struct TurnHandle {
    arrivals: mpsc::Sender<Arrival>,
}

impl TurnHandle {
    /// A handle and the other end, for the turn thread or for a test that plays it.
    #[must_use]
    pub fn channel() -> (Self, mpsc::Receiver<Arrival>) {
        let (arrivals, receiver) = mpsc::channel(ARRIVALS);
        (Self { arrivals }, receiver)
    }

    /// How full the channel is, 0 to 1.
    #[must_use]
    pub fn fullness(&self) -> f64 {
        1.0 - self.arrivals.capacity() as f64 / ARRIVALS as f64
    }

    /// Hands something over; waits while the channel is full.
    ///
    /// # Errors
    ///
    /// Returns [`TurnError::Stopping`] when the turn thread is gone.
    pub async fn send(&self, arrival: Arrival) -> Result<(), TurnError> {
        self.arrivals
            .send(arrival)
            .await
            .map_err(|_| TurnError::Stopping)
    }

    /// Brings a signal into force; returns when it is durable. Scores follow with the next evaluation.
    ///
    /// # Errors
    ///
    /// Returns [`TurnError`] when it did not come into force.
    pub async fn signal(&self, signal: Signal) -> Result<(), TurnError> {
        self.ask(|done| Arrival::Signal { signal, done }).await
    }

    /// Brings a policy into force; returns when it is durable and published.
    ///
    /// # Errors
    ///
    /// Returns [`TurnError`] when it did not come into force.
    pub async fn policy(&self, policy: PolicyText) -> Result<(), TurnError> {
        self.ask(|done| Arrival::Policy {
            policy: Box::new(policy),
            done,
        })
        .await
    }

    /// Brings a change into force; returns its version when it is durable, or that its condition does not hold.
    ///
    /// # Errors
    ///
    /// Returns [`TurnError`] when it did not come into force.
    pub async fn change(&self, asked: Asked) -> Result<Result<u64, Conflict>, TurnError> {
        let asked = Box::new(asked);
        self.ask(|done| Arrival::Change { asked, done }).await
    }

    /// Sets the shadow policy, or removes it; as [`Self::change`].
    ///
    /// # Errors
    ///
    /// Returns [`TurnError`] when it is as before.
    pub async fn shadow(&self, asked: AskedShadow) -> Result<Result<u64, Conflict>, TurnError> {
        let asked = Box::new(asked);
        self.ask(|done| Arrival::Shadow { asked, done }).await
    }

    /// Notes something in the audit log; returns when it is there.
    ///
    /// # Errors
    ///
    /// Returns [`TurnError`] when it is not.
    pub async fn noted(&self, noted: Noted) -> Result<(), TurnError> {
        self.ask(|done| Arrival::Noted { noted, done }).await
    }

    /// Notes a refusal in the audit log, some time soon.
    pub async fn refused(&self, refusal: Refusal) {
        // An error says that the process ends; the refusal was answered all the same.
        let _ = self.send(Arrival::Refused(refusal)).await;
    }

    /// Asks for a last turn. Whatever is handed over after this is refused.
    pub async fn stop(&self) {
        // An error says that the last turn is over.
        let _ = self.send(Arrival::Stop).await;
    }

    /// Hands something over and waits for what becomes of it.
    pub(crate) async fn ask<T>(
        &self,
        arrival: impl FnOnce(oneshot::Sender<Result<T, TurnError>>) -> Arrival,
    ) -> Result<T, TurnError> {
        let (done, answer) = oneshot::channel();
        self.send(arrival(done)).await?;
        answer.await.unwrap_or(Err(TurnError::Stopping))
    }
}

/// Each batch comes on a stream of its own, so those that are under way together overtake each other. Those that wait
/// together go in the order in which they were measured, so that the engine finds the windows of a path in order; but not
/// beyond anything else that the engine is told.
pub(super) fn put_in_order(arrivals: &mut [Arrival]) {
    let mut places = Vec::new();
    for place in 0..arrivals.len() {
        match &arrivals[place] {
            Arrival::Batch(_) => places.push(place),
            Arrival::Shadow { .. } | Arrival::Noted { .. } | Arrival::Refused(_) => {}
            _ => {
                put_in_order_at(arrivals, &places);
                places.clear();
            }
        }
    }
    put_in_order_at(arrivals, &places);
}

fn put_in_order_at(arrivals: &mut [Arrival], places: &[usize]) {
    let key = |place: usize| match &arrivals[place] {
        Arrival::Batch(batch) => Some((&batch.epoch, batch.sequence)),
        _ => None,
    };
    if places.is_sorted_by_key(|&place| key(place)) {
        return;
    }
    let take = |place: &usize| std::mem::replace(&mut arrivals[*place], Arrival::Stop);
    let mut batches: Vec<Arrival> = places.iter().map(take).collect();
    batches.sort_by(|a, b| match (a, b) {
        (Arrival::Batch(a), Arrival::Batch(b)) => {
            (&a.epoch, a.sequence).cmp(&(&b.epoch, b.sequence))
        }
        _ => std::cmp::Ordering::Equal,
    });
    for (place, batch) in places.iter().zip(batches) {
        arrivals[*place] = batch;
    }
}
