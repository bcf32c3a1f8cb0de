//! Feeds that are told of, and what comes of it.

use std::net::IpAddr;

use ipnet::IpNet;
use leeward_common::bgp::{LeakSign, Sight, Unsure, Validities, Validity};
use proptest::prelude::*;

use super::*;
use crate::bgp::{
    peer::{Down, end_of_table},
    rpki,
    watch::Watched,
};

#[path = "tests/limits.rs"]
mod limits;
#[path = "tests/pace.rs"]
mod pace;
#[path = "tests/parts.rs"]
mod parts;
#[path = "tests/unsure.rs"]
mod unsure;
#[path = "tests/watching.rs"]
mod watching;

const WATCHED: [&str; 3] = ["192.0.2.0/24", "198.51.100.0/24", "2001:db8::/32"];

fn observer() -> Observer {
    let mut watchlist = Watchlist::default();
    for prefix in WATCHED {
        let watched = Watched {
            prefix: prefix.parse().unwrap(),
            region: "dub".parse().unwrap(),
            origins: BTreeSet::from([64_500]),
        };
        watchlist.add(watched).unwrap();
    }
    Observer::new(watchlist)
}

fn at(secs: u64) -> Timestamp {
    Timestamp::from_unix_us(secs * 1_000_000)
}

fn feed(source: u8, view: View) -> Feed {
    Feed {
        source: IpAddr::from([10, 0, 0, source]),
        neighbour: IpAddr::from([10, 9, 9, 9]),
        distinguisher: 0,
        view,
    }
}

fn nlri(prefix: &str) -> Nlri {
    Nlri {
        prefix: prefix.parse::<IpNet>().unwrap(),
        path_id: 0,
    }
}

fn announce(prefix: &str, path: &[u32]) -> Event {
    Event::Update(Update {
        announced: vec![nlri(prefix)],
        attributes: Arc::new(Attributes {
            path: AsPath::sequence(path),
            ..Attributes::default()
        }),
        ..Update::default()
    })
}

fn withdraw(prefix: &str) -> Event {
    Event::Update(Update {
        withdrawn: vec![nlri(prefix)],
        ..Update::default()
    })
}

/// A feed whose table is there, with a route to the first watched prefix.
fn loaded(observer: &mut Observer, feed: &Feed) {
    observer.on(at(0), feed, &Event::Up { system: 64_501 });
    observer.on(at(1), feed, &announce(WATCHED[0], &[64_501, 64_500]));
    observer.on(at(2), feed, &end_of_table(Family::V4));
    observer.pass(at(20));
    observer.pass(at(40));
    observer.close_window(at(40), at(0));
    observer.take_events();
}

fn changes(observer: &mut Observer) -> Vec<Change> {
    let events = observer.take_events().into_iter();
    let changes = events.filter_map(|event| match event.what {
        What::Prefix { change, .. } => Some(change),
        What::Feed(_) | What::Link(_) => None,
    });
    changes.collect()
}

#[test]
fn a_withdrawal_counts_is_told_at_once_and_nobody_sees_the_prefix() {
    let mut observer = observer();
    let one = feed(1, View::PostPolicy);
    loaded(&mut observer, &one);
    observer.on(at(50), &one, &withdraw(WATCHED[0]));
    let path = "64501 64500".to_owned();
    let malformed = false;
    let withdrawn = Change::Withdrawn { path, malformed };
    assert_eq!(changes(&mut observer), [withdrawn]);
    let window = &observer.close_window(at(60), at(40))[0];
    assert_eq!(
        (window.counts.withdrawals, window.counts.disregarded),
        (1, 0)
    );
    assert_eq!(
        (
            window.sight.visible,
            window.sight.gone,
            window.sight.gone_sources
        ),
        (0, 1, 1)
    );
    assert!((1..=1_000).contains(&window.penalty_slow) && !window.is_quiet());
    observer.on(at(61), &one, &announce(WATCHED[0], &[64_501, 64_500]));
    assert!(matches!(
        changes(&mut observer)[..],
        [Change::Returned { .. }]
    ));
    let window = &observer.close_window(at(70), at(60))[0];
    assert_eq!((window.counts.returns, window.sight.visible), (1, 1));
}

#[test]
fn a_lost_session_is_one_event_of_the_feed_and_no_withdrawal() {
    let mut observer = observer();
    let one = feed(1, View::PostPolicy);
    loaded(&mut observer, &one);
    observer.on(at(50), &one, &Event::Down(Down::SourceLost));
    let events = observer.take_events();
    assert!(
        matches!(
            &events[..],
            [RoutingEvent {
                what: What::Feed(FeedChange::Down { watched: 1, .. }),
                ..
            }]
        ),
        "{events:?}"
    );
    let window = &observer.close_window(at(60), at(40))[0];
    assert!(window.is_quiet());
    let mut unsure = Unsure::default();
    unsure.add(at(50));
    let unknown = Sight {
        unsure,
        ..Sight::default()
    };
    assert_eq!(window.sight, unknown, "what is not seen is not gone");
}

#[test]
fn paths_that_grow_and_an_origin_that_changes_are_told() {
    let mut observer = observer();
    let one = feed(1, View::PostPolicy);
    loaded(&mut observer, &one);
    observer.on(
        at(100),
        &one,
        &announce(WATCHED[0], &[64_501, 64_502, 64_500]),
    );
    observer.on(
        at(101),
        &one,
        &announce(WATCHED[0], &[64_501, 64_502, 64_503, 64_500]),
    );
    observer.on(at(102), &one, &announce(WATCHED[0], &[64_501, 64_999]));
    let changes = changes(&mut observer);
    assert!(
        matches!(&changes[0], Change::Exploring { paths: 2, .. }),
        "{changes:?}"
    );
    assert_eq!(
        changes[1],
        Change::OriginChanged {
            from: Some(64_500),
            to: Some(64_999)
        }
    );
    let window = &observer.close_window(at(110), at(100))[0];
    assert_eq!(
        (window.counts.path_changes, window.counts.origin_changes),
        (3, 1)
    );
    assert_eq!(
        (
            window.longer_max,
            window.edit_distance_max,
            window.exploration_max
        ),
        (2, 2, 2)
    );
    assert_eq!(window.origins, [64_999]);
}

#[test]
fn several_origins_are_seen_together_and_a_more_specific_of_a_stranger_is_told() {
    let mut observer = observer();
    let (one, other) = (feed(1, View::PostPolicy), feed(2, View::PostPolicy));
    loaded(&mut observer, &one);
    loaded(&mut observer, &other);
    observer.on(at(50), &other, &announce(WATCHED[0], &[64_501, 64_999]));
    observer.on(at(51), &one, &announce("192.0.2.128/25", &[64_501, 64_666]));
    observer.on(at(52), &one, &announce("192.0.2.128/25", &[64_501, 64_666]));
    observer.on(at(53), &one, &announce("192.0.2.0/25", &[64_501, 64_500]));
    let window = &observer.close_window(at(60), at(40))[0];
    assert_eq!(window.origins, [64_500, 64_999]);
    let found = MoreSpecific {
        prefix: "192.0.2.128/25".parse().unwrap(),
        origin: Some(64_666),
        validity: Validity::Unknown,
    };
    assert_eq!(window.more_specifics, [found]);
    assert!(changes(&mut observer).contains(&Change::MoreSpecific(found)));
}

#[test]
fn of_a_neighbour_shown_before_and_after_policy_only_the_latter_counts() {
    let mut observer = observer();
    let post = feed(1, View::PostPolicy);
    let pre = post.viewed(View::PrePolicy);
    loaded(&mut observer, &post);
    loaded(&mut observer, &pre);
    // The known fault of a router: a re-announcement is shown as a withdrawal before policy.
    observer.on(at(50), &pre, &withdraw(WATCHED[0]));
    observer.on(at(50), &post, &announce(WATCHED[0], &[64_501, 64_500]));
    let window = &observer.close_window(at(60), at(40))[0];
    assert_eq!(
        (
            window.counts.withdrawals,
            window.sight.visible,
            window.sight.gone
        ),
        (0, 1, 0)
    );
    assert!(changes(&mut observer).is_empty());
}

#[test]
fn a_route_that_stays_when_all_others_went_is_stuck_and_its_end_is_no_news() {
    let mut observer = observer();
    let feeds = [1, 2, 3].map(|source| feed(source, View::PostPolicy));
    for feed in &feeds {
        loaded(&mut observer, feed);
    }
    observer.on(at(50), &feeds[0], &withdraw(WATCHED[0]));
    observer.on(at(60), &feeds[1], &withdraw(WATCHED[0]));
    assert_eq!(observer.close_window(at(100), at(40))[0].sight.visible, 1);
    let sight = observer.close_window(at(700), at(640))[0].sight;
    assert_eq!((sight.visible, sight.gone, sight.stuck), (0, 2, 1));
    observer.take_events();
    observer.on(at(800), &feeds[2], &withdraw(WATCHED[0]));
    assert!(changes(&mut observer).is_empty());
    assert_eq!(
        observer.close_window(at(810), at(800))[0]
            .counts
            .withdrawals,
        0
    );
}

/// An UPDATE about the first watched prefix by these path identifiers (RFC 7911).
fn by_paths(ids: std::ops::RangeInclusive<u32>, is_announced: bool) -> Event {
    let Event::Update(mut update) = announce(WATCHED[0], &[64_501, 64_500]) else {
        unreachable!();
    };
    let named = ids.map(|path_id| Nlri {
        path_id,
        ..nlri(WATCHED[0])
    });
    match is_announced {
        true => update.announced = named.collect(),
        false => (update.announced, update.withdrawn) = (Vec::new(), named.collect()),
    }
    Event::Update(update)
}

#[test]
fn the_last_of_several_routes_is_the_withdrawal_and_none_if_there_were_more_than_are_kept() {
    let mut observer = observer();
    let (one, other) = (feed(1, View::PostPolicy), feed(2, View::PostPolicy));
    loaded(&mut observer, &one);
    loaded(&mut observer, &other);
    let is_limited =
        |event: &RoutingEvent| matches!(&event.what, What::Feed(FeedChange::Limited { .. }));
    // Beside the route without an identifier.
    observer.on(at(50), &one, &by_paths(1..=7, true));
    observer.on(at(51), &one, &withdraw(WATCHED[0]));
    observer.on(at(51), &one, &by_paths(1..=6, false));
    assert!(observer.take_events().is_empty());
    observer.on(at(52), &one, &by_paths(7..=7, false));
    assert!(matches!(
        changes(&mut observer)[..],
        [Change::Withdrawn { .. }]
    ));
    // One more than are kept: it stands when all others are gone.
    observer.on(at(53), &other, &by_paths(1..=8, true));
    observer.on(at(53), &other, &by_paths(8..=9, true));
    let told = observer.take_events();
    assert!(told.len() == 1 && is_limited(&told[0]), "{told:?}");
    observer.on(at(54), &other, &withdraw(WATCHED[0]));
    observer.on(at(54), &other, &by_paths(1..=7, false));
    assert!(observer.take_events().is_empty());
    let sight = observer.close_window(at(60), at(40))[0].sight;
    assert_eq!(
        (sight.visible, sight.gone, sight.unsure.feeds),
        (0, 1, 1),
        "nobody knows of the second feed"
    );
    observer.on(at(80), &other, &by_paths(8..=9, false));
    assert!(observer.take_events().is_empty(), "and nothing is made up");
    assert_eq!(observer.feeds[&other].gate.seen.fabricated, 0);
}

#[test]
fn what_a_router_tells_others_counts_for_nothing() {
    let mut observer = observer();
    let out = feed(1, View::Out);
    loaded(&mut observer, &out);
    observer.on(at(50), &out, &withdraw(WATCHED[0]));
    let window = &observer.close_window(at(60), at(40))[0];
    assert!(window.is_quiet());
    assert_eq!(window.sight, Sight::default());
}

#[test]
fn what_waits_to_be_taken_is_bounded_and_what_is_given_up_is_counted() {
    let mut observer = observer();
    let one = feed(1, View::PostPolicy);
    for second in 0..(EVENTS_MAX as u64 + 10) {
        observer.on(at(second), &one, &Event::Up { system: 1 });
    }
    assert_eq!(observer.take_events().len(), EVENTS_MAX);
    assert_eq!(observer.events_given_up, 10);
}

/// What happens to feeds while routing itself is at rest.
#[derive(Clone, Debug)]
enum Trouble {
    /// A session is lost.
    Loss { feed: usize },
    /// All sessions of a router are lost.
    Restart { router: u8 },
    /// A session comes up (again), and its table is transferred, after so many seconds, with these paths, a duplicate of
    /// some of it, and an End-of-RIB or none.
    Transfer {
        feed: usize,
        after: u64,
        hops: u32,
        lacks: usize,
        twice: bool,
        end: bool,
    },
    /// A router says the end of its table before it has one, and shows it after so many seconds.
    LateTable { feed: usize, after: u64 },
    /// A router withdraws what it never announced.
    Fabricated { feed: usize, prefix: usize },
    /// The table is announced again as it was.
    Refresh { feed: usize },
    /// Time passes.
    Quiet { secs: u64 },
}

fn trouble() -> impl Strategy<Value = Trouble> {
    let feed = 0usize..6;
    prop_oneof![
        feed.clone().prop_map(|feed| Trouble::Loss { feed }),
        (0u8..3).prop_map(|router| Trouble::Restart { router }),
        (
            feed.clone(),
            0u64..40,
            0u32..4,
            0usize..4,
            any::<bool>(),
            any::<bool>()
        )
            .prop_map(|(feed, after, hops, lacks, twice, end)| Trouble::Transfer {
                feed,
                after,
                hops,
                lacks,
                twice,
                end
            }),
        (feed.clone(), 0u64..40).prop_map(|(feed, after)| Trouble::LateTable { feed, after }),
        (feed.clone(), 0usize..3).prop_map(|(feed, prefix)| Trouble::Fabricated { feed, prefix }),
        feed.prop_map(|feed| Trouble::Refresh { feed }),
        (0u64..900).prop_map(|secs| Trouble::Quiet { secs }),
    ]
}

/// Six feeds of three routers, of every kind of view.
fn feeds() -> [Feed; 6] {
    let views = [
        View::PrePolicy,
        View::PostPolicy,
        View::Session,
        View::LocRib,
        View::PrePolicy,
        View::Out,
    ];
    let routers = [1, 1, 2, 3, 3, 3];
    std::array::from_fn(|index| feed(routers[index], views[index]))
}

/// A world at rest: what each feed announced on its session, if it is up, with the number of hops that it has.
struct Rest {
    observer: Observer,
    now: u64,
    tables: [Option<(u32, [bool; 3])>; 6],
}

impl Rest {
    fn path(hops: u32) -> Vec<u32> {
        (0..=hops).map(|hop| 64_500 + hops - hop).collect()
    }

    fn say(&mut self, feed: usize, event: &Event) {
        self.observer.on(at(self.now), &feeds()[feed], event);
    }

    fn suffer(&mut self, trouble: &Trouble) {
        match *trouble {
            Trouble::Loss { feed } => {
                self.tables[feed] = None;
                self.say(feed, &Event::Down(Down::SessionLost("test".to_owned())));
            }
            Trouble::Restart { router } => {
                for feed in 0..6 {
                    if feeds()[feed].source == IpAddr::from([10, 0, 0, router + 1]) {
                        self.tables[feed] = None;
                        self.say(feed, &Event::Down(Down::SourceLost));
                    }
                }
            }
            Trouble::Transfer {
                feed,
                after,
                hops,
                lacks,
                twice,
                end,
            } => {
                self.now += after;
                self.say(feed, &Event::Up { system: 64_500 });
                let mut has = [false; 3];
                for (index, prefix) in WATCHED
                    .iter()
                    .enumerate()
                    .filter(|(index, _)| *index != lacks)
                {
                    has[index] = true;
                    self.say(feed, &announce(prefix, &Self::path(hops)));
                    if twice {
                        self.now += 1;
                        // A router that restarts goes on choosing while its table is transferred.
                        self.say(feed, &announce(prefix, &Self::path(hops + 1)));
                        self.say(feed, &announce(prefix, &Self::path(hops)));
                    }
                }
                if end {
                    self.say(feed, &end_of_table(Family::V4));
                    self.say(feed, &end_of_table(Family::V6));
                }
                self.tables[feed] = Some((hops, has));
            }
            Trouble::LateTable { feed, after } => {
                self.say(feed, &Event::Up { system: 64_500 });
                self.say(feed, &end_of_table(Family::V4));
                self.say(feed, &end_of_table(Family::V6));
                self.now += after;
                self.observer.pass(at(self.now));
                for prefix in WATCHED {
                    self.say(feed, &announce(prefix, &Self::path(1)));
                    if feeds()[feed].view.is_choice() {
                        // Its neighbours come up one after the other.
                        self.say(feed, &announce(prefix, &Self::path(2)));
                        self.say(feed, &announce(prefix, &Self::path(1)));
                    }
                }
                self.tables[feed] = Some((1, [true; 3]));
            }
            Trouble::Fabricated { feed, prefix } => {
                let has = self.tables[feed].is_some_and(|(_, has)| has[prefix]);
                if !has {
                    self.say(feed, &withdraw(WATCHED[prefix]));
                }
            }
            Trouble::Refresh { feed } => {
                // As when somebody asks for the table once more (RFC 2918).
                if let Some((hops, has)) = self.tables[feed] {
                    for prefix in (0..3).filter(|prefix| has[*prefix]) {
                        self.say(feed, &announce(WATCHED[prefix], &Self::path(hops)));
                    }
                }
            }
            Trouble::Quiet { secs } => self.now += secs,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    /// Whatever happens to feeds while routing is at rest: no signal, in any window.
    #[test]
    fn feeds_that_come_and_go_and_lie_never_count_as_instability(troubles in prop::collection::vec(trouble(), 1..40)) {
        let mut rest = Rest { observer: observer(), now: 0, tables: [None; 6] };
        let mut start = 0;
        for trouble in &troubles {
            rest.suffer(trouble);
            if rest.now >= start + 60 {
                for window in rest.observer.close_window(at(rest.now), at(start)) {
                    prop_assert!(window.is_quiet(), "{:?} after {:?}", window, troubles);
                }
                start = rest.now;
            }
        }
        for window in rest.observer.close_window(at(rest.now), at(start)) {
            prop_assert!(window.is_quiet(), "{:?}", window);
        }
        let told = changes(&mut rest.observer);
        prop_assert!(told.is_empty(), "{:?}", told);
    }

    /// And it is no deaf gate: after all of that, a withdrawal on a feed that may be believed counts once.
    #[test]
    fn after_any_trouble_a_real_withdrawal_counts(troubles in prop::collection::vec(trouble(), 0..20)) {
        let mut rest = Rest { observer: observer(), now: 0, tables: [None; 6] };
        for trouble in &troubles {
            rest.suffer(trouble);
        }
        rest.suffer(&Trouble::Transfer { feed: 1, after: 1, hops: 1, lacks: 3, twice: false, end: true });
        rest.now += 60;
        rest.observer.close_window(at(rest.now), at(rest.now));
        rest.observer.take_events();
        rest.say(1, &withdraw(WATCHED[0]));
        prop_assert_eq!(changes(&mut rest.observer).len(), 1);
        let window = &rest.observer.close_window(at(rest.now + 1), at(rest.now))[0];
        prop_assert_eq!(window.counts.withdrawals, 1);
    }
}

/// Authorizations of these, each with the longest part that may be announced, and by whom.
fn authorized(payloads: &[(&str, u8, u32)]) -> Authorizations {
    let mut change = rpki::Change::default();
    for (prefix, length_max, system) in payloads {
        let prefix = prefix.parse().unwrap();
        change
            .push(rpki::Action::Announce, &prefix, *length_max, *system)
            .unwrap();
    }
    Authorizations::Known(Arc::new(change.apply(&rpki::Roas::default()).unwrap()))
}

fn invalid(changes: Vec<Change>) -> Vec<(String, Option<Validity>, Validity)> {
    let invalid = changes.into_iter().filter_map(|change| match change {
        Change::Invalid(own) => Some((own.prefix.to_string(), own.was, own.is)),
        _ => None,
    });
    invalid.collect()
}

#[test]
fn a_route_that_becomes_invalid_by_an_announcement_or_an_authorization_is_told() {
    let mut observer = observer();
    let (one, other) = (feed(1, View::PostPolicy), feed(2, View::PostPolicy));
    observer.authorize(at(0), authorized(&[(WATCHED[0], 24, 64_500)]));
    loaded(&mut observer, &one);
    loaded(&mut observer, &other);
    let window = &observer.close_window(at(45), at(40))[0];
    assert_eq!(
        (window.validities.valid, window.validities.invalid()),
        (2, 0)
    );
    // Another origin, told by each feed that shows it.
    for (feed, second) in [(&one, 50), (&other, 51)] {
        observer.on(at(second), feed, &announce(WATCHED[0], &[64_501, 64_666]));
        let told = invalid(changes(&mut observer));
        let is = Validity::InvalidOrigin;
        assert_eq!(told, [(WATCHED[0].to_owned(), Some(Validity::Valid), is)]);
    }
    let window = &observer.close_window(at(60), at(45))[0];
    assert_eq!(window.validities.invalid_origin, 2);
    // It stays so by another path: no news.
    observer.on(
        at(61),
        &one,
        &announce(WATCHED[0], &[64_501, 64_502, 64_666]),
    );
    assert!(invalid(changes(&mut observer)).is_empty());
    // The authorization changes: valid again, and then no longer.
    observer.authorize(at(70), authorized(&[(WATCHED[0], 24, 64_666)]));
    assert!(changes(&mut observer).is_empty());
    observer.authorize(at(71), authorized(&[("192.0.2.0/23", 23, 64_666)]));
    let told = invalid(changes(&mut observer));
    let is = Validity::InvalidLength;
    assert_eq!(
        told,
        [(WATCHED[0].to_owned(), Some(Validity::Valid), is)],
        "once for all feeds"
    );
    // Nobody was authorized, and then somebody else: not for this.
    observer.authorize(at(72), authorized(&[]));
    observer.authorize(at(73), authorized(&[(WATCHED[0], 24, 1)]));
    assert!(changes(&mut observer).is_empty());
    let window = &observer.close_window(at(80), at(60))[0];
    assert_eq!(window.validities.invalid_origin, 2);
}

#[test]
fn what_nobody_can_tell_is_unknown_and_never_invalid() {
    let mut observer = observer();
    let one = feed(1, View::PostPolicy);
    loaded(&mut observer, &one);
    let window = &observer.close_window(at(45), at(40))[0];
    assert_eq!(window.validities, Validities::default(), "nobody asked");
    observer.authorize(at(46), Authorizations::Unknown);
    observer.on(at(50), &one, &announce(WATCHED[0], &[64_501, 64_666]));
    let window = &observer.close_window(at(51), at(45))[0];
    assert_eq!(
        (window.validities.unknown, window.validities.invalid()),
        (1, 0)
    );
    // What changed meanwhile is no news when a cache is there.
    observer.authorize(at(52), authorized(&[(WATCHED[0], 24, 64_500)]));
    assert!(invalid(changes(&mut observer)).is_empty());
    assert_eq!(
        observer.close_window(at(53), at(51))[0]
            .validities
            .invalid(),
        1
    );
    observer.authorize(at(54), Authorizations::Unknown);
    assert_eq!(
        observer.close_window(at(55), at(53))[0]
            .validities
            .invalid(),
        0
    );
    // The router's own route has no path: nobody knows who that is.
    observer.authorize(at(56), authorized(&[(WATCHED[0], 24, 64_500)]));
    observer.on(at(57), &one, &announce(WATCHED[0], &[]));
    assert!(invalid(changes(&mut observer)).is_empty());
}

#[test]
fn a_table_that_is_transferred_with_invalid_routes_is_no_news_and_a_new_route_is() {
    let mut observer = observer();
    let (one, other) = (feed(1, View::PostPolicy), feed(2, View::PostPolicy));
    observer.authorize(at(0), authorized(&[("192.0.2.0/23", 23, 64_500)]));
    loaded(&mut observer, &one);
    loaded(&mut observer, &other);
    assert!(changes(&mut observer).is_empty());
    // Another prefix, of which no feed had a route.
    observer.authorize(at(41), authorized(&[(WATCHED[1], 24, 64_500)]));
    for (feed, second) in [(&one, 50), (&other, 52)] {
        observer.on(at(second), feed, &announce(WATCHED[1], &[64_501, 64_666]));
        let told = invalid(changes(&mut observer));
        let is = Validity::InvalidOrigin;
        assert_eq!(told, [(WATCHED[1].to_owned(), None, is)]);
    }
    // Who shows it an hour later tells nothing new.
    let third = feed(3, View::PostPolicy);
    loaded(&mut observer, &third);
    observer.on(at(3_700), &third, &announce(WATCHED[1], &[64_501, 64_666]));
    assert!(changes(&mut observer).is_empty());
}

#[test]
fn an_invalid_part_of_a_watched_prefix_is_told_with_its_validity() {
    let mut observer = observer();
    let one = feed(1, View::PostPolicy);
    observer.authorize(at(0), authorized(&[(WATCHED[0], 24, 64_500)]));
    loaded(&mut observer, &one);
    // By whom may announce it, but not as short.
    observer.on(at(50), &one, &announce("192.0.2.0/25", &[64_501, 64_500]));
    observer.on(at(51), &one, &announce("192.0.2.128/25", &[64_501, 64_666]));
    let told = changes(&mut observer);
    let length = Validity::InvalidLength;
    let origin = Validity::InvalidOrigin;
    assert_eq!(
        invalid(told.clone()),
        [
            ("192.0.2.0/25".to_owned(), None, length),
            ("192.0.2.128/25".to_owned(), None, origin)
        ]
    );
    let Some(Change::MoreSpecific(part)) = told.last() else {
        panic!("{told:?}");
    };
    assert_eq!(part.validity, origin);
}

#[test]
fn a_route_that_comes_to_look_leaked_is_told_and_counted() {
    let relations = Relations {
        transit_free: BTreeSet::from([174, 3_356]),
        ..Relations::default()
    };
    let mut observer = observer().with_relations(relations);
    let one = feed(1, View::PostPolicy);
    loaded(&mut observer, &one);
    observer.on(
        at(50),
        &one,
        &announce(WATCHED[0], &[174, 64_666, 3_356, 64_500]),
    );
    let told = changes(&mut observer);
    let sign = LeakSign::Valley {
        upper: 174,
        through: 64_666,
        lower: 3_356,
    };
    let path = "174 64666 3356 64500".to_owned();
    assert!(told.contains(&Change::Leaked { sign, path }), "{told:?}");
    assert_eq!(observer.close_window(at(60), at(40))[0].leaks.valley, 1);
    // Longer, but by the same leak.
    observer.on(
        at(61),
        &one,
        &announce(WATCHED[0], &[174, 64_666, 3_356, 3_356, 64_500]),
    );
    let told = changes(&mut observer);
    assert!(
        !told.iter().any(|own| matches!(own, Change::Leaked { .. })),
        "{told:?}"
    );
    observer.on(at(62), &one, &announce(WATCHED[0], &[174, 64_500]));
    assert_eq!(observer.close_window(at(70), at(60))[0].leaks.all(), 0);
}

/// As FRR does when BMP connects once more: `bmp monitor … pre-policy`, and an End-of-RIB of both tables.
#[test]
fn a_table_that_is_said_to_be_whole_and_shows_nothing_stands_in_nobodys_way() {
    let mut observer = observer();
    let (before, after) = (feed(1, View::PrePolicy), feed(1, View::PostPolicy));
    observer.on(at(0), &after, &Event::Up { system: 64_501 });
    observer.on(at(1), &after, &end_of_table(Family::V4));
    loaded(&mut observer, &before);
    assert_eq!(observer.close_window(at(50), at(40))[0].sight.visible, 1);
    observer.on(at(51), &before, &withdraw(WATCHED[0]));
    assert!(matches!(
        changes(&mut observer)[..],
        [Change::Withdrawn { .. }]
    ));
}
