//! What makes a feed believed, and what does not.

use super::*;

fn at(secs: u64) -> Timestamp {
    Timestamp::from_unix_us(secs * 1_000_000)
}

fn gate(view: View) -> Gate {
    Gate::new(at(0), view, 64_500)
}

#[test]
fn a_table_is_there_when_its_end_has_come() {
    let mut gate = gate(View::PostPolicy);
    gate.say(Family::V4, 1_000, 0);
    assert!(!gate.is_believed(Family::V4));
    assert!(gate.end(at(1), Family::V4));
    assert!(gate.is_believed(Family::V4));
    assert!(!gate.is_believed(Family::V6));
    assert!(!gate.end(at(2), Family::V4), "it is told once");
}

#[test]
fn a_routers_choice_must_have_been_quiet_too() {
    let mut gate = gate(View::Session);
    gate.say(Family::V4, 10_000, 0);
    gate.end(at(1), Family::V4);
    assert!(!gate.is_believed(Family::V4));
    assert!(!{
        gate.pass(at(10));
        gate.is_believed(Family::V4)
    });
    assert!(gate.pass(at(20)));
    assert!(gate.is_believed(Family::V4));
}

#[test]
fn a_choice_is_not_complete_before_there_is_one_or_while_most_of_it_is_missing() {
    let mut gate = gate(View::Session);
    let believed = |gate: &Gate| Family::ALL.map(|family| gate.is_believed(family));
    let wait = |gate: &mut Gate, seconds: std::ops::Range<u64>| {
        seconds.for_each(|second| _ = gate.pass(at(second)));
    };
    gate.end(at(1), Family::V4);
    wait(&mut gate, 1..60);
    assert_eq!(
        believed(&gate),
        [false; 2],
        "nobody announced anything to it yet"
    );
    gate.say(Family::V4, 10_000, 0);
    wait(&mut gate, 60..90);
    assert_eq!(believed(&gate), [true, false]);
    // It restarts, and has only its own routes at first.
    gate.up(at(100), 64_500);
    gate.say(Family::V4, 4_999, 0);
    gate.end(at(101), Family::V4);
    wait(&mut gate, 101..160);
    assert_eq!(believed(&gate), [false; 2]);
    gate.say(Family::V4, 1, 0);
    wait(&mut gate, 160..190);
    assert_eq!(believed(&gate), [true, false]);
    // Fewer than that may be all that there is now.
    gate.up(at(200), 64_500);
    gate.say(Family::V4, 10, 0);
    wait(&mut gate, 200..500);
    assert_eq!(believed(&gate), [false; 2]);
    wait(&mut gate, 500..501);
    assert_eq!(believed(&gate), [true; 2]);
    gate.up(at(600), 64_500);
    gate.say(Family::V4, 10, 0);
    wait(&mut gate, 600..630);
    assert_eq!(believed(&gate), [true, false]);
}

#[test]
fn a_router_that_sends_no_end_is_believed_after_a_quiet_gap() {
    let mut gate = gate(View::PostPolicy);
    for second in 0..30 {
        gate.say(Family::V4, 20_000, 0);
        gate.pass(at(second));
        assert!(!gate.is_believed(Family::V4), "{second}");
    }
    // A full table goes on changing after it was transferred.
    for second in 30..60 {
        gate.say(Family::V4, 15, 3);
        gate.pass(at(second));
    }
    assert!(gate.is_believed(Family::V4));
}

#[test]
fn a_transfer_that_never_ends_counts_as_over_after_a_while() {
    let mut gate = gate(View::PostPolicy);
    for second in 0..300 {
        gate.say(Family::V4, 20_000, 0);
        gate.pass(at(second));
        assert!(!gate.is_believed(Family::V4), "{second}");
    }
    gate.pass(at(300));
    assert!(gate.is_believed(Family::V4));
}

#[test]
fn a_lost_feed_is_not_believed_and_its_next_session_loads_again() {
    let mut gate = gate(View::PostPolicy);
    gate.end(at(1), Family::V4);
    let epoch = gate.epoch;
    gate.down(at(2));
    assert!(!gate.is_believed(Family::V4));
    gate.up(at(3), 64_500);
    assert!(!gate.is_believed(Family::V4));
    assert_ne!(gate.epoch, epoch);
}

#[test]
fn who_withdraws_what_it_never_announced_is_not_believed_until_its_next_session() {
    let mut gate = gate(View::PrePolicy);
    gate.say(Family::V4, 10, 0);
    gate.end(at(1), Family::V4);
    assert!(!gate.withdraw_watched(true));
    assert!(!gate.withdraw_watched(true));
    assert!(gate.withdraw_watched(true));
    assert_eq!(gate.standing(), Standing::Untrusted);
    assert!(!gate.is_believed(Family::V4));
    gate.up(at(9), 64_500);
    gate.end(at(10), Family::V4);
    assert!(gate.is_believed(Family::V4));
}

#[test]
fn a_few_needless_withdrawals_among_real_ones_are_forgiven() {
    let mut gate = gate(View::PostPolicy);
    gate.say(Family::V4, 10, 0);
    for _ in 0..10 {
        assert!(!gate.withdraw_watched(false));
    }
    for _ in 0..4 {
        assert!(!gate.withdraw_watched(true));
    }
    assert_eq!(gate.standing(), Standing::Up);
}

#[test]
fn who_only_withdraws_cannot_have_announced_it() {
    let mut gate = gate(View::PrePolicy);
    gate.say(Family::V4, 0, 2);
    assert!(!gate.doubt());
    gate.say(Family::V4, 0, 1);
    assert!(gate.doubt());
}
