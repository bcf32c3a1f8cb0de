//! A decision in one sentence.

use leeward_common::id::{RegionId, ServiceId};

use crate::{
    decision::Reason,
    intent::Rule,
    select::{Candidate, Contribution, Perspective, Ranking, Request, Term},
    selection::Move,
};

/// What was decided and why, in one sentence.
pub(crate) fn summarise(request: &Request<'_>, wanted: &Move, ranking: &Ranking) -> String {
    if let Some(service) = request.service() {
        return summarise_service(service, wanted, ranking);
    }
    let primary = request.primary;
    let sentence = match (&wanted.from, &wanted.to) {
        (None, None) => format!("{primary} has no failover region"),
        (Some(from), None) => format!(
            "{primary} has no failover region left: {}",
            why_not(from, ranking)
        ),
        (None, Some(to)) => format!(
            "{primary} fails over to {to}{}",
            why_first(to, &wanted.reason, ranking)
        ),
        (Some(from), Some(to)) => {
            let why = why_moved(from, to, &wanted.reason, ranking);
            format!("{primary} now fails over to {to} instead of {from}: {why}")
        }
    };
    match ranking.perspective {
        Perspective::Primary | Perspective::Clients => sentence,
        Perspective::Survivors => {
            format!("{sentence} ({primary} itself is not reached: judged from the other regions)")
        }
    }
}

/// Where a service runs from now on and why.
fn summarise_service(service: &ServiceId, wanted: &Move, ranking: &Ranking) -> String {
    match (&wanted.from, &wanted.to) {
        (Some(from), Some(to)) => {
            let why = why_moved(from, to, &wanted.reason, ranking);
            format!("{service} should run in {to} instead of {from}: {why}")
        }
        (Some(from), None) => format!(
            "{service} has nowhere left to run: {}",
            why_not(from, ranking)
        ),
        (None, Some(to)) => format!(
            "{service} should run in {to}{}",
            why_first(to, &wanted.reason, ranking)
        ),
        (None, None) => format!("{service} has nowhere to run"),
    }
}

fn why_first(to: &RegionId, reason: &Reason, ranking: &Ranking) -> String {
    match reason {
        Reason::Recovered => return " again: it can be selected once more".to_owned(),
        Reason::Override { rule, .. } => return format!(": {}", rule.words()),
        _ => {}
    }
    let eligible = ranking.candidates.iter().filter(|own| own.eligible).count();
    let next = ranking
        .candidates
        .iter()
        .find(|own| own.eligible && own.region != *to);
    match (next, next.and_then(|next| lead(to, &next.region, ranking))) {
        (Some(next), Some(lead)) => format!(
            ": best of {eligible}, {:.2} times the score of {}",
            lead.exp(),
            next.region
        ),
        _ => ": the only one that can be selected".to_owned(),
    }
}

fn why_moved(from: &RegionId, to: &RegionId, reason: &Reason, ranking: &Ranking) -> String {
    match reason {
        Reason::Better { margin } => {
            format!(
                "{margin:.2} times its score, {}",
                main_difference(from, to, ranking)
            )
        }
        Reason::ReturnedHome { margin } => format!(
            "back again with {margin:.2} times its score, {}",
            main_difference(from, to, ranking)
        ),
        Reason::Override { rule, .. } if matches!(rule, Rule::Pin { .. }) => rule.words(),
        Reason::ServiceLevel { because } => {
            format!("{from} does not keep the limits that it needs, {to} does: {because}")
        }
        Reason::NotReady { because } => format!("{from} is not ready for it: {because}"),
        Reason::Withdrawn { because } => {
            format!("routers show no way to {from}: {because}")
        }
        Reason::Ineligible { because } => format!("{from} may not be selected: {because}"),
        _ => why_not(from, ranking),
    }
}

fn why_not(region: &RegionId, ranking: &Ranking) -> String {
    let refusal = ranking
        .candidate(region)
        .and_then(|own| own.reasons.first());
    match refusal {
        Some(refusal) => format!("{region} is {}: {}", word(refusal.code), refusal.detail),
        None => format!("{region} may not be selected"),
    }
}

const fn word(code: crate::select::RefusalCode) -> &'static str {
    use crate::select::RefusalCode as Code;
    match code {
        Code::Forbidden => "forbidden",
        Code::Drained => "drained",
        Code::UnknownRegion | Code::IsPrimary => "no candidate",
        Code::Down => "down",
        Code::Stale | Code::NoEvidence | Code::TooFewProbes | Code::Unchecked => "unknown",
        Code::Unreachable => "unreachable",
        Code::CheckFailed | Code::DependencyMissing | Code::ReplicaBehind => "not ready",
        Code::BreaksLimits => "not good enough",
        Code::NoRoom => "full",
        Code::LabelMissing | Code::LabelForbidden => "not permitted",
        Code::SharedRisk => "at risk with another",
        Code::Withdrawn => "withdrawn",
        Code::Suppressed => "suppressed",
    }
}

fn lead(a: &RegionId, b: &RegionId, ranking: &Ranking) -> Option<f64> {
    let log = |region| ranking.candidate(region).and_then(Candidate::log_score);
    Some(log(a)? - log(b)?)
}

/// The term that speaks most for `to` and against `from`.
fn main_difference(from: &RegionId, to: &RegionId, ranking: &Ranking) -> String {
    let of = |region| {
        ranking
            .candidate(region)
            .map_or(&[][..], |own| &own.contributions)
    };
    let value = |all: &[Contribution], term: &Term| {
        let mine = all.iter().filter(|own| own.term == *term);
        mine.map(|own| own.log_value).sum::<f64>()
    };
    let (from_all, to_all) = (of(from), of(to));
    let gain = |term: &Term| value(to_all, term) - value(from_all, term);
    let both = from_all.iter().chain(to_all);
    let Some(main) = both.max_by(|a, b| gain(&a.term).total_cmp(&gain(&b.term))) else {
        return "for reasons unknown".to_owned();
    };
    let fact = |all: &[Contribution]| {
        let mine = all.iter().find(|own| own.term == main.term);
        mine.map_or_else(|| "none".to_owned(), |own| own.detail.clone())
    };
    format!(
        "mostly by {}: {to} {}, {from} {}",
        main.term.words(),
        fact(to_all),
        fact(from_all)
    )
}
