//! The prober's own health, window by window: what it failed to do itself, so that the aggregator can doubt what it saw.
//! Pure. It gathers facts and judges none of them.

use leeward_common::report::{Class, LocalHealth};

use super::Counters;

/// What was noticed since the last window closed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Checkup {
    scheduled_before: u64,
    not_sent_before: u64,
    overflow_before: u64,
    sent: u32,
    send_errors: u32,
    lateness_sum_us: u64,
    lateness_max_us: u64,
    clock_step_us: u64,
}

impl Checkup {
    /// A probe left, so far from its time.
    pub(super) fn sent(&mut self, lateness_us: u64) {
        self.sent = self.sent.saturating_add(1);
        self.lateness_sum_us = self.lateness_sum_us.saturating_add(lateness_us);
        self.lateness_max_us = self.lateness_max_us.max(lateness_us);
    }

    /// The kernel refused a probe.
    pub(super) fn send_error(&mut self) {
        self.send_errors = self.send_errors.saturating_add(1);
    }

    /// The wall clock was set.
    pub(super) fn clock_step(&mut self, step_ns: i64) {
        self.clock_step_us = self
            .clock_step_us
            .saturating_add(step_ns.unsigned_abs() / 1_000);
    }

    /// What there is to say, and begins anew.
    pub(super) fn take(&mut self, counters: &Counters) -> LocalHealth {
        let not_sent = counters.of(Class::NotSent) - counters.rate_capped;
        let mean_us = self.lateness_sum_us / u64::from(self.sent.max(1));
        let health = LocalHealth {
            due: narrow(counters.scheduled - self.scheduled_before),
            not_sent: narrow(not_sent - self.not_sent_before),
            send_errors: self.send_errors,
            lateness_mean_us: narrow(mean_us),
            lateness_max_us: narrow(self.lateness_max_us),
            receive_overflow: narrow(counters.receive_overflow - self.overflow_before),
            clock_step_us: narrow(self.clock_step_us),
        };
        *self = Self {
            scheduled_before: counters.scheduled,
            not_sent_before: not_sent,
            overflow_before: counters.receive_overflow,
            ..Self::default()
        };
        health
    }
}

fn narrow(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_window_has_its_own_facts() {
        let (mut checkup, mut counters) = (Checkup::default(), Counters::default());
        (
            counters.scheduled,
            counters.rate_capped,
            counters.receive_overflow,
        ) = (10, 1, 4);
        counters.classes[Class::NotSent as usize] = 3;
        checkup.sent(100);
        checkup.sent(300);
        checkup.send_error();
        checkup.clock_step(-2_000_000);
        checkup.clock_step(1_000_000);
        let health = LocalHealth {
            due: 10,
            not_sent: 2,
            send_errors: 1,
            lateness_mean_us: 200,
            lateness_max_us: 300,
            receive_overflow: 4,
            clock_step_us: 3_000,
        };
        assert_eq!(checkup.take(&counters), health);
        assert_eq!(checkup.take(&counters), LocalHealth::default());
    }
}
