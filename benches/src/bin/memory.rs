//! The resident memory of an agent that probes a hundred targets ten times a second, and of its aggregator.

use std::time::Duration;

use anyhow::Context as _;
use leeward_benches::{
    figure::{Figures, Target},
    installation::{Installation, Order},
    process,
};

const TARGETS: u32 = 100;

/// Long enough for every buffer to have been filled once: thirty windows, ten expiries.
const SETTLE: Duration = Duration::from_secs(30);

fn main() -> anyhow::Result<()> {
    let mut figures = Figures::new("memory");
    let installation = Installation::start(Order {
        agents: 1,
        targets: TARGETS,
        more: "",
    })?;
    std::thread::sleep(SETTLE);
    let agent = installation.agents().next().context("no agent")?;
    let mib = |process| anyhow::Ok(process::resident(process)? as f64 / f64::from(1 << 20));
    let name = format!("agent, resident, {TARGETS} targets");
    let before = process::cpu(agent)?;
    std::thread::sleep(Duration::from_secs(10));
    let cpu = (process::cpu(agent)? - before).as_secs_f64() * 10.0;
    figures.push(
        figures
            .figure(name, mib(agent)?, "MiB")
            .target(Target::AtMost(20.0)),
    );
    figures.push(figures.figure(
        format!("agent, CPU, {TARGETS} targets at 10 Hz"),
        cpu,
        "% of a core",
    ));
    figures.push(figures.figure(
        "aggregator, resident, one agent",
        mib(installation.aggregator())?,
        "MiB",
    ));
    figures.print();
    Ok(())
}
