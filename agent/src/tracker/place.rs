//! One probe's place in its path's ring: when it left, and what has become of it.

use crate::prober::counters::StampSource;

/// The clocks as a probe leaves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Departure {
    /// Monotonic clock, nanoseconds.
    pub mono_ns: u64,
    /// Wall clock, nanoseconds since the Unix epoch.
    pub wall_ns: u64,
    /// Counts the steps of the wall clock so far.
    pub clock_era: u8,
}

/// The clocks as an answer is read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Arrival {
    /// Monotonic clock at reading, nanoseconds.
    pub mono_ns: u64,
    /// When the kernel stamped it, nanoseconds of the wall clock; `None` without a stamp.
    pub stamp_ns: Option<u64>,
    /// Counts the steps of the wall clock so far.
    pub clock_era: u8,
}

/// One probe's place.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Probe {
    pub(super) mono_ns: u64,
    pub(super) wall_ns: u64,
    pub(super) sequence: u32,
    /// Kernel's transmit stamp less `wall_ns`; [`NO_STAMP`] until there is one.
    pub(super) stamp_after_ns: u32,
    pub(super) deadline_us: u32,
    /// The window that counted it; meaningful once answered.
    pub(super) window: u16,
    pub(super) clock_era: u8,
    pub(super) state: State,
}

pub(super) const NO_STAMP: u32 = u32::MAX;

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum State {
    /// No probe, or one that is no longer of interest.
    #[default]
    Empty,
    /// Under way.
    Open,
    /// Under way; its deadline has passed and was counted.
    Overdue,
    /// Ended as replied.
    Replied,
    /// Ended with an answer of another kind, or answered more than once.
    Done,
}

impl Probe {
    /// Whether it has not ended.
    pub(super) const fn is_under_way(&self) -> bool {
        matches!(self.state, State::Open | State::Overdue)
    }

    /// When it left, as exactly as is known, nanoseconds of the wall clock.
    pub(super) const fn sent_ns(&self) -> u64 {
        match self.stamp_after_ns {
            NO_STAMP => self.wall_ns,
            after => self.wall_ns + after as u64,
        }
    }

    /// The round-trip time in nanoseconds and where its stamps came from; `None` when the wall clock stepped under it.
    pub(super) fn rtt(&self, arrival: Arrival) -> Option<(u64, StampSource)> {
        let Some(stamp_ns) = arrival.stamp_ns else {
            return Some((
                arrival.mono_ns.saturating_sub(self.mono_ns),
                StampSource::User,
            ));
        };
        if self.clock_era != arrival.clock_era {
            return None;
        }
        if self.stamp_after_ns != NO_STAMP
            && let Some(rtt) = stamp_ns.checked_sub(self.sent_ns())
        {
            return Some((rtt, StampSource::KernelBoth));
        }
        Some((stamp_ns.checked_sub(self.wall_ns)?, StampSource::KernelRx))
    }
}
