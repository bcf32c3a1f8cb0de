//! Services, offers and overrides of a scenario as written, and their conversion.

use std::collections::{BTreeMap, BTreeSet};

use leeward_common::{
    config::{ConfigError, Span, Spanned},
    id::{OfferId, OverrideId, RegionId, ResourceId, ServiceId},
    ratio::Ratio,
    time::Timestamp,
};
use serde::Deserialize;

use super::{Rate, RawEvent, RawScenario, Reader};
use crate::{
    intent::{
        Amendment, Change, Failback, Limits, Offer, Override, Owner, Profile, Replication, Rule,
        Service,
    },
    scenario::Action,
};

/// Who makes a scenario's changes.
const WHO: &str = "scenario";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawService {
    id: Spanned<ServiceId>,
    home: Spanned<RegionId>,
    #[serde(default)]
    candidates: Vec<Spanned<RegionId>>,
    #[serde(default)]
    weights: BTreeMap<Spanned<RegionId>, Spanned<f64>>,
    #[serde(default)]
    clients: BTreeMap<Spanned<RegionId>, Spanned<f64>>,
    #[serde(default)]
    profile: RawProfile,
    #[serde(default)]
    limits: RawLimits,
    #[serde(default)]
    needs: BTreeMap<ResourceId, Spanned<f64>>,
    #[serde(default)]
    divisible: bool,
    #[serde(default)]
    require: BTreeMap<String, BTreeSet<String>>,
    #[serde(default)]
    forbid: BTreeMap<String, BTreeSet<String>>,
    #[serde(default)]
    depends_on: Vec<Spanned<ServiceId>>,
    #[serde(default)]
    replication: Replication,
    #[serde(default)]
    priority: u8,
    rto: Option<Span>,
    rpo: Option<Span>,
    failback: Option<Failback>,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RawProfile {
    #[default]
    Balanced,
    Latency,
    Loss,
    Bandwidth,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawLimits {
    rtt_p50: Option<Span>,
    rtt_p99: Option<Span>,
    jitter: Option<Span>,
    loss: Option<Ratio>,
    bandwidth: Option<Rate>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawOffer {
    id: Spanned<OfferId>,
    region: Spanned<RegionId>,
    amounts: BTreeMap<ResourceId, Spanned<f64>>,
    until: Option<Span>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawOverride {
    id: Spanned<OverrideId>,
    drain: Option<Spanned<RegionId>>,
    pin: Option<Spanned<RegionId>>,
    forbid: Option<Spanned<RegionId>>,
    freeze: Option<bool>,
    primary: Option<Spanned<RegionId>>,
    service: Option<Spanned<ServiceId>>,
    until: Span,
}

/// Every id that something is put under, so that a name that nothing bears is found.
#[derive(Default)]
pub(super) struct Named {
    services: BTreeSet<ServiceId>,
    offers: BTreeSet<OfferId>,
    overrides: BTreeSet<OverrideId>,
}

impl Named {
    pub(super) fn of(raw: &RawScenario) -> Self {
        let later = || raw.event.iter().map(Spanned::get_ref);
        let services = later().filter_map(|event| event.put_service.as_ref());
        let services = raw.service.iter().chain(services);
        let offers = later().filter_map(|event| event.put_offer.as_ref());
        let offers = raw.offer.iter().chain(offers);
        let overrides = later().filter_map(|event| event.put_override.as_ref());
        let overrides = raw.rule.iter().chain(overrides);
        Self {
            services: services
                .map(|own| own.get_ref().id.get_ref().clone())
                .collect(),
            offers: offers
                .map(|own| own.get_ref().id.get_ref().clone())
                .collect(),
            overrides: overrides
                .map(|own| own.get_ref().id.get_ref().clone())
                .collect(),
        }
    }
}

impl Reader<'_> {
    /// What is there from the start.
    pub(super) fn intents(
        &self,
        services: Vec<Spanned<RawService>>,
        offers: Vec<Spanned<RawOffer>>,
        overrides: Vec<Spanned<RawOverride>>,
    ) -> Result<Vec<Action>, ConfigError> {
        let services = services.into_iter().map(|own| self.service(own));
        let offers = offers.into_iter().map(|own| self.offer(own));
        let overrides = overrides.into_iter().map(|own| self.rule(own));
        let all = services.chain(offers).chain(overrides);
        all.map(|what| what.map(|what| change("", what))).collect()
    }

    /// What an event changes about services, offers and overrides.
    pub(super) fn changes(&self, raw: &mut RawEvent) -> Result<Vec<Action>, ConfigError> {
        let mut all = Vec::new();
        if let Some(service) = raw.put_service.take() {
            all.push(self.service(service)?);
        }
        if let Some(id) = &raw.remove_service {
            all.push(Amendment::RemoveService(self.service_id(id)?));
        }
        if let Some(offer) = raw.put_offer.take() {
            all.push(self.offer(offer)?);
        }
        if let Some(id) = &raw.remove_offer {
            let id = self.put("offer", id, &self.named.offers)?;
            all.push(Amendment::RemoveOffer(id));
        }
        if let Some(own) = raw.put_override.take() {
            all.push(self.rule(own)?);
        }
        if let Some(id) = &raw.lift_override {
            let id = self.put("override", id, &self.named.overrides)?;
            all.push(Amendment::LiftOverride(id));
        }
        let why = raw.say.clone().unwrap_or_default();
        Ok(all.into_iter().map(|what| change(&why, what)).collect())
    }

    pub(super) fn service_id(&self, id: &Spanned<ServiceId>) -> Result<ServiceId, ConfigError> {
        self.put("service", id, &self.named.services)
    }

    fn put<T: Clone + Ord + std::fmt::Display>(
        &self,
        what: &str,
        id: &Spanned<T>,
        all: &BTreeSet<T>,
    ) -> Result<T, ConfigError> {
        if all.contains(id.get_ref()) {
            return Ok(id.get_ref().clone());
        }
        let message = format!("{what} {} is put nowhere in this scenario", id.get_ref());
        Err(self.document.error(id.span(), message))
    }

    fn service(&self, written: Spanned<RawService>) -> Result<Amendment, ConfigError> {
        let raw = written.into_inner();
        let mut candidates = Vec::new();
        for id in &raw.candidates {
            let candidate = self.region(id)?;
            if candidates.contains(&candidate) {
                let message = format!("candidate {candidate} is named twice");
                return Err(self.document.error(id.span(), message));
            }
            candidates.push(candidate);
        }
        let depends_on = raw.depends_on.iter().map(|id| self.service_id(id));
        let service = Service {
            home: self.region(&raw.home)?,
            candidates,
            multipliers: self.by_region(&raw.weights)?,
            clients: self.by_region(&raw.clients)?,
            profile: match raw.profile {
                RawProfile::Balanced => Profile::Balanced,
                RawProfile::Latency => Profile::Latency,
                RawProfile::Loss => Profile::Loss,
                RawProfile::Bandwidth => Profile::Bandwidth,
            },
            limits: Limits {
                rtt_p50: raw.limits.rtt_p50.map(|span| span.0),
                rtt_p99: raw.limits.rtt_p99.map(|span| span.0),
                jitter: raw.limits.jitter.map(|span| span.0),
                loss: raw.limits.loss.map(Ratio::get),
                bandwidth_bps: raw.limits.bandwidth.map(|rate| rate.0 as f64),
            },
            needs: self.amounts(&raw.needs)?,
            divisible: raw.divisible,
            require: raw.require,
            forbid: raw.forbid,
            depends_on: depends_on.collect::<Result<_, _>>()?,
            replication: raw.replication,
            priority: raw.priority,
            rto: raw.rto.map(|span| span.0),
            rpo: raw.rpo.map(|span| span.0),
            failback: raw.failback,
        };
        Ok(Amendment::PutService(
            raw.id.into_inner(),
            Box::new(service),
        ))
    }

    fn offer(&self, written: Spanned<RawOffer>) -> Result<Amendment, ConfigError> {
        let raw = written.into_inner();
        let offer = Offer {
            region: self.region(&raw.region)?,
            amounts: self.amounts(&raw.amounts)?,
            until: raw.until.map(|span| Timestamp::EPOCH + span.0),
        };
        Ok(Amendment::PutOffer(raw.id.into_inner(), offer))
    }

    fn rule(&self, written: Spanned<RawOverride>) -> Result<Amendment, ConfigError> {
        let span = written.span();
        let raw = written.into_inner();
        let owner = self.owner(raw.primary.as_ref(), raw.service.as_ref(), &span)?;
        let rule = match (&raw.drain, &raw.pin, &raw.forbid, raw.freeze, owner) {
            (Some(region), None, None, None, None) => Rule::Drain {
                region: self.region(region)?,
            },
            (None, Some(region), None, None, Some(owner)) => Rule::Pin {
                owner,
                region: self.region(region)?,
            },
            (None, None, Some(region), None, Some(owner)) => Rule::Forbid {
                owner,
                region: self.region(region)?,
            },
            (None, None, None, Some(true), owner) => Rule::Freeze { owner },
            _ => {
                let message = "an override is drain = \"a\"; pin or forbid = \"a\" with a primary or a service; \
                               or freeze = true, with one or without";
                return Err(self.document.error(span, message));
            }
        };
        let until = Timestamp::EPOCH + raw.until.0;
        Ok(Amendment::PutOverride(
            raw.id.into_inner(),
            Override { rule, until },
        ))
    }

    /// A primary region or a service; `None` if neither is written.
    pub(super) fn owner(
        &self,
        primary: Option<&Spanned<RegionId>>,
        service: Option<&Spanned<ServiceId>>,
        span: &std::ops::Range<usize>,
    ) -> Result<Option<Owner>, ConfigError> {
        match (primary, service) {
            (None, None) => Ok(None),
            (Some(primary), None) => Ok(Some(Owner::Region(self.region(primary)?))),
            (None, Some(service)) => Ok(Some(Owner::Service(self.service_id(service)?))),
            (Some(_), Some(_)) => {
                let message = "write a primary or a service, not both";
                Err(self.document.error(span.clone(), message))
            }
        }
    }

    fn by_region(
        &self,
        written: &BTreeMap<Spanned<RegionId>, Spanned<f64>>,
    ) -> Result<BTreeMap<RegionId, f64>, ConfigError> {
        let one = |(region, number): (&Spanned<RegionId>, &Spanned<f64>)| {
            Ok((self.region(region)?, self.above_zero(number)?))
        };
        written.iter().map(one).collect()
    }

    fn amounts(
        &self,
        written: &BTreeMap<ResourceId, Spanned<f64>>,
    ) -> Result<BTreeMap<ResourceId, f64>, ConfigError> {
        let one = |(resource, number): (&ResourceId, &Spanned<f64>)| {
            Ok((resource.clone(), self.above_zero(number)?))
        };
        written.iter().map(one).collect()
    }

    fn above_zero(&self, number: &Spanned<f64>) -> Result<f64, ConfigError> {
        let value = *number.get_ref();
        if (1e-9..=1e12).contains(&value) {
            return Ok(value);
        }
        let message = format!("{value} is out of range; write a number above 0, up to 1e12");
        Err(self.document.error(number.span(), message))
    }
}

fn change(why: &str, what: Amendment) -> Action {
    Action::Change(Box::new(Change {
        who: WHO.to_owned(),
        why: why.to_owned(),
        what,
    }))
}
