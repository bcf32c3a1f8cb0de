//! Agents: what the engine heard of them, and what they say of themselves.

use leeward_common::{
    api::v1::{Agent, AgentAccount, Agents, RefusedTarget, State},
    id::AgentId,
};
use leeward_engine::view::{AgentView, Vote};

use super::Moment;
use crate::ingest::roster::{Member, Roster};

/// Every agent that was heard of.
#[must_use]
pub fn agents(moment: &Moment<'_>, roster: &Roster) -> Agents {
    let mut ids: Vec<&AgentId> = moment
        .view
        .agents
        .keys()
        .chain(roster.members.keys())
        .collect();
    ids.sort();
    ids.dedup();
    Agents {
        agents: ids
            .into_iter()
            .filter_map(|id| agent(moment, roster, id))
            .collect(),
    }
}

/// One agent; `None` if nobody heard of it.
#[must_use]
pub fn agent(moment: &Moment<'_>, roster: &Roster, id: &AgentId) -> Option<Agent> {
    let known = moment.view.agents.get(id);
    let member = roster.members.get(id).map(AsRef::as_ref);
    let registration = member.map(|member| &member.registration);
    let region = known
        .map(|known| &known.region)
        .or(registration.map(|own| &own.region))?;
    let (state, detail) = state(moment, known);
    let last_report_at = known.and_then(|known| known.last_report_at);
    Some(Agent {
        agent_id: id.clone(),
        region_id: region.clone(),
        state,
        detail,
        transport: member
            .and_then(|member| member.session)
            .map(|session| session.transport.as_str().to_owned()),
        connected_since: member
            .and_then(|member| member.session)
            .map(|session| session.since.into()),
        last_report_at: last_report_at.map(Into::into),
        data_age_ms: last_report_at.map(|at| super::milliseconds(moment.since(at))),
        addresses: registration
            .map(|own| &own.addresses)
            .or(known.map(|known| &known.addresses))?
            .clone(),
        build: registration
            .map(|own| &own.build)
            .or(known.map(|known| &known.build))?
            .clone(),
        own_account: member.and_then(account),
        refused_targets: member.map(refused).unwrap_or_default(),
    })
}

fn state(moment: &Moment<'_>, known: Option<&AgentView>) -> (State, String) {
    let Some(known) = known else {
        return (
            State::Pending,
            "it registered and has not reported yet".to_owned(),
        );
    };
    let Some(last) = known.last_report_at else {
        return (
            State::Pending,
            "it connected and has not reported yet".to_owned(),
        );
    };
    let age = moment.since(last).as_secs_f64();
    match known.vote {
        Vote::Silent => (
            State::Unknown,
            format!("silent for {age:.1} s; its view does not count"),
        ),
        Vote::AtFault => (
            State::Degraded,
            "it sees fail what others see well, so the fault is its own; its view does not count"
                .to_owned(),
        ),
        Vote::Suspect => (
            State::Degraded,
            "it says itself that it cannot be trusted; its view does not count".to_owned(),
        ),
        Vote::Counts if moment.is_stale() => {
            (State::Unknown, format!("not looked at for {age:.1} s"))
        }
        Vote::Counts => (State::Ok, "its view counts".to_owned()),
    }
}

fn account(member: &Member) -> Option<AgentAccount> {
    let (heard_at, status) = member.status.as_ref()?;
    Some(AgentAccount {
        heard_at: (*heard_at).into(),
        scheduled: status.scheduled,
        sent: status.sent,
        not_sent: status.not_sent,
        local_drop: status.local_drop,
        send_lateness_p99_us: status.send_lateness_p99_us,
        strays: status.strays,
        batches_waiting: status.batches_waiting,
        batches_dropped: status.batches_dropped,
        batches_refused: status.batches_refused,
        batches_coarsened: status.batches_coarsened,
        batches_on_disk: status.batches_on_disk,
        spool_damaged: status.spool_damaged,
        spool_trouble: status.spool_trouble.clone(),
        resident_bytes: status.resident_bytes,
        cpu_us: status.cpu_us,
        stamps: status.stamps.clone(),
    })
}

fn refused(member: &Member) -> Vec<RefusedTarget> {
    let applied = member
        .mesh_applied
        .iter()
        .flat_map(|applied| &applied.refused);
    applied
        .map(|refused| RefusedTarget {
            target_id: refused.target.to_string(),
            reason: refused.reason.clone(),
        })
        .collect()
}
