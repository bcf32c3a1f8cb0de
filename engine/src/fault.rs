//! Whose fault it is: the observer, one target, or a region.
//!
//! Agents measure and never judge; here their views are put together.
//!
//! - An agent that was not heard of lately is **silent**. Silence is unknown, not down.
//! - An agent to whom everything fails at once, part of which others see well, is itself **at fault**: its view counts
//!   neither for nor against anyone.
//! - A region is **down** when every agent outside it whose view counts sees total loss to it, and these stand in at
//!   least two regions, or in the one other region where there are only two.
//! - A target that a quorum sees as lost in a region that is otherwise seen is **dead**: a host has failed, not a link.
//! - Where every observer sees everything as lost, the observers are cut off: then nothing is known. So it is where
//!   none is heard of any more.
//! - What was silent while an agent heard nothing at all was not silent to it: that counts from its first answer on
//!   ([`crate::graph`], ADR 18).
//! - An agent that doubts itself, because it reported trouble of its own ([`crate::graph::doubt`]), has no vote, as one
//!   at fault.
//!
//! [`localise`] says where less than total trouble is.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use leeward_common::{
    id::{AgentId, RegionId, TargetId},
    time::Timestamp,
};

mod localise;

pub(crate) use localise::localise;

pub use localise::{Fault, FaultKind, Place, TROUBLE_LOSS};

use crate::{
    graph::{Exclusions, Graph, Sight, Sights},
    policy::Policy,
    view::{RegionState, Vote},
};

/// What all views together say.
#[derive(Clone, Debug, Default)]
pub struct Judgement {
    /// Every region of the policy: its state and the fact behind it, in words.
    pub regions: BTreeMap<RegionId, (RegionState, String)>,
    /// Every agent with fresh evidence: its region and whether its view counts.
    pub votes: BTreeMap<AgentId, (RegionId, Vote)>,
    /// What is left out of the estimates.
    pub exclusions: Exclusions,
    /// Since when each agent that is left out has been wrong, as far as it can be told.
    pub wrong_since: BTreeMap<AgentId, Timestamp>,
    /// Regions that are down: how many observers see them as lost, of how many.
    pub down: BTreeMap<RegionId, (usize, usize)>,
    /// Targets that are dead, likewise.
    pub dead: BTreeMap<(RegionId, TargetId), (usize, usize)>,
    /// Why nothing is known, if the observers are cut off.
    pub cut_off: Option<String>,
    /// Until when no evidence that is fresh now becomes stale.
    pub fresh_until: Timestamp,
}

/// Puts the agents' views at `now` together; `suspects` are agents that doubt themselves, and since when.
#[must_use]
pub fn judge(
    now: Timestamp,
    policy: &Policy,
    graph: &mut Graph,
    suspects: &BTreeMap<AgentId, Timestamp>,
) -> Judgement {
    let fresh_until = graph.look(now, policy);
    let graph = &*graph;
    let sights: Vec<(&AgentId, &Sights)> = graph.sights().collect();
    let at_fault: BTreeMap<AgentId, Timestamp> = sights
        .iter()
        .filter(|(agent, own)| is_at_fault(agent, own, &sights))
        .map(|&(agent, own)| (agent.clone(), own.lost_since().unwrap_or(now)))
        .collect();
    let voters: Vec<&Sights> = sights
        .iter()
        .filter(|(agent, _)| !at_fault.contains_key(*agent) && !suspects.contains_key(*agent))
        .map(|&(_, own)| own)
        .collect();
    let cut_off = cut_off(policy, graph, &voters);
    let mut down = BTreeMap::new();
    let region = |region: &RegionId| {
        let verdict = match &cut_off {
            Some(detail) => (RegionState::Unknown, detail.clone()),
            None => judge_region(now, policy, region, &voters, &mut down),
        };
        (region.clone(), verdict)
    };
    let regions = policy.regions.keys().map(region).collect();
    let vote = |&(agent, own): &(&AgentId, &Sights)| {
        let vote = match (at_fault.contains_key(agent), suspects.contains_key(agent)) {
            (true, _) => Vote::AtFault,
            (false, true) => Vote::Suspect,
            (false, false) => Vote::Counts,
        };
        (agent.clone(), (own.region.clone(), vote))
    };
    let dead = dead_targets(now, policy, &voters);
    // An agent that is both has been wrong since it lost sight of everything: that is the longer time.
    let mut wrong_since = suspects.clone();
    wrong_since.extend(at_fault.clone());
    Judgement {
        regions,
        votes: sights.iter().map(vote).collect(),
        exclusions: Exclusions {
            targets: dead.keys().map(|(_, target)| target.clone()).collect(),
            agents: wrong_since.keys().cloned().collect(),
        },
        wrong_since,
        down,
        dead,
        cut_off,
        fresh_until,
    }
}

/// Why nothing is known, if the observers are cut off.
fn cut_off(policy: &Policy, graph: &Graph, voters: &[&Sights]) -> Option<String> {
    if voters.is_empty() && !graph.is_empty() {
        return Some("no observer has fresh evidence".to_owned());
    }
    (policy.regions.len() > 2 && are_cut_off(voters))
        .then(|| "every observer sees every region as lost: the observers are cut off".to_owned())
}

fn is_at_fault(agent: &AgentId, own: &Sights, sights: &[(&AgentId, &Sights)]) -> bool {
    let all_lost = own.regions.values().all(|sight| sight.is_lost());
    let others = || sights.iter().filter(|(other, _)| *other != agent);
    let seen_by_others = |region| {
        others().any(|(_, other)| {
            other
                .regions
                .get(region)
                .is_some_and(|sight| sight.is_seen())
        })
    };
    all_lost && own.regions.keys().any(seen_by_others)
}

fn are_cut_off(voters: &[&Sights]) -> bool {
    let mut sights = voters.iter().flat_map(|own| own.regions.values());
    let any_lost = sights.clone().any(|sight| sight.is_lost());
    any_lost && !sights.any(|sight| sight.is_seen())
}

/// In how many regions those must stand who see something as lost.
fn quorum(policy: &Policy) -> usize {
    policy.regions.len().saturating_sub(1).clamp(1, 2)
}

/// How much later than due a report may come before its agent is taken to be falling silent.
pub(crate) fn grace(policy: &Policy) -> Duration {
    policy.probing.window / 4
}

/// Views of one thing.
#[derive(Default)]
struct Tally<'a> {
    /// When each who sees it did last, and when its next report is due.
    seen: Vec<(Timestamp, Timestamp)>,
    lost: usize,
    lost_since: Option<Timestamp>,
    lost_regions: BTreeSet<&'a RegionId>,
}

impl<'a> Tally<'a> {
    fn count(&mut self, observer: &'a RegionId, sight: Sight) {
        match sight {
            Sight::Seen { until, due } => self.seen.push((until, due)),
            Sight::Lost { since } => {
                self.lost += 1;
                self.lost_since = self.lost_since.max(Some(since));
                self.lost_regions.insert(observer);
            }
            Sight::Unclear => {}
        }
    }

    /// How many see it. Who saw it only before others lost it, and has since been due to report and has not, is falling
    /// silent and says nothing about now: two regions that are lost together must not vouch for each other.
    fn seen(&self, now: Timestamp, policy: &Policy) -> usize {
        // Last answers of one moment lie up to a probe and its way apart.
        let apart = policy.probing.interval * 2;
        let contradicts = |(until, due): &&(Timestamp, Timestamp)| {
            self.lost_since
                .is_none_or(|since| *until > since + apart || now < *due + grace(policy))
        };
        self.seen.iter().filter(contradicts).count()
    }

    fn is_lost(&self, now: Timestamp, policy: &Policy) -> bool {
        self.seen(now, policy) == 0 && self.lost_regions.len() >= quorum(policy)
    }
}

fn judge_region(
    now: Timestamp,
    policy: &Policy,
    region: &RegionId,
    voters: &[&Sights],
    down: &mut BTreeMap<RegionId, (usize, usize)>,
) -> (RegionState, String) {
    let mut tally = Tally::default();
    for own in voters {
        if let Some(&sight) = own.regions.get(region) {
            tally.count(&own.region, sight);
        }
    }
    let Tally {
        lost, lost_regions, ..
    } = &tally;
    let seen = tally.seen(now, policy);
    let observers = seen + lost;
    if tally.is_lost(now, policy) {
        let detail = format!(
            "{lost} of {observers} observers in {} see total loss",
            words(lost_regions.len(), "region")
        );
        down.insert(region.clone(), (*lost, observers));
        return (RegionState::Down, detail);
    }
    match (seen, lost) {
        (0, 0) => (
            RegionState::Unknown,
            "no observer has fresh evidence".to_owned(),
        ),
        (0, _) => {
            let detail = format!(
                "{} sees total loss; observers in {} must",
                words(*lost, "observer"),
                words(quorum(policy), "region")
            );
            (RegionState::Unknown, detail)
        }
        _ => (
            RegionState::Up,
            format!("{seen} of {observers} observers reach it"),
        ),
    }
}

fn dead_targets(
    now: Timestamp,
    policy: &Policy,
    voters: &[&Sights],
) -> BTreeMap<(RegionId, TargetId), (usize, usize)> {
    // What nobody has lost is not dead.
    let all = || voters.iter().flat_map(|own| &own.targets);
    let lost = all().filter(|(_, sight)| sight.is_lost());
    let mut tallies: BTreeMap<&(RegionId, TargetId), Tally<'_>> =
        lost.map(|(target, _)| (target, Tally::default())).collect();
    if tallies.is_empty() {
        return BTreeMap::new();
    }
    let mut alive: BTreeSet<&RegionId> = BTreeSet::new();
    for own in voters {
        for (target, sight) in &own.targets {
            match tallies.get_mut(target) {
                Some(tally) => tally.count(&own.region, *sight),
                None if sight.is_seen() => drop(alive.insert(&target.0)),
                None => {}
            }
        }
    }
    let seen = tallies
        .iter()
        .filter(|(_, tally)| tally.seen(now, policy) > 0);
    alive.extend(seen.map(|((region, _), _)| region));
    let dead = |((region, _), tally): &(&&(RegionId, TargetId), &Tally<'_>)| {
        alive.contains(region) && tally.is_lost(now, policy)
    };
    tallies
        .iter()
        .filter(dead)
        .map(|(target, tally)| {
            let target: &(RegionId, TargetId) = target;
            (
                target.clone(),
                (tally.lost, tally.lost + tally.seen(now, policy)),
            )
        })
        .collect()
}

fn words(n: usize, noun: &str) -> String {
    match n {
        1 => format!("1 {noun}"),
        _ => format!("{n} {noun}s"),
    }
}
