//! Routes of which nobody knows whether they are still there: those of feeds that cannot be believed now.
//!
//! What befalls a feed takes no route away. So what it showed is remembered with the time until when that was known, until
//! it shows the route again or withdraws it while it can be believed. How long that counts is not for an agent to say.

use leeward_common::{bgp::Unsure, time::Timestamp};

use super::{
    super::{
        feed::Standing as FeedStanding,
        peer::{Feed, View},
        prefix::{Route, Standing, Withdrawn},
        update::Family,
    },
    Counting, Known, Observer,
};

/// Why a feed's route may be one that nobody knows of.
#[derive(Clone, Copy, Debug)]
pub(super) enum Doubt {
    /// It transfers its table on this session.
    Loading(u32),
    /// It is lost or untrusted; or it can be believed, and its new table lacks what the one before had.
    Former,
}

impl Observer {
    /// A feed is lost, begins anew or falls: what it showed until now is known no longer.
    pub(super) fn lose_sight(&mut self, now: Timestamp, feed: &Feed) {
        let Some(known) = self.feeds.get(feed).filter(|_| is_near(feed)) else {
            return;
        };
        let (number, epoch) = (known.number, known.gate.epoch);
        for followed in &mut self.followed {
            let route = followed.routes.get(number);
            if route.is_some_and(|route| route.standing(epoch) == Standing::Present) {
                followed.lost.insert(number, now);
            }
        }
    }

    /// The same, unless it happened before.
    pub(super) fn lose_sight_of_heard(&mut self, now: Timestamp, feed: &Feed) {
        let is_heard = |known: &Known| known.gate.standing() == FeedStanding::Up;
        if self.feeds.get(feed).is_some_and(is_heard) {
            self.lose_sight(now, feed);
        }
    }

    /// A feed may show a route that is not kept.
    pub(super) fn lose_sight_of(&mut self, now: Timestamp, feed: &Feed, place: usize) {
        if let Some(known) = self.feeds.get(feed).filter(|_| is_near(feed)) {
            self.followed[place].lost.insert(known.number, now);
        }
    }

    /// A feed announced a watched prefix: it is known what it shows.
    pub(super) fn regain_sight(&mut self, feed: &Feed, place: usize) {
        if let Some(known) = self.feeds.get(feed)
            && known.gate.standing() == FeedStanding::Up
        {
            self.followed[place].lost.remove(&known.number);
        }
    }

    /// A feed withdrew a watched prefix. Only who can be believed, and means it, takes a route away.
    pub(super) fn lose_route(
        &mut self,
        now: Timestamp,
        feed: &Feed,
        place: usize,
        withdrawn: &Withdrawn,
        is_meant: bool,
    ) {
        let Some(known) = self.feeds.get(feed).filter(|_| is_near(feed)) else {
            return;
        };
        let route = self.followed[place].routes.get(known.number);
        let is_unknown = |route: &Route| route.standing(known.gate.epoch) == Standing::Unknown;
        match withdrawn {
            Withdrawn::Last(_) | Withdrawn::Meant(_) | Withdrawn::Stuck => {}
            // The last of those that were kept, and there were more.
            Withdrawn::Fewer if route.is_some_and(is_unknown) => {
                return self.lose_sight_of(now, feed, place);
            }
            _ => return,
        }
        let family = Family::of(&self.watchlist.all()[place].prefix);
        let lost = &mut self.followed[place].lost;
        match is_meant && known.gate.is_believed(family) {
            true => _ = lost.remove(&known.number),
            false => _ = lost.insert(known.number, now),
        }
    }

    /// How a feed's routes of a family may be such; `None` if they count for nothing.
    pub(super) fn doubt(&self, feed: &Feed, known: &Known, family: Family) -> Option<Doubt> {
        let is_shown_better = || {
            let after = self.feeds.get(&feed.viewed(View::PostPolicy));
            after.is_some_and(|known| known.gate.seen.announced > 0)
        };
        if !is_near(feed) || feed.view == View::PrePolicy && is_shown_better() {
            return None;
        }
        let is_loading =
            known.gate.standing() == FeedStanding::Up && !known.gate.is_believed(family);
        Some(match is_loading {
            true => Doubt::Loading(known.gate.epoch),
            false => Doubt::Former,
        })
    }

    /// How many feeds may have a route to a prefix of which nobody knows.
    pub(super) fn unsure(&self, now: Timestamp, place: usize, feeds: &Counting) -> Unsure {
        let followed = &self.followed[place];
        let doubt = |number: u32| feeds.doubts.get(number as usize).copied().flatten();
        let mut unsure = Unsure::default();
        for (number, route) in followed.routes.iter() {
            if let Some(Doubt::Loading(epoch)) = doubt(number)
                && route.standing(epoch) == Standing::Present
            {
                unsure.add(now);
            }
        }
        for (number, known_at) in &followed.lost {
            if doubt(*number).is_some() {
                unsure.add(*known_at);
            }
        }
        unsure
    }
}

/// Whether it tells what a router of our own uses: no view of what it tells others, and no collector elsewhere.
fn is_near(feed: &Feed) -> bool {
    feed.view != View::Out && feed.view.collector().is_none()
}
