//! Tables: aligned for people, comma-separated for programs.

use crate::output::{Output, Tone};

/// A table.
#[derive(Clone, Debug, Default)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

#[derive(Clone, Debug)]
struct Column {
    name: &'static str,
    align: Align,
    wide: bool,
}

/// On which side a column's texts meet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// One text of a table.
#[derive(Clone, Debug, Default)]
pub struct Cell {
    text: String,
    tone: Tone,
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self {
            text: text.into(),
            tone: Tone::Plain,
        }
    }
}

impl Cell {
    /// A text with a tone.
    pub fn new(tone: Tone, text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            tone,
        }
    }
}

impl Table {
    /// A table without columns.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a column of words.
    #[must_use]
    pub fn left(self, name: &'static str) -> Self {
        self.column(name, Align::Left, false)
    }

    /// Adds a column of numbers.
    #[must_use]
    pub fn right(self, name: &'static str) -> Self {
        self.column(name, Align::Right, false)
    }

    /// Adds a column that only wide tables and csv have.
    #[must_use]
    pub fn wide(self, name: &'static str, align: Align) -> Self {
        self.column(name, align, true)
    }

    fn column(mut self, name: &'static str, align: Align, wide: bool) -> Self {
        self.columns.push(Column { name, align, wide });
        self
    }

    /// Adds a row; it has one cell per column.
    pub fn row(&mut self, cells: Vec<Cell>) {
        debug_assert_eq!(cells.len(), self.columns.len());
        self.rows.push(cells);
    }

    /// Whether there is no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// For people: columns aligned, two blanks apart, no blanks at the end of a line.
    #[must_use]
    pub fn render(&self, out: &Output, wide: bool) -> String {
        let shown: Vec<usize> = (0..self.columns.len())
            .filter(|&at| wide || !self.columns[at].wide)
            .collect();
        let width = |at: usize| {
            let cells = self.rows.iter().map(|row| row[at].text.chars().count());
            cells
                .chain([self.columns[at].name.len()])
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = shown.iter().map(|&at| width(at)).collect();
        let mut text = String::new();
        let mut push = |cells: Vec<(&str, Tone)>| {
            let mut line = String::new();
            for (index, (cell, tone)) in cells.iter().enumerate() {
                let blanks = " ".repeat(widths[index].saturating_sub(cell.chars().count()));
                let cell = out.paint(*tone, cell);
                match self.columns[shown[index]].align {
                    Align::Left => line.push_str(&format!("{cell}{blanks}")),
                    Align::Right => line.push_str(&format!("{blanks}{cell}")),
                }
                line.push_str("  ");
            }
            text.push_str(line.trim_end());
            text.push('\n');
        };
        let heads: Vec<String> = shown
            .iter()
            .map(|&at| self.columns[at].name.to_uppercase())
            .collect();
        push(
            heads
                .iter()
                .map(|head| (head.as_str(), Tone::Quiet))
                .collect(),
        );
        for row in &self.rows {
            push(
                shown
                    .iter()
                    .map(|&at| (row[at].text.as_str(), row[at].tone))
                    .collect(),
            );
        }
        text
    }

    /// RFC 4180 with a header; all columns.
    #[must_use]
    pub fn csv(&self) -> String {
        let mut text = String::new();
        let mut push = |cells: Vec<&str>| {
            let cells: Vec<String> = cells.into_iter().map(quoted).collect();
            text.push_str(&cells.join(","));
            text.push('\n');
        };
        push(self.columns.iter().map(|column| column.name).collect());
        for row in &self.rows {
            push(row.iter().map(|cell| cell.text.as_str()).collect());
        }
        text
    }

    /// The cells of the first column that is called `region`, `agent`, `id` or the like: the first column of words.
    #[must_use]
    pub fn names(&self) -> String {
        let name = self
            .columns
            .iter()
            .position(|column| column.align == Align::Left)
            .unwrap_or(0);
        self.rows
            .iter()
            .map(|row| format!("{}\n", row[name].text))
            .collect()
    }
}

/// A table whose columns are only known at run time: `names` head the columns of numbers, `label` the first.
#[must_use]
pub fn grid(out: &Output, label: &str, names: &[&str], rows: &[(String, Vec<Cell>)]) -> String {
    let first = rows
        .iter()
        .map(|(name, _)| name.chars().count())
        .chain([label.len()])
        .max()
        .unwrap_or(0);
    let widths: Vec<usize> = names
        .iter()
        .enumerate()
        .map(|(at, name)| {
            let cells = rows
                .iter()
                .filter_map(|(_, cells)| cells.get(at))
                .map(|cell| cell.text.chars().count());
            cells.chain([name.len()]).max().unwrap_or(0)
        })
        .collect();
    let mut text = format!("  {}", out.paint(Tone::Quiet, &format!("{label:<first$}")));
    for (name, width) in names.iter().zip(&widths) {
        text.push_str(&out.paint(Tone::Quiet, &format!("  {name:>width$}")));
    }
    text.push('\n');
    for (name, cells) in rows {
        text.push_str(&format!("  {name:<first$}"));
        for (cell, width) in cells.iter().zip(&widths) {
            let blanks = " ".repeat(width.saturating_sub(cell.text.chars().count()));
            text.push_str(&format!("  {blanks}{}", out.paint(cell.tone, &cell.text)));
        }
        text.push('\n');
    }
    text
}

fn quoted(cell: &str) -> String {
    if cell.contains([',', '"', '\n', '\r']) {
        return format!("\"{}\"", cell.replace('"', "\"\""));
    }
    cell.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new()
            .left("region")
            .right("rtt")
            .wide("why", Align::Left);
        table.row(vec!["iad".into(), "71.7 ms".into(), "far, \"very\"".into()]);
        table.row(vec!["frankfurt".into(), "5 ms".into(), "".into()]);
        table
    }

    #[test]
    fn csv_has_every_column_and_quotes_what_needs_it() {
        assert_eq!(
            table().csv(),
            "region,rtt,why\niad,71.7 ms,\"far, \"\"very\"\"\"\nfrankfurt,5 ms,\n"
        );
    }

    #[test]
    fn names_are_the_first_words() {
        assert_eq!(table().names(), "iad\nfrankfurt\n");
    }
}
