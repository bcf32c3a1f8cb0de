//! Every Prometheus name of the aggregator, in one place.
//!
//! Labels come from the config or from certificates, never from packets. Queues are two counters (in, out): a gauge
//! would hide the spike between two scrapes.

use std::fmt;

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::{Registry, Unit},
};

/// One answered HTTP request.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct Request {
    /// The route's pattern, such as `/v1/failover/{primary_region}`; never the raw path.
    pub route: &'static str,
    /// Status code.
    pub status: u16,
}

/// The counters. Everything is updated in place by whoever knows it first.
pub struct Metrics {
    registry: Registry,
    /// Answered HTTP requests.
    pub http_requests: Family<Request, Counter>,
    /// Time to answer one, seconds.
    pub http_request_seconds: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("leeward_aggregator");
        let http_requests = Family::default();
        registry.register("http_requests", "Answered HTTP requests", http_requests.clone());
        let http_request_seconds = Histogram::new([0.000_1, 0.000_5, 0.001, 0.005, 0.025, 0.1, 0.5, 2.5]);
        registry.register_with_unit(
            "http_request",
            "Time to answer an HTTP request",
            Unit::Seconds,
            http_request_seconds.clone(),
        );
        Self { registry, http_requests, http_request_seconds }
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// The text of `/metrics`, in the OpenMetrics format
    /// (`application/openmetrics-text; version=1.0.0; charset=utf-8`).
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a string cannot fail");
        text
    }
}
