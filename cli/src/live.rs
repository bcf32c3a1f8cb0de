//! `leeward simulate --live`: what would happen to the aggregator's live state, in isolation.

use std::{fmt::Write, fs, path::Path, time::Duration};

use anyhow::Context;
use leeward_common::{
    api::v1::{Simulation, SimulationEvent, SimulationRequest, State},
    config::Span,
    id::{AgentId, RegionId},
};
use serde::Deserialize;

use crate::{
    args::{Cli, SimulateOptions},
    client::Client,
    exit::{Exit, Failure},
    output::{Output, Tone},
    words,
};

/// For how long, if nobody says.
const STANDARD: Duration = Duration::from_secs(60);

/// Runs `leeward simulate --live`.
///
/// # Errors
///
/// Returns why there is no answer.
pub fn run(cli: &Cli, out: &Output, options: &SimulateOptions) -> Result<Exit, Failure> {
    let file = options.scenario.as_deref().map(read).transpose()?;
    let (mut events, mut duration, mut seed) = (Vec::new(), STANDARD, 0);
    if let Some(file) = file {
        duration = file.duration.map_or(duration, |span| span.0);
        seed = file.seed;
        for event in file.event {
            events.extend(event.events());
        }
    }
    events.extend(options.event.iter().cloned());
    let request = SimulationRequest {
        at: options.at,
        duration_ms: millis(options.duration.map_or(duration, |span| span.0)),
        seed: options.seed.unwrap_or(seed),
        events,
    };
    // It takes longer than other answers.
    let client = Client::new(&cli.global)?.patient(Duration::from_secs(60));
    let simulation: Simulation = client.send("/v1/simulations", &request, None)?;
    out.one(&simulation, |out| text(out, &simulation))?;
    Ok(out.verdict(simulation.state == State::Ok))
}

/// A scenario's timeline; its world is the live one.
#[derive(Deserialize)]
struct File {
    duration: Option<Span>,
    #[serde(default)]
    seed: u64,
    #[serde(default)]
    event: Vec<FileEvent>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileEvent {
    at: Span,
    #[serde(default)]
    links: Vec<String>,
    set: Option<FileSet>,
    #[serde(default)]
    clear: Vec<String>,
    region_down: Option<RegionId>,
    region_up: Option<RegionId>,
    agent_stop: Option<AgentId>,
    drain: Option<RegionId>,
    say: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileSet {
    loss: Option<f64>,
    delay: Option<Span>,
    added_delay: Option<Span>,
}

fn read(path: &Path) -> Result<File, Failure> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    toml::from_str(&text).map_err(|error| {
        Failure::new(Exit::Failed, format!("{}: {error}", path.display()))
            .step("with --live a scenario may hold duration, seed and [[event]]s with links and set, clear, region_down, region_up, agent_stop, drain and say")
    })
}

impl FileEvent {
    fn events(self) -> Vec<SimulationEvent> {
        let at_ms = millis(self.at.0);
        let clear = (!self.clear.is_empty()).then(|| SimulationEvent {
            at_ms,
            links: self.clear.clone(),
            clear: true,
            ..SimulationEvent::default()
        });
        let ms = |span: Option<Span>| span.map(|span| span.0.as_secs_f64() * 1_000.0);
        let (loss, delay, added) = match self.set {
            Some(set) => (set.loss, ms(set.delay), ms(set.added_delay)),
            None => (None, None, None),
        };
        let rest = SimulationEvent {
            at_ms,
            region_down: self.region_down,
            region_up: self.region_up,
            agent_stop: self.agent_stop,
            drain: self.drain,
            links: self.links,
            loss_ratio: loss,
            delay_ms: delay,
            added_delay_ms: added,
            clear: false,
            say: self.say,
        };
        let bare = SimulationEvent {
            at_ms,
            ..SimulationEvent::default()
        };
        let rest = (rest != bare).then_some(rest);
        clear.into_iter().chain(rest).collect()
    }
}

/// An event on one line: `[SPAN] KEY=VALUE …`, like `10s region_down=virginia` or `link=a->b loss=8% add=30ms`.
///
/// # Errors
///
/// Returns what to write instead.
pub fn event(text: &str) -> Result<SimulationEvent, String> {
    let mut event = SimulationEvent::default();
    for word in text.split_whitespace() {
        let Some((key, value)) = word.split_once('=') else {
            match word {
                "clear" => event.clear = true,
                at => event.at_ms = millis(span(at)?),
            }
            continue;
        };
        let region = || RegionId::parse(value).map_err(|error| error.to_string());
        let ms = || span(value).map(|span| span.as_secs_f64() * 1_000.0);
        match key {
            "region_down" => event.region_down = Some(region()?),
            "region_up" => event.region_up = Some(region()?),
            "drain" => event.drain = Some(region()?),
            "agent_stop" => {
                event.agent_stop = Some(AgentId::parse(value).map_err(|error| error.to_string())?);
            }
            "link" | "links" => event.links.extend(value.split(',').map(str::to_owned)),
            "loss" => event.loss_ratio = Some(ratio(value)?),
            "delay" => event.delay_ms = Some(ms()?),
            "add" => event.added_delay_ms = Some(ms()?),
            other => {
                return Err(format!(
                    "{other} is nothing that can happen; use region_down, region_up, agent_stop, drain, or link with loss, delay, add or clear"
                ));
            }
        }
    }
    Ok(event)
}

fn span(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|_| format!("{text:?} is no span; write 250ms, 10s or 1h"))
}

fn ratio(text: &str) -> Result<f64, String> {
    let (number, scale) = match text.strip_suffix('%') {
        Some(number) => (number, 100.0),
        None => (text, 1.0),
    };
    match number.trim().parse::<f64>() {
        Ok(number) if (0.0..=scale).contains(&number) => Ok(number / scale),
        _ => Err(format!("{text:?} is no share; write 8% or 0.08")),
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn text(out: &Output, simulation: &Simulation) -> String {
    let mut text = format!("{}\n", out.paint(Tone::Strong, &simulation.summary));
    let _ = writeln!(
        text,
        "from the state at {} UTC, {} of virtual time\n",
        words::date_time(simulation.from),
        words::span(Duration::from_millis(simulation.simulated_ms))
    );
    for line in &simulation.lines {
        let tone = match line.kind.as_str() {
            "event" => Tone::Quiet,
            "region" => Tone::Warn,
            _ => Tone::Plain,
        };
        let at = Duration::from_millis(line.at_ms).as_secs_f64();
        let told = format!("{at:9.3} s  {:<8}  {}", line.kind, line.text);
        let _ = writeln!(text, "{}", out.paint(tone, &told));
    }
    let region = |region: &Option<RegionId>| {
        region
            .as_ref()
            .map_or_else(|| "none".to_owned(), ToString::to_string)
    };
    for own in &simulation.selections {
        if own.before != own.after {
            let (before, after) = (region(&own.before), region(&own.after));
            let _ = writeln!(text, "  {}: {before} before, {after} at the end", own.owner);
        }
    }
    let tone = words::tone(simulation.state);
    let _ = writeln!(
        text,
        "\nat the end: {}",
        out.paint(tone, &simulation.verdict)
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_written_on_one_line() {
        let down = event("10s region_down=virginia").unwrap();
        assert_eq!(down.at_ms, 10_000);
        assert_eq!(down.region_down.unwrap().as_str(), "virginia");
        let lossy = event("link=a->b,b->a loss=8% add=30ms").unwrap();
        assert_eq!(lossy.links, ["a->b", "b->a"]);
        assert_eq!(
            (lossy.loss_ratio, lossy.added_delay_ms),
            (Some(0.08), Some(30.0))
        );
        for text in ["region_down=", "loss=200%", "soon region_down=a", "fire=a"] {
            assert!(event(text).is_err(), "{text}");
        }
    }
}
