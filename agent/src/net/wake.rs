//! Sleeping until a packet, a moment or a call from another thread.

#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
};

use super::clock::monotonic_ns;

/// Wakes the probe thread from another one: an eventfd.
#[derive(Debug)]
pub struct Waker(OwnedFd);

impl Waker {
    /// A new waker.
    ///
    /// # Errors
    ///
    /// Returns the kernel's refusal: no file descriptors or no memory left.
    pub fn new() -> io::Result<Self> {
        // SAFETY: eventfd takes no pointers.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just gave us this descriptor and nobody else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Wakes the thread, now or the next time it sleeps.
    pub fn wake(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: eight readable bytes. The write fails only when the count is full, and then the thread wakes anyway.
        unsafe { libc::write(self.0.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    /// Forgets calls so far.
    pub fn clear(&self) {
        let mut count = [0u8; 8];
        // SAFETY: eight writable bytes. It fails only when there was no call, and then nothing is to be forgotten.
        unsafe { libc::read(self.0.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
    }
}

impl AsRawFd for Waker {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// The most descriptors that one [`wait`] watches.
pub const MAX_WATCHED: usize = 48;

/// Sleeps until one of `watched` has a packet or an error, or until the moment `until_ns` of the monotonic clock.
/// Returns bit `i` set when `watched[i]` is ready; no bit when the moment came or a signal did.
pub fn wait(watched: &[RawFd], until_ns: u64) -> u64 {
    debug_assert!(watched.len() <= MAX_WATCHED);
    let mut polled = [libc::pollfd {
        fd: -1,
        events: libc::POLLIN,
        revents: 0,
    }; MAX_WATCHED];
    let count = watched.len().min(MAX_WATCHED);
    for (poll, &fd) in polled.iter_mut().zip(watched) {
        poll.fd = fd;
    }
    let timeout = timespec(until_ns.saturating_sub(monotonic_ns()));
    // SAFETY: `polled` holds `count` valid entries, the timeout outlives the call, and no signal mask is given.
    let ready = unsafe {
        libc::ppoll(
            polled.as_mut_ptr(),
            count as libc::nfds_t,
            &raw const timeout,
            std::ptr::null(),
        )
    };
    if ready <= 0 {
        return 0;
    }
    polled[..count]
        .iter()
        .enumerate()
        .filter(|(_, poll)| poll.revents != 0)
        .fold(0, |bits, (at, _)| bits | 1 << at)
}

/// Sleeps until the moment `until_ns` of the monotonic clock, or until a signal comes.
pub fn sleep_until(until_ns: u64) {
    let until = timespec(until_ns);
    // SAFETY: `until` outlives the call and the time that remains is not asked for.
    unsafe {
        libc::clock_nanosleep(
            libc::CLOCK_MONOTONIC,
            libc::TIMER_ABSTIME,
            &raw const until,
            std::ptr::null_mut(),
        )
    };
}

/// Asks the kernel not to delay this thread's timers. By default it may, by 50 µs, to spare wake-ups.
pub fn sharpen_timers() {
    // SAFETY: this prctl takes one integer and changes only this thread's timer slack.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1 as libc::c_ulong) };
}

/// Lets this thread step back behind the others of the process whenever the processors are busy.
pub fn step_back() {
    // SAFETY: setpriority takes three integers; on Linux, 0 names the calling thread. Refused, it stays where it is.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 5) };
}

fn timespec(ns: u64) -> libc::timespec {
    libc::timespec {
        tv_sec: libc::time_t::try_from(ns / 1_000_000_000).unwrap_or(libc::time_t::MAX),
        tv_nsec: (ns % 1_000_000_000) as libc::c_long,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_wakes_and_is_forgotten_when_cleared() {
        let waker = Waker::new().unwrap();
        let now = monotonic_ns();
        assert_eq!(wait(&[waker.as_raw_fd()], now), 0);
        waker.wake();
        assert_eq!(wait(&[waker.as_raw_fd()], now + 60_000_000_000), 1);
        waker.clear();
        assert_eq!(wait(&[waker.as_raw_fd()], now), 0);
    }

    #[test]
    fn a_moment_in_the_past_does_not_sleep() {
        sleep_until(0);
        assert_eq!(wait(&[], 0), 0);
    }
}
