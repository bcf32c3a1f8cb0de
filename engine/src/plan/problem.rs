//! What is to be placed, and where it may go.

use std::collections::{BTreeMap, BTreeSet};

use leeward_common::id::{RegionId, ServiceId};

/// Amounts by resource, in the resource's own unit: requests per second, cores, bytes.
pub type Amounts = BTreeMap<String, f64>;

/// Amounts agree within this share: sums of binary fractions are not exact, and `0.1 + 0.2 + 0.3` must fit in `0.6`.
pub const TOLERANCE: f64 = 1e-9;

/// The most regions of a problem.
pub const MAX_REGIONS: usize = 256;
/// The most resources of a problem. The solver keeps a matrix of (regions x resources) squared.
pub const MAX_RESOURCES: usize = 8;
/// The most demands of a problem.
pub const MAX_DEMANDS: usize = 10_000;

/// The smallest amount needed or weight that is not nothing.
const SMALLEST: f64 = 1e-9;
/// The largest amount, weight or cost.
const LARGEST: f64 = 1e15;

/// What a region offers.
#[derive(Clone, Debug, PartialEq)]
pub struct Offer {
    /// The region.
    pub region: RegionId,
    /// Its capacity. A resource that is not listed is not there.
    pub capacity: Amounts,
    /// What others than the demands of this problem use already.
    pub used: Amounts,
    /// What is set aside.
    pub reserved: Amounts,
    /// Share of the capacity to keep free, 0..=1.
    pub headroom: f64,
}

impl Offer {
    /// A region that offers nothing yet.
    #[must_use]
    pub const fn new(region: RegionId) -> Self {
        Self {
            region,
            capacity: Amounts::new(),
            used: Amounts::new(),
            reserved: Amounts::new(),
            headroom: 0.0,
        }
    }
}

/// What a service needs, and where it may go.
#[derive(Clone, Debug, PartialEq)]
pub struct Demand {
    /// The service.
    pub service: ServiceId,
    /// What it needs when all of it is served.
    pub need: Amounts,
    /// How much of it there is, above 0: its users, or its requests per second. Unserved shares and costs count by it.
    pub weight: f64,
    /// Its priority class: 0 is served first.
    pub class: u8,
    /// Where it may go.
    pub candidates: Vec<Candidate>,
    /// Where it is now. May be a region that offers nothing any more.
    pub current: Option<RegionId>,
    /// What it costs to be elsewhere than now, in the unit of [`Candidate::cost`]; not negative.
    pub switching_cost: f64,
    /// Whether several regions may share it.
    pub split: Split,
}

impl Demand {
    /// A demand of weight 1 and class 0 for nothing, that may go nowhere and be split.
    #[must_use]
    pub const fn new(service: ServiceId) -> Self {
        Self {
            service,
            need: Amounts::new(),
            weight: 1.0,
            class: 0,
            candidates: Vec::new(),
            current: None,
            switching_cost: 0.0,
            split: Split::Allowed,
        }
    }
}

/// A region that may serve a demand.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// The region. One without an offer can take nothing.
    pub region: RegionId,
    /// What serving one unit of weight there costs, such as minus the logarithm of the region's weight. Lower is
    /// better; only differences count.
    pub cost: f64,
}

/// Whether several regions may share a service.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Split {
    /// They may.
    #[default]
    Allowed,
    /// One region takes all of it, or none does.
    Whole,
}

/// A problem that cannot be posed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Invalid {
    /// A number out of its range, or not a number.
    #[error("{place}: {what} is {value}; use {allowed}")]
    Number {
        /// Whose number.
        place: String,
        /// Which number.
        what: String,
        /// The number.
        value: f64,
        /// What it may be.
        allowed: &'static str,
    },
    /// Something given twice.
    #[error("{place} is given twice; give it once")]
    Twice {
        /// What.
        place: String,
    },
    /// Too many of something.
    #[error("{count} {what} are more than the {most} that are placed at once; place fewer")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        count: usize,
        /// How many may be.
        most: usize,
    },
}

/// A valid problem, in the order of its ids.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    pub(super) resources: Vec<String>,
    pub(super) offers: Vec<Offer>,
    pub(super) demands: Vec<Demand>,
    /// For each demand, its amounts in the order of the resources.
    pub(super) needs: Vec<Vec<f64>>,
    /// For each demand, where it can go at all.
    pub(super) options: Vec<Vec<Choice>>,
    /// What may be filled, by region and resource.
    pub(super) usable: Vec<f64>,
}

/// An offer that can take some of a demand.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Choice {
    /// Which offer.
    pub(super) region: usize,
    /// Its cost for one unit of weight, with the switching cost.
    pub(super) cost: f64,
}

impl Problem {
    /// Checks offers and demands.
    ///
    /// # Errors
    ///
    /// Returns [`Invalid`], which says where and what to do, for numbers out of range or not numbers, for a region,
    /// service or candidate given twice, and for too many of them.
    pub fn new(mut offers: Vec<Offer>, mut demands: Vec<Demand>) -> Result<Self, Invalid> {
        offers.sort_by(|a, b| a.region.cmp(&b.region));
        demands.sort_by(|a, b| a.service.cmp(&b.service));
        let mut resources = BTreeSet::new();
        for offer in &offers {
            check_offer(offer)?;
            resources.extend(offer.capacity.keys().cloned());
        }
        for demand in &mut demands {
            check_demand(demand)?;
            demand.candidates.sort_by(|a, b| a.region.cmp(&b.region));
            resources.extend(demand.need.keys().cloned());
        }
        let resources: Vec<String> = resources.into_iter().collect();
        at_most("regions", offers.len(), MAX_REGIONS)?;
        at_most("resources", resources.len(), MAX_RESOURCES)?;
        at_most("demands", demands.len(), MAX_DEMANDS)?;
        once(offers.iter().map(|offer| &offer.region), |region| {
            format!("region {region}")
        })?;
        once(demands.iter().map(|demand| &demand.service), |service| {
            format!("service {service}")
        })?;
        for demand in &demands {
            once(demand.candidates.iter().map(|c| &c.region), |region| {
                format!("service {}: candidate {region}", demand.service)
            })?;
        }
        Ok(Self::indexed(resources, offers, demands))
    }

    fn indexed(resources: Vec<String>, offers: Vec<Offer>, demands: Vec<Demand>) -> Self {
        let amount = |amounts: &Amounts, resource: &String| amounts.get(resource).copied();
        let list = |amounts: &Amounts| -> Vec<f64> {
            let of = |resource| amount(amounts, resource).unwrap_or(0.0);
            resources.iter().map(of).collect()
        };
        let usable = offers.iter().flat_map(|offer| {
            let (used, reserved) = (list(&offer.used), list(&offer.reserved));
            let taken = used.into_iter().zip(reserved);
            let capacity = list(&offer.capacity).into_iter().zip(taken);
            let keep = 1.0 - offer.headroom;
            capacity.map(move |(all, (used, reserved))| (all * keep - used - reserved).max(0.0))
        });
        let mut problem = Self {
            usable: usable.collect(),
            needs: demands.iter().map(|demand| list(&demand.need)).collect(),
            options: Vec::new(),
            resources,
            offers,
            demands,
        };
        problem.options = (0..problem.demands.len())
            .map(|demand| problem.choices(demand))
            .collect();
        problem
    }

    /// Where a demand can go: regions that have some of all that it needs, or enough if it must stay whole.
    fn choices(&self, demand: usize) -> Vec<Choice> {
        let Demand {
            candidates,
            current,
            switching_cost,
            split,
            ..
        } = &self.demands[demand];
        let choice = |candidate: &Candidate| {
            let at = |offer: &Offer| offer.region.cmp(&candidate.region);
            let region = self.offers.binary_search_by(at).ok()?;
            let stays = current.as_ref().is_none_or(|now| *now == candidate.region);
            let cost = candidate.cost + if stays { 0.0 } else { *switching_cost };
            let enough = |(usable, need): (&f64, &f64)| match split {
                Split::Allowed => *need == 0.0 || *usable > 0.0,
                Split::Whole => fits(0.0, *need, *usable),
            };
            let mut takes = self.takes(region).iter().zip(&self.needs[demand]);
            takes.all(enough).then_some(Choice { region, cost })
        };
        candidates.iter().filter_map(choice).collect()
    }

    /// What a region may be filled with, by resource.
    fn takes(&self, region: usize) -> &[f64] {
        let many = self.resources.len();
        &self.usable[region * many..][..many]
    }

    /// The row of a region and a resource in [`Problem::usable`].
    pub(super) fn row(&self, region: usize, resource: usize) -> usize {
        region * self.resources.len() + resource
    }

    /// Adds `share` of a demand's needs to the loads of a region.
    pub(super) fn load(&self, loads: &mut [f64], demand: usize, region: usize, share: f64) {
        for (resource, need) in self.needs[demand].iter().enumerate() {
            loads[self.row(region, resource)] += need * share;
        }
    }

    /// Whether all of a demand fits in a region beside these loads.
    pub(super) fn has_room(
        &self,
        usable: &[f64],
        loads: &[f64],
        demand: usize,
        region: usize,
    ) -> bool {
        let mut needs = self.needs[demand].iter().enumerate();
        needs.all(|(resource, &need)| {
            let row = self.row(region, resource);
            fits(loads[row], need, usable[row])
        })
    }
}

/// Whether a need fits beside a load.
pub(super) fn fits(load: f64, need: f64, usable: f64) -> bool {
    need == 0.0 || load + need <= usable * (1.0 + TOLERANCE)
}

fn check_offer(offer: &Offer) -> Result<(), Invalid> {
    let place = || format!("region {}", offer.region);
    let lists = [
        ("capacity", &offer.capacity),
        ("use", &offer.used),
        ("reservation", &offer.reserved),
    ];
    for (noun, amounts) in lists {
        for (resource, &value) in amounts {
            in_range(
                (0.0..=LARGEST).contains(&value),
                place,
                || format!("{noun} of {resource}"),
                value,
                "a number from 0 to 1e15",
            )?;
        }
    }
    in_range(
        (0.0..=1.0).contains(&offer.headroom),
        place,
        || "headroom".to_owned(),
        offer.headroom,
        "a number from 0 to 1 (20 percent is 0.2)",
    )
}

fn check_demand(demand: &Demand) -> Result<(), Invalid> {
    let place = || format!("service {}", demand.service);
    for (resource, &value) in &demand.need {
        in_range(
            value == 0.0 || (SMALLEST..=LARGEST).contains(&value),
            place,
            || format!("need of {resource}"),
            value,
            "0 or a number from 1e-9 to 1e15",
        )?;
    }
    in_range(
        (SMALLEST..=LARGEST).contains(&demand.weight),
        place,
        || "weight".to_owned(),
        demand.weight,
        "a number from 1e-9 to 1e15",
    )?;
    in_range(
        (0.0..=LARGEST).contains(&demand.switching_cost),
        place,
        || "switching cost".to_owned(),
        demand.switching_cost,
        "a number from 0 to 1e15",
    )?;
    for candidate in &demand.candidates {
        in_range(
            candidate.cost.abs() <= LARGEST,
            place,
            || format!("cost of candidate {}", candidate.region),
            candidate.cost,
            "a number from -1e15 to 1e15",
        )?;
    }
    Ok(())
}

fn in_range(
    valid: bool,
    place: impl Fn() -> String,
    what: impl Fn() -> String,
    value: f64,
    allowed: &'static str,
) -> Result<(), Invalid> {
    if valid {
        return Ok(());
    }
    Err(Invalid::Number {
        place: place(),
        what: what(),
        value,
        allowed,
    })
}

fn at_most(what: &'static str, count: usize, most: usize) -> Result<(), Invalid> {
    if count <= most {
        return Ok(());
    }
    Err(Invalid::TooMany { what, count, most })
}

/// Refuses an id that stands twice in a sorted list.
fn once<'a, T: PartialEq + 'a>(
    sorted: impl Iterator<Item = &'a T>,
    place: impl Fn(&T) -> String,
) -> Result<(), Invalid> {
    let mut last = None;
    for id in sorted {
        if last == Some(id) {
            return Err(Invalid::Twice { place: place(id) });
        }
        last = Some(id);
    }
    Ok(())
}
