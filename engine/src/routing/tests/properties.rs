//! What holds whatever is told.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// Anything that three agents may tell.
fn anything() -> impl Strategy<Value = (u64, usize, Routing)> {
    let sights = (0u32..3, 0u32..3, 0u32..2).prop_map(|(a, b, c)| sight(a, b, c));
    let of = (0u8..4, sights, 0u32..4_000, 0u8..9);
    (0u64..400, 0usize..3, of).prop_map(|(secs, from, (number, sight, penalty, kind))| {
        let path = String::new();
        let paths = penalty / 500;
        let routing = match kind {
            0..=3 => withdrawn(secs, number, sight),
            4 => returned(secs, number, sight),
            5 if penalty % 2 == 0 => invalid(secs, number, PREFIX),
            5 => prefix(secs, number, Change::Exploring { paths, path }, sight),
            6 => window(sight, penalty),
            _ => trouble(secs, number, kind, sight),
        };
        let routing = match (penalty % 3, routing.events.is_empty()) {
            (0, false) => elsewhere(
                routing,
                number,
                ["rrc01", "rrc21"][from % 2],
                (sight.visible, sight.gone),
            ),
            _ => routing,
        };
        (secs, from, routing)
    })
}

/// What befalls a feed: it says nothing of any prefix.
fn trouble(secs: u64, number: u8, kind: u8, sight: Sight) -> Routing {
    let (why, watched, fabricated) = (String::new(), 1, 3);
    match kind % 8 {
        0 => event(secs, number, What::Feed(FeedChange::Down { why, watched })),
        1 => event(secs, number, What::Feed(FeedChange::Up)),
        2 => event(secs, number, What::Feed(FeedChange::Loaded)),
        3 => event(
            secs,
            number,
            What::Feed(FeedChange::Untrusted { fabricated }),
        ),
        4 => feed(number, Standing::Lost),
        5 => feed(number, Standing::Loading),
        6 => feed(number, Standing::Untrusted),
        _ => window(sight, 0),
    }
}

fn troubles() -> impl Strategy<Value = (usize, Routing)> {
    let sights = (0u32..3, 0u32..3, 0u32..2).prop_map(|(a, b, c)| sight(a, b, c));
    (0usize..3, 0u8..4, 0u8..8, sights)
        .prop_map(|(from, number, kind, sight)| (from, trouble(400, number, kind, sight)))
}

fn outlooks(evidence: &RoutingEvidence) -> Vec<Outlook> {
    let (a, b, c) = (region("a"), region("b"), region("c"));
    let both = BTreeSet::from([&a, &c]);
    let from = [
        Observers::Region(&a),
        Observers::Region(&c),
        Observers::Regions(&both),
        Observers::AllBut(None),
        Observers::AllBut(Some(&a)),
    ];
    let rules = RoutingRules::default();
    from.map(|from| evidence.outlook(&rules, from, &b)).into()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Where nothing was withdrawn nothing is said against anybody.
    #[test]
    fn feeds_that_fail_and_come_back_say_nothing(troubles in prop::collection::vec(troubles(), 0..20)) {
        let mut evidence = RoutingEvidence::default();
        for (from, trouble) in &troubles {
            tell(&mut evidence, 400, *from, trouble);
            prop_assert!(outlooks(&evidence).into_iter().all(|own| own == Outlook::default()));
        }
    }

    /// Whatever is known, trouble of feeds makes no region look worse.
    #[test]
    fn trouble_of_feeds_is_never_held_against_a_region(
        mut told in prop::collection::vec(anything(), 0..20), troubles in prop::collection::vec(troubles(), 1..6)
    ) {
        told.sort_by_key(|(secs, ..)| *secs);
        let mut evidence = self::told(&told);
        for (from, trouble) in &troubles {
            let before = outlooks(&evidence);
            tell(&mut evidence, 400, *from, trouble);
            for (before, after) in before.iter().zip(outlooks(&evidence)) {
                prop_assert!(after.severity <= before.severity, "{before:?} became {after:?}");
                prop_assert!(after.withdrawn.is_none() || before.withdrawn.is_some(), "{before:?} became {after:?}");
            }
        }
    }

    /// Whatever is known, trouble of a feed that told nothing takes nothing away.
    #[test]
    fn trouble_of_a_feed_takes_only_its_own_word_away(
        mut told in prop::collection::vec(anything(), 0..20), troubles in prop::collection::vec((0usize..3, 0u8..7), 1..6)
    ) {
        told.sort_by_key(|(secs, ..)| *secs);
        let mut evidence = self::told(&told);
        let before = outlooks(&evidence);
        for (from, kind) in troubles {
            tell(&mut evidence, 400, from, &trouble(400, 9, kind, Sight::default()));
            prop_assert_eq!(&outlooks(&evidence), &before);
        }
    }

    /// However many feeds of one router withdraw, to whoever hears them: only over a link that it serves is that enough.
    #[test]
    fn one_router_never_moves_those_whom_it_does_not_serve(
        told in prop::collection::vec((0u64..100, 0usize..4, 0u8..9), 1..20), router in 1u8..9
    ) {
        let told: Vec<_> = told
            .into_iter()
            .map(|(secs, from, feed)| (secs, from, withdrawn_at(secs, feed, &format!("10.0.0.{router}"))))
            .collect();
        let evidence = self::told(&told);
        let (a, c) = (region("a"), region("c"));
        let both = BTreeSet::from([&a, &c]);
        for from in [Observers::Regions(&both), Observers::AllBut(None), Observers::Region(&region("e"))] {
            let outlook = evidence.outlook(&RoutingRules::default(), from, &region("b"));
            prop_assert_eq!(outlook.withdrawn, None);
        }
    }

    /// Whatever else is told, where only malformed attributes withdrew nobody is left.
    #[test]
    fn malformed_attributes_never_force_a_move(told in prop::collection::vec(anything(), 0..20)) {
        let told: Vec<_> = told.into_iter().map(|(secs, from, told)| (secs, from, as_malformed(told))).collect();
        for outlook in outlooks(&self::told(&told)) {
            prop_assert_eq!(outlook.withdrawn, None);
        }
    }

    /// What routers tell divides a weight by the bound at most, and never multiplies it.
    #[test]
    fn no_weight_is_raised_and_none_falls_below_the_bound(
        told in prop::collection::vec(anything(), 0..20), max_factor in 0.5f64..10.0
    ) {
        let rules = RoutingRules { max_factor, ..RoutingRules::default() };
        for outlook in outlooks(&self::told(&told)) {
            let factor = outlook.log_value(&rules).exp();
            prop_assert!(factor <= 1.0 && factor >= 1.0 / max_factor.max(1.0) - 1e-12, "{factor}");
        }
    }
}
