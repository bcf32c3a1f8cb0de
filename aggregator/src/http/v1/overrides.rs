//! Overrides: an operator knows better, until it expires.

use axum::{
    extract::{Request, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use leeward_common::{
    api::{
        problem::Problem,
        v1::{Defined, Override, OverrideSpec, Overrides},
    },
    id::{InvalidId, OverrideId},
};
use sha2::{Digest, Sha256};

use super::{
    Now,
    define::{self, Intended},
    noun::{Put, Terms},
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
    let intents = shared.view.load().intents.clone();
    if thing.defined(&intents).as_ref() == Some(&defined)
        && let Some(written) = define::written(&intents, &thing)?
    {
        return Ok(written.response(&HeaderMap::new()));
    }
    let terms = Terms {
        who: token.name,
        condition: Condition::Absent,
    };
    let (_, written) = define::put(&shared, terms, defined).await?;
    Ok((StatusCode::CREATED, written.response(&HeaderMap::new())).into_response())
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

impl Intended for OverrideId {
    const ROUTE: &'static str = "/v1/overrides/{override_id}";
    const NAME: &'static str = "override";
    const PARAMETER: &'static str = "override_id";
    const TAG: &'static str = "overrides";
    type Spec = OverrideSpec;
    type Answer = Override;

    fn parse(id: &str) -> Result<Self, InvalidId> {
        Self::parse(id)
    }

    fn thing(&self) -> Thing {
        Thing::Override(self.clone())
    }

    fn defined(self, spec: OverrideSpec) -> Defined {
        Defined::Override(self, spec)
    }
}
