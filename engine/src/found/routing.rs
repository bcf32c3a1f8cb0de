//! What agents tell of routing: each watched prefix and each feed as it was told last, and the newest events.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use leeward_common::{
    bgp::{FeedState, Prefix, PrefixWindow, Routing, RoutingEvent},
    id::{AgentId, RegionId},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

/// The most prefixes that are remembered, of all agents together: as many as one may watch. Of more the least recently told are
/// forgotten, and that they were told is known of as many.
pub const MAX_PREFIXES: usize = 65_536;

/// The same of feeds: as many as one agent follows.
pub const MAX_FEEDS: usize = 8_192;

/// Of more than that this share is forgotten at once, so that it is rarely asked which were told least recently.
const FORGOTTEN: usize = 64;

/// The most events that are remembered.
pub const MAX_EVENTS: usize = 512;

/// What is known of routing.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct KnownRouting {
    /// Prefixes, by the agent and the prefix.
    pub prefixes: Remembered<Prefix, PrefixWindow>,
    /// Prefixes that were told and are forgotten.
    pub prefixes_left_out: BTreeSet<(AgentId, Prefix)>,
    /// Feeds, by the agent and their name.
    pub feeds: Remembered<String, FeedState>,
    /// Feeds that were told and are forgotten.
    pub feeds_left_out: BTreeSet<(AgentId, String)>,
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
            let (all, left_out) = (&mut self.prefixes, &mut self.prefixes_left_out);
            remember(all, left_out, (agent, window.prefix), told, MAX_PREFIXES);
        }
        for feed in &routing.feeds {
            let told = told(now, agent, region, feed.clone());
            let (all, left_out) = (&mut self.feeds, &mut self.feeds_left_out);
            remember(all, left_out, (agent, feed.feed.clone()), told, MAX_FEEDS);
        }
        for event in &routing.events {
            self.events
                .push_back(told(now, agent, region, event.clone()));
        }
        let beyond = self.events.len().saturating_sub(MAX_EVENTS);
        self.events.drain(..beyond);
    }
}

/// What agents told last, of each of several things; shared between copies, as each view is one.
pub type Remembered<K, T> = BTreeMap<AgentId, Arc<BTreeMap<K, Arc<Told<T>>>>>;

fn remember<K: Clone + Ord, T>(
    all: &mut Remembered<K, T>,
    left_out: &mut BTreeSet<(AgentId, K)>,
    (agent, key): (&AgentId, K),
    told: Arc<Told<T>>,
    most: usize,
) {
    let of = all.entry(agent.clone()).or_default();
    if Arc::make_mut(of).insert(key.clone(), told).is_some() {
        return;
    }
    left_out.remove(&(agent.clone(), key));
    if all.values().map(|of| of.len()).sum::<usize>() <= most {
        return;
    }
    let told = all.iter().flat_map(|(agent, of)| {
        let of = of.iter();
        of.map(move |(key, told)| (told.at, agent, key))
    });
    let mut oldest: Vec<_> = told.collect();
    let forgotten = (most / FORGOTTEN).max(1);
    oldest.select_nth_unstable(forgotten);
    oldest.truncate(forgotten);
    let oldest = oldest.into_iter();
    let oldest: Vec<_> = oldest
        .map(|(_, agent, key)| (agent.clone(), key.clone()))
        .collect();
    for (agent, key) in oldest {
        if let Some(of) = all.get_mut(&agent) {
            Arc::make_mut(of).remove(&key);
            if of.is_empty() {
                all.remove(&agent);
            }
        }
        if left_out.len() < most {
            left_out.insert((agent, key));
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
        let feeds = known.feeds.values().flat_map(|of| of.values());
        let feeds: Vec<_> = feeds.collect();
        assert_eq!(
            (feeds.len(), feeds[0].what.updates, feeds[0].at),
            (1, 2, at(2))
        );
        assert_eq!(known.events.len(), 2);
    }

    #[test]
    fn memory_is_bounded_the_newest_stay_and_it_is_known_how_many_do_not() {
        let mut known = KnownRouting::default();
        let count = MAX_FEEDS + 10;
        let counted = |known: &KnownRouting| {
            let feeds = known.feeds.values().next().unwrap();
            assert!(feeds.len() <= MAX_FEEDS && known.events.len() == MAX_EVENTS);
            feeds.len() + known.feeds_left_out.len()
        };
        for feed in 0..count {
            tell(&mut known, feed as u64, feed);
        }
        assert_eq!(counted(&known), count);
        let first = |known: &KnownRouting| {
            let mut told = known.feeds.values().flat_map(|of| of.values());
            let first = told.clone().map(|told| told.at).min();
            (first.unwrap(), told.any(|told| told.what.feed == "0"))
        };
        let left_out = known.feeds_left_out.len() as u64;
        assert_eq!(first(&known), (at(left_out), false));
        // One that is told once more is remembered.
        tell(&mut known, 1_000_000, 0);
        assert_eq!((counted(&known), first(&known).1), (count, true));
    }
}
