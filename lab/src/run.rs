//! One run: builds the world, lets the daemons live in it, plays the timeline, and judges.

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use leeward_common::{
    api::v1,
    id::RegionId,
    time::{Clock as _, SystemClock, Timestamp},
};
use leeward_engine::{
    input::Subject,
    intent::Owner,
    scenario::{Action, Event, Expectation, Expected, Intent, Scenario, SignalAction},
};

use crate::{
    api,
    args::RunOptions,
    install::Binaries,
    lab::{self, LOOK_EVERY, Lab},
    net::Urgency,
    router::Stats,
    story::Story,
    world::World,
};

/// More decisions than a scenario leads to.
const ALL_DECISIONS: u32 = 1000;

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
    let interrupted = lab::interruption()?;
    let logs = lab::prepare_files(
        &binaries,
        options.keep_logs.as_deref(),
        options.transcript.as_deref(),
    )?;
    let mut lab = Lab::build(&scenario, world, binaries, &text, logs, None)?;
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

fn tell_end(
    story: &mut Story,
    stats: &Stats,
    outcome: Outcome,
    options: &RunOptions,
) -> anyhow::Result<()> {
    story.note(&format!("the emulated network: {}", stats.summary()));
    story.note(&format!(
        "this machine: an ordinary process was woken up to {:.1} ms late",
        story.wakeup_lateness().as_secs_f64() * 1e3
    ));
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

impl Lab<'_> {
    fn play(&mut self, story: &mut Story, interrupted: &AtomicBool) -> anyhow::Result<Outcome> {
        self.await_agents(interrupted)?;
        self.await_feeds(interrupted)?;
        let scenario = self.scenario;
        let start = Instant::now();
        let began = SystemClock.now();
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
            self.look_for_loss(start, began, story)?;
            while let Some(expectation) = waiting.next_if(|expectation| expectation.until < now) {
                self.judge(now, expectation, story)?;
            }
            if now >= scenario.duration {
                break;
            }
            let next_event = events.peek().map_or(scenario.duration, |event| event.at);
            let next = next_event.min(now + LOOK_EVERY).min(scenario.duration);
            let asleep = next.saturating_sub(start.elapsed());
            if !asleep.is_zero() {
                thread::sleep(asleep);
                story.woken_late(start.elapsed().saturating_sub(next));
            }
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

    /// Looks whether the first lost probe is seen of what routers told of before, and tells how long before.
    fn look_for_loss(
        &self,
        start: Instant,
        began: Timestamp,
        story: &mut Story,
    ) -> anyhow::Result<()> {
        for (primary, left) in story.led() {
            // What was lost in the first moments, while everything came up, nobody was told of.
            let link = self.api.link(&primary, &left)?;
            let mut windows = link.windows.iter();
            let start_of = |window: &v1::LinkWindow| window.start.0 >= began;
            if windows.any(|window| window.unanswered > 0 && start_of(window)) {
                story.lost(start.elapsed(), &primary, &left);
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
                Action::Routing(routing) => self.route(routing)?,
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
