//! Whose heavy test is taken: one at a time, for as long as one may last, and then none for a while. [pure]

use std::net::SocketAddr;

use super::sessions::{Allowance, Refused};
use crate::probe::stamp::Load;

/// How long a heavy test is taken: its two seconds, and what is said before and after.
const TAKEN_NS: u64 = 4_000_000_000;
/// From the start of one to that of the next.
const APART_NS: u64 = 10_000_000_000;

/// Lets in one heavy test at a time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gate {
    is_open: bool,
    /// Whose, and since when.
    taken: Option<(SocketAddr, u64)>,
}

impl Gate {
    pub(super) const fn new(is_open: bool) -> Self {
        Self {
            is_open,
            taken: None,
        }
    }

    /// What a request is counted against, if it is taken.
    pub(super) fn allowance(
        &mut self,
        now_ns: u64,
        from: SocketAddr,
        load: Option<Load>,
    ) -> Result<Allowance, Refused> {
        match load {
            None => Ok(Allowance::Probes),
            Some(Load::Train) => Ok(Allowance::Trains),
            Some(Load::Heavy | Load::Counted) if self.is_taken(now_ns, from) => {
                Ok(Allowance::Unlimited)
            }
            Some(Load::Heavy | Load::Counted) => Err(Refused::Heavy),
        }
    }

    fn is_taken(&mut self, now_ns: u64, from: SocketAddr) -> bool {
        let since = |began: u64| now_ns.saturating_sub(began);
        match self.taken {
            _ if !self.is_open => false,
            Some((who, began)) if since(began) < TAKEN_NS => who == from,
            Some((_, began)) if since(began) < APART_NS => false,
            _ => {
                self.taken = Some((from, now_ns));
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn from(port: u16) -> SocketAddr {
        SocketAddr::new([10, 0, 0, 1].into(), port)
    }

    #[test]
    fn one_heavy_test_is_taken_at_a_time_and_not_for_longer_than_it_may_last() {
        let mut gate = Gate::new(true);
        let mut ask = |at: u64, port| gate.allowance(at, from(port), Some(Load::Counted));
        assert_eq!(ask(SECOND, 1), Ok(Allowance::Unlimited));
        assert_eq!(ask(2 * SECOND, 2), Err(Refused::Heavy));
        assert_eq!(ask(4 * SECOND, 1), Ok(Allowance::Unlimited));
        assert_eq!(ask(5 * SECOND, 1), Err(Refused::Heavy));
        assert_eq!(ask(11 * SECOND, 2), Ok(Allowance::Unlimited));
        assert_eq!(ask(12 * SECOND, 1), Err(Refused::Heavy));
    }

    #[test]
    fn who_takes_none_still_answers_trains_and_probes() {
        let mut gate = Gate::new(false);
        let mut ask = |load| gate.allowance(SECOND, from(1), load);
        assert_eq!(ask(Some(Load::Heavy)), Err(Refused::Heavy));
        assert_eq!(ask(Some(Load::Counted)), Err(Refused::Heavy));
        assert_eq!(ask(Some(Load::Train)), Ok(Allowance::Trains));
        assert_eq!(ask(None), Ok(Allowance::Probes));
    }
}
