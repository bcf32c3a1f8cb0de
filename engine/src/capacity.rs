//! What each region offers, and what is taken of it: the ledger that a placement is checked against.
//!
//! ```text
//!   offered ─┬─ kept free: the policy's reserve
//!            ├─ reserved: set aside, and not yet in use by whom it is set aside for
//!            ├─ used: by the services that run there, by their needs and shares
//!            └─ free
//! ```
//!
//! A region of which nobody offers anything is not counted: it takes what comes, and its capacity is shown as unknown.
//! Where anything is offered, a resource that is not is not there.

use std::collections::BTreeMap;

use leeward_common::id::{RegionId, ReservationId, ResourceId, ServiceId};
use serde::{Deserialize, Serialize};

/// Every region's accounts.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Capacity {
    /// By region of the policy.
    pub regions: BTreeMap<RegionId, RegionCapacity>,
}

/// The accounts of one region.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct RegionCapacity {
    /// Whether anybody offers anything of it. Where nobody does, it is not counted.
    pub counted: bool,
    /// By resource that is offered, reserved or used there.
    pub accounts: BTreeMap<ResourceId, Account>,
}

/// One resource of a region, in the resource's own unit.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Account {
    /// All offers together.
    pub offered: f64,
    /// What of it is kept free.
    pub kept: f64,
    /// What is set aside and not in use by whom it is set aside for.
    pub reserved: f64,
    /// The part of it that is a service's, by service and reservation.
    pub reserved_for: BTreeMap<ServiceId, BTreeMap<ReservationId, f64>>,
    /// What the services that run there use.
    pub used: f64,
}

impl Account {
    /// What anybody may still take; below 0 if more is taken than may be.
    #[must_use]
    pub fn free(&self) -> f64 {
        self.offered - self.kept - self.reserved - self.used
    }
}
