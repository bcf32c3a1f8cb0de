//! What measuring bandwidth may cost: bytes per second of each link and of the whole uplink. [pure]
//!
//! Two token buckets of equal depth, one for each link and one for all together. A train leaves only if both hold what
//! it costs, its replies included; then both are charged. The check is made where the packets leave, not where they are
//! planned. Whatever is asked for, in any span of `t` seconds no more than [`SAVED_BYTES`] + `rate` × `t` is spent.
//! Buckets begin empty, so that an agent that is restarted again and again spends nothing at all.

use std::collections::BTreeMap;

use leeward_common::id::TargetId;

/// What may be saved up: one whole estimate.
pub const SAVED_BYTES: u64 = super::survey::BYTES_MAX;

/// One allowance: it fills at a rate, and holds [`SAVED_BYTES`].
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    bits_per_second: u64,
    /// Nanobytes, so that a slow rate over a short span is not rounded away.
    saved: u128,
    at_ns: u64,
}

const NANO: u128 = 1_000_000_000;

impl Bucket {
    /// An empty one.
    #[must_use]
    pub const fn new(now_ns: u64, bits_per_second: u64) -> Self {
        Self {
            bits_per_second,
            saved: 0,
            at_ns: now_ns,
        }
    }

    /// The same with all that it can hold: for a measurement that is the only one there is.
    #[must_use]
    pub const fn filled(mut self) -> Self {
        self.saved = SAVED_BYTES as u128 * NANO;
        self
    }

    fn fill(&mut self, now_ns: u64) {
        let since = now_ns.saturating_sub(self.at_ns);
        let gained = u128::from(since) * u128::from(self.bits_per_second) / 8;
        self.saved = (self.saved + gained).min(u128::from(SAVED_BYTES) * NANO);
        self.at_ns = self.at_ns.max(now_ns);
    }

    /// In how many nanoseconds it will hold so much; `None` if never.
    fn wait_ns(&mut self, now_ns: u64, bytes: u64) -> Option<u64> {
        self.fill(now_ns);
        let missing = (u128::from(bytes) * NANO).saturating_sub(self.saved);
        if missing == 0 {
            return Some(0);
        }
        if bytes > SAVED_BYTES || self.bits_per_second == 0 {
            return None;
        }
        let ns = (missing * 8).div_ceil(u128::from(self.bits_per_second));
        u64::try_from(ns).ok()
    }
}

/// The allowances of an agent.
#[derive(Clone, Debug)]
pub struct Budget {
    link_bits_per_second: u64,
    uplink: Bucket,
    links: BTreeMap<TargetId, Bucket>,
}

impl Budget {
    /// Begins at `now_ns`, with nothing saved.
    #[must_use]
    pub const fn new(now_ns: u64, link_bits_per_second: u64, uplink_bits_per_second: u64) -> Self {
        Self {
            link_bits_per_second,
            uplink: Bucket::new(now_ns, uplink_bits_per_second),
            links: BTreeMap::new(),
        }
    }

    /// The links from now on. One that is new begins with nothing; one that goes and comes back does too.
    pub fn set_links(&mut self, now_ns: u64, links: impl Iterator<Item = TargetId>) {
        let link_bits_per_second = self.link_bits_per_second;
        let mut before = std::mem::take(&mut self.links);
        self.links = links
            .map(|link| {
                let known = before.remove(&link);
                let bucket = known.unwrap_or(Bucket::new(now_ns, link_bits_per_second));
                (link, bucket)
            })
            .collect();
    }

    /// In how many nanoseconds so much may be spent on a link; `None` if never.
    pub fn wait_ns(&mut self, now_ns: u64, link: &TargetId, bytes: u64) -> Option<u64> {
        let link_ns = self.links.get_mut(link)?.wait_ns(now_ns, bytes)?;
        Some(self.uplink.wait_ns(now_ns, bytes)?.max(link_ns))
    }

    /// Spends so much on a link, if both allowances hold it; else spends nothing and tells so.
    pub fn take(&mut self, now_ns: u64, link: &TargetId, bytes: u64) -> bool {
        if self.wait_ns(now_ns, link, bytes) != Some(0) {
            return false;
        }
        let cost = u128::from(bytes) * NANO;
        if let Some(bucket) = self.links.get_mut(link) {
            bucket.saved -= cost;
        }
        self.uplink.saved -= cost;
        true
    }

    /// Begins with full allowances.
    #[must_use]
    pub fn filled(mut self) -> Self {
        self.uplink = self.uplink.filled();
        for bucket in self.links.values_mut() {
            *bucket = bucket.filled();
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn link(number: usize) -> TargetId {
        TargetId::parse(&format!("t{number}")).unwrap()
    }

    #[test]
    fn nothing_is_spent_before_it_is_saved_and_the_wait_is_told() {
        let mut budget = Budget::new(0, 16_000, 1_000_000);
        budget.set_links(0, [link(0)].into_iter());
        assert!(!budget.take(0, &link(0), 2_000));
        assert_eq!(budget.wait_ns(0, &link(0), 2_000), Some(1_000_000_000));
        assert!(!budget.take(999_999_999, &link(0), 2_000));
        assert!(budget.take(1_000_000_000, &link(0), 2_000));
        assert_eq!(budget.wait_ns(0, &link(0), SAVED_BYTES + 1), None);
        assert_eq!(budget.wait_ns(0, &link(1), 1), None);
    }

    #[test]
    fn a_budget_of_nothing_permits_nothing() {
        let mut budget = Budget::new(0, 0, 1_000_000);
        budget.set_links(0, [link(0)].into_iter());
        assert_eq!(budget.wait_ns(u64::MAX, &link(0), 1), None);
        assert!(!budget.take(u64::MAX, &link(0), 1));
    }

    proptest! {
        /// Whatever is asked for and whenever, no span of time sees more spent than what could be saved up before it and
        /// what its length allows: of each link, and of all together; also when links go and come back.
        #[test]
        fn no_span_exceeds_the_budget(
            link_rate in 0u64..200_000,
            uplink_rate in 0u64..400_000,
            asked in prop::collection::vec((0u64..20_000_000_000, 0usize..3, 0u64..400_000, any::<bool>()), 1..120),
        ) {
            let mut budget = Budget::new(0, link_rate, uplink_rate);
            budget.set_links(0, (0..3).map(link));
            let mut now = 0;
            let mut spent: Vec<(u64, usize, u64)> = Vec::new();
            for (gap, number, bytes, replaced) in asked {
                now += gap;
                if replaced {
                    budget.set_links(now, (0..3).filter(|own| *own != number).map(link));
                    budget.set_links(now, (0..3).map(link));
                }
                if budget.take(now, &link(number), bytes) {
                    spent.push((now, number, bytes));
                }
            }
            for from in 0..spent.len() {
                let mut total = [0; 3];
                for &(at, number, bytes) in &spent[from..] {
                    total[number] += bytes;
                    let span = (at - spent[from].0) as f64 / 1e9;
                    let most = |rate: u64| SAVED_BYTES as f64 + rate as f64 / 8.0 * span + 1.0;
                    prop_assert!(total[number] as f64 <= most(link_rate));
                    prop_assert!(total.iter().sum::<u64>() as f64 <= most(uplink_rate));
                    prop_assert!(link_rate > 0 || bytes == 0);
                }
            }
        }
    }
}
