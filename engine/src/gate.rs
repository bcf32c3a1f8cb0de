//! The gates: what a candidate must pass before its score counts.
//!
//! In their order; the first that a candidate fails decides what is said of it first, and all others that it fails
//! follow. What concerns only who comes (*) is not asked of a region where the service runs already.
//!
//! 1. Overrides: [`RefusalCode::Forbidden`], [`RefusalCode::Drained`].
//! 2. Sense: [`RefusalCode::UnknownRegion`], [`RefusalCode::IsPrimary`].
//! 3. Reach: [`RefusalCode::Down`], by a quorum of observers. It stands before what is known of its links, since a
//!    region that is down is left at once, and one that is unknown is waited for.
//! 4. Freshness: [`RefusalCode::NoEvidence`], [`RefusalCode::Stale`], [`RefusalCode::TooFewProbes`].
//! 5. Reach from here: [`RefusalCode::Unreachable`].
//! 6. Readiness: [`RefusalCode::CheckFailed`], [`RefusalCode::Unchecked`] (*), [`RefusalCode::DependencyMissing`],
//!    [`RefusalCode::ReplicaBehind`] (*).
//! 7. Service levels: [`RefusalCode::BreaksLimits`].
//! 8. Room: [`RefusalCode::NoRoom`] (*).
//! 9. Residency and labels: [`RefusalCode::LabelMissing`], [`RefusalCode::LabelForbidden`].
//! 10. Shared risk (*): [`RefusalCode::SharedRisk`], only while another candidate passes all other gates.
//! 11. Routing: [`RefusalCode::Withdrawn`], only while another candidate passes all other gates: what routers tell leaves
//!     nobody with nothing.
//! 12. [`RefusalCode::Suppressed`]: it was moved to and from too often lately.

use std::collections::{BTreeMap, BTreeSet};

use leeward_common::id::{RegionId, ServiceId};
use serde::{Deserialize, Serialize};

use crate::{
    checks::Finding,
    input::{Metric, Subject},
    intent::{Limits, Owner, Replication, Rule, Service},
    overrides::{self, Rules},
    readiness::{Limit, ReadinessState, Standing},
    select::{Picture, Request},
    view::{Estimate, Estimates, Knowledge, Pair, PairView, RegionState},
    weight::percent,
};

/// Why a candidate may not be selected.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Refusal {
    /// A stable word for programs.
    pub code: RefusalCode,
    /// The fact behind it, in words.
    pub detail: String,
}

/// The gates; see the module's documentation for their order.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalCode {
    /// An override forbids it for this owner.
    Forbidden,
    /// An override drains it.
    Drained,
    /// The policy has no such region.
    UnknownRegion,
    /// It is the primary itself.
    IsPrimary,
    /// A quorum of observers sees it as lost.
    Down,
    /// Nothing was measured yet.
    NoEvidence,
    /// What was measured is too old.
    Stale,
    /// What was measured is too little.
    TooFewProbes,
    /// Others reach it, but nothing between it and the primary is answered.
    Unreachable,
    /// Most of the regions that ask see a check of the service fail there.
    CheckFailed,
    /// Nobody has carried out a check lately that the service requires.
    Unchecked,
    /// A service that this one depends on is not reached from there within its limits.
    DependencyMissing,
    /// The data there lags behind by more than the recovery point objective.
    ReplicaBehind,
    /// It breaks a limit of the service.
    BreaksLimits,
    /// What the service needs is not free there.
    NoRoom,
    /// It has not a label that the service requires.
    LabelMissing,
    /// It has a label that the service forbids.
    LabelForbidden,
    /// It shares a risk with a region that is failing.
    SharedRisk,
    /// The prefix that it is reached by is withdrawn, and routers show no other way.
    Withdrawn,
    /// It was moved to and from too often lately.
    Suppressed,
}

impl RefusalCode {
    /// A stable word for programs.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Forbidden => "forbidden",
            Self::Drained => "drained",
            Self::UnknownRegion => "unknown_region",
            Self::IsPrimary => "is_primary",
            Self::Down => "down",
            Self::NoEvidence => "no_evidence",
            Self::Stale => "stale",
            Self::TooFewProbes => "too_few_probes",
            Self::Unreachable => "unreachable",
            Self::CheckFailed => "check_failed",
            Self::Unchecked => "unchecked",
            Self::DependencyMissing => "dependency_missing",
            Self::ReplicaBehind => "replica_behind",
            Self::BreaksLimits => "breaks_limits",
            Self::NoRoom => "no_room",
            Self::LabelMissing => "label_missing",
            Self::LabelForbidden => "label_forbidden",
            Self::SharedRisk => "shared_risk",
            Self::Withdrawn => "withdrawn",
            Self::Suppressed => "suppressed",
        }
    }
}

/// How much better than its limit a measure must be before a limit that was broken counts as kept again: a tenth.
const SLACK: f64 = 0.1;

/// The smallest part of a divisible service that is worth a region of its own.
pub(crate) const LEAST_SHARE: f64 = 0.01;

/// What is known of a candidate from where it is judged.
pub(crate) struct Sight<'a> {
    pub(crate) region: &'a RegionId,
    pub(crate) pair: Option<&'a PairView>,
    /// Whether it has a network weight.
    pub(crate) weighed: bool,
}

/// What the gates say of a candidate.
#[derive(Clone, Debug, Default)]
pub(crate) struct Findings {
    /// In the order of the gates.
    pub(crate) refusals: Vec<Refusal>,
    /// What nobody knows: no reason against it, but it may not be ready.
    pub(crate) doubts: Vec<Refusal>,
    /// The limits that it breaks.
    pub(crate) broken: BTreeSet<Limit>,
}

impl Findings {
    fn refuse(&mut self, code: RefusalCode, detail: String) {
        self.refusals.push(Refusal { code, detail });
    }

    fn doubt(&mut self, code: RefusalCode, detail: String) {
        self.doubts.push(Refusal { code, detail });
    }
}

/// Puts a candidate through the gates, but for those that ask about the other candidates.
pub(crate) fn examine(
    picture: &Picture<'_>,
    request: &Request<'_>,
    rules: &Rules<'_>,
    sight: &Sight<'_>,
) -> Findings {
    let mut found = Findings::default();
    overridden(rules, sight.region, &mut found);
    let known = |region: &RegionId| picture.policy.regions.contains_key(region);
    if let Some(region) = [request.primary, sight.region]
        .into_iter()
        .find(|own| !known(own))
    {
        found.refuse(
            RefusalCode::UnknownRegion,
            format!("region {region} is not configured"),
        );
        return found;
    }
    if sight.region == request.primary && matches!(request.owner, Owner::Region(_)) {
        found.refuse(
            RefusalCode::IsPrimary,
            "it is the primary itself".to_owned(),
        );
    }
    if let Some(region) = picture.regions.get(sight.region)
        && region.state == RegionState::Down
    {
        found.refuse(RefusalCode::Down, region.detail.clone());
    }
    let fresh = measured(picture, sight, &mut found);
    let (Some(service), Owner::Service(id)) = (request.described, &request.owner) else {
        return found;
    };
    let runs_here = request
        .current
        .iter()
        .any(|own| own.region == *sight.region);
    let before = picture
        .readiness
        .get(id)
        .and_then(|own| own.get(sight.region));
    checks(picture, id, service, sight.region, runs_here, &mut found);
    dependencies(picture, service, sight.region, &mut found);
    if !runs_here {
        replica(picture, id, service, sight.region, &mut found);
    }
    match fresh {
        Some(estimates) => {
            let clients = service.clients.keys();
            let clients: Vec<_> = match service.clients.is_empty() {
                true => vec![&service.home],
                false => clients.collect(),
            };
            let measures = measures(picture, &service.limits, &clients, sight.region, estimates);
            limits(measures, before, &mut found);
        }
        None => found.broken = before.map(|own| own.broken.clone()).unwrap_or_default(),
    }
    if !runs_here {
        room(picture, id, service, sight.region, &mut found);
    }
    labels(picture, service, sight.region, &mut found);
    found
}

fn overridden(rules: &Rules<'_>, region: &RegionId, found: &mut Findings) {
    if let Some((_, known)) = rules.forbids(region) {
        found.refuse(
            RefusalCode::Forbidden,
            format!("forbidden by {}", overrides::by(known)),
        );
    }
    if let Some((_, known)) = rules.drains(region) {
        found.refuse(
            RefusalCode::Drained,
            format!("drained by {}", overrides::by(known)),
        );
    }
}

/// Freshness, and reach from here. Returns the estimates if they are fresh.
fn measured<'a>(
    picture: &Picture<'_>,
    sight: &Sight<'a>,
    found: &mut Findings,
) -> Option<&'a Estimates> {
    let nothing = || "nothing was measured yet".to_owned();
    let Some(pair) = sight.pair else {
        found.refuse(RefusalCode::NoEvidence, nothing());
        return None;
    };
    let (policy, estimates) = (picture.policy, &pair.estimates);
    match estimates.knowledge(picture.now, policy) {
        Knowledge::Unknown => {
            found.refuse(RefusalCode::NoEvidence, nothing());
            return None;
        }
        Knowledge::Stale => {
            let age = estimates.age(picture.now).unwrap_or_default();
            let detail = format!("the newest evidence is {:.1} s old", age.as_secs_f64());
            found.refuse(RefusalCode::Stale, detail);
            return None;
        }
        Knowledge::Thin => {
            let detail = format!(
                "{} probes; at least {} are needed",
                estimates.n, policy.evidence.min_probes
            );
            found.refuse(RefusalCode::TooFewProbes, detail);
            return None;
        }
        Knowledge::Fresh => {}
    }
    let observers = estimates.vantage_points(picture.now, policy);
    if !sight.weighed || (observers >= 2 && pair.is_lost(picture.now, policy)) {
        let detail = format!("nothing between them is answered, say {observers} observers");
        found.refuse(RefusalCode::Unreachable, detail);
    }
    Some(estimates)
}

/// The service must answer agents of other regions as it should. That nobody asked is a reason not to go there if the
/// check is required, and never one to leave.
fn checks(
    picture: &Picture<'_>,
    id: &ServiceId,
    service: &Service,
    region: &RegionId,
    runs_here: bool,
    found: &mut Findings,
) {
    for own in picture.checks.findings(picture.now, id, service, region) {
        match own.finding {
            Finding::Passes => {}
            Finding::Fails => found.refuse(RefusalCode::CheckFailed, own.words()),
            Finding::Divided => found.doubt(RefusalCode::CheckFailed, own.words()),
            Finding::Silent if own.spec.required && !runs_here => {
                found.refuse(RefusalCode::Unchecked, own.words());
            }
            Finding::Silent => found.doubt(RefusalCode::Unchecked, own.words()),
        }
    }
}

/// A service that this one depends on must be ready to run there too, or run in a region that is reached from there
/// within its limits.
fn dependencies(picture: &Picture<'_>, service: &Service, region: &RegionId, found: &mut Findings) {
    for id in &service.depends_on {
        let Some(known) = picture.intents.services.get(id) else {
            found.doubt(
                RefusalCode::DependencyMissing,
                format!("it depends on {id}, which nobody has described"),
            );
            continue;
        };
        let standing = picture.readiness.get(id).and_then(|own| own.get(region));
        if standing.is_some_and(|own| own.state == ReadinessState::Ready) {
            continue;
        }
        let runs_in = picture.running.get(id).map_or(&[][..], Vec::as_slice);
        let reached = |there: &RegionId| is_reached(picture, &known.what.limits, region, there);
        if runs_in.iter().any(|share| reached(&share.region)) {
            continue;
        }
        let detail = match runs_in.first() {
            Some(share) => format!(
                "{id}, which it depends on, runs in {} and is not reached from there within its limits",
                share.region
            ),
            None => format!("{id}, which it depends on, runs nowhere"),
        };
        found.refuse(RefusalCode::DependencyMissing, detail);
    }
}

fn is_reached(picture: &Picture<'_>, limits: &Limits, from: &RegionId, to: &RegionId) -> bool {
    let state = picture.regions.get(to).map(|region| region.state);
    if state.is_none_or(|state| state == RegionState::Down) {
        return false;
    }
    if from == to {
        return true;
    }
    let Some(pair) = picture.pairs.get(&Pair::new(from, to)) else {
        return false;
    };
    let fresh = pair.estimates.knowledge(picture.now, picture.policy) == Knowledge::Fresh;
    fresh
        && !pair.is_lost(picture.now, picture.policy)
        && measures(picture, limits, &[from], to, &pair.estimates).all(|own| !own.is_broken(false))
}

/// Data must not lag behind by more than the objective; where it does not lag, the link that its writes wait for must
/// keep the limits.
fn replica(
    picture: &Picture<'_>,
    id: &ServiceId,
    service: &Service,
    region: &RegionId,
    found: &mut Findings,
) {
    match (&service.replication, service.rpo) {
        (Replication::Asynchronous, Some(rpo)) => match lag_us(picture, id, region) {
            None => found.doubt(
                RefusalCode::ReplicaBehind,
                "nobody says how far its data lags behind".to_owned(),
            ),
            Some(lag) if lag > rpo.as_micros() as f64 => {
                let detail = format!(
                    "its data lags {:.1} s behind; at most {:.1} s may be lost",
                    lag / 1e6,
                    rpo.as_secs_f64()
                );
                found.refuse(RefusalCode::ReplicaBehind, detail);
            }
            Some(_) => {}
        },
        (Replication::Synchronous, _) if *region != service.home => {
            let home_is_down = picture
                .regions
                .get(&service.home)
                .is_none_or(|home| home.state == RegionState::Down);
            if home_is_down {
                return;
            }
            if let Some(pair) = picture.pairs.get(&Pair::new(&service.home, region)) {
                let home = [&service.home];
                let broken = measures(picture, &service.limits, &home, region, &pair.estimates)
                    .find(|own| own.is_broken(false));
                if let Some(broken) = broken {
                    let detail = format!("from {}: {}", service.home, broken.words());
                    found.refuse(RefusalCode::ReplicaBehind, detail);
                }
            }
        }
        _ => {}
    }
}

/// The longest lag that anybody reports of a service's data in a region; of the region's data where nobody speaks of
/// the service's.
fn lag_us(picture: &Picture<'_>, id: &ServiceId, region: &RegionId) -> Option<f64> {
    let lags = picture
        .signals
        .iter()
        .filter(|own| own.metric == Metric::ReplicationLagUs);
    let of = |about: &Subject| {
        let mine = lags.clone().filter(|own| own.subject == *about);
        mine.map(|own| own.value).max_by(f64::total_cmp)
    };
    of(&Subject::Service(id.clone(), region.clone()))
        .or_else(|| of(&Subject::Region(region.clone())))
}

/// The lowest bandwidth that a signal tells between any of these regions and another. Beside its limit it counts in full:
/// how far its source may move a score is another matter.
fn told_bandwidth(picture: &Picture<'_>, from: &[&RegionId], to: &RegionId) -> Option<Estimate> {
    let between = |about: &Subject| match about {
        Subject::Link(a, b) => (b == to && from.contains(&a)) || (a == to && from.contains(&b)),
        _ => false,
    };
    let signals = picture.signals.iter();
    let told = signals.filter(|own| own.metric == Metric::BandwidthBps && between(&own.subject));
    let lowest = told.map(|own| own.value).min_by(f64::total_cmp)?;
    Some(Estimate {
        value: lowest,
        low: lowest,
        high: lowest,
        n: 1,
    })
}

fn limits(
    measures: impl Iterator<Item = Measure>,
    before: Option<&Standing>,
    found: &mut Findings,
) {
    let mut words = Vec::new();
    for own in measures {
        let was_broken = before.is_some_and(|before| before.broken.contains(&own.limit));
        if own.is_broken(was_broken) {
            words.push(own.words());
            found.broken.insert(own.limit);
        }
        if own.estimate.is_none() && own.limit == Limit::Bandwidth {
            found.doubt(
                RefusalCode::BreaksLimits,
                "nobody knows its bandwidth".to_owned(),
            );
        }
    }
    if !words.is_empty() {
        found.refuse(RefusalCode::BreaksLimits, words.join(", "));
    }
}

/// A limit and what was measured of it.
struct Measure {
    limit: Limit,
    /// In the unit of the estimate.
    bound: f64,
    estimate: Option<Estimate>,
}

/// The limits, and what is known of each between these regions and another: `estimates` is what was measured, and a
/// bandwidth that nobody has measured is what signals tell.
fn measures(
    picture: &Picture<'_>,
    limits: &Limits,
    from: &[&RegionId],
    to: &RegionId,
    estimates: &Estimates,
) -> impl Iterator<Item = Measure> + use<> {
    let bandwidth = limits.bandwidth_bps.and_then(|_| {
        let measured = estimates.bandwidth_bps;
        measured.or_else(|| told_bandwidth(picture, from, to))
    });
    let us = |span: std::time::Duration| span.as_micros() as f64;
    let all = [
        (Limit::RttP50, limits.rtt_p50.map(us), estimates.rtt_p50_us),
        (Limit::RttP99, limits.rtt_p99.map(us), estimates.rtt_p99_us),
        (Limit::Jitter, limits.jitter.map(us), estimates.jitter_us),
        (Limit::Loss, limits.loss, estimates.loss),
        (Limit::Bandwidth, limits.bandwidth_bps, bandwidth),
    ];
    all.into_iter().filter_map(|(limit, bound, estimate)| {
        Some(Measure {
            limit,
            bound: bound?,
            estimate,
        })
    })
}

impl Measure {
    /// A limit is broken from when the measure surely breaks it (at 95 % confidence) until it keeps it with [`SLACK`]:
    /// so a measure that lies at its limit does not flap. What was not measured breaks nothing.
    fn is_broken(&self, was_broken: bool) -> bool {
        let Some(estimate) = self.estimate else {
            return false;
        };
        match (self.limit == Limit::Bandwidth, was_broken) {
            (false, false) => estimate.low > self.bound,
            (false, true) => estimate.value > self.bound * (1.0 - SLACK),
            (true, false) => estimate.high < self.bound,
            (true, true) => estimate.value < self.bound * (1.0 + SLACK),
        }
    }

    fn words(&self) -> String {
        let show = |value: f64| match self.limit {
            Limit::RttP50 | Limit::RttP99 | Limit::Jitter => format!("{:.1} ms", value / 1e3),
            Limit::Loss => percent(value),
            Limit::Bandwidth => format!("{:.1} Mbit/s", value / 1e6),
        };
        let value = self.estimate.map_or(0.0, |estimate| estimate.value);
        format!(
            "{} {} (limit {})",
            self.limit.words(),
            show(value),
            show(self.bound)
        )
    }
}

fn room(
    picture: &Picture<'_>,
    id: &ServiceId,
    service: &Service,
    region: &RegionId,
    found: &mut Findings,
) {
    let share = if service.divisible { LEAST_SHARE } else { 1.0 };
    let lacking = picture.capacity.lacking(region, id, service, share);
    let words = lacking.map(|(resource, free, need)| {
        let of = if service.divisible {
            ", of which a hundredth is the least"
        } else {
            ""
        };
        format!("{resource}: {free:.1} free, {:.1} needed{of}", need / share)
    });
    let words: Vec<_> = words.collect();
    if !words.is_empty() {
        found.refuse(RefusalCode::NoRoom, words.join("; "));
    }
}

fn labels(picture: &Picture<'_>, service: &Service, region: &RegionId, found: &mut Findings) {
    let Some(own) = picture.policy.regions.get(region) else {
        return;
    };
    let list = |values: &BTreeSet<String>| {
        let words: Vec<_> = values.iter().map(String::as_str).collect();
        words.join(" or ")
    };
    for (label, values) in &service.require {
        if own
            .labels
            .get(label)
            .is_none_or(|value| !values.contains(value))
        {
            let value = own.labels.get(label).map_or("not set", String::as_str);
            let detail = format!("its {label} is {value}; {} is required", list(values));
            found.refuse(RefusalCode::LabelMissing, detail);
        }
    }
    for (label, values) in &service.forbid {
        if let Some(value) = own
            .labels
            .get(label)
            .filter(|value| values.contains(*value))
        {
            let detail = format!("its {label} is {value}, which is forbidden");
            found.refuse(RefusalCode::LabelForbidden, detail);
        }
    }
}

/// By risk group, the regions that are failing: down, or drained for a fault that others may share. For the selection of
/// a primary that is the primary too, since its failing is what the selection is for.
pub(crate) fn failing<'a>(
    picture: &Picture<'a>,
    request: &Request<'a>,
) -> BTreeMap<&'a str, &'a RegionId> {
    let mut groups = BTreeMap::new();
    let policy = picture.policy;
    if policy
        .regions
        .values()
        .all(|own| own.risk_groups.is_empty())
    {
        return groups;
    }
    let down = picture
        .regions
        .iter()
        .filter(|(_, own)| own.state == RegionState::Down);
    let suspect = picture.intents.overrides.values();
    let suspect = suspect.filter_map(|known| match &known.what.rule {
        Rule::Drain {
            region,
            suspect: true,
        } => Some(region),
        _ => None,
    });
    let primary = matches!(request.owner, Owner::Region(_)).then_some(request.primary);
    for region in down.map(|(region, _)| region).chain(suspect).chain(primary) {
        let own = policy.regions.get(region);
        for group in own.into_iter().flat_map(|own| &own.risk_groups) {
            groups.entry(group.as_str()).or_insert(region);
        }
    }
    groups
}

/// The risk that a candidate shares with a region that is failing.
pub(crate) fn shared_risk(
    picture: &Picture<'_>,
    failing: &BTreeMap<&str, &RegionId>,
    region: &RegionId,
) -> Option<Refusal> {
    let own = picture.policy.regions.get(region)?;
    let mut shared = own.risk_groups.iter().filter_map(|group| {
        let other = failing.get(group.as_str())?;
        (*other != region).then(|| format!("it shares {group} with {other}"))
    });
    Some(Refusal {
        code: RefusalCode::SharedRisk,
        detail: shared.next()?,
    })
}
