//! Services: where each should run, as its own clients see it.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod bench;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bench::{Bench, SECOND, WELL, policy, region, service};
use leeward_common::id::{OfferId, OverrideId, ReservationId, ResourceId, ServiceId};
use leeward_engine::{
    decision::{Decision, Reason},
    input::{Input, Metric, Subject},
    intent::{
        Amendment, Change, Limits, Offer, Override, Owner, Replication, Reservation, Rule, Service,
    },
    placement::what_if,
    readiness::ReadinessState,
    select::RefusalCode,
    view::NoticeCode,
};

fn put(bench: &mut Bench, id: &str, what: Service) {
    let change = Change {
        who: "ops".to_owned(),
        why: String::new(),
        what: Amendment::PutService(ServiceId::parse(id).unwrap(), Box::new(what)),
    };
    bench.step(bench.now(), &Input::Change(Box::new(change)));
}

fn runs_in(bench: &Bench, id: &str) -> Option<String> {
    let owner = Owner::Service(ServiceId::parse(id).unwrap());
    let view = bench.engine.view();
    let selected = view.selection(&owner)?.selected.clone();
    selected.map(|region| region.to_string())
}

#[test]
fn a_service_runs_at_home_while_all_is_well() {
    let mut bench = Bench::four();
    put(&mut bench, "shop", service("b"));
    bench.run(30, WELL);
    assert_eq!(runs_in(&bench, "shop").as_deref(), Some("b"));
    assert!(bench.decisions.iter().all(|own| own.service.is_none()));
}

#[test]
fn a_service_leaves_a_region_that_is_lost() {
    let mut bench = Bench::four();
    put(&mut bench, "shop", service("b"));
    bench.run(10, WELL);
    bench.run(10, |from, to| match from.starts_with('b') {
        true => None,
        false => Some((if to.starts_with('b') { 0 } else { 10 }, 20_000)),
    });
    let moved: Vec<_> = bench
        .decisions
        .iter()
        .filter(|own| own.service.is_some())
        .collect();
    assert_eq!(moved.len(), 1, "{moved:?}");
    assert_eq!(moved[0].reason, Reason::Down);
    assert_eq!(moved[0].from, Some(region("b")));
    assert!(moved[0].summary.starts_with("shop should run in "));
    assert_ne!(runs_in(&bench, "shop").as_deref(), Some("b"));
}

/// Trouble between one client region and the home is not trouble of the home, unless these are the clients.
#[test]
fn trouble_of_one_observer_moves_only_a_service_whose_clients_it_is() {
    let mut bench = Bench::four();
    put(&mut bench, "everywhere", service("b"));
    let mut mine = service("b");
    mine.clients.insert(region("d"), 1.0);
    put(&mut bench, "mine", mine);
    bench.run(10, WELL);
    bench.run(60, |from, to| {
        let pair = [&from[..1], &to[..1]];
        let broken = pair.contains(&"b") && pair.contains(&"d");
        Some((if broken { 5 } else { 10 }, 20_000))
    });
    assert_eq!(runs_in(&bench, "everywhere").as_deref(), Some("b"));
    assert_ne!(runs_in(&bench, "mine").as_deref(), Some("b"));
}

#[test]
fn a_service_that_is_removed_has_no_selection() {
    let mut bench = Bench::four();
    put(&mut bench, "shop", service("b"));
    let change = Change {
        who: "ops".to_owned(),
        why: "gone".to_owned(),
        what: Amendment::RemoveService(ServiceId::parse("shop").unwrap()),
    };
    bench.step(bench.now(), &Input::Change(Box::new(change)));
    assert_eq!(runs_in(&bench, "shop"), None);
    assert_eq!(bench.engine.view().intents.version, 2);
}

fn change(bench: &mut Bench, what: Amendment) {
    let change = Change {
        who: "ops".to_owned(),
        why: "maintenance".to_owned(),
        what,
    };
    bench.step(bench.now(), &Input::Change(Box::new(change)));
}

fn service_id(id: &str) -> ServiceId {
    ServiceId::parse(id).unwrap()
}

fn owner(id: &str) -> Owner {
    Owner::Service(service_id(id))
}

/// An override that holds for some seconds.
fn override_for(bench: &mut Bench, id: &str, seconds: u32, rule: Rule) {
    let until = bench.now() + SECOND * seconds;
    let what = Override { rule, until };
    change(
        bench,
        Amendment::PutOverride(OverrideId::parse(id).unwrap(), what),
    );
}

fn offer(bench: &mut Bench, at: &str, units: f64) {
    let amounts = BTreeMap::from([(ResourceId::parse("units").unwrap(), units)]);
    let offer = Offer {
        region: region(at),
        amounts,
        until: None,
    };
    change(
        bench,
        Amendment::PutOffer(OfferId::parse(at).unwrap(), offer),
    );
}

fn needing(home: &str, units: f64) -> Service {
    let needs = BTreeMap::from([(ResourceId::parse("units").unwrap(), units)]);
    Service {
        needs,
        ..service(home)
    }
}

fn drain(at: &str) -> Rule {
    Rule::Drain {
        region: region(at),
        suspect: false,
    }
}

fn moves(bench: &Bench, id: &str) -> Vec<Decision> {
    let mine = bench
        .decisions
        .iter()
        .filter(|own| own.service == Some(service_id(id)));
    mine.cloned().collect()
}

fn refusals(bench: &Bench, id: &str, at: &str) -> Vec<RefusalCode> {
    let ranking = bench
        .engine
        .view()
        .service_ranking(&service_id(id))
        .unwrap();
    let candidate = ranking.candidate(&region(at)).unwrap();
    candidate.reasons.iter().map(|own| own.code).collect()
}

fn notices(bench: &Bench, id: &str) -> Vec<NoticeCode> {
    let view = bench.engine.view();
    let selection = view.selection(&owner(id)).unwrap();
    selection.notices.iter().map(|own| own.code).collect()
}

/// Nothing is answered by the hosts of a region, and they are not heard of.
fn without(lost: &'static str) -> impl Fn(&str, &str) -> Option<(u32, u32)> {
    move |from, to| match from.starts_with(lost) {
        true => None,
        false => Some((if to.starts_with(lost) { 0 } else { 10 }, 20_000)),
    }
}

#[test]
fn a_drained_region_is_left_at_once_and_returned_to_once_the_drain_has_expired() {
    let mut bench = Bench::four();
    put(&mut bench, "shop", service("b"));
    bench.run(10, WELL);
    override_for(&mut bench, "window", 30, drain("b"));
    bench.run(1, WELL);
    let moved = moves(&bench, "shop");
    assert!(
        matches!(&moved[0].reason, Reason::Override { who, why, .. } if who == "ops" && why == "maintenance"),
        "{moved:?}"
    );
    assert!(
        moved[0].summary.contains("drained by ops until"),
        "{}",
        moved[0].summary
    );
    assert_ne!(runs_in(&bench, "shop").as_deref(), Some("b"));
    assert_eq!(refusals(&bench, "shop", "b"), [RefusalCode::Drained]);
    bench.run(400, WELL);
    assert!(bench.engine.view().intents.overrides.is_empty());
    assert_eq!(runs_in(&bench, "shop").as_deref(), Some("b"));
}

#[test]
fn a_pinned_service_stays_in_a_region_that_is_down_and_says_so() {
    let mut bench = Bench::four();
    put(&mut bench, "shop", service("b"));
    bench.run(10, WELL);
    let rule = Rule::Pin {
        owner: owner("shop"),
        region: region("b"),
    };
    override_for(&mut bench, "pin", 60, rule);
    bench.run(10, without("b"));
    assert_eq!(runs_in(&bench, "shop").as_deref(), Some("b"));
    assert_eq!(notices(&bench, "shop"), [NoticeCode::PinHurts]);
    change(
        &mut bench,
        Amendment::LiftOverride(OverrideId::parse("pin").unwrap()),
    );
    bench.run(1, without("b"));
    assert_ne!(runs_in(&bench, "shop").as_deref(), Some("b"));
}

#[test]
fn of_two_pins_the_last_one_given_counts_and_the_conflict_is_told() {
    let mut bench = Bench::four();
    put(&mut bench, "shop", service("b"));
    bench.run(10, WELL);
    for (id, at) in [("z", "c"), ("a", "d")] {
        let rule = Rule::Pin {
            owner: owner("shop"),
            region: region(at),
        };
        override_for(&mut bench, id, 60, rule);
    }
    bench.run(1, WELL);
    assert_eq!(runs_in(&bench, "shop").as_deref(), Some("d"));
    assert_eq!(notices(&bench, "shop"), [NoticeCode::Conflict]);
}

#[test]
fn what_is_frozen_does_not_move_and_says_where_it_would() {
    let mut bench = Bench::four();
    put(&mut bench, "shop", service("b"));
    bench.run(10, WELL);
    override_for(&mut bench, "stop", 60, Rule::Freeze { owner: None });
    let before = bench.decisions.len();
    bench.run(10, without("b"));
    assert_eq!(bench.decisions.len(), before);
    assert_eq!(notices(&bench, "shop"), [NoticeCode::FreezeHurts]);
    change(
        &mut bench,
        Amendment::LiftOverride(OverrideId::parse("stop").unwrap()),
    );
    bench.run(1, without("b"));
    assert_ne!(runs_in(&bench, "shop").as_deref(), Some("b"));
}

#[test]
fn a_forbidden_region_is_left_and_not_taken_by_a_primary_either() {
    let mut bench = Bench::four();
    put(&mut bench, "shop", service("b"));
    let view = bench.run(10, WELL);
    let stand_in = view.selections[&region("a")].selected.clone().unwrap();
    for (id, owner, at) in [
        ("one", owner("shop"), region("b")),
        ("two", Owner::Region(region("a")), stand_in.clone()),
    ] {
        override_for(&mut bench, id, 60, Rule::Forbid { owner, region: at });
    }
    let view = bench.run(1, WELL);
    assert_ne!(runs_in(&bench, "shop").as_deref(), Some("b"));
    assert_ne!(view.selections[&region("a")].selected, Some(stand_in));
}

/// Two services of a lost region, and room for one of them in the best region that is left.
#[test]
fn services_that_leave_together_do_not_fill_a_region_beyond_what_it_offers() {
    let mut bench = Bench::four();
    for (id, priority) in [("small", 2), ("vital", 1)] {
        let what = Service {
            priority,
            ..needing("b", 60.0)
        };
        put(&mut bench, id, what);
    }
    for at in ["a", "b", "c"] {
        offer(&mut bench, at, if at == "b" { 200.0 } else { 100.0 });
    }
    offer(&mut bench, "d", 10.0);
    bench.run(10, WELL);
    bench.run(5, without("b"));
    let places = [runs_in(&bench, "small"), runs_in(&bench, "vital")];
    assert!(places.contains(&Some("a".to_owned())), "{places:?}");
    assert!(places.contains(&Some("c".to_owned())), "{places:?}");
    // A third finds no room, and its decision says what is missing.
    put(&mut bench, "late", needing("b", 60.0));
    bench.run(2, without("b"));
    let last = moves(&bench, "late").pop().unwrap();
    assert_eq!((last.to, last.reason), (None, Reason::NoCandidate));
    let because = last.unserved.unwrap().because;
    assert!(
        because.contains("a has 30.0 units free, 60.0 needed"),
        "{because}"
    );
    assert!(refusals(&bench, "late", "a").contains(&RefusalCode::NoRoom));
    // More is offered: it is placed without further ado.
    offer(&mut bench, "d", 100.0);
    bench.run(1, without("b"));
    assert_eq!(runs_in(&bench, "late").as_deref(), Some("d"));
}

#[test]
fn a_divisible_service_is_shared_among_regions_when_none_has_room_for_all_of_it() {
    let mut bench = Bench::four();
    let what = Service {
        divisible: true,
        ..needing("b", 100.0)
    };
    put(&mut bench, "stream", what);
    for (at, units) in [("a", 80.0), ("b", 200.0), ("c", 50.0), ("d", 0.0)] {
        offer(&mut bench, at, units);
    }
    bench.run(10, WELL);
    bench.run(5, without("b"));
    let moved = moves(&bench, "stream").pop().unwrap();
    let shares: Vec<_> = moved
        .assignment
        .iter()
        .map(|own| (own.region.as_str(), own.share))
        .collect();
    let [(first, a), (second, c)] = shares[..] else {
        panic!("{shares:?}")
    };
    assert_eq!((first, second), ("a", "c"));
    assert!(
        a <= 0.72 + 1e-6 && c <= 0.45 + 1e-6 && (a + c - 1.0).abs() < 1e-6,
        "{shares:?}"
    );
    let view = bench.engine.view();
    let used = |at: &str| {
        view.capacity.regions[&region(at)].accounts[&ResourceId::parse("units").unwrap()].used
    };
    assert!((used("a") + used("c") - 100.0).abs() < 1e-6);
}

#[test]
fn what_is_reserved_for_a_service_is_there_for_it_and_for_nobody_else() {
    let mut bench = Bench::four();
    put(&mut bench, "mine", needing("b", 50.0));
    put(&mut bench, "other", needing("b", 50.0));
    for at in ["a", "b", "c", "d"] {
        offer(&mut bench, at, if at == "b" { 200.0 } else { 60.0 });
    }
    for at in ["a", "c", "d"] {
        let what = Reservation {
            region: region(at),
            service: Some(service_id("mine")),
            amounts: BTreeMap::from([(ResourceId::parse("units").unwrap(), 50.0)]),
            until: bench.now() + SECOND * 1_000,
        };
        change(
            &mut bench,
            Amendment::PutReservation(ReservationId::parse(at).unwrap(), what),
        );
    }
    bench.run(10, WELL);
    assert_eq!(refusals(&bench, "other", "a"), [RefusalCode::NoRoom]);
    assert!(refusals(&bench, "mine", "a").is_empty());
    bench.run(5, without("b"));
    assert!(["a", "c"].contains(&runs_in(&bench, "mine").unwrap().as_str()));
    assert_eq!(runs_in(&bench, "other"), None);
}

#[test]
fn a_service_goes_only_where_its_labels_let_it() {
    let mut bench = Bench::four();
    let mut own = policy(&["a", "b", "c", "d"]);
    for (at, country) in [("a", "us"), ("b", "de"), ("c", "ch"), ("d", "de")] {
        let labels = &mut own.regions.get_mut(&region(at)).unwrap().labels;
        labels.insert("country".to_owned(), country.to_owned());
    }
    bench.step(bench.now(), &Input::Policy(Box::new(own)));
    let what = Service {
        require: BTreeMap::from([("country".to_owned(), BTreeSet::from(["de".to_owned()]))]),
        ..service("b")
    };
    put(&mut bench, "ledger", what);
    bench.run(10, WELL);
    assert_eq!(refusals(&bench, "ledger", "a"), [RefusalCode::LabelMissing]);
    bench.run(5, without("b"));
    assert_eq!(runs_in(&bench, "ledger").as_deref(), Some("d"));
}

#[test]
fn a_region_that_shares_a_risk_with_one_that_failed_is_avoided_while_others_are_left() {
    let mut bench = Bench::four();
    let mut own = policy(&["a", "b", "c", "d"]);
    for at in ["a", "b", "c"] {
        own.regions
            .get_mut(&region(at))
            .unwrap()
            .risk_groups
            .insert("grid-north".to_owned());
    }
    bench.step(bench.now(), &Input::Policy(Box::new(own)));
    put(&mut bench, "shop", service("b"));
    bench.run(10, WELL);
    assert!(refusals(&bench, "shop", "a").is_empty());
    bench.run(5, without("b"));
    assert_eq!(refusals(&bench, "shop", "a"), [RefusalCode::SharedRisk]);
    assert_eq!(runs_in(&bench, "shop").as_deref(), Some("d"));
    // Once it is the last one, it is taken.
    bench.run(5, |from, to| match from.starts_with(['b', 'd']) {
        true => None,
        false => Some((if to.starts_with(['b', 'd']) { 0 } else { 10 }, 20_000)),
    });
    assert!(["a", "c"].contains(&runs_in(&bench, "shop").unwrap().as_str()));
}

#[test]
fn a_service_leaves_a_region_that_breaks_its_limits_after_the_confirm_window() {
    let mut bench = Bench::four();
    let limits = Limits {
        rtt_p50: Some(Duration::from_millis(40)),
        ..Limits::default()
    };
    put(
        &mut bench,
        "call",
        Service {
            limits,
            ..service("b")
        },
    );
    bench.run(20, WELL);
    let ready = |bench: &Bench, at: &str| {
        bench.engine.view().readiness[&service_id("call")][&region(at)].state
    };
    assert_eq!(ready(&bench, "b"), ReadinessState::Ready);
    bench.run(20, |from, to| {
        let slow = from.starts_with('b') || to.starts_with('b');
        Some((10, if slow { 45_000 } else { 20_000 }))
    });
    assert_eq!(ready(&bench, "b"), ReadinessState::NotReady);
    let moved = moves(&bench, "call");
    assert!(
        matches!(&moved[0].reason, Reason::ServiceLevel { because } if because.contains("limit 40.0 ms")),
        "{moved:?}"
    );
    let changes = bench.engine.view().readiness_changes;
    let last = changes
        .iter()
        .rev()
        .find(|own| own.region == region("b"))
        .unwrap();
    assert_eq!(
        (last.before, last.state),
        (Some(ReadinessState::Ready), ReadinessState::NotReady)
    );
    // A measure between the limit and a tenth below it does not make it ready again.
    bench.run(20, |from, to| {
        let slow = from.starts_with('b') || to.starts_with('b');
        Some((10, if slow { 38_000 } else { 20_000 }))
    });
    assert_eq!(ready(&bench, "b"), ReadinessState::NotReady);
    bench.run(20, WELL);
    assert_eq!(ready(&bench, "b"), ReadinessState::Ready);
}

#[test]
fn a_region_whose_data_lags_behind_is_not_ready_and_one_of_which_nobody_says_is_unknown() {
    let mut bench = Bench::four();
    let what = Service {
        replication: Replication::Asynchronous,
        rpo: Some(Duration::from_secs(30)),
        ..service("b")
    };
    put(&mut bench, "ledger", what);
    bench.run(10, WELL);
    for (at, seconds) in [("a", 60.0), ("c", 5.0)] {
        let subject = Subject::Service(service_id("ledger"), region(at));
        bench.signal(
            "strong",
            subject,
            Metric::ReplicationLagUs,
            seconds * 1e6,
            None,
        );
    }
    let view = bench.run(2, WELL);
    let states: Vec<_> = view.readiness[&service_id("ledger")]
        .values()
        .map(|own| own.state)
        .collect();
    use ReadinessState::{NotReady, Ready, Unknown};
    assert_eq!(states, [NotReady, Ready, Ready, Unknown]);
    assert_eq!(
        refusals(&bench, "ledger", "a"),
        [RefusalCode::ReplicaBehind]
    );
    bench.run(5, without("b"));
    assert_eq!(runs_in(&bench, "ledger").as_deref(), Some("c"));
}

/// `front` cannot do without `back`, which may only run in two regions and is slow to reach from a third.
#[test]
fn a_service_goes_where_what_it_depends_on_is_reached() {
    let mut bench = Bench::four();
    let limits = Limits {
        rtt_p50: Some(Duration::from_millis(50)),
        ..Limits::default()
    };
    let back = Service {
        candidates: vec![region("c")],
        clients: BTreeMap::from([(region("b"), 1.0), (region("c"), 1.0)]),
        limits,
        ..service("c")
    };
    put(&mut bench, "back", back);
    let front = Service {
        depends_on: BTreeSet::from([service_id("back")]),
        ..service("b")
    };
    put(&mut bench, "front", front);
    let far = |from: &str, to: &str| {
        let pair = [&from[..1], &to[..1]];
        let slow = pair.contains(&"a") && pair.contains(&"c");
        Some((10, if slow { 80_000 } else { 20_000 }))
    };
    bench.run(10, far);
    assert_eq!(
        refusals(&bench, "front", "a"),
        [RefusalCode::DependencyMissing]
    );
    assert!(refusals(&bench, "front", "d").is_empty());
}

#[test]
fn what_would_happen_is_answered_before_the_event_and_is_what_happens() {
    let mut bench = Bench::four();
    for id in ["one", "two", "three"] {
        put(&mut bench, id, needing("b", 60.0));
    }
    put(&mut bench, "elsewhere", needing("d", 60.0));
    for at in ["a", "b", "c", "d"] {
        offer(&mut bench, at, if at == "b" { 500.0 } else { 100.0 });
    }
    let view = bench.run(10, WELL);
    let failed = BTreeSet::from([region("b")]);
    let answer = what_if(&view, &failed);
    assert_eq!(answer.services.len(), 3);
    let unserved: Vec<_> = answer
        .services
        .values()
        .filter_map(|own| own.unserved.as_ref())
        .collect();
    assert_eq!(unserved.len(), 1, "{answer:?}");
    let units = ResourceId::parse("units").unwrap();
    let load = &answer.regions[&region("a")][&units];
    assert_eq!(
        (load.before, load.after, load.usable),
        (0.0, 60.0, Some(90.0))
    );
    assert!(
        answer
            .regions
            .values()
            .any(|own| own[&units].price.serves.is_some())
    );
    assert!(!answer.regions.contains_key(&region("b")));
    bench.run(5, without("b"));
    for (id, fate) in &answer.services {
        let placed = bench.engine.view().services[id].assignment.clone();
        assert_eq!(placed, fate.after, "{id}");
    }
}
