//! What is counted about the uplink. Written by the sessions and the uplink, read by the status page.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use leeward_common::check::Outcome;

use super::{failure::Failure, flows::FlowTable, transport::Transport};
use crate::spool::{Counts, Spool};

/// Upper ends, in milliseconds, of the buckets of [`AggregatorFigures::window_ages`]; the last bucket has none.
pub const AGE_BUCKETS_MS: [u32; 10] = [5, 10, 25, 50, 100, 250, 500, 1_000, 5_000, 30_000];

/// About one aggregator.
#[derive(Debug, Default)]
pub struct AggregatorFigures {
    connected: AtomicBool,
    /// By TLS over TCP; otherwise by QUIC.
    over_tls: AtomicBool,
    connections: AtomicU64,
    failures: [AtomicU64; Failure::CAUSES.len()],
    batches_sent: AtomicU64,
    bytes_sent: AtomicU64,
    batches_durable: AtomicU64,
    rtt_us: AtomicU64,
    ages: [AtomicU64; AGE_BUCKETS_MS.len() + 1],
    ages_sum_us: AtomicU64,
}

impl AggregatorFigures {
    pub(super) fn on_connected(&self, transport: Transport) {
        self.over_tls.store(transport == Transport::Tls, Relaxed);
        self.connected.store(true, Relaxed);
        self.connections.fetch_add(1, Relaxed);
    }

    pub(super) fn on_disconnected(&self) {
        self.connected.store(false, Relaxed);
    }

    pub(super) fn on_failure(&self, failure: &Failure) {
        let cause = Failure::CAUSES
            .iter()
            .position(|&cause| cause == failure.cause());
        if let Some(count) = cause.and_then(|cause| self.failures.get(cause)) {
            count.fetch_add(1, Relaxed);
        }
    }

    pub(super) fn on_batch_sent(&self, bytes: usize) {
        self.batches_sent.fetch_add(1, Relaxed);
        self.bytes_sent.fetch_add(bytes as u64, Relaxed);
    }

    pub(super) fn on_durable(&self, batches: usize, rtt: Option<Duration>) {
        self.batches_durable.fetch_add(batches as u64, Relaxed);
        if let Some(rtt) = rtt {
            self.rtt_us
                .store(u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX), Relaxed);
        }
    }

    pub(super) fn on_window_durable(&self, age: Duration) {
        let within = |&ms: &u32| age <= Duration::from_millis(u64::from(ms));
        let bucket = AGE_BUCKETS_MS
            .iter()
            .position(within)
            .unwrap_or(AGE_BUCKETS_MS.len());
        self.ages[bucket].fetch_add(1, Relaxed);
        self.ages_sum_us
            .fetch_add(u64::try_from(age.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    /// How long after the end of their windows batches were known to be durable: how many in each of
    /// [`AGE_BUCKETS_MS`] and beyond, and the sum of all ages.
    #[must_use]
    pub fn window_ages(&self) -> ([u64; AGE_BUCKETS_MS.len() + 1], Duration) {
        let sum = Duration::from_micros(self.ages_sum_us.load(Relaxed));
        (self.ages.each_ref().map(|count| count.load(Relaxed)), sum)
    }

    /// Whether its hello is accepted and its connection lives.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connected.load(Relaxed)
    }

    /// What carries its connection, or carried the last one.
    #[must_use]
    pub fn transport(&self) -> Transport {
        match self.over_tls.load(Relaxed) {
            true => Transport::Tls,
            false => Transport::Quic,
        }
    }

    /// Hellos accepted.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.connections.load(Relaxed)
    }

    /// Connections that failed or ended, by cause, in the order of [`Failure::CAUSES`].
    #[must_use]
    pub fn failures(&self) -> [u64; Failure::CAUSES.len()] {
        self.failures.each_ref().map(|count| count.load(Relaxed))
    }

    /// Batches given to a connection, repetitions included.
    #[must_use]
    pub fn batches_sent(&self) -> u64 {
        self.batches_sent.load(Relaxed)
    }

    /// Bytes of them.
    #[must_use]
    pub fn bytes_sent(&self) -> u64 {
        self.bytes_sent.load(Relaxed)
    }

    /// Acknowledgements of batches.
    #[must_use]
    pub fn batches_durable(&self) -> u64 {
        self.batches_durable.load(Relaxed)
    }

    /// Round-trip time of the connection at the last acknowledgement; zero before the first.
    #[must_use]
    pub fn rtt(&self) -> Duration {
        Duration::from_micros(self.rtt_us.load(Relaxed))
    }
}

/// About all of them together.
#[derive(Debug, Default)]
pub struct UplinkFigures {
    /// In the order of the configuration.
    pub aggregators: Vec<AggregatorFiguresOf>,
    pub(super) paths: AtomicU64,
    pub(super) targets_refused: AtomicU64,
    pub(super) checks: AtomicU64,
    check_results: [AtomicU64; Outcome::ALL.len()],
    pub(super) batches: AtomicU64,
    pub(super) windows_unsent: AtomicU64,
    pub(super) waiting: AtomicU64,
    pub(super) waiting_bytes: AtomicU64,
    flows: Mutex<Option<Arc<FlowTable>>>,
    /// What is counted of the spool.
    pub spool: SpoolFigures,
}

/// What is counted of the spool.
#[derive(Debug, Default)]
pub struct SpoolFigures {
    dropped: AtomicU64,
    refused: AtomicU64,
    coarsened: AtomicU64,
    written: AtomicU64,
    recovered: AtomicU64,
    damaged: AtomicU64,
    write_errors: AtomicU64,
    on_disk: AtomicU64,
    disk_bytes: AtomicU64,
    failing: AtomicBool,
}

impl SpoolFigures {
    pub(super) fn publish(&self, spool: &Spool) {
        let counts = spool.counts();
        let (on_disk, disk_bytes) = spool.on_disk();
        for (figure, value) in [
            (&self.dropped, counts.dropped),
            (&self.refused, counts.refused),
            (&self.coarsened, counts.coarsened),
            (&self.written, counts.written),
            (&self.recovered, counts.recovered),
            (&self.damaged, counts.damaged),
            (&self.write_errors, counts.write_errors),
            (&self.on_disk, on_disk),
            (&self.disk_bytes, disk_bytes),
        ] {
            figure.store(value, Relaxed);
        }
        self.failing.store(spool.trouble().is_some(), Relaxed);
    }

    /// What happened to batches since the start.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            dropped: self.dropped.load(Relaxed),
            refused: self.refused.load(Relaxed),
            coarsened: self.coarsened.load(Relaxed),
            written: self.written.load(Relaxed),
            recovered: self.recovered.load(Relaxed),
            damaged: self.damaged.load(Relaxed),
            write_errors: self.write_errors.load(Relaxed),
        }
    }

    /// Batches on disk, and bytes of its segments.
    #[must_use]
    pub fn on_disk(&self) -> (u64, u64) {
        (self.on_disk.load(Relaxed), self.disk_bytes.load(Relaxed))
    }

    /// Whether the disk takes nothing.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.failing.load(Relaxed)
    }
}

/// Figures with the aggregator that they are about.
#[derive(Debug)]
pub struct AggregatorFiguresOf {
    /// Its address, from the configuration.
    pub aggregator: String,
    /// Its figures.
    pub figures: std::sync::Arc<AggregatorFigures>,
}

impl UplinkFigures {
    /// Paths in the plan.
    #[must_use]
    pub fn paths(&self) -> u64 {
        self.paths.load(Relaxed)
    }

    /// Targets that the aggregators want probed and this agent refuses.
    #[must_use]
    pub fn targets_refused(&self) -> u64 {
        self.targets_refused.load(Relaxed)
    }

    pub(super) fn on_checked(&self, outcome: Outcome) {
        let place = Outcome::ALL.iter().position(|&own| own == outcome);
        if let Some(count) = place.and_then(|place| self.check_results.get(place)) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// Checks that the aggregators ask for.
    #[must_use]
    pub fn checks(&self) -> u64 {
        self.checks.load(Relaxed)
    }

    /// Checks carried out, by what came of them, in the order of [`Outcome::ALL`].
    #[must_use]
    pub fn check_results(&self) -> [u64; Outcome::ALL.len()] {
        let counts = self.check_results.each_ref();
        counts.map(|count| count.load(Relaxed))
    }

    /// Batches put into the spool.
    #[must_use]
    pub fn batches(&self) -> u64 {
        self.batches.load(Relaxed)
    }

    /// Windows that no batch could be made of. A defect if it is not zero.
    #[must_use]
    pub fn windows_unsent(&self) -> u64 {
        self.windows_unsent.load(Relaxed)
    }

    pub(super) fn set_flows(&self, table: FlowTable) {
        let mut flows = self.flows.lock().unwrap_or_else(PoisonError::into_inner);
        *flows = Some(Arc::new(table));
    }

    /// What the flows of each path did in the last span; `None` before one has ended, and where paths have one flow.
    #[must_use]
    pub fn flows(&self) -> Option<Arc<FlowTable>> {
        self.flows
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Batches in the spool.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Relaxed)
    }

    /// Memory that they take.
    #[must_use]
    pub fn waiting_bytes(&self) -> u64 {
        self.waiting_bytes.load(Relaxed)
    }

    /// Batches given up because the spool was full.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.spool.counts().dropped
    }
}
