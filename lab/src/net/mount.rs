//! A place for the files of a run that vanishes with the run.

use std::{ffi::CStr, io, ptr};

use super::checked;

/// Gives this process and its future children a fresh tmpfs on `/run` that nobody else sees and that vanishes with
/// the last of them. Call it before starting threads.
///
/// # Errors
///
/// Returns the kernel's refusal (not root).
pub fn private_run() -> io::Result<()> {
    // SAFETY: unshare takes no pointers.
    checked(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
    // Without this the new mount would be seen by everyone.
    mount(c"none", c"/", c"", libc::MS_REC | libc::MS_SLAVE)?;
    mount(
        c"leeward-lab",
        c"/run",
        c"tmpfs",
        libc::MS_NOSUID | libc::MS_NODEV,
    )
}

fn mount(source: &CStr, target: &CStr, kind: &CStr, flags: libc::c_ulong) -> io::Result<()> {
    // SAFETY: all strings are NUL-terminated and outlive the call; no data is given.
    let result = unsafe {
        libc::mount(
            source.as_ptr(),
            target.as_ptr(),
            kind.as_ptr(),
            flags,
            ptr::null(),
        )
    };
    checked(result).map(drop)
}
