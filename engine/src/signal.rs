//! Measurements that others inject: bounded by source, expiring to neutral, never counted twice.
//!
//! A signal pulls the network weight of a candidate from what was measured towards what it says: a health below 1 pulls
//! down, a latency or a loss replaces the measured one. Where several sources say something of one measure, the gloomiest
//! counts. All that one source says together multiplies or divides a weight by its `max_factor` at most.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque, btree_map::Entry},
    sync::Arc,
};

use leeward_common::{
    id::{RegionId, SourceId},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::{
    input::{Metric, Signal, Subject},
    policy::{Policy, Weights},
    select::Term,
    weight::{self, Addend, Fact, Sum},
};

/// How many idempotency keys of one source are remembered; a repetition comes within moves of the first.
const MAX_KEYS: usize = 4_096;

/// How many signals of one source are kept: every link of 64 regions by two metrics.
const MAX_SIGNALS: usize = 8_192;

/// A signal in force.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ActiveSignal {
    /// Who says so.
    pub source: SourceId,
    /// About what.
    pub subject: Subject,
    /// Which measure.
    pub metric: Metric,
    /// In the metric's unit.
    pub value: f64,
    /// When it was observed.
    pub observed_at: Timestamp,
    /// Until when it counts.
    pub expires_at: Timestamp,
}

/// All signals in force, and the keys of those seen.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Signals {
    /// In the order of their source, subject and metric; the newest observation of each.
    active: Arc<Vec<ActiveSignal>>,
    keys: BTreeMap<SourceId, Keys>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
struct Keys {
    seen: BTreeSet<String>,
    order: VecDeque<String>,
}

impl Keys {
    /// Whether the key is new.
    fn insert(&mut self, key: &str) -> bool {
        if !self.seen.insert(key.to_owned()) {
            return false;
        }
        self.order.push_back(key.to_owned());
        if self.order.len() > MAX_KEYS
            && let Some(oldest) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        true
    }
}

impl Signals {
    /// Takes in a signal. One of an unknown source, out of its metric's range, already seen or older than what is known
    /// changes nothing; one that asks for more time than its source may have gets what it may have.
    pub fn on_signal(&mut self, now: Timestamp, policy: &Policy, signal: &Signal) {
        let Some(source) = policy.signal_sources.get(&signal.source) else {
            return;
        };
        if !is_sound(signal) {
            return;
        }
        if let Some(key) = &signal.idempotency_key
            && !self
                .keys
                .entry(signal.source.clone())
                .or_default()
                .insert(key)
        {
            return;
        }
        let active = ActiveSignal {
            source: signal.source.clone(),
            subject: signal.subject.clone(),
            metric: signal.metric,
            value: signal.value,
            observed_at: signal.observed_at,
            expires_at: signal.expires_at.min(now + source.max_ttl),
        };
        if active.expires_at <= now {
            return;
        }
        let place = |other: &ActiveSignal| place(other).cmp(&place(&active));
        match self.active.binary_search_by(place) {
            Ok(at) if precedence(&self.active[at]) < precedence(&active) => {
                Arc::make_mut(&mut self.active)[at] = active;
            }
            Ok(_) => {}
            Err(at) if self.count(&signal.source) < MAX_SIGNALS => {
                Arc::make_mut(&mut self.active).insert(at, active);
            }
            Err(_) => {}
        }
    }

    fn count(&self, source: &SourceId) -> usize {
        self.active
            .iter()
            .filter(|other| other.source == *source)
            .count()
    }

    /// Forgets what has expired.
    pub fn expire(&mut self, now: Timestamp) {
        if self.active.iter().any(|signal| signal.expires_at <= now) {
            Arc::make_mut(&mut self.active).retain(|signal| signal.expires_at > now);
        }
    }

    /// When the next one expires.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Timestamp> {
        self.active.iter().map(|signal| signal.expires_at).min()
    }

    /// The signals in force.
    #[must_use]
    pub const fn active(&self) -> &Arc<Vec<ActiveSignal>> {
        &self.active
    }
}

fn place(signal: &ActiveSignal) -> (&SourceId, &Subject, Metric) {
    (&signal.source, &signal.subject, signal.metric)
}

/// Of two signals about the same, the later observation counts; the rest makes the order of arrival irrelevant.
fn precedence(signal: &ActiveSignal) -> (Timestamp, Timestamp, u64) {
    (
        signal.observed_at,
        signal.expires_at,
        signal.value.to_bits(),
    )
}

fn is_sound(signal: &Signal) -> bool {
    let of_link = matches!(signal.subject, Subject::Link(..));
    let of_service = matches!(signal.subject, Subject::Service(..));
    if of_service && signal.metric != Metric::ReplicationLagUs {
        return false;
    }
    match signal.metric {
        Metric::Health => (0.0..=1.0).contains(&signal.value),
        Metric::LossRatio => of_link && (0.0..=1.0).contains(&signal.value),
        Metric::LatencyUs | Metric::BandwidthBps => {
            of_link && signal.value.is_finite() && signal.value >= 0.0
        }
        Metric::ReplicationLagUs => !of_link && signal.value.is_finite() && signal.value >= 0.0,
    }
}

/// What the signals do to the network weight `sum` of `candidate` as seen from `observer`: one addend per source.
pub fn pull(
    policy: &Policy,
    signals: &[ActiveSignal],
    observer: &RegionId,
    candidate: &RegionId,
    sum: &mut Sum,
) {
    let mut sources: BTreeMap<&SourceId, (f64, Vec<String>, bool)> = BTreeMap::new();
    for pull in gloomiest(policy, signals, observer, candidate, sum) {
        let (total, words, bounded) = sources.entry(&pull.signal.source).or_default();
        *total += pull.bounded;
        *bounded |= pull.bounded != pull.wanted;
        words.push(describe(pull.signal));
    }
    for (source, (total, words, bounded)) in sources {
        let bound = bound(policy, source);
        let log_value = total.clamp(-bound, bound);
        let bounded = bounded || log_value != total;
        let fact = Fact::Signals { words, bounded };
        sum.push(Addend::exact(Term::Signal(source.clone()), log_value, fact));
    }
}

/// What one signal does to the logarithm of a weight.
struct Pull<'a> {
    signal: &'a ActiveSignal,
    wanted: f64,
    /// As far as its source may.
    bounded: f64,
}

fn bound(policy: &Policy, source: &SourceId) -> f64 {
    policy
        .signal_sources
        .get(source)
        .map_or(0.0, |source| source.max_factor.ln())
}

/// Of each metric the signal that pulls furthest down.
fn gloomiest<'a>(
    policy: &Policy,
    signals: &'a [ActiveSignal],
    observer: &RegionId,
    candidate: &RegionId,
    sum: &Sum,
) -> Vec<Pull<'a>> {
    let mut by_measure: BTreeMap<(Metric, bool), Pull<'a>> = BTreeMap::new();
    let of_weights = |own: &&ActiveSignal| own.metric != Metric::ReplicationLagUs;
    for signal in signals.iter().filter(of_weights) {
        let of_link = match &signal.subject {
            Subject::Region(region) if region == candidate => false,
            Subject::Link(from, to)
                if (from == observer && to == candidate)
                    || (from == candidate && to == observer) =>
            {
                true
            }
            _ => continue,
        };
        let bound = bound(policy, &signal.source);
        let wanted = delta(&policy.weights, signal, sum);
        let pull = Pull {
            signal,
            wanted,
            bounded: wanted.clamp(-bound, bound),
        };
        match by_measure.entry((signal.metric, of_link)) {
            Entry::Occupied(mut other) if pull.bounded < other.get().bounded => {
                other.insert(pull);
            }
            Entry::Occupied(_) => {}
            Entry::Vacant(place) => {
                place.insert(pull);
            }
        }
    }
    by_measure.into_values().collect()
}

/// By how much a signal alone would change the logarithm of the weight.
fn delta(weights: &Weights, signal: &ActiveSignal, sum: &Sum) -> f64 {
    match signal.metric {
        Metric::Health => weight::floor(weights, signal.value.ln()),
        Metric::LatencyUs => {
            let said = weight::latency(weights, weights.latency_p50, signal.value)
                + weight::latency(weights, weights.latency_p99, signal.value);
            said - sum.of(&Term::LatencyP50) - sum.of(&Term::LatencyP99)
        }
        Metric::LossRatio => weight::loss(weights, signal.value) - sum.of(&Term::Loss),
        Metric::BandwidthBps => weight::bandwidth(weights, signal.value) - sum.of(&Term::Bandwidth),
        Metric::ReplicationLagUs => 0.0,
    }
}

fn describe(signal: &ActiveSignal) -> String {
    let value = signal.value;
    match signal.metric {
        Metric::Health => format!("health {value}"),
        Metric::LatencyUs => format!("latency {:.1} ms", value / 1_000.0),
        Metric::LossRatio => format!("loss {}", weight::percent(value)),
        Metric::BandwidthBps => format!("bandwidth {:.1} Mbit/s", value / 1e6),
        Metric::ReplicationLagUs => format!("replication lag {:.1} s", value / 1e6),
    }
}
