//! Each service on its own: to its cheapest region, whatever the others do.

use std::collections::BTreeMap;

use leeward_common::id::RegionId;
use leeward_engine::plan::{Demand, Offer};

/// How full regions get.
#[derive(Clone, Copy, Debug)]
pub struct Crowding {
    /// Regions with more of some resource than they have.
    pub overfull: usize,
    /// The fullest resource of any region: load by capacity.
    pub fullest: f64,
}

/// Sends each service to its cheapest region.
#[must_use]
pub fn alone(offers: &[Offer], demands: &[Demand]) -> Crowding {
    let mut loads: BTreeMap<(&RegionId, &str), f64> = BTreeMap::new();
    for demand in demands {
        let cost = |candidate: &leeward_engine::plan::Candidate| match &demand.current {
            Some(current) if *current == candidate.region => candidate.cost,
            _ => candidate.cost + demand.switching_cost,
        };
        let cheapest = demand
            .candidates
            .iter()
            .min_by(|a, b| cost(a).total_cmp(&cost(b)));
        let Some(cheapest) = cheapest else { continue };
        for (resource, need) in &demand.need {
            *loads.entry((&cheapest.region, resource)).or_default() += need;
        }
    }
    let fullest = |offer: &Offer| {
        let share = |(resource, capacity): (&String, &f64)| {
            let load = loads.get(&(&offer.region, resource.as_str()));
            load.copied().unwrap_or(0.0) / capacity
        };
        offer.capacity.iter().map(share).fold(0.0, f64::max)
    };
    let fullest: Vec<f64> = offers.iter().map(fullest).collect();
    Crowding {
        overfull: fullest.iter().filter(|&&share| share > 1.0).count(),
        fullest: fullest.into_iter().fold(0.0, f64::max),
    }
}
