//! How long after a window closes the graph shows it: through the agent, QUIC, the journal on disk, the engine and the
//! HTTP API, as a client sees it that asks again and again.
//!
//! All processes share this machine's clock, so that a window's end and the moment of an answer can be compared.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use leeward_benches::{
    figure::{Figures, Target},
    http::Client,
    installation::{Installation, Order},
    measure::quantile,
};
use leeward_common::{
    api::v1,
    time::{Clock as _, SystemClock, Timestamp},
};

/// How long is watched: with 12 links and a window a second, some 500 windows.
const WATCH: Duration = Duration::from_secs(45);

/// A pause between two questions, so that asking is not what keeps the machine busy.
const PAUSE: Duration = Duration::from_millis(1);

fn main() -> anyhow::Result<()> {
    let mut figures = Figures::new("freshness");
    let mut installation = Installation::start(Order {
        agents: 4,
        ..Order::default()
    })?;
    let links: Vec<_> = installation
        .regions()
        .flat_map(|from| {
            installation
                .regions()
                .filter(move |to| *to != from)
                .map(move |to| format!("/v1/links/{from}/{to}"))
        })
        .collect();
    installation.wait("every link to be measured", |api| {
        let mut client = Client::connect(api);
        links.iter().all(|link| {
            let client = client.as_mut().map_err(|error| anyhow::anyhow!("{error}"));
            client
                .and_then(|client| newest(client, link))
                .is_ok_and(|newest| newest.is_some())
        })
    })?;
    let mut delays = watch(&installation, &links)?;
    let windows = delays.len();
    for (name, q, target) in [
        ("p50", 0.5, None),
        ("p99", 0.99, Some(Target::AtMost(250.0))),
    ] {
        let delay = quantile(&mut delays, q).context("no window was seen")?;
        let figure = figures.figure(
            format!("window closed to visible, {name} of {windows}"),
            delay,
            "ms",
        );
        figures.push(match target {
            Some(target) => figure.target(target),
            None => figure,
        });
    }
    figures.print();
    Ok(())
}

/// Milliseconds from the end of each window to the first answer that shows it.
fn watch(installation: &Installation, links: &[String]) -> anyhow::Result<Vec<f64>> {
    let mut client = Client::connect(installation.api())?;
    let mut seen: BTreeMap<&str, Timestamp> = BTreeMap::new();
    let mut delays = Vec::new();
    let begun = Instant::now();
    while begun.elapsed() < WATCH {
        for link in links {
            std::thread::sleep(PAUSE);
            let Some(end) = newest(&mut client, link)? else {
                continue;
            };
            let now = SystemClock.now();
            // The first look at a link finds a window that may have been there for long.
            if let Some(before) = seen.insert(link, end)
                && before < end
            {
                delays.push(now.since(end).as_secs_f64() * 1e3);
            }
        }
    }
    Ok(delays)
}

/// The end of a link's newest window.
fn newest(client: &mut Client, link: &str) -> anyhow::Result<Option<Timestamp>> {
    let link: v1::Link = client.get(link)?;
    Ok(link
        .windows
        .last()
        .map(|window| window.start.0 + Duration::from_millis(window.length_ms)))
}
