//! When a missing reply becomes overdue: an adaptive deadline from the round-trip times seen so far.
//!
//! The estimator is that of RFC 6298 section 2 (smoothed RTT plus four times its variation), with a smaller floor: a
//! probe has no retransmission to spoil, so being early costs only that a slow reply is called late. The agent uses
//! it for real probes and the simulator for virtual ones, so that both learn of an outage after the same time.

use std::time::Duration;

/// The smallest slack over the smoothed RTT: two times the coarsest usual timer tick of a busy host, plus queueing.
pub const FLOOR: Duration = Duration::from_millis(100);

/// Until the first reply is seen (RFC 6298 section 2.1).
pub const INITIAL: Duration = Duration::from_secs(1);

/// How long a probe may stay unanswered before it is lost, unless its mesh says otherwise.
pub const EXPIRY: Duration = Duration::from_secs(3);

/// The deadline of one path.
#[derive(Clone, Copy, Debug, Default)]
pub struct Deadline {
    smoothed_us: f32,
    variation_us: f32,
}

impl Deadline {
    /// Learns from one round-trip time in microseconds, late ones included.
    pub fn on_rtt(&mut self, rtt_us: u32) {
        let rtt = rtt_us as f32;
        if self.smoothed_us == 0.0 {
            (self.smoothed_us, self.variation_us) = (rtt, rtt / 2.0);
            return;
        }
        self.variation_us += ((rtt - self.smoothed_us).abs() - self.variation_us) / 4.0;
        self.smoothed_us += (rtt - self.smoothed_us) / 8.0;
    }

    /// How long after its departure a probe without a reply is overdue. Never more than `expiry`.
    #[must_use]
    pub fn after(&self, expiry: Duration) -> Duration {
        if self.smoothed_us == 0.0 {
            return INITIAL.min(expiry);
        }
        let slack = Duration::from_micros((4.0 * self.variation_us) as u64).max(FLOOR);
        (Duration::from_micros(self.smoothed_us as u64) + slack).min(expiry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_path_is_overdue_soon_after_its_rtt() {
        let mut deadline = Deadline::default();
        assert_eq!(deadline.after(EXPIRY), INITIAL);
        for _ in 0..100 {
            deadline.on_rtt(80_000);
        }
        let after = deadline.after(EXPIRY).as_millis();
        assert!((179..=181).contains(&after), "{after}");
    }

    #[test]
    fn the_deadline_never_exceeds_the_expiry() {
        let mut deadline = Deadline::default();
        deadline.on_rtt(50_000_000);
        assert_eq!(deadline.after(EXPIRY), EXPIRY);
    }
}
