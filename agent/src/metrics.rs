//! Every Prometheus name of the agent, in one place.
//!
//! A scrape reads snapshots that exist anyway, so there is no registry: the page is written line by line.

use std::{
    fmt::{Display, Write as _},
    sync::atomic::Ordering::Relaxed,
};

use leeward_common::{
    check::Outcome,
    id::{AgentId, RegionId},
    report::{Class, ProbeKind},
    time::Timestamp,
};

use crate::{
    bandwidth::surveyor::{Newest, SurveyCounters},
    bgp::live,
    prober::{
        Counters, Family, Mode, Modes,
        counters::{StampSource, Stray},
    },
    process::Usage,
    reflector::{ReflectorCounters, Refused},
    uplink::{
        failure::Failure,
        figures::{AGE_BUCKETS_MS, AggregatorFigures, UplinkFigures},
        transport::Transport,
    },
};

/// What a scrape shows.
#[derive(Debug)]
pub struct Snapshot<'a> {
    /// The agent.
    pub agent: &'a AgentId,
    /// Its region.
    pub region: &'a RegionId,
    /// Of the prober.
    pub prober: Counters,
    /// How its probes leave.
    pub modes: Modes,
    /// Of the uplink.
    pub uplink: &'a UplinkFigures,
    /// Of the process.
    pub usage: Usage,
    /// TCP connections accepted on the answer port.
    pub answers: u64,
    /// Of the STAMP reflector, if there is one.
    pub reflector: Option<ReflectorCounters>,
    /// Of measuring bandwidth.
    pub surveys: SurveyCounters,
    /// How much each link carries.
    pub bandwidths: Newest,
    /// Of live feeds of routing, if there are any.
    pub routing: Option<&'a live::Figures>,
    /// When the agent's certificate expires.
    pub certificate_expires_at: Timestamp,
}

/// The page in Prometheus' text format.
#[must_use]
pub fn render(snapshot: &Snapshot<'_>) -> String {
    let mut page = Page(String::with_capacity(8 << 10));
    page.build(snapshot);
    page.prober(&snapshot.prober);
    page.modes(&snapshot.modes);
    page.uplink(snapshot.uplink);
    page.reflector(snapshot.reflector.unwrap_or_default());
    page.surveys(snapshot.surveys, &snapshot.bandwidths);
    if let Some(figures) = snapshot.routing {
        page.routing(figures);
    }
    page.process(snapshot);
    page.0
}

struct Page(String);

const COUNTER: &str = "counter";
const GAUGE: &str = "gauge";

impl Page {
    fn metric(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(
            self.0,
            "# HELP leeward_agent_{name} {help}\n# TYPE leeward_agent_{name} {kind}\n"
        );
    }

    /// Label values come from the configuration or from our own lists, and hold nothing that needs escaping.
    fn labelled(&mut self, name: &str, labels: &[(&str, &dyn Display)], value: impl Display) {
        let _ = write!(self.0, "leeward_agent_{name}");
        for (n, (label, text)) in labels.iter().enumerate() {
            let _ = write!(
                self.0,
                "{}{label}=\"{text}\"",
                if n == 0 { '{' } else { ',' }
            );
        }
        let _ = writeln!(
            self.0,
            "{} {value}",
            if labels.is_empty() { "" } else { "}" }
        );
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.metric(name, kind, help);
        self.labelled(name, &[], value);
    }

    fn family<'a, V: Display>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (&'a str, V)>,
    ) {
        self.metric(name, COUNTER, help);
        for (text, value) in values {
            self.labelled(name, &[(label, &text)], value);
        }
    }

    fn build(&mut self, snapshot: &Snapshot<'_>) {
        self.metric(
            "build_info",
            GAUGE,
            "Which agent of which build this is; always 1.",
        );
        let version = env!("CARGO_PKG_VERSION");
        self.labelled(
            "build_info",
            &[
                ("version", &version),
                ("agent", snapshot.agent),
                ("region", snapshot.region),
            ],
            1,
        );
    }

    fn prober(&mut self, counters: &Counters) {
        self.one(
            "probes_scheduled_total",
            COUNTER,
            "Probes whose time came.",
            counters.scheduled,
        );
        self.one(
            "probes_sent_total",
            COUNTER,
            "Probe packets that the kernel took.",
            counters.sent,
        );
        let classes = Class::ALL
            .iter()
            .map(|&class| (class.as_str(), counters.of(class)));
        self.family(
            "probes_total",
            "Probes by what became of them.",
            "class",
            classes,
        );
        self.one(
            "probes_abandoned_total",
            COUNTER,
            "Probes under way when their path left the plan.",
            counters.abandoned,
        );
        self.one(
            "probes_rate_capped_total",
            COUNTER,
            "Probes not sent because of the rate cap.",
            counters.rate_capped,
        );
        let stamps = StampSource::ALL
            .iter()
            .map(|source| source.as_str())
            .zip(counters.stamps);
        self.family(
            "round_trips_total",
            "Round-trip times by where their stamps came from.",
            "stamps",
            stamps,
        );
        let strays = Stray::ALL
            .iter()
            .map(|stray| stray.as_str())
            .zip(counters.strays);
        self.family(
            "stray_packets_total",
            "Packets that answered no probe.",
            "kind",
            strays,
        );
        self.one(
            "receive_overflows_total",
            COUNTER,
            "Packets dropped because a receive queue was full.",
            counters.receive_overflow,
        );
        self.one(
            "receive_errors_total",
            COUNTER,
            "Receive calls that failed.",
            counters.receive_errors,
        );
        self.one(
            "clock_steps_total",
            COUNTER,
            "Steps of the wall clock.",
            counters.clock_steps,
        );
        self.one(
            "clock_discards_total",
            COUNTER,
            "Answers discarded because the clock stepped.",
            counters.clock_discards,
        );
        self.one(
            "stamp_disbelieved_total",
            COUNTER,
            "STAMP replies whose times make no sense.",
            counters.reflections_disbelieved,
        );
        self.one(
            "stalls_total",
            COUNTER,
            "Times that the probe thread fell so far behind that it skipped.",
            counters.stalls,
        );
        self.one(
            "windows_closed_total",
            COUNTER,
            "Windows closed.",
            counters.windows,
        );
        self.one(
            "windows_dropped_total",
            COUNTER,
            "Windows dropped because the uplink did not take them.",
            counters.windows_dropped,
        );
        self.metric(
            "send_lateness_seconds",
            "summary",
            "How late probes left, since the start.",
        );
        for q in [0.5, 0.99] {
            let seconds = counters.lateness.quantile(q) as f64 / 1e6;
            self.labelled("send_lateness_seconds", &[("quantile", &q)], seconds);
        }
        self.labelled(
            "send_lateness_seconds_count",
            &[],
            counters.lateness.count(),
        );
    }

    fn modes(&mut self, modes: &Modes) {
        self.metric(
            "probe_mode",
            GAUGE,
            "How probes of a kind leave: raw sockets, ping sockets, connect, UDP, or not at all; always 1.",
        );
        for kind in ProbeKind::ALL {
            for family in Family::ALL {
                let mode = modes.mode(kind, family).map_or("none", Mode::as_str);
                let labels: [(&str, &dyn Display); 3] = [
                    ("kind", &kind),
                    ("family", &family.as_str()),
                    ("mode", &mode),
                ];
                self.labelled("probe_mode", &labels, 1);
            }
        }
    }

    fn uplink(&mut self, uplink: &UplinkFigures) {
        self.one("paths", GAUGE, "Paths that are probed.", uplink.paths());
        self.one(
            "paths_with_unlike_flows",
            GAUGE,
            "Paths of which some flows lost probes and others none, or one was slower at its best than another on average.",
            uplink.flows().map_or(0, |flows| flows.unlike().count()),
        );
        self.one(
            "targets_refused",
            GAUGE,
            "Targets that an aggregator wants probed and this agent refuses.",
            uplink.targets_refused(),
        );
        self.one(
            "checks",
            GAUGE,
            "Checks of services that an aggregator asks for.",
            uplink.checks(),
        );
        let words = Outcome::ALL.iter().map(|outcome| outcome.as_str());
        self.family(
            "checks_total",
            "Checks of services that were carried out, by what came of them.",
            "outcome",
            words.zip(uplink.check_results()),
        );
        self.one(
            "batches_total",
            COUNTER,
            "Batches put into the spool.",
            uplink.batches(),
        );
        self.one(
            "batches_dropped_total",
            COUNTER,
            "Batches given up because the spool was full.",
            uplink.dropped(),
        );
        self.one(
            "batches_waiting",
            GAUGE,
            "Batches that an aggregator has not acknowledged.",
            uplink.waiting(),
        );
        self.one(
            "batches_waiting_bytes",
            GAUGE,
            "Memory that they take.",
            uplink.waiting_bytes(),
        );
        let counts = uplink.spool.counts();
        for (name, help, value) in [
            (
                "batches_refused_total",
                "Batches that an aggregator refused for their window: too old, or in the future.",
                counts.refused,
            ),
            (
                "batches_coarsened_total",
                "Batches merged into longer windows because there was no room for them.",
                counts.coarsened,
            ),
            (
                "spool_written_total",
                "Batches written to the spool's disk.",
                counts.written,
            ),
            (
                "spool_recovered_total",
                "Batches found on the spool's disk at the start.",
                counts.recovered,
            ),
            (
                "spool_damaged_total",
                "Places on the spool's disk that could not be read.",
                counts.damaged,
            ),
            (
                "spool_write_errors_total",
                "Writes that the spool's disk refused.",
                counts.write_errors,
            ),
        ] {
            self.one(name, COUNTER, help, value);
        }
        let (on_disk, disk_bytes) = uplink.spool.on_disk();
        for (name, help, value) in [
            ("spool_batches", "Batches on the spool's disk.", on_disk),
            ("spool_bytes", "Disk that the spool takes.", disk_bytes),
            (
                "spool_failing",
                "Whether the spool's disk takes nothing.",
                u64::from(uplink.spool.is_failing()),
            ),
        ] {
            self.one(name, GAUGE, help, value);
        }
        self.one(
            "windows_unsent_total",
            COUNTER,
            "Windows that no batch could be made of.",
            uplink.windows_unsent(),
        );
        self.each(
            uplink,
            "aggregator_connected",
            GAUGE,
            "Whether the aggregator accepted this agent and is connected.",
            |figures| u64::from(figures.is_connected()),
        );
        self.each(
            uplink,
            "aggregator_over_tls",
            GAUGE,
            "Whether TLS over TCP carries the connection, and not QUIC.",
            |figures| u64::from(figures.transport() == Transport::Tls),
        );
        self.each(
            uplink,
            "aggregator_connections_total",
            COUNTER,
            "Connections that the aggregator accepted.",
            AggregatorFigures::connections,
        );
        self.metric(
            "aggregator_failures_total",
            COUNTER,
            "Connections that failed or ended, by cause.",
        );
        for of in &uplink.aggregators {
            for (cause, count) in Failure::CAUSES.iter().zip(of.figures.failures()) {
                self.labelled(
                    "aggregator_failures_total",
                    &[("aggregator", &of.aggregator), ("cause", cause)],
                    count,
                );
            }
        }
        self.each(
            uplink,
            "aggregator_batches_sent_total",
            COUNTER,
            "Batches sent, repetitions included.",
            AggregatorFigures::batches_sent,
        );
        self.each(
            uplink,
            "aggregator_sent_bytes_total",
            COUNTER,
            "Bytes of them.",
            AggregatorFigures::bytes_sent,
        );
        self.each(
            uplink,
            "aggregator_batches_durable_total",
            COUNTER,
            "Acknowledgements of batches.",
            AggregatorFigures::batches_durable,
        );
        self.window_ages(uplink);
        self.metric(
            "aggregator_rtt_seconds",
            GAUGE,
            "Round-trip time of the connection.",
        );
        for of in &uplink.aggregators {
            let seconds = of.figures.rtt().as_secs_f64();
            self.labelled(
                "aggregator_rtt_seconds",
                &[("aggregator", &of.aggregator)],
                seconds,
            );
        }
    }

    fn window_ages(&mut self, uplink: &UplinkFigures) {
        let name = "aggregator_window_age_seconds";
        let help = "How long after the end of its window a batch was known to be durable.";
        self.metric(name, "histogram", help);
        for of in &uplink.aggregators {
            let (buckets, sum) = of.figures.window_ages();
            let mut count = 0;
            for (n, in_bucket) in buckets.iter().enumerate() {
                count += in_bucket;
                let end = AGE_BUCKETS_MS
                    .get(n)
                    .map_or(f64::INFINITY, |&ms| f64::from(ms) / 1e3);
                let end = if end.is_finite() {
                    end.to_string()
                } else {
                    "+Inf".to_owned()
                };
                self.labelled(
                    &format!("{name}_bucket"),
                    &[("aggregator", &of.aggregator), ("le", &end)],
                    count,
                );
            }
            let labels: [(&str, &dyn Display); 1] = [("aggregator", &of.aggregator)];
            self.labelled(&format!("{name}_sum"), &labels, sum.as_secs_f64());
            self.labelled(&format!("{name}_count"), &labels, count);
        }
    }

    fn each(
        &mut self,
        uplink: &UplinkFigures,
        name: &str,
        kind: &str,
        help: &str,
        value: impl Fn(&AggregatorFigures) -> u64,
    ) {
        self.metric(name, kind, help);
        for of in &uplink.aggregators {
            self.labelled(name, &[("aggregator", &of.aggregator)], value(&of.figures));
        }
    }

    fn reflector(&mut self, counters: ReflectorCounters) {
        self.one(
            "stamp_reflected_total",
            COUNTER,
            "STAMP requests answered.",
            counters.reflected,
        );
        let refused = Refused::ALL
            .iter()
            .map(|refused| refused.as_str())
            .zip(counters.refused);
        self.family(
            "stamp_refused_total",
            "STAMP requests not answered.",
            "reason",
            refused,
        );
        self.one(
            "stamp_sessions",
            GAUGE,
            "STAMP sessions that the reflector counts for.",
            counters.sessions,
        );
    }

    fn routing(&mut self, figures: &live::Figures) {
        let rows = [
            (
                "bgp_routers",
                GAUGE,
                "Routers that are connected with BMP.",
                &figures.routers,
            ),
            (
                "bgp_sessions",
                GAUGE,
                "BGP sessions that are established.",
                &figures.sessions,
            ),
            (
                "bgp_updates_total",
                COUNTER,
                "UPDATEs of routers and peers.",
                &figures.updates,
            ),
            (
                "bgp_refused_total",
                COUNTER,
                "Messages of routers that were not understood.",
                &figures.refused,
            ),
            (
                "bgp_strangers_total",
                COUNTER,
                "Connections closed since nobody named their address.",
                &figures.strangers,
            ),
            (
                "bgp_events_total",
                COUNTER,
                "Routing events told to the aggregators.",
                &figures.events,
            ),
            (
                "bgp_ris_connected",
                GAUGE,
                "Connections to RIS Live: one or none.",
                &figures.ris_connected,
            ),
            (
                "bgp_ris_attempts_total",
                COUNTER,
                "Attempts at connecting to RIS Live.",
                &figures.ris_attempts,
            ),
            (
                "bgp_watched_prefixes",
                GAUGE,
                "Prefixes that are watched: declared by this agent's file or by aggregators, or learned.",
                &figures.watched,
            ),
            (
                "bgp_ris_messages_total",
                COUNTER,
                "Messages of RIS Live.",
                &figures.ris_messages,
            ),
            (
                "bgp_ris_refused_total",
                COUNTER,
                "Messages of RIS Live that were not understood.",
                &figures.ris_refused,
            ),
            (
                "bgp_ris_feeds",
                GAUGE,
                "Peers of route collectors that were heard.",
                &figures.ris_feeds,
            ),
            (
                "bgp_roa_caches",
                GAUGE,
                "Caches of authorizations (RPKI) that are followed: one or none.",
                &figures.roa_caches,
            ),
            (
                "bgp_roas",
                GAUGE,
                "Authorizations of routes (RPKI) that are known.",
                &figures.roas,
            ),
            (
                "bgp_roa_updates_total",
                COUNTER,
                "How often a cache of authorizations has answered in full.",
                &figures.roa_updates,
            ),
            (
                "bgp_events_given_up_total",
                COUNTER,
                "Routing events that were not told: too many at once.",
                &figures.given_up,
            ),
            (
                "bgp_events_held_total",
                COUNTER,
                "Changes of routes that came too fast to be told when they happened.",
                &figures.events_held,
            ),
            (
                "bgp_feeds_refused_total",
                COUNTER,
                "Sessions, and UPDATEs, of feeds of routers that were not followed, since there are too many.",
                &figures.feeds_refused,
            ),
            (
                "bgp_routes",
                GAUGE,
                "Routes that are kept with their paths.",
                &figures.routes,
            ),
            (
                "bgp_route_bytes",
                GAUGE,
                "Memory that kept routes take, about.",
                &figures.route_bytes,
            ),
        ];
        for (name, kind, help, value) in rows {
            self.one(name, kind, help, value.load(Relaxed));
        }
    }

    fn surveys(&mut self, counters: SurveyCounters, bandwidths: &Newest) {
        let name = "bandwidth_bits_per_second";
        let help =
            "How much links carry: the newest estimates that are to be trusted, by quantity.";
        self.metric(name, GAUGE, help);
        for ((target, quantity), bps) in bandwidths {
            self.labelled(
                name,
                &[("target", target), ("quantity", &quantity.as_str())],
                *bps,
            );
        }
        let by = |light, heavy| [("train", light), ("heavy", heavy)].into_iter();
        self.family(
            "bandwidth_estimates_total",
            "Estimates of how much links carry.",
            "method",
            by(counters.estimates, counters.heavy_tests),
        );
        self.family(
            "bandwidth_bytes_total",
            "What they cost, bytes of IP packets, replies included.",
            "method",
            by(counters.bytes, counters.heavy_bytes),
        );
        self.one(
            "bandwidth_strays_total",
            COUNTER,
            "Packets that came to the sockets of bandwidth and answered nothing.",
            counters.strays,
        );
    }

    fn process(&mut self, snapshot: &Snapshot<'_>) {
        self.one(
            "answers_total",
            COUNTER,
            "TCP connections accepted on the answer port.",
            snapshot.answers,
        );
        let expires = snapshot.certificate_expires_at.as_unix_us() / 1_000_000;
        self.one(
            "certificate_expiry_timestamp_seconds",
            GAUGE,
            "When this agent's certificate expires.",
            expires,
        );
        self.one(
            "resident_memory_bytes",
            GAUGE,
            "Resident memory.",
            snapshot.usage.resident_bytes,
        );
        self.one(
            "cpu_seconds_total",
            COUNTER,
            "CPU time used, user and system.",
            snapshot.usage.cpu.as_secs_f64(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uplink::figures::AggregatorFiguresOf;
    use std::collections::BTreeSet;

    fn page() -> String {
        let mut uplink = UplinkFigures::default();
        uplink.aggregators.push(AggregatorFiguresOf {
            aggregator: "[2001:db8::1]:8610".to_owned(),
            figures: Default::default(),
        });
        let mut prober = Counters {
            scheduled: 12,
            ..Counters::default()
        };
        prober.classes[Class::Lost as usize] = 3;
        render(&Snapshot {
            agent: &AgentId::parse("a1").unwrap(),
            region: &RegionId::parse("eu").unwrap(),
            prober,
            modes: Modes::default(),
            uplink: &uplink,
            usage: Usage::default(),
            answers: 0,
            routing: None,
            reflector: None,
            surveys: SurveyCounters::default(),
            bandwidths: Newest::default(),
            certificate_expires_at: Timestamp::from_unix_us(1_700_000_000_000_000),
        })
    }

    #[test]
    fn the_page_holds_what_was_counted() {
        let page = page();
        for line in [
            "leeward_agent_probes_scheduled_total 12",
            "leeward_agent_probes_total{class=\"lost\"} 3",
            "leeward_agent_probe_mode{kind=\"icmp\",family=\"IPv4\",mode=\"none\"} 1",
            "leeward_agent_paths_with_unlike_flows 0",
            "leeward_agent_aggregator_connected{aggregator=\"[2001:db8::1]:8610\"} 0",
            "leeward_agent_aggregator_failures_total{aggregator=\"[2001:db8::1]:8610\",cause=\"refused\"} 0",
            "leeward_agent_certificate_expiry_timestamp_seconds 1700000000",
            concat!(
                "leeward_agent_build_info{version=\"",
                env!("CARGO_PKG_VERSION"),
                "\",agent=\"a1\",region=\"eu\"} 1"
            ),
        ] {
            assert!(
                page.lines().any(|have| have == line),
                "{line} is not in\n{page}"
            );
        }
    }

    /// The rules of the text format: help and type before the samples, each family once, every sample of a family.
    #[test]
    fn the_page_is_well_formed() {
        let page = page();
        let (mut families, mut current) = (BTreeSet::new(), String::new());
        for line in page.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert!(families.insert(name.to_owned()), "{name} twice");
                assert_eq!(
                    kind == "counter",
                    name.ends_with("_total"),
                    "{name} is a {kind}"
                );
                current = name.to_owned();
            } else if !line.starts_with('#') {
                let name = line.split(['{', ' ']).next().unwrap();
                let suffixes = ["_count", "_sum", "_bucket"];
                let family = suffixes.iter().find_map(|suffix| name.strip_suffix(suffix));
                assert_eq!(family.unwrap_or(name), current, "{line}");
                assert!(
                    line.rsplit(' ').next().unwrap().parse::<f64>().is_ok(),
                    "{line}"
                );
            }
        }
        assert!(families.len() > 25);
    }
}
