//! Seeded noise: independent streams of one seed, so that changing one part of a world leaves the others as they were.

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

/// One stream of numbers.
#[derive(Clone, Debug)]
pub struct Noise(ChaCha8Rng);

impl Noise {
    /// The stream of this number under a seed.
    #[must_use]
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(stream);
        Self(random)
    }

    /// Evenly spread over 0..1, 0 included.
    pub fn even(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A whole number below `bound`, which is not 0 and far below 2^64: the bias is then beneath notice.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.0.next_u64() % bound as u64) as usize
    }

    /// Exponentially spread over 0.., with this mean.
    pub fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.even()).ln()
    }

    /// About normally spread about 0 with deviation 1: the sum of four even numbers, which is what a trace of some
    /// 10^9 draws can afford. It ends at 3.46 deviations; tails are the world's own business.
    pub fn bell(&mut self) -> f64 {
        let bits = self.0.next_u64();
        let sum = (bits & 0xffff) + (bits >> 16 & 0xffff) + (bits >> 32 & 0xffff) + (bits >> 48);
        // Four even numbers of 0..=65535 have mean 131070 and deviation 65536 / sqrt(3).
        (sum as f64 - 131_070.0) * (1.732_050_8 / 65_536.0)
    }

    /// Four even 16-bit numbers at once.
    pub fn quarters(&mut self) -> [u16; 4] {
        let bits = self.0.next_u64();
        [
            bits as u16,
            (bits >> 16) as u16,
            (bits >> 32) as u16,
            (bits >> 48) as u16,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_of_a_seed_repeat_and_differ() {
        let draw = |seed, stream| Noise::new(seed, stream).even();
        assert_eq!(draw(1, 2).to_bits(), draw(1, 2).to_bits());
        assert_ne!(draw(1, 2).to_bits(), draw(1, 3).to_bits());
        assert_ne!(draw(1, 2).to_bits(), draw(2, 2).to_bits());
    }

    #[test]
    fn the_bell_has_mean_0_and_deviation_1() {
        let mut noise = Noise::new(7, 0);
        let draws: Vec<_> = (0..100_000).map(|_| noise.bell()).collect();
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        let square = draws.iter().map(|x| x * x).sum::<f64>() / draws.len() as f64;
        assert!(mean.abs() < 0.02, "{mean}");
        assert!((square - 1.0).abs() < 0.02, "{square}");
    }
}
