//! The resident memory of an agent that probes a hundred targets, and a thousand, ten times a second, and of its aggregator.

use std::time::Duration;

use anyhow::Context as _;
use leeward_benches::{
    figure::{Figures, Target},
    installation::{Installation, Order},
    process,
};

/// How many targets; what is aimed at is said of the last.
const TARGETS: [u32; 2] = [100, 1_000];

/// Long enough for every buffer to have been filled once: thirty windows, ten expiries.
const SETTLE: Duration = Duration::from_secs(30);

fn main() -> anyhow::Result<()> {
    let mut figures = Figures::new("memory");
    for targets in TARGETS {
        measure(&mut figures, targets)?;
    }
    figures.print();
    Ok(())
}

fn measure(figures: &mut Figures, targets: u32) -> anyhow::Result<()> {
    let installation = Installation::start(Order {
        agents: 1,
        targets,
        more: "",
    })?;
    std::thread::sleep(SETTLE);
    let agent = installation.agents().next().context("no agent")?;
    let mib = |process| anyhow::Ok(process::resident(process)? as f64 / f64::from(1 << 20));
    let before = process::cpu(agent)?;
    std::thread::sleep(Duration::from_secs(10));
    let cpu = (process::cpu(agent)? - before).as_secs_f64() * 10.0;
    let figure = figures.figure(
        format!("agent, resident, {targets} targets"),
        mib(agent)?,
        "MiB",
    );
    figures.push(figure.target(Target::AtMost(20.0)));
    let name = format!("agent, CPU, {targets} targets at 10 Hz");
    figures.push(figures.figure(name, cpu, "% of a core"));
    let name = format!("aggregator, resident, one agent with {targets} targets");
    figures.push(figures.figure(name, mib(installation.aggregator())?, "MiB"));
    Ok(())
}
