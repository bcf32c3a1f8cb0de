//! Findings about regions, links, hosts and observers.

use std::{collections::BTreeSet, sync::Arc};

use leeward_common::{id::RegionId, time::Timestamp};

use super::{
    Finding, NEWS, Severity, trust,
    words::{is_at, is_or_are, plural, short_list},
};
use crate::{
    fault::{Fault, FaultKind, Place},
    intent::Owner,
    overrides,
    routing::Observers,
    view::{Pair, RegionState, SelectionView, View, Vote},
    weight::percent,
};

/// Beyond this share of loss hardly anything gets through.
const NEARLY_ALL: f64 = 0.95;

/// Nobody can tell about any region although agents were heard: nothing moves.
pub(super) fn blind(view: &View) -> Option<Finding> {
    let nobody = view.agents.values().all(|agent| agent.vote == Vote::Silent);
    let (why, since) = match &view.fail_static {
        Some(cut_off) => (cut_off.detail.clone(), Some(cut_off.since)),
        None if nobody => ("no observer is heard".to_owned(), None),
        None => return None,
    };
    let is_decided = view.selections.values().any(|own| own.since.is_some());
    let (severity, what, action) = match is_decided {
        true => (
            Severity::Unknown,
            "nobody can tell how any region is",
            "every selection stays as it is until somebody sees again",
        ),
        false => (
            Severity::Pending,
            "nothing is known of any region yet",
            "what is selected is decided once it is",
        ),
    };
    Some(Finding {
        what: format!("{what}: {why}"),
        action: action.to_owned(),
        sure: trust(view),
        since,
        ..Finding::of(severity, String::new())
    })
}

/// Regions that are down, as one finding, and those of which nobody can tell.
pub(super) fn regions(view: &View) -> Vec<Finding> {
    let with = |state: RegionState| {
        let all = view.regions.iter();
        all.filter(move |(_, region)| region.state == state)
            .collect::<Vec<_>>()
    };
    let finding = |severity, found: &[(&RegionId, &crate::view::RegionView)], what: String| {
        let names: Vec<_> = found.iter().map(|(id, _)| id.to_string()).collect();
        let why: Vec<_> = match found {
            [(_, one)] => vec![one.detail.clone()],
            _ => {
                let why = |(id, own): &(&RegionId, &crate::view::RegionView)| {
                    format!("{id}: {}", own.detail)
                };
                found.iter().map(why).collect()
            }
        };
        Finding {
            place: short_list(&names),
            why: why.join("; "),
            sure: trust(view),
            since: found.iter().map(|(_, own)| own.since).min(),
            ..Finding::of(severity, what)
        }
    };
    let list = |found: &[(&RegionId, &crate::view::RegionView)]| {
        let names: Vec<_> = found.iter().map(|(id, _)| id.to_string()).collect();
        short_list(&names)
    };
    let mut findings = Vec::new();
    let down = with(RegionState::Down);
    if let Some(since) = down.iter().map(|(_, own)| own.since).min() {
        let what = format!("{} {} down", list(&down), is_or_are(down.len()));
        let is_down = |region: &RegionId| down.iter().any(|(id, _)| *id == region);
        findings.push(Finding {
            action: moved_away(view, since, &is_down),
            ..finding(Severity::Bad, &down, what)
        });
    }
    let unknown = with(RegionState::Unknown);
    if !unknown.is_empty() {
        let what = format!(
            "nobody can tell how {} {}",
            list(&unknown),
            is_or_are(unknown.len())
        );
        findings.push(finding(Severity::Unknown, &unknown, what));
    }
    findings
}

/// Where the selections went that left such a region since then.
fn moved_away(view: &View, since: Timestamp, left: &dyn Fn(&RegionId) -> bool) -> String {
    let moved = selections(view).filter(|(_, own)| {
        own.previous.as_ref().is_some_and(left) && own.since.is_some_and(|at| at >= since)
    });
    let moved = moved.map(|(owner, own)| is_at(&owner, "now", own.selected.as_ref()));
    short_list(&moved.collect::<Vec<_>>())
}

fn selections(view: &View) -> impl Iterator<Item = (Owner, &Arc<SelectionView>)> {
    let regions = view.selections.iter();
    let regions = regions.map(|(id, own)| (Owner::Region(id.clone()), own));
    let services = view.services.iter();
    regions.chain(services.map(|(id, own)| (Owner::Service(id.clone()), own)))
}

/// Regions to which routers show no way, as all others hear it together; one that is down is told of anyway.
pub(super) fn withdrawn(view: &View) -> Vec<Finding> {
    let up = view.regions.iter();
    let up = up.filter(|(_, own)| own.state != RegionState::Down);
    up.filter_map(|(region, _)| {
        let rules = &view.policy.routing;
        let outlook = view.routing.outlook(rules, Observers::AllBut(None), region);
        let why = outlook.withdrawn?;
        let what = format!("routers show no way to {region}: {why}");
        Some(Finding {
            place: region.to_string(),
            why,
            action: "selections leave it where another may be selected".to_owned(),
            since: outlook.since,
            ..Finding::of(Severity::Degraded, what)
        })
    })
    .collect()
}

/// Everything at fault that is no region that is down.
pub(super) fn faults(view: &View) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut links = Vec::new();
    let mut suspects = Vec::new();
    for fault in view.faults.iter() {
        match (&fault.place, fault.kind) {
            (Place::Region(_), FaultKind::Total) => {}
            (Place::Region(region), FaultKind::Grey) => findings.push(grey_region(view, fault, region)),
            (Place::Link(pair), _) => links.push((fault, pair)),
            (Place::Agent(..), FaultKind::Total) => suspects.push(fault),
            (Place::Agent(region, agent), FaultKind::Grey) => findings.push(Finding {
                place: agent.to_string(),
                why: "other agents of its region lose none".to_owned(),
                action: "the region is not judged by it alone".to_owned(),
                sure: trust(view),
                since: Some(fault.since),
                ..Finding::of(
                    Severity::Degraded,
                    format!(
                        "agent {agent} in {region} loses {} of its probes and its neighbours lose none",
                        percent(fault.severity)
                    ),
                )
            }),
            (Place::Target(region, target), _) => findings.push(Finding {
                place: target.to_string(),
                why: format!(
                    "{} of {} see it as lost and others in {region} answer",
                    fault.seen_by,
                    plural(fault.observers as usize, "observer")
                ),
                action: format!("{region} is not judged by it"),
                sure: trust(view),
                since: Some(fault.since),
                ..Finding::of(
                    Severity::Degraded,
                    format!("host {target} in {region} answers nobody, and {region} is reached"),
                )
            }),
        }
    }
    findings.extend(link_faults(view, &links));
    findings.extend(observers(view, &suspects));
    findings
}

fn grey_region(view: &View, fault: &Fault, region: &RegionId) -> Finding {
    let what = match fault.severity >= NEARLY_ALL {
        true => format!("hardly anything gets through to {region}"),
        false => format!("{region} loses {} of its packets", percent(fault.severity)),
    };
    let links = format!(
        "on {} of its {}",
        fault.seen_by,
        plural(fault.observers as usize, "link")
    );
    Finding {
        place: region.to_string(),
        why: "most of its links lose packets, so the fault is its own".to_owned(),
        action: reaction(view, &|_, selected| selected == region),
        sure: format!("{links}; {}", trust(view)),
        since: Some(fault.since),
        ..Finding::of(Severity::Degraded, format!("{what}, {links}"))
    }
}

/// Links in trouble, the worst first; those that have one region in common are one finding.
fn link_faults(view: &View, links: &[(&Fault, &Pair)]) -> Vec<Finding> {
    let mut links = links.to_vec();
    links.sort_by(|(a, x), (b, y)| b.severity.total_cmp(&a.severity).then(x.cmp(y)));
    let Some(&(worst, pair)) = links.first() else {
        return Vec::new();
    };
    if links.len() > 1
        && let Some(culprit) = common(&links)
    {
        let other = other(pair, culprit);
        let what = format!(
            "{culprit} has trouble with {}, worst {other}: {}",
            plural(links.len(), "region"),
            measure(worst)
        );
        let names: Vec<_> = links.iter().map(|(_, pair)| between(pair)).collect();
        let ends = |owner: &Owner, selected: &RegionId| {
            links.iter().any(|(_, pair)| joins(pair, owner, selected))
        };
        return vec![Finding {
            place: short_list(&names),
            why: format!("these links have {culprit} in common, and its others are well"),
            action: reaction(view, &ends),
            sure: bounds(view, pair),
            since: links.iter().map(|(fault, _)| fault.since).min(),
            ..Finding::of(Severity::Degraded, what)
        }];
    }
    let finding = |&(fault, pair): &(&Fault, &Pair)| {
        let ends = |owner: &Owner, selected: &RegionId| joins(pair, owner, selected);
        Finding {
            place: between(pair),
            why: "other links of both are well".to_owned(),
            action: reaction(view, &ends),
            sure: bounds(view, pair),
            since: Some(fault.since),
            ..Finding::of(
                Severity::Degraded,
                format!("{} between {}", measure(fault), between(pair)),
            )
        }
    };
    links.iter().map(finding).collect()
}

fn between(pair: &Pair) -> String {
    let (a, b) = pair.regions();
    format!("{a} and {b}")
}

fn other<'a>(pair: &'a Pair, own: &RegionId) -> &'a RegionId {
    let (a, b) = pair.regions();
    if a == own { b } else { a }
}

/// Whether a selection of a primary lies across this link.
fn joins(pair: &Pair, owner: &Owner, selected: &RegionId) -> bool {
    matches!(owner, Owner::Region(primary) if Pair::new(primary, selected) == *pair)
}

fn measure(fault: &Fault) -> String {
    match (fault.kind, fault.severity >= NEARLY_ALL) {
        (FaultKind::Total, _) => "nothing gets through".to_owned(),
        (FaultKind::Grey, true) => "hardly anything gets through".to_owned(),
        (FaultKind::Grey, false) => format!("{} is lost", percent(fault.severity)),
    }
}

/// The one region that all links touch; none if two do, for then it is the link between them.
fn common<'a>(links: &[(&Fault, &'a Pair)]) -> Option<&'a RegionId> {
    let ends = |pair: &'a Pair| {
        let (a, b) = pair.regions();
        BTreeSet::from([a, b])
    };
    let mut sets = links.iter().map(|(_, pair)| ends(pair));
    let first = sets.next()?;
    let common = sets.fold(first, |all, ends| {
        all.intersection(&ends).copied().collect()
    });
    let mut common = common.into_iter();
    common.next().filter(|_| common.next().is_none())
}

fn bounds(view: &View, pair: &Pair) -> String {
    let Some(known) = view.pairs.get(pair) else {
        return trust(view);
    };
    let estimates = &known.estimates;
    let seen = plural(
        estimates.vantage_points(view.now, &view.policy) as usize,
        "observer",
    );
    match estimates.loss {
        Some(loss) if !known.is_lost(view.now, &view.policy) => format!(
            "between {} and {} lost between {}, say {seen} with {}",
            percent(loss.low),
            percent(loss.high),
            between(pair),
            plural(usize::try_from(loss.n).unwrap_or(usize::MAX), "probe"),
        ),
        _ => format!("nothing between {} is answered, say {seen}", between(pair)),
    }
}

/// What became of the selections that a fault concerns: those that left lately, and those that are still in it.
fn reaction(view: &View, concerns: &dyn Fn(&Owner, &RegionId) -> bool) -> String {
    let was = |(owner, own): &(Owner, &Arc<SelectionView>)| {
        let was = own.previous.as_ref();
        own.since.is_some_and(|at| view.now.since(at) < NEWS)
            && was.is_some_and(|was| concerns(owner, was))
    };
    let is = |(owner, own): &(Owner, &Arc<SelectionView>)| {
        own.selected
            .as_ref()
            .is_some_and(|selected| concerns(owner, selected))
    };
    let moved = selections(view).filter(|own| was(own) && !is(own));
    let moved = moved.map(|(owner, own)| is_at(&owner, "now", own.selected.as_ref()));
    let moved = short_list(&moved.collect::<Vec<_>>());
    let stay: Vec<_> = selections(view).filter(is).collect();
    let waits = stay.iter().find_map(|(owner, own)| {
        let waiting = own.waiting.as_ref()?;
        Some(waiting.words(owner, own.selected.as_ref()))
    });
    let kept = |(owner, _): &&(Owner, &Arc<SelectionView>)| {
        overrides::rules(&view.intents, owner).holds().is_some()
    };
    let kept = || {
        let (owner, own) = stay.iter().find(kept)?;
        let place = is_at(owner, "", own.selected.as_ref());
        Some(format!("an override keeps it so that {place}"))
    };
    match (moved.as_str(), waits.or_else(kept)) {
        ("", Some(stays)) => stays,
        (moved, Some(stays)) => format!("{moved}; {stays}"),
        ("", None) => {
            let names: Vec<_> = stay.iter().map(|(owner, _)| owner.to_string()).collect();
            let all = short_list(&names);
            match names.len() {
                0 => "nothing is selected there, so nothing has to move".to_owned(),
                1 => format!("{all} stays: nothing else is better by enough"),
                _ => format!("{all} stay: nothing else is better by enough"),
            }
        }
        (moved, None) => moved.to_owned(),
    }
}

/// Observers whose view does not count: a doubt that was ruled out.
fn observers(view: &View, faults: &[&Fault]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (vote, clause, why) in [
        (
            Vote::AtFault,
            "at fault",
            "everything fails to it that others see well",
        ),
        (
            Vote::Suspect,
            "in trouble",
            "by its own account it could not probe as it should",
        ),
    ] {
        let agents = view.agents.iter().filter(|(_, agent)| agent.vote == vote);
        let names: Vec<_> = agents.map(|(id, _)| id.to_string()).collect();
        if names.is_empty() {
            continue;
        }
        let whose = match names.len() {
            1 => "its view does",
            _ => "their views do",
        };
        let what = format!(
            "agent{} {} {} {clause} itself, so {whose} not count",
            if names.len() == 1 { "" } else { "s" },
            short_list(&names),
            is_or_are(names.len()),
        );
        let mine = faults.iter().filter(|fault| match &fault.place {
            Place::Agent(_, agent) => names.iter().any(|name| name == agent.as_str()),
            _ => false,
        });
        findings.push(Finding {
            place: short_list(&names),
            why: why.to_owned(),
            action: "no region is judged by it".to_owned(),
            sure: trust(view),
            since: mine.map(|fault| fault.since).min(),
            ..Finding::of(Severity::Degraded, what)
        });
    }
    findings
}

/// Agents that are silent; worse where nobody observes from their region any more. Those of a region that is down are
/// its own affair.
pub(super) fn silent(view: &View) -> Vec<Finding> {
    let is_heard = |region: &RegionId| {
        let mut agents = view.agents.values();
        agents.any(|agent| agent.region == *region && agent.vote != Vote::Silent)
    };
    let (mut alone, mut among) = (Vec::new(), Vec::new());
    for (id, agent) in view.agents.iter() {
        let state = view.regions.get(&agent.region).map(|own| own.state);
        let is_known = state.is_some_and(|state| state != RegionState::Down);
        if agent.vote != Vote::Silent || !is_known || agent.last_report_at.is_none() {
            continue;
        }
        match is_heard(&agent.region) {
            true => among.push(id.to_string()),
            false => alone.push((agent.region.to_string(), id.to_string())),
        }
    }
    let mut findings = Vec::new();
    if !alone.is_empty() {
        let regions: BTreeSet<_> = alone.iter().map(|(region, _)| region.clone()).collect();
        let regions: Vec<_> = regions.into_iter().collect();
        let agents: Vec<_> = alone.into_iter().map(|(_, agent)| agent).collect();
        findings.push(Finding {
            place: short_list(&agents),
            why: format!("silent: {}", agents.join(", ")),
            sure: trust(view),
            ..Finding::of(
                Severity::Degraded,
                format!(
                    "nobody observes from {} any more: {} {} silent",
                    short_list(&regions),
                    short_list(&agents),
                    is_or_are(agents.len())
                ),
            )
        });
    }
    if !among.is_empty() {
        let (who, are) = (short_list(&among), is_or_are(among.len()));
        findings.push(Finding {
            place: who.clone(),
            sure: trust(view),
            ..Finding::of(
                Severity::Note,
                format!("{who} {are} silent, and others of the region are heard"),
            )
        });
    }
    findings
}
