//! Joint placements are safe, optimal against an exact solver, and the same whatever the order of what is given.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeMap;

use leeward_common::id::{RegionId, ServiceId};
use leeward_engine::plan::{
    Candidate, Demand, Invalid, Offer, Placement, Plan, Problem, Split, TOLERANCE, Unserved, place,
};
use microlp::{ComparisonOp, OptimizationDirection};
use proptest::prelude::*;

fn region(name: &str) -> RegionId {
    RegionId::parse(name).unwrap()
}

fn service(name: &str) -> ServiceId {
    ServiceId::parse(name).unwrap()
}

fn offer(name: &str, requests: f64) -> Offer {
    let mut offer = Offer::new(region(name));
    offer.capacity.insert("requests".to_owned(), requests);
    offer
}

fn demand(name: &str, requests: f64, candidates: &[(&str, f64)]) -> Demand {
    let mut demand = Demand::new(service(name));
    demand.need.insert("requests".to_owned(), requests);
    demand.weight = requests.max(1.0);
    let candidate = |&(name, cost): &(&str, f64)| Candidate {
        region: region(name),
        cost,
    };
    demand.candidates = candidates.iter().map(candidate).collect();
    demand
}

fn whole(mut demand: Demand) -> Demand {
    demand.split = Split::Whole;
    demand
}

fn class(class: u8, mut demand: Demand) -> Demand {
    demand.class = class;
    demand
}

fn plan(offers: Vec<Offer>, demands: Vec<Demand>) -> Plan {
    place(&Problem::new(offers, demands).unwrap())
}

fn shares(plan: &Plan, name: &str) -> Vec<(String, f64)> {
    let placement: &Placement = &plan.placements[&service(name)];
    let shares = placement.shares.iter();
    shares
        .map(|share| (share.region.to_string(), (share.share * 1e6).round() / 1e6))
        .collect()
}

fn at(name: &str, share: f64) -> (String, f64) {
    (name.to_owned(), share)
}

#[test]
fn a_service_goes_where_it_is_cheapest() {
    let plan = plan(
        vec![offer("a", 10.0), offer("b", 10.0)],
        vec![demand("web", 4.0, &[("a", 2.0), ("b", 1.0)])],
    );
    assert_eq!(shares(&plan, "web"), [at("b", 1.0)]);
    assert_eq!(plan.cost, 4.0);
    assert_eq!(plan.regions[&region("b")].resources["requests"].after, 4.0);
}

#[test]
fn a_full_region_sends_the_rest_to_the_next_and_its_price_is_the_difference() {
    let plan = plan(
        vec![offer("a", 10.0), offer("b", 10.0)],
        vec![demand("web", 16.0, &[("a", 2.0), ("b", 1.0)])],
    );
    assert_eq!(shares(&plan, "web"), [at("a", 0.375), at("b", 0.625)]);
    let price = |name| plan.regions[&region(name)].resources["requests"].price;
    assert!((price("b").saves - 1.0).abs() < 1e-9);
    assert_eq!(price("b").serves, None);
    assert_eq!(price("a").saves, 0.0);
}

#[test]
fn headroom_reservations_and_use_are_kept_free() {
    let mut only = offer("a", 100.0);
    only.headroom = 0.2;
    only.used.insert("requests".to_owned(), 30.0);
    only.reserved.insert("requests".to_owned(), 10.0);
    let plan = plan(vec![only], vec![demand("web", 80.0, &[("a", 1.0)])]);
    assert_eq!(shares(&plan, "web"), [at("a", 0.5)]);
    let resource = &plan.regions[&region("a")].resources["requests"];
    assert_eq!((resource.usable, resource.before), (40.0, 30.0));
    assert!((resource.after - 70.0).abs() < 1e-9);
}

#[test]
fn what_does_not_fit_is_unserved_and_says_what_is_full() {
    let plan = plan(
        vec![offer("a", 3.0), offer("b", 0.0)],
        vec![demand("web", 4.0, &[("a", 1.0), ("b", 1.0), ("gone", 0.0)])],
    );
    let placement = &plan.placements[&service("web")];
    assert!((placement.unserved - 0.25).abs() < 1e-9);
    let Some(Unserved::Full(bindings)) = &placement.reason else {
        panic!("{:?}", placement.reason);
    };
    let bindings = bindings.iter();
    let bindings: Vec<_> = bindings
        .map(|binding| (binding.region.as_str(), binding.resource.as_deref()))
        .collect();
    let full = Some("requests");
    assert_eq!(bindings, [("a", full), ("b", full), ("gone", None)]);
    let price = plan.regions[&region("a")].resources["requests"].price;
    assert_eq!(price.serves, Some((0, 1.0)));
}

#[test]
fn a_service_without_candidates_says_so() {
    let plan = plan(vec![offer("a", 3.0)], vec![demand("web", 4.0, &[])]);
    let placement = &plan.placements[&service("web")];
    assert_eq!(placement.unserved, 1.0);
    assert_eq!(placement.reason, Some(Unserved::NoCandidate));
}

#[test]
fn a_service_that_needs_nothing_is_served_by_a_region_that_has_nothing() {
    let plan = plan(
        vec![offer("a", 0.0)],
        vec![demand("web", 0.0, &[("a", 1.0)])],
    );
    assert_eq!(shares(&plan, "web"), [at("a", 1.0)]);
}

#[test]
fn nothing_to_place_is_an_empty_plan() {
    assert!(plan(Vec::new(), Vec::new()).placements.is_empty());
}

#[test]
fn a_higher_class_is_served_first_though_it_costs_more() {
    let plan = plan(
        vec![offer("a", 10.0)],
        vec![
            class(1, demand("batch", 10.0, &[("a", 0.0)])),
            class(0, demand("web", 6.0, &[("a", 9.0)])),
        ],
    );
    assert_eq!(shares(&plan, "web"), [at("a", 1.0)]);
    assert_eq!(shares(&plan, "batch"), [at("a", 0.4)]);
    assert!((plan.classes[1].unserved - 6.0).abs() < 1e-9);
}

#[test]
fn a_service_stays_where_it_is_unless_moving_is_worth_it() {
    let moved = |switching_cost| {
        let mut web = demand("web", 1.0, &[("a", 2.0), ("b", 1.5)]);
        web.current = Some(region("a"));
        web.switching_cost = switching_cost;
        shares(
            &plan(vec![offer("a", 9.0), offer("b", 9.0)], vec![web]),
            "web",
        )
    };
    assert_eq!(moved(1.0), [at("a", 1.0)]);
    assert_eq!(moved(0.1), [at("b", 1.0)]);
}

#[test]
fn a_whole_service_is_never_split() {
    let offers = vec![offer("a", 10.0), offer("b", 10.0)];
    let candidates = [("a", 1.0), ("b", 2.0)];
    let plan = plan(
        offers,
        vec![
            whole(demand("one", 6.0, &candidates)),
            whole(demand("three", 6.0, &candidates)),
            whole(demand("two", 6.0, &candidates)),
        ],
    );
    let unserved = |name| plan.placements[&service(name)].unserved;
    assert_eq!(unserved("one") + unserved("two") + unserved("three"), 1.0);
    assert_eq!(plan.classes[0].unserved, 6.0);
    assert_eq!(plan.classes[0].unserved_bound, 0.0);
}

#[test]
fn binary_fractions_that_add_up_fit() {
    let offers = vec![offer("a", 0.6)];
    let sizes = [("x", 0.1), ("y", 0.2), ("z", 0.3)];
    let demands = sizes.map(|(name, size)| whole(demand(name, size, &[("a", 1.0)])));
    let plan = plan(offers, demands.to_vec());
    assert_eq!(plan.classes[0].unserved, 0.0);
}

#[test]
fn what_is_no_number_is_refused_with_its_place() {
    let mut bad = offer("a", f64::NAN);
    let refused = Problem::new(vec![bad.clone()], Vec::new()).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "region a: capacity of requests is NaN; use a number from 0 to 1e15"
    );
    bad.capacity.clear();
    bad.headroom = 1.5;
    assert!(Problem::new(vec![bad], Vec::new()).is_err());
    for cost in [f64::NAN, f64::INFINITY] {
        let web = demand("web", 1.0, &[("a", cost)]);
        let refused = Problem::new(Vec::new(), vec![web]).unwrap_err();
        assert!(
            refused
                .to_string()
                .starts_with("service web: cost of candidate a is ")
        );
    }
    for size in [-1.0, f64::NAN, f64::INFINITY, 1e-12] {
        let mut web = demand("web", 1.0, &[]);
        web.need.insert("requests".to_owned(), size);
        assert!(Problem::new(Vec::new(), vec![web.clone()]).is_err());
        web.need.clear();
        web.weight = size;
        assert!(Problem::new(Vec::new(), vec![web]).is_err());
    }
}

#[test]
fn what_is_given_twice_is_refused() {
    let twice = |place: &str| Invalid::Twice {
        place: place.to_owned(),
    };
    assert_eq!(
        Problem::new(vec![offer("a", 1.0), offer("a", 2.0)], Vec::new()),
        Err(twice("region a"))
    );
    let web = demand("web", 1.0, &[("a", 1.0), ("b", 1.0), ("a", 2.0)]);
    assert_eq!(
        Problem::new(Vec::new(), vec![web.clone()]),
        Err(twice("service web: candidate a"))
    );
    let web = demand("web", 1.0, &[]);
    assert_eq!(
        Problem::new(Vec::new(), vec![web.clone(), web]),
        Err(twice("service web"))
    );
}

/// A random problem: small whole numbers, so that ties and exactly full regions are common, or any numbers.
fn problems() -> impl Strategy<Value = (Vec<Offer>, Vec<Demand>)> {
    let size = (1usize..=6, 0usize..=14, 1usize..=3, any::<bool>());
    size.prop_flat_map(|(regions, demands, resources, rough)| {
        let amount = move |most: u32| {
            (0..=most, 0.0..1.0).prop_map(move |(whole, part): (u32, f64)| {
                f64::from(whole)
                    + if rough {
                        (part * 1e4).round() / 1e4
                    } else {
                        0.0
                    }
            })
        };
        let amounts = move |most: u32| {
            prop::collection::vec(amount(most), resources).prop_map(|amounts| {
                let name = |(at, amount)| (format!("r{at}"), amount);
                amounts.into_iter().enumerate().map(name).collect()
            })
        };
        let offers = prop::collection::vec((amounts(30), amounts(3)), regions);
        let offers = offers.prop_map(|offers| {
            let make = |(at, (capacity, used))| Offer {
                capacity,
                used,
                headroom: 0.1,
                ..Offer::new(region(&format!("r{at}")))
            };
            offers.into_iter().enumerate().map(make).collect()
        });
        let costs = prop::collection::vec((0.7f64..1.7, amount(4)), regions);
        let one = (amounts(8), costs, 0u8..3, any::<bool>(), 0..=regions);
        let demands = prop::collection::vec(one, demands);
        let demands = demands.prop_map(|demands| {
            let make = |(at, (need, costs, class, heavy, current))| {
                let mut demand = Demand::new(service(&format!("s{at}")));
                demand.need = need;
                demand.weight = if heavy { 3.0 } else { 1.0 };
                demand.class = class;
                demand.current = Some(region(&format!("r{current}")));
                demand.switching_cost = 0.5;
                let costs: Vec<(f64, f64)> = costs;
                for (at, (chance, cost)) in costs.into_iter().enumerate() {
                    if chance < 1.5 {
                        let region = region(&format!("r{at}"));
                        demand.candidates.push(Candidate { region, cost });
                    }
                }
                demand
            };
            demands.into_iter().enumerate().map(make).collect()
        });
        (offers, demands)
    })
}

fn all_whole(demands: &[Demand]) -> Vec<Demand> {
    demands.iter().cloned().map(whole).collect()
}

/// What an exact solver finds: the weight left unserved by class, then the cost.
fn oracle(offers: &[Offer], demands: &[Demand], integer: bool) -> (Vec<f64>, f64) {
    oracle_with_slack(offers, demands, integer, 1e-9).unwrap()
}

/// The same, if a class may be served by so much less than it can be; `None` where rounding leaves nothing then.
fn oracle_with_slack(
    offers: &[Offer],
    demands: &[Demand],
    integer: bool,
    slack: f64,
) -> Option<(Vec<f64>, f64)> {
    let mut classes: Vec<u8> = demands.iter().map(|demand| demand.class).collect();
    classes.sort_unstable();
    classes.dedup();
    let mut reached: Vec<f64> = Vec::new();
    for stage in 0..=classes.len() {
        let mut problem = microlp::Problem::new(OptimizationDirection::Minimize);
        let mut rows: BTreeMap<(RegionId, String), Vec<(microlp::Variable, f64)>> = BTreeMap::new();
        let mut left = vec![Vec::new(); classes.len()];
        for demand in demands {
            let mut sum = Vec::new();
            for Candidate { region, cost } in &demand.candidates {
                let stays = demand.current.as_ref() == Some(region);
                let switching = if stays { 0.0 } else { demand.switching_cost };
                let cost = match stage == classes.len() {
                    true => demand.weight * (cost + switching),
                    false => 0.0,
                };
                let share = match integer {
                    true => problem.add_binary_var(cost),
                    false => problem.add_var(cost, (0.0, 1.0)),
                };
                sum.push((share, 1.0));
                for (resource, need) in &demand.need {
                    let row = rows.entry((region.clone(), resource.clone())).or_default();
                    row.push((share, *need));
                }
            }
            let class = classes
                .iter()
                .position(|&class| class == demand.class)
                .unwrap();
            let cost = if class == stage { demand.weight } else { 0.0 };
            let unserved = problem.add_var(cost, (0.0, 1.0));
            left[class].push((unserved, demand.weight));
            sum.push((unserved, 1.0));
            problem.add_constraint(sum, ComparisonOp::Eq, 1.0);
        }
        for offer in offers {
            for (resource, capacity) in &offer.capacity {
                let row = rows.remove(&(offer.region.clone(), resource.clone()));
                let usable = capacity * (1.0 - offer.headroom) - offer.used[resource];
                problem.add_constraint(row.unwrap_or_default(), ComparisonOp::Le, usable.max(0.0));
            }
        }
        for (left, reached) in left.into_iter().zip(&reached) {
            problem.add_constraint(left, ComparisonOp::Le, reached + slack);
        }
        let solution = problem.solve().ok()?.into_solution().ok()?;
        reached.push(solution.objective());
    }
    let cost = reached.pop()?;
    Some((reached, cost))
}

fn keeps_every_capacity(plan: &Plan) -> Result<(), TestCaseError> {
    for (name, region) in &plan.regions {
        for (resource, amounts) in &region.resources {
            prop_assert!(
                amounts.filled <= amounts.usable * (1.0 + TOLERANCE),
                "{name} {resource}: {amounts:?}"
            );
        }
    }
    for placement in plan.placements.values() {
        let sum: f64 = placement.shares.iter().map(|share| share.share).sum();
        prop_assert!(
            (sum + placement.unserved - 1.0).abs() <= 1.1 * TOLERANCE,
            "{placement:?}"
        );
        let full = |reason: &Option<Unserved>| match reason {
            Some(Unserved::Full(bindings)) => !bindings.is_empty(),
            Some(Unserved::NoCandidate) => true,
            None => false,
        };
        prop_assert_eq!(full(&placement.reason), placement.unserved > 0.0);
    }
    Ok(())
}

/// Equal but for what the exact solver takes for rounding.
fn near(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-5 * (1.0 + a.abs().max(b.abs()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// No capacity is passed; every class is served as far as an exact solver serves it, at the same cost.
    #[test]
    fn a_divisible_plan_is_safe_and_optimal((offers, demands) in problems()) {
        let plan = plan(offers.clone(), demands.clone());
        keeps_every_capacity(&plan)?;
        let (unserved, cost) = oracle(&offers, &demands, false);
        for (class, expected) in plan.classes.iter().zip(unserved) {
            prop_assert!(near(class.unserved, expected), "{class:?}, exact {expected}");
            prop_assert!(near(class.unserved_bound, expected), "{class:?}, exact {expected}");
        }
        // The slack buys some cost where services are nearly as good as each other. With less of it there is less to buy.
        let cheaper = [0.0, 1e-12, 1e-11, 1e-10].map(|slack| oracle_with_slack(&offers, &demands, false, slack));
        let mut costs = vec![cost];
        costs.extend(cheaper.into_iter().flatten().map(|(_, cost)| cost));
        for own in [plan.cost, plan.cost_bound] {
            prop_assert!(costs.iter().any(|cost| near(own, *cost)), "{own}, exact {costs:?}");
        }
    }

    /// A price stands only where nothing is left, and the capacity has no other use at that price.
    #[test]
    fn prices_stand_only_on_what_is_full((offers, demands) in problems()) {
        let plan = plan(offers, demands);
        for region in plan.regions.values() {
            for amounts in region.resources.values() {
                let left = amounts.usable - amounts.filled;
                let priced = amounts.price.serves.is_some() || amounts.price.saves.abs() > 1e-9;
                prop_assert!(!priced || left <= 1e-7 * amounts.usable.max(1.0), "{amounts:?}");
                let (_, serves) = amounts.price.serves.unwrap_or((0, 0.0));
                prop_assert!(serves >= 0.0);
                prop_assert!(amounts.price.serves.is_some() || amounts.price.saves >= -1e-9);
            }
        }
    }

    /// Whole services stay whole, no capacity is passed, and no bound is beaten.
    #[test]
    fn a_whole_plan_is_safe((offers, demands) in problems()) {
        let plan = plan(offers, all_whole(&demands));
        keeps_every_capacity(&plan)?;
        for placement in plan.placements.values() {
            prop_assert!(placement.shares.len() <= 1);
            prop_assert!(placement.shares.iter().all(|share| share.share == 1.0));
        }
        if let Some(first) = plan.classes.first() {
            prop_assert!(first.unserved >= first.unserved_bound - 1e-6);
        }
        let as_bound = |class: &leeward_engine::plan::ClassPlan| near(class.unserved, class.unserved_bound);
        if plan.classes.iter().all(as_bound) {
            prop_assert!(plan.cost >= plan.cost_bound - 1e-6 * (1.0 + plan.cost.abs()));
        }
    }

    /// Services that may be split and services that may not, together.
    #[test]
    fn a_mixed_plan_is_safe((offers, mut demands) in problems()) {
        for (at, demand) in demands.iter_mut().enumerate() {
            demand.split = if at % 2 == 0 { Split::Whole } else { Split::Allowed };
        }
        let plan = plan(offers, demands.clone());
        keeps_every_capacity(&plan)?;
        for demand in demands.iter().filter(|demand| demand.split == Split::Whole) {
            prop_assert!(plan.placements[&demand.service].shares.len() <= 1);
        }
    }

    /// The plan does not depend on the order of anything.
    #[test]
    fn permuted_problems_have_the_same_plan(
        (offers, mut demands) in problems(),
        turn in 0usize..14,
        some_whole in any::<bool>(),
    ) {
        for demand in demands.iter_mut().step_by(2) {
            demand.split = if some_whole { Split::Whole } else { Split::Allowed };
        }
        let straight = plan(offers.clone(), demands.clone());
        let (mut offers, mut demands) = (offers, demands);
        offers.reverse();
        if !demands.is_empty() {
            let by = turn % demands.len();
            demands.rotate_left(by);
        }
        for demand in &mut demands {
            demand.candidates.reverse();
        }
        prop_assert_eq!(straight, plan(offers, demands));
    }
}
