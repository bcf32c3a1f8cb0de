//! Which shadow policy is set, and by whom.

use std::sync::Arc;

use leeward_common::time::Timestamp;
use tracing::error;

use crate::{
    config::PolicyText,
    intent::{Asked, FILE},
    recover::parse_policy,
    store::{self, Read, StoreError, record::v1},
};

/// What somebody asks for: this shadow policy, or none.
pub type AskedShadow = Asked<Option<Arc<PolicyText>>>;

/// The shadow policy that is set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Setting {
    /// How many changes there were.
    pub version: u64,
    /// When the last one was made.
    pub at: Timestamp,
    /// Who asked for it.
    pub who: String,
    /// Why.
    pub why: String,
    /// The policy; `None` if there is none.
    pub policy: Option<Arc<PolicyText>>,
}

impl Setting {
    /// What is set in a store. A policy that this build cannot read is as good as none.
    #[must_use]
    pub fn of(store: &dyn Read) -> Self {
        let unreadable = |error: StoreError| {
            let error = &error as &dyn std::error::Error;
            error!(error, "the shadow policy cannot be read; set it again");
        };
        let record = store::shadow(store).map_err(unreadable).ok().flatten();
        let Some(v1::Shadow {
            version,
            at_us,
            who,
            why,
            policy,
        }) = record
        else {
            return Self::default();
        };
        let policy = policy.and_then(|own| parse_policy(&own).map_err(unreadable).ok());
        Self {
            version,
            at: Timestamp::from_unix_us(at_us),
            who,
            why,
            policy: policy.map(Arc::new),
        }
    }

    /// As of which change there is a policy; `None` if there is none.
    #[must_use]
    pub fn current(&self) -> Option<u64> {
        self.policy.as_ref().map(|_| self.version)
    }

    /// What it is after a change at `at`.
    #[must_use]
    pub fn after(&self, at: Timestamp, asked: &AskedShadow) -> Self {
        Self {
            version: self.version + 1,
            at,
            who: asked.who.clone(),
            why: asked.why.clone(),
            policy: asked.what.clone(),
        }
    }

    /// The name of the file that it comes from, if it does.
    #[must_use]
    pub fn file(&self) -> Option<&str> {
        self.who.strip_prefix(FILE)
    }
}
