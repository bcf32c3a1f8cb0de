//! Who is told what, once everything is published.

use std::time::Instant;

use leeward_common::time::Timestamp;
use tokio::sync::oneshot;

use super::{Done, KnownEpochs, Outcome, Settle, TurnError};
use crate::{intent::Conflict, metrics::Metrics};

/// Who is told what, once everything is published.
pub(super) enum Answer {
    None,
    Known(oneshot::Sender<Result<KnownEpochs, TurnError>>, KnownEpochs),
    Done(Done, Result<(), TurnError>),
    Changed(
        oneshot::Sender<Result<Result<u64, Conflict>, TurnError>>,
        Result<u64, Conflict>,
    ),
    Findings {
        settle: Settle,
        sequence: u64,
        outcome: Outcome,
    },
    Batch {
        settle: Settle,
        sequence: u64,
        outcome: Outcome,
        received: Instant,
        window_end: Timestamp,
    },
}

impl Answer {
    /// Whoever is gone by now does not need the answer.
    pub(super) fn give(self, metrics: &Metrics, now: Timestamp) {
        match self {
            Self::None => {}
            Self::Known(known, answer) => drop(known.send(Ok(answer))),
            Self::Done(done, answer) => drop(done.send(answer)),
            Self::Changed(done, answer) => drop(done.send(Ok(answer))),
            Self::Findings {
                settle,
                sequence,
                outcome,
            } => settle.with(sequence, outcome),
            Self::Batch {
                settle,
                sequence,
                outcome,
                received,
                window_end,
            } => {
                metrics
                    .turn
                    .batch_seconds
                    .observe(received.elapsed().as_secs_f64());
                metrics
                    .turn
                    .window_seconds
                    .observe(now.since(window_end).as_secs_f64());
                settle.with(sequence, outcome);
            }
        }
    }
}
