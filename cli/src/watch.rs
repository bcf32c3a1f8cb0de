//! `leeward watch`: what changes, as it changes.
//!
//! A stream that breaks off is taken up again where it was: every event has an id that means the same after a restart of
//! the aggregator. Between two attempts is a pause that doubles and is spread, so that a thousand watchers do not come
//! again at once.

use std::{fmt::Write, thread, time::Duration};

use anyhow::Context;
use leeward_common::api::v1::{
    Doubt, FailoverState, Hesitation, Moved, RegionStatus, Reset, Sentence, ServiceState, Snapshot,
    State,
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    args::{Cli, Format, WatchOptions},
    client::Client,
    events::{Event, Events},
    exit::{Exit, Failure},
    output::{Output, Tone},
    words,
};

/// The stream says that it lives every five seconds. Twice that and a little more is silence.
const SILENCE: Duration = Duration::from_secs(12);

/// The pause before the first attempt to come again, unless the stream says another.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// An event, as `-o json` writes it: one per line.
#[derive(Serialize)]
struct Line<'a> {
    id: &'a str,
    event: &'a str,
    data: serde_json::Value,
}

/// Runs `leeward watch`.
///
/// # Errors
///
/// Returns why there is no stream at all, or why it cannot be taken up again.
pub fn run(cli: &Cli, out: &Output, options: &WatchOptions) -> Result<Exit, Failure> {
    if matches!(out.format, Format::Csv | Format::Name) {
        return Err(
            Failure::new(Exit::Usage, "a stream has no csv or name form")
                .step("use -o table or -o json"),
        );
    }
    let client = Client::new(&cli.global)?;
    let mut watch = Watch {
        out,
        path: path(options),
        last: options.since.clone(),
        left: options.limit,
        pause: Pause::default(),
    };
    let mut is_first = true;
    while watch.left != Some(0) {
        let followed = watch.follow(&client);
        let why = match followed {
            Ok(End::Enough) => break,
            Ok(End::BrokeOff(why)) => why,
            // It was never there, or it will say the same again.
            Err(failure) if is_first || !is_passing(failure.exit) => return Err(failure),
            Err(failure) => format!("{:#}", failure.error),
        };
        is_first = false;
        let pause = watch.pause.next();
        let span = humantime::format_duration(Duration::from_millis(pause.as_millis() as u64));
        out.talk(&format!(
            "the stream broke off: {why}; coming again in {span}"
        ));
        thread::sleep(pause);
    }
    Ok(Exit::Done)
}

fn path(options: &WatchOptions) -> String {
    match (&options.primary, &options.service) {
        (Some(primary), _) => format!("/v1/watch?primary_region={primary}"),
        (None, Some(service)) => format!("/v1/watch?service={service}"),
        (None, None) => "/v1/watch".to_owned(),
    }
}

/// Whether it may be otherwise the next time.
const fn is_passing(exit: Exit) -> bool {
    matches!(exit, Exit::Failed | Exit::TimedOut | Exit::NotEnoughKnown)
}

enum End {
    /// As many events as were asked for.
    Enough,
    /// Why there are no more.
    BrokeOff(String),
}

struct Watch<'a> {
    out: &'a Output,
    path: String,
    /// The last event.
    last: Option<String>,
    /// How many more are wanted.
    left: Option<u64>,
    pause: Pause,
}

impl Watch<'_> {
    fn follow(&mut self, client: &Client) -> Result<End, Failure> {
        let stream = client.follow(&self.path, self.last.as_deref(), SILENCE)?;
        let mut events = Events::new(stream);
        loop {
            let event = match events.next_event() {
                Ok(Some(event)) => event,
                Ok(None) => return Ok(End::BrokeOff("the aggregator ended it".to_owned())),
                Err(error) => return Ok(End::BrokeOff(error.to_string())),
            };
            self.pause.begin_anew(events.retry);
            self.show(&event)?;
            self.last = Some(event.id);
            if let Some(left) = &mut self.left {
                *left -= 1;
                if *left == 0 {
                    return Ok(End::Enough);
                }
            }
        }
    }

    fn show(&self, event: &Event) -> Result<(), Failure> {
        match self.out.format {
            Format::Json | Format::Jsonl => {
                let line = Line {
                    id: &event.id,
                    event: &event.name,
                    data: data(event)?,
                };
                let line = serde_json::to_string(&line).context("cannot write the event")?;
                self.out.line(&line)
            }
            _ => self.out.text(&told(self.out, event)?),
        }
    }
}

fn data<T: DeserializeOwned>(event: &Event) -> Result<T, Failure> {
    let data = serde_json::from_str(&event.data);
    Ok(data.with_context(|| {
        format!(
            "the event {:?} says something else than expected",
            event.name
        )
    })?)
}

/// An event in words, a line each. Events that this build does not know are passed over: there will be more of them.
fn told(out: &Output, event: &Event) -> Result<String, Failure> {
    Ok(match event.name.as_str() {
        "reset" => {
            let Reset { reason } = data(event)?;
            line(out, Tone::Warn, "reset", &reason.detail)
        }
        "snapshot" => snapshot(out, &data(event)?),
        "decision" => {
            let moved: Moved = data(event)?;
            let at = words::time_of_day(moved.decided_at);
            let text = format!("{} at {at} UTC: {}", moved.decision_id, moved.summary);
            line(out, Tone::Strong, "decision", &text)
        }
        "failover" => failover(out, &data(event)?),
        "service" => service(out, &data(event)?),
        "region" => region(out, &data(event)?),
        "doubt" => doubt(out, &data(event)?),
        "hesitation" => {
            let own: Hesitation = data(event)?;
            let at = words::time_of_day(own.at);
            line(
                out,
                Tone::Plain,
                "refused",
                &format!("at {at} UTC: {}", own.summary),
            )
        }
        "overview" => sentence(out, &data(event)?),
        _ => String::new(),
    })
}

fn line(out: &Output, tone: Tone, what: &str, text: &str) -> String {
    format!("{:<9} {}\n", what, out.paint(tone, text))
}

fn snapshot(out: &Output, snapshot: &Snapshot) -> String {
    let mut text = String::new();
    if let Some(overview) = &snapshot.overview {
        text.push_str(&sentence(out, overview));
    }
    for state in &snapshot.failovers {
        text.push_str(&failover(out, state));
    }
    for state in &snapshot.services {
        text.push_str(&service(out, state));
    }
    for status in snapshot
        .regions
        .iter()
        .filter(|region| region.state != State::Ok)
    {
        text.push_str(&region(out, status));
    }
    for one in &snapshot.doubts {
        text.push_str(&doubt(out, one));
    }
    text
}

fn sentence(out: &Output, sentence: &Sentence) -> String {
    let text = format!("{} {}", words::mark(sentence.state), sentence.summary);
    line(out, words::tone(sentence.state), "overview", &text)
}

fn failover(out: &Output, state: &FailoverState) -> String {
    let mut text = state.line.summary.clone();
    for candidate in &state.refused {
        let reasons: Vec<&str> = candidate
            .reasons
            .iter()
            .map(|reason| reason.detail.as_str())
            .collect();
        let _ = write!(
            text,
            "; refused: {} ({})",
            candidate.region_id,
            reasons.join(", ")
        );
    }
    line(out, words::tone(state.line.state), "failover", &text)
}

fn service(out: &Output, state: &ServiceState) -> String {
    let place = state
        .selected_region
        .as_ref()
        .map_or("nowhere", |region| region.as_str());
    let held = state.held_until.map_or_else(String::new, |until| {
        format!(", held until {} UTC", words::time_of_day(until))
    });
    let text = format!("{} should run in {place}{held}", state.service_id);
    line(out, Tone::Plain, "service", &text)
}

fn region(out: &Output, status: &RegionStatus) -> String {
    let text = format!(
        "{} is {}: {}",
        status.region_id, status.state, status.detail
    );
    line(out, words::tone(status.state), "region", &text)
}

fn doubt(out: &Output, doubt: &Doubt) -> String {
    let Doubt {
        agent_id,
        region_id,
        doubted,
        code,
    } = doubt;
    let text = match (doubted, code.as_str()) {
        (true, "suspect") => {
            format!("{agent_id} in {region_id} is doubted: it says that it is in trouble itself")
        }
        (true, _) => {
            format!("{agent_id} in {region_id} is doubted: it sees fail what others see well")
        }
        (false, _) => format!("{agent_id} in {region_id} counts again"),
    };
    line(
        out,
        if *doubted { Tone::Warn } else { Tone::Plain },
        "doubt",
        &text,
    )
}

/// How long to wait before coming again.
#[derive(Debug)]
struct Pause {
    first: Duration,
    next: Duration,
}

impl Default for Pause {
    fn default() -> Self {
        Self {
            first: FIRST_PAUSE,
            next: FIRST_PAUSE,
        }
    }
}

impl Pause {
    /// The stream lives: the next time it breaks off the pause is short.
    fn begin_anew(&mut self, asked: Option<Duration>) {
        self.first = asked.unwrap_or(FIRST_PAUSE).min(LONGEST_PAUSE);
        self.next = self.first;
    }

    /// The next pause: between half of it and all of it.
    fn next(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).clamp(Duration::from_millis(1), LONGEST_PAUSE);
        let mut random = [0];
        // Without randomness the pause is as good, only not spread.
        let _ = getrandom::fill(&mut random);
        pause.mul_f64(0.5 + f64::from(random[0]) / 510.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_doubles_up_to_a_limit_and_is_short_again_once_the_stream_lives() {
        let mut pause = Pause::default();
        for _ in 0..20 {
            let most = pause.next;
            let taken = pause.next();
            assert!(most / 2 <= taken && taken <= most, "{taken:?} of {most:?}");
        }
        assert_eq!(pause.next, LONGEST_PAUSE);
        pause.begin_anew(None);
        assert_eq!(pause.next, FIRST_PAUSE);
        pause.begin_anew(Some(Duration::from_secs(3_600)));
        assert_eq!(pause.next, LONGEST_PAUSE);
    }
}
