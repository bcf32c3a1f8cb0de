//! Services: what runs somewhere, and where it should.

use axum::{
    extract::{Path, Query, Request, State, rejection::QueryRejection},
    http::HeaderMap,
    response::Response,
};
use leeward_common::{
    api::{
        problem::Problem,
        v1::{Defined, Removed, Service, ServiceFailover, ServiceSpec, Services},
    },
    id::ServiceId,
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

/// Every service on one line.
#[utoipa::path(get, path = "/v1/services", tag = "services", responses((status = 200, description = "The services", body = Services)))]
pub(in crate::http) async fn services(
    State(shared): State<Shared>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    answer(&headers, &convert::services(&Now::of(&shared).moment()))
}

/// One service. Its ETag is its version.
#[utoipa::path(
    get, path = "/v1/services/{service_id}", tag = "services",
    params(("service_id" = String, Path, description = "The service")),
    responses(
        (status = 200, description = "The service", body = Service),
        (status = 304, description = "It is still the version of this ETag"),
        (status = 404, description = "There is no such service; lists near names", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(in crate::http) async fn service(
    State(shared): State<Shared>,
    Path(service_id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let id = define::id(&service_id, ServiceId::parse)?;
    define::get(&shared, &headers, &Thing::Service(id))
}

/// Defines a service, or replaces it. It is durable and in force when this answers.
#[utoipa::path(
    put, path = "/v1/services/{service_id}", tag = "services",
    request_body = ServiceSpec,
    params(
        ("service_id" = String, Path, description = "The service"),
        ("if-match" = Option<String>, Header, description = "The ETag of the version that is replaced"),
        ("if-none-match" = Option<String>, Header, description = "`*`: only if there is none yet"),
    ),
    security(("bearer" = [])),
    responses(
        (status = 200, description = "It is replaced", body = Service),
        (status = 201, description = "It is defined", body = Service),
        (status = 400, description = "The body, a header or the id cannot be read; says where", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "No token, or one that nobody knows", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The token may not do this", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "It names a region or a service that does not exist; lists near names", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "It was changed meanwhile, or is there already", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "It makes no sense; says which member and what to write", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "It cannot be stored now", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(in crate::http) async fn put_service(
    State(shared): State<Shared>,
    Path(service_id): Path<String>,
    request: Request,
) -> Result<Response, Refused> {
    let Put {
        token,
        condition,
        body,
        ..
    } = Put::<ServiceSpec>::read(&shared, request, "PUT /v1/services/{service_id}").await?;
    let id = define::id(&service_id, ServiceId::parse)?;
    define::put(
        &shared,
        &token,
        condition,
        Defined::Service(id, Box::new(body)),
    )
    .await
}

/// Removes a service.
#[utoipa::path(
    delete, path = "/v1/services/{service_id}", tag = "services",
    params(
        ("service_id" = String, Path, description = "The service"),
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
pub(in crate::http) async fn delete_service(
    State(shared): State<Shared>,
    Path(service_id): Path<String>,
    why: Result<Query<define::Why>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let about = "DELETE /v1/services/{service_id}";
    let id = define::id(&service_id, ServiceId::parse)?;
    define::remove(&shared, &headers, why, about, Thing::Service(id)).await
}

/// Where a service should run now, and why; what is being done about it; and where it would go if its region failed.
#[utoipa::path(
    get, path = "/v1/services/{service_id}/failover", tag = "services",
    params(("service_id" = String, Path, description = "The service")),
    responses(
        (status = 200, description = "The answer", body = ServiceFailover),
        (status = 304, description = "The answer is still the one with this ETag"),
        (status = 404, description = "There is no such service; lists near names", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(in crate::http) async fn service_failover(
    State(shared): State<Shared>,
    Path(service_id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let id = define::id(&service_id, ServiceId::parse)?;
    let now = Now::of(&shared);
    match convert::service_failover(&now.moment(), &id) {
        Some(failover) => answer(&headers, &failover),
        None => Err(define::unknown(&now.view.intents, &Thing::Service(id))),
    }
}
