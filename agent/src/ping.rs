//! `leeward-agent ping`: a few echo requests to hosts that a person names, for a look at one moment.
//!
//! It stands beside the prober and has nothing of it: no kernel time stamps, no flows, no account of what this host failed to
//! do. In return it needs no configuration, no aggregator and, where ping sockets are allowed, no privilege.

use std::{
    fmt::Write as _,
    net::IpAddr,
    ops::RangeInclusive,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use clap::{Args, value_parser};
use leeward_common::{histogram::Schema, report::Rtt};
use surge_ping::{Client, Config, ICMP, IcmpPacket, PingIdentifier, PingSequence, SurgeError};
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};

use crate::random;

/// Hosts pinged at once.
const HOSTS_MAX: usize = 64;
/// Every host gets at most ten per second, as from the ping of an ordinary user.
const INTERVAL: RangeInclusive<f64> = 0.1..=60.0;
const TIMEOUT: RangeInclusive<f64> = 0.01..=60.0;

/// What to ping, and how.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// Hosts: names or addresses. Only these are sent anything.
    #[arg(required = true, value_name = "HOST", num_args = 1..=HOSTS_MAX)]
    pub hosts: Vec<String>,
    /// Echo requests to each host.
    #[arg(short, long, default_value_t = 5, value_parser = value_parser!(u16).range(1..=10_000))]
    pub count: u16,
    /// Seconds from one to the next.
    #[arg(short, long, default_value = "1", value_parser = |text: &str| seconds(text, INTERVAL))]
    pub interval: Duration,
    /// Seconds that an answer may take.
    #[arg(short = 'W', long, default_value = "1", value_parser = |text: &str| seconds(text, TIMEOUT))]
    pub timeout: Duration,
    /// Bytes behind the ICMP header.
    #[arg(short, long, default_value_t = 56, value_parser = value_parser!(u16).range(0..=1_400))]
    pub size: u16,
}

fn seconds(text: &str, allowed: RangeInclusive<f64>) -> Result<Duration, String> {
    let number = text.parse::<f64>().ok();
    match number.filter(|number| allowed.contains(number)) {
        Some(number) => Ok(Duration::from_secs_f64(number)),
        None => Err(format!(
            "{} to {} seconds are possible",
            allowed.start(),
            allowed.end()
        )),
    }
}

/// What came of one request.
#[derive(Debug)]
struct Answer {
    host: usize,
    sequence: u16,
    result: Result<(IcmpPacket, Duration), SurgeError>,
}

/// What came of all requests to a host.
#[derive(Debug)]
struct Sum {
    name: String,
    address: IpAddr,
    sent: u32,
    rtt: Rtt,
}

/// Pings and prints; whether every host answered at least once.
///
/// # Errors
///
/// Returns which name has no address, or why there is no socket.
pub fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(ping(arguments))
}

async fn ping(arguments: &Arguments) -> anyhow::Result<bool> {
    let mut sums = Vec::with_capacity(arguments.hosts.len());
    for name in &arguments.hosts {
        sums.push(Sum::new(name, resolve(name).await?));
    }
    let (answered, mut answers) = mpsc::channel(arguments.hosts.len().max(16));
    let began = Instant::now();
    for (host, sum) in sums.iter().enumerate() {
        println!(
            "PING {} ({}): {} bytes",
            sum.name, sum.address, arguments.size
        );
        let client = client(sum.address)?;
        tokio::spawn(send(
            client,
            host,
            sum.address,
            arguments.clone(),
            answered.clone(),
        ));
    }
    drop(answered);
    while let Some(answer) = answers.recv().await {
        println!("{}", sums[answer.host].add(&answer));
    }
    for sum in &sums {
        print!("\n{}", sum.text(began.elapsed()));
    }
    Ok(sums.iter().all(|sum| !sum.rtt.histogram.is_empty()))
}

async fn resolve(name: &str) -> anyhow::Result<IpAddr> {
    if let Ok(address) = name.parse() {
        return Ok(address);
    }
    let mut addresses = tokio::net::lookup_host((name, 0))
        .await
        .with_context(|| format!("cannot find the address of {name}"))?;
    match addresses.next() {
        Some(address) => Ok(address.ip()),
        None => bail!("{name} has no address"),
    }
}

/// A ping socket, or a raw one where those are not allowed.
fn client(address: IpAddr) -> anyhow::Result<Client> {
    let kind = match address {
        IpAddr::V4(_) => ICMP::V4,
        IpAddr::V6(_) => ICMP::V6,
    };
    let config = Config::builder().kind(kind).build();
    Client::new(&config).with_context(|| {
        format!("cannot ping {address}: neither does net.ipv4.ping_group_range include a group of yours, nor have you CAP_NET_RAW")
    })
}

/// Sends on an absolute schedule: an answer that does not come holds nothing up.
async fn send(
    client: Client,
    host: usize,
    address: IpAddr,
    arguments: Arguments,
    answered: mpsc::Sender<Answer>,
) {
    let ident = PingIdentifier(u16::from_be_bytes(random::bytes()));
    let payload: Vec<u8> = (0..arguments.size).map(|at| at as u8).collect();
    let mut times = interval(arguments.interval);
    times.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for sequence in 0..arguments.count {
        times.tick().await;
        let mut pinger = client.pinger(address, ident).await;
        pinger.timeout(arguments.timeout);
        let (payload, answered) = (payload.clone(), answered.clone());
        tokio::spawn(async move {
            let result = pinger.ping(PingSequence(sequence), &payload).await;
            let answer = Answer {
                host,
                sequence,
                result,
            };
            // Nobody listens any more when the program ends.
            let _ = answered.send(answer).await;
        });
    }
}

impl Sum {
    fn new(name: &str, address: IpAddr) -> Self {
        Self {
            name: name.to_owned(),
            address,
            sent: 0,
            rtt: Rtt::empty(Schema::ThreeDigits),
        }
    }

    /// Counts an answer and says it in a line.
    fn add(&mut self, answer: &Answer) -> String {
        self.sent += 1;
        let (address, sequence) = (self.address, answer.sequence);
        match &answer.result {
            Ok((packet, took)) => {
                let rtt_us = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
                self.rtt.record(rtt_us.max(1));
                let ttl = match packet {
                    IcmpPacket::V4(packet) => packet.get_ttl().map(|ttl| format!(" ttl={ttl}")),
                    IcmpPacket::V6(_) => None,
                };
                format!(
                    "{address}: seq={sequence}{} time={} ms",
                    ttl.unwrap_or_default(),
                    ms(rtt_us)
                )
            }
            Err(SurgeError::Timeout { .. }) => format!("{address}: seq={sequence} no answer"),
            Err(error) => format!("{address}: seq={sequence} {error}"),
        }
    }

    fn text(&self, took: Duration) -> String {
        let Self {
            name, sent, rtt, ..
        } = self;
        let received = rtt.histogram.count();
        let lost = 100.0 * (1.0 - received as f64 / f64::from((*sent).max(1)));
        let mut text = format!(
            "--- {name} ---\n{sent} sent, {received} received, {lost:.1} % lost, {:.1} s\n",
            took.as_secs_f64()
        );
        if let Some(mean_us) = rtt.sum_us.checked_div(received) {
            let quantile = |q| {
                ms(rtt
                    .histogram
                    .quantile(q)
                    .unwrap_or(rtt.max_us)
                    .min(rtt.max_us))
            };
            let mean_us = u32::try_from(mean_us).unwrap_or(u32::MAX);
            let _ = writeln!(
                text,
                "round trip ms: min {} mean {} p50 {} p90 {} p99 {} max {}",
                ms(rtt.min_us),
                ms(mean_us),
                quantile(0.5),
                quantile(0.9),
                quantile(0.99),
                ms(rtt.max_us)
            );
        }
        text
    }
}

fn ms(us: u32) -> String {
    format!("{}.{:03}", us / 1_000, us % 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_counts_what_was_not_answered() {
        let mut sum = Sum::new("host", "192.0.2.1".parse().unwrap());
        let lost = Answer {
            host: 0,
            sequence: 7,
            result: Err(SurgeError::Timeout {
                seq: PingSequence(7),
            }),
        };
        assert_eq!(sum.add(&lost), "192.0.2.1: seq=7 no answer");
        for rtt_us in [1_000, 2_000, 3_005] {
            sum.rtt.record(rtt_us);
        }
        sum.sent += 3;
        assert_eq!(
            sum.text(Duration::from_millis(3_100)),
            "--- host ---\n4 sent, 3 received, 25.0 % lost, 3.1 s\n\
             round trip ms: min 1.000 mean 2.001 p50 2.000 p90 3.004 p99 3.004 max 3.005\n"
        );
    }

    #[test]
    fn nobody_pings_faster_than_ten_times_a_second() {
        assert_eq!(seconds("0.5", INTERVAL), Ok(Duration::from_millis(500)));
        for text in ["0.01", "0", "-1", "61", "nan", "often"] {
            assert!(seconds(text, INTERVAL).is_err(), "{text}");
        }
    }
}
