//! Round-trip times between regions that nobody measured, from those that somebody did, by kriging.
//!
//! A link's round-trip time is a line in its distance plus what the region is like on either end: cables that go
//! around, carriers that peer far away. Regions near each other share that, so by how much a measured link misses the line
//! tells by how much a link between neighbours of its ends does. That is Gaussian-process regression over pairs of
//! regions (kriging), with the covariance of the links `a-b` and `c-d`
//!
//! ```text
//! variance * ( (k(a,c) k(b,d) + k(a,d) k(b,c)) / 2  +  (k(a,c) + k(a,d) + k(b,c) + k(b,d)) / 2 ),  k = exp(-km / 5000)
//! ```
//!
//! The first part is what is peculiar to the link, the second what is peculiar to an end. The scale hardly matters:
//! from 3,000 to 15,000 km the figures are the same. The solution costs the cube of the measured links.

/// Distance at which regions have 1/e in common, km.
const SCALE_KM: f64 = 5_000.0;
/// Variance of a measurement, ms^2: those at hand are rounded to 1 ms.
const NOISE_MS2: f64 = 1.0;

/// A measured link between two regions, by their numbers.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// One end.
    pub a: usize,
    /// The other.
    pub b: usize,
    /// Milliseconds.
    pub rtt_ms: f64,
}

/// What is expected of every link.
#[derive(Clone, Debug)]
pub struct Kriging {
    /// Distances between regions, km.
    km: Vec<Vec<f64>>,
    common: Vec<Vec<f64>>,
    measured: Vec<Measured>,
    line: (f64, f64),
    variance: f64,
    /// Of each measured link: how much it counts.
    weights: Vec<f64>,
}

impl Kriging {
    /// Learns from the measured links; `None` if there are fewer than three.
    #[must_use]
    pub fn new(km: Vec<Vec<f64>>, measured: Vec<Measured>) -> Option<Self> {
        if measured.len() < 3 {
            return None;
        }
        let distance = |link: &Measured| km[link.a][link.b];
        let line = line(measured.iter().map(|link| (distance(link), link.rtt_ms)));
        let rest: Vec<f64> = measured
            .iter()
            .map(|link| link.rtt_ms - line.0 - line.1 * distance(link))
            .collect();
        let variance = rest.iter().map(|x| x * x).sum::<f64>() / rest.len() as f64;
        let near = |row: &Vec<f64>| row.iter().map(|km| (-km / SCALE_KM).exp()).collect();
        let mut own = Self {
            common: km.iter().map(near).collect(),
            km,
            measured,
            line,
            variance: variance.max(1e-6),
            weights: Vec::new(),
        };
        own.weights = own.solve(rest);
        Some(own)
    }

    /// The round-trip time that is expected between two regions, milliseconds.
    #[must_use]
    pub fn rtt_ms(&self, a: usize, b: usize) -> f64 {
        let rest: f64 = self
            .measured
            .iter()
            .zip(&self.weights)
            .map(|(link, weight)| weight * self.covariance((a, b), (link.a, link.b)))
            .sum();
        (self.line.0 + self.line.1 * self.km[a][b] + rest).max(0.0)
    }

    fn covariance(&self, (a, b): (usize, usize), (c, d): (usize, usize)) -> f64 {
        let k = &self.common;
        let own = k[a][c] * k[b][d] + k[a][d] * k[b][c];
        let ends = k[a][c] + k[a][d] + k[b][c] + k[b][d];
        self.variance * (own + ends) / 2.0
    }

    /// Solves `(covariance + noise) x = rest` by Cholesky's decomposition.
    fn solve(&self, mut rest: Vec<f64>) -> Vec<f64> {
        let n = self.measured.len();
        let mut lower: Vec<Vec<f64>> = Vec::with_capacity(n);
        for (i, link) in self.measured.iter().enumerate() {
            let mut row: Vec<f64> = self.measured[..=i]
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
        for i in 0..n {
            rest[i] = (rest[i] - dot(&lower[i][..i], &rest[..i])) / lower[i][i];
        }
        for i in (0..n).rev() {
            rest[i] /= lower[i][i];
            let own = rest[i];
            for j in 0..i {
                rest[j] -= lower[i][j] * own;
            }
        }
        rest
    }
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

    #[test]
    fn a_measured_link_is_about_as_measured() {
        let links = (0..12).flat_map(|a| (0..a).map(move |b| (a, b)));
        let measured: Vec<_> = links
            .map(|(a, b)| Measured {
                a,
                b,
                rtt_ms: rtt_ms(a, b),
            })
            .collect();
        let kriging = Kriging::new(km(), measured.clone()).unwrap();
        for link in measured {
            let expected = kriging.rtt_ms(link.a, link.b);
            assert!((expected - link.rtt_ms).abs() < 2.0, "{link:?} {expected}");
        }
    }

    #[test]
    fn what_is_peculiar_to_an_end_is_learnt_from_its_other_links() {
        let links = (0..12).flat_map(|a| (0..a).map(move |b| (a, b)));
        let measured = links
            .filter(|&(a, b)| (a + b) % 2 == 1)
            .map(|(a, b)| Measured {
                a,
                b,
                rtt_ms: rtt_ms(a, b),
            })
            .collect();
        let kriging = Kriging::new(km(), measured).unwrap();
        for (a, b) in [(11, 3), (11, 7), (8, 2)] {
            let expected = kriging.rtt_ms(a, b);
            // The line alone is 40 ms off at region 11.
            assert!((expected - rtt_ms(a, b)).abs() < 8.0, "{a} {b} {expected}");
        }
    }

    #[test]
    fn too_little_is_no_estimate() {
        assert!(Kriging::new(km(), Vec::new()).is_none());
    }
}
