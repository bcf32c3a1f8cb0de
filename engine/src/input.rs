//! What the engine is told. A closed set, journaled as it came.

use std::{net::IpAddr, sync::Arc, time::Duration};

use leeward_common::{
    check::Outcome,
    finding::Finding,
    id::{AgentId, CheckId, RegionId, ServiceId, SourceId},
    report::{LocalHealth, Path, Report, Window},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

/// One thing that happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// Nothing but time. Never journaled: the engine evaluates at fixed instants ([`crate::policy::Policy::evaluate_every`])
    /// whatever wakes it, so a replay without ticks takes the same decisions.
    Tick,
    /// An agent's session began.
    AgentConnected(AgentConnected),
    /// An agent's session ended.
    AgentDisconnected {
        /// The agent.
        agent: AgentId,
    },
    /// An agent's reports of one window.
    Reports(Reports),
    /// A measurement that somebody injected.
    Signal(Signal),
    /// A new policy is in force.
    Policy(Box<crate::policy::Policy>),
    /// What came of an agent's checks.
    CheckResults(CheckResults),
    /// What an agent found out beside its windows.
    Findings(Findings),
    /// Somebody changed a service, an offer, a reservation or an override.
    Change(Box<crate::intent::Change>),
}

/// An agent's session began.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AgentConnected {
    /// The agent.
    pub agent: AgentId,
    /// Its region.
    pub region: RegionId,
    /// Which start of its process.
    pub boot_epoch: u64,
    /// Where it answers.
    pub addresses: Vec<IpAddr>,
    /// Its build, for people.
    pub build: String,
}

/// An agent's reports of one window, or of a part of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Reports {
    /// The agent.
    pub agent: AgentId,
    /// Its region.
    pub region: RegionId,
    /// The window, by the agent's clock: a label, not an order.
    pub window: Window,
    /// Up to when they tell, by the agent's clock: the window's end, or an instant within it for the few paths that fell
    /// silent then. Another part of the window follows, and counts only the rest.
    pub until: Timestamp,
    /// What the agent noticed about itself; `None` with an early part, and from agents that do not say.
    pub health: Option<LocalHealth>,
    /// The agent's path table: shared by all its reports for as long as it does not change, which spares looking each path up.
    pub table: Arc<[Path]>,
    /// Row by row: its number in the table, and what its path did. A row that the table does not have tells nothing.
    pub rows: Vec<(u32, Report)>,
}

impl Reports {
    /// The path of a row.
    #[must_use]
    pub fn path(&self, row: u32) -> Option<&Path> {
        self.table.get(usize::try_from(row).ok()?)
    }

    /// A table of paths, and what each of them did.
    #[must_use]
    pub fn table_of(
        reports: impl IntoIterator<Item = (Path, Report)>,
    ) -> (Arc<[Path]>, Vec<(u32, Report)>) {
        let (paths, reports): (Vec<_>, Vec<_>) = reports.into_iter().unzip();
        (paths.into(), (0..).zip(reports).collect())
    }
}

/// What came of an agent's checks.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CheckResults {
    /// The agent.
    pub agent: AgentId,
    /// Its region.
    pub region: RegionId,
    /// One by one.
    pub results: Vec<CheckResult>,
}

/// What an agent found out beside its windows.
#[derive(Clone, Debug, PartialEq)]
pub struct Findings {
    /// The agent.
    pub agent: AgentId,
    /// Its region.
    pub region: RegionId,
    /// One by one.
    pub findings: Vec<Finding>,
}

/// What came of one check.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CheckResult {
    /// The service.
    pub service: ServiceId,
    /// Which of its checks.
    pub check: CheckId,
    /// The region that was checked.
    pub region: RegionId,
    /// The number of what was asked; what answers another question does not count.
    pub question: u64,
    /// What came of it.
    pub outcome: Outcome,
    /// How long it took, microseconds.
    pub latency_us: u64,
    /// How long before this was told.
    pub age: Duration,
    /// The outcome in words; may be empty.
    pub detail: String,
}

/// What a signal is about.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// A region as a whole.
    Region(RegionId),
    /// The directed link from the first region to the second.
    Link(RegionId, RegionId),
    /// A service as it is in a region.
    Service(ServiceId, RegionId),
}

/// What a signal measures.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// 0..=1; 1 is neutral, lower is worse.
    Health,
    /// Round-trip time in microseconds; lower is better. Links only.
    LatencyUs,
    /// 0..=1; lower is better. Links only.
    LossRatio,
    /// Bits per second; higher is better. Links only.
    BandwidthBps,
    /// How far data lags behind its origin, in microseconds; lower is better. Of a service in a region, or of a region
    /// for all services; never a part of a weight.
    ReplicationLagUs,
}

/// A measurement that somebody injected. Expires to neutral.
#[derive(Clone, Debug, PartialEq)]
pub struct Signal {
    /// Who says so.
    pub source: SourceId,
    /// About what.
    pub subject: Subject,
    /// Which measure.
    pub metric: Metric,
    /// In the metric's unit.
    pub value: f64,
    /// When it was observed.
    pub observed_at: Timestamp,
    /// Until when it counts.
    pub expires_at: Timestamp,
    /// A signal with a key already seen from this source is a repetition and changes nothing.
    pub idempotency_key: Option<String>,
}
