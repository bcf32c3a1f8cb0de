//! The watch-list: the prefixes that regions are reached by.
//!
//! A full table has 1.3 million routes, of which a handful matter here. Of each announced prefix one search in a trie says
//! whether it is watched, lies within a watched one, or is none of our business.

use std::collections::BTreeSet;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use leeward_common::id::RegionId;
use prefix_trie::PrefixMap;

/// The most prefixes that can be watched. Some hundred bytes each, and as much again for each feed that has a route.
pub const WATCHED_MAX: usize = 65_536;

/// A prefix to follow.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Watched {
    /// The prefix.
    pub prefix: IpNet,
    /// The region that is reached by it.
    pub region: RegionId,
    /// Who may announce it and its parts; empty if that is not known.
    pub origins: BTreeSet<u32>,
}

/// The prefixes to follow, each known by its place in the list.
#[derive(Clone, Debug, Default)]
pub struct Watchlist {
    watched: Vec<Watched>,
    v4: PrefixMap<Ipv4Net, usize>,
    v6: PrefixMap<Ipv6Net, usize>,
}

/// How a prefix relates to what is watched.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Relation {
    /// It is watched, at this place.
    Exact(usize),
    /// It lies within the watched prefix of this place, the smallest that holds it.
    Within(usize),
}

impl Watchlist {
    /// Adds a prefix; of two entries for one prefix the first stays. At most [`WATCHED_MAX`] are kept.
    ///
    /// # Errors
    ///
    /// Gives the entry back if its prefix is watched already, or if there is no room.
    pub fn add(&mut self, watched: Watched) -> Result<(), Watched> {
        let place = self.watched.len();
        if place >= WATCHED_MAX || matches!(self.find(&watched.prefix), Some(Relation::Exact(_))) {
            return Err(watched);
        }
        match watched.prefix {
            IpNet::V4(prefix) => _ = self.v4.insert(prefix.trunc(), place),
            IpNet::V6(prefix) => _ = self.v6.insert(prefix.trunc(), place),
        }
        self.watched.push(watched);
        Ok(())
    }

    /// The prefixes, in the order in which they were added.
    #[must_use]
    pub fn all(&self) -> &[Watched] {
        &self.watched
    }

    /// How a prefix relates to what is watched; `None` if it is none of our business.
    #[must_use]
    pub fn find(&self, prefix: &IpNet) -> Option<Relation> {
        let (length, place) = match prefix {
            IpNet::V4(prefix) => {
                let (covering, place) = self.v4.get_lpm(prefix)?;
                (covering.prefix_len(), *place)
            }
            IpNet::V6(prefix) => {
                let (covering, place) = self.v6.get_lpm(prefix)?;
                (covering.prefix_len(), *place)
            }
        };
        match length == prefix.prefix_len() {
            true => Some(Relation::Exact(place)),
            false => Some(Relation::Within(place)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched(prefix: &str) -> Watched {
        Watched {
            prefix: prefix.parse().unwrap(),
            region: "dub".parse().unwrap(),
            origins: BTreeSet::new(),
        }
    }

    #[test]
    fn a_prefix_is_watched_within_a_watched_one_or_neither() {
        let mut list = Watchlist::default();
        for prefix in ["10.0.0.0/8", "10.1.0.0/16", "2001:db8::/32"] {
            list.add(watched(prefix)).unwrap();
        }
        let find = |prefix: &str| list.find(&prefix.parse().unwrap());
        assert_eq!(find("10.1.0.0/16"), Some(Relation::Exact(1)));
        assert_eq!(find("10.1.2.0/24"), Some(Relation::Within(1)));
        assert_eq!(find("10.2.0.0/16"), Some(Relation::Within(0)));
        assert_eq!(find("2001:db8:1::/48"), Some(Relation::Within(2)));
        assert_eq!(find("0.0.0.0/0"), None);
        assert_eq!(find("11.0.0.0/8"), None);
        assert_eq!(find("2001:db9::/32"), None);
    }

    #[test]
    fn of_two_entries_for_one_prefix_the_first_stays() {
        let mut list = Watchlist::default();
        list.add(watched("10.0.0.0/8")).unwrap();
        assert!(list.add(watched("10.0.0.0/8")).is_err());
        assert_eq!(list.all().len(), 1);
    }
}
