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
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use leeward_common::{
    finding::Bandwidth,
    histogram::Histogram,
    id::{AgentId, RegionId, TargetId},
    report::{Class, LocalHealth, OneWay, ProbeKind, Report, Silence, Window},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::{
    input::Reports,
    policy::Policy,
    view::{Link, LinkView, MAX_WINDOWS, Pair, PairView, RttView, WindowView},
};

pub mod arrival;
pub mod bandwidth;
pub(crate) mod combine;
pub mod doubt;
mod pool;

use arrival::Arrivals;
use bandwidth::{Bandwidths, Gauged};
pub(crate) use combine::Z;
use pool::Pool;

/// Evidence older than this is forgotten whatever the policy says.
pub const RETENTION: Duration = Duration::from_secs(120);

/// The most windows kept of one path: those of half a minute at the shortest length that a policy may ask for.
const MAX_PATH_WINDOWS: usize = 600;

/// A path: who probes what, and how.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct PathId {
    /// Who probes.
    pub agent: AgentId,
    /// What is probed.
    pub target: TargetId,
    /// How.
    pub kind: ProbeKind,
}

impl PathId {
    /// No path of an agent is ordered before this one.
    fn first_of(agent: &AgentId) -> Self {
        Self {
            agent: agent.clone(),
            target: TargetId::parse("0").expect("no id is ordered before that of a zero alone"),
            kind: ProbeKind::Icmp,
        }
    }
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
    #[serde(with = "crate::pairs")]
    paths: BTreeMap<PathId, PathEvidence>,
    arrivals: BTreeMap<AgentId, Arrivals>,
    /// The last window in which an agent was in trouble: its arrival and its lag in microseconds.
    doubts: BTreeMap<AgentId, (Timestamp, i64)>,
    /// When agents were last left out of the estimates: what they measured then does not count afterwards either.
    #[serde(default)]
    faulty: BTreeMap<AgentId, Span>,
    #[serde(with = "crate::pairs")]
    windows: BTreeMap<Link, VecDeque<LinkWindow>>,
    #[serde(default)]
    bandwidths: Arc<Bandwidths>,
    /// Made from the above; see [`Graph::refresh`].
    #[serde(skip)]
    made: Made,
}

/// Estimates, and the index that they are made by.
#[derive(Clone, Debug, Default)]
struct Made {
    by_link: BTreeMap<Link, BTreeSet<PathId>>,
    links: Arc<BTreeMap<Link, Arc<LinkView>>>,
    pairs: Arc<BTreeMap<Pair, Arc<PairView>>>,
    dirty: BTreeSet<Pair>,
}

/// From the first instant to the second, both included.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
struct Span {
    since: Timestamp,
    until: Timestamp,
}

impl Span {
    fn contains(self, at: Timestamp) -> bool {
        self.since <= at && at <= self.until
    }
}

/// What was measured on one path lately.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct PathEvidence {
    /// Region of the agent.
    pub from: RegionId,
    /// Region of the target.
    pub to: RegionId,
    /// By arrival, then by window.
    windows: VecDeque<WindowEvidence>,
}

/// One window of a path, or a part of it.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct WindowEvidence {
    window: Window,
    /// Up to when it tells, by the agent's clock.
    until: Timestamp,
    received_at: Timestamp,
    /// Arrival minus `until`, microseconds.
    lag_us: i64,
    answered: u64,
    late: u64,
    overdue: u64,
    rejected: u64,
    /// What was unanswered in a row at its end, if the agent says.
    silence: Option<Silence>,
    histogram: Histogram,
    min_us: u32,
}

/// All agents' evidence of one window of a link, for readers.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct LinkWindow {
    window: Window,
    answered: u64,
    unanswered: u64,
    histogram: Histogram,
    min_us: u32,
    max_us: u32,
    /// Of paths that tell directions apart.
    #[serde(default)]
    one_way: Option<OneWay>,
}

/// What an agent sees of something lately.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sight {
    /// Something was answered.
    Seen {
        /// Then, at last.
        until: Timestamp,
        /// When the next report is due from who saw it.
        due: Timestamp,
    },
    /// Nothing was, for long enough.
    Lost {
        /// From then on at least.
        since: Timestamp,
    },
    /// Too few probes to tell.
    Unclear,
}

impl Sight {
    /// Two sights of the same thing: one answer is enough to see it, and it is lost only if both say so.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (
                Self::Seen { until: a, due },
                Self::Seen {
                    until: b,
                    due: other,
                },
            ) => Self::Seen {
                until: a.max(b),
                due: due.max(other),
            },
            (seen @ Self::Seen { .. }, _) | (_, seen @ Self::Seen { .. }) => seen,
            (Self::Lost { since: a }, Self::Lost { since: b }) => Self::Lost { since: a.min(b) },
            _ => Self::Unclear,
        }
    }

    /// Whether it is seen.
    #[must_use]
    pub const fn is_seen(self) -> bool {
        matches!(self, Self::Seen { .. })
    }

    /// Whether it is lost.
    #[must_use]
    pub const fn is_lost(self) -> bool {
        matches!(self, Self::Lost { .. })
    }
}

impl Graph {
    /// Takes in an agent's reports. Paths from or to regions that the policy does not know, and those within one
    /// region, are evidence of nothing.
    pub fn on_reports(&mut self, now: Timestamp, policy: &Policy, reports: &Reports) {
        if !policy.regions.contains_key(&reports.region) {
            return;
        }
        let arrivals = self.arrivals.entry(reports.agent.clone()).or_default();
        let before_us = arrivals.quickest_us();
        let lag_us = arrivals.on_window(now, reports.until);
        if arrivals.quickest_us() != before_us {
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
        let mut told = BTreeSet::new();
        for (path, report) in &reports.reports {
            let known = path
                .region
                .as_ref()
                .filter(|to| policy.regions.contains_key(*to));
            let Some(to) = known.filter(|to| **to != reports.region) else {
                continue;
            };
            told.insert(to);
            let id = PathId {
                agent: reports.agent.clone(),
                target: path.target.clone(),
                kind: path.kind,
            };
            let evidence = WindowEvidence::new(reports, now, lag_us, report);
            let link = (reports.region.clone(), to.clone());
            self.on_link_window(&link, reports.window, &evidence, report);
            self.on_path_window(id, link, evidence, policy);
        }
        let pairs = told.into_iter().map(|to| Pair::new(&reports.region, to));
        self.made.dirty.extend(pairs);
    }

    /// The ages of all of an agent's evidence have changed.
    fn age_anew(&mut self, agent: &AgentId) {
        let mine = self.paths.range(PathId::first_of(agent)..);
        let mine = mine.take_while(|(id, _)| id.agent == *agent);
        let mut last: Option<(&RegionId, &RegionId)> = None;
        for (_, path) in mine {
            let link = (&path.from, &path.to);
            if last.replace(link) != Some(link) {
                self.made.dirty.insert(Pair::new(link.0, link.1));
            }
        }
    }

    fn on_path_window(
        &mut self,
        id: PathId,
        link: Link,
        evidence: WindowEvidence,
        policy: &Policy,
    ) {
        let keep = policy.evidence.memory + policy.evidence.stale_after;
        let (from, to) = link.clone();
        // Nearly always the path goes on as it was: one look-up among all paths is enough then.
        if let Some(path) = self.paths.get_mut(&id) {
            if path.from == from && path.to == to {
                path.insert(evidence, keep);
                return;
            }
            let old = (path.from.clone(), path.to.clone());
            self.forget(&id, &old);
        }
        self.made
            .by_link
            .entry(link)
            .or_default()
            .insert(id.clone());
        let path = self.paths.entry(id).or_insert_with(|| PathEvidence {
            from,
            to,
            windows: VecDeque::new(),
        });
        path.insert(evidence, keep);
    }

    fn on_link_window(
        &mut self,
        link: &Link,
        window: Window,
        evidence: &WindowEvidence,
        report: &Report,
    ) {
        let windows = self.windows.entry(link.clone()).or_default();
        let at = windows.partition_point(|other| other.window < window);
        if windows.get(at).is_none_or(|other| other.window != window) {
            windows.insert(
                at,
                LinkWindow {
                    window,
                    answered: 0,
                    unanswered: 0,
                    histogram: Histogram::new(evidence.histogram.schema()),
                    min_us: u32::MAX,
                    max_us: 0,
                    one_way: None,
                },
            );
        }
        windows[at].add(evidence, report);
        if windows.len() > MAX_WINDOWS {
            windows.pop_front();
        }
    }

    /// Forgets paths that were not heard of for [`RETENTION`], and regions that the policy does not know any more.
    pub fn forget_old(&mut self, now: Timestamp, policy: &Policy) {
        let known = |region: &RegionId| policy.regions.contains_key(region);
        let gone: Vec<(PathId, Link)> = self
            .paths
            .iter()
            .filter(|(_, path)| {
                let heard = path
                    .windows
                    .back()
                    .map_or(Timestamp::EPOCH, |last| last.received_at);
                now.since(heard) > RETENTION || !known(&path.from) || !known(&path.to)
            })
            .map(|(id, path)| (id.clone(), (path.from.clone(), path.to.clone())))
            .collect();
        for (id, link) in gone {
            self.forget(&id, &link);
        }
        self.windows
            .retain(|(from, to), _| known(from) && known(to));
        Arc::make_mut(&mut self.bandwidths).forget_old(now, known);
        let heard: BTreeSet<_> = self.paths.keys().map(|id| &id.agent).collect();
        self.arrivals.retain(|agent, _| heard.contains(agent));
        self.doubts.retain(|agent, _| heard.contains(agent));
        let (paths, arrivals) = (&self.paths, &self.arrivals);
        self.faulty.retain(|agent, span| {
            let quickest_us = arrivals.get(agent).map_or(0, Arrivals::quickest_us);
            let mine = paths.iter().filter(|(id, _)| id.agent == *agent);
            let mut windows = mine.flat_map(|(_, path)| &path.windows);
            windows.any(|window| span.contains(window.measured_at(quickest_us)))
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
            Some(span) if now.since(span.until) <= policy.evidence.memory => span.until = now,
            _ => drop(
                self.faulty
                    .insert(agent.clone(), Span { since, until: now }),
            ),
        }
    }

    fn forget(&mut self, id: &PathId, link: &Link) {
        self.paths.remove(id);
        self.made.dirty.insert(Pair::new(&link.0, &link.1));
        if let Some(paths) = self.made.by_link.get_mut(link) {
            paths.remove(id);
            if paths.is_empty() {
                self.made.by_link.remove(link);
            }
        }
    }

    /// What the agents of a region lost lately of the probes that they sent.
    pub(crate) fn losses_of(&self, region: &RegionId) -> BTreeMap<AgentId, (u64, u64)> {
        let mut losses: BTreeMap<AgentId, (u64, u64)> = BTreeMap::new();
        for (id, path) in self.paths.iter().filter(|(_, path)| path.from == *region) {
            let (lost, n) = losses.entry(id.agent.clone()).or_default();
            let faulty = self.faulty.get(&id.agent);
            let quickest_us = self.quickest_us(&id.agent);
            let counts = |window: &&WindowEvidence| {
                faulty.is_none_or(|span| !span.contains(window.measured_at(quickest_us)))
            };
            for window in path.windows.iter().filter(counts) {
                *lost += window.overdue.saturating_sub(window.late) + window.rejected;
                *n += window.answered + window.overdue + window.rejected;
            }
        }
        losses
    }

    /// Every path with its evidence.
    pub fn paths(&self) -> impl Iterator<Item = (&PathId, &PathEvidence)> {
        self.paths.iter()
    }

    /// What a path's agent sees of its target at `now`, and until when that is as fresh as it is now (see
    /// [`crate::view::Estimates::staleness`]); `None` if it is stale.
    #[must_use]
    pub fn sight(
        &self,
        now: Timestamp,
        policy: &Policy,
        id: &PathId,
        path: &PathEvidence,
    ) -> Option<(Sight, Timestamp)> {
        let quickest_us = self.quickest_us(&id.agent);
        let last = path.windows.back()?;
        let until = last.measured_at(quickest_us);
        let fresh_until = until + policy.evidence.stale_after;
        let window = policy.probing.window;
        let windows = now.since(until).as_micros() / window.as_micros().max(1);
        let next =
            until + window.saturating_mul(u32::try_from(windows.max(1) + 1).unwrap_or(u32::MAX));
        let as_fresh_until = fresh_until.min(next - Duration::from_micros(1));
        (now <= fresh_until).then(|| (path.sight(policy, until), as_fresh_until))
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

    /// An agent told how much a link carries.
    pub(crate) fn on_bandwidth(
        &mut self,
        now: Timestamp,
        agent: &AgentId,
        region: &RegionId,
        told: &Bandwidth,
    ) {
        let gauged = Gauged {
            at: arrival::by_our_clock(now, told.at, self.quickest_us(agent)),
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
        for (id, path) in &self.paths {
            let link = (path.from.clone(), path.to.clone());
            self.made.dirty.insert(Pair::new(&link.0, &link.1));
            self.made
                .by_link
                .entry(link)
                .or_default()
                .insert(id.clone());
        }
        self.refresh(policy, exclusions);
    }

    fn refresh_pair(&mut self, pair: &Pair, policy: &Policy, exclusions: &Exclusions) {
        let (a, b) = pair.regions();
        let directions = [(a.clone(), b.clone()), (b.clone(), a.clone())];
        let counted = directions
            .each_ref()
            .map(|link| self.counted(link, exclusions));
        let newest = counted.iter().flatten().map(|path| path.newest_at).max();
        let Some(newest_at) = newest else {
            let links = Arc::make_mut(&mut self.made.links);
            directions.iter().for_each(|link| drop(links.remove(link)));
            Arc::make_mut(&mut self.made.pairs).remove(pair);
            return;
        };
        let mut both = Pool::default();
        let mut views = Vec::new();
        for (link, paths) in directions.iter().zip(&counted) {
            let mut pool = Pool::default();
            pool.add(paths, newest_at - policy.evidence.memory);
            both.merge(&pool);
            if pool.is_empty()
                && let Some(own) = paths.iter().map(|path| path.newest_at).max()
            {
                pool.add(paths, own - policy.evidence.memory);
            }
            views.push((link.clone(), self.link_view(link, &pool)));
        }
        let lost = lost_by(&counted, policy);
        let mut estimates = both.estimates();
        let neutral_bps = policy.weights.bandwidth_scale_bps;
        let told = &self.bandwidths;
        estimates.bandwidth_bps = told.of_pair(newest_at, pair, exclusions, neutral_bps);
        let pair_view = PairView {
            estimates,
            lost_by: lost,
        };
        let links = Arc::make_mut(&mut self.made.links);
        links.extend(views);
        Arc::make_mut(&mut self.made.pairs).insert(pair.clone(), Arc::new(pair_view));
    }

    fn counted(&self, link: &Link, exclusions: &Exclusions) -> Vec<Counted<'_>> {
        let Some(ids) = self.made.by_link.get(link) else {
            return Vec::new();
        };
        let counts = |id: &&PathId| {
            !exclusions.agents.contains(&id.agent) && !exclusions.targets.contains(&id.target)
        };
        ids.iter()
            .filter(counts)
            .filter_map(|id| {
                let path = self.paths.get(id)?;
                let mut counted = Counted {
                    agent: &id.agent,
                    path,
                    quickest_us: self.quickest_us(&id.agent),
                    faulty: self.faulty.get(&id.agent).copied(),
                    newest_at: Timestamp::EPOCH,
                };
                counted.newest_at = counted.windows().next_back()?.1;
                Some(counted)
            })
            .collect()
    }

    fn link_view(&self, link: &Link, pool: &Pool) -> Arc<LinkView> {
        let windows = self.windows.get(link).into_iter().flatten();
        Arc::new(LinkView {
            estimates: pool.estimates(),
            windows: windows.map(LinkWindow::view).collect(),
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

/// A path whose evidence counts.
struct Counted<'a> {
    agent: &'a AgentId,
    path: &'a PathEvidence,
    quickest_us: i64,
    /// What was measured then does not count.
    faulty: Option<Span>,
    newest_at: Timestamp,
}

impl<'a> Counted<'a> {
    /// The windows that count, and when each was measured.
    fn windows(
        &self,
    ) -> impl DoubleEndedIterator<Item = (&'a WindowEvidence, Timestamp)> + use<'a> {
        let (quickest_us, faulty) = (self.quickest_us, self.faulty);
        let windows = self.path.windows.iter();
        windows
            .map(move |window| (window, window.measured_at(quickest_us)))
            .filter(move |(_, at)| faulty.is_none_or(|span| !span.contains(*at)))
    }
}

/// Agents to whom nothing from the other side is answered lately.
fn lost_by(counted: &[Vec<Counted<'_>>; 2], policy: &Policy) -> BTreeSet<AgentId> {
    let mut lost = BTreeSet::new();
    let mut seen = BTreeSet::new();
    for counted in counted.iter().flatten() {
        let set = match counted.path.sight(policy, counted.newest_at).is_lost() {
            true => &mut lost,
            false => &mut seen,
        };
        set.insert(counted.agent.clone());
    }
    lost.retain(|agent| !seen.contains(agent));
    lost
}

impl PathEvidence {
    fn insert(&mut self, evidence: WindowEvidence, keep: Duration) {
        let order = |other: &WindowEvidence| (other.received_at, other.window, other.until);
        let mut at = self
            .windows
            .partition_point(|other| order(other) <= order(&evidence));
        // The parts of a window follow each other closely, and on the way here one may overtake another.
        let is_later_part = |other: &WindowEvidence| {
            other.window == evidence.window && other.until > evidence.until
        };
        while at > 0 && is_later_part(&self.windows[at - 1]) {
            at -= 1;
        }
        self.windows.insert(at, evidence);
        let newest = self
            .windows
            .back()
            .map_or(Timestamp::EPOCH, |last| last.received_at);
        while self.windows.len() > MAX_PATH_WINDOWS
            || self
                .windows
                .front()
                .is_some_and(|old| newest.since(old.received_at) > keep)
        {
            self.windows.pop_front();
        }
    }

    /// What the newest window says. `until` is when that ended.
    fn sight(&self, policy: &Policy, until: Timestamp) -> Sight {
        let Some(newest) = self.windows.back() else {
            return Sight::Unclear;
        };
        let Silence { unanswered, lasts } = self.silence();
        if unanswered >= policy.evidence.down_probes && lasts >= policy.evidence.down_after {
            return Sight::Lost {
                since: until - lasts,
            };
        }
        // A path may be silent because its agent does not send.
        let heard = self
            .windows
            .iter()
            .rev()
            .find(|window| window.answers() > 0);
        let since_heard = |heard: &WindowEvidence| newest.until.since(heard.until).max(lasts);
        match heard.map(since_heard) {
            Some(since) if since <= policy.evidence.memory => Sight::Seen {
                until: until - since,
                due: until + policy.probing.window,
            },
            _ => Sight::Unclear,
        }
    }

    /// What is unanswered in a row. Agents that do not say are taken to be silent for whole windows.
    fn silence(&self) -> Silence {
        let mut silence = Silence::default();
        for window in self.windows.iter().rev() {
            let unsaid = Silence {
                unanswered: u32::try_from(window.overdue + window.rejected).unwrap_or(u32::MAX),
                lasts: window.window.length,
            };
            let last = window.silence.unwrap_or(unsaid);
            if window.silence.is_none() && window.answers() > 0 {
                break;
            }
            silence.unanswered = silence.unanswered.saturating_add(last.unanswered);
            silence.lasts = silence.lasts.saturating_add(last.lasts);
            if window.silence.is_some() {
                break;
            }
        }
        silence
    }
}

impl WindowEvidence {
    fn new(reports: &Reports, received_at: Timestamp, lag_us: i64, report: &Report) -> Self {
        let counts = &report.counts;
        Self {
            window: reports.window,
            until: reports.until,
            received_at,
            lag_us,
            answered: counts.answered(),
            late: u64::from(counts.of(Class::Late)),
            overdue: u64::from(counts.overdue),
            rejected: u64::from(counts.of(Class::IcmpError)),
            silence: counts.silence,
            histogram: report.rtt.histogram.clone(),
            min_us: report.rtt.min_us,
        }
    }

    /// Probes whose end is known.
    fn probes(&self) -> u64 {
        self.answered + self.overdue + self.rejected
    }

    /// Probes that were answered at all.
    fn answers(&self) -> u64 {
        self.answered + self.late
    }

    /// When it ended, by the aggregator's clock.
    fn measured_at(&self, quickest_us: i64) -> Timestamp {
        measured_at(self.received_at, self.lag_us, quickest_us)
    }
}

/// When what arrived then with this lag was measured, by the aggregator's clock.
fn measured_at(received_at: Timestamp, lag_us: i64, quickest_us: i64) -> Timestamp {
    let waited_us = lag_us.saturating_sub(quickest_us).max(0);
    received_at - Duration::from_micros(waited_us.unsigned_abs())
}

impl LinkWindow {
    fn add(&mut self, evidence: &WindowEvidence, report: &Report) {
        let Report { counts, rtt } = report;
        self.answered += evidence.answered + evidence.late;
        self.unanswered += evidence.overdue.saturating_sub(evidence.late) + evidence.rejected;
        // Windows of another schema, after a change of the policy, count without their times.
        if !rtt.histogram.is_empty() && self.histogram.merge(&rtt.histogram).is_ok() {
            self.min_us = self.min_us.min(rtt.min_us);
            self.max_us = self.max_us.max(rtt.max_us);
        }
        if let Some(one_way) = &counts.one_way {
            self.one_way.get_or_insert_default().add(one_way);
        }
    }

    fn view(&self) -> WindowView {
        // Not `clamp`: an agent's smallest may exceed its largest, and that must not end us.
        let quantile = |q| {
            let middle = self.histogram.quantile(q).unwrap_or(0);
            middle.max(self.min_us).min(self.max_us)
        };
        let rtt = (!self.histogram.is_empty()).then(|| RttView {
            min_us: self.min_us,
            p50_us: quantile(0.5),
            p90_us: quantile(0.9),
            p99_us: quantile(0.99),
            max_us: self.max_us,
        });
        WindowView {
            window: self.window,
            answered: self.answered,
            unanswered: self.unanswered,
            rtt,
            one_way: self.one_way,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use leeward_common::{
        histogram::Schema,
        report::{Counts, Direction, Rtt},
    };

    #[test]
    fn the_directions_of_a_window_are_those_of_all_its_paths_that_tell() {
        let window = Window {
            start: Timestamp::EPOCH,
            length: Duration::from_secs(1),
        };
        let reports = Reports {
            agent: AgentId::parse("iad-1").unwrap(),
            region: RegionId::parse("iad").unwrap(),
            window,
            until: window.end(),
            health: None,
            reports: Vec::new(),
        };
        let telling = |forward, backward| {
            let direction = |lost| Direction {
                lost,
                ..Direction::default()
            };
            Some(OneWay {
                forward: direction(forward),
                backward: direction(backward),
                lost_unknown: 1,
                lost_pending: 0,
            })
        };
        let mut of_link = LinkWindow {
            window,
            answered: 0,
            unanswered: 0,
            histogram: Histogram::new(Schema::TwoDigits),
            min_us: u32::MAX,
            max_us: 0,
            one_way: None,
        };
        let mut add = |one_way| {
            let report = Report {
                counts: Counts {
                    one_way,
                    ..Counts::default()
                },
                rtt: Rtt::empty(Schema::TwoDigits),
            };
            let evidence = WindowEvidence::new(&reports, Timestamp::EPOCH, 0, &report);
            of_link.add(&evidence, &report);
            of_link.view().one_way
        };
        assert_eq!(add(None), None);
        assert_eq!(add(telling(2, 0)), telling(2, 0));
        let sum = OneWay {
            lost_unknown: 2,
            ..telling(3, 4).unwrap()
        };
        assert_eq!(add(telling(1, 4)), Some(sum));
        assert_eq!(add(None), Some(sum));
    }
}
