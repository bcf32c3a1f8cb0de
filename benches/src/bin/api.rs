//! What asking for a failover answer costs, beside the same server answering a constant.
//!
//! The constant is answered twice. `/healthz` is the same process: the same connections, routing, counting and headers,
//! and no question behind it. A bare server of the same library answers with the very bytes of a failover answer and
//! does nothing else at all. An installation of four regions measures itself meanwhile, so that the answer is a real
//! one and changes.

use std::{
    net::{Ipv4Addr, SocketAddr},
    process::Command,
};

use anyhow::Context as _;
use leeward_benches::{
    figure::{Figures, Target},
    http::Client,
    installation::{Installation, Order},
    measure::median,
};
use leeward_common::api::v1;

/// How long each round lasts, and how many there are; the two questions take turns.
const SECONDS: u32 = 4;
const ROUNDS: usize = 3;

/// Clients that ask at once, each as fast as it is answered.
const CLIENTS: u32 = 16;

const FAILOVER: &str = "/v1/failover/virginia";
const CONSTANT: &str = "/healthz";

fn main() -> anyhow::Result<()> {
    let mut figures = Figures::new("api");
    if Command::new("wrk").arg("--version").output().is_err() {
        figures.skip(
            "rate",
            "1/s",
            "wrk cannot be run; it is in Debian's package wrk",
        );
        figures.print();
        return Ok(());
    }
    let mut installation = Installation::start(Order {
        agents: 4,
        ..Order::default()
    })?;
    installation.wait("a selection", |api| {
        let answer =
            Client::connect(api).and_then(|mut client| client.get::<v1::Failover>(FAILOVER));
        answer.is_ok_and(|answer| answer.selected_region.is_some())
    })?;
    let bare = bare_server(Client::connect(installation.api())?.bytes(FAILOVER)?)?;
    let mut failover = Rounds::default();
    let (mut constant, mut library) = (Rounds::default(), Rounds::default());
    for _ in 0..ROUNDS {
        constant.add(wrk(installation.api(), CONSTANT)?);
        failover.add(wrk(installation.api(), FAILOVER)?);
        library.add(wrk(bare, FAILOVER)?);
    }
    let (rate, constant_rate) = (failover.rate()?, constant.rate()?);
    figures.push(
        figures
            .figure(format!("rate of GET {FAILOVER}"), rate, "1/s")
            .beside(CONSTANT, constant_rate),
    );
    figures.push(
        figures
            .figure("share of the constant's rate", rate / constant_rate, "")
            .target(Target::AtLeast(0.8)),
    );
    let library_rate = library.rate()?;
    figures.push(
        figures
            .figure(format!("rate of GET {FAILOVER}"), rate, "1/s")
            .beside("bare axum, same bytes", library_rate),
    );
    figures.push(
        figures
            .figure("share of the bare server's rate", rate / library_rate, "")
            .target(Target::AtLeast(0.7)),
    );
    let latency = figures
        .figure(
            format!("latency at that rate, {CLIENTS} clients, p99"),
            failover.p99_ms()?,
            "ms",
        )
        .beside(CONSTANT, constant.p99_ms()?);
    figures.push(latency.target(Target::AtMost(2.0)));
    figures.print();
    Ok(())
}

/// Serves these bytes at every path, on as many threads as the aggregator has, until this process ends.
fn bare_server(bytes: Vec<u8>) -> anyhow::Result<SocketAddr> {
    let runtime = tokio::runtime::Runtime::new().context("start a runtime")?;
    let listener = runtime.block_on(tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
    let address = listener.local_addr()?;
    let bytes = axum::body::Bytes::from(bytes);
    let answer =
        move || std::future::ready(([("content-type", "application/json")], bytes.clone()));
    let router = axum::Router::new().fallback(answer);
    std::thread::spawn(move || {
        let listener = axum::serve::ListenerExt::tap_io(listener, |stream| {
            // As the aggregator does; without it the kernel may hold an answer back.
            let _ = stream.set_nodelay(true);
        });
        runtime.block_on(async { axum::serve(listener, router).await })
    });
    Ok(address)
}

#[derive(Default)]
struct Rounds {
    rates: Vec<f64>,
    p99s_ms: Vec<f64>,
}

impl Rounds {
    fn add(&mut self, (rate, p99_ms): (f64, f64)) {
        self.rates.push(rate);
        self.p99s_ms.push(p99_ms);
    }

    fn rate(&self) -> anyhow::Result<f64> {
        median(self.rates.clone()).context("no rounds")
    }

    fn p99_ms(&self) -> anyhow::Result<f64> {
        median(self.p99s_ms.clone()).context("no rounds")
    }
}

/// Requests per second, and the 99th percentile of the latency in milliseconds.
fn wrk(api: SocketAddr, path: &str) -> anyhow::Result<(f64, f64)> {
    let output = Command::new("wrk")
        .args([
            "--latency",
            "--threads",
            "1",
            "--connections",
            &CLIENTS.to_string(),
        ])
        .args([
            "--duration",
            &format!("{SECONDS}s"),
            &format!("http://{api}{path}"),
        ])
        .output()
        .context("run wrk")?;
    let said = String::from_utf8_lossy(&output.stdout);
    anyhow::ensure!(
        output.status.success() && !said.contains("Non-2xx"),
        "wrk {path}: {said}"
    );
    let after = |label: &str| {
        said.lines()
            .find_map(|line| line.trim().strip_prefix(label))
            .map(str::trim)
    };
    let rate = after("Requests/sec:").and_then(|rate| rate.parse().ok());
    let p99 = after("99%").and_then(milliseconds);
    rate.zip(p99)
        .with_context(|| format!("wrk {path} said: {said}"))
}

/// "812.00us", "1.23ms" or "1.02s".
fn milliseconds(text: &str) -> Option<f64> {
    let number = text.trim_end_matches(char::is_alphabetic);
    let factor = match &text[number.len()..] {
        "us" => 1e-3,
        "ms" => 1.0,
        "s" => 1e3,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * factor)
}
