//! Routes that flap.

use super::*;

fn milliseconds(at: u64) -> Timestamp {
    Timestamp::from_unix_us(at * 1_000)
}

/// Withdraws the first watched prefix and announces it again so many times, a millisecond apart.
fn flap(observer: &mut Observer, feed: &Feed, from: u64, times: u64) {
    for time in 0..times {
        let event = match time % 2 {
            0 => withdraw(WATCHED[0]),
            _ => announce(WATCHED[0], &[64_501, 64_500]),
        };
        observer.on(milliseconds(from + time), feed, &event);
    }
}

#[test]
fn a_route_that_flaps_is_told_at_a_pace_and_in_the_end_as_it_is() {
    let mut observer = observer();
    let (one, other) = (feed(1, View::PostPolicy), feed(2, View::PostPolicy));
    loaded(&mut observer, &one);
    loaded(&mut observer, &other);
    flap(&mut observer, &one, 50_000, 901);
    let told = changes(&mut observer);
    assert!((16..=20).contains(&told.len()), "{}", told.len());
    assert!(observer.events_held > 880);
    // Another feed and another prefix wait for nobody.
    observer.on(at(51), &other, &withdraw(WATCHED[0]));
    observer.on(at(51), &one, &announce(WATCHED[1], &[64_501, 64_500]));
    observer.on(at(51), &one, &withdraw(WATCHED[1]));
    assert_eq!(changes(&mut observer).len(), 2);
    observer.pass(at(52));
    let last = changes(&mut observer);
    assert!(matches!(last[..], [Change::Withdrawn { .. }]), "{last:?}");
    observer.pass(at(53));
    assert!(changes(&mut observer).is_empty(), "once");
    let window = &observer.close_window(at(60), at(40))[0];
    assert_eq!(
        (window.counts.withdrawals, window.counts.returns),
        (452, 450)
    );
    assert!(
        observer.followed[0].paces.is_empty(),
        "nothing is left of it"
    );
}

#[test]
fn what_is_held_ends_with_its_session_or_the_trust_in_its_feed() {
    for is_lost in [true, false] {
        let mut observer = observer();
        let one = feed(1, View::PostPolicy);
        loaded(&mut observer, &one);
        flap(&mut observer, &one, 50_000, 101);
        observer.take_events();
        match is_lost {
            true => observer.on(at(51), &one, &Event::Down(Down::SourceLost)),
            false => (0..60).for_each(|_| observer.on(at(51), &one, &withdraw(WATCHED[1]))),
        }
        observer.pass(at(60));
        assert!(changes(&mut observer).is_empty(), "{is_lost}");
    }
}
