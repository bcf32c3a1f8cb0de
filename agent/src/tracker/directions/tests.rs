use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const DEPTH: u32 = 13;
/// Probes leave this far apart, and expire after ten of them.
const INTERVAL: u64 = 100;
const EXPIRY: u64 = 1_000;

/// What the network does to a probe.
#[derive(Clone, Copy, Debug, Default)]
struct Fortune {
    lost_forward: bool,
    lost_backward: bool,
    /// Beyond a constant delay.
    forward: u64,
    backward: u64,
    /// Arrives twice.
    doubled: bool,
    /// Ends otherwise, having arrived or not.
    unclear: bool,
}

const FINE: Fortune = Fortune {
    lost_forward: false,
    lost_backward: false,
    forward: 0,
    backward: 0,
    doubled: false,
    unclear: false,
};
const LOST_FORWARD: Fortune = Fortune {
    lost_forward: true,
    ..FINE
};
const LOST_BACKWARD: Fortune = Fortune {
    lost_backward: true,
    ..FINE
};

enum Event {
    Departs,
    Arrives,
    Replied(u32),
    Expires,
}

/// How a reflector numbers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Reflector {
    Counts,
    Repeats,
    /// Counts, and anew from the request of this number on.
    Restarts(u32),
}

/// Sends one probe per fortune and returns what was told, with what is pending in it.
fn play(reflector: Reflector, fortunes: &[Fortune]) -> OneWay {
    let mut events: BTreeMap<(u64, u32), Vec<(u32, Event)>> = BTreeMap::new();
    let mut order = 0;
    let mut at = |events: &mut BTreeMap<_, Vec<_>>, time, probe, event| {
        order += 1;
        events
            .entry((time, order))
            .or_default()
            .push((probe, event));
    };
    for (probe, fortune) in (0u32..).zip(fortunes) {
        let left = u64::from(probe) * INTERVAL;
        at(&mut events, left, probe, Event::Departs);
        at(&mut events, left + EXPIRY, probe, Event::Expires);
        for _ in 0..=u32::from(fortune.doubled) {
            if !fortune.lost_forward {
                let arrives = left + 10 + fortune.forward;
                at(&mut events, arrives, probe, Event::Arrives);
            }
        }
    }
    let mut directions = Directions::new(DEPTH);
    let (mut one_way, mut count) = (OneWay::default(), 0);
    let mut heard = vec![false; fortunes.len()];
    while let Some(((time, _), now)) = events.pop_first() {
        for (probe, event) in now {
            let fortune = &fortunes[probe as usize];
            match event {
                Event::Departs => directions.depart(probe),
                Event::Arrives => {
                    if reflector == Reflector::Restarts(probe) {
                        count = 0;
                    }
                    let number = match reflector {
                        Reflector::Repeats => request_number(probe),
                        _ => count,
                    };
                    count += 1;
                    if !fortune.lost_backward {
                        let back = time + 10 + fortune.backward;
                        at(&mut events, back, probe, Event::Replied(number));
                    }
                }
                Event::Replied(number) if heard[probe as usize] => {
                    directions.heard_again(probe, number);
                }
                Event::Replied(_) if fortune.unclear => {}
                Event::Replied(number) => {
                    heard[probe as usize] = true;
                    let told = Told {
                        number,
                        delays: None,
                    };
                    directions.heard(probe, told, &mut one_way);
                }
                Event::Expires => {
                    let unheard = match fortune.unclear {
                        true => Unheard::Unclear,
                        false => Unheard::Lost,
                    };
                    directions.ended(probe, unheard, &mut one_way);
                }
            }
        }
    }
    one_way.lost_pending = directions.pending();
    one_way
}

fn lost(one_way: &OneWay) -> (u32, u32, u32, u32) {
    (
        one_way.forward.lost,
        one_way.backward.lost,
        one_way.lost_unknown,
        one_way.lost_pending,
    )
}

#[test]
fn the_second_number_of_a_session_is_never_used() {
    let numbers: Vec<u32> = (0..4).map(request_number).collect();
    assert_eq!(numbers, [0, 2, 3, 4]);
    for sequence in [0, 1, 2, 1_000, u32::MAX - 1] {
        assert_eq!(sequence_of(request_number(sequence)), Some(sequence));
    }
    assert_eq!(sequence_of(1), None);
}

#[test]
fn losses_between_two_replies_are_told_apart() {
    let fortunes = [
        FINE,
        LOST_FORWARD,
        LOST_BACKWARD,
        LOST_BACKWARD,
        FINE,
        LOST_FORWARD,
        FINE,
    ];
    assert_eq!(lost(&play(Reflector::Counts, &fortunes)), (2, 2, 0, 0));
}

#[test]
fn losses_before_the_first_reply_are_told_apart_too() {
    let fortunes = [LOST_BACKWARD, LOST_FORWARD, FINE];
    assert_eq!(lost(&play(Reflector::Counts, &fortunes)), (1, 1, 0, 0));
}

#[test]
fn without_a_later_reply_losses_are_pending() {
    let fortunes = [FINE, LOST_FORWARD, LOST_BACKWARD, LOST_FORWARD];
    assert_eq!(lost(&play(Reflector::Counts, &fortunes)), (0, 0, 0, 3));
}

#[test]
fn an_outage_of_one_direction_is_told_when_it_is_over() {
    let mut fortunes = vec![FINE; 5];
    fortunes.extend([LOST_BACKWARD; 200]);
    assert_eq!(lost(&play(Reflector::Counts, &fortunes)), (0, 0, 0, 200));
    fortunes.push(FINE);
    assert_eq!(lost(&play(Reflector::Counts, &fortunes)), (0, 200, 0, 0));
}

#[test]
fn a_reflector_that_does_not_count_leaves_directions_unknown() {
    let fortunes = [FINE, LOST_FORWARD, FINE, LOST_BACKWARD, FINE, FINE];
    assert_eq!(lost(&play(Reflector::Repeats, &fortunes)), (0, 0, 2, 0));
}

#[test]
fn a_count_that_begins_anew_leaves_unknown_what_was_lost_meanwhile() {
    let mut fortunes = vec![FINE; 20];
    fortunes.extend([LOST_FORWARD, LOST_BACKWARD, FINE, FINE, LOST_FORWARD, FINE]);
    let told = play(Reflector::Restarts(22), &fortunes);
    assert_eq!(lost(&told), (1, 0, 2, 0));
    assert_eq!((told.forward.reordered, told.backward.reordered), (0, 0));
}

#[test]
fn a_probe_of_unclear_end_spoils_only_what_it_may_explain() {
    let unclear = Fortune {
        unclear: true,
        ..FINE
    };
    // Something arrived: the lost one or the unclear one.
    let fortunes = [FINE, LOST_FORWARD, unclear, FINE, LOST_BACKWARD, FINE];
    assert_eq!(lost(&play(Reflector::Counts, &fortunes)), (0, 1, 1, 0));
    // Nothing did.
    let unclear = Fortune {
        lost_forward: true,
        ..unclear
    };
    let fortunes = [FINE, LOST_FORWARD, unclear, FINE];
    assert_eq!(lost(&play(Reflector::Counts, &fortunes)), (1, 0, 0, 0));
}

#[test]
fn a_request_that_arrives_twice_is_not_taken_for_a_lost_one() {
    let doubled = Fortune {
        doubled: true,
        ..FINE
    };
    let fortunes = [FINE, doubled, LOST_FORWARD, FINE, FINE];
    assert_eq!(lost(&play(Reflector::Counts, &fortunes)), (1, 0, 0, 0));
}

#[test]
fn reordering_is_told_apart_by_direction() {
    let overtaken = |forward, backward| {
        let slow = Fortune {
            forward,
            backward,
            ..FINE
        };
        let mut fortunes = [FINE; 10];
        fortunes[4] = slow;
        // Also where a reflector that does not count would give the same number.
        let told = play(Reflector::Counts, &fortunes);
        (told.forward.reordered, told.backward.reordered)
    };
    assert_eq!(overtaken(0, 0), (0, 0));
    assert_eq!(overtaken(150, 0), (1, 0));
    assert_eq!(overtaken(0, 150), (0, 1));
}

#[test]
fn variation_is_between_neighbours_and_of_one_clock_only() {
    let mut directions = Directions::new(DEPTH);
    let mut one_way = OneWay::default();
    let delays = |forward_ns, backward_ns, clock_era| {
        Some(Delays {
            forward_ns,
            backward_ns,
            clock_era,
        })
    };
    // The clocks differ by far more than the delays.
    let heard = [
        (0, delays(-5_000_000_000, 5_000_100_000, 0)),
        (1, delays(-4_999_990_000, 5_000_097_600, 0)),
        (3, delays(-4_000_000_000, 4_000_000_000, 0)),
        (4, delays(0, 0, 1)),
        // Late, and a neighbour of both.
        (2, delays(-4_999_980_000, 5_000_097_600, 0)),
        (5, None),
    ];
    (0..6).for_each(|sequence| directions.depart(sequence));
    for (sequence, delays) in heard {
        let told = Told {
            number: sequence,
            delays,
        };
        directions.heard(sequence, told, &mut one_way);
    }
    let (forward, backward) = (one_way.forward.variation, one_way.backward.variation);
    assert_eq!(
        (forward.pairs, forward.sum_us, forward.max_us),
        (3, 10 + 10 + 999_980, 999_980)
    );
    assert_eq!(
        (backward.pairs, backward.sum_us, backward.max_us),
        (3, 2 + 1_000_098, 1_000_098)
    );
}

fn fortune(doubles: bool) -> impl Strategy<Value = Fortune> {
    (
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.2),
        prop_oneof![3 => Just(0u64), 1 => 0u64..400],
        prop_oneof![3 => Just(0u64), 1 => 0u64..400],
        prop::bool::weighted(if doubles { 0.2 } else { 0.0 }),
        prop::bool::weighted(if doubles { 0.1 } else { 0.0 }),
    )
        .prop_map(
            move |(lost_forward, lost_backward, forward, backward, doubled, unclear)| Fortune {
                lost_forward,
                lost_backward: lost_backward && !lost_forward,
                // Overtaken and then lost: the one thing that numbers do not tell.
                forward: if lost_backward && !doubles {
                    0
                } else {
                    forward
                },
                backward,
                doubled,
                unclear,
            },
        )
}

proptest! {
    /// However packets are lost or reordered: when replies have come again, each loss is known by its direction.
    #[test]
    fn every_loss_is_told_apart(fortunes in prop::collection::vec(fortune(false), 0..200)) {
        let truth = |lost: fn(&Fortune) -> bool| fortunes.iter().filter(|of| lost(of)).count() as u32;
        let truth = (truth(|of| of.lost_forward), truth(|of| of.lost_backward), 0, 0);
        // Two replies show that the reflector counts.
        let fortunes = [vec![FINE; 2], fortunes.clone(), vec![FINE; 20]].concat();
        prop_assert_eq!(lost(&play(Reflector::Counts, &fortunes)), truth);
    }

    /// Whatever happens, and whatever the reflector does, the account adds up.
    #[test]
    fn the_account_adds_up(
        fortunes in prop::collection::vec(fortune(true), 0..200),
        reflector in prop_oneof![
            Just(Reflector::Counts), Just(Reflector::Repeats), (0u32..200).prop_map(Reflector::Restarts),
        ],
    ) {
        let all = fortunes.iter().filter(|of| (of.lost_forward || of.lost_backward) && !of.unclear).count() as u32;
        let (forward, backward, unknown, pending) = lost(&play(reflector, &fortunes));
        prop_assert_eq!(forward + backward + unknown + pending, all);
    }

    /// Nothing that a reflector may say, in whichever order, makes it panic or lose a loss.
    #[test]
    fn no_numbers_upset_it(
        steps in prop::collection::vec((0u8..5, 0u32..30, any::<u32>(), 1u32..40), 0..300),
    ) {
        let (mut directions, mut one_way) = (Directions::new(DEPTH), OneWay::default());
        let (mut next, mut lost_so_far, mut under_way) = (0, 0, Vec::new());
        for (step, back, number, depth) in steps {
            let sequence = u32::saturating_sub(next, back);
            match step {
                0 | 1 => {
                    if next >= DEPTH && under_way.contains(&(next - DEPTH)) {
                        directions.ended(next - DEPTH, Unheard::Unclear, &mut one_way);
                        under_way.retain(|&other| other != next - DEPTH);
                    }
                    directions.depart(next);
                    under_way.push(next);
                    next += 1;
                }
                2 => {
                    let told = Told { number: if number % 2 == 0 { number } else { number % 40 }, delays: None };
                    if under_way.contains(&sequence) {
                        directions.heard(sequence, told, &mut one_way);
                        under_way.retain(|&other| other != sequence);
                    } else if sequence < next {
                        directions.heard_again(sequence, number);
                    }
                }
                3 if under_way.contains(&sequence) => {
                    directions.ended(sequence, Unheard::Lost, &mut one_way);
                    under_way.retain(|&other| other != sequence);
                    lost_so_far += 1;
                }
                4 if depth >= DEPTH => directions = directions.resized(DEPTH),
                _ => {}
            }
            let (forward, backward, unknown, _) = lost(&one_way);
            prop_assert_eq!(forward + backward + unknown + directions.pending(), lost_so_far);
        }
    }
}
