//! How long to wait before connecting again.
//!
//! Doubling from 100 ms to 10 s, each time a random point in the upper half, so that the agents of an installation do
//! not come back to a restarted aggregator as one herd. A refusal that only a person can cure waits 30 s at once.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);

/// After a refusal that will be repeated until somebody changes a configuration or a certificate.
const REFUSED: Duration = Duration::from_secs(30);

/// A connection that lasted this long forgives the failures before it.
const FORGIVEN_AFTER: Duration = Duration::from_secs(10);

/// What may cure the failure.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Cure {
    /// Time: the network or the aggregator may come back any moment.
    Time,
    /// A person: configuration or certificates.
    Person,
}

/// The failures in a row.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// How long to wait after a connection, or an attempt at one, that lasted `lasted` and ended for this reason.
    pub fn after(&mut self, cure: Cure, lasted: Duration, random: u64) -> Duration {
        if lasted >= FORGIVEN_AFTER {
            self.failures = 0;
        }
        let doubled = FIRST.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        let most = match cure {
            Cure::Time => doubled.min(LONGEST),
            Cure::Person => REFUSED,
        };
        let half = most / 2;
        half + half.mul_f64(random as f64 / u64::MAX as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::ZERO;

    #[test]
    fn waiting_doubles_up_to_ten_seconds() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..9)
            .map(|_| backoff.after(Cure::Time, SOON, u64::MAX).as_millis())
            .collect();
        assert_eq!(
            waits,
            [100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000]
        );
    }

    #[test]
    fn the_wait_lies_in_its_upper_half() {
        for random in [0, 1 << 63, u64::MAX] {
            let wait = Backoff::default().after(Cure::Time, SOON, random);
            assert!((FIRST / 2..=FIRST).contains(&wait), "{wait:?}");
        }
    }

    #[test]
    fn what_only_a_person_can_cure_waits_long_at_once() {
        let wait = Backoff::default().after(Cure::Person, SOON, u64::MAX);
        assert_eq!(wait, REFUSED);
    }

    #[test]
    fn a_connection_that_lasted_forgives() {
        let mut backoff = Backoff::default();
        for _ in 0..20 {
            backoff.after(Cure::Time, SOON, 0);
        }
        assert_eq!(backoff.after(Cure::Time, FORGIVEN_AFTER, u64::MAX), FIRST);
    }
}
