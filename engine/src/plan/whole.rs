//! Services that must stay whole: from fractions to one region each.
//!
//! A vertex of the fractional optimum splits at most as many services as there are full capacities, so few are to be
//! rounded. Those are lifted out and seated again one by one, the most important first: where they fit, or where one
//! other service can make room by moving, whichever costs less; if neither goes, in the place of services that count
//! less, which then wait for a seat themselves. Every step keeps every capacity.
//!
//! Rounding is not optimal: to find the best whole placement is as hard as packing bins. The fractional optimum bounds
//! what was lost.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use super::{
    problem::{Choice, Problem, Split, TOLERANCE},
    relax::{Relaxed, relax},
};

/// Passes over all services that look for a better seat.
const PASSES: usize = 4;
/// How often those without a seat may try again.
const ROUNDS: usize = 2;

/// Makes the shares of services that must stay whole 0 or 1, and divides what is left among the others anew.
pub(super) fn round(problem: &Problem, relaxed: &Relaxed, shares: &mut [Vec<f64>]) {
    let must_stay = |&demand: &usize| problem.demands[demand].split == Split::Whole;
    let (whole, divisible): (Vec<usize>, Vec<usize>) =
        (0..problem.demands.len()).partition(must_stay);
    let split =
        |&&demand: &&usize| !shares[demand].contains(&1.0) && !problem.options[demand].is_empty();
    let fractional: Vec<usize> = whole.iter().filter(split).copied().collect();
    if fractional.is_empty() {
        return;
    }
    for &demand in &fractional {
        shares[demand].fill(0.0);
    }
    let mut seating = Seating::new(problem, relaxed, shares);
    let mut waiting = fractional;
    for _ in 0..ROUNDS {
        let before = waiting.len();
        seating.seat(&waiting);
        seating.polish(&whole);
        // Whoever moved or left since may have made room.
        waiting = seating.unseated(&whole);
        if waiting.is_empty() || waiting.len() >= before {
            break;
        }
    }
    if !divisible.is_empty() {
        let mut usable = problem.usable.clone();
        for &demand in &whole {
            if let Some(option) = seating.seat_of(demand) {
                let region = problem.options[demand][option].region;
                for (resource, need) in problem.needs[demand].iter().enumerate() {
                    usable[problem.row(region, resource)] -= need;
                }
            }
        }
        let rest = relax(problem, &usable, &divisible);
        for demand in divisible {
            shares[demand].clone_from(&rest.shares[demand]);
        }
    }
    Seating::new(problem, relaxed, shares).fill(&waiting);
}

/// Who waits, the most important first: by class, then the heaviest, then by id.
type Turn = (u8, Reverse<u64>, usize);

struct Seating<'a> {
    problem: &'a Problem,
    shares: &'a mut [Vec<f64>],
    loads: Vec<f64>,
    /// Demands with a share in each region.
    guests: Vec<BTreeSet<usize>>,
    costs: Costs,
    /// Costs with what the capacity that is taken would be worth to others.
    worths: Costs,
}

impl<'a> Seating<'a> {
    fn new(problem: &'a Problem, relaxed: &'a Relaxed, shares: &'a mut [Vec<f64>]) -> Self {
        let mut loads = vec![0.0; problem.usable.len()];
        let mut guests = vec![BTreeSet::new(); problem.offers.len()];
        for (demand, shares) in shares.iter().enumerate() {
            for (choice, &share) in problem.options[demand].iter().zip(shares) {
                if share > 0.0 {
                    problem.load(&mut loads, demand, choice.region, share);
                    guests[choice.region].insert(demand);
                }
            }
        }
        Self {
            costs: Costs::new(problem, |_| 0.0),
            worths: Costs::new(problem, |row| relaxed.prices[row].saves.max(0.0)),
            problem,
            shares,
            loads,
            guests,
        }
    }

    /// Seats these as well as it goes.
    fn seat(&mut self, waiting: &[usize]) {
        let mut queue: BTreeSet<Turn> = waiting.iter().map(|&demand| self.turn(demand)).collect();
        // Each displacement serves a class further, so there is an end; this bounds how long it may take.
        let mut displacements = self.problem.demands.len();
        while let Some((_, _, demand)) = queue.pop_first() {
            if self.take_best(demand) || displacements == 0 {
                continue;
            }
            for displaced in self.displace(demand) {
                displacements = displacements.saturating_sub(1);
                queue.insert(self.turn(displaced));
            }
        }
    }

    fn turn(&self, demand: usize) -> Turn {
        let of = &self.problem.demands[demand];
        // Positive floats are ordered as their bits are.
        (of.class, Reverse(of.weight.to_bits()), demand)
    }

    /// Seats those who fit where something is left, moving nobody.
    fn fill(&mut self, waiting: &[usize]) {
        let queue: BTreeSet<Turn> = waiting.iter().map(|&demand| self.turn(demand)).collect();
        for (_, _, demand) in queue {
            let options = &self.problem.options[demand];
            let room = (0..options.len())
                .filter(|&option| self.has_room(demand, options[option].region))
                .min_by(|&a, &b| options[a].cost.total_cmp(&options[b].cost));
            if let Some(option) = room {
                self.sit(demand, option);
            }
        }
    }

    /// Those of `whole` that could go somewhere and sit nowhere.
    fn unseated(&self, whole: &[usize]) -> Vec<usize> {
        let options = &self.problem.options;
        let waits =
            |&&demand: &&usize| !options[demand].is_empty() && self.seat_of(demand).is_none();
        whole.iter().filter(waits).copied().collect()
    }

    /// Takes the best way to seat a demand. False if there is none.
    fn take_best(&mut self, demand: usize) -> bool {
        let Some(way) = self.best_way(demand, f64::INFINITY, &self.worths) else {
            return false;
        };
        self.take(demand, &way);
        true
    }

    fn take(&mut self, demand: usize, way: &Way) {
        if let Some((guest, other)) = way.moved {
            self.leave(guest);
            self.sit(guest, other);
        }
        self.sit(demand, way.option);
    }

    /// The way with the least cost below `limit` to seat a demand, alone or by letting one other service move.
    fn best_way(&self, demand: usize, limit: f64, costs: &Costs) -> Option<Way> {
        let mut best = Way {
            cost: limit,
            option: usize::MAX,
            moved: None,
        };
        for (option, choice) in self.problem.options[demand].iter().enumerate() {
            let cost = costs.of[demand][option];
            if self.has_room(demand, choice.region) {
                if cost < best.cost {
                    best = Way {
                        cost,
                        option,
                        moved: None,
                    };
                }
                continue;
            }
            for &guest in &self.guests[choice.region] {
                let Some(now) = self.seat_of(guest) else {
                    continue;
                };
                let cost = cost - costs.of[guest][now];
                if cost + costs.least[guest] >= best.cost
                    || !self.has_room_without(demand, choice.region, guest)
                {
                    continue;
                }
                for (other, elsewhere) in self.problem.options[guest].iter().enumerate() {
                    let cost = cost + costs.of[guest][other];
                    if cost < best.cost && other != now && self.has_room(guest, elsewhere.region) {
                        best = Way {
                            cost,
                            option,
                            moved: Some((guest, other)),
                        };
                    }
                }
            }
        }
        (best.option != usize::MAX).then_some(best)
    }

    /// Takes the place of services that count less: of classes after its own, or of its own if their weight together
    /// is less. Returns those that must stay whole and now wait.
    fn displace(&mut self, demand: usize) -> Vec<usize> {
        let class = self.problem.demands[demand].class;
        let mut best: Option<(Displaced, usize)> = None;
        for (option, choice) in self.problem.options[demand].iter().enumerate() {
            let Some(displaced) = self.displaced(demand, choice.region) else {
                continue;
            };
            let gentler = |(least, _): &(Displaced, usize)| displaced.key() < least.key();
            if best.as_ref().is_none_or(gentler) {
                best = Some((displaced, option));
            }
        }
        let Some((displaced, option)) = best else {
            return Vec::new();
        };
        debug_assert!(displaced.first_class >= class);
        let region = self.problem.options[demand][option].region;
        let mut waiting = Vec::new();
        for guest in displaced.guests {
            if self.problem.demands[guest].split == Split::Whole {
                self.leave(guest);
                waiting.push(guest);
            } else {
                self.leave_region(guest, region);
            }
        }
        self.sit(demand, option);
        waiting
    }

    /// Who would have to leave a region for a demand; `None` if those who may be displaced are not enough.
    fn displaced(&self, demand: usize, region: usize) -> Option<Displaced> {
        let own = &self.problem.demands[demand];
        let mut guests: Vec<usize> = self.guests[region]
            .iter()
            .copied()
            .filter(|&guest| self.problem.demands[guest].class >= own.class)
            .collect();
        // The least important first; of those the lightest.
        guests.sort_by_key(|&guest| {
            let of = &self.problem.demands[guest];
            (Reverse(of.class), of.weight.to_bits(), guest)
        });
        let mut displaced = Displaced {
            first_class: u8::MAX,
            weight: 0.0,
            guests: Vec::new(),
        };
        let mut of_own_class = 0.0;
        let mut loads = self.loads.clone();
        for guest in guests {
            let of = &self.problem.demands[guest];
            let share = self.share_in(guest, region);
            if of.class == own.class {
                of_own_class += of.weight * share;
            }
            displaced.first_class = displaced.first_class.min(of.class);
            displaced.weight += of.weight * share;
            displaced.guests.push(guest);
            self.problem.load(&mut loads, guest, region, -share);
            if of_own_class >= own.weight {
                return None;
            }
            let usable = &self.problem.usable;
            if self.problem.has_room(usable, &loads, demand, region) {
                return Some(displaced);
            }
        }
        None
    }

    /// Seats services better, one or two at a time, until nothing is gained or the passes are used up.
    fn polish(&mut self, whole: &[usize]) {
        for _ in 0..PASSES {
            let mut moved = false;
            for &demand in whole {
                let Some(now) = self.seat_of(demand) else {
                    continue;
                };
                let cost = self.costs.of[demand][now];
                if cost <= self.costs.least[demand] {
                    continue;
                }
                self.leave(demand);
                let limit = cost - TOLERANCE * cost.abs();
                let better = self.best_way(demand, limit, &self.costs);
                moved |= better.is_some();
                match better {
                    Some(way) => self.take(demand, &way),
                    None => self.sit(demand, now),
                }
            }
            if !moved {
                return;
            }
        }
    }

    fn has_room(&self, demand: usize, region: usize) -> bool {
        self.problem
            .has_room(&self.problem.usable, &self.loads, demand, region)
    }

    fn has_room_without(&self, demand: usize, region: usize, guest: usize) -> bool {
        let needs = self.problem.needs[demand].iter().enumerate();
        needs
            .zip(&self.problem.needs[guest])
            .all(|((resource, &need), &freed)| {
                let row = self.problem.row(region, resource);
                super::problem::fits(self.loads[row] - freed, need, self.problem.usable[row])
            })
    }

    /// The option where a demand sits whole.
    fn seat_of(&self, demand: usize) -> Option<usize> {
        self.shares[demand].iter().position(|&share| share == 1.0)
    }

    fn share_in(&self, demand: usize, region: usize) -> f64 {
        let options = self.problem.options[demand]
            .iter()
            .zip(&self.shares[demand]);
        let here = options.filter(|(choice, _)| choice.region == region);
        here.map(|(_, &share)| share).sum()
    }

    fn sit(&mut self, demand: usize, option: usize) {
        let region = self.problem.options[demand][option].region;
        self.shares[demand][option] = 1.0;
        self.problem.load(&mut self.loads, demand, region, 1.0);
        self.guests[region].insert(demand);
    }

    fn leave(&mut self, demand: usize) {
        for option in 0..self.shares[demand].len() {
            let region = self.problem.options[demand][option].region;
            if self.shares[demand][option] > 0.0 {
                self.leave_region(demand, region);
            }
        }
    }

    fn leave_region(&mut self, demand: usize, region: usize) {
        for (choice, share) in self.problem.options[demand]
            .iter()
            .zip(&mut self.shares[demand])
        {
            if choice.region == region {
                *share = 0.0;
            }
        }
        self.guests[region].remove(&demand);
        self.reload(region);
    }

    /// Adds the loads of a region up anew, so that what leaves leaves nothing behind.
    fn reload(&mut self, region: usize) {
        for resource in 0..self.problem.resources.len() {
            self.loads[self.problem.row(region, resource)] = 0.0;
        }
        for &guest in &self.guests[region] {
            let share = self.share_in(guest, region);
            self.problem.load(&mut self.loads, guest, region, share);
        }
    }
}

/// What each option of each demand costs.
struct Costs {
    of: Vec<Vec<f64>>,
    /// The cheapest of each demand.
    least: Vec<f64>,
}

impl Costs {
    /// Costs with a price on each row.
    fn new(problem: &Problem, price: impl Fn(usize) -> f64) -> Self {
        let cost = |demand: usize, choice: &Choice| {
            let needs = problem.needs[demand].iter().enumerate();
            let scarce = needs.map(|(resource, need)| {
                let row = problem.row(choice.region, resource);
                need * price(row)
            });
            problem.demands[demand].weight * choice.cost + scarce.sum::<f64>()
        };
        let costs = |(demand, options): (usize, &Vec<Choice>)| -> Vec<f64> {
            options.iter().map(|choice| cost(demand, choice)).collect()
        };
        let of: Vec<Vec<f64>> = problem.options.iter().enumerate().map(costs).collect();
        let least = |costs: &Vec<f64>| costs.iter().copied().fold(f64::INFINITY, f64::min);
        Self {
            least: of.iter().map(least).collect(),
            of,
        }
    }
}

/// A way to seat a demand.
struct Way {
    cost: f64,
    option: usize,
    /// Who moves for it, and to which of its options.
    moved: Option<(usize, usize)>,
}

/// Who would have to leave a region.
struct Displaced {
    first_class: u8,
    weight: f64,
    guests: Vec<usize>,
}

impl Displaced {
    /// Less is better: rather a less important class, then less weight.
    fn key(&self) -> (Reverse<u8>, u64) {
        (Reverse(self.first_class), self.weight.to_bits())
    }
}
