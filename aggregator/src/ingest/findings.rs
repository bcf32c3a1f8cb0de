//! Findings of an agent: checked as a batch is, and handed to the turn.

use leeward_common::wire::{findings, frame::Header};
use leeward_engine::input::Findings;
use tokio::sync::OwnedSemaphorePermit;
use tracing::warn;

use super::{control::Ending, conversation::Conversation, refusal::Refusal};
use crate::turn::{Arrival, NewFindings, Outcome, Settle};

impl Conversation {
    /// Checks findings and hands them to the turn.
    pub(super) async fn take_findings(
        &self,
        header: &Header,
        bytes: Vec<u8>,
        permit: OwnedSemaphorePermit,
    ) -> Result<(), Ending> {
        let found = findings::parse(header, &bytes).map_err(Refusal::from)?;
        let epoch = self.check_owner("finding", &found.agent, found.boot_epoch)?;
        let settle = Settle {
            session: self.settled.clone(),
            boot_epoch: epoch.boot,
            permit,
        };
        if let Err(reason) = self.check_time("it was found", found.at, found.at) {
            warn!(agent = %found.agent, sequence = found.sequence, reason, "finding refused");
            settle.with(found.sequence, Outcome::Refused(reason));
            return Ok(());
        }
        let metrics = &self.ingest.metrics;
        metrics.ingest.findings.inc_by(found.findings.len() as u64);
        metrics.turn.arrivals_in.inc();
        let arrival = NewFindings {
            epoch,
            sequence: found.sequence,
            bytes,
            findings: Findings {
                agent: found.agent,
                region: self.identity.region.clone(),
                findings: found.findings,
            },
            settle,
        };
        self.ingest
            .turn
            .send(Arrival::Findings(Box::new(arrival)))
            .await
            .map_err(Ending::from_turn)
    }
}
