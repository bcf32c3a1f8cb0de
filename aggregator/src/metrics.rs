//! Every Prometheus name of the aggregator, in one place.
//!
//! Labels come from the config or from certificates, never from packets. Queues are two counters (in, out): a gauge
//! would hide the spike between two scrapes.

use std::{fmt, sync::atomic::AtomicU64, time::Duration};

use leeward_common::id::AgentId;
use leeward_engine::input::CheckResults;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use crate::store::Health;

/// One answered HTTP request.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct Request {
    /// The route's pattern, such as `/v1/failover/{primary_region}`; never the raw path.
    pub route: &'static str,
    /// Status code.
    pub status: u16,
}

/// A reason, one of a closed set.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct Reason {
    /// One word.
    pub reason: &'static str,
}

/// A reason of a decision, one of the engine's closed set.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct DecisionReason {
    /// One word.
    pub reason: String,
}

/// How a client stays.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stay {
    /// It waits for a change.
    Wait,
    /// It follows the stream.
    Stream,
}

impl Stay {
    /// What those do who have places of this kind.
    #[must_use]
    pub const fn verb(self) -> &'static str {
        match self {
            Self::Wait => "wait",
            Self::Stream => "follow the stream",
        }
    }
}

/// What kind of place or event, one of a closed set.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct Kind {
    /// One word.
    pub kind: &'static str,
}

impl From<Stay> for Kind {
    fn from(stay: Stay) -> Self {
        let kind = match stay {
            Stay::Wait => "wait",
            Stay::Stream => "stream",
        };
        Self { kind }
    }
}

impl From<&'static str> for Kind {
    fn from(kind: &'static str) -> Self {
        Self { kind }
    }
}

/// An agent, by its certificate.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct Agent {
    /// Its id.
    pub agent: String,
}

/// What became of an agent's batches.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct AgentOutcome {
    /// Its id.
    pub agent: String,
    /// `durable`, `repeated`, `refused` or `not_stored`.
    pub outcome: &'static str,
}

/// The hash of the newest entry of the audit log: kept by whoever scrapes, it pins the log's end.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Head {
    hash: String,
}

/// The build.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Build {
    version: &'static str,
}

/// What agents do.
#[derive(Debug, Default)]
pub struct Ingest {
    /// Connections that did not get through the handshake, by reason.
    pub handshakes_refused: Family<Reason, Counter>,
    /// Sessions refused or ended by us, by reason.
    pub sessions_refused: Family<Reason, Counter>,
    /// Sessions that began.
    pub sessions_opened: Counter,
    /// Sessions that ended.
    pub sessions_closed: Counter,
    /// Batches by agent and outcome.
    pub batches: Family<AgentOutcome, Counter>,
    /// Results of checks by agent and outcome.
    pub check_results: Family<AgentOutcome, Counter>,
    /// Bytes of batches by agent.
    pub batch_bytes: Family<Agent, Counter>,
    /// Rows of batches, one per path and window, by agent.
    pub windows: Family<Agent, Counter>,
    /// Path tables by agent.
    pub tables: Family<Agent, Counter>,
    /// Findings of agents.
    pub findings: Counter,
    /// Times that an agent's next message had to wait because of its rate.
    pub held_back: Family<Agent, Counter>,
    /// Meshes sent.
    pub meshes: Counter,
    /// Granted size of the UDP socket's receive buffer.
    pub receive_buffer_bytes: Gauge,
}

/// What the turn thread does.
#[derive(Debug)]
pub struct Turn {
    /// Arrivals handed to it.
    pub arrivals_in: Counter,
    /// Arrivals taken by it.
    pub arrivals_out: Counter,
    /// Duration of a turn.
    pub seconds: Histogram,
    /// From the receipt of a batch to its effect in the published view.
    pub batch_seconds: Histogram,
    /// From the end of a window, by its agent's clock, to its effect in the published view.
    pub window_seconds: Histogram,
}

/// What the store does.
#[derive(Debug)]
pub struct Store {
    /// Duration of a synced write.
    pub commit_seconds: Histogram,
    /// Writes that failed.
    pub failures: Counter,
    /// Size of the last snapshot.
    pub snapshot_bytes: Gauge,
    /// Journal records replayed at the start.
    pub replayed: Counter,
    /// Journal records that could not be replayed.
    pub skipped: Counter,
}

/// What the rollups do.
#[derive(Debug, Default)]
pub struct Rollup {
    /// Reports added.
    pub reports: Counter,
    /// Rows written.
    pub rows: Counter,
    /// Records of the journal, and rows, that could not be read.
    pub unreadable: Counter,
    /// Steps that failed.
    pub failures: Counter,
    /// How far they are behind what could be in them; 0 while they keep up.
    pub behind_seconds: Gauge<f64, AtomicU64>,
    /// Background work of the store that failed.
    background_errors: Gauge,
    /// Whether the store takes no writes until background work has caught up.
    stalled: Gauge,
    /// Bytes in files, by column.
    column_bytes: Family<Kind, Gauge>,
}

/// What clients of the API do that stay.
#[derive(Debug)]
pub struct Http {
    /// Places taken, by kind.
    pub places_taken: Family<Kind, Counter>,
    /// Places free again, by kind.
    pub places_freed: Family<Kind, Counter>,
    /// Places that were asked for in vain, by kind.
    pub places_refused: Family<Kind, Counter>,
    /// Events told, by kind; one however many hear it.
    pub events: Family<Kind, Counter>,
    /// Streams ended because the client was too slow.
    pub slow_clients: Counter,
    /// Connections ended because the client took nothing for too long.
    pub stalled: Counter,
    /// Streams that could not go on where their client was.
    pub resets: Counter,
    /// Time to compare two pictures.
    pub look_seconds: Histogram,
}

/// The counters. Everything is updated in place by whoever knows it first.
pub struct Metrics {
    registry: Registry,
    /// What agents do.
    pub ingest: Ingest,
    /// What the turn thread does.
    pub turn: Turn,
    /// What the store does.
    pub store: Store,
    /// What the rollups do.
    pub rollup: Rollup,
    /// Decisions by reason.
    pub decisions: Family<DecisionReason, Counter>,
    /// Whether the last reload of the config was a success.
    pub config_reload_ok: Gauge,
    /// Definitions of files that were changed through the API and are left alone.
    pub definitions_disputed: Gauge,
    /// How far the shadow policy is behind.
    shadow_behind_seconds: Gauge<f64, AtomicU64>,
    /// How often the shadow policy had to begin again because it could not keep up.
    pub shadow_restarts: Counter,
    /// Entries of the audit log.
    pub audit_entries: Gauge,
    /// The hash of the newest of them.
    audit_head: Family<Head, Gauge>,
    /// What clients of the API do that stay.
    pub http: Http,
    /// Answered HTTP requests.
    pub http_requests: Family<Request, Counter>,
    /// Time to answer one, seconds; waits apart.
    pub http_request_seconds: Histogram,
}

/// Bounds in seconds: a synced write takes 0.1 to 10 ms, a storm's turn some 100 ms.
const TURN_BOUNDS: [f64; 9] = [0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 2.5];
/// Bounds in seconds: live windows arrive within a fraction of a second, backlogs after hours.
const AGE_BOUNDS: [f64; 10] = [
    0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 60.0, 3_600.0, 86_400.0,
];

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("leeward_aggregator");
        let metrics = Self {
            ingest: Ingest::default(),
            turn: Turn {
                arrivals_in: Counter::default(),
                arrivals_out: Counter::default(),
                seconds: Histogram::new(TURN_BOUNDS),
                batch_seconds: Histogram::new(TURN_BOUNDS),
                window_seconds: Histogram::new(AGE_BOUNDS),
            },
            store: Store {
                commit_seconds: Histogram::new(TURN_BOUNDS),
                failures: Counter::default(),
                snapshot_bytes: Gauge::default(),
                replayed: Counter::default(),
                skipped: Counter::default(),
            },
            rollup: Rollup::default(),
            decisions: Family::default(),
            config_reload_ok: Gauge::default(),
            definitions_disputed: Gauge::default(),
            shadow_behind_seconds: Gauge::default(),
            shadow_restarts: Counter::default(),
            audit_entries: Gauge::default(),
            audit_head: Family::default(),
            http: Http {
                places_taken: Family::default(),
                places_freed: Family::default(),
                places_refused: Family::default(),
                events: Family::default(),
                slow_clients: Counter::default(),
                stalled: Counter::default(),
                resets: Counter::default(),
                look_seconds: Histogram::new(TURN_BOUNDS),
            },
            http_requests: Family::default(),
            http_request_seconds: Histogram::new([
                0.000_1, 0.000_5, 0.001, 0.005, 0.025, 0.1, 0.5, 2.5,
            ]),
            registry: Registry::default(),
        };
        metrics.config_reload_ok.set(1);
        metrics.register(&mut registry);
        Self {
            registry,
            ..metrics
        }
    }
}

impl Metrics {
    fn register(&self, registry: &mut Registry) {
        let build = Family::<Build, Gauge>::default();
        build
            .get_or_create(&Build {
                version: crate::BUILD,
            })
            .set(1);
        registry.register("build_info", "The build", build);
        self.register_ingest(registry);
        self.register_turn(registry);
        self.register_rollup(registry);
        registry.register(
            "decisions",
            "Decisions taken, by reason",
            self.decisions.clone(),
        );
        registry.register(
            "config_reload_ok",
            "1 if the config was valid when it was last read",
            self.config_reload_ok.clone(),
        );
        registry.register(
            "definitions_disputed",
            "Definitions of files that were changed through the API and are left alone",
            self.definitions_disputed.clone(),
        );
        registry.register_with_unit(
            "shadow_behind",
            "How far the shadow policy is behind what is in force",
            Unit::Seconds,
            self.shadow_behind_seconds.clone(),
        );
        registry.register(
            "shadow_restarts",
            "How often the shadow policy began again because it could not keep up",
            self.shadow_restarts.clone(),
        );
        registry.register(
            "audit_entries",
            "Entries of the audit log",
            self.audit_entries.clone(),
        );
        registry.register(
            "audit_head_info",
            "The hash of the newest entry of the audit log",
            self.audit_head.clone(),
        );
        registry.register(
            "http_requests",
            "Answered HTTP requests",
            self.http_requests.clone(),
        );
        registry.register_with_unit(
            "http_request",
            "Time to answer an HTTP request, waits apart",
            Unit::Seconds,
            self.http_request_seconds.clone(),
        );
        self.register_http(registry);
    }

    fn register_http(&self, registry: &mut Registry) {
        let http = &self.http;
        for (name, help, family) in [
            (
                "http_places_taken",
                "Places of clients that wait or follow, taken",
                &http.places_taken,
            ),
            (
                "http_places_freed",
                "Places of clients that wait or follow, free again",
                &http.places_freed,
            ),
            (
                "http_places_refused",
                "Clients that found no place to wait or follow",
                &http.places_refused,
            ),
            (
                "watch_events",
                "Events told, however many hear them",
                &http.events,
            ),
        ] {
            registry.register(name, help, family.clone());
        }
        for (name, help, counter) in [
            (
                "watch_slow_clients",
                "Streams ended because the client was too far behind",
                &http.slow_clients,
            ),
            (
                "http_stalled",
                "Connections ended because the client took nothing for too long",
                &http.stalled,
            ),
            (
                "watch_resets",
                "Streams that could not go on where their client was",
                &http.resets,
            ),
        ] {
            registry.register(name, help, counter.clone());
        }
        registry.register_with_unit(
            "watch_look",
            "Time to find out what changed",
            Unit::Seconds,
            http.look_seconds.clone(),
        );
    }

    fn register_rollup(&self, registry: &mut Registry) {
        let rollup = &self.rollup;
        for (name, help, counter) in [
            (
                "rollup_reports",
                "Reports added to rollups",
                &rollup.reports,
            ),
            ("rollup_rows", "Rows of rollups written", &rollup.rows),
            (
                "rollup_unreadable",
                "Records and rows that rollups could not read",
                &rollup.unreadable,
            ),
            (
                "rollup_failures",
                "Steps of rollups that failed",
                &rollup.failures,
            ),
        ] {
            registry.register(name, help, counter.clone());
        }
        registry.register_with_unit(
            "rollup_behind",
            "How far rollups are behind, 0 while they keep up",
            Unit::Seconds,
            rollup.behind_seconds.clone(),
        );
        registry.register(
            "store_background_errors",
            "Background work of the store that failed since it was opened",
            rollup.background_errors.clone(),
        );
        registry.register(
            "store_stalled",
            "1 while the store takes no writes until background work has caught up",
            rollup.stalled.clone(),
        );
        registry.register_with_unit(
            "store_column",
            "Size of a column's files",
            Unit::Bytes,
            rollup.column_bytes.clone(),
        );
    }

    /// Notes how the store fares.
    pub fn store_health(&self, health: &Health) {
        let rollup = &self.rollup;
        rollup
            .background_errors
            .set(health.background_errors as i64);
        rollup.stalled.set(i64::from(health.is_stalled));
        for (column, size) in &health.columns {
            let bytes = rollup.column_bytes.get_or_create(&column.name().into());
            bytes.set(size.file_bytes as i64);
        }
    }

    fn register_ingest(&self, registry: &mut Registry) {
        let ingest = &self.ingest;
        registry.register(
            "handshakes_refused",
            "Connections that did not get through the handshake",
            ingest.handshakes_refused.clone(),
        );
        registry.register(
            "sessions_refused",
            "Sessions refused or ended by the aggregator",
            ingest.sessions_refused.clone(),
        );
        registry.register(
            "sessions_opened",
            "Sessions that began",
            ingest.sessions_opened.clone(),
        );
        registry.register(
            "sessions_closed",
            "Sessions that ended",
            ingest.sessions_closed.clone(),
        );
        registry.register(
            "batches",
            "Batches received, by what became of them",
            ingest.batches.clone(),
        );
        registry.register_with_unit(
            "batch",
            "Size of received batches",
            Unit::Bytes,
            ingest.batch_bytes.clone(),
        );
        registry.register(
            "check_results",
            "Results of checks received, by what came of them",
            ingest.check_results.clone(),
        );
        registry.register(
            "windows",
            "Windows of paths received",
            ingest.windows.clone(),
        );
        registry.register("path_tables", "Path tables received", ingest.tables.clone());
        registry.register("findings", "Findings received", ingest.findings.clone());
        registry.register(
            "messages_held_back",
            "Times that an agent's next message had to wait because of limits.max_messages_per_second",
            ingest.held_back.clone(),
        );
        registry.register("meshes_sent", "Meshes sent", ingest.meshes.clone());
        registry.register_with_unit(
            "receive_buffer",
            "Granted receive buffer of the socket for agents",
            Unit::Bytes,
            ingest.receive_buffer_bytes.clone(),
        );
    }

    fn register_turn(&self, registry: &mut Registry) {
        let (turn, store) = (&self.turn, &self.store);
        registry.register(
            "arrivals_in",
            "Arrivals handed to the turn thread",
            turn.arrivals_in.clone(),
        );
        registry.register(
            "arrivals_out",
            "Arrivals taken by the turn thread",
            turn.arrivals_out.clone(),
        );
        registry.register_with_unit(
            "turn",
            "Duration of a turn",
            Unit::Seconds,
            turn.seconds.clone(),
        );
        registry.register_with_unit(
            "batch_to_view",
            "From the receipt of a batch to its effect in the published view",
            Unit::Seconds,
            turn.batch_seconds.clone(),
        );
        registry.register_with_unit(
            "window_to_view",
            "From the end of a window, by its agent's clock, to its effect in the published view",
            Unit::Seconds,
            turn.window_seconds.clone(),
        );
        registry.register_with_unit(
            "store_commit",
            "Duration of a synced write to the store",
            Unit::Seconds,
            store.commit_seconds.clone(),
        );
        registry.register(
            "store_failures",
            "Writes that the store refused",
            store.failures.clone(),
        );
        registry.register_with_unit(
            "snapshot",
            "Size of the last snapshot of the engine",
            Unit::Bytes,
            store.snapshot_bytes.clone(),
        );
        registry.register(
            "journal_replayed",
            "Journal records replayed at the start",
            store.replayed.clone(),
        );
        registry.register(
            "journal_skipped",
            "Journal records that could not be replayed at the start",
            store.skipped.clone(),
        );
    }

    /// Counts a decision.
    pub fn decision(&self, reason: &str) {
        self.decisions
            .get_or_create(&DecisionReason {
                reason: reason.to_owned(),
            })
            .inc();
    }

    /// Says how far the shadow policy is behind.
    pub fn shadow_behind(&self, behind: Duration) {
        self.shadow_behind_seconds.set(behind.as_secs_f64());
    }

    /// Says where the audit log ends.
    pub fn audited(&self, length: u64, hash: &str) {
        if self.audit_entries.get() == length as i64 && length > 0 {
            return;
        }
        self.audit_entries.set(length as i64);
        self.audit_head.clear();
        let head = Head {
            hash: hash.to_owned(),
        };
        self.audit_head.get_or_create(&head).set(1);
    }

    /// Counts a batch.
    pub fn batch(&self, agent: &AgentId, outcome: &'static str) {
        let labels = AgentOutcome {
            agent: agent.to_string(),
            outcome,
        };
        self.ingest.batches.get_or_create(&labels).inc();
    }

    /// Counts the results of an agent's checks.
    pub fn checks(&self, told: &CheckResults) {
        for result in &told.results {
            let labels = AgentOutcome {
                agent: told.agent.to_string(),
                outcome: result.outcome.as_str(),
            };
            self.ingest.check_results.get_or_create(&labels).inc();
        }
    }

    /// The text of `/metrics`, in the OpenMetrics format
    /// (`application/openmetrics-text; version=1.0.0; charset=utf-8`).
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a string cannot fail");
        text
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_begins_alike_and_says_its_unit() {
        let metrics = Metrics::default();
        metrics.batch(&AgentId::parse("a").unwrap(), "durable");
        metrics.decision("initial");
        let text = metrics.encode();
        assert!(
            text.contains("leeward_aggregator_batches_total{agent=\"a\",outcome=\"durable\"} 1"),
            "{text}"
        );
        assert!(
            text.contains("leeward_aggregator_turn_seconds_bucket"),
            "{text}"
        );
        let names = text.lines().filter(|line| !line.starts_with('#'));
        assert!(
            names
                .into_iter()
                .all(|line| line.starts_with("leeward_aggregator_")),
            "{text}"
        );
    }
}
