//! `leeward graph routes`: where a relay would be better than the direct link.

use leeward_common::{
    api::v1::{Route, RouteAdvice, Routes},
    id::RegionId,
};

use crate::{
    args::{Cli, Format},
    client::Client,
    exit::{Exit, Failure},
    output::{Output, Tone},
    table::{Align, Cell, Table},
    words,
};

/// Runs `leeward graph routes [FROM [TO]]`.
///
/// # Errors
///
/// Returns why there is no answer.
pub fn run(
    cli: &Cli,
    out: &Output,
    from: Option<&RegionId>,
    to: Option<&RegionId>,
) -> Result<Exit, Failure> {
    let mut path = "/v1/graph/routes".to_owned();
    let ends = [("from", from), ("to", to)];
    for (at, (name, region)) in ends
        .into_iter()
        .filter_map(|(name, id)| Some((name, id?)))
        .enumerate()
    {
        let sign = if at == 0 { '?' } else { '&' };
        path.push_str(&format!("{sign}{name}={region}"));
    }
    let routes: Routes = Client::new(&cli.global)?.ask(&path)?;
    match out.format {
        Format::Table => out.text(&text(out, &routes, from.is_some()))?,
        Format::Wide => out.text(&table(&routes.routes).render(out, true))?,
        _ => out.list(&routes, &routes.routes, "", &table(&routes.routes))?,
    }
    if routes
        .routes
        .iter()
        .all(|route| route.advice == RouteAdvice::Unknown)
    {
        return Ok(Exit::NotEnoughKnown);
    }
    Ok(out.verdict(routes.routes.iter().all(is_straight)))
}

/// Whether there is nothing to do about it.
fn is_straight(route: &Route) -> bool {
    matches!(route.advice, RouteAdvice::Direct | RouteAdvice::Unknown)
}

/// All routes from a region, or of all routes those that are not straight.
fn text(out: &Output, routes: &Routes, all: bool) -> String {
    let shown: Vec<Route> = routes
        .routes
        .iter()
        .filter(|route| all || !is_straight(route))
        .cloned()
        .collect();
    let mut text = String::new();
    if !shown.is_empty() {
        text.push_str(&table(&shown).render(out, false));
    }
    if !all {
        let hidden = routes.routes.len() - shown.len();
        let hidden = words::plural(hidden as u64, "pair");
        let line = format!("{hidden} best left straight or not known; -o wide shows all\n");
        text.push_str(&out.paint(Tone::Quiet, &line));
    }
    text
}

fn table(routes: &[Route]) -> Table {
    let mut table = Table::new()
        .left("from")
        .left("to")
        .right("direct")
        .left("relay")
        .right("over it")
        .right("gain")
        .wide("gain_log", Align::Right)
        .left("advice");
    let time = |us: Option<f64>| us.map_or_else(|| "-".to_owned(), words::milliseconds);
    for route in routes {
        let relay = route.relay.as_ref();
        let gain_us = relay.and_then(|relay| relay.gain_us);
        let gain = gain_us.map_or_else(
            || "-".to_owned(),
            |us| match us < 0.0 {
                true => format!("-{}", words::milliseconds(-us)),
                false => words::milliseconds(us),
            },
        );
        let gain_log = relay.and_then(|relay| relay.gain_log);
        let tone = match route.advice {
            RouteAdvice::Direct => Tone::Plain,
            RouteAdvice::Relay | RouteAdvice::RelayOnly | RouteAdvice::Unknown => Tone::Warn,
            RouteAdvice::NoWay => Tone::Bad,
        };
        table.row(vec![
            route.from.as_str().into(),
            route.to.as_str().into(),
            time(route.direct.map(|path| path.latency_us)).into(),
            relay.map_or("-", |relay| relay.region_id.as_str()).into(),
            time(relay.map(|relay| relay.path.latency_us)).into(),
            gain.into(),
            gain_log
                .map_or_else(|| "-".to_owned(), |log| format!("{log:+.2}"))
                .into(),
            Cell::new(tone, route.detail.clone()),
        ]);
    }
    table
}
