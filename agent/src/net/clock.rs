//! Monotonic and wall clock read side by side.
//!
//! Kernel time stamps are wall-clock times, and the wall clock can be set. A round-trip time across such a step is
//! wrong by the step, so the two clocks are compared often: what moves one without the other is a step.

#![allow(unsafe_code)]

/// Both clocks at one moment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Now {
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub mono_ns: u64,
    /// `CLOCK_REALTIME`, nanoseconds since the Unix epoch.
    pub wall_ns: u64,
    /// How far apart the two readings may be, nanoseconds: the uncertainty of `wall_ns - mono_ns`.
    pub apart_ns: u64,
}

/// How often the clocks are read again when the thread was interrupted between the readings.
const ATTEMPTS: usize = 4;
/// Two reads of the vDSO take less than this unless something came between.
const APART_NS: u64 = 1_000;

impl Now {
    /// Reads both clocks, again if something came between the readings.
    #[must_use]
    pub fn read() -> Self {
        let mut best = Self::read_once();
        for _ in 1..ATTEMPTS {
            if best.apart_ns <= APART_NS {
                break;
            }
            let again = Self::read_once();
            if again.apart_ns < best.apart_ns {
                best = again;
            }
        }
        best
    }

    /// Wall clock minus monotonic clock, nanoseconds.
    #[must_use]
    pub const fn offset_ns(&self) -> i64 {
        (self.wall_ns as i64).wrapping_sub(self.mono_ns as i64)
    }

    fn read_once() -> Self {
        let before = monotonic_ns();
        let wall_ns = clock_ns(libc::CLOCK_REALTIME);
        let after = monotonic_ns();
        let apart_ns = after.saturating_sub(before);
        Self {
            mono_ns: before + apart_ns / 2,
            wall_ns,
            apart_ns,
        }
    }
}

/// `CLOCK_MONOTONIC`, nanoseconds.
#[must_use]
pub fn monotonic_ns() -> u64 {
    clock_ns(libc::CLOCK_MONOTONIC)
}

/// `CLOCK_REALTIME`, nanoseconds since the Unix epoch.
#[must_use]
pub fn wall_ns() -> u64 {
    clock_ns(libc::CLOCK_REALTIME)
}

/// By how many nanoseconds the wall clock may differ from UTC, as the kernel was told by whoever keeps it (adjtimex(2));
/// `None` when nobody does, or when this process may not ask.
#[must_use]
pub fn error_ns() -> Option<u64> {
    // SAFETY: all-zero is a valid timex: a question that changes nothing (`modes` is 0).
    let mut answer: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: `answer` is a live timex that the call fills.
    let state = unsafe { libc::adjtimex(&raw mut answer) };
    if state < 0 || state == libc::TIME_ERROR || answer.status & libc::STA_UNSYNC != 0 {
        return None;
    }
    Some(u64::try_from(answer.maxerror).ok()?.saturating_mul(1_000))
}

fn clock_ns(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a valid timespec for the call to fill; both clocks exist on every Linux, so it cannot fail.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    timespec_ns(&time)
}

/// Nanoseconds of a timespec; a negative one counts as 0.
#[must_use]
pub(super) fn timespec_ns(time: &libc::timespec) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

/// Notices steps of the wall clock between readings.
///
/// Slewing moves both clocks alike on Linux, so their offset changes only when the wall clock is set, when a leap
/// second is inserted, or when the host was suspended.
#[derive(Clone, Copy, Debug)]
pub struct StepWatch {
    last: Now,
}

/// What two readings of an undisturbed pair of clocks may differ by beside the time between their reads.
const NOISE_NS: u64 = 1_000;

impl StepWatch {
    /// Begins with a first reading.
    #[must_use]
    pub const fn new(first: Now) -> Self {
        Self { last: first }
    }

    /// Takes the next reading; returns the step since the last one in nanoseconds, if there was one. Positive is
    /// forward.
    pub fn step(&mut self, now: Now) -> Option<i64> {
        let moved = now.offset_ns().wrapping_sub(self.last.offset_ns());
        let honest = NOISE_NS + now.apart_ns + self.last.apart_ns;
        self.last = now;
        (moved.unsigned_abs() > honest).then_some(moved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(mono_ns: u64, wall_ns: u64) -> Now {
        Now {
            mono_ns,
            wall_ns,
            apart_ns: 100,
        }
    }

    #[test]
    fn the_clocks_run_side_by_side() {
        let mut watch = StepWatch::new(Now::read());
        for _ in 0..1_000 {
            assert_eq!(watch.step(Now::read()), None);
        }
    }

    #[test]
    fn a_step_is_noticed_in_both_directions_and_once() {
        let mut watch = StepWatch::new(at(0, 1_000_000_000));
        assert_eq!(
            watch.step(at(1_000_000, 1_001_000_000 + 50_000)),
            Some(50_000)
        );
        assert_eq!(watch.step(at(2_000_000, 1_002_000_000 + 50_000)), None);
        assert_eq!(
            watch.step(at(3_000_000, 1_003_000_000 - 50_000)),
            Some(-100_000)
        );
    }
}
