//! What routers tell of the prefixes that regions are reached by. `docs/bgp.md` defines the figures.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::Time;
use crate::{
    bgp::{Standing, Validity},
    id::{AgentId, RegionId},
};

/// Watched prefixes, each as every agent that watches it told last.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BgpPrefixes {
    /// In the order of prefixes, then of agents. One that no feed ever showed is not among them.
    pub prefixes: Vec<BgpPrefix>,
    /// How many more were told and are no longer remembered: 65,536 are, of all agents together, the most recently told.
    #[serde(default)]
    pub left_out: u64,
}

/// A watched prefix, as one agent told last.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BgpPrefix {
    /// The prefix, like `192.0.2.0/24`.
    pub prefix: String,
    /// The region that is reached by it.
    pub region_id: RegionId,
    /// Who told.
    pub agent_id: AgentId,
    /// Feeds that have a route.
    pub visible: u32,
    /// Feeds that had one and withdrew it.
    pub gone: u32,
    /// Routers and peers among those that withdrew it.
    pub gone_sources: u32,
    /// Feeds that still show a route that most others withdrew long ago.
    pub stuck: u32,
    /// Feeds that cannot be believed now, but show a route, or showed one when their trouble began.
    #[serde(default)]
    pub unsure: u32,
    /// Systems that announce it; several are MOAS.
    pub origins: Vec<u32>,
    /// Announcements in the window that changed something.
    pub announcements: u32,
    /// Withdrawals in the window.
    pub withdrawals: u32,
    /// Changes of the AS path in the window.
    pub path_changes: u32,
    /// Changes of the origin in the window.
    pub origin_changes: u32,
    /// The most successively longer paths of one feed.
    pub exploration_max: u32,
    /// How many hops longer than before a path was at most.
    pub longer_max: u32,
    /// In how many hops a path differed from the one before at most.
    pub edit_distance_max: u32,
    /// RFC 2439's figure of merit with a half-life of 30 s, 0 to 12000; lower is better.
    pub penalty_fast: u32,
    /// The same with a half-life of 15 min.
    pub penalty_slow: u32,
    /// What feeds said in the window that could not be believed.
    pub disregarded: u32,
    /// Parts of the prefix that strangers announced in the window.
    pub more_specifics: Vec<BgpMoreSpecific>,
    /// Feeds whose route's origin may announce it (RPKI, RFC 6811).
    #[serde(default)]
    pub valid: u32,
    /// Feeds whose route nobody is authorized for.
    #[serde(default)]
    pub not_found: u32,
    /// Feeds whose route others are authorized for, or shorter prefixes.
    #[serde(default)]
    pub invalid: u32,
    /// Feeds of whose route nobody can tell, since no cache is there.
    #[serde(default)]
    pub unknown: u32,
    /// Feeds whose route looks leaked.
    #[serde(default)]
    pub leaked: u32,
    /// A feed shows the community that asks for traffic to be thrown away (RFC 7999).
    pub blackholed: bool,
    /// A feed shows the community that announces a shutdown (RFC 8326).
    pub shutting_down: bool,
    /// When the window began, by the agent's clock.
    pub window_start: Time,
    /// How long it was.
    pub window_us: u64,
    /// When that was told, by the aggregator's clock.
    pub told_at: Time,
}

/// Part of a watched prefix that somebody announced.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BgpMoreSpecific {
    /// The part.
    pub prefix: String,
    /// Who announced it; `null` if the path does not tell.
    pub origin: Option<u32>,
    /// Whether that origin may: `unknown`, `valid`, `not_found`, `invalid_origin` or `invalid_length`.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub validity: Validity,
}

/// Feeds: views of neighbours, of routers and of peers.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BgpPeers {
    /// In the order of agents, then of feeds.
    pub peers: Vec<BgpPeer>,
    /// How many more were told and are no longer remembered: 8,192 are, of all agents together, the most recently told.
    #[serde(default)]
    pub left_out: u64,
}

/// A feed, as one agent told last.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BgpPeer {
    /// Which.
    pub feed: String,
    /// The router or peer that it comes from.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub source: IpAddr,
    /// The neighbour's system; 0 if unknown.
    pub system: u32,
    /// `loading`, `believed`, `lost` or `untrusted`.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub standing: Standing,
    /// Since when its session is up, or down, by the agent's clock.
    pub since: Time,
    /// UPDATEs since then.
    pub updates: u64,
    /// Prefixes announced since then, watched or not.
    pub announced: u64,
    /// Prefixes withdrawn since then, watched or not.
    pub withdrawn: u64,
    /// Watched prefixes withdrawn that it never announced.
    pub fabricated: u32,
    /// Who told.
    pub agent_id: AgentId,
    /// The agent's region.
    pub agent_region_id: RegionId,
    /// When that was told, by the aggregator's clock.
    pub told_at: Time,
}

/// What happened to watched prefixes and to feeds.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BgpEvents {
    /// Newest first; the last five hundred or so are remembered.
    pub events: Vec<BgpEvent>,
}

/// Something that happened.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BgpEvent {
    /// When the agent heard of it, by its own clock.
    pub at: Time,
    /// When it was told, by the aggregator's clock.
    pub told_at: Time,
    /// What it was: `withdrawn`, `returned`, `exploring`, `origin_changed`, `more_specific`, `invalid`, `leaked`,
    /// `over_failed_link`, `link_failed`, `feed_up`,
    /// `feed_loaded`, `feed_down`, `feed_untrusted` or `feed_limited`.
    pub kind: String,
    /// The watched prefix; `null` of a feed's own events, and of links.
    pub prefix: Option<String>,
    /// The region that is reached by it.
    pub region_id: Option<RegionId>,
    /// The same in words.
    pub detail: String,
    /// Feeds that have a route since; `null` of a feed's own events.
    pub visible: Option<u32>,
    /// Feeds that withdrew theirs.
    pub gone: Option<u32>,
    /// The feed that told.
    pub feed: String,
    /// The router or peer that it comes from.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub source: IpAddr,
    /// Who told.
    pub agent_id: AgentId,
    /// The agent's region.
    pub agent_region_id: RegionId,
}
