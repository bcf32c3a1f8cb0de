//! `leeward readiness`: a region that would fail a failover today is shown today.

use leeward_common::{
    api::v1::{CheckFinding, CheckStanding, CheckVantage, Readiness, ReadinessState, Reason},
    id::{RegionId, ServiceId},
};

use crate::{
    args::Cli,
    client::Client,
    exit::{Exit, Failure},
    output::{Output, Tone},
    table::{Align, Cell, Table},
    words,
};

/// What of it is shown.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Part {
    /// How things stand.
    Standings,
    /// What changed lately, at most so many.
    History(u32),
    /// What agents of other regions find.
    Checks,
}

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
    part: Part,
) -> Result<Exit, Failure> {
    let most = match part {
        Part::History(most) => most,
        Part::Standings | Part::Checks => 0,
    };
    let mut query = format!("?history={most}");
    if let Some(service) = service {
        query.push_str(&format!("&service={service}"));
    }
    if let Some(region) = region {
        query.push_str(&format!("&region={region}"));
    }
    let path = format!("/v1/readiness{query}");
    let readiness: Readiness = Client::new(&cli.global)?.ask(&path)?;
    if let Part::History(_) = part {
        out.list(&readiness, &readiness.history, "", &changes(&readiness))?;
        return Ok(Exit::Done);
    }
    if part == Part::Checks {
        let all = readiness.standings.iter().flat_map(|one| &one.checks);
        let findings: Vec<_> = all.collect();
        out.list(&readiness, &findings, "", &checks(&readiness))?;
        let pass = |one: &&CheckStanding| one.finding == CheckFinding::Passes;
        return Ok(out.verdict(findings.iter().all(pass)));
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

fn checks(readiness: &Readiness) -> Table {
    let mut table = Table::new()
        .left("service")
        .left("region")
        .left("check")
        .left("finding")
        .left("seen from")
        .wide("url", Align::Left);
    for one in &readiness.standings {
        for check in &one.checks {
            table.row(vec![
                one.service_id.as_str().into(),
                one.region_id.as_str().into(),
                check.check_id.as_str().into(),
                finding(check.finding),
                seen_from(check).into(),
                check.url.as_str().into(),
            ]);
        }
    }
    table
}

/// Who saw what, how fast and how long ago: `dub ok 12.3 ms, 4 s ago; fra timeout …`.
fn seen_from(check: &CheckStanding) -> String {
    let vantage = |own: &CheckVantage| {
        let what = match &*own.detail {
            "" => own.outcome.as_str(),
            detail => detail,
        };
        let latency = words::milliseconds(own.latency_us as f64);
        let age = words::age(Some(own.age_ms));
        let silent = if own.counts { "" } else { " (does not count)" };
        format!("{} {what}, {latency}, {age} ago{silent}", own.agent_id)
    };
    let all: Vec<_> = check.vantage_points.iter().map(vantage).collect();
    all.join("; ")
}

fn finding(finding: CheckFinding) -> Cell {
    let tone = match finding {
        CheckFinding::Passes => Tone::Plain,
        CheckFinding::Fails => Tone::Bad,
        CheckFinding::Divided | CheckFinding::Silent => Tone::Warn,
    };
    Cell::new(tone, finding.as_str())
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
