//! What a turn does now and then, besides turning: anchors, retention, snapshots.

use std::{ops::ControlFlow, time::Duration};

use leeward_common::time::Timestamp;
use leeward_engine::{STATE_VERSION, inherit::Inheritance};
use tracing::{debug, warn};

use super::Turn;
use crate::{
    config::Retention,
    recover,
    store::{
        self, Writes,
        key::{Column, Epoch, Position, path::Grain},
        record::v1,
    },
};

/// How often the engine is written down whole, so that a restart replays a minute and not two days.
const SNAPSHOT_EVERY: Duration = Duration::from_secs(60);

/// How often an anchor is journaled and retention looks around.
const ANCHOR_EVERY: Duration = Duration::from_secs(3600);

/// How long decisions are kept.
const DECISION_RETENTION: Duration = Duration::from_secs(400 * 86_400);

/// How long it is remembered at least which batches of an epoch arrived, however short the journal: an agent may send again what is
/// up to a day old, and what was counted must be known then (docs/wire.md).
const EPOCHS_LEAST: Duration = Duration::from_secs(48 * 3600);

impl Turn {
    pub(super) fn anchor_is_due(&self, now: Timestamp) -> bool {
        self.anchored
            .is_none_or(|anchored| now.floor(ANCHOR_EVERY) > anchored)
    }

    /// An anchor is durable: what lies before the oldest one that is needed may go.
    pub(super) fn on_anchored(&mut self, now: Timestamp, position: Position) {
        self.anchored = Some(now.floor(ANCHOR_EVERY));
        self.snapshot.position = Some(position);
        self.retire(now);
    }

    pub(super) fn anchor(&self, now: Timestamp) -> v1::Anchor {
        let seen_us = now.as_unix_us();
        let connected = self.sessions.values();
        let connected = connected.map(|session| v1::Registration {
            seen_us,
            ..(&session.registration).into()
        });
        let policy = v1::Policy {
            toml: self.policy.toml.clone(),
        };
        let past = Inheritance::of(&self.engine.view());
        v1::Anchor::new(policy, connected.collect(), past)
    }

    /// Notes who is still here and forgets who has been gone for longer than the journal reaches back.
    pub(super) fn sweep(&mut self, now: Timestamp, writes: &mut Writes) {
        for session in self.sessions.values() {
            let record = v1::Registration::from(&session.registration);
            writes.registration(&v1::Registration {
                seen_us: now.as_unix_us(),
                ..record
            });
        }
        let horizon = self.horizon(now);
        match recover::registrations(&*self.store) {
            Ok(registrations) => {
                for (registration, seen) in registrations {
                    if seen < horizon && !self.sessions.contains_key(&registration.agent) {
                        writes.forget_registration(&registration.agent);
                    }
                }
            }
            Err(error) => warn!(
                error = &error as &dyn std::error::Error,
                "cannot read registrations"
            ),
        }
        let horizon = now - self.retention.journal.max(EPOCHS_LEAST);
        let sessions = &self.sessions;
        let live = |epoch: &Epoch| {
            sessions
                .get(&epoch.agent)
                .is_some_and(|session| session.registration.boot_epoch == epoch.boot)
        };
        let store = &*self.store;
        self.epochs.retain(|epoch, seen| {
            let keep = seen.at >= horizon || live(epoch);
            if !keep {
                let tables = recover::tables(store, epoch).unwrap_or_default();
                writes.forget_epoch(epoch, tables.iter());
            }
            keep
        });
    }

    /// Drops what is older than its retention.
    fn retire(&mut self, now: Timestamp) {
        let horizon = self.horizon(now);
        // What is not in the rollups yet stays.
        let folded = match store::mark(&*self.store) {
            Ok(Some(mark)) => Position::from(mark.folded).time,
            Ok(None) => horizon,
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                warn!(error, "cannot read how far the rollups are");
                horizon
            }
        };
        let cut = horizon.min(folded.floor(ANCHOR_EVERY));
        let key = |until: Timestamp| Position::at(until).key().to_vec();
        let Retention { minutes, hours, .. } = self.retention;
        let cuts = [
            (Column::Journal, key(cut)),
            (Column::Snapshots, key(cut)),
            (Column::Late, key(cut)),
            (Column::Decisions, key(now - DECISION_RETENTION)),
            (
                Column::Minutes,
                Grain::Minute.span_key(now - minutes).to_vec(),
            ),
            (Column::Hours, Grain::Hour.span_key(now - hours).to_vec()),
        ];
        for (column, until) in cuts {
            if let Err(error) = self.store.drop_before(column, &until) {
                warn!(
                    column = column.name(),
                    error = &error as &dyn std::error::Error,
                    "cannot drop old data"
                );
            }
        }
    }

    /// What is older is forgotten.
    fn horizon(&self, now: Timestamp) -> Timestamp {
        (now - self.retention.journal).floor(ANCHOR_EVERY)
    }

    /// Keeps the engine with an anchor at `position`, for as long as the journal: so any stretch of the journal can be
    /// replayed from an exact beginning that is at most an hour before it. Of those that restarts add within one hour only
    /// the last stays.
    pub(super) fn keep_snapshot(&self, position: Position, writes: &mut Writes) {
        let hour = Position::at(position.time.floor(ANCHOR_EVERY));
        let mut this_hour = Vec::new();
        let scanned = self
            .store
            .scan(Column::Snapshots, &hour.key(), &mut |key, _| {
                this_hour.extend(Position::from_key(key));
                ControlFlow::Continue(())
            });
        if let Err(error) = scanned {
            let error = &error as &dyn std::error::Error;
            warn!(error, "cannot look for snapshots of before");
        }
        for extra in this_hour.iter().skip(1) {
            writes.forget_snapshot(*extra);
        }
        writes.snapshot(position, &self.snapshot());
    }

    fn snapshot(&self) -> v1::Snapshot {
        v1::Snapshot {
            state_version: STATE_VERSION,
            build: crate::BUILD.to_owned(),
            policy: v1::Policy {
                toml: self.policy.toml.clone(),
            },
            state: v1::encode(self.engine.to_snapshot()),
        }
    }

    pub(super) fn snapshot_if_due(&mut self, now: Timestamp) {
        if now.since(self.snapshot.at) >= SNAPSHOT_EVERY {
            self.snapshot.at = now;
            self.write_snapshot();
        }
    }

    /// Writes the engine down, unless the journal has not grown since the last time. A failure costs only time at
    /// the next start.
    pub(super) fn write_snapshot(&mut self) {
        let Some(end) = self.end.filter(|end| self.snapshot.position != Some(*end)) else {
            return;
        };
        let snapshot = self.snapshot();
        self.outlets
            .metrics
            .store
            .snapshot_bytes
            .set(snapshot.state.len() as i64);
        let mut writes = Writes::default();
        writes.snapshot(end, &snapshot);
        if let Some(passing) = self.snapshot.passing {
            writes.forget_snapshot(passing);
        }
        match self.commit(&writes) {
            Ok(()) => {
                debug!(bytes = snapshot.state.len(), "wrote a snapshot");
                self.snapshot.position = Some(end);
                self.snapshot.passing = Some(end);
            }
            Err(error) => warn!(
                error = &error as &dyn std::error::Error,
                "cannot write a snapshot"
            ),
        }
    }
}
