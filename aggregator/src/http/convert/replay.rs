//! What came of replays, and two policies beside each other.

use std::time::Duration;

use leeward_common::api::v1::{
    Divergence, PolicyComparison, PolicyMove, Replay, ReplayBegin, ReplayDifference, Scoreboard,
    ScoreboardSide, SelectedFor, ShiftedMove,
};
use leeward_engine::{decision::Decision, scoreboard};

use super::{milliseconds, percent, plural};
use crate::replay::{Answer, Comparison, Question, Shifted};

/// What came of a replay.
#[must_use]
pub fn replay(question: &Question, answer: &Answer) -> Replay {
    Replay {
        summary: summary(answer),
        from: question.from.into(),
        to: question.to.into(),
        begun: ReplayBegin {
            at: answer.begun.into(),
            exact: answer.build.is_some(),
            compared_from: answer.compared_from.into(),
            build: answer.build.clone(),
        },
        records: answer.records,
        skipped: answer.skipped,
        decisions: answer.decisions,
        identical: answer.identical,
        first_difference: answer
            .first_difference
            .as_ref()
            .map(|(at, detail)| ReplayDifference {
                at: (*at).into(),
                detail: detail.clone(),
            }),
        other: answer.other.as_ref().map(comparison),
    }
}

fn summary(answer: &Answer) -> String {
    let mut text = match &answer.first_difference {
        _ if answer.decisions == 0 => "nothing was decided, then and now".to_owned(),
        None => format!("identical: {} of {}", answer.identical, answer.decisions),
        Some((at, words)) => format!(
            "identical: {} of {}; the first difference is at {at}: {words}",
            answer.identical, answer.decisions
        ),
    };
    if answer.build.is_none() {
        text.push_str(&format!(
            "; the state of then cannot be read, so the engine began anew and only decisions from {} on are compared",
            answer.compared_from
        ));
    }
    if answer.skipped > 0 {
        let records = plural(
            usize::try_from(answer.skipped).unwrap_or(usize::MAX),
            "record",
        );
        text.push_str(&format!(
            "; {records} of the journal cannot be read any more"
        ));
    }
    if let Some(Comparison {
        moves, scoreboard, ..
    }) = &answer.other
    {
        let agreement = scoreboard
            .agreement()
            .map_or_else(|| "?".to_owned(), percent);
        text.push_str(&format!(
            ". The other policy agrees for {agreement} of the time; {} the same, {} at another time, {} not made, {} more",
            plural(usize::try_from(moves.same).unwrap_or(usize::MAX), "move"),
            moves.shifted.len(),
            moves.only_current.len(),
            moves.only_other.len(),
        ));
    }
    text
}

fn comparison(comparison: &Comparison) -> PolicyComparison {
    let moves = &comparison.moves;
    PolicyComparison {
        policy_version: comparison.version.clone(),
        same: moves.same,
        shifted: moves.shifted.iter().map(shifted).collect(),
        only_current: moves.only_current.iter().map(policy_move).collect(),
        only_other: moves.only_other.iter().map(policy_move).collect(),
        scoreboard: scoreboard(&comparison.scoreboard),
    }
}

fn shifted(shifted: &Shifted) -> ShiftedMove {
    let (own, other) = (shifted.current.at, shifted.other.at);
    let ms = |span: Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
    ShiftedMove {
        current: policy_move(&shifted.current),
        other_later_ms: ms(other.since(own)) - ms(own.since(other)),
    }
}

/// A move.
#[must_use]
pub fn policy_move(decision: &Decision) -> PolicyMove {
    PolicyMove {
        at: decision.at.into(),
        owner: decision.owner().to_string(),
        from: decision.from.clone(),
        to: decision.to.clone(),
        reason: decision.reason.code().to_owned(),
        summary: decision.summary.clone(),
    }
}

/// Two policies beside each other.
#[must_use]
pub fn scoreboard(board: &scoreboard::Scoreboard) -> Scoreboard {
    Scoreboard {
        since: board.since.map(Into::into),
        until: board.until.into(),
        agreement: board.agreement(),
        watched_ms: milliseconds(board.watched),
        agreed_ms: milliseconds(board.agreed),
        differed: board.differed,
        current: side(&board.current),
        other: side(&board.other),
        divergences: board.divergences.iter().rev().map(divergence).collect(),
    }
}

fn side(side: &scoreboard::Side) -> ScoreboardSide {
    let selected = side
        .selected
        .iter()
        .map(|((owner, region), span)| SelectedFor {
            owner: owner.to_string(),
            region: region.clone(),
            for_ms: milliseconds(*span),
        });
    ScoreboardSide {
        moves: side.moves,
        flaps: side.flaps,
        judged_moves: side.judged_moves,
        false_moves: side.false_moves,
        worse_ms: milliseconds(side.worse),
        down_ms: milliseconds(side.down),
        lossy_ms: milliseconds(side.lossy),
        regret: side.regret(),
        selected: selected.collect(),
    }
}

fn divergence(own: &scoreboard::Divergence) -> Divergence {
    Divergence {
        owner: own.owner.to_string(),
        since: own.since.into(),
        until: own.until.map(Into::into),
        current: own.current.0.clone(),
        current_why: own.current.1.clone(),
        other: own.other.0.clone(),
        other_why: own.other.1.clone(),
    }
}
