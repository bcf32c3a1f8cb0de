//! `leeward simulate`: a scenario in virtual time, without any server.

use std::{fmt::Write, fs, io::ErrorKind};

use leeward_engine::{
    scenario::{Scenario, Verdict},
    simulate::{self, LineKind, Transcript, describe},
};
use serde_json::{Value, json};

use crate::{
    args::{Cli, Format, SimulateOptions},
    exit::{Exit, Failure},
    live,
    output::{Output, Tone},
    table::Table,
    words,
};

/// Runs `leeward simulate`.
///
/// # Errors
///
/// Returns why the scenario cannot run.
pub fn run(cli: &Cli, out: &Output, options: &SimulateOptions) -> Result<Exit, Failure> {
    let path = match &options.scenario {
        Some(path) if !options.live => path,
        _ => return live::run(cli, out, options),
    };
    let file = path.display().to_string();
    let text = fs::read_to_string(path).map_err(|error| {
        let exit = if error.kind() == ErrorKind::NotFound {
            Exit::NotFound
        } else {
            Exit::Failed
        };
        Failure::new(exit, format!("cannot read {file}: {error}"))
    })?;
    let mut scenario =
        Scenario::parse(&file, &text).map_err(|error| Failure::new(Exit::Failed, error))?;
    if let Some(seed) = options.seed {
        scenario.seed = seed;
    }
    let transcript = simulate::run(&scenario);
    write(out, &transcript)?;
    let missed = transcript
        .verdicts
        .iter()
        .filter(|(_, verdict)| !verdict.is_met())
        .count();
    if missed > 0 {
        let all = transcript.verdicts.len();
        out.talk(&format!(
            "{missed} of {} not met",
            words::plural(all as u64, "expectation")
        ));
        return Ok(Exit::BadNews);
    }
    Ok(Exit::Done)
}

fn write(out: &Output, transcript: &Transcript) -> Result<(), Failure> {
    let lines: Vec<Value> = transcript
        .lines
        .iter()
        .map(|line| json!({ "at_us": micros(line.at), "kind": word(line.kind), "text": line.text }))
        .collect();
    let mut table = Table::new().right("at_us").left("kind").left("text");
    for line in &transcript.lines {
        table.row(vec![
            micros(line.at).to_string().into(),
            word(line.kind).into(),
            line.text.as_str().into(),
        ]);
    }
    match out.format {
        Format::Table | Format::Wide => out.text(&story(out, transcript)),
        _ => out.list(&whole(transcript, &lines), &lines, "", &table),
    }
}

fn whole(transcript: &Transcript, lines: &[Value]) -> Value {
    let verdicts: Vec<Value> = transcript
        .verdicts
        .iter()
        .map(|(expectation, verdict)| {
            let (verdict_word, at) = match verdict {
                Verdict::Met { at } => ("met", Some(*at)),
                Verdict::Missed { .. } => ("missed", None),
                Verdict::Lost { at, .. } => ("lost", Some(*at)),
            };
            json!({
                "expected": expectation.to_string(),
                "since_us": micros(expectation.since),
                "by_us": micros(expectation.by),
                "until_us": micros(expectation.until),
                "verdict": verdict_word,
                "at_us": at.map(micros),
                "detail": describe(expectation, verdict),
            })
        })
        .collect();
    let decisions: Vec<Value> = transcript
        .decisions
        .iter()
        .map(|decision| {
            json!({
                "decision_id": decision.id,
                "at_us": micros(decision.at.since(simulate::START)),
                "primary_region": decision.primary,
                "from": decision.from,
                "to": decision.to,
                "reason": decision.reason.code(),
                "summary": decision.summary,
            })
        })
        .collect();
    json!({
        "name": transcript.name,
        "passed": transcript.passed(),
        "lines": lines,
        "decisions": decisions,
        "expectations": verdicts,
    })
}

fn story(out: &Output, transcript: &Transcript) -> String {
    let mut text = format!("{}\n", out.paint(Tone::Strong, &transcript.name));
    for line in &transcript.lines {
        let tone = match line.kind {
            LineKind::Event => Tone::Quiet,
            LineKind::Region => Tone::Warn,
            LineKind::Decision => Tone::Plain,
        };
        let _ = writeln!(text, "{}", out.paint(tone, &line.to_string()));
    }
    for (expectation, verdict) in &transcript.verdicts {
        let tone = if matches!(verdict, Verdict::Met { .. }) {
            Tone::Plain
        } else {
            Tone::Bad
        };
        let _ = writeln!(text, "{}", out.paint(tone, &describe(expectation, verdict)));
    }
    text
}

const fn word(kind: LineKind) -> &'static str {
    match kind {
        LineKind::Event => "event",
        LineKind::Region => "region",
        LineKind::Decision => "decision",
    }
}

fn micros(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}
