//! How soon ten thousand clients of the stream know of a decision, beside a bare loop that writes the same bytes to as
//! many sockets.
//!
//! Signals push a region's health down and let it recover, so that selections move. A decision's time is a multiple of
//! the evaluation's period; what is measured runs from there: waiting for the turn, deciding, two synced writes, comparing,
//! telling, and the kernel. The clients are one process of one thread, as little in the way as can be. The bare loop
//! is the floor: one `write` for each socket, one after the other, by a thread that does nothing else.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use anyhow::{Context as _, bail};
use leeward_benches::{
    figure::{Figures, Target},
    http::Client,
    installation::{Installation, Order},
    measure::{median, quantile},
};
use leeward_common::{
    api::v1,
    time::{Clock as _, SystemClock},
};
use tokio::{io::AsyncReadExt as _, net::TcpSocket};

const CLIENTS: usize = 10_000;

/// An aggregator has so many places for one client; more come from more addresses.
const PER_ADDRESS: usize = 250;

/// Changes of a region's health, and the time between two.
const CHANGES: u32 = 6;
const PAUSE: Duration = Duration::from_secs(3);

/// Times that the bare loop tells all of its sockets.
const ROUNDS: u64 = 6;

/// `printf %s test | sha256sum`
const POLICY: &str = "[[api.token]]\nname = \"bench\"\nrole = \"injector\"\n\
    sha256 = \"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\"\n\
    [[signal_source]]\nid = \"bench\"\nmax_factor = 100.0\nmax_ttl = \"1m\"\n\
    [policy.steadiness]\nconfirm = \"50ms\"\nhold_first = \"50ms\"\nhold_max = \"100ms\"\n";

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [mode, address, path] = arguments.as_slice()
        && mode == "clients"
    {
        return clients(address.parse()?, path);
    }
    let mut figures = Figures::new("watch");
    let mut installation = Installation::start(Order {
        agents: 4,
        more: POLICY,
        ..Order::default()
    })?;
    installation.wait("a selection", |api| {
        selected(api).is_ok_and(|selected| selected.is_some())
    })?;
    let ours = Crowd::gather(installation.api(), "/v1/watch")?;
    for _ in 0..CHANGES {
        let selected = selected(installation.api())?.context("nothing is selected")?;
        push(installation.api(), &selected)?;
        thread::sleep(PAUSE);
    }
    let heard = ours.heard()?;
    let (bare, event) = bare_server()?;
    let theirs = Crowd::gather(bare, "/")?;
    event(ROUNDS);
    let floor = theirs.heard()?;

    let decisions = heard.len();
    let (p50, p99, fan) = (after(&heard, 0.5)?, after(&heard, 0.99)?, fan(&heard)?);
    let name = |what: &str| format!("{what}, {CLIENTS} clients, median of {decisions}");
    let bare_p99 = after(&floor, 0.99)?;
    figures.push(figures.figure(name("decided to seen, p50"), p50, "ms"));
    figures.push(
        figures
            .figure(name("decided to seen, p99"), p99, "ms")
            .beside("bare writes of the same size", bare_p99)
            .target(Target::AtMost(50.0)),
    );
    figures.push(
        figures
            .figure(name("first client to the 99th percent"), fan, "ms")
            .beside("bare writes of the same size", self::fan(&floor)?),
    );
    let missed = heard
        .values()
        .map(|times| CLIENTS.saturating_sub(times.len()))
        .max();
    figures.push(
        figures
            .figure(
                "clients that missed a decision",
                missed.unwrap_or(CLIENTS) as f64,
                "",
            )
            .target(Target::AtMost(0.0)),
    );
    figures.print();
    Ok(())
}

fn selected(api: SocketAddr) -> anyhow::Result<Option<String>> {
    let failover: v1::Failover = Client::connect(api)?.get("/v1/failover/virginia")?;
    Ok(failover.selected_region.map(|region| region.to_string()))
}

/// Says for a moment that a region is not well.
fn push(api: SocketAddr, region: &str) -> anyhow::Result<()> {
    let body = format!(
        "{{\"source\":\"bench\",\"region\":\"{region}\",\"metric\":\"health\",\"value\":0.01,\"ttl_ms\":1000}}"
    );
    let mut stream = TcpStream::connect(api)?;
    write!(
        stream,
        "POST /v1/signals HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer test\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    anyhow::ensure!(
        answer.starts_with("HTTP/1.1 201"),
        "a signal was answered with {answer}"
    );
    Ok(())
}

/// When each decision was heard, microseconds: by the decision's time, client by client.
type Heard = BTreeMap<u64, Vec<u64>>;

/// Milliseconds after the decision until the share `q` of the clients had it: the median of all decisions.
fn after(heard: &Heard, q: f64) -> anyhow::Result<f64> {
    let each = heard.iter().filter_map(|(at, times)| {
        let mut times: Vec<f64> = times
            .iter()
            .map(|time| time.saturating_sub(*at) as f64 / 1e3)
            .collect();
        quantile(&mut times, q)
    });
    median(each.collect()).context("nothing was heard")
}

/// Milliseconds from the first client to the 99th percent.
fn fan(heard: &Heard) -> anyhow::Result<f64> {
    let each = heard.values().filter_map(|times| {
        let first = times.iter().min()?;
        let mut times: Vec<f64> = times
            .iter()
            .map(|time| (time - first) as f64 / 1e3)
            .collect();
        quantile(&mut times, 0.99)
    });
    median(each.collect()).context("nothing was heard")
}

/// A process of many clients.
struct Crowd {
    process: Child,
    says: BufReader<std::process::ChildStdout>,
}

impl Crowd {
    /// Starts it and waits until every client is connected and served.
    fn gather(address: SocketAddr, path: &str) -> anyhow::Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(["clients", &address.to_string(), path])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start the clients")?;
        let out = process.stdout.take().context("they say nothing")?;
        let mut says = BufReader::new(out);
        let mut line = String::new();
        says.read_line(&mut line)?;
        if line.trim() != "ready" {
            bail!("the clients ended early; are there {CLIENTS} file descriptors? ulimit -n");
        }
        Ok(Self { process, says })
    }

    /// What they heard.
    fn heard(mut self) -> anyhow::Result<Heard> {
        // The end of its input tells it to sum up.
        drop(self.process.stdin.take());
        let heard = serde_json::from_reader(&mut self.says).context("read what they heard")?;
        self.process.wait()?;
        Ok(heard)
    }
}

/// The process of clients: connects all of them, says so, listens until its input ends, says what they heard.
fn clients(address: SocketAddr, path: &str) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let heard: Arc<Mutex<Heard>> = Arc::default();
    runtime.block_on(async {
        for number in 0..CLIENTS {
            let host = (number / PER_ADDRESS) as u32 + 1;
            let own = Ipv4Addr::from_bits(Ipv4Addr::new(127, 1, 0, 0).to_bits() + host);
            let socket = TcpSocket::new_v4()?;
            socket.bind((own, 0).into())?;
            let mut stream = socket.connect(address).await?;
            let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
            tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await?;
            // The first answer is there before the next client comes.
            let mut bytes = vec![0; 64 << 10];
            anyhow::ensure!(
                stream.read(&mut bytes).await? > 0,
                "client {number} was turned away"
            );
            let heard = Arc::clone(&heard);
            tokio::spawn(async move {
                let mut bytes = vec![0; 4 << 10];
                while let Ok(read @ 1..) = stream.read(&mut bytes).await {
                    let now = SystemClock.now().as_unix_us();
                    if let Some(at) = decision(&bytes[..read]) {
                        let mut heard = heard.lock().expect("nobody panics");
                        heard
                            .entry(at)
                            .or_insert_with(|| Vec::with_capacity(CLIENTS))
                            .push(now);
                    }
                }
            });
        }
        println!("ready");
        let listening =
            tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
        listening.await??;
        anyhow::Ok(())
    })?;
    let heard = heard.lock().expect("nobody panics");
    println!("{}", serde_json::to_string(&*heard)?);
    // Ten thousand streams need no orderly end.
    std::process::exit(0);
}

/// The time of the decision that these bytes begin with: after the length of a chunk comes `id: NUMBER-TIME`.
fn decision(bytes: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(&bytes[..80.min(bytes.len())]).ok()?;
    let (_, rest) = text.split_once("id: ")?;
    let (id, rest) = rest.split_once('\n')?;
    rest.starts_with("event: decision").then_some(())?;
    id.split_once('-')?.1.parse().ok()
}

/// Serves as many clients as there are, and tells them on demand what looks like a decision of the usual size.
fn bare_server() -> anyhow::Result<(SocketAddr, impl FnOnce(u64))> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let accepting = thread::spawn(move || -> std::io::Result<Vec<TcpStream>> {
        (0..CLIENTS)
            .map(|_| {
                let (mut stream, _) = listener.accept()?;
                stream.set_nodelay(true)?;
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
                Ok(stream)
            })
            .collect()
    });
    let tell = move |rounds: u64| {
        let Ok(Ok(mut streams)) = accepting.join() else {
            return;
        };
        for round in 0..rounds {
            let now = SystemClock.now().as_unix_us();
            let mut event = format!("7d0\r\nid: {round}-{now}\nevent: decision\ndata: ");
            event.push_str(&"x".repeat(2_000));
            event.push_str("\n\n\r\n");
            for stream in &mut streams {
                // One that went away is missed by nobody here.
                let _ = stream.write_all(event.as_bytes());
            }
            thread::sleep(Duration::from_millis(500));
        }
    };
    Ok((address, tell))
}
