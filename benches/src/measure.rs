//! Taking times: medians of rounds.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

/// Rounds per figure: odd, so that the median is one of them.
pub const ROUNDS: usize = 9;

/// How long a round repeats its work: long enough that reading the clock is nothing, short enough that a whole
/// benchmark takes seconds.
const ROUND: Duration = Duration::from_millis(60);

/// The middle of a list; `None` when it is empty.
#[must_use]
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// The share `q` of the values, in any order, lies at or below this; `None` when there are none.
#[must_use]
pub fn quantile(values: &mut [f64], q: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let rank = (q * values.len() as f64).ceil() as usize;
    values.get(rank.clamp(1, values.len().max(1)) - 1).copied()
}

/// Nanoseconds that `work` takes once: the medians of both, their rounds taken in turn, so that what else the machine
/// does falls on both alike.
pub fn nanoseconds_beside<A, B>(
    mut ours: impl FnMut() -> A,
    mut theirs: impl FnMut() -> B,
) -> (f64, f64) {
    let (mut us, mut them) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        us.push(round(&mut ours));
        them.push(round(&mut theirs));
    }
    let middle = |values| median(values).expect("ROUNDS is not zero");
    (middle(us), middle(them))
}

/// Nanoseconds that `work` takes once, the median of [`ROUNDS`].
pub fn nanoseconds<A>(mut work: impl FnMut() -> A) -> f64 {
    median((0..ROUNDS).map(|_| round(&mut work)).collect()).expect("ROUNDS is not zero")
}

fn round<A>(work: &mut impl FnMut() -> A) -> f64 {
    let start = Instant::now();
    let mut times = 0u32;
    loop {
        black_box(work());
        times += 1;
        let taken = start.elapsed();
        if taken >= ROUND {
            return taken.as_nanos() as f64 / f64::from(times);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_seen() {
        let mut values = vec![3.0, 1.0, 2.0, 4.0];
        assert_eq!(quantile(&mut values, 0.5), Some(2.0));
        assert_eq!(quantile(&mut values, 0.99), Some(4.0));
        assert_eq!(quantile(&mut values, 0.0), Some(1.0));
        assert_eq!(quantile(&mut [], 0.5), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
    }
}
