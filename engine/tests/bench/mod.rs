//! A small mesh whose agents say what a rule makes of each probe; for tests of what the engine makes of it.
#![allow(dead_code, reason = "not every test needs all of it")]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use leeward_common::{
    histogram::Schema,
    id::{AgentId, RegionId, SourceId, TargetId},
    report::{Class, Counts, Path, ProbeKind, Report, Rtt, Window},
    time::Timestamp,
};
use leeward_engine::{
    Engine,
    decision::Decision,
    effect::Effect,
    input::{Input, Metric, Reports, Signal, Subject},
    intent::{Failback, Limits, Profile, Replication, Service},
    policy::{Policy, Probing, Region, SignalSource, defaults},
    view::View,
};

pub const START: Timestamp = Timestamp::from_unix_us(1_767_225_600_000_000);
pub const SECOND: Duration = Duration::from_secs(1);

pub fn region(id: &str) -> RegionId {
    RegionId::parse(id).unwrap()
}

pub fn policy(regions: &[&str]) -> Policy {
    let place = |(n, id): (usize, &&str)| {
        let region = Region {
            latitude: 0.0,
            longitude: 10.0 * n as f64,
            capacity: 1.0,
            labels: BTreeMap::new(),
            risk_groups: Default::default(),
            prefixes: Default::default(),
            origins: Default::default(),
        };
        (RegionId::parse(id).unwrap(), region)
    };
    let source = |max_factor| SignalSource {
        max_factor,
        max_ttl: SECOND * 60,
    };
    Policy {
        regions: regions.iter().enumerate().map(place).collect(),
        failovers: BTreeMap::new(),
        probing: Probing {
            interval: Duration::from_millis(100),
            window: SECOND,
            expiry: SECOND * 3,
            kinds: vec![ProbeKind::Icmp],
            schema: Schema::TwoDigits,
            flows: 4,
        },
        targets: Vec::new(),
        signal_sources: BTreeMap::from([
            (SourceId::parse("strong").unwrap(), source(100.0)),
            (SourceId::parse("weak").unwrap(), source(1.5)),
        ]),
        evaluate_every: Duration::from_millis(50),
        evidence: defaults::evidence(Duration::from_millis(100), SECOND),
        weights: defaults::weights(),
        doubt: defaults::doubt(),
        steadiness: defaults::steadiness(),
        capacity: Default::default(),
        routing: Default::default(),
    }
}

/// An engine, and the hosts whose agents report to it: `a1` is the first of region `a`.
pub struct Bench {
    pub engine: Engine,
    pub hosts: Vec<&'static str>,
    pub second: u32,
    pub decisions: Vec<Decision>,
}

/// What became of ten probes from one host to another: how many were answered, in microseconds; `None` if the agent is
/// silent.
pub type Rule = fn(&str, &str) -> Option<(u32, u32)>;

pub const WELL: Rule = |_, _| Some((10, 20_000));

impl Bench {
    pub fn new(regions: &[&str], hosts: &[&'static str]) -> Self {
        Self {
            engine: Engine::new(policy(regions)),
            hosts: hosts.to_vec(),
            second: 0,
            decisions: Vec::new(),
        }
    }

    /// Four regions, two agents each.
    pub fn four() -> Self {
        Self::new(
            &["a", "b", "c", "d"],
            &["a1", "a2", "b1", "b2", "c1", "c2", "d1", "d2"],
        )
    }

    pub fn now(&self) -> Timestamp {
        START + SECOND * self.second
    }

    pub fn step(&mut self, at: Timestamp, input: &Input) {
        let effects = self.engine.step(at, input);
        self.decisions
            .extend(effects.into_iter().filter_map(Effect::decision));
    }

    /// Lets seconds pass under a rule.
    pub fn run(&mut self, seconds: u32, rule: impl Fn(&str, &str) -> Option<(u32, u32)>) -> View {
        for _ in 0..seconds {
            let window = Window {
                start: self.now(),
                length: SECOND,
            };
            self.second += 1;
            for from in self.hosts.clone() {
                let paths: Vec<_> = self
                    .hosts
                    .iter()
                    .filter(|to| to[..1] != from[..1])
                    .filter_map(|to| Some((path(to), report(rule(from, to)?))))
                    .collect();
                if paths.is_empty() {
                    continue;
                }
                let (table, rows) = Reports::table_of(paths);
                let reports = Reports {
                    agent: AgentId::parse(from).unwrap(),
                    region: region(&from[..1]),
                    window,
                    until: window.end(),
                    health: None,
                    table,
                    rows,
                };
                self.step(self.now(), &Input::Reports(reports));
            }
            self.step(self.now() + SECOND / 2, &Input::Tick);
        }
        self.engine.view()
    }

    pub fn signal(
        &mut self,
        source: &str,
        subject: Subject,
        metric: Metric,
        value: f64,
        key: Option<&str>,
    ) {
        let at = self.now() + SECOND / 2;
        let signal = Signal {
            source: SourceId::parse(source).unwrap(),
            subject,
            metric,
            value,
            observed_at: at,
            expires_at: at + SECOND * 10,
            idempotency_key: key.map(str::to_owned),
        };
        self.step(at, &Input::Signal(signal));
    }
}

pub fn path(to: &str) -> Path {
    Path {
        target: TargetId::parse(to).unwrap(),
        kind: ProbeKind::Icmp,
        region: Some(region(&to[..1])),
    }
}

pub fn report((answered, rtt_us): (u32, u32)) -> Report {
    let mut counts = Counts {
        scheduled: 10,
        overdue: 10 - answered,
        ..Counts::default()
    };
    let mut rtt = Rtt::empty(Schema::TwoDigits);
    for _ in 0..answered {
        counts.end(Class::Replied);
        rtt.record(rtt_us);
    }
    Report { counts, rtt }
}

/// A service that may run anywhere, whose clients are everywhere.
pub fn service(home: &str) -> Service {
    Service {
        home: region(home),
        candidates: Vec::new(),
        multipliers: BTreeMap::new(),
        clients: BTreeMap::new(),
        profile: Profile::Balanced,
        limits: Limits::default(),
        needs: BTreeMap::new(),
        divisible: false,
        require: BTreeMap::new(),
        forbid: BTreeMap::new(),
        depends_on: BTreeSet::new(),
        checks: BTreeMap::new(),
        replication: Replication::None,
        priority: 100,
        rto: None,
        rpo: None,
        failback: Some(Failback::Automatic),
    }
}
