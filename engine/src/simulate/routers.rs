//! Routers in virtual time: what feeds say of watched prefixes, told as an agent tells it.
//!
//! Agents tell changes at once, with who sees the prefix since; a window follows when somebody sees it differently or it
//! is unstable. Only feeds that can be believed count, as with real agents.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use leeward_common::{
    bgp::{
        Allowed, Change, Counts, FeedChange, FeedState, Invalid, LeakSign, Leaks, Prefix,
        PrefixWindow, Routing, RoutingEvent, Sight, Standing, Validities, Validity, What,
    },
    id::{AgentId, RegionId},
    time::Timestamp,
};

use super::START;
use crate::scenario::{Feed, RoutingAction, RoutingChange, Scenario};

/// The length that windows say.
const WINDOW_US: u64 = 10_000_000;

/// Every feed of a scenario.
#[derive(Debug, Default)]
pub(super) struct Routers {
    feeds: BTreeMap<String, Known>,
    watched: BTreeMap<Prefix, RegionId>,
}

#[derive(Debug)]
struct Known {
    feed: Feed,
    standing: Standing,
    /// Since when.
    since: Timestamp,
    routes: BTreeMap<Prefix, Route>,
}

/// What a feed says of a prefix.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Route {
    Present,
    Invalid,
    Leaked,
    Withdrawn,
    Stuck,
}

impl Routers {
    pub(super) fn new(scenario: &Scenario) -> Self {
        let routes = scenario.prefixes.keys();
        let routes: BTreeMap<_, _> = routes.map(|prefix| (*prefix, Route::Present)).collect();
        let known = |(id, feed): (&String, &Feed)| {
            let known = Known {
                feed: feed.clone(),
                standing: Standing::Believed,
                since: START,
                routes: routes.clone(),
            };
            (id.clone(), known)
        };
        Self {
            feeds: scenario.feeds.iter().map(known).collect(),
            watched: scenario.prefixes.clone(),
        }
    }

    /// What agents tell first.
    pub(super) fn first(&self) -> Vec<(AgentId, Routing)> {
        let agents = self.feeds.values().map(|own| &own.feed.agent);
        let agents: BTreeSet<_> = agents.collect();
        agents
            .into_iter()
            .map(|agent| (agent.clone(), self.account(START, agent, None)))
            .collect()
    }

    /// The agent begins anew: its sessions come up and its tables are transferred.
    pub(super) fn restart(&mut self, at: Timestamp, agent: &AgentId) -> Routing {
        let mut events = Vec::new();
        for (id, known) in &mut self.feeds {
            if known.feed.agent == *agent {
                (known.standing, known.since) = (Standing::Believed, at);
                for change in [FeedChange::Up, FeedChange::Loaded] {
                    events.push(event(at, id, known.feed.source, What::Feed(change)));
                }
            }
        }
        Routing {
            events,
            ..self.account(at, agent, None)
        }
    }

    /// What agents tell of what happens, one after the other.
    pub(super) fn happen(
        &mut self,
        at: Timestamp,
        action: &RoutingAction,
    ) -> Vec<(AgentId, Routing)> {
        let prefixes: Vec<_> = match action.prefixes.is_empty() {
            true => self.watched.keys().copied().collect(),
            false => action.prefixes.clone(),
        };
        let mut told: BTreeMap<AgentId, Vec<RoutingEvent>> = BTreeMap::new();
        for id in &action.feeds {
            let events = self.happen_to(at, id, action.change, &prefixes);
            if let Some(known) = self.feeds.get(id) {
                let told = told.entry(known.feed.agent.clone()).or_default();
                told.extend(events);
            }
        }
        let unstable = match action.change {
            RoutingChange::Unstable(penalty) => Some((penalty, prefixes.as_slice())),
            _ => None,
        };
        // A withdrawal is told without a window: that ends later.
        let at_once = |events: &[RoutingEvent]| {
            let of_prefix = |own: &RoutingEvent| matches!(own.what, What::Prefix { .. });
            events.iter().any(of_prefix)
        };
        let report = |(agent, events): (AgentId, Vec<RoutingEvent>)| {
            let account = match at_once(&events) {
                true => Routing::default(),
                false => self.account(at, &agent, unstable),
            };
            (agent, Routing { events, ..account })
        };
        told.into_iter().map(report).collect()
    }

    fn happen_to(
        &mut self,
        at: Timestamp,
        id: &str,
        change: RoutingChange,
        prefixes: &[Prefix],
    ) -> Vec<RoutingEvent> {
        let Some(known) = self.feeds.get_mut(id) else {
            return Vec::new();
        };
        let (source, path) = (known.feed.source, known.feed.path.clone());
        let of_feed = |change| vec![event(at, id, source, What::Feed(change))];
        match change {
            RoutingChange::Lost => {
                (known.standing, known.since) = (Standing::Lost, at);
                let had = known.routes.values().filter(|own| **own == Route::Present);
                let watched = had.count() as u32;
                return of_feed(FeedChange::Down {
                    why: "the session ended".to_owned(),
                    watched,
                });
            }
            RoutingChange::Up => {
                known.standing = Standing::Loading;
                known
                    .routes
                    .values_mut()
                    .for_each(|own| *own = Route::Present);
                return of_feed(FeedChange::Up);
            }
            RoutingChange::Loaded => {
                known.standing = Standing::Believed;
                return of_feed(FeedChange::Loaded);
            }
            RoutingChange::Fabricating => {
                (known.standing, known.since) = (Standing::Untrusted, at);
                return of_feed(FeedChange::Untrusted { fabricated: 3 });
            }
            RoutingChange::Unstable(_) => return Vec::new(),
            _ => {}
        }
        let mut events = Vec::new();
        for prefix in prefixes {
            let change = match change {
                RoutingChange::Returned => Change::Returned { path: path.clone() },
                RoutingChange::Exploring(paths) => Change::Exploring {
                    paths,
                    path: path.clone(),
                },
                RoutingChange::Origin(to) => Change::OriginChanged {
                    from: origin(&path),
                    to: Some(to),
                },
                RoutingChange::Stuck => {
                    self.show(id, prefix, Route::Stuck);
                    continue;
                }
                // What routes look like ends with a window, not with an event.
                RoutingChange::Usual => {
                    self.show(id, prefix, Route::Present);
                    continue;
                }
                RoutingChange::Invalid(to) => Change::Invalid(Invalid {
                    prefix: *prefix,
                    origin: Some(to),
                    was: Some(Validity::Valid),
                    is: Validity::InvalidOrigin,
                    allowed: origin(&path)
                        .map(|system| Allowed {
                            prefix: *prefix,
                            length_max: prefix.length(),
                            system,
                        })
                        .into_iter()
                        .collect(),
                }),
                RoutingChange::Leaked => Change::Leaked {
                    sign: LeakSign::Valley {
                        upper: 64_601,
                        through: 64_602,
                        lower: 64_603,
                    },
                    path: path.clone(),
                },
                _ => Change::Withdrawn {
                    path: path.clone(),
                    malformed: false,
                },
            };
            let route = match change {
                Change::Withdrawn { .. } => Route::Withdrawn,
                Change::Invalid(_) => Route::Invalid,
                Change::Leaked { .. } => Route::Leaked,
                _ => Route::Present,
            };
            self.show(id, prefix, route);
            let believed = |own: &Known| own.standing == Standing::Believed;
            if self.feeds.get(id).is_some_and(believed)
                && let Some(region) = self.watched.get(prefix)
            {
                let what = What::Prefix {
                    prefix: *prefix,
                    region: region.clone(),
                    change,
                    sight: self.sight(at, id, prefix),
                    learned: false,
                };
                events.push(event(at, id, source, what));
            }
        }
        events
    }

    fn show(&mut self, id: &str, prefix: &Prefix, route: Route) {
        if let Some(known) = self.feeds.get_mut(id) {
            known.routes.insert(*prefix, route);
        }
    }

    /// Who sees a prefix, of the feeds of the agent that hears this one.
    fn sight(&self, at: Timestamp, id: &str, prefix: &Prefix) -> Sight {
        let agent = self.feeds.get(id).map(|known| &known.feed.agent);
        agent.map_or_else(Sight::default, |agent| self.sight_of(at, agent, prefix))
    }

    fn sight_of(&self, at: Timestamp, agent: &AgentId, prefix: &Prefix) -> Sight {
        let mut sight = Sight::default();
        let mut gone = BTreeSet::new();
        let feeds = self.feeds.values();
        for own in feeds.filter(|own| own.feed.agent == *agent) {
            let route = own.routes.get(prefix);
            match own.standing {
                Standing::Believed => {}
                _ if matches!(route, None | Some(Route::Withdrawn)) => continue,
                Standing::Loading => {
                    sight.unsure.add(at);
                    continue;
                }
                Standing::Lost | Standing::Untrusted => {
                    sight.unsure.add(own.since);
                    continue;
                }
            }
            match route {
                Some(Route::Present | Route::Invalid | Route::Leaked) => sight.visible += 1,
                Some(Route::Stuck) => sight.stuck += 1,
                Some(Route::Withdrawn) => {
                    sight.gone += 1;
                    gone.insert(own.feed.source);
                }
                None => {}
            }
        }
        sight.gone_sources = gone.len() as u32;
        sight
    }

    /// How many feeds of an agent that can be believed show such a route.
    fn looking(&self, agent: &AgentId, prefix: &Prefix, route: Route) -> u32 {
        let feeds = self.feeds.values().filter(|own| {
            own.feed.agent == *agent
                && own.standing == Standing::Believed
                && own.routes.get(prefix) == Some(&route)
        });
        feeds.count() as u32
    }

    /// The windows and the feeds of an agent; some prefixes with a figure of merit.
    fn account(
        &self,
        at: Timestamp,
        agent: &AgentId,
        unstable: Option<(u32, &[Prefix])>,
    ) -> Routing {
        let penalty = |prefix: &Prefix| match unstable {
            Some((penalty, prefixes)) if prefixes.contains(prefix) => penalty,
            _ => 0,
        };
        let window = |(prefix, region): (&Prefix, &RegionId)| PrefixWindow {
            prefix: *prefix,
            region: region.clone(),
            start: at,
            span_us: WINDOW_US,
            counts: Counts::default(),
            longer_max: 0,
            edit_distance_max: 0,
            exploration_max: 0,
            penalty_fast: penalty(prefix),
            penalty_slow: penalty(prefix),
            origins: Vec::new(),
            more_specifics: Vec::new(),
            blackholed: false,
            shutting_down: false,
            sight: self.sight_of(at, agent, prefix),
            validities: Validities {
                invalid_origin: self.looking(agent, prefix, Route::Invalid),
                ..Validities::default()
            },
            leaks: Leaks {
                valley: self.looking(agent, prefix, Route::Leaked),
                ..Leaks::default()
            },
            over_failed_link: false,
            learned: false,
        };
        let mine = self
            .feeds
            .iter()
            .filter(|(_, own)| own.feed.agent == *agent);
        let feed = |(id, own): (&String, &Known)| FeedState {
            feed: id.clone(),
            source: own.feed.source,
            system: 0,
            standing: own.standing,
            since: START,
            updates: 0,
            announced: 0,
            withdrawn: 0,
            fabricated: 0,
            collector: None,
        };
        Routing {
            events: Vec::new(),
            windows: self.watched.iter().map(window).collect(),
            feeds: mine.map(feed).collect(),
        }
    }
}

/// The last system of a path.
fn origin(path: &str) -> Option<u32> {
    path.split(' ').next_back()?.parse().ok()
}

fn event(at: Timestamp, feed: &str, source: IpAddr, what: What) -> RoutingEvent {
    RoutingEvent {
        at,
        feed: feed.to_owned(),
        source,
        what,
        collector: None,
    }
}
