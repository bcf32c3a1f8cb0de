//! Agents that doubt themselves: for a while after a window in which one failed to do its own part, its vote does not
//! count. The idea is Lifeguard's local health (DSN 2018): a slow observer accuses the healthy, so it listens to itself first.
//!
//! An agent states facts ([`LocalHealth`]); whether they are reason enough is the policy's ([`Doubt`]).

use leeward_common::report::LocalHealth;

use crate::policy::Doubt;

/// Whether an agent that noticed this about itself in a window is in doubt.
#[must_use]
pub fn is_in_doubt(limits: &Doubt, health: &LocalHealth) -> bool {
    let LocalHealth {
        due,
        not_sent,
        send_errors,
        lateness_mean_us,
        lateness_max_us: _,
        receive_overflow,
        clock_step_us,
    } = *health;
    let share = |count: u32| f64::from(count) / f64::from(due.max(1));
    share(not_sent.saturating_add(send_errors)) > limits.unsent
        || share(receive_overflow) > limits.overflow
        || u128::from(lateness_mean_us) > limits.lateness.as_micros()
        || u128::from(clock_step_us) > limits.clock_step.as_micros()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::defaults;

    #[test]
    fn each_fact_beyond_its_limit_is_a_reason() {
        let well = LocalHealth {
            due: 60,
            not_sent: 6,
            send_errors: 6,
            lateness_mean_us: 900,
            lateness_max_us: 90_000,
            receive_overflow: 3,
            clock_step_us: 100_000,
        };
        let is = |health: LocalHealth| is_in_doubt(&defaults::doubt(), &health);
        assert!(!is(well));
        assert!(!is(LocalHealth::default()));
        for unwell in [
            LocalHealth {
                not_sent: 30,
                ..well
            },
            LocalHealth {
                send_errors: 30,
                ..well
            },
            LocalHealth {
                lateness_mean_us: 200_000,
                ..well
            },
            LocalHealth {
                receive_overflow: 30,
                ..well
            },
            LocalHealth {
                clock_step_us: 3_600_000_000,
                ..well
            },
        ] {
            assert!(is(unwell), "{unwell:?}");
        }
    }
}
