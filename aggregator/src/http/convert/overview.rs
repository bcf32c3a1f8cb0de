//! The one sentence, which is the engine's verdict, and the facts behind it.

use std::sync::Arc;

use leeward_common::{
    api::v1::{AuditHead, Fact, Failover, FailoverLine, Overview, State, Tally, Time},
    time::Timestamp,
};
use leeward_engine::{
    verdict::{Severity, Verdict, verdict},
    view::{Estimate, Link, LinkView, RegionState, Vote},
};

use super::{Moment, failover, faults, network::link_state, plural};

/// How it all fares.
#[must_use]
pub fn overview(moment: &Moment<'_>, aggregator: &str) -> Overview {
    let view = moment.view;
    let failovers: Vec<FailoverLine> = view
        .policy
        .regions
        .keys()
        .map(|primary| line(failover(moment, primary)))
        .collect();
    let counts = counts(moment);
    let verdict = verdict(view, view.now + moment.late);
    let newest = view
        .agents
        .values()
        .filter_map(|agent| agent.last_report_at)
        .max();
    Overview {
        facts: self::facts(moment, &verdict, &counts),
        state: state(verdict.severity),
        summary: verdict.sentence,
        counts,
        failovers,
        aggregator: aggregator.to_owned(),
        build: env!("CARGO_PKG_VERSION").to_owned(),
        graph_version: view.graph_version,
        policy_version: view.policy_version.to_string(),
        evaluated_at: view.now.into(),
        data_age_ms: newest.map(|at| super::milliseconds(moment.since(at))),
        stale: moment.is_stale(),
        fail_static: faults::fail_static(view),
        audit: AuditHead::default(),
    }
}

/// An answer on one line.
pub(super) fn line(answer: Failover) -> FailoverLine {
    let selected = answer.selected_region.as_ref();
    let eligible = || {
        answer
            .candidates
            .iter()
            .filter(|candidate| candidate.eligible)
    };
    let own = eligible().find(|candidate| Some(&candidate.region_id) == selected);
    let next = eligible().find(|candidate| Some(&candidate.region_id) != selected);
    let margin = own
        .zip(next)
        .and_then(|(own, next)| Some(own.score? / next.score?));
    FailoverLine {
        next_best: next.map(|next| next.region_id.clone()),
        margin: margin.filter(|margin| margin.is_finite()),
        primary_region: answer.primary_region,
        selected_region: answer.selected_region,
        state: answer.state,
        summary: answer.summary,
        decided_at: answer.decided_at,
    }
}

pub(super) fn state(severity: Severity) -> State {
    match severity {
        Severity::Well | Severity::Note => State::Ok,
        Severity::Pending => State::Pending,
        Severity::Unknown => State::Unknown,
        Severity::Degraded => State::Degraded,
        Severity::Bad => State::Bad,
    }
}

/// What the verdict rests on: the worst finding in full, the others by what they are.
fn facts(moment: &Moment<'_>, verdict: &Verdict, counts: &Tally) -> Vec<Fact> {
    let mut facts = Vec::new();
    let mut fact = |label: &str, text: String| {
        if !text.is_empty() {
            facts.push(Fact {
                label: label.to_owned(),
                text,
            });
        }
    };
    if let Some(worst) = verdict.findings.first() {
        let since = match worst.since {
            Some(since) => format!("{} since {}", worst.what, time_of_day(since)),
            None => worst.what.clone(),
        };
        fact("what", since);
        fact("where", worst.place.clone());
        fact("why", worst.why.clone());
        fact("sure", worst.sure.clone());
        fact("done", worst.action.clone());
    }
    for other in verdict.findings.iter().skip(1) {
        fact("also", other.what.clone());
    }
    if let Some(last) = moment.view.decisions.back() {
        fact(
            "last",
            format!("{}: {}", time_of_day(last.at), last.summary),
        );
    }
    if counts.agents > 0 {
        fact("trust", trust(moment, counts));
    }
    facts
}

fn trust(moment: &Moment<'_>, counts: &Tally) -> String {
    let with = |vote: Vote| {
        let agents = moment
            .view
            .agents
            .iter()
            .filter(|(_, agent)| agent.vote == vote);
        agents
            .map(|(id, _)| id.as_str())
            .take(4)
            .collect::<Vec<&str>>()
    };
    let mut text = format!(
        "{} of {} counted",
        counts.agents_counted,
        plural(counts.agents as usize, "agent")
    );
    let out = [
        (Vote::Silent, "silent"),
        (Vote::AtFault, "at fault"),
        (Vote::Suspect, "in doubt of itself"),
    ];
    for (vote, word) in out {
        let agents = with(vote);
        if !agents.is_empty() {
            text.push_str(&format!("; {word}: {}", agents.join(", ")));
        }
    }
    text
}

fn counts(moment: &Moment<'_>) -> Tally {
    let view = moment.view;
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let regions = |state: RegionState| {
        let all = view.regions.values();
        count(all.filter(|region| region.state == state).count())
    };
    let is_troubled = |((from, to), known): &(&Link, &Arc<LinkView>)| {
        let estimates = &known.estimates;
        let lossy = |loss: Estimate| loss.low > super::TROUBLE_LOSS;
        match link_state(moment, from, to, estimates) {
            State::Bad => true,
            State::Degraded => estimates.loss.is_some_and(lossy),
            _ => false,
        }
    };
    let counted = view.agents.values();
    let counted = counted.filter(|agent| agent.vote == Vote::Counts);
    Tally {
        regions: count(view.policy.regions.len()),
        regions_down: regions(RegionState::Down),
        regions_unknown: regions(RegionState::Unknown),
        agents: count(view.agents.len()),
        agents_counted: count(counted.count()),
        links: count(view.links.len()),
        links_troubled: count(view.links.iter().filter(is_troubled).count()),
        faults: count(view.faults.len()),
        signals: count(view.signals.len()),
        decisions: count(view.decisions.len()),
    }
}

fn time_of_day(time: Timestamp) -> String {
    let text = Time(time).to_string();
    format!("{} UTC", text.get(11..19).unwrap_or(&text))
}
