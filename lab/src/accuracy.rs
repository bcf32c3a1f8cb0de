//! What agents measure, beside what a witness in the middle of the network saw of the very same packets.
//!
//! Real agents live in a world for as long as it says, and probe each other. Then they end, having sent what they had;
//! their account of the whole time is asked of the aggregator, as any client would ask, and compared with the witness's,
//! path by path. Counts must be equal: a probe that the witness saw lost on its way there must be one that the agent
//! calls lost on its way there. Only the few probes that are still under way in the end may differ. Round-trip times
//! differ by what the hosts themselves take: by how much is told, and not judged.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use leeward_common::{
    api::v1,
    id::RegionId,
    report::ProbeKind,
    time::{Clock as _, SystemClock, Timestamp},
};
use leeward_engine::{
    policy::Policy,
    scenario::{LinkState, Scenario},
};

use crate::{
    args::AccuracyOptions,
    install::Binaries,
    lab::{self, LOOK_EVERY, Lab},
    run::Outcome,
    witness::{Account, Asked, Witness},
    world::World,
};

/// Who asks whom, and how.
type Path = (RegionId, RegionId, ProbeKind);

/// The quantiles that are compared.
const QUANTILES: [f64; 3] = [0.5, 0.9, 0.99];

/// What an agent says of one path over the whole time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measured {
    /// Probes that were answered, in time or late.
    pub answered: u64,
    /// Probes lost.
    pub lost: u64,
    /// Lost on the way to the target and on the way back, and of which it is not known where; `None` where the kind of
    /// probe does not tell.
    pub lost_where: Option<[u64; 3]>,
    /// Requests and replies that came out of order; `None` where the kind of probe does not tell.
    pub reordered: Option<[u64; 2]>,
    /// Round-trip times at [`QUANTILES`], microseconds; `None` without any.
    pub rtt_us: Option<[f64; 3]>,
}

/// One path of the table.
#[derive(Clone, Debug)]
struct Row {
    from: RegionId,
    to: RegionId,
    kind: ProbeKind,
    told: [LinkState; 2],
    seen: Account,
    measured: Measured,
    /// Probes that can be under way at once.
    open_at_most: u64,
}

/// Lives in a world and prints the table.
///
/// # Errors
///
/// Returns why it could not be lived in to its end.
pub fn run(options: &AccuracyOptions) -> anyhow::Result<Outcome> {
    let file = options.world.display().to_string();
    let text = fs::read_to_string(&options.world).with_context(|| format!("cannot read {file}"))?;
    let scenario = Scenario::parse(&file, &text)?;
    let world = World::new(&scenario).map_err(anyhow::Error::msg)?;
    let binaries = Binaries::find(options.bin_dir.as_deref())?;
    let interrupted = lab::interruption()?;
    let logs = lab::prepare_files(&binaries, options.keep_logs.as_deref(), None)?;
    let witness = Some(Witness::default());
    let mut lab = Lab::build(&scenario, world, binaries, &text, logs, witness)?;
    let begin = SystemClock.now();
    let lived = live(
        &mut lab,
        options.lasting.unwrap_or(scenario.duration),
        &interrupted,
    );
    let asked = lived.and_then(|outcome| {
        lab.end_agents()?;
        Ok((outcome, ask(&lab, begin)?))
    });
    if asked.is_err() {
        lab.show_logs();
    }
    let regions = regions_by_address(&lab.world);
    let mut stats = lab.end()?;
    let (outcome, measured) = asked?;
    let network = scenario.network();
    let Some(witness) = stats.witness.take() else {
        bail!("the router lost its witness");
    };
    let not_followed = witness.not_followed;
    let open_at_most = open_at_most(&scenario.policy);
    let mut rows = Vec::new();
    for (Asked { from, to, kind }, seen) in witness.finish() {
        let (Some(from), Some(to)) = (regions.get(&from), regions.get(&to)) else {
            continue;
        };
        let key = (from.clone(), to.clone(), kind);
        rows.push(Row {
            told: [network.effective(from, to), network.effective(to, from)],
            measured: measured.get(&key).copied().unwrap_or_default(),
            from: key.0,
            to: key.1,
            kind,
            seen,
            open_at_most,
        });
    }
    let table = render(&rows);
    println!("{table}");
    println!("the emulated network: {}", stats.summary());
    let differing: Vec<&Row> = rows.iter().filter(|row| !row.agrees()).collect();
    let probes: u64 = rows.iter().map(|row| row.seen.sent).sum();
    println!(
        "{probes} probes on {} paths; the accounts of {} paths differ by more than what was under way in the end",
        rows.len(),
        differing.len()
    );
    if not_followed > 0 {
        bail!("the witness could not follow {not_followed} probes: shorten the world");
    }
    Ok(match outcome {
        Outcome::AsExpected if !differing.is_empty() || rows.is_empty() => Outcome::Otherwise,
        other => other,
    })
}

/// Lets the world live.
fn live(
    lab: &mut Lab<'_>,
    duration: Duration,
    interrupted: &AtomicBool,
) -> anyhow::Result<Outcome> {
    lab.await_agents(interrupted)?;
    let start = Instant::now();
    while start.elapsed() < duration {
        if interrupted.load(Ordering::Relaxed) {
            return Ok(Outcome::Interrupted);
        }
        lab.check_processes()?;
        thread::sleep(LOOK_EVERY);
    }
    Ok(Outcome::AsExpected)
}

/// Probes of a path that the agents' end can cut off: those of an expiry, and of the last window.
fn open_at_most(policy: &Policy) -> u64 {
    let probing = &policy.probing;
    let seconds = (probing.expiry + 2 * probing.window).as_secs_f64();
    (seconds / probing.interval.as_secs_f64()).ceil() as u64
}

fn regions_by_address(world: &World) -> BTreeMap<std::net::IpAddr, RegionId> {
    let sites = world.agents.iter();
    sites
        .flat_map(|site| site.addresses.map(|address| (address, site.region.clone())))
        .collect()
}

impl Row {
    /// Whether both accounts agree, but for what was under way in the end: probes that the witness saw come back or get
    /// lost when nobody counted any more, and lost replies that no later reply has located.
    fn agrees(&self) -> bool {
        let (seen, measured) = (&self.seen, &self.measured);
        let lost_seen = seen.lost_forward + seen.lost_backward + seen.not_answered;
        let ended = measured.answered + measured.lost;
        let open = seen.sent.saturating_sub(ended);
        let near = |a: u64, b: u64| a.abs_diff(b) <= open;
        if open > self.open_at_most || seen.not_answered > self.not_answered_at_most() {
            return false;
        }
        let located = measured
            .lost_where
            .is_none_or(|[forward, backward, unknown]| {
                let unlocated =
                    open + unknown + measured.lost.saturating_sub(forward + backward + unknown);
                forward <= seen.lost_forward + self.misplaced_at_most()
                    && backward <= seen.lost_backward + seen.not_answered
                    && seen.lost_forward.saturating_sub(forward) <= unlocated
            });
        ended <= seen.sent
            && near(measured.answered, seen.answered)
            && near(measured.lost, lost_seen)
            && located
    }

    /// Probes that reach their target and are not answered are our own doing, but for one in a hundred that a busy host may
    /// drop; and of SYNs those whose port the target keeps half open because two resets in a row were lost, and those that
    /// follow until the target asks again.
    fn not_answered_at_most(&self) -> u64 {
        let loss = self.told[0].loss.get();
        (self.seen.sent as f64 * (3.0 * loss * loss + 0.01)).ceil() as u64
            + 1
            + self.not_yet_known()
    }

    /// Reflectors answer an agent only once their mesh names it, which takes up to a second or two after it has joined.
    fn not_yet_known(&self) -> u64 {
        match self.kind {
            ProbeKind::Stamp => self.open_at_most,
            ProbeKind::Icmp | ProbeKind::TcpSyn => 0,
        }
    }

    /// Of probes whose request was overtaken and whose reply was then lost, the next reply says what it would say if the
    /// request had been lost.
    fn misplaced_at_most(&self) -> u64 {
        let overtaken = self.told[0].reorder.get();
        (2.0 * overtaken * self.seen.lost_backward as f64).ceil() as u64 + self.not_yet_known()
    }

    /// By how much a measured quantile exceeds what the witness saw, microseconds.
    fn rtt_error_us(&self) -> Option<[f64; 3]> {
        let measured = self.measured.rtt_us?;
        let error = |n: usize| {
            let seen_ns = self.seen.transit.value_at_quantile(QUANTILES[n]);
            measured[n] - seen_ns as f64 / 1_000.0
        };
        Some([error(0), error(1), error(2)])
    }
}

/// The table, as Markdown.
fn render(rows: &[Row]) -> String {
    let mut text = String::from(
        "| path | the network was told, there; back | kind | probes | lost there; back; at the target: seen | measured | out of order there; back: seen | measured \
         | RTT p50 / p90 / p99 seen, ms | measured more by, us |\n|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let (seen, measured) = (&row.seen, &row.measured);
        let lost = match measured.lost_where {
            None => measured.lost.to_string(),
            Some([there, back, 0]) => format!("{there}; {back}"),
            Some([there, back, unknown]) => format!("{there}; {back}; {unknown} unknown"),
        };
        let reordered = measured.reordered.map_or_else(
            || "-".to_owned(),
            |[there, back]| format!("{there}; {back}"),
        );
        let rtt = QUANTILES.map(|quantile| {
            format!(
                "{:.3}",
                seen.transit.value_at_quantile(quantile) as f64 / 1e6
            )
        });
        let error = row.rtt_error_us().map_or_else(
            || "-".to_owned(),
            |error| error.map(|us| format!("{us:.0}")).join(" / "),
        );
        // A SYN's number is no count.
        let reordered_seen = match row.kind {
            ProbeKind::TcpSyn => "-".to_owned(),
            _ => format!("{}; {}", seen.reordered[0], seen.reordered[1]),
        };
        let mark = if row.agrees() { "" } else { " **differs**" };
        let _ = writeln!(
            text,
            "| {} to {} | {}; {} | {} | {}{mark} | {}; {}; {} | {lost} | {} | {reordered} | {} | {error} |",
            row.from,
            row.to,
            told(&row.told[0]),
            told(&row.told[1]),
            row.kind,
            seen.sent,
            seen.lost_forward,
            seen.lost_backward,
            seen.not_answered,
            reordered_seen,
            rtt.join(" / "),
        );
    }
    text
}

/// What a link was told to do, in few words.
fn told(state: &LinkState) -> String {
    let mut text = format!("{} ms", state.delay.as_secs_f64() * 1e3);
    if !state.jitter.is_zero() {
        let _ = write!(text, " ± {}", state.jitter.as_secs_f64() * 1e3);
    }
    let shares = [
        ("loses", state.loss.get()),
        ("reorders", state.reorder.get()),
        ("doubles", state.duplicate.get()),
    ];
    for (word, share) in shares.into_iter().filter(|&(_, share)| share > 0.0) {
        let _ = write!(text, ", {word} {} %", (share * 1e4).round() / 100.0);
    }
    text
}

/// What the agents say of every path since `begin`.
fn ask(lab: &Lab<'_>, begin: Timestamp) -> anyhow::Result<BTreeMap<Path, Measured>> {
    let end = SystemClock.now();
    let mut measured = BTreeMap::new();
    for from in &lab.world.regions {
        for to in lab.world.regions.iter().filter(|to| *to != from) {
            for kind in ProbeKind::ALL {
                let history = lab
                    .api
                    .history([from, to], kind, [begin, end], &QUANTILES)?;
                measured.insert((from.clone(), to.clone(), kind), sum(kind, &history)?);
            }
        }
    }
    Ok(measured)
}

/// A history of one point, or of none.
fn sum(kind: ProbeKind, history: &v1::LinkHistory) -> anyhow::Result<Measured> {
    let [point] = history.points.as_slice() else {
        ensure!(
            history.points.is_empty(),
            "a history of more than one point"
        );
        return Ok(Measured::default());
    };
    let directions = point.directions.filter(|_| kind == ProbeKind::Stamp);
    Ok(Measured {
        answered: point.answered,
        lost: point.unanswered,
        lost_where: directions
            .map(|of| [of.forward.lost, of.backward.lost, of.lost_unknown].map(u64::from)),
        reordered: directions
            .map(|of| [of.forward.reordered, of.backward.reordered].map(u64::from)),
        rtt_us: point.rtt.as_ref().and_then(|rtt| {
            let quantiles: [u32; 3] = rtt.quantiles_us.as_slice().try_into().ok()?;
            Some(quantiles.map(f64::from))
        }),
    })
}
