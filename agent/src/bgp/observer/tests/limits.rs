//! What one source may take, and what is left for all others.

use super::*;

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
    // Nothing of those who had the number before is taken for its own.
    observer.on(at(1_001), &late, &announce(WATCHED[1], &[64_501, 64_500]));
    observer.on(at(1_002), &late, &end_of_table(Family::V4));
    let sight = observer.close_window(at(1_010), at(1_000))[0].sight;
    assert_eq!((sight.visible, sight.gone), (0, 1), "of the other router");
    for n in 0..MOST - 2 {
        observer.on(at(1_011), &neighbour(n), &Event::Up { system: 1 });
    }
    assert_eq!(observer.feeds_refused, 12);
    assert_eq!(
        observer.numbers as usize,
        MOST + 1,
        "numbers are used again"
    );
}
