//! When the store refuses writes: serve on from memory, and come back in step with it when it takes them again.
//!
//! A write that failed may still be on disk, whole. So what the journal says is then not what the engine was told, and
//! the two cannot simply go on together: the engine is recovered from the journal as after a restart, only without the
//! restart. Sessions go on; agents send again what was not acknowledged, and the watermarks tell what counts.

use leeward_common::time::Timestamp;
use tracing::{error, info};

use super::{REVIVE_EVERY, SESSION_BEFORE_RESTART, Session, Turn, audit::Chain};
use crate::{
    recover::{Recovered, recover},
    shared::State,
    store::{StoreError, Writes},
};

impl Turn {
    /// Notes that the store failed. Nothing is acknowledged until it is revived.
    pub(super) fn store_failed(&mut self, now: Timestamp, error: &StoreError) {
        self.outlets.metrics.store.failures.inc();
        if self.failed.is_none() {
            self.failed = Some(now);
            let error = error as &dyn std::error::Error;
            error!(
                error,
                "the store refuses writes; nothing is acknowledged, answers come from memory"
            );
        }
        self.outlets.readiness.set(State::StoreFailed);
    }

    /// Nothing to do while the store works. After a failure it is tried again now and then.
    pub(super) fn revive_store(&mut self, now: Timestamp) -> Result<(), StoreError> {
        let Some(tried) = self.failed else {
            return Ok(());
        };
        if now.since(tried) < REVIVE_EVERY {
            return Err(StoreError::Failed);
        }
        self.failed = Some(now);
        self.store.revive()?;
        let mut writes = Writes::default();
        writes.probe(now);
        self.commit(&writes)?;
        let recovered = recover(&*self.store, &self.policy)?;
        self.go_on_from(now, recovered);
        self.failed = None;
        self.outlets.readiness.set(State::Ready);
        info!("the store takes writes again");
        Ok(())
    }

    fn go_on_from(&mut self, now: Timestamp, recovered: Recovered) {
        let Recovered {
            engine,
            policy,
            end,
            epochs,
            registrations,
            undurable,
            ended,
            ..
        } = recovered;
        let view = engine.view();
        for (registration, _) in registrations {
            let agent = &registration.agent;
            let is_connected = view
                .agents
                .get(agent)
                .is_some_and(|agent| agent.connected_since.is_some());
            if is_connected && !self.sessions.contains_key(agent) {
                // Journaled by the write that failed, so its session was refused: it has the grace of a restart.
                let id = SESSION_BEFORE_RESTART;
                self.sessions
                    .insert(agent.clone(), Session { id, registration });
                self.started = now;
            }
        }
        self.engine = engine;
        self.policy = policy;
        self.end = end;
        self.epochs = epochs;
        (self.undurable, self.ended) = (undurable, ended);
        self.audit = Chain::of(&*self.store);
        self.read_shadow();
    }
}
