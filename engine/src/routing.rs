//! Routing as evidence: what routers tell lowers weights within bounds, and ends a selection only when no way is left.
//!
//! Routing shows some failures before probes can, and it raises more false alarms than any probe. So it never
//! raises a weight; it lowers one by [`RoutingRules::max_factor`] at most; it expires; and nobody is left for it unless the
//! prefix by which a region is reached is *withdrawn*: feeds that can be believed took their last route to it away, and
//! nobody who judges shows another, nor one to a prefix that holds it or lies within it, nor,
//! if it is not declared but was learned, to any other prefix of the region. Seen over one link (from one region to another) one feed of that region is
//! enough: these are the routers that packets of this link go through. Seen from several regions, or when the region
//! itself hears no routers, feeds of two routers must agree: all that one router tells, in however many views, of however many
//! neighbours and to however many agents, may be one router's mistake.
//!
//! What befalls a feed is no evidence. Agents tell ([`leeward_common::bgp::Standing`]) whether a feed can be believed, and:
//!
//! ```text
//!   withdrawn ──▶ evidence ──▶ lowers the weight; with no route left, the gate `withdrawn`
//!                    │
//!                    └──▶ forgotten: a route is there again · the feed is lost, loads its table or is untrusted ·
//!                         the agent began anew · `lasts` has passed since the agent heard of it
//! ```
//!
//! What peers of route collectors elsewhere tell (RIS Live) is hearsay: nobody's packets to the region need go through them, and nobody
//! knows what else they have. It lowers a weight when several of them, of more than one collector, tell the same, and never forces
//! a move nor prevents one.
//!
//! A route that somebody shows counts until that very feed withdraws it. So a feed that is lost takes no route away, and
//! neither does one that is stuck: only withdrawals, told as events, make evidence; windows only ever end it. What a feed
//! showed before its trouble counts for the withdrawals of others too, until `lasts` has passed since that was known; and so does
//! what only a malformed attribute withdrew (RFC 7606).

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use leeward_common::{
    bgp::{
        Change, FeedChange, LeakSign, Outside, Prefix, PrefixWindow, Routing, RoutingEvent, Sight,
        Standing, What,
    },
    id::{AgentId, RegionId},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::{policy::RoutingRules, verdict::words::time_of_day};

mod judge;

pub use judge::{Observers, Outlook};

/// The most prefixes of all agents together that there is evidence about. What goes beyond is not remembered, which moves
/// nothing.
pub const MAX_ACCOUNTS: usize = 16_384;

/// The most prefixes of all agents together of which it is remembered that somebody shows a route: ten thousand of thirteen
/// agents. Of an agent of whom something is not remembered nobody knows what it shows, so nobody is left on the word of those
/// whom it stands beside.
pub const MAX_SEEN: usize = 131_072;

/// The most feeds of one agent that are told apart for one prefix; one more that withdraws it changes nothing.
pub const MAX_FEEDS: usize = 64;

/// The RFC 2439 figure of merit at which instability counts in full: two withdrawals within half a minute, and the value
/// at which routers with common settings suppress a route.
pub const FULL_PENALTY: f64 = 2_000.0;

/// So many successively longer paths of one feed count in full.
const FULL_EXPLORATION: f64 = 8.0;

/// What routers tell against regions.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct RoutingEvidence {
    /// What there is evidence about: by the region that is reached, its prefix, and the agent who hears of it.
    against: BTreeMap<RegionId, BTreeMap<Prefix, BTreeMap<AgentId, Account>>>,
    /// Who hears of what, and shows a route to it. Shared between copies, as each view is one.
    seen: BTreeMap<Prefix, Arc<BTreeMap<AgentId, Seen>>>,
    /// Agents who may show more than is remembered.
    #[serde(default)]
    partly: BTreeMap<AgentId, Partly>,
    /// How many [`Self::seen`] has; `None` if nobody counted since it shrank.
    #[serde(skip)]
    seen_count: Option<usize>,
    /// Counted up with whatever is said against anybody or no longer.
    #[serde(skip)]
    changes: u64,
}

/// What one agent hears against one prefix.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
struct Account {
    /// The agent's region.
    observer: RegionId,
    /// Whether nobody declared the prefix.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    learned: bool,
    /// Who withdrew their last route, by the feed's name.
    withdrawals: BTreeMap<String, Withdrawal>,
    /// How many feeds showed another route then, or have since; so do stuck ones, and those of which nobody knows.
    others: u32,
    /// What windows show, of all feeds together.
    signs: BTreeMap<Sign, Noted>,
    /// What feeds told, by their names.
    #[serde(default)]
    told: BTreeMap<Sign, BTreeMap<String, Noted>>,
    /// What peers of route collectors tell, by the feed's name.
    #[serde(default)]
    outside: BTreeMap<Sign, BTreeMap<String, Hearsay>>,
}

/// What a peer of a route collector tells.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
struct Hearsay {
    collector: String,
    noted: Noted,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
struct Withdrawal {
    at: Timestamp,
    source: IpAddr,
    path: String,
    /// Whether a malformed attribute made it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    malformed: bool,
}

/// What an agent who hears of a prefix knows of routes to it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
struct Seen {
    observer: RegionId,
    /// Who is reached by it; `None` of an older snapshot.
    #[serde(default)]
    region: Option<RegionId>,
    /// Whether one was shown last, and not withdrawn since.
    shows: bool,
    /// Since when its feeds show none although none was withdrawn; `None` while they do.
    lost_at: Option<Timestamp>,
}

/// An agent who may show more than is remembered.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Partly {
    /// Its region.
    observer: RegionId,
    /// Since when its process is another one, whose feeds need not be back yet; `None` if there was no room.
    begun_at: Option<Timestamp>,
}

/// What an agent tells of routes to a prefix.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Sees {
    /// There is one.
    Route,
    /// There is none, for whatever reason.
    Nothing,
    /// The last one was withdrawn.
    Withdrawal,
}

/// What is odd about a prefix that still has routes.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
enum Sign {
    Instability,
    Exploration,
    Origin,
    MoreSpecific,
    Blackhole,
    Shutdown,
    Invalid,
    Leak,
    /// Withdrawn elsewhere.
    Gone,
    FailedLink,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
struct Noted {
    at: Timestamp,
    /// 0..=1; 1 counts in full.
    severity: f64,
    words: String,
}

/// How much a route against the customers-only mark of its announcer counts, and a valley between systems at the top: the latter
/// is a guess about who they are to each other.
const MARKED: f64 = 1.0;
const VALLEY: f64 = 0.5;

impl RoutingEvidence {
    /// Takes in what an agent tells. True if the evidence is another one since.
    pub(crate) fn on_routing(
        &mut self,
        now: Timestamp,
        rules: &RoutingRules,
        agent: &AgentId,
        observer: &RegionId,
        routing: &Routing,
    ) -> bool {
        let before = self.changes;
        for event in &routing.events {
            self.on_event(now, rules, agent, observer, event);
        }
        for feed in &routing.feeds {
            if feed.standing != Standing::Believed {
                self.forget_feed(agent, &feed.feed, feed.collector.is_some());
            }
        }
        for window in &routing.windows {
            self.on_window(now, rules, agent, observer, window);
        }
        self.changes != before
    }

    fn on_event(
        &mut self,
        now: Timestamp,
        rules: &RoutingRules,
        agent: &AgentId,
        observer: &RegionId,
        event: &RoutingEvent,
    ) {
        let (prefix, region, change, sight, learned) = match &event.what {
            What::Feed(FeedChange::Loaded | FeedChange::Limited { .. }) | What::Link(_) => return,
            What::Feed(_) => {
                return self.forget_feed(agent, &event.feed, event.collector.is_some());
            }
            What::Prefix {
                prefix,
                region,
                change,
                sight,
                learned,
            } => (prefix, region, change, sight, *learned),
        };
        if let Some(collector) = &event.collector {
            let place = (region, prefix, agent);
            return self.on_hearsay(now, rules, place, observer, (event, collector));
        }
        let shown = sight.visible.saturating_add(sight.stuck);
        let mut others = shown.saturating_add(unsure(rules, event.at, sight));
        if let Change::Withdrawn {
            malformed: true, ..
        } = change
        {
            // The neighbour may still have it, whoever else does.
            others = others.max(1);
        }
        let sees = match (change, shown, others) {
            (Change::Withdrawn { .. }, 0, 0) => Sees::Withdrawal,
            (Change::Withdrawn { .. }, 0, _) => Sees::Nothing,
            _ => Sees::Route,
        };
        self.see(now, (region, prefix, agent), observer, sees);
        // Told late, after the agent was cut off: what it was like then is no evidence about now.
        let is_news = now.since(event.at) < rules.lasts;
        let place = (region, prefix, agent);
        let sign = match change {
            Change::Withdrawn { path, malformed } if is_news => {
                let withdrawal = Withdrawal {
                    at: now,
                    source: event.source,
                    path: path.clone(),
                    malformed: *malformed,
                };
                return self.withdraw(place, observer, (others, learned), &event.feed, withdrawal);
            }
            Change::Returned { .. } => {
                self.change(place, |own| {
                    own.withdrawals.remove(&event.feed);
                    own.others = own.others.max(others);
                });
                return;
            }
            _ if !is_news => return,
            _ => odd(prefix, change),
        };
        let Some((sign, severity, what)) = sign else {
            return;
        };
        let noted = Noted {
            at: now,
            severity: severity.clamp(0.0, 1.0),
            words: format!("{what}, by {} at {}", event.source, time_of_day(now)),
        };
        if let Some(own) = self.account(place, observer) {
            let told = own.told.entry(sign).or_default();
            if told.len() < MAX_FEEDS || told.contains_key(&event.feed) {
                told.insert(event.feed.clone(), noted);
            }
        }
    }

    /// Something happened that a peer of a route collector tells.
    fn on_hearsay(
        &mut self,
        now: Timestamp,
        rules: &RoutingRules,
        place: (&RegionId, &Prefix, &AgentId),
        observer: &RegionId,
        (event, collector): (&RoutingEvent, &str),
    ) {
        let What::Prefix { change, sight, .. } = &event.what else {
            return;
        };
        let feed = &event.feed;
        if let Change::Returned { .. } = change {
            self.change(place, |own| own.forget_hearsay(Sign::Gone, feed));
            return;
        }
        let outside = &sight.outside;
        let told = match change {
            Change::Withdrawn { path, .. } => {
                let gone = f64::from(outside.gone.max(1));
                let share = gone / (gone + f64::from(outside.visible));
                let path = match path.as_str() {
                    "" => String::new(),
                    path => format!(" (its path was {path})"),
                };
                Some((Sign::Gone, share, format!("withdrawn elsewhere{path}")))
            }
            change => odd(place.1, change),
        };
        let Some((sign, severity, what)) = told else {
            return;
        };
        if now.since(event.at) >= rules.lasts {
            return;
        }
        let Some(own) = self.account(place, observer) else {
            return;
        };
        let heard = own.outside.entry(sign).or_default();
        if heard.len() < MAX_FEEDS || heard.contains_key(feed) {
            let noted = Noted {
                at: now,
                severity: severity.clamp(0.0, 1.0),
                words: format!("{what}, by {feed} at {}", time_of_day(now)),
            };
            let collector = collector.to_owned();
            heard.insert(feed.clone(), Hearsay { collector, noted });
        }
    }

    fn on_window(
        &mut self,
        now: Timestamp,
        rules: &RoutingRules,
        agent: &AgentId,
        observer: &RegionId,
        window: &PrefixWindow,
    ) {
        let sight = &window.sight;
        let shown = sight.visible.saturating_add(sight.stuck);
        let end = window.start + Duration::from_micros(window.span_us);
        let others = shown.saturating_add(unsure(rules, end, sight));
        let sees = match shown {
            0 => Sees::Nothing,
            _ => Sees::Route,
        };
        // Who hears of it only by collectors elsewhere hears no routers.
        let is_known = || {
            let seen = self.seen.get(&window.prefix);
            seen.is_some_and(|of| of.contains_key(agent))
        };
        let only_elsewhere = sight.outside != Outside::default() && shown == 0 && sight.gone == 0;
        if !only_elsewhere || is_known() {
            self.see(now, (&window.region, &window.prefix, agent), observer, sees);
        }
        let place = (&window.region, &window.prefix, agent);
        self.change(place, |own| {
            own.others = own.others.max(others);
            if sight.gone == 0 {
                own.withdrawals.clear();
            }
        });
        let penalty = window.penalty_fast;
        let signs = [
            (
                Sign::Instability,
                f64::from(penalty) / FULL_PENALTY,
                format!("unstable, with a figure of merit of {penalty}"),
            ),
            (
                Sign::Blackhole,
                f64::from(u8::from(window.blackholed)),
                "its packets are asked to be thrown away (BLACKHOLE)".to_owned(),
            ),
            (
                Sign::Shutdown,
                f64::from(u8::from(window.shutting_down)),
                "its shutdown is announced (GRACEFUL_SHUTDOWN)".to_owned(),
            ),
        ];
        // These begin with an event only: what was so when an agent began to listen is no news.
        let ended = [
            (Sign::Invalid, window.validities.invalid()),
            (Sign::Leak, window.leaks.all()),
            (Sign::Gone, sight.outside.gone),
        ];
        for (sign, _) in ended.iter().filter(|(_, shown)| *shown == 0) {
            self.change(place, |own| {
                own.told.remove(sign);
                own.outside.remove(sign);
            });
        }
        if !window.over_failed_link {
            self.change(place, |own| drop(own.told.remove(&Sign::FailedLink)));
        }
        for (sign, severity, words) in signs {
            match severity > 0.0 {
                true => self.note(now, place, observer, sign, severity, words),
                false => self.change(place, |own| drop(own.signs.remove(&sign))),
            }
        }
    }

    fn withdraw(
        &mut self,
        place: (&RegionId, &Prefix, &AgentId),
        observer: &RegionId,
        (others, learned): (u32, bool),
        feed: &str,
        withdrawal: Withdrawal,
    ) {
        if let Some(own) = self.account(place, observer) {
            own.others = others;
            own.learned = learned;
            if own.withdrawals.len() < MAX_FEEDS || own.withdrawals.contains_key(feed) {
                own.withdrawals.insert(feed.to_owned(), withdrawal);
            }
        }
    }

    fn note(
        &mut self,
        at: Timestamp,
        place: (&RegionId, &Prefix, &AgentId),
        observer: &RegionId,
        sign: Sign,
        severity: f64,
        words: String,
    ) {
        let severity = severity.clamp(0.0, 1.0);
        if let Some(own) = self.account(place, observer) {
            let noted = Noted {
                at,
                severity,
                words,
            };
            own.signs.insert(sign, noted);
        }
    }

    /// What the agent knows of routes. That it shows none any more takes none away until it was withdrawn.
    fn see(
        &mut self,
        now: Timestamp,
        (region, prefix, agent): (&RegionId, &Prefix, &AgentId),
        observer: &RegionId,
        sees: Sees,
    ) {
        let known = self
            .seen
            .get(prefix)
            .is_some_and(|of| of.contains_key(agent));
        if !known {
            let all = &self.seen;
            let count = || all.values().map(|of| of.len()).sum();
            let count = *self.seen_count.get_or_insert_with(count);
            if count >= MAX_SEEN {
                let partly = Partly {
                    observer: observer.clone(),
                    begun_at: None,
                };
                let before = self.partly.insert(agent.clone(), partly);
                self.changes += u64::from(before.is_none());
                return;
            }
            self.seen_count = Some(count + 1);
        }
        let of = Arc::make_mut(self.seen.entry(*prefix).or_default());
        let own = of.entry(agent.clone()).or_insert_with(|| Seen {
            observer: observer.clone(),
            region: None,
            shows: false,
            lost_at: None,
        });
        if own.region.as_ref() != Some(region) {
            own.region = Some(region.clone());
        }
        match sees {
            Sees::Route => (own.shows, own.lost_at) = (true, None),
            Sees::Nothing => _ = own.lost_at.get_or_insert(now),
            Sees::Withdrawal => (own.shows, own.lost_at) = (false, None),
        }
    }

    /// The account of an agent about a prefix, a new one if there is room.
    fn account(
        &mut self,
        (region, prefix, agent): (&RegionId, &Prefix, &AgentId),
        observer: &RegionId,
    ) -> Option<&mut Account> {
        let of_region = self.against.get(region).and_then(|of| of.get(prefix));
        let is_known = of_region.is_some_and(|of| of.contains_key(agent));
        if !is_known && self.len() >= MAX_ACCOUNTS {
            return None;
        }
        self.changes += 1;
        let of = self.against.entry(region.clone()).or_default();
        let of = of.entry(*prefix).or_default();
        Some(of.entry(agent.clone()).or_insert_with(|| Account {
            observer: observer.clone(),
            learned: false,
            withdrawals: BTreeMap::new(),
            others: 0,
            signs: BTreeMap::new(),
            told: BTreeMap::new(),
            outside: BTreeMap::new(),
        }))
    }

    /// How many accounts there are.
    fn len(&self) -> usize {
        let of_prefixes = self.against.values().flat_map(BTreeMap::values);
        of_prefixes.map(BTreeMap::len).sum()
    }

    /// Changes an account, if there is one.
    fn change(
        &mut self,
        (region, prefix, agent): (&RegionId, &Prefix, &AgentId),
        change: impl FnOnce(&mut Account),
    ) {
        let Some(of_region) = self.against.get_mut(region) else {
            return;
        };
        let Some(of_prefix) = of_region.get_mut(prefix) else {
            return;
        };
        let Some(own) = of_prefix.get_mut(agent) else {
            return;
        };
        change(own);
        self.changes += 1;
        if own.is_empty() {
            of_prefix.remove(agent);
        }
        if of_prefix.is_empty() {
            of_region.remove(prefix);
        }
        if of_region.is_empty() {
            self.against.remove(region);
        }
    }

    /// A feed can no longer be believed: what it withdrew is not known any more, and what made a prefix look odd may have
    /// been it. What other feeds told stays, and what windows show ends with a window.
    fn forget_feed(&mut self, agent: &AgentId, feed: &str, is_outside: bool) {
        let mut any = false;
        self.retain(|of, own| {
            if of == agent {
                any |= !is_outside && own.withdrawals.remove(feed).is_some();
                let told = if is_outside {
                    forget(&mut own.outside, feed)
                } else {
                    forget(&mut own.told, feed)
                };
                any |= told;
            }
            true
        });
        self.changes += u64::from(any);
    }

    /// The agent began anew: what it heard before is gone with its sessions. True if there was evidence. For a while its routers
    /// may show what it does not tell yet.
    pub(crate) fn forget_agent(&mut self, now: Timestamp, agent: &AgentId) -> bool {
        let mut seen = self.seen.values().filter_map(|of| of.get(agent));
        let showed = seen.find(|own| own.shows);
        let observer = showed.map(|own| own.observer.clone());
        let before = self.partly.remove(agent).map(|own| own.observer);
        if let Some(observer) = observer.or(before) {
            let begun_at = Some(now);
            self.partly
                .insert(agent.clone(), Partly { observer, begun_at });
        }
        self.retain_seen(|of, _| of != agent);
        self.retain(|of, _| of != agent)
    }

    /// Forgets what is too old. True if there was any such evidence.
    pub(crate) fn expire(&mut self, now: Timestamp, rules: &RoutingRules) -> bool {
        let is_fresh = |at: Timestamp| at + rules.lasts > now;
        if self.next_expiry(rules).is_none_or(|at| at > now) {
            return false;
        }
        self.retain_seen(|_, seen| seen.lost_at.is_none_or(is_fresh));
        self.partly
            .retain(|_, own| own.begun_at.is_none_or(is_fresh));
        let mut expired = false;
        self.retain(|_, own| {
            let before = own.times().count();
            own.withdrawals.retain(|_, own| is_fresh(own.at));
            own.signs.retain(|_, own| is_fresh(own.at));
            own.told.retain(|_, told| {
                told.retain(|_, own| is_fresh(own.at));
                !told.is_empty()
            });
            own.outside.retain(|_, heard| {
                heard.retain(|_, own| is_fresh(own.noted.at));
                !heard.is_empty()
            });
            expired |= own.times().count() < before;
            true
        });
        expired
    }

    /// When the next thing expires.
    pub(crate) fn next_expiry(&self, rules: &RoutingRules) -> Option<Timestamp> {
        let seen = self.seen.values().flat_map(|of| of.values());
        let told = self.accounts().flat_map(Account::times);
        let lost = seen.filter_map(|seen| seen.lost_at);
        let begun = self.partly.values().filter_map(|own| own.begun_at);
        let first = told.chain(lost).chain(begun).min();
        first.map(|at| at + rules.lasts)
    }

    fn accounts(&self) -> impl Iterator<Item = &Account> {
        let of_prefixes = self.against.values().flat_map(BTreeMap::values);
        of_prefixes.flat_map(BTreeMap::values)
    }

    fn retain_seen(&mut self, keep: impl Fn(&AgentId, &Seen) -> bool) {
        self.seen_count = None;
        self.seen.retain(|_, of| {
            if !of.iter().all(|(agent, own)| keep(agent, own)) {
                Arc::make_mut(of).retain(|agent, own| keep(agent, own));
            }
            !of.is_empty()
        });
    }

    /// Keeps what is to be kept and says anything. True if anything was given up.
    fn retain(&mut self, mut keep: impl FnMut(&AgentId, &mut Account) -> bool) -> bool {
        let before = self.len();
        self.against.retain(|_, of| {
            of.retain(|_, of| {
                of.retain(|agent, own| keep(agent, own) && !own.is_empty());
                !of.is_empty()
            });
            !of.is_empty()
        });
        self.len() < before
    }
}

impl Account {
    /// Which share of the feeds that had a route withdrew it.
    fn share(&self) -> f64 {
        let gone = self.withdrawals.len() as f64;
        gone / (gone + f64::from(self.others))
    }

    /// The routers and peers that withdrew it; those that only their agent can mean by their address, with the agent.
    fn sources<'a>(
        &'a self,
        agent: &'a AgentId,
    ) -> impl Iterator<Item = (Option<&'a AgentId>, IpAddr)> {
        let sources = self.withdrawals.values().map(|own| own.source);
        sources.map(move |source| (is_local(source).then_some(agent), source))
    }

    fn is_empty(&self) -> bool {
        self.withdrawals.is_empty()
            && self.signs.is_empty()
            && self.told.is_empty()
            && self.outside.is_empty()
    }

    fn forget_hearsay(&mut self, sign: Sign, feed: &str) {
        if let Some(heard) = self.outside.get_mut(&sign) {
            heard.remove(feed);
            if heard.is_empty() {
                self.outside.remove(&sign);
            }
        }
    }

    fn times(&self) -> impl Iterator<Item = Timestamp> {
        let withdrawn = self.withdrawals.values().map(|own| own.at);
        let heard = self.outside.values().flat_map(BTreeMap::values);
        let told = self.told.values().flat_map(BTreeMap::values);
        withdrawn
            .chain(self.signs.values().chain(told).map(|own| own.at))
            .chain(heard.map(|own| own.noted.at))
    }
}

/// Whether an address means another router on every host or link.
fn is_local(source: IpAddr) -> bool {
    match source {
        IpAddr::V4(source) => source.is_loopback() || source.is_link_local(),
        IpAddr::V6(source) => source.is_loopback() || source.is_unicast_link_local(),
    }
}

/// Forgets what a feed told. True if it told anything.
fn forget<T>(told: &mut BTreeMap<Sign, BTreeMap<String, T>>, feed: &str) -> bool {
    let mut any = false;
    told.retain(|_, of| {
        any |= of.remove(feed).is_some();
        !of.is_empty()
    });
    any
}

/// How many feeds may have a route of which nobody knows, by what an agent knew at this time of its clock. That they had one
/// counts no longer than anything that was told.
fn unsure(rules: &RoutingRules, at: Timestamp, sight: &Sight) -> u32 {
    match at.since(sight.unsure.known_at) < rules.lasts {
        true => sight.unsure.feeds,
        false => 0,
    }
}

/// What is odd about a change while there are routes, how much, and in words.
fn odd(prefix: &Prefix, change: &Change) -> Option<(Sign, f64, String)> {
    Some(match change {
        Change::Withdrawn { .. } | Change::Returned { .. } => return None,
        Change::Exploring { paths, .. } => (
            Sign::Exploration,
            f64::from(*paths) / FULL_EXPLORATION,
            format!("{paths} successively longer paths"),
        ),
        Change::OriginChanged { from, to } => (
            Sign::Origin,
            1.0,
            format!(
                "its origin changed from {} to {}",
                system(*from),
                system(*to)
            ),
        ),
        Change::MoreSpecific(part) => (
            Sign::MoreSpecific,
            1.0,
            format!(
                "{} came up within it, from {}",
                part.prefix,
                system(part.origin)
            ),
        ),
        // Like a stranger's part of it: nothing but time says that it is over.
        Change::Invalid(invalid) if invalid.prefix != *prefix => {
            (Sign::MoreSpecific, 1.0, invalid.to_string())
        }
        Change::Invalid(invalid) => (Sign::Invalid, 1.0, invalid.to_string()),
        Change::OverFailedLink(link) => (
            Sign::FailedLink,
            f64::from(link.fit_permille) / 1_000.0,
            format!(
                "its route goes over AS{}-AS{}, which most likely failed ({} routes over it are lost, {} remain)",
                link.near, link.far, link.lost, link.remaining
            ),
        ),
        Change::Leaked { sign, path } => {
            let severity = match sign {
                LeakSign::OnlyToCustomer { .. } => MARKED,
                LeakSign::Valley { .. } => VALLEY,
            };
            let words = format!("it looks leaked: {sign} (its path is {path})");
            (Sign::Leak, severity, words)
        }
    })
}

fn system(system: Option<u32>) -> String {
    system.map_or_else(|| "nobody".to_owned(), |system| format!("AS{system}"))
}

#[cfg(test)]
#[path = "routing/tests.rs"]
mod tests;
