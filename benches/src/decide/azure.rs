//! Choosing among cloud regions: the matrix of round-trip times between the Azure regions.
//!
//! A region needs the nearest of three others drawn at random. The choice is *wrong* if one of the other two is nearer
//! by the matrix, be it by 1 ms. We choose by distance, by the engine that was told what the region's agent measured,
//! and by the engine where half of the links are unmeasured. The links between two regions are left out both ways,
//! which is the harder half: with one direction measured the other is all but known.

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::Context as _;
use leeward_common::time::Timestamp;
use leeward_engine::{
    Engine,
    baseline::great_circle_km,
    input::Input,
    policy::{Region, defaults},
    route::{self, Advice, Direct, Leg, Quality, Rules},
    select::{self, Request},
};
use serde::Deserialize;

use super::{
    noise::Noise,
    observer::Observer,
    recorded::text,
    setup::{Place, Setup, region},
};
use crate::measure::quantile;

/// Choices that are judged.
const TRIALS: usize = 20_000;
/// Ways to leave out half of the links.
const MASKS: u64 = 5;

/// The matrix.
#[derive(Clone, Debug)]
pub struct Matrix {
    names: Vec<String>,
    places: Vec<(f64, f64)>,
    /// From, to: milliseconds.
    rtt_ms: Vec<Vec<Option<f64>>>,
    km: Vec<Vec<f64>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Located {
    lat: f64,
    lon: f64,
    display_name: String,
}

impl Matrix {
    /// Reads `rtt_ms.csv` and `regions.json`.
    ///
    /// # Errors
    ///
    /// Says which file could not be read, or what in it.
    pub fn read(folder: &Path) -> anyhow::Result<Self> {
        let places: BTreeMap<String, Located> =
            serde_json::from_str(&text(&folder.join("regions.json"))?)
                .context("regions.json is not what it should be")?;
        let places: BTreeMap<String, (f64, f64)> = places
            .into_values()
            .map(|place| (place.display_name, (place.lat, place.lon)))
            .collect();
        let text = text(&folder.join("rtt_ms.csv"))?;
        let mut lines = text.lines();
        let columns: Vec<&str> = lines
            .next()
            .context("rtt_ms.csv is empty")?
            .split(',')
            .collect();
        let rows: BTreeMap<&str, Vec<&str>> = lines
            .filter_map(|line| line.split_once(','))
            .map(|(name, row)| (name, row.split(',').collect()))
            .collect();
        let names: Vec<String> = columns[1..]
            .iter()
            .filter(|name| places.contains_key(**name))
            .map(|name| (*name).to_owned())
            .collect();
        let cell = |from: &String, to: &String| {
            let column = columns[1..].iter().position(|name| name == to)?;
            let rtt_ms: f64 = rows.get(from.as_str())?.get(column)?.trim().parse().ok()?;
            (from != to && rtt_ms > 0.0).then_some(rtt_ms)
        };
        let rtt_ms = names
            .iter()
            .map(|from| names.iter().map(|to| cell(from, to)).collect())
            .collect();
        let places: Vec<_> = names.iter().map(|name| places[name]).collect();
        Ok(Self {
            km: distances(&places),
            names,
            places,
            rtt_ms,
        })
    }

    fn ids(&self) -> Vec<String> {
        let id = |name: &String| name.to_lowercase().replace(' ', "-");
        self.names.iter().map(id).collect()
    }
}

fn distances(places: &[(f64, f64)]) -> Vec<Vec<f64>> {
    let at = |&(latitude, longitude): &(f64, f64)| Region {
        latitude,
        longitude,
        capacity: 1.0,
        labels: BTreeMap::new(),
        risk_groups: Default::default(),
        prefixes: Default::default(),
        origins: Default::default(),
    };
    let row = |from| {
        places
            .iter()
            .map(|to| great_circle_km(&at(from), &at(to)))
            .collect()
    };
    places.iter().map(row).collect()
}

/// What choices were worth.
#[derive(Clone, Copy, Debug)]
pub struct Choices {
    /// Share of the wrong ones, 0..=1.
    pub wrong: f64,
    /// Mean of what they cost, milliseconds.
    pub mean_ms: f64,
    /// 99th percentile.
    pub p99_ms: f64,
}

/// The figures.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// By great-circle distance.
    pub distance: Choices,
    /// By the engine, all links measured.
    pub fresh: Choices,
    /// By the engine, half of the links unmeasured.
    pub half: Choices,
    /// As `half`, and the unmeasured links by distance.
    pub half_distance: Choices,
    /// Relays that are quicker than the direct link.
    pub detours: Detours,
}

/// Relays that are quicker than the direct link. Shares are of the directed pairs that were measured, 0..=1.
#[derive(Clone, Copy, Debug)]
pub struct Detours {
    /// Quicker by more than 5 ms.
    pub over_5_ms: f64,
    /// Quicker by more than 10 ms.
    pub over_10_ms: f64,
    /// Quicker by more than 5 % of the direct link.
    pub over_5_percent: f64,
    /// Advised by the engine, for whom a relay costs 1 ms and must win clearly.
    pub advised: f64,
    /// Median gain of those of more than 5 ms, milliseconds.
    pub gain_p50_ms: f64,
    /// The greatest gain.
    pub gain_max_ms: f64,
}

/// Judges.
///
/// # Errors
///
/// Says what the engine's policy could not be made of.
pub fn judge(matrix: &Matrix, seed: u64) -> anyhow::Result<Figures> {
    let trials = trials(matrix, seed);
    let by = |value: &dyn Fn(usize, usize) -> f64| {
        choices(matrix, &trials, |from, to| least(to, |to| value(from, to)))
    };
    let every = |_: usize, _: usize| true;
    let all = Ranker::new(matrix, every)?;
    let mut half = Vec::new();
    let mut half_distance = Vec::new();
    for mask in 0..MASKS {
        let measured = mask_half(matrix, seed, mask);
        let ranker = Ranker::new(matrix, |a, b| measured[a][b])?;
        let line = |a: usize, b: usize| matrix.km[a][b] * 0.018 + 5.0;
        let known = |a: usize, b: usize| matrix.rtt_ms[a][b].filter(|_| measured[a][b]);
        half.push(choices(matrix, &trials, |from, to| ranker.best(from, to)));
        half_distance.push(by(&|a, b| known(a, b).unwrap_or_else(|| line(a, b))));
    }
    Ok(Figures {
        distance: by(&|a, b| matrix.km[a][b]),
        fresh: choices(matrix, &trials, |from, to| all.best(from, to)),
        half: mean(&half),
        half_distance: mean(&half_distance),
        detours: detours(matrix),
    })
}

type Trial = (usize, [usize; 3]);

fn trials(matrix: &Matrix, seed: u64) -> Vec<Trial> {
    let mut noise = Noise::new(seed, 0);
    let mut trials = Vec::new();
    let n = matrix.names.len();
    for _ in 0..TRIALS * 10 {
        let from = noise.below(n);
        let to = [noise.below(n), noise.below(n), noise.below(n)];
        let differ = to[0] != to[1] && to[0] != to[2] && to[1] != to[2];
        if differ && to.iter().all(|&to| matrix.rtt_ms[from][to].is_some()) {
            trials.push((from, to));
        }
        if trials.len() == TRIALS {
            break;
        }
    }
    trials
}

/// Of the links between every two regions, half are measured.
fn mask_half(matrix: &Matrix, seed: u64, mask: u64) -> Vec<Vec<bool>> {
    let mut noise = Noise::new(seed, 1 + mask);
    let n = matrix.names.len();
    let mut measured = vec![vec![false; n]; n];
    let links = (0..n).flat_map(|a| (0..a).map(move |b| (a, b)));
    for (a, b) in links {
        let is = noise.even() < 0.5;
        (measured[a][b], measured[b][a]) = (is, is);
    }
    measured
}

fn least(to: &[usize; 3], value: impl Fn(usize) -> f64) -> usize {
    let mut best = to[0];
    for &other in &to[1..] {
        if value(other) < value(best) {
            best = other;
        }
    }
    best
}

fn choices(
    matrix: &Matrix,
    trials: &[Trial],
    choose: impl Fn(usize, &[usize; 3]) -> usize,
) -> Choices {
    let rtt_ms = |from: usize, to: usize| matrix.rtt_ms[from][to].unwrap_or(f64::INFINITY);
    let mut costs_ms: Vec<f64> = trials
        .iter()
        .map(|(from, to)| {
            let best = to
                .iter()
                .map(|&to| rtt_ms(*from, to))
                .fold(f64::INFINITY, f64::min);
            rtt_ms(*from, choose(*from, to)) - best
        })
        .collect();
    let n = costs_ms.len().max(1) as f64;
    Choices {
        wrong: costs_ms.iter().filter(|cost| **cost > 0.0).count() as f64 / n,
        mean_ms: costs_ms.iter().sum::<f64>() / n,
        p99_ms: quantile(&mut costs_ms, 0.99).unwrap_or(0.0),
    }
}

fn mean(all: &[Choices]) -> Choices {
    let n = all.len().max(1) as f64;
    let mean = |of: fn(&Choices) -> f64| all.iter().map(of).sum::<f64>() / n;
    Choices {
        wrong: mean(|own| own.wrong),
        mean_ms: mean(|own| own.mean_ms),
        p99_ms: mean(|own| own.p99_ms),
    }
}

/// One engine for each region. Between it and others it is told what the agent of that region alone measured, since the
/// matrix differs by the direction; between others, all that was.
struct Ranker {
    ids: Vec<leeward_common::id::RegionId>,
    views: Vec<leeward_engine::view::View>,
}

/// The nearest is wanted and nothing else; three digits, since regions may differ by 1 ms in 300.
const NEAREST: &str = "
[probing]
digits = 3

[policy]
evaluate_every = \"1s\"

[policy.weights]
distance = 0.0
capacity = 0.0
latency_p50 = 1.0
latency_p99 = 0.0
jitter = 0.0
";

impl Ranker {
    fn new(matrix: &Matrix, is_measured: impl Fn(usize, usize) -> bool) -> anyhow::Result<Self> {
        let names = matrix.ids();
        let ids: Vec<_> = names.iter().map(|name| region(name)).collect();
        let places = names.iter().zip(&matrix.places);
        let setup = Setup {
            policy: NEAREST,
            regions: places
                .map(|(name, &(latitude, longitude))| Place {
                    name: name.clone(),
                    latitude,
                    longitude,
                })
                .collect(),
            primary: &names[0],
            candidates: Vec::new(),
        };
        let policy = setup.read()?;
        // What is expected of the links that nobody measured is made every ten seconds: the next time is in two.
        let begin = Timestamp::from_unix_us(1_800_000_008_000_000);
        let second = Duration::from_secs(1);
        let tell = |engine: &mut Engine, at: usize, but: Option<usize>| {
            let reached: Vec<usize> = (0..ids.len())
                .filter(|&to| matrix.rtt_ms[at][to].is_some() && is_measured(at, to))
                .filter(|&to| Some(to) != but)
                .collect();
            let probed: Vec<_> = reached.iter().map(|&to| ids[to].clone()).collect();
            let windows: Vec<[u32; 10]> = reached
                .iter()
                .map(|&to| [(matrix.rtt_ms[at][to].unwrap_or(0.0) * 1_000.0) as u32; 10])
                .collect();
            let mut observer = Observer::new(&names[at], &ids[at], &probed, second)
                .with_schema(policy.probing.schema);
            engine.step(begin, &observer.connected());
            let seen = windows.iter().map(|window| (10, &window[..]));
            observer.report(begin, seen)
        };
        let view = |from: usize| {
            let mut engine = Engine::new(policy.clone());
            let others = (0..ids.len()).filter(|&other| other != from);
            let mut reports: Vec<_> = others
                .map(|other| tell(&mut engine, other, Some(from)))
                .collect();
            reports.push(tell(&mut engine, from, None));
            for report in &reports {
                engine.step(begin + second, report);
            }
            engine.step(begin + second * 2, &Input::Tick);
            engine.view()
        };
        let views = (0..ids.len()).map(view).collect();
        Ok(Self { ids, views })
    }

    /// The best of these for `from`; the first of them if none may be selected.
    fn best(&self, from: usize, to: &[usize; 3]) -> usize {
        let candidates = to.map(|to| self.ids[to].clone());
        let view = &self.views[from];
        let request = Request::of_candidates(&view.policy, &self.ids[from], candidates.to_vec());
        let ranking = select::rank(&view.picture(), &request);
        let best = ranking.candidates.first().map(|best| &best.region);
        to.iter()
            .copied()
            .find(|&to| Some(&self.ids[to]) == best)
            .unwrap_or(to[0])
    }
}

/// The relays that the engine finds, with nothing but round-trip times to go by.
fn detours(matrix: &Matrix) -> Detours {
    let ids = matrix.ids();
    let mut links = route::Matrix::new(ids.iter().map(|id| region(id)).collect());
    let mut pairs = 0;
    for (from, row) in matrix.rtt_ms.iter().enumerate() {
        for (to, rtt_ms) in row.iter().enumerate() {
            if let Some(rtt_ms) = rtt_ms {
                let leg = Leg::exact(Quality::of_rtt(rtt_ms * 1_000.0));
                links.set(from, to, Direct::Known(leg));
                pairs += 1;
            }
        }
    }
    let weights = defaults::weights();
    let free = Rules {
        relay_rtt: Duration::ZERO,
        min_log_gain: 0.0,
    };
    let routes = links.routes(&weights, &free);
    let gains_ms: Vec<(f64, f64)> = routes
        .iter()
        .filter_map(|route| {
            let direct_ms = route.direct.leg()?.likely.rtt_p50_us / 1_000.0;
            let gain_ms = route.relay.as_ref()?.gain_rtt_us? / 1_000.0;
            Some((gain_ms, gain_ms / direct_ms))
        })
        .collect();
    let advised = links.routes(&weights, &Rules::default());
    let advised = advised.iter().filter(|route| route.advice == Advice::Relay);
    let share = |count: usize| count as f64 / f64::from(pairs.max(1));
    let over = |ms: f64| gains_ms.iter().filter(|(gain, _)| *gain > ms).count();
    let mut large_ms: Vec<f64> = gains_ms
        .iter()
        .map(|(gain, _)| *gain)
        .filter(|gain| *gain > 5.0)
        .collect();
    Detours {
        over_5_ms: share(over(5.0)),
        over_10_ms: share(over(10.0)),
        over_5_percent: share(gains_ms.iter().filter(|(_, part)| *part > 0.05).count()),
        advised: share(advised.count()),
        gain_p50_ms: quantile(&mut large_ms, 0.5).unwrap_or(0.0),
        gain_max_ms: quantile(&mut large_ms, 1.0).unwrap_or(0.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Eight regions on the equator; the last is on the other end of a long cable.
    fn matrix() -> Matrix {
        let places: Vec<(f64, f64)> = (0..8).map(|x| (0.0, f64::from(x) * 10.0)).collect();
        let km = distances(&places);
        let rtt_ms = |a: usize, b: usize| {
            let extra = if a == 7 || b == 7 { 90.0 } else { 0.0 };
            (a != b).then(|| (km[a][b] / 60.0 + extra).round())
        };
        Matrix {
            names: (0..8).map(|x| format!("Region {x}")).collect(),
            rtt_ms: (0..8)
                .map(|a| (0..8).map(|b| rtt_ms(a, b)).collect())
                .collect(),
            places,
            km,
        }
    }

    #[test]
    fn with_everything_measured_the_engine_is_never_wrong_and_distance_is() {
        let figures = judge(&matrix(), 1).unwrap();
        assert_eq!(figures.fresh.wrong, 0.0);
        assert!(figures.distance.wrong > 0.05, "{figures:?}");
        assert!(
            figures.half.wrong < figures.half_distance.wrong,
            "{figures:?}"
        );
    }

    #[test]
    fn a_relay_counts_from_5_ms() {
        let mut matrix = matrix();
        assert_eq!(detours(&matrix).over_5_ms, 0.0);
        matrix.rtt_ms[0][2] = Some(100.0);
        let found = detours(&matrix);
        for share in [
            found.over_5_ms,
            found.over_10_ms,
            found.over_5_percent,
            found.advised,
        ] {
            assert!((share - 1.0 / 56.0).abs() < 1e-9, "{found:?}");
        }
        assert!((62.0..64.0).contains(&found.gain_p50_ms), "{found:?}");
    }
}
