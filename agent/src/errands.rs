//! What an aggregator may order beside the mesh, and the way to those who find it out.
//!
//! An errand is taken or declined at once. Whoever carries it out has a thread of its own, so that the probe thread never
//! waits for it, and a budget of its own; what it found comes back through one queue, whoever found it.

use std::sync::Arc;

use leeward_common::finding::Finding;
use tokio::sync::{mpsc, watch};

use crate::{
    bandwidth::surveyor::{SurveyErrand, Surveyor},
    bgp::watch::Told,
    prober::PlannedPath,
};

/// Findings that wait for the uplink. They are rare, and who found one waits while it is full.
pub const FOUND_MAX: usize = 16;

/// Traces that wait to begin. An order beyond it is declined.
pub const TRACES_MAX: usize = 8;

/// A route to trace.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TraceErrand {
    /// The order's number.
    pub order: u64,
    /// The path, which the agent probes anyway.
    pub path: PlannedPath,
    /// Whether to look for the largest packet that comes through as well.
    pub mtu: bool,
}

/// The way to those who find out what is ordered.
#[derive(Debug)]
pub struct Errands {
    /// Takes traces; `None` where nobody traces.
    pub traces: Option<mpsc::Sender<TraceErrand>>,
    /// Measures bandwidth, also without an order; `None` where nobody does.
    pub surveyor: Option<Arc<Surveyor>>,
    /// What was found.
    pub found: mpsc::Receiver<Finding>,
    /// Hears where regions are, once a mesh says it; for whoever listens to routers.
    pub told: watch::Sender<Option<Told>>,
}

impl Errands {
    /// Hands a trace over.
    ///
    /// # Errors
    ///
    /// Returns why it is declined.
    pub fn trace(&self, errand: TraceErrand) -> Result<(), &'static str> {
        let none = "this agent cannot trace: it has no sockets for it";
        let traces = self.traces.as_ref().ok_or(none)?;
        traces.try_send(errand).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => "too many traces wait already; try again later",
            mpsc::error::TrySendError::Closed(_) => "the agent is stopping",
        })
    }

    /// Hands a measurement of bandwidth over.
    ///
    /// # Errors
    ///
    /// Returns why it is declined.
    pub fn survey(&self, errand: SurveyErrand) -> Result<(), &'static str> {
        let none = "this agent cannot measure bandwidth: it has no sockets for it";
        self.surveyor.as_ref().ok_or(none)?.order(errand)
    }
}
