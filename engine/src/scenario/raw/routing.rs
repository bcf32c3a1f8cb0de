//! Feeds, watched prefixes, and what routers do, as written.

use std::{collections::BTreeMap, net::IpAddr};

use leeward_common::{
    bgp::Prefix,
    config::{ConfigError, Spanned},
    id::{AgentId, RegionId},
};
use serde::Deserialize;

use super::Reader;
use crate::scenario::{Action, Feed, RoutingAction, RoutingChange};

/// `[[feed]]`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFeed {
    id: Spanned<String>,
    agent: Spanned<AgentId>,
    source: IpAddr,
    #[serde(default)]
    path: String,
}

/// `[[prefix]]`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPrefix {
    prefix: Spanned<Prefix>,
    region: Spanned<RegionId>,
}

/// `routing` of an event.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRouting {
    feeds: Vec<Spanned<String>>,
    #[serde(default)]
    prefixes: Vec<Spanned<Prefix>>,
    change: RawChange,
    /// How many paths, which system, or which figure of merit.
    value: Option<u32>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RawChange {
    Withdrawn,
    Returned,
    Exploring,
    Origin,
    Invalid,
    Leaked,
    Usual,
    Unstable,
    Stuck,
    Lost,
    Up,
    Loaded,
    Fabricating,
}

/// The feeds and the watched prefixes of a scenario.
pub(super) type Routers = (BTreeMap<String, Feed>, BTreeMap<Prefix, RegionId>);

impl Reader<'_> {
    pub(super) fn routers(
        &self,
        feeds: Vec<RawFeed>,
        prefixes: Vec<RawPrefix>,
    ) -> Result<Routers, ConfigError> {
        let (mut known, mut watched) = (BTreeMap::new(), BTreeMap::new());
        for raw in feeds {
            let feed = Feed {
                agent: self.agent(&raw.agent)?,
                source: raw.source,
                path: raw.path,
            };
            if known.insert(raw.id.get_ref().clone(), feed).is_some() {
                let message = format!("feed {} is defined twice; remove one", raw.id.get_ref());
                return Err(self.document.error(raw.id.span(), message));
            }
        }
        for raw in prefixes {
            let region = self.region(&raw.region)?;
            if watched.insert(*raw.prefix.get_ref(), region).is_some() {
                let message = format!(
                    "prefix {} is watched twice; remove one",
                    raw.prefix.get_ref()
                );
                return Err(self.document.error(raw.prefix.span(), message));
            }
        }
        Ok((known, watched))
    }

    pub(super) fn routing(
        &self,
        written: &Spanned<RawRouting>,
        (feeds, watched): &Routers,
    ) -> Result<Action, ConfigError> {
        let raw = written.get_ref();
        if let Some(feed) = raw
            .feeds
            .iter()
            .find(|own| !feeds.contains_key(own.get_ref()))
        {
            let message = format!("feed {} is not defined; add a [[feed]]", feed.get_ref());
            return Err(self.document.error(feed.span(), message));
        }
        let mut prefixes = raw.prefixes.iter();
        if let Some(prefix) = prefixes.find(|own| !watched.contains_key(own.get_ref())) {
            let message = format!(
                "prefix {} is not watched; add a [[prefix]]",
                prefix.get_ref()
            );
            return Err(self.document.error(prefix.span(), message));
        }
        let change = match (raw.change, raw.value) {
            (RawChange::Withdrawn, None) => RoutingChange::Withdrawn,
            (RawChange::Returned, None) => RoutingChange::Returned,
            (RawChange::Exploring, Some(paths)) => RoutingChange::Exploring(paths),
            (RawChange::Origin, Some(to)) => RoutingChange::Origin(to),
            (RawChange::Invalid, Some(to)) => RoutingChange::Invalid(to),
            (RawChange::Leaked, None) => RoutingChange::Leaked,
            (RawChange::Usual, None) => RoutingChange::Usual,
            (RawChange::Unstable, Some(penalty)) => RoutingChange::Unstable(penalty),
            (RawChange::Stuck, None) => RoutingChange::Stuck,
            (RawChange::Lost, None) => RoutingChange::Lost,
            (RawChange::Up, None) => RoutingChange::Up,
            (RawChange::Loaded, None) => RoutingChange::Loaded,
            (RawChange::Fabricating, None) => RoutingChange::Fabricating,
            _ => {
                let message = "value belongs to exploring (how many paths), origin and invalid (which system) and unstable \
                     (which figure of merit), and to no other change";
                return Err(self.document.error(written.span(), message));
            }
        };
        Ok(Action::Routing(RoutingAction {
            feeds: raw.feeds.iter().map(|own| own.get_ref().clone()).collect(),
            prefixes: raw.prefixes.iter().map(|own| *own.get_ref()).collect(),
            change,
        }))
    }
}
