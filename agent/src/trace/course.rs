//! Which probe of a trace leaves next, and what its answers add up to. [pure]
//!
//! ```text
//!   round 1   1 hop, 2 hops, 3 hops … one after the other, without waiting, until the target answers or MAX_TTL
//!             then a wait for those on their way: now it is known how long the route is
//!   round 2…  the same hops again
//! ```
//!
//! Time is given in, nanoseconds of a monotonic clock.

use std::net::IpAddr;

use leeward_common::finding::trace::{Answer, End, Hop, Label, Says};

/// The longest route that is looked for. Few on the Internet are longer than 25.
pub const MAX_TTL: u8 = 30;

/// Probes of each hop.
pub const ROUNDS: u8 = 3;

/// Hops behind the last that answered that are still shown.
const SILENT_HOPS: u8 = 3;

/// From one probe to the next: fifty packets a second, and so few of them to one router.
const PACE_NS: u64 = 20_000_000;

/// How long answers are waited for behind the last probe of a round.
const PATIENCE_NS: u64 = 1_000_000_000;

/// What to do next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Step {
    /// Send this probe.
    Send {
        /// Its place among the probes of the trace.
        at: u16,
        /// Its time to live.
        ttl: u8,
    },
    /// Nothing before this moment, unless an answer comes.
    Wait(u64),
    /// All is known that will be.
    Done,
}

/// Who answered a probe.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Told {
    /// Who.
    pub from: IpAddr,
    /// What it said.
    pub says: Says,
    /// The round-trip time, microseconds.
    pub rtt_us: u32,
    /// The labels that the probe carried there.
    pub labels: Vec<Label>,
}

#[derive(Clone, Debug)]
struct Probe {
    ttl: u8,
    told: Option<Told>,
}

/// A trace under way.
#[derive(Clone, Debug, Default)]
pub struct Course {
    probes: Vec<Probe>,
    /// Rounds that are complete.
    rounds: u8,
    /// The time to live of the last probe of this round.
    ttl: u8,
    /// How long the route is, after the first round.
    length: Option<u8>,
    next_at: u64,
    sent_at: u64,
}

impl Course {
    /// What to do at `now`.
    pub fn step(&mut self, now: u64) -> Step {
        if self.rounds == ROUNDS {
            return Step::Done;
        }
        let last = self.length.or_else(|| self.ended_at()).unwrap_or(MAX_TTL);
        if self.ttl >= last {
            return self.between_rounds(now);
        }
        if now < self.next_at {
            return Step::Wait(self.next_at);
        }
        self.ttl += 1;
        (self.sent_at, self.next_at) = (now, now + PACE_NS);
        let at = self.probes.len() as u16;
        let (ttl, told) = (self.ttl, None);
        self.probes.push(Probe { ttl, told });
        Step::Send { at, ttl }
    }

    fn between_rounds(&mut self, now: u64) -> Step {
        let until = self.sent_at + PATIENCE_NS;
        if now < until && self.probes.iter().any(|probe| probe.told.is_none()) {
            return Step::Wait(until);
        }
        self.length = Some(self.known_length());
        self.rounds += 1;
        self.ttl = 0;
        self.step(now)
    }

    /// Notes an answer; `false` if there is no such probe or it was answered before.
    pub fn on_answer(&mut self, at: u16, told: Told) -> bool {
        match self.probes.get_mut(usize::from(at)) {
            Some(probe) if probe.told.is_none() => {
                probe.told = Some(told);
                true
            }
            _ => false,
        }
    }

    /// The first hop at which the way ends: the target answered, or it goes no further.
    fn ended_at(&self) -> Option<u8> {
        let is_end = |probe: &&Probe| {
            let told = probe.told.as_ref();
            told.is_some_and(|told| told.says != Says::TimeExceeded)
        };
        self.probes
            .iter()
            .filter(is_end)
            .map(|probe| probe.ttl)
            .min()
    }

    fn known_length(&self) -> u8 {
        let answered = self.probes.iter().filter(|probe| probe.told.is_some());
        let last = answered.map(|probe| probe.ttl).max().unwrap_or(0);
        self.ended_at()
            .or_else(|| self.looped_at())
            .unwrap_or((last + SILENT_HOPS).min(MAX_TTL))
    }

    /// The hop at which a router answers that had answered nearer, with another in between.
    fn looped_at(&self) -> Option<u8> {
        let hops = self.hops();
        let who = |hop: &Hop| hop.answers.first().map(|own| own.from);
        let again = hops.iter().enumerate().find(|(at, hop)| {
            let Some(from) = who(hop) else { return false };
            let before = &hops[..*at];
            let earlier = before.iter().position(|own| who(own) == Some(from));
            earlier.is_some_and(|earlier| {
                let between = &before[earlier + 1..];
                between
                    .iter()
                    .any(|own| who(own).is_some_and(|other| other != from))
            })
        });
        again.map(|(_, hop)| hop.ttl)
    }

    fn hops(&self) -> Vec<Hop> {
        let last = self.probes.iter().map(|probe| probe.ttl).max().unwrap_or(0);
        (1..=last).map(|ttl| self.hop(ttl)).collect()
    }

    fn hop(&self, ttl: u8) -> Hop {
        let mut hop = Hop {
            ttl,
            sent: 0,
            answers: Vec::new(),
        };
        for probe in self.probes.iter().filter(|probe| probe.ttl == ttl) {
            hop.sent += 1;
            let Some(told) = &probe.told else { continue };
            let same = |own: &&mut Answer| own.from == told.from && own.says == told.says;
            match hop.answers.iter_mut().find(same) {
                Some(own) => own.rtts_us.push(told.rtt_us),
                None => hop.answers.push(Answer {
                    from: told.from,
                    says: told.says,
                    rtts_us: vec![told.rtt_us],
                    labels: told.labels.clone(),
                    asn: None,
                }),
            }
        }
        hop
    }

    /// The hops, and how it ended. Probes that went beyond the end say nothing.
    #[must_use]
    pub fn finish(&self) -> (Vec<Hop>, End) {
        let mut hops = self.hops();
        hops.truncate(usize::from(self.known_length()));
        let last = hops.last().into_iter().flat_map(|hop| &hop.answers);
        let says: Vec<Says> = last.map(|own| own.says).collect();
        let has = |one: Says| says.contains(&one);
        let end = if has(Says::Reached) || has(Says::PortUnreachable) {
            End::Reached
        } else if self.ended_at().is_some() {
            End::Unreachable
        } else if self.looped_at().is_some() {
            End::Looped
        } else {
            End::Silent
        };
        (hops, end)
    }

    /// The shortest round-trip time of the last hop that answered, nanoseconds.
    #[must_use]
    pub fn rtt_ns(&self) -> Option<u64> {
        let told = self
            .probes
            .iter()
            .filter_map(|probe| Some((probe.ttl, probe.told.as_ref()?)));
        let last = told.clone().map(|(ttl, _)| ttl).max()?;
        let of_last = told.filter(|&(ttl, _)| ttl == last);
        of_last
            .map(|(_, told)| u64::from(told.rtt_us) * 1_000)
            .min()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A network: what a probe of a time to live hears, if anything, and after how long.
    type Network<'a> = &'a dyn Fn(u8, u16) -> Option<(IpAddr, Says, u64)>;

    fn router(hop: u8) -> IpAddr {
        [10, 0, 0, hop].into()
    }

    /// A route of `length` hops to the target.
    fn route(length: u8) -> impl Fn(u8, u16) -> Option<(IpAddr, Says, u64)> {
        move |ttl, _| match ttl < length {
            true => Some((router(ttl), Says::TimeExceeded, 3_000_000)),
            false => Some((router(200), Says::Reached, 9_000_000)),
        }
    }

    /// Runs a trace to its end; returns it and the number of packets and of nanoseconds that it took.
    fn run(network: Network<'_>) -> (Course, u16, u64) {
        let mut course = Course::default();
        let (mut now, mut sent) = (0, 0);
        let mut under_way: Vec<(u64, u16, Told)> = Vec::new();
        loop {
            under_way.sort_by_key(|(at, ..)| *at);
            while under_way.first().is_some_and(|(at, ..)| *at <= now) {
                let (_, at, told) = under_way.remove(0);
                course.on_answer(at, told);
            }
            match course.step(now) {
                Step::Send { at, ttl } => {
                    sent += 1;
                    if let Some((from, says, rtt_ns)) = network(ttl, at) {
                        let told = Told {
                            from,
                            says,
                            rtt_us: (rtt_ns / 1_000) as u32,
                            labels: Vec::new(),
                        };
                        under_way.push((now + rtt_ns, at, told));
                    }
                }
                Step::Wait(until) => {
                    let answer = under_way.iter().map(|(at, ..)| *at).min();
                    now = answer.map_or(until, |at| at.min(until));
                }
                Step::Done => return (course, sent, now),
            }
        }
    }

    fn addresses(hops: &[Hop]) -> Vec<Option<IpAddr>> {
        hops.iter()
            .map(|hop| hop.answers.first().map(|own| own.from))
            .collect()
    }

    #[test]
    fn every_hop_is_asked_three_times_and_nothing_behind_the_target_is_shown() {
        let (course, _, took) = run(&route(4));
        let (hops, end) = course.finish();
        assert_eq!(end, End::Reached);
        let expected = [
            Some(router(1)),
            Some(router(2)),
            Some(router(3)),
            Some(router(200)),
        ];
        assert_eq!(addresses(&hops), expected);
        assert!(
            hops.iter().all(|hop| hop.sent == 3 && hop.lost() == 0),
            "{hops:?}"
        );
        assert!(took < 1_000_000_000, "{took}");
        assert_eq!(course.rtt_ns(), Some(9_000_000));
    }

    #[test]
    fn a_silent_router_is_shown_as_one() {
        let whole = route(4);
        let (course, ..) = run(&|ttl, at| if ttl == 2 { None } else { whole(ttl, at) });
        let (hops, end) = course.finish();
        assert_eq!((end, hops.len()), (End::Reached, 4));
        assert_eq!(
            (hops[1].sent, hops[1].lost(), hops[1].answers.len()),
            (3, 3, 0)
        );
    }

    #[test]
    fn a_target_that_never_answers_ends_the_trace_a_few_hops_behind_the_last_router() {
        let whole = route(4);
        let (course, sent, _) = run(&|ttl, at| if ttl >= 4 { None } else { whole(ttl, at) });
        let (hops, end) = course.finish();
        assert_eq!((end, hops.len()), (End::Silent, 6));
        assert_eq!(sent, u16::from(MAX_TTL) + 2 * 6);
        let (course, ..) = run(&|_, _| None);
        assert_eq!(
            (course.finish().0.len(), course.finish().1),
            (3, End::Silent)
        );
    }

    #[test]
    fn a_router_that_says_it_goes_no_further_is_the_end() {
        let whole = route(9);
        let (course, ..) = run(&|ttl, at| match ttl {
            1 | 2 => whole(ttl, at),
            _ => Some((router(3), Says::HostUnreachable, 4_000_000)),
        });
        let (hops, end) = course.finish();
        assert_eq!((end, hops.len()), (End::Unreachable, 3));
    }

    #[test]
    fn a_loop_is_noticed_and_cut_where_it_closes() {
        let (course, ..) = run(&|ttl, _| {
            let hop = if ttl < 3 { ttl } else { 3 + ttl % 2 };
            Some((router(hop), Says::TimeExceeded, 3_000_000))
        });
        let (hops, end) = course.finish();
        assert_eq!(end, End::Looped);
        let expected = [1, 2, 4, 3, 4].map(|hop| Some(router(hop)));
        assert_eq!(addresses(&hops), expected);
    }

    #[test]
    fn a_router_that_answers_twice_in_a_row_is_no_loop() {
        let (course, ..) = run(&|ttl, _| match ttl {
            1 | 2 => Some((router(1), Says::TimeExceeded, 3_000_000)),
            _ => Some((router(200), Says::Reached, 3_000_000)),
        });
        assert_eq!(course.finish().1, End::Reached);
    }

    #[test]
    fn an_answer_counts_once() {
        let mut course = Course::default();
        assert_eq!(course.step(0), Step::Send { at: 0, ttl: 1 });
        let told = Told {
            from: router(1),
            says: Says::TimeExceeded,
            rtt_us: 5,
            labels: Vec::new(),
        };
        assert!(course.on_answer(0, told.clone()));
        assert!(!course.on_answer(0, told.clone()));
        assert!(!course.on_answer(1, told));
        assert_eq!(course.step(1), Step::Wait(PACE_NS));
    }

    proptest! {
        /// Whatever the network does, a trace ends, sends no more than it may and no faster, and its sums are right.
        #[test]
        fn a_trace_ends_within_its_budget(
            behaviour in prop::collection::vec((0u8..12, 0u8..7, 0u64..3_000_000_000), 128),
        ) {
            let (course, sent, took) = run(&|_, at| {
                let (from, says, rtt_ns) = behaviour[usize::from(at) % behaviour.len()];
                let says = match says {
                    0..3 => Says::TimeExceeded,
                    3 => Says::Reached,
                    4 => Says::HostUnreachable,
                    5 => Says::PortUnreachable,
                    _ => return None,
                };
                Some((router(from), says, rtt_ns))
            });
            prop_assert!(sent <= u16::from(MAX_TTL) * u16::from(ROUNDS));
            prop_assert!(took >= u64::from(sent.saturating_sub(1)) * PACE_NS * 9 / 10 || sent == 0);
            prop_assert!(took <= u64::from(sent) * PACE_NS + u64::from(ROUNDS) * PATIENCE_NS);
            let (hops, _) = course.finish();
            prop_assert!(hops.len() <= usize::from(MAX_TTL));
            for hop in &hops {
                prop_assert!(hop.sent <= ROUNDS);
                let answered: usize = hop.answers.iter().map(|own| own.rtts_us.len()).sum();
                prop_assert_eq!(answered + hop.lost(), usize::from(hop.sent));
            }
        }
    }
}
