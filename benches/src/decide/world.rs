//! The noisy trace: five regions seen from five vantage points, second by second.
//!
//! What happens to a *region* is real and should move a selection that stands there:
//!
//! | event | per day and region | mean length | what it does |
//! |---|---|---|---|
//! | hard outage | 0.5 | 600 s | everything is lost |
//! | grey loss | 0.7 | 1200 s | 8 % is lost |
//! | path shift | 1.0 | 2400 s | +60 ms |
//!
//! What happens to one *path* is not, and must not: a vantage point loses 90 % of its probes to one region for 1 to 8
//! seconds, 30 times a day for each region and vantage point. On top of either lie a daily swing, slow jitter (AR(1))
//! that each path has for itself, and a heavy tail of 1 % of the probes.
//!
//! [`Variant`] makes it harder: vantage points that share a carrier are hit together, or observers are cut off.

use super::noise::Noise;

/// Regions.
pub const REGIONS: usize = 5;
/// Vantage points.
pub const VANTAGES: usize = 5;
/// Probes of a vantage point to a region in a second.
pub const PROBES: usize = 10;
/// Seconds of a day.
pub const DAY: u64 = 86_400;

/// What a region is worth by itself.
pub const BASELINE: [f64; REGIONS] = [1.0, 0.95, 0.9, 0.85, 0.8];
/// Round-trip time of a region without noise or events, milliseconds.
pub const RTT_MS: [f64; REGIONS] = [22.0, 28.25, 34.5, 40.75, 47.0];

/// Loss of a grey spell.
const GREY_LOSS: f64 = 0.08;
/// What a path shift adds, milliseconds.
const SHIFT_MS: f64 = 60.0;
/// Loss of a blip.
const BLIP_LOSS: f64 = 0.9;
/// Share of the probes in the tail, of 65536: 1 %.
const TAIL: u16 = 655;

/// Which trace.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Variant {
    /// As the published study has it: every path's noise is its own.
    Independent,
    /// Vantage points 0 and 1, 2 and 3, and 4 share a carrier each: half of the jitter is the region's own and common
    /// to all, and every carrier has 10 blips a day to each region that hit all its vantage points at once.
    Correlated,
    /// Observers are cut off: one alone six times a day, three at once and all at once twice a day each, for 10 to 300
    /// seconds. In half of these their reports of total loss arrive, in the other half nothing does.
    Partitioned,
}

impl Variant {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Independent, Self::Correlated, Self::Partitioned];

    /// Its name in figures.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Independent => "independent",
            Self::Correlated => "correlated",
            Self::Partitioned => "partitioned",
        }
    }
}

/// How noisy paths are.
#[derive(Clone, Copy, Debug)]
pub struct Jitter {
    /// Deviation of a path's slow jitter, milliseconds.
    pub slow_ms: f64,
    /// How much of it is left a second later, 0..1.
    pub slow_memory: f64,
    /// Deviation of one probe, milliseconds.
    pub probe_ms: f64,
    /// Mean of what a probe of the tail takes longer, milliseconds.
    pub tail_ms: f64,
    /// Daily swing of the round-trip time, as a share of it.
    pub daily: f64,
}

/// What makes the peers' published figures come out about as published.
pub const JITTER: Jitter = Jitter {
    slow_ms: 3.0,
    slow_memory: 0.95,
    probe_ms: 0.6,
    tail_ms: 90.0,
    daily: 0.15,
};

/// What a real event is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Everything is lost.
    Hard,
    /// Some is lost.
    Grey,
    /// Everything takes longer.
    Shift,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Hard, Self::Grey, Self::Shift];

    const fn per_day(self) -> f64 {
        match self {
            Self::Hard => 0.5,
            Self::Grey => 0.7,
            Self::Shift => 1.0,
        }
    }

    const fn mean_s(self) -> f64 {
        match self {
            Self::Hard => 600.0,
            Self::Grey => 1200.0,
            Self::Shift => 2400.0,
        }
    }
}

/// What is true of a region in a second.
#[derive(Clone, Copy, Debug, Default)]
pub struct Truth {
    /// Milliseconds.
    pub rtt_ms: f64,
    /// 0..=1.
    pub loss: f64,
    /// The number of the event under way, by [`Kind`].
    pub events: [Option<u32>; 3],
}

impl Truth {
    /// Baseline times live quality.
    #[must_use]
    pub fn weight(&self, region: usize) -> f64 {
        weight(region, self.rtt_ms, self.loss)
    }

    /// Whether anything real is wrong with the region.
    #[must_use]
    pub fn is_troubled(&self) -> bool {
        self.events.iter().any(Option::is_some)
    }
}

/// What a region is worth at this round-trip time and loss: its baseline times
/// `1 / (1 + (rtt / 60 ms)^2) * (1 - loss)^8`.
#[must_use]
pub fn weight(region: usize, rtt_ms: f64, loss: f64) -> f64 {
    let near = 1.0 / (1.0 + (rtt_ms / 60.0).powi(2));
    BASELINE[region] * near * (1.0 - loss).powi(8)
}

/// What a vantage point saw of a region in a second.
#[derive(Clone, Copy, Debug, Default)]
pub struct Window {
    rtt_us: [u32; PROBES],
    answered: u8,
    sum_us: u32,
}

impl Window {
    /// Round-trip times of the probes that were answered, microseconds.
    #[must_use]
    pub fn rtt_us(&self) -> &[u32] {
        &self.rtt_us[..usize::from(self.answered)]
    }

    /// Share of the probes that were not, 0..=1.
    #[must_use]
    pub fn loss(&self) -> f64 {
        1.0 - f64::from(self.answered) / PROBES as f64
    }

    /// Mean round-trip time, milliseconds; `None` without an answer.
    #[must_use]
    pub fn rtt_ms(&self) -> Option<f64> {
        (self.answered > 0).then(|| f64::from(self.sum_us) / f64::from(self.answered) / 1_000.0)
    }

    fn record(&mut self, rtt_us: u32) {
        self.rtt_us[usize::from(self.answered)] = rtt_us;
        self.answered += 1;
        self.sum_us += rtt_us;
    }
}

/// One second.
#[derive(Clone, Debug)]
pub struct Second {
    /// Which, from 0. Its windows are known when it has passed.
    pub number: u64,
    /// By region.
    pub truth: [Truth; REGIONS],
    /// By vantage point, then region.
    pub seen: [[Window; REGIONS]; VANTAGES],
    /// Whether a vantage point's report arrives. A health checker that shares its fate sees total loss instead.
    pub heard: [bool; VANTAGES],
}

/// The trace.
#[derive(Debug)]
pub struct World {
    jitter: Jitter,
    variant: Variant,
    events: [[Spells; 3]; REGIONS],
    regions: [Slow; REGIONS],
    paths: Vec<Path>,
    carriers: Vec<[Spells; REGIONS]>,
    partitions: Vec<Partition>,
    phase: [f64; REGIONS],
    second: Second,
}

impl World {
    /// The trace of a seed.
    #[must_use]
    pub fn new(seed: u64, variant: Variant, jitter: Jitter) -> Self {
        let mut streams = 0..;
        let mut noise = || Noise::new(seed, streams.next().expect("endless"));
        let events = std::array::from_fn(|_| {
            Kind::ALL.map(|kind| Spells::new(noise(), kind.per_day(), Length::Mean(kind.mean_s())))
        });
        let mut phases = noise();
        let phase = std::array::from_fn(|_| phases.even() * std::f64::consts::TAU);
        let paths = (0..VANTAGES * REGIONS)
            .map(|_| Path {
                slow: Slow::default(),
                noise: noise(),
                blips: Spells::new(noise(), 30.0, Length::Between(1.0, 8.0)),
            })
            .collect();
        let carriers = (0..3)
            .map(|_| std::array::from_fn(|_| Spells::new(noise(), 10.0, Length::Between(1.0, 8.0))))
            .collect();
        let partitions = [(6.0, 1), (2.0, 3), (2.0, VANTAGES)]
            .map(|(per_day, observers)| Partition::new(noise(), noise(), per_day, observers))
            .into();
        Self {
            jitter,
            variant,
            events,
            regions: Default::default(),
            paths,
            carriers,
            partitions,
            phase,
            second: Second {
                number: 0,
                truth: Default::default(),
                seen: Default::default(),
                heard: [true; VANTAGES],
            },
        }
    }

    /// The next second.
    pub fn second(&mut self, number: u64) -> &Second {
        self.second.number = number;
        for region in 0..REGIONS {
            self.second.truth[region] = self.truth(number, region);
        }
        let common: [f64; REGIONS] = std::array::from_fn(|region| {
            let noise = &mut self.paths[region].noise;
            self.regions[region].step(noise, self.jitter.slow_memory)
        });
        let carriers: [[bool; REGIONS]; 3] = std::array::from_fn(|carrier| {
            std::array::from_fn(|region| self.carriers[carrier][region].at(number).is_some())
        });
        for vantage in 0..VANTAGES {
            for region in 0..REGIONS {
                let path = &mut self.paths[vantage * REGIONS + region];
                let own = path.slow.step(&mut path.noise, self.jitter.slow_memory);
                let mut blip = path.blips.at(number).is_some();
                let mut slow = own;
                if self.variant == Variant::Correlated {
                    slow = (own + common[region]) * std::f64::consts::FRAC_1_SQRT_2;
                    blip |= carriers[vantage / 2][region];
                }
                let truth = &self.second.truth[region];
                let loss = if blip {
                    1.0 - (1.0 - truth.loss) * (1.0 - BLIP_LOSS)
                } else {
                    truth.loss
                };
                let level_ms = truth.rtt_ms + slow * self.jitter.slow_ms;
                self.second.seen[vantage][region] = path.window(&self.jitter, level_ms, loss);
            }
        }
        self.cut_off(number);
        &self.second
    }

    fn truth(&mut self, number: u64, region: usize) -> Truth {
        let angle = number as f64 / DAY as f64 * std::f64::consts::TAU + self.phase[region];
        let mut truth = Truth {
            rtt_ms: RTT_MS[region] * (1.0 + self.jitter.daily * angle.sin()),
            ..Truth::default()
        };
        for (kind, spells) in Kind::ALL.into_iter().zip(&mut self.events[region]) {
            let event = spells.at(number);
            truth.events[kind as usize] = event;
            if event.is_none() {
                continue;
            }
            match kind {
                Kind::Hard => truth.loss = 1.0,
                Kind::Grey => truth.loss = truth.loss.max(GREY_LOSS),
                Kind::Shift => truth.rtt_ms += SHIFT_MS,
            }
        }
        truth
    }

    fn cut_off(&mut self, number: u64) {
        self.second.heard = [true; VANTAGES];
        if self.variant != Variant::Partitioned {
            return;
        }
        for partition in &mut self.partitions {
            let Some((observers, heard)) = partition.at(number) else {
                continue;
            };
            for vantage in observers {
                self.second.seen[vantage] = Default::default();
                self.second.heard[vantage] &= heard;
            }
        }
    }
}

/// Jitter that is slow to change: AR(1) with deviation 1.
#[derive(Clone, Copy, Debug, Default)]
struct Slow(f64);

impl Slow {
    fn step(&mut self, noise: &mut Noise, memory: f64) -> f64 {
        self.0 = memory * self.0 + (1.0 - memory * memory).sqrt() * noise.bell();
        self.0
    }
}

/// From one vantage point to one region.
#[derive(Debug)]
struct Path {
    slow: Slow,
    noise: Noise,
    blips: Spells,
}

impl Path {
    fn window(&mut self, jitter: &Jitter, level_ms: f64, loss: f64) -> Window {
        let mut window = Window::default();
        if loss >= 1.0 {
            return window;
        }
        let mut tails = [0; 4];
        for probe in 0..PROBES {
            if probe % 4 == 0 {
                tails = self.noise.quarters();
            }
            if loss > 0.0 && self.noise.even() < loss {
                continue;
            }
            let mut rtt_ms = level_ms + jitter.probe_ms * self.noise.bell();
            if tails[probe % 4] < TAIL {
                rtt_ms += self.noise.exponential(jitter.tail_ms);
            }
            window.record((rtt_ms.max(0.5) * 1_000.0) as u32);
        }
        window
    }
}

/// How long a spell lasts, seconds.
#[derive(Clone, Copy, Debug)]
enum Length {
    /// Exponentially spread about this.
    Mean(f64),
    /// Evenly spread between these.
    Between(f64, f64),
}

/// Spells of something: they come at random, last for a while and do not overlap.
#[derive(Debug)]
struct Spells {
    noise: Noise,
    mean_gap_s: f64,
    length: Length,
    begin: u64,
    end: u64,
    number: u32,
}

impl Spells {
    fn new(noise: Noise, per_day: f64, length: Length) -> Self {
        Self {
            noise,
            mean_gap_s: DAY as f64 / per_day,
            length,
            begin: 0,
            end: 0,
            number: 0,
        }
    }

    /// The number of the spell that lasts in this second. Seconds must not run backwards.
    fn at(&mut self, second: u64) -> Option<u32> {
        while second >= self.end {
            self.begin = self.end + 1 + self.noise.exponential(self.mean_gap_s) as u64;
            let length_s = match self.length {
                Length::Mean(mean) => self.noise.exponential(mean),
                Length::Between(least, most) => least + self.noise.even() * (most - least),
            };
            self.end = self.begin + (length_s.round() as u64).max(1);
            self.number += 1;
        }
        (second >= self.begin).then_some(self.number)
    }
}

/// Some observers are cut off now and then.
#[derive(Debug)]
struct Partition {
    spells: Spells,
    noise: Noise,
    observers: usize,
    current: Option<(u32, usize, bool)>,
}

impl Partition {
    fn new(noise: Noise, spells: Noise, per_day: f64, observers: usize) -> Self {
        Self {
            spells: Spells::new(spells, per_day, Length::Between(10.0, 300.0)),
            noise,
            observers,
            current: None,
        }
    }

    /// Who is cut off and whether their reports arrive.
    fn at(&mut self, second: u64) -> Option<(impl Iterator<Item = usize> + use<>, bool)> {
        let spell = self.spells.at(second)?;
        if self.current.is_none_or(|(number, ..)| number != spell) {
            let first = self.noise.below(VANTAGES);
            self.current = Some((spell, first, self.noise.even() < 0.5));
        }
        let (_, first, heard) = self.current?;
        let observers = (first..first + self.observers).map(|vantage| vantage % VANTAGES);
        Some((observers, heard))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_trace() {
        let sum = |seed| -> u64 {
            let mut world = World::new(seed, Variant::Correlated, JITTER);
            let seconds = (0..2_000).map(|number| {
                let second = world.second(number);
                let windows = second.seen.iter().flatten();
                windows.map(|window| u64::from(window.sum_us)).sum::<u64>()
            });
            seconds.sum()
        };
        assert_eq!(sum(1), sum(1));
        assert_ne!(sum(1), sum(2));
    }

    #[test]
    fn spells_come_as_often_and_last_as_long_as_they_should() {
        let mut spells = Spells::new(Noise::new(3, 0), 200.0, Length::Mean(60.0));
        let days = 40;
        let lasting = (0..days * DAY)
            .filter(|&second| spells.at(second).is_some())
            .count();
        let per_day = f64::from(spells.number) / days as f64;
        // The gap is counted from the end of the spell before.
        assert!((170.0..185.0).contains(&per_day), "{per_day}");
        let mean = lasting as f64 / f64::from(spells.number);
        assert!((57.0..63.0).contains(&mean), "{mean}");
    }

    #[test]
    fn an_outage_is_seen_by_all_and_a_blip_by_one() {
        let mut world = World::new(5, Variant::Independent, JITTER);
        let (mut outages, mut blips) = (0, 0);
        for number in 0..DAY {
            let second = world.second(number);
            for region in 0..REGIONS {
                let losses = second.seen.iter().filter(|seen| seen[region].loss() > 0.5);
                match (second.truth[region].events[0], losses.count()) {
                    (Some(_), lost) => {
                        assert_eq!(lost, VANTAGES);
                        outages += 1;
                    }
                    (None, 0) => {}
                    (None, lost) => {
                        assert!(lost < 4);
                        blips += 1;
                    }
                }
            }
        }
        assert!(outages > 60);
        assert!(blips > 250, "{blips}");
    }

    #[test]
    fn observers_are_cut_off_only_where_asked() {
        let cut = |variant| {
            let mut world = World::new(5, variant, JITTER);
            let blind = |second: &Second| {
                second
                    .seen
                    .iter()
                    .flatten()
                    .all(|window| window.answered == 0)
            };
            (0..DAY)
                .filter(|&number| blind(world.second(number)))
                .count()
        };
        assert_eq!(cut(Variant::Independent), 0);
        assert!(cut(Variant::Partitioned) > 10);
    }
}
