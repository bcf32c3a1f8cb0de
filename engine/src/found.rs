//! What agents found out beside their windows: the newest routes of each path, paths whose flows are unlike, and orders that
//! were declined.
//!
//! Nothing is decided upon it. It is here because readers ask for it, a restart must not lose it, and the journal holds it
//! as it holds all that the engine was told.

use std::{collections::VecDeque, sync::Arc};

use leeward_common::{
    finding::{Declined, Finding, Flows, Trace},
    id::{AgentId, RegionId},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::input::Findings;

pub mod routing;

pub use routing::{KnownRouting, Told};

/// The most traces of one path that are remembered.
pub const MAX_TRACES_OF_PATH: usize = 8;

/// The most traces that are remembered: about 1 MB.
pub const MAX_TRACES: usize = 512;

/// The most declined orders that are remembered: whoever ordered asks at once.
pub const MAX_DECLINED: usize = 64;

/// The most paths whose flows are remembered.
pub const MAX_FLOWS: usize = 512;

/// What was found.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Found {
    /// Traces in the order in which they arrived.
    pub traces: VecDeque<Arc<Traced>>,
    /// Orders that were declined, in the order in which that was told.
    pub declined: VecDeque<Arc<Refusal>>,
    /// The newest account of each path whose flows were unlike, in the order in which they were told.
    #[serde(default)]
    pub flows: VecDeque<Arc<FlowsTold>>,
    /// What routers tell.
    #[serde(default)]
    pub routing: Arc<KnownRouting>,
}

/// What the flows of a path did, and who told it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct FlowsTold {
    /// When it was told.
    pub at: Timestamp,
    /// Whose path it is.
    pub agent: AgentId,
    /// The agent's region.
    pub region: RegionId,
    /// Flow by flow.
    pub flows: Flows,
}

/// A trace and who told it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Traced {
    /// When it was told.
    pub at: Timestamp,
    /// Who traced.
    pub agent: AgentId,
    /// The agent's region.
    pub region: RegionId,
    /// The route.
    pub trace: Trace,
}

/// A declined order and who declined it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Refusal {
    /// When it was told.
    pub at: Timestamp,
    /// Who declined.
    pub agent: AgentId,
    /// Which order, and why.
    pub declined: Declined,
}

/// What came of an order.
#[derive(Clone, Debug, PartialEq)]
pub enum Answered {
    /// A route.
    Traced(Arc<Traced>),
    /// Nothing, and why.
    Declined(Arc<Refusal>),
}

impl Traced {
    /// Whether another trace is of the same path.
    #[must_use]
    pub fn is_of_path_of(&self, other: &Self) -> bool {
        let path = |of: &Self| (of.agent.clone(), of.trace.target.clone(), of.trace.kind);
        path(self) == path(other)
    }
}

impl Found {
    pub(crate) fn on_findings(&mut self, now: Timestamp, told: &Findings) {
        for finding in &told.findings {
            match finding {
                Finding::Trace(trace) => self.on_trace(Traced {
                    at: now,
                    agent: told.agent.clone(),
                    region: told.region.clone(),
                    trace: Trace::clone(trace),
                }),
                Finding::Flows(flows) => self.on_flows(FlowsTold {
                    at: now,
                    agent: told.agent.clone(),
                    region: told.region.clone(),
                    flows: Flows::clone(flows),
                }),
                Finding::Declined(declined) => {
                    self.declined.push_back(Arc::new(Refusal {
                        at: now,
                        agent: told.agent.clone(),
                        declined: declined.clone(),
                    }));
                    if self.declined.len() > MAX_DECLINED {
                        self.declined.pop_front();
                    }
                }
                Finding::Routing(routing) => {
                    Arc::make_mut(&mut self.routing).on_routing(
                        now,
                        &told.agent,
                        &told.region,
                        routing,
                    );
                }
                // Bandwidth is evidence about a link: the graph has it.
                Finding::Bandwidth(_) | Finding::Unknown => {}
            }
        }
    }

    fn on_trace(&mut self, traced: Traced) {
        let of_path = |own: &Arc<Traced>| own.is_of_path_of(&traced);
        if self.traces.iter().filter(|own| of_path(own)).count() >= MAX_TRACES_OF_PATH {
            let oldest = self.traces.iter().position(of_path);
            oldest.and_then(|oldest| self.traces.remove(oldest));
        } else if self.traces.len() >= MAX_TRACES {
            self.traces.pop_front();
        }
        self.traces.push_back(Arc::new(traced));
    }

    fn on_flows(&mut self, told: FlowsTold) {
        let of_path =
            |own: &Arc<FlowsTold>| own.agent == told.agent && own.flows.is_of_path_of(&told.flows);
        self.flows.retain(|own| !of_path(own));
        if self.flows.len() >= MAX_FLOWS {
            self.flows.pop_front();
        }
        self.flows.push_back(Arc::new(told));
    }

    /// What came of an order; `None` as long as nothing did, and when it is forgotten.
    #[must_use]
    pub fn answer(&self, order: u64) -> Option<Answered> {
        let traced = self.traces.iter().rev();
        let traced = traced
            .clone()
            .find(|own| own.trace.order == Some(order))
            .map(|own| Answered::Traced(Arc::clone(own)));
        traced.or_else(|| {
            let declined = self.declined.iter().rev();
            declined
                .clone()
                .find(|own| own.declined.order == order)
                .map(|own| Answered::Declined(Arc::clone(own)))
        })
    }

    /// The trace of the same path that was told before this one.
    #[must_use]
    pub fn before(&self, traced: &Arc<Traced>) -> Option<&Arc<Traced>> {
        let at = self
            .traces
            .iter()
            .position(|own| Arc::ptr_eq(own, traced))?;
        let earlier = self.traces.iter().take(at).rev();
        earlier.clone().find(|own| own.is_of_path_of(traced))
    }
}

#[cfg(test)]
mod tests {
    use leeward_common::{
        finding::{flows, trace},
        id::TargetId,
    };
    use proptest::prelude::*;

    use super::*;

    fn told(found: &mut Found, target: u64, order: u64) {
        let mut trace = trace::sample(&["10.0.0.1", "192.0.2.9"]);
        trace.target = TargetId::parse(&format!("t-{target}")).unwrap();
        trace.order = Some(order);
        let findings = Findings {
            agent: AgentId::parse("iad-1").unwrap(),
            region: RegionId::parse("iad").unwrap(),
            findings: vec![Finding::Trace(Box::new(trace)), Finding::Unknown],
        };
        found.on_findings(Timestamp::from_unix_us(order), &findings);
    }

    #[test]
    fn an_order_is_answered_by_its_trace_and_the_one_before_is_of_the_same_path() {
        let mut found = Found::default();
        for (target, order) in [(1, 1), (2, 2), (1, 3)] {
            told(&mut found, target, order);
        }
        let Some(Answered::Traced(third)) = found.answer(3) else {
            panic!("not answered")
        };
        assert_eq!(found.before(&third).unwrap().trace.order, Some(1));
        assert_eq!(found.answer(4), None);
    }

    #[test]
    fn a_declined_order_is_answered_with_the_reason() {
        let mut found = Found::default();
        let declined = Declined {
            order: 9,
            reason: "no".to_owned(),
        };
        let findings = Findings {
            agent: AgentId::parse("iad-1").unwrap(),
            region: RegionId::parse("iad").unwrap(),
            findings: vec![Finding::Declined(declined.clone())],
        };
        for _ in 0..=MAX_DECLINED {
            found.on_findings(Timestamp::EPOCH, &findings);
        }
        assert_eq!(found.declined.len(), MAX_DECLINED);
        assert!(
            matches!(found.answer(9), Some(Answered::Declined(own)) if own.declined == declined)
        );
    }

    #[test]
    fn of_a_path_whose_flows_are_unlike_the_newest_account_stays() {
        let mut found = Found::default();
        let mut tell = |agent: &str, target: &str, lost| {
            let findings = Findings {
                agent: AgentId::parse(agent).unwrap(),
                region: RegionId::parse("iad").unwrap(),
                findings: vec![Finding::Flows(Box::new(flows::sample(target, 4, lost)))],
            };
            found.on_findings(Timestamp::EPOCH, &findings);
            let lost = |own: &Arc<FlowsTold>| own.flows.flows[0].lost;
            found.flows.iter().map(lost).collect::<Vec<_>>()
        };
        assert_eq!(tell("iad-1", "dub-1", 10), [10]);
        assert_eq!(tell("iad-1", "dub-2", 20), [10, 20]);
        assert_eq!(tell("iad-2", "dub-1", 30), [10, 20, 30]);
        assert_eq!(tell("iad-1", "dub-1", 40), [20, 30, 40]);
        for target in 0..2 * MAX_FLOWS {
            tell("iad-1", &format!("t-{target}"), 1);
        }
        assert_eq!(found.flows.len(), MAX_FLOWS);
    }

    proptest! {
        /// Memory is bounded whatever comes, and one path that is traced often does not push out the others.
        #[test]
        fn the_newest_stay(often in 1_u64..2_000, others in 0_u64..200) {
            let mut found = Found::default();
            for other in 1..=others {
                told(&mut found, other, other);
            }
            for order in 0..often {
                told(&mut found, 0, 1_000 + order);
            }
            prop_assert_eq!(found.traces.len() as u64, others + often.min(MAX_TRACES_OF_PATH as u64));
            prop_assert!(found.answer(999 + often).is_some());
        }
    }

    #[test]
    fn there_are_never_too_many() {
        let mut found = Found::default();
        for target in 0..2 * MAX_TRACES as u64 {
            told(&mut found, target, target);
        }
        assert_eq!(found.traces.len(), MAX_TRACES);
        assert!(found.answer(MAX_TRACES as u64 - 1).is_none());
        assert!(found.answer(MAX_TRACES as u64).is_some());
    }
}
