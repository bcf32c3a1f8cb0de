//! What people define: services, capacity and overrides. One form for each, the same in a request body, in a file of
//! definitions and in the journal.
//!
//! A definition says nothing about who wrote it or where it holds: [`Known`] adds that in answers. What is wrong with
//! one by itself is found here ([`Defined::check`]); whether its regions exist is the aggregator's to say. Spans of time
//! are written with their unit (`"80ms"`, `"2h"`), since people write them too.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{CheckSpec, MAX_CHECKS, Time};
use crate::{
    bgp::Prefix,
    config::Span,
    id::{CheckId, OfferId, OverrideId, RegionId, ReservationId, ResourceId, ServiceId},
};

/// The longest `why`, in bytes.
pub const MAX_WHY: usize = 1_000;

/// A service: where it may run, what it needs, and what it is sensitive to.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ServiceSpec {
    /// Where it belongs, and where it runs when it is first heard of.
    pub home: RegionId,
    /// Where it may run beside its home, none twice; every other region if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<RegionId>,
    /// Multipliers of the baseline weight by region, 0.000001 to 1000000; 1 where absent.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub multipliers: BTreeMap<RegionId, f64>,
    /// Where its users are: shares above 0, by region. Where empty, every region counts alike.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub clients: BTreeMap<RegionId, f64>,
    /// What it is sensitive to.
    #[serde(default)]
    pub profile: ServiceProfile,
    /// What it cannot do without: a region that breaks one of these cannot serve.
    #[serde(default, skip_serializing_if = "ServiceLimits::is_empty")]
    pub limits: ServiceLimits,
    /// What it takes of a region's capacity, above 0, by resource.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub needs: BTreeMap<ResourceId, f64>,
    /// Whether it may run in several regions at once, by shares.
    #[serde(default)]
    pub divisible: bool,
    /// Labels that a region must have: one of these values each.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub require: BTreeMap<String, BTreeSet<String>>,
    /// Labels that a region must not have: any of these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub forbid: BTreeMap<String, BTreeSet<String>>,
    /// Services that must be able to run where it runs, or be reachable within its limits.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub depends_on: BTreeSet<ServiceId>,
    /// What agents of other regions ask of it where it runs or could run.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub checks: BTreeMap<CheckId, CheckSpec>,
    /// How its data gets to where it may run.
    #[serde(default)]
    pub replication: Replication,
    /// 0 is the most important; services of a lower number are placed first when capacity is short.
    #[serde(default)]
    pub priority: u8,
    /// Recovery time objective: how soon it must run again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rto: Option<Span>,
    /// Recovery point objective: how much of its data, in time, may be lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rpo: Option<Span>,
    /// How it comes back to its home; the policy's way if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failback: Option<Failback>,
    /// Why it is so, in the words of who wrote it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// What a service is sensitive to: which numbers make its network weight.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ServiceProfile {
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
    Custom(Box<WeightsSpec>),
}

/// The numbers of both weights, as `[policy.weights]` of aggregator.toml explains them. Exponents are 0 to 100.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct WeightsSpec {
    /// Great-circle distance in km at which proximity is worth a half.
    pub distance_scale_km: f64,
    /// Exponent of the proximity.
    pub distance: f64,
    /// Exponent of the capacity.
    pub capacity: f64,
    /// Round-trip time at which the latency utility is a half.
    pub latency_scale: Span,
    /// Exponent of the utility of the median round-trip time.
    pub latency_p50: f64,
    /// Exponent of the utility of its 99th percentile.
    pub latency_p99: f64,
    /// Jitter at which the jitter utility is a half.
    pub jitter_scale: Span,
    /// Exponent of the jitter utility.
    pub jitter: f64,
    /// Exponent of `1 - loss`.
    pub loss: f64,
    /// Bits per second at which the bandwidth utility is a half.
    pub bandwidth_scale_bps: f64,
    /// Exponent of the bandwidth utility.
    pub bandwidth: f64,
    /// No single term counts for less than this factor, above 0 and below 1.
    pub floor: f64,
}

/// Service levels. What is absent is no limit.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ServiceLimits {
    /// The highest median round-trip time from its clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_p50: Option<Span>,
    /// The highest 99th percentile of the round-trip time from its clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_p99: Option<Span>,
    /// The highest jitter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<Span>,
    /// The highest loss, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_ratio: Option<f64>,
    /// The lowest bandwidth, bits per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth_bps: Option<f64>,
}

/// How a service's data gets to where it may run.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Replication {
    /// It has none, or it is somebody else's affair.
    #[default]
    None,
    /// It lags behind by what signals say; beyond the recovery point objective a region is not ready.
    Asynchronous,
    /// It does not lag, but its writes wait for the link: the latency limits hold between home and replica too.
    Synchronous,
}

/// How a service comes back to its home after it was driven away.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Failback {
    /// By itself, slower than it left.
    Automatic,
    /// Only by hand.
    Manual,
}

/// Capacity that a region offers. Several offers of one region add up.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct OfferSpec {
    /// Where.
    pub region: RegionId,
    /// How much, at least 0, by resource; at least one.
    pub amounts: BTreeMap<ResourceId, f64>,
    /// Until when; without an end if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Time>,
    /// Why it is so, in the words of who wrote it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// The prefixes that a region is reached by, instead of those that the aggregator's configuration gives it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ReachSpec {
    /// The prefixes, like `198.51.100.0/24`; at least one, none twice, 1,024 at most.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub prefixes: Vec<Prefix>,
    /// The systems that may announce them and their parts, 64 at most; empty if that is not known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub origins: Vec<u32>,
    /// Why it is so, in the words of who wrote it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// The most prefixes that one region is reached by.
const MAX_PREFIXES: usize = 1_024;

/// The most systems that may announce them.
const MAX_ORIGINS: usize = 64;

impl ReachSpec {
    fn check(&self) -> Result<(), Fault> {
        let named: BTreeSet<_> = self.prefixes.iter().collect();
        if self.prefixes.is_empty()
            || self.prefixes.len() > MAX_PREFIXES
            || named.len() < self.prefixes.len()
        {
            let detail = format!("must name 1 to {MAX_PREFIXES} prefixes, none twice");
            return Err(Fault::new(
                "prefixes",
                detail,
                "list each once, like \"198.51.100.0/24\"",
            ));
        }
        if let Some(place) = self.prefixes.iter().position(|own| own.length() == 0) {
            let what_to_do = "give the prefix that is this region's own";
            return Err(Fault::new(
                format!("prefixes[{place}]"),
                "is a default route, which leads everywhere",
                what_to_do,
            ));
        }
        if self.origins.len() > MAX_ORIGINS {
            let detail = format!("holds more than {MAX_ORIGINS} systems");
            return Err(Fault::new(
                "origins",
                detail,
                "name those that announce the prefixes",
            ));
        }
        Ok(())
    }
}

/// Capacity of a region set aside for a service, or for nobody's service.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ReservationSpec {
    /// Where.
    pub region: RegionId,
    /// For whom; for somebody outside if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceId>,
    /// How much, above 0, by resource; at least one.
    pub amounts: BTreeMap<ResourceId, f64>,
    /// Until when.
    pub until: Time,
    /// Why it is so, in the words of who wrote it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// An operator knows better, until it expires.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct OverrideSpec {
    /// What holds.
    pub rule: OverrideRule,
    /// Which region; every rule but `freeze` needs one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<RegionId>,
    /// Whose selection, if a service's: `pin` and `forbid` need this or `primary_region`, `freeze` may have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceId>,
    /// Whose selection, if it is about which region stands in for this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary_region: Option<RegionId>,
    /// For `drain`: whether the region is drained for a fault that regions of its risk groups may share; then these are
    /// avoided too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspect: bool,
    /// Until when; at most as far ahead as `max_override` of aggregator.toml allows.
    pub until: Time,
    /// Why, in the words of who wrote it; not empty.
    pub why: String,
}

/// What an override says.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum OverrideRule {
    /// Nothing may be placed in the region, and what is there leaves it: maintenance.
    Drain,
    /// The service, or what stands in for the primary region, stays in the region whatever happens.
    Pin,
    /// The service, or what stands in for the primary region, may not be in the region.
    Forbid,
    /// Nothing moves: neither the service, nor what stands in for the primary region, nor anything if neither is named.
    Freeze,
}

impl OverrideRule {
    /// The word in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Drain => "drain",
            Self::Pin => "pin",
            Self::Forbid => "forbid",
            Self::Freeze => "freeze",
        }
    }
}

impl fmt::Display for OverrideRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One thing of any noun, under its id.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Defined {
    /// A service.
    Service(ServiceId, Box<ServiceSpec>),
    /// An offer of capacity.
    Offer(OfferId, OfferSpec),
    /// A reservation of capacity.
    Reservation(ReservationId, ReservationSpec),
    /// An override.
    Override(OverrideId, OverrideSpec),
    /// By which prefixes a region is reached.
    Reach(RegionId, ReachSpec),
}

/// What is wrong with a definition.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fault {
    /// The member, like `limits.loss_ratio`.
    pub path: String,
    /// What is wrong with it.
    pub detail: String,
    /// What to write instead.
    pub what_to_do: String,
}

impl Fault {
    /// A fault of this member.
    #[must_use]
    pub fn new(
        path: impl Into<String>,
        detail: impl Into<String>,
        what_to_do: impl Into<String>,
    ) -> Self {
        Self {
            path: path.into(),
            detail: detail.into(),
            what_to_do: what_to_do.into(),
        }
    }
}

/// Whether a reason can stand in the audit log.
///
/// # Errors
///
/// Returns why not.
pub fn check_why(why: &str) -> Result<(), Fault> {
    if why.len() > MAX_WHY || why.chars().any(char::is_control) {
        let detail = format!("is longer than {MAX_WHY} bytes or holds control characters");
        return Err(Fault::new("why", detail, "say it on one shorter line"));
    }
    Ok(())
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}; {}", self.path, self.detail, self.what_to_do)
    }
}

impl Defined {
    /// What kind of thing it is.
    #[must_use]
    pub const fn noun(&self) -> &'static str {
        match self {
            Self::Service(..) => "service",
            Self::Offer(..) => "offer",
            Self::Reservation(..) => "reservation",
            Self::Override(..) => "override",
            Self::Reach(..) => "reach",
        }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            Self::Service(id, _) => id.as_str(),
            Self::Offer(id, _) => id.as_str(),
            Self::Reservation(id, _) => id.as_str(),
            Self::Override(id, _) => id.as_str(),
            Self::Reach(id, _) => id.as_str(),
        }
    }

    /// Why it is so.
    #[must_use]
    pub fn why(&self) -> &str {
        match self {
            Self::Service(_, spec) => &spec.why,
            Self::Offer(_, spec) => &spec.why,
            Self::Reservation(_, spec) => &spec.why,
            Self::Override(_, spec) => &spec.why,
            Self::Reach(_, spec) => &spec.why,
        }
    }

    /// Whether it makes sense by itself.
    ///
    /// # Errors
    ///
    /// Returns the first member that does not, and what to write instead.
    pub fn check(&self) -> Result<(), Fault> {
        check_why(self.why())?;
        match self {
            Self::Service(id, spec) => spec.check(id),
            Self::Offer(_, spec) => amounts("amounts", &spec.amounts, 0.0, true),
            Self::Reservation(_, spec) => {
                amounts("amounts", &spec.amounts, f64::MIN_POSITIVE, true)
            }
            Self::Override(_, spec) => spec.check(),
            Self::Reach(_, spec) => spec.check(),
        }
    }

    /// Every region that it names, and by which member.
    #[must_use]
    pub fn regions(&self) -> Vec<(String, &RegionId)> {
        match self {
            Self::Service(_, spec) => spec.regions(),
            Self::Offer(_, spec) => vec![("region".to_owned(), &spec.region)],
            Self::Reservation(_, spec) => vec![("region".to_owned(), &spec.region)],
            Self::Override(_, spec) => {
                let named = [
                    ("region", &spec.region),
                    ("primary_region", &spec.primary_region),
                ];
                let named = named.into_iter();
                named
                    .filter_map(|(path, region)| Some((path.to_owned(), region.as_ref()?)))
                    .collect()
            }
            Self::Reach(id, _) => vec![("id".to_owned(), id)],
        }
    }
}

impl ServiceLimits {
    /// Whether nothing is limited.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl ServiceSpec {
    fn check(&self, id: &ServiceId) -> Result<(), Fault> {
        let mut seen = BTreeSet::new();
        for (at, region) in self.candidates.iter().enumerate() {
            if !seen.insert(region) {
                let detail = format!("names {region} twice");
                return Err(Fault::new(
                    format!("candidates.{at}"),
                    detail,
                    "name each region once",
                ));
            }
        }
        for (region, factor) in &self.multipliers {
            number(
                &format!("multipliers.{region}"),
                *factor,
                1e-6,
                1e6,
                "1 is neutral",
            )?;
        }
        for (region, share) in &self.clients {
            number(
                &format!("clients.{region}"),
                *share,
                1e-9,
                1e9,
                "shares are relative",
            )?;
        }
        amounts("needs", &self.needs, f64::MIN_POSITIVE, false)?;
        self.limits.check()?;
        if let ServiceProfile::Custom(weights) = &self.profile {
            weights.check()?;
        }
        for (path, labels) in [("require", &self.require), ("forbid", &self.forbid)] {
            if let Some((label, _)) = labels.iter().find(|(_, values)| values.is_empty()) {
                return Err(Fault::new(
                    format!("{path}.{label}"),
                    "names no value",
                    "list the values, or leave it out",
                ));
            }
        }
        if self.depends_on.contains(id) {
            return Err(Fault::new(
                "depends_on",
                format!("names {id} itself"),
                "name other services only",
            ));
        }
        if self.checks.len() > MAX_CHECKS {
            let detail = format!("holds {} checks", self.checks.len());
            let what_to_do = format!("use at most {MAX_CHECKS}");
            return Err(Fault::new("checks", detail, what_to_do));
        }
        for (check, spec) in &self.checks {
            spec.check(&format!("checks.{check}"))?;
        }
        for (path, span) in [("rto", self.rto), ("rpo", self.rpo)] {
            span_within(path, span, Duration::from_secs(366 * 86_400))?;
        }
        Ok(())
    }

    fn regions(&self) -> Vec<(String, &RegionId)> {
        let candidates = self.candidates.iter().enumerate();
        let multipliers = self.multipliers.keys();
        let clients = self.clients.keys();
        std::iter::once(("home".to_owned(), &self.home))
            .chain(candidates.map(|(at, region)| (format!("candidates.{at}"), region)))
            .chain(multipliers.map(|region| (format!("multipliers.{region}"), region)))
            .chain(clients.map(|region| (format!("clients.{region}"), region)))
            .chain(
                self.checks
                    .iter()
                    .flat_map(|(id, spec)| spec.regions(&format!("checks.{id}"))),
            )
            .collect()
    }
}

impl ServiceLimits {
    fn check(&self) -> Result<(), Fault> {
        let spans = [
            ("limits.latency_p50", self.latency_p50),
            ("limits.latency_p99", self.latency_p99),
            ("limits.jitter", self.jitter),
        ];
        for (path, span) in spans {
            span_within(path, span, Duration::from_secs(60))?;
        }
        if let Some(loss) = self.loss_ratio {
            number("limits.loss_ratio", loss, 0.0, 1.0, "0.01 is one percent")?;
        }
        if let Some(bps) = self.bandwidth_bps {
            number("limits.bandwidth_bps", bps, 1.0, 1e15, "bits per second")?;
        }
        Ok(())
    }
}

impl WeightsSpec {
    fn check(&self) -> Result<(), Fault> {
        let exponents = [
            ("distance", self.distance),
            ("capacity", self.capacity),
            ("latency_p50", self.latency_p50),
            ("latency_p99", self.latency_p99),
            ("jitter", self.jitter),
            ("loss", self.loss),
            ("bandwidth", self.bandwidth),
        ];
        for (name, exponent) in exponents {
            let path = format!("profile.custom.{name}");
            number(&path, exponent, 0.0, 100.0, "0 switches it off")?;
        }
        let path = |name: &str| format!("profile.custom.{name}");
        let hint = "it is where the utility is a half";
        number(
            &path("distance_scale_km"),
            self.distance_scale_km,
            1.0,
            1e5,
            hint,
        )?;
        number(
            &path("bandwidth_scale_bps"),
            self.bandwidth_scale_bps,
            1.0,
            1e15,
            hint,
        )?;
        number(
            &path("floor"),
            self.floor,
            1e-9,
            0.999_999,
            "it is a factor",
        )?;
        let longest = Duration::from_secs(60);
        span_within(&path("latency_scale"), Some(self.latency_scale), longest)?;
        span_within(&path("jitter_scale"), Some(self.jitter_scale), longest)
    }
}

impl OverrideSpec {
    fn check(&self) -> Result<(), Fault> {
        if self.why.trim().is_empty() {
            return Err(Fault::new(
                "why",
                "is empty",
                "say why: whoever is paged next reads it",
            ));
        }
        let rule = self.rule;
        match (rule, &self.region) {
            (OverrideRule::Freeze, Some(_)) => {
                return Err(Fault::new(
                    "region",
                    "has no meaning for freeze",
                    "leave it out; `service` or `primary_region` say what is frozen",
                ));
            }
            (OverrideRule::Drain | OverrideRule::Pin | OverrideRule::Forbid, None) => {
                return Err(Fault::new(
                    "region",
                    format!("is missing, and {rule} needs it"),
                    "name the region",
                ));
            }
            _ => {}
        }
        if self.suspect && rule != OverrideRule::Drain {
            return Err(Fault::new(
                "suspect",
                format!("has no meaning for {rule}"),
                "leave it out",
            ));
        }
        match (rule, &self.service, &self.primary_region) {
            (_, Some(_), Some(_)) => Err(Fault::new(
                "primary_region",
                "stands beside service",
                "name one of the two",
            )),
            (OverrideRule::Drain, None, None) | (OverrideRule::Freeze, ..) => Ok(()),
            (OverrideRule::Drain, Some(_), _) => Err(whose("service")),
            (OverrideRule::Drain, None, Some(_)) => Err(whose("primary_region")),
            (OverrideRule::Pin | OverrideRule::Forbid, None, None) => Err(Fault::new(
                "service",
                format!("is missing, and {rule} needs to know whose selection it is"),
                "name `service`, or `primary_region`",
            )),
            (OverrideRule::Pin | OverrideRule::Forbid, ..) => Ok(()),
        }
    }
}

fn whose(path: &str) -> Fault {
    Fault::new(
        path,
        "has no meaning for drain, which concerns everybody",
        "leave it out, or use forbid",
    )
}

fn amounts(
    path: &str,
    amounts: &BTreeMap<ResourceId, f64>,
    least: f64,
    some: bool,
) -> Result<(), Fault> {
    if some && amounts.is_empty() {
        return Err(Fault::new(
            path,
            "is empty",
            "name at least one resource, like { vcpu = 64 }",
        ));
    }
    for (resource, amount) in amounts {
        if !(least..=1e15).contains(amount) {
            let detail = format!("is {amount}");
            let least = if least > 0.0 {
                "above 0"
            } else {
                "of 0 or more"
            };
            let what_to_do = format!("use a number {least} and up to 1e15");
            return Err(Fault::new(format!("{path}.{resource}"), detail, what_to_do));
        }
    }
    Ok(())
}

fn number(path: &str, value: f64, least: f64, most: f64, hint: &str) -> Result<(), Fault> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    let what_to_do = format!("use {least} to {most}; {hint}");
    Err(Fault::new(path, format!("is {value}"), what_to_do))
}

fn span_within(path: &str, span: Option<Span>, longest: Duration) -> Result<(), Fault> {
    match span {
        Some(Span(span)) if span.is_zero() || span > longest => {
            let detail = format!("is {:?}", Span(span).to_string());
            let what_to_do = format!(
                "use more than \"0s\" and up to {:?}",
                Span(longest).to_string()
            );
            Err(Fault::new(path, detail, what_to_do))
        }
        _ => Ok(()),
    }
}
