//! Changes: durable before they are answered, once, and never two from the same version.

use leeward_common::{
    api::v1::{AuditEntry, Defined, OverrideRule, OverrideSpec},
    audit::Verifier,
    id::OverrideId,
};
use leeward_engine::intent::Rule;

use super::*;
use crate::{
    intent::{Condition, Thing, What},
    store::audit_entries,
};

type Answered = oneshot::Receiver<Result<Result<u64, Conflict>, TurnError>>;

fn id() -> OverrideId {
    OverrideId::parse("works").unwrap()
}

fn put(bench: &Bench, who: &str, condition: Condition) -> (Arrival, Answered) {
    let spec = OverrideSpec {
        rule: OverrideRule::Drain,
        region: Some(region("pdx")),
        service: None,
        primary_region: None,
        suspect: false,
        until: (bench.now() + Duration::from_secs(3600)).into(),
        why: "new switches".to_owned(),
    };
    ask(who, What::Put(Defined::Override(id(), spec)), condition)
}

fn lift(condition: Condition) -> (Arrival, Answered) {
    ask("mara", What::Remove(Thing::Override(id())), condition)
}

fn ask(who: &str, what: What, condition: Condition) -> (Arrival, Answered) {
    let (done, answer) = oneshot::channel();
    let asked = Box::new(Asked {
        who: who.to_owned(),
        why: "new switches".to_owned(),
        what,
        condition,
    });
    (Arrival::Change { asked, done }, answer)
}

fn outcome(mut answer: Answered) -> Result<u64, Conflict> {
    answer.try_recv().unwrap().unwrap()
}

fn log(bench: &Bench) -> Vec<AuditEntry> {
    audit_entries(&bench.store, 0, usize::MAX).unwrap()
}

fn assert_whole(bench: &Bench) {
    let mut verifier = Verifier::default();
    let log = log(bench);
    log.iter().for_each(|entry| verifier.take(entry));
    let head = bench.turn.audit.clone();
    assert_eq!(verifier.head().0, log.len() as u64);
    assert_eq!(verifier.finish(None), []);
    assert_eq!(
        format!("{head:?}"),
        format!("{:?}", Chain::of(&bench.store))
    );
}

#[test]
fn of_two_who_change_the_same_version_only_one_wins() {
    let mut bench = Bench::new();
    let (first, a) = put(&bench, "a", Condition::Absent);
    let (second, b) = put(&bench, "b", Condition::Absent);
    let (third, c) = put(&bench, "c", Condition::Version(1));
    let (fourth, d) = put(&bench, "d", Condition::Version(1));
    bench.turn.turn(vec![first, second, third, fourth]);
    assert_eq!(outcome(a), Ok(1));
    assert_eq!(outcome(b), Err(Conflict { current: Some(1) }));
    assert_eq!(outcome(c), Ok(2));
    assert_eq!(outcome(d), Err(Conflict { current: Some(2) }));
    let view = bench.turn.engine.view();
    assert_eq!(
        (view.intents.version, &*view.intents.overrides[&id()].who),
        (2, "c")
    );
    let who: Vec<String> = log(&bench).into_iter().map(|entry| entry.who).collect();
    assert_eq!(who, ["a", "c"]);
    assert_whole(&bench);
}

#[test]
fn a_change_that_was_answered_is_there_once_after_a_kill_with_its_version() {
    let mut bench = Bench::new();
    let (first, _) = put(&bench, "a", Condition::Any);
    bench.turn.turn(vec![first]);
    let (second, answer) = put(&bench, "b", Condition::Version(1));
    bench.turn.turn(vec![second]);
    assert_eq!(outcome(answer), Ok(2));
    let before = bench.turn.engine.view().intents;
    bench.kill();
    let after = bench.turn.engine.view().intents;
    assert_eq!(after, before);
    assert_eq!(log(&bench).len(), 2);
    assert_whole(&bench);
    let (lifted, answer) = lift(Condition::Version(2));
    bench.turn.turn(vec![lifted]);
    assert_eq!(outcome(answer), Ok(3));
    bench.kill();
    assert!(bench.turn.engine.view().intents.overrides.is_empty());
    assert_eq!(bench.turn.engine.view().intents.version, 3);
}

/// Retention cuts the journal in front of an anchor, and the snapshot is of another build: the anchor is all there is.
#[test]
fn nothing_defined_is_lost_with_the_journal_in_front_of_an_anchor() {
    let mut bench = Bench::new();
    bench.turn.turn(Vec::new());
    let (change, _) = put(&bench, "a", Condition::Any);
    bench.turn.turn(vec![change]);
    let before = bench.turn.engine.view().intents;
    bench.advance(Duration::from_secs(1_800));
    bench.kill();
    bench.turn.turn(Vec::new());
    let cut = store::journal_end(&bench.store).unwrap().unwrap();
    bench
        .store
        .drop_before(Column::Journal, &cut.key())
        .unwrap();
    bench.kill();
    assert_eq!(bench.turn.engine.view().intents, before);
}

#[test]
fn a_condition_that_does_not_hold_writes_nothing() {
    let mut bench = Bench::new();
    bench.turn.turn(Vec::new());
    let end = store::journal_end(&bench.store).unwrap();
    let (change, answer) = lift(Condition::Present);
    bench.turn.turn(vec![change]);
    assert_eq!(outcome(answer), Err(Conflict { current: None }));
    assert_eq!(store::journal_end(&bench.store).unwrap(), end);
    assert!(log(&bench).is_empty());
}

#[test]
fn a_change_that_cannot_be_stored_is_not_in_force() {
    let mut bench = Bench::new();
    bench.turn.turn(Vec::new());
    bench.store.fail(true);
    let (change, mut answer) = put(&bench, "a", Condition::Any);
    bench.turn.turn(vec![change]);
    assert_eq!(answer.try_recv().unwrap(), Err(TurnError::StoreFailed));
    assert!(bench.turn.engine.view().intents.overrides.is_empty());
}

#[test]
fn the_rule_in_force_is_the_one_that_was_asked_for() {
    let mut bench = Bench::new();
    let (change, _) = put(&bench, "a", Condition::Any);
    bench.turn.turn(vec![change]);
    let rule = bench.turn.engine.view().intents.overrides[&id()]
        .what
        .rule
        .clone();
    assert_eq!(
        rule,
        Rule::Drain {
            region: region("pdx"),
            suspect: false,
        }
    );
}

#[test]
fn a_new_policy_and_a_refusal_are_in_the_log_and_a_repetition_is_not() {
    let mut bench = Bench::new();
    let refusal = || {
        Arrival::Refused(Refusal {
            who: "viewer".to_owned(),
            about: "PUT /v1/services/{service_id}".to_owned(),
            why: "its role is viewer".to_owned(),
        })
    };
    let same = || {
        let (done, _) = oneshot::channel();
        let policy = Box::new(policy(POLICY));
        Arrival::Policy { policy, done }
    };
    bench.turn.turn(vec![refusal(), same()]);
    bench.turn.turn(vec![refusal()]);
    bench.turn(&[Plan::Policy(OTHER_POLICY)]);
    bench.advance(Duration::from_secs(61));
    bench.turn.turn(vec![refusal()]);
    let what: Vec<String> = log(&bench).into_iter().map(|entry| entry.what).collect();
    assert_eq!(what, ["refused", "policy", "refused"]);
    assert_whole(&bench);
}

/// The end of an override is noted like its beginning, once, also if the aggregator dies before or after.
#[test]
fn what_comes_to_its_end_is_in_the_log_once() {
    let mut bench = Bench::new();
    let (change, _) = put(&bench, "a", Condition::Any);
    bench.turn.turn(vec![change]);
    bench.advance(Duration::from_secs(3_601));
    bench.kill();
    // Time alone does not end it while nobody is heard; the first input does.
    bench.turn(&[Plan::Connect(0)]);
    bench.kill();
    bench.turn(&[Plan::Connect(1)]);
    assert!(bench.turn.engine.view().intents.overrides.is_empty());
    let log = log(&bench);
    let what: Vec<_> = log.iter().map(|own| (&*own.who, &*own.what)).collect();
    assert_eq!(what, [("a", "put"), ("engine", "expired")]);
    assert_eq!(log[1].about, "override works");
    assert_eq!(log[1].version, 1);
    assert!(log[1].detail.ends_with(", by a"), "{}", log[1].detail);
    assert_whole(&bench);
}

#[test]
fn an_end_that_could_not_be_noted_is_noted_when_it_can() {
    let mut bench = Bench::new();
    bench.turn(&[Plan::Connect(0)]);
    let (change, _) = put(&bench, "a", Condition::Any);
    bench.turn.turn(vec![change]);
    bench.advance(Duration::from_secs(3_601));
    // What ends it is journaled, and then the log cannot be written: as if it died in between.
    let mut writes = Writes::default();
    let end = bench.turn.end.unwrap().next(bench.now());
    let agent = epoch(0).agent;
    let record = v1::Record::Disconnected(v1::Disconnected { agent });
    writes.journal(end, &record);
    bench.store.commit(&writes).unwrap();
    bench.kill();
    bench.turn(&[]);
    let what: Vec<String> = log(&bench).into_iter().map(|own| own.what).collect();
    assert_eq!(what, ["put", "expired"]);
    bench.kill();
    bench.turn(&[]);
    assert_eq!(log(&bench).len(), 2);
    assert_whole(&bench);
}
