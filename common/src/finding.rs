//! What an agent found out beside its windows, on order or by itself: a route, how much a link carries.
//!
//! Reports are numbers about every path in every window. A finding is about one thing, rare, and as large as it needs to
//! be. Findings travel in the same sequence as batches ([`crate::wire::findings`]), so they are kept, repeated and told
//! apart from repetitions as those are, and they are journaled as they came.
//!
//! On the wire and on disk a finding is a map with one field, its kind. A build that does not know the kind reads
//! [`Finding::Unknown`], and passes it over.

use serde::{Deserialize, Serialize};

use crate::{
    bgp::Routing,
    wire::{WireError, at_most, limits},
};

pub mod bandwidth;
pub mod flows;
pub mod trace;

pub use bandwidth::Bandwidth;
pub use flows::Flows;
pub use trace::Trace;

/// One thing found.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(from = "Kinds", into = "Kinds")]
pub enum Finding {
    /// The route to a target.
    Trace(Box<Trace>),
    /// The flows of a path that are unlike.
    Flows(Box<Flows>),
    /// How much the way to a target carries.
    Bandwidth(Box<Bandwidth>),
    /// Something ordered that the agent does not do.
    Declined(Declined),
    /// What routers tell of watched prefixes.
    Routing(Box<Routing>),
    /// A kind of a newer build.
    Unknown,
}

/// The answer to an order that is not carried out.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Declined {
    /// The order's number.
    pub order: u64,
    /// Why, for people: not a path of this agent, too many, no socket.
    pub reason: String,
}

impl Finding {
    /// The order that it answers, if it answers one.
    #[must_use]
    pub fn order(&self) -> Option<u64> {
        match self {
            Self::Trace(trace) => trace.order,
            Self::Bandwidth(bandwidth) => bandwidth.order,
            Self::Declined(declined) => Some(declined.order),
            Self::Flows(_) | Self::Routing(_) | Self::Unknown => None,
        }
    }

    /// Checks the lengths of lists and texts.
    ///
    /// # Errors
    ///
    /// Returns [`WireError::TooLarge`] about the first that is too long.
    pub fn check(&self) -> Result<(), WireError> {
        match self {
            Self::Trace(trace) => trace.check(),
            Self::Flows(flows) => flows.check(),
            Self::Bandwidth(bandwidth) => bandwidth.check(),
            Self::Declined(declined) => {
                at_most("reason", declined.reason.len(), limits::REASON_BYTES)
            }
            Self::Routing(routing) => routing.check(),
            Self::Unknown => Ok(()),
        }
    }
}

/// A finding as it is written: one of these.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
struct Kinds {
    #[serde(skip_serializing_if = "Option::is_none")]
    trace: Option<Box<Trace>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flows: Option<Box<Flows>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bandwidth: Option<Box<Bandwidth>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    declined: Option<Declined>,
    #[serde(skip_serializing_if = "Option::is_none")]
    routing: Option<Box<Routing>>,
}

impl From<Kinds> for Finding {
    fn from(kinds: Kinds) -> Self {
        let trace = kinds.trace.map(Self::Trace);
        let flows = || kinds.flows.map(Self::Flows);
        let bandwidth = || kinds.bandwidth.map(Self::Bandwidth);
        let declined = || kinds.declined.map(Self::Declined);
        let routing = || kinds.routing.map(Self::Routing);
        let found = trace.or_else(flows).or_else(bandwidth).or_else(declined);
        let found = found.or_else(routing);
        found.unwrap_or(Self::Unknown)
    }
}

impl From<Finding> for Kinds {
    fn from(finding: Finding) -> Self {
        let mut kinds = Self::default();
        match finding {
            Finding::Trace(trace) => kinds.trace = Some(trace),
            Finding::Flows(flows) => kinds.flows = Some(flows),
            Finding::Bandwidth(bandwidth) => kinds.bandwidth = Some(bandwidth),
            Finding::Declined(declined) => kinds.declined = Some(declined),
            Finding::Routing(routing) => kinds.routing = Some(routing),
            Finding::Unknown => {}
        }
        kinds
    }
}
