//! Everything of one run: hosts, links, daemons; made, watched and ended.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use leeward_common::{
    bgp::{Prefix, Standing},
    id::AgentId,
};
use leeward_engine::scenario::{Network, RoutingAction, Scenario};

use crate::{
    api::Api,
    host::Host,
    install::{Binaries, Installation},
    net,
    process::Process,
    router::{Router, Stats},
    speaker::Speaker,
    witness::Witness,
    world::{Site, World},
};

/// Between two looks at the API's answer.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(25);

/// How long the daemons may take until all agents are connected.
const START_LIMIT: Duration = Duration::from_secs(30);

/// Where a run keeps its files: on a tmpfs that only the run sees.
const DIRECTORY: &str = "/run/leeward-lab";

/// Becomes true when somebody interrupts the run.
pub(crate) fn interruption() -> anyhow::Result<Arc<AtomicBool>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [
        signal_hook::consts::SIGINT,
        signal_hook::consts::SIGTERM,
        signal_hook::consts::SIGHUP,
    ] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
    }
    Ok(interrupted)
}

/// Makes the directory of the run, hidden from everyone else, and the one for logs, which it returns. Another file will
/// be `written` in the end.
pub(crate) fn prepare_files(
    binaries: &Binaries,
    keep_logs: Option<&Path>,
    written: Option<&Path>,
) -> anyhow::Result<PathBuf> {
    let written = written.map(std::path::absolute).transpose()?;
    let mut outside: Vec<&Path> = vec![&binaries.cli, &binaries.agent, &binaries.aggregator];
    outside.extend(written.as_deref());
    let logs = keep_logs.map(empty_logs).transpose()?;
    outside.extend(logs.as_deref());
    if let Some(path) = outside.iter().find(|path| path.starts_with("/run")) {
        bail!(
            "{} is under /run, which the lab covers with its own files; choose another place",
            path.display()
        );
    }
    net::private_run().context("cannot make a private /run; leeward-lab needs root")?;
    let directory = Path::new(DIRECTORY);
    fs::create_dir_all(directory)?;
    Ok(logs.unwrap_or_else(|| directory.to_owned()))
}

/// Makes the directory for logs and removes those of an earlier run.
fn empty_logs(directory: &Path) -> anyhow::Result<PathBuf> {
    let made = fs::create_dir_all(directory).and_then(|()| fs::canonicalize(directory));
    let directory = made.with_context(|| format!("cannot make {}", directory.display()))?;
    for entry in fs::read_dir(&directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(directory)
}

/// Everything that runs. Dropping it ends all of it.
pub(crate) struct Lab<'a> {
    pub(crate) scenario: &'a Scenario,
    pub(crate) world: World,
    pub(crate) network: Network,
    pub(crate) binaries: Binaries,
    pub(crate) installation: Installation,
    logs: PathBuf,
    pub(crate) api: Api,
    aggregator_host: Host,
    agent_hosts: BTreeMap<AgentId, Host>,
    pub(crate) aggregator: Option<Process>,
    pub(crate) agents: BTreeMap<AgentId, Process>,
    /// The routers that agents hear, by the feed's name.
    speakers: BTreeMap<String, Speaker>,
    pub(crate) router: Option<Router>,
    /// Whether an aggregator that was killed remembered everything.
    pub(crate) remembered: bool,
}

impl<'a> Lab<'a> {
    /// Makes and starts everything. A witness sees every packet.
    pub(crate) fn build(
        scenario: &'a Scenario,
        world: World,
        binaries: Binaries,
        text: &str,
        logs: PathBuf,
        witness: Option<Witness>,
    ) -> anyhow::Result<Self> {
        let installation = Installation::make(
            Path::new(DIRECTORY),
            &binaries,
            &world,
            &scenario.feeds,
            text,
        )?;
        let (aggregator_host, port) = Host::create(&world.aggregator, world.management())
            .context("cannot make the aggregator's host")?;
        let mut ports = vec![port];
        let mut agent_hosts = BTreeMap::new();
        for site in &world.agents {
            let made = Host::create(&site.addresses, site.place);
            let (host, port) =
                made.with_context(|| format!("cannot make the host of {}", site.agent))?;
            agent_hosts.insert(site.agent.clone(), host);
            ports.push(port);
        }
        let network = scenario.network();
        let router = Router::start(ports, world.links(&network, scenario.seed), witness)?;
        let api = Api::new(aggregator_host.namespace.clone(), &installation.token);
        let mut lab = Self {
            scenario,
            world,
            network,
            binaries,
            installation,
            logs,
            api,
            aggregator_host,
            agent_hosts,
            aggregator: None,
            agents: BTreeMap::new(),
            speakers: BTreeMap::new(),
            router: Some(router),
            remembered: true,
        };
        lab.start_aggregator()?;
        for site in lab.world.agents.clone() {
            lab.start_agent(&site)?;
        }
        for (name, feed) in &scenario.feeds {
            let host = &lab.agent_hosts[&feed.agent];
            let mut speaker = Speaker::new(name, feed, scenario, host, Path::new(DIRECTORY))?;
            speaker.start(host, &lab.logs)?;
            lab.speakers.insert(name.clone(), speaker);
        }
        Ok(lab)
    }

    pub(crate) fn start_aggregator(&mut self) -> anyhow::Result<()> {
        let mut command = Command::new(&self.binaries.aggregator);
        command
            .arg("--config")
            .arg(self.installation.aggregator_config());
        let process = Process::start(
            "aggregator",
            &mut command,
            &self.aggregator_host,
            &self.logs,
        )?;
        let process = self.aggregator.insert(process);
        let deadline = Instant::now() + START_LIMIT;
        while !self.api.ready() {
            process.check()?;
            if Instant::now() > deadline {
                bail!(
                    "the aggregator is not ready after {START_LIMIT:?}\n{}",
                    process.log_tail()
                );
            }
            thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    pub(crate) fn start_agent(&mut self, site: &Site) -> anyhow::Result<()> {
        let host = &self.agent_hosts[&site.agent];
        let mut command = Command::new(&self.binaries.agent);
        command
            .arg("--config")
            .arg(self.installation.agent_config(site));
        let process = Process::start(site.agent.as_str(), &mut command, host, &self.logs)?;
        self.agents.insert(site.agent.clone(), process);
        Ok(())
    }

    /// Waits until every agent has a session.
    pub(crate) fn await_agents(&mut self, interrupted: &AtomicBool) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            self.check_processes()?;
            let connected: BTreeSet<AgentId> = self
                .api
                .agents()?
                .into_iter()
                .filter(|agent| agent.connected_since.is_some())
                .map(|agent| agent.agent_id)
                .collect();
            let missing: Vec<&AgentId> = self
                .agents
                .keys()
                .filter(|agent| !connected.contains(*agent))
                .collect();
            if missing.is_empty() || interrupted.load(Ordering::Relaxed) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("{missing:?} did not connect within {START_LIMIT:?}");
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Waits until every feed can be believed, as it is in virtual time from the start.
    pub(crate) fn await_feeds(&mut self, interrupted: &AtomicBool) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        while !self.speakers.is_empty() && !interrupted.load(Ordering::Relaxed) {
            self.check_processes()?;
            let peers = self.api.bgp_peers()?.into_iter();
            let believed = peers
                .filter(|peer| peer.standing == Standing::Believed)
                .count();
            if believed >= self.speakers.len() {
                break;
            }
            if Instant::now() > deadline {
                bail!(
                    "{believed} of {} feeds can be believed after {START_LIMIT:?}",
                    self.speakers.len()
                );
            }
            thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// Routers do something.
    pub(crate) fn route(&mut self, action: &RoutingAction) -> anyhow::Result<()> {
        let prefixes: Vec<Prefix> = match action.prefixes.is_empty() {
            true => self.scenario.prefixes.keys().copied().collect(),
            false => action.prefixes.clone(),
        };
        for name in &action.feeds {
            let host = &self.agent_hosts[&self.scenario.feeds[name].agent];
            if let Some(speaker) = self.speakers.get_mut(name) {
                speaker.happen(action.change, &prefixes, host, &self.logs)?;
            }
        }
        Ok(())
    }

    pub(crate) fn check_processes(&mut self) -> anyhow::Result<()> {
        self.aggregator
            .iter_mut()
            .chain(self.agents.values_mut())
            .try_for_each(Process::check)?;
        self.speakers.values_mut().try_for_each(Speaker::check)
    }

    pub(crate) fn show_logs(&self) {
        for process in self.aggregator.iter().chain(self.agents.values()) {
            eprintln!(
                "the end of the log of {}:\n{}",
                process.name,
                process.log_tail()
            );
        }
    }

    /// Ends the agents, who first send what they have.
    pub(crate) fn end_agents(&mut self) -> anyhow::Result<()> {
        self.agents.values_mut().try_for_each(Process::ask_to_end)?;
        for process in std::mem::take(&mut self.agents).into_values() {
            process.stop()?;
        }
        Ok(())
    }

    /// Ends every process in order, then the network.
    pub(crate) fn end(mut self) -> anyhow::Result<Stats> {
        self.end_agents()?;
        if let Some(process) = self.aggregator.take() {
            process.stop()?;
        }
        let router = self.router.take().context("the router has already ended")?;
        router.stop().context("the emulated network failed")
    }
}
