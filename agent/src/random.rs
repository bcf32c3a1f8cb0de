//! Random numbers that need not be secret (jitter) and those that must be (keys and epochs).

use rustls::crypto::ring;

/// Random bytes from the operating system.
///
/// # Panics
///
/// Never on a system that could start a process: the kernel's generator is then there.
#[must_use]
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let filled = ring::default_provider().secure_random.fill(&mut bytes);
    filled.expect("the kernel's random generator answers");
    bytes
}

/// Spreads things in time: splitmix64, seeded by the operating system.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Default for Random {
    fn default() -> Self {
        Self(u64::from_be_bytes(bytes()))
    }
}

impl Random {
    /// Draws a number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
