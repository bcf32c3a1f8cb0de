//! What a BGP UPDATE says, in one form, whichever parser read it.

use std::{collections::BTreeSet, fmt, sync::Arc};

use ipnet::IpNet;

/// The address families that are followed, both unicast.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of a prefix.
    #[must_use]
    pub const fn of(prefix: &IpNet) -> Self {
        match prefix {
            IpNet::V4(_) => Self::V4,
            IpNet::V6(_) => Self::V6,
        }
    }
}

/// A prefix as one UPDATE names it.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Nlri {
    /// The prefix, without bits beyond its length.
    pub prefix: IpNet,
    /// The path identifier of ADD-PATH (RFC 7911); 0 without.
    pub path_id: u32,
}

/// One step of an AS path.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Hop {
    /// An autonomous system.
    As(u32),
    /// Several without order, each once: an AS_SET, deprecated by RFC 9774 but still met.
    Set(Arc<[u32]>),
}

impl Hop {
    /// A set of these, of which the lowest [`SET_MAX`] are kept.
    pub fn set(systems: impl IntoIterator<Item = u32>) -> Self {
        let systems: BTreeSet<u32> = systems.into_iter().collect();
        Self::Set(systems.into_iter().take(SET_MAX).collect())
    }
}

/// The most hops of a path that are kept, the last ones: real paths have some dozens, prepending included. What a peer may
/// write must cost neither memory nor the quadratic time of comparing.
pub const HOPS_MAX: usize = 64;

/// The most systems of a set that are kept.
pub const SET_MAX: usize = 16;

/// An AS path, nearest system first. Segments of confederations are left out (RFC 5065, section 5.3).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct AsPath {
    hops: Arc<[Hop]>,
}

impl AsPath {
    /// The path of the last [`HOPS_MAX`] of these hops.
    #[must_use]
    pub fn new(mut hops: Vec<Hop>) -> Self {
        let beyond = hops.len().saturating_sub(HOPS_MAX);
        hops.drain(..beyond);
        Self { hops: hops.into() }
    }

    /// A path without sets.
    #[must_use]
    pub fn sequence(systems: &[u32]) -> Self {
        Self::new(systems.iter().copied().map(Hop::As).collect())
    }

    /// Its hops.
    #[must_use]
    pub fn hops(&self) -> &[Hop] {
        &self.hops
    }

    /// How many hops it has; a set counts as one (RFC 4271, section 9.1.2.2).
    #[must_use]
    pub fn length(&self) -> u32 {
        u32::try_from(self.hops.len()).unwrap_or(u32::MAX)
    }

    /// The system that announced the prefix; `None` of an empty path, and of one that ends in a set.
    #[must_use]
    pub fn origin(&self) -> Option<u32> {
        match self.hops.last() {
            Some(Hop::As(system)) => Some(*system),
            _ => None,
        }
    }

    /// How many hops must be put in, taken out or replaced to make one path of the other (Levenshtein's distance).
    #[must_use]
    pub fn edit_distance(&self, other: &Self) -> u32 {
        let (own, other) = (&self.hops, &other.hops);
        let mut row: Vec<u32> = (0..).take(other.len() + 1).collect();
        for (index, hop) in own.iter().enumerate() {
            let mut diagonal = row[0];
            row[0] = u32::try_from(index + 1).unwrap_or(u32::MAX);
            for (column, their) in other.iter().enumerate() {
                let replaced = diagonal + u32::from(hop != their);
                diagonal = row[column + 1];
                row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
            }
        }
        row.last().copied().unwrap_or_default()
    }
}

impl fmt::Display for AsPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, hop) in self.hops.iter().enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            match hop {
                Hop::As(system) => write!(f, "{system}")?,
                Hop::Set(systems) => {
                    let systems: Vec<_> = systems.iter().map(u32::to_string).collect();
                    write!(f, "{{{}}}", systems.join(","))?;
                }
            }
        }
        Ok(())
    }
}

/// What is remembered of the attributes of announced prefixes.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Attributes {
    /// The AS path.
    pub path: AsPath,
    /// Its announcer asks for traffic to be thrown away (BLACKHOLE, RFC 7999).
    pub blackholed: bool,
    /// Its announcer is about to shut down (GRACEFUL_SHUTDOWN, RFC 8326).
    pub shutting_down: bool,
    /// Who marked the route for customers only (OTC, RFC 9234).
    pub only_to_customer: Option<u32>,
    /// A digest of all communities (RFC 1997) in their order and each once, to tell that they changed.
    pub communities: u64,
}

impl Attributes {
    /// Of this path and these communities.
    #[must_use]
    pub fn new(path: AsPath, communities: &BTreeSet<u32>) -> Self {
        let fold = |digest: u64, community: &u32| {
            // FNV-1a: spreads well enough for what only changes; nothing depends on it that anybody could gain by.
            (digest ^ u64::from(*community)).wrapping_mul(0x0000_0100_0000_01b3)
        };
        Self {
            path,
            blackholed: communities.contains(&0xffff_029a),
            shutting_down: communities.contains(&0xffff_0000),
            only_to_customer: None,
            communities: communities.iter().fold(0xcbf2_9ce4_8422_2325, fold),
        }
    }

    /// The same, marked for customers only.
    #[must_use]
    pub fn marked(self, only_to_customer: Option<u32>) -> Self {
        Self {
            only_to_customer,
            ..self
        }
    }

    /// About how many bytes it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let set = |hop: &Hop| match hop {
            Hop::As(_) => 0,
            Hop::Set(systems) => size_of_val(&**systems) + 32,
        };
        let hops = self.path.hops();
        size_of::<Self>() + size_of_val(hops) + hops.iter().map(set).sum::<usize>() + 32
    }
}

/// What an UPDATE says about IPv4 and IPv6 unicast.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Update {
    /// Prefixes announced with `attributes`.
    pub announced: Vec<Nlri>,
    /// Prefixes withdrawn. One that is announced in the same UPDATE is not among them (RFC 4271, section 4.3).
    pub withdrawn: Vec<Nlri>,
    /// The attributes of what is announced.
    pub attributes: Arc<Attributes>,
    /// The table of this family has been sent (End-of-RIB, RFC 4724, section 2).
    pub end_of_table: Option<Family>,
    /// What was announced is counted as withdrawn, and why: an attribute is malformed (RFC 7606).
    pub malformed: Option<String>,
    /// Whether it speaks of other families too.
    pub others: bool,
}

impl Update {
    /// Puts it into the form that all parsers agree on: in order, each prefix once, announcements win.
    #[must_use]
    pub fn normal(mut self) -> Self {
        self.announced.sort_unstable();
        self.announced.dedup();
        self.withdrawn.sort_unstable();
        self.withdrawn.dedup();
        let announced = &self.announced;
        self.withdrawn
            .retain(|nlri| announced.binary_search(nlri).is_err());
        if self.announced.is_empty() {
            self.attributes = Arc::default();
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_path_is_as_long_as_its_hops_and_a_set_is_one() {
        let path = AsPath::new(vec![Hop::As(1), Hop::As(1), Hop::set([9, 7, 8, 8])]);
        assert_eq!((path.length(), path.origin()), (3, None));
        assert_eq!(path.to_string(), "1 1 {7,8,9}");
        assert_eq!(AsPath::sequence(&[1, 2]).origin(), Some(2));
        assert_eq!(AsPath::default().origin(), None);
    }

    #[test]
    fn the_distance_of_paths_counts_hops_put_in_taken_out_and_replaced() {
        let distance =
            |a: &[u32], b: &[u32]| AsPath::sequence(a).edit_distance(&AsPath::sequence(b));
        assert_eq!(distance(&[1, 2, 3], &[1, 2, 3]), 0);
        assert_eq!(distance(&[1, 2, 3], &[1, 9, 3]), 1);
        assert_eq!(distance(&[1, 2, 3], &[1, 4, 5, 3]), 2);
        assert_eq!(distance(&[], &[1, 2]), 2);
    }

    #[test]
    fn what_is_announced_in_the_same_update_is_not_withdrawn() {
        let nlri = |text: &str| Nlri {
            prefix: text.parse().unwrap(),
            path_id: 0,
        };
        let update = Update {
            announced: vec![nlri("10.2.0.0/16"), nlri("10.1.0.0/16")],
            withdrawn: vec![nlri("10.1.0.0/16"), nlri("10.3.0.0/16")],
            ..Update::default()
        }
        .normal();
        assert_eq!(update.announced, [nlri("10.1.0.0/16"), nlri("10.2.0.0/16")]);
        assert_eq!(update.withdrawn, [nlri("10.3.0.0/16")]);
    }

    proptest! {
        /// A distance is symmetric, zero only between equals, and never more than the longer path.
        #[test]
        fn a_distance_is_one(a in prop::collection::vec(0u32..4, 0..12), b in prop::collection::vec(0u32..4, 0..12)) {
            let (one, other) = (AsPath::sequence(&a), AsPath::sequence(&b));
            prop_assert_eq!(one.edit_distance(&other), other.edit_distance(&one));
            prop_assert_eq!(one.edit_distance(&other) == 0, a == b);
            prop_assert!(one.edit_distance(&other) as usize <= a.len().max(b.len()));
        }
    }
}
