//! The shadow policy: another policy that only records what it would do.
//!
//! ```text
//!   operator ─▶ turn: setting and audit log in one synced write ─▶ watch ─┐
//!   file at start, reload ─┘                                              ▼
//!   journal ─────────────────────────── read, a slice at a time ─▶ the shadow's thread ─▶ standing, for the API
//! ```
//!
//! A thread of its own reads what the turn has journaled, as a replay does ([`Beside`](crate::replay::Beside)): through a
//! copy of the engine in force, and through one under the shadow policy. It has nothing that it could write with, the
//! setting is no input of the engine, and the turn never waits for it: so what is decided cannot depend on it. A thread that
//! cannot keep up says that it is behind, and begins again from now when it is [`GIVE_UP_AFTER`] behind.
//!
//! What it counted is not written down. After a restart it counts from the newest point that can be reached exactly, at most
//! [`RECALL`] before.

use std::{sync::Arc, time::Duration};

use leeward_common::{id::RegionId, time::Timestamp};
use leeward_engine::{policy::Policy, scoreboard::Scoreboard};
use tokio::sync::watch;

mod file;
mod follow;
mod setting;
mod thread;

pub use file::ShadowFile;
pub use follow::{Follower, Round};
pub use setting::{AskedShadow, Setting};
pub use thread::Thread;

/// How far back a restart counts again, at most.
pub const RECALL: Duration = Duration::from_secs(3600);

/// The journal reaches back at least this far; who is further behind may miss some of it.
pub const GIVE_UP_AFTER: Duration = Duration::from_secs(2 * 3600);

/// Further behind than this is told.
pub const BEHIND_AFTER: Duration = Duration::from_secs(5);

/// How the shadow stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Standing {
    /// Of which change of the setting it tells.
    pub version: u64,
    /// What it does.
    pub state: State,
    /// What keeps it from its work, in words; empty if nothing does.
    pub detail: String,
    /// Since when it counts.
    pub since: Option<Timestamp>,
    /// How far it has come.
    pub until: Option<Timestamp>,
    /// How often it had to begin again since it was set, or since the aggregator was started.
    pub restarts: u64,
    /// Both policies by the same yard.
    pub scoreboard: Arc<Scoreboard>,
}

/// What the shadow does.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum State {
    /// Nothing: no policy is set.
    #[default]
    Off,
    /// It reads what was before.
    Starting,
    /// It keeps up.
    Following,
    /// It does not, and tries to.
    Behind,
    /// It cannot read the journal, and tries again.
    Failed,
}

/// What readers see of the shadow.
#[derive(Clone, Debug)]
pub struct Window {
    /// What is set.
    pub setting: watch::Receiver<Arc<Setting>>,
    /// How it stands.
    pub standing: watch::Receiver<Arc<Standing>>,
}

impl Window {
    /// What is set, and how that stands.
    #[must_use]
    pub fn look(&self) -> (Arc<Setting>, Standing) {
        let setting = Arc::clone(&self.setting.borrow());
        let mut standing = Standing::clone(&self.standing.borrow());
        if standing.version != setting.version {
            // The thread has not noticed the change yet.
            standing = Standing {
                version: setting.version,
                state: State::Starting,
                ..Standing::default()
            };
        }
        if self.standing.has_changed().is_err() {
            standing.state = State::Failed;
            standing.detail = "its thread has ended; see the log".to_owned();
        }
        (setting, standing)
    }
}

/// Whether a policy can stand beside the one in force.
///
/// # Errors
///
/// Returns why not, in words.
pub fn check(policy: &Policy, current: &Policy) -> Result<(), String> {
    let mut regions = current.regions.keys();
    if regions.any(|region| policy.regions.contains_key(region)) {
        return Ok(());
    }
    let theirs: Vec<&str> = policy.regions.keys().map(RegionId::as_str).collect();
    Err(match theirs.is_empty() {
        true => "the policy has no region, so there is nothing to compare".to_owned(),
        false => format!(
            "the policy has none of the regions in force, only {}, so there is nothing to compare",
            theirs.join(", ")
        ),
    })
}

#[cfg(test)]
mod tests;
