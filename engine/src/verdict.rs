//! The verdict: what matters most now, in one sentence, and the findings behind it.
//!
//! The overview, `leeward status`, the dashboard and whoever is paged read the same sentence, so it is made here and
//! nowhere else, by a pure function of the view. It speaks of the worst thing and counts the rest; when all is well it
//! says so and keeps quiet. Refusals and doubts that were ruled out are findings like faults.
//!
//! Each finding says what is wrong, where, why it is thought so, what was done about it, how sure that is, and since when.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use leeward_common::{
    id::{AgentId, RegionId},
    time::Timestamp,
};

use crate::{
    intent::{Owner, Rule},
    scoreboard::LOSSY,
    select::{Candidate, Ranking},
    view::{Estimates, Knowledge, Link, Pair, RegionState, SelectionView, View, Vote},
    weight::percent,
};

/// A picture older than this is not spoken of as if it were now.
pub const OLD: Duration = Duration::from_secs(5);

/// A move is news for so long.
const NEWS: Duration = Duration::from_secs(600);

/// How bad something is; the order is that in which findings are told.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Severity {
    /// All is well.
    Well,
    /// As it should be, and worth knowing.
    Note,
    /// Not known yet.
    Pending,
    /// Nobody can tell.
    Unknown,
    /// Works, worse than it should.
    Degraded,
    /// Does not work.
    Bad,
}

/// What matters now.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Verdict {
    /// That of the worst finding.
    pub severity: Severity,
    /// The one sentence, or two.
    pub sentence: String,
    /// What it rests on, worst first; empty when all is well.
    pub findings: Vec<Finding>,
}

/// One thing that is not as always.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, as a clause with a small letter and no full stop.
    pub what: String,
    /// Where; empty if `what` says it.
    pub place: String,
    /// Why it is thought so; empty if there is no more to say.
    pub why: String,
    /// What was done about it, or would be; empty if nothing.
    pub action: String,
    /// How sure that is: who sees it, and the bounds.
    pub sure: String,
    /// Since when, if that is known.
    pub since: Option<Timestamp>,
}

/// What matters in a view that is read at `now`.
#[must_use]
pub fn verdict(view: &View, now: Timestamp) -> Verdict {
    let late = now.since(view.now);
    let alone = |severity, what: String| Verdict {
        severity,
        sentence: format!("{}.", capital(&what)),
        findings: vec![Finding::of(severity, what)],
    };
    if late > OLD {
        let what = format!(
            "this picture is {} s old; the answers are the last good ones",
            late.as_secs()
        );
        return alone(Severity::Unknown, what);
    }
    let heard = |view: &View| {
        view.agents
            .values()
            .any(|agent| agent.last_report_at.is_some())
    };
    if !heard(view) {
        let what = "no agent has reported yet, so nothing is known";
        return alone(Severity::Pending, what.to_owned());
    }
    let mut findings = Vec::new();
    match cut_off(view) {
        Some(finding) => findings.push(finding),
        None => {
            findings.extend(regions(view));
            findings.extend(links(view));
        }
    }
    findings.extend(selections(view));
    findings.extend(overrides(view));
    findings.extend(agents(view));
    // Stable: what comes first of equally bad things is what was looked at first.
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    let news = news(view);
    let Some(worst) = findings.first() else {
        let regions = plural(view.policy.regions.len(), "region");
        return Verdict {
            severity: Severity::Well,
            sentence: format!("All {regions} are reached and no link is in trouble.{news}"),
            findings,
        };
    };
    let action = match worst.action.as_str() {
        "" => news,
        action => format!(" {}.", capital(action)),
    };
    let rest = findings
        .iter()
        .skip(1)
        .filter(|other| other.severity > Severity::Note)
        .count();
    let more = match rest {
        0 => String::new(),
        n => format!(", and {n} more"),
    };
    Verdict {
        severity: worst.severity,
        sentence: format!("{}{more}.{action}", capital(&worst.what)),
        findings,
    }
}

impl Finding {
    fn of(severity: Severity, what: String) -> Self {
        Self {
            severity,
            what,
            place: String::new(),
            why: String::new(),
            action: String::new(),
            sure: String::new(),
            since: None,
        }
    }
}

/// Nobody can tell about any region although agents were heard: fail static.
fn cut_off(view: &View) -> Option<Finding> {
    let mut regions = view.regions.values();
    let none_known =
        regions.len() > 0 && regions.all(|region| region.state == RegionState::Unknown);
    let decided = view.selections.values().any(|own| own.since.is_some());
    if !none_known || !decided {
        return None;
    }
    let since = view.regions.values().map(|region| region.since).max();
    let first = view.regions.values().next()?;
    Some(Finding {
        why: first.detail.clone(),
        action: "every selection stays as it was until somebody sees again".to_owned(),
        sure: trust(view),
        since,
        ..Finding::of(
            Severity::Unknown,
            "the observers are cut off: nobody can tell how any region is".to_owned(),
        )
    })
}

fn regions(view: &View) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (id, region) in view.regions.iter() {
        let (severity, what) = match region.state {
            RegionState::Up => continue,
            RegionState::Down => (Severity::Bad, format!("{id} is down")),
            RegionState::Unknown => (Severity::Unknown, format!("nobody can tell how {id} is")),
        };
        let moved: Vec<String> = view
            .decisions
            .iter()
            .rev()
            .filter(|own| own.at >= region.since && own.from.as_ref() == Some(id))
            .map(|own| {
                format!(
                    "{} now fails over to {}",
                    own.owner(),
                    name(own.to.as_ref())
                )
            })
            .collect();
        findings.push(Finding {
            place: id.to_string(),
            why: region.detail.clone(),
            action: short_list(&moved),
            sure: trust(view),
            since: Some(region.since),
            ..Finding::of(severity, what)
        });
    }
    findings
}

/// Links with certain loss or without any reply; those of regions that are down are left out. Links of one region that
/// has trouble with several are one finding.
fn links(view: &View) -> Vec<Finding> {
    let mut troubled: BTreeMap<Pair, (f64, &Link, &Estimates)> = BTreeMap::new();
    for (link, known) in view.links.iter() {
        let Some(loss) = trouble(view, link, &known.estimates) else {
            continue;
        };
        let pair = Pair::new(&link.0, &link.1);
        let worst = troubled
            .entry(pair)
            .or_insert((loss, link, &known.estimates));
        if loss > worst.0 {
            *worst = (loss, link, &known.estimates);
        }
    }
    let mut all: Vec<_> = troubled.into_values().collect();
    all.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    let Some((_, worst, _)) = all.first() else {
        return Vec::new();
    };
    let measure = |(loss, ..): &(f64, &Link, &Estimates)| match *loss >= 1.0 {
        true => "nothing gets through".to_owned(),
        false => format!("{} loss", percent(*loss)),
    };
    if all.len() > 1
        && let Some(culprit) = common(all.iter().map(|(_, link, _)| *link))
    {
        let other = if worst.0 == *culprit {
            &worst.1
        } else {
            &worst.0
        };
        let count = plural(all.len(), "region");
        let what = format!(
            "{culprit} loses packets to and from {count}, worst {other}: {}",
            measure(&all[0])
        );
        let names: Vec<String> = all
            .iter()
            .map(|(_, link, _)| format!("{} to {}", link.0, link.1))
            .collect();
        return vec![Finding {
            place: short_list(&names),
            sure: bounds(view, &all[0]),
            ..Finding::of(Severity::Degraded, what)
        }];
    }
    let finding = |own: &(f64, &Link, &Estimates)| {
        let (from, to) = own.1;
        Finding {
            place: format!("{from} to {to}"),
            sure: bounds(view, own),
            ..Finding::of(
                Severity::Degraded,
                format!("the link {from} to {to} is in trouble: {}", measure(own)),
            )
        }
    };
    all.iter().map(finding).collect()
}

/// The share lost on a link in trouble; `None` if it is in none, or nobody can tell.
fn trouble(view: &View, (from, to): &Link, estimates: &Estimates) -> Option<f64> {
    let is_down = |id: &RegionId| {
        view.regions
            .get(id)
            .is_some_and(|region| region.state == RegionState::Down)
    };
    let knowledge = estimates.knowledge(view.now, &view.policy);
    let unknown = matches!(knowledge, Knowledge::Stale | Knowledge::Unknown);
    if unknown || is_down(from) || is_down(to) {
        return None;
    }
    let pair = view.pairs.get(&Pair::new(from, to));
    let lost_by = pair.map(|pair| &pair.lost_by);
    let is_lost = |agent: &AgentId| lost_by.is_some_and(|lost_by| lost_by.contains(agent));
    let mut fresh = estimates.fresh_agents(view.now, &view.policy).peekable();
    if fresh.peek().is_some() && fresh.all(is_lost) {
        return Some(1.0);
    }
    let loss = estimates.loss?;
    (loss.low > LOSSY).then_some(loss.value)
}

/// The one region that all links touch; none if two do, for then it is the link between them.
fn common<'a>(links: impl Iterator<Item = &'a Link>) -> Option<&'a RegionId> {
    let mut common: Option<BTreeSet<&RegionId>> = None;
    for (from, to) in links {
        let ends = BTreeSet::from([from, to]);
        common = Some(match common {
            None => ends,
            Some(common) => common.intersection(&ends).copied().collect(),
        });
    }
    let mut common = common?.into_iter();
    common.next().filter(|_| common.next().is_none())
}

fn bounds(view: &View, (loss, link, estimates): &(f64, &Link, &Estimates)) -> String {
    let seen = plural(
        estimates.vantage_points(view.now, &view.policy) as usize,
        "observer",
    );
    match estimates.loss {
        Some(bounds) if *loss < 1.0 => format!(
            "{} to {} lost from {} to {}, say {seen} with {}",
            percent(bounds.low),
            percent(bounds.high),
            link.0,
            link.1,
            plural(usize::try_from(bounds.n).unwrap_or(usize::MAX), "probe"),
        ),
        _ => format!(
            "nothing from {} to {} is answered, say {seen}",
            link.0, link.1
        ),
    }
}

/// Selections that have nowhere to go, wait, or are not decided yet.
fn selections(view: &View) -> Vec<Finding> {
    let regions = view.selections.iter();
    let regions = regions.map(|(id, own)| (Owner::Region(id.clone()), own, Some(view.ranking(id))));
    let services = view.services.iter();
    let services =
        services.map(|(id, own)| (Owner::Service(id.clone()), own, view.service_ranking(id)));
    let mut findings = Vec::new();
    let mut pending = Vec::new();
    for (owner, own, ranking) in regions.chain(services) {
        let Some(ranking) = ranking.filter(|ranking| !ranking.candidates.is_empty()) else {
            continue;
        };
        match (&own.selected, own.since) {
            (_, None) => pending.push(owner.to_string()),
            (None, Some(since)) => findings.push(Finding {
                place: owner.to_string(),
                why: refusals(&ranking),
                since: Some(since),
                ..Finding::of(
                    Severity::Bad,
                    format!("{owner} has no region left to fail over to"),
                )
            }),
            (Some(selected), Some(_)) => {
                findings.extend(waiting(view, &owner, own, selected, &ranking));
            }
        }
    }
    if !pending.is_empty() {
        let what = format!(
            "not enough is known yet to decide for {}",
            short_list(&pending)
        );
        findings.push(Finding::of(Severity::Pending, what));
    }
    findings
}

/// A better region is known and the hold keeps the selection where it is.
fn waiting(
    view: &View,
    owner: &Owner,
    own: &SelectionView,
    selected: &RegionId,
    ranking: &Ranking,
) -> Option<Finding> {
    let until = own.held_until?;
    let best = ranking.best().filter(|best| best.region != *selected)?;
    let incumbent = ranking.candidate(selected).filter(|own| own.eligible)?;
    let lead = best.log_score()? - incumbent.log_score()?;
    if lead <= view.policy.steadiness.margin.ln() {
        return None;
    }
    let (best_id, times) = (&best.region, lead.exp());
    Some(Finding {
        place: owner.to_string(),
        why: "it moved lately, and moving again disrupts again".to_owned(),
        sure: vantage(best),
        since: own.since,
        ..Finding::of(
            Severity::Note,
            format!(
                "{owner} stays with {selected} until {} although {best_id} has {times:.2} times its score: the hold is on",
                time_of_day(until)
            ),
        )
    })
}

fn vantage(candidate: &Candidate) -> String {
    plural(candidate.vantage_points as usize, "vantage point")
}

fn refusals(ranking: &Ranking) -> String {
    let refused = ranking.candidates.iter().filter_map(|own| {
        let refusal = own.reasons.first()?;
        Some(format!("{} ({})", own.region, refusal.detail))
    });
    short_list(&refused.collect::<Vec<_>>())
}

fn overrides(view: &View) -> Vec<Finding> {
    let finding = |(id, known): (&leeward_common::id::OverrideId, &crate::intent::Known<_>)| {
        let own: &crate::intent::Override = &known.what;
        let what = match &own.rule {
            Rule::Drain { region, .. } => format!("{region} is drained"),
            Rule::Pin { owner, region } => format!("{owner} is pinned to {region}"),
            Rule::Forbid { owner, region } => format!("{owner} may not go to {region}"),
            Rule::Freeze { owner: Some(owner) } => format!("{owner} is frozen"),
            Rule::Freeze { owner: None } => "every selection is frozen".to_owned(),
        };
        let why = match known.why.as_str() {
            "" => String::new(),
            why => format!(": {why}"),
        };
        Finding {
            why: known.why.clone(),
            sure: format!("override {id}"),
            since: Some(known.at),
            ..Finding::of(
                Severity::Note,
                format!(
                    "{what} by {} until {}{why}",
                    known.who,
                    time_of_day(own.until)
                ),
            )
        }
    };
    view.intents.overrides.iter().map(finding).collect()
}

/// Observers whose view does not count: a doubt that was ruled out.
fn agents(view: &View) -> Vec<Finding> {
    let at_fault: Vec<String> = view
        .agents
        .iter()
        .filter(|(_, agent)| agent.vote == Vote::AtFault)
        .map(|(id, _)| id.to_string())
        .collect();
    if at_fault.is_empty() {
        return Vec::new();
    }
    let (verb, whose) = match at_fault.len() {
        1 => ("is", "its view does not"),
        _ => ("are", "their views do not"),
    };
    let who = short_list(&at_fault);
    let why = "it sees everything fail that others see well";
    vec![Finding {
        place: who.clone(),
        why: why.to_owned(),
        action: "no region is judged by it".to_owned(),
        sure: trust(view),
        ..Finding::of(
            Severity::Degraded,
            format!("agent {who} {verb} at fault itself, so {whose} count"),
        )
    }]
}

/// Who is counted, in words.
fn trust(view: &View) -> String {
    let all = view.agents.len();
    let counted = view.agents.values();
    let counted = counted.filter(|agent| agent.vote == Vote::Counts).count();
    format!("{counted} of {} counted", plural(all, "agent"))
}

/// The newest moves, if there were some lately.
fn news(view: &View) -> String {
    let mut told = BTreeSet::new();
    let newest = view.decisions.iter().rev();
    let recent = newest
        .filter(|own| told.insert(own.owner()))
        .filter(|own| own.from.is_some() && view.now.since(own.at) < NEWS);
    let moved: Vec<String> = recent
        .enumerate()
        .map(|(n, own)| match n {
            0 => format!(
                "{} now fails over to {}",
                capital(&own.owner().to_string()),
                name(own.to.as_ref())
            ),
            _ => format!("{} to {}", own.owner(), name(own.to.as_ref())),
        })
        .collect();
    match moved.as_slice() {
        [] => String::new(),
        [one] => format!(" {one}."),
        [one, two] => format!(" {one}, {two}."),
        [one, two, rest @ ..] => format!(" {one}, {two}, and {} more moved.", rest.len()),
    }
}

fn name(region: Option<&RegionId>) -> &str {
    region.map_or("nowhere", RegionId::as_str)
}

/// `a, b and 3 more`.
fn short_list(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [one] => one.clone(),
        [one, two] => format!("{one} and {two}"),
        [one, two, three] => format!("{one}, {two} and {three}"),
        [one, two, rest @ ..] => format!("{one}, {two} and {} more", rest.len()),
    }
}

fn plural(count: usize, noun: &str) -> String {
    match count {
        1 => format!("1 {noun}"),
        _ => format!("{count} {noun}s"),
    }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(chars).collect()
    })
}

fn time_of_day(time: Timestamp) -> String {
    let text = time.to_string();
    format!("{} UTC", text.get(11..19).unwrap_or(&text))
}
