//! Links that fail, and feeds that only look like it.

use std::{net::IpAddr, sync::Arc};

use leeward_common::bgp::{Change, FeedChange, What};
use proptest::prelude::*;

use super::*;
use crate::bgp::{
    self,
    observer::Observer,
    peer::{Down, Event, Feed, View, end_of_table},
    tables::Extent,
    update::{AsPath, Attributes, Family, Update},
    watch::{Watched, Watchlist},
};

#[path = "internet.rs"]
mod internet;

fn at(millis: u64) -> Timestamp {
    Timestamp::from_unix_us(millis * 1_000)
}

fn nlris(prefixes: std::ops::Range<u32>) -> Vec<Nlri> {
    let prefix = |at: u32| Nlri {
        prefix: format!("10.{}.{}.0/24", at >> 8, at & 0xff)
            .parse()
            .unwrap(),
        path_id: 0,
    };
    prefixes.map(prefix).collect()
}

fn announce(prefixes: std::ops::Range<u32>, path: &[u32]) -> Event {
    Event::Update(Update {
        announced: nlris(prefixes),
        attributes: Arc::new(Attributes {
            path: AsPath::sequence(path),
            ..Attributes::default()
        }),
        ..Update::default()
    })
}

fn withdraw(prefixes: std::ops::Range<u32>) -> Event {
    Event::Update(Update {
        withdrawn: nlris(prefixes),
        ..Update::default()
    })
}

/// Somebody who keeps everything, and watches the first, the 101st and the 201st prefix.
fn observer(is_full: bool) -> Observer {
    let mut watchlist = Watchlist::default();
    for nlri in [0..1, 100..101, 200..201].into_iter().flat_map(nlris) {
        let watched = Watched {
            prefix: nlri.prefix,
            region: "dub".parse().unwrap(),
            origins: std::collections::BTreeSet::new(),
        };
        watchlist.add(watched).unwrap();
    }
    Observer::new(watchlist).keeping(Extent {
        is_full,
        ..Extent::default()
    })
}

fn feed() -> Feed {
    Feed {
        source: IpAddr::from([10, 0, 0, 1]),
        neighbour: IpAddr::from([10, 9, 9, 9]),
        distinguisher: 0,
        view: View::PostPolicy,
    }
}

/// AS 1 shows a hundred prefixes of AS 3 and a hundred of AS 4, both behind AS 2, and a hundred of AS 5.
fn table(observer: &mut Observer, feed: &Feed) {
    observer.on(at(0), feed, &Event::Up { system: 1 });
    observer.on(at(1), feed, &announce(0..100, &[1, 2, 3]));
    observer.on(at(2), feed, &announce(100..200, &[1, 2, 4]));
    observer.on(at(3), feed, &announce(200..300, &[1, 5]));
    observer.on(at(4), feed, &end_of_table(Family::V4));
}

fn listening() -> Observer {
    let mut observer = observer(true);
    table(&mut observer, &feed());
    observer.take_events();
    observer
}

fn links(observer: &mut Observer) -> Vec<(u32, u32, u32, u32)> {
    let events = observer.take_events().into_iter();
    let links = events.filter_map(|event| match event.what {
        What::Link(link) => Some((link.near, link.far, link.lost, link.remaining)),
        _ => None,
    });
    links.collect()
}

#[test]
fn a_burst_is_a_share_of_the_table_and_of_a_full_one_what_swift_takes() {
    let sizes = [0, 5_000, 10_000, 100_000, 1_300_000];
    assert_eq!(sizes.map(threshold), [10, 10, 20, 200, 1_500]);
}

#[test]
fn the_first_withdrawals_name_the_link_that_they_have_in_common() {
    let mut observer = listening();
    let feed = feed();
    observer.on(at(10_000), &feed, &withdraw(0..4));
    observer.on(at(10_100), &feed, &withdraw(100..105));
    assert_eq!(links(&mut observer), []);
    observer.on(at(10_200), &feed, &withdraw(105..106));
    // Both origins are behind 1-2.
    assert_eq!(links(&mut observer), [(1, 2, 10, 190)]);
    observer.on(at(10_900), &feed, &withdraw(4..50));
    observer.on(at(11_000), &feed, &withdraw(106..150));
    observer.on(at(11_500), &feed, &withdraw(50..100));
    observer.on(at(11_500), &feed, &withdraw(150..200));
    observer.pass(at(12_500));
    // It is told once, as long as it stays the answer.
    assert_eq!(links(&mut observer), []);
}

#[test]
fn another_answer_is_told_too() {
    let mut observer = listening();
    let feed = feed();
    observer.on(at(10_000), &feed, &withdraw(0..30));
    assert_eq!(links(&mut observer), [(2, 3, 30, 70)]);
    observer.on(at(10_600), &feed, &withdraw(100..200));
    observer.on(at(11_200), &feed, &withdraw(30..100));
    assert_eq!(links(&mut observer), [(1, 2, 130, 70)]);
}

#[test]
fn losses_that_are_far_from_each_other_are_no_burst() {
    let mut observer = listening();
    for step in 0..30 {
        let at = at(10_000 + u64::from(step) * 2_000);
        observer.on(at, &feed(), &withdraw(step..step + 1));
        observer.pass(at);
    }
    assert_eq!(links(&mut observer), []);
}

#[test]
fn longer_detours_are_losses_and_the_way_back_is_none() {
    let mut observer = listening();
    let feed = feed();
    observer.on(at(10_000), &feed, &announce(0..100, &[1, 6, 7, 3]));
    // 1-2 lost as many, but still has others.
    assert_eq!(links(&mut observer), [(2, 3, 100, 0)]);
    observer.pass(at(30_000));
    observer.on(at(40_000), &feed, &announce(0..100, &[1, 2, 3]));
    observer.pass(at(41_000));
    assert_eq!(links(&mut observer), []);
    // Prepending is no other way.
    observer.on(at(60_000), &feed, &announce(0..100, &[1, 2, 2, 2, 3]));
    observer.pass(at(61_000));
    assert_eq!(links(&mut observer), []);
}

/// The same of routes by this path identifier (RFC 7911).
fn by_path(path_id: u32, event: Event) -> Event {
    let Event::Update(mut update) = event else {
        return event;
    };
    for nlri in update.announced.iter_mut().chain(&mut update.withdrawn) {
        nlri.path_id = path_id;
    }
    Event::Update(update)
}

#[test]
fn a_watched_prefix_that_still_goes_over_the_link_is_told_of() {
    for path_id in [0, 7] {
        let mut observer = observer(true);
        let say = |observer: &mut Observer, at: Timestamp, event: Event| {
            observer.on(at, &feed(), &by_path(path_id, event));
        };
        say(&mut observer, at(0), Event::Up { system: 1 });
        say(&mut observer, at(1), announce(0..100, &[1, 2, 3]));
        say(&mut observer, at(2), announce(100..200, &[1, 2, 4]));
        say(&mut observer, at(3), announce(200..300, &[1, 5]));
        say(&mut observer, at(4), end_of_table(Family::V4));
        observer.take_events();
        say(&mut observer, at(10_000), withdraw(1..41));
        let events = observer.take_events();
        let endangered: Vec<_> = events
            .iter()
            .filter_map(|event| match &event.what {
                What::Prefix {
                    prefix,
                    change: Change::OverFailedLink(link),
                    ..
                } => Some((prefix.to_string(), link.near, link.far)),
                _ => None,
            })
            .collect();
        assert_eq!(endangered, [("10.0.0.0/24".to_owned(), 2, 3)], "{path_id}");
        let windows = observer.close_window(at(11_000), at(0));
        let over: Vec<_> = windows.iter().map(|own| own.over_failed_link).collect();
        assert_eq!(over, [true, false, false]);
        // It moves away.
        say(&mut observer, at(12_000), announce(0..1, &[1, 6, 3]));
        let windows = observer.close_window(at(13_000), at(11_000));
        assert!(!windows[0].over_failed_link);
    }
}

#[test]
fn of_what_is_not_watched_nothing_is_kept_unless_all_is() {
    for (is_full, routes) in [(true, 300), (false, 3)] {
        let mut observer = observer(is_full);
        table(&mut observer, &feed());
        assert_eq!(observer.table_size().0, routes);
        let of = |address: &str| observer.system_of(address.parse().unwrap());
        assert_eq!(of("10.0.0.7"), Some(3));
        assert_eq!(of("10.0.210.7"), is_full.then_some(5));
        observer.on(at(9), &feed(), &Event::Down(Down::SourceLost));
        assert_eq!(observer.table_size().0, 0);
        assert_eq!(observer.system_of("10.0.0.7".parse().unwrap()), None);
    }
}

#[test]
fn a_feed_that_shows_too_much_is_told_once_and_what_is_kept_stays_true() {
    let mut observer = observer(true).keeping(Extent {
        is_full: true,
        routes_max: 150,
        ..Extent::default()
    });
    table(&mut observer, &feed());
    let limits: Vec<_> = observer
        .take_events()
        .into_iter()
        .filter_map(|event| match event.what {
            What::Feed(FeedChange::Limited { limit }) => Some(limit),
            _ => None,
        })
        .collect();
    assert_eq!(limits, ["150 prefixes"]);
    assert_eq!(observer.table_size().0, 150);
    observer.on(at(10_000), &feed(), &withdraw(0..60));
    assert_eq!(links(&mut observer), [(2, 3, 60, 40)]);
}

#[test]
fn a_feed_takes_no_more_than_it_leaves_to_others_however_its_paths_change() {
    const SHARE: usize = 1 << 20;
    let mut observer = observer(true).keeping(Extent {
        is_full: true,
        bytes_max: 2 * SHARE,
        ..Extent::default()
    });
    let greedy = feed();
    observer.on(at(0), &greedy, &Event::Up { system: 1 });
    observer.on(at(1), &greedy, &announce(0..4_000, &[1, 2, 3]));
    assert_eq!(observer.table_size().0, 4_000);
    for own in 0..4_000 {
        let path: Vec<u32> = (0..60).map(|hop| 1 + own * hop).collect();
        observer.on(at(2), &greedy, &announce(own..own + 1, &path));
    }
    let (routes, bytes) = observer.table_size();
    assert!((1_000..4_000).contains(&routes), "{routes}");
    assert!(
        (SHARE * 9 / 10..SHARE * 11 / 10).contains(&bytes),
        "{bytes}"
    );
    let events = observer.take_events().into_iter();
    let limits = events.filter_map(|event| match event.what {
        What::Feed(FeedChange::Limited { limit }) => Some(limit),
        _ => None,
    });
    assert_eq!(limits.collect::<Vec<_>>(), ["its share of 2 MiB of routes"]);
    let modest = Feed::session([10, 0, 0, 77].into());
    observer.on(at(3), &modest, &Event::Up { system: 1 });
    observer.on(at(4), &modest, &announce(0..4_000, &[1, 2, 3]));
    assert_eq!(observer.table_size().0, routes + 4_000);
    // What it gives back it may use again.
    observer.on(at(5), &greedy, &withdraw(0..4_000));
    observer.on(at(6), &greedy, &announce(0..100, &[1, 2, 3]));
    assert_eq!(observer.table_size().0, 4_100);
}

/// At least four in five within five seconds; the benchmark tells how many exactly.
#[test]
fn the_link_that_failed_is_named_on_made_up_internets() {
    let judged: Vec<_> = (0..40)
        .filter_map(|seed| internet::judge(seed, 200, 5))
        .collect();
    // Bursts, each of which is told a few times at most.
    assert!(judged.iter().all(|own| own.lost >= 50 && own.told <= 6));
    assert!(judged.len() >= 30, "{}", judged.len());
    let share = |at: usize| {
        let right = judged.iter().filter(|own| own.right[at] == Some(true));
        right.count() * 100 / judged.len()
    };
    let shares = [share(0), share(1), share(2)];
    eprintln!(
        "named after 1 s, after 5 s, at the end: {shares:?} % of {}",
        judged.len()
    );
    assert!(shares[1] >= 80, "{shares:?} {judged:#?}");
}

/// What befalls a feed.
#[derive(Clone, Debug)]
enum Trouble {
    /// The session ends and comes up with so much of its table, told to its end or not.
    Restart { shown: u32, is_ended: bool },
    /// It comes up without having gone down.
    UpAgain,
    /// It withdraws what it never announced.
    Fabricated,
    /// Everything is announced once more.
    Refreshed,
    /// A malformed attribute.
    Malformed,
    /// The table is withdrawn while it is transferred.
    WithdrawnWhileLoading,
}

fn trouble() -> impl Strategy<Value = Trouble> {
    prop_oneof![
        (0u32..300, any::<bool>())
            .prop_map(|(shown, is_ended)| Trouble::Restart { shown, is_ended }),
        Just(Trouble::UpAgain),
        Just(Trouble::Fabricated),
        Just(Trouble::Refreshed),
        Just(Trouble::Malformed),
        Just(Trouble::WithdrawnWhileLoading),
    ]
}

proptest! {
    /// Loss of a feed, restarts, tables that are transferred in part, fabricated withdrawals: nothing of it names a link.
    #[test]
    fn trouble_of_a_feed_names_no_link(troubles in prop::collection::vec((trouble(), 0u64..40_000), 1..8)) {
        let mut observer = listening();
        let feed = feed();
        let mut now = 10_000;
        for (trouble, pause) in troubles {
            match trouble {
                Trouble::Restart { shown, is_ended } => {
                    observer.on(at(now), &feed, &Event::Down(Down::SourceLost));
                    observer.on(at(now + 10), &feed, &Event::Up { system: 1 });
                    observer.on(at(now + 20), &feed, &announce(0..shown, &[1, 8, 9, 3]));
                    if is_ended {
                        observer.on(at(now + 30), &feed, &end_of_table(Family::V4));
                    }
                }
                Trouble::UpAgain => observer.on(at(now), &feed, &Event::Up { system: 1 }),
                Trouble::Fabricated => observer.on(at(now), &feed, &withdraw(1_000..1_200)),
                Trouble::Refreshed => {
                    observer.on(at(now), &feed, &announce(0..100, &[1, 2, 3]));
                    observer.on(at(now), &feed, &announce(0..100, &[1, 2, 3]));
                }
                Trouble::Malformed => observer.on(at(now), &feed, &Event::Update(Update {
                    withdrawn: nlris(0..300),
                    malformed: Some("ORIGIN".to_owned()),
                    ..Update::default()
                })),
                Trouble::WithdrawnWhileLoading => {
                    observer.on(at(now), &feed, &Event::Up { system: 1 });
                    observer.on(at(now), &feed, &announce(0..300, &[1, 2, 3]));
                    observer.on(at(now + 10), &feed, &withdraw(0..300));
                }
            }
            now += 50 + pause;
            observer.pass(at(now));
        }
        observer.close_window(at(now + 1_000), at(0));
        prop_assert_eq!(links(&mut observer), []);
    }
}
