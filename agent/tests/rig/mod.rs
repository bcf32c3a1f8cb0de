//! A prober under test: starts it, collects its windows, and checks their accounts.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::{
    collections::BTreeMap,
    net::IpAddr,
    ops::RangeInclusive,
    time::{Duration, Instant},
};

use leeward_agent::prober::{
    ClosedWindow, Counters, Family, Plan, PlannedPath, Prober, ProberConfig, ProberHandle, Sockets,
};
use leeward_agent::window::flows::FlowSpan;
use leeward_common::{
    histogram::Schema,
    id::TargetId,
    report::{Class, Counts, Path, ProbeKind},
};
use tokio::sync::mpsc;

/// Longer than any honest run on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Sums of one path over windows.
#[derive(Clone, Debug, Default)]
pub struct Sums {
    pub counts: Counts,
    pub rtts: u64,
    pub rtt_min_us: u32,
    pub rtt_sum_us: u64,
    pub windows: u32,
}

impl Sums {
    pub fn of(&self, class: Class) -> u32 {
        self.counts.of(class)
    }
}

/// A running prober and what its windows said.
pub struct Rig {
    pub handle: ProberHandle,
    windows: mpsc::Receiver<ClosedWindow>,
    /// What the flows did in each span.
    pub spans: Vec<FlowSpan>,
    /// By plan version and row.
    pub sums: BTreeMap<(u64, u32), Sums>,
}

/// Sockets, or `None` after saying loudly that the test was skipped.
pub fn sockets(test: &str, config: &ProberConfig) -> Option<Sockets> {
    let sockets = Sockets::open(config).unwrap();
    if !sockets.is_privileged(Family::V4) {
        leeward_testing::skipped(test, "needs CAP_NET_RAW; run the tests as root");
        return None;
    }
    Some(sockets)
}

/// A configuration whose source ports no other test uses.
pub fn config(seed: u64, syn_source_ports: RangeInclusive<u16>) -> ProberConfig {
    let mut secret = [0; 16];
    secret[..8].copy_from_slice(&seed.to_le_bytes());
    secret[8..12].copy_from_slice(&std::process::id().to_le_bytes());
    ProberConfig {
        max_probes_per_second: 100_000,
        syn_source_ports,
        ..ProberConfig::new(secret, seed)
    }
}

/// A plan of 20 ms, 100 ms windows and an expiry of half a second.
pub fn plan(version: u64, paths: Vec<PlannedPath>) -> Plan {
    Plan {
        version,
        interval: Duration::from_millis(20),
        window: Duration::from_millis(100),
        expiry: Duration::from_millis(500),
        schema: Schema::TwoDigits,
        silence: None,
        flows: 1,
        paths,
    }
}

pub fn path(kind: ProbeKind, address: &str, port: u16) -> PlannedPath {
    let address: IpAddr = address.parse().unwrap();
    let target = TargetId::parse(&format!(
        "t{}-{port}",
        address.to_string().replace(':', "-")
    ))
    .unwrap();
    PlannedPath {
        path: Path {
            target,
            kind,
            region: None,
        },
        address,
        port,
    }
}

impl Rig {
    pub fn start(sockets: Sockets, config: ProberConfig, plan: Plan) -> Self {
        let (out, windows) = mpsc::channel(1_024);
        let handle = Prober::start(sockets, config, out).unwrap();
        handle.set_plan(plan).unwrap();
        Self {
            handle,
            windows,
            spans: Vec::new(),
            sums: BTreeMap::new(),
        }
    }

    /// Collects windows until `done` says so; checks each account against the window before it.
    pub fn until(&mut self, what: &str, done: impl Fn(&BTreeMap<(u64, u32), Sums>) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(&self.sums) {
            match self.windows.try_recv() {
                Ok(window) => {
                    self.add(&window);
                    self.spans.extend(window.flows);
                }
                Err(mpsc::error::TryRecvError::Empty) => {
                    assert!(
                        Instant::now() < deadline,
                        "{what}: {:#?} {:#?}",
                        self.sums,
                        self.handle.counters()
                    );
                    std::thread::yield_now();
                    std::thread::park_timeout(Duration::from_millis(5));
                }
                Err(mpsc::error::TryRecvError::Disconnected) => {
                    panic!("{what}: the prober has ended")
                }
            }
        }
    }

    /// Stops the prober; its counts must agree with the windows collected.
    pub fn stop(mut self) -> (BTreeMap<(u64, u32), Sums>, Counters) {
        let counters = self.handle.stop();
        while let Ok(window) = self.windows.try_recv() {
            add(&mut self.sums, &window);
        }
        assert!(
            counters.scheduled >= counters.ended() + counters.abandoned,
            "{counters:#?}"
        );
        (self.sums, counters)
    }

    fn add(&mut self, window: &ClosedWindow) {
        add(&mut self.sums, window);
    }
}

fn add(sums: &mut BTreeMap<(u64, u32), Sums>, window: &ClosedWindow) {
    assert!(window.rows.is_sorted_by_key(|(row, _)| *row));
    for (row, report) in &window.rows {
        let sum = sums.entry((window.plan_version, *row)).or_default();
        let counts = &report.counts;
        let open = u64::from(sum.counts.open) + u64::from(counts.scheduled) - counts.ended();
        if sum.windows > 0 {
            assert_eq!(
                u64::from(counts.open),
                open,
                "window {:?} row {row}: {report:?} after {sum:?}",
                window.window
            );
        }
        let samples = report.rtt.histogram.count();
        let answered = [
            Class::Replied,
            Class::Late,
            Class::Duplicate,
            Class::Refused,
        ];
        assert_eq!(
            samples,
            answered
                .iter()
                .map(|&class| u64::from(counts.of(class)))
                .sum::<u64>()
        );
        if samples > 0 {
            sum.rtt_min_us = if sum.rtts == 0 {
                report.rtt.min_us
            } else {
                sum.rtt_min_us.min(report.rtt.min_us)
            };
        }
        sum.rtts += samples;
        sum.rtt_sum_us += report.rtt.sum_us;
        sum.counts.scheduled += counts.scheduled;
        sum.counts.overdue += counts.overdue;
        sum.counts.open = counts.open;
        for (total, class) in sum.counts.classes.iter_mut().zip(counts.classes) {
            *total += class;
        }
        if let Some(one_way) = &counts.one_way {
            let sum = sum.counts.one_way.get_or_insert_default();
            // What is pending stands as of the last window.
            let pending = u64::from(sum.lost_pending) + u64::from(counts.of(Class::Lost));
            sum.lost_pending = 0;
            sum.add(one_way);
            let told = one_way.forward.lost + one_way.backward.lost + one_way.lost_unknown;
            let pending = pending - u64::from(told);
            assert_eq!(u64::from(sum.lost_pending), pending, "{report:?}");
        }
        sum.windows += 1;
    }
}
