//! Choosing among three paths by what was measured on them: the Atlas panel.
//!
//! Each trace is the round-trip time from one probe to the same destination, a sample each 240 s, for weeks. Any three
//! traces that overlap for [`OVERLAP_DAYS`] are one panel: at every sample the contestant holds one of the three and
//! may change after seeing it. The first [`LEARN`] of the overlap is for learning, the rest is judged.
//!
//! *Bad* is a sample in which the path held is more than 20 ms worse than the best of the three. A lost probe has no
//! round-trip time: where the path held lost its probe the sample is judged by losses alone, in a figure of its own.
//!
//! The traces write their times in two ways, hold samples twice, and mark losses by -3, -4 or absurd times.

use std::{collections::BTreeMap, collections::VecDeque, path::Path, time::Duration};

use anyhow::Context as _;
use leeward_common::time::Timestamp;
use leeward_engine::{Engine, effect::Effect, input::Input};

use super::{
    observer::Observer,
    recorded::{files, text},
    setup::{Place, Setup, region},
};

/// Seconds between two samples.
const SAMPLE_S: i64 = 240;
/// Samples of a day.
const SAMPLES_PER_DAY: f64 = 360.0;
/// How long three traces must overlap.
const OVERLAP_DAYS: i64 = 14;
/// Share of the overlap that is not judged.
const LEARN: f64 = 0.3;
/// More is a lost probe, milliseconds.
const ABSURD_MS: f64 = 5_000.0;
/// Worse than the best by more than this is bad, milliseconds.
const BAD_MS: f64 = 20.0;

/// Samples by slot of 240 s; `None` is a lost probe.
pub type Trace = BTreeMap<i64, Option<f64>>;

/// Reads all traces of a folder.
///
/// # Errors
///
/// Says which file could not be read, or which line of it.
pub fn read(folder: &Path) -> anyhow::Result<Vec<Trace>> {
    let trace = |file: &std::path::PathBuf| {
        parse(&text(file)?).with_context(|| format!("in {}", file.display()))
    };
    files(folder, "csv")?.iter().map(trace).collect()
}

fn parse(text: &str) -> anyhow::Result<Trace> {
    let mut trace = Trace::new();
    let lines = text.lines().skip(1).filter(|line| !line.trim().is_empty());
    for (at, line) in lines.enumerate() {
        let mut fields = line.split(';');
        let sample = fields.next().zip(fields.next());
        let sample = sample.and_then(|(time, rtt)| Some((slot(time)?, rtt.trim().parse().ok()?)));
        let (slot, rtt_ms): (i64, f64) =
            sample.with_context(|| format!("line {} is no sample: {line}", at + 2))?;
        let answered = rtt_ms > 0.0 && rtt_ms < ABSURD_MS;
        // Of two samples in a slot, the first: the second is the next slot's, a little early.
        trace.entry(slot).or_insert(answered.then_some(rtt_ms));
    }
    Ok(trace)
}

/// The slot of `dd/mm/yyyy hh:mm` or `yyyy-mm-dd hh:mm:ss`.
fn slot(time: &str) -> Option<i64> {
    let (date, clock) = time.trim().split_once(' ')?;
    let numbers = |text: &str, by: char| -> Option<Vec<i64>> {
        text.split(by).map(|number| number.parse().ok()).collect()
    };
    let (year, month, day) = match (numbers(date, '/'), numbers(date, '-')) {
        (Some(dmy), _) if dmy.len() == 3 => (dmy[2], dmy[1], dmy[0]),
        (_, Some(ymd)) if ymd.len() == 3 => (ymd[0], ymd[1], ymd[2]),
        _ => return None,
    };
    let clock = numbers(clock, ':')?;
    let second = clock.first()? * 3600 + clock.get(1)? * 60 + clock.get(2).unwrap_or(&0);
    Some((days(year, month, day) * 86_400 + second).div_euclid(SAMPLE_S))
}

/// Days since 1970-01-01 in the Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> i64 {
    // Years begin in March, so that the leap day is the last.
    let year = if month <= 2 { year - 1 } else { year };
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + of_year
        - 719_468
}

/// What the three paths did in a slot; `None` is a lost probe or none at all.
pub type Sample = [Option<f64>; 3];

/// Three traces over the time that all three cover.
#[derive(Clone, Debug)]
pub struct Panel {
    samples: Vec<Sample>,
}

/// All panels of these traces.
#[must_use]
pub fn panels(traces: &[Trace]) -> Vec<Panel> {
    let mut panels = Vec::new();
    for a in 0..traces.len() {
        for b in 0..a {
            for c in 0..b {
                panels.extend(panel([&traces[c], &traces[b], &traces[a]]));
            }
        }
    }
    panels
}

fn panel(traces: [&Trace; 3]) -> Option<Panel> {
    let firsts = traces.map(|trace| trace.keys().next().copied());
    let lasts = traces.map(|trace| trace.keys().next_back().copied());
    let first = firsts.into_iter().max()??;
    let last = lasts.into_iter().flatten().min()?;
    if (last - first) * SAMPLE_S < OVERLAP_DAYS * 86_400 {
        return None;
    }
    let sample = |slot| traces.map(|trace| trace.get(&slot).copied().flatten());
    Some(Panel {
        samples: (first..=last).map(sample).collect(),
    })
}

impl Panel {
    fn judged_from(&self) -> usize {
        (self.samples.len() as f64 * LEARN) as usize
    }

    /// The path of the lowest median while learning.
    fn steadiest(&self) -> usize {
        let medians: [f64; 3] = std::array::from_fn(|path| {
            let learnt = self.samples[..self.judged_from()].iter();
            median(learnt.filter_map(|sample| sample[path])).unwrap_or(f64::INFINITY)
        });
        lowest(&medians.map(Some), 0, 0.0)
    }
}

/// Holds one of three paths.
pub trait Holder {
    /// The path held from now on.
    fn hold(&mut self, sample: &Sample, held: usize) -> usize;
}

/// Never changes.
#[derive(Clone, Copy, Debug)]
pub struct Static;

impl Holder for Static {
    fn hold(&mut self, _: &Sample, held: usize) -> usize {
        held
    }
}

/// The lowest median of the last few samples, if it is lower by more than a margin.
#[derive(Clone, Debug)]
pub struct Median {
    window: usize,
    margin_ms: f64,
    last: [VecDeque<f64>; 3],
}

impl Median {
    /// Of so many samples; 1 is the last value.
    #[must_use]
    pub fn new(window: usize, margin_ms: f64) -> Self {
        Self {
            window,
            margin_ms,
            last: Default::default(),
        }
    }
}

impl Holder for Median {
    fn hold(&mut self, sample: &Sample, held: usize) -> usize {
        let medians = std::array::from_fn(|path| {
            let last = &mut self.last[path];
            if let Some(rtt_ms) = sample[path] {
                last.push_back(rtt_ms);
            }
            if last.len() > self.window {
                last.pop_front();
            }
            median(last.iter().copied())
        });
        lowest(&medians, held, self.margin_ms)
    }
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// The lowest, or `held` if it is not lower by more than the margin.
fn lowest(values: &Sample, held: usize, margin: f64) -> usize {
    let value = |path: usize| values[path].unwrap_or(f64::INFINITY);
    let best = (0..3).fold(held, |best, path| {
        if value(path) < value(best) {
            path
        } else {
            best
        }
    });
    if value(best) < value(held) - margin {
        best
    } else {
        held
    }
}

/// The engine: a sample is a window of one second, so that its memory and holds span samples. What is not named here
/// is as shipped.
pub const POLICY: &str = "
[policy]
evaluate_every = \"1s\"

[policy.evidence]
memory = \"4s\"
min_probes = 1

[policy.weights]
distance = 0.0
capacity = 0.0
latency_scale = \"60ms\"
latency_p50 = 1.0
latency_p99 = 0.0
jitter = 0.0
loss = 0.2

[policy.steadiness]
margin = 1.05
failback_margin = 1.05
confirm = \"0s\"
failback_confirm = \"0s\"
caution = 0.0
switching_cost = \"0s\"
flap_limit = 1000.0
moves_per_hour = 10000
hold_first = \"0s\"
hold_max = \"0s\"
";

/// The engine as a contestant.
#[derive(Debug)]
pub struct Ours {
    engine: Engine,
    observer: Observer,
    start: Timestamp,
}

const PATHS: [&str; 3] = ["a", "b", "c"];
const HOME: &str = "home";
const WINDOW: Duration = Duration::from_secs(1);

impl Ours {
    /// The engine under the `[policy]` sections of this text.
    ///
    /// # Errors
    ///
    /// Says what is wrong with the text.
    pub fn new(policy: &str) -> anyhow::Result<Self> {
        let setup = Setup {
            policy,
            regions: PATHS
                .iter()
                .chain([&HOME])
                .map(|name| Place::nowhere(name))
                .collect(),
            primary: HOME,
            candidates: PATHS.map(|name| (name.to_owned(), 1.0)).into(),
        };
        let start = Timestamp::from_unix_us(1_800_000_000_000_000);
        let observer = Observer::new("probe", &region(HOME), &PATHS.map(region), WINDOW);
        let mut engine = Engine::new(setup.read()?);
        engine.step(start, &observer.connected());
        Ok(Self {
            engine,
            observer,
            start,
        })
    }
}

impl Holder for Ours {
    fn hold(&mut self, sample: &Sample, held: usize) -> usize {
        let rtt_us = sample.map(|rtt_ms| rtt_ms.map(|rtt_ms| [(rtt_ms * 1_000.0) as u32]));
        let windows = rtt_us
            .iter()
            .map(|rtt_us| (1, rtt_us.as_ref().map_or(&[][..], |one| one)));
        let report = self.observer.report(self.start, windows);
        let end = self.start + WINDOW;
        self.start = end;
        self.engine.step(end - Duration::from_micros(1), &report);
        let effects = self.engine.step(end, &Input::Tick);
        effects.iter().fold(held, |held, effect| {
            let Effect::Decided(decision) = effect else {
                return held;
            };
            let to = decision
                .to
                .as_ref()
                .filter(|_| decision.primary.as_str() == HOME);
            let path = to.and_then(|to| PATHS.iter().position(|path| *path == to.as_str()));
            path.unwrap_or(held)
        })
    }
}

/// The figures of a contestant over all panels. All are better lower.
#[derive(Clone, Copy, Debug, Default)]
pub struct Score {
    /// Share of the samples more than 20 ms worse than the best, 0..=1.
    pub bad: f64,
    /// As `bad`, and the samples that the path held lost while another did not.
    pub bad_or_lost: f64,
    /// Mean of what the path held was worse than the best, milliseconds.
    pub regret_ms: f64,
    /// Changes a day.
    pub switches_per_day: f64,
}

/// Lets a contestant hold every panel.
///
/// # Errors
///
/// Passes on what a contestant could not be made for.
pub fn judge<H: Holder>(
    panels: &[Panel],
    holder: impl Fn() -> anyhow::Result<H>,
) -> anyhow::Result<Score> {
    let mut sums = Sums::default();
    for panel in panels {
        sums.add(panel, &mut holder()?);
    }
    Ok(sums.score())
}

#[derive(Debug, Default)]
struct Sums {
    slots: u64,
    answered: u64,
    bad: u64,
    lost: u64,
    regret_ms: f64,
    switches: u64,
}

impl Sums {
    fn add(&mut self, panel: &Panel, holder: &mut impl Holder) {
        let judged_from = panel.judged_from();
        let mut held = panel.steadiest();
        for (slot, sample) in panel.samples.iter().enumerate() {
            if slot >= judged_from {
                self.on_sample(sample, held);
            }
            let next = holder.hold(sample, held);
            self.switches += u64::from(next != held && slot >= judged_from);
            held = next;
        }
    }

    fn on_sample(&mut self, sample: &Sample, held: usize) {
        self.slots += 1;
        let best = sample
            .iter()
            .flatten()
            .copied()
            .fold(f64::INFINITY, f64::min);
        if best.is_infinite() {
            return;
        }
        let Some(own) = sample[held] else {
            self.lost += 1;
            return;
        };
        self.answered += 1;
        self.regret_ms += own - best;
        self.bad += u64::from(own - best > BAD_MS);
    }

    fn score(&self) -> Score {
        let slots = self.slots.max(1) as f64;
        let answered = self.answered.max(1) as f64;
        Score {
            bad: self.bad as f64 / answered,
            bad_or_lost: (self.bad + self.lost) as f64 / slots,
            regret_ms: self.regret_ms / answered,
            switches_per_day: self.switches as f64 / (slots / SAMPLES_PER_DAY),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_of_writing_a_time_are_the_same_time() {
        assert_eq!(slot("14/10/2016 21:17"), slot("2016-10-14 21:17:30"));
        assert_eq!(days(1970, 1, 1), 0);
        assert_eq!(days(2016, 2, 29) + 1, days(2016, 3, 1));
        assert_eq!(days(2016, 10, 14), 17_088);
        assert_eq!(slot("soon"), None);
    }

    #[test]
    fn a_lost_probe_is_not_a_fast_one() {
        let text = "epoch;rtt;cp\n2016-10-14 00:00:00;-3;0\n2016-10-14 00:04:00;12.5;0\n";
        let trace: Vec<_> = parse(text).unwrap().into_values().collect();
        assert_eq!(trace, [None, Some(12.5)]);
        assert!(parse("epoch;rtt;cp\n1;2\n").is_err());
    }

    /// Path 0 is 100 ms, but for a day 200 ms; path 1 is 110 ms; path 2 loses everything.
    fn made_up() -> Vec<Panel> {
        let slow = 5_000..5_360;
        let sample = |slot| {
            let first = if slow.contains(&slot) { 200.0 } else { 100.0 };
            [Some(first), Some(110.0), None]
        };
        vec![Panel {
            samples: (0..7_000).map(sample).collect(),
        }]
    }

    #[test]
    fn contestants_are_as_good_as_they_should_be() {
        let score = judge(&made_up(), || Ok(Static)).unwrap();
        assert!((score.bad - 360.0 / 4_900.0).abs() < 1e-9, "{score:?}");
        let score = judge(&made_up(), || Ok(Median::new(5, 2.0))).unwrap();
        assert!((score.bad - 3.0 / 4_900.0).abs() < 1e-9, "{score:?}");
        let score = judge(&made_up(), || Ours::new(POLICY)).unwrap();
        assert!(score.bad < 6.0 / 4_900.0, "{score:?}");
        assert!(score.switches_per_day < 0.2, "{score:?}");
    }
}
