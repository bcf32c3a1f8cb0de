//! Which agent probes whom. [pure]

use std::net::IpAddr;

use leeward_common::id::{AgentId, RegionId};

/// What an agent registered when it last connected.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Registration {
    /// The agent.
    pub agent: AgentId,
    /// Its region, from its certificate.
    pub region: RegionId,
    /// Which start of its process.
    pub boot_epoch: u64,
    /// Addresses on which it answers probes.
    pub addresses: Vec<IpAddr>,
    /// TCP port on which it answers SYN probes.
    pub answer_port: u16,
    /// Its build, for people.
    pub build: String,
}
