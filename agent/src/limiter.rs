//! The hard cap on packets per second, enforced where they leave. Pure.
//!
//! A mesh that asks for more than the operator of this host allows must not turn it into a weapon, however the
//! probes are spread over paths and kinds. The generic cell rate algorithm: one number says until when the allowance is
//! used up.

/// Allowance that may be saved up: jitter bunches probes, and a quarter of a second of them evens that out.
const SAVED_NS: u64 = 250_000_000;

/// The cap.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limiter {
    /// What one packet uses, nanoseconds; `None` when nothing may leave.
    packet_ns: Option<u64>,
    /// Until when the allowance is used up, nanoseconds of the monotonic clock.
    used_until_ns: u64,
}

impl Limiter {
    pub(crate) fn new(per_second: u32) -> Self {
        Self {
            packet_ns: 1_000_000_000u64.checked_div(u64::from(per_second)),
            used_until_ns: 0,
        }
    }

    /// Whether a packet may leave now; if so, it is counted.
    pub(crate) fn take(&mut self, now_ns: u64) -> bool {
        let Some(packet_ns) = self.packet_ns else {
            return false;
        };
        let from = self
            .used_until_ns
            .max(now_ns.saturating_sub(SAVED_NS.max(packet_ns)));
        let until = from + packet_ns;
        if until > now_ns {
            return false;
        }
        self.used_until_ns = until;
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_cap_of_zero_forbids_everything() {
        assert!(!Limiter::new(0).take(u64::MAX));
    }

    #[test]
    fn an_even_flow_at_the_cap_passes() {
        let mut limiter = Limiter::new(100);
        assert!((100u64..200).all(|n| limiter.take(n * 10_000_000)));
    }

    proptest! {
        /// However they come, no span passes more than its share and what can be saved up.
        #[test]
        fn no_span_exceeds_the_cap(cap in 1u32..10_000, gaps in prop::collection::vec(0u64..20_000_000, 1..2_000)) {
            let mut limiter = Limiter::new(cap);
            let start = 1_000_000_000_000u64;
            let (mut now, mut passed) = (start, 0u64);
            for gap in gaps {
                now += gap;
                passed += u64::from(limiter.take(now));
            }
            let share = (now - start + SAVED_NS) as f64 / 1e9 * f64::from(cap);
            prop_assert!(passed as f64 <= share + 1.0, "{passed} of {share}");
        }
    }
}
