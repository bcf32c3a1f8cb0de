//! Routes of feeds that cannot be believed now.

use super::*;

fn sight(observer: &mut Observer, secs: u64) -> Sight {
    observer.close_window(at(secs), at(secs - 1))[0].sight
}

fn unsure(feeds: u32, secs: u64) -> Unsure {
    let known_at = at(secs);
    Unsure { feeds, known_at }
}

#[test]
fn what_a_lost_feed_showed_is_unsure_until_it_shows_or_withdraws_it() {
    let mut observer = observer();
    let (one, other) = (feed(1, View::PostPolicy), feed(2, View::PostPolicy));
    loaded(&mut observer, &one);
    loaded(&mut observer, &other);
    assert_eq!(sight(&mut observer, 45).unsure, Unsure::default());
    observer.on(at(50), &one, &Event::Down(Down::SourceLost));
    let lost = sight(&mut observer, 60);
    assert_eq!(
        (lost.visible, lost.gone, lost.unsure),
        (1, 0, unsure(1, 50))
    );
    // Who withdraws it meanwhile tells of that too.
    observer.on(at(65), &other, &withdraw(WATCHED[0]));
    let told = observer
        .take_events()
        .into_iter()
        .find_map(|own| match own.what {
            What::Prefix { sight, .. } => Some(sight),
            _ => None,
        });
    let told = told.unwrap();
    assert_eq!(
        (told.visible, told.gone, told.unsure),
        (0, 1, unsure(1, 50))
    );
    // A table that is transferred shows it, as far as is known.
    observer.on(at(70), &one, &Event::Up { system: 64_501 });
    assert_eq!(sight(&mut observer, 71).unsure, unsure(1, 50));
    observer.on(at(72), &one, &announce(WATCHED[0], &[64_501, 64_500]));
    assert_eq!(sight(&mut observer, 75).unsure, unsure(1, 75));
    // What it withdraws before its table is there it does not take away.
    observer.on(at(76), &one, &withdraw(WATCHED[0]));
    assert_eq!(sight(&mut observer, 77).unsure, unsure(1, 76));
    observer.on(at(78), &one, &announce(WATCHED[0], &[64_501, 64_500]));
    observer.on(at(79), &one, &end_of_table(Family::V4));
    let there = sight(&mut observer, 80);
    assert_eq!((there.visible, there.unsure), (1, Unsure::default()));
    observer.on(at(81), &one, &withdraw(WATCHED[0]));
    observer.on(at(82), &one, &Event::Down(Down::SourceLost));
    assert_eq!(sight(&mut observer, 83).unsure, Unsure::default());
}

#[test]
fn what_a_new_table_lacks_and_what_a_liar_shows_is_unsure() {
    let mut observer = observer();
    let (one, liar) = (feed(1, View::PostPolicy), feed(2, View::PostPolicy));
    loaded(&mut observer, &one);
    loaded(&mut observer, &liar);
    observer.on(at(50), &one, &Event::Up { system: 64_501 });
    observer.on(at(51), &one, &end_of_table(Family::V4));
    let lacks = sight(&mut observer, 60);
    assert_eq!(
        (lacks.visible, lacks.gone, lacks.unsure),
        (1, 1, unsure(1, 50))
    );
    for _ in 0..3 {
        observer.on(at(61), &liar, &withdraw(WATCHED[1]));
    }
    let fallen = sight(&mut observer, 70);
    assert_eq!((fallen.visible, fallen.unsure), (0, unsure(2, 61)));
    // Nothing that it says later changes that.
    observer.on(at(71), &liar, &withdraw(WATCHED[0]));
    observer.on(at(72), &liar, &Event::Down(Down::SourceLost));
    assert_eq!(sight(&mut observer, 73).unsure, unsure(2, 71));
}

/// RFC 7606: the session stays, and the peer uses the route all the same.
#[test]
fn what_a_malformed_attribute_withdraws_may_still_be_there() {
    let mut observer = observer();
    let one = feed(1, View::Session);
    loaded(&mut observer, &one);
    observer.on(
        at(50),
        &one,
        &Event::Update(Update {
            withdrawn: vec![nlri(WATCHED[0])],
            malformed: Some("ORIGIN".to_owned()),
            ..Update::default()
        }),
    );
    let path = "64501 64500".to_owned();
    let malformed = true;
    let withdrawn = Change::Withdrawn { path, malformed };
    assert_eq!(changes(&mut observer), [withdrawn]);
    let window = &observer.close_window(at(60), at(50))[0];
    assert_eq!((window.counts.withdrawals, window.counts.malformed), (1, 1));
    let sight = window.sight;
    assert_eq!(
        (sight.visible, sight.gone, sight.unsure),
        (0, 1, unsure(1, 50))
    );
    // Once it withdraws the route itself, that is told too.
    observer.on(at(61), &one, &withdraw(WATCHED[0]));
    let (path, malformed) = ("64501 64500".to_owned(), false);
    let withdrawn = Change::Withdrawn { path, malformed };
    assert_eq!(changes(&mut observer), [withdrawn]);
    let window = &observer.close_window(at(70), at(60))[0];
    assert_eq!(window.counts.withdrawals, 0, "it was counted before");
    assert_eq!(window.sight.unsure, Unsure::default());
}

/// Of a neighbour that is shown before and after policy one is enough; what is told to others is none.
#[test]
fn what_counted_for_nothing_is_not_unsure() {
    let mut observer = observer();
    let post = feed(1, View::PostPolicy);
    let pre = post.viewed(View::PrePolicy);
    let out = feed(1, View::Out);
    for feed in [&post, &pre, &out] {
        loaded(&mut observer, feed);
    }
    for feed in [&post, &pre, &out] {
        observer.on(at(50), feed, &Event::Down(Down::SourceLost));
    }
    assert_eq!(sight(&mut observer, 60).unsure, unsure(1, 50));
}
