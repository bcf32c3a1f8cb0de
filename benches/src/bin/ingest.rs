//! What durable ingest costs: windows per second of the aggregator's CPU time, end to end over QUIC, until the word that
//! they are on disk. Beside it, in the same run, Debian's Prometheus taking as many samples by remote write; a sample
//! is one number and a window some twenty and a histogram.
//!
//! And whether what is live waits for what is not: the delay from sending a batch to its acknowledgement, while other
//! agents send hours that they could not send before.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use leeward_benches::{
    figure::{Figures, Target},
    installation::{Installation, Order},
    load::{self, Authority, Session, frames},
    measure::{median, quantile},
    process, remote_write,
};
use leeward_common::time::{Clock as _, SystemClock};
use quinn::Endpoint;
use tokio::{task::JoinSet, time::Interval};

const AGENTS: u32 = 8;
const PATHS: u32 = 1_000;
/// Windows of each agent in a round.
const WINDOWS: u32 = 60;
const ROUNDS: u32 = 5;
/// Batches that an agent has under way.
const UNDER_WAY: usize = 32;
const SECOND: Duration = Duration::from_secs(1);

/// Agents that measure now, and paths of each; and the batches that each of the others has kept.
const LIVE: u32 = 20;
const LIVE_PATHS: u32 = 100;
const BACKLOG: u32 = 6 * 3_600;
const BACKLOG_AGENTS: u32 = 2;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut figures = Figures::new("ingest");
    let installation = Installation::start(Order {
        agents: 0,
        ..Order::default()
    })?;
    let authority = Authority::read(&installation.pki())?;
    let endpoint = load::endpoint()?;
    let bed = Bed {
        installation: &installation,
        authority: &authority,
        endpoint: &endpoint,
    };
    throughput(&mut figures, &bed).await?;
    live_beside_backlog(&mut figures, &bed).await?;
    figures.print();
    Ok(())
}

struct Bed<'a> {
    installation: &'a Installation,
    authority: &'a Authority,
    endpoint: &'a Endpoint,
}

impl Bed<'_> {
    /// A connected agent that has announced its paths, all to one region.
    async fn agent(&self, name: &str, paths: u32) -> anyhow::Result<Session> {
        let identity = self.authority.agent("virginia", name)?;
        let to = self.installation.listen();
        let mut session = Session::open(self.endpoint, to, &identity, 1).await?;
        session
            .announce(load::paths(name, &["oregon"], paths)?)
            .await?;
        Ok(session)
    }
}

async fn throughput(figures: &mut Figures, bed: &Bed<'_>) -> anyhow::Result<()> {
    let aggregator = bed.installation.aggregator();
    let mut sessions = Vec::new();
    for at in 0..AGENTS {
        sessions.push(bed.agent(&format!("load{at}"), PATHS).await?);
    }
    let peer = remote_write::Prometheus::start();
    let (mut per_core, mut per_second, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    let mut bytes_each = 0.0;
    for round in 0..ROUNDS {
        let mut work = JoinSet::new();
        let mut prepared = Vec::new();
        for session in sessions.drain(..) {
            let first = u64::from(round * WINDOWS);
            let frames = frames(&session.agent, first, WINDOWS, PATHS, SystemClock.now())?;
            prepared.push((session, frames));
        }
        let rows = f64::from(AGENTS * WINDOWS * PATHS);
        let bytes: usize = prepared
            .iter()
            .flat_map(|(_, frames)| frames)
            .map(Vec::len)
            .sum();
        bytes_each = bytes as f64 / rows;
        let (began, before) = (Instant::now(), process::cpu(aggregator)?);
        for (mut session, frames) in prepared {
            work.spawn(async move { session.deliver(&frames, UNDER_WAY).await.map(|()| session) });
        }
        for done in work.join_all().await {
            sessions.push(done?);
        }
        let spent = process::cpu(aggregator)? - before;
        per_core.push(rows / spent.as_secs_f64());
        per_second.push(rows / began.elapsed().as_secs_f64());
        if let Ok(peer) = &peer {
            let (samples, spent) = peer.take(AGENTS * WINDOWS, PATHS)?;
            theirs.push(samples as f64 / spent.as_secs_f64());
        }
    }
    if let Err(error) = peer {
        eprintln!("SKIPPED: ingest: Prometheus beside us: {error:#}");
    }
    let ours = median(per_core).context("no rounds")?;
    let mut figure = figures.figure("durable windows per second of CPU", ours, "1/s");
    if let Some(theirs) = median(theirs) {
        figure = figure.beside("Prometheus, samples", theirs);
    }
    figures.push(figure.target(Target::AtLeast(1e6)));
    let both = median(per_second).context("no rounds")?;
    let name = "durable windows per second, sender on the same cores";
    figures.push(figures.figure(name, both, "1/s"));
    figures.push(figures.figure("bytes of a window, framed", bytes_each, "B"));
    Ok(())
}

/// The 99th percentile of the time to an acknowledgement for agents that send a batch every second.
async fn live_beside_backlog(figures: &mut Figures, bed: &Bed<'_>) -> anyhow::Result<()> {
    let mut live = Vec::new();
    for at in 0..LIVE {
        live.push(bed.agent(&format!("live{at}"), LIVE_PATHS).await?);
    }
    let mut turn = tokio::time::interval(SECOND);
    let mut alone = rounds(&mut live, &mut turn, 0, 20).await?;
    let mut late = JoinSet::new();
    for at in 0..BACKLOG_AGENTS {
        let mut session = bed.agent(&format!("late{at}"), LIVE_PATHS).await?;
        let frames = frames(&session.agent, 0, BACKLOG, LIVE_PATHS, SystemClock.now())?;
        late.spawn(async move {
            let began = Instant::now();
            let delivered = session.deliver(&frames, UNDER_WAY).await;
            delivered.map(|()| began.elapsed())
        });
    }
    let mut beside = Vec::new();
    let mut round = 20;
    while !late.is_empty() {
        beside.extend(rounds(&mut live, &mut turn, round, 1).await?);
        round += 1;
        while let Some(done) = late.try_join_next() {
            eprintln!(
                "six hours of {LIVE_PATHS} paths were taken in {:.1?}",
                done??
            );
        }
    }
    let p99 = |delays: &mut Vec<f64>| quantile(delays, 0.99).context("nothing was sent");
    let (alone, beside) = (p99(&mut alone)?, p99(&mut beside)?);
    figures.push(figures.figure("live batch to acknowledgement, p99", alone, "ms"));
    let name = "the same while six hours are sent in by others";
    figures.push(figures.figure(name, beside, "ms"));
    let figure = figures.figure("ratio of the two", beside / alone, "x");
    figures.push(figure.target(Target::AtMost(1.5)));
    Ok(())
}

/// Every agent sends a batch every second; how long each took to be acknowledged, milliseconds.
async fn rounds(
    live: &mut Vec<Session>,
    turn: &mut Interval,
    first: u64,
    rounds: u64,
) -> anyhow::Result<Vec<f64>> {
    let mut delays = Vec::new();
    for sequence in first..first + rounds {
        turn.tick().await;
        let mut work = JoinSet::new();
        for mut session in live.drain(..) {
            let frames = frames(&session.agent, sequence, 1, LIVE_PATHS, SystemClock.now())?;
            work.spawn(async move {
                let began = Instant::now();
                let delivered = session.deliver(&frames, 1).await;
                delivered.map(|()| (session, began.elapsed()))
            });
        }
        for done in work.join_all().await {
            let (session, took) = done?;
            delays.push(took.as_secs_f64() * 1e3);
            live.push(session);
        }
    }
    Ok(delays)
}
