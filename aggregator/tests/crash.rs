//! Real agents and real aggregators, killed and restarted again and again, with a network between them that loses, repeats and
//! disorders datagrams or lets none through, and with clocks that jump: what was acknowledged is there, and there once.
//! Loopback only.
//!
//! Kills go on for LEEWARD_CRASH_SECONDS, 60 if that is not set. The partition lasts for LEEWARD_PARTITION_WINDOWS windows of
//! each agent, 300 if that is not set; 3600 are those of an hour.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr},
    ops::ControlFlow,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use leeward_aggregator::store::{Read as _, key::Column, record::v1::Record, rocks::Rocks};
use leeward_common::{
    time::Timestamp,
    wire::{batch, findings},
};
use leeward_testing::free_port;
use rcgen::SanType;
use support::{
    Installation,
    daemon::{Aggregator, TOKEN},
    network::{Dice, Network, Weather},
    now,
    real_agent::{Clock, RealAgent, binary},
};

const PATIENCE: Duration = Duration::from_secs(60);

/// What a killed agent may lose of the time before its end: what was in memory only. `write_after`, how often that is looked
/// after, and a write on a machine that is very busy.
const IN_MEMORY: Duration = Duration::from_secs(10);

const AGENTS: [(&str, &str); 3] = [("iad", "iad-1"), ("dub", "dub-1"), ("pdx", "pdx-1")];

/// Windows of 200 ms with a probe every 50, so that there is much to lose.
const PROBING: &str =
    "[probing]\nkinds = ['icmp']\ninterval = '50ms'\nwindow = '200ms'\nexpiry = '1s'\n";

/// The shortest windows that there are, so that a long time is short.
const QUICK: &str =
    "[probing]\nkinds = ['icmp']\ninterval = '50ms'\nwindow = '100ms'\nexpiry = '1s'\n";

/// A number that the environment may set.
fn from_environment(name: &str, otherwise: u64) -> u64 {
    let given = std::env::var(name).ok();
    given
        .and_then(|given| given.parse().ok())
        .unwrap_or(otherwise)
}

/// An aggregator that can be reached over UDP through a network, and over TCP beside it.
fn installation(probing: &str) -> (Installation, Network) {
    let installation = Installation::new();
    let own = installation
        .authority
        .issue_with("leeward://aggregator/main", |params| {
            let address = SanType::IpAddress(Ipv4Addr::LOCALHOST.into());
            params.subject_alt_names.push(address);
        });
    installation.write_agent(&own, "aggregator");
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let network = Network::start(listen);
    let policy = format!("{TOKEN}{probing}{}", support::POLICY);
    installation.write_config(&listen.to_string(), "127.0.0.1:0", &policy);
    let config = std::fs::read_to_string(installation.config_path()).unwrap();
    let config = format!("listen_tcp = '{}'\n{config}", network.front);
    installation.write("aggregator.toml", &config);
    (installation, network)
}

fn agents(
    installation: &Installation,
    binary: &Path,
    aggregators: &[SocketAddr],
    uplink: [&str; 3],
) -> [RealAgent; 3] {
    let mut number = 0;
    AGENTS.map(|who| {
        number += 1;
        let of = (binary, number);
        let uplink = uplink[usize::from(number) - 1];
        RealAgent::install(installation, of, who, aggregators, uplink)
    })
}

/// Waits until a condition holds.
fn until(what: &str, condition: impl FnMut() -> bool) {
    until_patiently(what, Duration::ZERO, condition);
}

/// The same, longer by so much.
fn until_patiently(what: &str, longer: Duration, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE + longer;
    while !condition() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Batches and findings of an agent that this life of the aggregator has taken as new.
fn taken(aggregator: &Aggregator, agent: &str) -> u64 {
    let (status, page) = aggregator.ask("GET", "/metrics", "");
    assert_eq!(status, 200);
    let name =
        format!("leeward_aggregator_batches_total{{agent=\"{agent}\",outcome=\"durable\"}} ");
    let value = page.lines().find_map(|line| line.strip_prefix(&name));
    value.map_or(0, |value| value.parse().unwrap())
}

/// What the store has of one agent: how often each message, and when it ended, by boot epoch and sequence.
type Stored = BTreeMap<u64, BTreeMap<u64, (u32, Timestamp)>>;

fn stored(data: &Path) -> BTreeMap<String, Stored> {
    let mut stored: BTreeMap<String, Stored> = BTreeMap::new();
    let store = Rocks::open(data).unwrap();
    let visit = &mut |_: &[u8], value: &[u8]| {
        let (agent, boot_epoch, sequence, at) = match rmp_serde::from_slice(value).unwrap() {
            Record::Batch(record) => {
                let batch = batch::decode(&record.bytes).unwrap();
                (batch.agent, batch.boot_epoch, batch.sequence, batch.until)
            }
            Record::Findings(record) => {
                let found = findings::decode(&record.bytes).unwrap();
                (found.agent, found.boot_epoch, found.sequence, found.at)
            }
            _ => return ControlFlow::Continue(()),
        };
        let of = stored.entry(agent.to_string()).or_default();
        let epoch = of.entry(boot_epoch).or_default();
        epoch.entry(sequence).or_insert((0, at)).0 += 1;
        ControlFlow::Continue(())
    };
    store.scan(Column::Journal, &[], visit).unwrap();
    stored
}

/// The end of what is there without a gap, or the first that is there, and whether anything is missing behind it.
fn without_gap(epoch: &BTreeMap<u64, (u32, Timestamp)>) -> (Timestamp, bool) {
    let whole = epoch
        .iter()
        .zip(0..)
        .take_while(|&((&sequence, _), expected)| sequence == expected);
    let whole: Vec<_> = whole.map(|((_, &(_, at)), _)| at).collect();
    let first = epoch.values().map(|&(_, at)| at).min();
    let end = whole.iter().max().copied().or(first).unwrap();
    (end, whole.len() < epoch.len())
}

/// Everything that the agent measured is delivered, and nothing of it was given up or refused.
fn is_delivered(agent: &RealAgent) {
    let figure = |name| agent.figure(name);
    until("an empty spool", || {
        [figure("batches_waiting"), figure("spool_batches")] == [Some(0), Some(0)]
    });
    assert_eq!(figure("batches_dropped_total"), Some(0), "{}", agent.agent);
    assert_eq!(figure("batches_refused_total"), Some(0), "{}", agent.agent);
}

/// What the store has of these agents: at least as much as this was seen to be acknowledged, nothing twice, and no gap but for
/// what was in memory when an agent was killed. In words.
fn judge(
    data: &Path,
    agents: &[RealAgent],
    acknowledged: &BTreeMap<&str, u64>,
    killed: &BTreeMap<&str, Vec<Timestamp>>,
) -> Vec<String> {
    let stored = stored(data);
    let mut story = Vec::new();
    for agent in agents {
        let of = &stored[agent.agent];
        let messages = of.values().map(BTreeMap::len).sum::<usize>() as u64;
        let twice: Vec<_> = of
            .iter()
            .flat_map(|(epoch, own)| {
                own.iter()
                    .map(move |(sequence, &(times, _))| (epoch, sequence, times))
            })
            .filter(|&(.., times)| times > 1)
            .collect();
        assert!(twice.is_empty(), "{} counted twice: {twice:?}", agent.agent);
        let acknowledged = acknowledged[agent.agent];
        assert!(
            messages >= acknowledged,
            "{}: {acknowledged} acknowledged, {messages} stored",
            agent.agent
        );
        // What is missing in a life was in memory when the agent was killed.
        let no_kill = Vec::new();
        let kills = killed.get(agent.agent).unwrap_or(&no_kill);
        let mut lives_with_gaps = 0;
        for (epoch, own) in of {
            let (end, has_gap) = without_gap(own);
            if !has_gap {
                continue;
            }
            lives_with_gaps += 1;
            let kill = kills.iter().find(|&&kill| kill >= end);
            let kill = kill.unwrap_or_else(|| panic!("{}: {epoch} has a gap", agent.agent));
            assert!(
                kill.since(end) < IN_MEMORY,
                "{}: {epoch} lacks what was older than {IN_MEMORY:?} when it was killed",
                agent.agent
            );
        }
        story.push(format!(
            "{}: {messages} stored of {} lives, {acknowledged} seen to be acknowledged, 0 lost, 0 twice, {lives_with_gaps} lives with a gap at their end",
            agent.agent,
            of.len()
        ));
    }
    let verify = Command::new(env!("CARGO_BIN_EXE_leeward-aggregator"))
        .args(["store", "verify", "--data"])
        .arg(data)
        .output()
        .unwrap();
    assert!(verify.status.success(), "{verify:?}");
    story
}

#[test]
fn what_was_acknowledged_survives_every_kill_and_counts_once() {
    let test = "what_was_acknowledged_survives_every_kill_and_counts_once";
    let Some(binary) = binary(test) else { return };
    let seconds = from_environment("LEEWARD_CRASH_SECONDS", 60);
    let (installation, network) = installation(PROBING);
    let mut dice = Dice::new(u64::from(std::process::id()));
    let mut aggregator = Some(Aggregator::start(&installation, None));
    // The second agent is never killed: of it nothing at all may be missing. The third comes over TCP.
    let mut agents = agents(
        &installation,
        &binary,
        &[network.front],
        [
            "transport = 'quic'",
            "transport = 'quic'",
            "transport = 'tls'",
        ],
    );
    agents.iter_mut().for_each(RealAgent::start);
    network.set(Weather::Bad);
    let mut acknowledged: BTreeMap<&str, u64> = BTreeMap::new();
    let mut killed: BTreeMap<&str, Vec<Timestamp>> = BTreeMap::new();
    let mut aggregators_killed = 0;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(seconds) {
        // Not for synchronisation: at a moment that nobody chose.
        thread::sleep(Duration::from_millis(200 + dice.below(1_000)));
        // What was stored before a kill, and what not, is then known to nobody but the store.
        network.set(Weather::Storm);
        thread::sleep(Duration::from_millis(300 + dice.below(900)));
        let kills = killed.values().map(Vec::len).sum::<usize>() + aggregators_killed;
        // One of each to begin with.
        let whom = if kills < 2 {
            kills as u64
        } else {
            dice.below(4)
        };
        match whom {
            at @ (0 | 2) => {
                let agent = &mut agents[at as usize];
                agent.kill();
                killed.entry(agent.agent).or_default().push(now());
                agent.start();
            }
            _ => {
                let mut dead = aggregator.take().unwrap();
                for agent in &agents {
                    *acknowledged.entry(agent.agent).or_default() += taken(&dead, agent.agent);
                }
                dead.child.kill().unwrap();
                dead.child.wait().unwrap();
                aggregators_killed += 1;
                thread::sleep(Duration::from_millis(dice.below(1_000)));
                aggregator = Some(Aggregator::start(&installation, None));
            }
        }
        network.set(Weather::Bad);
    }
    // At last all is well, and everything is delivered.
    network.set(Weather::Fair);
    agents.iter().for_each(is_delivered);
    let over_tls = agents
        .each_ref()
        .map(|own| own.figure("aggregator_over_tls"));
    assert_eq!(over_tls, [Some(0), Some(0), Some(1)]);
    for agent in &mut agents {
        assert!(agent.terminate().success());
    }
    let aggregator = aggregator.unwrap();
    for agent in &agents {
        *acknowledged.entry(agent.agent).or_default() += taken(&aggregator, agent.agent);
    }
    aggregator.terminate();

    let story = judge(&installation.data(), &agents, &acknowledged, &killed);
    let agents_killed: usize = killed.values().map(Vec::len).sum();
    let [lost, repeated, overtaken] = network.harm();
    assert!(agents_killed > 0 && aggregators_killed > 0 && lost > 0);
    leeward_testing::tell(format_args!(
        "{} crashes: {agents_killed} of agents, {aggregators_killed} of the aggregator; datagrams: {lost} lost, {repeated} \
         repeated, {overtaken} overtaken\n{}",
        agents_killed + aggregators_killed,
        story.join("\n")
    ));
}

#[test]
fn where_udp_is_blocked_agents_come_over_tcp_and_go_back_when_it_is_not() {
    let test = "where_udp_is_blocked_agents_come_over_tcp_and_go_back_when_it_is_not";
    let Some(binary) = binary(test) else { return };
    let (installation, network) = installation(PROBING);
    let aggregator = Aggregator::start(&installation, None);
    let uplink = "retry_quic = '1s'";
    let mut agents = agents(&installation, &binary, &[network.front], [uplink; 3]);
    agents.iter_mut().for_each(RealAgent::start);
    let carried = |by: &str| {
        until(by, || {
            let own = agents.iter().all(|agent| {
                let over_tls = agent.figure("aggregator_over_tls");
                let connected = agent.figure("aggregator_connected");
                (over_tls, connected) == (Some(u64::from(by == "tls")), Some(1))
            });
            let told = agents.iter().all(|agent| {
                let path = format!("/v1/agents/{}", agent.agent);
                let (status, body) = aggregator.ask("GET", &path, "");
                status == 200 && body.contains(&format!("\"transport\":\"{by}\""))
            });
            own && told
        });
    };
    carried("quic");
    network.set(Weather::Blocked);
    carried("tls");
    network.set(Weather::Fair);
    carried("quic");
    for agent in &mut agents {
        assert_eq!(agent.figure("batches_dropped_total"), Some(0));
        assert!(agent.terminate().success());
    }
    aggregator.terminate();
    for (agent, of) in stored(&installation.data()) {
        let [own] = of.values().collect::<Vec<_>>()[..] else {
            panic!("{agent} has lived more than once")
        };
        assert!(!without_gap(own).1, "{agent}: {own:?}");
        let twice: BTreeSet<_> = own.values().map(|&(times, _)| times).collect();
        assert_eq!(twice, BTreeSet::from([1]), "{agent}");
    }
}

/// An hour without a network, on a scale that a test can afford. In the middle of it one agent is killed, and the clock of
/// another jumps to and fro all the time.
#[test]
fn after_a_long_partition_everything_is_there_once_whatever_the_clocks_did() {
    let test = "after_a_long_partition_everything_is_there_once_whatever_the_clocks_did";
    let Some(binary) = binary(test) else { return };
    let windows = from_environment("LEEWARD_PARTITION_WINDOWS", 300);
    let (installation, network) = installation(QUICK);
    let aggregator = Aggregator::start(&installation, None);
    let uplink = ["transport = 'quic'"; 3];
    let mut agents = agents(&installation, &binary, &[network.front], uplink);
    let clock = Clock::new(test, installation.dir.path().join("clock"));
    let has_clock = clock.is_some();
    if let Some(clock) = clock {
        agents[1].go_by(clock);
    }
    agents.iter_mut().for_each(RealAgent::start);
    let closed = |agent: &RealAgent| agent.figure("windows_closed_total");
    for agent in &agents {
        until("windows", || taken(&aggregator, agent.agent) > 20);
    }
    network.set(Weather::Blocked);
    let first = closed(&agents[2]).unwrap();
    let mut killed: BTreeMap<&str, Vec<Timestamp>> = BTreeMap::new();
    // Within what an aggregator takes: a day ago to five seconds from now.
    let mut jumps = [-21_600, 3, -600, 0, -3, -80_000, 2].iter().cycle();
    let (mut jumped, mut steps) = (0, 0);
    until_patiently(
        "the end of the partition",
        Duration::from_millis(200) * windows as u32,
        || {
            let passed = closed(&agents[2]).map_or(0, |closed| closed - first);
            if passed * 10 / windows > steps {
                steps += 1;
                agents[1].set_clock(*jumps.next().unwrap());
                jumped += 1;
                if steps == 5 {
                    agents[0].kill();
                    killed.entry(agents[0].agent).or_default().push(now());
                    agents[0].start();
                }
            }
            passed >= windows
        },
    );
    agents[1].set_clock(0);
    let waiting: u64 = agents
        .iter()
        .filter_map(|agent| agent.figure("batches_waiting"))
        .sum();
    network.set(Weather::Fair);
    agents.iter().for_each(is_delivered);
    let stepped = agents[1].figure("clock_steps_total").unwrap();
    assert!(!has_clock || stepped > 3, "{stepped} steps were noticed");
    for agent in &mut agents {
        assert!(agent.terminate().success());
    }
    let all = AGENTS
        .iter()
        .map(|(_, agent)| (*agent, taken(&aggregator, agent)));
    let acknowledged = all.collect();
    aggregator.terminate();
    let story = judge(&installation.data(), &agents, &acknowledged, &killed);
    leeward_testing::tell(format_args!(
        "a partition of {windows} windows, {waiting} messages waited at its end; 1 agent killed, {jumped} clock jumps\n{}",
        story.join("\n")
    ));
}

/// Two aggregators are restarted in turn, as for an update, while agents deliver to both.
#[test]
fn rolling_restarts_lose_nothing_and_count_nothing_twice() {
    let test = "rolling_restarts_lose_nothing_and_count_nothing_twice";
    let Some(binary) = binary(test) else { return };
    let (installation, network) = installation(QUICK);
    let second = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let text = std::fs::read_to_string(installation.config_path()).unwrap();
    let own = installation.data().display().to_string();
    let lines = text.lines().filter_map(|line| match line {
        line if line.starts_with("listen_tcp") => None,
        line if line.starts_with("listen = '127.0.0.1:") && !line.ends_with(":0'") => {
            Some(format!("listen = '{second}'"))
        }
        line => Some(line.replace(&own, &format!("{own}-2"))),
    });
    let lines: Vec<String> = lines.collect();
    installation.write("second.toml", &lines.join("\n"));
    let configs = [
        installation.config_path(),
        installation.dir.path().join("second.toml"),
    ];
    let data = [installation.data(), PathBuf::from(format!("{own}-2"))];
    let start = |config: &PathBuf| Aggregator::start_with(config, None);
    let mut aggregators = configs.each_ref().map(|config| Some(start(config)));
    let mut agents = agents(&installation, &binary, &[network.front, second], [""; 3]);
    agents.iter_mut().for_each(RealAgent::start);
    let connected = || {
        let both = |agent: &RealAgent| agent.figure("aggregator_connected") == Some(2);
        until("both aggregators", || agents.iter().all(both));
    };
    connected();
    let mut restarts = 0;
    for round in 0..8 {
        let which = round % 2;
        // It says goodbye, and the agents come back to the next.
        aggregators[which].take().unwrap().terminate();
        let next = start(&configs[which]);
        restarts += 1;
        connected();
        for agent in &agents {
            until("windows", || taken(&next, agent.agent) > 10);
        }
        aggregators[which] = Some(next);
    }
    agents.iter().for_each(is_delivered);
    for agent in &mut agents {
        assert!(agent.terminate().success());
    }
    aggregators
        .into_iter()
        .flatten()
        .for_each(Aggregator::terminate);
    let none = BTreeMap::new();
    let nothing = AGENTS.iter().map(|(_, agent)| (*agent, 1)).collect();
    let [first, second] = data.each_ref().map(|data| stored(data));
    for data in &data {
        leeward_testing::tell(judge(data, &agents, &nothing, &none).join("\n"));
    }
    let sequences = |stored: &BTreeMap<String, Stored>| -> Vec<u64> {
        let all = stored.values().flat_map(BTreeMap::values);
        all.flat_map(BTreeMap::keys).copied().collect()
    };
    assert_eq!(sequences(&first), sequences(&second), "both have the same");
    leeward_testing::tell(format_args!(
        "{restarts} restarts, {} messages at each of two aggregators",
        sequences(&first).len()
    ));
}
