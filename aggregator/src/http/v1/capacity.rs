//! Capacity: what regions offer, what is set aside, and what is left.

use axum::{
    extract::{Path, Query, Request, State, rejection::QueryRejection},
    http::HeaderMap,
    response::Response,
};
use leeward_common::{
    api::{
        problem::Problem,
        v1::{Capacity, Defined, Offer, OfferSpec, Removed, Reservation, ReservationSpec},
    },
    id::{OfferId, ReservationId},
};

use super::{
    Now,
    define::{self, Put},
};
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

/// One offer. Its ETag is its version.
#[utoipa::path(
    get, path = "/v1/capacity/offers/{offer_id}", tag = "capacity",
    params(("offer_id" = String, Path, description = "The offer")),
    responses(
        (status = 200, description = "The offer", body = Offer),
        (status = 304, description = "It is still the version of this ETag"),
        (status = 404, description = "There is no such offer; lists near names", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(in crate::http) async fn offer(
    State(shared): State<Shared>,
    Path(offer_id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let id = define::id(&offer_id, OfferId::parse)?;
    define::get(&shared, &headers, &Thing::Offer(id))
}

/// Defines an offer, or replaces it. It is durable and in force when this answers.
#[utoipa::path(
    put, path = "/v1/capacity/offers/{offer_id}", tag = "capacity",
    request_body = OfferSpec,
    params(
        ("offer_id" = String, Path, description = "The offer"),
        ("if-match" = Option<String>, Header, description = "The ETag of the version that is replaced"),
        ("if-none-match" = Option<String>, Header, description = "`*`: only if there is none yet"),
    ),
    security(("bearer" = [])),
    responses(
        (status = 200, description = "It is replaced", body = Offer),
        (status = 201, description = "It is defined", body = Offer),
        (status = 400, description = "The body, a header or the id cannot be read; says where", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "No token, or one that nobody knows", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The token may not do this", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "It names a region or a service that does not exist; lists near names", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "It was changed meanwhile, or is there already", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "It makes no sense; says which member and what to write", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "It cannot be stored now", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(in crate::http) async fn put_offer(
    State(shared): State<Shared>,
    Path(offer_id): Path<String>,
    request: Request,
) -> Result<Response, Refused> {
    let Put {
        token,
        condition,
        body,
        ..
    } = Put::<OfferSpec>::read(&shared, request, "PUT /v1/capacity/offers/{offer_id}").await?;
    let id = define::id(&offer_id, OfferId::parse)?;
    define::put(&shared, &token, condition, Defined::Offer(id, body)).await
}

/// Removes an offer.
#[utoipa::path(
    delete, path = "/v1/capacity/offers/{offer_id}", tag = "capacity",
    params(
        ("offer_id" = String, Path, description = "The offer"),
        ("if-match" = Option<String>, Header, description = "The ETag of the version that is removed"),
        define::Why,
    ),
    security(("bearer" = [])),
    responses(
        (status = 200, description = "It is removed", body = Removed),
        (status = 400, description = "The query or a header cannot be read", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "No token, or one that nobody knows", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The token may not do this", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is none of this id; lists near names", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "It was changed meanwhile", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "It cannot be stored now", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(in crate::http) async fn delete_offer(
    State(shared): State<Shared>,
    Path(offer_id): Path<String>,
    why: Result<Query<define::Why>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let about = "DELETE /v1/capacity/offers/{offer_id}";
    let id = define::id(&offer_id, OfferId::parse)?;
    define::remove(&shared, &headers, why, about, Thing::Offer(id)).await
}

/// One reservation. Its ETag is its version.
#[utoipa::path(
    get, path = "/v1/capacity/reservations/{reservation_id}", tag = "capacity",
    params(("reservation_id" = String, Path, description = "The reservation")),
    responses(
        (status = 200, description = "The reservation", body = Reservation),
        (status = 304, description = "It is still the version of this ETag"),
        (status = 404, description = "There is no such reservation; lists near names", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(in crate::http) async fn reservation(
    State(shared): State<Shared>,
    Path(reservation_id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let id = define::id(&reservation_id, ReservationId::parse)?;
    define::get(&shared, &headers, &Thing::Reservation(id))
}

/// Defines a reservation, or replaces it. It is durable and in force when this answers.
#[utoipa::path(
    put, path = "/v1/capacity/reservations/{reservation_id}", tag = "capacity",
    request_body = ReservationSpec,
    params(
        ("reservation_id" = String, Path, description = "The reservation"),
        ("if-match" = Option<String>, Header, description = "The ETag of the version that is replaced"),
        ("if-none-match" = Option<String>, Header, description = "`*`: only if there is none yet"),
    ),
    security(("bearer" = [])),
    responses(
        (status = 200, description = "It is replaced", body = Reservation),
        (status = 201, description = "It is defined", body = Reservation),
        (status = 400, description = "The body, a header or the id cannot be read; says where", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "No token, or one that nobody knows", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The token may not do this", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "It names a region or a service that does not exist; lists near names", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "It was changed meanwhile, or is there already", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "It makes no sense; says which member and what to write", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "It cannot be stored now", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(in crate::http) async fn put_reservation(
    State(shared): State<Shared>,
    Path(reservation_id): Path<String>,
    request: Request,
) -> Result<Response, Refused> {
    let Put {
        token,
        condition,
        body,
        ..
    } = Put::<ReservationSpec>::read(
        &shared,
        request,
        "PUT /v1/capacity/reservations/{reservation_id}",
    )
    .await?;
    let id = define::id(&reservation_id, ReservationId::parse)?;
    define::put(&shared, &token, condition, Defined::Reservation(id, body)).await
}

/// Removes a reservation.
#[utoipa::path(
    delete, path = "/v1/capacity/reservations/{reservation_id}", tag = "capacity",
    params(
        ("reservation_id" = String, Path, description = "The reservation"),
        ("if-match" = Option<String>, Header, description = "The ETag of the version that is removed"),
        define::Why,
    ),
    security(("bearer" = [])),
    responses(
        (status = 200, description = "It is removed", body = Removed),
        (status = 400, description = "The query or a header cannot be read", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "No token, or one that nobody knows", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The token may not do this", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is none of this id; lists near names", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "It was changed meanwhile", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "It cannot be stored now", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(in crate::http) async fn delete_reservation(
    State(shared): State<Shared>,
    Path(reservation_id): Path<String>,
    why: Result<Query<define::Why>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let about = "DELETE /v1/capacity/reservations/{reservation_id}";
    let id = define::id(&reservation_id, ReservationId::parse)?;
    define::remove(&shared, &headers, why, about, Thing::Reservation(id)).await
}
