//! Time on the wire: stamps in NTP's or PTP's format, and how wrong they may be.
//!
//! A packet says in its error estimate which of the two formats its stamp has (RFC 8762 section 4.2.1, RFC 8186).
//! Both are 64 bits; NTP's resolves 0.23 ns, so that nanoseconds survive the way there and back unchanged.

/// Seconds from NTP's epoch, 1900, to Unix', 1970 (RFC 5905 figure 4).
const NTP_TO_UNIX_SECONDS: u64 = 2_208_988_800;
const SECOND_NS: u64 = 1_000_000_000;

/// How a stamp is written.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Format {
    /// Seconds since 1900, modulo 2^32, and a binary fraction of 32 bits.
    #[default]
    Ntp,
    /// Seconds since 1970, modulo 2^32, and nanoseconds: the lower 64 bits of IEEE 1588's.
    Ptp,
}

/// A time as it is on the wire.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Stamp(pub u64);

impl Stamp {
    /// Writes nanoseconds since the Unix epoch.
    #[must_use]
    pub const fn of(format: Format, unix_ns: u64) -> Self {
        let (seconds, nanos) = (unix_ns / SECOND_NS, unix_ns % SECOND_NS);
        Self(match format {
            Format::Ntp => ((seconds + NTP_TO_UNIX_SECONDS) << 32) | ((nanos << 32) / SECOND_NS),
            Format::Ptp => (seconds << 32) | nanos,
        })
    }

    /// Nanoseconds since the Unix epoch. NTP's seconds below 2^31 lie in its era from 2036 on (RFC 4330 section 3). `None`
    /// for what no clock shows: a time before 1970, or a second of more nanoseconds than it has.
    #[must_use]
    pub const fn unix_ns(self, format: Format) -> Option<u64> {
        let (seconds, fraction) = (self.0 >> 32, self.0 & 0xffff_ffff);
        match format {
            Format::Ntp => {
                let era = if seconds < 1 << 31 { 1 << 32 } else { 0 };
                let Some(seconds) = (seconds + era).checked_sub(NTP_TO_UNIX_SECONDS) else {
                    return None;
                };
                Some(seconds * SECOND_NS + ((fraction * SECOND_NS + (1 << 31)) >> 32))
            }
            Format::Ptp if fraction >= SECOND_NS => None,
            Format::Ptp => Some(seconds * SECOND_NS + fraction),
        }
    }
}

/// The error estimate of a stamp (RFC 4656 section 4.1.2, with RFC 8762's Z bit): `multiplier × 2^(scale - 32)` seconds.
///
/// ```text
///   15  14  13      8 7            0
///  ┌───┬───┬─────────┬──────────────┐
///  │ S │ Z │ scale   │ multiplier   │   S: the clock follows UTC; Z: 0 NTP's format, 1 PTP's
///  └───┴───┴─────────┴──────────────┘
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ErrorEstimate(pub u16);

const SYNCHRONIZED: u16 = 1 << 15;
const PTP: u16 = 1 << 14;
const SCALE_MAX: u32 = 63;

impl ErrorEstimate {
    /// Of a clock that follows UTC to so many nanoseconds.
    #[must_use]
    pub const fn within(format: Format, error_ns: u64) -> Self {
        let units = ((error_ns as u128) << 32).div_ceil(SECOND_NS as u128);
        let bits = u128::BITS - units.leading_zeros();
        let mut scale = bits.saturating_sub(8);
        let mut multiplier = units.div_ceil(1 << scale);
        if multiplier > 0xff {
            // Rounding up carried.
            (scale, multiplier) = (scale + 1, 0x80);
        }
        // A multiplier of 0 marks a corrupt packet.
        let multiplier = if multiplier == 0 {
            1
        } else {
            multiplier as u16
        };
        Self(SYNCHRONIZED | format_bit(format) | ((scale as u16) << 8) | multiplier)
    }

    /// Of a clock that follows nothing: its error is not known, which is written as the largest.
    #[must_use]
    pub const fn unknown(format: Format) -> Self {
        Self(format_bit(format) | ((SCALE_MAX as u16) << 8) | 0xff)
    }

    /// How the stamp beside it is written.
    #[must_use]
    pub const fn format(self) -> Format {
        if self.0 & PTP == 0 {
            Format::Ntp
        } else {
            Format::Ptp
        }
    }

    /// By how many nanoseconds the clock may differ from UTC; `None` when it does not follow it, and for a corrupt one.
    #[must_use]
    pub const fn error_ns(self) -> Option<u64> {
        let (scale, multiplier) = ((self.0 >> 8) as u32 & SCALE_MAX, (self.0 & 0xff) as u128);
        if self.0 & SYNCHRONIZED == 0 || multiplier == 0 {
            return None;
        }
        // At most 8 + 63 + 30 bits.
        let ns = ((multiplier * SECOND_NS as u128) << scale) >> 32;
        Some(if ns > u64::MAX as u128 {
            u64::MAX
        } else {
            ns as u64
        })
    }
}

const fn format_bit(format: Format) -> u16 {
    match format {
        Format::Ntp => 0,
        Format::Ptp => PTP,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_epochs_are_those_of_the_standards() {
        assert_eq!(Stamp::of(Format::Ntp, 0), Stamp(0x83aa_7e80_0000_0000));
        assert_eq!(Stamp::of(Format::Ptp, 0), Stamp(0));
        let half = 1_700_000_000_500_000_000;
        assert_eq!(
            Stamp::of(Format::Ntp, half),
            Stamp(((1_700_000_000 + 2_208_988_800) << 32) | 0x8000_0000)
        );
        assert_eq!(
            Stamp::of(Format::Ptp, half),
            Stamp((1_700_000_000 << 32) | 500_000_000)
        );
    }

    #[test]
    fn ntp_goes_on_after_2036() {
        // 2036-02-07T06:28:16Z: NTP's seconds begin again.
        let again = (1 << 32) - NTP_TO_UNIX_SECONDS;
        let stamp = Stamp::of(Format::Ntp, again * SECOND_NS);
        assert_eq!(stamp, Stamp(0));
        assert_eq!(stamp.unix_ns(Format::Ntp), Some(again * SECOND_NS));
    }

    #[test]
    fn what_no_clock_shows_is_no_time() {
        assert_eq!(Stamp(1 << 63).unix_ns(Format::Ntp), None, "1968");
        assert_eq!(Stamp(SECOND_NS).unix_ns(Format::Ptp), None);
    }

    #[test]
    fn error_estimates_have_these_bits() {
        assert_eq!(ErrorEstimate::within(Format::Ntp, 0), ErrorEstimate(0x8001));
        // A second is 128 × 2^(25 - 32).
        assert_eq!(
            ErrorEstimate::within(Format::Ptp, SECOND_NS),
            ErrorEstimate(0xc000 | (25 << 8) | 0x80)
        );
        assert_eq!(ErrorEstimate::unknown(Format::Ntp), ErrorEstimate(0x3fff));
        assert_eq!(ErrorEstimate::unknown(Format::Ptp).error_ns(), None);
        assert_eq!(ErrorEstimate(0x8000).error_ns(), None, "multiplier of 0");
    }

    proptest! {
        #[test]
        fn nanoseconds_survive_both_formats(unix_ns in 0u64..4_233_462_144 * SECOND_NS, ptp: bool) {
            let format = if ptp { Format::Ptp } else { Format::Ntp };
            prop_assert_eq!(Stamp::of(format, unix_ns).unix_ns(format), Some(unix_ns));
        }

        /// What an estimate says is never less than the error, and at most 1/127 more.
        #[test]
        fn an_estimate_is_never_too_small(error_ns: u64) {
            let shown = ErrorEstimate::within(Format::Ntp, error_ns).error_ns().unwrap();
            prop_assert!(shown >= error_ns.saturating_sub(1), "{error_ns} {shown}");
            prop_assert!(shown <= error_ns.saturating_add(error_ns / 127).saturating_add(1), "{error_ns} {shown}");
        }

        #[test]
        fn no_bits_are_beyond_reading(stamp: u64, estimate: u16) {
            let estimate = ErrorEstimate(estimate);
            let _ = (Stamp(stamp).unix_ns(estimate.format()), estimate.error_ns());
        }
    }
}
