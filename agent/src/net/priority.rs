//! Who goes first when there is not a core for everybody: the probe thread, since a probe that leaves late has measured this host.

#![allow(unsafe_code)]

use std::io;

/// The nice value of threads that can wait.
const NICE: libc::c_int = 10;

/// The calling thread gives way to those that do not (setpriority(2); on Linux a nice value is a thread's own).
///
/// # Errors
///
/// Returns the kernel's refusal. Any thread may give way.
pub fn give_way() -> io::Result<()> {
    // SAFETY: setpriority takes plain numbers, and 0 means the calling thread.
    match unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    /// The nice value of a thread of this process.
    fn nice(thread: &str) -> String {
        let stat = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat")).unwrap();
        // Behind the name, which may hold blanks, it is the seventeenth (proc(5)).
        let (_, rest) = stat.rsplit_once(')').unwrap();
        rest.split_whitespace().nth(16).unwrap().to_owned()
    }

    #[test]
    fn only_the_thread_that_asks_gives_way() {
        let own = || {
            let link = std::fs::read_link("/proc/thread-self").unwrap();
            link.file_name().unwrap().to_string_lossy().into_owned()
        };
        let before = nice(&own());
        let gives_way = std::thread::spawn(move || {
            super::give_way().unwrap();
            nice(&own())
        });
        assert_eq!(gives_way.join().unwrap(), "10");
        assert_eq!(nice(&own()), before);
    }
}
