//! Puts the views of several vantage points together so that a single bad one does not count.
//!
//! A vantage point is whatever measures the same thing on its own: a path of a pair of regions, or a region that
//! looks at another. From three on, some at either end are left out of each measure before the mean is taken (the
//! trimmed mean: Tukey and McLaughlin 1963): a bad flow, a host with a bad cable, an observer with a bad day. Of the
//! paths of one pair it is a quarter, at least one. Of regions only the middle is left, the median: carriers are shared, so that
//! several of them have a bad day together. Because each measure is ordered by itself, a worse measure never makes the result better.
//!
//! Bounds come from two sources, added in quadrature: how few samples there are, and how much farther the vantage
//! points are apart than so few samples explain (the variance of the Winsorised values less that of sampling; as
//! DerSimonian and Laird 1986 tell one from the other). So a trouble that half of the vantage points see widens the
//! bounds instead of moving a decision, and one that all see has narrow ones.

use crate::view::Estimate;

/// 97.5th percentile of the normal distribution: bounds hold with 95 % confidence.
pub(crate) const Z: f64 = 1.959_963_984_540_054;

/// What one vantage point measured.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Measured {
    pub(crate) rtt_p50_us: Option<Estimate>,
    pub(crate) rtt_p99_us: Option<Estimate>,
    pub(crate) jitter_us: Option<Estimate>,
    pub(crate) loss: Option<Estimate>,
    /// In the newest windows alone.
    pub(crate) loss_lately: Option<Estimate>,
    /// Probes.
    pub(crate) n: u64,
}

/// Whether round-trip times are expected to be the same.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Levels {
    /// Of one pair of regions: then that they are apart is a doubt.
    Same,
    /// Of different regions: then that they are apart is geography.
    Own,
}

/// All vantage points together. Their order does not matter.
pub(crate) fn combine(all: &[Measured], levels: Levels) -> Measured {
    let rtt = |of: fn(&Measured) -> Option<Estimate>| {
        Values::new(all, levels, of).mean(levels == Levels::Same)
    };
    Measured {
        rtt_p50_us: rtt(|own| own.rtt_p50_us),
        rtt_p99_us: rtt(|own| own.rtt_p99_us),
        jitter_us: rtt(|own| own.jitter_us),
        loss: Values::new(all, levels, |own| own.loss).share(),
        loss_lately: Values::new(all, levels, |own| own.loss_lately).share(),
        n: all.iter().map(|own| own.n).sum(),
    }
}

/// One measure of all vantage points that have it, in its order, each with its weight.
struct Values(Vec<(Estimate, f64)>, Levels);

impl Values {
    /// Two count by the probes that they sent (not by those answered: losing more must not make a slow one count
    /// less). From three on each counts alike, so that whoever is left out is left out whole.
    fn new(all: &[Measured], levels: Levels, of: impl Fn(&Measured) -> Option<Estimate>) -> Self {
        let with_weight = |own: &Measured| Some((of(own)?, own.n as f64));
        let mut values: Vec<_> = all.iter().filter_map(with_weight).collect();
        if values.len() > 2 {
            values.iter_mut().for_each(|(_, weight)| *weight = 1.0);
            return Self(by_value(&values), levels);
        }
        values.sort_by(|(a, m), (b, n)| a.value.total_cmp(&b.value).then(m.total_cmp(n)));
        Self(values, levels)
    }

    /// How many are left out at either end.
    const fn trimmed(&self) -> usize {
        match (self.1, self.0.len()) {
            (Levels::Own, n @ 3..) => (n - 1) / 2,
            _ => self.outer(),
        }
    }

    /// A quarter at either end, from three on at least one.
    const fn outer(&self) -> usize {
        match self.0.len() {
            0..3 => 0,
            n if n < 8 => 1,
            n => n / 4,
        }
    }

    fn kept(&self) -> &[(Estimate, f64)] {
        &self.0[self.trimmed()..self.0.len() - self.trimmed()]
    }

    /// Of two regions at different distances the farther counts: their mean would be nobody's.
    fn mean(&self, is_apart_a_doubt: bool) -> Option<Estimate> {
        let kept = match &self.0[..] {
            [_, farther] if !is_apart_a_doubt => std::slice::from_ref(farther),
            _ => self.kept(),
        };
        let weight = kept.iter().map(|&(_, weight)| weight).sum::<f64>();
        if weight <= 0.0 {
            return None;
        }
        let mean = |of: fn(&Estimate) -> f64| {
            kept.iter().map(|(own, n)| of(own) * n).sum::<f64>() / weight
        };
        let error = |of: fn(&Estimate) -> f64| {
            let squares = kept.iter().map(|(own, n)| (of(own) * n).powi(2));
            squares.sum::<f64>().sqrt() / weight
        };
        let value = mean(|own| own.value);
        let apart = if is_apart_a_doubt { self.apart() } else { 0.0 };
        Some(Estimate {
            value,
            low: (value - error(|own| own.value - own.low).hypot(apart)).max(0.0),
            high: value + error(|own| own.high - own.value).hypot(apart),
            n: kept.iter().map(|(own, _)| own.n).sum(),
        })
    }

    /// Of two regions the one that sees less of it counts: what one alone sees may be its own path.
    fn share(&self) -> Option<Estimate> {
        let kept = match (&self.0[..], self.1) {
            ([less, _], Levels::Own) => std::slice::from_ref(less),
            _ => self.kept(),
        };
        let weight = kept.iter().map(|&(_, weight)| weight).sum::<f64>();
        if weight <= 0.0 {
            return None;
        }
        let sum = kept.iter().map(|(own, n)| own.value * n).sum::<f64>();
        let n = kept.iter().map(|(own, _)| own.n as f64).sum::<f64>();
        let sampled = wilson(sum / weight * n, n)?;
        let apart = self.apart();
        let (value, low, high) = (sampled.value, sampled.low, sampled.high);
        Some(Estimate {
            low: (value - (value - low).hypot(apart)).max(0.0),
            high: (value + (high - value).hypot(apart)).min(1.0),
            ..sampled
        })
    }

    /// Half of the width that the distance of the vantage points calls for.
    fn apart(&self) -> f64 {
        let values = &self.0;
        let (count, out) = (values.len(), self.outer());
        if count < 2 {
            return 0.0;
        }
        let winsorised = |at: usize| values[at.clamp(out, count - 1 - out)].0.value;
        let n = count as f64;
        let mean = (0..count).map(winsorised).sum::<f64>() / n;
        let squares = (0..count).map(|at| (winsorised(at) - mean).powi(2));
        let variance = squares.sum::<f64>() / (n - 1.0) / (1.0 - 2.0 * out as f64 / n).powi(2);
        let sampled = values
            .iter()
            .map(|(own, _)| ((own.high - own.low) / (2.0 * Z)).powi(2));
        let beyond = (variance - sampled.sum::<f64>() / n).max(0.0);
        Z * (beyond / n).sqrt()
    }
}

/// In the order of values; equal ones stay in theirs. There may be thousands: numbers are moved instead of estimates.
fn by_value(values: &[(Estimate, f64)]) -> Vec<(Estimate, f64)> {
    // The order of `f64::total_cmp` as that of numbers.
    let key = |value: f64| {
        let bits = value.to_bits() as i64;
        bits ^ (((bits >> 63) as u64) >> 1) as i64
    };
    let keyed = (0u32..)
        .zip(values)
        .map(|(at, (own, _))| (key(own.value), at));
    let mut order: Vec<(i64, u32)> = keyed.collect();
    order.sort_unstable();
    let at = |&(_, at): &(i64, u32)| values[at as usize];
    order.iter().map(at).collect()
}

/// A share with its Wilson score bounds.
pub(crate) fn wilson(part: f64, whole: f64) -> Option<Estimate> {
    if whole <= 0.0 {
        return None;
    }
    let share = (part / whole).clamp(0.0, 1.0);
    let scale = 1.0 + Z * Z / whole;
    let centre = (share + Z * Z / (2.0 * whole)) / scale;
    let spread = Z * (share * (1.0 - share) / whole + Z * Z / (4.0 * whole * whole)).sqrt() / scale;
    Some(Estimate {
        value: share,
        low: (centre - spread).clamp(0.0, share),
        high: (centre + spread).clamp(share, 1.0),
        n: whole as u64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lossy(lost: u64, n: u64) -> Measured {
        Measured {
            loss: wilson(lost as f64, n as f64),
            n,
            ..Measured::default()
        }
    }

    fn loss(lost: &[u64]) -> Estimate {
        let all: Vec<_> = lost.iter().map(|&lost| lossy(lost, 100)).collect();
        combine(&all, Levels::Same).loss.unwrap()
    }

    #[test]
    fn one_bad_vantage_point_of_three_or_more_does_not_count() {
        assert_eq!(loss(&[0, 0, 90]).value, 0.0);
        assert_eq!(loss(&[0, 0, 90, 0, 0]), loss(&[0, 0, 0, 0, 0]));
        assert_eq!(loss(&[50, 50, 50, 0, 50]).value, 0.5);
    }

    #[test]
    fn of_two_regions_one_alone_proves_no_loss() {
        let of = |lost: [u64; 2]| {
            let both = lost.map(|lost| lossy(lost, 100));
            combine(&both, Levels::Own).loss.unwrap().value
        };
        assert_eq!(of([0, 90]), 0.0);
        assert_eq!(of([8, 10]), 0.08);
    }

    #[test]
    fn what_half_see_is_a_doubt_and_what_all_see_is_not() {
        let half = loss(&[0, 90]);
        assert_eq!((half.low, half.high), (0.0, 1.0));
        let some = loss(&[0, 0, 0, 90, 90]);
        assert_eq!(some.low, 0.0);
        let all = loss(&[90, 90, 90, 90, 90]);
        assert!(all.low > 0.85, "{all:?}");
    }

    #[test]
    fn regions_at_different_distances_do_not_doubt_each_other() {
        let at = |us: f64| Measured {
            rtt_p50_us: Some(Estimate {
                value: us,
                low: us - 100.0,
                high: us + 100.0,
                n: 100,
            }),
            n: 100,
            ..Measured::default()
        };
        let of = |levels| {
            let all = [at(10_000.0), at(90_000.0), at(50_000.0)];
            combine(&all, levels).rtt_p50_us.unwrap()
        };
        assert_eq!(of(Levels::Own).value, 50_000.0);
        assert!(of(Levels::Own).high < 50_200.0);
        let two = |levels| {
            let two = combine(&[at(10_000.0), at(90_000.0)], levels);
            two.rtt_p50_us.unwrap()
        };
        assert_eq!(two(Levels::Own).value, 90_000.0);
        assert!(two(Levels::Same).high > 90_000.0);
    }

    #[test]
    fn no_probes_are_no_estimate_and_more_probes_are_a_better_one() {
        assert_eq!(wilson(0.0, 0.0), None);
        let (few, many) = (wilson(1.0, 10.0).unwrap(), wilson(100.0, 1_000.0).unwrap());
        assert_eq!(few.value, many.value);
        assert!(
            few.low < many.low && many.high < few.high,
            "{few:?} {many:?}"
        );
    }

    #[test]
    fn wilson_bounds_agree_with_published_ones() {
        // Newcombe (1998), table I: 81 of 263 and 15 of 148, method 3.
        for (part, whole, low, high) in
            [(81.0, 263.0, 0.2553, 0.3662), (15.0, 148.0, 0.0624, 0.1605)]
        {
            let bounds = wilson(part, whole).unwrap();
            assert!((bounds.low - low).abs() < 5e-5, "{bounds:?}");
            assert!((bounds.high - high).abs() < 5e-5, "{bounds:?}");
        }
    }

    proptest! {
        /// Sorted by numbers or by comparing: the same, and equal values stay in their order.
        #[test]
        fn numbers_are_in_the_order_of_values(
            values in prop::collection::vec(prop_oneof![any::<f64>(), (-2i8..3).prop_map(f64::from)], 0..50),
        ) {
            let estimate = |(n, value)| {
                (Estimate { value, low: value, high: value, n }, 1.0)
            };
            let values: Vec<_> = (0..).zip(values).map(estimate).collect();
            let mut sorted = values.clone();
            sorted.sort_by(|(a, _), (b, _)| a.value.total_cmp(&b.value));
            let order = |all: &[(Estimate, f64)]| -> Vec<u64> { all.iter().map(|(own, _)| own.n).collect() };
            prop_assert_eq!(order(&by_value(&values)), order(&sorted));
        }

        /// More loss anywhere never looks like less, and bounds hold the value.
        #[test]
        fn loss_is_monotone(
            lost in prop::collection::vec((0u64..=60, 60u64..=120), 1..12), which in 0usize..12, more in 0u64..60
        ) {
            let before: Vec<_> = lost.iter().map(|&(lost, n)| lossy(lost, n)).collect();
            let mut after = before.clone();
            let which = which % lost.len();
            after[which] = lossy((lost[which].0 + more).min(lost[which].1), lost[which].1);
            let of = |all: &[Measured]| combine(all, Levels::Same).loss.unwrap();
            let (before, after) = (of(&before), of(&after));
            prop_assert!(after.value >= before.value - 1e-12, "{before:?} {after:?}");
            prop_assert!(after.low <= after.value && after.value <= after.high, "{after:?}");
        }
    }
}
