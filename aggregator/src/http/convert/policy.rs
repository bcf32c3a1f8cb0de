//! Policies: what they say, where they differ, and what each was worth.

use leeward_common::api::v1;
use leeward_engine::{
    policy::{Difference, Policy},
    scoreboard::Scoreboard,
};

use super::{Moment, percent, plural, replay};
use crate::shadow::{Setting, Standing, State};

/// A policy, written out.
#[must_use]
pub fn written_policy(policy: &Policy) -> v1::WrittenPolicy {
    v1::WrittenPolicy {
        policy_version: policy.version(),
        toml: policy.to_toml(),
        parameters: policy.parameters(),
    }
}

/// The shadow policy; `None` if none is set.
#[must_use]
pub fn shadow_policy(setting: &Setting) -> Option<v1::ShadowPolicy> {
    let policy = setting.policy.as_ref()?;
    Some(v1::ShadowPolicy {
        version: setting.version,
        who: setting.who.clone(),
        at: setting.at.into(),
        written: written_policy(&policy.policy),
        spec: v1::ShadowSpec {
            policy: policy.toml.clone(),
            why: setting.why.clone(),
        },
    })
}

/// Both policies.
#[must_use]
pub fn policies(moment: &Moment<'_>, setting: &Setting, standing: &Standing) -> v1::Policies {
    let view = moment.view;
    let shadow = setting.policy.as_ref();
    let differences = shadow.map(|own| view.policy.differences(&own.policy));
    let board = &standing.scoreboard;
    let has_board = shadow.is_some() && board.since.is_some();
    v1::Policies {
        summary: match shadow {
            None => "no shadow policy is set".to_owned(),
            Some(_) => summary(standing),
        },
        current: v1::CurrentPolicy {
            policy_version: view.policy_version.to_string(),
            regions: view.policy.regions.len() as u64,
        },
        shadow: shadow.map(|own| v1::ShadowStanding {
            version: setting.version,
            policy_version: own.policy.version(),
            who: setting.who.clone(),
            why: setting.why.clone(),
            at: setting.at.into(),
            state: state(standing.state),
            detail: standing.detail.clone(),
            since: standing.since.map(Into::into),
            until: standing.until.map(Into::into),
            restarts: standing.restarts,
        }),
        differences: differences
            .unwrap_or_default()
            .into_iter()
            .map(difference)
            .collect(),
        scoreboard: has_board.then(|| replay::scoreboard(board)),
        evaluated_at: view.now.into(),
    }
}

const fn state(state: State) -> v1::ShadowState {
    match state {
        State::Off | State::Starting => v1::ShadowState::Starting,
        State::Following => v1::ShadowState::Following,
        State::Behind => v1::ShadowState::Behind,
        State::Failed => v1::ShadowState::Failed,
    }
}

fn difference(difference: Difference) -> v1::ParameterDifference {
    v1::ParameterDifference {
        parameter: difference.parameter,
        current: difference.one,
        shadow: difference.other,
    }
}

fn summary(standing: &Standing) -> String {
    let board: &Scoreboard = &standing.scoreboard;
    let told = match (standing.since, board.agreement()) {
        (Some(since), Some(agreement)) => {
            let moves = |moves: u64| plural(usize::try_from(moves).unwrap_or(usize::MAX), "move");
            format!(
                "since {since} the shadow policy would have agreed for {} of the time: {} in force, {} in the shadow",
                percent(agreement),
                moves(board.current.moves),
                moves(board.other.moves)
            )
        }
        _ => "the shadow policy was not followed for long enough to tell".to_owned(),
    };
    match standing.state {
        State::Behind => format!("{told}; it is behind"),
        State::Failed => format!("{told}; it cannot go on: {}", standing.detail),
        State::Off | State::Starting | State::Following => told,
    }
}
