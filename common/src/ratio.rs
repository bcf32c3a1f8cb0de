//! A share of a whole, 0..=1: loss, utilisation, traffic share. Percent exists only in what people read.

use serde::{Deserialize, Deserializer, Serialize};

/// A number in 0..=1; never NaN.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Ratio(f64);

/// A number outside 0..=1.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("{0} is not a ratio; use a number from 0 to 1 (8 percent is 0.08)")]
pub struct InvalidRatio(pub f64);

impl Ratio {
    /// Nothing of it.
    pub const ZERO: Self = Self(0.0);
    /// All of it.
    pub const ONE: Self = Self(1.0);

    /// Checks the range.
    ///
    /// # Errors
    ///
    /// Returns [`InvalidRatio`] outside 0..=1 and for NaN.
    pub fn new(value: f64) -> Result<Self, InvalidRatio> {
        if (0.0..=1.0).contains(&value) {
            return Ok(Self(value));
        }
        Err(InvalidRatio(value))
    }

    /// `part` of `whole`, or `None` when the whole is nothing: no probes is not no loss.
    #[must_use]
    pub fn of(part: u64, whole: u64) -> Option<Self> {
        (whole > 0).then(|| Self((part as f64 / whole as f64).min(1.0)))
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> f64 {
        self.0
    }
}

impl<'de> Deserialize<'de> for Ratio {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(f64::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_zero_to_one_is_a_ratio() {
        assert!(Ratio::new(0.08).is_ok());
        for value in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
            assert!(Ratio::new(value).is_err());
        }
    }

    #[test]
    fn no_probes_is_not_no_loss() {
        assert_eq!(Ratio::of(0, 0), None);
        assert_eq!(Ratio::of(1, 4), Some(Ratio(0.25)));
    }
}
