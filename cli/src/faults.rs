//! `leeward faults`: what is at fault, who sees it, and whose view does not count.

use std::fmt::Write;

use leeward_common::api::v1::{FaultKind, Faults, LocatedFault, State};

use crate::{
    args::Cli,
    client::Client,
    exit::{Exit, Failure},
    output::{Output, Tone},
    table::{Cell, Table},
    words,
};

/// Runs `leeward faults`.
///
/// # Errors
///
/// Returns why there is no answer.
pub fn run(cli: &Cli, out: &Output) -> Result<Exit, Failure> {
    let faults: Faults = Client::new(&cli.global)?.ask("/v1/faults")?;
    out.list(
        &faults,
        &faults.faults,
        &head(out, &faults),
        &table(&faults),
    )?;
    if faults.faults.is_empty() {
        out.talk("nothing is at fault, as far as it can be told");
    }
    Ok(match faults.state {
        State::Pending => Exit::NotEnoughKnown,
        _ => out.verdict(faults.faults.is_empty() && faults.fail_static.is_none() && !faults.stale),
    })
}

fn head(out: &Output, faults: &Faults) -> String {
    let sentence = format!("{} {}", words::mark(faults.state), faults.summary);
    let mut text = format!("{}\n\n", out.paint(words::tone(faults.state), &sentence));
    let mut line = |label: &str, value: String| {
        let _ = writeln!(text, "  {label:<11}  {value}");
    };
    if let Some(cut_off) = &faults.fail_static {
        let since = words::time_of_day(cut_off.since);
        line(
            "fail static",
            format!("since {since} UTC: {}", cut_off.detail),
        );
    }
    let all = u64::from(faults.agents_counted) + faults.not_counted.len() as u64;
    let counted = format!(
        "{} of {}",
        faults.agents_counted,
        words::plural(all, "agent")
    );
    line("counted", counted);
    for agent in &faults.not_counted {
        let since = agent.since.map_or_else(String::new, |since| {
            format!(", since {} UTC", words::time_of_day(since))
        });
        let (id, region, detail) = (&agent.agent_id, &agent.region_id, &agent.detail);
        line("not counted", format!("{id} in {region}: {detail}{since}"));
    }
    text.push('\n');
    text
}

fn table(faults: &Faults) -> Table {
    let mut table = Table::new()
        .left("where")
        .left("what")
        .left("kind")
        .right("lost")
        .right("seen by")
        .left("since")
        .left("why");
    for fault in &faults.faults {
        table.row(row(fault));
    }
    table
}

fn row(fault: &LocatedFault) -> Vec<Cell> {
    let agent = fault.agent_id.as_ref().map(ToString::to_string);
    let target = fault.target_id.as_ref().map(ToString::to_string);
    let link = fault.to_region_id.as_ref();
    let link = link.map(|to| format!("{} - {to}", fault.region_id));
    let place = agent.or(target).or(link);
    let (kind, tone) = match fault.kind {
        FaultKind::Total => ("total", Tone::Bad),
        FaultKind::Grey => ("grey", Tone::Warn),
    };
    vec![
        place.unwrap_or_else(|| fault.region_id.to_string()).into(),
        fault.place.as_str().into(),
        Cell::new(tone, kind),
        words::percent(fault.loss_ratio).into(),
        format!("{} of {}", fault.seen_by, fault.observers).into(),
        words::date_time(fault.since).into(),
        fault.detail.as_str().into(),
    ]
}
