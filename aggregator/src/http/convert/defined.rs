//! What is defined, and how it came about.

use leeward_common::{
    api::v1,
    id::{OfferId, OverrideId, RegionId, ReservationId, ServiceId},
    time::Timestamp,
};
use leeward_engine::{
    intent::{Known, Offer, Override, Reach, Reservation, Service},
    policy::Region,
    view::View,
};

use super::Moment;
use crate::intent;

/// A service.
#[must_use]
pub fn service(id: &ServiceId, known: &Known<impl AsRef<Service>>) -> v1::Service {
    v1::Service {
        service_id: id.clone(),
        version: known.version,
        who: known.who.clone(),
        at: known.at.into(),
        spec: intent::service_spec(known.what.as_ref(), &known.why),
    }
}

/// An offer.
#[must_use]
pub fn offer(id: &OfferId, known: &Known<Offer>) -> v1::Offer {
    v1::Offer {
        offer_id: id.clone(),
        version: known.version,
        who: known.who.clone(),
        at: known.at.into(),
        spec: intent::offer_spec(&known.what, &known.why),
    }
}

/// A reservation.
#[must_use]
pub fn reservation(id: &ReservationId, known: &Known<Reservation>) -> v1::Reservation {
    v1::Reservation {
        reservation_id: id.clone(),
        version: known.version,
        who: known.who.clone(),
        at: known.at.into(),
        spec: intent::reservation_spec(&known.what, &known.why),
    }
}

/// By which prefixes a region is reached.
#[must_use]
pub fn reach(id: &RegionId, known: &Known<Reach>) -> v1::Reach {
    v1::Reach {
        region_id: id.clone(),
        version: known.version,
        who: known.who.clone(),
        at: known.at.into(),
        spec: intent::reach_spec(&known.what, &known.why),
    }
}

/// By which prefixes all regions are reached.
#[must_use]
pub fn reaches(view: &View) -> v1::Reaches {
    let region = |(id, region): (&RegionId, &Region)| {
        let defined = view.intents.reaches.get(id);
        let (prefixes, origins) = match defined {
            Some(known) => (&known.what.prefixes, &known.what.origins),
            None => (&region.prefixes, &region.origins),
        };
        let who = match defined {
            Some(known) => Some(known.who.clone()),
            None if prefixes.is_empty() => None,
            None => Some(intent::CONFIGURATION.to_owned()),
        };
        v1::RegionReach {
            region_id: id.clone(),
            prefixes: prefixes.iter().copied().collect(),
            origins: origins.iter().copied().collect(),
            who,
        }
    };
    v1::Reaches {
        regions: view.policy.regions.iter().map(region).collect(),
        version: view.intents.version,
    }
}

/// An override.
#[must_use]
pub fn override_(id: &OverrideId, known: &Known<Override>) -> v1::Override {
    let Known { who, why, what, .. } = known;
    let until = what.until;
    v1::Override {
        override_id: id.clone(),
        version: known.version,
        who: who.clone(),
        at: known.at.into(),
        spec: intent::override_spec(what, why),
        summary: format!("{} until {until}, says {who}: {why}", what.rule.words()),
    }
}

/// The overrides in force.
#[must_use]
pub fn overrides(moment: &Moment<'_>) -> v1::Overrides {
    let intents = &moment.view.intents;
    let now = moment.now();
    let in_force = intents.overrides.iter();
    let in_force = in_force.filter(|(_, known)| known.what.until > now);
    v1::Overrides {
        overrides: in_force.map(|(id, known)| override_(id, known)).collect(),
        version: intents.version,
    }
}

/// What each region offers, and what is taken of it.
#[must_use]
pub fn capacity(moment: &Moment<'_>) -> v1::Capacity {
    let (view, now) = (moment.view, moment.now());
    let lasts = |until: Option<Timestamp>| until.is_none_or(|until| until > now);
    let offers = view.intents.offers.iter();
    let offers = offers.filter(|(_, known)| lasts(known.what.until));
    let reservations = view.intents.reservations.iter();
    let reservations = reservations.filter(|(_, known)| lasts(Some(known.what.until)));
    let accounts = view.capacity.regions.iter().flat_map(|(region, own)| {
        own.accounts.iter().map(|(resource, account)| v1::Account {
            region_id: region.clone(),
            resource_id: resource.clone(),
            offered: own.counted.then_some(account.offered),
            kept: account.kept,
            reserved: account.reserved,
            used: account.used,
            free: own.counted.then(|| account.free()),
        })
    });
    v1::Capacity {
        accounts: accounts.collect(),
        offers: offers.map(|(id, known)| offer(id, known)).collect(),
        reservations: reservations
            .map(|(id, known)| reservation(id, known))
            .collect(),
        version: view.intents.version,
        evaluated_at: view.now.into(),
    }
}
