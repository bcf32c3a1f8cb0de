//! Two thousand agents connect at once, lose their connections, and connect again: how long it takes, both ends on this
//! machine, and what memory each costs the aggregator.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use leeward_benches::{
    figure::{Figures, Target},
    installation::{Installation, Order},
    load::{Authority, Identity, Session},
    measure::median,
    process,
};
use quinn::Endpoint;
use tokio::task::JoinSet;

const AGENTS: u32 = 2_000;
const ROUNDS: u64 = 3;
const REGIONS: [&str; 4] = ["virginia", "oregon", "ireland", "frankfurt"];

/// A busy machine needs longer, and says so.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut figures = Figures::new("storm");
    let installation = Installation::start(Order {
        agents: 0,
        ..Order::default()
    })?;
    let authority = Authority::read(&installation.pki())?;
    let identity = |at: u32| authority.agent(REGIONS[at as usize % 4], &format!("agent{at}"));
    let identities: Vec<Identity> = (0..AGENTS).map(identity).collect::<anyhow::Result<_>>()?;
    let endpoint = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into())?;
    let aggregator = installation.aggregator();
    let before = process::resident(aggregator)?;
    let (mut took, mut cpu, mut each) = (Vec::new(), Vec::new(), 0.0);
    for boot_epoch in 1..=ROUNDS {
        let (began, spent) = (Instant::now(), process::cpu(aggregator)?);
        let mut work = JoinSet::new();
        for identity in &identities {
            let (endpoint, to) = (endpoint.clone(), installation.listen());
            let identity = identity.clone();
            work.spawn(async move {
                // As an agent does: again, when it was not heard.
                let deadline = Instant::now() + PATIENCE;
                loop {
                    match Session::open(&endpoint, to, &identity, boot_epoch).await {
                        Err(_) if Instant::now() < deadline => {}
                        done => return done,
                    }
                }
            });
        }
        let sessions: Vec<Session> = work
            .join_all()
            .await
            .into_iter()
            .collect::<anyhow::Result<_>>()?;
        took.push(began.elapsed().as_secs_f64());
        cpu.push((process::cpu(aggregator)? - spent).as_secs_f64() * 1e3 / f64::from(AGENTS));
        ensure!(sessions.len() == AGENTS as usize, "somebody is missing");
        if boot_epoch == 1 {
            let more = process::resident(aggregator)?.saturating_sub(before);
            each = more as f64 / f64::from(AGENTS) / 1024.0;
        }
        for session in &sessions {
            session.connection.close(0u32.into(), b"again");
        }
        endpoint.wait_idle().await;
    }
    let name = format!("{AGENTS} agents connected, both ends on this machine");
    let figure = figures.figure(name, median(took).context("no rounds")?, "s");
    figures.push(figure.target(Target::AtMost(2.0)));
    let figure = figures.figure(
        "aggregator's CPU for each",
        median(cpu).context("no rounds")?,
        "ms",
    );
    figures.push(figure);
    let figure = figures.figure("aggregator's memory for each, all in", each, "KiB");
    figures.push(figure.target(Target::AtMost(64.0)));
    figures.print();
    Ok(())
}
