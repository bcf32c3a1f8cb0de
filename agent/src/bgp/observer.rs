//! What feeds say, put together: events of feeds in, windows and events of watched prefixes out.
//!
//! Of what is not watched only sums are kept, for each feed. Of a watched prefix each feed has a [`Route`]. Whether a change
//! counts is the feed's [`Gate`] to say; the time is this agent's own, handed in by the rim.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    mem,
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
use leeward_common::{
    bgp::{
        Change, Counts, FeedChange, FeedState, MoreSpecific, PATH_TEXT_MAX, Prefix, RoutingEvent,
        What,
    },
    time::Timestamp,
};

use pace::Pace;
use parts::Parts;
use room::{Limit, Source};
pub use signs::Authorizations;
use signs::Odd;
use unsure::Doubt;

use super::{
    feed::{Gate, Standing as FeedStanding},
    leak::Relations,
    peer::{Event, Feed, View},
    prefix::{Announced, Route, Standing, Withdrawn},
    routes::Routes,
    tables::{Extent, Tables},
    update::{AsPath, Attributes, Family, Nlri, Update},
    watch::{Relation, Watchlist},
};

mod links;
mod pace;
mod parts;
mod room;
#[path = "observer/signs.rs"]
mod signs;
mod unsure;
mod windows;

/// The most feeds that are followed; what others say is passed over. One source may have as many of them as are left to all
/// others: so there is always room for one more source.
pub const FEEDS_MAX: usize = 8_192;

/// The most memory for one feed's routes to watched prefixes, in bytes; a route takes some 300. What goes beyond it is not
/// followed, and told once in a session.
pub const FEED_BYTES_MAX: usize = 32 << 20;

/// The same for all feeds together. One source may have as much of it as is left to all others.
pub const ALL_BYTES_MAX: usize = 256 << 20;

/// The most events that wait to be taken: more than one UPDATE can bring about by withdrawals. The oldest are given up and counted.
pub const EVENTS_MAX: usize = 32_768;

/// A route is stuck when at least two feeds, and at least as many as still have one, withdrew theirs this long ago. On
/// average it takes two minutes until a withdrawal is everywhere.
pub const STUCK_AFTER: Duration = Duration::from_secs(600);

/// A feed that counts: its number, its session and its neighbour's system.
#[derive(Clone, Copy, Debug)]
struct CountingFeed {
    feed: Feed,
    number: u32,
    epoch: u32,
    system: u32,
}

/// The feeds that count for a family, and those whose routes may be there although nobody knows, each at the place of its
/// number.
#[derive(Debug)]
struct Counting {
    feeds: Vec<Option<CountingFeed>>,
    doubts: Vec<Option<Doubt>>,
}

/// All feeds, and all that is watched.
#[derive(Debug, Default)]
pub struct Observer {
    watchlist: Watchlist,
    feeds: BTreeMap<Feed, Known>,
    sources: BTreeMap<IpAddr, Source>,
    /// How many numbers feeds were given, and which of them are free again.
    numbers: u32,
    free: Vec<u32>,
    /// When it was looked for feeds to forget.
    looked: Timestamp,
    followed: Vec<Followed>,
    authorizations: Authorizations,
    relations: Relations,
    tables: Tables,
    /// What all routes take, in bytes.
    bytes: usize,
    events: VecDeque<RoutingEvent>,
    /// Events that were given up.
    pub events_given_up: u64,
    /// Changes that came too fast to be told when they happened.
    pub events_held: u64,
    /// Sessions, and UPDATEs, of feeds that were not followed.
    pub feeds_refused: u64,
}

/// A feed that is followed.
#[derive(Debug)]
struct Known {
    number: u32,
    gate: Gate,
    /// What its routes take, in bytes.
    bytes: usize,
    /// What it was told to show too much of.
    limited: BTreeSet<Limit>,
}

/// A watched prefix: what each feed says, by the feed's number, and the window that runs.
#[derive(Debug, Default)]
struct Followed {
    routes: Routes,
    /// The parts of it that each feed shows, by the feed's number.
    parts: BTreeMap<u32, Parts>,
    /// Until when it was known that a feed shows a route which it does not show now and did not withdraw, by its number.
    lost: BTreeMap<u32, Timestamp>,
    /// Since when something odd is shown by routers and peers, and by those of collectors.
    odd: [BTreeMap<Odd, Timestamp>; 2],
    /// How often feeds were told of lately.
    paces: BTreeMap<Feed, Pace>,
    tally: Tally,
}

#[derive(Debug, Default)]
struct Tally {
    counts: Counts,
    longer: u32,
    edit_distance: u32,
    exploration: u32,
    more_specifics: Vec<MoreSpecific>,
}

impl Observer {
    /// Follows these prefixes; no feed is known yet.
    #[must_use]
    pub fn new(watchlist: Watchlist) -> Self {
        let followed = watchlist
            .all()
            .iter()
            .map(|_| Followed::default())
            .collect();
        Self {
            watchlist,
            followed,
            ..Self::default()
        }
    }

    /// Follows these prefixes from now on. What is known of those that it followed before stays. True if it looks for more than
    /// before: then nobody knows what feeds announced of it, until they say so once more.
    pub fn follow(&mut self, mut watchlist: Watchlist) -> bool {
        watchlist.inherit(&self.watchlist);
        let is_more = watchlist.wants_more_than(&self.watchlist);
        let watched = self.watchlist.all().iter().map(|own| own.prefix);
        let mut before: BTreeMap<IpNet, Followed> =
            watched.zip(mem::take(&mut self.followed)).collect();
        let now = watchlist.all().iter();
        self.followed = now
            .map(|own| before.remove(&own.prefix).unwrap_or_default())
            .collect();
        self.watchlist = watchlist;
        let mut bytes: BTreeMap<u32, usize> = BTreeMap::new();
        for followed in &self.followed {
            let routes = followed.routes.iter();
            let routes = routes.map(|(number, route)| (number, route.bytes()));
            let parts = followed.parts.iter();
            let parts = parts.map(|(number, parts)| (*number, parts.bytes()));
            for (number, own) in routes.chain(parts) {
                *bytes.entry(number).or_default() += own;
            }
        }
        self.bytes = bytes.values().sum();
        self.sources.values_mut().for_each(|own| own.bytes = 0);
        for (feed, known) in &mut self.feeds {
            known.bytes = bytes.get(&known.number).copied().unwrap_or(0);
            known.gate.is_whole &= !is_more;
            if let Some(source) = self.sources.get_mut(&feed.source) {
                source.bytes += known.bytes;
            }
        }
        is_more
    }

    /// What is followed.
    #[must_use]
    pub const fn watchlist(&self) -> &Watchlist {
        &self.watchlist
    }

    /// The same, and so much of what feeds show is kept.
    #[must_use]
    pub fn keeping(self, extent: Extent) -> Self {
        Self {
            tables: Tables::new(extent),
            ..self
        }
    }

    /// Something happened on a feed.
    pub fn on(&mut self, now: Timestamp, feed: &Feed, event: &Event) {
        match event {
            Event::Up { system } => self.up(now, feed, *system),
            Event::Down(why) => self.down(now, feed, &why.to_string()),
            Event::Update(update) => self.update(now, feed, update),
        }
    }

    /// Time passed: tables may count as transferred since.
    pub fn pass(&mut self, now: Timestamp) {
        let mut loaded = Vec::new();
        for (feed, known) in &mut self.feeds {
            if known.gate.pass(now) {
                loaded.push(*feed);
            }
        }
        for feed in loaded {
            self.tell(now, &feed, What::Feed(FeedChange::Loaded));
        }
        self.pass_tables(now);
        self.pass_paces(now);
    }

    /// Tells what was held.
    fn pass_paces(&mut self, now: Timestamp) {
        for place in 0..self.followed.len() {
            let mut due = Vec::new();
            self.followed[place].paces.retain(|feed, pace| {
                let epoch = self.feeds.get(feed).map_or(0, |known| known.gate.epoch);
                while let Some(change) = pace.pass(now, epoch) {
                    due.push((*feed, change));
                }
                !pace.is_idle(now)
            });
            let watched = self.watchlist.all()[place].prefix;
            for (feed, change) in due {
                if self.counts(&feed, &watched) {
                    self.tell_change(now, &feed, place, change);
                }
            }
        }
    }

    /// How many events wait to be taken.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.events.len()
    }

    /// Takes what is to be told at once, oldest first.
    pub fn take_events(&mut self) -> Vec<RoutingEvent> {
        mem::take(&mut self.events).into()
    }

    /// All feeds that are known.
    #[must_use]
    pub fn feeds(&self) -> Vec<FeedState> {
        let state = |(feed, known): (&Feed, &Known)| {
            let seen = &known.gate.seen;
            FeedState {
                feed: feed.to_string(),
                source: feed.source,
                collector: feed.view.collector().map(ToString::to_string),
                system: known.gate.system,
                standing: known.gate.told(),
                since: known.gate.since,
                updates: seen.updates,
                announced: seen.announced,
                withdrawn: seen.withdrawn,
                fabricated: seen.fabricated,
            }
        };
        self.feeds.iter().map(state).collect()
    }

    fn up(&mut self, now: Timestamp, feed: &Feed, system: u32) {
        self.lose_sight_of_heard(now, feed);
        match self.feeds.get_mut(feed) {
            Some(known) => {
                known.gate.up(now, system);
                known.limited.clear();
                self.tables.forget(known.number);
            }
            None => {
                if !self.make_room(now, feed.source) {
                    self.refuse(now, feed);
                    return;
                }
                self.meet(now, feed, system);
            }
        }
        if feed.view.collector().is_some() {
            self.in_midst(feed);
        }
        self.tell(now, feed, What::Feed(FeedChange::Up));
    }

    /// The feed's session began before it was listened to: what it withdraws it may have announced.
    fn in_midst(&mut self, feed: &Feed) {
        if let Some(known) = self.feeds.get_mut(feed) {
            known.gate.is_whole = false;
        }
    }

    /// A recording begins in the midst of a session.
    fn up_unseen(&mut self, now: Timestamp, feed: &Feed) {
        self.up(now, feed, 0);
        self.in_midst(feed);
    }

    fn down(&mut self, now: Timestamp, feed: &Feed, why: &str) {
        self.lose_sight_of_heard(now, feed);
        let Some(known) = self.feeds.get_mut(feed) else {
            return;
        };
        let (number, epoch) = (known.number, known.gate.epoch);
        known.gate.down(now);
        self.tables.forget(number);
        let had = |followed: &&Followed| {
            let route = followed.routes.get(number);
            route.is_some_and(|route| route.standing(epoch) == Standing::Present)
        };
        let watched = u32::try_from(self.followed.iter().filter(had).count()).unwrap_or(u32::MAX);
        let why = why.chars().take(PATH_TEXT_MAX / 4).collect();
        self.tell(now, feed, What::Feed(FeedChange::Down { why, watched }));
    }

    fn update(&mut self, now: Timestamp, feed: &Feed, update: &Update) {
        let Some(known) = self.feeds.get_mut(feed) else {
            self.up_unseen(now, feed);
            if self.feeds.contains_key(feed) {
                self.update(now, feed, update);
            }
            return;
        };
        if known.gate.standing() == FeedStanding::Lost {
            self.up_unseen(now, feed);
            return self.update(now, feed, update);
        }
        let gate = &mut known.gate;
        gate.seen.updates += 1;
        gate.seen.malformed += u64::from(update.malformed.is_some());
        let mut is_loaded = gate.pass(now);
        for family in Family::ALL {
            let of = |nlris: &[Nlri]| {
                nlris
                    .iter()
                    .filter(|nlri| Family::of(&nlri.prefix) == family)
                    .count()
            };
            gate.say(family, of(&update.announced), of(&update.withdrawn));
        }
        let mut is_doubted = gate.doubt();
        if let Some(family) = update.end_of_table {
            is_loaded |= gate.end(now, family);
            self.table_is_there(now, feed, family);
        }
        for nlri in &update.withdrawn {
            is_doubted |= self.withdraw(now, feed, nlri, update.malformed.is_some());
        }
        for nlri in &update.announced {
            self.announce(now, feed, nlri, &update.attributes);
        }
        if is_loaded {
            self.tell(now, feed, What::Feed(FeedChange::Loaded));
        }
        self.follow_table(now, feed, update);
        if is_doubted {
            self.lose_sight(now, feed);
            let fabricated = self.feeds.get(feed).map_or(0, |known| {
                let seen = &known.gate.seen;
                seen.fabricated
                    .max(u32::try_from(seen.withdrawn).unwrap_or(u32::MAX))
            });
            self.tell(now, feed, What::Feed(FeedChange::Untrusted { fabricated }));
        }
    }

    fn table_is_there(&mut self, now: Timestamp, feed: &Feed, family: Family) {
        let Some(known) = self.feeds.get(feed) else {
            return;
        };
        let (number, epoch) = (known.number, known.gate.epoch);
        for (watched, followed) in self.watchlist.all().iter().zip(&mut self.followed) {
            if Family::of(&watched.prefix) == family
                && let Some(route) = followed.routes.get_mut(number)
            {
                route.table_is_there(now, epoch);
            }
        }
    }

    /// True when the feed is untrusted since.
    fn withdraw(&mut self, now: Timestamp, feed: &Feed, nlri: &Nlri, malformed: bool) -> bool {
        let place = match self.watchlist.find(&nlri.prefix) {
            None => return false,
            Some(Relation::Within(place)) => {
                self.forget_part(feed, place, nlri);
                return false;
            }
            Some(Relation::Exact(place)) => place,
        };
        let counts = self.counts(feed, &nlri.prefix);
        let Some(known) = self.feeds.get_mut(feed) else {
            return false;
        };
        let followed = &mut self.followed[place];
        let withdrawn = match followed.routes.get_mut(known.number) {
            None => Withdrawn::Fabricated,
            Some(route) => {
                let before = route.bytes();
                let epoch = known.gate.epoch;
                let withdrawn = route
                    .on(epoch)
                    .withdraw(now, nlri.path_id, malformed, counts);
                let after = route.bytes();
                self.takes(feed, before, after);
                withdrawn
            }
        };
        let Some(known) = self.feeds.get_mut(feed) else {
            return false;
        };
        let number = known.number;
        let falls = known
            .gate
            .withdraw_watched(withdrawn == Withdrawn::Fabricated);
        // What was withdrawn in earnest last may have had another beside it that was not.
        let followed = &self.followed[place];
        let malformed = followed.routes.get(number).is_some_and(Route::is_doubtful);
        self.lose_route(now, feed, place, &withdrawn, !malformed);
        let tally = &mut self.followed[place].tally.counts;
        match withdrawn {
            Withdrawn::Last(ref path) | Withdrawn::Meant(ref path) if counts => {
                // What is meant now was counted before.
                if matches!(withdrawn, Withdrawn::Last(_)) {
                    tally.withdrawals += 1;
                    tally.malformed += u32::from(malformed);
                }
                let path = text(path);
                self.tell_prefix(now, feed, place, Change::Withdrawn { path, malformed });
            }
            Withdrawn::Fewer if counts => tally.fewer_paths += 1,
            _ => tally.disregarded += 1,
        }
        falls
    }

    fn announce(&mut self, now: Timestamp, feed: &Feed, nlri: &Nlri, attributes: &Arc<Attributes>) {
        let found = self.watchlist.find(&nlri.prefix);
        if let Some(Relation::Within(place)) = found {
            self.more_specific(now, feed, place, nlri, attributes);
        }
        let place = match found {
            Some(Relation::Exact(place)) => place,
            _ if self.watchlist.learn(&nlri.prefix) => {
                self.followed.push(Followed::default());
                self.followed.len() - 1
            }
            _ => return,
        };
        let counts = self.counts(feed, &nlri.prefix);
        let is_room = self.is_room(feed);
        let Some(known) = self.feeds.get_mut(feed) else {
            return;
        };
        let followed = &mut self.followed[place];
        let before = followed.routes.get(known.number).map_or(0, Route::bytes);
        if !is_room && before == 0 {
            self.lose_sight_of(now, feed, place);
            self.limit(now, feed, Limit::Bytes);
            return;
        }
        let route = followed.routes.get_or_default(known.number);
        let route = route.on(known.gate.epoch);
        let shown = route.shared();
        let announced = route.announce(now, nlri.path_id, attributes, counts);
        let shows = route.shared();
        // What a router shows once more, of a prefix that was not watched when it showed it first, is no news.
        let is_told =
            announced != Announced::First || known.gate.is_whole || feed.view.collector().is_some();
        let is_too_much = !is_room && route.bytes() > before;
        if is_too_much {
            route.give_up(now);
        }
        let after = route.bytes();
        self.takes(feed, before, after);
        match is_too_much {
            true => {
                self.lose_sight_of(now, feed, place);
                self.limit(now, feed, Limit::Bytes);
            }
            false => self.regain_sight(feed, place),
        }
        if let Some(shows) = shows.filter(|_| announced != Announced::Same) {
            let routes = (shown.as_deref(), &*shows);
            self.look_for_signs(now, feed, place, routes, counts && is_told);
        }
        if announced == Announced::Beyond {
            self.limit(now, feed, Limit::Paths);
        }
        if announced == Announced::First {
            // What is learned is part of what holds it, to each feed that comes to show it.
            let around = self.watchlist.is_learned(place);
            let around = around
                .then(|| self.watchlist.around(&nlri.prefix))
                .flatten();
            if let Some(around) = around {
                self.more_specific(now, feed, around, nlri, attributes);
            }
            return;
        }
        let tally = &mut self.followed[place].tally;
        if !counts {
            tally.counts.disregarded += 1;
            return;
        }
        if announced == Announced::Same {
            tally.counts.duplicates += 1;
            return;
        }
        tally.counts.announcements += 1;
        match announced {
            Announced::First
            | Announced::Same
            | Announced::More
            | Announced::Beyond
            | Announced::Attributes => {}
            Announced::Path(change) => {
                tally.counts.path_changes += u32::from(!change.returned);
                tally.counts.returns += u32::from(change.returned);
                tally.counts.origin_changes += u32::from(change.origin.is_some());
                if feed.view.collector().is_none() {
                    tally.longer = tally.longer.max(change.longer);
                    tally.edit_distance = tally.edit_distance.max(change.edit_distance);
                    tally.exploration = tally.exploration.max(change.explored);
                }
                let path = text(&attributes.path);
                if change.returned {
                    self.tell_prefix(now, feed, place, Change::Returned { path: path.clone() });
                }
                if let Some((from, to)) = change.origin {
                    self.tell_prefix(now, feed, place, Change::OriginChanged { from, to });
                }
                if change.explored >= 2 {
                    let paths = change.explored;
                    self.tell_prefix(now, feed, place, Change::Exploring { paths, path });
                }
            }
        }
    }

    /// Whether what a feed says about a prefix counts: it may be believed, and no other feed says the same better.
    fn counts(&self, feed: &Feed, prefix: &IpNet) -> bool {
        self.counts_of(feed, Family::of(prefix))
    }

    fn counts_of(&self, feed: &Feed, family: Family) -> bool {
        let believed = |feed: &Feed| {
            self.feeds
                .get(feed)
                .is_some_and(|known| known.gate.is_believed(family))
        };
        match feed.view {
            // What a router tells others is the consequence of what it uses.
            View::Out => false,
            // Of the same routes after policy less is made up, and it is what the router uses. FRR says the end of that table
            // even if it shows nothing of it.
            View::PrePolicy => {
                let after = feed.viewed(View::PostPolicy);
                let shows = |known: &Known| known.gate.seen.announced > 0;
                believed(feed) && !(believed(&after) && self.feeds.get(&after).is_some_and(shows))
            }
            _ => believed(feed),
        }
    }

    fn counting_feeds(&self, family: Family) -> Counting {
        let mut counting = Counting {
            feeds: vec![None; self.numbers as usize],
            doubts: vec![None; self.numbers as usize],
        };
        for (feed, known) in &self.feeds {
            if let Some(place) = counting.doubts.get_mut(known.number as usize) {
                *place = self.doubt(feed, known, family);
            }
            if self.counts_of(feed, family)
                && let Some(place) = counting.feeds.get_mut(known.number as usize)
            {
                *place = Some(CountingFeed {
                    feed: *feed,
                    number: known.number,
                    epoch: known.gate.epoch,
                    system: known.gate.system,
                });
            }
        }
        counting
    }

    /// The routes to a prefix of the feeds that count.
    fn counting<'a>(
        &'a self,
        place: usize,
        feeds: &'a Counting,
    ) -> impl Iterator<Item = (CountingFeed, &'a Route)> {
        let routes = self.followed[place].routes.iter();
        routes.filter_map(|(number, route)| Some(((*feeds.feeds.get(number as usize)?)?, route)))
    }

    /// Tells of a change, now or when there is room.
    fn tell_prefix(&mut self, now: Timestamp, feed: &Feed, place: usize, change: Change) {
        let epoch = self.feeds.get(feed).map_or(0, |known| known.gate.epoch);
        let pace = self.followed[place].paces.entry(*feed).or_default();
        match pace.happen(now, epoch, change) {
            Some(change) => self.tell_change(now, feed, place, change),
            None => self.events_held += 1,
        }
    }

    fn tell_change(&mut self, now: Timestamp, feed: &Feed, place: usize, change: Change) {
        let watched = &self.watchlist.all()[place];
        let feeds = self.counting_feeds(Family::of(&watched.prefix));
        let what = What::Prefix {
            prefix: prefix(&watched.prefix),
            region: watched.region.clone(),
            change,
            sight: self.sight(now, place, &feeds),
            learned: self.watchlist.is_learned(place),
        };
        self.tell(now, feed, what);
    }

    fn tell(&mut self, now: Timestamp, feed: &Feed, what: What) {
        if self.events.len() >= EVENTS_MAX {
            self.events.pop_front();
            self.events_given_up += 1;
        }
        self.events.push_back(RoutingEvent {
            at: now,
            feed: feed.to_string(),
            source: feed.source,
            collector: feed.view.collector().map(ToString::to_string),
            what,
        });
    }
}

fn text(path: &AsPath) -> String {
    let mut text = path.to_string();
    // Paths are ASCII.
    text.truncate(PATH_TEXT_MAX);
    text
}

pub(super) fn prefix(net: &IpNet) -> Prefix {
    Prefix::new(net.network(), net.prefix_len()).expect("a network has no bits beyond its length")
}

#[cfg(test)]
#[path = "observer/tests.rs"]
mod tests;
