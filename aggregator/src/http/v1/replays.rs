//! What was decided, decided again.

use std::{ops::ControlFlow, sync::Arc};

use axum::{extract::State, http::HeaderMap, response::Response};
use leeward_common::{
    api::{
        problem::{Code, Problem},
        v1::{ReplayLine, ReplayProgress, ReplayRequest},
    },
    config::Document,
    time::Timestamp,
};
use tokio::sync::OwnedSemaphorePermit;

use super::Now;
use crate::{
    config::{PolicyText, Role},
    http::{
        App, auth,
        body::Json,
        convert,
        error::Refused,
        lines::{Lines, lines},
    },
    replay::{Question, replay, settled},
    shared::{Shared, State as Readiness},
};

/// Replays a stretch of the journal: under the policies of then every decision is compared byte for byte with the one that
/// was stored; under another policy it is told what that would have done instead.
///
/// The answer is one JSON object per line: progress about twice a second, then the answer. It is worked on beside
/// everything else, one replay or simulation at a time, and given up when the connection is closed.
#[utoipa::path(
    post, path = "/v1/replays", tag = "decisions",
    request_body = ReplayRequest,
    security(("bearer" = [])),
    responses(
        (status = 200, description = "Lines of progress, and the answer", body = ReplayLine, content_type = "application/x-ndjson"),
        (status = 400, description = "The body cannot be read; says where", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "No token, or one that nobody knows", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The policy or the times make no sense", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Another replay or simulation is under way", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(in crate::http) async fn replays(
    State(app): State<App>,
    headers: HeaderMap,
    // The token is looked at before the body is read.
    body: axum::extract::Request,
) -> Result<Response, Refused> {
    auth::holder(&app.shared, &headers, Role::Viewer, "POST /v1/replays").await?;
    let Json(request) =
        <Json<ReplayRequest> as axum::extract::FromRequest<()>>::from_request(body, &()).await?;
    let question = sound(&app.shared, &request)?;
    let permit = permit(&app)?;
    let (lines, response) = lines();
    let shared = app.shared.clone();
    std::thread::Builder::new()
        .name("replay".to_owned())
        .spawn(move || work(&shared, &question, &lines, permit))
        .map_err(|error| Refused::new(Code::Unavailable, error.to_string(), "try again later"))?;
    Ok(response)
}

/// Leave to work on something long; whoever holds it is the only one.
pub(super) fn permit(app: &App) -> Result<OwnedSemaphorePermit, Refused> {
    Arc::clone(&app.workbench).try_acquire_owned().map_err(|_| {
        Refused::new(
            Code::Unavailable,
            "another replay or simulation is under way",
            "wait until it is done; one is worked on at a time",
        )
    })
}

fn sound(shared: &Shared, request: &ReplayRequest) -> Result<Question, Refused> {
    let now = Now::of(shared);
    let settled = settled(&now.view);
    let at = |when: leeward_common::api::v1::When| when.at(now.at);
    let (from, to) = (at(request.from), request.to.map_or(now.at, at).min(settled));
    if from >= to {
        return Err(Refused::new(
            Code::InvalidRequest,
            format!("from is {from} and to is {to}"),
            "let from be before to, and both before now",
        ));
    }
    let other = request.policy.as_deref().map(policy).transpose()?;
    Ok(Question { from, to, other })
}

/// A policy as somebody sent it.
pub(super) fn policy(text: &str) -> Result<PolicyText, Refused> {
    let file = "policy";
    PolicyText::parse(&Document { file, text }).map_err(|error| {
        Refused::new(
            Code::InvalidRequest,
            error.to_string(),
            "send the policy sections of an aggregator.toml: region, failover, probing, policy, target, signal_source",
        )
    })
}

fn work(shared: &Shared, question: &Question, lines: &Lines, permit: OwnedSemaphorePermit) {
    let to = question.to;
    let answer = replay(&*shared.store, question, &mut |progress| {
        if given_up(shared, lines) {
            return ControlFlow::Break(());
        }
        lines.offer(&ReplayLine::Progress(ReplayProgress {
            at: progress.at.into(),
            to: Timestamp::into(to),
            records: progress.records,
        }));
        ControlFlow::Continue(())
    });
    drop(permit);
    lines.write(&match answer {
        Ok(answer) => ReplayLine::Answer(Box::new(convert::replay(question, &answer))),
        Err(error) => ReplayLine::Failed {
            detail: chain(&error),
        },
    });
}

/// Whether nobody waits for it any more, or the process ends.
pub(super) fn given_up(shared: &Shared, lines: &Lines) -> bool {
    lines.is_closed() || shared.readiness.state() == Readiness::Stopping
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    text
}
