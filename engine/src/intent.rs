//! What people ask for beside the policy: services, capacity, overrides, and by which prefixes regions are reached. Told one change at a time, each with who
//! asked for it and why; remembered with the version at which it was last changed.
//!
//! The policy is the operator's configuration and comes as a whole. Intents come and go one by one, through the API or
//! from a folder of files, while the engine runs.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use leeward_common::{
    api::v1::CheckSpec,
    bgp::Prefix,
    id::{CheckId, OfferId, OverrideId, RegionId, ReservationId, ResourceId, ServiceId},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::policy::{Policy, Weights};

mod spec;

/// One change, and who made it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Change {
    /// Who asked for it, as the API knows them.
    pub who: String,
    /// Why, in their words; empty if they said nothing.
    pub why: String,
    /// What changes.
    pub what: Amendment,
}

/// What changes. Putting what is there replaces it; removing what is not there changes nothing.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Amendment {
    /// A service is as described from now on.
    PutService(ServiceId, Box<Service>),
    /// A service is no more.
    RemoveService(ServiceId),
    /// A region offers capacity.
    PutOffer(OfferId, Offer),
    /// An offer is withdrawn.
    RemoveOffer(OfferId),
    /// Capacity is set aside.
    PutReservation(ReservationId, Reservation),
    /// A reservation is given up.
    RemoveReservation(ReservationId),
    /// An operator overrides the engine.
    PutOverride(OverrideId, Override),
    /// An override is lifted.
    LiftOverride(OverrideId),
    /// A region is reached by these prefixes.
    PutReach(RegionId, Reach),
    /// Nobody says any more by which prefixes a region is reached, but the configuration.
    RemoveReach(RegionId),
}

/// By which prefixes a region is reached, instead of those of the configuration.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Reach {
    /// The prefixes, at least one.
    pub prefixes: BTreeSet<Prefix>,
    /// The systems that may announce them; empty if that is not known.
    pub origins: BTreeSet<u32>,
}

/// A service of the user's: where it may run, what it needs, and what it is sensitive to.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Service {
    /// Where it belongs, and where it runs when it is first heard of.
    pub home: RegionId,
    /// Where it may run beside its home, none twice; every other region if empty.
    pub candidates: Vec<RegionId>,
    /// Multipliers of the baseline weight by region, above 0; 1 where absent.
    pub multipliers: BTreeMap<RegionId, f64>,
    /// Where its users are: shares above 0, by region. Where empty, every region counts alike.
    pub clients: BTreeMap<RegionId, f64>,
    /// What it is sensitive to.
    pub profile: Profile,
    /// What it cannot do without.
    pub limits: Limits,
    /// What it takes of a region's capacity, above 0, by resource.
    pub needs: BTreeMap<ResourceId, f64>,
    /// Whether it may run in several regions at once, by shares.
    pub divisible: bool,
    /// Labels that a region must have: one of these values each.
    pub require: BTreeMap<String, BTreeSet<String>>,
    /// Labels that a region must not have: any of these values.
    pub forbid: BTreeMap<String, BTreeSet<String>>,
    /// Services that must be able to run where it runs, or be reachable within its limits.
    pub depends_on: BTreeSet<ServiceId>,
    /// What agents of other regions ask of it where it runs or could run.
    #[serde(default)]
    pub checks: BTreeMap<CheckId, CheckSpec>,
    /// How its data gets to where it may run.
    pub replication: Replication,
    /// 0 is the most important; services of a lower number are placed first when capacity is short.
    pub priority: u8,
    /// Recovery time objective: how soon it must run again.
    pub rto: Option<Duration>,
    /// Recovery point objective: how much of its data, in time, may be lost.
    pub rpo: Option<Duration>,
    /// How it comes back; the policy's way if `None`.
    pub failback: Option<Failback>,
}

/// What a service is sensitive to: which numbers make its network weight.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// The policy's own weights.
    #[default]
    Balanced,
    /// Interactive: latency and jitter count double.
    Latency,
    /// Voice, payments: loss and jitter count double.
    Loss,
    /// Bulk transfer: bandwidth counts double, latency and jitter little.
    Bandwidth,
    /// Numbers of its own.
    Custom(Box<Weights>),
}

/// Service levels: a region that breaks one cannot serve. `None` is no limit.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Limits {
    /// The highest median round-trip time from its clients.
    pub rtt_p50: Option<Duration>,
    /// The highest 99th percentile of the round-trip time from its clients.
    pub rtt_p99: Option<Duration>,
    /// The highest jitter.
    pub jitter: Option<Duration>,
    /// The highest loss, 0..=1.
    pub loss: Option<f64>,
    /// The lowest bandwidth, bits per second.
    pub bandwidth_bps: Option<f64>,
}

/// How a service's data gets to where it may run.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Replication {
    /// It has none, or it is somebody else's affair.
    #[default]
    None,
    /// It lags behind by what signals say. Beyond the recovery point objective a region is not ready; where nobody says
    /// anything, nobody knows.
    Asynchronous,
    /// It does not lag, but its writes wait for the link: the latency limits hold between home and replica too.
    Synchronous,
}

/// How a service comes back to its home after it was driven away.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Failback {
    /// By itself, slower than it left.
    #[default]
    Automatic,
    /// Only by hand.
    Manual,
}

/// Capacity that a region offers until it expires. Several offers of one region add up.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Offer {
    /// Where.
    pub region: RegionId,
    /// How much, at least 0, by resource.
    pub amounts: BTreeMap<ResourceId, f64>,
    /// Until when; without an end if `None`.
    pub until: Option<Timestamp>,
}

/// Capacity of a region set aside for a service, or for nobody's service, until it expires.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Reservation {
    /// Where.
    pub region: RegionId,
    /// For whom; for somebody outside if `None`.
    pub service: Option<ServiceId>,
    /// How much, above 0, by resource.
    pub amounts: BTreeMap<ResourceId, f64>,
    /// Until when.
    pub until: Timestamp,
}

/// An operator knows better, until it expires.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Override {
    /// What holds.
    pub rule: Rule,
    /// Until when.
    pub until: Timestamp,
}

/// What an override says.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// Nothing may be placed in this region, and what is there leaves it: maintenance.
    Drain {
        /// The region.
        region: RegionId,
        /// Whether it is drained for a fault that regions of its risk groups may share: then these are avoided too.
        #[serde(default)]
        suspect: bool,
    },
    /// This owner stays in this region, whatever happens.
    Pin {
        /// Whose selection.
        owner: Owner,
        /// Where.
        region: RegionId,
    },
    /// This owner may not select this region.
    Forbid {
        /// Whose selection.
        owner: Owner,
        /// Which region.
        region: RegionId,
    },
    /// Nothing moves: neither this owner, nor anybody if `None`.
    Freeze {
        /// Whose selection.
        owner: Option<Owner>,
    },
}

impl Rule {
    /// The rule for people: `iad is drained`.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::Drain { region, .. } => format!("{region} is drained"),
            Self::Pin { owner, region } => format!("{owner} is pinned to {region}"),
            Self::Forbid { owner, region } => format!("{region} is forbidden to {owner}"),
            Self::Freeze { owner: Some(owner) } => format!("{owner} is frozen"),
            Self::Freeze { owner: None } => "everything is frozen".to_owned(),
        }
    }
}

/// Whose selection it is.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Owner {
    /// A primary region: which region stands in for it.
    Region(RegionId),
    /// A service: in which region it should run now.
    Service(ServiceId),
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Region(region) => write!(f, "{region}"),
            Self::Service(service) => write!(f, "{service}"),
        }
    }
}

/// Something, and how it came about.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Known<T> {
    /// As of which change: compare it to see whether somebody else changed it meanwhile.
    pub version: u64,
    /// Who changed it last.
    pub who: String,
    /// Why.
    pub why: String,
    /// When.
    pub at: Timestamp,
    /// What it is.
    pub what: T,
}

/// All that holds now.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Intents {
    /// How many changes there were: the version of the last one.
    pub version: u64,
    /// Services.
    pub services: BTreeMap<ServiceId, Known<Arc<Service>>>,
    /// Offers of capacity.
    pub offers: BTreeMap<OfferId, Known<Offer>>,
    /// Reservations.
    pub reservations: BTreeMap<ReservationId, Known<Reservation>>,
    /// Overrides.
    pub overrides: BTreeMap<OverrideId, Known<Override>>,
    /// By which prefixes regions are reached.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub reaches: BTreeMap<RegionId, Known<Reach>>,
}

impl Intents {
    /// Takes in a change.
    pub fn on_change(&mut self, now: Timestamp, change: &Change) {
        self.version += 1;
        let version = self.version;
        match &change.what {
            Amendment::PutService(id, service) => {
                let known = known(version, now, change, Arc::new((**service).clone()));
                self.services.insert(id.clone(), known);
            }
            Amendment::RemoveService(id) => drop(self.services.remove(id)),
            Amendment::PutOffer(id, offer) => {
                let known = known(version, now, change, offer.clone());
                self.offers.insert(id.clone(), known);
            }
            Amendment::RemoveOffer(id) => drop(self.offers.remove(id)),
            Amendment::PutReservation(id, reservation) => {
                let known = known(version, now, change, reservation.clone());
                self.reservations.insert(id.clone(), known);
            }
            Amendment::RemoveReservation(id) => drop(self.reservations.remove(id)),
            Amendment::PutOverride(id, rule) => {
                let known = known(version, now, change, rule.clone());
                self.overrides.insert(id.clone(), known);
            }
            Amendment::LiftOverride(id) => drop(self.overrides.remove(id)),
            Amendment::PutReach(region, reach) => {
                let known = known(version, now, change, reach.clone());
                self.reaches.insert(region.clone(), known);
            }
            Amendment::RemoveReach(region) => drop(self.reaches.remove(region)),
        }
    }

    /// Forgets what has expired, and returns it.
    pub fn expire(&mut self, now: Timestamp) -> Vec<Ended> {
        let mut ended = Vec::new();
        forget(
            &mut self.offers,
            now,
            |own| own.until,
            Term::Offer,
            &mut ended,
        );
        let until = |own: &Reservation| Some(own.until);
        forget(
            &mut self.reservations,
            now,
            until,
            Term::Reservation,
            &mut ended,
        );
        let until = |own: &Override| Some(own.until);
        forget(&mut self.overrides, now, until, Term::Override, &mut ended);
        ended
    }

    /// When the next thing expires.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Timestamp> {
        let offers = self.offers.values().filter_map(|own| own.what.until);
        let reservations = self.reservations.values().map(|own| own.what.until);
        let overrides = self.overrides.values().map(|own| own.what.until);
        offers.chain(reservations).chain(overrides).min()
    }
}

/// What had an end, and has come to it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ended {
    /// What.
    pub term: Term,
    /// Who had asked for it.
    pub who: String,
    /// Why.
    pub why: String,
    /// Which change had made it so.
    pub version: u64,
    /// Until when it was to hold.
    pub until: Timestamp,
}

/// Something that holds for a term.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Term {
    Offer(OfferId),
    Reservation(ReservationId),
    Override(OverrideId),
}

fn forget<Id: Ord + Clone, T>(
    all: &mut BTreeMap<Id, Known<T>>,
    now: Timestamp,
    until: impl Fn(&T) -> Option<Timestamp>,
    term: impl Fn(Id) -> Term,
    ended: &mut Vec<Ended>,
) {
    all.retain(|id, known| {
        let Some(until) = until(&known.what).filter(|&until| until <= now) else {
            return true;
        };
        ended.push(Ended {
            term: term(id.clone()),
            who: known.who.clone(),
            why: known.why.clone(),
            version: known.version,
            until,
        });
        false
    });
}

fn known<T>(version: u64, at: Timestamp, change: &Change, what: T) -> Known<T> {
    Known {
        version,
        who: change.who.clone(),
        why: change.why.clone(),
        at,
        what,
    }
}

impl Service {
    /// Where it may run: its home and its candidates, as far as the policy knows them, in the order of their ids.
    #[must_use]
    pub fn regions(&self, policy: &Policy) -> Vec<RegionId> {
        let may = |region: &&RegionId| {
            self.candidates.is_empty() || **region == self.home || self.candidates.contains(*region)
        };
        policy.regions.keys().filter(may).cloned().collect()
    }

    /// The numbers that make its network weight.
    #[must_use]
    pub fn weights(&self, policy: &Policy) -> Weights {
        let standard = policy.weights.clone();
        match &self.profile {
            Profile::Balanced => standard,
            Profile::Latency => Weights {
                latency_p50: standard.latency_p50 * 2.0,
                latency_p99: standard.latency_p99 * 2.0,
                jitter: standard.jitter * 2.0,
                ..standard
            },
            Profile::Loss => Weights {
                loss: standard.loss * 2.0,
                jitter: standard.jitter * 2.0,
                ..standard
            },
            Profile::Bandwidth => Weights {
                bandwidth: standard.bandwidth * 2.0,
                latency_p50: standard.latency_p50 / 4.0,
                latency_p99: standard.latency_p99 / 4.0,
                jitter: standard.jitter / 4.0,
                ..standard
            },
            Profile::Custom(own) => (**own).clone(),
        }
    }
}
