//! Where services run, would run, and could run.

use std::collections::BTreeSet;

use leeward_common::{
    api::v1::{
        ServiceExplanation, ServiceFailover, ServiceLine, Services, Share, State, Unserved, Waiting,
    },
    id::{RegionId, ServiceId},
};
use leeward_engine::{
    decision,
    intent::{Owner, Rule, Service},
    placement,
    select::{self, Ranking},
    view::SelectionView,
};

use super::{Moment, failover, faults, listed, percent};

/// Every service on one line.
#[must_use]
pub fn services(moment: &Moment<'_>) -> Services {
    let intents = &moment.view.intents;
    let line = |id: &ServiceId| {
        let answer = answer(moment, id)?;
        let known = intents.services.get(id)?;
        Some(ServiceLine {
            service_id: id.clone(),
            version: known.version,
            who: known.who.clone(),
            home: answer.home,
            selected_region: answer.selected_region,
            priority: known.what.priority,
            state: answer.state,
            summary: answer.summary,
        })
    };
    Services {
        services: intents.services.keys().filter_map(line).collect(),
        version: intents.version,
    }
}

/// Where a service should run; `None` if nobody has defined it.
#[must_use]
pub fn service_failover(moment: &Moment<'_>, id: &ServiceId) -> Option<ServiceFailover> {
    let answer = answer(moment, id)?;
    let Some(selected) = answer.selected_region.clone() else {
        return Some(answer);
    };
    let what_if = placement::what_if(moment.view, &BTreeSet::from([selected]));
    let fate = what_if.services.get(id);
    Some(ServiceFailover {
        standby: fate.map_or_else(Vec::new, |fate| shares(&fate.after)),
        standby_unserved: fate.and_then(|fate| unserved(fate.unserved.as_ref())),
        ..answer
    })
}

/// Where a service should run, and what would change that; `None` if nobody has defined it.
#[must_use]
pub fn service_explanation(moment: &Moment<'_>, id: &ServiceId) -> Option<ServiceExplanation> {
    Some(ServiceExplanation {
        failover: service_failover(moment, id)?,
        would_change_if: failover::would_change_if(moment, &Owner::Service(id.clone())),
    })
}

/// The same without where it would go if its region failed, for which everything is placed anew.
fn answer(moment: &Moment<'_>, id: &ServiceId) -> Option<ServiceFailover> {
    let view = moment.view;
    let known = view.intents.services.get(id)?;
    let owner = Owner::Service(id.clone());
    let ranking = view.service_ranking(id)?;
    let selection = view.services.get(id).map(|own| (**own).clone());
    let selection = selection.unwrap_or_default();
    let standing = Standing {
        moment,
        id,
        service: &known.what,
        selection: &selection,
        ranking: &ranking,
    };
    let waiting = faults::waiting(&owner, &selection);
    let own = standing.own();
    let data_age = own.and_then(|own| own.data_age);
    let overrides = view.intents.overrides.iter();
    let overrides = overrides.filter(|(_, known)| {
        known.what.until > moment.now() && concerns(&known.what.rule, &owner, &ranking)
    });
    Some(ServiceFailover {
        service_id: id.clone(),
        home: known.what.home.clone(),
        selected_region: selection.selected.clone(),
        recommended_region: ranking.best().map(|best| best.region.clone()),
        action: faults::action(moment, &owner, &selection, &ranking),
        state: standing.state(),
        summary: standing.summary(waiting.as_ref()),
        waiting,
        fail_static: faults::fail_static(view),
        decided_at: selection.since.map(Into::into),
        decision_id: selection.decision,
        previous: failover::previous(moment, &owner, &selection),
        held_until: selection.held_until.map(Into::into),
        assignment: shares(&selection.assignment),
        unserved: unserved(selection.unserved.as_ref()),
        standby: Vec::new(),
        standby_unserved: None,
        notices: faults::notices(&selection),
        overrides: overrides.map(|(id, _)| id.clone()).collect(),
        perspective: failover::perspective(&ranking),
        candidates: failover::candidates(&ranking, &view.policy, moment.late),
        data_age_ms: data_age.map(|age| super::milliseconds(moment.age(age))),
        vantage_points: own.map_or(0, |own| own.vantage_points),
        service_version: known.version,
        graph_version: view.graph_version,
        policy_version: view.policy_version.to_string(),
        evaluated_at: view.now.into(),
        stale: moment.is_stale(),
    })
}

/// What an answer about one service is made from.
struct Standing<'a> {
    moment: &'a Moment<'a>,
    id: &'a ServiceId,
    service: &'a Service,
    selection: &'a SelectionView,
    ranking: &'a Ranking,
}

impl Standing<'_> {
    /// The selected region among the candidates.
    fn own(&self) -> Option<&select::Candidate> {
        let selected = self.selection.selected.as_ref()?;
        self.ranking.candidate(selected)
    }

    fn state(&self) -> State {
        let is_sound = self.own().is_some_and(|own| own.eligible)
            && self.selection.notices.is_empty()
            && !self.moment.is_stale();
        match &self.selection.selected {
            None if self.selection.since.is_none() => State::Pending,
            None => State::Bad,
            Some(_) if self.selection.unserved.is_some() => State::Bad,
            Some(_) if is_sound => State::Ok,
            Some(_) => State::Degraded,
        }
    }

    fn summary(&self, waiting: Option<&Waiting>) -> String {
        let id = self.id;
        let Some(selected) = &self.selection.selected else {
            return format!(
                "{id} has nowhere to run: {}",
                failover::refusals(self.ranking)
            );
        };
        let place = match &self.selection.assignment[..] {
            [] | [_] => selected.to_string(),
            shares => {
                let parts: Vec<String> = shares
                    .iter()
                    .map(|share| format!("{} ({})", share.region, percent(share.share)))
                    .collect();
                listed(&parts.iter().map(String::as_str).collect::<Vec<_>>())
            }
        };
        let home = match *selected == self.service.home {
            true => ", its home",
            false => "",
        };
        let mut sentence = format!("{id} runs in {place}{home}");
        if let Some(unserved) = &self.selection.unserved {
            let part = percent(unserved.share);
            sentence.push_str(&format!(
                "; {part} of it runs nowhere: {}",
                unserved.because
            ));
        } else if let Some(refusal) = self.own().and_then(|own| own.reasons.first()) {
            sentence.push_str(&format!(", although: {}", refusal.detail));
        }
        if let Some(waiting) = waiting {
            sentence.push_str(&format!("; {}", waiting.detail));
        }
        sentence
    }
}

fn concerns(rule: &Rule, owner: &Owner, ranking: &Ranking) -> bool {
    match rule {
        Rule::Drain { region, .. } => ranking.candidate(region).is_some(),
        Rule::Pin { owner: other, .. } | Rule::Forbid { owner: other, .. } => other == owner,
        Rule::Freeze { owner: other } => other.as_ref().is_none_or(|other| other == owner),
    }
}

/// Shares as the API tells them.
pub(super) fn shares(shares: &[decision::Share]) -> Vec<Share> {
    let share = |share: &decision::Share| Share {
        region_id: RegionId::clone(&share.region),
        share: share.share,
    };
    shares.iter().map(share).collect()
}

/// What runs nowhere, as the API tells it.
pub(super) fn unserved(unserved: Option<&decision::Unserved>) -> Option<Unserved> {
    unserved.map(|unserved| Unserved {
        share: unserved.share,
        because: unserved.because.clone(),
    })
}
