//! What makes an answer another one, for those who only want to know when it changes.
//!
//! Figures move with every window, and whoever is woken for each of them soon stops listening. So the content of an
//! answer is what one may want to act upon, and its ETag is the hash of that.

use leeward_common::{
    api::v1::{Failover, FailoverState, Overview, Perspective, State, Tally, Time},
    id::RegionId,
};
use serde::Serialize;

/// The content of an answer about one primary. The order of candidates that are not selected is not part of it: two
/// that are nearly equal change places with every window.
#[derive(Debug, Serialize)]
pub struct Content<'a> {
    selected: Option<&'a RegionId>,
    state: State,
    decision_id: Option<u64>,
    held_until: Option<Time>,
    perspective: Perspective,
    stale: bool,
    candidates: Vec<(&'a RegionId, bool, Vec<&'a str>)>,
}

/// The content of an answer about one primary.
#[must_use]
pub fn content(answer: &Failover) -> Content<'_> {
    let candidates = answer.candidates.iter().map(|candidate| {
        let codes = candidate.reasons.iter().map(|reason| reason.code.as_str());
        (&candidate.region_id, candidate.eligible, codes.collect())
    });
    let mut candidates: Vec<_> = candidates.collect();
    candidates.sort();
    Content {
        selected: answer.selected_region.as_ref(),
        state: answer.state,
        decision_id: answer.decision_id,
        held_until: answer.held_until,
        perspective: answer.perspective,
        stale: answer.stale,
        candidates,
    }
}

/// The content of the answers about all primaries.
#[derive(Debug, Serialize)]
pub struct LinesContent<'a>(Vec<LineContent<'a>>);

#[derive(Debug, Serialize)]
struct LineContent<'a> {
    primary: &'a RegionId,
    selected: Option<&'a RegionId>,
    state: State,
    decision_id: Option<u64>,
    held_until: Option<Time>,
    refused: Vec<(&'a RegionId, Vec<&'a str>)>,
    stale: bool,
}

/// The content of the answers about all primaries.
#[must_use]
pub fn lines_content(lines: &[FailoverState]) -> LinesContent<'_> {
    fn content(line: &FailoverState) -> LineContent<'_> {
        let mut refused: Vec<(&RegionId, Vec<&str>)> = Vec::new();
        for candidate in &line.refused {
            let codes = candidate.reasons.iter().map(|reason| reason.code.as_str());
            refused.push((&candidate.region_id, codes.collect()));
        }
        refused.sort();
        LineContent {
            primary: &line.line.primary_region,
            selected: line.line.selected_region.as_ref(),
            state: line.line.state,
            decision_id: line.decision_id,
            held_until: line.held_until,
            refused,
            stale: line.stale,
        }
    }
    LinesContent(lines.iter().map(content).collect())
}

/// The content of the overview.
#[derive(Debug, Serialize)]
pub struct OverviewContent<'a> {
    sentence: Vec<&'a str>,
    state: State,
    stale: bool,
    counts: &'a Tally,
    failovers: Vec<(&'a RegionId, Option<&'a RegionId>, State, Option<Time>)>,
}

/// The content of the overview.
#[must_use]
pub fn overview_content(overview: &Overview) -> OverviewContent<'_> {
    let failovers = overview.failovers.iter().map(|line| {
        (
            &line.primary_region,
            line.selected_region.as_ref(),
            line.state,
            line.decided_at,
        )
    });
    OverviewContent {
        sentence: without_figures(&overview.summary),
        state: overview.state,
        stale: overview.stale,
        counts: &overview.counts,
        failovers: failovers.collect(),
    }
}

/// The words of a sentence without its measures: numbers with a decimal point, and those before a unit. How many links
/// are in trouble is a fact; that one of them loses 8.2 % and not 8.1 % is a figure.
#[must_use]
pub fn without_figures(sentence: &str) -> Vec<&str> {
    let words: Vec<&str> = sentence.split_whitespace().collect();
    let unit = |word: &str| {
        let word = word.trim_end_matches(|c: char| c.is_ascii_punctuation() && c != '%');
        [
            "%", "s", "ms", "µs", "min", "h", "bps", "kbps", "Mbps", "Gbps", "Mbit/s", "Gbit/s",
        ]
        .contains(&word)
    };
    let figure = |at: usize| {
        let word = words[at].trim_matches(|c: char| !c.is_ascii_digit());
        let is_number = word.parse::<f64>().is_ok();
        is_number && (word.contains('.') || words.get(at + 1).is_some_and(|next| unit(next)))
    };
    (0..words.len())
        .filter(|&at| !figure(at))
        .map(|at| words[at])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_is_another_one_when_more_than_its_figures_changed() {
        let same = |a: &str, b: &str| without_figures(a) == without_figures(b);
        assert!(same(
            "The link a to b is in trouble: 8.2 % loss.",
            "The link a to b is in trouble: 12 % loss."
        ));
        assert!(same(
            "This picture is 6 s old; the answers are the last good ones.",
            "This picture is 70 s old; the answers are the last good ones."
        ));
        assert!(same("a leads b (×1.31)", "a leads b (×2.0)"));
        assert!(!same("3 links are in trouble", "4 links are in trouble"));
        assert!(!same("us-east-1 is down.", "us-east-2 is down."));
        assert!(!same("a loses 8 % of b", "a loses 8 % of c"));
    }
}
