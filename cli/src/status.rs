//! `leeward status`: what matters most now.

use std::fmt::Write;

use leeward_common::api::v1::{Overview, State};

use crate::{
    args::Cli,
    client::Client,
    exit::{Exit, Failure},
    output::{Output, Tone},
    table::Table,
    words,
};

/// Runs `leeward status`.
///
/// # Errors
///
/// Returns why there is no answer.
pub fn run(cli: &Cli, out: &Output) -> Result<Exit, Failure> {
    let overview: Overview = Client::new(&cli.global)?.ask("/v1/overview")?;
    out.one(&overview, |out| text(out, &overview))?;
    Ok(out.verdict(overview.state == State::Ok && !overview.stale))
}

fn text(out: &Output, overview: &Overview) -> String {
    let tone = if overview.state == State::Ok {
        Tone::Strong
    } else {
        words::tone(overview.state)
    };
    let headline = out.paint(
        tone,
        &format!("{} {}", words::mark(overview.state), overview.summary),
    );
    let time = words::time_of_day(overview.evaluated_at);
    let age = match overview.data_age_ms {
        Some(ms) => format!("data {} old", words::age(Some(ms))),
        None => "no data yet".to_owned(),
    };
    let mut text = format!(
        "{headline}      {}\n",
        out.paint(Tone::Quiet, &format!("{time} UTC, {age}"))
    );
    if !overview.facts.is_empty() {
        text.push('\n');
    }
    for fact in &overview.facts {
        let _ = writeln!(text, "  {:<6}  {}", fact.label, fact.text);
    }
    if !overview.failovers.is_empty() {
        text.push('\n');
        text.push_str(&indented(&failovers(overview).render(out, false)));
    }
    let counts = &overview.counts;
    let silent = counts.agents.saturating_sub(counts.agents_counted);
    text.push('\n');
    for (count, noun, parts) in [
        (
            counts.regions,
            "region",
            [
                (counts.regions_down, "down"),
                (counts.regions_unknown, "unknown"),
            ],
        ),
        (
            counts.agents,
            "agent",
            [(counts.agents_counted, "counted"), (silent, "not counted")],
        ),
        (
            counts.links,
            "link",
            [(counts.links_troubled, "in trouble"), (0, "")],
        ),
        (counts.faults, "fault", [(0, ""), (0, "")]),
        (counts.signals, "signal", [(0, ""), (0, "")]),
    ] {
        let line = format!(
            "  {:<12}{}",
            words::plural(count.into(), noun),
            self::parts(&parts)
        );
        let _ = writeln!(text, "{}", line.trim_end());
    }
    let audit = &overview.audit;
    if audit.sequence > 0 {
        let _ = writeln!(
            text,
            "  audit       entry {}, {}",
            audit.sequence, audit.hash
        );
    }
    let _ = writeln!(text, "\n  next: {}", next(overview));
    text
}

fn failovers(overview: &Overview) -> Table {
    let mut table = Table::new()
        .left("primary")
        .left("goes to")
        .left("next best")
        .right("margin")
        .left("why");
    for line in &overview.failovers {
        table.row(vec![
            line.primary_region.as_str().into(),
            crate::table::Cell::new(
                words::tone(line.state),
                line.selected_region
                    .as_ref()
                    .map_or("none", |region| region.as_str()),
            ),
            line.next_best
                .as_ref()
                .map_or("none", |region| region.as_str())
                .into(),
            line.margin
                .map_or_else(|| "?".to_owned(), |margin| format!("×{margin:.2}"))
                .into(),
            line.summary.as_str().into(),
        ]);
    }
    table
}

fn parts(parts: &[(u32, &str)]) -> String {
    let parts: Vec<String> = parts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, noun)| format!("{count} {noun}"))
        .collect();
    parts.join("   ")
}

fn next(overview: &Overview) -> String {
    if overview.counts.agents == 0 {
        return "leeward pki issue agent --help     leeward agent ls".to_owned();
    }
    if overview.counts.faults > 0 || overview.fail_static.is_some() {
        return "leeward faults     leeward graph matrix".to_owned();
    }
    let worst = overview
        .failovers
        .iter()
        .max_by_key(|line| line.state != State::Ok);
    match worst {
        Some(line) => format!(
            "leeward failover explain {}     leeward graph matrix",
            line.primary_region
        ),
        None => "leeward graph matrix     leeward region ls".to_owned(),
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}
