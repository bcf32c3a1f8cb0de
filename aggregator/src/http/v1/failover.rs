//! Where a region fails over to.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::ready,
};

use axum::{
    extract::{Path, State},
    http::{HeaderMap, Uri},
    response::Response,
};
use leeward_common::{
    api::{
        problem::{Code, Problem},
        v1::{Explanation, Failover, FailoverConfiguration, Failovers, ServiceExplanation},
    },
    id::RegionId,
};
use leeward_engine::{
    select::{self, Request},
    view::View,
};

use super::Now;
use crate::{
    http::{
        App,
        answer::answer,
        body::Json,
        convert,
        error::Refused,
        names,
        places::Client,
        wait::{MaybeWait, Wait},
    },
    shared::Shared,
};

/// Which region each primary fails over to, on one line each.
///
/// The ETag changes as those of the single answers do.
#[utoipa::path(
    get, path = "/v1/failover", tag = "failover", params(MaybeWait),
    responses(
        (status = 200, description = "The answers", body = Failovers),
        (status = 304, description = "The answers are still those with this ETag"),
        (status = 429, description = "No place left to wait, for this client or for all", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(in crate::http) async fn failovers(
    State(app): State<App>,
    client: Client,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let wait = Wait::only(&uri, &headers)?;
    app.answer(&headers, client, wait, |app| ready(app.page().failovers()))
        .await
}

/// Which region a primary fails over to, and why.
///
/// The ETag changes when the answer does (selection, state, eligibility of the candidates, hold) and not with every
/// figure: with If-None-Match a client is only told of what it may want to act upon.
#[utoipa::path(
    get, path = "/v1/failover/{primary_region}", tag = "failover",
    params(("primary_region" = String, Path, description = "The region to fail over from"), MaybeWait),
    responses(
        (status = 200, description = "The answer", body = Failover),
        (status = 304, description = "The answer is still the one with this ETag"),
        (status = 404, description = "No such region; lists near names", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "No place left to wait, for this client or for all", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(in crate::http) async fn failover(
    State(app): State<App>,
    client: Client,
    Path(primary): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let wait = Wait::only(&uri, &headers)?;
    app.answer(&headers, client, wait, |app| {
        ready(app.page().failover(&primary))
    })
    .await
}

/// The same answer with what would change it: for the selected region how much worse each of its measures may become, for
/// every other candidate how much better it must.
#[utoipa::path(
    get, path = "/v1/failover/{primary_region}/explanation", tag = "failover",
    params(("primary_region" = String, Path, description = "The region to fail over from")),
    responses(
        (status = 200, description = "The answer, and what would change it", body = Explanation),
        (status = 404, description = "No such region; lists near names", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(in crate::http) async fn explanation(
    State(shared): State<Shared>,
    Path(primary): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let now = Now::of(&shared);
    let primary = names::region(&now.view.policy, &primary)?;
    answer(&headers, &convert::explanation(&now.moment(), primary))
}

/// Where a service should run, and what would change that.
#[utoipa::path(
    get, path = "/v1/services/{service_id}/explanation", tag = "services",
    params(("service_id" = String, Path, description = "The service")),
    responses(
        (status = 200, description = "The answer, and what would change it", body = ServiceExplanation),
        (status = 404, description = "No such service; lists near names", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(in crate::http) async fn service_explanation(
    State(shared): State<Shared>,
    Path(service): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let now = Now::of(&shared);
    let service = names::service(&now.view.intents, &service)?;
    answer(
        &headers,
        &convert::service_explanation(&now.moment(), service),
    )
}

/// Judges a failover configuration now, without remembering it.
#[utoipa::path(
    post, path = "/v1/failover/evaluate", tag = "failover",
    request_body = FailoverConfiguration,
    responses(
        (status = 200, description = "The answer", body = Failover),
        (status = 400, description = "The body cannot be read; says where", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such region; lists near names", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The configuration makes no sense", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(in crate::http) async fn evaluate(
    State(shared): State<Shared>,
    headers: HeaderMap,
    Json(configuration): Json<FailoverConfiguration>,
) -> Result<Response, Refused> {
    let now = Now::of(&shared);
    sound(&now.view, &configuration)?;
    let FailoverConfiguration {
        primary_region,
        potential_failover_regions,
        weights,
    } = configuration;
    let policy = &now.view.policy;
    let request = Request {
        multipliers: Some(&weights),
        ..Request::of_candidates(policy, &primary_region, potential_failover_regions)
    };
    let ranking = select::rank(&now.view.picture(), &request);
    answer(
        &headers,
        &convert::evaluated(&now.moment(), &primary_region, &ranking),
    )
}

fn sound(view: &View, configuration: &FailoverConfiguration) -> Result<(), Refused> {
    let FailoverConfiguration {
        primary_region,
        potential_failover_regions: candidates,
        weights,
    } = configuration;
    names::region(&view.policy, primary_region.as_str())?;
    for candidate in candidates {
        names::region(&view.policy, candidate.as_str())?;
    }
    if candidates.is_empty() {
        return Err(invalid(
            "potential_failover_regions is empty",
            "name at least one candidate",
        ));
    }
    let mut seen = BTreeSet::new();
    if let Some(twice) = candidates.iter().find(|candidate| !seen.insert(*candidate)) {
        return Err(invalid(
            &format!("{twice} is a candidate twice"),
            "name each candidate once",
        ));
    }
    if seen.contains(primary_region) {
        let detail = format!("{primary_region} is the primary and a candidate");
        return Err(invalid(
            &detail,
            "a region does not stand in for itself; leave it out of the candidates",
        ));
    }
    sound_weights(weights, &seen)
}

fn sound_weights(
    weights: &BTreeMap<RegionId, f64>,
    candidates: &BTreeSet<&RegionId>,
) -> Result<(), Refused> {
    for (region, weight) in weights {
        if !candidates.contains(region) {
            let detail = format!("weights.{region} is no candidate's");
            return Err(invalid(
                &detail,
                "name it among potential_failover_regions or leave its weight out",
            ));
        }
        if !(1e-6..=1e6).contains(weight) {
            let detail = format!("weights.{region} is {weight}");
            return Err(invalid(
                &detail,
                "use a multiplier from 0.000001 to 1000000; 1 is neutral",
            ));
        }
    }
    Ok(())
}

fn invalid(detail: &str, what_to_do: &str) -> Refused {
    Refused::new(Code::InvalidRequest, detail, what_to_do)
}
