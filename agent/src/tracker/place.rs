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
    /// When a card stamped it, nanoseconds of the card's own clock; `None` without such a stamp.
    pub card_ns: Option<u64>,
    /// Counts the steps of the wall clock so far.
    pub clock_era: u8,
}

/// Between two steps of the wall clock both clocks run alike, so a probe keeps one of them. Wall clock less monotonic clock,
/// nanoseconds, after so many steps; they wrap long after a probe's expiry.
#[derive(Clone, Debug)]
pub(super) struct Eras {
    offsets_ns: Box<[i64; 256]>,
    latest: Option<u8>,
}

impl Default for Eras {
    fn default() -> Self {
        Self {
            offsets_ns: Box::new([0; 256]),
            latest: None,
        }
    }
}

impl Eras {
    /// Takes note of the clocks.
    pub(super) fn note(&mut self, now: Departure) {
        if self.latest.replace(now.clock_era) != Some(now.clock_era) {
            let offset_ns = now.wall_ns.wrapping_sub(now.mono_ns) as i64;
            self.offsets_ns[usize::from(now.clock_era)] = offset_ns;
        }
    }

    /// When a probe left, nanoseconds of the monotonic clock.
    pub(super) fn mono_ns(&self, probe: &Probe) -> u64 {
        let offset_ns = self.offsets_ns[usize::from(probe.clock_era)];
        probe.wall_ns.wrapping_sub(offset_ns as u64)
    }
}

/// One probe's place. There are as many as probes can be under way, so each byte counts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Probe {
    /// When it left by the wall clock; 0 of a place that no probe has had.
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

/// A card's clock that nobody sets runs this much faster or slower than the kernel's at most: 200 parts in a million.
const CLOCKS_DIFFER: u64 = 5_000;
/// The most that a packet waits within this host between its card's stamp and the kernel's, both ways together.
const HOST_TAKES_NS: u64 = 5_000_000;

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
    /// It left at `mono_ns` of the monotonic clock, and a card stamped it at `card_ns` as it did.
    ///
    /// The card's time is taken where it can be one: two cards may have two clocks, and what one of them takes away from
    /// the kernel's time is queues and interrupts of this host.
    pub(super) fn rtt(
        &self,
        arrival: Arrival,
        mono_ns: u64,
        card_ns: Option<u64>,
    ) -> Option<(u64, StampSource)> {
        let (kernels_ns, source) = self.kernels_rtt(arrival, mono_ns)?;
        let cards_ns = card_ns
            .zip(arrival.card_ns)
            .and_then(|(left_ns, came_ns)| came_ns.checked_sub(left_ns));
        let most_ns = kernels_ns + kernels_ns / CLOCKS_DIFFER + 1_000;
        let least_ns = kernels_ns.saturating_sub(HOST_TAKES_NS);
        match cards_ns.filter(|ns| (least_ns..=most_ns).contains(ns)) {
            Some(cards_ns) if source != StampSource::User => Some((cards_ns, StampSource::Card)),
            _ => Some((kernels_ns, source)),
        }
    }

    fn kernels_rtt(&self, arrival: Arrival, mono_ns: u64) -> Option<(u64, StampSource)> {
        let Some(stamp_ns) = arrival.stamp_ns else {
            return Some((arrival.mono_ns.saturating_sub(mono_ns), StampSource::User));
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
