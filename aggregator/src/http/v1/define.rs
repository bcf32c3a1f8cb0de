//! Services, offers, reservations, overrides and reaches as [`Noun`]s: what reading, putting and removing them have in common.

use axum::http::{HeaderMap, HeaderValue, header};
use leeward_common::{
    api::{
        problem::{Code, Place, Problem},
        v1::Defined,
    },
    id::{InvalidId, OfferId, OverrideId, RegionId, ReservationId, ServiceId},
    time::Timestamp,
};
use leeward_engine::{intent::Intents, view::View};
use serde::{Serialize, de::DeserializeOwned};
use utoipa::ToSchema;

use super::{
    Now,
    noun::{Noun, Terms},
};
use crate::{
    http::{answer::Written, convert, error::Refused, names},
    intent::{Asked, Checks, Condition, Conflict, FILE, Thing, Unsound, What},
    shared::Shared,
    turn::TurnError,
};

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

/// What the engine knows as an intent.
pub(in crate::http) trait Intended: Sized + Send + Sync + 'static {
    /// See [`Noun`].
    const ROUTE: &'static str;
    /// See [`Noun`].
    const NAME: &'static str;
    /// See [`Noun`].
    const PARAMETER: &'static str;
    /// See [`Noun`].
    const TAG: &'static str;
    /// See [`Noun`].
    type Spec: DeserializeOwned + ToSchema + Send;
    /// See [`Noun`].
    type Answer: ToSchema;

    /// See [`Noun`].
    fn parse(id: &str) -> Result<Self, InvalidId>;
    /// The thing of this id.
    fn thing(&self) -> Thing;
    /// It, as it is to be.
    fn defined(self, spec: Self::Spec) -> Defined;
}

impl<T: Intended> Noun for T {
    const ROUTE: &'static str = T::ROUTE;
    const NAME: &'static str = T::NAME;
    const PARAMETER: Option<&'static str> = Some(T::PARAMETER);
    const TAG: &'static str = T::TAG;
    type Spec = T::Spec;
    type Answer = T::Answer;

    fn parse(id: &str) -> Result<Self, InvalidId> {
        T::parse(id)
    }

    fn written(&self, shared: &Shared) -> Result<Option<Written>, Refused> {
        written(&shared.view.load().intents, &self.thing())
    }

    fn unknown(&self, shared: &Shared) -> Refused {
        unknown(&shared.view.load().intents, &self.thing())
    }

    fn file(&self, shared: &Shared) -> Option<String> {
        let view = shared.view.load();
        let thing = self.thing();
        let known = thing.known(&view.intents)?;
        Some(known.who.strip_prefix(FILE)?.to_owned())
    }

    async fn put(
        self,
        shared: &Shared,
        terms: Terms,
        spec: T::Spec,
    ) -> Result<(bool, Written), Refused> {
        put(shared, terms, self.defined(spec)).await
    }

    async fn remove(self, shared: &Shared, terms: Terms, why: String) -> Result<u64, Refused> {
        let Terms { who, condition } = terms;
        let asked = Asked {
            who,
            why,
            what: What::Remove(self.thing()),
            condition,
        };
        ask(shared, asked).await
    }
}

/// Defines something, once it makes sense and its condition holds: whether it was there before, and what is there now.
pub(super) async fn put(
    shared: &Shared,
    terms: Terms,
    defined: Defined,
) -> Result<(bool, Written), Refused> {
    let Terms { who, condition } = terms;
    let now = Now::of(shared);
    sound(shared, &now.view, now.at, &defined)?;
    let thing = Thing::of(&defined);
    let replaced = thing.version(&now.view.intents).is_some();
    let asked = Asked {
        who: who.clone(),
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
        who,
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
    Ok((replaced, written))
}

/// Hands a change to the turn.
async fn ask(shared: &Shared, asked: Asked) -> Result<u64, Refused> {
    let (thing, condition) = (asked.what.thing(), asked.condition);
    let outcome = shared.turn.change(asked).await.map_err(unstored)?;
    outcome.map_err(|conflict| {
        let unknown = || unknown(&shared.view.load().intents, &thing);
        conflicting(&thing.to_string(), condition, conflict, unknown)
    })
}

/// That a change could not be stored.
pub(super) fn unstored(error: TurnError) -> Refused {
    Refused::new(
        Code::Unavailable,
        error.to_string(),
        "send it again; with the same If-Match it is never done twice",
    )
}

/// That the condition of a change does not hold.
pub(super) fn conflicting(
    thing: &str,
    condition: Condition,
    conflict: Conflict,
    unknown: impl FnOnce() -> Refused,
) -> Refused {
    match (condition, conflict.current) {
        (Condition::Absent, Some(version)) => Refused::new(
            Code::PreconditionFailed,
            format!("{thing} is there already, as of change {version}"),
            "choose another id, or send If-Match to replace it",
        ),
        (Condition::Present, _) => unknown(),
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
pub(super) fn condition(headers: &HeaderMap) -> Result<Condition, Refused> {
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
        Thing::Reach(id) => {
            let ids = intents.reaches.keys().map(RegionId::as_str);
            let code = Code::UnknownReach;
            names::unknown(code, "reach", id.as_str(), ids, "/v1/bgp/reach")
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

/// What is defined, under its version as ETag; `None` if it is not there.
pub(super) fn written(intents: &Intents, thing: &Thing) -> Result<Option<Written>, Refused> {
    let written = match thing {
        Thing::Service(id) => {
            let known = intents.services.get(id);
            known.map(|known| tagged(known.version, &convert::service(id, known)))
        }
        Thing::Offer(id) => {
            let known = intents.offers.get(id);
            known.map(|known| tagged(known.version, &convert::offer(id, known)))
        }
        Thing::Reservation(id) => {
            let known = intents.reservations.get(id);
            known.map(|known| tagged(known.version, &convert::reservation(id, known)))
        }
        Thing::Override(id) => {
            let known = intents.overrides.get(id);
            known.map(|known| tagged(known.version, &convert::override_(id, known)))
        }
        Thing::Reach(id) => {
            let known = intents.reaches.get(id);
            known.map(|known| tagged(known.version, &convert::reach(id, known)))
        }
    };
    written.transpose()
}

/// An answer whose ETag is its version.
pub(super) fn tagged(version: u64, answer: &impl Serialize) -> Result<Written, Refused> {
    let etag = HeaderValue::from_str(&format!("\"{version}\""))
        .expect("digits in quotes are a header value");
    let written = Written::strong(answer)?;
    Ok(Written { etag, ..written })
}
