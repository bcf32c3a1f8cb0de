//! From the engine's view to the API's types: the only place where the two meet.
//!
//! A view is a picture taken at [`View::now`]. Who reads it later reads it at a later time, so every age grows by what
//! has passed since, and a picture that is too old says so ([`Moment::is_stale`]).

use std::time::Duration;

use leeward_common::{
    api::v1::{Measured, State},
    id::RegionId,
    time::Timestamp,
};
use leeward_engine::view::{Estimate, Estimates, Knowledge, RegionState, View};

mod agents;
mod bandwidth;
mod bgp;
mod content;
mod defined;
mod failover;
mod faults;
mod history;
mod network;
mod overview;
mod placement;
mod policy;
mod readiness;
mod replay;
mod routes;
mod services;
mod signals;
mod simulation;
mod stored;
mod traces;
mod watch;

pub use agents::{agent, agents};
pub use bandwidth::bandwidth_order;
pub use bgp::{bgp_events, bgp_peers, bgp_prefixes};
pub use content::{content, lines_content, overview_content, without_figures};
pub use defined::{capacity, offer, override_, overrides, reach, reaches, reservation, service};
pub use failover::{decision, evaluated, explanation, failover, moved};
pub use faults::{faults, hesitation, hesitations};
pub use history::{edges, history, history_point};
pub use network::{graph, link, link_states, region, regions};
pub use overview::overview;
pub use placement::placement;
pub use policy::{policies, shadow_policy, written_policy};
pub use readiness::{Wanted, readiness};
pub use replay::{policy_move, replay, scoreboard};
pub use routes::routes;
pub use services::{service_explanation, service_failover, services};
pub use signals::{signal, signals};
pub use simulation::simulation;
pub use stored::{stored, stored_moved};
pub use traces::{trace_outcome, traces};
pub use watch::{doubts, failover_state, failovers, regions_status, sentence, service_states};

/// A picture older than this is not acted upon: an aggregator that is well publishes several each second.
pub const STALE_AFTER: Duration = Duration::from_secs(5);

/// A link has trouble when this much loss is certain: the lower bound of its loss is above it.
pub const TROUBLE_LOSS: f64 = 0.01;

/// A view, read at a time.
#[derive(Clone, Copy, Debug)]
pub struct Moment<'a> {
    /// The view.
    pub view: &'a View,
    /// How much later than the view it is.
    late: Duration,
}

impl<'a> Moment<'a> {
    /// The view, read at `now`.
    #[must_use]
    pub fn new(view: &'a View, now: Timestamp) -> Self {
        Self {
            view,
            late: now.since(view.now),
        }
    }

    /// Whether the picture is too old to act on.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.late > STALE_AFTER
    }

    /// When the view is read.
    fn now(&self) -> Timestamp {
        self.view.now + self.late
    }

    /// The age now of what was this old when the picture was taken.
    fn age(&self, then: Duration) -> Duration {
        then + self.late
    }

    /// How long ago `at` was.
    fn since(&self, at: Timestamp) -> Duration {
        self.age(self.view.now.since(at))
    }

    fn knowledge(&self, estimates: &Estimates) -> Knowledge {
        if self.is_stale() {
            Knowledge::Stale
        } else {
            estimates.knowledge(self.view.now, &self.view.policy)
        }
    }

    fn measured(
        &self,
        estimates: &Estimates,
        pick: fn(&Estimates) -> Option<Estimate>,
    ) -> Measured {
        let age = estimates.age(self.view.now).map(|age| self.age(age));
        measured(pick(estimates), age, self.knowledge(estimates))
    }
}

fn measured(estimate: Option<Estimate>, age: Option<Duration>, knowledge: Knowledge) -> Measured {
    let state = match (estimate, knowledge) {
        (None, _) | (_, Knowledge::Stale | Knowledge::Unknown) => State::Unknown,
        (Some(_), Knowledge::Thin) => State::Degraded,
        (Some(_), Knowledge::Fresh) => State::Ok,
    };
    Measured {
        value: estimate.map(|estimate| estimate.value),
        low: estimate.map(|estimate| estimate.low),
        high: estimate.map(|estimate| estimate.high),
        n: estimate.map_or(0, |estimate| estimate.n),
        age_ms: age.map(milliseconds),
        state,
    }
}

fn milliseconds(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn region_state(moment: &Moment<'_>, region: &RegionId) -> State {
    match moment.view.regions.get(region).map(|region| region.state) {
        _ if moment.is_stale() => State::Unknown,
        Some(RegionState::Up) => State::Ok,
        Some(RegionState::Down) => State::Bad,
        Some(RegionState::Unknown) | None => State::Unknown,
    }
}

/// `a, b and c`.
fn listed(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// `1 agent`, `2 agents`.
fn plural(count: usize, noun: &str) -> String {
    if count == 1 {
        format!("1 {noun}")
    } else {
        format!("{count} {noun}s")
    }
}

/// A ratio as people read it.
fn percent(ratio: f64) -> String {
    let percent = ratio * 100.0;
    if percent < 10.0 {
        format!("{percent:.1} %")
    } else {
        format!("{percent:.0} %")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_listed_as_people_write_them() {
        assert_eq!(listed(&["a"]), "a");
        assert_eq!(listed(&["a", "b", "c"]), "a, b and c");
    }

    #[test]
    fn an_old_value_is_shown_and_is_unknown() {
        let estimate = Estimate {
            value: 1.0,
            low: 0.5,
            high: 2.0,
            n: 7,
        };
        let shown = measured(
            Some(estimate),
            Some(Duration::from_secs(9)),
            Knowledge::Stale,
        );
        assert_eq!(
            (shown.value, shown.age_ms, shown.state),
            (Some(1.0), Some(9_000), State::Unknown)
        );
        assert_eq!(measured(None, None, Knowledge::Fresh).state, State::Unknown);
        assert_eq!(
            measured(Some(estimate), None, Knowledge::Thin).state,
            State::Degraded
        );
    }
}
