//! Waiting with nanosecond timeouts, and being woken.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd},
    sync::Arc,
    time::Duration,
};

use super::checked;

/// Wakes a thread that waits in [`wait_until`].
#[derive(Clone, Debug)]
pub struct Bell(Arc<File>);

impl Bell {
    /// A bell that has not rung.
    ///
    /// # Errors
    ///
    /// Returns the kernel's refusal (out of descriptors).
    pub fn new() -> io::Result<Self> {
        // SAFETY: eventfd takes no pointers; the descriptor it returns belongs to nobody else.
        let file = unsafe {
            let fd = checked(libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC))?;
            File::from_raw_fd(fd)
        };
        Ok(Self(Arc::new(file)))
    }

    /// Wakes the waiting thread, now or when it next waits.
    pub fn ring(&self) {
        // A full counter is already ringing; there is nothing to do about any other error.
        let _ = (&*self.0).write(&1_u64.to_ne_bytes());
    }

    /// Stops ringing.
    pub fn silence(&self) {
        let _ = (&*self.0).read(&mut [0; 8]);
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Waits until one of the descriptors is readable or the time is over, and calls `ready` with the index of each
/// readable one. A zero timeout only looks.
///
/// # Errors
///
/// Returns the kernel's refusal; an interruption counts as a timeout.
pub fn wait_until(
    polls: &mut Vec<libc::pollfd>,
    descriptors: &[BorrowedFd<'_>],
    timeout: Duration,
    mut ready: impl FnMut(usize),
) -> io::Result<()> {
    polls.clear();
    polls.extend(descriptors.iter().map(|fd| libc::pollfd {
        fd: fd.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    }));
    let timeout = libc::timespec {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: libc::c_long::from(timeout.subsec_nanos() as i32),
    };
    // SAFETY: `polls` holds exactly as many entries as its length says, the timeout outlives the call, and no signal
    // mask is given.
    let count = checked(unsafe {
        libc::ppoll(
            polls.as_mut_ptr(),
            polls.len() as libc::nfds_t,
            &raw const timeout,
            std::ptr::null(),
        )
    });
    match count {
        Ok(0) => return Ok(()),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
        Err(error) => return Err(error),
    }
    for (index, poll) in polls.iter().enumerate() {
        if poll.revents != 0 {
            ready(index);
        }
    }
    Ok(())
}

/// How the kernel schedules a thread.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Urgency {
    /// Before every ordinary thread, with exact timers.
    RealTime,
    /// Like any other thread, with exact timers.
    Ordinary,
}

/// Asks for exact timers and real-time scheduling for the calling thread; tells what it got.
#[must_use]
pub fn prioritise() -> Urgency {
    let parameters = libc::sched_param { sched_priority: 10 };
    // SAFETY: prctl with PR_SET_TIMERSLACK takes one number; sched_setscheduler reads one sched_param, which outlives
    // the call, and changes only the calling thread (pid 0).
    let refused = unsafe {
        libc::prctl(libc::PR_SET_TIMERSLACK, 1);
        libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameters)
    };
    if refused == 0 {
        Urgency::RealTime
    } else {
        Urgency::Ordinary
    }
}
