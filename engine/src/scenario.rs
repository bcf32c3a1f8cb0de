//! A world in a file: regions, links, a timeline, and what is expected of the decisions.
//!
//! The same file runs in virtual time ([`crate::simulate`]) and in the lab on real packets. All times count from the
//! scenario's start.
//!
//! ```toml
//! name = "one region lost"
//! seed = 7
//! duration = "40s"
//!
//! [[region]]                       # as in aggregator.toml, plus the number of agents
//! id = "virginia"
//! latitude = 37.4
//! longitude = -79.8
//! agents = 2
//!
//! [[link]]                         # both ways, half of the round trip each way
//! between = ["virginia", "ireland"]
//! rtt = "68ms"
//! jitter = "1ms"
//!
//! [[link]]                         # or one way
//! from = "ireland"
//! to = "virginia"
//! delay = "40ms"
//!
//! [[event]]
//! at = "10s"
//! links = ["virginia->ireland", "ireland->*"]
//! set = { loss = 0.08 }
//! say = "Ireland begins to lose packets"
//!
//! [[expect]]
//! primary = "virginia"
//! selected = "oregon"
//! by = "20s"                       # at some time from `since` (default: the last event before `by`) to `by` …
//! until = "40s"                    # … and from then on to `until`
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use leeward_common::{
    id::{AgentId, RegionId},
    ratio::Ratio,
};

use crate::{
    input::{Metric, Subject},
    policy::Policy,
    view::Link,
};

mod judge;
mod raw;

pub use judge::{Verdict, judge};

/// A world, its timeline, and what is expected.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// In a few words.
    pub name: String,
    /// What it shows.
    pub description: String,
    /// Seed of everything random.
    pub seed: u64,
    /// How long it runs.
    pub duration: Duration,
    /// The policy.
    pub policy: Policy,
    /// How many agents each region has, at least 1; each is a host and a target.
    pub agents: BTreeMap<RegionId, u32>,
    /// Every directed link between two regions at the start.
    pub links: BTreeMap<Link, LinkState>,
    /// The timeline, in order.
    pub events: Vec<Event>,
    /// What is expected.
    pub expectations: Vec<Expectation>,
}

/// How much longer a packet takes that is held back to reorder it.
pub const REORDER_BY: Duration = Duration::from_millis(10);

/// What a directed link does to packets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinkState {
    /// One-way delay.
    pub delay: Duration,
    /// The delay varies uniformly by up to this, both ways.
    pub jitter: Duration,
    /// Share of packets lost.
    pub loss: Ratio,
    /// Bits per second; `None` is unlimited.
    pub rate_bps: Option<u64>,
    /// Share of packets held back by [`REORDER_BY`], so that later ones overtake them.
    pub reorder: Ratio,
    /// Share of packets that arrive twice.
    pub duplicate: Ratio,
}

impl Default for LinkState {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            loss: Ratio::ZERO,
            rate_bps: None,
            reorder: Ratio::ZERO,
            duplicate: Ratio::ZERO,
        }
    }
}

/// One entry of the timeline.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// When.
    pub at: Duration,
    /// What happens, in order.
    pub actions: Vec<Action>,
    /// What to tell people.
    pub say: Option<String>,
}

/// What happens.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Links change.
    Set {
        /// Which.
        links: Vec<Link>,
        /// What changes about them.
        change: LinkChange,
    },
    /// Links are as at the start again.
    Clear {
        /// Which.
        links: Vec<Link>,
    },
    /// No packet enters or leaves the region any more: not to other regions, not to the aggregator. Its hosts run on.
    RegionDown(RegionId),
    /// Packets pass again.
    RegionUp(RegionId),
    /// The agent's process ends; its host still answers.
    AgentStop(AgentId),
    /// The agent's process begins anew.
    AgentStart(AgentId),
    /// Somebody injects a signal.
    Signal(SignalAction),
}

/// What changes about a link; `None` stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[expect(missing_docs, reason = "the fields are those of `LinkState`")]
pub struct LinkChange {
    pub delay: Option<Duration>,
    pub jitter: Option<Duration>,
    pub loss: Option<Ratio>,
    pub rate_bps: Option<u64>,
    pub reorder: Option<Ratio>,
    pub duplicate: Option<Ratio>,
}

/// A signal that a scenario injects.
#[derive(Clone, Debug, PartialEq)]
pub struct SignalAction {
    /// Who.
    pub source: leeward_common::id::SourceId,
    /// About what.
    pub subject: Subject,
    /// Which measure.
    pub metric: Metric,
    /// In the metric's unit.
    pub value: f64,
    /// How long it counts.
    pub ttl: Duration,
}

/// What is expected of the decisions: from some time in `since..=by` on and then until `until`, `selected` is selected.
#[derive(Clone, Debug, PartialEq)]
pub struct Expectation {
    /// From when on it counts.
    pub since: Duration,
    /// By when it must hold.
    pub by: Duration,
    /// Until when it must then stay so; `by` itself if not given.
    pub until: Duration,
    /// Whose failover.
    pub primary: RegionId,
    /// The selection; `None` is written `"none"`.
    pub selected: Option<RegionId>,
}

/// What the network does at one time.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    /// Every directed link between two regions.
    pub links: BTreeMap<Link, LinkState>,
    /// Regions that no packet enters or leaves.
    pub cut: BTreeSet<RegionId>,
}

impl Network {
    /// The link's state with a region that is cut off taken for total loss. Within a region nothing is ever impaired.
    #[must_use]
    pub fn effective(&self, from: &RegionId, to: &RegionId) -> LinkState {
        let link = self.links.get(&(from.clone(), to.clone()));
        let mut state = link.copied().unwrap_or_default();
        if self.cut.contains(from) || self.cut.contains(to) {
            state.loss = Ratio::ONE;
        }
        state
    }

    /// Lets an action happen; those not about the network change nothing.
    pub fn apply(&mut self, scenario: &Scenario, action: &Action) {
        match action {
            Action::Set { links, change } => {
                for link in links {
                    if let Some(state) = self.links.get_mut(link) {
                        change.apply(state);
                    }
                }
            }
            Action::Clear { links } => {
                for link in links {
                    if let Some(state) = scenario.links.get(link) {
                        self.links.insert(link.clone(), *state);
                    }
                }
            }
            Action::RegionDown(region) => {
                self.cut.insert(region.clone());
            }
            Action::RegionUp(region) => {
                self.cut.remove(region);
            }
            Action::AgentStop(_) | Action::AgentStart(_) | Action::Signal(_) => {}
        }
    }
}

impl LinkChange {
    fn apply(&self, state: &mut LinkState) {
        state.delay = self.delay.unwrap_or(state.delay);
        state.jitter = self.jitter.unwrap_or(state.jitter);
        state.loss = self.loss.unwrap_or(state.loss);
        state.rate_bps = self.rate_bps.or(state.rate_bps);
        state.reorder = self.reorder.unwrap_or(state.reorder);
        state.duplicate = self.duplicate.unwrap_or(state.duplicate);
    }
}

impl Scenario {
    /// Reads a scenario.
    ///
    /// # Errors
    ///
    /// Returns the place of the first value that cannot stand, and what to write instead.
    pub fn parse(file: &str, text: &str) -> Result<Self, leeward_common::config::ConfigError> {
        raw::read(&leeward_common::config::Document { file, text })
    }

    /// The network at the start.
    #[must_use]
    pub fn network(&self) -> Network {
        Network {
            links: self.links.clone(),
            cut: BTreeSet::new(),
        }
    }

    /// The network at `at`, events of that very time included.
    #[must_use]
    pub fn network_at(&self, at: Duration) -> Network {
        let mut network = self.network();
        for event in self.events.iter().take_while(|event| event.at <= at) {
            for action in &event.actions {
                network.apply(self, action);
            }
        }
        network
    }

    /// Every directed link's effective state at `at`.
    #[must_use]
    pub fn links_at(&self, at: Duration) -> BTreeMap<Link, LinkState> {
        let network = self.network_at(at);
        let effective = |link: &Link| (link.clone(), network.effective(&link.0, &link.1));
        self.links.keys().map(effective).collect()
    }

    /// The agents, named `region-1`, `region-2`, …, each with its region.
    #[must_use]
    pub fn agent_ids(&self) -> BTreeMap<AgentId, RegionId> {
        let of_region = |(region, &count): (&RegionId, &u32)| {
            let region = region.clone();
            (1..=count).map(move |n| (agent_id(&region, n), region.clone()))
        };
        self.agents.iter().flat_map(of_region).collect()
    }
}

/// The name of a region's n-th agent, from 1.
fn agent_id(region: &RegionId, n: u32) -> AgentId {
    AgentId::parse(&format!("{region}-{n}")).expect("the reader bounds the length of region ids")
}

impl std::fmt::Display for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = |links: &[Link]| {
            let names: Vec<_> = links
                .iter()
                .map(|(from, to)| format!("{from}->{to}"))
                .collect();
            names.join(", ")
        };
        match self {
            Self::Set { links, change } => write!(f, "{} on {}", change.words(), names(links)),
            Self::Clear { links } => write!(f, "as at the start on {}", names(links)),
            Self::RegionDown(region) => write!(f, "region {region} is cut off"),
            Self::RegionUp(region) => write!(f, "region {region} is joined again"),
            Self::AgentStop(agent) => write!(f, "agent {agent} stops"),
            Self::AgentStart(agent) => write!(f, "agent {agent} starts"),
            Self::Signal(signal) => write!(f, "signal from {}", signal.source),
        }
    }
}

impl LinkChange {
    fn words(&self) -> String {
        let parts = [
            self.delay.map(|delay| format!("delay {delay:?}")),
            self.jitter.map(|jitter| format!("jitter {jitter:?}")),
            self.loss.map(|loss| format!("loss {}", loss.get())),
            self.rate_bps.map(|rate| format!("rate {rate} bit/s")),
            self.reorder
                .map(|reorder| format!("reorder {}", reorder.get())),
            self.duplicate
                .map(|duplicate| format!("duplicate {}", duplicate.get())),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}
