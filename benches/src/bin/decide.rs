//! Judges decisions.
use leeward_benches::decide::{
    ours::{Ours, SCORE},
    peers, trace,
    world::Variant,
};

fn main() {
    let days = std::env::args()
        .nth(1)
        .and_then(|a| a.parse().ok())
        .unwrap_or(30);
    let seed = std::env::args()
        .nth(2)
        .and_then(|a| a.parse().ok())
        .unwrap_or(1);
    for variant in Variant::ALL {
        let mut all = peers::all();
        let t = match std::env::args().nth(3) {
            Some(p) => std::fs::read_to_string(p).expect("policy"),
            None => SCORE.to_owned(),
        };
        all.push(Box::new(Ours::new("ours", &t).expect("policy")));
        let o = trace::run(seed, days, variant, all);
        println!("{} necessary {:.2}", variant.name(), o.necessary_per_day);
        for (n, s) in o.scores {
            println!(
                "{n:40} {:9.2} {:9.2} | {:?} {:?} | {:?} {:?} | {:?} {:?}| {:.3}%",
                s.flips_per_day,
                s.false_per_day,
                s.hard.p50_s,
                s.hard.p99_s,
                s.grey.p50_s,
                s.grey.p99_s,
                s.shift.p50_s,
                s.shift.p99_s,
                100.0 * s.regret
            );
        }
    }
}
