//! Regions and links.

use std::{sync::Arc, time::Duration};

use leeward_common::{
    api::v1::{
        Direction, Directions, Edge, Flow, Graph, Link, LinkWindow, Measured, Node, PathFlows,
        Quantiles, Region, Regions, State,
    },
    finding::flows,
    id::RegionId,
    ratio::Ratio,
    report,
};
use leeward_engine::{
    found::FlowsTold,
    input::Subject,
    select::{self, Ranking, Request},
    view::{Estimates, Knowledge, Link as LinkKey, LinkView, Pair, WindowView},
    weight,
};

use super::{Moment, region_state, signals::signal};

/// How long it is news that the flows of a path were unlike: two spans of an agent's accounts, and a half for the way.
const FLOWS_NEWS: Duration = Duration::from_secs(75);

/// The network, its nodes as seen from a region if one is given.
#[must_use]
pub fn graph(moment: &Moment<'_>, from: Option<&RegionId>) -> Graph {
    let view = moment.view;
    let ranking = from.map(|from| {
        let others: Vec<RegionId> = view
            .policy
            .regions
            .keys()
            .filter(|region| *region != from)
            .cloned()
            .collect();
        let request = Request::of_candidates(&view.policy, from, others);
        select::rank(&view.picture(), &request)
    });
    let node = |id| node(moment, from, ranking.as_ref(), id);
    Graph {
        graph_version: view.graph_version,
        policy_version: view.policy_version.to_string(),
        evaluated_at: view.now.into(),
        from: from.cloned(),
        nodes: view.policy.regions.keys().map(node).collect(),
        edges: view
            .links
            .iter()
            .map(|((from, to), link)| edge(moment, from, to, link))
            .collect(),
    }
}

fn node(
    moment: &Moment<'_>,
    from: Option<&RegionId>,
    ranking: Option<&Ranking>,
    id: &RegionId,
) -> Node {
    let pair = from.and_then(|from| moment.view.pairs.get(&Pair::new(from, id)));
    let none = Estimates::default();
    let estimates = pair.map_or(&none, |pair| &pair.estimates);
    Node {
        region_id: id.clone(),
        state: region_state(moment, id),
        latency_us: moment.measured(estimates, |all| all.rtt_p50_us),
        packet_loss: moment.measured(estimates, |all| all.loss),
        bandwidth_bps: bandwidth(moment, estimates),
        weight: ranking
            .and_then(|ranking| ranking.candidate(id))
            .and_then(|candidate| candidate.normalised),
    }
}

fn bandwidth(moment: &Moment<'_>, estimates: &Estimates) -> Option<Measured> {
    estimates
        .bandwidth_bps
        .map(|_| moment.measured(estimates, |all| all.bandwidth_bps))
}

pub(super) fn edge(moment: &Moment<'_>, from: &RegionId, to: &RegionId, link: &LinkView) -> Edge {
    let view = moment.view;
    let estimates = &link.estimates;
    Edge {
        from: from.clone(),
        to: to.clone(),
        state: link_state(moment, from, to, estimates),
        latency_us: moment.measured(estimates, |all| all.rtt_p50_us),
        latency_p99_us: moment.measured(estimates, |all| all.rtt_p99_us),
        jitter_us: moment.measured(estimates, |all| all.jitter_us),
        packet_loss: moment.measured(estimates, |all| all.loss),
        bandwidth_bps: bandwidth(moment, estimates),
        weight: weight::network(
            &view.policy.weights,
            estimates,
            estimates.staleness(view.now, &view.policy),
        )
        .map(|sum| sum.total().exp()),
        vantage_points: estimates.vantage_points(view.now, &view.policy),
    }
}

/// How every measured link fares.
pub fn link_states<'a>(moment: &'a Moment<'_>) -> impl Iterator<Item = (&'a LinkKey, State)> {
    let links = moment.view.links.iter();
    links.map(|(link, view)| {
        let (from, to) = link;
        (link, link_state(moment, from, to, &view.estimates))
    })
}

/// How a directed link fares: unknown without fresh evidence, bad when nothing is answered lately, degraded when loss
/// above [`super::TROUBLE_LOSS`] is certain or too little is known to tell.
pub(super) fn link_state(
    moment: &Moment<'_>,
    from: &RegionId,
    to: &RegionId,
    estimates: &Estimates,
) -> State {
    let view = moment.view;
    let knowledge = moment.knowledge(estimates);
    if matches!(knowledge, Knowledge::Stale | Knowledge::Unknown) {
        return State::Unknown;
    }
    let lost_by = view
        .pairs
        .get(&Pair::new(from, to))
        .map(|pair| &pair.lost_by);
    let mut fresh = estimates.fresh_agents(view.now, &view.policy).peekable();
    let lost = fresh.peek().is_some()
        && fresh.all(|agent| lost_by.is_some_and(|lost_by| lost_by.contains(agent)));
    if lost || estimates.rtt_p50_us.is_none() {
        return State::Bad;
    }
    let lossy = estimates
        .loss
        .is_some_and(|loss| loss.low > super::TROUBLE_LOSS);
    if lossy || knowledge == Knowledge::Thin {
        State::Degraded
    } else {
        State::Ok
    }
}

/// A directed link with its recent windows; one that nobody measured has none.
#[must_use]
pub fn link(moment: &Moment<'_>, from: &RegionId, to: &RegionId) -> Link {
    let view = moment.view;
    let none = LinkView::default();
    let known = view.links.get(&(from.clone(), to.clone()));
    let known = known.map_or(&none, AsRef::as_ref);
    let about = |subject: &Subject| match subject {
        Subject::Region(region) | Subject::Service(_, region) => region == to,
        Subject::Link(a, b) => (a, b) == (from, to),
    };
    Link {
        edge: edge(moment, from, to, known),
        evaluated_at: view.now.into(),
        windows: known.windows.iter().map(window).collect(),
        signals: view
            .signals
            .iter()
            .filter(|active| about(&active.subject))
            .map(signal)
            .collect(),
        bandwidth: view
            .bandwidths
            .of_link(&(from.clone(), to.clone()))
            .flat_map(|gauged| super::bandwidth::quantities(gauged))
            .collect(),
        flows: flows(moment, from, to),
    }
}

/// What was told of paths of a link whose flows are unlike, as long as it is news.
fn flows(moment: &Moment<'_>, from: &RegionId, to: &RegionId) -> Vec<PathFlows> {
    let view = moment.view;
    let of_link = |told: &&Arc<FlowsTold>| {
        told.region == *from
            && told.flows.region.as_ref() == Some(to)
            && view.now.since(told.at) <= FLOWS_NEWS
    };
    let told = view.found.flows.iter().filter(of_link);
    told.map(|told| path_flows(told)).collect()
}

fn path_flows(told: &FlowsTold) -> PathFlows {
    let flow = |own: &flows::Flow| Flow {
        ended: own.ended,
        lost: own.lost,
        late: own.late,
        lost_pairs: own.lost_pairs,
        loss_ratio: Ratio::of(own.lost.into(), own.ended.into()),
        rtt_min_us: own.rtt_min_us,
        rtt_mean_us: own.rtt_mean_us,
    };
    PathFlows {
        agent: told.agent.clone(),
        target: told.flows.target.clone(),
        kind: told.flows.kind,
        from: told.flows.from.into(),
        until: told.flows.until.into(),
        flows: told.flows.flows.iter().map(flow).collect(),
    }
}

fn window(window: &WindowView) -> LinkWindow {
    LinkWindow {
        start: window.window.start.into(),
        length_ms: super::milliseconds(window.window.length),
        answered: window.answered,
        unanswered: window.unanswered,
        loss_ratio: Ratio::of(window.unanswered, window.answered + window.unanswered),
        rtt: window.rtt.map(|rtt| Quantiles {
            min_us: rtt.min_us,
            p50_us: rtt.p50_us,
            p90_us: rtt.p90_us,
            p99_us: rtt.p99_us,
            max_us: rtt.max_us,
        }),
        directions: window.one_way.as_ref().map(directions),
    }
}

fn directions(one_way: &report::OneWay) -> Directions {
    let direction = |of: &report::Direction| Direction {
        lost: of.lost,
        reordered: of.reordered,
        delay_variation_mean_us: of.variation.mean_us(),
        delay_variation_max_us: (of.variation.pairs > 0).then_some(of.variation.max_us),
    };
    Directions {
        forward: direction(&one_way.forward),
        backward: direction(&one_way.backward),
        lost_unknown: one_way.lost_unknown,
    }
}

/// Every region of the policy.
#[must_use]
pub fn regions(moment: &Moment<'_>) -> Regions {
    Regions {
        regions: moment
            .view
            .policy
            .regions
            .keys()
            .filter_map(|id| region(moment, id))
            .collect(),
    }
}

/// One region; `None` if the policy has no such.
#[must_use]
pub fn region(moment: &Moment<'_>, id: &RegionId) -> Option<Region> {
    let view = moment.view;
    let policy = view.policy.regions.get(id)?;
    let own = view.regions.get(id);
    let agents = view.agents.iter().filter(|(_, agent)| agent.region == *id);
    Some(Region {
        region_id: id.clone(),
        state: region_state(moment, id),
        detail: own.map_or_else(
            || "nothing was measured yet".to_owned(),
            |own| own.detail.clone(),
        ),
        since: own.map(|own| own.since.into()),
        latitude: policy.latitude,
        longitude: policy.longitude,
        capacity: policy.capacity,
        labels: policy.labels.clone(),
        fresh_agents: own.map_or(0, |own| own.fresh_agents),
        agents: agents.map(|(agent, _)| agent.clone()).collect(),
        potential_failover_regions: view.policy.candidates(id),
        selected_region: view
            .selections
            .get(id)
            .and_then(|selection| selection.selected.clone()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_flow_did_is_told_with_its_loss() {
        let told = FlowsTold {
            at: leeward_common::time::Timestamp::EPOCH,
            agent: "iad-1".parse().unwrap(),
            region: "iad".parse().unwrap(),
            flows: flows::sample("dub-1", 4, 40),
        };
        let path = path_flows(&told);
        let losses: Vec<_> = path
            .flows
            .iter()
            .map(|flow| flow.loss_ratio.map(Ratio::get))
            .collect();
        assert_eq!(losses, [Some(0.4), Some(0.0), Some(0.0), Some(0.0)]);
        assert_eq!(
            (path.flows[0].lost_pairs, path.flows[0].rtt_min_us),
            (10, Some(700))
        );
    }

    #[test]
    fn a_direction_without_pairs_has_no_variation_and_one_with_pairs_its_mean() {
        let mut one_way = report::OneWay::default();
        one_way.forward.lost = 3;
        one_way.backward.reordered = 1;
        one_way.backward.variation.record(100);
        one_way.backward.variation.record(50);
        one_way.lost_unknown = 2;
        let Directions {
            forward,
            backward,
            lost_unknown,
        } = directions(&one_way);
        assert_eq!((forward.lost, backward.lost, lost_unknown), (3, 0, 2));
        assert_eq!((forward.reordered, backward.reordered), (0, 1));
        assert_eq!(forward.delay_variation_mean_us, None);
        assert_eq!(forward.delay_variation_max_us, None);
        assert_eq!(backward.delay_variation_mean_us, Some(75.0));
        assert_eq!(backward.delay_variation_max_us, Some(100));
    }
}
