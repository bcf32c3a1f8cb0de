//! The shadow's thread: it sleeps while no policy is set, and ends when the turn does.

use std::{sync::Arc, thread::JoinHandle, time::Duration};

use leeward_common::time::Timestamp;
use tokio::{runtime::Handle, sync::watch, time::timeout};
use tracing::{info, warn};

use super::{
    BEHIND_AFTER, Follower, GIVE_UP_AFTER, RECALL, Round, Setting, Standing, State, Window,
};
use crate::{
    config::PolicyText,
    metrics::Metrics,
    replay::settled,
    shared::{self, Published, Readiness},
    store::Read,
};

/// How often it reads on once it keeps up.
const EVERY: Duration = Duration::from_millis(250);

/// How long it works at a time; then it rests for as long, since the turn may need the processor.
const SLICE: Duration = Duration::from_millis(50);

/// How long it waits before it tries again what failed.
const RETRY: Duration = Duration::from_secs(1);

/// What the thread needs.
#[expect(missing_debug_implementations, reason = "a store has none")]
pub struct Thread {
    /// What it reads.
    pub store: Arc<dyn Read>,
    /// Up to when everything is in the store.
    pub view: Arc<Published>,
    /// Whether that holds.
    pub readiness: Arc<Readiness>,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

/// Why it stops following one policy.
enum Stop {
    /// Another setting is there.
    Changed,
    /// The turn has ended.
    Ended,
}

/// Why it begins again under the same policy.
enum Halt {
    Stopped(Stop),
    TooFarBehind,
}

impl Thread {
    /// Starts the thread. It ends when the sender of `setting` is dropped.
    ///
    /// # Errors
    ///
    /// Returns why the system gives no thread.
    pub fn start(
        self,
        runtime: Handle,
        setting: watch::Receiver<Arc<Setting>>,
    ) -> std::io::Result<(Window, JoinHandle<()>)> {
        let (standing, seen) = watch::channel(Arc::default());
        let window = Window {
            setting: setting.clone(),
            standing: seen,
        };
        let work = move || {
            Work {
                thread: self,
                runtime,
                setting,
                standing,
            }
            .run();
        };
        let thread = std::thread::Builder::new().name("shadow".to_owned());
        Ok((window, thread.spawn(work)?))
    }
}

struct Work {
    thread: Thread,
    runtime: Handle,
    setting: watch::Receiver<Arc<Setting>>,
    standing: watch::Sender<Arc<Standing>>,
}

impl Work {
    fn run(mut self) {
        loop {
            let setting = Arc::clone(&self.setting.borrow_and_update());
            let stop = match &setting.policy {
                Some(policy) => self.follow(&setting, policy),
                None => {
                    self.tell(Standing {
                        version: setting.version,
                        ..Standing::default()
                    });
                    self.rest(Duration::MAX)
                }
            };
            match stop {
                Err(Stop::Ended) => return,
                Err(Stop::Changed) | Ok(()) => {}
            }
        }
    }

    /// Follows the journal under one setting.
    fn follow(&mut self, setting: &Setting, policy: &Arc<PolicyText>) -> Result<(), Stop> {
        let mut standing = Standing {
            version: setting.version,
            state: State::Starting,
            ..Standing::default()
        };
        info!(
            policy = policy.policy.version(),
            "following a shadow policy"
        );
        loop {
            self.tell(standing.clone());
            let now = settled(&self.thread.view.load());
            let from = match standing.restarts {
                0 => setting.at.max(now - RECALL).min(now),
                _ => now,
            };
            match self.attend(policy, from, &mut standing) {
                Err(Halt::Stopped(stop)) => return Err(stop),
                Err(Halt::TooFarBehind) => {
                    standing.restarts += 1;
                    self.thread.metrics.shadow_restarts.inc();
                    warn!("the shadow policy is too far behind and begins again from now");
                    standing.state = State::Starting;
                }
                Ok(()) => {}
            }
            self.rest(RETRY)?;
        }
    }

    /// Follows from one beginning; returns if that cannot be read.
    fn attend(
        &mut self,
        policy: &Arc<PolicyText>,
        from: Timestamp,
        standing: &mut Standing,
    ) -> Result<(), Halt> {
        let store = Arc::clone(&self.thread.store);
        let begun = Follower::begin(&*store, Arc::clone(policy), from);
        let mut follower = match begun {
            Ok(Some(follower)) => follower,
            Ok(None) => {
                standing.detail = "no engine is written down to begin with yet".to_owned();
                return Ok(());
            }
            Err(error) => {
                (standing.state, standing.detail) = (State::Failed, error.to_string());
                return Ok(());
            }
        };
        loop {
            // In this order: what was published by a turn that could not write is not taken for journaled.
            let view = self.thread.view.load_full();
            let is_sound = self.thread.readiness.state() != shared::State::StoreFailed;
            let pause = match follower.round(is_sound.then_some(view.now), SLICE) {
                Ok(round) => {
                    let behind = view.now.since(follower.now());
                    self.thread.metrics.shadow_behind(behind);
                    if is_sound && is_too_far(standing.state, behind) {
                        return Err(Halt::TooFarBehind);
                    }
                    standing.state = state(standing.state, round, behind);
                    standing.detail = detail(&follower);
                    match round {
                        Round::Done => EVERY,
                        Round::More => SLICE,
                    }
                }
                Err(error) => {
                    (standing.state, standing.detail) = (State::Failed, error.to_string());
                    RETRY
                }
            };
            standing.since = Some(follower.since());
            standing.until = Some(follower.now());
            standing.scoreboard = Arc::new(follower.scoreboard());
            self.tell(standing.clone());
            self.rest(pause).map_err(Halt::Stopped)?;
        }
    }

    fn tell(&self, standing: Standing) {
        self.standing.send_replace(Arc::new(standing));
    }

    /// Rests, unless there is another setting.
    fn rest(&mut self, pause: Duration) -> Result<(), Stop> {
        let changed = self.setting.changed();
        match self
            .runtime
            .block_on(async { timeout(pause, changed).await })
        {
            Err(_) => Ok(()),
            Ok(Ok(())) => Err(Stop::Changed),
            Ok(Err(_)) => Err(Stop::Ended),
        }
    }
}

/// Whether it is better to begin again: the journal may have been cut in front of what is not read yet. Who starts has
/// further to go.
fn is_too_far(state: State, behind: Duration) -> bool {
    behind
        > match state {
            State::Starting => GIVE_UP_AFTER + RECALL,
            _ => GIVE_UP_AFTER,
        }
}

fn state(before: State, round: Round, behind: Duration) -> State {
    match (before, round) {
        (_, Round::Done) if behind <= BEHIND_AFTER => State::Following,
        (State::Starting, _) => State::Starting,
        (_, _) if behind > BEHIND_AFTER => State::Behind,
        (before, _) => before,
    }
}

fn detail(follower: &Follower<'_>) -> String {
    match follower.skipped() {
        0 => String::new(),
        skipped => format!("{skipped} records of the journal cannot be read"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_that_it_is_behind_once_it_had_kept_up() {
        let (none, late) = (Duration::ZERO, BEHIND_AFTER * 2);
        for (before, round, behind, after) in [
            (State::Starting, Round::More, late, State::Starting),
            (State::Starting, Round::Done, none, State::Following),
            (State::Following, Round::More, none, State::Following),
            (State::Following, Round::More, late, State::Behind),
            (State::Behind, Round::More, none, State::Behind),
            (State::Behind, Round::Done, none, State::Following),
            (State::Failed, Round::Done, none, State::Following),
        ] {
            assert_eq!(state(before, round, behind), after, "{before:?} {round:?}");
        }
    }

    #[test]
    fn it_begins_again_before_the_journal_is_cut_under_it() {
        assert!(!is_too_far(State::Behind, GIVE_UP_AFTER));
        assert!(is_too_far(State::Behind, GIVE_UP_AFTER + EVERY));
        assert!(!is_too_far(State::Starting, GIVE_UP_AFTER + RECALL));
    }
}
