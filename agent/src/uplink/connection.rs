//! One aggregator as the uplink sees it: whether a connection lives, and what may be sent on it now.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use leeward_common::histogram::Schema;
use tokio::{sync::mpsc, time::Instant};

use super::{delivery::Delivery, session::Command};
use crate::{
    config,
    prober::PlannedPath,
    spool::{Spool, TableOf},
};

/// A connection on which batches are under way and none has been acknowledged for this long is made anew.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(30);

/// The paths of one plan.
#[derive(Debug)]
pub(super) struct Table {
    /// `None` of a plan of a life before: no window of it closes any more.
    pub(super) schema: Option<Schema>,
    /// Row by row; empty of such a plan.
    pub(super) paths: Arc<[PlannedPath]>,
    /// With the message that names them, as it goes on the control stream.
    pub(super) of: TableOf,
}

/// What is known about one aggregator.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) name: config::Aggregator,
    pub(super) live: Option<Live>,
}

/// A connection that lives.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) delivery: Delivery,
    /// Whether the aggregator takes findings.
    pub(super) findings: bool,
    /// When something was last acknowledged, or nothing was under way.
    pub(super) acknowledged_at: Instant,
}

/// The queue of a connection is full: the aggregator does not read.
#[derive(Debug)]
pub(super) struct QueueFull;

impl Live {
    pub(super) fn control(&self, frame: Vec<u8>) -> Result<(), QueueFull> {
        self.send(Command::Control(frame))
    }

    fn send(&self, command: Command) -> Result<(), QueueFull> {
        match self.commands.try_send(command) {
            Err(mpsc::error::TrySendError::Full(_)) => Err(QueueFull),
            // Closed: the connection has ended, and the event that says so is on its way.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
        }
    }

    /// Sends every table and every batch that may be sent now.
    pub(super) fn pump(
        &mut self,
        index: usize,
        tables: &BTreeMap<u64, Table>,
        spool: &mut Spool,
    ) -> Result<(), QueueFull> {
        let known = |delivery: &Delivery| {
            let takes = |table: &&Table| delivery.takes(spool, table.of.table.boot_epoch);
            let numbers = tables.values().filter(takes).map(|table| table.of.number);
            numbers.collect::<Vec<_>>()
        };
        let known = known(&self.delivery);
        while let Some(number) = self.delivery.begin_table(known.iter().copied()) {
            self.control(tables[&number].of.table.frame.clone())?;
        }
        if self.delivery.under_way() == 0 {
            self.acknowledged_at = Instant::now();
        }
        while let Some((place, urgency)) = self.delivery.begin_next(spool) {
            let Some(frame) = spool.get(place).and_then(|own| own.frame()).map(Arc::clone) else {
                continue;
            };
            spool.handed(index, place);
            self.send(Command::Batch { frame, urgency })?;
        }
        spool.want(self.delivery.next_places());
        Ok(())
    }

    pub(super) fn is_stuck(&self) -> bool {
        self.delivery.under_way() > 0 && self.acknowledged_at.elapsed() > ACKNOWLEDGED_WITHIN
    }
}
