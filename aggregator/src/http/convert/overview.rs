//! The one sentence, and the facts behind it.
//!
//! The dashboard, `leeward status` and whoever is paged read the same sentence, so it is made here and nowhere else. It
//! speaks of the worst thing: nothing measured, an old picture, a primary that has nowhere to go, a region that is down,
//! links in trouble, regions that nobody can tell about. When all is well it says so and keeps quiet.

use std::collections::BTreeMap;

use leeward_common::{
    api::v1::{Fact, FailoverLine, Overview, State, Tally, Time},
    id::RegionId,
    time::Timestamp,
};
use leeward_engine::view::{Estimates, Link, RegionState, Vote};

use super::{Moment, failover, listed, network::link_state, percent, plural};

/// How it all fares.
#[must_use]
pub fn overview(moment: &Moment<'_>, aggregator: &str) -> Overview {
    let view = moment.view;
    let failovers: Vec<FailoverLine> = view
        .policy
        .regions
        .keys()
        .map(|primary| line(moment, primary))
        .collect();
    let trouble = Trouble::of(moment);
    let counts = counts(moment, &trouble);
    let (state, summary) = sentence(moment, &trouble, &failovers);
    let newest = view
        .agents
        .values()
        .filter_map(|agent| agent.last_report_at)
        .max();
    Overview {
        summary,
        state,
        facts: facts(moment, &trouble, &counts),
        counts,
        failovers,
        aggregator: aggregator.to_owned(),
        build: env!("CARGO_PKG_VERSION").to_owned(),
        graph_version: view.graph_version,
        policy_version: view.policy_version.to_string(),
        evaluated_at: view.now.into(),
        data_age_ms: newest.map(|at| super::milliseconds(moment.since(at))),
        stale: moment.is_stale(),
    }
}

fn line(moment: &Moment<'_>, primary: &RegionId) -> FailoverLine {
    let answer = failover(moment, primary);
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

/// What is not as it should be.
struct Trouble<'a> {
    down: Vec<&'a RegionId>,
    unknown: Vec<&'a RegionId>,
    /// Links with loss or without any reply, the worst first; those of regions that are down are left out.
    links: Vec<(&'a Link, &'a Estimates, State)>,
}

impl<'a> Trouble<'a> {
    fn of(moment: &Moment<'a>) -> Self {
        let view = moment.view;
        let state = |id: &RegionId| {
            view.regions
                .get(id)
                .map_or(RegionState::Unknown, |region| region.state)
        };
        let regions = |wanted: RegionState| {
            view.policy
                .regions
                .keys()
                .filter(|id| state(id) == wanted)
                .collect::<Vec<&'a RegionId>>()
        };
        let down = regions(RegionState::Down);
        let mut links: Vec<_> = moment
            .view
            .links
            .iter()
            .filter(|((from, to), _)| !down.contains(&from) && !down.contains(&to))
            .map(|(link, known)| {
                (
                    link,
                    &known.estimates,
                    link_state(moment, &link.0, &link.1, &known.estimates),
                )
            })
            .filter(|(_, estimates, state)| match state {
                State::Bad => true,
                State::Degraded => estimates
                    .loss
                    .is_some_and(|loss| loss.low > super::TROUBLE_LOSS),
                _ => false,
            })
            .collect();
        links.sort_by(|a, b| loss(b).total_cmp(&loss(a)));
        Self {
            down,
            unknown: regions(RegionState::Unknown),
            links,
        }
    }

    /// The region that touches all troubled links, the one with the fewest healthy links if there are several.
    fn culprit(&self) -> Option<&'a RegionId> {
        let mut touches: BTreeMap<&RegionId, usize> = BTreeMap::new();
        for ((from, to), ..) in &self.links {
            *touches.entry(from).or_default() += 1;
            *touches.entry(to).or_default() += 1;
        }
        let mut all = touches
            .into_iter()
            .filter(|(_, count)| *count == self.links.len());
        let culprit = all.next()?.0;
        // Two regions that touch all of them: it is the link between them, and neither is the culprit.
        all.next().is_none().then_some(culprit)
    }
}

fn loss((_, estimates, state): &(&Link, &Estimates, State)) -> f64 {
    if *state == State::Bad {
        1.0
    } else {
        estimates.loss.map_or(0.0, |loss| loss.value)
    }
}

fn sentence(
    moment: &Moment<'_>,
    trouble: &Trouble<'_>,
    failovers: &[FailoverLine],
) -> (State, String) {
    let view = moment.view;
    if moment.is_stale() {
        let age = moment.late.as_secs();
        return (
            State::Unknown,
            format!("This picture is {age} s old; the answers are the last good ones."),
        );
    }
    if !view
        .agents
        .values()
        .any(|agent| agent.last_report_at.is_some())
    {
        return (
            State::Pending,
            "No agent has reported yet, so nothing is known.".to_owned(),
        );
    }
    let stranded: Vec<&str> = names(failovers, State::Bad);
    let advice = advice(moment, failovers);
    if let [_, ..] = stranded.as_slice() {
        let verb = if stranded.len() == 1 { "has" } else { "have" };
        return (
            State::Bad,
            format!(
                "{} {verb} no region left to fail over to.{advice}",
                capital(&listed(&stranded))
            ),
        );
    }
    if let [_, ..] = trouble.down.as_slice() {
        let down = ids(&trouble.down);
        let verb = if down.len() == 1 { "is" } else { "are" };
        return (
            State::Bad,
            format!("{} {verb} down.{advice}", capital(&listed(&down))),
        );
    }
    if let Some(worst) = trouble.links.first() {
        return (
            State::Degraded,
            format!("{}{advice}", network_trouble(trouble, worst)),
        );
    }
    if let [_, ..] = trouble.unknown.as_slice() {
        let unknown = ids(&trouble.unknown);
        let verb = if unknown.len() == 1 { "is" } else { "are" };
        let text = format!("Nobody can tell how {} {verb}.{advice}", listed(&unknown));
        return (State::Unknown, text);
    }
    let pending = names(failovers, State::Pending);
    if let [_, ..] = pending.as_slice() {
        return (
            State::Pending,
            format!(
                "Not enough is known yet to decide for {}.",
                listed(&pending)
            ),
        );
    }
    let regions = plural(view.policy.regions.len(), "region");
    (
        State::Ok,
        format!("All {regions} are reached and no link is in trouble.{advice}"),
    )
}

fn network_trouble(trouble: &Trouble<'_>, worst: &(&Link, &Estimates, State)) -> String {
    let ((from, to), ..) = worst;
    let measure = match worst.2 {
        State::Bad => "nothing gets through".to_owned(),
        _ => format!("{} loss", percent(loss(worst))),
    };
    match trouble.culprit() {
        Some(region) => {
            let count = plural(trouble.links.len(), "link");
            format!(
                "{} loses packets on {count}, worst {from} to {to} with {measure}.",
                capital(region.as_str())
            )
        }
        None if trouble.links.len() <= 2 => {
            format!("The link {from} to {to} is in trouble: {measure}.")
        }
        None => {
            let count = plural(trouble.links.len(), "link");
            format!("{count} are in trouble, worst {from} to {to} with {measure}.")
        }
    }
}

/// The newest moves of the last ten minutes.
fn advice(moment: &Moment<'_>, failovers: &[FailoverLine]) -> String {
    const RECENT: std::time::Duration = std::time::Duration::from_secs(600);
    const SHOWN: usize = 2;
    let moved = |line: &&FailoverLine| {
        let decision = moment
            .view
            .decisions
            .iter()
            .rev()
            .find(|decision| decision.primary == line.primary_region);
        decision
            .is_some_and(|decision| decision.from.is_some() && moment.since(decision.at) < RECENT)
    };
    let mut moved: Vec<&FailoverLine> = failovers.iter().filter(moved).collect();
    moved.sort_by_key(|line| std::cmp::Reverse(line.decided_at));
    let to = |line: &FailoverLine| {
        line.selected_region
            .as_ref()
            .map_or("nowhere", |to| to.as_str())
            .to_owned()
    };
    let [first, rest @ ..] = moved.as_slice() else {
        return String::new();
    };
    let mut text = format!(
        " {} now fails over to {}",
        capital(first.primary_region.as_str()),
        to(first)
    );
    for line in rest.iter().take(SHOWN - 1) {
        text.push_str(&format!(", {} to {}", line.primary_region, to(line)));
    }
    if moved.len() > SHOWN {
        text.push_str(&format!(", and {} more moved", moved.len() - SHOWN));
    }
    text.push('.');
    text
}

fn facts(moment: &Moment<'_>, trouble: &Trouble<'_>, counts: &Tally) -> Vec<Fact> {
    let mut facts = Vec::new();
    let mut fact = |label: &str, text: String| {
        facts.push(Fact {
            label: label.to_owned(),
            text,
        });
    };
    for region in &trouble.down {
        if let Some(view) = moment.view.regions.get(*region) {
            fact(
                "what",
                format!(
                    "{region} since {}: {}",
                    time_of_day(view.since),
                    view.detail
                ),
            );
        }
    }
    if let Some(((from, to), estimates, _)) = trouble.links.first() {
        if let Some(loss) = estimates.loss {
            let range = format!("{} to {}", percent(loss.low), percent(loss.high));
            fact(
                "what",
                format!("{} loss ({range}) from {from} to {to}", percent(loss.value)),
            );
        }
        let links: Vec<String> = trouble
            .links
            .iter()
            .take(4)
            .map(|((from, to), ..)| format!("{from} to {to}"))
            .collect();
        let more = if trouble.links.len() > 4 { ", …" } else { "" };
        fact(
            "where",
            format!(
                "{} of {} links: {}{more}",
                trouble.links.len(),
                counts.links,
                links.join(", ")
            ),
        );
    }
    if let Some(last) = moment.view.decisions.back() {
        fact("why", format!("{}: {}", time_of_day(last.at), last.summary));
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

fn counts(moment: &Moment<'_>, trouble: &Trouble<'_>) -> Tally {
    let view = moment.view;
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Tally {
        regions: count(view.policy.regions.len()),
        regions_down: count(trouble.down.len()),
        regions_unknown: count(trouble.unknown.len()),
        agents: count(view.agents.len()),
        agents_counted: count(
            view.agents
                .values()
                .filter(|agent| agent.vote == Vote::Counts)
                .count(),
        ),
        links: count(view.links.len()),
        links_troubled: count(trouble.links.len()),
        signals: count(view.signals.len()),
        decisions: count(view.decisions.len()),
    }
}

fn names(failovers: &[FailoverLine], state: State) -> Vec<&str> {
    let some = failovers.iter().filter(|line| line.state == state);
    some.map(|line| line.primary_region.as_str()).collect()
}

fn ids<'a>(regions: &[&'a RegionId]) -> Vec<&'a str> {
    regions.iter().map(|region| region.as_str()).collect()
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(chars).collect()
    })
}

fn time_of_day(time: Timestamp) -> String {
    let text = Time(time).to_string();
    format!("{} UTC", text.get(11..19).unwrap_or(&text))
}
