//! Real daemons on loopback: what an agent's memory is with routers, and how soon the aggregator's answer follows an UPDATE.

use std::{
    fmt::Write as _,
    net::{Ipv4Addr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use ipnet::IpNet;
use leeward_common::api::v1;

use super::{
    corpus::{self, Told},
    speaker::Speaker,
};
use crate::{
    figure::{Figures, Target},
    http::Client,
    installation::{Installation, Order, free_address},
    measure::quantile,
    process,
    samples::Random,
};

/// A full table, IPv4 and IPv6 together, and how many paths it has (both measured on the Internet in 2025).
const ROUTES: u32 = 1_300_000;
const PATHS: u32 = 263_000;

/// Watched prefixes.
const WATCHED: u32 = 10_000;

/// Withdrawals that are timed, those after which a route is left and those after which none is.
const LOWERED: u32 = 150;
const REFUSED: u32 = 30;

/// The longest that an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The two peers: where they connect from, and their systems.
const PEERS: [(Ipv4Addr, u32); 2] = [
    (Ipv4Addr::new(127, 0, 0, 1), corpus::PEER),
    (Ipv4Addr::new(127, 0, 0, 2), corpus::PEER + 1),
];

/// The `[bgp]` of an agent that listens there and watches these.
fn routers(listen: SocketAddr, table: &str, watched: impl Iterator<Item = IpNet>) -> String {
    let mut text = format!(
        "[bgp]\nlisten = \"{listen}\"\nsystem = 64500\nrouter_id = \"192.0.2.9\"\nhold_time = \"90s\"\ntable = \"{table}\"\n"
    );
    for (address, system) in PEERS {
        let _ = write!(
            text,
            "[[bgp.peer]]\naddress = \"{address}\"\nsystem = {system}\n"
        );
    }
    let watched: Vec<_> = watched.map(|prefix| format!("\"{prefix}\"")).collect();
    let _ = write!(
        text,
        "[[bgp.watch]]\nregion = \"oregon\"\nprefixes = [{}]\n",
        watched.join(", ")
    );
    text
}

/// Memory of an agent whose peer shows a full table, of which it keeps what is watched, or all.
///
/// # Errors
///
/// Returns what could not be started.
pub fn memory(figures: &mut Figures) -> anyhow::Result<()> {
    for (table, limit, what) in [
        (
            "watched",
            40.0,
            format!("{WATCHED} watched prefixes of {ROUTES} that are shown"),
        ),
        (
            "full",
            300.0,
            format!("a full table of {ROUTES} routes by {PATHS} paths"),
        ),
    ] {
        let listen = free_address();
        let every = ROUTES / 5 * 4 / WATCHED;
        let watched = (0..WATCHED).map(|at| corpus::prefix(at * every, false));
        let order = Order {
            agents: 1,
            ..Order::default()
        };
        let mut installation =
            Installation::start_hearing(order, &routers(listen, table, watched))?;
        let agent = installation.agents().next().context("no agent")?;
        let (address, system) = PEERS[0];
        let speaker = Speaker::connect(address, listen, system)?;
        let empty = process::resident(agent)?;
        let before = process::cpu(agent)?;
        let mut message = Vec::new();
        let mut failed = Ok(());
        corpus::table(ROUTES, PATHS, |more| {
            message.extend(more);
            if message.len() > 1 << 20 {
                failed = std::mem::replace(&mut failed, Ok(())).and(speaker.say(&message));
                message.clear();
            }
        });
        failed?;
        speaker.say(&message)?;
        speaker.end_of_table()?;
        believed(&mut installation)?;
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let resident = process::resident(agent)?;
        figures.push(
            figures
                .figure(format!("agent, resident, {what}"), mib(resident), "MiB")
                .beside("the same before", mib(empty))
                .target(Target::AtMost(limit)),
        );
        let cpu = (process::cpu(agent)? - before).as_secs_f64();
        figures.push(figures.figure(format!("CPU until it is there, {what}"), cpu, "s"));
    }
    Ok(())
}

/// Waits until the feed can be believed.
fn believed(installation: &mut Installation) -> anyhow::Result<()> {
    installation.wait("the table to be there", |api| {
        let told =
            Client::connect(api).and_then(|mut client| client.get::<v1::BgpPeers>("/v1/bgp/peers"));
        told.is_ok_and(|told| {
            let all = told.peers.iter();
            let believed =
                all.filter(|peer| peer.standing == leeward_common::bgp::Standing::Believed);
            believed.count() == 1
        })
    })
}

/// An installation of four regions whose first hears two peers, that show the prefixes by which the second is reached.
struct Heard {
    installation: Installation,
    speakers: Vec<Speaker>,
}

impl Heard {
    fn start() -> anyhow::Result<Self> {
        let listen = free_address();
        let watched = (0..LOWERED + REFUSED).map(|at| corpus::prefix(at, false));
        let order = Order {
            agents: 4,
            ..Order::default()
        };
        let routers = routers(listen, "watched", watched.clone());
        let mut installation = Installation::start_hearing(order, &routers)?;
        installation.wait("a selection", |api| {
            Client::connect(api)
                .and_then(|mut client| oregon(&mut client))
                .is_ok_and(|oregon| oregon.score.is_some())
        })?;
        let speakers = PEERS.map(|(address, system)| Speaker::connect(address, listen, system));
        let speakers = speakers.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
        for (speaker, (_, system)) in speakers.iter().zip(PEERS) {
            for prefix in watched.clone() {
                speaker.say(&announcement(prefix, system))?;
            }
            speaker.end_of_table()?;
        }
        // Of IPv4. Of IPv6 nothing is shown, and for that an agent waits longer.
        installation.wait("all tables to be there", |api| {
            let told = Client::connect(api)
                .and_then(|mut client| client.get::<v1::BgpEvents>("/v1/bgp/events?limit=500"));
            told.is_ok_and(|told| {
                let all = told.events.iter();
                let loaded = all.filter(|event| event.kind == "feed_loaded");
                loaded.count() >= PEERS.len()
            })
        })?;
        Ok(Self {
            installation,
            speakers,
        })
    }
}

fn announcement(prefix: IpNet, system: u32) -> Vec<u8> {
    corpus::update(&Told {
        announced: &[prefix],
        path: &[system, 3_356, 64_510],
        ..Told::default()
    })
}

fn withdrawal(prefix: IpNet) -> Vec<u8> {
    corpus::update(&Told {
        withdrawn: &[prefix],
        ..Told::default()
    })
}

fn oregon(client: &mut Client) -> anyhow::Result<v1::Candidate> {
    let failover: v1::Failover = client.get("/v1/failover/virginia")?;
    let mut candidates = failover.candidates.into_iter();
    candidates
        .find(|candidate| candidate.region_id.as_str() == "oregon")
        .context("oregon is no candidate")
}

/// What routing adds to the logarithm of the score, in thousandths.
fn routing(oregon: &v1::Candidate) -> i64 {
    let all = oregon.contributions.iter();
    let routing = all.filter(|own| own.term == "routing");
    routing
        .map(|own| (own.log_value * 1e3).round() as i64)
        .sum()
}

/// Asks until something holds; milliseconds since it began.
fn until(
    client: &mut Client,
    begun: Instant,
    holds: impl Fn(&v1::Candidate) -> bool,
) -> anyhow::Result<f64> {
    loop {
        if holds(&oregon(client)?) {
            return Ok(begun.elapsed().as_secs_f64() * 1e3);
        }
        ensure!(
            begun.elapsed() < PATIENCE,
            "waited in vain for an answer; it is {:?}",
            oregon(client)?
        );
        thread::sleep(Duration::from_micros(500));
    }
}

/// From the UPDATE that is written to the answer that shows what came of it.
///
/// # Errors
///
/// Returns what could not be started, or was never answered.
pub fn latency(figures: &mut Figures) -> anyhow::Result<()> {
    let heard = Heard::start()?;
    let mut client = Client::connect(heard.installation.api())?;
    let mut random = Random::new(7);
    let mut pause = || thread::sleep(Duration::from_secs_f64(0.02 + 0.1 * random.even()));
    let [one, other] = &heard.speakers[..] else {
        anyhow::bail!("not two peers");
    };
    let mut lowered = Vec::new();
    // The first peer still shows a route: half of those who showed one withdrew it, and the weight is lower by a factor of √2.
    let half = (-0.5 * 2f64.ln() * 1e3).round() as i64;
    for at in 0..LOWERED {
        pause();
        let prefix = corpus::prefix(at, false);
        let begun = Instant::now();
        other.say(&withdrawal(prefix))?;
        lowered.push(until(&mut client, begun, |oregon| routing(oregon) <= half)?);
        pause();
        other.say(&announcement(prefix, PEERS[1].1))?;
        until(&mut client, Instant::now(), |oregon| routing(oregon) > half)?;
    }
    let mut refused = Vec::new();
    for at in LOWERED..LOWERED + REFUSED {
        pause();
        let prefix = corpus::prefix(at, false);
        other.say(&withdrawal(prefix))?;
        pause();
        let begun = Instant::now();
        one.say(&withdrawal(prefix))?;
        refused.push(until(&mut client, begun, |oregon| !oregon.eligible)?);
        pause();
        for (speaker, (_, system)) in heard.speakers.iter().zip(PEERS) {
            speaker.say(&announcement(prefix, system))?;
        }
        until(&mut client, Instant::now(), |oregon| oregon.eligible)?;
    }
    for (what, all, limit) in [
        ("UPDATE written to score changed", &mut lowered, 50.0),
        (
            "last route withdrawn to candidate refused",
            &mut refused,
            500.0,
        ),
    ] {
        let count = all.len();
        for (name, q) in [("p50", 0.5), ("p99", 0.99)] {
            let value = quantile(all, q).context("nothing was timed")?;
            let figure = figures.figure(format!("{what}, {name} of {count}"), value, "ms");
            figures.push(match name {
                "p99" => figure.target(Target::AtMost(limit)),
                _ => figure,
            });
        }
    }
    Ok(())
}
