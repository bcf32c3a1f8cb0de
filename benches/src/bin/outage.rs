//! How long after a region is cut off the answer changes: real agents and a real aggregator in the lab's emulated
//! network, probing at 10 Hz, as a client of the API sees it.
//!
//! Each run plays a short scenario that cuts off first the selected region and then the one that took its place. Their
//! times differ from run to run, so that no run favours a phase of the windows.

use std::{fmt::Write as _, fs, path::Path, process::Command};

use anyhow::{Context as _, bail};
use leeward_benches::{
    figure::{Figures, Target},
    measure::quantile,
};
use serde::Deserialize;

const RUNS: u32 = 10;

/// Id, latitude, longitude.
const REGIONS: [(&str, f64, f64); 4] = [
    ("virginia", 36.67, -78.39),
    ("oregon", 47.23, -119.85),
    ("ireland", 53.35, -6.26),
    ("frankfurt", 50.11, 8.68),
];

/// Round-trip times, milliseconds, of the public Azure region matrix.
const LINKS: [(&str, &str, f64); 6] = [
    ("virginia", "oregon", 68.5),
    ("virginia", "ireland", 72.0),
    ("virginia", "frankfurt", 93.5),
    ("oregon", "ireland", 137.0),
    ("oregon", "frankfurt", 158.5),
    ("ireland", "frankfurt", 26.0),
];

fn main() -> anyhow::Result<()> {
    let mut figures = Figures::new("outage");
    let directory =
        tempfile::TempDir::with_prefix("leeward-bench-").context("make a temporary directory")?;
    let mut delays = Vec::new();
    for run in 0..RUNS {
        match play(directory.path(), run) {
            Ok(seen) => delays.extend(seen),
            Err(error) if run == 0 => {
                figures.skip(
                    "region cut off to changed answer",
                    "s",
                    &format!("{error:#}"),
                );
                figures.print();
                return Ok(());
            }
            Err(error) => return Err(error),
        }
    }
    let count = delays.len();
    for (name, q, target) in [
        ("p50", 0.5, Some(Target::AtMost(0.7))),
        ("p90", 0.9, None),
        // Of twenty, that is the 99th percentile.
        ("largest", 1.0, Some(Target::AtMost(1.5))),
    ] {
        let delay = quantile(&mut delays, q).context("no answer changed")?;
        let figure = figures.figure(
            format!("region cut off to changed answer, {name} of {count}"),
            delay,
            "s",
        );
        figures.push(match target {
            Some(target) => figure.target(target),
            None => figure,
        });
    }
    figures.print();
    Ok(())
}

/// When each region is cut off in a run, microseconds.
fn outages(run: u32) -> [(&'static str, u64); 2] {
    // 0.13 and 0.37 seconds share no multiple with a window below the number of runs.
    let phase = u64::from(run);
    [
        ("oregon", 6_000_000 + phase * 130_000),
        ("ireland", 11_000_000 + phase * 370_000),
    ]
}

/// Plays one run; returns the seconds from each outage to each answer that it changed.
fn play(directory: &Path, run: u32) -> anyhow::Result<Vec<f64>> {
    let (scenario, transcript) = (
        directory.join("outage.toml"),
        directory.join("transcript.json"),
    );
    fs::write(&scenario, text(run)).context("write the scenario")?;
    let lab = std::env::current_exe()?.with_file_name("leeward-lab");
    let output = Command::new(&lab)
        .args(["run", "--api", "127.0.0.1:0", "--transcript"])
        .args([&transcript, &scenario])
        .output()
        .with_context(|| format!("run {}", lab.display()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("leeward-lab: {}", said.lines().last().unwrap_or_default());
    }
    let transcript: Transcript =
        serde_json::from_slice(&fs::read(&transcript).context("read the transcript")?)?;
    let delays = outages(run).into_iter().flat_map(|(region, at_us)| {
        let moved = transcript.decisions.iter().filter(move |decision| {
            decision.from.as_deref() == Some(region) && decision.seen_at_us > at_us
        });
        moved
            .map(move |decision| (decision.seen_at_us - at_us) as f64 / 1e6)
            .collect::<Vec<_>>()
    });
    Ok(delays.collect())
}

#[derive(Deserialize)]
struct Transcript {
    decisions: Vec<Decision>,
}

#[derive(Deserialize)]
struct Decision {
    seen_at_us: u64,
    from: Option<String>,
}

fn text(run: u32) -> String {
    let mut text = String::from(
        "name = \"outage\"\ndescription = \"Two regions are cut off.\"\nseed = 1\nduration = \"18s\"\n",
    );
    for (id, latitude, longitude) in REGIONS {
        let _ = write!(
            text,
            "[[region]]\nid = \"{id}\"\nlatitude = {latitude}\nlongitude = {longitude}\n"
        );
    }
    for (a, b, rtt_ms) in LINKS {
        let _ = write!(
            text,
            "[[link]]\nbetween = [\"{a}\", \"{b}\"]\nrtt = \"{}us\"\njitter = \"500us\"\n",
            rtt_ms * 1e3
        );
    }
    text.push_str("[[failover]]\nprimary = \"virginia\"\ncandidates = [\"oregon\", \"ireland\", \"frankfurt\"]\n");
    for (region, at_us) in outages(run) {
        let _ = write!(
            text,
            "[[event]]\nat = \"{at_us}us\"\nregion_down = \"{region}\"\nsay = \"{region} is cut off\"\n"
        );
    }
    text
}
