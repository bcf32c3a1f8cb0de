//! What would happen, as the API says it.

use leeward_common::api::v1::{SimulatedSelection, Simulation, SimulationLine};
use leeward_engine::{
    intent::Owner,
    simulate::{
        LineKind,
        live::{Outcome, WhatIf},
    },
    verdict::verdict,
    view::View,
};

use super::{milliseconds, overview, plural, replay::policy_move};

/// What would happen.
#[must_use]
pub fn simulation(what_if: &WhatIf, outcome: &Outcome) -> Simulation {
    let after = verdict(&outcome.after, outcome.after.now);
    let selections = selections(&outcome.before, &outcome.after);
    let changed = selections
        .iter()
        .filter(|own| own.before != own.after)
        .count();
    let complete = outcome.simulated >= what_if.duration;
    let mut summary = match outcome.decisions.len() {
        0 => "nothing would move".to_owned(),
        moves => format!(
            "{} would be made, and {} be another at the end",
            plural(moves, "move"),
            plural(changed, "selection")
        ),
    };
    if !complete {
        let seconds = outcome.simulated.as_secs();
        summary.push_str(&format!(
            "; given up after {seconds} s of virtual time, because it took too long"
        ));
    }
    let line = |line: &leeward_engine::simulate::Line| SimulationLine {
        at_ms: milliseconds(line.at),
        kind: match line.kind {
            LineKind::Event => "event",
            LineKind::Region => "region",
            LineKind::Decision => "decision",
        }
        .to_owned(),
        text: line.text.clone(),
    };
    Simulation {
        summary,
        from: outcome.before.now.into(),
        simulated_ms: milliseconds(outcome.simulated),
        complete,
        verdict: after.sentence,
        state: overview::state(after.severity),
        lines: outcome.lines.iter().map(line).collect(),
        moves: outcome.decisions.iter().map(policy_move).collect(),
        selections,
    }
}

fn selections(before: &View, after: &View) -> Vec<SimulatedSelection> {
    let regions = after.selections.iter().map(|(id, own)| {
        let then = before
            .selections
            .get(id)
            .and_then(|own| own.selected.clone());
        (Owner::Region(id.clone()), then, own.selected.clone())
    });
    let services = after.services.iter().map(|(id, own)| {
        let then = before.services.get(id).and_then(|own| own.selected.clone());
        (Owner::Service(id.clone()), then, own.selected.clone())
    });
    let all = regions.chain(services);
    all.map(|(owner, before, after)| SimulatedSelection {
        owner: owner.to_string(),
        before,
        after,
    })
    .collect()
}
