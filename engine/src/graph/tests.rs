//! What is carried on is what would be made anew from all windows, whatever was told in whatever order.

use leeward_common::{
    histogram::{Histogram, Schema},
    report::{Class, Counts, Path, Report, Rtt, Silence, Window},
};
use proptest::prelude::*;

use super::{
    combine::{Measured, wilson},
    evidence::PathEvidence,
    *,
};
use crate::{
    policy::{Probing, Region, defaults},
    view::Estimate,
};

const SECOND: Duration = Duration::from_secs(1);
const REGIONS: [&str; 3] = ["a", "b", "c"];

/// Something that happens to a graph.
#[derive(Clone, Debug)]
enum Event {
    Told(Told),
    /// An agent is left out from now on, or no longer; a target likewise.
    Excluded(usize, usize),
    /// An agent has been wrong for so many seconds.
    Wrong(usize, u64),
    Swept,
    /// The policy is read again.
    Policy,
}

/// What an agent tells of a window, or of a part of one.
#[derive(Clone, Debug)]
struct Told {
    agent: usize,
    /// How many seconds ago the window began, and after how many milliseconds the part ended.
    window: (u64, u64),
    fine: bool,
    /// In which of several tables its paths are.
    table: usize,
    /// Which of its paths, and how each fared.
    rows: Vec<(u32, Vec<u32>, u32, bool)>,
}

fn told() -> impl Strategy<Value = Told> {
    let row = (
        0u32..5,
        prop::collection::vec(900u32..40_000, 0..6),
        0u32..6,
        any::<bool>(),
    );
    (
        0usize..4,
        (0u64..20, prop_oneof![3 => Just(1_000u64), 1 => 1u64..1_000]),
        prop::bool::weighted(0.1),
        prop_oneof![8 => Just(0usize), 1 => Just(1), 1 => Just(2)],
        prop::collection::vec(row, 1..6),
    )
        .prop_map(|(agent, window, fine, table, rows)| Told {
            agent,
            window,
            fine,
            table,
            rows,
        })
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        20 => told().prop_map(Event::Told),
        1 => (0usize..4, 0usize..6).prop_map(|(agent, target)| Event::Excluded(agent, target)),
        1 => (0usize..4, 0u64..8).prop_map(|(agent, since)| Event::Wrong(agent, since)),
        1 => Just(Event::Swept),
        1 => Just(Event::Policy),
    ]
}

fn agent(n: usize) -> AgentId {
    AgentId::parse(&format!("agent{n}")).unwrap()
}

fn target(n: usize) -> TargetId {
    TargetId::parse(&format!("target{n}")).unwrap()
}

fn region(n: usize) -> RegionId {
    RegionId::parse(REGIONS[n % 3]).unwrap()
}

/// Tables of five paths. In the second one a target stands elsewhere, and in the third the order is another and a path is
/// named twice.
fn table(variant: usize) -> Arc<[Path]> {
    let path = |n: usize| Path {
        target: target(n),
        kind: if n == 4 {
            ProbeKind::TcpSyn
        } else {
            ProbeKind::Icmp
        },
        region: (n != 3).then(|| region(n + usize::from(variant == 1 && n == 0))),
    };
    match variant {
        2 => [4, 2, 0, 2, 1].map(path).into(),
        _ => [0, 1, 2, 3, 4].map(path).into(),
    }
}

fn reports(now: Timestamp, tables: &[Arc<[Path]>], told: &Told) -> Reports {
    let window = Window {
        start: now.floor(SECOND) - SECOND * u32::try_from(told.window.0).unwrap(),
        length: SECOND,
    };
    let schema = match told.fine {
        true => Schema::ThreeDigits,
        false => Schema::TwoDigits,
    };
    let row = |(row, times, overdue, says): &(u32, Vec<u32>, u32, bool)| {
        let mut counts = Counts {
            overdue: *overdue,
            ..Counts::default()
        };
        let mut rtt = Rtt::empty(schema);
        for &us in times {
            counts.end(if us % 13 == 0 {
                Class::Late
            } else {
                Class::Replied
            });
            rtt.record(us);
        }
        counts.silence = says.then(|| Silence {
            unanswered: *overdue,
            lasts: Duration::from_millis(u64::from(*overdue) * 150),
        });
        (*row, Report { counts, rtt })
    };
    Reports {
        agent: agent(told.agent),
        region: region(told.agent),
        window,
        until: window.start + Duration::from_millis(told.window.1),
        health: None,
        table: Arc::clone(&tables[told.table]),
        rows: told.rows.iter().map(row).collect(),
    }
}

fn policy() -> Policy {
    let place = |id: &str| {
        let region = Region {
            latitude: 0.0,
            longitude: 0.0,
            capacity: 1.0,
            labels: BTreeMap::new(),
            risk_groups: Default::default(),
            prefixes: Default::default(),
            origins: Default::default(),
        };
        (RegionId::parse(id).unwrap(), region)
    };
    let interval = Duration::from_millis(100);
    Policy {
        regions: REGIONS.into_iter().map(place).collect(),
        failovers: BTreeMap::new(),
        probing: Probing {
            interval,
            window: SECOND,
            expiry: SECOND * 3,
            kinds: vec![ProbeKind::Icmp],
            schema: Schema::TwoDigits,
            flows: 4,
        },
        targets: Vec::new(),
        signal_sources: BTreeMap::new(),
        evaluate_every: Duration::from_millis(50),
        evidence: defaults::evidence(interval, SECOND),
        weights: defaults::weights(),
        doubt: defaults::doubt(),
        steadiness: defaults::steadiness(),
        capacity: Default::default(),
        routing: Default::default(),
    }
}

/// What the windows of a path come to, from all of them one after the other.
fn from_all(path: &PathEvidence, dating: Dating, cut: Timestamp) -> (Option<Timestamp>, Measured) {
    let newest_at = path.counted(dating).next_back().map(|(_, at)| at);
    let (mut answered, mut late, mut overdue, mut rejected) = (0, 0, 0, 0);
    let (mut lost_lately, mut all_lately) = (0, 0);
    let mut all: Option<Histogram> = None;
    let mut min_us = u32::MAX;
    for (window, at) in path.counted(dating).filter(|(_, at)| *at > cut) {
        answered += window.answered;
        late += window.late;
        overdue += window.overdue;
        rejected += window.rejected;
        if Some(at + window.window.length * 2) > newest_at {
            lost_lately += window.overdue.saturating_sub(window.late) + window.rejected;
            all_lately += window.answered + window.overdue + window.rejected;
        }
        if window.histogram.is_empty() {
            continue;
        }
        min_us = min_us.min(window.min_us);
        match &mut all {
            Some(all) if all.schema() == window.histogram.schema() => {
                all.merge(&window.histogram).unwrap();
            }
            _ => all = Some(window.histogram.clone()),
        }
    }
    let quantile = |q: f64| {
        let all = all.as_ref()?;
        let spread = Z * (q * (1.0 - q) / all.count() as f64).sqrt();
        let at = |q| all.quantile(q).map(f64::from);
        Some(Estimate {
            value: at(q)?,
            low: at(q - spread)?,
            high: at(q + spread)?,
            n: all.count(),
        })
    };
    let n = answered + overdue + rejected;
    let unanswered = overdue.saturating_sub(late) + rejected;
    let over_min = |us: f64| (us - f64::from(min_us)).max(0.0);
    let measured = Measured {
        rtt_p50_us: quantile(0.5),
        rtt_p99_us: quantile(0.99),
        jitter_us: quantile(0.99).map(|p99| Estimate {
            value: over_min(p99.value),
            low: over_min(p99.low),
            high: over_min(p99.high),
            n: p99.n,
        }),
        loss: wilson(unanswered as f64, n as f64),
        loss_lately: wilson(lost_lately as f64, all_lately as f64),
        n,
    };
    (newest_at, measured)
}

/// The same evidence, and nothing that was made of it.
fn written_and_read(graph: &Graph) -> Graph {
    let bytes = rmp_serde::to_vec_named(graph).unwrap();
    let read: Graph = rmp_serde::from_slice(&bytes).unwrap();
    assert_eq!(rmp_serde::to_vec_named(&read).unwrap(), bytes);
    read
}

fn happen(
    graph: &mut Graph,
    exclusions: &mut Exclusions,
    now: Timestamp,
    tables: &[Arc<[Path]>],
    event: &Event,
) {
    let policy = policy();
    match event {
        Event::Told(told) => graph.on_reports(now, &policy, &reports(now, tables, told)),
        Event::Excluded(who, what) => {
            let (who, what) = (agent(*who), target(*what));
            if !exclusions.agents.remove(&who) {
                exclusions.agents.insert(who);
            }
            if !exclusions.targets.remove(&what) {
                exclusions.targets.insert(what);
            }
            graph.refresh_all(&policy, exclusions);
        }
        Event::Wrong(who, since) => {
            let since = now - SECOND * u32::try_from(*since).unwrap();
            graph.on_fault(now, &policy, &agent(*who), since);
        }
        Event::Swept => graph.forget_old(now, &policy),
        Event::Policy => graph.refresh_all(&policy, exclusions),
    }
}

proptest! {
    #[test]
    fn carried_on_or_made_anew_is_the_same(
        events in prop::collection::vec((prop_oneof![2 => Just(0u64), 5 => 0u64..900, 1 => 0u64..4_000, 1 => Just(130_000)], event()), 1..80)
    ) {
        let policy = policy();
        let tables: Vec<_> = (0..3).map(table).collect();
        let (mut graph, mut exclusions) = (Graph::default(), Exclusions::default());
        let mut now = Timestamp::from_unix_us(1_767_225_600_000_000);
        for (after_ms, event) in &events {
            now = now + Duration::from_millis(*after_ms);
            happen(&mut graph, &mut exclusions, now, &tables, event);
            // The estimates that are due, and what agents see.
            let mut anew = written_and_read(&graph);
            anew.made = graph.made.clone();
            for own in [&mut graph, &mut anew] {
                own.refresh(&policy, &exclusions);
            }
            prop_assert_eq!(&graph.made.pairs, &anew.made.pairs);
            prop_assert_eq!(&graph.made.links, &anew.made.links);
            prop_assert_eq!(graph.look(now, &policy), anew.look(now, &policy));
            let seen = |own: &Graph| format!("{:?}", own.sights().collect::<Vec<_>>());
            prop_assert_eq!(seen(&graph), seen(&anew));
            // Each path, for cuts that go forward and for one that goes back.
            let agents: Vec<AgentId> = graph.paths.agents().map(|(id, _)| id.clone()).collect();
            for id in agents {
                let dating = graph.dating(&policy, &id);
                let count = graph.paths.get(&id).unwrap().iter().count();
                for place in 0..count {
                    for back_ms in [9_000, 6_000, 5_500, 0, 7_000] {
                        let cut = now - Duration::from_millis(back_ms);
                        let path = &mut graph.paths.get_mut(&id).unwrap().at_mut(place).evidence;
                        let (newest_at, measured) = from_all(path, dating, cut);
                        let carried = path.measured(&policy, dating, cut, &mut Pile::default());
                        prop_assert_eq!(carried, measured);
                        let newest = path.newest(&policy, dating).map(|(at, _)| at);
                        prop_assert_eq!(newest, newest_at);
                    }
                }
            }
        }
    }
}
