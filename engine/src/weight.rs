//! Latency, jitter, loss and bandwidth of a link: the live weight of a candidate. Higher is better.
//!
//! Each measure has a utility that falls as the measure gets worse, and an exponent that says how much it counts. The
//! weight is the product of the powers; it is kept as the sum of their logarithms, so that each addend is exactly what
//! its measure contributed and a ratio of two weights is a difference.
//!
//! No term is taken for good or bad for want of a measurement: without round-trip times and loss there is no weight at
//! all, and an unknown bandwidth is a contribution of 0 that says so.

use std::time::Duration;

use crate::{policy::Weights, select::Term, view::Estimates};

/// One addend of a logarithm.
#[derive(Clone, Debug)]
pub struct Addend {
    /// What it stands for.
    pub term: Term,
    /// Natural logarithm of the factor.
    pub log_value: f64,
    /// What it was made from.
    pub fact: Fact,
}

/// What an addend was made from.
#[derive(Clone, Debug)]
pub enum Fact {
    /// A distance.
    Km(f64),
    /// A relative capacity.
    Capacity(f64),
    /// A configured multiplier.
    Factor(f64),
    /// A round-trip time or jitter.
    Us(f64),
    /// A share lost.
    Loss(f64),
    /// A bandwidth.
    Bps(f64),
    /// An unknown bandwidth and what it is counted as.
    UnknownBps(f64),
    /// What a source said, in words, and whether its bound cut it short.
    Signals {
        /// What it said.
        words: Vec<String>,
        /// Whether its bound cut it short.
        bounded: bool,
    },
}

/// Addends in order, and their sum.
#[derive(Clone, Debug, Default)]
pub struct Sum {
    addends: Vec<Addend>,
    total: f64,
}

impl Sum {
    /// Adds one.
    pub fn push(&mut self, addend: Addend) {
        self.total += addend.log_value;
        self.addends.push(addend);
    }

    /// The sum of the logarithms, added up in order.
    #[must_use]
    pub const fn total(&self) -> f64 {
        self.total
    }

    /// The addends.
    #[must_use]
    pub fn addends(&self) -> &[Addend] {
        &self.addends
    }

    /// The sum of one term's addends; 0 without any.
    #[must_use]
    pub fn of(&self, term: &Term) -> f64 {
        let mine = self.addends.iter().filter(|addend| addend.term == *term);
        mine.map(|addend| addend.log_value).sum()
    }
}

/// The network weight of a link, as addends of its logarithm; `None` while round-trip times or loss are unknown.
#[must_use]
pub fn network(weights: &Weights, estimates: &Estimates) -> Option<Sum> {
    let p50_us = estimates.rtt_p50_us?.value;
    let p99_us = estimates.rtt_p99_us?.value;
    let jitter_us = estimates.jitter_us?.value;
    let loss = estimates.loss?.value;
    let mut sum = Sum::default();
    let mut push = |term, log_value, fact| {
        sum.push(Addend {
            term,
            log_value,
            fact,
        });
    };
    push(
        Term::LatencyP50,
        latency(weights, weights.latency_p50, p50_us),
        Fact::Us(p50_us),
    );
    push(
        Term::LatencyP99,
        latency(weights, weights.latency_p99, p99_us),
        Fact::Us(p99_us),
    );
    push(
        Term::Jitter,
        jitter(weights, jitter_us),
        Fact::Us(jitter_us),
    );
    push(Term::Loss, self::loss(weights, loss), Fact::Loss(loss));
    match estimates.bandwidth_bps {
        Some(bps) => push(
            Term::Bandwidth,
            bandwidth(weights, bps.value),
            Fact::Bps(bps.value),
        ),
        None => push(
            Term::Bandwidth,
            0.0,
            Fact::UnknownBps(weights.bandwidth_scale_bps),
        ),
    }
    Some(sum)
}

/// `exponent * ln(1 / (1 + (rtt / scale)^2))`, not below the floor.
pub(crate) fn latency(weights: &Weights, exponent: f64, rtt_us: f64) -> f64 {
    let ratio = rtt_us.max(0.0) / us(weights.latency_scale);
    floor(weights, -exponent * (ratio * ratio).ln_1p())
}

/// `exponent * ln(1 / (1 + jitter / scale))`, not below the floor.
pub(crate) fn jitter(weights: &Weights, jitter_us: f64) -> f64 {
    let ratio = jitter_us.max(0.0) / us(weights.jitter_scale);
    floor(weights, -weights.jitter * ratio.ln_1p())
}

/// `exponent * ln(1 - loss)`, not below the floor.
pub(crate) fn loss(weights: &Weights, loss: f64) -> f64 {
    if weights.loss == 0.0 {
        return 0.0;
    }
    floor(weights, weights.loss * (-loss.clamp(0.0, 1.0)).ln_1p())
}

/// `exponent * ln(2 b / (b + scale))`: 0 at the scale, so that an unknown bandwidth counts as the scale. At most
/// `exponent * ln 2`, not below the floor.
pub(crate) fn bandwidth(weights: &Weights, bps: f64) -> f64 {
    if weights.bandwidth == 0.0 {
        return 0.0;
    }
    let share = bps.max(0.0) / (bps.max(0.0) + weights.bandwidth_scale_bps);
    floor(weights, weights.bandwidth * (2.0 * share).ln())
}

/// No single term may zero out a weight unseen.
pub(crate) fn floor(weights: &Weights, log_value: f64) -> f64 {
    // `max` also turns the -0.0 of a perfect measure into 0.0.
    log_value.max(weights.floor.ln()) + 0.0
}

fn us(span: Duration) -> f64 {
    span.as_micros() as f64
}

impl Addend {
    /// The fact behind it, in words.
    #[must_use]
    pub fn words(&self) -> String {
        match &self.fact {
            Fact::Km(km) => format!("{km:.0} km from the primary"),
            Fact::Capacity(capacity) => format!("capacity {capacity}"),
            Fact::Factor(factor) => format!("configured weight {factor}"),
            Fact::Us(us) => format!("{:.1} ms", us / 1_000.0),
            Fact::Loss(loss) => format!("{} lost", percent(*loss)),
            Fact::Bps(bps) => format!("{:.1} Mbit/s", bps / 1e6),
            Fact::UnknownBps(bps) => format!("unknown, counted as {:.0} Mbit/s", bps / 1e6),
            Fact::Signals { words, bounded } => {
                let bound = match bounded {
                    true => " (cut to the bound of its source)",
                    false => "",
                };
                format!("{}{bound}", words.join(", "))
            }
        }
    }
}

/// A share for people: `8.1 %`.
#[must_use]
pub fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}
