//! How much one agent may ask of the aggregator, and who may ask nothing at all.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use leeward_common::id::AgentId;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

/// Connections of one agent at once, those included that have not said hello: one, its successor, and what a network that
/// comes and goes leaves behind.
pub(super) const CONNECTIONS_OF_AGENT: u32 = 4;

/// A message counts once more for every full stretch of this many bytes: a second of about a thousand paths.
const MESSAGE_BYTES: usize = 16 << 10;

/// And for every full stretch of this many in memory: some 3,000 paths, or a few bytes that were packed to become many.
const DECODED_BYTES: usize = 1 << 20;

/// What an operator decides.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Messages of one agent per second, on the average over two seconds; large ones count several times.
    pub max_messages_per_second: u32,
    /// Agents that are not let in; their living connections end.
    pub denied: BTreeSet<AgentId>,
}

/// The limits in force, and how many connections each agent has.
#[derive(Clone, Debug)]
pub struct Gate {
    limits: watch::Sender<Arc<Limits>>,
    accounts: Accounts,
}

type Accounts = Arc<Mutex<BTreeMap<AgentId, Account>>>;

/// What is known of an agent.
#[derive(Debug)]
struct Account {
    connections: u32,
    /// When its bucket would be full again: one for all of its connections, and for the next ones.
    full_at: Arc<Mutex<Instant>>,
}

/// One connection of an agent, for as long as it lives.
#[derive(Debug)]
pub(super) struct Place {
    agent: AgentId,
    accounts: Accounts,
    full_at: Arc<Mutex<Instant>>,
    limits: watch::Receiver<Arc<Limits>>,
}

impl Gate {
    /// With these limits.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits: watch::Sender::new(Arc::new(limits)),
            accounts: Arc::default(),
        }
    }

    /// Brings other limits into force, also for those who are connected.
    pub fn set(&self, limits: Limits) {
        self.limits.send_replace(Arc::new(limits));
    }

    pub(super) fn limits(&self) -> watch::Receiver<Arc<Limits>> {
        self.limits.subscribe()
    }

    /// A place for one more connection of this agent; `None` if it has enough.
    pub(super) fn admit(&self, agent: &AgentId) -> Option<Place> {
        let mut accounts = lock(&self.accounts);
        let account = accounts.entry(agent.clone()).or_insert_with(|| Account {
            connections: 0,
            full_at: Arc::new(Mutex::new(Instant::now())),
        });
        if account.connections >= CONNECTIONS_OF_AGENT {
            return None;
        }
        account.connections += 1;
        Some(Place {
            agent: agent.clone(),
            accounts: Arc::clone(&self.accounts),
            full_at: Arc::clone(&account.full_at),
            limits: self.limits(),
        })
    }
}

impl Place {
    /// The bucket of the agent.
    pub(super) fn pace(&self) -> Pace {
        Pace {
            limits: self.limits.clone(),
            full_at: Arc::clone(&self.full_at),
        }
    }
}

/// Whoever panicked with the lock held had changed nothing by halves.
fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut accounts = lock(&self.accounts);
        let Some(account) = accounts.get_mut(&self.agent) else {
            return;
        };
        account.connections -= 1;
        // Who has taken more than it may is remembered, or it would come back for more at once.
        if account.connections == 0 && *lock(&account.full_at) <= Instant::now() {
            accounts.remove(&self.agent);
        }
    }
}

/// Until this agent is on the deny-list.
pub(super) async fn denied(mut limits: watch::Receiver<Arc<Limits>>, agent: &AgentId) {
    let is_denied = |limits: &Arc<Limits>| limits.denied.contains(agent);
    if limits.wait_for(is_denied).await.is_err() {
        // Nobody can deny anybody any more: the process ends.
        std::future::pending::<()>().await;
    }
}

/// When the next message of an agent may be read: a bucket of two seconds, by the limits in force.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    limits: watch::Receiver<Arc<Limits>>,
    full_at: Arc<Mutex<Instant>>,
}

impl Pace {
    const BURST: Duration = Duration::from_secs(2);

    /// Counts this much.
    pub(super) fn take(&self, now: Instant, messages: u32) {
        let per_second = self.limits.borrow().max_messages_per_second.max(1);
        let mut full_at = lock(&self.full_at);
        *full_at = now.max(*full_at) + Duration::from_secs(1) * messages / per_second;
    }

    /// How long the next message has to wait.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        let ahead = lock(&self.full_at).saturating_duration_since(now);
        ahead.saturating_sub(Self::BURST)
    }

    /// Until the next message may be read.
    pub(super) async fn ready(&self) {
        let wait = self.wait(Instant::now());
        if !wait.is_zero() {
            sleep(wait).await;
        }
    }
}

/// How many messages a large one counts for, beside itself.
pub(super) const fn further_messages(bytes: usize, decoded_bytes: usize) -> u32 {
    // A frame has at most a megabyte and becomes at most a dozen, so this is a small number.
    (bytes / MESSAGE_BYTES + decoded_bytes / DECODED_BYTES) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(max_messages_per_second: u32) -> Limits {
        Limits {
            max_messages_per_second,
            denied: BTreeSet::new(),
        }
    }

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let gate = Gate::new(limits(10));
        let place = gate.admit(&AgentId::parse("iad-1").unwrap()).unwrap();
        let (now, pace) = (Instant::now(), place.pace());
        for _ in 0..20 {
            assert_eq!(pace.wait(now), Duration::ZERO);
            pace.take(now, 1);
        }
        pace.take(now, 4);
        assert_eq!(pace.wait(now), Duration::from_millis(400));
        let later = now + Duration::from_millis(400);
        assert_eq!(pace.wait(later), Duration::ZERO);
        // Other limits hold at once.
        gate.set(limits(1_000));
        pace.take(later, 100);
        assert_eq!(pace.wait(later), Duration::from_millis(100));
        assert_eq!(pace.wait(now + Duration::from_secs(60)), Duration::ZERO);
    }

    #[test]
    fn a_large_message_counts_for_several() {
        let counts = [0, 16_383, 16_384, 1 << 20].map(|bytes| further_messages(bytes, 0));
        assert_eq!(counts, [0, 0, 1, 64]);
        assert_eq!(further_messages(100, 11 << 20), 11);
    }

    /// All connections of an agent have one bucket, and a new one does not begin with a full burst.
    #[test]
    fn coming_again_gives_no_more() {
        let gate = Gate::new(limits(10));
        let agent = AgentId::parse("iad-1").unwrap();
        let (first, second) = (gate.admit(&agent).unwrap(), gate.admit(&agent).unwrap());
        let now = Instant::now();
        first.pace().take(now, 100);
        assert!(!second.pace().wait(now).is_zero());
        drop((first, second));
        let again = gate.admit(&agent).unwrap();
        assert!(!again.pace().wait(now).is_zero());
        let other = gate.admit(&AgentId::parse("iad-2").unwrap()).unwrap();
        assert!(other.pace().wait(now).is_zero());
    }

    #[test]
    fn an_agent_has_few_places_and_gets_them_back() {
        let gate = Gate::new(limits(1));
        let agent = AgentId::parse("iad-1").unwrap();
        let mut places: Vec<_> = (0..4).map(|_| gate.admit(&agent).unwrap()).collect();
        assert!(gate.admit(&agent).is_none());
        places.pop();
        assert!(gate.admit(&agent).is_some());
    }
}
