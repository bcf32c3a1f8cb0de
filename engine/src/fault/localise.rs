//! Where the trouble is: in an agent, a target, a region or between two regions; all of it lost or some.
//!
//! A region whose links are nearly all in trouble is in trouble itself, and that explains its links; what no region
//! explains is the link's own. A region in trouble of which some agents see nothing of it has bad agents instead.
//!
//! A round trip crosses a link both ways, and a lost one does not say which way it was lost: a link's trouble has no
//! direction.

use std::collections::{BTreeMap, BTreeSet};

use leeward_common::{
    id::{AgentId, RegionId, TargetId},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

use super::Judgement;
use crate::{
    graph::{Graph, combine::wilson},
    policy::Policy,
    view::{Knowledge, Pair, PairView, RegionState},
};

/// Loss above this share is trouble.
pub const TROUBLE_LOSS: f64 = 0.01;

/// A region is in trouble if this share of its links is, two at least.
const MOST: f64 = 0.75;

/// Something at fault.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Fault {
    /// All or some.
    pub kind: FaultKind,
    /// Where.
    pub place: Place,
    /// Share of what is lost, 0..=1.
    pub severity: f64,
    /// Since when it is known.
    pub since: Timestamp,
    /// Of [`Fault::observers`], how many see it: agents for what is lost altogether, links for a region that loses some,
    /// agents of the region for an agent.
    pub seen_by: u32,
    /// How many look.
    pub observers: u32,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// Everything is lost.
    Total,
    /// Some is lost.
    Grey,
}

/// Where a fault is.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// An agent or its host: its view is its own.
    Agent(RegionId, AgentId),
    /// A host in a region that is otherwise reached.
    Target(RegionId, TargetId),
    /// A region.
    Region(RegionId),
    /// Between two regions that are well themselves.
    Link(Pair),
}

impl Place {
    /// The region where it is; of a link, the one with the smaller id.
    #[must_use]
    pub const fn region(&self) -> &RegionId {
        match self {
            Self::Agent(region, _) | Self::Target(region, _) | Self::Region(region) => region,
            Self::Link(pair) => pair.regions().0,
        }
    }
}

/// What is at fault at `now`. Those of `before` that go on keep their beginning.
pub(crate) fn localise(
    now: Timestamp,
    policy: &Policy,
    graph: &Graph,
    judgement: &Judgement,
    before: &[Fault],
) -> Vec<Fault> {
    let mut found = Vec::new();
    let mut add = |kind, place: Place, severity, (seen_by, observers): (usize, usize)| {
        let same = |own: &&Fault| own.kind == kind && own.place == place;
        let since = before.iter().find(same).map_or(now, |own| own.since);
        found.push(Fault {
            kind,
            place,
            severity,
            since,
            seen_by: seen_by as u32,
            observers: observers as u32,
        });
    };
    if judgement.cut_off.is_some() {
        return found;
    }
    for agent in &judgement.exclusions.agents {
        if let Some((region, _)) = judgement.votes.get(agent) {
            let place = Place::Agent(region.clone(), agent.clone());
            add(FaultKind::Total, place, 1.0, (1, 1));
        }
    }
    for ((region, target), (lost, of)) in &judgement.dead {
        let place = Place::Target(region.clone(), target.clone());
        add(FaultKind::Total, place, 1.0, (*lost, *of));
    }
    for (region, &(lost, of)) in &judgement.down {
        add(
            FaultKind::Total,
            Place::Region(region.clone()),
            1.0,
            (lost, of),
        );
    }
    let up = |region: &RegionId| {
        let state = judgement.regions.get(region).map(|(state, _)| *state);
        state != Some(RegionState::Down)
    };
    let fresh: Vec<(&Pair, &PairView)> = graph
        .pairs()
        .iter()
        .filter(|(pair, view)| {
            let (a, b) = pair.regions();
            up(a) && up(b) && view.estimates.knowledge(now, policy) == Knowledge::Fresh
        })
        .map(|(pair, view)| (pair, &**view))
        .collect();
    let mut grey: BTreeMap<&Pair, f64> = BTreeMap::new();
    for (pair, view) in &fresh {
        let observers = view.estimates.vantage_points(now, policy) as usize;
        if observers >= 2 && view.is_lost(now, policy) {
            let place = Place::Link((*pair).clone());
            add(FaultKind::Total, place, 1.0, (observers, observers));
            continue;
        }
        match view.estimates.loss {
            Some(loss) if loss.value > TROUBLE_LOSS => drop(grey.insert(pair, loss.value)),
            _ => {}
        }
    }
    while let Some((region, mine, of)) = worst_region(&fresh, &grey) {
        let agents = bad_agents(policy, graph, &region);
        let severity = mine.iter().map(|pair| grey[pair]).sum::<f64>() / mine.len() as f64;
        match agents {
            Some((bad, all)) => {
                for (agent, loss) in &bad {
                    let place = Place::Agent(region.clone(), agent.clone());
                    add(FaultKind::Grey, place, *loss, (bad.len(), all));
                }
            }
            None => add(
                FaultKind::Grey,
                Place::Region(region),
                severity,
                (mine.len(), of),
            ),
        }
        for pair in mine {
            grey.remove(pair);
        }
    }
    for (pair, loss) in grey {
        let view = fresh.iter().find(|(own, _)| *own == pair);
        let certain = view.and_then(|(_, view)| view.estimates.loss);
        // A link that nothing else explains must be in trouble beyond doubt.
        if certain.is_some_and(|loss| loss.low > TROUBLE_LOSS) {
            let observers = view.map_or(0, |(_, view)| view.estimates.agents.len());
            let place = Place::Link(pair.clone());
            add(FaultKind::Grey, place, loss, (observers, observers));
        }
    }
    found.sort_by(|a, b| (a.kind, &a.place).cmp(&(b.kind, &b.place)));
    found
}

/// The region that explains most: its links in trouble, and how many it has.
fn worst_region<'a>(
    fresh: &[(&'a Pair, &PairView)],
    grey: &BTreeMap<&'a Pair, f64>,
) -> Option<(RegionId, Vec<&'a Pair>, usize)> {
    if grey.len() < 2 {
        return None;
    }
    let ends = |pair: &&'a Pair| {
        let (a, b) = pair.regions();
        [a, b]
    };
    let regions: BTreeSet<&RegionId> = grey.keys().flat_map(ends).collect();
    let of = |region: &RegionId| {
        let is_its = |pair: &Pair| {
            let (a, b) = pair.regions();
            a == region || b == region
        };
        let all = fresh.iter().filter(|(pair, _)| is_its(pair)).count();
        let mine: Vec<&Pair> = grey.keys().copied().filter(|pair| is_its(pair)).collect();
        (mine, all)
    };
    regions
        .into_iter()
        .map(|region| (region, of(region)))
        .filter(|(_, (mine, all))| mine.len() >= 2 && mine.len() as f64 >= MOST * *all as f64)
        .max_by_key(|(region, (mine, _))| (mine.len(), std::cmp::Reverse(*region)))
        .map(|(region, (mine, all))| (region.clone(), mine, all))
}

/// The agents of a region that lose probes while others of it lose none, with what they lose, and how many agents
/// there are; `None` if the trouble is not theirs alone.
fn bad_agents(
    policy: &Policy,
    graph: &Graph,
    region: &RegionId,
) -> Option<(Vec<(AgentId, f64)>, usize)> {
    let losses = graph.losses_of(policy, region);
    let all = losses.len();
    let (mut bad, mut well) = (Vec::new(), 0);
    for (agent, (lost, n)) in losses {
        let loss = wilson(lost as f64, n as f64)?;
        if loss.low > TROUBLE_LOSS {
            bad.push((agent, loss.value));
        } else if loss.value < TROUBLE_LOSS {
            well += 1;
        }
    }
    (!bad.is_empty() && well > 0).then_some((bad, all))
}
