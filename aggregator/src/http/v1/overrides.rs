//! Overrides: an operator knows better, until it expires.

use axum::{
    extract::{Path, Query, Request, State, rejection::QueryRejection},
    http::HeaderMap,
    response::Response,
};
use leeward_common::{
    api::{
        problem::Problem,
        v1::{Defined, Override, OverrideSpec, Overrides, Removed},
    },
    id::OverrideId,
};
use sha2::{Digest, Sha256};

use super::{
    Now,
    define::{self, Put},
};
use crate::{
    http::{answer::answer, convert, error::Refused},
    intent::{Condition, Thing},
    shared::Shared,
};

/// The overrides in force.
#[utoipa::path(get, path = "/v1/overrides", tag = "overrides", responses((status = 200, description = "The overrides", body = Overrides)))]
pub(in crate::http) async fn overrides(
    State(shared): State<Shared>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    answer(&headers, &convert::overrides(&Now::of(&shared).moment()))
}

/// Drains, pins, forbids or freezes under an id of the aggregator's choosing. It is durable and in force when this
/// answers. A repetition with the same idempotency key has the same id, and so is refused instead of done twice.
#[utoipa::path(
    post, path = "/v1/overrides", tag = "overrides",
    request_body = OverrideSpec,
    params(("idempotency-key" = Option<String>, Header, description = "A repetition with the same key changes nothing")),
    security(("bearer" = [])),
    responses(
        (status = 200, description = "It was in force already: this is a repetition", body = Override),
        (status = 201, description = "It is in force", body = Override),
        (status = 400, description = "The body, a header or the id cannot be read; says where", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "No token, or one that nobody knows", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The token may not do this", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "It names a region or a service that does not exist; lists near names", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "It was changed meanwhile, or is there already", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "It makes no sense; says which member and what to write", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "It cannot be stored now", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(in crate::http) async fn new_override(
    State(shared): State<Shared>,
    request: Request,
) -> Result<Response, Refused> {
    let Put {
        token,
        headers,
        body,
        ..
    } = Put::<OverrideSpec>::read(&shared, request, "POST /v1/overrides").await?;
    let key = super::signals::idempotency_key(&headers)?;
    let id = new_id(&token.name, key.as_deref(), &Now::of(&shared));
    let defined = Defined::Override(id.clone(), body);
    let thing = Thing::Override(id);
    if thing.defined(&shared.view.load().intents).as_ref() == Some(&defined) {
        return define::get(&shared, &HeaderMap::new(), &thing);
    }
    define::put(&shared, &token, Condition::Absent, defined).await
}

/// The same for the same key of the same holder; without a key another for each moment.
fn new_id(who: &str, key: Option<&str>, now: &Now) -> OverrideId {
    let unique = match key {
        Some(key) => format!("key {who}\n{key}"),
        None => format!(
            "now {who}\n{} {}",
            now.at.as_unix_us(),
            now.view.intents.version
        ),
    };
    let hash = Sha256::digest(unique.as_bytes());
    let hex: String = hash[..5].iter().map(|byte| format!("{byte:02x}")).collect();
    OverrideId::parse(&format!("o-{hex}"))
        .expect("a letter, a hyphen and hexadecimal digits are an id")
}

/// One override. Its ETag is its version.
#[utoipa::path(
    get, path = "/v1/overrides/{override_id}", tag = "overrides",
    params(("override_id" = String, Path, description = "The override")),
    responses(
        (status = 200, description = "The override", body = Override),
        (status = 304, description = "It is still the version of this ETag"),
        (status = 404, description = "There is no such override; lists near names", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(in crate::http) async fn override_(
    State(shared): State<Shared>,
    Path(override_id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let id = define::id(&override_id, OverrideId::parse)?;
    define::get(&shared, &headers, &Thing::Override(id))
}

/// Defines an override, or replaces it. It is durable and in force when this answers.
#[utoipa::path(
    put, path = "/v1/overrides/{override_id}", tag = "overrides",
    request_body = OverrideSpec,
    params(
        ("override_id" = String, Path, description = "The override"),
        ("if-match" = Option<String>, Header, description = "The ETag of the version that is replaced"),
        ("if-none-match" = Option<String>, Header, description = "`*`: only if there is none yet"),
    ),
    security(("bearer" = [])),
    responses(
        (status = 200, description = "It is replaced", body = Override),
        (status = 201, description = "It is defined", body = Override),
        (status = 400, description = "The body, a header or the id cannot be read; says where", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "No token, or one that nobody knows", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The token may not do this", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "It names a region or a service that does not exist; lists near names", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "It was changed meanwhile, or is there already", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "It makes no sense; says which member and what to write", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "It cannot be stored now", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(in crate::http) async fn put_override(
    State(shared): State<Shared>,
    Path(override_id): Path<String>,
    request: Request,
) -> Result<Response, Refused> {
    let Put {
        token,
        condition,
        body,
        ..
    } = Put::<OverrideSpec>::read(&shared, request, "PUT /v1/overrides/{override_id}").await?;
    let id = define::id(&override_id, OverrideId::parse)?;
    define::put(&shared, &token, condition, Defined::Override(id, body)).await
}

/// Lifts an override.
#[utoipa::path(
    delete, path = "/v1/overrides/{override_id}", tag = "overrides",
    params(
        ("override_id" = String, Path, description = "The override"),
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
pub(in crate::http) async fn delete_override(
    State(shared): State<Shared>,
    Path(override_id): Path<String>,
    why: Result<Query<define::Why>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let about = "DELETE /v1/overrides/{override_id}";
    let id = define::id(&override_id, OverrideId::parse)?;
    define::remove(&shared, &headers, why, about, Thing::Override(id)).await
}
