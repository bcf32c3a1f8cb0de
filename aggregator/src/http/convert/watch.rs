//! What those are told who watch.

use leeward_common::api::v1::{
    Doubt, Failover, FailoverState, Failovers, Overview, RefusedCandidate, RegionStatus, Sentence,
    ServiceState,
};
use leeward_engine::view::Vote;

use super::{Moment, failover, network, overview};

/// An answer without the figures of its candidates.
#[must_use]
pub fn failover_state(answer: Failover) -> FailoverState {
    let refused = answer
        .candidates
        .iter()
        .filter(|candidate| !candidate.eligible);
    FailoverState {
        decision_id: answer.decision_id,
        held_until: answer.held_until,
        refused: refused
            .map(|candidate| RefusedCandidate {
                region_id: candidate.region_id.clone(),
                reasons: candidate.reasons.clone(),
            })
            .collect(),
        stale: answer.stale,
        line: overview::line(answer),
    }
}

/// The answers about all primaries.
#[must_use]
pub fn failovers(moment: &Moment<'_>) -> Failovers {
    let primaries = moment.view.policy.regions.keys();
    Failovers {
        failovers: primaries
            .map(|primary| failover_state(failover(moment, primary)))
            .collect(),
        graph_version: moment.view.graph_version,
        evaluated_at: moment.view.now.into(),
        stale: moment.is_stale(),
    }
}

/// Where each service should run.
pub fn service_states<'a>(moment: &'a Moment<'_>) -> impl Iterator<Item = ServiceState> + 'a {
    let selections = moment.view.services.iter();
    selections.map(|(service, selection)| ServiceState {
        service_id: service.clone(),
        selected_region: selection.selected.clone(),
        decided_at: selection.since.map(Into::into),
        decision_id: selection.decision,
        held_until: selection.held_until.map(Into::into),
    })
}

/// How each region fares.
pub fn regions_status<'a>(moment: &'a Moment<'_>) -> impl Iterator<Item = RegionStatus> + 'a {
    let regions = moment.view.policy.regions.keys();
    let regions = regions.filter_map(|id| network::region(moment, id));
    regions.map(|region| RegionStatus {
        region_id: region.region_id,
        state: region.state,
        detail: region.detail,
        since: region.since,
    })
}

/// Every agent that is doubted.
pub fn doubts<'a>(moment: &'a Moment<'_>) -> impl Iterator<Item = Doubt> + 'a {
    moment.view.agents.iter().filter_map(|(id, agent)| {
        let code = match agent.vote {
            Vote::AtFault => "at_fault",
            Vote::Suspect => "suspect",
            Vote::Counts | Vote::Silent => return None,
        };
        Some(Doubt {
            agent_id: id.clone(),
            region_id: agent.region.clone(),
            doubted: true,
            code: code.to_owned(),
        })
    })
}

/// The overview's sentence.
#[must_use]
pub fn sentence(overview: &Overview) -> Sentence {
    Sentence {
        summary: overview.summary.clone(),
        state: overview.state,
        stale: overview.stale,
    }
}
