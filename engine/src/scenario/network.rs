//! What the network does to packets: between regions, and between single hosts.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use leeward_common::{
    id::{AgentId, RegionId},
    ratio::Ratio,
};

use super::{Action, Scenario};
use crate::view::Link;

/// How much longer a packet takes that is held back to reorder it.
pub const REORDER_BY: Duration = Duration::from_millis(10);

/// The packets from one agent's host to another's: one of the many flows that share a link.
pub type Flow = (AgentId, AgentId);

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

/// What an event is about: whole links, or flows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Roads {
    /// Links between regions.
    pub links: Vec<Link>,
    /// Packets between two hosts.
    pub flows: Vec<Flow>,
}

/// What the network does at one time.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    /// Every directed link between two regions.
    pub links: BTreeMap<Link, LinkState>,
    /// What is otherwise for some of a link's flows.
    pub flows: BTreeMap<Flow, LinkChange>,
    /// Regions that no packet enters or leaves.
    pub cut: BTreeSet<RegionId>,
    /// Agents that do not reach the aggregator, and it not them.
    pub uplinks_down: BTreeSet<AgentId>,
}

impl Network {
    /// The link's state with a region that is cut off taken for total loss. Within a region nothing is ever impaired.
    #[must_use]
    pub fn effective(&self, from: &RegionId, to: &RegionId) -> LinkState {
        self.changed(from, to, &LinkChange::default())
    }

    /// As [`Network::effective`], for the packets from one host to another.
    #[must_use]
    pub fn effective_flow(&self, flow: &Flow, from: &RegionId, to: &RegionId) -> LinkState {
        let change = self.flows.get(flow).copied().unwrap_or_default();
        self.changed(from, to, &change)
    }

    fn changed(&self, from: &RegionId, to: &RegionId, change: &LinkChange) -> LinkState {
        let link = self.links.get(&(from.clone(), to.clone()));
        let mut state = link.copied().unwrap_or_default();
        change.apply(&mut state);
        if self.cut.contains(from) || self.cut.contains(to) {
            state.loss = Ratio::ONE;
        }
        state
    }

    /// Whether an agent and the aggregator reach each other.
    #[must_use]
    pub fn has_uplink(&self, agent: &AgentId, region: &RegionId) -> bool {
        !self.cut.contains(region) && !self.uplinks_down.contains(agent)
    }

    /// Lets an action happen; those not about the network change nothing.
    pub fn apply(&mut self, scenario: &Scenario, action: &Action) {
        match action {
            Action::Set { roads, change } => {
                for link in &roads.links {
                    if let Some(state) = self.links.get_mut(link) {
                        change.apply(state);
                    }
                }
                for flow in &roads.flows {
                    self.flows.entry(flow.clone()).or_default().merge(change);
                }
            }
            Action::Clear { roads } => {
                for link in &roads.links {
                    if let Some(state) = scenario.links.get(link) {
                        self.links.insert(link.clone(), *state);
                    }
                }
                for flow in &roads.flows {
                    self.flows.remove(flow);
                }
            }
            Action::RegionDown(region) => {
                self.cut.insert(region.clone());
            }
            Action::RegionUp(region) => {
                self.cut.remove(region);
            }
            Action::UplinkDown(agents) => self.uplinks_down.extend(agents.iter().cloned()),
            Action::UplinkUp(agents) => agents.iter().for_each(|agent| {
                self.uplinks_down.remove(agent);
            }),
            Action::AgentStop(_)
            | Action::AgentStart(_)
            | Action::Clock { .. }
            | Action::AggregatorRestart
            | Action::Signal(_)
            | Action::Check(_)
            | Action::Routing(_)
            | Action::Intent(_) => {}
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

    /// What both change; where both change the same, the later one counts.
    fn merge(&mut self, later: &Self) {
        *self = Self {
            delay: later.delay.or(self.delay),
            jitter: later.jitter.or(self.jitter),
            loss: later.loss.or(self.loss),
            rate_bps: later.rate_bps.or(self.rate_bps),
            reorder: later.reorder.or(self.reorder),
            duplicate: later.duplicate.or(self.duplicate),
        };
    }

    /// The part of this change that a share of the way, 0..=1, has brought about, from `state` on. A rate cannot come
    /// little by little from none, so it comes at once.
    pub(super) fn part(&self, state: &LinkState, share: f64) -> Self {
        let span = |from: Duration, to: Option<Duration>| {
            to.map(|to| from.mul_f64(1.0 - share) + to.mul_f64(share))
        };
        let ratio = |from: Ratio, to: Option<Ratio>| {
            to.map(|to| {
                let between = from.get() + (to.get() - from.get()) * share;
                Ratio::new(between.clamp(0.0, 1.0)).unwrap_or(to)
            })
        };
        let rate = |to: u64| {
            state.rate_bps.map_or(to, |from| {
                (from as f64 + (to as f64 - from as f64) * share).max(1.0) as u64
            })
        };
        Self {
            delay: span(state.delay, self.delay),
            jitter: span(state.jitter, self.jitter),
            loss: ratio(state.loss, self.loss),
            rate_bps: self.rate_bps.map(rate),
            reorder: ratio(state.reorder, self.reorder),
            duplicate: ratio(state.duplicate, self.duplicate),
        }
    }

    pub(super) fn words(&self) -> String {
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

impl std::fmt::Display for Roads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let links = self.links.iter().map(|(from, to)| format!("{from}->{to}"));
        let flows = self.flows.iter().map(|(from, to)| format!("{from}->{to}"));
        f.write_str(&links.chain(flows).collect::<Vec<_>>().join(", "))
    }
}
