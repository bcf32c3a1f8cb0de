//! Parts of watched prefixes that strangers announce, and who takes the news from whom.

use super::*;
use crate::bgp::{observer::parts::PARTS_MAX, peer::Collector, watch};

const PART: &str = "192.0.2.128/25";

/// What is told of parts.
fn told(observer: &mut Observer) -> Vec<String> {
    let changes = changes(observer).into_iter();
    let parts = changes.filter_map(|change| match change {
        Change::MoreSpecific(own) => Some(own.prefix.to_string()),
        _ => None,
    });
    parts.collect()
}

fn hijack(observer: &mut Observer, secs: u64, feed: &Feed) -> Vec<String> {
    observer.on(at(secs), feed, &announce(PART, &[64_501, 64_666]));
    told(observer)
}

#[test]
fn what_one_feed_shows_takes_its_word_from_no_other() {
    let mut observer = observer();
    let post = feed(1, View::PostPolicy);
    let pre = post.viewed(View::PrePolicy);
    let out = feed(2, View::Out);
    for feed in [&post, &pre, &out] {
        loaded(&mut observer, feed);
    }
    let loading = feed(3, View::PostPolicy);
    observer.on(at(49), &loading, &Event::Up { system: 64_501 });
    // None of these counts.
    for feed in [&out, &loading, &pre] {
        assert_eq!(hijack(&mut observer, 50, feed), [""; 0]);
    }
    assert_eq!(hijack(&mut observer, 50, &post), [PART]);
    assert_eq!(hijack(&mut observer, 51, &post), [""; 0], "the same again");
    // Who shows it by another stranger, or once more after it was gone, tells something new.
    observer.on(at(52), &post, &announce(PART, &[64_501, 64_667]));
    assert_eq!(told(&mut observer), [PART]);
    observer.on(at(53), &post, &withdraw(PART));
    assert_eq!(hijack(&mut observer, 54, &post), [PART]);
}

#[test]
fn an_invalid_part_is_told_although_another_feed_showed_it_first() {
    let mut observer = observer();
    observer.authorize(at(0), authorized(&[(WATCHED[0], 24, 64_500)]));
    let post = feed(1, View::PostPolicy);
    let pre = post.viewed(View::PrePolicy);
    loaded(&mut observer, &post);
    loaded(&mut observer, &pre);
    for feed in [&pre, &post] {
        observer.on(at(50), feed, &announce(PART, &[64_501, 64_500]));
    }
    let told = invalid(changes(&mut observer));
    assert_eq!(told, [(PART.to_owned(), None, Validity::InvalidLength)]);
}

#[test]
fn what_collectors_hear_is_told_by_each_of_their_peers_and_does_not_silence_a_router() {
    let mut observer = observer();
    let own = feed(1, View::PostPolicy);
    loaded(&mut observer, &own);
    let collector = View::Outside(Collector::new("rrc21.ripe.net").unwrap());
    for peer in 2..5 {
        let peer = feed(peer, collector);
        loaded(&mut observer, &peer);
        assert_eq!(hijack(&mut observer, 50, &peer), [PART]);
    }
    assert_eq!(hijack(&mut observer, 500, &own), [PART]);
    let window = &observer.close_window(at(510), at(40))[0];
    assert_eq!(window.more_specifics.len(), 1, "it is one part");
}

#[test]
fn what_is_invalid_elsewhere_is_news_when_a_router_shows_it() {
    let mut observer = observer();
    observer.authorize(at(0), authorized(&[(WATCHED[1], 24, 64_500)]));
    let own = feed(1, View::PostPolicy);
    let collector = View::Outside(Collector::new("rrc21.ripe.net").unwrap());
    let peer = feed(2, collector);
    loaded(&mut observer, &own);
    loaded(&mut observer, &peer);
    for (feed, secs) in [(&peer, 50), (&own, 500)] {
        observer.on(at(secs), feed, &announce(WATCHED[1], &[64_501, 64_666]));
        let told = invalid(changes(&mut observer));
        assert_eq!(told.len(), 1, "{secs}");
    }
}

#[test]
fn who_shows_what_others_have_long_shown_tells_nothing_new() {
    let mut observer = observer();
    let (one, other) = (feed(1, View::PostPolicy), feed(2, View::PostPolicy));
    loaded(&mut observer, &one);
    loaded(&mut observer, &other);
    assert_eq!(hijack(&mut observer, 50, &one), [PART]);
    assert_eq!(hijack(&mut observer, 3_700, &other), [""; 0]);
    // On its next session it is part of a table, and no news once that is there.
    observer.on(at(3_701), &one, &Event::Up { system: 64_501 });
    assert_eq!(hijack(&mut observer, 3_702, &one), [""; 0]);
    observer.on(at(3_703), &one, &end_of_table(Family::V4));
    assert_eq!(hijack(&mut observer, 3_704, &one), [""; 0]);
}

#[test]
fn own_parts_take_no_room_and_too_many_of_strangers_are_told() {
    let mut list = Watchlist::default();
    let region = "dub".parse().unwrap();
    let watched = Watched::new(
        "10.0.0.0/8".parse().unwrap(),
        region,
        BTreeSet::from([64_500]),
    );
    list.add(watched).unwrap();
    let mut observer = Observer::new(list);
    let (one, other) = (feed(1, View::PostPolicy), feed(2, View::PostPolicy));
    loaded(&mut observer, &one);
    loaded(&mut observer, &other);
    let part = |n: usize| format!("10.{}.{}.0/24", n / 256, n % 256);
    for n in 0..=PARTS_MAX {
        observer.on(at(50), &one, &announce(&part(n), &[64_501, 64_500]));
    }
    assert!(observer.take_events().is_empty());
    let bytes = observer.bytes;
    for n in 0..=PARTS_MAX + 1 {
        observer.on(at(51), &one, &announce(&part(n), &[64_501, 64_666]));
    }
    let events = observer.take_events();
    let is_limit = |event: &&RoutingEvent| matches!(&event.what, What::Feed(FeedChange::Limited { limit }) if limit.contains("4096 parts"));
    assert_eq!(events.iter().filter(is_limit).count(), 1);
    // What one feed has too much of is no other's loss.
    observer.on(at(52), &other, &announce(&part(9_000), &[64_501, 64_666]));
    assert_eq!(told(&mut observer), [part(9_000)]);
    // The owner takes them back, and the room is there again.
    for n in 0..=PARTS_MAX {
        observer.on(at(53), &one, &announce(&part(n), &[64_501, 64_500]));
    }
    observer.on(at(54), &other, &withdraw(&part(9_000)));
    assert_eq!(observer.bytes, bytes);
}

#[test]
fn what_is_learned_is_told_as_a_part_by_each_feed_that_comes_to_show_it() {
    let told_of = watch::Told {
        addresses: [(IpAddr::from([192, 0, 2, 200]), "fra".parse().unwrap())].into(),
        ..watch::Told::default()
    };
    let mut observer = Observer::new(Watchlist::new(&[], &told_of));
    let post = feed(1, View::PostPolicy);
    let pre = post.viewed(View::PrePolicy);
    loaded(&mut observer, &post);
    loaded(&mut observer, &pre);
    assert_eq!(hijack(&mut observer, 50, &pre), [""; 0]);
    assert_eq!(hijack(&mut observer, 50, &post), [PART]);
}
