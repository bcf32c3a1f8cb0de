//! Parts of watched prefixes: which of them each feed shows, by whom announced.
//!
//! What a feed says about a part is its own: that another one shows the same takes its word from nobody. A part is news if a feed
//! that counts comes to show it by another origin than before; or anew, while no other that counts has shown the same for longer
//! than [`NEWS`]. Routers and peers of collectors do not make it old for each other, since only the former are on our way.
//! Parts that are announced by those who may are not kept.

use std::collections::BTreeMap;

use ipnet::IpNet;
use leeward_common::{
    bgp::{Change, MoreSpecific, NAMED_MAX},
    time::Timestamp,
};

use super::{Limit, Observer, prefix, signs::NEWS};
use crate::bgp::{
    peer::{Feed, View},
    update::{Attributes, Family, Nlri},
};

/// The most parts of one watched prefix that are remembered of one feed. What is beyond that is no news, and told once in a session.
pub const PARTS_MAX: usize = 4_096;

/// About how many bytes a part takes.
const PART_BYTES: usize = 64;

/// What a feed shows of the parts of one watched prefix.
#[derive(Debug, Default)]
pub(super) struct Parts {
    /// The session of the feed that this is true on.
    epoch: u32,
    shown: BTreeMap<Nlri, Part>,
}

#[derive(Clone, Copy, Debug)]
struct Part {
    origin: Option<u32>,
    since: Timestamp,
}

/// What became of a part that is announced.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Shown {
    Same,
    Other,
    New,
}

impl Parts {
    fn on(&mut self, epoch: u32) -> &mut Self {
        if self.epoch != epoch {
            self.epoch = epoch;
            self.shown.clear();
        }
        self
    }

    fn show(&mut self, now: Timestamp, nlri: &Nlri, origin: Option<u32>) -> Shown {
        let part = Part { origin, since: now };
        match self.shown.get_mut(nlri) {
            Some(own) if own.origin == origin => Shown::Same,
            Some(own) => {
                *own = part;
                Shown::Other
            }
            None => {
                self.shown.insert(*nlri, part);
                Shown::New
            }
        }
    }

    /// Whether it has shown this for longer than what is news.
    fn has_long_shown(&self, now: Timestamp, epoch: u32, part: IpNet, origin: Option<u32>) -> bool {
        let of = |path_id| Nlri {
            prefix: part,
            path_id,
        };
        let mut paths = self.shown.range(of(0)..=of(u32::MAX));
        self.epoch == epoch
            && paths.any(|(_, own)| own.origin == origin && now.since(own.since) > NEWS)
    }

    /// About how many bytes they take.
    pub(super) fn bytes(&self) -> usize {
        self.shown.len() * PART_BYTES
    }
}

impl Observer {
    /// Part of a watched prefix is announced.
    pub(super) fn more_specific(
        &mut self,
        now: Timestamp,
        feed: &Feed,
        place: usize,
        nlri: &Nlri,
        attributes: &Attributes,
    ) {
        // What a router tells others never counts.
        if feed.view == View::Out {
            return;
        }
        let origin = attributes.path.origin();
        let validity = self.authorizations.of(&nlri.prefix, attributes);
        let is_expected = self.is_expected(place, origin);
        if is_expected && !validity.is_invalid() {
            self.forget_part(feed, place, nlri);
            return;
        }
        let is_news = match self.show_part(now, feed, place, nlri, origin) {
            None | Some(Shown::Same) => false,
            Some(Shown::Other) => true,
            Some(Shown::New) => !self.is_long_known(now, feed, place, nlri.prefix, origin),
        };
        if !is_news || !self.counts(feed, &nlri.prefix) {
            return;
        }
        if validity.is_invalid() {
            self.tell_invalid(now, feed, place, (nlri.prefix, origin), (None, validity));
        }
        if is_expected {
            return;
        }
        let found = MoreSpecific {
            prefix: prefix(&nlri.prefix),
            origin,
            validity,
        };
        let named = &mut self.followed[place].tally.more_specifics;
        if named.len() < NAMED_MAX && !named.contains(&found) {
            named.push(found);
        }
        self.tell_prefix(now, feed, place, Change::MoreSpecific(found));
    }

    /// A feed shows a part no more, or one of those who may announce it.
    pub(super) fn forget_part(&mut self, feed: &Feed, place: usize, nlri: &Nlri) {
        let Some(known) = self.feeds.get(feed) else {
            return;
        };
        if let Some(parts) = self.followed[place].parts.get_mut(&known.number)
            && parts.shown.remove(nlri).is_some()
        {
            self.takes(feed, PART_BYTES, 0);
        }
    }

    /// `None` if there is no room to remember it.
    fn show_part(
        &mut self,
        now: Timestamp,
        feed: &Feed,
        place: usize,
        nlri: &Nlri,
        origin: Option<u32>,
    ) -> Option<Shown> {
        let is_room = self.is_room(feed);
        let known = self.feeds.get(feed)?;
        let parts = self.followed[place].parts.entry(known.number).or_default();
        let before = parts.bytes();
        let parts = parts.on(known.gate.epoch);
        let is_much = parts.shown.len() >= PARTS_MAX;
        let shown = match parts.shown.contains_key(nlri) || is_room && !is_much {
            true => Some(parts.show(now, nlri, origin)),
            false => None,
        };
        let after = parts.bytes();
        self.takes(feed, before, after);
        if shown.is_none() {
            self.limit(now, feed, if is_much { Limit::Parts } else { Limit::Bytes });
        }
        shown
    }

    /// Whether this origin may announce the prefix, and so its parts.
    fn is_expected(&self, place: usize, origin: Option<u32>) -> bool {
        let watched = &self.watchlist.all()[place];
        origin.is_some_and(|origin| match watched.origins.is_empty() {
            // Not told who may announce it: those who do.
            true => self.followed[place].routes.iter().any(|(_, route)| {
                route
                    .attributes()
                    .is_some_and(|own| own.path.origin() == Some(origin))
            }),
            false => watched.origins.contains(&origin),
        })
    }

    /// Whether another feed of the same kind that counts has long shown the same.
    fn is_long_known(
        &self,
        now: Timestamp,
        feed: &Feed,
        place: usize,
        part: IpNet,
        origin: Option<u32>,
    ) -> bool {
        let feeds = self.counting_feeds(Family::of(&part));
        let is_outside = feed.view.collector().is_some();
        self.followed[place].parts.iter().any(|(number, parts)| {
            let known = feeds.feeds.get(*number as usize).copied().flatten();
            known.is_some_and(|known| {
                known.feed.view.collector().is_some() == is_outside
                    && parts.has_long_shown(now, known.epoch, part, origin)
            })
        })
    }
}
