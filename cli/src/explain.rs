//! Why an answer is what it is: the evidence of a decision, and what makes up each candidate's score.

use std::fmt::Write;

use leeward_common::{
    api::v1::{
        Action, Candidate, Contribution, Decision, Explanation, FailStatic, Perspective, Reason,
        ServiceExplanation, State, Waiting, WouldChange,
    },
    id::RegionId,
};

use crate::{
    args::Cli,
    client::Client,
    exit::{Exit, Failure},
    failover::{head, term},
    output::{Output, Tone},
    table::Cell,
    words,
};

/// Runs `leeward explain DECISION`.
///
/// # Errors
///
/// Returns why there is no answer.
pub fn run(cli: &Cli, out: &Output, decision: u64) -> Result<Exit, Failure> {
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

/// Terms as rows, candidates as columns: factors that multiply to the score.
pub(crate) fn explanation(out: &Output, asked: &Explanation) -> String {
    let failover = &asked.failover;
    let mut text = head(out, failover);
    text.push_str(&evidence(out, &failover.candidates));
    let waits = waits(failover.action, failover.waiting.as_ref());
    text.push_str(&standing(
        &waits,
        failover.fail_static.as_ref(),
        &failover.notices,
    ));
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
    text.push_str(&would_change(&asked.would_change_if));
    let _ = writeln!(
        text,
        "\n  next: leeward failover history {}",
        failover.primary_region
    );
    text
}

/// The same about a service.
pub(crate) fn of_service(out: &Output, asked: &ServiceExplanation) -> String {
    let failover = &asked.failover;
    let tone = match failover.state {
        State::Ok => Tone::Strong,
        state => words::tone(state),
    };
    let mut text = format!("{}\n\n", out.paint(tone, &failover.summary));
    text.push_str(&evidence(out, &failover.candidates));
    let waits = waits(failover.action, failover.waiting.as_ref());
    text.push_str(&standing(
        &waits,
        failover.fail_static.as_ref(),
        &failover.notices,
    ));
    let age = words::age(failover.data_age_ms);
    let seen = words::plural(failover.vantage_points.into(), "vantage point");
    line(
        &mut text,
        "seen",
        &format!(
            "at {} UTC, data {age} old, {seen}, graph version {}, policy {}",
            words::time_of_day(failover.evaluated_at),
            failover.graph_version,
            failover.policy_version
        ),
    );
    text.push_str(&would_change(&asked.would_change_if));
    let _ = writeln!(
        text,
        "\n  next: leeward service failover {}",
        failover.service_id
    );
    text
}

/// What is being done about a better region.
fn waits(action: Action, waiting: Option<&Waiting>) -> String {
    match (action, waiting) {
        (Action::None, None) => "nothing waits: it is where it is best, or near enough".to_owned(),
        (_, Some(waiting)) => format!("{}: {}", action.as_str(), waiting.detail),
        (action, None) => action.as_str().to_owned(),
    }
}

/// What keeps a selection, and what somebody should know about it.
fn standing(waits: &str, fail_static: Option<&FailStatic>, notices: &[Reason]) -> String {
    let mut text = String::new();
    line(&mut text, "action", waits);
    if let Some(cut_off) = fail_static {
        let since = words::time_of_day(cut_off.since);
        line(
            &mut text,
            "static",
            &format!("since {since} UTC: {}", cut_off.detail),
        );
    }
    for notice in notices {
        line(&mut text, "notice", &notice.detail);
    }
    text
}

fn would_change(changes: &[WouldChange]) -> String {
    let mut text = String::new();
    if !changes.is_empty() {
        text.push_str("\n  would change the answer, all else being as it is\n");
    }
    for change in changes {
        let _ = writeln!(text, "    {}", change.detail);
    }
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
    type Bounds = fn(&Candidate) -> (Option<f64>, Option<f64>);
    let range = |name: &str, pick: Bounds| {
        let cells = candidates.iter().map(|candidate| {
            let (low, high) = pick(candidate);
            Cell::new(Tone::Quiet, words::range(low, high))
        });
        (name.to_owned(), cells.collect::<Vec<Cell>>())
    };
    rows.push(total("= baseline", |candidate| {
        Some(candidate.baseline_weight)
    }));
    rows.push(total("= network", |candidate| candidate.network_weight));
    rows.push(total("= score", |candidate| candidate.score));
    rows.push(range("  likely", |own| (own.score_low, own.score_high)));
    rows.push(total("normalised", |candidate| candidate.normalised_score));
    let names: Vec<&str> = candidates
        .iter()
        .map(|candidate| candidate.region_id.as_str())
        .collect();
    crate::table::grid(out, "factor", &names, &rows)
}
