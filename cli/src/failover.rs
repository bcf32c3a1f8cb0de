//! `leeward failover …`: where a region goes, why, and what was decided before.

use std::fmt::Write;

use leeward_common::{
    api::v1::{
        Candidate, Contribution, Decision, Decisions, Explanation, Failover, FailoverConfiguration,
        Overview, Perspective, State,
    },
    id::RegionId,
};

use crate::{
    args::{Cli, FailoverCommand},
    client::Client,
    exit::{Exit, Failure},
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
            Ok(verdict(out, &failover))
        }
        FailoverCommand::Explain { primary } => {
            let asked: Explanation = client.ask(&format!("/v1/failover/{primary}/explanation"))?;
            out.one(&asked, |out| explanation(out, &asked))?;
            Ok(verdict(out, &asked.failover))
        }
        FailoverCommand::History { primary, limit } => {
            history(&client, out, primary.as_ref(), *limit)
        }
    }
}

/// Runs `leeward explain DECISION`.
///
/// # Errors
///
/// Returns why there is no answer.
pub fn explain(cli: &Cli, out: &Output, decision: u64) -> Result<Exit, Failure> {
    let client = Client::new(&cli.global)?;
    let decision: Decision = client.ask(&format!("/v1/decisions/{decision}"))?;
    out.one(&decision, |out| told(out, &decision))?;
    Ok(Exit::Done)
}

/// A decision with its evidence.
fn told(out: &Output, decision: &Decision) -> String {
    let mut text = out.paint(Tone::Strong, &decision.summary);
    text.push_str("\n\n");
    text.push_str(&evidence(out, &decision.evidence));
    if decision.evidence.is_empty() {
        line(
            &mut text,
            "evidence",
            "not readable by this build of the aggregator",
        );
    }
    let region = |region: Option<&RegionId>| {
        region
            .map_or("nowhere", |region| region.as_str())
            .to_owned()
    };
    line(
        &mut text,
        "moved",
        &format!(
            "{} to {}",
            region(decision.from.as_ref()),
            region(decision.to.as_ref())
        ),
    );
    let reason = &decision.reason;
    line(
        &mut text,
        "because",
        &format!("{}: {}", reason.code, reason.detail),
    );
    if decision.perspective == Perspective::Survivors {
        line(
            &mut text,
            "judged",
            "by the other regions: the primary itself was not heard",
        );
    }
    let policy = match decision.policy_version.as_str() {
        "" => String::new(),
        version => format!(", policy {version}"),
    };
    line(
        &mut text,
        "decided",
        &format!(
            "decision {} at {} UTC, graph version {}{policy}",
            decision.decision_id,
            words::date_time(decision.decided_at),
            decision.graph_version
        ),
    );
    let _ = writeln!(
        text,
        "\n  next: leeward failover explain {}",
        decision.primary_region
    );
    text
}

/// Not enough known is an answer of its own; bad news are one only with `--check`.
fn verdict(out: &Output, failover: &Failover) -> Exit {
    match failover.state {
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

fn head(out: &Output, failover: &Failover) -> String {
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

fn term(term: &str, source: Option<&leeward_common::id::SourceId>) -> String {
    match source {
        Some(source) => format!("signal {source}"),
        None => term.replace('_', " "),
    }
}

/// Terms as rows, candidates as columns: factors that multiply to the score.
fn explanation(out: &Output, asked: &Explanation) -> String {
    let failover = &asked.failover;
    let mut text = head(out, failover);
    text.push_str(&evidence(out, &failover.candidates));
    let mut line = |label: &str, value: &str| line(&mut text, label, value);
    line(
        "held",
        &match failover.held_until {
            Some(until) => format!(
                "until {} UTC, unless it goes down",
                words::time_of_day(until)
            ),
            None => "no".to_owned(),
        },
    );
    if let Some(previous) = &failover.previous {
        let until = previous.until.map_or_else(String::new, |until| {
            format!(" until {} UTC", words::date_time(until))
        });
        line("before", &format!("{}{until}", previous.region_id));
    }
    let now = failover.evaluated_at;
    if let Some(at) = failover.decided_at {
        let id = failover
            .decision_id
            .map_or_else(String::new, |id| format!("decision {id} at "));
        line(
            "decided",
            &format!(
                "{id}{} UTC, {}",
                words::date_time(at),
                words::since(Some(at), now.0)
            ),
        );
    }
    let views: u32 = failover
        .candidates
        .iter()
        .map(|candidate| candidate.vantage_points)
        .max()
        .unwrap_or(0);
    line(
        "seen",
        &format!(
            "at {} UTC, graph version {}, policy {}, up to {}",
            words::time_of_day(now),
            failover.graph_version,
            failover.policy_version,
            words::plural(views.into(), "vantage point")
        ),
    );
    if !asked.would_change_if.is_empty() {
        text.push_str("\n  would change the answer, all else being as it is\n");
        for change in &asked.would_change_if {
            let _ = writeln!(text, "    {}", change.detail);
        }
    }
    let _ = writeln!(
        text,
        "\n  next: leeward failover history {}",
        failover.primary_region
    );
    text
}

fn line(text: &mut String, label: &str, value: &str) {
    let _ = writeln!(text, "  {label:<9}  {value}");
}

/// What speaks for and against each candidate: factors that multiply to the score, the facts behind them, and who is
/// refused.
fn evidence(out: &Output, candidates: &[Candidate]) -> String {
    let mut text = String::new();
    let eligible: Vec<&Candidate> = candidates
        .iter()
        .filter(|candidate| candidate.score.is_some())
        .collect();
    if !eligible.is_empty() {
        text.push_str(&factors(out, &eligible));
        text.push('\n');
    }
    for candidate in &eligible {
        let facts: Vec<String> = candidate.contributions.iter().filter_map(fact).collect();
        line(&mut text, candidate.region_id.as_str(), &facts.join("; "));
    }
    for candidate in candidates.iter().filter(|candidate| !candidate.eligible) {
        let reasons: Vec<&str> = candidate
            .reasons
            .iter()
            .map(|reason| reason.detail.as_str())
            .collect();
        line(
            &mut text,
            "refused",
            &format!("{}: {}", candidate.region_id, reasons.join("; ")),
        );
    }
    text
}

/// What a term was made from, unless it changes nothing.
fn fact(contribution: &Contribution) -> Option<String> {
    let words = term(&contribution.term, contribution.source.as_ref());
    (contribution.log_value.abs() > 0.01).then(|| format!("{words} {}", contribution.detail))
}

fn factors(out: &Output, candidates: &[&Candidate]) -> String {
    let mut rows: Vec<(String, Vec<Cell>)> = Vec::new();
    for candidate in candidates {
        for contribution in &candidate.contributions {
            let name = term(&contribution.term, contribution.source.as_ref());
            if !rows.iter().any(|(other, _)| *other == name) {
                rows.push((name, Vec::new()));
            }
        }
    }
    for (name, cells) in &mut rows {
        for candidate in candidates {
            let found = candidate.contributions.iter().find(|contribution| {
                term(&contribution.term, contribution.source.as_ref()) == *name
            });
            cells.push(found.map_or_else(
                || Cell::new(Tone::Quiet, "-"),
                |found| {
                    let factor = found.log_value.exp();
                    Cell::new(
                        if factor < 0.5 {
                            Tone::Warn
                        } else {
                            Tone::Plain
                        },
                        format!("{factor:.3}"),
                    )
                },
            ));
        }
    }
    let total = |name: &str, pick: fn(&Candidate) -> Option<f64>| {
        let cells = candidates
            .iter()
            .map(|candidate| Cell::new(Tone::Strong, words::weight(pick(candidate))));
        (name.to_owned(), cells.collect::<Vec<Cell>>())
    };
    rows.push(total("= baseline", |candidate| {
        Some(candidate.baseline_weight)
    }));
    rows.push(total("= network", |candidate| candidate.network_weight));
    rows.push(total("= score", |candidate| candidate.score));
    rows.push(total("normalised", |candidate| candidate.normalised_score));
    let names: Vec<&str> = candidates
        .iter()
        .map(|candidate| candidate.region_id.as_str())
        .collect();
    crate::table::grid(out, "factor", &names, &rows)
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
