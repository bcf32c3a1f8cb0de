//! `leeward graph matrix`: every link at a glance, row to column. `leeward graph routes` is in [`crate::route`].

use std::collections::BTreeMap;

use leeward_common::{
    api::v1::{Edge, Graph, Measured, State},
    id::RegionId,
};

use crate::{
    args::{By, Cli, Format, GraphCommand},
    client::Client,
    exit::{Exit, Failure},
    output::{Output, Tone},
    route,
    table::{Align, Table},
    words,
};

/// Runs `leeward graph …`.
///
/// # Errors
///
/// Returns why there is no answer.
pub fn run(cli: &Cli, out: &Output, command: &GraphCommand) -> Result<Exit, Failure> {
    let by = match command {
        GraphCommand::Matrix { by } => by,
        GraphCommand::Routes { from, to } => {
            return route::run(cli, out, from.as_ref(), to.as_ref());
        }
    };
    let graph: Graph = Client::new(&cli.global)?.ask("/v1/graph")?;
    match out.format {
        Format::Table | Format::Wide => out.text(&matrix(out, &graph, *by))?,
        _ => out.list(&graph, &graph.edges, "", &edges(&graph))?,
    }
    let good = graph.edges.iter().all(|edge| edge.state == State::Ok);
    Ok(out.verdict(good))
}

/// One row per link, for csv and names.
fn edges(graph: &Graph) -> Table {
    let mut table = Table::new()
        .left("from")
        .left("to")
        .left("state")
        .right("latency_us")
        .right("latency_p99_us")
        .right("jitter_us")
        .right("packet_loss")
        .right("weight")
        .right("age_ms")
        .wide("vantage_points", Align::Right);
    let number = |value: Option<f64>| value.map_or_else(String::new, |value| value.to_string());
    for edge in &graph.edges {
        table.row(vec![
            edge.from.as_str().into(),
            edge.to.as_str().into(),
            edge.state.as_str().into(),
            number(edge.latency_us.value).into(),
            number(edge.latency_p99_us.value).into(),
            number(edge.jitter_us.value).into(),
            number(edge.packet_loss.value).into(),
            number(edge.weight).into(),
            edge.packet_loss
                .age_ms
                .map_or_else(String::new, |age| age.to_string())
                .into(),
            edge.vantage_points.to_string().into(),
        ]);
    }
    table
}

fn matrix(out: &Output, graph: &Graph, by: By) -> String {
    let edges: BTreeMap<(&RegionId, &RegionId), &Edge> = graph
        .edges
        .iter()
        .map(|edge| ((&edge.from, &edge.to), edge))
        .collect();
    let regions: Vec<&RegionId> = graph.nodes.iter().map(|node| &node.region_id).collect();
    let rows: Vec<Vec<(String, Tone)>> = regions
        .iter()
        .map(|from| {
            regions
                .iter()
                .map(|to| cell(from == to, edges.get(&(*from, *to)).copied(), by))
                .collect()
        })
        .collect();
    let first = regions
        .iter()
        .map(|region| region.as_str().len())
        .max()
        .unwrap_or(0)
        .max(4);
    let cells = rows.iter().flatten().map(|(text, _)| text.chars().count());
    let width = cells
        .chain(regions.iter().map(|region| region.as_str().len()))
        .max()
        .unwrap_or(0)
        + 2;
    let mut text = format!(" {:first$}", "");
    for region in &regions {
        text.push_str(&out.paint(Tone::Quiet, &format!("{:>width$}", region.as_str())));
    }
    text.push('\n');
    for (row, region) in rows.iter().zip(&regions) {
        text.push_str(&format!(" {:first$}", region.as_str()));
        for (cell, tone) in row {
            let blanks = " ".repeat(width.saturating_sub(cell.chars().count()));
            text.push_str(&format!("{blanks}{}", out.paint(*tone, cell)));
        }
        text.push('\n');
    }
    let time = words::time_of_day(graph.evaluated_at);
    text.push_str(&out.paint(
        Tone::Quiet,
        &format!(
            " {}, row to column; ▲ loss   ✕ nothing gets through   ? not known   {time} UTC\n",
            title(by)
        ),
    ));
    text
}

const fn title(by: By) -> &'static str {
    match by {
        By::Latency => "median round-trip time in ms",
        By::P99 => "99th percentile of the round-trip time in ms",
        By::Jitter => "99th percentile minus minimum of the round-trip time in ms",
        By::Loss => "packet loss in percent",
        By::Weight => "network weight, 0 to 1, higher is better",
    }
}

fn cell(diagonal: bool, edge: Option<&Edge>, by: By) -> (String, Tone) {
    if diagonal {
        return (".".to_owned(), Tone::Quiet);
    }
    let Some(edge) = edge.filter(|edge| edge.state != State::Unknown) else {
        return ("?".to_owned(), Tone::Warn);
    };
    if edge.state == State::Bad {
        return ("✕".to_owned(), Tone::Bad);
    }
    let number = match by {
        By::Latency => edge.latency_us.value.map(|us| us / 1_000.0),
        By::P99 => edge.latency_p99_us.value.map(|us| us / 1_000.0),
        By::Jitter => edge.jitter_us.value.map(|us| us / 1_000.0),
        By::Loss => edge.packet_loss.value.map(|ratio| ratio * 100.0),
        By::Weight => edge.weight,
    };
    let digits = if by == By::Weight { 2 } else { 1 };
    let number = number.map_or_else(|| "?".to_owned(), |number| format!("{number:.digits$}"));
    let mark = if edge.state == State::Degraded {
        "▲"
    } else {
        ""
    };
    (format!("{mark}{number}"), words::tone(edge.state))
}

/// A link on one line, for other commands.
pub(crate) fn line(out: &Output, edge: &Edge) -> String {
    let state = out.paint(words::tone(edge.state), edge.state.as_str());
    let ends = format!("{} to {}", edge.from, edge.to);
    let Some(age) = edge.packet_loss.age_ms else {
        return format!("{ends}   {state}   nothing was measured yet\n");
    };
    let age = words::age(Some(age));
    let time = |value: &Measured| {
        value
            .value
            .map_or_else(|| "?".to_owned(), words::milliseconds)
    };
    let figures = format!(
        "{} median   {} p99   jitter {}   loss {}",
        time(&edge.latency_us),
        time(&edge.latency_p99_us),
        time(&edge.jitter_us),
        words::with_bounds(&edge.packet_loss, words::percent),
    );
    if edge.state == State::Unknown {
        return format!("{ends}   {state}   {age} ago it was: {figures}\n");
    }
    let views = words::plural(edge.vantage_points.into(), "vantage point");
    format!("{ends}   {state}   {figures}   {age} old   {views}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_measured_is_a_question_mark() {
        assert_eq!(cell(false, None, By::Loss).0, "?");
        assert_eq!(cell(true, None, By::Loss).0, ".");
    }
}
