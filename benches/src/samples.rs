//! Round-trip times to measure with: log-normal, the same in every run.

use std::time::Duration;

use leeward_common::{
    histogram::Schema,
    id::AgentId,
    report::{Class, Counts, Report, Rtt, Window},
    time::Timestamp,
    wire::batch::Batch,
};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

/// A seeded source of numbers.
#[derive(Debug)]
pub struct Random(ChaCha8Rng);

impl Random {
    /// The source of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// Evenly spread over 0..1.
    pub fn even(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Normally spread about 0 with deviation 1 (Box and Muller).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.even()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.even()).cos()
    }
}

/// What the paths of a batch look like.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// How many paths.
    pub paths: u32,
    /// Probes of each in a window.
    pub probes: u32,
    /// The median RTT of the nearest and the farthest path, microseconds; evenly spread between on a log scale.
    pub base_us: (f64, f64),
    /// Deviation of the RTT's logarithm: 0.01 is 1 %.
    pub sigma: f64,
    /// Share of lost probes, 0..=1.
    pub loss: f64,
}

/// The round-trip times of each path in one window, microseconds; `None` is a lost probe.
#[must_use]
pub fn windows(seed: u64, shape: Shape) -> Vec<Vec<Option<u32>>> {
    let mut random = Random::new(seed);
    let (low, high) = shape.base_us;
    (0..shape.paths)
        .map(|_| {
            let base = low * (high / low).powf(random.even());
            (0..shape.probes)
                .map(|_| {
                    let rtt = base * (shape.sigma * random.normal()).exp();
                    (random.even() >= shape.loss).then_some(rtt as u32)
                })
                .collect()
        })
        .collect()
}

/// The batch that an agent makes of them.
#[must_use]
pub fn batch(schema: Schema, windows: &[Vec<Option<u32>>]) -> Batch {
    let window = Window {
        start: Timestamp::from_unix_us(1_763_000_000_000_000),
        length: Duration::from_secs(1),
    };
    Batch {
        agent: AgentId::parse("bench-agent").expect("a valid id"),
        boot_epoch: 0x9e37_79b9_7f4a_7c15,
        sequence: 86_400,
        table: 1,
        window,
        until: window.end(),
        health: None,
        schema,
        rows: (0..)
            .zip(windows.iter().map(|window| report(schema, window)))
            .collect(),
    }
}

fn report(schema: Schema, window: &[Option<u32>]) -> Report {
    let mut report = Report {
        counts: Counts {
            scheduled: window.len() as u32,
            ..Counts::default()
        },
        rtt: Rtt::empty(schema),
    };
    for probe in window {
        match probe {
            Some(rtt_us) => {
                report.counts.end(Class::Replied);
                report.rtt.record(*rtt_us);
            }
            None => report.counts.end(Class::Lost),
        }
    }
    report
}
