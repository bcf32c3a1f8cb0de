//! A burst through a real session, and whether probing is disturbed by it.

use std::{
    net::Ipv4Addr,
    sync::{Arc, atomic::Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use leeward_agent::{
    bgp::{
        live::{Bound, Figures as Heard, start},
        session,
    },
    config::{Bgp, BgpPeer},
    prober::ProberHandle,
};
use leeward_common::{
    bgp::{Change, FeedChange, RoutingEvent, What},
    finding::Finding,
};
use tokio::sync::mpsc;

use super::{corpus, ingest, speaker::Speaker};
use crate::{
    figure::{Figures, Target},
    installation::free_address,
    probe,
};

/// Withdrawals of the burst.
const BURST: u32 = 1_000_000;

/// The longest that anything may take: a session's table counts after two quiet stretches of ten seconds.
const PATIENCE: Duration = Duration::from_secs(120);

struct Listening {
    speaker: Speaker,
    found: mpsc::Receiver<Finding>,
    heard: Arc<Heard>,
}

impl Listening {
    fn start() -> anyhow::Result<Self> {
        let listen = free_address();
        let peer = BgpPeer {
            session: session::Peer {
                address: Ipv4Addr::LOCALHOST.into(),
                system: corpus::PEER,
                own_system: 64_500,
                router_id: Ipv4Addr::new(192, 0, 2, 9),
                hold_time: Duration::from_secs(90),
            },
            gtsm: false,
            signature_key: None,
        };
        let config = Bgp {
            listen: Some(listen),
            peers: vec![peer],
            watch: ingest::watchlist(ingest::WATCHED, BURST).all().to_vec(),
            ..Bgp::default()
        };
        let (out, found) = mpsc::channel(16);
        let heard = start(&config, Bound::bind(&config)?, out)?;
        let speaker = Speaker::connect(Ipv4Addr::LOCALHOST, listen, corpus::PEER)?;
        Ok(Self {
            speaker,
            found,
            heard,
        })
    }

    /// The next events.
    fn events(&mut self) -> anyhow::Result<Vec<RoutingEvent>> {
        match self
            .found
            .blocking_recv()
            .context("nobody listens any more")?
        {
            Finding::Routing(routing) => Ok(routing.events),
            _ => Ok(Vec::new()),
        }
    }

    /// Waits for an event.
    fn until(&mut self, is_it: impl Fn(&What) -> bool) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if self.events()?.iter().any(|event| is_it(&event.what)) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "waited in vain for the table");
        }
    }
}

/// Measures it: one prefix per message, and as many as fit.
///
/// # Errors
///
/// Returns what could not be measured.
pub fn burst(figures: &mut Figures) -> anyhow::Result<()> {
    let prober = probe::start();
    if let Err(error) = &prober {
        let why = format!("{error:#}; run as root");
        figures.skip(
            "send-time error of a prober beside the burst, p99",
            "us",
            &why,
        );
    }
    let prober = match prober {
        Ok((prober, mut windows)) => {
            prober.set_plan(probe::plan(
                100,
                Duration::from_millis(100),
                Duration::from_secs(1),
            ))?;
            thread::spawn(move || while windows.blocking_recv().is_some() {});
            Some(prober)
        }
        Err(_) => None,
    };
    for (packed, how) in [(1, "one a message"), (1_000, "a thousand a message")] {
        one_burst(figures, prober.as_ref(), packed, how)?;
    }
    if let Some(prober) = prober {
        prober.stop();
    }
    Ok(())
}

fn one_burst(
    figures: &mut Figures,
    prober: Option<&ProberHandle>,
    packed: usize,
    how: &str,
) -> anyhow::Result<()> {
    let mut listening = Listening::start()?;
    let mut table = Vec::new();
    corpus::table(BURST + BURST / 4, 250_000, |message| table.extend(message));
    let (speaking, said) = std::sync::mpsc::channel();
    let withdrawals: Vec<u8> = (0..BURST)
        .map(|at| corpus::prefix(at, false))
        .collect::<Vec<_>>()
        .chunks(packed)
        .flat_map(|withdrawn| {
            corpus::update(&corpus::Told {
                withdrawn,
                ..corpus::Told::default()
            })
        })
        .collect();
    let messages = u64::from(BURST).div_ceil(packed as u64);
    listening.speaker.say(&table)?;
    drop(table);
    listening.speaker.end_of_table()?;
    listening.until(|what| matches!(what, What::Feed(FeedChange::Loaded)))?;
    let lateness = || prober.map(|prober| prober.counters().lateness);
    let before = lateness();
    thread::sleep(Duration::from_secs(5));
    let (calm, updates) = (lateness(), listening.heard.updates.load(Relaxed));
    let Listening {
        speaker,
        mut found,
        heard,
    } = listening;
    let begun = Instant::now();
    let speaking = thread::spawn(move || {
        // A peer has a machine of its own; here it is not to take the prober's core.
        let _ = leeward_agent::net::priority::give_way();
        let said = speaker.say(&withdrawals);
        _ = speaking.send(speaker);
        said
    });
    let mut told = 0;
    while told < ingest::WATCHED {
        if let Finding::Routing(routing) =
            found.blocking_recv().context("nobody listens any more")?
        {
            let is_withdrawn = |event: &&RoutingEvent| {
                matches!(
                    &event.what,
                    What::Prefix {
                        change: Change::Withdrawn { .. },
                        ..
                    }
                )
            };
            told += routing.events.iter().filter(is_withdrawn).count() as u32;
        }
        if begun.elapsed() > PATIENCE {
            break;
        }
    }
    while heard.updates.load(Relaxed) - updates < messages && begun.elapsed() < PATIENCE {
        // The last prefix that is watched is not the last that is withdrawn.
        _ = found.try_recv();
        thread::sleep(Duration::from_micros(100));
    }
    let seconds = begun.elapsed().as_secs_f64();
    // The prober's account is renewed every second.
    thread::sleep(Duration::from_millis(1_200));
    let after = lateness();
    _ = speaking.join();
    drop(said);
    let name = |what: &str| format!("{what}, {BURST} withdrawals, {how}");
    figures.push(
        figures
            .figure(name("burst read, counted and told"), seconds, "s")
            .target(Target::AtMost(5.0)),
    );
    let missed = messages.saturating_sub(heard.updates.load(Relaxed) - updates);
    figures.push(
        figures
            .figure(name("messages that were dropped"), missed as f64, "")
            .target(Target::AtMost(0.0)),
    );
    figures.push(
        figures
            .figure(
                name(&format!("of {} watched prefixes not told", ingest::WATCHED)),
                f64::from(ingest::WATCHED.saturating_sub(told)),
                "",
            )
            .target(Target::AtMost(0.0)),
    );
    if let (Some(before), Some(calm), Some(after)) = (before, calm, after) {
        figures.push(
            figures
                .figure(
                    name("send-time error of a prober beside it, p99"),
                    after.since(&calm).quantile(0.99) as f64,
                    "us",
                )
                .beside("before it", calm.since(&before).quantile(0.99) as f64),
        );
    }
    Ok(())
}
