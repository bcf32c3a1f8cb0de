//! Traces: who is asked for one, and when one is ordered without anybody asking.
//!
//! Somebody asks by the API; or a link changes for the worse or back ([`follow`]), because where packets went before and
//! after is what people look at next. Agents decline what exceeds their own budget; here a link is traced at most once in
//! [`LINK_EVERY`], and few links at once.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use leeward_common::{
    api::v1::State,
    id::{AgentId, RegionId, TargetId},
    report::ProbeKind,
    time::Timestamp,
    wire::v1::{Order, Target, TraceOrder},
};
use leeward_engine::view::Link;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, info};

use crate::{
    http::convert::{self, Moment},
    ingest::roster::{Member, NotOrdered, Roster},
    shared::Shared,
};

/// How often it is looked whether links changed.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// From one trace of a link that nobody asked for to the next.
pub const LINK_EVERY: Duration = Duration::from_secs(300);

/// Traces that nobody asked for, at one look.
const AT_ONCE: usize = 2;

/// What is to be traced.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Wanted {
    /// Whose agent traces.
    pub from: RegionId,
    /// To which region.
    pub to: RegionId,
    /// By which probes; any if left out.
    pub kind: Option<ProbeKind>,
    /// Which agent; any if left out.
    pub agent: Option<AgentId>,
    /// Whether to look for the largest packet that comes through as well.
    pub mtu: bool,
}

/// An order that is on its way.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Sent {
    /// Its number.
    pub order: u64,
    /// Who traces.
    pub agent: AgentId,
    /// To which target.
    pub target: TargetId,
    /// By which probes.
    pub kind: ProbeKind,
}

/// Why nothing is traced.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NoTrace {
    /// No agent of this name is registered in the region.
    #[error("there is no agent {0} in that region")]
    UnknownAgent(AgentId),
    /// Both ends are the same.
    #[error("a link has two ends, and both are {0}")]
    SameRegion(RegionId),
    /// No agent of the one region probes the other in this way.
    #[error("no agent of {from} probes {to}{}", .kind.map_or_else(String::new, |kind| format!(" by {kind}")))]
    NoPath {
        /// Whose agents.
        from: RegionId,
        /// Whom.
        to: RegionId,
        /// How.
        kind: Option<ProbeKind>,
    },
    /// The agent cannot be told.
    #[error("{0}")]
    NotOrdered(#[from] NotOrdered),
}

/// A path that an agent probes.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Candidate {
    agent: AgentId,
    target: TargetId,
    kind: ProbeKind,
}

/// Who could trace it, those with a session first.
fn candidates(roster: &Roster, wanted: &Wanted) -> Result<Vec<Candidate>, NoTrace> {
    if wanted.from == wanted.to {
        return Err(NoTrace::SameRegion(wanted.from.clone()));
    }
    let is_wanted = |member: &&std::sync::Arc<Member>| {
        let agent = &member.registration.agent;
        member.registration.region == wanted.from
            && wanted.agent.as_ref().is_none_or(|wanted| wanted == agent)
    };
    let mut members: Vec<_> = roster.members.values().filter(is_wanted).collect();
    if let (Some(agent), true) = (&wanted.agent, members.is_empty()) {
        return Err(NoTrace::UnknownAgent(agent.clone()));
    }
    members.sort_by_key(|member| member.session.is_none());
    let found: Vec<_> = members
        .into_iter()
        .flat_map(|member| paths(member, wanted))
        .collect();
    match found.is_empty() {
        true => Err(NoTrace::NoPath {
            from: wanted.from.clone(),
            to: wanted.to.clone(),
            kind: wanted.kind,
        }),
        false => Ok(found),
    }
}

/// The paths of one agent that fit, the simplest kind first.
fn paths(member: &Member, wanted: &Wanted) -> Vec<Candidate> {
    let refused = |target: &Target| {
        let applied = member
            .mesh_applied
            .iter()
            .flat_map(|applied| &applied.refused);
        applied
            .into_iter()
            .any(|refused| refused.target == target.id)
    };
    let targets = member.mesh.iter().flat_map(|mesh| &mesh.targets);
    let fitting =
        targets.filter(|target| target.region.as_ref() == Some(&wanted.to) && !refused(target));
    let of_target = |target: &Target| {
        let kinds = target.kinds.iter().copied();
        let kinds = kinds.filter(|kind| wanted.kind.is_none_or(|wanted| wanted == *kind));
        let candidate = |kind| Candidate {
            agent: member.registration.agent.clone(),
            target: target.id.clone(),
            kind,
        };
        kinds.map(candidate).collect::<Vec<_>>()
    };
    let mut found: Vec<_> = fitting.flat_map(of_target).collect();
    found.sort_by_key(|own| own.kind);
    found
}

/// Orders a trace from the first agent that can be told.
///
/// # Errors
///
/// Returns why none can: what the last one said.
pub async fn order(shared: &Shared, wanted: &Wanted) -> Result<Sent, NoTrace> {
    let what = |order, target: &TargetId, kind| Order {
        order,
        trace: Some(TraceOrder {
            target: target.clone(),
            kind,
            mtu: wanted.mtu,
        }),
        bandwidth: None,
    };
    send(shared, wanted, what).await
}

/// Sends an order about a path, as `what` makes it of a number, a target and a kind, to the first agent that can be told.
///
/// # Errors
///
/// Returns why none can: what the last one said.
pub async fn send(
    shared: &Shared,
    wanted: &Wanted,
    what: impl Fn(u64, &TargetId, ProbeKind) -> Order,
) -> Result<Sent, NoTrace> {
    let found = candidates(&shared.roster.load(), wanted)?;
    let mut why = NotOrdered::Away;
    let mut asked = None;
    for Candidate {
        agent,
        target,
        kind,
    } in found
    {
        // Other paths of an agent that cannot be told are no better.
        if asked.as_ref() == Some(&agent) {
            continue;
        }
        asked = Some(agent.clone());
        let order = next_number(shared.clock.now());
        let sent = shared
            .orders
            .order(agent.clone(), what(order, &target, kind));
        match sent.await {
            Ok(()) => {
                info!(order, %agent, %target, %kind, "an order is on its way");
                return Ok(Sent {
                    order,
                    agent,
                    target,
                    kind,
                });
            }
            Err(error) => why = error,
        }
    }
    Err(why.into())
}

/// The number of an order: no other of this process has it, and, the clock being what it is, none of one before.
fn next_number(now: Timestamp) -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let now = now.as_unix_us();
    let next = |last: u64| Some(now.max(last + 1));
    let before = LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    now.max(before.unwrap_or_else(|last| last) + 1)
}

/// Which links changed and when each was traced. [pure]
#[derive(Debug, Default)]
pub struct Changes {
    states: BTreeMap<Link, State>,
    traced: BTreeMap<Link, Timestamp>,
}

impl Changes {
    /// Takes in how links fare and returns those to trace now: what got worse or better, within the budget. What is not
    /// known is no change.
    pub fn look<'a>(
        &mut self,
        now: Timestamp,
        links: impl Iterator<Item = (&'a Link, State)>,
    ) -> Vec<Link> {
        let mut due = Vec::new();
        for (link, state) in links {
            if state == State::Unknown {
                continue;
            }
            match self.states.get(link) {
                Some(before) if *before == state => {}
                Some(_) if due.len() >= AT_ONCE => {}
                Some(_) => {
                    let is_early = |at: &Timestamp| now.since(*at) < LINK_EVERY;
                    if !self.traced.get(link).is_some_and(is_early) {
                        self.traced.insert(link.clone(), now);
                        due.push(link.clone());
                    }
                    self.states.insert(link.clone(), state);
                }
                None => {
                    self.states.insert(link.clone(), state);
                }
            }
        }
        due
    }
}

/// Orders traces of links that change. Ends only by being aborted.
pub async fn follow(shared: Shared) {
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut changes = Changes::default();
    loop {
        look.tick().await;
        let (view, now) = (shared.view.load_full(), shared.clock.now());
        let moment = Moment::new(&view, now);
        for (from, to) in changes.look(now, convert::link_states(&moment)) {
            let wanted = Wanted {
                from,
                to,
                kind: None,
                agent: None,
                mtu: false,
            };
            if let Err(error) = order(&shared, &wanted).await {
                debug!(from = %wanted.from, to = %wanted.to, %error, "a link that changed is not traced");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use leeward_common::wire::v1::{Mesh, MeshApplied, RefusedTarget};
    use proptest::prelude::*;

    use super::*;
    use crate::{
        ingest::{line::Transport, roster::Session},
        mesh::Registration,
    };

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_unix_us(seconds * 1_000_000)
    }

    fn region(id: &str) -> RegionId {
        RegionId::parse(id).unwrap()
    }

    fn link(from: &str) -> Link {
        (region(from), region("dub"))
    }

    fn member(agent: &str, kinds: &[ProbeKind], is_connected: bool) -> (AgentId, Arc<Member>) {
        let agent = AgentId::parse(agent).unwrap();
        let target = Target {
            id: TargetId::parse("dub-1.v4").unwrap(),
            region: Some(region("dub")),
            address: "192.0.2.1".parse().unwrap(),
            kinds: kinds.to_vec(),
            port: 8620,
            stamp_port: 0,
        };
        let mesh = Mesh {
            version: 1,
            interval_us: 100_000,
            window_us: 1_000_000,
            expiry_us: 3_000_000,
            schema: 1,
            silence_probes: 0,
            silence_us: 0,
            flows: 1,
            targets: vec![target],
            checks: Vec::new(),
            watch: Vec::new(),
        };
        let session = Session {
            id: 1,
            since: at(0),
            remote: ([127, 0, 0, 1], 1).into(),
            transport: Transport::Quic,
        };
        let member = Member {
            registration: Registration {
                agent: agent.clone(),
                region: region("iad"),
                boot_epoch: 1,
                addresses: Vec::new(),
                answer_port: 8620,
                stamp_port: None,
                build: String::new(),
            },
            session: is_connected.then_some(session),
            last_seen: at(0),
            status: None,
            mesh: Some(Arc::new(mesh)),
            mesh_version: 1,
            mesh_applied: None,
        };
        (agent, Arc::new(member))
    }

    fn wanted(kind: Option<ProbeKind>) -> Wanted {
        Wanted {
            from: region("iad"),
            to: region("dub"),
            kind,
            agent: None,
            mtu: false,
        }
    }

    #[test]
    fn agents_with_a_session_are_asked_first_and_by_what_they_probe() {
        let both = [ProbeKind::Stamp, ProbeKind::Icmp];
        let members = [
            member("iad-1", &both, false),
            member("iad-2", &[ProbeKind::Stamp], true),
        ];
        let roster = Roster {
            members: members.into_iter().collect(),
        };
        let agents = |kind| {
            let found = candidates(&roster, &wanted(kind)).unwrap();
            let agents = found
                .iter()
                .map(|own| format!("{} {}", own.agent, own.kind));
            agents.collect::<Vec<_>>()
        };
        assert_eq!(agents(None), ["iad-2 stamp", "iad-1 icmp", "iad-1 stamp"]);
        assert_eq!(agents(Some(ProbeKind::Icmp)), ["iad-1 icmp"]);
        let none = candidates(&roster, &wanted(Some(ProbeKind::TcpSyn))).unwrap_err();
        assert_eq!(none.to_string(), "no agent of iad probes dub by tcp_syn");
        let nobody = Wanted {
            agent: Some(AgentId::parse("iad-9").unwrap()),
            ..wanted(None)
        };
        assert!(matches!(
            candidates(&roster, &nobody),
            Err(NoTrace::UnknownAgent(_))
        ));
    }

    #[test]
    fn a_target_that_the_agent_refuses_is_not_traced() {
        let (agent, own) = member("iad-1", &[ProbeKind::Icmp], true);
        let mut own = Member::clone(&own);
        own.mesh_applied = Some(MeshApplied {
            version: 1,
            refused: vec![RefusedTarget {
                target: TargetId::parse("dub-1.v4").unwrap(),
                reason: String::new(),
            }],
        });
        let roster = Roster {
            members: std::iter::once((agent, Arc::new(own))).collect(),
        };
        assert!(matches!(
            candidates(&roster, &wanted(None)),
            Err(NoTrace::NoPath { .. })
        ));
    }

    #[test]
    fn numbers_grow_whatever_the_clock_does() {
        let first = next_number(at(10));
        assert!(next_number(at(5)) > first);
        assert!(next_number(at(10)) > first + 1);
    }

    #[test]
    fn a_link_that_changes_is_traced_and_one_that_flaps_not_each_time() {
        let mut changes = Changes::default();
        let mut look =
            |seconds, state| changes.look(at(seconds), [(&link("iad"), state)].into_iter());
        assert!(look(0, State::Ok).is_empty(), "the first is no change");
        assert!(look(5, State::Unknown).is_empty());
        assert_eq!(look(10, State::Bad), [link("iad")]);
        assert!(look(15, State::Bad).is_empty());
        assert!(look(20, State::Ok).is_empty(), "too early");
        assert_eq!(
            look(10 + LINK_EVERY.as_secs(), State::Degraded),
            [link("iad")]
        );
    }

    #[test]
    fn when_many_links_change_at_once_the_rest_waits() {
        let mut changes = Changes::default();
        let links = ["a", "b", "c", "d", "e"].map(link);
        let mut look = |seconds, state| {
            changes
                .look(at(seconds), links.iter().map(|own| (own, state)))
                .len()
        };
        assert_eq!(look(0, State::Ok), 0);
        let counts = [5, 10, 15, 20].map(|seconds| look(seconds, State::Bad));
        assert_eq!(counts, [2, 2, 1, 0]);
    }

    proptest! {
        /// However a link flaps, it is traced no more often than its budget allows, and few links at once.
        #[test]
        fn the_budget_holds(states in prop::collection::vec((0usize..4, 0u8..4), 1..300)) {
            let mut changes = Changes::default();
            let mut traced: BTreeMap<Link, u64> = BTreeMap::new();
            let links = ["a", "b", "c", "d"].map(link);
            for (tick, (which, state)) in states.into_iter().enumerate() {
                let state = [State::Ok, State::Degraded, State::Bad, State::Unknown][usize::from(state)];
                let now = tick as u64 * LOOK_EVERY.as_secs();
                let due = changes.look(at(now), links[which..].iter().map(|own| (own, state)));
                prop_assert!(due.len() <= AT_ONCE);
                for link in due {
                    let before = traced.insert(link, now);
                    prop_assert!(before.is_none_or(|before| now - before >= LINK_EVERY.as_secs()));
                }
            }
        }
    }
}
