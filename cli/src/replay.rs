//! `leeward replay`: what was decided, decided again; or what another policy would have decided.

use std::{fmt::Write, fs, path::Path};

use anyhow::Context;
use leeward_common::api::v1::{
    PolicyComparison, PolicyMove, Replay, ReplayLine, ReplayRequest, Scoreboard, ScoreboardSide,
};

use leeward_engine::policy::only_sections;

use crate::{
    args::{Cli, ReplayOptions},
    client::Client,
    exit::{Exit, Failure},
    output::{Output, Tone},
    words,
};

/// Runs `leeward replay`.
///
/// # Errors
///
/// Returns why there is no answer.
pub fn run(cli: &Cli, out: &Output, options: &ReplayOptions) -> Result<Exit, Failure> {
    let request = ReplayRequest {
        from: options.from,
        to: options.to,
        policy: options.policy.as_deref().map(policy).transpose()?,
    };
    let client = Client::new(&cli.global)?;
    let mut answer = None;
    client.lines("/v1/replays", &request, |line: ReplayLine| {
        match line {
            ReplayLine::Progress(progress) => out.talk(&format!(
                "at {} of {} UTC, {}",
                words::date_time(progress.at),
                words::date_time(progress.to),
                words::plural(progress.records, "record")
            )),
            ReplayLine::Answer(replay) => answer = Some(Ok(replay)),
            ReplayLine::Failed { detail } => answer = Some(Err(detail)),
        }
        Ok(())
    })?;
    let replay = match answer {
        Some(Ok(replay)) => replay,
        Some(Err(detail)) => return Err(Failure::new(Exit::NotEnoughKnown, detail)),
        None => return Err(Failure::new(Exit::Failed, "the answer broke off")),
    };
    out.one(&*replay, |out| text(out, &replay))?;
    Ok(match replay.first_difference {
        Some(_) => Exit::BadNews,
        None => Exit::Done,
    })
}

/// The policy sections of a file: those of a whole `aggregator.toml` if it is one.
pub(crate) fn policy(path: &Path) -> Result<String, Failure> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(only_sections(text))
}

fn text(out: &Output, replay: &Replay) -> String {
    let tone = match replay.first_difference {
        Some(_) => Tone::Bad,
        None => Tone::Strong,
    };
    let mut text = format!("{}\n\n", out.paint(tone, &replay.summary));
    let mut line = |label: &str, value: &str| {
        let _ = writeln!(text, "  {label:<9}  {value}");
    };
    let (from, to) = (words::date_time(replay.from), words::date_time(replay.to));
    line("compared", &format!("{from} to {to} UTC"));
    let begun = words::date_time(replay.begun.at);
    line(
        "begun",
        &match &replay.begun.build {
            Some(build) => format!("with the engine of {begun} UTC, written down by build {build}"),
            None => format!("anew at {begun} UTC, which is not exact"),
        },
    );
    line("told", &words::plural(replay.records, "record"));
    if let Some(other) = &replay.other {
        text.push('\n');
        text.push_str(&comparison(out, other));
    }
    text
}

fn comparison(out: &Output, comparison: &PolicyComparison) -> String {
    let mut text = format!(
        "{}\n",
        out.paint(
            Tone::Strong,
            &format!("the other policy ({})", comparison.policy_version)
        )
    );
    text.push_str(&scoreboard(&comparison.scoreboard));
    let mut moves = |label: &str, all: &[PolicyMove]| {
        for own in all {
            let region = |region: &Option<leeward_common::id::RegionId>| {
                region
                    .as_ref()
                    .map_or_else(|| "none".to_owned(), ToString::to_string)
            };
            let _ = writeln!(
                text,
                "  {label:<9}  {} UTC  {}: {} to {}  [{}]",
                words::date_time(own.at),
                own.owner,
                region(&own.from),
                region(&own.to),
                own.reason
            );
        }
    };
    moves("only now", &comparison.only_current);
    moves("only other", &comparison.only_other);
    for shifted in &comparison.shifted {
        let own = &shifted.current;
        let _ = writeln!(
            text,
            "  shifted    {} UTC  {}: the other policy {} ms {}",
            words::date_time(own.at),
            own.owner,
            shifted.other_later_ms.unsigned_abs(),
            if shifted.other_later_ms < 0 {
                "earlier"
            } else {
                "later"
            }
        );
    }
    text
}

/// Two policies beside each other, for people.
pub(crate) fn scoreboard(board: &Scoreboard) -> String {
    let mut text = String::new();
    let agreement = board
        .agreement
        .map_or_else(|| "?".to_owned(), words::percent);
    let _ = writeln!(text, "  agreement  {agreement} of the selection time");
    let mut line = |label: &str, current: &str, other: &str| {
        let _ = writeln!(text, "  {label:<9}  {current:>10}  {other:>10}");
    };
    let (current, other) = (&board.current, &board.other);
    let moves = |side: &ScoreboardSide| side.moves.to_string();
    let age = |ms: u64| words::age(Some(ms));
    let regret = |side: &ScoreboardSide| side.regret.map_or_else(|| "?".to_owned(), words::percent);
    line("", "in force", "other");
    let judged = |side: &ScoreboardSide| format!("{}/{}", side.false_moves, side.judged_moves);
    line("moves", &moves(current), &moves(other));
    line(
        "flaps",
        &current.flaps.to_string(),
        &other.flaps.to_string(),
    );
    line("false", &judged(current), &judged(other));
    line("worse", &age(current.worse_ms), &age(other.worse_ms));
    line("down", &age(current.down_ms), &age(other.down_ms));
    line("lossy", &age(current.lossy_ms), &age(other.lossy_ms));
    line("regret", &regret(current), &regret(other));
    text
}
