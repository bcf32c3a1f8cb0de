//! Paths with one relay: the PlanetLab matrices.
//!
//! Hundreds of hosts measured each other, frame after frame. A relay that is faster than the direct way in one frame
//! is of use only if it still is in the next: that is how relays are judged here, as one who must choose would meet
//! them.

use std::path::Path;

use anyhow::Context as _;

use super::{
    noise::Noise,
    recorded::{files, text},
};
use crate::measure::quantile;

/// A relay is worth taking from this on, milliseconds.
const WORTH_MS: f64 = 5.0;
/// Relays that a blind choice tries.
const BLIND: usize = 4;

/// Round-trip times of one frame, milliseconds; 0 is unknown.
#[derive(Clone, Debug)]
pub struct Frame {
    hosts: usize,
    rtt_ms: Vec<f32>,
}

impl Frame {
    fn between(&self, from: usize, to: usize) -> f32 {
        self.rtt_ms[from * self.hosts + to]
    }

    fn row(&self, from: usize) -> &[f32] {
        &self.rtt_ms[from * self.hosts..][..self.hosts]
    }
}

/// Reads all frames of a folder.
///
/// # Errors
///
/// Says which file could not be read, or that it is no square matrix.
pub fn read(folder: &Path) -> anyhow::Result<Vec<Frame>> {
    let frame = |file: &std::path::PathBuf| {
        parse(&text(file)?).with_context(|| format!("in {}", file.display()))
    };
    files(folder, "tsv")?.iter().map(frame).collect()
}

fn parse(text: &str) -> anyhow::Result<Frame> {
    let mut rtt_ms = Vec::new();
    let mut hosts = 0;
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let before = rtt_ms.len();
        for cell in line.split_whitespace() {
            let cell: f32 = cell
                .parse()
                .with_context(|| format!("{cell} is no number"))?;
            rtt_ms.push(cell);
        }
        hosts += 1;
        anyhow::ensure!(
            rtt_ms.len() - before == rtt_ms.len() / hosts,
            "rows differ in length"
        );
    }
    anyhow::ensure!(hosts * hosts == rtt_ms.len(), "the matrix is not square");
    Ok(Frame { hosts, rtt_ms })
}

/// What relays gain.
#[derive(Clone, Copy, Debug, Default)]
pub struct Relays {
    /// Share of the directed pairs for which a relay was chosen, 0..=1.
    pub chosen: f64,
    /// Median of what those gained in the next frame, milliseconds.
    pub gain_p50_ms: f64,
    /// Share of those that were slower than the direct way in the next frame, 0..=1.
    pub wrong: f64,
}

/// The figures.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// The best relay.
    pub best: Relays,
    /// The best of four drawn at random, as SOSR tries them.
    pub blind: Relays,
}

/// Chooses relays on every frame and judges them on the next; `None` with fewer than two frames of the same hosts.
#[must_use]
pub fn judge(frames: &[Frame], seed: u64) -> Option<Figures> {
    let mut noise = Noise::new(seed, 0);
    let (mut best, mut blind) = (Gains::default(), Gains::default());
    let pairs = frames
        .windows(2)
        .filter(|pair| pair[0].hosts == pair[1].hosts);
    for pair in pairs {
        let [now, next] = pair else { continue };
        let hosts = now.hosts;
        // Columns as rows, so that the search for a relay runs along two rows.
        let back: Vec<f32> = (0..hosts * hosts)
            .map(|at| now.between(at % hosts, at / hosts))
            .collect();
        for from in 0..hosts {
            for to in 0..hosts {
                let direct = now.between(from, to);
                if from == to || direct <= 0.0 {
                    continue;
                }
                let relay = best_relay(now.row(from), &back[to * hosts..][..hosts]);
                best.add(now, next, (from, to), relay);
                let tried = (0..BLIND).map(|_| noise.below(hosts));
                let relay =
                    tried.min_by(|&a, &b| via(now, from, a, to).total_cmp(&via(now, from, b, to)));
                blind.add(now, next, (from, to), relay);
            }
        }
    }
    Some(Figures {
        best: best.relays()?,
        blind: blind.relays()?,
    })
}

fn best_relay(there: &[f32], back: &[f32]) -> Option<usize> {
    let mut best = (f32::INFINITY, None);
    for (relay, (there, back)) in there.iter().zip(back).enumerate() {
        if *there > 0.0 && *back > 0.0 && there + back < best.0 {
            best = (there + back, Some(relay));
        }
    }
    best.1
}

fn via(frame: &Frame, from: usize, relay: usize, to: usize) -> f32 {
    let (there, back) = (frame.between(from, relay), frame.between(relay, to));
    if there > 0.0 && back > 0.0 {
        there + back
    } else {
        f32::INFINITY
    }
}

#[derive(Debug, Default)]
struct Gains {
    pairs: u64,
    gains_ms: Vec<f64>,
}

impl Gains {
    fn add(&mut self, now: &Frame, next: &Frame, (from, to): (usize, usize), relay: Option<usize>) {
        self.pairs += 1;
        let Some(relay) = relay else { return };
        let gain = f64::from(now.between(from, to) - via(now, from, relay, to));
        let direct = next.between(from, to);
        if gain > WORTH_MS && direct > 0.0 {
            let gain_ms = f64::from(direct - via(next, from, relay, to));
            self.gains_ms.push(gain_ms);
        }
    }

    fn relays(mut self) -> Option<Relays> {
        let chosen = self.gains_ms.len();
        let wrong = self.gains_ms.iter().filter(|gain| **gain < 0.0).count();
        (self.pairs > 0).then(|| Relays {
            chosen: chosen as f64 / self.pairs as f64,
            wrong: wrong as f64 / chosen.max(1) as f64,
            gain_p50_ms: quantile(&mut self.gains_ms, 0.5).unwrap_or(0.0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_is_found_and_judged_by_the_next_frame() {
        let good = parse("0 10 50\n10 0 10\n50 10 0\n").unwrap();
        let bad = parse("0 90 50\n90 0 10\n50 10 0\n").unwrap();
        let figures = judge(&[good.clone(), good.clone()], 1).unwrap();
        assert!(
            (figures.best.chosen - 1.0 / 3.0).abs() < 1e-9,
            "{figures:?}"
        );
        assert_eq!((figures.best.gain_p50_ms, figures.best.wrong), (30.0, 0.0));
        assert_eq!(judge(&[good.clone(), bad], 1).unwrap().best.wrong, 1.0);
        assert!(judge(&[good], 1).is_none());
    }

    #[test]
    fn what_is_no_square_matrix_is_refused() {
        assert!(parse("0 1\n1 0\n1 1\n").is_err());
        assert!(parse("0 x\n1 0\n").is_err());
    }
}
