//! `leeward link A B`: one link, both directions, with its recent windows.

use leeward_common::{
    api::v1::{Direction, Directions, Flow, Link, LinkWindow, PathFlows, State},
    id::RegionId,
    ratio::Ratio,
};

use crate::{
    args::{Cli, Format},
    bandwidth,
    client::Client,
    exit::{Exit, Failure},
    graph,
    output::{Output, Tone},
    table::{Align, Cell, Table},
    words,
};

/// How many windows a table shows; -o wide shows all.
const SHOWN: usize = 12;

/// Runs `leeward link A B`.
///
/// # Errors
///
/// Returns why there is no answer.
pub fn run(cli: &Cli, out: &Output, from: &RegionId, to: &RegionId) -> Result<Exit, Failure> {
    let client = Client::new(&cli.global)?;
    let link: Link = client.ask(&format!("/v1/links/{from}/{to}"))?;
    match out.format {
        Format::Table | Format::Wide => {
            let back: Link = client.ask(&format!("/v1/links/{to}/{from}"))?;
            out.text(&text(out, &link, &back))?;
        }
        _ => out.list(&link, &link.windows, "", &windows(&link.windows))?,
    }
    if link.windows.is_empty() {
        return Ok(Exit::NotEnoughKnown);
    }
    Ok(out.verdict(link.edge.state == State::Ok))
}

fn text(out: &Output, link: &Link, back: &Link) -> String {
    let mut text = graph::line(out, &link.edge);
    text.push_str(&graph::line(out, &back.edge));
    if let Some(verdict) = verdict(link, back) {
        text.push_str(&format!("{verdict}\n"));
    }
    for signal in &link.signals {
        text.push_str(&format!(
            "signal by {}: {} {} until {} UTC\n",
            signal.source,
            signal.metric,
            signal.value,
            words::time_of_day(signal.expires_at)
        ));
    }
    if !link.bandwidth.is_empty() {
        text.push('\n');
        text.push_str(&bandwidth::table(&link.bandwidth).render(out, out.format == Format::Wide));
    }
    for path in link.flows.iter().chain(&back.flows) {
        text.push_str(&flows(path));
    }
    text.push('\n');
    if link.windows.is_empty() {
        let edge = &link.edge;
        text.push_str(&format!(
            "no agent of {} has reported about {} lately\n",
            edge.from, edge.to
        ));
        return text;
    }
    let all = out.format == Format::Wide;
    let skipped = if all {
        0
    } else {
        link.windows.len().saturating_sub(SHOWN)
    };
    text.push_str(&windows(&link.windows[skipped..]).render(out, all));
    text.push_str(&directions(&link.edge.to, &link.windows[skipped..]));
    if skipped > 0 {
        text.push_str(&out.paint(
            Tone::Quiet,
            &format!("{skipped} older windows hidden, -o wide shows them\n"),
        ));
    }
    text
}

/// Whether the fault, if any, is in one direction. Both directions are judged by round trips, so an asymmetry of
/// loss says whose agents see it, not which way the packet died.
fn verdict(link: &Link, back: &Link) -> Option<String> {
    match (link.edge.state, back.edge.state) {
        (State::Ok, State::Ok) | (State::Unknown, _) | (_, State::Unknown) => None,
        (State::Ok, _) => Some(format!("only agents of {} see trouble", back.edge.from)),
        (_, State::Ok) => Some(format!("only agents of {} see trouble", link.edge.from)),
        _ => Some("both ends see trouble".to_owned()),
    }
}

/// `iad-1 to dub-1 by stamp: flow 3 of 4: 40 % lost, others 0 %`: the flows that lost something, and the slowest where none did.
fn flows(path: &PathFlows) -> String {
    let PathFlows {
        agent,
        target,
        kind,
        ..
    } = path;
    let all = path.flows.len();
    let numbered = || (1..).zip(&path.flows).filter(|(_, flow)| flow.ended > 0);
    let loss = |flow: &Flow| words::percent(flow.loss_ratio.map_or(0.0, Ratio::get));
    let lossy: Vec<String> = numbered()
        .filter(|(_, flow)| flow.lost > 0)
        .map(|(number, flow)| format!("flow {number} of {all}: {} lost", loss(flow)))
        .collect();
    let rtt = |flow: &Flow| {
        flow.rtt_mean_us
            .map(|us| words::milliseconds(f64::from(us)))
    };
    let what = if lossy.is_empty() {
        let times =
            numbered().filter_map(|(number, flow)| Some(format!("flow {number} {}", rtt(flow)?)));
        format!("mean round trips: {}", times.collect::<Vec<_>>().join(", "))
    } else if lossy.len() < numbered().count() {
        format!("{}, others 0 %", lossy.join(", "))
    } else {
        lossy.join(", ")
    };
    format!("{agent} to {target} by {kind}: {what}\n")
}

fn windows(windows: &[LinkWindow]) -> Table {
    let mut table = Table::new()
        .left("start")
        .right("answered")
        .right("unanswered")
        .right("loss")
        .right("min")
        .right("p50")
        .wide("p90", Align::Right)
        .right("p99")
        .right("max");
    for window in windows {
        let rtt = |pick: fn(&leeward_common::api::v1::Quantiles) -> u32| {
            let text = window
                .rtt
                .as_ref()
                .map(|rtt| words::milliseconds(f64::from(pick(rtt))));
            Cell::from(text.unwrap_or_else(|| "-".to_owned()))
        };
        let tone = if window.unanswered == 0 {
            Tone::Plain
        } else {
            Tone::Warn
        };
        table.row(vec![
            time(window).into(),
            window.answered.to_string().into(),
            Cell::new(tone, window.unanswered.to_string()),
            Cell::new(
                tone,
                window
                    .loss_ratio
                    .map_or_else(|| "?".to_owned(), |loss| words::percent(loss.get())),
            ),
            rtt(|rtt| rtt.min_us),
            rtt(|rtt| rtt.p50_us),
            rtt(|rtt| rtt.p90_us),
            rtt(|rtt| rtt.p99_us),
            rtt(|rtt| rtt.max_us),
        ]);
    }
    table
}

/// What is known of each direction in these windows; nothing where no agent probes by STAMP.
fn directions(to: &RegionId, windows: &[LinkWindow]) -> String {
    let told: Vec<&Directions> = windows
        .iter()
        .filter_map(|window| window.directions.as_ref())
        .collect();
    if told.is_empty() {
        return String::new();
    }
    let one = |name: String, pick: fn(&Directions) -> &Direction| {
        let of = || told.iter().map(|directions| pick(directions));
        let (lost, reordered) = of().fold((0u64, 0u64), |(lost, reordered), direction| {
            (
                lost + u64::from(direction.lost),
                reordered + u64::from(direction.reordered),
            )
        });
        let largest = of().filter_map(|direction| direction.delay_variation_max_us);
        let variation = largest
            .max()
            .map_or_else(|| "?".to_owned(), |us| words::milliseconds(f64::from(us)));
        format!("{name}: {lost} lost, {reordered} reordered, delay varies by up to {variation}\n")
    };
    let mut text = one(format!("to {to}"), |directions| &directions.forward);
    text.push_str(&one("and back".to_owned(), |directions| {
        &directions.backward
    }));
    let unknown: u64 = told
        .iter()
        .map(|directions| u64::from(directions.lost_unknown))
        .sum();
    if unknown > 0 {
        text.push_str(&format!("{unknown} lost, nobody knows where\n"));
    }
    text
}

/// When a window begins, to the tenth of a second where windows are shorter than one.
fn time(window: &LinkWindow) -> String {
    let time = words::time_of_day(window.start);
    if window.length_ms.is_multiple_of(1_000) {
        return time;
    }
    format!("{time}.{}", window.start.0.as_unix_us() / 100_000 % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(lost: [u32; 4], rtt_us: [u32; 4]) -> PathFlows {
        let flow = |(&lost, &rtt_us)| Flow {
            ended: 100,
            lost,
            late: 0,
            lost_pairs: 0,
            loss_ratio: Ratio::of(lost.into(), 100),
            rtt_min_us: Some(rtt_us),
            rtt_mean_us: Some(rtt_us),
        };
        let time = leeward_common::time::Timestamp::EPOCH.into();
        PathFlows {
            agent: "iad-1".parse().expect("a name"),
            target: "dub-1".parse().expect("a name"),
            kind: leeward_common::report::ProbeKind::Stamp,
            from: time,
            until: time,
            flows: lost.iter().zip(&rtt_us).map(flow).collect(),
        }
    }

    #[test]
    fn the_bad_flow_is_named_beside_the_good_ones() {
        let even = [20_000; 4];
        assert_eq!(
            flows(&path([0, 0, 40, 0], even)),
            "iad-1 to dub-1 by stamp: flow 3 of 4: 40 % lost, others 0 %\n"
        );
        assert_eq!(
            flows(&path([0; 4], [20_000, 20_000, 31_500, 20_000])),
            "iad-1 to dub-1 by stamp: mean round trips: flow 1 20.0 ms, flow 2 20.0 ms, flow 3 31.5 ms, flow 4 20.0 ms\n"
        );
    }
}
