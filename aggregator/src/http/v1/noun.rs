//! What people define, noun by noun: each has one route, and on it the same three methods.
//!
//! A definition's ETag is its version. Who sends it back as `If-Match` changes nothing that somebody else changed meanwhile;
//! the turn looks at it, so of two at once only one wins.

use axum::{
    extract::{
        FromRequest, FromRequestParts, Path, Query, Request, State, rejection::QueryRejection,
    },
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::get,
};
use leeward_common::{
    api::{
        problem::Code,
        v1::{Removed, check_why},
    },
    id::InvalidId,
};
use serde::{Deserialize, de::DeserializeOwned};
use utoipa::ToSchema;
use utoipa_axum::router::UtoipaMethodRouter;

use super::define;
use crate::{
    config::{Role, Token},
    http::{
        App,
        answer::{Written, answer},
        auth,
        body::Json,
        error::Refused,
    },
    intent::Condition,
    shared::Shared,
};

mod document;

/// A noun that people define. A value of it names one of its kind.
pub(in crate::http) trait Noun: Sized + Send + Sync + 'static {
    /// Its route.
    const ROUTE: &'static str;
    /// What people call it.
    const NAME: &'static str;
    /// The route's parameter: the id. A noun of which there is only one has none.
    const PARAMETER: Option<&'static str>;
    /// Its chapter of the document.
    const TAG: &'static str;

    /// What is put.
    type Spec: DeserializeOwned + ToSchema + Send;
    /// What is read.
    type Answer: ToSchema;

    /// The one of this id; the id is empty for a noun without a parameter.
    fn parse(id: &str) -> Result<Self, InvalidId>;

    /// The one that is in force, under its version as ETag; `None` if there is none.
    fn written(&self, shared: &Shared) -> Result<Option<Written>, Refused>;

    /// That there is none.
    fn unknown(&self, shared: &Shared) -> Refused;

    /// The file that defines it, if one does.
    fn file(&self, shared: &Shared) -> Option<String>;

    /// Defines it: whether it was there before, and what is there now.
    fn put(
        self,
        shared: &Shared,
        terms: Terms,
        spec: Self::Spec,
    ) -> impl Future<Output = Result<(bool, Written), Refused>> + Send;

    /// Removes it, for a reason; the version that says so.
    fn remove(
        self,
        shared: &Shared,
        terms: Terms,
        why: String,
    ) -> impl Future<Output = Result<u64, Refused>> + Send;
}

/// Who changes something, and on which condition.
#[derive(Debug)]
pub(in crate::http) struct Terms {
    /// The holder of the token.
    pub(super) who: String,
    /// What must hold.
    pub(super) condition: Condition,
}

/// The routes of a noun, with their document.
pub(in crate::http) fn routes<N: Noun>() -> UtoipaMethodRouter<App> {
    let (schemas, paths) = document::of::<N>();
    let methods = get(read::<N>).put(put::<N>).delete(remove::<N>);
    (schemas, paths, methods)
}

/// The noun that a request is about.
struct Named<N>(N);

impl<N: Noun> FromRequestParts<App> for Named<N> {
    type Rejection = Refused;

    async fn from_request_parts(
        parts: &mut axum::http::request::Parts,
        app: &App,
    ) -> Result<Self, Refused> {
        let id = match N::PARAMETER {
            None => String::new(),
            Some(_) => {
                let path = Path::<String>::from_request_parts(parts, app).await;
                let unreadable = |error: axum::extract::rejection::PathRejection| {
                    let detail = error.body_text();
                    Refused::new(Code::MalformedParameter, detail, "choose another id")
                };
                path.map_err(unreadable)?.0
            }
        };
        define::id(&id, N::parse).map(Self)
    }
}

async fn read<N: Noun>(
    State(shared): State<Shared>,
    Named(noun): Named<N>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let written = noun.written(&shared)?;
    let written = written.ok_or_else(|| noun.unknown(&shared))?;
    Ok(written.response(&headers))
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
        about: &str,
    ) -> Result<Self, Refused> {
        let headers = request.headers().clone();
        let token = auth::holder(shared, &headers, Role::Operator, about).await?;
        let condition = define::condition(&headers)?;
        let Json(body) = Json::from_request(request, &()).await?;
        Ok(Self {
            token,
            condition,
            headers,
            body,
        })
    }
}

async fn put<N: Noun>(
    State(shared): State<Shared>,
    named: Result<Named<N>, Refused>,
    request: Request,
) -> Result<Response, Refused> {
    let about = format!("PUT {}", N::ROUTE);
    let Put {
        token,
        condition,
        body,
        ..
    } = Put::<N::Spec>::read(&shared, request, &about).await?;
    let Named(noun) = named?;
    let who = token.name;
    let (replaced, written) = noun.put(&shared, Terms { who, condition }, body).await?;
    let status = match replaced {
        true => StatusCode::OK,
        false => StatusCode::CREATED,
    };
    Ok((status, written.response(&HeaderMap::new())).into_response())
}

/// Why something is removed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Why {
    /// For the audit log.
    #[serde(default)]
    why: String,
}

async fn remove<N: Noun>(
    State(shared): State<Shared>,
    Named(noun): Named<N>,
    why: Result<Query<Why>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let about = format!("DELETE {}", N::ROUTE);
    let token = auth::holder(&shared, &headers, Role::Operator, &about).await?;
    let Query(Why { why }) = why.map_err(|error| super::malformed(&error))?;
    check_why(&why).map_err(|fault| {
        let detail = format!("why {}", fault.detail);
        Refused::new(Code::MalformedParameter, detail, fault.what_to_do)
    })?;
    let condition = match define::condition(&headers)? {
        Condition::Any => Condition::Present,
        other => other,
    };
    let (who, file) = (token.name, noun.file(&shared));
    let version = noun.remove(&shared, Terms { who, condition }, why).await?;
    answer(&HeaderMap::new(), &Removed { version, file })
}
