//! Routes: those that were traced, and an order for another.

use std::time::Duration;

use axum::{
    extract::{Path, Query, State, rejection::QueryRejection},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use leeward_common::{
    api::{
        problem::{Code, Problem},
        v1::{NewTrace, OrderState, OrderedTrace, TraceOutcome, Traces},
    },
    config::Span,
};
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};
use utoipa::IntoParams;

use super::Now;
use crate::{
    config::Role,
    http::{
        App, answer::answer, auth, body::Json, convert, error::Refused, names, places::Client,
        wait::MaybeWait,
    },
    ingest::roster::NotOrdered,
    metrics::Stay,
    shared::Shared,
    trace::{self, NoTrace, Wanted},
};

/// The most traces that one answer lists.
const MAX_LIMIT: usize = 512;

/// The longest wait for what comes of an order; who asks for more gets this.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// Which traces.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct Which {
    /// Only from this region.
    from: Option<String>,
    /// Only to this region.
    to: Option<String>,
    /// At most so many, 1 to 512; 20 if left out.
    limit: Option<usize>,
}

/// The routes that agents traced lately, the newest first, each with what changed since the one before it.
#[utoipa::path(
    get, path = "/v1/traces", tag = "network", params(Which),
    responses(
        (status = 200, description = "The routes", body = Traces),
        (status = 400, description = "The limit is out of range", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such region; lists near names", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(in crate::http) async fn traces(
    State(shared): State<Shared>,
    which: Result<Query<Which>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let Query(which) = which.map_err(|error| super::malformed(&error))?;
    let limit = which.limit.unwrap_or(20);
    if !(1..=MAX_LIMIT).contains(&limit) {
        let detail = format!("limit is {limit}");
        let what_to_do = format!("use 1 to {MAX_LIMIT}");
        return Err(Refused::new(Code::MalformedParameter, detail, what_to_do));
    }
    let now = Now::of(&shared);
    let known = |name: &Option<String>| match name {
        Some(name) => names::region(&now.view.policy, name).map(Some),
        None => Ok(None),
    };
    let (from, to) = (known(&which.from)?, known(&which.to)?);
    answer(&headers, &convert::traces(&now.moment(), from, to, limit))
}

/// What came of an order, once something did or the wait is over.
#[utoipa::path(
    get, path = "/v1/traces/{order}", tag = "network",
    params(("order" = u64, Path, description = "The order's number"), MaybeWait),
    responses(
        (status = 200, description = "How it stands; `open` also if it is too old to be remembered", body = TraceOutcome),
        (status = 400, description = "That is no number", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "Too many wait already", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(in crate::http) async fn outcome(
    State(app): State<App>,
    client: Client,
    Path(order): Path<String>,
    wait: Result<Query<MaybeWait>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let Query(wait) = wait.map_err(|error| super::malformed(&error))?;
    let order = number(&order)?;
    let shared = &app.shared;
    let mut published = shared.view.subscribe();
    let Span(wait) = wait.wait.unwrap_or(Span(Duration::ZERO));
    let until = Instant::now() + wait.min(MAX_WAIT);
    let _place = match wait.is_zero() {
        true => None,
        false => Some(app.places.take(Stay::Wait, client)?),
    };
    loop {
        let outcome = convert::trace_outcome(&Now::of(shared).moment(), order);
        let waits = outcome.state == OrderState::Open;
        if !waits || !matches!(timeout_at(until, published.changed()).await, Ok(Ok(()))) {
            return answer(&headers, &outcome);
        }
    }
}

/// Orders an agent to trace a route. It is on its way when this answers; `GET /v1/traces/{order}?wait=60s` waits for it.
#[utoipa::path(
    post, path = "/v1/traces", tag = "network",
    request_body = NewTrace, security(("bearer" = [])),
    responses(
        (status = 202, description = "It is on its way to an agent", body = OrderedTrace),
        (status = 400, description = "The body cannot be read; says where", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "No token, or one that nobody knows", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The token may not do this", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such region or agent; lists near names", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "No path of this kind is between them", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "No agent takes it now", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(in crate::http) async fn order(
    State(shared): State<Shared>,
    headers: HeaderMap,
    // The token is looked at before the body is read.
    body: axum::extract::Request,
) -> Result<Response, Refused> {
    auth::holder(&shared, &headers, Role::Operator, "POST /v1/traces").await?;
    let Json(new) =
        <Json<NewTrace> as axum::extract::FromRequest<()>>::from_request(body, &()).await?;
    let policy = shared.view.load().policy.clone();
    let wanted = Wanted {
        from: names::region(&policy, new.from.as_str())?.clone(),
        to: names::region(&policy, new.to.as_str())?.clone(),
        kind: new.kind,
        agent: new.agent,
        mtu: new.mtu,
    };
    let sent = trace::order(&shared, &wanted)
        .await
        .map_err(|error| refused(&error))?;
    let told = OrderedTrace {
        order: sent.order,
        agent: sent.agent,
        target: sent.target,
        kind: sent.kind,
    };
    let told = answer(&HeaderMap::new(), &told)?;
    Ok((StatusCode::ACCEPTED, told).into_response())
}

pub(super) fn refused(error: &NoTrace) -> Refused {
    let (code, what_to_do) = match error {
        NoTrace::UnknownAgent(_) => (Code::UnknownAgent, "GET /v1/agents lists them"),
        NoTrace::SameRegion(_) => (Code::InvalidRequest, "name two regions"),
        NoTrace::NoPath { .. } => (
            Code::InvalidRequest,
            "name a kind that measures the link, or two regions that have agents",
        ),
        NoTrace::NotOrdered(NotOrdered::Unknown | NotOrdered::TakesNone) => {
            (Code::InvalidRequest, "name another agent")
        }
        NoTrace::NotOrdered(_) => (Code::Unavailable, "try again later, or name another agent"),
    };
    Refused::new(code, error.to_string(), what_to_do)
}

/// The number of an order, as it stands in a path.
pub(super) fn number(order: &str) -> Result<u64, Refused> {
    order.parse().map_err(|_| {
        let detail = format!(
            "{:?} is no order",
            order.chars().take(40).collect::<String>()
        );
        let what_to_do = "use the number that the order was answered with";
        Refused::new(Code::MalformedParameter, detail, what_to_do)
    })
}
