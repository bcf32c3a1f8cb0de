//! One directed link: packets go in now and come out when the emulated path delivers them. [pure]
//!
//! A thin type over the impairment model of `str0m-netem`, which behaves as follows and where we differ:
//!
//! - Jitter is uniform in ±`jitter` around the delay, and packets leave in the order they came: a packet that drew
//!   little waits for one before it that drew much, as in a queue. Reordering is therefore ours: a packet chosen for
//!   it enters the model [`Impairment::reorder_by`] later than it came, so later packets overtake it. (The model's
//!   own reordering delivers early instead, with less than the path's delay.)
//! - A rate delays each packet until the ones before it are sent. The model's buffer counts the bytes in flight too;
//!   ours is [`QUEUE`] at the link's rate on top of what the delay keeps in flight.
//! - A change of the model restarts its random numbers. Each change gets a seed of its own, derived from the link's
//!   seed, so a link never repeats itself and the same scenario draws the same numbers.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use str0m_netem::{Bitrate, DataSize, Input, Netem, NetemConfig, Output, Probability, RandomLoss};

/// How long a packet may wait for the link's rate before it is dropped: a router's usual depth, one long round trip.
pub const QUEUE: Duration = Duration::from_millis(100);

/// What a link does to packets. The default does nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Impairment {
    /// One-way delay.
    pub delay: Duration,
    /// The delay varies uniformly by up to this, both ways.
    pub jitter: Duration,
    /// Share of packets dropped, 0..=1, independently.
    pub loss: f64,
    /// Bits per second; `None` is without limit.
    pub rate_bps: Option<u64>,
    /// Share of packets that come out twice, 0..=1, independently.
    pub duplicate: f64,
    /// Share of packets held back, 0..=1, independently.
    pub reorder: f64,
    /// How much longer a packet that is held back takes.
    pub reorder_by: Duration,
}

impl Impairment {
    fn model(&self, seed: u64) -> NetemConfig {
        let model = NetemConfig::new()
            .latency(self.delay)
            .jitter(self.jitter)
            .seed(seed);
        let model = model.loss(RandomLoss::new(Probability::new(self.loss as f32)));
        let model = model.duplicate(Probability::new(self.duplicate as f32));
        let Some(rate) = self.rate_bps else {
            return model;
        };
        let held = (self.delay + self.jitter + QUEUE).as_secs_f64() * rate as f64 / 8.0;
        // Never less than a few full packets, or a slow link would pass none.
        model.link(
            Bitrate::bps(rate),
            DataSize::bytes((held as i64).max(8 * 1500)),
        )
    }
}

/// A packet on its way.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Packet {
    /// The receiving host.
    pub to: usize,
    /// The IP packet.
    pub bytes: Vec<u8>,
}

impl AsRef<[u8]> for Packet {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// What became of a packet that entered a link.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fate {
    /// It will come out.
    OnItsWay,
    /// It is lost.
    Dropped,
}

/// A directed link.
pub struct Link {
    model: Netem<Packet>,
    impairment: Impairment,
    /// Packets held back, by when they enter the model and in which order they came.
    held: BTreeMap<(Instant, u64), Packet>,
    held_ever: u64,
    last_departure: Option<Instant>,
    seed: Seed,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link")
            .field("impairment", &self.impairment)
            .finish_non_exhaustive()
    }
}

impl Link {
    /// A link that draws its random numbers from `seed`.
    #[must_use]
    pub fn new(impairment: Impairment, seed: u64) -> Self {
        let mut seed = Seed(seed);
        let model = Netem::new(impairment.model(seed.next()));
        Self {
            model,
            impairment,
            held: BTreeMap::new(),
            held_ever: 0,
            last_departure: None,
            seed,
        }
    }

    /// Changes what the link does. Packets on their way arrive as they would have.
    pub fn set(&mut self, impairment: Impairment) {
        if self.impairment != impairment {
            self.impairment = impairment;
            self.model.set_config(impairment.model(self.seed.next()));
        }
    }

    /// A packet enters at `now`.
    pub fn enter(&mut self, now: Instant, packet: Packet) -> Fate {
        if self.impairment.reorder > 0.0 && self.seed.unit() < self.impairment.reorder {
            self.held_ever += 1;
            self.held
                .insert((now + self.impairment.reorder_by, self.held_ever), packet);
            return Fate::OnItsWay;
        }
        self.submit(now, packet)
    }

    fn submit(&mut self, now: Instant, packet: Packet) -> Fate {
        let waiting = self.model.queue_len();
        self.model.handle_input(Input::Packet(now, packet));
        if self.model.queue_len() > waiting {
            Fate::OnItsWay
        } else {
            Fate::Dropped
        }
    }

    /// When [`Link::leave`] next has something to do.
    #[must_use]
    pub fn next_departure(&self) -> Option<Instant> {
        let queued = (!self.model.is_empty()).then(|| self.model.poll_timeout());
        let held = self.held.first_key_value().map(|(&(due, _), _)| due);
        queued.into_iter().chain(held).min()
    }

    /// Takes one packet that is due at `now`, with the instant at which it should have left.
    pub fn leave(&mut self, now: Instant) -> Option<(Instant, Packet)> {
        while let Some(entry) = self.held.first_entry()
            && entry.key().0 <= now
        {
            let ((due, _), packet) = entry.remove_entry();
            self.submit(due, packet);
        }
        if self.model.is_empty() || self.model.poll_timeout() > now {
            return None;
        }
        let drawn = self.model.poll_timeout();
        // A packet never overtakes the one before it, so it is due no sooner.
        let due = self.last_departure.map_or(drawn, |last| last.max(drawn));
        self.model.handle_input(Input::Timeout(now));
        let Some(Output::Packet(packet)) = self.model.poll_output() else {
            return None;
        };
        self.last_departure = Some(due);
        Some((due, packet))
    }
}

/// A stream of seeds and of numbers in 0..1 (`SplitMix64`): enough for choosing, and the same on every machine.
#[derive(Clone, Copy, Debug)]
struct Seed(u64);

impl Seed {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn packet(id: u8) -> Packet {
        Packet {
            to: 0,
            bytes: vec![id; 100],
        }
    }

    /// Sends `count` packets `gap` apart and returns (sent, due, first byte) of those that came out, in order.
    fn play(link: &mut Link, count: u32, gap: Duration) -> Vec<(Duration, Duration, u8)> {
        let start = Instant::now();
        let mut out = Vec::new();
        let mut drain = |link: &mut Link, until: Instant| {
            while let Some(next) = link.next_departure().filter(|next| *next <= until) {
                while let Some((due, packet)) = link.leave(next) {
                    out.push((due - start, packet.bytes[0]));
                }
            }
        };
        for n in 0..count {
            let now = start + gap * n;
            drain(link, now);
            link.enter(now, packet((n % 256) as u8));
        }
        drain(link, start + gap * count + Duration::from_secs(60));
        out.iter()
            .map(|&(due, id)| (gap * u32::from(id), due, id))
            .collect()
    }

    #[test]
    fn a_plain_link_delays_every_packet_alike() {
        let mut link = Link::new(
            Impairment {
                delay: 40 * MS,
                ..Impairment::default()
            },
            1,
        );
        let out = play(&mut link, 200, 10 * MS);
        assert_eq!(out.len(), 200);
        assert!(out.iter().all(|(sent, due, _)| *due - *sent == 40 * MS));
    }

    #[test]
    fn jitter_stays_within_its_bounds_and_keeps_the_order() {
        let impairment = Impairment {
            delay: 40 * MS,
            jitter: 5 * MS,
            ..Impairment::default()
        };
        let out = play(&mut Link::new(impairment, 1), 250, MS);
        assert!(
            out.iter()
                .all(|(sent, due, _)| (35 * MS..=45 * MS).contains(&(*due - *sent)))
        );
        assert!(out.is_sorted_by_key(|(_, _, id)| *id) && out.is_sorted_by_key(|(_, due, _)| *due));
        let spread = |(sent, due, _): &(Duration, Duration, u8)| *due - *sent;
        let least = out.iter().map(spread).min().unwrap();
        let most = out.iter().map(spread).max().unwrap();
        assert!(most - least > 6 * MS, "{least:?} to {most:?}");
    }

    #[test]
    fn loss_is_as_asked() {
        let impairment = Impairment {
            loss: 0.08,
            ..Impairment::default()
        };
        let out = play(&mut Link::new(impairment, 7), 20_000, MS);
        let lost = 1.0 - out.len() as f64 / 20_000.0;
        assert!((0.072..0.088).contains(&lost), "{lost}");
    }

    #[test]
    fn a_rate_spaces_packets_out_and_drops_what_exceeds_the_queue() {
        // 100 bytes at 800 kbit/s take 1 ms; the queue holds 100 ms and what the delay keeps in flight.
        let delay = 20 * MS;
        let impairment = Impairment {
            delay,
            rate_bps: Some(800_000),
            ..Impairment::default()
        };
        let out = play(&mut Link::new(impairment, 1), 250, Duration::ZERO);
        assert!((115..=125).contains(&out.len()), "{}", out.len());
        for pair in out.windows(2) {
            assert_eq!(pair[1].1 - pair[0].1, MS);
        }
    }

    #[test]
    fn a_long_fast_link_does_not_drop_what_is_in_flight() {
        let impairment = Impairment {
            delay: 80 * MS,
            rate_bps: Some(8_000_000),
            ..Impairment::default()
        };
        assert_eq!(play(&mut Link::new(impairment, 1), 250, MS).len(), 250);
    }

    #[test]
    fn reordered_packets_are_overtaken_and_never_early() {
        let impairment = Impairment {
            delay: 20 * MS,
            reorder: 0.1,
            reorder_by: 5 * MS,
            ..Impairment::default()
        };
        let out = play(&mut Link::new(impairment, 3), 250, MS);
        assert_eq!(out.len(), 250);
        assert!(out.iter().all(|(sent, due, _)| *due - *sent >= 20 * MS));
        let overtaken = out.windows(2).filter(|pair| pair[0].2 > pair[1].2).count();
        assert!((10..45).contains(&overtaken), "{overtaken}");
    }

    #[test]
    fn the_same_seed_loses_the_same_packets_and_a_change_draws_new_ones() {
        let impairment = Impairment {
            loss: 0.3,
            ..Impairment::default()
        };
        let survivors = |link: &mut Link| -> Vec<u8> {
            play(link, 200, MS)
                .into_iter()
                .map(|(_, _, id)| id)
                .collect()
        };
        let (mut one, mut two) = (Link::new(impairment, 9), Link::new(impairment, 9));
        let first = survivors(&mut one);
        assert_eq!(first, survivors(&mut two));
        one.set(Impairment::default());
        one.set(impairment);
        assert_ne!(first, survivors(&mut one));
    }

    #[test]
    fn packets_on_their_way_survive_a_change() {
        let mut link = Link::new(
            Impairment {
                delay: 40 * MS,
                ..Impairment::default()
            },
            1,
        );
        let now = Instant::now();
        link.enter(now, packet(1));
        link.set(Impairment {
            loss: 1.0,
            ..Impairment::default()
        });
        assert_eq!(link.enter(now + MS, packet(2)), Fate::Dropped);
        assert_eq!(link.leave(now + 40 * MS), Some((now + 40 * MS, packet(1))));
    }
}
