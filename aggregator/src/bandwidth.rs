//! Heavy tests: no two at once on a region's uplink, whoever orders them. [pure]
//!
//! An agent makes one at a time by itself; here the agents of a region are kept from making them together, since they
//! share what leads out of it.

use std::{collections::BTreeMap, time::Duration};

use leeward_common::{id::RegionId, time::Timestamp};

/// How long a region is taken by a heavy test: until it has surely ended, and agents would take another.
pub const TAKEN_FOR: Duration = Duration::from_secs(15);

/// Which regions' uplinks are taken, and until when.
#[derive(Clone, Debug, Default)]
pub struct Uplinks {
    taken: BTreeMap<RegionId, Timestamp>,
}

/// A region whose uplink is taken.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a heavy test of {region} was ordered just now")]
pub struct Taken {
    /// The region.
    pub region: RegionId,
    /// In how long it is free again.
    pub left: Duration,
}

impl Uplinks {
    /// Takes both ends' uplinks for one test, or neither.
    ///
    /// # Errors
    ///
    /// Returns which is taken.
    pub fn take(&mut self, now: Timestamp, ends: [&RegionId; 2]) -> Result<(), Taken> {
        self.taken.retain(|_, until| *until > now);
        for end in ends {
            if let Some(until) = self.taken.get(end) {
                return Err(Taken {
                    region: end.clone(),
                    left: until.since(now),
                });
            }
        }
        let taken = ends.map(|end| (end.clone(), now + TAKEN_FOR));
        self.taken.extend(taken);
        Ok(())
    }

    /// Gives them back: the test was not ordered after all.
    pub fn give_back(&mut self, ends: [&RegionId; 2]) {
        for end in ends {
            self.taken.remove(end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_takes_part_in_one_heavy_test_at_a_time() {
        let [a, b, c] = ["a", "b", "c"].map(|id| RegionId::parse(id).unwrap());
        let at = |s: u64| Timestamp::from_unix_us(s * 1_000_000);
        let mut uplinks = Uplinks::default();
        assert_eq!(uplinks.take(at(1), [&a, &b]), Ok(()));
        assert_eq!(uplinks.take(at(2), [&c, &b]).unwrap_err().region, b);
        assert_eq!(
            uplinks.take(at(2), [&b, &c]).unwrap_err().left,
            TAKEN_FOR - Duration::from_secs(1)
        );
        assert_eq!(uplinks.take(at(1) + TAKEN_FOR, [&c, &b]), Ok(()));
        uplinks.give_back([&c, &b]);
        assert_eq!(uplinks.take(at(2) + TAKEN_FOR, [&a, &b]), Ok(()));
    }
}
