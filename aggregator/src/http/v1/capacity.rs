//! Capacity: what regions offer, what is set aside, and what is left.

use axum::{extract::State, http::HeaderMap, response::Response};
use leeward_common::{
    api::v1::{Capacity, Defined, Offer, OfferSpec, Reservation, ReservationSpec},
    id::{InvalidId, OfferId, ReservationId},
};

use super::{Now, define::Intended};
use crate::{
    http::{answer::answer, convert, error::Refused},
    intent::Thing,
    shared::Shared,
};

/// What each region offers, what is taken of it, and the offers and reservations in force.
#[utoipa::path(get, path = "/v1/capacity", tag = "capacity", responses((status = 200, description = "The accounts", body = Capacity)))]
pub(in crate::http) async fn capacity(
    State(shared): State<Shared>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    answer(&headers, &convert::capacity(&Now::of(&shared).moment()))
}

impl Intended for OfferId {
    const ROUTE: &'static str = "/v1/capacity/offers/{offer_id}";
    const NAME: &'static str = "offer";
    const PARAMETER: &'static str = "offer_id";
    const TAG: &'static str = "capacity";
    type Spec = OfferSpec;
    type Answer = Offer;

    fn parse(id: &str) -> Result<Self, InvalidId> {
        Self::parse(id)
    }

    fn thing(&self) -> Thing {
        Thing::Offer(self.clone())
    }

    fn defined(self, spec: OfferSpec) -> Defined {
        Defined::Offer(self, spec)
    }
}

impl Intended for ReservationId {
    const ROUTE: &'static str = "/v1/capacity/reservations/{reservation_id}";
    const NAME: &'static str = "reservation";
    const PARAMETER: &'static str = "reservation_id";
    const TAG: &'static str = "capacity";
    type Spec = ReservationSpec;
    type Answer = Reservation;

    fn parse(id: &str) -> Result<Self, InvalidId> {
        Self::parse(id)
    }

    fn thing(&self) -> Thing {
        Thing::Reservation(self.clone())
    }

    fn defined(self, spec: ReservationSpec) -> Defined {
        Defined::Reservation(self, spec)
    }
}
