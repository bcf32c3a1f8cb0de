//! Services: where each should run, as its own clients see it.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod bench;

use bench::{Bench, WELL, region, service};
use leeward_common::id::ServiceId;
use leeward_engine::{
    decision::Reason,
    input::Input,
    intent::{Amendment, Change, Owner, Service},
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
