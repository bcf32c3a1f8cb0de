//! What each region offers, and what is taken of it.

use serde::{Deserialize, Serialize};

use super::{Offer, Reservation, Time};
use crate::id::{RegionId, ResourceId};

/// Every region's accounts, and what made them.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Capacity {
    /// One for each resource of each region; a region of which nobody offers anything has one only for what is used or
    /// reserved there.
    pub accounts: Vec<Account>,
    /// Offers in force.
    pub offers: Vec<Offer>,
    /// Reservations in force.
    pub reservations: Vec<Reservation>,
    /// How many changes there were to anything that is defined.
    pub version: u64,
    /// As of when.
    pub evaluated_at: Time,
}

/// One resource of one region, in the resource's own unit.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Account {
    /// The region.
    pub region_id: RegionId,
    /// The resource.
    pub resource_id: ResourceId,
    /// All offers together; `null` if nobody offers anything of the region, which then takes what comes.
    pub offered: Option<f64>,
    /// What of it the policy keeps free.
    pub kept: f64,
    /// What is set aside and not in use by whom it is set aside for.
    pub reserved: f64,
    /// What the services that run there use.
    pub used: f64,
    /// What anybody may still take, below 0 if more is taken than may be; `null` if nothing is offered.
    pub free: Option<f64>,
}
