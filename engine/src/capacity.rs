//! What each region offers, and what is taken of it: the ledger that a placement is checked against.
//!
//! ```text
//!   offered ─┬─ kept free: the policy's reserve
//!            ├─ reserved: set aside, and not yet in use by whom it is set aside for
//!            ├─ used: by the services that run there, by their needs and shares
//!            └─ free
//! ```
//!
//! A region of which nobody offers anything is not counted: it takes what comes, and its capacity is shown as unknown.
//! Where anything is offered, a resource that is not is not there.

use std::collections::BTreeMap;

use leeward_common::id::{RegionId, ResourceId, ServiceId};
use serde::{Deserialize, Serialize};

use crate::{
    decision::Share,
    intent::{Intents, Service},
    plan::TOLERANCE,
    policy::Policy,
};

/// Every region's accounts.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Capacity {
    /// By region of the policy.
    pub regions: BTreeMap<RegionId, RegionCapacity>,
}

/// The accounts of one region.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct RegionCapacity {
    /// Whether anybody offers anything of it. Where nobody does, it is not counted.
    pub counted: bool,
    /// By resource that is offered, reserved or used there.
    pub accounts: BTreeMap<ResourceId, Account>,
}

/// One resource of a region, in the resource's own unit.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Account {
    /// All offers together.
    pub offered: f64,
    /// What of it is kept free.
    pub kept: f64,
    /// What is set aside and not in use by whom it is set aside for.
    pub reserved: f64,
    /// The part of it that is set aside for services of ours.
    pub reserved_for: BTreeMap<ServiceId, f64>,
    /// What the services that run there use.
    pub used: f64,
}

impl Account {
    /// What anybody may still take; below 0 if more is taken than may be.
    #[must_use]
    pub fn free(&self) -> f64 {
        self.offered - self.kept - self.reserved - self.used
    }

    /// What a service may still take: what is free, and what is set aside for it.
    #[must_use]
    pub fn free_for(&self, service: &ServiceId) -> f64 {
        self.free() + self.reserved_for.get(service).copied().unwrap_or(0.0)
    }

    /// Whether a service may take as much.
    #[must_use]
    pub fn has_room(&self, service: &ServiceId, need: f64) -> bool {
        need <= self.free_for(service) + TOLERANCE * self.offered
    }
}

impl Capacity {
    /// Counts what is offered, reserved and used when services run by these shares.
    #[must_use]
    pub fn new<'a>(
        policy: &Policy,
        intents: &Intents,
        running: impl Iterator<Item = (&'a ServiceId, &'a Service, &'a [Share])>,
    ) -> Self {
        let known = policy.regions.keys();
        let mut regions: BTreeMap<RegionId, RegionCapacity> = known
            .map(|region| (region.clone(), RegionCapacity::default()))
            .collect();
        for offer in intents.offers.values().map(|known| &known.what) {
            let Some(region) = regions.get_mut(&offer.region) else {
                continue;
            };
            region.counted = true;
            for (resource, amount) in &offer.amounts {
                region.account(resource).offered += amount;
            }
        }
        for reservation in intents.reservations.values().map(|known| &known.what) {
            let Some(region) = regions.get_mut(&reservation.region) else {
                continue;
            };
            for (resource, amount) in &reservation.amounts {
                let account = region.account(resource);
                account.reserved += amount;
                if let Some(service) = &reservation.service {
                    *account.reserved_for.entry(service.clone()).or_default() += amount;
                }
            }
        }
        for (id, service, shares) in running {
            for Share { region, share } in shares {
                let Some(region) = regions.get_mut(region) else {
                    continue;
                };
                for (resource, need) in &service.needs {
                    region.account(resource).take(id, need * share);
                }
            }
        }
        let accounts = regions
            .values_mut()
            .flat_map(|own| own.accounts.values_mut());
        for account in accounts {
            account.kept = account.offered * policy.capacity.reserve;
        }
        Self { regions }
    }

    /// Which resources a service would lack in a region if `share` of it came: what of each is free for it, and what it
    /// needs. Nothing where the region is not counted.
    pub(crate) fn lacking<'a>(
        &'a self,
        region: &RegionId,
        id: &'a ServiceId,
        service: &'a Service,
        share: f64,
    ) -> impl Iterator<Item = (&'a ResourceId, f64, f64)> {
        let counted = self.regions.get(region).filter(|own| own.counted);
        let needs = counted.map(|own| (own, service.needs.iter()));
        needs.into_iter().flat_map(move |(own, needs)| {
            needs.filter_map(move |(resource, need)| {
                let need = need * share;
                let Some(account) = own.accounts.get(resource) else {
                    return Some((resource, 0.0, need));
                };
                let lacks = !account.has_room(id, need);
                lacks.then(|| (resource, account.free_for(id).max(0.0), need))
            })
        })
    }
}

impl RegionCapacity {
    fn account(&mut self, resource: &ResourceId) -> &mut Account {
        self.accounts.entry(resource.clone()).or_default()
    }
}

impl Account {
    /// A service uses as much: first what is set aside for it.
    fn take(&mut self, service: &ServiceId, amount: f64) {
        self.used += amount;
        if let Some(own) = self.reserved_for.get_mut(service) {
            let from_own = own.min(amount);
            *own -= from_own;
            self.reserved -= from_own;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reservation_counts_for_its_own_service_and_against_all_others() {
        let (mine, other) = ("mine", "other");
        let id = |text| ServiceId::parse(text).unwrap();
        let mut account = Account {
            offered: 100.0,
            kept: 10.0,
            reserved: 60.0,
            reserved_for: BTreeMap::from([(id(mine), 60.0)]),
            used: 0.0,
        };
        assert!(account.has_room(&id(mine), 90.0));
        assert!(!account.has_room(&id(other), 31.0));
        account.take(&id(mine), 80.0);
        assert_eq!((account.reserved, account.used), (0.0, 80.0));
        assert!(account.has_room(&id(other), 10.0));
        assert!(!account.has_room(&id(other), 10.1));
    }
}
