//! Two thousand agents connect at once, lose their connections, and connect again: how long it takes, both ends on this
//! machine, and what memory each costs the aggregator. Then all of them send a batch every second while the aggregator is
//! restarted, as for an update: how long a batch waits at most, and whether every one was acknowledged.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use leeward_benches::{
    figure::{Figures, Target},
    installation::{Installation, Order},
    load::{self, Authority, Identity, Session},
    measure::median,
    process,
};
use leeward_common::time::{Clock as _, SystemClock};
use quinn::Endpoint;
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
    time::timeout,
};

const AGENTS: u32 = 2_000;
/// How many connect at once, beside all of them: agents wait for a random time before they come back.
const AT_ONCE: usize = 64;
const ROUNDS: u64 = 3;
/// Paths of an agent that sends.
const PATHS: u32 = 10;
const SECOND: Duration = Duration::from_secs(1);
const REGIONS: [&str; 4] = ["virginia", "oregon", "ireland", "frankfurt"];

/// As real agents: then they try again.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A busy machine needs longer, and says so.
const PATIENCE: Duration = Duration::from_secs(60);

/// CPU time of the aggregator and of this process so far, seconds.
fn spent(aggregator: u32) -> anyhow::Result<[f64; 2]> {
    let [theirs, own] = [aggregator, std::process::id()].map(process::cpu);
    Ok([theirs?.as_secs_f64(), own?.as_secs_f64()])
}

fn cores() -> f64 {
    std::thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64)
}

/// An agent, with a socket of its own as where it runs.
#[derive(Clone, Debug)]
struct Agent {
    identity: Identity,
    endpoint: Endpoint,
}

/// Opens a session for each agent, so many at once.
async fn connect(
    agents: &[Agent],
    to: SocketAddr,
    boot_epoch: u64,
    at_once: usize,
) -> anyhow::Result<Vec<Session>> {
    let places = Arc::new(Semaphore::new(at_once));
    let mut work = JoinSet::new();
    for agent in agents {
        let (agent, places) = (agent.clone(), places.clone());
        work.spawn(async move {
            let _place = places.acquire().await?;
            // As an agent does: again, when it was not heard.
            let deadline = Instant::now() + PATIENCE;
            loop {
                let open = Session::open(&agent.endpoint, to, &agent.identity, boot_epoch);
                match timeout(CONNECT_TIMEOUT, open).await {
                    Ok(Ok(session)) => return Ok(session),
                    _ if Instant::now() < deadline => {}
                    Ok(Err(error)) => return Err(error),
                    Err(_) => bail!("nobody was heard in time"),
                }
            }
        });
    }
    work.join_all().await.into_iter().collect()
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut figures = Figures::new("storm");
    let mut installation = Installation::start(Order {
        agents: 0,
        ..Order::default()
    })?;
    let authority = Authority::read(&installation.pki())?;
    let agent = |at: u32| {
        Ok(Agent {
            identity: authority.agent(REGIONS[at as usize % 4], &format!("agent{at}"))?,
            endpoint: Endpoint::client((Ipv4Addr::LOCALHOST, 0).into())
                .context("a socket for each agent: ulimit -n 20000")?,
        })
    };
    let agents: Vec<Agent> = (0..AGENTS).map(agent).collect::<anyhow::Result<_>>()?;
    let aggregator = installation.aggregator();
    let before = process::resident(aggregator)?;
    let mut each = 0.0;
    let mut boot_epoch = 0;
    for at_once in [AT_ONCE, AGENTS as usize] {
        let mut storms = Vec::new();
        for _ in 0..ROUNDS {
            boot_epoch += 1;
            let began = (Instant::now(), spent(aggregator)?);
            let sessions = connect(&agents, installation.listen(), boot_epoch, at_once).await?;
            let ended = spent(aggregator)?;
            storms.push([
                began.0.elapsed().as_secs_f64(),
                ended[0] - began.1[0],
                ended[1] - began.1[1],
            ]);
            ensure!(sessions.len() == AGENTS as usize, "somebody is missing");
            if boot_epoch == 1 {
                let more = process::resident(aggregator)?.saturating_sub(before);
                each = more as f64 / f64::from(AGENTS) / 1024.0;
            }
            for session in &sessions {
                session.connection.close(0u32.into(), b"again");
            }
            for agent in &agents {
                agent.endpoint.wait_idle().await;
            }
        }
        let of = |what: usize| {
            let all = storms.iter().map(|storm| storm[what]).collect();
            median(all).context("no rounds")
        };
        let how = match at_once == AGENTS as usize {
            true => "all at once".to_owned(),
            false => format!("{at_once} at a time"),
        };
        // Both ends share the processors, so it cannot take less than this.
        let least = (of(1)? + of(2)?) / cores();
        let name = format!("{AGENTS} agents connected, {how}, both ends on this machine");
        let figure = figures.figure(name, of(0)?, "s");
        let figure = figure.beside("CPU time of both / cores", least);
        figures.push(figure.target(Target::AtMost(2.0)));
        let name = format!("aggregator's CPU for each, {how}");
        let figure = figures.figure(name, of(1)? * 1e3 / f64::from(AGENTS), "ms");
        figures.push(figure.beside("of the load generator", of(2)? * 1e3 / f64::from(AGENTS)));
    }
    let figure = figures.figure("aggregator's memory for each, all in", each, "KiB");
    figures.push(figure.target(Target::AtMost(64.0)));
    restart_under_load(&mut figures, &mut installation, agents).await?;
    figures.print();
    Ok(())
}

/// Every agent sends a batch each second; in between the aggregator is restarted.
async fn restart_under_load(
    figures: &mut Figures,
    installation: &mut Installation,
    agents: Vec<Agent>,
) -> anyhow::Result<()> {
    let (to, stop) = (installation.listen(), watch::Sender::new(false));
    let mut work = JoinSet::new();
    for (at, agent) in agents.into_iter().enumerate() {
        let agent = Live {
            agent,
            to,
            wait: Duration::from_micros(1_000_000 * at as u64 / u64::from(AGENTS)),
        };
        work.spawn(agent.run(stop.subscribe()));
    }
    tokio::time::sleep(Duration::from_secs(8)).await;
    let began = Instant::now();
    tokio::task::block_in_place(|| installation.restart_aggregator())?;
    let down = began.elapsed().as_secs_f64();
    tokio::time::sleep(Duration::from_secs(12)).await;
    stop.send_replace(true);
    let (mut batches, mut connects, mut longest, mut waits) = (0, 0, 0.0_f64, Vec::new());
    for done in work.join_all().await {
        let told = done?;
        batches += told.waits.len();
        connects += told.connects;
        let most = told.waits.iter().copied().fold(0.0, f64::max);
        longest = longest.max(most);
        waits.extend(told.waits);
    }
    eprintln!(
        "{batches} batches acknowledged over {connects} connections; the aggregator took {down:.2} s to end and be started"
    );
    let name = format!("restart under load of {AGENTS} agents, longest wait of a batch");
    figures.push(figures.figure(name, longest, "s"));
    let half = median(waits).context("no batches")? * 1e3;
    figures.push(figures.figure("batch to acknowledgement, median of all", half, "ms"));
    Ok(())
}

/// An agent that sends a batch every second, and what it has to tell.
struct Live {
    agent: Agent,
    to: SocketAddr,
    /// When within the second, and before it connects again: agents do so at random.
    wait: Duration,
}

struct Told {
    /// Seconds from each batch to its acknowledgement.
    waits: Vec<f64>,
    connects: u32,
}

impl Live {
    async fn run(self, stop: watch::Receiver<bool>) -> anyhow::Result<Told> {
        let mut told = Told {
            waits: Vec::new(),
            connects: 0,
        };
        let mut session = None;
        let mut turn = tokio::time::interval_at((Instant::now() + self.wait).into(), SECOND);
        let mut sequence = 0;
        while !*stop.borrow() {
            turn.tick().await;
            let frames = load::frames(
                &self.agent.identity.agent,
                sequence,
                1,
                PATHS,
                SystemClock.now(),
            )?;
            let began = Instant::now();
            while let Err(error) = self.deliver(&mut session, &mut told, &frames).await {
                ensure!(began.elapsed() < PATIENCE, "in vain: {error:#}");
                session = None;
                tokio::time::sleep(self.wait / 2).await;
            }
            told.waits.push(began.elapsed().as_secs_f64());
            sequence += 1;
        }
        Ok(told)
    }

    async fn deliver(
        &self,
        session: &mut Option<Session>,
        told: &mut Told,
        frames: &[Vec<u8>],
    ) -> anyhow::Result<()> {
        let session = match session {
            Some(session) => session,
            None => {
                let mut new =
                    Session::open(&self.agent.endpoint, self.to, &self.agent.identity, 1).await?;
                let name = self.agent.identity.agent.as_str();
                new.announce(load::paths(name, &REGIONS, PATHS)?).await?;
                told.connects += 1;
                session.insert(new)
            }
        };
        session.deliver(frames, 1).await
    }
}
