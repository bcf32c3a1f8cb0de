//! The turn with a store in memory and a clock that the test sets: what is durable is counted once, whatever happens
//! in between.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
    sync::atomic::Ordering,
};

use leeward_common::{
    config::Document,
    histogram::Schema,
    id::{RegionId, SourceId, TargetId},
    report::{Class, Counts, Path, ProbeKind, Report, Rtt, Window},
    wire::batch::{self, Batch},
};
use leeward_engine::{
    input::{Metric, Signal, Subject},
    scenario::{Action, Event},
    simulate::live::{self, WhatIf},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::{clock::tests::Set, *};
use crate::{
    recover::{self, recover, resolve},
    replay::{Question, engine_at, replay},
    store::{Read as _, key::Column, memory::Memory},
};

mod anchors;
mod changes;
mod shadow;

const AGENTS: [(&str, &str); 4] = [
    ("iad-1", "iad"),
    ("pdx-1", "pdx"),
    ("dub-1", "dub"),
    ("dub-2", "dub"),
];

const POLICY: &str = "
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
    confirm = '1s'
    hold_first = '2s'
";

const OTHER_POLICY: &str = "
    [[region]]
    id = 'iad'
    latitude = 39.0
    longitude = -77.5
    [[region]]
    id = 'dub'
    latitude = 53.3
    longitude = -6.3
    capacity = 3.0
";

fn policy(toml: &str) -> PolicyText {
    PolicyText::parse(&Document {
        file: "policy",
        text: toml,
    })
    .unwrap()
}

/// A turn that can be killed.
struct Bench {
    turn: Turn,
    store: Memory,
    wall: Arc<Set>,
}

impl Bench {
    fn new() -> Self {
        let wall = Arc::new(Set::default());
        wall.0.store(1_700_000_000_000_000, Ordering::SeqCst);
        let store = Memory::default();
        Self {
            turn: start(&store, &wall),
            store,
            wall,
        }
    }

    fn now(&self) -> Timestamp {
        self.wall.now()
    }

    fn advance(&self, span: Duration) {
        self.wall
            .0
            .fetch_add(span.as_micros() as u64, Ordering::SeqCst);
    }

    /// Dies without a word and starts again from what is on disk.
    fn kill(&mut self) {
        self.turn = start(&self.store, &self.wall);
    }

    /// As [`Self::kill`], and the sessions of before count for ever, as if every agent came back at once.
    fn kill_and_keep_sessions(&mut self) {
        self.kill();
        self.turn.started = self.now() + Duration::from_secs(3600);
    }

    fn turn(&mut self, plans: &[Plan]) -> Vec<Outcome> {
        let (arrivals, mut answers) = self.arrivals(plans);
        self.turn.turn(arrivals);
        std::iter::from_fn(|| answers.try_recv().ok())
            .map(|settled| settled.outcome)
            .collect()
    }

    fn arrivals(&self, plans: &[Plan]) -> (Vec<Arrival>, mpsc::Receiver<Settled>) {
        let (session, answers) = mpsc::channel(plans.len().max(1));
        let permits = Arc::new(Semaphore::new(plans.len()));
        let mut arrivals = Vec::new();
        for plan in plans {
            let permit = Arc::clone(&permits).try_acquire_owned().unwrap();
            arrivals.extend(self.arrival(plan, session.clone(), permit));
        }
        (arrivals, answers)
    }

    fn arrival(
        &self,
        plan: &Plan,
        session: mpsc::Sender<Settled>,
        permit: OwnedSemaphorePermit,
    ) -> Vec<Arrival> {
        match plan.clone() {
            Plan::Connect(agent) => {
                let epoch = epoch(agent);
                let registration = Registration {
                    agent: epoch.agent.clone(),
                    region: region(AGENTS[agent].1),
                    boot_epoch: epoch.boot,
                    addresses: Vec::new(),
                    answer_port: 8620,
                    stamp_port: None,
                    build: String::new(),
                };
                let (known, _) = oneshot::channel();
                let connected = Connected {
                    session: agent as u64 + 1,
                    registration,
                    backlog: Vec::new(),
                    known,
                };
                let (done, _) = oneshot::channel();
                let paths = NewPaths {
                    epoch,
                    table: 1,
                    paths: paths(agent),
                    forget: Vec::new(),
                    done,
                };
                vec![Arrival::Connected(connected), Arrival::Paths(paths)]
            }
            Plan::Disconnect(agent) => {
                let agent = epoch(agent).agent;
                // Whoever has a session ends it, whatever number it got after a restart.
                let session = self
                    .turn
                    .sessions
                    .get(&agent)
                    .map_or(u64::MAX, |session| session.id);
                vec![Arrival::Disconnected(Disconnected { session, agent })]
            }
            Plan::Batch {
                agent,
                sequence,
                start,
                rtt_us,
                lost,
            } => {
                let (epoch, paths) = (epoch(agent), paths(agent));
                let batch = Batch {
                    agent: epoch.agent.clone(),
                    boot_epoch: epoch.boot,
                    sequence,
                    table: 1,
                    window: Window {
                        start,
                        length: Duration::from_secs(1),
                    },
                    until: start + Duration::from_secs(1),
                    health: None,
                    schema: Schema::TwoDigits,
                    rows: (0..paths.len() as u32)
                        .map(|row| (row, report(rtt_us + row * 1_000, lost)))
                        .collect(),
                };
                let region = region(AGENTS[agent].1);
                let bytes = batch::encode(&batch).unwrap();
                // The turn and the replay must see the same, so both see what went through the codec.
                let reports =
                    resolve(batch::open(&bytes).unwrap(), region.clone(), &paths).unwrap();
                let settle = Settle {
                    session,
                    boot_epoch: epoch.boot,
                    permit,
                };
                let received = Instant::now();
                vec![Arrival::Batch(Box::new(NewBatch {
                    epoch,
                    sequence,
                    region,
                    bytes,
                    reports,
                    received,
                    room: None,
                    settle,
                }))]
            }
            Plan::Signal { value, at } => {
                let signal = Signal {
                    source: SourceId::parse("netops").unwrap(),
                    subject: Subject::Region(region("dub")),
                    metric: Metric::Health,
                    value,
                    observed_at: at,
                    expires_at: at + Duration::from_secs(3),
                    idempotency_key: None,
                };
                let (done, _) = oneshot::channel();
                vec![Arrival::Signal { signal, done }]
            }
            Plan::Policy(toml) => {
                let (done, _) = oneshot::channel();
                vec![Arrival::Policy {
                    policy: Box::new(policy(toml)),
                    done,
                }]
            }
        }
    }

    fn state(&self) -> Vec<u8> {
        v1::encode(self.turn.engine.to_snapshot())
    }
}

fn start(store: &Memory, wall: &Arc<Set>) -> Turn {
    let recovered = recover(store, &policy(POLICY)).unwrap();
    let outlets = Outlets {
        view: Arc::new(Published::new(recovered.engine.view())),
        readiness: Arc::default(),
        metrics: Arc::default(),
        progress: Arc::default(),
    };
    let wall: Arc<dyn Clock> = Arc::<Set>::clone(wall);
    Turn::new(
        Box::new(store.clone()),
        recovered,
        wall,
        crate::config::Retention::default(),
        outlets,
    )
}

/// What arrives, in a form that can be sent again.
#[derive(Clone, Debug)]
enum Plan {
    Connect(usize),
    Disconnect(usize),
    Batch {
        agent: usize,
        sequence: u64,
        start: Timestamp,
        rtt_us: u32,
        lost: u32,
    },
    Signal {
        value: f64,
        at: Timestamp,
    },
    Policy(&'static str),
}

fn region(id: &str) -> RegionId {
    RegionId::parse(id).unwrap()
}

fn epoch(agent: usize) -> Epoch {
    Epoch {
        agent: AgentId::parse(AGENTS[agent].0).unwrap(),
        boot: 7,
    }
}

fn paths(agent: usize) -> Arc<[Path]> {
    let others = AGENTS.iter().filter(|other| other.1 != AGENTS[agent].1);
    others
        .map(|(name, home)| Path {
            target: TargetId::parse(&format!("{name}.v4")).unwrap(),
            kind: ProbeKind::Icmp,
            region: Some(region(home)),
        })
        .collect()
}

fn report(rtt_us: u32, lost: u32) -> Report {
    let mut counts = Counts {
        scheduled: 10,
        ..Counts::default()
    };
    let mut rtt = Rtt::empty(Schema::TwoDigits);
    for probe in 0..10 {
        if probe < lost {
            counts.overdue += 1;
            counts.end(Class::Lost);
        } else {
            counts.end(Class::Replied);
            rtt.record(rtt_us + probe * 10);
        }
    }
    Report { counts, rtt }
}

/// Everybody connects, then windows arrive for some seconds; `byte` chooses what else happens.
fn story(bytes: &[u8], begin: Timestamp) -> Vec<(Duration, Vec<Plan>)> {
    let mut story = vec![(
        Duration::ZERO,
        (0..AGENTS.len()).map(Plan::Connect).collect(),
    )];
    let mut sequences = BTreeMap::new();
    for (second, &byte) in bytes.iter().enumerate() {
        let start = (begin + Duration::from_secs(second as u64)).floor(Duration::from_secs(1));
        let mut plans = Vec::new();
        for agent in 0..AGENTS.len() {
            let sequence = sequences.entry(agent).or_insert(0);
            let lost = if usize::from(byte) % 7 == agent {
                10
            } else {
                u32::from(byte) % 3
            };
            let rtt_us = 20_000 + u32::from(byte) * 100;
            plans.push(Plan::Batch {
                agent,
                sequence: *sequence,
                start,
                rtt_us,
                lost,
            });
            *sequence += 1;
        }
        match byte % 16 {
            1 => plans.push(Plan::Signal {
                value: 0.5,
                at: start,
            }),
            2 => plans.push(Plan::Policy(OTHER_POLICY)),
            3 => plans.push(Plan::Policy(POLICY)),
            4 => plans.push(Plan::Disconnect(usize::from(byte / 16) % AGENTS.len())),
            5 => plans.push(Plan::Connect(usize::from(byte / 16) % AGENTS.len())),
            _ => {}
        }
        story.push((Duration::from_millis(1_000 + u64::from(byte % 5)), plans));
    }
    story
}

/// Names the first difference: whole states are too long to read.
fn assert_same(lived: &Bench, killed: &Bench) {
    if lived.state() == killed.state() {
        return;
    }
    let text = |bench: &Bench| format!("{:#?}", bench.turn.engine.to_snapshot());
    let (lived, killed) = (text(lived), text(killed));
    let mut before = "";
    for (a, b) in lived.lines().zip(killed.lines()) {
        assert_eq!(a, b, "after {before}");
        before = a;
    }
    panic!("the states differ in length");
}

/// Kill it anywhere, as often as you like, deliver everything twice: it ends in the same state, byte for byte.
#[test]
fn a_killed_turn_ends_in_the_same_state_as_one_that_lived() {
    bolero::check!()
        .with_iterations(25)
        .with_type::<(Vec<u8>, u64)>()
        .for_each(|(bytes, kills)| {
            let (mut lived, mut killed) = (Bench::new(), Bench::new());
            for (at, (span, plans)) in story(&bytes[..bytes.len().min(15)], lived.now())
                .iter()
                .enumerate()
            {
                lived.advance(*span);
                killed.advance(*span);
                lived.turn(plans);
                match (kills >> (2 * (at % 32))) & 3 {
                    // Before anything was written: the agents send again.
                    0 => killed.kill_and_keep_sessions(),
                    // After the journal, before the engine: written, not acknowledged.
                    1 => {
                        let (now, (arrivals, _)) =
                            (killed.turn.clock.now(), killed.arrivals(plans));
                        killed.turn.journal(now, &arrivals).unwrap();
                        killed.kill_and_keep_sessions();
                        let plans: Vec<_> = plans
                            .iter()
                            .filter(|plan| matches!(plan, Plan::Batch { .. }))
                            .cloned()
                            .collect();
                        let outcomes = killed.turn(&plans);
                        assert!(
                            outcomes.iter().all(|outcome| *outcome == Outcome::Repeated),
                            "{outcomes:?}"
                        );
                        continue;
                    }
                    2 => killed.turn.write_snapshot(),
                    _ => {}
                }
                killed.turn(plans);
            }
            killed.kill_and_keep_sessions();
            for bench in [&mut lived, &mut killed] {
                bench.advance(Duration::from_secs(1));
                bench.turn(&[]);
            }
            assert_same(&lived, &killed);
            let decisions = |bench: &Bench| bench.turn.engine.view().decisions.clone();
            assert_eq!(decisions(&killed), decisions(&lived));
        });
}

/// What is stored, decided again: any stretch of the journal, whatever was killed in it.
fn assert_replays(bench: &Bench, from: Timestamp, to: Timestamp) -> u64 {
    let question = Question {
        from,
        to,
        other: Some(policy(OTHER_POLICY)),
    };
    let answer = replay(&bench.store, &question, &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(answer.first_difference, None);
    assert_eq!((answer.identical, answer.skipped), (answer.decisions, 0));
    assert!(answer.build.is_some(), "it began with a snapshot");
    let mut stored = 0;
    let count = &mut |key: &[u8], _: &[u8]| {
        let at = Position::from_key(key).unwrap().time;
        stored += u64::from(at >= from && at <= to);
        ControlFlow::Continue(())
    };
    bench.store.scan(Column::Decisions, &[], count).unwrap();
    assert_eq!(answer.decisions, stored);
    stored
}

#[test]
fn any_stretch_of_the_journal_is_decided_again_byte_for_byte() {
    let compared = AtomicU64::new(0);
    bolero::check!()
        .with_iterations(20)
        .with_type::<(Vec<u8>, u64, u8, u8)>()
        .for_each(|(bytes, chances, first, last)| {
            let mut bench = Bench::new();
            bench.turn(&[]);
            let begin = bench.turn.engine.view().now;
            let bytes: Vec<u8> = b"leeward"
                .iter()
                .chain(bytes.iter().take(15))
                .copied()
                .collect();
            for (at, (span, plans)) in story(&bytes, begin).iter().enumerate() {
                bench.advance(*span);
                match (chances >> (3 * (at % 21))) & 7 {
                    0 => bench.kill(),
                    1 => bench.kill_and_keep_sessions(),
                    2 => bench.turn.write_snapshot(),
                    // Into the next hour: another anchor.
                    3 => bench.advance(Duration::from_secs(1_800)),
                    // Journaled, and killed before the engine saw it.
                    4 => {
                        let (now, (arrivals, _)) = (bench.turn.clock.now(), bench.arrivals(plans));
                        bench.turn.journal(now, &arrivals).unwrap();
                        bench.kill();
                    }
                    _ => {}
                }
                bench.turn(plans);
                bench.advance(Duration::from_millis(u64::from(*first)));
                bench.turn(&[]);
            }
            let to = crate::replay::settled(&bench.turn.engine.view());
            let part = |share: u8| begin + to.since(begin).mul_f64(f64::from(share) / 255.0);
            compared.fetch_add(assert_replays(&bench, begin, to), Ordering::Relaxed);
            let (a, b) = (part(*first), part(*last));
            compared.fetch_add(
                assert_replays(&bench, a.min(b), a.max(b)),
                Ordering::Relaxed,
            );
        });
    let compared = compared.into_inner();
    assert!(compared > 100, "{compared} decisions are no test");
}

#[test]
fn a_decision_that_is_not_the_same_is_told_in_words() {
    let mut bench = Bench::new();
    bench.turn(&[]);
    let begin = bench.turn.engine.view().now;
    for (span, plans) in story(b"leeward, the sheltered side", begin) {
        bench.advance(span);
        bench.turn(&plans);
    }
    let to = crate::replay::settled(&bench.turn.engine.view());
    let mut stored = Vec::new();
    let read = &mut |key: &[u8], value: &[u8]| {
        stored.push((
            key.to_vec(),
            v1::decode::<v1::Decided>("decision", value).unwrap(),
        ));
        ControlFlow::Continue(())
    };
    bench.store.scan(Column::Decisions, &[], read).unwrap();
    let (key, decided) = stored.first().unwrap();
    let forged = v1::Decided {
        to: None,
        ..decided.clone()
    };
    bench
        .store
        .put(Column::Decisions, key, &v1::encode(&forged));
    let question = Question {
        from: begin,
        to,
        other: None,
    };
    let answer = replay(&bench.store, &question, &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(answer.identical + 1, answer.decisions);
    let (at, words) = answer.first_difference.unwrap();
    assert_eq!(at.as_unix_us(), decided.at_us);
    assert!(
        words.starts_with("decision 1: to none as stored, "),
        "{words}"
    );
}

fn what_if(events: Vec<Event>) -> WhatIf {
    WhatIf {
        seed: 1,
        duration: Duration::from_secs(30),
        events,
        changes: Vec::new(),
    }
}

#[test]
fn a_simulation_goes_on_from_the_live_state_and_leaves_it_untouched() {
    let mut bench = Bench::new();
    for (span, plans) in story(&[6; 20], bench.now()) {
        bench.advance(span);
        bench.turn(&plans);
    }
    let (before, now) = (bench.state(), bench.turn.engine.view().now);
    let engine = || engine_at(&bench.store, now).unwrap();
    assert_eq!(
        v1::encode(engine().to_snapshot()),
        before,
        "it is the live one"
    );
    let view = engine().view();
    let iad = region("iad");
    let selected = view.selections[&iad].selected.clone().unwrap();

    let go_on = &mut |_, _| ControlFlow::Continue(());
    let calm = live::run(engine(), &what_if(Vec::new()), go_on);
    assert_eq!(calm.decisions, [], "nothing happens by itself");
    assert_eq!(calm.after.selections, calm.before.selections);

    let event = Event {
        at: Duration::from_secs(5),
        actions: vec![Action::RegionDown(selected.clone())],
        say: None,
        quiet: false,
    };
    let lost = live::run(engine(), &what_if(vec![event]), go_on);
    let moved = lost
        .decisions
        .iter()
        .find(|own| own.primary == iad)
        .unwrap();
    assert_eq!(moved.from.as_ref(), Some(&selected));
    assert_eq!(moved.reason.code(), "down");
    let after = moved.at.since(now);
    assert!(
        after > Duration::from_secs(5) && after < Duration::from_secs(12),
        "{after:?}"
    );
    assert!(!lost.lines.is_empty());

    assert_eq!(bench.state(), before);
}

#[test]
fn a_replay_without_a_snapshot_says_from_when_on_it_compares() {
    let mut bench = Bench::new();
    bench.turn(&[]);
    let begin = bench.turn.engine.view().now;
    for (span, plans) in story(b"leeward, the sheltered side", begin) {
        bench.advance(span);
        bench.turn(&plans);
    }
    bench
        .store
        .drop_before(Column::Snapshots, &[0xff; 12])
        .unwrap();
    let question = Question {
        from: begin,
        to: crate::replay::settled(&bench.turn.engine.view()),
        other: None,
    };
    let answer = replay(&bench.store, &question, &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(answer.build, None);
    assert!(answer.compared_from > begin + Duration::from_secs(120));
    assert_eq!(answer.decisions, 0);
    let before = Question {
        from: begin - Duration::from_secs(60),
        ..question
    };
    let error = replay(&bench.store, &before, &mut |_| ControlFlow::Continue(())).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("the journal does not reach back to"),
        "{error}"
    );
}

#[test]
fn a_batch_that_comes_twice_counts_once_and_is_acknowledged_twice() {
    let mut bench = Bench::new();
    bench.turn(&[Plan::Connect(0)]);
    let batch = Plan::Batch {
        agent: 0,
        sequence: 0,
        start: bench.now(),
        rtt_us: 30_000,
        lost: 0,
    };
    assert_eq!(
        bench.turn(&[batch.clone(), batch.clone()]),
        [Outcome::Durable, Outcome::Repeated]
    );
    let before = bench.turn.engine.view().graph_version;
    bench.kill();
    assert_eq!(bench.turn(&[batch]), [Outcome::Repeated]);
    assert_eq!(bench.turn.engine.view().graph_version, before);
}

#[test]
fn while_the_store_fails_nothing_is_acknowledged_and_nothing_counts() {
    let mut bench = Bench::new();
    bench.turn(&[Plan::Connect(0)]);
    let before = bench.turn.engine.view().graph_version;
    bench.store.fail(true);
    let batch = Plan::Batch {
        agent: 0,
        sequence: 0,
        start: bench.now(),
        rtt_us: 30_000,
        lost: 0,
    };
    assert_eq!(
        bench.turn(std::slice::from_ref(&batch)),
        [Outcome::NotStored]
    );
    assert_eq!(bench.turn.outlets.readiness.state(), State::StoreFailed);
    assert_eq!(bench.turn.engine.view().graph_version, before);

    bench.turn(&[]);
    assert_eq!(
        bench.turn.outlets.readiness.state(),
        State::StoreFailed,
        "an idle turn heals nothing"
    );

    bench.store.fail(false);
    bench.advance(REVIVE_EVERY);
    assert_eq!(bench.turn(&[batch]), [Outcome::Durable]);
    assert_eq!(bench.turn.outlets.readiness.state(), State::Ready);
}

#[test]
fn a_store_that_takes_writes_again_is_noticed_without_any_arrival() {
    let mut bench = Bench::new();
    bench.turn(&[]);
    assert_eq!(bench.turn.outlets.readiness.state(), State::Ready);
    bench.store.fail(true);
    bench.turn(&[Plan::Connect(0)]);
    bench.store.fail(false);
    bench.advance(REVIVE_EVERY);
    bench.turn(&[]);
    assert_eq!(bench.turn.outlets.readiness.state(), State::Ready);
}

/// A write may fail after everything of it reached the disk.
#[test]
fn what_a_failed_write_left_on_disk_counts_once_when_the_store_is_back() {
    let (mut bench, mut lived) = (Bench::new(), Bench::new());
    for bench in [&mut bench, &mut lived] {
        bench.turn(&[Plan::Connect(0), Plan::Connect(2)]);
        bench.advance(REVIVE_EVERY);
    }
    let batch = Plan::Batch {
        agent: 0,
        sequence: 0,
        start: bench.now(),
        rtt_us: 30_000,
        lost: 0,
    };
    lived.turn(std::slice::from_ref(&batch));
    let (now, (arrivals, _)) = (bench.now(), bench.arrivals(std::slice::from_ref(&batch)));
    bench.turn.journal(now, &arrivals).unwrap();
    bench.turn.refuse(now, arrivals, &store::StoreError::Told);

    for bench in [&mut bench, &mut lived] {
        bench.advance(REVIVE_EVERY);
    }
    lived.turn(&[]);
    assert_eq!(bench.turn(&[batch]), [Outcome::Repeated]);
    assert_same(&lived, &bench);
}

#[test]
fn while_the_store_fails_what_is_owed_does_not_grow() {
    let mut bench = Bench::new();
    bench.turn(&[Plan::Connect(0), Plan::Connect(1)]);
    bench.kill();
    bench.store.fail(true);
    bench.advance(RECONNECT_GRACE);
    for _ in 0..10 {
        bench.turn(&[]);
    }
    assert!(bench.turn.owed.is_empty());
}

#[test]
fn a_disconnect_that_could_not_be_stored_is_stored_later() {
    let mut bench = Bench::new();
    bench.turn(&[Plan::Connect(0)]);
    bench.store.fail(true);
    bench.turn(&[Plan::Disconnect(0)]);
    bench.store.fail(false);
    bench.advance(REVIVE_EVERY);
    bench.turn(&[]);
    let agent = epoch(0).agent;
    assert_eq!(
        bench.turn.engine.view().agents[&agent].connected_since,
        None
    );
}

#[test]
fn an_agent_that_does_not_come_back_after_a_restart_is_disconnected() {
    let mut bench = Bench::new();
    bench.turn(&[Plan::Connect(0), Plan::Connect(1)]);
    bench.kill();
    bench.turn(&[Plan::Connect(1)]);
    let connected = |bench: &Bench, agent: usize| {
        bench.turn.engine.view().agents[&epoch(agent).agent]
            .connected_since
            .is_some()
    };
    assert!(connected(&bench, 0));
    bench.advance(RECONNECT_GRACE);
    bench.turn(&[]);
    assert!(!connected(&bench, 0));
    assert!(connected(&bench, 1));
}

#[test]
fn a_session_that_begins_and_ends_within_one_turn_has_ended() {
    let mut bench = Bench::new();
    let agent = epoch(0).agent;
    let (mut arrivals, _) = bench.arrivals(&[Plan::Connect(0)]);
    arrivals.push(Arrival::Disconnected(Disconnected {
        session: 1,
        agent: agent.clone(),
    }));
    bench.turn.turn(arrivals);
    assert!(bench.turn.sessions.is_empty());
    assert_eq!(
        bench.turn.engine.view().agents[&agent].connected_since,
        None
    );
}

#[test]
fn an_older_session_that_comes_later_does_not_take_over() {
    let mut bench = Bench::new();
    bench.turn(&[Plan::Connect(0)]);
    let agent = epoch(0).agent;
    bench.turn.sessions.get_mut(&agent).unwrap().id = 5;
    bench.turn(&[Plan::Connect(0)]);
    assert_eq!(bench.turn.sessions[&agent].id, 5);
}

#[test]
fn the_end_of_an_old_session_does_not_end_the_new_one() {
    let mut bench = Bench::new();
    bench.turn(&[Plan::Connect(0)]);
    let agent = epoch(0).agent;
    let old = Arrival::Disconnected(Disconnected {
        session: 99,
        agent: agent.clone(),
    });
    bench.turn.turn(vec![old]);
    assert!(
        bench.turn.engine.view().agents[&agent]
            .connected_since
            .is_some()
    );
}

#[test]
fn without_a_snapshot_the_journal_alone_gives_the_same_state() {
    let mut bench = Bench::new();
    for (span, plans) in story(b"leeward, the sheltered side", bench.now()) {
        bench.advance(span);
        bench.turn(&plans);
    }
    let state = bench.state();
    bench.turn.write_snapshot();
    assert!(bench.store.last(Column::Snapshots).unwrap().is_some());
    bench
        .store
        .drop_before(Column::Snapshots, &[0xff; 12])
        .unwrap();
    // A snapshot of a build to come.
    let mut writes = Writes::default();
    let end = bench.turn.end.unwrap();
    let policy = v1::Policy {
        toml: String::new(),
    };
    let snapshot = v1::Snapshot {
        state_version: 99,
        build: "99".to_owned(),
        policy,
        state: vec![0xc1],
    };
    writes.snapshot(end, &snapshot);
    bench.store.commit(&writes).unwrap();
    bench.kill();
    bench.turn(&[]);
    assert_eq!(bench.state(), state);
}

#[test]
fn retention_cuts_the_journal_at_an_anchor_and_the_rest_replays() {
    let mut bench = Bench::new();
    bench.turn(&[Plan::Connect(0), Plan::Connect(2)]);
    bench.advance(Duration::from_secs(50 * 3600));
    let batch = Plan::Batch {
        agent: 0,
        sequence: 0,
        start: bench.now(),
        rtt_us: 30_000,
        lost: 0,
    };
    assert_eq!(bench.turn(&[batch]), [Outcome::Durable]);
    let mut records = Vec::new();
    bench
        .store
        .scan(Column::Journal, &[], &mut |_, value| {
            records.push(v1::decode::<v1::Record>("record", value).unwrap());
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    let v1::Record::Anchor(anchor) = &records[0] else {
        panic!("{records:?}")
    };
    assert_eq!(anchor.connected.len(), 2);
    assert!(
        matches!(records[1..], [v1::Record::Batch(_)]),
        "{records:?}"
    );

    bench
        .store
        .drop_before(Column::Snapshots, &[0xff; 12])
        .unwrap();
    bench.kill();
    let view = bench.turn.engine.view();
    assert!(view.agents[&epoch(2).agent].connected_since.is_some());
    assert!(view.agents[&epoch(0).agent].last_report_at.is_some());
}

/// However short the journal, what an agent sends again within a day is known.
#[test]
fn what_was_counted_is_remembered_beyond_a_short_journal() {
    let mut bench = Bench::new();
    let hour = Duration::from_secs(3600);
    bench.turn.retention.journal = 2 * hour;
    let batch = |start| Plan::Batch {
        agent: 0,
        sequence: 0,
        start,
        rtt_us: 30_000,
        lost: 0,
    };
    let start = bench.now();
    assert_eq!(
        bench.turn(&[Plan::Connect(0), batch(start), Plan::Disconnect(0)]),
        [Outcome::Durable]
    );
    for _ in 0..23 {
        bench.advance(hour);
        bench.turn(&[]);
    }
    assert_eq!(
        bench.turn(&[Plan::Connect(0), batch(start)]),
        [Outcome::Repeated]
    );
}

/// Tables of a start of the process that never delivered anything go as those of any other do.
#[test]
fn tables_go_with_their_epoch_though_no_batch_came() {
    let mut bench = Bench::new();
    bench.turn(&[Plan::Connect(0)]);
    bench.turn(&[Plan::Disconnect(0)]);
    let tables = |bench: &Bench| recover::tables(&bench.store, &epoch(0)).unwrap();
    assert_eq!(tables(&bench), [1]);
    for _ in 0..52 {
        bench.advance(Duration::from_secs(3600));
        bench.turn(&[]);
    }
    assert!(tables(&bench).is_empty() && bench.turn.epochs.is_empty());
}

#[test]
fn a_malformed_record_is_passed_over() {
    let mut bench = Bench::new();
    bench.turn(&[Plan::Connect(0)]);
    let state = bench.state();
    let end = bench.turn.end.unwrap();
    bench
        .store
        .put(Column::Journal, &end.next(end.time).key(), &[0xc1]);
    let recovered = recover(&bench.store, &policy(POLICY)).unwrap();
    assert_eq!(recovered.skipped, 1);
    bench.kill();
    bench.turn(&[]);
    assert_eq!(bench.state(), state);
}

#[test]
fn rows_must_match_their_table() {
    let window = Window {
        start: Timestamp::EPOCH,
        length: Duration::from_secs(1),
    };
    let batch = Batch {
        agent: epoch(0).agent,
        boot_epoch: 7,
        sequence: 0,
        table: 1,
        window,
        until: window.end(),
        health: None,
        schema: Schema::TwoDigits,
        rows: vec![(9, report(1_000, 0))],
    };
    let bytes = batch::encode(&batch).unwrap();
    let unread = batch::open(&bytes).unwrap();
    let error = resolve(unread, region("iad"), &paths(0))
        .unwrap_err()
        .to_string();
    assert_eq!(error, "row 9 is beyond path table 1, which has 3");
}
