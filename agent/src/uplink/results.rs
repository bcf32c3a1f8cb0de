//! The checks that aggregators ask for, and what came of them.
//!
//! Of each check the newest result is kept. An aggregator that asked for it gets it soon after it came, and all that are
//! kept when it sends a mesh, which is after every reconnect; so nothing needs to be acknowledged. One that asked for
//! nothing, such as one of an older build, gets nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use leeward_common::wire::{frame, v1};
use tokio::time::Instant;
use tracing::info;

use crate::{
    checks::{Allowed, Checker, Done, Key, Plan, key},
    mesh::Union,
};

/// How long results are gathered for one message.
const GATHER: Duration = Duration::from_millis(250);

/// What is asked, and what came of it.
#[derive(Debug)]
pub(super) struct Results {
    checker: Checker,
    allowed: Allowed,
    newest: BTreeMap<Key, Done>,
    /// Those that were not sent yet.
    unsent: BTreeSet<Key>,
    send_at: Option<Instant>,
}

impl Results {
    pub(super) fn new(checker: Checker, allowed: Allowed) -> Self {
        Self {
            checker,
            allowed,
            newest: BTreeMap::new(),
            unsent: BTreeSet::new(),
            send_at: None,
        }
    }

    /// The next result; never, once the thread that asks is gone.
    pub(super) async fn next(&mut self) -> Done {
        match self.checker.done.recv().await {
            Some(done) => done,
            None => std::future::pending().await,
        }
    }

    /// When results are to be sent, if there are any.
    pub(super) const fn send_at(&self) -> Option<Instant> {
        self.send_at
    }

    /// Other addresses may be asked from now on.
    pub(super) fn allow(&mut self, allowed: Allowed) {
        self.allowed = allowed;
    }

    /// Asks what the meshes want together; where two differ, the aggregator that the configuration names first wins.
    /// Returns how many checks that are.
    pub(super) fn plan(&mut self, union: &Union, aggregators: usize) -> usize {
        let mut checks: BTreeMap<Key, Arc<v1::Check>> = BTreeMap::new();
        let meshes = (0..aggregators).filter_map(|index| union.mesh_of(index));
        for check in meshes.flat_map(|mesh| &mesh.checks) {
            let own = || Arc::new(check.clone());
            checks.entry(key(check)).or_insert_with(own);
        }
        let current = |key: &Key, done: &Done| checks.get(key) == Some(&done.check);
        self.newest.retain(|key, done| current(key, done));
        self.unsent.retain(|key| self.newest.contains_key(key));
        let (count, allowed) = (checks.len(), self.allowed.clone());
        self.checker.plans.send_if_modified(|plan| {
            if plan.checks == checks && plan.allowed == allowed {
                return false;
            }
            if plan.checks != checks {
                info!(checks = count, "checks set");
            }
            *plan = Plan { checks, allowed };
            true
        });
        count
    }

    /// Keeps a result until it is sent, and until there is a newer one.
    pub(super) fn on_done(&mut self, done: Done) {
        let key = key(&done.check);
        self.unsent.insert(key.clone());
        self.newest.insert(key, done);
        self.send_at.get_or_insert_with(|| Instant::now() + GATHER);
    }

    /// Takes those that were not sent yet, for [`Self::message`].
    pub(super) fn take_unsent(&mut self) -> BTreeSet<Key> {
        self.send_at = None;
        std::mem::take(&mut self.unsent)
    }

    /// The results that a mesh asked for, of these or of all; `None` if there are none.
    pub(super) fn message(&self, mesh: &v1::Mesh, of: Option<&BTreeSet<Key>>) -> Option<Vec<u8>> {
        let now = Instant::now();
        let result = |check: &v1::Check| {
            let key = key(check);
            let done = self.newest.get(&key)?;
            let is_wanted = *done.check == *check && of.is_none_or(|of| of.contains(&key));
            is_wanted.then(|| result(now, done))
        };
        let results: Vec<_> = mesh.checks.iter().filter_map(result).collect();
        let message = v1::FromAgent::CheckResults(v1::CheckResults { results });
        let is_empty =
            matches!(&message, v1::FromAgent::CheckResults(own) if own.results.is_empty());
        (!is_empty).then(|| frame::frame_from_agent(&message))
    }
}

fn result(now: Instant, done: &Done) -> v1::CheckResult {
    let us = |span: Duration| u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
    let check = &done.check;
    v1::CheckResult {
        service: check.service.clone(),
        check: check.check.clone(),
        region: check.region.clone(),
        question: check.question,
        outcome: done.outcome,
        latency_us: us(done.took),
        age_us: us(now.saturating_duration_since(done.at)),
        detail: done.detail.clone(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use leeward_common::{check::Outcome, wire::v1};
    use tokio::net::TcpListener;

    use super::super::fake::{Authority, FakeAggregator, Peer, Rig, mesh, soon, target};

    fn asking(version: u64, address: &str) -> v1::FromAggregator {
        let check = v1::Check {
            service: "shop".parse().unwrap(),
            check: "api".parse().unwrap(),
            region: "dub".parse().unwrap(),
            question: 7,
            url: format!("tcp://{address}"),
            status: [200, 299],
            body: None,
            timeout_us: 10_000_000,
            interval_us: 1_000_000,
        };
        v1::FromAggregator::Mesh(v1::Mesh {
            checks: vec![check],
            ..mesh(version, vec![target("a", "10.0.0.1")])
        })
    }

    /// The next results, whatever else is said before.
    async fn results(peer: &mut Peer) -> Vec<v1::CheckResult> {
        soon("results of checks", async {
            loop {
                if let v1::FromAgent::CheckResults(message) = peer.message().await {
                    return message.results;
                }
            }
        })
        .await
    }

    #[tokio::test]
    async fn what_came_of_a_check_goes_to_who_asked_and_again_after_a_reconnect() {
        let service = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = service.local_addr().unwrap().to_string();
        let authority = Authority::new();
        let (asker, other) = (
            FakeAggregator::new(&authority),
            FakeAggregator::new(&authority),
        );
        let rig = Rig::new(&authority, &[asker.address, other.address]);
        let (mut peer, mut silent) = (asker.welcome(0).await, other.welcome(0).await);
        let plain = v1::FromAggregator::Mesh(mesh(1, vec![target("a", "10.0.0.1")]));
        silent.say(&plain).await;
        peer.say(&asking(1, &address)).await;
        let got = results(&mut peer).await;
        assert_eq!((got[0].outcome, got[0].question), (Outcome::Ok, 7));
        assert_eq!(
            (got[0].service.as_str(), got[0].region.as_str()),
            ("shop", "dub")
        );
        assert_eq!(rig.figures.checks(), 1);
        peer.close();
        let mut peer = asker.welcome(0).await;
        peer.say(&asking(2, &address)).await;
        assert_eq!(results(&mut peer).await[0].outcome, Outcome::Ok);
        // Whoever asked for nothing hears nothing: an older build would not understand it.
        for _ in 0..3 {
            let message = soon("a message", silent.message()).await;
            assert!(
                !matches!(message, v1::FromAgent::CheckResults(_)),
                "{message:?}"
            );
        }
    }

    #[tokio::test]
    async fn what_the_operator_does_not_allow_is_said_and_not_asked() {
        let authority = Authority::new();
        let at = FakeAggregator::new(&authority);
        let _rig = Rig::new(&authority, &[at.address]);
        let mut peer = at.welcome(0).await;
        peer.say(&asking(1, "192.0.2.1:80")).await;
        let got = results(&mut peer).await;
        assert_eq!(got[0].outcome, Outcome::NotAllowed);
        assert_eq!(
            got[0].detail,
            "192.0.2.1 is outside this agent's checks.allow"
        );
    }
}
