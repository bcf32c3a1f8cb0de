//! What the turn writes into the audit log: every change with the change itself, in one write; every new policy; every
//! decision that an override caused, with the decision; the end of whatever had one; every refusal of somebody known.

use std::time::Duration;

use leeward_common::{
    api::v1::{AuditEntry, AuditHead, Defined, Time},
    audit::{self, Hash},
    time::Timestamp,
};
use leeward_engine::intent::Term;
use tracing::error;

use super::{Expired, Noted, Outlets, Refusal, Staged, Turn};
use crate::{
    config::PolicyText,
    intent::{Asked, CONFIGURATION, Thing, What},
    shadow::Setting,
    store::{Read, Writes, key::Column, record::v1},
};

/// How long the same refusal is not noted again: who asks in a loop does not fill the log.
const REFUSAL_ONCE_IN: Duration = Duration::from_secs(60);

/// What is noted when something comes to its end.
pub(crate) const EXPIRED: &str = "expired";

/// Where the audit log ends.
#[derive(Clone, Debug, Default)]
pub(super) struct Chain {
    length: u64,
    head: Hash,
}

/// What is to be noted; the chain gives it its place.
struct Note<'a> {
    at: Timestamp,
    who: &'a str,
    why: &'a str,
    what: &'a str,
    about: String,
    version: u64,
    detail: String,
}

impl Chain {
    /// Where the log of this store ends. A log that cannot be read goes on after what can be read of its last key; that
    /// it is broken shows when it is verified.
    pub(super) fn of(store: &dyn Read) -> Self {
        match store.last(Column::Audit) {
            Ok(None) => Self::default(),
            Ok(Some((key, value))) => {
                let length = key.as_slice().try_into().map_or(0, u64::from_be_bytes);
                let head = v1::decode::<v1::Audited>("audit entry", &value);
                Self {
                    length,
                    head: head.map_or(audit::START, |entry| entry.hash),
                }
            }
            Err(error) => {
                error!(
                    error = &error as &dyn std::error::Error,
                    "cannot read the audit log"
                );
                Self::default()
            }
        }
    }

    /// Tells outside where the log ends.
    pub(super) fn tell(&self, outlets: &Outlets) {
        let head = AuditHead {
            sequence: self.length,
            hash: audit::hex(&self.head),
        };
        outlets.metrics.audited(head.sequence, &head.hash);
        outlets.view.audited(head);
    }

    /// Notes a decision that an override caused.
    pub(super) fn decision(&mut self, decided: &v1::Decided, writes: &mut Writes) {
        if !decided.is_overridden() {
            return;
        }
        let note = Note {
            at: Timestamp::from_unix_us(decided.at_us),
            who: "engine",
            why: "an override",
            what: "decision",
            about: format!("decision {}", decided.id),
            version: 0,
            detail: decided.summary.clone(),
        };
        self.note(note, writes);
    }

    /// Notes that something has come to its end.
    pub(super) fn expired(&mut self, expired: &Expired, writes: &mut Writes) {
        let Expired { at, ended } = expired;
        let about = match &ended.term {
            Term::Offer(id) => Thing::Offer(id.clone()),
            Term::Reservation(id) => Thing::Reservation(id.clone()),
            Term::Override(id) => Thing::Override(id.clone()),
        };
        let note = Note {
            at: *at,
            who: "engine",
            why: "its time is over",
            what: EXPIRED,
            about: about.to_string(),
            version: ended.version,
            detail: format!("it held until {}, by {}", ended.until, ended.who),
        };
        self.note(note, writes);
    }

    fn note(&mut self, note: Note<'_>, writes: &mut Writes) {
        let Note {
            at,
            who,
            why,
            what,
            about,
            version,
            detail,
        } = note;
        let mut entry = AuditEntry {
            sequence: self.length + 1,
            at: Time(at),
            who: who.to_owned(),
            why: why.to_owned(),
            what: what.to_owned(),
            about,
            version,
            detail,
            previous: audit::hex(&self.head),
            hash: String::new(),
        };
        let hash = audit::hash(&self.head, &entry);
        entry.hash = audit::hex(&hash);
        writes.audited(entry.sequence, &v1::Audited::new(&entry, self.head, hash));
        (self.length, self.head) = (entry.sequence, hash);
    }
}

impl Staged {
    pub(super) fn audit_change(&mut self, asked: &Asked, version: u64) {
        let (what, detail) = match &asked.what {
            What::Put(defined) => ("put", toml(defined)),
            What::Remove(_) => ("remove", String::new()),
        };
        let note = Note {
            at: self.now,
            who: &asked.who,
            why: &asked.why,
            what,
            about: asked.what.thing().to_string(),
            version,
            detail,
        };
        self.audit.note(note, &mut self.writes);
    }

    pub(super) fn audit_policy(&mut self, policy: &PolicyText) {
        let note = Note {
            at: self.now,
            who: CONFIGURATION,
            why: "",
            what: "policy",
            about: format!("policy {}", policy.policy.version()),
            version: 0,
            detail: policy.toml.clone(),
        };
        self.audit.note(note, &mut self.writes);
    }

    pub(super) fn audit_shadow(&mut self, setting: &Setting) {
        let (what, detail) = match &setting.policy {
            Some(policy) => ("put", policy.toml.clone()),
            None => ("remove", String::new()),
        };
        let note = Note {
            at: setting.at,
            who: &setting.who,
            why: &setting.why,
            what,
            about: "shadow policy".to_owned(),
            version: setting.version,
            detail,
        };
        self.audit.note(note, &mut self.writes);
    }

    pub(super) fn audit_noted(&mut self, noted: &Noted) {
        let note = Note {
            at: self.now,
            who: &noted.who,
            why: &noted.why,
            what: noted.what,
            about: noted.about.clone(),
            version: 0,
            detail: noted.detail.clone(),
        };
        self.audit.note(note, &mut self.writes);
    }

    pub(super) fn audit_refusal(&mut self, refusal: &Refusal) {
        let note = Note {
            at: self.now,
            who: &refusal.who,
            why: "",
            what: "refused",
            about: refusal.about.clone(),
            version: 0,
            detail: refusal.why.clone(),
        };
        self.audit.note(note, &mut self.writes);
    }
}

impl Turn {
    /// Whether a refusal was not noted lately.
    pub(super) fn is_new_refusal(&self, refusal: &Refusal, now: Timestamp) -> bool {
        let noted = self.refusals.get(refusal);
        noted.is_none_or(|&noted| now.since(noted) >= REFUSAL_ONCE_IN)
    }
}

/// A definition as its author would write it.
fn toml(defined: &Defined) -> String {
    let text = match defined {
        Defined::Service(_, spec) => ::toml::to_string(spec),
        Defined::Offer(_, spec) => ::toml::to_string(spec),
        Defined::Reservation(_, spec) => ::toml::to_string(spec),
        Defined::Override(_, spec) => ::toml::to_string(spec),
        Defined::Reach(_, spec) => ::toml::to_string(spec),
    };
    text.expect("a definition holds nothing that TOML cannot express")
}
