//! The outgoing side of the control stream, and how a session ends on it.

use std::time::Duration;

use leeward_common::wire::{
    frame,
    v1::{FromAggregator, RefuseCode},
};
use tokio::time::timeout;

use super::{frames::NoFrame, line::Outgoing, refusal::Refusal};
use crate::turn::TurnError;

/// A batch that takes longer to arrive, or an agent that does not read its control stream for so long, is given up.
pub(super) const STREAM_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a refusal may take to reach the agent before the connection is closed.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);

/// Why a session ended.
#[derive(Debug)]
pub(super) enum Ending {
    /// The agent closed it, or it broke.
    Gone,
    /// We refuse to go on.
    Refused(Refusal),
}

impl From<NoFrame> for Ending {
    fn from(error: NoFrame) -> Self {
        match error {
            NoFrame::Ended => Self::Gone,
            NoFrame::Refused(refusal) => Self::Refused(refusal),
        }
    }
}

impl From<Refusal> for Ending {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Ending {
    pub(super) fn from_turn(error: TurnError) -> Self {
        Self::Refused(Refusal::unavailable(error))
    }
}

/// The control stream's outgoing side.
pub(super) struct ControlOut {
    stream: Outgoing,
    /// A frame was cut off half-way: nothing that follows would be understood.
    broken: bool,
}

impl ControlOut {
    pub(super) fn new(stream: Outgoing) -> Self {
        Self {
            stream,
            broken: false,
        }
    }

    pub(super) async fn write(&mut self, message: &FromAggregator) -> Result<(), Ending> {
        let frame = frame::frame_from_aggregator(message);
        self.broken = true;
        match timeout(STREAM_TIMEOUT, self.stream.write_all(&frame)).await {
            Ok(Ok(())) => {
                self.broken = false;
                Ok(())
            }
            Ok(Err(_)) => Err(Ending::Gone),
            Err(_) => {
                let reason = format!(
                    "the control stream was not read for {} s",
                    STREAM_TIMEOUT.as_secs()
                );
                Err(Refusal::new(RefuseCode::Limit, reason).into())
            }
        }
    }

    /// Tells the agent why, and waits a little for it to hear.
    pub(super) async fn refuse(&mut self, refusal: &Refusal) {
        if self.broken {
            return;
        }
        let told = async {
            let _ = self.write(&FromAggregator::Refuse(refusal.message())).await;
            self.stream.conclude().await;
        };
        let _ = timeout(REFUSAL_TIMEOUT, told).await;
    }
}
