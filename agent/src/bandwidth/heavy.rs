//! A heavy test: as much as goes through, for two seconds at most. [pure]
//!
//! As in RFC 9097: UDP at a rate that rises until something is lost or waits, by what the receiver tells every few
//! milliseconds. The receiver is a reflector that counts: each reply says how many requests had come and when the
//! answered one did, so that the replies of two moments tell exactly how much arrived between them.

use std::time::Duration;

use leeward_common::finding::bandwidth::Quantity;

/// How long a test loads the path.
pub const LASTS: Duration = Duration::from_secs(2);
/// The most that one may cost, bytes.
pub const BYTES_MAX: u64 = 125_000_000;
/// From one test to the next, whoever asks.
pub const APART: Duration = Duration::from_secs(60);
/// Without a word from the other side for this long a test ends (RFC 9097 section 8.2).
pub const SILENCE: Duration = Duration::from_millis(400);
/// Size of its packets, IP header and all.
pub const PACKET_BYTES: u32 = 1_400;

const RATE_FIRST: f64 = 10e6;
/// From one change of the rate to the next, at least.
const PERIOD_NS: u64 = 50_000_000;
/// The time over which what went through is counted.
const SPAN_NS: u64 = 200_000_000;
/// Waiting in queues for less than this is no reason to slow down, for more than the other one is (RFC 9097 table 1).
const WAIT_LOW_NS: u64 = 30_000_000;
const WAIT_HIGH_NS: u64 = 90_000_000;
/// Up to this share of lost packets is what a bad link loses at any rate, and no reason to slow down: a rate that fell with
/// each of those losses would end far below what the link carries. Ten packets of 50 ms, the limit of RFC 9097 table 1, are
/// the same share at 20 Mbit/s; at higher rates it would forbid any loss at all.
const LOST_MAX: f64 = 0.1;

/// What a reply told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Told {
    /// The how-manieth request is answered, from 0.
    pub request: u32,
    /// When it left, nanoseconds of the sender's clock.
    pub sent_ns: u64,
    /// When it came, nanoseconds of the receiver's clock.
    pub received_ns: u64,
    /// Requests that had come before it.
    pub count: u32,
}

/// The rate, and what the replies said so far.
#[derive(Clone, Debug)]
pub struct Load {
    bps: f64,
    most_bps: f64,
    /// Whether something was lost or waited once: from then on the rate rises slowly.
    was_full: bool,
    told: Vec<Told>,
    least_wait: Option<i64>,
    /// The moment of the last change by the receiver's clock, by the sender's, and the reply at that moment.
    changed: Option<(u64, u64, Told)>,
}

impl Load {
    /// A test that may use so many bits per second.
    #[must_use]
    pub fn new(most_bps: u64) -> Self {
        Self {
            bps: RATE_FIRST.min(most_bps as f64),
            most_bps: most_bps as f64,
            was_full: false,
            told: Vec::new(),
            least_wait: None,
            changed: None,
        }
    }

    /// Bits per second to send at now.
    #[must_use]
    pub const fn bps(&self) -> f64 {
        self.bps
    }

    /// A reply came at `now_ns`; the rate changes when enough is known since the last change.
    pub fn on_told(&mut self, now_ns: u64, told: Told) {
        let before = self.told.last();
        let goes_on = |last: &Told| {
            told.request > last.request
                && told.count > last.count
                && told.received_ns > last.received_ns
                && told.count - last.count <= told.request - last.request
        };
        if told.count > told.request || before.is_some_and(|last| !goes_on(last)) {
            return;
        }
        let wait = (told.received_ns as i64).wrapping_sub(told.sent_ns as i64);
        let least = self.least_wait.map_or(wait, |least| least.min(wait));
        self.least_wait = Some(least);
        self.told.push(told);
        let Some((received_ns, changed_ns, last)) = self.changed else {
            self.changed = Some((told.received_ns, now_ns, told));
            return;
        };
        // Only what left after the last change tells of the rate since.
        let span_ns = told.received_ns.saturating_sub(received_ns);
        if span_ns < PERIOD_NS || told.sent_ns < changed_ns {
            return;
        }
        let sent = told.request - last.request;
        let came = told.count - last.count;
        let came_bps = f64::from(came) * f64::from(PACKET_BYTES) * 8e9 / span_ns as f64;
        let waited_ns = wait.wrapping_sub(least).max(0) as u64;
        self.adapt(
            f64::from(sent - came) / f64::from(sent),
            waited_ns,
            came_bps,
        );
        self.changed = Some((told.received_ns, now_ns, told));
    }

    fn adapt(&mut self, lost: f64, waited_ns: u64, came_bps: f64) {
        let is_full = lost > LOST_MAX || waited_ns > WAIT_HIGH_NS;
        let factor = match (is_full, self.was_full) {
            (true, _) => (0.95 * came_bps / self.bps).clamp(0.5, 0.95),
            (false, _) if waited_ns > WAIT_LOW_NS => 1.0,
            (false, false) => 1.5,
            (false, true) => 1.05,
        };
        self.was_full |= is_full;
        self.bps = (self.bps * factor).clamp(1e6_f64.min(self.most_bps), self.most_bps);
    }

    /// What went through, of `bytes` spent; `None` if too little was told.
    #[must_use]
    pub fn goodput(&self, bytes: u64) -> Option<Quantity> {
        let spans = self.spans();
        let best = spans.iter().copied().fold(f64::NAN, f64::max);
        let later = &spans[spans.len() / 2..];
        let least = later.iter().copied().fold(f64::NAN, f64::min);
        if !best.is_finite() || !least.is_finite() {
            return None;
        }
        let doubt = match (self.was_full, self.bps >= self.most_bps) {
            (true, _) => None,
            (false, true) => Some("this agent may send no more: the path carries at least so much"),
            (false, false) => {
                Some("the test ended before the path was full: it carries at least so much")
            }
        };
        Some(Quantity {
            method: "UDP at a rising rate, most of 0.2 s (RFC 9097)".to_owned(),
            bps: best as u64,
            low_bps: least as u64,
            high_bps: best as u64,
            samples: u32::try_from(spans.len()).unwrap_or(u32::MAX),
            bytes,
            doubt: doubt.map(str::to_owned),
        })
    }

    /// Bits per second that arrived, span by span.
    fn spans(&self) -> Vec<f64> {
        let mut spans = Vec::new();
        let Some(mut from) = self.told.first() else {
            return spans;
        };
        for to in &self.told {
            let ns = to.received_ns - from.received_ns;
            if ns >= SPAN_NS {
                let bytes = u64::from(to.count - from.count) * u64::from(PACKET_BYTES);
                spans.push(bytes as f64 * 8e9 / ns as f64);
                from = to;
            }
        }
        spans
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Two seconds through a queue of 100 ms before a link of `bps`, `away_ns` away; a reply for every 16th packet or so.
    fn play(bps: f64, most_bps: u64, away_ns: u64) -> (Load, u64) {
        play_losing(bps, most_bps, away_ns, 0.0)
    }

    /// The same, where so many of the packets are lost whatever the rate, evenly spread.
    fn play_losing(bps: f64, most_bps: u64, away_ns: u64, loss: f64) -> (Load, u64) {
        let mut load = Load::new(most_bps);
        let (mut now, mut free, mut count, mut request) = (0u64, 0u64, 0u32, 0u32);
        let mut replies: std::collections::VecDeque<(u64, Told)> = Default::default();
        let packet_ns = (f64::from(PACKET_BYTES) * 8e9 / bps) as u64;
        while now < 2_000_000_000 {
            while replies.front().is_some_and(|(at, _)| *at <= now) {
                let (at, told) = replies.pop_front().unwrap();
                load.on_told(at, told);
            }
            let is_lost = (f64::from(request) * loss).fract() + loss >= 1.0;
            if !is_lost && free.saturating_sub(now) < 100_000_000 {
                free = free.max(now) + packet_ns;
                // Now and then, not in step with what the queue drops.
                if request.wrapping_mul(2_654_435_761) >> 28 == 0 {
                    let told = Told {
                        request,
                        sent_ns: now,
                        received_ns: free + away_ns,
                        count,
                    };
                    replies.push_back((free + 2 * away_ns, told));
                }
                count += 1;
            }
            request += 1;
            now += ((f64::from(PACKET_BYTES) * 8e9 / load.bps()) as u64).max(1);
        }
        let bytes = u64::from(request) * u64::from(PACKET_BYTES);
        (load, bytes)
    }

    #[test]
    fn what_goes_through_is_what_the_link_carries() {
        for bps in [5e6, 20e6, 100e6, 400e6, 800e6] {
            let (load, bytes) = play(bps, 1_000_000_000, 5_000_000);
            let goodput = load.goodput(bytes).unwrap();
            assert!(
                (goodput.bps as f64 / bps - 1.0).abs() < 0.1,
                "{bps}: {goodput:?}"
            );
            assert_eq!(goodput.doubt, None, "{bps}");
        }
    }

    #[test]
    fn a_link_that_loses_at_any_rate_still_shows_what_it_carries() {
        for (bps, loss) in [(5e6, 0.03), (20e6, 0.03), (20e6, 0.08), (400e6, 0.03)] {
            let (load, bytes) = play_losing(bps, 1_000_000_000, 5_000_000, loss);
            let goodput = load.goodput(bytes).unwrap();
            assert!(
                (goodput.bps as f64 / bps - 1.0).abs() < 0.1,
                "{bps}, loses {loss}: {goodput:?}"
            );
            assert_eq!(goodput.doubt, None, "{bps}, loses {loss}");
        }
    }

    #[test]
    fn a_path_that_was_not_filled_carries_at_least_what_was_seen() {
        let (load, bytes) = play(800e6, 50_000_000, 5_000_000);
        let goodput = load.goodput(bytes).unwrap();
        assert!(goodput.doubt.unwrap().contains("may send no more"));
        let (load, bytes) = play(900e6, 1_000_000_000, 150_000_000);
        let goodput = load.goodput(bytes).unwrap();
        assert!(goodput.doubt.unwrap().contains("ended before"));
    }

    proptest! {
        /// Whatever replies claim, the rate stays within what is allowed, and nothing panics.
        #[test]
        fn no_replies_drive_the_rate_beyond_what_is_allowed(
            most in 1u64..2_000_000_000,
            claims in prop::collection::vec((any::<u32>(), any::<u64>(), any::<u64>(), any::<u32>()), 0..200),
            steps in prop::collection::vec((1u32..100, 1u64..60_000_000, 0u32..100), 0..200),
        ) {
            let mut load = Load::new(most);
            for (n, (request, sent_ns, received_ns, count)) in claims.into_iter().enumerate() {
                load.on_told(n as u64, Told { request, sent_ns, received_ns, count });
                prop_assert!(load.bps() <= most as f64);
            }
            let mut load = Load::new(most);
            let mut told = Told { request: 0, sent_ns: 0, received_ns: 0, count: 0 };
            for (request, ns, count) in steps {
                told = Told {
                    request: told.request + request,
                    sent_ns: told.sent_ns + ns,
                    received_ns: told.received_ns + ns,
                    count: told.count + count,
                };
                load.on_told(told.sent_ns, told);
                prop_assert!(load.bps() <= most as f64 && load.bps() >= 1e6_f64.min(most as f64));
            }
            let _ = load.goodput(1);
        }
    }
}
