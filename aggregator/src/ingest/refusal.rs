//! Why a session is refused or ended: a word for programs, a sentence for people.

use leeward_common::wire::{
    WireError,
    v1::{Refuse, RefuseCode},
};
use quinn::VarInt;

/// See the module's documentation.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Refusal {
    pub(super) code: RefuseCode,
    pub(super) reason: String,
}

impl Refusal {
    pub(super) fn new(code: RefuseCode, reason: impl Into<String>) -> Self {
        Self {
            code,
            reason: reason.into(),
        }
    }

    pub(super) fn identity(reason: impl Into<String>) -> Self {
        Self::new(RefuseCode::Identity, reason)
    }

    pub(super) fn malformed(reason: impl Into<String>) -> Self {
        Self::new(RefuseCode::Malformed, reason)
    }

    pub(super) fn unavailable(error: crate::turn::TurnError) -> Self {
        Self::new(RefuseCode::Unavailable, error.to_string())
    }

    /// The message on the control stream.
    pub(super) fn message(&self) -> Refuse {
        Refuse {
            code: self.code,
            reason: self.reason.clone(),
        }
    }

    /// The metric's label.
    pub(super) const fn word(&self) -> &'static str {
        match self.code {
            RefuseCode::Identity => "identity",
            RefuseCode::UnknownRegion => "unknown_region",
            RefuseCode::Malformed => "malformed",
            RefuseCode::Limit => "limit",
            RefuseCode::Superseded => "superseded",
            RefuseCode::Unavailable => "unavailable",
            RefuseCode::Version => "version",
            RefuseCode::Denied => "denied",
            RefuseCode::Other => "other",
        }
    }

    /// The code that the connection is closed with, for an agent that never got to read the control stream.
    pub(super) const fn close_code(&self) -> VarInt {
        VarInt::from_u32(match self.code {
            RefuseCode::Identity => 1,
            RefuseCode::UnknownRegion => 2,
            RefuseCode::Malformed => 3,
            RefuseCode::Limit => 4,
            RefuseCode::Superseded => 5,
            RefuseCode::Unavailable => 6,
            RefuseCode::Other => 7,
            RefuseCode::Version => 8,
            RefuseCode::Denied => 9,
        })
    }
}

impl From<WireError> for Refusal {
    fn from(error: WireError) -> Self {
        let code = match error {
            WireError::TooLarge { .. } => RefuseCode::Limit,
            _ => RefuseCode::Malformed,
        };
        Self::new(code, error.to_string())
    }
}
