//! Regions and links: which reports are evidence for a link, and how old they are.
//!
//! Evidence is kept by path, since a path is what was measured; a link's estimate combines ([`combine`]) the paths from agents of one
//! region to targets in the other. A round trip crosses a pair of regions both ways whoever began it, so the paths of
//! both directions are evidence about the pair, and a score is made from the pair.
//!
//! How old evidence is, the aggregator's clock says: when the report arrived, less the time by which it came later
//! after its window's end than its agent's quickest report lately ([`arrival`]). So an agent's clock may be wrong by
//! hours, and what it kept during an outage and delivers afterwards is still old.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use leeward_common::{
    finding::Bandwidth,
    id::{AgentId, RegionId, TargetId},
    pile::Pile,
    report::{LocalHealth, ProbeKind},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::{
    input::Reports,
    policy::Policy,
    view::{Estimates, Link, LinkView, Pair, PairView},
};

pub mod arrival;
pub mod bandwidth;
pub(crate) mod combine;
pub mod doubt;
mod evidence;
mod hearing;
mod paths;
mod pool;
mod sights;
mod windows;

use arrival::Arrivals;
use bandwidth::{Bandwidths, Gauged};
pub(crate) use combine::Z;
use evidence::{Dating, WindowEvidence, measured_at};
use hearing::Hearing;
use paths::{AgentPaths, Paths, Run};
use pool::Pool;
pub use sights::Sight;
pub(crate) use sights::Sights;
use windows::LinkWindows;

/// Evidence older than this is forgotten whatever the policy says.
pub const RETENTION: Duration = Duration::from_secs(120);

/// A path: who probes what, and how.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
struct PathId {
    /// Who probes.
    agent: AgentId,
    /// What is probed.
    target: TargetId,
    /// How.
    kind: ProbeKind,
}

/// What is left out of every pool, because its fault is known and is not the network's.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Exclusions {
    /// Agents at fault themselves.
    pub agents: BTreeSet<AgentId>,
    /// Targets that nobody reaches in a region that others of its targets are reached in.
    pub targets: BTreeSet<TargetId>,
}

/// All evidence.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Graph {
    paths: Paths,
    arrivals: BTreeMap<AgentId, Arrivals>,
    #[serde(default)]
    hearings: BTreeMap<AgentId, Hearing>,
    /// The last window in which an agent was in trouble: its arrival and its lag in microseconds.
    doubts: BTreeMap<AgentId, (Timestamp, i64)>,
    /// When agents were last left out of the estimates: what they measured then does not count afterwards either.
    #[serde(default)]
    faulty: BTreeMap<AgentId, Span>,
    #[serde(with = "crate::pairs")]
    windows: BTreeMap<Link, LinkWindows>,
    #[serde(default)]
    bandwidths: Arc<Bandwidths>,
    /// Made from the above; see [`Graph::refresh`].
    #[serde(skip)]
    made: Made,
    /// Histograms are added up on it.
    #[serde(skip)]
    pile: Pile,
}

/// Estimates.
#[derive(Clone, Debug, Default)]
struct Made {
    links: Arc<BTreeMap<Link, Arc<LinkView>>>,
    pairs: Arc<BTreeMap<Pair, Arc<PairView>>>,
    dirty: BTreeSet<Pair>,
}

/// From the first instant to the second, both included.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
struct Span {
    since: Timestamp,
    until: Timestamp,
}

impl Span {
    fn contains(self, at: Timestamp) -> bool {
        self.since <= at && at <= self.until
    }
}

impl Graph {
    /// Takes in an agent's reports. Paths from or to regions that the policy does not know, and those within one
    /// region, are evidence of nothing.
    pub fn on_reports(&mut self, now: Timestamp, policy: &Policy, reports: &Reports) {
        if !policy.regions.contains_key(&reports.region) {
            return;
        }
        let arrivals = match self.arrivals.get_mut(&reports.agent) {
            Some(arrivals) => arrivals,
            None => self.arrivals.entry(reports.agent.clone()).or_default(),
        };
        let hearing = match self.hearings.get_mut(&reports.agent) {
            Some(hearing) => hearing,
            None => self.hearings.entry(reports.agent.clone()).or_default(),
        };
        let before_us = arrivals.quickest_us();
        let lag_us = arrivals.on_window(now, reports.until);
        let runs = runs(policy, reports);
        let before = hearing.now(policy);
        hearing.on_reports(now, policy, reports, runs.iter().map(|run| &run.link));
        if arrivals.quickest_us() != before_us || hearing.now(policy) != before {
            self.age_anew(&reports.agent);
        }
        let in_doubt = |health: &LocalHealth| doubt::is_in_doubt(&policy.doubt, health);
        if reports.health.as_ref().is_some_and(in_doubt) {
            let last = self.doubts.entry(reports.agent.clone()).or_default();
            // Of those that arrive in one instant the freshest counts, in whatever order they are told.
            *last = match last.0 == now {
                true => (now, last.1.min(lag_us)),
                false => (now, lag_us),
            };
        }
        for Run { link, rows } in &runs {
            let windows = match self.windows.get_mut(link) {
                Some(windows) => windows,
                None => self.windows.entry(link.clone()).or_default(),
            };
            windows.add(reports.window, rows, &mut self.pile);
            self.made.dirty.insert(Pair::new(&link.0, &link.1));
        }
        let keep = policy.evidence.memory + policy.evidence.stale_after;
        let evidence = |report: &_| WindowEvidence::new(reports, now, lag_us, report);
        let (agent, table) = (&reports.agent, &reports.table);
        let gone = self.paths.insert(agent, table, &runs, keep, evidence);
        self.made.dirty.extend(pairs(&gone));
    }

    /// The ages of all of an agent's evidence have changed.
    fn age_anew(&mut self, agent: &AgentId) {
        let own = self.paths.get_mut(agent);
        for (from, to) in own.iter().flat_map(|own| own.links()) {
            self.made.dirty.insert(Pair::new(from, to));
        }
        own.into_iter().for_each(AgentPaths::forget_sights);
    }

    /// Forgets paths that were not heard of for [`RETENTION`], and regions that the policy does not know any more.
    pub fn forget_old(&mut self, now: Timestamp, policy: &Policy) {
        let known = |region: &RegionId| policy.regions.contains_key(region);
        let gone = self.paths.forget(|path| {
            now.since(path.heard_at()) > RETENTION || !known(&path.from) || !known(&path.to)
        });
        self.made.dirty.extend(pairs(&gone));
        self.windows
            .retain(|(from, to), _| known(from) && known(to));
        Arc::make_mut(&mut self.bandwidths).forget_old(now, known);
        let paths = &self.paths;
        self.arrivals.retain(|agent, _| paths.get(agent).is_some());
        self.hearings.retain(|agent, own| {
            own.forget_old(now);
            paths.get(agent).is_some()
        });
        self.doubts.retain(|agent, _| paths.get(agent).is_some());
        let arrivals = &self.arrivals;
        self.faulty.retain(|agent, span| {
            let quickest_us = arrivals.get(agent).map_or(0, Arrivals::quickest_us);
            let mut mine = paths.get(agent).into_iter().flat_map(AgentPaths::iter);
            mine.any(|own| own.evidence.has_any_of(quickest_us, *span))
        });
    }

    /// An agent is left out of the estimates at `now`, and has been wrong since `since` at least. Two such times with no
    /// more than the memory between them are one.
    pub(crate) fn on_fault(
        &mut self,
        now: Timestamp,
        policy: &Policy,
        agent: &AgentId,
        since: Timestamp,
    ) {
        match self.faulty.get_mut(agent) {
            Some(span) if now.since(span.until) <= policy.evidence.memory => {
                span.until = span.until.max(now);
            }
            _ => drop(
                self.faulty
                    .insert(agent.clone(), Span { since, until: now }),
            ),
        }
    }

    /// What the agents of a region lost lately of the probes that they sent.
    pub(crate) fn losses_of(
        &self,
        policy: &Policy,
        region: &RegionId,
    ) -> BTreeMap<AgentId, (u64, u64)> {
        let mut losses: BTreeMap<AgentId, (u64, u64)> = BTreeMap::new();
        for (agent, own) in self.paths.agents() {
            let dating = self.dating(policy, agent);
            for own in own.iter().filter(|own| own.evidence.from == *region) {
                let (lost, n) = losses.entry(agent.clone()).or_default();
                let (more_lost, more) = own.evidence.losses(dating);
                (*lost, *n) = (*lost + more_lost, *n + more);
            }
        }
        losses
    }

    /// Whether there is any evidence.
    pub(crate) fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// Looks at what agents see at `now`, and returns until when no evidence that is fresh now becomes stale. Until then an
    /// agent that tells nothing new sees the same.
    pub(crate) fn look(&mut self, now: Timestamp, policy: &Policy) -> Timestamp {
        let mut fresh_until = Timestamp::from_unix_us(u64::MAX);
        let Self {
            paths,
            arrivals,
            hearings,
            faulty,
            ..
        } = self;
        for (agent, own) in paths.agents_mut() {
            let dating = dating(policy, agent, arrivals, hearings, faulty);
            let made = own.sights(now, policy, dating);
            fresh_until = fresh_until.min(made.fresh_until);
        }
        fresh_until
    }

    /// What agents were found to see when it was looked last; those of whom nothing was fresh are left out.
    pub(crate) fn sights(&self) -> impl Iterator<Item = (&AgentId, &Sights)> {
        let agents = self.paths.agents();
        agents.filter_map(|(agent, own)| Some((agent, own.last_sights()?)))
    }

    /// Agents that doubt themselves at `now`, and until when each does.
    pub fn self_suspecting(
        &self,
        now: Timestamp,
        policy: &Policy,
    ) -> impl Iterator<Item = (&AgentId, Timestamp)> {
        let until = |(agent, &(received_at, lag_us))| {
            let at = measured_at(received_at, lag_us, self.quickest_us(agent));
            (agent, at + policy.doubt.lasts)
        };
        self.doubts
            .iter()
            .map(until)
            .filter(move |&(_, until)| until > now)
    }

    pub(crate) fn quickest_us(&self, agent: &AgentId) -> i64 {
        self.arrivals.get(agent).map_or(0, Arrivals::quickest_us)
    }

    fn dating(&self, policy: &Policy, agent: &AgentId) -> Dating {
        dating(policy, agent, &self.arrivals, &self.hearings, &self.faulty)
    }

    /// An agent told how much a link carries.
    pub(crate) fn on_bandwidth(
        &mut self,
        now: Timestamp,
        agent: &AgentId,
        region: &RegionId,
        told: &Bandwidth,
    ) {
        let gauged = Gauged {
            at: arrival::by_our_clock(told.at, self.quickest_us(agent)).min(now),
            agent: agent.clone(),
            region: region.clone(),
            bandwidth: told.clone(),
        };
        if let Some(to) = &gauged.bandwidth.region {
            self.made.dirty.insert(Pair::new(&gauged.region, to));
        }
        Arc::make_mut(&mut self.bandwidths).on_told(gauged);
    }

    /// How much links carry, as agents told.
    #[must_use]
    pub const fn bandwidths(&self) -> &Arc<Bandwidths> {
        &self.bandwidths
    }

    /// Makes the estimates anew that new evidence has made old.
    pub fn refresh(&mut self, policy: &Policy, exclusions: &Exclusions) {
        for pair in std::mem::take(&mut self.made.dirty) {
            self.refresh_pair(&pair, policy, exclusions);
        }
    }

    /// Makes all estimates anew: the policy, the exclusions or the whole graph has changed.
    pub fn refresh_all(&mut self, policy: &Policy, exclusions: &Exclusions) {
        self.made = Made::default();
        self.paths.forget_made();
        let all = self.paths.links().map(|(from, to)| Pair::new(from, to));
        self.made.dirty.extend(all);
        self.refresh(policy, exclusions);
    }

    fn refresh_pair(&mut self, pair: &Pair, policy: &Policy, exclusions: &Exclusions) {
        let (a, b) = pair.regions();
        let directions = [(a.clone(), b.clone()), (b.clone(), a.clone())];
        let counted = directions
            .each_ref()
            .map(|link| self.counted(link, policy, exclusions));
        let newest = counted.iter().flatten().map(|agent| agent.newest_at).max();
        let Some(newest_at) = newest else {
            let links = Arc::make_mut(&mut self.made.links);
            directions.iter().for_each(|link| drop(links.remove(link)));
            Arc::make_mut(&mut self.made.pairs).remove(pair);
            return;
        };
        let memory = policy.evidence.memory;
        let pools = counted.each_ref().map(|own| {
            let mut pool = Pool::default();
            self.add(&mut pool, own, policy, newest_at - memory);
            pool
        });
        let own = pools.each_ref().map(Pool::estimates);
        // Nearly always somebody measures both ways; where only one way is measured the pair is what that link is.
        let mut estimates = match pools.each_ref().map(Pool::has_paths) {
            [true, true] => Pool::of_both(&pools).estimates(),
            [true, false] => own[0].clone(),
            [false, _] => own[1].clone(),
        };
        let mut views = Vec::new();
        for (((link, counted), mut pool), own) in
            directions.iter().zip(&counted).zip(pools).zip(own)
        {
            let newest_at = counted.iter().map(|agent| agent.newest_at).max();
            let estimates = match newest_at.filter(|_| pool.is_empty()) {
                Some(newest_at) => {
                    self.add(&mut pool, counted, policy, newest_at - memory);
                    pool.estimates()
                }
                None => own,
            };
            views.push((link.clone(), self.link_view(link, estimates)));
        }
        let neutral_bps = policy.weights.bandwidth_scale_bps;
        let told = &self.bandwidths;
        estimates.bandwidth_bps = told.of_pair(newest_at, pair, exclusions, neutral_bps);
        let pair_view = PairView {
            estimates,
            lost_by: lost_by(&counted),
        };
        let links = Arc::make_mut(&mut self.made.links);
        links.extend(views);
        Arc::make_mut(&mut self.made.pairs).insert(pair.clone(), Arc::new(pair_view));
    }

    /// The agents whose paths are evidence for a link, as far as these count.
    fn counted(&mut self, link: &Link, policy: &Policy, exclusions: &Exclusions) -> Vec<Counted> {
        let agents: Vec<AgentId> = self.paths.agents_of(link).cloned().collect();
        let counts = |agent: &AgentId| !exclusions.agents.contains(agent);
        let agents = agents.into_iter().filter(counts);
        agents
            .filter_map(|agent| {
                let dating = self.dating(policy, &agent);
                let mut counted = Counted::new(agent, dating);
                let own = self.paths.get_mut(&counted.agent)?;
                for (place, own) in own.of_link_mut(link) {
                    if !exclusions.targets.contains(&own.target)
                        && let Some((newest_at, is_lost)) = own.evidence.newest(policy, dating)
                    {
                        counted.add(place, newest_at, is_lost);
                    }
                }
                (!counted.paths.is_empty()).then_some(counted)
            })
            .collect()
    }

    /// Adds what paths measured that have a window that ended after `cut`.
    fn add(&mut self, pool: &mut Pool, counted: &[Counted], policy: &Policy, cut: Timestamp) {
        for Counted {
            agent,
            dating,
            paths,
            ..
        } in counted
        {
            let Some(own) = self.paths.get_mut(agent) else {
                continue;
            };
            let mut newest_at = None;
            for &(place, at) in paths.iter().filter(|(_, at)| *at > cut) {
                newest_at = newest_at.max(Some(at));
                let evidence = &mut own.at_mut(place).evidence;
                pool.add(evidence.measured(policy, *dating, cut, &mut self.pile));
            }
            if let Some(newest_at) = newest_at {
                pool.note(agent, newest_at);
            }
        }
    }

    fn link_view(&mut self, link: &Link, estimates: Estimates) -> Arc<LinkView> {
        let windows = self.windows.get_mut(link);
        Arc::new(LinkView {
            estimates,
            windows: windows.map(LinkWindows::view).unwrap_or_default(),
        })
    }

    /// Estimates by directed link, as of the last refresh.
    #[must_use]
    pub fn links(&self) -> &Arc<BTreeMap<Link, Arc<LinkView>>> {
        &self.made.links
    }

    /// Estimates by pair, as of the last refresh.
    #[must_use]
    pub fn pairs(&self) -> &Arc<BTreeMap<Pair, Arc<PairView>>> {
        &self.made.pairs
    }
}

/// An agent of whom some paths count.
struct Counted {
    agent: AgentId,
    dating: Dating,
    /// The place of each of these paths, and when its newest window that counts was measured.
    paths: Vec<(usize, Timestamp)>,
    newest_at: Timestamp,
    /// Whether one of them is lost, and whether one is not.
    lost: bool,
    seen: bool,
}

impl Counted {
    const fn new(agent: AgentId, dating: Dating) -> Self {
        Self {
            agent,
            dating,
            paths: Vec::new(),
            newest_at: Timestamp::EPOCH,
            lost: false,
            seen: false,
        }
    }

    fn add(&mut self, place: usize, newest_at: Timestamp, is_lost: bool) {
        self.paths.push((place, newest_at));
        self.newest_at = self.newest_at.max(newest_at);
        self.lost |= is_lost;
        self.seen |= !is_lost;
    }
}

fn dating(
    policy: &Policy,
    agent: &AgentId,
    arrivals: &BTreeMap<AgentId, Arrivals>,
    hearings: &BTreeMap<AgentId, Hearing>,
    faulty: &BTreeMap<AgentId, Span>,
) -> Dating {
    let quickest_us = arrivals.get(agent).map_or(0, Arrivals::quickest_us);
    let hearing = hearings.get(agent).map(|own| own.now(policy));
    let (hears_from, deaf) = hearing.unwrap_or_default();
    let ours = |at| arrival::by_our_clock(at, quickest_us);
    Dating {
        quickest_us,
        faulty: faulty.get(agent).copied(),
        hears_from: ours(hears_from),
        deaf: deaf.map(|Span { since, until }| Span {
            since: ours(since),
            until: ours(until),
        }),
    }
}

/// Agents to whom nothing from the other side is answered lately.
fn lost_by(counted: &[Vec<Counted>; 2]) -> BTreeSet<AgentId> {
    let all = || counted.iter().flatten();
    let seen: BTreeSet<&AgentId> = all().filter(|own| own.seen).map(|own| &own.agent).collect();
    let lost = all().filter(|own| own.lost && !seen.contains(&own.agent));
    lost.map(|own| own.agent.clone()).collect()
}

/// The rows of reports that are evidence of something. What the table does not have, what has no region or one that the policy
/// does not know, and what is within one region is not.
fn runs<'a>(policy: &Policy, reports: &'a Reports) -> Vec<Run<'a>> {
    let region = |row: &(u32, _)| reports.path(row.0).map(|path| path.region.as_ref());
    let runs = reports.rows.chunk_by(|a, b| region(a) == region(b));
    let run = |rows: &'a [(u32, _)]| {
        let to = region(rows.first()?)??;
        let counts = *to != reports.region && policy.regions.contains_key(to);
        counts.then(|| Run {
            link: (reports.region.clone(), to.clone()),
            rows,
        })
    };
    runs.filter_map(run).collect()
}

fn pairs(links: &[Link]) -> impl Iterator<Item = Pair> {
    links.iter().map(|(from, to)| Pair::new(from, to))
}

#[cfg(test)]
mod tests;
