//! A region as a service's clients see it: what is known of the links between it and each of them, as one.
//!
//! Where the service says where its clients are, each measure is their mean by share. Where it does not, every region
//! counts alike and stands for clients anywhere; then the best and the worst view are left out (of three or more), so
//! that trouble on the path of one observer is not taken for trouble of the region.
//!
//! A region that is down has no clients left, and one whose link is not known says nothing; as long as half of the shares
//! are known, the rest is judged by them.

use std::{cell::RefCell, collections::BTreeMap, sync::Arc};

use leeward_common::id::RegionId;

use crate::{
    intent::Service,
    select::Picture,
    view::{Estimate, Estimates, Knowledge, Pair, PairView, RegionState},
};

/// The least share of the clients whose links must be known.
const KNOWN_SHARE: f64 = 0.5;

/// So many different answers to "where are your clients" are each looked at once for all services that give it.
const MAX_AUDIENCES: usize = 16;

/// What one client region knows of a candidate.
struct Sight<'a> {
    share: f64,
    /// Whether the client is in the candidate itself: nothing lies between them.
    local: bool,
    /// `None` if nothing was measured.
    link: Option<Link<'a>>,
}

#[derive(Clone, Copy, Debug)]
struct Link<'a> {
    pair: &'a Arc<PairView>,
    fresh: bool,
}

/// The links between all regions, and what clients see by them: made once for all services that are looked at.
#[derive(Debug)]
pub(crate) struct Mesh<'a> {
    /// Every region and whether it may have clients, in the order of their ids.
    regions: Vec<(&'a RegionId, bool)>,
    /// By region, then by region.
    links: Vec<Option<Link<'a>>>,
    /// Where services say that their clients are.
    audiences: Vec<&'a BTreeMap<RegionId, f64>>,
    /// What each of these sees of each region, once somebody has asked.
    seen: RefCell<Vec<Option<Option<Arc<PairView>>>>>,
}

impl<'a> Mesh<'a> {
    pub(crate) fn new(picture: &Picture<'a>) -> Self {
        let is_up = |region: &RegionId| {
            let state = picture.regions.get(region).map(|region| region.state);
            state.is_some_and(|state| state != RegionState::Down)
        };
        let regions = picture.policy.regions.keys();
        let regions: Vec<_> = regions.map(|region| (region, is_up(region))).collect();
        let many = regions.len();
        let mut links = vec![None; many * many];
        for (a, (from, _)) in regions.iter().enumerate() {
            for (b, (to, _)) in regions.iter().enumerate().skip(a + 1) {
                let link = picture.pairs.get(&Pair::new(from, to)).map(|pair| Link {
                    pair,
                    fresh: pair.estimates.knowledge(picture.now, picture.policy)
                        == Knowledge::Fresh,
                });
                (links[a * many + b], links[b * many + a]) = (link, link);
            }
        }
        let mut audiences: Vec<&BTreeMap<_, _>> = Vec::new();
        for known in picture.intents.services.values() {
            let clients = &known.what.clients;
            if audiences.len() < MAX_AUDIENCES && !audiences.contains(&clients) {
                audiences.push(clients);
            }
        }
        Self {
            seen: RefCell::new(vec![None; many * audiences.len()]),
            regions,
            links,
            audiences,
        }
    }

    /// What is known between the clients of `service` and `candidate`; `None` without any evidence.
    pub(crate) fn seen(
        &self,
        picture: &Picture<'_>,
        service: &Service,
        candidate: &RegionId,
    ) -> Option<Arc<PairView>> {
        let by_id = |(region, _): &(&RegionId, bool)| (*region).cmp(candidate);
        let at = self.regions.binary_search_by(by_id).ok()?;
        let mut audiences = self.audiences.iter();
        let Some(audience) = audiences.position(|own| **own == service.clients) else {
            return self.look(picture, service, at);
        };
        let place = audience * self.regions.len() + at;
        if let Some(seen) = &self.seen.borrow()[place] {
            return seen.clone();
        }
        let seen = self.look(picture, service, at);
        self.seen.borrow_mut()[place] = Some(seen.clone());
        seen
    }

    fn look(&self, picture: &Picture<'_>, service: &Service, at: usize) -> Option<Arc<PairView>> {
        let sights = self.sights(service, at);
        let is_fresh =
            |sight: &&Sight<'_>| sight.local || sight.link.is_some_and(|link| link.fresh);
        let all: f64 = sights.iter().map(|sight| sight.share).sum();
        let fresh: Vec<&Sight<'_>> = sights.iter().filter(is_fresh).collect();
        let known: f64 = fresh.iter().map(|sight| sight.share).sum();
        let measured = fresh.iter().any(|sight| sight.link.is_some());
        if measured && known >= all * KNOWN_SHARE {
            return combine(picture, service, &fresh);
        }
        // Not enough is known: the newest evidence says how old it is.
        let links = sights.iter().filter_map(|sight| sight.link);
        let stale = links.filter(|link| !link.fresh).map(|link| link.pair);
        stale.max_by_key(|pair| pair.estimates.newest_at).cloned()
    }

    fn sights(&self, service: &Service, at: usize) -> Vec<Sight<'a>> {
        let share = |region: &RegionId| match service.clients.is_empty() {
            true => 1.0,
            false => service.clients.get(region).copied().unwrap_or(0.0),
        };
        let regions = self.regions.iter().enumerate().filter(|(_, (_, up))| *up);
        let sights = regions.map(|(n, (region, _))| Sight {
            share: share(region),
            local: n == at,
            link: self.links[n * self.regions.len() + at],
        });
        sights.filter(|sight| sight.share > 0.0).collect()
    }
}

fn combine(
    picture: &Picture<'_>,
    service: &Service,
    sights: &[&Sight<'_>],
) -> Option<Arc<PairView>> {
    let pairs = || {
        sights
            .iter()
            .filter_map(|sight| sight.link.map(|link| link.pair))
    };
    let of = |measure: fn(&Estimates) -> Option<Estimate>| {
        let views = sights.iter().filter_map(|sight| {
            let estimate = match sight.link {
                Some(link) => measure(&link.pair.estimates)?,
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
            loss_lately: of(|estimates| estimates.loss_lately),
            // Between clients and the region that they are in there is no bandwidth to speak of.
            bandwidth_bps: mean(
                &sights
                    .iter()
                    .filter_map(|sight| {
                        Some((sight.share, bandwidth(&sight.link?.pair.estimates)?))
                    })
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
