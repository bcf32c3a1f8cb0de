//! An Internet that is made up, links in it that fail, and whether a feed's losses name them: the measure of
//! [`super::bgp::inference`], in tests and in the benchmark.
//!
//! Systems stand in three tiers: a few without providers, all peers of each other; those that sell transit; and those that
//! only buy. Routes are as policies make them (Gao and Rexford): a customer's before a peer's before a provider's, then the shorter,
//! then the lower neighbour; to peers and providers only customers' routes are told. The feed is what one system of the middle
//! tells. After a failure its losses come within two to ten seconds, origin by origin in any order; of some a stale detour is told
//! first, and some unlike routes flap meanwhile.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use ipnet::{IpNet, Ipv4Net};
use leeward_common::{
    bgp::{RoutingEvent, What},
    time::Timestamp,
};

use super::bgp::{
    inference::threshold,
    observer::Observer,
    peer::{Event, Feed, end_of_table},
    tables::Extent,
    update::{AsPath, Attributes, Family, Nlri, Update},
    watch::Watchlist,
};

/// What is lost comes within this time: of some failures sooner, of others later.
const SPREAD_US: std::ops::Range<u64> = 2_000_000..10_000_000;

/// Of so many lost origins in a hundred a stale detour is told first.
const DETOURS_PERCENT: u64 = 20;

/// Unlike prefixes that flap meanwhile.
const FLAPS: u64 = 6;

/// Numbers from a seed (Steele et al., SplitMix).
#[derive(Clone, Debug)]
pub struct Dice(pub u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }
}

/// Systems and how they buy from each other. A system's number is its place and one more.
#[derive(Clone, Debug)]
pub struct Internet {
    providers: Vec<Vec<usize>>,
    customers: Vec<Vec<usize>>,
    peers: Vec<Vec<usize>>,
    /// How many prefixes each originates.
    prefixes: Vec<u32>,
    middle: std::ops::Range<usize>,
}

/// How a route was learned; the first is the best.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum From {
    Customer,
    Peer,
    Provider,
}

impl Internet {
    /// One of so many systems.
    #[must_use]
    pub fn new(dice: &mut Dice, systems: usize) -> Self {
        let (top, middle) = (6, 6..6 + systems / 8);
        let mut internet = Self {
            providers: vec![Vec::new(); systems],
            customers: vec![Vec::new(); systems],
            peers: vec![Vec::new(); systems],
            prefixes: Vec::new(),
            middle: middle.clone(),
        };
        for one in 0..top {
            for other in one + 1..top {
                internet.peer(one, other);
            }
        }
        for own in middle.clone() {
            for _ in 0..1 + dice.below(3) {
                // Of those above: the top, or an earlier one of the middle.
                let limit = if dice.below(3) == 0 { own } else { top };
                internet.buy(own, dice.below(limit as u64) as usize);
            }
            if dice.below(2) == 0 && own > middle.start {
                let other = middle.start + dice.below((own - middle.start) as u64) as usize;
                internet.peer(own, other);
            }
        }
        for own in middle.end..systems {
            for _ in 0..1 + dice.below(3) {
                let limit = (middle.end - middle.start) as u64;
                internet.buy(own, middle.start + dice.below(limit) as usize);
            }
        }
        for _ in 0..systems {
            // Few have many: 1 to 64, each size half as often as half of it.
            let most = 1 << dice.below(7);
            internet.prefixes.push(1 + dice.below(most) as u32);
        }
        internet
    }

    fn buy(&mut self, own: usize, provider: usize) {
        if own != provider && !self.is_linked(own, provider) {
            self.providers[own].push(provider);
            self.customers[provider].push(own);
        }
    }

    fn peer(&mut self, one: usize, other: usize) {
        if one != other && !self.is_linked(one, other) {
            self.peers[one].push(other);
            self.peers[other].push(one);
        }
    }

    fn is_linked(&self, one: usize, other: usize) -> bool {
        self.neighbours(one).any(|own| own == other)
    }

    fn neighbours(&self, of: usize) -> impl Iterator<Item = usize> + '_ {
        let all = self.providers[of].iter().chain(&self.customers[of]);
        all.chain(&self.peers[of]).copied()
    }

    /// The same without a link.
    #[must_use]
    pub fn without(&self, one: usize, other: usize) -> Self {
        let mut rest = self.clone();
        for (own, gone) in [(one, other), (other, one)] {
            rest.providers[own].retain(|neighbour| *neighbour != gone);
            rest.customers[own].retain(|neighbour| *neighbour != gone);
            rest.peers[own].retain(|neighbour| *neighbour != gone);
        }
        rest
    }

    /// The path of one system to each origin, itself first.
    #[must_use]
    pub fn paths(&self, from: usize) -> Vec<Option<Vec<usize>>> {
        let all = 0..self.prefixes.len();
        all.map(|origin| self.path(from, origin)).collect()
    }

    fn path(&self, from: usize, origin: usize) -> Option<Vec<usize>> {
        let next = self.next_hops(origin);
        let mut path = vec![from];
        let mut at = from;
        while at != origin {
            at = next[at]?;
            path.push(at);
        }
        Some(path)
    }

    /// Where each system sends what is for an origin.
    fn next_hops(&self, origin: usize) -> Vec<Option<usize>> {
        let systems = self.prefixes.len();
        let mut best: Vec<Option<(From, u32, usize)>> = vec![None; systems];
        best[origin] = Some((From::Customer, 0, origin));
        let improve = |best: &mut Vec<Option<_>>, at: usize, route: (From, u32, usize)| {
            let is_better = best[at].is_none_or(|own| route < own);
            if is_better {
                best[at] = Some(route);
            }
            is_better
        };
        // Upwards, nearest first.
        let mut queue = VecDeque::from([origin]);
        while let Some(at) = queue.pop_front() {
            let Some((_, length, _)) = best[at] else {
                continue;
            };
            for provider in &self.providers[at] {
                let was_known = best[*provider].is_some();
                improve(&mut best, *provider, (From::Customer, length + 1, at));
                if !was_known {
                    queue.push_back(*provider);
                }
            }
        }
        // Across.
        let upwards = best.clone();
        for (at, route) in upwards.iter().enumerate() {
            if let Some((_, length, _)) = route {
                for peer in &self.peers[at] {
                    improve(&mut best, *peer, (From::Peer, length + 1, at));
                }
            }
        }
        // Downwards, shortest first.
        let mut waiting: BTreeSet<(u32, usize)> = best
            .iter()
            .enumerate()
            .filter_map(|(at, route)| route.map(|(_, length, _)| (length, at)))
            .collect();
        while let Some((length, at)) = waiting.pop_first() {
            if best[at].is_none_or(|(_, own, _)| own != length) {
                continue;
            }
            for customer in &self.customers[at] {
                if improve(&mut best, *customer, (From::Provider, length + 1, at)) {
                    waiting.insert((length + 1, *customer));
                }
            }
        }
        best.into_iter()
            .map(|route| route.map(|(_, _, next)| next))
            .collect()
    }

    fn nlris(&self, origin: usize) -> impl Iterator<Item = Nlri> {
        let before: u32 = self.prefixes[..origin].iter().sum();
        let own = before..before + self.prefixes[origin];
        own.map(|at| {
            let address = Ipv4Addr::from_bits(0x0b00_0000 + (at << 8));
            Nlri {
                prefix: IpNet::V4(Ipv4Net::new_assert(address, 24)),
                path_id: 0,
            }
        })
    }

    fn announcement(&self, origin: usize, path: &[usize]) -> Event {
        let systems: Vec<u32> = path.iter().map(|at| *at as u32 + 1).collect();
        Event::Update(Update {
            announced: self.nlris(origin).collect(),
            attributes: Arc::new(Attributes {
                path: AsPath::sequence(&systems),
                ..Attributes::default()
            }),
            ..Update::default()
        })
    }

    fn withdrawal(&self, origin: usize) -> Event {
        Event::Update(Update {
            withdrawn: self.nlris(origin).collect(),
            ..Update::default()
        })
    }
}

/// A feed that was told a whole table, which counts.
#[derive(Debug)]
pub struct Listening {
    /// Who listens.
    pub observer: Observer,
    /// The feed.
    pub feed: Feed,
    /// When its table was there.
    pub since: Timestamp,
}

fn at(micros: u64) -> Timestamp {
    Timestamp::from_unix_us(micros)
}

/// Whoever hears the feed of one system from the beginning.
#[must_use]
pub fn listen(internet: &Internet, paths: &[Option<Vec<usize>>]) -> Listening {
    let extent = Extent {
        is_full: true,
        ..Extent::default()
    };
    let mut observer = Observer::new(Watchlist::default()).keeping(extent);
    let feed = Feed::session(IpAddr::from([10, 0, 0, 1]));
    observer.on(at(0), &feed, &Event::Up { system: 1 });
    for (origin, path) in paths.iter().enumerate() {
        if let Some(path) = path {
            observer.on(at(1), &feed, &internet.announcement(origin, path));
        }
    }
    observer.on(at(2), &feed, &end_of_table(Family::V4));
    observer.pass(at(11_000_000));
    observer.pass(at(22_000_000));
    observer.take_events();
    Listening {
        observer,
        feed,
        since: at(30_000_000),
    }
}

/// How a failure was told.
#[derive(Clone, Copy, Debug)]
pub struct Judged {
    /// How many prefixes were lost.
    pub lost: u32,
    /// Whether the link was the one that stood named after a second, after five, and at the end; `None` if none was.
    pub right: [Option<bool>; 3],
    /// How often a link was told.
    pub told: usize,
}

/// A link of a made-up Internet fails, of those by whose failure so many times a burst is lost; `None` if there is none.
#[must_use]
pub fn judge(seed: u64, systems: usize, bursts: usize) -> Option<Judged> {
    let mut dice = Dice(seed);
    let internet = Internet::new(&mut dice, systems);
    let middle = (internet.middle.end - internet.middle.start) as u64;
    let from = internet.middle.start + dice.below(middle) as usize;
    let before = internet.paths(from);
    let all: u32 = internet.prefixes.iter().sum();
    let least = bursts * threshold(all as usize);
    let mut carried: BTreeMap<(usize, usize), u32> = BTreeMap::new();
    for (origin, path) in before.iter().enumerate() {
        for pair in path.iter().flat_map(|path| path.windows(2)) {
            *carried.entry((pair[0], pair[1])).or_default() += internet.prefixes[origin];
        }
    }
    // Most links carry little.
    carried.retain(|_, prefixes| *prefixes as usize >= least);
    let links: Vec<_> = carried.into_keys().collect();
    for _ in 0..4 * links.len().min(10) {
        let (near, far) = links[dice.below(links.len() as u64) as usize];
        let after = internet.without(near, far).paths(from);
        let is_lost = |origin: &usize| match (&before[*origin], &after[*origin]) {
            (Some(before), Some(after)) => after.len() > before.len(),
            (Some(_), None) => true,
            (None, _) => false,
        };
        let origins = 0..internet.prefixes.len();
        let lost: u32 = origins
            .filter(is_lost)
            .map(|origin| internet.prefixes[origin])
            .sum();
        if lost as usize >= least {
            let happens = story(&mut dice, &internet, from, &before, &after);
            let mut listening = listen(&internet, &before);
            return Some(play(&mut listening, &happens, (near, far), lost));
        }
    }
    None
}

/// What the feed tells, and when.
fn story(
    dice: &mut Dice,
    internet: &Internet,
    from: usize,
    before: &[Option<Vec<usize>>],
    after: &[Option<Vec<usize>>],
) -> BTreeMap<(u64, u64), Event> {
    let mut happens = BTreeMap::new();
    let spread = SPREAD_US.start + dice.below(SPREAD_US.end - SPREAD_US.start);
    let neighbours: Vec<_> = internet.neighbours(from).collect();
    let neighbour = neighbours[dice.below(neighbours.len() as u64) as usize];
    let detours = internet.paths(neighbour);
    for origin in 0..before.len() {
        if before[origin] == after[origin] {
            continue;
        }
        let when = dice.below(spread);
        if let Some(stale) = &detours[origin]
            && !stale.contains(&from)
            && dice.below(100) < DETOURS_PERCENT
        {
            let path = [&[from], &stale[..]].concat();
            let event = internet.announcement(origin, &path);
            happens.insert((when / 2, dice.next()), event);
        }
        let event = match &after[origin] {
            Some(path) => internet.announcement(origin, path),
            None => internet.withdrawal(origin),
        };
        happens.insert((when, dice.next()), event);
    }
    let unlike: Vec<_> = (0..before.len())
        .filter(|origin| before[*origin] == after[*origin] && internet.prefixes[*origin] == 1)
        .collect();
    for _ in 0..FLAPS.min(unlike.len() as u64) {
        let origin = unlike[dice.below(unlike.len() as u64) as usize];
        if let Some(path) = &before[origin] {
            let when = dice.below(spread);
            happens.insert((when, dice.next()), internet.withdrawal(origin));
            let back = internet.announcement(origin, path);
            happens.insert((when + 500_000, dice.next()), back);
        }
    }
    happens
}

fn play(
    listening: &mut Listening,
    happens: &BTreeMap<(u64, u64), Event>,
    (near, far): (usize, usize),
    lost: u32,
) -> Judged {
    let Listening {
        observer,
        feed,
        since,
    } = listening;
    let mut told: Vec<RoutingEvent> = Vec::new();
    let mut tick = 0;
    for ((when, _), event) in happens {
        while tick <= *when {
            observer.pass(at(since.as_unix_us() + tick));
            told.extend(observer.take_events());
            tick += 1_000_000;
        }
        observer.on(at(since.as_unix_us() + when), feed, event);
        told.extend(observer.take_events());
    }
    let links: Vec<_> = told
        .iter()
        .filter_map(|event| match &event.what {
            What::Link(link) => Some((event.at.as_unix_us() - since.as_unix_us(), link)),
            _ => None,
        })
        .collect();
    let is_right = |by: u64| {
        let (_, link) = links.iter().rfind(|(when, _)| *when <= by)?;
        Some((link.near, link.far) == (near as u32 + 1, far as u32 + 1))
    };
    Judged {
        lost,
        right: [1_000_000, 5_000_000, u64::MAX].map(is_right),
        told: links.len(),
    }
}
