//! Measurements that others inject.

use std::time::Duration;

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use leeward_common::{
    api::{
        problem::{Code, Problem},
        v1::{self, NewSignal, Signals},
    },
    id::{RegionId, SourceId},
    time::Timestamp,
};
use leeward_engine::{
    input::{Metric, Signal, Subject},
    signal::ActiveSignal,
    view::View,
};

use super::Now;
use crate::{
    config::{Role, Token},
    http::{answer::answer, auth, body::Json, convert, error::Refused, names},
    shared::Shared,
};

/// How far ahead of ours a source's clock may run.
const MAX_AHEAD: Duration = Duration::from_secs(10);

/// The longest idempotency key: a hash or a UUID with a name before it.
const MAX_KEY: usize = 128;

/// The signals in force.
#[utoipa::path(get, path = "/v1/signals", tag = "signals", responses((status = 200, description = "The signals in force", body = Signals)))]
pub(in crate::http) async fn signals(
    State(shared): State<Shared>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    answer(&headers, &convert::signals(&Now::of(&shared).moment()))
}

/// Injects a measurement about a region or a link. It is in force when this answers, and neutral once it expires.
#[utoipa::path(
    post, path = "/v1/signals", tag = "signals",
    request_body = NewSignal,
    params(("idempotency-key" = Option<String>, Header, description = "A repetition with the same key changes nothing")),
    security(("bearer" = [])),
    responses(
        (status = 201, description = "It is in force", body = v1::Signal),
        (status = 400, description = "The body cannot be read; says where", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "No token, or one that nobody knows", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The token may not do this", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such source or region; lists near names", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The signal makes no sense or exceeds what its source may say", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "It cannot be stored now", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(in crate::http) async fn push(
    State(shared): State<Shared>,
    headers: HeaderMap,
    // The token is looked at before the body is read.
    body: axum::extract::Request,
) -> Result<Response, Refused> {
    let token = auth::holder(&shared, &headers, Role::Injector, "POST /v1/signals").await?;
    let Json(new) =
        <Json<NewSignal> as axum::extract::FromRequest<()>>::from_request(body, &()).await?;
    let key = idempotency_key(&headers)?;
    let now = Now::of(&shared);
    let signal = sound(&now.view, now.at, &token, new, key)?;
    let Signal {
        source,
        subject,
        metric,
        value,
        observed_at,
        expires_at,
        idempotency_key: _,
    } = signal.clone();
    let active = ActiveSignal {
        source,
        subject,
        metric,
        value,
        observed_at,
        expires_at,
    };
    let answer = answer(&HeaderMap::new(), &convert::signal(&active))?;
    shared.turn.signal(signal).await.map_err(|error| {
        Refused::new(
            Code::Unavailable,
            error.to_string(),
            "send it again with the same idempotency-key",
        )
    })?;
    Ok((StatusCode::CREATED, answer).into_response())
}

pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Refused> {
    let Some(value) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    match value.to_str() {
        Ok(key) if (1..=MAX_KEY).contains(&key.len()) => Ok(Some(key.to_owned())),
        _ => Err(Refused::new(
            Code::MalformedParameter,
            "the idempotency-key cannot be used",
            format!("use 1 to {MAX_KEY} visible ASCII characters"),
        )),
    }
}

/// The signal, within what its source and its token may say.
fn sound(
    view: &View,
    now: Timestamp,
    token: &Token,
    new: NewSignal,
    idempotency_key: Option<String>,
) -> Result<Signal, Refused> {
    let subject = subject(view, &new)?;
    let NewSignal {
        source,
        metric,
        value,
        observed_at,
        ttl_ms,
        ..
    } = new;
    let Some(bounds) = view.policy.signal_sources.get(&source) else {
        let sources = view.policy.signal_sources.keys().map(SourceId::as_str);
        return Err(names::unknown(
            Code::UnknownSource,
            "signal source",
            source.as_str(),
            sources,
            "/v1/signals",
        ));
    };
    if !token.sources.is_empty() && !token.sources.contains(&source) {
        let detail = format!("the token {:?} may not speak for {source}", token.name);
        return Err(Refused::new(
            Code::Forbidden,
            detail,
            "use a token whose sources include it",
        ));
    }
    let metric = in_range(metric, value, &subject)?;
    let observed_at = observed_at.map_or(now, |time| time.0);
    if observed_at.since(now) > MAX_AHEAD {
        let detail = format!("observed_at is {observed_at}, which is in the future");
        return Err(invalid(
            detail,
            "set the source's clock, or leave observed_at out",
        ));
    }
    let ttl = Duration::from_millis(ttl_ms);
    if ttl.is_zero() || ttl > bounds.max_ttl {
        let most = bounds.max_ttl.as_millis();
        return Err(invalid(
            format!("ttl_ms is {ttl_ms}"),
            &format!("use 1 to {most}, as the configuration allows {source}"),
        ));
    }
    let expires_at = observed_at + ttl;
    if expires_at <= now {
        let detail =
            format!("observed at {observed_at} with ttl_ms {ttl_ms} it has expired already");
        return Err(invalid(detail, "send it sooner, or with a longer ttl_ms"));
    }
    Ok(Signal {
        source,
        subject,
        metric,
        value,
        observed_at,
        expires_at,
        idempotency_key,
    })
}

fn subject(view: &View, new: &NewSignal) -> Result<Subject, Refused> {
    let known = |name: &RegionId| names::region(&view.policy, name.as_str()).cloned();
    match (&new.region, &new.from, &new.to) {
        (Some(region), None, None) => match &new.service {
            None => Ok(Subject::Region(known(region)?)),
            Some(service) if view.intents.services.contains_key(service) => {
                Ok(Subject::Service(service.clone(), known(region)?))
            }
            Some(service) => Err(invalid(
                format!("there is no service {service}"),
                "name a service that was put (GET /v1/services)",
            )),
        },
        (None, Some(_), Some(_)) if new.service.is_some() => Err(invalid(
            "a signal about a service names its region, not a link".to_owned(),
            "send `service` and `region`",
        )),
        (None, Some(from), Some(to)) if from == to => Err(invalid(
            format!("from and to are both {from}"),
            "name the two ends of a link, or `region` alone",
        )),
        (None, Some(from), Some(to)) => Ok(Subject::Link(known(from)?, known(to)?)),
        _ => Err(invalid(
            "a signal is about one region or one link".to_owned(),
            "send either `region`, or `from` and `to`",
        )),
    }
}

fn in_range(metric: v1::Metric, value: f64, subject: &Subject) -> Result<Metric, Refused> {
    let (engine, low, high) = match metric {
        v1::Metric::Health => (Metric::Health, 0.0, 1.0),
        v1::Metric::LossRatio => (Metric::LossRatio, 0.0, 1.0),
        v1::Metric::LatencyUs => (Metric::LatencyUs, 0.0, 60e6),
        v1::Metric::BandwidthBps => (Metric::BandwidthBps, 1.0, 1e15),
        v1::Metric::ReplicationLagUs => (Metric::ReplicationLagUs, 0.0, 1e15),
    };
    if !(low..=high).contains(&value) {
        return Err(invalid(
            format!("value is {value}"),
            &format!("{metric} lies in {low} to {high}"),
        ));
    }
    if metric == v1::Metric::ReplicationLagUs {
        return match subject {
            Subject::Link(..) => Err(invalid(
                format!("{metric} is no measure of links"),
                "send it about the region where the data arrives (`region`), and the `service` if it is one's",
            )),
            Subject::Region(_) | Subject::Service(..) => Ok(engine),
        };
    }
    if matches!(subject, Subject::Service(..)) {
        return Err(invalid(
            format!("{metric} is no measure of a service"),
            "send it about the region alone, or send `replication_lag_us`",
        ));
    }
    if metric != v1::Metric::Health && matches!(subject, Subject::Region(_)) {
        let what_to_do =
            "send it about a link (`from` and `to`), or send `health` about the region";
        return Err(invalid(
            format!("{metric} is a measure of links"),
            what_to_do,
        ));
    }
    Ok(engine)
}

fn invalid(detail: String, what_to_do: &str) -> Refused {
    Refused::new(Code::InvalidRequest, detail, what_to_do)
}
