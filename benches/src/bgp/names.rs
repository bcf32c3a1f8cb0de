//! How often the link that failed is named, on made-up Internets.

use super::internet::{Judged, judge};
use crate::figure::{Figures, Target};

/// Systems of each Internet.
const SYSTEMS: usize = 400;

/// Internets; in each a link fails.
const FAILURES: u64 = 200;

/// Measures it.
pub fn measure(figures: &mut Figures) {
    // Failures that lose five times what a burst begins with, and smaller ones.
    for (bursts, which) in [(5, "50 prefixes or more"), (2, "20 prefixes or more")] {
        let judged: Vec<Judged> = (0..FAILURES)
            .filter_map(|seed| judge(seed, SYSTEMS, bursts))
            .collect();
        let share = |at: usize, is: Option<bool>| {
            let all = judged.iter().filter(|own| own.right[at] == is).count();
            all as f64 / judged.len().max(1) as f64 * 100.0
        };
        let count = judged.len();
        for (at, after, target) in [(0, "1 s", None), (1, "5 s", Some(80.0))] {
            let name =
                format!("failed link named rightly after {after}, {count} that lose {which}");
            let figure = figures.figure(name, share(at, Some(true)), "%");
            figures.push(match target.filter(|_| bursts == 5) {
                Some(target) => figure.target(Target::AtLeast(target)),
                None => figure,
            });
        }
        let name = format!("of these another link named after 5 s, {which}");
        figures.push(figures.figure(name, share(1, Some(false)), "%"));
    }
}
