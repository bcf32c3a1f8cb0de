//! What goes on where an anchor is all there is: the journal in front of it is gone, and no snapshot can be read.

use leeward_common::api::v1::{Defined, ServiceSpec};
use leeward_engine::inherit::Inheritance;

use super::*;
use crate::{
    intent::{Condition, What},
    store::decisions,
};

/// A night with decisions and a service, then a restart, of which only what came from its anchor on is left.
fn after_a_night() -> (Bench, Inheritance) {
    let mut bench = Bench::new();
    let (done, _) = oneshot::channel();
    let spec: ServiceSpec = serde_json::from_str(r#"{"home":"iad"}"#).unwrap();
    let shop = leeward_common::id::ServiceId::parse("shop").unwrap();
    let asked = Box::new(Asked {
        who: "mara".to_owned(),
        why: String::new(),
        what: What::Put(Defined::Service(shop, Box::new(spec))),
        condition: Condition::Any,
    });
    bench.turn.turn(vec![Arrival::Change { asked, done }]);
    for (span, plans) in story(b"leeward, the sheltered side", bench.now()) {
        bench.advance(span);
        bench.turn(&plans);
    }
    // Nobody is heard of any more.
    bench.advance(Duration::from_secs(600));
    bench.turn(&[]);
    bench.kill();
    bench.turn(&[]);
    let before = Inheritance::of(&bench.turn.engine.view());
    let cut = store::journal_end(&bench.store).unwrap().unwrap();
    bench
        .store
        .drop_before(Column::Journal, &cut.key())
        .unwrap();
    bench
        .store
        .drop_before(Column::Snapshots, &[0xff; 12])
        .unwrap();
    (bench, before)
}

/// Both agents of dub say that iad is lost to them, so that something is decided.
fn decide_something(bench: &mut Bench) {
    bench.turn(&[Plan::Connect(0), Plan::Connect(1), Plan::Connect(2)]);
    for second in 0..20 {
        bench.advance(Duration::from_secs(1));
        let start = (bench.now() - Duration::from_secs(1)).floor(Duration::from_secs(1));
        let batch = |agent| Plan::Batch {
            agent,
            sequence: 10_000 + second,
            start,
            rtt_us: 30_000,
            lost: 0,
        };
        bench.turn(&[batch(0), batch(1), batch(2)]);
        let (value, at) = (if second > 10 { 0.01 } else { 1.0 }, bench.now());
        bench.turn(&[Plan::Signal { value, at }]);
    }
}

#[test]
fn what_was_selected_stays_selected_and_services_stay_where_they_were() {
    let (mut bench, before) = after_a_night();
    assert!(before.last_decision > 3, "{before:?}");
    assert_eq!(before.selections.len(), 4);
    bench.kill();
    let after = Inheritance::of(&bench.turn.engine.view());
    assert_eq!(after, before);
}

#[test]
fn decisions_are_numbered_on_from_the_greatest_in_the_store() {
    let (mut bench, before) = after_a_night();
    // As builds wrote it that did not note what was selected.
    let mut bare = None;
    bench
        .store
        .scan(Column::Journal, &[], &mut |key, value| {
            let record = v1::decode::<v1::Record>("record", value).unwrap();
            if let v1::Record::Anchor(anchor) = record {
                let anchor = v1::Anchor {
                    last_decision: 0,
                    selected: Vec::new(),
                    ..anchor
                };
                bare = Some((key.to_vec(), v1::encode(&v1::Record::Anchor(anchor))));
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    let (key, value) = bare.unwrap();
    bench.store.put(Column::Journal, &key, &value);
    bench.kill();
    assert_eq!(bench.turn.engine.view().last_decision, before.last_decision);
    decide_something(&mut bench);
    let view = bench.turn.engine.view();
    assert!(view.last_decision > before.last_decision);
    let ids: Vec<u64> = view.decisions.iter().map(|own| own.id).collect();
    let wanted: Vec<u64> = (before.last_decision + 1..=view.last_decision).collect();
    assert_eq!(ids, wanted);
    for id in 1..=view.last_decision {
        let found = decisions::find(&bench.store, id).unwrap();
        assert_eq!(found.map(|own| own.id), Some(id));
    }
    // The same without what was told since: it is replayed, and numbered as it is stored.
    bench
        .store
        .drop_before(Column::Snapshots, &[0xff; 12])
        .unwrap();
    bench.kill();
    let again = bench.turn.engine.view();
    assert_eq!(again.last_decision, view.last_decision);
    assert_eq!(again.decisions, view.decisions);
}
