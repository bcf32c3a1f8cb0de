//! The verdict: what matters most now, in one sentence, and the findings behind it.
//!
//! The overview, `leeward status`, the dashboard and whoever is paged read the same sentence, so it is made here and
//! nowhere else, by a pure function of the view. It speaks of the worst thing and counts the rest; when all is well it
//! says so and keeps quiet. Refusals and doubts that were ruled out are findings like faults.
//!
//! Each finding says what is wrong, where, why it is thought so, what was done about it or will be, how sure that is,
//! and since when. In their order:
//!
//! 1. The observers are cut off: then nothing else is known, and nothing moves.
//! 2. What does not work: regions that are down; services that run nowhere, or not wholly; selections with nowhere to go
//!    and those that stay in a region that is down.
//! 3. What works worse than it should: grey loss, dead hosts, selections that something keeps where they should not be,
//!    observers whose view does not count, regions from where nobody observes.
//! 4. What nobody can tell.
//! 5. Notes: what is waited for, and overrides, those first that end soon.

use std::{collections::BTreeSet, time::Duration};

use leeward_common::{id::RegionId, time::Timestamp};

use crate::view::{View, Vote};

mod selections;
mod troubles;
pub(crate) mod words;

use words::{capital, plural, time_of_day};

/// A picture older than this is not spoken of as if it were now.
pub const OLD: Duration = Duration::from_secs(5);

/// A move is news for so long.
const NEWS: Duration = Duration::from_secs(600);

/// How bad something is; the order is that in which findings are told.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Severity {
    /// All is well.
    Well,
    /// As it should be, and worth knowing.
    Note,
    /// Not known yet.
    Pending,
    /// Nobody can tell.
    Unknown,
    /// Works, worse than it should.
    Degraded,
    /// Does not work.
    Bad,
}

/// What matters now.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Verdict {
    /// That of the worst finding.
    pub severity: Severity,
    /// The one sentence, or two.
    pub sentence: String,
    /// What it rests on, worst first; empty when all is well.
    pub findings: Vec<Finding>,
}

/// One thing that is not as always.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, as a clause with a small letter and no full stop.
    pub what: String,
    /// Where; empty if `what` says it.
    pub place: String,
    /// Why it is thought so; empty if there is no more to say.
    pub why: String,
    /// What was done about it, or would be; empty if nothing.
    pub action: String,
    /// How sure that is: who sees it, and the bounds.
    pub sure: String,
    /// Since when, if that is known.
    pub since: Option<Timestamp>,
}

/// What matters in a view that is read at `now`.
#[must_use]
pub fn verdict(view: &View, now: Timestamp) -> Verdict {
    let late = now.since(view.now);
    if late > OLD {
        let what = format!(
            "this picture is {} s old; the answers are the last good ones",
            late.as_secs()
        );
        return Verdict::of(Finding::of(Severity::Unknown, what));
    }
    let mut agents = view.agents.values();
    if !agents.any(|agent| agent.last_report_at.is_some()) {
        let what = "no agent has reported yet, so nothing is known".to_owned();
        return Verdict::of(Finding::of(Severity::Pending, what));
    }
    let blind = troubles::blind(view);
    let is_blind = blind.is_some();
    let mut findings = Vec::from_iter(blind);
    if !is_blind {
        findings.extend(troubles::regions(view));
    }
    findings.extend(selections::selections(view, is_blind));
    if !is_blind {
        findings.extend(troubles::withdrawn(view));
        findings.extend(troubles::faults(view));
        findings.extend(troubles::silent(view));
    }
    findings.extend(selections::overrides(view));
    // Stable: what comes first of equally bad things is what was looked at first.
    let first = usize::from(is_blind);
    findings[first..].sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    Verdict {
        severity: findings
            .first()
            .map_or(Severity::Well, |worst| worst.severity),
        sentence: sentence(view, &findings),
        findings,
    }
}

/// What is worst; beside it what else does not work at all, how much more there is, and what is done or was lately.
fn sentence(view: &View, findings: &[Finding]) -> String {
    let news = news(view);
    let worst = findings.first().filter(|own| own.severity > Severity::Note);
    let Some(worst) = worst else {
        let regions = plural(view.policy.regions.len(), "region");
        let note = match findings.first() {
            Some(note) => format!(" {}.", capital(&note.what)),
            None => news,
        };
        return format!("All {regions} are reached and no link is in trouble.{note}");
    };
    let mut sentence = capital(&worst.what);
    let mut others = findings[1..]
        .iter()
        .filter(|own| own.severity > Severity::Note)
        .peekable();
    if let Some(other) = others.next_if(|own| own.severity == Severity::Bad) {
        sentence.push_str(&format!("; {}", other.what));
    }
    match others.count() {
        0 => {}
        n => sentence.push_str(&format!(", and {}", plural(n, "more finding"))),
    }
    match worst.action.as_str() {
        "" => format!("{sentence}.{news}"),
        action => format!("{sentence}. {}.", capital(action)),
    }
}

/// Where the selections are that moved last, if they did lately.
fn news(view: &View) -> String {
    let mut told = BTreeSet::new();
    let newest = view.decisions.iter().rev();
    let recent = newest
        .filter(|own| told.insert(own.owner()))
        .filter(|own| own.from.is_some() && own.from != own.to)
        .filter(|own| view.now.since(own.at) < NEWS);
    let moved: Vec<String> = recent
        .map(|own| {
            let at = time_of_day(own.at);
            let now = words::is_at(&own.owner(), "", own.to.as_ref());
            format!("{now} since {at}")
        })
        .collect();
    let all: Vec<String> = match moved.as_slice() {
        [] => return String::new(),
        [_] | [_, _] => moved.iter().map(|own| capital(own)).collect(),
        [one, two, rest @ ..] => vec![
            capital(one),
            capital(two),
            format!("{} more moved lately", rest.len()),
        ],
    };
    format!(" {}.", all.join(". "))
}

/// Who is counted, in words.
fn trust(view: &View) -> String {
    let counted = view.agents.values();
    let counted = counted.filter(|agent| agent.vote == Vote::Counts).count();
    format!(
        "{counted} of {} counted",
        plural(view.agents.len(), "agent")
    )
}

impl Verdict {
    /// There is nothing else to say.
    fn of(finding: Finding) -> Self {
        Self {
            severity: finding.severity,
            sentence: format!("{}.", capital(&finding.what)),
            findings: vec![finding],
        }
    }
}

impl Finding {
    fn of(severity: Severity, what: String) -> Self {
        Self {
            severity,
            what,
            place: String::new(),
            why: String::new(),
            action: String::new(),
            sure: String::new(),
            since: None,
        }
    }
}

/// A region as an operand of a sentence.
fn name(region: Option<&RegionId>) -> &str {
    region.map_or("nowhere", RegionId::as_str)
}
