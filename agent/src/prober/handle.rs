//! Starting the probe thread and talking to it.

use std::{
    io,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError, mpsc as std_mpsc},
    thread::JoinHandle,
};

use leeward_common::report::ProbeKind;
use tokio::sync::mpsc;

use super::{
    ClosedWindow, Counters, Missing, Mode, Plan, PlanError, ProberConfig, Sockets,
    thread::ProbeThread,
};
use crate::net::wake::Waker;

/// The prober could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// More source ports than are sensible, or none.
    #[error("{have} source ports for SYN probes; 1 to {max} are possible")]
    SourcePorts {
        /// How many there are.
        have: usize,
        /// How many there may be.
        max: usize,
    },
    /// The kernel refused the thread or what wakes it.
    #[error("cannot start the probe thread")]
    Thread(#[from] io::Error),
}

/// What the probe thread and its handle share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) counters: Mutex<Counters>,
    pub(super) waker: Waker,
}

/// What a handle tells the probe thread.
#[derive(Debug)]
pub(super) enum Command {
    Plan(Plan),
    Stop,
}

/// The prober; see [`Prober::start`].
#[derive(Clone, Copy, Debug)]
pub struct Prober;

impl Prober {
    /// Starts the probe thread. It sends nothing until it has a plan. Windows leave by `out`; while that is full,
    /// windows are dropped and counted.
    ///
    /// # Errors
    ///
    /// Returns what the configuration or the kernel does not allow.
    pub fn start(
        sockets: Sockets,
        config: ProberConfig,
        out: mpsc::Sender<ClosedWindow>,
    ) -> Result<ProberHandle, StartError> {
        let (have, max) = (
            config.syn_source_ports.len(),
            ProberConfig::MAX_SYN_SOURCE_PORTS,
        );
        if have == 0 || have > max {
            return Err(StartError::SourcePorts { have, max });
        }
        let shared = Arc::new(Shared {
            counters: Mutex::default(),
            waker: Waker::new()?,
        });
        let (commands, inbox) = std_mpsc::channel();
        let modes = Modes::of(&sockets);
        let missing = sockets.missing().to_vec();
        let mut probe_thread = ProbeThread::new(sockets, config, Arc::clone(&shared), inbox, out);
        let thread = std::thread::Builder::new()
            .name("probe".to_owned())
            .spawn(move || probe_thread.run())?;
        Ok(ProberHandle {
            shared,
            commands,
            thread: Some(thread),
            modes,
            missing,
        })
    }
}

/// Address family.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    #[must_use]
    pub const fn of(address: &IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// The name used in messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

/// How probes of each kind and family leave; nothing, of a prober that has ended.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Modes([[Option<Mode>; 2]; ProbeKind::ALL.len()]);

impl Modes {
    /// Those of sockets.
    #[must_use]
    pub fn of(sockets: &Sockets) -> Self {
        Self(ProbeKind::ALL.map(|kind| Family::ALL.map(|family| sockets.mode(kind, family))))
    }

    /// How such probes leave; `None` where they cannot.
    #[must_use]
    pub const fn mode(&self, kind: ProbeKind, family: Family) -> Option<Mode> {
        self.0[kind as usize][family as usize]
    }
}

/// `icmp raw, tcp_syn raw, stamp udp`; where the families differ, both: `icmp raw/none`.
impl std::fmt::Display for Modes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let word = |mode: Option<Mode>| mode.map_or("none", Mode::as_str);
        for (n, kind) in ProbeKind::ALL.into_iter().enumerate() {
            let [v4, v6] = Family::ALL.map(|family| word(self.mode(kind, family)));
            write!(f, "{}{kind} {v4}", if n == 0 { "" } else { ", " })?;
            if v6 != v4 {
                write!(f, "/{v6}")?;
            }
        }
        Ok(())
    }
}

/// A running prober. Dropping it stops the thread.
#[derive(Debug)]
pub struct ProberHandle {
    shared: Arc<Shared>,
    commands: std_mpsc::Sender<Command>,
    thread: Option<JoinHandle<()>>,
    modes: Modes,
    missing: Vec<Missing>,
}

impl ProberHandle {
    /// Replaces the plan: at once when there was none, else when the present window ends, so that the rows of a
    /// window all refer to one plan. Paths in both keep their phase, their probes under way and their deadline.
    ///
    /// # Errors
    ///
    /// Returns what is wrong with the plan; the old one stays.
    pub fn set_plan(&self, plan: Plan) -> Result<(), PlanError> {
        plan.check()?;
        self.commands
            .send(Command::Plan(plan))
            .map_err(|_| PlanError::Stopped)?;
        self.shared.waker.wake();
        Ok(())
    }

    /// Whether there is a socket for such probes. Paths without one end every probe as not sent.
    #[must_use]
    pub fn supports(&self, kind: ProbeKind, address: &IpAddr) -> bool {
        self.modes.mode(kind, Family::of(address)).is_some()
    }

    /// How probes leave.
    #[must_use]
    pub const fn modes(&self) -> Modes {
        self.modes
    }

    /// Sockets that could not be opened, and why.
    #[must_use]
    pub fn missing(&self) -> &[Missing] {
        &self.missing
    }

    /// Counts as of at most a tenth of a second ago.
    #[must_use]
    pub fn counters(&self) -> Counters {
        *self
            .shared
            .counters
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the probe thread still runs; when it does not, the process should end.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.thread
            .as_ref()
            .is_some_and(|thread| !thread.is_finished())
    }

    /// Stops the thread, waits for it and returns the final counts.
    pub fn stop(mut self) -> Counters {
        self.join();
        self.counters()
    }

    fn join(&mut self) {
        let Some(thread) = self.thread.take() else {
            return;
        };
        // A thread that is gone no longer listens, and that is what is wanted.
        let _ = self.commands.send(Command::Stop);
        self.shared.waker.wake();
        if thread.join().is_err() {
            tracing::error!("the probe thread panicked");
        }
    }
}

impl Drop for ProberHandle {
    fn drop(&mut self) {
        self.join();
    }
}
