//! The shadow policy: it changes nothing of what is decided, and what it counts adds up.

use leeward_common::api::v1::AuditEntry;
use leeward_engine::{intent::Owner, scoreboard::Scoreboard};

use super::*;
use crate::{
    intent::Condition,
    shadow::{AskedShadow, Follower, Round},
    store::audit_entries,
};

/// A policy that moves at the slightest occasion.
const RASH: &str = "
    [[region]]
    id = 'iad'
    latitude = 39.0
    longitude = -77.5
    [[region]]
    id = 'pdx'
    latitude = 45.6
    longitude = -122.7
    [[region]]
    id = 'dub'
    latitude = 53.3
    longitude = -6.3
    [[signal_source]]
    id = 'netops'
    [policy.steadiness]
    margin = 1.0
    confirm = '0s'
    caution = 0.0
    hold_first = '0s'
    hold_max = '0s'
    switching_cost = '0s'
";

type Answered = oneshot::Receiver<Result<Result<u64, Conflict>, TurnError>>;

fn ask(who: &str, toml: Option<&str>, condition: Condition) -> (Arrival, Answered) {
    let (done, answer) = oneshot::channel();
    let asked = Box::new(AskedShadow {
        who: who.to_owned(),
        why: "what if".to_owned(),
        what: toml.map(|toml| Arc::new(policy(toml))),
        condition,
    });
    (Arrival::Shadow { asked, done }, answer)
}

fn outcome(mut answer: Answered) -> Result<u64, Conflict> {
    answer.try_recv().unwrap().unwrap()
}

fn column(bench: &Bench, column: Column) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut entries = Vec::new();
    let read = &mut |key: &[u8], value: &[u8]| {
        entries.push((key.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    };
    bench.store.scan(column, &[], read).unwrap();
    entries
}

fn follower<'a>(bench: &'a Bench, toml: &str, from: Timestamp) -> Follower<'a> {
    let begun = Follower::begin(&bench.store, Arc::new(policy(toml)), from);
    begun.unwrap().expect("an engine is written down")
}

/// Set, replaced, removed and followed at any time: journal, decisions, snapshots and the engine's state are the same
/// bytes as without.
#[test]
fn what_is_decided_is_the_same_with_and_without_a_shadow_byte_for_byte() {
    let decided = AtomicU64::new(0);
    bolero::check!()
        .with_iterations(15)
        .with_type::<(Vec<u8>, u64)>()
        .for_each(|(bytes, chances)| {
            let (mut plain, mut shaded) = (Bench::new(), Bench::new());
            let bytes: Vec<u8> = b"leeward"
                .iter()
                .chain(bytes.iter().take(12))
                .copied()
                .collect();
            for (at, (span, plans)) in story(&bytes, plain.now()).iter().enumerate() {
                plain.advance(*span);
                shaded.advance(*span);
                plain.turn(plans);
                let (mut arrivals, _answers) = shaded.arrivals(plans);
                let toml = match (chances >> (2 * (at % 32))) & 3 {
                    0 => Some(Some(RASH)),
                    1 => Some(Some(OTHER_POLICY)),
                    2 => Some(None),
                    _ => None,
                };
                if let Some(toml) = toml {
                    let (arrival, _) = ask("mara", toml, Condition::Any);
                    arrivals.insert(at % (arrivals.len() + 1), arrival);
                }
                shaded.turn.turn(arrivals);
                let setting = shaded.turn.shadow().borrow().clone();
                if let Some(policy) = &setting.policy {
                    let begun = Follower::begin(&shaded.store, Arc::clone(policy), setting.at);
                    let now = shaded.turn.engine.view().now;
                    let mut follower = begun.unwrap().unwrap();
                    follower.round(Some(now), Duration::MAX).unwrap();
                }
            }
            for part in [
                Column::Journal,
                Column::Decisions,
                Column::Snapshots,
                Column::Tables,
                Column::Watermarks,
                Column::Registrations,
            ] {
                assert_eq!(column(&plain, part), column(&shaded, part), "{part:?}");
            }
            assert_same(&plain, &shaded);
            decided.fetch_add(
                column(&plain, Column::Decisions).len() as u64,
                Ordering::Relaxed,
            );
        });
    let decided = decided.into_inner();
    assert!(decided > 50, "{decided} decisions are no test");
}

/// Sums, whichever way they are made.
fn assert_adds_up(board: &Scoreboard, bench: &Bench, from: Timestamp, to: Timestamp) {
    assert!(board.agreed <= board.watched);
    let differed = board.watched - board.agreed;
    assert!(board.current.worse + board.other.worse <= differed);
    for side in [&board.current, &board.other] {
        assert_eq!(side.selected.values().sum::<Duration>(), board.watched);
        assert!(side.down + side.lossy <= side.judged && side.judged <= board.watched);
        assert!(side.flaps <= side.moves && side.false_moves <= side.judged_moves);
        assert!(side.judged_moves <= side.moves);
        assert!(
            side.regret()
                .is_none_or(|regret| (0.0..=1.0).contains(&regret))
        );
    }
    let apart: BTreeSet<&Owner> = board.divergences.iter().map(|own| &own.owner).collect();
    assert_eq!(
        differed.is_zero(),
        apart.is_empty() || board.watched.is_zero()
    );
    for owner in apart {
        let mut own = board.divergences.iter().filter(|one| one.owner == *owner);
        assert!(own.clone().filter(|one| one.until.is_none()).count() <= 1);
        assert!(own.all(|one| one.until.is_none_or(|until| until >= one.since)));
    }
    assert!(board.differed >= board.divergences.len() as u64);
    let decisions = column(bench, Column::Decisions);
    let moves = decisions.iter().filter(|(key, value)| {
        let at = Position::from_key(key).unwrap().time;
        let decided = v1::decode::<v1::Decided>("decision", value).unwrap();
        at > from && at <= to && decided.from.is_some()
    });
    assert_eq!(board.current.moves, moves.count() as u64);
}

/// However often it is looked at, wherever it begins: what the shadow counts is what a replay of the same stretch counts.
#[test]
fn the_shadow_counts_what_a_replay_counts_and_it_adds_up() {
    let moves = AtomicU64::new(0);
    bolero::check!()
        .with_iterations(15)
        .with_type::<(Vec<u8>, u64, u8)>()
        .for_each(|(bytes, rounds, since)| {
            let mut bench = Bench::new();
            bench.turn(&[]);
            let begin = bench.turn.engine.view().now;
            let bytes: Vec<u8> = b"leeward"
                .iter()
                .chain(bytes.iter().take(15))
                .copied()
                .collect();
            let story = story(&bytes, begin);
            let from = begin + Duration::from_millis(u64::from(*since) * 20);
            let store = bench.store.clone();
            let begun = Follower::begin(&store, Arc::new(policy(RASH)), from);
            let mut followed = begun.unwrap().unwrap();
            for (at, (span, plans)) in story.iter().enumerate() {
                bench.advance(*span);
                bench.turn(plans);
                // Time that no record tells of.
                bench.advance(Duration::from_millis(u64::from(*since)));
                bench.turn(&[]);
                let now = bench.turn.engine.view().now;
                match (rounds >> (2 * (at % 32))) & 3 {
                    0 => drop(followed.round(None, Duration::MAX).unwrap()),
                    1 => drop(followed.round(Some(now), Duration::ZERO).unwrap()),
                    2 => drop(followed.round(Some(now), Duration::MAX).unwrap()),
                    _ => bench.turn.write_snapshot(),
                }
            }
            let to = bench.turn.engine.view().now;
            assert_eq!(
                followed.round(Some(to), Duration::MAX).unwrap(),
                Round::Done
            );
            assert_eq!(followed.now(), to);
            let mut late = follower(&bench, RASH, from);
            late.round(Some(to), Duration::MAX).unwrap();
            assert_eq!(late.scoreboard(), followed.scoreboard());
            let from = followed.since();
            if from >= to {
                return;
            }
            let other = Some(policy(RASH));
            let question = Question { from, to, other };
            let answer = replay(&bench.store, &question, &mut |_| ControlFlow::Continue(()));
            let other = answer.unwrap().other.unwrap();
            assert_eq!(other.scoreboard, followed.scoreboard());
            assert_adds_up(&other.scoreboard, &bench, from, to);
            moves.fetch_add(other.scoreboard.other.moves, Ordering::Relaxed);
        });
    let moves = moves.into_inner();
    assert!(moves > 20, "{moves} moves are no test");
}

#[test]
fn a_rash_policy_moves_more_and_its_moves_are_judged() {
    let mut bench = Bench::new();
    bench.turn(&[]);
    let begin = bench.turn.engine.view().now;
    let bytes: Vec<u8> = (0..200).map(|at: u8| at.wrapping_mul(37) | 6).collect();
    for (span, plans) in story(&bytes, begin) {
        bench.advance(span);
        bench.turn(&plans);
    }
    let to = bench.turn.engine.view().now;
    let mut shadow = follower(&bench, RASH, begin);
    shadow.round(Some(to), Duration::MAX).unwrap();
    let board = shadow.scoreboard();
    assert!(board.other.moves > board.current.moves, "{board:?}");
    assert!(board.other.flaps > board.current.flaps);
    assert!(board.other.judged_moves > 0 && board.current.false_moves > 0);
    assert!(board.agreement().unwrap() < 1.0);
    let divergence = board.divergences.back().unwrap();
    assert!(divergence.current.0 != divergence.other.0);
    assert!(!divergence.other.1.is_empty(), "it says why");
    assert_adds_up(&board, &bench, shadow.since(), to);
}

#[test]
fn a_shadow_under_the_policy_in_force_never_differs() {
    let mut bench = Bench::new();
    bench.turn(&[]);
    let begin = bench.turn.engine.view().now;
    for (span, plans) in story(&[6, 11, 27, 43, 6, 7, 8, 9, 11, 12, 13, 14], begin) {
        bench.advance(span);
        bench.turn(&plans);
    }
    let to = bench.turn.engine.view().now;
    let mut shadow = follower(&bench, POLICY, begin);
    shadow.round(Some(to), Duration::MAX).unwrap();
    let board = shadow.scoreboard();
    assert_eq!(board.agreement(), Some(1.0));
    assert_eq!(board.current, board.other);
    assert!(board.divergences.is_empty());
}

#[test]
fn the_shadow_is_set_replaced_and_removed_on_terms_and_every_change_is_audited() {
    let mut bench = Bench::new();
    bench.turn(&[]);
    let state = bench.state();
    let (first, a) = ask("a", Some(RASH), Condition::Absent);
    let (second, b) = ask("b", Some(RASH), Condition::Absent);
    let (third, c) = ask("c", Some(OTHER_POLICY), Condition::Version(1));
    bench.turn.turn(vec![first, second, third]);
    assert_eq!(outcome(a), Ok(1));
    assert_eq!(outcome(b), Err(Conflict { current: Some(1) }));
    assert_eq!(outcome(c), Ok(2));
    let window = bench.turn.shadow();
    assert_eq!(
        window.borrow().policy.as_deref(),
        Some(&policy(OTHER_POLICY))
    );

    bench.kill();
    assert!(window.has_changed().is_err(), "the thread is told to end");
    let after = bench.turn.shadow().borrow().clone();
    assert_eq!(*after, **window.borrow());
    let (gone, d) = ask("d", None, Condition::Version(2));
    let (again, e) = ask("e", None, Condition::Present);
    bench.turn.turn(vec![gone, again]);
    assert_eq!(outcome(d), Ok(3));
    assert_eq!(outcome(e), Err(Conflict { current: None }));
    bench.kill();
    let (back, f) = ask("f", Some(RASH), Condition::Absent);
    bench.turn.turn(vec![back]);
    assert_eq!(outcome(f), Ok(4), "no version comes twice");

    let log: Vec<AuditEntry> = audit_entries(&bench.store, 0, usize::MAX).unwrap();
    let told = |entry: &AuditEntry| (entry.who.clone(), entry.what.clone(), entry.version);
    let told: Vec<_> = log.iter().map(told).collect();
    let expected = [
        ("a", "put", 1),
        ("c", "put", 2),
        ("d", "remove", 3),
        ("f", "put", 4),
    ];
    let expected = expected.map(|(who, what, version)| (who.to_owned(), what.to_owned(), version));
    assert_eq!(told, expected);
    assert!(log.iter().all(|entry| entry.about == "shadow policy"));
    assert_eq!(bench.state(), state, "the engine was told nothing");
}

#[test]
fn a_shadow_that_cannot_be_stored_is_not_set() {
    let mut bench = Bench::new();
    bench.turn(&[]);
    bench.store.fail(true);
    let (change, mut answer) = ask("a", Some(RASH), Condition::Any);
    bench.turn.turn(vec![change]);
    assert_eq!(answer.try_recv().unwrap(), Err(TurnError::StoreFailed));
    assert_eq!(bench.turn.shadow().borrow().current(), None);
}
