//! What is defined, and how it came about.

use serde::{Deserialize, Serialize};

use super::{OfferSpec, OverrideSpec, ReachSpec, ReservationSpec, ServiceSpec, State, Time};
use crate::{
    bgp::Prefix,
    id::{OfferId, OverrideId, RegionId, ReservationId, ServiceId},
};

/// A service.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Service {
    /// Its id.
    pub service_id: ServiceId,
    /// As of which change it is so: send it as `If-Match` and nobody else's change is overwritten.
    pub version: u64,
    /// Who changed it last: a token's name, or `file:NAME`.
    pub who: String,
    /// When.
    pub at: Time,
    /// What it is.
    pub spec: ServiceSpec,
}

/// A service on one line.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ServiceLine {
    /// Its id.
    pub service_id: ServiceId,
    /// As of which change it is so.
    pub version: u64,
    /// Who changed it last.
    pub who: String,
    /// Where it belongs.
    pub home: RegionId,
    /// Where it should run by what was decided; `null` while it has nowhere to run.
    pub selected_region: Option<RegionId>,
    /// 0 is the most important.
    pub priority: u8,
    /// How its answer fares; see `/v1/services/{service_id}/failover`.
    pub state: State,
    /// The answer in one sentence.
    pub summary: String,
}

/// Services.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Services {
    /// In the order of their ids.
    pub services: Vec<ServiceLine>,
    /// How many changes there were to anything that is defined.
    pub version: u64,
}

/// An offer of capacity.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Offer {
    /// Its id.
    pub offer_id: OfferId,
    /// As of which change it is so.
    pub version: u64,
    /// Who changed it last.
    pub who: String,
    /// When.
    pub at: Time,
    /// What it is.
    pub spec: OfferSpec,
}

/// By which prefixes a region is reached.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Reach {
    /// The region.
    pub region_id: RegionId,
    /// As of which change it is so.
    pub version: u64,
    /// Who changed it last.
    pub who: String,
    /// When.
    pub at: Time,
    /// What it is.
    pub spec: ReachSpec,
}

/// By which prefixes all regions are reached.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Reaches {
    /// In the order of their ids.
    pub regions: Vec<RegionReach>,
    /// How many changes there were to anything that is defined.
    pub version: u64,
}

/// By which prefixes one region is reached.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RegionReach {
    /// The region.
    pub region_id: RegionId,
    /// The prefixes; empty if agents learn them from each other's addresses.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub prefixes: Vec<Prefix>,
    /// The systems that may announce them; empty if that is not known.
    pub origins: Vec<u32>,
    /// Who said so: `configuration`, or whoever defined it; `null` if nobody did.
    pub who: Option<String>,
}

/// A reservation of capacity.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Reservation {
    /// Its id.
    pub reservation_id: ReservationId,
    /// As of which change it is so.
    pub version: u64,
    /// Who changed it last.
    pub who: String,
    /// When.
    pub at: Time,
    /// What it is.
    pub spec: ReservationSpec,
}

/// An override.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Override {
    /// Its id.
    pub override_id: OverrideId,
    /// As of which change it is so.
    pub version: u64,
    /// Who changed it last.
    pub who: String,
    /// When.
    pub at: Time,
    /// What it is.
    pub spec: OverrideSpec,
    /// The same in one sentence.
    pub summary: String,
}

/// Overrides.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Overrides {
    /// In the order of their ids.
    pub overrides: Vec<Override>,
    /// How many changes there were to anything that is defined.
    pub version: u64,
}

/// That something was removed.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Removed {
    /// The change that removed it.
    pub version: u64,
    /// The file that defines it, if one does: it comes back with the next reload unless it leaves the file too.
    pub file: Option<String>,
}
