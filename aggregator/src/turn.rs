//! One turn: take what arrived, journal it, step the engine, store what it decided, publish, acknowledge.

use leeward_engine::input::Signal;
use tokio::sync::{mpsc, oneshot};

/// What waits for the turn thread. A batch is about 10 kB, so a full channel holds 40 MB; sessions then stop reading
/// and QUIC flow control makes the agents keep their batches. Most of a storm fits, so that it costs one turn.
pub const ARRIVALS: usize = 4_096;

/// One thing for the turn thread.
#[derive(Debug)]
pub enum Arrival {
    /// A signal from the API.
    Signal {
        /// The signal, already checked against its source's bounds.
        signal: Signal,
        /// Told when it is durable and in force.
        done: oneshot::Sender<Result<(), TurnError>>,
    },
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

    /// Brings a signal into force; returns when it is durable and the published view knows it.
    ///
    /// # Errors
    ///
    /// Returns [`TurnError`] when it did not come into force.
    pub async fn signal(&self, signal: Signal) -> Result<(), TurnError> {
        let (done, answer) = oneshot::channel();
        self.arrivals.send(Arrival::Signal { signal, done }).await.map_err(|_| TurnError::Stopping)?;
        answer.await.unwrap_or(Err(TurnError::Stopping))
    }
}
