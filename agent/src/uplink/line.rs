//! The uplink and its spool: windows go in, what was settled comes out, and the disk is kept busy in between.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use leeward_common::{
    time::{Clock as _, SystemClock, Timestamp},
    wire::{
        WireError,
        batch::{self, Batch},
        frame, v1,
    },
};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};
use tracing::{error, info, warn};

use super::{
    Probing, Uplink, WRITE_WITHIN,
    connection::{Live, Table},
    delivery::Delivery,
    session::Command,
};
use crate::spool::{Change, Key, Settled, TableOf, log::Answer, record, thread::Disk};

/// The disk's next answer; never, without a disk.
pub(super) async fn answer(disk: &mut Option<Disk>) -> Answer {
    match disk {
        Some(disk) => disk.answer().await,
        None => std::future::pending().await,
    }
}

impl<P: Probing> Uplink<P> {
    /// Puts the batch into the spool under the next sequence, or as several where one would exceed the limits of the wire.
    pub(super) fn push(&mut self, of: &TableOf, mut batch: Batch) {
        batch.sequence = self.spool.next_sequence();
        match batch::encode(&batch) {
            Ok(bytes) => {
                let span = (batch.window.start, batch.until);
                self.push_frame(Some(of.clone()), span, frame::frame_batch(&bytes));
            }
            Err(WireError::TooLarge { .. }) if batch.rows.len() > 1 => {
                let rows = batch.rows.split_off(batch.rows.len() / 2);
                let second = Batch {
                    rows,
                    ..batch.clone()
                };
                self.push(of, batch);
                self.push(of, second);
            }
            Err(error) => {
                self.figures.windows_unsent.fetch_add(1, Relaxed);
                error!(%error, "a window cannot be written as a batch");
            }
        }
    }

    /// Puts a message into the spool that was encoded with the next sequence, and sends it where it can be sent now.
    pub(super) fn push_frame(
        &mut self,
        table: Option<TableOf>,
        span: (Timestamp, Timestamp),
        frame: Vec<u8>,
    ) {
        let changes = self.spool.push(self.began.elapsed(), table, span, frame);
        self.figures.batches.fetch_add(1, Relaxed);
        self.tell(&changes);
        self.command_disk();
    }

    /// Every connection hears what happened to the line, and sends what may then be sent.
    pub(super) fn tell(&mut self, changes: &[Change]) {
        if changes.is_empty() {
            return;
        }
        // Findings count as stored where the aggregator's build takes none.
        for index in 0..self.aggregators.len() {
            if self.takes_no_findings(index) {
                self.pass_findings_over(index);
            }
        }
        for change in changes {
            if let Change::Table(of) = change {
                let frame = told_of_before(&of.table);
                let of = TableOf {
                    number: of.number,
                    table: Arc::new(frame),
                };
                let paths = Arc::from([]);
                let schema = None;
                self.tables.insert(of.number, Table { schema, paths, of });
            }
        }
        for index in 0..self.aggregators.len() {
            if let Some(live) = &mut self.aggregators[index].live {
                for change in changes {
                    match *change {
                        Change::Added(place) => {
                            let is_settled = |own: &crate::spool::Waiting| own.is_settled_at(index);
                            if !self.spool.get(place).is_none_or(is_settled) {
                                live.delivery.on_added(&self.spool, place);
                            }
                        }
                        Change::Gone(place) => live.delivery.on_gone(place),
                        Change::Table(_) => {}
                    }
                }
            }
            self.with_live(index, |_| Ok(()));
        }
    }

    /// Lets the disk do what is to be done.
    fn command_disk(&mut self) {
        let Some(disk) = &mut self.disk else {
            return;
        };
        let mut changes = Vec::new();
        disk.command(self.spool.commands(self.began.elapsed(), &mut changes));
        self.tell(&changes);
    }

    /// Something came of what the disk was told to do.
    pub(super) fn on_disk(&mut self, answer: Answer) {
        let is_read = matches!(answer, Answer::Read { .. });
        let changes = self.spool.on_answer(self.began.elapsed(), answer);
        for trouble in self.spool.take_troubles() {
            let crate::spool::log::Trouble {
                file, offset, what, ..
            } = &trouble;
            error!(
                file,
                offset, what, "a place in the spool on disk cannot be read; the rest is served"
            );
        }
        self.tell_trouble();
        self.tell(&changes);
        if is_read {
            for index in 0..self.aggregators.len() {
                self.with_live(index, |_| Ok(()));
            }
        }
        self.command_disk();
        self.forget_tables();
        self.publish();
    }

    /// A disk that fails is told of when it begins to and when it has stopped.
    fn tell_trouble(&mut self) {
        let trouble = self.spool.trouble();
        if trouble == self.trouble.as_deref() {
            return;
        }
        match trouble {
            Some(error) => warn!(
                error,
                "the spool's disk takes nothing; batches wait in memory, coarser where that gets full"
            ),
            None => info!("the spool's disk takes batches again"),
        }
        self.trouble = trouble.map(str::to_owned);
    }

    /// What time brings.
    pub(super) fn tend(&mut self) {
        let changes = self.spool.tend(self.began.elapsed());
        self.tell(&changes);
        self.command_disk();
        let epochs = self.spool.epochs();
        self.backlog.send_if_modified(|known| {
            let differ = *known != epochs;
            *known = epochs;
            differ
        });
        self.publish();
    }

    /// Writes what was not delivered, for the next life of the process.
    pub(super) async fn write_rest(&mut self) {
        self.spool.flush();
        self.command_disk();
        let deadline = Instant::now() + WRITE_WITHIN;
        while !self.spool.is_flushed() {
            match timeout_at(deadline, answer(&mut self.disk)).await {
                Ok(answer) => self.on_disk(answer),
                Err(_) => break,
            }
        }
        let (lost, kept) = (self.spool.in_memory_only(), self.spool.on_disk().0);
        if lost > 0 {
            warn!(
                batches = lost,
                "batches that no aggregator acknowledged are lost"
            );
        }
        if kept > 0 {
            info!(batches = kept, "batches wait on disk for the next start");
        }
    }

    pub(super) fn on_connected(
        &mut self,
        index: usize,
        commands: mpsc::Sender<Command>,
        welcome: &v1::Welcome,
    ) {
        let own = (self.identity.boot_epoch, welcome.durable_below);
        let before = welcome
            .backlog
            .iter()
            .map(|known| (known.boot_epoch, known.durable_below));
        for (boot_epoch, below) in std::iter::once(own).chain(before) {
            let changes = self.spool.stored_below(index, boot_epoch, below);
            self.tell(&changes);
        }
        if !welcome.findings {
            self.pass_findings_over(index);
        }
        let delivery = Delivery::new(index, &self.spool, welcome);
        self.aggregators[index].live = Some(Live {
            commands,
            delivery,
            findings: welcome.findings,
            acknowledged_at: Instant::now(),
        });
        self.with_live(index, |_| Ok(()));
        self.command_disk();
    }

    pub(super) fn on_table_durable(&mut self, index: usize, durable: v1::PathsDurable) {
        let boot_epoch = durable.boot_epoch.unwrap_or(self.identity.boot_epoch);
        let is_it = |table: &&Table| {
            (table.of.table.boot_epoch, table.of.table.number) == (boot_epoch, durable.table)
        };
        let Some(number) = self
            .tables
            .values()
            .find(is_it)
            .map(|table| table.of.number)
        else {
            return;
        };
        self.with_live(index, |live| {
            live.delivery.on_table_durable(number);
            Ok(())
        });
    }

    pub(super) fn on_durable(&mut self, index: usize, durable: v1::Durable) {
        let now = SystemClock.now();
        let boot_epoch = durable.boot_epoch.unwrap_or(self.identity.boot_epoch);
        let refused: BTreeSet<u64> = durable.refused.iter().copied().collect();
        if !refused.is_empty() {
            let aggregator = &self.aggregators[index].name;
            warn!(%aggregator, batches = refused.len(), reason = ?durable.reason, "the aggregator refuses batches; they are not sent again");
        }
        let (mut settled, mut gone) = (Vec::new(), Vec::new());
        for sequence in durable.sequences {
            let key = Key {
                boot_epoch,
                sequence,
            };
            let how = match refused.contains(&sequence) {
                true => Settled::Refused,
                false => Settled::Stored,
            };
            let Some((place, window_end, is_free)) = self.spool.settle(index, key, how) else {
                continue;
            };
            settled.push(place);
            if is_free {
                gone.push(Change::Gone(place));
            }
            if let Some(window_end) = window_end {
                let figures = &self.figures.aggregators[index].figures;
                figures.on_window_durable(now.since(window_end));
            }
        }
        self.with_live(index, |live| {
            live.acknowledged_at = Instant::now();
            live.delivery.on_credit(durable.credit);
            for place in settled {
                live.delivery.on_settled(place);
            }
            Ok(())
        });
        self.tell(&gone);
        self.command_disk();
    }
}

/// The table of a life before as it is told in this one: with the boot epoch that it is of.
fn told_of_before(table: &record::Table) -> record::Table {
    let told = || {
        let (header, payload) = table.frame.split_first_chunk::<{ frame::HEADER_BYTES }>()?;
        let header = frame::parse_header(header).ok()?;
        match frame::parse_from_agent(&header, payload).ok()? {
            v1::FromAgent::Paths(paths) => Some(v1::FromAgent::Paths(v1::Paths {
                boot_epoch: Some(table.boot_epoch),
                ..paths
            })),
            _ => None,
        }
    };
    record::Table {
        frame: told().map_or_else(Vec::new, |told| frame::frame_from_agent(&told)),
        ..*table
    }
}
