//! What reading, putting and removing have in common for everything that people define.
//!
//! A thing's ETag is its version. Who sends it back as `If-Match` changes nothing that somebody else changed meanwhile;
//! the turn looks at it, so of two at once only one wins.

use axum::{
    extract::{FromRequest, Query, Request, rejection::QueryRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use leeward_common::{
    api::{
        problem::{Code, Place, Problem},
        v1::{Defined, MAX_WHY, Removed},
    },
    id::{InvalidId, OfferId, OverrideId, RegionId, ReservationId, ServiceId},
    time::Timestamp,
};
use leeward_engine::{
    intent::{Intents, Known},
    view::View,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use utoipa::IntoParams;

use super::Now;
use crate::{
    config::{Role, Token},
    http::{answer::Written, auth, body::Json, convert, error::Refused, names},
    intent::{Asked, Checks, Condition, Conflict, FILE, Thing, Unsound, What},
    shared::Shared,
};

/// Why something is removed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct Why {
    /// Why, for the audit log.
    #[serde(default)]
    why: String,
}

/// The operator and the body of a request to put something.
pub(super) struct Put<T> {
    pub(super) token: Token,
    pub(super) condition: Condition,
    pub(super) headers: HeaderMap,
    pub(super) body: T,
}

impl<T: DeserializeOwned> Put<T> {
    /// Reads a request. The token is looked at before the body is read.
    pub(super) async fn read(
        shared: &Shared,
        request: Request,
        about: &'static str,
    ) -> Result<Self, Refused> {
        let headers = request.headers().clone();
        let token = auth::holder(shared, &headers, Role::Operator, about).await?;
        let condition = condition(&headers)?;
        let Json(body) = Json::from_request(request, &()).await?;
        Ok(Self {
            token,
            condition,
            headers,
            body,
        })
    }
}

/// The id in a path that something is put under.
pub(super) fn id<T>(text: &str, parse: fn(&str) -> Result<T, InvalidId>) -> Result<T, Refused> {
    parse(text).map_err(|error| {
        Refused::new(
            Code::MalformedParameter,
            error.to_string(),
            "choose another id",
        )
    })
}

/// What is defined under an id.
pub(super) fn get(
    shared: &Shared,
    headers: &HeaderMap,
    thing: &Thing,
) -> Result<Response, Refused> {
    let view = shared.view.load();
    match written(&view.intents, thing)? {
        Some(written) => Ok(written.response(headers)),
        None => Err(unknown(&view.intents, thing)),
    }
}

/// Defines something, once it makes sense and its condition holds.
pub(super) async fn put(
    shared: &Shared,
    token: &Token,
    condition: Condition,
    defined: Defined,
) -> Result<Response, Refused> {
    let now = Now::of(shared);
    sound(shared, &now.view, now.at, &defined)?;
    let thing = Thing::of(&defined);
    let status = match thing.version(&now.view.intents) {
        Some(_) => StatusCode::OK,
        None => StatusCode::CREATED,
    };
    let asked = Asked {
        who: token.name.clone(),
        why: defined.why().to_owned(),
        what: What::Put(defined.clone()),
        condition,
    };
    let version = ask(shared, asked).await?;
    // Who reads it finds this version, or a later one of somebody else's; this answer is about this one.
    let mut intents = Intents {
        version: version.saturating_sub(1),
        ..Intents::default()
    };
    let at = shared.view.load().intents.clone();
    let at = thing.known(&at).filter(|came| came.version == version);
    let at = at.map_or(now.at, |came| came.at);
    let change = leeward_engine::intent::Change {
        who: token.name.clone(),
        why: defined.why().to_owned(),
        what: (&defined).into(),
    };
    intents.on_change(at, &change);
    let written = written(&intents, &thing)?.ok_or_else(|| {
        Refused::new(
            Code::Internal,
            "what was put is not there",
            "report this as a defect",
        )
    })?;
    Ok((status, written.response(&HeaderMap::new())).into_response())
}

/// Removes something, if its condition holds.
pub(super) async fn remove(
    shared: &Shared,
    headers: &HeaderMap,
    why: Result<Query<Why>, QueryRejection>,
    about: &'static str,
    thing: Thing,
) -> Result<Response, Refused> {
    let token = auth::holder(shared, headers, Role::Operator, about).await?;
    let Query(Why { why }) = why.map_err(|error| super::malformed(&error))?;
    if why.len() > MAX_WHY || why.chars().any(char::is_control) {
        return Err(Refused::new(
            Code::MalformedParameter,
            format!("why is longer than {MAX_WHY} bytes or holds control characters"),
            "say it on one shorter line",
        ));
    }
    let condition = match condition(headers)? {
        Condition::Any => Condition::Present,
        other => other,
    };
    let file = {
        let view = shared.view.load();
        let who = thing.known(&view.intents).map(|came| came.who.to_owned());
        who.and_then(|who| Some(who.strip_prefix(FILE)?.to_owned()))
    };
    let asked = Asked {
        who: token.name,
        why,
        what: What::Remove(thing),
        condition,
    };
    let version = ask(shared, asked).await?;
    crate::http::answer::answer(&HeaderMap::new(), &Removed { version, file })
}

/// Hands a change to the turn.
pub(super) async fn ask(shared: &Shared, asked: Asked) -> Result<u64, Refused> {
    let (thing, condition) = (asked.what.thing(), asked.condition);
    let outcome = shared.turn.change(asked).await.map_err(|error| {
        Refused::new(
            Code::Unavailable,
            error.to_string(),
            "send it again; with the same If-Match it is never done twice",
        )
    })?;
    outcome.map_err(|conflict| refused(shared, &thing, condition, conflict))
}

fn refused(shared: &Shared, thing: &Thing, condition: Condition, conflict: Conflict) -> Refused {
    match (condition, conflict.current) {
        (Condition::Absent, Some(version)) => Refused::new(
            Code::PreconditionFailed,
            format!("{thing} is there already, as of change {version}"),
            "choose another id, or send If-Match to replace it",
        ),
        (Condition::Present, _) => unknown(&shared.view.load().intents, thing),
        (_, Some(version)) => Refused::new(
            Code::PreconditionFailed,
            format!("{thing} was changed meanwhile, by change {version}"),
            "read it again, look at what changed, and send its ETag as If-Match",
        ),
        (_, None) => Refused::new(
            Code::PreconditionFailed,
            format!("{thing} is not there any more"),
            "send If-None-Match: * to define it anew",
        ),
    }
}

/// `If-Match` and `If-None-Match` (RFC 9110, section 13.1), of which one may be there.
fn condition(headers: &HeaderMap) -> Result<Condition, Refused> {
    let text = |name| {
        let mut values = headers.get_all(name).iter();
        let value = values
            .next()
            .map(|value| value.to_str().unwrap_or_default());
        (value.map(str::trim), values.next().is_some())
    };
    let malformed = |detail: &str| {
        Err(Refused::new(
            Code::MalformedParameter,
            detail,
            "send the ETag of the answer that you read, like If-Match: \"7\", or If-None-Match: *",
        ))
    };
    match (text(header::IF_MATCH), text(header::IF_NONE_MATCH)) {
        ((None, _), (None, _)) => Ok(Condition::Any),
        ((Some("*"), false), (None, _)) => Ok(Condition::Present),
        ((Some(tag), false), (None, _)) => match version(tag) {
            Some(version) => Ok(Condition::Version(version)),
            None => malformed(&format!("If-Match is {tag:?}, which is no version")),
        },
        ((None, _), (Some("*"), false)) => Ok(Condition::Absent),
        ((None, _), _) => malformed("If-None-Match takes nothing but * here"),
        _ => malformed("If-Match may be there once, and alone"),
    }
}

fn version(tag: &str) -> Option<u64> {
    tag.strip_prefix('"')?.strip_suffix('"')?.parse().ok()
}

fn sound(shared: &Shared, view: &View, now: Timestamp, defined: &Defined) -> Result<(), Refused> {
    let checks = Checks {
        now,
        policy: &view.policy,
        has_service: &|name| view.intents.services.contains_key(name),
        max_override: shared.api.max_override,
    };
    let unsound = match checks.check(defined).and_then(|()| checks.lasts(defined)) {
        Ok(()) => return Ok(()),
        Err(unsound) => unsound,
    };
    let (problem, path) = match unsound {
        Unsound::Fault(fault) => {
            let detail = format!("{} {}", fault.path, fault.detail);
            (
                Problem::new(Code::InvalidRequest, detail, fault.what_to_do),
                fault.path,
            )
        }
        Unsound::Region { path, name } => {
            let regions = view.policy.regions.keys().map(RegionId::as_str);
            (
                names::problem(
                    Code::UnknownRegion,
                    "region",
                    name.as_str(),
                    regions,
                    "/v1/regions",
                ),
                path,
            )
        }
        Unsound::Service { path, name } => (no_service(&view.intents, name.as_str()), path),
    };
    let at = Some(Place {
        path,
        line: None,
        column: None,
    });
    Err(Problem { at, ..problem }.into())
}

/// That nobody has defined such a thing.
pub(super) fn unknown(intents: &Intents, thing: &Thing) -> Refused {
    match thing {
        Thing::Service(id) => no_service(intents, id.as_str()).into(),
        Thing::Offer(id) => {
            let ids = intents.offers.keys().map(OfferId::as_str);
            names::unknown(
                Code::UnknownOffer,
                "offer",
                id.as_str(),
                ids,
                "/v1/capacity",
            )
        }
        Thing::Reservation(id) => {
            let ids = intents.reservations.keys().map(ReservationId::as_str);
            let code = Code::UnknownReservation;
            names::unknown(code, "reservation", id.as_str(), ids, "/v1/capacity")
        }
        Thing::Override(id) => {
            let ids = intents.overrides.keys().map(OverrideId::as_str);
            let code = Code::UnknownOverride;
            names::unknown(code, "override", id.as_str(), ids, "/v1/overrides")
        }
    }
}

/// That nobody has defined such a service.
pub(super) fn no_service(intents: &Intents, name: &str) -> Problem {
    let services = intents.services.keys().map(ServiceId::as_str);
    names::problem(
        Code::UnknownService,
        "service",
        name,
        services,
        "/v1/services",
    )
}

fn written(intents: &Intents, thing: &Thing) -> Result<Option<Written>, Refused> {
    fn tagged<T>(known: &Known<T>, answer: &impl Serialize) -> Result<Option<Written>, Refused> {
        let etag = HeaderValue::from_str(&format!("\"{}\"", known.version))
            .expect("digits in quotes are a header value");
        let written = Written::strong(answer)?;
        Ok(Some(Written { etag, ..written }))
    }
    match thing {
        Thing::Service(id) => match intents.services.get(id) {
            Some(known) => tagged(known, &convert::service(id, known)),
            None => Ok(None),
        },
        Thing::Offer(id) => match intents.offers.get(id) {
            Some(known) => tagged(known, &convert::offer(id, known)),
            None => Ok(None),
        },
        Thing::Reservation(id) => match intents.reservations.get(id) {
            Some(known) => tagged(known, &convert::reservation(id, known)),
            None => Ok(None),
        },
        Thing::Override(id) => match intents.overrides.get(id) {
            Some(known) => tagged(known, &convert::override_(id, known)),
            None => Ok(None),
        },
    }
}
