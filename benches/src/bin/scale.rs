//! What a window costs the aggregator as links become more: CPU time from the datagrams to the disk, resident memory and
//! disk, with a hundred to a hundred thousand links. A link is what one agent measures towards one target.
//!
//! `--svg FILE` writes the costs as a plot.

use std::{fmt::Write as _, time::Duration};

use anyhow::Context as _;
use leeward_benches::{
    figure::{Figures, Target},
    installation::{Installation, Order},
    load::{self, Authority, Session},
    process,
};
use leeward_common::time::{Clock as _, SystemClock};
use tokio::task::JoinSet;

const LINKS: [u32; 4] = [100, 1_000, 10_000, 100_000];
/// Links of one agent at most.
const OF_AN_AGENT: u32 = 1_000;
/// Windows that are sent at each size, at least; and of each link.
const WINDOWS: u32 = 400_000;
const OF_A_LINK: u32 = 8;
const UNDER_WAY: usize = 16;
const REGIONS: [&str; 4] = ["virginia", "oregon", "ireland", "frankfurt"];

/// What a size costs.
struct Cost {
    links: u32,
    /// CPU time of a window, nanoseconds.
    window_ns: f64,
    /// Resident memory more than without any, bytes for each link.
    link_bytes: f64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut figures = Figures::new("scale");
    let mut costs = Vec::new();
    for links in LINKS {
        costs.push(measure(links).await?);
    }
    for Cost {
        links,
        window_ns,
        link_bytes,
    } in &costs
    {
        let name = format!("CPU of a window, {links} links");
        figures.push(figures.figure(name, *window_ns, "ns"));
        let name = format!("memory of a link, {links} links");
        figures.push(figures.figure(name, *link_bytes / 1024.0, "KiB"));
    }
    if let [first, .., last] = &costs[..] {
        let name = "CPU of a window, 100,000 links to 100";
        let figure = figures.figure(name, last.window_ns / first.window_ns, "x");
        figures.push(figure.target(Target::AtMost(1.0)));
    }
    figures.print();
    let mut arguments = std::env::args().skip_while(|argument| argument != "--svg");
    if let (Some(_), Some(file)) = (arguments.next(), arguments.next()) {
        std::fs::write(&file, svg(&costs)).with_context(|| format!("write {file}"))?;
    }
    Ok(())
}

async fn measure(links: u32) -> anyhow::Result<Cost> {
    let installation = Installation::start(Order {
        agents: 0,
        ..Order::default()
    })?;
    let authority = Authority::read(&installation.pki())?;
    let endpoint = load::endpoint()?;
    let aggregator = installation.aggregator();
    let empty = process::resident(aggregator)?;
    let agents = links.div_ceil(OF_AN_AGENT);
    let each = links / agents;
    let windows = (WINDOWS / links).max(OF_A_LINK);
    let mut sessions = Vec::new();
    for at in 0..agents {
        let (name, home) = (format!("load{at}"), REGIONS[at as usize % 4]);
        let others: Vec<&str> = REGIONS.into_iter().filter(|own| *own != home).collect();
        let identity = authority.agent(home, &name)?;
        let to = installation.listen();
        let mut session = Session::open(&endpoint, to, &identity, 1).await?;
        session.announce(load::paths(&name, &others, each)?).await?;
        sessions.push(session);
    }
    // The hours before now, so that nothing depends on how fast they are sent.
    let now = SystemClock.now() - Duration::from_secs(2);
    let mut prepared = Vec::new();
    for session in sessions {
        let frames = load::frames(&session.agent, 0, windows, each, now)?;
        prepared.push((session, frames));
    }
    let before = process::cpu(aggregator)?;
    let mut work = JoinSet::new();
    for (mut session, frames) in prepared {
        work.spawn(async move { session.deliver(&frames, UNDER_WAY).await.map(|()| session) });
    }
    let sessions: Vec<Session> = work
        .join_all()
        .await
        .into_iter()
        .collect::<Result<_, _>>()?;
    let spent = process::cpu(aggregator)? - before;
    let more = process::resident(aggregator)?.saturating_sub(empty);
    drop(sessions);
    let all = f64::from(agents * each) * f64::from(windows);
    Ok(Cost {
        links,
        window_ns: spent.as_nanos() as f64 / all,
        link_bytes: more as f64 / f64::from(links),
    })
}

/// The CPU time of all links for a second, against their number, both on a logarithmic scale; beside it, dashed, what it
/// would be if it grew just as their number does.
fn svg(costs: &[Cost]) -> String {
    let (width, height, left, bottom) = (560.0, 340.0, 70.0, 290.0);
    let x = |links: f64| left + (links.log10() - 2.0) / 3.0 * (width - left - 30.0);
    // From a microsecond to ten seconds.
    let y = |ms: f64| bottom - (ms.log10() + 3.0) / 7.0 * (bottom - 30.0);
    let total = |cost: &Cost| f64::from(cost.links) * cost.window_ns / 1e6;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    for power in -3..=4 {
        let (ms, at) = (10f64.powi(power), y(10f64.powi(power)));
        let _ = writeln!(
            svg,
            "<path d=\"M{left} {at:.1}H{:.1}\" stroke=\"#ddd\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{ms} ms</text>",
            width - 30.0,
            left - 6.0,
            at + 4.0
        );
    }
    let line = |points: &[(f64, f64)], style: &str| {
        let points: Vec<String> = points
            .iter()
            .map(|&(links, ms)| format!("{:.1},{:.1}", x(links), y(ms)))
            .collect();
        format!(
            "<polyline points=\"{}\" fill=\"none\" {style}/>\n",
            points.join(" ")
        )
    };
    let measured: Vec<_> = costs
        .iter()
        .map(|cost| (f64::from(cost.links), total(cost)))
        .collect();
    if let Some(&(_, first)) = measured.first() {
        let linear: Vec<_> = measured
            .iter()
            .map(|&(links, _)| (links, first * links / 100.0))
            .collect();
        svg += &line(&linear, "stroke=\"#888\" stroke-dasharray=\"5 4\"");
    }
    svg += &line(&measured, "stroke=\"#06c\" stroke-width=\"2\"");
    for (links, ms) in measured {
        let _ = writeln!(
            svg,
            "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"4\" fill=\"#06c\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{links}</text>",
            x(links),
            y(ms),
            x(links),
            bottom + 18.0
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">links; CPU time that one second of all of them costs the aggregator (dashed: linear)</text>\n</svg>",
        width / 2.0,
        height - 12.0
    );
    svg
}
