//! What was decided.

use std::sync::Arc;

use axum::{
    extract::{Path, Query, State, rejection::QueryRejection},
    http::{HeaderMap, HeaderValue, header},
    response::Response,
};
use leeward_common::{
    api::{
        problem::{Code, Problem},
        v1::{Decision, Decisions},
    },
    config::Span,
    id::{RegionId, ServiceId},
};
use leeward_engine::view::View;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{
    http::{
        App,
        answer::Written,
        convert,
        error::Refused,
        names,
        places::Client,
        wait::{Wait, no_wait_here},
    },
    store::{Read, StoreError, decisions as stored, record::v1::Decided},
};

/// Decisions on one page at most: with their evidence one weighs some kB.
const MAX_LIMIT: u32 = 200;

/// Which decisions.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct Which {
    /// Only this region's, and those of services at home there.
    primary_region: Option<String>,
    /// Only this service's.
    service: Option<String>,
    /// Only those with a smaller id: `next_before` of the page before.
    before: Option<u64>,
    /// At most so many; 50 if left out, 200 at most.
    limit: Option<u32>,
    /// With If-None-Match and without `before`: how long to wait for the next decision, like `30s`; a minute at most.
    #[param(value_type = Option<String>)]
    wait: Option<Span>,
}

/// What was decided, newest first: why, when, from, to and with which evidence.
///
/// The `link` header leads to the next page (RFC 8288). A page may be short or empty although there is a next one: one
/// answer looks at a few thousand decisions at most, however few of them are asked for.
#[utoipa::path(
    get, path = "/v1/decisions", tag = "failover", params(Which),
    responses(
        (status = 200, description = "The decisions", body = Decisions),
        (status = 304, description = "The page is still the one with this ETag"),
        (status = 404, description = "No such region or service; lists near names", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A wait for a page of the past", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "No place left to wait, for this client or for all", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The store cannot be read now", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(in crate::http) async fn decisions(
    State(app): State<App>,
    client: Client,
    which: Result<Query<Which>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let Query(which) = which.map_err(|error| super::malformed(&error))?;
    let wait = match (which.before, which.wait) {
        (None, wait) => Wait::of(wait, &headers)?,
        // A preference may be ignored, a parameter may not.
        (Some(_), None) => None,
        (Some(_), Some(_)) => return Err(no_wait_here("a page of the past does not change")),
    };
    let view = app.shared.view.load_full();
    let (region, service) = (which.primary_region.as_deref(), which.service.as_deref());
    let page = Page {
        primary: region
            .map(|name| names::region(&view.policy, name).cloned())
            .transpose()?,
        service: service
            .map(|name| names::service(&view.intents, name).cloned())
            .transpose()?,
        before: which.before.unwrap_or(u64::MAX),
        limit: which.limit.unwrap_or(50).clamp(1, MAX_LIMIT),
    };
    app.answer(&headers, client, wait, |app| {
        let (app, page) = (app.clone(), page.clone());
        async move {
            let found = page.read(&app).await?;
            let link = found.next_before.map(|before| page.link(before));
            Ok(Written::strong(&found)?.linked(link))
        }
    })
    .await
}

/// One decision with its evidence.
#[utoipa::path(
    get, path = "/v1/decisions/{decision}", tag = "failover",
    params(("decision" = u64, Path, description = "Its id")),
    responses(
        (status = 200, description = "The decision", body = Decision),
        (status = 404, description = "No such decision, or it is older than what is kept", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The store cannot be read now", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(in crate::http) async fn decision(
    State(app): State<App>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let Ok(id) = name.parse::<u64>() else {
        let shown: String = name.chars().take(80).collect();
        return Err(Refused::new(
            Code::MalformedParameter,
            format!("{shown:?} is not the id of a decision"),
            "use a number, as GET /v1/decisions lists them",
        ));
    };
    let view = app.shared.view.load_full();
    if let Some(found) = view.decisions.iter().find(|decision| decision.id == id) {
        return Ok(Written::strong(&convert::decision(found, &view.policy))?.response(&headers));
    }
    let found = app.read_store(move |store| stored::find(store, id)).await?;
    let found = found.ok_or_else(|| {
        Refused::new(
            Code::UnknownDecision,
            format!("there is no decision {id}, or it is older than what is kept"),
            "GET /v1/decisions lists them, newest first",
        )
    })?;
    Ok(Written::strong(&convert::stored(&found, &view.policy))?.response(&headers))
}

/// A page that is asked for.
#[derive(Clone)]
struct Page {
    primary: Option<RegionId>,
    service: Option<ServiceId>,
    before: u64,
    limit: u32,
}

impl Page {
    /// The newest ones are in memory; only who wants more reads the store.
    async fn read(&self, app: &App) -> Result<Decisions, Refused> {
        let view: Arc<View> = app.shared.view.load_full();
        let limit = self.limit as usize;
        let mut remembered =
            view.decisions.iter().rev().filter(|one| {
                one.id < self.before && self.wants(&one.primary, one.service.as_ref())
            });
        let mut decisions: Vec<Decision> = remembered
            .by_ref()
            .take(limit)
            .map(|one| convert::decision(one, &view.policy))
            .collect();
        let last = decisions.last().map(|one| one.decision_id);
        if remembered.next().is_some() {
            return Ok(Decisions {
                decisions,
                next_before: last,
            });
        }
        let oldest = view.decisions.front().map_or(u64::MAX, |oldest| oldest.id);
        if oldest == 1 {
            return Ok(Decisions {
                decisions,
                next_before: None,
            });
        }
        let (before, room) = (self.before.min(oldest), limit - decisions.len());
        let page = self.clone();
        let found = app
            .read_store(move |store| {
                let is_wanted = |one: &Decided| page.wants(&one.primary, one.service.as_ref());
                stored::before(store, before, room, is_wanted)
            })
            .await?;
        let older = found
            .decisions
            .iter()
            .map(|one| convert::stored(one, &view.policy));
        decisions.extend(older);
        Ok(Decisions {
            decisions,
            next_before: found.stopped_at,
        })
    }

    fn wants(&self, primary: &RegionId, service: Option<&ServiceId>) -> bool {
        self.primary.as_ref().is_none_or(|wanted| wanted == primary)
            && (self.service.is_none() || self.service.as_ref() == service)
    }

    /// The way to the next page (RFC 8288).
    fn link(&self, before: u64) -> HeaderValue {
        let mut link = format!("</v1/decisions?before={before}&limit={}", self.limit);
        if let Some(primary) = &self.primary {
            link.push_str(&format!("&primary_region={primary}"));
        }
        if let Some(service) = &self.service {
            link.push_str(&format!("&service={service}"));
        }
        HeaderValue::try_from(format!("{link}>; rel=\"next\""))
            .expect("ids and digits are a header value")
    }
}

impl Written {
    /// With a way to the next page.
    fn linked(mut self, link: Option<HeaderValue>) -> Self {
        self.more = link.map(|link| (header::LINK, link));
        self
    }
}

impl App {
    /// Reads the store on a thread that may block.
    pub(in crate::http) async fn read_store<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn Read) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Refused> {
        let unavailable = |detail: String| {
            Refused::new(
                Code::Unavailable,
                detail,
                "ask again; what is newer is answered from memory",
            )
        };
        let reading = Arc::clone(&self.readings).acquire_owned().await;
        let reading = reading.expect("it is never closed");
        let store = Arc::clone(&self.shared.store);
        tokio::task::spawn_blocking(move || {
            // Whoever asked may leave; the thread is taken until it has noticed.
            let _reading = reading;
            read(&*store)
        })
        .await
        .map_err(|_| unavailable("the reading was cut off".to_owned()))?
        .map_err(|error| unavailable(format!("the store cannot be read: {error}")))
    }
}
