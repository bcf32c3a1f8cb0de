//! Latency, jitter, loss and bandwidth of a link: the live weight of a candidate. Higher is better.
//!
//! Each measure has a utility that falls as the measure gets worse, and an exponent that says how much it counts. The
//! weight is the product of the powers; it is kept as the sum of their logarithms, so that each addend is exactly what
//! its measure contributed and a ratio of two weights is a difference.
//!
//! No term is taken for good or bad for want of a measurement: without round-trip times and loss there is no weight at
//! all, and an unknown bandwidth is a contribution of 0 that says so.
//!
//! Every addend has bounds: utilities are monotone, so the bounds of a measure are those of its addend, the other way
//! round. Errors of different measures are taken for independent: the sum's half-widths are the roots of the sums of
//! the addends' squares.
//!
//! Evidence that nobody renews is worth less: with every window that is missing, an addend of its own pulls the sum
//! from its value towards its lower bound, where it arrives when the evidence is stale, and widens the bounds by as
//! much again.

use std::time::Duration;

use crate::{
    policy::Weights,
    select::Term,
    view::{Estimate, Estimates},
};

/// One addend of a logarithm.
#[derive(Clone, Debug)]
pub struct Addend {
    /// What it stands for.
    pub term: Term,
    /// Natural logarithm of the factor.
    pub log_value: f64,
    /// Its lower bound at 95 % confidence.
    pub log_low: f64,
    /// Its upper bound at 95 % confidence.
    pub log_high: f64,
    /// What it was made from.
    pub fact: Fact,
}

impl Addend {
    /// One that is known, not measured.
    #[must_use]
    pub const fn exact(term: Term, log_value: f64, fact: Fact) -> Self {
        Self {
            term,
            log_value,
            log_low: log_value,
            log_high: log_value,
            fact,
        }
    }
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
    /// A round-trip time that nobody measured.
    ExpectedUs(f64),
    /// A share lost.
    Loss(f64),
    /// A bandwidth.
    Bps(f64),
    /// An unknown bandwidth and what it is counted as.
    UnknownBps(f64),
    /// How much of the time until evidence is stale has passed without any, 0..=1.
    Staleness(f64),
    /// What routers tell, in words.
    Routing(Vec<String>),
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
    /// Sum of the squares of the addends' half-widths.
    squares_below: f64,
    squares_above: f64,
}

impl Sum {
    /// Adds one.
    pub fn push(&mut self, addend: Addend) {
        self.total += addend.log_value;
        self.squares_below += (addend.log_value - addend.log_low).powi(2);
        self.squares_above += (addend.log_high - addend.log_value).powi(2);
        self.addends.push(addend);
    }

    /// Its round-trip times are expected, not measured.
    pub(crate) fn say_expected(&mut self) {
        let latency = |own: &&mut Addend| matches!(own.term, Term::LatencyP50 | Term::LatencyP99);
        for own in self.addends.iter_mut().filter(latency) {
            if let Fact::Us(us) = own.fact {
                own.fact = Fact::ExpectedUs(us);
            }
        }
    }

    /// The sum of the logarithms, added up in order.
    #[must_use]
    pub const fn total(&self) -> f64 {
        self.total
    }

    /// How far the lower bound is below the sum.
    #[must_use]
    pub fn below(&self) -> f64 {
        self.squares_below.sqrt()
    }

    /// How far the upper bound is above the sum.
    #[must_use]
    pub fn above(&self) -> f64 {
        self.squares_above.sqrt()
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
/// `staleness` is [`Estimates::staleness`].
#[must_use]
pub fn network(weights: &Weights, estimates: &Estimates, staleness: f64) -> Option<Sum> {
    let p50_us = estimates.rtt_p50_us?;
    let p99_us = estimates.rtt_p99_us?;
    let jitter_us = estimates.jitter_us?;
    let lost = estimates.loss?;
    let mut sum = Sum::default();
    let mut push = |term, measure: Estimate, utility: &dyn Fn(f64) -> f64, fact| {
        let bounds = [utility(measure.low), utility(measure.high)];
        sum.push(Addend {
            term,
            log_value: utility(measure.value),
            log_low: bounds[0].min(bounds[1]),
            log_high: bounds[0].max(bounds[1]),
            fact,
        });
    };
    let p50 = |us| latency(weights, weights.latency_p50, us);
    push(Term::LatencyP50, p50_us, &p50, Fact::Us(p50_us.value));
    let p99 = |us| latency(weights, weights.latency_p99, us);
    push(Term::LatencyP99, p99_us, &p99, Fact::Us(p99_us.value));
    let spread = |us| jitter(weights, us);
    push(Term::Jitter, jitter_us, &spread, Fact::Us(jitter_us.value));
    push(
        Term::Loss,
        lost,
        &|share| loss(weights, share),
        Fact::Loss(lost.value),
    );
    match estimates.bandwidth_bps {
        Some(bps) => push(
            Term::Bandwidth,
            bps,
            &|bps| bandwidth(weights, bps),
            Fact::Bps(bps.value),
        ),
        None => {
            let fact = Fact::UnknownBps(weights.bandwidth_scale_bps);
            sum.push(Addend::exact(Term::Bandwidth, 0.0, fact));
        }
    }
    if staleness > 0.0 {
        sum.push(decay(&sum, staleness));
    }
    Some(sum)
}

/// What missing evidence takes from a sum.
fn decay(sum: &Sum, staleness: f64) -> Addend {
    let (below, above) = (staleness * sum.below(), staleness * sum.above());
    Addend {
        term: Term::Staleness,
        log_value: -below,
        log_low: -2.0 * below,
        log_high: above,
        fact: Fact::Staleness(staleness),
    }
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
            Fact::ExpectedUs(us) => format!(
                "{:.1} ms expected from links of regions nearby: nobody measures this one",
                us / 1_000.0
            ),
            Fact::Loss(loss) => format!("{} lost", percent(*loss)),
            Fact::Bps(bps) => format!("{:.1} Mbit/s free at least", bps / 1e6),
            Fact::UnknownBps(bps) => format!("unknown, counted as {:.0} Mbit/s", bps / 1e6),
            Fact::Staleness(share) => {
                format!(
                    "{} of the time until it is stale has passed",
                    percent(*share)
                )
            }
            Fact::Routing(words) => match words.as_slice() {
                [one, two, _, ..] => format!("{one}; {two}; and {} more", words.len() - 2),
                words => words.join("; "),
            },
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
