//! Figures: one JSON object per line for programs, a table for people.

use std::fmt::Write as _;

use serde::{Serialize, Serializer};

/// What a figure should be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// No more than this.
    AtMost(f64),
    /// No less than this.
    AtLeast(f64),
}

impl Target {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtMost(limit) => value <= limit,
            Self::AtLeast(limit) => value >= limit,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtMost(limit) => format!("<= {}", short(limit)),
            Self::AtLeast(limit) => format!(">= {}", short(limit)),
        }
    }
}

impl Serialize for Target {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text())
    }
}

/// One measured number.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    bench: &'static str,
    figure: String,
    /// `None` when it could not be measured here; the note on stderr says why.
    value: Option<f64>,
    unit: &'static str,
    /// Who did the same beside us.
    peer: Option<String>,
    peer_value: Option<f64>,
    target: Option<Target>,
    met: Option<bool>,
}

impl Figure {
    /// The same figure of a peer, measured in the same run and unit.
    #[must_use]
    pub fn beside(mut self, peer: impl Into<String>, value: f64) -> Self {
        (self.peer, self.peer_value) = (Some(peer.into()), Some(rounded(value)));
        self
    }

    /// What it should be.
    #[must_use]
    pub fn target(mut self, target: Target) -> Self {
        self.target = Some(target);
        self.met = self.value.map(|value| target.is_met(value));
        self
    }
}

/// The figures of one benchmark, in the order of the table.
#[derive(Debug)]
pub struct Figures {
    bench: &'static str,
    rows: Vec<Figure>,
}

impl Figures {
    /// None yet.
    #[must_use]
    pub const fn new(bench: &'static str) -> Self {
        Self {
            bench,
            rows: Vec::new(),
        }
    }

    /// A figure of this benchmark.
    #[must_use]
    pub fn figure(&self, figure: impl Into<String>, value: f64, unit: &'static str) -> Figure {
        Figure {
            bench: self.bench,
            figure: figure.into(),
            value: Some(rounded(value)),
            unit,
            peer: None,
            peer_value: None,
            target: None,
            met: None,
        }
    }

    /// A figure that cannot be measured here, with the reason on stderr.
    pub fn skip(&mut self, figure: impl Into<String>, unit: &'static str, why: &str) {
        let figure = Figure {
            value: None,
            ..self.figure(figure, 0.0, unit)
        };
        eprintln!("SKIPPED: {}: {}: {why}", self.bench, figure.figure);
        self.rows.push(figure);
    }

    /// Appends a row.
    pub fn push(&mut self, figure: Figure) {
        self.rows.push(figure);
    }

    /// Prints the figures: with `--json` among the program's arguments one object per line, else a table.
    pub fn print(&self) {
        if std::env::args().any(|argument| argument == "--json") {
            for row in &self.rows {
                println!("{}", serde_json::json!(row));
            }
            return;
        }
        print!("{}", self.table());
    }

    fn table(&self) -> String {
        let header =
            ["figure", "value", "unit", "peer", "peer's", "target", "met"].map(str::to_owned);
        let rows: Vec<_> = std::iter::once(header)
            .chain(self.rows.iter().map(cells))
            .collect();
        let widths: [usize; 7] = std::array::from_fn(|column| {
            rows.iter()
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or(0)
        });
        let mut table = format!("{}\n", self.bench);
        for row in rows {
            let mut line = String::new();
            for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
                // Numbers are aligned at their right, words at their left.
                let _ = match column {
                    1 | 4 => write!(line, "  {cell:>width$}"),
                    _ => write!(line, "  {cell:<width$}"),
                };
            }
            let _ = writeln!(table, "{}", line.trim_end());
        }
        table
    }
}

fn cells(row: &Figure) -> [String; 7] {
    let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), short);
    let met = match row.met {
        Some(true) => "yes",
        Some(false) => "NO",
        None => "",
    };
    [
        row.figure.clone(),
        number(row.value),
        row.unit.to_owned(),
        row.peer.clone().unwrap_or_default(),
        row.peer_value.map(short).unwrap_or_default(),
        row.target.map(Target::text).unwrap_or_default(),
        met.to_owned(),
    ]
}

/// Four significant digits: no benchmark here is better than that.
fn rounded(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let scale = 10f64.powi(3 - value.abs().log10().floor() as i32);
    (value * scale).round() / scale
}

fn short(value: f64) -> String {
    let rounded = rounded(value);
    let whole = format!("{rounded:.0}");
    if rounded.abs() < 1_000.0 {
        return format!("{rounded}");
    }
    let first = whole.len() % 3;
    whole
        .char_indices()
        .fold(String::new(), |mut text, (at, digit)| {
            if at > 0 && at % 3 == first && whole.as_bytes()[at - 1] != b'-' {
                text.push(',');
            }
            text.push(digit);
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (value, text) in [
            (0.0, "0"),
            (7.0, "7"),
            (0.012_345, "0.01235"),
            (12.3456, "12.35"),
            (1_234.0, "1,234"),
            (1_234_567.0, "1,235,000"),
            (999.96, "1,000"),
        ] {
            assert_eq!(short(value), text);
        }
    }

    #[test]
    fn a_figure_says_whether_it_met_its_target() {
        let figures = Figures::new("wire");
        let figure = figures
            .figure("bytes", 9.5, "B")
            .beside("other", 48.0)
            .target(Target::AtMost(10.0));
        assert_eq!(
            serde_json::json!(figure),
            serde_json::json!({"bench": "wire", "figure": "bytes", "value": 9.5, "unit": "B", "peer": "other",
                "peer_value": 48.0, "target": "<= 10", "met": true})
        );
        assert_eq!(
            figures
                .figure("rate", 0.6, "")
                .target(Target::AtLeast(0.7))
                .met,
            Some(false)
        );
    }

    #[test]
    fn the_table_is_aligned() {
        let mut figures = Figures::new("wire");
        figures.push(
            figures
                .figure("bytes per window", 9.5, "B")
                .target(Target::AtMost(10.0)),
        );
        let expected = "wire\n  figure            value  unit  peer  peer's  target  met\
            \n  bytes per window    9.5  B                   <= 10   yes\n";
        assert_eq!(figures.table(), expected);
    }
}
