//! Two privileges, for one moment: raise CAP_NET_RAW and CAP_NET_BIND_SERVICE, open the sockets, give everything up.
//!
//! Capabilities belong to threads. So this must happen before any other thread is started; what is started later
//! inherits nothing. Giving up is checked against the kernel's own account of every thread of the process.

use std::{fs, io, path::PathBuf};

use caps::{CapSet, Capability, CapsHashSet};

use crate::prober::{OpenError, ProberConfig, Sockets};

/// Why the process does not get its sockets, or does not get rid of its privileges.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// The sockets could not be opened.
    #[error("cannot open the probe sockets")]
    Open(#[from] OpenError),
    /// A capability set could not be emptied.
    #[error("cannot give up the {set} capabilities: {reason}")]
    Drop {
        /// Which set.
        set: &'static str,
        /// The kernel's words.
        reason: String,
    },
    /// The kernel's account of a thread could not be read.
    #[error("cannot read {path} to check that no capability is left")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A thread still holds capabilities.
    #[error("thread {thread} still holds capabilities: {line}")]
    Left {
        /// Which thread.
        thread: String,
        /// The line of its status that says so.
        line: String,
    },
}

/// Binds with CAP_NET_BIND_SERVICE, as far as the process has it: ports below 1024 need it.
pub fn bind<T>(bind: impl FnOnce() -> T) -> T {
    // Without the permission this fails, and then binding says so.
    let _ = caps::raise(None, CapSet::Effective, Capability::CAP_NET_BIND_SERVICE);
    bind()
}

/// Opens the probe sockets with CAP_NET_RAW, then drops all capabilities of the process, for good, and checks that
/// they are gone. Call it before any thread is started. Capabilities are dropped even if opening fails, so that a
/// future mode without privileges can go on from here.
///
/// # Errors
///
/// Returns what could not be opened or dropped.
pub fn open_sockets(config: &ProberConfig) -> Result<Sockets, PrivilegeError> {
    // Without the permission this fails, and then opening says what to do about it.
    let _ = caps::raise(None, CapSet::Effective, Capability::CAP_NET_RAW);
    let sockets = Sockets::open(config);
    drop_all()?;
    Ok(sockets?)
}

/// Drops all capabilities of this thread from all sets and checks every thread of the process.
///
/// # Errors
///
/// Returns what could not be dropped, or which thread still holds something.
pub fn drop_all() -> Result<(), PrivilegeError> {
    // Emptying the bounding set needs CAP_SETPCAP. Without it nothing can be gained but by executing a file that carries
    // capabilities, and this process executes nothing.
    if caps::has_cap(None, CapSet::Permitted, Capability::CAP_SETPCAP).unwrap_or(false) {
        let _ = caps::raise(None, CapSet::Effective, Capability::CAP_SETPCAP);
        drop_set("bounding", CapSet::Bounding)?;
    }
    drop_set("ambient", CapSet::Ambient)?;
    drop_set("inheritable", CapSet::Inheritable)?;
    let nothing = CapsHashSet::new();
    let failed = |set| {
        move |error: caps::errors::CapsError| PrivilegeError::Drop {
            set,
            reason: error.to_string(),
        }
    };
    caps::set(None, CapSet::Effective, &nothing).map_err(failed("effective"))?;
    caps::set(None, CapSet::Permitted, &nothing).map_err(failed("permitted"))?;
    check_threads()
}

fn drop_set(name: &'static str, set: CapSet) -> Result<(), PrivilegeError> {
    caps::clear(None, set).map_err(|error| PrivilegeError::Drop {
        set: name,
        reason: error.to_string(),
    })
}

fn check_threads() -> Result<(), PrivilegeError> {
    let tasks = PathBuf::from("/proc/self/task");
    let unreadable = |path: &PathBuf| {
        let path = path.clone();
        move |source| PrivilegeError::Read { path, source }
    };
    for task in fs::read_dir(&tasks).map_err(unreadable(&tasks))? {
        let path = task.map_err(unreadable(&tasks))?.path().join("status");
        let status = match fs::read_to_string(&path) {
            Ok(status) => status,
            // A thread that has ended in the meantime holds nothing.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(unreadable(&path)(error)),
        };
        if let Some(line) = held(&status) {
            let thread = path
                .parent()
                .and_then(|task| task.file_name())
                .unwrap_or_default();
            return Err(PrivilegeError::Left {
                thread: thread.to_string_lossy().into_owned(),
                line: line.to_owned(),
            });
        }
    }
    Ok(())
}

/// The first line of a thread's status that shows a capability it can use or pass on.
fn held(status: &str) -> Option<&str> {
    let sets = ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"];
    status.lines().find(|line| {
        let of_a_set = sets.iter().find_map(|set| line.strip_prefix(set));
        of_a_set.is_some_and(|mask| mask.trim().bytes().any(|digit| digit != b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_with_any_usable_capability_is_seen() {
        let none = "Name:\tx\nCapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapBnd:\t000001ffffffffff\nCapAmb:\t0000000000000000\n";
        assert_eq!(held(none), None);
        let some = none.replace("CapEff:\t0000000000000000", "CapEff:\t0000000000002000");
        assert_eq!(held(&some), Some("CapEff:\t0000000000002000"));
    }
}
