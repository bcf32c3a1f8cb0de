//! How much links carry, as agents told, and what of it counts.
//!
//! Of each link the newest estimate of each agent to each target is kept, and its newest heavy test. What counts for a pair
//! of regions is what is free (`available_est`) of the estimates that their agents trust: its lower end, because a link
//! must not be chosen for what it may not have; of one direction that of the agent that saw the most, since a link carries
//! at least what was seen on it; of the two directions the smaller. It is never more than the capacity that was found with it.
//!
//! An estimate that grows old tells less and less: from [`FULL_FOR`] to [`NEUTRAL_AFTER`] it goes over to the bandwidth that
//! unknown ones count as, in equal ratios.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use leeward_common::{
    finding::{Bandwidth, bandwidth::Quantity},
    id::{AgentId, RegionId, TargetId},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

use super::Exclusions;
use crate::view::{Estimate, Link, Pair};

/// For how long an estimate counts in full: a few times what an agent's budget makes lie between two.
pub const FULL_FOR: Duration = Duration::from_secs(45 * 60);

/// After this long it counts as unknown.
pub const NEUTRAL_AFTER: Duration = Duration::from_secs(3 * 3_600);

/// For how long it is remembered.
pub const KEPT_FOR: Duration = Duration::from_secs(24 * 3_600);

/// The most estimates that are remembered: about 1 MB.
pub const MAX_GAUGED: usize = 1_024;

/// What an agent told about a target, and when.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Gauged {
    /// When it was measured, by our clock.
    pub at: Timestamp,
    /// Who measured.
    pub agent: AgentId,
    /// The agent's region.
    pub region: RegionId,
    /// What it found.
    pub bandwidth: Bandwidth,
}

/// What tells one from another: agent, target, and whether it was a heavy test.
type Key = (AgentId, TargetId, bool);

/// All that was told.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Bandwidths {
    #[serde(with = "crate::pairs")]
    all: BTreeMap<Key, Arc<Gauged>>,
}

impl Bandwidths {
    /// Takes in what an agent found.
    pub(super) fn on_told(&mut self, gauged: Gauged) {
        let bandwidth = &gauged.bandwidth;
        let key = (
            gauged.agent.clone(),
            bandwidth.target.clone(),
            bandwidth.heavy,
        );
        self.all.insert(key, Arc::new(gauged));
        if self.all.len() > MAX_GAUGED {
            let oldest = self.all.iter().min_by_key(|(_, own)| own.at);
            let oldest = oldest.map(|(key, _)| key.clone());
            oldest.and_then(|key| self.all.remove(&key));
        }
    }

    /// Forgets what is too old to be of use, and what is of regions that are no more.
    pub(super) fn forget_old(&mut self, now: Timestamp, known: impl Fn(&RegionId) -> bool) {
        self.all
            .retain(|_, own| now.since(own.at) <= KEPT_FOR && known(&own.region));
    }

    /// What was told of a link, in the order of agents and targets.
    pub fn of_link<'a>(&'a self, link: &'a Link) -> impl Iterator<Item = &'a Arc<Gauged>> {
        let (from, to) = link;
        self.all
            .values()
            .filter(move |own| own.region == *from && own.bandwidth.region.as_ref() == Some(to))
    }

    /// What came of an order, if that is known.
    #[must_use]
    pub fn answer(&self, order: u64) -> Option<&Arc<Gauged>> {
        self.all
            .values()
            .find(|own| own.bandwidth.order == Some(order))
    }

    /// The bandwidth that counts for a pair of regions; `neutral_bps` is what an unknown one counts as.
    pub(super) fn of_pair(
        &self,
        now: Timestamp,
        pair: &Pair,
        exclusions: &Exclusions,
        neutral_bps: f64,
    ) -> Option<Estimate> {
        let (a, b) = pair.regions();
        let directions = [(a.clone(), b.clone()), (b.clone(), a.clone())];
        let counts = |own: &&Arc<Gauged>| {
            !exclusions.agents.contains(&own.agent)
                && !exclusions.targets.contains(&own.bandwidth.target)
        };
        let most = |link: &Link| {
            let told = self.of_link(link).filter(counts);
            told.filter_map(|own| free(now, own, neutral_bps))
                .max_by(|a, b| a.value.total_cmp(&b.value))
        };
        directions
            .iter()
            .filter_map(most)
            .min_by(|a, b| a.value.total_cmp(&b.value))
    }
}

/// What is free for sure, by one estimate.
fn free(now: Timestamp, gauged: &Gauged, neutral_bps: f64) -> Option<Estimate> {
    let own = trusted(gauged.bandwidth.available_est.as_ref())?;
    let capacity = trusted(gauged.bandwidth.capacity_upper.as_ref());
    let most = capacity.map_or(u64::MAX, |own| own.high_bps);
    let weight = share(now.since(gauged.at))?;
    let aged = |bps: u64| {
        let bps = bps.min(most).max(1) as f64;
        (bps.ln() * weight + neutral_bps.max(1.0).ln() * (1.0 - weight)).exp()
    };
    let low = aged(own.low_bps.min(own.bps));
    Some(Estimate {
        value: low,
        low,
        high: aged(own.high_bps.max(own.bps)),
        n: u64::from(own.samples),
    })
}

fn trusted(quantity: Option<&Quantity>) -> Option<&Quantity> {
    quantity.filter(|own| own.doubt.is_none())
}

/// How much an estimate of this age tells; `None` when nothing.
fn share(age: Duration) -> Option<f64> {
    if age >= NEUTRAL_AFTER {
        return None;
    }
    let fading = age.saturating_sub(FULL_FOR).as_secs_f64();
    Some(1.0 - fading / (NEUTRAL_AFTER - FULL_FOR).as_secs_f64())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NEUTRAL: f64 = 100e6;

    fn region(id: &str) -> RegionId {
        RegionId::parse(id).unwrap()
    }

    fn quantity(bps: u64) -> Quantity {
        Quantity {
            method: "trains".to_owned(),
            bps,
            low_bps: bps / 10 * 9,
            high_bps: bps / 10 * 11,
            samples: 9,
            bytes: 1,
            doubt: None,
        }
    }

    fn gauged(at_s: u64, from: &str, to: &str, capacity: u64, free: u64) -> Gauged {
        Gauged {
            at: Timestamp::from_unix_us(at_s * 1_000_000),
            agent: AgentId::parse(&format!("{from}-1")).unwrap(),
            region: region(from),
            bandwidth: Bandwidth {
                target: TargetId::parse(&format!("{to}-1")).unwrap(),
                region: Some(region(to)),
                at: Timestamp::EPOCH,
                order: None,
                heavy: false,
                capacity_upper: Some(quantity(capacity)),
                available_est: Some(quantity(free)),
                goodput_seen: None,
                bytes: 2,
                took_us: 3,
                note: String::new(),
            },
        }
    }

    fn of_pair(told: &Bandwidths, at_s: u64) -> Option<f64> {
        let at = Timestamp::from_unix_us(at_s * 1_000_000);
        let pair = Pair::new(&region("dub"), &region("iad"));
        let estimate = told.of_pair(at, &pair, &Exclusions::default(), NEUTRAL);
        estimate.map(|own| own.value)
    }

    #[test]
    fn the_lower_end_of_the_smaller_direction_counts() {
        let mut told = Bandwidths::default();
        assert_eq!(of_pair(&told, 10), None);
        told.on_told(gauged(1, "dub", "iad", 100_000_000, 50_000_000));
        assert!((of_pair(&told, 10).unwrap() - 45e6).abs() < 1.0);
        told.on_told(gauged(2, "iad", "dub", 100_000_000, 20_000_000));
        assert!((of_pair(&told, 10).unwrap() - 18e6).abs() < 1.0);
        told.on_told(gauged(3, "iad", "syd", 100_000_000, 1_000_000));
        assert!((of_pair(&told, 10).unwrap() - 18e6).abs() < 1.0);
        told.on_told(gauged(4, "iad", "dub", 100_000_000, 80_000_000));
        assert!(
            (of_pair(&told, 10).unwrap() - 45e6).abs() < 1.0,
            "the newest"
        );
    }

    #[test]
    fn what_is_doubted_or_measured_by_an_agent_at_fault_does_not_count() {
        let mut doubted = gauged(1, "dub", "iad", 100_000_000, 50_000_000);
        doubted.bandwidth.available_est.as_mut().unwrap().doubt = Some("no".to_owned());
        let mut told = Bandwidths::default();
        told.on_told(doubted);
        assert_eq!(of_pair(&told, 10), None);
        told.on_told(gauged(1, "dub", "iad", 100_000_000, 50_000_000));
        let pair = Pair::new(&region("dub"), &region("iad"));
        let mut exclusions = Exclusions::default();
        exclusions.agents.insert(AgentId::parse("dub-1").unwrap());
        assert_eq!(
            told.of_pair(Timestamp::EPOCH, &pair, &exclusions, NEUTRAL),
            None
        );
    }

    proptest! {
        /// Whatever is told: never more than the capacity found with it says, or what is neutral; between fresh and forgotten
        /// it goes to neutral without ever turning back; and never more is kept than there is room for.
        #[test]
        fn age_leads_to_neutral_and_nothing_beyond_capacity(capacity in 1u64..10_000_000_000, free in 1u64..10_000_000_000) {
            let mut told = Bandwidths::default();
            told.on_told(gauged(0, "dub", "iad", capacity, free));
            let mut before = of_pair(&told, 0).unwrap();
            prop_assert!(before <= (capacity as f64 * 1.1 + 1.0));
            let rises = before < NEUTRAL;
            for minute in 1..180 {
                let now = of_pair(&told, minute * 60).unwrap();
                let (from, to) = if rises { (before, NEUTRAL) } else { (NEUTRAL, before) };
                prop_assert!(from - 1.0 <= now && now <= to + 1.0, "{now} after {before}");
                before = now;
            }
            prop_assert!((before / NEUTRAL).ln().abs() < 0.3);
            prop_assert_eq!(of_pair(&told, 180 * 60), None);
            for number in 0..2 * MAX_GAUGED {
                let mut own = gauged(number as u64, "dub", "iad", capacity, free);
                own.bandwidth.target = TargetId::parse(&format!("t{number}")).unwrap();
                told.on_told(own);
            }
            prop_assert_eq!(told.all.len(), MAX_GAUGED);
        }
    }
}
