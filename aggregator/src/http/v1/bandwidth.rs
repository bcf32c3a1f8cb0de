//! Orders to measure how much a link carries, and what came of them.

use std::{sync::PoisonError, time::Duration};

use axum::{
    extract::{Path, Query, State, rejection::QueryRejection},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use leeward_common::{
    api::{
        problem::{Code, Problem},
        v1::{BandwidthOrder, BandwidthOrderState, NewBandwidthOrder},
    },
    config::Span,
    report::ProbeKind,
    wire::v1,
};
use tokio::time::{Instant, timeout_at};

use super::{Now, traces};
use crate::{
    config::Role,
    http::{
        App, answer::answer, auth, body::Json, convert, error::Refused, names, wait::MaybeWait,
    },
    trace::{self, Wanted},
};

/// The longest wait for what comes of an order; who asks for more gets this.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// Orders an agent to measure how much a link carries. It is on its way when this answers;
/// `GET /v1/bandwidth/{order}?wait=60s` waits for it.
#[utoipa::path(
    post, path = "/v1/links/{from}/{to}/bandwidth", tag = "network",
    params(
        ("from" = String, Path, description = "Whose agent measures"),
        ("to" = String, Path, description = "Whom it measures"),
    ),
    request_body = NewBandwidthOrder, security(("bearer" = [])),
    responses(
        (status = 202, description = "It is on its way to an agent", body = BandwidthOrder),
        (status = 400, description = "The body cannot be read; says where", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "No token, or one that nobody knows", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The token may not do this", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such region; lists near names", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "No agent probes the link by STAMP", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "No agent takes it now, or a heavy test of one of the regions is under way", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(in crate::http) async fn order(
    State(app): State<App>,
    Path((from, to)): Path<(String, String)>,
    headers: HeaderMap,
    // The token is looked at before the body is read.
    body: axum::extract::Request,
) -> Result<Response, Refused> {
    let shared = &app.shared;
    let what = "POST /v1/links/{from}/{to}/bandwidth";
    auth::holder(shared, &headers, Role::Operator, what).await?;
    let Json(new) =
        <Json<NewBandwidthOrder> as axum::extract::FromRequest<()>>::from_request(body, &())
            .await?;
    let policy = shared.view.load().policy.clone();
    let wanted = Wanted {
        from: names::region(&policy, &from)?.clone(),
        to: names::region(&policy, &to)?.clone(),
        kind: Some(ProbeKind::Stamp),
        agent: None,
        mtu: false,
    };
    let ends = [&wanted.from, &wanted.to];
    let uplinks = || app.uplinks.lock().unwrap_or_else(PoisonError::into_inner);
    if new.heavy {
        let taken = uplinks().take(shared.clock.now(), ends);
        taken.map_err(|taken| {
            let what_to_do = format!("try again in {} s", taken.left.as_secs() + 1);
            Refused::new(Code::Unavailable, taken.to_string(), what_to_do)
        })?;
    }
    let what = |order, target: &_, _| v1::Order {
        order,
        trace: None,
        bandwidth: Some(v1::BandwidthOrder {
            target: Clone::clone(target),
            heavy: new.heavy,
        }),
    };
    let sent = trace::send(shared, &wanted, what).await.map_err(|error| {
        if new.heavy {
            uplinks().give_back(ends);
        }
        traces::refused(&error)
    })?;
    let ordered = BandwidthOrder {
        order: sent.order,
        state: BandwidthOrderState::Waiting,
        agent_id: Some(sent.agent),
        from: Some(wanted.from.clone()),
        to: Some(wanted.to.clone()),
        detail: String::new(),
        bytes: 0,
        bandwidth: Vec::new(),
    };
    let ordered = answer(&HeaderMap::new(), &ordered)?;
    Ok((StatusCode::ACCEPTED, ordered).into_response())
}

/// What came of an order, once something did or the wait is over.
#[utoipa::path(
    get, path = "/v1/bandwidth/{order}", tag = "network",
    params(("order" = u64, Path, description = "The order's number"), MaybeWait),
    responses(
        (status = 200, description = "How it stands; `waiting` also if it is too old to be remembered", body = BandwidthOrder),
        (status = 400, description = "That is no number", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(in crate::http) async fn outcome(
    State(app): State<App>,
    Path(order): Path<String>,
    wait: Result<Query<MaybeWait>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let Query(wait) = wait.map_err(|error| super::malformed(&error))?;
    let order = traces::number(&order)?;
    let mut published = app.shared.view.subscribe();
    let Span(wait) = wait.wait.unwrap_or(Span(Duration::ZERO));
    let until = Instant::now() + wait.min(MAX_WAIT);
    loop {
        let outcome = convert::bandwidth_order(&Now::of(&app.shared).moment(), order);
        let waits = outcome.state == BandwidthOrderState::Waiting;
        if !waits || !matches!(timeout_at(until, published.changed()).await, Ok(Ok(()))) {
            return answer(&headers, &outcome);
        }
    }
}
