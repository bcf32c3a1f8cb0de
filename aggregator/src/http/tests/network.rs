//! `/v1/graph`, `/v1/links/…`, `/v1/regions`, `/v1/agents`.

use leeward_common::api::{
    problem::Code,
    v1::{Agent, Agents, Graph, Link, Region, Regions, RouteAdvice, Routes, State},
};

use super::*;

#[tokio::test]
async fn the_graph_shows_nodes_as_seen_from_a_region_and_every_directed_link() {
    let aggregator = Aggregator::at(CALM);
    let graph: Graph = aggregator.get("/v1/graph?from=virginia").await.json();
    assert_eq!((graph.nodes.len(), graph.edges.len()), (4, 12));
    let node = |id: &str| {
        graph
            .nodes
            .iter()
            .find(|node| node.region_id.as_str() == id)
            .unwrap()
    };
    assert!((node("oregon").latency_us.value.unwrap() - 68_000.0).abs() < 5_000.0);
    assert_eq!(node("oregon").packet_loss.value, Some(0.0));
    assert!(
        node("oregon").packet_loss.high.unwrap() > 0.0,
        "no loss in few probes is not surely no loss"
    );
    assert!(node("oregon").bandwidth_bps.is_none());
    assert_eq!(node("virginia").weight, None);
    let best = graph
        .nodes
        .iter()
        .filter_map(|node| node.weight)
        .fold(0.0, f64::max);
    assert_eq!(best, 1.0);
}

#[tokio::test]
async fn without_a_viewpoint_the_nodes_are_unknown() {
    let graph: Graph = Aggregator::at(CALM).get("/v1/graph").await.json();
    assert!(
        graph
            .nodes
            .iter()
            .all(|node| node.latency_us.value.is_none() && node.weight.is_none())
    );
    assert!(graph.edges.iter().all(|edge| edge.state == State::Ok));
}

#[tokio::test]
async fn a_lossy_link_is_degraded_and_a_dead_one_bad() {
    let lossy: Graph = Aggregator::at(LOSSY).get("/v1/graph").await.json();
    let state = |graph: &Graph, from: &str, to: &str| {
        graph
            .edges
            .iter()
            .find(|edge| edge.from.as_str() == from && edge.to.as_str() == to)
            .unwrap()
            .state
    };
    assert_eq!(state(&lossy, "virginia", "oregon"), State::Degraded);
    assert_eq!(state(&lossy, "virginia", "ireland"), State::Ok);
    let down: Graph = Aggregator::at(DOWN).get("/v1/graph").await.json();
    assert_eq!(state(&down, "virginia", "oregon"), State::Bad);
}

#[tokio::test]
async fn a_link_shows_its_recent_windows() {
    let aggregator = Aggregator::at(LOSSY);
    let link: Link = aggregator.get("/v1/links/virginia/oregon").await.json();
    assert!(link.windows.len() > 10);
    let rtt = link.windows.iter().find_map(|window| window.rtt).unwrap();
    assert!(rtt.min_us <= rtt.p50_us && rtt.p50_us <= rtt.p99_us && rtt.p99_us <= rtt.max_us);
    assert!(
        link.windows
            .iter()
            .any(|window| window.loss_ratio.is_some_and(|loss| loss.get() > 0.0))
    );
    assert!(link.windows.is_sorted_by_key(|window| window.start));
    assert_eq!(
        aggregator
            .get("/v1/links/virginia/orgeon")
            .await
            .problem(404)
            .near,
        ["oregon"]
    );
    assert_eq!(
        aggregator
            .get("/v1/links/oregon/oregon")
            .await
            .problem(422)
            .code,
        Code::InvalidRequest
    );
}

#[tokio::test]
async fn a_link_that_nobody_measured_is_unknown() {
    let link: Link = Aggregator::at(EARLY)
        .get("/v1/links/virginia/oregon")
        .await
        .json();
    assert_eq!((link.edge.state, link.windows.len()), (State::Unknown, 0));
    assert_eq!(link.edge.packet_loss.value, None);
}

#[tokio::test]
async fn regions_say_what_was_configured_and_how_they_fare() {
    let aggregator = Aggregator::at(DOWN);
    let all: Regions = aggregator.get("/v1/regions").await.json();
    assert_eq!(all.regions.len(), 4);
    let virginia: Region = aggregator.get("/v1/regions/virginia").await.json();
    assert_eq!(virginia.labels["country"], "us");
    assert_eq!(virginia.potential_failover_regions.len(), 3);
    assert_eq!(virginia.state, State::Ok);
    let oregon: Region = aggregator.get("/v1/regions/oregon").await.json();
    assert_eq!(oregon.state, State::Bad);
    assert!(!oregon.detail.is_empty());
    assert_eq!(
        aggregator.get("/v1/regions/frank").await.problem(404).near,
        ["frankfurt"]
    );
}

#[tokio::test]
async fn agents_say_whether_their_view_counts() {
    let aggregator = Aggregator::at(DOWN);
    let all: Agents = aggregator.get("/v1/agents").await.json();
    assert_eq!(all.agents.len(), 4);
    let silent: Vec<&Agent> = all
        .agents
        .iter()
        .filter(|agent| agent.state == State::Unknown)
        .collect();
    assert_eq!(silent.len(), 1);
    assert_eq!(silent[0].region_id.as_str(), "oregon");
    let one: Agent = aggregator
        .get(&format!("/v1/agents/{}", all.agents[0].agent_id))
        .await
        .json();
    assert_eq!(one, all.agents[0]);
    assert_eq!(
        aggregator.get("/v1/agents/nobody").await.problem(404).code,
        Code::UnknownAgent
    );
}

#[tokio::test]
async fn every_answer_has_an_etag_of_its_content() {
    let aggregator = Aggregator::at(CALM);
    for path in [
        "/v1/graph",
        "/v1/regions",
        "/v1/agents",
        "/v1/decisions",
        "/v1/overview",
        "/v1/signals",
    ] {
        let first = aggregator.get(path).await;
        assert_eq!(
            aggregator.get_with_etag(path, &first.etag()).await.status,
            304,
            "{path}"
        );
        assert_eq!(
            aggregator.get_with_etag(path, "\"other\"").await.status,
            200,
            "{path}"
        );
    }
}

#[tokio::test]
async fn regions_are_known_before_anything_was_measured() {
    let aggregator = Aggregator::showing(
        Story {
            inputs: Vec::new(),
            ..Story::of(WORLD)
        }
        .view(0.0),
    );
    let all: Regions = aggregator.get("/v1/regions").await.json();
    assert_eq!(all.regions.len(), 4);
    assert!(
        all.regions
            .iter()
            .all(|region| region.state == State::Unknown)
    );
    assert_eq!(
        aggregator
            .get("/v1/graph?from=virginia")
            .await
            .json::<Graph>()
            .nodes
            .len(),
        4
    );
    assert_eq!(aggregator.get("/v1/failover/virginia").await.status, 200);
    assert_eq!(
        aggregator
            .get("/v1/failover/virgina")
            .await
            .problem(404)
            .near,
        ["virginia"]
    );
}

#[tokio::test]
async fn routes_show_the_direct_link_and_the_best_relay() {
    let aggregator = Aggregator::at(CALM);
    let all: Routes = aggregator.get("/v1/graph/routes").await.json();
    assert_eq!(all.routes.len(), 12);
    let one: Routes = aggregator
        .get("/v1/graph/routes?from=virginia&to=oregon")
        .await
        .json();
    let [route] = &one.routes[..] else {
        panic!("{one:?}");
    };
    let (direct, relay) = (route.direct.unwrap(), route.relay.clone().unwrap());
    assert_eq!(route.advice, RouteAdvice::Direct);
    assert!((direct.latency_us - 68_000.0).abs() < 5_000.0);
    let gain_us = direct.latency_us - relay.path.latency_us;
    assert!((relay.gain_us.unwrap() - gain_us).abs() < 1.0);
    assert!(relay.gain_us.unwrap() < 0.0 && relay.gain_log.unwrap() < 0.0);
    let problem = aggregator.get("/v1/graph/routes?to=orgeon").await;
    assert_eq!(problem.problem(404).near, ["oregon"]);
}

#[tokio::test]
async fn a_region_that_is_down_has_no_way_and_relays_nothing() {
    let routes: Routes = Aggregator::at(DOWN).get("/v1/graph/routes").await.json();
    let oregon = |id: &leeward_common::id::RegionId| id.as_str() == "oregon";
    for route in &routes.routes {
        let over = route.relay.as_ref().map(|relay| &relay.region_id);
        assert!(!over.is_some_and(oregon), "{route:?}");
        if oregon(&route.to) {
            assert_eq!(route.advice, RouteAdvice::NoWay, "{route:?}");
        }
    }
}

#[tokio::test]
async fn an_old_picture_advises_nothing() {
    let aggregator = Aggregator::at(CALM);
    aggregator.wait(10.0);
    let routes: Routes = aggregator.get("/v1/graph/routes").await.json();
    assert!(routes.stale);
    let unknown = |route: &leeward_common::api::v1::Route| route.advice == RouteAdvice::Unknown;
    assert!(routes.routes.iter().all(unknown));
}
