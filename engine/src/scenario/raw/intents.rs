//! Services, offers and overrides of a scenario: the API's own form, with times that count from the scenario's start.

use std::collections::BTreeSet;

use leeward_common::{
    api::v1::{Defined, Time},
    check::Outcome,
    config::{ConfigError, Span, Spanned},
    id::{CheckId, OfferId, OverrideId, RegionId, ServiceId},
    time::Timestamp,
};
use serde::{Deserialize, de::DeserializeOwned};

use super::{RawEvent, RawScenario, Reader};
use crate::{
    intent::Owner,
    scenario::{Action, CheckAction, Intent},
};

/// A table with an `id`, read as a whole once it is known what it is.
pub(super) type RawDefined = Spanned<toml::Table>;

/// What becomes of a check.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCheck {
    service: Spanned<ServiceId>,
    check: Option<CheckId>,
    region: Spanned<RegionId>,
    #[serde(default)]
    from: Vec<Spanned<RegionId>>,
    outcome: Option<Outcome>,
}

/// Every id that something is put under, so that a name that nothing bears is found.
#[derive(Default)]
pub(super) struct Named(BTreeSet<(&'static str, String)>);

impl Named {
    pub(super) fn of(raw: &RawScenario) -> Self {
        let later = || raw.event.iter().map(Spanned::get_ref);
        let services = later().filter_map(|event| event.put_service.as_ref());
        let services = raw
            .service
            .iter()
            .chain(services)
            .map(|own| ("service", own));
        let offers = later().filter_map(|event| event.put_offer.as_ref());
        let offers = raw.offer.iter().chain(offers).map(|own| ("offer", own));
        let overrides = later().filter_map(|event| event.put_override.as_ref());
        let overrides = raw.overriding.iter().chain(overrides);
        let overrides = overrides.map(|own| ("override", own));
        let all = services.chain(offers).chain(overrides);
        let named = all.filter_map(|(noun, own)| {
            let id = own.get_ref().get("id")?.as_str()?;
            Some((noun, id.to_owned()))
        });
        Self(named.collect())
    }
}

impl Reader<'_> {
    /// What is there from the start.
    pub(super) fn intents(
        &self,
        services: Vec<RawDefined>,
        offers: Vec<RawDefined>,
        overrides: Vec<RawDefined>,
    ) -> Result<Vec<Action>, ConfigError> {
        let services = services.into_iter().map(|own| self.service(own));
        let offers = offers.into_iter().map(|own| self.offer(own));
        let overrides = overrides.into_iter().map(|own| self.rule(own));
        services.chain(offers).chain(overrides).collect()
    }

    /// What an event changes about services, offers and overrides.
    pub(super) fn changes(&self, raw: &mut RawEvent) -> Result<Vec<Action>, ConfigError> {
        let mut all = Vec::new();
        if let Some(check) = &raw.check_fails {
            let usual = Some(Outcome::Status);
            all.push(self.check(check, check.get_ref().outcome.or(usual))?);
        }
        if let Some(check) = &raw.check_passes {
            all.push(self.check(check, None)?);
        }
        if let Some(service) = raw.put_service.take() {
            all.push(self.service(service)?);
        }
        if let Some(id) = &raw.remove_service {
            let id = self.service_id(id)?;
            all.push(Action::Intent(Intent::RemoveService(id)));
        }
        if let Some(offer) = raw.put_offer.take() {
            all.push(self.offer(offer)?);
        }
        if let Some(id) = &raw.remove_offer {
            let id: OfferId = self.put("offer", id)?;
            all.push(Action::Intent(Intent::RemoveOffer(id)));
        }
        if let Some(own) = raw.put_override.take() {
            all.push(self.rule(own)?);
        }
        if let Some(id) = &raw.lift_override {
            let id: OverrideId = self.put("override", id)?;
            all.push(Action::Intent(Intent::LiftOverride(id)));
        }
        Ok(all)
    }

    fn check(
        &self,
        written: &Spanned<RawCheck>,
        outcome: Option<Outcome>,
    ) -> Result<Action, ConfigError> {
        let raw = written.get_ref();
        let fails = outcome.is_some_and(|own| own.passes() != Some(true));
        if outcome.is_some() != fails || (outcome.is_none() && raw.outcome.is_some()) {
            let message =
                "check_fails may say by which outcome, like \"timeout\", and check_passes none";
            return Err(self.document.error(written.span(), message));
        }
        let from: Result<Vec<_>, _> = raw.from.iter().map(|own| self.region(own)).collect();
        Ok(Action::Check(CheckAction {
            service: self.service_id(&raw.service)?,
            check: raw.check.clone(),
            region: self.region(&raw.region)?,
            from: from?,
            outcome,
        }))
    }

    fn service_id(&self, id: &Spanned<ServiceId>) -> Result<ServiceId, ConfigError> {
        self.put("service", id)
    }

    /// An id under which something is put somewhere.
    fn put<T: Clone + std::fmt::Display>(
        &self,
        noun: &'static str,
        id: &Spanned<T>,
    ) -> Result<T, ConfigError> {
        let name = id.get_ref().to_string();
        if self.named.0.contains(&(noun, name.clone())) {
            return Ok(id.get_ref().clone());
        }
        let message = format!("{noun} {name} is put nowhere in this scenario");
        Err(self.document.error(id.span(), message))
    }

    fn service(&self, written: RawDefined) -> Result<Action, ConfigError> {
        self.defined(written, |id, spec| Defined::Service(id, Box::new(spec)))
    }

    fn offer(&self, written: RawDefined) -> Result<Action, ConfigError> {
        self.defined(written, Defined::Offer)
    }

    fn rule(&self, mut written: RawDefined) -> Result<Action, ConfigError> {
        // An operator must say why; of a scenario, its description says it.
        let why = || toml::Value::String("as the scenario says".to_owned());
        written.get_mut().entry("why").or_insert_with(why);
        self.defined(written, Defined::Override)
    }

    fn defined<Id: DeserializeOwned, Spec: DeserializeOwned>(
        &self,
        written: RawDefined,
        make: impl FnOnce(Id, Spec) -> Defined,
    ) -> Result<Action, ConfigError> {
        let span = written.span();
        let error = |message: String| self.document.error(span.clone(), message);
        let in_place = |fault: toml::de::Error| error(fault.message().to_owned());
        let mut table = written.into_inner();
        let Some(id) = table.remove("id") else {
            return Err(error("the table has no id; add id = \"…\"".to_owned()));
        };
        if let Some(until) = table.remove("until") {
            let Span(until) = Span::deserialize(until).map_err(in_place)?;
            let until = Time(Timestamp::EPOCH + until);
            table.insert("until".to_owned(), toml::Value::String(until.to_string()));
        }
        let id = Id::deserialize(id).map_err(in_place)?;
        let spec = Spec::deserialize(toml::Value::Table(table)).map_err(in_place)?;
        let defined = make(id, spec);
        let name = format!("{} {}", defined.noun(), defined.id());
        if let Err(fault) = defined.check() {
            return Err(error(format!("{name}: {fault}")));
        }
        for (_, region) in defined.regions() {
            self.region(&Spanned::new(span.clone(), region.clone()))?;
        }
        Ok(Action::Intent(Intent::Put(Box::new(defined))))
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
}
