//! Every path with its evidence, by agent.
//!
//! An agent's reports refer to the rows of its path table, and tables change seldom. So it is remembered where the path of
//! each row is, and a report finds its path without a search.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use leeward_common::{
    id::{AgentId, TargetId},
    report::{Path, ProbeKind, Report},
    time::Timestamp,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{
    PathId,
    evidence::{Dating, PathEvidence, WindowEvidence},
    sights::{self, Sights},
};
use crate::{pairs, policy::Policy, view::Link};

/// See the module's documentation.
#[derive(Clone, Debug, Default)]
pub(super) struct Paths {
    /// None of them without a path.
    agents: BTreeMap<AgentId, AgentPaths>,
    /// Whose paths are evidence for a link.
    by_link: BTreeMap<Link, BTreeSet<AgentId>>,
}

/// The paths of one agent.
#[derive(Clone, Debug, Default)]
pub(super) struct AgentPaths {
    /// In the order of targets, then of kinds.
    paths: Vec<Own>,
    /// Where in `paths` those of a link are, in their order.
    by_link: BTreeMap<Link, Vec<usize>>,
    table: Option<Table>,
    /// What the agent sees, as long as nothing has changed.
    sights: Option<sights::Made>,
}

/// Rows of a batch that follow each other and are evidence for one link.
#[derive(Debug)]
pub(super) struct Run<'a> {
    pub(super) link: Link,
    /// Each within the table.
    pub(super) rows: &'a [(u32, Report)],
}

/// A path and its evidence.
#[derive(Clone, Debug)]
pub(super) struct Own {
    pub(super) target: TargetId,
    pub(super) kind: ProbeKind,
    pub(super) evidence: PathEvidence,
}

/// Where the paths of a table's rows are.
#[derive(Clone, Debug)]
struct Table {
    rows: Arc<[Path]>,
    /// By row; `None` for one that was not reported since.
    places: Vec<Option<usize>>,
}

impl Paths {
    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.agents.is_empty()
    }

    /// Every agent that has paths.
    pub(super) fn agents(&self) -> impl Iterator<Item = (&AgentId, &AgentPaths)> {
        self.agents.iter()
    }

    /// The same, to change what is made of them.
    pub(super) fn agents_mut(&mut self) -> impl Iterator<Item = (&AgentId, &mut AgentPaths)> {
        self.agents.iter_mut()
    }

    /// The paths of an agent.
    pub(super) fn get(&self, agent: &AgentId) -> Option<&AgentPaths> {
        self.agents.get(agent)
    }

    /// The same, to change what is made of them.
    pub(super) fn get_mut(&mut self, agent: &AgentId) -> Option<&mut AgentPaths> {
        self.agents.get_mut(agent)
    }

    /// Every link that there is evidence for.
    pub(super) fn links(&self) -> impl Iterator<Item = &Link> {
        self.by_link.keys()
    }

    /// Whose paths are evidence for a link.
    pub(super) fn agents_of(&self, link: &Link) -> impl Iterator<Item = &AgentId> {
        self.by_link.get(link).into_iter().flatten()
    }

    /// Takes in the windows of these rows, which `evidence` makes of reports. Returns the links that lost a path to another,
    /// because its target stands in another region now.
    pub(super) fn insert(
        &mut self,
        agent: &AgentId,
        table: &Arc<[Path]>,
        runs: &[Run<'_>],
        keep: Duration,
        evidence: impl Fn(&Report) -> WindowEvidence,
    ) -> Vec<Link> {
        let mut gone = Vec::new();
        if runs.is_empty() {
            return gone;
        }
        let own = self.agents.entry(agent.clone()).or_default();
        own.sights = None;
        let mut is_indexed = own.find(table, runs);
        for Run { link, rows } in runs {
            for (row, report) in *rows {
                let path = own.of_row(*row);
                if !path.is_of(link) {
                    gone.push((path.from.clone(), path.to.clone()));
                    *path = PathEvidence::new(link);
                    is_indexed = false;
                }
                path.insert(evidence(report), keep);
            }
        }
        if !is_indexed {
            self.index(agent);
        }
        gone
    }

    /// Forgets paths. Returns the links that lost one.
    pub(super) fn forget(&mut self, is_gone: impl Fn(&PathEvidence) -> bool) -> Vec<Link> {
        let (mut gone, mut changed) = (Vec::new(), Vec::new());
        for (agent, own) in &mut self.agents {
            let before = gone.len();
            own.paths.retain(|Own { evidence, .. }| {
                let is_gone = is_gone(evidence);
                if is_gone {
                    gone.push((evidence.from.clone(), evidence.to.clone()));
                }
                !is_gone
            });
            if gone.len() > before {
                (own.table, own.sights) = (None, None);
                changed.push(agent.clone());
            }
        }
        for agent in changed {
            self.index(&agent);
        }
        gone
    }

    /// What is made of the evidence is made anew.
    pub(super) fn forget_made(&mut self) {
        for own in self.agents.values_mut() {
            own.sights = None;
            own.paths
                .iter_mut()
                .for_each(|own| own.evidence.forget_made());
        }
    }

    /// Notes anew which of an agent's paths are evidence for which link.
    fn index(&mut self, agent: &AgentId) {
        let Some(own) = self.agents.get_mut(agent) else {
            return;
        };
        let before = std::mem::take(&mut own.by_link);
        for (at, Own { evidence, .. }) in own.paths.iter().enumerate() {
            let link = (evidence.from.clone(), evidence.to.clone());
            own.by_link.entry(link).or_default().push(at);
        }
        for link in before
            .keys()
            .filter(|link| !own.by_link.contains_key(*link))
        {
            if let Some(agents) = self.by_link.get_mut(link) {
                agents.remove(agent);
                if agents.is_empty() {
                    self.by_link.remove(link);
                }
            }
        }
        for link in own.by_link.keys() {
            match self.by_link.get_mut(link) {
                Some(agents) => drop(agents.insert(agent.clone())),
                None => drop(
                    self.by_link
                        .insert(link.clone(), BTreeSet::from([agent.clone()])),
                ),
            }
        }
        if own.paths.is_empty() {
            self.agents.remove(agent);
        }
    }
}

impl AgentPaths {
    /// Its paths, in the order of targets, then of kinds.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Own> {
        self.paths.iter()
    }

    /// The links that its paths are evidence for.
    pub(super) fn links(&self) -> impl Iterator<Item = &Link> {
        self.by_link.keys()
    }

    /// Its paths that are evidence for a link, each with its place.
    pub(super) fn of_link_mut(&mut self, link: &Link) -> impl Iterator<Item = (usize, &mut Own)> {
        let Self { paths, by_link, .. } = self;
        let mut rest = paths.iter_mut().enumerate();
        let places = by_link.get(link).map_or(&[][..], Vec::as_slice);
        let mut before = 0;
        places.iter().filter_map(move |&at| {
            let found = rest.nth(at - before);
            before = at + 1;
            found
        })
    }

    /// The path at a place.
    pub(super) fn at_mut(&mut self, place: usize) -> &mut Own {
        &mut self.paths[place]
    }

    /// What it sees is made anew.
    pub(super) fn forget_sights(&mut self) {
        self.sights = None;
    }

    /// What the agent sees, made anew if that may have changed.
    pub(super) fn sights(
        &mut self,
        now: Timestamp,
        policy: &Policy,
        dating: Dating,
    ) -> &sights::Made {
        let made = self.sights.take().filter(|own| now <= own.fresh_until);
        let made = made.unwrap_or_else(|| sights::Made::new(now, policy, self, dating));
        self.sights.insert(made)
    }

    /// What it was found to see last; `None` if nothing that it told was fresh.
    pub(super) fn last_sights(&self) -> Option<&Sights> {
        self.sights.as_ref()?.sights.as_ref()
    }

    /// Finds the paths of these rows, those that are new among them. Returns whether none was.
    fn find(&mut self, table: &Arc<[Path]>, runs: &[Run<'_>]) -> bool {
        self.know(table);
        let new = self.look_up(runs);
        if new.is_empty() {
            return true;
        }
        self.paths.extend(new);
        // A table may name a path twice.
        self.paths.sort_by(|a, b| a.key().cmp(&b.key()));
        self.paths.dedup_by(|a, b| a.key() == b.key());
        self.table = None;
        self.know(table);
        self.look_up(runs);
        false
    }

    /// Another table has other rows.
    fn know(&mut self, table: &Arc<[Path]>) {
        let is_known = |own: &Table| Arc::ptr_eq(&own.rows, table);
        if !self.table.as_ref().is_some_and(is_known) {
            self.table = Some(Table {
                rows: Arc::clone(table),
                places: vec![None; table.len()],
            });
        }
    }

    /// Notes where the paths of these rows are, and returns those that are nowhere.
    fn look_up(&mut self, runs: &[Run<'_>]) -> Vec<Own> {
        let mut new = Vec::new();
        let Some(Table { rows, places }) = &mut self.table else {
            return new;
        };
        for Run { link, rows: told } in runs {
            for (row, _) in *told {
                let row = *row as usize;
                if places[row].is_some() {
                    continue;
                }
                let Path { target, kind, .. } = &rows[row];
                match self
                    .paths
                    .binary_search_by(|own| own.key().cmp(&(target, *kind)))
                {
                    Ok(at) => places[row] = Some(at),
                    Err(_) => new.push(Own {
                        target: target.clone(),
                        kind: *kind,
                        evidence: PathEvidence::new(link),
                    }),
                }
            }
        }
        new
    }

    /// The path of a row that was found.
    fn of_row(&mut self, row: u32) -> &mut PathEvidence {
        let table = self.table.as_ref();
        let place = table.and_then(|table| table.places[row as usize]);
        let place = place.expect("the paths of all rows were found");
        &mut self.paths[place].evidence
    }
}

impl Own {
    const fn key(&self) -> (&TargetId, ProbeKind) {
        (&self.target, self.kind)
    }
}

/// As the list of pairs of a path and its evidence, in the order of paths.
impl Serialize for Paths {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let all = self.agents.iter().flat_map(|(agent, own)| {
            own.paths.iter().map(|own| {
                let id = PathId {
                    agent: agent.clone(),
                    target: own.target.clone(),
                    kind: own.kind,
                };
                (id, &own.evidence)
            })
        });
        let all: Vec<_> = all.collect();
        all.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Paths {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let all: BTreeMap<PathId, PathEvidence> = pairs::deserialize(deserializer)?;
        let mut paths = Self::default();
        for (id, mut evidence) in all {
            evidence.restore();
            let PathId {
                agent,
                target,
                kind,
            } = id;
            paths.agents.entry(agent).or_default().paths.push(Own {
                target,
                kind,
                evidence,
            });
        }
        let agents: Vec<AgentId> = paths.agents.keys().cloned().collect();
        for agent in agents {
            paths.index(&agent);
        }
        Ok(paths)
    }
}
