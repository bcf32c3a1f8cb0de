//! Whether services could run where they may, known before any event.

use axum::{
    extract::{Query, State, rejection::QueryRejection},
    http::HeaderMap,
    response::Response,
};
use leeward_common::{
    api::{problem::Problem, v1::Readiness},
    id::ServiceId,
};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{Now, define};
use crate::{
    http::{answer::answer, convert, error::Refused, names},
    intent::Thing,
    shared::Shared,
};

/// Changes in one answer, if nothing else is asked for.
const HISTORY: usize = 50;

/// Which part of it.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct Which {
    /// Only this service's.
    service: Option<String>,
    /// Only in this region.
    region: Option<String>,
    /// At most so many changes; 50 if left out.
    history: Option<usize>,
}

/// Whether each service could run in each of its regions today, why not, and what changed of it lately. A region that
/// would fail a failover today is shown today.
#[utoipa::path(
    get, path = "/v1/readiness", tag = "services", params(Which),
    responses(
        (status = 200, description = "Region by region", body = Readiness),
        (status = 400, description = "The query cannot be read", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such service or region; lists near names", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(in crate::http) async fn readiness(
    State(shared): State<Shared>,
    which: Result<Query<Which>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let Query(which) = which.map_err(|error| super::malformed(&error))?;
    let now = Now::of(&shared);
    let service = match &which.service {
        None => None,
        Some(name) => {
            let id = define::id(name, ServiceId::parse)?;
            if !now.view.intents.services.contains_key(&id) {
                return Err(define::unknown(&now.view.intents, &Thing::Service(id)));
            }
            Some(id)
        }
    };
    let region = match &which.region {
        Some(name) => Some(names::region(&now.view.policy, name)?),
        None => None,
    };
    let wanted = convert::Wanted {
        service: service.as_ref(),
        region,
        history: which.history.unwrap_or(HISTORY),
    };
    answer(&headers, &convert::readiness(&now.moment(), wanted))
}
