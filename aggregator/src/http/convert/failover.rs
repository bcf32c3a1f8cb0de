//! Where a region fails over to, and what was decided before.

use std::time::Duration;

use super::{Moment, faults, measured};
use leeward_common::{
    api::v1::{
        Action, Candidate, Contribution, Decision, Explanation, Failover, Moved, Perspective,
        Previous, Reason, State, WouldChange,
    },
    id::{RegionId, SourceId},
};
use leeward_engine::{
    counterfactual::{Counterfactual, Flip, counterfactuals},
    decision,
    intent::Owner,
    policy::Policy,
    select::{self, Ranking, Term},
    view::{Estimate, Knowledge, SelectionView},
};

/// Where `primary` fails over to, by what was decided.
#[must_use]
pub fn failover(moment: &Moment<'_>, primary: &RegionId) -> Failover {
    let view = moment.view;
    let ranking = view.ranking(primary);
    let selection = view.selections.get(primary);
    let selected = selection.and_then(|selection| selection.selected.clone());
    let since = selection.and_then(|selection| selection.since);
    let held_until = selection.and_then(|selection| selection.held_until);
    let owner = Owner::Region(primary.clone());
    Failover {
        primary_region: primary.clone(),
        state: state(moment, selection.map(AsRef::as_ref), &ranking),
        summary: summary(primary, selection.map(AsRef::as_ref), &ranking),
        selected_region: selected,
        decided_at: since.map(Into::into),
        decision_id: selection.and_then(|selection| selection.decision),
        previous: selection.and_then(|selection| previous(moment, &owner, selection)),
        held_until: held_until.map(Into::into),
        action: selection.map_or(Action::None, |selection| {
            faults::action(moment, &owner, selection, &ranking)
        }),
        waiting: selection.and_then(|selection| faults::waiting(&owner, selection)),
        notices: selection.map_or_else(Vec::new, |selection| faults::notices(selection)),
        ..answer(moment, primary, &ranking)
    }
}

/// Where `primary` would go by this ranking, which nobody decided upon.
#[must_use]
pub fn evaluated(moment: &Moment<'_>, primary: &RegionId, ranking: &Ranking) -> Failover {
    let selection = SelectionView {
        selected: ranking.best().map(|best| best.region.clone()),
        since: Some(moment.view.now),
        ..SelectionView::default()
    };
    Failover {
        selected_region: selection.selected.clone(),
        state: state(moment, Some(&selection), ranking),
        summary: summary(primary, Some(&selection), ranking),
        decided_at: Some(moment.view.now.into()),
        ..answer(moment, primary, ranking)
    }
}

/// Where `primary` fails over to, and what would change that.
#[must_use]
pub fn explanation(moment: &Moment<'_>, primary: &RegionId) -> Explanation {
    Explanation {
        failover: failover(moment, primary),
        would_change_if: would_change_if(moment, &Owner::Region(primary.clone())),
    }
}

/// What would change an answer.
pub(super) fn would_change_if(moment: &Moment<'_>, owner: &Owner) -> Vec<WouldChange> {
    let all = counterfactuals(moment.view, owner);
    let flips = all
        .iter()
        .flat_map(|own| own.flips.iter().map(move |flip| (own, flip)));
    flips.map(|(own, flip)| would_change(own, flip)).collect()
}

fn would_change(own: &Counterfactual, flip: &Flip) -> WouldChange {
    let region = &own.region;
    let at = |value: Option<f64>| value.map(|value| flip.words(value));
    let detail = match (own.selected, at(flip.moves), at(flip.even)) {
        (true, Some(moves), _) => format!("{region} stays unless {moves}"),
        (true, None, Some(even)) => format!("{region} is best unless {even}"),
        (false, Some(moves), _) => format!("{region} would be selected with {moves}"),
        (false, None, Some(even)) => {
            format!("{region} would be best, but not by the margin, with {even}")
        }
        (_, None, None) => String::new(),
    };
    WouldChange {
        region_id: region.clone(),
        selected: own.selected,
        term: term(&flip.term).0.to_owned(),
        now: flip.now,
        even_at: flip.even,
        moves_at: flip.moves,
        detail,
    }
}

/// What both kinds of answer share; the rest says that nothing was decided.
fn answer(moment: &Moment<'_>, primary: &RegionId, ranking: &Ranking) -> Failover {
    Failover {
        primary_region: primary.clone(),
        selected_region: None,
        state: State::Pending,
        summary: String::new(),
        decided_at: None,
        decision_id: None,
        previous: None,
        held_until: None,
        recommended_region: ranking.best().map(|best| best.region.clone()),
        action: Action::None,
        waiting: None,
        notices: Vec::new(),
        fail_static: faults::fail_static(moment.view),
        perspective: perspective(ranking),
        candidates: candidates(ranking, &moment.view.policy, moment.late),
        graph_version: moment.view.graph_version,
        policy_version: moment.view.policy_version.to_string(),
        evaluated_at: moment.view.now.into(),
        stale: moment.is_stale(),
    }
}

fn state(moment: &Moment<'_>, selection: Option<&SelectionView>, ranking: &Ranking) -> State {
    let Some(selection) = selection.filter(|selection| selection.since.is_some()) else {
        return State::Pending;
    };
    let Some(selected) = &selection.selected else {
        return State::Bad;
    };
    let sound = ranking
        .candidate(selected)
        .is_some_and(|candidate| candidate.eligible)
        && ranking.perspective == select::Perspective::Primary
        && !moment.is_stale();
    if sound { State::Ok } else { State::Degraded }
}

/// The answer in one sentence.
fn summary(primary: &RegionId, selection: Option<&SelectionView>, ranking: &Ranking) -> String {
    let sentence = match selection.filter(|selection| selection.since.is_some()) {
        None => match ranking.candidates.is_empty() {
            true => format!("{primary} has no region to fail over to: none is configured"),
            false => format!(
                "nothing is decided for {primary} yet: {}",
                refusals(ranking)
            ),
        },
        Some(SelectionView { selected: None, .. }) => {
            format!("{primary} has nowhere to go: {}", refusals(ranking))
        }
        Some(SelectionView {
            selected: Some(selected),
            waiting,
            ..
        }) => {
            let sentence = chosen(primary, selected, ranking);
            let owner = Owner::Region(primary.clone());
            let waiting = waiting.as_ref();
            match waiting.map(|waiting| waiting.words(&owner, Some(selected))) {
                Some(waiting) => format!("{sentence}; {waiting}"),
                None => sentence,
            }
        }
    };
    match ranking.perspective {
        select::Perspective::Primary | select::Perspective::Clients => sentence,
        select::Perspective::Survivors => {
            format!("{sentence} ({primary} itself is not reached: judged from the other regions)")
        }
    }
}

/// Why the first few candidates may not be selected.
pub(super) fn refusals(ranking: &Ranking) -> String {
    const SHOWN: usize = 3;
    let refused = || {
        ranking
            .candidates
            .iter()
            .filter_map(|candidate| Some((candidate, candidate.reasons.first()?)))
    };
    let Some((_, first)) = refused().next() else {
        return "the candidates are being compared".to_owned();
    };
    if refused().count() > 1 && refused().all(|(_, reason)| reason == first) {
        return format!("of every candidate: {}", first.detail);
    }
    let mut texts: Vec<String> = refused()
        .take(SHOWN)
        .map(|(candidate, reason)| format!("{} ({})", candidate.region, reason.detail))
        .collect();
    if ranking.candidates.len() > SHOWN {
        texts.push("…".to_owned());
    }
    texts.join(", ")
}

fn chosen(primary: &RegionId, selected: &RegionId, ranking: &Ranking) -> String {
    let own = ranking.candidate(selected);
    if let Some(refusal) = own.and_then(|own| own.reasons.first()) {
        return format!(
            "{primary} still fails over to {selected}, although: {}",
            refusal.detail
        );
    }
    let rival = ranking
        .candidates
        .iter()
        .find(|other| other.eligible && other.region != *selected);
    let lead = |own: &select::Candidate, other: &select::Candidate| {
        Some((own.log_score()? - other.log_score()?).exp())
    };
    match own
        .zip(rival)
        .and_then(|(own, rival)| Some((rival, lead(own, rival)?)))
    {
        None => format!("{primary} fails over to {selected}, the only one that may be selected"),
        Some((rival, lead)) if lead >= 1.0 => {
            format!(
                "{primary} fails over to {selected}: {lead:.2} times the score of {}, the next best",
                rival.region
            )
        }
        Some((rival, lead)) => {
            format!(
                "{primary} fails over to {selected}, although {} has {:.2} times its score",
                rival.region,
                1.0 / lead
            )
        }
    }
}

pub(super) fn previous(
    moment: &Moment<'_>,
    owner: &Owner,
    selection: &SelectionView,
) -> Option<Previous> {
    let region = selection.previous.clone()?;
    let own = || {
        moment
            .view
            .decisions
            .iter()
            .rev()
            .filter(|decision| decision.owner() == *owner)
    };
    let left = own().find(|decision| {
        decision.from.as_ref() == Some(&region) && decision.to.as_ref() != Some(&region)
    });
    let came = own().find(|decision| {
        decision.to.as_ref() == Some(&region) && left.is_none_or(|left| decision.id < left.id)
    });
    Some(Previous {
        region_id: region,
        since: came.map(|decision| decision.at.into()),
        until: left.map(|decision| decision.at.into()),
    })
}

pub(super) fn perspective(ranking: &Ranking) -> Perspective {
    match ranking.perspective {
        select::Perspective::Primary => Perspective::Primary,
        select::Perspective::Survivors => Perspective::Survivors,
        select::Perspective::Clients => Perspective::Clients,
    }
}

pub(super) fn candidates(ranking: &Ranking, policy: &Policy, late: Duration) -> Vec<Candidate> {
    let ranked = ranking.candidates.iter().zip(1_u32..);
    ranked
        .map(|(candidate, place)| self::candidate(candidate, place, policy, late))
        .collect()
}

fn candidate(
    candidate: &select::Candidate,
    place: u32,
    policy: &Policy,
    late: Duration,
) -> Candidate {
    let knowledge = knowledge(candidate, policy, late);
    let age = candidate.data_age.map(|age| age + late);
    let value = |estimate: Option<Estimate>| measured(estimate, age, knowledge);
    Candidate {
        region_id: candidate.region.clone(),
        rank: candidate.eligible.then_some(place),
        eligible: candidate.eligible,
        reasons: reasons(&candidate.reasons),
        baseline_weight: candidate.baseline,
        network_weight: candidate.network,
        score: candidate.score,
        score_low: candidate.log_low.map(f64::exp),
        predicted: candidate.predicted,
        score_high: candidate.log_high.map(f64::exp),
        normalised_score: candidate.normalised,
        latency_p50_us: value(candidate.rtt_p50_us),
        latency_p99_us: value(candidate.rtt_p99_us),
        jitter_us: value(candidate.jitter_us),
        loss_ratio: value(candidate.loss),
        bandwidth_bps: candidate
            .bandwidth_bps
            .map(|estimate| value(Some(estimate))),
        data_age_ms: age.map(super::milliseconds),
        vantage_points: candidate.vantage_points,
        seen_from: candidate.seen_from.clone(),
        contributions: candidate.contributions.iter().map(contribution).collect(),
    }
}

/// Refusals as the API tells them.
pub(super) fn reasons(refusals: &[select::Refusal]) -> Vec<Reason> {
    let reason = |refusal: &select::Refusal| Reason {
        code: refusal.code.code().to_owned(),
        detail: refusal.detail.clone(),
    };
    refusals.iter().map(reason).collect()
}

/// How much is known about a candidate: what [`leeward_engine::view::Estimates::knowledge`] says of its link.
fn knowledge(candidate: &select::Candidate, policy: &Policy, late: Duration) -> Knowledge {
    let probes = candidate.loss.map_or(0, |loss| loss.n);
    match candidate.data_age {
        None => Knowledge::Unknown,
        Some(age) if age > policy.evidence.stale_after || late > super::STALE_AFTER => {
            Knowledge::Stale
        }
        Some(_) if probes < u64::from(policy.evidence.min_probes) => Knowledge::Thin,
        Some(_) => Knowledge::Fresh,
    }
}

/// A term's stable word, and its source if it is a signal's.
fn term(term: &Term) -> (&'static str, Option<SourceId>) {
    match term {
        Term::Distance => ("distance", None),
        Term::Capacity => ("capacity", None),
        Term::Configured => ("configured", None),
        Term::LatencyP50 => ("latency_p50", None),
        Term::LatencyP99 => ("latency_p99", None),
        Term::Jitter => ("jitter", None),
        Term::Loss => ("loss", None),
        Term::Bandwidth => ("bandwidth", None),
        Term::Staleness => ("staleness", None),
        Term::Routing => ("routing", None),
        Term::Signal(source) => ("signal", Some(source.clone())),
    }
}

fn contribution(contribution: &select::Contribution) -> Contribution {
    let (term, source) = term(&contribution.term);
    Contribution {
        term: term.to_owned(),
        source,
        log_value: contribution.log_value,
        log_low: contribution.log_low,
        log_high: contribution.log_high,
        detail: contribution.detail.clone(),
    }
}

/// A decision with its evidence.
#[must_use]
pub fn decision(decision: &decision::Decision, policy: &Policy) -> Decision {
    let (margin, reason) = reason(&decision.reason);
    Decision {
        decision_id: decision.id,
        decided_at: decision.at.into(),
        primary_region: decision.primary.clone(),
        service_id: decision.service.clone(),
        from: decision.from.clone(),
        to: decision.to.clone(),
        reason,
        margin,
        summary: decision.summary.clone(),
        graph_version: decision.graph_version,
        policy_version: decision.policy_version.clone(),
        perspective: perspective(&decision.evidence),
        evidence: candidates(&decision.evidence, policy, Duration::ZERO),
    }
}

/// A decision without its evidence.
#[must_use]
pub fn moved(decision: &decision::Decision) -> Moved {
    Moved {
        decision_id: decision.id,
        decided_at: decision.at.into(),
        primary_region: decision.primary.clone(),
        service_id: decision.service.clone(),
        from: decision.from.clone(),
        to: decision.to.clone(),
        reason: reason(&decision.reason).1,
        summary: decision.summary.clone(),
    }
}

/// The margin, if the reason has one, and the reason in words.
pub(super) fn reason(reason: &decision::Reason) -> (Option<f64>, Reason) {
    use decision::Reason as Why;
    let (margin, detail) = match reason {
        Why::Initial => (None, "the first selection".to_owned()),
        Why::Better { margin } => (
            Some(*margin),
            format!("{margin:.2} times the score of the selection before"),
        ),
        Why::ReturnedHome { margin } => (
            Some(*margin),
            format!("back where it was, {margin:.2} times the score of the selection before"),
        ),
        Why::Down => (None, "the selection before is down".to_owned()),
        Why::Unreachable => (
            None,
            "the selection before is not reached from the primary".to_owned(),
        ),
        Why::Ineligible { because } => (None, because.clone()),
        Why::NoCandidate => (None, "no candidate is left".to_owned()),
        Why::Recovered => (None, "there is a candidate again".to_owned()),
        Why::Override {
            rule, who, until, ..
        } => (None, format!("{}, says {who} until {until}", rule.words())),
        Why::ServiceLevel { because } | Why::NotReady { because } | Why::Withdrawn { because } => {
            (None, because.clone())
        }
    };
    let code = reason.code().to_owned();
    (margin, Reason { code, detail })
}
