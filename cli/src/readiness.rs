//! `leeward readiness`: a region that would fail a failover today is shown today.

use leeward_common::{
    api::v1::{Readiness, ReadinessState, Reason},
    id::{RegionId, ServiceId},
};

use crate::{
    args::Cli,
    client::Client,
    exit::{Exit, Failure},
    output::{Output, Tone},
    table::{Cell, Table},
    words,
};

/// Runs `leeward readiness`.
///
/// # Errors
///
/// Returns why there is no answer.
pub fn run(
    cli: &Cli,
    out: &Output,
    service: Option<&ServiceId>,
    region: Option<&RegionId>,
    history: Option<u32>,
) -> Result<Exit, Failure> {
    let mut query = format!("?history={}", history.unwrap_or(0));
    if let Some(service) = service {
        query.push_str(&format!("&service={service}"));
    }
    if let Some(region) = region {
        query.push_str(&format!("&region={region}"));
    }
    let path = format!("/v1/readiness{query}");
    let readiness: Readiness = Client::new(&cli.global)?.ask(&path)?;
    if history.is_some() {
        out.list(&readiness, &readiness.history, "", &changes(&readiness))?;
        return Ok(Exit::Done);
    }
    out.list(&readiness, &readiness.standings, "", &standings(&readiness))?;
    let mut all = readiness.standings.iter();
    Ok(out.verdict(all.all(|one| one.readiness == ReadinessState::Ready)))
}

fn standings(readiness: &Readiness) -> Table {
    let mut table = Table::new()
        .left("service")
        .left("region")
        .left("ready")
        .left("since")
        .left("why not");
    for one in &readiness.standings {
        table.row(vec![
            one.service_id.as_str().into(),
            one.region_id.as_str().into(),
            state(one.readiness),
            words::date_time(one.since).into(),
            details(&one.reasons).into(),
        ]);
    }
    table
}

fn changes(readiness: &Readiness) -> Table {
    let mut table = Table::new()
        .left("at")
        .left("service")
        .left("region")
        .left("before")
        .left("ready")
        .left("why not");
    for change in &readiness.history {
        table.row(vec![
            words::date_time(change.at).into(),
            change.service_id.as_str().into(),
            change.region_id.as_str().into(),
            change.before.map_or("-", word).into(),
            state(change.readiness),
            details(&change.reasons).into(),
        ]);
    }
    table
}

const fn word(state: ReadinessState) -> &'static str {
    match state {
        ReadinessState::Ready => "yes",
        ReadinessState::NotReady => "no",
        ReadinessState::Unknown => "unknown",
    }
}

fn state(state: ReadinessState) -> Cell {
    let tone = match state {
        ReadinessState::Ready => Tone::Plain,
        ReadinessState::NotReady => Tone::Bad,
        ReadinessState::Unknown => Tone::Warn,
    };
    Cell::new(tone, word(state))
}

fn details(reasons: &[Reason]) -> String {
    let details: Vec<&str> = reasons.iter().map(|reason| &*reason.detail).collect();
    details.join("; ")
}
