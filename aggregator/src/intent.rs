//! Definitions and the engine's intents: the same things, told by people and kept by the engine; and the terms on which
//! a change of one is made.

use std::sync::Arc;

use leeward_common::{
    api::v1::{
        self, Defined, OfferSpec, OverrideRule, OverrideSpec, ReservationSpec, ServiceLimits,
        ServiceProfile, ServiceSpec, WeightsSpec,
    },
    config::Span,
    id::{OfferId, OverrideId, ReservationId, ServiceId},
    time::Timestamp,
};
use leeward_engine::{
    intent::{
        Amendment, Change, Failback, Intents, Known, Limits, Offer, Override, Owner, Profile,
        Replication, Reservation, Rule, Service,
    },
    policy::Weights,
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
pub struct Asked {
    /// Who.
    pub who: String,
    /// Why, in their words.
    pub why: String,
    /// What.
    pub what: What,
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
            What::Put(defined) => amendment(defined),
            What::Remove(Thing::Service(id)) => Amendment::RemoveService(id.clone()),
            What::Remove(Thing::Offer(id)) => Amendment::RemoveOffer(id.clone()),
            What::Remove(Thing::Reservation(id)) => Amendment::RemoveReservation(id.clone()),
            What::Remove(Thing::Override(id)) => Amendment::LiftOverride(id.clone()),
        };
        Change {
            who: self.who.clone(),
            why: self.why.clone(),
            what,
        }
    }
}

/// A definition, as the engine is told.
#[must_use]
pub fn amendment(defined: &Defined) -> Amendment {
    match defined {
        Defined::Service(id, spec) => Amendment::PutService(id.clone(), Box::new(service(spec))),
        Defined::Offer(id, spec) => Amendment::PutOffer(id.clone(), offer(spec)),
        Defined::Reservation(id, spec) => Amendment::PutReservation(id.clone(), reservation(spec)),
        Defined::Override(id, spec) => Amendment::PutOverride(id.clone(), override_(spec)),
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
    services
        .chain(offers)
        .chain(reservations)
        .chain(overrides)
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

fn service(spec: &ServiceSpec) -> Service {
    let ServiceSpec {
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
        replication,
        priority,
        rto,
        rpo,
        failback,
        why: _,
    } = spec.clone();
    let ServiceLimits {
        latency_p50,
        latency_p99,
        jitter,
        loss_ratio,
        bandwidth_bps,
    } = limits;
    Service {
        home,
        candidates,
        multipliers,
        clients,
        profile: match profile {
            ServiceProfile::Balanced => Profile::Balanced,
            ServiceProfile::Latency => Profile::Latency,
            ServiceProfile::Loss => Profile::Loss,
            ServiceProfile::Bandwidth => Profile::Bandwidth,
            ServiceProfile::Custom(own) => Profile::Custom(Box::new(weights(&own))),
        },
        limits: Limits {
            rtt_p50: latency_p50.map(|span| span.0),
            rtt_p99: latency_p99.map(|span| span.0),
            jitter: jitter.map(|span| span.0),
            loss: loss_ratio,
            bandwidth_bps,
        },
        needs,
        divisible,
        require,
        forbid,
        depends_on,
        replication: match replication {
            v1::Replication::None => Replication::None,
            v1::Replication::Asynchronous => Replication::Asynchronous,
            v1::Replication::Synchronous => Replication::Synchronous,
        },
        priority,
        rto: rto.map(|span| span.0),
        rpo: rpo.map(|span| span.0),
        failback: failback.map(|failback| match failback {
            v1::Failback::Automatic => Failback::Automatic,
            v1::Failback::Manual => Failback::Manual,
        }),
    }
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

fn weights(spec: &WeightsSpec) -> Weights {
    let WeightsSpec {
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
    } = *spec;
    Weights {
        distance_scale_km,
        distance,
        capacity,
        latency_scale: latency_scale.0,
        latency_p50,
        latency_p99,
        jitter_scale: jitter_scale.0,
        jitter,
        loss,
        bandwidth_scale_bps,
        bandwidth,
        floor,
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

fn offer(spec: &OfferSpec) -> Offer {
    Offer {
        region: spec.region.clone(),
        amounts: spec.amounts.clone(),
        until: spec.until.map(|until| until.0),
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

fn reservation(spec: &ReservationSpec) -> Reservation {
    Reservation {
        region: spec.region.clone(),
        service: spec.service.clone(),
        amounts: spec.amounts.clone(),
        until: spec.until.0,
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

/// A sound specification names what its rule needs ([`Defined::check`]); where one does not, nothing is frozen but
/// everything would be, which is the careful reading.
fn override_(spec: &OverrideSpec) -> Override {
    let service = spec.service.clone().map(Owner::Service);
    let owner = service.or_else(|| spec.primary_region.clone().map(Owner::Region));
    let rule = match (spec.rule, spec.region.clone(), owner) {
        (OverrideRule::Drain, Some(region), _) => Rule::Drain {
            region,
            suspect: false,
        },
        (OverrideRule::Pin, Some(region), Some(owner)) => Rule::Pin { owner, region },
        (OverrideRule::Forbid, Some(region), Some(owner)) => Rule::Forbid { owner, region },
        (_, _, owner) => Rule::Freeze { owner },
    };
    Override {
        rule,
        until: spec.until.0,
    }
}

/// An override as people define it.
#[must_use]
pub fn override_spec(override_: &Override, why: &str) -> OverrideSpec {
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
        until: override_.until.into(),
        why: why.to_owned(),
    }
}
