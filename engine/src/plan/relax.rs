//! The fractional optimum: each class served as far as it can be, one after the other, then the least cost.

use std::collections::BTreeSet;

use super::{
    answer::Price,
    problem::{Choice, Problem, TOLERANCE},
    program::Program,
    simplex::Simplex,
};

/// A fractional optimum and what proves it.
#[derive(Clone, Debug)]
pub(super) struct Relaxed {
    /// For each demand, the share of each of its options.
    pub(super) shares: Vec<Vec<f64>>,
    /// For each class, first served first: the weight that nobody can serve more of.
    pub(super) unserved: Vec<(u8, f64)>,
    /// No placement that serves as much costs less.
    pub(super) cost_bound: f64,
    /// By region and resource.
    pub(super) prices: Vec<Price>,
}

/// Places `members` fractionally in what is `usable`. Other demands get no share.
pub(super) fn relax(problem: &Problem, usable: &[f64], members: &[usize]) -> Relaxed {
    let rows = Rows::binding(problem, usable, members);
    let program = rows.program(problem, members);
    let classes: BTreeSet<u8> = members
        .iter()
        .map(|&member| problem.demands[member].class)
        .collect();
    let mut simplex = Simplex::new(&program, start(problem, &program, members));
    let mut prices = vec![Price::default(); usable.len()];
    let mut unserved = Vec::new();
    let mut costs = vec![0.0; program.options()];
    for class in classes {
        costs.fill(0.0);
        for (group, &member) in members.iter().enumerate() {
            let demand = &problem.demands[member];
            if demand.class == class {
                costs[program.options_of(group).end - 1] = demand.weight;
            }
        }
        let optimum = simplex.minimise(&costs);
        unserved.push((class, optimum.bound.max(0.0)));
        for (row, price) in rows.prices(&optimum.prices) {
            if price > 0.0 && prices[row].serves.is_none() {
                prices[row].serves = Some((class, price));
            }
        }
    }
    costs.fill(0.0);
    for (group, &member) in members.iter().enumerate() {
        let weight = problem.demands[member].weight;
        for (option, choice) in program.options_of(group).zip(&problem.options[member]) {
            costs[option] = weight * choice.cost;
        }
    }
    let optimum = simplex.minimise(&costs);
    for (row, price) in rows.prices(&optimum.prices) {
        prices[row].saves = price;
    }
    let values = simplex.values();
    let mut shares: Vec<Vec<f64>> = vec![Vec::new(); problem.demands.len()];
    for (group, &member) in members.iter().enumerate() {
        shares[member] = snapped(&values[program.options_of(group)]);
    }
    trim(problem, usable, &mut shares);
    Relaxed {
        shares,
        unserved,
        cost_bound: optimum.bound,
        prices,
    }
}

/// The capacities that can bind at all.
struct Rows {
    /// Region and resource of each, as an index into `usable`.
    places: Vec<usize>,
    /// The row of each place.
    of_place: Vec<Option<usize>>,
    /// The largest need in the row, in which it is counted.
    units: Vec<f64>,
    capacity: Vec<f64>,
}

impl Rows {
    fn binding(problem: &Problem, usable: &[f64], members: &[usize]) -> Self {
        let mut wanted = vec![0.0; usable.len()];
        let mut largest = vec![0.0_f64; usable.len()];
        for &member in members {
            for choice in &problem.options[member] {
                for (resource, &need) in problem.needs[member].iter().enumerate() {
                    let place = problem.row(choice.region, resource);
                    wanted[place] += need;
                    largest[place] = largest[place].max(need);
                }
            }
        }
        let places: Vec<usize> = (0..usable.len())
            .filter(|&place| wanted[place] > usable[place])
            .collect();
        let mut of_place = vec![None; usable.len()];
        for (row, &place) in places.iter().enumerate() {
            of_place[place] = Some(row);
        }
        Self {
            of_place,
            units: places.iter().map(|&place| largest[place]).collect(),
            capacity: places
                .iter()
                .map(|&place| usable[place].max(0.0) / largest[place])
                .collect(),
            places,
        }
    }

    /// A group for each member: its options, then "unserved".
    fn program(&self, problem: &Problem, members: &[usize]) -> Program {
        let mut program = Program::new(self.capacity.clone());
        for &member in members {
            for choice in &problem.options[member] {
                let needs = problem.needs[member].iter().enumerate();
                program.push_option(needs.filter_map(|(resource, need)| {
                    let row = self.of_place[problem.row(choice.region, resource)]?;
                    (*need > 0.0).then_some((row, need / self.units[row]))
                }));
            }
            program.push_option([]);
            program.end_group();
        }
        program
    }

    /// Prices of one unit of the resource, by place.
    fn prices<'a>(&'a self, prices: &'a [f64]) -> impl Iterator<Item = (usize, f64)> + 'a {
        let rows = self.places.iter().zip(&self.units).zip(prices);
        rows.map(|((&place, unit), price)| (place, price / unit))
    }
}

/// A point to begin at: class by class, each demand whole where it is cheapest among what still has room.
fn start(problem: &Problem, program: &Program, members: &[usize]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..members.len()).collect();
    order.sort_by_key(|&group| problem.demands[members[group]].class);
    let mut rest = program.capacity().to_vec();
    let mut keys = vec![0; members.len()];
    for group in order {
        let options = program.options_of(group);
        let choices: &[Choice] = &problem.options[members[group]];
        let mut by_cost: Vec<usize> = (0..choices.len()).collect();
        by_cost.sort_by(|&a, &b| choices[a].cost.total_cmp(&choices[b].cost));
        let mut ways = by_cost.into_iter().map(|at| options.start + at);
        let room = |&option: &usize| {
            let mut column = program.column(option).iter();
            column.all(|&(row, a)| rest[row] - a >= 0.0)
        };
        let key = ways.find(room).unwrap_or(options.end - 1);
        for &(row, a) in program.column(key) {
            rest[row] -= a;
        }
        keys[group] = key;
    }
    keys
}

/// Takes back what passes a capacity by more than rounding, from the least important: a last guard against a badly
/// conditioned program, which the steps before should never need.
fn trim(problem: &Problem, usable: &[f64], shares: &mut [Vec<f64>]) {
    let mut order: Vec<usize> = (0..shares.len()).collect();
    order.sort_by_key(|&demand| problem.demands[demand].class);
    let mut loads = vec![0.0; usable.len()];
    for demand in order {
        for (choice, share) in problem.options[demand].iter().zip(&mut shares[demand]) {
            for (resource, &need) in problem.needs[demand].iter().enumerate() {
                let row = problem.row(choice.region, resource);
                let room = (usable[row] * (1.0 + TOLERANCE / 2.0) - loads[row]).max(0.0);
                if need * *share > room {
                    *share = room / need;
                }
            }
            problem.load(&mut loads, demand, choice.region, *share);
        }
    }
}

/// Shares of the options of a group without its last, "unserved"; what is almost none or all is none or all.
fn snapped(values: &[f64]) -> Vec<f64> {
    let options = &values[..values.len() - 1];
    match options.iter().position(|&share| share > 1.0 - TOLERANCE) {
        Some(whole) => (0..options.len())
            .map(|at| if at == whole { 1.0 } else { 0.0 })
            .collect(),
        None => options
            .iter()
            .map(|&share| if share < TOLERANCE { 0.0 } else { share })
            .collect(),
    }
}
