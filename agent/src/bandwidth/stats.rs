//! A mean that outliers do not move, with an interval that says how sure it is. [pure]

/// A mean and its 95 % interval's half width.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mean {
    /// The mean.
    pub value: f64,
    /// Half the width of its interval; infinite when there are too few samples to say.
    pub half: f64,
}

/// The share left out at either end.
const TRIMMED: f64 = 0.2;

/// The trimmed mean and its interval from the winsorised variance (Tukey, McLaughlin 1963); `None` of nothing.
#[must_use]
pub fn trimmed_mean(samples: &[f64]) -> Option<Mean> {
    let mut sorted: Vec<f64> = samples
        .iter()
        .copied()
        .filter(|own| own.is_finite())
        .collect();
    sorted.sort_by(f64::total_cmp);
    let count = sorted.len();
    let cut = (count as f64 * TRIMMED) as usize;
    let kept = sorted
        .get(cut..count - cut)
        .filter(|kept| !kept.is_empty())?;
    let value = kept.iter().sum::<f64>() / kept.len() as f64;
    if kept.len() < 3 {
        return Some(Mean {
            value,
            half: f64::INFINITY,
        });
    }
    let (least, most) = (kept[0], kept[kept.len() - 1]);
    let winsorised = || sorted.iter().map(|own| own.clamp(least, most));
    let centre = winsorised().sum::<f64>() / count as f64;
    let squares: f64 = winsorised().map(|own| (own - centre).powi(2)).sum();
    let (all, left) = (count as f64, kept.len() as f64);
    let error = (squares / (left * (left - 1.0))).sqrt();
    debug_assert!(left <= all);
    Some(Mean {
        value,
        half: student(kept.len() - 1) * error,
    })
}

/// Student's t for a two-sided 95 % interval.
fn student(freedom: usize) -> f64 {
    const TABLE: [f64; 15] = [
        12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13,
    ];
    match freedom {
        0 => f64::INFINITY,
        1..=15 => TABLE[freedom - 1],
        _ => 1.96 + 2.4 / freedom as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_outlier_moves_nothing() {
        let mean = trimmed_mean(&[10.0, 10.1, 9.9, 10.0, 10.05, 9.95, 1_000.0]).unwrap();
        assert!((mean.value - 10.0).abs() < 0.05, "{mean:?}");
        assert!(mean.half < 0.2, "{mean:?}");
    }

    #[test]
    fn too_few_samples_are_sure_of_nothing() {
        assert_eq!(trimmed_mean(&[]), None);
        assert_eq!(trimmed_mean(&[f64::NAN]), None);
        assert!(trimmed_mean(&[1.0, 1.0]).unwrap().half.is_infinite());
    }

    #[test]
    fn the_interval_holds_the_truth_nineteen_times_of_twenty() {
        let mut random = 9u64;
        let mut draw = || {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) as f64 / f64::from(1u32 << 31)
        };
        let mut held = 0;
        for _ in 0..1_000 {
            let samples: Vec<f64> = (0..12).map(|_| draw() + draw() + draw()).collect();
            let mean = trimmed_mean(&samples).unwrap();
            held += u32::from((mean.value - 1.5).abs() <= mean.half);
        }
        assert!((925..=985).contains(&held), "{held}");
    }
}
