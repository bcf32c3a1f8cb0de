//! The HTTP API: routes only. What they answer is in `v1`, how it looks in `convert`.
//!
//! ```text
//!  serve     sockets, TLS, limits, shutdown
//!    └ count         counts every answer
//!        └ routes    here; OpenAPI is made from the same lines
//!            ├ v1        one file per noun: read the request, pick from the view
//!            │   └ convert   View -> API types; the only place where the two meet
//!            ├ auth      bearer tokens, for writes
//!            ├ body      JSON in, with the place of a fault
//!            ├ answer    JSON out, ETag, 304
//!            ├ lines     answers that grow, line by line or piece by piece
//!            ├ cache     the answers of one view, written once
//!            ├ wait      an answer that waits until it is another one
//!            ├ feed/     what changed, told to all who stay
//!            └ places    how many may stay
//! ```

use std::{
    ops::Deref,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    extract::FromRef,
    http::{Method, Uri},
    middleware,
    routing::get,
};
use leeward_common::{
    api::problem::{Code, Problem},
    id::{OfferId, OverrideId, RegionId, ReservationId, ServiceId},
};
use tokio::sync::Semaphore;
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use self::{
    auth::BearerScheme,
    v1::{noun, policies::ShadowNoun},
};
use crate::{bandwidth::Uplinks, shared::Shared};

mod answer;
mod auth;
mod body;
mod cache;
pub mod convert;
mod count;
mod error;
mod feed;
mod lines;
mod names;
mod patience;
mod places;
mod probes;
mod serve;
mod v1;
mod wait;

pub use serve::serve;

/// What the handlers share. One count to clone, not ten: it is cloned for every request.
#[derive(Clone, Debug)]
struct App(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    shared: Shared,
    cache: cache::Cache,
    feed: feed::Feed,
    places: Arc<places::Places>,
    /// Readings of the store at once: they block a thread each.
    readings: Arc<Semaphore>,
    openapi: String,
    /// Held by whoever works on something long: a replay, a simulation.
    workbench: Arc<Semaphore>,
    /// Which regions a heavy test takes.
    uplinks: Mutex<Uplinks>,
}

/// Where the document of all other routes is.
const OPENAPI: &str = "/openapi.json";

/// Readings of the store at once. More would only wait for the same disk.
const READINGS: usize = 2;

impl App {
    fn new(shared: Shared) -> Self {
        Self(Arc::new(Parts {
            cache: cache::Cache::default(),
            feed: feed::Feed::default(),
            places: Arc::new(places::Places::new(Arc::clone(&shared.metrics))),
            readings: Arc::new(Semaphore::new(READINGS)),
            openapi: openapi(),
            workbench: Arc::new(Semaphore::new(1)),
            uplinks: Mutex::default(),
            shared,
        }))
    }
}

impl Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl FromRef<App> for Shared {
    fn from_ref(app: &App) -> Self {
        app.shared.clone()
    }
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Leeward aggregator",
        description = "Where services should be, and why. Reads need no token; writes need a bearer token. \
            Errors are RFC 9457 problems with a stable `code` and what to `do`. Every measured value carries its bounds, \
            its age and its state. `null` means unknown, never zero.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
    ),
    modifiers(&BearerScheme),
    tags(
        (name = "failover", description = "Where a region fails over to"),
        (name = "decisions", description = "What was decided, and what else would have been"),
        (name = "network", description = "Regions, links and who measures them"),
        (name = "services", description = "What runs somewhere, where it should run, and whether it could"),
        (name = "capacity", description = "What regions offer, what is set aside, and what is left"),
        (name = "overrides", description = "An operator knows better, until it expires"),
        (name = "policies", description = "The policy in force, and one that only records what it would do"),
        (name = "signals", description = "Measurements that others inject"),
        (name = "service", description = "The aggregator itself"),
    ),
)]
struct ApiDoc;

fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(ApiDoc::openapi())
        .routes(routes!(v1::overview::overview))
        .routes(routes!(v1::failover::failovers))
        .routes(routes!(v1::failover::failover))
        .routes(routes!(v1::failover::explanation))
        .routes(routes!(v1::failover::evaluate))
        .routes(routes!(v1::failover::service_explanation))
        .routes(routes!(v1::faults::faults))
        .routes(routes!(v1::faults::hesitations))
        .routes(routes!(v1::bgp::prefixes))
        .routes(routes!(v1::bgp::peers))
        .routes(routes!(v1::bgp::events))
        .routes(routes!(v1::decisions::decisions))
        .routes(routes!(v1::decisions::decision))
        .routes(routes!(v1::watch::watch))
        .routes(routes!(v1::replays::replays))
        .routes(routes!(v1::simulations::simulations))
        .routes(routes!(v1::network::graph))
        .routes(routes!(v1::routes::routes))
        .routes(routes!(v1::network::link))
        .routes(routes!(v1::history::history))
        .routes(routes!(v1::traces::traces, v1::traces::order))
        .routes(routes!(v1::traces::outcome))
        .routes(routes!(v1::bandwidth::order))
        .routes(routes!(v1::bandwidth::outcome))
        .routes(routes!(v1::network::regions))
        .routes(routes!(v1::network::region))
        .routes(routes!(v1::agents::agents))
        .routes(routes!(v1::agents::agent))
        .routes(routes!(v1::signals::signals, v1::signals::push))
        .routes(routes!(v1::services::services))
        .routes(noun::routes::<ServiceId>())
        .routes(routes!(v1::services::service_failover))
        .routes(routes!(v1::capacity::capacity))
        .routes(noun::routes::<OfferId>())
        .routes(noun::routes::<ReservationId>())
        .routes(routes!(
            v1::overrides::overrides,
            v1::overrides::new_override
        ))
        .routes(noun::routes::<OverrideId>())
        .routes(routes!(v1::bgp::reaches))
        .routes(noun::routes::<RegionId>())
        .routes(routes!(v1::policies::policies))
        .routes(routes!(v1::policies::current))
        .routes(noun::routes::<ShadowNoun>())
        .routes(routes!(v1::placements::placements))
        .routes(routes!(v1::readiness::readiness))
        .routes(routes!(v1::audit::audit))
        .routes(routes!(v1::backups::backups, v1::backups::new_backup))
        .routes(routes!(probes::healthz))
        .routes(routes!(probes::readyz))
        .routes(routes!(probes::metrics))
}

/// Every route, over this aggregator.
fn router(app: App) -> Router {
    routes()
        .split_for_parts()
        .0
        .route(OPENAPI, get(probes::openapi))
        .fallback(no_such_route)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn_with_state(app.clone(), count::count))
        .with_state(app)
}

/// The OpenAPI document, as `/openapi.json` serves it and as `docs/openapi.json` must be.
#[must_use]
pub fn openapi() -> String {
    text(&routes().into_openapi())
}

fn text(openapi: &utoipa::openapi::OpenApi) -> String {
    let mut text = openapi
        .to_pretty_json()
        .expect("a document of strings and maps is valid JSON");
    text.push('\n');
    text
}

async fn no_such_route(uri: Uri) -> error::Refused {
    let detail = format!("there is nothing at {}", uri.path());
    Problem::new(
        Code::NoSuchRoute,
        detail,
        "GET /openapi.json lists every route",
    )
    .into()
}

async fn method_not_allowed(method: Method, uri: Uri) -> error::Refused {
    let detail = format!("{} does not take {method}", uri.path());
    Problem::new(
        Code::MethodNotAllowed,
        detail,
        "GET /openapi.json lists every route with its methods",
    )
    .into()
}

#[cfg(test)]
mod tests;
