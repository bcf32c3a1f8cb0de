//! What one feed says about one watched prefix, and what changes.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use leeward_common::time::Timestamp;

use super::{
    penalty::{self, Penalty},
    update::{AsPath, Attributes},
};

/// A path that stood for this long is the one that others are compared with.
pub const SETTLED: Duration = Duration::from_secs(60);

/// Longer paths within this time of each other are one exploration: convergence after a withdrawal takes two minutes on
/// average.
pub const EXPLORATION: Duration = Duration::from_secs(120);

/// The most routes to one prefix that are kept of one feed (RFC 7911). More are not followed.
pub const PATHS_MAX: usize = 8;

/// Whether a feed has a route.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Standing {
    /// It said nothing about the prefix on this session.
    #[default]
    Unknown,
    /// It has one.
    Present,
    /// It had one and withdrew it.
    Withdrawn,
}

/// One feed's view of one prefix.
#[derive(Clone, Debug, Default)]
pub struct Route {
    /// The session of the feed that this is true on.
    epoch: u32,
    standing: Standing,
    /// Since when it stands so, or has its path.
    since: Timestamp,
    paths: Vec<(u32, Arc<Attributes>)>,
    settled: Option<AsPath>,
    explored: VecDeque<Timestamp>,
    fast: Penalty,
    slow: Penalty,
    /// Whether it had a route when the session before ended.
    was_present: bool,
    /// Whether it has, or had, more routes on this session than are kept.
    is_partial: bool,
    /// Path identifiers of routes that only a malformed attribute withdrew (RFC 7606): the neighbour may have them.
    doubtful: Vec<u32>,
    /// Whether most others withdrew theirs long ago.
    pub is_stuck: bool,
}

/// What an announcement changed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Announced {
    /// It is the first route on this session, be it later than its table: there is nothing that it changed.
    First,
    /// Nothing.
    Same,
    /// It is one more route beside others.
    More,
    /// It is one more than are kept.
    Beyond,
    /// Attributes other than the path.
    Attributes,
    /// The path, or the prefix is back.
    Path(PathChange),
}

/// How a path differs from the one before.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PathChange {
    /// Whether the route had been withdrawn.
    pub returned: bool,
    /// The origin before and now, if they differ.
    pub origin: Option<(Option<u32>, Option<u32>)>,
    /// How many hops longer it is than the path that was settled; 0 if it is not.
    pub longer: u32,
    /// In how many hops it differs from that.
    pub edit_distance: u32,
    /// The how manieth of successively longer paths it is.
    pub explored: u32,
}

/// What a withdrawal changed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Withdrawn {
    /// There was no route on this session.
    Fabricated,
    /// It was withdrawn already.
    Again,
    /// The same, but malformed attributes alone had done so, to the last of its routes. This was its path, if that is known.
    Meant(AsPath),
    /// There are others.
    Fewer,
    /// It was the last; this was its path.
    Last(AsPath),
    /// The same of a route that was stuck.
    Stuck,
}

impl Route {
    /// Looks at it on this session of the feed. What an earlier one said is no longer true.
    pub fn on(&mut self, epoch: u32) -> &mut Self {
        if self.epoch != epoch {
            self.was_present |= self.standing == Standing::Present;
            self.epoch = epoch;
            self.standing = Standing::Unknown;
            self.paths.clear();
            self.settled = None;
            self.explored.clear();
            self.is_stuck = false;
            self.is_partial = false;
            self.doubtful.clear();
        }
        self
    }

    /// Whether the neighbour may have a route, as only a malformed attribute withdrew one.
    #[must_use]
    pub const fn is_doubtful(&self) -> bool {
        !self.doubtful.is_empty()
    }

    /// Whether there is a route on this session.
    #[must_use]
    pub fn standing(&self, epoch: u32) -> Standing {
        match self.epoch == epoch {
            true => self.standing,
            false => Standing::Unknown,
        }
    }

    /// Since when it stands so.
    #[must_use]
    pub const fn since(&self) -> Timestamp {
        self.since
    }

    /// The attributes of the route that speaks for all: the one with the lowest path identifier.
    #[must_use]
    pub fn attributes(&self) -> Option<&Attributes> {
        self.paths.first().map(|(_, attributes)| &**attributes)
    }

    /// The same, shared.
    #[must_use]
    pub fn shared(&self) -> Option<Arc<Attributes>> {
        self.paths.first().map(|(_, attributes)| attributes.clone())
    }

    /// About how many bytes it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let paths = self
            .paths
            .iter()
            .map(|(_, attributes)| attributes.bytes() + 16);
        let settled = self
            .settled
            .as_ref()
            .map_or(0, |path| size_of_val(path.hops()));
        size_of::<Self>()
            + 16
            + paths.sum::<usize>()
            + settled
            + self.explored.len() * 8
            + self.doubtful.len() * 4
    }

    /// The higher of what its routes accumulated, with both half-lives.
    #[must_use]
    pub fn penalties(&self, now: Timestamp) -> (f64, f64) {
        (
            self.fast.value(now, penalty::FAST),
            self.slow.value(now, penalty::SLOW),
        )
    }

    /// The whole table of this session is there; what it does not show it no longer has.
    pub fn table_is_there(&mut self, now: Timestamp, epoch: u32) {
        self.on(epoch);
        if self.standing == Standing::Unknown && self.was_present {
            self.standing = Standing::Withdrawn;
            self.since = now;
        }
        self.was_present = false;
    }

    /// A route is announced. `counts` is whether the feed may be believed.
    pub fn announce(
        &mut self,
        now: Timestamp,
        path_id: u32,
        attributes: &Arc<Attributes>,
        counts: bool,
    ) -> Announced {
        let place = self.paths.binary_search_by_key(&path_id, |(id, _)| *id);
        self.doubtful.retain(|own| *own != path_id);
        // What a table lacks was withdrawn by nobody, so nothing is known that it could be compared with.
        let is_late = self.standing == Standing::Withdrawn && self.settled.is_none();
        if self.standing == Standing::Unknown || is_late {
            self.paths = vec![(path_id, attributes.clone())];
            self.stand(now, Standing::Present);
            return Announced::First;
        }
        let place = match place {
            Ok(place) => place,
            Err(_) if self.paths.len() >= PATHS_MAX => {
                self.is_partial = true;
                return Announced::Beyond;
            }
            Err(place) => {
                self.paths.insert(place, (path_id, attributes.clone()));
                if self.standing == Standing::Present {
                    return Announced::More;
                }
                let change = self.change(now, &AsPath::default(), &attributes.path, true, counts);
                self.stand(now, Standing::Present);
                return Announced::Path(change);
            }
        };
        let before = std::mem::replace(&mut self.paths[place].1, attributes.clone());
        if before == *attributes {
            return Announced::Same;
        }
        self.is_stuck = false;
        if before.path == attributes.path {
            return Announced::Attributes;
        }
        let change = self.change(now, &before.path, &attributes.path, false, counts);
        self.since = now;
        Announced::Path(change)
    }

    /// A route is withdrawn, or only a malformed attribute makes it so.
    pub fn withdraw(
        &mut self,
        now: Timestamp,
        path_id: u32,
        malformed: bool,
        counts: bool,
    ) -> Withdrawn {
        let was_doubtful = self.is_doubtful();
        if !malformed {
            self.doubtful.retain(|own| *own != path_id);
        }
        match self.standing {
            // It may be one of those that were not kept.
            Standing::Unknown if self.is_partial => return Withdrawn::Again,
            Standing::Unknown => return Withdrawn::Fabricated,
            Standing::Withdrawn if was_doubtful && !self.is_doubtful() => {
                return Withdrawn::Meant(self.settled.clone().unwrap_or_default());
            }
            Standing::Withdrawn => return Withdrawn::Again,
            Standing::Present => {}
        }
        let Ok(place) = self.paths.binary_search_by_key(&path_id, |(id, _)| *id) else {
            // Of a route that was not kept, or never there.
            return Withdrawn::Again;
        };
        let (_, attributes) = self.paths.remove(place);
        if malformed && self.doubtful.len() < PATHS_MAX {
            self.doubtful.push(path_id);
        } else if malformed {
            self.is_partial = true;
        }
        if !self.paths.is_empty() {
            return Withdrawn::Fewer;
        }
        if self.is_partial {
            // Whether one of those that were not kept is still there nobody knows.
            self.is_stuck = false;
            self.stand(now, Standing::Unknown);
            return Withdrawn::Fewer;
        }
        self.settle(now, &attributes.path);
        let was_stuck = std::mem::take(&mut self.is_stuck);
        self.stand(now, Standing::Withdrawn);
        if was_stuck {
            return Withdrawn::Stuck;
        }
        if counts {
            self.penalize(now, penalty::WITHDRAWAL);
        }
        Withdrawn::Last(attributes.path.clone())
    }

    /// There is no room for what it has: nothing is known of it on this session any more.
    pub fn give_up(&mut self, now: Timestamp) {
        self.paths = Vec::new();
        self.settled = None;
        self.explored = VecDeque::new();
        self.is_stuck = false;
        self.is_partial = true;
        self.stand(now, Standing::Unknown);
    }

    fn stand(&mut self, now: Timestamp, standing: Standing) {
        self.standing = standing;
        self.since = now;
    }

    /// The path that stood until now is what later ones are compared with, if it stood long enough.
    fn settle(&mut self, now: Timestamp, path: &AsPath) {
        if self.settled.is_none() || now.since(self.since) >= SETTLED {
            self.settled = Some(path.clone());
        }
    }

    fn change(
        &mut self,
        now: Timestamp,
        from: &AsPath,
        to: &AsPath,
        returned: bool,
        counts: bool,
    ) -> PathChange {
        if !returned {
            self.settle(now, from);
        }
        let base = self.settled.as_ref().unwrap_or(from);
        let change = PathChange {
            returned,
            origin: (!returned && from.origin() != to.origin()
                || returned && base.origin() != to.origin())
            .then(|| (base_origin(returned, base, from), to.origin())),
            longer: to.length().saturating_sub(base.length()),
            edit_distance: base.edit_distance(to),
            explored: 0,
        };
        if !counts {
            self.explored.clear();
            return change;
        }
        while self
            .explored
            .front()
            .is_some_and(|at| now.since(*at) > EXPLORATION)
        {
            self.explored.pop_front();
        }
        if to.length() > from.length() && !returned {
            if self.explored.len() == PATHS_MAX {
                self.explored.pop_front();
            }
            self.explored.push_back(now);
        }
        if !returned {
            self.penalize(now, penalty::CHANGE);
        }
        PathChange {
            explored: u32::try_from(self.explored.len()).unwrap_or(u32::MAX),
            ..change
        }
    }

    fn penalize(&mut self, now: Timestamp, what: f64) {
        self.fast.add(now, penalty::FAST, what);
        self.slow.add(now, penalty::SLOW, what);
    }
}

fn base_origin(returned: bool, base: &AsPath, from: &AsPath) -> Option<u32> {
    match returned {
        true => base.origin(),
        false => from.origin(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_unix_us(secs * 1_000_000)
    }

    fn path(systems: &[u32]) -> Arc<Attributes> {
        Arc::new(Attributes {
            path: AsPath::sequence(systems),
            ..Attributes::default()
        })
    }

    fn announced(route: &mut Route, secs: u64, systems: &[u32]) -> Announced {
        route.announce(at(secs), 0, &path(systems), true)
    }

    #[test]
    fn the_first_route_of_a_session_changes_nothing() {
        let mut route = Route::default();
        assert_eq!(announced(&mut route, 0, &[1, 2]), Announced::First);
        assert_eq!(announced(&mut route, 1, &[1, 2]), Announced::Same);
        assert_eq!(announced(route.on(1), 2, &[1, 9, 2]), Announced::First);
        assert_eq!(route.penalties(at(2)), (0.0, 0.0));
    }

    #[test]
    fn paths_that_grow_are_explored_and_the_settled_one_is_the_measure() {
        let mut route = Route::default();
        announced(&mut route, 0, &[1, 2]);
        let Announced::Path(first) = announced(&mut route, 100, &[1, 3, 2]) else {
            panic!("no change");
        };
        let Announced::Path(second) = announced(&mut route, 110, &[1, 3, 4, 2]) else {
            panic!("no change");
        };
        assert_eq!(
            (first.longer, first.edit_distance, first.explored),
            (1, 1, 1)
        );
        assert_eq!(
            (second.longer, second.edit_distance, second.explored),
            (2, 2, 2)
        );
        let Announced::Path(later) = announced(&mut route, 500, &[1, 3, 4, 5, 2]) else {
            panic!("no change");
        };
        assert_eq!((later.longer, later.explored), (1, 1));
    }

    #[test]
    fn what_was_never_announced_is_withdrawn_by_nobody() {
        let mut route = Route::default();
        assert_eq!(route.withdraw(at(0), 0, false, true), Withdrawn::Fabricated);
        announced(&mut route, 1, &[1]);
        assert_eq!(
            route.withdraw(at(2), 0, false, true),
            Withdrawn::Last(AsPath::sequence(&[1]))
        );
        assert_eq!(route.withdraw(at(3), 0, false, true), Withdrawn::Again);
        assert_eq!(route.penalties(at(2)).1, 1_000.0);
    }

    #[test]
    fn another_origin_is_told_of_a_change_and_of_a_return() {
        let mut route = Route::default();
        announced(&mut route, 0, &[1, 2]);
        let Announced::Path(change) = announced(&mut route, 1, &[1, 3]) else {
            panic!("no change");
        };
        assert_eq!(change.origin, Some((Some(2), Some(3))));
        route.withdraw(at(200), 0, false, true);
        let Announced::Path(change) = announced(&mut route, 201, &[1, 2]) else {
            panic!("no change");
        };
        assert_eq!(
            (change.returned, change.origin),
            (true, Some((Some(3), Some(2))))
        );
    }

    #[test]
    fn of_several_routes_the_last_one_withdrawn_is_the_withdrawal() {
        let mut route = Route::default();
        announced(&mut route, 0, &[1]);
        assert_eq!(route.announce(at(1), 7, &path(&[2]), true), Announced::More);
        assert_eq!(route.withdraw(at(2), 0, false, true), Withdrawn::Fewer);
        assert_eq!(route.withdraw(at(2), 3, false, true), Withdrawn::Again);
        assert_eq!(
            route.withdraw(at(2), 7, false, true),
            Withdrawn::Last(AsPath::sequence(&[2]))
        );
    }

    #[test]
    fn a_malformed_attribute_leaves_it_open_until_the_route_is_withdrawn_in_earnest() {
        let mut route = Route::default();
        let last = Withdrawn::Last(AsPath::sequence(&[2]));
        announced(&mut route, 0, &[1]);
        route.announce(at(1), 7, &path(&[2]), true);
        assert_eq!(route.withdraw(at(2), 0, true, true), Withdrawn::Fewer);
        assert_eq!(route.withdraw(at(2), 7, false, true), last);
        assert!(route.is_doubtful());
        for (id, malformed) in [(7, false), (0, true)] {
            let again = route.withdraw(at(3), id, malformed, true);
            assert_eq!(again, Withdrawn::Again);
        }
        let meant = route.withdraw(at(4), 0, false, true);
        assert!(matches!(meant, Withdrawn::Meant(_)), "{meant:?}");
        assert!(!route.is_doubtful());
        let again = route.withdraw(at(5), 0, false, true);
        assert_eq!(again, Withdrawn::Again);
        // Announced once more, or on another session, it is as if nothing had been.
        announced(&mut route, 6, &[2]);
        route.withdraw(at(7), 0, true, true);
        announced(&mut route, 8, &[2]);
        assert_eq!(route.withdraw(at(9), 0, false, true), last);
        announced(&mut route, 10, &[2]);
        route.withdraw(at(11), 0, true, true);
        assert!(!route.on(1).is_doubtful());
    }

    #[test]
    fn what_malformed_attributes_withdrew_is_remembered_up_to_a_bound() {
        let mut route = Route::default();
        announced(&mut route, 0, &[1]);
        for id in 1..1_000 {
            route.announce(at(1), id, &path(&[1]), true);
            assert_eq!(route.withdraw(at(1), id, true, true), Withdrawn::Fewer);
        }
        assert_eq!(route.doubtful.len(), PATHS_MAX);
        assert_eq!(route.withdraw(at(2), 0, false, true), Withdrawn::Fewer);
        assert_eq!(route.standing(0), Standing::Unknown);
    }

    #[test]
    fn whether_more_routes_than_are_kept_are_gone_is_unknown() {
        let mut route = Route::default();
        let most = PATHS_MAX as u32;
        announced(&mut route, 0, &[1]);
        for id in 1..most {
            assert_eq!(
                route.announce(at(1), id, &path(&[1]), true),
                Announced::More
            );
        }
        assert_eq!(
            route.announce(at(1), most, &path(&[1]), true),
            Announced::Beyond
        );
        for id in 0..most {
            assert_eq!(route.withdraw(at(2), id, false, true), Withdrawn::Fewer);
        }
        assert_eq!(route.standing(0), Standing::Unknown);
        assert_eq!(route.withdraw(at(3), most, false, true), Withdrawn::Again);
        // The next session is another one.
        announced(route.on(1), 4, &[1]);
        assert!(matches!(
            route.withdraw(at(5), 0, false, true),
            Withdrawn::Last(_)
        ));
    }

    #[test]
    fn what_a_complete_table_lacks_is_no_longer_there() {
        let mut route = Route::default();
        announced(&mut route, 0, &[1]);
        route.table_is_there(at(9), 1);
        assert_eq!(route.standing(1), Standing::Withdrawn);
        let mut unknown = Route::default();
        unknown.table_is_there(at(9), 1);
        assert_eq!(unknown.standing(1), Standing::Unknown);
    }

    #[test]
    fn what_comes_after_a_table_that_lacked_it_changes_nothing() {
        let mut route = Route::default();
        announced(&mut route, 0, &[1, 2]);
        route.table_is_there(at(9), 1);
        assert_eq!(announced(route.on(1), 30, &[1, 2]), Announced::First);
        assert_eq!(route.standing(1), Standing::Present);
        // From now on it is a route like any other.
        route.withdraw(at(40), 0, false, true);
        assert!(
            matches!(announced(&mut route, 41, &[1, 3]), Announced::Path(change) if change.returned)
        );
    }
}
