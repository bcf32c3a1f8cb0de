//! Definitions and the engine's intents: the same things, told by people and kept by the engine; and the terms on which
//! a change of one is made.

use std::{sync::Arc, time::Duration};

use leeward_common::{
    api::v1::{
        self, Defined, Fault, OfferSpec, OverrideRule, OverrideSpec, ReachSpec, ReservationSpec,
        ServiceLimits, ServiceProfile, ServiceSpec, Time, WeightsSpec,
    },
    config::Span,
    id::{OfferId, OverrideId, RegionId, ReservationId, ServiceId},
    time::Timestamp,
};
use leeward_engine::{
    intent::{
        Amendment, Change, Failback, Intents, Known, Offer, Override, Owner, Profile, Reach,
        Replication, Reservation, Rule, Service,
    },
    policy::{Policy, Weights},
};

/// Who a file of definitions is, before its name.
pub const FILE: &str = "file:";

/// Who the configuration is.
pub const CONFIGURATION: &str = "configuration";

/// One thing of any noun.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Thing {
    /// A service.
    Service(ServiceId),
    /// An offer of capacity.
    Offer(OfferId),
    /// A reservation of capacity.
    Reservation(ReservationId),
    /// An override.
    Override(OverrideId),
    /// By which prefixes a region is reached.
    Reach(RegionId),
}

/// How a thing came about.
#[derive(Clone, Copy, Debug)]
pub struct Came<'a> {
    /// Which change made it so.
    pub version: u64,
    /// Who asked for that.
    pub who: &'a str,
    /// When.
    pub at: Timestamp,
}

/// What is to change.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// It is so from now on.
    Put(Defined),
    /// It is no more.
    Remove(Thing),
}

/// A change that somebody asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked<W = What> {
    /// Who.
    pub who: String,
    /// Why, in their words.
    pub why: String,
    /// What.
    pub what: W,
    /// On which terms.
    pub condition: Condition,
}

/// What must hold for a change to be made; looked at in the turn that makes it, so that of two who changed the same
/// version only one can win.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Condition {
    /// Nothing.
    Any,
    /// It is not there.
    Absent,
    /// It is there.
    Present,
    /// It was changed last by this change.
    Version(u64),
}

/// A condition that does not hold.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Conflict {
    /// By which change it was changed last; `None` if it is not there.
    pub current: Option<u64>,
}

impl Condition {
    /// Whether it holds of something that was changed last by `current`.
    ///
    /// # Errors
    ///
    /// Returns [`Conflict`] if not.
    pub fn check(self, current: Option<u64>) -> Result<(), Conflict> {
        let holds = match self {
            Self::Any => true,
            Self::Absent => current.is_none(),
            Self::Present => current.is_some(),
            Self::Version(version) => current == Some(version),
        };
        if holds {
            Ok(())
        } else {
            Err(Conflict { current })
        }
    }
}

impl Thing {
    /// The thing that is defined.
    #[must_use]
    pub fn of(defined: &Defined) -> Self {
        match defined {
            Defined::Service(id, _) => Self::Service(id.clone()),
            Defined::Offer(id, _) => Self::Offer(id.clone()),
            Defined::Reservation(id, _) => Self::Reservation(id.clone()),
            Defined::Override(id, _) => Self::Override(id.clone()),
            Defined::Reach(id, _) => Self::Reach(id.clone()),
        }
    }

    /// How it came about; `None` if it is not there.
    #[must_use]
    pub fn known<'a>(&self, intents: &'a Intents) -> Option<Came<'a>> {
        fn came<T>(known: &Known<T>) -> Came<'_> {
            Came {
                version: known.version,
                who: &known.who,
                at: known.at,
            }
        }
        match self {
            Self::Service(id) => intents.services.get(id).map(came),
            Self::Offer(id) => intents.offers.get(id).map(came),
            Self::Reservation(id) => intents.reservations.get(id).map(came),
            Self::Override(id) => intents.overrides.get(id).map(came),
            Self::Reach(id) => intents.reaches.get(id).map(came),
        }
    }

    /// As of which change it is there; `None` if it is not.
    #[must_use]
    pub fn version(&self, intents: &Intents) -> Option<u64> {
        self.known(intents).map(|known| known.version)
    }

    /// The definition that is in force; `None` if it is not there.
    #[must_use]
    pub fn defined(&self, intents: &Intents) -> Option<Defined> {
        Some(match self {
            Self::Service(id) => service_defined(id, intents.services.get(id)?),
            Self::Offer(id) => offer_defined(id, intents.offers.get(id)?),
            Self::Reservation(id) => reservation_defined(id, intents.reservations.get(id)?),
            Self::Override(id) => override_defined(id, intents.overrides.get(id)?),
            Self::Reach(id) => reach_defined(id, intents.reaches.get(id)?),
        })
    }
}

impl std::fmt::Display for Thing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Service(id) => write!(f, "service {id}"),
            Self::Offer(id) => write!(f, "offer {id}"),
            Self::Reservation(id) => write!(f, "reservation {id}"),
            Self::Override(id) => write!(f, "override {id}"),
            Self::Reach(id) => write!(f, "reach {id}"),
        }
    }
}

impl What {
    /// What it is about.
    #[must_use]
    pub fn thing(&self) -> Thing {
        match self {
            Self::Put(defined) => Thing::of(defined),
            Self::Remove(thing) => thing.clone(),
        }
    }
}

impl Asked {
    /// As the engine is told.
    #[must_use]
    pub fn change(&self) -> Change {
        let what = match &self.what {
            What::Put(defined) => defined.into(),
            What::Remove(Thing::Service(id)) => Amendment::RemoveService(id.clone()),
            What::Remove(Thing::Offer(id)) => Amendment::RemoveOffer(id.clone()),
            What::Remove(Thing::Reservation(id)) => Amendment::RemoveReservation(id.clone()),
            What::Remove(Thing::Override(id)) => Amendment::LiftOverride(id.clone()),
            What::Remove(Thing::Reach(id)) => Amendment::RemoveReach(id.clone()),
        };
        Change {
            who: self.who.clone(),
            why: self.why.clone(),
            what,
        }
    }
}

/// Everything that is defined.
#[must_use]
pub fn definitions(intents: &Intents) -> Vec<Defined> {
    let services = intents.services.iter();
    let services = services.map(|(id, known)| service_defined(id, known));
    let offers = intents.offers.iter();
    let offers = offers.map(|(id, known)| offer_defined(id, known));
    let reservations = intents.reservations.iter();
    let reservations = reservations.map(|(id, known)| reservation_defined(id, known));
    let overrides = intents.overrides.iter();
    let overrides = overrides.map(|(id, known)| override_defined(id, known));
    let reaches = intents.reaches.iter();
    let reaches = reaches.map(|(id, known)| reach_defined(id, known));
    services
        .chain(offers)
        .chain(reservations)
        .chain(overrides)
        .chain(reaches)
        .collect()
}

fn service_defined(id: &ServiceId, known: &Known<Arc<Service>>) -> Defined {
    Defined::Service(id.clone(), Box::new(service_spec(&known.what, &known.why)))
}

fn offer_defined(id: &OfferId, known: &Known<Offer>) -> Defined {
    Defined::Offer(id.clone(), offer_spec(&known.what, &known.why))
}

fn reservation_defined(id: &ReservationId, known: &Known<Reservation>) -> Defined {
    Defined::Reservation(id.clone(), reservation_spec(&known.what, &known.why))
}

fn override_defined(id: &OverrideId, known: &Known<Override>) -> Defined {
    Defined::Override(id.clone(), override_spec(&known.what, &known.why))
}

fn reach_defined(id: &RegionId, known: &Known<Reach>) -> Defined {
    Defined::Reach(id.clone(), reach_spec(&known.what, &known.why))
}

/// A service as people define it.
#[must_use]
pub fn service_spec(service: &Service, why: &str) -> ServiceSpec {
    let Service {
        home,
        candidates,
        multipliers,
        clients,
        profile,
        limits,
        needs,
        divisible,
        require,
        forbid,
        depends_on,
        checks,
        replication,
        priority,
        rto,
        rpo,
        failback,
    } = service.clone();
    ServiceSpec {
        home,
        candidates,
        multipliers,
        clients,
        profile: match profile {
            Profile::Balanced => ServiceProfile::Balanced,
            Profile::Latency => ServiceProfile::Latency,
            Profile::Loss => ServiceProfile::Loss,
            Profile::Bandwidth => ServiceProfile::Bandwidth,
            Profile::Custom(own) => ServiceProfile::Custom(Box::new(weights_spec(&own))),
        },
        limits: ServiceLimits {
            latency_p50: limits.rtt_p50.map(Span),
            latency_p99: limits.rtt_p99.map(Span),
            jitter: limits.jitter.map(Span),
            loss_ratio: limits.loss,
            bandwidth_bps: limits.bandwidth_bps,
        },
        needs,
        divisible,
        require,
        forbid,
        depends_on,
        checks,
        replication: match replication {
            Replication::None => v1::Replication::None,
            Replication::Asynchronous => v1::Replication::Asynchronous,
            Replication::Synchronous => v1::Replication::Synchronous,
        },
        priority,
        rto: rto.map(Span),
        rpo: rpo.map(Span),
        failback: failback.map(|failback| match failback {
            Failback::Automatic => v1::Failback::Automatic,
            Failback::Manual => v1::Failback::Manual,
        }),
        why: why.to_owned(),
    }
}

fn weights_spec(weights: &Weights) -> WeightsSpec {
    let Weights {
        distance_scale_km,
        distance,
        capacity,
        latency_scale,
        latency_p50,
        latency_p99,
        jitter_scale,
        jitter,
        loss,
        bandwidth_scale_bps,
        bandwidth,
        floor,
    } = *weights;
    WeightsSpec {
        distance_scale_km,
        distance,
        capacity,
        latency_scale: Span(latency_scale),
        latency_p50,
        latency_p99,
        jitter_scale: Span(jitter_scale),
        jitter,
        loss,
        bandwidth_scale_bps,
        bandwidth,
        floor,
    }
}

/// An offer as people define it.
#[must_use]
pub fn offer_spec(offer: &Offer, why: &str) -> OfferSpec {
    OfferSpec {
        region: offer.region.clone(),
        amounts: offer.amounts.clone(),
        until: offer.until.map(Into::into),
        why: why.to_owned(),
    }
}

/// A reservation as people define it.
#[must_use]
pub fn reservation_spec(reservation: &Reservation, why: &str) -> ReservationSpec {
    ReservationSpec {
        region: reservation.region.clone(),
        service: reservation.service.clone(),
        amounts: reservation.amounts.clone(),
        until: reservation.until.into(),
        why: why.to_owned(),
    }
}

/// An override as people define it.
#[must_use]
pub fn override_spec(override_: &Override, why: &str) -> OverrideSpec {
    let suspect = matches!(override_.rule, Rule::Drain { suspect: true, .. });
    let (rule, region, owner) = match override_.rule.clone() {
        Rule::Drain { region, .. } => (OverrideRule::Drain, Some(region), None),
        Rule::Pin { owner, region } => (OverrideRule::Pin, Some(region), Some(owner)),
        Rule::Forbid { owner, region } => (OverrideRule::Forbid, Some(region), Some(owner)),
        Rule::Freeze { owner } => (OverrideRule::Freeze, None, owner),
    };
    let (service, primary_region) = match owner {
        None => (None, None),
        Some(Owner::Service(service)) => (Some(service), None),
        Some(Owner::Region(primary)) => (None, Some(primary)),
    };
    OverrideSpec {
        rule,
        region,
        service,
        primary_region,
        suspect,
        until: override_.until.into(),
        why: why.to_owned(),
    }
}

/// By which prefixes a region is reached, as people define it.
#[must_use]
pub fn reach_spec(reach: &Reach, why: &str) -> ReachSpec {
    ReachSpec {
        prefixes: reach.prefixes.iter().copied().collect(),
        origins: reach.origins.iter().copied().collect(),
        why: why.to_owned(),
    }
}

/// What is wrong with a definition here and now, beyond what is wrong with it by itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Unsound {
    /// A value.
    Fault(Fault),
    /// It names a region that the policy does not have.
    Region {
        /// The member.
        path: String,
        /// The name.
        name: RegionId,
    },
    /// It names a service that nobody defined.
    Service {
        /// The member.
        path: String,
        /// The name.
        name: ServiceId,
    },
}

/// What a definition is checked against.
#[derive(Clone, Copy)]
pub struct Checks<'a> {
    /// When.
    pub now: Timestamp,
    /// The regions that there are.
    pub policy: &'a Policy,
    /// Whether there is such a service.
    pub has_service: &'a dyn Fn(&ServiceId) -> bool,
    /// How far ahead an override may end.
    pub max_override: Duration,
}

impl std::fmt::Debug for Checks<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checks")
            .field("now", &self.now)
            .finish_non_exhaustive()
    }
}

impl Checks<'_> {
    /// Whether a definition makes sense.
    ///
    /// # Errors
    ///
    /// Returns the first thing that does not.
    pub fn check(&self, defined: &Defined) -> Result<(), Unsound> {
        defined.check().map_err(Unsound::Fault)?;
        let mut regions = defined.regions().into_iter();
        if let Some((path, name)) =
            regions.find(|(_, name)| !self.policy.regions.contains_key(*name))
        {
            let name = name.clone();
            return Err(Unsound::Region { path, name });
        }
        let Defined::Override(_, spec) = defined else {
            return Ok(());
        };
        if let Some(name) = spec
            .service
            .as_ref()
            .filter(|name| !(self.has_service)(name))
        {
            let (path, name) = ("service".to_owned(), name.clone());
            return Err(Unsound::Service { path, name });
        }
        if spec.until.0.since(self.now) > self.max_override {
            let longest = Span(self.max_override);
            return Err(Unsound::Fault(Fault::new(
                "until",
                format!("is {}, further ahead than {longest}", spec.until),
                "end it sooner and renew it, or raise api.max_override of aggregator.toml",
            )));
        }
        Ok(())
    }

    /// Whether something that ends at `until` has a beginning.
    ///
    /// # Errors
    ///
    /// Returns that it has expired already.
    pub fn lasts(&self, defined: &Defined) -> Result<(), Unsound> {
        match until(defined) {
            Some(until) if until.0 <= self.now => {
                let detail = format!("is {until}, and it is {} now", self.now);
                Err(Unsound::Fault(Fault::new(
                    "until",
                    detail,
                    "choose a later end",
                )))
            }
            _ => Ok(()),
        }
    }
}

/// Until when something is defined; `None` if without an end.
#[must_use]
pub fn until(defined: &Defined) -> Option<Time> {
    match defined {
        Defined::Service(..) | Defined::Reach(..) => None,
        Defined::Offer(_, spec) => spec.until,
        Defined::Reservation(_, spec) => Some(spec.until),
        Defined::Override(_, spec) => Some(spec.until),
    }
}

#[cfg(test)]
mod tests;
