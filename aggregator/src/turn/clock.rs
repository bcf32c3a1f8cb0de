//! The turn's own time: the wall clock, except that it never runs backwards and never stands still.
//!
//! When the wall clock is set back, time goes on from where it was at the monotonic clock's pace until the wall clock
//! has caught up. So what is stamped is always later than what was, and a selection's hold still ends.

use std::{sync::Arc, time::Instant};

use leeward_common::time::{Clock, Timestamp};

/// See the module's documentation.
pub struct TurnClock {
    wall: Arc<dyn Clock>,
    last: Timestamp,
    last_at: Instant,
}

impl TurnClock {
    /// A clock that begins no earlier than `floor`: the end of the journal.
    #[must_use]
    pub fn new(wall: Arc<dyn Clock>, floor: Timestamp) -> Self {
        Self {
            wall,
            last: floor,
            last_at: Instant::now(),
        }
    }

    /// Time is at least this from now on.
    pub fn raise(&mut self, floor: Timestamp) {
        self.last = self.last.max(floor);
    }

    /// The present time.
    pub fn now(&mut self) -> Timestamp {
        let at = Instant::now();
        let (wall, steady) = (self.wall.now(), self.last + (at - self.last_at));
        // Ahead of the wall clock only while that lags behind what was stamped already.
        self.last = if wall >= self.last { wall } else { steady };
        self.last_at = at;
        self.last
    }
}

impl std::fmt::Debug for TurnClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TurnClock")
            .field("last", &self.last)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// A wall clock that a test sets.
    #[derive(Debug, Default)]
    pub(crate) struct Set(pub(crate) AtomicU64);

    impl Clock for Set {
        fn now(&self) -> Timestamp {
            Timestamp::from_unix_us(self.0.load(Ordering::SeqCst))
        }
    }

    #[test]
    fn time_goes_on_when_the_wall_clock_is_set_back() {
        let wall = Arc::new(Set::default());
        wall.0.store(1_000_000, Ordering::SeqCst);
        let mut clock = TurnClock::new(wall.clone(), Timestamp::EPOCH);
        assert_eq!(clock.now().as_unix_us(), 1_000_000);
        wall.0.store(5, Ordering::SeqCst);
        let first = clock.now();
        assert!(first.as_unix_us() >= 1_000_000);
        while clock.now() == first {}
        wall.0.store(1 << 50, Ordering::SeqCst);
        assert_eq!(clock.now().as_unix_us(), 1 << 50);
    }

    #[test]
    fn time_begins_where_the_journal_ends() {
        let floor = Timestamp::from_unix_us(7_000_000);
        assert!(TurnClock::new(Arc::new(Set::default()), floor).now() >= floor);
    }
}
