//! From definitions, as people write them, to what the engine is told.

use leeward_common::api::v1::{
    self, Defined, OfferSpec, OverrideRule, OverrideSpec, ReachSpec, ReservationSpec,
    ServiceLimits, ServiceProfile, ServiceSpec, WeightsSpec,
};

use super::{
    Amendment, Failback, Limits, Offer, Override, Owner, Profile, Reach, Replication, Reservation,
    Rule, Service,
};
use crate::policy::Weights;

impl From<&Defined> for Amendment {
    fn from(defined: &Defined) -> Self {
        match defined {
            Defined::Service(id, spec) => Self::PutService(id.clone(), Box::new(service(spec))),
            Defined::Offer(id, spec) => Self::PutOffer(id.clone(), offer(spec)),
            Defined::Reservation(id, spec) => Self::PutReservation(id.clone(), reservation(spec)),
            Defined::Override(id, spec) => Self::PutOverride(id.clone(), rule(spec)),
            Defined::Reach(id, spec) => Self::PutReach(id.clone(), reach(spec)),
        }
    }
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
        checks,
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
        checks,
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

fn reach(spec: &ReachSpec) -> Reach {
    Reach {
        prefixes: spec.prefixes.iter().copied().collect(),
        origins: spec.origins.iter().copied().collect(),
    }
}

fn offer(spec: &OfferSpec) -> Offer {
    Offer {
        region: spec.region.clone(),
        amounts: spec.amounts.clone(),
        until: spec.until.map(|until| until.0),
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

/// A sound specification names what its rule needs ([`Defined::check`]); where one does not, nothing is frozen but
/// everything would be, which is the careful reading.
fn rule(spec: &OverrideSpec) -> Override {
    let service = spec.service.clone().map(Owner::Service);
    let owner = service.or_else(|| spec.primary_region.clone().map(Owner::Region));
    let rule = match (spec.rule, spec.region.clone(), owner) {
        (OverrideRule::Drain, Some(region), _) => Rule::Drain {
            region,
            suspect: spec.suspect,
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
