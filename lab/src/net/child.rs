//! Children that live in a namespace and die with the lab.

use std::{io, os::unix::process::CommandExt, process::Command};

use super::{Namespace, checked};

/// Makes the command's child begin in the namespace.
pub fn enter_on_exec(command: &mut Command, namespace: &Namespace) {
    let namespace = namespace.clone();
    // SAFETY: between fork and exec the closure makes one system call on an open descriptor and allocates nothing.
    unsafe {
        command.pre_exec(move || namespace.enter());
    }
}

/// Makes the kernel kill the command's child when the *thread* that starts it ends, even by SIGKILL. Start such
/// children only from a thread that lives as long as the run.
pub fn die_with_parent(command: &mut Command) {
    let parent = std::process::id();
    // SAFETY: between fork and exec the closure makes two system calls without pointers and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            checked(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
            // The parent may have died before the request took effect.
            if libc::getppid().cast_unsigned() != parent {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        });
    }
}

/// Asks a child to end (SIGTERM).
///
/// # Errors
///
/// Returns the kernel's refusal.
pub fn terminate(child: &std::process::Child) -> io::Result<()> {
    // SAFETY: kill takes no pointers; the child has not been waited for, so its id is still its own.
    checked(unsafe { libc::kill(child.id().cast_signed(), libc::SIGTERM) }).map(drop)
}
