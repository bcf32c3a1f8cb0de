//! A virtual path: probes leave on schedule, cross the scenario's network both ways, and end as real ones do.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    time::Duration,
};

use leeward_common::{
    deadline::Deadline,
    id::{AgentId, RegionId},
    report::{Class, Counts, Report, Rtt},
    silence::{Listener, Rule},
    time::Timestamp,
};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

use super::START;
use crate::{
    policy::Policy,
    scenario::{Action, Flow, LinkState, Network, REORDER_BY, Scenario},
    view::Link,
};

/// Size of a probe on the wire, for links with a rate: an echo request with its token, and Ethernet.
const PROBE_BITS: u64 = 106 * 8;

/// What every link and every flow of its own does, each state from its time on.
pub(super) struct Timeline {
    links: BTreeMap<Link, usize>,
    flows: BTreeMap<Flow, usize>,
    roads: Vec<Vec<(Timestamp, LinkState)>>,
}

/// The link or the flow that packets from one host to another take; `None` within a region.
type Road = Option<usize>;

impl Timeline {
    pub(super) fn new(scenario: &Scenario) -> Self {
        let mut network = scenario.network();
        let agents = scenario.agent_ids();
        let set = scenario.events.iter().flat_map(|event| &event.actions);
        let flows: BTreeSet<&Flow> = set
            .filter_map(|action| match action {
                Action::Set { roads, .. } => Some(&roads.flows),
                _ => None,
            })
            .flatten()
            .collect();
        let number = scenario.links.len();
        let mut timeline = Self {
            links: scenario.links.keys().cloned().zip(0..).collect(),
            flows: flows.into_iter().cloned().zip(number..).collect(),
            roads: Vec::new(),
        };
        timeline.roads = vec![Vec::new(); number + timeline.flows.len()];
        timeline.note(START, &network, &agents);
        for event in &scenario.events {
            event
                .actions
                .iter()
                .for_each(|action| network.apply(scenario, action));
            timeline.note(START + event.at, &network, &agents);
        }
        timeline
    }

    fn note(&mut self, at: Timestamp, network: &Network, agents: &BTreeMap<AgentId, RegionId>) {
        let Self {
            links,
            flows,
            roads,
        } = self;
        let links = links
            .iter()
            .map(|((from, to), &n)| (n, network.effective(from, to)));
        let flows = flows.iter().map(|(flow, &n)| {
            let (from, to) = (&agents[&flow.0], &agents[&flow.1]);
            (n, network.effective_flow(flow, from, to))
        });
        for (n, state) in links.chain(flows) {
            if roads[n].last().is_none_or(|&(_, last)| last != state) {
                roads[n].push((at, state));
            }
        }
    }

    /// The road from one agent's host to another's.
    pub(super) fn road(&self, flow: &Flow, link: &Link) -> Road {
        self.flows
            .get(flow)
            .or_else(|| self.links.get(link))
            .copied()
    }

    fn at(&self, road: Road, at: Timestamp) -> LinkState {
        let Some(states) = road.map(|n| &self.roads[n]) else {
            return LinkState::default();
        };
        let after = states.partition_point(|&(from, _)| from <= at);
        states
            .get(after.saturating_sub(1))
            .map_or_else(LinkState::default, |&(_, state)| state)
    }
}

/// One path of a virtual agent.
pub(super) struct VirtualPath {
    there: Road,
    back: Road,
    interval: Duration,
    expiry: Duration,
    random: ChaCha8Rng,
    phase: Duration,
    next_number: u32,
    next_at: Timestamp,
    deadline: Deadline,
    silence: Rule,
    listener: Listener,
    /// What will happen to probes on their way, earliest first.
    ahead: BinaryHeap<Reverse<(Timestamp, u64, Happening)>>,
    order: u64,
    open: u32,
    counts: Counts,
    rtt: Rtt,
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Happening {
    Answered { rtt_us: u32, class: Class },
    Overdue,
    Lost,
}

impl VirtualPath {
    pub(super) fn new(
        seed: u64,
        name: &str,
        [there, back]: [Road; 2],
        policy: &Policy,
        start: Timestamp,
    ) -> Self {
        let probing = &policy.probing;
        let mut random = ChaCha8Rng::seed_from_u64(seed ^ fnv1a(name));
        let phase = probing.interval.mul_f64(unit(&mut random));
        let mut path = Self {
            there,
            back,
            interval: probing.interval,
            expiry: probing.expiry,
            random,
            phase,
            next_number: 0,
            next_at: start,
            deadline: Deadline::default(),
            silence: Rule {
                probes: policy.evidence.down_probes,
                after: policy.evidence.down_after,
            },
            listener: Listener::new(start.as_unix_us()),
            ahead: BinaryHeap::new(),
            order: 0,
            open: 0,
            counts: Counts::default(),
            rtt: Rtt::empty(probing.schema),
        };
        path.schedule();
        path
    }

    /// The agent's process begins anew.
    pub(super) fn restart(&mut self, at: Timestamp) {
        self.deadline = Deadline::default();
        self.listener = Listener::new(at.as_unix_us());
        self.ahead.clear();
        self.open = 0;
        self.counts = Counts::default();
        self.rtt = Rtt::empty(self.rtt.histogram.schema());
        while self.next_at < at {
            self.schedule();
        }
    }

    /// The next probe's time: `phase + n × interval`, and up to a tenth of the interval either way.
    fn schedule(&mut self) {
        let jitter = self.interval.mul_f64(0.2 * unit(&mut self.random));
        let due = START + self.phase + self.interval * self.next_number + jitter;
        self.next_at = due - self.interval / 10;
        self.next_number = self.next_number.saturating_add(1);
    }

    /// Lets everything happen before `until`.
    pub(super) fn advance(&mut self, timeline: &Timeline, until: Timestamp) {
        loop {
            let happens_at = self.ahead.peek().map(|Reverse((at, ..))| *at);
            let first = happens_at.map_or(self.next_at, |at| at.min(self.next_at));
            if first >= until {
                break;
            }
            if happens_at == Some(first) {
                if let Some(Reverse((at, _, happening))) = self.ahead.pop() {
                    self.happen(at, happening);
                }
            } else {
                self.send(timeline);
            }
        }
    }

    /// The report of the window, or of the part of it, that ends now.
    pub(super) fn close(&mut self, now: Timestamp) -> Report {
        let mut counts = std::mem::take(&mut self.counts);
        counts.open = self.open;
        counts.silence = Some(self.listener.silence(now.as_unix_us()));
        self.listener.on_report(now.as_unix_us(), self.silence);
        let empty = Rtt::empty(self.rtt.histogram.schema());
        Report {
            counts,
            rtt: std::mem::replace(&mut self.rtt, empty),
        }
    }

    /// Its report, if it fell silent and may say so before its window ends.
    pub(super) fn close_early(&mut self, now: Timestamp) -> Option<Report> {
        let now_us = now.as_unix_us();
        if !self.listener.is_news(now_us, self.silence) {
            return None;
        }
        let early = self.listener.may_be_early(now_us);
        self.listener.on_report(now_us, self.silence);
        early.then(|| self.close(now))
    }

    fn send(&mut self, timeline: &Timeline) {
        let sent_at = self.next_at;
        self.schedule();
        self.counts.scheduled += 1;
        self.open += 1;
        let overdue_at = sent_at + self.deadline.after(self.expiry);
        let expires_at = sent_at + self.expiry;
        let mut answers = self.answers(timeline, sent_at);
        answers.sort_unstable();
        let Some(&first) = answers.first().filter(|&&at| at < expires_at) else {
            self.push(overdue_at, Happening::Overdue);
            self.push(expires_at, Happening::Lost);
            return;
        };
        let rtt_us = u32::try_from(first.since(sent_at).as_micros()).unwrap_or(u32::MAX);
        if first > overdue_at {
            self.push(overdue_at, Happening::Overdue);
            self.push(
                first,
                Happening::Answered {
                    rtt_us,
                    class: Class::Late,
                },
            );
            return;
        }
        let class = match answers.get(1) {
            Some(&again) if again < expires_at => Class::Duplicate,
            _ => Class::Replied,
        };
        self.push(first, Happening::Answered { rtt_us, class });
    }

    /// When answers to a probe arrive.
    fn answers(&mut self, timeline: &Timeline, sent_at: Timestamp) -> Vec<Timestamp> {
        let mut answers = Vec::new();
        for at in self.cross(timeline.at(self.there, sent_at), sent_at) {
            answers.extend(self.cross(timeline.at(self.back, at), at));
        }
        answers
    }

    /// When a packet that enters a link comes out: never, once or twice.
    fn cross(&mut self, link: LinkState, at: Timestamp) -> Vec<Timestamp> {
        // Every packet draws the same numbers whatever the link is like, so that one change to a scenario does not
        // change the chances of everything after it.
        let [lost, twice, held, first, second] = std::array::from_fn(|_| unit(&mut self.random));
        if lost < link.loss.get() {
            return Vec::new();
        }
        let mut out = vec![at + delay(&link, first, held)];
        if twice < link.duplicate.get() {
            out.push(at + delay(&link, second, held));
        }
        out
    }

    fn push(&mut self, at: Timestamp, happening: Happening) {
        self.order += 1;
        self.ahead.push(Reverse((at, self.order, happening)));
    }

    fn happen(&mut self, at: Timestamp, happening: Happening) {
        let class = match happening {
            Happening::Overdue => {
                self.counts.overdue += 1;
                self.listener.on_unanswered();
                return;
            }
            Happening::Lost => Class::Lost,
            Happening::Answered { rtt_us, class } => {
                self.listener.on_answer(at.as_unix_us());
                self.deadline.on_rtt(rtt_us);
                self.rtt.record(rtt_us);
                class
            }
        };
        self.counts.end(class);
        self.open = self.open.saturating_sub(1);
    }
}

fn delay(link: &LinkState, chance: f64, held: f64) -> Duration {
    let varied = link.delay + link.jitter.mul_f64(2.0 * chance);
    let held_back = match held < link.reorder.get() {
        true => REORDER_BY,
        false => Duration::ZERO,
    };
    let queued = link.rate_bps.map_or(Duration::ZERO, |rate| {
        Duration::from_micros(PROBE_BITS.saturating_mul(1_000_000) / rate.max(1))
    });
    varied.saturating_sub(link.jitter) + held_back + queued
}

/// A number in 0..1.
fn unit(random: &mut ChaCha8Rng) -> f64 {
    (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// A seed from a name (FNV-1a).
pub(super) fn fnv1a(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}
