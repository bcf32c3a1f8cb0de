//! Services: what runs somewhere, and where it should.

use axum::{
    extract::{Path, State},
    http::HeaderMap,
    response::Response,
};
use leeward_common::{
    api::{
        problem::Problem,
        v1::{Defined, Service, ServiceFailover, ServiceSpec, Services},
    },
    id::{InvalidId, ServiceId},
};

use super::{
    Now,
    define::{self, Intended},
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

impl Intended for ServiceId {
    const ROUTE: &'static str = "/v1/services/{service_id}";
    const NAME: &'static str = "service";
    const PARAMETER: &'static str = "service_id";
    const TAG: &'static str = "services";
    type Spec = ServiceSpec;
    type Answer = Service;

    fn parse(id: &str) -> Result<Self, InvalidId> {
        Self::parse(id)
    }

    fn thing(&self) -> Thing {
        Thing::Service(self.clone())
    }

    fn defined(self, spec: ServiceSpec) -> Defined {
        Defined::Service(self, Box::new(spec))
    }
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
