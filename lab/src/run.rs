//! One run: builds the world, lets the daemons live in it, plays the timeline, and judges.

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
    api::v1,
    id::{AgentId, RegionId},
    time::{Clock as _, SystemClock, Timestamp},
};
use leeward_engine::{
    input::Subject,
    intent::Owner,
    scenario::{Action, Event, Expectation, Expected, Intent, Network, Scenario, SignalAction},
};

use crate::{
    api::{self, Api},
    args::RunOptions,
    host::Host,
    install::{Binaries, Installation},
    net::{self, Urgency},
    process::Process,
    router::{Router, Stats},
    story::Story,
    world::{Site, World},
};

/// Between two looks at the API's answer.
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// How long the daemons may take until all agents are connected.
const START_LIMIT: Duration = Duration::from_secs(30);

/// More decisions than a scenario leads to.
const ALL_DECISIONS: u32 = 1000;

/// Where a run keeps its files: on a tmpfs that only the run sees.
const DIRECTORY: &str = "/run/leeward-lab";

/// How a run ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// Every expectation was met.
    AsExpected,
    /// Some were not.
    Otherwise,
    /// Somebody interrupted it.
    Interrupted,
}

/// Plays a scenario.
///
/// # Errors
///
/// Returns why it could not be played to its end.
pub fn run(options: &RunOptions) -> anyhow::Result<Outcome> {
    let file = options.scenario.display().to_string();
    let text =
        fs::read_to_string(&options.scenario).with_context(|| format!("cannot read {file}"))?;
    let scenario = Scenario::parse(&file, &text)?;
    let world = World::new(&scenario).map_err(anyhow::Error::msg)?;
    let binaries = Binaries::find(options.bin_dir.as_deref())?;
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [
        signal_hook::consts::SIGINT,
        signal_hook::consts::SIGTERM,
        signal_hook::consts::SIGHUP,
    ] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
    }
    let logs = prepare_files(options, &binaries)?;
    let mut lab = Lab::build(&scenario, world, binaries, &text, logs)?;
    let published = match options.stay {
        true => Some(lab.api.publish(options.api)?),
        false => None,
    };
    let mut story = Story::new(&scenario.name, options.grace);
    let outcome = lab.play(&mut story, &interrupted);
    let stayed = match (published, &outcome) {
        (Some(address), Ok(Outcome::AsExpected | Outcome::Otherwise)) => {
            lab.stay(address, &story, &interrupted)
        }
        _ => Ok(()),
    };
    if outcome.is_err() {
        lab.show_logs();
    }
    let stats = lab.end()?;
    stayed?;
    let outcome = outcome?;
    tell_end(&mut story, &stats, outcome, options)?;
    Ok(outcome)
}

/// Makes the directory of the run, hidden from everyone else, and the one for logs.
fn prepare_files(options: &RunOptions, binaries: &Binaries) -> anyhow::Result<PathBuf> {
    let transcript = options
        .transcript
        .as_deref()
        .map(std::path::absolute)
        .transpose()?;
    let mut outside: Vec<&Path> = vec![&binaries.cli, &binaries.agent, &binaries.aggregator];
    outside.extend(transcript.as_deref());
    let logs = options.keep_logs.as_deref().map(empty_logs).transpose()?;
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

fn tell_end(
    story: &mut Story,
    stats: &Stats,
    outcome: Outcome,
    options: &RunOptions,
) -> anyhow::Result<()> {
    story.note(&format!("the emulated network: {}", stats.summary()));
    if stats.urgency == Urgency::Ordinary {
        story.note(
            "the kernel refused real-time priority, so delays are less exact than they could be",
        );
    }
    match (outcome, story.score()) {
        (Outcome::Interrupted, _) => story.note("interrupted"),
        (_, (met, of)) => story.note(&format!("{met} of {of} expectations were met")),
    }
    if let Some(path) = &options.transcript {
        let mut transcript = std::mem::take(story).into_transcript();
        transcript.emulator_lateness_ns =
            [0.5, 0.99, 1.0].map(|quantile| stats.lateness.value_at_quantile(quantile));
        let json = serde_json::to_string_pretty(&transcript)? + "\n";
        fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Everything that runs. Dropping it ends all of it.
struct Lab<'a> {
    scenario: &'a Scenario,
    world: World,
    network: Network,
    binaries: Binaries,
    installation: Installation,
    logs: PathBuf,
    api: Api,
    aggregator_host: Host,
    agent_hosts: BTreeMap<AgentId, Host>,
    aggregator: Option<Process>,
    agents: BTreeMap<AgentId, Process>,
    router: Option<Router>,
    /// Whether an aggregator that was killed remembered everything.
    remembered: bool,
}

impl<'a> Lab<'a> {
    fn build(
        scenario: &'a Scenario,
        world: World,
        binaries: Binaries,
        text: &str,
        logs: PathBuf,
    ) -> anyhow::Result<Self> {
        let installation = Installation::make(Path::new(DIRECTORY), &binaries, &world, text)?;
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
        let router = Router::start(ports, world.links(&network, scenario.seed))?;
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
            router: Some(router),
            remembered: true,
        };
        lab.start_aggregator()?;
        for site in lab.world.agents.clone() {
            lab.start_agent(&site)?;
        }
        Ok(lab)
    }

    fn start_aggregator(&mut self) -> anyhow::Result<()> {
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

    fn start_agent(&mut self, site: &Site) -> anyhow::Result<()> {
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
    fn await_agents(&mut self, interrupted: &AtomicBool) -> anyhow::Result<()> {
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

    fn check_processes(&mut self) -> anyhow::Result<()> {
        self.aggregator
            .iter_mut()
            .chain(self.agents.values_mut())
            .try_for_each(Process::check)
    }

    fn play(&mut self, story: &mut Story, interrupted: &AtomicBool) -> anyhow::Result<Outcome> {
        self.await_agents(interrupted)?;
        let scenario = self.scenario;
        let start = Instant::now();
        story.event(
            Duration::ZERO,
            &format!(
                "{}: {} agents in {} regions are connected",
                scenario.name,
                self.agents.len(),
                self.world.regions.len()
            ),
        );
        let mut events = scenario.events.iter().peekable();
        let mut waiting: Vec<_> = scenario.expectations.iter().collect();
        waiting.sort_by_key(|expectation| expectation.until);
        let mut waiting = waiting.into_iter().peekable();
        loop {
            let now = start.elapsed();
            if interrupted.load(Ordering::Relaxed) {
                return Ok(Outcome::Interrupted);
            }
            while let Some(event) = events.next_if(|event| event.at <= now) {
                self.happen(event, start, story)?;
            }
            self.check_processes()?;
            self.look(start, story)?;
            while let Some(expectation) = waiting.next_if(|expectation| expectation.until < now) {
                self.judge(now, expectation, story)?;
            }
            if now >= scenario.duration {
                break;
            }
            let next_event = events.peek().map_or(scenario.duration, |event| event.at);
            let next = next_event.min(now + LOOK_EVERY).min(scenario.duration);
            thread::sleep(next.saturating_sub(start.elapsed()));
        }
        for expectation in waiting {
            self.judge(scenario.duration, expectation, story)?;
        }
        let (met, of) = story.score();
        Ok(if met == of && self.remembered {
            Outcome::AsExpected
        } else {
            Outcome::Otherwise
        })
    }

    /// Looks whether anything new was decided, and tells it.
    fn look(&self, start: Instant, story: &mut Story) -> anyhow::Result<()> {
        let newest = self
            .api
            .decisions(1)?
            .first()
            .map_or(0, |decision| decision.decision_id);
        if newest > story.newest_decision() {
            story.decisions(start.elapsed(), &self.api.decisions(ALL_DECISIONS)?);
        }
        let expectations = &self.scenario.expectations;
        let of_state = |own: &Expectation| matches!(own.what, Expected::State { .. });
        if expectations.iter().any(of_state) {
            for region in self.api.regions()? {
                story.region(start.elapsed(), &region);
            }
        }
        Ok(())
    }

    /// Judges an expectation, and makes sure that clients are told the same.
    fn judge(
        &self,
        at: Duration,
        expectation: &Expectation,
        story: &mut Story,
    ) -> anyhow::Result<()> {
        story.judge(at, expectation);
        let Expected::Selected {
            owner: Owner::Region(primary),
            ..
        } = &expectation.what
        else {
            return Ok(());
        };
        let answer = self.api.failover(primary.as_str())?;
        let told = story.selected(primary);
        // A decision may be taken between the two questions; then it is newer than what was told.
        let newer = answer
            .decision_id
            .is_some_and(|id| id > story.newest_decision());
        if answer.selected_region.as_ref() != told && !newer {
            bail!("the decisions select {told:?} for {primary}, and the answer {answer:?}");
        }
        Ok(())
    }

    fn happen(&mut self, event: &Event, start: Instant, story: &Story) -> anyhow::Result<()> {
        let now = start.elapsed();
        for action in &event.actions {
            self.network.apply(self.scenario, action);
        }
        if let Some(router) = &self.router {
            for (from, to) in self.world.pairs() {
                router.set(from, to, self.world.impairment(&self.network, from, to));
            }
            for (from, to, impairment) in self.world.flows(self.scenario, &self.network) {
                router.set_flow(from, to, impairment);
            }
        }
        if let Some(text) = event.told() {
            story.event(now, &text);
        }
        for action in &event.actions {
            match action {
                Action::AgentStop(agent) => {
                    if let Some(process) = self.agents.remove(agent) {
                        process.stop()?;
                    }
                }
                Action::AgentStart(agent) => {
                    let site = self
                        .world
                        .agents
                        .iter()
                        .find(|site| site.agent == *agent)
                        .cloned();
                    if let Some(site) = site.filter(|site| !self.agents.contains_key(&site.agent)) {
                        self.start_agent(&site)?;
                    }
                }
                Action::AggregatorRestart => {
                    self.remembered &= self.crash_aggregator(start, story)?;
                }
                Action::Signal(signal) => self.api.signal(&new_signal(signal))?,
                Action::Intent(intent) => {
                    self.intend(intent, SystemClock.now() - start.elapsed())?;
                }
                Action::Set { .. }
                | Action::Clear { .. }
                | Action::RegionDown(_)
                | Action::RegionUp(_)
                | Action::UplinkDown(_)
                | Action::UplinkUp(_)
                | Action::Clock { .. }
                // The lab's hosts run no services that could answer.
                | Action::Check(_) => {}
            }
        }
        Ok(())
    }

    /// Changes a service, an offer or an override, in a scenario that began at `start`.
    fn intend(&self, intent: &Intent, start: Timestamp) -> anyhow::Result<()> {
        match intent {
            Intent::Put(_) => intent
                .put(start)
                .map_or(Ok(()), |defined| self.api.put(&defined)),
            Intent::RemoveService(id) => self.api.remove(api::SERVICES, id.as_str()),
            Intent::RemoveOffer(id) => self.api.remove(api::OFFERS, id.as_str()),
            Intent::LiftOverride(id) => self.api.remove(api::OVERRIDES, id.as_str()),
        }
    }

    /// Kills the aggregator, starts it again, and tells whether it remembers all that it had decided.
    fn crash_aggregator(&mut self, start: Instant, story: &Story) -> anyhow::Result<bool> {
        let before = self.api.decisions(ALL_DECISIONS)?;
        let answers = self.selections()?;
        if let Some(process) = self.aggregator.take() {
            process.kill()?;
        }
        let killed_at = start.elapsed();
        self.start_aggregator()?;
        let now = start.elapsed();
        let after = self.api.decisions(ALL_DECISIONS)?;
        let kept = after.len() >= before.len() && after[after.len() - before.len()..] == before[..];
        let answers_kept = self.selections()? == answers || after.len() > before.len();
        if kept && answers_kept {
            story.event(
                now,
                &format!(
                    "the aggregator is back after {:.1} s, remembers {} decisions and answers as before",
                    (now - killed_at).as_secs_f64(),
                    before.len()
                ),
            );
            return Ok(true);
        }
        story.complaint(
            now,
            &format!("the aggregator forgot: {before:#?} became {after:#?}"),
        );
        Ok(false)
    }

    /// The answer for each primary, without what ages.
    fn selections(&self) -> anyhow::Result<Vec<Selection>> {
        let ask = |primary: &RegionId| {
            let answer = self.api.failover(primary.as_str())?;
            Ok((primary.clone(), answer.selected_region, answer.decision_id))
        };
        self.world.regions.iter().map(ask).collect()
    }

    /// Leaves everything running until somebody interrupts.
    fn stay(
        &mut self,
        address: std::net::SocketAddr,
        story: &Story,
        interrupted: &AtomicBool,
    ) -> anyhow::Result<()> {
        story.note(&format!("the lab stays; the API is on http://{address}"));
        story.note(&format!(
            "    {} status --server http://{address}",
            self.binaries.cli.display()
        ));
        story.note(&format!(
            "    LEEWARD_TOKEN={} lets you push signals",
            self.installation.token
        ));
        for process in self.aggregator.iter().chain(self.agents.values()) {
            story.note(&format!(
                "    nsenter --net --target {}    is the host of {}",
                process.id(),
                process.name
            ));
        }
        story.note("interrupt (Ctrl-C) to end it");
        while !interrupted.load(Ordering::Relaxed) {
            self.check_processes()?;
            thread::sleep(LOOK_EVERY * 4);
        }
        Ok(())
    }

    fn show_logs(&self) {
        for process in self.aggregator.iter().chain(self.agents.values()) {
            eprintln!(
                "the end of the log of {}:\n{}",
                process.name,
                process.log_tail()
            );
        }
    }

    /// Ends every process in order, then the network.
    fn end(mut self) -> anyhow::Result<Stats> {
        self.agents.values_mut().try_for_each(Process::ask_to_end)?;
        for process in std::mem::take(&mut self.agents).into_values() {
            process.stop()?;
        }
        if let Some(process) = self.aggregator.take() {
            process.stop()?;
        }
        let router = self.router.take().context("the router has already ended")?;
        router.stop().context("the emulated network failed")
    }
}

/// A primary, what is selected for it, and by which decision.
type Selection = (RegionId, Option<RegionId>, Option<u64>);

fn new_signal(signal: &SignalAction) -> v1::NewSignal {
    let SignalAction {
        source,
        subject,
        metric,
        value,
        ttl,
    } = signal;
    let (region, from, to) = match subject {
        Subject::Region(region) | Subject::Service(_, region) => (Some(region.clone()), None, None),
        Subject::Link(from, to) => (None, Some(from.clone()), Some(to.clone())),
    };
    let service = match subject {
        Subject::Service(service, _) => Some(service.clone()),
        Subject::Region(_) | Subject::Link(..) => None,
    };
    v1::NewSignal {
        source: source.clone(),
        region,
        from,
        to,
        service,
        metric: match metric {
            leeward_engine::input::Metric::Health => v1::Metric::Health,
            leeward_engine::input::Metric::LatencyUs => v1::Metric::LatencyUs,
            leeward_engine::input::Metric::LossRatio => v1::Metric::LossRatio,
            leeward_engine::input::Metric::BandwidthBps => v1::Metric::BandwidthBps,
            leeward_engine::input::Metric::ReplicationLagUs => v1::Metric::ReplicationLagUs,
        },
        value: *value,
        observed_at: None,
        ttl_ms: u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX),
    }
}
