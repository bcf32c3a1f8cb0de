//! Silence: how long nothing has been answered on a path, and when that is news worth a report before its window ends.
//!
//! A window of a second is a long time to wait for word of an outage. So an agent ends a path's part of the window early
//! when the path falls silent: it reports what it has counted so far, and the window's last report counts only the rest.
//! That a path is heard again waits for the window's end: nobody is in a hurry to move back, and at the end of a window
//! all agents tell of the return together. What silent means the aggregator says ([`Rule`]); the agent judges nothing.
//! The simulator's virtual agents follow the same rule, so that both learn of an outage after the same time.
//!
//! Times are microseconds of any one clock that never runs backwards.

use std::time::Duration;

use crate::report::Silence;

/// When a path is silent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rule {
    /// So many probes in a row are unanswered, at least 1,
    pub probes: u32,
    /// and nothing was answered for so long.
    pub after: Duration,
}

impl Rule {
    /// Whether this silence is one.
    #[must_use]
    pub fn is_met(&self, silence: Silence) -> bool {
        silence.unanswered >= self.probes && silence.lasts >= self.after
    }
}

/// On the average a path has one early report in so many microseconds, so that a flapping one costs little more
/// than its windows.
const EARLY_EVERY_US: u64 = 10_000_000;

/// And at most so many at once.
const EARLY_BURST: u64 = 3;

/// What one path's probes have come to lately.
#[derive(Clone, Copy, Debug, Default)]
pub struct Listener {
    heard_us: u64,
    /// When the early reports of the past will have been paid for.
    paid_us: u64,
    unanswered: u32,
    /// Whether the last report said that the path is silent.
    told_silent: bool,
}

impl Listener {
    /// A path that is probed from now on. So far nothing is unanswered.
    #[must_use]
    pub fn new(now_us: u64) -> Self {
        Self {
            heard_us: now_us,
            ..Self::default()
        }
    }

    /// A probe was answered, in time or late.
    pub fn on_answer(&mut self, now_us: u64) {
        self.heard_us = self.heard_us.max(now_us);
        self.unanswered = 0;
    }

    /// A probe's deadline passed, or an error answered it.
    pub fn on_unanswered(&mut self) {
        self.unanswered = self.unanswered.saturating_add(1);
    }

    /// How things stand.
    #[must_use]
    pub fn silence(&self, now_us: u64) -> Silence {
        match self.unanswered {
            0 => Silence::default(),
            unanswered => Silence {
                unanswered,
                lasts: Duration::from_micros(now_us.saturating_sub(self.heard_us)),
            },
        }
    }

    /// When silence may begin at the earliest if `under_way` more probes stay unanswered; `None` if these are too few,
    /// or if it has begun and was told.
    #[must_use]
    pub fn silent_from_us(&self, rule: Rule, under_way: u32) -> Option<u64> {
        let enough = self.unanswered.saturating_add(under_way) >= rule.probes;
        let after_us = u64::try_from(rule.after.as_micros()).unwrap_or(u64::MAX);
        (enough && !self.told_silent).then(|| self.heard_us.saturating_add(after_us))
    }

    /// Whether it is silent, and the last report did not say so.
    #[must_use]
    pub fn is_news(&self, now_us: u64, rule: Rule) -> bool {
        !self.told_silent && rule.is_met(self.silence(now_us))
    }

    /// Whether the path may have an early report now; if so, it has.
    pub fn may_be_early(&mut self, now_us: u64) -> bool {
        let paid_us = self.paid_us.max(now_us);
        let may = paid_us - now_us <= (EARLY_BURST - 1) * EARLY_EVERY_US;
        if may {
            self.paid_us = paid_us + EARLY_EVERY_US;
        }
        may
    }

    /// A report says how things stand.
    pub fn on_report(&mut self, now_us: u64, rule: Rule) {
        self.told_silent = rule.is_met(self.silence(now_us));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Rule = Rule {
        probes: 3,
        after: Duration::from_millis(500),
    };

    fn silent(listener: &mut Listener, probes: u32) {
        (0..probes).for_each(|_| listener.on_unanswered());
    }

    #[test]
    fn silence_takes_both_time_and_probes() {
        let mut listener = Listener::new(0);
        assert!(!listener.is_news(9_000_000, RULE), "nothing was unanswered");
        listener.on_answer(1_000_000);
        silent(&mut listener, 3);
        assert!(!listener.is_news(1_499_999, RULE));
        assert!(listener.is_news(1_500_000, RULE));
        assert_eq!(listener.silent_from_us(RULE, 0), Some(1_500_000));
        assert_eq!(
            listener.silence(1_500_000),
            Silence {
                unanswered: 3,
                lasts: Duration::from_millis(500)
            }
        );
        let mut few = Listener::new(0);
        silent(&mut few, 2);
        assert!(!few.is_news(60_000_000, RULE));
        assert_eq!(few.silent_from_us(RULE, 0), None);
        assert_eq!(few.silent_from_us(RULE, 1), Some(500_000));
    }

    #[test]
    fn one_answer_ends_it_and_the_next_silence_is_news_once_that_was_told() {
        let mut listener = Listener::new(0);
        silent(&mut listener, 3);
        listener.on_answer(600_000);
        assert!(!listener.is_news(600_000, RULE));
        silent(&mut listener, 3);
        listener.on_report(2_000_000, RULE);
        assert!(!listener.is_news(2_000_000, RULE));
        assert_eq!(listener.silent_from_us(RULE, 0), None);
        listener.on_answer(2_100_000);
        assert_eq!(listener.silence(2_200_000), Silence::default());
        listener.on_report(2_200_000, RULE);
        silent(&mut listener, 3);
        assert!(listener.is_news(2_600_000, RULE));
    }

    #[test]
    fn a_flapping_path_has_few_early_reports() {
        let mut listener = Listener::new(0);
        let early = (0..600u64)
            .filter(|tenth| listener.may_be_early(tenth * 100_000))
            .count();
        assert_eq!(early as u64, EARLY_BURST + 60_000_000 / EARLY_EVERY_US - 1);
    }
}
