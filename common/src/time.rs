//! Time: microseconds since the Unix epoch, and the one place that reads the wall clock.
//!
//! The engine is handed its `now`; the rim takes it from a [`Clock`].

use std::{
    fmt,
    ops::{Add, Sub},
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// A point in time, in microseconds since 1970-01-01T00:00:00Z.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(transparent)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The epoch itself.
    pub const EPOCH: Self = Self(0);

    /// The point `us` microseconds after the epoch.
    #[must_use]
    pub const fn from_unix_us(us: u64) -> Self {
        Self(us)
    }

    /// Microseconds since the epoch.
    #[must_use]
    pub const fn as_unix_us(self) -> u64 {
        self.0
    }

    /// How long after `earlier` this is; zero if it is not after it.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// The last multiple of `period` (counted from the epoch, so aligned to UTC) that is not after this.
    ///
    /// A `period` shorter than a microsecond counts as one.
    #[must_use]
    pub fn floor(self, period: Duration) -> Self {
        let period = u64::try_from(period.as_micros()).unwrap_or(u64::MAX).max(1);
        Self(self.0 - self.0 % period)
    }

    /// Parses an RFC 3339 time such as `2026-11-20T03:12:11Z`; finer than a microsecond is cut off.
    ///
    /// # Errors
    ///
    /// Returns what is wrong with the text.
    pub fn parse_rfc3339(text: &str) -> Result<Self, String> {
        let time: jiff::Timestamp = text.parse().map_err(|error| format!("{error}"))?;
        u64::try_from(time.as_microsecond())
            .map(Self)
            .map_err(|_| format!("{text} is before 1970"))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        let us = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(us))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;

    fn sub(self, span: Duration) -> Self {
        let us = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        Self(self.0.saturating_sub(us))
    }
}

/// RFC 3339 in UTC, with as many decimals as are not zero (three or six).
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let us = i64::try_from(self.0).unwrap_or(i64::MAX);
        match jiff::Timestamp::from_microsecond(us) {
            Ok(time) if us % 1_000 == 0 => write!(f, "{time:.3}"),
            Ok(time) => write!(f, "{time:.6}"),
            Err(_) => write!(f, "{}us", self.0),
        }
    }
}

/// Where `now` comes from.
pub trait Clock: Send + Sync {
    /// The present time.
    fn now(&self) -> Timestamp;
}

/// The machine's wall clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the wall clock"
    )]
    fn now(&self) -> Timestamp {
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let us = since_epoch.unwrap_or_default().as_micros();
        Timestamp(u64::try_from(us).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_is_written_and_read_as_rfc3339() {
        let time = Timestamp::from_unix_us(1_763_000_000_250_000);
        assert_eq!(time.to_string(), "2025-11-13T02:13:20.250Z");
        assert_eq!(
            Timestamp::parse_rfc3339("2025-11-13T02:13:20.25Z"),
            Ok(time)
        );
    }

    #[test]
    fn floor_aligns_to_the_epoch() {
        let time = Timestamp::from_unix_us(12_345_678);
        assert_eq!(time.floor(Duration::from_secs(1)).as_unix_us(), 12_000_000);
        assert_eq!(time.floor(Duration::ZERO), time);
    }

    #[test]
    fn time_never_runs_below_zero() {
        assert_eq!(Timestamp::EPOCH - Duration::from_secs(1), Timestamp::EPOCH);
        assert_eq!(
            Timestamp::EPOCH.since(Timestamp::from_unix_us(5)),
            Duration::ZERO
        );
    }
}
