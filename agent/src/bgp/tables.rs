//! The tables of all feeds: how much of them is kept, and what their losses add up to.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    net::IpAddr,
};

use ipnet::IpNet;
use leeward_common::time::Timestamp;

use super::{
    inference::{Failure, Inference},
    table::{Link, Table},
    update::{Family, Nlri, Update},
    watch::{Relation, Watchlist},
};

/// How much is kept of what feeds show.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Extent {
    /// All prefixes, or those that are watched.
    pub is_full: bool,
    /// The most routes of one feed.
    pub routes_max: usize,
    /// The most memory for all feeds together, bytes. One feed may have as much of it as is left to all others.
    pub bytes_max: usize,
}

impl Default for Extent {
    fn default() -> Self {
        Self {
            is_full: false,
            routes_max: 2_000_000,
            bytes_max: 512 << 20,
        }
    }
}

/// What became of an UPDATE, or of time that passed.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    /// More than is kept; told once in a session.
    Limited(String),
    /// A link failed.
    Failed(Failure),
}

/// The tables, by the number of their feed.
#[derive(Debug, Default)]
pub struct Tables {
    extent: Extent,
    of: BTreeMap<u32, Kept>,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Kept {
    table: Table,
    inference: Inference,
    bytes: usize,
    limited: bool,
}

impl Tables {
    /// None yet.
    #[must_use]
    pub fn new(extent: Extent) -> Self {
        Self {
            extent,
            ..Self::default()
        }
    }

    /// The session of a feed is a new one, or over: what it showed is not known any more, and nothing of it is lost.
    pub fn forget(&mut self, feed: u32) {
        if let Some(kept) = self.of.remove(&feed) {
            self.bytes = self.bytes.saturating_sub(kept.bytes);
        }
    }

    /// The feed cannot be believed: what it withdrew was not lost.
    pub fn doubt(&mut self, feed: u32) {
        if let Some(kept) = self.of.get_mut(&feed) {
            kept.inference.forget(&mut kept.table);
        }
    }

    /// A feed shows something. `counts` is whether it is believed about a family.
    pub fn update(
        &mut self,
        now: Timestamp,
        feed: u32,
        update: &Update,
        watchlist: &Watchlist,
        counts: [bool; 2],
    ) -> Vec<Said> {
        let Extent {
            is_full,
            routes_max,
            bytes_max,
        } = self.extent;
        let is_ours = |nlri: &&Nlri| {
            is_full || matches!(watchlist.find(&nlri.prefix), Some(Relation::Exact(_)))
        };
        let counts = |nlri: &Nlri| counts[Family::of(&nlri.prefix) as usize];
        let mut said = Vec::new();
        let mut announced = update.announced.iter().filter(is_ours).peekable();
        let kept = match self.of.entry(feed) {
            Entry::Occupied(kept) => kept.into_mut(),
            Entry::Vacant(_) if announced.peek().is_none() => return said,
            Entry::Vacant(place) => place.insert(Kept::default()),
        };
        let Kept {
            table, inference, ..
        } = kept;
        // What a malformed attribute withdraws (RFC 7606) no link took away.
        let is_meant = update.malformed.is_none();
        for nlri in update.withdrawn.iter().filter(is_ours) {
            match table.remove(nlri) {
                None => {}
                Some(before) if is_meant && counts(nlri) => {
                    inference.on_change(now, table, nlri, before, None);
                }
                Some(before) => table.release(before),
            }
        }
        if announced.peek().is_some() {
            let others = self.bytes.saturating_sub(kept.bytes);
            let before = table.bytes();
            let path = table.intern(&update.attributes.path);
            let is_new_path = table.bytes() > before;
            for nlri in announced {
                let bytes = table.bytes();
                let is_much = bytes > bytes_max.saturating_sub(others + bytes);
                let is_many = table.len() >= routes_max;
                let grows = match table.get(nlri) {
                    None => is_much || is_many,
                    Some(_) => is_much && is_new_path,
                };
                if grows {
                    // What it was before it is no longer, and no link took it away.
                    if let Some(before) = table.remove(nlri) {
                        table.release(before);
                    }
                    if !std::mem::replace(&mut kept.limited, true) {
                        said.push(Said::Limited(match is_much {
                            true => format!("its share of {} MiB of routes", bytes_max >> 20),
                            false => format!("{routes_max} prefixes"),
                        }));
                    }
                    continue;
                }
                match table.insert(nlri, path) {
                    None => {}
                    Some(before) if before != path && counts(nlri) => {
                        inference.on_change(now, table, nlri, before, Some(path));
                    }
                    Some(before) => table.release(before),
                }
            }
            table.release(path);
        }
        said.extend(inference.look(now, table).map(Said::Failed));
        let bytes = kept.table.bytes();
        self.bytes = (self.bytes + bytes).saturating_sub(kept.bytes);
        kept.bytes = bytes;
        said
    }

    /// Time passed.
    pub fn pass(&mut self, now: Timestamp) -> Vec<(u32, Failure)> {
        let look = |(feed, kept): (&u32, &mut Kept)| {
            let failure = kept.inference.look(now, &mut kept.table)?;
            Some((*feed, failure))
        };
        self.of.iter_mut().filter_map(look).collect()
    }

    /// Whether a route of a feed to a prefix goes over this link.
    #[must_use]
    pub fn goes_over(&self, feed: u32, prefix: &IpNet, link: Link) -> bool {
        self.of.get(&feed).is_some_and(|kept| {
            let mut paths = kept.table.paths(prefix);
            paths.any(|path| kept.table.links(path).any(|own| own == link))
        })
    }

    /// The links that are named now, each by a feed.
    pub fn named(&self) -> impl Iterator<Item = (u32, Link)> + '_ {
        let all = self.of.iter();
        all.filter_map(|(feed, kept)| Some((*feed, kept.inference.named()?)))
    }

    /// The system that announces the longest prefix which holds an address; of several the one that most of these feeds show.
    pub fn origin(&self, address: IpAddr, feeds: impl Iterator<Item = u32>) -> Option<u32> {
        let mut votes: BTreeMap<(u8, u32), usize> = BTreeMap::new();
        for kept in feeds.filter_map(|feed| self.of.get(&feed)) {
            if let Some((length, path)) = kept.table.longest(address)
                && let Some(origin) = kept.table.origin(path)
            {
                *votes.entry((length, origin)).or_default() += 1;
            }
        }
        let best = votes
            .into_iter()
            .max_by_key(|((length, origin), votes)| (*length, *votes, u32::MAX - origin));
        best.map(|((_, origin), _)| origin)
    }

    /// How many routes are kept, and about how many bytes they take.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        let routes = self.of.values().map(|kept| kept.table.len()).sum();
        let bytes = self.of.values().map(|kept| kept.table.bytes()).sum();
        (routes, bytes)
    }
}
