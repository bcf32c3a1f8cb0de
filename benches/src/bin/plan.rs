//! What a joint placement costs in time and in quality, beside placing each service on its own and beside a general
//! solver for linear programs.

use std::time::Instant;

use clap::Parser;
use leeward_benches::{
    figure::{Figures, Target},
    measure::median,
    plan::{Shape, argmax, exact, problem},
};
use leeward_engine::plan::{ClassPlan, Demand, Offer, Plan, Problem, Split, TOLERANCE, place};

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
    /// One JSON object per line instead of a table; [`Figures::print`] looks for it.
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
        let rows: anyhow::Result<Vec<Row>> = (args.seed..args.seed + args.problems)
            .map(|seed| Row::of(seed, &shape, !args.no_exact))
            .collect();
        push(&mut figures, &shape, &rows?);
    }
    figures.print();
    Ok(())
}

/// One problem, solved by all.
struct Row {
    ours_ms: f64,
    /// Milliseconds and cost of the exact solver.
    exact: Option<(f64, f64)>,
    cost: f64,
    cost_bound: f64,
    /// Share of all weight that is not served, and that nobody could serve.
    unserved: f64,
    unserved_bound: f64,
    /// Regions filled beyond what is usable, and the fullest of all.
    overfull: usize,
    fullest: f64,
    alone: argmax::Crowding,
}

impl Row {
    fn of(seed: u64, shape: &Shape, with_exact: bool) -> anyhow::Result<Self> {
        let (offers, demands) = problem(seed, shape);
        let (plan, ours_ms) = timed(&offers, &demands)?;
        let weight: f64 = plan.classes.iter().map(|class| class.weight).sum();
        let of_all =
            |part: fn(&ClassPlan) -> f64| plan.classes.iter().map(part).sum::<f64>() / weight;
        let resources = plan.regions.values().map(|region| {
            let loads = region.resources.values();
            loads.map(|of| of.filled / of.usable).fold(0.0, f64::max)
        });
        let fullest: Vec<f64> = resources.collect();
        // What must stay whole is no linear program.
        let exact = match shape.split == Split::Allowed && with_exact {
            false => None,
            true => {
                let start = Instant::now();
                let optimum = exact::solve(&offers, &demands)?;
                Some((start.elapsed().as_secs_f64() * 1e3, optimum.cost))
            }
        };
        Ok(Self {
            ours_ms,
            exact,
            cost: plan.cost,
            cost_bound: plan.cost_bound,
            unserved: of_all(|class| class.unserved),
            unserved_bound: of_all(|class| class.unserved_bound),
            overfull: fullest
                .iter()
                .filter(|&&share| share > 1.0 + TOLERANCE)
                .count(),
            fullest: fullest.into_iter().fold(0.0, f64::max),
            alone: argmax::alone(&offers, &demands),
        })
    }
}

/// The plan, and the milliseconds of a cold start from offers and demands: the median of five.
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

fn push(figures: &mut Figures, shape: &Shape, rows: &[Row]) {
    let name = shape.name;
    let middle =
        |of: &dyn Fn(&Row) -> f64| median(rows.iter().map(of).collect()).unwrap_or_default();
    let most = |of: &dyn Fn(&Row) -> f64| rows.iter().map(of).fold(f64::MIN, f64::max);
    let mut time = figures.figure(format!("{name}: time"), middle(&|row| row.ours_ms), "ms");
    if rows.iter().all(|row| row.exact.is_some()) {
        let exact = middle(&|row| row.exact.map_or(0.0, |(ms, _)| ms));
        time = time.beside("microlp", exact);
    }
    figures.push(time.target(Target::AtMost(LIMIT_MS)));
    let alone = "each alone";
    let overfull = most(&|row| row.overfull as f64);
    let overfull = figures.figure(format!("{name}: regions overfull, most"), overfull, "");
    let theirs = most(&|row| row.alone.overfull as f64);
    figures.push(overfull.beside(alone, theirs).target(Target::AtMost(0.0)));
    let fullest = most(&|row| row.fullest * 100.0);
    let fullest = figures.figure(format!("{name}: fullest region"), fullest, "%");
    figures.push(fullest.beside(alone, most(&|row| row.alone.fullest * 100.0)));
    let unserved = |of: f64| of * 100.0;
    if most(&|row| row.unserved_bound) > 1e-6 || most(&|row| row.unserved) > 1e-6 {
        let ours = middle(&|row| unserved(row.unserved));
        let figure = figures.figure(format!("{name}: unserved"), ours, "%");
        let least = middle(&|row| unserved(row.unserved_bound));
        figures.push(figure.beside("least possible, split", least));
    } else {
        let above = |row: &Row| (row.cost / row.cost_bound - 1.0) * 100.0;
        let middle = middle(&above).max(0.0);
        figures.push(figures.figure(format!("{name}: cost above the bound"), middle, "%"));
        let most = most(&above).max(0.0);
        figures.push(figures.figure(format!("{name}: the same, most"), most, "%"));
    }
    if rows.iter().all(|row| row.exact.is_some()) {
        let above = |row: &Row| {
            row.exact
                .map_or(0.0, |(_, cost)| (row.cost / cost - 1.0) * 100.0)
        };
        let figure = figures.figure(
            format!("{name}: cost above microlp, most"),
            most(&above),
            "%",
        );
        figures.push(figure.target(Target::AtMost(0.001)));
    }
}
