//! The gates: what a candidate must pass before its score counts.
//!
//! In their order; the first that a candidate fails decides what is said of it first, and all others that it fails
//! follow. What concerns only who comes (*) is not asked of a region where the service runs already.
//!
//! 1. Overrides: [`RefusalCode::Forbidden`], [`RefusalCode::Drained`].
//! 2. Sense: [`RefusalCode::UnknownRegion`], [`RefusalCode::IsPrimary`].
//! 3. Reach: [`RefusalCode::Down`], by a quorum of observers. It stands before what is known of its links, since a
//!    region that is down is left at once, and one that is unknown is waited for.
//! 4. Freshness: [`RefusalCode::NoEvidence`], [`RefusalCode::Stale`], [`RefusalCode::TooFewProbes`].
//! 5. Reach from here: [`RefusalCode::Unreachable`].
//! 6. Readiness: [`RefusalCode::CheckFailed`], [`RefusalCode::DependencyMissing`], [`RefusalCode::ReplicaBehind`] (*).
//! 7. Service levels: [`RefusalCode::BreaksLimits`].
//! 8. Room: [`RefusalCode::NoRoom`] (*).
//! 9. Residency and labels: [`RefusalCode::LabelMissing`], [`RefusalCode::LabelForbidden`].
//! 10. Shared risk (*): [`RefusalCode::SharedRisk`], only while another candidate passes all other gates.
//! 11. [`RefusalCode::Suppressed`]: it was moved to and from too often lately.

use serde::{Deserialize, Serialize};

/// Why a candidate may not be selected.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Refusal {
    /// A stable word for programs.
    pub code: RefusalCode,
    /// The fact behind it, in words.
    pub detail: String,
}

/// The gates; see the module's documentation for their order.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalCode {
    /// An override forbids it for this owner.
    Forbidden,
    /// An override drains it.
    Drained,
    /// The policy has no such region.
    UnknownRegion,
    /// It is the primary itself.
    IsPrimary,
    /// A quorum of observers sees it as lost.
    Down,
    /// Nothing was measured yet.
    NoEvidence,
    /// What was measured is too old.
    Stale,
    /// What was measured is too little.
    TooFewProbes,
    /// Others reach it, but nothing between it and the primary is answered.
    Unreachable,
    /// A check of the region fails.
    CheckFailed,
    /// A service that this one depends on is not reached from there within its limits.
    DependencyMissing,
    /// The data there lags behind by more than the recovery point objective.
    ReplicaBehind,
    /// It breaks a limit of the service.
    BreaksLimits,
    /// What the service needs is not free there.
    NoRoom,
    /// It has not a label that the service requires.
    LabelMissing,
    /// It has a label that the service forbids.
    LabelForbidden,
    /// It shares a risk with a region that is failing.
    SharedRisk,
    /// It was moved to and from too often lately.
    Suppressed,
}

impl RefusalCode {
    /// A stable word for programs.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Forbidden => "forbidden",
            Self::Drained => "drained",
            Self::UnknownRegion => "unknown_region",
            Self::IsPrimary => "is_primary",
            Self::Down => "down",
            Self::NoEvidence => "no_evidence",
            Self::Stale => "stale",
            Self::TooFewProbes => "too_few_probes",
            Self::Unreachable => "unreachable",
            Self::CheckFailed => "check_failed",
            Self::DependencyMissing => "dependency_missing",
            Self::ReplicaBehind => "replica_behind",
            Self::BreaksLimits => "breaks_limits",
            Self::NoRoom => "no_room",
            Self::LabelMissing => "label_missing",
            Self::LabelForbidden => "label_forbidden",
            Self::SharedRisk => "shared_risk",
            Self::Suppressed => "suppressed",
        }
    }
}
