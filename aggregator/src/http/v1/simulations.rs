//! What would happen.

use std::{
    ops::ControlFlow,
    time::{Duration, Instant},
};

use axum::{extract::State, http::HeaderMap, response::Response};
use leeward_common::{
    api::{
        problem::{Code, Problem},
        v1::{Simulation, SimulationEvent, SimulationRequest},
    },
    id::{OverrideId, RegionId},
    ratio::Ratio,
    time::Timestamp,
};
use leeward_engine::{
    Engine,
    intent::{Amendment, Change, Override, Rule},
    scenario::{Action, Event, LinkChange, Roads},
    simulate::live::{self, MAX_REGION, WhatIf},
    view::{Link, View},
};

use super::{Now, replays};
use crate::{
    config::Role,
    http::{App, answer::answer, auth, body::Json, convert, error::Refused, names},
    replay::{ReplayError, engine_at},
};

/// The longest simulation, in virtual time.
const MAX_DURATION: Duration = Duration::from_secs(1800);

/// How long one may take; then the answer says how far it came.
const MAX_WORK: Duration = Duration::from_secs(30);

/// How many decisions one may take.
const MAX_DECISIONS: usize = 2_000;

/// How many events it may have.
const MAX_EVENTS: usize = 200;

/// What would be decided, when and why, if this happened now.
///
/// The engine is read from the store, not taken from where it works, and goes on in virtual time on a network that is what
/// the live estimates say. Nothing of what is in force can change by it. One replay or simulation is worked on at a time.
#[utoipa::path(
    post, path = "/v1/simulations", tag = "decisions",
    request_body = SimulationRequest,
    security(("bearer" = [])),
    responses(
        (status = 200, description = "What would happen", body = Simulation),
        (status = 400, description = "The body cannot be read; says where", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "No token, or one that nobody knows", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such region; lists near names", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "An event makes no sense, or it is too long", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Another replay or simulation is under way, or the state of then is not known", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(in crate::http) async fn simulations(
    State(app): State<App>,
    headers: HeaderMap,
    // The token is looked at before the body is read.
    body: axum::extract::Request,
) -> Result<Response, Refused> {
    auth::holder(&app.shared, &headers, Role::Viewer, "POST /v1/simulations").await?;
    let Json(request) =
        <Json<SimulationRequest> as axum::extract::FromRequest<()>>::from_request(body, &())
            .await?;
    let now = Now::of(&app.shared);
    bounded(&request)?;
    let at = request
        .at
        .map_or(now.at, |when| when.at(now.at))
        .min(now.view.now);
    let permit = replays::permit(&app)?;
    let store = app.shared.store.clone();
    let worked = tokio::task::spawn_blocking(move || {
        let simulation = engine_at(&*store, at)
            .map_err(|error| unknown(&error))
            .and_then(|engine| simulate(engine, &request));
        drop(permit);
        simulation
    });
    let simulation = worked.await.map_err(|_| {
        Refused::new(
            Code::Internal,
            "the simulation broke off",
            "report this as a defect",
        )
    })??;
    answer(&headers, &simulation)
}

fn unknown(error: &ReplayError) -> Refused {
    Refused::new(
        Code::Unavailable,
        format!("the state of then is not known: {error}"),
        "ask for a time that the journal reaches back to",
    )
}

fn simulate(engine: Engine, request: &SimulationRequest) -> Result<Simulation, Refused> {
    let what_if = what_if(&engine.view(), request)?;
    let began = Instant::now();
    let outcome = live::run(
        engine,
        &what_if,
        &mut |_, decisions| match began.elapsed() > MAX_WORK || decisions > MAX_DECISIONS {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        },
    );
    Ok(convert::simulation(&what_if, &outcome))
}

fn bounded(request: &SimulationRequest) -> Result<(), Refused> {
    let duration = Duration::from_millis(request.duration_ms);
    if duration.is_zero() || duration > MAX_DURATION {
        return Err(invalid(
            format!("duration_ms is {}", request.duration_ms),
            &format!("use 1 to {}", MAX_DURATION.as_millis()),
        ));
    }
    if request.events.len() > MAX_EVENTS {
        return Err(invalid(
            format!("there are {} events", request.events.len()),
            &format!("send at most {MAX_EVENTS}"),
        ));
    }
    Ok(())
}

fn what_if(view: &View, request: &SimulationRequest) -> Result<WhatIf, Refused> {
    if let Some(long) = view
        .policy
        .regions
        .keys()
        .find(|id| id.as_str().len() > MAX_REGION)
    {
        return Err(invalid(
            format!("region {long} has a name of more than {MAX_REGION} letters"),
            "its agents cannot be numbered; regions with shorter names can be simulated",
        ));
    }
    let mut what_if = WhatIf {
        seed: request.seed,
        duration: Duration::from_millis(request.duration_ms),
        events: Vec::new(),
        changes: Vec::new(),
    };
    for (number, event) in request.events.iter().enumerate() {
        add(view, number + 1, event, &mut what_if)?;
    }
    what_if.events.sort_by_key(|event| event.at);
    what_if.changes.sort_by_key(|(at, _)| *at);
    Ok(what_if)
}

fn add(
    view: &View,
    number: usize,
    event: &SimulationEvent,
    what_if: &mut WhatIf,
) -> Result<(), Refused> {
    let known = |name: &RegionId| names::region(&view.policy, name.as_str()).cloned();
    let at = Duration::from_millis(event.at_ms);
    let mut actions = Vec::new();
    if let Some(region) = &event.region_down {
        actions.push(Action::RegionDown(known(region)?));
    }
    if let Some(region) = &event.region_up {
        actions.push(Action::RegionUp(known(region)?));
    }
    if let Some(agent) = &event.agent_stop {
        let virtual_name = live::virtual_name(view, agent).ok_or_else(|| {
            let agents = view.agents.keys().map(leeward_common::id::AgentId::as_str);
            names::unknown(
                Code::UnknownAgent,
                "agent",
                agent.as_str(),
                agents,
                "/v1/agents",
            )
        })?;
        actions.push(Action::AgentStop(virtual_name));
    }
    if let Some(region) = &event.drain {
        let until = Timestamp::from_unix_us(u64::MAX);
        what_if.changes.push((at, drain(known(region)?, until)?));
    }
    actions.extend(link_actions(view, number, event)?);
    let drained = event
        .drain
        .as_ref()
        .map(|region| format!("{region} is drained"));
    if actions.is_empty() && drained.is_none() && event.say.is_none() {
        return Err(invalid(
            format!("event {number} does nothing"),
            "say region_down, region_up, agent_stop, drain, or links with loss_ratio, delay_ms, added_delay_ms or clear",
        ));
    }
    what_if.events.push(Event {
        at,
        actions,
        say: event.say.clone().or(drained),
        quiet: false,
    });
    Ok(())
}

fn drain(region: RegionId, until: Timestamp) -> Result<Change, Refused> {
    let id = OverrideId::parse("simulated-drain")
        .map_err(|error| invalid(error.to_string(), "report this as a defect"))?;
    let rule = Rule::Drain {
        region,
        suspect: false,
    };
    Ok(Change {
        who: "simulation".to_owned(),
        why: "what if".to_owned(),
        what: Amendment::PutOverride(id, Override { rule, until }),
    })
}

fn link_actions(
    view: &View,
    number: usize,
    event: &SimulationEvent,
) -> Result<Vec<Action>, Refused> {
    let changes = event.loss_ratio.is_some()
        || event.delay_ms.is_some()
        || event.added_delay_ms.is_some()
        || event.clear;
    if event.links.is_empty() && !changes {
        return Ok(Vec::new());
    }
    if event.links.is_empty() || !changes {
        return Err(invalid(
            format!("event {number} names links or what changes about them, not both"),
            "send both, like \"links\": [\"a->b\"], \"loss_ratio\": 0.08",
        ));
    }
    let base = live::links(view);
    let mut links: Vec<Link> = Vec::new();
    for pattern in &event.links {
        links.extend(matching(view, base.keys(), pattern)?);
    }
    links.sort_unstable();
    links.dedup();
    if event.clear {
        return Ok(vec![Action::Clear {
            roads: roads(links),
        }]);
    }
    let loss = event.loss_ratio.map(Ratio::new).transpose().map_err(|_| {
        let detail = format!("loss_ratio of event {number} is no ratio");
        invalid(detail, "use 0 to 1")
    })?;
    let span = |name: &str, ms: Option<f64>| match ms {
        Some(ms) if !(0.0..=60_000.0).contains(&ms) => Err(invalid(
            format!("{name} of event {number} is {ms}"),
            "use 0 to 60000",
        )),
        ms => Ok(ms.map(|ms| Duration::from_secs_f64(ms / 1_000.0))),
    };
    let delay = span("delay_ms", event.delay_ms)?;
    let added = span("added_delay_ms", event.added_delay_ms)?;
    let set = |link: Link| {
        let own = base.get(&link).map_or(Duration::ZERO, |state| state.delay);
        let delay = match (delay, added) {
            (None, None) => None,
            (delay, added) => Some(delay.unwrap_or(own) + added.unwrap_or_default()),
        };
        Action::Set {
            roads: roads(vec![link]),
            change: LinkChange {
                delay,
                loss,
                ..LinkChange::default()
            },
        }
    };
    Ok(links.into_iter().map(set).collect())
}

fn roads(links: Vec<Link>) -> Roads {
    Roads {
        links,
        flows: Vec::new(),
    }
}

/// The links that a pattern means: `a->b`, `a<->b`, `a->*`, `*->b`.
fn matching<'a>(
    view: &View,
    links: impl Iterator<Item = &'a Link>,
    pattern: &str,
) -> Result<Vec<Link>, Refused> {
    let (ends, both_ways) = match pattern.split_once("<->") {
        Some(ends) => (Some(ends), true),
        None => (pattern.split_once("->"), false),
    };
    let Some((from, to)) = ends else {
        return Err(invalid(
            format!("{pattern:?} is no link"),
            "write \"a->b\", \"a<->b\", \"a->*\" or \"*->b\"",
        ));
    };
    let end = |name: &str| match name.trim() {
        "*" => Ok(None),
        name => names::region(&view.policy, name).map(|region| Some(region.clone())),
    };
    let (from, to) = (end(from)?, end(to)?);
    let is =
        |end: &Option<RegionId>, region: &RegionId| end.as_ref().is_none_or(|end| end == region);
    let means =
        |(a, b): &&Link| (is(&from, a) && is(&to, b)) || (both_ways && is(&from, b) && is(&to, a));
    Ok(links.filter(means).cloned().collect())
}

fn invalid(detail: String, what_to_do: &str) -> Refused {
    Refused::new(Code::InvalidRequest, detail, what_to_do)
}
