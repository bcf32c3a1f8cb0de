//! What the kernel gives: network namespaces, tun devices, exact waiting, children that cannot outlive the lab.
//!
//! Nothing here has a name that would outlive the process: a namespace is held by a file descriptor and by the
//! processes inside, a tun device by the descriptor that made it, and the files of a run lie on a tmpfs that only
//! this process and its children see. So the kernel takes everything back when they end, however they end.
//!
//! The only unsafe code of the lab is in this module.
#![allow(unsafe_code)]

mod child;
mod mount;
mod namespace;
mod tun;
mod wait;

pub use child::{die_with_parent, enter_on_exec, terminate};
pub use mount::private_run;
pub use namespace::Namespace;
pub use tun::Tun;
pub use wait::{Bell, Urgency, prioritise, wait_until};

/// Turns a C return value into a result.
fn checked(value: libc::c_int) -> std::io::Result<libc::c_int> {
    if value < 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(value)
}
