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
//! [[prefix]]                       # a region is reached by it …
//! prefix = "198.51.100.0/24"
//! region = "oregon"
//!
//! [[feed]]                         # … and a router tells an agent of its route there, which it has from the start
//! id = "transit-1"
//! agent = "virginia-1"
//! source = "10.0.0.1"
//! path = "64501 64500"
//!
//! [[service]]                      # there from the start, in the API's form with an id beside it
//! id = "shop"
//! home = "virginia"
//! needs = { cpu = 20 }
//!
//! [[offer]]
//! id = "oregon-base"
//! region = "oregon"
//! amounts = { cpu = 50 }
//!
//! [[override]]
//! id = "maintenance"
//! rule = "drain"
//! region = "oregon"
//! until = "30s"                    # counted from the scenario's start
//!
//! [[event]]
//! at = "10s"
//! links = ["virginia->ireland", "ireland->*"]
//! set = { loss = 0.08 }
//! over = "5s"                      # little by little, if not at once
//! say = "Ireland begins to lose packets"
//!
//! [[event]]
//! at = "12s"
//! links = ["virginia-1<->*"]       # an agent at an end means the packets of its host; `clear` takes the same
//! set = { loss = 1.0 }
//!
//! [[expect]]
//! primary = "virginia"             # or `service`
//! selected = "oregon"              # or "none"
//! reason = "down"                  # the decision that brought it there said so; left out, any
//! by = "20s"                       # at some time from `since` (default: the last event before `by`) to `by` …
//! until = "40s"                    # … and from then on to `until`
//!
//! [[expect]]
//! primary = "virginia"             # or `service`, or nobody: then all together
//! moves = 0                        # at most so many decisions …
//! since = "12s"                    # … from here …
//! until = "40s"                    # … to here
//!
//! [[expect]]
//! region = "ireland"
//! state = "up"                     # or "down" or "unknown"; `by`, `since` and `until` as above
//! by = "13s"
//! ```
//!
//! What an event can do beside `set` and `clear`: `region_down` and `region_up`; `agent_stop` and `agent_start`;
//! `uplink_down` and `uplink_up` (what agents measure does not reach the aggregator); `clock = { agent, ahead }` or
//! `behind`; `aggregator_restart = true`; `check_fails = { service, region }` with `check`, `from` (a list of regions)
//! and `outcome` if it is not every check, for everybody, by its status, and `check_passes` with the same; `signal`;
//! `routing = { feeds, prefixes, change }`, where `change` is `withdrawn`, `returned`, `exploring`, `origin`, `invalid` or `unstable` with
//! a `value` (how many paths, which system, which system, which figure of merit), `leaked`, `usual`, `stuck`, or befalls the feeds themselves: `lost`, `up`,
//! `loaded`, `fabricating`; `put_service`, `put_offer`, `put_override` with a table as above;
//! `remove_service`, `remove_offer`, `lift_override` with an id.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use leeward_common::{
    api::v1::{Defined, Time},
    bgp::Prefix,
    check::Outcome,
    id::{AgentId, CheckId, OfferId, OverrideId, RegionId, ServiceId},
    time::Timestamp,
};

use crate::{
    input::{Metric, Subject},
    intent::{Amendment, Change},
    policy::Policy,
    view::Link,
};

mod expect;
mod judge;
mod network;
mod raw;
mod routing;

pub(crate) use expect::state_word;
pub use expect::{Expectation, Expected};
pub use judge::{Moved, Record, Verdict, judge};
pub use routing::{Feed, RoutingAction, RoutingChange};

pub use network::{Flow, LinkChange, LinkState, Network, REORDER_BY, Roads};

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
    /// What routers tell agents, by the names that events use.
    pub feeds: BTreeMap<String, Feed>,
    /// The prefixes that these feeds show, and the regions that are reached by them.
    pub prefixes: BTreeMap<Prefix, RegionId>,
    /// The timeline, in order.
    pub events: Vec<Event>,
    /// What is expected.
    pub expectations: Vec<Expectation>,
}

/// One entry of the timeline.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// When.
    pub at: Duration,
    /// What happens, in order.
    pub actions: Vec<Action>,
    /// What to tell people; its actions in words if `None`.
    pub say: Option<String>,
    /// Whether it goes without saying: what is there from the start, and the steps of a change that comes little by
    /// little.
    pub quiet: bool,
}

impl Event {
    /// What to tell people; `None` if it goes without saying.
    #[must_use]
    pub fn told(&self) -> Option<String> {
        let actions = || self.actions.iter().map(ToString::to_string);
        let words = || actions().collect::<Vec<_>>().join("; ");
        (!self.quiet).then(|| self.say.clone().unwrap_or_else(words))
    }
}

/// What happens.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Links or flows change.
    Set {
        /// Which.
        roads: Roads,
        /// What changes about them.
        change: LinkChange,
    },
    /// Links are as at the start again, and flows as their links.
    Clear {
        /// Which.
        roads: Roads,
    },
    /// No packet enters or leaves the region any more: not to other regions, not to the aggregator. Its hosts run on.
    RegionDown(RegionId),
    /// Packets pass again.
    RegionUp(RegionId),
    /// The agent's process ends; its host still answers.
    AgentStop(AgentId),
    /// The agent's process begins anew.
    AgentStart(AgentId),
    /// Agents and the aggregator do not reach each other any more; the agents measure on.
    UplinkDown(Vec<AgentId>),
    /// They reach each other again.
    UplinkUp(Vec<AgentId>),
    /// The clock of an agent's host is set.
    Clock {
        /// Whose.
        agent: AgentId,
        /// How far it is ahead of true time from now on, microseconds; below 0 behind.
        ahead_us: i64,
    },
    /// The aggregator ends without warning and begins anew.
    AggregatorRestart,
    /// Somebody injects a signal.
    Signal(SignalAction),
    /// A check of a service fails, or passes again.
    Check(CheckAction),
    /// Routers tell of something.
    Routing(RoutingAction),
    /// Somebody changes a service, an offer or an override.
    Intent(Intent),
}

/// What becomes of a check.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckAction {
    /// The service.
    pub service: ServiceId,
    /// Which of its checks; all if `None`.
    pub check: Option<CheckId>,
    /// In which region.
    pub region: RegionId,
    /// Whose agents see it fail; everybody's if empty.
    pub from: Vec<RegionId>,
    /// What comes of it; `None` if it passes again.
    pub outcome: Option<Outcome>,
}

/// What somebody changes. What ends ends at a time counted from the epoch, as if the scenario began there.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "as those of `Amendment`")]
pub enum Intent {
    Put(Box<Defined>),
    RemoveService(ServiceId),
    RemoveOffer(OfferId),
    LiftOverride(OverrideId),
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
            flows: BTreeMap::new(),
            cut: BTreeSet::new(),
            uplinks_down: BTreeSet::new(),
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

impl Intent {
    /// What is put, for a scenario that begins at `start`; `None` if something is removed.
    #[must_use]
    pub fn put(&self, start: Timestamp) -> Option<Defined> {
        let Self::Put(defined) = self else {
            return None;
        };
        let from = |until: Time| Time(start + until.0.since(Timestamp::EPOCH));
        let mut defined = (**defined).clone();
        match &mut defined {
            Defined::Service(..) | Defined::Reach(..) => {}
            Defined::Offer(_, spec) => spec.until = spec.until.map(from),
            Defined::Reservation(_, spec) => spec.until = from(spec.until),
            Defined::Override(_, spec) => spec.until = from(spec.until),
        }
        Some(defined)
    }

    /// As the engine is told, for a scenario that begins at `start`.
    #[must_use]
    pub fn change(&self, start: Timestamp) -> Change {
        let put = self.put(start);
        let what = match self {
            Self::Put(defined) => Amendment::from(put.as_ref().unwrap_or(defined)),
            Self::RemoveService(id) => Amendment::RemoveService(id.clone()),
            Self::RemoveOffer(id) => Amendment::RemoveOffer(id.clone()),
            Self::LiftOverride(id) => Amendment::LiftOverride(id.clone()),
        };
        Change {
            who: "scenario".to_owned(),
            why: put.map_or_else(String::new, |defined| defined.why().to_owned()),
            what,
        }
    }
}

impl std::fmt::Display for Intent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Put(defined) => write!(f, "{} {} is put", defined.noun(), defined.id()),
            Self::RemoveService(id) => write!(f, "service {id} is removed"),
            Self::RemoveOffer(id) => write!(f, "offer {id} is withdrawn"),
            Self::LiftOverride(id) => write!(f, "override {id} is lifted"),
        }
    }
}

impl std::fmt::Display for CheckAction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.check {
            Some(check) => write!(f, "check {check}")?,
            None => f.write_str("every check")?,
        }
        write!(f, " of {} in {}", self.service, self.region)?;
        match self.outcome {
            Some(outcome) => write!(f, " fails ({outcome})")?,
            None => f.write_str(" passes again")?,
        }
        if self.from.is_empty() {
            return Ok(());
        }
        let from: Vec<_> = self.from.iter().map(RegionId::as_str).collect();
        write!(f, " from {}", from.join(", "))
    }
}

impl std::fmt::Display for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = |agents: &[AgentId]| {
            let names: Vec<_> = agents.iter().map(AgentId::as_str).collect();
            names.join(", ")
        };
        match self {
            Self::Set { roads, change } => write!(f, "{} on {roads}", change.words()),
            Self::Clear { roads } => write!(f, "as at the start on {roads}"),
            Self::RegionDown(region) => write!(f, "region {region} is cut off"),
            Self::RegionUp(region) => write!(f, "region {region} is joined again"),
            Self::AgentStop(agent) => write!(f, "agent {agent} stops"),
            Self::AgentStart(agent) => write!(f, "agent {agent} starts"),
            Self::UplinkDown(agents) => write!(f, "the uplink of {} is cut", names(agents)),
            Self::UplinkUp(agents) => write!(f, "the uplink of {} is back", names(agents)),
            Self::Clock { agent, ahead_us } => {
                let off = Duration::from_micros(ahead_us.unsigned_abs());
                let way = if *ahead_us < 0 { "behind" } else { "ahead" };
                write!(f, "the clock of {agent} is {off:?} {way}")
            }
            Self::AggregatorRestart => write!(f, "the aggregator is killed and starts again"),
            Self::Signal(signal) => write!(f, "signal from {}", signal.source),
            Self::Check(check) => write!(f, "{check}"),
            Self::Routing(routing) => write!(f, "{routing}"),
            Self::Intent(intent) => write!(f, "{intent}"),
        }
    }
}
