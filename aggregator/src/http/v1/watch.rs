//! The stream of changes.

use std::convert::Infallible;

use axum::{
    body::Body,
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderMap, HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
};
use futures_util::stream;
use leeward_common::api::{
    problem::{Code, Problem},
    v1::{Reason, Reset},
};
use leeward_engine::{intent::Owner, view::View};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{
    http::{
        App, convert,
        error::Refused,
        feed::{Event, Joined, Version},
        names,
        places::Client,
    },
    metrics::Stay,
    store::decisions,
};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Missed decisions that are told again. Who missed more learns how things stand, and asks for the rest.
const MAX_MISSED: usize = 500;

/// Which changes.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct Which {
    /// Only this region's decisions and answers.
    primary_region: Option<String>,
    /// Only this service's.
    service: Option<String>,
}

/// What changes, as it changes: server-sent events.
///
/// First a `snapshot` of how things stand, then `decision`, `failover`, `region`, `doubt` and `overview` events. Comments
/// come at least every five seconds. After a reconnect with `Last-Event-ID` the decisions that were missed are told
/// first, also across a restart of the aggregator; if they cannot be told there is a `reset`. A client that falls too
/// far behind is disconnected and comes again the same way.
#[utoipa::path(
    get, path = "/v1/watch", tag = "failover",
    params(Which, ("last-event-id" = Option<String>, Header, description = "The id of the last event that the client has")),
    responses(
        (status = 200, description = "The stream", body = String, content_type = "text/event-stream"),
        (status = 400, description = "The Last-Event-ID is none of ours", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such region or service; lists near names", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A primary and a service", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "No place left, for this client or for all", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(in crate::http) async fn watch(
    State(app): State<App>,
    client: Client,
    which: Result<Query<Which>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let Query(which) = which.map_err(|error| super::malformed(&error))?;
    let last = last_event(&headers)?;
    let owner = which.owner(&app.shared.view.load())?;
    let place = app.places.take(Stay::Stream, client)?;
    let joined = app.join();
    let missed = match last {
        Some(last) => missed(&app, &joined, last, owner.as_ref()).await?,
        None => Vec::new(),
    };
    let following = joined.follow(app, place, owner, &missed);
    let body = Body::from_stream(stream::unfold(following, |mut following| async {
        let bytes = following.next().await?;
        Some((Ok::<_, Infallible>(bytes), following))
    }));
    let head = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/event-stream"),
        ),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        // A proxy that collects before it passes on would hold events back.
        (
            HeaderName::from_static("x-accel-buffering"),
            HeaderValue::from_static("no"),
        ),
    ];
    Ok((head, body).into_response())
}

impl Which {
    fn owner(&self, view: &View) -> Result<Option<Owner>, Refused> {
        match (&self.primary_region, &self.service) {
            (None, None) => Ok(None),
            (Some(name), None) => {
                let region = names::region(&view.policy, name)?;
                Ok(Some(Owner::Region(region.clone())))
            }
            (None, Some(name)) => {
                let known = names::service(&view.intents, name)?;
                Ok(Some(Owner::Service(known.clone())))
            }
            (Some(_), Some(_)) => Err(Refused::new(
                Code::InvalidRequest,
                "a stream is about one primary or one service, and both are given",
                "leave one of them out",
            )),
        }
    }
}

fn last_event(headers: &HeaderMap) -> Result<Option<Version>, Refused> {
    let Some(value) = headers.get(LAST_EVENT_ID) else {
        return Ok(None);
    };
    let version = value.to_str().ok().and_then(Version::parse);
    version.map(Some).ok_or_else(|| {
        let shown: String = String::from_utf8_lossy(value.as_bytes()).chars().take(80).collect();
        Refused::new(
            Code::MalformedParameter,
            format!("the Last-Event-ID {shown:?} is none that this API gave out"),
            "send the id of the last event as it was, or leave the header out and begin with a snapshot",
        )
    })
}

/// The decisions that a client missed which has got as far as `last`, or that they cannot be told.
async fn missed(
    app: &App,
    joined: &Joined,
    last: Version,
    owner: Option<&Owner>,
) -> Result<Vec<Event>, Refused> {
    let newest = joined.version();
    let wanted = |event: &Event| owner.is_none_or(|owner| event.owner().as_ref() == Some(owner));
    if last == newest {
        return Ok(Vec::new());
    }
    let reset = |code: &str, detail: String| {
        app.shared.metrics.http.resets.inc();
        let code = code.to_owned();
        Ok(vec![Event::Reset(Reset {
            reason: Reason { code, detail },
        })])
    };
    let unknown = || {
        let detail = format!("this aggregator knows no event {last}, or does not know it any more");
        reset("unknown_event", detail)
    };
    if last.decision >= newest.decision {
        return unknown();
    }
    if newest.decision - last.decision > MAX_MISSED as u64 {
        let missed = newest.decision - last.decision;
        let detail = format!(
            "{missed} decisions were missed; GET /v1/decisions?before={} has them",
            newest.decision + 1
        );
        return reset("too_far", detail);
    }
    let remembered = &joined.glance().view.decisions;
    let is_remembered = match last.position() {
        None => remembered.front().is_some_and(|oldest| oldest.id == 1),
        Some(_) => remembered
            .iter()
            .any(|one| one.id == last.decision && one.at == last.at),
    };
    if is_remembered {
        let missed = remembered.iter().filter(|one| one.id > last.decision);
        let events = missed.map(|one| Event::Decision(convert::moved(one)));
        return Ok(events.filter(wanted).collect());
    }
    let stored = app
        .read_store(move |store| {
            let from = match last.position() {
                None => Default::default(),
                Some(position) if decisions::is_at(store, position)? => position,
                Some(_) => return Ok(None),
            };
            decisions::after(store, from, MAX_MISSED).map(Some)
        })
        .await?;
    let Some(found) = stored.filter(|found| found.stopped_at.is_none()) else {
        return unknown();
    };
    // Retention may have taken the first ones, and a store that fails now may not have the last ones.
    let mut ids = found.decisions.iter().map(|one| one.id);
    let is_whole = ids
        .clone()
        .zip(last.decision + 1..)
        .all(|(id, next)| id == next)
        && ids.next_back().is_some_and(|id| id >= newest.decision);
    if !is_whole {
        return unknown();
    }
    let missed = found
        .decisions
        .iter()
        .filter(|one| one.id <= newest.decision);
    let events = missed.map(|one| Event::Decision(convert::stored_moved(one)));
    Ok(events.filter(wanted).collect())
}
