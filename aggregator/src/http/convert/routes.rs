//! The best ways between regions.

use leeward_common::{
    api::v1::{self, RelayPath, RouteAdvice, RoutePath, Routes},
    id::RegionId,
};
use leeward_engine::{
    policy::Weights,
    route::{Advice, Matrix, Quality, Relay, Route, Rules},
};

use super::Moment;

/// The best ways from and to these regions; from and to all where none is named.
#[must_use]
pub fn routes(moment: &Moment<'_>, from: Option<&RegionId>, to: Option<&RegionId>) -> Routes {
    let view = moment.view;
    let weights = &view.policy.weights;
    let matrix = Matrix::of(view);
    let ends = |wanted: Option<&RegionId>| -> Vec<RegionId> {
        let regions = matrix.regions().iter();
        regions
            .filter(|region| wanted.is_none_or(|wanted| wanted == *region))
            .cloned()
            .collect()
    };
    let (from, to) = (ends(from), ends(to));
    let rules = Rules::default();
    let pairs = from
        .iter()
        .flat_map(|from| to.iter().map(move |to| (from, to)));
    let routes = pairs.filter_map(|(from, to)| matrix.route(weights, &rules, from, to));
    Routes {
        graph_version: view.graph_version,
        policy_version: view.policy_version.to_string(),
        evaluated_at: view.now.into(),
        stale: moment.is_stale(),
        routes: routes.map(|known| route(moment, weights, known)).collect(),
    }
}

fn route(moment: &Moment<'_>, weights: &Weights, route: Route) -> v1::Route {
    let advice = match moment.is_stale() {
        true => Advice::Unknown,
        false => route.advice,
    };
    v1::Route {
        advice: match advice {
            Advice::Direct => RouteAdvice::Direct,
            Advice::Relay => RouteAdvice::Relay,
            Advice::RelayOnly => RouteAdvice::RelayOnly,
            Advice::NoWay => RouteAdvice::NoWay,
            Advice::Unknown => RouteAdvice::Unknown,
        },
        detail: detail(advice, route.relay.as_ref()),
        direct: route.direct.leg().map(|leg| path(weights, &leg.likely)),
        relay: route.relay.map(|relay| RelayPath {
            path: path(weights, &relay.path.likely),
            region_id: relay.region,
            gain_us: relay.gain_rtt_us,
            gain_log: relay.gain_log,
        }),
        from: route.from,
        to: route.to,
    }
}

fn path(weights: &Weights, quality: &Quality) -> RoutePath {
    RoutePath {
        latency_us: quality.rtt_p50_us,
        latency_p99_us: quality.rtt_p99_us,
        jitter_us: quality.jitter_us,
        packet_loss: quality.loss,
        bandwidth_bps: quality.bandwidth_bps,
        weight: quality.log_weight(weights).exp(),
    }
}

fn detail(advice: Advice, relay: Option<&Relay>) -> String {
    let straight = match advice {
        Advice::Unknown => "the direct link was not measured lately",
        Advice::NoWay => "nothing gets through, and no relay is known to reach both ends",
        Advice::Direct => "straight is as good as any way that is known",
        Advice::Relay | Advice::RelayOnly => "",
    };
    let Some(Relay {
        region,
        path,
        gain_rtt_us,
        ..
    }) = relay.filter(|_| straight.is_empty())
    else {
        return straight.to_owned();
    };
    match gain_rtt_us {
        None => format!(
            "nothing gets through straight; over {region} it takes {:.1} ms",
            path.likely.rtt_p50_us / 1_000.0
        ),
        Some(us) if *us > 0.0 => format!("over {region} it is {:.1} ms quicker", us / 1_000.0),
        Some(us) => format!(
            "over {region} it is {:.1} ms slower and yet better: less is lost or times vary less",
            -us / 1_000.0
        ),
    }
}
