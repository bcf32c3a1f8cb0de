//! Round-trip times between regions that nobody measured, from those that somebody did, by kriging.
//!
//! A link's round-trip time is a line in its distance plus what the region is like on either end: cables that go
//! around, carriers that peer far away. Regions near each other share that, so by how much a measured link misses the line
//! tells by how much a link between neighbours of its ends does. That is Gaussian-process regression over pairs of
//! regions (kriging: Matheron 1963; Rasmussen and Williams 2006, ch. 2), with the covariance of the links `a-b` and `c-d`
//!
//! ```text
//! variance * ( (k(a,c) k(b,d) + k(a,d) k(b,c)) / 2  +  (k(a,c) + k(a,d) + k(b,c) + k(b,d)) / 2 ),  k = exp(-km / 5000)
//! ```
//!
//! The first part is what is peculiar to the link, the second what is peculiar to an end. Only the links that tell most
//! about one are asked, so that the cost of each stays the same however many regions there are.
//!
//! What is expected is for links that are not in the mesh, of regions that others reach. It says nothing of loss,
//! and it is not news: it is made anew every ten seconds.

use std::{collections::BTreeMap, sync::Arc};

use leeward_common::{id::RegionId, time::Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    baseline::great_circle_km,
    graph::Z,
    policy::Policy,
    view::{Estimate, Knowledge, Pair, PairView},
};

/// Distance at which regions have 1/e in common, km. From 3,000 to 15,000 the figures are the same.
const SCALE_KM: f64 = 5_000.0;
/// Variance of a measurement, ms^2.
const NOISE_MS2: f64 = 1.0;
/// How many links are asked about one.
const NEIGHBOURS: usize = 64;
/// Fewer measured links in all teach nothing.
const LEAST_LINKS: usize = 3;

/// What is expected of links that nobody measured.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Predictions {
    /// Median round-trip times, microseconds, with the bounds of a single new link.
    #[serde(with = "crate::pairs")]
    rtt_us: BTreeMap<Pair, Estimate>,
}

impl Predictions {
    /// Of all pairs of regions without evidence, those of which enough is known.
    #[must_use]
    pub fn new(now: Timestamp, policy: &Policy, pairs: &BTreeMap<Pair, Arc<PairView>>) -> Self {
        let regions: Vec<&RegionId> = policy.regions.keys().collect();
        let all = regions.len() * regions.len().saturating_sub(1) / 2;
        if !policy.evidence.predict || pairs.len() >= all {
            return Self::default();
        }
        let number = |region: &RegionId| regions.binary_search(&region).ok();
        let known: Vec<Known> = pairs
            .iter()
            .filter(|(_, own)| own.estimates.knowledge(now, policy) == Knowledge::Fresh)
            .filter_map(|(pair, own)| {
                let (a, b) = pair.regions();
                Some(Known {
                    a: number(a)?,
                    b: number(b)?,
                    rtt_ms: own.estimates.rtt_p50_us?.value / 1_000.0,
                })
            })
            .collect();
        // A region that nobody measures at all may not be there.
        let mut is_known = vec![false; regions.len()];
        for own in &known {
            (is_known[own.a], is_known[own.b]) = (true, true);
        }
        let samples = known.len() as u64;
        let places: Vec<_> = policy.regions.values().collect();
        let row = |a: &&crate::policy::Region| {
            let km = places.iter().map(|b| great_circle_km(a, b));
            km.collect::<Vec<f64>>()
        };
        let Some(kriging) = Kriging::new(places.iter().map(row).collect(), known) else {
            return Self::default();
        };
        let mut rtt_us = BTreeMap::new();
        let ends: Vec<usize> = (0..regions.len()).filter(|&own| is_known[own]).collect();
        for (at, &a) in ends.iter().enumerate() {
            for &b in &ends[at + 1..] {
                let pair = Pair::new(regions[a], regions[b]);
                if pairs.contains_key(&pair) {
                    continue;
                }
                let (mean_ms, deviation_ms) = kriging.expect(a, b);
                let us = |ms: f64| ms.max(0.0) * 1_000.0;
                let estimate = Estimate {
                    value: us(mean_ms),
                    low: us(mean_ms - Z * deviation_ms),
                    high: us(mean_ms + Z * deviation_ms),
                    n: samples,
                };
                rtt_us.insert(pair, estimate);
            }
        }
        Self { rtt_us }
    }

    /// The median round-trip time that is expected between two regions, microseconds; `None` if it was measured or too
    /// little is known.
    #[must_use]
    pub fn rtt_us(&self, pair: &Pair) -> Option<Estimate> {
        self.rtt_us.get(pair).copied()
    }
}

/// A measured link between two regions, by their numbers.
#[derive(Clone, Copy, Debug)]
struct Known {
    a: usize,
    b: usize,
    rtt_ms: f64,
}

struct Kriging {
    /// Distances between regions, km.
    km: Vec<Vec<f64>>,
    common: Vec<Vec<f64>>,
    known: Vec<Known>,
    /// By how much each of them is off the line, ms.
    rest: Vec<f64>,
    line: (f64, f64),
    variance: f64,
}

impl Kriging {
    /// Learns from the measured links; `None` if there are too few.
    fn new(km: Vec<Vec<f64>>, known: Vec<Known>) -> Option<Self> {
        if known.len() < LEAST_LINKS {
            return None;
        }
        let distance = |link: &Known| km[link.a][link.b];
        let line = line(known.iter().map(|link| (distance(link), link.rtt_ms)));
        let rest: Vec<f64> = known
            .iter()
            .map(|link| link.rtt_ms - line.0 - line.1 * distance(link))
            .collect();
        let variance = rest.iter().map(|x| x * x).sum::<f64>() / rest.len() as f64;
        let near = |row: &Vec<f64>| row.iter().map(|km| (-km / SCALE_KM).exp()).collect();
        Some(Self {
            common: km.iter().map(near).collect(),
            km,
            known,
            rest,
            line,
            variance: variance.max(1e-6),
        })
    }

    /// The round-trip time that is expected between two regions and its standard deviation, both in milliseconds.
    fn expect(&self, a: usize, b: usize) -> (f64, f64) {
        let mut near: Vec<(f64, usize)> = self
            .known
            .iter()
            .zip(0..)
            .map(|(link, n)| (self.covariance((a, b), (link.a, link.b)), n))
            .collect();
        near.sort_by(|x, y| y.0.total_cmp(&x.0).then(x.1.cmp(&y.1)));
        near.truncate(NEIGHBOURS);
        let asked: Vec<&Known> = near.iter().map(|&(_, n)| &self.known[n]).collect();
        let lower = self.decompose(&asked);
        let of_rest = substitute(&lower, near.iter().map(|&(_, n)| self.rest[n]).collect());
        let of_own = substitute(&lower, near.iter().map(|&(own, _)| own).collect());
        let mean = self.line.0 + self.line.1 * self.km[a][b] + dot(&of_own, &of_rest);
        let variance = self.covariance((a, b), (a, b)) - dot(&of_own, &of_own) + NOISE_MS2;
        (mean, variance.max(NOISE_MS2).sqrt())
    }

    fn covariance(&self, (a, b): (usize, usize), (c, d): (usize, usize)) -> f64 {
        let k = &self.common;
        let own = k[a][c] * k[b][d] + k[a][d] * k[b][c];
        let ends = k[a][c] + k[a][d] + k[b][c] + k[b][d];
        self.variance * (own + ends) / 2.0
    }

    /// The lower triangle `L` with `L L^T = covariance + noise` (Cholesky).
    fn decompose(&self, links: &[&Known]) -> Vec<Vec<f64>> {
        let mut lower: Vec<Vec<f64>> = Vec::with_capacity(links.len());
        for (i, link) in links.iter().enumerate() {
            let mut row: Vec<f64> = links[..=i]
                .iter()
                .map(|other| self.covariance((link.a, link.b), (other.a, other.b)))
                .collect();
            row[i] += NOISE_MS2;
            for j in 0..i {
                row[j] = (row[j] - dot(&row[..j], &lower[j][..j])) / lower[j][j];
            }
            row[i] = (row[i] - dot(&row[..i], &row[..i])).max(1e-9).sqrt();
            lower.push(row);
        }
        lower
    }
}

/// Solves `L x = y`.
fn substitute(lower: &[Vec<f64>], mut y: Vec<f64>) -> Vec<f64> {
    for (i, row) in lower.iter().enumerate() {
        y[i] = (y[i] - dot(&row[..i], &y[..i])) / row[i];
    }
    y
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Intercept and slope of the least squares.
fn line(points: impl Iterator<Item = (f64, f64)>) -> (f64, f64) {
    let (mut n, mut x, mut y, mut xx, mut xy) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for (px, py) in points {
        n += 1.0;
        x += px;
        y += py;
        xx += px * px;
        xy += px * py;
    }
    let spread = n * xx - x * x;
    if spread <= 0.0 {
        return (y / n, 0.0);
    }
    let slope = (n * xy - x * y) / spread;
    ((y - slope * x) / n, slope)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Twelve regions on a line, 1,000 km apart.
    fn km() -> Vec<Vec<f64>> {
        let row = |a: usize| (0..12).map(move |b: usize| a.abs_diff(b) as f64 * 1_000.0);
        (0..12).map(|a| row(a).collect()).collect()
    }

    /// Region 11 is 50 ms farther than it should be.
    fn rtt_ms(a: usize, b: usize) -> f64 {
        let extra = if a == 11 || b == 11 { 50.0 } else { 0.0 };
        2.0 + a.abs_diff(b) as f64 * 15.0 + extra
    }

    fn known(which: impl Fn(usize, usize) -> bool) -> Vec<Known> {
        let links = (0..12).flat_map(|a| (0..a).map(move |b| (a, b)));
        links
            .filter(|&(a, b)| which(a, b))
            .map(|(a, b)| Known {
                a,
                b,
                rtt_ms: rtt_ms(a, b),
            })
            .collect()
    }

    #[test]
    fn a_measured_link_is_about_as_measured() {
        let kriging = Kriging::new(km(), known(|_, _| true)).unwrap();
        for link in known(|_, _| true) {
            let (expected, _) = kriging.expect(link.a, link.b);
            assert!((expected - link.rtt_ms).abs() < 2.0, "{link:?} {expected}");
        }
    }

    #[test]
    fn what_is_peculiar_to_an_end_is_learnt_from_its_other_links() {
        let kriging = Kriging::new(km(), known(|a, b| (a + b) % 2 == 1)).unwrap();
        for (a, b) in [(11, 3), (11, 7), (8, 2)] {
            let (expected, deviation) = kriging.expect(a, b);
            // The line alone is 40 ms off at region 11.
            let off = (expected - rtt_ms(a, b)).abs();
            assert!(
                off < 8.0 && off < Z * deviation,
                "{a} {b} {expected} {deviation}"
            );
        }
    }

    #[test]
    fn a_region_far_from_all_that_is_known_is_less_certain() {
        let mut known = known(|a, b| a < 6 && b < 6);
        for (link, off_ms) in known.iter_mut().zip([4.0, -6.0, 2.0].into_iter().cycle()) {
            link.rtt_ms += off_ms;
        }
        let kriging = Kriging::new(km(), known).unwrap();
        let (_, near) = kriging.expect(1, 4);
        let (_, far) = kriging.expect(1, 11);
        assert!(far > near, "{near} {far}");
    }

    #[test]
    fn too_little_is_no_estimate() {
        assert!(Kriging::new(km(), Vec::new()).is_none());
    }
}
