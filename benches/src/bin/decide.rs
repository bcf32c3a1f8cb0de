//! Judges decisions: a made-up month with a known truth and recorded networks, with peers beside us on both.
//!
//! `decide --seed N --days N --data DIR` prints tables; with `--json`, one object per line and every peer. The rules
//! are in `docs/evaluation.md`.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use leeward_benches::{
    decide::{
        atlas, azure,
        judge::Score,
        ours::{Ours, SCORE},
        peers, planetlab,
        recorded::Recordings,
        trace::{self, Outcome},
        world::Variant,
    },
    figure::{Figure, Figures, Target},
};

/// Judges decisions on made-up and recorded networks, peers beside us.
#[derive(Parser)]
struct Args {
    /// Of everything random: the same seed prints the same figures.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Length of the made-up trace.
    #[arg(long, default_value_t = 30)]
    days: u64,
    /// Folder of recordings; else LEEWARD_DATA.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Without the peers.
    #[arg(long)]
    alone: bool,
    /// Only these parts.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Part>,
    /// File with `[policy]` sections to put in the place of ours; best with one part.
    #[arg(long)]
    policy: Option<PathBuf>,
    /// Say on stderr why each false move of ours was made.
    #[arg(long)]
    explain: bool,
    /// One JSON object per line instead of tables.
    #[arg(long)]
    json: bool,
}

impl Args {
    fn policy_or(&self, ours: &str) -> anyhow::Result<String> {
        match &self.policy {
            None => Ok(ours.to_owned()),
            Some(file) => std::fs::read_to_string(file)
                .with_context(|| format!("cannot read {}", file.display())),
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Part {
    /// The trace with independent paths.
    Independent,
    /// The trace with correlated vantage points.
    Correlated,
    /// The trace with observers that are cut off.
    Partitioned,
    /// Three paths of the Atlas traces.
    Atlas,
    /// Three regions of the Azure matrix.
    Azure,
    /// Relays on the PlanetLab matrices.
    Planetlab,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut figures = Figures::new("decide");
    let data = Recordings::find(args.data.clone());
    for part in Part::value_variants() {
        if !args.only.is_empty() && !args.only.contains(part) {
            continue;
        }
        match part {
            Part::Independent => made_up(&args, Variant::Independent, &mut figures)?,
            Part::Correlated => made_up(&args, Variant::Correlated, &mut figures)?,
            Part::Partitioned => made_up(&args, Variant::Partitioned, &mut figures)?,
            Part::Atlas => atlas(&args, &data, &mut figures)?,
            Part::Azure => azure(&args, &data, &mut figures)?,
            Part::Planetlab => planetlab(&args, &data, &mut figures)?,
        }
    }
    figures.print();
    Ok(())
}

fn made_up(args: &Args, variant: Variant, figures: &mut Figures) -> anyhow::Result<()> {
    let policy = args.policy_or(SCORE)?;
    let mut contestants = if args.alone { Vec::new() } else { peers::all() };
    contestants.push(Box::new(Ours::new("Leeward", &policy)?));
    let outcome = trace::run(args.seed, args.days, variant, contestants);
    for (second, why) in outcome.false_moves.iter().filter(|_| args.explain) {
        eprintln!("{}, second {second}: {why}", variant.name());
    }
    if !args.json {
        println!("{}", outcome.table(variant.name()));
    }
    let Some(((_, ours), peers)) = outcome.scores.split_last() else {
        return Ok(());
    };
    for (name, peer) in peers
        .iter()
        .filter(|(name, _)| args.json || name == peers::BEST)
    {
        for figure in beside(figures, variant, &outcome, ours, name, peer) {
            figures.push(figure);
        }
    }
    Ok(())
}

/// A figure's name and unit, the factor from the score to the unit, where the score has it, and its limit.
type Row = (
    &'static str,
    &'static str,
    f64,
    fn(&Score) -> Option<f64>,
    f64,
);

fn beside(
    figures: &Figures,
    variant: Variant,
    outcome: &Outcome,
    ours: &Score,
    name: &str,
    peer: &Score,
) -> Vec<Figure> {
    let necessary = outcome.necessary_per_day.max(1e-9);
    let false_limit = match variant {
        Variant::Partitioned => 0.0,
        _ => 0.02,
    };
    let rows: [Row; 7] = [
        (
            "false moves",
            "1/day",
            1.0,
            |score| Some(score.false_per_day),
            false_limit,
        ),
        (
            "flips, times the necessary",
            "x",
            1.0 / necessary,
            |score| Some(score.flips_per_day),
            1.1,
        ),
        (
            "regret against the oracle",
            "%",
            100.0,
            |score| Some(score.regret),
            0.3,
        ),
        (
            "hard outage left after, p50",
            "s",
            1.0,
            |score| score.hard.p50_s,
            1.0,
        ),
        (
            "hard outage left after, p99",
            "s",
            1.0,
            |score| score.hard.p99_s,
            2.0,
        ),
        (
            "8 % loss left after, p50",
            "s",
            1.0,
            |score| score.grey.p50_s,
            5.0,
        ),
        (
            "8 % loss left after, p99",
            "s",
            1.0,
            |score| score.grey.p99_s,
            12.0,
        ),
    ];
    let mut all = Vec::new();
    for (what, unit, scale, of, limit) in rows {
        // Too few days may hold no event.
        let Some(value) = of(ours) else { continue };
        let title = format!("{}: {what}", variant.name());
        let figure = figures
            .figure(title, value * scale, unit)
            .target(Target::AtMost(limit));
        all.push(match of(peer) {
            Some(value) => figure.beside(name, value * scale),
            None => figure,
        });
    }
    all
}

fn atlas(args: &Args, data: &Recordings, figures: &mut Figures) -> anyhow::Result<()> {
    let folder = match data.part("latency/atlas") {
        Ok(folder) => folder,
        Err(why) => {
            figures.skip("Atlas: time > 20 ms worse", "%", &why);
            return Ok(());
        }
    };
    let panels = atlas::panels(&atlas::read(&folder)?);
    let policy = args.policy_or(atlas::POLICY)?;
    let ours = atlas::judge(&panels, || atlas::Ours::new(&policy))?;
    let peers = [
        ("static", atlas::judge(&panels, || Ok(atlas::Static))?),
        (
            "last value",
            atlas::judge(&panels, || Ok(atlas::Median::new(1, 0.0)))?,
        ),
        (
            "median of 15, 2 ms",
            atlas::judge(&panels, || Ok(atlas::Median::new(15, 2.0)))?,
        ),
        (
            "median of 5, 2 ms",
            atlas::judge(&panels, || Ok(atlas::Median::new(5, 2.0)))?,
        ),
    ];
    if !args.json {
        println!("Atlas, {} panels of three paths", panels.len());
        println!(
            "  {:<22} {:>12} {:>12} {:>12} {:>12}",
            "", "> 20 ms, %", "or lost, %", "regret, ms", "switches/day"
        );
        for (name, score) in peers.iter().chain([&("Leeward", ours)]) {
            println!(
                "  {name:<22} {:>12.4} {:>12.4} {:>12.4} {:>12.3}",
                score.bad * 100.0,
                score.bad_or_lost * 100.0,
                score.regret_ms,
                score.switches_per_day
            );
        }
        println!();
    }
    let shown = if args.json { &peers[..] } else { &peers[3..] };
    for (name, peer) in shown {
        let bad = figures.figure("Atlas: time > 20 ms worse", ours.bad * 100.0, "%");
        figures.push(
            bad.beside(*name, peer.bad * 100.0)
                .target(Target::AtMost(0.12)),
        );
        let lost = figures.figure("Atlas: as above, or lost", ours.bad_or_lost * 100.0, "%");
        figures.push(lost.beside(*name, peer.bad_or_lost * 100.0));
        let regret = figures.figure("Atlas: regret", ours.regret_ms, "ms");
        figures.push(regret.beside(*name, peer.regret_ms));
        let switches = figures.figure("Atlas: switches", ours.switches_per_day, "1/day");
        figures.push(
            switches
                .beside(*name, peer.switches_per_day)
                .target(Target::AtMost(1.0)),
        );
    }
    Ok(())
}

fn azure(args: &Args, data: &Recordings, figures: &mut Figures) -> anyhow::Result<()> {
    let folder = match data.part("latency/azure") {
        Ok(folder) => folder,
        Err(why) => {
            figures.skip("Azure: wrong region", "%", &why);
            return Ok(());
        }
    };
    let matrix = azure::Matrix::read(&folder)?;
    let judged = azure::judge(&matrix, args.seed)?;
    let percent = |choices: azure::Choices| choices.wrong * 100.0;
    let mut push = |what: &str, value, peer: &str, peer_value, limit| {
        let figure = figures.figure(format!("Azure: {what}"), value, "%");
        figures.push(
            figure
                .beside(peer, peer_value)
                .target(Target::AtMost(limit)),
        );
    };
    push(
        "wrong region, all measured",
        percent(judged.fresh),
        "distance",
        percent(judged.distance),
        0.0,
    );
    push(
        "wrong region, half unmeasured",
        percent(judged.half),
        "distance for the rest",
        percent(judged.half_distance),
        3.0,
    );
    let mean = figures.figure("Azure: cost of that", judged.half.mean_ms, "ms");
    figures.push(mean.beside("distance", judged.distance.mean_ms));
    let p99 = figures.figure("Azure: cost of that, p99", judged.half.p99_ms, "ms");
    figures.push(p99.beside("distance", judged.distance.p99_ms));
    let detours = judged.detours;
    let shares = [
        ("pairs with a relay > 5 ms quicker", detours.over_5_ms),
        ("pairs with a relay > 10 ms quicker", detours.over_10_ms),
        ("pairs with a relay > 5 % quicker", detours.over_5_percent),
        ("pairs for which a relay is advised", detours.advised),
    ];
    for (what, share) in shares {
        figures.push(figures.figure(format!("Azure: {what}"), share * 100.0, "%"));
    }
    let gains = [
        ("gain of those > 5 ms, p50", detours.gain_p50_ms),
        ("gain of those > 5 ms, most", detours.gain_max_ms),
    ];
    for (what, gain_ms) in gains {
        figures.push(figures.figure(format!("Azure: {what}"), gain_ms, "ms"));
    }
    Ok(())
}

fn planetlab(args: &Args, data: &Recordings, figures: &mut Figures) -> anyhow::Result<()> {
    let folder = match data.part("latency/planetlab") {
        Ok(folder) => folder,
        Err(why) => {
            figures.skip("PlanetLab: relay in the next frame", "ms", &why);
            return Ok(());
        }
    };
    let frames = planetlab::read(&folder)?;
    let Some(judged) = planetlab::judge(&frames, args.seed) else {
        figures.skip(
            "PlanetLab: relay in the next frame",
            "ms",
            "there are fewer than two frames",
        );
        return Ok(());
    };
    let blind = "best of 4 at random";
    let (best, other) = (judged.best, judged.blind);
    let mut push = |what: &str, value, peer_value, unit| {
        let figure = figures.figure(format!("PlanetLab: {what}"), value, unit);
        figures.push(figure.beside(blind, peer_value));
    };
    push(
        "pairs with a relay > 5 ms faster",
        best.chosen * 100.0,
        other.chosen * 100.0,
        "%",
    );
    push(
        "what it gains a frame later, p50",
        best.gain_p50_ms,
        other.gain_p50_ms,
        "ms",
    );
    push(
        "slower than direct a frame later",
        best.wrong * 100.0,
        other.wrong * 100.0,
        "%",
    );
    Ok(())
}
