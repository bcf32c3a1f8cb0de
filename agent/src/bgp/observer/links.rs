//! What the tables of feeds tell: links that failed, and whose an address is.

use std::{collections::BTreeMap, net::IpAddr};

use leeward_common::{
    bgp::{Change, FailedLink, FeedChange, What},
    id::RegionId,
    time::Timestamp,
};

use super::{
    super::{
        feed::Standing as FeedStanding,
        inference::Failure,
        peer::{Feed, View},
        tables::Said,
        update::{Family, Update},
    },
    Observer,
};

/// Of so many watched prefixes of one region it is told that their route goes over a link that failed.
const TOLD_OF_REGION: u32 = 8;

impl Observer {
    /// A feed that is up shows something.
    pub(super) fn follow_table(&mut self, now: Timestamp, feed: &Feed, update: &Update) {
        // What a router tells others is the consequence of what it uses, and collectors elsewhere are not on our way.
        if feed.view == View::Out || feed.view.collector().is_some() {
            return;
        }
        let counts = Family::ALL.map(|family| self.counts_of(feed, family));
        let Some(known) = self.feeds.get(feed) else {
            return;
        };
        let number = known.number;
        if known.gate.standing() == FeedStanding::Untrusted {
            self.tables.doubt(number);
        }
        let said = self
            .tables
            .update(now, number, update, &self.watchlist, counts);
        for said in said {
            match said {
                Said::Limited(limit) => {
                    self.tell(now, feed, What::Feed(FeedChange::Limited { limit }));
                }
                Said::Failed(failure) => self.tell_failure(now, feed, number, &failure),
            }
        }
    }

    pub(super) fn pass_tables(&mut self, now: Timestamp) {
        for (number, failure) in self.tables.pass(now) {
            let mut feeds = self.feeds.iter();
            let feed = feeds.find(|(_, known)| known.number == number);
            if let Some(feed) = feed.map(|(feed, _)| *feed) {
                self.tell_failure(now, &feed, number, &failure);
            }
        }
    }

    fn tell_failure(&mut self, now: Timestamp, feed: &Feed, number: u32, failure: &Failure) {
        let told = FailedLink {
            near: failure.link.near,
            far: failure.link.far,
            fit_permille: (failure.fit * 1_000.0).round() as u32,
            lost: failure.lost,
            remaining: failure.remaining,
            alike: failure.alike,
        };
        self.tell(now, feed, What::Link(told));
        let mut of_regions: BTreeMap<&RegionId, u32> = BTreeMap::new();
        let mut endangered = Vec::new();
        for (place, watched) in self.watchlist.all().iter().enumerate() {
            if self.tables.goes_over(number, &watched.prefix, failure.link) {
                let of_region = of_regions.entry(&watched.region).or_default();
                *of_region += 1;
                if *of_region <= TOLD_OF_REGION {
                    endangered.push(place);
                }
            }
        }
        for place in endangered {
            self.tell_prefix(now, feed, place, Change::OverFailedLink(told));
        }
    }

    /// Whether a feed that lost a link still shows a route over it.
    pub(super) fn is_over_failed_link(&self, place: usize) -> bool {
        let prefix = &self.watchlist.all()[place].prefix;
        let mut named = self.tables.named();
        named.any(|(feed, link)| self.tables.goes_over(feed, prefix, link))
    }

    /// The system that announces the longest prefix that holds an address, as far as feeds that can be believed show it.
    #[must_use]
    pub fn system_of(&self, address: IpAddr) -> Option<u32> {
        let family = match address {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        };
        let mut believed = self.feeds.iter();
        let believed = believed
            .by_ref()
            .filter(|(feed, _)| self.counts_of(feed, family));
        self.tables
            .origin(address, believed.map(|(_, known)| known.number))
    }

    /// How many routes are kept, and about how many bytes they take.
    #[must_use]
    pub fn table_size(&self) -> (usize, usize) {
        self.tables.size()
    }
}
