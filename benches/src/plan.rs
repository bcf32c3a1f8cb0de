//! Joint placements on made-up regions: the problems, and the peers that solve them too.
//!
//! Regions lie on a square; what a service costs in a region is its distance from where its users are, and moving it
//! costs a little more. Services have sizes of a heavy tail and live in the region of their users. Each region has
//! room for what lives there and a third more. Then regions are lost.

pub mod argmax;
pub mod exact;

use leeward_common::id::{RegionId, ServiceId};
use leeward_engine::plan::{Candidate, Demand, Offer, Split};

use crate::decide::noise::Noise;

/// A kind of problem.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// What it is called in the table.
    pub name: &'static str,
    /// Regions before the loss.
    pub regions: usize,
    /// Regions lost.
    pub lost: usize,
    /// Services.
    pub services: usize,
    /// Resources of which each service needs some.
    pub resources: usize,
    /// Priority classes.
    pub classes: u8,
    /// Whether services may be split.
    pub split: Split,
}

/// Room of a region for each unit that lives there.
const ROOM: f64 = 4.0 / 3.0;
/// Cost of moving, where the side of the square is 1.
const SWITCHING_COST: f64 = 0.05;

/// A made-up problem: the offers of the regions that are left, and all services.
#[must_use]
pub fn problem(seed: u64, shape: &Shape) -> (Vec<Offer>, Vec<Demand>) {
    let mut noise = Noise::new(seed, 0);
    let places: Vec<(f64, f64)> = (0..shape.regions)
        .map(|_| (noise.even(), noise.even()))
        .collect();
    let name = |at: usize| RegionId::parse(&format!("r{at:02}")).expect("it is an id");
    let resource = |at: usize| format!("resource-{at}");
    let mut offers: Vec<Offer> = (0..shape.regions).map(|at| Offer::new(name(at))).collect();
    let demands = (0..shape.services).map(|at| {
        let id = ServiceId::parse(&format!("s{at:03}")).expect("it is an id");
        let mut demand = Demand::new(id);
        let home = noise.below(shape.regions);
        let size = (2.0 * noise.bell()).exp().clamp(0.05, 20.0);
        for at in 0..shape.resources {
            let need = size * (0.5 + noise.even());
            demand.need.insert(resource(at), need);
            *offers[home].capacity.entry(resource(at)).or_default() += need * ROOM;
        }
        demand.weight = demand.need[&resource(0)];
        demand.class = noise.below(usize::from(shape.classes)) as u8;
        demand.split = shape.split;
        demand.current = Some(name(home));
        demand.switching_cost = SWITCHING_COST;
        let near = |(x, y): (f64, f64)| (x - places[home].0).hypot(y - places[home].1);
        demand.candidates = (shape.lost..shape.regions)
            .map(|at| Candidate {
                region: name(at),
                cost: near(places[at]) + 0.01 * noise.even(),
            })
            .collect();
        demand
    });
    let demands = demands.collect();
    offers.drain(..shape.lost);
    (offers, demands)
}
