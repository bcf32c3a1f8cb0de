//! A real installation on loopback: certificates by `leeward pki`, one aggregator, agents that probe 127.0.0.0/8.
//!
//! The binaries are those that were built beside the benchmark. Everything is in one temporary directory and ends with
//! the [`Installation`].

use std::{
    fmt::Write as _,
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use tempfile::TempDir;

use crate::http::Client;

/// Starting takes well under a second; a busy machine gets more.
const PATIENCE: Duration = Duration::from_secs(60);

/// Regions far from each other: id, latitude, longitude.
const REGIONS: [(&str, f64, f64); 4] = [
    ("virginia", 37.4, -79.0),
    ("oregon", 45.5, -122.7),
    ("ireland", 53.3, -6.3),
    ("frankfurt", 50.1, 8.7),
];

/// What is to be installed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Order {
    /// How many regions have an agent, 0 to 4. All four are configured.
    pub agents: usize,
    /// Outside targets that every agent probes too.
    pub targets: u32,
    /// More of the aggregator's configuration: tables that stand last.
    pub more: &'static str,
}

/// A running installation.
#[derive(Debug)]
pub struct Installation {
    directory: TempDir,
    api: SocketAddr,
    listen: SocketAddr,
    aggregator: Child,
    agents: Vec<Child>,
}

impl Installation {
    /// Makes and starts it, and waits until the aggregator is ready.
    ///
    /// # Errors
    ///
    /// Returns what could not be made or started; what a daemon had to say is on stderr.
    pub fn start(order: Order) -> anyhow::Result<Self> {
        Self::start_hearing(order, "")
    }

    /// The same, and the first agent has this `[bgp]`.
    ///
    /// # Errors
    ///
    /// Returns what could not be made or started; what a daemon had to say is on stderr.
    pub fn start_hearing(order: Order, routers: &str) -> anyhow::Result<Self> {
        let directory =
            TempDir::with_prefix("leeward-bench-").context("make a temporary directory")?;
        let files = Files {
            directory: directory.path().to_owned(),
            listen: free_address(),
            api: free_address(),
        };
        files.certificates(order)?;
        let aggregator =
            files.start("leeward-aggregator", "aggregator", &files.aggregator(order))?;
        let mut installation = Self {
            directory,
            api: files.api,
            listen: files.listen,
            aggregator,
            agents: Vec::new(),
        };
        installation.wait("the aggregator to be ready", |api| {
            Client::connect(api)
                .and_then(|mut client| client.get::<serde_json::Value>("/readyz"))
                .is_ok()
        })?;
        for (at, (region, ..)) in REGIONS.iter().enumerate().take(order.agents) {
            let mut config = files.agent(region, at)?;
            if at == 0 {
                config.push_str(routers);
            }
            let agent = files.start("leeward-agent", region, &config)?;
            installation.agents.push(agent);
        }
        Ok(installation)
    }

    /// Where the API is.
    #[must_use]
    pub const fn api(&self) -> SocketAddr {
        self.api
    }

    /// Where agents connect.
    #[must_use]
    pub const fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// Where the authority is.
    #[must_use]
    pub fn pki(&self) -> PathBuf {
        self.directory.path().join("pki")
    }

    /// The regions that have an agent.
    pub fn regions(&self) -> impl Iterator<Item = &'static str> + use<> {
        REGIONS
            .into_iter()
            .map(|(region, ..)| region)
            .take(self.agents.len())
    }

    /// The aggregator's process.
    #[must_use]
    pub fn aggregator(&self) -> u32 {
        self.aggregator.id()
    }

    /// The agents' processes.
    pub fn agents(&self) -> impl Iterator<Item = u32> {
        self.agents.iter().map(Child::id)
    }

    /// Waits until something holds of the API.
    ///
    /// # Errors
    ///
    /// Returns that it does not, or that a daemon has ended, with the end of its log.
    pub fn wait(&mut self, what: &str, holds: impl Fn(SocketAddr) -> bool) -> anyhow::Result<()> {
        let begun = Instant::now();
        while !holds(self.api) {
            let daemons = std::iter::once(&mut self.aggregator).chain(&mut self.agents);
            let ended = daemons
                .filter_map(|daemon| daemon.try_wait().transpose())
                .next();
            if ended.is_some() || begun.elapsed() > PATIENCE {
                self.print_logs();
                bail!("waited in vain for {what}");
            }
            sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Asks the aggregator to end, as an update does, and starts it again.
    ///
    /// # Errors
    ///
    /// Returns that it did not end well, or cannot be started.
    pub fn restart_aggregator(&mut self) -> anyhow::Result<()> {
        let id = self.aggregator.id().to_string();
        let asked = Command::new("kill").arg(id).status().context("run kill")?;
        let ended = self.aggregator.wait().context("wait for the aggregator")?;
        if !asked.success() || !ended.success() {
            bail!("the aggregator ended with {ended}");
        }
        self.aggregator = launch(self.directory.path(), "leeward-aggregator", "aggregator")?;
        Ok(())
    }

    fn print_logs(&self) {
        for entry in fs::read_dir(self.directory.path())
            .into_iter()
            .flatten()
            .flatten()
        {
            if entry
                .path()
                .extension()
                .is_some_and(|extension| extension == "log")
            {
                let log = fs::read_to_string(entry.path()).unwrap_or_default();
                let tail: Vec<_> = log.lines().rev().take(10).collect();
                tail.iter()
                    .rev()
                    .for_each(|line| eprintln!("{}: {line}", entry.file_name().display()));
            }
        }
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        for daemon in self
            .agents
            .iter_mut()
            .chain(std::iter::once(&mut self.aggregator))
        {
            // One that has ended already cannot be killed, and that is what is wanted.
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

struct Files {
    directory: PathBuf,
    listen: SocketAddr,
    api: SocketAddr,
}

impl Files {
    fn certificates(&self, order: Order) -> anyhow::Result<()> {
        let pki = self.directory.join("pki").display().to_string();
        leeward(&["pki", "init", &pki])?;
        leeward(&[
            "pki",
            "issue",
            "aggregator",
            "--dir",
            &pki,
            "--name",
            "bench",
            "--host",
            "127.0.0.1",
        ])?;
        for (region, ..) in REGIONS.iter().take(order.agents) {
            leeward(&[
                "pki", "issue", "agent", "--dir", &pki, "--region", region, "--id", region,
            ])?;
        }
        Ok(())
    }

    fn credentials(&self, stem: &str) -> String {
        let pki = self.directory.join("pki");
        let pki = pki.display();
        format!(
            "[credentials]\nca = \"{pki}/ca.pem\"\ncertificate = \"{pki}/{stem}.pem\"\nkey = \"{pki}/{stem}.key\"\n"
        )
    }

    fn aggregator(&self, order: Order) -> String {
        let mut text = format!(
            "name = \"bench\"\nlisten = \"{}\"\ndata_dir = \"{}\"\n{}[api]\nlisten = \"{}\"\n",
            self.listen,
            self.directory.join("data").display(),
            self.credentials("aggregator-bench"),
            self.api,
        );
        for (region, latitude, longitude) in REGIONS {
            let _ = write!(
                text,
                "[[region]]\nid = \"{region}\"\nlatitude = {latitude}\nlongitude = {longitude}\n"
            );
        }
        for at in 0..order.targets {
            let address = Ipv4Addr::from_bits(Ipv4Addr::new(127, 2, 0, 1).to_bits() + at);
            let _ = write!(
                text,
                "[[target]]\nid = \"t{at}\"\naddress = \"{address}\"\nkinds = [\"icmp\"]\n"
            );
        }
        // What is measured is the pipeline, not its limit.
        text.push_str("[limits]\nmax_messages_per_second = 1000000\n");
        text.push_str(order.more);
        text
    }

    fn agent(&self, region: &str, at: usize) -> anyhow::Result<String> {
        // Ports that the kernel gives to nobody by itself.
        let first_port = 61_000 + 8 * at;
        let answer_port = 62_000 + at;
        Ok(format!(
            "region = \"{region}\"\nagent = \"{region}\"\nallowed_networks = [\"127.0.0.0/8\"]\n\
             addresses = [\"127.9.0.{}\"]\nmax_probes_per_second = 100000\nanswer_port = {answer_port}\n\
             syn_source_ports = [{first_port}, {}]\nstatus_listen = \"{}\"\n{}\
             [[aggregator]]\naddress = \"{}\"\nname = \"bench\"\n",
            at + 1,
            first_port + 7,
            free_address(),
            self.credentials(&format!("agent-{region}")),
            self.listen,
        ))
    }

    fn start(&self, binary: &str, name: &str, config: &str) -> anyhow::Result<Child> {
        let path = self.directory.join(format!("{name}.toml"));
        fs::write(path, config).context("write a configuration")?;
        launch(&self.directory, binary, name)
    }
}

/// A daemon with the configuration of this name, and its log beside it.
fn launch(directory: &Path, binary: &str, name: &str) -> anyhow::Result<Child> {
    let log = directory.join(format!("{name}.log"));
    let log = File::options().create(true).append(true).open(log);
    let log = log.context("make a log")?;
    Command::new(beside(binary)?)
        .arg("--config")
        .arg(directory.join(format!("{name}.toml")))
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("start {binary}"))
}

fn leeward(arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new(beside("leeward")?)
        .args(arguments)
        .output()
        .context("run leeward")?;
    if !output.status.success() {
        bail!(
            "leeward {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

/// A binary that was built beside the benchmark.
fn beside(binary: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(binary);
    if !path.is_file() {
        bail!(
            "{} is missing; run the benchmark by scripts/bench, which builds it",
            path.display()
        );
    }
    Ok(path)
}

/// An address of loopback whose port is free until a daemon takes it.
pub fn free_address() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, leeward_testing::free_port()))
}
