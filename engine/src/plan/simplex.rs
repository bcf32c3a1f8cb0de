//! An exact solver for such programs.
//!
//! An ordinary simplex would carry one row per demand. Here each group has one *key* option that stands for its sum,
//! and only the capacity rows are factored: the generalised upper bounding of Dantzig and Van Slyke (J. Comput. Syst.
//! Sci. 1, 1967). With 500 demands and 30 regions the matrix to keep inverted is 30 x 30 for each resource instead of
//! 530 x 530.
//!
//! The method is primal: every intermediate point keeps all rows, so stopping early costs optimality and never
//! safety. Ties are broken by index and Bland's rule takes over when a vertex is degenerate for long, so the same
//! program always takes the same steps.

use super::program::Program;

/// A basic variable, option or slack, that is this close to zero moves nothing.
const DEGENERATE: f64 = 1e-12;
/// How far a basic variable may pass zero for the sake of a larger pivot (Harris, Math. Programming 5, 1973).
const SLIP: f64 = 1e-11;
/// Pivots below this lose too many digits.
const SMALLEST_PIVOT: f64 = 1e-9;
/// Reduced costs are zero within this share of the terms that they are made from.
const COST_TOLERANCE: f64 = 1e-10;
/// The inverse is made anew after this many changes.
const REFACTOR_EVERY: usize = 100;
/// Groups that are priced before the best option among them is taken.
const PRICED_AT_ONCE: usize = 40;

/// A basic variable of the working basis.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Basic {
    Slack(usize),
    Option(usize),
}

/// How an option takes part.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Status {
    Nonbasic,
    Basic,
    Key,
    /// Stays at zero from now on: anything else would worsen an objective that was already reached.
    Barred,
}

/// What a stage reached.
#[derive(Clone, Debug)]
pub(super) struct Optimum {
    /// No point has a lower objective: by weak duality from `prices`, whatever the steps were that led here.
    pub(super) bound: f64,
    /// What one more unit of each row would save. Not negative, except in a row that an earlier stage needs full.
    pub(super) prices: Vec<f64>,
}

/// A vertex of the program, with the means to walk to better ones.
#[derive(Clone, Debug)]
pub(super) struct Simplex<'a> {
    program: &'a Program,
    /// The key option of each group.
    keys: Vec<usize>,
    /// The values of the keys.
    key_values: Vec<f64>,
    status: Vec<Status>,
    barred_slacks: Vec<bool>,
    basis: Vec<Basic>,
    values: Vec<f64>,
    /// Inverse of the working basis, a row for each basic variable.
    inverse: Vec<f64>,
    changes: usize,
    /// The largest cost of the stage.
    scale: f64,
    scratch: Scratch,
}

#[derive(Clone, Debug, Default)]
struct Scratch {
    /// Change of the basic variables for one unit of the entering one, negated.
    direction: Vec<f64>,
    /// Change of each key, where the group is listed in `touched`.
    rates: Vec<f64>,
    touched: Vec<usize>,
}

/// Who stops an entering variable.
#[derive(Clone, Copy, Debug)]
enum Leaving {
    Basic(usize),
    Key(usize),
}

impl<'a> Simplex<'a> {
    /// Begins where each group is whole in one option; all rows must hold there.
    pub(super) fn new(program: &'a Program, keys: Vec<usize>) -> Self {
        let rows = program.rows();
        let mut status = vec![Status::Nonbasic; program.options()];
        for &key in &keys {
            status[key] = Status::Key;
        }
        let mut simplex = Self {
            program,
            key_values: vec![1.0; keys.len()],
            keys,
            status,
            barred_slacks: vec![false; rows],
            basis: (0..rows).map(Basic::Slack).collect(),
            values: vec![0.0; rows],
            inverse: vec![0.0; rows * rows],
            changes: 0,
            scale: 0.0,
            scratch: Scratch {
                direction: vec![0.0; rows],
                rates: vec![0.0; program.groups()],
                touched: Vec::new(),
            },
        };
        simplex.refactor();
        simplex
    }

    /// The value of each option.
    pub(super) fn values(&self) -> Vec<f64> {
        let mut values = vec![0.0; self.program.options()];
        for (group, &key) in self.keys.iter().enumerate() {
            values[key] = self.key_values[group].clamp(0.0, 1.0);
        }
        for (&basic, &value) in self.basis.iter().zip(&self.values) {
            if let Basic::Option(option) = basic {
                values[option] = value.clamp(0.0, 1.0);
            }
        }
        values
    }

    /// Walks to a vertex of least cost among those that stages before left open, and bars whatever would worsen it.
    pub(super) fn minimise(&mut self, costs: &[f64]) -> Optimum {
        let program = self.program;
        self.scale = costs
            .iter()
            .fold(0.0_f64, |most, cost| most.max(cost.abs()));
        let limit = 1_000 + 20 * (program.groups() + program.rows());
        let bland_after = 50 + program.rows();
        let mut y = self.duals(costs);
        let mut at = 0;
        let mut degenerate = 0;
        for _ in 0..limit {
            let bland = degenerate > bland_after;
            let Some((entering, reduced)) = self.entering(costs, &y, &mut at, bland) else {
                if self.changes == 0 {
                    break;
                }
                // Optimal as far as an aged inverse can tell: ask again with a new one.
                self.refactor();
                y = self.duals(costs);
                continue;
            };
            let Some(step) = self.advance(entering, bland) else {
                break;
            };
            degenerate = if step.length > DEGENERATE {
                0
            } else {
                degenerate + 1
            };
            if let Some(position) = step.pivot {
                let rows = program.rows();
                for (y, a) in y.iter_mut().zip(&self.inverse[position * rows..][..rows]) {
                    *y += reduced * a;
                }
            }
            if self.changes >= REFACTOR_EVERY {
                self.refactor();
                y = self.duals(costs);
            }
        }
        self.optimum(costs, y)
    }

    /// `c_B B⁻¹`: what one more unit of each row costs; not positive at an optimum.
    fn duals(&self, costs: &[f64]) -> Vec<f64> {
        let rows = self.program.rows();
        let mut y = vec![0.0; rows];
        for (position, &basic) in self.basis.iter().enumerate() {
            let Basic::Option(option) = basic else {
                continue;
            };
            let cost = costs[option] - costs[self.keys[self.program.group_of(option)]];
            if cost != 0.0 {
                for (y, a) in y.iter_mut().zip(&self.inverse[position * rows..][..rows]) {
                    *y += cost * a;
                }
            }
        }
        y
    }

    /// A variable whose increase lowers the cost, and its reduced cost.
    fn entering(
        &self,
        costs: &[f64],
        y: &[f64],
        at: &mut usize,
        bland: bool,
    ) -> Option<(Basic, f64)> {
        let mut best: Option<(Basic, f64)> = None;
        for (row, &price) in y.iter().enumerate() {
            let better = best.is_none_or(|(_, least)| -price < least);
            if price > self.scale * COST_TOLERANCE && !self.barred_slacks[row] && better {
                best = Some((Basic::Slack(row), -price));
                if bland {
                    return best;
                }
            }
        }
        let groups = self.program.groups();
        if bland {
            *at = 0;
        }
        for seen in 0..groups {
            if best.is_some() && (bland || seen % PRICED_AT_ONCE == 0) {
                return best;
            }
            let group = *at;
            *at = if group + 1 == groups { 0 } else { group + 1 };
            let key = self.keys[group];
            let worth = costs[key] - self.program.dot(y, key);
            for option in self.program.options_of(group) {
                let reduced = costs[option] - self.program.dot(y, option) - worth;
                if reduced < best.map_or(0.0, |(_, least)| least)
                    && self.status[option] == Status::Nonbasic
                    && reduced < -self.noise(costs, y, option)
                {
                    best = Some((Basic::Option(option), reduced));
                    if bland {
                        return best;
                    }
                }
            }
        }
        best
    }

    /// How much of a reduced cost may be rounding.
    fn noise(&self, costs: &[f64], y: &[f64], option: usize) -> f64 {
        let size = |option: usize| {
            let column = self.program.column(option);
            let terms = column.iter().map(|&(row, a)| (y[row] * a).abs());
            costs[option].abs() + terms.sum::<f64>()
        };
        COST_TOLERANCE * (size(option) + size(self.keys[self.program.group_of(option)]))
    }

    /// Lets a variable grow until another stops it, which takes its place in the basis.
    fn advance(&mut self, entering: Basic, bland: bool) -> Option<Step> {
        self.direct(entering);
        let (leaving, length) = self.leaving(bland)?;
        for (value, along) in self.values.iter_mut().zip(&self.scratch.direction) {
            *value -= length * along;
        }
        for &group in &self.scratch.touched {
            self.key_values[group] += length * self.scratch.rates[group];
        }
        let pivot = match leaving {
            Leaving::Basic(position) => {
                self.replace(position, entering, length);
                Some(position)
            }
            Leaving::Key(group) => self.replace_key(group, entering, length),
        };
        Some(Step { length, pivot })
    }

    /// Fills the scratch with how everything basic moves for one unit of a variable.
    fn direct(&mut self, entering: Basic) {
        let program = self.program;
        let rows = program.rows();
        let direction = &mut self.scratch.direction;
        direction.fill(0.0);
        let mut add = |row: usize, a: f64| {
            for (position, along) in direction.iter_mut().enumerate() {
                *along += a * self.inverse[position * rows + row];
            }
        };
        for group in self.scratch.touched.drain(..) {
            self.scratch.rates[group] = 0.0;
        }
        match entering {
            Basic::Slack(row) => add(row, 1.0),
            Basic::Option(option) => {
                let group = program.group_of(option);
                program
                    .column(option)
                    .iter()
                    .for_each(|&(row, a)| add(row, a));
                let key = program.column(self.keys[group]);
                key.iter().for_each(|&(row, a)| add(row, -a));
                self.scratch.rates[group] = -1.0;
                self.scratch.touched.push(group);
            }
        }
        for (position, &basic) in self.basis.iter().enumerate() {
            let Basic::Option(option) = basic else {
                continue;
            };
            let group = program.group_of(option);
            if !self.scratch.touched.contains(&group) {
                self.scratch.touched.push(group);
            }
            self.scratch.rates[group] += self.scratch.direction[position];
        }
    }

    /// Who reaches zero first. Among those that do so at about the same time, the one with the largest pivot; by
    /// Bland's rule, the one with the lowest index.
    fn leaving(&self, bland: bool) -> Option<(Leaving, f64)> {
        let basics = self.scratch.direction.iter().enumerate();
        let basics = basics.map(|(at, &along)| (Leaving::Basic(at), self.values[at], along));
        let keys = self.scratch.touched.iter();
        let keys = keys.map(|&group| {
            let rate = self.scratch.rates[group];
            (Leaving::Key(group), self.key_values[group], -rate)
        });
        let falling = basics
            .chain(keys)
            .filter(|&(_, _, along)| along > SMALLEST_PIVOT)
            .map(|(leaving, value, along)| (leaving, value.max(0.0), along));
        let reach = falling
            .clone()
            .map(|(_, value, along)| (value + SLIP) / along)
            .min_by(f64::total_cmp)?;
        let first = falling.filter(|&(_, value, along)| value / along <= reach);
        let (leaving, value, along) = match bland {
            true => first.min_by_key(|&(leaving, _, _)| self.index(leaving))?,
            false => first.max_by(|a, b| {
                let by_index = || self.index(b.0).cmp(&self.index(a.0));
                a.2.total_cmp(&b.2).then_with(by_index)
            })?,
        };
        Some((leaving, value / along))
    }

    fn index(&self, leaving: Leaving) -> Basic {
        match leaving {
            Leaving::Basic(position) => self.basis[position],
            Leaving::Key(group) => Basic::Option(self.keys[group]),
        }
    }

    /// Puts a variable in the place of a basic one. The direction must be the entering variable's.
    fn replace(&mut self, position: usize, entering: Basic, value: f64) {
        if let Basic::Option(option) = self.basis[position] {
            self.status[option] = Status::Nonbasic;
        }
        if let Basic::Option(option) = entering {
            self.status[option] = Status::Basic;
        }
        self.basis[position] = entering;
        self.values[position] = value;
        self.pivot(position);
    }

    /// Takes the key of a group out of the basis. Another basic option of the group becomes its key, and the
    /// entering variable takes that one's place; without another the entering option, which then is of this group,
    /// becomes the key and the matrix stays as it is.
    fn replace_key(&mut self, group: usize, entering: Basic, value: f64) -> Option<usize> {
        let program = self.program;
        let of_group = |basic: &Basic| match basic {
            Basic::Option(option) => program.group_of(*option) == group,
            Basic::Slack(_) => false,
        };
        let members: Vec<usize> = (0..self.basis.len())
            .filter(|&position| of_group(&self.basis[position]))
            .collect();
        let by_value =
            |&a: &usize, &b: &usize| self.values[a].total_cmp(&self.values[b]).then(b.cmp(&a));
        self.status[self.keys[group]] = Status::Nonbasic;
        let Some(heir) = members.iter().copied().max_by(by_value) else {
            if let Basic::Option(option) = entering {
                self.keys[group] = option;
                self.status[option] = Status::Key;
                self.key_values[group] = value;
            }
            return None;
        };
        let Basic::Option(key) = self.basis[heir] else {
            return None;
        };
        let rows = program.rows();
        // With the heir as key, its own column turns into minus the old key's and is taken off its siblings'.
        for row in 0..rows {
            let sum: f64 = members
                .iter()
                .map(|&at| self.inverse[at * rows + row])
                .sum();
            self.inverse[heir * rows + row] = -sum;
        }
        self.scratch.direction[heir] = -self.scratch.rates[group];
        self.keys[group] = key;
        self.status[key] = Status::Key;
        self.key_values[group] = self.values[heir];
        if let Basic::Option(option) = entering {
            self.status[option] = Status::Basic;
        }
        self.basis[heir] = entering;
        self.values[heir] = value;
        self.pivot(heir);
        Some(heir)
    }

    /// Makes the inverse that of the basis with the direction's column at `position`.
    fn pivot(&mut self, position: usize) {
        let rows = self.program.rows();
        let pivot = self.scratch.direction[position];
        let (before, rest) = self.inverse.split_at_mut(position * rows);
        let (own, after) = rest.split_at_mut(rows);
        for a in own.iter_mut() {
            *a /= pivot;
        }
        let others = before
            .chunks_exact_mut(rows)
            .chain(after.chunks_exact_mut(rows));
        let along = self.scratch.direction.iter().enumerate();
        let along = along
            .filter(|&(at, _)| at != position)
            .map(|(_, &along)| along);
        for (other, along) in others.zip(along).filter(|&(_, along)| along != 0.0) {
            for (a, own) in other.iter_mut().zip(own.iter()) {
                *a -= along * own;
            }
        }
        self.changes += 1;
    }

    /// Makes the inverse and all values anew from the basis. A basis that lost its rank to rounding is mended with
    /// slacks.
    fn refactor(&mut self) {
        let program = self.program;
        let rows = program.rows();
        let mut basic: Vec<usize> = Vec::new();
        let mut free = vec![true; rows];
        for &member in &self.basis {
            match member {
                Basic::Slack(row) => free[row] = false,
                Basic::Option(option) => basic.push(option),
            }
        }
        self.inverse.fill(0.0);
        for row in 0..rows {
            self.inverse[row * rows + row] = 1.0;
            self.basis[row] = Basic::Slack(row);
        }
        for option in basic {
            self.direct_column(option);
            let size = |&row: &usize| self.scratch.direction[row].abs();
            let largest = |&a: &usize, &b: &usize| size(&a).total_cmp(&size(&b)).then(b.cmp(&a));
            let row = (0..rows).filter(|&row| free[row]).max_by(largest);
            match row.filter(|row| size(row) > SMALLEST_PIVOT) {
                Some(row) => {
                    free[row] = false;
                    self.basis[row] = Basic::Option(option);
                    self.pivot(row);
                }
                None => self.status[option] = Status::Nonbasic,
            }
        }
        self.revalue();
        self.changes = 0;
    }

    /// The direction of a column before the values count.
    fn direct_column(&mut self, option: usize) {
        let program = self.program;
        let rows = program.rows();
        self.scratch.direction.fill(0.0);
        let key = program.column(self.keys[program.group_of(option)]);
        let own = program.column(option).iter().copied();
        for (row, a) in own.chain(key.iter().map(|&(row, a)| (row, -a))) {
            for (position, along) in self.scratch.direction.iter_mut().enumerate() {
                *along += a * self.inverse[position * rows + row];
            }
        }
    }

    /// Values of the basic variables, from the rows.
    fn revalue(&mut self) {
        let program = self.program;
        let rows = program.rows();
        let mut rest = program.capacity().to_vec();
        for &key in &self.keys {
            for &(row, a) in program.column(key) {
                rest[row] -= a;
            }
        }
        self.key_values.fill(1.0);
        for (position, &basic) in self.basis.iter().enumerate() {
            let inverse = &self.inverse[position * rows..][..rows];
            let value: f64 = inverse.iter().zip(&rest).map(|(a, b)| a * b).sum();
            self.values[position] = value;
            if let Basic::Option(option) = basic {
                self.key_values[program.group_of(option)] -= value;
            }
        }
    }

    /// Reads the optimum off, and bars what would worsen it.
    fn optimum(&mut self, costs: &[f64], y: Vec<f64>) -> Optimum {
        let program = self.program;
        let mut bound = 0.0;
        let mut y = y;
        for (row, y) in y.iter_mut().enumerate() {
            let spare = self.basis.contains(&Basic::Slack(row));
            let wrong = *y > 0.0 && !self.barred_slacks[row];
            if spare || wrong || y.abs() <= COST_TOLERANCE * self.scale {
                *y = 0.0;
            }
            bound += *y * program.capacity()[row];
            if *y < 0.0 {
                self.barred_slacks[row] = true;
            }
        }
        for group in 0..program.groups() {
            let worth = costs[self.keys[group]] - program.dot(&y, self.keys[group]);
            let mut least = f64::INFINITY;
            for option in program.options_of(group) {
                if self.status[option] == Status::Barred {
                    continue;
                }
                let net = costs[option] - program.dot(&y, option);
                least = least.min(net);
                let worsens = net - worth > self.noise(costs, &y, option);
                if self.status[option] == Status::Nonbasic && worsens {
                    self.status[option] = Status::Barred;
                }
            }
            bound += least;
        }
        let prices = y.into_iter().map(|y| 0.0 - y).collect();
        Optimum { bound, prices }
    }
}

/// One step of the walk.
#[derive(Clone, Copy, Debug)]
struct Step {
    /// How far the entering variable grew.
    length: f64,
    /// Where it entered the working basis; `None` where only a key changed.
    pivot: Option<usize>,
}
