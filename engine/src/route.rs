//! Paths: from each region to each other, straight or over one relay.
//!
//! The Internet does not route by delay or loss, so now and then two good links are better than the one between their
//! ends; one relay finds nearly all there is to gain (Andersen et al., Resilient Overlay Networks, SOSP 2001). What is
//! found here is advice: a network under the operator's control, or a proxy in the relay, has to follow it.
//!
//! A path over a relay is judged as a link would be, by what its two links add up to:
//!
//! | measure | of the path |
//! |---|---|
//! | round-trip time, median and 99th percentile | sum, and [`Rules::relay_rtt`]; for the percentile an upper bound |
//! | jitter | sum, an upper bound |
//! | loss | `1 - (1 - a)(1 - b)`, losses being independent |
//! | bandwidth | the smaller one |
//!
//! A relay is advised only where it wins clearly: by [`Rules::min_log_gain`], and at the unfavourable ends of all
//! bounds. A link that nobody measured lately is no part of any path.

use std::time::Duration;

use leeward_common::id::RegionId;

use crate::{
    policy::Weights,
    view::{Estimate, Knowledge, PairView, RegionState, View},
    weight,
};

/// What a relay costs and what it must gain.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    /// What forwarding adds to the round-trip time.
    pub relay_rtt: Duration,
    /// How much larger the logarithm of the path's network weight must be than that of the direct link; not negative.
    pub min_log_gain: f64,
}

impl Default for Rules {
    /// One millisecond, and 10 % more network weight.
    fn default() -> Self {
        Self {
            relay_rtt: Duration::from_millis(1),
            min_log_gain: 1.1f64.ln(),
        }
    }
}

/// How good a link or a path is, as one set of numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quality {
    /// Median round-trip time, microseconds.
    pub rtt_p50_us: f64,
    /// Its 99th percentile.
    pub rtt_p99_us: f64,
    /// 99th percentile minus minimum, microseconds.
    pub jitter_us: f64,
    /// Share lost, 0..=1.
    pub loss: f64,
    /// Bits per second; `None` where unknown.
    pub bandwidth_bps: Option<f64>,
}

impl Quality {
    /// A link of which only the round-trip time is known.
    #[must_use]
    pub const fn of_rtt(rtt_us: f64) -> Self {
        Self {
            rtt_p50_us: rtt_us,
            rtt_p99_us: rtt_us,
            jitter_us: 0.0,
            loss: 0.0,
            bandwidth_bps: None,
        }
    }

    /// Logarithm of the network weight: 0 at best, lower is worse.
    #[must_use]
    pub fn log_weight(&self, weights: &Weights) -> f64 {
        weight::latency(weights, weights.latency_p50, self.rtt_p50_us)
            + weight::latency(weights, weights.latency_p99, self.rtt_p99_us)
            + weight::jitter(weights, self.jitter_us)
            + weight::loss(weights, self.loss)
            + self
                .bandwidth_bps
                .map_or(0.0, |bps| weight::bandwidth(weights, bps))
    }

    /// This link, then another, with a relay between.
    fn then(&self, other: &Self, rules: &Rules) -> Self {
        let relay_us = rules.relay_rtt.as_micros() as f64;
        Self {
            rtt_p50_us: self.rtt_p50_us + other.rtt_p50_us + relay_us,
            rtt_p99_us: self.rtt_p99_us + other.rtt_p99_us + relay_us,
            jitter_us: self.jitter_us + other.jitter_us,
            loss: 1.0 - (1.0 - self.loss) * (1.0 - other.loss),
            bandwidth_bps: match (self.bandwidth_bps, other.bandwidth_bps) {
                (Some(one), Some(other)) => Some(one.min(other)),
                // What is not known is not taken for narrow.
                (one, other) => one.or(other),
            },
        }
    }

    /// Whether nothing about it is better than about the other, so that its weight cannot be higher.
    fn is_no_better(&self, other: &Self) -> bool {
        self.rtt_p50_us >= other.rtt_p50_us
            && self.rtt_p99_us >= other.rtt_p99_us
            && self.jitter_us >= other.jitter_us
            && self.loss >= other.loss
            && self.bandwidth_bps.is_none()
            && other.bandwidth_bps.is_none()
    }
}

/// A link as measured: the best guess, and the ends of its bounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Leg {
    /// The best guess.
    pub likely: Quality,
    /// Every measure at the good end of its bounds.
    pub best: Quality,
    /// Every measure at the bad end of its bounds.
    pub worst: Quality,
}

impl Leg {
    /// A link that is known exactly.
    #[must_use]
    pub const fn exact(quality: Quality) -> Self {
        Self {
            likely: quality,
            best: quality,
            worst: quality,
        }
    }

    /// What was measured; `None` while round-trip times or loss are unknown.
    fn measured(pair: &PairView) -> Option<Self> {
        let estimates = &pair.estimates;
        let (p50, p99) = (estimates.rtt_p50_us?, estimates.rtt_p99_us?);
        let (jitter, loss) = (estimates.jitter_us?, estimates.loss?);
        let quality = |low_is: fn(&Estimate) -> f64, high_is: fn(&Estimate) -> f64| Quality {
            rtt_p50_us: low_is(&p50),
            rtt_p99_us: low_is(&p99),
            jitter_us: low_is(&jitter),
            loss: low_is(&loss),
            bandwidth_bps: estimates.bandwidth_bps.as_ref().map(high_is),
        };
        Some(Self {
            likely: quality(|of| of.value, |of| of.value),
            best: quality(|of| of.low, |of| of.high),
            worst: quality(|of| of.high, |of| of.low),
        })
    }

    fn then(&self, other: &Self, rules: &Rules) -> Self {
        Self {
            likely: self.likely.then(&other.likely, rules),
            best: self.best.then(&other.best, rules),
            worst: self.worst.then(&other.worst, rules),
        }
    }
}

/// What is known of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Direct {
    /// Nobody measured it lately.
    #[default]
    Unknown,
    /// Nothing gets through.
    Lost,
    /// It was measured.
    Known(Leg),
}

impl Direct {
    /// What was measured, unless nothing gets through.
    #[must_use]
    pub const fn leg(&self) -> Option<&Leg> {
        match self {
            Self::Known(leg) => Some(leg),
            Self::Unknown | Self::Lost => None,
        }
    }
}

/// What is known of every directed link between some regions.
#[derive(Clone, Debug)]
pub struct Matrix {
    regions: Vec<RegionId>,
    /// Row by row: from, to.
    links: Vec<Direct>,
    /// Whether each region may relay.
    relays: Vec<bool>,
}

/// The best ways from one region to another.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// From where.
    pub from: RegionId,
    /// To where.
    pub to: RegionId,
    /// The link between them.
    pub direct: Direct,
    /// The best way over a relay, be it better or not; `None` where no relay has a known link to both ends.
    pub relay: Option<Relay>,
    /// What to do.
    pub advice: Advice,
}

/// A way over a relay.
#[derive(Clone, Debug, PartialEq)]
pub struct Relay {
    /// The relay.
    pub region: RegionId,
    /// The whole way.
    pub path: Leg,
    /// How much shorter the median round-trip time is, microseconds; below 0 where it is longer, `None` where the
    /// direct link has none.
    pub gain_rtt_us: Option<f64>,
    /// How much larger the logarithm of the network weight is; `None` where the direct link has none.
    pub gain_log: Option<f64>,
}

/// Which way to take.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Advice {
    /// Straight: no relay wins clearly.
    Direct,
    /// Over the relay: it wins clearly.
    Relay,
    /// Over the relay: nothing gets through on the direct link.
    RelayOnly,
    /// Nothing gets through, and no relay is known that would help.
    NoWay,
    /// The direct link was not measured lately; whether a relay would be better cannot be told.
    Unknown,
}

impl Matrix {
    /// Regions of which nothing is known yet. All may relay.
    #[must_use]
    pub fn new(regions: Vec<RegionId>) -> Self {
        Self {
            links: vec![Direct::Unknown; regions.len() * regions.len()],
            relays: vec![true; regions.len()],
            regions,
        }
    }

    /// What a view knows. Regions that are not up do not relay.
    #[must_use]
    pub fn of(view: &View) -> Self {
        let mut matrix = Self::new(view.policy.regions.keys().cloned().collect());
        for (pair, known) in view.pairs.iter() {
            let (a, b) = pair.regions();
            let at = |region| matrix.regions.binary_search(region).ok();
            let (Some(a), Some(b)) = (at(a), at(b)) else {
                continue;
            };
            let direct = direct(view, known);
            matrix.set(a, b, direct);
            matrix.set(b, a, direct);
        }
        let up = |region| {
            let state = view.regions.get(region).map(|region| region.state);
            state == Some(RegionState::Up)
        };
        matrix.relays = matrix.regions.iter().map(up).collect();
        matrix
    }

    /// The regions, by index.
    #[must_use]
    pub fn regions(&self) -> &[RegionId] {
        &self.regions
    }

    /// Says what is known of the link between two regions, given by index.
    ///
    /// # Panics
    ///
    /// Panics when there is no such region.
    pub fn set(&mut self, from: usize, to: usize, direct: Direct) {
        self.links[from * self.regions.len() + to] = direct;
    }

    fn link(&self, from: usize, to: usize) -> &Direct {
        &self.links[from * self.regions.len() + to]
    }

    /// The best ways between all regions, by from and to.
    #[must_use]
    pub fn routes(&self, weights: &Weights, rules: &Rules) -> Vec<Route> {
        let all = 0..self.regions.len();
        let pairs = all
            .clone()
            .flat_map(|from| all.clone().map(move |to| (from, to)));
        pairs
            .filter(|(from, to)| from != to)
            .map(|(from, to)| self.best(weights, rules, from, to))
            .collect()
    }

    /// The best ways between two regions; `None` if one is not known or both are the same.
    #[must_use]
    pub fn route(
        &self,
        weights: &Weights,
        rules: &Rules,
        from: &RegionId,
        to: &RegionId,
    ) -> Option<Route> {
        let at = |id| self.regions.iter().position(|region| region == id);
        let (from, to) = (at(from)?, at(to)?);
        (from != to).then(|| self.best(weights, rules, from, to))
    }

    fn best(&self, weights: &Weights, rules: &Rules, from: usize, to: usize) -> Route {
        let direct = *self.link(from, to);
        let relay = self.best_relay(weights, rules, from, to);
        let relay = relay.map(|(relay, path)| {
            let gain = |of: fn(&Quality, &Weights) -> f64| {
                let direct = direct.leg()?;
                Some(of(&path.likely, weights) - of(&direct.likely, weights))
            };
            Relay {
                region: self.regions[relay].clone(),
                path,
                gain_rtt_us: gain(|quality, _| -quality.rtt_p50_us),
                gain_log: gain(Quality::log_weight),
            }
        });
        Route {
            from: self.regions[from].clone(),
            to: self.regions[to].clone(),
            advice: advice(weights, rules, &direct, relay.as_ref()),
            direct,
            relay,
        }
    }

    /// The relay with the largest network weight; of equal ones the quickest, then the first by id.
    fn best_relay(
        &self,
        weights: &Weights,
        rules: &Rules,
        from: usize,
        to: usize,
    ) -> Option<(usize, Leg)> {
        let mut best: Option<(f64, usize, Leg)> = None;
        for relay in 0..self.regions.len() {
            if relay == from || relay == to || !self.relays[relay] {
                continue;
            }
            let (Some(there), Some(on)) =
                (self.link(from, relay).leg(), self.link(relay, to).leg())
            else {
                continue;
            };
            let likely = there.likely.then(&on.likely, rules);
            if best
                .as_ref()
                .is_some_and(|(_, _, path)| likely.is_no_better(&path.likely))
            {
                continue;
            }
            let log = likely.log_weight(weights);
            let better = best.as_ref().is_none_or(|(most, _, path)| {
                (-log, likely.rtt_p50_us) < (-most, path.likely.rtt_p50_us)
            });
            if better {
                best = Some((log, relay, there.then(on, rules)));
            }
        }
        best.map(|(_, relay, path)| (relay, path))
    }
}

/// What a view knows of a pair.
fn direct(view: &View, pair: &PairView) -> Direct {
    if pair.estimates.knowledge(view.now, &view.policy) != Knowledge::Fresh {
        return Direct::Unknown;
    }
    if pair.is_lost(view.now, &view.policy) {
        return Direct::Lost;
    }
    Leg::measured(pair).map_or(Direct::Unknown, Direct::Known)
}

fn advice(weights: &Weights, rules: &Rules, direct: &Direct, relay: Option<&Relay>) -> Advice {
    match (direct, relay) {
        (Direct::Unknown, _) => Advice::Unknown,
        (Direct::Lost, None) => Advice::NoWay,
        (Direct::Lost, Some(_)) => Advice::RelayOnly,
        (Direct::Known(_), None) => Advice::Direct,
        (Direct::Known(direct), Some(relay)) => {
            let enough = relay
                .gain_log
                .is_some_and(|gain| gain >= rules.min_log_gain);
            let certain = relay.path.worst.log_weight(weights) > direct.best.log_weight(weights);
            match enough && certain {
                true => Advice::Relay,
                false => Advice::Direct,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::policy::defaults;

    fn weights() -> Weights {
        defaults::weights()
    }

    const RULES: Rules = Rules {
        relay_rtt: Duration::from_millis(1),
        min_log_gain: 0.0,
    };

    fn regions(count: usize) -> Vec<RegionId> {
        let id = |at| RegionId::parse(&format!("r{at}")).unwrap();
        (0..count).map(id).collect()
    }

    /// Round-trip times in ms, row by row; 0 is unknown.
    fn matrix(rtt_ms: &[&[f64]]) -> Matrix {
        let mut matrix = Matrix::new(regions(rtt_ms.len()));
        for (from, row) in rtt_ms.iter().enumerate() {
            for (to, &ms) in row.iter().enumerate() {
                if from != to && ms > 0.0 {
                    let leg = Leg::exact(Quality::of_rtt(ms * 1_000.0));
                    matrix.set(from, to, Direct::Known(leg));
                }
            }
        }
        matrix
    }

    fn route(matrix: &Matrix, from: usize, to: usize) -> Route {
        let (from, to) = (matrix.regions[from].clone(), matrix.regions[to].clone());
        matrix.route(&weights(), &RULES, &from, &to).unwrap()
    }

    #[test]
    fn a_detour_that_is_quicker_is_found_with_its_gain() {
        let matrix = matrix(&[
            &[0.0, 20.0, 100.0, 90.0],
            &[20.0, 0.0, 30.0, 90.0],
            &[100.0, 30.0, 0.0, 90.0],
            &[90.0, 90.0, 90.0, 0.0],
        ]);
        let route = route(&matrix, 0, 2);
        assert_eq!(route.advice, Advice::Relay);
        let relay = route.relay.unwrap();
        assert_eq!(relay.region.as_str(), "r1");
        assert_eq!(relay.path.likely.rtt_p50_us, 51_000.0);
        assert_eq!(relay.gain_rtt_us, Some(49_000.0));
        assert!(relay.gain_log.is_some_and(|gain| gain > 0.0));
    }

    #[test]
    fn a_relay_that_does_not_win_clearly_is_shown_and_not_advised() {
        let matrix = matrix(&[&[0.0, 20.0, 52.0], &[20.0, 0.0, 30.0], &[52.0, 30.0, 0.0]]);
        let (from, to) = (matrix.regions[0].clone(), matrix.regions[2].clone());
        let route = matrix.route(&weights(), &Rules::default(), &from, &to);
        let route = route.unwrap();
        assert_eq!(route.advice, Advice::Direct);
        assert_eq!(route.relay.unwrap().gain_rtt_us, Some(1_000.0));
    }

    #[test]
    fn a_gain_within_the_bounds_is_no_gain() {
        let mut matrix = matrix(&[&[0.0, 20.0, 100.0], &[20.0, 0.0, 30.0], &[100.0, 30.0, 0.0]]);
        let vague = Leg {
            likely: Quality::of_rtt(100_000.0),
            best: Quality::of_rtt(50_000.0),
            worst: Quality::of_rtt(150_000.0),
        };
        matrix.set(0, 2, Direct::Known(vague));
        assert_eq!(route(&matrix, 0, 2).advice, Advice::Direct);
    }

    #[test]
    fn loss_of_both_links_counts() {
        let mut matrix = matrix(&[&[0.0, 20.0, 60.0], &[20.0, 0.0, 30.0], &[60.0, 30.0, 0.0]]);
        let lossy = Quality {
            loss: 0.5,
            ..Quality::of_rtt(20_000.0)
        };
        matrix.set(0, 1, Direct::Known(Leg::exact(lossy)));
        matrix.set(1, 2, Direct::Known(Leg::exact(lossy)));
        let route = route(&matrix, 0, 2);
        assert_eq!(route.relay.unwrap().path.likely.loss, 0.75);
        assert_eq!(route.advice, Advice::Direct);
    }

    #[test]
    fn where_nothing_gets_through_any_relay_is_better() {
        let mut matrix = matrix(&[&[0.0, 200.0, 0.0], &[200.0, 0.0, 300.0], &[0.0, 300.0, 0.0]]);
        assert_eq!(route(&matrix, 0, 2).advice, Advice::Unknown);
        matrix.set(0, 2, Direct::Lost);
        assert_eq!(route(&matrix, 0, 2).advice, Advice::RelayOnly);
        matrix.relays[1] = false;
        let route = route(&matrix, 0, 2);
        assert_eq!((route.advice, route.relay), (Advice::NoWay, None));
    }

    #[test]
    fn no_route_leads_to_its_own_region_or_to_an_unknown_one() {
        let matrix = matrix(&[&[0.0, 20.0], &[20.0, 0.0]]);
        let (here, weights) = (&matrix.regions[0], weights());
        assert_eq!(matrix.route(&weights, &RULES, here, here), None);
        let other = RegionId::parse("other").unwrap();
        assert_eq!(matrix.route(&weights, &RULES, here, &other), None);
        assert_eq!(matrix.routes(&weights, &RULES).len(), 2);
    }

    fn matrices() -> impl Strategy<Value = (Matrix, Vec<Vec<Option<f64>>>)> {
        (2usize..8).prop_flat_map(|count| {
            let cell = prop::option::weighted(0.9, (1u32..300).prop_map(f64::from));
            let row = prop::collection::vec(cell, count);
            prop::collection::vec(row, count).prop_map(|rows| {
                let known = rows
                    .iter()
                    .map(|row| row.iter().map(|ms| ms.unwrap_or(0.0)).collect());
                let known: Vec<Vec<f64>> = known.collect();
                let known: Vec<&[f64]> = known.iter().map(Vec::as_slice).collect();
                (matrix(&known), rows)
            })
        })
    }

    proptest! {
        /// Every detour that is quicker by more than the relay costs is found, the quickest of them; none is advised
        /// that is not quicker.
        #[test]
        fn all_triangle_violations_are_found_and_nothing_else((matrix, rtt_ms) in matrices()) {
            for route in matrix.routes(&weights(), &RULES) {
                let at = |id: &RegionId| matrix.regions.iter().position(|region| region == id).unwrap();
                let (from, to) = (at(&route.from), at(&route.to));
                let others = (0..rtt_ms.len()).filter(|&relay| relay != from && relay != to);
                let detours = others.filter_map(|relay| Some(rtt_ms[from][relay]? + rtt_ms[relay][to]? + 1.0));
                let quickest = detours.min_by(f64::total_cmp);
                let found = route.relay.as_ref().map(|relay| relay.path.likely.rtt_p50_us / 1_000.0);
                prop_assert_eq!(found, quickest);
                let advised = route.advice == Advice::Relay;
                let quicker = rtt_ms[from][to].zip(quickest).is_some_and(|(direct, detour)| detour < direct);
                prop_assert_eq!(advised, quicker);
            }
        }

        /// What is advised never weighs less than the direct link.
        #[test]
        fn advice_is_never_worse_than_direct(
            numbers in prop::collection::vec((1.0f64..300.0, 0.0f64..50.0, 0.0f64..0.3, prop::option::of(1e6f64..1e9)), 12),
        ) {
            let mut matrix = Matrix::new(regions(4));
            let mut numbers = numbers.into_iter();
            for from in 0..4 {
                for to in (0..4).filter(|&to| to != from) {
                    let (ms, jitter_ms, loss, bandwidth_bps) = numbers.next().unwrap();
                    let quality = Quality {
                        rtt_p50_us: ms * 1e3,
                        rtt_p99_us: (ms + jitter_ms) * 1e3,
                        jitter_us: jitter_ms * 1e3,
                        loss,
                        bandwidth_bps,
                    };
                    matrix.set(from, to, Direct::Known(Leg::exact(quality)));
                }
            }
            let (weights, rules) = (weights(), Rules::default());
            for route in matrix.routes(&weights, &rules) {
                let direct = route.direct.leg().unwrap().likely.log_weight(&weights);
                let relay = route.relay.unwrap().path.likely.log_weight(&weights);
                let gains = relay - direct >= rules.min_log_gain && relay > direct;
                prop_assert_eq!(route.advice == Advice::Relay, gains);
            }
        }
    }
}
