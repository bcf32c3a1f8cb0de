//! What agents tell, and what is said against a region for it.

use std::time::Duration;

use leeward_common::bgp::{
    Allowed, Counts, FailedLink, FeedState, Invalid, Leaks, Outside, Unsure, Validities, Validity,
};

use super::*;

#[path = "tests/properties.rs"]
mod properties;

const PREFIX: &str = "198.51.100.0/24";

fn at(secs: u64) -> Timestamp {
    Timestamp::from_unix_us(secs * 1_000_000)
}

fn region(id: &str) -> RegionId {
    id.parse().unwrap()
}

fn agent(n: usize) -> (AgentId, RegionId) {
    let region = ["a", "a", "c", "d"][n];
    (
        format!("{region}-{n}").parse().unwrap(),
        self::region(region),
    )
}

fn sight(visible: u32, gone: u32, stuck: u32) -> Sight {
    Sight {
        visible,
        gone,
        gone_sources: gone,
        stuck,
        unsure: Unsure::default(),
        outside: Outside::default(),
    }
}

fn event(secs: u64, feed: u8, what: What) -> Routing {
    Routing {
        events: vec![RoutingEvent {
            at: at(secs),
            feed: format!("feed {feed}"),
            source: [10, 0, 0, feed].into(),
            what,
            collector: None,
        }],
        ..Routing::default()
    }
}

fn prefix(secs: u64, feed: u8, change: Change, sight: Sight) -> Routing {
    let what = What::Prefix {
        prefix: PREFIX.parse().unwrap(),
        region: region("b"),
        change,
        sight,
        learned: false,
    };
    event(secs, feed, what)
}

fn withdrawn(secs: u64, feed: u8, sight: Sight) -> Routing {
    let path = "64501 64500".to_owned();
    let malformed = false;
    prefix(secs, feed, Change::Withdrawn { path, malformed }, sight)
}

/// The same, but only a malformed attribute made it.
fn as_malformed(mut routing: Routing) -> Routing {
    for event in &mut routing.events {
        if let What::Prefix { change, .. } = &mut event.what
            && let Change::Withdrawn { malformed, .. } = change
        {
            *malformed = true;
        }
    }
    routing
}

fn returned(secs: u64, feed: u8, sight: Sight) -> Routing {
    let path = "64501 64500".to_owned();
    prefix(secs, feed, Change::Returned { path }, sight)
}

fn window(sight: Sight, penalty: u32) -> Routing {
    let window = PrefixWindow {
        prefix: PREFIX.parse().unwrap(),
        region: region("b"),
        start: at(0),
        span_us: 10_000_000,
        counts: Counts::default(),
        longer_max: 0,
        edit_distance_max: 0,
        exploration_max: 0,
        penalty_fast: penalty,
        penalty_slow: penalty,
        origins: Vec::new(),
        more_specifics: Vec::new(),
        blackholed: false,
        shutting_down: false,
        sight,
        validities: Validities::default(),
        leaks: Leaks::default(),
        over_failed_link: false,
        learned: false,
    };
    Routing {
        windows: vec![window],
        ..Routing::default()
    }
}

fn feed(feed: u8, standing: Standing) -> Routing {
    let state = FeedState {
        feed: format!("feed {feed}"),
        source: [10, 0, 0, feed].into(),
        system: 64_501,
        standing,
        since: at(0),
        updates: 0,
        announced: 0,
        withdrawn: 0,
        fabricated: 0,
        collector: None,
    };
    Routing {
        feeds: vec![state],
        ..Routing::default()
    }
}

fn tell(evidence: &mut RoutingEvidence, secs: u64, from: usize, routing: &Routing) -> bool {
    let (agent, observer) = agent(from);
    evidence.on_routing(
        at(secs),
        &RoutingRules::default(),
        &agent,
        &observer,
        routing,
    )
}

fn told(reports: &[(u64, usize, Routing)]) -> RoutingEvidence {
    let mut evidence = RoutingEvidence::default();
    for (secs, from, routing) in reports {
        tell(&mut evidence, *secs, *from, routing);
    }
    evidence
}

/// As region `a` sees region `b`, over their link.
fn from_a(evidence: &RoutingEvidence) -> Outlook {
    let a = region("a");
    evidence.outlook(
        &RoutingRules::default(),
        Observers::Region(&a),
        &region("b"),
    )
}

#[test]
fn one_feed_over_the_link_that_shows_no_other_route_is_enough() {
    let outlook = from_a(&told(&[(10, 0, withdrawn(10, 1, sight(0, 1, 0)))]));
    let words = "198.51.100.0/24 was withdrawn by 10.0.0.1 at 00:00:10 UTC (its path was 64501 64500), as a-0 hears; \
                 no other route is left";
    assert_eq!(outlook.withdrawn.as_deref(), Some(words));
    assert_eq!((outlook.since, outlook.severity), (Some(at(10)), 1.0));
}

#[test]
fn a_route_over_a_link_that_failed_lowers_the_weight_until_it_moves_away() {
    let link = FailedLink {
        near: 64_501,
        far: 64_500,
        fit_permille: 900,
        lost: 40,
        remaining: 3,
        alike: 0,
    };
    let mut evidence = RoutingEvidence::default();
    // The link alone is about nobody.
    tell(&mut evidence, 10, 0, &event(10, 1, What::Link(link)));
    assert_eq!(from_a(&evidence), Outlook::default());
    let over = prefix(10, 1, Change::OverFailedLink(link), sight(1, 0, 0));
    tell(&mut evidence, 10, 0, &over);
    let outlook = from_a(&evidence);
    assert_eq!((outlook.withdrawn, outlook.severity), (None, 0.9));
    let words = "198.51.100.0/24: its route goes over AS64501-AS64500, which most likely failed (40 routes over it are lost, 3 \
                 remain), by 10.0.0.1 at 00:00:10 UTC";
    assert_eq!(outlook.words, [words]);
    let mut still = window(sight(1, 0, 0), 0);
    still.windows[0].over_failed_link = true;
    tell(&mut evidence, 20, 0, &still);
    assert_eq!(from_a(&evidence).severity, 0.9);
    tell(&mut evidence, 30, 0, &window(sight(1, 0, 0), 0));
    assert_eq!(from_a(&evidence), Outlook::default());
}

#[test]
fn a_feed_that_shows_another_route_lowers_the_weight_and_forces_nothing() {
    let outlook = from_a(&told(&[(10, 0, withdrawn(10, 1, sight(1, 1, 0)))]));
    assert_eq!((outlook.withdrawn, outlook.severity), (None, 0.5));
    assert!(
        outlook.words[0].ends_with("one still shows a route"),
        "{:?}",
        outlook.words
    );
}

#[test]
fn a_route_that_comes_back_is_a_way_although_another_stays_withdrawn() {
    let both = || {
        told(&[
            (10, 0, withdrawn(10, 1, sight(1, 1, 0))),
            (11, 0, withdrawn(11, 2, sight(0, 2, 0))),
        ])
    };
    for back in [returned(12, 1, sight(1, 1, 0)), window(sight(1, 1, 0), 0)] {
        let mut evidence = both();
        assert!(from_a(&evidence).withdrawn.is_some());
        tell(&mut evidence, 12, 0, &back);
        let outlook = from_a(&evidence);
        assert_eq!(outlook.withdrawn, None, "{back:?}");
        assert!(outlook.severity < 1.0, "{outlook:?}");
    }
}

#[test]
fn another_agent_of_the_region_that_shows_a_route_is_another_way() {
    let other = (5, 1, window(sight(1, 0, 0), 0));
    let outlook = from_a(&told(&[other, (10, 0, withdrawn(10, 1, sight(0, 1, 0)))]));
    assert_eq!((outlook.withdrawn, outlook.severity), (None, 0.5));
}

#[test]
fn a_prefix_around_it_or_within_it_that_is_shown_is_another_way() {
    let shows = |other: &str| {
        let mut routing = window(sight(1, 0, 0), 0);
        routing.windows[0].prefix = other.parse().unwrap();
        routing
    };
    let gone = || withdrawn(10, 1, sight(0, 1, 0));
    for other in ["198.51.0.0/16", "198.51.100.128/25"] {
        let evidence = told(&[(5, 0, shows(other)), (10, 0, gone())]);
        let outlook = from_a(&evidence);
        assert_eq!(outlook.withdrawn, None, "{other}");
        assert!(
            outlook.severity > 0.0
                && outlook.words[0].ends_with(&format!(
                    "no other route is left, but {other} is still shown"
                ))
        );
    }
    // One that nobody who judges shows, and one beside it, are none.
    for (from, other) in [(2, "198.51.0.0/16"), (0, "198.51.101.0/24")] {
        let evidence = told(&[(5, from, shows(other)), (10, 0, gone())]);
        assert!(from_a(&evidence).withdrawn.is_some(), "{other}");
    }
    let mut hides = shows("198.51.0.0/16");
    hides.windows[0].sight = sight(0, 0, 0);
    let evidence = told(&[(5, 0, hides), (10, 0, gone())]);
    assert!(
        from_a(&evidence).withdrawn.is_some(),
        "known, and never shown"
    );
}

#[test]
fn of_prefixes_that_were_learned_all_must_be_gone() {
    let learned = |mut routing: Routing| {
        for event in &mut routing.events {
            if let What::Prefix { learned, .. } = &mut event.what {
                *learned = true;
            }
        }
        routing
    };
    let gone = || learned(withdrawn(10, 1, sight(0, 1, 0)));
    let other = |reached: &str| {
        let mut routing = window(sight(1, 0, 0), 0);
        routing.windows[0].prefix = "203.0.113.0/24".parse().unwrap();
        routing.windows[0].region = region(reached);
        routing.windows[0].learned = true;
        routing
    };
    // Another agent of the region stands in another prefix, which is still shown.
    let evidence = told(&[(5, 0, other("b")), (10, 0, gone())]);
    assert_eq!(from_a(&evidence).withdrawn, None);
    assert!(from_a(&evidence).severity > 0.0);
    let evidence = told(&[(5, 0, other("c")), (10, 0, gone())]);
    assert!(from_a(&evidence).withdrawn.is_some(), "another region's");
    // What somebody declared is what counts.
    let declared = withdrawn(10, 1, sight(0, 1, 0));
    let evidence = told(&[(5, 0, other("b")), (10, 0, declared)]);
    assert!(from_a(&evidence).withdrawn.is_some());
}

#[test]
fn of_regions_that_hear_no_routers_two_feeds_elsewhere_must_agree() {
    let one = (10, 2, withdrawn(10, 1, sight(0, 1, 0)));
    let other = (11, 2, withdrawn(11, 2, sight(0, 2, 0)));
    assert_eq!(from_a(&told(std::slice::from_ref(&one))).withdrawn, None);
    assert!(from_a(&told(&[one, other])).withdrawn.is_some());
}

/// A withdrawal by a feed of this router.
fn withdrawn_at(secs: u64, feed: u8, router: &str) -> Routing {
    let mut routing = withdrawn(secs, feed, sight(0, 1, 0));
    routing.events[0].source = router.parse().unwrap();
    routing
}

#[test]
fn two_feeds_of_one_router_are_one_word() {
    for (routers, agents, agree) in [
        // Two views of it, or two neighbours; and the same heard by another agent.
        (["10.0.0.1", "10.0.0.1"], [2, 2], false),
        (["10.0.0.1", "10.0.0.1"], [2, 3], false),
        (["10.0.0.1", "10.0.0.2"], [2, 2], true),
        // On every host and link these are others.
        (["127.0.0.1", "127.0.0.1"], [2, 2], false),
        (["127.0.0.1", "127.0.0.1"], [2, 3], true),
        (["fe80::1", "fe80::1"], [2, 3], true),
    ] {
        let evidence = told(&[
            (10, agents[0], withdrawn_at(10, 1, routers[0])),
            (11, agents[1], withdrawn_at(11, 2, routers[1])),
        ]);
        let outlook = from_a(&evidence);
        assert_eq!(outlook.withdrawn.is_some(), agree, "{routers:?} {agents:?}");
        assert_eq!(outlook.severity, 1.0);
    }
}

#[test]
fn who_hears_routers_is_not_told_by_others_what_they_show() {
    let own = (5, 0, window(sight(2, 0, 0), 0));
    let one = (10, 2, withdrawn(10, 1, sight(0, 1, 0)));
    let other = (11, 2, withdrawn(11, 2, sight(0, 2, 0)));
    assert_eq!(from_a(&told(&[own, one, other])), Outlook::default());
}

#[test]
fn a_stuck_route_is_a_route_and_becoming_stuck_is_no_withdrawal() {
    let stuck = told(&[
        (10, 0, withdrawn(10, 1, sight(1, 1, 0))),
        (20, 0, window(sight(0, 1, 1), 0)),
    ]);
    assert_eq!(from_a(&stuck).withdrawn, None);
    let stuck = told(&[(10, 0, withdrawn(10, 1, sight(0, 1, 1)))]);
    assert_eq!(from_a(&stuck).withdrawn, None);
}

#[test]
fn what_a_feed_withdrew_is_forgotten_with_its_trust() {
    let down = || {
        let (why, watched) = (String::new(), 1);
        What::Feed(FeedChange::Down { why, watched })
    };
    let fabricated = 3;
    let troubles = [
        event(20, 1, down()),
        event(20, 1, What::Feed(FeedChange::Up)),
        event(20, 1, What::Feed(FeedChange::Untrusted { fabricated })),
        feed(1, Standing::Lost),
        feed(1, Standing::Loading),
        feed(1, Standing::Untrusted),
        returned(20, 1, sight(1, 0, 0)),
        window(sight(0, 0, 0), 0),
    ];
    for trouble in troubles {
        let mut evidence = told(&[(10, 0, withdrawn(10, 1, sight(0, 1, 0)))]);
        assert!(from_a(&evidence).withdrawn.is_some());
        assert!(tell(&mut evidence, 20, 0, &trouble), "{trouble:?}");
        assert_eq!(from_a(&evidence), Outlook::default(), "{trouble:?}");
    }
}

#[test]
fn another_feeds_loss_takes_no_route_away() {
    let mut evidence = told(&[(10, 0, withdrawn(10, 1, sight(1, 1, 0)))]);
    let before = from_a(&evidence);
    let down = FeedChange::Down {
        why: String::new(),
        watched: 1,
    };
    tell(&mut evidence, 20, 0, &event(20, 2, What::Feed(down)));
    tell(&mut evidence, 21, 0, &window(sight(0, 1, 0), 0));
    assert_eq!(from_a(&evidence), before);
}

/// The same sight, and feeds of which nobody knows, as was known last at this time.
fn with_unsure(sight: Sight, feeds: u32, secs: u64) -> Sight {
    let known_at = at(secs);
    Sight {
        unsure: Unsure { feeds, known_at },
        ..sight
    }
}

#[test]
fn a_feed_that_was_lost_before_another_withdraws_still_shows_its_route() {
    let own = (5, 0, window(sight(2, 0, 0), 0));
    let down = FeedChange::Down {
        why: String::new(),
        watched: 1,
    };
    let lost = (6, 0, event(6, 2, What::Feed(down)));
    let gone = |secs| withdrawn(secs, 1, with_unsure(sight(0, 1, 0), 1, 6));
    let mut evidence = told(&[own, lost, (10, 0, gone(10))]);
    let outlook = from_a(&evidence);
    assert_eq!((&outlook.withdrawn, outlook.severity), (&None, 0.5));
    // And it is no withdrawal, whatever windows show.
    let seen = window(with_unsure(sight(0, 1, 0), 1, 6), 0);
    tell(&mut evidence, 20, 0, &seen);
    assert_eq!(from_a(&evidence), outlook);
    // Until that is as old as anything that was told: what others withdraw then takes the last route away.
    let lasts = RoutingRules::default().lasts.as_secs();
    tell(&mut evidence, 5 + lasts, 0, &gone(5 + lasts));
    assert_eq!(from_a(&evidence).withdrawn, None);
    tell(&mut evidence, 6 + lasts, 0, &gone(6 + lasts));
    assert!(from_a(&evidence).withdrawn.is_some());
}

#[test]
fn what_a_malformed_attribute_withdraws_lowers_the_weight_and_forces_nothing() {
    let malformed = as_malformed(withdrawn(10, 1, sight(0, 1, 0)));
    let mut evidence = told(&[(10, 0, malformed)]);
    let outlook = from_a(&evidence);
    assert_eq!((&outlook.withdrawn, outlook.severity), (&None, 0.5));
    let words = "by 10.0.0.1 at 00:00:10 UTC by a malformed attribute (its path was 64501 64500)";
    assert!(outlook.words[0].contains(words), "{:?}", outlook.words);
    // Once the neighbour withdraws it itself, it does.
    let mut meant = told(&[(10, 0, as_malformed(withdrawn(10, 1, sight(0, 1, 0))))]);
    tell(&mut meant, 12, 0, &withdrawn(12, 1, sight(0, 1, 0)));
    assert!(from_a(&meant).withdrawn.is_some());
    // Nor does it with the withdrawal of another feed, whose agent tells that nobody knows of the first.
    let other = withdrawn(11, 2, with_unsure(sight(0, 2, 0), 1, 10));
    tell(&mut evidence, 11, 0, &other);
    assert_eq!(from_a(&evidence).withdrawn, None);
}

#[test]
fn evidence_ends_after_its_time_and_with_the_agents_start() {
    let rules = RoutingRules::default();
    let new = || told(&[(10, 0, withdrawn(10, 1, sight(0, 1, 0)))]);
    let mut evidence = new();
    let end = at(10) + rules.lasts;
    assert_eq!(evidence.next_expiry(&rules), Some(end));
    assert!(!evidence.expire(end - Duration::from_micros(1), &rules));
    assert!(evidence.expire(end, &rules));
    assert_eq!(from_a(&evidence), Outlook::default());
    let mut evidence = new();
    assert!(evidence.forget_agent(at(20), &agent(0).0));
    assert_eq!(from_a(&evidence), Outlook::default());
}

#[test]
fn what_an_agent_heard_long_ago_is_no_evidence_when_it_is_told_at_last() {
    let late = told(&[(1_000, 0, withdrawn(10, 1, sight(0, 1, 0)))]);
    assert_eq!(from_a(&late), Outlook::default());
}

#[test]
fn what_a_region_hears_of_itself_says_nothing() {
    let mut evidence = RoutingEvidence::default();
    let (agent, rules) = ("b-0".parse().unwrap(), RoutingRules::default());
    let routing = withdrawn(10, 1, sight(0, 1, 0));
    evidence.on_routing(at(10), &rules, &agent, &region("b"), &routing);
    let all = evidence.outlook(&rules, Observers::AllBut(None), &region("b"));
    assert_eq!(all, Outlook::default());
}

#[test]
fn instability_lowers_within_the_bound_and_is_never_a_gate() {
    let rules = RoutingRules::default();
    for (penalty, severity) in [(500, 0.25), (2_000, 1.0), (12_000, 1.0)] {
        let outlook = from_a(&told(&[(10, 0, window(sight(1, 0, 0), penalty))]));
        assert_eq!((&outlook.withdrawn, outlook.severity), (&None, severity));
        assert_eq!(outlook.log_value(&rules), -severity * 2.0_f64.ln());
    }
    let exploring = Change::Exploring {
        paths: 2,
        path: String::new(),
    };
    let mut evidence = told(&[(10, 0, prefix(10, 1, exploring, sight(2, 0, 0)))]);
    assert_eq!(from_a(&evidence).severity, 0.25);
    let (from, to) = (Some(64_500), Some(64_666));
    let origin = prefix(11, 1, Change::OriginChanged { from, to }, sight(2, 0, 0));
    tell(&mut evidence, 11, 0, &origin);
    let outlook = from_a(&evidence);
    assert_eq!((outlook.withdrawn, outlook.severity), (None, 1.0));
    let words = outlook.words.join("; ");
    assert!(
        words.contains("from AS64500 to AS64666, by 10.0.0.1"),
        "{words}"
    );
}

/// A route of the prefix, or of a part of it, that became invalid.
fn invalid(secs: u64, feed: u8, announced: &str) -> Routing {
    let invalid = Invalid {
        prefix: announced.parse().unwrap(),
        origin: Some(64_666),
        was: Some(Validity::Valid),
        is: Validity::InvalidOrigin,
        allowed: vec![Allowed {
            prefix: PREFIX.parse().unwrap(),
            length_max: 24,
            system: 64_500,
        }],
    };
    prefix(secs, feed, Change::Invalid(invalid), sight(1, 0, 0))
}

fn looks(validities: Validities, leaks: Leaks) -> Routing {
    let mut routing = window(sight(1, 0, 0), 0);
    (routing.windows[0].validities, routing.windows[0].leaks) = (validities, leaks);
    routing
}

#[test]
fn a_route_that_became_invalid_counts_in_full_until_a_window_shows_none() {
    let rules = RoutingRules::default();
    let mut evidence = told(&[(10, 0, invalid(10, 1, PREFIX))]);
    let outlook = from_a(&evidence);
    assert_eq!((&outlook.withdrawn, outlook.severity), (&None, 1.0));
    assert_eq!(outlook.log_value(&rules), -(2.0_f64.ln()));
    assert_eq!(
        outlook.words,
        [
            "198.51.100.0/24: 198.51.100.0/24 from AS64666 is invalid by its origin (RPKI; it was valid); allowed is AS64500 \
             for 198.51.100.0/24, by 10.0.0.1 at 00:00:10 UTC"
        ]
    );
    let still = Validities {
        invalid_origin: 1,
        ..Validities::default()
    };
    tell(&mut evidence, 20, 0, &looks(still, Leaks::default()));
    assert_eq!(from_a(&evidence).severity, 1.0);
    let unknown = Validities {
        unknown: 1,
        ..Validities::default()
    };
    tell(&mut evidence, 30, 0, &looks(unknown, Leaks::default()));
    assert_eq!(from_a(&evidence), Outlook::default());
}

#[test]
fn what_routes_look_like_begins_with_an_event_and_windows_begin_nothing() {
    let validities = Validities {
        invalid_origin: 3,
        unknown: 2,
        ..Validities::default()
    };
    let leaks = Leaks {
        valley: 2,
        only_to_customer: 1,
    };
    let evidence = told(&[(10, 0, looks(validities, leaks))]);
    assert_eq!(from_a(&evidence), Outlook::default());
}

#[test]
fn an_invalid_part_outlasts_windows_that_show_the_prefix_valid() {
    let mut evidence = told(&[(10, 0, invalid(10, 1, "198.51.100.128/25"))]);
    let valid = Validities {
        valid: 1,
        ..Validities::default()
    };
    tell(&mut evidence, 20, 0, &looks(valid, Leaks::default()));
    assert_eq!(from_a(&evidence).severity, 1.0);
    evidence.expire(at(310), &RoutingRules::default());
    assert_eq!(from_a(&evidence), Outlook::default());
}

#[test]
fn a_route_that_looks_leaked_lowers_the_weight_by_how_sure_the_sign_is() {
    let leaked = |sign| {
        let path = "174 64666 3356 64500".to_owned();
        prefix(10, 1, Change::Leaked { sign, path }, sight(1, 0, 0))
    };
    let valley = LeakSign::Valley {
        upper: 174,
        through: 64_666,
        lower: 3_356,
    };
    let marked = LeakSign::OnlyToCustomer {
        marked_by: 3_356,
        heard_by: 64_666,
    };
    for (sign, severity, words) in [
        (valley, 0.5, "AS64666 passes it from AS3356 to AS174"),
        (
            marked,
            1.0,
            "AS3356 marked it for its customers only, and AS64666 passes it on",
        ),
    ] {
        let mut evidence = told(&[(10, 0, leaked(sign))]);
        let outlook = from_a(&evidence);
        assert_eq!((outlook.withdrawn, outlook.severity), (None, severity));
        assert!(outlook.words[0].contains(words), "{:?}", outlook.words);
        tell(
            &mut evidence,
            20,
            0,
            &looks(Validities::default(), Leaks::default()),
        );
        assert_eq!(from_a(&evidence), Outlook::default());
    }
}

/// The same as a peer of a route collector tells.
fn elsewhere(
    mut routing: Routing,
    peer: u8,
    collector: &str,
    (visible, gone): (u32, u32),
) -> Routing {
    let event = &mut routing.events[0];
    event.feed = format!("192.0.2.{peer} at {collector}");
    event.collector = Some(collector.to_owned());
    if let What::Prefix { sight, .. } = &mut event.what {
        *sight = Sight::default();
        (sight.outside.visible, sight.outside.gone) = (visible, gone);
    }
    routing
}

#[test]
fn collectors_elsewhere_lower_the_weight_when_several_agree_and_force_nothing() {
    let gone = |secs, peer, collector, seen| {
        (
            secs,
            0,
            elsewhere(withdrawn(secs, peer, sight(0, 0, 0)), peer, collector, seen),
        )
    };
    let two = [gone(10, 1, "rrc01", (2, 1)), gone(11, 2, "rrc21", (1, 2))];
    assert_eq!(
        from_a(&told(&two)),
        Outlook::default(),
        "two are not enough"
    );
    let one_collector = [1, 2, 3, 4].map(|peer| gone(10, peer, "rrc01", (0, 4)));
    assert_eq!(
        from_a(&told(&one_collector)),
        Outlook::default(),
        "nor is one collector"
    );
    let mut evidence = told(&two);
    let (.., third) = gone(12, 3, "rrc21", (1, 3));
    tell(&mut evidence, 12, 0, &third);
    let outlook = from_a(&evidence);
    assert_eq!((&outlook.withdrawn, outlook.severity), (&None, 0.75));
    assert_eq!(
        outlook.words,
        [
            "198.51.100.0/24: withdrawn elsewhere (its path was 64501 64500), by 192.0.2.3 at rrc21 at 00:00:12 UTC, as 3 peers \
             of 2 route collectors tell"
        ]
    );
    // One of them has a route again.
    let back = elsewhere(returned(13, 1, sight(0, 0, 0)), 1, "rrc01", (2, 2));
    tell(&mut evidence, 13, 0, &back);
    assert_eq!(from_a(&evidence), Outlook::default());
}

#[test]
fn collectors_elsewhere_neither_are_routers_of_the_region_nor_stand_in_their_way() {
    let rules = RoutingRules::default();
    // Agent 0 of region a hears collectors only, which still show the route.
    let mut seen = window(sight(0, 0, 0), 0);
    seen.windows[0].sight.outside.visible = 300;
    let mut evidence = told(&[(9, 0, seen)]);
    // The routers of region c withdraw it, by two feeds.
    for feed in [1, 2] {
        tell(
            &mut evidence,
            10,
            2,
            &withdrawn(10, feed, sight(0, u32::from(feed), 0)),
        );
    }
    let a = region("a");
    let outlook = evidence.outlook(&rules, Observers::Region(&a), &region("b"));
    assert!(
        outlook.withdrawn.is_some(),
        "region a has no routers, so those of others count: {outlook:?}"
    );
}

#[test]
fn trouble_of_one_feed_elsewhere_leaves_what_others_tell() {
    let from_nobody = Change::OriginChanged {
        from: Some(64_500),
        to: Some(64_666),
    };
    let mut evidence = RoutingEvidence::default();
    for (peer, collector) in [(1, "rrc01"), (2, "rrc01"), (3, "rrc21"), (4, "rrc21")] {
        let told = prefix(10, peer, from_nobody.clone(), sight(0, 0, 0));
        tell(
            &mut evidence,
            10,
            0,
            &elsewhere(told, peer, collector, (4, 0)),
        );
    }
    // A feed that nobody heard of comes up; one of these is lost; then another.
    for (peer, severity) in [(9, 1.0), (1, 1.0), (2, 0.0)] {
        let (why, watched) = (String::new(), 1);
        let down = event(11, peer, What::Feed(FeedChange::Down { why, watched }));
        tell(
            &mut evidence,
            11,
            0,
            &elsewhere(down, peer, "rrc01", (0, 0)),
        );
        assert_eq!(from_a(&evidence).severity, severity, "without {peer}");
    }
    evidence.expire(at(400), &RoutingRules::default());
    assert_eq!(evidence.len(), 0);
}

fn origin(secs: u64, feed: u8) -> Routing {
    let (from, to) = (Some(64_500), Some(64_666));
    prefix(
        secs,
        feed,
        Change::OriginChanged { from, to },
        sight(2, 0, 0),
    )
}

#[test]
fn trouble_of_one_feed_leaves_what_others_told() {
    let both = [(10, 0, origin(10, 1)), (11, 0, origin(11, 2))];
    for standing in [Standing::Lost, Standing::Loading, Standing::Untrusted] {
        let mut evidence = told(&both);
        // One that has been so for a week says so with every window.
        for secs in [20, 30, 40] {
            assert!(!tell(&mut evidence, secs, 0, &feed(3, standing)));
        }
        assert_eq!(from_a(&evidence).words.len(), 1);
        for (feed, severity) in [(2, 1.0), (1, 0.0)] {
            assert!(tell(&mut evidence, 50, 0, &self::feed(feed, standing)));
            assert_eq!(from_a(&evidence).severity, severity, "without {feed}");
        }
    }
    let mut evidence = told(&both);
    evidence.expire(at(400), &RoutingRules::default());
    assert_eq!(evidence.len(), 0);
}

#[test]
fn a_snapshot_of_before_feeds_were_told_apart_is_read() {
    let mut evidence = told(&[(10, 0, window(sight(1, 0, 0), 2_000))]);
    let text = serde_json::to_string(&evidence).unwrap();
    let before = text.replace(r#""told":{},"#, "");
    assert_ne!(text, before);
    evidence = serde_json::from_str(&before).unwrap();
    assert_eq!(from_a(&evidence).severity, 1.0);
}

#[test]
fn memory_is_bounded_and_what_is_beyond_it_says_nothing() {
    let mut evidence = RoutingEvidence::default();
    for n in 0..MAX_ACCOUNTS + 10 {
        let mut routing = withdrawn(10, 1, sight(0, 1, 0));
        let What::Prefix { prefix, .. } = &mut routing.events[0].what else {
            continue;
        };
        let address = std::net::Ipv4Addr::from_bits((n as u32) << 8);
        *prefix = Prefix::new(address.into(), 24).unwrap();
        tell(&mut evidence, 10, 0, &routing);
    }
    assert_eq!(evidence.len(), MAX_ACCOUNTS);
    let mut evidence = RoutingEvidence::default();
    for n in 0..MAX_FEEDS + 10 {
        let mut routing = withdrawn(10, 1, sight(0, 1, 0));
        routing.events[0].feed = n.to_string();
        tell(&mut evidence, 10, 0, &routing);
    }
    let feeds: usize = evidence.accounts().map(|own| own.withdrawals.len()).sum();
    assert_eq!(feeds, MAX_FEEDS);
}

/// An agent begins anew and hears one router before the others: what they showed its former process they may still show.
#[test]
fn nobody_is_left_by_an_agent_that_has_just_begun_anew() {
    let rules = RoutingRules::default();
    let gone = withdrawn(20, 1, sight(0, 1, 0));
    for (showed, leaves) in [(0, true), (2, false)] {
        let mut evidence = RoutingEvidence::default();
        tell(&mut evidence, 1, 0, &window(sight(showed, 0, 0), 0));
        evidence.forget_agent(at(15), &agent(0).0);
        tell(&mut evidence, 20, 0, &gone);
        let outlook = from_a(&evidence);
        assert_eq!(outlook.withdrawn.is_some(), leaves, "{outlook:?}");
        assert_eq!(outlook.severity, 1.0);
        // In time it is as good as any.
        evidence.expire(at(15) + rules.lasts, &rules);
        tell(&mut evidence, 316, 0, &withdrawn(316, 1, sight(0, 1, 0)));
        assert!(from_a(&evidence).withdrawn.is_some());
    }
}

/// What there is no room for might be another way.
#[test]
fn nobody_is_left_beside_an_agent_of_whom_not_all_is_remembered() {
    let mut evidence = RoutingEvidence::default();
    let own = window(sight(1, 0, 0), 0);
    for chunk in (0..MAX_SEEN as u32).collect::<Vec<_>>().chunks(1_024) {
        let mut many = Routing::default();
        for n in chunk {
            let mut window = own.windows[0].clone();
            window.prefix = Prefix::new(std::net::Ipv4Addr::from_bits(n << 8).into(), 24).unwrap();
            many.windows.push(window);
        }
        tell(&mut evidence, 1, 2, &many);
    }
    assert!(evidence.partly.is_empty());
    // One agent of the region shows a route, and another withdraws its own.
    assert!(tell(&mut evidence, 2, 0, &own));
    let gone = withdrawn(10, 1, sight(0, 1, 0));
    tell(&mut evidence, 10, 1, &gone);
    let outlook = from_a(&evidence);
    assert_eq!((&outlook.withdrawn, outlook.severity), (&None, 1.0));
    let words = "no other route is known, but agents may show more than is remembered";
    assert!(outlook.words[0].ends_with(words), "{:?}", outlook.words);
    // Those begin anew of whom something is not remembered, and there is room.
    for from in [2, 0, 1] {
        evidence.forget_agent(at(15), &agent(from).0);
    }
    assert!(evidence.seen.is_empty() && !evidence.partly.is_empty());
    evidence.expire(
        at(15) + RoutingRules::default().lasts,
        &RoutingRules::default(),
    );
    assert!(evidence.partly.is_empty());
    tell(&mut evidence, 20, 1, &gone);
    assert!(from_a(&evidence).withdrawn.is_some());
    tell(&mut evidence, 21, 0, &own);
    assert_eq!(from_a(&evidence).withdrawn, None);
}
