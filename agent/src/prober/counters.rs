//! What the prober did and saw since its start: a plain snapshot whose sums add up.
//!
//! The probe thread owns the numbers and publishes a copy a few times per second; readers get the last copy, so
//! every snapshot is consistent in itself and neither side waits for the other.

use leeward_common::report::Class;

/// Where the two time stamps of a round-trip time came from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum StampSource {
    /// Both from the kernel: departure as the driver took the packet, arrival as it came off the device.
    KernelBoth,
    /// Arrival from the kernel; departure read in user space just before the send, so a few microseconds early.
    KernelRx,
    /// Both from user space: what is left when the kernel gives no stamps.
    User,
    /// Both from the clock of the network card, as the packets passed the wire.
    Card,
}

impl StampSource {
    /// Every source, in the order of [`Counters::stamps`].
    pub const ALL: [Self; 4] = [Self::KernelBoth, Self::KernelRx, Self::User, Self::Card];

    /// The name used in metrics and status.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::KernelBoth => "kernel_both",
            Self::KernelRx => "kernel_rx",
            Self::User => "user",
            Self::Card => "card",
        }
    }
}

/// Why a packet was no answer to a probe. Strays never become samples.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stray {
    /// Too short for what it claims to be, or its payload was cut.
    Truncated,
    /// Well-formed, but not in the form of an answer to this prober.
    Foreign,
    /// Answers a probe, but from another address or port than was probed.
    WrongAddress,
    /// The token or sequence number is not the probe's: forged, corrupted or from an earlier start.
    WrongToken,
    /// Names a path or probe that is not there: never sent, or so old that its place was reused.
    UnknownProbe,
    /// A true answer after the expiry; the probe was or is lost.
    Expired,
    /// A further true answer to a probe that needs none: after the window that counted it, after another repeat,
    /// after a late reply, or a retransmitted SYN/ACK.
    Repeated,
    /// An ICMP error whose quotation fits no probe under way.
    ErrorUnattributed,
}

impl Stray {
    /// Every kind, in the order of [`Counters::strays`].
    pub const ALL: [Self; 8] = [
        Self::Truncated,
        Self::Foreign,
        Self::WrongAddress,
        Self::WrongToken,
        Self::UnknownProbe,
        Self::Expired,
        Self::Repeated,
        Self::ErrorUnattributed,
    ];

    /// The name used in metrics and status.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::Foreign => "foreign",
            Self::WrongAddress => "wrong_address",
            Self::WrongToken => "wrong_token",
            Self::UnknownProbe => "unknown_probe",
            Self::Expired => "expired",
            Self::Repeated => "repeated",
            Self::ErrorUnattributed => "error_unattributed",
        }
    }
}

/// Counts since the prober's start.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counters {
    /// Snapshots published so far: grows at least once per second while the probe thread makes progress.
    pub snapshots: u64,
    /// Probes whose time came.
    pub scheduled: u64,
    /// Packets that the kernel took.
    pub sent: u64,
    /// Probes that ended, by class, in the order of [`Class::ALL`].
    pub classes: [u64; 8],
    /// Probes still under way when a plan removed their path; they end in no class.
    pub abandoned: u64,
    /// Round-trip times by the source of their stamps, in the order of [`StampSource::ALL`].
    pub stamps: [u64; StampSource::ALL.len()],
    /// Transmit stamps that fitted no probe or lay before their probe's send; not used.
    pub tx_stamps_unfit: u64,
    /// Packets that answered no probe, in the order of [`Stray::ALL`].
    pub strays: [u64; 8],
    /// Packets that the kernel dropped because a receive queue was full.
    pub receive_overflow: u64,
    /// Receive calls that failed.
    pub receive_errors: u64,
    /// Steps of the wall clock that were noticed.
    pub clock_steps: u64,
    /// Answered probes that were discarded because the clock stepped under them; they end as [`Class::LocalDrop`].
    pub clock_discards: u64,
    /// STAMP replies whose reflector claims to have taken longer than the whole way, or shows times that no clock does: the
    /// round-trip time is the whole way, and nothing is taken from them about directions but the count.
    pub reflections_disbelieved: u64,
    /// Times that this thread did not run for so long that the schedule was skipped instead of caught up.
    pub stalls: u64,
    /// Probes forbidden by the rate cap; part of [`Class::NotSent`].
    pub rate_capped: u64,
    /// Windows closed.
    pub windows: u64,
    /// Windows dropped because nobody took them.
    pub windows_dropped: u64,
    /// How far from their times probes left.
    pub lateness: Lateness,
}

impl Counters {
    /// Probes that ended in this class.
    #[must_use]
    pub const fn of(&self, class: Class) -> u64 {
        self.classes[class as usize]
    }

    /// Strays of one kind.
    #[must_use]
    pub const fn strays_of(&self, kind: Stray) -> u64 {
        self.strays[kind as usize]
    }

    /// Strays of all kinds.
    #[must_use]
    pub fn strays_total(&self) -> u64 {
        self.strays.iter().sum()
    }

    /// Probes that ended, in whichever class.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.classes.iter().sum()
    }

    /// Probes scheduled that have not ended and were not abandoned.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.scheduled
            .saturating_sub(self.ended())
            .saturating_sub(self.abandoned)
    }
}

/// Eight buckets per octave: a quantile is at most 1/8 too large.
const LATENESS_SUB_BITS: u32 = 3;
/// Up to 2^24 µs, 16.8 s; later counts as that.
const LATENESS_MAX_BITS: u32 = 24;
const LATENESS_BUCKETS: usize =
    ((LATENESS_MAX_BITS - LATENESS_SUB_BITS + 1) << LATENESS_SUB_BITS) as usize;

/// How far from its scheduled time each probe left, mostly late and a little early, in microseconds.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Lateness {
    buckets: [u64; LATENESS_BUCKETS],
}

impl std::fmt::Debug for Lateness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (median, tail) = (self.quantile(0.5), self.quantile(0.99));
        write!(
            f,
            "Lateness({} probes, p50 {median} us, p99 {tail} us)",
            self.count()
        )
    }
}

impl Default for Lateness {
    fn default() -> Self {
        Self {
            buckets: [0; LATENESS_BUCKETS],
        }
    }
}

impl Lateness {
    /// Adds one probe.
    pub fn record(&mut self, late_us: u64) {
        self.buckets[Self::bucket(late_us)] += 1;
    }

    /// Probes counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// What was added since an earlier snapshot.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut since = *self;
        for (bucket, before) in since.buckets.iter_mut().zip(&earlier.buckets) {
            *bucket = bucket.saturating_sub(*before);
        }
        since
    }

    /// The lateness, in microseconds, that the share `q` (0..=1) of probes did not exceed: the upper end of its
    /// bucket. 0 while empty.
    #[must_use]
    pub fn quantile(&self, q: f64) -> u64 {
        let count = self.count();
        if count == 0 {
            return 0;
        }
        let rank = ((q.clamp(0.0, 1.0) * count as f64).ceil() as u64).clamp(1, count);
        let mut seen = 0;
        for (at, n) in self.buckets.iter().enumerate() {
            seen += n;
            if seen >= rank {
                return Self::highest(at);
            }
        }
        Self::highest(LATENESS_BUCKETS - 1)
    }

    fn bucket(late_us: u64) -> usize {
        let value = late_us.min((1 << LATENESS_MAX_BITS) - 1);
        if value < 1 << LATENESS_SUB_BITS {
            return value as usize;
        }
        let shift = value.ilog2() - LATENESS_SUB_BITS;
        (((shift + 1) << LATENESS_SUB_BITS) as u64 + (value >> shift) - (1 << LATENESS_SUB_BITS))
            as usize
    }

    fn highest(bucket: usize) -> u64 {
        let (block, sub) = (
            bucket >> LATENESS_SUB_BITS,
            bucket as u64 & ((1 << LATENESS_SUB_BITS) - 1),
        );
        if block == 0 {
            return sub;
        }
        ((sub + (1 << LATENESS_SUB_BITS) + 1) << (block - 1)) - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lateness_quantile_is_at_most_an_eighth_too_large() {
        for late in (0..20_000).chain([1 << 20, (1 << 24) - 1]) {
            let mut lateness = Lateness::default();
            lateness.record(late);
            let shown = lateness.quantile(0.99);
            assert!(shown >= late && shown <= late + late / 8, "{late} {shown}");
        }
        let mut lateness = Lateness::default();
        lateness.record(u64::MAX);
        assert_eq!(lateness.quantile(1.0), (1 << 24) - 1);
    }

    #[test]
    fn lateness_since_a_snapshot_holds_only_what_came_after_it() {
        let mut lateness = Lateness::default();
        lateness.record(10_000);
        let before = lateness;
        lateness.record(5);
        assert_eq!(
            (
                lateness.since(&before).quantile(1.0),
                lateness.since(&before).count()
            ),
            (5, 1)
        );
    }
}
