//! Where services go: all that must move, at once, by what each region has room for ([`crate::plan`]).
//!
//! - A service may go to every region that passes all gates but that of its room, which is asked here: for all who move
//!   together and not for each alone.
//! - What a region costs is minus the logarithm of its score, and leaving the present one costs the policy's margin.
//! - A region that shares a risk with one that is failing is taken only when the others are full; and a service that
//!   should leave a region which still serves stays there rather than run nowhere.
//! - Who may stay keeps its room until it has left: nobody else is placed in it before the next evaluation. What runs in
//!   a region that is down holds no room.
//! - What is reserved for a service is there for it alone. That of a divisible service is counted as free for all who
//!   move with it, since it may take its shares elsewhere.
//! - Every service of one priority counts alike: of two that do not fit together, a lower priority number goes first, and
//!   among equals as many as possible.

use std::collections::{BTreeMap, BTreeSet};

use leeward_common::{
    id::{RegionId, ResourceId, ServiceId},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::{
    capacity::Capacity,
    decision::{Share, Unserved},
    gate::RefusalCode,
    intent::{Intents, Owner, Service},
    overrides,
    plan::{self, Amounts, Demand, Offer, Problem, Split},
    policy::Policy,
    select::{self, Appraisal, Picture, Request},
    view::{RegionState, RegionView, View},
};

/// Costs more than any difference of scores: a risk that is shared.
const SHARED_RISK_COST: f64 = 1e2;
/// Costs more than any risk: staying where it should not, and going elsewhere than was decided.
const LAST_RESORT_COST: f64 = 1e4;
/// What a region that nobody counts can take.
const UNCOUNTED: f64 = 1e15;
/// Shares below are the solver's noise.
const NOISE: f64 = 1e-9;

/// Where a service runs.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Placed {
    /// By which shares, by region.
    pub shares: Vec<Share>,
    /// What of it runs nowhere; `None` if all of it runs.
    pub unserved: Option<Unserved>,
}

impl Placed {
    /// All of it in one region.
    #[must_use]
    pub fn whole(region: RegionId) -> Self {
        Self {
            shares: vec![Share::whole(region)],
            unserved: None,
        }
    }

    /// The region with the largest share, of equal ones the first.
    #[must_use]
    pub fn main(&self) -> Option<&RegionId> {
        let by_share =
            |a: &&Share, b: &&Share| a.share.total_cmp(&b.share).then(b.region.cmp(&a.region));
        self.shares.iter().max_by(by_share).map(|own| &own.region)
    }

    /// Which part runs nowhere.
    pub(crate) fn missing(&self) -> f64 {
        self.unserved.as_ref().map_or(0.0, |own| own.share)
    }

    /// What the main region alone does not say: `70 % in a, 30 % in b`; empty if it says all.
    pub(crate) fn words(&self) -> String {
        let mut words = Vec::new();
        if self.shares.len() > 1 {
            let shares = self.shares.iter();
            words.extend(shares.map(|own| format!("{:.0} % in {}", own.share * 100.0, own.region)));
        }
        if let Some(unserved) = &self.unserved {
            let share = unserved.share * 100.0;
            words.push(format!(
                "{share:.0} % of it runs nowhere: {}",
                unserved.because
            ));
        }
        words.join(", ")
    }
}

/// A service that moves.
#[derive(Clone, Debug)]
pub(crate) struct Mover<'a> {
    pub(crate) id: &'a ServiceId,
    pub(crate) service: &'a Service,
    pub(crate) appraisals: &'a [Appraisal],
    pub(crate) current: &'a [Share],
    /// Where it was decided to go, if it need not leave.
    pub(crate) towards: Option<&'a RegionId>,
}

/// Where all who move go, and what room would be worth.
#[derive(Clone, Debug, Default)]
pub(crate) struct Together {
    pub(crate) placed: BTreeMap<ServiceId, Placed>,
    pub(crate) prices: BTreeMap<RegionId, BTreeMap<ResourceId, Price>>,
}

impl Mover<'_> {
    fn runs_in(&self, region: &RegionId) -> bool {
        self.current.iter().any(|own| own.region == *region)
    }

    /// Whether it runs there and could go on to.
    fn may_stay(&self, own: &Appraisal) -> bool {
        let lost = |code| matches!(code, RefusalCode::Down | RefusalCode::UnknownRegion);
        self.runs_in(&own.region) && !own.refusals().any(|refusal| lost(refusal.code))
    }

    /// Whether its room is kept until it has left.
    fn keeps_room(&self) -> bool {
        !self.service.divisible && self.appraisals.iter().any(|own| self.may_stay(own))
    }

    /// What it would cost to run there; `None` where it may not.
    fn cost(&self, own: &Appraisal) -> Option<f64> {
        let passes = |refusal: &crate::gate::Refusal| {
            matches!(refusal.code, RefusalCode::NoRoom | RefusalCode::SharedRisk)
        };
        let last_resort = self.may_stay(own).then_some(LAST_RESORT_COST);
        if !own.refusals().all(passes) {
            return last_resort;
        }
        let risky = own
            .refusals()
            .any(|own| own.code == RefusalCode::SharedRisk);
        let cost = -own.log_score()? + if risky { SHARED_RISK_COST } else { 0.0 };
        match self.towards {
            Some(towards) if own.region == *towards => Some(cost),
            Some(_) if self.service.divisible => Some(cost + LAST_RESORT_COST),
            Some(_) => last_resort,
            None => Some(cost),
        }
    }
}

/// Places all who move, beside all others as they run.
pub(crate) fn place_together(
    policy: &Policy,
    intents: &Intents,
    running: &BTreeMap<ServiceId, Vec<Share>>,
    movers: &[Mover<'_>],
) -> Together {
    let leaving: BTreeSet<&ServiceId> = movers
        .iter()
        .filter(|mover| !mover.keeps_room())
        .map(|mover| mover.id)
        .collect();
    let others = running.iter().filter(|(id, _)| !leaving.contains(id));
    let capacity = capacity(policy, intents, others);
    let mut movers: Vec<&Mover<'_>> = movers.iter().collect();
    movers.sort_by_key(|mover| (mover.service.priority, mover.id));
    let mut ground = Ground::new(policy, &capacity, &movers);
    let demands: Vec<Demand> = movers
        .iter()
        .map(|mover| ground.demand(mover, policy.steadiness.margin.ln().max(0.0)))
        .collect();
    let names = ground.names.clone();
    match Problem::new(ground.offers(), demands.clone()) {
        Ok(problem) => read(&plan::place(&problem), &names),
        // Too many regions or resources for one problem: one after the other, each where it fits.
        Err(_) => Together {
            placed: one_by_one(policy, intents, &capacity, running, &movers),
            prices: BTreeMap::new(),
        },
    }
}

/// The ledger when services run by these shares.
pub(crate) fn capacity<'a>(
    policy: &Policy,
    intents: &'a Intents,
    running: impl Iterator<Item = (&'a ServiceId, &'a Vec<Share>)>,
) -> Capacity {
    let described = running.filter_map(|(id, shares)| {
        let known = intents.services.get(id)?;
        Some((id, &*known.what, shares.as_slice()))
    });
    Capacity::new(policy, intents, described)
}

/// The offers of a problem in the making. A region stands for what is free for all; a second one beside it, where needed,
/// for the room that some have for themselves.
struct Ground<'a> {
    policy: &'a Policy,
    capacity: &'a Capacity,
    needed: BTreeSet<&'a ResourceId>,
    /// What those with room of their own lack there is taken from what is free for all.
    carved: BTreeMap<RegionId, BTreeMap<&'a ResourceId, f64>>,
    /// What is reserved for divisible services that move.
    released: BTreeMap<RegionId, BTreeMap<&'a ResourceId, f64>>,
    /// Regions by the names of their second offers.
    names: BTreeMap<RegionId, RegionId>,
}

impl<'a> Ground<'a> {
    fn new(policy: &'a Policy, capacity: &'a Capacity, movers: &[&Mover<'a>]) -> Self {
        let needed = movers.iter().flat_map(|mover| mover.service.needs.keys());
        let mut released: BTreeMap<RegionId, BTreeMap<_, f64>> = BTreeMap::new();
        for mover in movers.iter().filter(|mover| mover.service.divisible) {
            for (region, own) in &capacity.regions {
                for (resource, account) in &own.accounts {
                    if let Some(amount) = account.reserved_for.get(mover.id) {
                        let all = released.entry(region.clone()).or_default();
                        *all.entry(resource).or_default() += amount;
                    }
                }
            }
        }
        Self {
            policy,
            capacity,
            needed: needed.collect(),
            carved: BTreeMap::new(),
            released,
            names: BTreeMap::new(),
        }
    }

    fn demand(&mut self, mover: &Mover<'a>, switching_cost: f64) -> Demand {
        let mut demand = Demand::new(mover.id.clone());
        let needs = mover.service.needs.iter();
        demand.need = needs
            .map(|(resource, need)| (resource.to_string(), *need))
            .collect();
        demand.class = mover.service.priority;
        demand.switching_cost = switching_cost;
        if !mover.service.divisible {
            demand.split = Split::Whole;
        }
        let mut largest = 0.0;
        for own in mover.appraisals {
            let Some(cost) = mover.cost(own) else {
                continue;
            };
            let share = mover
                .current
                .iter()
                .find(|share| share.region == own.region);
            // Who is there by a share only, and must be whole from now on, needs room for the rest.
            let is_whole = share.is_some_and(|share| share.share > 1.0 - plan::TOLERANCE);
            let stays = is_whole && mover.may_stay(own);
            let has_own = !mover.service.divisible && (stays || self.carve(mover, &own.region));
            let region = match has_own {
                true => self.second(&own.region),
                false => own.region.clone(),
            };
            if let Some(share) = share.filter(|share| share.share > largest) {
                largest = share.share;
                demand.current = Some(region.clone());
            }
            demand.candidates.push(plan::Candidate { region, cost });
        }
        demand
    }

    /// Whether what is reserved for a service, with what is free for all, is enough; then it is taken.
    fn carve(&mut self, mover: &Mover<'a>, region: &RegionId) -> bool {
        let Some(own) = self.capacity.regions.get(region).filter(|own| own.counted) else {
            return false;
        };
        let carved = self.carved.get(region);
        let mut any = false;
        let mut lacking = Vec::new();
        for (resource, need) in &mover.service.needs {
            let Some(account) = own.accounts.get(resource) else {
                return false;
            };
            let reserved = account.reserved_for.get(mover.id).copied().unwrap_or(0.0);
            any |= reserved > 0.0;
            let lacks = (need - reserved).max(0.0);
            let taken = carved
                .and_then(|all| all.get(resource))
                .copied()
                .unwrap_or(0.0);
            if lacks > account.free() - taken + plan::TOLERANCE * account.offered {
                return false;
            }
            lacking.push((resource, lacks));
        }
        if any {
            let carved = self.carved.entry(region.clone()).or_default();
            for (resource, lacks) in lacking {
                *carved.entry(resource).or_default() += lacks;
            }
        }
        any
    }

    /// The name of a region's second offer, which is nobody else's.
    fn second(&mut self, region: &RegionId) -> RegionId {
        if let Some((name, _)) = self.names.iter().find(|(_, own)| *own == region) {
            return name.clone();
        }
        let taken = |name: &RegionId| self.policy.regions.contains_key(name);
        let names = (self.names.len()..).filter_map(|n| RegionId::parse(&format!("own-{n}")).ok());
        let free = |name: &RegionId| !taken(name) && !self.names.contains_key(name);
        let name = names.into_iter().find(free);
        let name = name.expect("there are more names than regions");
        self.names.insert(name.clone(), region.clone());
        name
    }

    fn offers(&self) -> Vec<Offer> {
        let plenty = || {
            self.needed
                .iter()
                .map(|own| (own.to_string(), UNCOUNTED))
                .collect()
        };
        let of = |all: &BTreeMap<RegionId, BTreeMap<&ResourceId, f64>>, region, resource| {
            let own = all.get(region).and_then(|own| own.get(resource));
            own.copied().unwrap_or(0.0)
        };
        let first = self.policy.regions.keys().map(|region| {
            let mut offer = Offer::new(region.clone());
            let counted = self.capacity.regions.get(region).filter(|own| own.counted);
            let Some(own) = counted else {
                offer.capacity = plenty();
                return offer;
            };
            offer.headroom = self.policy.capacity.reserve;
            for resource in &self.needed {
                let Some(account) = own.accounts.get(*resource) else {
                    continue;
                };
                let reserved = account.reserved + of(&self.carved, region, *resource)
                    - of(&self.released, region, *resource);
                let insert = |all: &mut Amounts, amount: f64| {
                    all.insert(resource.to_string(), amount.clamp(0.0, UNCOUNTED));
                };
                insert(&mut offer.capacity, account.offered);
                insert(&mut offer.used, account.used);
                insert(&mut offer.reserved, reserved);
            }
            offer
        });
        let second = self.names.keys().map(|name| {
            let mut offer = Offer::new(name.clone());
            offer.capacity = plenty();
            offer
        });
        first.chain(second).collect()
    }
}

fn read(plan: &plan::Plan, names: &BTreeMap<RegionId, RegionId>) -> Together {
    let region = |name: &RegionId| names.get(name).unwrap_or(name).clone();
    let placed = plan.placements.iter().map(|(id, placement)| {
        let mut shares: BTreeMap<RegionId, f64> = BTreeMap::new();
        for own in placement.shares.iter().filter(|own| own.share > NOISE) {
            *shares.entry(region(&own.region)).or_default() += own.share;
        }
        let shares = shares
            .into_iter()
            .map(|(region, share)| Share { region, share });
        let because = match &placement.reason {
            Some(plan::Unserved::Full(bindings)) => full(bindings, names),
            _ => "no region may be selected".to_owned(),
        };
        let share = placement.unserved;
        let placed = Placed {
            shares: shares.collect(),
            unserved: (share > NOISE).then_some(Unserved { share, because }),
        };
        (id.clone(), placed)
    });
    let regions = plan
        .regions
        .iter()
        .filter(|(name, _)| !names.contains_key(*name));
    let prices = regions.map(|(region, own)| {
        let price = |(name, own): (&String, &plan::ResourcePlan)| {
            let price = Price {
                serves: own.price.serves,
                saves: own.price.saves,
            };
            Some((ResourceId::parse(name).ok()?, price))
        };
        (
            region.clone(),
            own.resources.iter().filter_map(price).collect(),
        )
    });
    Together {
        placed: placed.collect(),
        prices: prices.collect(),
    }
}

fn full(bindings: &[plan::Binding], names: &BTreeMap<RegionId, RegionId>) -> String {
    const SHOWN: usize = 3;
    let shown = bindings
        .iter()
        .filter(|own| !names.contains_key(&own.region));
    let words = shown.clone().take(SHOWN).map(|own| match &own.resource {
        Some(resource) => format!(
            "{} has {:.1} {resource} free, {:.1} needed",
            own.region, own.free, own.needed
        ),
        None => format!("{} offers nothing", own.region),
    });
    let words: Vec<_> = words.collect();
    let more = match shown.count().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("no room: {}{more}", words.join("; "))
}

fn one_by_one(
    policy: &Policy,
    intents: &Intents,
    capacity: &Capacity,
    running: &BTreeMap<ServiceId, Vec<Share>>,
    movers: &[&Mover<'_>],
) -> BTreeMap<ServiceId, Placed> {
    let mut capacity = capacity.clone();
    let moving: BTreeSet<_> = movers.iter().map(|mover| mover.id).collect();
    let mut running = running.clone();
    running.retain(|id, _| !moving.contains(id));
    for mover in movers.iter().filter(|mover| mover.keeps_room()) {
        running.insert(mover.id.clone(), mover.current.to_vec());
    }
    let mut all = BTreeMap::new();
    for mover in movers {
        let mut options: Vec<_> = mover
            .appraisals
            .iter()
            .filter_map(|own| Some((mover.cost(own)?, own)))
            .collect();
        options.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.region.cmp(&b.1.region)));
        let fits = |own: &Appraisal| {
            let mut lacking = capacity.lacking(&own.region, mover.id, mover.service, 1.0);
            (mover.keeps_room() && mover.may_stay(own)) || lacking.next().is_none()
        };
        let found = options.iter().find(|(_, own)| fits(own));
        let placed = match found {
            Some((_, own)) => Placed::whole(own.region.clone()),
            None => Placed {
                shares: Vec::new(),
                unserved: Some(Unserved {
                    share: 1.0,
                    because: "no region that may be selected has room".to_owned(),
                }),
            },
        };
        if !mover.keeps_room() {
            running.insert(mover.id.clone(), placed.shares.clone());
        } else if let Some(arrived) = placed.shares.first()
            && !mover.runs_in(&arrived.region)
        {
            // Until the next evaluation it holds both.
            let mut both = mover.current.to_vec();
            both.push(arrived.clone());
            running.insert(mover.id.clone(), both);
        }
        capacity = self::capacity(policy, intents, running.iter());
        all.insert(mover.id.clone(), placed);
    }
    all
}

/// What would happen if some regions failed now.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct WhatIf {
    /// When it was asked.
    pub at: Timestamp,
    /// The regions.
    pub failed: BTreeSet<RegionId>,
    /// The services that run in one of them, and where they would go.
    pub services: BTreeMap<ServiceId, Fate>,
    /// What that would do to each region that is left, by resource.
    pub regions: BTreeMap<RegionId, BTreeMap<ResourceId, Load>>,
    /// The state of the graph that it was made from.
    pub graph_version: u64,
}

/// Where a service would go.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Fate {
    /// Where it runs now.
    pub before: Vec<Share>,
    /// Where it would run.
    pub after: Vec<Share>,
    /// What of it would run nowhere; `None` if all of it would run.
    pub unserved: Option<Unserved>,
    /// Its priority: 0 is the most important.
    pub priority: u8,
}

/// One resource of a region before and after, in the resource's own unit.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Load {
    /// All that is offered; `None` if nobody offers anything of the region, which then takes what comes.
    pub offered: Option<f64>,
    /// What may be used at most: what is offered, less what is kept free and reserved for others.
    pub usable: Option<f64>,
    /// What is used now.
    pub before: f64,
    /// What would be used.
    pub after: f64,
    /// What one more unit would be worth; 0 where some is left.
    pub price: Price,
}

/// What one more unit of a resource would be worth.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Price {
    /// The most important priority of which more would be served, and how many services of it.
    pub serves: Option<(u8, f64)>,
    /// By how much the sum of the services' scores, in natural logarithms, would be better.
    pub saves: f64,
}

/// Where services would go if these regions failed now: the answer that somebody wants before the event. Regions that the
/// policy does not know make no difference.
#[must_use]
pub fn what_if(view: &View, failed: &BTreeSet<RegionId>) -> WhatIf {
    let mut regions = (*view.regions).clone();
    for region in failed {
        if let Some(own) = regions.get_mut(region) {
            *own = RegionView {
                state: RegionState::Down,
                detail: "supposed to have failed".to_owned(),
                ..own.clone()
            };
        }
    }
    let picture = Picture {
        regions: &regions,
        ..view.picture()
    };
    let intents = &view.intents;
    let is_hit = |shares: &[Share]| shares.iter().any(|own| failed.contains(&own.region));
    let hit = view.running.iter().filter(|(_, shares)| is_hit(shares));
    let mut services = BTreeMap::new();
    let mut moving = Vec::new();
    for (id, before) in hit {
        let Some(known) = intents.services.get(id) else {
            continue;
        };
        let owner = Owner::Service(id.clone());
        let held = overrides::rules(intents, &owner).holds();
        let fate = Fate {
            before: before.clone(),
            after: before.clone(),
            unserved: None,
            priority: known.what.priority,
        };
        match held {
            Some((_, held)) => {
                let lost = before.iter().filter(|own| failed.contains(&own.region));
                let words = held.what.rule.words();
                let unserved = Some(Unserved {
                    share: lost.map(|own| own.share).sum::<f64>().min(1.0),
                    because: format!("{words}, says {}", overrides::by(held)),
                });
                services.insert(id.clone(), Fate { unserved, ..fate });
            }
            None => {
                let request =
                    Request::of_service(&view.policy, id, &known.what).selected(before.clone());
                let (_, appraisals) = select::appraise(&picture, &request);
                moving.push((id, &*known.what, appraisals, before));
                services.insert(id.clone(), fate);
            }
        }
    }
    let movers: Vec<_> = moving
        .iter()
        .map(|(id, service, appraisals, current)| Mover {
            id,
            service,
            appraisals,
            current,
            towards: None,
        })
        .collect();
    let together = place_together(&view.policy, intents, &view.running, &movers);
    let mut running = (*view.running).clone();
    for (id, placed) in &together.placed {
        running.insert(id.clone(), placed.shares.clone());
        if let Some(fate) = services.get_mut(id) {
            fate.after.clone_from(&placed.shares);
            fate.unserved.clone_from(&placed.unserved);
        }
    }
    let after = capacity(&view.policy, intents, running.iter());
    WhatIf {
        at: view.now,
        failed: failed.clone(),
        services,
        regions: loads(&view.capacity, &after, failed, &together),
        graph_version: view.graph_version,
    }
}

fn loads(
    before: &Capacity,
    after: &Capacity,
    failed: &BTreeSet<RegionId>,
    together: &Together,
) -> BTreeMap<RegionId, BTreeMap<ResourceId, Load>> {
    let left = after
        .regions
        .iter()
        .filter(|(region, _)| !failed.contains(*region));
    let region = |(region, own): (&RegionId, &crate::capacity::RegionCapacity)| {
        let prices = together.prices.get(region);
        let old = before.regions.get(region);
        let load = |(resource, account): (&ResourceId, &crate::capacity::Account)| {
            let old = old.and_then(|old| old.accounts.get(resource));
            let usable = account.offered - account.kept - account.reserved;
            let price = prices.and_then(|own| own.get(resource)).copied();
            let load = Load {
                offered: own.counted.then_some(account.offered),
                usable: own.counted.then_some(usable.max(0.0)),
                before: old.map_or(0.0, |old| old.used),
                after: account.used,
                price: price.unwrap_or_default(),
            };
            (resource.clone(), load)
        };
        (region.clone(), own.accounts.iter().map(load).collect())
    };
    left.map(region).collect()
}
