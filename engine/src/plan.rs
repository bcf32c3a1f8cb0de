//! The joint placement: where all services go together, so that no region is filled beyond what it offers.
//!
//! Choosing for each service on its own sends everybody to the same best region, and the outage moves there. Here
//! all demands are placed in one go, and in this order of importance:
//!
//! 1. no region is filled beyond its usable amount of any resource: capacity, less the headroom to keep free, less
//!    what is reserved, less what others use already;
//! 2. as much as possible of class 0 is served; then, without giving up any of that, of class 1; and so on;
//! 3. then the total cost is as low as it can be.
//!
//! What does not fit is reported as unserved, with the resources that are full; it is never squeezed in.
//!
//! ```text
//!   Offer, Demand ──▶ Problem ──▶ place ──▶ Plan: shares of each service, loads and prices of each region
//! ```
//!
//! Each step of the order is a linear program over the same capacities, and all are solved exactly (`simplex`).
//! Services that may be split get the optimum. Services that must stay whole are then rounded (`whole`) without ever
//! passing a capacity; the bounds in [`ClassPlan`] and [`Plan::cost_bound`] are those of the fractional optimum, so
//! they tell how much the rounding can have cost.
//!
//! To place services, write one [`Offer`] for each region that may take some, one [`Demand`] for each service, and
//! call [`place`]:
//!
//! ```
//! use leeward_common::id::{RegionId, ServiceId};
//! use leeward_engine::plan::{Candidate, Demand, Offer, Problem, Split, place};
//!
//! let eu = RegionId::parse("eu")?;
//! let mut offer = Offer::new(eu.clone());
//! offer.capacity.insert("requests".to_owned(), 1_000.0);
//! offer.headroom = 0.2;
//! let mut demand = Demand::new(ServiceId::parse("checkout")?);
//! demand.need.insert("requests".to_owned(), 600.0);
//! demand.weight = 600.0;
//! demand.candidates.push(Candidate { region: eu, cost: 0.4 });
//! let plan = place(&Problem::new(vec![offer], vec![demand])?);
//! assert_eq!(plan.placements.values().next().map(|placement| placement.unserved), Some(0.0));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The plan depends on the problem only, not on the order in which its parts are given: ties go by id.

mod answer;
mod problem;
mod program;
mod relax;
mod simplex;
mod whole;

pub use answer::{
    Binding, ClassPlan, Placement, Plan, Price, RegionPlan, ResourcePlan, Share, Unserved,
};
pub use problem::{
    Amounts, Candidate, Demand, Invalid, MAX_DEMANDS, MAX_REGIONS, MAX_RESOURCES, Offer, Problem,
    Split, TOLERANCE,
};

/// Places all demands of a problem.
#[must_use]
pub fn place(problem: &Problem) -> Plan {
    let all: Vec<usize> = (0..problem.demands.len()).collect();
    let relaxed = relax::relax(problem, &problem.usable, &all);
    let mut shares = relaxed.shares.clone();
    whole::round(problem, &relaxed, &mut shares);
    answer::answer(problem, &relaxed, &shares)
}
