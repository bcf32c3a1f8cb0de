//! How many feeds are followed and how much is kept of them. No source takes the place of all others: each may have as much as is
//! left to them.

use std::{collections::BTreeSet, fmt, mem, net::IpAddr, time::Duration};

use leeward_common::{
    bgp::{FeedChange, What},
    time::Timestamp,
};

use super::{ALL_BYTES_MAX, FEED_BYTES_MAX, FEEDS_MAX, Known, Observer, parts};
use crate::bgp::{
    feed::{Gate, Standing as FeedStanding},
    peer::Feed,
    prefix::PATHS_MAX,
};

/// A feed that has been lost for longer than this is forgotten when its place is needed: what was told of it counts for
/// minutes at most.
const FORGET_AFTER: Duration = Duration::from_secs(15 * 60);

/// How often it is looked for such feeds at most.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What comes from one router, peer or server.
#[derive(Debug, Default)]
pub(super) struct Source {
    feeds: usize,
    /// What the routes of its feeds take.
    pub(super) bytes: usize,
    /// Whether it was told that it has too many.
    is_limited: bool,
}

/// What a feed may show too much of.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Limit {
    Bytes,
    Feeds,
    Parts,
    Paths,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes => write!(
                f,
                "{} MiB of routes to watched prefixes",
                FEED_BYTES_MAX >> 20
            ),
            Self::Feeds => write!(f, "feeds of one source, among {FEEDS_MAX} of all"),
            Self::Parts => write!(f, "{} parts of a watched prefix", parts::PARTS_MAX),
            Self::Paths => write!(f, "{PATHS_MAX} routes to one prefix"),
        }
    }
}

impl Observer {
    /// A feed that was never heard, or is forgotten.
    pub(super) fn meet(&mut self, now: Timestamp, feed: &Feed, system: u32) {
        let number = self.free.pop().unwrap_or_else(|| {
            self.numbers += 1;
            self.numbers - 1
        });
        let known = Known {
            number,
            gate: Gate::new(now, feed.view, system),
            bytes: 0,
            limited: BTreeSet::new(),
        };
        self.feeds.insert(*feed, known);
        let source = self.sources.entry(feed.source).or_default();
        source.feeds += 1;
        source.is_limited = false;
    }

    /// Whether a source may have one more feed; those that were lost long ago give way.
    pub(super) fn make_room(&mut self, now: Timestamp, source: IpAddr) -> bool {
        let own = |observer: &Self| observer.sources.get(&source).map_or(0, |own| own.feeds);
        let is_room = |observer: &Self| own(observer) < FEEDS_MAX - observer.feeds.len();
        if is_room(self) {
            return true;
        }
        if now.since(self.looked) < LOOK_EVERY {
            return false;
        }
        self.looked = now;
        let is_old = |known: &Known| {
            known.gate.standing() == FeedStanding::Lost
                && now.since(known.gate.since) > FORGET_AFTER
        };
        let old = self.feeds.iter().filter(|(_, known)| is_old(known));
        let old: BTreeSet<Feed> = old.map(|(feed, _)| *feed).collect();
        self.forget(&old);
        is_room(self)
    }

    /// Forgets feeds. Their numbers are given to others, so nothing may be left by them.
    pub(super) fn forget(&mut self, feeds: &BTreeSet<Feed>) {
        let mut numbers = BTreeSet::new();
        for feed in feeds {
            let Some(known) = self.feeds.remove(feed) else {
                continue;
            };
            numbers.insert(known.number);
            self.bytes = self.bytes.saturating_sub(known.bytes);
            self.tables.forget(known.number);
            if let Some(source) = self.sources.get_mut(&feed.source) {
                source.feeds -= 1;
                source.bytes = source.bytes.saturating_sub(known.bytes);
            }
        }
        for followed in &mut self.followed {
            followed.routes.retain(|number| !numbers.contains(&number));
            followed.parts.retain(|number, _| !numbers.contains(number));
            followed.lost.retain(|number, _| !numbers.contains(number));
        }
        self.sources.retain(|_, source| source.feeds > 0);
        self.free.extend(numbers);
    }

    /// A feed is one too many; told once of its source.
    pub(super) fn refuse(&mut self, now: Timestamp, feed: &Feed) {
        self.feeds_refused += 1;
        let source = self.sources.entry(feed.source).or_default();
        if !mem::replace(&mut source.is_limited, true) {
            let limit = Limit::Feeds.to_string();
            self.tell(now, feed, What::Feed(FeedChange::Limited { limit }));
        }
    }

    /// Whether more may be kept of a feed.
    pub(super) fn is_room(&self, feed: &Feed) -> bool {
        let own = self.feeds.get(feed).map_or(0, |known| known.bytes);
        let of_source = self.sources.get(&feed.source).map_or(0, |own| own.bytes);
        own < FEED_BYTES_MAX && of_source < ALL_BYTES_MAX.saturating_sub(self.bytes)
    }

    /// What is kept of a feed takes more than before, or less.
    pub(super) fn takes(&mut self, feed: &Feed, before: usize, after: usize) {
        let own = self.feeds.get_mut(feed).map(|known| &mut known.bytes);
        let source = self.sources.get_mut(&feed.source);
        let of_source = source.map(|own| &mut own.bytes);
        let all = [own, of_source, Some(&mut self.bytes)];
        for bytes in all.into_iter().flatten() {
            *bytes = (*bytes + after).saturating_sub(before);
        }
    }

    /// A feed shows more than is kept of it; told once in a session.
    pub(super) fn limit(&mut self, now: Timestamp, feed: &Feed, limit: Limit) {
        let known = self.feeds.get_mut(feed);
        if known.is_some_and(|known| known.limited.insert(limit)) {
            let limit = limit.to_string();
            self.tell(now, feed, What::Feed(FeedChange::Limited { limit }));
        }
    }
}
