//! `leeward failover …`: where a region goes, why, and what was decided before.

use std::fmt::Write;

use anyhow::Context;
use leeward_common::{
    api::v1::{
        Candidate, Contribution, Decision, Decisions, Explanation, Failover, FailoverConfiguration,
        Hesitations, Overview, Perspective, ServiceExplanation, State,
    },
    id::RegionId,
};

use crate::{
    args::{Cli, FailoverCommand},
    client::Client,
    exit::{Exit, Failure},
    explain,
    output::{Output, Tone},
    table::{Align, Cell, Table},
    words,
};

/// Runs `leeward failover …`.
///
/// # Errors
///
/// Returns why there is no answer.
pub fn run(cli: &Cli, out: &Output, command: &FailoverCommand) -> Result<Exit, Failure> {
    let client = Client::new(&cli.global)?;
    match command {
        FailoverCommand::Rank { primary: None, .. } => overview(&client, out),
        FailoverCommand::Rank {
            primary: Some(primary),
            candidates,
            weight,
        } => {
            let failover: Failover = if candidates.is_empty() {
                client.ask(&format!("/v1/failover/{primary}"))?
            } else {
                let configuration = FailoverConfiguration {
                    primary_region: primary.clone(),
                    potential_failover_regions: candidates.clone(),
                    weights: weight.iter().cloned().collect(),
                };
                client.send("/v1/failover/evaluate", &configuration, None)?
            };
            out.list(
                &failover,
                &failover.candidates,
                &head(out, &failover),
                &ranking(&failover.candidates),
            )?;
            Ok(verdict(out, failover.state))
        }
        FailoverCommand::Explain {
            primary: Some(primary),
            ..
        } => {
            let asked: Explanation = client.ask(&format!("/v1/failover/{primary}/explanation"))?;
            out.one(&asked, |out| explain::explanation(out, &asked))?;
            Ok(verdict(out, asked.failover.state))
        }
        FailoverCommand::Explain { service, .. } => {
            let service = service.as_ref().context("name a region or a service")?;
            let asked: ServiceExplanation =
                client.ask(&format!("/v1/services/{service}/explanation"))?;
            out.one(&asked, |out| explain::of_service(out, &asked))?;
            Ok(verdict(out, asked.failover.state))
        }
        FailoverCommand::Hesitations { limit } => hesitations(&client, out, *limit),
        FailoverCommand::History { primary, limit } => {
            history(&client, out, primary.as_ref(), *limit)
        }
    }
}

/// Not enough known is an answer of its own; bad news are one only with `--check`.
fn verdict(out: &Output, state: State) -> Exit {
    match state {
        State::Pending | State::Unknown => Exit::NotEnoughKnown,
        state => out.verdict(state == State::Ok),
    }
}

fn overview(client: &Client, out: &Output) -> Result<Exit, Failure> {
    let overview: Overview = client.ask("/v1/overview")?;
    let mut table = Table::new()
        .left("primary")
        .left("goes to")
        .left("state")
        .left("next best")
        .right("margin")
        .left("since")
        .left("why");
    for line in &overview.failovers {
        table.row(vec![
            line.primary_region.as_str().into(),
            line.selected_region
                .as_ref()
                .map_or("none", |region| region.as_str())
                .into(),
            words::state(line.state),
            line.next_best
                .as_ref()
                .map_or("none", |region| region.as_str())
                .into(),
            line.margin
                .map_or_else(|| "?".to_owned(), |margin| format!("×{margin:.2}"))
                .into(),
            line.decided_at
                .map_or_else(|| "never".to_owned(), words::date_time)
                .into(),
            line.summary.as_str().into(),
        ]);
    }
    out.list(&overview.failovers, &overview.failovers, "", &table)?;
    Ok(out.verdict(
        overview
            .failovers
            .iter()
            .all(|line| line.state == State::Ok),
    ))
}

pub(crate) fn head(out: &Output, failover: &Failover) -> String {
    let tone = if failover.state == State::Ok {
        Tone::Strong
    } else {
        words::tone(failover.state)
    };
    let mut text = out.paint(tone, &failover.summary);
    text.push('\n');
    if failover.stale {
        let age = "the picture is too old to act on; this is the last good answer";
        let _ = writeln!(text, "{}", out.paint(Tone::Warn, age));
    }
    if failover.perspective == Perspective::Survivors {
        let _ = writeln!(
            text,
            "judged by the other regions: {} itself is not heard",
            failover.primary_region
        );
    }
    text.push('\n');
    text
}

/// One row per candidate, the reason at its end.
fn ranking(candidates: &[Candidate]) -> Table {
    let mut table = Table::new()
        .right("rank")
        .left("region")
        .right("score")
        .right("norm")
        .right("baseline")
        .right("network")
        .left("likely score")
        .right("p50")
        .right("p99")
        .right("jitter")
        .right("loss")
        .wide("bandwidth", Align::Right)
        .right("age")
        .right("views")
        .left("why");
    let best = candidates.first().filter(|best| best.eligible);
    for candidate in candidates {
        let bandwidth = candidate.bandwidth_bps.as_ref();
        table.row(vec![
            candidate
                .rank
                .map_or_else(|| "-".to_owned(), |rank| rank.to_string())
                .into(),
            Cell::new(
                if candidate.rank == Some(1) {
                    Tone::Strong
                } else {
                    Tone::Plain
                },
                candidate.region_id.as_str(),
            ),
            words::weight(candidate.score).into(),
            words::weight(candidate.normalised_score).into(),
            format!("{:.3}", candidate.baseline_weight).into(),
            words::weight(candidate.network_weight).into(),
            words::range(candidate.score_low, candidate.score_high).into(),
            words::measured(&candidate.latency_p50_us, words::milliseconds),
            words::measured(&candidate.latency_p99_us, words::milliseconds),
            words::measured(&candidate.jitter_us, words::milliseconds),
            words::measured(&candidate.loss_ratio, words::percent),
            bandwidth.map_or_else(
                || "?".into(),
                |bandwidth| words::measured(bandwidth, words::bandwidth),
            ),
            words::age(candidate.data_age_ms).into(),
            candidate.vantage_points.to_string().into(),
            why(candidate, best),
        ]);
    }
    table
}

/// The reasons against a candidate, or what puts it behind the best one.
fn why(candidate: &Candidate, best: Option<&Candidate>) -> Cell {
    if !candidate.eligible {
        let reasons: Vec<&str> = candidate
            .reasons
            .iter()
            .map(|reason| reason.detail.as_str())
            .collect();
        return Cell::new(Tone::Bad, format!("not eligible: {}", reasons.join("; ")));
    }
    let Some(best) = best.filter(|best| best.region_id != candidate.region_id) else {
        return "best".into();
    };
    let behind = |own: &Contribution| {
        let other = best
            .contributions
            .iter()
            .find(|other| (&other.term, &other.source) == (&own.term, &own.source));
        own.log_value - other.map_or(0.0, |other| other.log_value)
    };
    let worst = candidate
        .contributions
        .iter()
        .min_by(|a, b| behind(a).total_cmp(&behind(b)));
    match worst.filter(|worst| behind(worst) < 0.0) {
        Some(worst) => format!(
            "behind mostly by {}: {}",
            term(&worst.term, worst.source.as_ref()),
            worst.detail
        )
        .into(),
        None => format!("no worse than {}", best.region_id).into(),
    }
}

pub(crate) fn term(term: &str, source: Option<&leeward_common::id::SourceId>) -> String {
    match source {
        Some(source) => format!("signal {source}"),
        None => term.replace('_', " "),
    }
}

fn history(
    client: &Client,
    out: &Output,
    primary: Option<&RegionId>,
    limit: u32,
) -> Result<Exit, Failure> {
    let filter = primary.map_or_else(String::new, |primary| format!("&primary_region={primary}"));
    let decisions: Decisions = client.ask(&format!("/v1/decisions?limit={limit}{filter}"))?;
    let mut table = Table::new()
        .right("id")
        .left("decided")
        .left("primary")
        .left("from")
        .left("to")
        .left("reason")
        .right("margin")
        .left("why");
    for decision in &decisions.decisions {
        table.row(row(decision));
    }
    out.list(&decisions, &decisions.decisions, "", &table)?;
    if decisions.decisions.is_empty() {
        out.talk("nothing was decided yet");
    }
    Ok(Exit::Done)
}

/// What was refused, beside what was done.
fn hesitations(client: &Client, out: &Output, limit: u32) -> Result<Exit, Failure> {
    let told: Hesitations = client.ask(&format!("/v1/hesitations?limit={limit}"))?;
    let mut table = Table::new()
        .left("at")
        .left("whose")
        .left("stays")
        .left("instead of")
        .left("code")
        .left("why");
    for own in &told.hesitations {
        let primary = own
            .primary_region
            .as_ref()
            .map(leeward_common::id::RegionId::as_str);
        let service = own
            .service_id
            .as_ref()
            .map(leeward_common::id::ServiceId::as_str);
        let name = |region: Option<&RegionId>| region.map_or("-", |own| own.as_str()).to_owned();
        table.row(vec![
            words::date_time(own.at).into(),
            primary.or(service).unwrap_or("-").into(),
            name(own.selected_region.as_ref()).into(),
            name(own.waiting.region_id.as_ref()).into(),
            match own.ruled_out {
                true => "ruled_out".into(),
                false => own.waiting.code.as_str().into(),
            },
            own.summary.as_str().into(),
        ]);
    }
    out.list(&told, &told.hesitations, "", &table)?;
    if told.hesitations.is_empty() {
        out.talk("no move was refused or put off");
    }
    Ok(Exit::Done)
}

fn row(decision: &Decision) -> Vec<Cell> {
    let region =
        |region: Option<&RegionId>| region.map_or("none", |region| region.as_str()).to_owned();
    vec![
        decision.decision_id.to_string().into(),
        words::date_time(decision.decided_at).into(),
        decision.primary_region.as_str().into(),
        region(decision.from.as_ref()).into(),
        region(decision.to.as_ref()).into(),
        decision.reason.code.as_str().into(),
        decision
            .margin
            .map_or_else(|| "-".to_owned(), |margin| format!("×{margin:.2}"))
            .into(),
        decision.summary.as_str().into(),
    ]
}
