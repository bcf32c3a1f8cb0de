//! One estimate of a link, train by train: what to send next, and what it all says. [pure]
//!
//! ```text
//!   scout ──▶ full speed ──▶ paced at 1.25 × the link's rate ──▶ paced at 0.8 × what is free ──▶ done
//!             (capacity)     (cross traffic)                     (does it hold?)
//! ```
//!
//! Trains at full speed leave in next to no time, so next to no cross traffic comes in between: what they need to arrive is
//! the capacity's doing. Paced trains keep the queue busy for as long as possible, so that what they need to arrive is
//! the cross traffic's. Both together are two equations of [`super::train`]'s kind with two unknowns, as in
//! TOPP (Melander, Björkman, Gunningberg, GLOBECOM 2000); that one paced rate near the capacity is enough is Spruce's
//! observation (Strauss, Katabi, Kaashoek, IMC 2003). What is free is the difference. It holds only where the narrowest link
//! of the path is also the busiest, so that is looked at in the end: a train that is slower than what is free
//! must not be held up on its way, as in pathload (Jain, Dovrolis, SIGCOMM 2002).
//!
//! Between trains the path rests six times as long as a train took, so that a measurement takes a seventh of it at most.

use std::{collections::BTreeMap, time::Duration};

use leeward_common::finding::bandwidth::Quantity;

use super::{
    stats::{Mean, trimmed_mean},
    train::{Span, Spoiled},
};

/// The most that one estimate costs, bytes, replies included.
pub const BYTES_MAX: u64 = 2_000_000;

/// The largest packet, IP header and all: it passes tunnels on paths of 1500 bytes.
const PACKET_BYTES_MAX: u32 = 1_400;
/// The smallest one that a train is made of.
const PACKET_BYTES_MIN: u32 = 300;
/// Packets of a train.
const PACKETS: std::ops::RangeInclusive<u32> = 16..=64;
/// How long a train at the capacity shall keep the link busy, seconds: well below what queues hold.
const TRAIN_S: f64 = 0.025;
/// The first train: nothing is known yet.
const SCOUT: Train = Train {
    purpose: Purpose::Scout,
    packets: 10,
    bytes: 1_000,
    gap: None,
};

const FULL_TRAINS: std::ops::RangeInclusive<usize> = 5..=10;
const PACED_TRAINS: std::ops::RangeInclusive<usize> = 6..=28;
const CHECK_TRAINS: usize = 5;
/// Trains that may tell nothing before a survey is given up.
const SPOILED_MAX: u32 = 12;

/// How much faster than the link paced trains are.
const PACED: f64 = 1.25;
/// The share of what is free at which nothing may be held up.
const CHECKED: f64 = 0.8;
/// By how much it may be nevertheless: the last packet met another queue than the first.
const HELD_UP: f64 = 0.08;
/// No more paced trains are needed when the interval is this narrow, of its value.
const SURE: f64 = 0.08;
/// An interval this wide, of its value, is not to be trusted.
const UNSURE: f64 = 0.15;
/// Whoever stops as soon as samples look alike is surer than he should be: by so much wider is the interval.
const STOPPED_EARLY: f64 = 1.2;
/// Trains at full speed must be this much faster than what arrives, or this host was the narrowest part.
const FASTER: f64 = 1.5;
/// How alike the two equations may be: beyond this a small error of either makes a large one of the solution.
const ALIKE: f64 = 0.75;
/// Beyond this rate packets follow each other faster than hosts tell time.
const RESOLVED_BPS: f64 = 1e9;

/// What a train is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Purpose {
    /// How fast the link is, roughly.
    Scout,
    /// How fast it is.
    Full,
    /// What others send.
    Paced,
    /// Whether what is free is free.
    Check,
}

/// A train to be sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Train {
    /// What for.
    pub purpose: Purpose,
    /// How many packets.
    pub packets: u32,
    /// Of how many bytes each, IP header and all.
    pub bytes: u32,
    /// From one to the next; `None`: as fast as possible.
    pub gap: Option<Duration>,
}

/// What was found out.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The most that the path carries.
    pub capacity_upper: Option<Quantity>,
    /// What of it is free.
    pub available_est: Option<Quantity>,
    /// Why something is missing, in words; may be empty.
    pub note: String,
}

/// One estimate in the making.
#[derive(Clone, Debug)]
pub struct Survey {
    /// Of a reply, IP header and all.
    reply_bytes: u32,
    scout: Option<f64>,
    full: Vec<Span>,
    paced: Vec<Span>,
    check: Vec<Span>,
    spoiled: BTreeMap<Spoiled, u32>,
    /// What trains at full speed and others cost.
    spent: [u64; 2],
}

/// Both equations solved.
#[derive(Clone, Copy, Debug)]
struct Fit {
    capacity: Mean,
    available: Mean,
    alike: f64,
}

impl Survey {
    /// One that begins; its replies will be of so many bytes.
    #[must_use]
    pub const fn new(reply_bytes: u32) -> Self {
        Self {
            reply_bytes,
            scout: None,
            full: Vec::new(),
            paced: Vec::new(),
            check: Vec::new(),
            spoiled: BTreeMap::new(),
            spent: [0; 2],
        }
    }

    /// What a train costs, replies included.
    #[must_use]
    pub fn cost(&self, train: &Train) -> u64 {
        u64::from(train.packets) * u64::from(train.bytes + self.reply_bytes)
    }

    /// What was spent.
    #[must_use]
    pub const fn spent(&self) -> u64 {
        self.spent[0] + self.spent[1]
    }

    /// The next train; `None` when there is nothing more to find out, or nothing more to spend.
    #[must_use]
    pub fn next(&self) -> Option<Train> {
        if self.spoiled.values().sum::<u32>() >= SPOILED_MAX {
            return None;
        }
        let train = self.wanted()?;
        (self.spent() + self.cost(&train) <= BYTES_MAX).then_some(train)
    }

    fn wanted(&self) -> Option<Train> {
        let Some(scout) = self.scout else {
            let failed = self.spoiled.values().sum::<u32>() >= 3;
            return (!failed).then_some(SCOUT);
        };
        let full = trimmed_mean(&rates(&self.full));
        let count = self.full.len();
        let unsure = full.is_none_or(|full| full.half > SURE * full.value);
        if count < *FULL_TRAINS.start() || (unsure && count < *FULL_TRAINS.end()) {
            let known = full.map_or(scout, |full| full.value);
            return Some(train(Purpose::Full, known, None));
        }
        let fit = self.fit()?;
        let (capacity, free) = (fit.capacity.value, fit.available.value);
        let sure = fit.available.half <= SURE * free;
        let count = self.paced.len();
        if count < *PACED_TRAINS.start() || (!sure && count < *PACED_TRAINS.end()) {
            let room = self.spent() + self.check_cost(capacity) < BYTES_MAX;
            if room || count < *PACED_TRAINS.start() {
                return Some(train(Purpose::Paced, capacity, Some(PACED * capacity)));
            }
        }
        let is_needed = self.check.len() < CHECK_TRAINS && free > 0.02 * capacity;
        is_needed.then(|| train(Purpose::Check, capacity, Some(CHECKED * free)))
    }

    /// What the last trains will cost, and one paced one before them.
    fn check_cost(&self, capacity: f64) -> u64 {
        self.cost(&train(Purpose::Check, capacity, None)) * (CHECK_TRAINS as u64 + 1)
    }

    /// A train passed, or told nothing.
    pub fn on_train(&mut self, train: &Train, read: Result<Span, Spoiled>) {
        let of = usize::from(!matches!(train.purpose, Purpose::Full | Purpose::Scout));
        self.spent[of] += self.cost(train);
        match (read, train.purpose) {
            (Err(why), _) => *self.spoiled.entry(why).or_default() += 1,
            (Ok(span), Purpose::Scout) => self.scout = Some(span.out_bps()),
            (Ok(span), Purpose::Full) => self.full.push(span),
            (Ok(span), Purpose::Paced) => self.paced.push(span),
            (Ok(span), Purpose::Check) => self.check.push(span),
        }
    }

    /// How long the path rests after a train. `draw` is a random number in 0..1: with gaps that are spread like those of
    /// independent events, trains see what others send on average (RFC 2330 section 11.1.1).
    #[must_use]
    pub fn rest(&self, train: &Train, draw: f64) -> Duration {
        let rate = self.scout.unwrap_or(10e6).max(10e3);
        let bits = f64::from(train.packets) * f64::from(train.bytes) * 8.0;
        let gaps = train.gap.unwrap_or_default().as_secs_f64() * f64::from(train.packets);
        let busy = (bits / rate).max(gaps);
        let spread = -(1.0 - draw.clamp(0.0, 0.999)).ln();
        Duration::from_secs_f64((busy * (5.0 + spread)).clamp(0.03, 3.0))
    }

    /// Solves `capacity × out = bits + cross × in` for trains of both kinds.
    fn fit(&self) -> Option<Fit> {
        let mean = |spans: &[Span], of: fn(&Span) -> f64| {
            trimmed_mean(&spans.iter().map(of).collect::<Vec<_>>())
        };
        let out_bps = mean(&self.full, Span::out_bps)?;
        let quickness = mean(&self.full, |own| own.in_s / own.out_s)?.value;
        let (Some(slowness), Some(paced_bps)) = (
            mean(&self.paced, |own| own.out_s / own.in_s),
            mean(&self.paced, Span::in_bps),
        ) else {
            return Some(Fit {
                capacity: out_bps,
                available: Mean {
                    value: out_bps.value,
                    half: f64::INFINITY,
                },
                alike: 0.0,
            });
        };
        let alike = quickness * slowness.value;
        let solved = (out_bps.value - paced_bps.value * quickness) / (1.0 - alike);
        let cross = solved * slowness.value - paced_bps.value;
        let capacity = match alike < 0.95 && cross > 0.0 {
            true => solved,
            false => out_bps.value,
        };
        let each = |own: &Span| (capacity * own.out_s - own.bits) / own.in_s;
        let cross = trimmed_mean(&self.paced.iter().map(each).collect::<Vec<_>>())?;
        // How errors of the two means go into the solution.
        let amplified = 1.0 / (1.0 - alike.min(0.95));
        let (full_half, cross_half) = (
            out_bps.half * amplified,
            STOPPED_EARLY * cross.half * amplified,
        );
        let cross_bps = cross.value.clamp(0.0, capacity);
        Some(Fit {
            capacity: Mean {
                value: capacity,
                half: full_half.hypot(quickness * cross_half),
            },
            available: Mean {
                value: capacity - cross_bps,
                half: ((1.0 - slowness.value) * full_half)
                    .hypot((1.0 - quickness) * cross_half)
                    .max(out_bps.half),
            },
            alike,
        })
    }

    /// What it all says.
    #[must_use]
    pub fn conclude(&self) -> Outcome {
        let fit = self.fit().filter(|_| self.full.len() >= 3);
        let Some(fit) = fit else {
            return Outcome {
                capacity_upper: None,
                available_est: None,
                note: format!("no trains passed as they must: {}", self.told_nothing()),
            };
        };
        let doubt = self.doubt(&fit);
        let capacity = quantity(
            "packet trains at full speed, less what others sent meanwhile",
            fit.capacity,
            self.full.len(),
            self.spent[0],
            doubt
                .clone()
                .or_else(|| unsure(&fit.capacity, self.full.len())),
        );
        if self.paced.is_empty() {
            return Outcome {
                capacity_upper: Some(capacity),
                available_est: None,
                note: format!("what is free is unknown: {}", self.told_nothing()),
            };
        }
        let available = quantity(
            "paced trains: what others sent meanwhile, taken from the capacity",
            fit.available,
            self.paced.len() + self.check.len(),
            self.spent[1],
            doubt
                .or_else(|| self.held_up(&fit))
                .or_else(|| unsure(&fit.available, self.paced.len())),
        );
        Outcome {
            capacity_upper: Some(capacity),
            available_est: Some(available),
            note: self.told_nothing(),
        }
    }

    /// Why neither is to be trusted.
    fn doubt(&self, fit: &Fit) -> Option<String> {
        let left = trimmed_mean(&self.full.iter().map(Span::in_bps).collect::<Vec<_>>())?.value;
        let came = trimmed_mean(&rates(&self.full))?.value;
        if left < FASTER * came {
            return Some(format!(
                "this host sent at {} and that is how it arrived: the path carries at least as much",
                mbit(left)
            ));
        }
        if fit.capacity.value > RESOLVED_BPS {
            return Some(
                "above 1 Gbit/s packets follow each other faster than hosts tell time".to_owned(),
            );
        }
        if fit.alike > ALIKE {
            return Some(format!(
                "this host sends at {} at most, too little above the link's own rate",
                mbit(left)
            ));
        }
        let good = self.full.len() + self.paced.len() + self.check.len();
        let of_path = self
            .spoiled
            .iter()
            .filter(|(why, _)| **why != Spoiled::Uneven);
        let spoiled = of_path.map(|(_, count)| *count as usize).sum::<usize>();
        (spoiled * 3 > good)
            .then(|| format!("of {} trains {}", good + spoiled, self.told_nothing()))
    }

    /// Whether trains that are slower than what is free were held up: then another link than the narrowest is busier.
    fn held_up(&self, fit: &Fit) -> Option<String> {
        if self.check.len() < 3 {
            return Some("whether so much is free was not tried".to_owned());
        }
        let mut by: Vec<f64> = self.check.iter().map(|own| own.out_s / own.in_s).collect();
        by.sort_by(f64::total_cmp);
        let slowest = by[by.len() / 2];
        (slowest > 1.0 + HELD_UP).then(|| {
            format!(
                "trains of {} were held up already: another link than the narrowest is busier, or others send in bursts",
                mbit(CHECKED * fit.available.value)
            )
        })
    }

    fn told_nothing(&self) -> String {
        let each = self.spoiled.iter();
        let words: Vec<_> = each
            .map(|(why, count)| format!("{count} {}", why.as_str()))
            .collect();
        words.join("; ")
    }
}

/// A train for a link of about this capacity, paced to `paced_bps`.
fn train(purpose: Purpose, capacity: f64, paced_bps: Option<f64>) -> Train {
    let bytes = (capacity * TRAIN_S / 8.0).max(1.0);
    let fewest = f64::from(*PACKETS.start());
    let size = (bytes / fewest).clamp(PACKET_BYTES_MIN.into(), PACKET_BYTES_MAX.into());
    let packets = (bytes / size).clamp(fewest, f64::from(*PACKETS.end()));
    let gap = paced_bps.map(|bps| Duration::from_secs_f64((size * 8.0 / bps.max(1e4)).min(0.1)));
    Train {
        purpose,
        packets: packets as u32,
        bytes: size as u32,
        gap,
    }
}

fn rates(spans: &[Span]) -> Vec<f64> {
    spans.iter().map(Span::out_bps).collect()
}

fn unsure(mean: &Mean, samples: usize) -> Option<String> {
    if mean.half <= UNSURE * mean.value {
        return None;
    }
    Some(match mean.half.is_finite() && mean.value > 0.0 {
        true => format!(
            "its trains differ: ±{:.0} % after {samples} of them",
            mean.half / mean.value * 100.0
        ),
        false => format!("{samples} trains are too few"),
    })
}

fn quantity(
    method: &str,
    mean: Mean,
    samples: usize,
    bytes: u64,
    doubt: Option<String>,
) -> Quantity {
    let bps = |value: f64| value.clamp(0.0, 1e13) as u64;
    let half = if mean.half.is_finite() {
        mean.half
    } else {
        mean.value
    };
    Quantity {
        method: method.to_owned(),
        bps: bps(mean.value),
        low_bps: bps(mean.value - half),
        high_bps: bps(mean.value + half),
        samples: u32::try_from(samples).unwrap_or(u32::MAX),
        bytes,
        doubt,
    }
}

fn mbit(bps: f64) -> String {
    format!("{:.1} Mbit/s", bps / 1e6)
}

#[cfg(test)]
mod tests;
