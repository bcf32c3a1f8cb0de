//! `leeward-aggregator replay`: a replay on a directory that is only read, without an aggregator or beside one.

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use clap::Args;
use leeward_common::{api::v1, api::v1::When, config::Document};
use leeward_engine::policy::only_sections;

use super::{Question, replay};
use crate::{
    config::PolicyText,
    http::convert,
    store::{journal_end, rocks::Rocks},
};

/// A process that was killed may have journaled its last moment without storing what it decided upon it.
const UNSETTLED: Duration = Duration::from_secs(1);

/// What was decided, decided again from the journal of a data directory; or what another policy would have decided.
#[derive(Args, Debug)]
pub struct Options {
    /// The data directory; an aggregator may be using it.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// From when on: 2026-11-20T03:12:11Z, or -2h before the end of the journal.
    #[arg(long, value_name = "TIME", value_parser = When::parse, allow_hyphen_values = true)]
    from: When,
    /// Until when; the end of the journal if left out.
    #[arg(long, value_name = "TIME", value_parser = When::parse, allow_hyphen_values = true)]
    to: Option<When>,
    /// What this policy would have done instead: the policy sections of an aggregator.toml, or a whole one.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Write the answer as the API does.
    #[arg(long)]
    json: bool,
}

/// Replays, and writes the answer to stdout. Whether every decision was the same.
///
/// # Errors
///
/// Returns why there is no answer.
pub fn run(options: &Options) -> anyhow::Result<bool> {
    let other = options.policy.as_deref().map(policy).transpose()?;
    let store = Rocks::read_only(&options.data)?;
    let end = journal_end(&*store)?.context("the journal is empty")?.time;
    let settled = end - UNSETTLED;
    let (from, to) = (
        options.from.at(end),
        options.to.map_or(settled, |to| to.at(end)).min(settled),
    );
    anyhow::ensure!(
        from < to,
        "from is {from} and the last that can be compared is {to}; the journal ends at {end}"
    );
    let question = Question { from, to, other };
    let answer = replay(&*store, &question, &mut |_| ControlFlow::Continue(()))?;
    let is_same = answer.first_difference.is_none();
    let answer = convert::replay(&question, &answer);
    match options.json {
        true => println!("{}", serde_json::to_string_pretty(&answer)?),
        false => print!("{}", text(&answer)),
    }
    Ok(is_same)
}

fn policy(path: &Path) -> anyhow::Result<PolicyText> {
    let file = path.display().to_string();
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {file}"))?;
    let text = only_sections(text);
    let document = Document {
        file: &file,
        text: &text,
    };
    Ok(PolicyText::parse(&document)?)
}

fn text(answer: &v1::Replay) -> String {
    let mut text = format!("{}\n", answer.summary);
    let Some(other) = &answer.other else {
        return text;
    };
    let board = &other.scoreboard;
    for (name, side) in [("in force", &board.current), ("other", &board.other)] {
        let regret = side
            .regret
            .map_or_else(|| "?".to_owned(), |own| format!("{own:.4}"));
        text.push_str(&format!(
            "  {name:<8}  {} moves, {} flaps, {} of {} judged moves false, regret {regret}, {} s in the worse choice\n",
            side.moves, side.flaps, side.false_moves, side.judged_moves, side.worse_ms / 1_000
        ));
    }
    text
}
