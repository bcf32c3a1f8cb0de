//! Gates, then score.
//!
//! The gates stand in [`crate::gate`]; a candidate that fails one is not eligible and says why.
//!
//! The score of those that pass is baseline weight times network weight; the highest wins.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use leeward_common::{
    id::{RegionId, ServiceId},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::{
    baseline::baseline,
    capacity::Capacity,
    checks::Checks,
    clients::Mesh,
    decision::Share,
    gate,
    intent::{Intents, Owner, Service},
    overrides::{self, Rules},
    policy::{Policy, RoutingRules, Weights},
    predict::Predictions,
    readiness::{Limit, Readiness},
    routing::{Observers, Outlook, RoutingEvidence},
    signal::{self, ActiveSignal},
    view::{Estimate, Estimates, Knowledge, Pair, PairView, RegionState, RegionView},
    weight::{self, Addend, Fact, Sum},
};

pub use crate::gate::{Refusal, RefusalCode};

/// What a ranking is made from: the parts of an engine's state or of a [`crate::view::View`].
#[derive(Clone, Copy, Debug)]
pub struct Picture<'a> {
    /// When.
    pub now: Timestamp,
    /// The policy in force.
    pub policy: &'a Policy,
    /// Regions of the policy and whether they are up.
    pub regions: &'a BTreeMap<RegionId, RegionView>,
    /// What is known between two regions.
    pub pairs: &'a BTreeMap<Pair, Arc<PairView>>,
    /// What is expected of links that nobody measured.
    pub predictions: &'a Predictions,
    /// What others said.
    pub signals: &'a [ActiveSignal],
    /// What agents found when they asked services for an answer.
    pub checks: &'a Checks,
    /// What routers tell against regions.
    pub routing: &'a RoutingEvidence,
    /// Services, capacity and overrides.
    pub intents: &'a Intents,
    /// What each region offers, and what is taken of it.
    pub capacity: &'a Capacity,
    /// What was found of each service and region last.
    pub readiness: &'a Readiness,
    /// Where each service runs.
    pub running: &'a BTreeMap<ServiceId, Vec<Share>>,
    /// What the links look like to clients, if it was made already.
    pub(crate) mesh: Option<&'a Mesh<'a>>,
}

/// Whose candidates are to be judged, and by what.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// Whose selection it is.
    pub owner: Owner,
    /// The primary region; a service's home.
    pub primary: &'a RegionId,
    /// The candidates.
    pub candidates: Vec<RegionId>,
    /// Multipliers of the baseline weight, 1 where absent.
    pub multipliers: Option<&'a BTreeMap<RegionId, f64>>,
    /// The numbers of both weights.
    pub weights: Weights,
    /// The service, if the selection is one's.
    pub described: Option<&'a Service>,
    /// What is selected now: gates that concern only who comes are not asked of it.
    pub current: Vec<Share>,
}

impl<'a> Request<'a> {
    /// Who stands in for a primary region, as configured.
    #[must_use]
    pub fn of_region(policy: &'a Policy, primary: &'a RegionId) -> Self {
        let multipliers = policy.failovers.get(primary).map(|own| &own.weights);
        Self {
            multipliers,
            ..Self::of_candidates(policy, primary, policy.candidates(primary))
        }
    }

    /// Who of these would stand in for a primary region.
    #[must_use]
    pub fn of_candidates(
        policy: &Policy,
        primary: &'a RegionId,
        candidates: Vec<RegionId>,
    ) -> Self {
        Self {
            owner: Owner::Region(primary.clone()),
            primary,
            candidates,
            multipliers: None,
            weights: policy.weights.clone(),
            described: None,
            current: Vec::new(),
        }
    }

    /// Where a service should run.
    #[must_use]
    pub fn of_service(policy: &Policy, id: &ServiceId, service: &'a Service) -> Self {
        Self {
            owner: Owner::Service(id.clone()),
            primary: &service.home,
            candidates: service.regions(policy),
            multipliers: Some(&service.multipliers),
            weights: service.weights(policy),
            described: Some(service),
            current: Vec::new(),
        }
    }

    /// The same, while this is selected.
    #[must_use]
    pub fn selected(self, current: Vec<Share>) -> Self {
        Self { current, ..self }
    }

    /// The service's id, if the selection is one's.
    #[must_use]
    pub const fn service(&self) -> Option<&ServiceId> {
        match &self.owner {
            Owner::Region(_) => None,
            Owner::Service(service) => Some(service),
        }
    }
}

/// Candidates, best first; those not eligible last, in the order of their ids.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Ranking {
    /// The candidates.
    pub candidates: Vec<Candidate>,
    /// From where they are judged.
    pub perspective: Perspective,
}

/// From where candidates are judged.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Perspective {
    /// By the links between the primary and each candidate.
    #[default]
    Primary,
    /// The primary is down or silent: by the links between the other regions and each candidate, put together so that
    /// a single bad one does not count.
    Survivors,
    /// By the links between a service's clients and each candidate, by their shares.
    Clients,
}

/// One candidate of a ranking.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Candidate {
    /// The candidate.
    pub region: RegionId,
    /// Whether it may be selected.
    pub eligible: bool,
    /// Why not; empty if it may.
    pub reasons: Vec<Refusal>,
    /// Weight from geography and capacity, above 0; higher is better.
    pub baseline: f64,
    /// Live quality of the link, 0..=1 before signals; higher is better; `None` if unknown.
    pub network: Option<f64>,
    /// Baseline times network; `None` if unknown.
    pub score: Option<f64>,
    /// Lower bound of the score's natural logarithm at 95 % confidence; `None` if unknown.
    #[serde(default)]
    pub log_low: Option<f64>,
    /// Upper bound.
    #[serde(default)]
    pub log_high: Option<f64>,
    /// Score over the best eligible score, 0..=1, for display; `None` unless eligible.
    pub normalised: Option<f64>,
    /// What makes up the score: the logarithms add up to its logarithm.
    pub contributions: Vec<Contribution>,
    /// Median round-trip time, microseconds.
    pub rtt_p50_us: Option<Estimate>,
    /// 99th percentile of the round-trip time, microseconds.
    pub rtt_p99_us: Option<Estimate>,
    /// 99th percentile minus minimum, microseconds.
    pub jitter_us: Option<Estimate>,
    /// Share of unanswered probes.
    pub loss: Option<Estimate>,
    /// Bits per second, where known.
    pub bandwidth_bps: Option<Estimate>,
    /// Agents with fresh evidence about the link.
    pub vantage_points: u32,
    /// Age of the newest evidence; `None` without any.
    pub data_age: Option<Duration>,
    /// Whose link to the candidate was judged; `None` if it was not a single region's.
    pub seen_from: Option<RegionId>,
    /// Whether nobody measures the link, so that its round-trip time is what is expected of it and the rest is what other
    /// regions see.
    #[serde(default)]
    pub predicted: bool,
}

/// One addend of a score's logarithm.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Contribution {
    /// What it stands for.
    pub term: Term,
    /// Natural logarithm of the factor; 0 is neutral, lower is worse.
    pub log_value: f64,
    /// Its lower bound at 95 % confidence; `None` if it is known, not measured.
    #[serde(default)]
    pub log_low: Option<f64>,
    /// Its upper bound.
    #[serde(default)]
    pub log_high: Option<f64>,
    /// The fact behind it, in words.
    pub detail: String,
}

/// What a contribution stands for.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Term {
    /// Baseline: great-circle distance from the primary.
    Distance,
    /// Baseline: capacity.
    Capacity,
    /// Baseline: the multiplier of the failover configuration.
    Configured,
    /// Network: median round-trip time.
    LatencyP50,
    /// Network: 99th percentile of the round-trip time.
    LatencyP99,
    /// Network: jitter.
    Jitter,
    /// Network: loss.
    Loss,
    /// Network: bandwidth.
    Bandwidth,
    /// Network: evidence that nobody renewed is worth less.
    Staleness,
    /// Network: what routers tell against the region; never above 0.
    Routing,
    /// Network: all signals of one source.
    Signal(leeward_common::id::SourceId),
}

impl Term {
    /// The term for people.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::Distance => "distance".to_owned(),
            Self::Capacity => "capacity".to_owned(),
            Self::Configured => "configured weight".to_owned(),
            Self::LatencyP50 => "median latency".to_owned(),
            Self::LatencyP99 => "99th percentile of latency".to_owned(),
            Self::Jitter => "jitter".to_owned(),
            Self::Loss => "loss".to_owned(),
            Self::Bandwidth => "bandwidth".to_owned(),
            Self::Staleness => "missing evidence".to_owned(),
            Self::Routing => "routing".to_owned(),
            Self::Signal(source) => format!("signals of {source}"),
        }
    }
}

impl Ranking {
    /// The best eligible candidate.
    #[must_use]
    pub fn best(&self) -> Option<&Candidate> {
        self.candidates.first().filter(|best| best.eligible)
    }

    /// One candidate.
    #[must_use]
    pub fn candidate(&self, region: &RegionId) -> Option<&Candidate> {
        self.candidates
            .iter()
            .find(|candidate| candidate.region == *region)
    }
}

impl Candidate {
    /// Natural logarithm of the score: the contributions, added up in order.
    #[must_use]
    pub fn log_score(&self) -> Option<f64> {
        let sum = self
            .contributions
            .iter()
            .map(|contribution| contribution.log_value)
            .sum();
        self.score.map(|_| sum)
    }
}

/// Ranks the candidates of a request.
#[must_use]
pub fn rank(picture: &Picture<'_>, request: &Request<'_>) -> Ranking {
    let (perspective, appraisals) = appraise(picture, request);
    ranking(picture, perspective, &appraisals)
}

/// Appraisals for people.
pub(crate) fn ranking(
    picture: &Picture<'_>,
    perspective: Perspective,
    appraisals: &[Appraisal],
) -> Ranking {
    let best = appraisals.first().filter(|best| best.refusal.is_none());
    let best = best.and_then(Appraisal::log_score);
    Ranking {
        perspective,
        candidates: appraisals
            .iter()
            .map(|own| own.candidate(picture.now, picture.policy, best))
            .collect(),
    }
}

/// What a candidate is worth, in numbers.
#[derive(Clone, Debug)]
pub(crate) struct Appraisal {
    pub(crate) region: RegionId,
    /// The first gate that it does not pass.
    pub(crate) refusal: Option<Refusal>,
    /// The other gates that it does not pass, in their order.
    pub(crate) further: Vec<Refusal>,
    /// What nobody knows about it.
    pub(crate) doubts: Vec<Refusal>,
    /// The service's limits that it breaks.
    pub(crate) broken: BTreeSet<Limit>,
    baseline: Sum,
    network: Option<Sum>,
    pair: Option<Arc<PairView>>,
    seen_from: Option<RegionId>,
    /// Whether its round-trip time is expected and not measured.
    pub(crate) predicted: bool,
    /// What routers tell against it, as part of the network weight.
    routing: Option<Addend>,
    /// That no way to it is left, as routers tell.
    withdrawn: Option<Refusal>,
}

/// Appraises candidates and puts them in order: those that may be selected first, best first; then by id.
pub(crate) fn appraise(
    picture: &Picture<'_>,
    request: &Request<'_>,
) -> (Perspective, Vec<Appraisal>) {
    let own_mesh;
    let mesh = match (request.described, picture.mesh) {
        (None, _) => None,
        (Some(_), Some(mesh)) => Some(mesh),
        (Some(_), None) => {
            own_mesh = Mesh::new(picture);
            Some(&own_mesh)
        }
    };
    let perspective = match request.owner {
        Owner::Region(_) => perspective(picture, request.primary),
        Owner::Service(_) => Perspective::Clients,
    };
    let rules = overrides::rules(picture.intents, &request.owner);
    let mut appraisals: Vec<_> = request
        .candidates
        .iter()
        .map(|candidate| appraise_one(picture, request, mesh, &rules, perspective, candidate))
        .collect();
    let withdrawn = |own: &Appraisal| own.withdrawn.clone();
    refuse_while_others_pass(&mut appraisals, withdrawn, |_| false);
    spread_risk(picture, request, &mut appraisals);
    appraisals.sort_by(|a, b| {
        let refused = |own: &Appraisal| own.refusal.is_some();
        let value = |own: &Appraisal| match refused(own) {
            true => 0.0,
            false => own.log_score().unwrap_or(f64::NEG_INFINITY),
        };
        (refused(a).cmp(&refused(b)))
            .then(value(b).total_cmp(&value(a)))
            .then(a.region.cmp(&b.region))
    });
    (perspective, appraisals)
}

/// Refuses who shares a risk with a region that is failing, while others pass all gates; who is there stays.
fn spread_risk(picture: &Picture<'_>, request: &Request<'_>, appraisals: &mut [Appraisal]) {
    let failing = gate::failing(picture, request);
    if failing.is_empty() {
        return;
    }
    let risk = |own: &Appraisal| gate::shared_risk(picture, &failing, &own.region);
    let stays = |own: &Appraisal| {
        let mut current = request.current.iter();
        current.any(|share| share.region == own.region)
    };
    refuse_while_others_pass(appraisals, risk, stays);
}

/// Refuses those whom something speaks against, but who is spared, while others pass all gates whom nothing speaks against.
fn refuse_while_others_pass(
    appraisals: &mut [Appraisal],
    against: impl Fn(&Appraisal) -> Option<Refusal>,
    is_spared: impl Fn(&Appraisal) -> bool,
) {
    let passes = |own: &Appraisal| own.refusal.is_none() && against(own).is_none();
    if !appraisals.iter().any(passes) {
        return;
    }
    for own in appraisals.iter_mut().filter(|own| !is_spared(own)) {
        if let Some(refusal) = against(own) {
            match own.refusal {
                None => own.refusal = Some(refusal),
                Some(_) => own.further.push(refusal),
            }
        }
    }
}

/// From where to judge: from the primary while it is up, or at least somebody measures between it and others.
fn perspective(picture: &Picture<'_>, primary: &RegionId) -> Perspective {
    if picture
        .regions
        .get(primary)
        .is_some_and(|region| region.state == RegionState::Down)
    {
        return Perspective::Survivors;
    }
    let fresh =
        |pair: &PairView| pair.estimates.knowledge(picture.now, picture.policy) == Knowledge::Fresh;
    let others = picture.regions.keys().filter(|other| *other != primary);
    let mut own = others.filter_map(|other| picture.pairs.get(&Pair::new(primary, other)));
    if own.any(|pair| fresh(pair)) || !picture.pairs.values().any(|pair| fresh(pair)) {
        Perspective::Primary
    } else {
        Perspective::Survivors
    }
}

fn appraise_one(
    picture: &Picture<'_>,
    request: &Request<'_>,
    mesh: Option<&Mesh<'_>>,
    rules: &Rules<'_>,
    perspective: Perspective,
    candidate: &RegionId,
) -> Appraisal {
    let primary = request.primary;
    let configured = request
        .multipliers
        .and_then(|all| all.get(candidate))
        .copied();
    let mut own = Appraisal {
        region: candidate.clone(),
        refusal: None,
        further: Vec::new(),
        doubts: Vec::new(),
        broken: BTreeSet::new(),
        baseline: Sum::default(),
        network: None,
        pair: None,
        seen_from: None,
        predicted: false,
        routing: None,
        withdrawn: None,
    };
    let policy = picture.policy;
    if let (Some(home), Some(region)) = (policy.regions.get(primary), policy.regions.get(candidate))
    {
        baseline(
            &request.weights,
            home,
            region,
            configured,
            &mut own.baseline,
        );
    }
    if let Some(observed) = match perspective {
        Perspective::Primary => {
            observe(picture, &request.weights, primary, candidate).or_else(|| {
                let predicted = predict(picture, &request.weights, primary, candidate);
                own.predicted = predicted.is_some();
                predicted
            })
        }
        Perspective::Survivors => {
            observe_by_survivors(picture, &request.weights, primary, candidate)
        }
        Perspective::Clients => {
            mesh.and_then(|mesh| observe_by_clients(picture, request, mesh, candidate))
        }
    } {
        own.seen_from = observed.from;
        own.pair = Some(observed.pair);
        own.network = observed.network;
    }
    own.heed(
        routing(picture, request, perspective, candidate),
        &policy.routing,
    );
    let sight = gate::Sight {
        region: candidate,
        pair: own.pair.as_deref(),
        weighed: own.network.is_some(),
    };
    let found = gate::examine(picture, request, rules, &sight);
    let mut refusals = found.refusals.into_iter();
    own.refusal = refusals.next();
    own.further = refusals.collect();
    (own.doubts, own.broken) = (found.doubts, found.broken);
    own
}

/// What routers tell against a candidate, as heard where it is judged from.
fn routing(
    picture: &Picture<'_>,
    request: &Request<'_>,
    perspective: Perspective,
    candidate: &RegionId,
) -> Outlook {
    let clients = request.described.map(|service| service.clients.keys());
    let clients: BTreeSet<_> = clients.into_iter().flatten().collect();
    let from = match perspective {
        Perspective::Primary => Observers::Region(request.primary),
        Perspective::Survivors => Observers::AllBut(Some(request.primary)),
        Perspective::Clients if clients.is_empty() => Observers::AllBut(None),
        Perspective::Clients => Observers::Regions(&clients),
    };
    picture
        .routing
        .outlook(&picture.policy.routing, from, candidate)
}

/// A candidate as seen from one region.
struct Observed {
    /// `None` if it is seen from several.
    from: Option<RegionId>,
    pair: Arc<PairView>,
    network: Option<Sum>,
}

fn observe(
    picture: &Picture<'_>,
    weights: &Weights,
    from: &RegionId,
    candidate: &RegionId,
) -> Option<Observed> {
    let pair = picture.pairs.get(&Pair::new(from, candidate))?;
    let staleness = pair.estimates.staleness(picture.now, picture.policy);
    let mut network = weight::network(weights, &pair.estimates, staleness);
    if let Some(network) = &mut network {
        signal::pull(picture.policy, picture.signals, from, candidate, network);
    }
    Some(Observed {
        from: Some(from.clone()),
        pair: Arc::clone(pair),
        network,
    })
}

/// As the service's clients see it; signals about links count as seen from its home.
fn observe_by_clients(
    picture: &Picture<'_>,
    request: &Request<'_>,
    mesh: &Mesh<'_>,
    candidate: &RegionId,
) -> Option<Observed> {
    let pair = mesh.seen(picture, request.described?, candidate)?;
    let staleness = pair.estimates.staleness(picture.now, picture.policy);
    let mut network = weight::network(&request.weights, &pair.estimates, staleness);
    if let Some(network) = &mut network {
        signal::pull(
            picture.policy,
            picture.signals,
            request.primary,
            candidate,
            network,
        );
    }
    Some(Observed {
        from: None,
        pair,
        network,
    })
}

/// A candidate whose link to the primary nobody measures: its round-trip time is the one that is expected, and the rest is
/// what other regions see of it.
fn predict(
    picture: &Picture<'_>,
    weights: &Weights,
    primary: &RegionId,
    candidate: &RegionId,
) -> Option<Observed> {
    let expected = picture.predictions.rtt_us(&Pair::new(primary, candidate))?;
    let mut pair = seen_by_others(picture, primary, candidate)?;
    let (Some(p50), Some(p99)) = (pair.estimates.rtt_p50_us, pair.estimates.rtt_p99_us) else {
        return None;
    };
    let tail = (p99.value - p50.value).max(0.0);
    pair.estimates.rtt_p50_us = Some(expected);
    pair.estimates.rtt_p99_us = Some(Estimate {
        value: expected.value + tail,
        low: expected.low + tail,
        high: expected.high + tail,
        n: expected.n,
    });
    let staleness = pair.estimates.staleness(picture.now, picture.policy);
    let mut network = weight::network(weights, &pair.estimates, staleness);
    if let Some(network) = &mut network {
        network.say_expected();
        signal::pull(picture.policy, picture.signals, primary, candidate, network);
    }
    Some(Observed {
        from: None,
        pair: Arc::new(pair),
        network,
    })
}

/// What the regions that are left see, put together; signals about links count as seen from the primary.
fn observe_by_survivors(
    picture: &Picture<'_>,
    weights: &Weights,
    primary: &RegionId,
    candidate: &RegionId,
) -> Option<Observed> {
    let pair = Arc::new(seen_by_others(picture, primary, candidate)?);
    let staleness = pair.estimates.staleness(picture.now, picture.policy);
    let mut network = weight::network(weights, &pair.estimates, staleness);
    if let Some(network) = &mut network {
        signal::pull(picture.policy, picture.signals, primary, candidate, network);
    }
    Some(Observed {
        from: None,
        pair,
        network,
    })
}

/// What all regions but the primary see of a candidate, put together.
fn seen_by_others(
    picture: &Picture<'_>,
    primary: &RegionId,
    candidate: &RegionId,
) -> Option<PairView> {
    let is_left = |(id, region): &(&RegionId, &RegionView)| {
        *id != primary && *id != candidate && region.state != RegionState::Down
    };
    let regions = picture.regions.iter().filter(is_left);
    let pairs = regions.filter_map(|(from, _)| picture.pairs.get(&Pair::new(from, candidate)));
    let is_fresh = |pair: &&Arc<PairView>| {
        pair.estimates.knowledge(picture.now, picture.policy) == Knowledge::Fresh
    };
    let pairs: Vec<_> = pairs.filter(is_fresh).collect();
    PairView::combined(&pairs)
}

impl Appraisal {
    /// What routers tell lowers its weight, and may be a reason not to select it.
    fn heed(&mut self, outlook: Outlook, rules: &RoutingRules) {
        let log_value = outlook.log_value(rules);
        self.withdrawn = outlook.withdrawn.map(|detail| Refusal {
            code: RefusalCode::Withdrawn,
            detail,
        });
        if let Some(network) = &mut self.network
            && log_value < 0.0
        {
            let addend = Addend::exact(Term::Routing, log_value, Fact::Routing(outlook.words));
            network.push(addend.clone());
            self.routing = Some(addend);
        }
    }

    /// What of the score's logarithm is what routers tell; never above 0.
    pub(crate) fn log_routing(&self) -> f64 {
        self.routing.as_ref().map_or(0.0, |own| own.log_value)
    }

    /// All gates that it does not pass, in their order.
    pub(crate) fn refusals(&self) -> impl Iterator<Item = &Refusal> + Clone {
        self.refusal.iter().chain(&self.further)
    }

    /// Natural logarithm of the score: its addends, added up in order; `None` if unknown.
    pub(crate) fn log_score(&self) -> Option<f64> {
        self.network.as_ref()?;
        Some(self.addends().map(|addend| addend.log_value).sum())
    }

    /// How far the bounds of the score's logarithm are below and above it.
    pub(crate) fn doubt(&self) -> (f64, f64) {
        let network = self.network.as_ref();
        network.map_or((0.0, 0.0), |network| (network.below(), network.above()))
    }

    /// What was measured.
    pub(crate) fn estimates(&self) -> Option<&Estimates> {
        self.pair.as_ref().map(|pair| &pair.estimates)
    }

    /// The score's logarithm if this had been measured instead, by the same functions.
    pub(crate) fn log_score_if(
        &self,
        picture: &Picture<'_>,
        request: &Request<'_>,
        estimates: &Estimates,
    ) -> Option<f64> {
        let observer = self.seen_from.as_ref().unwrap_or(request.primary);
        let staleness = estimates.staleness(picture.now, picture.policy);
        let mut network = weight::network(&request.weights, estimates, staleness)?;
        let (policy, signals) = (picture.policy, picture.signals);
        signal::pull(policy, signals, observer, &self.region, &mut network);
        let addends = self.baseline.addends().iter().chain(network.addends());
        let addends = addends.chain(&self.routing);
        Some(addends.map(|addend| addend.log_value).sum())
    }

    /// The addends of the score's logarithm.
    pub(crate) fn addends(&self) -> impl Iterator<Item = &Addend> {
        let network = self.network.iter().flat_map(Sum::addends);
        self.baseline.addends().iter().chain(network)
    }

    fn candidate(&self, now: Timestamp, policy: &Policy, best: Option<f64>) -> Candidate {
        let eligible = self.refusal.is_none();
        let estimates = self.pair.as_ref().map(|pair| &pair.estimates);
        let contribution = |addend: &Addend| Contribution {
            term: addend.term.clone(),
            log_value: addend.log_value,
            log_low: is_measured(addend).then_some(addend.log_low),
            log_high: is_measured(addend).then_some(addend.log_high),
            detail: addend.words(),
        };
        let (below, above) = self.doubt();
        let normalised = match (self.log_score(), best) {
            (Some(own), Some(best)) if eligible => Some((own - best).exp()),
            _ => None,
        };
        Candidate {
            region: self.region.clone(),
            eligible,
            reasons: self.refusals().cloned().collect(),
            baseline: self.baseline.total().exp(),
            network: self.network.as_ref().map(|network| network.total().exp()),
            score: self.log_score().map(f64::exp),
            log_low: self.log_score().map(|log| log - below),
            log_high: self.log_score().map(|log| log + above),
            normalised,
            contributions: self.addends().map(contribution).collect(),
            rtt_p50_us: estimates.and_then(|all| all.rtt_p50_us),
            rtt_p99_us: estimates.and_then(|all| all.rtt_p99_us),
            jitter_us: estimates.and_then(|all| all.jitter_us),
            loss: estimates.and_then(|all| all.loss),
            bandwidth_bps: estimates.and_then(|all| all.bandwidth_bps),
            vantage_points: estimates.map_or(0, |all| all.vantage_points(now, policy)),
            data_age: estimates.and_then(|all| all.age(now)),
            seen_from: self.seen_from.clone(),
            predicted: self.predicted,
        }
    }
}

fn is_measured(addend: &Addend) -> bool {
    addend.log_low < addend.log_high
}
