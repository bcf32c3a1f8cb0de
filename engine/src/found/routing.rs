//! What agents tell of routing: each watched prefix and each feed as it was told last, and the newest events.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use leeward_common::{
    bgp::{FeedState, Prefix, PrefixWindow, Routing, RoutingEvent},
    id::{AgentId, RegionId},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

/// The most prefixes that are remembered, of all agents together; of more the least recently told is forgotten.
pub const MAX_PREFIXES: usize = 4_096;

/// The same of feeds.
pub const MAX_FEEDS: usize = 1_024;

/// The most events that are remembered.
pub const MAX_EVENTS: usize = 512;

/// What is known of routing.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct KnownRouting {
    /// Prefixes, by the agent and the prefix.
    pub prefixes: BTreeMap<AgentId, BTreeMap<Prefix, Arc<Told<PrefixWindow>>>>,
    /// Feeds, by the agent and their name.
    pub feeds: BTreeMap<AgentId, BTreeMap<String, Arc<Told<FeedState>>>>,
    /// Events, in the order in which they were told.
    pub events: VecDeque<Arc<Told<RoutingEvent>>>,
}

/// Something, and who told it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Told<T> {
    /// When it was told, by the aggregator's clock.
    pub at: Timestamp,
    /// Who told it.
    pub agent: AgentId,
    /// The agent's region.
    pub region: RegionId,
    /// What was told.
    pub what: T,
}

impl KnownRouting {
    pub(super) fn on_routing(
        &mut self,
        now: Timestamp,
        agent: &AgentId,
        region: &RegionId,
        routing: &Routing,
    ) {
        fn told<T>(at: Timestamp, agent: &AgentId, region: &RegionId, what: T) -> Arc<Told<T>> {
            let (agent, region) = (agent.clone(), region.clone());
            Arc::new(Told {
                at,
                agent,
                region,
                what,
            })
        }
        for window in &routing.windows {
            let told = told(now, agent, region, window.clone());
            remember(&mut self.prefixes, agent, window.prefix, told, MAX_PREFIXES);
        }
        for feed in &routing.feeds {
            let told = told(now, agent, region, feed.clone());
            remember(&mut self.feeds, agent, feed.feed.clone(), told, MAX_FEEDS);
        }
        for event in &routing.events {
            self.events
                .push_back(told(now, agent, region, event.clone()));
        }
        let beyond = self.events.len().saturating_sub(MAX_EVENTS);
        self.events.drain(..beyond);
    }
}

type Remembered<K, T> = BTreeMap<AgentId, BTreeMap<K, Arc<Told<T>>>>;

fn remember<K: Clone + Ord, T>(
    all: &mut Remembered<K, T>,
    agent: &AgentId,
    key: K,
    told: Arc<Told<T>>,
    most: usize,
) {
    all.entry(agent.clone()).or_default().insert(key, told);
    if all.values().map(BTreeMap::len).sum::<usize>() <= most {
        return;
    }
    let entries = all
        .iter()
        .flat_map(|(agent, of)| of.iter().map(move |(key, told)| (told.at, agent, key)));
    let oldest = entries
        .min()
        .map(|(_, agent, key)| (agent.clone(), key.clone()));
    if let Some((agent, key)) = oldest
        && let Some(of) = all.get_mut(&agent)
    {
        of.remove(&key);
        if of.is_empty() {
            all.remove(&agent);
        }
    }
}

#[cfg(test)]
mod tests {
    use leeward_common::bgp::{FeedChange, Standing, What};

    use super::*;

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_unix_us(secs * 1_000_000)
    }

    fn tell(known: &mut KnownRouting, secs: u64, feed: usize) {
        let source = [10, 0, 0, 1].into();
        let routing = Routing {
            events: vec![RoutingEvent {
                at: at(secs),
                feed: feed.to_string(),
                source,
                what: What::Feed(FeedChange::Loaded),
                collector: None,
            }],
            windows: Vec::new(),
            feeds: vec![FeedState {
                feed: feed.to_string(),
                source,
                system: 64_501,
                standing: Standing::Believed,
                since: at(0),
                updates: secs,
                announced: 0,
                withdrawn: 0,
                fabricated: 0,
                collector: None,
            }],
        };
        let (agent, region) = ("iad-1".parse().unwrap(), "iad".parse().unwrap());
        known.on_routing(at(secs), &agent, &region, &routing);
    }

    #[test]
    fn a_feed_is_known_as_it_was_told_last() {
        let mut known = KnownRouting::default();
        tell(&mut known, 1, 0);
        tell(&mut known, 2, 0);
        let feeds: Vec<_> = known.feeds.values().flat_map(BTreeMap::values).collect();
        assert_eq!(
            (feeds.len(), feeds[0].what.updates, feeds[0].at),
            (1, 2, at(2))
        );
        assert_eq!(known.events.len(), 2);
    }

    #[test]
    fn memory_is_bounded_and_the_newest_stay() {
        let mut known = KnownRouting::default();
        for feed in 0..MAX_FEEDS + 10 {
            tell(&mut known, feed as u64, feed);
        }
        let feeds = known.feeds.values().next().unwrap();
        assert_eq!((feeds.len(), known.events.len()), (MAX_FEEDS, MAX_EVENTS));
        assert!(!feeds.contains_key("9") && feeds.contains_key("10"));
    }
}
