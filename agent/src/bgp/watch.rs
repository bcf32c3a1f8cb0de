//! The watch-list: the prefixes that regions are reached by.
//!
//! A full table has 1.3 million routes, of which a handful matter here. Of each announced prefix one search in a trie says
//! whether it is watched, lies within a watched one, or is none of our business.
//!
//! The agent's own file may declare prefixes, and so may aggregators; of a region of which nobody does they are learned: what is
//! announced and holds the address of an agent there, and of no other region, is what packets to it may follow.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use leeward_common::{bgp::Prefix, id::RegionId};
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

impl Watched {
    /// A prefix to follow.
    #[must_use]
    pub fn new(prefix: Prefix, region: RegionId, origins: BTreeSet<u32>) -> Self {
        let prefix = IpNet::new(prefix.address(), prefix.length())
            .expect("a prefix is no longer than its address");
        Self {
            prefix,
            region,
            origins,
        }
    }
}

/// The most prefixes that are learned from one address: those around it, one within the other.
pub const LEARNED_MAX: u8 = 8;

/// What aggregators say of where regions are.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Told {
    /// The prefixes that are declared, best word first.
    pub watch: Vec<Watched>,
    /// Addresses in regions.
    pub addresses: BTreeMap<IpAddr, RegionId>,
}

/// What can be asked for.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Wanted {
    /// Prefixes that are declared, with their parts.
    pub prefixes: Vec<IpNet>,
    /// Addresses: what holds them.
    pub addresses: Vec<IpNet>,
}

/// An address by which prefixes are learned.
#[derive(Clone, Debug)]
struct Sought {
    region: RegionId,
    /// How many were.
    learned: u8,
}

/// The prefixes to follow, each known by its place in the list.
#[derive(Clone, Debug, Default)]
pub struct Watchlist {
    /// Those that are declared, and then those that were learned.
    watched: Vec<Watched>,
    declared: usize,
    sought: BTreeMap<IpAddr, Sought>,
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

impl Relation {
    const fn is_exact(self) -> bool {
        matches!(self, Self::Exact(_))
    }
}

impl Watchlist {
    /// The list of what the agent's own file declares and what it was told. Addresses in regions of which prefixes are
    /// declared teach nothing.
    #[must_use]
    pub fn new(own: &[Watched], told: &Told) -> Self {
        let mut list = Self::default();
        for watched in own.iter().chain(&told.watch) {
            // The first word counts.
            _ = list.add(watched.clone());
        }
        let declared: BTreeSet<_> = list.watched.iter().map(|own| own.region.clone()).collect();
        let unknown = told.addresses.iter();
        let unknown = unknown.filter(|(_, region)| !declared.contains(*region));
        list.sought = unknown
            .map(|(address, region)| {
                let region = region.clone();
                (*address, Sought { region, learned: 0 })
            })
            .collect();
        list
    }

    /// Adds a prefix that is declared, before any is learned; of two entries for one prefix the first stays. At most [`WATCHED_MAX`] are kept.
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
        self.declared = self.watched.len();
        Ok(())
    }

    /// Somebody announces this prefix. True if it is watched from now on, at the end of the list: it holds an address by which
    /// prefixes are learned, and none of another region; and it is no default route.
    pub fn learn(&mut self, prefix: &IpNet) -> bool {
        if self.sought.is_empty() || prefix.prefix_len() == 0 {
            return false;
        }
        let within = || prefix.network()..=prefix.broadcast();
        let mut held = self.sought.range(within()).map(|(_, own)| own);
        let Some(region) = held.next().map(|own| own.region.clone()) else {
            return false;
        };
        if held.any(|own| own.region != region) {
            return false;
        }
        let mut held = self.sought.range_mut(within()).map(|(_, own)| own);
        if !held.any(|own| own.learned < LEARNED_MAX) {
            return false;
        }
        let declared = self.declared;
        let watched = Watched {
            prefix: prefix.trunc(),
            region,
            origins: BTreeSet::new(),
        };
        let is_new = self.add(watched).is_ok();
        self.declared = declared;
        if is_new {
            self.sought
                .range_mut(within())
                .for_each(|(_, own)| own.learned = own.learned.saturating_add(1));
        }
        is_new
    }

    /// What is to be asked of those who tell only what they are asked for.
    #[must_use]
    pub fn wanted(&self) -> Wanted {
        Wanted {
            prefixes: self.watched[..self.declared]
                .iter()
                .map(|own| own.prefix)
                .collect(),
            addresses: self.sought.keys().map(|own| IpNet::from(*own)).collect(),
        }
    }

    /// Takes over what another list has learned, as far as this one would learn it.
    pub fn inherit(&mut self, before: &Self) {
        for watched in &before.watched[before.declared..] {
            self.learn(&watched.prefix);
        }
    }

    /// Whether it looks for something that another list did not look for.
    #[must_use]
    pub fn wants_more_than(&self, before: &Self) -> bool {
        let is_new = |own: &Watched| before.find(&own.prefix).is_none_or(|it| !it.is_exact());
        let mut sought = self.sought.keys();
        self.watched.iter().any(is_new) || sought.any(|own| !before.sought.contains_key(own))
    }

    /// The prefixes, in the order in which they were added.
    #[must_use]
    pub fn all(&self) -> &[Watched] {
        &self.watched
    }

    /// Whether the prefix of this place was learned.
    #[must_use]
    pub const fn is_learned(&self, place: usize) -> bool {
        place >= self.declared
    }

    /// The place of the smallest watched prefix around this one.
    #[must_use]
    pub fn around(&self, prefix: &IpNet) -> Option<usize> {
        self.find(&prefix.supernet()?).map(|found| match found {
            Relation::Exact(place) | Relation::Within(place) => place,
        })
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

    fn told(watch: &[&str], addresses: &[(&str, &str)]) -> Told {
        let address =
            |(address, region): &(&str, &str)| (address.parse().unwrap(), region.parse().unwrap());
        Told {
            watch: watch.iter().map(|prefix| watched(prefix)).collect(),
            addresses: addresses.iter().map(address).collect(),
        }
    }

    #[test]
    fn what_holds_an_address_of_one_region_is_learned() {
        let addresses = [
            ("198.51.100.7", "iad"),
            ("198.51.100.9", "iad"),
            ("203.0.113.1", "fra"),
            ("2001:db8::1", "fra"),
            ("192.0.2.1", "dub"),
        ];
        let mut list = Watchlist::new(&[watched("192.0.2.0/25")], &told(&[], &addresses));
        let mut learn = |prefix: &str| list.learn(&prefix.parse().unwrap());
        assert!(learn("198.51.100.0/24"));
        assert!(!learn("198.51.100.0/24"), "once only");
        assert!(learn("198.51.0.0/16"), "around it");
        assert!(learn("198.51.100.8/29"), "within it");
        assert!(!learn("198.51.100.16/29"), "nobody is there");
        assert!(
            !learn("192.0.0.0/4"),
            "the way to several regions is the way to none"
        );
        assert!(!learn("0.0.0.0/0"), "a default route");
        assert!(!learn("192.0.2.0/24"), "of this region it is declared");
        assert!(learn("2001:db8::/32"));
        let all: Vec<_> = list
            .all()
            .iter()
            .map(|own| (own.prefix.to_string(), own.region.as_str()))
            .collect();
        assert_eq!(
            all,
            [
                ("192.0.2.0/25".to_owned(), "dub"),
                ("198.51.100.0/24".to_owned(), "iad"),
                ("198.51.0.0/16".to_owned(), "iad"),
                ("198.51.100.8/29".to_owned(), "iad"),
                ("2001:db8::/32".to_owned(), "fra"),
            ]
        );
    }

    #[test]
    fn nobody_makes_it_learn_without_end() {
        let mut list = Watchlist::new(&[], &told(&[], &[("198.51.100.7", "iad")]));
        let learned = (1..=32).filter(|length| {
            let net = Ipv4Net::new([198, 51, 100, 7].into(), *length).unwrap();
            list.learn(&IpNet::V4(net.trunc()))
        });
        assert_eq!(learned.count(), usize::from(LEARNED_MAX));
    }

    #[test]
    fn another_list_keeps_what_it_would_learn_itself_and_knows_what_is_new() {
        let mut before = Watchlist::new(
            &[],
            &told(&[], &[("198.51.100.7", "iad"), ("203.0.113.1", "fra")]),
        );
        assert!(before.learn(&"198.51.100.0/24".parse().unwrap()));
        assert!(before.learn(&"203.0.113.0/24".parse().unwrap()));
        // Iad's is declared now, and Frankfurt's agent is gone.
        let mut list = Watchlist::new(&[], &told(&["10.0.0.0/8"], &[("198.51.100.7", "iad")]));
        list.inherit(&before);
        let prefixes: Vec<_> = list
            .all()
            .iter()
            .map(|own| own.prefix.to_string())
            .collect();
        assert_eq!(prefixes, ["10.0.0.0/8", "198.51.100.0/24"]);
        assert!(list.wants_more_than(&before));
        assert!(!list.wants_more_than(&list.clone()));
        let more = Watchlist::new(&[], &told(&["10.0.0.0/8"], &[("198.51.100.9", "iad")]));
        assert!(more.wants_more_than(&list), "another address");
        let fewer = Watchlist::new(&[], &told(&["10.0.0.0/8"], &[]));
        assert!(!fewer.wants_more_than(&list));
    }

    #[test]
    fn of_two_entries_for_one_prefix_the_first_stays() {
        let mut list = Watchlist::default();
        list.add(watched("10.0.0.0/8")).unwrap();
        assert!(list.add(watched("10.0.0.0/8")).is_err());
        assert_eq!(list.all().len(), 1);
    }
}
