//! What one source may take, and what is left for all others.

use super::*;
use crate::bgp::update::{HOPS_MAX, Hop, SET_MAX};

fn neighbour(n: usize) -> Feed {
    let [high, low] = u16::try_from(n).unwrap().to_be_bytes();
    Feed {
        neighbour: IpAddr::from([10, 9, high, low]),
        ..feed(1, View::PostPolicy)
    }
}

/// The texts of what was limited.
fn limits(observer: &mut Observer) -> Vec<String> {
    let events = observer.take_events().into_iter();
    let limits = events.filter_map(|event| match event.what {
        What::Feed(FeedChange::Limited { limit }) => Some(limit),
        _ => None,
    });
    limits.collect()
}

#[test]
fn a_router_with_feeds_without_end_leaves_room_for_others_and_for_its_own_later_ones() {
    const MOST: usize = FEEDS_MAX / 2;
    let mut observer = observer();
    loaded(&mut observer, &neighbour(0));
    for n in 1..MOST + 10 {
        observer.on(at(41), &neighbour(n), &Event::Up { system: 1 });
    }
    assert_eq!((observer.feeds().len(), observer.feeds_refused), (MOST, 10));
    observer.on(at(42), &neighbour(MOST), &withdraw(WATCHED[0]));
    assert_eq!(observer.feeds_refused, 11);
    assert_eq!(limits(&mut observer), [Limit::Feeds.to_string()], "once");
    // Another router.
    let other = feed(2, View::PostPolicy);
    loaded(&mut observer, &other);
    observer.on(at(50), &other, &withdraw(WATCHED[0]));
    assert_eq!(changes(&mut observer).len(), 1);
    assert_eq!(observer.close_window(at(51), at(40))[0].sight.visible, 1);
    // Its neighbours go, and others come: at first these are too many, and then they take the places of those.
    for n in 0..MOST {
        observer.on(at(60), &neighbour(n), &Event::Down(Down::SourceLost));
    }
    let late = neighbour(MOST);
    observer.on(at(900), &late, &Event::Up { system: 1 });
    assert_eq!(observer.feeds_refused, 12);
    observer.on(at(1_000), &late, &Event::Up { system: 1 });
    assert_eq!((observer.feeds().len(), observer.feeds_refused), (2, 12));
    // Nothing of those who had the numbers before is taken for their own.
    for n in 0..MOST - 1 {
        observer.on(at(1_001), &neighbour(n), &Event::Up { system: 1 });
        observer.on(at(1_002), &neighbour(n), &end_of_table(Family::V4));
    }
    assert_eq!(observer.feeds_refused, 12);
    assert_eq!(
        observer.numbers as usize,
        MOST + 1,
        "numbers are used again"
    );
    let sight = observer.close_window(at(1_010), at(1_000))[0].sight;
    assert_eq!((sight.visible, sight.gone), (0, 1), "of the other router");
}

/// Eight routes to a prefix, each as large as it may be.
fn bloated(at: usize) -> Event {
    let prefix = watched(at);
    let set = |hop: usize| Hop::set((0..SET_MAX as u32).map(|system| system + hop as u32));
    let path = AsPath::new((0..HOPS_MAX).map(set).collect());
    let attributes = Attributes {
        path,
        ..Attributes::default()
    };
    let announced = (0..8).map(|path_id| Nlri { path_id, prefix });
    Event::Update(Update {
        announced: announced.collect(),
        attributes: Arc::new(attributes),
        ..Update::default()
    })
}

fn watched(at: usize) -> IpNet {
    format!("10.{}.{}.0/24", at >> 8, at & 0xff)
        .parse()
        .unwrap()
}

#[test]
fn routes_that_grow_take_no_more_than_those_that_come() {
    const PREFIXES: usize = 800;
    let mut list = Watchlist::default();
    for at in 0..PREFIXES {
        let region = "dub".parse().unwrap();
        let prefix = watched(at);
        let origins = BTreeSet::new();
        list.add(Watched {
            prefix,
            region,
            origins,
        })
        .unwrap();
    }
    let mut observer = Observer::new(list);
    let show = |observer: &mut Observer, feed: &Feed| {
        observer.on(at(0), feed, &Event::Up { system: 1 });
        for prefix in 0..PREFIXES {
            let prefix = watched(prefix).to_string();
            observer.on(at(1), feed, &announce(&prefix, &[64_501, 64_500]));
        }
        observer.on(at(2), feed, &end_of_table(Family::V4));
    };
    let most = FEED_BYTES_MAX + (1 << 17);
    for n in 1..8 {
        show(&mut observer, &neighbour(n));
        for prefix in 0..PREFIXES {
            observer.on(at(3), &neighbour(n), &bloated(prefix));
        }
        assert!(observer.feeds[&neighbour(n)].bytes < most, "{n}");
        assert_eq!(limits(&mut observer), [Limit::Bytes.to_string()]);
    }
    // All of one router together take half of what there is for all.
    assert!(
        observer.bytes < ALL_BYTES_MAX / 2 + (1 << 20),
        "{}",
        observer.bytes
    );
    let other = feed(2, View::PostPolicy);
    show(&mut observer, &other);
    assert!(limits(&mut observer).is_empty());
    observer.on(at(4), &other, &withdraw("10.0.0.0/24"));
    let [Change::Withdrawn { .. }] = changes(&mut observer)[..] else {
        panic!("another router is not heard");
    };
    // What was given up is neither there nor withdrawn, and nothing that is said of it is made up.
    let last = PREFIXES - 1;
    let sight = observer.close_window(at(5), at(4))[last].sight;
    assert_eq!((sight.visible, sight.gone), (1, 0));
    observer.on(at(6), &neighbour(1), &withdraw(&watched(last).to_string()));
    assert!(changes(&mut observer).is_empty());
    assert_eq!(observer.feeds[&neighbour(1)].gate.seen.fabricated, 0);
    let taken: usize = observer.feeds.values().map(|known| known.bytes).sum();
    assert_eq!(observer.bytes, taken);
    let taken: usize = observer.sources.values().map(|source| source.bytes).sum();
    assert_eq!(observer.bytes, taken);
}
