//! What holds for services whatever happens: regions fail and come back, capacity comes and goes, operators override.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod bench;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bench::{Bench, SECOND, path, policy, region, report, service};
use leeward_common::{
    id::{AgentId, OfferId, OverrideId, RegionId, ReservationId, ResourceId, ServiceId},
    report::Window,
    time::Timestamp,
};
use leeward_engine::{
    Engine,
    decision::{Decision, Share},
    effect::Effect,
    input::{Input, Reports},
    intent::{Amendment, Change, Offer, Override, Owner, Reservation, Rule, Service},
    policy::Policy,
    view::RegionState,
};
use proptest::prelude::*;

const REGIONS: [&str; 5] = ["a", "b", "c", "d", "e"];
const RESOURCES: [&str; 2] = ["cores", "units"];

/// What happens in a second.
#[derive(Clone, Debug)]
enum Step {
    /// Nothing but time.
    Pass,
    /// A region is lost, or back.
    Lose(usize),
    Find(usize),
    Put(usize, Spec),
    Offer(usize, [u8; 2]),
    Reserve(usize, usize, u8),
    Drain(usize, u8),
    Forbid(usize, usize, u8),
    Lift(usize),
}

/// A service.
#[derive(Clone, Debug)]
struct Spec {
    home: usize,
    needs: [u8; 2],
    divisible: bool,
    priority: u8,
    /// It requires the label that regions of the same evenness have.
    picky: bool,
}

fn spec() -> impl Strategy<Value = Spec> {
    let needs = prop::array::uniform2(0u8..60);
    (
        0..5usize,
        needs,
        any::<bool>(),
        0u8..3,
        prop::bool::weighted(0.2),
    )
        .prop_map(|(home, needs, divisible, priority, picky)| Spec {
            home,
            needs,
            divisible,
            priority,
            picky,
        })
}

fn step() -> impl Strategy<Value = Step> {
    let place = 0..5usize;
    let who = 0..8usize;
    prop_oneof![
        4 => Just(Step::Pass),
        2 => place.clone().prop_map(Step::Lose),
        3 => place.clone().prop_map(Step::Find),
        3 => (who.clone(), spec()).prop_map(|(who, spec)| Step::Put(who, spec)),
        2 => (place.clone(), prop::array::uniform2(0u8..200)).prop_map(|(at, all)| Step::Offer(at, all)),
        1 => (place.clone(), who.clone(), 1u8..60).prop_map(|(at, who, n)| Step::Reserve(at, who, n)),
        2 => (place.clone(), 1u8..10).prop_map(|(at, secs)| Step::Drain(at, secs)),
        1 => (who, place.clone(), 1u8..10).prop_map(|(who, at, secs)| Step::Forbid(who, at, secs)),
        1 => place.prop_map(Step::Lift),
    ]
}

/// Services and offers to begin with, and what happens then.
fn story() -> impl Strategy<Value = Vec<Step>> {
    let services = prop::collection::vec(spec(), 8);
    let offers = prop::collection::vec(prop::array::uniform2(20u8..200), 4);
    let steps = prop::collection::vec(step(), 8..20);
    (services, offers, steps).prop_map(|(services, offers, steps)| {
        let services = services
            .into_iter()
            .enumerate()
            .map(|(n, own)| Step::Put(n, own));
        // Of the last region nobody offers anything: it is not counted.
        let offers = offers
            .into_iter()
            .enumerate()
            .map(|(n, own)| Step::Offer(n, own));
        let quiet = std::iter::repeat_n(Step::Pass, 6);
        services.chain(offers).chain(quiet).chain(steps).collect()
    })
}

fn service_id(n: usize) -> ServiceId {
    ServiceId::parse(&format!("s{n}")).unwrap()
}

fn place(n: usize) -> RegionId {
    region(REGIONS[n])
}

fn amounts(all: &[u8]) -> BTreeMap<ResourceId, f64> {
    let named = RESOURCES.iter().zip(all).filter(|&(_, &amount)| amount > 0);
    named
        .map(|(name, &amount)| (ResourceId::parse(name).unwrap(), f64::from(amount)))
        .collect()
}

fn even_label(n: usize) -> String {
    (if n.is_multiple_of(2) { "even" } else { "odd" }).to_owned()
}

fn labelled() -> Policy {
    let mut policy = policy(&REGIONS);
    for n in 0..REGIONS.len() {
        let own = policy.regions.get_mut(&place(n)).unwrap();
        own.labels.insert("side".to_owned(), even_label(n));
    }
    policy
}

/// An engine under a story, and what it has decided.
struct Play {
    engine: Engine,
    second: u32,
    lost: BTreeSet<usize>,
    decisions: Vec<Decision>,
    running: Arc<BTreeMap<ServiceId, Vec<Share>>>,
}

impl Play {
    fn new() -> Self {
        Self {
            engine: Engine::new(labelled()),
            second: 0,
            lost: BTreeSet::new(),
            decisions: Vec::new(),
            running: Arc::default(),
        }
    }

    fn now(&self) -> Timestamp {
        bench::START + SECOND * self.second
    }

    fn tell(&mut self, at: Timestamp, input: &Input) -> Vec<Decision> {
        let effects = self.engine.step(at, input);
        let decided: Vec<_> = effects.into_iter().filter_map(Effect::decision).collect();
        self.decisions.extend(decided.iter().cloned());
        decided
    }

    fn change(&mut self, what: Amendment) -> Vec<Decision> {
        let change = Change {
            who: "ops".to_owned(),
            why: String::new(),
            what,
        };
        self.tell(self.now(), &Input::Change(Box::new(change)))
    }

    fn amendment(&mut self, step: &Step) -> Option<Amendment> {
        let until = |secs: u8| self.now() + SECOND * u32::from(secs);
        let override_id = |text: String| OverrideId::parse(&text).unwrap();
        Some(match step.clone() {
            Step::Pass => return None,
            Step::Lose(n) => {
                self.lost.insert(n);
                return None;
            }
            Step::Find(n) => {
                self.lost.remove(&n);
                return None;
            }
            Step::Put(n, own) => {
                let sides = BTreeSet::from([even_label(own.home)]);
                let what = Service {
                    needs: amounts(&own.needs),
                    divisible: own.divisible,
                    priority: own.priority,
                    require: match own.picky {
                        true => BTreeMap::from([("side".to_owned(), sides)]),
                        false => BTreeMap::new(),
                    },
                    ..service(REGIONS[own.home])
                };
                Amendment::PutService(service_id(n), Box::new(what))
            }
            Step::Offer(n, all) => {
                let what = Offer {
                    region: place(n),
                    amounts: amounts(&all),
                    until: None,
                };
                Amendment::PutOffer(OfferId::parse(REGIONS[n]).unwrap(), what)
            }
            Step::Reserve(at, who, amount) => {
                let what = Reservation {
                    region: place(at),
                    service: Some(service_id(who)),
                    amounts: amounts(&[amount, amount]),
                    until: until(9),
                };
                let id = format!("{}{who}", REGIONS[at]);
                Amendment::PutReservation(ReservationId::parse(&id).unwrap(), what)
            }
            Step::Drain(n, secs) => {
                let rule = Rule::Drain {
                    region: place(n),
                    suspect: false,
                };
                let what = Override {
                    rule,
                    until: until(secs),
                };
                Amendment::PutOverride(override_id(format!("drain-{n}")), what)
            }
            Step::Forbid(who, n, secs) => {
                let rule = Rule::Forbid {
                    owner: Owner::Service(service_id(who)),
                    region: place(n),
                };
                let what = Override {
                    rule,
                    until: until(secs),
                };
                Amendment::PutOverride(override_id(format!("forbid-{who}")), what)
            }
            Step::Lift(n) => Amendment::LiftOverride(override_id(format!("drain-{n}"))),
        })
    }

    /// Plays a second, the agents in this order.
    fn play(&mut self, step: &Step, backwards: bool) {
        if let Some(what) = self.amendment(step) {
            // What was decided before the change is judged by what was known before it.
            let decided = self.tell(self.now(), &Input::Tick);
            self.check(&decided);
            assert!(self.change(what).is_empty());
            self.running = self.engine.view().running;
        }
        let window = Window {
            start: self.now(),
            length: SECOND,
        };
        self.second += 1;
        let mut from: Vec<usize> = (0..REGIONS.len())
            .filter(|n| !self.lost.contains(n))
            .collect();
        if backwards {
            from.reverse();
        }
        for n in from {
            let to = (0..REGIONS.len()).filter(|to| *to != n);
            let rows = to.map(|to| {
                let answered = if self.lost.contains(&to) { 0 } else { 10 };
                let far = 15_000 + 4_000 * u32::try_from(n.abs_diff(to)).unwrap();
                (path(&format!("{}1", REGIONS[to])), report((answered, far)))
            });
            let (table, rows) = Reports::table_of(rows);
            let reports = Reports {
                agent: AgentId::parse(&format!("{}1", REGIONS[n])).unwrap(),
                region: place(n),
                window,
                until: window.end(),
                health: None,
                table,
                rows,
            };
            let decided = self.tell(self.now(), &Input::Reports(reports));
            self.check(&decided);
        }
        for quarter in 1..4 {
            let decided = self.tell(self.now() + SECOND * quarter / 4, &Input::Tick);
            self.check(&decided);
        }
    }

    /// What must hold after decisions, whatever they are.
    fn check(&mut self, decided: &[Decision]) {
        let view = self.engine.view();
        for own in decided.iter().filter(|own| own.service.is_some()) {
            let id = own.service.as_ref().unwrap();
            let sum: f64 = own.assignment.iter().map(|share| share.share).sum();
            let missing = own.unserved.as_ref().map_or(0.0, |own| own.share);
            assert!((sum + missing - 1.0).abs() < 1e-6, "{own:?}");
            let Some(known) = view.intents.services.get(id) else {
                continue;
            };
            for share in &own.assignment {
                let candidate = own.evidence.candidate(&share.region).unwrap();
                let came = candidate
                    .reasons
                    .iter()
                    .filter(|_| !self.ran_in(own, &share.region));
                // Room is judged for all together, and an order of others may have made some.
                let against = came
                    .filter(|own| own.code.code() != "no_room" && own.code.code() != "shared_risk");
                assert_eq!(
                    against.count(),
                    0,
                    "{} goes to {}: {candidate:?}",
                    id,
                    share.region
                );
                let side = &view.policy.regions[&share.region].labels["side"];
                let kept = known
                    .what
                    .require
                    .get("side")
                    .is_none_or(|sides| sides.contains(side));
                assert!(kept || self.ran_in(own, &share.region), "{own:?}");
            }
        }
        // Where decisions have put more than was there before, all of it fits.
        let mut more: BTreeMap<(&RegionId, &ResourceId), f64> = BTreeMap::new();
        let moved: BTreeSet<_> = decided
            .iter()
            .filter_map(|own| own.service.as_ref())
            .collect();
        for id in moved {
            let Some(known) = view.intents.services.get(id) else {
                continue;
            };
            let before = self.running.get(id).map_or(&[][..], Vec::as_slice);
            let after = &view.running[id];
            for (resource, need) in &known.what.needs {
                for own in before {
                    *more.entry((&own.region, resource)).or_default() -= need * own.share;
                }
                for own in after {
                    *more.entry((&own.region, resource)).or_default() += need * own.share;
                }
            }
        }
        for ((region, resource), more) in more {
            let own = &view.capacity.regions[region];
            if !own.counted || more <= 1e-6 {
                continue;
            }
            let account = &own.accounts[resource];
            let usable = account.offered - account.kept;
            assert!(
                account.used <= usable + 1e-6,
                "{region} {resource}: {more} more, {account:?}"
            );
        }
        self.running = view.running;
    }

    /// Whether a service ran in a region before a decision.
    fn ran_in(&self, decision: &Decision, region: &RegionId) -> bool {
        let earlier = self
            .decisions
            .iter()
            .filter(|own| own.id < decision.id && own.service == decision.service);
        let before = earlier.max_by_key(|own| own.id);
        match before {
            Some(before) => before
                .assignment
                .iter()
                .any(|share| share.region == *region),
            None => decision.from.as_ref() == Some(region),
        }
    }
}

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 16,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    /// No region is filled beyond what it offers by anybody who comes; nobody comes to a region that a gate refuses,
    /// such as one that is forbidden, drained, down or without a label that is required; nothing is lost from the books;
    /// and a region that is drained is empty of services that stay whole, if these may go anywhere else.
    #[test]
    fn placements_keep_what_was_asked_for(story in story()) {
        let mut play = Play::new();
        for step in &story {
            play.play(step, false);
        }
        for _ in 0..3 {
            play.play(&Step::Pass, false);
        }
        let view = play.engine.view();
        for given in view.intents.overrides.values() {
            let Rule::Drain { region, .. } = &given.what.rule else { continue };
            for (id, shares) in view.running.iter() {
                let ranking = view.service_ranking(id).unwrap();
                // One that is divisible leaves as far as there is room elsewhere.
                let whole = !view.intents.services[id].what.divisible;
                let elsewhere = whole && ranking.best().is_some();
                let here = shares.iter().any(|own| own.region == *region);
                prop_assert!(!here || !elsewhere, "{id} is still in {region}: {ranking:?}");
            }
        }
    }

    /// What arrives in one instant has no order.
    #[test]
    fn the_order_of_reports_moves_no_service(story in story()) {
        let (mut one, mut other) = (Play::new(), Play::new());
        for step in &story {
            one.play(step, false);
            other.play(step, true);
        }
        prop_assert_eq!(&one.decisions, &other.decisions);
        prop_assert_eq!(one.engine.view().readiness, other.engine.view().readiness);
    }

    /// A snapshot in the middle, through its serialised form, changes nothing after it.
    #[test]
    fn services_go_on_from_a_snapshot(story in story(), cut in 0usize..20) {
        let (mut whole, mut resumed) = (Play::new(), Play::new());
        for (n, step) in story.iter().enumerate() {
            if n == cut {
                let bytes = rmp_serde::to_vec_named(resumed.engine.to_snapshot()).unwrap();
                resumed.engine = Engine::from_snapshot(rmp_serde::from_slice(&bytes).unwrap()).unwrap();
            }
            whole.play(step, false);
            resumed.play(step, false);
        }
        prop_assert_eq!(&whole.decisions, &resumed.decisions);
        prop_assert_eq!(whole.engine.view().running, resumed.engine.view().running);
    }

    /// An override that expired leaves everything as it would have been, once the holds that its moves brought are over.
    #[test]
    fn an_override_that_expired_leaves_nothing_behind(home in 0..5usize, drained in 0..5usize, secs in 1u8..10) {
        let run = |overridden: bool| {
            let mut bench = Bench::new(&REGIONS, &["a1", "b1", "c1", "d1", "e1"]);
            let tell = |bench: &mut Bench, what| {
                let change = Change { who: "ops".to_owned(), why: String::new(), what };
                bench.step(bench.now(), &Input::Change(Box::new(change)));
            };
            tell(&mut bench, Amendment::PutService(service_id(0), Box::new(service(REGIONS[home]))));
            bench.run(10, bench::WELL);
            if overridden {
                let rule = Rule::Drain { region: place(drained), suspect: false };
                let until = bench.now() + SECOND * u32::from(secs);
                let id = OverrideId::parse("drain").unwrap();
                tell(&mut bench, Amendment::PutOverride(id, Override { rule, until }));
            }
            let view = bench.run(250, bench::WELL);
            (view.running, view.capacity, view.intents.overrides.len())
        };
        prop_assert_eq!(run(true), run(false));
    }
}

#[test]
fn a_story_without_trouble_moves_nothing() {
    let mut play = Play::new();
    let own = Spec {
        home: 1,
        needs: [1, 1],
        divisible: false,
        priority: 0,
        picky: true,
    };
    play.play(&Step::Put(0, own), false);
    for _ in 0..20 {
        play.play(&Step::Pass, false);
    }
    assert!(play.decisions.iter().all(|own| own.service.is_none()));
    let view = play.engine.view();
    assert!(
        view.regions
            .values()
            .all(|own| own.state == RegionState::Up)
    );
}
