//! A general solver on the same problem.

use std::collections::BTreeMap;

use anyhow::Context as _;
use leeward_common::id::RegionId;
use leeward_engine::plan::{Demand, Offer};
use microlp::{ComparisonOp, OptimizationDirection, Problem, Variable};

/// What it found.
#[derive(Clone, Debug)]
pub struct Optimum {
    /// Unserved weight by class, first served first.
    pub unserved: Vec<f64>,
    /// Weight times share times cost, added up.
    pub cost: f64,
}

/// Solves the linear program of a problem, once for each class and once for the cost.
///
/// # Errors
///
/// Says that the solver gave up.
pub fn solve(offers: &[Offer], demands: &[Demand]) -> anyhow::Result<Optimum> {
    let mut classes: Vec<u8> = demands.iter().map(|demand| demand.class).collect();
    classes.sort_unstable();
    classes.dedup();
    let mut unserved = Vec::new();
    for class in &classes {
        unserved.push(stage(offers, demands, &classes, &unserved, Some(*class))?);
    }
    let cost = stage(offers, demands, &classes, &unserved, None)?;
    Ok(Optimum { unserved, cost })
}

/// The least unserved weight of a class, or the least cost, when classes before keep what they reached.
fn stage(
    offers: &[Offer],
    demands: &[Demand],
    classes: &[u8],
    reached: &[f64],
    class: Option<u8>,
) -> anyhow::Result<f64> {
    let mut problem = Problem::new(OptimizationDirection::Minimize);
    let mut rows: BTreeMap<(&RegionId, &str), Vec<(Variable, f64)>> = BTreeMap::new();
    let mut left: BTreeMap<u8, Vec<(Variable, f64)>> = BTreeMap::new();
    for demand in demands {
        let mut shares = Vec::new();
        for candidate in &demand.candidates {
            let stays = demand.current.as_ref() == Some(&candidate.region);
            let switching = if stays { 0.0 } else { demand.switching_cost };
            let cost = match class {
                None => demand.weight * (candidate.cost + switching),
                Some(_) => 0.0,
            };
            let share = problem.add_var(cost, (0.0, f64::INFINITY));
            shares.push((share, 1.0));
            for (resource, need) in &demand.need {
                let row = rows.entry((&candidate.region, resource)).or_default();
                row.push((share, *need));
            }
        }
        let counts = class == Some(demand.class);
        let cost = if counts { demand.weight } else { 0.0 };
        let unserved = problem.add_var(cost, (0.0, f64::INFINITY));
        left.entry(demand.class)
            .or_default()
            .push((unserved, demand.weight));
        shares.push((unserved, 1.0));
        problem.add_constraint(shares, ComparisonOp::Eq, 1.0);
    }
    for offer in offers {
        for (resource, capacity) in &offer.capacity {
            if let Some(row) = rows.remove(&(&offer.region, resource.as_str())) {
                problem.add_constraint(row, ComparisonOp::Le, *capacity);
            }
        }
    }
    for (class, reached) in classes.iter().zip(reached) {
        if let Some(left) = left.remove(class) {
            problem.add_constraint(left, ComparisonOp::Le, reached + 1e-6);
        }
    }
    let outcome = problem.solve().context("the exact solver failed")?;
    let solution = outcome.into_solution();
    let solution = solution.map_err(|_| anyhow::anyhow!("the exact solver gave up"))?;
    Ok(solution.objective())
}
