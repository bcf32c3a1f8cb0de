//! The prober: sends probes on an absolute schedule and closes windows into reports.
//!
//! Sockets are opened while the process may ([`Sockets::open`], see [`crate::privilege`]); then one dedicated thread
//! sends, receives and accounts ([`Prober::start`]), because a busy async runtime must not look like latency. The
//! rest of the agent talks to it through a [`ProberHandle`]: plans go in, closed windows come out, counters can be
//! read at any time. Nothing ever blocks the probe thread: when nobody takes the windows, they are dropped and counted.
//!
//! ```text
//!   schedule ──due──▶ tracker ──▶ probe/* ──bytes──▶ net ══▶ wire
//!                        │                            ║
//!   window ◀──outcome────┴──── probe/* ◀──bytes+stamps╝
//!      └── ClosedWindow ──▶ bounded channel ──▶ uplink
//! ```

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
    time::Duration,
};

use leeward_common::{
    histogram::Schema,
    report::{LocalHealth, Path, Report, Window},
    silence::Rule,
    time::Timestamp,
    wire::limits,
};

use crate::{flow, probe::stamp, window::flows::FlowSpan};

pub use crate::net::sockets::{Missing, Mode, OpenError, Sockets};
pub use counters::Counters;
pub use handle::{Family, Modes, Prober, ProberHandle, StartError};

mod checkup;
pub mod counters;
mod handle;
mod thread;
mod wire;

/// Source ports of SYN probes unless configured otherwise: above Linux's default ephemeral range (32768 to 60999),
/// few because every 5-tuple is an entry in somebody's connection table, eight because equal-cost paths differ by port.
pub const SYN_SOURCE_PORTS: RangeInclusive<u16> = 61_000..=61_007;

/// How the prober is set up for the life of the process.
#[derive(Clone, Debug)]
pub struct ProberConfig {
    /// Keys the tokens by which answers are recognised. Random and new at each start of the process, so that it also
    /// tells one start from another.
    pub secret: [u8; 16],
    /// Seeds phases and jitter of the schedule. Equal seeds and plans give equal schedules.
    pub seed: u64,
    /// The most packets per second, over all paths and kinds, enforced where packets leave. 0 forbids every probe.
    pub max_probes_per_second: u32,
    /// Source ports of SYN probes; no other program may use them. At most [`Self::MAX_SYN_SOURCE_PORTS`].
    pub syn_source_ports: RangeInclusive<u16>,
    /// Key of authenticated STAMP; `None` sends unauthenticated requests.
    pub stamp_key: Option<stamp::Key>,
    /// Source address of IPv4 probes; `None` leaves it to the routing table.
    pub bind_v4: Option<Ipv4Addr>,
    /// Source address of IPv6 probes; `None` leaves it to the routing table.
    pub bind_v6: Option<Ipv6Addr>,
}

impl ProberConfig {
    /// Each port multiplies the connection-table entries that we cause elsewhere.
    pub const MAX_SYN_SOURCE_PORTS: usize = 64;

    /// The defaults around a secret and a seed: 1,000 probes per second, [`SYN_SOURCE_PORTS`], no fixed addresses.
    #[must_use]
    pub const fn new(secret: [u8; 16], seed: u64) -> Self {
        Self {
            secret,
            seed,
            max_probes_per_second: 1_000,
            syn_source_ports: SYN_SOURCE_PORTS,
            stamp_key: None,
            bind_v4: None,
            bind_v6: None,
        }
    }
}

/// What to probe, and how often.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Plan {
    /// Comes back in each [`ClosedWindow`], whose rows refer to this plan's paths.
    pub version: u64,
    /// Time between two probes of one path.
    pub interval: Duration,
    /// Length of a window; must divide a minute.
    pub window: Duration,
    /// How long a probe may stay unanswered before it is lost.
    pub expiry: Duration,
    /// Of the histograms.
    pub schema: Schema,
    /// When a path that falls silent is reported before its window ends; `None` if never.
    pub silence: Option<Rule>,
    /// As how many flows each path is probed, within [`crate::flow::FLOWS`]; what exceeds a kind's source ports is less.
    pub flows: u8,
    /// The paths. Those that an earlier plan had with equal address and port keep their state and phase.
    pub paths: Vec<PlannedPath>,
}

/// One path of a plan.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PlannedPath {
    /// The path.
    pub path: Path,
    /// The target's address.
    pub address: IpAddr,
    /// The target's port; unused by ICMP.
    pub port: u16,
}

/// A plan that cannot be carried out.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PlanError {
    /// A span of time outside its range.
    #[error("{what} is {have:?}; it must be {min:?} to {max:?}")]
    OutOfRange {
        /// Which.
        what: &'static str,
        /// What it is.
        have: Duration,
        /// The smallest allowed.
        min: Duration,
        /// The largest allowed.
        max: Duration,
    },
    /// No flows, or more than there may be.
    #[error("flows is {0}; it must be 1 to 8")]
    Flows(u8),
    /// A window that does not divide a minute.
    #[error("window is {0:?}; it must divide a minute")]
    UnalignedWindow(Duration),
    /// More paths than a batch has rows.
    #[error("the plan has {have} paths; at most {max} are possible")]
    TooManyPaths {
        /// How many there are.
        have: usize,
        /// How many there may be.
        max: usize,
    },
    /// More probes under way at once than memory is kept for.
    #[error(
        "{have} probes would be under way at once; at most {max} are possible: lengthen the interval or shorten the expiry"
    )]
    TooManyOpen {
        /// How many there would be.
        have: u64,
        /// How many there may be.
        max: u64,
    },
    /// The prober thread has ended.
    #[error("the prober has stopped")]
    Stopped,
}

impl Plan {
    /// Interval, from the fastest that a schedule of ordinary kernel timers keeps.
    pub const INTERVAL: RangeInclusive<Duration> =
        Duration::from_millis(1)..=Duration::from_secs(3_600);
    /// Window, from the shortest that still batches.
    pub const WINDOW: RangeInclusive<Duration> =
        Duration::from_millis(100)..=Duration::from_secs(60);
    /// Expiry, up to where a later reply is told apart.
    pub const EXPIRY: RangeInclusive<Duration> =
        Duration::from_millis(10)..=Duration::from_secs(60);
    /// Probes under way at once, over all paths: 2^20 of 32 bytes each.
    pub const MAX_OPEN: u64 = 1 << 20;

    /// Whether the plan can be carried out.
    ///
    /// # Errors
    ///
    /// Returns the first thing that is out of range.
    pub fn check(&self) -> Result<(), PlanError> {
        let spans = [
            ("interval", self.interval, Self::INTERVAL),
            ("window", self.window, Self::WINDOW),
            ("expiry", self.expiry, Self::EXPIRY),
        ];
        for (what, have, range) in spans {
            if !range.contains(&have) {
                return Err(PlanError::OutOfRange {
                    what,
                    have,
                    min: *range.start(),
                    max: *range.end(),
                });
            }
        }
        if !flow::FLOWS.contains(&self.flows) {
            return Err(PlanError::Flows(self.flows));
        }
        if !Duration::from_secs(60)
            .as_nanos()
            .is_multiple_of(self.window.as_nanos())
            || !self.window.as_nanos().is_multiple_of(1_000)
        {
            return Err(PlanError::UnalignedWindow(self.window));
        }
        if self.paths.len() > limits::PATHS {
            return Err(PlanError::TooManyPaths {
                have: self.paths.len(),
                max: limits::PATHS,
            });
        }
        let have = self.depth() as u64 * self.paths.len() as u64;
        if have > Self::MAX_OPEN {
            return Err(PlanError::TooManyOpen {
                have,
                max: Self::MAX_OPEN,
            });
        }
        Ok(())
    }

    /// Probes of one path that can be under way at once: those sent within an expiry, and three more for jitter on
    /// both ends and rounding.
    #[must_use]
    pub fn depth(&self) -> usize {
        let probes = self.expiry.as_nanos() / self.interval.as_nanos().max(1);
        usize::try_from(probes)
            .unwrap_or(usize::MAX)
            .saturating_add(3)
    }
}

/// What was learned in one window.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClosedWindow {
    /// The plan that the rows refer to.
    pub plan_version: u64,
    /// When.
    pub window: Window,
    /// Up to when the rows tell: the window's end or, for the few rows of an early report, an instant within it.
    pub until: Timestamp,
    /// What this agent noticed about itself; only at the window's end.
    pub health: Option<LocalHealth>,
    /// What each flow of each path of the plan did; at the end of some windows.
    pub flows: Option<FlowSpan>,
    /// Index into the plan's paths and its report, ascending; only paths that had a probe scheduled, ended or open.
    pub rows: Vec<(u32, Report)>,
}
