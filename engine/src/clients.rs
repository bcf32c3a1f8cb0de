//! A region as a service's clients see it: what is known of the links between it and each of them, as one.
//!
//! Where the service says where its clients are, each measure is their mean by share. Where it does not, every region
//! counts alike and stands for clients anywhere; then the best and the worst view are left out (of three or more), so
//! that trouble on the path of one observer is not taken for trouble of the region.
//!
//! A region that is down has no clients left, and one whose link is not known says nothing; as long as half of the shares
//! are known, the rest is judged by them.

use std::{collections::BTreeMap, sync::Arc};

use leeward_common::id::RegionId;

use crate::{
    intent::Service,
    select::Picture,
    view::{Estimate, Estimates, Knowledge, Pair, PairView, RegionState},
};

/// The least share of the clients whose links must be known.
const KNOWN_SHARE: f64 = 0.5;

/// What one client region knows of a candidate.
struct Sight<'a> {
    share: f64,
    /// Whether the client is in the candidate itself: nothing lies between them.
    local: bool,
    /// `None` if nothing was measured.
    pair: Option<&'a Arc<PairView>>,
}

/// What is known between the clients of `service` and `candidate`; `None` without any evidence.
pub(crate) fn seen(
    picture: &Picture<'_>,
    service: &Service,
    candidate: &RegionId,
) -> Option<Arc<PairView>> {
    let sights = sights(picture, service, candidate);
    let is_fresh = |sight: &&Sight<'_>| {
        let fresh = |pair: &Arc<PairView>| {
            pair.estimates.knowledge(picture.now, picture.policy) == Knowledge::Fresh
        };
        sight.local || sight.pair.is_some_and(fresh)
    };
    let all: f64 = sights.iter().map(|sight| sight.share).sum();
    let fresh: Vec<&Sight<'_>> = sights.iter().filter(is_fresh).collect();
    let known: f64 = fresh.iter().map(|sight| sight.share).sum();
    let measured = fresh.iter().any(|sight| sight.pair.is_some());
    if measured && known >= all * KNOWN_SHARE {
        return combine(picture, service, &fresh);
    }
    // Not enough is known: the newest evidence says how old it is.
    let pairs = sights.iter().filter_map(|sight| sight.pair);
    let stale = pairs
        .filter(|pair| pair.estimates.knowledge(picture.now, picture.policy) != Knowledge::Fresh);
    stale.max_by_key(|pair| pair.estimates.newest_at).cloned()
}

fn sights<'a>(picture: &Picture<'a>, service: &Service, candidate: &RegionId) -> Vec<Sight<'a>> {
    let is_up = |region: &RegionId| {
        let state = picture.regions.get(region).map(|region| region.state);
        state.is_some_and(|state| state != RegionState::Down)
    };
    let share = |region: &RegionId| match service.clients.is_empty() {
        true => 1.0,
        false => service.clients.get(region).copied().unwrap_or(0.0),
    };
    let regions = picture.policy.regions.keys();
    regions
        .filter(|region| is_up(region) && share(region) > 0.0)
        .map(|region| Sight {
            share: share(region),
            local: region == candidate,
            pair: picture.pairs.get(&Pair::new(region, candidate)),
        })
        .collect()
}

fn combine(
    picture: &Picture<'_>,
    service: &Service,
    sights: &[&Sight<'_>],
) -> Option<Arc<PairView>> {
    let pairs = || sights.iter().filter_map(|sight| sight.pair);
    let of = |measure: fn(&Estimates) -> Option<Estimate>| {
        let views = sights.iter().filter_map(|sight| {
            let estimate = match sight.pair {
                Some(pair) => measure(&pair.estimates)?,
                None => NOTHING_BETWEEN,
            };
            Some((sight.share, estimate))
        });
        let mut views: Vec<_> = views.collect();
        if service.clients.is_empty() && views.len() >= 3 {
            views.sort_by(|a, b| a.1.value.total_cmp(&b.1.value));
            views.remove(0);
            views.pop();
        }
        mean(&views)
    };
    let mut agents = BTreeMap::new();
    for pair in pairs() {
        for (agent, &at) in &pair.estimates.agents {
            let newest = agents.entry(agent.clone()).or_insert(at);
            *newest = at.max(*newest);
        }
    }
    let bandwidth = |estimates: &Estimates| estimates.bandwidth_bps;
    let all_lost = pairs().all(|pair| pair.is_lost(picture.now, picture.policy));
    Some(Arc::new(PairView {
        estimates: Estimates {
            rtt_p50_us: of(|estimates| estimates.rtt_p50_us),
            rtt_p99_us: of(|estimates| estimates.rtt_p99_us),
            jitter_us: of(|estimates| estimates.jitter_us),
            loss: of(|estimates| estimates.loss),
            // Between clients and the region that they are in there is no bandwidth to speak of.
            bandwidth_bps: mean(
                &sights
                    .iter()
                    .filter_map(|sight| Some((sight.share, bandwidth(&sight.pair?.estimates)?)))
                    .collect::<Vec<_>>(),
            ),
            n: pairs().map(|pair| pair.estimates.n).sum(),
            newest_at: pairs().map(|pair| pair.estimates.newest_at).max()?,
            agents,
        },
        lost_by: match all_lost {
            true => pairs()
                .flat_map(|pair| pair.lost_by.iter().cloned())
                .collect(),
            false => Default::default(),
        },
    }))
}

const NOTHING_BETWEEN: Estimate = Estimate {
    value: 0.0,
    low: 0.0,
    high: 0.0,
    n: 0,
};

/// The mean by share. Errors of several links are independent, so their half-widths add up in quadrature.
fn mean(views: &[(f64, Estimate)]) -> Option<Estimate> {
    let total: f64 = views.iter().map(|(share, _)| share).sum();
    if total <= 0.0 {
        return None;
    }
    let (mut value, mut below, mut above, mut n) = (0.0, 0.0, 0.0, 0);
    for (share, estimate) in views {
        let share = share / total;
        value += share * estimate.value;
        below += (share * (estimate.value - estimate.low)).powi(2);
        above += (share * (estimate.high - estimate.value)).powi(2);
        n += estimate.n;
    }
    Some(Estimate {
        value,
        low: value - below.sqrt(),
        high: value + above.sqrt(),
        n,
    })
}
