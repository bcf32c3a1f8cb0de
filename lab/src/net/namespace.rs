//! A network namespace without a name: it lives as long as its descriptor or a process inside.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, RawFd},
    sync::Arc,
    thread,
};

use super::checked;

/// A network namespace.
#[derive(Clone, Debug)]
pub struct Namespace(Arc<File>);

impl Namespace {
    /// Makes a namespace and runs `prepare` inside it, on a thread of its own that then ends.
    ///
    /// # Errors
    ///
    /// Returns the kernel's refusal (not root, no namespaces) or the error of `prepare`.
    pub fn create<T: Send>(
        prepare: impl FnOnce() -> io::Result<T> + Send,
    ) -> io::Result<(Self, T)> {
        on_own_thread(|| {
            // SAFETY: unshare takes no pointers; it changes only the calling thread, which ends soon.
            checked(unsafe { libc::unshare(libc::CLONE_NEWNET) })?;
            let namespace = Self(Arc::new(File::open("/proc/thread-self/ns/net")?));
            Ok((namespace, prepare()?))
        })
    }

    /// Moves the calling thread into the namespace. Threads and children it starts from now on begin there.
    ///
    /// # Errors
    ///
    /// Returns the kernel's refusal.
    pub fn enter(&self) -> io::Result<()> {
        // SAFETY: the descriptor is open for as long as `self` lives; setns takes no pointers.
        checked(unsafe { libc::setns(self.raw(), libc::CLONE_NEWNET) }).map(drop)
    }

    /// Runs `work` inside the namespace, on a thread of its own.
    ///
    /// # Errors
    ///
    /// Returns the kernel's refusal or the error of `work`.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        on_own_thread(|| {
            self.enter()?;
            work()
        })
    }

    pub(super) fn raw(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

fn on_own_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let worker = thread::Builder::new()
            .name("namespace".into())
            .spawn_scoped(scope, work)?;
        worker
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("a namespace thread panicked")))
    })
}
