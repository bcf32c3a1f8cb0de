//! A linear program whose variables come in groups that each add up to one: every demand is a group, its options are
//! the regions that may serve it and "unserved", and the rows are the capacities.
//!
//! ```text
//!   minimise   Σ cost(o) x(o)          over options o, x ≥ 0
//!   subject to Σ x(o) = 1              for each group
//!              Σ a(i, o) x(o) ≤ b(i)   for each row
//! ```

/// Groups, options and rows. Options of a group stand next to each other.
#[derive(Clone, Debug, Default)]
pub(super) struct Program {
    /// First option of each group, and the end of the last.
    starts: Vec<usize>,
    /// Group of each option.
    group: Vec<usize>,
    /// First entry of each option, and the end of the last.
    columns: Vec<usize>,
    /// Row and coefficient, above 0.
    entries: Vec<(usize, f64)>,
    /// Right-hand sides, not negative.
    capacity: Vec<f64>,
}

impl Program {
    /// A program with these right-hand sides and no group.
    pub(super) fn new(capacity: Vec<f64>) -> Self {
        Self {
            starts: vec![0],
            group: Vec::new(),
            columns: vec![0],
            entries: Vec::new(),
            capacity,
        }
    }

    /// Adds an option to the group that is being made.
    pub(super) fn push_option(&mut self, entries: impl IntoIterator<Item = (usize, f64)>) {
        self.entries.extend(entries);
        self.columns.push(self.entries.len());
        self.group.push(self.starts.len() - 1);
    }

    /// Ends the group that is being made.
    pub(super) fn end_group(&mut self) {
        self.starts.push(self.group.len());
    }

    /// The right-hand sides.
    pub(super) fn capacity(&self) -> &[f64] {
        &self.capacity
    }

    /// How many groups.
    pub(super) fn groups(&self) -> usize {
        self.starts.len() - 1
    }

    /// How many options.
    pub(super) fn options(&self) -> usize {
        self.group.len()
    }

    /// How many rows.
    pub(super) fn rows(&self) -> usize {
        self.capacity.len()
    }

    /// The options of a group.
    pub(super) fn options_of(&self, group: usize) -> std::ops::Range<usize> {
        self.starts[group]..self.starts[group + 1]
    }

    /// The group of an option.
    pub(super) fn group_of(&self, option: usize) -> usize {
        self.group[option]
    }

    /// What an option takes of which rows.
    pub(super) fn column(&self, option: usize) -> &[(usize, f64)] {
        &self.entries[self.columns[option]..self.columns[option + 1]]
    }

    /// An option's part in these prices of the rows.
    pub(super) fn dot(&self, y: &[f64], option: usize) -> f64 {
        let column = self.column(option);
        column.iter().map(|&(row, a)| y[row] * a).sum()
    }
}
