//! The estimators against a link that is known: one FIFO queue, others' packets, jitter, and a card that gathers.

use proptest::prelude::*;

use super::*;
use crate::bandwidth::train::{self, Passage};

/// What else uses the link.
#[derive(Clone, Copy, Debug)]
enum Cross {
    Even,
    Poisson,
}

/// A link that is known.
#[derive(Clone, Copy, Debug)]
struct Link {
    bps: f64,
    /// The share of it that others take.
    busy: f64,
    cross: Cross,
    cross_bytes: f64,
    /// Uniform, in the order of packets, seconds.
    jitter_s: f64,
    /// The receiving card tells of packets this often only, seconds; 0: at once.
    gathers_s: f64,
    /// As fast as the sending host is.
    host_bps: f64,
}

const PLAIN: Link = Link {
    bps: 100e6,
    busy: 0.0,
    cross: Cross::Even,
    cross_bytes: 1_000.0,
    jitter_s: 0.0,
    gathers_s: 0.0,
    host_bps: 3e9,
};

struct World {
    link: Link,
    now_s: f64,
    free_s: f64,
    next_cross_s: f64,
    random: u64,
}

impl World {
    fn new(link: Link, seed: u64) -> Self {
        let mut world = Self {
            link,
            now_s: 1.0,
            free_s: 0.0,
            next_cross_s: 0.0,
            random: seed,
        };
        world.next_cross_s = 0.9 + world.draw() * 0.01;
        world
    }

    fn draw(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn serve(&mut self, at_s: f64, bytes: f64) -> f64 {
        self.free_s = self.free_s.max(at_s) + bytes * 8.0 / self.link.bps;
        self.free_s
    }

    /// Others' packets up to a moment.
    fn others(&mut self, until_s: f64) {
        let rate = self.link.busy * self.link.bps;
        if rate == 0.0 {
            return;
        }
        let mean = self.link.cross_bytes * 8.0 / rate;
        while self.next_cross_s <= until_s {
            self.serve(self.next_cross_s, self.link.cross_bytes);
            self.next_cross_s += match self.link.cross {
                Cross::Even => mean,
                Cross::Poisson => -mean * (1.0 - self.draw()).ln(),
            };
        }
    }

    fn pass(&mut self, train: &Train) -> Result<Span, Spoiled> {
        let host_gap = f64::from(train.bytes) * 8.0 / self.link.host_bps;
        let gap = train
            .gap
            .map_or(host_gap, |gap| gap.as_secs_f64().max(host_gap));
        let mut latest = 0.0f64;
        let mut passages = Vec::new();
        for n in 0..train.packets {
            let sent_s = self.now_s + gap * f64::from(n);
            self.others(sent_s);
            let out_s = self.serve(sent_s, f64::from(train.bytes)) + 0.02;
            latest = latest.max(out_s + self.draw() * self.link.jitter_s);
            let seen_s = match self.link.gathers_s {
                0.0 => latest,
                // Stamped one after another when the card tells of them.
                step => (latest / step).ceil() * step + f64::from(n) * 3e-7,
            };
            passages.push(Passage {
                sent_ns: (sent_s * 1e9) as u64,
                received_ns: (seen_s * 1e9) as u64,
            });
        }
        self.now_s += gap * f64::from(train.packets);
        let sent = train.packets as usize;
        train::read(train.bytes, sent, train.gap.is_some(), &passages)
    }
}

fn survey(link: Link, seed: u64) -> (Outcome, u64) {
    let mut world = World::new(link, seed);
    let mut survey = Survey::new(72);
    while let Some(train) = survey.next() {
        let read = world.pass(&train);
        survey.on_train(&train, read);
        let draw = world.draw();
        world.now_s = world.now_s.max(world.free_s) + survey.rest(&train, draw).as_secs_f64();
    }
    (survey.conclude(), survey.spent())
}

fn error(quantity: &Quantity, truth: f64) -> f64 {
    (quantity.bps as f64 / truth - 1.0).abs()
}

/// Both quantities lie within 15 %, or say that they are not to be trusted.
fn judge(link: Link, seed: u64) -> Result<(bool, bool), String> {
    let (outcome, spent) = survey(link, seed);
    if spent > BYTES_MAX {
        return Err(format!("{spent} bytes"));
    }
    let mut trusted = [false; 2];
    let both = [
        (&outcome.capacity_upper, link.bps),
        (&outcome.available_est, link.bps * (1.0 - link.busy)),
    ];
    for (place, (quantity, truth)) in trusted.iter_mut().zip(both) {
        let Some(quantity) = quantity else { continue };
        if !(quantity.low_bps..=quantity.high_bps).contains(&quantity.bps) {
            return Err(format!("{quantity:?}"));
        }
        *place = quantity.doubt.is_none();
        if *place && error(quantity, truth) > 0.15 {
            return Err(format!("{truth} is told as {outcome:?}"));
        }
    }
    Ok((trusted[0], trusted[1]))
}

#[test]
fn a_plain_link_of_any_rate_is_measured_within_the_figure_and_trusted() {
    for bps in [5e6, 20e6, 100e6, 400e6, 900e6] {
        for busy in [0.0, 0.25, 0.5, 0.75] {
            let link = Link { bps, busy, ..PLAIN };
            let judged = judge(link, 7);
            assert_eq!(judged, Ok((true, true)), "{link:?}: {:?}", survey(link, 7));
        }
    }
}

#[test]
fn others_that_come_at_random_are_measured_within_the_figure_or_the_doubt_is_told() {
    let (mut wrong, mut held, mut trusted, mut all) = (Vec::new(), 0, 0, 0);
    for bps in [5e6, 20e6, 100e6, 400e6] {
        for busy in [0.1, 0.3, 0.5, 0.7] {
            for seed in 0..25 {
                let link = Link {
                    bps,
                    busy,
                    cross: Cross::Poisson,
                    jitter_s: 20e-6,
                    ..PLAIN
                };
                all += 1;
                let (outcome, _) = survey(link, seed);
                let available = outcome.available_est.unwrap();
                if available.doubt.is_some() {
                    continue;
                }
                trusted += 1;
                let truth = bps * (1.0 - busy);
                let range = available.low_bps as f64..=available.high_bps as f64;
                held += u32::from(range.contains(&truth));
                if error(&available, truth) > 0.15
                    || error(&outcome.capacity_upper.unwrap(), bps) > 0.15
                {
                    wrong.push((link, seed, available));
                }
            }
        }
    }
    eprintln!(
        "{trusted} of {all} trusted, {held} intervals hold the truth, {} wrong",
        wrong.len()
    );
    assert!(trusted * 2 > all, "{trusted} of {all}");
    assert!(wrong.len() * 50 <= trusted, "{wrong:?}");
    assert!(held * 100 >= trusted as u32 * 85, "{held} of {trusted}");
}

#[test]
fn a_host_that_is_no_faster_than_the_link_says_at_least() {
    let link = Link {
        bps: 900e6,
        host_bps: 800e6,
        ..PLAIN
    };
    let (outcome, _) = survey(link, 1);
    let doubt = outcome.capacity_upper.unwrap().doubt.unwrap();
    assert!(doubt.contains("at least"), "{doubt}");
}

#[test]
fn above_a_gigabit_nothing_is_trusted() {
    let link = Link {
        bps: 2.5e9,
        host_bps: 20e9,
        ..PLAIN
    };
    let (outcome, _) = survey(link, 1);
    let doubt = outcome.capacity_upper.unwrap().doubt.unwrap();
    assert!(doubt.contains("above 1 Gbit/s"), "{doubt}");
}

#[test]
fn a_card_that_gathers_for_longer_than_a_train_lasts_makes_it_say_so() {
    let link = Link {
        bps: 500e6,
        gathers_s: 2e-3,
        ..PLAIN
    };
    let (outcome, _) = survey(link, 3);
    assert_eq!(outcome.capacity_upper, None);
    assert!(outcome.note.contains("gathers packets"), "{}", outcome.note);
}

#[test]
fn a_path_that_answers_nothing_costs_three_trains() {
    let mut survey = Survey::new(72);
    let mut sent = 0;
    while let Some(train) = survey.next() {
        survey.on_train(&train, Err(Spoiled::Unanswered));
        sent += 1;
    }
    assert_eq!(sent, 3);
    assert!(survey.spent() < 40_000);
    assert!(survey.conclude().note.contains("not answered"));
}

#[test]
fn a_busier_link_behind_the_narrowest_one_is_noticed() {
    // 100 Mbit/s and idle, then 200 Mbit/s of which others take 160: 40 are free, and gaps tell nothing of that kind.
    let mut survey = Survey::new(72);
    let mut first = World::new(PLAIN, 1);
    let mut second = World::new(
        Link {
            bps: 200e6,
            busy: 0.8,
            ..PLAIN
        },
        2,
    );
    while let Some(train) = survey.next() {
        let gap = train.gap.map_or(4e-6, |gap| gap.as_secs_f64());
        let mut passages = Vec::new();
        for n in 0..train.packets {
            let sent_s = first.now_s + gap * f64::from(n);
            let between_s = first.serve(sent_s, f64::from(train.bytes));
            second.others(between_s);
            let out_s = second.serve(between_s, f64::from(train.bytes));
            passages.push(Passage {
                sent_ns: (sent_s * 1e9) as u64,
                received_ns: (out_s * 1e9) as u64,
            });
        }
        let read = train::read(
            train.bytes,
            train.packets as usize,
            train.gap.is_some(),
            &passages,
        );
        survey.on_train(&train, read);
        first.now_s = second.free_s.max(first.now_s) + 0.3;
    }
    let available = survey.conclude().available_est.unwrap();
    let is_right = (34_000_000..46_000_000).contains(&available.bps);
    assert!(is_right || available.doubt.is_some(), "{available:?}");
}

proptest! {
    /// Whatever the link, its others, its jitter and its receiver's card: within 15 %, or not trusted, and never for more
    /// than an estimate may cost.
    #[test]
    fn an_estimate_is_right_or_says_that_it_may_not_be(
        mbit in 1u32..900,
        busy in 0u32..90,
        cross_bytes in 64u32..1_500,
        jitter_us in prop::option::of(0u32..3_000),
        gathers_us in prop::option::of(1u32..3_000),
        host_mbit in 200u32..4_000,
        seed in any::<u64>(),
    ) {
        let link = Link {
            bps: f64::from(mbit) * 1e6,
            busy: f64::from(busy) / 100.0,
            cross: Cross::Even,
            cross_bytes: f64::from(cross_bytes),
            jitter_s: f64::from(jitter_us.unwrap_or(0)) * 1e-6,
            gathers_s: f64::from(gathers_us.unwrap_or(0)) * 1e-6,
            host_bps: f64::from(host_mbit) * 1e6,
        };
        let judged = judge(link, seed);
        prop_assert!(judged.is_ok(), "{:?}: {}", link, judged.unwrap_err());
    }
}
