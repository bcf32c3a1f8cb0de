//! What a joint placement costs in time and in quality, beside placing each service on its own and beside a general
//! solver for linear programs.

use std::time::Instant;

use clap::Parser;
use leeward_benches::{
    figure::{Figures, Target},
    measure::median,
    plan::{Shape, exact, greedy, problem},
};
use leeward_engine::plan::{Demand, Offer, Plan, Problem, Split, TOLERANCE, place};

/// Places services on made-up regions after a loss, beside peers.
#[derive(Parser)]
struct Args {
    /// Of the first problem.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Problems of each shape.
    #[arg(long, default_value_t = 9)]
    problems: u64,
    /// Without the exact solver, which takes most of the time.
    #[arg(long)]
    no_exact: bool,
    /// One JSON object per line instead of tables.
    #[arg(long)]
    json: bool,
}

const ORDINARY: Shape = Shape {
    name: "500 x 30",
    regions: 30,
    lost: 1,
    services: 500,
    resources: 1,
    classes: 1,
    split: Split::Allowed,
};

const SHAPES: [Shape; 8] = [
    Shape {
        name: "100 x 10",
        regions: 10,
        services: 100,
        ..ORDINARY
    },
    Shape {
        name: "300 x 20",
        regions: 20,
        services: 300,
        ..ORDINARY
    },
    ORDINARY,
    Shape {
        name: "500 x 30, 3 resources",
        resources: 3,
        ..ORDINARY
    },
    Shape {
        name: "500 x 30, whole",
        split: Split::Whole,
        ..ORDINARY
    },
    Shape {
        name: "500 x 30, 3 resources, whole",
        resources: 3,
        split: Split::Whole,
        ..ORDINARY
    },
    Shape {
        name: "500 x 30, 9 lost, 3 classes",
        lost: 9,
        classes: 3,
        ..ORDINARY
    },
    Shape {
        name: "500 x 30, 9 lost, 3 classes, 3 resources, whole",
        lost: 9,
        classes: 3,
        resources: 3,
        split: Split::Whole,
        ..ORDINARY
    },
];

/// The plan of 500 services and 30 regions shall take no longer.
const LIMIT_MS: f64 = 20.0;

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut figures = Figures::new("plan");
    for shape in SHAPES {
        let mut rows = Vec::new();
        for seed in args.seed..args.seed + args.problems {
            rows.push(Row::of(seed, &shape, !args.no_exact)?);
        }
        push(&mut figures, &shape, &rows);
        if !args.json {
            println!("{}", line(&shape, &rows));
        }
    }
    figures.print();
    Ok(())
}

/// One problem, solved by all.
struct Row {
    ours_ms: f64,
    exact_ms: Option<f64>,
    /// Cost by the exact solver's.
    cost_ratio: Option<f64>,
    /// Unserved weight, by all weight, beyond what cannot be served.
    unserved_excess: f64,
    unserved: f64,
    /// Cost above the bound, by the bound.
    gap: f64,
    overfull: usize,
    argmax: greedy::Crowding,
    argmax_cost: f64,
}

impl Row {
    fn of(seed: u64, shape: &Shape, with_exact: bool) -> anyhow::Result<Self> {
        let (offers, demands) = problem(seed, shape);
        let (plan, ours_ms) = timed(&offers, &demands)?;
        let argmax = greedy::argmax(&offers, &demands);
        let mut row = Self {
            ours_ms,
            exact_ms: None,
            cost_ratio: None,
            unserved_excess: 0.0,
            unserved: 0.0,
            gap: plan.cost / plan.cost_bound - 1.0,
            overfull: overfull(&plan),
            argmax,
            argmax_cost: plan.cost / argmax.cost - 1.0,
        };
        let weight: f64 = plan.classes.iter().map(|class| class.weight).sum();
        for class in &plan.classes {
            row.unserved += class.unserved / weight;
            row.unserved_excess += (class.unserved - class.unserved_bound) / weight;
        }
        if with_exact {
            let start = Instant::now();
            let optimum = exact::solve(&offers, &demands)?;
            row.exact_ms = Some(start.elapsed().as_secs_f64() * 1e3);
            row.cost_ratio = Some(plan.cost / optimum.cost);
        }
        Ok(row)
    }
}

/// The plan and the milliseconds of a cold start, from offers and demands: the median of five.
fn timed(offers: &[Offer], demands: &[Demand]) -> anyhow::Result<(Plan, f64)> {
    let mut times = Vec::new();
    loop {
        let (offers, demands) = (offers.to_vec(), demands.to_vec());
        let start = Instant::now();
        let plan = place(&Problem::new(offers, demands)?);
        times.push(start.elapsed().as_secs_f64() * 1e3);
        if times.len() == 5 {
            return Ok((plan, median(times).unwrap_or_default()));
        }
    }
}

fn overfull(plan: &Plan) -> usize {
    let full = |region: &&leeward_engine::plan::RegionPlan| {
        let mut resources = region.resources.values();
        resources.any(|amounts| amounts.filled > amounts.usable * (1.0 + TOLERANCE))
    };
    plan.regions.values().filter(full).count()
}

fn middle(values: impl Iterator<Item = f64>) -> f64 {
    median(values.collect()).unwrap_or_default()
}

fn line(shape: &Shape, rows: &[Row]) -> String {
    let most = |of: fn(&Row) -> f64| rows.iter().map(of).fold(f64::MIN, f64::max);
    let name = shape.name;
    format!(
        "{name:<48} ours {:>7.2} ms (max {:>7.2}), exact {:>8.1} ms, cost ratio {:.6}; argmax overfull {} worst {:.0} % cost vs argmax +{:.1} %; unserved {:.2} % excess {:.4} % (max {:.4} %), gap {:.4} % (max {:.4} %)",
        middle(rows.iter().map(|row| row.ours_ms)),
        most(|row| row.ours_ms),
        middle(rows.iter().filter_map(|row| row.exact_ms)),
        middle(rows.iter().filter_map(|row| row.cost_ratio)),
        middle(rows.iter().map(|row| row.argmax.overfull as f64)),
        100.0 * middle(rows.iter().map(|row| row.argmax.worst)),
        100.0 * middle(rows.iter().map(|row| row.argmax_cost)),
        100.0 * middle(rows.iter().map(|row| row.unserved)),
        100.0 * middle(rows.iter().map(|row| row.unserved_excess)),
        100.0 * most(|row| row.unserved_excess),
        100.0 * middle(rows.iter().map(|row| row.gap)),
        100.0 * most(|row| row.gap),
    )
}

fn push(figures: &mut Figures, shape: &Shape, rows: &[Row]) {
    let name = shape.name;
    let ours = middle(rows.iter().map(|row| row.ours_ms));
    let mut time = figures.figure(format!("time, {name}"), ours, "ms");
    if rows.iter().any(|row| row.exact_ms.is_some()) {
        let exact = middle(rows.iter().filter_map(|row| row.exact_ms));
        time = time.beside("microlp", exact);
    }
    figures.push(time.target(Target::AtMost(LIMIT_MS)));
}
