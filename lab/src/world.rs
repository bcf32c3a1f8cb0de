//! From a scenario to places, hosts and links. [pure]
//!
//! Every region of the scenario is a place, in the order of their ids, with one host for each of its agents. One more
//! place, `management`, holds the aggregator. Between it and every region run links of its own, [`MANAGEMENT_DELAY`]
//! each way and otherwise perfect: what a scenario does to the link between two regions never touches what agents
//! tell the aggregator. A region that is cut off (`region_down`) is cut off from the aggregator too.

use std::{net::IpAddr, time::Duration};

use leeward_common::id::{AgentId, RegionId};
use leeward_engine::scenario::{Action, LinkState, Network, REORDER_BY, Scenario};

use crate::{
    host,
    link::{Impairment, Link},
    speaker,
};

/// One way between a region and the aggregator.
pub const MANAGEMENT_DELAY: Duration = Duration::from_millis(1);

/// The aggregator's place in addresses: `10.255.0.1`, `fd00:ff::1`.
const MANAGEMENT_NUMBER: u8 = 255;

/// A lab with more regions than this would spend its time on looking at links.
const MAX_REGIONS: usize = 60;

/// Where everything stands.
#[derive(Clone, Debug)]
pub struct World {
    /// The regions; a region's position is the number of its place.
    pub regions: Vec<RegionId>,
    /// The agents.
    pub agents: Vec<Site>,
    /// The aggregator's addresses, IPv4 first.
    pub aggregator: [IpAddr; 2],
}

/// Where an agent stands.
#[derive(Clone, Debug)]
pub struct Site {
    /// The agent.
    pub agent: AgentId,
    /// Its region.
    pub region: RegionId,
    /// The number of its region's place.
    pub place: usize,
    /// Its host's addresses, IPv4 first.
    pub addresses: [IpAddr; 2],
}

impl World {
    /// Lays out a scenario.
    ///
    /// # Errors
    ///
    /// Returns why the lab cannot hold it.
    pub fn new(scenario: &Scenario) -> Result<Self, String> {
        let actions = scenario.events.iter().flat_map(|event| &event.actions);
        for action in actions {
            let is_beyond = match action {
                // The kernel has one clock of the day for all namespaces.
                Action::Clock { .. } => true,
                Action::Routing(routing) => !speaker::can(routing.change),
                _ => false,
            };
            if is_beyond {
                return Err(format!(
                    "the lab cannot do this: {action}; run the scenario with leeward simulate"
                ));
            }
        }
        for (name, feed) in &scenario.feeds {
            speaker::systems(name, feed)?;
        }
        let regions: Vec<RegionId> = scenario.agents.keys().cloned().collect();
        if regions.len() > MAX_REGIONS {
            return Err(format!(
                "the scenario has {} regions; the lab holds at most {MAX_REGIONS}",
                regions.len()
            ));
        }
        let mut agents: Vec<Site> = Vec::new();
        for (agent, region) in scenario.agent_ids() {
            let place = regions.iter().position(|other| *other == region);
            let place = place.ok_or_else(|| format!("agent {agent} stands in no region"))?;
            let neighbours = agents.iter().filter(|site| site.place == place).count();
            // The scenario's reader allows far fewer agents per region, and `MAX_REGIONS` bounds the places.
            let addresses = host::addresses(place as u8 + 1, neighbours as u8 + 1);
            agents.push(Site {
                agent,
                region,
                place,
                addresses,
            });
        }
        Ok(Self {
            regions,
            agents,
            aggregator: host::addresses(MANAGEMENT_NUMBER, 1),
        })
    }

    /// The number of the aggregator's place.
    #[must_use]
    pub fn management(&self) -> usize {
        self.regions.len()
    }

    /// What the link from one place to another does, given the state of the network.
    #[must_use]
    pub fn impairment(&self, network: &Network, from: usize, to: usize) -> Impairment {
        match (self.regions.get(from), self.regions.get(to)) {
            (Some(a), Some(b)) if a == b => Impairment::default(),
            (Some(a), Some(b)) => impairment(&network.effective(a, b)),
            (Some(region), None) | (None, Some(region)) => uplink(!network.cut.contains(region)),
            (None, None) => Impairment::default(),
        }
    }

    /// What happens to the packets of the flows that a scenario names, and of the uplinks that it cuts: by the numbers
    /// of the hosts' ports, 0 for the aggregator's and then the agents' in their order.
    #[must_use]
    pub fn flows(&self, scenario: &Scenario, network: &Network) -> Vec<(usize, usize, Impairment)> {
        let named = scenario.events.iter().flat_map(|event| &event.actions);
        let mut all = Vec::new();
        for action in named {
            match action {
                Action::Set { roads, .. } => all.extend(roads.flows.iter().filter_map(|flow| {
                    let ((from, a), (to, b)) = (self.site(&flow.0)?, self.site(&flow.1)?);
                    let state = network.effective_flow(flow, &a.region, &b.region);
                    Some((from, to, impairment(&state)))
                })),
                Action::UplinkDown(agents) => {
                    for (port, site) in agents.iter().filter_map(|agent| self.site(agent)) {
                        let own = uplink(network.has_uplink(&site.agent, &site.region));
                        all.extend([(port, 0, own), (0, port, own)]);
                    }
                }
                _ => {}
            }
        }
        all.sort_by_key(|&(from, to, _)| (from, to));
        all.dedup();
        all
    }

    /// Where an agent stands, and the number of its port.
    fn site(&self, agent: &AgentId) -> Option<(usize, &Site)> {
        let port = self.agents.iter().position(|site| site.agent == *agent)?;
        Some((port + 1, &self.agents[port]))
    }

    /// Every pair of places.
    pub fn pairs(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let places = self.regions.len() + 1;
        (0..places).flat_map(move |from| (0..places).map(move |to| (from, to)))
    }

    /// The links at the start, by place.
    #[must_use]
    pub fn links(&self, network: &Network, seed: u64) -> Vec<Vec<Link>> {
        let places = self.regions.len() + 1;
        let link = |from: usize, to: usize| {
            // Distinct for each link, and the same for the same scenario.
            let own = seed
                .wrapping_mul(0x0001_0000_0001)
                .wrapping_add((from * places + to) as u64);
            Link::new(self.impairment(network, from, to), own)
        };
        (0..places)
            .map(|from| (0..places).map(|to| link(from, to)).collect())
            .collect()
    }
}

fn uplink(is_there: bool) -> Impairment {
    Impairment {
        delay: MANAGEMENT_DELAY,
        loss: if is_there { 0.0 } else { 1.0 },
        ..Impairment::default()
    }
}

/// A scenario speaks of links as the model does; a packet that others overtake is one that is held back.
fn impairment(state: &LinkState) -> Impairment {
    Impairment {
        delay: state.delay,
        jitter: state.jitter,
        loss: state.loss.get(),
        rate_bps: state.rate_bps,
        duplicate: state.duplicate.get(),
        reorder: state.reorder.get(),
        reorder_by: REORDER_BY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
        name = "two"
        duration = "10s"
        [[region]]
        id = "a"
        latitude = 0.0
        longitude = 0.0
        agents = 2
        [[region]]
        id = "b"
        latitude = 0.0
        longitude = 90.0
        [[link]]
        between = ["a", "b"]
        rtt = "80ms"
        [[event]]
        at = "5s"
        region_down = "b"
    "#;

    fn world() -> (Scenario, World) {
        let scenario = Scenario::parse("two.toml", TEXT).unwrap();
        let world = World::new(&scenario).unwrap();
        (scenario, world)
    }

    #[test]
    fn every_agent_has_a_host_with_addresses_that_tell_where_it_is() {
        let (_, world) = world();
        let told: Vec<String> = world
            .agents
            .iter()
            .map(|site| format!("{} {} {}", site.agent, site.addresses[0], site.addresses[1]))
            .collect();
        assert_eq!(
            told,
            [
                "a-1 10.1.0.1 fd00:1::1",
                "a-2 10.1.0.2 fd00:1::2",
                "b-1 10.2.0.1 fd00:2::1"
            ]
        );
        assert_eq!(world.aggregator[0].to_string(), "10.255.0.1");
        assert_eq!(world.aggregator[1].to_string(), "fd00:ff::1");
    }

    #[test]
    fn links_do_what_the_scenario_says_and_management_is_apart() {
        let (scenario, world) = world();
        let network = scenario.network();
        assert_eq!(
            world.impairment(&network, 0, 1).delay,
            Duration::from_millis(40)
        );
        assert_eq!(world.impairment(&network, 0, 0), Impairment::default());
        assert_eq!(world.impairment(&network, 0, 2).delay, MANAGEMENT_DELAY);
    }

    #[test]
    fn a_region_that_is_cut_off_reaches_neither_regions_nor_the_aggregator() {
        let (scenario, world) = world();
        let network = scenario.network_at(Duration::from_secs(5));
        for (from, to) in [(0, 1), (1, 0), (1, 2), (2, 1)] {
            assert_eq!(world.impairment(&network, from, to).loss, 1.0);
        }
        assert_eq!(world.impairment(&network, 0, 2).loss, 0.0);
    }
}
