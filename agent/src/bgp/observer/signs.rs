//! Whether routes may be announced as they are, and whether they look leaked: what is told when that begins.
//!
//! What comes up on a feed that can be believed is news if the feed's route was otherwise before. If it had none, it is news
//! for as long as it is new to all feeds ([`NEWS`]): the tenth feed that shows the same in an hour tells nothing new. What collectors
//! hear is no less news when a router of ours comes to show it.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Duration};

use ipnet::IpNet;
use leeward_common::{
    bgp::{Change, Invalid, LeakSign, Leaks, NAMED_MAX, Validities, Validity},
    time::Timestamp,
};

use super::{Counting, Observer, prefix, text};
use crate::bgp::{
    leak::Relations,
    peer::{Collector, Feed},
    prefix::Standing,
    rpki::Roas,
    update::{Attributes, Family},
};

/// What is odd about a prefix is news for so long after the first feed showed it: convergence takes two minutes on average.
pub const NEWS: Duration = Duration::from_secs(120);

/// The most odd things that are remembered of one watched prefix.
const ODD_MAX: usize = 256;

/// What is known of authorizations.
#[derive(Clone, Debug, Default)]
pub enum Authorizations {
    /// Nobody asks for them.
    #[default]
    Unasked,
    /// No cache is there, or none has sent a whole set.
    Unknown,
    /// All of them.
    Known(Arc<Roas>),
}

impl Authorizations {
    /// Whether a prefix may be announced by this route's origin. A route without a path is the router's own, and says nothing
    /// about who it is.
    pub(super) fn of(&self, prefix: &IpNet, attributes: &Attributes) -> Validity {
        match self {
            Self::Known(roas) if !attributes.path.hops().is_empty() => {
                roas.validate(prefix, attributes.path.origin())
            }
            _ => Validity::Unknown,
        }
    }
}

/// What is odd about routes to a watched prefix.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Odd {
    Invalid(Option<u32>),
    Leak(LeakSign),
}

impl Observer {
    /// Looks for signs of leaks with what is known of other systems.
    #[must_use]
    pub fn with_relations(mut self, relations: Relations) -> Self {
        self.relations = relations;
        self
    }

    /// Another set of authorizations is known, or none any longer. A route that was valid and now is not is told; what
    /// changed while nothing was known is not.
    pub fn authorize(&mut self, now: Timestamp, authorizations: Authorizations) {
        let before = std::mem::replace(&mut self.authorizations, authorizations);
        let (Authorizations::Known(_), Authorizations::Known(roas)) =
            (&before, &self.authorizations)
        else {
            return;
        };
        let roas = roas.clone();
        let feeds = Family::ALL.map(|family| self.counting_feeds(family));
        for place in 0..self.followed.len() {
            let watched = self.watchlist.all()[place].prefix;
            let mut fallen = Vec::new();
            let mut named: BTreeSet<(Option<Collector>, Option<u32>)> = BTreeSet::new();
            for (known, route) in self.counting(place, &feeds[Family::of(&watched) as usize]) {
                let (Standing::Present, Some(attributes)) =
                    (route.standing(known.epoch), route.attributes())
                else {
                    continue;
                };
                let origin = attributes.path.origin();
                let was = before.of(&watched, attributes);
                let is = self.authorizations.of(&watched, attributes);
                // Whoever shows it, it is the same authorization that is gone; but collectors are counted.
                let shown = (known.feed.view.collector().copied(), origin);
                if was == Validity::Valid && is.is_invalid() && named.insert(shown) {
                    fallen.push((known.feed, origin, was, is));
                }
                if named.len() >= NAMED_MAX {
                    break;
                }
            }
            for (feed, origin, was, is) in fallen {
                let change = Change::Invalid(Invalid {
                    prefix: prefix(&watched),
                    origin,
                    was: Some(was),
                    is,
                    allowed: roas.allowed(&watched),
                });
                self.tell_prefix(now, &feed, place, change);
            }
        }
    }

    /// A route of a watched prefix is another one than before, or there was none.
    pub(super) fn look_for_signs(
        &mut self,
        now: Timestamp,
        feed: &Feed,
        place: usize,
        (before, after): (Option<&Attributes>, &Attributes),
        counts: bool,
    ) {
        let watched = self.watchlist.all()[place].prefix;
        let was = before.map(|before| self.authorizations.of(&watched, before));
        let is = self.authorizations.of(&watched, after);
        if is.is_invalid() && !was.is_some_and(Validity::is_invalid) {
            let origin = after.path.origin();
            let is_news = self.is_news(now, feed, place, Odd::Invalid(origin)) || was.is_some();
            if is_news && counts {
                self.tell_invalid(now, feed, place, (watched, origin), (was, is));
            }
        }
        let system = self.feeds.get(feed).map_or(0, |known| known.gate.system);
        let shown = before.and_then(|before| self.leak(feed.neighbour, system, before));
        let sign = self.leak(feed.neighbour, system, after);
        if let Some(sign) = sign.filter(|sign| shown != Some(*sign)) {
            let is_news = self.is_news(now, feed, place, Odd::Leak(sign)) || before.is_some();
            if is_news && counts {
                let path = text(&after.path);
                self.tell_prefix(now, feed, place, Change::Leaked { sign, path });
            }
        }
    }

    pub(super) fn tell_invalid(
        &mut self,
        now: Timestamp,
        feed: &Feed,
        place: usize,
        (announced, origin): (IpNet, Option<u32>),
        (was, is): (Option<Validity>, Validity),
    ) {
        let Authorizations::Known(roas) = &self.authorizations else {
            return;
        };
        let change = Change::Invalid(Invalid {
            prefix: prefix(&announced),
            origin,
            was,
            is,
            allowed: roas.allowed(&announced),
        });
        self.tell_prefix(now, feed, place, change);
    }

    /// Whether this came up just now. What there is no room to remember is no news.
    fn is_news(&mut self, now: Timestamp, feed: &Feed, place: usize, what: Odd) -> bool {
        let odd = &mut self.followed[place].odd[of_kind(feed)];
        if odd.len() >= ODD_MAX && !odd.contains_key(&what) {
            return false;
        }
        now.since(*odd.entry(what).or_insert(now)) <= NEWS
    }

    fn leak(&self, neighbour: IpAddr, system: u32, attributes: &Attributes) -> Option<LeakSign> {
        self.relations.sign(neighbour, system, attributes)
    }

    /// What the routes to a prefix are like now. What is no longer shown is forgotten, so that it will be news again.
    pub(super) fn signs(
        &mut self,
        now: Timestamp,
        place: usize,
        feeds: &Counting,
    ) -> (Validities, Leaks) {
        let watched = self.watchlist.all()[place].prefix;
        let (mut validities, mut leaks) = (Validities::default(), Leaks::default());
        let mut shown = [BTreeSet::new(), BTreeSet::new()];
        for (known, route) in self.counting(place, feeds) {
            let (Standing::Present, Some(attributes)) =
                (route.standing(known.epoch), route.attributes())
            else {
                continue;
            };
            if !matches!(self.authorizations, Authorizations::Unasked) {
                validities.add(self.authorizations.of(&watched, attributes));
            }
            let shown = &mut shown[of_kind(&known.feed)];
            shown.insert(Odd::Invalid(attributes.path.origin()));
            if let Some(sign) = self.leak(known.feed.neighbour, known.system, attributes) {
                leaks.add(sign);
                shown.insert(Odd::Leak(sign));
            }
        }
        for (odd, shown) in self.followed[place].odd.iter_mut().zip(shown) {
            odd.retain(|odd, since| now.since(*since) <= NEWS || shown.contains(odd));
        }
        (validities, leaks)
    }
}

/// Routers and peers come first, and those of collectors second.
fn of_kind(feed: &Feed) -> usize {
    usize::from(feed.view.collector().is_some())
}
