//! What is at fault, whose view does not count, what is waited for, and what was not done.

use leeward_common::api::v1::{
    Action, FailStatic, FaultKind, FaultPlace, Faults, Hesitation, Hesitations, LocatedFault,
    NotCounted, Reason, Waiting,
};
use leeward_engine::{
    fault::{self, Place},
    intent::{Owner, Rule},
    select::Ranking,
    verdict::verdict,
    view::{Notice, NoticeCode, SelectionView, View, Vote},
    waiting::{self, WaitingCode},
};

use super::{Moment, overview, percent, plural};

/// Everything at fault.
#[must_use]
pub fn faults(moment: &Moment<'_>) -> Faults {
    let view = moment.view;
    let verdict = verdict(view, moment.now());
    let not_counted: Vec<_> = not_counted(view).collect();
    let counted = view.agents.len().saturating_sub(not_counted.len());
    Faults {
        summary: verdict.sentence,
        state: overview::state(verdict.severity),
        faults: view.faults.iter().map(located).collect(),
        not_counted,
        agents_counted: u32::try_from(counted).unwrap_or(u32::MAX),
        fail_static: fail_static(view),
        graph_version: view.graph_version,
        evaluated_at: view.now.into(),
        stale: moment.is_stale(),
    }
}

fn located(fault: &fault::Fault) -> LocatedFault {
    let kind = match fault.kind {
        fault::FaultKind::Total => FaultKind::Total,
        fault::FaultKind::Grey => FaultKind::Grey,
    };
    let lost = match kind {
        FaultKind::Total => "everything".to_owned(),
        FaultKind::Grey => percent(fault.severity),
    };
    let (seen_by, observers) = (fault.seen_by, plural(fault.observers as usize, "observer"));
    let own = LocatedFault {
        place: FaultPlace::Region,
        kind,
        region_id: fault.place.region().clone(),
        to_region_id: None,
        agent_id: None,
        target_id: None,
        loss_ratio: fault.severity,
        since: fault.since.into(),
        seen_by,
        observers: fault.observers,
        detail: String::new(),
    };
    match (&fault.place, kind) {
        (Place::Agent(region, agent), _) => LocatedFault {
            place: FaultPlace::Agent,
            agent_id: Some(agent.clone()),
            detail: format!("agent {agent} in {region} loses {lost}, and the fault is its own"),
            ..own
        },
        (Place::Target(region, target), _) => LocatedFault {
            place: FaultPlace::Target,
            target_id: Some(target.clone()),
            detail: format!(
                "host {target} loses {lost}, say {seen_by} of {observers}, and others in {region} answer"
            ),
            ..own
        },
        (Place::Region(region), FaultKind::Total) => LocatedFault {
            detail: format!("{region} is down: {seen_by} of {observers} see total loss"),
            ..own
        },
        (Place::Region(region), FaultKind::Grey) => LocatedFault {
            detail: format!(
                "{region} loses {lost} on {seen_by} of its {}",
                plural(fault.observers as usize, "link")
            ),
            ..own
        },
        (Place::Link(pair), _) => {
            let (a, b) = pair.regions();
            LocatedFault {
                place: FaultPlace::Link,
                to_region_id: Some(b.clone()),
                detail: format!(
                    "{lost} is lost between {a} and {b}, say {seen_by} of {observers}, and both are well otherwise"
                ),
                ..own
            }
        }
    }
}

fn not_counted(view: &View) -> impl Iterator<Item = NotCounted> + '_ {
    view.agents.iter().filter_map(|(id, agent)| {
        let (code, detail) = match agent.vote {
            Vote::Counts => return None,
            Vote::Silent => ("silent", "it was not heard of lately"),
            Vote::AtFault => ("at_fault", "everything fails to it that others see well"),
            Vote::Suspect => (
                "suspect",
                "by its own account it could not probe as it should",
            ),
        };
        let is_its = |fault: &&fault::Fault| {
            fault.kind == fault::FaultKind::Total
                && matches!(&fault.place, Place::Agent(_, agent) if agent == id)
        };
        let since = match agent.vote {
            Vote::Silent => agent.last_report_at,
            _ => view.faults.iter().find(is_its).map(|fault| fault.since),
        };
        Some(NotCounted {
            agent_id: id.clone(),
            region_id: agent.region.clone(),
            code: code.to_owned(),
            detail: detail.to_owned(),
            since: since.map(Into::into),
        })
    })
}

/// Why nothing moves by itself, if the observers are cut off.
pub(super) fn fail_static(view: &View) -> Option<FailStatic> {
    let cut_off = view.fail_static.as_ref()?;
    Some(FailStatic {
        since: cut_off.since.into(),
        detail: cut_off.detail.clone(),
    })
}

/// What a selection waits for, as the API tells it.
pub(super) fn waiting(owner: &Owner, selection: &SelectionView) -> Option<Waiting> {
    let waiting = selection.waiting.as_ref()?;
    Some(told(waiting, owner, selection.selected.as_ref()))
}

fn told(
    waiting: &waiting::Waiting,
    owner: &Owner,
    selected: Option<&leeward_common::id::RegionId>,
) -> Waiting {
    Waiting {
        code: waiting.code.code().to_owned(),
        region_id: waiting.to.clone(),
        until: waiting.until.map(Into::into),
        detail: waiting.words(owner, selected),
    }
}

/// What is being done about a better region, for a primary as for a service.
pub(super) fn action(
    moment: &Moment<'_>,
    owner: &Owner,
    selection: &SelectionView,
    ranking: &Ranking,
) -> Action {
    if moment.view.fail_static.is_some() {
        return Action::FailStatic;
    }
    if is_kept(moment, owner) {
        return Action::Frozen;
    }
    let own = selection.selected.as_ref();
    let own = own.and_then(|region| ranking.candidate(region));
    let must_leave = own.is_some_and(|own| !own.eligible) && ranking.best().is_some();
    match selection.waiting.as_ref().map(|waiting| waiting.code) {
        Some(WaitingCode::CutOff) => Action::FailStatic,
        Some(WaitingCode::Silence | WaitingCode::Confirming | WaitingCode::Patience) => {
            Action::Switch
        }
        Some(
            WaitingCode::FailbackManual
            | WaitingCode::Flapping
            | WaitingCode::Held
            | WaitingCode::Budget
            | WaitingCode::Storm,
        ) => Action::Hold,
        Some(WaitingCode::Doubt | WaitingCode::Routing | WaitingCode::Subsiding) => Action::None,
        None if must_leave => Action::Switch,
        None => Action::None,
    }
}

/// Whether an override keeps a selection where it is.
fn is_kept(moment: &Moment<'_>, owner: &Owner) -> bool {
    let now = moment.now();
    let overrides = moment.view.intents.overrides.values();
    overrides
        .filter(|known| known.what.until > now)
        .any(|known| match &known.what.rule {
            Rule::Freeze { owner: None } => true,
            Rule::Freeze { owner: Some(other) } | Rule::Pin { owner: other, .. } => other == owner,
            Rule::Drain { .. } | Rule::Forbid { .. } => false,
        })
}

/// What somebody should know about a selection.
pub(super) fn notices(selection: &SelectionView) -> Vec<Reason> {
    let notice = |notice: &Notice| Reason {
        code: match notice.code {
            NoticeCode::PinHurts => "pin_hurts",
            NoticeCode::FreezeHurts => "freeze_hurts",
            NoticeCode::Conflict => "conflict",
            NoticeCode::Stuck => "stuck",
        }
        .to_owned(),
        detail: notice.detail.clone(),
    };
    selection.notices.iter().map(notice).collect()
}

/// Moves that were not made, newest first; at most `limit`.
#[must_use]
pub fn hesitations(view: &View, limit: usize) -> Hesitations {
    let newest = view.hesitations.iter().rev();
    Hesitations {
        hesitations: newest.take(limit).map(|own| hesitation(own)).collect(),
    }
}

/// A move that was not made.
#[must_use]
pub fn hesitation(own: &waiting::Hesitation) -> Hesitation {
    let (primary_region, service_id) = match &own.owner {
        Owner::Region(region) => (Some(region.clone()), None),
        Owner::Service(service) => (None, Some(service.clone())),
    };
    let waiting = told(&own.waiting, &own.owner, own.selected.as_ref());
    let to = own.waiting.to.as_ref().map_or("another", |to| to.as_str());
    let summary = match own.ruled_out {
        true => format!("{} does not go to {to} after all", own.owner),
        false => waiting.detail.clone(),
    };
    Hesitation {
        at: own.at.into(),
        primary_region,
        service_id,
        selected_region: own.selected.clone(),
        waiting,
        ruled_out: own.ruled_out,
        summary,
    }
}
