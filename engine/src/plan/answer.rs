//! What a plan says.

use std::collections::BTreeMap;

use leeward_common::id::{RegionId, ServiceId};

use super::{
    problem::{Demand, Problem, Split, TOLERANCE, fits},
    relax::Relaxed,
};

/// Where everything goes.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Where each service goes.
    pub placements: BTreeMap<ServiceId, Placement>,
    /// What that does to each region with an offer.
    pub regions: BTreeMap<RegionId, RegionPlan>,
    /// How far each class is served, class 0 first.
    pub classes: Vec<ClassPlan>,
    /// What it costs: weight times share times cost, added up, switching costs included.
    pub cost: f64,
    /// No placement that serves each class as far as [`ClassPlan::unserved_bound`] allows costs less. Without
    /// services that must stay whole, this is the cost itself but for rounding.
    pub cost_bound: f64,
}

/// Where a service goes.
#[derive(Clone, Debug, PartialEq)]
pub struct Placement {
    /// Its regions, by id. Shares are above 0.
    pub shares: Vec<Share>,
    /// The share that is served nowhere, 0..=1.
    pub unserved: f64,
    /// Why; `None` when all of it is served.
    pub reason: Option<Unserved>,
}

/// A region's part of a service.
#[derive(Clone, Debug, PartialEq)]
pub struct Share {
    /// The region.
    pub region: RegionId,
    /// Its share, above 0, at most 1.
    pub share: f64,
    /// What one unit of weight costs there, switching cost included.
    pub cost: f64,
}

/// Why a service is not served whole.
#[derive(Clone, Debug, PartialEq)]
pub enum Unserved {
    /// It may go nowhere.
    NoCandidate,
    /// Its candidates offer nothing or are full: what binds, by region and resource.
    Full(Vec<Binding>),
}

/// What keeps a service out of a region.
#[derive(Clone, Debug, PartialEq)]
pub struct Binding {
    /// The region.
    pub region: RegionId,
    /// The resource; `None` for a region without an offer.
    pub resource: Option<String>,
    /// How much of it the plan leaves.
    pub free: f64,
    /// How much the unserved part needs.
    pub needed: f64,
}

/// A region under the plan.
#[derive(Clone, Debug, PartialEq)]
pub struct RegionPlan {
    /// By resource.
    pub resources: BTreeMap<String, ResourcePlan>,
}

/// One resource of a region under the plan, in its own unit.
#[derive(Clone, Debug, PartialEq)]
pub struct ResourcePlan {
    /// All that there is.
    pub capacity: f64,
    /// What the plan may fill: capacity less headroom, reservations and what others use.
    pub usable: f64,
    /// What the plan fills; at most `usable`, but for [`TOLERANCE`].
    pub filled: f64,
    /// The load before: what others use, and the demands that are here now.
    pub before: f64,
    /// The load after: what others use, and what the plan fills.
    pub after: f64,
    /// What one more unit would be worth.
    pub price: Price,
}

/// What one more usable unit of a resource would be worth: 0 where some is left.
///
/// Prices are those of the fractional optimum, at the margin: no plan gains more from a unit, and a plan that is not
/// at a kink gains just that.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Price {
    /// The first class that would be served further, and how much weight of it.
    pub serves: Option<(u8, f64)>,
    /// Cost that would be saved. Where `serves` is set, serving more comes first and this may be below 0.
    pub saves: f64,
}

/// A priority class under the plan.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClassPlan {
    /// Which.
    pub class: u8,
    /// Weight of its demands.
    pub weight: f64,
    /// Weight that is not served.
    pub unserved: f64,
    /// No placement leaves less unserved without leaving more of a class before.
    pub unserved_bound: f64,
}

/// Writes the plan of these shares.
pub(super) fn answer(problem: &Problem, relaxed: &Relaxed, shares: &[Vec<f64>]) -> Plan {
    let mut loads = vec![0.0; problem.usable.len()];
    let mut cost = 0.0;
    for (demand, shares) in shares.iter().enumerate() {
        for (choice, &share) in problem.options[demand].iter().zip(shares) {
            problem.load(&mut loads, demand, choice.region, share);
            cost += problem.demands[demand].weight * share * choice.cost;
        }
    }
    let placements = (0..problem.demands.len()).map(|demand| {
        let service = problem.demands[demand].service.clone();
        (service, placement(problem, &loads, demand, &shares[demand]))
    });
    let placements: BTreeMap<ServiceId, Placement> = placements.collect();
    Plan {
        classes: classes(problem, relaxed, &placements),
        regions: regions(problem, relaxed, &loads),
        placements,
        cost,
        cost_bound: relaxed.cost_bound,
    }
}

fn placement(problem: &Problem, loads: &[f64], demand: usize, shares: &[f64]) -> Placement {
    let served: f64 = shares.iter().sum();
    let rest = 1.0 - served;
    let unserved = if rest > TOLERANCE { rest } else { 0.0 };
    let chosen = problem.options[demand].iter().zip(shares);
    let shares = chosen.filter(|&(_, &share)| share > 0.0);
    let shares = shares.map(|(choice, &share)| Share {
        region: problem.offers[choice.region].region.clone(),
        share,
        cost: choice.cost,
    });
    Placement {
        shares: shares.collect(),
        unserved,
        reason: (unserved > 0.0).then(|| reason(problem, loads, demand, unserved)),
    }
}

fn reason(problem: &Problem, loads: &[f64], demand: usize, unserved: f64) -> Unserved {
    let Demand {
        candidates, split, ..
    } = &problem.demands[demand];
    if candidates.is_empty() {
        return Unserved::NoCandidate;
    }
    let mut bindings = Vec::new();
    for candidate in candidates {
        let at = |offer: &super::Offer| offer.region.cmp(&candidate.region);
        let Ok(region) = problem.offers.binary_search_by(at) else {
            bindings.push(Binding {
                region: candidate.region.clone(),
                resource: None,
                free: 0.0,
                needed: 0.0,
            });
            continue;
        };
        for (resource, need) in problem.needs[demand].iter().enumerate() {
            let row = problem.row(region, resource);
            let (load, usable) = (loads[row], problem.usable[row]);
            let full = match split {
                Split::Allowed => *need > 0.0 && usable - load <= TOLERANCE * usable.max(*need),
                Split::Whole => !fits(load, *need, usable),
            };
            if full {
                bindings.push(Binding {
                    region: candidate.region.clone(),
                    resource: Some(problem.resources[resource].clone()),
                    free: (usable - load).max(0.0),
                    needed: need * unserved,
                });
            }
        }
    }
    Unserved::Full(bindings)
}

fn regions(problem: &Problem, relaxed: &Relaxed, loads: &[f64]) -> BTreeMap<RegionId, RegionPlan> {
    let mut here = vec![0.0; problem.usable.len()];
    for (demand, Demand { current, .. }) in problem.demands.iter().enumerate() {
        let at = |region: &RegionId| {
            let offers = &problem.offers;
            offers
                .binary_search_by(|offer| offer.region.cmp(region))
                .ok()
        };
        if let Some(region) = current.as_ref().and_then(at) {
            problem.load(&mut here, demand, region, 1.0);
        }
    }
    let resource = |region: usize, resource: usize| {
        let name = &problem.resources[resource];
        let offer = &problem.offers[region];
        let row = problem.row(region, resource);
        let used = offer.used.get(name).copied().unwrap_or(0.0);
        let plan = ResourcePlan {
            capacity: offer.capacity.get(name).copied().unwrap_or(0.0),
            usable: problem.usable[row],
            filled: loads[row],
            before: used + here[row],
            after: used + loads[row],
            price: relaxed.prices[row],
        };
        (name.clone(), plan)
    };
    let region = |(at, offer): (usize, &super::Offer)| {
        let resources = (0..problem.resources.len()).map(|name| resource(at, name));
        let plan = RegionPlan {
            resources: resources.collect(),
        };
        (offer.region.clone(), plan)
    };
    problem.offers.iter().enumerate().map(region).collect()
}

fn classes(
    problem: &Problem,
    relaxed: &Relaxed,
    placements: &BTreeMap<ServiceId, Placement>,
) -> Vec<ClassPlan> {
    let plan = |&(class, unserved_bound): &(u8, f64)| {
        let members = problem
            .demands
            .iter()
            .filter(|demand| demand.class == class);
        let mut plan = ClassPlan {
            class,
            weight: 0.0,
            unserved: 0.0,
            unserved_bound,
        };
        for demand in members {
            plan.weight += demand.weight;
            plan.unserved += demand.weight * placements[&demand.service].unserved;
        }
        plan
    };
    relaxed.unserved.iter().map(plan).collect()
}
