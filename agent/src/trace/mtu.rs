//! The search for the largest packet that comes through. [pure]
//!
//! Packets that may not be fragmented are sent, and what is answered came through (RFC 4821, RFC 8899 section 5.3). What a
//! router says would fit is where to look next, and no more: it may be wrong, forged, or never come.
//!
//! ```text
//!   floor ── confirmed ──────────── ? ──────────── failed ── local + 1
//!            an answer moves this up             a size that goes unanswered ATTEMPTS times, or that a router says
//!                                                is too big, moves this down
//! ```
//!
//! A size that was answered is confirmed whatever was said about it before.

use std::net::IpAddr;

use leeward_common::finding::trace::{Hint, PathMtu};

/// The smallest packet that every link must carry: 1280 bytes over IPv6 (RFC 8200 section 5). Over IPv4 it is 68 bytes (RFC
/// 791), smaller than any probe of ours; no link of today is narrower than this.
pub const FLOOR_V4: u16 = 576;
/// See [`FLOOR_V4`].
pub const FLOOR_V6: u16 = 1_280;

/// So often a size is tried that nobody answers.
const ATTEMPTS: u8 = 3;

/// The most packets of one search; 16 sizes three times are 48.
pub const PACKETS_MAX: u16 = 64;

/// From one packet to the next: one of full size each 50 ms is 240 kbit/s.
const PACE_NS: u64 = 50_000_000;

/// What to do next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Step {
    /// Send an echo request of this size, bytes of the whole packet.
    Send {
        /// The how-manieth of the search.
        at: u16,
        /// Its size.
        bytes: u16,
    },
    /// Nothing before this moment, unless an answer comes.
    Wait(u64),
    /// It is known, or will not be.
    Done,
}

/// A search under way.
#[derive(Clone, Debug)]
pub struct Search {
    local: u16,
    /// The largest that was answered.
    confirmed: Option<u16>,
    /// The smallest that was not.
    failed: u16,
    /// The size being tried, and how often it was.
    trying: (u16, u8),
    /// Sizes by packet.
    sent: Vec<u16>,
    hint: Option<Hint>,
    /// Sizes that failed without a word.
    failed_silently: bool,
    next_at: u64,
    patience_ns: u64,
    given_up: bool,
}

impl Search {
    /// A search between what every link must carry and what this host lets out. `rtt_ns` says how long an answer takes.
    #[must_use]
    pub fn new(is_v6: bool, local: u16, rtt_ns: u64) -> Self {
        let floor = if is_v6 { FLOOR_V6 } else { FLOOR_V4 };
        Self {
            local,
            confirmed: None,
            failed: local.saturating_add(1),
            trying: (floor.min(local), 0),
            sent: Vec::new(),
            hint: None,
            failed_silently: false,
            next_at: 0,
            patience_ns: (3 * rtt_ns + 100_000_000).clamp(PACE_NS, 1_000_000_000),
            given_up: local < floor,
        }
    }

    /// What to do at `now`.
    pub fn step(&mut self, now: u64) -> Step {
        if self.is_done() {
            return Step::Done;
        }
        if now < self.next_at {
            return Step::Wait(self.next_at);
        }
        if self.trying.1 >= ATTEMPTS {
            let (bytes, _) = self.trying;
            self.failed_silently = true;
            self.fail(bytes);
            return self.step(now);
        }
        self.trying.1 += 1;
        let at = self.sent.len() as u16;
        self.sent.push(self.trying.0);
        self.next_at = now + self.patience_ns;
        Step::Send {
            at,
            bytes: self.trying.0,
        }
    }

    fn is_done(&self) -> bool {
        self.given_up
            || self.sent.len() >= usize::from(PACKETS_MAX)
            || self
                .confirmed
                .is_some_and(|confirmed| confirmed + 1 >= self.failed)
    }

    /// A packet of the search was answered; `false` if there is no such packet.
    pub fn on_reply(&mut self, now: u64, at: u16) -> bool {
        let Some(&bytes) = self.sent.get(usize::from(at)) else {
            return false;
        };
        if self.confirmed.is_none_or(|confirmed| confirmed < bytes) {
            self.confirmed = Some(bytes);
            if bytes >= self.failed {
                self.failed = self.local.saturating_add(1);
            }
            self.choose(now);
        }
        true
    }

    /// A router said that a packet does not fit, and what would; `false` if there is no such packet.
    pub fn on_too_big(&mut self, now: u64, at: u16, fits: u32, from: IpAddr) -> bool {
        let Some(&bytes) = self.sent.get(usize::from(at)) else {
            return false;
        };
        let fits = u16::try_from(fits).unwrap_or(u16::MAX);
        if fits < bytes && self.hint.is_none_or(|hint| fits < hint.bytes) {
            self.hint = Some(Hint { bytes: fits, from });
        }
        if self.confirmed.is_none_or(|confirmed| confirmed < bytes) && bytes < self.failed {
            self.fail(bytes);
            self.next_at = self.next_at.min(now + PACE_NS);
        }
        true
    }

    /// This host cannot send so much.
    pub fn on_not_sent(&mut self, now: u64, at: u16) {
        if let Some(&bytes) = self.sent.get(usize::from(at)) {
            self.local = self.local.min(bytes.saturating_sub(1));
            self.fail(bytes);
            self.next_at = now;
        }
    }

    fn fail(&mut self, bytes: u16) {
        self.failed = self.failed.min(bytes);
        if self.confirmed.is_none() {
            // Not even the smallest packet is answered: nothing can be found out.
            self.given_up = true;
            return;
        }
        self.pick();
    }

    fn choose(&mut self, now: u64) {
        self.next_at = self.next_at.min(now + PACE_NS);
        self.pick();
    }

    /// The next size: all that the host lets out, first; then what a router said, and the size above it; then halves.
    fn pick(&mut self) {
        let (Some(confirmed), failed) = (self.confirmed, self.failed) else {
            return;
        };
        if confirmed + 1 >= failed {
            return;
        }
        let open = |bytes: &u16| (confirmed + 1..failed).contains(bytes);
        let hinted = self.hint.map(|hint| hint.bytes);
        let next = (failed > self.local)
            .then_some(self.local)
            .or_else(|| hinted.filter(open))
            .or_else(|| {
                hinted
                    .filter(|&bytes| bytes == confirmed)
                    .map(|bytes| bytes + 1)
            })
            .filter(open)
            .unwrap_or(confirmed + (failed - confirmed) / 2);
        self.trying = (next, 0);
    }

    /// What was found; `None` if not even the smallest packet was answered.
    #[must_use]
    pub fn finish(&self) -> Option<PathMtu> {
        Some(PathMtu {
            bytes: self.confirmed?,
            local: self.local,
            hinted: self.hint,
            black_hole: self.failed_silently && self.hint.is_none(),
            probes: self.sent.len() as u16,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RTT_NS: u64 = 10_000_000;

    fn router() -> IpAddr {
        [10, 0, 0, 1].into()
    }

    /// What a network does to a packet of a size.
    enum Fate {
        Answered,
        TooBig(u32),
        Nothing,
    }

    fn run(local: u16, network: &mut dyn FnMut(u16) -> Fate) -> (Option<PathMtu>, u64) {
        let mut search = Search::new(false, local, RTT_NS);
        let mut now = 0;
        loop {
            match search.step(now) {
                Step::Done => return (search.finish(), now),
                Step::Wait(until) => now = until,
                Step::Send { at, bytes } => {
                    assert!(bytes <= local);
                    now += RTT_NS;
                    match network(bytes) {
                        Fate::Answered => assert!(search.on_reply(now, at)),
                        Fate::TooBig(fits) => assert!(search.on_too_big(now, at, fits, router())),
                        Fate::Nothing => {}
                    }
                }
            }
        }
    }

    fn link(mtu: u16, says: bool) -> impl FnMut(u16) -> Fate {
        move |bytes| match (bytes <= mtu, says) {
            (true, _) => Fate::Answered,
            (false, true) => Fate::TooBig(mtu.into()),
            (false, false) => Fate::Nothing,
        }
    }

    #[test]
    fn a_path_without_a_narrow_link_takes_two_packets() {
        let (found, _) = run(1_500, &mut link(9_000, true));
        let found = found.unwrap();
        assert_eq!((found.bytes, found.local, found.probes), (1_500, 1_500, 2));
        assert!(!found.black_hole && found.hinted.is_none());
    }

    #[test]
    fn what_a_router_says_is_tried_and_the_size_above_it_too() {
        let (found, took) = run(1_500, &mut link(1_400, true));
        let found = found.unwrap();
        assert_eq!((found.bytes, found.probes), (1_400, 4));
        assert_eq!(found.hinted.unwrap().bytes, 1_400);
        assert!(!found.black_hole);
        assert!(took < 1_000_000_000, "{took}");
    }

    #[test]
    fn a_black_hole_is_found_and_measured() {
        let (found, took) = run(1_500, &mut link(1_400, false));
        let found = found.unwrap();
        assert_eq!(found.bytes, 1_400);
        assert!(found.black_hole && found.hinted.is_none());
        assert!(took < 8_000_000_000, "{took}");
    }

    #[test]
    fn a_router_that_lies_is_not_believed() {
        // It calls everything above 600 bytes too big and lets it pass all the same, or says what cannot be.
        let mut calls = 0;
        let (found, _) = run(1_500, &mut |bytes| {
            calls += 1;
            match (bytes, calls) {
                (..=1_450, 3..) => Fate::Answered,
                (601.., _) => Fate::TooBig(600),
                _ => Fate::Answered,
            }
        });
        assert_eq!(found.unwrap().bytes, 1_450);
        let (found, _) = run(1_500, &mut |bytes| match bytes {
            ..=1_400 => Fate::Answered,
            _ => Fate::TooBig(0),
        });
        assert_eq!(found.unwrap().bytes, 1_400);
    }

    #[test]
    fn where_no_echo_is_answered_nothing_is_said() {
        let (found, took) = run(1_500, &mut |_| Fate::Nothing);
        assert_eq!(found, None);
        assert!(took <= 500_000_000, "{took}");
    }

    #[test]
    fn what_this_host_cannot_send_bounds_the_search() {
        let mut search = Search::new(false, 1_500, RTT_NS);
        assert_eq!(search.step(0), Step::Send { at: 0, bytes: 576 });
        search.on_reply(1, 0);
        let Step::Send { at, bytes } = search.step(PACE_NS + 1) else {
            panic!("nothing to send")
        };
        assert_eq!(bytes, 1_500);
        search.on_not_sent(PACE_NS + 1, at);
        let Step::Send { bytes, .. } = search.step(PACE_NS + 1) else {
            panic!("nothing to send")
        };
        assert_eq!(bytes, 1_499);
    }

    proptest! {
        /// Whatever routers say, a search ends within its packets, and what it found was answered. With a link that
        /// tells the truth or nothing it finds its size exactly, also when some packets are lost.
        #[test]
        fn what_is_found_came_through(
            mtu in 576u16..9_000,
            local in 576u16..9_001,
            says in any::<bool>(),
            lies in prop::collection::vec(0u8..8, 64),
            hints in prop::collection::vec(any::<u16>(), 64),
        ) {
            let (found, _) = run(local, &mut link(mtu, says));
            prop_assert_eq!(found.unwrap().bytes, mtu.min(local));
            let (mut answered, mut at) = (Vec::new(), 0);
            let (found, _) = run(local, &mut |bytes| {
                at += 1;
                match lies[at % 64] {
                    0 => Fate::Nothing,
                    1 => Fate::TooBig(hints[at % 64].into()),
                    _ if bytes <= mtu => {
                        answered.push(bytes);
                        Fate::Answered
                    }
                    _ => Fate::Nothing,
                }
            });
            prop_assert!(at <= usize::from(PACKETS_MAX));
            prop_assert_eq!(found.map(|found| found.bytes), answered.iter().max().copied());
        }
    }
}
