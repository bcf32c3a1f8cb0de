//! Who measures.

use axum::{
    extract::{Path, State},
    http::HeaderMap,
    response::Response,
};
use leeward_common::{
    api::{
        problem::{Code, Problem},
        v1::{Agent, Agents},
    },
    id::AgentId,
};

use super::Now;
use crate::{
    http::{answer::answer, convert, error::Refused, names},
    shared::Shared,
};

/// Every agent that was heard of.
#[utoipa::path(get, path = "/v1/agents", tag = "network", responses((status = 200, description = "The agents", body = Agents)))]
pub(in crate::http) async fn agents(
    State(shared): State<Shared>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    answer(
        &headers,
        &convert::agents(&Now::of(&shared).moment(), &shared.roster.load()),
    )
}

/// One agent.
#[utoipa::path(
    get, path = "/v1/agents/{agent}", tag = "network",
    params(("agent" = String, Path, description = "Which")),
    responses(
        (status = 200, description = "The agent", body = Agent),
        (status = 404, description = "Nobody heard of it; lists near names", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(in crate::http) async fn agent(
    State(shared): State<Shared>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let now = Now::of(&shared);
    let roster = shared.roster.load();
    let found = AgentId::parse(&name)
        .ok()
        .and_then(|id| convert::agent(&now.moment(), &roster, &id));
    let Some(agent) = found else {
        let all = convert::agents(&now.moment(), &roster);
        let known = all.agents.iter().map(|agent| agent.agent_id.as_str());
        return Err(names::unknown(
            Code::UnknownAgent,
            "agent",
            &name,
            known,
            "/v1/agents",
        ));
    };
    answer(&headers, &agent)
}
